"""Rollback manager: deployments -> rollbacks."""

import numpy as np
import pandas as pd
import pytest
from plain_model import MONTH, plain_targets, random_history, rows_of, simulated, table

from gitops_automation import (
    Environment,
    Noise,
    RollbackPolicy,
    Scenario,
    simulate_commits,
    simulate_events,
    simulate_rollbacks,
)

START = pd.Timestamp("2026-01-05", tz="UTC")


def deployment(minute, sha, good=True, application="shop", environment="production", status=None):
    health = "Healthy" if good else "Degraded"
    status = status or ("Synced" if good else "Failed")
    reason = None if good else "OOMKilled"
    moment = START + pd.Timedelta(minutes=minute)
    return (moment, application, environment, sha, status, health, 30, reason)


def test_a_failure_returns_to_the_newest_earlier_good_release_of_its_place():
    deployments = table(
        "deployments",
        deployment(0, "a"),
        deployment(1, "b"),
        deployment(2, "other", application="cart"),
        deployment(3, "upstream", environment="dev"),
        deployment(4, "bad", good=False),
        deployment(5, "worse", good=False),
        deployment(6, "later"),
    )
    _, rollbacks = simulate_rollbacks(deployments, RollbackPolicy(), seed=1)
    assert list(rollbacks["from_commit"]) == ["bad", "worse"]
    assert list(rollbacks["to_commit"]) == ["b", "b"]
    assert list(rollbacks["reason"]) == ["OOMKilled", "OOMKilled"]


def test_a_failure_with_no_earlier_good_release_has_no_rollback():
    deployments = table(
        "deployments", deployment(0, "a", good=False), deployment(1, "b", environment="dev")
    )
    assert len(simulate_rollbacks(deployments, RollbackPolicy(), seed=1)[1]) == 0


def test_an_applied_release_that_turned_out_bad_is_no_place_to_return_to():
    rows = (
        deployment(0, "a"),
        deployment(1, "b", good=False, status="Synced"),
        deployment(2, "c", good=False),
    )
    _, rollbacks = simulate_rollbacks(table("deployments", *rows), RollbackPolicy(), seed=1)
    assert list(rollbacks["to_commit"]) == ["a", "a"]


def test_a_failure_is_detected_when_its_sync_ends():
    rows = deployment(0, "a"), deployment(7, "b", good=False)
    (moment,) = simulate_rollbacks(table("deployments", *rows), RollbackPolicy(), seed=1)[1][
        "timestamp"
    ]
    assert moment == START + pd.Timedelta(minutes=7, seconds=30)


@pytest.mark.parametrize("seed", range(20))
def test_targets_agree_with_a_plain_loop(seed):
    history = random_history(seed)
    rows = history.deployments.to_dict("records")
    releases = [
        ((row["application"], row["environment"]), row["health"] == "Healthy") for row in rows
    ]
    expected = [
        (row["application"], row["environment"], row["commit_sha"], rows[target]["commit_sha"])
        for row, target in zip(rows, map(plain_targets(releases).get, range(len(rows))))
        if target is not None
    ]
    found = [row[1:5] for row in rows_of(history.rollbacks)]
    assert sorted(found) == sorted(expected)


def test_rollbacks_follow_the_policy():
    scenario = Scenario().with_team(commits_per_day=400).with_environment("dev", success_rate=0.5)
    rollbacks = simulated(scenario.with_rollback(duration_min=(5, 15), success_rate=0.95), seed=3)[
        0
    ].rollbacks
    assert len(rollbacks) > 2000
    assert rollbacks["duration_min"].between(5, 15).all()
    assert rollbacks["duration_min"].mean() == pytest.approx(10, abs=0.2)
    assert rollbacks["success"].mean() == pytest.approx(0.95, abs=0.02)


def test_the_same_input_gives_the_same_rollbacks():
    deployments = random_history(5).deployments
    before = deployments.copy(deep=True)
    one, two = (simulate_rollbacks(deployments, RollbackPolicy(), seed=9)[1] for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    pd.testing.assert_frame_equal(deployments, before)


def test_rollbacks_are_in_the_order_in_which_failures_were_detected():
    for seed in range(5):
        times = random_history(seed).rollbacks["timestamp"]
        assert times.is_monotonic_increasing
        assert np.issubdtype(times.to_numpy("M8[ns]").dtype, np.datetime64)


# ---- A release train, which ships several commits at once ---------------------------------------


TRAIN = Scenario(
    environments=[Environment("live", 0.6, (0, 0), (60, 60), "each", release_every_hours=168)]
)


def test_a_failure_on_a_train_returns_to_an_earlier_commit_of_the_same_departure():
    history, _ = simulated(TRAIN, 1)
    committed = {sha: row for row, sha in enumerate(history.git_commits["sha"])}
    departed = dict(zip(history.deployments["commit_sha"], history.deployments["timestamp"]))
    assert history.deployments["timestamp"].nunique() <= 5
    rollbacks = history.rollbacks
    assert len(rollbacks) > 40
    assert all(
        committed[old] < committed[new]
        for new, old in zip(rollbacks["from_commit"], rollbacks["to_commit"])
    )
    same = [
        departed[new] == departed[old]
        for new, old in zip(rollbacks["from_commit"], rollbacks["to_commit"])
    ]
    assert np.mean(same) > 0.8


def test_a_forecast_has_as_many_rollbacks_on_a_train_as_single_months():
    single = [simulated(TRAIN, seed)[0].rollbacks["success"].sum() for seed in range(30)]
    draws, noise = [(TRAIN, 300)], Noise(1)
    commits = simulate_commits(draws, MONTH, noise.stream("commits"))
    back = simulate_events(draws, MONTH, noise, commits).rollbacks
    months = np.bincount(back.group[back.success], minlength=300)
    error = np.hypot(np.std(single) / 30**0.5, np.std(months) / 300**0.5)
    assert np.mean(single) > 40
    assert abs(np.mean(single) - np.mean(months)) < 4 * error
