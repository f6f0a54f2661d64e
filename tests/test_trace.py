"""Trace: history -> the life of one release."""

import json
import re

import pandas as pd
import pytest
from conftest import called
from plain_model import simulated, table

import gitops_automation as gitops
from gitops_automation import GitOpsError, History, Scenario, Window, measure
from gitops_automation import trace_release as trace

START = pd.Timestamp("2026-01-05", tz="UTC")
WINDOW = Window(START, START + pd.Timedelta(days=5))
STAGES = ("dev", "production")
A, B, C, D = ("%040x" % (number << 150) for number in range(1, 5))


def at(hour):
    return START + pd.Timedelta(hours=hour)


def commit(hour, sha, application="shop"):
    return (sha, at(hour), "alice", "fix", application, "main", f"fix({application}): it", 1)


def sync(hour, environment, sha, bad=False, application="shop"):
    status, health = ("Failed", "Degraded") if bad else ("Synced", "Healthy")
    return (
        at(hour),
        application,
        environment,
        sha,
        status,
        health,
        60,
        "OOMKilled" if bad else None,
    )


def small_history():
    """A arrives by itself, B is overtaken by C, which fails in production, and D arrives too late.

    cart has a release of the same commit as shop's A.
    """
    commits = [commit(0, A), commit(0, A, "cart"), commit(1, B), commit(2, C), commit(100, D)]
    deployments = [
        sync(0, "dev", A),
        sync(1, "dev", B),
        sync(2, "dev", C),
        sync(24, "production", A),
        sync(25, "production", A, application="cart"),
        sync(26, "production", C, bad=True),
        sync(100, "dev", D),
    ]
    failed = at(26) + pd.Timedelta(seconds=60)
    back = (failed, "shop", "production", C, A, "OOMKilled", 10.0, True)
    tables = table("git_commits", *commits[:1], *commits[2:]), table("deployments", *deployments)
    return History(*tables, table("rollbacks", back), WINDOW, STAGES)


def told(steps, step, environment):
    """Return what happened at one step, and what it counts for."""
    rows = steps[(steps["step"] == step) & (steps["environment"] == environment)]
    (row,) = rows.to_dict("records")
    return row["what"], row["counts_for"]


def test_a_release_that_arrives_by_itself_is_told_step_by_step():
    steps = trace(small_history(), f"shop:{A[:6]}")
    assert list(steps.columns) == gitops.TRACE_COLUMNS
    assert list(steps["step"]) == ["commit", "sync", "end", "sync", "end"]
    assert steps["timestamp"].is_monotonic_increasing
    assert told(steps, "sync", "dev")[0] == "at once after the commit"
    waited, metric = told(steps, "sync", "production")
    assert waited == "23.98 h after dev had it"
    assert metric == "Deployment Frequency"
    outcome, metrics = told(steps, "end", "production")
    assert outcome == "Synced after 60 s, healthy"
    assert metrics == "Change Failure Rate (as good), Lead Time (1 change: 24.00 h)"


def test_a_release_that_was_overtaken_says_which_one_brought_its_change():
    history = small_history()
    good = sync(48, "production", C)
    more = pd.concat([history.deployments, table("deployments", good)], ignore_index=True)
    history = history._replace(deployments=gitops.as_table("deployments", more))
    what, metric = told(trace(history, B), "carried", "production")
    assert what == f"came with {C[:7]}, a newer release"
    assert metric == "Change lead time (47.02 h)"


def test_a_change_that_nothing_brought_waits_at_the_end_of_the_window():
    steps = trace(small_history(), D)
    assert told(steps, "waits", "production")[1] == "Changes not yet shipped"
    assert steps["timestamp"].iloc[-1] == WINDOW.end


def test_a_failure_is_told_with_its_reason_and_its_rollback():
    steps = trace(small_history(), "failed")
    assert steps.attrs == {"application": "shop", "commit": C}
    assert told(steps, "end", "production") == (
        "Failed after 60 s, degraded: OOMKilled",
        "Change Failure Rate (as failed)",
    )
    assert told(steps, "rollback", "production") == (
        f"to {A[:7]} succeeded after 10.00 min",
        "MTTR (10.00 min)",
    )


def test_the_latest_and_the_slowest_are_those_of_production():
    history = small_history()
    assert trace(history, "latest").attrs["commit"] == C
    assert trace(history, "slowest").attrs["commit"] == A
    history = history._replace(deployments=history.deployments.iloc[:1])
    with pytest.raises(GitOpsError, match="no latest one"):
        trace(history, "latest")


@pytest.mark.parametrize(
    ("name", "told"),
    [("ffff", "no release is 'ffff'; take a"), (A[:6], "2 releases .*cart:"), ("", "no release")],
)
def test_a_name_of_no_release_or_of_several_is_refused(name, told):
    with pytest.raises(GitOpsError, match=told):
        trace(small_history(), name)


def test_all_releases_together_count_for_what_the_metrics_count():
    scenario = Scenario().with_environment("production", wait_hours=(4, 12))
    history, _ = simulated(scenario, 3, Window.before(pd.Timestamp("2026-01-31", tz="UTC"), 10))
    every = [trace(history, sha, scenario) for sha in history.git_commits["sha"]]
    steps = pd.concat(every, ignore_index=True)
    metrics, counts = measure(history), steps["counts_for"]
    values = metrics.values
    assert (counts == "Deployment Frequency").sum() == values["total_deployments"]
    assert counts.str.contains("as failed").sum() == values["failed_deployments"] > 0
    minutes = counts.str.extract(r"MTTR \((\S+) min\)")[0].dropna().astype(float)
    assert len(minutes) == values["successful_rollbacks"]
    assert minutes.mean() == pytest.approx(values["mttr_minutes"], abs=0.01)
    assert (
        counts.str.contains("Lead Time (1 change", regex=False).sum() == values["dated_deployments"]
    )
    waiting = metrics.overall.at["change_lead_time_hours", "open"]
    assert (counts == "Changes not yet shipped").sum() == waiting > 0
    assert steps["what"].str.contains("(after 4-12 h, newest wins)", regex=False).any()


def test_the_program_prints_the_life_of_a_release(capsys, tmp_path):
    run = ["--seed", "7", "--end", "2026-01-31", "--days", "10", "--output", tmp_path]
    status, out, err = called(capsys, *run, "--trace", "slowest")
    assert (status, err) == (0, "")
    assert re.search(r"^🔍 RELEASE [0-9a-f]{12} OF \w+$", out, re.M)
    assert "→ Deployment Frequency" in out
    assert "VERDICT" not in out
    assert max(map(len, out.splitlines())) <= 100
    document = json.loads(called(capsys, *run, "--trace", "slowest", "--json")[1])
    assert document["steps"][0]["step"] == "commit"
    status, out, err = called(capsys, *run, "--trace", "nothing")
    assert status == 2
    assert "no release is 'nothing'" in err
