"""Git layer: simulated commits, and the window that they lie in."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_model import END, MONTH, any_scenario, check_history, simulated, spread

import gitops_automation as gitops
from gitops_automation import GitOpsError, Scenario, Team, Window, commits_table

YEARS = Window.before(END, 14 * 500)  # whole sprints
FLAT = Team(sprint_ramp=0)
EVERY_DAY = Team(sprint_ramp=0, weekday_factors=(1,) * 7)


@pytest.fixture(scope="module")
def commits():
    """About 38,000 commits of the default team."""
    return commits_table(Team(), YEARS, 3)


def counts_by_day(team, window=YEARS, seed=5):
    """How many commits each day of the window has."""
    days = commits_table(team, window, seed)["timestamp"].dt.floor("D").value_counts()
    return days.reindex(pd.date_range(window.start, periods=window.days, tz="UTC"), fill_value=0)


# ---- The window ---------------------------------------------------------------------------------


def test_the_window_is_the_whole_days_before_its_end():
    window = Window.before(END, np.int64(30))
    assert (window.start, window.end) == (pd.Timestamp("2026-01-01", tz="UTC"), END)
    assert window.days == 30
    for days in (0, -1, 1.5, math.nan, "many", None):
        with pytest.raises(GitOpsError, match="days must be a whole number from 1 ") as caught:
            Window.before(END, days)
        assert repr(days) in str(caught.value)
    assert Window.before(END, 20_484).start == pd.Timestamp("1970-01-01", tz="UTC")
    with pytest.raises(GitOpsError, match="before 1970"):
        Window.before(END, 20_485)


# ---- The table ----------------------------------------------------------------------------------


def test_the_table_holds_what_is_documented(commits):
    check_history(simulated(Scenario(), 7)[0])
    assert commits["sha"].str.fullmatch("[0-9a-f]{40}").all()
    heads = commits["type"].astype(str) + "(" + commits["application"].astype(str) + "): "
    assert all(message.startswith(head) for message, head in zip(commits["message"], heads))
    assert commits["message"].nunique() == 5 * 3 * 4
    assert set(commits["branch"]) == {"main"}
    assert commits["files_changed"].min() == 1
    assert commits["files_changed"].mean() == pytest.approx(4, rel=0.03)


def test_a_table_depends_on_its_seed_alone():
    once, again, other = (commits_table(Team(), MONTH, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(once, again)
    assert not once["timestamp"].equals(other["timestamp"])
    shas = [set(commits_table(Team(), MONTH, seed)["sha"]) for seed in range(20)]
    assert len(set.union(*shas)) == sum(map(len, shas))


@settings(max_examples=10)
@given(any_scenario)
def test_other_shares_leave_the_times_as_they_were(scenario):
    shares = {name: getattr(scenario.team, name) for name in ("authors", "types", "applications")}
    once, changed = (commits_table(Team(**knobs), MONTH, 1) for knobs in ({}, shares))
    assert once["timestamp"].equals(changed["timestamp"])
    for column, weights in zip(("author", "type", "application"), shares.values()):
        assert set(changed[column]) <= {name for name, weight in weights.items() if weight}


# ---- When ---------------------------------------------------------------------------------------


def test_commits_lie_in_the_window_in_order_at_whole_seconds(commits):
    times = commits["timestamp"]
    assert times.between(YEARS.start, YEARS.end).all()
    assert times.is_monotonic_increasing
    assert (times == times.dt.floor("s")).all()
    assert times.iloc[0] < YEARS.start + pd.Timedelta(days=7)
    assert times.iloc[-1] > YEARS.end - pd.Timedelta(days=7)


@pytest.mark.parametrize("hours", [(9, 18), (0, 24), (22.5, 23), (0, 0), (24, 24), (8, 12, 13, 17)])
def test_commits_are_made_in_the_working_hours(hours):
    made = commits_table(Team(work_hours=hours), MONTH, 1)["timestamp"]
    assert made.between(MONTH.start, MONTH.end - pd.Timedelta(seconds=1)).all()
    hour = (made - made.dt.floor("D")) / pd.Timedelta(hours=1)
    assert hour.between(hours[0] - 1 / 3600, hours[-1]).all()


def test_a_weekend_day_has_a_fifth_of_the_eight_commits_of_a_weekday():
    counts = counts_by_day(FLAT)
    weekend = counts.index.day_of_week >= 5
    assert counts[~weekend].mean() == pytest.approx(8, rel=0.02)
    assert counts[weekend].mean() == pytest.approx(1.6, rel=0.05)
    ramped = counts_by_day(Team())  # the ramp changes no average
    assert ramped[~weekend].mean() == pytest.approx(8, rel=0.02)
    only = commits_table(Team(weekday_factors=(0, 0, 1, 0, 0, 0, 0)), MONTH, 1)["timestamp"]
    assert set(only.dt.day_of_week) == {2}


def test_a_sprint_begins_on_a_monday_and_its_ramp_goes_from_15_percent_below_to_15_above():
    counts = counts_by_day(Team(weekday_factors=(1,) * 7, commits_per_day=40)).to_numpy()
    monday = -YEARS.start.day_of_week % 7
    sprints = [counts[first:][: 14 * 498].reshape(-1, 14) for first in (monday, monday + 7)]
    by_day = min((sprint.mean(axis=0) for sprint in sprints), key=lambda days: days[0])
    assert by_day == pytest.approx(np.linspace(34, 46, 14), rel=0.04)
    steep = Team(weekday_factors=(1,) * 7, commits_per_day=500, sprint_ramp=2)  # begins with none
    counts = counts_by_day(steep, Window.before(END, 70))
    idle = np.flatnonzero(counts == 0)
    assert set(counts.index[idle].day_of_week) == {0}
    assert np.diff(idle).tolist() == [14] * 4


# ---- How many -----------------------------------------------------------------------------------


def negative_binomial(mean, dispersion, k):
    """The probability of k, by the textbook: gamma functions of r = mean / (dispersion - 1)."""
    if dispersion == 1:
        return math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
    r = mean / (dispersion - 1)
    log_odds = math.lgamma(k + r) - math.lgamma(k + 1) - math.lgamma(r)
    return math.exp(log_odds - r * math.log(dispersion) + k * math.log(1 - 1 / dispersion))


@settings(max_examples=30)
@given(
    st.sampled_from([0.01, 1.6, 8, 1500]) | st.floats(0.01, 100),
    st.sampled_from([1, 1.001, 2, 1000]) | st.floats(1.001, 20),
)
def test_the_counts_of_a_day_are_negative_binomial(mean, dispersion):
    cumulative = gitops.count_distribution(mean, dispersion)
    expected = [negative_binomial(mean, dispersion, k) for k in range(len(cumulative))]
    assert np.diff(cumulative, prepend=0) == pytest.approx(expected, abs=1e-9)
    assert cumulative[-1] == pytest.approx(1, abs=1e-4)


def test_days_vary_twice_as_much_as_poisson_would_and_are_independent():
    counts = counts_by_day(EVERY_DAY)
    assert counts.var() / counts.mean() == pytest.approx(2, rel=0.07)
    assert abs(np.corrcoef(counts[1:], counts[:-1])[0, 1]) < 4 / np.sqrt(len(counts))
    poisson = counts_by_day(EVERY_DAY.replaced(dict(dispersion=1)))
    assert poisson.mean() == pytest.approx(8, rel=0.02)
    assert poisson.var() / poisson.mean() == pytest.approx(1, rel=0.07)


def test_a_team_of_no_commits_gives_an_empty_but_valid_history():
    for team in (dict(commits_per_day=0), dict(weekday_factors=(0,) * 7)):
        history, flow = simulated(Scenario().with_team(**team))
        check_history(history)
        tables = history.git_commits, history.deployments, history.rollbacks
        assert [len(rows) for rows in tables] == [0, 0, 0]
        assert not flow.to_numpy().any()


# ---- Who and what -------------------------------------------------------------------------------


def test_each_column_comes_in_its_shares(commits):
    columns = {"author": Team().authors, "type": Team().types, "application": Team().applications}
    for column, shares in columns.items():
        found = commits[column].value_counts(normalize=True).to_dict()
        for name, weight in shares.items():
            share = weight / sum(shares.values())
            assert abs(found[name] - share) < spread(len(commits), share)
