"""OpenVINO, imported with its telemetry off, and its models as sessions.

Stages and the target both run OpenVINO models; all that they share is here. The libraries report each import and
conversion to a server unless `openvino_telemetry` cannot be imported, and offer no other switch that leaves the
user's home alone: the opt-out script writes a file there. So, in this process, it cannot be imported.

A model may have fixed or bounded axes. What it is fed is then padded to them, batches too large are run in
parts, and outputs are cut back to what was asked, so that callers see the same session for every model.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.errors import StageError
from optimize.interfaces import Feed, Head, Session

if TYPE_CHECKING:
    import numpy as np

MODEL_FILE = "openvino_model.xml"
"""The name that optimum-intel looks for."""


def load_openvino() -> Any:
    """The module `openvino`, which reports nothing."""
    modules: dict[str, Any] = sys.modules
    modules["openvino_telemetry"] = None
    import openvino

    return openvino


@cache
def core() -> Any:
    """The one `openvino.Core` of this process.

    A Core's CPU plugin puts an alternate signal stack in place, and at its end the one that it found. Plugins that end
    in another order than they began (OpenVINO 2026.4) so bring back a stack that is gone, and the next signal, such as
    Ctrl-C, is a segmentation fault. OpenVINO recommends a single Core as well.
    """
    return load_openvino().Core()


def load_nncf() -> Any:
    """The module `nncf`, which reports nothing and prints nothing."""
    load_openvino()
    import logging

    import nncf

    logger = logging.getLogger("nncf")
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, logging.StreamHandler)]
    return nncf


def read_model(folder: Path) -> Any:
    """The `openvino.Model` of a folder."""
    return core().read_model(folder / MODEL_FILE)


@dataclass(frozen=True)
class Axes:
    """The least and the most that a model's input axes take, by place; equal where an axis is fixed.

    Places are those of `input_ids`: batch first, tokens last, choices between them where there are any.
    """

    rank: int
    least: Mapping[int, int]
    most: Mapping[int, int]

    @property
    def free(self) -> bool:
        """Whether every shape fits."""
        return not self.least and not self.most


def axes_of(model: Any) -> Axes:
    """The axes of a model or compiled model."""
    shape = list(model.input("input_ids").get_partial_shape())
    least = {place: size.get_min_length() for place, size in enumerate(shape) if size.get_min_length() > 1}
    most = {place: size.get_max_length() for place, size in enumerate(shape) if size.get_max_length() > 0}
    return Axes(len(shape), least, most)


def as_session(compiled: Any, head: Head, *, where: str) -> Session:
    """A compiled model as a session; refuse one without the head's outputs."""
    names = {name for output in compiled.outputs for name in output.get_names()}
    if missing := set(head.outputs) - names:
        raise StageError(
            f"{where}: the model has no output {', '.join(sorted(missing))}; export it for head '{head.name}'"
        )
    inputs = [port.get_any_name() for port in compiled.inputs]
    ports = [compiled.output(name) for name in head.outputs]
    request = compiled.create_infer_request()

    def run(feed: Feed) -> Feed:
        found = request.infer({name: feed[name] for name in inputs}, share_inputs=True)
        return {name: found[port] for name, port in zip(head.outputs, ports, strict=True)}

    axes = axes_of(compiled)
    return run if axes.free else _fitted(run, axes, head, where=where)


def _fitted(run: Session, axes: Axes, head: Head, *, where: str) -> Session:
    """A session of a model with fixed or bounded axes, for feeds of any shape that fits in them."""
    import numpy as np

    def session(feed: Feed) -> Feed:
        shape = feed["input_ids"].shape
        for place in range(1, axes.rank):
            if shape[place] > axes.most.get(place, shape[place]):
                raise StageError(f"{where}: {_too_many(place, axes.rank, shape[place], axes.most[place])}")
        step = axes.most.get(0, shape[0])
        parts = []
        for start in range(0, shape[0], step):
            rows = {name: array[start : start + step] for name, array in feed.items()}
            outputs = run({name: _padded(array, axes.least) for name, array in rows.items()})
            parts.append({name: _cut(array, rows["input_ids"].shape, head) for name, array in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return session


def _too_many(place: int, rank: int, found: int, most: int) -> str:
    """Only the length of texts can be cut to fit; the number of choices is the data's."""
    if place == rank - 1:
        return f"a text has {found} tokens and the model takes {most}; give --max-tokens {most} or convert it for more"
    return f"a row has {found} choices and the model takes {most}; convert it for more"


def _padded(array: np.ndarray[Any, Any], least: Mapping[int, int]) -> np.ndarray[Any, Any]:
    """Repeat the last row to fill a batch, and pad other axes with 0, which the mask hides."""
    import numpy as np

    missing = [max(least.get(place, 0) - size, 0) for place, size in enumerate(array.shape)]
    if missing[0]:
        array = np.concatenate([array, np.repeat(array[-1:], missing[0], axis=0)])
    return np.pad(array, [(0, 0), *((0, count) for count in missing[1:])]) if any(missing[1:]) else array


def _cut(array: np.ndarray[Any, Any], shape: tuple[int, ...], head: Head) -> np.ndarray[Any, Any]:
    """The part of a padded output that belongs to a feed of this shape."""
    if head.reads == "all tokens":
        return array[: shape[0], : shape[1]]
    # The logits of choices, [batch, choices]; any other head that reads the first token has classes there.
    return array[: shape[0], : shape[1]] if len(shape) == 3 else array[: shape[0]]
