"""Static INT8 by Intel Neural Compressor, which tries settings until one is accurate enough.

Neural Compressor's PT2E path traces the PyTorch model, watches calibration texts to find the range
of what each linear layer reads, and writes scales into the graph: nothing is measured while the
model runs, so outputs depend neither on padding nor on batch mates. Its `autotune` goes through a
list of settings. Here each one becomes the ONNX file that would be shipped and is scored on tuning
texts with the head's metric; the first within the pipeline's limits is taken, and where there
is none, the one that misses it least.

Activations are u8, the only kind that ONNX Runtime multiplies with s8 weights in integers on a CPU.
Where the CPU has no VNNI, weights keep 7 bits so that no 16-bit sum overflows (see quantization.weights).

Source: https://github.com/intel/neural-compressor, `neural_compressor.torch.quantization.autotune`.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from optimize.artifact import Artifact
from optimize.errors import StageError
from optimize.evaluate.judge import Judge, Loss, make_judge
from optimize.evaluate.parity import compare
from optimize.graphs.onnx import READOUT_SLICE, save
from optimize.graphs.versions import Versions, settle
from optimize.interfaces import Context, Facts, Feature, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.quantization.neural_compressor.graph import fold
from optimize.quantization.neural_compressor.torch import autotune, trace, write_onnx
from optimize.quantization.weights import choose_range
from optimize.runtimes.quiet import undisturbed

if TYPE_CHECKING:
    from torch.fx import GraphModule

WHERE = "quantize_neural_compressor"
FEWEST_SAMPLES = 8
FULL_RANGE, REDUCED_RANGE = 127, 63


class Setting(StageParams):
    """One way to quantize, in Neural Compressor's words."""

    weights: Literal["per_channel", "per_tensor"] = Field(
        default="per_channel", description="One scale for each output channel of a weight, or one for each matrix."
    )
    activations: Literal["asymmetric", "symmetric"] = Field(
        default="asymmetric",
        description="Whether the range of activations may differ above and below zero (`asymmetric`), which suits "
        "GELU.",
    )
    observer: Literal["minmax", "kl"] = Field(
        default="minmax",
        description="How ranges of activations are found: the extremes, or the histogram observer of torchao "
        "(`kl`), which clips.",
    )

    @property
    def name(self) -> str:
        """Its words in one line."""
        return f"{self.weights} {self.activations} {self.observer}"

    def config(self) -> dict[str, str | bool]:
        """Arguments of `StaticQuantConfig`."""
        return {
            "w_granularity": self.weights,
            "act_sym": self.activations == "symmetric",
            "act_algo": self.observer,
        }


SETTINGS = (
    Setting(),
    Setting(observer="kl"),
    Setting(activations="symmetric"),
    Setting(activations="symmetric", observer="kl"),
)


class Params(Versions):
    """Which settings are tried, and on what."""

    opset: int = Field(
        default=18,
        ge=18,
        le=21,
        description="Version of the ONNX operator set to write; PyTorch's newer exporter writes none before 18.",
    )

    settings: tuple[Setting, ...] = Field(
        default=SETTINGS,
        min_length=1,
        description="Settings to try, in this order. The first within the pipeline's limits on tuning data is "
        "taken; where there is none, the one that misses them least.",
    )
    calibration_samples: int = Field(
        default=256,
        ge=FEWEST_SAMPLES,
        description="Calibration texts, at most, from which ranges of activations are taken.",
    )
    tuning_tokens: int = Field(
        default=32_768, ge=1, description="Tokens of tuning data, at most, on which each setting is judged."
    )
    reduce_range: bool | Literal["auto"] = Field(
        default="auto",
        description="Hold weights to 7 bits, so that sums of 16 bits cannot overflow on CPUs without VNNI. `auto` "
        "does so where the CPU has neither VNNI nor AMX.",
    )
    readout_slice: bool = Field(
        default=True,
        description="Compute the last layer for the first token alone, where the head reads no other. The answers "
        "are the same.",
    )


@dataclass(frozen=True)
class Trial:
    """What a setting gave: a model in a folder, the facts of its graph, its loss, and its excess over the limits."""

    setting: Setting
    folder: Path
    graph: Facts
    loss: Loss
    excess: float

    def row(self) -> dict[str, int | float | str]:
        """One line of the table of facts."""
        return {
            "setting": self.setting.name,
            "metric": self.loss.metric,
            "drop": self.loss.drop,
            "agreement": self.loss.agreement,
            "divergence": self.loss.divergence,
            "within_limits": not self.excess,
        }


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the chosen setting's `model.onnx`; facts hold what every tried setting scored."""
    _require_data(context)
    reduced, because = choose_range(params.reduce_range, context.cpu_features)
    with tempfile.TemporaryDirectory() as scratch, undisturbed():
        judge = make_judge(context, context.open("torch", context.reference.path), tokens=params.tuning_tokens)
        trials = _try(source, Path(scratch), params, context, judge, reduce_range=reduced)
        chosen = min(trials, key=lambda trial: trial.excess)
        shutil.move(chosen.folder / "model.onnx", out / "model.onnx")
        difference, _ = compare(out, source, context)
    if not np.isfinite(difference):
        raise StageError(f"{WHERE}: outputs on random tokens are not finite; check the checkpoint's weights")
    return {
        "chosen": chosen.setting.name,
        "within_limits": chosen.row()["within_limits"],
        "settings": [trial.row() for trial in trials],
        "calibration_samples": len(_samples(params, context)),
        "tuning_examples": len(judge.encoded.gold),
        "reduce_range": reduced,
        "reduce_range_because": because,
        "max_difference": difference,
        **chosen.graph,
    }


def _require_data(context: Context) -> None:
    found = len(context.calibration.features)
    if found < FEWEST_SAMPLES:
        raise StageError(
            f"{WHERE}: {found} calibration texts are too few to find ranges; "
            f"give {FEWEST_SAMPLES} or more with --calibration-examples"
        )
    if not context.tuning.features:
        raise StageError(f"{WHERE}: no tuning texts to score settings on; give some with --tuning-examples")


def _samples(params: Params, context: Context) -> tuple[Feature, ...]:
    return context.calibration.features[: params.calibration_samples]


def _try(
    source: Artifact, scratch: Path, params: Params, context: Context, judge: Judge, *, reduce_range: bool
) -> list[Trial]:
    """Let Neural Compressor go through the settings; those that it tried, in order."""
    settings = list(dict.fromkeys(params.settings))
    sliced = params.readout_slice and context.head.reads == "first token"
    model = trace(source.path, context.head, readout_slice=sliced)
    trials: list[Trial] = []

    def score(converted: GraphModule) -> float:
        folder = scratch / str(len(trials))
        folder.mkdir()
        graph = _write(converted, folder / "model.onnx", params, context, sliced=sliced, reduce_range=reduce_range)
        loss = judge.assess(context.open("onnx", folder))
        trials.append(Trial(settings[len(trials)], folder, graph, loss, judge.excess(loss)))
        context.progress.step("autotune", len(trials), len(settings))
        return 1.0 - trials[-1].excess

    autotune(
        model,
        [setting.config() for setting in settings],
        samples=_samples(params, context),
        weight_limit=REDUCED_RANGE if reduce_range else FULL_RANGE,
        score=score,
    )
    return trials


def _write(
    converted: GraphModule, path: Path, params: Params, context: Context, *, sliced: bool, reduce_range: bool
) -> Facts:
    model = write_onnx(converted, context.head, opset=params.opset)
    facts = fold(model, reduce_range=reduce_range)
    if not facts["quantized_matmuls"]:
        raise StageError(f"{WHERE}: no linear layer was quantized; report the versions of torch and torchao")
    model.metadata_props[READOUT_SLICE] = "yes" if sliced else "no"
    versions = settle(model, params)
    save(model, path)
    return facts | versions


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="onnx",
    needs=("neural-compressor", "torchao", "torch", "transformers", "onnxscript", "onnx", "onnx-ir", "onnxruntime"),
    summary="INT8 with calibrated activations by Intel Neural Compressor, tuned to the limits",
    depends=lambda _: frozenset({"cpu_features", "limits"}),
    traits=lambda _: Traits(makes=frozenset({"quantized"})),
)
