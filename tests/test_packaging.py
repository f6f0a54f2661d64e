"""The package: what it says of itself, and that an installation gives a working command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gitops_automation as module

try:
    import tomllib
except ImportError:  # before Python 3.11; pytest brings it
    import tomli as tomllib

ROOT = Path(module.__file__).resolve().parent
SOURCE = Path(module.__file__).read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
SCRIPT_BLOCK = r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
"""Inline script metadata, as the packaging specification finds it."""


def project():
    return tomllib.loads(PYPROJECT)["project"]


def script_metadata():
    (found,) = re.finditer(SCRIPT_BLOCK, SOURCE)
    return tomllib.loads(re.sub("(?m)^# ?", "", found["content"]))


def test_a_package_a_script_and_a_requirements_file_ask_for_the_same_packages():
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert len(required) == 4
    assert project()["dependencies"] == script_metadata()["dependencies"] == required


def test_a_package_and_a_script_ask_for_the_same_python():
    assert project()["requires-python"] == script_metadata()["requires-python"] == ">=3.8"


def test_the_first_line_is_a_title_that_folds_the_cell_in_colab():
    first = SOURCE.splitlines()[0]
    assert re.fullmatch(r'# @title GitOps [^{}]+ \{ display-mode: "form" \}', first)
    assert module.__doc__.startswith("Simulate a GitOps delivery pipeline")


def installed(folder):
    """Install a copy of the checkout, without the network, and return the folder it is in."""
    setuptools = pytest.importorskip("setuptools", "61")
    if int(setuptools.__version__.split(".")[0]) < 71:
        pytest.importorskip("wheel")
    copy, target = folder / "copy", folder / "installed"
    copy.mkdir()
    for name in ("gitops_automation.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    for name in ("output", "tests"):
        (copy / name).mkdir()
        (copy / name / "some.py").write_text("")
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--target", target]
    pip = [sys.executable, "-m", "pip", "install", *options, copy]
    subprocess.run([str(part) for part in pip], check=True)
    return target


@pytest.mark.slow
def test_an_installation_is_the_module_and_its_command(tmp_path):
    folder = installed(tmp_path)
    names = {path.name for path in folder.iterdir()} - {"__pycache__", "bin"}
    assert names == {
        "gitops_automation.py",
        f"gitops_automation-{module.__version__}.dist-info",
    }
    (command,) = (folder / "bin").iterdir()
    assert command.stem == "gitops-automation"
    arguments = ["--seed", "7", "--end", "2026-01-31", "--no-dashboard", "--runs", "2"]
    done = subprocess.run(
        [str(command), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(folder), "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "GITOPS WORKFLOW AUTOMATION REPORT" in done.stdout.decode("utf-8")
