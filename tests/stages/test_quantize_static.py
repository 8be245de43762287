"""Static INT8: sums that cannot overflow, answers that ignore padding and batch mates, and accuracy that is kept."""

import dataclasses

import numpy as np
import onnx
import pytest
from doubles import Heard
from onnx import numpy_helper
from pydantic import ValidationError
from tiers import EACH_HEAD, slow_but

from optimize.errors import StageError
from optimize.gates import Gates
from optimize.interfaces import Encoded
from optimize.quantization.sites import find_sites, group_sites, normalise
from optimize.quantization.weights import worst_pairs
from optimize.stages import STAGES
from optimize.stages.quantize_static import Params

QUICK = {"smooth": False, "sensitivity": False, "fallback": False, "reduce_range": False}
FORMS = ["qdq", "qoperator"]
METHODS = ["minmax", "moving_average", "percentile", "entropy", "mse"]
WIDEST_ACTIVATION = 255
INT16 = np.iinfo(np.int16)
ROUNDINGS = 5e-3
"""Float noise, such as a bias added elsewhere, may tip a value from one level to the next."""
WORDS, POSITIONS = "word_embeddings", "position_embeddings"


def static(here, apply, **params):
    return apply(here, "quantize_static", apply(here, "export"), **{**QUICK, **params})


def with_limits(here, *, rule="estimate", **limits):
    return dataclasses.replace(here, limits=Gates(rule=rule, **limits))


def integer_weights(built):
    """Values [K, N] of the INT8 weights of all integer products."""
    model, arrays = built.model(), built.weights()
    views = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Transpose"}
    read = [node.input[1] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    return [arrays[views[name]].T if name in views else arrays[name] for name in read]


def added_in_16_bits(activations, weight):
    """x [N, K] times W [K, N], column by column, as vpmaddubsw does: pairs of products saturate at 16 bits."""
    products = activations.astype(np.int32).T * weight
    products = np.pad(products, ((0, -len(products) % 2), (0, 0)))
    return np.clip(products.reshape(-1, 2, products.shape[1]).sum(axis=1), INT16.min, INT16.max).sum(axis=0)


def overflows(weight):
    """Whether the activations that push the columns of W furthest up or down come out wrong in 16 bits."""
    weight = weight.astype(np.int32)
    worst = [np.where(weight * sign > 0, WIDEST_ACTIVATION, 0) for sign in (1, -1)]
    return any((added_in_16_bits(x.T, weight) != (x * weight).sum(axis=0)).any() for x in worst)


def matrices(built):
    """Weights of two axes, whatever they are stored as; the numbers of positions are none."""
    return {name: array for name, array in built.weights().items() if array.ndim == 2 and array.dtype != np.int64}


def batch(features, *, left=0, right=0, fill=0):
    """Features of any length as one feed, padded with masked tokens."""
    tokens = max(feature.tokens for feature in features) + left + right

    def widen(array, value):
        edges = [(0, 0)] * (array.ndim - 1) + [(left, tokens - left - array.shape[-1])]
        return np.pad(array, edges, constant_values=value)

    values = {"input_ids": fill, "attention_mask": 0}
    return {name: np.stack([widen(each.inputs[name], value) for each in features]) for name, value in values.items()}


def answers(here, session, feed):
    """The first text's outputs where its head reads them."""
    kept = feed["attention_mask"][0] == 1 if here.head.reads == "all tokens" else ...
    return [session(feed)[name][0][kept] for name in here.head.outputs]


def largest_change(here, built, feeds):
    """Largest difference between a text's outputs in two feeds, as a share of their scale."""
    first, second = (answers(here, built.open(here), feed) for feed in feeds)
    scale = max(float(np.abs(array).max()) for array in first)
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True)) / scale


def surroundings(here, kind):
    """A text of the tuning data at the same positions, among others and with other padding: a pair of feeds."""
    text, *mates = here.tuning.features[:4]
    # A head of the first token reads the padding before a text, so there it has to be the same.
    fill = 11 if here.head.reads == "all tokens" else 0
    return {
        "right": (batch([text]), batch([text], right=9)),
        "left": (batch([text], left=5), batch([text], left=5, right=2, fill=fill)),
        "mates": (batch([text]), batch([text, *mates])),
        "all of it": (batch([text], left=3), batch([text, *mates], left=3, right=7, fill=fill)),
    }[kind]


def outliers_in(layer):
    """Let four hidden channels of a layer's FFN be 2000 times as large, which its second half takes back."""

    def edit(model):
        ffn = model.distilbert.transformer.layer[layer].ffn
        ffn.lin1.weight[:4] *= 2000
        ffn.lin1.bias[:4] *= 2000
        ffn.lin2.weight[:, :4] /= 2000

    return edit


@pytest.fixture(scope="module")
def planted(context, edited):
    """A token classifier with outliers in a layer, and limits that they break."""
    made = {layer: edited(context("token-classification"), outliers_in(layer)) for layer in (0, 1)}
    return lambda layer: with_limits(made[layer], max_relative_metric_drop=0.01, min_agreement=0.97)


@pytest.mark.parametrize("head", slow_but("fill-mask"))
def test_no_sum_overflows_where_sums_are_16_bits_wide(head, context, apply):
    here = dataclasses.replace(context(head), cpu_features=())
    built = static(here, apply, reduce_range="auto")
    weights = integer_weights(built)
    assert len(weights) >= 12
    assert max(WIDEST_ACTIVATION * int(worst_pairs(weight).max()) for weight in weights) <= INT16.max
    assert not any(overflows(weight) for weight in weights)
    assert (built.facts["reduce_range"], built.facts["reduce_range_because"][:7]) == (True, "no VNNI")


@pytest.mark.parametrize("head", EACH_HEAD)
def test_plain_8_bit_weights_would_overflow_so_holding_back_is_not_idle(head, context, apply):
    built = static(context(head), apply, reduce_range=False)
    weights = [weight for weight in integer_weights(built) if weight.shape[1] > 16]
    assert all(overflows(weight) for weight in weights)
    assert built.facts["reduce_range_because"] == "as asked for"


@pytest.mark.parametrize("params", [{"per_channel": False}, {"format": "qdq"}, {"activation_type": "int8"}])
def test_no_choice_lets_sums_overflow(params, context, apply):
    stored = matrices(static(context("fill-mask"), apply, reduce_range=True, **params))
    positions = {name for name in stored if POSITIONS in name}
    tables = {name for name in stored if WORDS in name}
    products = [array.T if name in tables else array for name, array in stored.items() if name not in positions]
    assert len(products) == 14
    assert not any(overflows(weight) for weight in products)


@pytest.mark.parametrize("kind", ["right", "left", "mates", "all of it"])
@pytest.mark.parametrize("head", EACH_HEAD)
def test_an_answer_depends_neither_on_padding_nor_on_batch_mates(head, kind, context, apply):
    here = context(head)
    assert largest_change(here, static(here, apply), surroundings(here, kind)) <= 1e-4


@pytest.mark.parametrize("head", EACH_HEAD)
def test_with_dynamic_quantization_it_does_depend_on_batch_mates(head, context, apply):
    here = context(head)
    dynamic = apply(here, "quantize_dynamic", apply(here, "export"))
    assert largest_change(here, dynamic, surroundings(here, "mates")) > 1e-3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("head", EACH_HEAD)
def test_all_weights_become_int8_and_facts_say_so(head, form, context, apply):
    here = context(head)
    built = static(here, apply, format=form)
    groups = 13 if here.head.reads == "first token" else 10 + (head != "feature-extraction")
    assert {array.dtype for array in matrices(built).values()} == {np.dtype(np.int8)}
    facts = {name: built.facts[name] for name in ("format", "quantized_groups", "float_groups", "float_share")}
    assert facts == {"format": form, "quantized_groups": groups, "float_groups": 0, "float_share": 0.0}
    assert built.artifact.model_bytes() < 0.32 * here.reference.model_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_the_tied_table_of_a_masked_lm_is_kept_once(form, context, apply):
    built = static(context("fill-mask"), apply, format=form)
    tables = {name: array for name, array in matrices(built).items() if WORDS in name}
    assert len(tables) == 1
    ((vocabulary, _),) = (array.shape for array in tables.values())
    assert [array.shape for array in matrices(built).values() if vocabulary in array.shape] == [(vocabulary, 128)]


@pytest.mark.parametrize("head", EACH_HEAD)
def test_outputs_are_close_to_fp32_and_not_equal_in_both_forms(head, context, apply, make_feed, difference):
    here = context(head)
    exported, feed = apply(here, "export").open(here), make_feed(here, "left-padded")
    scale = max(float(np.abs(array).max()) for array in exported(feed).values())
    qdq, integers = (static(here, apply, format=form).open(here) for form in FORMS)
    assert 0 < difference(here, exported, integers, feed) < 0.1 * scale
    assert difference(here, qdq, integers, feed) <= ROUNDINGS * scale


@pytest.mark.parametrize("head", ["text-classification", "question-answering"])
def test_what_the_graph_says_of_itself_is_kept_and_the_graph_is_valid(head, context, apply):
    here = context(head)
    for form in FORMS:
        model = static(here, apply, format=form).model()
        exported = {prop.key: prop.value for prop in apply(here, "export").model().metadata_props}
        assert exported.items() <= {prop.key: prop.value for prop in model.metadata_props}.items()
        onnx.checker.check_model(model)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_ranges_that_keep_the_answers(method, context, apply, make_feed, difference):
    here = context("text-classification")
    built = static(here, apply, method=method, percentile=99.9)
    exported, feed = apply(here, "export").open(here), make_feed(here)
    scale = float(np.abs(exported(feed)["logits"]).max())
    assert 0 < difference(here, exported, built.open(here), feed) < 0.1 * scale
    assert built.facts["method"] == method


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("activation_type", "middle"), [("uint8", 128), ("int8", 0)])
def test_activations_have_the_type_and_the_zero_that_was_asked_for(activation_type, middle, symmetric, context, apply):
    here = context("question-answering")
    built = static(here, apply, method="minmax", activation_type=activation_type, symmetric=symmetric)
    names = [node.input[2] for node in built.model().graph.node if node.op_type == "QuantizeLinear"]
    zeros = [built.weights()[name] for name in names]
    assert {zero.dtype.name for zero in zeros} == {activation_type}
    assert ({int(zero) for zero in zeros} == {middle}) == symmetric
    assert built.facts["activations"] == activation_type + (" symmetric" if symmetric else "")
    assert built.facts["tuning_divergence"] < 0.01


@pytest.mark.parametrize("per_channel", [True, False])
def test_layers_have_a_scale_per_channel_or_one_and_tables_one_per_row(per_channel, context, apply):
    built = static(context("token-classification"), apply, per_channel=per_channel)
    arrays = built.weights()
    for name, array in matrices(built).items():
        table = "embeddings" in name
        expected = array.shape[0] if table else (array.shape[1] if per_channel else 1)
        assert arrays[name.removesuffix("_quantized") + "_scale"].size == expected
    assert built.facts["per_channel"] is per_channel


def test_what_is_excluded_stays_in_float_bit_by_bit(context, apply):
    here = context("text-classification")
    built = static(here, apply, exclude=("*embeddings", "layer.0.*"))
    exported, stored = apply(here, "export").weights(), matrices(built)
    left = {name: array for name, array in stored.items() if array.dtype == np.float32}
    assert len(left) == 8
    assert all(np.array_equal(array, exported[name]) for name, array in left.items())
    total = sum(array.size for array in stored.values())
    assert (built.facts["quantized_groups"], built.facts["float_groups"]) == (7, 6)
    assert built.facts["float_share"] == pytest.approx(sum(array.size for array in left.values()) / total)


def test_only_what_is_included_is_quantized(context, apply):
    built = static(context("question-answering"), apply, include=("layer.1.ffn.*", "qa_outputs"))
    assert sorted(array.shape for array in matrices(built).values() if array.dtype == np.int8) == [
        (128, 2),
        (128, 512),
        (512, 128),
    ]
    assert built.facts["quantized_groups"] == 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"exclude": ("*",)}, "the patterns leave no operator to quantize"),
        (
            {"exclude": ("layer.0.ffn.lin3",)},
            "'layer.0.ffn.lin3' matches no operator; names look like 'layer.0.ffn.lin",
        ),
        ({"include": ("classifer",)}, "'classifer' matches no operator; names look like 'classifier'"),
        ({"method": "percentile", "percentile": 99.999}, "the percentile needs at least 100000 values per tensor"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(params, message, context, apply):
    with pytest.raises(StageError, match=f"^quantize_static: .*{message}"):
        static(context("text-classification"), apply, **params)


@pytest.mark.parametrize(("method", "texts"), [("mse", 7), ("entropy", 7), ("minmax", 0)])
def test_too_few_calibration_texts_are_refused(method, texts, context, apply):
    here = context("token-classification")
    few = Encoded(here.calibration.features[:texts], here.calibration.gold[:texts], 0)
    with pytest.raises(StageError, match=rf"^quantize_static: {method} needs at least \d texts and {texts} are there"):
        static(dataclasses.replace(here, calibration=few), apply, method=method)


@pytest.mark.parametrize("smooth", [True, False])
def test_an_activation_that_is_not_finite_is_named(smooth, context, apply, rewritten):
    here = context("token-classification")
    model = apply(here, "export").model()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("layer.1.ffn.lin1.bias"))
    bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, np.inf, np.float32), bias.name))
    broken = rewritten(apply(here, "export"), model)
    with pytest.raises(StageError, match=r"^quantize_static: tensor '.*layer\.1/ffn/.*' is not finite"):
        apply(here, "quantize_static", broken, **{**QUICK, "smooth": smooth})


@pytest.mark.parametrize(
    ("before", "params", "message"),
    [
        ("quantize_dynamic", {}, r"the model is quantized already \(.*MatMulInteger.*\); start from the FP32"),
        ("quantize_static", QUICK, r"the model is quantized already \(MatMulIntegerToFloat, QuantizeLinear\); start"),
        ("fuse", {}, r"Attention, EmbedLayerNormalization hide linear layers; leave out 'fuse'"),
        ("fuse", {"embedding": False}, r"Attention hide linear layers; leave out 'fuse'"),
    ],
)
def test_a_graph_that_another_stage_has_changed_is_refused(before, params, message, context, apply):
    here = context("text-classification")
    changed = apply(here, before, apply(here, "export"), **params)
    with pytest.raises(StageError, match=f"^quantize_static: {message}"):
        apply(here, "quantize_static", changed)


@pytest.mark.parametrize("head", ["text-classification", pytest.param("feature-extraction", marks=pytest.mark.slow)])
def test_migrated_scales_are_stated_and_the_proof_holds(head, context, apply):
    here = context(head)
    built = static(here, apply, smooth=True)
    how = [row["how"] for row in built.facts["migrations"]]
    smoothing = [node.name for node in built.model().graph.node if node.name.endswith("_smooth")]
    assert how.count("multiplied") == built.facts["scales_multiplied"] == len(smoothing)
    assert sum(each.startswith("folded into layer.") for each in how) == built.facts["scales_folded"] == 2
    assert built.facts["migration_max_difference"] <= 1e-5
    assert all(row["gain_db"] >= (3.0 if row["how"] == "multiplied" else 0.0) for row in built.facts["migrations"])


def test_a_migration_that_changed_the_outputs_would_be_refused(context, apply):
    with pytest.raises(
        StageError, match=r"^quantize_static: scale migration: outputs differ from the source model's by .*e-0"
    ):
        static(context("token-classification"), apply, smooth=True, tolerance=1e-12)


@pytest.mark.parametrize("layer", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_planted_outlier_is_found_and_the_metric_restored(layer, planted, apply):
    here = planted(layer)
    broken = static(here, apply).facts
    facts = static(here, apply, fallback=True).facts
    assert (broken["tuning_limits"], facts["tuning_limits"]) == ("not met", "met")
    assert f"layer.{layer}.ffn.lin2" in [row["group"] for row in facts["reverted"]]
    assert len(facts["reverted"]) <= 2
    assert facts["tuning_divergence"] < broken["tuning_divergence"] / 100
    assert facts["tuning_relative_drop"] <= 0.01
    assert facts["tuning_agreement"] >= 0.97


def test_where_scales_migrate_an_outlier_needs_no_float(planted, apply):
    facts = static(planted(0), apply, smooth=True, fallback=True).facts
    assert "layer.0.ffn.lin2" in [row["group"] for row in facts["migrations"] if row["how"] == "multiplied"]
    assert facts["tuning_limits"] == "met"
    # How much else has to stay in float depends on the CPU: without VNNI, weights are coarser.
    assert "layer.0.ffn.lin2" not in [row["group"] for row in facts.get("reverted", [])]
    assert facts["float_groups"] < static(planted(0), apply, fallback=True).facts["float_groups"]


def test_facts_of_a_fallback_are_those_of_the_graph(planted, apply):
    here = planted(0)
    built = static(here, apply, fallback=True)
    model = normalise(apply(here, "export").graph())
    groups = {group.name: group.parameters for group in group_sites(find_sites(model))}
    left = [array.size for array in matrices(built).values() if array.dtype == np.float32]
    reverted = [row["group"] for row in built.facts["reverted"]]
    assert built.facts["float_groups"] == len(reverted) == len(left)
    assert built.facts["float_share"] == pytest.approx(sum(left) / sum(groups.values()))
    rows = built.facts["sensitivity"]
    assert {row["group"]: row["parameters"] for row in rows} == groups
    assert {row["group"] for row in rows if row["form"] == "float"} == set(reverted)
    assert max(rows, key=lambda row: row["divergence"])["group"] in reverted


@pytest.mark.parametrize(("limits", "share"), [({"min_agreement": 1.0}, 0.0), ({"max_relative_metric_drop": 0.0}, 0.1)])
def test_limits_that_cannot_be_met_says_what_the_best_was(limits, share, planted, apply):
    here = with_limits(planted(0), **limits)
    expected = (
        rf"^quantize_static: with at most {share:.0%} .* no fallback meets the limits .*; the best was relative drop"
    )
    with pytest.raises(StageError, match=expected):
        static(here, apply, fallback=True, max_float_share=share)


def turned(context, edited):
    """A token classifier that answers with the opposite of what the context's own says."""
    return edited(context("token-classification"), lambda model: model.classifier.weight.neg_())


def test_what_was_lost_before_the_stage_puts_nothing_back_to_float(context, edited, apply):
    here = with_limits(context("token-classification"), min_agreement=0.9)
    heard = Heard()
    here = dataclasses.replace(here, progress=heard)
    source = apply(turned(context, edited), "export")
    facts = apply(here, "quantize_static", source, **{**QUICK, "fallback": True, "sensitivity": True}).facts
    assert (facts["tuning_limits"], facts["float_groups"], facts["variants_tried"]) == (
        "missed before this stage",
        0,
        1,
    )
    assert facts["given_relative_drop"] > 0.5
    assert min(row["sqnr_db"] for row in facts["sensitivity"]) > 10
    assert "reverted" not in facts
    (line,) = heard.lines
    assert line.startswith("quantize_static: what it was given misses the limits by itself: relative drop ")
    unasked = apply(here, "quantize_static", source, **{**QUICK, "fallback": True}).facts
    assert unasked["tuning_limits"] == "missed before this stage"
    assert "sensitivity" not in unasked


def test_a_loss_within_chance_puts_nothing_into_float_unless_the_rule_goes_by_estimates(planted, apply):
    found = static(planted(0), apply).facts
    trials = found["tuning_examples"]
    lost = found["tuning_relative_drop"]
    assert lost > 0
    limit = {"max_relative_metric_drop": lost * 0.99}
    kept = static(with_limits(planted(0), rule="not_worse", **limit), apply, fallback=True).facts
    assert (kept["float_groups"], kept["tuning_limits"], kept["tuning_examples"]) == (0, "met", trials)
    assert static(with_limits(planted(0), **limit), apply, fallback=True).facts["float_groups"] > 0


def test_limits_that_are_met_need_no_table_unless_it_is_asked_for(context, apply):
    here = with_limits(context("token-classification"), min_agreement=0.5)
    plain = static(here, apply, fallback=True)
    asked = static(here, apply, fallback=True, sensitivity=True)
    assert "sensitivity" not in plain.facts
    assert [row["form"] for row in asked.facts["sensitivity"]] == ["int8"] * 11
    assert "reverted" not in asked.facts
    assert all(np.array_equal(array, asked.weights()[name]) for name, array in plain.weights().items())


def test_the_tokens_to_tune_on_are_bounded(context, apply):
    here = context("token-classification")
    assert static(here, apply, tuning_tokens=1).facts["tuning_examples"] == 1
    assert static(here, apply).facts["tuning_examples"] == len(here.tuning.gold) == 8


def test_without_tuning_data_those_of_calibration_are_judged_on(context, apply):
    here = dataclasses.replace(context("question-answering"), tuning=Encoded((), (), 0))
    assert static(here, apply, tuning_tokens=10**6).facts["tuning_examples"] == len(here.calibration.gold)


def test_the_same_input_gives_the_same_graph(context, apply, tmp_path):
    here = context("multiple-choice")
    source = apply(here, "export").artifact
    STAGES["quantize_static"].run(source, tmp_path, Params(**QUICK), here)
    assert (tmp_path / "model.onnx").read_bytes() == (static(here, apply).artifact.path / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    "params",
    [
        {"method": "max"},
        {"percentile": 50},
        {"percentile": 100.5},
        {"activation_type": "int4"},
        {"format": "qlinear"},
        {"reduce_range": "maybe"},
        {"max_float_share": 1.5},
        {"min_gain_db": -1},
        {"table_bits": 2},
        {"table_bits": 4, "format": "qdq"},
        {"tuning_tokens": 0},
        {"perchannel": True},
    ],
)
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)
