"""The exported files: what they hold, that they read back, and that they are whole or not there."""

import csv
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plain_model import check_history

import gitops_automation as module
from gitops_automation import (
    COLUMNS,
    Environment,
    GitOpsAutomation,
    GitOpsError,
    History,
    Scenario,
    calculate_dora_metrics,
    measure,
)

FILES = {
    "commits.csv": "git_commits",
    "deployments.csv": "deployments",
    "rollbacks.csv": "rollbacks",
}
NOTHING = Scenario().with_team(commits_per_day=0)


def simulated(folder, seed=7, days=30, scenario=None, end="2026-01-31"):
    gitops = GitOpsAutomation(scenario or Scenario(), seed=seed, end=end, output_dir=folder)
    gitops.simulate_git_activity(days)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    gitops.calculate_dora_metrics()
    return gitops


def read_back(folder, gitops, **options):
    if (
        int(pd.__version__.split(".")[0]) < 3
    ):  # before, pandas may read the last digit of a number wrong
        options = {"float_precision": "round_trip", **options}
    tables = [pd.read_csv(folder / name, **options) for name in FILES]
    return History.of(*tables, gitops.window, gitops.environments)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- What the files hold ------------------------------------------------------------------------


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
        assert (
            pd.to_datetime(times).to_numpy() == getattr(gitops, name)["timestamp"].to_numpy()
        ).all()


def test_the_files_are_utf_8_with_the_same_line_ends_everywhere(tmp_path):
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
    assert document["window"] == {
        "start": "2026-01-01T00:00:00Z",
        "end": "2026-01-31T00:00:00Z",
        "days": 30,
    }
    assert document["metrics"] == gitops.metrics
    assert document["commits"] == len(gitops.git_commits)


def test_what_is_undefined_is_null(tmp_path):
    simulated(tmp_path, scenario=NOTHING).export()
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text)["metrics"]["mean_lead_time"] is None


def test_the_command_line_exports_the_same_bytes_as_the_class(tmp_path, capsys):
    options = ["--seed", "7", "--end", "2026-01-31", "--no-dashboard", "--export", "--quiet"]
    module.main([*options, "--output", str(tmp_path / "main")])
    simulated(tmp_path / "class").export()
    assert contents(tmp_path / "main") == contents(tmp_path / "class")


def test_the_printed_json_is_the_exported_one(tmp_path, capsys):
    options = ["--seed", "7", "--end", "2026-01-31", "--no-dashboard", "--export", "--json"]
    module.main([*options, "--output", str(tmp_path)])
    assert capsys.readouterr().out.encode("utf-8") == (tmp_path / "metrics.json").read_bytes()


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        simulated(tmp_path / name).export()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_gives_other_bytes_in_every_file(tmp_path):
    for name, seed in (("one", 7), ("other", 8)):
        simulated(tmp_path / name, seed).export()
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    assert [name for name in one if one[name] == other[name]] == []


def test_an_export_into_a_folder_that_is_missing_makes_it(tmp_path):
    simulated(tmp_path / "a" / "b").export()
    assert len(contents(tmp_path / "a" / "b")) == 4


def test_an_export_needs_its_metrics_first(tmp_path):
    gitops = GitOpsAutomation(seed=7, output_dir=tmp_path / "out")
    with pytest.raises(GitOpsError, match="call"):
        gitops.export()
    assert not (tmp_path / "out").exists()


GOLDEN = {
    "commits.csv": "a55b2c153dd449ea9ff9a7be23c1232484bf9a2101627b4ee5dfb8c8695f6e8f",
    "deployments.csv": "186bbaf4657234cd671659b9687d3ccc25053f9473247689e45915a7fefbf969",
    "rollbacks.csv": "94a72f4250698a765f90bc57f91ee298120ff383a2c4021ce802900a9d76ca03",
}
"""Seed 7, 30 days before 2026-01-31, default scenario. Whoever changes the model changes these."""

AS_IN_VERSION_1 = {
    "commits.csv": "702987747f59fbc3a8ca28b193dcfc1c77fef2d4757a210e6fcd20354d436f1e",
    "deployments.csv": "86df4ab9fbf832449cee67bc4d8b14cde582c2496c46d541b1d08979192d0c5b",
}
"""The same tables without their SHAs. Version 1 wrote these bytes too."""


def test_every_version_of_python_with_its_packages_writes_these_bytes(tmp_path):
    simulated(tmp_path).export()
    found = {name: hashlib.sha256(contents(tmp_path)[name]).hexdigest() for name in GOLDEN}
    assert found == GOLDEN


@pytest.mark.parametrize("name", AS_IN_VERSION_1)
def test_a_seed_gives_what_it_gave_in_version_1_apart_from_the_shas(tmp_path, name):
    simulated(tmp_path).export()
    text = contents(tmp_path)[name].decode("utf-8")
    kept = [
        ",".join(
            value
            for column, value in row.items()
            if column not in ("sha", "commit_sha", "recovered")
        )
        for row in csv.DictReader(io.StringIO(text))
    ]
    lines = "".join(f"{line}\n" for line in kept)
    assert hashlib.sha256(lines.encode("utf-8")).hexdigest() == AS_IN_VERSION_1[name]


# ---- Read back ----------------------------------------------------------------------------------

SCENARIOS = {
    "default": Scenario(),
    "one environment": Scenario(environments=(Environment("live", 0.8),)),
    "every release promoted, most fail": Scenario(
        environments=tuple(
            Environment(name, 0.4, promotion="each") for name in ("a", "b", "c", "d")
        )
    ),
    "gated": Scenario().with_environment("production", approval_rate=0.3),
    "nothing fails": Scenario(environments=(Environment("dev", 1.0), Environment("live", 1.0))),
    "everything fails": Scenario(environments=(Environment("dev", 0.0), Environment("live", 0.0))),
    "no commits": NOTHING,
    "names with commas and quotes": Scenario(
        environments=(Environment('a, "b"', 0.9), Environment("c;d", 0.9))
    ),
    "names that look like numbers": Scenario(
        environments=(Environment("1", 0.9), Environment("2", 0.9))
    ).with_team(applications={"7": 1, "8": 1}),
}


@pytest.mark.parametrize("what", SCENARIOS)
def test_an_export_read_back_has_the_same_metrics(tmp_path, what):
    gitops = simulated(tmp_path, 1, scenario=SCENARIOS[what])
    gitops.export()
    history = read_back(tmp_path, gitops)
    check_history(history)
    metrics = measure(history)
    np.testing.assert_equal(metrics.values, gitops.metrics)
    document = module.summary_document(metrics, 1, gitops.flow, gitops.scenario)
    assert {**document, "commits_are_real": False} == gitops.document()
    assert document["simulated"] is True


def test_an_export_read_back_the_plain_way_has_the_same_metrics(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    for options in ({}, {"parse_dates": ["timestamp"]}):
        metrics = calculate_dora_metrics(
            read_back(tmp_path, gitops, float_precision=None, **options)
        )
        assert metrics["mttr_minutes"] == pytest.approx(gitops.metrics["mttr_minutes"], rel=1e-12)
        assert {**metrics, "mttr_minutes": 0} == {**gitops.metrics, "mttr_minutes": 0}


def test_tables_with_an_environment_that_is_not_listed_are_refused(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    tables = [pd.read_csv(tmp_path / name) for name in FILES]
    with pytest.raises(
        GitOpsError, match=r"be among dev, live, not \['dev', 'staging', 'production'"
    ):
        History.of(*tables, gitops.window, ["dev", "live"])


def test_a_failure_without_a_reason_is_counted(tmp_path):
    gitops = simulated(tmp_path)
    tables = gitops.git_commits, gitops.deployments.assign(failure_reason=None), gitops.rollbacks
    metrics = calculate_dora_metrics(History.of(*tables, gitops.window, gitops.environments))
    assert metrics["failed_deployments"] == gitops.metrics["failed_deployments"]
    assert metrics["failure_reasons"] == {}


def test_an_export_read_back_is_the_same_tables(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    history = read_back(tmp_path, gitops)
    for name in FILES.values():
        for column in COLUMNS[name]:
            one, two = (
                list(getattr(source, name)[column].dropna()) for source in (history, gitops)
            )
            assert one == two, (name, column)


def test_an_export_of_what_was_read_back_is_the_same_bytes(tmp_path):
    gitops = simulated(tmp_path)
    gitops.export()
    history = read_back(tmp_path, gitops)
    assert module.export_files(measure(history), gitops.document()) == contents(tmp_path)


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


FAILURES = [
    OSError(28, "No space left on device"),
    PermissionError(13, "Permission denied"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_move_that_fails_leaves_whole_files_alone(gitops, folder, monkeypatch, at, error):
    """tests/test_faults.py lets the writing fail."""
    before, new = contents(folder), module.export_files(gitops.measured, gitops.document())
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


def test_a_first_export_that_fails_leaves_no_file(gitops, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", failing(1, FAILURES[0]))
    with pytest.raises(GitOpsError, match="No space left"):
        gitops.export()
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize("name", [*FILES, "metrics.json"])
def test_a_folder_in_the_place_of_a_file_is_refused(gitops, folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(GitOpsError, match="cannot write"):
        gitops.export()
    assert (folder / name).is_dir()
    assert len(list(folder.iterdir())) == 5


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


def test_a_new_export_replaces_its_own_files_alone(gitops, folder):
    gitops.export()
    assert (folder / "mine.txt").read_bytes() == b"old mine.txt"
    assert len(contents(folder)) == 5
    assert not any(
        content.startswith(b"old")
        for name, content in contents(folder).items()
        if name != "mine.txt"
    )


def test_a_file_that_is_being_read_stays_what_it_was(gitops, folder):
    """The new file takes the old one's name, and is not written into it."""
    with open(str(folder / "commits.csv"), "rb") as old:
        gitops.export()
        assert old.read() == b"old commits.csv"


def test_a_link_at_the_name_of_a_file_is_replaced_by_the_file(gitops, folder, tmp_path):
    """Whoever can make links in the folder must not have us write elsewhere."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in [*FILES, "metrics.json"]:
        (folder / name).unlink()
        (folder / name).symlink_to(victim)
    gitops.export()
    assert victim.read_bytes() == b"precious"
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert len(pd.read_csv(folder / "commits.csv")) == len(gitops.git_commits)


def test_a_link_at_a_temporary_name_is_not_followed(gitops, folder, tmp_path, monkeypatch):
    """Even if the name were guessed: `tempfile` draws the first names that are planted here."""
    victim, names = tmp_path / "victim", []
    victim.write_bytes(b"precious")

    def drawn():
        for number in range(100):
            for file in [*FILES, "metrics.json"]:
                link = folder / f".{file}.guess{number}"
                if number % 2 == 0 and not link.is_symlink():
                    link.symlink_to(victim)
                    names.append(link)
            yield f"guess{number}"

    generator = drawn()
    monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: generator)
    gitops.export()
    assert names
    assert all(link.is_symlink() for link in names)
    assert victim.read_bytes() == b"precious"
    assert len(pd.read_csv(folder / "commits.csv")) == len(gitops.git_commits)


def test_the_temporary_names_are_other_ones_each_time(gitops, monkeypatch):
    names, replace = [], os.replace

    def call(old, new):
        names.append(str(old))
        replace(old, new)

    monkeypatch.setattr(os, "replace", call)
    for _ in range(3):
        gitops.export()
    assert len(set(names)) == len(names) == 12


def test_the_files_have_the_permissions_that_other_new_files_have(gitops, tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"")
    assert {path.stat().st_mode for path in gitops.export()} == {mine.stat().st_mode}


WRITER = """
import sys
import gitops_automation as module
for turn in range(int(sys.argv[3])):
    content = sys.argv[2].encode() * (300_000 + turn)
    module.write_files(sys.argv[1], {"a.csv": content, "b.csv": content})
    print(turn, flush=True)
"""


def writer(folder, letter, turns):
    """A process that writes two files of one letter again and again, each time a little longer."""
    command = [sys.executable, "-c", WRITER, str(folder), letter, str(turns)]
    return subprocess.Popen(command, cwd=str(Path(module.__file__).parent), stdout=subprocess.PIPE)


def is_whole(content):
    """Whether a content is one that `writer` writes."""
    return len(content) >= 300_000 and len(set(content)) == 1


@pytest.mark.slow
def test_an_end_by_the_system_while_writing_leaves_whole_files(tmp_path):
    """SIGTERM, as a container gets it when it has to go; some of the moments fall into a write."""
    rng, left_over = random.Random(1), 0
    for _ in range(5):
        with writer(tmp_path, "a", 10**6) as process:
            assert process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
        assert process.returncode == -signal.SIGTERM
        assert all(is_whole((tmp_path / name).read_bytes()) for name in ("a.csv", "b.csv"))
        left_over = len(list(tmp_path.iterdir())) - 2
    assert left_over > 0  # the temporary files of those that were met while writing


@pytest.mark.slow
def test_two_processes_in_one_folder_do_not_disturb_each_other(tmp_path):
    """A reader beside them finds whole files at any time."""
    seen = set()
    with writer(tmp_path, "a", 600) as one, writer(tmp_path, "b", 600) as other:
        assert one.stdout.readline() and other.stdout.readline()
        while one.poll() is None and other.poll() is None:
            for name in ("a.csv", "b.csv"):
                content = (tmp_path / name).read_bytes()
                assert is_whole(content)
                seen.add(content[:1])
        one.stdout.read(), other.stdout.read()
    assert (one.returncode, other.returncode) == (0, 0)
    assert seen == {b"a", b"b"}
    assert sorted(contents(tmp_path)) == ["a.csv", "b.csv"]


def test_an_export_changes_no_table(gitops):
    before = [getattr(gitops, name).copy() for name in FILES.values()]
    gitops.export()
    for name, table in zip(FILES.values(), before):
        pd.testing.assert_frame_equal(getattr(gitops, name), table)


def test_the_text_of_a_table_needs_no_file(gitops):
    text = module.export_files(gitops.measured, {})["commits.csv"]
    assert len(pd.read_csv(io.BytesIO(text))) == len(gitops.git_commits)
