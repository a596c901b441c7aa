import gc
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import multitest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import proportion_confint

from deepexp.report.statistics import holm, mcnemar, paired_t, welch_t, wilson_interval


@pytest.mark.parametrize(
    ("errors", "samples"), [(0, 10), (1, 10), (10, 10), (5, 10_000), (445, 10_000), (6, 359), (1, 1)]
)
def test_wilson_against_statsmodels(errors, samples):
    assert wilson_interval(errors, samples) == pytest.approx(
        proportion_confint(errors, samples, method="wilson"), abs=1e-12
    )


def test_wilson_without_errors_by_hand():
    """With no errors the upper limit is z² / (n + z²)."""
    z = 1.959963984540054
    assert wilson_interval(0, 100) == (0.0, pytest.approx(z**2 / (100 + z**2), rel=1e-12))


def test_wilson_has_exact_limits_at_its_ends():
    """By the formula, rounding would leave one of them for most of these numbers of samples."""
    for samples in range(1, 100):
        assert wilson_interval(0, samples)[0] == 0.0 and wilson_interval(samples, samples)[1] == 1.0


@pytest.mark.parametrize(("errors", "samples"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(errors, samples):
    with pytest.raises(ValueError, match="errors"):
        wilson_interval(errors, samples)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_against_statsmodels(first, second):
    reference = reference_mcnemar([[10, first], [second, 10]], exact=True).pvalue
    assert mcnemar(first, second) == pytest.approx(min(reference, 1.0), rel=1e-9)


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1.0  # no sample that only one gets wrong
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 4) == pytest.approx(2 * (1 + 5) / 2**5)
    assert mcnemar(3, 3) == 1.0


def test_paired_t_against_scipy():
    random = np.random.default_rng(0)
    for seeds in (2, 3, 4, 20):
        first, second = random.normal(0.1, 0.02, seeds), random.normal(0.12, 0.03, seeds)
        reference = stats.ttest_rel(second, first)
        interval = reference.confidence_interval(0.95)
        found = paired_t(list(first), list(second))
        assert (found.p, found.low, found.high) == pytest.approx((reference.pvalue, interval.low, interval.high))
        assert found.mean == pytest.approx((second - first).mean())


def test_paired_t_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1/√3, and t with two degrees of freedom has a closed form."""
    t = 2 * math.sqrt(3)
    assert paired_t([0, 0, 0], [1, 2, 3]).p == pytest.approx(1 - t / math.sqrt(t**2 + 2))


def test_paired_t_without_variance_or_pairs():
    assert paired_t([0.1], [0.2]) is None
    assert paired_t([], []) is None
    assert paired_t([0.1, 0.2], [0.3, 0.4]) is None  # 0.2 both times, but for rounding
    assert paired_t([0.1, 0.2], [0.1, 0.2]).p == 1.0
    assert paired_t([0.0, 0.0], [0.0, 0.0]).p == 1.0


@pytest.mark.parametrize("seeds", [(2, 2), (2, 5), (20, 3), (4, 4)])
def test_welch_t_against_scipy(seeds):
    random = np.random.default_rng(0)
    first, second = random.normal(0.1, 0.02, seeds[0]), random.normal(0.12, 0.06, seeds[1])
    reference = stats.ttest_ind(second, first, equal_var=False)
    interval = reference.confidence_interval(0.95)
    found = welch_t(list(first), list(second))
    assert (found.p, found.low, found.high) == pytest.approx((reference.pvalue, interval.low, interval.high))
    assert found.mean == pytest.approx(second.mean() - first.mean())


def test_welch_t_by_hand():
    """If one sample has no variance, the degrees of freedom are those of the other: here 1, a Cauchy distribution."""
    t = 2 / math.sqrt(0.5 / 2)  # means 0 and 2; 1.5 and 2.5 have the variance 1/2
    assert welch_t([0, 0, 0], [1.5, 2.5]).p == pytest.approx(1 - 2 * math.atan(t) / math.pi)


def test_welch_t_without_variance_or_enough_values():
    assert welch_t([0.1], [0.2, 0.3]) is None
    assert welch_t([0.1, 0.2], []) is None
    assert welch_t([0.1, 0.1], [0.2, 0.2, 0.2]) is None
    assert welch_t([0.1, 0.1], [0.1, 0.1, 0.1]).p == 1.0
    assert welch_t([0.0, 0.0], [0.0, 0.0]).p == 1.0


@pytest.fixture(scope="module")
def multipletests():
    """statsmodels' own, without its `gc.collect`, which takes half a second among thousands of tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gc, "collect", lambda: 0)
        yield multitest.multipletests


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_against_statsmodels(multipletests, p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []
