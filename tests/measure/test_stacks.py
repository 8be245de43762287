"""What is timed in place of layers: models of the sizes asked for, converted as the target's reference is."""

import onnx
import pytest

from optimize.errors import StageError
from optimize.interfaces import Params
from optimize.manifest import Latency
from optimize.measure import stacks
from optimize.measure.latency import EngineTimes
from optimize.targets import TARGETS


@pytest.fixture
def timed(monkeypatch):
    """Note the engines that would be timed, and the sizes of their graphs' maps; each takes longer than the last."""
    seen = []

    def measure_latency(engines, shapes, **options):
        for engine in engines:
            graph = onnx.load(engine.artifact.path / "model.onnx").graph
            seen.append((engine, shapes, options["workload"], [tuple(each.dims) for each in graph.initializer]))
        return {
            engine.name: EngineTimes([Latency(shape=shapes[0], p50_ms=1.0 + place, p90_ms=None, p99_ms=None, runs=20)])
            for place, engine in enumerate(engines)
        }

    monkeypatch.setattr(stacks, "measure_latency", measure_latency)
    return seen


def test_each_stack_has_the_layers_that_were_asked_for(timed, context):
    asked = [[(4, 256), (4, 256)], [(1, 48)]]
    target = TARGETS["cpu"]
    found = stacks.time_stacks(asked, 48, target=target, runtime=Params(), context=context("text-classification"))

    assert found == [0.001, 0.002]
    assert [shapes for _, shapes, *_ in timed] == [["1x48"]] * 2
    for (engine, _, workload, dims), stack in zip(timed, asked, strict=True):
        assert dims.count((128, stack[0][1])) == len(stack)
        assert (1000, 128) in dims
        assert (engine.target, workload.vocab_size, workload.choices) == ("cpu", 1000, 0)


def test_a_text_of_multiple_choice_is_timed_with_one_choice_and_the_files_are_gone_afterwards(timed, context):
    stacks.time_stacks([[(2, 64)]], 16, target=TARGETS["cpu"], runtime=Params(), context=context("multiple-choice"))
    ((engine, _, workload, _),) = timed
    assert workload.choices == 1
    assert not engine.artifact.path.exists()


def test_padding_of_a_large_vocabulary_is_none_of_the_small_one(timed, context, monkeypatch):
    config = {**stacks.read_config(context("text-classification").reference.path), "pad_token_id": 29_999}
    monkeypatch.setattr(stacks, "read_config", lambda _: config)
    stacks.time_stacks([[(2, 64)]], 16, target=TARGETS["cpu"], runtime=Params(), context=context("text-classification"))
    ((_, _, workload, _),) = timed
    assert workload.pad_id == 0


def test_more_tokens_than_the_model_takes_are_refused_before_anything_is_built(timed, context):
    with pytest.raises(StageError, match=r"^layers to time: 1x9999 is longer than .* positions; lower 'tokens'$"):
        stacks.time_stacks(
            [[(2, 64)]], 9999, target=TARGETS["cpu"], runtime=Params(), context=context("text-classification")
        )
    assert not timed
