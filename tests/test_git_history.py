"""The commits of real repositories: read whole, read right, and read without running anything."""

import os
import re
import shutil
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from conftest import HOOKS
from load import Commit, bytes_of, git, imported, stream_of
from plain_model import check_history

import gitops_automation as module
from gitops_automation import COLUMNS, GitOpsAutomation, GitOpsError, Scenario

APPLICATIONS = ["frontend", "backend", "database"]
TEMPLATE = "apps/{application}/{environment}"


def at(time):
    return int(pd.Timestamp(time, tz="UTC").timestamp())


def commit(
    subject="fix: correct totals", files=("a.txt",), when="2026-01-30 12:00", author="alice", **more
):
    """A commit; a file is a path to write something new into, or (old, new) to rename."""
    seconds = when if isinstance(when, int) else at(when)
    contents = {}
    for number, file in enumerate(files):
        if isinstance(file, tuple):
            contents[file[0]] = (file[1],)
        else:
            contents[file] = f"{subject!r} {seconds} {number}"
    return Commit(seconds, contents, subject, author, **more)


def raw_commit(folder, *lines, message=b"fix: odd\n", branch="refs/heads/main", tree=None):
    """Point a branch at a commit object of exactly these header lines, however odd."""
    tree = tree or git(folder, "mktree", input=b"").strip()
    body = b"\n".join([b"tree " + tree, *map(bytes_of, lines), b"", message])
    sha = made(folder, "commit", body)
    git(folder, "update-ref", branch, sha)
    return sha


def made(folder, kind, body):
    """Write an object whatever it holds; return its name."""
    arguments = ("hash-object", "-t", kind, "-w", "--stdin", "--literally")
    return git(folder, *arguments, input=body).decode().strip()


def people(when):
    """The header lines of a commit that say who made it, and when."""
    return [b"%s A <a@example.org> %d +0000" % (role, at(when)) for role in ROLES]


ROLES = (b"author", b"committer")


def sha_of(folder, name):
    return git(folder, "rev-parse", name).decode().strip()


@pytest.fixture(autouse=True)
def _no_configuration_of_the_user(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))


@pytest.fixture
def repository(tmp_path):
    """A function that makes a repository with the commits it is given; its folder."""

    def make(*commits, name="shop", options=()):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        git(folder, "init", "-q", "-b", "main", "--template=", *options)
        if commits:
            git(folder, "fast-import", "--quiet", input=b"".join(stream_of(commits)))
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
    return any(unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in text)


def visible(text):
    """What is left of a text without what a terminal must not get, and without spaces."""
    return "".join(one for one in text if not hostile(one) and not one.isspace())


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


def subjects(folder, **options):
    return load(folder, **options)[0]["message"].tolist()


def subjects_or_refusal(folder):
    """The subjects; None where the load is refused in one printable line."""
    try:
        return subjects(folder)
    except GitOpsError as error:
        return pytest.fail(str(error)) if hostile(str(error)) else None


# ---- Columns -------------------------------------------------------------------------------------


def test_every_column_of_a_commit_is_read(repository):
    """The committer's time counts, which is a minute after the author's here."""
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
        "sha": sha_of(folder, "HEAD~1"),
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


def test_a_time_zone_does_not_move_a_commit(repository):
    folder = repository()
    author = "author A <a@example.org> %d +0000" % at("2025-06-01")
    raw_commit(folder, author, "committer C <c@e> %d +0530" % at("2026-01-29 20:00"))
    assert load(folder)[0]["timestamp"].tolist() == [pd.Timestamp("2026-01-29 20:00", tz="UTC")]


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


SUBJECTS = {
    "feat: add filters": ("feat", "shop"),
    "feat!: drop the old address": ("feat", "shop"),
    "feat(backend)!: drop the old address": ("feat", "backend"),
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
    "fix without a colon": ("other", "shop"),
    "see feat: in the middle": ("other", "shop"),
    ": nothing before": ("other", "shop"),
    "feat(backend: open": ("other", "shop"),
    "": ("other", "shop"),
}


def test_types_with_their_scopes_are_those_of_conventional_commits(repository):
    folder = repository(*(commit(subject, [str(i)]) for i, subject in enumerate(SUBJECTS)))
    commits = load(folder)[0].set_index("message")[["type", "application"]]
    assert dict(zip(commits.index, commits.itertuples(index=False, name=None))) == SUBJECTS


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
    assert days_of_january(folder, days=365) == [1, 10, 18, 19, 20]


def test_a_last_commit_whose_clock_was_behind_does_not_end_the_window(repository):
    days = ("01-18", "01-20", "01-02")
    folder = repository(*(commit(when="2026-%s 10:00" % day) for day in days))
    assert days_of_january(folder, days=3) == [18, 20]


def test_a_commit_behind_one_with_a_wrong_clock_is_not_lost(repository):
    """A machine with an empty battery commits in 1970, on top of commits of today."""
    folder = repository(
        commit("before", when="2026-01-10 12:00"),
        commit("clock", when="1970-01-03 12:00"),
        commit("after", when="2026-01-20 12:00"),
    )
    assert subjects(folder) == ["before", "after"]


def test_the_window_includes_its_start_but_excludes_its_end(repository):
    times = ["01-09 23:59:59", "01-10 00:00:00", "01-10 23:59:59", "01-11 00:00:00"]
    folder = repository(*(commit(time, when="2026-" + time) for time in times))
    assert subjects(folder, days=1, end="2026-01-11") == times[1:3]
    assert subjects(folder, days=1) == times[3:], "midnight belongs to the day that begins"


@pytest.mark.parametrize("year", [1971, 1999, 2038, 2105, 2190])
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


# ---- Commits of every kind -----------------------------------------------------------------------


def test_merges_are_left_out_but_what_they_bring_is_kept(repository):
    folder = repository(
        commit("root", ["a"], "2026-01-10 12:00"),
        commit("right", ["c"], "2026-01-11 12:00", branch="side"),
        commit("left", ["b"], "2026-01-12 12:00"),
        commit("Merge side", [], "2026-01-25 12:00", merges="side"),
        commit("never merged", ["d"], "2026-01-25 12:00", branch="other"),
    )
    commits, window = load(folder)
    assert commits["message"].tolist() == ["root", "right", "left"]
    assert window.end == pd.Timestamp("2026-01-26", tz="UTC"), "the merge is the newest commit"


def test_files_are_counted_for_commits_of_every_kind(repository):
    folder = repository(
        commit("root", ["a", "b", "c"], "2026-01-10 12:00"),
        commit("empty", [], "2026-01-11 12:00"),
        commit("rename", [("a", "z")], "2026-01-12 12:00"),
        commit("deep", ["x/y/z/1", "x/y/2", "x/3"], "2026-01-13 12:00"),
    )
    commits = load(folder)[0]
    assert commits["files_changed"].tolist() == [3, 0, 2, 3], "a rename changes two paths"


def test_a_submodule_that_moved_is_a_file_changed(repository):
    folder = repository(commit("root", ["a"], "2026-01-10 12:00"))
    link = b"160000 commit " + b"1" * 40 + b"\tlib\n"
    tree = git(folder, "mktree", "--missing", input=link).strip()
    raw_commit(folder, *people("2026-01-11 12:00"), tree=tree)
    assert load(folder)[0]["files_changed"].tolist() == [1]


ODD_FILES = [
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
    "1700000000",
    "0" * 40,
]
ODD_TEXTS = [
    "/begins with a slash",
    "/" + "0" * 16,
    "/",
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
ODD_AUTHORS = [bytes_of(text).translate(None, b"<>\n") for text in ODD_TEXTS]
ODD_COMMITS = [  # they have every oddity between them
    commit(
        text,
        ODD_FILES[i % 5 : i % 5 + i % 3] + ODD_FILES[i : i + 3 * (i % 3)],
        at("2026-01-10") + 3600 * i,
        ODD_AUTHORS[-i],
    )
    for i, text in enumerate(ODD_TEXTS)
]


def test_odd_file_names_are_counted_one_by_one(repository):
    folder = repository(
        commit("all", ODD_FILES, "2026-01-10 12:00"),
        *(commit(str(i), [file], "2026-01-11 12:00") for i, file in enumerate(ODD_FILES)),
    )
    assert load(folder)[0]["files_changed"].tolist() == [len(ODD_FILES)] + [1] * len(ODD_FILES)


def test_odd_subjects_and_authors_are_read_without_what_steers_a_terminal(repository):
    commits = load(repository(*ODD_COMMITS))[0]
    expected = [bytes_of(text).decode("utf-8", "replace") for text in ODD_TEXTS]
    assert list(map(visible, commits["message"])) == list(map(visible, expected))
    expected = [ODD_AUTHORS[-i].decode("utf-8", "replace") for i in range(len(ODD_TEXTS))]
    assert list(map(as_name, commits["author"])) == list(map(as_name, expected))
    assert commits["author"].str.len().max() <= 253, "no name of Kubernetes is longer"


def test_the_table_is_what_git_says_of_each_commit_alone(repository):
    """An independent reading: a few questions to git about each commit, and no parser."""
    folder = repository(*ODD_COMMITS)
    names = ("diff-tree", "--root", "-r", "-z", "--no-commit-id", "--name-only")

    def ask(sha, what):
        printed = git(folder, "log", "-1", "--encoding=UTF-8", "--format=" + what, sha)
        return printed[:-1].decode("utf-8", "replace")

    plain = [
        (
            sha,
            int(ask(sha, "%ct")),
            as_name(ask(sha, "%an")),
            visible(ask(sha, "%s")),
            git(folder, *names, sha).count(b"\0"),
        )
        for sha in git(folder, "rev-list", "--reverse", "HEAD").decode().split()
    ]
    commits = load(folder)[0]
    times = [int(stamp.timestamp()) for stamp in commits["timestamp"]]
    texts = [map(as_name, commits["author"]), map(visible, commits["message"])]
    assert list(zip(commits["sha"], times, *texts, commits["files_changed"])) == plain


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 4096])
def test_a_repository_reads_the_same_in_chunks_of_any_size(repository, monkeypatch, size):
    folder = repository(*ODD_COMMITS[: 6 if size == 1 else None])
    expected = load(folder)[0]
    monkeypatch.setattr(module, "CHUNK", size)
    pd.testing.assert_frame_equal(load(folder)[0], expected)


def test_nobody_can_guess_what_a_record_begins_with(repository, monkeypatch):
    """A file, an author and a subject that imitate the marker of an earlier run are harmless."""
    markers, streamed = [], module.stream_git

    def spy(repo, *arguments, **more):
        markers.extend(re.findall(r"tformat:([^%]+)", " ".join(arguments)))
        return streamed(repo, *arguments, **more)

    monkeypatch.setattr(module, "stream_git", spy)
    load(repository(commit(), name="first"))
    forged = f"{markers[0]}{'0' * 40}\0".replace("\0", "%x00")
    folder = repository(commit("real", [f"x{forged}"], author=forged), commit(forged, ["b"]))
    assert subjects(folder) == ["real", forged]
    assert len(set(markers)) == len(markers)


def test_an_empty_subject_stays_empty_where_an_empty_author_is_called_nothing(repository):
    folder = repository(commit("", ["a"], author=""), commit("\n\n", ["b"]), commit("end", ["c"]))
    commits = load(folder)[0]
    assert commits["message"].tolist() == ["", "", "end"]
    assert commits["author"].tolist() == ["(nothing)", "alice", "alice"]


def test_a_subject_is_the_first_paragraph_in_one_line(repository):
    assert subjects(repository(commit("fix: one\ntwo\n\nbody\n/feat: no"))) == ["fix: one two"]


def test_a_commit_that_names_its_encoding_is_read_in_it(repository):
    texts = [text.encode("latin-1") for text in ("fix: größe", "Jürgen")]
    folder = repository(commit(texts[0], author=texts[1], encoding=b"ISO-8859-1"))
    assert load(folder)[0][["author", "message"]].to_numpy().tolist() == [["Jürgen", "fix: größe"]]


@pytest.mark.parametrize(
    "encoding", [b"no-such-encoding", b"UTF-16", b"UTF-7", b"%n", b"UTF-8\x1b[31m"]
)
def test_a_commit_that_names_an_odd_encoding_is_read(repository, encoding):
    folder = repository(commit("fix: +AAo-feat", encoding=encoding), commit("fix: next", ["b"]))
    assert load(folder)[0]["message"].iloc[-1] == "fix: next"


IMPOSSIBLE = ["99999999999999999999999", "18446744073709551615", "-5", "", "253402300800"]


@pytest.mark.parametrize("time", [*IMPOSSIBLE[:-1], "1e9", "0x10"])
def test_a_commit_with_an_impossible_time_hides_no_other(repository, time):
    folder = repository(commit("before", ["a"], "2026-01-10 12:00"))
    author = "author A <a@example.org> %d +0000" % at("2026-01-20 12:00")
    odd = raw_commit(
        folder,
        "parent " + sha_of(folder, "HEAD"),
        author,
        "committer C <c@example.org> %s +0000" % time,
    )
    raw_commit(folder, f"parent {odd}", *people("2026-01-20 12:00"), message=b"after\n")
    found = subjects(folder)
    assert found[-1] == "after"
    assert set(found) <= {"before", "fix: odd", "after"}


@pytest.mark.parametrize("time", IMPOSSIBLE)
def test_a_newest_commit_with_an_impossible_time_is_no_traceback(repository, time):
    folder = repository()
    author = "author A <a@example.org> %d +0000" % at("2026-01-20 12:00")
    raw_commit(folder, author, "committer C <c@example.org> %s +0000" % time)
    assert refusal(folder)


def test_a_path_that_begins_with_a_slash_is_no_traceback(repository):
    """Git makes no such tree, but reads one."""
    folder = repository(commit("before", ["a"], "2026-01-10 12:00"))
    blob = bytes.fromhex(sha_of(folder, "HEAD:a"))
    entries = b"".join(b"100644 %s\0%s" % (name, blob) for name in (b"a", b"/evil", b"b", b"/"))
    tree = made(folder, "tree", entries).encode()
    raw_commit(folder, *people("2026-01-11 12:00"), tree=tree)
    assert subjects_or_refusal(folder) in (["fix: odd"], None)


def test_hostile_text_does_not_reach_the_console_the_export_or_the_json(
    repository, tmp_path, capsys
):
    folder = repository(*ODD_COMMITS, name="sh\x1b[31mop\u202e")
    git(folder, "update-ref", "refs/heads/br\u202eanch", "refs/heads/main")
    git(folder, "symbolic-ref", "HEAD", "refs/heads/br\u202eanch")
    output = str(tmp_path / "out")
    arguments = ["--repo", str(folder), "--output", output, "--export", "--no-dashboard"]
    module.main([*arguments, "--runs", "2"])
    module.main([*arguments, "--json"])
    written = [path.read_text(encoding="utf-8") for path in sorted(Path(output).iterdir())]
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
    git(folder, "tag", "main")
    assert load(folder)[0]["branch"].tolist() == [branch]


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
    assert set(load(repository(commit(), name=folder, options=["--bare"]))[0]["application"]) == {
        name
    }


def test_a_repository_with_a_dot_in_its_name_keeps_it(repository):
    assert set(load(repository(commit(), name="my.shop"))[0]["application"]) == {"my.shop"}


def test_a_subfolder_and_the_data_stand_for_the_whole_repository(repository):
    folder = repository(commit("one", ["a", "inner/b", "inner/c"]), commit("two", ["d"]))
    (folder / "inner").mkdir()
    for place in (folder / "inner", folder / ".git"):
        commits = load(place)[0]
        assert commits["application"].tolist() == ["shop", "shop"]
        assert commits["files_changed"].tolist() == [3, 1]


def test_a_worktree_has_its_own_branch_but_the_name_of_its_repository(repository, tmp_path):
    folder = repository(commit("on main"), commit("on hotfix", ["b"], branch="hotfix"))
    git(folder, "worktree", "add", "-q", str(tmp_path / "elsewhere"), "hotfix")
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


def test_a_repository_of_sha_256_is_read(repository):
    files = ("apps/shop/dev/image.yaml", "apps/shop/prod/image.yaml")
    commits = [commit(file, [file]) for file in files]
    folder = repository(*commits, options=["--object-format=sha256"])
    assert load(folder)[0]["sha"].str.len().tolist() == [64, 64]
    history = module.load_gitops_repository(folder, TEMPLATE)
    assert history.deployments["commit_sha"].astype(str).str.len().tolist() == [64, 64]


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


@pytest.mark.parametrize("name", ["", "file", "missing", "git", "a\0b", "no/such/folder"])
def test_what_is_no_repository_is_refused(name, tmp_path, monkeypatch):
    """An empty folder, a file, and what is not there."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file").write_text("")
    monkeypatch.chdir(tmp_path / "empty")
    message = refusal(name or ".")
    assert "not installed" not in message
    assert "--repo" in message


def test_a_repository_without_commits_is_refused(repository):
    message = refusal(repository())
    assert "shop" in message
    assert "commits" in message


def test_a_machine_without_git_is_told_so(repository, tmp_path, monkeypatch):
    folder = repository(commit())
    monkeypatch.setenv("PATH", str(tmp_path / "home"))
    assert "git is not installed" in refusal(folder)


def lose(folder, name):
    """Take an object out of a repository."""
    sha = sha_of(folder, name)
    packs = list((folder / ".git" / "objects" / "pack").glob("pack-*"))
    contents = [path.read_bytes() for path in packs if path.suffix == ".pack"]
    for path in packs:
        path.unlink()
    for content in contents:
        git(folder, "unpack-objects", "-q", input=content)
    (folder / ".git" / "objects" / sha[:2] / sha[2:]).unlink()


@pytest.mark.parametrize("damage", ["HEAD", "branch", "commit", "tree", "config"])
def test_a_damaged_repository_is_refused_in_one_line(repository, damage):
    folder = repository(commit("one", ["a"]), commit("two", ["b"]))
    data = folder / ".git"
    if damage in ("commit", "tree"):
        lose(folder, "HEAD~1" + ("^{tree}" if damage == "tree" else ""))
    elif damage == "branch":
        (data / "refs" / "heads" / "main").write_text("1" * 40 + "\n")
    else:
        (data / damage).write_text("[\x1b[31mdamaged\n")
    assert "shop" in refusal(folder)


def test_a_refused_repository_leaves_the_earlier_tables_alone(repository, tmp_path, capsys):
    gitops = GitOpsAutomation(Scenario(), seed=1)
    commits = gitops.load_git_history(repository(commit()))
    with pytest.raises(GitOpsError):
        gitops.load_git_history(tmp_path)
    assert gitops.git_commits is commits
    assert capsys.readouterr().err == ""


# ---- What a repository must not decide -----------------------------------------------------------

DEV, PRODUCTION = "apps/größe/dev/image.yaml", "apps/größe/production/image.yaml"
MOVED = "apps/größe/dev/moved.yaml"
VERSIONS = [  # of a config repository, with all that git could show otherwise: a root, a rename,
    # merges, and a branch whose clock was ahead
    Commit(at("2026-01-05 10:00"), {DEV: "tag: 1\n"}, "feat: größe"),
    Commit(at("2026-01-06 10:00"), {PRODUCTION: "tag: 1\n"}, "promote"),
    Commit(at("2026-01-07 10:00"), {DEV: (MOVED,)}, "rename"),
    Commit(at("2026-01-08 20:00"), {MOVED: "tag: 2\n"}, "fix: two", branch="side"),
    Commit(at("2026-01-08 10:00"), {}, "merge", merges="side"),
    Commit(at("2026-01-08 22:00"), {PRODUCTION: "tag: 2\n"}, "promote", branch="side"),
    Commit(at("2026-01-09 10:00"), {}, "merge", merges="side"),
    Commit(at("2026-01-10 10:00"), {MOVED: "tag: 1\n"}, "back"),
]


def everything(folder):
    """All that is read of a repository in both ways, or why it is not."""
    found = []
    try:
        tables = [module.read_git_log(folder, 30, None, [])[0]]
        history = module.load_gitops_repository(folder, TEMPLATE)
        tables += [history.deployments, history.rollbacks, history.changes]
        found += [table.astype(object).fillna("").to_numpy().tolist() for table in tables]
    except GitOpsError as error:
        found.append(str(error))
    return found


def configure(folder, settings, **values):
    """Write settings into the repository's own configuration, known to git or not."""
    with open(str(folder / ".git" / "config"), "a", encoding="utf-8") as file:
        for key, value in settings.items():
            section, _, name = key.rpartition(".")
            head, _, rest = section.partition(".")
            rest = rest and f' "{rest}"'
            file.write(f'[{head}{rest}]\n\t{name} = "{value.format(**values)}"\n')


@pytest.fixture
def trap(tmp_path):
    """(A program that leaves a mark when it runs, its mark)."""
    marker, program = tmp_path / "marker", tmp_path / "evil"
    program.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    program.chmod(0o755)
    return program, marker


def sign(folder):
    """Put a commit with a signature on top."""
    signature = b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEz\n -----END PGP SIGNATURE-----"
    raw_commit(
        folder,
        "parent " + sha_of(folder, "main"),
        *people("2026-01-12 12:00"),
        signature,
        message=b"signed\n",
        tree=sha_of(folder, "main^{tree}").encode(),
    )


def replace(folder):
    """Replace the first commit by an empty one."""
    first = sha_of(folder, "HEAD~5")
    fake = raw_commit(folder, *people("2026-01-05 10:00"), branch="refs/heads/fake")
    git(folder, "replace", first, fake)


def give_attributes(folder):
    """Say of every file that a driver of the configuration takes care of it."""
    (folder / ".git" / "info").mkdir(exist_ok=True)
    for place in (folder / ".gitattributes", folder / ".git" / "info" / "attributes"):
        place.write_text("* diff=evil filter=evil merge=evil ident export-subst\n")


def fill_submodule(folder):
    """Have a submodule that moved, with a checkout whose own history looks like deployments."""
    inner = folder / "apps" / "lib"
    files = {"production/image.yaml": "tag: 9\n"}
    imported(
        inner, input=b"".join(stream_of([Commit(at("2026-01-01"), files, "x", branch="main")]))
    )
    git(inner, "reset", "-q", "--hard")
    git(folder, "read-tree", "HEAD")
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{sha_of(inner, 'main')},apps/lib")
    tree = git(folder, "write-tree").strip()
    parent = "parent " + sha_of(folder, "main")
    raw_commit(folder, parent, *people("2026-01-12 12:00"), message=b"lib\n", tree=tree)


NEEDED = {
    # {options of git: (what the repository does, what its configuration says)}
    "-z": (None, {}),
    "--name-only": (None, {}),
    "--no-renames": (None, {"diff.renames": "true"}),
    "--find-renames": (None, {"diff.renames": "false"}),
    "--topo-order": (None, {}),
    "--diff-merges=first-parent": (None, {"log.diffMerges": "off"}),
    "--dst-prefix=b/": (None, {"diff.noprefix": "true"}),
    "--submodule=short": (fill_submodule, {"diff.submodule": "diff"}),
    "--no-color": (None, {"color.ui": "always"}),
    "--no-textconv": (give_attributes, {"diff.evil.textconv": "{program}"}),
    "--no-replace-objects": (replace, {}),
    "core.quotePath=false": (None, {"core.quotePath": "true"}),
    "diff.orderFile=/dev/null": (None, {"diff.orderFile": "missing"}),
    "log.showRoot=true": (None, {"log.showRoot": "false"}),
    "i18n.logOutputEncoding=UTF-8 --encoding=UTF-8": (
        None,
        {"i18n.logOutputEncoding": "ISO-8859-1"},
    ),
    "log.showSignature=false --no-show-signature": (
        sign,
        {"log.showSignature": "true", "gpg.program": "{program}"},
    ),
}


def leave_out(monkeypatch, options):
    """Call git without some of its options."""
    for name in ("GIT", "GIT_LOG", "GIT_FILES", "GIT_PATCHES"):
        kept = list(getattr(module, name))
        for option in options.split():
            if option in kept:
                at = kept.index(option)
                del kept[at - (kept[at - 1] == "-c") : at + 1]
        monkeypatch.setattr(module, name, tuple(kept))


@pytest.mark.parametrize("options", NEEDED)
def test_an_option_of_git_keeps_the_repository_from_deciding(
    repository, trap, monkeypatch, options
):
    """With it the repository reads as it is; without it something else is read, or run."""
    program, marker = trap
    prepare, settings = NEEDED[options]
    folder = repository(*VERSIONS)
    if prepare is not None:
        prepare(folder)
    expected = everything(folder)
    assert len(expected) == 4 and len(expected[1]) == 4
    configure(folder, settings, program=program)
    assert everything(folder) == expected
    assert not marker.exists()
    leave_out(monkeypatch, options)
    assert everything(folder) != expected or marker.exists()


CALLS = {  # {option: (a call that no reading makes today, what the configuration says)}
    "core.fsmonitor=false": (["status"], {"core.fsmonitor": "{program}"}),
    "core.hooksPath=/dev/null": (["update-ref", "refs/new", "HEAD"], {"core.hooksPath": "{hooks}"}),
    "core.alternateRefsCommand=": (
        ["rev-list", "--alternate-refs", "HEAD"],
        {"core.alternateRefsCommand": "{program}"},
    ),
    "log.mailmap=false": (["log", "--format=short"], {}),
    "diff.relative=false": (["log", "--name-only"], {"diff.relative": "true"}),
    "--literal-pathspecs": (["log", "--format=%s", "--", ":(glob)**/image.yaml"], {}),
    "--no-optional-locks": (["status"], {}),
}


@pytest.mark.parametrize("option", CALLS)
def test_an_option_protects_calls_that_nobody_makes_yet(repository, trap, monkeypatch, option):
    """A change of the program must not open a door, so the options stand before every call."""
    program, marker = trap
    arguments, settings = CALLS[option]
    folder = repository(*VERSIONS)
    (folder / ".mailmap").write_text("Evil <evil@example.org> <a@example.org>\n")
    git(folder, "reset", "-q", "--hard")
    give_hooks(folder, program)
    other = repository(commit(), name="alternate")
    alternates = folder / ".git" / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_text(f"{other}/.git/objects\n")
    inner = folder / "apps"
    index = folder / ".git" / "index"
    configure(folder, settings, program=program, hooks=folder / ".git" / "hooks")

    def outcome():
        os.utime(str(inner / "größe" / "dev" / "moved.yaml"), (0, 0))
        marker.unlink() if marker.exists() else None
        return module.ask_git(inner, *arguments), marker.exists(), index.read_bytes()

    marked = outcome()
    assert not marked[1]
    leave_out(monkeypatch, option)
    assert outcome() != marked


def give_hooks(folder, program):
    """Make a program every hook of a repository."""
    hooks = folder / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in HOOKS:
        shutil.copy(str(program), str(hooks / name))


PROGRAMS = {  # every setting that names a program, whether or not a reading could come to it
    **dict.fromkeys(
        (
            "core.fsmonitor core.pager pager.log pager.rev-parse gpg.program gpg.openpgp.program "
            "gpg.ssh.program diff.external diff.evil.textconv diff.evil.command filter.evil.clean "
            "filter.evil.smudge filter.evil.process merge.evil.driver core.alternateRefsCommand "
            "core.editor sequence.editor core.askPass core.sshCommand core.gitProxy "
            "gc.recentObjectsHook"
        ).split(),
        "{program}",
    ),
    **dict.fromkeys(("credential.helper", "alias.log", "alias.rev-parse"), "!{program}"),
    **dict.fromkeys(("trace2.eventTarget", "trace2.normalTarget"), "{marker}"),
    **dict.fromkeys(
        ("log.showSignature", "diff.trustExitCode", "filter.evil.required", "maintenance.auto"),
        "true",
    ),
    "core.hooksPath": "{hooks}",
    "help.autoCorrect": "immediate",
    "remote.origin.vcs": "evil",
    "gc.auto": "1",
}


def test_no_program_is_run_when_the_configuration_names_all_of_them(repository, trap):
    program, marker = trap
    folder = repository(*VERSIONS)
    sign(folder)
    give_attributes(folder)
    give_hooks(folder, program)
    hooks = folder / ".git" / "hooks"
    configure(folder, PROGRAMS, program=program, marker=marker, hooks=hooks)
    assert [len(table) for table in everything(folder)] == [7, 4, 1, 2]
    assert not marker.exists()


PROMISES = {  # where an object that is missing is promised to be fetched from
    "a local upload pack": {
        "remote.origin.url": "{other}",
        "remote.origin.uploadpack": "{program}; git-upload-pack",
    },
    "an ext:: address": {"remote.origin.url": "ext::{program} %S", "protocol.ext.allow": "always"},
    "an ssh address": {
        "remote.origin.url": "ssh://example.invalid/x",
        "core.sshCommand": "{program}",
    },
}


@pytest.mark.parametrize("what", PROMISES)
def test_an_object_that_is_promised_is_not_fetched(repository, trap, tmp_path, what):
    program, marker = trap
    folder = repository(*VERSIONS)
    settings = {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "protocol.allow": "always",
        "remote.origin.promisor": "true",
        "remote.origin.partialCloneFilter": "tree:0",
        **PROMISES[what],
    }
    lose(folder, "HEAD~3^{tree}")
    configure(folder, settings, program=program, other=tmp_path)
    assert "shop" in refusal(folder)
    assert subjects(folder, days=1) == ["back"], "what is not needed does no harm"
    assert not marker.exists()
    git(folder, "log", "--name-only", check=False)
    assert marker.exists(), "the trap springs for an unwary git"


SETTINGS = [  # that would change what git prints; each alone
    {"log.follow": "true", "log.excludeDecoration": "*", "log.decorate": "full"},
    {"color.diff": "always", "diff.colorMoved": "zebra", "diff.wsErrorHighlight": "all"},
    {"log.date": "relative", "log.abbrevCommit": "true", "core.abbrev": "4"},
    {"format.pretty": "oneline", "core.commentChar": "/"},
    {"log.mailmap": "true", "mailmap.file": "{mailmap}", "mailmap.blob": "HEAD:nothing"},
    {"i18n.logOutputEncoding": "UTF-16", "i18n.commitEncoding": "UTF-16"},
    {"diff.renames": "copies", "diff.renameLimit": "1", "diff.mnemonicPrefix": "true"},
    {"diff.context": "100", "diff.interHunkContext": "100", "diff.suppressBlankEmpty": "true"},
    {"diff.algorithm": "patience", "diff.indentHeuristic": "false", "diff.wordRegex": "."},
    {"diff.orderFile": "{mailmap}"},
    {"core.precomposeUnicode": "true", "core.ignoreCase": "true"},
    {"core.worktree": "{missing}", "core.excludesFile": "{missing}"},
    {"notes.displayRef": "*", "format.notes": "true", "core.notesRef": "refs/heads/main"},
    {"submodule.recurse": "true", "diff.ignoreSubmodules": "all", "log.diffMerges": "separate"},
    {"diff.external": "false", "diff.evil.command": "false"},
]


ALL_SETTINGS = {key: value for settings in SETTINGS for key, value in settings.items()}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(ALL_SETTINGS, id="all"),
        *(pytest.param(one, id=" ".join(one), marks=pytest.mark.slow) for one in SETTINGS),
    ],
)
def test_settings_of_the_repository_do_not_change_what_is_read(repository, tmp_path, settings):
    folder = repository(*VERSIONS)
    give_attributes(folder)
    mailmap = tmp_path / "mailmap"
    mailmap.write_text("Evil <evil@example.org> <a@example.org>\n")
    (folder / ".mailmap").write_text(mailmap.read_text())
    expected = everything(folder)
    assert [len(table) for table in expected] == [6, 4, 1, 2]
    configure(folder, settings, mailmap=mailmap, missing=tmp_path / "missing")
    assert everything(folder) == expected


UNSEEN = {  # what hides every change of a file from `git log -p`
    "an attribute": ("* -diff\n", {}),
    "a binary driver": ("* diff=evil\n", {"diff.evil.binary": "true"}),
    "a threshold": ("", {"core.bigFileThreshold": "1"}),
}


@pytest.mark.parametrize("how", UNSEEN)
def test_files_that_are_called_binary_are_read(repository, how):
    """As in repositories that hide generated manifests from reviewers."""
    attributes, settings = UNSEEN[how]
    folder = repository(*VERSIONS)
    expected = everything(folder)
    (folder / ".gitattributes").write_text(attributes)
    configure(folder, settings)
    assert everything(folder) == expected


def test_grafts_do_not_cut_the_history(repository):
    folder = repository(*VERSIONS)
    expected = everything(folder)
    (folder / ".git" / "info").mkdir(exist_ok=True)
    (folder / ".git" / "info" / "grafts").write_text(sha_of(folder, "main~2") + "\n")
    assert everything(folder) == expected


@pytest.mark.parametrize(
    "setting",
    [
        "core.bare = maybe",
        "diff.algorithm = evil",
        "include.path = .",
        "extensions.evil = 1",
        "= x",
    ],
)
def test_settings_that_git_refuses_are_one_line(repository, setting):
    folder = repository(commit())
    section, _, rest = setting.partition(".")
    with open(str(folder / ".git" / "config"), "a") as file:
        file.write("[core]\n\trepositoryFormatVersion = 1\n[%s]\n\t%s\n" % (section, rest))
    assert subjects_or_refusal(folder) in (["fix: correct totals"], None)


def test_reading_leaves_the_repository_as_it_was(repository):
    folder = repository(*VERSIONS)
    git(folder, "reset", "-q", "--hard")

    def files():
        return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}

    before = files()
    assert len(everything(folder)) == 4
    assert files() == before
