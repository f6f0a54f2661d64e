"""Scenario, Team, Environment, RollbackPolicy: every knob, in one place."""

import dataclasses
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_model import WEEK, any_scenario, names, simulated

from gitops_automation import (
    FREQUENCY,
    Environment,
    GitOpsError,
    RollbackPolicy,
    Scenario,
    Team,
    measure,
    parse_change,
    read_scenario,
)

many_draws = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
WEIGHTS = [0] * 8 + [2, 1.5] + [0] * 158


def message_of(build, *arguments, **knobs):
    """Return the message of the GitOpsError that must come: one printable line, not endless."""
    with pytest.raises(GitOpsError) as caught:
        build(*arguments, **knobs)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


def changed(path, value):
    """Return the default scenario with another value of a knob, `group.knob`."""
    group, _, name = path.rpartition(".")
    return Scenario().with_knobs(group, **{name: value})


def value_of(scenario, path):
    """Return the value of a knob."""
    group, _, name = path.rpartition(".")
    return getattr(scenario.groups[group], name)


# ---- The documented defaults --------------------------------------------------------------------


def test_the_defaults_are_the_documented_ones():
    rows = [dataclasses.astuple(environment) for environment in Scenario().environments]
    later = ("always", (), 0, "stage", "always")
    assert rows == [
        ("dev", 0.90, (0, 0), (10, 60), "each", 1, 0, *later),
        ("staging", 0.93, (2, 6), (15, 90), "newest", 1, 0, *later),
        ("production", 0.95, (24, 72), (30, 120), "newest", 1, 0, *later),
    ]
    team, rollback = Scenario().team, Scenario().rollback
    assert team.authors == dict(alice=1, bob=1, charlie=1, diana=1)
    assert team.types == dict(feat=0.40, fix=0.30, chore=0.15, refactor=0.10, perf=0.05)
    assert team.applications == dict(frontend=0.40, backend=0.35, database=0.25)
    numbers = team.commits_per_day, team.dispersion, team.sprint_days, team.sprint_ramp
    assert (team.branch, *numbers) == ("main", 8, 2, 14, 0.3)
    assert (team.weekday_factors, team.work_hours) == ((1, 1, 1, 1, 1, 0.2, 0.2), (9, 18))
    assert (rollback.duration_min, rollback.success_rate) == ((5, 15), 0.95)


# ---- JSON ---------------------------------------------------------------------------------------

calendars = st.fixed_dictionaries(
    dict(
        open_hours=st.sampled_from(["always", "Mon-Thu 9-17 Fri 9-12:30", "22:15-24", WEIGHTS]),
        freezes=st.lists(st.sampled_from([("2026-12-20", "2027-01-04"), ("2026-04-03",) * 2])),
        batch_risk=st.floats(0, 1),
        starts=st.sampled_from(["stage", "commit"]),
        wait_runs=st.sampled_from(["always", "open"]),
    )
)


@settings(many_draws, max_examples=20)
@given(any_scenario, calendars)
def test_a_scenario_written_as_json_reads_back_equal(scenario, knobs):
    scenario = scenario.with_environment(scenario.names[0], **knobs)
    scenario = scenario.with_team(time_zone="America/Argentina/Buenos_Aires")
    text = scenario.to_json()
    assert text.isascii()
    assert Scenario.from_json(text) == scenario
    assert Scenario.from_json(text).to_json() == text
    assert Scenario.from_json("{}", scenario) == scenario
    assert list(json.loads(text)) == [knob.name for knob in dataclasses.fields(Scenario)]


def test_what_a_document_leaves_out_keeps_its_value():
    rate = Scenario.from_json('{"team": {"commits_per_day": 3}}')
    assert rate == Scenario().with_team(commits_per_day=3)
    assert Scenario.from_json('{"rollback": {"success_rate": 1}}', rate).team == rate.team
    dev, staging, production = Scenario().environments
    listed = [{"name": "dev"}, {"name": "staging", "approval_rate": 0.8}, {"name": "live"}]
    stages = Scenario.from_json(json.dumps({"environments": listed})).environments
    assert stages == (dev, dataclasses.replace(staging, approval_rate=0.8), Environment("live"))


def test_a_scenario_is_read_from_a_file_and_its_errors_name_the_file(tmp_path):
    path = tmp_path / "scenario.json"
    path.write_text('\ufeff{"environments": [{"name": "production"}]}', encoding="utf-8")
    assert read_scenario(path).environments == Scenario().environments[2:]
    path.write_text('{"team": {"sprint_days": 0}}', encoding="utf-8")
    assert "scenario.json: team.sprint_days must be" in message_of(read_scenario, path)
    missing = message_of(read_scenario, tmp_path / "none.json")
    assert "none.json" in missing and "--config" in missing and "elite" in missing


# ---- Copies -------------------------------------------------------------------------------------


@settings(many_draws, max_examples=8)
@given(any_scenario)
def test_with_changes_one_knob_of_a_copy(scenario):
    name, text = scenario.names[0], scenario.to_json()
    assert scenario.with_team().with_rollback().with_environment(name) == scenario
    assert scenario.with_team(sprint_days=5).team.sprint_days == 5
    assert scenario.with_rollback(success_rate=0.5).rollback.success_rate == 0.5
    other = scenario.with_environment(name, wait_hours=(0, 1))
    assert other.environments[0].wait_hours == (0, 1)
    assert other.environments[1:] == scenario.environments[1:]
    assert scenario.to_json() == text


# ---- One conversion for Python, JSON and --what-if ----------------------------------------------

TEXTS = {  # a knob and a text: what it means
    ("production.wait_hours", "4:12"): (4, 12),
    ("production.wait_hours", "4"): (4, 4),
    ("production.wait_hours", "1:5.5:30"): (1, 5.5, 30),
    ("production.success_rate", "0.5"): 0.5,
    ("production.promotion", "soak"): "soak",
    ("production.open_hours", "Mon-Fri 9-17"): "Mon-Fri 9-17",
    ("production.freezes", "2026-12-20:2027-01-04"): (("2026-12-20", "2027-01-04"),),
    ("production.freezes", "2026-1-5, 2026-04-03:2026-04-06"): (
        ("2026-01-05", "2026-01-05"),
        ("2026-04-03", "2026-04-06"),
    ),
    ("team.sprint_days", "7"): 7,
    ("team.time_zone", "Europe/Berlin"): "Europe/Berlin",
    ("team.weekday_factors", "1:1:1:1:1:0:0"): (1, 1, 1, 1, 1, 0, 0),
    ("rollback.duration_min", "1:2"): (1, 2),
}


@pytest.mark.parametrize(("knob", "text"), TEXTS)
def test_a_text_is_the_same_knob_in_a_change_in_json_and_in_python(knob, text):
    group, _, name = knob.rpartition(".")
    document = {group: {name: text}}
    if group == "production":
        document = {"environments": [{"name": "production", name: text}]}
    for scenario in (
        parse_change(f"{knob}={text}", Scenario()),
        Scenario.from_json(json.dumps(document)),
        changed(knob, text),
    ):
        assert value_of(scenario, knob) == TEXTS[knob, text]


@given(st.sampled_from(["production.wait_hours", "rollback.duration_min"]), st.floats(0, 10))
def test_a_star_multiplies_the_old_value(knob, factor):
    found = value_of(parse_change(f"{knob}=*{factor}", Scenario()), knob)
    assert found == tuple(factor * old for old in value_of(Scenario(), knob))
    found = parse_change("team.sprint_days=*0.5,staging.success_rate=*0.5", Scenario())
    assert found == changed("team.sprint_days", 7).with_environment("staging", success_rate=0.465)


WRONG = {  # a knob: values that are none, and what the message says
    "team.commits_per_day": ([-1, math.nan, math.inf, 1e7, "x", None, [], [1, 2], {}], "a number"),
    "team.sprint_days": ([0, 366, 1.5, "2.5", "9" * 400, None], "whole number from 1 to 365"),
    "dev.success_rate": ([-0.001, 1.001, "", "1:2", 1j, [[0.5]] * 2], "from 0 to 1"),
    "dev.wait_hours": ([(6, 2), (-1, 2), (0, math.nan), [], "2-6", None, {"a": 2}], "or [2, 6]"),
    "team.work_hours": ([(9, 25)], "from 0 to 24"),
    "rollback.duration_min": ([(0, 1e10), "5:x"], "such as 2:6"),
    "team.weekday_factors": ([(1,) * 6, (1,) * 8, (-1,) * 7, "1111111"], "seven numbers"),
    "team.authors": ([{}, {"a": 0}, {"a": -1}, {"a": "much"}, {"": 1}, {"a\nb": 1}, 1, None, ["a"]],
                     'such as {"shop": 2, "api": 1}'),
    "team.branch": (["", " ", " x", "x\n", "\x1b[31m", "a\u202eb", "x" * 254, None, 5, ["x"]],
                    "short printable name"),
    "team.time_zone": (["Mars", "", "../x", "Europe", "CEST", "/etc/localtime", 5, None, []],
                       "such as Europe/Berlin"),
    "dev.promotion": (["oldest", "", "Newest", None, ["each"]], "be one of each, newest, soak"),
    "dev.starts": (["", "dev", 1], "be one of stage, commit"),
    "dev.wait_runs": (["closed", None], "be one of always, open"),
    "dev.open_hours": (
        ["Mon", "9-8", "9-9", "Mon-Fri 9-25", "9-24:30", "", "mon 9-17", "9-17 ", "9-17\n"]
        + ["Mon 9:5-10", "Mon,Tue 9-17", "always 9-17", 5, None, [1] * 167, [0] * 168, [-1] * 168],
        "days with hours such as 'Mon-Fri 9-17'"),
    "dev.freezes": (
        [[["2026-12-20"]], [["2026-12-20", "2026-12-19"]], [["x", "y"]], [[]], [5], 5, None, ""]
        + [["2026-12-20", "2026-12-21"], [["2026-02-30", "2026-03-01"]], [["2026-01-01"] * 3]]
        + [[["2200-01-01"] * 2], [["2026-12-20T00:00", "2026-12-21"]], "2026-12-21:2026-12-20"],
        'such as 2026-12-20:2027-01-04 or [["2026-12-20", "2027-01-04"]]'),
}  # fmt: skip


@pytest.mark.parametrize("knob", WRONG)
def test_a_value_that_is_no_such_knob_is_refused_with_its_name_and_the_rule(knob):
    values, rule = WRONG[knob]
    for value in values:
        message = message_of(changed, knob, value)
        assert message.startswith(f"{knob} must ")
        assert rule in message
        if isinstance(value, str) and 0 < len(value) < 100:
            assert message.endswith(f"not {value!r}")


def test_a_scenario_has_one_to_fifty_environments_of_different_names():
    fifty = [Environment(f"e{i}") for i in range(50)]
    assert len(Scenario(environments=fifty).environments) == 50
    for wrong in ([], [*fifty, Environment("more")], [Environment("dev")] * 2, ["dev"], 5, None):
        assert "1 to 50 environments" in message_of(Scenario, environments=wrong)
    for taken in ("team", "rollback"):
        assert "other than team and rollback" in message_of(changed, "dev.name", taken)
    assert message_of(Scenario, team=5) == "team must be a Team, not 5"


# ---- Unknown names, and documents that are none -------------------------------------------------


def test_what_is_not_known_is_refused_with_what_is():
    message = message_of(Scenario().with_environment, "prod", success_rate=1)
    assert "'prod'" in message and "dev, staging, production" in message
    for group, known in (("team", Team), ("dev", Environment), ("rollback", RollbackPolicy)):
        message = message_of(changed, f"{group}.sucess_rate", 1)
        assert "'sucess_rate'" in message
        assert ", ".join(knob.name for knob in dataclasses.fields(known)) in message
    for change, nearest in {
        "prodution.wait_hours=1": "production.wait_hours",
        "production.waithours=4:12": "production.wait_hours",
        "staging.sucess_rate=1": "staging.success_rate",
    }.items():
        assert f"the nearest knobs are {nearest}" in message_of(parse_change, change, Scenario())
    for change in ("", "production", "=4", "production.name=x", "production.freezes"):
        message_of(parse_change, change, Scenario())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not JSON"),
        ("team: {}", "it looks like YAML; --config alone prints one that is"),
        ("[]", "the configuration must be a JSON object, not []"),
        ('{"teams": {}}', "unknown key 'teams' in the configuration; known keys: team, env"),
        ('{"team": null}', "team must be a JSON object, not None"),
        ('{"environments": null}', 'environments must be a list such as [{"name": "dev"}]'),
        ('{"environments": [{}]}', "environments must be a list"),
        ('{"environments": [{"name": ["dev"]}]}', "short printable name"),
    ],
)
def test_a_document_that_is_none_is_refused_with_the_remedy(text, expected):
    assert expected in message_of(Scenario.from_json, text)


NESTS = ["%s", '{"team": %s}', '{"team": {"branch": %s}}', '{"team": {"authors": {"eve": %s}}}']
NESTS += ['{"environments": [{"name": "dev", "wait_hours": %s}]}', '{"environments": [%s]}']
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
)


@settings(max_examples=40)
@given(anything)
def test_whatever_stands_in_the_place_of_a_knob_is_taken_or_refused_with_one_line(value):
    documents = [nest % json.dumps(value) for nest in NESTS]
    tries = [(Scenario.from_json, (document,)) for document in documents]
    tries += [(changed, (path, value)) for path in WRONG]
    for call, arguments in [*tries, (parse_change, (f"dev.wait_hours={value}", Scenario()))]:
        try:
            call(*arguments)
        except GitOpsError as error:
            assert str(error).isprintable()


# ---- Any pipeline runs --------------------------------------------------------------------------


@settings(many_draws, max_examples=8)
@given(st.lists(names, unique=True, min_size=1, max_size=50))
def test_the_last_environment_is_production_whatever_its_name(environments):
    stages = [Environment(name, 1, (0, 0), (0, 0), "each") for name in environments]
    history, _ = simulated(Scenario(environments=stages), 1, WEEK)
    measured = measure(history)
    assert measured.values["mean_lead_time"] == 0
    assert measured.production_rows[FREQUENCY].value * 7 == len(history.git_commits)
