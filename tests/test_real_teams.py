"""Generated real teams whose truth is known: every mark is what the truth says, from each source.

A team deploys to production every so many hours. Each version was first committed to dev a lead
time before. Some versions are bad: after so many minutes production goes back to the one before.
"""

import csv
import json
import math

import argocd_documents as documents
import pytest
from conftest import TEMPLATE, called, git

START = documents.seconds("2026-01-05 00:00")
DAYS, FAST = 30, ["--seed", "7", "--runs", "3", "--no-dashboard", "--json"]
KEYS = ["deployment_frequency", "median_lead_time", "mttr_minutes", "change_failure_rate"]
TEAMS = {  # hours between deployments, lead hours, every n-th is bad, minutes until it is back
    "elite": (12, 3, 9, 20),
    "waits long": (10, 30, 9, 20),
    "often bad": (6, 5, 4, 15),
    "rare and often bad": (72, 50, 3, 90),
}
MET, MISSED, OPEN = True, False, None
MARKS = {  # (team, source): frequency, lead time, recovery, fail rate; and the level
    ("elite", "config repository"): ([MET, MET, MET, OPEN], None),
    ("elite", "argocd"): ([MET, OPEN, MET, OPEN], None),
    ("elite", "both"): ([MET, MET, MET, OPEN], None),
    ("elite", "tables with incidents"): ([MET] * 4, "ELITE PERFORMER"),
    ("waits long", "config repository"): ([MET, MISSED, MET, OPEN], None),
    ("waits long", "argocd"): ([MET, OPEN, MET, OPEN], None),
    ("waits long", "both"): ([MET, MISSED, MET, OPEN], None),
    ("waits long", "tables with incidents"): ([MET, MISSED, MET, MET], "HIGH PERFORMER"),
    ("often bad", "config repository"): ([MET, MET, MET, MISSED], "HIGH PERFORMER"),
    ("often bad", "argocd"): ([MET, OPEN, MET, MISSED], None),
    ("often bad", "both"): ([MET, MET, MET, MISSED], "HIGH PERFORMER"),
    ("often bad", "tables with incidents"): ([MET, MET, MET, MISSED], "HIGH PERFORMER"),
    ("rare and often bad", "config repository"): ([MISSED] * 4, "NEEDS IMPROVEMENT"),
    ("rare and often bad", "argocd"): ([MISSED, OPEN, MISSED, MISSED], None),
    ("rare and often bad", "both"): ([MISSED] * 4, "NEEDS IMPROVEMENT"),
    ("rare and often bad", "tables with incidents"): ([MISSED] * 4, "NEEDS IMPROVEMENT"),
}


def truth_of(team):
    """(number, committed, deployed, taken back or None) of each version."""
    gap, lead, bad, minutes = TEAMS[team]
    for number in range(DAYS * 24 // gap):
        deployed = START + 3600 * (60 + gap * number)
        back = deployed + 60 * minutes if number and number % bad == bad - 1 else None
        if deployed < START + 86400 * DAYS:
            yield number, deployed - 3600 * lead, deployed, back


def config_repository(team, folder):
    """Make the repository; return the commits of production: (time, commit)."""
    changes, standing = [], 0
    for number, committed, deployed, back in truth_of(team):
        changes.append((committed, "dev", number, ""))
        changes.append((deployed, "production", number, ""))
        if back:
            changes.append((back, "production", standing, "Revert: "))
        else:
            standing = number
    lines = []
    for time, name, number, prefix in sorted(changes):
        content = f"images:\n- name: shop\n  newTag: 1.{number}.0\n"
        file = f"{TEMPLATE.format(application='shop', environment=name)}/kustomization.yaml"
        lines += [
            f"commit refs/heads/main\ncommitter ann <ann@example.org> {time} +0000",
            f"data <<E\n{prefix}shop 1.{number}.0 to {name}\nE\n",
            f"M 644 inline {file}\ndata {len(content)}\n{content}",
        ]
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "symbolic-ref", "HEAD", "refs/heads/main")
    git(folder, "fast-import", "--quiet", text="\n".join(lines) + "\n")
    commits = git(folder, "rev-list", "--reverse", "main").split()
    return [
        (name, time, commit, number)
        for (time, name, number, _), commit in zip(sorted(changes), commits)
    ]


def snapshots(synced, folder):
    """Write what Argo CD has at the end of every day: its last ten entries; return the files."""
    folder.mkdir()
    files = []
    for day in range(1, DAYS + 1):
        now = START + 86400 * day
        found = []
        for name in ("dev", "production"):
            source = documents.source(TEMPLATE.format(application="shop", environment=name))
            seen, entries = {}, []
            for of, time, commit, number in synced:
                if of == name and time + 60 < now:
                    seen.setdefault(number, commit)
                    revision = seen[number] if name == "production" else commit
                    entries.append(
                        documents.entry(len(entries), time + 60, revision, source=source)
                    )
            if entries:
                asked = {"created": START, "reconciled": now}
                one = documents.application(f"shop-{name}", entries[-10:], spec=source, **asked)
                found.append(one)
        files.append(folder / f"{day:02d}.json")
        files[-1].write_text(json.dumps(found), encoding="utf-8")
    return files


def tables(team, folder):
    """Write deployments, changes and incidents: a bad version has two that overlap."""
    rows = {
        "deployments": [["timestamp", "application", "environment", "commit_sha", "status",
                         "health", "duration_sec", "failure_reason"]],
        "changes": [["application", "environment", "commit_sha", "committed", "deployed"]],
        "../incidents": [["application", "started", "resolved"]],
    }  # fmt: skip
    for number, committed, deployed, back in truth_of(team):
        sha, end = f"{number:040x}", documents.rfc3339(deployed)
        times = documents.rfc3339(deployed - 60), documents.rfc3339(committed)
        place = "shop", "production", sha
        rows["deployments"].append([times[0], *place, "Synced", "Healthy", 60, ""])
        rows["changes"].append([*place, times[1], end])
        if back:
            middle = (deployed + back) // 2
            for begin, over in ((deployed, middle + 60), (middle, back)):
                for name in ("shop", "the cart of another team"):
                    row = [name, *map(documents.rfc3339, (begin, over))]
                    rows["../incidents"].append(row)
    folder.mkdir()
    for name, lines in rows.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)
    return folder


QUICK = ("elite", "often bad")


@pytest.mark.parametrize(
    ("team", "source"),
    [pytest.param(*one, marks=[pytest.mark.slow] * (one[0] not in QUICK)) for one in MARKS],
)
def test_every_mark_and_level_is_what_the_truth_says(capsys, tmp_path, team, source):
    if source == "tables with incidents":
        folder = tables(team, tmp_path / "tables")
        options = ["--history", folder, "--incidents", tmp_path / "incidents.csv"]
        options += ["--application", "shop"]
    else:
        synced = config_repository(team, tmp_path / "config")
        repository = ["--repo", tmp_path / "config", "--deployments-from", TEMPLATE]
        clusters = ["--argocd", *snapshots(synced, tmp_path / "snapshots")]
        options = {"config repository": repository, "argocd": clusters}.get(
            source, [*clusters, *repository]
        )
    status, out, err = called(capsys, *FAST, *options)
    assert (status, err) == (0, "")
    document = json.loads(out)
    marks, level = MARKS[team, source]
    values, maturity = document["metrics"], document["maturity"]
    assert maturity["elite"] == dict(zip(KEYS, marks)), maturity["not_assessable"]
    assert maturity["level"] == level
    gap, lead, bad, minutes = TEAMS[team]
    versions = list(truth_of(team))
    if marks[1] is not None:
        assert values["median_lead_time"] == pytest.approx(lead, abs=0.02)
    assert values["mttr_minutes"] == pytest.approx(minutes, abs=2)
    failed = sum(back is not None for *_, back in versions)
    assert values["failed_deployments"] == failed
    assert values["total_deployments"] == pytest.approx(len(versions), abs=1)
    assert not math.isnan(values["deployment_frequency"])
