"""GitOpsAutomation: the whole pipeline behind six methods."""

import datetime as dt
import doctest
import json
import random

import matplotlib
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from plain_model import END, check_history

import gitops_automation as gitops
from gitops_automation import (
    METRICS,
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
        assert len(result)
    assert capsys.readouterr().out
    check_history(run.history)
    assert run.measured.values is run.metrics
    assert set(run.metrics) == set(METRICS)


def test_the_window_is_the_days_before_the_end_or_today():
    run = take(pipeline(), until="git_commits", days=10)
    assert run.window == (END - pd.Timedelta(days=10), END)
    run.simulate_git_activity()
    assert run.window.days == 30
    before = pd.Timestamp(dt.datetime.now(dt.timezone.utc)).normalize()
    run = take(pipeline(end=None), until="git_commits", days=3)
    assert run.window.end in (before, before + pd.Timedelta(days=1))


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


def test_the_document_is_plain_json_of_the_run_and_has_the_trend_that_was_reported():
    run = take(pipeline())
    document = json.loads(json.dumps(run.document(), allow_nan=False))
    assert (document["seed"], document["window"]["days"]) == (7, 30)
    assert document["metrics"]["total_deployments"] == len(run.deployments)
    assert document["maturity"]["level"] in calculate_maturity(run.metrics)
    run.generate_report(details=True)
    assert {**document, "trend": run.document()["trend"]} == run.document()
    assert len(document) < len(run.document())
    assert "trend" not in take(run).document()


# ---- The order of the steps ---------------------------------------------------------------------


ORDER = [("git_commits", "simulate_git_activity(), load_git_history() or load_history()")]
ORDER += [(name, f"{method}()") for name, method in list(STEPS.items())[1:]]
NEEDS = {  # each method: the result that it needs
    "simulate_deployments": "git_commits",
    "simulate_rollbacks": "deployments",
    "calculate_dora_metrics": "rollbacks",
    **dict.fromkeys(("generate_report", "visualize_metrics", "export", "document"), "metrics"),
}


@pytest.mark.parametrize("method", NEEDS)
def test_a_step_out_of_order_names_the_method_to_call(method, tmp_path):
    run, names = pipeline(tmp_path / "output"), list(STEPS)
    for done in range(names.index(NEEDS[method]) + 1):
        missing = ORDER[done if method == "calculate_dora_metrics" else names.index(NEEDS[method])]
        with pytest.raises(GitOpsError) as caught:
            getattr(run, method)()
        assert str(caught.value) == f"no {missing[0]} yet: call {missing[1]} first"
        assert not (tmp_path / "output").exists()
        getattr(run, STEPS[names[done]])()
    getattr(run, method)()


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


# ---- Seeds --------------------------------------------------------------------------------------


def test_without_a_seed_one_is_chosen_and_shown_to_repeat_the_run(capsys):
    run = take(pipeline(seed=None))
    run.generate_report()
    assert str(run.seed) in capsys.readouterr().out
    same(run, take(pipeline(seed=run.seed)))
    other = take(pipeline(seed=np.int64(8)))
    assert set(other.git_commits["sha"]).isdisjoint(take(pipeline()).git_commits["sha"])
    assert type(other.seed) is int
    assert len({pipeline(seed=None).seed for _ in range(20)}) > 1


def test_an_argument_that_cannot_be_used_is_refused_at_once():
    for rule, wrong in {
        "seed must be a whole number from 0": [dict(seed=one) for one in (-1, 2**63, 7.0, "7")],
        "scenario must be a Scenario": [dict(scenario=one) for one in ("elite", {})],
        "on_rollback must be a function": [dict(on_rollback="print")],
        "output_dir must be a path": [dict(output_dir=5)],
    }.items():
        for knobs in wrong:
            with pytest.raises(GitOpsError, match=rule):
                GitOpsAutomation(**knobs)


# ---- The end of the window ----------------------------------------------------------------------

# fmt: off
EAST = dt.timezone(dt.timedelta(hours=2))
ENDS = [
    "2026-01-31", dt.date(2026, 1, 31), dt.datetime(2026, 1, 31), pd.Timestamp("2026-01-31"), END,
    dt.datetime(2026, 1, 31, 2, tzinfo=EAST),
]
NO_ENDS = [
    "", "2026-02-30", "2026-01-31T00:00", "\x1b[31m", "1970-01-01", "2200-01-02", pd.NaT, 20260131,
    dt.datetime(2026, 1, 31, 12), dt.datetime(2026, 1, 31, tzinfo=EAST), float("nan"), True,
]
# fmt: on


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_the_end_can_be_text_a_date_or_a_moment_at_midnight_utc(end):
    run = take(pipeline(end=end), until="git_commits", days=3)
    assert run.window.end == END
    assert_frame_equal(run.git_commits, take(pipeline(), until="git_commits", days=3).git_commits)


@pytest.mark.parametrize("end", NO_ENDS, ids=repr)
def test_an_end_that_is_no_day_is_refused_in_one_line(end):
    with pytest.raises(GitOpsError, match="end must be") as caught:
        pipeline(end=end)
    assert str(caught.value).isprintable()


# ---- Scenarios ----------------------------------------------------------------------------------


def test_applications_that_only_the_commits_have_are_listed_too():
    run = pipeline()
    commits = take(pipeline(), until="git_commits").git_commits
    run.git_commits = gitops.as_table(
        "git_commits",
        commits.assign(application=["docs" if i % 2 else "frontend" for i in range(len(commits))]),
    )
    assert run.applications == ["frontend", "backend", "database", "docs"]


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


def test_the_examples_in_the_docstrings_are_true():
    result = doctest.testmod(gitops)
    assert result.attempted >= 3
    assert result.failed == 0
