"""What-if: forecasts, paired differences, changes, tried recommendations, the fitted baseline."""

import contextlib
import dataclasses
import io
import json
import math
import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import called
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_model import END, MONTH, WEEK, plain_pipeline, plain_rollbacks, simulated, table
from plain_months import plain_numbers

import gitops_automation as gitops
from gitops_automation import (
    BENCHMARKS,
    FORECAST_METRICS,
    LEVELS,
    METRICS,
    PRESETS,
    Environment,
    GitOpsAutomation,
    GitOpsError,
    Noise,
    Scenario,
    Trial,
    Window,
    calculate_dora_metrics,
    calculate_maturity,
    fit_scenario,
    forecast_months,
    is_elite,
    level_counts,
    main,
    named_scenario,
    paired_difference,
    parse_change,
    survival_range,
    tried_recommendations,
    try_changes,
    what_if,
)

EACH = Scenario()
for _environment in EACH.environments:
    EACH = EACH.with_environment(_environment.name, promotion="each")
SOME = {
    "default": Scenario(),
    "each": EACH,
    "each by trains": EACH.with_environment("production", release_every_hours=24),
    "soak": Scenario().with_environment("production", promotion="soak"),
    "gate": Scenario().with_environment("production", approval_rate=0.6),
    "train": PRESETS["traditional"],
    "one stage": Scenario(environments=Scenario().environments[-1:]),
    "failing rollbacks": Scenario()
    .with_environment("production", success_rate=0.5)
    .with_rollback(duration_min=(60, 3000), success_rate=0.5),
}


def months(scenario, runs=60, seed=1, window=MONTH):
    return forecast_months({"": scenario}, window, runs, seed)[""]


def silent(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments)


def measured(scenario, seed=7, end="2026-01-31"):
    """Return a pipeline that has been measured."""
    run = GitOpsAutomation(scenario, seed=seed, end=end)
    for step in (
        run.simulate_git_activity,
        run.simulate_deployments,
        run.simulate_rollbacks,
        run.calculate_dora_metrics,
    ):
        silent(step)
    return run


# ---- One engine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOME)
def test_the_months_are_those_of_the_plain_model(name):
    """The plain model gets the same commits and the same noise: every number must be the same."""
    scenario, runs, noise = SOME[name], 4, Noise(5, 1)
    drawn = gitops.simulate_commits(scenario.team, MONTH, noise.stream("commits"), runs)
    commits = list(zip(drawn.group.tolist(), drawn.application.tolist(), drawn.time.tolist()))
    deployments, _ = plain_pipeline(commits, scenario, MONTH.seconds[1], noise)
    rollbacks = plain_rollbacks(deployments, scenario.rollback, noise, len(commits))
    found = forecast_months({"": scenario}, MONTH, runs, 5, noise_of=lambda *_: noise)[""]
    for run in range(runs):
        first = next(number for number, commit in enumerate(commits) if commit[0] == run)
        own_commits = [commit for commit in commits if commit[0] == run]
        own = [
            {**row, "commit": row["commit"] - first}
            for row in deployments
            if row["place"][0] == run
        ]
        back = [{**row, "from": row["from"] - first} for row in rollbacks if row["place"][0] == run]
        production = len(scenario.environments) - 1
        expected = plain_numbers(own_commits, own, back, MONTH, production)
        assert {key: found[key][run] for key in FORECAST_METRICS} == pytest.approx(
            expected, rel=1e-9, nan_ok=True
        )


@pytest.mark.parametrize("name", SOME)
def test_a_forecast_of_one_month_is_the_month_of_a_report(name):
    """A report and a forecast go through one engine: with the same noise they say the same."""
    noise = Noise(3)
    found = forecast_months({"": SOME[name]}, MONTH, 1, 3, noise_of=lambda *_: noise)[""]
    metrics = calculate_dora_metrics(simulated(SOME[name], 3)[0])
    for key in set(FORECAST_METRICS) & set(METRICS):
        assert found[key].item() == pytest.approx(metrics[key], rel=1e-9, nan_ok=True), key


def test_the_table_has_a_row_for_each_month_with_each_metric():
    table = what_if({"a": Scenario(), "b": EACH}, WEEK, 40, 3)
    assert list(table.columns) == ["scenario", "run", "metric", "value"]
    assert set(table["metric"]) == set(FORECAST_METRICS)
    counts = table.groupby(["scenario", "metric"])["run"].agg(["count", "nunique", "min", "max"])
    assert (counts == [40, 40, 0, 39]).all(axis=None)


def test_no_month_comes_twice_however_they_are_cut_into_blocks(monkeypatch):
    monkeypatch.setattr(gitops, "BLOCK", 7)
    found = months(Scenario(), 40, window=WEEK)
    assert len(found["mean_lead_time"]) == 40
    assert len(set(found["mean_lead_time"].tolist())) == 40


def test_a_busy_team_is_simulated_a_few_months_at_once(monkeypatch):
    """So memory is bounded. 20,000 commits a day are 140,000 in a week of working days."""
    blocks, simulate = [], gitops.simulate_commits

    def counted(team, window, stream, runs=1):
        blocks.append(runs)
        return simulate(team, window, stream, 1)

    monkeypatch.setattr(gitops, "simulate_commits", counted)
    monkeypatch.setattr(gitops, "BLOCK", 100)
    months(Scenario().with_team(commits_per_day=20_000), 30, window=WEEK)
    assert sum(blocks) == 30
    assert max(blocks) * 140_000 < 3e6


def test_a_state_of_failure_lasts_no_longer_than_the_month():
    broken = Scenario().with_team(applications={"shop": 1})
    broken = broken.with_environment("production", success_rate=0.1)
    found = months(broken.with_rollback(success_rate=0), 20)
    assert 360 < found["failed_hours"].max() <= 720


def test_every_forecast_metric_that_a_report_has_goes_by_its_name():
    assert set(FORECAST_METRICS) - {"waiting_hours", "failed_hours"} <= set(METRICS)


def test_months_without_a_commit_are_never_elite():
    found = months(Scenario().with_team(commits_per_day=0), 5)
    assert np.isnan(found["mean_lead_time"]).all()
    assert np.isnan(found["change_failure_rate"]).all()
    assert not any(is_elite(key, found).any() for key in BENCHMARKS)
    assert level_counts(found)[LEVELS[-1].name] == 5


def test_each_month_counts_for_the_level_that_it_reaches():
    found = months(SOME["gate"].with_team(commits_per_day=0.7), 50, window=WEEK)
    each = [{key: float(values[run]) for key, values in found.items()} for run in range(50)]
    levels = [calculate_maturity(month) for month in each]
    expected = {level.name: levels.count(f"{level.icon} {level.name}") for level in LEVELS}
    assert level_counts(found) == expected
    assert len(set(levels)) > 1


# ---- Pairs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOME)
def test_identical_scenarios_differ_by_exactly_zero(name):
    same = Scenario.from_json(SOME[name].to_json())
    table = what_if({"a": SOME[name], "b": same}, WEEK, 5, 2**63 - 1)
    a, b = (table[table["scenario"] == which]["value"].to_numpy() for which in "ab")
    assert np.array_equal(a, b, equal_nan=True)


def test_a_scenario_has_the_same_months_whatever_it_is_compared_with():
    alone = what_if({"a": Scenario()}, WEEK, 9, 1)
    others = {"x": PRESETS["traditional"], "a": Scenario(), "y": SOME["gate"]}
    among = what_if(others, WEEK, 9, 1)
    among = among[among["scenario"] == "a"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, among)


def test_the_paired_difference_is_sharper_than_that_of_independent_months():
    other = Scenario().with_environment("production", wait_hours=(20, 60))
    key, runs = "mean_lead_time", 300
    pair = forecast_months({"a": Scenario(), "b": other}, MONTH, runs, 1)
    mean, low, high = paired_difference(pair["b"][key], pair["a"][key])
    apart = months(other, runs, 2)[key] - months(Scenario(), runs, 3)[key]
    error = apart.std() / math.sqrt(runs)
    assert abs(mean - apart.mean()) < 4 * error
    assert low < mean < high < 0
    assert (high - low) < 0.7 * 2 * 1.96 * error


@pytest.mark.slow
def test_the_paired_interval_covers_the_true_difference():
    """95 of 100 intervals from 40 months hold the mean difference of many; 86 is 4 errors off."""
    other = Scenario().with_environment("production", wait_hours=(4, 72))
    key = "mean_lead_time"
    pair = forecast_months({"a": Scenario(), "b": other}, MONTH, 6000, 11)
    difference = pair["b"][key] - pair["a"][key]
    truth = difference[:2000].mean()
    parts = difference[2000:].reshape(100, 40)
    intervals = [paired_difference(part, np.zeros(40)) for part in parts]
    assert 86 <= sum(low <= truth <= high for _, low, high in intervals) <= 100


def test_the_range_of_months_covers_other_months():
    """9 of 10 new months lie between the 5 % and the 95 % of the printed range."""
    seen, new = months(Scenario(), 1000, 1), months(Scenario(), 1000, 2)
    for key in BENCHMARKS:
        _, low, high = gitops.month_spread(seen[key])
        assert 0.86 < ((new[key] >= low) & (new[key] <= high)).mean() < 0.94, key


def test_the_interval_of_a_difference_is_the_normal_one():
    """By hand: 15 differences of 1 and 15 of 3. Mean 2, variance 30/29, standard error 29**-0.5."""
    values = np.array([1.0, 3.0] * 15)
    half = 1.959964 / math.sqrt(29)
    assert paired_difference(values, np.zeros(30)) == pytest.approx((2, 2 - half, 2 + half))


def test_a_difference_needs_thirty_months_that_have_it():
    values = np.arange(60.0)
    values[::2] = math.nan
    assert paired_difference(values + 2, values) == (2, 2, 2)
    values[1] = math.nan
    assert all(map(math.isnan, paired_difference(values + 2, values)))


@settings(max_examples=10)
@given(
    st.sampled_from(["staging", "production"]),
    st.floats(0, 1),
    st.integers(0, 2**32),
    st.sampled_from([WEEK, Window.before(END, 3)]),
)
def test_a_shorter_wait_never_lengthens_the_way_of_a_commit_under_each(name, factor, seed, window):
    """And so never ships fewer releases. A mean can rise, as slower ones then come in time."""
    shorter = parse_change(f"{name}.wait_hours=*{factor}", EACH)
    noise = Noise(seed)
    commits = gitops.simulate_commits(EACH.team, window, noise.stream("commits"), 3)
    before, after = (
        gitops.run_pipeline(commits, scenario, window, noise)[1][-1] for scenario in (EACH, shorter)
    )
    assert (after.start[before.good] <= before.start[before.good]).all()
    assert after.good[before.good].all()


@pytest.mark.parametrize(
    ("change", "metric", "sign"),
    [
        ("production.success_rate=1", "change_failure_rate", -1),
        ("rollback.duration_min=*0.5", "mttr_minutes", -1),
        ("production.wait_hours=*0.5", "waiting_hours", -1),
        ("production.success_rate=1", "failed_hours", -1),
        ("team.commits_per_day=*2", "deployment_frequency", 1),
    ],
)
def test_a_change_moves_its_metric_the_way_it_must(change, metric, sign):
    pair = forecast_months({"a": EACH, "b": parse_change(change, EACH)}, MONTH, 60, 1)
    mean, low, high = paired_difference(pair["b"][metric], pair["a"][metric])
    assert low * sign > 0 or high * sign > 0
    assert mean * sign > 0


# ---- Soak and trains ----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 4])
def test_soak_ships_as_often_as_its_closed_form_says(rate):
    """Commits come at random times around the clock, `rate` a day.

    A release stays the newest for 24 h with probability exp(-rate), so `rate` * exp(-rate) a day
    ship.
    """
    scenario = Scenario(
        environments=(Environment("live", 1, (24, 24), (0, 0), "soak"),),
        rollback=gitops.RollbackPolicy(),
    ).with_team(
        applications={"shop": 1},
        commits_per_day=rate,
        weekday_factors=(1,) * 7,
        dispersion=1,
        sprint_ramp=0,
        work_hours=(0, 24),
    )
    found = months(scenario, 300, window=Window.before(END, 61))["total_deployments"]
    expected = (
        60 * rate * math.exp(-rate)
    )  # what is committed on the last day would ship after the end
    assert found.mean() == pytest.approx(expected, abs=5 * found.std() / math.sqrt(300))


def test_trains_leave_at_their_hours():
    """The nightly one at midnight, the weekly one at midnight before a Monday."""
    history, _ = simulated(PRESETS["traditional"], 1)
    starts = history.deployments.set_index("environment")["timestamp"]
    for name in ("dev", "production"):
        assert set(starts[name].dt.strftime("%H:%M:%S")) == {"00:00:00"}
    assert {time.weekday() for time in starts["production"]} == {0}


# ---- Names and changes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "production.wait_hours=4:12",
            Scenario().with_environment("production", wait_hours=(4, 12)),
        ),
        (
            "production.wait_hours=*0.5",
            Scenario().with_environment("production", wait_hours=(12, 36)),
        ),
        ("team.commits_per_day=16", Scenario().with_team(commits_per_day=16)),
        ("team.commits_per_day=*2", Scenario().with_team(commits_per_day=16)),
        ("team.sprint_days=7", Scenario().with_team(sprint_days=7)),
        ("rollback.success_rate=1", Scenario().with_rollback(success_rate=1)),
        ("staging.promotion=soak", Scenario().with_environment("staging", promotion="soak")),
        (
            "rollback.success_rate=1, dev.approval_rate=0.5",
            Scenario().with_rollback(success_rate=1).with_environment("dev", approval_rate=0.5),
        ),
    ],
)
def test_a_change_is_what_the_knob_would_be_set_to(text, expected):
    assert parse_change(text, Scenario()) == expected
    assert named_scenario(text, Scenario()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "production.wait=3",
        "moon.wait_hours=3",
        "wait_hours=3",
        "team.authors=3",
        "production.name=live",
        "=3",
        "production.wait_hours=",
        "production.wait_hours=a:b",
        "team.applications=shop:1",
        "production.wait_hours=9:3",
        "production.wait_hours=*-1",
        "production.wait_hours=*nan",
        "production.success_rate=1.5",
        "production.success_rate=x",
        "production.promotion=often",
        "team.sprint_days=2.5",
        "team.weekday_factors=1:1",
        "team.commits_per_day=1e400",
        "production.wait_hours=1:2,production.wait",
        "\x1b[31m=1",
        "nothing-of-the-sort",
        "",
        ".",
    ],
)
def test_a_change_that_cannot_be_is_one_clear_line(text):
    with pytest.raises(GitOpsError) as caught:
        named_scenario(text, Scenario())
    assert str(caught.value).isprintable()


def test_one_number_is_a_fixed_wait():
    scenario = parse_change("production.wait_hours=3", Scenario())
    assert scenario.environments[-1].wait_hours == (3, 3)


def test_a_file_changes_the_baseline_where_it_says_something(tmp_path):
    canary = Environment("canary", 0.9, (1, 2))
    baseline = Scenario(environments=(*Scenario().environments[:2], canary))
    baseline = baseline.with_team(commits_per_day=3)
    file = tmp_path / "change.json"
    file.write_text('{"environments": [{"name": "dev"}, {"name": "canary", "success_rate": 0.5}]}')
    found = named_scenario(str(file), baseline)
    assert found.team == baseline.team
    assert found.environments[0] == baseline.environments[0]
    assert found.environments[1] == Environment("canary", 0.5, (1, 2))


def test_a_knob_that_is_nearly_right_is_told_the_one_it_is_like():
    with pytest.raises(GitOpsError, match="did you mean production.wait_hours"):
        parse_change("production.wait=3", Scenario())


def test_an_unknown_knob_is_told_the_knobs_there_are():
    with pytest.raises(GitOpsError) as caught:
        parse_change("production.wait=3", Scenario())
    for knob in (
        "team.commits_per_day",
        "rollback.success_rate",
        "dev.promotion",
        "production.wait_hours",
    ):
        assert knob in str(caught.value)


ODD = Scenario(
    environments=(
        Environment("team", 0.7),
        Environment("a{b}", 0.8, (20, 40)),
        Environment("rollback", 0.8),
    )
)


def test_an_environment_that_is_called_as_another_part_can_be_changed_too():
    changed = parse_change(
        "environments.team.success_rate=0.9,rollback.success_rate=1,a{b}.success_rate=0.6", ODD
    )
    assert [environment.success_rate for environment in changed.environments] == [0.9, 0.6, 0.8]
    assert changed.rollback.success_rate == 1
    assert changed.team == ODD.team


def test_recommendations_are_tried_whatever_the_environments_are_called(capsys):
    measured(ODD, seed=3).generate_report()
    advice = capsys.readouterr().out.partition("Recommendations:")[2]
    assert "the a{b} wait" in advice
    assert "the team success rate" in advice or "the a{b} success rate" in advice


def test_an_unknown_preset_is_told_the_presets_there_are():
    with pytest.raises(GitOpsError, match="gitops, traditional, elite"):
        named_scenario("agile", Scenario())


def test_a_preset_has_the_team_of_the_baseline():
    baseline = Scenario().with_team(commits_per_day=3)
    named = named_scenario("traditional", baseline)
    assert named.team == baseline.team
    assert named.environments == PRESETS["traditional"].environments


def test_a_file_has_a_team_of_its_own(tmp_path):
    path = tmp_path / "team.json"
    path.write_text(EACH.to_json())
    assert named_scenario(str(path), Scenario().with_team(commits_per_day=3)) == EACH


def test_the_presets_keep_what_they_promise():
    """Elite reaches its level in nearly every month, traditional is the slowest in everything."""
    assert PRESETS["gitops"] == Scenario()
    found = forecast_months(PRESETS, MONTH, 100, 5)
    assert level_counts(found["elite"])["ELITE PERFORMER"] >= 95
    assert np.median(found["traditional"]["mean_lead_time"]) > np.median(
        found["gitops"]["mean_lead_time"]
    )
    assert np.median(found["traditional"]["mttr_minutes"]) > 60
    assert np.median(found["traditional"]["production_deployment_frequency"]) < 1


# ---- Tried recommendations ----------------------------------------------------------------------

POOR = (
    Scenario()
    .with_environment("dev", success_rate=0.7)
    .with_environment("staging", success_rate=0.8)
    .with_rollback(duration_min=(30, 200))
)
HARD = {
    "the default": Scenario(),
    "failures and slow rollbacks": POOR,
    "rare commits": Scenario().with_team(commits_per_day=0.5),
    "a gate": Scenario().with_environment("production", wait_hours=(2, 60), approval_rate=0.3),
    "a soak": Scenario().with_environment("production", wait_hours=(24, 24), promotion="soak"),
    "traditional": PRESETS["traditional"],
}


def missed_by(scenario, seed=1):
    history, _ = simulated(scenario, seed)
    metrics = calculate_dora_metrics(history)
    return metrics, [key for key in BENCHMARKS if not is_elite(key, metrics)]


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_a_recommendation_run_afresh_does_what_it_said(name):
    """It meets its target in about as many months of another seed."""
    metrics, missed = missed_by(HARD[name])
    for metric, advice in try_changes(HARD[name], missed, Trial.of(MONTH, 100, 1)).items():
        if advice is None:
            continue
        said = is_elite(metric, advice.months).mean()
        again = is_elite(metric, months(advice.scenario, 400, 99)).mean()
        assert said >= 0.9
        assert abs(again - said) < 4 * math.sqrt(0.9 * 0.1 / 100)
        before, after = (
            np.nanmedian(months(HARD[name], 100)[metric]),
            np.nanmedian(advice.months[metric]),
        )
        assert (
            after > before
            if BENCHMARKS[metric].better == ">"
            else after < before or math.isnan(before)
        )


def test_every_miss_of_a_scenario_that_can_be_helped_has_a_change():
    _, missed = missed_by(POOR)
    assert missed == ["mean_lead_time", "mttr_minutes", "change_failure_rate"]
    assert all(try_changes(POOR, missed, Trial.of(MONTH, 60, 1)).values())


def test_a_change_is_the_smallest_on_its_grid():
    trial = Trial.of(MONTH, 100, 1)
    advice = try_changes(Scenario(), ["mean_lead_time"], trial)["mean_lead_time"]
    wait = tuple(advice.factor * edge for edge in (24, 72))
    assert advice.scenario.environments[-1].wait_hours == pytest.approx(wait)
    smaller = tuple((advice.factor + 1 / gitops.STEPS) * edge for edge in (24, 72))
    found = trial.months(Scenario().with_environment("production", wait_hours=smaller))
    assert is_elite("mean_lead_time", found).mean() < 0.9


def test_two_changes_are_tried_where_one_is_not_enough():
    scenario = (
        Scenario()
        .with_environment("staging", wait_hours=(20, 40))
        .with_environment("production", wait_hours=(20, 40))
    )
    advice = try_changes(scenario, ["mean_lead_time"], Trial.of(MONTH, 50, 1))["mean_lead_time"]
    assert re.fullmatch(
        r"Cut the staging wait from \S+ to \S+ h and cut the production wait from .*", advice.words
    )


def test_months_without_a_value_are_no_reason_against_a_change():
    """A team that hardly fails has months without a rollback; the others tell how fast they are."""
    rare = Scenario().with_team(commits_per_day=0.5).with_rollback(duration_min=(90, 120))
    advice = try_changes(rare, ["mttr_minutes"], Trial.of(MONTH, 100, 2))["mttr_minutes"]
    values = advice.months["mttr_minutes"]
    assert np.isnan(values).sum() > 5
    assert (values[~np.isnan(values)] < 60).mean() >= 0.9
    assert "simulated months that have a value" in gitops.advice_line(
        "mttr_minutes", advice, months(rare)
    )


def test_fewer_than_ten_months_with_a_value_tell_nothing():
    hardly = Scenario().with_team(commits_per_day=0.02).with_rollback(duration_min=(90, 120))
    assert np.isfinite(months(hardly, 100, 2)["mttr_minutes"]).sum() < 10
    metrics = {**missed_by(Scenario())[0], "mttr_minutes": 100.0}
    lines = tried_recommendations(hardly, metrics, Trial.of(MONTH, 100, 2))
    assert re.fullmatch(
        r"  Nothing was tried: \d of 100 simulated months have a value; --runs N simulates more",
        lines[-1],
    )


def test_where_nothing_helps_nothing_is_recommended():
    rare = Scenario().with_team(commits_per_day=0.05)
    metrics, missed = missed_by(rare)
    assert "deployment_frequency" in missed
    assert try_changes(rare, ["deployment_frequency"], Trial.of(MONTH, 30, 1)) == {
        "deployment_frequency": None
    }
    lines = tried_recommendations(rare, metrics, Trial.of(MONTH, 30, 1))
    assert any("no change of one or two knobs" in line for line in lines)


def test_nothing_is_tried_for_what_could_not_be_measured():
    metrics = {**missed_by(Scenario())[0], "mean_lead_time": math.nan}
    lines = tried_recommendations(Scenario(), metrics, Trial.of(MONTH, 10, 1))
    assert lines == gitops.plain_recommendations(metrics)
    assert "could not be measured" in lines[0]


def test_a_month_of_bad_luck_is_no_reason_to_change_anything():
    metrics = {**missed_by(PRESETS["elite"])[0], "change_failure_rate": 15.5}
    lines = tried_recommendations(PRESETS["elite"], metrics, Trial.of(MONTH, 20, 1))
    assert lines[1:] == [
        "  Nothing to change: as things are, the target is met in 20 of 20 simulated months"
    ]


def test_a_busy_team_is_tried_on_fewer_months():
    assert gitops.enough_runs(Scenario(), MONTH) == 100
    assert gitops.enough_runs(Scenario().with_team(commits_per_day=500), MONTH) == 33
    assert gitops.enough_runs(Scenario().with_team(commits_per_day=1e6), MONTH) == 10


def test_the_report_prints_what_was_tried_with_its_odds(capsys):
    measured(Scenario()).generate_report()
    line = re.search(
        r"Cut the production wait from 24-72 to (\S+) h: "
        r"lead time (\S+) → (\S+)h \((\S+)-(\S+) in 9 of 10\), "
        r"target met in (\d+) of 100 simulated months, ELITE in (\d+)",
        capsys.readouterr().out,
    )
    before, after, low, high = map(float, line.group(2, 3, 4, 5))
    assert low <= after <= high < 24 < before
    assert int(line.group(6)) >= 90


def test_a_run_that_misses_nothing_gets_no_advice(capsys):
    measured(PRESETS["elite"], seed=1).generate_report()
    assert "None: all four targets are met" in capsys.readouterr().out


# ---- One's own pipeline -------------------------------------------------------------------------

FITTED = {
    "default": Scenario(),
    "each": EACH,
    "elite": PRESETS["elite"],
    "traditional": PRESETS["traditional"],
    "a train for each": PRESETS["traditional"]
    .with_environment("dev", promotion="each")
    .with_environment("production", promotion="each"),
    "a short train": Scenario().with_environment(
        "production", release_every_hours=6, wait_hours=(1, 3)
    ),
    "a soak": SOME["soak"],
    "a gate": SOME["gate"],
    "a sprint": Scenario().with_team(sprint_ramp=1, dispersion=6),
    "a crowd": Scenario().with_team(commits_per_day=30).with_environment("dev", success_rate=0.7),
    "other names": Scenario(
        environments=(Environment("qa", 0.8, (1, 5)), Environment("live", 0.9, (2, 30), (60, 900)))
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTED)
def test_the_fit_of_a_history_reproduces_it_within_its_own_months(name):
    """Each measured metric of a quarter lies in the central 99 % of the fitted quarters."""
    window = Window.before(END, 90)
    for seed in range(5):
        history, _ = simulated(FITTED[name], seed, window)
        metrics, found = (
            calculate_dora_metrics(history),
            months(fit_scenario(history)[0], 100, 50 + seed, window),
        )
        for key in (*BENCHMARKS, "production_deployment_frequency", "total_rollbacks"):
            mean, deviation = np.nanmean(found[key]), np.nanstd(found[key])
            assert abs(metrics[key] - mean) < 3.5 * deviation, (key, seed)


def test_the_fit_has_the_knobs_of_the_scenario_that_made_the_history():
    history, _ = simulated(Scenario(), 3, Window.before(END, 720))
    fitted = Scenario.from_history(history)
    assert [environment.name for environment in fitted.environments] == [
        "dev",
        "staging",
        "production",
    ]
    for got, made in zip(fitted.environments, Scenario().environments):
        assert got.success_rate == pytest.approx(made.success_rate, abs=0.03)
        assert got.promotion == made.promotion
        assert got.wait_hours[0] == pytest.approx(made.wait_hours[0], abs=0.5)
        middle = np.interp(0.5, np.linspace(0, 1, len(got.wait_hours)), got.wait_hours)
        assert middle == pytest.approx(np.mean(made.wait_hours), rel=0.12)
        assert got.duration_sec[0] == pytest.approx(made.duration_sec[0], abs=3)
        assert got.duration_sec[-1] == pytest.approx(made.duration_sec[-1], abs=3)
    team = fitted.team
    assert team.commits_per_day == pytest.approx(8, rel=0.15)
    assert team.weekday_factors[5] == pytest.approx(0.2, abs=0.06)
    assert team.work_hours[0] == pytest.approx(9, abs=0.1)
    assert sum(team.types.values()) == len(history.git_commits)
    assert fitted.rollback.success_rate == pytest.approx(0.95, abs=0.03)
    assert Scenario.from_json(fitted.to_json()) == fitted


def test_it_is_said_from_how_many_what_was_fitted():
    history, _ = simulated(Scenario(), 7)
    said = "\n".join(fit_scenario(history)[1])
    for number in (len(history.git_commits), len(history.rollbacks)):
        assert f"from {number} " in said
    for name in history.environments:
        assert (
            f"{name}: success from {(history.deployments['environment'] == name).sum()} deployments"
            in said
        )
    assert "sprint ramp not fitted" in said


def test_waits_that_were_cut_short_lengthen_the_curve_by_the_product_limit():
    """By hand: waits 1 and 3, one cut short at 2. After 1 of three, 2/3 are left; after 3, none."""
    waits, share = survival_range(np.array([1.0, 3.0]), np.array([2.0]), points=4)
    assert share == 1
    assert waits == pytest.approx((1, 1, 2, 3))  # at 2/3 half way from (1/3, 1) to (1, 3)
    assert survival_range(np.array([1.0, 2.0]), np.empty(0), points=3)[0] == pytest.approx(
        (1, 1, 2)
    )


@pytest.mark.slow
def test_waits_before_a_train_are_told_apart_from_the_waiting_for_it():
    """Releases wait 2 to 5 hours for a train every 6: only departures are seen, and not all."""
    draw = np.random.default_rng(4)
    ready, patience = draw.uniform(2, 5, 4000), draw.uniform(0, 30, 4000)
    arrival = draw.uniform(0, 24, 4000)
    seen = np.ceil((arrival + ready) / 6) * 6 - arrival
    gone = np.ceil((arrival + patience) / 6) * 6 - arrival  # overtaken by a release of that train
    found = gitops.boarding_range(seen[seen < gone], gone[seen >= gone], 6)
    assert np.allclose(np.percentile(found, [5, 50, 95]), [2.15, 3.5, 4.85], atol=0.4)


def test_departures_that_share_no_hour_are_no_train():
    history, _ = simulated(PRESETS["traditional"], 1, MONTH)
    assert [e.release_every_hours for e in Scenario.from_history(history).environments] == [
        24,
        0,
        168,
    ]
    history, _ = simulated(Scenario(), 1, MONTH)
    assert [e.release_every_hours for e in Scenario.from_history(history).environments] == [0, 0, 0]


@pytest.mark.parametrize(
    ("knobs", "policy", "share", "waits"),
    [
        ({}, "newest", (1, 1), (24, 48, 72)),
        (dict(promotion="each"), "each", (1, 1), (24, 48, 72)),
        (dict(promotion="soak", wait_hours=(6, 6)), "soak", (1, 1), (6, 6, 6)),
        (dict(promotion="soak", wait_hours=(4, 12)), "soak", (1, 1), (4, 8, 12)),
        (dict(approval_rate=0.3), "newest", (0.2, 0.4), (24, 48, 72)),
    ],
    ids=["newest", "each", "soak", "soak of 4 to 12", "gate"],
)
def test_a_fit_tells_how_production_is_promoted(knobs, policy, share, waits):
    history, _ = simulated(
        Scenario().with_environment("production", **knobs), 3, Window.before(END, 90)
    )
    found = Scenario.from_history(history).environments[-1]
    assert found.promotion == policy
    assert share[0] <= found.approval_rate <= share[1]
    seen = [found.wait_hours[place] for place in (0, len(found.wait_hours) // 2, -1)]
    assert seen == pytest.approx(waits, rel=0.12)


def test_commits_that_never_come_to_the_first_environment_are_none_of_its_arrivals():
    """Thirty commits in the folder of dev, ten in that of production."""
    history, _ = simulated(Scenario(environments=Scenario().environments[::2]), 1)
    commits, deployed = history.git_commits, history.deployments
    late = [*["dev"] * 30, *["production"] * 10]
    changes = table(
        "changes",
        *(
            (row["application"], name, row["sha"], row["timestamp"], row["timestamp"], False, None)
            for name, row in zip(late, commits[:40].to_dict("records"))
        ),
    )
    own = deployed[
        deployed["commit_sha"].isin(list(commits["sha"][:25]))
        | (deployed["environment"] == "production")
    ]
    notes = fit_scenario(history._replace(changes=changes, deployments=own))[1]
    assert "from 30 commits" in notes[0]


def test_a_share_that_never_came_is_held_back():
    waits, share = survival_range(np.array([1.0, 2.0]), np.array([9.0, 9.0]), points=5)
    assert share == 0.5
    assert waits == pytest.approx((1, 1, 1, 1.5, 2))


def test_an_environment_without_failures_that_could_be_seen_keeps_the_rate_of_its_base():
    history, _ = simulated(Scenario(), 1)
    rows = history.deployments.assign(health=history.deployments["health"].astype(object))
    rows.loc[rows["environment"] != "dev", ["health", "failure_reason"]] = ["Unknown", None]
    history = history._replace(deployments=gitops.as_table("deployments", rows), source="argocd")
    fitted, said = fit_scenario(history)
    dev = history.deployments[history.deployments["environment"] == "dev"]
    assert fitted.environments[0].success_rate == pytest.approx((dev["health"] == "Healthy").mean())
    assert [e.success_rate for e in fitted.environments[1:]] == [0.93, 0.95]
    assert "\n".join(said).count("success not observable") == 2


def test_a_history_of_nothing_known_cannot_be_fitted():
    history, _ = simulated(Scenario(), 1)
    unknown = history.deployments.iloc[:0]
    with pytest.raises(GitOpsError, match="nothing to fit"):
        fit_scenario(history._replace(deployments=unknown))


def test_no_commit_in_the_window_is_a_team_that_commits_nothing():
    history, _ = simulated(Scenario(), 1)
    team, said = gitops.fit_team(history.git_commits.iloc[:0], MONTH)
    assert team.commits_per_day == 0
    assert "no commits in the window" in said[0]


def folders_of_their_own(seed=5):
    """Return an Argo CD history whose production has commits of its own.

    They are half as many as those of dev, and live 6 to 12 hours later.
    """

    def at(seconds):
        return pd.Timestamp(seconds, unit="s", tz="UTC")

    rng = np.random.Generator(np.random.PCG64(seed))
    start = int(MONTH.start.timestamp())
    made = np.sort(rng.integers(0, 30 * 86400 - 60000, 150)) + start
    changes, deployments = [], []
    for number, second in enumerate(made.tolist()):
        production = number % 3 == 2
        name = "production" if production else "dev"
        wait = int(rng.integers(6 * 3600, 12 * 3600)) if production else 120
        sha = f"{number:040x}"
        changes.append(("shop", name, sha, *map(at, (second, second + wait + 30)), False, None))
        health = "Degraded" if rng.random() < 0.1 else "Healthy"
        reason = "Rolled back" if health == "Degraded" else None
        deployments.append((at(second + wait), "shop", name, sha, "Synced", health, 30, reason))
    commits = [
        (f"{number:040x}", at(second), "x", "x", "shop", "x", "x", 1)
        for number, second in enumerate(made.tolist())
    ]
    return gitops.History(
        table("git_commits", *commits),
        table("deployments", *sorted(deployments)),
        table("rollbacks"),
        MONTH,
        ("dev", "production"),
        source="argocd",
        changes=table("changes", *changes),
    )


def test_an_environment_with_commits_of_its_own_keeps_their_lead_time():
    """So does it keep their share of all commits."""
    history = folders_of_their_own()
    fitted, said = fit_scenario(history)
    production = fitted.environments[-1]
    assert production.approval_rate == pytest.approx(50 / 90, abs=0.03)
    assert 5.9 < production.wait_hours[0] < production.wait_hours[-1] < 12.2
    assert "its releases are not those of dev" in "\n".join(said)


def test_without_a_repository_the_rhythm_is_that_of_the_first_environment():
    history, _ = simulated(EACH, 2)
    fitted, said = fit_scenario(history._replace(git_commits=history.git_commits.iloc[:0]))
    assert "no commits are known" in said[0]
    found, metrics = months(fitted, 100), calculate_dora_metrics(history)
    for key in ("deployment_frequency", "production_deployment_frequency", "change_failure_rate"):
        assert abs(metrics[key] - found[key].mean()) < 3.5 * found[key].std(), key


# ---- The class and the command line -------------------------------------------------------------

FAST = ["--seed", "7", "--end", "2026-01-31", "--runs", "30"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_class_gives_a_tidy_table_that_begins_with_the_baseline():
    run = GitOpsAutomation(seed=7, end="2026-01-31")
    table = run.what_if({"fast": PRESETS["elite"]}, runs=10, days=14)
    assert list(dict.fromkeys(table["scenario"])) == ["baseline", "fast"]
    again = GitOpsAutomation(seed=7, end="2026-01-31").what_if(
        {"fast": PRESETS["elite"]}, runs=10, days=14
    )
    pd.testing.assert_frame_equal(table, again)
    assert set(run.metrics or {}) == set()  # nothing was simulated into the object


@pytest.mark.parametrize(
    ("runs", "days"), [(0, 30), (1, 30), (10**9, 30), (2.5, 30), (10, 0), (10, -1), ("10", 30)]
)
def test_a_number_of_months_that_cannot_be_is_refused(runs, days):
    with pytest.raises(GitOpsError):
        GitOpsAutomation(seed=7).what_if({}, runs=runs, days=days)


def test_the_command_draws_the_comparison_that_it_prints(capsys, tmp_path):
    changes = ["--what-if", "production.wait_hours=4:12", "--what-if", "traditional"]
    status, out, err = called(capsys, *FAST, *changes, "--cost-per-hour", 100, "--dpi", 20)
    assert (status, err) == (0, "")
    assert "30 simulated months of 30 days" in out
    for name in ("baseline", "traditional", "production.wait_hours=4:12"):
        assert len(re.findall(rf"^  {re.escape(name)} ", out, re.M)) >= len(BENCHMARKS) + 1
    for metric in BENCHMARKS:
        assert METRICS[metric].label in out
    assert "baseline instead of traditional saves" in out
    assert "production.wait_hours=4:12 instead of baseline saves" in out
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["gitops_what_if.png"]


def test_the_printed_cost_is_the_hours_times_the_price(capsys):
    main([*FAST, "--what-if", "traditional", "--cost-per-hour", "100", "--no-dashboard"])
    rows = re.findall(
        r"^  (baseline|traditional) +([\d.,]+) +([\d.,]+) +([\d.,]+)$",
        capsys.readouterr().out,
        re.M,
    )
    assert len(rows) == 2
    for _, failed, waiting, cost in rows:
        failed, waiting, cost = (float(text.replace(",", "")) for text in (failed, waiting, cost))
        assert cost == pytest.approx(100 * (failed + waiting), abs=11)


def test_the_json_has_all_that_is_compared(capsys):
    main([*FAST, "--what-if", "elite", "--json", "--no-dashboard"])
    document = json.loads(capsys.readouterr().out)
    assert (document["seed"], document["runs"], document["days"]) == (7, 30, 30)
    table = GitOpsAutomation(seed=7, end="2026-01-31").what_if({"elite": PRESETS["elite"]}, 30, 30)
    values = table[(table["scenario"] == "elite") & (table["metric"] == "mean_lead_time")]["value"]
    base = table[(table["scenario"] == "baseline") & (table["metric"] == "mean_lead_time")]["value"]
    lead = document["what_if"]["elite"]["metrics"]["mean_lead_time"]
    assert lead["median"] == pytest.approx(values.median())
    assert lead["difference"]["mean"] == pytest.approx((values.to_numpy() - base.to_numpy()).mean())
    assert sum(document["what_if"]["baseline"]["levels"].values()) == 30


def test_the_exported_table_is_the_one_of_the_class(tmp_path):
    silent(main, [*FAST, "--what-if", "elite", "--export", "--no-dashboard"])
    read = pd.read_csv(tmp_path / "output" / "what_if.csv")
    table = GitOpsAutomation(seed=7, end="2026-01-31").what_if({"elite": PRESETS["elite"]}, 30, 30)
    assert read["value"].to_numpy() == pytest.approx(table["value"].to_numpy(), nan_ok=True)
    assert read["metric"].tolist() == table["metric"].tolist()


@pytest.mark.parametrize(
    "flags",
    [
        ["--what-if", "agile"],
        ["--what-if", "production.wait=3"],
        ["--what-if", "production.wait_hours=3:1"],
        ["--what-if", "elite", "--runs", "1"],
        ["--what-if", "elite", "--runs", "many"],
        ["--what-if", "elite", "--cost-per-hour", "much"],
        ["--what-if", "elite", "--cost-per-hour", "nan"],
        ["--what-if", "elite", "--alert-webhook", "http://localhost:1"],
        ["--cost-per-hour", "100"],
        ["--what-if"],
    ],
)
def test_a_what_if_that_cannot_be_is_one_line(flags, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(flags)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert not (tmp_path / "output").exists()


def test_more_months_sharpen_the_recommendations(capsys):
    main(["--seed", "7", "--end", "2026-01-31", "--no-dashboard", "--runs", "30"])
    assert re.search(r"target met in \d+ of 30 simulated months", capsys.readouterr().out)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_alone(monkeypatch, terminal):
    """At the end its line is wiped away."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(gitops.sys, "stderr", stream)
    monkeypatch.setattr(gitops, "monotonic", iter(range(0, 10**6, 3)).__next__)
    with gitops.terminal_progress() as progress:
        forecast_months({"": Scenario()}, WEEK, 20, 1, progress)
    assert ("20 of 20 months" in stream.getvalue()) == terminal
    assert stream.getvalue().endswith("\r\x1b[K\r") == terminal


def test_short_work_shows_no_progress(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(gitops.sys, "stderr", stream)
    with gitops.terminal_progress() as progress:
        progress("1 of 2 months simulated")
    assert "months" not in stream.getvalue()


def test_a_repository_lends_its_team_to_the_baseline(capsys, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    for number in range(5):
        command = ["git", *identity, "commit", "-q", "--allow-empty", "-m", f"feat: {number}"]
        subprocess.run(command, cwd=folder, check=True)
    main(
        [
            "--repo",
            str(folder),
            "--seed",
            "1",
            "--runs",
            "5",
            "--what-if",
            "elite",
            "--no-dashboard",
        ]
    )
    out = capsys.readouterr().out
    assert "from 5 commits" in out
    assert "Fitting the baseline" in out


# ---- The picture --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_picture_has_a_card_for_each_benchmark():
    names = {
        "baseline": Scenario(),
        "production.wait_hours=4:12,rollback.success_rate=1": EACH,
        "$x_$": EACH,
    }
    table = what_if(names, MONTH, 20, 1)
    figure = gitops.draw_what_if(table)
    assert [ax.get_title() for ax in figure.axes] == [METRICS[key].label for key in BENCHMARKS]
    renderer = gitops.FigureCanvasAgg(figure).get_renderer()
    for ax, card in zip(figure.axes, figure.patches):
        taken, room = ax.get_tightbbox(renderer), card.get_window_extent(renderer).padded(1)
        assert (
            room.x0 <= taken.x0
            and taken.x1 <= room.x1
            and room.y0 <= taken.y0
            and taken.y1 <= room.y1
        )
    for ax, key in zip(figure.axes, BENCHMARKS):
        diamonds = [line for line in ax.get_lines() if line.get_marker() == "D"]
        medians = [np.nanmedian(gitops.months_of(table, name)[key]) for name in names]
        assert [line.get_xdata()[0] for line in diamonds] == pytest.approx(medians)
        assert [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == "--"] == [
            BENCHMARKS[key].limit
        ]


def test_months_without_a_value_leave_their_row_empty():
    empty = Scenario().with_team(commits_per_day=0)
    figure = gitops.draw_what_if(what_if({"baseline": empty}, WEEK, 5, 1), 50)
    assert len(gitops.render_png(figure)) > 1000


def test_the_scenarios_of_a_table_are_unchanged_by_it():
    scenario = Scenario()
    before = dataclasses.asdict(scenario)
    what_if({"a": scenario}, WEEK, 3, 1)
    try_changes(scenario, ["mean_lead_time"], Trial.of(WEEK, 5, 1))
    assert dataclasses.asdict(scenario) == before


@pytest.mark.parametrize(
    "scenarios", [{"x": "elite"}, {"x": None}, ["elite"], {"baseline": Scenario()}]
)
def test_what_is_no_scenario_is_refused_in_python_too(scenarios):
    with pytest.raises(GitOpsError):
        GitOpsAutomation(seed=1).what_if(scenarios, runs=2)


def test_long_names_of_scenarios_stay_apart_in_the_table():
    names = ["baseline", "production.release_every_hours=126", "production.release_every_hours=84"]
    table = what_if(dict.fromkeys(names, Scenario()), WEEK, 3, 1)
    text = gitops.format_what_if(table, 1, 7)
    assert text.count("hours=126") == text.count("hours=84") == 5


def test_the_knobs_are_listed_to_the_last(capsys):
    said = called(capsys, "--what-if", "a=b")[2]
    assert all(path in said for path in gitops.knob_paths(Scenario()))
    assert said.count("\n") == 1
