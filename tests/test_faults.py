"""What goes wrong around the program: odd input, full disks, interrupts, hostile files."""

import collections
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
import warnings
from pathlib import Path

import pytest
import repositories
from argocd_documents import application, entry, examples, operation, releases, source
from conftest import HOOKS, called
from repositories import git

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

# fmt: off
STEER = "\0\b\x1b[2J\x7f\x9b\u200b\u2028\u202e\u2066\ufeff\ud800"
"""What would clear a screen, turn text around, begin a line or hide."""
ODD = [
    "", " ", "a\nb", STEER, "größe 🚀", "x" * 5000, "..", "-x", "%s{}", "1e999", "NaN", "-1", "0",
    "1_000", "٣", "production", "each", "2026-02-30T00:00:00Z", "9999-12-31T23:59:59Z", "1969",
    None, True, 0, -1, 2, 0.5, 1e308, float("inf"), 2**63, 10**400, [], {}, [[]], [2, 1],
]
# fmt: on


def attempt(*arguments):
    """Return how a call of the program ends: `well`, `refused` with one line, or what is wrong."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")
    )
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(
        err
    ), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            module.main([*map(str, arguments), "--no-dashboard", "--output", "out", "--runs", "2"])
        except SystemExit as left:
            status = left.code or 0
    shown, said = (text.flush() or text.buffer.getvalue().decode() for text in (out, err))
    unsafe = {char for char in shown + said if unicodedata.category(char) in ("Cc", "Cf", "Cs")}
    lines = said.count("\n")
    if status in (0, 2) and lines == status // 2 and len(said) < 3000 and unsafe <= {"\n"}:
        return "refused" if status else "well"
    return f"status {status}, {lines} lines: {said[:300]!r}, {sorted(unsafe)}"


def places(document):
    """Every (container, key) of a document."""
    keys = document if isinstance(document, dict) else ()
    keys = range(len(document)) if isinstance(document, list) else list(keys)
    return [one for key in keys for one in [(document, key), *places(document[key])]]


def mutated(rng, document):
    """A document with a few values deleted, doubled, renamed, moved or of another type."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        found = places(document) or [({}, "")]
        (holder, key), (other, place) = rng.choice(found), rng.choice(found)
        change = rng.randrange(6)
        if change == 0:
            holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
        elif change == 1:
            holder[key] = json.loads(json.dumps(other[place]))
        elif change == 2 and isinstance(holder, dict):
            holder[str(rng.choice(ODD))] = holder.pop(key, None)
        elif change == 3:
            holder[key] = [holder.get(key)] * 3 if isinstance(holder, dict) else [holder[key]]
        else:
            holder[key] = rng.choice(ODD)
    return document


def odd_json(rng, document):
    """A mutated document as JSON; one in eight is cut off."""
    text = json.dumps(mutated(rng, document), ensure_ascii=rng.random() < 0.5)
    raw = text.encode("utf-8", "surrogatepass")
    return raw[: rng.randrange(len(raw))] if rng.random() < 0.125 else raw


def odd_csv(rng, raw):
    """A CSV file with one of its cells replaced."""
    lines = raw.split(b"\n")
    at = rng.randrange(len(lines))
    cells = lines[at].split(b",")
    cells[rng.randrange(len(cells))] = str(rng.choice(ODD)).encode("utf-8", "surrogatepass")
    return b"\n".join([*lines[:at], b",".join(cells), *lines[at + 1 :]])


def configuration(rng, small):
    Path("odd.json").write_bytes(odd_json(rng, small))
    return [rng.choice(["--config", "--what-if"]), "odd.json", "--days", "3", "--seed", "1"]


def argocd(rng, _):
    documents = rng.sample(list(examples().values()), 3)
    Path("odd.json").write_bytes(odd_json(rng, documents))
    return ["--argocd", "odd.json", *rng.choice([[], ["--json"], ["--what-if", "elite"]])]


def tables(rng, _):
    shutil.rmtree("odd", ignore_errors=True)
    shutil.copytree("history", "odd")
    path = rng.choice(sorted(Path("odd").iterdir()))
    raw = path.read_bytes()
    odd = odd_json(rng, json.loads(raw)) if path.suffix == ".json" else odd_csv(rng, raw)
    path.write_bytes(odd)
    return ["--history", "odd", *rng.choice([[], ["--details"]])]


@pytest.mark.slow
@pytest.mark.parametrize("sort", [configuration, argocd, tables])
def test_odd_input_ends_well_or_with_one_line(sort):
    small = json.loads(module.Scenario().with_team(commits_per_day=3).to_json())
    Path("argo.json").write_text(json.dumps(list(examples().values())))
    assert attempt("--argocd", "argo.json", "--export") == "well"
    Path("out").rename("history")
    ends = collections.Counter()
    for seed in range(50 if sort is tables else 150):  # reading tables takes longest
        end = attempt(*sort(random.Random(seed), small))
        assert end in ("well", "refused"), seed
        ends[end] += 1
    assert min(ends["well"], ends["refused"]) >= 5


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


def test_a_disk_that_becomes_full_leaves_no_file_where_none_was(capsys):
    with room_for_files_of(9000):
        refusal(*called(capsys, "--seed", 1, *RUN, "--no-dashboard")[::2])
    assert contents() == {}


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

PROGRAMS = """
core.fsmonitor core.pager core.sshCommand core.gitProxy core.alternateRefsCommand core.askPass
core.editor remote.origin.uploadpack diff.external diff.evil.textconv diff.evil.command
filter.evil.clean filter.evil.smudge filter.evil.process gpg.program alias.log alias.cat-file
alias.rev-parse credential.helper
""".split()
"""Settings of a repository that name a program."""


@pytest.fixture
def trapped(tmp_path):
    """Make a repository that names a program wherever it can.

    Return its folder, its commits, and the file that the program would make.
    """
    folder, canary, program, hooks = (
        tmp_path / name for name in ("shop", "canary", "evil", "hooks")
    )
    repositories.grown(folder, 4, 86400, lambda number: b"apps/file%d" % number)
    signature = b"\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n i\n -----END PGP SIGNATURE-----\n\n"
    signed = git(folder, "cat-file", "commit", "main").replace(b"\n\n", signature, 1)
    made = git(folder, "hash-object", "-t", "commit", "-w", "--stdin", input=signed)
    commits = [*git(folder, "rev-list", "--reverse", "main").split(), made.strip()]
    git(folder, "update-ref", "refs/heads/main", commits[-1])
    hooks.mkdir()
    for place in [program, *(hooks / name for name in HOOKS)]:
        place.write_text(f"#!/bin/sh\ntouch '{canary}'\n")
        place.chmod(0o755)
    settings = {"core.hooksPath": hooks, **dict.fromkeys(PROGRAMS, program)}
    settings.update({"log.showSignature": "true", "protocol.allow": "always"})
    settings.update({"remote.origin.url": tmp_path, "remote.origin.promisor": "true"})
    included, attributes = tmp_path / "included", folder / ".git" / "info" / "attributes"
    included.write_text(f"[gpg]\n\tprogram = {program}\n[core]\n\tfsmonitor = {program}\n")
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("* diff=evil filter=evil\n")
    for name, value in {**settings, "include.path": included}.items():
        git(folder, "config", name, str(value))
    return folder, [commit.decode() for commit in commits], canary


@pytest.mark.parametrize(
    "command", [["log", "-1"], ["status"], ["cat-file", "-e", "ab" * 20]], ids=" ".join
)
def test_the_traps_do_spring_for_an_unwary_git(trapped, command):
    folder, _, canary = trapped
    git(folder, *command, check=False)
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


def test_an_application_cannot_steer_the_terminal():
    Path("argo.json").write_text(json.dumps(hostile()))
    assert attempt("--argocd", "argo.json", "--details") == "well"


# fmt: off
GREEDY = {
    "a long name": lambda: application("-" * 1_000_000 + "a", releases("a", "b")),
    "a long path": lambda: application("a", releases("a", "b", source=source("../a/" * 200_000))),
    "a thousand sources": lambda: application(
        "a", releases("a", "b", sources=[source()] * 1000), sources=[source()] * 1000),
    "back and forth": lambda: application("a", releases(*["a", "b"] * 2500)),
    "a label of spaces": lambda: application(
        "a", releases("a"), labels={"environment": " " * 1_000_000 + "x"}),
    "spaces and commas": lambda: " ,\n" * 500_000 + json.dumps(application("a", releases("a"))),
    "brackets": lambda: "[" * 1_000_000,
    "digits": lambda: '{"id": ' + "9" * 1_000_000,
    "almost YAML": lambda: " " * 1_000_000 + "a" * 1_000_000,
}
# fmt: on


@pytest.mark.slow
@pytest.mark.parametrize("what", GREEDY)
def test_no_document_takes_long(what):
    document = GREEDY[what]()
    Path("argo.json").write_text(document if isinstance(document, str) else json.dumps(document))
    start = time.perf_counter()
    assert attempt("--argocd", "argo.json") in ("well", "refused")
    assert time.perf_counter() - start < 5


def test_random_text_is_refused_with_one_line():
    for seed in range(100):
        rng = random.Random(seed)
        text = bytes(rng.choice(b'[]{}",:0eE+-.\\u \n\x00\xff') for _ in range(rng.randint(0, 60)))
        Path("argo.json").write_bytes(text)
        assert attempt("--argocd", "argo.json") == "refused"
