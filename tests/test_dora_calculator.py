"""DORA calculator: history -> metrics."""

import math
import random

import numpy as np
import pandas as pd
import pytest
from plain_model import END, assorted_scenarios, empty_history, plain_metrics, random_history, table
from plain_model import simulated as simulated_with_flow

from gitops_automation import (
    BENCHMARKS,
    METRICS,
    GitOpsError,
    History,
    Scenario,
    Window,
    calculate_dora_metrics,
    calculate_maturity,
    check_history,
    is_elite,
)

ELITE = {"deployment_frequency": 2.0, "mean_lead_time": 1.0, "mttr_minutes": 10.0, "change_failure_rate": 5.0}
MISSED = {"deployment_frequency": 0.5, "mean_lead_time": 30.0, "mttr_minutes": 90.0, "change_failure_rate": 20.0}


def simulated(scenario, seed):
    return simulated_with_flow(scenario, seed)[0]


def at(hour, minute=0):
    return pd.Timestamp("2026-01-05", tz="UTC") + pd.Timedelta(hours=hour, minutes=minute)


def by_hand():
    """Two days, two applications, dev and production.

    Commits: a (shop) at 00:00, b (cart) at 01:00, c (shop) at 02:00.
    dev: a at 01:00 good, b at 02:00 good, c at 03:00 fails, c again at 04:00 good.
    production: a at 10:00 good, b at 11:00 fails, c at 20:00 good, b at 23:00 Synced and Degraded.

    Deployments: 8 in 2 days = 4 a day; in production 4, 2 a day. Failed: 3 of 8 = 37.5 %.
    Healthy: dev 3 of 4 = 75 %, production 2 of 4 = 50 %, in all 5 of 8 = 62.5 %.
    Lead times of what was Synced in production: a 10 h, c 18 h, b 22 h: mean 50/3 h, median 18 h.
    To dev: a 1 h, c 1 h (03:00, the first), b 1 h: mean 1 h; from there: 9, 17, 21 h: mean 47/3 h.
    Rollbacks: c in dev to a, 6 min, good; b at 23:00 has no earlier good release of cart, nor had the one at
    11:00. MTTR: 6 min. Failures without rollback: 2.
    """
    commits = table(
        "git_commits",
        ("a" * 40, at(0), "eve", "feat", "shop", "main", "m", 1),
        ("b" * 40, at(1), "eve", "fix", "cart", "main", "m", 1),
        ("c" * 40, at(2), "eve", "feat", "shop", "main", "m", 1),
    )
    good, failed = ("Synced", "Healthy", 60, None), ("Failed", "Degraded", 60, "OOMKilled")
    applied = ("Synced", "Degraded", 60, "CrashLoopBackOff")
    deployments = table(
        "deployments",
        (at(1), "shop", "dev", "a" * 40, *good),
        (at(2), "cart", "dev", "b" * 40, *good),
        (at(3), "shop", "dev", "c" * 40, *failed),
        (at(4), "shop", "dev", "c" * 40, *good),
        (at(10), "shop", "production", "a" * 40, *good),
        (at(11), "cart", "production", "b" * 40, *failed),
        (at(20), "shop", "production", "c" * 40, *good),
        (at(23), "cart", "production", "b" * 40, *applied),
    )
    rollbacks = table("rollbacks", (at(3, 1), "shop", "dev", "c" * 40, "a" * 40, "OOMKilled", 6.0, True))
    window = Window.before(pd.Timestamp("2026-01-07", tz="UTC"), 2)
    return History(commits, deployments, rollbacks, window, ("dev", "production"))


def same(one, two):
    """Equal numbers, NaN equal to NaN, in dicts of dicts."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(value, two[key]) for key, value in one.items())
    return one == pytest.approx(two, rel=1e-12, abs=1e-12, nan_ok=True)


def test_the_metrics_of_a_small_history_are_those_worked_out_by_hand():
    history = by_hand()
    check_history(history)
    assert same(
        calculate_dora_metrics(history),
        {
            "deployment_frequency": 4.0,
            "mean_lead_time": 50 / 3,
            "median_lead_time": 18.0,
            "lead_time_hours_by_environment": {"dev": 1.0, "production": 47 / 3},
            "success_rates": {"dev": 75.0, "production": 50.0},
            "overall_success_rate": 62.5,
            "change_failure_rate": 37.5,
            "mttr_minutes": 6.0,
            "production_deployment_frequency": 2.0,
            "total_deployments": 8,
            "failed_deployments": 3,
            "total_rollbacks": 1,
            "successful_rollbacks": 1,
            "failures_without_rollback": 2,
            "failure_reasons": {"OOMKilled": 2, "CrashLoopBackOff": 1},
            "failure_reasons_by_environment": {
                "dev": {"OOMKilled": 1},
                "production": {"CrashLoopBackOff": 1, "OOMKilled": 1},
            },
        },
    )


def without_places(metrics):
    return {key: value for key, value in metrics.items() if key != "failure_reasons_by_environment"}


@pytest.mark.parametrize("seed", range(80))
def test_metrics_of_any_history_agree_with_a_plain_loop(seed):
    history = random_history(seed)
    check_history(history)
    assert same(without_places(calculate_dora_metrics(history)), plain_metrics(history))


@pytest.mark.parametrize("seed", range(4))
def test_metrics_of_simulations_agree_with_a_plain_loop(seed):
    for scenario in assorted_scenarios():
        history = simulated(scenario, seed)
        check_history(history)
        assert same(without_places(calculate_dora_metrics(history)), plain_metrics(history))


def test_every_metric_has_a_definition():
    assert set(calculate_dora_metrics(empty_history())) == set(METRICS)
    assert all(metric.definition.endswith(".") for metric in METRICS.values())


def test_reasons_of_the_environments_add_up_to_those_of_all():
    for seed in range(30):
        metrics = calculate_dora_metrics(random_history(seed))
        places = metrics["failure_reasons_by_environment"].values()
        for reason, count in metrics["failure_reasons"].items():
            assert sum(place.get(reason, 0) for place in places) == count


def test_an_empty_history_is_undefined_and_never_elite():
    metrics = calculate_dora_metrics(empty_history())
    for key in ("mean_lead_time", "median_lead_time", "mttr_minutes", "change_failure_rate", "overall_success_rate"):
        assert math.isnan(metrics[key])
    assert all(map(math.isnan, metrics["success_rates"].values()))
    assert not any(is_elite(key, metrics) for key in BENCHMARKS)


def test_without_a_failed_deployment_the_recovery_target_counts_as_met():
    assert is_elite("mttr_minutes", {**ELITE, "mttr_minutes": math.nan, "change_failure_rate": 0.0})
    assert not is_elite("mttr_minutes", {**ELITE, "mttr_minutes": math.nan, "change_failure_rate": 3.0})


@pytest.mark.parametrize("key", BENCHMARKS)
def test_an_undefined_benchmark_is_not_met(key):
    assert not is_elite(key, {**ELITE, key: math.nan})


@pytest.mark.parametrize("key", BENCHMARKS)
def test_a_value_at_its_limit_is_not_elite(key):
    assert not is_elite(key, {**ELITE, key: float(BENCHMARKS[key].limit)})


@pytest.mark.parametrize(
    ("missed", "level"),
    [
        (0, "🏆 ELITE PERFORMER"),
        (1, "🥈 HIGH PERFORMER"),
        (2, "🥉 MEDIUM PERFORMER"),
        (3, "📈 NEEDS IMPROVEMENT"),
        (4, "📈 NEEDS IMPROVEMENT"),
    ],
)
def test_every_level_is_reached_by_its_number_of_criteria(missed, level):
    keys = random.Random(missed).sample(sorted(MISSED), missed)
    assert calculate_maturity({**ELITE, **{key: MISSED[key] for key in keys}}) == level


@pytest.mark.parametrize("key", BENCHMARKS)
def test_a_missing_metric_is_named(key):
    with pytest.raises(GitOpsError, match=key):
        calculate_maturity({name: value for name, value in ELITE.items() if name != key})


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_rows_changes_nothing(seed):
    history = simulated(Scenario(), seed)
    tables = [
        getattr(history, name).sample(frac=1, random_state=seed).sort_values("timestamp", kind="mergesort")
        for name in ("git_commits", "deployments", "rollbacks")
    ]
    shuffled = History.of(*tables, window=history.window, environments=history.environments)
    assert same(calculate_dora_metrics(shuffled), calculate_dora_metrics(history))


@pytest.mark.parametrize("days", [1, 45])
def test_shifting_all_times_changes_nothing(days):
    history, shift = simulated(Scenario(), 1), pd.Timedelta(days=days)
    tables = [
        getattr(history, name).assign(timestamp=lambda table: table["timestamp"] - shift)
        for name in ("git_commits", "deployments", "rollbacks")
    ]
    window = Window(history.window.start - shift, history.window.end - shift)
    moved = History.of(*tables, window=window, environments=history.environments)
    assert same(calculate_dora_metrics(moved), calculate_dora_metrics(history))


def corrupted(name, column, value, row=0):
    history = simulated(Scenario(), 2)
    damaged = getattr(history, name).copy()
    damaged[column] = damaged[column].astype(object)
    damaged.loc[damaged.index[row], column] = value
    return history._replace(**{name: damaged})


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("git_commits", "sha", "not a sha"),
        ("git_commits", "files_changed", -1),
        ("git_commits", "author", None),
        ("deployments", "environment", "moon"),
        ("deployments", "status", "Unknown"),
        ("deployments", "health", "Unknown"),
        ("deployments", "duration_sec", -1),
        ("deployments", "failure_reason", "made up"),
        ("deployments", "timestamp", END),
        ("deployments", "application", None),
        ("deployments", "commit_sha", None),
        ("rollbacks", "environment", "moon"),
        ("rollbacks", "duration_min", -1.0),
        ("rollbacks", "reason", None),
    ],
)
def test_a_single_damaged_value_is_found(name, column, value):
    with pytest.raises(AssertionError, match=name):
        check_history(corrupted(name, column, value))


def test_nothing_is_drawn_from_or_done_to_the_global_random_state():
    np.random.seed(5)  # noqa: NPY002 - the state that must stay
    random.seed(5)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    calculate_dora_metrics(simulated(Scenario(), 1))
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert random.getstate() == before[1]
