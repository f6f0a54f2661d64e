"""The package: what it says of itself. `.ci/run` installs it and runs its command."""

import re
from pathlib import Path

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
