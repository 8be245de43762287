from __future__ import annotations

import logging
import multiprocessing
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import pytest
from doubles import FEW_RUNS, Silent

from optimize.artifact import Artifact, seal
from optimize.errors import StageError
from optimize.evaluate.statistics import percentiles_ms, ratio_interval
from optimize.interfaces import Feed, Params
from optimize.measure import latency, workers
from optimize.measure.latency import (
    PROCESSES_DIFFER,
    DeviceMemory,
    Engine,
    EngineTimes,
    Workload,
    measure_latency,
    summarise,
)
from optimize.measure.rounds import Rounds
from optimize.runtimes.pytorch import TorchRuntime

NOWHERE = Artifact(kind="onnx", path=Path("nowhere"), digest="0", size_bytes=0)
WORKLOAD = Workload(features=(), vocab_size=100, max_positions=64, pad_id=0, seed=0)


def engine(name: str, artifact: Artifact = NOWHERE, target: str = "cpu") -> Engine:
    runtime = TorchRuntime() if target == "pytorch" else Params()
    return Engine(name=name, target=target, artifact=artifact, head="text-classification", runtime=runtime)


def measure(
    *engines: Engine, shapes: tuple[str, ...] = ("1x8",), device: DeviceMemory | None = None
) -> dict[str, EngineTimes]:
    references = [each.name for each in engines if each.name.endswith("-fp32")]
    return measure_latency(
        engines,
        shapes,
        references=references,
        workload=WORKLOAD,
        settings=FEW_RUNS(threads=1),
        progress=Silent(),
        device=device,
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    """A classifier that sums ids and mask."""
    onnx = pytest.importorskip("onnx")
    make, kind = onnx.helper, onnx.TensorProto
    nodes = [
        make.make_node("Add", ["input_ids", "attention_mask"], ["sum"]),
        make.make_node("Cast", ["sum"], ["logits"], to=kind.FLOAT),
    ]
    inputs = [make.make_tensor_value_info(name, kind.INT64, ["b", "t"]) for name in ("input_ids", "attention_mask")]
    graph = make.make_graph(nodes, "tiny", inputs, [make.make_tensor_value_info("logits", kind.FLOAT, ["b", "t"])])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    return seal(tmp_path, "onnx")


def test_percentiles_need_runs_enough_to_show_them() -> None:
    assert percentiles_ms(np.arange(19) / 1000) == (9.0, None, None)
    assert percentiles_ms(np.full(20, 0.002)) == (2.0, 2.0, None)
    assert percentiles_ms(np.full(99, 0.002))[2] is None
    assert percentiles_ms(np.arange(101) / 1000) == pytest.approx((50.0, 90.0, 99.0))


def test_a_speedup_is_the_ratio_of_medians_over_each_reference() -> None:
    seconds = {"pytorch-fp32": 0.4, "cpu-fp32": 0.3, "quantize_dynamic": 0.1, "fuse": 0.2}
    times = {name: [np.full(2, each)] * 10 for name, each in seconds.items()}
    references = ("pytorch-fp32", "cpu-fp32")
    found = summarise("1x128", engine("quantize_dynamic"), Rounds(times), references=references)
    assert found.speedup == pytest.approx({"pytorch-fp32": 4.0, "cpu-fp32": 3.0})
    # However alike the rounds are: processes of one model are not.
    assert found.speedup_interval["cpu-fp32"] == pytest.approx((3.0 / PROCESSES_DIFFER, 3.0 * PROCESSES_DIFFER))
    assert (found.p50_ms, found.p90_ms) == pytest.approx((100.0, 100.0))
    assert (found.p99_ms, found.runs) == (None, 20)


def test_pytorchs_own_ways_are_compared_with_its_fp32_and_ours_with_all() -> None:
    seconds = {"pytorch-fp32": 0.4, "pytorch-fp16": 0.2, "cuda-fp32": 0.3, "convert_fp16": 0.1}
    times = {name: [np.full(2, each)] * 10 for name, each in seconds.items()}
    references = ("pytorch-fp32", "pytorch-fp16", "cuda-fp32")
    half = summarise("1x128", engine("pytorch-fp16", target="pytorch"), Rounds(times), references=references)
    ours = summarise("1x128", engine("convert_fp16"), Rounds(times), references=references)
    assert half.speedup == pytest.approx({"pytorch-fp32": 2.0})
    assert ours.speedup == pytest.approx({"pytorch-fp32": 4.0, "pytorch-fp16": 2.0, "cuda-fp32": 3.0})


def test_on_a_device_each_shape_is_timed_from_here_and_from_there(
    tiny: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(worker: workers.Worker, request: str, payload: object = None) -> object:
        asked.append((worker.engine, request))
        return workers.ask(worker, "feeds" if request == "place" else request, payload)

    monkeypatch.setattr(latency, "ask", ask)
    in_use = iter([900, 500, 500, 200])
    found = measure(engine("a-fp32", tiny), engine("b", tiny), device=DeviceMemory(lambda: next(in_use)))
    assert [each.shape for each in found["b"].latency] == ["1x8", "1x8@device"]
    # Once to warm up and once in each round; a round that others disturb is repeated at one place alone.
    assert min(asked.count(("b", "place")), asked.count(("b", "feeds"))) >= 3
    assert {name: times.device_memory_bytes for name, times in found.items()} == {"a-fp32": 400, "b": 300}
    assert set(found["b"].latency[1].speedup) == {"a-fp32"}
    assert not multiprocessing.active_children()


def test_memory_that_cannot_be_told_is_not_made_up(tiny: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        latency,
        "ask",
        lambda worker, request, payload=None: workers.ask(worker, request.replace("place", "feeds"), payload),
    )
    found = measure(engine("a", tiny), device=DeviceMemory(lambda: None))
    assert found["a"].device_memory_bytes is None


def test_a_target_without_a_device_places_nothing(tiny: Artifact) -> None:
    with pytest.raises(StageError, match="latency of 'a': target cpu has no device to put texts on"):
        measure(engine("a", tiny), device=DeviceMemory(lambda: 0))


def test_a_machine_that_slows_down_in_some_rounds_leaves_the_ratio_alone() -> None:
    drift = np.linspace(1.0, 3.0, 10)
    reference, candidate = [np.full(2, 0.2 * each) for each in drift], [np.full(2, 0.1 * each) for each in drift]
    assert ratio_interval(reference, candidate) == pytest.approx((2.0, 2.0))
    assert ratio_interval(reference, candidate[::-1])[1] > 3.0


@pytest.mark.parametrize("rounds", [6, 10, 20])
@pytest.mark.parametrize("noise", ["normal", "heavy-tailed"])
def test_of_equal_engines_the_interval_holds_1_as_often_as_it_says(noise: str, rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    draw = rng.standard_normal if noise == "normal" else lambda size: rng.standard_cauchy(size).clip(-50, 50)
    held = 0
    for _ in range(1000):
        one, other = np.exp(0.02 * draw((2, rounds)))
        low, high = ratio_interval([*one[:, None]], [*other[:, None]])
        held += low <= 1.0 <= high
    assert 950 - 3 * 7 <= held < 1000  # three standard deviations; an interval of everything would say nothing


def test_one_round_in_ten_that_went_wrong_does_not_reach_the_interval() -> None:
    one, other = [np.full(3, 0.1)] * 10, [np.full(3, 0.1)] * 9 + [np.full(3, 40.0)]
    assert ratio_interval(one, other) == (1.0, 1.0)


def test_times_of_a_busy_machine_say_so() -> None:
    times = {name: [np.full(2, 0.1)] * 10 for name in ("cpu-fp32", "fuse")}
    found = summarise("1x8", engine("fuse"), Rounds(times, "the machine was busy"), references=("cpu-fp32",))
    assert found.unreliable == "the machine was busy"


def test_rounds_that_contradict_each_other_say_so_whatever_the_machine_says() -> None:
    times = {"cpu-fp32": [np.full(2, 0.1 * (1 + turn % 3)) for turn in range(10)], "fuse": [np.full(2, 0.1)] * 10}
    found = summarise("1x8", engine("fuse"), Rounds(times), references=("cpu-fp32",))
    assert found.unreliable == "rounds contradict each other: over cpu-fp32 the speed-up was from 0.99x to 3.03x"


def test_only_the_session_is_timed() -> None:
    ticks, fed = count(), list[Feed]()
    feeds = [{"input_ids": np.full(1, index)} for index in range(2)]

    def session(feed: Feed) -> Feed:
        fed.append(feed)
        return feed

    seconds = workers.time_runs(session, feeds, 3, clock=lambda: float(next(ticks)))
    assert seconds == [1.0] * 6
    assert fed == feeds * 3


def test_engines_run_in_processes_of_their_own_and_leave_none_behind(tiny: Artifact) -> None:
    found = measure(engine("cpu-fp32", tiny), engine("fuse", tiny), shapes=("1x8", "2x4", "1x1024", "data"))
    for times in found.values():
        assert [each.shape for each in times.latency] == ["1x8", "2x4"]
        assert all(each.runs >= 4 and set(each.speedup) == {"cpu-fp32"} for each in times.latency)
        assert times.load_seconds > 0
        assert times.peak_memory_bytes is None or times.peak_memory_bytes > 10**6
        assert times.not_measured["latency 1x1024"] == "longer than the model's 64 positions"
        assert "latency data" in times.not_measured
    assert not multiprocessing.active_children()


def test_engines_are_opened_anew_before_each_round_but_not_those_that_take_long(
    tiny: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(worker: workers.Worker, request: str, payload: object = None) -> object:
        asked.append((worker.engine, request))
        answer = workers.ask(worker, request, payload)
        return 60.0 if (worker.engine, request) == ("slow", "open") else answer

    monkeypatch.setattr(latency, "ask", ask)
    found = measure(engine("slow", tiny), engine("quick", tiny))
    rounds = asked.count(("quick", "feeds")) - 1  # one is for warming up
    assert rounds >= 2
    assert asked.count(("quick", "open")) == rounds
    assert asked.count(("slow", "open")) == 1
    assert found["slow"].load_seconds == 60.0
    assert asked.index(("quick", "memory")) < len(asked) - 1 - asked[::-1].index(("quick", "open"))


def test_an_engine_that_cannot_be_opened_is_named_and_all_processes_end(tiny: Artifact) -> None:
    with pytest.raises(StageError, match="latency of 'broken'") as raised:
        measure(engine("cpu-fp32", tiny), engine("broken"))
    assert "\n" not in str(raised.value)
    assert not multiprocessing.active_children()


def test_what_fails_before_a_model_is_opened_is_told_too(tiny: Artifact) -> None:
    with pytest.raises(StageError, match="latency of 'odd': KeyError: 'no such head'; look at"):
        measure(Engine("odd", "cpu", tiny, "no such head"))
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_named_with_its_exit_code() -> None:
    with workers.open_workers([engine("doomed")], 1) as started:
        started["doomed"].process.kill()
        with pytest.raises(StageError, match="latency of 'doomed': its process ended with code -9"):
            workers.ask(started["doomed"], "memory")


def test_each_model_is_opened_in_a_process_that_opened_none_before(tiny: Artifact) -> None:
    with workers.open_workers([engine("one", tiny)], 1) as started:
        worker = started["one"]
        found = set()
        for _ in range(3):
            workers.ask(worker, "open")
            (copy,) = psutil.Process(worker.process.pid).children()
            found.add(copy.pid)
            workers.ask(worker, "renew")
    assert len(found) == 3
    assert not any(psutil.pid_exists(pid) for pid in found)


def test_a_copy_that_dies_is_named_with_its_exit_code(tiny: Artifact) -> None:
    with workers.open_workers([engine("doomed", tiny)], 1) as started:
        workers.ask(started["doomed"], "open")
        (copy,) = psutil.Process(started["doomed"].process.pid).children()
        copy.kill()
        with pytest.raises(StageError, match="latency of 'doomed': its process ended with code -9"):
            workers.ask(started["doomed"], "memory")


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_copy_does_not_outlive_what_it_is_a_copy_of(tiny: Artifact, end: str) -> None:
    with workers.open_workers([engine("ended", tiny)], 1) as started:
        worker = started["ended"]
        workers.ask(worker, "open")
        copies = psutil.Process(worker.process.pid).children()
        getattr(worker.process, end)()
        worker.process.join()
        gone, alive = psutil.wait_procs(copies, timeout=2)
    assert (len(gone), alive) == (1, [])


def test_processes_end_when_the_parent_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt), workers.open_workers([engine("one")], 1):
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()


def test_two_engines_of_one_name_are_refused() -> None:
    with pytest.raises(StageError, match="same name"):
        measure(engine("fuse"), engine("fuse"))


def test_a_worker_logs_as_little_as_its_parent() -> None:
    logger = logging.getLogger("somebody.elses")
    logger.setLevel(logging.ERROR)
    levels = workers.log_levels()
    logger.setLevel(logging.NOTSET)

    workers.set_log_levels(levels)

    assert levels["somebody.elses"] == logger.level == logging.ERROR
