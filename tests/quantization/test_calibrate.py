from __future__ import annotations

import numpy as np
import pytest
from doubles import Heard
from onnx import TensorProto, helper, numpy_helper

from optimize.errors import StageError
from optimize.interfaces import Feature
from optimize.quantization import calibrate as calibration
from optimize.quantization.calibrate import calibrate, unpadded
from optimize.quantization.observers import StreamingHistogram
from optimize.quantization.ranges import Range

METHODS = ("minmax", "moving_average", "percentile", "entropy", "mse")
WORDS, WIDTH, PAD = 50, 16, 0
TENSORS = ["looked_up", "hidden"]


@pytest.fixture(scope="module")
def model():
    """Words looked up, multiplied and squashed; the padding's vector is huge, the last word's is not finite."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((WORDS, WIDTH)).astype(np.float32)
    table[PAD], table[-1] = 1000.0, np.inf
    weight = rng.standard_normal((WIDTH, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]),
        helper.make_node("MatMul", ["looked_up", "weight"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["logits"]),
        helper.make_node("Shape", ["attention_mask"], ["shape"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "words", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feature(ids, mask, index=0):
    return Feature({"input_ids": np.array(ids), "attention_mask": np.array(mask)}, index)


def words(count, seed=0):
    """Texts of random words, without padding."""
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(1, WORDS - 1, rng.integers(1, 30)) for _ in range(count)]
    return [feature(ids, np.ones_like(ids), index) for index, ids in enumerate(drawn)]


def run(model, features, method="minmax", tensors=TENSORS, **others):
    return calibrate(model, tensors, features, **{"method": method, "percentile": 90.0, "threads": 1, **others})


def values_of(model, name, features):
    """A tensor's values for all texts at once, computed without ONNX Runtime."""
    table, weight = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    found = table[np.concatenate([each.inputs["input_ids"] for each in features])]
    return found if name == "looked_up" else found @ weight


def test_a_text_is_cut_to_what_the_mask_lets_through():
    (feed,) = unpadded(feature([0, 7, 8, 0, 9], [0, 1, 1, 0, 1]))
    assert feed["input_ids"].tolist() == [[7, 8, 9]]
    assert feed["attention_mask"].tolist() == [[1, 1, 1]]


def test_choices_are_run_one_by_one_at_their_own_lengths():
    feeds = list(unpadded(feature([[7, 8, 0], [9, 0, 0], [4, 5, 6]], [[1, 1, 0], [1, 0, 0], [1, 1, 1]])))
    assert [feed["input_ids"].tolist() for feed in feeds] == [[[[7, 8]]], [[[9]]], [[[4, 5, 6]]]]
    assert all(feed["attention_mask"].min() == 1 for feed in feeds)


def test_a_text_of_padding_alone_gives_nothing():
    assert list(unpadded(feature([0, 0], [0, 0]))) == []


@pytest.mark.parametrize("method", METHODS)
def test_padding_never_enters_a_range(model, method):
    plain = words(12)
    padded = [
        feature([PAD, *each.inputs["input_ids"], PAD, PAD], [0, *each.inputs["attention_mask"], 0, 0]) for each in plain
    ]
    assert run(model, padded, method) == run(model, plain, method)


def test_padding_between_choices_never_enters_a_range(model):
    plain = [feature([[7, 8]], [[1, 1]]), feature([[9]], [[1]]), feature([[4, 5, 6]], [[1, 1, 1]])]
    together = feature([[7, 8, PAD], [9, PAD, PAD], [4, 5, 6]], [[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    assert run(model, [together]) == run(model, plain)


def test_streamed_ranges_are_those_of_all_values_at_once(model):
    features = words(40)
    ends, cut = run(model, features), run(model, features, "percentile")
    for name in TENSORS:
        values = values_of(model, name, features)
        assert (ends[name].low, ends[name].high) == pytest.approx((values.min(), values.max()))
        low, high = np.percentile(values, [5, 95])
        assert (cut[name].low, cut[name].high) == pytest.approx((low, high), abs=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_texts_matters_to_a_moving_average_alone(model, method):
    features = words(20)
    same = run(model, features, method) == run(model, features[::-1], method)
    assert same == (method != "moving_average")


@pytest.mark.parametrize("method", METHODS)
def test_symmetric_ranges_reach_as_far_down_as_up(model, method):
    for found in run(model, words(12), method, symmetric=True).values():
        assert found.low == -found.high < 0


def test_what_is_kept_is_one_histogram_per_tensor_however_many_texts_come(model, monkeypatch):
    kept = []

    def watched(*arguments, **options):
        kept.append(StreamingHistogram(lambda h: Range(0.0, h.width)))
        return kept[-1]

    monkeypatch.setattr(calibration, "make_observer", watched)
    for count in (1, 60):
        kept.clear()
        run(model, words(count))
        arrays = [value for each in kept for value in vars(each).values() if isinstance(value, np.ndarray)]
        assert len(arrays) == len(TENSORS)
        assert all(array.size <= each.bins for array, each in zip(arrays, kept, strict=True))


def test_texts_run_one_at_a_time_and_progress_is_told_of_each(model):
    heard = Heard()
    run(model, words(3), progress=heard)
    assert heard.all == [("calibrate", 1, 3), ("calibrate", 2, 3), ("calibrate", 3, 3)]


def test_the_model_is_left_as_it_is_and_its_own_outputs_can_be_calibrated_too(model):
    before = model.SerializeToString()
    found = run(model, words(3), tensors=["logits", "hidden", "hidden"])
    assert set(found) == {"logits", "hidden"}
    assert (found["logits"].low, found["logits"].high) == pytest.approx((-1.0, 1.0), abs=0.01)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("method", METHODS)
def test_values_that_are_not_finite_are_refused_with_the_tensors_name(model, method):
    features = [*words(12), feature([3, WORDS - 1], [1, 1])]
    with pytest.raises(StageError, match=r"^here: tensor 'looked_up' is not finite .*; check") as raised:
        run(model, features, method, where="here")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "hint"), [("hiden", "did you mean 'hidden'"), ("table", "take the names from")])
def test_a_tensor_that_no_node_gives_is_refused(model, name, hint):
    with pytest.raises(StageError, match=f"^calibration: no node of the graph gives a tensor '{name}'; {hint}"):
        run(model, words(3), tensors=["hidden", name])


def test_a_tensor_of_integers_is_refused(model):
    with pytest.raises(StageError, match="tensor 'shape' holds int64"):
        run(model, words(3), tensors=["shape"])


@pytest.mark.parametrize(("method", "least"), calibration.LEAST_TEXTS.items())
def test_too_few_texts_for_a_method_are_refused_and_just_enough_are_not(model, method, least):
    expected = f"^calibration: {method} needs at least {least} texts and {least - 1} are there; raise --calibration-ex"
    with pytest.raises(StageError, match=expected):
        run(model, words(least - 1), method)
    run(model, words(least), method)


def test_a_percentile_that_cuts_off_less_than_one_value_is_refused(model):
    text = feature([1] * 25, [1] * 25)
    run(model, [text] * 10, "percentile", tensors=["hidden"], percentile=99.9)
    expected = "at least 1000 values per tensor and 900 are there for 'hidden'; raise --calibration-examples to some 10"
    with pytest.raises(StageError, match=expected):
        run(model, [text] * 9, "percentile", percentile=99.9)
    run(model, [text], "percentile", percentile=100.0)


@pytest.mark.parametrize(
    ("method", "others"),
    [
        ("percentile", {"percentile": 50.0}),
        ("percentile", {"percentile": 100.1}),
        ("moving_average", {"momentum": 1.0}),
    ],
)
def test_parameters_out_of_bounds_are_refused(model, method, others):
    with pytest.raises(StageError, match=r"^calibration: .*; choose"):
        run(model, words(3), method, **others)
