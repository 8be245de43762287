"""The OpenVINO target: what its settings mean, what is refused, and that FP32 means FP32."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from libraries import needs
from pydantic import ValidationError

from optimize.errors import StageError, UnavailableError
from optimize.runtimes.openvino import core
from optimize.targets import openvino
from optimize.targets.openvino import Runtime, describe, open_session, unavailable

CAPABLE = {"CPU": ["FP32", "INT8"], "GPU": ["FP32", "FP16", "INT8"]}


class FakeCore:
    """A machine with these devices."""

    def __init__(self, present):
        self.available_devices = present

    def get_property(self, device, name):
        return f" Imagined {device} " if name == "FULL_DEVICE_NAME" else CAPABLE[device.split(".")[0]]


@pytest.fixture
def machine(monkeypatch):
    """Pretend that this machine has these devices."""

    def pretend(*present):
        monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda _: FakeCore)
        monkeypatch.setattr(openvino, "core", lambda: FakeCore(list(present)))

    return pretend


@pytest.fixture
def model(context, apply):
    here = context("text-classification")
    return apply(here, "convert_openvino", apply(here, "export")).artifact.path


@pytest.mark.parametrize("device", ["CPU", "gpu", "GPU.1", "NPU", "AUTO", "auto:GPU,CPU"])
def test_a_device_is_known_in_any_case(device):
    assert Runtime(device=device).device == device.upper()


@pytest.mark.parametrize("device", ["XPU", "CPU.0", "AUTO:", "GPU,CPU", "AUTO:XPU", ""])
def test_a_device_that_is_none_is_refused(device):
    with pytest.raises(ValidationError, match="a device is CPU, GPU, NPU or AUTO"):
        Runtime(device=device)


@pytest.mark.parametrize(
    ("settings", "present", "words"),
    [
        ({"device": "GPU"}, ["CPU"], "device GPU is not there (found: CPU)"),
        ({"device": "AUTO:NPU,CPU"}, ["CPU"], "device NPU is not there (found: CPU)"),
        ({"device": "GPU.1"}, ["CPU", "GPU.0"], "device GPU.1 is not there (found: CPU, GPU.0)"),
        ({"device": "CPU"}, [], "device CPU is not there (found: none)"),
        ({"precision": "bf16"}, ["CPU"], "device CPU does not compute in bf16; set 'precision' to one of: f32"),
        ({"device": "GPU", "precision": "bf16"}, ["GPU"], "set 'precision' to one of: f32, f16"),
    ],
)
def test_what_this_machine_lacks_is_said(settings, present, words, machine):
    machine(*present)
    assert words in unavailable(Runtime(**settings))


@pytest.mark.parametrize(
    ("settings", "present"),
    [
        ({}, ["CPU"]),
        ({"device": "GPU"}, ["CPU", "GPU.0", "GPU.1"]),
        ({"device": "GPU", "precision": "f16"}, ["GPU"]),
        ({"device": "AUTO"}, ["CPU"]),
    ],
)
def test_what_is_there_is_not_refused(settings, present, machine):
    machine(*present)
    assert unavailable(Runtime(**settings)) is None


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda _: None)
    assert unavailable(Runtime()) == "openvino is not installed; run: pip install 'distilbert-optimize[openvino]'"


def test_the_device_is_described_by_name_and_what_it_can_do(machine):
    machine("CPU", "GPU")
    assert describe(Runtime(device="GPU", hint="throughput")) == {
        "device": "GPU",
        "present": "CPU, GPU",
        "full_name": "Imagined GPU",
        "capabilities": "FP32, FP16, INT8",
        "hint": "throughput",
        "precision": "f32",
    }
    assert describe(Runtime(device="AUTO"))["full_name"] == "Imagined CPU; Imagined GPU"


def test_settings_reach_openvino_by_its_own_names(model):
    settings = Runtime(hint="throughput", dynamic_quantization=False)
    compiled = core().compile_model(model / "openvino_model.xml", "CPU", settings.properties(1))
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert str(compiled.get_property("PERFORMANCE_HINT")).endswith("THROUGHPUT")
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 0


INTERRUPTED = """
import signal, sys
from pathlib import Path
from optimize.heads import HEADS
from optimize.targets.openvino import Runtime, open_session

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # tests may run in a shell's background
    signal.signal(signal.SIGINT, signal.default_int_handler)
first, second = (open_session(Path(sys.argv[1]), 1, HEADS["text-classification"], Runtime()) for _ in range(2))
del first
del second
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""


def test_ctrl_c_is_heard_after_sessions_ended_in_another_order_than_they_began(model):
    """Each Core's plugin puts a signal stack in place, and puts back the one that it found, even one that is gone."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(model)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n")


@pytest.mark.parametrize("device", ["CPU", "AUTO", "AUTO:CPU"])
def test_every_way_to_name_the_cpu_gives_one_answer(device, model, context, make_feed):
    here = context("text-classification")
    feed = make_feed(here)
    expected = here.open("openvino", model)(feed)["logits"]
    found = open_session(model, 1, here.head, Runtime(device=device))(feed)["logits"]
    assert np.allclose(found, expected, atol=1e-5)


def test_fp32_is_computed_in_fp32_whatever_the_device_prefers(model, context, make_feed):
    here = context("text-classification")
    feed = make_feed(here)
    expected = here.open("torch", here.reference.path)(feed)["logits"]
    assert np.abs(open_session(model, 1, here.head, Runtime())(feed)["logits"] - expected).max() < 2e-5


def test_a_precision_that_the_cpu_swaps_for_another_is_refused(model, context):
    """A CPU without FP16 computes in another type and says nothing."""
    here = context("text-classification")
    if "FP16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU computes in f16")
    with pytest.raises(UnavailableError, match=r"^device CPU: computes in \w+ where f16 was asked for"):
        open_session(model, 1, here.head, Runtime(precision="f16"))


def test_compiled_models_are_kept_where_they_are_asked_to_be(model, context, tmp_path):
    here = context("text-classification")
    open_session(model, 1, here.head, Runtime(model_cache=tmp_path / "compiled"))
    assert [path.suffix for path in (tmp_path / "compiled").iterdir()] == [".blob"]


def test_a_model_of_another_head_is_refused(model, context):
    with pytest.raises(StageError, match="has no output end_logits, start_logits"):
        open_session(model, 1, context("question-answering").head, Runtime())


@needs("openvino")
def test_a_run_on_a_device_that_is_not_there_is_one_line_and_exit_code_3(optimize, capsys):
    if "GPU" in core().available_devices:
        pytest.skip("this machine has a GPU that OpenVINO knows")
    assert optimize("run", "--target", "openvino", "--device", "GPU") == 3
    err = capsys.readouterr().err
    assert err.startswith("optimize: target openvino: device GPU is not there (found: CPU)")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "XPU"], "--device: device: "),
        (["--runtime", "hnt=latency"], "--runtime: unknown name 'hnt'; did you mean 'hint'?"),
        (["--runtime", "hint"], "--runtime: 'hint' is not setting=value"),
        (["--runtime", "precision=int8"], "--runtime: precision: "),
    ],
)
def test_settings_that_make_no_sense_are_one_line_and_exit_code_2(words, told, optimize, capsys):
    assert optimize("run", "--target", "openvino", *words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"optimize: {told}")
    assert err.count("\n") == 1


def test_a_target_without_settings_refuses_any(optimize, capsys):
    assert optimize("plan", "--target", "cpu", "--device", "CPU") == 2
    assert "--device: target cpu has no settings; leave it out" in capsys.readouterr().err
