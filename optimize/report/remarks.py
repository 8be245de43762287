"""What a table does not say: why times cannot be relied on, where INT8 is not faster and why, what zeros are good for.

INT8 that is not faster is common: without instructions for 8-bit products it saves size and memory, not time. Zeros
among the weights save nothing but size, and that only where the model is compressed.
"""

from __future__ import annotations

from optimize.manifest import Latency, Manifest, Measurement, StageRecord
from optimize.quantization.weights import WIDE_SUMS
from optimize.report.markdown import plain
from optimize.report.tables import megabytes

INTEGERS = ("int8", "uint8")


def remarks(manifest: Manifest) -> list[str]:
    """What to say of times that cannot be relied on, of INT8 that is not faster at some shape, and of zeros."""
    return [*_unreliable(manifest), *_slow_integers(manifest), *zeros(manifest)]


def zeros(manifest: Manifest) -> list[str]:
    """What the zeros that stages put among the weights are good for on the target, and what they are not."""
    return [_of_zeros(manifest, record) for record in manifest.stages if "sparsity" in record.facts]


def is_int8(measurement: Measurement) -> bool:
    """Whether a model holds weights in INT8."""
    return not measurement.size.by_dtype.keys().isdisjoint(INTEGERS)


def _unreliable(manifest: Manifest) -> list[str]:
    """Why times cannot be relied on, each reason once, with the models: those of a shape share the machine."""
    models: dict[tuple[str, str], list[str]] = {}
    for measurement in manifest.measurements:
        for each in measurement.latency:
            if each.unreliable:
                models.setdefault((each.shape, each.unreliable), []).append(plain(measurement.name))
    return [
        f"Latency at {plain(shape)} is **not reliable** ({', '.join(names)}): {plain(reason)}. Certify the run again "
        "on a quiet machine."
        for (shape, reason), names in models.items()
    ]


def _of_zeros(manifest: Manifest, record: StageRecord) -> str:
    pattern, sparsity = record.facts.get("pattern"), float(str(record.facts["sparsity"]))
    share = f"{sparsity:.1%} of the weights in the encoder's linear maps"
    last = manifest.measurements[-1].size if manifest.measurements else None
    size = ""
    if last is not None and last.compressed_bytes is not None:
        size = f" (gzip makes {megabytes(last.compressed_bytes)} of {megabytes(last.bytes)})"
    return (
        f"**{plain(record.stage)}** made {share} zero ({plain(str(pattern))}). That makes the model smaller once it is "
        f"compressed{size}, "
        f"{_gain(manifest, str(pattern))}."
    )


def _gain(manifest: Manifest, pattern: str) -> str:
    """What zeros mean for latency."""
    if manifest.request.runtime.get("provider") == "tensorrt" and pattern == "2:4":
        return "and lets TensorRT, which alone has kernels for 2:4, use them where it finds them faster"
    return (
        "and not faster: ONNX Runtime, OpenVINO and CUDA's dense kernels multiply by zeros as by any other number; "
        "TensorRT alone has kernels for zeros, and only for 2:4"
    )


def _slow_integers(manifest: Manifest) -> list[str]:
    reference = f"{manifest.request.target}-fp32"
    found = []
    for measurement in manifest.measurements:
        slow = not_faster(measurement, reference)
        if slow:
            what = "slower" if all(each.speedup[reference] < 1.0 for each in slow) else "not clearly faster"
            shapes = ", ".join(f"{plain(each.shape)} ({each.speedup[reference]:.2f}×)" for each in slow)
            remark = f"**{plain(measurement.name)}** is INT8 and {what} than {plain(reference)} at {shapes}"
            found.append(f"{remark}: {why(manifest, measurement)}.")
    return found


def not_faster(measurement: Measurement, reference: str) -> list[Latency]:
    """The shapes at which an INT8 model is not proven faster: its speed-up's interval reaches 1 or less."""
    if not is_int8(measurement):
        return []
    return [each for each in measurement.latency if _lower(each, reference) <= 1.0]


def _lower(latency: Latency, reference: str) -> float:
    """The lower end of the speed-up's interval; the ratio itself where it has none."""
    # A shape at which the reference was not timed says nothing about the two, and so must not count as slow.
    ratio = latency.speedup.get(reference, float("inf"))
    return latency.speedup_interval.get(reference, (ratio, ratio))[0]


def why(manifest: Manifest, measurement: Measurement) -> str:
    """The reason, as far as it follows from the machine's features and the stages' facts."""
    machine = manifest.environment
    device = machine.device.get("device", "CPU")
    if device != "CPU":
        able = "INT8" in machine.device.get("capabilities", "")
        return f"device {plain(device)} {'has INT8, but gains nothing by it at these sizes' if able else 'has no INT8'}"
    fast = sorted(set(WIDE_SUMS) & set(machine.features))
    if _weights_alone(manifest, measurement) and not (fast and measurement.runtime.get("dynamic_quantization")):
        return "only its weights are INT8, and they are dequantized for every product"
    if not fast:
        return (
            "this CPU has no instructions for 8-bit products (VNNI, AMX), so INT8 saves size and memory here, not time"
        )
    return (
        f"this CPU has instructions for 8-bit products ({', '.join(fast)}), but at these sizes quantizing activations "
        "costs as much as they save"
    )


def _weights_alone(manifest: Manifest, measurement: Measurement) -> bool:
    """Whether a stage says that it left activations in float."""
    stages = manifest.stages
    for candidate in manifest.candidates:
        if candidate.measurement == measurement.name:
            stages = candidate.stages
    return any(record.facts.get("mode") == "weights" for record in stages)
