"""Deployment engine: commits -> deployments, through each environment by its promotion policy."""

import dataclasses
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_model import (
    END,
    MONTH,
    WEEK,
    assorted_scenarios,
    check_history,
    names_of,
    plain_pipeline,
    plain_rollbacks,
    plain_tables,
    rates,
    rows_of,
    seeds,
    simulated,
    small_scenarios,
    spread,
)

import gitops_automation as gitops
from gitops_automation import (
    Commits,
    Environment,
    Noise,
    Scenario,
    Window,
    calculate_dora_metrics,
    commits_table,
    run_pipeline,
    simulate_deployments,
    simulate_events,
)

BUSY = Scenario().with_team(commits_per_day=600)
LONG = Window.before(END, 365)


@pytest.fixture(scope="module")
def busy():
    """A month of about 14,000 commits where every release goes up, and its flow."""
    scenario = BUSY
    for name in names_of(scenario):
        scenario = scenario.with_environment(name, promotion="each")
    return simulated(scenario, 11)


def of(history, environment):
    return history.deployments[history.deployments["environment"] == environment]


def seconds(times):
    return [int(time.timestamp()) for time in times]


# ---- Against the plain loop ---------------------------------------------------------------------


def assert_is_of_the_loop(scenario, seed, window=WEEK):
    """The three tables and the flow are those of a loop over every commit."""
    history, flow = simulated(scenario, seed, window)
    deployments, of_stage, rollbacks = plain_tables(history.git_commits, scenario, window, seed)
    assert rows_of(history.deployments.drop(columns="recovered")) == deployments
    assert rows_of(history.rollbacks) == rollbacks
    assert flow.to_numpy().tolist() == of_stage
    check_history(history)


@pytest.mark.parametrize("number", range(15))
def test_the_tables_are_those_of_a_loop_over_every_commit(number):
    scenario = list(assorted_scenarios())[number].with_team(commits_per_day=12)
    for seed in range(2):
        assert_is_of_the_loop(scenario, seed)


@settings(max_examples=15)
@given(small_scenarios(), seeds)
def test_the_tables_of_any_scenario_are_those_of_the_loop(scenario, seed):
    assert_is_of_the_loop(scenario, seed)


@pytest.mark.slow
@settings(max_examples=200)
@given(small_scenarios(), seeds)
def test_the_tables_of_many_scenarios_are_those_of_the_loop(scenario, seed):
    assert_is_of_the_loop(scenario, seed)


@pytest.mark.parametrize("seed", range(3))
def test_the_default_month_is_that_of_the_loop(seed):
    assert_is_of_the_loop(Scenario(), seed, MONTH)


@pytest.mark.slow
def test_more_than_32767_applications_go_the_way_of_the_loop():
    applications = {f"shop {number}": 1 for number in range(33_000)}
    applications["the last one"] = 33_000
    team = dict(applications=applications, types={"feat": 1}, commits_per_day=60)
    scenario = Scenario().with_team(**team)
    assert_is_of_the_loop(scenario, 1)
    made = commits_table(scenario.team, WEEK, 1)["application"]
    assert abs((made == "the last one").mean() - 0.5) < spread(len(made), 0.5)


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
    ours = events.rollbacks
    assert ours.time.tolist() == [row["start"] for row in expected]
    assert ours.end.tolist() == [row["end"] for row in expected]
    assert ours.success.tolist() == [row["success"] for row in expected]
    commit = events.deployments.commit
    assert commit[ours.deployment].tolist() == [row["from"] for row in expected]
    assert commit[ours.target].tolist() == [row["to"] for row in expected]


@pytest.mark.parametrize("number", range(15))
def test_many_runs_at_once_are_those_of_the_loop(number):
    scenario = list(assorted_scenarios())[number].with_team(commits_per_day=6)
    events = simulate_events([(scenario, 5)], WEEK, Noise(3, 1))
    assert set(events.commits.group) == set(range(5))
    assert_events_are_of_the_loop(events, scenario, Noise(3, 1))


@settings(max_examples=20)
@given(
    small_scenarios(),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(0, 3)), max_size=25),
    st.integers(1, 40),
    seeds,
)
def test_commits_that_tie_in_a_crowd_go_the_way_of_the_loop(scenario, commits, end, seed):
    crowded = tuple(
        dataclasses.replace(stage, wait_hours=(0, 5 / 3600), duration_sec=(0, 2))
        for stage in scenario.environments
    )
    scenario = dataclasses.replace(scenario, environments=crowded)
    moments = (pd.Timestamp(second, unit="s", tz="UTC") for second in (0, end))
    columns = np.array(sorted(commits), np.int64).reshape(-1, 3).T
    events = simulate_events([(scenario, 2)], Window(*moments), Noise(seed), Commits(*columns))
    assert_events_are_of_the_loop(events, scenario, Noise(seed))


# ---- The policies, release by release -----------------------------------------------------------

HOUR = 3600


def fates_of(
    promotion, arrivals, wait_noise, lineage=None, approval_rate=1.0, approval=None, end=100 * HOUR
):
    """Return the hours at which releases go up (None: never), then the flow.

    A wait is 10 h times its noise.
    """
    count = len(arrivals)
    environment = Environment("live", 1, (0, 10), (0, 0), promotion, approval_rate)
    noise = np.array([[0.5] * count, wait_noise, [0.5] * count, approval or [0.5] * count])
    seconds = [gitops.NEVER if hour is None else round(hour * HOUR) for hour in arrivals]
    lineage = np.array(lineage or [0] * count)
    gate = gitops.Gate.at_hours("always", (), 0.0, "UTC", 0, end)
    stage = gitops.run_stage(environment, np.array(seconds), lineage, noise, gate)
    hours = [start / HOUR if up else None for start, up in zip(stage.start, stage.deployed)]
    return hours, dict(zip(gitops.FLOW, stage.flow))


def test_each_lets_every_release_up_even_over_a_newer_one():
    assert fates_of("each", [0, 1], [0.9, 0.1])[0] == [9, 2]


def test_newest_supersedes_a_release_that_a_newer_one_has_overtaken():
    hours, flow = fates_of("newest", [0, 1, 2], [0.9, 0.1, 0.2])
    assert hours == [None, 2, 4]
    assert flow["superseded"] == 1


@pytest.mark.parametrize("promotion", ["newest", "soak"])
def test_of_two_releases_in_the_same_second_the_newer_goes_up(promotion):
    assert fates_of(promotion, [0, 0], [0.5, 0.5])[0] == [None, 5]


def test_newest_lets_up_a_release_that_is_a_second_ahead_of_the_newer_one():
    assert fates_of("newest", [0, 1 / HOUR], [0.5, 0.5])[0] == [5, 5 + 1 / HOUR]


def test_soak_supersedes_a_release_when_a_newer_one_is_upstream_at_the_end_of_its_wait():
    assert fates_of("soak", [0, 5], [0.5, 0.5])[0] == [None, 10]


def test_soak_lets_up_a_release_whose_rival_is_upstream_a_second_too_late():
    assert fates_of("soak", [0, 5 + 1 / HOUR], [0.5, 0.5])[0] == [5, 10 + 1 / HOUR]


def test_soak_supersedes_where_newest_would_not():
    assert fates_of("newest", [0, 1], [0.5, 0.9])[0] == [5, 10]
    assert fates_of("soak", [0, 1], [0.5, 0.9])[0] == [None, 10]


@pytest.mark.parametrize("promotion", ["newest", "soak"])
def test_a_release_of_another_application_overtakes_nothing(promotion):
    assert fates_of(promotion, [0, 1], [0.9, 0.1], lineage=[0, 1])[0] == [9, 2]
    assert fates_of(promotion, [1, 0], [0.1, 0.9], lineage=[3, 7])[0] == [2, 9]


@pytest.mark.parametrize("promotion", ["newest", "soak"])
def test_an_older_release_overtakes_nothing(promotion):
    assert fates_of(promotion, [0, 8], [0.1, 0.5])[0] == [1, 13]


@pytest.mark.parametrize("promotion", ["newest", "soak"])
def test_a_release_that_never_came_overtakes_nothing(promotion):
    assert fates_of(promotion, [0, None], [0.9, 0.1])[0] == [9, None]


def test_a_release_that_the_gate_holds_overtakes_nothing_but_ends_a_soak():
    gate = dict(approval_rate=0.7, approval=[0.1, 0.7])
    for promotion, first in (("each", 9), ("newest", 9), ("soak", None)):
        hours, flow = fates_of(promotion, [0, 1], [0.9, 0.1], **gate)
        assert hours == [first, None]
        assert flow["held"] == 1


def test_a_sync_that_would_start_at_the_end_is_in_flight():
    hours, flow = fates_of("newest", [0, 1 / HOUR, None], [0.5, 0.5, 0.5], end=5 * HOUR + 1)
    assert hours == [5, None, None]
    assert (flow["in_flight"], flow["superseded"], flow["held"]) == (1, 0, 0)


def test_a_success_rate_can_be_zero_or_one():
    for rate, bad in ((0, True), (1, False)):
        history, _ = simulated(Scenario().with_environment("dev", success_rate=rate), 1)
        assert set(of(history, "dev")["health"] == "Degraded") == {bad}


# ---- Conservation -------------------------------------------------------------------------------


@settings(max_examples=10)
@given(small_scenarios(), seeds)
def test_every_healthy_release_is_deployed_superseded_held_or_in_flight_in_the_next_stage(
    scenario, seed
):
    history, flow = simulated(scenario, seed, WEEK)
    reached = len(history.git_commits)
    for name in names_of(scenario):
        assert flow.loc[name].sum() == reached
        assert flow.loc[name, "deployed"] == len(of(history, name))
        reached = (of(history, name)["health"] == "Healthy").sum()


@settings(max_examples=10)
@given(small_scenarios(), seeds)
def test_a_release_goes_up_once_it_is_healthy_in_the_stage_before(scenario, seed):
    history, _ = simulated(scenario, seed, WEEK)
    commits = history.git_commits.set_index("sha")
    healthy = dict(zip(commits.index, seconds(commits["timestamp"])))
    for name in names_of(scenario):
        rows = of(history, name)
        shas = list(rows["commit_sha"])
        assert len(set(shas)) == len(shas)
        assert list(rows["application"]) == list(commits["application"][shas])
        starts = dict(zip(shas, seconds(rows["timestamp"])))
        assert all(start >= healthy[sha] for sha, start in starts.items())
        good = rows[rows["health"] == "Healthy"]
        healthy = {
            sha: starts[sha] + took for sha, took in zip(good["commit_sha"], good["duration_sec"])
        }


# ---- Laws ---------------------------------------------------------------------------------------


def good_deployments(history, environment=None):
    rows = history.deployments[history.deployments["health"] == "Healthy"]
    rows = rows if environment is None else rows[rows["environment"] == environment]
    return set(zip(rows["environment"], rows["commit_sha"], rows["timestamp"]))


@settings(max_examples=10)
@given(small_scenarios(), seeds, st.integers(0, 4), rates)
def test_raising_a_success_rate_never_loses_a_good_deployment_of_that_environment(
    scenario, seed, place, rate
):
    stage = scenario.environments[place % len(scenario.environments)]
    raised = scenario.with_environment(stage.name, success_rate=max(rate, stage.success_rate))
    before, after = (simulated(of_scenario, seed, WEEK)[0] for of_scenario in (scenario, raised))
    assert good_deployments(before, stage.name) <= good_deployments(after, stage.name)


@settings(max_examples=10)
@given(small_scenarios(promotions=["each"]), seeds, st.integers(0, 4), rates)
def test_raising_a_success_rate_under_each_never_loses_a_good_deployment_anywhere(
    scenario, seed, place, rate
):
    stage = scenario.environments[place % len(scenario.environments)]
    raised = scenario.with_environment(stage.name, success_rate=max(rate, stage.success_rate))
    before, after = (simulated(of_scenario, seed, WEEK)[0] for of_scenario in (scenario, raised))
    assert good_deployments(before) <= good_deployments(after)


@settings(max_examples=10)
@given(small_scenarios(promotions=["each"]), seeds, st.integers(0, 4), st.floats(0, 1))
def test_shortening_a_wait_under_each_never_lengthens_a_lead_time(scenario, seed, place, factor):
    stage = scenario.environments[place % len(scenario.environments)]
    shorter = scenario.with_environment(
        stage.name, wait_hours=[hours * factor for hours in stage.wait_hours]
    )
    before, after = (
        {
            (name, sha): time
            for name, sha, time in good_deployments(simulated(of_scenario, seed, WEEK)[0])
        }
        for of_scenario in (scenario, shorter)
    )
    assert set(before) <= set(after)
    assert all(after[release] <= time for release, time in before.items())


@pytest.mark.slow
@settings(max_examples=8)
@given(small_scenarios(), seeds, st.integers(0, 4), rates)
def test_a_knob_of_one_environment_leaves_the_ones_before_as_they_were(scenario, seed, place, rate):
    place %= len(scenario.environments)
    changed = scenario.with_environment(
        names_of(scenario)[place], success_rate=rate, promotion="soak"
    )
    before, after = (simulated(of_scenario, seed, WEEK)[0] for of_scenario in (scenario, changed))
    for name in names_of(scenario)[:place]:
        assert rows_of(of(before, name)) == rows_of(of(after, name))


@settings(max_examples=8)
@given(small_scenarios(), seeds)
def test_the_same_inputs_give_the_same_tables(scenario, seed):
    text, commits = scenario.to_json(), commits_table(scenario.team, WEEK, seed)
    kept = commits.copy(deep=True)
    deployments, flow = simulate_deployments(commits, scenario, WEEK, seed)
    pd.testing.assert_frame_equal(commits, kept)
    assert scenario.to_json() == text
    again, flow_again = simulate_deployments(commits, scenario, WEEK, seed)
    pd.testing.assert_frame_equal(deployments, again)
    pd.testing.assert_frame_equal(flow, flow_again)


def test_another_seed_takes_the_same_commits_another_way():
    commits = commits_table(Scenario().team, MONTH, 1)
    one, other = (simulate_deployments(commits, Scenario(), MONTH, seed)[0] for seed in (1, 2))
    assert rows_of(one) != rows_of(other)


def test_a_run_leaves_the_global_random_state_as_it_was():
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002
    history, _ = simulated(Scenario(), 1)
    calculate_dora_metrics(history)
    check_history(history)
    after, numpy_after = random.getstate(), np.random.get_state()  # noqa: NPY002
    assert before == after
    assert all(np.array_equal(one, other) for one, other in zip(numpy_before, numpy_after))


# ---- Distributions ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rate"), [("dev", 0.90), ("staging", 0.93), ("production", 0.95)])
def test_each_environment_succeeds_at_its_documented_rate(busy, name, rate):
    rows = of(busy[0], name)
    assert len(rows) > 8000
    assert abs((rows["health"] == "Healthy").mean() - rate) < spread(len(rows), rate)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("dev", 10, 60), ("staging", 15, 90), ("production", 30, 120)]
)
def test_a_sync_takes_its_documented_seconds(busy, name, low, high):
    took = of(busy[0], name)["duration_sec"]
    assert (took.min(), took.max()) == (low, high)
    assert took.mean() == pytest.approx((low + high) / 2, rel=0.02)
    assert took.std() == pytest.approx((high - low) / 12**0.5, rel=0.03)


def waits(history, before, name):
    """Hours from the end of the sync in the environment before to the start of the one in this."""
    earlier = of(history, before).set_index("commit_sha")
    later = of(history, name).set_index("commit_sha")
    ended = earlier["timestamp"] + pd.to_timedelta(earlier["duration_sec"], unit="s")
    return (later["timestamp"] - ended.reindex(later.index)) / pd.Timedelta(hours=1)


@pytest.mark.parametrize(
    ("before", "name", "low", "high"), [("dev", "staging", 2, 6), ("staging", "production", 24, 72)]
)
def test_a_release_waits_its_documented_hours(before, name, low, high):
    scenario = BUSY.with_team(commits_per_day=40).with_environment("staging", promotion="each")
    history, _ = simulated(scenario.with_environment("production", promotion="each"), 1, LONG)
    found = waits(history, before, name)
    found = found[
        found.index.isin(history.git_commits["sha"].iloc[:-300])
    ]  # those of the last days are cut off
    assert found.between(low, high).all()
    assert found.mean() == pytest.approx((low + high) / 2, rel=0.02)
    assert found.std() == pytest.approx((high - low) / 12**0.5, rel=0.03)


def test_dev_deploys_a_commit_at_once(busy):
    rows, commits = of(busy[0], "dev"), busy[0].git_commits
    assert sorted(rows["commit_sha"]) == sorted(commits["sha"])
    assert (rows["timestamp"].to_numpy() == commits["timestamp"].to_numpy()).all()


def test_a_range_of_more_than_two_numbers_follows_the_observations():
    scenario = BUSY.with_environment("dev", duration_sec=(0, 10, 20, 1000))
    took = of(simulated(scenario, 1)[0], "dev")["duration_sec"]
    for limit, share in ((10, 1 / 3), (20, 2 / 3), (510, 5 / 6)):
        assert abs((took < limit).mean() - share) < spread(len(took), share) + 0.02


@pytest.mark.parametrize("rate", [0, 0.3, 1])
def test_the_gate_lets_its_share_of_the_healthy_releases_through(rate):
    history, flow = simulated(BUSY.with_environment("staging", approval_rate=rate), 1)
    healthy = (of(history, "dev")["health"] == "Healthy").sum()
    assert abs(1 - flow.loc["staging", "held"] / healthy - rate) <= spread(healthy, rate)


def test_what_the_gate_lets_through_succeeds_as_often(busy):
    history, _ = simulated(BUSY.with_environment("staging", approval_rate=0.5, promotion="each"), 1)
    rows = of(history, "staging")
    assert abs((rows["health"] == "Healthy").mean() - 0.93) < spread(len(rows), 0.93)


def test_failures_have_the_documented_reasons_in_their_shares():
    scenario = BUSY.with_environment("dev", success_rate=0.2)
    rows = of(simulated(scenario, 1)[0], "dev")
    reasons = rows["failure_reason"][rows["health"] == "Degraded"]
    found = reasons.value_counts(normalize=True).to_dict()
    for reason, share in gitops.DEFAULT_REASONS.items():
        assert abs(found[reason] - share) < spread(len(reasons), share)


@pytest.mark.parametrize("name", ["dev", "staging", "production"])
def test_the_main_reason_is_the_same_share_in_every_environment(busy, name):
    rows = of(busy[0], name)
    reasons = rows["failure_reason"][rows["health"] == "Degraded"]
    assert abs((reasons == "CrashLoopBackOff").mean() - 0.25) < spread(len(reasons), 0.25)


def test_a_failed_sync_alone_has_a_reason(busy):
    rows = busy[0].deployments
    failed = rows["status"] == "Failed"
    assert failed.equals(rows["health"] == "Degraded")
    assert failed.equals(rows["failure_reason"].notna())


def test_a_default_month_has_about_405_deployments_of_185_commits():
    months = []
    for shift in range(14):  # every weekday of a sprint
        window = Window.before(END + pd.Timedelta(days=shift), 30)
        events = simulate_events([(Scenario(), 30)], window, Noise(shift))
        environment = np.bincount(events.deployments.environment)
        months.append([len(events.commits.time), environment.sum(), *environment])
    commits, deployments, dev, staging, production = np.mean(months, axis=0) / 30
    assert commits == dev == pytest.approx(185, abs=3)
    assert deployments == pytest.approx(405, abs=6)
    assert staging == pytest.approx(143, abs=3)
    assert production == pytest.approx(79, abs=2)


# ---- Soak, which has an exact answer ------------------------------------------------------------


CENTURIES = Window(pd.Timestamp(0, unit="s", tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC"))


def poisson_arrivals(rate, count, applications, seed):
    """Make commits that arrive at random; return (commits, when the last one of each arrives)."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, (applications, count))
    times = np.cumsum(gaps, axis=1).astype(np.int64)
    order = np.argsort(times.ravel(), kind="stable")
    application = np.repeat(np.arange(applications), count)[order]
    return Commits(np.zeros_like(order), times.ravel()[order], application), times[:, -1]


@pytest.mark.parametrize("arrivals_per_soak", [0.25, 1, 2])
def test_soak_meets_its_closed_form(arrivals_per_soak):
    soak = 7200
    rate = arrivals_per_soak / soak
    commits, (last,) = poisson_arrivals(rate, 200_000, 1, seed=4)
    live = Environment("live", 1, (2, 2), (0, 0), "soak")
    deployed, _, _ = run_pipeline(
        commits, [(Scenario(environments=[live]), 1)], CENTURIES, Noise(1)
    )

    assert not deployed.bad.any()
    assert len(deployed.time) / last == pytest.approx(rate * np.exp(-rate * soak), rel=0.01)

    ups = deployed.commit
    assert (np.diff(ups) > 0).all()
    committed = commits.time[: ups[-1] + 1]
    ships_with = np.searchsorted(ups, np.arange(len(committed)))  # the next one that goes up
    lead_times = deployed.time[ships_with] - committed
    assert lead_times.mean() == pytest.approx((np.exp(rate * soak) - 1) / rate, rel=0.015)


def test_soak_behind_a_dev_stage_meets_the_closed_form_for_each_application():
    rate, soak = 1 / 7200, 7200
    commits, last = poisson_arrivals(rate, 50_000, 3, seed=5)
    dev = Environment("dev", 1, (0, 0), (0, 0), "each")
    live = Environment("live", 1, (2, 2), (0, 0), "soak")
    scenario = Scenario(environments=[dev, live])
    deployed, _, _ = run_pipeline(commits, [(scenario, 1)], CENTURIES, Noise(1))
    in_dev = deployed.environment == 0
    assert in_dev.sum() == len(commits.time)
    for application in range(3):
        ups = np.sum(~in_dev & (deployed.application == application))
        assert ups / last[application] == pytest.approx(rate * np.exp(-rate * soak), rel=0.02)
