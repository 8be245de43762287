"""For which machines and texts a model was built, and how: from what stages stated and what was recorded, in words."""

from __future__ import annotations

from optimize.manifest import Manifest, StageRecord
from optimize.quantization.weights import WIDE_SUMS
from optimize.report.markdown import code, plain
from optimize.report.remarks import is_int8
from optimize.report.tables import megabytes

MAKERS = ("onnxruntime", "onnx", "openvino", "nncf", "torch", "transformers")
"""Libraries that shape a model, of those whose versions are recorded."""
MOST_LETTERS = 60
"""Of a parameter's value that is shown whole."""


def suitable(manifest: Manifest) -> str:
    """On which machines the model is right, and on which its times were measured."""
    environment = manifest.environment
    where = ", ".join(environment.features) or "no features that matter here"
    built = f"It was built and measured on {plain(environment.cpu)} ({plain(where)})"
    if manifest.request.target == "cuda":
        return f"It was built for NVIDIA GPUs and measured on {plain(environment.gpu or 'no GPU')}."
    held = held_back(manifest)
    if held is None:
        return f"{built}. Its answers do not depend on what a CPU has; its times do."
    if held:
        return f"{built}. Its INT8 weights are so small that no 16-bit sum overflows, so it is right on every CPU."
    wide = ", ".join(WIDE_SUMS)
    return (
        f"**For CPUs with VNNI or AMX alone.** Its INT8 weights have all 8 bits: on an x86 CPU that has none of "
        f"{wide}, sums of 16 bits saturate and answers are wrong. {built}. For others, use `reduce_range: true`."
    )


def bounds(manifest: Manifest) -> str:
    """What was not judged: longer texts, other texts, other machines."""
    split, most = manifest.data["certification"], manifest.request.max_tokens
    cut = f", to which {split.truncated:,} were cut" if split.truncated else ""
    texts = f" of up to {most:,} tokens{cut}" if most else cut.replace(", to which", ", of which")
    lines = [
        f"- Judged on {split.count:,} examples of {code(manifest.request.data)}{texts}; nothing is known of texts of "
        "other kinds, so measure on yours.",
        "- It has the checkpoint's own faults and biases: what was compared is its answers with the checkpoint's.",
    ]
    last = manifest.measurements[-1]
    if last.drift is not None and last.drift.batch_max_abs:
        lines.append(
            f"- What else is in a batch changes its outputs, by up to {last.drift.batch_max_abs:.2g} on these examples."
        )
    if last.peak_memory_bytes:
        lines.append(f"- A process that ran it took {megabytes(last.peak_memory_bytes)} of memory at most.")
    return "\n".join(lines)


def made(manifest: Manifest) -> list[str]:
    """The stages with their parameters, and the libraries' versions."""
    steps = []
    for place, record in enumerate(manifest.stages, 1):
        values = [f"{name}={_shown(value)}" for name, value in record.params.items() if value not in (None, [], {}, "")]
        steps.append(f"{place}. {code(record.stage)}" + (f": {code(', '.join(values))}" if values else ""))
    versions = manifest.environment.versions
    used = ", ".join(f"{name} {versions[name]}" for name in MAKERS if name in versions)
    weights = f"The FP32 checkpoint was stored as {plain(manifest.source.stored_as)}"
    return ["\n".join(steps), f"{weights}; libraries were {plain(used)}." if used else f"{weights}."]


def held_back(manifest: Manifest) -> bool | None:
    """Whether INT8 weights cannot overflow sums of 16 bits; None where nothing is summed in integers."""
    if not manifest.measurements or not is_int8(manifest.measurements[-1]):
        return None
    found = [record.facts["reduce_range"] for record in manifest.stages if _sums(record)]
    return bool(found[-1]) if found else None


def _sums(record: StageRecord) -> bool:
    return "reduce_range" in record.facts and record.facts.get("mode") != "weights"


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
