"""What-if: forecasts, paired differences, changes, costs, the picture."""

import contextlib
import dataclasses
import html
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from conftest import called, git
from plain_model import EACH, MONTH, WEEK, plain_pipeline, plain_rollbacks, simulated
from plain_months import forecast, forecast_months, known, months, plain_numbers

import gitops_automation as gitops

pytestmark = pytest.mark.usefixtures("in_a_folder")

SOME = {
    "default": gitops.Scenario(),
    "each": EACH,
    "each by trains": EACH.with_environment("production", release_every_hours=24),
    "soak": gitops.Scenario().with_environment("production", promotion="soak"),
    "gate": gitops.Scenario().with_environment("production", approval_rate=0.6),
    "train": gitops.PRESETS["traditional"],
    "commits of its own": gitops.Scenario().with_environment(
        "production", starts="commit", approval_rate=0.5
    ),
    "one stage": gitops.Scenario(environments=gitops.Scenario().environments[-1:]),
    "failing rollbacks": gitops.Scenario()
    .with_environment("production", success_rate=0.5)
    .with_rollback(duration_min=(60, 3000), success_rate=0.5),
}


# ---- One engine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOME)
def test_the_months_are_those_of_the_plain_model(name, monkeypatch):
    """The plain model gets the same commits and the same noise: every number must be the same."""
    scenario, runs, noise = SOME[name], 4, gitops.Noise(5, 1)
    drawn = gitops.simulate_commits([(scenario, runs)], MONTH, noise.stream("commits"))
    commits = list(zip(drawn.group.tolist(), drawn.application.tolist(), drawn.time.tolist()))
    deployments, _ = plain_pipeline(commits, scenario, MONTH.seconds[1], noise)
    rollbacks = plain_rollbacks(deployments, scenario.rollback, noise, len(commits))
    monkeypatch.setattr(gitops, "Noise", lambda *_: noise)
    found = forecast_months({"": scenario}, MONTH, runs, 5)[""]
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
        assert {key: found[key][run] for key in gitops.FORECAST_METRICS} == pytest.approx(
            expected, rel=1e-9, nan_ok=True
        )


@pytest.mark.parametrize("name", SOME)
def test_a_forecast_of_one_month_is_the_month_of_a_report(name, monkeypatch):
    """A report and a forecast go through one engine: with the same noise they say the same."""
    measured = gitops.measure(simulated(SOME[name], 3)[0])
    monkeypatch.setattr(gitops, "Noise", lambda *_, noise=gitops.Noise(3): noise)
    found = forecast_months({"": SOME[name]}, MONTH, 1, 3)[""]
    expected = {key: measured.values[key] for key in gitops.SCOPES[gitops.ALL_ENVIRONMENTS]}
    expected["production_median_lead_time"] = measured.production_rows[gitops.LEAD].value
    for key, value in expected.items():
        assert found[key].item() == pytest.approx(value, rel=1e-9, nan_ok=True), key


def test_the_table_has_a_row_for_each_month_with_each_metric():
    table = forecast({"a": gitops.Scenario(), "b": EACH}, WEEK, 40, 3).table
    assert list(table.columns) == ["scenario", "run", "metric", "value"]
    assert set(table["metric"]) == set(gitops.FORECAST_METRICS)
    counts = table.groupby(["scenario", "metric"])["run"].agg(["count", "nunique", "min", "max"])
    assert (counts == [40, 40, 0, 39]).all(axis=None)


NONE = gitops.NOT_ASSESSABLE


def test_months_without_a_commit_have_no_level():
    found = months(gitops.Scenario().with_team(commits_per_day=0), 5)
    assert np.isnan(found["mean_lead_time"]).all()
    assert gitops.level_counts(found, known({"": gitops.Scenario()})) == {
        **dict.fromkeys((one.name for one in gitops.LEVELS), 0),
        NONE: 5,
    }


@pytest.mark.parametrize("scope", [gitops.ALL_ENVIRONMENTS, gitops.PRODUCTION_ALONE])
def test_each_month_counts_for_the_level_that_it_reaches(scope):
    """By the four of its scope: those of a real team are those of production."""
    calibration = gitops.Calibration(SOME["gate"].with_team(commits_per_day=0.7), scope=scope)
    found = gitops.forecast_months({"": calibration.scenario}, calibration, WEEK, 50, 1)[""]
    each = [
        {**{key: float(values[run]) for key, values in found.items()}, "scope": scope}
        for run in range(50)
    ]
    levels = [gitops.calculate_maturity(month) for month in each]
    expected = {level.name: levels.count(f"{level.icon} {level.name}") for level in gitops.LEVELS}
    none = levels.count(f"⚪ {NONE}")
    assert gitops.level_counts(found, calibration) == {**expected, **({NONE: none} if none else {})}
    assert len(set(levels)) > 1
    rate = found["deployment_frequency"] - found["production_deployment_frequency"]
    assert (rate == 0).all() == (scope == gitops.PRODUCTION_ALONE)


def test_a_month_begins_as_full_as_it_ends():
    """A wait of twenty days: a month that began empty would have a third of the deployments."""
    slow = EACH.with_environment("production", wait_hours=(480, 480))
    calibration = gitops.Calibration(slow)
    full = gitops.forecast_months({"": slow}, calibration, MONTH, 40, 1)[""]
    per_day = full["production_deployment_frequency"].mean()
    assert months(slow, 40)["production_deployment_frequency"].mean() < 0.6 * per_day


# ---- Pairs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOME)
def test_identical_scenarios_differ_by_exactly_zero(name):
    same = gitops.Scenario.from_json(SOME[name].to_json())
    table = forecast({"a": SOME[name], "b": same}, WEEK, 5, 2**63 - 1).table
    a, b = (table[table["scenario"] == which]["value"].to_numpy() for which in "ab")
    assert np.array_equal(a, b, equal_nan=True)


def test_a_scenario_has_the_same_months_whatever_it_is_compared_with():
    alone = forecast({"a": gitops.Scenario()}, WEEK, 9, 1).table
    others = {"x": gitops.PRESETS["traditional"], "a": gitops.Scenario(), "y": SOME["gate"]}
    among = forecast(others, WEEK, 9, 1).table
    among = among[among["scenario"] == "a"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, among)


def test_a_difference_needs_thirty_months_that_have_it():
    values = np.arange(60.0)
    values[::2] = math.nan
    assert gitops.paired_difference(values + 2, values) == (2, 2, 2)
    values[1] = math.nan
    assert all(map(math.isnan, gitops.paired_difference(values + 2, values)))


@pytest.mark.parametrize(
    ("change", "metric", "sign"),
    [
        ("production.success_rate=1", "change_failure_rate", -1),
        ("rollback.duration_min=*0.5", "mttr_minutes", -1),
        ("team.commits_per_day=*2", "deployment_frequency", 1),
    ],
)
def test_a_change_moves_its_metric_the_way_it_must(change, metric, sign):
    pair = forecast_months({"a": EACH, "b": gitops.parse_change(change, EACH)}, MONTH, 60, 1)
    mean, low, high = gitops.paired_difference(pair["b"][metric], pair["a"][metric])
    assert low * sign > 0 or high * sign > 0
    assert mean * sign > 0


# ---- Names and changes --------------------------------------------------------------------------


FAST_GATE = gitops.Scenario().with_environment("production", wait_hours=(4, 12))


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("production.wait_hours=4:12", "", FAST_GATE),
        ("fast gate: production.wait_hours=4:12", "fast gate", FAST_GATE),
        ("a: production.wait_hours=4:12", "a", FAST_GATE),
        (
            "production.wait_hours=3",
            "",
            FAST_GATE.with_environment("production", wait_hours=(3, 3)),
        ),
        ("team.commits_per_day=*2", "", gitops.Scenario().with_team(commits_per_day=16)),
        ("old way: traditional", "old way", gitops.PRESETS["traditional"]),
        (
            "rollback.success_rate=1, dev.approval_rate=0.5",
            "",
            gitops.Scenario()
            .with_rollback(success_rate=1)
            .with_environment("dev", approval_rate=0.5),
        ),
    ],
)
def test_a_change_is_what_the_knob_would_be_set_to(text, name, expected):
    """It may have a name, also one of a letter."""
    found, change = gitops.named_change(text, gitops.Scenario())
    assert found == (name or text)
    assert change(gitops.Scenario()) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("production.wait=3", "production.wait_hours"),
        ("wait_hours=3", "wait_hours"),
        ("production.wait_hours=", "production.wait_hours must"),
        ("production.wait_hours=9:3", "in order"),
        ("production.wait_hours=*-1", "production.wait_hours must"),
        ("production.success_rate=1.5", "from 0 to 1"),
        ("production.promotion=often", "each, newest, soak"),
        ("agile", "gitops, traditional, elite"),
        ("a:/no/such.json", "no such file"),
        ("", "KNOB=VALUE"),
    ],
)
def test_a_change_that_cannot_be_is_one_clear_line(text, told):
    with pytest.raises(gitops.GitOpsError, match=told) as caught:
        gitops.named_change(text, gitops.Scenario())
    assert str(caught.value).isprintable()


def test_a_file_changes_the_baseline_where_it_says_something(tmp_path):
    canary = gitops.Environment("canary", 0.9, (1, 2))
    baseline = gitops.Scenario(environments=(*gitops.Scenario().environments[:2], canary))
    baseline = baseline.with_team(commits_per_day=3)
    file = tmp_path / "change.json"
    file.write_text('{"environments": [{"name": "dev"}, {"name": "canary", "success_rate": 0.5}]}')
    name, found = gitops.named_change(f"canary first: {file}", baseline)
    assert name == "canary first"
    assert found.team == baseline.team
    assert found.environments[0] == baseline.environments[0]
    assert found.environments[1] == gitops.Environment("canary", 0.5, (1, 2))


def test_a_change_is_made_in_each_scenario_that_is_possible():
    """A relative one is relative to each; a scenario says the knobs that it has changed."""
    draw = gitops.Scenario().with_environment("production", wait_hours=(10, 20), success_rate=0.8)
    half = gitops.named_change("production.wait_hours=*0.5", gitops.Scenario())[1]
    changed = gitops.apply_change(half, gitops.Scenario(), draw).environments[-1]
    assert (changed.wait_hours, changed.success_rate) == ((5, 10), 0.8)
    fixed = gitops.Scenario().with_environment("production", wait_hours=(1, 2))
    changed = gitops.apply_change(fixed, gitops.Scenario(), draw).environments[-1]
    assert (changed.wait_hours, changed.success_rate) == ((1, 2), 0.8)
    assert gitops.apply_change(gitops.Scenario(), gitops.Scenario(), draw) == draw
    other = gitops.Scenario(environments=(gitops.Environment("live", 0.5),))
    busy = draw.with_team(commits_per_day=99)
    assert gitops.apply_change(other, gitops.Scenario(), busy) == dataclasses.replace(
        other, team=busy.team
    )


def test_a_preset_has_only_the_commits_of_the_first_environment():
    """Where environments have commits of their own, a preset would take all of them through all."""
    shared = gitops.Scenario(environments=[
        gitops.Environment("dev", approval_rate=0.25, starts="commit"),
        gitops.Environment("production", approval_rate=0.75, starts="commit"),
    ])  # fmt: skip
    assert gitops.named_change("elite", shared)[1](shared).team.commits_per_day == 2


def test_the_presets_keep_what_they_promise():
    """Elite reaches its level in nearly every month, traditional is the slowest in everything."""
    assert gitops.PRESETS["gitops"] == gitops.Scenario()
    found = forecast_months(gitops.PRESETS, MONTH, 100, 5)
    assert gitops.level_counts(found["elite"], known(gitops.PRESETS))["ELITE PERFORMER"] >= 95
    assert np.median(found["traditional"]["mean_lead_time"]) > np.median(
        found["gitops"]["mean_lead_time"]
    )
    assert np.median(found["traditional"]["mttr_minutes"]) > 60
    assert np.median(found["traditional"]["production_deployment_frequency"]) < 1


# ---- The class and the command line -------------------------------------------------------------

FAST = ["--seed", "7", "--end", "2026-01-31", "--runs", "30"]


def run_of(seed=7):
    return gitops.GitOpsAutomation(seed=seed, end="2026-01-31")


def test_the_class_takes_what_the_command_line_takes():
    found = run_of().what_if("production.wait_hours=4:12", runs=30)
    assert list(found.months) == ["baseline", "production.wait_hours=4:12"]
    change = {"fast": lambda now: now.with_environment("production", wait_hours=(4, 12))}
    fixed = {"fast": gitops.Scenario().with_environment("production", wait_hours=(4, 12))}
    several = run_of().what_if(["fast: production.wait_hours=4:12", "elite"], runs=30)
    tables = [run_of().what_if(one, runs=30).table for one in (change, fixed)]
    tables.append(several.table[several.table["scenario"] != "elite"])
    for table in tables:
        assert table["value"].equals(found.table["value"])
    shown = found._repr_html_()
    assert shown == f"<pre>{html.escape(gitops.format_forecast(found))}</pre>"


def test_the_command_draws_the_comparison_that_it_prints(capsys, tmp_path):
    changes = ["--what-if", "fast: production.wait_hours=4:12", "--what-if", "traditional"]
    status, out, err = called(capsys, *FAST, *changes)
    assert (status, err) == (0, "")
    assert "30 simulated months of 28 days" in out
    shown = gitops.scored_metrics(gitops.ALL_ENVIRONMENTS)
    for name in ("baseline", "traditional", "fast"):
        assert len(re.findall(rf"^  {name} ", out, re.M)) == len(shown) + 1
    for metric in shown:
        assert gitops.FORECAST_METRICS[metric].label in out
    assert re.search(r"Months that are ELITE\n  baseline +\d+ of 30\n", out)
    assert "Cost" not in out
    assert max(map(len, out.splitlines())) <= 81
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["gitops_what_if.png"]


def test_a_failure_rate_that_moves_by_the_mix_alone_is_marked(capsys):
    """A shorter wait brings more deployments to the steadier production; none fails less often."""
    gitops.main(
        [*FAST, "--what-if", "production.wait_hours=*0.2", "--no-dashboard", "--runs", "100"]
    )
    out = capsys.readouterr().out
    rate = out.partition("Change Failure Rate")[2].partition("\n\n")[0]
    assert re.search(r"-0\.\d\d \(-0\.\d\d to -0\.\d\d\) \*$", rate)
    assert "* The mix: no environment fails more or less often" in out
    gitops.main([*FAST, "--what-if", "dev.success_rate=0.97", "--no-dashboard"])
    out = capsys.readouterr().out
    assert "The mix" not in out


def test_a_change_of_how_much_is_committed_says_what_the_model_lacks(capsys):
    gitops.main([*FAST, "--what-if", "team.commits_per_day=*2", "--no-dashboard"])
    assert "people have no queue here" in capsys.readouterr().out
    gitops.main([*FAST, "--what-if", "elite", "--no-dashboard"])
    assert "have no queue" not in capsys.readouterr().out


def test_the_json_has_all_that_is_compared(capsys):
    gitops.main([*FAST, "--what-if", "elite", "--json", "--no-dashboard"])
    document = json.loads(capsys.readouterr().out)
    assert (document["seed"], document["runs"], document["days"]) == (7, 30, 28)
    table = run_of().what_if("elite", 30).table
    values = table[(table["scenario"] == "elite") & (table["metric"] == "mean_lead_time")]["value"]
    base = table[(table["scenario"] == "baseline") & (table["metric"] == "mean_lead_time")]["value"]
    lead = document["what_if"]["elite"]["metrics"]["mean_lead_time"]
    assert lead["median"] == pytest.approx(values.median())
    assert lead["difference"]["mean"] == pytest.approx((values.to_numpy() - base.to_numpy()).mean())
    assert sum(document["what_if"]["baseline"]["levels"].values()) == 30


@pytest.mark.parametrize(
    "flags",
    [
        ["--what-if", "production.wait=3"],
        ["--what-if", "elite", "--runs", "1"],
        ["--what-if", "elite", "--cost-per-failed-hour", "much"],
        ["--what-if", "a: elite", "--what-if", "a: traditional"],
        ["--what-if", "elite", "--levers"],
        ["--levers", "speed"],
        ["--backtest"],
        ["--cost-per-failed-hour", "100"],
    ],
)
def test_a_what_if_that_cannot_be_is_one_line(flags, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        gitops.main(flags)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert not (tmp_path / "output").exists()


# ---- The picture --------------------------------------------------------------------------------


def test_a_repository_says_how_much_is_committed(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    git(folder, "init", "-q")
    for number in range(5):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        git(folder, *identity, "commit", "-q", "--allow-empty", "-m", f"feat: {number}")
    run = gitops.GitOpsAutomation(seed=1)
    with contextlib.redirect_stdout(io.StringIO()):
        run.load_git_history(folder, 7)
    team = run.calibrate().scenario.team
    assert team.commits_per_day == 5
    assert sorted(team.weekday_factors) == [0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "scenarios", [{"x": "agile"}, {"x": None}, ["agile"], [5], {"baseline": gitops.Scenario()}]
)
def test_what_is_no_scenario_is_refused_in_python_too(scenarios):
    with pytest.raises(gitops.GitOpsError):
        gitops.GitOpsAutomation(seed=1).what_if(scenarios, runs=2)


def test_long_names_of_scenarios_stay_apart_in_the_table():
    names = ["baseline", "production.release_every_hours=126", "production.release_every_hours=84"]
    text = gitops.format_forecast(forecast(dict.fromkeys(names, gitops.Scenario()), WEEK, 3, 1))
    shown = len(gitops.scored_metrics(gitops.ALL_ENVIRONMENTS)) + 1
    assert text.count("hours=126") == text.count("_hours=84") == shown
