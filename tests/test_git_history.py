"""The commits of real repositories: read whole, read right, and read without running anything."""

import inspect
import io
import os
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import HOOKS
from hypothesis import given
from hypothesis import strategies as st
from plain_model import check_history

import gitops_automation as module
from gitops_automation import COLUMNS, GitOpsAutomation, GitOpsError, Scenario

APPLICATIONS = ["frontend", "backend", "database"]
GIT = shutil.which("git")
OWN_CONFIGURATION_ONLY = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "LC_ALL": "C",
}
BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def at(time):
    return int(pd.Timestamp(time, tz="UTC").timestamp())


def git(folder, *arguments, stdin=b"", check=True, **variables):
    """What git prints, with nobody's configuration but the repository's."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    run = subprocess.run(
        [str(GIT), "-C", str(folder), *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**clean, **OWN_CONFIGURATION_ONLY, **variables},
        timeout=30,
        close_fds=False,  # with a full path: no fork, which costs more the more is loaded
    )
    assert run.returncode == 0 or not check, run.stderr.decode("utf-8", "replace")
    return run.stdout


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode("utf-8")


def quoted(path):
    return b'"' + b"".join(b"\\%03o" % byte for byte in as_bytes(path)) + b'"'


def commit(
    subject="fix: correct totals", files=("a.txt",), when="2026-01-30 12:00", author="alice", **more
):
    """A commit for git's fast-import: a file is a path to write, or (old, new) to rename."""
    return dict(more, subject=as_bytes(subject), files=files, when=when, author=as_bytes(author))


def import_commits(folder, *commits, branch="refs/heads/main"):
    """Put commits on top of a branch, in one call."""
    stream, tip = [], git(folder, "for-each-ref", branch)
    for number, one in enumerate(commits):
        time = one["when"] if isinstance(one["when"], int) else at(one["when"])
        stream += [
            b"commit " + branch.encode(),
            b"author %s <a@example.org> %d +0000" % (one["author"], time - 3600),
            b"committer %s <c@example.org> %d +0000" % (b"committer", time),
        ]
        stream += [b"encoding " + one["encoding"]] if "encoding" in one else []
        stream += [b"data %d" % len(one["subject"]), one["subject"]]
        stream += [b"from " + branch.encode() + b"^0"] if number == 0 and tip else []
        for file in one["files"]:
            if isinstance(file, tuple):
                stream += [b"R %s %s" % tuple(map(quoted, file))]
            else:
                content = b"%d %d" % (time, number)
                stream += [b"M 100644 inline " + quoted(file), b"data %d" % len(content), content]
        stream += [b""]
    git(folder, "fast-import", "--quiet", "--date-format=raw", stdin=b"\n".join(stream))


def raw_commit(folder, *lines, message=b"fix: odd\n", branch="refs/heads/main", tree=None):
    """Point the branch at a commit object of exactly these header lines, however odd."""
    tree = tree or git(folder, "mktree").strip()
    body = b"\n".join([b"tree " + tree, *map(as_bytes, lines), b"", message])
    sha = (
        git(folder, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=body)
        .decode()
        .strip()
    )
    git(folder, "update-ref", branch, sha)
    return sha


@pytest.fixture(autouse=True)
def _no_configuration_of_the_user(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))


MAIN = "ref: refs/heads/main\n"


@pytest.fixture
def repository(tmp_path):
    """A function that makes a repository with the commits it is given; its folder."""

    def make(*commits, name="shop", options=()):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        git(folder, "init", "-q", "--template=", *options)
        (folder / ".git" / "HEAD" if not options[:1] == ["--bare"] else folder / "HEAD").write_text(
            MAIN
        )
        if commits:
            import_commits(folder, *commits)
        return folder

    return make


def load(folder, days=30, end=None, applications=APPLICATIONS):
    """(Commits, window), every invariant checked."""
    end = None if end is None else pd.Timestamp(end, tz="UTC")
    commits, window = module.read_git_log(folder, days, end, applications)
    assert list(commits.columns) == list(COLUMNS["git_commits"])
    assert commits["timestamp"].is_monotonic_increasing
    assert (commits["timestamp"] >= window.start).all()
    assert (commits["timestamp"] < window.end).all()
    for column in ("author", "type", "application", "branch", "message"):
        assert not any(map(hostile, commits[column])), column
    return commits, window


def hostile(text):
    """Whether a terminal would do something else than show the text."""
    return any(
        unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") or c in BIDI_CONTROLS for c in text
    )


def visible(text):
    """What is left of a text without what a terminal must not get, invisible formats or spaces."""
    invisible = {c for c in text if hostile(c) or c.isspace() or unicodedata.category(c) == "Cf"}
    return "".join(c for c in text if c not in invisible)


def as_name(text):
    """What is left of a name: at least 200 characters, and a word where nothing can be seen."""
    return visible(text)[:200] or "(nothing)"


def refusal(folder, **options):
    """The message, one printable line, with which a load is refused."""
    with pytest.raises(GitOpsError) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert not hostile(message)
    return message


def subjects_or_refusal(folder):
    """The subjects; None where the load is refused in one printable line."""
    try:
        return subjects(folder)
    except GitOpsError as error:
        return pytest.fail(str(error)) if hostile(str(error)) else None


def subjects(folder, **options):
    return load(folder, **options)[0]["message"].tolist()


# ---- Columns -------------------------------------------------------------------------------------


def test_every_column_of_a_commit_is_read(repository):
    folder = repository(
        commit(
            "feat(backend): add audit trail",
            ["a", "b/c", "d e"],
            "2026-01-29 08:30:15",
            "Ada Lovelace",
        ),
        commit("docs: say what it does", ["README"], "2026-01-30 23:59:59", "Bob"),
    )
    commits, window = load(folder)
    first, second = commits.to_dict("records")
    assert first == {
        "sha": git(folder, "rev-parse", "HEAD~1").decode().strip(),
        "timestamp": pd.Timestamp("2026-01-29 08:30:15", tz="UTC"),
        "author": "Ada Lovelace",
        "type": "feat",
        "application": "backend",
        "branch": "main",
        "message": "feat(backend): add audit trail",
        "files_changed": 3,
    }
    assert (second["type"], second["application"], second["files_changed"]) == ("docs", "shop", 1)
    assert window == (pd.Timestamp("2026-01-01", tz="UTC"), pd.Timestamp("2026-01-31", tz="UTC"))


def test_commits_made_the_usual_way_are_read(repository):
    """The committer's time counts, not the author's, whatever the time zone."""
    folder = repository()
    (folder / "a").write_text("1")
    (folder / "b").write_text("2")
    git(folder, "add", ".")
    times = {
        "GIT_AUTHOR_DATE": "2025-06-01T00:00:00+00:00",
        "GIT_COMMITTER_DATE": "2026-01-30T01:30:00+05:30",
    }
    git(
        folder,
        "-c",
        "user.name=Ann",
        "-c",
        "user.email=ann@example.org",
        "commit",
        "-qm",
        "Start",
        **times,
    )
    (row,) = load(folder)[0].to_dict("records")
    assert row["timestamp"] == pd.Timestamp("2026-01-29 20:00", tz="UTC")
    assert (row["author"], row["message"], row["type"], row["files_changed"]) == (
        "Ann",
        "Start",
        "other",
        2,
    )


def test_the_class_takes_real_commits_in_the_place_of_simulated_ones(repository, capsys):
    folder = repository(
        *(commit(when="2026-01-%02d 10:00" % day, files=[str(day)]) for day in range(1, 31))
    )
    gitops = GitOpsAutomation(Scenario(), seed=1)
    gitops.load_git_history(folder, days=30)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    gitops.calculate_dora_metrics()
    gitops.generate_report()
    check_history(gitops.history)
    assert "✓ Read 30 commits" in capsys.readouterr().out
    assert gitops.window.end == pd.Timestamp("2026-01-31", tz="UTC")
    assert gitops.applications == [*Scenario().team.applications, "shop"]
    assert set(gitops.deployments["commit_sha"]) <= set(gitops.git_commits["sha"])


def test_the_class_reads_the_days_before_its_own_end(repository, capsys):
    folder = repository(*(commit(when="2026-01-%02d 10:00" % day) for day in (10, 19, 20, 21)))
    gitops = GitOpsAutomation(Scenario(), seed=1, end="2026-01-21")
    assert len(gitops.load_git_history(str(folder), days=2)) == 2
    assert "✓ Read 2 commits" in capsys.readouterr().out


# ---- Types and scopes ----------------------------------------------------------------------------

SUBJECTS = {
    "feat: add filters": ("feat", "shop"),
    "feat!: drop the old address": ("feat", "shop"),
    "feat(backend)!: drop the old address": ("feat", "backend"),
    "feat(frontend): add filters": ("feat", "frontend"),
    "FIX: upper case": ("fix", "shop"),
    "Fix(Backend): another name": ("fix", "shop"),
    "fix(backend,frontend): two": ("fix", "shop"),
    "chore(deps): bump": ("chore", "shop"),
    "refactor(): no scope": ("refactor", "shop"),
    "perf(database): index": ("perf", "database"),
    "docs: say": ("docs", "shop"),
    "test: more": ("test", "shop"),
    "style: spaces": ("style", "shop"),
    "build: wheels": ("build", "shop"),
    "ci: cache": ("ci", "shop"),
    "revert: feat(backend): no": ("revert", "shop"),
    "wip: later": ("other", "shop"),
    "features: no type of the convention": ("other", "shop"),
    "feature(backend): nor this": ("other", "backend"),
    "Update README": ("other", "shop"),
    "fix without a colon": ("other", "shop"),
    "see feat: in the middle": ("other", "shop"),
    ": nothing before": ("other", "shop"),
    "feat(backend: open": ("other", "shop"),
    "": ("other", "shop"),
}


def test_types_with_their_scopes_are_those_of_conventional_commits(repository):
    folder = repository(*(commit(subject, [str(i)]) for i, subject in enumerate(SUBJECTS)))
    commits = load(folder)[0].set_index("message")
    found = {
        subject: (commits.at[subject, "type"], commits.at[subject, "application"])
        for subject in SUBJECTS
    }
    assert found == SUBJECTS


def test_a_scope_counts_only_if_the_scenario_knows_it(repository):
    folder = repository(commit("fix(backend): x"), commit("fix(search): y"))
    assert load(folder, applications=["search"])[0]["application"].tolist() == ["shop", "search"]
    assert load(folder, applications=[])[0]["application"].tolist() == ["shop", "shop"]


# ---- The window ----------------------------------------------------------------------------------


def days_of_january(folder, **options):
    return [stamp.day for stamp in load(folder, **options)[0]["timestamp"]]


def test_the_window_ends_with_the_day_of_the_newest_commit(repository):
    folder = repository(*(commit(when="2026-01-%02d 10:00" % day) for day in (1, 10, 18, 19, 20)))
    commits, window = load(folder, days=2)
    assert window == (pd.Timestamp("2026-01-19", tz="UTC"), pd.Timestamp("2026-01-21", tz="UTC"))
    assert days_of_january(folder, days=2) == [19, 20]
    assert days_of_january(folder, days=30) == [1, 10, 18, 19, 20]
    assert days_of_january(folder, days=365) == [1, 10, 18, 19, 20]


def test_a_last_commit_whose_clock_was_behind_does_not_end_the_window(repository):
    folder = repository(
        *(commit(when="2026-%s 10:00" % day) for day in ("01-18", "01-20", "01-02"))
    )
    assert days_of_january(folder, days=3) == [18, 20]


def test_the_window_includes_its_start_but_excludes_its_end(repository):
    times = [
        "2026-01-09 23:59:59",
        "2026-01-10 00:00:00",
        "2026-01-10 23:59:59",
        "2026-01-11 00:00:00",
    ]
    folder = repository(*(commit(when, when=when) for when in times))
    assert subjects(folder, days=1, end="2026-01-11") == times[1:3]


def test_a_commit_at_midnight_belongs_to_the_day_that_begins(repository):
    folder = repository(commit(when="2026-01-20 00:00:00"))
    assert load(folder, days=1)[1].start == pd.Timestamp("2026-01-20", tz="UTC")


@pytest.mark.parametrize("year", [1971, 1999, 2038, 2099, 2105, 2190])
def test_years_far_from_ours_are_read(repository, year):
    when = "%d-06-15 12:00" % year
    folder = repository(commit("long before", when="1970-06-01 12:00"), commit("then", when=when))
    assert subjects(folder, end="%d-06-20" % year if year % 2 else None) == ["then"]


def test_a_window_may_reach_back_to_1970(repository):
    folder = repository(
        commit("early", when="1970-01-02 12:00"), commit("late", when="2026-01-30 12:00")
    )
    assert subjects(folder, days=at("2026-01-31") // 86400) == ["early", "late"]
    assert "1970" in refusal(folder, days=30_000)


def test_no_commit_in_the_window_is_refused_with_the_window(repository):
    message = refusal(repository(commit(when="2026-01-30 12:00")), days=5, end="2025-06-10")
    assert "2025-06-05" in message
    assert "2025-06-09" in message
    assert "--days" in message


@pytest.mark.parametrize("days", [0, -1, 1.5, "30", True, None])
def test_days_that_are_no_positive_whole_number_are_refused(repository, days):
    assert repr(days) in refusal(repository(commit()), days=days)


def test_commits_of_one_second_keep_their_order(repository):
    names = ["fix: %d" % i for i in range(20)]
    assert subjects(repository(*(commit(name, [name]) for name in names))) == names


def test_a_commit_behind_one_with_a_wrong_clock_is_not_lost(repository):
    """A machine with an empty battery commits in 1970, on top of commits of today."""
    folder = repository(
        commit("before", when="2026-01-10 12:00"),
        commit("clock", when="1970-01-03 12:00"),
        commit("after", when="2026-01-20 12:00"),
    )
    assert subjects(folder) == ["before", "after"]


# ---- Commits of every kind -----------------------------------------------------------------------


def test_merges_are_left_out_but_what_they_bring_is_kept(repository):
    folder = repository(
        commit("root", ["a"], "2026-01-10 12:00"), commit("left", ["b"], "2026-01-12 12:00")
    )
    git(folder, "branch", "side", "HEAD~1")
    import_commits(folder, commit("right", ["c"], "2026-01-11 12:00"), branch="refs/heads/side")
    parents = [b"parent " + git(folder, "rev-parse", name).strip() for name in ("main", "side")]
    lines = [
        b"%s M <m@example.org> %d +0000" % (role, at("2026-01-25 12:00"))
        for role in (b"author", b"committer")
    ]
    raw_commit(
        folder,
        *parents,
        *lines,
        message=b"Merge side\n",
        tree=git(folder, "rev-parse", "main^{tree}").strip(),
    )
    commits, window = load(folder)
    assert commits["message"].tolist() == ["root", "right", "left"]
    assert window.end == pd.Timestamp("2026-01-26", tz="UTC"), "the merge is the newest commit"


def test_only_the_current_branch_is_read(repository):
    folder = repository(commit("on main"))
    git(folder, "branch", "side")
    import_commits(folder, commit("on side", ["b"]), branch="refs/heads/side")
    assert subjects(folder) == ["on main"]


def test_files_are_counted_for_commits_of_every_kind(repository):
    folder = repository(
        commit("root", ["a", "b", "c"], "2026-01-10 12:00"),
        commit("empty", [], "2026-01-11 12:00"),
        commit("rename", [("a", "z")], "2026-01-12 12:00"),
        commit("deep", ["x/y/z/1", "x/y/2", "x/3"], "2026-01-13 12:00"),
    )
    commits = load(folder)[0]
    assert commits["files_changed"].tolist() == [3, 0, 2, 3], "a rename changes two paths"


def test_a_repository_of_nothing_but_empty_commits_is_read(repository):
    folder = repository(*(commit(str(i), []) for i in range(3)))
    assert load(folder)[0]["files_changed"].tolist() == [0, 0, 0]


def test_a_submodule_that_moved_is_a_file_changed(repository):
    folder = repository(commit("root", ["a"], "2026-01-10 12:00"))
    tree = git(
        folder, "mktree", "--missing", stdin=b"160000 commit " + b"1" * 40 + b"\tlib\n"
    ).strip()
    person = b" A <a@example.org> %d +0000" % at("2026-01-11 12:00")
    raw_commit(folder, b"author" + person, b"committer" + person, tree=tree)
    assert load(folder)[0]["files_changed"].tolist() == [1]


ODD_FILES = [
    "plain.txt",
    " leading",
    "trailing ",
    "two\nlines",
    "\nbegins with a line end",
    'quo"ted',
    "back\\slash",
    "tab\there",
    "ünïcödé/文件",
    "-x",
    "--output=evil",
    ":(glob)*",
    "a" * 200,
    "\x1b[31mred",
    "\u202ereversed",
    b"\xff\xfe not utf-8",
    b"half a letter \xe2\x82",
    "s",
    "a",
    "1700000000",
    "0" * 40,
]


def test_odd_file_names_are_counted_one_by_one(repository):
    folder = repository(
        commit("all", ODD_FILES, "2026-01-10 12:00"),
        *(commit(str(i), [file], "2026-01-11 12:00") for i, file in enumerate(ODD_FILES)),
    )
    assert load(folder)[0]["files_changed"].tolist() == [len(ODD_FILES)] + [1] * len(ODD_FILES)


ODD_TEXTS = [
    "/begins with a slash",
    "/" + "0" * 40,
    "//",
    "/",
    "a",
    "s",
    "tab\there",
    "carriage\rreturn",
    "bell\x07 backspace\x08 delete\x7f form\x0c vertical\x0b",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m eight bit",
    "next\x85line",
    "line\u2028paragraph\u2029end",
    "\u202egpj.exe\u202c",
    "\u2066isolated\u2069 \u200emarks\u200f \u061c",
    "\ufeffmark",
    "日本語 🚀 e\u0301",
    "  spaces  around  ",
    "%H%x00 $HOME `id` $(id) ; | &",
    "x" * 5000,
    b"\xff\xfe not utf-8",
    b"half a letter \xe2\x82",
    b"lone surrogate \xed\xa0\x80",
    b"overlong \xc0\xaf",
    "-n",
]


def test_odd_subjects_are_read_without_what_steers_a_terminal(repository):
    folder = repository(*(commit(text, [str(i)]) for i, text in enumerate(ODD_TEXTS)))
    found = subjects(folder)
    expected = [as_bytes(text).decode("utf-8", "replace") for text in ODD_TEXTS]
    assert list(map(visible, found)) == list(map(visible, expected))


def test_odd_author_names_are_read_without_what_steers_a_terminal(repository):
    names = [as_bytes(text) for text in ODD_TEXTS if not re.search(rb"[<>\n]", as_bytes(text))]
    folder = repository(
        *(commit("fix: %d" % i, [str(i)], author=name) for i, name in enumerate(names))
    )
    commits = load(folder)[0]
    expected = [name.decode("utf-8", "replace") for name in names]
    assert list(map(as_name, commits["author"])) == list(map(as_name, expected))
    assert commits["author"].str.len().max() <= 253  # no name of Kubernetes is longer
    assert commits["message"].tolist() == ["fix: %d" % i for i in range(len(names))]


def test_an_empty_subject_stays_empty_where_an_empty_author_is_called_nothing(repository):
    commits = load(
        repository(commit("", ["a"], author=""), commit("\n\n", ["b"]), commit("end", ["c"]))
    )[0]
    assert commits["message"].tolist() == ["", "", "end"]
    assert commits["author"].tolist() == ["(nothing)", "alice", "alice"]


def test_a_subject_is_the_first_paragraph_in_one_line(repository):
    assert subjects(repository(commit("fix: one\ntwo\n\nbody\n/feat: no"))) == ["fix: one two"]


def test_a_commit_that_names_its_encoding_is_read_in_it(repository):
    folder = repository(
        commit(
            "fix: größe".encode("latin-1"),
            author="Jürgen".encode("latin-1"),
            encoding=b"ISO-8859-1",
        )
    )
    assert load(folder)[0][["author", "message"]].to_numpy().tolist() == [["Jürgen", "fix: größe"]]


@pytest.mark.parametrize(
    "encoding", [b"no-such-encoding", b"UTF-16", b"UTF-7", b"%n", b"UTF-8\x1b[31m"]
)
def test_a_commit_that_names_an_odd_encoding_is_read(repository, encoding):
    folder = repository(commit("fix: +AAo-feat", encoding=encoding), commit("fix: next", ["b"]))
    commits = load(folder)[0]
    assert commits["message"].iloc[-1] == "fix: next"


@pytest.mark.parametrize(
    "time", ["99999999999999999999999", "18446744073709551615", "-5", "", "1e9", "0x10"]
)
def test_a_commit_with_an_impossible_time_hides_no_other(repository, time):
    folder = repository(commit("before", ["a"], "2026-01-10 12:00"))
    parent = b"parent " + git(folder, "rev-parse", "HEAD").strip()
    author = "author A <a@example.org> %d +0000" % at("2026-01-20 12:00")
    raw_commit(folder, parent, author, "committer C <c@example.org> %s +0000" % time)
    import_commits(folder, commit("after", ["b"], "2026-01-20 12:00"))
    found = subjects(folder)
    assert found[-1] == "after"
    assert set(found) <= {"before", "fix: odd", "after"}


@pytest.mark.parametrize(
    "time", ["99999999999999999999999", "18446744073709551615", "-5", "", "253402300800"]
)
def test_a_newest_commit_with_an_impossible_time_is_no_traceback(repository, time):
    folder = repository()
    author = "author A <a@example.org> %d +0000" % at("2026-01-20 12:00")
    raw_commit(folder, author, "committer C <c@example.org> %s +0000" % time)
    assert refusal(folder)


def test_a_path_that_begins_with_a_slash_is_no_traceback(repository):
    """Git makes no such tree, but reads one."""
    folder = repository(commit("before", ["a"], "2026-01-10 12:00"))
    blob = bytes.fromhex(git(folder, "rev-parse", "HEAD:a").decode().strip())
    entries = b"".join(b"100644 %s\0%s" % (name, blob) for name in (b"a", b"/evil", b"b", b"/"))
    tree = git(
        folder, "hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=entries
    ).strip()
    person = b" A <a@example.org> %d +0000" % at("2026-01-11 12:00")
    raw_commit(folder, b"author" + person, b"committer" + person, tree=tree)
    assert subjects_or_refusal(folder) in (["fix: odd"], None)


def test_hostile_text_does_not_reach_the_console_the_export_or_the_json(
    repository, tmp_path, capsys
):
    texts = [as_bytes(text) for text in ODD_TEXTS]
    folder = repository(
        *(
            commit(text, [str(i)], author=re.sub(rb"[<>\n]", b"", text))
            for i, text in enumerate(texts)
        ),
        name="sh\x1b[31mop\u202e",
    )
    git(folder, "symbolic-ref", "HEAD", "refs/heads/br\u202eanch")
    git(folder, "update-ref", "refs/heads/br\u202eanch", "refs/heads/main")
    arguments = [
        "--repo",
        str(folder),
        "--output",
        str(tmp_path / "out"),
        "--export",
        "--no-dashboard",
        "--seed",
        "1",
    ]
    module.main(arguments)
    module.main([*arguments, "--json"])
    written = [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "out").iterdir())]
    assert len(written) == 4
    for text in (capsys.readouterr().out, *written):
        assert not hostile(text.replace("\n", ""))


# ---- Repositories of every kind ------------------------------------------------------------------


@pytest.mark.parametrize(
    "branch", ["main", "feat/x", "größe-🚀", "HEAD", "-x", "a.b@c", "refs/heads/x", "w" * 150]
)
def test_the_branch_is_the_current_one_whatever_its_name(repository, branch):
    folder = repository(commit())
    git(folder, "update-ref", "refs/heads/" + branch, "refs/heads/main")
    git(folder, "symbolic-ref", "HEAD", "refs/heads/" + branch)
    assert load(folder)[0]["branch"].tolist() == [branch]


def test_a_tag_of_the_same_name_does_not_change_the_branch(repository):
    folder = repository(commit())
    git(folder, "tag", "main")
    assert load(folder)[0]["branch"].tolist() == ["main"]


def test_a_detached_head_is_the_branch_head(repository):
    folder = repository(
        commit("one", when="2026-01-10 12:00"), commit("two", when="2026-01-11 12:00")
    )
    git(folder, "update-ref", "--no-deref", "HEAD", "HEAD~1")
    commits = load(folder)[0]
    assert commits["message"].tolist() == ["one"]
    assert commits["branch"].tolist() == ["HEAD"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [("shop.git", "shop"), ("shop", "shop"), ("my.shop.git", "my.shop"), ("my.shop", "my.shop")],
)
def test_a_bare_repository_is_named_after_its_folder(repository, folder, name):
    assert load(repository(commit(), name=folder, options=["--bare"]))[0][
        "application"
    ].tolist() == [name]


def test_a_repository_with_a_dot_in_its_name_keeps_it(repository):
    assert load(repository(commit(), name="my.shop"))[0]["application"].tolist() == ["my.shop"]


def test_a_subfolder_stands_for_its_whole_repository(repository):
    folder = repository(commit("one", ["a", "inner/b", "inner/c"]), commit("two", ["d"]))
    (folder / "inner").mkdir()
    git(folder, "config", "diff.relative", "true")
    commits = load(folder / "inner")[0]
    assert commits["application"].tolist() == ["shop", "shop"]
    assert commits["files_changed"].tolist() == [3, 1]


def test_the_folder_of_the_repository_data_stands_for_the_repository(repository):
    assert load(repository(commit()) / ".git")[0]["application"].tolist() == ["shop"]


def test_a_worktree_has_its_own_branch_but_the_name_of_its_repository(repository, tmp_path):
    folder = repository(commit("on main"))
    git(folder, "worktree", "add", "-q", "-b", "hotfix", str(tmp_path / "elsewhere"))
    import_commits(folder, commit("on hotfix", ["b"]), branch="refs/heads/hotfix")
    commits = load(tmp_path / "elsewhere")[0]
    assert commits["message"].tolist() == ["on main", "on hotfix"]
    assert set(commits["branch"]) == {"hotfix"}
    assert set(commits["application"]) == {"shop"}


def test_a_shallow_clone_is_read(repository, tmp_path):
    folder = repository(
        *(commit(str(day), [str(day)], "2026-01-%02d 12:00" % day) for day in range(1, 11))
    )
    git(tmp_path, "clone", "-q", "--depth=3", "--no-local", folder.as_uri(), "shallow")
    commits = load(tmp_path / "shallow")[0]
    assert commits["message"].tolist() == ["8", "9", "10"]
    assert commits["application"].tolist() == ["shallow"] * 3


def test_a_repository_of_sha_256_is_read(repository, tmp_path):
    try:
        folder = repository(
            commit("one", ["a", "b"]), commit("two", ["c"]), options=["--object-format=sha256"]
        )
    except AssertionError:
        pytest.skip("this git has no SHA-256 repositories")
    commits = load(folder)[0]
    assert commits["sha"].str.len().tolist() == [64, 64]
    assert commits["files_changed"].tolist() == [2, 1]


def test_a_folder_that_begins_with_a_dash_is_a_folder(repository, tmp_path, monkeypatch):
    repository(commit("dash"), name="-x")
    repository(commit("option"), name="--exec-path=evil")
    monkeypatch.chdir(tmp_path)
    assert subjects("-x") == ["dash"]
    assert subjects("--exec-path=evil") == ["option"]
    module.main(["--repo=-x", "--quiet", "--no-dashboard", "--output", str(tmp_path / "out")])


@pytest.mark.parametrize(
    "name", ["with space", "größe", "li\nne", 'quo"te', "$(id)", "a;b", "~", "\x1b[31mred", "*"]
)
def test_a_folder_of_an_odd_name_is_named_printably(repository, name):
    commits = load(repository(commit(), name=name))[0]
    assert list(map(visible, commits["application"])) == [visible(name)]
    assert commits["branch"].tolist() == ["main"]


def test_a_folder_whose_name_is_not_utf_8_is_read(repository):
    try:
        folder = repository(commit(), name=os.fsdecode(b"sh\xffop"))
    except OSError:
        pytest.skip("this file system wants UTF-8")
    assert load(folder)[0]["application"].tolist() == ["sh\ufffdop"]
    assert load(os.fsencode(str(folder)))[0]["application"].tolist() == ["sh\ufffdop"]


def test_variables_of_git_do_not_win_over_the_folder(repository, tmp_path, monkeypatch):
    folder, other = repository(commit("this")), repository(commit("other"), name="other")
    marker = tmp_path / "marker"
    for name, value in {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_COMMON_DIR": str(other / ".git"),
        "GIT_INDEX_FILE": str(other / "index"),
        "GIT_OBJECT_DIRECTORY": str(other / ".git" / "objects"),
        "GIT_NAMESPACE": "other",
        "GIT_PAGER": "touch %s" % marker,
        "GIT_EXTERNAL_DIFF": "touch %s" % marker,
        "GIT_TRACE": str(marker),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "log.showRoot",
        "GIT_CONFIG_VALUE_0": "false",
        "GIT_LITERAL_PATHSPECS": "0",
    }.items():
        monkeypatch.setenv(name, value)
    commits = load(folder)[0]
    assert commits[["message", "application", "files_changed"]].to_numpy().tolist() == [
        ["this", "shop", 1]
    ]
    assert not marker.exists()


# ---- Refusals ------------------------------------------------------------------------------------


def test_a_folder_that_is_no_repository_is_refused(tmp_path):
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "--repo" in message


@pytest.mark.parametrize("name", ["missing", "git", "a\0b", "", "no/such/folder"])
def test_a_folder_that_is_missing_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(name)
    assert "not installed" not in message
    assert "--repo" in message


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    message = refusal(tmp_path / "file")
    assert str(tmp_path / "file") in message
    assert "--repo" in message


def test_a_repository_without_commits_is_refused(repository):
    message = refusal(repository())
    assert "shop" in message
    assert "commits" in message


def test_a_machine_without_git_is_told_so(repository, tmp_path, monkeypatch):
    folder = repository(commit())
    monkeypatch.setenv("PATH", str(tmp_path / "home"))
    assert "git is not installed" in refusal(folder)


@pytest.mark.parametrize("damage", ["HEAD", "branch", "commit", "tree", "config"])
def test_a_damaged_repository_is_refused_in_one_line(repository, damage):
    folder = repository(commit("one", ["a"]), commit("two", ["b"]))
    data = folder / ".git"
    if damage in ("commit", "tree"):
        unpack(folder)
        sha = (
            git(folder, "rev-parse", "HEAD~1" + ("^{tree}" if damage == "tree" else ""))
            .decode()
            .strip()
        )
        (data / "objects" / sha[:2] / sha[2:]).unlink()
    elif damage == "branch":
        (data / "refs" / "heads" / "main").write_text("1" * 40 + "\n")
    else:
        (data / damage).write_text("[\x1b[31mdamaged\n")
    assert "shop" in refusal(folder)


def unpack(folder):
    """Give each object of a repository a file of its own."""
    packs = list((folder / ".git" / "objects" / "pack").glob("pack-*"))
    contents = [path.read_bytes() for path in packs if path.suffix == ".pack"]
    for path in packs:
        path.unlink()
    for content in contents:
        git(folder, "unpack-objects", "-q", stdin=content)


def test_a_refused_repository_leaves_the_earlier_tables_alone(repository, tmp_path, capsys):
    gitops = GitOpsAutomation(Scenario(), seed=1)
    commits = gitops.load_git_history(repository(commit()))
    with pytest.raises(GitOpsError):
        gitops.load_git_history(tmp_path)
    assert gitops.git_commits is commits
    assert capsys.readouterr().err == ""


# ---- The log, cut into pieces --------------------------------------------------------------------


def history_of_odd_commits():
    """Commits that have between them every oddity of the tests above."""
    files = [ODD_FILES[: i % 4] + ODD_FILES[i : i + 3 * (i % 3)] for i in range(len(ODD_TEXTS))]
    return [
        commit(
            text,
            changed,
            at("2026-01-10") + 3600 * i,
            re.sub(rb"[<>\n]", b"", as_bytes(ODD_TEXTS[-i])),
        )
        for i, (text, changed) in enumerate(zip(ODD_TEXTS, files))
    ]


@pytest.mark.slow
def test_the_table_is_what_git_says_of_each_commit_alone(repository):
    """An independent reading: three questions to git about each commit, and no parser."""
    folder = repository(*history_of_odd_commits())

    def ask(sha, what):
        return git(folder, "log", "-1", "--encoding=UTF-8", "--format=" + what, sha)[:-1].decode(
            "utf-8", "replace"
        )

    shas = git(folder, "rev-list", "--reverse", "--no-merges", "HEAD").decode().split()
    plain = [
        (
            sha,
            int(ask(sha, "%ct")),
            as_name(ask(sha, "%an")),
            visible(ask(sha, "%s")),
            git(
                folder, "diff-tree", "--root", "-r", "-z", "--no-commit-id", "--name-only", sha
            ).count(b"\0"),
        )
        for sha in shas
    ]
    commits = load(folder)[0]
    times = [int(stamp.timestamp()) for stamp in commits["timestamp"]]
    texts = [map(as_name, commits["author"]), map(visible, commits["message"])]
    assert list(zip(commits["sha"], times, *texts, commits["files_changed"])) == plain


@pytest.fixture
def in_chunks_of(monkeypatch):
    """A function that makes the module read what git says in chunks of so many bytes."""
    whole = module._records

    def set_size(size):
        monkeypatch.setattr(
            module, "_records", lambda stream, separator: whole(stream, separator, size)
        )

    return set_size


@pytest.mark.slow
def test_a_repository_reads_the_same_in_chunks_of_any_size(repository, in_chunks_of):
    folder = repository(*history_of_odd_commits())
    expected = load(folder)[0]
    assert len(expected) == len(ODD_TEXTS)
    for size in (1, 7, 64, 1000, 4096):
        in_chunks_of(size)
        pd.testing.assert_frame_equal(load(folder)[0], expected)


SEPARATOR = inspect.signature(module._git_stream).parameters["separator"].default
RECORD_FORMAT = (
    module._git_log_command("/")[-1].partition("tformat:")[2].replace("%x00", "\0").encode()
)


def raw_log(records):
    """What git prints for records of (sha, seconds, author, subject, files)."""
    pieces = []
    for record in records:
        fields = dict(zip([b"%H", b"%ct", b"%an", b"%s"], map(as_bytes, map(as_text, record))))
        pieces.append(
            re.sub(
                rb"%(H|ct|an|s)", lambda match, fields=fields: fields[match.group()], RECORD_FORMAT
            )
        )
        pieces += [
            b"\0",
            b"\n" if record[-1] else b"",
            *(as_bytes(file) + b"\0" for file in record[-1]),
        ]
    return b"".join(pieces)


def as_text(value):
    return value if isinstance(value, bytes) else str(value)


def parsed(raw, size):
    return module._parse_git_log(module._records(io.BytesIO(raw), SEPARATOR, size))


def test_the_raw_log_of_these_tests_is_what_git_prints(repository):
    folder = repository(
        commit("one", ["a", "b"]), commit("/two", []), commit("", ["-c"], author="/")
    )
    one, two, three = git(folder, "rev-list", "--reverse", "HEAD").decode().split()
    noon = at("2026-01-30 12:00")
    records = [
        (three, noon, "/", "", ["-c"]),
        (two, noon, "alice", "/two", []),
        (one, noon, "alice", "one", ["a", "b"]),
    ]
    assert b"".join(module._git_stream(folder, *module._git_log_command("/"))) == raw_log(records)


@pytest.mark.slow
def test_a_log_cut_anywhere_is_whole_records_again():
    records = [("%040x" % i, i, "/a", "/s", ["f"] * (i % 3)) for i in range(4)]
    raw = raw_log(records)
    whole = parsed(raw, len(raw) + 1)
    assert whole.files.tolist() == [0, 2, 1, 0]
    for size in range(1, len(raw) + 1):
        pieces = list(module._records(io.BytesIO(raw), SEPARATOR, size))
        assert b"".join(pieces) == raw
        assert sum(len(module._parse_git_chunk(piece).sha) for piece in pieces) == 4
        assert all(np.array_equal(a, b) for a, b in zip(parsed(raw, size), whole))


def test_a_log_of_nothing_has_neither_pieces_nor_commits():
    assert list(module._records(io.BytesIO(b""), SEPARATOR, 5)) == []
    assert [len(column) for column in parsed(b"", 5)] == [0] * 5


LINE = st.binary(max_size=12).map(lambda text: text.replace(b"\0", b"/").replace(b"\n", b"a"))
FILE = LINE.map(lambda text: b"f" + text if text[:1] in (b"/", b"") else text)
RECORD = st.tuples(st.integers(0, 2**33), LINE, LINE, st.lists(FILE, max_size=4))


@pytest.mark.slow
@given(st.lists(RECORD, min_size=1, max_size=8), st.integers(1, 200))
def test_any_log_gives_back_what_went_into_it(records, size):
    records = [("%040x" % i, *record) for i, record in enumerate(records)]
    log = parsed(raw_log(records), size)
    sha, seconds, author, subject, files = map(list, zip(*reversed(records)))
    assert (log.sha.tolist(), log.seconds.tolist()) == (sha, seconds)
    assert log.files.tolist() == list(map(len, files))
    for found, expected in ((log.author, author), (log.subject, subject)):
        assert [visible(text) for text in found] == [
            visible(text.decode("utf-8", "replace")) for text in expected
        ]


# ---- Configuration that would run something ------------------------------------------------------

PROGRAMS = {
    "a file system monitor": {"core.fsmonitor": "{program}"},
    "a pager": {
        "core.pager": "{program}",
        "pager.log": "{program}",
        "pager.rev-parse": "{program}",
    },
    "a signature checker": {
        "log.showSignature": "true",
        "gpg.program": "{program}",
        "gpg.openpgp.program": "{program}",
        "gpg.ssh.program": "{program}",
        "gpg.format": "openpgp",
    },
    "an external diff": {"diff.external": "{program}", "diff.trustExitCode": "true"},
    "a diff driver": {
        "diff.evil.textconv": "{program}",
        "diff.evil.command": "{program}",
        "diff.evil.cachetextconv": "true",
        "filter.evil.clean": "{program}",
        "filter.evil.smudge": "{program}",
        "filter.evil.process": "{program}",
        "filter.evil.required": "true",
        "merge.evil.driver": "{program}",
    },
    "hooks": {"core.hooksPath": "{hooks}"},
    "an alternate": {"core.alternateRefsCommand": "{program}"},
    "an editor": {"core.editor": "{program}", "sequence.editor": "{program}"},
    "a password prompt": {"core.askPass": "{program}", "credential.helper": "!{program}"},
    "a connection": {
        "core.sshCommand": "{program}",
        "core.gitProxy": "{program}",
        "remote.origin.vcs": "evil",
    },
    "an alias": {
        "alias.log": "!{program}",
        "alias.rev-parse": "!{program}",
        "help.autoCorrect": "immediate",
    },
    "a trace": {"trace2.eventTarget": "{marker}", "trace2.normalTarget": "{marker}"},
    "an included file": {"include.path": "{included}"},
    "background maintenance": {
        "maintenance.auto": "true",
        "gc.auto": "1",
        "gc.recentObjectsHook": "{program}",
    },
}
ATTRIBUTES = "* diff=evil filter=evil merge=evil ident export-subst working-tree-encoding=UTF-16\n"


@pytest.fixture
def trapped(repository, tmp_path):
    """A function that makes a repository with a signed commit, attributes and hostile
    configuration: (folder, marker that its programs would make)."""
    marker, program, hooks = tmp_path / "marker", tmp_path / "evil", tmp_path / "hooks"
    program.write_text("#!/bin/sh\ntouch '%s'\n" % marker)
    program.chmod(0o755)
    hooks.mkdir()

    def make(configuration):
        folder = repository(
            commit("one", ["a"], "2026-01-10 12:00"), commit("two", ["b", "c"], "2026-01-11 12:00")
        )
        signed(folder)
        for name in HOOKS:
            for place in (hooks / name, folder / ".git" / "hooks" / name):
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(program.read_bytes())
                place.chmod(0o755)
        for place in (folder / ".gitattributes", folder / ".git" / "info" / "attributes"):
            place.parent.mkdir(exist_ok=True)
            place.write_text(ATTRIBUTES)
        included = tmp_path / "included"
        included.write_text("[log]\n\tshowSignature = true\n[gpg]\n\tprogram = %s\n" % program)
        (folder / ".git" / "objects" / "info").mkdir(exist_ok=True)
        (folder / ".git" / "objects" / "info" / "alternates").write_text(
            str(folder / ".git" / "objects") + "\n"
        )
        values = dict(program=program, hooks=hooks, marker=marker, included=included)
        for key, value in configuration.items():
            with open(str(folder / ".git" / "config"), "a") as file:
                section, _, name = key.rpartition(".")
                head, _, rest = section.partition(".")
                file.write(
                    '[%s%s]\n\t%s = "%s"\n'
                    % (head, rest and ' "%s"' % rest, name, value.format(**values))
                )
        return folder, marker

    return make


def signed(folder):
    """Put a commit with a signature on top."""
    parent = git(folder, "rev-parse", "main").strip()
    person = b"A <a@example.org> %d +0000" % at("2026-01-12 12:00")
    raw_commit(
        folder,
        b"parent " + parent,
        b"author " + person,
        b"committer " + person,
        b"gpgsig -----BEGIN PGP SIGNATURE-----\n"
        b" \n iQEzBAABCAAdFiEE\n =abcd\n -----END PGP SIGNATURE-----",
        message=b"three\n",
        tree=git(folder, "rev-parse", "main^{tree}").strip(),
    )


def test_the_traps_of_these_tests_do_spring_for_an_unwary_git(trapped):
    folder, marker = trapped(PROGRAMS["a signature checker"])
    git(folder, "log", "-3", check=False)
    assert marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", PROGRAMS)
def test_no_program_that_the_repository_names_is_run(trapped, what):
    folder, marker = trapped(PROGRAMS[what])
    assert subjects(folder) == ["one", "two", "three"]
    assert not marker.exists()


def test_no_program_is_run_when_the_configuration_names_all_of_them(trapped):
    folder, marker = trapped(
        {key: value for settings in PROGRAMS.values() for key, value in settings.items()}
    )
    commits = load(folder)[0]
    assert commits["files_changed"].tolist() == [1, 2, 0]
    assert not marker.exists()


PROMISES = {
    "a local upload pack": {
        "remote.origin.url": "{other}",
        "remote.origin.uploadpack": "{program}; git-upload-pack",
    },
    "an ext:: address": {"remote.origin.url": "ext::{program} %S", "protocol.ext.allow": "always"},
    "an ssh address": {
        "remote.origin.url": "ssh://example.invalid/x",
        "core.sshCommand": "{program}",
    },
    "a helper": {
        "remote.origin.url": "evil::x",
        "remote.origin.vcs": "evil",
        "protocol.allow": "always",
    },
}


def partial_clone(trapped, tmp_path, what):
    """A repository without an object that its configuration promises to fetch."""
    settings = {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "protocol.allow": "always",
    }
    settings.update(
        {"remote.origin.promisor": "true", "remote.origin.partialCloneFilter": "tree:0"},
        **PROMISES[what],
    )
    settings = {key: value.replace("{other}", str(tmp_path)) for key, value in settings.items()}
    folder, marker = trapped(settings)
    data = folder / ".git"
    git(tmp_path, "init", "-q", "scratch")
    sha = git(folder, "rev-parse", "HEAD~2^{tree}").decode().strip()
    unpack(folder)
    (data / "objects" / sha[:2] / sha[2:]).unlink()
    marker.unlink() if marker.exists() else None
    return folder, marker


@pytest.mark.parametrize("what", ["a local upload pack", "an ext:: address", "an ssh address"])
def test_the_traps_of_partial_clones_do_spring_for_an_unwary_git(trapped, tmp_path, what):
    folder, marker = partial_clone(trapped, tmp_path, what)
    git(folder, "log", "--name-only", check=False)
    assert marker.exists()


@pytest.mark.parametrize("what", PROMISES)
def test_an_object_that_is_promised_is_not_fetched(trapped, tmp_path, what):
    folder, marker = partial_clone(trapped, tmp_path, what)
    assert "shop" in refusal(folder)
    assert not marker.exists()


def test_what_is_promised_but_not_needed_does_no_harm(trapped, tmp_path):
    folder, marker = partial_clone(trapped, tmp_path, "a local upload pack")
    assert subjects(folder, days=1) == ["three"]
    assert not marker.exists()


# ---- Configuration that would change the answer --------------------------------------------------

SETTINGS = [
    {
        "log.showRoot": "false",
        "log.follow": "true",
        "log.diffMerges": "on",
        "log.excludeDecoration": "*",
    },
    {
        "log.decorate": "full",
        "log.graphColors": "red",
        "color.ui": "always",
        "color.diff": "always",
    },
    {
        "log.date": "relative",
        "log.abbrevCommit": "true",
        "core.abbrev": "4",
        "format.pretty": "oneline",
    },
    {"log.mailmap": "true", "mailmap.file": "{mailmap}", "mailmap.blob": "HEAD:a"},
    {"i18n.logOutputEncoding": "UTF-16", "i18n.commitEncoding": "UTF-16"},
    {
        "diff.renames": "copies",
        "diff.relative": "true",
        "diff.noprefix": "true",
        "diff.submodule": "log",
    },
    {"diff.orderFile": "{missing}"},
    {"diff.orderFile": "{mailmap}"},
    {"core.quotePath": "true", "core.precomposeUnicode": "true", "core.ignoreCase": "true"},
    {
        "core.worktree": "{missing}",
        "core.attributesFile": "{missing}",
        "core.excludesFile": "{missing}",
    },
    {"notes.displayRef": "*", "format.notes": "true", "core.notesRef": "refs/heads/main"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(settings))
def test_settings_of_the_repository_do_not_change_what_is_read(repository, tmp_path, settings):
    folder = repository(
        commit("one", ["a", "d/b"], "2026-01-10 12:00", "Ann"),
        commit("two", [("a", "c")], "2026-01-11 12:00", "Größe"),
    )
    mailmap = tmp_path / "mailmap"
    mailmap.write_text("Evil <evil@example.org> <a@example.org>\n")
    (folder / ".mailmap").write_text(mailmap.read_text())
    for key, value in settings.items():
        git(folder, "config", key, value.format(mailmap=mailmap, missing=tmp_path / "missing"))
    read = load(folder)[0][["author", "message", "branch", "application", "files_changed"]]
    assert read.to_numpy().tolist() == [
        ["Ann", "one", "main", "shop", 2],
        ["Größe", "two", "main", "shop", 2],
    ]


@pytest.mark.parametrize(
    "setting",
    [
        "core.bare = maybe",
        "diff.algorithm = evil",
        "include.path = {folder}",
        "extensions.evil = 1",
        "= broken",
    ],
)
def test_settings_that_git_refuses_are_one_line(repository, setting):
    folder = repository(commit())
    section, _, rest = setting.format(folder=folder).partition(".")
    with open(str(folder / ".git" / "config"), "a") as file:
        file.write("[core]\n\trepositoryFormatVersion = 1\n[%s]\n\t%s\n" % (section, rest))
    assert subjects_or_refusal(folder) in (["fix: correct totals"], None)


def test_replaced_objects_do_not_count(repository):
    folder = repository(
        commit("real", ["a"], "2026-01-10 12:00"), commit("top", ["b"], "2026-01-11 12:00")
    )
    person = b" A <a@example.org> %d +0000" % at("2026-01-10 12:00")
    first = git(folder, "rev-parse", "HEAD~1").decode().strip()
    fake = raw_commit(folder, b"author" + person, b"committer" + person, branch="refs/heads/fake")
    git(folder, "replace", first, fake)
    assert subjects(folder) == ["real", "top"]


def test_reading_leaves_the_repository_as_it_was(repository):
    folder = repository(commit("one", ["a"]), commit("two", ["b"]))

    def files():
        return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}

    before = files()
    load(folder)
    assert files() == before
