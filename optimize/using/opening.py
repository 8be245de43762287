"""Opening what a run or a publication holds: verified first, refused where this machine would compute it wrongly."""

from __future__ import annotations

from pathlib import Path

from optimize.artifact import Artifact, digest_of, sealed_files
from optimize.config import parse_runtime
from optimize.errors import RequestError, UnavailableError
from optimize.evaluate.predict import token_limit
from optimize.finished import judged_model, read_run
from optimize.heads import _encoding, head_of
from optimize.interfaces import Params, Target
from optimize.machine import environment
from optimize.machine.allowance import usable_cores
from optimize.manifest import FILE, Manifest
from optimize.measure.kinds import KINDS
from optimize.publishing.checksums import CHECKSUMS
from optimize.publishing.fetching import fetch
from optimize.publishing.names import JUDGED, OURS
from optimize.quantization.weights import WIDE_SUMS
from optimize.targets import TARGETS
from optimize.using.asking import read_known
from optimize.using.model import Model
from optimize.using.tasks import task_of


def load(where: str | Path, *, threads: int | None = None, allow_overflow: bool = False) -> Model:
    """The model of a run folder, a publication or an address of one, as a callable.

    It runs as the run judged it: on its target, with its runtime's settings, its longest text and its thresholds.
    `threads` are the cores that this process has if None. Raises RequestError where the folder is not what its
    manifest says, and UnavailableError where this machine cannot run it, or would overflow its sums of INT8 products
    (which `allow_overflow` lets pass).
    """
    folder = fetch(str(where))
    record = read_run(folder)
    if record.request.head_code is not None:
        raise RequestError(
            f"{folder}: head '{record.request.head}' is one of a user's own, which answers rows of data and no texts; "
            "open its model with the runtime, as its card shows"
        )
    published = (folder / CHECKSUMS).exists()
    final = _published_model(folder, record) if published else judged_model(folder, record)
    head, target = head_of(record.request.head, final.path), TARGETS[record.request.target]
    runtime = parse_runtime(record.request.runtime, target.name, where=f"{folder / FILE}: runtime")
    if reason := target.unavailable(runtime):
        raise UnavailableError(f"{folder}: {reason}")
    if not allow_overflow:
        _require_wide_sums(folder, record, target, runtime)
    known = read_known(final.path, record)
    session = target.open(final.path, threads or usable_cores(), head, runtime)
    # Run here, a short text says how much output a token gives, and the first caller waits no longer than others.
    probe = _encoding.feature(known.tokens.whole("a").ids, 0)
    features = [] if head.has_choices else [probe]
    most = token_limit(session, head, features, pad_id=known.tokens.pad_id)
    return Model(head, task_of(head), known, session, record, most)


def _published_model(folder: Path, record: Manifest) -> Artifact:
    """The model of a publication that is what its checksums say; refuse one that is not the manifest's."""
    if (folder / JUDGED).exists():
        raise RequestError(
            f"{folder}: its files are arranged for another server; name the run, or publish it with --layout optimum"
        )
    files = [path for path in sealed_files(folder) if path.relative_to(folder).parts[0] not in OURS]
    stated = record.stages[-1].artifact
    if digest_of(folder, files) != stated.digest:
        raise RequestError(f"{folder}: its model is not the one of its {FILE}; publish the run again")
    final = Artifact(kind=stated.kind, path=folder, digest=stated.digest, size_bytes=stated.size_bytes)
    KINDS[final.kind].require_whole(final, head_of(record.request.head, folder))
    return final


def _require_wide_sums(folder: Path, record: Manifest, target: Target, runtime: Params) -> None:
    """Refuse INT8 weights of all 8 bits on a CPU that adds their products in 16 bits, which overflow."""
    stated = [each.facts["reduce_range"] for each in record.stages if "reduce_range" in each.facts]
    if not stated or stated[-1] or not _is_on_cpu(target, runtime):
        return
    if not set(WIDE_SUMS) & set(environment.cpu_features()):
        raise UnavailableError(
            f"{folder}: its INT8 weights use all 8 bits, and this CPU has neither VNNI nor AMX, so sums would overflow "
            "and answers be wrong; run it on a CPU that has, build it with 'reduce_range: true', or allow it with "
            "allow_overflow (--allow-overflow)"
        )


def _is_on_cpu(target: Target, runtime: Params) -> bool:
    """Whether a CPU may compute."""
    settings = runtime.model_dump()
    if target.name == "cuda":
        return bool(settings["provider"] == "cpu")
    return any(name in settings.get("device", "CPU") for name in ("CPU", "AUTO"))
