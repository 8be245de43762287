"""What a request may name, and this machine, as plain data: what `list`, `doctor` and `show` print or give as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.cli.parameters import parameters_of
from optimize.config import SECTIONS, Search, load_pipeline, shipped_pipelines
from optimize.errors import RequestError, unknown_name
from optimize.gates import Gates
from optimize.heads import HEADS
from optimize.planning import AUTO
from optimize.stages import STAGES
from optimize.targets import ANY_TARGET, TARGETS
from optimize.tuning.space import OWNER, Tuning

if TYPE_CHECKING:
    from pydantic import BaseModel

Document = dict[str, Any]
# Functions, since the shell asks for one of them at each press of the key, and files of pipelines are read for it.
KNOWN: dict[str, Callable[[], Iterable[str]]] = {
    "target": lambda: [*TARGETS, ANY_TARGET],
    "head": lambda: [*HEADS, "all"],
    "pipeline": lambda: [*shipped_pipelines(), AUTO],
    "show": lambda: dict.fromkeys([*STAGES, *shipped_pipelines(), *TARGETS, *HEADS, *SECTIONS[1:], OWNER]),
}
"""Names by what they are of, for the shell to complete."""


def list_names() -> dict[str, list[Document]]:
    """Everything that has a name, by kind, each as `describe` has it."""
    return {
        "targets": list(map(_describe_target, TARGETS)),
        "heads": list(map(_describe_head, HEADS)),
        "stages": list(map(_describe_stage, STAGES)),
        "pipelines": list(map(_describe_pipeline, shipped_pipelines())),
    }


def describe_machine() -> Document:
    """This machine, and for each target whether it runs here: on what, or why not."""
    from optimize.machine.environment import detect

    targets: list[Document] = []
    for name, target in TARGETS.items():
        reason = target.unavailable(target.runtime())
        device = {} if reason else target.describe(target.runtime())
        targets.append({"name": name, "runs": reason is None, "reason": reason, "device": device})
    return {"machine": detect().model_dump(mode="json", exclude={"device"}), "targets": targets}


def describe(name: str) -> list[Document]:
    """All that has this name: a target and its own pipeline share theirs. Refuses an unknown one."""
    found = []
    if name in STAGES:
        found.append(_describe_stage(name))
    if name in TARGETS:
        found.append(_describe_target(name))
    if name in HEADS:
        found.append(_describe_head(name))
    if name == "gates":
        found.append({"limits": name, "summary": "what the result of a pipeline must meet", "parameters": _rows(Gates)})
    if name == "search":
        summary = "how far a pipeline prunes before its candidates, and how long that may take"
        found.append({"section": name, "summary": summary, "parameters": _rows(Search)})
    if name == OWNER:
        summary = "what a search over fine-tunings tries, and how far it goes"
        found.append({"tuning": name, "summary": summary, "parameters": _rows(Tuning)})
    if name in shipped_pipelines() or name.endswith((".yaml", ".yml")):
        found.append(_describe_pipeline(name))
    if not found:
        raise unknown_name("show", name, KNOWN["show"]())
    return found


def _describe_stage(name: str) -> Document:
    stage = STAGES[name]
    users = []
    for pipeline in map(load_pipeline, shipped_pipelines()):
        # Every pipeline takes a stage that may be put first, whether it has it or not.
        if name in (step.stage for step in pipeline.stages):
            users.append(pipeline.name)
    return {
        "stage": name,
        "summary": stage.summary,
        "takes": stage.takes,
        "gives": stage.gives,
        "needs": list(stage.needs),
        "pipelines": users,
        "parameters": _rows(stage.params),
    }


def _describe_target(name: str) -> Document:
    target = TARGETS[name]
    facts = {"target": name, "summary": target.summary, "runs": target.runs, "extra": target.extra}
    return {**facts, "parameters": _rows(target.runtime)}


def _describe_head(name: str) -> Document:
    head = HEADS[name]
    # The last layout is the head's own; those before it are of well-known data sets.
    columns = {role.removesuffix("?"): list(names) for role, names in head.dataset[-1].items()}
    return {"head": name, "summary": f"For {head.architecture}", "metric": head.metric, "columns": columns}


def _rows(model: type[BaseModel]) -> list[Document]:
    return [asdict(each) for each in parameters_of(model)]


def _describe_pipeline(name: str) -> Document:
    pipeline, path = load_pipeline(name), shipped_pipelines().get(name, Path(name))
    # What the file says and nothing else: defaults are shown with their stage.
    limits = pipeline.gates.model_dump(exclude_unset=True)
    return {
        "pipeline": pipeline.name,
        "summary": comment_of(path),
        "target": pipeline.target,
        "stages": [{step.stage: step.params.model_dump(mode="json", exclude_unset=True)} for step in pipeline.stages],
        "candidates": list(pipeline.candidates),
        "search": pipeline.search.model_dump(mode="json", exclude_unset=True) if pipeline.search else {},
        "runtime": pipeline.runtime.model_dump(mode="json", exclude_unset=True),
        "gates": limits,
        "head_gates": {head: _changed(gates, limits) for head, gates in pipeline.head_gates.items()},
        "file": str(path),
    }


def _changed(gates: Gates, limits: Document) -> Document:
    """The limits of a head that are not those of the others."""
    own = gates.model_dump(exclude_unset=True)
    return {name: own[name] for name in own if own[name] != limits.get(name)}


def comment_of(path: Path) -> str:
    """What a pipeline's file says before its first word."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def copy_pipeline(name: str, file: Path, *, force: bool) -> None:
    """Copy a shipped pipeline, comments and all, to a file to edit; refuse to overwrite one unless forced to."""
    shipped = shipped_pipelines()
    if name not in shipped:
        raise unknown_name("pipeline", name, shipped)
    # By this ending `--pipeline` tells a file from a shipped pipeline's name.
    if file.suffix not in (".yaml", ".yml"):
        raise RequestError(f"{file}: a pipeline's file ends in .yaml; name it {file.name or name}.yaml")
    if file.exists() and not force:
        raise RequestError(f"{file}: is there already; name another file, or overwrite it with --force")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(shipped[name].read_bytes())  # as bytes: comments and layout are half of what one edits
