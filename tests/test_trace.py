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
    over = at(hour) + pd.Timedelta(seconds=660)
    good, failed = ("Synced", "Healthy", 60), ("Failed", "Degraded", 60, "OOMKilled", over)
    return (at(hour), application, environment, sha, *(failed if bad else good))


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
    """Return what happened at one step."""
    rows = steps[(steps["step"] == step) & (steps["environment"] == environment)]
    (row,) = rows.to_dict("records")
    return row["what"]


def test_a_release_that_arrives_by_itself_is_told_step_by_step():
    steps = trace(small_history(), f"shop:{A[:6]}")
    assert list(steps.columns) == ["timestamp", "environment", "step", "what"]
    assert list(steps["step"]) == ["commit", "sync", "end", "sync", "end"]
    assert steps["timestamp"].is_monotonic_increasing
    assert told(steps, "commit", "") == f"{A[:7]} by alice: fix(shop): it"
    assert told(steps, "sync", "dev") == "at once after the commit"
    assert told(steps, "sync", "production") == "23.98 h after dev had it"
    outcome = "Synced after 60 s, healthy; 24.02 h after the commit"
    assert told(steps, "end", "production") == outcome


def test_a_release_that_was_overtaken_says_which_one_brought_its_change():
    history = small_history()
    good = sync(48, "production", C)
    more = pd.concat([history.deployments, table("deployments", good)], ignore_index=True)
    history = history._replace(deployments=gitops.as_table("deployments", more))
    what = told(trace(history, B), "sync", "production")
    assert what == f"46.98 h after dev had it, in release {C[:7]}"
    assert told(trace(history, B), "end", "production").endswith("47.02 h after the commit")


def test_a_change_that_nothing_brought_waits_at_the_end_of_the_window():
    steps = trace(small_history(), D)
    assert told(steps, "waits", "production") == "not there when the window ends"
    assert steps["timestamp"].iloc[-1] == WINDOW.end


def test_a_failure_is_told_with_its_reason_and_its_rollback():
    steps = trace(small_history(), "failed")
    assert steps.attrs == {"application": "shop", "commit": C}
    assert told(steps, "end", "production") == "Failed after 60 s, degraded: OOMKilled"
    assert told(steps, "rollback", "production") == f"to {A[:7]} succeeded after 10.00 min"
    assert "recovery" not in list(steps["step"])  # the rollback says it


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


def real_history():
    """Two versions: 1.0 came to dev and was promoted by a merge; 1.1 came along with 1.2.

    The changes are named by the first commit of a version, the deployments by the commit that
    changed the place. Of 1.2 production was degraded until a look an hour later.
    """
    minute = pd.Timedelta(seconds=60)

    def ways(sha, version, hour, dev, live):
        for name, came in (("dev", dev), ("production", live)):
            yield ("shop", name, sha, version, at(hour), at(came) + minute)

    merge = "f" * 40
    bad = (at(30), "shop", "production", C, "Synced", "Degraded", 60, "x", at(31) + minute)
    deployments = [sync(1, "dev", A), sync(10, "production", merge), sync(3, "dev", B)]
    deployments = sorted([*deployments, sync(4, "dev", C), bad], key=lambda row: row[0])
    changes = [*ways(A, "1.0", 0, 1, 10), *ways(B, "1.1", 3, 3, 30), *ways(C, "1.2", 4, 4, 30)]
    return History(
        table("git_commits", commit(0, A)),
        table("deployments", *deployments),
        table("rollbacks"),
        WINDOW,
        STAGES,
        "git",
        changes=table("changes", *changes),
    )


def test_a_version_is_found_by_its_name_and_a_merge_by_its_commit():
    history = real_history()
    version, merge = trace(history, "1.0"), trace(history, "ffff")
    assert (version.attrs["commit"], merge.attrs["commit"]) == (A, "f" * 40)
    commit = f"{A[:7]} 1.0 by alice: fix(shop): it"
    assert told(version, "commit", "") == told(merge, "commit", "") == commit
    assert told(version, "sync", "production") == "8.98 h after dev had it, in release fffffff"
    assert told(merge, "sync", "production") == "8.98 h after dev had it"


def test_the_slowest_is_the_change_that_waited_longest():
    steps = trace(real_history(), "slowest")
    assert steps.attrs == {"application": "shop", "commit": B}
    assert (
        told(steps, "end", "production")
        == "Synced after 60 s, degraded: x; 27.02 h after the commit"
    )
    assert told(steps, "recovery", "production") == "good again after 60.00 min"


def test_every_release_of_a_simulation_says_what_each_step_waited_for():
    scenario = Scenario().with_environment("production", wait_hours=(4, 12))
    history, _ = simulated(scenario, 3, Window.before(pd.Timestamp("2026-01-31", tz="UTC"), 5))
    steps = pd.concat([trace(history, sha, scenario) for sha in history.git_commits["sha"]])
    metrics = measure(history)
    own = steps[(steps["step"] == "sync") & ~steps["what"].str.contains("in release")]
    assert len(own) == metrics.values["total_deployments"]
    assert steps["what"].str.contains("degraded").sum() >= metrics.values["failed_deployments"] > 0
    assert (steps["step"] == "rollback").sum() == metrics.values["total_rollbacks"]
    assert (steps["step"] == "waits").sum() == metrics.production_rows[gitops.LEAD].open > 0
    assert steps["what"].str.contains("(after 4-12 h, newest wins)", regex=False).any()


def test_a_notebook_cuts_no_word_off():
    steps = trace(small_history(), "failed")
    long = gitops.TraceTable(steps.assign(what="x" * 200))
    assert "x" * 200 in long._repr_html_()


def test_the_program_prints_the_life_of_a_release(capsys, tmp_path):
    run = ["--seed", "7", "--end", "2026-01-31", "--days", "10", "--output", tmp_path]
    status, out, err = called(capsys, *run, "--trace", "slowest")
    assert (status, err) == (0, "")
    assert re.search(r"^🔍 RELEASE [0-9a-f]{12} OF \w+$", out, re.M)
    assert "after the commit" in out
    assert "MATURITY" not in out
    assert max(map(len, out.splitlines())) <= 80
    document = json.loads(called(capsys, *run, "--trace", "slowest", "--json")[1])
    assert document["steps"][0]["step"] == "commit"
    status, out, err = called(capsys, *run, "--trace", "nothing")
    assert status == 2
    assert "no release is 'nothing'" in err


def test_a_version_is_traced_through_the_repository_and_the_cluster(capsys, team):
    """A commit brought v9 to staging, another one to production; then production went back."""
    run = ["--argocd", team / "apps.json", "--repo", team / "config", "--json", "--trace"]

    def steps_of(name):
        status, out, err = called(capsys, *run, name)
        assert (status, err) == (0, "")
        return [(row["environment"], row["step"], row["what"]) for row in json.loads(out)["steps"]]

    steps = steps_of("v9")
    assert [step for _, step, _ in steps] == [*["commit", "sync", "end"] * 2, "rollback"]
    assert steps[4] == ("production", "sync", "5.99 h after staging had it")
    assert steps_of("slowest") == [("", *steps[3][1:]), *steps_of("slowest")[1:3], steps[-1]]
