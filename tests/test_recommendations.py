"""Recommendations and levers: what helps most, and the smallest change that meets a target."""

import contextlib
import dataclasses
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from conftest import called
from plain_model import MONTH, simulated
from plain_months import months

import gitops_automation as gitops
from gitops_automation import (
    PRESETS,
    PRODUCTION_ALONE,
    Calibration,
    GitOpsAutomation,
    GitOpsError,
    Scenario,
    Trial,
    main,
    measure,
)

pytestmark = pytest.mark.usefixtures("in_a_folder")

POOR = (
    Scenario()
    .with_environment("dev", success_rate=0.7)
    .with_environment("staging", success_rate=0.8)
    .with_rollback(duration_min=(30, 200))
)
OFFICE = Scenario().with_environment("production", open_hours="Mon-Fri 9-11", wait_hours=(0, 4))
HARD = {
    "the default": Scenario(),
    "failures and slow rollbacks": POOR,
    "a gate": Scenario().with_environment("production", wait_hours=(2, 60), approval_rate=0.3),
    "a soak": Scenario().with_environment("production", wait_hours=(24, 24), promotion="soak"),
    "traditional": PRESETS["traditional"],
}


def measured(scenario, seed=7, days=30):
    """Return a pipeline that has been measured."""
    run = GitOpsAutomation(scenario, seed=seed, end="2026-01-31")
    with contextlib.redirect_stdout(io.StringIO()):
        run.simulate_git_activity(days)
        run.simulate_deployments()
        run.simulate_rollbacks()
        run.calculate_dora_metrics()
    return run


def trial_of(known, runs=100, seed=1):
    """Return a trial of a scenario, or of a calibration."""
    known = Calibration(known) if isinstance(known, Scenario) else known
    return Trial(known, MONTH, runs, seed)


def advice_for(scenario, key, runs=100):
    """Return the line of advice against a target that a simulated month misses."""
    best = scenario if isinstance(scenario, Scenario) else scenario.scenario
    places = gitops.diagnose(key, measure(simulated(best, 1)[0]).values)[1]
    return gitops.find_advice(key, places, trial_of(scenario, runs))


def tried(scenario, runs=30, **values):
    """Return the advice with other metrics in the place of the measured ones."""
    metrics = measure(simulated(scenario, 1)[0])
    metrics = dataclasses.replace(metrics, values={**metrics.values, **values})
    return gitops.recommend(metrics, trial_of(scenario, runs))


# ---- Advice -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_a_recommendation_run_afresh_does_what_it_said(name, monkeypatch):
    """It meets its target in about as many months of another seed."""
    scenario, found, line_of = HARD[name], [], gitops.advice_line

    def kept(metric, chosen, ratio, *rest):
        found.append((metric, chosen, ratio))
        return line_of(metric, chosen, ratio, *rest)

    monkeypatch.setattr(gitops, "advice_line", kept)
    lines = gitops.recommend(measure(simulated(scenario, 1)[0]), trial_of(scenario))
    told = re.findall(r"target met in (\d+) of (\d+) simulated", "\n".join(lines))
    assert len(told) == len(found) > 0
    for (key, chosen, ratio), (met, known) in zip(found, told):
        better = scenario
        for lever in chosen:
            better = lever.apply(ratio, better)
        again = trial_of(better, 400, 99)
        met, known = int(met), int(known)
        assert met >= 0.5 * known
        assert abs(gitops.target_share(again.baseline, key) - met / known) < 4 * math.sqrt(
            0.25 / known
        )


def test_a_change_is_the_smallest_step_that_people_would_say():
    line = advice_for(Scenario(), "mean_lead_time")
    low, high = map(float, re.search(r"from 24-72 h to (\S+)-(\S+) h \(", line).groups())
    assert (low, high) in {
        tuple(float(f"{ratio * edge:.2g}") for edge in (24, 72)) for ratio in gitops.RATIOS
    }
    smaller = Scenario().with_environment("production", wait_hours=(low * 1.19, high * 1.19))
    assert gitops.target_share(trial_of(smaller).baseline, "mean_lead_time") < 0.9


def test_one_knob_of_any_environment_is_enough_before_two_are_changed():
    """Also of one that is not blamed: here production takes 25 hours, and its wait is short."""
    scenario = Scenario().with_environment("staging", success_rate=0.6)
    line = advice_for(scenario, "change_failure_rate")
    assert line.startswith("Raise the staging success rate from 60 % to ")
    slow = Scenario().with_environment("staging", wait_hours=(40, 60))
    trial = trial_of(slow.with_environment("production", wait_hours=(1, 2)), 30)
    line = gitops.find_advice("mean_lead_time", ["production", "staging", "dev"], trial)
    assert line.startswith("Cut the staging wait from 40-60 h to ")
    both = Scenario().with_environment("staging", wait_hours=(25, 30), duration_sec=(9e4, 9e4))
    both = both.with_environment("production", wait_hours=(0, 0))
    line = gitops.find_advice("mean_lead_time", ["staging"], trial_of(both, 30))
    assert line.startswith("Cut the staging wait from 25-30 h to ")
    assert " and shorten staging syncs from 25 h to " in line


def test_a_gate_whose_hours_take_most_of_the_time_is_opened():
    line = advice_for(OFFICE, "mean_lead_time")
    assert line.startswith("Open production around the clock instead of Mon-Fri 9-11 (")
    assert int(re.search(r"ELITE in (\d+) of 100", line).group(1)) >= 90


def test_where_nothing_helps_that_is_true():
    """Commits so rare that no knob brings one deployment a day."""
    rare = Scenario().with_team(commits_per_day=0.1)
    told = "\n".join(gitops.recommend(measured(rare, days=60).measured, trial_of(rare, 30)))
    assert "  No knob of production is enough to meet the Deployment Frequency target: " in told
    best = rare
    for lever in gitops.levers_for(Calibration(rare), "deployment_frequency"):
        best = lever.apply(gitops.RATIOS[-1], best)
    assert gitops.target_share(months(best, 30), "deployment_frequency") < 0.5


def test_what_helps_in_most_months_is_advised_where_nothing_helps_in_nine_of_ten():
    """A fitted team is uncertain in more than the knob that is changed: here in the way before."""
    fitted = [
        gitops.Fitted("staging", "wait_hours", (2, 6), [(2, 6)] * 8 + [(100, 100)] * 2, 99, "n"),
        gitops.Fitted("production", "wait_hours", (24, 72), (), 99, "n"),
    ]
    line = advice_for(Calibration(Scenario(), tuple(fitted)), "mean_lead_time")
    met, known = map(int, re.search(r"target met in (\d+) of (\d+) ", line).groups())
    assert line.startswith("Cut the production wait from 24-72 h to ")
    assert 0.75 * known <= met < 0.9 * known


def test_a_knob_that_was_seen_too_seldom_is_not_said_to_be_of_no_help():
    few = gitops.Fitted("rollback", "duration_min", (90, 300), (), 3, "recoveries")
    slow = Calibration(Scenario().with_rollback(duration_min=(90, 300)), (few,))
    line = gitops.find_advice("mttr_minutes", ["rollback"], trial_of(slow, 20))
    assert line.startswith("No change was tried, as no knob that helps has 6 observations in ")


def test_of_measured_times_a_share_is_advised():
    waits = tuple(np.linspace(1, 90, 11).tolist())
    line = advice_for(Scenario().with_environment("production", wait_hours=waits), "mean_lead_time")
    pattern = r"from a median of 45.5 h to a median of (\S+) h \((\d+) % of each\)"
    after, share = map(float, re.search(pattern, line).groups())
    assert after == pytest.approx(45.5 * share / 100, rel=0.05)


@pytest.mark.slow
def test_a_measured_history_gets_the_same_advice_under_any_seed():
    rows = simulated(Scenario(), 1)[0]._replace(source="files")
    told = []
    for seed in (1, 2):
        run = GitOpsAutomation(seed=seed)
        with contextlib.redirect_stdout(io.StringIO()):
            run.load_history(rows)
            run.calculate_dora_metrics()
        told.append(run._advice())
    assert told[0] == told[1]
    assert "Cut the production wait" in "".join(told[0])


def test_months_without_a_value_are_no_reason_against_a_change():
    """A team that hardly fails has months without a rollback; the others tell how fast they are."""
    rare = Scenario().with_team(commits_per_day=0.5).with_rollback(duration_min=(90, 120))
    line = gitops.find_advice("mttr_minutes", ["rollback"], trial_of(rare, 100, 2))
    assert line.startswith("Shorten rollbacks from 1.5-2 h to 45-60 min (")
    hardly = Scenario().with_team(commits_per_day=0.02)
    told = gitops.find_advice("mean_lead_time", ["production"], trial_of(hardly, 100))
    assert re.fullmatch(r"No change was tried, as only \d of 100 .* have a value; .*|.*", told)


@pytest.mark.parametrize(("deployments", "remedy"), [(4, "measure more days"), (0, "--incidents")])
def test_where_too_few_are_known_more_days_tell(deployments, remedy):
    """It is the number that says so, not the words of the reason."""
    rows = simulated(Scenario(), 1)[0]
    made = rows.deployments[rows.deployments["environment"] == "production"].iloc[:deployments]
    history = rows._replace(deployments=made, rollbacks=rows.rollbacks.iloc[:0], source="files")
    lines = gitops.recommend(measure(history))
    line = next(one for one in lines if one.startswith("Change Failure Rate cannot be judged"))
    assert remedy in line


def test_what_cannot_be_judged_says_what_to_observe():
    rows = simulated(Scenario(), 1)[0]
    unseen = rows.deployments.assign(health="Unknown", failure_reason=None)
    history = rows._replace(
        deployments=gitops.as_table("deployments", unseen),
        rollbacks=rows.rollbacks.iloc[:0],
        source="files",
    )
    lines = gitops.recommend(measure(history))
    assert any("cannot be judged" in line and "--incidents" in line for line in lines)
    calibration = gitops.calibrate(history)
    line = gitops.find_advice("change_failure_rate", ["production"], trial_of(calibration, 20))
    assert line == (
        "No change was tried, as nobody looked whether production deployments failed: "
        "tell with --incidents which deployments failed"
    )


def test_a_month_of_bad_luck_is_no_reason_to_change_anything():
    lines = tried(PRESETS["elite"], 20, change_failure_rate=15.5)
    assert lines[1:] == [
        "  Nothing to change: 20 of 20 simulated months meet the target as things are"
    ]


def test_a_cause_names_the_place_and_the_report_prints_what_was_tried(capsys):
    measured(Scenario()).generate_report()
    told = " ".join(capsys.readouterr().out.split())
    line = re.search(
        r"the way into production takes \d+ % of the mean \(\S+ h\): shorten it first "
        r"Cut the production wait from 24-72 h to (\S+) h \(automated approval, smaller batches\): "
        r"lead time (\S+) → (\S+) h \((\S+)-(\S+) in 9 of 10\), "
        r"target met in (\d+) of 100 simulated months, ELITE in (\d+)",
        told,
    )
    before, after, low, high = map(float, line.group(2, 3, 4, 5))
    assert low <= after <= high < 25 < before
    assert int(line.group(6)) >= 90
    measured(PRESETS["elite"], seed=1).generate_report()
    assert "None: all four targets are met" in capsys.readouterr().out
    assert " has " in gitops.diagnose("change_failure_rate", measured(POOR).metrics)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "key", "change"),
    [
        (Scenario(), "median_lead_time", "Cut the production wait"),
        (
            Scenario().with_environment(
                "production", open_hours="Tue 9-11 Thu 9-11", wait_hours=(1, 4)
            ),
            "median_lead_time",
            "Open production around the clock",
        ),
        (
            Scenario().with_environment("production", success_rate=0.7),
            "change_failure_rate",
            "Raise the production success rate",
        ),
        (Scenario().with_rollback(duration_min=(90, 300)), "mttr_minutes", "Shorten rollbacks"),
        (
            Scenario()
            .with_team(commits_per_day=3, applications={"shop": 1})
            .with_environment("production", release_every_hours=72),
            "deployment_frequency",
            "",
        ),
    ],
)
def test_a_measured_team_that_misses_a_target_gets_advice(scenario, key, change):
    """The target is that of production, and the change holds for the team as it truly is."""
    history = simulated(scenario, 3, gitops.Window.before(MONTH.end, 150))[0]
    metrics = measure(history._replace(source="files"))
    assert metrics.met[key] == 0
    calibration = gitops.calibrate(metrics.history)
    trial = trial_of(calibration, 60)
    places = gitops.diagnose(key, metrics.values)[1]
    assert gitops.find_advice(key, places, trial).startswith(change)


# ---- Words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knob", "value", "words"),
    [
        ("wait_hours", (24, 72), "24-72 h"),
        ("wait_hours", (9.0, 27.0), "9-27 h"),
        ("wait_hours", (0, 0), "none"),
        ("wait_hours", (0.25, 1), "15-60 min"),
        ("wait_hours", (0, 4), "0-4 h"),
        ("wait_hours", (100, 2210), "4.17-92.1 days"),
        ("wait_hours", (1, 2, 36.9, 40, 50), "a median of 36.9 h"),
        ("duration_min", (5, 15), "5-15 min"),
        ("duration_min", (2213, 2213), "36.9 h"),
        ("duration_sec", (30, 120), "30-120 s"),
        ("success_rate", 0.9475, "94.8 %"),
        ("release_every_hours", 24, "24 h"),
        ("promotion", "newest", "newest"),
        ("batch_risk", 0.5, "0.5"),
        ("open_hours", (0.0,) * 24 * 5 + (1.0,) * 48, "42 % from 8 to 18 h UTC, 100 % at weekends"),
    ],
)
def test_values_are_said_as_people_say_them(knob, value, words):
    assert gitops.in_words(knob, value) == words


# ---- Levers -------------------------------------------------------------------------------------


def levers(known, metric="", runs=10):
    return gitops.lever_table(trial_of(known, runs, 7), metric)


def test_each_lever_is_improved_by_a_quarter():
    table = levers(Scenario(), "mean_lead_time", 40)
    assert len(table) == 10
    wait = table[table["knob"] == "production.wait_hours"].iloc[0]
    assert wait["change"] == "Cut the production wait from 24-72 h to 18-54 h"
    scenarios = {
        "a": Scenario(),
        "b": Scenario().with_environment("production", wait_hours=(18, 54)),
    }
    found = gitops.forecast_months(scenarios, Calibration(Scenario()), MONTH, 40, 7)
    before, after = (found[name]["mean_lead_time"] for name in "ab")
    assert wait["difference"] == pytest.approx((after - before).mean())
    assert (wait["before"], wait["after"]) == pytest.approx([before.mean(), after.mean()])
    assert wait["low"] < wait["difference"] < wait["high"]
    assert table["difference"].abs().is_monotonic_decreasing
    assert table["knob"].iloc[0] == "production.wait_hours"


def test_a_knob_that_rests_on_a_handful_of_observations_is_no_lever():
    few = gitops.Fitted("production", "wait_hours", (24, 72), (), 5, "releases")
    many = gitops.Fitted("staging", "wait_hours", (2, 6), (), 6, "releases")
    found = gitops.levers_for(Calibration(Scenario(), (few, many)))
    assert [lever.path for lever in found] == ["staging.wait_hours"]


def test_levers_are_compared_by_the_target_that_is_met_least():
    assert measured(Scenario()).levers(runs=10).attrs["metric"] == "mean_lead_time"
    real = Calibration(Scenario(), scope=PRODUCTION_ALONE)
    assert levers(real).attrs["metric"] == "median_lead_time"


def test_the_command_prints_the_levers(capsys, tmp_path):
    flags = ["--seed", "7", "--end", "2026-01-31", "--levers", "--runs", "40"]
    status, out, err = called(capsys, *flags, "--export")
    assert (status, err) == (0, "")
    assert "WHAT MATTERS MOST: Lead Time" in out
    assert "Cut the production wait from 24-72 h to 18-54 h" in out
    exported = pd.read_csv(tmp_path / "output" / "levers.csv")
    main([*flags, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (document["metric"], document["runs"], document["seed"]) == ("mean_lead_time", 40, 7)
    assert exported["knob"].tolist() == [row["knob"] for row in document["levers"]]
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["levers.csv"]


def test_a_metric_of_no_forecast_has_no_levers():
    with pytest.raises(GitOpsError, match="metric must be one of"):
        measured(Scenario()).levers("happiness")
    unknown = Calibration(Scenario(), assumed={"mttr_minutes": "no recovery is known"})
    with pytest.raises(GitOpsError, match="no recovery is known"):
        levers(unknown, "mttr_minutes")
