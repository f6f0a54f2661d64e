"""Scenario, Team, Environment, RollbackPolicy: every knob, in one place."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_model import (
    WEEK,
    any_scenario,
    check_history,
    names,
    names_of,
    seeds,
    simulated,
    small_scenarios,
)

from gitops_automation import (
    PROMOTIONS,
    Environment,
    GitOpsError,
    RollbackPolicy,
    Scenario,
    Team,
    calculate_dora_metrics,
    read_scenario,
)

many_draws = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def message_of(build, *arguments, **knobs):
    """Return the message of the GitOpsError that must come: one printable line, not endless."""
    with pytest.raises(GitOpsError) as caught:
        build(*arguments, **knobs)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


# ---- The documented defaults --------------------------------------------------------------------


def test_the_default_environments_are_the_documented_table():
    rows = [dataclasses.astuple(environment) for environment in Scenario().environments]
    later = ("always", (), 0, "stage", "always")
    assert rows == [
        ("dev", 0.90, (0, 0), (10, 60), "each", 1, 0, *later),
        ("staging", 0.93, (2, 6), (15, 90), "newest", 1, 0, *later),
        ("production", 0.95, (24, 72), (30, 120), "newest", 1, 0, *later),
    ]


def test_the_other_defaults_are_the_documented_ones():
    team, rollback = Scenario().team, Scenario().rollback
    assert list(team.authors) == ["alice", "bob", "charlie", "diana"]
    assert len(set(team.authors.values())) == 1
    assert team.types == dict(feat=0.40, fix=0.30, chore=0.15, refactor=0.10, perf=0.05)
    assert team.applications == dict(frontend=0.40, backend=0.35, database=0.25)
    assert (team.branch, team.commits_per_day, team.dispersion, team.sprint_days) == (
        "main",
        8,
        2,
        14,
    )
    assert (team.weekday_factors, team.work_hours) == ((1, 1, 1, 1, 1, 0.2, 0.2), (9, 18))
    assert (rollback.duration_min, rollback.success_rate) == ((5, 15), 0.95)


# ---- JSON ---------------------------------------------------------------------------------------


@settings(many_draws, max_examples=20)
@given(any_scenario)
def test_a_scenario_written_as_json_reads_back_equal(scenario):
    text = scenario.to_json()
    assert Scenario.from_json(text) == scenario
    assert Scenario.from_json(text).to_json() == text


def test_the_json_has_every_knob_under_its_own_name():
    document = json.loads(Scenario().to_json())
    assert list(document) == [knob.name for knob in dataclasses.fields(Scenario)]
    assert list(document["team"]) == [knob.name for knob in dataclasses.fields(Team)]
    assert list(document["environments"][0]) == [
        knob.name for knob in dataclasses.fields(Environment)
    ]
    assert list(document["rollback"]) == [knob.name for knob in dataclasses.fields(RollbackPolicy)]


def test_what_a_document_leaves_out_keeps_its_default():
    assert Scenario.from_json("{}") == Scenario()
    assert Scenario.from_json('{"team": {"commits_per_day": 3}}') == Scenario().with_team(
        commits_per_day=3
    )


def environments_from(*environments):
    """Return the environments of a document that lists these."""
    return Scenario.from_json(json.dumps({"environments": environments})).environments


def test_an_environment_of_the_default_scenario_keeps_its_own_defaults():
    dev, staging, production = Scenario().environments
    stages = environments_from(
        {"name": "dev"}, {"name": "staging", "approval_rate": 0.8}, {"name": "production"}
    )
    assert stages == (dev, dataclasses.replace(staging, approval_rate=0.8), production)


def test_an_environment_that_is_left_out_is_removed():
    assert environments_from({"name": "production"}) == Scenario().environments[2:]
    assert environments_from({"name": "staging"}, {"name": "dev"}) == Scenario().environments[1::-1]


NEW = {"name": "live", "wait_hours": [1, 2], "success_rate": 0.9, "duration_sec": [3, 4]}


def test_a_new_environment_says_the_three_things_that_have_no_default():
    assert environments_from(NEW) == (Environment("live", 0.9, (1, 2), (3, 4)),)


@pytest.mark.parametrize(
    "missing",
    [
        ["success_rate"],
        ["wait_hours"],
        ["duration_sec"],
        ["wait_hours", "duration_sec"],
        ["wait_hours", "success_rate", "duration_sec"],
    ],
    ids=str,
)
def test_a_new_environment_is_refused_with_the_names_that_are_missing(missing):
    known = {key: value for key, value in NEW.items() if key not in missing}
    message = message_of(environments_from, {"name": "dev"}, known)
    assert "'live'" in message
    assert ", ".join(missing) in message
    assert not any(key in message for key in known if key != "name")


def test_a_scenario_is_read_from_a_file(tmp_path):
    path = tmp_path / "scenario.json"
    path.write_text('{"environments": [{"name": "production"}]}', encoding="utf-8")
    assert read_scenario(path).environments == Scenario().environments[2:]
    path.write_text('{"environments": [{"name": "live"}]}', encoding="utf-8")
    assert "scenario.json" in message_of(read_scenario, path)


def test_numbers_of_numpy_become_plain_json():
    scenario = Scenario().with_environment(
        "dev",
        success_rate=np.float64(0.5),
        wait_hours=np.array([1, 2]),
        duration_sec=[np.int64(3), np.float32(4)],
    )
    assert Scenario.from_json(scenario.to_json()) == scenario
    assert scenario.environments[0].wait_hours == (1, 2)


# ---- Copies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "part", "before", "after"),
    [
        (lambda s: s.with_team(commits_per_day=3), lambda s: s.team.commits_per_day, 8, 3),
        (
            lambda s: s.with_environment("staging", success_rate=1),
            lambda s: s.environments[1].success_rate,
            0.93,
            1,
        ),
        (
            lambda s: s.with_rollback(duration_min=(1, 2)),
            lambda s: s.rollback.duration_min,
            (5, 15),
            (1, 2),
        ),
    ],
)
def test_with_changes_one_knob_of_a_copy(change, part, before, after):
    scenario = Scenario()
    changed = change(scenario)
    assert part(changed) == after
    assert part(scenario) == before
    assert scenario == Scenario()
    assert changed != scenario


def test_with_environment_leaves_the_others_alone():
    changed = Scenario().with_environment("staging", wait_hours=(0, 1))
    assert names_of(changed) == ("dev", "staging", "production")
    assert changed.environments[::2] == Scenario().environments[::2]


@settings(many_draws, max_examples=8)
@given(any_scenario)
def test_with_nothing_to_change_is_an_equal_copy(scenario):
    assert scenario.with_team() == scenario
    assert scenario.with_rollback() == scenario
    assert scenario.with_environment(scenario.environments[0].name) == scenario


@pytest.mark.parametrize("knobs", [Scenario(), Team(), RollbackPolicy(), Environment("dev")])
def test_the_knobs_are_frozen(knobs):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(knobs, dataclasses.fields(knobs)[0].name, None)


def test_a_scenario_keeps_no_hold_of_what_it_was_made_from():
    authors, hours, environments = {"eve": 1}, [1, 2], [Environment("dev")]
    scenario = Scenario(Team(authors=authors, work_hours=hours), environments)
    authors["mallory"], hours[0], environments[0] = 9, 0, Environment("other")
    assert scenario == Scenario(Team(authors={"eve": 1}, work_hours=(1, 2)), (Environment("dev"),))


# ---- Bad knobs ----------------------------------------------------------------------------------

NUMBERS = ["team.commits_per_day", "team.dispersion", "team.sprint_ramp", "team.sprint_days"]
RATES = ["environment.success_rate", "environment.approval_rate", "rollback.success_rate"]
RANGES = [
    "team.work_hours",
    "environment.wait_hours",
    "environment.duration_sec",
    "rollback.duration_min",
]
WEIGHTS = ["team.authors", "team.types", "team.applications", "failure_reasons"]

BAD_NUMBERS = [
    -1,
    -0.001,
    math.nan,
    math.inf,
    -math.inf,
    1e7,
    True,
    False,
    "0.5",
    None,
    [],
    [0.5],
    {},
    1j,
]
BAD_RANGES = [
    (6, 2),
    (-1, 2),
    (math.nan, 1),
    (0, math.nan),
    (0, math.inf),
    (True, 2),
    ("1", "2"),
    (0, 1e10),
    (1, 3, 2),
]
BAD_NAMES = [
    "",
    " ",
    " dev",
    "de\nv",
    "de\x00v",
    "\x1b[31m",
    "a\u202eb",
    "a\u2028b",
    "x" * 254,
    None,
    5,
    True,
    ["dev"],
]


def build(knob, value):
    """Make a scenario with this one knob: `part.name`."""
    part, _, name = knob.rpartition(".")
    if part == "team":
        return Scenario().with_team(**{name: value})
    if part == "environment":
        return Environment(**{"name": "dev", name: value})
    if part == "rollback":
        return Scenario().with_rollback(**{name: value})
    return Scenario(**{name: value})


def message_for(knob, value):
    """Return the message for a bad value of a knob; it must name the knob."""
    message = message_of(build, knob, value)
    assert knob.replace("environment.", "dev.").replace("dev.name", "environment.name") in message
    return message


@pytest.mark.parametrize("knob", NUMBERS + RATES)
def test_a_knob_that_is_no_number_in_reach_is_refused_with_the_value(knob):
    for value in BAD_NUMBERS:
        message = message_for(knob, value)
        assert repr(value) in message
        assert " from " in message


@pytest.mark.parametrize("knob", RATES)
def test_a_rate_above_one_is_refused_with_the_reach(knob):
    assert "from 0 to 1, not 1.001" in message_for(knob, 1.001)


def test_each_knob_of_the_team_has_its_own_reach():
    assert "from 1 to 1000, not 0.99" in message_for("team.dispersion", 0.99)
    assert "whole number from 1 to 365, not 1.5" in message_for("team.sprint_days", 1.5)
    assert "from 1 to 365, not 0" in message_for("team.sprint_days", 0)


@pytest.mark.parametrize("knob", RANGES)
def test_a_range_that_is_reversed_or_out_of_reach_is_refused_with_the_value(knob):
    for value in BAD_RANGES:
        message = message_for(knob, value)
        assert any(repr(number) in message for number in value)


@pytest.mark.parametrize("knob", RANGES)
def test_a_range_that_is_no_list_is_refused_with_an_example(knob):
    for value in (5, None, "2-6", {"low": 2}, True, math.nan):
        message = message_for(knob, value)
        assert repr(value) in message
        assert "[2, 6]" in message


@pytest.mark.parametrize("knob", RANGES)
def test_a_range_of_fewer_than_two_numbers_is_refused_with_an_example(knob):
    assert "such as [2, 6], not []" in message_for(knob, [])
    assert "such as [2, 6], not [3]" in message_for(knob, [3])


def test_working_hours_end_at_midnight():
    assert "from 0 to 24, not 25" in message_for("team.work_hours", (9, 25))


@pytest.mark.parametrize("knob", WEIGHTS)
def test_a_weight_that_is_no_number_from_zero_is_refused_with_its_name(knob):
    for weight in (-1, math.nan, math.inf, True, "much", None, [1]):
        message = message_for(knob, {"fine": 2, "wrong": weight})
        assert "wrong" in message
        assert repr(weight) in message


@pytest.mark.parametrize("knob", WEIGHTS)
def test_weights_that_sum_to_zero_are_refused_with_the_weights(knob):
    for weights in ({}, {"a": 0}, {"a": 0, "b": 0.0}):
        message = message_for(knob, weights)
        assert "must sum to more than zero" in message
        assert repr(weights) in message


@pytest.mark.parametrize("knob", WEIGHTS)
def test_weights_that_are_not_by_name_are_refused_with_an_example(knob):
    for weights in (None, 1, "alice", ["alice", "bob"], True):
        message = message_for(knob, weights)
        assert repr(weights) in message
        assert '{"a": 1}' in message


@pytest.mark.parametrize("knob", WEIGHTS)
def test_a_weight_for_an_unprintable_name_is_refused(knob):
    for name in BAD_NAMES[:-1]:
        assert "short printable name" in message_for(knob, {"fine": 1, name: 1})


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_branch_that_is_long_or_unprintable_is_refused(name):
    assert "short printable name" in message_for("team.branch", name)


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_an_environment_name_that_is_long_or_unprintable_is_refused(name):
    assert "short printable name" in message_for("environment.name", name)


def test_a_name_may_be_as_long_as_kubernetes_allows():
    name = "x" * 253
    assert Scenario(environments=[Environment(name)]).names == [name]


@pytest.mark.parametrize("length", [254, 5000])
def test_the_message_for_a_name_too_long_shows_how_it_begins(length):
    assert "xxxxxxxxxx" in message_for("team.branch", "x" * length)


def test_seven_weekday_factors_are_needed():
    for count in (6, 8):
        message = message_for("team.weekday_factors", (1,) * count)
        assert "seven numbers, Monday first, not " in message
    assert "not -0.2" in message_for("team.weekday_factors", (1, 1, 1, 1, 1, -0.2, 0))
    assert "not nan" in message_for("team.weekday_factors", (1, 1, 1, 1, 1, 0, math.nan))
    assert "not '1111111'" in message_for("team.weekday_factors", "1111111")


@pytest.mark.parametrize("promotion", ["oldest", "", "Newest", None, 1, ["each"]], ids=repr)
def test_an_unknown_promotion_is_refused_with_the_known_ones(promotion):
    message = message_for("environment.promotion", promotion)
    assert repr(promotion) in message
    assert ", ".join(PROMOTIONS) in message


def test_a_scenario_has_one_to_fifty_environments_of_different_names():
    assert "1 to 50" in message_of(Scenario, environments=[])
    assert "['dev', 'qa', 'dev']" in message_of(
        Scenario, environments=[Environment(n) for n in ("dev", "qa", "dev")]
    )
    fifty = [Environment(f"e{i}") for i in range(50)]
    assert len(Scenario(environments=fifty).environments) == 50
    assert "1 to 50" in message_of(Scenario, environments=[*fifty, Environment("one more")])


@pytest.mark.parametrize("name", ["prod", "Dev", "", "a\nb", None, ["dev"]], ids=repr)
def test_an_unknown_environment_is_refused_with_the_known_ones(name):
    message = message_of(Scenario().with_environment, name, success_rate=1)
    assert repr(name) in message
    assert "dev, staging, production" in message


@pytest.mark.parametrize("part", ["team", "environment", "rollback"])
def test_an_unknown_knob_is_refused_with_the_known_ones(part):
    scenario = Scenario()
    change = {
        "team": scenario.with_team,
        "environment": lambda **knobs: scenario.with_environment("dev", **knobs),
        "rollback": scenario.with_rollback,
    }[part]
    known = {"team": Team, "environment": Environment, "rollback": RollbackPolicy}[part]
    message = message_of(change, sucess_rate=1)
    assert "'sucess_rate'" in message
    assert ", ".join(knob.name for knob in dataclasses.fields(known)) in message


# ---- Bad documents ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "known"),
    [
        ('{"teams": {}}', "teams", Scenario),
        ('{"team": {"commits": 3}}', "commits", Team),
        ('{"environments": [{"name": "dev", "wait": [1, 2]}]}', "wait", Environment),
        ('{"rollback": {"minutes": [1, 2]}}', "minutes", RollbackPolicy),
    ],
)
def test_an_unknown_key_of_a_document_is_refused_with_the_known_ones(text, key, known):
    message = message_of(Scenario.from_json, text)
    assert repr(key) in message
    assert ", ".join(knob.name for knob in dataclasses.fields(known)) in message


@pytest.mark.parametrize(
    "text", ["", "{", "{'team': {}}", '{"team": }', "team: {}", "\x00", '{"team": {}} {}']
)
def test_broken_json_is_refused_with_the_remedy(text):
    message = message_of(Scenario.from_json, text)
    assert "not JSON" in message
    assert "--print-config" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", "not None"),
        ("[]", "not []"),
        ("3", "not 3"),
        ('{"team": null}', "team must be a JSON object, not None"),
        ('{"rollback": [5, 15]}', "rollback must be a JSON object, not [5, 15]"),
        ('{"environments": null}', "environments must be a list"),
        ('{"environments": {"name": "dev"}}', "environments must be a list"),
        ('{"environments": ["dev"]}', "an environment must be a JSON object, not 'dev'"),
        ('{"environments": [{}]}', 'an environment has no name: {}; add "name"'),
        ('{"environments": [{"name": "dev", "success_rate": NaN}]}', "from 0 to 1, not nan"),
        ('{"environments": [{"name": "dev", "success_rate": 1e999}]}', "from 0 to 1, not inf"),
        ('{"environments": [{"name": "dev", "success_rate": true}]}', "from 0 to 1, not True"),
        ('{"team": {"sprint_days": 14.0}}', "whole number from 1 to 365, not 14.0"),
        ('{"failure_reasons": {"": 1}}', "short printable name, not ''"),
    ],
)
def test_a_document_with_the_wrong_kind_of_value_is_refused(text, expected):
    assert expected in message_of(Scenario.from_json, text)


@pytest.mark.parametrize("digits", [30, 400, 5000])
@pytest.mark.parametrize(
    "text",
    [
        '{"environments": [{"name": "dev", "success_rate": %s}]}',
        '{"environments": [{"name": "dev", "wait_hours": [1, %s]}]}',
        '{"team": {"commits_per_day": %s}}',
        '{"team": {"sprint_days": %s}}',
        '{"failure_reasons": {"OOMKilled": %s}}',
    ],
)
def test_a_whole_number_of_any_length_is_refused(text, digits):
    message_of(Scenario.from_json, text % ("9" * digits))


NESTS = {
    "the document": "%s",
    "the team": '{"team": %s}',
    "a name": '{"team": {"branch": %s}}',
    "weights": '{"team": {"authors": %s}}',
    "a weight": '{"team": {"authors": {"eve": %s}}}',
    "a range": '{"environments": [{"name": "dev", "wait_hours": %s}]}',
    "an environment": '{"environments": [%s]}',
}


def nested(nest, depth):
    brackets = nest % ("[" * depth + "]" * depth)
    return brackets, nest % ('{"a":' * depth + "1" + "}" * depth)


def deepest_that_parses(nest):
    """Return how deep a document may nest before the JSON parser itself gives up (or 100,000)."""
    low, high = 1, 100_000
    while low < high:
        middle = (low + high + 1) // 2
        try:
            json.loads(nested(nest, middle)[0])
            low = middle
        except RecursionError:
            high = middle - 1
    return low


def assert_is_refused(nest, depth):
    for text in nested(nest, depth):
        message_of(Scenario.from_json, text)


@pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS)
def test_a_document_nested_ever_so_deep_is_refused(nest):
    for depth in (2, 10, 100, 500, 200_000):
        assert_is_refused(nest, depth)


@pytest.mark.slow
@pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS)
def test_a_document_nested_nearly_too_deep_for_the_parser_is_refused(nest):
    edge = deepest_that_parses(nest)
    for depth in range(max(edge - 12, 2), edge + 2):
        assert_is_refused(nest, depth)


@settings(max_examples=25)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3),
    )
)
def test_whatever_stands_in_the_place_of_a_knob_is_taken_or_refused_with_one_line(value):
    for nest in NESTS.values():
        try:
            Scenario.from_json(nest % json.dumps(value))
        except GitOpsError as error:
            assert str(error).isprintable()


# ---- Any pipeline runs --------------------------------------------------------------------------


@pytest.mark.slow
@settings(many_draws, max_examples=15)
@given(small_scenarios(), seeds)
def test_any_number_of_environments_with_any_names_runs(scenario, seed):
    history, flow = simulated(scenario, seed, WEEK)
    check_history(history)
    metrics = calculate_dora_metrics(history)
    assert list(flow.index) == list(names_of(scenario)) == list(metrics["success_rates"])
    assert history.production == names_of(scenario)[-1]


@settings(many_draws, max_examples=8)
@given(st.lists(names, unique=True, min_size=1, max_size=50))
def test_the_last_environment_is_production_whatever_its_name(environments):
    stages = [
        Environment(name, success_rate=1, duration_sec=(0, 0), promotion="each")
        for name in environments
    ]
    history, _ = simulated(Scenario(environments=stages), 1, WEEK)
    metrics = calculate_dora_metrics(history)
    assert metrics["mean_lead_time"] == 0
    assert metrics["production_deployment_frequency"] * 7 == len(history.git_commits)
