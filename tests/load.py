"""What the program bears: sizes of a large company, and odd input.

`python tests/load.py [what ...]` runs some of the following, or all. `year` is a year of 20 million
commits, `fuzz` is ten thousand odd inputs of each sort, `repository` is a git repository of 1.4
million commits, `config` a config repository of 250,000, `argocd` is ten thousand applications.
Nothing here is a test; tests/test_faults.py runs a little of the fuzzing.
"""

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import unicodedata
import warnings
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

import argocd_documents as argo
import benchmarks
from measuring import apart, child_gibibytes, gibibytes, paired, row, timed

import gitops_automation as gitops

HANGS = 20  # seconds after which a case is given up


MEMORY = 24 * 10**9  # bytes that a part may have


def in_process(call):
    """Run a function of this module in a process of its own: two cores and 24 GB."""
    apart(call, f"import load; load.{call}", MEMORY)


def peak():
    """Return the most memory that this process has had, and the largest of its children."""
    child = child_gibibytes()
    return f"peak {gibibytes():.1f} GiB" + (f", git {child:.1f}" if child else "")


# ---- A year of a large company ------------------------------------------------------------------


def year(commits):
    """Print the seconds of each layer, one after the other as in a run, and the peak memory."""
    scenario, window = benchmarks.busy(commits)

    def layer(name, run):
        seconds, result = timed(run)
        row(f"year: {name}", f"{seconds:.1f} s", f"{len(result):,} rows, {peak()}")
        return result

    table = layer("commits_table", lambda: gitops.commits_table(scenario.team, window, 1))
    deployments = layer(
        "simulate_deployments", lambda: gitops.simulate_deployments(table, scenario, window, 1)[0]
    )
    rollbacks = layer(
        "simulate_rollbacks", lambda: gitops.simulate_rollbacks(deployments, scenario.rollback, 1)
    )
    history = gitops.History(table, deployments, rollbacks, window, tuple(scenario.names))
    layer("measure", lambda: gitops.measure(history).values)


# ---- Large repositories -------------------------------------------------------------------------


GIT = shutil.which("git") or "git"


def git(folder, *arguments, check=True, variables=(), **options):
    """What git prints, with nobody's configuration but the repository's."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    clean.update(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1", LC_ALL="C")
    clean.update(variables)
    return subprocess.run(
        [GIT, "-C", str(folder), *arguments],
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=check,
        close_fds=False,  # with a full path: no fork, which costs more the more is loaded
        **options,
    ).stdout


def imported(folder, check=True, **stream):
    """A repository of what `git fast-import` reads."""
    os.makedirs(str(folder), exist_ok=True)
    git(folder, "init", "-q", "-b", "main", "--template=")
    command = ("fast-import", "--quiet", "--force", "--date-format=raw-permissive")
    git(folder, *command, check=check, **stream)
    return str(folder)


class Commit(NamedTuple):
    """A commit to make. A file is {path: its text}; None deletes it, and (new,) renames it."""

    seconds: int
    files: Dict[Any, Any]
    message: Any
    author: Any = "ann"
    branch: str = "main"
    merges: Optional[str] = None  # a branch whose files it brings
    encoding: Optional[bytes] = None


def stream_of(commits):
    """What `git fast-import` reads for commits. A branch begins at main as it is."""
    written = {"main": {}}
    for one in commits:
        message, author = bytes_of(one.message), bytes_of(one.author)
        yield b"commit refs/heads/%s\n" % one.branch.encode()
        yield b"author %s <a@example.org> %d +0000\n" % (author, one.seconds - 60)
        yield b"committer %s <c@example.org> %d +0000\n" % (author, one.seconds)
        yield b"encoding %s\n" % one.encoding if one.encoding else b""
        yield b"data %d\n%s\n" % (len(message), message)
        yield b"" if one.branch in written else b"from refs/heads/main\n"
        yield b"merge refs/heads/%s\n" % one.merges.encode() if one.merges else b""
        files = {**written.get(one.merges, {}), **one.files}
        written.setdefault(one.branch, {}).update(files)
        for path, content in files.items():
            if content is None:
                yield b"D %s\n" % quoted(path)
            elif isinstance(content, tuple):
                yield b"R %s %s\n" % (quoted(path), quoted(content[0]))
            else:
                data = bytes_of(content)
                yield b"M 100644 inline %s\ndata %d\n%s\n" % (quoted(path), len(data), data)
        yield b"\n"


def bytes_of(text):
    return text if isinstance(text, bytes) else text.encode()


def quoted(path):
    return b'"' + b"".join(b"\\%03o" % byte for byte in bytes_of(path)) + b'"'


COMMIT = (
    b"commit refs/heads/main\ncommitter P%d <p@example.org> %d +0000\n"
    b"data %d\n%s\nM 100644 :%d %s\n\n"
)
FIRST = 1_600_000_000


def grown(folder, count, step, path):
    """Make a repository of commits `step` seconds apart; each changes one file, path(number)."""
    with tempfile.TemporaryFile() as stream:
        for mark in range(1, 98):
            stream.write(b"blob\nmark :%d\ndata 2\n%02d\n" % (mark, mark))
        for number in range(count):
            message = b"%s(backend): change %d" % ((b"feat", b"fix", b"docs")[number % 3], number)
            file, mark = path(number), 1 + number % 97
            stream.write(
                COMMIT % (number % 500, FIRST + number * step, len(message), message, mark, file)
            )
        stream.seek(0)
        return imported(folder, stdin=stream)


def repository(folder, days):
    against_bare_log(
        f"repository: read_git_log, {days:,} days",
        folder,
        lambda: gitops.read_git_log(folder, days, None, ["backend"])[0],
    )


def log_of(read):
    """Return what a call returns, and the `git log` of commits with their files that it runs."""
    logs, opened = [], gitops.git_output

    def spy(repo, *arguments, **more):
        logs.append([*gitops.GIT, *arguments])
        return opened(repo, *arguments, **more)

    gitops.git_output = spy
    result = read()
    gitops.git_output = opened
    return result, next(one for one in logs if any("tformat" in option for option in one))


def against_bare_log(what, folder, read):
    """Print what reading a repository costs: seconds, those of the one `git log` it needs, memory.

    The log runs with the same options and throws away what it prints.
    """
    table, log = log_of(read)
    memory = peak()
    ours, least, ratio = paired(
        read,
        lambda: subprocess.run(log, cwd=folder, check=True, stdout=subprocess.DEVNULL),
        times=3,
    )
    row(what, f"{ours:.1f} s", f"{len(table):,} rows, {memory} (aim: 1 GiB)")
    row("  over the bare git log", f"{ratio:.2f}", f"aim: 1.5 ({ours:.1f} s over {least:.1f} s)")


def repository_rows(count=1_400_000):
    with tempfile.TemporaryDirectory() as folder:
        for size in (count // 10, count):
            at = os.path.join(folder, str(size))
            step = 3650 * 86400 // size  # ten years of them
            grown(at, size, step, lambda number: b"file%d" % (number % 50))
            for days in (3651, 30):
                in_process(f"repository({at!r}, {days})")


# ---- Large config repositories ------------------------------------------------------------------

STAGES = ("dev", "staging", "production")
LAYOUT = "apps/{application}/overlays/{environment}"
OVERLAY = (
    b"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    b"resources:\n- ../../base\nnamespace: %d\nreplicas:\n- name: web\n  count: 3\n"
    b"images:\n- name: registry.example.org/web\n  newTag: v%d\n"
)


def travels(commits, applications=150):
    """Yield a stream of commits: each version goes to dev, staging and production in turn.

    Production gets every second version, and now and then goes back to the one before the last.
    """
    for number in range(commits):
        application, turn = number % applications, number // applications
        version, step = divmod(turn, len(STAGES))
        shown = version - 2 * (step == 2 and version % 24 == 22)  # a rollback now and then
        if step == 2 and version % 2:
            step, shown = 0, version + 10**6  # a fix, which the next one carries along
        path = b"apps/%d/overlays/%s/kustomization.yaml" % (application, STAGES[step].encode())
        text, message = OVERLAY % (application, shown), b"Bump %d to v%d" % (application, shown)
        seconds = FIRST + number * 1000  # eight years of a quarter of a million
        yield b"commit refs/heads/main\ncommitter P%d <p@example.org> %d +0000\n" % (
            number % 500,
            seconds,
        )
        yield b"data %d\n%s\nM 100644 inline %s\n" % (len(message), message, path)
        yield b"data %d\n%s\n" % (len(text), text)


def config(folder):
    against_bare_log(
        "config: load_gitops_repository",
        folder,
        lambda: gitops.load_gitops_repository(folder, LAYOUT).deployments,
    )


def config_rows(count=250_000):
    with tempfile.TemporaryDirectory() as folder:
        for size in (count // 10, count):
            at = os.path.join(folder, str(size))
            with tempfile.TemporaryFile() as stream:
                stream.writelines(travels(size))
                stream.seek(0)
                imported(at, stdin=stream)
            row(f"config: {size:,} commits", "")
            in_process(f"config({at!r})")


# ---- Many applications --------------------------------------------------------------------------


def fleet(file, revisions, order):
    """Write applications with ten history entries each.

    Entry `e` of application `a` deploys revisions[order(a, e)].
    """
    applications = []
    for number in range(len(revisions) // 10):
        there = argo.source(f"apps/{number // 100}/{number}")
        shas = [revisions[order(number, entry)] for entry in range(10)]
        entries = argo.releases(*shas, start=FIRST + 9_000_000 + number, source=there)
        stage = ("dev", "staging", "prod")[number % 3]
        applications.append(argo.application(f"app{number // 3}-{stage}", entries, spec=there))
    Path(file).write_text(json.dumps(applications), encoding="utf-8")


def argocd(file, repo, note):
    """Print what reading applications costs, over the least that it takes."""
    history = gitops.load_argocd(file, repo)
    found = f"{len(history.deployments):,} deployments, {peak()}"
    times = 1 if repo else 3
    ours, least, ratio = paired(
        lambda: gitops.load_argocd(file, repo),
        lambda: json.loads(Path(file).read_text()),
        times=times,
    )
    row(f"argocd: load_argocd, {note}", f"{ours:.1f} s", found)
    aim = f"aim: 3 ({ours:.1f} s over {least:.1f} s)"
    row("  over json.loads of the file", f"{ratio:.2f}", "" if repo else aim)


def snapshots(folder, days, applications=100):
    """Write what Argo CD shows of applications each day: one syncs each ten hours, ten are kept."""
    files = []
    for day in range(days):
        now, last, documents = FIRST + (day + 1) * 86400, (day + 1) * 86400 // 36_000, []
        for number in range(applications):
            ends = [(sync, FIRST + sync * 36_000 + number) for sync in range(last)[-10:]]
            entries = [argo.entry(sync, end, argo.revision(sync * 1000)) for sync, end in ends]
            more = dict(created=FIRST, reconciled=now)
            documents.append(argo.application(f"app{number}-prod", entries, **more))
        files.append(os.path.join(folder, f"{day}.json"))
        Path(files[-1]).write_text(json.dumps(documents), encoding="utf-8")
    return files


def year_of_snapshots():
    """Print the seconds for each megabyte of a quarter of a year of snapshots, and of all of it."""
    with tempfile.TemporaryDirectory() as folder:
        files = snapshots(folder, 365)
        size, part = (sum(map(os.path.getsize, some)) / 1e6 for some in (files, files[:91]))
        ours, least, ratio = paired(
            lambda: gitops.load_argocd(files), lambda: gitops.load_argocd(files[:91]), times=3
        )
        row("argocd: a year of daily snapshots of 100 applications", f"{ours:.1f} s", peak())
        each = f"{1000 * least / part:.1f} and {1000 * ours / size:.1f} ms a megabyte"
        label = "  a megabyte of all of it over one of a quarter"
        row(label, f"{ratio * part / size:.2f}", f"aim: 1 ({each})")


def argocd_rows(applications=10_000):
    count = 10 * applications
    with tempfile.TemporaryDirectory() as folder:
        file, repo = os.path.join(folder, "applications.json"), os.path.join(folder, "repository")
        side_by_side = lambda number, entry: 10 * number + entry  # noqa: E731
        fleet(file, list(map(argo.revision, range(count))), side_by_side)
        in_process(f"argocd({file!r}, None, '{applications:,} applications without a repository')")
        path = lambda number: b"apps/%d/%d/values" % (number // 1000, number // 10)  # noqa: E731
        grown(repo, count, 60, path)
        fleet(file, git(repo, "rev-list", "--reverse", "main").decode().split(), side_by_side)
        in_process(f"argocd({file!r}, {repo!r}, 'each with its commits in one repository')")
        in_process("year_of_snapshots()")


# ---- Odd inputs: how one ends -------------------------------------------------------------------


class Hangs(BaseException):
    pass


def _give_up(*_):
    raise Hangs


def attempt(call, stdin=b""):
    """Return how a call ends: ("well", ""), ("refused", "") with one line, or ("failed", why)."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")
    )
    status, kept, before = 0, sys.stdin, signal.signal(signal.SIGALRM, _give_up)
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(
            err
        ), warnings.catch_warnings():
            warnings.simplefilter("error")
            call()
    except SystemExit as left:
        status = left.code or 0
    except gitops.GitOpsError as error:
        status = err.write(f"{error}\n") and 2
    except (Exception, Hangs) as error:
        frames = traceback.extract_tb(error.__traceback__)[-1:]
        places = [f"{frame.name}, line {frame.lineno}" for frame in frames]
        return "failed", f"{type(error).__name__}: {str(error)[:120]!r} in {' '.join(places)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.stdin = kept
    return verdict(
        status, *(text.flush() or text.buffer.getvalue().decode() for text in (out, err))
    )


UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # what could steer a terminal, or hide


def verdict(status, out, err):
    odd = {character for character in out + err if unicodedata.category(character) in UNSAFE} - {
        "\n"
    }
    lines = err.count("\n")
    if odd:
        return "failed", f"control characters reach the console: {sorted(odd)}"
    if status == 0 and (lines == 0 or lines == 1 and ": warning: " in err):
        return "well", ""
    if status == 2 and lines == 1 and len(err) < 3000:
        return "refused", ""
    return "failed", f"status {status}, {lines} lines on stderr: {err[:200]!r}"


# ---- Odd inputs: documents ----------------------------------------------------------------------

TIMES = [
    "2026-01-05T10:00:00Z",
    "2026-01-05T10:00:00.123456789+23:59",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00",
]
# fmt: off
ODD_TEXTS = [
    "", " ", "\0", "a\nb", "\x1b[2J\x1b]0;owned\x07", "\u202eevil", "\u2028", "\ud800", "größe 🚀",
    "x" * 5000,
]
# fmt: on
ODD_TEXTS += "x -x -- .. ../../etc / {} %s%n 1e999 NaN -1 0 null ٣ 1_000 a,b=c =".split()
ODD_TEXTS += ["production", "dev", "each", "<deep>", "<huge>"]
ODD_TEXTS += [*TIMES, "1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "a" * 40]
# fmt: off
ODD_VALUES = [
    None, True, False, 0, -1, 1, 2, 7, 0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), 2**63,
    10**400, [], {}, [[]], [None], [1, 2], [2, 1], [0, 1, 5, 9], {"": 1}, {"a": None},
    {"a": 1, "b": 0}, {"name": "x"},
]
# fmt: on


def places(document):
    """Every (container, key) of a document."""
    keys = (
        list(document)
        if isinstance(document, dict)
        else range(len(document) if isinstance(document, list) else 0)
    )
    for key in keys:
        yield document, key
        yield from places(document[key])


def mutated(rng, document):
    """A document with a few values deleted, moved, renamed or of another type."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 8])):
        found = list(places(document))
        if not found:
            break
        (holder, key), (other, place) = rng.choice(found), rng.choice(found)
        change = rng.randrange(8)
        if change == 0:
            del holder[key]
        elif change == 1:
            holder[key] = copy.deepcopy(other[place])
        elif change == 2 and isinstance(holder, dict):
            holder[rng.choice(ODD_TEXTS)] = holder.pop(key)
        elif change == 3 and isinstance(holder[key], list) and len(holder[key]) < 50:
            holder[key] = holder[key] * rng.choice([2, 3, 30])
        elif change == 4:
            holder[key] = [holder[key]]
        else:
            holder[key] = copy.deepcopy(rng.choice(rng.choice([ODD_TEXTS, ODD_VALUES])))
    return document


def as_bytes(rng, document):
    """A document as JSON, some of it cut, doubled or sprinkled with other bytes."""
    deep = rng.choice([1, 40, 900, 100_000])
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    text = text.replace('"<deep>"', "[" * deep + "]" * deep).replace('"<huge>"', "9" * 5000)
    raw = text.encode("utf-8", "surrogatepass")
    change, at = rng.randrange(20), rng.randrange(len(raw) + 1)
    if change == 0:
        return raw[:at]
    if change == 1:
        return raw[:at] + bytes([rng.randrange(256)]) * rng.choice([1, 3]) + raw[at:]
    if change == 2:
        return raw + raw
    return b"\xef\xbb\xbf" + raw if change == 3 else raw


def written(folder, name, content):
    path = Path(folder, name)
    path.write_bytes(content)
    return str(path)


def bounded(document):
    """Return the same configuration with few commits: a valid one may ask for millions."""
    team = document.get("team") if isinstance(document, dict) else None
    if isinstance(team, dict):
        rate, factors = team.get("commits_per_day"), team.get("weekday_factors")
        factors = [
            x for x in (factors if isinstance(factors, list) else ()) if isinstance(x, (int, float))
        ]
        if isinstance(rate, (int, float)) and 9 < rate <= 1e6:
            team["commits_per_day"] = 9
        if max(factors, default=0) > 9:
            team["weekday_factors"] = [1, 0, 0.5, 2, 1, 9, 0]
    return document


def quick(rng, folder):
    """Options that keep a run small."""
    output, runs = str(Path(folder, "out")), str(rng.randint(2, 5))
    return ["--no-dashboard", "--output", output, "--runs", runs, "--seed", "7"]


def configuration(rng, folder):
    document = bounded(mutated(rng, json.loads(gitops.Scenario().to_json())))
    file = written(folder, "scenario.json", as_bytes(rng, document))
    more = rng.choice(
        [["--print-config"], ["--print-config"], ["--json"], [], ["--what-if", file], ["--export"]]
    )
    return lambda: gitops.main([*quick(rng, folder), "--days", "3", "--config", file, *more])


def argocd_document(rng, folder):
    documents = [
        mutated(rng, document)
        for document in rng.sample(list(argo.examples().values()), rng.randint(1, 4))
    ]
    file = written(
        folder,
        "applications.json",
        as_bytes(rng, rng.choice([documents, {"items": documents}, documents[0]])),
    )
    more = rng.choice([[], ["--json"], ["--export"], ["--what-if", "elite"], ["--details"]])
    return lambda: gitops.main([*quick(rng, folder), "--argocd", file, *more])


# ---- Odd inputs: command lines ------------------------------------------------------------------

SWITCHES = ["--print-config", "--export", "--json", "--details", "--version", "-h", "--no", "x"]
OPTIONS = {
    "--days": ["1", "5", "90", "400", "0", "-1", "1e3", "9" * 25, "100000", "+7"],
    "--end": "2026-01-31 2026-02-30 1970-01-01 1970-01-02 2200-01-01 2200-01-02 0000-00-00".split(),
    "--seed": ["0", "8", str(2**63 - 1), str(2**63), "-1", "1.5"],
    "--config": ["{folder}/good.json", "{folder}/bad.json", "{folder}", "{folder}/none"],
    "--repo": ["{folder}/repo", "{folder}", "{folder}/none", "{folder}/good.json"],
    "--argocd": ["{folder}/argo.json", "{folder}/good.json", "{folder}/none", "-"],
    "--environment-label": ["environment", "env"],
    "--tags": ["v*", "*", "[", "none"],
    "--application": ["shop*", "*", "[", "none"],
    "--ignore-authors": ["bot$", "(", "(?P<n>.)|(y)", "\\", "(" * 3000],
    "--incident-days": ["1", "0", "x"],
    "--environments": ["dev,staging,production=prod-*", "dev", ",", "a=*", "f0,f1", "=x"],
    "--deployments-from": [
        "apps/{application}/{environment}/values.yaml",
        *"apps/{environment} {environment}/x x {".split(),
    ],
    "--history": ["{folder}/history", "{folder}", "{folder}/none"],
    "--incidents": ["{folder}/incidents.csv", "{folder}/good.json", "{folder}/none"],
    "--compare": ["{folder}/history/metrics.json", "{folder}/good.json", "{folder}/none"],
    "--by": ["week", "month", "day"],
    "--runs": ["2", "5", "1", "0", "100001", "2.0"],
    "--cost-per-failed-hour": ["0", "120", "1e9", "999999999.999999999"],
    "--output": ["{folder}/out", "{folder}/good.json", "{folder}/good.json/x", "/dev/null/x"],
    "--alert-webhook": ["http://x y/"]
    + "http://127.0.0.1:9/x https://[ ftp://x http://a:0/ http://u@h/".split(),
}
CHANGES = "0 1 0.5 3 4:12 1:2:3 12:4 *0.5 *0 *10 *1e308 *-1 1: : each soak".split()


def what_if(rng):
    if rng.random() < 0.2:
        files = ["{folder}/good.json", "{folder}/bad.json"]
        return rng.choice(["traditional", "elite", "gitops", "Elite", *files])
    groups = gitops.Scenario().groups.items()
    knobs = [f"{name}.{knob}" for name, group in groups for knob in vars(group)]
    knobs += ["team.authors", "qa.success_rate", "production", "environments.0"]
    values = [rng.choice(CHANGES if rng.random() < 0.8 else ODD_TEXTS) for _ in range(3)]
    return ",".join(f"{rng.choice(knobs)}={value}" for value in values[: rng.choice([1, 1, 3])])


def command_line(rng, folder):
    """Any options, most of them with values that they know."""
    arguments = quick(rng, folder)
    if rng.random() < 0.03:
        arguments = arguments[1:]
    for _ in range(rng.randint(1, 5)):
        kind = rng.random()
        if kind < 0.2:
            arguments.append(rng.choice(SWITCHES))
        elif kind < 0.45:
            arguments += ["--what-if", what_if(rng)]
        else:
            flag = rng.choice(list(OPTIONS))
            arguments += [flag, rng.choice(OPTIONS[flag] if rng.random() < 0.85 else ODD_TEXTS)]
    arguments = [argument.replace("{folder}", str(folder)) for argument in arguments]
    return lambda: gitops.main(arguments)


def prepared(folder):
    """What the command lines name."""
    written(folder, "good.json", gitops.Scenario().with_team(commits_per_day=3).to_json().encode())
    written(folder, "bad.json", b'{"team": {"commits_per_day": -1}}')
    written(folder, "argo.json", json.dumps(list(argo.examples().values())).encode())
    stages = (b"dev", b"prod", b"uat")
    grown(
        Path(folder, "repo"),
        30,
        40_000,
        lambda number: b"apps/%d/%s/values.yaml" % (number % 2, stages[number % 3]),
    )
    arguments = [
        "--argocd",
        str(Path(folder, "argo.json")),
        "--export",
        "--no-dashboard",
    ]
    gitops.main([*arguments, "--runs", "2", "--output", str(Path(folder, "history"))])
    incidents = b"application,started,resolved\nshop,2026-01-05T12:00:00Z,2026-01-05T13:00:00Z\n"
    written(folder, "incidents.csv", incidents)


# ---- Odd inputs: tables ----------------------------------------------------------------------


def odd_cell(rng, raw):
    """Return a CSV file with one of its cells replaced."""
    lines = raw.split(b"\n")
    at = rng.randrange(len(lines))
    cells = lines[at].split(b",")
    values = [str(value) for value in [*ODD_TEXTS, *ODD_VALUES[:14]]]
    cells[rng.randrange(len(cells))] = rng.choice(values).encode("utf-8", "surrogatepass")
    lines[at] = b",".join(cells)
    return b"\n".join(lines)


def odd_tables(rng, folder):
    """Read an export of which something is odd, and odd incidents."""
    copy_ = Path(tempfile.mkdtemp(dir=str(folder)))
    for path in Path(folder, "history").iterdir():
        (copy_ / path.name).write_bytes(path.read_bytes())
    incidents = Path(written(copy_, "calls.csv", Path(folder, "incidents.csv").read_bytes()))
    for path in rng.sample(sorted(copy_.iterdir()), rng.choice([0, 1, 1, 2])):
        raw = path.read_bytes()
        if path.suffix == ".json":
            path.write_bytes(as_bytes(rng, mutated(rng, json.loads(raw))))
        elif rng.random() < 0.2:
            path.write_bytes(raw[: rng.randrange(len(raw))])
        elif rng.random() < 0.1:
            path.unlink()
        else:
            path.write_bytes(odd_cell(rng, raw))
    more = rng.choice([[], ["--incidents", str(incidents)], ["--by", "week"], ["--json"]])
    return lambda: gitops.main([*quick(rng, folder), "--history", str(copy_), *more])


# ---- Odd inputs: repositories ------------------------------------------------------

ODD_BYTES = [
    b"feat(backend): add",
    b"fix!: x",
    b"\xff\xfe",
    b"\xe2\x80\xaeevil",
    b"\x1b[2J\x07",
    b"",
    b" ",
    b"\r",
    b"/",
]
ODD_BYTES += [
    b"x" * 3000,
    b"a\tb",
    "größe 🚀".encode(),
    b"feat(" * 50,
    b"\xed\xa0\x80",
    b"(): x",
    b"-",
    b"revert",
]
ODD_BYTES += [
    b"This reverts commit " + b"a" * 40,
    b"Argocd-reference-commit-sha: x\nArgocd-reference-commit-date: y",
]
ODD_TIMES = [
    0,
    1,
    FIRST,
    FIRST + 86400,
    2**31,
    2**32,
    7_258_118_399,
    7_258_118_400,
    2**40,
    10**15,
    2**62,
]


def odd_commits(rng):
    """A stream for `git fast-import`: odd people, times, messages, paths, merges and roots."""
    for mark in range(1, rng.randint(2, 12)):
        branch = rng.choice([b"main", b"main", b"main", b"side", "größe".encode(), b"-x", b"a/b"])
        who = rng.choice(ODD_BYTES).translate(None, b"\n<>\0") or b"A"
        message = b"\n".join(rng.sample(ODD_BYTES, rng.randint(1, 3)))
        yield b"commit refs/heads/%s\nmark :%d\n" % (branch, mark)
        yield b"committer %s <%s> %d %s\n" % (
            who,
            who[:9],
            rng.choice(ODD_TIMES),
            rng.choice([b"+0000", b"-9959"]),
        )
        yield (
            b"encoding %s\n" % rng.choice([b"UTF-16", b"latin-1", b"evil"])
            if rng.random() < 0.1
            else b""
        )
        yield b"data %d\n%s\n" % (len(message), message)
        yield b"from :%d\n" % rng.randrange(1, mark) if mark > 1 and rng.random() < 0.7 else b""
        yield b"merge :%d\n" % rng.randrange(1, mark) if mark > 1 and rng.random() < 0.3 else b""
        for _ in range(rng.randint(0, 4)):
            name = rng.choice(ODD_BYTES)[:200].replace(b"/", b"_") or b"f"
            path = rng.choice([b"", b"apps/shop/dev/", b"apps/shop/prod/", name + b"/dev/"]) + name
            mode = rng.choice(
                [b"100644 inline", b"100755 inline", b"120000 inline", b"160000 " + b"ab" * 20]
            )
            text = b"tag: " + rng.choice(ODD_BYTES)
            yield b"M %s %s\n" % (mode, quoted(path))
            yield b"data %d\n%s\n" % (len(text), text) if mode.endswith(b"inline") else b""
        yield b"\n"


def damaged(rng, data):
    """Break something in a `.git` folder, or nothing."""
    change = rng.randrange(12)
    if change == 0:
        (data / "HEAD").write_bytes(
            rng.choice([b"ref: refs/heads/none\n", b"", b"\0\xff", b"a" * 40 + b"\n"])
        )
    elif change in (1, 2, 3):
        objects = sorted((data / "objects").glob("??/*"))
        for path in objects and rng.sample(objects, 1):
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content[: len(content) // 2]) if change == 1 else None
    elif change == 4:
        (data / "config").write_bytes(
            rng.choice([b"[core\n", b"[core]\nbare = true\n", b"\xff", b""])
        )
    elif change == 5:
        (data / "shallow").write_bytes(rng.choice([b"a" * 40 + b"\n", b"x\n", b""]))


def odd_repository(rng, folder):
    """Read an odd repository on its own, or as the config repository of some applications."""
    repo = Path(tempfile.mkdtemp(dir=str(folder)))
    imported(repo, check=False, input=b"".join(odd_commits(rng)))
    shas = git(repo, "rev-list", "--all", check=False).decode().split() or [argo.revision(1)]
    damaged(rng, repo / ".git")
    entries = argo.releases(
        *rng.choices(shas, k=4), source=argo.source(rng.choice(["", "f", "x", "größe 🚀"]))
    )
    file = written(
        repo, "applications.json", json.dumps(argo.application("shop-prod", entries)).encode()
    )
    told = ["--deployments-from", rng.choice(["apps/{application}/{environment}", "{environment}"])]
    more = rng.choice(
        [
            ["--days", "7"],
            ["--days", "20000"],
            ["--argocd", file],
            ["--argocd", file, "--json"],
            ["--deployments-from"],
            told,
            [*told, "--argocd", file, "--export"],
            [*told, "--environments", "dev,production=*", "--json"],
        ]
    )
    return lambda: gitops.main([*quick(rng, folder), "--repo", str(repo), *more])


SORTS = {
    "configurations": configuration,
    "command lines": command_line,
    "Argo CD documents": argocd_document,
    "tables": odd_tables,
    "git repositories": odd_repository,
}


def fuzz(sort, cases, seed):
    """Return how often the cases of a sort ended how, and the failures as (seed, why)."""
    ends, failures = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        prepared(folder)
        for number in range(seed, seed + cases):
            rng = random.Random(f"{sort} {number}")
            end, why = attempt(SORTS[sort](rng, folder), b'{"items": []}')
            ends[end] += 1
            failures += [(number, why)] if why else []
    return ends, failures


def fuzz_rows(cases=10_000, seed=1):
    for sort in SORTS:
        count = -(-cases // 25) if sort == "git repositories" else cases
        seconds, (ends, failures) = timed(lambda: fuzz(sort, count, seed))  # noqa: B023
        note = f"{ends['well']:,} well, {ends['refused']:,} refused with a line, {seconds:.0f} s"
        row(f"fuzz: {count:,} {sort}", f"{len(failures)} failed", note)
        for number, why in failures[:10]:
            row(f"  --seed {number} --cases 1: {why}", "")


def main():
    parts = {
        "year": lambda: in_process(f"year({options.commits})"),
        "fuzz": lambda: fuzz_rows(options.cases, options.seed),
        "repository": repository_rows,
        "config": config_rows,
        "argocd": argocd_rows,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help=f"some of {', '.join(parts)} (default: all)")
    parser.add_argument(
        "--commits", type=int, default=20_000_000, help="of the year (default: 20 million)"
    )
    parser.add_argument(
        "--cases", type=int, default=10_000, help="of each sort of fuzzing (default: 10,000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first case (default: 1)")
    options = parser.parse_args()
    row("what", "figure", "note")
    for what in options.what or parts:
        parts[what]()


if __name__ == "__main__":
    main()
