"""Git repositories for the tests and the benchmarks, made by `git fast-import`."""

import os
import shutil
import subprocess
import tempfile
from typing import Any, Dict, NamedTuple, Optional

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
