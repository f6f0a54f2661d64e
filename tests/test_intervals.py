"""The 95 % intervals: worked by hand, beside published ones, and by simulation."""

import math

import numpy as np
import pytest
from plain_model import EACH, END

from gitops_automation import (
    NEVER,
    PRESETS,
    Measured,
    Noise,
    Scenario,
    Window,
    find_recoveries,
    frequency_interval,
    medians_with_interval,
    production_by_group,
    shipped_changes,
    simulate_events,
    student_t,
)

EXACT_T = {3: 3.1824, 4: 2.7764, 5: 2.5706, 10: 2.2281, 30: 2.0423, 1e9: 1.95996}
EXACT_POISSON = {0: (0, 3.689), 1: (0.0253, 5.572), 5: (1.623, 11.668), 9: (4.115, 17.085)}
SAFE = PRESETS["traditional"]  # without batches that fail: else three trains have no interval
for _name in SAFE.names:
    SAFE = SAFE.with_environment(_name, batch_risk=0, open_hours="always")
CASES = {
    "default": Scenario(),
    "each": EACH,
    "traditional": SAFE,
    "weekly train": Scenario().with_environment("production", release_every_hours=168),
    "one application": Scenario().with_team(applications={"shop": 1}),
    "one commit a day": Scenario().with_team(commits_per_day=1),
}


def median_of(seconds, cluster, group=None, groups=1):
    """Low, value and high of each group."""
    seconds = np.asarray(seconds, np.int64)
    group = np.zeros(len(seconds), np.int64) if group is None else np.asarray(group)
    found = medians_with_interval(group, seconds, np.asarray(cluster), groups, 1)
    return np.array([found["low"], found["value"], found["high"]])


def frequency_of(counts, days=None):
    """Low and high of the count itself, of one group."""
    counts = np.asarray([counts])
    days = counts.shape[1] if days is None else days
    low, high = frequency_interval(counts, days, np.ones(counts.shape[1], bool))
    return low[0] * days, high[0] * days


@pytest.mark.parametrize("df", EXACT_T)
def test_students_t_is_that_of_the_tables_within_a_twentieth(df):
    assert student_t(np.array(df)) == pytest.approx(EXACT_T[df], rel=0.04)


def test_the_interval_of_a_median_is_that_of_its_clusters():
    """1 to 40 in 20 pairs of neighbours: those below 20.5 have d = -2, those above it 2.

    2 n se = sqrt(20 / 19 * 20 * 4) = 9.177, and t of 19 degrees of freedom is 2.093: 9.60 ranks.
    """
    pairs = median_of(range(1, 41), np.arange(40) // 2)[:, 0]
    assert pairs == pytest.approx([10.9, 20.5, 30.1], abs=0.01)


def test_a_median_is_certain_where_each_cluster_lies_on_both_sides_of_it():
    halves = np.minimum(np.arange(40), 39 - np.arange(40))
    assert median_of(range(1, 41), halves)[:, 0] == pytest.approx(20.5)


@pytest.mark.parametrize("n", [40, 400, 4001])
def test_independent_values_have_the_interval_between_order_statistics(n):
    """Hahn and Meeker's normal approximation: the ranks n/2 -+ 1.96 sqrt(n)/2, to one rank."""
    expected = (n + 1) / 2 + np.array([-1, 0, 1]) * 1.96 * math.sqrt(n) / 2
    shuffled = np.random.default_rng(1).permutation(np.arange(1, n + 1))
    assert np.abs(median_of(shuffled, np.arange(n))[:, 0] - expected).max() < 1


def test_few_values_or_few_clusters_have_no_interval():
    """Five values; eight values in four clusters; six in three; none; six values alone."""
    group = np.repeat([0, 1, 2, 4], [5, 8, 6, 6])
    cluster = np.concatenate([np.arange(5), np.arange(8) // 2, np.arange(6) // 2, np.arange(6)])
    low, value, high = median_of(np.arange(25), cluster, group, 5)
    assert np.isnan(low).tolist() == [True, False, True, True, False]
    assert np.isnan(high).tolist() == [True, False, True, True, False]
    assert np.isnan(value).tolist() == [False, False, False, True, False]


def test_each_group_is_measured_apart():
    group = np.repeat([0, 1], 20)
    values = np.arange(40) % 20 * np.where(group, 3, 1)
    together = median_of(values, np.arange(40), group, 2)
    for number in (0, 1):
        alone = median_of(values[group == number], np.arange(20))
        np.testing.assert_array_equal(together[:, number], alone[:, 0])


def test_an_open_entry_is_counted_but_not_measured():
    group = np.zeros(8, np.int64)
    seconds = np.array([1, 2, 3, 4, 5, 6, NEVER, NEVER])
    found = medians_with_interval(group, seconds, np.arange(8), 1, 1)
    assert (found["n"][0], found["open"][0], found["value"][0]) == (6, 2, 3.5)


@pytest.mark.parametrize("n", EXACT_POISSON)
def test_few_events_have_the_interval_of_poisson(n):
    counts = np.zeros(30, int)
    counts[:n] = 1
    assert frequency_of(counts) == pytest.approx(EXACT_POISSON[n], abs=0.03)


@pytest.mark.parametrize("days", range(1, 15))
def test_a_window_of_less_than_three_weeks_has_the_interval_of_poisson(days):
    counts = np.full(days, 100)
    n = 100 * days
    low, high = frequency_of(counts)
    assert low == pytest.approx(n - 1.96 * math.sqrt(n), abs=2)
    assert high == pytest.approx(n + 1.96 * math.sqrt(n), abs=3)


def test_the_interval_of_a_frequency_is_that_of_its_weeks():
    """4, 8, 4 and 8 events on the first days of four weeks.

    Of the 22 sums of seven days in a row 8 are 4 and 14 are 8. Their mean is 144/22, the variance
    16 * 8 * 14 / 22^2 = 3.702, times 4 / 3 as four weeks do not overlap: r = 0.754. t of 4.5
    degrees of freedom is 2.62. With x = 24 / r = 31.8: 24 (1 - 1 / 9x - t / 3 sqrt(x))^3 = 14.3.
    With x + 1: (24 + r)(1 - 1 / 9x + t / 3 sqrt(x))^3 = 37.6.
    """
    counts = np.zeros(28, int)
    counts[::7] = 4, 8, 4, 8
    assert frequency_of(counts) == pytest.approx((14.3, 37.6), abs=0.1)


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
    runs, window, scenario = 2000, Window.before(END, days), CASES[name]
    events = simulate_events([(scenario, runs)], window, Noise(3, 1)).in_production()
    changes = shipped_changes(events)
    nothing = np.zeros(runs, np.int64)
    over = Measured(nothing, nothing + days, np.ones((runs, days), bool), nothing > 0, False)
    unseen = np.zeros(len(events.deployments.time), bool)
    table = production_by_group(events, changes, find_recoveries(events), over, unseen)
    lead, frequency = table["change_lead_time_hours"], table["deployment_frequency_per_day"]
    hours = (changes.shipped - changes.committed)[changes.shipped < NEVER] / 3600
    train = scenario.environments[-1].release_every_hours > 0
    assert 92.5 < covered(lead["low"], lead["high"], np.median(hours)) < (100 if train else 97.5)
    mean = frequency["value"].mean()
    least, most = (94, 100.1) if train else (93, 98.5)
    assert least < covered(frequency["low"], frequency["high"], mean) < most
    assert np.isnan(lead["low"]).mean() < 0.1  # where three trains alone have shipped
