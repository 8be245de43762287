"""Latency and calibration at the usual size, without a checkpoint: distilbert-base's geometry with random weights.

How fast a dense model runs does not depend on what its weights say, so this shows on any machine
what to expect of a fine-tuned distilbert-base. Accuracy of random weights means nothing: it is not
measured, and the table says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from optimize import cache, demo, environment
from optimize.build import Loaded, build, fold, load_data, reference_subjects
from optimize.config import Gates, parse_step
from optimize.demo.tokenizer import build_tokenizer
from optimize.heads import HEADS
from optimize.interfaces import Facts, Progress
from optimize.manifest import Measurement
from optimize.measure import calibration_memory
from optimize.measure.latency import Settings, Workload
from optimize.measure.subjects import Method, measure_subjects
from optimize.plan import Options, Plan, choose_pipeline, find_candidates, make_plan, with_runtime

HEAD = "text-classification"
VOCABULARY = 30522
CALIBRATORS: dict[str, tuple[str, ...]] = {"cpu": ("streaming", "onnxruntime"), "openvino": ("nncf",)}
CALIBRATION_SAMPLES: dict[str, tuple[int, ...]] = {"cpu": (64, 512), "openvino": (64, 300)}


@dataclass(frozen=True)
class Benchmark:
    """The references' and every stage's measurements, and what calibrators took; the FP32 reference comes first."""

    measurements: list[Measurement]
    calibration: list[calibration_memory.Row]


def bench(options: Options, *, calibration: bool, progress: Progress) -> Benchmark:
    """Measure a pipeline's models and, with `calibration`, what it takes to calibrate the FP32 graph.

    Of a pipeline that is chosen by accuracy, which random weights lack, all candidates are measured. No
    stage has limits to keep to.
    """
    chosen = with_runtime(choose_pipeline(options.target, options.pipeline), options)
    pipelines = [chosen] if chosen.stages else find_candidates(chosen, options)[0]
    plans = [make_plan(options, replace(each, gates=Gates(), head_gates={})) for each in pipelines]
    plan = plans[0]
    origin = cache.fetch(
        plan.cache,
        {"source": "random", "geometry": "distilbert-base", "head": HEAD, "seed": options.seed}
        | {"versions": {name: environment.version(name) for name in ("torch", "transformers")}},
        "torch",
        lambda out: write_random(out, options.seed),
    )
    loaded = load_data(plan, origin, progress)
    subjects = reference_subjects(loaded)
    for each in plans:
        _, built = build(replace(loaded, plan=each))
        subjects += built if chosen.stages else [replace(built[-1], name=each.pipeline.name)]
    measured = measure_subjects(subjects, None, method=_method(plan, loaded), progress=progress).measurements
    return Benchmark(measured, compare_calibrators(loaded) if calibration else [])


def compare_calibrators(loaded: Loaded) -> list[calibration_memory.Row]:
    """Memory and seconds of the target's calibrators, on the plain FP32 export of the loaded model."""
    step = parse_step({"export": {"readout_slice": False}}, where="bench")
    _, (exported,) = fold(loaded, (step,))
    target = loaded.plan.target.name
    return calibration_memory.compare(
        exported.path / "model.onnx",
        calibrators=CALIBRATORS[target],
        samples=CALIBRATION_SAMPLES[target],
        threads=loaded.plan.request.threads,
        progress=loaded.progress,
    )


def write_random(out: Path, seed: int) -> Facts:
    """Save distilbert-base for classification with random weights, and the demo's tokenizer."""
    import torch
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig())
    model.save_pretrained(out)
    texts = [row["text"] for row in demo.generate(HEAD, seed)["train"]]
    build_tokenizer(texts).save_pretrained(out)
    return {"stored_as": "float32"}


def _method(plan: Plan, loaded: Loaded) -> Method:
    workload = Workload((), VOCABULARY, loaded.config["max_position_embeddings"], pad_id=0, seed=plan.request.seed)
    return Method(HEADS[HEAD], workload, tuple(plan.request.shapes), Settings(plan.request.threads), confidence=0.95)
