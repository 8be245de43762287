"""What the page says in words of INT8 that is not faster."""

from __future__ import annotations

import pytest
from report.conftest import ENVIRONMENT, REQUEST, STAGES, latency, make_manifest, measurement

from optimize.report.card import render_card
from optimize.report.page import render
from optimize.report.remarks import remarks


def remarks_on(ratio: float, *, dtype="int8", features=("avx2",), device=None, mode="full", runtime=None) -> list[str]:
    """Remarks on a model that is so many times as fast as the target's FP32."""
    timings = [
        latency("1x128", 10.0, pytorch_fp32=3.0, openvino_fp32=ratio),
        latency("8x128", 80.0, pytorch_fp32=3.0, openvino_fp32=2.0),
    ]
    last = measurement("quantize_openvino", 0.895, 60_000_000, timings)
    last["size"]["by_dtype"] = {dtype: 60_000_000}
    last["runtime"] = runtime or {}
    *others, quantized = STAGES
    manifest = make_manifest(
        request={**REQUEST, "target": "openvino"},
        environment={**ENVIRONMENT, "features": list(features), "device": device or {}},
        stages=[*others, {**quantized, "facts": {"mode": mode}}],
        measurements=[measurement("pytorch-fp32", 0.9, 200_000_000, []), last],
    )
    assert all(remark in render(manifest) for remark in remarks(manifest))
    return remarks(manifest)


def test_times_that_are_not_reliable_are_marked_wherever_they_stand_and_explained_once():
    busy = {**latency("1x128", 10.0, pytorch_fp32=3.0), "unreliable": "the machine was busy"}
    models = [measurement(name, 0.9, 200_000_000, [busy]) for name in ("pytorch-fp32", "export")]
    manifest = make_manifest(measurements=models)

    assert remarks(manifest) == [
        "Latency at 1x128 is **not reliable** (pytorch-fp32, export): the machine was busy. Certify the run again "
        "on a quiet machine."
    ]
    page = render(manifest)
    assert remarks(manifest)[0] in page
    assert "3.00× [2.90, 3.10], not reliable" in page
    assert "10.00 (3.00×), not reliable" in page
    assert "3.00× [2.90, 3.10], not reliable" in render_card(manifest)


def test_without_instructions_for_it_int8_is_said_to_save_size_and_not_time():
    (remark,) = remarks_on(0.88)
    assert remark == (
        "**quantize_openvino** is INT8 and slower than openvino-fp32 at 1x128 (0.88×): this CPU has no instructions "
        "for 8-bit products (VNNI, AMX), so INT8 saves size and memory here, not time."
    )


@pytest.mark.parametrize(
    ("features", "device", "words"),
    [
        (("avx2", "avx512_vnni"), {"device": "CPU"}, "has instructions for 8-bit products (avx512_vnni), but"),
        ((), {"device": "GPU", "capabilities": "FP32, FP16"}, "device GPU has no INT8."),
        ((), {"device": "GPU", "capabilities": "FP32, INT8"}, "device GPU has INT8, but gains nothing by it"),
    ],
)
def test_the_reason_is_what_the_machine_tells(features, device, words):
    (remark,) = remarks_on(0.95, features=features, device=device)
    assert words in remark


@pytest.mark.parametrize(("ratio", "said"), [(0.9, True), (1.05, True), (1.15, False)])
def test_a_speedup_whose_interval_reaches_one_is_not_called_faster(ratio, said):
    found = remarks_on(ratio)
    assert bool(found) == said
    assert all(("slower" if ratio < 1 else "not clearly faster") in remark for remark in found)


def test_a_float_model_that_is_slower_needs_no_remark():
    assert remarks_on(0.8, dtype="float32") == []


def test_only_the_shapes_at_which_it_is_slow_are_named():
    (remark,) = remarks_on(0.8)
    assert "8x128" not in remark


def sparse(*, pattern="unstructured", runtime=None, compressed=30_000_000):
    """A run whose first stage zeroed half of the encoder's weights."""
    facts = {"pattern": pattern, "sparsity": 0.5, "zeroed": []}
    last = measurement("quantize_static", 0.895, 60_000_000, [])
    last["size"]["compressed_bytes"] = compressed
    return make_manifest(
        request={**REQUEST, "runtime": runtime or {}},
        stages=[{**STAGES[0], "stage": "prune_weights", "facts": facts}, STAGES[1]],
        measurements=[measurement("pytorch-fp32", 0.9, 200_000_000, []), last],
    )


def test_zeros_are_said_to_buy_size_once_compressed_and_no_latency():
    (remark,) = remarks(sparse())
    assert remark == (
        "**prune_weights** made 50.0% of the weights in the encoder's linear maps zero (unstructured). That makes the "
        "model smaller once it is compressed (gzip makes 30.0 MB of 60.0 MB), and not faster: ONNX Runtime, OpenVINO "
        "and CUDA's dense kernels multiply by zeros as by any other number; TensorRT alone has kernels for zeros, and "
        "only for 2:4."
    )
    assert remark in render(sparse())
    assert remark in render_card(sparse())
    assert "gzip" not in remarks(sparse(compressed=None))[0]


@pytest.mark.parametrize(
    ("pattern", "runtime", "may"),
    [
        ("2:4", {"provider": "tensorrt"}, True),
        ("2:4", {"provider": "cuda"}, False),
        ("2:4", {}, False),
        ("unstructured", {"provider": "tensorrt"}, False),
    ],
)
def test_only_tensorrt_and_only_2_4_may_gain_time_by_zeros(pattern, runtime, may):
    (remark,) = remarks(sparse(pattern=pattern, runtime=runtime))
    assert ("lets TensorRT" in remark, "not faster" in remark) == (may, not may)


@pytest.mark.parametrize(
    ("features", "dynamic", "dequantized"),
    [(("avx2",), True, True), (("avx512_vnni",), False, True), (("avx512_vnni",), True, False)],
)
def test_weights_alone_are_said_to_be_dequantized_where_activations_stay_in_float(features, dynamic, dequantized):
    (remark,) = remarks_on(0.8, features=features, mode="weights", runtime={"dynamic_quantization": dynamic})
    assert ("they are dequantized for every product" in remark) == dequantized
