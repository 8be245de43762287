"""Where a graph multiplies with weights or looks them up, under the names that the checkpoint gives them.

A site is one such place. Sites that read the same tensor or the same table form a group: they
share one quantized copy, so they are quantized, and left in float, together.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optimize.errors import StageError


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


def normalise(model: Any) -> None:
    """Make every linear layer a MatMul, and every weight an initializer that is read directly, in place."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    drop_aliases(model.graph)
    rewriter = ONNXModel(model)
    rewriter.replace_gemm_with_matmul()
    rewriter.topological_sort()


def drop_aliases(graph: Any) -> None:
    """Let weights be read without Identity nodes in between: the exporter gives equal biases one initializer."""
    weights = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    aliases = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in outputs
    }
    for node in [node for node in graph.node if node.op_type == "Identity" and node.output[0] in aliases]:
        graph.node.remove(node)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in aliases:
                node.input[index] = aliases[name]


def find_sites(model: Any) -> list[Site]:
    """All sites of a normalised graph, in the order of its nodes."""
    graph = model.graph
    tables = {tensor.name: list(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 2}
    transposed = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] in tables
    }
    sites = []
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            name, weight = node.input[0], node.input[0]
            site = Site(module_of(node.name), node.name, weight, weight, _size(tables[name]), looks_up=True)
        elif node.op_type == "MatMul" and node.input[1] in tables:
            weight = node.input[1]
            site = Site(module_of(node.name), node.name, node.input[0], weight, _size(tables[weight]))
        elif node.op_type == "MatMul" and node.input[1] in transposed:
            weight = transposed[node.input[1]]
            site = Site(module_of(node.name), node.name, node.input[0], weight, _size(tables[weight]), tied=True)
        else:
            continue
        sites.append(site)
    return sites


def _size(dims: Sequence[int]) -> int:
    return int(dims[0]) * int(dims[1])


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
    wanted = {name for pattern in include for name in _matching(groups, pattern, stage=stage)}
    unwanted = {name for pattern in exclude for name in _matching(groups, pattern, stage=stage)}
    chosen = [group for group in groups if group.name in wanted - unwanted]
    if not chosen:
        raise StageError(f"{stage}: the patterns leave no operator to quantize; widen 'include' or shorten 'exclude'")
    return chosen


def _matching(groups: Sequence[Group], pattern: str, *, stage: str) -> list[str]:
    found = [group.name for group in groups if any(fnmatch.fnmatchcase(name, pattern) for name in _names(group))]
    if not found:
        known = [name for group in groups for name in _names(group)]
        near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.3) or known[:1]
        raise StageError(f"{stage}: pattern '{pattern}' matches no operator; names look like '{near[0]}'")
    return found


def _names(group: Group) -> list[str]:
    return [group.name, *(site.name for site in group.sites)]
