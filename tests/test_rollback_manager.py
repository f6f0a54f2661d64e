"""Rollback manager: deployments -> rollbacks."""

import numpy as np
import pandas as pd
import pytest
from plain_model import plain_targets, random_history, simulated, table

from gitops_automation import RollbackPolicy, Scenario, last_good_releases, simulate_rollbacks

START = pd.Timestamp("2026-01-05", tz="UTC")


def deployment(minute, sha, good=True, application="shop", environment="production", status=None):
    health = "Healthy" if good else "Degraded"
    status = status or ("Synced" if good else "Failed")
    reason = None if good else "OOMKilled"
    moment = START + pd.Timedelta(minutes=minute)
    return (moment, application, environment, sha, status, health, 30, reason)


def test_a_failure_returns_to_the_newest_earlier_good_release_of_its_application_and_environment():
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
    rollbacks = simulate_rollbacks(deployments, RollbackPolicy(), seed=1)
    assert list(rollbacks["from_commit"]) == ["bad", "worse"]
    assert list(rollbacks["to_commit"]) == ["b", "b"]
    assert list(rollbacks["reason"]) == ["OOMKilled", "OOMKilled"]


def test_a_failure_with_no_earlier_good_release_has_no_rollback():
    deployments = table("deployments", deployment(0, "a", good=False), deployment(1, "b", environment="dev"))
    assert len(simulate_rollbacks(deployments, RollbackPolicy(), seed=1)) == 0


def test_a_release_that_was_applied_and_turned_out_bad_is_no_place_to_return_to():
    rows = deployment(0, "a"), deployment(1, "b", good=False, status="Synced"), deployment(2, "c", good=False)
    rollbacks = simulate_rollbacks(table("deployments", *rows), RollbackPolicy(), seed=1)
    assert list(rollbacks["to_commit"]) == ["a", "a"]


def test_a_failure_is_detected_when_its_sync_ends():
    rows = deployment(0, "a"), deployment(7, "b", good=False)
    (moment,) = simulate_rollbacks(table("deployments", *rows), RollbackPolicy(), seed=1)["timestamp"]
    assert moment == START + pd.Timedelta(minutes=7, seconds=30)


@pytest.mark.parametrize("seed", range(60))
def test_targets_agree_with_a_plain_loop(seed):
    deployments = random_history(seed).deployments
    failed, target = last_good_releases(deployments)
    ours = {int(row): (int(to) if to >= 0 else None) for row, to in zip(failed, target)}
    assert ours == plain_targets(deployments)


def test_minutes_and_outcomes_follow_the_policy():
    scenario = Scenario().with_team(commits_per_day=400).with_environment("dev", success_rate=0.5)
    rollbacks = simulated(scenario.with_rollback(duration_min=(5, 15), success_rate=0.95), seed=3)[0].rollbacks
    assert len(rollbacks) > 2000
    assert rollbacks["duration_min"].between(5, 15).all()
    assert rollbacks["duration_min"].mean() == pytest.approx(10, abs=0.2)
    assert rollbacks["success"].mean() == pytest.approx(0.95, abs=0.02)


def test_the_seed_repeats_a_run_and_the_input_is_left_alone():
    deployments = random_history(5).deployments
    before = deployments.copy(deep=True)
    one, two = (simulate_rollbacks(deployments, RollbackPolicy(), seed=9) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    pd.testing.assert_frame_equal(deployments, before)


def test_rollbacks_are_in_the_order_in_which_failures_were_detected():
    for seed in range(20):
        times = random_history(seed).rollbacks["timestamp"]
        assert times.is_monotonic_increasing
        assert np.issubdtype(times.to_numpy("M8[ns]").dtype, np.datetime64)
