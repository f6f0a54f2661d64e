"""Any window, and trends: by hand, by plain loops, beside published intervals, by simulation."""

import json
import math
import re

import pandas as pd
import pytest
from conftest import TEMPLATE, called
from plain_model import average, check_history, middle, plain_production, simulated, table

import gitops_automation as module

pytestmark = pytest.mark.usefixtures("in_a_folder")

FAST = ["--seed", "7", "--runs", "3", "--no-dashboard"]
COLUMNS = [
    *("period", "days", "metric", "value", "low", "high", "n", "mean", "p90", "open", "at_least"),
    *("why", "enough", "change", "change_low", "change_high", "differs"),
]


def at(text):
    return pd.Timestamp(text, tz="UTC")


def deployed(time, bad=False, number=0, health="Healthy", environment="production"):
    """Return a row of `deployments` of the shop: a sync of a minute."""
    health, reason = ("Degraded", "Rolled back") if bad else (health, None)
    sha = f"{number:040x}"
    return (at(time), "shop", environment, sha, "Synced", health, 60, reason)


def history_of(deployments, start, end, commits=(), rollbacks=(), **more):
    rows = sorted(deployments, key=lambda row: row[0])
    tables = table("git_commits", *commits), table("deployments", *rows)
    window = module.Window(at(start), at(end))
    rollbacks = table("rollbacks", *rollbacks)
    made = module.History(*tables, rollbacks, window, ("staging", "production"), **more)
    check_history(made)
    return made


def weeks_of(*counts, bad=0, first="2026-01-05"):
    """Return a history of whole weeks with so many deployments; `bad` of the first of each fail."""
    monday = at(first)
    rows = [
        deployed(
            f"{monday + pd.Timedelta(days=7 * week + number % 7, minutes=number):%F %T}",
            number < bad,
        )
        for week, count in enumerate(counts)
        for number in range(count)
    ]
    return history_of(rows, first, f"{monday + pd.Timedelta(days=7 * len(counts)):%F}")


def trend_of(history, by, metric):
    """Return the periods of one metric, as dicts."""
    rows = module.measure_trend(history, by)
    return rows[rows["metric"] == metric].to_dict("records")


# ---- Periods ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "first", "end", "periods"),
    [
        ("week", "2026-01-05", "2026-01-19", [("2026-01-05", 7), ("2026-01-12", 7)]),
        (
            "week",  # from a Wednesday to a Tuesday
            "2026-01-07",
            "2026-01-21",
            [("2026-01-07", 5), ("2026-01-12", 7), ("2026-01-19", 2)],
        ),
        ("week", "2026-01-06", "2026-01-07", [("2026-01-06", 1)]),
        (
            "month",
            "2025-12-30",
            "2026-03-02",
            [("2025-12-30", 2), ("2026-01-01", 31), ("2026-02-01", 28), ("2026-03-01", 1)],
        ),
    ],
)
def test_a_period_is_a_week_from_monday_or_a_month_as_far_as_the_window_has_it(
    by, first, end, periods
):
    found = trend_of(history_of([], first, end), by, module.FREQUENCY)
    assert [(f"{row['period']:%F}", row["days"]) for row in found] == periods
    assert sum(row["days"] for row in found) == (at(end) - at(first)).days


def test_a_deployment_is_of_the_period_in_which_it_began_and_a_change_of_that_in_which_it_shipped():
    """It begins at 23:59:30 on Sunday and ends on Monday; its commit is of the week before."""
    commit = (f"{1:040x}", at("2026-01-09 08:00"), "ann", "feat", "shop", "main", "m", 1)
    deployment = deployed("2026-01-11 23:59:30", number=1)
    made = history_of([deployment], "2026-01-05", "2026-01-19", [commit])
    assert [row["n"] for row in trend_of(made, "week", module.FREQUENCY)] == [1, 0]
    assert [row["n"] for row in trend_of(made, "week", module.LEAD)] == [0, 1]
    row = trend_of(made, "week", module.LEAD)[1]
    assert row["value"] == row["p90"] == pytest.approx(64 + 30 / 3600)
    assert math.isnan(row["low"])


@pytest.mark.parametrize("by", ["week", "month"])
@pytest.mark.parametrize(
    "scenario",
    [
        module.Scenario(),
        module.Scenario()
        .with_environment("production", success_rate=0.6, wait_hours=(1, 40))
        .with_rollback(success_rate=0.5),
    ],
    ids=["as it comes", "fails often"],
)
def test_the_periods_of_a_history_are_those_of_plain_loops(scenario, by):
    history = simulated(scenario, 3, module.Window(at("2025-12-10"), at("2026-03-20")))[0]
    found = module.measure_trend(history, by)
    starts = found["period"].drop_duplicates().tolist()
    for start, end in zip(starts, [*starts[1:], history.window.end]):
        rows = found[found["period"] == start].set_index("metric")
        expected = plain_production(history, period=(start, end))
        for metric in (module.LEAD, module.RECOVERY):
            assert rows.at[metric, "n"] == len(expected[metric])
            numbers = middle(expected[metric]), average(expected[metric])
            found_numbers = rows.loc[metric, ["value", "mean"]].tolist()
            assert found_numbers == pytest.approx(numbers, nan_ok=True), metric
        assert rows.at[module.FREQUENCY, "n"] == expected["deployments"]
        for metric in (module.FREQUENCY, module.FAIL_RATE, module.REWORK):
            value = expected[metric]
            assert rows.at[metric, "value"] == pytest.approx(value, nan_ok=True), metric


# ---- Enough data --------------------------------------------------------------------------------


def test_a_week_of_few_deployments_says_nothing_about_their_failures():
    """Two of six failed, then two of five: too little data. Both weeks have their frequency."""
    history = weeks_of(6, 5, bad=2)
    rates, counts = (
        trend_of(history, "week", metric) for metric in (module.FAIL_RATE, module.FREQUENCY)
    )
    assert [row["enough"] for row in rates] == [True, False]
    assert rates[1]["value"] == 40
    assert math.isnan(rates[1]["change"])
    assert [row["enough"] for row in counts] == [True, True]


def test_weeks_of_which_nothing_is_known_are_no_weeks_of_nothing():
    span = ("shop", "production", "shop-prod", "name", at("2026-01-10"), at("2026-01-25 12:00"), 7)
    coverage = table("coverage", span)
    times = [f"2026-01-{day} 10:00" for day in (13, 14, 20)]
    history = history_of(
        [deployed(time) for time in times],
        "2026-01-05",
        "2026-01-26",
        source="argocd",
        coverage=coverage,
    )
    rows = trend_of(history, "week", module.FREQUENCY)
    assert [row["n"] for row in rows] == [0, 2, 1]
    assert [row["enough"] for row in rows] == [False, True, True]
    assert [row["at_least"] for row in rows] == [True, False, False]


# ---- Differences --------------------------------------------------------------------------------


def test_the_difference_of_two_rates_has_the_interval_that_newcombe_published():
    """R. Newcombe, Statistics in Medicine 17, 1998, II: 48 of 80 and 56 of 70, by his method 10."""
    rows = [
        deployed(f"{day} 10:{number // 60:02}:{number % 60:02}", number < failed)
        for day, failed, many in (("2026-01-05", 48, 80), ("2026-01-12", 56, 70))
        for number in range(many)
    ]
    _, row = trend_of(history_of(rows, "2026-01-05", "2026-01-19"), "week", module.FAIL_RATE)
    found = [row[name] for name in ("change", "change_low", "change_high")]
    assert found == pytest.approx([20, 5.24, 33.39], abs=0.005)
    assert row["differs"]


@pytest.mark.slow
@pytest.mark.parametrize("metric", [module.LEAD, module.FREQUENCY, module.FAIL_RATE])
def test_a_steady_process_differs_in_about_one_month_of_twenty(metric):
    """Twelve years of the same pipeline: 143 pairs of months, with a standard error of 2 %."""
    history = simulated(module.Scenario(), 5, module.Window(at("2010-01-01"), at("2022-01-01")))[0]
    rows = pd.DataFrame(trend_of(history, "month", metric)).iloc[1:]
    assert rows["enough"].all()
    assert rows["differs"].mean() < 0.1


# ---- In the report, in JSON, in the export ------------------------------------------------------


def deployments_csv(folder, history):
    """Write a history as a folder that --history takes."""
    folder.mkdir()
    history.deployments.to_csv(folder / "deployments.csv", index=False)
    return folder


def test_the_report_has_a_line_for_each_period(capsys, tmp_path):
    folder = deployments_csv(tmp_path / "made", weeks_of(70, 77, 140))
    status, out, err = called(capsys, *FAST, "--history", folder, "--details")
    assert (status, err) == (0, "")
    lines = out[out.index("TREND OF PRODUCTION") :].splitlines()
    begin = lines.index("Deployment frequency (a day)")
    weeks = lines[begin + 2 : begin + 5]
    assert [line.split()[:2] for line in weeks] == [
        ["2026-01-05", "10.00"],
        ["2026-01-12", "11.00"],
        ["2026-01-19", "20.00"],
    ]
    assert weeks[0].split()[-1] == "70"  # nothing to compare it with
    assert weeks[1].endswith("77  within noise")
    assert re.search(r"140  \+9\.00 \(\+[\d.]+ to \+[\d.]+\)$", weeks[2])
    rates = lines[lines.index("Change fail rate (%)") + 2 :][:3]
    assert [line.split()[1] for line in rates] == ["0.00"] * 3


def test_the_report_says_where_there_is_too_little_data(capsys, tmp_path):
    folder = deployments_csv(tmp_path / "made", weeks_of(6, 5, bad=2))
    out = called(capsys, *FAST, "--history", folder, "--details")[1]
    lines = out[out.index("TREND OF PRODUCTION") :].splitlines()
    begin = lines.index("Change fail rate (%)")
    assert lines[begin + 3].endswith("5  too little data")
    begin = lines.index("Change lead time (h)")
    assert lines[begin + 2].endswith("0  no lead time is known")


def test_json_and_csv_have_the_trend_of_the_class(capsys, tmp_path):
    arguments = [*FAST, "--end", "2026-01-31", "--days", "90", "--details"]
    status, out, err = called(capsys, *arguments, "--json", "--export")
    assert (status, err) == (0, "")
    document = json.loads(out, parse_constant=pytest.fail)
    gitops = module.GitOpsAutomation(seed=7, end="2026-01-31")
    gitops.simulate_git_activity(90)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    trend = gitops.trend()
    assert trend["metric"].tolist() == [*module.PRODUCTION_METRICS] * 3
    assert [list(row) for row in document["trend"]] == [COLUMNS] * 15
    assert document["trend"][0]["period"] == "2025-11-02T00:00:00Z"
    read = pd.read_csv(tmp_path / "output" / "trend.csv", parse_dates=["period"])
    for column in ("value", "low", "high", "change", "change_low"):
        expected = pytest.approx(trend[column].tolist(), nan_ok=True)
        found = [math.nan if row[column] is None else row[column] for row in document["trend"]]
        assert found == expected, column
        assert read[column].tolist() == expected, column
    assert read["period"].tolist() == trend["period"].tolist()


# ---- A part of a history ------------------------------------------------------------------------

JANUARY = module.Window(at("2026-01-01"), at("2026-02-01"))


def test_a_part_has_the_events_that_began_in_it():
    times = ["2025-12-31 23:59", "2026-01-01 00:00", "2026-01-31 23:59", "2026-02-01 00:00"]
    commits = [
        (f"{number:040x}", at(time), "ann", "feat", "shop", "main", "m", 1)
        for number, time in enumerate(times)
    ]
    rollbacks = [
        (at(time), "shop", "production", "a", "b", "Rolled back", 5.0, True) for time in times
    ]
    deployments = [deployed(time, True, number) for number, time in enumerate(times)]
    history = history_of(deployments, "2025-12-01", "2026-03-01", commits, rollbacks)
    part = history.within(JANUARY)
    check_history(part)
    for name in ("git_commits", "deployments", "rollbacks"):
        assert getattr(part, name)["timestamp"].tolist() == [at(time) for time in times[1:3]]
    assert part.window == JANUARY


# ---- Any window of any source -------------------------------------------------------------------

ARGO = ["--argocd", "apps.json"]
REPO = ["--repo", "config"]
COUNTS = [  # (source, options, first day, last day, deployments to production, to staging, back)
    (ARGO, [], "2026-01-01", "2026-01-11", 10, 9, 0),  # it cannot tell what went back
    (ARGO, ["--days", "2", "--end", "2026-01-05"], "2026-01-03", "2026-01-04", 2, 2, 0),
    ([*ARGO, *REPO], ["--days", "4"], "2026-01-08", "2026-01-11", 2, 2, 1),
    ([*REPO, "--deployments-from"], ["--days", "4"], "2026-01-07", "2026-01-10", 3, 3, 1),
    (["--history", "exported"], ["--days", "4"], "2026-01-08", "2026-01-11", 2, 2, 1),
    (["--history", "exported"], ["--end", "2026-01-05"], "2026-01-01", "2026-01-04", 4, 4, 0),
]


@pytest.fixture
def sources(team, monkeypatch, capsys, tmp_path):
    """Go to the team's folder, and export its history for those tests that read it."""
    monkeypatch.chdir(team)
    if not (team / "exported").exists():
        assert called(capsys, *FAST, *ARGO, *REPO, "--export", "--output", "exported")[0] == 0


@pytest.mark.parametrize(("source", "options", "first", "last", "live", "staged", "back"), COUNTS)
def test_days_and_end_choose_the_window_of_every_source(
    sources, capsys, source, options, first, last, live, staged, back
):
    status, out, err = called(capsys, *FAST, *source, *options, "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    window, values = document["window"], document["metrics"]
    assert (window["start"][:10], window["end"][:10]) == (
        first,
        f"{at(last) + pd.Timedelta(days=1):%F}",
    )
    assert values["deployments_by_environment"] == {"staging": staged, "production": live}
    assert values["total_rollbacks"] == back
    days = (at(last) - at(first)).days + 1
    assert values["deployment_frequency"] == pytest.approx(live / days)


@pytest.mark.parametrize(
    "source", [ARGO, [*REPO, "--deployments-from", TEMPLATE], ["--history", "exported"]]
)
def test_a_window_of_which_nothing_is_known_is_one_line(sources, capsys, source):
    status, _, err = called(capsys, *FAST, *source, "--end", "2025-01-01", "--days", "30")
    assert (status, err.count("\n")) == (2, 1)
    assert "nothing is known from 2024-12-02 to 2024-12-31" in err
    assert "goes from 2026-01-01 to 2026-01-1" in err
