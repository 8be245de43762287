"""The metrics against the libraries that define them."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score

from optimize.heads import _metrics


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_spearman_equals_scipy_with_many_few_and_no_ties(decimals):
    columns = np.random.default_rng(decimals).normal(size=(300, 2)).round(decimals)
    expected = spearmanr(columns[:, 0], columns[:, 1]).statistic
    assert _metrics.spearman(columns) == pytest.approx(expected, abs=1e-12)


def test_pearson_equals_scipy():
    columns = np.random.default_rng(1).normal(size=(50, 2))
    expected = pearsonr(columns[:, 0], columns[:, 1]).statistic
    assert _metrics.pearson(columns) == pytest.approx(expected, abs=1e-12)


def test_macro_f1_equals_sklearn_when_a_class_is_never_predicted():
    gold, predicted = np.array([0, 1, 2, 2, 1, 0]), np.array([0, 1, 1, 1, 1, 3])
    expected = f1_score(gold, predicted, average="macro", zero_division=0)
    assert _metrics.macro_f1(predicted, gold) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [_metrics.spearman, _metrics.pearson])
@pytest.mark.parametrize("column", [[0.1] * 7, [np.nan, 1, 2, 3, 4, 5, 6]])
def test_a_correlation_with_a_constant_or_nan_column_is_zero(metric, column):
    assert metric(np.stack([np.array(column), np.arange(7.0)], axis=1)) == 0.0


@pytest.mark.parametrize(
    "metric",
    [
        _metrics.mean_of_first,
        _metrics.share,
        _metrics.micro_f1,
        _metrics.spearman,
        _metrics.pearson,
    ],
)
def test_every_metric_of_nothing_is_zero(metric):
    assert metric(np.zeros((0, 3))) == 0.0


def test_f1_without_any_positive_is_zero():
    assert _metrics.micro_f1(np.zeros((5, 3))) == 0.0


def test_a_nan_among_the_logits_decides_for_no_class():
    logits = np.array([[0.0, 2.0, 1.0], [np.nan, 2.0, 1.0]])
    assert _metrics.decided(logits).tolist() == [1, _metrics.NO_CLASS]
