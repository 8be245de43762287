"""What a group costs alone: measured group by group, found where the damage is, and stated in facts."""

import numpy as np
import onnxruntime
import pytest

from optimize.evaluate.judge import make_judge
from optimize.graphs.onnx import to_proto
from optimize.quantization import sensitivity
from optimize.quantization.calibrate import calibrate
from optimize.quantization.ranges import Range
from optimize.quantization.sites import find_sites, group_sites, normalise
from optimize.quantization.variants import Variants, opener
from optimize.quantization.write import Scheme

FAULTY = "layer.0.ffn.lin2"


@pytest.fixture
def variants(context, apply):
    """Variants of a small fill-mask model, one group of which has a range that cuts nearly all off."""
    here = context("fill-mask")
    model = normalise(apply(here, "export").graph())
    groups = tuple(group_sites(find_sites(model)))
    reads = {group.name: [site.reads for site in group.sites if not site.looks_up] for group in groups}
    ranges = calibrate(
        to_proto(model),
        sorted({name for names in reads.values() for name in names}),
        here.calibration.features,
        method="minmax",
        threads=1,
    )
    ranges[reads[FAULTY][0]] = Range(-0.01, 0.01)
    open_model = opener(here)
    judge = make_judge(here, open_model(model), tokens=10**9)
    return Variants(model, groups, ranges, Scheme(reduce_range=False), "qoperator", judge, open_model)


@pytest.fixture
def timed(monkeypatch):
    """The shapes that were timed; each saves as many microseconds as it has rows."""
    shapes = []

    def time_product(rows, columns, *, threads):
        shapes.append((rows, columns))
        return float(rows)

    monkeypatch.setattr(sensitivity, "time_product", time_product)
    return shapes


def test_the_faulty_group_stands_out_and_the_others_barely_cost_anything(variants, timed, silent):
    costs = sensitivity.measure(variants, threads=1, progress=silent)
    damage = {cost.group.name: cost.loss.divergence for cost in costs}
    assert list(damage) == [group.name for group in variants.groups]
    assert max(damage, key=damage.get) == FAULTY
    assert damage.pop(FAULTY) > 20 * max(damage.values()) > 0
    assert min(costs, key=lambda cost: cost.loss.sqnr_db).group.name == FAULTY


def test_each_group_is_measured_without_the_others(variants, timed, silent):
    costs = sensitivity.measure(variants, threads=1, progress=silent)
    alone = variants.assess(variants.without([g for g in variants.groups if g.name != "vocab_transform"]))
    assert next(cost.loss for cost in costs if cost.group.name == "vocab_transform") == alone


def test_progress_counts_the_groups(variants, timed):
    seen = []
    watcher = type("Watcher", (), {"step": lambda self, *step: seen.append(step), "say": None})()
    sensitivity.measure(variants, threads=1, progress=watcher)
    assert seen == [("sensitivity", done + 1, 11) for done in range(11)]


def test_time_is_saved_by_products_of_each_shape_timed_once(variants, timed):
    saved = sensitivity.time_groups(variants.model, variants.groups, threads=1)
    weights = variants.model.graph.initializers.items()
    vocabulary = next(weight.shape[0] for name, weight in weights if "word_embeddings" in name)
    assert sorted(timed) == sorted([(128, 128), (128, 512), (512, 128), (128, vocabulary)])
    assert saved["position_embeddings"] == 0.0
    assert saved["word_embeddings+vocab_projector"] == 128.0
    assert saved["layer.0.attention.q_lin+k_lin+v_lin"] == 3 * 128.0
    assert saved["layer.1.ffn.lin2"] == 512.0


def test_what_is_timed_is_one_product_in_float_and_one_in_integers():
    models = [sensitivity._product(16, 8, quantized) for quantized in (False, True)]
    kinds = [[node.op_type for node in model.graph.node] for model in models]
    assert kinds == [["MatMul"], ["QuantizeLinear", "MatMulIntegerToFloat"]]
    # Not above 0, which is stored as 128: 2 * 128 * 127 still fits the 16-bit sums of CPUs without VNNI.
    x = np.random.default_rng(0).integers(-100, 1, (sensitivity.TOKENS, 16)).astype(np.float32) * np.float32(0.02)
    answers = [onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0] for m in models]
    assert answers[0] == pytest.approx(answers[1], rel=1e-4, abs=1e-2)


def test_timing_gives_microseconds(monkeypatch):
    ticks = iter(np.cumsum([0.0, *[3e-6, 1.0, 1e-6, 1.0] * sensitivity.REPEATS]))
    monkeypatch.setattr(sensitivity.time, "perf_counter", lambda: next(ticks))
    assert sensitivity.time_product(8, 8, threads=1) == pytest.approx(2.0)


def test_the_table_says_all_of_each_group_and_which_stayed_in_float(variants, timed, silent):
    costs = sensitivity.measure(variants, threads=1, progress=silent)
    rows = sensitivity.as_rows(costs, {FAULTY})
    assert [row["group"] for row in rows] == [group.name for group in variants.groups]
    assert [row["group"] for row in rows if row["form"] == "float"] == [FAULTY]
    assert [row["parameters"] for row in rows] == [group.parameters for group in variants.groups]
    for row, cost in zip(rows, costs, strict=True):
        for name in ("sqnr_db", "divergence", "metric", "drop", "agreement"):
            assert row[name] == getattr(cost.loss, name)
        assert row["saved_us"] == cost.saved_us
