"""Calibration: history -> scenario, with what is not known of it; the backtest."""

import collections
import contextlib
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from conftest import called
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_model import EACH, END, MONTH, simulated, table

import gitops_automation as gitops

pytestmark = pytest.mark.usefixtures("in_a_folder")

DAY = 86_400
FOUR_WEEKS = gitops.Window.before(END, 28)  # the weekdays of a history of whole weeks
KEYS = gitops.scored_metrics(gitops.PRODUCTION_ALONE)


def production(**knobs):
    return gitops.Scenario().with_environment("production", **knobs)


SMALL = gitops.Scenario().with_team(commits_per_day=3)
GATED = production(open_hours="Mon-Fri 9-17", wait_hours=(1, 6))
WINDOWS = production(open_hours="Tue 9-11 Thu 9-11", wait_hours=(1, 4))
WORKING = production(open_hours="Mon-Fri 9-17", wait_hours=(2, 10), wait_runs="open")


def lived(scenario, seed=1, days=168, warm=40):
    """Return a measured history of so many days that did not begin empty."""
    history = simulated(scenario, seed, gitops.Window.before(END, days + warm))[0]
    return history.within(gitops.Window.before(END, days))._replace(source="files")


def months_of(calibration, runs=100, seed=1, window=MONTH):
    """Return the months of the baseline that was fitted."""
    return gitops.forecast_months({"": calibration.scenario}, calibration, window, runs, seed)[""]


def drifting(scenario, seed, days=460, sizes=(0.3, 0.3, 0.4)):
    """Return a history whose commits, waits and failures have another level in each four weeks."""
    rng, parts = np.random.Generator(np.random.PCG64(seed)), collections.defaultdict(list)
    window = gitops.Window.before(END, days)
    for number in range(days // 28 + 1):
        more, longer, worse = np.exp(rng.normal(0, sizes))
        month = scenario.with_team(commits_per_day=more * scenario.team.commits_per_day)
        for one in scenario.environments:
            knobs = dict(
                wait_hours=tuple(longer * edge for edge in one.wait_hours),
                success_rate=1 - min(worse * (1 - one.success_rate), 0.9),
            )
            month = month.with_environment(one.name, **knobs)
        low = window.start + pd.Timedelta(days=28 * number)
        high = min(low + pd.Timedelta(days=28), window.end)
        if low >= high:
            break
        around = gitops.Window(max(low - pd.Timedelta(days=14), window.start), window.end)
        around = around._replace(end=min(high + pd.Timedelta(days=20), window.end))
        made = simulated(month, 1000 * seed + number, around)[0]
        commits = made.git_commits[made.git_commits["timestamp"].between(low, high, "left")]
        for name, column in (("deployments", "commit_sha"), ("rollbacks", "from_commit")):
            rows = getattr(made, name)
            parts[name].append(rows[rows[column].astype(object).isin(commits["sha"])])
        parts["git_commits"].append(commits)
    tables = {
        name: gitops.as_table(name, pd.concat([one.astype(object) for one in pieces]).sort_values(
            "timestamp", kind="stable"))
        for name, pieces in parts.items()
    }  # fmt: skip
    names = tuple(scenario.names)
    return gitops.History(window=window, environments=names, source="files", **tables)


# ---- The knobs ----------------------------------------------------------------------------------


def test_the_fit_has_the_knobs_of_the_scenario_that_made_the_history():
    history = lived(gitops.Scenario(), 3)
    fitted = gitops.calibrate(history).scenario
    assert fitted.names == ["dev", "staging", "production"]
    for got, made in zip(fitted.environments, gitops.Scenario().environments):
        assert got.success_rate == pytest.approx(made.success_rate, abs=0.04)
        assert (got.promotion, got.approval_rate, got.open_hours) == (made.promotion, 1, "always")
        middle = np.interp(0.5, np.linspace(0, 1, len(got.wait_hours)), got.wait_hours)
        assert middle == pytest.approx(np.mean(made.wait_hours), rel=0.12)
        assert got.duration_sec[-1] == pytest.approx(made.duration_sec[-1], abs=3)
    team = fitted.team
    assert team.commits_per_day == pytest.approx(8, rel=0.15)
    assert team.weekday_factors[5] == pytest.approx(0.2, abs=0.08)
    assert team.work_hours[0] == pytest.approx(9, abs=0.1)
    assert gitops.Scenario.from_json(fitted.to_json()) == fitted


@pytest.mark.parametrize(
    ("scenario", "policy", "runs"),
    [
        (gitops.Scenario(), "newest", "always"),
        (EACH, "each", "always"),
        (GATED, "newest", "always"),
        (WORKING, "newest", "open"),
    ],
)
def test_a_fit_tells_how_production_is_promoted(scenario, policy, runs):
    """And whether the wait runs while the gate is closed: a test's does, a person's does not."""
    history = lived(scenario, 3)
    found = gitops.calibrate(history).scenario.environments[-1]
    assert (found.promotion, found.wait_runs) == (policy, runs)
    middle = np.interp(0.5, np.linspace(0, 1, len(found.wait_hours)), found.wait_hours)
    assert middle == pytest.approx(np.mean(scenario.environments[-1].wait_hours), rel=0.15)
    hours = np.reshape(found.open_hours, (7, 24)) if found.open_hours != "always" else None
    assert (hours is None) == (scenario.environments[-1].open_hours == "always")
    if hours is not None:
        assert hours[:5, 10:16].min() > 20 * max(hours[5:].max(), hours[:, :8].max())


EFFECTS = {
    "default": gitops.Scenario(),
    "each": EACH,
    "elite": gitops.PRESETS["elite"],
    "small": gitops.Scenario().with_team(commits_per_day=2, applications={"shop": 1}),
    "office": production(open_hours="Mon-Fri 9-17"),
    "office, short waits": GATED,
    "working hours": WORKING,
    "two windows a week": WINDOWS,
    "a clock that changes": production(open_hours="Mon-Fri 9-17", wait_hours=(2, 30)).with_team(
        time_zone="Europe/Berlin"
    ),
}


@pytest.mark.slow
def test_what_ifs_of_a_fit_have_the_effects_that_are_true():
    """Halved waits, half the failures, an opened gate: the median error is at most 12 %."""
    errors = {}
    for number, (name, scenario) in enumerate(EFFECTS.items()):
        true = gitops.Calibration(scenario, scope=gitops.PRODUCTION_ALONE)
        fitted = gitops.calibrate(lived(scenario, 20 + number))
        half = 0.5 + scenario.environments[-1].success_rate / 2
        for change, key in (
            ("production.wait_hours=*0.5", "median_lead_time"),
            (f"production.success_rate={half}", "change_failure_rate"),
            ("production.open_hours=always", "median_lead_time"),
        ):
            means = []
            for calibration in (true, fitted):
                scenarios = {
                    "": calibration.scenario,
                    "it": lambda one, change=change: gitops.parse_change(change, one),
                }
                pair = gitops.forecast_months(scenarios, calibration, MONTH, 100, 5)
                means.append((np.nanmedian(pair["it"][key]), np.nanmedian(pair[""][key])))
            (after, before), (after_fit, before_fit) = means
            if after != before:
                errors[name, change] = abs((after_fit - before_fit) / (after - before) - 1)
    assert np.median(list(errors.values())) <= 0.12, errors


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [GATED, WORKING, production(wait_hours=(1, 20))])
def test_a_fitted_team_deploys_in_the_hours_in_which_it_did(scenario):
    """Of weekends within a point and a half, of each six hours within ten, frequency within 6 %."""
    history = lived(scenario.with_team(commits_per_day=16), 5)
    rows = history.deployments[history.deployments["environment"] == "production"]
    best = gitops.calibrate(history).scenario
    made = lived(best, 9)
    again = made.deployments[made.deployments["environment"] == "production"]

    def shares(table):
        time = table["timestamp"].dt
        quarters = np.bincount(time.hour // 6, minlength=4) / len(table)
        return 100 * (time.day_of_week >= 5).mean(), 100 * quarters

    weekend, quarters = shares(rows)
    weekend_again, quarters_again = shares(again)
    assert weekend_again == pytest.approx(weekend, abs=4 if weekend > 5 else 1)
    assert quarters_again == pytest.approx(quarters, abs=10)
    assert len(again) == pytest.approx(len(rows), rel=0.12)


def test_a_clock_that_changes_breaks_no_gate():
    """Half a year of Berlin's office hours, seen in UTC, at the end of each of some months."""
    office = production(open_hours="Mon-Fri 9-17", wait_hours=(1, 6)).with_team(
        time_zone="Europe/Berlin"
    )
    whole = simulated(office, 2, gitops.Window.before(pd.Timestamp("2026-08-01", tz="UTC"), 400))[0]
    for end in pd.to_datetime(["2025-12-01", "2026-05-01", "2026-07-01"], utc=True):
        known = whole.within(gitops.Window.before(end, 168))._replace(source="files")
        found = months_of(gitops.calibrate(known), 40, window=FOUR_WEEKS)["deployment_frequency"]
        assert np.median(found) == pytest.approx(
            gitops.measure(known).values["deployment_frequency"], rel=0.12
        )


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=40))
def test_the_curve_of_waits_is_that_of_a_loop(entries):
    waits = np.array([float(3600 * time) for time, came in entries if came])
    beyond = np.array([float(3600 * time) for time, came in entries if not came])
    if not len(waits):
        return
    _, found = gitops.fit_waits(waits, waits, beyond)
    left, plain = 1.0, []
    for time in sorted(set(waits)):
        at_risk = (waits >= time).sum() + (beyond >= time).sum()
        left *= 1 - (waits == time).sum() / at_risk
        plain.append((1 - left, time / 3600))
    for share, time in plain:
        at = np.searchsorted(np.linspace(0, 1, 101), share - 1e-9)
        if at < 100 and at / 100 <= plain[-1][0]:
            assert found[at] >= min(time, 24 * gitops.LONGEST) - 1e-6


# ---- What is not known --------------------------------------------------------------------------


def test_a_factor_spreads_by_drift_and_error():
    """By hand: levels of 0, 1 and 2 have variance 1, of which 0.25 is chance; four months of it."""
    levels, chance = np.array([0.0, 1.0, 2.0]), np.full(3, 0.25)

    def spread(levels, error=0.1):
        factors = gitops.month_factors(levels, chance, error, np.random.default_rng(1))
        return np.subtract(*np.quantile(np.log(factors), [0.75, 0.25])) / 2

    t, normal = 0.8165, 0.6745  # the third quartiles of Student's t with two degrees, and of normal
    assert spread(levels / 2) == pytest.approx(t * math.sqrt(0.1), rel=0.1)  # no more than chance
    assert spread(levels) == pytest.approx(t * math.sqrt(0.75 * (1 + 1 / 3) + 0.1), rel=0.1)
    assert spread(levels[:2]) == pytest.approx(normal * math.sqrt(0.1), rel=0.1)


def test_what_was_never_seen_to_fail_may_fail_and_takes_no_flow():
    history = lived(gitops.Scenario(), 1, 60)
    health = history.deployments["health"].astype(object).replace("Degraded", "Healthy")
    rows = history.deployments.assign(health=health, status="Synced", recovered=pd.NaT)
    rows = rows.assign(failure_reason=None)
    calm = history._replace(
        deployments=gitops.as_table("deployments", rows), rollbacks=history.rollbacks.iloc[:0]
    )
    for one in gitops.calibrate(calm).scenario.environments:
        n = (rows["environment"] == one.name).sum()
        assert 1 - one.success_rate == pytest.approx(0.5 / (n + 1))
    found = months_of(gitops.calibrate(calm))["change_failure_rate"]
    assert 0 == np.nanmin(found) < np.nanmean(found) < 2


def test_what_was_not_seen_is_assumed_and_nothing_else_is_blocked():
    history = lived(gitops.Scenario(), 1, 60)
    rows = history.deployments.assign(health="Unknown", failure_reason=None, recovered=pd.NaT)
    unseen = history._replace(
        deployments=gitops.as_table("deployments", rows), rollbacks=history.rollbacks.iloc[:0]
    )
    calibration = gitops.calibrate(unseen)
    unknown = {"change_failure_rate", "production_change_fail_rate", "mttr_minutes"}
    assert set(calibration.assumed) == unknown
    found = months_of(calibration, 20)
    assert all(np.isnan(found[key]).all() for key in calibration.assumed)
    assert not np.isnan(found["median_lead_time"]).any()
    assert gitops.level_counts(found, calibration) == {}
    forecast = gitops.Forecast(
        {"baseline": found}, {"baseline": calibration.scenario}, calibration, MONTH, 1,
        gitops.forecast_actuals(unseen),
    )  # fmt: skip
    text = " ".join(gitops.format_forecast(forecast).split())
    assert "n/a, as nobody looked whether production deployments failed: MTTR, " in text
    assert "Months that are ELITE baseline n/a" in text
    assert "Assumed, as the history does not tell it: " in text
    document = gitops.forecast_document(forecast)
    assert document["what_if"]["baseline"]["levels"] is None
    assert document["fitted"]["rollback.duration_min"] == 0
    without = gitops.calibrate(history._replace(git_commits=history.git_commits.iloc[:0]))
    assert "median_lead_time" in without.assumed
    assert "change_failure_rate" not in without.assumed
    waits = without.scenario.environments[-1].wait_hours  # from staging on they are known
    assert np.median(waits) == pytest.approx(48, rel=0.2)
    assert ("production", "wait_hours") in {(one.group, one.knob) for one in without.knobs if one.n}


def test_a_forward_fix_is_a_recovery_and_no_failed_rollback():
    """The fitted months recover as fast as production did, by whatever means."""
    history = lived(production(success_rate=0.6).with_rollback(success_rate=0.3), 1)
    bare = history._replace(rollbacks=history.rollbacks.iloc[:0])
    for known in (history, bare):
        calibration = gitops.calibrate(known)
        assert calibration.scenario.rollback.success_rate == 1
        found = months_of(calibration)["mttr_minutes"]
        _, low, high = gitops.month_spread(found)
        assert low <= gitops.measure(known).values["mttr_minutes"] <= high


def test_it_is_said_from_how_many_what_was_fitted():
    history = lived(gitops.Scenario(), 7, 60)
    said = "\n".join(gitops.calibrate(history).notes)
    assert re.search(r"^team: commits_per_day \S+ \(\S+ to \S+; n=\d+ commits\)$", said, re.M)
    for name, count in gitops.count_words(history.deployments["environment"]).items():
        assert re.search(
            rf"{name}: success_rate \S+ % \(\S+ % to \S+ %; n={count:,} deployments\)", said
        )


def test_a_history_without_production_cannot_be_fitted():
    """Nor one of which production is older than the last 24 weeks: staging is not production."""
    history = lived(gitops.Scenario(), 1, 60)
    rows = history.deployments
    for left in (rows.iloc[:0], rows[rows["environment"] != "production"]):
        with pytest.raises(
            gitops.GitOpsError, match="in the last 60 days no deployment came to a known pro"
        ):
            gitops.calibrate(history._replace(deployments=left))


def test_only_the_last_24_weeks_are_fitted():
    old = simulated(
        gitops.Scenario().with_environment("dev", success_rate=0.3),
        1,
        gitops.Window.before(END, 400),
    )
    new = simulated(gitops.Scenario(), 1, gitops.Window.before(END, 168))[0]
    tables = {}
    for name in ("git_commits", "deployments"):
        early = getattr(old[0], name)
        early = early[early["timestamp"] < new.window.start]
        both = pd.concat([early.astype(object), getattr(new, name).astype(object)])
        tables[name] = gitops.as_table(name, both)
    assert gitops.calibrate(old[0]._replace(**tables)).scenario.environments[0].success_rate > 0.85


# ---- Config repositories and other sources -------------------------------------------------------


def config_repository(days=120, seed=5, first="dev", waits=(6, 12)):
    """Return a history in which each version comes to dev at once, and every third to production.

    A stray version waited 300 hours for dev.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    window = gitops.Window.before(END, days)
    made = np.sort(rng.integers(0, (days - 3) * DAY, 4 * days)) + window.seconds[0]
    changes, deployments = [], []
    for number, second in enumerate(made.tolist()):
        late = 300 * 3600 if number % 90 == 5 else 0
        ways = [(first, second + late)]
        if number % 3 == 0 and not late:
            ways.append(("production", second + int(rng.integers(*(3600 * np.array(waits))))))
        for name, came in ways:
            bad = rng.random() < 0.1
            sha, good = f"{number:040x}", at(came + 1800) if bad else pd.NaT
            health, reason = ("Degraded", "Reverted") if bad else ("Unknown", None)
            row = ("shop", name, sha, "Synced", health, 0, reason, good)
            deployments.append((at(came), *row))
            changes.append(("shop", name, sha, f"v{number}", at(second), at(came)))
    commits = [(f"{n:040x}", at(s), "x", "x", "shop", "x", "x", 1) for n, s in enumerate(made)]
    kept = [row for row in deployments if row[0] < window.end]
    covered = [("shop", name, name, "template", window.start, window.end, 0)
               for name in (first, "production")]  # fmt: skip
    return gitops.History(
        table("git_commits", *commits),
        table("deployments", *sorted(kept, key=lambda row: row[0])),
        table("rollbacks"),
        window,
        (first, "production"),
        "git",
        table("changes", *changes),
        table("coverage", *covered),
    )


def at(seconds):
    return pd.Timestamp(int(seconds), unit="s", tz="UTC")


def test_the_first_environment_of_a_config_repository_waits_for_nothing():
    """Its lead time begins there: a few stray versions give it no wait, and block no forecast."""
    history = config_repository()
    calibration = gitops.calibrate(history)
    dev, production = calibration.scenario.environments
    assert max(dev.wait_hours) == 0
    assert (dev.approval_rate, production.promotion) == (1, "newest")
    found, came = months_of(calibration, 100), gitops.forecast_actuals(history)
    for key in KEYS:
        middle, low, high = gitops.month_spread(found[key])
        assert low <= came[key] <= high, key
        assert middle == pytest.approx(came[key], rel=0.35), key


def test_what_brings_no_change_tells_of_no_wait_and_counts_as_a_deployment():
    """Edits of what all environments share come at once, and are no change of a version."""
    history = config_repository()
    times = np.linspace(*history.window.seconds, 150, endpoint=False)[1:].astype(int)
    shared = [
        (at(second), "shop", name, f"{n + 10_000:040x}", "Synced", "Unknown", 0, None, pd.NaT)
        for n, second in enumerate(times)
        for name in ("dev", "production")
    ]
    both = pd.concat([history.deployments.astype(object), table("deployments", *shared)])
    both = gitops.as_table("deployments", both.sort_values("timestamp", kind="stable"))
    mixed = history._replace(deployments=both)
    plain, found = (months_of(gitops.calibrate(one), 60) for one in (history, mixed))
    came = gitops.forecast_actuals(mixed)
    assert np.median(found["deployment_frequency"]) == pytest.approx(
        came["deployment_frequency"], rel=0.15
    )
    assert np.median(found["median_lead_time"]) == pytest.approx(
        np.median(plain["median_lead_time"]), rel=0.25
    )


def test_an_environment_that_is_hardly_used_is_no_stage():
    history = config_repository()
    rows = [
        (at(history.window.seconds[0] + day * DAY), "shop", "test", f"{day:040x}", "Synced",
         "Unknown", 0, None, pd.NaT)
        for day in (20, 50)
    ]  # fmt: skip
    both = pd.concat([history.deployments.astype(object), table("deployments", *rows)])
    both = gitops.as_table("deployments", both.sort_values("timestamp", kind="stable"))
    more = history._replace(deployments=both, environments=("dev", "test", "production"))
    assert gitops.calibrate(more).scenario == gitops.calibrate(history).scenario


def test_environments_with_commits_of_their_own_are_fitted_to_their_own_changes():
    """No release of production was in dev, as with a folder for each."""
    history = config_repository()
    renamed = history.changes["environment"].astype(object) == "production"
    sha = history.changes["commit_sha"].where(~renamed, "f" + history.changes["commit_sha"].str[1:])
    own = history._replace(
        changes=gitops.as_table("changes", history.changes.assign(commit_sha=sha))
    )
    calibration = gitops.calibrate(own)
    assert [one.starts for one in calibration.scenario.environments] == ["commit", "commit"]
    assert calibration.scenario.environments[-1].approval_rate == pytest.approx(1 / 4, abs=0.03)
    found, came = months_of(calibration, 100), gitops.forecast_actuals(own)
    for key in ("deployment_frequency", "all_deployment_frequency", "median_lead_time"):
        _, low, high = gitops.month_spread(found[key])
        assert low <= came[key] <= high, key


def test_an_application_counts_from_when_it_is_covered():
    """A shop that is known for the last 30 of 120 days has its rate of these alone."""
    history = config_repository()
    late = END - pd.Timedelta(days=30)
    coverage = history.coverage.assign(**{"from": late, "lost": 9})
    rows = history.deployments[history.deployments["timestamp"] >= late].reset_index(drop=True)
    known = history._replace(deployments=rows, coverage=coverage)
    whole, part = (gitops.calibrate(one).scenario.team for one in (history, known))
    assert part.commits_per_day == pytest.approx(whole.commits_per_day, rel=0.3)


# ---- The backtest -------------------------------------------------------------------------------


def test_a_backtest_compares_each_window_with_what_was_known_before_it():
    history = lived(SMALL, 1, 180)
    found = gitops.backtest(history, days=30, runs=40, seed=3)
    starts = list(dict.fromkeys(found["from"].dt.strftime("%Y-%m-%d")))
    assert starts == ["2025-10-03", "2025-11-02", "2025-12-02", "2026-01-01"]
    last = found[found["from"] == MONTH.start].set_index("metric")
    windows = [
        gitops.Window.before(MONTH.end - pd.Timedelta(days=30 * back), 30) for back in range(6)
    ]
    came = [gitops.forecast_actuals(history.within(window)) for window in windows]
    before = history.within(gitops.Window(history.window.start, MONTH.start))
    month = months_of(gitops.calibrate(before), 40, 3)
    for key in KEYS:
        row = last.loc[key]
        assert row["came"] == pytest.approx(came[0][key], nan_ok=True)
        assert row["last"] == pytest.approx(came[1][key], nan_ok=True)
        assert (row["median"], row["low"], row["high"]) == pytest.approx(
            gitops.month_spread(month[key])
        )
        plain = gitops.plain_forecast([one[key] for one in reversed(came[1:])])
        assert (row["plain"], row["plain_low"], row["plain_high"]) == pytest.approx(plain)


def test_the_yardstick_is_the_mean_with_students_t():
    """By hand: logarithms 0 and 1 have mean 1/2, deviation 0.707; t with one degree is 6.314."""
    middle, low, high = gitops.plain_forecast([1e9, 1e9 * math.e, math.nan])
    tiny = 1e9 * (1 + math.e) / 2 / 20
    logs = np.log([1e9 + tiny, 1e9 * math.e + tiny])
    half = 6.314 * logs.std(ddof=1) * math.sqrt(1.5)
    assert middle == pytest.approx(math.exp(logs.mean()) - tiny)
    assert high == pytest.approx(math.exp(logs.mean() + half) - tiny)
    assert low == 0
    assert all(map(math.isnan, gitops.plain_forecast([3.0])))


@pytest.mark.slow
def test_what_comes_later_changes_no_earlier_forecast():
    history = lived(SMALL, 1, 180)
    later = history.deployments["timestamp"] >= MONTH.start
    rows = history.deployments.assign(health=history.deployments["health"].astype(object))
    rows.loc[later, "health"] = "Degraded"
    other = history._replace(deployments=gitops.as_table("deployments", rows))
    told = [gitops.backtest(one, days=30, runs=10) for one in (history, other)]
    for column in ("median", "low", "high", "plain"):
        assert told[0][column].equals(told[1][column])
    assert not told[0]["came"].equals(told[1]["came"])


def test_the_scores_count_what_held_and_how_far_off_each_was():
    """By hand: of two windows one held; the errors are 1 and 3, 5 and 1 of the last window."""
    columns = ["from", "metric", "came", "median", "low", "high", "last"]
    columns += ["plain", "plain_low", "plain_high"]
    rows = [
        (END, "deployment_frequency", 10.0, 11.0, 9.0, 12.0, 5.0, 8.0, 7.0, 13.0),
        (END, "deployment_frequency", 10.0, 13.0, 11.0, 15.0, 11.0, 12.0, 8.0, 16.0),
        (END, "mttr_minutes", math.nan, 13.0, 11.0, 15.0, 11.0, *[math.nan] * 3),
    ]
    scores = gitops.backtest_scores(pd.DataFrame(rows, columns=columns))
    row = scores.loc["deployment_frequency"]
    assert (row["windows"], row["held"], row["held_plain"]) == (2, 0.5, 1)
    assert (row["error"], row["error_last"], row["error_plain"]) == (2, 3, 2)
    assert row["plain_is_better"]  # 6 and 8 are less than 3 and 4 + 20
    assert list(scores.index) == ["deployment_frequency"]
    verdict = gitops.backtest_verdict(scores)
    assert "did not hold Deployment Frequency (1 of 2): read these forecasts as a" in verdict
    months = months_of(gitops.Calibration(gitops.Scenario()), 5)
    forecast = gitops.Forecast(
        {"baseline": months}, {}, gitops.Calibration(gitops.Scenario()), MONTH, 1, scores=scores
    )
    text = " ".join(gitops.format_forecast(forecast).split())
    assert "The mean of the last eight windows had a better band of Deployment Frequency" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "least"), [("steady", 0.85), ("drifting", 0.75), ("a month alone", 0.75)]
)
def test_the_band_of_a_forecast_holds_the_next_month_in_nine_of_ten_cases(kind, least):
    """The limits allow for two standard errors of some seventy windows.

    Nothing tells the drift of a month alone. Three failures a month tell little of recovery.
    """
    tables = []
    if kind == "a month alone":
        for seed in range(70):
            history = lived(SMALL, seed, 60)
            known = history.within(gitops.Window.before(MONTH.start, 30))
            found, came = (
                months_of(gitops.calibrate(known), 60, seed),
                gitops.forecast_actuals(history.within(MONTH)),
            )
            rows = [(key, came[key], *gitops.month_spread(found[key])) for key in KEYS]
            tables.append(pd.DataFrame(rows, columns=["metric", "came", "median", "low", "high"]))
    else:
        for seed in range(6):
            scenario = (SMALL, gitops.PRESETS["elite"].with_team(commits_per_day=3))[seed % 2]
            whole = lived(scenario, seed, 420) if kind == "steady" else drifting(scenario, seed)
            tables.append(gitops.backtest(whole, runs=60))
    every = pd.concat(tables).dropna(subset=["came", "low"])
    held = (every["came"] >= every["low"] - 1e-9) & (every["came"] <= every["high"] + 1e-9)
    shares = held.groupby(every["metric"]).mean()
    assert (shares.drop("mttr_minutes") > least).all(), shares
    assert shares["mttr_minutes"] > 0.65


@pytest.mark.slow
def test_the_program_says_how_its_forecasts_held(tmp_path, capsys):
    run = gitops.GitOpsAutomation(SMALL, seed=3, end="2026-01-31", output_dir=tmp_path / "year")
    with contextlib.redirect_stdout(io.StringIO()):
        run.simulate_git_activity(160)
        run.simulate_deployments()
        run.simulate_rollbacks()
        run.calculate_dora_metrics()
        run.export()
    (tmp_path / "year" / "metrics.json").unlink()  # so that it is a history of files
    flags = ["--history", tmp_path / "year", "--seed", "1", "--runs", "20", "--no-dashboard"]
    flags += ["--environments", "dev,staging,production"]
    status, out, err = called(capsys, *flags, "--backtest", "--export")
    assert (status, err) == (0, "")
    assert "BACKTEST: past windows of 28 days" in out
    assert re.search(r"Deployment Frequency +3 +\d+% +\d", out)
    assert len(pd.read_csv("output/backtest.csv")) == 3 * len(KEYS)
    status, out, err = called(capsys, *flags, "--what-if", "elite", "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document["scope"] == gitops.PRODUCTION_ALONE
    assert any(note.startswith("Backtest: each past window") for note in document["notes"])
    assert document["measured"]["all_deployment_frequency"] > 3
    frequency = document["what_if"]["baseline"]["metrics"]["production_deployment_frequency"]
    assert frequency["p5"] < frequency["median"] < frequency["p95"]
