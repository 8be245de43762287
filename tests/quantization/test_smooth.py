"""Scale migration: exact in float, free where it can be folded, and only where it takes noise away."""

import dataclasses

import numpy as np
import onnx_ir
import pytest

from optimize.errors import StageError
from optimize.graphs.onnx import to_proto
from optimize.heads import HEADS
from optimize.quantization import smooth
from optimize.quantization.sites import find_sites, group_sites, normalise
from optimize.quantization.smooth import ALPHAS, Sample, migrate, sample_rows, search
from optimize.quantization.variants import opener
from optimize.quantization.write import Scheme

NAMES = sorted(HEADS)
NEVER = 1e9
WIDE = Scheme(reduce_range=False)


@pytest.fixture
def prepare(apply, silent):
    """A context's normalised graph, its groups, and rows of what they read."""

    def make(here):
        model = normalise(apply(here, "export").graph())
        groups = group_sites(find_sites(model))
        reads = list(
            dict.fromkeys(site.reads for group in groups for site in group.sites if not site.looks_up and not site.tied)
        )
        samples = sample_rows(model, reads, here.tuning.features, threads=1, seed=0, progress=silent)
        return model, groups, samples

    return make


def weight_of(model, name):
    return model.graph.initializers[name].const_value.numpy()


def nodes_of(model):
    return [node.SerializeToString() for node in to_proto(model).graph.node]


def readers_of(model, name):
    return {node.name for node in model.graph if name in [value.name for value in node.inputs if value]}


def equal_layers(model):
    first, second = model.distilbert.transformer.layer
    first.attention.k_lin.load_state_dict(first.attention.q_lin.state_dict())
    second.load_state_dict(first.state_dict())


def no_change(model):
    pass


def with_outliers(rows=200, width=32, columns=24, seed=0):
    """Rows whose channels are of very different size, and weights to multiply them with."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width)) * 10.0 ** rng.uniform(-1.5, 1.5, width)
    return x.astype(np.float32), rng.standard_normal((width, columns)).astype(np.float32)


@pytest.fixture
def one_exponent(monkeypatch):
    """A search that is quick, where what it finds is not the point."""
    monkeypatch.setattr(smooth, "ALPHAS", (0.5,))


@pytest.mark.usefixtures("one_exponent")
@pytest.mark.parametrize("head", NAMES)
def test_outputs_stay_what_they_were(head, context, apply, prepare, make_feed, difference):
    here = context(head)
    model, groups, samples = prepare(here)
    found = search(model, groups, samples, WIDE, min_gain_db=-NEVER)
    migrate(model, found)
    before, after, feed = apply(here, "export").open(here), opener(here)(model), make_feed(here, "right-padded")
    scale = max(float(np.abs(array).max()) for array in before(feed).values())
    assert [each.group for each in found] == [group for group in groups if "embeddings" not in group.name]
    assert 0 < difference(here, before, after, feed) <= 1e-5 * scale


@pytest.mark.usefixtures("one_exponent")
@pytest.mark.parametrize("edit", [no_change, equal_layers])
def test_layers_that_share_weights_and_biases_are_scaled_each_for_itself(
    edit, context, edited, apply, prepare, make_feed, difference
):
    here = edited(context("text-classification"), edit)
    model, groups, samples = prepare(here)
    shared = len({site.weight for group in groups for site in group.sites}) < 16
    migrate(model, search(model, groups, samples, WIDE, min_gain_db=-NEVER))
    assert shared == (edit is equal_layers)
    before, after = apply(here, "export").open(here), opener(here)(model)
    assert difference(here, before, after, make_feed(here)) <= 1e-5


@pytest.mark.usefixtures("one_exponent")
@pytest.mark.parametrize("head", NAMES)
def test_folding_adds_no_node_and_moves_the_scales_into_the_values(head, context, prepare):
    model, groups, samples = prepare(context(head))
    before = nodes_of(model)
    weights = {site.name: weight_of(model, site.weight) for group in groups for site in group.sites}
    found = search(model, groups, samples, WIDE, min_gain_db=NEVER)
    migrate(model, found)
    assert nodes_of(model) == before
    assert [each.values.name for each in found] == ["layer.0.attention.v_lin", "layer.1.attention.v_lin"]
    for each in found:
        output, values = each.group.sites[0], each.values
        assert np.allclose(weight_of(model, output.weight), weights[output.name] * each.scales[:, None])
        assert np.allclose(weight_of(model, values.weight), weights[values.name] / each.scales)


@pytest.mark.usefixtures("one_exponent")
def test_a_layer_whose_values_stay_in_float_has_nothing_to_fold_into(context, prepare):
    model, groups, samples = prepare(context("token-classification"))
    kept = [group for group in groups if "v_lin" not in group.name]
    assert search(model, kept, samples, WIDE, min_gain_db=NEVER) == []
    found = search(model, kept, samples, WIDE, min_gain_db=0.0)
    assert {each.values for each in found if each.group.name.endswith("out_lin")} == {None}


def test_a_multiplication_goes_before_all_that_read_the_tensor_and_nothing_else(context, prepare):
    model, groups, samples = prepare(context("token-classification"))
    group = next(group for group in groups if group.name == "layer.0.attention.q_lin+k_lin+v_lin")
    reads = group.sites[0].reads
    others = readers_of(model, reads) - {site.node for site in group.sites}
    (found,) = search(model, [group], samples, WIDE, min_gain_db=-NEVER)
    migrate(model, [found])
    assert readers_of(model, reads) == others | {reads + "_smooth"}
    assert readers_of(model, reads + "_smoothed") == {site.node for site in group.sites}
    assert np.allclose(weight_of(model, reads + "_smoothing"), 1.0 / found.scales)


@pytest.mark.usefixtures("one_exponent")
def test_only_what_gains_enough_is_multiplied(context, prepare):
    model, groups, samples = prepare(context("question-answering"))
    everything = search(model, groups, samples, WIDE, min_gain_db=0.0)
    limit = sorted(each.gain_db for each in everything if each.values is None)[3]
    found = search(model, groups, samples, WIDE, min_gain_db=limit)
    expected = [each.group.name for each in everything if each.values or each.gain_db >= limit]
    assert [each.group.name for each in found] == expected
    assert len(found) < len(everything)


@pytest.mark.parametrize(
    "scheme", [Scheme(), Scheme(per_channel=False), Scheme(reduce_range=False), Scheme("int8", True)]
)
def test_the_exponent_is_the_one_with_the_least_noise(scheme, context, prepare):
    _, groups, _ = prepare(context("token-classification"))
    rows, weight = with_outliers()
    sample = Sample(rows, np.abs(rows).max(axis=0))
    found = smooth._best(groups[3], [weight], sample, scheme)
    exact, before = rows @ weight, smooth.noise(rows, [weight], [rows @ weight], scheme)
    tried = {}
    for alpha in ALPHAS:
        scales = sample.peaks**alpha / np.abs(weight).max(axis=1) ** (1 - alpha)
        scales /= np.exp(np.log(scales).mean())
        after = smooth.noise(rows / scales, [weight * scales[:, None]], [exact], scheme)
        tried[alpha] = 10 * np.log10(before / after)
    assert found.alpha == max(tried, key=tried.get)
    assert found.gain_db == pytest.approx(tried[found.alpha], abs=0.05)
    assert found.gain_db > 6


def test_noise_is_that_of_rounding_both_sides_by_hand():
    rows, weight = with_outliers()
    low, high = rows.min(), rows.max()
    scale, steps = (high - low) / 255, np.abs(weight).max(axis=0) / 127
    integers = np.clip(np.rint(rows / scale) + np.rint(-low / scale), 0, 255) - np.rint(-low / scale)
    product = (integers @ np.rint(weight / steps)) * scale * steps
    expected = np.square(product - rows @ weight).sum()
    assert smooth.noise(rows, [weight], [rows @ weight], WIDE) == pytest.approx(expected, rel=1e-3)


def test_channels_that_are_all_alike_gain_next_to_nothing(context, prepare):
    _, groups, _ = prepare(context("token-classification"))
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (400, 32)).astype(np.float32)
    weight = rng.uniform(-1, 1, (32, 24)).astype(np.float32)
    assert smooth._best(groups[3], [weight], Sample(rows, np.abs(rows).max(axis=0)), Scheme()).gain_db < 1


def test_a_channel_the_sample_never_saw_is_not_blown_up(context, prepare):
    _, groups, _ = prepare(context("token-classification"))
    rows, weight = with_outliers()
    rows[:, 5], weight[7] = 0.0, 0.0
    found = smooth._best(groups[3], [weight], Sample(rows, np.abs(rows).max(axis=0)), Scheme())
    assert np.isfinite(found.scales).all()
    assert (found.scales > 0).all()
    assert found.gain_db > 0


def test_peaks_are_over_all_rows_and_rows_are_drawn_from_each_text(context, prepare, silent, monkeypatch):
    here = context("token-classification")
    model, groups, samples = prepare(here)
    name = groups[3].sites[0].reads
    monkeypatch.setattr(smooth, "ROWS_PER_TEXT", 10**6)
    monkeypatch.setattr(smooth, "MAX_ROWS", 10**6)
    everything = sample_rows(model, [name], here.tuning.features, threads=1, seed=0, progress=silent)[name]
    tokens = sum(int(feature.inputs["attention_mask"].sum()) for feature in here.tuning.features)
    assert len(everything.rows) == tokens
    assert np.array_equal(np.abs(everything.rows).max(axis=0), samples[name].peaks)
    assert {row.tobytes() for row in samples[name].rows} <= {row.tobytes() for row in everything.rows}


def test_the_same_seed_draws_the_same_rows(context, prepare, silent):
    here = context("token-classification")
    model, groups, _ = prepare(here)
    name = groups[3].sites[0].reads
    draws = [
        sample_rows(model, [name], here.tuning.features, threads=1, seed=seed, progress=silent)[name] for seed in (0, 1)
    ]
    assert not np.array_equal(draws[0].rows, draws[1].rows)
    again = sample_rows(model, [name], here.tuning.features, threads=1, seed=1, progress=silent)[name]
    assert np.array_equal(again.rows, draws[1].rows)


def test_an_activation_that_is_not_finite_is_named(context, prepare, silent):
    here = context("token-classification")
    model, groups, _ = prepare(here)
    table = next(weight for name, weight in model.graph.initializers.items() if "word_embeddings" in name)
    table.const_value = onnx_ir.tensor(np.full(table.shape.numpy(), np.inf, np.float32), name=table.name)
    name = groups[3].sites[0].reads
    with pytest.raises(StageError, match=rf"^quantize_static: tensor '{name}' is not finite; check the checkpoint"):
        sample_rows(model, [name], here.tuning.features, threads=1, seed=0, progress=silent)


def test_what_padding_holds_is_never_drawn(context, prepare, silent):
    here = context("token-classification")
    model, groups, _ = prepare(here)
    padded = [
        dataclasses.replace(each, inputs={key: np.pad(array, (0, 9)) for key, array in each.inputs.items()})
        for each in here.tuning.features
    ]
    name = groups[3].sites[0].reads
    found, plain = (
        sample_rows(model, [name], features, threads=1, seed=0, progress=silent)[name]
        for features in (padded, here.tuning.features)
    )
    assert np.array_equal(found.peaks, plain.peaks)
    assert np.array_equal(found.rows, plain.rows)
