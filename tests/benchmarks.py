"""What the program costs, as ratios within one run: `python tests/benchmarks.py`.

Each row is measured against a floor of its own, in turn and several times, and the median of the
ratios is given: the speed of the machine cancels out. Nothing here is a test.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gitops_automation as gitops  # noqa: E402

FLOOR = """
import numpy, pandas, matplotlib, seaborn
from matplotlib.figure import Figure
Figure(figsize=(18, 10)).savefig({path!r}, dpi=300)
"""


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def paired(run, floor, times):
    """Median seconds of `run`, of `floor`, and of their ratio, measured in turn."""
    pairs = [(seconds(run), seconds(floor)) for _ in range(times)]
    return [statistics.median(column) for column in zip(*((a, b, a / b) for a, b in pairs))]


def row(what, figure, limit=""):
    print(f"{what:<74} {figure:>16}  {limit}")


def default_run(folder):
    program = [sys.executable, str(ROOT / "gitops_automation.py"), "--output", folder]
    floor = [sys.executable, "-c", FLOOR.format(path=os.path.join(folder, "empty.png"))]
    for command in (program, floor):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ours, least, ratio = paired(
        *(lambda c=c: subprocess.run(c, check=True, stdout=subprocess.DEVNULL) for c in (program, floor)), times=9
    )
    row("default run, picture included", f"{ours:.2f} s")
    row("importing the four packages and saving an empty figure", f"{least:.2f} s")
    row("  ratio", f"{ratio:.2f}", "at most 1.25")


def busy(commits):
    """(Scenario, window, commits): a year of so many commits, with every release promoted."""
    scenario = gitops.Scenario().with_team(commits_per_day=commits / 365 * 7 / 5.4)
    for environment in scenario.environments:
        scenario = scenario.with_environment(environment.name, promotion="each")
    window = gitops.Window.before(pd.Timestamp("2026-01-01", tz="UTC"), 365)
    return scenario, window, gitops.simulate_commits(scenario.team, window, 1)


def engine(scenario, window, commits):
    deployments, _ = gitops.simulate_deployments(commits, scenario, window, 1)
    rollbacks = gitops.simulate_rollbacks(deployments, scenario.rollback, 1)
    names = [environment.name for environment in scenario.environments]
    gitops.calculate_dora_metrics(gitops.History(commits, deployments, rollbacks, window, tuple(names)))
    return deployments


def engine_rows():
    million, tenth = busy(1_000_000), busy(100_000)
    rows = len(engine(*million))
    draws = 4 * 3 * len(million[2])
    noise = np.random.Generator(np.random.PCG64(1))
    ours, least, ratio = paired(lambda: engine(*million), lambda: noise.random(rows), times=5)
    row(f"engine, commits to metrics, {len(million[2]):,} commits, {rows:,} deployments", f"{ours:.2f} s")
    row("  over drawing one random number for each deployment", f"{ratio:.0f}", "at most 15")
    row(
        "  over drawing the random numbers that the model needs (4 for each",
        f"{statistics.median(ours / seconds(lambda: noise.random(draws)) for _ in range(5)):.1f}",
    )
    row("    commit and environment)", "")
    row(
        "  over sorting one timestamp for each deployment",
        f"{ours / min(seconds(lambda: np.sort(noise.random(rows))) for _ in range(5)):.1f}",
    )
    _, _, growth = paired(lambda: engine(*million), lambda: engine(*tenth), times=5)
    row("  over a tenth of the commits", f"{growth:.1f}", "at most 12")
    plain_seconds = seconds(lambda: plain_model(*busy(20_000)[1:], million[0]))
    row("  a plain-Python loop of the same model (from 20,000 commits) over ours", f"{plain_seconds * 50 / ours:.0f}")


def plain_model(window, commits, scenario):
    """The model as one would first write it: a loop for each commit, lists of dicts, and sums."""
    import random

    rng, deployments, last_good, minutes = random.Random(1), [], {}, []
    for commit in commits.to_dict("records"):
        ready = commit["timestamp"].timestamp()
        for environment in scenario.environments:
            ready += rng.uniform(*environment.wait_hours) * 3600
            if ready >= window.end.timestamp():
                break
            good, duration = rng.random() < environment.success_rate, rng.uniform(*environment.duration_sec)
            deployments.append(
                {
                    "start": ready,
                    "application": commit["application"],
                    "environment": environment.name,
                    "sha": commit["sha"],
                    "good": good,
                    "committed": commit["timestamp"].timestamp(),
                }
            )
            ready += duration
            if not good:
                break
    deployments.sort(key=lambda deployment: deployment["start"])
    for deployment in deployments:
        place = deployment["application"], deployment["environment"]
        if deployment["good"]:
            last_good[place] = deployment["sha"]
        elif place in last_good and rng.random() < scenario.rollback.success_rate:
            minutes.append(rng.uniform(*scenario.rollback.duration_min))
    lead = [d["start"] - d["committed"] for d in deployments if d["good"] and d["environment"] == "production"]
    return len(deployments), statistics.mean(lead), statistics.median(lead), statistics.mean(minutes)


def memory_row():
    code = (
        "import resource, sys; sys.path.insert(0, 'tests'); import benchmarks as b; b.engine(*b.busy(1_000_000));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
    )
    peak = subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), check=True, stdout=subprocess.PIPE)
    row("  peak memory of a process that does this", f"{float(peak.stdout):.2f} GiB", "at most 1.2 GB")


def main():
    row("what", "median", "aim")
    with tempfile.TemporaryDirectory() as folder:
        default_run(folder)
    engine_rows()
    memory_row()


if __name__ == "__main__":
    main()
