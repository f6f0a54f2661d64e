"""Tables and incidents from files: what an export holds comes back, and anyone can write them."""

import json
import re

import pandas as pd
import pytest
from conftest import TEMPLATE, called
from hypothesis import example, given
from hypothesis import strategies as st
from plain_model import check_history

import gitops_automation as module
from gitops_automation import GitOpsAutomation, GitOpsError, load_tables, measure

FAST = ["--seed", "7", "--runs", "3", "--no-dashboard"]
HEAD = "timestamp,application,environment,commit_sha,status,health,duration_sec,failure_reason"
ROW = "2026-01-05T10:00:00Z,shop,production,aaa,Synced,Healthy,60,"


@pytest.fixture
def tables(tmp_path):
    """Return a function that writes files into a folder, and returns it."""

    def make(*rows, head=HEAD, **files):
        folder = tmp_path / "tables"
        folder.mkdir(exist_ok=True)
        for name, text in {"deployments": "\n".join([head, *rows, ""]), **files}.items():
            file = folder / (f"{name}.json" if name == "metrics" else f"{name}.csv")
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return make


def at(text):
    return pd.Timestamp(text, tz="UTC")


def column(history, name, table="deployments"):
    """Return the values of a column, None where there is none."""
    values = getattr(history, table)[name]
    return [None if pd.isna(value) else value for value in values]


def refused(folder, **options):
    """Return the one line with which tables are refused; it names the folder."""
    with pytest.raises(GitOpsError) as caught:
        load_tables(folder, **options)
    line = str(caught.value)
    assert line.isprintable()
    return line


# ---- Read back ----------------------------------------------------------------------------------

REPO = ["--repo", "config", "--deployments-from", TEMPLATE]
ARGO = ["--argocd", "apps.json"]
SOURCES = {
    "a config repository": REPO,
    "Argo CD": ARGO,
    "both": [*REPO, *ARGO],
    "a part of it": [*REPO, "--days", "5", "--end", "2026-01-09"],
    "with incidents": [*REPO, "--incidents", "incidents.csv"],
}


@pytest.mark.parametrize("source", SOURCES)
def test_an_export_that_is_read_back_gives_the_same_report(
    team, monkeypatch, capsys, tmp_path, source
):
    monkeypatch.chdir(team)
    (team / "incidents.csv").write_text(
        "application,started,resolved\n"
        "shop,2026-01-05T16:00:00Z,2026-01-05T18:05:00Z\nshop,2026-01-06T16:00:00Z,\n"
    )
    out = called(capsys, *FAST, *SOURCES[source], "--export", "--output", tmp_path)[1]
    again = called(capsys, *FAST, "--history", tmp_path)[1]
    begin = "GITOPS WORKFLOW AUTOMATION REPORT"
    assert again[again.index(begin) :] == re.sub("✓ Exported .*\n", "", out[out.index(begin) :])
    check_history(load_tables(tmp_path))


def test_a_simulation_that_is_read_back_is_measured_and_stays_simulated(capsys, tmp_path):
    """Its commits are its changes: a deployment contains all before it, as the model has it."""
    called(capsys, *FAST, "--end", "2026-01-31", "--export", "--output", tmp_path)
    history = load_tables(tmp_path)
    check_history(history)
    assert (history.source, history.window.days) == (module.SIMULATED_TABLES, 30)
    gitops = GitOpsAutomation(seed=7, end="2026-01-31")
    gitops.simulate_git_activity(30)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    for name in module.COLUMNS:
        for kept in module.COLUMNS[name]:
            assert column(history, kept, name) == column(gitops.history, kept, name)
    table = measure(gitops.history).production.set_index("metric")
    lead = table.loc["change_lead_time_hours"].iloc[0]
    shipped = history.changes_to("production")
    hours = (shipped["deployed"] - shipped["committed"]).dt.total_seconds() / 3600
    assert (hours.median(), hours.count()) == (lead["value"], lead["n"])
    document = json.loads(called(capsys, *FAST, "--history", tmp_path, "--json")[1])
    assert (document["simulated"], document["source"]) == (True, "simulated files")


# ---- Written by hand, or by a warehouse ---------------------------------------------------------


def test_deployments_alone_are_a_history(tables):
    rows = ["2026-01-06T09:00:00Z,shop,staging,aaa,Synced,,,", ROW]
    history = load_tables(tables(*rows))
    check_history(history)
    assert (history.source, history.environments) == ("files", ("staging", "production"))
    assert (history.window.days, history.changes) == (2, None)
    assert column(history, "health") == ["Healthy", "Unknown"]
    assert column(history, "duration_sec") == [60, 0]


def test_columns_may_be_missing_in_another_order_or_of_another_tool(tables):
    """Excel begins with a byte order mark and ends with empty rows; Snowflake shouts."""
    head = b"\xef\xbb\xbfSTATUS, COMMIT_SHA ,ID,ENVIRONMENT,APPLICATION,TIMESTAMP\r\n"
    rows = (
        b"Synced,aaa,1,live,shop,1/6/2026 9:00\r\nFailed,bbb,2,live,shop,1/5/2026 9:00\r\n,,,,,\r\n"
    )
    history = load_tables(tables(deployments=head + rows))
    check_history(history)
    assert column(history, "health") == ["Degraded", "Unknown"]
    assert column(history, "recovered") == [at("2026-01-06 09:00"), None]
    assert column(history, "failure_reason") == ["Unknown", None]
    assert history.environments == ("production",)


@pytest.mark.parametrize(
    "time",
    ["2026-01-05 10:00:00+00", "2026-01-05 10:00:00 UTC", "2026-01-05T10:00:00.123Z"]
    + ["1/5/2026 10:00", "2026-01-05 10:00:00", "2026-01-05T12:00+02:00"]
    + ["2026-01-05 05:30:00.000 -0430", "2026-01-05 10:00:00.999999+00:00"],
)
def test_times_are_read_as_databases_print_them(tables, time):
    history = load_tables(tables(ROW, ROW.replace("2026-01-05T10:00:00Z", time)))
    assert set(history.deployments["timestamp"]) == {at("2026-01-05 10:00")}


def test_several_regions_count_a_release_once_and_recover_no_other(tables):
    rows = [
        "2026-01-05T10:00:00Z,shop,prod-eu,aaa,Synced,Healthy,60,",
        "2026-01-05T11:00:00Z,shop,prod-us,aaa,Failed,Degraded,60,OOMKilled",
        "2026-01-06T10:00:00Z,shop,prod-eu,bbb,Synced,Healthy,60,",
        "2026-01-08T11:00:00Z,shop,prod-us,bbb,Synced,Healthy,60,",
    ]
    history = load_tables(tables(*rows))
    assert column(history, "commit_sha") == ["aaa", "bbb"]
    assert column(history, "timestamp") == [at("2026-01-05 10:00"), at("2026-01-06 10:00")]
    assert column(history, "recovered") == [at("2026-01-08 11:01"), None]
    apart = load_tables(tables(*rows), "canary=*-us,production=*-eu")
    assert column(apart, "environment") == ["production", "canary", "production", "canary"]


def test_environments_and_applications_can_be_chosen(tables):
    rows = [ROW, ROW.replace("shop", "cart"), ROW.replace("production", "preview-7")]
    folder = tables(*rows)
    assert len(load_tables(folder, "production").deployments) == 2
    assert column(load_tables(folder, applications=["ca*"]), "application") == ["cart"]
    assert "shop" in refused(folder, applications=["shp"])
    assert "'eu=*-eu'" in refused(folder, environments="eu=*-eu") or "*-eu" in refused(
        folder, environments="eu=*-eu"
    )


CHANGES = """\
application,environment,commit_sha,committed,deployed
shop,production,aaa,2026-01-05T06:01:00Z,2026-01-05T10:01:00Z
shop,production,ccc,2026-01-05T12:00:00Z,
shop,production,old,2025-01-05T12:00:00Z,2025-02-05T12:00:00Z
"""


def test_changes_give_the_lead_times_of_the_window(tables):
    history = load_tables(tables(ROW, changes=CHANGES))
    check_history(history)
    assert column(history, "commit_sha", "changes") == ["aaa", "ccc"]
    assert column(history, "deployed", "changes") == [at("2026-01-05 10:01"), None]


def test_commits_give_the_lead_times_where_no_changes_are(tables):
    """One commit of a monorepo is a change of each application; it was made before the window."""
    commits = (
        "sha,timestamp,application\naaa,2026-01-03T10:00:00Z,shop\naaa,2026-01-03T10:00:00Z,cart\n"
        "bbb,2026-01-02T10:00:00Z,shop\nccc,2026-01-06T10:00:00Z,shop\n"
    )
    folder = tables(ROW, ROW.replace("shop", "cart"), commits=commits)
    changes = load_tables(folder).changes
    shipped = changes.dropna(subset=["deployed"])
    assert sorted(shipped["application"] + " " + shipped["commit_sha"].astype(str)) == [
        "cart aaa",
        "shop aaa",
        "shop bbb",
    ]
    assert set(shipped["deployed"]) == {at("2026-01-05 10:01")}
    assert len(changes) == 4
    late = commits.replace("cart", "shop").replace("01-03T10", "01-05T11")
    assert "deployments.csv: row 2 " in refused(tables(ROW, commits=late))


def test_coverage_that_begins_earlier_is_cut_to_the_window(tables):
    coverage = (
        "application,environment,from,to\n"
        "shop,production,2025-12-01 00:00:00,2026-01-05T12:00:00Z\n"
    )
    history = load_tables(tables(ROW, coverage=coverage))
    check_history(history)
    assert column(history, "from", "coverage") == [at("2026-01-05")]


@pytest.mark.parametrize(
    "document",
    [{}, [], {"window": 5}, {"window": {"start": "2026-01-09T00:00:00Z", "end": "soon"}}]
    + [{"environments": [1, None]}, {"environments": ["dev"]}, {"source": 7, "notes": [1]}],
)
def test_what_is_missing_in_metrics_json_is_found_in_the_tables(tables, document):
    history = load_tables(tables(ROW, metrics=json.dumps(document)))
    check_history(history)
    assert (history.source, history.environments) == ("files", ("production",))
    assert history.window.days == 1


def test_the_window_of_metrics_json_grows_with_the_deployments(tables):
    window = {"window": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-05T00:00:00Z"}}
    history = load_tables(tables(ROW, metrics=json.dumps(window)))
    assert (history.window.start, history.window.days) == (at("2026-01-01"), 5)


def wrong(old, new):
    return {"deployments": f"{HEAD}\n{ROW}\n{ROW.replace(old, new)}\n"}


ROLLBACK = "timestamp,application,environment,from_commit,duration_min,success\n"
ROLLBACK += "2026-01-05T10:00:00Z,shop,production,a,"
BAD_TABLES = {
    "deployments.csv: No columns": {"deployments": ""},
    "deployments.csv: no column 'timestamp' in 'a;b': commas": {"deployments": "a;b\n1;2\n"},
    "deployments.csv; --history needs one": {"deployments": f"{HEAD}\n"},
    "deployments.csv: row 3: timestamp must be a time": wrong("2026-01-05T10:00:00Z", "soon"),
    "deployments.csv: row 3: timestamp must be": wrong("2026-01-05T", "13/1/2026 "),
    "deployments.csv: row 3: duration_sec must be": wrong(",60,", ",-60,"),
    "deployments.csv: row 3: status must be one of Synced, Failed, not 'ok'": wrong("Synced", "ok"),
    "deployments.csv: row 3: health must be Degraded if Failed, not": wrong("Synced", "Failed"),
    "deployments.csv: row 3: commit_sha must be a name, not ''": wrong("aaa", ""),
    "deployments.csv: its rows have more cells": {"deployments": f"{HEAD}\n{ROW},,\n"},
    "deployments.csv: row 2: recovered must not be before": {
        "deployments": f"{HEAD},recovered\n{ROW.replace('Healthy', 'Degraded')},"
        "2026-01-05T09:00:00Z\n"
    },
    "cannot read": {"deployments": f"{HEAD}\n{ROW}\n".encode("utf-16")},
    "changes.csv: row 3: deployed must not be before committed": {
        "changes": CHANGES.replace("12:00:00Z,\n", "12:00:00Z,2026-01-01T00:00:00Z\n")
    },
    "rollbacks.csv: row 2: duration_min must be a number": {"rollbacks": f"{ROLLBACK},t\n"},
    "rollbacks.csv: row 2: success must be True or False": {"rollbacks": f"{ROLLBACK}5,maybe\n"},
    "metrics.json is not JSON": {"metrics": "{"},
}


@pytest.mark.parametrize("words", BAD_TABLES)
def test_what_cannot_be_is_one_line_with_file_row_column_and_value(tables, words):
    line = refused(tables(ROW, **BAD_TABLES[words]))
    assert all(part in line for part in words.split(": ")), line


def test_what_is_no_folder_of_tables_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "missing"):
        assert f"no deployments.csv in {tmp_path / name}" in refused(tmp_path / name)
    (tmp_path / "deployments.csv").mkdir()
    assert "cannot read" in refused(tmp_path)


CELLS = st.sampled_from(
    [
        "",
        "soon",
        "-1",
        "1e999",
        "9" * 40,
        "nan",
        "2026-02-30 10:00",
        "9999-12-31 23:59:59",
        "\x1b[31m",
    ]
    + ["1969-12-31 23:59:59", "2199-12-31 23:59:59Z", "\0", "x" * 5000, '"', "🚀", "Unknown", "1,5"]
) | st.text(max_size=8)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), CELLS), max_size=2), st.booleans())
@example([(0, 12, "2199-12-31 23:59:59Z")], True)
def test_a_broken_cell_is_refused_in_one_line_or_measured(tmp_path_factory, breaks, alone):
    """No traceback and no broken table, whatever a cell of any file holds."""
    folder = tmp_path_factory.mktemp("tables")
    files = {
        "deployments.csv": f"{HEAD}\n{ROW}\n{ROW.replace('05T', '06T').replace('aaa', 'bbb')}\n",
        "changes.csv": CHANGES,
        "coverage.csv": "application,environment,from,to,lost\n"
        "shop,production,2026-01-01 00:00:00,2026-01-09 00:00:00,3\n",
        "commits.csv": "sha,timestamp,application\n" + f"{'a' * 40},2026-01-03T10:00:00Z,shop\n",
    }
    for number, (name, text) in enumerate(files.items()):
        cells = re.split("([,\n])", text)
        for file, cell, value in breaks:
            if file == number:
                cells[2 * cell % len(cells)] = value
        if not (alone and number):
            (folder / name).write_text("".join(cells), encoding="utf-8", errors="replace")
    try:
        history = load_tables(folder)
    except GitOpsError as error:
        assert str(error).isprintable()
    else:
        measure(history)


def test_text_that_steers_a_terminal_is_made_harmless(capsys, tables):
    folder = tables(ROW.replace("shop", "sh\x1b[31mop\u202e"))
    status, out, err = called(capsys, *FAST, "--history", folder, "--details")
    assert (status, err) == (0, "")
    assert "\x1b" not in out and "\u202e" not in out
