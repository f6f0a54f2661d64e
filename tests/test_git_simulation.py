"""Git layer: simulated commits, and the window that they lie in."""

import math

import numpy as np
import pandas as pd
import pytest
from plain_model import END, MONTH, check_history, simulated, spread

import gitops_automation as gitops
from gitops_automation import COLUMNS, GitOpsError, Scenario, Team, Window, commits_table

YEARS = Window.before(END, 14 * 500)  # whole sprints
FLAT = Team(sprint_ramp=0)
EVERY_DAY = Team(sprint_ramp=0, weekday_factors=(1,) * 7)


@pytest.fixture(scope="module")
def commits():
    """About 38,000 commits of the default team."""
    return commits_table(Team(), YEARS, 3)


def counts_by_day(team, window=YEARS, seed=5):
    """How many commits each day of the window has."""
    days = commits_table(team, window, seed)["timestamp"].dt.floor("D")
    return days.value_counts().reindex(
        pd.date_range(window.start, periods=window.days, tz="UTC"), fill_value=0
    )


# ---- The window ---------------------------------------------------------------------------------


def test_the_window_is_the_whole_days_before_its_end():
    window = Window.before(END, 30)
    assert (window.start, window.end) == (pd.Timestamp("2026-01-01", tz="UTC"), END)
    assert window.days == 30
    assert Window.before(END, np.int64(3)).days == 3


@pytest.mark.parametrize("days", [0, -1, 1.5, 30.0, math.nan, True, "30", None, [30]], ids=repr)
def test_days_that_are_no_positive_whole_number_are_refused_with_the_value(days):
    with pytest.raises(GitOpsError, match="days must be a whole number from 1 ") as caught:
        Window.before(END, days)
    assert repr(days) in str(caught.value)


def test_a_window_that_reaches_back_before_1970_is_refused():
    assert Window.before(END, 20_484).start == pd.Timestamp("1970-01-01", tz="UTC")
    for days in (20_485, 10**6):
        with pytest.raises(GitOpsError, match="before 1970"):
            Window.before(END, days)


# ---- The table ----------------------------------------------------------------------------------


def test_the_table_has_the_documented_columns():
    history, _ = simulated(Scenario(), 7)
    check_history(history)
    assert list(history.git_commits.columns) == list(COLUMNS["git_commits"])


def test_every_sha_is_forty_hex_digits(commits):
    assert commits["sha"].str.fullmatch("[0-9a-f]{40}").all()


def test_no_sha_comes_twice_in_twenty_months():
    shas = [set(commits_table(Team(), MONTH, seed)["sha"]) for seed in range(20)]
    assert len(set.union(*shas)) == sum(map(len, shas))


def test_the_message_is_a_conventional_commit(commits):
    heads = commits["type"].astype(str) + "(" + commits["application"].astype(str) + "): "
    assert all(message.startswith(head) for message, head in zip(commits["message"], heads))
    assert set(commits["branch"]) == {"main"}


def test_a_commit_changes_four_files_on_average(commits):
    assert commits["files_changed"].min() == 1
    assert commits["files_changed"].mean() == pytest.approx(4, rel=0.03)


def test_a_table_depends_on_its_seed_alone():
    once, again, other = (commits_table(Team(), MONTH, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(once, again)
    assert not once["timestamp"].equals(other["timestamp"])


def test_the_team_is_not_modified():
    team = Team()
    commits_table(team, MONTH, 1)
    assert team == Team()


# ---- When ---------------------------------------------------------------------------------------


def test_commits_lie_in_the_window_in_order_at_whole_seconds(commits):
    assert commits["timestamp"].between(YEARS.start, YEARS.end).all()
    assert commits["timestamp"].is_monotonic_increasing
    assert (commits["timestamp"] == commits["timestamp"].dt.floor("s")).all()
    assert commits["timestamp"].iloc[0] < YEARS.start + pd.Timedelta(days=7)
    assert commits["timestamp"].iloc[-1] > YEARS.end - pd.Timedelta(days=7)


@pytest.mark.parametrize("hours", [(9, 18), (0, 24), (22.5, 23), (0, 0), (24, 24), (8, 12, 13, 17)])
def test_commits_are_made_in_the_working_hours(hours):
    made = commits_table(Team(work_hours=hours), MONTH, 1)["timestamp"]
    assert made.between(MONTH.start, MONTH.end - pd.Timedelta(seconds=1)).all()
    hour = (made - made.dt.floor("D")) / pd.Timedelta(hours=1)
    assert hour.between(hours[0] - 1 / 3600, hours[-1]).all()


def test_commits_are_spread_evenly_over_the_working_hours(commits):
    shares = commits["timestamp"].dt.hour.value_counts(normalize=True)
    assert sorted(shares.index) == list(range(9, 18))
    assert (shares - 1 / 9).abs().max() < spread(len(commits), 1 / 9)


def test_a_weekend_day_has_a_fifth_of_the_eight_commits_of_a_weekday():
    counts = counts_by_day(FLAT)
    weekend = counts.index.day_of_week >= 5
    assert counts[~weekend].mean() == pytest.approx(8, rel=0.02)
    assert counts[weekend].mean() == pytest.approx(1.6, rel=0.05)


def test_the_ramp_through_the_sprint_changes_no_average():
    assert counts_by_day(Team()).mean() == pytest.approx((5 * 8 + 2 * 1.6) / 7, rel=0.02)
    assert counts_by_day(Team()).loc[lambda c: c.index.day_of_week < 5].mean() == pytest.approx(
        8, rel=0.02
    )


def test_the_ramp_goes_from_15_percent_below_the_mean_to_15_percent_above():
    counts = counts_by_day(Team(weekday_factors=(1,) * 7, commits_per_day=40)).to_numpy()
    monday = -YEARS.start.day_of_week % 7
    for first in (monday, monday + 7):
        by_day = counts[first : first + 14 * 498].reshape(-1, 14).mean(axis=0)
        if by_day[0] < by_day[7]:  # the Monday with which the sprints begin
            assert by_day == pytest.approx(np.linspace(34, 46, 14), rel=0.04)
            return
    pytest.fail("no sprint begins on a Monday")


@pytest.mark.parametrize(
    "knobs",
    [
        dict(sprint_days=1),
        dict(sprint_days=7, weekday_factors=(1, 0, 0, 0, 0, 0, 0)),
        dict(sprint_days=7, weekday_factors=(0, 0, 0, 0, 0, 0, 1)),
        dict(sprint_days=2, weekday_factors=(0, 1, 0, 0, 0, 0, 0)),
    ],
    ids=str,
)
def test_the_steepest_ramp_keeps_the_mean_where_few_days_work(knobs):
    """A ramp of 2 starts at nothing: what works on the first day of a sprint alone has no ramp."""
    team = Team(sprint_ramp=2, **knobs)
    expected = 8 * np.mean(team.weekday_factors)
    assert counts_by_day(team).mean() == pytest.approx(expected, rel=0.04)


def test_every_sprint_begins_on_a_monday():
    ramped = Team(
        weekday_factors=(1,) * 7, commits_per_day=500, sprint_ramp=2
    )  # a ramp of 2 starts at nothing
    counts = counts_by_day(ramped, Window.before(END, 70))
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


@pytest.mark.parametrize("mean", [0.01, 1.6, 8, 1500])
@pytest.mark.parametrize("dispersion", [1, 1.001, 2, 1000])
def test_the_counts_of_a_day_are_negative_binomial(mean, dispersion):
    cumulative = gitops.count_distribution(mean, dispersion)
    expected = [negative_binomial(mean, dispersion, k) for k in range(len(cumulative))]
    assert np.diff(cumulative, prepend=0) == pytest.approx(expected, abs=1e-9)
    assert cumulative[-1] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("mean", [0.3, 8, 60])
@pytest.mark.parametrize("dispersion", [1, 2, 10])
def test_the_distribution_has_the_moments_asked_for(mean, dispersion):
    probability = np.diff(gitops.count_distribution(mean, dispersion), prepend=0)
    k = np.arange(len(probability))
    found = (k * probability).sum()
    assert found == pytest.approx(mean, rel=1e-3)
    assert ((k - found) ** 2 * probability).sum() / found == pytest.approx(dispersion, rel=1e-2)


def test_days_vary_twice_as_much_as_poisson_would():
    counts = counts_by_day(EVERY_DAY)
    assert counts.var() / counts.mean() == pytest.approx(2, rel=0.07)


def test_a_dispersion_of_one_is_poisson():
    counts = counts_by_day(Team(sprint_ramp=0, weekday_factors=(1,) * 7, dispersion=1))
    assert counts.mean() == pytest.approx(8, rel=0.02)
    assert counts.var() / counts.mean() == pytest.approx(1, rel=0.07)
    for k in range(3, 14):
        share = math.exp(-8) * 8**k / math.factorial(k)
        assert abs((counts == k).mean() - share) < spread(len(counts), share)


def test_days_are_independent_of_each_other():
    counts = counts_by_day(EVERY_DAY).to_numpy()
    assert abs(np.corrcoef(counts[1:], counts[:-1])[0, 1]) < 4 / np.sqrt(len(counts))


def test_a_team_of_no_commits_gives_an_empty_but_valid_history():
    for team in (dict(commits_per_day=0), dict(weekday_factors=(0,) * 7)):
        history, flow = simulated(Scenario().with_team(**team))
        check_history(history)
        assert [len(history.git_commits), len(history.deployments), len(history.rollbacks)] == [
            0,
            0,
            0,
        ]
        assert not flow.to_numpy().any()


def test_the_weekdays_alone_say_on_which_days_there_are_commits():
    made = commits_table(Team(weekday_factors=(0, 0, 1, 0, 0, 0, 0)), MONTH, 1)["timestamp"]
    assert set(made.dt.day_of_week) == {2}


def test_more_commits_than_any_machine_can_hold_are_refused_with_the_numbers():
    with pytest.raises(GitOpsError, match="30 days of 1e\\+06 commits .* ask for fewer") as caught:
        commits_table(Team(commits_per_day=1e6, weekday_factors=(1e6,) * 7), MONTH, 1)
    assert "\n" not in str(caught.value)


# ---- Who and what -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "shares"),
    [
        ("author", dict(alice=0.25, bob=0.25, charlie=0.25, diana=0.25)),
        ("type", dict(feat=0.40, fix=0.30, chore=0.15, refactor=0.10, perf=0.05)),
        ("application", dict(frontend=0.40, backend=0.35, database=0.25)),
    ],
)
def test_each_column_comes_in_its_documented_shares(commits, column, shares):
    found = commits[column].value_counts(normalize=True).to_dict()
    assert set(found) == set(shares)
    for name, share in shares.items():
        assert abs(found[name] - share) < spread(len(commits), share)


def test_the_columns_are_independent_of_each_other(commits):
    for one, other in (("author", "type"), ("author", "application"), ("type", "application")):
        together = pd.crosstab(commits[one], commits[other], normalize=True).to_numpy()
        apart = np.outer(together.sum(axis=1), together.sum(axis=0))
        assert (np.abs(together - apart) < spread(len(commits), apart)).all()


def test_a_weight_of_zero_is_never_drawn():
    made = commits_table(
        Team(authors={"never": 0, "often": 6, "not once": 0, "seldom": 2, "nor": 0}), YEARS, 1
    )
    found = made["author"].value_counts(normalize=True)
    assert set(made["author"]) == {"often", "seldom"}
    assert abs(found["often"] - 0.75) < spread(len(made), 0.75)


def test_other_shares_leave_the_times_as_they_were():
    once = commits_table(Team(), MONTH, 1)
    changed = commits_table(
        Team(authors={"eve": 1}, types={"docs": 1}, applications={"shop": 1}), MONTH, 1
    )
    assert once["timestamp"].equals(changed["timestamp"])
    assert set(changed["type"]) == {"docs"}


def test_a_team_can_have_more_than_32767_authors():
    team = Team(authors={f"author {number}": 1 for number in range(40_000)}, commits_per_day=200)
    made = commits_table(team, Window.before(END, 14), 1)["author"]
    place = made.str.replace("author ", "").astype(int)
    assert place.mean() == pytest.approx(20_000, rel=0.04)
    assert (place > 32_767).mean() == pytest.approx(1 - 32_768 / 40_000, abs=0.03)
