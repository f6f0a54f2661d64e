"""What all tests share: the path, hypothesis the same on every run, a call of the program."""

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
