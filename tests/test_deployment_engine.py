"""Deployment engine: commits -> deployments, through each environment by its promotion policy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_model import (
    EACH,
    END,
    MONTH,
    WEEK,
    assorted_scenarios,
    check_history,
    names_of,
    plain_pipeline,
    plain_rollbacks,
    plain_tables,
    rows_of,
    seeds,
    simulated,
    simulated_months,
    small_scenarios,
    spread,
)

import gitops_automation as gitops

HOUR = 3600


@pytest.fixture(scope="module")
def busy():
    """A month of about 14,000 commits where every release goes up."""
    return simulated(EACH.with_team(commits_per_day=600), 11)[0]


def of(history, environment):
    return history.deployments[history.deployments["environment"] == environment]


def seconds(times):
    return [int(time.timestamp()) for time in times]


# ---- Against the plain loop ---------------------------------------------------------------------


def assert_is_of_the_loop(scenario, seed, window=WEEK):
    """The three tables and the flow are those of a loop over every commit."""
    history, flow = simulated(scenario, seed, window)
    deployments, of_stage, rollbacks = plain_tables(history.git_commits, scenario, window, seed)
    assert rows_of(history.deployments) == deployments
    assert rows_of(history.rollbacks) == rollbacks
    assert flow.to_numpy().tolist() == of_stage
    check_history(history)


@pytest.mark.parametrize("number", range(15))
def test_the_tables_are_those_of_a_loop_over_every_commit(number):
    scenario = list(assorted_scenarios())[number].with_team(commits_per_day=12)
    for seed in range(2):
        assert_is_of_the_loop(scenario, seed)


@settings(max_examples=15)
@given(small_scenarios(), seeds, st.sampled_from([0, 0.5, 1]), st.sampled_from(["stage", "commit"]))
def test_the_tables_of_any_scenario_are_those_of_the_loop(scenario, seed, risk, starts):
    last = scenario.names[-1]
    assert_is_of_the_loop(scenario.with_environment(last, batch_risk=risk, starts=starts), seed)


def assert_events_are_of_the_loop(events, scenario, noise):
    """The deployments, the rollbacks too, of all runs are those of one loop over their commits."""
    commits = list(zip(*(column.tolist() for column in events.commits)))
    commits = [(run, application, second) for run, second, application in commits]
    deployed, _ = plain_pipeline(commits, scenario, events.window.seconds[1], noise)
    ours = events.deployments
    assert ours.commit.tolist() == [row["commit"] for row in deployed]
    assert ours.time.tolist() == [row["start"] for row in deployed]
    assert ours.end.tolist() == [row["end"] for row in deployed]
    assert ours.bad.tolist() == [not row["good"] for row in deployed]
    places = zip(ours.group.tolist(), ours.application.tolist(), ours.environment.tolist())
    assert list(places) == [row["place"] for row in deployed]
    expected = plain_rollbacks(deployed, scenario.rollback, noise, len(commits))
    back = events.rollbacks
    assert back.time.tolist() == [row["start"] for row in expected]
    assert back.end.tolist() == [row["end"] for row in expected]
    assert back.success.tolist() == [row["success"] for row in expected]
    assert ours.commit[back.deployment].tolist() == [row["from"] for row in expected]
    assert ours.commit[back.target].tolist() == [row["to"] for row in expected]


@pytest.mark.parametrize("number", range(15))
def test_many_runs_at_once_are_those_of_the_loop(number):
    scenario = list(assorted_scenarios())[number].with_team(commits_per_day=6)
    events = simulated_months([(scenario, 5)], WEEK, gitops.Noise(3, 1))
    assert set(events.commits.group) == set(range(5))
    assert_events_are_of_the_loop(events, scenario, gitops.Noise(3, 1))


def test_months_of_several_scenarios_are_those_of_each_alone():
    slow = gitops.Scenario().with_environment("staging", wait_hours=(20, 40), approval_rate=0.5)
    draws = [(gitops.Scenario(), 3), (slow, 2)]
    both = simulated_months(draws, MONTH, gitops.Noise(3, 1)).deployments
    for scenario, months in ((gitops.Scenario(), (0, 1, 2)), (slow, (3, 4))):
        alone = simulated_months([(scenario, 5)], MONTH, gitops.Noise(3, 1)).deployments
        for one, other in zip(both, alone):
            mine = (np.isin(table.group, months) for table in (both, alone))
            assert np.array_equal(*(column[chosen] for column, chosen in zip((one, other), mine)))


# ---- The policies, release by release -----------------------------------------------------------


def fates_of(promotion, arrivals, waits, lineage=None, rate=1.0, approval=None, end=100 * HOUR):
    """Return the hours at which releases go up, or else what becomes of them.

    A wait is 10 h times its noise.
    """
    count, fates = len(arrivals), {number: fate for fate, number in gitops.FLOW.items()}
    environment = gitops.Environment("live", 1, (0, 10), (0, 0), promotion, rate)
    noise = np.array([[0.5] * count, waits, [0.5] * count, approval or [0.5] * count])
    moments = [gitops.NEVER if hour is None else round(hour * HOUR) for hour in arrivals]
    lineage = np.array(lineage or [0] * count)
    window = gitops.Window(*(pd.Timestamp(second, unit="s", tz="UTC") for second in (0, end)))
    gate = gitops.Gate.of(environment, "UTC", window)
    start, _, _, came = gitops.run_stage(environment, np.array(moments), lineage, noise, gate)
    fate = [fates.get(number) for number in came.tolist()]
    return [up / HOUR if one == "deployed" else one for up, one in zip(start.tolist(), fate)]


GIVES = "superseded"
SECOND = 1 / HOUR
FATES = [  # promotion, hours of arrival, shares of ten hours of waiting: hours of the syncs
    ("each", [0, 1], [0.9, 0.1], [9, 2]),  # even over a newer one
    ("newest", [0, 1, 2], [0.9, 0.1, 0.2], [GIVES, 2, 4]),  # what a newer one has overtaken
    ("newest", [0, SECOND], [0.5, 0.5], [5, 5 + SECOND]),  # a second ahead
    ("newest", [0, 1], [0.5, 0.9], [5, 10]),
    ("soak", [0, 1], [0.5, 0.9], [GIVES, 10]),
    ("soak", [0, 5], [0.5, 0.5], [GIVES, 10]),  # a newer one is there at the end of the wait
    ("soak", [0, 5 + SECOND], [0.5, 0.5], [5, 10 + SECOND]),  # a second too late
    *((promotion, [0, 0], [0.5, 0.5], [GIVES, 5]) for promotion in ("newest", "soak")),
    *((promotion, [0, 8], [0.1, 0.5], [1, 13]) for promotion in ("newest", "soak")),
    *((promotion, [0, None], [0.9, 0.1], [9, None]) for promotion in ("newest", "soak")),
]


@pytest.mark.parametrize(("promotion", "arrivals", "waits", "expected"), FATES)
def test_a_release_gives_way_to_a_newer_one_by_its_promotion(promotion, arrivals, waits, expected):
    assert fates_of(promotion, arrivals, waits) == expected


def test_a_release_of_another_application_overtakes_nothing():
    for promotion in gitops.PROMOTIONS:
        assert fates_of(promotion, [0, 1], [0.9, 0.1], lineage=[0, 1]) == [9, 2]


def test_a_release_that_the_gate_holds_overtakes_nothing_but_ends_a_soak():
    for promotion, first in (("each", 9), ("newest", 9), ("soak", GIVES)):
        found = fates_of(promotion, [0, 1], [0.9, 0.1], rate=0.7, approval=[0.1, 0.7])
        assert found == [first, "held"]


def test_a_sync_that_would_start_at_the_end_is_in_flight():
    found = fates_of("newest", [0, SECOND, None], [0.5, 0.5, 0.5], end=5 * HOUR + 1)
    assert found == [5, "in_flight", None]


# ---- Conservation and laws ----------------------------------------------------------------------


@settings(max_examples=15)
@given(small_scenarios(), seeds)
def test_every_release_is_deployed_once_superseded_held_or_in_flight_after_the_stage_before(
    scenario, seed
):
    history, flow = simulated(scenario, seed, WEEK)
    commits = history.git_commits.set_index("sha")
    healthy = dict(zip(commits.index, seconds(commits["timestamp"])))
    for name in names_of(scenario):
        rows = of(history, name)
        assert flow.loc[name].sum() == len(healthy)
        assert flow.loc[name, "deployed"] == len(rows)
        shas = list(rows["commit_sha"])
        assert len(set(shas)) == len(shas)
        assert list(rows["application"]) == list(commits["application"][shas])
        ends = {}
        for sha, start, took, health in zip(
            shas, seconds(rows["timestamp"]), rows["duration_sec"], rows["health"]
        ):
            assert start >= healthy[sha]
            if health == "Healthy":
                ends[sha] = start + took
        healthy = ends


@settings(max_examples=8)
@given(small_scenarios(), seeds)
def test_a_run_depends_on_its_inputs_alone_and_changes_none_of_them(scenario, seed):
    text, commits = scenario.to_json(), gitops.commits_table(scenario.team, WEEK, seed)
    kept = commits.copy(deep=True)
    deployments, flow = gitops.simulate_deployments(commits, scenario, WEEK, seed)
    pd.testing.assert_frame_equal(commits, kept)
    assert scenario.to_json() == text
    again, flow_again = gitops.simulate_deployments(commits, scenario, WEEK, seed)
    pd.testing.assert_frame_equal(deployments, again)
    pd.testing.assert_frame_equal(flow, flow_again)


# ---- Distributions ------------------------------------------------------------------------------

STAGES = {"dev": (0.90, 10, 60), "staging": (0.93, 15, 90), "production": (0.95, 30, 120)}


@pytest.mark.parametrize("name", STAGES)
def test_each_environment_succeeds_takes_its_time_and_fails_for_reasons_as_documented(busy, name):
    rate, low, high = STAGES[name]
    rows = of(busy, name)
    assert len(rows) > 8000
    assert abs((rows["health"] == "Healthy").mean() - rate) < spread(len(rows), rate)
    took = rows["duration_sec"]
    assert (took.min(), took.max()) == (low, high)
    assert took.mean() == pytest.approx((low + high) / 2, rel=0.02)
    assert took.std() == pytest.approx((high - low) / 12**0.5, rel=0.03)
    reasons = rows["failure_reason"].dropna()
    assert len(reasons) == (rows["health"] == "Degraded").sum()
    found = reasons.value_counts(normalize=True).to_dict()
    for reason, share in gitops.DEFAULT_REASONS.items():
        assert abs(found[reason] - share) < spread(len(reasons), share)


def test_a_default_month_has_about_405_deployments_of_185_commits():
    months = []
    for shift in range(14):  # every weekday of a sprint
        window = gitops.Window.before(END + pd.Timedelta(days=shift), 30)
        events = simulated_months([(gitops.Scenario(), 30)], window, gitops.Noise(shift))
        environment = np.bincount(events.deployments.environment)
        months.append([len(events.commits.time), environment.sum(), *environment])
    commits, deployments, dev, staging, production = np.mean(months, axis=0) / 30
    assert commits == dev == pytest.approx(185, abs=3)
    assert deployments == pytest.approx(405, abs=6)
    assert staging == pytest.approx(143, abs=3)
    assert production == pytest.approx(79, abs=2)


# ---- Soak, which has an exact answer ------------------------------------------------------------

CENTURIES = gitops.Window(pd.Timestamp(0, unit="s", tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC"))


@pytest.mark.parametrize("arrivals_per_soak", [0.25, 1, 2])
def test_soak_meets_its_closed_form_for_each_application_behind_a_dev_stage(arrivals_per_soak):
    soak = 7200
    rate = arrivals_per_soak / soak
    gaps = np.random.default_rng(5).exponential(1 / rate, (3, 60_000))
    times = np.cumsum(gaps, axis=1).astype(np.int64)
    order = np.argsort(times.ravel(), kind="stable")
    application = np.repeat(np.arange(3), 60_000)[order]
    commits = gitops.Commits(np.zeros_like(order), times.ravel()[order], application)
    dev = gitops.Environment("dev", 1, (0, 0), (0, 0), "each")
    live = gitops.Environment("live", 1, (2, 2), (0, 0), "soak")
    draws = [(gitops.Scenario(environments=[dev, live]), 1)]
    deployed = gitops.run_pipeline(commits, draws, CENTURIES, gitops.Noise(1))[0]
    assert not deployed.bad.any()
    assert (deployed.environment == 0).sum() == len(commits.time)
    for number in range(3):
        rows = (deployed.environment == 1) & (deployed.application == number)
        per_second = np.sum(rows) / times[number, -1]
        assert per_second == pytest.approx(rate * np.exp(-rate * soak), rel=0.02)
        mine = np.flatnonzero(application == number)
        ups = np.searchsorted(mine, deployed.commit[rows])
        assert (np.diff(ups) > 0).all()
        ships_with = np.searchsorted(ups, np.arange(ups[-1] + 1))  # the next one that goes up
        lead = deployed.time[rows][ships_with] - times[number, : ups[-1] + 1]
        assert lead.mean() == pytest.approx((np.exp(rate * soak) - 1) / rate, rel=0.025)
