"""How tests/benchmarks.py measures: seconds, ratios of pairs, peak memory, a line.

The speed of a machine changes from one minute to the next, so two things are compared in turn and
the median of the ratios is given.
"""

import contextlib
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path.insert(0, str(ROOT))


def timed(run):
    """Return (seconds, result) of a call."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def seconds(run):
    """Return the seconds that a call takes."""
    return timed(run)[0]


def paired(run, floor, times):
    """Return the medians of the seconds of `run`, of `floor`, and of their ratio, in turn."""
    pairs = [(seconds(run), seconds(floor)) for _ in range(times)]
    return tuple(statistics.median(c) for c in zip(*((a, b, a / b) for a, b in pairs)))


def program(*command):
    """Return a call that runs a program to its end and throws away what it prints."""
    line = [sys.executable, *map(str, command)]
    return lambda: subprocess.run(line, check=True, stdout=subprocess.DEVNULL, cwd=str(TESTS))


def gibibytes():
    """Return the most memory that this process has had.

    Linux says it in `VmHWM`; `ru_maxrss` would begin with that of the process which started it.
    """
    import resource

    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 2**20
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def peak_of(code):
    """Return the peak memory in GiB of a new process that runs this code in the tests' folder."""
    code = f"import measuring; {code}; print(measuring.gibibytes())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=str(TESTS))
    return float(done.stdout.split()[-1])


def row(what, figure, note=""):
    """Print a line of the result."""
    print(f"{what:<70} {figure:>13}  {note}".rstrip(), flush=True)
