"""Scale migration after SmoothQuant (Xiao et al., 2023, arXiv 2211.10438), for a model with post-LayerNorm.

What a linear layer reads is divided per channel, x / s, and its weights are multiplied, diag(s) W, which
changes nothing in float and evens out channels that one INT8 scale for all serves badly. SmoothQuant
hides the division in the LayerNorm before. Here the LayerNorm's output is the residual as well, so that
would rescale the residual. What can be hidden exactly:

- the attention's context is linear in the values, column by column, so the division before
  `out_lin` moves into the weights and the bias of `v_lin`, at no cost;
- before the other layers (behind LayerNorm, and behind GELU, which is not linear) it needs a
  multiplication of its own. It is inserted only where it takes enough noise away.

The exponent is searched layer by layer on rows of tuning data: the one with the least noise in the
layer's output, weights and activations both quantized.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from optimize.errors import StageError
from optimize.graphs.onnx import add_weight, to_proto
from optimize.interfaces import Feature, Progress
from optimize.quantization.calibrate import open_augmented, unpadded
from optimize.quantization.sites import Group, Site
from optimize.quantization.weights import Array
from optimize.quantization.write import Scheme, round_activations, round_weights

if TYPE_CHECKING:
    import onnx_ir as ir

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ROWS_PER_TEXT = 16
MAX_ROWS = 512
LEAST = 1e-6
"""What a channel of weights that are all zero counts as."""
FLOOR = 0.05
"""The least peak of a channel, as a share of the median channel's."""


@dataclass(frozen=True)
class Sample:
    """Some rows [R, K] of what a layer reads, and each channel's largest magnitude [K] in all of them."""

    rows: Array
    peaks: Array


@dataclass(frozen=True)
class Migration:
    """Divide what a group reads by `scales` [K]; `values` is the layer that the division moves into, if any."""

    group: Group
    alpha: float
    scales: Array
    gain_db: float
    values: Site | None = None


def sample_rows(
    model: ir.Model, tensors: Sequence[str], features: Sequence[Feature], *, threads: int, seed: int, progress: Progress
) -> dict[str, Sample]:
    """Rows drawn from each text, and peaks over all rows; memory does not grow with the number of texts."""
    session = open_augmented(to_proto(model), tensors, threads)
    inputs = [node.name for node in session.get_inputs()]
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Array]] = {name: [] for name in tensors}
    peaks: dict[str, Array] = {}
    per_text = max(1, min(ROWS_PER_TEXT, -(-MAX_ROWS // max(1, len(features)))))
    for done, feature in enumerate(features):
        for feed in unpadded(feature):
            values = session.run(list(tensors), {key: feed[key] for key in inputs})
            for name, array in zip(tensors, values, strict=True):
                _refuse_not_finite(name, array)
                flat = array.reshape(-1, array.shape[-1])
                # Without the copy, the few rows would keep all of the text's in memory.
                rows[name].append(flat[rng.permutation(len(flat))[:per_text]].copy())
                peaks[name] = np.maximum(peaks.get(name, 0.0), np.abs(flat).max(axis=0))
        progress.step("sample activations", done + 1, len(features))
    samples = {}
    for name, found in rows.items():
        joined = np.concatenate(found)
        samples[name] = Sample(joined[rng.permutation(len(joined))[:MAX_ROWS]], peaks[name])
    return samples


def _refuse_not_finite(name: str, values: Array) -> None:
    if not np.isfinite(values).all():
        raise StageError(
            f"quantize_static: tensor '{name}' is not finite; check the checkpoint, or leave the layer in float"
        )


def search(
    model: ir.Model, groups: Sequence[Group], samples: Mapping[str, Sample], scheme: Scheme, *, min_gain_db: float
) -> list[Migration]:
    """The best exponent of each group, where its gain in the output's SQNR pays: any gain does where it is free."""
    weights = model.graph.initializers
    layers = {site.name: site for group in groups for site in group.sites}
    found = []
    for group in groups:
        if any(site.looks_up or site.tied for site in group.sites):
            continue
        matrices = [weights[site.weight].const_value.numpy() for site in group.sites]
        migration = _best(group, matrices, samples[group.sites[0].reads], scheme)
        attention, _, layer = group.name.rpartition(".")
        free = layers.get(f"{attention}.v_lin") if layer == "out_lin" else None
        if migration.gain_db >= (0.0 if free else min_gain_db):
            found.append(replace(migration, values=free))
    return found


def _best(group: Group, matrices: list[Array], sample: Sample, scheme: Scheme) -> Migration:
    """The exponent α with the least noise, among scales s = max|X|^α / max|W|^(1-α), one for each channel read."""
    x = sample.rows
    exact = [x @ w for w in matrices]
    before = noise(x, matrices, exact, scheme)
    # max|X| and max|W| of each channel [K]; the matrices of a group read one X, so the largest of them counts.
    x_peaks = np.maximum(sample.peaks, _floor(sample.peaks))
    w_peaks = np.maximum(np.max([np.abs(w).max(axis=1) for w in matrices], axis=0), LEAST)
    candidates = []
    for alpha in ALPHAS:
        s = x_peaks**alpha / w_peaks ** (1.0 - alpha)
        # A factor common to all channels changes no rounding: their geometric mean is taken out.
        s = (s / np.exp(np.log(s).mean())).astype(np.float32)
        after = noise(x / s, [w * s[:, None] for w in matrices], exact, scheme)
        gain_db = 10.0 * math.log10(max(before, 1e-30) / max(after, 1e-30))
        candidates.append(Migration(group, alpha, s, gain_db))
    return max(candidates, key=lambda candidate: candidate.gain_db)


def _floor(peaks: Array) -> float:
    """The least peak to go by: a channel that the sample hardly saw may be as large as others in other texts."""
    seen = peaks[peaks > 0]
    return FLOOR * float(np.median(seen)) if seen.size else 1.0


def noise(rows: Array, matrices: Sequence[Array], exact: Sequence[Array], scheme: Scheme) -> float:
    """Energy of the error of quantized products, with the rows' own range."""
    rounded, energy = round_activations(rows, scheme), 0.0
    for matrix, right in zip(matrices, exact, strict=True):
        energy += float(np.square(rounded @ round_weights(matrix, scheme) - right).sum())
    return energy


def migrate(model: ir.Model, migrations: Sequence[Migration]) -> None:
    """Carry the migrations out in a normalised float graph, in place; its outputs stay what they were."""
    for migration in migrations:
        nodes = [model.graph.node(site.node) for site in migration.group.sites]
        for node in nodes:
            _scale(node, 1, migration.scales[:, None])
        if migration.values is None:
            _insert(nodes, migration.scales)
        else:
            _fold(model.graph.node(migration.values.node), 1.0 / migration.scales)


def _fold(product: ir.Node, factor: Array) -> None:
    """Scale the output columns of a layer, its bias included."""
    add = next(node for node in product.outputs[0].consumers() if node.op_type == "Add")
    bias = next(place for place, value in enumerate(add.inputs) if value.is_initializer())
    _scale(product, 1, factor[None, :])
    _scale(add, bias, factor)


def _insert(nodes: Sequence[ir.Node], scales: Array) -> None:
    """Divide what some nodes read by scales, and leave it as it is for others."""
    import onnx_ir

    reads, graph = nodes[0].inputs[0], nodes[0].graph
    factor = add_weight(graph, f"{reads.name}_smoothing", (1.0 / scales).astype(np.float32))
    multiply = onnx_ir.node(
        "Mul", [reads, factor], outputs=[onnx_ir.val(f"{reads.name}_smoothed")], name=f"{reads.name}_smooth"
    )
    graph.insert_before(next(node for node in graph if node in nodes), multiply)
    for node in nodes:
        node.replace_input_with(0, multiply.outputs[0])


def _scale(node: ir.Node, place: int, factor: Array) -> None:
    """Scale what a node reads in a place; others that read the same initializer, such as equal layers, keep it."""
    import onnx_ir

    weight = node.inputs[place]
    scaled = (weight.const_value.numpy() * factor).astype(np.float32)
    if len(weight.consumers()) > 1:
        node.replace_input_with(place, add_weight(node.graph, f"{node.name}_{weight.name}", scaled))
    else:
        weight.const_value = onnx_ir.tensor(scaled, name=weight.name)
