"""What the program bears: sizes of a large company.

`python tests/load.py [what ...]` runs some of the following, or all. `year` is a year of 20 million
commits, `repository` is a git repository of 1.4 million commits, `config` a config repository of
250,000, `argocd` is ten thousand applications. Nothing here is a test.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

import argocd_documents as argo
import benchmarks
from measuring import apart, child_gibibytes, gibibytes, paired, row, timed

import gitops_automation as gitops

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


def main():
    parts = {
        "year": lambda: in_process(f"year({options.commits})"),
        "repository": repository_rows,
        "config": config_rows,
        "argocd": argocd_rows,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help=f"some of {', '.join(parts)} (default: all)")
    parser.add_argument(
        "--commits", type=int, default=20_000_000, help="of the year (default: 20 million)"
    )
    options = parser.parse_args()
    row("what", "figure", "note")
    for what in options.what or parts:
        parts[what]()


if __name__ == "__main__":
    main()
