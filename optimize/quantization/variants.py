"""INT8 variants of one float graph: which groups are quantized, and what that costs on tuning data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.evaluate.judge import Judge, Loss
from optimize.graphs.onnx import save
from optimize.interfaces import Context, Session
from optimize.quantization.ranges import Range
from optimize.quantization.sites import Group
from optimize.quantization.write import Form, Scheme, build

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Variants:
    """A normalised float graph with everything that is needed to quantize any of its groups."""

    model: ir.Model
    groups: tuple[Group, ...]
    ranges: Mapping[str, Range]
    scheme: Scheme
    form: Form
    judge: Judge
    open: Callable[[ir.Model], Session]

    def build(self, groups: Sequence[Group]) -> ir.Model:
        """The graph with these groups in INT8 and the others in float."""
        return build(self.model, groups, self.ranges, self.scheme, self.form)

    def without(self, left: Sequence[Group]) -> ir.Model:
        """The graph with all groups in INT8 but these."""
        names = {group.name for group in left}
        return self.build([group for group in self.groups if group.name not in names])

    def assess(self, model: ir.Model) -> Loss:
        """What a variant loses on tuning data."""
        return self.judge.assess(self.open(model))


def opener(context: Context) -> Callable[[ir.Model], Session]:
    """Open a graph that is held in memory, as the target will open its file."""

    def open_model(model: ir.Model) -> Session:
        with tempfile.TemporaryDirectory() as folder:
            save(model, Path(folder) / "model.onnx")
            return context.open("onnx", Path(folder))

    return open_model
