from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from doubles import Silent

from optimize import bench
from optimize.cli import commands
from optimize.measure.calibration_memory import Row
from optimize.targets import TARGETS


@pytest.mark.parametrize(("target", "calibrators"), [("cpu", ("streaming", "onnxruntime")), ("openvino", ("nncf",))])
def test_the_targets_calibrators_are_compared_on_the_plain_export_of_the_model(target, calibrators, monkeypatch):
    asked = []
    plan = SimpleNamespace(request=SimpleNamespace(threads=3), target=TARGETS[target])
    loaded = SimpleNamespace(plan=plan, progress=Silent())
    exported = SimpleNamespace(path=Path("cached"))

    monkeypatch.setattr(bench, "fold", lambda _, steps: asked.append(steps) or ([], [exported]))
    monkeypatch.setattr(bench.calibration_memory, "compare", lambda model, **settings: [(model, settings)])

    ((model, settings),) = bench.compare_calibrators(loaded)
    assert (model, settings["threads"], settings["calibrators"]) == (Path("cached/model.onnx"), 3, calibrators)
    assert [(step.stage, step.params.readout_slice) for step in asked[0]] == [("export", False)]


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
