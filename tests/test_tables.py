"""Tables and incidents from files: what an export holds comes back, and anyone can write them."""

import json
import re

import pandas as pd
import pytest
from conftest import TEMPLATE, called
from plain_model import check_history

import gitops_automation as module
from gitops_automation import GitOpsAutomation, GitOpsError, measure

LEAD, FREQUENCY, RECOVERY, FAIL_RATE, REWORK = module.PRODUCTION_METRICS
FAST = ["--seed", "7", "--runs", "3", "--no-dashboard"]
REPO = ["--repo", "config"]
ARGO = ["--argocd", "apps.json"]
HEAD = "timestamp,application,environment,commit_sha,status,health,duration_sec,failure_reason"
ROW = "2026-01-05T10:00:00Z,shop,production,aaa,Synced,Healthy,60,"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tables(tmp_path):
    """Return a function that writes files into a folder, and returns it."""

    def make(rows=(ROW,), head=HEAD, **files):
        folder = tmp_path / "tables"
        folder.mkdir(exist_ok=True)
        written = {"deployments.csv": "\n".join([head, *rows, ""]), **files}
        for name, text in written.items():
            content = text if isinstance(text, bytes) else text.encode()
            (folder / name.replace("_json", ".json").replace("_csv", ".csv")).write_bytes(content)
        return folder

    return make


def at(text):
    return pd.Timestamp(text, tz="UTC")


def refused(capsys, *arguments):
    """Return the one line with which the program refuses what it was given."""
    status, _, err = called(capsys, *FAST, *arguments)
    assert (status, err.count("\n")) == (2, 1), err
    assert err[:-1].isprintable()
    return err


def document_of(capsys, *arguments):
    status, out, err = called(capsys, *FAST, "--json", *arguments)
    assert (status, err) == (0, "")
    return json.loads(out, parse_constant=pytest.fail)


# ---- Read back ----------------------------------------------------------------------------------

SOURCES = {
    "a simulation": ["--end", "2026-01-31"],
    "commits of a repository": REPO,
    "Argo CD": ARGO,
    "Argo CD and its repository": [*ARGO, *REPO],
    "a config repository": [*REPO, "--deployments-from", TEMPLATE],
    "both": [*REPO, "--deployments-from", TEMPLATE, *ARGO],
    "a part of it": [*ARGO, *REPO, "--days", "5", "--end", "2026-01-09"],
    "with incidents": [*ARGO, *REPO, "--incidents", "incidents.csv"],
}
INCIDENTS = """\
application,started,resolved
shop,2026-01-05T16:00:00Z,2026-01-05T18:05:00Z
cart,2026-01-05T16:00:00Z,
"""


def report_in(out):
    """Return the report and the summary, without what the steps before and after them print."""
    report = out[out.index("GITOPS WORKFLOW AUTOMATION REPORT") :]
    return re.sub("✓ Exported .*", "", report)


BY_MONTH = ("a simulation by month", "Argo CD and its repository by month")


def test_a_part_of_a_simulation_is_measured_as_tables_and_stays_simulated(capsys, tmp_path):
    """What was simulated is known, but not how to repeat a part of it."""
    called(capsys, *FAST, "--end", "2026-01-31", "--export", "--output", tmp_path)
    document = document_of(capsys, "--history", tmp_path, "--days", "7")
    assert (document["simulated"], document["source"]) == (True, "simulated files")
    assert "SIMULATED" in called(capsys, *FAST, "--history", tmp_path, "--days", "7")[1]
    rows = pd.read_csv(tmp_path / "deployments.csv", parse_dates=["timestamp"])
    inside = rows["timestamp"] >= at("2026-01-24")
    assert document["metrics"]["total_deployments"] == inside.sum()


# ---- Written by hand ----------------------------------------------------------------------------


def test_deployments_alone_are_a_history(capsys, tables):
    """Two days: three deployments, one of them to staging, and one of production's that failed."""
    rows = [
        ROW,
        "2026-01-05T09:00:00Z,shop,staging,aaa,Synced,Healthy,45,",
        "2026-01-06T10:00:00Z,shop,production,bbb,Failed,Degraded,30,OOMKilled",
    ]
    document = document_of(capsys, "--history", tables(rows))
    assert document["source"] == "files"
    assert document["environments"] == ["staging", "production"]
    assert document["window"]["days"] == 2
    production = document["production"]
    assert production[FREQUENCY]["value"] == 1
    assert production[FAIL_RATE]["value"] == 50
    assert production[LEAD]["value"] is None
    assert not any(production[metric]["at_least"] for metric in (FREQUENCY, FAIL_RATE, REWORK))


def test_the_rows_may_come_in_any_order(capsys, tables):
    later = ROW.replace("T10", "T12").replace("aaa", "bbb")
    found = [
        document_of(capsys, "--history", tables(rows)) for rows in ([ROW, later], [later, ROW])
    ]
    assert found[0] == found[1]


def test_the_order_of_the_environments_can_be_said(capsys, tables):
    rows = [ROW.replace("production", name) for name in ("eu", "canary")]
    folder = tables(rows)
    document = document_of(capsys, "--history", folder, "--environments", "canary,eu")
    assert document["environments"] == ["canary", "eu"]
    assert document["metrics"]["production_deployment_frequency"] == 1
    for wrong in ("eu", "canary,,eu", ""):
        assert "environment" in refused(capsys, "--history", folder, "--environments", wrong)


def test_a_table_of_changes_gives_the_lead_times(capsys, tables):
    """4 h and 2 h; one change waits, and one deployment has no lead time."""
    changes = """\
application,environment,commit_sha,committed,deployed
shop,production,aaa,2026-01-05T06:01:00Z,2026-01-05T10:01:00Z
shop,production,bbb,2026-01-05T08:01:00Z,2026-01-05T10:01:00Z
shop,production,ccc,2026-01-05T12:00:00Z,
"""
    document = document_of(capsys, "--history", tables(changes_csv=changes))
    lead = document["production"][LEAD]
    assert (lead["value"], lead["mean"], lead["n"], lead["open"]) == (3, 3, 2, 1)
    assert document["metrics"]["mean_lead_time"] == 3


def test_a_deployment_of_unknown_health_makes_the_rate_a_lower_bound(capsys, tables):
    rows = [ROW, ROW.replace("T10", "T12").replace("Healthy", "Unknown")]
    folder = tables(rows)
    row = document_of(capsys, "--history", folder)["production"][FAIL_RATE]
    assert (row["value"], row["at_least"]) == (0, True)
    out = called(capsys, *FAST, "--history", folder)[1]
    assert re.search(r"^Change Failure Rate: +at least 0\.00%$", out, re.M)


def test_times_without_a_zone_are_utc_and_others_are_converted(capsys, tables):
    for time in ("2026-01-05 10:00:00", "2026-01-05T12:00:00+02:00"):
        tables([ROW.replace("2026-01-05T10:00:00Z", time)])
        history = module.load_tables("tables")
        assert history.deployments["timestamp"].tolist() == [at("2026-01-05 10:00")]


def test_text_that_steers_a_terminal_is_made_harmless(capsys, tables):
    folder = tables([ROW.replace("shop", "sh\x1b[31mop\u202e")])
    status, out, err = called(capsys, *FAST, "--history", folder, "--details")
    assert (status, err) == (0, "")
    assert "sh [31mop" in out
    assert "\x1b" not in out and "\u202e" not in out


def test_a_byte_order_mark_is_no_part_of_the_first_column(capsys, tables):
    folder = tables(deployments_csv=b"\xef\xbb\xbf" + f"{HEAD}\n{ROW}\n".encode())
    assert document_of(capsys, "--history", folder)["metrics"]["total_deployments"] == 1


def with_(old, new):
    """Return the text of a deployments.csv in which one thing is wrong."""
    assert old in f"{HEAD}\n{ROW}\n"
    return f"{HEAD}\n{ROW}\n".replace(old, new)


BAD_TABLES = {
    "no file": ({"deployments_csv": None}, "no deployments.csv"),
    "an empty file": ({"deployments_csv": ""}, "deployments.csv"),
    "a column missing": ({"deployments_csv": with_("health,", "")}, "no column 'health'"),
    "a time that is none": ({"deployments_csv": with_("2026-01-05T10:00:00Z", "soon")}, "soon"),
    "a number that is none": ({"deployments_csv": with_(",60,", ",long,")}, "long"),
    "no number": ({"deployments_csv": with_(",60,", ",,")}, "duration_sec"),
    "too many cells": ({"deployments_csv": f"{HEAD}\n{ROW}\n{ROW},x,y\n"}, "line 3"),
    "another encoding": ({"deployments_csv": with_("shop", "größe").encode("latin-1")}, "utf-8"),
    "a picture": ({"deployments_csv": b"\x89PNG\r\n\x1a\n\0\0"}, "deployments.csv"),
    "changes without times": (
        {"changes_csv": "application,environment,commit_sha\nshop,production,a\n"},
        "changes.csv: no column 'committed'",
    ),
    "a change of no time": (
        {
            "changes_csv": "application,environment,commit_sha,committed,deployed\n"
            "shop,production,a,yesterday,\n"
        },
        "yesterday",
    ),
    "a rollback of no flag": (
        {
            "rollbacks_csv": "timestamp,application,environment,from_commit,to_commit,reason,"
            "duration_min,success\n2026-01-05T10:00:00Z,shop,production,a,b,x,5,maybe\n"
        },
        "rollbacks.csv: row 2: success must hold True or False",
    ),
    "coverage without columns": ({"coverage_csv": "application\nshop\n"}, "coverage.csv"),
    "no metrics.json": ({"metrics_json": "{"}, "metrics.json is not JSON"),
    "another JSON": ({"metrics_json": "{}"}, "metrics.json has no production metrics"),
    "a status of another system": ({"deployments_csv": with_("Synced", "success")}, "success"),
    "a health of another system": ({"deployments_csv": with_("Healthy", "ok")}, "ok"),
    "a failed sync that is Healthy": ({"deployments_csv": with_("Synced", "Failed")}, "Healthy"),
    "a negative duration": ({"deployments_csv": with_(",60,", ",-60,")}, "-60"),
    "no time": ({"deployments_csv": with_("2026-01-05T10:00:00Z", "")}, "timestamp"),
    "a time before 1970": ({"deployments_csv": with_("2026", "1926")}, "deployments.csv"),
    "a time after 2200": ({"deployments_csv": with_("2026", "2250")}, "deployments.csv"),
    "no application": ({"deployments_csv": with_("shop", "")}, "application"),
    "no environment": ({"deployments_csv": with_("production", "")}, "environment"),
    "a change that shipped before it was made": (
        {
            "changes_csv": "application,environment,commit_sha,committed,deployed\n"
            "shop,production,a,2026-01-06T10:00:00Z,2026-01-05T10:00:00Z\n"
        },
        "changes.csv",
    ),
    "environments that are no names": (
        {"metrics_json": '{"production": {}, "environments": [1]}'},
        "an environment of",
    ),
    "a simulation without its flow": (
        {"metrics_json": '{"production": {}, "source": "simulated", "seed": 7}'},
        "metrics.json has no scenario and flow",
    ),
}


@pytest.mark.parametrize("what", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_one_line_with_its_file(capsys, tables, what):
    files, word = BAD_TABLES[what]
    folder = tables(**{name: text for name, text in files.items() if text is not None})
    if None in files.values():
        (folder / "deployments.csv").unlink()
    line = refused(capsys, "--history", folder)
    assert word in line
    assert re.search(r"tables\b|metrics\.json", line)


def test_a_table_without_a_row_is_one_line(capsys, tables):
    line = refused(capsys, "--history", tables([]))
    assert "no deployment in" in line
    assert "tables/deployments.csv" in line


@pytest.mark.parametrize(
    ("old", "new"), [(",60,", ",long,"), ("2026-01-05T10:00:00Z", "soon"), (",60,", ",,")]
)
def test_a_wrong_value_is_named_with_its_row(capsys, tables, old, new):
    folder = tables([ROW, ROW, ROW.replace(old, new)])
    assert re.search(r"\b(row|line|entry|deployment) (3|4)\b", refused(capsys, "--history", folder))


def test_fractions_of_a_second_may_be_in_some_of_the_times(capsys, tables):
    """A database prints them only where there are some."""
    rows = [ROW, ROW.replace("10:00:00Z", "12:00:00.25Z")]
    document = document_of(capsys, "--history", tables(rows))
    assert document["metrics"]["total_deployments"] == 2


def test_rows_that_were_added_to_an_export_are_measured_or_refused(capsys, tmp_path, tables):
    """Its metrics.json still has the window that it had before."""
    folder = tables()
    called(capsys, *FAST, "--history", folder, "--export", "--output", tmp_path / "out")
    with (tmp_path / "out" / "deployments.csv").open("a") as file:
        file.write(ROW.replace("01-05", "01-09") + "\n")
    status, out, err = called(capsys, *FAST, "--history", tmp_path / "out")
    assert status == 0 or (status, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("folder", ["missing", "a file"])
def test_what_is_no_folder_of_tables_is_one_line(capsys, tmp_path, folder):
    (tmp_path / "a file").write_text(f"{HEAD}\n{ROW}\n")
    line = refused(capsys, "--history", tmp_path / folder)
    assert "no deployments.csv in" in line
    assert folder in line


# ---- Incidents ----------------------------------------------------------------------------------

DEPLOYMENTS = [  # each takes a minute; nobody looked at them
    "2026-01-05T10:00:00Z,shop,production,aaa,Synced,Unknown,60,",
    "2026-01-06T10:00:00Z,shop,production,bbb,Synced,Unknown,60,",
    "2026-01-06T11:00:00Z,cart,production,ccc,Synced,Unknown,60,",
    "2026-01-06T12:00:00Z,shop,staging,ddd,Synced,Unknown,60,",
]


@pytest.fixture
def with_incidents(tables, tmp_path, capsys):
    """Return a function that lets incidents judge the deployments; it returns the class."""

    def load(text, rows=DEPLOYMENTS, end=None):
        file = tmp_path / "incidents"
        file.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
        gitops = GitOpsAutomation(seed=7, end=end)
        gitops.load_history(tables(rows))
        gitops.load_incidents(file)
        check_history(gitops.history)
        gitops.calculate_dora_metrics()
        return gitops

    return load


def incident(started, application="shop", **more):
    return {"application": application, "started": started, **more}


INCIDENT_FILES = {
    "CSV": "application,started,resolved\nshop,2026-01-05T12:00:00Z,2026-01-05T13:01:00Z\n",
    "CSV with more columns": "id,started,application,severity,resolved\n"
    '7,2026-01-05T12:00:00Z,shop,"high, very",2026-01-05T13:01:00Z\n',
    "CSV with spaces in its head": "application, started, resolved\n"
    "shop,2026-01-05T12:00:00Z,2026-01-05T13:01:00Z\n",
    "JSON": '[{"application": "shop", "started": "2026-01-05T12:00:00Z",'
    ' "resolved": "2026-01-05T13:01:00Z", "id": 7}]',
    "a JSON object": '{"incidents": [{"application": "shop", "started": "2026-01-05T12:00:00Z",'
    ' "resolved": "2026-01-05T13:01:00.5Z"}]}',
}


BAD_INCIDENTS = {
    "no file": (None, "cannot read"),
    "nothing": ("", "holds no incidents"),
    "broken JSON": ("[", "holds no incidents"),
    "another JSON": ('{"items": []}', "holds no incidents"),
    "a list of words": ('["shop"]', "holds no incidents"),
    "deep": ("[" * 100_000, "holds no incidents"),
    "no application": ("application,started\nshop,2026-01-05T12:00:00Z\n,x\n", "incident 2"),
    "an application that is no name": ([{"application": 5, "started": "x"}], "incident 1"),
    "no start": ("application,started\nshop,\n", "incident 1: started"),
    "a start that is no time": ([incident("soon")], "'soon'"),
    "a start that is a number": ([incident(1767607200)], "1767607200"),
    "a start without zone": ([incident("2026-01-05 12:00")], "incident 1: started"),
    "an end that is no time": (
        [incident("2026-01-05T12:00:00Z"), incident("2026-01-05T12:00:00Z", resolved="later")],
        "incident 2: resolved",
    ),
    "an end before its start": (
        [incident("2026-01-05T12:00:00Z", resolved="2026-01-05T11:00:00Z")],
        "incident 1 is resolved before it started",
    ),
    "a name that steers a terminal": ([incident("\x1b[31m")], "incident 1"),
}


@pytest.mark.parametrize("what", BAD_INCIDENTS)
def test_incidents_that_cannot_be_used_are_one_line_naming_the_entry(
    capsys, tables, tmp_path, what
):
    content, word = BAD_INCIDENTS[what]
    file = tmp_path / "incidents.txt"
    if content is not None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    line = refused(capsys, "--history", tables(), "--incidents", file)
    assert "incidents.txt" in line
    assert word in line


@pytest.mark.parametrize("text", ["incidents: none\n", "service,opened\n"])
def test_a_file_without_the_columns_is_no_file_of_no_incident(capsys, tables, tmp_path, text):
    """It would say that nothing failed."""
    (tmp_path / "incidents.txt").write_text(text)
    refused(capsys, "--history", tables(), "--incidents", tmp_path / "incidents.txt")


def test_with_incidents_nothing_in_production_is_at_least(team, monkeypatch, capsys, tmp_path):
    """Nobody looked at dev, and nobody says that nothing failed there."""
    monkeypatch.chdir(team)
    (tmp_path / "incidents.csv").write_text(INCIDENTS)
    arguments = [*FAST, *ARGO, *REPO, "--output", tmp_path]
    assert "at least" in section(called(capsys, *arguments)[1])
    out = called(capsys, *arguments, "--incidents", tmp_path / "incidents.csv")[1]
    assert "at least" not in section(out)
    assert re.search("^Change Failure Rate: +at least", out, re.M)  # dev's was not looked at


def section(report):
    """Return the section of production of a report."""
    return report.split("PRODUCTION, AS DORA DEFINES IT")[1].split("DORA MATURITY")[0]


def test_incidents_of_a_simulation_are_refused(tmp_path):
    gitops = GitOpsAutomation(seed=7, end="2026-01-31", output_dir=tmp_path)
    gitops.simulate_git_activity(3)
    with pytest.raises(GitOpsError, match="load a real history first"):
        gitops.load_incidents(tmp_path / "incidents.csv")


def test_the_class_reads_what_it_exported(capsys, tables, tmp_path):
    gitops = GitOpsAutomation(seed=7, output_dir=tmp_path / "out")
    gitops.load_history(tables(DEPLOYMENTS))
    gitops.calculate_dora_metrics()
    gitops.export()
    again = module.load_tables(tmp_path / "out")
    assert measure(again).production.equals(gitops.measured.production)
