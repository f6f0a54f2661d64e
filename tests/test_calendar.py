"""The calendar of a pipeline: office hours, freezes, trains, time zones, and what they batch.

The plain calendar reads a clock on the wall: the weekday, the time and the date that pandas shows
of each minute. The plain train is a local time that a loop counts on.
"""

import functools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_model import seeds, simulated

import gitops_automation as gitops
from gitops_automation import (
    Environment,
    Scenario,
    Team,
    Window,
    commits_table,
)

HOUR = 3600
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WORKDAYS = DAYS[:5]

OPENINGS = {  # each text, and what it means: on which days, from, to
    "always": [(DAYS, "00:00", "24:00")],
    "9-17": [(DAYS, "09:00", "17:00")],
    "Mon-Fri 9-17": [(WORKDAYS, "09:00", "17:00")],
    "Mon-Thu 9-17 Fri 9-12:30": [(DAYS[:4], "09:00", "17:00"), (["Fri"], "09:00", "12:30")],
    "Fri-Mon 8-10": [(["Fri", "Sat", "Sun", "Mon"], "08:00", "10:00")],
    "Mon-Fri 9-12 Mon-Fri 13-17": [(WORKDAYS, "09:00", "12:00"), (WORKDAYS, "13:00", "17:00")],
    "Wed 10-11 Wed 8-16": [(["Wed"], "08:00", "16:00")],
    "Sat 22:15-24 Sun 0-0:59": [(["Sat"], "22:15", "24:00"), (["Sun"], "00:00", "00:59")],
    "Sun 3-23:59": [(["Sun"], "03:00", "23:59")],
}


def window_of(start, end):
    return Window(pd.Timestamp(start, tz="UTC"), pd.Timestamp(end, tz="UTC"))


SPRING = window_of("2026-03-26", "2026-04-05")  # Berlin changes its clocks on Sunday 29 March
AUTUMN = window_of("2026-10-23", "2026-11-03")  # Berlin on 25 October, New York on 1 November
MARCH = window_of("2026-03-06", "2026-03-15")  # New York and Havana on 8 March, at 0:00 in Havana
FORTNIGHT = window_of("2026-10-19", "2026-11-02")
QUARTER = window_of("2026-03-01", "2026-06-01")
ZONES = {  # and windows that try each
    "UTC": [SPRING],
    "Europe/Berlin": [SPRING, AUTUMN],
    "America/New_York": [MARCH, AUTUMN],
    "Asia/Tokyo": [AUTUMN],
    "Asia/Kathmandu": [SPRING],  # a quarter of an hour off
    "America/Havana": [MARCH],
}


# ---- The plain calendar -------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def clock(zone, window):
    """Return for each minute of a window (weekday, HH:MM, date) as a zone's clock shows them."""
    local = pd.date_range(window.start, window.end, freq="min").tz_convert(zone)
    parts = (local.day_of_week, local.hour, local.minute, local.year, local.month, local.day)
    return [
        (DAYS[weekday], f"{hour:02}:{minute:02}", f"{year}-{month:02}-{day:02}")
        for weekday, hour, minute, year, month, day in zip(*(part.tolist() for part in parts))
    ]


def is_open(hours, freezes, day, time, date):
    """Say whether releases may go up while the clock shows this."""
    if any(first <= date <= last for first, last in freezes):
        return False
    return any(day in days and begin <= time < over for days, begin, over in OPENINGS[hours])


def walls(rows, zone):
    """Return what a zone's clock shows at the times of a table: (weekday, HH:MM, date)."""
    local = rows["timestamp"].dt.tz_convert(zone)
    return [(DAYS[one.weekday()], f"{one:%H:%M}", f"{one:%Y-%m-%d}") for one in local]


def utc(text, zone="UTC"):
    """Return the second at which a zone's clock shows a time."""
    return int(pd.Timestamp(text, tz=zone).timestamp())


def gate_of(hours="always", zone="UTC", window=SPRING, freezes=(), every=0):
    """Return the gate of an environment with these knobs."""
    stage = Environment("live", 1, open_hours=hours, freezes=freezes, release_every_hours=every)
    return gitops.Gate.of(stage, zone, window)


def next_of(gate, *times):
    return gate.next(np.array(times, np.int64)).tolist()


def assert_opens_as_the_clock_says(hours, zone, window, freezes=()):
    """At each minute, and within it, a release goes at once or when the clock says so."""
    start, shown = window.seconds[0], clock(zone, window)
    gate, following, moments, goes = gate_of(hours, zone, window, freezes), None, [], []
    for minute in reversed(range(len(shown))):
        now = is_open(hours, freezes, *shown[minute])
        following = minute if now else following
        if following is not None:
            moments += [start + 60 * minute + second for second in (0, 1, 59)]
            goes += moments[-3:] if now else [start + 60 * following] * 3
    assert next_of(gate, *moments) == goes


# ---- Office hours and freezes -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hours", OPENINGS)
def test_releases_go_up_while_the_local_clock_says_so(hours, zone):
    for window in ZONES[zone]:
        assert_opens_as_the_clock_says(hours, zone, window)


def freezes_in(window, most=3):
    """Return a strategy: up to `most` spans of days in a window and around it."""
    days = pd.date_range(window.start - pd.Timedelta(days=40), window.end, freq="D")
    day = st.sampled_from(list(days.strftime("%Y-%m-%d"))[30:])
    span = st.tuples(day, day).map(lambda days: tuple(sorted(days)))
    return st.lists(span, max_size=most).map(tuple)


@settings(max_examples=25)
@given(st.sampled_from(list(OPENINGS)), st.sampled_from(list(ZONES)), st.data())
def test_any_freezes_and_hours_are_those_of_the_clock(hours, zone, data):
    window = data.draw(st.sampled_from(ZONES[zone]))
    assert_opens_as_the_clock_says(hours, zone, window, data.draw(freezes_in(window)))


def test_a_day_that_begins_at_one_is_frozen_from_then_on():
    for hours in ("always", "9-17"):
        frozen = [("2026-03-08", "2026-03-08")]
        assert_opens_as_the_clock_says(hours, "America/Havana", MARCH, frozen)


def test_an_opening_in_the_hour_that_comes_twice_begins_and_ends_in_the_first():
    begins = gate_of("Sun 2:30-4", "Europe/Berlin", AUTUMN)
    ends = gate_of("Sun 1-2:30", "Europe/Berlin", AUTUMN)
    first, over = utc("2026-10-25 00:30"), utc("2026-10-25 03:00")
    assert next_of(begins, first - HOUR, first, over - 1) == [first, first, over - 1]
    assert next_of(ends, first - 1, first) == [first - 1, utc("2026-11-01 00:00")]


def test_fifty_freezes_need_no_more_memory_than_one():
    days = pd.date_range("2026-01-01", periods=50, freq="7D").strftime("%Y-%m-%d")
    tracemalloc.start()
    gate = gate_of("Mon-Fri 9-17", "Europe/Berlin", QUARTER, [(day, day) for day in days])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    thursday = utc("2026-03-26 12:00", "Europe/Berlin")
    assert next_of(gate, thursday) == [utc("2026-03-27 09:00", "Europe/Berlin")]


# ---- Hours of the week with weights -------------------------------------------------------------

WEIGHTS = np.zeros(168)
for _day in range(5):
    WEIGHTS[24 * _day + 9 : 24 * _day + 17] = [1, 1, 1, 0.5, 1, 1, 1, 0.25]
WEIGHTS[5 * 24 + 23] = 2.0


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_a_wait_passes_in_open_hours_by_their_weight(zone):
    """Minute by minute: each open one takes its weight off the wait."""
    gate, rng = gate_of(tuple(WEIGHTS), zone, SPRING), np.random.default_rng(1)
    for first in (SPRING.seconds[0] + rng.integers(0, 9 * 86400, 40) // 60 * 60).tolist():
        wait = int(rng.integers(1, 30 * 60))  # minutes
        local = pd.Timestamp(first, unit="s", tz="UTC").tz_convert(zone)
        minutes = pd.date_range(local, periods=20 * 1440, freq="min")
        passed = np.cumsum(WEIGHTS[24 * minutes.day_of_week + minutes.hour])
        found = int(gate.after(np.array([first]), np.array([60 * wait]))[0])
        assert next_of(gate, found) == [found]  # it is open then
        assert passed[(found - first) // 60] == pytest.approx(wait, abs=2.1)


def test_open_seconds_and_moments_are_each_others_inverse():
    gate, rng = gate_of(tuple(WEIGHTS), "Europe/Berlin", AUTUMN), np.random.default_rng(2)
    times = AUTUMN.seconds[0] + rng.integers(0, 20 * 86400, 500)
    waits = rng.integers(0, 40 * 3600, 500)
    passed = gate.clock(gate.after(times, waits)) - gate.clock(times)
    assert np.abs(passed - waits).max() <= 1  # a whole second
    always = gate_of("always", "UTC", AUTUMN)
    assert (always.after(times, waits) == times + waits).all()


# ---- Trains -------------------------------------------------------------------------------------


def plain_departures(hours, every, zone, window, freezes=()):
    """Return the seconds at which trains leave in a window.

    Local time is counted on from the first opening of the first Monday's week of 1970.
    """
    day, begin = min((DAYS.index(day), begin) for days, begin, _ in OPENINGS[hours] for day in days)
    moment = pd.Timestamp(f"1970-01-05 {begin}") + pd.Timedelta(days=day)
    step, shown, start = pd.Timedelta(hours=every), clock(zone, window), window.seconds[0]
    moment += step * ((window.start.tz_localize(None) - pd.Timedelta(days=1) - moment) // step)
    leaves = []
    while True:
        here = moment.tz_localize(zone, ambiguous=True, nonexistent="shift_forward")
        minute = (int(here.timestamp()) - start) // 60
        if minute >= len(shown):
            return leaves
        if minute >= 0 and is_open(hours, freezes, *shown[minute]):
            leaves.append(start + 60 * minute)
        moment += step


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("every", [168, 24, 12, 6, 1, 50, 336, 0.5, 7.3])
def test_trains_leave_by_local_time_while_the_gate_is_open(every, zone):
    frozen = [("2026-10-26", "2026-10-27")]
    for hours in ("always", "Mon-Fri 9-17", "Fri-Mon 8-10", "Mon-Fri 9-12 Mon-Fri 13-17"):
        for freezes in ((), frozen):
            leaves = plain_departures(hours, every, zone, AUTUMN, freezes)
            ready = range(AUTUMN.seconds[0], AUTUMN.seconds[1], 7001)
            ready = sorted({*ready, *(second + off for second in leaves for off in (-1, 0, 1))})
            places = np.searchsorted(leaves, ready)
            known = [(second, leaves[at]) for second, at in zip(ready, places) if at < len(leaves)]
            seconds, goes = zip(*known) if known else ((), ())
            assert tuple(next_of(gate_of(hours, zone, AUTUMN, freezes, every), *seconds)) == goes


def test_a_weekly_train_leaves_when_the_week_first_opens_and_skips_a_freeze():
    zone, ready = "Europe/Berlin", utc("2026-03-25 12:00", "Europe/Berlin")
    for hours, freezes, leaves in (
        ("Mon-Fri 9-17", (), "2026-03-30 09:00"),
        ("Mon-Fri 9-17", [("2026-03-28", "2026-03-30")], "2026-04-06 09:00"),
        ("always", (), "2026-03-30 00:00"),
        ("Wed 10-11 Wed 8-16", (), "2026-04-01 08:00"),
    ):
        gate = gate_of(hours, zone, QUARTER, freezes, every=168)
        assert next_of(gate, ready) == [utc(leaves, zone)]
    closing = gate_of("Mon-Fri 9-17", "UTC", QUARTER, every=8)  # 17:00 is not open any more
    assert next_of(closing, utc("2026-03-24 09:00:01")) == [utc("2026-03-25 09:00")]


# ---- Whole simulations --------------------------------------------------------------------------


def of(history, environment):
    return history.deployments[history.deployments["environment"] == environment]


@pytest.mark.parametrize("zone", ZONES)
def test_commits_lie_in_the_local_work_hours_of_local_weekdays(zone):
    for hours in ((9, 17), (0, 3.5), (20, 24)):
        factors = (1, 1, 1, 1, 1, 0, 0)
        team = Team(time_zone=zone, work_hours=hours, commits_per_day=40, weekday_factors=factors)
        table = commits_table(team, FORTNIGHT, 3)
        shown = walls(table, zone)
        assert {day for day, _, _ in shown} == set(WORKDAYS)
        low, high = (f"{int(hour):02}:{int(hour % 1 * 60):02}" for hour in hours)
        assert all(low <= time < high for _, time, _ in shown if time != "01:00")  # it is skipped
        assert table["timestamp"].between(FORTNIGHT.start, FORTNIGHT.end).all()


# ---- Laws ---------------------------------------------------------------------------------------

LONGER = ("Wed 10-12", "Wed 10-11 Wed 8-16", "Mon-Wed 8-16", "Mon-Fri 8-17", "8-17", "always")
gates = st.fixed_dictionaries(
    dict(
        success_rate=st.sampled_from([1, 0.8]),
        wait_hours=st.sampled_from([(0, 0), (0, 12), (3, 3), (1, 5, 30)]),
        duration_sec=st.sampled_from([(30, 120), (0, 7200)]),
        promotion=st.just("each"),
        approval_rate=st.sampled_from([1, 0.7]),
        open_hours=st.sampled_from(list(OPENINGS)),
        freezes=freezes_in(FORTNIGHT, most=2),
    )
)


def production_starts(scenario, seed):
    """Return when the commits that reach production start there."""
    rows = of(simulated(scenario, seed, FORTNIGHT)[0], scenario.names[-1])
    return dict(zip(rows["commit_sha"], rows["timestamp"]))


@settings(max_examples=30)
@given(
    st.lists(gates, min_size=1, max_size=3),
    st.sampled_from(list(ZONES)),
    seeds,
    st.floats(0, 1),
    st.tuples(st.sampled_from(LONGER), st.sampled_from(LONGER)),
)
def test_a_gate_that_opens_longer_after_a_shorter_wait_never_delays_a_commit(
    stages, zone, seed, factor, hours
):
    shorter, longer = sorted(hours, key=LONGER.index)
    named = [Environment(f"stage {number}", **knobs) for number, knobs in enumerate(stages)]
    scenario = Scenario(team=Team(time_zone=zone), environments=named)
    stage = named[seed % len(named)]
    before = scenario.with_environment(stage.name, open_hours=shorter)
    wait = [hours * factor for hours in stage.wait_hours]
    knobs = dict(open_hours=longer, freezes=stage.freezes[1:], wait_hours=wait)
    slow, fast = (
        production_starts(one, seed) for one in (before, before.with_knobs(stage.name, **knobs))
    )
    assert set(slow) <= set(fast)
    assert all(fast[sha] <= time for sha, time in slow.items())
