"""Tables and incidents from files: what an export holds comes back, and anyone can write them."""

import json
import re

import pandas as pd
import pytest
from conftest import TEMPLATE, called
from plain_model import check_history

import gitops_automation as module
from gitops_automation import GitOpsError, load_tables, measure, read_incidents, with_incidents

FAST = ["--seed", "7", "--runs", "3", "--no-dashboard"]
HEAD = "timestamp,application,environment,commit_sha,status,health,duration_sec,failure_reason"
ROW = "2026-01-05T10:00:00Z,shop,production,aaa,Synced,Healthy,60,"


@pytest.fixture
def tables(tmp_path):
    """Return a function that writes files into a folder, and returns it."""

    def make(*rows, **files):
        folder = tmp_path / "tables"
        folder.mkdir(exist_ok=True)
        for name, text in {"deployments": "\n".join([HEAD, *rows, ""]), **files}.items():
            file = folder / (f"{name}.json" if name == "metrics" else f"{name}.csv")
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return make


def at(text):
    return pd.Timestamp(text, tz="UTC")


def column(table, name):
    """Return the values of a column, None where there is none."""
    return [None if pd.isna(value) else value for value in table[name]]


def refused(load, *arguments, **options):
    """Return the one line with which something is refused."""
    with pytest.raises(GitOpsError) as caught:
        load(*arguments, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


# ---- Read back ----------------------------------------------------------------------------------

REPO = ["--repo", "config", "--deployments-from", TEMPLATE]
ARGO = ["--argocd", "apps.json"]
INCIDENTS = """\
application,started,resolved
shop,2026-01-05T16:00:00Z,2026-01-05T18:05:00Z
shop,2026-01-06T16:00:00Z,
"""


@pytest.mark.parametrize(
    "source", [REPO, ARGO, [*REPO, *ARGO], [*REPO, "--incidents", "incidents.csv"]]
)
def test_an_export_comes_back_to_the_same_report(team, monkeypatch, capsys, tmp_path, source):
    monkeypatch.chdir(team)
    (team / "incidents.csv").write_text(INCIDENTS)
    out = called(capsys, *FAST, *source, "--export", "--output", tmp_path)[1]
    again = called(capsys, *FAST, "--history", tmp_path)[1]
    begin = "GITOPS WORKFLOW AUTOMATION REPORT"
    assert again[again.index(begin) :] == re.sub("✓ Exported .*\n", "", out[out.index(begin) :])
    check_history(load_tables(tmp_path))


def test_a_simulation_that_is_read_back_is_measured_and_stays_simulated(capsys, tmp_path):
    """Its commits are its changes: a deployment contains all before it, as the model has it."""
    module.main([*FAST, "--end", "2026-01-31", "--export", "--output", str(tmp_path)])
    gitops = module.GitOpsAutomation(seed=7, end="2026-01-31")
    gitops.simulate_git_activity(30)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    history = load_tables(tmp_path)
    check_history(history)
    for name, columns in module.COLUMNS.items():
        for kept in columns:
            assert column(getattr(history, name), kept) == column(getattr(gitops, name), kept)
    lead = (
        measure(gitops.history).production.set_index("metric").loc["change_lead_time_hours"].iloc[0]
    )
    shipped = history.changes_to("production")
    hours = (shipped["deployed"] - shipped["committed"]).dt.total_seconds() / 3600
    assert (hours.median(), hours.count()) == (lead["value"], lead["n"])
    document = json.loads(called(capsys, *FAST, "--history", tmp_path, "--json")[1])
    assert (document["simulated"], document["source"]) == (True, module.SIMULATED_TABLES)


# ---- Written by hand, or by a warehouse ---------------------------------------------------------


def test_a_file_of_deployments_is_enough_and_the_usual_columns_of_it(tables):
    """Excel begins with a byte order mark and ends with empty rows; Snowflake shouts."""
    head = b"\xef\xbb\xbfSTATUS, COMMIT_SHA ,ID,ENVIRONMENT,APPLICATION,TIMESTAMP\r\n"
    rows = (
        b"Synced,aaa,1,live,shop,1/6/2026 9:00\r\nFailed,bbb,2,live,shop,1/5/2026 9:00\r\n,,,,,\r\n"
    )
    history = load_tables(tables(deployments=head + rows))
    check_history(history)
    assert (history.source, history.environments) == ("files", ("production",))
    assert (history.window.days, history.changes) == (2, None)
    assert column(history.deployments, "health") == ["Degraded", "Unknown"]
    assert column(history.deployments, "recovered") == [at("2026-01-06 09:00"), None]
    assert column(history.deployments, "failure_reason") == ["Unknown", None]


@pytest.mark.parametrize(
    "time",
    ["2026-01-05 10:00:00+00", "2026-01-05 10:00:00 UTC", "2026-01-05T10:00:00.123Z"]
    + ["1/5/2026 10:00", "2026-01-05 10:00:00", "2026-01-05T12:00+02:00"]
    + ["2026-01-05 05:30:00.000 -0430", "2026-01-05 10:00:00.999999+00:00"],
)
def test_times_are_read_as_databases_print_them(tables, time):
    history = load_tables(tables(ROW, ROW.replace("2026-01-05T10:00:00Z", time + "")))
    assert set(history.deployments["timestamp"]) == {at("2026-01-05 10:00")}


def test_several_regions_count_a_release_once_and_recover_no_other(tables):
    folder = tables(
        "2026-01-05T10:00:00Z,shop,prod-eu,aaa,Synced,Healthy,60,",
        "2026-01-05T11:00:00Z,shop,prod-us,aaa,Failed,Degraded,60,OOMKilled",
        "2026-01-06T10:00:00Z,shop,prod-eu,bbb,Synced,Healthy,60,",
        "2026-01-08T11:00:00Z,shop,prod-us,bbb,Synced,Healthy,60,",
    )
    rows = load_tables(folder).deployments
    assert column(rows, "timestamp") == [at("2026-01-05 10:00"), at("2026-01-06 10:00")]
    assert column(rows, "recovered") == [at("2026-01-08 11:01"), None]
    apart = load_tables(folder, "canary=*-us,production=*-eu").deployments
    assert column(apart, "environment") == ["production", "canary", "production", "canary"]


CHANGES = """\
application,environment,commit_sha,committed,deployed
shop,production,aaa,2026-01-05T06:01:00Z,2026-01-05T10:01:00Z
shop,production,ccc,2026-01-05T12:00:00Z,
shop,production,old,2025-01-05T12:00:00Z,2025-02-05T12:00:00Z
"""
COVERAGE = """\
application,environment,from,to
shop,production,2025-12-01 00:00:00,2026-01-05T12:00:00Z
"""


def test_changes_and_coverage_are_of_one_window(tables):
    history = load_tables(tables(ROW, changes=CHANGES, coverage=COVERAGE))
    check_history(history)
    assert column(history.changes, "commit_sha") == ["aaa", "ccc"]
    assert column(history.changes, "deployed") == [at("2026-01-05 10:01"), None]
    assert (history.window.start, history.window.days) == (at("2025-12-01"), 36)
    told = {"window": {"start": "2026-01-04T00:00:00Z", "end": "2026-01-06T00:00:00Z"}}
    history = load_tables(tables(ROW, coverage=COVERAGE, metrics=json.dumps(told)))
    assert column(history.coverage, "from") == [at("2026-01-04")]


def test_commits_give_the_lead_times_where_no_changes_are(tables):
    """One commit of a monorepo is a change of each application; it was made before the window."""
    commits = (
        "sha,timestamp,application\naaa,2026-01-03T10:00:00Z,shop\naaa,2026-01-03T10:00:00Z,cart\n"
        "bbb,2026-01-02T10:00:00Z,shop\nccc,2026-01-06T10:00:00Z,shop\n"
    )
    changes = load_tables(tables(ROW, ROW.replace("shop", "cart"), commits=commits)).changes
    shipped = changes[changes["deployed"] == at("2026-01-05 10:01")]
    named = sorted(zip(shipped["application"], shipped["commit_sha"]))
    assert named == [("cart", "aaa"), ("shop", "aaa"), ("shop", "bbb")]
    assert len(changes) == 4
    folder = tables(ROW, commits=commits.replace("01-03T10", "01-05T11"))
    assert "deployments.csv: row 2 " in refused(load_tables, folder)


@pytest.mark.parametrize(
    "document",
    [{}, [], {"window": 5}, {"window": {"start": "2026-01-09T00:00:00Z", "end": "soon"}}]
    + [{"environments": [1, None]}, {"environments": ["dev"]}, {"source": 7, "notes": [1]}]
    + [{"window": {"start": "2026-01-05T00:00:00Z", "end": "2026-01-06T00:00:00Z"}}],
)
def test_what_is_missing_in_metrics_json_is_found_in_the_tables(tables, document):
    """Its window grows with the deployments that somebody added."""
    history = load_tables(tables(ROW, ROW.replace("05T", "07T"), metrics=json.dumps(document)))
    check_history(history)
    assert (history.source, history.environments) == ("files", ("production",))
    assert history.window.days == 3


def wrong(old, new):
    return {"deployments": f"{HEAD},recovered\n{ROW},\n{ROW.replace(old, new)},\n"}


ROLLBACK = "timestamp,application,environment,from_commit,duration_min,success\n"
ROLLBACK += "2026-01-05T10:00:00Z,shop,production,a,"
BAD_TABLES = {
    "deployments.csv: No columns": {"deployments": ""},
    "deployments.csv: no column 'timestamp' in 'a;b': commas": {"deployments": "a;b\n1;2\n"},
    "deployments.csv; --history needs one": {"deployments": f"{HEAD}\n"},
    "deployments.csv: row 3: timestamp must be": wrong("2026-01-05T", "13/1/2026 "),
    "deployments.csv: row 3: duration_sec must be": wrong(",60,", ",-60,"),
    "deployments.csv: row 3: status must be one of Synced, Failed, not 'ok'": wrong("Synced", "ok"),
    "deployments.csv: row 3: health must be Degraded if Failed, not": wrong("Synced", "Failed"),
    "deployments.csv: row 3: recovered must not be before": wrong("60,", "60,,2026-01-05T09:00Z\n"),
    "deployments.csv: its rows have more cells": {"deployments": f"{HEAD}\n{ROW},,\n"},
    "changes.csv: row 3: deployed must not be before committed": {
        "changes": CHANGES.replace("12:00:00Z,\n", "12:00:00Z,2026-01-01T00:00:00Z\n")
    },
    "rollbacks.csv: row 2: duration_min must be a number": {"rollbacks": f"{ROLLBACK},t\n"},
    "metrics.json is not JSON": {"metrics": "{"},
}


@pytest.mark.parametrize("words", BAD_TABLES)
def test_what_cannot_be_is_one_line_with_file_row_column_and_value(tables, words):
    line = refused(load_tables, tables(ROW, **BAD_TABLES[words]))
    assert all(part in line for part in words.split(": ")), line


def test_what_is_no_folder_of_tables_is_one_line(tmp_path):
    assert f"no deployments.csv in {tmp_path}" in refused(load_tables, tmp_path)
    (tmp_path / "deployments.csv").mkdir()
    assert "cannot read" in refused(load_tables, tmp_path)


# ---- Incidents ----------------------------------------------------------------------------------

LOOKED_AT_BY_NOBODY = [
    f"2026-01-{day}T10:00:00Z,{name},{environment},aaa,Synced,Unknown,60,"
    for day, name, environment in [
        ("06", "shop", "prod"), ("06", "cart", "prod"), ("06", "shop", "stg"),
        ("07", "shop", "prod"), ("29", "shop", "prod"),
    ]
]  # fmt: skip
SHOP = "application,started,resolved\nshop,2026-01-06 12:00:00+00,2026-01-06 13:00:00+00\n"


def judge(tables, text, **options):
    """Return the history of the five deployments, judged by a file of incidents."""
    folder = tables(*LOOKED_AT_BY_NOBODY)
    (folder / "file").write_text(text)
    history = with_incidents(load_tables(folder), read_incidents(folder / "file"), **options)
    check_history(history)
    return history


def test_incidents_say_which_deployment_failed_and_until_when(tables):
    """Two of one deployment are one failure; one that comes 20 days later is listed."""
    more = "shop,2026-01-06T12:30:00Z,2026-01-08T15:00:00Z\nshop,2026-01-27T10:00:00Z,\n"
    history = judge(tables, SHOP + more)
    rows = history.deployments
    assert column(rows, "health") == ["Degraded", *["Unknown"] * 2, "Healthy", "Unknown"]
    assert column(rows, "recovered")[0] == at("2026-01-08 15:00")
    assert column(history.incidents, "started") == [at("2026-01-06 12:00"), at("2026-01-06 12:30")]
    assert set(history.incidents["deployed"]) == {at("2026-01-06 10:01")}
    assert history.notes == (
        "No deployment in the seven days before 1 incident: shop 2026-01-27 10:00",
    )


def test_a_complete_list_tells_of_every_application_and_day(tables):
    health = judge(tables, SHOP, complete=True).deployments["health"]
    assert list(health) == ["Degraded", "Healthy", "Unknown", "Healthy", "Healthy"]
    staging = SHOP.replace("resolved", "resolved,environment").replace(
        "13:00:00+00", "13:00:00+00,stg"
    )
    health = judge(tables, staging, complete=True).deployments["health"]
    assert list(health) == ["Healthy", "Healthy", "Degraded", "Healthy", "Healthy"]


def test_where_incidents_do_not_tell_a_healthy_look_is_no_proof(tables):
    rows = [row.replace("Unknown", "Healthy") for row in LOOKED_AT_BY_NOBODY]
    folder = tables(*rows, calls=SHOP)
    seen = load_tables(folder)._replace(source="argocd")
    health = with_incidents(seen, read_incidents(folder / "calls.csv")).deployments["health"]
    assert list(health) == ["Degraded", *["Unknown"] * 4]


@pytest.mark.parametrize("text", [SHOP[:29], "[]", SHOP.replace("2026", "2027")])
def test_a_file_that_matches_nothing_judges_nobody(tables, text):
    history = judge(tables, text, complete=True)
    assert set(history.deployments["health"]) == {"Unknown"}
    assert history.incidents is None


def test_incidents_are_read_from_json_as_from_csv(tables):
    entry = {"application": "shop", "started": "2026-01-06T12:00:00Z", "id": 7, "resolved": None}
    again = judge(tables, json.dumps([{**entry, "resolved": "2026-01-06T13:00:00Z"}]))
    assert again.incidents.equals(judge(tables, SHOP).incidents)
    assert column(judge(tables, json.dumps([entry])).incidents, "resolved") == [None]


BAD_INCIDENTS = {
    "No columns to parse": "",
    "no column 'application' in 'service, opened'": "service,opened\n",
    "list of objects": '["shop"]',
    "row 2: started must be a time": SHOP.replace("2026-01-06 12:00:00+00", "soon"),
    "row 2: resolved must not be before started": SHOP.replace(" 13:", " 11:"),
    "no application 'shpo' was deployed; the nearest is shop": SHOP.replace("shop", "shpo"),
}


@pytest.mark.parametrize("words", BAD_INCIDENTS)
def test_incidents_that_cannot_be_are_one_line(tables, words):
    assert words in refused(judge, tables, BAD_INCIDENTS[words])


def test_a_list_of_incidents_beside_the_tables_is_named_with_its_option(tmp_path):
    (tmp_path / "deployments.csv").write_text(
        "timestamp,application,environment,commit_sha,status\n"
        "2026-01-06 09:00:00,shop,production,a1,Synced\n"
    )
    (tmp_path / "incidents.csv").write_text("application,started\nshop,2026-01-06 10:00:00\n")
    (note,) = load_tables(tmp_path).notes
    assert "incidents.csv is not read: --incidents takes it" in note
