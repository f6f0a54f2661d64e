"""Calibration: history -> scenario, with what is not known of it; the backtest."""

import collections
import contextlib
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from conftest import called
from plain_model import EACH, END, MONTH, simulated, table

import gitops_automation as gitops
from gitops_automation import (
    BENCHMARKS,
    DRAWS,
    FORECAST_METRICS,
    NEVER,
    PRESETS,
    Calibration,
    Environment,
    Gate,
    GitOpsAutomation,
    GitOpsError,
    Scenario,
    Window,
    calculate_dora_metrics,
    calibrate,
    forecast_actuals,
    forecast_months,
    measure,
    month_spread,
)

OFFICE = "Mon-Fri 9-17"
FITTED = {
    "default": Scenario(),
    "each": EACH,
    "elite": PRESETS["elite"],
    "traditional": PRESETS["traditional"],
    "a short train": Scenario().with_environment(
        "production", release_every_hours=6, wait_hours=(1, 3)
    ),
    "a train with a gate": Scenario().with_environment(
        "production", release_every_hours=24, approval_rate=0.6
    ),
    "a soak": Scenario().with_environment("production", promotion="soak", wait_hours=(6, 20)),
    "a gate": Scenario().with_environment("production", approval_rate=0.6),
    "each with a gate": EACH.with_environment("production", approval_rate=0.6),
    "office hours": Scenario().with_environment("production", open_hours=OFFICE),
    "a sprint": Scenario().with_team(sprint_ramp=1, dispersion=6),
    "a crowd": Scenario().with_team(commits_per_day=30).with_environment("dev", success_rate=0.7),
    "other names": Scenario(
        environments=(Environment("qa", 0.8, (1, 5)), Environment("live", 0.9, (2, 30), (60, 900)))
    ),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def at(seconds):
    return pd.Timestamp(seconds, unit="s", tz="UTC")


def months_of(calibration, runs=100, seed=1, window=MONTH):
    """Return the months of the baseline that was fitted."""
    return forecast_months({"": calibration.scenario}, calibration, window, runs, seed)[""]


def lived(scenario, seed, days):
    """Return a history of so many days that did not begin empty, and the month after it."""
    history, _ = simulated(scenario, seed, Window.before(END, days + 60))
    known = history.within(Window.before(MONTH.start, days))
    events = gitops.events_of(history, gitops.application_names(history))
    came = gitops.month_metrics(events, MONTH, Calibration(scenario))
    return known, {key: float(values[0]) for key, values in came.items()}


# ---- The knobs ----------------------------------------------------------------------------------


def test_the_fit_has_the_knobs_of_the_scenario_that_made_the_history():
    history, _ = simulated(Scenario(), 3, Window.before(END, 180))
    fitted = calibrate(history).scenario
    assert fitted.names == ["dev", "staging", "production"]
    for got, made in zip(fitted.environments, Scenario().environments):
        assert got.success_rate == pytest.approx(made.success_rate, abs=0.04)
        assert (got.promotion, got.approval_rate) == (made.promotion, 1)
        assert (got.open_hours, got.release_every_hours) == ("always", 0)
        assert got.wait_hours[0] == pytest.approx(made.wait_hours[0], abs=1)
        middle = np.interp(0.5, np.linspace(0, 1, len(got.wait_hours)), got.wait_hours)
        assert middle == pytest.approx(np.mean(made.wait_hours), rel=0.12)
        assert got.duration_sec[-1] == pytest.approx(made.duration_sec[-1], abs=3)
    team = fitted.team
    assert team.commits_per_day == pytest.approx(8, rel=0.15)
    assert team.weekday_factors[5] == pytest.approx(0.2, abs=0.08)
    assert team.work_hours[0] == pytest.approx(9, abs=0.1)
    assert sum(team.types.values()) == len(history.git_commits)
    assert fitted.rollback.success_rate == pytest.approx(0.95, abs=0.03)
    assert Scenario.from_json(fitted.to_json()) == fitted


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTED)
def test_the_fit_of_a_history_reproduces_it(name):
    """What was measured of a quarter lies in nearly all of the fitted quarters' ranges."""
    window = Window.before(END, 90)
    missed = collections.Counter()
    for seed in range(5):
        history, _ = simulated(FITTED[name], seed, Window.before(END, 150))
        history = history.within(window)
        came = forecast_actuals(measure(history))
        found = months_of(calibrate(history), 100, 50 + seed, window)
        for key in (*BENCHMARKS, "production_deployment_frequency", "production_change_fail_rate"):
            mean, deviation = np.nanmean(found[key]), np.nanstd(found[key])
            missed[key] += abs(came[key] - mean) > 2.5 * deviation
    assert max(missed.values()) <= 1, missed


@pytest.mark.parametrize(
    ("knobs", "expected", "share"),
    [
        ({}, ("newest", "always", 0), (1, 1)),
        (dict(promotion="each"), ("each", "always", 0), (1, 1)),
        (dict(promotion="each", approval_rate=0.6), ("each", "always", 0), (0.5, 0.7)),
        (dict(promotion="soak", wait_hours=(6, 6)), ("soak", "always", 0), (1, 1)),
        (dict(promotion="soak", wait_hours=(4, 12)), ("soak", "always", 0), (1, 1)),
        (dict(approval_rate=0.3), ("newest", "always", 0), (0.2, 0.4)),
        (dict(approval_rate=0.9), ("newest", "always", 0), (0.85, 0.95)),
        (dict(release_every_hours=24), ("newest", "always", 24), (0.85, 1)),
        (dict(release_every_hours=24, approval_rate=0.6), ("newest", "always", 24), (0.5, 0.75)),
        (dict(open_hours=OFFICE), ("newest", OFFICE, 0), (0.9, 1)),
        (
            dict(release_every_hours=168, open_hours="Tue 14-15"),
            ("newest", "Tue 14:00-15", 168),
            (0.85, 1),
        ),
    ],
    ids=str,
)
def test_a_fit_tells_how_production_is_promoted(knobs, expected, share):
    scenario = Scenario().with_environment("production", **knobs)
    history, _ = simulated(scenario, 3, Window.before(END, 120))
    found = calibrate(history).scenario.environments[-1]
    assert (found.promotion, found.open_hours, found.release_every_hours) == expected
    assert share[0] <= found.approval_rate <= share[1]


def test_waits_that_were_cut_short_lengthen_the_curve_by_the_product_limit():
    """By hand: waits 1 and 3, one beyond 2. After 1 of three, 2/3 are left; after 3, none."""
    hours, gone = gitops.survival_curve(np.array([1.0, 3.0]), np.array([2.0]))
    assert hours.tolist() == [1, 1, 3]
    assert gone == pytest.approx([0, 1 / 3, 1])
    hours, gone = gitops.survival_curve(np.array([1.0, 2.0]), np.array([9.0, 9.0]))
    assert gone[-1] == 0.5  # two of four never came


@pytest.mark.slow
def test_the_wait_is_told_apart_from_the_waiting_for_a_gate():
    """Each waits for 2 to 5 hours, and then for the next departure or opening."""
    draw = np.random.default_rng(4)
    arrival = np.sort(draw.integers(0, 100 * 86400, 3000)) + MONTH.seconds[0]
    ready = arrival + (draw.uniform(2, 5, 3000) * 3600).astype(np.int64)
    for hours, every in (("always", 6.0), (OFFICE, 0.0)):
        gate = Gate.at_hours(
            hours, (), every, "UTC", MONTH.seconds[0], MONTH.seconds[0] + 2 * 10**7
        )
        stage = gitops.Passages(
            "stage", np.zeros(3000, int), arrival, arrival, gate.next(ready), ready > 0, {}, "each",
            int(arrival.max()) + 10**6, (arrival, arrival),
        )  # fmt: skip
        waits, share = gitops.wait_and_share(stage, gate)
        assert share == 1
        assert np.quantile(waits, [0.05, 0.5, 0.95]) == pytest.approx([2.15, 3.5, 4.85], abs=0.5)


def test_departures_at_any_time_are_no_train_and_no_office_hours():
    """Commits come in office hours; what follows them at once says nothing of a gate."""
    history, _ = simulated(PRESETS["traditional"], 1, Window.before(END, 120))
    fitted = calibrate(history).scenario.environments
    assert [one.release_every_hours for one in fitted] == [24, 0, 168]
    assert [one.open_hours for one in fitted] == ["always", OFFICE, "Mon 9:00-10"]
    history, _ = simulated(EACH.with_environment("production", wait_hours=(0, 0.1)), 1)
    assert {one.open_hours for one in calibrate(history).scenario.environments} == {"always"}


@pytest.mark.slow
def test_the_risk_of_batches_is_fitted_where_twenty_failures_tell_it():
    """A train each week carries some fifteen commits of which each fails in 3 of 100."""
    train = dict(wait_hours=(0, 1), release_every_hours=168, success_rate=0.97)
    risky = Scenario().with_environment("production", **train, batch_risk=1)
    risky = risky.with_team(applications=dict.fromkeys("abcdef", 1), commits_per_day=16)
    window = Window.before(END, 180)
    production = calibrate(simulated(risky, 1, window)[0]).scenario.environments[-1]
    assert production.batch_risk > 0.3
    chance = production.success_rate ** (1 + 14 * production.batch_risk)
    assert chance == pytest.approx(0.97**15, abs=0.12)
    plain = risky.with_environment("production", batch_risk=0, success_rate=0.7)
    production = calibrate(simulated(plain, 1, window)[0]).scenario.environments[-1]
    assert production.batch_risk < 0.2
    few = calibrate(simulated(risky, 1, Window.before(END, 30))[0]).scenario.environments[-1]
    assert few.batch_risk == 0


def test_only_the_last_half_year_is_fitted():
    old, _ = simulated(
        Scenario().with_environment("dev", success_rate=0.3), 1, Window.before(END, 400)
    )
    new, _ = simulated(Scenario(), 1, Window.before(END, 180))
    cut = old.deployments["timestamp"] < new.window.start
    both = pd.concat([old.deployments[cut].astype(object), new.deployments.astype(object)])
    commits = pd.concat([old.git_commits.astype(object), new.git_commits.astype(object)])
    commits = commits.drop_duplicates("sha").sort_values("timestamp")
    history = old._replace(
        deployments=gitops.as_table("deployments", both),
        git_commits=gitops.as_table("git_commits", commits),
    )
    assert calibrate(history).scenario.environments[0].success_rate > 0.85


# ---- What is not known --------------------------------------------------------------------------


def test_a_share_is_drawn_from_its_posterior():
    """Beta(k + 1/2, n - k + 1/2): mean and variance are the textbook's."""
    rng = np.random.default_rng(1)
    best, drawn = gitops.possible_rate(18, 20, 0.95, rng)
    a, b = 18.5, 2.5
    assert best == 0.9
    assert len(drawn) == DRAWS
    assert np.mean(drawn) == pytest.approx(a / (a + b), abs=0.003)
    assert np.var(drawn) == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), rel=0.1)


def test_few_observations_are_filled_up_with_the_default():
    rng = np.random.default_rng(1)
    best, drawn = gitops.possible_rate(0, 1, 0.95, rng)
    assert best == pytest.approx(5 * 0.95 / 6)
    assert gitops.possible_rate(0, 0, 0.95, rng)[0] == pytest.approx(0.95)
    best, drawn = gitops.possible_range(np.array([19.8]), (5, 15), rng)
    assert (min(best), max(best)) == (6, 19.8)
    assert len({row for row in drawn}) == DRAWS


@pytest.mark.parametrize("n", [6, 12, 200])
def test_waits_are_drawn_as_widely_as_their_mean_is_unsure(n):
    """The means of what is drawn spread about as the standard error of the mean."""
    values = np.random.default_rng(2).uniform(5, 15, n)
    _, drawn = gitops.possible_range(values, (5, 15), np.random.default_rng(1))
    spread = np.std([np.mean(row) for row in drawn])
    assert 0.8 < spread / (values.std(ddof=1) / math.sqrt(n)) < 1.8
    _, skewed = gitops.possible_range(
        np.array([0.5, 1, 1, 2, 3, 30]), (5, 15), np.random.default_rng(1)
    )
    assert 0.7 < np.median([np.median(row) for row in skewed]) < 3


def test_no_band_has_no_width():
    """Even a rate without a failure is not known to be 1."""
    safe = Scenario().with_environment("production", success_rate=1)
    found = months_of(calibrate(simulated(safe, 1)[0]), 200)
    for key in FORECAST_METRICS:
        _, low, high = month_spread(found[key])
        assert low < high, key


def test_each_group_of_months_lives_in_one_draw_that_all_scenarios_share():
    calibration = calibrate(simulated(Scenario(), 1)[0])
    draws = calibration.draws(250)
    assert [many for _, many in draws].count(2) + [many for _, many in draws].count(3) == DRAWS
    assert sum(many for _, many in calibration.draws(7)) == 7
    rates = {one.environments[-1].success_rate for one, _ in draws}
    assert len(rates) == DRAWS
    same = {"a": calibration.scenario, "b": Scenario.from_json(calibration.scenario.to_json())}
    found = forecast_months(same, calibration, MONTH, 60, 1)
    for key in FORECAST_METRICS:
        assert np.array_equal(found["a"][key], found["b"][key], equal_nan=True), key


def test_the_paired_difference_is_that_of_each_draw_by_brute_force():
    calibration = calibrate(simulated(Scenario(), 1)[0])
    half = gitops.named_change("production.wait_hours=*0.5", calibration.scenario)[1]
    found = forecast_months({"a": calibration.scenario, "b": half}, calibration, MONTH, 5, 3)
    noise, whole = (
        gitops.Noise(3, 1),
        Window(MONTH.start - pd.Timedelta(days=calibration.warm_up), END),
    )
    draws = calibration.draws(5)
    commits = gitops.simulate_commits(draws, whole, noise.stream("commits"))
    changed = [(half(one), many) for one, many in draws]
    means = []
    for scenarios in (draws, changed):
        events = gitops.simulate_events(scenarios, whole, noise, commits)
        rows = events.deployments
        released = (rows.environment == 2) & rows.synced & (rows.time >= MONTH.seconds[0])
        lead = (rows.time - commits.time[rows.commit]) / 3600
        means.append([lead[released & (rows.group == run)].mean() for run in range(5)])
    expected = np.array(means[1]) - np.array(means[0])
    assert found["b"]["mean_lead_time"] - found["a"]["mean_lead_time"] == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "least", "most"),
    [
        (Scenario(), 0.83, 0.96),
        (Scenario().with_team(commits_per_day=2, applications={"shop": 1}), 0.80, 0.995),
    ],
    ids=["the default team", "a small team"],
)
def test_the_band_of_a_forecast_holds_the_next_month_in_nine_of_ten_cases(scenario, least, most):
    """120 months, each after 30 days of the truth. The limits allow for two standard errors."""
    held = collections.defaultdict(list)
    for seed in range(120):
        known, came = lived(scenario, 1000 + seed, 30)
        found = months_of(calibrate(known), 100, seed)
        for key in gitops.SCORED:
            _, low, high = month_spread(found[key])
            if not math.isnan(came[key]) and not math.isnan(low):
                held[key].append(low - 1e-9 <= came[key] <= high + 1e-9)
    for key, all_held in held.items():
        assert least < np.mean(all_held) < most, key


def test_what_was_not_seen_is_assumed_and_no_measured_claim_is_made_of_it():
    history, _ = simulated(Scenario(), 1)
    rows = history.deployments.assign(health=history.deployments["health"].astype(object))
    rows[["health", "failure_reason"]] = ["Unknown", None]
    history = history._replace(
        deployments=gitops.as_table("deployments", rows),
        rollbacks=history.rollbacks.iloc[:0],
        source="argocd",
    )
    calibration = calibrate(history)
    rates = [one.success_rate for one in calibration.scenario.environments]
    assert rates == pytest.approx([0.9, 0.93, 0.95])
    assert set(calibration.assumed) == {
        *("change_failure_rate", "mttr_minutes", "failed_hours"),
        *("production_change_fail_rate", "production_failures"),
    }
    found = months_of(calibration, 20)
    assert all(np.isnan(found[key]).all() for key in calibration.assumed)
    assert gitops.level_counts(found, calibration) == {}
    window = Window.before(END, 30)
    forecast = gitops.Forecast(
        {"baseline": found}, {"baseline": calibration.scenario}, calibration, window, 1
    )
    text = gitops.format_forecast(forecast)
    assert "n/a: no successful rollback is known" in text
    assert "not assessable" in text
    assert "Assumed, as the history does not tell it: " in text
    assert "rollback.duration_min" in text
    document = gitops.forecast_document(forecast)
    assert document["what_if"]["baseline"]["levels"] is None
    assert document["fitted"]["rollback.duration_min"]["n"] == 0
    figure = gitops.draw_what_if(forecast, 30)
    assert any(
        "n/a: no successful rollback" in text.get_text() for ax in figure.axes for text in ax.texts
    )


def test_it_is_said_from_how_many_what_was_fitted():
    history, _ = simulated(Scenario(), 7)
    said = "\n".join(calibrate(history).notes)
    assert f"; n={len(history.git_commits)} commits)" in said
    for name, count in gitops.count_words(history.deployments["environment"]).items():
        assert re.search(
            rf"{name}: success_rate \S+ % \(\S+ % to \S+ %; n={count} deployments\)", said
        )


def test_a_history_of_nothing_known_cannot_be_fitted():
    history, _ = simulated(Scenario(), 1)
    unknown = history.deployments.iloc[:0]
    with pytest.raises(GitOpsError, match="nothing to fit"):
        calibrate(history._replace(deployments=unknown))


# ---- Environments with commits of their own ------------------------------------------------------


def folders_of_their_own(seed=5, days=90, merge=0):
    """Return a history whose dev and production have commits of their own.

    Those of production are half as many as those of dev, and live 6 to 12 hours later. With
    `merge`, each deployment is of a merge commit, so many seconds after the change.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    window = Window.before(END, days)
    start = window.seconds[0]
    made = np.sort(rng.integers(0, days * 86400 - 60000, 5 * days)) + start
    changes, deployments, commits = [], [], []
    for number, second in enumerate(made.tolist()):
        production = number % 3 == 2
        name = "production" if production else "dev"
        wait = int(rng.integers(6 * 3600, 12 * 3600)) if production else 120
        sha, deployed = f"{number:040x}", f"{number + 10**6 * bool(merge):040x}"
        changes.append(("shop", name, sha, *map(at, (second, second + wait + 30)), False, None))
        health = "Degraded" if rng.random() < 0.1 else "Healthy"
        reason = "Rolled back" if health == "Degraded" else None
        deployments.append(
            (at(second + wait), "shop", name, deployed, "Synced", health, 30, reason)
        )
        commits.append((sha, at(second), "x", "x", "shop", "x", "x", 1))
        if merge:
            commits.append((deployed, at(second + merge), "x", "x", "shop", "x", "x", 1))
    commits.sort(key=lambda row: row[1])
    return gitops.History(
        table("git_commits", *commits),
        table("deployments", *sorted(deployments)),
        table("rollbacks"),
        window,
        ("dev", "production"),
        source="argocd",
        changes=table("changes", *changes),
    )


def test_only_failures_of_production_say_how_often_a_rollback_works():
    """Those of dev that were mended by a newer release are no rollback that failed."""
    history, _ = simulated(Scenario().with_rollback(success_rate=1), 1, Window.before(END, 90))
    back = history.rollbacks[history.rollbacks["environment"] == "production"]
    calibration = calibrate(history._replace(rollbacks=back.reset_index(drop=True)))
    assert calibration.scenario.rollback.success_rate == 1
    none = calibrate(history._replace(rollbacks=history.rollbacks.iloc[:0]))
    assert none.scenario.rollback.success_rate == pytest.approx(0.95)
    assert "mttr_minutes" in none.assumed


def test_a_lower_bound_gives_no_level():
    history, _ = simulated(Scenario(), 1)
    rows = history.deployments.assign(health=history.deployments["health"].astype(object))
    rows.loc[rows.index[::7], ["status", "health", "failure_reason"]] = ["Synced", "Unknown", None]
    history = history._replace(deployments=gitops.as_table("deployments", rows), source="argocd")
    calibration = calibrate(history)
    assert "change_failure_rate" in calibration.bounds
    found = months_of(calibration, 20)
    forecast = gitops.Forecast(
        {"baseline": found}, {"baseline": calibration.scenario}, calibration, MONTH, 1,
        forecast_actuals(measure(history)),
    )  # fmt: skip
    text = gitops.format_forecast(forecast)
    assert "(measured)                       at least " in text
    text = " ".join(text.split())
    assert "not assessable, only a lower bound of the change failure rate was measured" in text


def test_without_a_repository_the_lead_time_is_not_known():
    history, _ = simulated(EACH, 2)
    calibration = calibrate(history._replace(git_commits=history.git_commits.iloc[:0]))
    assert "mean_lead_time" in calibration.assumed
    found, metrics = months_of(calibration, 100), calculate_dora_metrics(history)
    for key in ("deployment_frequency", "production_deployment_frequency", "change_failure_rate"):
        assert abs(metrics[key] - np.nanmean(found[key])) < 3.5 * np.nanstd(found[key]), key
    assert gitops.level_counts(found, calibration) == {}


@pytest.mark.slow
def test_a_month_does_not_begin_empty():
    """A wait of twenty days: a month that began empty would have a third of the deployments."""
    slow = Scenario().with_environment("production", promotion="each", wait_hours=(480, 480))
    known, _ = lived(slow, 1, 120)
    found = months_of(calibrate(known), 40)
    every_day = measure(known).values["production_deployment_frequency"]
    assert np.median(found["production_deployment_frequency"]) == pytest.approx(every_day, rel=0.15)


# ---- The backtest -------------------------------------------------------------------------------


def test_a_backtest_compares_each_window_with_what_was_known_before_it():
    history, _ = simulated(Scenario(), 1, Window.before(END, 180))
    found = gitops.backtest(history, runs=40, seed=3)
    assert list(dict.fromkeys(found["from"].dt.strftime("%Y-%m-%d"))) == [
        *("2025-10-03", "2025-11-02", "2025-12-02", "2026-01-01"),
    ]
    last = found[found["from"] == MONTH.start].set_index("metric")
    came = forecast_actuals(measure(history.within(MONTH)))
    before = history.within(Window(history.window.start, MONTH.start))
    month = months_of(calibrate(before), 40, 3)
    previous = forecast_actuals(measure(history.within(Window.before(MONTH.start, 30))))
    for key in gitops.SCORED:
        row = last.loc[key]
        assert row["came"] == pytest.approx(came[key], nan_ok=True)
        assert row["last"] == pytest.approx(previous[key], nan_ok=True)
        assert (row["median"], row["low"], row["high"]) == pytest.approx(month_spread(month[key]))


@pytest.mark.slow
def test_what_comes_later_changes_no_earlier_forecast():
    history, _ = simulated(Scenario(), 1, Window.before(END, 180))
    later = history.deployments["timestamp"] >= MONTH.start
    rows = history.deployments.assign(health=history.deployments["health"].astype(object))
    rows.loc[later, ["status", "health", "failure_reason"]] = ["Failed", "Degraded", "OOMKilled"]
    other = history._replace(deployments=gitops.as_table("deployments", rows))
    told = [gitops.backtest(one, runs=20) for one in (history, other)]
    for column in ("median", "low", "high"):
        assert told[0][column].equals(told[1][column])


def test_the_scores_count_what_held_and_how_far_off_each_was():
    """By hand: of two windows one held; the errors are 1 and 3, 5 and 1, 2 and 2."""
    columns = ["from", "metric", "came", "median", "low", "high", "last", "weeks"]
    rows = [
        (END, "deployment_frequency", 10.0, 11.0, 9.0, 12.0, 5.0, 8.0),
        (END, "deployment_frequency", 10.0, 13.0, 11.0, 15.0, 11.0, 12.0),
        (END, "mttr_minutes", math.nan, 13.0, 11.0, 15.0, 11.0, math.nan),
    ]
    scores = gitops.backtest_scores(pd.DataFrame(rows, columns=columns))
    row = scores.loc["deployment_frequency"]
    assert (row["windows"], row["held"]) == (2, 0.5)
    assert (row["error"], row["error_last"], row["error_weeks"]) == (2, 3, 2)
    assert math.isnan(scores.loc["mttr_minutes", "held"])
    verdict = gitops.backtest_verdict(scores)
    assert "did not hold Deployment Frequency (1 of 2): read these forecasts as a" in verdict
    assert "MTTR" not in verdict
    forecast = gitops.Forecast(
        {"baseline": months_of(Calibration(Scenario()), 5)}, {}, Calibration(Scenario()), MONTH, 1,
        scores=scores,
    )  # fmt: skip
    text = gitops.format_forecast(forecast)
    assert "Deployment Frequency (elite >1/day)  ! the band did not hold in the backtest" in text
    assert text.count("did not hold in the backtest") == 1


def test_a_history_that_is_too_short_has_no_backtest():
    history, _ = simulated(Scenario(), 1, Window.before(END, 149))
    with pytest.raises(GitOpsError, match="needs at least 150 days of history, and this has 149"):
        gitops.backtest(history)


@pytest.mark.slow
def test_the_program_says_how_its_forecasts_held(tmp_path, capsys):
    run = GitOpsAutomation(seed=3, end="2026-01-31", output_dir=tmp_path / "year")
    with contextlib.redirect_stdout(io.StringIO()):
        run.simulate_git_activity(160)
        run.simulate_deployments()
        run.simulate_rollbacks()
        run.calculate_dora_metrics()
        run.export()
    (tmp_path / "year" / "metrics.json").unlink()  # so that it is a history of files
    flags = ["--history", tmp_path / "year", "--seed", "1", "--runs", "20", "--no-dashboard"]
    environments = ["--environments", "dev,staging,production"]
    status, out, err = called(capsys, *flags, *environments, "--backtest")
    assert (status, err) == (0, "")
    assert "BACKTEST: past windows of 30 days" in out
    assert re.search(r"Deployment Frequency +3 +\d+% +\d", out)
    status, out, err = called(capsys, *flags, *environments, "--what-if", "elite", "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document["verdict"].startswith("Backtest: each past window")
    assert document["measured"]["deployment_frequency"] > 10
    status, out, err = called(capsys, *flags, *environments, "--backtest", "--days", "20", "--json")
    assert (status, json.loads(out)["days"]) == (0, 20)


def test_the_gate_knows_the_last_moment_before_a_time():
    gate = Gate.at_hours(OFFICE, (), 0.0, "UTC", *MONTH.seconds)
    friday, monday = (
        int(pd.Timestamp(f"2026-01-{day} 16:00", tz="UTC").timestamp()) for day in ("02", "05")
    )
    assert gate.before(np.array([friday])) == friday  # it is open
    assert gate.before(np.array([monday - 7 * 3600])) == friday + 3600  # the opening on Monday
    trains = Gate.at_hours("always", (), 24.0, "UTC", *MONTH.seconds)
    midnight = MONTH.seconds[0] + 5 * 86400
    assert trains.before(np.array([midnight, midnight + 1])).tolist() == [
        midnight - 86400,
        midnight,
    ]
    assert gate.next(np.array([NEVER]))[0] == NEVER
