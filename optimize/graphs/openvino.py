"""What stages need to know of an OpenVINO graph: where it holds weights, and in which form.

A weight is a constant of two axes that a MatMul multiplies with or a Gather looks rows up in. Between the two may
stand what turns INT8 back into numbers: Convert, Subtract, Multiply, and FakeQuantize while NNCF is at work.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.errors import StageError
from optimize.runtimes.openvino import axes_of

if TYPE_CHECKING:
    from openvino import Model, Node

BETWEEN = frozenset({"Convert", "Subtract", "Multiply", "FakeQuantize", "Reshape", "Transpose"})
INTEGERS = frozenset({"i8", "u8"})
FLOATS = frozenset({"f32", "f16", "bf16"})


@dataclass(frozen=True)
class Weight:
    """A weight under its layer's name: its operator's name, how many values it has, and their type in the file."""

    name: str
    operator: str
    parameters: int
    dtype: str
    looks_up: bool

    @property
    def quantized(self) -> bool:
        """Whether it is stored in integers."""
        return self.dtype in INTEGERS


def count_operators(model: Model) -> Counter[str]:
    """How many operators of each type a model has."""
    return Counter(operator.get_type_name() for operator in model.get_ops())


def find_weights(model: Model) -> list[Weight]:
    """All weights in the order in which they are read; a table that is also multiplied with comes twice."""
    return list(_weights(model))


def _weights(model: Model) -> Iterator[Weight]:
    for operator in model.get_ordered_ops():
        kind = operator.get_type_name()
        places = {"MatMul": (0, 1), "Gather": (0,)}.get(kind, ())
        for place in places:
            constant = _constant(operator.input_value(place).get_node())
            if constant is None:
                continue
            shape = tuple(constant.get_output_shape(0))
            name, dtype = operator.get_friendly_name(), constant.get_element_type().to_string()
            # A vector is a bias or a norm's, and integers of 64 bits are axes and shapes.
            if len(shape) != 2 or dtype not in INTEGERS | FLOATS:
                continue
            yield Weight(layer_name(name), name, prod(shape), dtype, looks_up=kind == "Gather")


def _constant(node: Node) -> Node | None:
    """The constant that a value is made of, if it is made of one."""
    while node.get_type_name() in BETWEEN:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def layer_name(operator: str) -> str:
    """`/distilbert/transformer/layer.0/ffn/lin1/MatMul` as `distilbert.transformer.layer.0.ffn.lin1`."""
    path = re.sub(r"/(MatMul|Gemm|Gather)(_\d+)?(/WithoutBiases)?$", "", operator)
    return path.strip("/").replace("/", ".") or operator


def refuse_unfit(model: Model, folder: Path, *, stage: str) -> None:
    """Refuse a model that is quantized already, or was finished by a later stage."""
    if any(weight.quantized for weight in find_weights(model)) or count_operators(model)["FakeQuantize"]:
        raise StageError(f"{stage}: the model is quantized already; start from the FP32 checkpoint")
    if not axes_of(model).free:
        raise StageError(f"{stage}: the model's axes are fixed or bounded already; put 'reshape_openvino' after it")
    refuse_attached(folder, stage=stage)


def refuse_attached(folder: Path, *, stage: str) -> None:
    """Refuse a model that text goes into already: its other graphs would no longer be of this model."""
    if (folder / "openvino_tokenizer.xml").exists():
        raise StageError(f"{stage}: the tokenizer is attached already; put 'attach_tokenizer' last")


def products_of_activations(model: Model) -> list[str]:
    """The operators that multiply activations with each other: attention, fused or not."""
    weighted = {weight.operator for weight in find_weights(model)}
    found = []
    for operator in model.get_ops():
        name = operator.get_friendly_name()
        if operator.get_type_name() in ("MatMul", "ScaledDotProductAttention") and name not in weighted:
            found.append(name)
    return found
