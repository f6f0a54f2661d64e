"""Production as dora.dev defines it: by hand, by plain loops, in the report and in JSON."""

import json
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from plain_model import check_history, plain_production, random_history, table
from plain_model import simulated as simulated_with_flow

import gitops_automation as module
from gitops_automation import (
    FAIL_RATE,
    FREQUENCY,
    LEAD,
    RECOVERY,
    REWORK,
    Scenario,
    Window,
    measure,
)

ALL = module.ALL_APPLICATIONS
DURATIONS = (LEAD, RECOVERY)
ROW = ["value", "low", "high", "n", "mean", "p90", "open", "at_least", "why"]


def moment(text):
    """Return a time of January 2026, from a day of it: `02 08:00`."""
    return pd.Timestamp(f"2026-01-{text}", tz="UTC")


def commit(number, text, application="shop"):
    return (f"{number:040x}", moment(text), "alice", "feat", application, "main", "feat: it", 1)


def deploy(
    number, text, bad=False, status="Synced", application="shop", environment="production", **more
):
    """Return a row of `deployments`: a sync of a minute. `over` says when a bad one was good."""
    health = "Degraded" if bad else more.get("health", "Healthy")
    over = moment(more["over"]) if "over" in more else None
    outcome = (f"{number:040x}", status, health, 60, "probe failed" if bad else None, over)
    return (moment(text), application, environment, *outcome)


def rollback(bad, good, text, minutes, success=True, environment="production"):
    shas = f"{bad:040x}", f"{good:040x}"
    return (moment(text), "shop", environment, *shas, "probe failed", minutes, success)


def history(commits, deployments, rollbacks=(), days=10, spans=None, **more):
    """Return a history; `spans` are (application, from, to, lost) of production."""
    if spans is not None:
        rows = [
            (name, "production", f"{name}-prod", "name", moment(begin), moment(end), lost)
            for name, begin, end, lost in spans
        ]
        more["coverage"] = table("coverage", *rows)
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
    """Return {metric: its row of `Metrics.production`}."""
    return rows_for(measure(made).production, application)


def rows_for(rows, application):
    rows = rows[rows["application"] == application].drop(columns="application")
    return {row.pop("metric"): row for row in rows.to_dict("records")}


def simulated(seed, scenario=Scenario()):
    return simulated_with_flow(scenario, seed)[0]


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
            deploy(3, "03 11:59", bad=True, status="Failed", over="03 12:30"),
            deploy(4, "04 11:59", bad=True, over="05 12:00"),
            deploy(4, "05 11:59"),
        ],
        [rollback(3, 2, "03 12:00", 30), rollback(4, 2, "04 12:00", 5, success=False)],
    )
    of = measured(made)
    values = {LEAD: 3.5, FREQUENCY: 0.4, RECOVERY: 735, FAIL_RATE: 50, REWORK: 50}
    assert {metric: row["value"] for metric, row in of.items()} == pytest.approx(values)
    numbers = {LEAD: 4, FREQUENCY: 4, RECOVERY: 2, FAIL_RATE: 4, REWORK: 6}
    assert {metric: row["n"] for metric, row in of.items()} == numbers
    assert [row["why"] for row in of.values()] == [
        "median of 4 changes, which 2 of 4 deployments brought",
        "4 deployments in 10 days",
        "median of 2 failures",
        "2 failed of 4",
        "3 reworked of 6",
    ]
    assert (of[LEAD]["mean"], of[LEAD]["p90"], of[LEAD]["open"]) == pytest.approx((9.25, 20.1, 1))
    assert (of[RECOVERY]["mean"], of[RECOVERY]["p90"], of[RECOVERY]["open"]) == pytest.approx(
        (735, 30 + 0.9 * 1410, 0)
    )
    assert math.isnan(of[LEAD]["low"])
    garwood = (0.1090, 1.0242)
    assert (of[FREQUENCY]["low"], of[FREQUENCY]["high"]) == pytest.approx(garwood, abs=3e-3)


# ---- What was not seen --------------------------------------------------------------------------


def test_without_any_data_every_metric_says_why_it_is_undefined():
    of = measured(history([], []))
    for metric in (LEAD, RECOVERY, FAIL_RATE, REWORK):
        assert math.isnan(of[metric]["value"])
        assert of[metric]["why"] == "nothing reached production"
    assert (of[FREQUENCY]["value"], of[FREQUENCY]["low"]) == (0, 0)
    assert of[FREQUENCY]["high"] == pytest.approx(0.3689, abs=3e-3)


WHY = {
    "no failure has ended": ([deploy(1, "02 10:00", bad=True)], RECOVERY),
    "no failure was seen": ([deploy(1, "02 10:00")], RECOVERY),
    "failures not observable": ([deploy(1, "02 10:00", health="Unknown")], FAIL_RATE),
    "no lead time is known": ([deploy(1, "02 10:00")], LEAD),
}


@pytest.mark.parametrize("why", WHY)
def test_an_undefined_metric_says_why(why):
    deployments, metric = WHY[why]
    row = measured(history([], deployments, source="files"))[metric]
    assert math.isnan(row["value"])
    assert (row["why"], row["open"]) == (why, int("ended" in why))


def test_a_rate_is_a_lower_bound_where_some_were_not_looked_at():
    """Ten deployments: one failed, three were not looked at.

    So at least 10 % failed. Wilson's interval of 1 in 10 begins at 1.79 %, that of 4 in 10 ends at
    68.73 % (R. G. Newcombe's method 3).
    """
    healths = ["Unknown"] * 3 + ["Healthy"] * 6
    deployments = [
        deploy(1, f"02 1{number}:00", health=health) for number, health in enumerate(healths)
    ]
    made = history([], [*deployments, deploy(1, "02 20:00", bad=True)], source="files")
    row = measured(made)[FAIL_RATE]
    found = [row[key] for key in ("value", "low", "high", "n")]
    assert found == pytest.approx([10, 1.79, 68.73, 10], abs=0.01)
    assert row["at_least"]


@pytest.mark.parametrize(("source", "bound"), [("argocd", True), ("files", False)])
def test_a_rate_is_a_lower_bound_where_a_failure_can_hide_between_two_looks(source, bound):
    made = history([], [deploy(1, "02 10:00")], source=source)
    assert measured(made)[FAIL_RATE]["at_least"] == measured(made)[REWORK]["at_least"] == bound
    told = made._replace(incidents=table("incidents"))
    assert not measured(told)[FAIL_RATE]["at_least"]


def test_a_frequency_is_a_lower_bound_where_entries_are_lost():
    """The history of cart begins on the fifth day; what it did before is lost.

    That of mail begins on the fourth, as it was made then; it was never in production before.
    """
    deployments = [deploy(1, "02 10:00"), deploy(2, "06 10:00", application="cart")]
    spans = [("shop", "01", "10", 9), ("cart", "05", "10", 3), ("mail", "04", "10", 0)]
    made = history([], deployments, spans=spans, source="argocd")
    found = {name: measured(made, name)[FREQUENCY] for name in (ALL, "shop", "cart", "mail")}
    bounds = {name: row["at_least"] for name, row in found.items()}
    assert bounds == {ALL: True, "shop": False, "cart": True, "mail": False}
    values = {name: row["value"] for name, row in found.items()}
    assert values == pytest.approx({ALL: 0.2, "shop": 0.1, "cart": 0.1, "mail": 0})


def test_a_history_of_less_than_a_day_has_no_frequency():
    spans = [("shop", "02 09:00", "02 11:00", 0)]
    made = history([], [deploy(1, "02 10:00")], spans=spans, source="argocd")
    assert measured(made)[FREQUENCY]["why"] == "less than a day is covered"
    assert math.isnan(measure(made).values["deployment_frequency"])


# ---- By plain loops -----------------------------------------------------------------------------

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
HISTORIES = [(name, seed) for name in [*SCENARIOS, "files", "argocd"] for seed in (1, 2)]


@pytest.mark.parametrize(("name", "seed"), HISTORIES)
def test_plain_loops_over_each_application_give_the_same_metrics(name, seed):
    made = simulated(seed, SCENARIOS[name]) if name in SCENARIOS else random_history(seed, name)
    rows = measure(made).production
    for application in (None, *module.application_names(made)):
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
                assert of[metric]["mean"] == pytest.approx(statistics.mean(times))
                assert of[metric]["p90"] == pytest.approx(np.quantile(times, 0.9))


def test_changes_that_ship_together_say_less_about_the_lead_time():
    """The same forty lead times: each with a deployment of its own, or in eight of five each."""
    start, hours = moment("02"), [2 * (n % 8 + 1) for n in range(40)]

    def lead_time(days):
        commits, deployments = [], []
        for number, (day, lead) in enumerate(zip(days, hours)):
            end = start + pd.Timedelta(days=day)
            row = commit(number, "02")
            commits.append((row[0], end - pd.Timedelta(hours=lead), *row[2:]))
            deployments.append((end, *deploy(number, "02")[1:]))
        newest = {row[0]: row for row in deployments}  # the commits before it ship with it
        commits.sort(key=lambda row: row[1:2] + row[:1])
        return measured(history(commits, [newest[end] for end in sorted(newest)], days=60))[LEAD]

    apart, together = lead_time(range(40)), lead_time([5 * (n % 8) for n in range(40)])
    assert apart["value"] == together["value"] == pytest.approx(9 + 1 / 60)
    assert apart["n"] == together["n"] == 40
    assert together["high"] - together["low"] > 1.5 * (apart["high"] - apart["low"]) > 0


# ---- Quick Check --------------------------------------------------------------------------------


# ---- In JSON ------------------------------------------------------------------------------------


def test_json_has_one_shape_for_each_metric_of_production_and_of_each_application():
    made = simulated(5)
    document = module.summary_document(measure(made), 5, None)
    json.dumps(document, allow_nan=False)
    assert list(document["production"]) == [LEAD, FREQUENCY, RECOVERY, FAIL_RATE, REWORK]
    assert set(document["applications"]) == {"frontend", "backend", "database"}
    for name, rows in {ALL: document["production"], **document["applications"]}.items():
        for metric, row in measured(made, name).items():
            assert list(rows[metric]) == ROW
            nothing = {key for key, value in row.items() if value != value}
            assert {key for key, value in rows[metric].items() if value is None} == nothing
            assert all(rows[metric][key] == row[key] for key in set(ROW) - nothing)
    assert "coverage" not in document


def test_json_says_what_is_judged_and_why_not():
    made = history([], [deploy(1, "02 10:00")], source="files")
    document = module.summary_document(measure(made), None, None)
    assert document["schema_version"] == 2
    maturity = document["maturity"]
    assert (maturity["scope"], maturity["level"], maturity["of"]) == ("production", None, 1)
    elite = {"deployment_frequency": None, "median_lead_time": None, "mttr_minutes": True}
    assert maturity["elite"] == {**elite, "change_failure_rate": None}
    assert maturity["not_assessable"] == document["metrics"]["not_judged"]
    assert set(maturity["not_assessable"]) == {
        key for key, met in maturity["elite"].items() if met is None
    }
