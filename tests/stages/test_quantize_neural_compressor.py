"""Static INT8 by Neural Compressor: all weights are integers, any shape runs, and the limits pick the setting."""

import dataclasses
import logging
import os
import random
import warnings

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import helper, numpy_helper
from pydantic import ValidationError
from tiers import slow_but

from optimize.errors import StageError
from optimize.evaluate.judge import make_judge
from optimize.gates import Gates
from optimize.heads import HEADS
from optimize.interfaces import Encoded, Feature
from optimize.quantization.neural_compressor.graph import fold
from optimize.runtimes.quiet import undisturbed
from optimize.stages import STAGES
from optimize.stages.quantize_neural_compressor import Params, Setting

STAGE = "quantize_neural_compressor"
EACH_HEAD = slow_but("fill-mask")  # it traces each model, which takes seconds
TWO = (Setting(), Setting(observer="kl"))
WORDS = "word_embeddings.weight"
LINEAR_LAYERS = {
    "feature-extraction": 12,
    "fill-mask": 14,
    "multiple-choice": 14,
    "question-answering": 13,
    "text-classification": 14,
    "token-classification": 13,
}


def quantized(context, apply, head):
    return apply(context(head), STAGE, settings=TWO)


def narrowed(context, apply):
    """Weights with one scale, for a CPU that sums in 16 bits."""
    here = dataclasses.replace(context("multiple-choice"), cpu_features=("avx2",))
    return apply(here, STAGE, settings=(Setting(weights="per_tensor"),))


def weights_read(built):
    """INT8 initializers that products read through a DequantizeLinear, transposed ones included."""
    model, arrays = built.model(), built.weights()
    views = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type in ("Transpose", "DequantizeLinear")
    }
    found = {}
    for node in model.graph.node:
        name = views.get(node.input[1]) if node.op_type == "MatMul" else None
        name = views.get(name, name)
        if name in arrays:
            found[node.name] = arrays[name]
    return found


@pytest.mark.parametrize("head", EACH_HEAD)
def test_every_product_with_a_weight_reads_integers_in_every_head(head, context, apply):
    built = quantized(context, apply, head)
    found = weights_read(built)
    assert {array.dtype.type for array in found.values()} == {np.int8}
    assert len(found) == built.facts["quantized_matmuls"] == LINEAR_LAYERS[head]
    assert built.facts["float_matmuls"] == 0


@pytest.mark.parametrize("head", EACH_HEAD)
def test_no_large_initializer_stays_in_float_and_tables_are_int8(head, context, apply):
    built = quantized(context, apply, head)
    largest_vector = max(array.size for array in built.weights().values() if array.ndim < 2)
    left = [
        name for name, array in built.weights().items() if array.dtype == np.float32 and array.size > largest_vector
    ]
    assert left == []
    assert built.facts["quantized_tables"] == 2
    assert built.artifact.model_bytes() < 0.4 * context(head).reference.model_bytes()


@pytest.mark.parametrize("kind", ["full", "right-padded", "left-padded", "holed"])
@pytest.mark.parametrize("head", EACH_HEAD)
def test_outputs_stay_close_to_pytorch_under_any_mask_and_are_not_equal(
    head, kind, context, apply, make_feed, difference
):
    here = context(head)
    reference = here.open("torch", here.reference.path)
    feed = make_feed(here, kind)
    scale = max(np.abs(array).max() for array in reference(feed).values())
    assert 0 < difference(here, reference, quantized(context, apply, head).open(here), feed) < 0.15 * max(scale, 1)


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 64), (5, 2), (2, 16)])
@pytest.mark.parametrize("head", EACH_HEAD)
def test_nothing_is_specialised_on_the_shapes_of_the_example(
    head, batch, tokens, context, apply, make_feed, difference
):
    here = context(head)
    reference = here.open("torch", here.reference.path)
    feed = make_feed(here, batch=batch, tokens=tokens)
    scale = max(np.abs(array).max() for array in reference(feed).values())
    assert difference(here, reference, quantized(context, apply, head).open(here), feed) < 0.5 * max(scale, 1)


@pytest.mark.slow
@pytest.mark.parametrize("choices", [1, 2, 5])
def test_any_number_of_choices_runs(choices, context, apply):
    here = context("multiple-choice")
    ids = np.full((2, choices, 9), 7, dtype=np.int64)
    outputs = quantized(context, apply, "multiple-choice").open(here)({"input_ids": ids, "attention_mask": ids // 7})
    assert outputs["logits"].shape == (2, choices)


@pytest.mark.parametrize("head", EACH_HEAD)
def test_padding_and_batch_mates_change_nothing_but_rounding(head, context, apply, make_feed):
    here = context(head)
    session = quantized(context, apply, head).open(here)
    feed = make_feed(here, "right-padded")
    own = int(feed["attention_mask"][1].sum(axis=-1).flat[0])
    alone = session({name: array[1:2, ..., :own] for name, array in feed.items()})
    for name, array in session(feed).items():
        kept = array[1:2, :own] if here.head.reads == "all tokens" else array[1:2]
        assert np.abs(kept - alone[name]).max() < 0.05 * max(1, np.abs(kept).max())


@pytest.mark.parametrize("head", EACH_HEAD)
def test_inputs_and_outputs_are_named_and_every_axis_of_the_input_is_dynamic(head, context, apply):
    graph = quantized(context, apply, head).model().graph
    axes = ["batch_size", *(["num_choices"] if head == "multiple-choice" else []), "sequence_length"]
    assert {each.name: [axis.dim_param for axis in each.type.tensor_type.shape.dim] for each in graph.input} == {
        "input_ids": axes,
        "attention_mask": axes,
    }
    assert {each.type.tensor_type.elem_type for each in graph.input} == {onnx.TensorProto.INT64}
    assert tuple(each.name for each in graph.output) == HEADS[head].outputs


def test_activations_are_unsigned_which_is_what_runs_in_integers(context, apply):
    built = quantized(context, apply, "fill-mask")
    arrays = built.weights()
    zeros = {arrays[node.input[2]].dtype.type for node in built.model().graph.node if node.op_type == "QuantizeLinear"}
    assert zeros == {np.uint8}


def test_a_tied_table_is_kept_once_and_the_projection_reads_it(context, apply):
    built = quantized(context, apply, "fill-mask")
    table = next(name for name in built.weights() if name.endswith(WORDS + "_quantized"))
    shape = built.weights()[table].shape
    same = [name for name, array in built.weights().items() if sorted(array.shape) == sorted(shape)]
    assert (same, built.facts["tied_projections"]) == ([table], 1)
    assert any(np.array_equal(array, built.weights()[table]) for array in weights_read(built).values())


@pytest.mark.slow
def test_an_untied_projection_is_quantized_as_a_layer_of_its_own(random_context, apply):
    here = random_context("fill-mask", tie_word_embeddings=False)
    inputs = {"input_ids": np.arange(10, dtype=np.int64), "attention_mask": np.ones(10, dtype=np.int64)}
    extra = {"positions": np.array([3]), "gold": np.array([3])}
    texts = Encoded(tuple(Feature(inputs, example, extra) for example in range(8)), (extra["gold"],) * 8, 0)
    built = apply(dataclasses.replace(here, calibration=texts, tuning=texts), STAGE, settings=TWO)
    tables = [array.dtype for array in built.weights().values() if sorted(array.shape) == [64, 203]]
    assert (tables, built.facts["tied_projections"]) == ([np.int8, np.int8], 0)


@pytest.mark.slow
def test_weights_keep_7_bits_where_16_bit_sums_would_overflow(context, apply):
    built = narrowed(context, apply)
    assert {int(np.abs(array.astype(int)).max()) for array in weights_read(built).values()} == {63}
    assert (built.facts["reduce_range"], built.facts["reduce_range_because"][:7]) == (True, "no VNNI")


@pytest.mark.slow
def test_weights_have_one_scale_where_that_is_asked_for_and_one_a_channel_otherwise(context, apply):
    for built, single in [(narrowed(context, apply), True), (quantized(context, apply, "multiple-choice"), False)]:
        sizes = {name: array.size for name, array in built.weights().items() if name.endswith("lin1.weight_scale")}
        assert set(sizes.values()) == {1 if single else built.weights()[next(iter(sizes))].size}
        assert (set(sizes.values()) == {1}) is single


def test_the_graph_holds_nothing_of_this_machine(context, apply):
    built = quantized(context, apply, "fill-mask")
    assert b"/site-packages/" not in built.model().SerializeToString()
    assert b".py" not in built.model().SerializeToString()


def test_the_first_setting_within_the_limits_ends_the_search(context, apply):
    built = quantized(context, apply, "fill-mask")
    assert [row["setting"] for row in built.facts["settings"]] == [TWO[0].name]
    assert (built.facts["chosen"], built.facts["within_limits"]) == (TWO[0].name, True)


@pytest.mark.slow
def test_without_one_within_the_limits_each_is_tried_once_and_the_one_that_misses_it_least_is_kept(context, apply):
    here = dataclasses.replace(
        context("text-classification"), limits=Gates.model_construct(max_metric_drop=-9.0, min_agreement=1.01)
    )
    settings = (Setting(weights="per_tensor"), Setting(), Setting(weights="per_tensor"))
    built = apply(dataclasses.replace(here, cpu_features=("none",)), STAGE, settings=settings)
    rows = built.facts["settings"]
    assert [row["setting"] for row in rows] == [setting.name for setting in settings[:2]]
    assert {row["within_limits"] for row in rows} == {built.facts["within_limits"]} == {False}
    assert built.facts["chosen"] == min(rows, key=lambda row: row["drop"])["setting"]


@pytest.mark.parametrize("head", EACH_HEAD)
def test_facts_equal_reality(head, context, apply):
    here = context(head)
    built = quantized(context, apply, head)
    loss = make_judge(here, here.open("torch", here.reference.path), tokens=10**6).assess(built.open(here))
    (row,) = built.facts["settings"]
    assert row == {
        "setting": built.facts["chosen"],
        "metric": loss.metric,
        "drop": loss.drop,
        "agreement": loss.agreement,
        "divergence": loss.divergence,
        "within_limits": True,
    }
    assert built.facts["calibration_samples"] == len(here.calibration.features)
    model = built.model()
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)
    assert (built.facts["opset"], built.facts["ir_version"]) == (18, 8)
    assert built.facts["tuning_examples"] == len(here.tuning.gold)


@pytest.mark.slow
def test_outputs_that_are_not_finite_are_refused(context, tmp_path):
    here = context("token-classification")

    def broken(kind, folder):
        session = here.open(kind, folder)
        return lambda feed: {name: array * np.nan for name, array in session(feed).items()}

    with pytest.raises(StageError, match=rf"^{STAGE}: outputs .+ are not finite; check the checkpoint's weights$"):
        STAGES[STAGE].run(here.reference, tmp_path, Params(), dataclasses.replace(here, open=broken))


def test_few_calibration_texts_are_refused(context, tmp_path):
    here = context("text-classification")
    few = dataclasses.replace(here, calibration=Encoded(here.calibration.features[:7], here.calibration.gold[:7], 0))
    with pytest.raises(StageError, match=rf"^{STAGE}: 7 calibration texts are too few .+ --calibration-examples$"):
        STAGES[STAGE].run(few.reference, tmp_path, Params(), few)


def test_a_run_without_tuning_texts_is_refused(context, tmp_path):
    none = dataclasses.replace(context("text-classification"), tuning=Encoded((), (), 0))
    with pytest.raises(StageError, match=rf"^{STAGE}: no tuning texts .+ --tuning-examples$"):
        STAGES[STAGE].run(none.reference, tmp_path, Params(), none)


def test_a_float_product_without_quantizers_is_left_alone():
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy")
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "plain", [x], [y], [weight])
    model = onnx_ir.from_proto(helper.make_model(graph))
    assert fold(model, reduce_range=False)["quantized_matmuls"] == 0
    assert [node.op_type for node in model.graph] == ["MatMul"]


def state():
    """What a library may leave changed behind it."""
    seeds = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return logging.root.manager.disable, list(warnings.filters), dict(os.environ), torch.get_num_threads(), *seeds


@pytest.mark.slow
def test_logging_warnings_and_randomness_are_as_before(context, apply, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state()
    apply(context("text-classification"), STAGE, settings=(Setting(activations="symmetric"),), tuning_tokens=50)
    assert state() == before
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_logging_is_restored_after_an_error():
    with pytest.raises(ValueError, match="stop"), undisturbed():
        raise ValueError("stop")
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize(
    "params", [{"settings": ()}, {"settings": ({"observer": "mse"},)}, {"calibration_samples": 1}, {"unknown": 1}]
)
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)
