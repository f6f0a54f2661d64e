"""GitOpsAutomation: the whole pipeline behind six methods."""

import dataclasses
import datetime as dt
import doctest
import json
import random
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from pandas.testing import assert_frame_equal
from plain_model import END, check_history, empty_history

import gitops_automation as gitops
from gitops_automation import (
    METRICS,
    Environment,
    GitOpsAutomation,
    GitOpsError,
    Scenario,
    calculate_maturity,
    load_tables,
)

pytestmark = pytest.mark.filterwarnings("error")

TABLES = ("git_commits", "deployments", "rollbacks")
STEPS = {
    "git_commits": "simulate_git_activity",
    "deployments": "simulate_deployments",
    "rollbacks": "simulate_rollbacks",
    "metrics": "calculate_dora_metrics",
}


def pipeline(tmp_path="output", *, scenario=None, seed=7, end="2026-01-31", **knobs):
    """A pipeline that has not begun."""
    return GitOpsAutomation(
        scenario or Scenario(), seed=seed, end=end, output_dir=tmp_path, **knobs
    )


def take(run, *, until="metrics", days=30):
    """Take the steps up to the one that makes `until`."""
    for name, method in STEPS.items():
        getattr(run, method)(days) if name == "git_commits" else getattr(run, method)()
        if name == until:
            return run
    raise AssertionError(until)


def whole_run(tmp_path, **knobs):
    """All six methods, with a small picture."""
    run = take(pipeline(tmp_path, **knobs))
    run.generate_report()
    run.visualize_metrics(dpi=20)
    return run


def stages(count):
    """A scenario with that many environments."""
    return Scenario(
        environments=tuple(Environment(f"stage {i}", 0.9, (1, 2)) for i in range(count))
    )


def same(one, other):
    """Assert that two pipelines hold equal tables and equal metrics."""
    for name in TABLES:
        assert_frame_equal(getattr(one, name), getattr(other, name))
    assert repr(one.metrics) == repr(other.metrics)
    assert_frame_equal(one.flow, other.flow)


# ---- Step by step -------------------------------------------------------------------------------


def test_a_new_pipeline_has_nothing_but_its_knobs():
    run = pipeline()
    assert [getattr(run, name) for name in (*TABLES, "metrics", "window", "flow")] == [None] * 6
    assert run.environments == ["dev", "staging", "production"]
    assert run.applications == ["frontend", "backend", "database"]
    assert run.seed == 7
    assert run.scenario == Scenario()


def test_each_step_returns_the_attribute_that_it_makes(capsys):
    run = pipeline()
    for name, method in STEPS.items():
        assert getattr(run, name) is None
        result = getattr(run, method)()
        assert result is getattr(run, name)
        assert result is not None
    assert capsys.readouterr().out


def test_the_tables_are_valid():
    run = take(pipeline())
    assert all(len(getattr(run, name)) for name in TABLES)
    check_history(run.history)


def test_the_metrics_have_every_documented_key():
    assert set(take(pipeline()).metrics) == set(METRICS)


def test_what_was_measured_holds_the_metrics():
    run = take(pipeline())
    assert run.measured.values is run.metrics
    assert_frame_equal(run.measured.production, gitops.production_metrics(run.history))


def test_the_window_is_the_days_before_the_end():
    run = take(pipeline(), until="git_commits", days=10)
    assert run.window == (END - pd.Timedelta(days=10), END)
    assert run.git_commits["timestamp"].between(*run.window).all()


def test_the_window_has_thirty_days_unless_told_otherwise():
    run = pipeline()
    run.simulate_git_activity()
    assert run.window.days == 30


def test_without_an_end_the_window_ends_today():
    before = pd.Timestamp(dt.datetime.now(dt.timezone.utc)).normalize()
    run = take(pipeline(end=None), until="git_commits", days=3)
    assert run.window.end in (before, before + pd.Timedelta(days=1))


def test_the_report_is_printed_with_the_seed(capsys):
    run = take(pipeline(seed=4711))
    capsys.readouterr()
    assert run.generate_report() is None
    printed = capsys.readouterr().out
    assert "GITOPS WORKFLOW AUTOMATION REPORT" in printed
    assert "4711" in printed


def test_the_progress_lines_tell_the_counts(capsys):
    run = take(pipeline())
    printed = capsys.readouterr().out
    assert f"✓ Generated {len(run.git_commits)} commits" in printed
    assert f"✓ Simulated {len(run.deployments)} deployments" in printed
    assert f"✓ Executed {len(run.rollbacks)} rollbacks" in printed
    assert f"• Success rate: {run.rollbacks['success'].sum()}/{len(run.rollbacks)}" in printed
    for name in run.environments:
        mine = run.deployments[run.deployments["environment"] == name]
        share = 100 * (mine["health"] == "Healthy").mean()
        assert f"• {name}: {len(mine)} deployments, {share:.1f}% success" in printed


def test_the_picture_is_written_where_the_output_folder_says(tmp_path, capsys):
    run = take(pipeline(tmp_path / "new" / "folder"))
    path = run.visualize_metrics(dpi=20)
    assert path == tmp_path / "new" / "folder" / "gitops_dashboard.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "gitops_dashboard.png" in capsys.readouterr().out
    assert [child.name for child in path.parent.iterdir()] == ["gitops_dashboard.png"]


@pytest.mark.parametrize("dpi", [0, 9, -300, 1201, 300.0, "300", None], ids=repr)
def test_a_resolution_out_of_bounds_is_refused_before_the_folder_is_made(dpi, tmp_path):
    run = take(pipeline(tmp_path / "output"))
    with pytest.raises(GitOpsError, match="dpi"):
        run.visualize_metrics(dpi=dpi)
    assert not (tmp_path / "output").exists()


def test_the_document_is_plain_json_of_the_run():
    run = take(pipeline())
    document = json.loads(json.dumps(run.document(), allow_nan=False))
    assert document["seed"] == 7
    assert document["window"]["days"] == 30
    assert document["metrics"]["total_deployments"] == len(run.deployments)
    assert document["maturity"]["level"] in calculate_maturity(run.metrics)


# ---- The order of the steps ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("done", "method", "missing"),
    [
        (None, "simulate_deployments", "simulate_git_activity"),
        (None, "simulate_rollbacks", "simulate_deployments"),
        (None, "calculate_dora_metrics", "simulate_git_activity"),
        (None, "generate_report", "calculate_dora_metrics"),
        (None, "visualize_metrics", "calculate_dora_metrics"),
        (None, "export", "calculate_dora_metrics"),
        (None, "document", "calculate_dora_metrics"),
        ("git_commits", "simulate_rollbacks", "simulate_deployments"),
        ("git_commits", "calculate_dora_metrics", "simulate_deployments"),
        ("deployments", "calculate_dora_metrics", "simulate_rollbacks"),
        ("deployments", "visualize_metrics", "calculate_dora_metrics"),
        ("rollbacks", "generate_report", "calculate_dora_metrics"),
        ("rollbacks", "visualize_metrics", "calculate_dora_metrics"),
        ("rollbacks", "export", "calculate_dora_metrics"),
    ],
)
def test_a_step_out_of_order_names_the_method_to_call(done, method, missing, tmp_path):
    run = pipeline(tmp_path / "output")
    if done:
        take(run, until=done)
    with pytest.raises(GitOpsError, match=missing + r"\(\)") as caught:
        getattr(run, method)()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "output").exists()


def test_an_error_that_names_the_first_step_names_the_ways_to_take_it():
    ways = r"simulate_git_activity\(\), load_git_history\(\) or load_history\(\)"
    with pytest.raises(GitOpsError, match=ways):
        pipeline().simulate_deployments()


@pytest.mark.parametrize("again", list(STEPS))
def test_a_step_taken_again_drops_what_came_of_its_old_result(again):
    run = take(pipeline())
    names = list(STEPS)
    before = {name: getattr(run, name) for name in names}
    getattr(run, STEPS[again])()
    place = names.index(again)
    for name in names[:place]:
        assert getattr(run, name) is before[name]
    assert getattr(run, again) is not None
    assert getattr(run, again) is not before[again]
    for name in names[place + 1 :]:
        assert getattr(run, name) is None
    assert (run.flow is None) == (again == "git_commits")


def test_a_simulation_takes_the_place_of_real_deployments_that_were_read_before(tmp_path):
    columns = "timestamp,application,environment,commit_sha,status,health,duration_sec"
    row = "2026-01-05T10:00:00Z,shop,live,aaa,Synced,Healthy,60"
    text = f"{columns},failure_reason\n{row},\n"
    (tmp_path / "deployments.csv").write_text(text)
    gitops = GitOpsAutomation(seed=7, end="2026-01-31")
    with pytest.raises(GitOpsError, match="what a loader returns"):
        gitops.load_history(tmp_path)
    gitops.load_history(load_tables(tmp_path))
    assert (gitops.environments, gitops.applications) == (["production"], ["shop"])
    assert (gitops.window.days, gitops.history.source) == (26, "files")
    gitops.simulate_git_activity(days=3)
    assert gitops.environments == ["dev", "staging", "production"]
    assert (gitops.window.days, gitops.deployments) == (3, None)


def test_steps_taken_twice_give_what_they_gave_the_first_time():
    run = take(pipeline())
    same(take(run), take(pipeline()))


def test_another_number_of_days_is_another_history_throughout():
    run = take(take(pipeline()), days=10)
    assert run.window.days == 10
    same(run, take(pipeline(), days=10))


def test_a_first_step_that_fails_leaves_what_was_there():
    run, names = take(pipeline()), (*TABLES, "metrics", "window", "flow")
    before = [getattr(run, name) for name in names]
    with pytest.raises(GitOpsError, match="days"):
        run.simulate_git_activity(days=0)
    with pytest.raises(GitOpsError, match="cannot open /no/such/folder"):
        run.load_git_history("/no/such/folder")
    assert all(old is getattr(run, name) for old, name in zip(before, names))


# ---- Seeds --------------------------------------------------------------------------------------


def test_the_same_seed_twice_is_the_same_run(capsys):
    runs, printed = [], []
    for _ in range(2):
        runs.append(take(pipeline()))
        runs[-1].generate_report()
        printed.append(capsys.readouterr().out)
    same(*runs)
    assert printed[0] == printed[1]


def test_another_seed_is_another_run():
    one, other = (take(pipeline(seed=seed)) for seed in (7, 8))
    assert set(one.git_commits["sha"]).isdisjoint(other.git_commits["sha"])


def test_the_seed_that_was_chosen_is_shown_to_repeat_the_run(capsys):
    run = take(pipeline(seed=None))
    run.generate_report()
    assert isinstance(run.seed, int)
    assert str(run.seed) in capsys.readouterr().out
    same(run, take(pipeline(seed=run.seed)))


def test_without_a_seed_no_two_runs_are_alike():
    assert len({pipeline(seed=None).seed for _ in range(20)}) > 1


@pytest.mark.parametrize("seed", [0, 2**63 - 1, np.int64(7), np.uint8(7)], ids=repr)
def test_any_whole_number_can_be_the_seed(seed):
    run = take(pipeline(seed=seed), until="git_commits", days=3)
    assert type(run.seed) is int
    assert run.seed == seed


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, 7.0, "7", [7], float("nan")], ids=repr)
def test_a_seed_that_is_no_whole_number_in_bounds_is_refused_with_the_value(seed):
    with pytest.raises(GitOpsError, match="seed") as caught:
        pipeline(seed=seed)
    assert str(seed) in str(caught.value)


# ---- The end of the window ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        "2026-01-31",
        dt.date(2026, 1, 31),
        dt.datetime(2026, 1, 31),
        dt.datetime(2026, 1, 31, tzinfo=dt.timezone.utc),
        dt.datetime(2026, 1, 31, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        pd.Timestamp("2026-01-31"),
        END,
    ],
    ids=repr,
)
def test_the_end_can_be_text_a_date_or_a_moment_at_midnight_utc(end):
    run = take(pipeline(end=end), until="git_commits", days=3)
    assert run.window.end == END
    assert_frame_equal(run.git_commits, take(pipeline(), until="git_commits", days=3).git_commits)


@pytest.mark.parametrize(
    "end",
    [
        "",
        "today",
        "2026-02-30",
        "31.01.2026",
        "2026-01-31T00:00",
        "2026-01-31\n",
        " 2026-01-31",
        "\x1b[31m",
        "1970-01-01",
        "1969-12-31",
        "2200-01-02",
        "0001-01-01",
        "9999-12-31",
        dt.date(9999, 12, 31),
        dt.datetime(2026, 1, 31, 12),
        dt.datetime(2026, 1, 31, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        pd.NaT,
        float("nan"),
        20260131,
        86_400_000_000_000,
        True,
        ["2026-01-31"],
        b"2026-01-31",
    ],
    ids=repr,
)
def test_an_end_that_is_no_day_is_refused_in_one_line(end):
    with pytest.raises(GitOpsError, match="end must be") as caught:
        pipeline(end=end)
    assert str(caught.value).isprintable()


# ---- The other arguments -------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["traditional", None, {}, Scenario, Scenario().team], ids=repr)
def test_what_is_no_scenario_is_refused_at_once(scenario):
    with pytest.raises(GitOpsError, match="scenario must be a Scenario"):
        GitOpsAutomation(scenario=scenario)


@pytest.mark.parametrize("listener", ["print", 5, []], ids=repr)
def test_what_cannot_be_called_is_refused_at_once(listener):
    with pytest.raises(GitOpsError, match="on_rollback must be a function"):
        pipeline(on_rollback=listener)


@pytest.mark.parametrize("folder", [None, 5, ["output"], 2.5], ids=repr)
def test_what_is_no_folder_is_refused_at_once(folder):
    with pytest.raises(GitOpsError, match="output_dir"):
        pipeline(folder)


def test_without_a_failure_there_is_no_rollback(tmp_path):
    """tests/test_alerts.py has what is told of rollbacks."""
    flawless = Scenario()
    for name in flawless.names:
        flawless = flawless.with_environment(name, success_rate=1)
    run = take(pipeline(scenario=flawless))
    assert not len(run.rollbacks)
    assert np.isnan(run.metrics["mttr_minutes"])


# ---- Scenarios ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7])
def test_a_pipeline_has_as_many_environments_as_its_scenario(count, capsys):
    run = take(pipeline(scenario=stages(count)))
    run.generate_report()
    printed = capsys.readouterr().out
    assert run.environments == [f"stage {i}" for i in range(count)]
    assert run.history.production == f"stage {count - 1}"
    assert list(run.metrics["success_rates"]) == run.environments
    assert set(run.deployments["environment"]) <= set(run.environments)
    assert not re.search(r"\bnan\b", printed)
    for name in run.environments:
        assert f"• {name}: " in printed
    check_history(run.history)


def test_a_team_that_commits_nothing_has_a_report_too(capsys):
    run = take(pipeline(scenario=Scenario().with_team(commits_per_day=0)))
    run.generate_report()
    printed = capsys.readouterr().out
    assert [len(getattr(run, name)) for name in TABLES] == [0, 0, 0]
    assert "n/a" in printed
    assert not re.search(r"\bnan\b", printed)
    assert calculate_maturity(run.metrics) == "⚪ NOT ASSESSABLE"


def test_applications_that_only_the_commits_have_are_listed_too():
    run = pipeline()
    commits = take(pipeline(), until="git_commits").git_commits
    run.git_commits = gitops.as_table(
        "git_commits",
        commits.assign(application=["docs" if i % 2 else "frontend" for i in range(len(commits))]),
    )
    assert run.applications == ["frontend", "backend", "database", "docs"]


def test_a_scenario_is_not_changed_by_a_run():
    scenario = Scenario()
    before = dataclasses.asdict(scenario)
    take(pipeline(scenario=scenario)).generate_report()
    assert dataclasses.asdict(scenario) == before


# ---- What a run leaves alone --------------------------------------------------------------------


SETTINGS = {
    "font.size": 21,
    "axes.facecolor": "black",
    "text.color": "white",
    "axes.grid": False,
    "figure.dpi": 50,
    "axes.prop_cycle": matplotlib.cycler(color=["red"]),
    "axes.xmargin": 0.4,
    "path.simplify": False,
    "timezone": "Asia/Tokyo",
}


@pytest.mark.slow
def test_the_users_plot_settings_neither_matter_nor_change(tmp_path):
    run = whole_run(tmp_path)
    picture = (tmp_path / "gitops_dashboard.png").read_bytes()
    with matplotlib.rc_context(SETTINGS):
        before = dict(matplotlib.rcParams)
        run.visualize_metrics(dpi=20)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "gitops_dashboard.png").read_bytes() == picture


@pytest.mark.slow
def test_a_run_neither_draws_from_the_global_random_state_nor_seeds_it(tmp_path):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    first = whole_run(tmp_path)
    after = random.getstate(), np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert all(np.array_equal(old, new) for old, new in zip(before[1], after[1]))
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    same(first, take(pipeline()))


@pytest.mark.slow
def test_the_figures_that_the_user_has_open_stay_as_they_are(tmp_path):
    plt.close("all")
    mine = plt.figure()
    try:
        whole_run(tmp_path)
        assert plt.get_fignums() == [mine.number]
        assert plt.gcf() is mine
        assert not mine.axes
    finally:
        plt.close("all")


def test_an_empty_history_is_measured_without_a_warning():
    metrics = gitops.calculate_dora_metrics(empty_history())
    assert metrics["total_deployments"] == 0
    assert np.isnan(metrics["mean_lead_time"])


def test_the_examples_in_the_docstrings_are_true():
    result = doctest.testmod(gitops)
    assert result.attempted >= 4
    assert result.failed == 0
