"""Production as DORA defines it: by hand, by plain loops, in SQL, with intervals that hold."""

import contextlib
import io
import json
import math
import re
import sqlite3
import statistics
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from conftest import called
from plain_model import check_history, plain_production, table

import gitops_automation as module
from gitops_automation import (
    GitOpsAutomation,
    Scenario,
    Window,
    measure,
    production_metrics,
)

ALL = module.ALL_APPLICATIONS
LEAD, FREQUENCY, RECOVERY, FAIL_RATE, REWORK = module.PRODUCTION_METRICS
DURATIONS = (LEAD, RECOVERY)


def moment(time):
    """Return a time of January 2026, from a day of it: `02 08:00`."""
    return pd.Timestamp(f"2026-01-{time}", tz="UTC")


def commit(number, time, application="shop"):
    return (f"{number:040x}", moment(time), "alice", "feat", application, "main", "feat: it", 1)


def deploy(
    number,
    time,
    seconds=60,
    bad=False,
    status="Synced",
    application="shop",
    environment="production",
    health="Healthy",
):
    health, reason = ("Degraded", "probe failed") if bad else (health, None)
    sha = f"{number:040x}"
    return (moment(time), application, environment, sha, status, health, seconds, reason)


def rollback(bad, good, time, minutes, success=True, environment="production"):
    shas = f"{bad:040x}", f"{good:040x}"
    return (moment(time), "shop", environment, *shas, "probe failed", minutes, success)


def span(first, last, application="shop", truncated=False, between_looks=math.nan):
    """Return a row of `coverage` of production."""
    edges = moment(first), moment(last)
    name = f"{application}-prod"
    return (application, "production", "name", name, *edges, truncated, 0, 0, between_looks)


def real_history(deployments, rollbacks=(), days=10, coverage=None, recoveries=None):
    """Return a history of real deployments, of which this much is known."""
    details = {"coverage": coverage, "recoveries": recoveries}
    known = {name: table(name, *rows) for name, rows in details.items() if rows is not None}
    return history([], deployments, rollbacks, days, source="argocd", **known)


def history(commits, deployments, rollbacks=(), days=10, **more):
    made = module.History(
        table("git_commits", *commits),
        table("deployments", *deployments),
        table("rollbacks", *rollbacks),
        Window(moment("01"), moment("01") + pd.Timedelta(days=days)),
        ("dev", "production"),
        **more,
    )
    check_history(made)
    return made


def measured(made, application=ALL):
    """Return {metric: its row of `production_metrics`}."""
    return rows_for(production_metrics(made), application)


def rows_for(rows, application):
    rows = rows[rows["application"] == application].drop(columns="application")
    return {row.pop("metric"): row for row in rows.to_dict("records")}


def simulated(seed, days=40, scenario=None):
    gitops = GitOpsAutomation(scenario or Scenario(), seed=seed, end="2026-01-31")
    with contextlib.redirect_stdout(io.StringIO()):
        gitops.simulate_git_activity(days)
        gitops.simulate_deployments()
        gitops.simulate_rollbacks()
        gitops.calculate_dora_metrics()
    return gitops


SCENARIOS = {
    "as it comes": Scenario(),
    "fails often": Scenario()
    .with_environment("production", success_rate=0.5, wait_hours=(1, 5))
    .with_rollback(success_rate=0.5),
    "each release": Scenario()
    .with_environment("production", promotion="each")
    .with_environment("staging", promotion="each"),
    "soak": Scenario().with_environment("production", promotion="soak", wait_hours=(2, 9)),
}


# ---- By hand ------------------------------------------------------------------------------------


def test_the_five_metrics_of_a_case_worked_by_hand():
    """Ten days; every sync takes a minute.

        commits                       deployments
        1: 02 08:00                   2: 02 11:59 good
        2: 02 09:00                   3: 03 11:59 failed sync
        3: 03 09:00                   4: 04 11:59 applied, degraded
        4: 04 09:00                   4: 05 11:59 good
        5: 09 09:00 (never shipped)

    Lead times: 1 has shipped with 2 (02 12:00): 4 h; 2: 3 h; 3 failed, so it has shipped with 4
    (04 12:00): 27 h; 4: 3 h. Their median is 3.5 h, the mean 9.25 h, the 90th percentile
    4 + 0.7 * 23 = 20.1 h; one change is open.
    Four deployments in ten days; two of them failed. The first was rolled back in 30 min. The
    rollback of the second failed; the next good deployment ended it a day later: 1440 min.
    Rework: two rollbacks, with the one deployment that ended a failure, of six.
    """
    made = history(
        [
            commit(1, "02 08:00"),
            commit(2, "02 09:00"),
            commit(3, "03 09:00"),
            commit(4, "04 09:00"),
            commit(5, "09 09:00"),
        ],
        [
            deploy(2, "02 11:59"),
            deploy(3, "03 11:59", bad=True, status="Failed"),
            deploy(4, "04 11:59", bad=True),
            deploy(4, "05 11:59"),
        ],
        [rollback(3, 2, "03 12:00", 30), rollback(4, 2, "04 12:00", 5, success=False)],
    )
    of = measured(made)
    assert {metric: row["value"] for metric, row in of.items()} == pytest.approx(
        {LEAD: 3.5, FREQUENCY: 0.4, RECOVERY: 735, FAIL_RATE: 50, REWORK: 50}
    )
    assert {metric: row["n"] for metric, row in of.items()} == {
        LEAD: 4,
        FREQUENCY: 4,
        RECOVERY: 2,
        FAIL_RATE: 4,
        REWORK: 6,
    }
    assert (of[LEAD]["mean"], of[LEAD]["p90"], of[LEAD]["open"]) == pytest.approx((9.25, 20.1, 1))
    assert (of[RECOVERY]["mean"], of[RECOVERY]["p90"], of[RECOVERY]["open"]) == pytest.approx(
        (735, 30 + 0.9 * 1410, 0)
    )
    assert math.isnan(of[LEAD]["low"])
    garwood = (0.1090, 1.0242)
    assert (of[FREQUENCY]["low"], of[FREQUENCY]["high"]) == pytest.approx(garwood, abs=3e-3)


def test_other_places_do_not_count():
    commits = [commit(1, "02 08:00"), commit(2, "02 09:00", "cart")]
    deployments = [
        deploy(2, "02 10:00", application="cart"),
        deploy(1, "02 11:00", bad=True, environment="dev"),
        deploy(1, "02 12:00"),
    ]
    rollbacks = [rollback(1, 3, "02 11:01", 7, environment="dev")]
    made = history(commits, deployments, rollbacks)
    assert measured(made)[FAIL_RATE]["value"] == 0
    assert measured(made)[REWORK]["value"] == 0
    assert measured(made, "shop")[LEAD]["value"] == pytest.approx(4 + 1 / 60)
    assert measured(made, "cart")[LEAD]["value"] == pytest.approx(1 + 1 / 60)
    assert [measured(made, name)[FREQUENCY]["n"] for name in (ALL, "cart", "shop")] == [2, 1, 1]


def test_a_failure_that_nothing_has_ended_is_open():
    made = history([commit(1, "02 08:00")], [deploy(1, "02 10:00", bad=True)])
    row = measured(made)[RECOVERY]
    assert math.isnan(row["value"])
    assert (row["n"], row["open"]) == (0, 1)


def test_two_failures_that_one_deployment_ended_are_one_rework():
    """Three deployments, of them one made to fix: 1/3. Each failure has its own recovery time."""
    made = history(
        [commit(1, "02 08:00")],
        [deploy(1, "02 10:00", bad=True), deploy(1, "02 11:00", bad=True), deploy(1, "02 12:00")],
    )
    assert measured(made)[REWORK]["value"] == pytest.approx(100 / 3)
    assert measured(made)[RECOVERY]["value"] == pytest.approx(90)
    assert measured(made)[RECOVERY]["n"] == 2


def test_without_any_data_every_metric_is_undefined():
    of = measured(history([], []))
    assert all(math.isnan(of[metric]["value"]) for metric in (LEAD, RECOVERY, FAIL_RATE, REWORK))
    assert (of[FREQUENCY]["value"], of[FREQUENCY]["low"]) == (0, 0)
    assert of[FREQUENCY]["high"] == pytest.approx(0.3689, abs=3e-3)


# ---- What was not seen --------------------------------------------------------------------------


@pytest.mark.parametrize("health", ["Unknown", "Healthy"])
def test_a_history_that_cannot_show_failures_has_no_rate_of_them(health):
    of = measured(real_history([deploy(1, "02 10:00", health=health)]))
    for metric in (FAIL_RATE, REWORK):
        assert math.isnan(of[metric]["value"]) == (health == "Unknown")
        assert of[metric]["n"] == (health == "Healthy")
    assert of[FREQUENCY]["value"] == pytest.approx(0.1)


def test_a_rate_is_a_lower_bound_where_some_were_not_looked_at():
    """Ten deployments: one failed, three were not looked at.

    So at least 10 % failed. Wilson's interval of 1 in 10 begins at 1.79 %, that of 4 in 10 ends at
    68.73 % (R. G. Newcombe's method 3).
    """
    healths = ["Unknown"] * 3 + ["Healthy"] * 6
    deployments = [
        deploy(1, f"02 1{number}:00", health=health) for number, health in enumerate(healths)
    ]
    row = measured(real_history([*deployments, deploy(1, "02 20:00", bad=True)]))[FAIL_RATE]
    found = [row[key] for key in ("value", "low", "high", "n")]
    assert found == pytest.approx([10, 1.79, 68.73, 10], abs=0.01)
    assert row["at_least"]


@pytest.mark.parametrize(
    ("part", "whole", "hidden", "value", "n"),
    [
        (0, 10, 10, math.nan, 0),  # nobody looked at any
        (0, 10, 9, 0, 10),
        (2, 10, 10, 20, 10),  # nobody looked, but reverts showed two
        (0, 0, 0, math.nan, 0),
    ],
)
def test_there_is_a_rate_where_somebody_looked_or_something_showed(part, whole, hidden, value, n):
    numbers = (np.array([number]) for number in (part, whole, hidden))
    rates = module.rates_with_interval(*numbers)
    assert rates["value"][0] == pytest.approx(value, nan_ok=True)
    assert rates["n"][0] == n
    assert math.isnan(rates["high"][0]) == math.isnan(value)


def test_a_frequency_is_a_lower_bound_where_some_history_is_lost():
    """The history of cart begins on the fifth day; what it did before is not known."""
    deployments = [deploy(1, "02 10:00"), deploy(2, "06 10:00", application="cart")]
    coverage = [span("01", "10"), span("05", "10", "cart", truncated=True)]
    made = real_history(deployments, coverage=coverage)
    found = {name: measured(made, name)[FREQUENCY] for name in (ALL, "shop", "cart")}
    assert {name: row["at_least"] for name, row in found.items()} == {
        ALL: True,
        "shop": False,
        "cart": True,
    }
    assert {name: row["value"] for name, row in found.items()} == pytest.approx(
        {ALL: 0.2, "shop": 0.1, "cart": 0.1}
    )


def test_an_application_that_did_nothing_is_measured_too():
    made = real_history([deploy(1, "02 10:00")], coverage=[span("01", "10"), span("01", "10", "x")])
    assert measured(made, "x")[FREQUENCY]["value"] == 0


def test_a_history_of_less_than_a_day_has_no_frequency():
    made = real_history([deploy(1, "02 10:00")], coverage=[span("02 09:00", "02 11:00")])
    assert math.isnan(measured(made)[FREQUENCY]["value"])
    assert math.isnan(measure(made).values["production_deployment_frequency"])


FAILED_AT = moment("02 10:01")


def test_the_input_tables_are_left_as_they_were():
    gitops = simulated(3)
    before = [frame.copy() for frame in gitops.history[:3]]
    production_metrics(gitops.history)
    for frame, copy in zip(gitops.history[:3], before):
        pd.testing.assert_frame_equal(frame, copy)


# ---- By plain loops -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", range(2))
def test_plain_loops_over_a_simulated_history_give_the_same_metrics(name, seed):
    made = simulated(seed, 30, SCENARIOS[name]).history
    rows = production_metrics(made)
    for application in (None, *made.git_commits["application"].unique()):
        expected = plain_production(made, application)
        of = rows_for(rows, application or ALL)
        for metric in (FREQUENCY, FAIL_RATE, REWORK):
            assert of[metric]["value"] == pytest.approx(expected[metric], nan_ok=True)
        assert of[LEAD]["open"] == expected["changes_open"]
        assert of[RECOVERY]["open"] == expected["failures_open"]
        for metric in DURATIONS:
            times = expected[metric]
            assert of[metric]["n"] == len(times)
            if times:
                assert of[metric]["value"] == pytest.approx(statistics.median(times))
                assert of[metric]["mean"] == pytest.approx(statistics.fmean(times))
                assert of[metric]["p90"] == pytest.approx(np.quantile(times, 0.9))


# ---- In SQL, over the exported files ------------------------------------------------------------

SQL = """
CREATE VIEW production AS
    SELECT rowid AS place, *, strftime('%s', timestamp) + duration_sec AS done
    FROM deployments WHERE environment = 'production';
CREATE VIEW shipped AS
    SELECT p.*, c.rowid AS change
    FROM production p JOIN commits c ON c.sha = p.commit_sha WHERE p.status = 'Synced';
CREATE VIEW lead AS
    SELECT (MIN(s.done) - strftime('%s', c.timestamp)) / 3600.0 AS value
    FROM commits c JOIN shipped s ON s.application = c.application AND s.change >= c.rowid
    GROUP BY c.rowid;
CREATE VIEW restored AS
    SELECT p.place, p.done AS failed, (
        SELECT MIN(strftime('%s', r.timestamp) + CAST(ROUND(60 * r.duration_min) AS INTEGER))
        FROM rollbacks r
        WHERE r.environment = 'production' AND r.success = 'True'
            AND r.application = p.application AND r.from_commit = p.commit_sha
            AND strftime('%s', r.timestamp) + 0 = p.done
    ) AS rolled_back, (
        SELECT good.done FROM production good
        WHERE good.application = p.application AND good.health = 'Healthy' AND good.place > p.place
        ORDER BY good.place LIMIT 1
    ) AS fixed
    FROM production p WHERE p.health = 'Degraded';
CREATE VIEW recovery AS
    SELECT MAX(COALESCE(rolled_back, fixed) - failed, 0) / 60.0 AS value
    FROM restored WHERE COALESCE(rolled_back, fixed) IS NOT NULL;
"""
MEDIAN = """
SELECT AVG(value) FROM (SELECT value FROM {0} ORDER BY value
    LIMIT 2 - (SELECT COUNT(*) FROM {0}) % 2 OFFSET (SELECT (COUNT(*) - 1) / 2 FROM {0}))
"""
KINDS = {"duration_sec": "INTEGER", "files_changed": "INTEGER", "duration_min": "REAL"}


def database_of(folder):
    database = sqlite3.connect(":memory:")
    for name in ("commits", "deployments", "rollbacks"):
        frame = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        columns = ", ".join(f"{column} {KINDS.get(column, 'TEXT')}" for column in frame.columns)
        database.execute(f"CREATE TABLE {name} ({columns})")
        marks = ", ".join("?" * len(frame.columns))
        database.executemany(
            f"INSERT INTO {name} VALUES ({marks})", frame.to_numpy(object).tolist()
        )
    database.executescript(SQL)
    return database


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", [11, 12])
def test_sql_over_the_exported_files_gives_the_same_metrics(name, seed, tmp_path):
    gitops = simulated(seed, 30, SCENARIOS[name])
    gitops.output_dir = tmp_path
    gitops.export()
    with contextlib.closing(database_of(tmp_path)) as database:
        one = lambda query: database.execute(query).fetchone()[0]  # noqa: E731
        of = measured(gitops.history)
        count = one("SELECT COUNT(*) FROM production")
        assert count > 10
        assert of[FREQUENCY]["value"] == pytest.approx(count / 30)
        assert of[LEAD]["value"] == pytest.approx(one(MEDIAN.format("lead")))
        assert of[LEAD]["mean"] == pytest.approx(one("SELECT AVG(value) FROM lead"))
        assert of[LEAD]["n"] == one("SELECT COUNT(*) FROM lead")
        failed = one("SELECT COUNT(*) FROM production WHERE health = 'Degraded'")
        assert of[FAIL_RATE]["value"] == pytest.approx(100 * failed / count)
        recovered = one("SELECT COUNT(*) FROM recovery")
        assert (of[RECOVERY]["n"], of[RECOVERY]["open"]) == (recovered, failed - recovered)
        if recovered:
            assert of[RECOVERY]["value"] == pytest.approx(one(MEDIAN.format("recovery")))


# ---- Intervals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_rates_have_the_wilson_intervals_that_newcombe_published(part, whole, low, high):
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    deployments = [
        deploy(1, f"02 10:{n // 60:02d}:{n % 60:02d}", 0, n < part) for n in range(whole)
    ]
    row = measured(history([commit(1, "02 08:00")], deployments))[FAIL_RATE]
    assert row["value"] == pytest.approx(100 * part / whole)
    assert (row["low"], row["high"]) == pytest.approx((100 * low, 100 * high), abs=0.005)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_wilson_interval_covers_the_true_rate_95_times_in_100_on_average(share):
    """Exact, by the binomial distribution; the mean over n = 20..100, as it swings around 95 %."""
    covered = []
    for n in range(20, 101):
        rates = module.rates_with_interval(np.arange(n + 1), np.full(n + 1, n), np.zeros(n + 1))
        inside = (rates["low"] <= 100 * share) & (100 * share <= rates["high"])
        covered.append(
            sum(
                math.comb(n, k) * share**k * (1 - share) ** (n - k)
                for k in np.flatnonzero(inside).tolist()
            )
        )
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)
    assert min(covered) > 0.88


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [
        (0, 0, 3.689),
        (1, 0.0253, 5.572),
        (2, 0.242, 7.225),
        (3, 0.619, 8.767),
        (4, 1.090, 10.242),
        (5, 1.623, 11.668),
        (10, 4.795, 18.390),
    ],
)
def test_few_deployments_have_about_the_poisson_interval_that_garwood_published(n, low, high):
    """In 10 days; F. Garwood, Biometrika 28 (1936). A closed form is near, not equal."""
    deployments = [deploy(1, f"{day:02d} 10:00") for day in range(1, n + 1)]
    row = measured(history([commit(1, "01 08:00")], deployments))[FREQUENCY]
    assert row["value"] == n / 10
    assert (10 * row["low"], 10 * row["high"]) == pytest.approx((low, high), abs=0.03)


def test_changes_that_ship_together_say_less_about_the_lead_time():
    """The same forty lead times: each with a deployment of its own, or in eight of five each."""
    start, hours = pd.Timestamp("2026-01-02", tz="UTC"), [2 * (n % 8 + 1) for n in range(40)]

    def lead_time(days):
        commits, deployments = [], []
        for number, (day, lead) in enumerate(zip(days, hours)):
            end = start + pd.Timedelta(days=day)
            row = commit(number, "02")
            commits.append((row[0], end - pd.Timedelta(hours=lead), *row[2:]))
            deployments.append((end, *deploy(number, "02", 0)[1:]))
        newest = {row[0]: row for row in deployments}  # the commits before it ship with it
        commits.sort(key=lambda row: row[1:2] + row[:1])
        return measured(history(commits, [newest[end] for end in sorted(newest)], days=60))[LEAD]

    apart, together = lead_time(range(40)), lead_time([5 * (n % 8) for n in range(40)])
    assert apart["value"] == together["value"] == 9
    assert apart["n"] == together["n"] == 40
    assert together["high"] - together["low"] > 1.5 * (apart["high"] - apart["low"]) > 0


# ---- Quick Check --------------------------------------------------------------------------------

HOUR, DAY, WEEK, MONTH = 1, 24, 7 * 24, 30.4375 * 24
DURATION_SCORES = [
    (0, 10),
    (HOUR, 8),
    (DAY, 6),
    (WEEK, 4),
    (MONTH, 2),
    (6 * MONTH, 0),
    (100 * MONTH, 0),
]


@pytest.mark.parametrize(("hours", "score"), DURATION_SCORES)
def test_the_duration_bands_begin_at_their_edges(hours, score):
    for metric, unit in ((LEAD, 1), (RECOVERY, 60)):
        assert module.quick_check({metric: hours * unit})[metric] == score
        if 0 < hours <= 6 * MONTH:
            just_before = hours * unit * (1 - 1e-12)
            assert module.quick_check({metric: just_before})[metric] == score + 2


@pytest.mark.parametrize(
    ("per_day", "score"),
    [
        (50, 10),
        (2, 10),
        (1.99, 8),
        (1, 8),
        (0.99, 6),
        (1 / 7, 6),
        (0.142, 4),
        (1 / 30.4375, 4),
        (1 / 31, 2),
        (1 / (6 * 30.4375), 2),
        (1 / 183, 0),
        (0, 0),
    ],
)
def test_the_frequency_bands_begin_at_their_edges(per_day, score):
    assert module.quick_check({FREQUENCY: per_day})[FREQUENCY] == score


@pytest.mark.parametrize(("percent", "score"), [(0, 10), (5, 9.5), (25, 7.5), (100, 0)])
def test_a_lower_percentage_has_a_higher_score(percent, score):
    assert module.quick_check({FAIL_RATE: percent})[FAIL_RATE] == score
    assert module.quick_check({REWORK: percent})[REWORK] == score


def test_the_overall_score_is_the_mean_of_the_five():
    """8 (a day less a bit), 8 (daily), 10 (half an hour), 9 and 8: 43 / 5."""
    values = {LEAD: 23.9, FREQUENCY: 1, RECOVERY: 30, FAIL_RATE: 10, REWORK: 20}
    assert module.quick_check(values)["overall"] == pytest.approx(8.6)


def test_the_overall_score_is_the_same_to_the_last_bit_on_every_version():
    """Ten times a tenth is one only if the sum is exact; `sum` is since Python 3.12."""
    values = {
        LEAD: math.nan,
        FREQUENCY: math.nan,
        RECOVERY: math.nan,
        FAIL_RATE: 99.0,
        REWORK: 97.3,
    }
    values.update({f"{number}_pct": 99.0 for number in range(8)})
    scores = [score for score in module.quick_check(values).values() if not math.isnan(score)]
    assert scores[0] == math.fsum(scores[1:]) / 10
    assert sum(Fraction(score) for score in scores[1:]) / 10 == pytest.approx(
        Fraction(scores[0]), abs=1e-17
    )


def test_the_overall_score_is_the_mean_of_those_that_exist():
    values = {LEAD: math.nan, FREQUENCY: 1, RECOVERY: math.nan, FAIL_RATE: 0, REWORK: math.nan}
    scores = module.quick_check(values)
    assert scores["overall"] == 9
    assert math.isnan(scores[LEAD])
    assert math.isnan(module.quick_check({LEAD: math.nan})["overall"])


def test_a_lower_bound_has_no_score():
    """A rate of at least 0 % may be any."""
    made = real_history([deploy(1, "02 10:00"), deploy(1, "02 11:00", health="Unknown")])
    scores = measure(made).quick_check
    assert math.isnan(scores[FAIL_RATE]) and math.isnan(scores[REWORK])
    assert scores["overall"] == scores[FREQUENCY] == 6


def test_the_industry_means_are_those_of_2025():
    assert module.QUICK_CHECK_MEANS_2025 == {
        LEAD: 5.5,
        FREQUENCY: 4.8,
        RECOVERY: 7.4,
        FAIL_RATE: 8.1,
        REWORK: 7.8,
    }


# ---- In the report and in JSON ------------------------------------------------------------------


def report(made):
    return module.format_report(module.Report(measure(made), details=True))


def test_without_a_deployment_every_metric_is_not_available():
    text = report(history([commit(1, "02 09:00")], []))
    for metric in (LEAD, RECOVERY, FAIL_RATE, REWORK):
        label = module.PRODUCTION_METRICS[metric].label
        assert re.search(rf"^{label}: +n/a \(nothing reached production\)$", text, re.M)
    assert "nan" not in text.lower()


def test_the_report_has_the_metric_names_of_dora():
    labels = [
        "Change lead time",
        "Deployment frequency",
        "Failed deployment recovery time",
        "Change fail rate",
        "Deployment rework rate",
    ]
    text = report(simulated(5).history)
    assert [metric.label for metric in module.PRODUCTION_METRICS.values()] == labels
    assert all(label in text for label in [*labels, "DORA QUICK CHECK", "2025"])


def test_the_report_says_over_how_many_metrics_the_score_is():
    made = history([commit(1, "02 08:00")], [deploy(1, "02 10:00")])
    assert "the mean of those with data: 4" in report(made)
    assert "the mean of those with data" not in report(simulated(5).history)


def fields(metric):
    own = {"mean", "p90", "open"} if metric in DURATIONS else {"at_least"}
    return {"value", "low", "high", "n"} | own


def no_constant(name):
    raise AssertionError(f"{name} is no JSON")


def test_json_has_the_production_metrics_of_each_application(capsys, tmp_path):
    module.main(["--seed", "5", "--json", "--no-dashboard", "--output", str(tmp_path)])
    document = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    assert list(document["production"]) == [LEAD, FREQUENCY, RECOVERY, FAIL_RATE, REWORK]
    assert set(document["applications"]) == {"frontend", "backend", "database"}
    for of in (document["production"], *document["applications"].values()):
        assert {metric: set(row) for metric, row in of.items()} == {
            metric: fields(metric) for metric in of
        }
        assert all(isinstance(row["n"], int) for row in of.values())
    assert list(document["quick_check"])[0] == "overall"
    assert set(document["quick_check"]) == {"overall", LEAD, FREQUENCY, RECOVERY, FAIL_RATE, REWORK}
    assert "coverage" not in document


def test_json_values_are_those_of_the_method():
    gitops = simulated(5)
    of = measured(gitops.history)
    for metric, row in gitops.document()["production"].items():
        assert all(value is None or value == of[metric][name] for name, value in row.items())


def test_json_is_null_where_there_is_no_data():
    empty = module.summary_document(measure(history([], [])), None, None)
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    assert empty["production"][FAIL_RATE] == {**nothing, "at_least": False}
    assert empty["production"][LEAD] == {**nothing, "mean": None, "p90": None, "open": 0}
    json.dumps(empty, allow_nan=False)


def test_an_application_may_be_called_all():
    commits = [commit(1, "02 08:00", ALL), commit(2, "02 09:00")]
    deployments = [deploy(1, "02 10:00", application=ALL), deploy(2, "02 12:00", bad=True)]
    metrics = measure(history(commits, deployments))
    values = {name: of["value"] for name, of in metrics.by_application.items()}
    assert list(values) == [ALL, "shop"]
    assert values[ALL][LEAD] == pytest.approx(2 + 1 / 60)
    assert [of[FAIL_RATE] for of in (metrics.overall["value"], *values.values())] == [50, 0, 100]
    document = module.summary_document(metrics, None, None)
    assert document["applications"][ALL][FAIL_RATE]["value"] == 0
    assert document["production"][FAIL_RATE]["value"] == 50
    assert ALL in module.format_report(module.Report(metrics, details=True))


def test_a_whole_run_has_an_application_called_all(capsys, tmp_path):
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps({"team": {"applications": {ALL: 1, "shop": 1}}}))
    status, out, err = called(
        capsys, "--config", path, "--no-dashboard", "--export", "--output", tmp_path, "--details"
    )
    assert (status, err) == (0, "")
    assert ALL in out


def test_the_method_gives_a_row_for_each_metric_of_an_application():
    frame = simulated(5).production_metrics()
    assert list(frame.columns) == [
        "application",
        "metric",
        "value",
        "low",
        "high",
        "n",
        "mean",
        "p90",
        "open",
        "at_least",
    ]
    assert not frame["at_least"].any()
    assert len(frame) == 5 * 4
    assert list(frame["application"][:5]) == [ALL] * 5
    defined = frame.dropna(subset=["value", "low", "high"])
    assert (defined["low"] <= defined["value"]).all()
    assert (defined["value"] <= defined["high"]).all()
