"""INT8 for OpenVINO: what is quantized, what the limits take back, and what NNCF is kept from printing."""

import dataclasses

import numpy as np
import pytest
from doubles import Heard
from tiers import EACH_HEAD

from optimize.errors import StageError
from optimize.evaluate.judge import make_judge
from optimize.gates import Gates
from optimize.graphs.openvino import count_operators, find_weights
from optimize.interfaces import Encoded
from optimize.quantization.nncf.accuracy_control import Control
from optimize.runtimes.openvino import core, load_openvino, read_model
from optimize.stages import STAGES
from optimize.stages.quantize_openvino import Params

PLAIN = {"accuracy_control": False}
STAGE = "quantize_openvino"


def converted(here, apply):
    return apply(here, "convert_openvino", apply(here, "export"))


def quantized(here, apply, **params):
    return apply(here, STAGE, converted(here, apply), **params)


def weights_of(built):
    return find_weights(read_model(built.artifact.path))


@pytest.mark.parametrize("params", [PLAIN, {"mode": "weights"}], ids=["full", "weights"])
@pytest.mark.parametrize("head", EACH_HEAD)
def test_every_weight_becomes_int8_in_every_head_and_the_facts_say_so(head, params, context, apply):
    built = quantized(context(head), apply, **params)
    weights = weights_of(built)
    assert {weight.dtype for weight in weights} == {"i8"}
    assert len(weights) == len(weights_of(converted(context(head), apply)))
    assert (built.facts["quantized_weights"], built.facts["float_weights"]) == (len(weights), 0)
    assert built.facts["float_share"] == 0.0


@pytest.mark.parametrize("params", [PLAIN, {"mode": "weights"}], ids=["full", "weights"])
@pytest.mark.parametrize("head", EACH_HEAD)
def test_outputs_stay_close_to_fp32_and_are_not_equal(head, params, context, apply, make_feed, difference):
    here = context(head)
    before, after = converted(here, apply).open(here), quantized(here, apply, **params).open(here)
    feed = make_feed(here, "left-padded")
    scale = max(np.abs(array).max() for array in before(feed).values())
    assert 0 < difference(here, before, after, feed) < 0.15 * max(scale, 1)


@pytest.mark.parametrize(("params", "quantizes"), [(PLAIN, True), ({"mode": "weights"}, False)])
def test_activations_are_quantized_in_full_mode_alone(params, quantizes, context, apply):
    built = quantized(context("question-answering"), apply, **params)
    found = count_operators(read_model(built.artifact.path))["FakeQuantize"]
    assert built.facts["quantized_activations"] == found
    assert (found > 0) == quantizes


@pytest.mark.parametrize("params", [PLAIN, {"mode": "weights"}], ids=["full", "weights"])
def test_a_projection_that_is_tied_to_the_embedding_is_stored_once(params, context, apply):
    here = context("fill-mask")
    table = next(weight for weight in weights_of(quantized(here, apply, **params)) if "word_embeddings" in weight.name)
    tied, plain = (
        quantized(context(head), apply, **params).artifact.model_bytes()
        for head in ("fill-mask", "token-classification")
    )
    assert tied - plain < table.parameters / 2


@pytest.mark.slow
def test_attention_stays_in_float_where_it_is_asked_for(context, apply):
    here = context("text-classification")
    whole, without = quantized(here, apply, **PLAIN), quantized(here, apply, **PLAIN, attention=False)
    assert without.facts["quantized_activations"] < whole.facts["quantized_activations"]
    assert without.facts["float_weights"] == 0


def test_layers_that_a_pattern_names_stay_in_float(context, apply):
    here = context("text-classification")
    for params in (PLAIN, {"mode": "weights"}):
        left = [w for w in weights_of(quantized(here, apply, **params, exclude=("*.ffn.lin2",))) if not w.quantized]
        assert left
        assert all(weight.name.endswith("ffn.lin2") for weight in left)


def test_a_pattern_that_names_no_layer_is_refused_with_the_nearest(context, apply):
    with pytest.raises(StageError, match=r"no layer is called 'clasifier'; did you mean 'classifier'\?$"):
        quantized(context("text-classification"), apply, exclude=("clasifier",))


@pytest.mark.parametrize(
    ("features", "reduced", "reason"),
    [
        (("avx2", "avx512_vnni"), False, "avx512_vnni sums in 32 bits"),
        (("avx2",), True, "no VNNI: 16-bit sums would saturate"),
    ],
)
def test_weights_keep_to_half_their_range_where_sums_are_16_bits_wide(features, reduced, reason, context, apply):
    here = dataclasses.replace(context("text-classification"), cpu_features=features)
    built = quantized(here, apply, **PLAIN)
    assert (built.facts["reduce_range"], built.facts["reduce_range_because"]) == (reduced, reason)
    widest = max(largest_products(built))
    assert widest <= (64 if reduced else 128)
    assert (widest > 64) == (not reduced)


def largest_products(built):
    """The largest magnitude of each INT8 weight that is multiplied with."""
    model = read_model(built.artifact.path)
    multiplied = {weight.operator for weight in find_weights(model) if not weight.looks_up}
    for operator in model.get_ops():
        if operator.get_friendly_name() not in multiplied:
            continue
        node = operator.input_value(1).get_node()
        while node.get_type_name() != "Constant":
            node = node.input_value(0).get_node()
        yield int(np.abs(node.data.astype(int)).max())


@pytest.mark.parametrize("ranges", ["mean", "minmax"])
def test_ranges_are_found_as_asked(ranges, context, apply, make_feed, difference):
    here = context("token-classification")
    median, other = quantized(here, apply, **PLAIN), quantized(here, apply, **PLAIN, ranges=ranges)
    assert (median.facts["ranges"], other.facts["ranges"]) == ("median", ranges)
    assert difference(here, median.open(here), other.open(here), make_feed(here)) > 0


@pytest.mark.parametrize("alpha", [-1.0, 0.5])
def test_scales_migrate_as_far_as_asked(alpha, context, apply):
    here = context("text-classification")
    multiplies = [
        count_operators(read_model(quantized(here, apply, **PLAIN, smooth_quant_alpha=each).artifact.path))["Multiply"]
        for each in (-1.0, alpha)
    ]
    assert (multiplies[1] > multiplies[0]) == (alpha >= 0)


@pytest.mark.slow
def test_biases_are_corrected_where_it_was_asked_for(context, apply, make_feed, difference):
    here = context("text-classification")
    corrected, left = (quantized(here, apply, **PLAIN, bias_correction=each) for each in ("accurate", "none"))
    assert (corrected.facts["bias_correction"], left.facts["bias_correction"]) == ("accurate", "none")
    assert difference(here, corrected.open(here), left.open(here), make_feed(here)) > 0


def spoilt(context, edited):
    """A token classifier with four hidden channels that are 2000 times as large, which the next layer takes back."""

    def plant(model):
        ffn = model.distilbert.transformer.layer[0].ffn
        ffn.lin1.weight[:4] *= 2000
        ffn.lin1.bias[:4] *= 2000
        ffn.lin2.weight[:, :4] /= 2000

    return edited(context("token-classification"), plant)


STRICT = Gates(max_relative_metric_drop=0.0, min_agreement=1.0, rule="estimate")


def test_what_costs_too_much_goes_back_to_float_and_the_facts_say_what(context, edited, apply):
    here = dataclasses.replace(spoilt(context, edited), limits=STRICT)
    params = {"smooth_quant_alpha": -1.0, "bias_correction": "none", "max_float_share": 1.0}
    free = quantized(dataclasses.replace(here, limits=Gates()), apply, **params)
    kept = quantized(here, apply, **params)
    assert free.facts["tuning_agreement"] < 1.0
    assert (kept.facts["tuning_limits"], kept.facts["tuning_agreement"]) == ("met", 1.0)
    left = {weight.name for weight in weights_of(kept) if not weight.quantized}
    named = {name for row in kept.facts["reverted"] for name in row["group"].split(" + ")}
    assert left
    assert left <= named
    assert {row["why"] for row in kept.facts["reverted"]} == {"the limits were not met without it"}
    assert kept.facts["variants_tried"] > 1
    assert "reverted" not in free.facts


@pytest.mark.slow
def test_limits_that_cannot_be_met_within_the_share_of_float_is_refused(context, edited, apply):
    here = dataclasses.replace(spoilt(context, edited), limits=STRICT)
    with pytest.raises(StageError, match="with at most 0% of the weights in float") as told:
        quantized(here, apply, smooth_quant_alpha=-1.0, bias_correction="none", max_float_share=0.0)
    assert "\n" not in str(told.value)


def test_what_was_lost_before_the_stage_puts_nothing_back_to_float(context, edited, apply):
    here = dataclasses.replace(context("token-classification"), limits=Gates(min_agreement=0.9))
    turned = edited(here, lambda model: model.classifier.weight.neg_())
    built = apply(here, STAGE, converted(turned, apply), max_float_share=0.0)
    assert built.facts["tuning_limits"] == "missed before this stage"
    assert built.facts["given_relative_drop"] > 0.5
    assert {weight.dtype for weight in weights_of(built)} == {"i8"}
    assert built.facts["variants_tried"] == 1


def test_what_is_asked_of_some_examples_is_how_close_they_are(context, apply):
    here = context("text-classification")
    judge = make_judge(here, here.open("torch", here.reference.path), tokens=10**9)
    control = Control(judge)
    compiled = compile_model(quantized(here, apply, **PLAIN))
    metric, values = control.validate(compiled, range(len(judge.encoded.gold)))
    some, few = control.validate(compiled, [1, 2])
    assert metric == 1.0
    assert few == pytest.approx(values[1:3], rel=1e-3, abs=1e-9)
    assert some == pytest.approx(sum(few) / 2)
    assert max(values) <= 1e-9
    assert len(control.trials) == 1


def compile_model(built):
    return core().compile_model(read_model(built.artifact.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def test_nncf_prints_nothing_and_its_bars_are_ours(context, apply, capfd, tmp_path):
    heard = Heard()
    here = dataclasses.replace(context("text-classification"), progress=heard)
    source = converted(context("text-classification"), apply).artifact
    STAGES[STAGE].run(source, tmp_path, Params(), here)
    assert capfd.readouterr().out == ""
    names = {name for name, _, _ in heard.steps}
    assert {"statistics collection", "applying smooth quant", "applying fast bias correction"} <= names
    assert all(0 < done <= total for _, done, total in heard.steps)
    last = {name: (done, total) for name, done, total in heard.steps}
    assert all(done == total for done, total in last.values())


def test_nncf_and_openvino_are_as_before_afterwards(context, apply):
    openvino = load_openvino()
    before = (openvino.Core, openvino.compile_model)
    quantized(context("text-classification"), apply, **PLAIN)
    from nncf.common.logging.track_progress import track

    assert track.__iter__.__module__ == track.__module__
    assert not hasattr(track, "reported_to")
    assert (openvino.Core, openvino.compile_model) == before


def test_nncf_makes_no_core_of_its_own(context, edited, apply, monkeypatch):
    """Several Cores that end in another order than they began leave Ctrl-C a segmentation fault."""
    made = []
    here = dataclasses.replace(spoilt(context, edited), limits=STRICT)
    source = converted(here, apply)
    core()
    monkeypatch.setattr(load_openvino()._ov_api, "Core", lambda: made.append("by compile_model"))
    monkeypatch.setattr(load_openvino(), "Core", lambda: made.append("by Core"))
    apply(here, STAGE, source, smooth_quant_alpha=-1.0, bias_correction="none", max_float_share=1.0)
    assert made == []


@pytest.mark.parametrize("params", [PLAIN, {"mode": "weights"}], ids=["full", "weights"])
def test_a_model_that_is_quantized_already_is_refused(params, context, apply):
    here = context("text-classification")
    with pytest.raises(StageError, match=r"^quantize_openvino: the model is quantized already; start from the FP32"):
        apply(here, STAGE, quantized(here, apply, **params))


def test_without_calibration_texts_full_mode_is_refused_and_weights_alone_need_none(context, apply, tmp_path):
    here = dataclasses.replace(context("text-classification"), calibration=Encoded((), (), 0))
    source = converted(context("text-classification"), apply).artifact
    with pytest.raises(StageError, match="there are no calibration texts; give some with --calibration-examples"):
        STAGES[STAGE].run(source, tmp_path, Params(**PLAIN), here)
    assert STAGES[STAGE].run(source, tmp_path, Params(mode="weights"), here)["float_weights"] == 0


def test_accuracy_control_needs_examples_to_judge_on(context, apply, tmp_path):
    here = context("text-classification")
    one = Encoded(here.tuning.features[:1], here.tuning.gold[:1], 0)
    source = converted(here, apply).artifact
    with pytest.raises(StageError, match="needs two or more tuning examples; give more with --tuning-examples"):
        STAGES[STAGE].run(source, tmp_path, Params(), dataclasses.replace(here, tuning=one))
