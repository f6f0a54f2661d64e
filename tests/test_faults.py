"""What goes wrong around the program: odd input, full disks, interrupts, hostile files."""

import contextlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import load
import pytest
from argocd_documents import application, entry, operation, releases, source
from conftest import HOOKS, called

import gitops_automation as module

FILES = ["commits.csv", "deployments.csv", "gitops_dashboard.png", "metrics.json", "rollbacks.csv"]
RUN = ["--end", "2026-01-31", "--output", "out", "--export", "--runs", "2"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def contents(folder="out"):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


EARLIER = {}


@pytest.fixture
def before(capsys):
    """The files of an earlier run, made once, and one of the user's: {name: content}."""
    if not EARLIER:
        assert called(capsys, "--seed", 1, *RUN)[0] == 0
        EARLIER.update(contents(), **{"mine.txt": b"mine"})
        assert sorted(EARLIER) == sorted([*FILES, "mine.txt"])
    Path("out").mkdir(exist_ok=True)
    for name, content in EARLIER.items():
        Path("out", name).write_bytes(content)
    return dict(EARLIER)


# ---- Odd input ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sort", load.SORTS)
def test_odd_input_ends_well_or_with_one_line(sort):
    """`python tests/load.py fuzz --seed N --cases 1` repeats the case with the seed N."""
    ends, failures = load.fuzz(
        sort, {"git repositories": 25, "Argo CD documents": 80, "tables": 80}.get(sort, 150), seed=1
    )
    assert failures == []
    assert ends["well"] >= 5


def test_the_fuzzing_would_notice():
    """An exception, a warning, two lines, and a control character."""

    def printed(text, stream="stdout"):
        return lambda: getattr(sys, stream).write(text)

    calls = [
        lambda: 1 / 0,
        printed("a\n", "stderr"),
        printed("a\nb\n", "stderr"),
        printed("\x1b[2J"),
        printed("\u202e"),
    ]
    assert [load.attempt(call)[0] for call in calls] == ["failed"] * len(calls)
    assert load.attempt(printed("größe 🚀\n")) == ("well", "")
    assert load.attempt(lambda: module.main(["--days", "x"])) == ("refused", "")


# ---- A folder that becomes full or read-only ----------------------------------------------------


def refusal(status, err):
    assert status == 2
    assert re.fullmatch(r"gitops_automation\.py: error: cannot write into out: [^\n]*\n", err)
    return err


@contextlib.contextmanager
def room_for_files_of(size):
    """Let no file grow beyond so many bytes, as on a full disk: a part of it is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.999])
def test_a_disk_that_becomes_full_leaves_the_earlier_files(before, capsys, share):
    largest = max(len(before[name]) for name in FILES if not name.endswith(".png"))
    with room_for_files_of(int(share * largest)):
        status, _, err = called(capsys, "--seed", 1, *RUN, "--no-dashboard")
    assert "too large" in refusal(status, err)
    assert contents() == before


@pytest.mark.slow
def test_a_disk_without_room_for_the_picture_leaves_the_earlier_files(before, capsys):
    with room_for_files_of(len(before["gitops_dashboard.png"]) // 2):
        refusal(*called(capsys, "--seed", 2, *RUN)[::2])
    assert contents() == before


def test_a_disk_that_becomes_full_leaves_no_file_where_none_was(capsys):
    with room_for_files_of(9000):
        refusal(*called(capsys, "--seed", 1, *RUN, "--no-dashboard")[::2])
    assert contents() == {}


@pytest.mark.parametrize("at", [1, 4])
def test_a_file_system_that_turns_read_only_leaves_the_earlier_files(
    before, capsys, monkeypatch, at
):
    """tests/test_export.py lets the moving of the files fail."""
    make, calls = os.urandom, []

    def call(*arguments, **options):
        calls.append(arguments)
        if len(calls) == at:
            raise OSError(30, "Read-only file system")
        return make(*arguments, **options)

    monkeypatch.setattr(os, "urandom", call)
    assert "Read-only" in refusal(*called(capsys, "--seed", 2, *RUN, "--no-dashboard")[::2])
    assert contents() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_becomes_read_only_during_the_work_leaves_the_earlier_files(
    before, capsys, monkeypatch
):
    roll_back = module.simulate_rollbacks
    monkeypatch.setattr(
        module, "simulate_rollbacks", lambda *given: os.chmod("out", 0o500) or roll_back(*given)
    )
    try:
        assert "Permission denied" in refusal(
            *called(capsys, "--seed", 2, *RUN, "--no-dashboard")[::2]
        )
    finally:
        os.chmod("out", 0o700)
    assert contents() == before


# ---- Interrupts ---------------------------------------------------------------------------------


# A shell that starts the tests in the background has told their children to ignore SIGINT.
UNIGNORED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, sys.argv[1:])
"""


def test_an_interrupt_during_the_imports_is_quiet(tmp_path):
    (tmp_path / "numpy.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport nothing\n"
    )
    command = [sys.executable, "-c", UNIGNORED, sys.executable, module.__file__]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def interrupted_after(delay):
    """Interrupt a run so many seconds after its first line of output.

    Return (status, standard output, standard error, seconds).
    """
    command = [sys.executable, "-u", "-W", "error", module.__file__, "--seed", "2", *RUN]
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        [sys.executable, "-c", UNIGNORED, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables,
    )
    with process:
        process.stdout.readline()
        start = time.perf_counter()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.decode("utf-8"), err, time.perf_counter() - start


@pytest.mark.slow
def test_an_interrupt_at_any_moment_is_quiet(before):
    """It leaves whole files, the old or the new, from the first line of the output to the last.

    An interrupt of the interpreter's start, of its imports or of its end is not ours to answer.
    """
    status, _, err, whole = interrupted_after(60)
    assert (status, err) == (0, b"")
    new, moments, met = contents(), 5, set()
    for moment in range(moments):
        for name, content in before.items():
            Path("out", name).write_bytes(content)
        status, out, err, _ = interrupted_after(0.05 + (whole - 0.05) * moment / (moments - 1))
        assert status in (0, 130) or (status == -signal.SIGINT and "Performance Tier" in out)
        # one that comes while the interpreter destroys an object is swallowed with these words
        assert err.partition(b"Exception ignored")[0] == b""
        assert sorted(contents()) == sorted(before)
        assert all(content in (before[name], new[name]) for name, content in contents().items())
        met.add(status)
    assert met & {130, -signal.SIGINT}


# ---- Hostile repositories -----------------------------------------------------------------------

CONFIGURATION = """
[core]
    fsmonitor = {program}
    pager = {program}
    sshCommand = {program}
    gitProxy = {program}
    hooksPath = {hooks}
    alternateRefsCommand = {program}
    askPass = {program}
    editor = {program}
    repositoryFormatVersion = 1
[extensions]
    partialClone = origin
[remote "origin"]
    url = {other}
    promisor = true
    partialCloneFilter = tree:0
    uploadpack = {program}; git-upload-pack
[diff]
    external = {program}
[diff "evil"]
    textconv = {program}
    command = {program}
[filter "evil"]
    clean = {program}
    smudge = {program}
    process = {program}
[gpg]
    program = {program}
[log]
    showSignature = true
[alias]
    log = !{program}
    cat-file = !{program}
    rev-parse = !{program}
[credential]
    helper = !{program}
[protocol]
    allow = always
[include]
    path = {included}
"""


@pytest.fixture
def trapped(tmp_path):
    """Make a repository that names a program wherever it can.

    Return its folder, its commits, and the file that the program would make.
    """
    folder, canary, program, hooks = (
        tmp_path / name for name in ("shop", "canary", "evil", "hooks")
    )
    load.grown(folder, 4, 86400, lambda number: b"apps/file%d" % number)
    commits = load.git(folder, "rev-list", "--reverse", "main").decode().split()
    signed = load.git(folder, "cat-file", "commit", "main").replace(
        b"\n\n",
        b"\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEzBAABCAAdFiEE\n"
        b" -----END PGP SIGNATURE-----\n\n",
        1,
    )
    commits.append(
        load.git(folder, "hash-object", "-t", "commit", "-w", "--stdin", input=signed)
        .decode()
        .strip()
    )
    load.git(folder, "update-ref", "refs/heads/main", commits[-1])
    hooks.mkdir()
    for place in [
        program,
        *(data / name for data in (hooks, folder / ".git" / "hooks") for name in HOOKS),
    ]:
        place.parent.mkdir(exist_ok=True)
        place.write_text(f"#!/bin/sh\ntouch '{canary}'\n")
        place.chmod(0o755)
    included = tmp_path / "included"
    included.write_text(f"[gpg]\n\tprogram = {program}\n[core]\n\tfsmonitor = {program}\n")
    for place in (folder / ".gitattributes", folder / ".git" / "info" / "attributes"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("* diff=evil filter=evil\n")
    values = dict(program=program, hooks=hooks, included=included, other=tmp_path)
    (folder / ".git" / "config").write_text(CONFIGURATION.format(**values))
    return folder, commits, canary


@pytest.mark.parametrize(
    "command", [["log", "-1"], ["status"], ["cat-file", "-e", "ab" * 20]], ids=" ".join
)
def test_the_traps_do_spring_for_an_unwary_git(trapped, command):
    folder, _, canary = trapped
    load.git(folder, *command, check=False)
    assert canary.exists()


def test_no_program_of_the_repository_is_run(trapped, capsys):
    """tests/test_git_history.py tries them one by one."""
    folder, _, canary = trapped
    status, out, err = called(capsys, "--repo", folder, "--no-dashboard", "--runs", 2)
    assert (status, err) == (0, "")
    assert "Read 4 commits" in out
    assert not canary.exists()


def test_no_program_of_a_config_repository_is_run(trapped, capsys):
    """Revisions that the clone lacks are asked for too: what could fetch them is not called."""
    folder, commits, canary = trapped
    entries = releases(*commits[:2], "ab" * 20, *commits[2:], source=source("apps"))
    Path("argo.json").write_text(json.dumps(application("shop-prod", entries)))
    status, out, err = called(
        capsys, "--argocd", "argo.json", "--repo", folder, "--no-dashboard", "--runs", 2
    )
    assert not canary.exists()
    assert status == 0 or err.count("\n") == 1
    assert status == 0 and "Read " in out, err


# ---- Hostile Argo CD documents ------------------------------------------------------------------

STEER = "".join(
    map(
        chr,
        [
            *range(0x20),
            *range(0x7F, 0xA0),
            0x200B,
            0x200E,
            0x2028,
            0x2029,
            0x202E,
            0x2066,
            0xFEFF,
            0xD800,
        ],
    )
)
"""What would clear a screen, turn text around, begin a line or hide."""


def hostile():
    text = f"x{STEER}y"
    there = source(text, repoURL=text, helm={"valueFiles": [text]})
    entries = [
        entry(number, f"2026-01-05 1{number}:00", text + str(number), source=there)
        for number in range(3)
    ]
    return application(
        "shop" + STEER,
        entries,
        labels={"environment": "prod" + STEER, text: text},
        annotations={text: text},
        namespace=text,
        operation=operation("Failed", "2026-01-06 10:00", "2026-01-06 10:01", text, text),
        health="Degraded",
        health_message=text,
        reconciled="2026-01-07 00:00",
        destination={"name": text, "namespace": text},
        spec=there,
    )


GREEDY = {
    "a name of a million characters": lambda: application(
        "-" * 1_000_000 + "a", releases("a", "b")
    ),
    "a path of a million characters": lambda: application(
        "a", releases("a", "b", source=source("../a/" * 200_000))
    ),
    "a thousand sources": lambda: application(
        "a", releases("a", "b", sources=[source()] * 1000), sources=[source()] * 1000
    ),
    "a message of a million lines": lambda: application(
        "a",
        releases("a"),
        operation=operation(
            "Failed", "2026-01-06 10:00", "2026-01-06 10:01", "b", "x\n" * 1_000_000
        ),
    ),
    "a label of a million spaces": lambda: application(
        "a", releases("a"), labels={"environment": " " * 1_000_000 + "x"}
    ),
    "five thousand entries back and forth": lambda: application("a", releases(*["a", "b"] * 2500)),
    "a hundred thousand labels": lambda: application(
        "a", releases("a"), labels={str(n): "x" for n in range(100_000)}
    ),
    "spaces and commas": lambda: " ,\n" * 500_000 + json.dumps(application("a", releases("a"))),
    "brackets": lambda: "[" * 1_000_000,
    "a list in a list": lambda: "[" * 900 + "]" * 900,
    "digits": lambda: json.dumps(application("a", releases("a"))).replace(
        '"id": 0', '"id": ' + "9" * 1_000_000
    ),
    "backslashes": lambda: '"' + "\\\\" * 1_000_000,
    "almost YAML": lambda: " " * 1_000_000 + "a" * 1_000_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("what", GREEDY)
def test_no_document_takes_long(what):
    document = GREEDY[what]()
    Path("argo.json").write_text(document if isinstance(document, str) else json.dumps(document))
    start = time.perf_counter()
    end = load.attempt(
        lambda: module.main(
            ["--argocd", "argo.json", "--no-dashboard", "--runs", "2", "--output", "out"]
        )
    )
    assert end in [("well", ""), ("refused", "")]
    assert time.perf_counter() - start < 5


def test_random_text_is_refused_with_one_line():
    for seed in range(100):
        rng = random.Random(seed)
        Path("argo.json").write_bytes(
            bytes(rng.choice(b'[]{}",:0eE+-.\\u \n\x00\xff') for _ in range(rng.randint(0, 60)))
        )
        assert load.attempt(lambda: module.main(["--argocd", "argo.json", "--output", "out"])) == (
            "refused",
            "",
        )
