"""Rollback manager: deployments -> rollbacks, and when each failure was over."""

import pandas as pd
import pytest
from plain_model import plain_targets, random_history, rows_of, simulated, table

from gitops_automation import RollbackPolicy, Scenario, simulate_rollbacks

START = pd.Timestamp("2026-01-05", tz="UTC")
SURE, NEVER = RollbackPolicy((10, 10), 1), RollbackPolicy((10, 10), 0)


def deployment(minute, sha, good=True, application="shop", environment="production", status=None):
    health = "Healthy" if good else "Degraded"
    status = status or ("Synced" if good else "Failed")
    reason = None if good else "OOMKilled"
    moment = START + pd.Timedelta(minutes=minute)
    return (moment, application, environment, sha, status, health, 30, reason)


def rolled_back(*rows, policy=SURE):
    return simulate_rollbacks(table("deployments", *rows), policy, seed=1)


def test_a_failure_returns_to_the_newest_earlier_good_release_of_its_place():
    _, rollbacks = rolled_back(
        deployment(0, "a"),
        deployment(1, "b"),
        deployment(2, "other", application="cart"),
        deployment(3, "upstream", environment="dev"),
        deployment(4, "bad", good=False, status="Synced"),  # no place to return to, either
        deployment(7, "worse", good=False),
        deployment(8, "later"),
    )
    assert list(rollbacks["from_commit"]) == ["bad", "worse"]
    assert list(rollbacks["to_commit"]) == ["b", "b"]
    assert list(rollbacks["reason"]) == ["OOMKilled", "OOMKilled"]
    detected = [START + pd.Timedelta(minutes=minute, seconds=30) for minute in (4, 7)]
    assert list(rollbacks["timestamp"]) == detected  # when the sync ended


def test_a_failure_with_no_earlier_good_release_has_no_rollback():
    rows = deployment(0, "a", good=False), deployment(1, "b", environment="dev")
    deployments, rollbacks = rolled_back(*rows)
    assert len(rollbacks) == 0
    assert deployments["recovered"].isna().all()


def test_a_failure_is_over_when_its_rollback_worked_or_else_when_the_next_good_release_is_up():
    rows = [
        deployment(0, "a"),
        deployment(5, "bad", good=False),
        deployment(90, "worse", good=False),
        deployment(120, "mended"),
        deployment(150, "broken", good=False),
    ]
    for policy, minutes in ((SURE, (15, 100, 160)), (NEVER, (120, 120, None))):
        recovered = rolled_back(*rows, policy=policy)[0]["recovered"]
        expected = [
            minute and START + pd.Timedelta(minutes=minute, seconds=30) for minute in minutes
        ]
        found = [recovered[row] if pd.notna(recovered[row]) else None for row in (1, 2, 4)]
        assert found == expected
        assert recovered[[0, 3]].isna().all()


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
    assert history.rollbacks["timestamp"].is_monotonic_increasing


def test_rollbacks_follow_the_policy():
    scenario = Scenario().with_team(commits_per_day=400).with_environment("dev", success_rate=0.5)
    rollbacks = simulated(scenario, seed=3)[0].rollbacks
    assert len(rollbacks) > 2000
    assert rollbacks["duration_min"].between(5, 15).all()
    assert rollbacks["duration_min"].mean() == pytest.approx(10, abs=0.2)
    assert rollbacks["success"].mean() == pytest.approx(0.95, abs=0.02)
