"""The commits of real repositories: read whole, read right, and read without running anything."""

import os
import unicodedata

import pandas as pd
import pytest
from repositories import Commit, bytes_of, git, stream_of

import gitops_automation as module
from gitops_automation import COLUMNS, GitOpsError

TEMPLATE = "apps/{application}/{environment}"


def at(time):
    return int(pd.Timestamp(time, tz="UTC").timestamp())


def commit(subject="fix: totals", files=("a.txt",), when="2026-01-30 12:00", author="al", **more):
    """A commit that writes something new into its files."""
    seconds = when if isinstance(when, int) else at(when)
    texts = {file: f"{subject!r} {seconds} {number}" for number, file in enumerate(files)}
    return Commit(seconds, texts, subject, author, **more)


def raw_commit(folder, *lines, message=b"fix: odd\n"):
    """Put a commit object of exactly these header lines on the branch, however odd."""
    tree = git(folder, "mktree", input=b"").strip()
    body = b"\n".join([b"tree " + tree, *map(bytes_of, lines), b"", message])
    made = git(folder, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", input=body)
    git(folder, "update-ref", "refs/heads/main", made.decode().strip())
    return made.decode().strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A function that makes a repository with the commits it is given; its folder."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(*commits, name="shop", options=()):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        git(folder, "init", "-q", "-b", "main", "--template=", *options)
        if commits:
            git(folder, "fast-import", "--quiet", input=b"".join(stream_of(commits)))
        return folder

    return make


def load(folder, days=30, end=None, applications=("backend", "database")):
    """(Commits, window), every invariant checked."""
    end = None if end is None else pd.Timestamp(end, tz="UTC")
    commits, window = module.read_git_log(folder, days, end, applications)
    assert list(commits.columns) == list(COLUMNS["git_commits"])
    assert commits["timestamp"].is_monotonic_increasing
    assert commits["timestamp"].between(window.start, window.end).all()
    for column in ("author", "type", "application", "branch", "message"):
        assert not any(map(hostile, commits[column])), column
    return commits, window


def hostile(text):
    """Whether a terminal would do something else than show the text."""
    return any(unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in text)


def visible(text):
    """What is left of a text without what a terminal must not get, and without spaces."""
    return "".join(one for one in text if not hostile(one) and not one.isspace())


def refusal(folder, **options):
    """The message, one printable line, with which a load is refused."""
    with pytest.raises(GitOpsError) as caught:
        load(folder, **options)
    assert not hostile(str(caught.value))
    return str(caught.value)


def subjects(folder, **options):
    return load(folder, **options)[0]["message"].tolist()


# ---- Columns and the window ----------------------------------------------------------------------


def test_every_column_of_a_commit_is_read(repository):
    """The committer's time counts, which is a minute after the author's here."""
    folder = repository(
        commit("feat(backend): trail", ["a", "b/c", "d e"], "2026-01-29 08:30:15", "Ada Lovelace"),
        commit("docs: say what it does", ["README"], "2026-01-30 23:59:59", "Bob"),
        commit("side", ["s"], "2026-01-30 10:00", branch="side"),
        commit("merge", [], "2026-01-30 23:59:59", merges="side"),
    )
    commits, window = load(folder)
    assert commits.iloc[0].to_dict() == {
        "sha": git(folder, "rev-parse", "HEAD~2").decode().strip(),
        "timestamp": pd.Timestamp("2026-01-29 08:30:15", tz="UTC"),
        "author": "Ada Lovelace",
        "type": "feat",
        "application": "backend",
        "branch": "main",
        "message": "feat(backend): trail",
        "files_changed": 3,
    }
    assert commits["message"].tolist()[1:] == ["side", "docs: say what it does"], "no merge"
    assert window == (pd.Timestamp("2026-01-01", tz="UTC"), pd.Timestamp("2026-01-31", tz="UTC"))


SUBJECTS = {
    "feat: add filters": ("feat", "shop"),
    "feat!: drop the old address": ("feat", "shop"),
    "feat(backend)!: drop the old address": ("feat", "backend"),
    "FIX: upper case": ("fix", "shop"),
    "Fix(Backend): another name": ("fix", "shop"),
    "fix(backend,frontend): two": ("fix", "shop"),
    "refactor(): no scope": ("refactor", "shop"),
    "perf(database): index": ("perf", "database"),
    "revert: feat(backend): no": ("revert", "shop"),
    "features: no type of the convention": ("other", "shop"),
    "see feat: in the middle": ("other", "shop"),
    "feat(backend: open": ("other", "shop"),
    "": ("other", "shop"),
}


def test_types_with_their_scopes_are_those_of_conventional_commits(repository):
    folder = repository(*(commit(subject, [str(i)]) for i, subject in enumerate(SUBJECTS)))
    commits = load(folder)[0].set_index("message")[["type", "application"]]
    assert dict(zip(commits.index, commits.itertuples(index=False, name=None))) == SUBJECTS


def test_the_window_ends_with_the_day_of_the_newest_commit_whatever_the_clocks(repository):
    """A machine with an empty battery commits in 1970, on top of commits of today."""
    days = ("2026-01-01", "2026-01-18", "1970-01-03", "2026-01-20", "2026-01-02")
    folder = repository(*(commit(when=f"{day} 10:00") for day in days))
    commits, window = load(folder, days=3)
    assert window == (pd.Timestamp("2026-01-18", tz="UTC"), pd.Timestamp("2026-01-21", tz="UTC"))
    assert commits["timestamp"].dt.day.tolist() == [18, 20]
    assert len(load(folder, days=365)[0]) == 4


def test_the_window_includes_its_start_but_excludes_its_end(repository):
    times = ["01-09 23:59:59", "01-10 00:00:00", "01-10 23:59:59", "01-11 00:00:00"]
    folder = repository(*(commit(time, when="2026-" + time) for time in times))
    assert subjects(folder, days=1, end="2026-01-11") == times[1:3]
    assert subjects(folder, days=1) == times[3:], "midnight belongs to the day that begins"
    assert "2025-06-05" in refusal(folder, days=5, end="2025-06-10")


# ---- Commits and repositories of every kind ------------------------------------------------------

# fmt: off
ODD_FILES = [
    ' leading', 'trailing ', 'two\nlines', '\nbegins with a line end', 'quo"ted', 'back\\slash',
    'tab\there', '\xfcn\xefc\xf6d\xe9/\u6587\u4ef6', '-x', '--output=evil', ':(glob)*', "a" * 200,
    '\x1b[31mred', '\u202ereversed', b'\xff\xfe not utf-8', b'half a letter \xe2\x82',
    '1700000000', '0000000000000000000000000000000000000000',
]
# fmt: on
# fmt: off
ODD_TEXTS = [
    '/begins with a slash', '/0000000000000000', '/', 'tab\there', 'carriage\rreturn',
    'bell\x07 backspace\x08 delete\x7f form\x0c vertical\x0b', '\x1b[31mred\x1b[0m',
    '\x1b]0;title\x07', '\x9b31m eight bit', 'next\x85line', 'line\u2028paragraph\u2029end',
    '\u202egpj.exe\u202c', '\u2066isolated\u2069 \u200emarks\u200f \u061c', '\ufeffmark',
    '\u65e5\u672c\u8a9e \U0001f680 e\u0301', '  spaces  around  ',
    '%H%x00 $HOME `id` $(id) ; | &', "x" * 5000, b'\xff\xfe not utf-8', b'half a letter \xe2\x82',
    b'lone surrogate \xed\xa0\x80', b'overlong \xc0\xaf', '-n',
]
# fmt: on
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
            visible(ask(sha, "%an"))[:200] or "(nothing)",
            visible(ask(sha, "%s")),
            git(folder, *names, sha).count(b"\0"),
        )
        for sha in git(folder, "rev-list", "--reverse", "HEAD").decode().split()
    ]
    commits = load(folder)[0]
    times = [int(stamp.timestamp()) for stamp in commits["timestamp"]]
    texts = [commits["author"].map(visible).str[:200], commits["message"].map(visible)]
    assert list(zip(commits["sha"], times, *texts, commits["files_changed"])) == plain


@pytest.mark.parametrize("size", [64, 1000, 4096])
def test_a_repository_reads_the_same_in_chunks_of_any_size(repository, monkeypatch, size):
    folder = repository(*ODD_COMMITS)
    expected = load(folder)[0]
    monkeypatch.setattr(module, "CHUNK", size)
    pd.testing.assert_frame_equal(load(folder)[0], expected)


IMPOSSIBLE = ["99999999999999999999999", "18446744073709551615", "-5", "", "1e9"]


@pytest.mark.parametrize("time", IMPOSSIBLE)
def test_a_commit_with_an_impossible_time_hides_no_other(repository, time):
    folder = repository(commit("before", ["a"], "2026-01-10 12:00"))
    parent = git(folder, "rev-parse", "HEAD").decode().strip()
    author, committer = (f"{role} A <a@example.org> %s +0000" for role in ("author", "committer"))
    odd = raw_commit(folder, f"parent {parent}", author % at("2026-01-20"), committer % time)
    there = [line % at("2026-01-20 12:00") for line in (author, committer)]
    raw_commit(folder, f"parent {odd}", *there, message=b"after\n")
    found = subjects(folder)
    assert found[-1] == "after"
    assert set(found) <= {"before", "fix: odd", "after"}


def test_a_subfolder_a_worktree_and_the_data_stand_for_the_whole_repository(repository, tmp_path):
    folder = repository(commit("one", ["a", "inner/b"]), commit("two", ["d"], branch="hotfix"))
    (folder / "inner").mkdir()
    git(folder, "worktree", "add", "-q", str(tmp_path / "elsewhere"), "hotfix")
    for place, branch, count in [
        (folder / "inner", "main", 1),
        (folder / ".git", "main", 1),
        (tmp_path / "elsewhere", "hotfix", 2),
    ]:
        commits = load(place)[0]
        assert commits["application"].tolist() == ["shop"] * count
        assert set(commits["branch"]) == {branch}
        assert commits["files_changed"].tolist() == [2, 1][:count]


@pytest.mark.parametrize("name", [".", "file", "missing", "a\0b"])
def test_what_is_no_repository_is_refused(name, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    assert "--repo" in refusal(name)


def test_a_repository_without_commits_and_a_machine_without_git_are_refused(
    repository, tmp_path, monkeypatch
):
    assert "commits" in refusal(repository())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in refusal(tmp_path / "shop")


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
    try:
        history = module.load_gitops_repository(folder, TEMPLATE)
        tables = [module.read_git_log(folder, 30, None, [])[0]]
        tables += [history.deployments, history.rollbacks, history.changes]
        return [table.astype(object).fillna("").to_numpy().tolist() for table in tables]
    except GitOpsError as error:
        return [str(error)]


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
    body = git(folder, "cat-file", "commit", "main").replace(
        b"\n\n", b"\n" + signature + b"\n\n", 1
    )
    made = git(folder, "hash-object", "-t", "commit", "-w", "--stdin", input=body)
    git(folder, "update-ref", "refs/heads/main", made.decode().strip())


def replace(folder):
    """Replace the first commit by an empty one."""
    tip = git(folder, "rev-parse", "main").decode().strip()
    first = git(folder, "rev-parse", "main~5").decode().strip()
    people = [f"{role} A <a@example.org> 1767607200 +0000" for role in ("author", "committer")]
    git(folder, "replace", first, raw_commit(folder, *people))
    git(folder, "update-ref", "refs/heads/main", tip)


NEEDED = {  # {options of git: (what the repository does, what its configuration says)}
    "-z": (None, {}),
    "--no-renames": (None, {"diff.renames": "true"}),
    "--diff-merges=first-parent": (None, {}),
    "--no-replace-objects": (replace, {}),
    "diff.orderFile=/dev/null": (None, {"diff.orderFile": "missing"}),
    "log.showRoot=true": (None, {"log.showRoot": "false"}),
    "--encoding=UTF-8": (None, {"i18n.logOutputEncoding": "ISO-8859-1"}),
    "log.showSignature=false": (sign, {"log.showSignature": "true", "gpg.program": "{program}"}),
}


@pytest.mark.parametrize("option", NEEDED)
def test_an_option_of_git_keeps_the_repository_from_deciding(repository, trap, monkeypatch, option):
    """With it the repository reads as it is; without it something else is read, or run."""
    program, marker = trap
    prepare, settings = NEEDED[option]
    folder = repository(*VERSIONS)
    if prepare is not None:
        prepare(folder)
    expected = everything(folder)
    assert [len(table) for table in expected] == [6, 4, 1, 3]
    configure(folder, settings, program=program)
    assert everything(folder) == expected
    assert not marker.exists()
    for name in ("GIT", "GIT_LOG"):
        kept = list(getattr(module, name))
        if option in kept:
            place = kept.index(option)
            del kept[place - (kept[place - 1] == "-c") : place + 1]
        monkeypatch.setattr(module, name, tuple(kept))
    assert everything(folder) != expected or marker.exists()
