"""What the program costs, as ratios within one run: `python tests/benchmarks.py`.

Each row is measured against a floor of its own, in turn and several times, and the median of the
ratios is given: the speed of the machine cancels out. Nothing here is a test.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
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
    row("  ratio (the run has the tried recommendations in it)", f"{ratio:.2f}", "at most 1.35")


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
    scenario, window, commits = busy(20_000)
    commits, rng = commits.to_dict("records"), random.Random(1)
    loop = seconds(lambda: plain_metrics(commits, *plain_model(window, commits, scenario, rng), window))
    row("  a plain-Python loop of the same model (from 20,000 commits) over ours", f"{50 * loop / ours:.0f}")


def plain_model(window, commits, scenario, rng):
    """The model as one would first write it: a loop over environments and commits, lists of dicts, and sums."""
    end, deployments = window.end.timestamp(), []
    ready = {number: commit["timestamp"].timestamp() for number, commit in enumerate(commits)}
    for environment in scenario.environments:
        starts = {}
        for number, arrival in ready.items():
            wait = rng.uniform(*environment.wait_hours) * 3600
            if rng.random() < environment.approval_rate:
                starts[number] = arrival + wait
        ready, newest = {}, {}
        for number in sorted(starts, reverse=True):
            application, start = commits[number]["application"], starts[number]
            if environment.promotion == "newest" and newest.get(application, end) <= start:
                continue
            newest[application] = min(start, newest.get(application, end))
            if start >= end:
                continue
            good, duration = rng.random() < environment.success_rate, rng.uniform(*environment.duration_sec)
            reasons = scenario.failure_reasons
            deployment = {
                "start": start,
                "end": start + duration,
                "application": application,
                "environment": environment.name,
                "commit": number,
                "sha": commits[number]["sha"],
                "good": good,
                "reason": None if good else rng.choices(list(reasons), list(reasons.values()))[0],
            }
            deployments.append(deployment)
            if good:
                ready[number] = start + duration
    deployments.sort(key=lambda deployment: deployment["start"])
    return deployments, plain_rollbacks(deployments, scenario.rollback, rng)


def plain_rollbacks(deployments, policy, rng):
    last_good, rollbacks = {}, []
    for deployment in deployments:
        place = deployment["application"], deployment["environment"]
        if deployment["good"]:
            last_good[place] = deployment["sha"]
        elif place in last_good:
            minutes, success = rng.uniform(*policy.duration_min), rng.random() < policy.success_rate
            rollbacks.append({**deployment, "to": last_good[place], "minutes": minutes, "success": success})
    return rollbacks


def plain_metrics(commits, deployments, rollbacks, window):
    """The metrics of a month, a loop each."""
    shipped = [d for d in deployments if d["environment"] == "production"]
    lead = [d["start"] - commits[d["commit"]]["timestamp"].timestamp() for d in shipped if d["good"]]
    minutes = [rollback["minutes"] for rollback in rollbacks if rollback["success"]]
    undefined = [float("nan")]
    return {
        "deployment_frequency": len(deployments) / window.days,
        "production_deployment_frequency": len(shipped) / window.days,
        "mean_lead_time": statistics.mean(lead or undefined) / 3600,
        "median_lead_time": statistics.median(lead or undefined) / 3600,
        "mttr_minutes": statistics.mean(minutes or undefined),
        "change_failure_rate": 100 * sum(not d["good"] for d in deployments) / max(len(deployments), 1),
        "total_deployments": len(deployments),
        "total_rollbacks": len(rollbacks),
    }


def plain_hours_lost(commits, deployments, rollbacks, window):
    """The hours in which changes waited for production, and production was in a failed state."""
    shipped = [d for d in deployments if d["environment"] == "production"]
    waiting, failed_hours, known = 0, 0, {}
    for number, commit in enumerate(commits):
        own = commit["application"]
        ends = (d["end"] for d in shipped if d["good"] and d["application"] == own and d["commit"] >= number)
        waiting += min(ends, default=window.end.timestamp()) - commit["timestamp"].timestamp()
    for failure in (d for d in shipped if not d["good"]):
        own = [d for d in shipped if d["good"] and d["application"] == failure["application"]]
        ends = [r["end"] + 60 * r["minutes"] for r in rollbacks if r["commit"] == failure["commit"] and r["success"]]
        ends += [d["start"] for d in own if d["start"] > failure["start"]]
        known.setdefault(failure["application"], []).append((failure["end"], min([*ends, window.end.timestamp()])))
    for spans in known.values():  # what several failures of an application have in common is lost once
        until = 0
        for begin, end in sorted(spans):
            failed_hours += max(end - max(begin, until), 0)
            until = max(until, end)
    return {"waiting_hours": waiting / 3600, "failed_hours": failed_hours / 3600}


def what_if_rows():
    """Two scenarios of a thousand months each, from the call to the finished table."""
    window = gitops.Window.before(pd.Timestamp("2026-01-31", tz="UTC"), 30)
    baseline = gitops.Scenario()
    scenarios = {"baseline": baseline, "other": baseline.with_environment("production", wait_hours=(4, 12))}
    commits = gitops.simulate_commits(scenarios["baseline"].team, window, 1)
    numbers = 2 * 1000 * len(commits) * (2 + 3 * (3 + 2))  # hour, application; three and two for each environment
    draw = np.random.Generator(np.random.PCG64(1)).random
    ours, least, ratio = paired(
        lambda: gitops.what_if(scenarios, window, 1000, 1), lambda: np.sort(draw(numbers)), times=7
    )
    row("what if: two scenarios of 1,000 months", f"{ours:.2f} s")
    row(f"  over drawing and once sorting {numbers:,} numbers", f"{ratio:.1f}", "at most 6")
    months = 40
    looped = seconds(lambda: [plain_month(s, window, seed) for s in scenarios.values() for seed in range(months)])
    looped *= 1000 / months
    row(
        f"  a plain-Python loop over the months (from {months} of them) over ours",
        f"{looped / ours:.0f}",
        "at least 100",
    )


def plain_month(scenario, window, seed):
    """The commits and the model of one month as one would first write them."""
    rng, commits, team = random.Random(seed), [], scenario.team
    for day in range(window.days):
        date = window.start.to_pydatetime() + timedelta(days=day)
        rate = team.commits_per_day * team.weekday_factors[date.weekday()]
        wait = rng.expovariate(rate)
        while wait < 1:
            (application,) = rng.choices(list(team.applications), list(team.applications.values()))
            (kind,) = rng.choices(list(team.types), list(team.types.values()))
            commits.append(
                {
                    "sha": f"{rng.getrandbits(160):040x}",
                    "timestamp": date + timedelta(hours=rng.uniform(*team.work_hours)),
                    "author": rng.choice(list(team.authors)),
                    "type": kind,
                    "application": application,
                    "message": f"{kind}({application}): change",
                }
            )
            wait += rng.expovariate(rate)
    commits.sort(key=lambda commit: commit["timestamp"])
    tables = plain_model(window, commits, scenario, rng)
    return {**plain_metrics(commits, *tables, window), **plain_hours_lost(commits, *tables, window)}


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
    what_if_rows()


if __name__ == "__main__":
    main()
