"""Any window, and trends: by hand, by plain loops, beside published intervals, by simulation."""

import json
import math
import re
import statistics

import numpy as np
import pandas as pd
import pytest
from conftest import TEMPLATE, called
from plain_model import check_history, same, simulated, table

import gitops_automation as module
from gitops_automation import (
    GitOpsAutomation,
    GitOpsError,
    History,
    Scenario,
    Window,
    production_metrics,
)

LEAD, FREQUENCY, RECOVERY, FAIL_RATE, REWORK = module.PRODUCTION_METRICS
FAST = ["--seed", "7", "--runs", "3", "--no-dashboard"]
COLUMNS = [
    *("period", "days", "metric", "value", "low", "high", "n", "mean", "p90", "open", "at_least"),
    *("enough", "limit_low", "limit_high", "unusual"),
    *("change", "change_low", "change_high", "differs"),
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
    window = Window(at(start), at(end))
    rollbacks = table("rollbacks", *rollbacks)
    made = History(*tables, rollbacks, window, ("staging", "production"), **more)
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
    found = trend_of(history_of([], first, end), by, FREQUENCY)
    assert [(f"{row['period']:%F}", row["days"]) for row in found] == periods
    assert sum(row["days"] for row in found) == (at(end) - at(first)).days


@pytest.mark.parametrize("by", ["day", "", "Month", None])
def test_another_period_is_refused(by):
    with pytest.raises(GitOpsError, match="be week or month"):
        module.measure_trend(weeks_of(1), by)


def test_the_class_gives_a_row_for_each_metric_of_a_period(capsys):
    gitops = GitOpsAutomation(seed=7, end="2026-03-01")
    gitops.simulate_git_activity(59)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    found = gitops.trend("month")
    assert list(found.columns) == COLUMNS
    assert found["metric"].tolist() == [name for name in module.PRODUCTION_METRICS for _ in "12"]
    assert gitops.trend().equals(found)
    assert len(gitops.trend("week")) == 5 * 9
    assert list(found["n"][2:4]) == [
        gitops.deployments.query("environment == 'production'")["timestamp"].dt.month.eq(n).sum()
        for n in (1, 2)
    ]


def test_a_deployment_is_of_the_period_in_which_it_began_and_a_change_of_that_in_which_it_shipped():
    """It begins at 23:59:30 on Sunday and ends on Monday; its commit is of the week before."""
    commit = (f"{1:040x}", at("2026-01-09 08:00"), "ann", "feat", "shop", "main", "m", 1)
    deployment = deployed("2026-01-11 23:59:30", number=1)
    made = history_of([deployment], "2026-01-05", "2026-01-19", [commit])
    assert [row["n"] for row in trend_of(made, "week", FREQUENCY)] == [1, 0]
    assert [row["n"] for row in trend_of(made, "week", LEAD)] == [0, 1]
    assert trend_of(made, "week", LEAD)[1]["value"] == pytest.approx(64 + 30 / 3600)


def apart(months):
    """Return a history in which nothing crosses the edge of a month.

    Each has ten commits that ship after hours, of which the third fails and is rolled back, and the
    sixth fails until the next.
    """
    commits, deployments, rollbacks = [], [], []
    for month, number in ((month, number) for month in months for number in range(10)):
        day, key = 2 + 2 * number, 100 * month + number
        sha, wait = f"{key:040x}", month + number % 3
        time = at(f"2026-{month:02d}-{day:02d} 08:00")
        commits.append((sha, time, "ann", "feat", "shop", "main", "m", 1))
        begun = time + pd.Timedelta(hours=wait)
        deployments.append(deployed(f"{begun:%F %T}", number in (2, 5), key))
        if number == 2:
            end = begun + pd.Timedelta(minutes=1)
            shas = sha, f"{key - 1:040x}"
            rollbacks.append((end, "shop", "production", *shas, "Rolled back", 20.0 + month, True))
    return history_of(deployments, "2026-01-01", "2026-05-01", commits, rollbacks)


def test_a_period_has_the_numbers_of_its_own_history_where_nothing_crosses_its_edge():
    history = apart(range(1, 5))
    found = module.measure_trend(history, "month")
    for start in pd.date_range("2026-01-01", "2026-04-01", freq="MS", tz="UTC"):
        window = Window(start, start + pd.offsets.MonthBegin())
        alone = production_metrics(history.within(window)).iloc[:5].set_index("metric")
        period = found[found["period"] == start].set_index("metric")
        for column in ("value", "low", "high", "n", "mean", "p90", "open", "at_least"):
            expected = alone[column].to_dict()
            assert same(period[column].to_dict(), expected), (start, column)
    assert found[found["metric"] == LEAD]["value"].nunique() == 4


def plain_periods(history, by):
    """Return {metric: [(value, n) of each period]}, in loops over rows."""

    def period(time):
        if by == "month":
            first = time.normalize().replace(day=1)
        else:
            first = time.normalize() - pd.Timedelta(days=time.weekday())
        return max(first, history.window.start)

    starts = sorted({period(day) for day in pd.date_range(*history.window, tz="UTC")[:-1]})
    ends = [*starts[1:], history.window.end]
    commits, deployments, rollbacks = (
        [
            row
            for row in getattr(history, name).to_dict("records")
            if row.get("environment") in (None, "production")
        ]
        for name in ("git_commits", "deployments", "rollbacks")
    )
    for row in deployments:
        row["end"] = row["timestamp"] + pd.Timedelta(seconds=row["duration_sec"])
    place = {row["sha"]: number for number, row in enumerate(commits)}
    leads, recoveries, fixes = ({start: [] for start in starts} for _ in range(3))
    for number, change in enumerate(commits):
        shipped = [
            row["end"]
            for row in deployments
            if row["status"] == "Synced"
            and row["application"] == change["application"]
            and place[row["commit_sha"]] >= number
        ]
        if shipped and min(shipped) < history.window.end:
            wait = (min(shipped) - change["timestamp"]).total_seconds() / 3600
            leads[period(min(shipped))].append(wait)
    for number, bad in enumerate(deployments):
        if bad["health"] != "Degraded":
            continue
        over = [
            row["timestamp"] + pd.Timedelta(seconds=round(60 * row["duration_min"]))
            for row in rollbacks
            if row["success"]
            and (row["application"], row["from_commit"]) == (bad["application"], bad["commit_sha"])
            and row["timestamp"] == bad["end"]
        ]
        if not over:
            later = [
                (row["end"], row["timestamp"])
                for row in deployments[number + 1 :]
                if row["application"] == bad["application"] and row["health"] == "Healthy"
            ]
            for end, begun in later[:1]:
                over = [end]
                if (end, bad["application"]) not in fixes[period(begun)]:
                    fixes[period(begun)].append((end, bad["application"]))
        minutes = [(time - bad["end"]).total_seconds() / 60 for time in over]
        recoveries[period(bad["timestamp"])] += [max(value, 0) for value in minutes]

    def of_period(rows, start):
        return [row for row in rows if period(row["timestamp"]) == start]

    def percent(part, whole):
        return 100 * part / whole if whole else math.nan

    found = {metric: [] for metric in module.PRODUCTION_METRICS}
    for start, end in zip(starts, ends):
        made, back = of_period(deployments, start), of_period(rollbacks, start)
        bad = [row for row in made if row["health"] == "Degraded"]
        for metric, times in ((LEAD, leads[start]), (RECOVERY, recoveries[start])):
            value = statistics.median(times) if times else math.nan
            found[metric].append((value, len(times)))
        found[FREQUENCY].append((len(made) / (end - start).days, len(made)))
        found[FAIL_RATE].append((percent(len(bad), len(made)), len(made)))
        whole = len(made) + len(back)
        found[REWORK].append((percent(len(back) + len(fixes[start]), whole), whole))
    return found


@pytest.mark.parametrize("by", ["week", "month"])
@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(),
        Scenario()
        .with_environment("production", success_rate=0.6, wait_hours=(1, 40))
        .with_rollback(success_rate=0.5),
    ],
    ids=["as it comes", "fails often"],
)
def test_the_periods_of_a_history_are_those_of_plain_loops(scenario, by):
    history = simulated(scenario, 3, Window(at("2025-12-10"), at("2026-03-20")))[0]
    found = module.measure_trend(history, by)
    for metric, expected in plain_periods(history, by).items():
        rows = found[found["metric"] == metric]
        assert rows["n"].tolist() == [n for _, n in expected], metric
        values = [value for value, _ in expected]
        assert rows["value"].tolist() == pytest.approx(values, nan_ok=True), metric


# ---- Natural process limits ---------------------------------------------------------------------


def test_the_limits_are_those_of_an_xmr_chart():
    """Weeks of 70, 77, 70, 77, 70 and 140 deployments: 10, 11, 10, 11, 10 and 20 a day.

    The mean is 12. Neighbours differ by 1, 1, 1, 1 and 10: 2.8 on average. The limits are
    12 -+ 2.66 * 2.8 = 4.552 and 19.448, and the last week is outside.
    """
    rows = trend_of(weeks_of(70, 77, 70, 77, 70, 140), "week", FREQUENCY)
    assert rows[0]["limit_low"] == pytest.approx(12 - 7.448)
    assert rows[0]["limit_high"] == pytest.approx(12 + 7.448)
    assert [row["unusual"] for row in rows] == [False] * 5 + [True]


def test_a_limit_is_never_below_zero():
    rows = trend_of(weeks_of(7, 14, 7, 14, 7, 14), "week", FREQUENCY)
    assert rows[0]["limit_low"] == 0
    assert rows[0]["limit_high"] == pytest.approx(1.5 + 2.66)
    assert not any(row["unusual"] for row in rows)


def test_four_periods_have_no_limits():
    assert math.isnan(trend_of(weeks_of(70, 70, 70, 700), "week", FREQUENCY)[0]["limit_low"])
    assert not math.isnan(
        trend_of(weeks_of(70, 70, 70, 70, 700), "week", FREQUENCY)[0]["limit_low"]
    )


def test_a_week_of_few_deployments_says_nothing_about_their_failures():
    """Two of six failed, then two of five: too little data. Both weeks have their frequency."""
    history = weeks_of(6, 5, bad=2)
    rates, counts = (trend_of(history, "week", metric) for metric in (FAIL_RATE, FREQUENCY))
    assert [row["enough"] for row in rates] == [True, False]
    assert rates[1]["value"] == 40
    assert math.isnan(rates[1]["change"])
    assert [row["enough"] for row in counts] == [True, True]


def test_a_part_of_a_month_is_no_month():
    """It is shown, and neither compared nor taken for the limits."""
    history = history_of([deployed("2026-01-31 10:00")], "2026-01-31", "2026-03-01")
    rows = trend_of(history, "month", FREQUENCY)
    assert [(row["value"], row["enough"]) for row in rows] == [(1, False), (0, True)]
    assert math.isnan(rows[1]["change"])


def test_weeks_of_which_nothing_is_known_are_no_weeks_of_nothing():
    span = ("shop", "production", "name", "shop-prod", at("2026-01-10"), at("2026-01-25 12:00"))
    coverage = table("coverage", (*span, True, 3, 3, math.nan))
    times = [f"2026-01-{day} 10:00" for day in (13, 14, 20)]
    history = history_of(
        [deployed(time) for time in times],
        "2026-01-05",
        "2026-01-26",
        source="argocd",
        coverage=coverage,
    )
    rows = trend_of(history, "week", FREQUENCY)
    assert [row["n"] for row in rows] == [0, 2, 1]
    assert [row["enough"] for row in rows] == [False, True, True]
    assert [row["at_least"] for row in rows] == [True, False, False]


# ---- Differences --------------------------------------------------------------------------------


def rates(part, whole, hidden=0):
    numbers = (np.array([number]) for number in (part, whole, hidden))
    return pd.DataFrame(module.rates_with_interval(*numbers))


@pytest.mark.parametrize(
    ("one", "other", "difference", "low", "high"),
    [
        ((56, 70), (48, 80), 20, 5.24, 33.39),
        ((9, 10), (3, 10), 60, 17.05, 80.90),
        ((6, 7), (2, 7), 57.14, 5.82, 80.62),
        ((5, 56), (0, 29), 8.93, -3.81, 19.26),
        ((0, 10), (0, 20), 0, -16.11, 27.75),
        ((10, 10), (0, 20), 100, 67.91, 100),
    ],
)
def test_the_difference_of_two_rates_has_the_interval_that_newcombe_published(
    one, other, difference, low, high
):
    """R. G. Newcombe, Statistics in Medicine 17 (1998), p. 873, table II, method 10."""
    found = module.difference_of(rates(*other), rates(*one)).iloc[0]
    expected = [difference, low, high]
    assert found.tolist() == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(("first", "second"), [(0.05, 0.05), (0.1, 0.2), (0.3, 0.3), (0.5, 0.8)])
def test_the_interval_of_a_difference_covers_the_true_one_95_times_in_100(first, second):
    """Exact, by the two binomial distributions, with 40 and 60 deployments."""
    counts = [np.arange(n + 1) for n in (40, 60)]
    one, other = (
        pd.DataFrame(module.rates_with_interval(k, np.full(len(k), k[-1]), 0 * k)) for k in counts
    )
    chances = [
        [math.comb(int(k[-1]), i) * p**i * (1 - p) ** (k[-1] - i) for i in k.tolist()]
        for k, p in zip(counts, (first, second))
    ]
    pairs = [(i, j) for i in counts[0] for j in counts[1]]
    rows, columns = (list(side) for side in zip(*pairs))
    found = module.difference_of(
        one.iloc[rows].reset_index(drop=True), other.iloc[columns].reset_index(drop=True)
    )
    inside = (found["change_low"] <= 100 * (second - first)) & (
        100 * (second - first) <= found["change_high"]
    )
    weights = np.array([chances[0][i] * chances[1][j] for i, j in pairs])
    assert weights[inside.to_numpy()].sum() == pytest.approx(0.955, abs=0.025)


def test_a_difference_is_one_only_if_its_interval_leaves_zero_out():
    """Of 40 a week, 2, 4 and 30 fail.

    From 5 to 10 % is within noise; from 10 to 75 % is a difference.
    """
    weeks = [weeks_of(40, bad=bad, first=first) for bad, first in BY_WEEK]
    rows = pd.concat([week.deployments for week in weeks], ignore_index=True)
    window = Window(weeks[0].window.start, weeks[-1].window.end)
    history = weeks[0]._replace(deployments=module.as_table("deployments", rows), window=window)
    found = trend_of(history, "week", FAIL_RATE)
    assert [row["value"] for row in found] == pytest.approx([5, 10, 75])
    assert [row["differs"] for row in found] == [False, False, True]
    assert found[1]["change_low"] < 0 < found[1]["change_high"]
    assert 40 < found[2]["change_low"] < found[2]["change"] < found[2]["change_high"] < 80


BY_WEEK = [(2, "2026-01-05"), (4, "2026-01-12"), (30, "2026-01-19")]


def test_what_nobody_looked_at_may_be_all_of_a_difference():
    """None of 20 seen to fail, of which 15 were not looked at; then 8 of 20: no difference."""
    seen = module.difference_of(rates(0, 20), rates(8, 20)).iloc[0]
    hidden = module.difference_of(rates(0, 20, 15), rates(8, 20)).iloc[0]
    assert seen["change_low"] > 0 > hidden["change_low"]


@pytest.mark.slow
@pytest.mark.parametrize("metric", [LEAD, FREQUENCY, FAIL_RATE])
def test_a_steady_process_differs_in_about_one_month_of_twenty(metric):
    """Twelve years of the same pipeline: 143 pairs of months, with a standard error of 2 %."""
    history = simulated(Scenario(), 5, Window(at("2010-01-01"), at("2022-01-01")))[0]
    rows = pd.DataFrame(trend_of(history, "month", metric)).iloc[1:]
    assert rows["enough"].all()
    assert rows["differs"].mean() < 0.1


# ---- In the report, in JSON, in the export ------------------------------------------------------


def deployments_csv(folder, history):
    """Write a history as a folder that --history takes."""
    folder.mkdir()
    (folder / "deployments.csv").write_bytes(module.as_csv(history.deployments))
    return folder


def section(text, title):
    lines = text.splitlines()
    begin = next(number for number, line in enumerate(lines) if title in line) + 2
    return lines[begin : lines.index("", begin)] if "" in lines[begin:] else lines[begin:]


def test_the_report_has_a_line_for_each_period_and_marks_what_is_outside(capsys, tmp_path):
    folder = deployments_csv(tmp_path / "made", weeks_of(70, 77, 70, 77, 70, 140))
    status, out, err = called(capsys, *FAST, "--history", folder, "--by", "week")
    assert (status, err) == (0, "")
    lines = out[out.index("TREND OF PRODUCTION") :].splitlines()
    begin = lines.index("Deployment frequency (a day)")
    weeks = lines[begin + 2 : begin + 8]
    assert [line.split()[:2] for line in weeks] == [
        [f"{at('2026-01-05') + pd.Timedelta(days=7 * week):%F}", f"{value:.2f}"]
        for week, value in enumerate([10, 11, 10, 11, 10, 20])
    ]
    assert "within noise" in weeks[1]
    assert "outside the limits" not in "".join(weeks[:5])
    assert re.search(r"\+10\.00/day \(\+[\d.]+ to \+[\d.]+\); outside the limits$", weeks[5])
    assert lines[begin + 8] == "  natural process limits: 4.55 to 19.45"


def test_the_report_says_where_there_is_too_little_data(capsys, tmp_path):
    folder = deployments_csv(tmp_path / "made", weeks_of(6, 5, bad=2))
    out = called(capsys, *FAST, "--history", folder, "--by", "week")[1]
    lines = out[out.index("TREND OF PRODUCTION") :].splitlines()
    begin = lines.index("Change fail rate (%)")
    assert lines[begin + 2].split()[:2] == ["2026-01-05", "33.33"]
    assert "too little data" not in lines[begin + 2]
    assert lines[begin + 3].endswith("too little data")
    assert "Change lead time: n/a in every period" in lines


def test_json_and_csv_have_the_trend_of_the_class(capsys, tmp_path):
    arguments = [*FAST, "--end", "2026-01-31", "--days", "60", "--by", "month"]
    status, out, err = called(capsys, *arguments, "--json", "--export")
    assert (status, err) == (0, "")
    document = json.loads(out, parse_constant=pytest.fail)
    gitops = GitOpsAutomation(seed=7, end="2026-01-31")
    gitops.simulate_git_activity(60)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    trend = gitops.trend("month")
    assert [list(row) for row in document["trend"]] == [COLUMNS] * 10
    assert document["trend"][0]["period"] == "2025-12-02T00:00:00Z"
    read = pd.read_csv(tmp_path / "output" / "trend.csv", parse_dates=["period"])
    for column in ("value", "low", "high", "limit_low", "change", "change_low"):
        expected = pytest.approx(trend[column].tolist(), nan_ok=True)
        found = [math.nan if row[column] is None else row[column] for row in document["trend"]]
        assert found == expected, column
        assert read[column].tolist() == expected, column
    assert read["period"].tolist() == trend["period"].tolist()


def test_without_the_option_there_is_no_trend(capsys, tmp_path):
    status, out, _ = called(capsys, *FAST, "--json", "--export")
    assert status == 0
    assert {"trend", "compared"}.isdisjoint(json.loads(out))
    assert not (tmp_path / "output" / "trend.csv").exists()
    assert "TREND" not in called(capsys, *FAST)[1]


# ---- Compared with an earlier run ---------------------------------------------------------------


def earlier(path, **metrics):
    """Write a metrics.json in which the metrics of production have these (value, low, high, n)."""
    rows = {name: dict(zip(("value", "low", "high", "n"), row)) for name, row in metrics.items()}
    path.write_text(json.dumps({"production": rows}), encoding="utf-8")
    return path


def test_a_run_says_what_differs_from_an_earlier_one(capsys, tmp_path):
    """Newcombe's 56/70 against 48/80, as failures: +20 (5.24 to 33.39)."""
    low, high = (100 * float(module.wilson(0.6, 80, side)) for side in (-1, 1))
    rows = [deployed(f"2026-01-{1 + n // 4:02d} {n % 4:02d}:00", n < 56) for n in range(70)]
    folder = deployments_csv(tmp_path / "now", history_of(rows, "2026-01-01", "2026-01-31"))
    file = earlier(tmp_path / "then.json", **{FAIL_RATE: (60, low, high, 80)})
    arguments = [*FAST, "--history", folder, "--compare", file]
    out = called(capsys, *arguments)[1]
    lines = section(out, "COMPARED WITH AN EARLIER RUN")
    assert f"{'Change fail rate:':<34}60.00 → 80.00%: +20.00% (+5.24 to +33.39) (n = 80, 70)" in (
        lines
    )
    assert any(
        line.startswith("Deployment frequency:") and "n/a → " in line and "too little data" in line
        for line in lines
    )
    compared = json.loads(called(capsys, *arguments, "--json")[1])["compared"]
    assert list(compared) == list(module.PRODUCTION_METRICS)
    row = compared[FAIL_RATE]
    assert (row["before"], row["after"], row["before_n"], row["after_n"]) == (60, 80, 80, 70)
    assert (row["enough"], row["differs"]) == (True, True)
    assert row["change_low"] == pytest.approx(5.24, abs=0.006)
    assert (compared[LEAD]["before"], compared[LEAD]["enough"]) == (None, False)


def test_a_run_is_within_noise_of_itself(capsys, tmp_path):
    arguments = [*FAST, "--end", "2026-01-31"]
    assert called(capsys, *arguments, "--export")[0] == 0
    out = called(capsys, *arguments, "--compare", tmp_path / "output" / "metrics.json")[1]
    lines = section(out, "COMPARED WITH AN EARLIER RUN")
    assert lines[:2] == [
        "before: 2026-01-01 to 2026-01-30 (simulated)",
        "The windows overlap: what both have is compared with itself.",
    ]
    lines = lines[2:]
    assert len(lines) == 5
    assert all("within noise" in line or "too little data" in line for line in lines)
    assert sum("within noise" in line for line in lines) >= 4


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot read"),
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no production metrics"),
        ("{}", "has no production metrics"),
        ('{"production": []}', "has no production metrics"),
    ],
)
def test_a_file_that_is_no_metrics_json_is_one_line(capsys, tmp_path, content, why):
    file = tmp_path / "then.json"
    if content is not None:
        file.write_text(content)
    status, _, err = called(capsys, *FAST, "--compare", file)
    assert (status, err.count("\n")) == (2, 1)
    assert "then.json" in err
    assert why in err


@pytest.mark.parametrize(
    ("metric", "value", "n", "enough"),
    [
        (FREQUENCY, None, 100, False),
        (FREQUENCY, "5", 100, False),
        (FREQUENCY, 5, 3, True),  # its interval says how few they are
        (FAIL_RATE, 5, 6, True),
        (FAIL_RATE, 5, 5, False),
    ],
)
def test_few_deployments_and_what_is_no_number_are_too_little_data(
    capsys, tmp_path, metric, value, n, enough
):
    file = earlier(tmp_path / "then.json", **{metric: (value, 1, 9, n)})
    lines = section(called(capsys, *FAST, "--compare", file)[1], "COMPARED WITH")
    label = module.PRODUCTION_METRICS[metric].label
    (line,) = [line for line in lines if line.startswith(f"{label}:")]
    assert ("too little data" in line) != enough


# ---- A part of a history ------------------------------------------------------------------------

JANUARY = Window(at("2026-01-01"), at("2026-02-01"))


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


def test_a_quiet_week_of_a_history_has_no_deployments():
    history = history_of(
        [deployed("2026-01-04"), deployed("2026-02-20")], "2026-01-01", "2026-03-01", source="files"
    )
    part = history.within(Window(at("2026-02-01"), at("2026-02-08")))
    assert len(part.deployments) == 0


# ---- Any window of any source -------------------------------------------------------------------

ARGO = ["--argocd", "apps.json"]
REPO = ["--repo", "config"]
COUNTS = [  # (source, options, first day, last day, deployments to production, to staging, back)
    (ARGO, [], "2026-01-01", "2026-01-11", 10, 9, 0),  # it cannot tell what went back
    (ARGO, ["--days", "4"], "2026-01-08", "2026-01-11", 3, 2, 0),
    (ARGO, ["--end", "2026-01-05"], "2026-01-01", "2026-01-04", 4, 4, 0),
    (ARGO, ["--days", "2", "--end", "2026-01-05"], "2026-01-03", "2026-01-04", 2, 2, 0),
    ([*ARGO, *REPO], ["--days", "4"], "2026-01-08", "2026-01-11", 2, 2, 1),
    ([*REPO, "--deployments-from", TEMPLATE], [], "2026-01-01", "2026-01-10", 9, 9, 1),
    ([*REPO, "--deployments-from"], ["--days", "4"], "2026-01-07", "2026-01-10", 3, 3, 1),
    (
        [*REPO, "--deployments-from", TEMPLATE],
        ["--end", "2026-01-05", "--days", "3"],
        "2026-01-02",
        "2026-01-04",
        *(3, 3, 0),
    ),
    (["--history", "exported"], [], "2026-01-01", "2026-01-11", 9, 9, 1),
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
    assert values["production_deployment_frequency"] == pytest.approx(live / days)


def test_days_and_end_choose_the_commits_of_a_repository(sources, capsys):
    """Two a day until the ninth, and one on the tenth."""
    for options, count in ([["--days", "4"], 7], [["--days", "4", "--end", "2026-01-05"], 8]):
        document = json.loads(called(capsys, *FAST, *REPO, *options, "--json")[1])
        assert (document["commits"], document["window"]["days"]) == (count, 4)


@pytest.mark.parametrize(
    "source", [ARGO, [*REPO, "--deployments-from", TEMPLATE], ["--history", "exported"]]
)
def test_a_window_of_which_nothing_is_known_is_one_line(sources, capsys, source):
    status, _, err = called(capsys, *FAST, *source, "--end", "2025-01-01", "--days", "30")
    assert (status, err.count("\n")) == (2, 1)
    assert "nothing is known from 2024-12-02 to 2024-12-31" in err
    assert "goes from 2026-01-01 to 2026-01-1" in err
