from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from doubles import Silent

from optimize import bench
from optimize.cli import commands
from optimize.manifest import Latency, Measurement, Size
from optimize.measure.calibration_memory import Row
from optimize.targets import TARGETS


@pytest.mark.parametrize(("target", "calibrators"), [("cpu", ("streaming", "onnxruntime")), ("openvino", ("nncf",))])
def test_the_targets_calibrators_are_compared_on_the_plain_export_of_the_model(target, calibrators, monkeypatch):
    wanted = []
    plan = SimpleNamespace(request=SimpleNamespace(threads=3), target=TARGETS[target])
    loaded = SimpleNamespace(plan=plan, progress=Silent())
    exported = SimpleNamespace(path=Path("cached"))

    monkeypatch.setattr(bench, "fold", lambda _, steps: wanted.append(steps) or ([], [exported]))
    monkeypatch.setattr(bench.calibration_memory, "compare", lambda model, **settings: [(model, settings)])

    ((model, settings),) = bench.compare_calibrators(loaded)
    assert (model, settings["threads"], settings["calibrators"]) == (Path("cached/model.onnx"), 3, calibrators)
    assert [(step.stage, step.params.readout_slice) for step in wanted[0]] == [("export", False)]


def measured(name, ratio, unreliable=None):
    """A model that is so many times as fast as PyTorch FP32, at one shape."""
    latency = Latency(
        shape="1x16",
        p50_ms=10 / ratio,
        p90_ms=None,
        p99_ms=None,
        runs=30,
        speedup={"pytorch-fp32": ratio},
        speedup_interval={"pytorch-fp32": (0.9 * ratio, 1.1 * ratio)},
        unreliable=unreliable,
    )
    size = Size(bytes=10, ratio=1.0, by_component={}, by_dtype={})
    return Measurement(name=name, artifact_digest="0", latency=[latency], size=size)


def asked(monkeypatch, measurements, *words):
    """The exit code of the command, which measures nothing."""
    monkeypatch.setattr(bench, "bench", lambda *_, **__: bench.Benchmark(measurements, []))
    monkeypatch.setattr(sys, "argv", ["optimize", "bench", *words])
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    return stopped.value.code


def test_the_picture_shows_each_models_ratio_and_what_is_not_reliable(monkeypatch, tmp_path):
    plain, doubtful = tmp_path / "plain.png", tmp_path / "doubtful.png"
    assert asked(monkeypatch, [measured("pytorch-fp32", 1.0), measured("x", 4.0)], "--picture", str(plain)) == 0
    busy = [measured("pytorch-fp32", 1.0), measured("x", 4.0, unreliable="busy")]
    assert asked(monkeypatch, busy, "--picture", str(doubtful)) == 0
    assert plain.read_bytes().startswith(b"\x89PNG")
    assert plain.read_bytes() != doubtful.read_bytes()


def test_a_picture_of_nothing_is_refused(monkeypatch, tmp_path, capsys):
    untimed = measured("pytorch-fp32", 1.0).model_copy(update={"latency": []})
    assert asked(monkeypatch, [untimed], "--picture", str(tmp_path / "none.png")) == 3
    said = capsys.readouterr()
    assert "no shape was timed" in said.err
    assert "size and memory" in said.out
    assert not list(tmp_path.iterdir())


def test_a_picture_where_no_file_can_be_is_refused_before_measuring(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    never = [measured("pytorch-fp32", 1.0)]
    for place in (tmp_path / "file" / "x.png", tmp_path):
        assert asked(monkeypatch, never, "--picture", str(place)) == 2


@pytest.mark.parametrize(("flags", "wanted"), [([], True), (["--no-calibration"], False)])
def test_the_command_compares_calibrators_unless_told_not_to(flags, wanted, monkeypatch, capsys):
    def measure(_, *, calibration, progress, peers, limits):
        assert (peers, limits) == (False, False)
        return bench.Benchmark([], [Row("streaming", 64, 880_000_000, 9.5)] if calibration else [])

    monkeypatch.setattr(bench, "bench", measure)
    monkeypatch.setattr(sys, "argv", ["optimize", "bench", *flags])
    with pytest.raises(SystemExit) as stopped:
        commands.main()

    assert stopped.value.code == 0
    assert ("streaming" in capsys.readouterr().out) == wanted
