"""OpenVINO, imported with its telemetry off, and its models as sessions.

Stages and the target both run OpenVINO models; all that they share is here. The libraries report each import and
conversion to a server unless `openvino_telemetry` cannot be imported, and offer no other switch that leaves the
user's home alone: the opt-out script writes a file there. So, in this process, it cannot be imported.

A model may have fixed or bounded axes. What it is fed is then padded to them, batches too large are run in
parts, and outputs are cut back to what was asked, so that callers see the same session for every model.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, cast

from optimize.errors import StageError
from optimize.interfaces import Array, Feed, Head, Session

if TYPE_CHECKING:
    import openvino

AnyModel: TypeAlias = "openvino.Model | openvino.CompiledModel"

MODEL_FILE = "openvino_model.xml"
"""The name that optimum-intel looks for."""


def load_openvino() -> ModuleType:
    """The module `openvino`, which reports nothing."""
    # None in place of a module is Python's own sign for one that cannot be imported.
    sys.modules.update(openvino_telemetry=cast("ModuleType", None))
    import openvino

    module: ModuleType = openvino
    return module


@cache
def core() -> openvino.Core:
    """The one `openvino.Core` of this process.

    A Core's CPU plugin puts an alternate signal stack in place, and at its end the one that it found. Plugins that end
    in another order than they began (OpenVINO 2026.4) so bring back a stack that is gone, and the next signal, such as
    Ctrl-C, is a segmentation fault. OpenVINO recommends a single Core as well.
    """
    return load_openvino().Core()


def load_nncf() -> ModuleType:
    """The module `nncf`, which reports nothing and prints nothing."""
    load_openvino()  # first: nncf reports its import as well
    import logging

    import nncf

    logger = logging.getLogger("nncf")
    for handler in list(logger.handlers):
        if isinstance(handler, logging.StreamHandler):
            logger.removeHandler(handler)
    module: ModuleType = nncf
    return module


def read_model(folder: Path) -> openvino.Model:
    """The model of a folder."""
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


def axes_of(model: AnyModel) -> Axes:
    """The axes of a model or compiled model."""
    least: dict[int, int] = {}
    most: dict[int, int] = {}
    shape = list(model.input("input_ids").get_partial_shape())
    for place, size in enumerate(shape):
        if size.get_min_length() > 1:  # 0 or 1 where there is no bound
            least[place] = size.get_min_length()
        if size.get_max_length() > 0:  # -1 where there is no bound
            most[place] = size.get_max_length()
    return Axes(len(shape), least, most)


def as_session(compiled: openvino.CompiledModel, head: Head, *, where: str) -> Session:
    """A compiled model as a session; refuse one without the head's outputs."""
    names: set[str] = set()
    for output in compiled.outputs:
        names |= output.get_names()
    if missing := set(head.outputs) - names:
        raise StageError(
            f"{where}: the model has no output {', '.join(sorted(missing))}; export it for head '{head.name}'"
        )
    inputs = [port.get_any_name() for port in compiled.inputs]
    ports = [compiled.output(name) for name in head.outputs]
    own = threading.local()  # a request runs one feed at a time

    def run(feed: Feed) -> Feed:
        request = own.request = getattr(own, "request", None) or compiled.create_infer_request()
        # Shared inputs are not copied; the request is done with them once it returns.
        found = request.infer({name: feed[name] for name in inputs}, share_inputs=True)
        return {name: found[port] for name, port in zip(head.outputs, ports, strict=True)}

    axes = axes_of(compiled)
    return run if axes.free else _fitted(run, axes, head, where=where)


def _fitted(run: Session, axes: Axes, head: Head, *, where: str) -> Session:
    """A session of a model with fixed or bounded axes, for feeds of any shape that fits in them."""
    import numpy as np

    def run_part(rows: Feed) -> Feed:
        """At most as many rows as the batch axis takes."""
        shape = rows["input_ids"].shape
        outputs = run({name: _padded(array, axes.least) for name, array in rows.items()})
        return {name: _cut(array, shape, head) for name, array in outputs.items()}

    def session(feed: Feed) -> Feed:
        shape = feed["input_ids"].shape
        for place in range(1, axes.rank):
            if shape[place] > axes.most.get(place, shape[place]):
                raise StageError(f"{where}: {_too_many(place, axes.rank, shape[place], axes.most[place])}")
        step = axes.most.get(0, shape[0])
        parts: dict[str, list[Array]] = defaultdict(list)
        for start in range(0, shape[0], step):
            outputs = run_part({name: array[start : start + step] for name, array in feed.items()})
            for name, array in outputs.items():
                parts[name].append(array)
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    return session


def _too_many(place: int, rank: int, found: int, most: int) -> str:
    """Only the length of texts can be cut to fit; the number of choices is the data's."""
    if place == rank - 1:
        return f"a text has {found} tokens and the model takes {most}; give --max-tokens {most} or convert it for more"
    return f"a row has {found} choices and the model takes {most}; convert it for more"


def _padded(array: Array, least: Mapping[int, int]) -> Array:
    """Repeat the last row to fill a batch, and pad other axes with 0, which the mask hides."""
    import numpy as np

    missing = [max(least.get(place, 0) - size, 0) for place, size in enumerate(array.shape)]
    if missing[0]:
        # Not with 0: a row of padding alone attends to nothing, and may come out as anything, NaN included.
        array = np.concatenate([array, np.repeat(array[-1:], missing[0], axis=0)])
        missing[0] = 0
    return np.pad(array, [(0, count) for count in missing]) if any(missing) else array


def _cut(array: Array, shape: tuple[int, ...], head: Head) -> Array:
    """The part of a padded output that belongs to a feed of this shape."""
    if head.reads == "all tokens":
        return array[: shape[0], : shape[1]]
    # The logits of choices, [batch, choices]; any other head that reads the first token has classes there.
    return array[: shape[0], : shape[1]] if len(shape) == 3 else array[: shape[0]]
