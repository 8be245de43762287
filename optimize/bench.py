"""Latency at the usual size, without a checkpoint: distilbert-base's geometry with random weights.

How fast a dense model runs does not depend on what its weights say, so this shows on any machine
what to expect of a fine-tuned distilbert-base. Accuracy of random weights means nothing: it is not
measured, and the table says so.
"""

from __future__ import annotations

from pathlib import Path

from optimize import cache, demo, environment
from optimize.demo.tokenizer import build_tokenizer
from optimize.heads import HEADS
from optimize.interfaces import Facts, Progress
from optimize.manifest import Measurement
from optimize.measure.latency import Settings, Workload
from optimize.measure.subjects import Method, measure_subjects
from optimize.plan import Options, Plan, make_plan
from optimize.run import Loaded, build, load_data, reference_subjects

HEAD = "text-classification"
VOCABULARY = 30522


def bench(options: Options, *, progress: Progress) -> list[Measurement]:
    """Measure the references and every stage's result of a pipeline; the FP32 reference comes first."""
    plan = make_plan(options)
    origin = cache.fetch(
        plan.cache,
        {"source": "random", "geometry": "distilbert-base", "head": HEAD, "seed": options.seed}
        | {"versions": {name: environment.version(name) for name in ("torch", "transformers")}},
        "torch",
        lambda out: write_random(out, options.seed),
    )
    loaded = load_data(plan, origin, progress)
    _, built = build(loaded)
    subjects = [*reference_subjects(loaded), *built]
    return measure_subjects(subjects, None, method=_method(plan, loaded), progress=progress).measurements


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
