"""What all tests share: the path, hypothesis the same on every run, a call of the program."""

import json
import sys
from pathlib import Path

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
