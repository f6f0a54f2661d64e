"""The 95 % intervals: worked by hand, beside published ones, and by simulation."""

import math

import numpy as np
import pytest
from plain_model import EACH, END, simulated_months

import gitops_automation as gitops

EXACT_T = {3: 3.1824, 4: 2.7764, 5: 2.5706, 10: 2.2281, 30: 2.0423, 1e9: 1.95996}
EXACT_POISSON = {0: (0, 3.689), 1: (0.0253, 5.572), 5: (1.623, 11.668), 9: (4.115, 17.085)}
SAFE = gitops.PRESETS[
    "traditional"
]  # without batches that fail: else three trains have no interval
for _name in SAFE.names:
    SAFE = SAFE.with_environment(_name, batch_risk=0, open_hours="always")
CASES = {
    "default": gitops.Scenario(),
    "each": EACH,
    "traditional": SAFE,
    "weekly train": gitops.Scenario().with_environment("production", release_every_hours=168),
    "one application": gitops.Scenario().with_team(applications={"shop": 1}),
    "one commit a day": gitops.Scenario().with_team(commits_per_day=1),
}


def interval_of(values, cluster):
    """Low and high of a median."""
    return gitops.median_interval(np.asarray(list(values), float), np.asarray(cluster))


def frequency_of(counts):
    """Low and high of the count itself."""
    low, high = gitops.frequency_interval(np.asarray(counts), np.ones(len(counts), bool))
    return low * len(counts), high * len(counts)


@pytest.mark.parametrize("df", EXACT_T)
def test_students_t_is_that_of_the_tables_within_a_twentieth(df):
    assert gitops.student_t(df) == pytest.approx(EXACT_T[df], rel=0.04)


def test_the_interval_of_a_median_is_that_of_its_clusters():
    """1 to 40 in 20 pairs of neighbours: those below 20.5 have d = -2, those above it 2.

    2 n se = sqrt(20 / 19 * 20 * 4) = 9.177, and t of 19 degrees of freedom is 2.093: 9.60 ranks.
    """
    pairs = interval_of(range(1, 41), np.arange(40) // 2)
    assert pairs == pytest.approx((10.9, 30.1), abs=0.01)


def test_a_median_is_certain_where_each_cluster_lies_on_both_sides_of_it():
    halves = np.minimum(np.arange(40), 39 - np.arange(40))
    assert interval_of(range(1, 41), halves) == pytest.approx((20.5, 20.5))


@pytest.mark.parametrize("n", [40, 400, 4001])
def test_independent_values_have_the_interval_between_order_statistics(n):
    """Hahn and Meeker's normal approximation: the ranks n/2 -+ 1.96 sqrt(n)/2, to one rank."""
    expected = (n + 1) / 2 + np.array([-1, 1]) * 1.96 * math.sqrt(n) / 2
    shuffled = np.random.default_rng(1).permutation(np.arange(1, n + 1))
    assert np.abs(np.array(interval_of(shuffled, np.arange(n))) - expected).max() < 1


@pytest.mark.parametrize(
    ("cluster", "known"),
    [
        (np.arange(5), False),
        (np.arange(8) // 2, True),
        (np.arange(6) // 2, False),
        (np.arange(6), True),
        ([], False),
    ],
)
def test_few_values_or_few_clusters_have_no_interval(cluster, known):
    low, high = interval_of(range(len(cluster)), cluster)
    assert math.isnan(low) == math.isnan(high) == (not known)


@pytest.mark.parametrize("n", EXACT_POISSON)
def test_few_events_have_the_interval_of_poisson(n):
    counts = np.zeros(30, int)
    counts[np.linspace(3, 27, n, dtype=int)] = 1
    assert frequency_of(counts) == pytest.approx(EXACT_POISSON[n], abs=0.03)


@pytest.mark.parametrize("days", range(1, 15))
def test_a_window_of_less_than_three_weeks_has_the_interval_of_poisson(days):
    counts = np.full(days, 100)
    n = 100 * days
    low, high = frequency_of(counts)
    assert low == pytest.approx(n - 1.96 * math.sqrt(n), abs=2)
    assert high == pytest.approx(n + 1.96 * math.sqrt(n), abs=3)


def test_the_interval_of_a_frequency_is_that_of_its_weeks():
    """8, 16, 8 and 16 events on the first days of four weeks.

    Of the 22 sums of seven days in a row 8 are 8 and 14 are 16. Their mean is 288/22, the variance
    64 * 8 * 14 / 22^2 = 14.81, times 4 / 3 as four weeks do not overlap: r = 1.508. t of 4.5
    degrees of freedom is 2.62. With x = 48 / r = 31.8: 48 (1 - 1 / 9x - t / 3 sqrt(x))^3 = 28.6.
    With x + 1: (48 + r)(1 - 1 / 9x + t / 3 sqrt(x))^3 = 75.2.
    """
    counts = np.zeros(28, int)
    counts[::7] = 8, 16, 8, 16
    assert frequency_of(counts) == pytest.approx((28.6, 75.2), abs=0.2)


@pytest.mark.parametrize(("size", "least"), [(1, 93), (2, 93), (3, 90)])
@pytest.mark.parametrize("mean", [10, 30])
@pytest.mark.parametrize("days", [7, 20, 90])
def test_few_events_that_come_together_are_covered(mean, size, least, days):
    """Poisson's interval holds the truth of pairs in 85, of three at once in 75 of 100 windows."""
    rng = np.random.default_rng(1)
    windows = size * rng.poisson(mean / days / size, (1000, days))
    low, high = np.array([frequency_of(counts) for counts in windows]).T
    assert least < covered(low, high, mean) < 99.5


def test_no_interval_of_fewer_than_30_events_is_narrower_than_that_of_poisson():
    counts = np.zeros(90, int)
    counts[::4] = 1
    assert frequency_of(counts) == pytest.approx((14.58, 34.51), abs=0.05)


def test_a_weekly_pattern_does_not_widen_the_interval():
    """Every week is alike: what is left is the busiest day, which the window's edge could cut."""
    counts = np.tile([5, 4, 4, 4, 3, 0, 0], 13)
    n, half = 13 * 20, 2.1 * 5 / 2
    assert frequency_of(counts) == pytest.approx((n - half, n + half), abs=1.5)


def covered(low, high, truth):
    """Percent of the runs that have an interval in which it contains the truth."""
    some = ~np.isnan(low)
    return 100 * ((low <= truth) & (truth <= high))[some].mean()


@pytest.mark.slow
@pytest.mark.parametrize("days", [30, 90])
@pytest.mark.parametrize("name", CASES)
def test_the_95_percent_intervals_contain_the_truth_in_95_of_100_windows(name, days):
    """2000 windows: the standard error is half a point.

    Trains leave as they should, so that their number is hardly random: its interval is too wide.
    """
    runs, window, scenario = 2000, gitops.Window.before(END, days), CASES[name]
    events = simulated_months([(scenario, runs)], window, gitops.Noise(3, 1)).in_production()
    changes, day = (
        gitops.shipped_changes(events),
        (events.deployments.time - window.seconds[0]) // 86400,
    )
    known = changes.shipped < gitops.NEVER
    lead = (changes.shipped - changes.committed) / 3600
    leads, frequencies, totals = [], [], []
    for run in range(runs):
        own = known & (changes.group == run)
        leads.append(gitops.median_interval(lead[own], changes.shipped[own] // (2 * 86400)))
        counts = np.bincount(day[events.deployments.group == run], minlength=days)
        frequencies.append(gitops.frequency_interval(counts, np.ones(days, bool)))
        totals.append(counts.sum())
    train = scenario.environments[-1].release_every_hours > 0
    least, most = (92.5, 100) if train else (92.5, 97.5)
    assert least < covered(*np.array(leads).T, np.median(lead[known])) < most
    least, most = (94, 100.1) if train else (93, 98.5)
    assert least < covered(*np.array(frequencies).T, np.mean(totals) / days) < most
    assert np.isnan(leads).mean() < 0.1  # where three trains alone have shipped


# ---- Rates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0, 16.11)],
)
def test_rates_have_the_wilson_intervals_that_newcombe_published(part, whole, low, high):
    """R. G. Newcombe, Statistics in Medicine 17, 1998, table I, method 3."""
    rates = gitops.rates_with_interval(*(np.array([number]) for number in (part, whole, 0)))
    assert (rates["low"][0], rates["high"][0]) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize(
    ("part", "whole", "hidden", "value", "n"),
    [
        (0, 10, 10, math.nan, 0),  # nobody looked at any
        (0, 10, 9, 0, 10),
        (2, 10, 10, 20, 10),  # nobody looked, but reverts showed two
        (0, 0, 0, math.nan, 0),
    ],
)
def test_there_is_a_rate_where_somebody_looked_or_something_showed(part, whole, hidden, value, n):
    rates = gitops.rates_with_interval(*(np.array([number]) for number in (part, whole, hidden)))
    assert rates["value"][0] == pytest.approx(value, nan_ok=True)
    assert rates["n"][0] == n
    assert math.isnan(rates["high"][0]) == math.isnan(value)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_wilson_interval_covers_the_true_rate_95_times_in_100_on_average(share):
    failed = np.random.default_rng(2).binomial(60, share, 20_000)
    rates = gitops.rates_with_interval(failed, np.full(20_000, 60), np.zeros(20_000, int))
    assert covered(rates["low"], rates["high"], 100 * share) == pytest.approx(95, abs=3)
