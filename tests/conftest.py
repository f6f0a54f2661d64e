"""What all tests share: the path, hypothesis the same on every run, a call of the program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import argocd_documents as documents
import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable")

import gitops_automation as module  # noqa: E402  (it is on the path from here on)


def called(capsys, *arguments):
    """Call the program in this process; return (status, standard output, standard error)."""
    capsys.readouterr()
    status = 0
    try:
        module.main([str(argument) for argument in arguments])
    except SystemExit as left:
        status = left.code or 0
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


HOOKS = [
    "reference-transaction",
    "post-index-change",
    "fsmonitor-watchman",
    "post-checkout",
    "pre-auto-gc",
]
"""The hooks of a repository that reading it could run."""


def kernel_variables(home):
    """Make a Jupyter kernel of this interpreter in a folder; the variables that lead to it."""
    spec = home / "kernels" / "python3"
    spec.mkdir(parents=True)
    kernel = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    document = {"argv": kernel, "display_name": "test", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(document))
    folders = ("PATH", "DATA_DIR", "CONFIG_DIR", "RUNTIME_DIR")
    variables = {f"JUPYTER_{folder}": str(home) for folder in folders}
    return {**variables, "IPYTHONDIR": str(home), "JUPYTER_PLATFORM_DIRS": "1"}


TEMPLATE = "apps/{application}/overlays/{environment}"
"""Where the config repository of `team` has its deployments."""


def git(folder, *arguments, text=None):
    """Run git without the caller's settings; return what it prints."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", *arguments],
        cwd=str(folder),
        env={**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
        input=None if text is None else text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=True,
    )
    return done.stdout.decode().strip()


@pytest.fixture(scope="session")
def team(tmp_path_factory):
    """Make a team's folder, with its config repository `config` and its Argo CD `apps.json`.

    From 1 to 9 January 2026 version v1 to v9 of the shop comes to staging at 09:00 and to
    production at 15:00, and Argo CD has it five minutes later. On the 10th, a Saturday, production
    goes back to v8. Argo CD was asked on the 11th.
    """
    folder = tmp_path_factory.mktemp("team")
    days = [(day, name, f"v{day}") for day in range(1, 10) for name in ("staging", "production")]
    lines, times = [], []
    for day, name, version in [*days, (10, "production", "v8")]:
        hour = "09:00" if name == "staging" or day == 10 else "15:00"
        times.append((name, documents.seconds(f"2026-01-{day:02d} {hour}")))
        content = f"images:\n- name: shop\n  newTag: {version}\n"
        file = f"{TEMPLATE.format(application='shop', environment=name)}/kustomization.yaml"
        lines += [
            f"commit refs/heads/main\ncommitter ann <ann@example.org> {times[-1][1]} +0000",
            f"data <<E\nfeat: shop {version} to {name}\nE\n",
            f"M 644 inline {file}\ndata {len(content)}\n{content}",
        ]
    (folder / "config").mkdir()
    git(folder / "config", "init", "-q")
    git(folder / "config", "symbolic-ref", "HEAD", "refs/heads/main")
    git(folder / "config", "fast-import", "--quiet", text="\n".join(lines) + "\n")
    commits = git(folder / "config", "rev-list", "--reverse", "main").split()
    applications = []
    for name in ("staging", "production"):
        source = documents.source(TEMPLATE.format(application="shop", environment=name))
        synced = [(commit, time + 300) for commit, (of, time) in zip(commits, times) if of == name]
        history = [
            documents.entry(number, time, commit, source=source)
            for number, (commit, time) in enumerate(synced)
        ]
        asked = {"created": "2026-01-01 08:00", "reconciled": "2026-01-11 12:00"}
        applications.append(documents.application(f"shop-{name}", history, spec=source, **asked))
    (folder / "apps.json").write_text(json.dumps(applications), encoding="utf-8")
    return folder
