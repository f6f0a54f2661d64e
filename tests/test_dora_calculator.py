"""DORA calculator: history -> metrics, and what is judged."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from plain_model import (
    MONTH,
    assorted_scenarios,
    check_history,
    empty_history,
    plain_metrics,
    random_history,
    same,
    table,
)
from plain_model import simulated as simulated_with_flow
from plain_months import months

import gitops_automation as gitops

SEED_KEYS = gitops.SCOPES["all environments"]
ELITE = dict(zip(SEED_KEYS, (2.0, 1.0, 10.0, 5.0)))
MISSED = dict(zip(SEED_KEYS, (0.5, 30.0, 90.0, 20.0)))


def dora_metrics(history):
    return gitops.measure(history).values


def simulated(scenario, seed):
    return simulated_with_flow(scenario, seed)[0]


def at(hour, minute=0):
    return pd.Timestamp("2026-01-05", tz="UTC") + pd.Timedelta(hours=hour, minutes=minute)


def by_hand():
    """Two days, two applications, dev and production.

    Commits: a (shop) at 00:00, b (cart) at 01:00, c (shop) at 02:00.
    dev: a at 01:00 good, b at 02:00 good, c at 03:00 fails, c again at 04:00 good.
    production: a at 10:00 good, b at 11:00 fails, c at 20:00 good, b at 23:00 Synced and Degraded.

    Deployments: 8 in 2 days = 4 a day; in production 4, 2 a day. Failed: 3 of 8 = 37.5 %.
    Healthy: dev 3 of 4 = 75 %, production 2 of 4 = 50 %, in all 5 of 8 = 62.5 %.
    Lead times of what was Synced in production: a 10 h, c 18 h, b 22 h: mean 50/3 h, median 18 h.
    To dev: a 1 h, c 1 h (03:00, the first), b 1 h: mean 1 h; from there: 9, 17, 21 h: mean 47/3 h.
    Rollbacks: c in dev to a, 6 min, good; b at 23:00 has no earlier good release of cart, nor had
    the one at 11:00. MTTR: 6 min. Failures without rollback: 2.
    """
    commits = table(
        "git_commits",
        ("a" * 40, at(0), "eve", "feat", "shop", "main", "m", 1),
        ("b" * 40, at(1), "eve", "fix", "cart", "main", "m", 1),
        ("c" * 40, at(2), "eve", "feat", "shop", "main", "m", 1),
    )
    good, failed = ("Synced", "Healthy", 60, None), ("Failed", "Degraded", 60, "OOMKilled")
    applied = ("Synced", "Degraded", 60, "CrashLoopBackOff")
    deployments = table(
        "deployments",
        (at(1), "shop", "dev", "a" * 40, *good),
        (at(2), "cart", "dev", "b" * 40, *good),
        (at(3), "shop", "dev", "c" * 40, *failed),
        (at(4), "shop", "dev", "c" * 40, *good),
        (at(10), "shop", "production", "a" * 40, *good),
        (at(11), "cart", "production", "b" * 40, *failed),
        (at(20), "shop", "production", "c" * 40, *good),
        (at(23), "cart", "production", "b" * 40, *applied),
    )
    rollbacks = table(
        "rollbacks", (at(3, 1), "shop", "dev", "c" * 40, "a" * 40, "OOMKilled", 6.0, True)
    )
    window = gitops.Window.before(pd.Timestamp("2026-01-07", tz="UTC"), 2)
    return gitops.History(commits, deployments, rollbacks, window, ("dev", "production"))


def test_the_metrics_of_a_small_history_are_those_worked_out_by_hand():
    history = by_hand()
    check_history(history)
    assert same(
        dora_metrics(history),
        {
            "scope": "all environments",
            "not_judged": {},
            "deployment_frequency": 4.0,
            "mean_lead_time": 50 / 3,
            "median_lead_time": 18.0,
            "lead_time_hours_by_environment": {"dev": 1.0, "production": 47 / 3},
            "success_rates": {"dev": 75.0, "production": 50.0},
            "change_failure_rate": 37.5,
            "mttr_minutes": 6.0,
            "total_deployments": 8,
            "dated_deployments": 3,
            "failed_deployments": 3,
            "unseen_deployments": 0,
            "total_rollbacks": 1,
            "successful_rollbacks": 1,
            "deployments_by_environment": {"dev": 4, "production": 4},
            "rollbacks_by_environment": {"dev": 1, "production": 0},
            "deployments_by_status": {"Synced": 6, "Failed": 2},
            "deployments_by_application": {"shop": 5, "cart": 3},
            "total_commits": 3,
            "contributors": 1,
            "applications": 2,
            "commit_types": {"feat": 2, "fix": 1},
            "failure_reasons": {"OOMKilled": 2, "CrashLoopBackOff": 1},
            "failure_reasons_by_environment": {
                "dev": {"OOMKilled": 1},
                "production": {"CrashLoopBackOff": 1, "OOMKilled": 1},
            },
        },
    )


@pytest.mark.parametrize("source", ["simulated", "files", "argocd", "git"])
@pytest.mark.parametrize("seed", range(10))
def test_metrics_of_any_history_agree_with_a_plain_loop(seed, source):
    history = random_history(seed, source)
    check_history(history)
    assert same(dora_metrics(history), plain_metrics(history))


@pytest.mark.parametrize("scenario", list(assorted_scenarios()))
def test_metrics_of_simulations_agree_with_a_plain_loop(scenario):
    history = simulated(scenario, 4)
    assert same(dora_metrics(history), plain_metrics(history))


def test_the_counts_of_each_day_are_those_of_the_tables():
    history = simulated(gitops.Scenario(), 7)
    measured = gitops.measure(history)
    by_day = [
        [
            (rows["timestamp"].dt.floor("D") == day).sum()
            for day in pd.date_range(MONTH.start, MONTH.last, tz="UTC")
        ]
        for _, rows in history.deployments.groupby("environment", sort=False, observed=False)
    ]
    assert measured.deployments_by_day.tolist() == by_day
    assert measured.days_known.all()


def test_many_applications_of_many_months_are_kept_apart():
    """90,000 applications in 100 months are more places than fit in front of a time."""
    few = gitops.Scenario().with_environment("production", success_rate=0.3)
    names = {f"a{number}": 1 for number in range(90_000)}
    team = dict(commits_per_day=1, applications=names)
    minutes = months(few.with_team(**team), 100)["mttr_minutes"]
    assert np.isnan(minutes).mean() > 0.9, "hardly an application has an earlier release"


def test_every_metric_has_a_definition():
    assert set(dora_metrics(empty_history())) == set(gitops.METRICS)
    assert all(metric.definition for metric in gitops.METRICS.values())


# ---- What is judged ------------------------------------------------------------------------------


def test_an_empty_history_is_never_elite():
    metrics = dora_metrics(empty_history())
    defined = {key: metrics[key] for key in gitops.TARGETS if not math.isnan(metrics[key])}
    assert defined == {"deployment_frequency": 0}
    assert all(map(math.isnan, metrics["success_rates"].values()))
    assert 1 not in gitops.judge_all(metrics).values()
    assert gitops.calculate_maturity(metrics) == "⚪ NOT ASSESSABLE"


def test_without_a_failed_deployment_the_recovery_target_counts_as_met():
    unknown = {**ELITE, "mttr_minutes": math.nan}
    assert gitops.judge("mttr_minutes", {**unknown, "change_failure_rate": 0.0}) == 1
    assert math.isnan(gitops.judge("mttr_minutes", unknown))


@pytest.mark.parametrize("key", SEED_KEYS)
def test_a_value_at_its_limit_is_missed_and_an_undefined_one_is_neither(key):
    assert gitops.judge(key, {**ELITE, key: float(gitops.TARGETS[key].limit)}) == 0
    assert math.isnan(gitops.judge(key, {**ELITE, key: math.nan}))
    assert gitops.calculate_maturity({**ELITE, key: math.nan}) == "⚪ NOT ASSESSABLE"
    assert math.isnan(gitops.judge(key, {**ELITE, "not_judged": {key: "a reason"}}))
    with pytest.raises(gitops.GitOpsError, match=key):
        gitops.calculate_maturity({name: value for name, value in ELITE.items() if name != key})


@pytest.mark.parametrize(
    ("missed", "level"),
    [
        (0, "🏆 ELITE PERFORMER"),
        (1, "🥈 HIGH PERFORMER"),
        (2, "🥉 MEDIUM PERFORMER"),
        (3, "📈 NEEDS IMPROVEMENT"),
        (4, "📈 NEEDS IMPROVEMENT"),
    ],
)
def test_every_level_is_reached_by_its_number_of_criteria(missed, level):
    for keys in itertools.combinations(MISSED, missed):
        assert gitops.calculate_maturity({**ELITE, **{key: MISSED[key] for key in keys}}) == level


def test_many_months_are_judged_as_each_is():
    """Values on both sides of each limit, at it, or undefined; in every combination."""
    choices = [
        (ELITE[key], MISSED[key], float(gitops.TARGETS[key].limit), math.nan, 0.0)
        for key in SEED_KEYS
    ]
    each = [dict(zip(SEED_KEYS, values)) for values in itertools.product(*choices)]
    together = {key: np.array([month[key] for month in each]) for key in SEED_KEYS}
    for key in SEED_KEYS:
        np.testing.assert_array_equal(
            gitops.judge(key, together), [gitops.judge(key, month) for month in each]
        )


def test_a_measured_team_is_judged_by_its_median_lead_time():
    metrics = {**ELITE, "mean_lead_time": 63.0, "median_lead_time": 0.2, "scope": "production"}
    assert gitops.calculate_maturity(metrics) == "🏆 ELITE PERFORMER"
    assert (
        gitops.calculate_maturity({**metrics, "scope": "all environments"}) == "🥈 HIGH PERFORMER"
    )


# ---- What a sceptic would take away --------------------------------------------------------------


def real(
    count=20,
    days=20,
    hours=(1.0,),
    bad=(),
    unseen=0,
    minutes=(5.0,),
    still=0,
    dated=None,
    source="files",
    lost=0,
    incidents=None,
    every=2,
):
    """Return a history of one application in production.

    Each `every` hours something is deployed. `hours` are the lead times of the changes, again and
    again, of the first `dated` deployments. Those of `bad` failed, for `minutes`, the last `still`
    of them until the end. The first `unseen` were not looked at.
    """
    start, rows, changes = MONTH.start, [], []
    lasting = sorted(bad)[len(bad) - still :]
    for number in range(count):
        time = start + pd.Timedelta(hours=every * number)
        end, sha = time + pd.Timedelta(seconds=60), "%040x" % number
        health = "Degraded" if number in bad else "Unknown" if number < unseen else "Healthy"
        over = end + pd.Timedelta(minutes=minutes[number % len(minutes)])
        over = over if number in bad and number not in lasting else None
        reason = "probe failed" if number in bad else None
        rows.append((time, "x", "production", sha, "Synced", health, 60, reason, over))
        if dated is None or number < dated:
            begun = end - pd.Timedelta(hours=hours[number % len(hours)])
            changes.append(("x", "production", sha, "", begun, end))
    window = gitops.Window(start, start + pd.Timedelta(days=days))
    begins = start + pd.Timedelta(hours=1 if lost else 0)
    history = gitops.History(
        table("git_commits"),
        table("deployments", *rows),
        table("rollbacks"),
        window,
        ("production",),
        source,
        changes=table("changes", *changes),
        coverage=table("coverage", ("x", "production", "x", "name", begins, window.end, lost)),
        incidents=incidents,
    )
    check_history(history)
    return history


FREQUENCY, LEAD, RECOVERY, FAIL_RATE = gitops.SCOPES["production"]
MET, NOT, OPEN = 1, 0, math.nan
TWO_OF_19 = [1] * 17 + [30, 30]
SCEPTIC = {
    "nothing failed: recovery is met": (real(), RECOVERY, MET),
    "13 days are too few": (real(days=13), FREQUENCY, OPEN),
    "14 days are enough": (real(days=14), FREQUENCY, MET),
    "few deployments in many days are a low frequency": (real(3), FREQUENCY, NOT),
    "a lower bound of a frequency may be more": (real(10, lost=5), FREQUENCY, OPEN),
    "a lower bound above its target is met": (real(30, lost=5), FREQUENCY, MET),
    "five lead times on one side": (real(5), LEAD, MET),
    "five lead times beyond": (real(5, hours=(25,)), LEAD, NOT),
    "five lead times on both sides": (real(5, hours=(1, 1, 30)), LEAD, OPEN),
    "two lead times are a handful": (real(2), LEAD, OPEN),
    "19 lead times on both sides": (real(19, hours=(1, 1, 30)), LEAD, OPEN),
    "an interval below the target": (real(19, every=72, days=60, hours=TWO_OF_19), LEAD, MET),
    "an interval across it": (real(19, every=72, days=60, hours=range(12, 31)), LEAD, OPEN),
    "19 lead times of which most are long": (real(19, hours=(30, 30, 1)), LEAD, NOT),
    "20 lead times on both sides": (real(20, hours=(1, 1, 30)), LEAD, MET),
    "half of the deployments have a lead time": (real(20, dated=10), LEAD, MET),
    "fewer than half have one": (real(20, dated=9), LEAD, OPEN),
    "none has one": (real(20, dated=0), LEAD, OPEN),
    "two recoveries are a handful": (real(bad={3, 4}), RECOVERY, OPEN),
    "three recoveries": (real(bad={3, 4, 5}), RECOVERY, MET),
    "three long recoveries": (real(bad={3, 4, 5}, minutes=(90,)), RECOVERY, NOT),
    "three recoveries on both sides": (real(bad={3, 4, 5}, minutes=(5, 90)), RECOVERY, OPEN),
    "two short recoveries, and one that lasts": (real(bad={3, 4, 5}, still=1), RECOVERY, OPEN),
    "seven recoveries, and one that lasts": (real(bad=range(8), still=1), RECOVERY, MET),
    "three recoveries, and four that last": (real(bad=range(7), still=4), RECOVERY, OPEN),
    "every failure lasts": (real(bad={3}, still=1), RECOVERY, OPEN),
    "five deployments have no rate": (real(5), FAIL_RATE, OPEN),
    "six have one, and it may be any": (real(6), FAIL_RATE, OPEN),
    "one of six failed": (real(6, bad={3}), FAIL_RATE, NOT),
    "none of 19 failed, or 17 %": (real(19), FAIL_RATE, OPEN),
    "none of 20 failed": (real(20), FAIL_RATE, MET),
    "at least 20 % failed": (real(20, bad=range(16, 20), unseen=9), FAIL_RATE, NOT),
    "5 %, or 14 %": (real(100, bad=range(95, 100), unseen=9), FAIL_RATE, MET),
    "5 %, or 15 %": (real(100, bad=range(95, 100), unseen=10), FAIL_RATE, OPEN),
    "nobody looked at all": (real(unseen=20), FAIL_RATE, OPEN),
    "nothing is known to have failed": (real(unseen=20), RECOVERY, OPEN),
    "nothing failed, but one was not looked at": (real(unseen=1), RECOVERY, OPEN),
    "between two looks": (real(source="argocd"), FAIL_RATE, OPEN),
    "between two looks nothing failed": (real(source="argocd"), RECOVERY, OPEN),
    "between two looks 20 %": (real(bad=range(4), source="argocd"), FAIL_RATE, NOT),
    "incidents tell": (
        real(source="argocd", incidents=table("incidents")),
        FAIL_RATE,
        MET,
    ),
}


@pytest.mark.parametrize("name", SCEPTIC)
def test_a_measured_row_is_judged_only_if_a_sceptic_could_not_take_it_away(name):
    history, key, expected = SCEPTIC[name]
    metrics = gitops.measure(history)
    assert metrics.met[key] == pytest.approx(expected, nan_ok=True)
    assert (key in metrics.unjudged) == math.isnan(expected)
    assert all(metrics.unjudged.values())
    assert same(metrics.values, plain_metrics(history)) or history.coverage["lost"].any()


def test_the_downtime_of_a_deployment_is_the_union_of_its_incidents():
    """Two that overlap (10:00 to 10:40, 10:20 to 11:00) and a later one of ten minutes: 70."""
    end, minute = MONTH.start + pd.Timedelta(hours=6, seconds=60), pd.Timedelta(minutes=1)
    spans = [(240, 280), (260, 300), (500, 510)]
    rows = [
        ("x", "production", end + begin * minute, end + over * minute, end) for begin, over in spans
    ]
    history = real(bad={3}, minutes=(510,), incidents=table("incidents", *rows))
    assert gitops.measure(history).values["mttr_minutes"] == pytest.approx(70)


def test_the_way_of_a_change_adds_up_to_its_lead_time():
    """Committed 00:00, in dev 01:00, not seen in staging, live 06:00. The other: 2 h, 4 h, 6 h."""
    start = MONTH.start

    def change(sha, name, begun, came):
        came = None if came is None else start + pd.Timedelta(hours=came)
        return ("x", name, sha, "", start + pd.Timedelta(hours=begun), came)

    rows = [
        change("a" * 40, "dev", 0, 1),
        change("a" * 40, "production", 0, 6),
        change("b" * 40, "dev", 0, 2),
        change("b" * 40, "staging", 0, 4),
        change("b" * 40, "production", 0, 6),
        change("c" * 40, "dev", 5, 7),
        change("c" * 40, "production", 5, None),
    ]
    history = real()._replace(
        changes=table("changes", *rows), environments=("dev", "staging", "qa", "production")
    )
    values = dora_metrics(history)
    parts = values["lead_time_hours_by_environment"]
    assert same(parts, {"dev": 1.5, "staging": 1.0, "qa": math.nan, "production": 3.5})
    assert values["mean_lead_time"] == 6
