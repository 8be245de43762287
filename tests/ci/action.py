"""The steps of action.yml, carried out as GitHub would: expressions put in, then bash with GitHub's own options."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
NAME = re.compile(r"'[^']*'|[\w-]+(?:\.[\w-]+)+")
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
PATIENCE = 900


@dataclass
class Job:
    """A job on GitHub: what expressions mean, the environment, the work tree, and what came of the steps."""

    folder: Path
    known: dict[str, str]
    environment: Mapping[str, str]
    done: list[str] = field(default_factory=list)
    said: str = ""

    def run(self, *, without: tuple[str, ...] = ()) -> int:
        """Carry out the steps that are shell, but for those whose names are left out; the first code that is not 0."""
        for step in STEPS:
            if "run" in step and name_of(step) not in without and self.holds(step.get("if", "")):
                self.done.append(name_of(step))
                if code := self._carry_out(step):
                    return code
        return 0

    def holds(self, condition: str) -> bool:
        """What a condition made of ==, != and && comes to."""
        parts = [re.split(r"\s*(==|!=)\s*", each.strip()) for each in condition.split("&&") if each.strip()]
        return all((self._value(left) == self._value(right)) == (sign == "==") for left, sign, right in parts)

    def _value(self, word: str) -> str:
        assert NAME.fullmatch(word), word
        return word[1:-1] if word.startswith("'") else self.known.get(word, "")

    def _filled(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self.known.get(found[1], ""), text)

    def _carry_out(self, step: Mapping[str, Any]) -> int:
        output = self.folder / ".output"
        output.write_text("", encoding="utf-8")
        own = {name: self._filled(str(value)) for name, value in step.get("env", {}).items()}
        environment = {**self.environment, **own, "GITHUB_OUTPUT": str(output)}
        done = subprocess.run(
            [*BASH, step["run"]], cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip
        self.said += done.stdout + done.stderr
        for line in output.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            self.known[f"steps.{step['id']}.outputs.{name}"] = value
        return done.returncode


def name_of(step: Mapping[str, Any]) -> str:
    """A step's id, or what it does last."""
    if "id" in step:
        return str(step["id"])
    return str(step.get("uses") or next(word for word in ("comment", "install", "exit") if word in step["run"]))


def inputs(**changed: str) -> dict[str, str]:
    """All inputs as expressions name them, with their defaults."""
    names = {name.replace("_", "-"): value for name, value in changed.items()}
    assert names.keys() <= ACTION["inputs"].keys()
    return {f"inputs.{name}": names.get(name, each["default"]) for name, each in ACTION["inputs"].items()}
