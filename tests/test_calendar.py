"""The calendar of a pipeline: office hours, freezes, trains, time zones, and what they batch.

The plain calendar reads a clock on the wall: the weekday, the time and the date that pandas shows
of each minute. The plain train is a local time that a loop counts on.
"""

import collections
import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_model import check_history, seeds, simulated, spread

import gitops_automation as gitops
from gitops_automation import (
    NEVER,
    Commits,
    Environment,
    GitOpsError,
    Noise,
    Scenario,
    Team,
    Window,
    commits_table,
    parse_change,
    run_pipeline,
    simulate_deployments,
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
    "Tue 0-24:00": [(["Tue"], "00:00", "24:00")],
    "Sun 3-23:59": [(["Sun"], "03:00", "23:59")],
}


def window_of(start, end):
    return Window(pd.Timestamp(start, tz="UTC"), pd.Timestamp(end, tz="UTC"))


SPRING = window_of("2026-03-26", "2026-04-05")  # Berlin changes its clocks on Sunday 29 March
AUTUMN = window_of("2026-10-23", "2026-11-03")  # Berlin on 25 October, New York on 1 November
MARCH = window_of("2026-03-06", "2026-03-15")  # New York on 8 March
ZONES = {  # and windows that try each
    "UTC": [SPRING],
    "Europe/Berlin": [SPRING, AUTUMN],
    "America/New_York": [MARCH, AUTUMN],
    "Asia/Tokyo": [AUTUMN],
}
FORTNIGHT = window_of("2026-10-19", "2026-11-02")
QUARTER = window_of("2026-03-01", "2026-06-01")


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


def wall(second, zone):
    """Return what a zone's clock shows at a second: (weekday, HH:MM, date)."""
    shown = pd.Timestamp(int(second), unit="s", tz="UTC").tz_convert(zone)
    return DAYS[shown.weekday()], shown.strftime("%H:%M"), shown.strftime("%Y-%m-%d")


def utc(text, zone="UTC"):
    """Return the second at which a zone's clock shows a time."""
    return int(pd.Timestamp(text, tz=zone).timestamp())


@functools.lru_cache(maxsize=64)
def plain_next(hours, freezes, zone, window):
    """Return for each minute of a window the first open one from then on, None if unknown."""
    following, found = None, []
    shown = clock(zone, window)
    for minute in reversed(range(len(shown))):
        following = minute if is_open(hours, freezes, *shown[minute]) else following
        found.append(following)
    return found[::-1]


def gate_of(hours="always", zone="UTC", window=SPRING, freezes=(), every=0):
    """Return the gate of an environment with these knobs."""
    stage = Environment("live", 1, open_hours=hours, freezes=freezes, release_every_hours=every)
    return gitops.Gate.of(stage, zone, window)


def next_of(gate, *times):
    return gate.next(np.array(times, np.int64)).tolist()


def assert_opens_as_the_clock_says(hours, zone, window, freezes=()):
    """At each minute, and within it, a release goes at once or when the clock says so."""
    start = window.seconds[0]
    gate = gate_of(hours, zone, window, freezes)
    expected = plain_next(hours, tuple(freezes), zone, window)
    known = [minute for minute, following in enumerate(expected) if following is not None]
    for second in (0, 1, 59):
        moments = [start + 60 * minute + second for minute in known]
        goes = [
            moment if expected[minute] == minute else start + 60 * expected[minute]
            for minute, moment in zip(known, moments)
        ]
        assert next_of(gate, *moments) == goes


# ---- Office hours -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hours", OPENINGS)
def test_releases_go_up_while_the_local_clock_says_so(hours, zone):
    for window in ZONES[zone]:
        assert_opens_as_the_clock_says(hours, zone, window)


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"])
def test_a_zone_may_be_off_by_quarters_of_an_hour(zone):
    for hours in ("Mon-Fri 9-17", "Mon-Thu 9-17 Fri 9-12:30"):
        assert_opens_as_the_clock_says(hours, zone, SPRING)


def test_a_release_that_is_ready_while_it_is_open_goes_at_once():
    gate = gate_of("Mon-Fri 9-17", "Europe/Berlin")
    ready = [utc(f"2026-03-30 {time}", "Europe/Berlin") for time in ("09:00", "12:34:56")]
    assert next_of(gate, *ready) == ready


def test_a_release_that_is_ready_at_the_closing_second_waits():
    gate = gate_of("Mon-Fri 9-17", "Europe/Berlin")
    last = utc("2026-03-27 16:59:59", "Europe/Berlin")
    monday = utc("2026-03-30 09:00", "Europe/Berlin")
    assert next_of(gate, last, last + 1, monday - 1) == [last, monday, monday]


def test_an_opening_that_ends_at_midnight_goes_on_in_the_next_day():
    gate = gate_of("Sat 22:15-24 Sun 0-0:59")
    midnight = utc("2026-03-29")
    assert next_of(gate, midnight - 1, midnight) == [midnight - 1, midnight]


def test_local_hours_move_against_utc_when_the_clocks_change():
    opens = {
        zone: next_of(gate_of("Mon-Fri 9-17", zone), utc("2026-03-27"), utc("2026-03-30"))
        for zone in ("Europe/Berlin", "Asia/Tokyo")
    }
    assert opens["Europe/Berlin"] == [utc("2026-03-27 08:00"), utc("2026-03-30 07:00")]
    assert opens["Asia/Tokyo"] == [utc("2026-03-27 00:00"), utc("2026-03-30 00:00")]


def test_an_opening_in_the_hour_that_comes_twice_begins_and_ends_in_the_first():
    begins = gate_of("Sun 2:30-4", "Europe/Berlin", AUTUMN)
    ends = gate_of("Sun 1-2:30", "Europe/Berlin", AUTUMN)
    first, over = utc("2026-10-25 00:30"), utc("2026-10-25 03:00")
    assert next_of(begins, first - HOUR, first, over - 1) == [first, first, over - 1]
    assert next_of(ends, first - 1) == [first - 1]
    assert next_of(ends, first) == [utc("2026-11-01 00:00")]


def test_an_opening_in_the_hour_that_is_skipped_begins_after_it():
    gate = gate_of("Sun 2:30-4", "Europe/Berlin")
    begin, over = utc("2026-03-29 01:00"), utc("2026-03-29 02:00")
    assert next_of(gate, begin - HOUR, begin, over - 1) == [begin, begin, over - 1]
    assert next_of(gate, over) == [utc("2026-04-05 00:30")]


def test_without_hours_every_release_goes_at_once():
    gate = gate_of()
    moments = list(range(SPRING.seconds[0], SPRING.seconds[1], 12_345))
    assert next_of(gate, *moments) == moments


def test_a_release_that_never_comes_never_goes():
    for knobs in (
        dict(hours="Mon-Fri 9-17"),
        dict(freezes=[["2026-03-27", "2026-03-29"]]),
        dict(every=24),
        dict(),
    ):
        assert next_of(gate_of(**knobs), NEVER)[0] >= NEVER


@pytest.mark.parametrize("hours", OPENINGS)
def test_what_goes_before_a_time_is_ready_while_it_was_last_open(hours):
    zone, window, freezes = "Europe/Berlin", AUTUMN, [("2026-10-24", "2026-10-26")]
    gate, start = gate_of(hours, zone, window, freezes), window.seconds[0]
    expected, last = {}, None
    for minute, shown in enumerate(clock(zone, window)):
        if last is not None:
            expected[start + 60 * minute] = start + 60 * (last + 1)
        if is_open(hours, freezes, *shown):
            last = minute
    assert gate.before(np.array(list(expected))).tolist() == list(expected.values())


# ---- Freezes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ZONES)
def test_nothing_goes_up_from_the_first_day_to_the_end_of_the_last(zone):
    gate = gate_of(zone=zone, freezes=[["2026-03-28", "2026-03-30"]])
    first, over = utc("2026-03-28 00:00", zone), utc("2026-03-31 00:00", zone)
    assert next_of(gate, first - 1, first, over - 1, over) == [first - 1, over, over, over]


FREEZES = {
    "a day": [("2026-03-29", "2026-03-29")],
    "overlapping": [("2026-03-28", "2026-03-30"), ("2026-03-30", "2026-04-01")],
    "one in the other": [("2026-03-27", "2026-04-02"), ("2026-03-29", "2026-03-30")],
    "twice the same": [("2026-03-29", "2026-03-30")] * 2,
    "one after the other": [("2026-03-30", "2026-03-31"), ("2026-03-28", "2026-03-29")],
    "apart": [("2026-04-02", "2026-04-02"), ("2026-03-28", "2026-03-29")],
    "from before the window": [("2026-02-01", "2026-03-28")],
    "elsewhere": [("2025-12-20", "2026-01-04"), ("2026-12-20", "2027-01-04")],
}


@pytest.mark.parametrize(
    "hours", ["always", "Mon-Fri 9-17", "Fri-Mon 8-10", "Sat 22:15-24 Sun 0-0:59"]
)
@pytest.mark.parametrize("freezes", FREEZES)
def test_freezes_and_office_hours_hold_together(freezes, hours):
    for zone in ("Europe/Berlin", "Asia/Tokyo"):
        assert_opens_as_the_clock_says(hours, zone, SPRING, FREEZES[freezes])


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Africa/Cairo", "2026-04-24"),
        ("America/Havana", "2026-03-08"),
        ("Asia/Beirut", "2026-03-29"),
    ],
)
def test_a_day_that_begins_at_one_is_frozen_from_then_on(zone, day):
    begin = pd.Timestamp(day, tz="UTC")
    window = Window(begin - pd.Timedelta(days=4), begin + pd.Timedelta(days=5))
    for hours in ("always", "9-17"):
        assert_opens_as_the_clock_says(hours, zone, window, [(day, day)])


def test_a_freeze_of_the_day_before_the_clocks_go_back_at_midnight_ends_when_the_day_first_begins():
    gate = gate_of("always", "America/Havana", AUTUMN, [("2026-10-30", "2026-10-31")])
    over = utc("2026-11-01 04:00")  # 0:00 comes again an hour later
    assert next_of(gate, over - 1, over, over + 2 * HOUR) == [over, over, over + 2 * HOUR]


def dates_in(window):
    """Return a strategy: a day of a window, as the freezes write it."""
    days = pd.date_range(window.start, window.end, freq="D").strftime("%Y-%m-%d")
    return st.sampled_from(list(days))


def freezes_in(window, most=3):
    """Return a strategy: up to `most` spans of days in a window."""
    span = st.tuples(dates_in(window), dates_in(window)).map(lambda days: tuple(sorted(days)))
    return st.lists(span, max_size=most)


WEEK = window_of("2026-10-23", "2026-10-30")


@pytest.mark.slow
@settings(max_examples=6)
@given(st.sampled_from(list(OPENINGS)), st.sampled_from(list(ZONES)), freezes_in(WEEK))
def test_any_freezes_and_hours_are_those_of_the_clock(hours, zone, freezes):
    assert_opens_as_the_clock_says(hours, zone, WEEK, freezes)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.sampled_from(list(OPENINGS)), st.sampled_from(list(ZONES)), freezes_in(AUTUMN))
def test_many_freezes_and_hours_are_those_of_the_clock(hours, zone, freezes):
    assert_opens_as_the_clock_says(hours, zone, AUTUMN, freezes)


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
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("every", [168, 24, 12, 6, 1, 50, 336, 0.5, 7.3])
def test_trains_leave_by_local_time_while_the_gate_is_open(every, zone):
    frozen = [("2026-10-26", "2026-10-27")]
    for hours, freezes in (
        ("always", ()),
        ("always", frozen),
        ("Mon-Fri 9-17", frozen),
        ("Fri-Mon 8-10", ()),
        ("Mon-Fri 9-12 Mon-Fri 13-17", ()),
    ):
        leaves = plain_departures(hours, every, zone, AUTUMN, freezes)
        ready = range(AUTUMN.seconds[0], AUTUMN.seconds[1], 7001)
        ready = sorted({*ready, *(second + off for second in leaves for off in (-1, 0, 1))})
        places = np.searchsorted(leaves, ready)
        known = [(second, leaves[at]) for second, at in zip(ready, places) if at < len(leaves)]
        seconds, goes = zip(*known) if known else ((), ())
        assert tuple(next_of(gate_of(hours, zone, AUTUMN, freezes, every), *seconds)) == goes


@pytest.mark.parametrize("zone", ZONES)
def test_a_weekly_train_leaves_when_the_week_first_opens(zone):
    gate = gate_of("Mon-Fri 9-17", zone, QUARTER, every=168)
    mondays = [f"2026-{day}" for day in ("03-23", "03-30", "04-06")]
    leaves = [utc(f"{day} 09:00", zone) for day in mondays]
    assert next_of(gate, *leaves) == leaves
    assert next_of(gate, *(second + 1 for second in leaves[:2])) == leaves[1:]


@pytest.mark.parametrize("zone", ZONES)
def test_a_weekly_train_without_hours_leaves_on_monday_at_midnight(zone):
    gate = gate_of("always", zone, QUARTER, every=168)
    assert next_of(gate, utc("2026-03-24 10:00", zone)) == [utc("2026-03-30 00:00", zone)]


def test_a_weekly_train_of_a_week_that_begins_on_wednesday_leaves_on_wednesdays():
    gate = gate_of("Wed 10-11 Wed 8-16", "Europe/Berlin", QUARTER, every=168)
    ready = utc("2026-03-26 10:00", "Europe/Berlin")
    assert next_of(gate, ready) == [utc("2026-04-01 08:00", "Europe/Berlin")]


def test_a_daily_train_skips_the_weekend():
    gate = gate_of("Mon-Fri 9-17", "Europe/Berlin", QUARTER, every=24)
    friday, monday = (utc(f"2026-03-{day} 09:00", "Europe/Berlin") for day in (27, 30))
    assert next_of(gate, friday, friday + 1, monday) == [friday, monday, monday]


def test_a_train_that_would_leave_at_the_closing_second_does_not():
    gate = gate_of("Mon-Fri 9-17", "UTC", QUARTER, every=8)
    leaves = [utc("2026-03-24 09:00"), utc("2026-03-25 09:00")]
    assert next_of(gate, leaves[0] + 1) == [leaves[1]]


def test_a_release_takes_the_next_train_when_its_own_is_frozen():
    freezes = [("2026-03-28", "2026-03-30")]
    gate = gate_of("Mon-Fri 9-17", "Europe/Berlin", QUARTER, freezes, every=168)
    ready = utc("2026-03-25 12:00", "Europe/Berlin")
    assert next_of(gate, ready) == [utc("2026-04-06 09:00", "Europe/Berlin")]


def test_what_goes_before_a_time_is_ready_when_the_last_train_before_leaves():
    gate = gate_of("Mon-Fri 9-17", "Europe/Berlin", AUTUMN, every=24)
    leaves = plain_departures("Mon-Fri 9-17", 24, "Europe/Berlin", AUTUMN)
    times = [second + off for second in leaves[1:] for off in (0, 1, 300 * 60)]
    expected = [max(second for second in leaves if second < time) for time in times]
    assert gate.before(np.array(times)).tolist() == expected


# ---- Releases -----------------------------------------------------------------------------------


def plain_fates(promotion, arrivals, waits, lineage, goes):
    """Return of each release the second at which it goes up, None for one that gives way.

    A newer release of its lineage takes its place: under `newest` one whose sync would start no
    later, under `soak` one that has arrived by the time at which its own sync starts.
    """
    starts = [goes(arrival + wait) for arrival, wait in zip(arrivals, waits)]
    rivals = {"each": [], "newest": starts, "soak": arrivals}[promotion]
    fates = []
    for row, start in enumerate(starts):
        newer = [rival for other, rival in enumerate(rivals) if other > row]
        mates = [number == lineage[row] for number in lineage[row + 1 :]]
        overtaken = any(mate and rival <= start for mate, rival in zip(mates, newer))
        fates.append(None if overtaken else start)
    return fates


@settings(max_examples=25)
@given(
    st.sampled_from(gitops.PROMOTIONS),
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 5 * 1440), st.floats(0, 1)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["Mon-Fri 9-17", "Fri-Mon 8-10", "9-17", "Mon-Fri 9-12 Mon-Fri 13-17"]),
    st.sampled_from([(), (("2026-03-27", "2026-03-28"),), (("2026-03-30", "2026-03-30"),)]),
)
def test_promotions_keep_their_definitions_behind_office_hours(promotion, releases, hours, freezes):
    zone, longest = "Europe/Berlin", 20
    lineage, minutes, noise = zip(*sorted(releases))
    start = SPRING.seconds[0]
    arrivals = [start + 60 * minute for minute in minutes]
    waits = [round(share * longest * HOUR) for share in noise]
    open_minutes = plain_next(hours, tuple(freezes), zone, SPRING)

    def goes(second):
        minute = (second - start) // 60
        following = open_minutes[minute] if minute < len(open_minutes) else None
        if following is None:
            return SPRING.seconds[1]
        return second if following == minute else start + 60 * following

    stage = Environment("live", 1, (0, longest), (0, 0), promotion, 1, 0, hours, freezes)
    gate = gitops.Gate.of(stage, zone, SPRING)
    half = [0.5] * len(noise)
    drawn = np.array([half, noise, half])
    found = gitops.run_stage(stage, np.array(arrivals), np.array(lineage), drawn, gate)
    expected = plain_fates(promotion, arrivals, waits, lineage, goes)
    in_time = [one if one is not None and one < SPRING.seconds[1] else None for one in expected]
    ups = [second if up else None for second, up in zip(found.start.tolist(), found.deployed)]
    assert ups == in_time


def test_of_the_releases_that_wait_for_the_gate_the_newest_goes_up():
    friday = utc("2026-03-27 18:00")
    arrivals = [friday, friday + HOUR, friday + 2 * HOUR]
    ups = {}
    for promotion in gitops.PROMOTIONS:
        stage = Environment("live", 1, (0, 0), (0, 0), promotion, open_hours="Mon-Fri 9-17")
        gate = gitops.Gate.of(stage, "UTC", SPRING)
        noise = np.full((3, 3), 0.5)
        found = gitops.run_stage(stage, np.array(arrivals), np.zeros(3, int), noise, gate)
        assert set(found.start) == {utc("2026-03-30 09:00")}
        ups[promotion] = found.deployed.tolist()
    assert ups == {"each": [True] * 3, "newest": [False, False, True], "soak": [False, False, True]}


# ---- Whole simulations --------------------------------------------------------------------------


def of(history, environment):
    return history.deployments[history.deployments["environment"] == environment]


def walls(rows, zone):
    """Return what a zone's clock shows at the times of a table."""
    return [wall(time.timestamp(), zone) for time in rows["timestamp"]]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("promotion", gitops.PROMOTIONS)
def test_no_deployment_starts_outside_the_office_hours_or_in_a_freeze(zone, promotion):
    hours, freezes = "Mon-Thu 9-17 Fri 9-12:30", [("2026-10-26", "2026-10-27")]
    knobs = dict(open_hours=hours, freezes=freezes, promotion=promotion, wait_hours=(1, 30))
    scenario = Scenario().with_team(time_zone=zone, commits_per_day=20)
    history, flow = simulated(scenario.with_environment("production", **knobs), 5, FORTNIGHT)
    shown = walls(of(history, "production"), zone)
    assert len(shown) > 5
    assert all(is_open(hours, freezes, *one) for one in shown)
    assert len({day for day, _, _ in shown}) >= 3
    assert not all(is_open(hours, (), *one) for one in walls(of(history, "staging"), zone))
    assert (flow.sum(axis=1).to_numpy()[1:] <= flow["deployed"].to_numpy()[:-1]).all()
    check_history(history)


@pytest.mark.parametrize("zone", ZONES)
def test_a_weekly_train_starts_every_production_deployment_on_monday_at_nine(zone):
    knobs = dict(open_hours="Mon-Fri 9-17", release_every_hours=168)
    scenario = Scenario().with_team(time_zone=zone).with_environment("production", **knobs)
    history, _ = simulated(scenario, 2, QUARTER)
    shown = walls(of(history, "production"), zone)
    assert len({date for _, _, date in shown}) >= 11
    assert {(day, time) for day, time, _ in shown} == {("Mon", "09:00")}


@pytest.mark.parametrize("zone", [*ZONES, "Asia/Kathmandu"])
def test_commits_lie_in_the_local_work_hours_of_local_weekdays(zone):
    for hours in ((9, 17), (0, 3.5), (20, 24)):
        team = Team(
            time_zone=zone,
            work_hours=hours,
            commits_per_day=40,
            weekday_factors=(1, 1, 1, 1, 1, 0, 0),
        )
        for window in (FORTNIGHT, SPRING):
            table = commits_table(team, window, 3)
            shown = walls(table, zone)
            assert {day for day, _, _ in shown} == set(WORKDAYS)
            low, high = (f"{int(hour):02}:{int(hour % 1 * 60):02}" for hour in hours)
            assert all(low <= time < high for _, time, _ in shown)
            assert table["timestamp"].min() >= window.start
            assert table["timestamp"].max() < window.end


@pytest.mark.parametrize("zone", ZONES)
def test_commits_fill_the_window_from_its_first_hour_to_its_last(zone):
    team = Team(time_zone=zone, work_hours=(0, 24), commits_per_day=500, weekday_factors=[1] * 7)
    seconds = commits_table(team, FORTNIGHT, 4)["timestamp"]
    per_hour = np.bincount((seconds - FORTNIGHT.start) // pd.Timedelta(hours=1))
    assert len(per_hour) == 24 * FORTNIGHT.days
    twice = {"Europe/Berlin": utc("2026-10-25 01:00"), "America/New_York": utc("2026-11-01 06:00")}
    quiet = FORTNIGHT.seconds[0] + HOUR * np.flatnonzero(per_hour == 0)
    assert set(quiet) == {hour for name, hour in twice.items() if name == zone}


def test_a_commit_in_the_hour_that_is_skipped_comes_right_after_it():
    team = Team(time_zone="Europe/Berlin", work_hours=(2, 3), weekday_factors=[1] * 7)
    hours = collections.defaultdict(set)
    for _, time, date in walls(commits_table(team, SPRING, 1), team.time_zone):
        hours[date].add(time if date == "2026-03-29" else time[:2])
    assert hours.pop("2026-03-29") == {"03:00"}
    assert len(hours) >= 7 and set.union(*hours.values()) == {"02"}


def test_a_commit_in_the_hour_that_comes_twice_is_in_the_first():
    team = Team(time_zone="Europe/Berlin", work_hours=(2, 3), weekday_factors=[1] * 7)
    times = commits_table(team.replaced(dict(commits_per_day=50)), AUTUMN, 1)["timestamp"]
    that_day = times[times.dt.strftime("%Y-%m-%d") == "2026-10-25"]
    assert len(that_day) > 10
    assert set(that_day.dt.hour) == {0}  # summer time is two hours ahead


@pytest.mark.parametrize("zone", ZONES)
def test_local_weekdays_have_the_commits_that_their_factors_say(zone):
    factors = (1, 2, 0, 0.5, 3, 0, 1)
    team = Team(
        time_zone=zone,
        commits_per_day=100,
        dispersion=1,
        sprint_ramp=0,
        weekday_factors=factors,
        work_hours=(6, 23),
    )
    window = window_of("2026-02-04", "2026-11-18")  # whole weeks
    local = commits_table(team, window, 6)["timestamp"].dt.tz_convert(zone)
    counts = np.bincount(local.dt.day_of_week, minlength=7)
    for count, factor in zip(counts, factors):
        mean = 100 * factor * window.days / 7
        assert abs(count - mean) <= 4 * np.sqrt(mean) + 100 * factor  # a day may be cut


def deployments_of(commits, scenario, window=FORTNIGHT, seed=7):
    return simulate_deployments(commits, scenario, window, seed)[0]


BUSY = Scenario().with_team(commits_per_day=30)


@pytest.mark.parametrize(
    "knobs",
    [
        dict(open_hours="0-24"),
        dict(open_hours="Mon-Sun 0-24:00"),
        dict(open_hours="Mon-Thu 0-24 Fri-Sun 0-24"),
        dict(freezes=[["2026-01-01", "2026-10-18"], ["2026-11-02", "2026-11-30"]]),
        dict(batch_risk=0.0, release_every_hours=0, starts="stage"),
    ],
)
def test_knobs_that_never_shut_the_gate_change_nothing(knobs):
    commits = commits_table(BUSY.team, FORTNIGHT, 7)
    other = BUSY.with_team(time_zone="UTC")
    for name in other.names:
        other = other.with_environment(name, **knobs)
    assert commits_table(other.team, FORTNIGHT, 7).equals(commits)
    assert deployments_of(commits, other).equals(deployments_of(commits, BUSY))


@pytest.mark.parametrize("every", [0, 24, 168])
@pytest.mark.parametrize("zone", ["Etc/UTC", "Africa/Abidjan"])
def test_a_zone_that_keeps_utc_is_utc(zone, every):
    knobs = dict(open_hours="Mon-Fri 9-17", freezes=[["2026-10-23", "2026-10-26"]])
    scenario = BUSY.with_environment("production", **knobs, release_every_hours=every)
    commits = commits_table(BUSY.team, FORTNIGHT, 7)
    found = deployments_of(commits, scenario.with_team(time_zone=zone))
    assert found.equals(deployments_of(commits, scenario))
    assert not found.equals(deployments_of(commits, BUSY))


def test_office_hours_in_tokyo_are_nine_hours_earlier_in_utc():
    commits = commits_table(BUSY.team, FORTNIGHT, 7)
    tokyo = BUSY.with_team(time_zone="Asia/Tokyo")
    tokyo = tokyo.with_environment("production", open_hours="Mon-Fri 9-17")
    plain = BUSY.with_environment("production", open_hours="Mon-Fri 0-8")
    assert deployments_of(commits, tokyo).equals(deployments_of(commits, plain))


def test_the_traditional_preset_deploys_as_its_calendar_says():
    history, _ = simulated(gitops.PRESETS["traditional"], 8, QUARTER)
    assert {time for _, time, _ in walls(of(history, "dev"), "UTC")} == {"00:00"}
    shown = walls(of(history, "staging"), "UTC")
    assert all(is_open("Mon-Fri 9-17", (), *one) for one in shown)
    assert {one[:2] for one in walls(of(history, "production"), "UTC")} == {("Mon", "09:00")}
    check_history(history)


# ---- Laws ---------------------------------------------------------------------------------------

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


def pipelines(gate):
    """Return a strategy: scenarios whose environments have such gates, in some time zone."""
    return st.builds(
        lambda zone, stages: Scenario(
            team=Team(time_zone=zone, commits_per_day=5),
            environments=[
                Environment(f"stage {number}", **knobs) for number, knobs in enumerate(stages)
            ],
        ),
        st.sampled_from(list(ZONES)),
        st.lists(gate, min_size=1, max_size=3),
    )


def production_starts(commits, scenario, seed):
    """Return when the commits that reach production start there, in seconds."""
    rows = deployments_of(commits, scenario, FORTNIGHT, seed)
    rows = rows[rows["environment"] == scenario.names[-1]]
    return dict(zip(rows["commit_sha"], rows["timestamp"]))


def assert_no_later(before, after, seed):
    """Every commit that reaches production in one scenario does so no later in the other."""
    commits = commits_table(before.team, FORTNIGHT, seed)
    slow, fast = (production_starts(commits, scenario, seed) for scenario in (before, after))
    assert set(slow) <= set(fast)
    assert all(fast[sha] <= time for sha, time in slow.items())


@settings(max_examples=10)
@given(
    pipelines(gates),
    seeds,
    st.integers(0, 2),
    st.floats(0, 1),
    st.sampled_from([0, 0, 1, 24, 168]),
)
def test_a_shorter_wait_under_each_never_delays_a_commit(scenario, seed, place, factor, every):
    stage = scenario.environments[place % len(scenario.environments)]
    scenario = scenario.with_environment(stage.name, release_every_hours=every)
    shorter = [hours * factor for hours in stage.wait_hours]
    assert_no_later(scenario, scenario.with_environment(stage.name, wait_hours=shorter), seed)


EVER_LONGER = (
    "Wed 10-12",
    "Wed 10-11 Wed 8-16",
    "Mon-Wed 8-16",
    "Mon-Fri 8-17",
    "8-17",
    "6:30-20:15",
    "always",
)


@settings(max_examples=10)
@given(
    pipelines(gates),
    seeds,
    st.integers(0, 2),
    st.lists(st.sampled_from(EVER_LONGER), min_size=2, max_size=2, unique=True),
)
def test_a_longer_opening_under_each_never_delays_a_commit(scenario, seed, place, texts):
    shorter, longer = sorted(texts, key=EVER_LONGER.index)
    name = scenario.names[place % len(scenario.names)]
    before = scenario.with_environment(name, open_hours=shorter)
    assert_no_later(before, before.with_environment(name, open_hours=longer), seed)


@settings(max_examples=10)
@given(
    pipelines(gates),
    seeds,
    st.tuples(*[st.integers(0, 24 * 60)] * 4).map(sorted).filter(lambda edges: edges[1] < edges[2]),
    st.tuples(*[st.sampled_from(DAYS)] * 4).map(lambda days: sorted(days, key=DAYS.index)),
)
def test_an_opening_that_begins_earlier_and_ends_later_never_delays_a_commit(
    scenario, seed, edges, days
):
    def text(days, edges):
        begin, over = ("{}:{:02}".format(*divmod(edge, 60)) for edge in edges)
        return f"{days[0]}-{days[-1]} {begin}-{over}"

    name = scenario.names[-1]
    before = scenario.with_environment(name, open_hours=text(days[1:3], edges[1:3]))
    after = before.with_environment(name, open_hours=text(days, edges[::3]))
    assert_no_later(before, after, seed)


@settings(max_examples=10)
@given(pipelines(gates), seeds, st.integers(0, 2))
def test_a_freeze_less_under_each_never_delays_a_commit(scenario, seed, place):
    stage = scenario.environments[place % len(scenario.environments)]
    fewer = scenario.with_environment(stage.name, freezes=stage.freezes[1:])
    assert_no_later(scenario, fewer, seed)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    pipelines(gates),
    seeds,
    st.integers(0, 2),
    st.floats(0, 1),
    st.lists(st.sampled_from(EVER_LONGER), min_size=2, max_size=2),
)
def test_many_gates_that_open_longer_after_shorter_waits_never_delay_a_commit(
    scenario, seed, place, factor, texts
):
    stage = scenario.environments[place % len(scenario.environments)]
    shorter, longer = sorted(texts, key=EVER_LONGER.index)
    before = scenario.with_environment(stage.name, open_hours=shorter)
    knobs = dict(open_hours=longer, freezes=stage.freezes[1:])
    wait = [hours * factor for hours in stage.wait_hours]
    assert_no_later(before, before.with_environment(stage.name, wait_hours=wait, **knobs), seed)


# ---- Batches ------------------------------------------------------------------------------------


def plain_chances(stage, deployed, lineage):
    """Return of each deployment its chance: it carries what has come since the one before."""
    carried, chances = {}, []
    for is_deployed, number in zip(deployed, lineage):
        carried[number] = carried.get(number, 0) + 1
        if is_deployed:
            one_more = stage.batch_risk * (carried.pop(number) - 1)
            chances.append(stage.success_rate * stage.success_rate**one_more)
    return chances


def chances_of(deployed, lineage, success_rate=0.9, batch_risk=1.0):
    """Return (the module's chances of the deployments, those of the loop)."""
    stage = Environment("live", success_rate, batch_risk=batch_risk)
    which = np.array(deployed, bool)
    found = gitops.success_chance(stage, which, np.array(lineage, np.int64))
    return found[which].tolist(), plain_chances(stage, deployed, lineage)


def test_a_deployment_of_k_commits_is_good_if_each_of_them_is():
    found, _ = chances_of([0, 0, 1, 1, 0, 1], [0] * 6)
    assert found == pytest.approx([0.9**3, 0.9, 0.9**2])


def test_the_first_deployment_of_a_lineage_counts_from_its_beginning():
    found, _ = chances_of([1, 0, 0, 0, 1, 0, 1, 1], [0, 0, 0, 3, 3, 7, 7, 8])
    assert found == pytest.approx([0.9, 0.9**2, 0.9**2, 0.9])


def test_without_batch_risk_the_chance_is_the_success_rate():
    found, _ = chances_of([0, 0, 1, 1, 0, 1], [0] * 6, batch_risk=0)
    assert found == [0.9] * 3


def test_a_part_of_the_batch_risk_takes_a_part_of_the_exponent():
    found, _ = chances_of([0, 0, 1, 1], [0] * 4, batch_risk=0.25)
    assert found == pytest.approx([0.9**1.5, 0.9])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=30),
    st.sampled_from([0, 0.5, 0.9, 1]) | st.floats(0, 1),
    st.sampled_from([0, 0.5, 1]) | st.floats(0, 1),
)
def test_the_chances_of_any_deployments_are_those_of_the_loop(rows, rate, risk):
    lineage, deployed = zip(*sorted(rows, key=lambda row: row[0])) if rows else ((), ())
    found, expected = chances_of(deployed, lineage, rate, risk)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


RUNS = 20_000
THREE_DAYS = window_of("2026-03-02", "2026-03-05")


def batches(sizes, scenario, seed=1):
    """Commit in many runs `sizes[day]` times on each day; return the deployments, by run and time.

    The minutes of a day are the same in all runs.
    """
    first = THREE_DAYS.seconds[0]
    moments = [first + 86_400 * day + 60 * (1 + n) for day, k in enumerate(sizes) for n in range(k)]
    time = np.tile(moments, RUNS)
    run = np.repeat(np.arange(RUNS), len(moments))
    commits = Commits(run, time, np.zeros_like(run))
    found, _, _ = run_pipeline(commits, [(scenario, RUNS)], THREE_DAYS, Noise(seed))
    return found


def nightly(success_rate=0.9, **knobs):
    """Return an environment with a train at midnight, to which the newest commit goes."""
    return Environment(
        "live", success_rate, (0, 0), (0, 0), "newest", release_every_hours=24, **knobs
    )


@pytest.mark.parametrize(("k", "risk"), [(1, 1), (3, 1), (7, 1), (7, 0.5), (7, 0)])
def test_a_train_of_k_commits_fails_as_often_as_its_changes_say(k, risk):
    found = batches([k], Scenario(environments=[nightly(batch_risk=risk)]))
    assert len(found.time) == RUNS
    share = 1 - 0.9 ** (1 + risk * (k - 1))
    assert abs(found.bad.mean() - share) < spread(RUNS, share)


def test_a_train_carries_what_came_since_the_train_before_good_or_bad():
    found = batches([4, 2], Scenario(environments=[nightly(0.8, batch_risk=1)]))
    by_train = np.lexsort((found.time, found.group))
    first, second = found.bad[by_train].reshape(RUNS, 2).T
    for bad, k in ((first, 4), (second[first], 2), (second[~first], 2)):
        assert abs(bad.mean() - (1 - 0.8**k)) < spread(len(bad), 0.8**k)


def test_commits_that_failed_upstream_are_carried_too():
    dev = Environment("dev", 0.6, (0, 0), (0, 0), "each")
    scenario = Scenario(environments=[dev, nightly(batch_risk=1)])
    found = batches([5], scenario)
    live = found.environment == 1
    place = found.commit[live] % 5
    assert set(place) == set(range(5))
    shares = 1 - 0.9 ** (place + 1)
    error = np.sqrt(np.sum(shares * (1 - shares)))
    assert abs(found.bad[live].sum() - shares.sum()) < 4 * error


def test_the_failures_of_a_table_are_those_of_its_batches():
    scenario = Scenario(
        team=Team(commits_per_day=60, applications=dict(shop=3, cart=1)),
        environments=[
            Environment("dev", 0.9, (0, 0), (0, 0), "each"),
            dataclasses.replace(nightly(0.95, batch_risk=1), release_every_hours=3),
        ],
    )
    history, _ = simulated(scenario, 3, window_of("2024-01-01", "2026-01-01"))
    rows = of(history, "live")
    starts = dict(zip(rows["commit_sha"], rows["health"] == "Degraded"))
    commits = history.git_commits
    lineage, shas = list(commits["application"]), list(commits["sha"])
    deployed = [sha in starts for sha in shas]
    shares = 1 - np.array(plain_chances(scenario.environments[-1], deployed, lineage))
    assert len(shares) == len(rows) > 2000
    assert shares.max() > 3 * shares.min()
    error = np.sqrt(np.sum(shares * (1 - shares)))
    assert abs(sum(starts.values()) - shares.sum()) < 4 * error
    reasons = rows["failure_reason"].dropna().value_counts(normalize=True).to_dict()
    for reason, share in gitops.DEFAULT_REASONS.items():
        assert abs(reasons[reason] - share) < spread(sum(starts.values()), share)


# ---- Values that are none -----------------------------------------------------------------------


def message_of(build, **knobs):
    """Return the message of the GitOpsError that must come: one printable line, not endless."""
    with pytest.raises(GitOpsError) as caught:
        build(**knobs)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    return message


def changed(**knobs):
    return Scenario().with_environment("production", **knobs)


@pytest.mark.parametrize(
    "hours",
    ["Mon", "9-8", "9-9", "Mon-Fri 9-25", "Mon-Fri 9-24:30", "", " ", "Mon-Fri", "mon 9-17"]
    + ["9-17 ", "Mon - Fri 9-17", "Mon-Fri 9-17\n", "Mon,Tue 9-17", "always 9-17", "Mon 9:5-10"]
    + ["Monday 9-17", "Mon 9-", "Mon -9-10", "never", 5, None, [], ["Mon-Fri 9-17"]],
)
def test_hours_that_are_none_are_refused(hours):
    message = message_of(changed, open_hours=hours)
    assert message.startswith("production.open_hours must be always, or days with hours such as")
    assert message.endswith(f", not {hours!r}")


@pytest.mark.parametrize(
    "freezes",
    [[["2026-12-20"]], [["2026-12-20", "2026-12-19"]], [["x", "y"]], [["", ""]], [[]], [5]]
    + [["2026-12-20"], ["2026-12-20", "2026-12-21"], [["2026-02-30", "2026-03-01"]]]
    + [[["2026-12-20"] * 3], [[None, None]], [[20261220, 20261221]], [["20.12.2026"] * 2]]
    + [[["2026-12-20T00:00", "2026-12-21"]], [["2026-12-20 ", "2026-12-21"]]]
    + ["2026-12-20", "", 5, None, {"2026-12-20": "2026-12-21"}],
)
def test_freezes_that_are_no_pairs_of_dates_are_refused(freezes):
    message = message_of(changed, freezes=freezes)
    assert message.startswith("production.freezes must be ")
    assert '[["2026-12-20", "2027-01-04"]]' in message


@pytest.mark.parametrize(
    "zone",
    ["Mars", "", " ", "../x", "tzlocal()", "Europe", "Europe/Atlantis", "europe/berlin", "CEST"]
    + ["Europe/Berlin\n", "UTC+3", "/etc/localtime", "Europe/../Europe/Berlin", "A" * 1000]
    + ["dateutil/Europe/Berlin", 5, None, [], ["UTC"]],
)
def test_time_zones_that_are_none_are_refused(zone):
    message = message_of(Scenario().with_team, time_zone=zone)
    assert message.startswith("team.time_zone must be an IANA name such as Europe/Berlin, not ")


@pytest.mark.parametrize("risk", [-0.1, 1.1, "1", None, True, float("nan")])
def test_a_batch_risk_that_is_no_share_is_refused(risk):
    assert message_of(changed, batch_risk=risk).startswith("production.batch_risk must be a number")


@pytest.mark.parametrize("starts", ["", "dev", 1, None])
def test_a_start_that_is_none_is_refused(starts):
    assert "stage, commit" in message_of(changed, starts=starts)


# ---- JSON ---------------------------------------------------------------------------------------


def test_a_scenario_with_a_calendar_survives_json():
    for hours in OPENINGS:
        scenario = changed(
            open_hours=hours,
            freezes=[["2026-12-20", "2027-01-04"], ("2026-04-03", "2026-04-03")],
            release_every_hours=168,
            batch_risk=0.5,
            starts="commit",
        ).with_team(time_zone="America/Argentina/Buenos_Aires")
        again = Scenario.from_json(scenario.to_json())
        assert again == scenario
        assert again.to_json() == scenario.to_json()
        assert Scenario.from_json("{}", scenario) == scenario


@settings(max_examples=20)
@given(pipelines(gates))
def test_any_calendar_survives_json(scenario):
    assert Scenario.from_json(scenario.to_json()) == scenario


def test_the_dates_of_a_freeze_are_written_in_full():
    stage = changed(freezes=[["2026-1-5", "2026-01-06"]]).environments[-1]
    assert stage.freezes == (("2026-01-05", "2026-01-06"),)


# ---- Hours of the week with weights --------------------------------------------------------------

WEIGHTS = [0.0] * 168
for _day in range(5):
    WEIGHTS[24 * _day + 9 : 24 * _day + 17] = [1, 1, 1, 0.5, 1, 1, 1, 0.25]
WEIGHTS[5 * 24 + 23] = 2.0


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_a_wait_passes_in_open_hours_by_their_weight(zone):
    """Minute by minute: each open one takes its weight off the wait."""
    weights, rng = tuple(WEIGHTS), np.random.default_rng(1)
    gate, start = gate_of(weights, zone, SPRING), SPRING.seconds[0]
    for first in (start + rng.integers(0, 9 * 86400, 40) // 60 * 60).tolist():
        wait = int(rng.integers(1, 30 * 60))  # minutes
        local = pd.date_range(
            pd.Timestamp(first, unit="s", tz="UTC"), periods=20 * 1440, freq="min"
        )
        local = local.tz_convert(zone)
        passed = np.cumsum([weights[24 * time.dayofweek + time.hour] for time in local])
        found = int(gate.after(np.array([first]), np.array([60 * wait]))[0])
        assert gate.next(np.array([found])).tolist() == [found]  # it is open then
        assert passed[(found - first) // 60] == pytest.approx(wait, abs=2.1)


def test_open_seconds_and_moments_are_each_others_inverse():
    gate, rng = gate_of(tuple(WEIGHTS), "Europe/Berlin", AUTUMN), np.random.default_rng(2)
    times = AUTUMN.seconds[0] + rng.integers(0, 20 * 86400, 500)
    waits = rng.integers(0, 40 * 3600, 500)
    passed = gate.clock(gate.after(times, waits)) - gate.clock(times)
    assert np.abs(passed - waits).max() <= 1  # a whole second
    always = gate_of("always", "UTC", AUTUMN)
    assert (always.after(times, waits) == times + waits).all()


def test_weights_of_open_hours_are_a_knob_like_words():
    scenario = Scenario().with_environment(
        "production", open_hours=WEIGHTS, wait_runs="open", wait_hours=(2, 4)
    )
    assert Scenario.from_json(scenario.to_json()) == scenario
    opened = parse_change("production.open_hours=always", scenario)
    assert opened.environments[-1].open_hours == "always"
    history = simulated(scenario, 1)[0]
    rows = history.deployments[history.deployments["environment"] == "production"]
    hour = rows["timestamp"].dt.dayofweek * 24 + rows["timestamp"].dt.hour
    assert set(hour) <= {number for number, weight in enumerate(WEIGHTS) if weight}
    for wrong in ([1] * 167, [0] * 168, [-1] + [1] * 167, ["a"] * 168):
        with pytest.raises(GitOpsError, match="open_hours"):
            Scenario().with_environment("production", open_hours=wrong)
