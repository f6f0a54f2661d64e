"""The exported files: what they hold, that they read back, and that they are whole or not there."""

import hashlib
import json
import os
import shutil

import pandas as pd
import pytest
from plain_model import check_history, history_of, same

import gitops_automation as module
from gitops_automation import Environment, GitOpsAutomation, GitOpsError, Scenario

FILES = {
    "commits.csv": "git_commits",
    "deployments.csv": "deployments",
    "rollbacks.csv": "rollbacks",
}


def simulated(folder, seed=7, scenario=None):
    gitops = GitOpsAutomation(
        scenario or Scenario(), seed=seed, end="2026-01-31", output_dir=folder
    )
    gitops.simulate_git_activity(30)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    gitops.calculate_dora_metrics()
    return gitops


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- What the files hold ------------------------------------------------------------------------


def test_an_export_is_the_tables_as_csv_in_utf_8_and_the_numbers_as_json(tmp_path):
    """Columns, times in ISO 8601 and UTC, one kind of line end."""
    scenario = Scenario().with_team(authors={'Zoë, "the" 🚀': 1}, applications={"größe": 1})
    gitops = simulated(tmp_path / "a" / "b", scenario=scenario)
    paths = gitops.export()
    assert [path.name for path in paths] == [*FILES, "metrics.json"]
    assert sorted(paths) == sorted((tmp_path / "a" / "b").iterdir())
    assert not any(b"\r" in path.read_bytes() for path in paths)
    for path, name in zip(paths, FILES.values()):
        table, kept = pd.read_csv(path, encoding="utf-8"), getattr(gitops, name)
        assert list(table.columns) == list(module.COLUMNS[name])
        assert table["timestamp"].str.match(r"2026-01-\d\dT\d\d:\d\d:\d\dZ$").all()
        assert list(table["application"]) == ["größe"] * len(kept)
    document = json.loads(paths[-1].read_text(encoding="utf-8"))
    assert document == json.loads(json.dumps(gitops.document()))
    assert document["metrics"] == gitops.metrics


def test_what_is_undefined_is_null(tmp_path):
    simulated(tmp_path, scenario=Scenario().with_team(commits_per_day=0)).export()
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text)["metrics"]["mean_lead_time"] is None


def test_the_command_line_exports_and_prints_the_same_bytes_as_the_class(tmp_path, capsys):
    options = ["--seed", "7", "--end", "2026-01-31", "--no-dashboard", "--export", "--json"]
    module.main([*options, "--output", str(tmp_path / "main")])
    printed = capsys.readouterr().out.encode("utf-8")
    simulated(tmp_path / "class").export()
    assert contents(tmp_path / "main") == contents(tmp_path / "class")
    assert printed == (tmp_path / "main" / "metrics.json").read_bytes()


GOLDEN = {
    "commits.csv": "a55b2c153dd449ea9ff9a7be23c1232484bf9a2101627b4ee5dfb8c8695f6e8f",
    "deployments.csv": "186bbaf4657234cd671659b9687d3ccc25053f9473247689e45915a7fefbf969",
    "rollbacks.csv": "94a72f4250698a765f90bc57f91ee298120ff383a2c4021ce802900a9d76ca03",
}
"""Seed 7, 30 days before 2026-01-31, default scenario. Whoever changes the model changes these."""


def test_every_version_of_python_with_its_packages_writes_these_bytes(tmp_path):
    simulated(tmp_path).export()
    found = {name: hashlib.sha256(contents(tmp_path)[name]).hexdigest() for name in GOLDEN}
    assert found == GOLDEN


# ---- Read back ----------------------------------------------------------------------------------

FAILING = tuple(Environment(name, 0.4, promotion="each") for name in ("1", 'a, "b"', "c;d"))


@pytest.mark.parametrize("scenario", [Scenario(), Scenario(environments=FAILING)])
def test_tables_that_pandas_reads_back_make_the_same_history(tmp_path, scenario):
    gitops = simulated(tmp_path, scenario=scenario)
    gitops.export()
    exact = {} if pd.__version__ >= "3" else {"float_precision": "round_trip"}
    tables = [pd.read_csv(tmp_path / name, **exact) for name in FILES]
    history = history_of(*tables, gitops.window, gitops.environments)
    check_history(history)
    for name in module.COLUMNS:
        both = (getattr(one, name) for one in (history, gitops))
        pd.testing.assert_frame_equal(*both, check_categorical=False)
    assert same(module.measure(history).values, gitops.metrics)


# ---- Whole or not at all ------------------------------------------------------------------------


@pytest.fixture
def gitops(tmp_path):
    return simulated(tmp_path / "out")


@pytest.fixture
def folder(tmp_path):
    """An output folder with four files of an earlier run, and one of the user's."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in [*FILES, "metrics.json", "mine.txt"]:
        (folder / name).write_bytes(b"old " + name.encode())
    return folder


def whole(folder, before, new):
    """Whether each file in the folder is the old one or the new one, and there is no other."""
    found = contents(folder)
    return sorted(found) == sorted(before) and all(
        content in (before[name], new.get(name)) for name, content in found.items()
    )


def failing(at, error):
    """`os.replace`, but its `at`-th call raises."""
    calls, replace = [], os.replace

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise error
        return replace(*arguments)

    return call


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_move_that_fails_leaves_whole_files_alone(gitops, folder, monkeypatch, at, error):
    """tests/test_faults.py lets the writing fail."""
    before = contents(folder)
    simulated(folder / "other").export()
    new = contents(folder / "other")
    shutil.rmtree(folder / "other")
    monkeypatch.setattr(os, "replace", failing(at, error))
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else GitOpsError
    with pytest.raises(expected) as caught:
        gitops.export()
    assert whole(folder, before, new)
    changed = [name for name in new if contents(folder)[name] == new[name]]
    assert len(changed) == at - 1
    if expected is GitOpsError:
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
