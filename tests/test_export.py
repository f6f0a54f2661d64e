"""The exported files: what they hold, that they read back, and that they are whole or not there."""

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gitops_automation as module
from gitops_automation import (
    COLUMNS,
    Environment,
    GitOpsAutomation,
    GitOpsError,
    History,
    Scenario,
    calculate_dora_metrics,
    check_history,
)

FILES = {"commits.csv": "git_commits", "deployments.csv": "deployments", "rollbacks.csv": "rollbacks"}
NOTHING = Scenario().with_team(commits_per_day=0)


def simulated(folder, seed=7, days=30, scenario=None, end="2026-01-31"):
    gitops = GitOpsAutomation(scenario or Scenario(), seed=seed, end=end, output_dir=folder)
    gitops.simulate_git_activity(days)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    gitops.calculate_dora_metrics()
    return gitops


def read_back(folder, gitops, **options):
    if int(pd.__version__.split(".")[0]) < 3:  # before, pandas may read the last digit of a number wrong
        options = {"float_precision": "round_trip", **options}
    tables = [pd.read_csv(folder / name, **options) for name in FILES]
    return History.of(*tables, gitops.window, gitops.environments)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- What the files hold --------------------------------------------------------------------------


def test_an_export_is_four_files(tmp_path):
    paths = simulated(tmp_path).export()
    assert [path.name for path in paths] == [*FILES, "metrics.json"]
    assert all(path.parent == tmp_path for path in paths)
    assert sorted(contents(tmp_path)) == sorted([*FILES, "metrics.json"])


def test_the_columns_are_those_of_the_tables(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    for file, name in FILES.items():
        table = pd.read_csv(tmp_path / file)
        assert list(table.columns) == list(COLUMNS[name])
        assert len(table) == len(getattr(gitops, name))


def test_times_are_iso_8601_in_utc(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    for file, name in FILES.items():
        times = pd.read_csv(tmp_path / file)["timestamp"]
        assert times.str.match(r"2026-01-\d\dT\d\d:\d\d:\d\dZ$").all()
        assert (pd.to_datetime(times).to_numpy() == getattr(gitops, name)["timestamp"].to_numpy()).all()


def test_the_lines_end_the_same_way_everywhere_and_the_text_is_utf_8(tmp_path):
    scenario = Scenario().with_team(authors={'Zoë, "the" 🚀': 1}, applications={"größe": 1})
    simulated(tmp_path, scenario=scenario).export()
    for content in contents(tmp_path).values():
        assert b"\r" not in content
        assert content.endswith(b"\n")
        assert "größe" in content.decode("utf-8") or b"environments" in content
    assert set(pd.read_csv(tmp_path / "commits.csv")["author"]) == {'Zoë, "the" 🚀'}


def test_the_numbers_are_those_of_the_run(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    document = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert document == json.loads(json.dumps(gitops.document()))
    assert document["seed"] == 7
    assert document["window"] == {"start": "2026-01-01T00:00:00Z", "end": "2026-01-31T00:00:00Z", "days": 30}
    assert document["metrics"] == gitops.metrics
    assert document["commits"] == len(gitops.git_commits)


def test_what_is_undefined_is_null(tmp_path):
    simulated(tmp_path, scenario=NOTHING).export()
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text)["metrics"]["mean_lead_time"] is None


def test_the_command_line_exports_the_same_bytes_as_the_class_and_the_json_is_what_it_prints(tmp_path, capsys):
    arguments = ["--seed", "7", "--end", "2026-01-31", "--no-dashboard", "--export", "--output", str(tmp_path / "main")]
    module.main([*arguments, "--json"])
    assert capsys.readouterr().out.encode("utf-8") == (tmp_path / "main" / "metrics.json").read_bytes()
    simulated(tmp_path / "class").export()
    assert contents(tmp_path / "main") == contents(tmp_path / "class")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        simulated(tmp_path / name, seed).export()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    differing = [
        name
        for name, content in contents(tmp_path / "other").items()
        if content != (tmp_path / "one" / name).read_bytes()
    ]
    assert sorted(differing) == sorted([*FILES, "metrics.json"])


def test_an_export_into_a_folder_that_is_missing_makes_it(tmp_path):
    simulated(tmp_path / "a" / "b").export()
    assert len(contents(tmp_path / "a" / "b")) == 4


def test_an_export_needs_its_metrics_first(tmp_path):
    gitops = GitOpsAutomation(seed=7, output_dir=tmp_path / "out")
    with pytest.raises(GitOpsError, match="call"):
        gitops.export()
    assert not (tmp_path / "out").exists()


GOLDEN = {
    "commits.csv": "52f0618417c013f776290d9bbff732fd92ba6f8f96fd4cc3281c268a329af178",
    "deployments.csv": "a383695a3f47f868cad2ec8753ccecbceb8379655378ef678ce7660e1211a306",
    "rollbacks.csv": "36c2c7bc3ab2ec05de786292371bb087be6ab50e7e016c4866df5b138c8783d4",
    "metrics.json": "4079c3ee79efb210ee06e7ed6b8153e982d3a9a71f58960b0fd74604126537b6",
}


def test_every_version_of_python_and_its_packages_writes_these_bytes(tmp_path):
    """Seed 7, 30 days before 2026-01-31, default scenario. Whoever changes the model changes these."""
    simulated(tmp_path).export()
    assert {name: hashlib.sha256(content).hexdigest() for name, content in contents(tmp_path).items()} == GOLDEN


# ---- Read back ------------------------------------------------------------------------------------

SCENARIOS = {
    "default": Scenario(),
    "one environment": Scenario(environments=(Environment("live", 0.8),)),
    "every release promoted, most fail": Scenario(
        environments=tuple(Environment(name, 0.4, promotion="each") for name in ("a", "b", "c", "d"))
    ),
    "gated": Scenario().with_environment("production", approval_rate=0.3),
    "nothing fails": Scenario(environments=(Environment("dev", 1.0), Environment("live", 1.0))),
    "everything fails": Scenario(environments=(Environment("dev", 0.0), Environment("live", 0.0))),
    "no commits": NOTHING,
    "names with commas and quotes": Scenario(environments=(Environment('a, "b"', 0.9), Environment("c;d", 0.9))),
    "names that look like numbers": Scenario(environments=(Environment("1", 0.9), Environment("2", 0.9))).with_team(
        applications={"7": 1, "8": 1}
    ),
}


@pytest.mark.parametrize("what", SCENARIOS)
def test_an_export_read_back_has_the_same_metrics(tmp_path, what):
    for seed in range(3):
        gitops = simulated(tmp_path, seed, scenario=SCENARIOS[what])
        gitops.export()
        history = read_back(tmp_path, gitops)
        check_history(history)
        np.testing.assert_equal(calculate_dora_metrics(history), gitops.metrics)
        assert gitops.document()["simulated"] is True
        assert module.summary_document(history, gitops.metrics, seed, gitops.flow) == gitops.document()


def test_an_export_read_back_the_plain_way_has_the_same_metrics(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    for options in ({}, {"parse_dates": ["timestamp"]}):
        metrics = calculate_dora_metrics(read_back(tmp_path, gitops, float_precision=None, **options))
        assert metrics["mttr_minutes"] == pytest.approx(gitops.metrics["mttr_minutes"], rel=1e-12)
        assert {**metrics, "mttr_minutes": 0} == {**gitops.metrics, "mttr_minutes": 0}


def test_an_export_read_back_is_the_same_tables(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    history = read_back(tmp_path, gitops)
    for name in FILES.values():
        for column in COLUMNS[name]:
            one, two = (list(getattr(source, name)[column].dropna()) for source in (history, gitops))
            assert one == two, (name, column)


def test_an_export_of_what_was_read_back_is_the_same_bytes(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    history = read_back(tmp_path, gitops)
    assert module.export_files(history, gitops.document()) == contents(tmp_path)


# ---- Whole or not at all --------------------------------------------------------------------------


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


def failing(function, at, error):
    """The function, but its `at`-th call does half of the work, or none, and raises."""
    calls = []

    def call(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) != at:
            return function(*arguments, **keywords)
        if function is Path.write_bytes:
            function(arguments[0], arguments[1][: len(arguments[1]) // 2])
        raise error

    return call


FAILURES = [OSError(28, "No space left on device"), PermissionError(13, "Permission denied"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_write_that_fails_half_way_leaves_the_old_files_and_no_others(gitops, folder, monkeypatch, at, error):
    before = contents(folder)
    monkeypatch.setattr(Path, "write_bytes", failing(Path.write_bytes, at, error))
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else GitOpsError) as caught:
        gitops.export()
    assert contents(folder) == before
    if isinstance(caught.value, GitOpsError):
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_move_that_fails_half_way_leaves_the_old_files_and_no_others(gitops, folder, monkeypatch, at, error):
    before = contents(folder)
    monkeypatch.setattr(os, "replace", failing(os.replace, at, error))
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else GitOpsError):
        gitops.export()
    assert contents(folder) == before


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("what", ["write", "move"])
def test_a_first_export_that_fails_leaves_no_file(gitops, tmp_path, monkeypatch, what, at, error):
    target, name = (Path, "write_bytes") if what == "write" else (os, "replace")
    monkeypatch.setattr(target, name, failing(getattr(target, name), at, error))
    with pytest.raises((KeyboardInterrupt, GitOpsError)):
        gitops.export()
    assert not (tmp_path / "out").exists() or contents(tmp_path / "out") == {}


@pytest.mark.parametrize("name", [*FILES, "metrics.json"])
def test_a_folder_in_the_place_of_a_file_is_refused_and_the_others_stay(gitops, folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    before = {path.name: path.is_dir() or path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(GitOpsError, match="cannot write"):
        gitops.export()
    assert {path.name: path.is_dir() or path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(GitOpsError, match="cannot write") as caught:
        simulated(tmp_path / name).export()
    assert str(tmp_path / name) in str(caught.value)
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_folder_that_cannot_exist_is_refused(tmp_path, name):
    with pytest.raises(GitOpsError, match="cannot write"):
        simulated(tmp_path / name).export()
    assert contents(tmp_path) == {}


def test_a_picture_that_cannot_be_written_leaves_the_old_one(gitops, folder, monkeypatch):
    (folder / "gitops_dashboard.png").write_bytes(b"old picture")
    before = contents(folder)
    monkeypatch.setattr(Path, "write_bytes", failing(Path.write_bytes, 1, FAILURES[0]))
    with pytest.raises(GitOpsError, match="No space left"):
        gitops.visualize_metrics(dpi=10)
    assert contents(folder) == before


def test_a_new_export_replaces_the_old_files_and_leaves_the_others(gitops, folder):
    gitops.export()
    assert (folder / "mine.txt").read_bytes() == b"old mine.txt"
    assert len(contents(folder)) == 5
    assert not any(content.startswith(b"old") for name, content in contents(folder).items() if name != "mine.txt")


def test_a_file_that_is_being_read_stays_what_it_was(gitops, folder):
    """The new file takes the old one's name, and is not written into it."""
    with open(str(folder / "commits.csv"), "rb") as old:
        gitops.export()
        assert old.read() == b"old commits.csv"


def test_an_export_changes_no_table(gitops):
    before = [getattr(gitops, name).copy() for name in FILES.values()]
    gitops.export()
    for name, table in zip(FILES.values(), before):
        pd.testing.assert_frame_equal(getattr(gitops, name), table)


def test_the_text_of_a_table_needs_no_file(gitops):
    text = module.export_files(gitops.history, {})["commits.csv"]
    assert len(pd.read_csv(io.BytesIO(text))) == len(gitops.git_commits)
