"""Latency and calibration at the usual size, without a checkpoint: distilbert-base's geometry with random weights.

How fast a dense model runs does not depend on what its weights say, so this shows on any machine
what to expect of a fine-tuned distilbert-base. Accuracy of random weights means nothing: it is not
measured, and the table says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from optimize import cache
from optimize.building import Loaded, build, device_of, fold, load_data, reference_subjects
from optimize.checkpoint import encoder_flops, save_model
from optimize.config import parse_step
from optimize.data.tokenized import fewest_tokens
from optimize.demo.generate import generate_rows
from optimize.demo.tokenizer import build_tokenizer
from optimize.gates import Gates
from optimize.heads import DEFAULT_HEAD, HEADS
from optimize.interfaces import Facts, Feature, Progress
from optimize.machine import environment
from optimize.manifest import Measurement
from optimize.measure import calibration_memory
from optimize.measure.latency import Settings, Workload
from optimize.measure.peaks import Peak, find_peaks
from optimize.measure.shapes import parse_shape
from optimize.measure.subjects import Method, Subject, measure_subjects
from optimize.peers import build_peers
from optimize.planning import choose_pipeline, find_candidates, make_plan, with_options
from optimize.request import Options

HEAD = DEFAULT_HEAD
VOCABULARY = 30522
TEXTS, MEDIAN_TOKENS = 128, 40


@dataclass(frozen=True)
class Benchmark:
    """The references' and every stage's measurements, and what calibrators took; the FP32 reference comes first.

    `peaks` is how fast this machine multiplies matrices, `operations` how many the unpruned encoder takes at each
    shape, multiply-adds as two, and `left_out` what was not measured, with the reason.
    """

    measurements: list[Measurement]
    calibration: list[calibration_memory.Row]
    peaks: list[Peak] = field(default_factory=list)
    operations: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def bench(
    options: Options, *, calibration: bool, progress: Progress, peers: bool = False, limits: bool = False
) -> Benchmark:
    """Measure a pipeline's models and, with `calibration`, what it takes to calibrate the FP32 graph.

    With `peers` also what users would pick in its place, and with `limits` how fast the machine multiplies.
    """
    loaded, subjects = prepare(options, progress=progress)
    left_out = dict(loaded.plan.left_out)
    if peers:
        others, missing = build_peers(loaded)
        subjects += others
        left_out |= missing
    measured = measure_subjects(subjects, None, method=method_of(loaded, subjects), progress=progress).measurements
    return Benchmark(
        measured,
        compare_calibrators(loaded) if calibration else [],
        find_peaks(loaded.plan.request.threads, progress=progress) if limits else [],
        count_operations(loaded),
        left_out,
    )


def count_operations(loaded: Loaded) -> dict[str, int]:
    """Operations of the loaded model's encoder at each shape of so many tokens."""
    found = {}
    for shape in loaded.plan.request.shapes:
        batch, tokens = parse_shape(shape, where="--shapes")
        if tokens is not None:
            found[shape] = batch * encoder_flops(loaded.config, tokens=tokens, where="bench")
    return found


def prepare(options: Options, *, progress: Progress) -> tuple[Loaded, list[Subject]]:
    """The model with random weights, and what to measure of it: the references and what the pipeline makes.

    Of a pipeline that is chosen by accuracy, which random weights lack, all candidates are measured. No
    stage has limits to keep to.
    """
    chosen = with_options(choose_pipeline(options.target, options.pipeline), options)
    pipelines, left_out = ((chosen,), {}) if chosen.stages else find_candidates(chosen, options)
    plans = [make_plan(options, replace(each, gates=Gates(), head_gates={}), progress=progress) for each in pipelines]
    plan = replace(plans[0], candidates=() if chosen.stages else pipelines, left_out=left_out)
    origin = cache.fetch(
        plan.cache,
        {"source": "random", "geometry": "distilbert-base", "head": HEAD, "seed": options.seed}
        | {"versions": {name: environment.version(name) for name in ("torch", "transformers")}},
        "torch",
        lambda out: write_random(out, options.seed),
        progress=progress,
    )
    loaded = load_data(plan, origin, progress)
    subjects = reference_subjects(loaded)
    for each in plans:
        _, built = build(replace(loaded, plan=each))
        subjects += built if chosen.stages else [replace(built[-1], name=each.pipeline.name)]
    return loaded, subjects


def compare_calibrators(loaded: Loaded) -> list[calibration_memory.Row]:
    """Memory and seconds of the target's calibrators, on the plain FP32 export of the loaded model."""
    step = parse_step({"export": {"readout_slice": False}}, where="bench")
    _, (exported,) = fold(loaded, (step,))
    return calibration_memory.compare(
        exported.path / "model.onnx",
        calibrators=loaded.plan.target.calibrators,
        samples=loaded.plan.target.calibration_samples,
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
    save_model(model, out)
    texts = [row["text"] for row in generate_rows(HEAD, seed)["train"]]
    build_tokenizer(texts).save_pretrained(out)
    return {"stored_as": "float32"}


def synthetic_features(seed: int, vocabulary: int = VOCABULARY) -> tuple[Feature, ...]:
    """Texts of random tokens whose lengths are spread as those of sentences are, log-normally: 40 in the median."""
    import numpy as np

    rng = np.random.default_rng(seed)
    lengths = np.clip(np.exp(rng.normal(np.log(MEDIAN_TOKENS), 0.8, TEXTS)), 4, 384).astype(int)
    return tuple(
        Feature(
            {
                "input_ids": rng.integers(min(1000, vocabulary // 2), vocabulary, length, dtype=np.int64),
                "attention_mask": np.ones(length, dtype=np.int64),
            },
            example,
        )
        for example, length in enumerate(lengths)
    )


def method_of(loaded: Loaded, subjects: Sequence[Subject]) -> Method:
    """How the models are measured; they are timed on token ids that all of them know."""
    plan = loaded.plan
    _, vocabulary = fewest_tokens(each.artifact.path for each in subjects)
    features = synthetic_features(plan.request.seed, vocabulary)
    workload = Workload(
        features, vocabulary, loaded.config["max_position_embeddings"], pad_id=0, seed=plan.request.seed
    )
    settings = Settings(plan.request.threads)
    return Method(HEADS[HEAD], workload, tuple(plan.request.shapes), settings, 0.95, device_of(loaded))
