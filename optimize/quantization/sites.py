"""Where a graph multiplies with weights or looks them up, under the names that the checkpoint gives them.

A site is one such place. Sites that read the same tensor or the same table form a group: they
share one quantized copy, so they are quantized, and left in float, together.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.errors import StageError
from optimize.graphs.onnx import to_proto, weight_behind
from optimize.sentences.configs import SCOPE

if TYPE_CHECKING:
    import onnx_ir as ir

WEIGHT_PLACES = {"MatMul": 1, "Gather": 0}
"""Which input of an operator may be a weight."""


@dataclass(frozen=True)
class Site:
    """A MatMul with a weight [K, N], a look-up in a table [R, D], or the product with a looked-up table.

    `reads` is the activation's name, and of a look-up the table's. `weight` names the initializer.
    """

    name: str
    node: str
    reads: str
    weight: str
    parameters: int
    looks_up: bool = False
    tied: bool = False


@dataclass(frozen=True)
class Group:
    """Sites that are quantized together."""

    name: str
    sites: tuple[Site, ...]

    @property
    def parameters(self) -> int:
        """How many weights are stored for the group; a table read twice counts once."""
        return sum({site.weight: site.parameters for site in self.sites}.values())


def normalise(model: ir.Model) -> ir.Model:
    """A graph in which every linear layer is a MatMul, and every weight an initializer that is read directly."""
    import onnx_ir
    from onnx_ir.passes.common import IdentityEliminationPass, RemoveUnusedNodesPass
    from onnxruntime.quantization.onnx_model import ONNXModel

    # The exporter gives equal biases one initializer, read through Identity.
    IdentityEliminationPass()(model)
    rewriter = ONNXModel(to_proto(model))
    rewriter.replace_gemm_with_matmul()
    # Breadth first: sites come in this order, and rows are drawn from tensors in the order of sites.
    rewriter.topological_sort()
    normal = onnx_ir.from_proto(rewriter.model)
    # ONNX Runtime 1.32 leaves a Gemm's weight in the graph beside its transpose.
    RemoveUnusedNodesPass()(normal)
    return normal


def find_sites(model: ir.Model) -> list[Site]:
    """All sites of a normalised graph, in the order of its nodes; none of a sentence encoder's modules is one."""
    sites = []
    for node in model.graph:
        place = WEIGHT_PLACES.get(node.op_type)
        weight = None if place is None else weight_behind(node.inputs[place])
        if weight is None or len(weight.shape) != 2 or node.name.startswith(f"/{SCOPE}/"):
            continue
        looks_up = node.op_type == "Gather"
        tied = weight is not node.inputs[place]
        if looks_up and tied:
            continue
        sites.append(
            Site(
                name=module_of(node.name),
                node=node.name,
                reads=weight.name if looks_up else node.inputs[0].name,
                weight=weight.name,
                parameters=math.prod(weight.shape),
                looks_up=looks_up,
                tied=tied,
            )
        )
    return sites


def module_of(node: str) -> str:
    """The module of a node: `layer.0.ffn.lin1` for `/distilbert/transformer/layer.0/ffn/lin1/MatMul`."""
    path = re.sub(r"^/?(distilbert/)?(transformer/|embeddings/)?", "", node)
    return path.rsplit("/", 1)[0].replace("/", ".") if "/" in path else path


def group_sites(sites: Sequence[Site]) -> list[Group]:
    """Groups in the order of their first site; a tied table joins its look-up and its projection."""
    groups: dict[str, list[Site]] = {}
    for site in sites:
        groups.setdefault(site.weight if site.tied else site.reads, []).append(site)
    return [Group(_name(members), tuple(members)) for members in groups.values()]


def _name(sites: Sequence[Site]) -> str:
    """`layer.0.attention.q_lin+k_lin+v_lin`: what the names share, then what they don't."""
    heads = {site.name.rpartition(".")[0] for site in sites}
    if len(heads) > 1:
        return "+".join(site.name for site in sites)
    head = heads.pop()
    return (f"{head}." if head else "") + "+".join(site.name.rpartition(".")[2] for site in sites)


def choose_groups(
    groups: Sequence[Group], include: Sequence[str], exclude: Sequence[str], *, stage: str
) -> list[Group]:
    """Groups with a site that a pattern of `include` matches, without those that one of `exclude` does.

    Patterns are shell patterns on the names of sites and groups. One that matches nothing is refused.
    """
    wanted = _matching(groups, include, stage=stage) - _matching(groups, exclude, stage=stage)
    chosen = [group for group in groups if group.name in wanted]
    if not chosen:
        raise StageError(f"{stage}: the patterns leave no operator to quantize; widen 'include' or shorten 'exclude'")
    return chosen


def _matching(groups: Sequence[Group], patterns: Sequence[str], *, stage: str) -> set[str]:
    """Names of the groups that any of the patterns matches."""
    matching: set[str] = set()
    for pattern in patterns:
        found = set()
        for group in groups:
            if any(fnmatch.fnmatchcase(name, pattern) for name in _names(group)):
                found.add(group.name)
        if not found:
            known = [name for group in groups for name in _names(group)]
            near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.3) or known[:1]
            raise StageError(f"{stage}: pattern '{pattern}' matches no operator; names look like '{near[0]}'")
        matching |= found
    return matching


def _names(group: Group) -> list[str]:
    return [group.name, *(site.name for site in group.sites)]
