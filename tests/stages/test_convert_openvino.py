"""Conversion to OpenVINO: the same outputs whatever the mask, attention fused, and nothing said to anybody."""

import os
import subprocess
import sys

import pytest
from libraries import needs

from optimize.errors import StageError
from optimize.graphs.openvino import count_operators, find_weights
from optimize.heads import HEADS
from optimize.runtimes.openvino import MODEL_FILE, axes_of, read_model

NAMES = sorted(HEADS)
LAYERS = 2


def converted(context, apply, head, lean=False, **params):
    return apply(context(head), "convert_openvino", apply(context(head), "export", lean=lean), **params)


@pytest.mark.parametrize("kind", ["full", "left-padded", "right-padded", "holed"])
@pytest.mark.parametrize("head", NAMES)
def test_outputs_are_those_of_the_onnx_graph_for_any_mask(head, kind, context, apply, make_feed, difference):
    here = context(head)
    exported, built = apply(here, "export").open(here), converted(context, apply, head).open(here)
    assert difference(here, exported, built, make_feed(here, kind)) < 2e-5


@pytest.mark.parametrize("head", NAMES)
def test_the_attention_of_every_layer_is_one_operator_and_the_facts_say_so(head, context, apply):
    built = converted(context, apply, head)
    found = count_operators(read_model(built.artifact.path))["ScaledDotProductAttention"]
    assert built.facts["fused_attentions"] == found == len(layers_of(built))


def layers_of(built):
    names = [weight.name for weight in find_weights(read_model(built.artifact.path)) if "q_lin" in weight.name]
    assert names
    return names


def test_the_lean_export_is_fused_as_well(context, apply):
    assert converted(context, apply, "text-classification", lean=True).facts["fused_attentions"] == LAYERS


@pytest.mark.parametrize("head", NAMES)
def test_the_axes_stay_dynamic_and_the_files_have_the_names_that_others_look_for(head, context, apply):
    built = converted(context, apply, head)
    assert axes_of(read_model(built.artifact.path)).free
    assert {"openvino_model.xml", "openvino_model.bin", "config.json", "tokenizer.json"} <= {
        path.name for path in built.artifact.path.iterdir()
    }


def test_16_bit_weights_halve_the_file_and_move_the_outputs_a_little(context, apply, make_feed, difference):
    here = context("text-classification")
    whole, half = (converted(context, apply, "text-classification", weights=each) for each in ("fp32", "fp16"))
    sizes = [(built.artifact.path / "openvino_model.bin").stat().st_size for built in (whole, half)]
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.01)
    assert 0 < difference(here, whole.open(here), half.open(here), make_feed(here)) < 1e-2


def test_outputs_that_differ_by_more_than_the_tolerance_are_refused(context, apply):
    with pytest.raises(StageError, match=r"^convert_openvino: outputs differ from the source model's by"):
        converted(context, apply, "text-classification", weights="fp16", tolerance=1e-9)


def test_a_graph_that_is_quantized_already_is_refused(context, apply):
    here = context("text-classification")
    quantized = apply(here, "quantize_dynamic", apply(here, "export"))
    with pytest.raises(StageError, match=r"^convert_openvino: the model is quantized already"):
        apply(here, "convert_openvino", quantized)


REPORTS = """
import socket, sys
from pathlib import Path

def refuse(*arguments, **_):
    raise SystemExit(f"tried to reach {arguments}")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from optimize.runtimes.openvino import load_nncf, load_openvino

openvino = load_openvino()
model = openvino.Core().read_model(sys.argv[1])
openvino.save_model(openvino.convert_model(sys.argv[2]), Path(sys.argv[3]) / "again.xml")
nncf = load_nncf()
nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
assert sys.modules["openvino_telemetry"] is None
"""


def test_nothing_is_reported_and_nothing_left_in_the_users_home(context, apply, tmp_path):
    """Without our switch, importing OpenVINO alone writes an identity to the home and starts a thread that reports."""
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    out.mkdir()
    built = converted(context, apply, "text-classification")
    exported = apply(context("text-classification"), "export")
    words = [built.artifact.path / MODEL_FILE, exported.artifact.path / "model.onnx", out]
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "HOME")}
    done = subprocess.run(
        [sys.executable, "-c", REPORTS, *map(str, words)],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.rglob("*")) == []


@needs("openvino")
def test_the_switch_is_needed(tmp_path):
    """Fails once OpenVINO leaves the user's home alone by itself: then the switch can go."""
    code = "import openvino"
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "HOME")}
    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(tmp_path)}, check=True, timeout=60)
    assert [path for path in tmp_path.rglob("*") if path.is_file()]
