"""What the program costs, as ratios within one run: `python tests/benchmarks.py`.

Each thing is measured in turn with a floor, the least that it can do with, and the median of their
ratios stands beside its aim. The floors:

- of the engine: drawing 15 uniform numbers for each commit, one packed sort of the deployments'
  times, and the hexadecimal digits of as many SHAs;
- of the default run: importing the four packages and saving an empty figure of its size;
- of a what-if: drawing and once sorting the numbers that its months need.

The plain loops of tests/plain_model.py and tests/plain_months.py are measured as well. Nothing here
is a test.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import statistics
import subprocess
import tempfile

import argocd_documents as argo
import measuring  # noqa: F401 (first: it puts the module on the path)
import numpy as np
import pandas as pd
import plain_model
import plain_months
import repositories
from measuring import ROOT, paired, peak_of, program, row, seconds

import gitops_automation as gitops

SEED = 1

# ---- The engine ---------------------------------------------------------------------------------


def busy(commits):
    """Return (scenario, window): a year of about so many commits, with every release promoted."""
    scenario = gitops.Scenario().with_team(commits_per_day=commits / 365 * 7 / 5.4)
    for name in scenario.names:
        scenario = scenario.with_environment(name, promotion="each")
    return scenario, gitops.Window.before(pd.Timestamp("2026-01-01", tz="UTC"), 365)


def engine(scenario, window):
    """Run the engine from commits to metrics; return the history."""
    commits = gitops.commits_table(scenario.team, window, SEED)
    deployments, _ = gitops.simulate_deployments(commits, scenario, window, SEED)
    deployments, rollbacks = gitops.simulate_rollbacks(deployments, scenario.rollback, SEED)
    history = gitops.History(commits, deployments, rollbacks, window, tuple(scenario.names))
    gitops.measure(history)
    return history


def engine_floor(history):
    """Return a call that does the least that the engine can do with for such a history."""
    count = len(history.git_commits)
    starts = gitops.seconds_of(history.deployments["timestamp"]) - history.window.seconds[0]
    times = np.random.Generator(np.random.PCG64(SEED)).permutation(starts)
    bits = len(times).bit_length()

    def floor():
        np.random.Generator(np.random.PCG64(SEED)).random((15, count))
        np.sort(times << bits | np.arange(len(times)))
        digits = hashlib.shake_128(b"floor").hexdigest(20 * count)
        return [digits[at : at + 40] for at in range(0, len(digits), 40)]

    return floor


def engine_rows():
    million, tenth = busy(1_000_000), busy(100_000)
    memory = peak_of("import benchmarks; benchmarks.engine(*benchmarks.busy(1_000_000))")
    history = engine(*million)
    counts = len(history.git_commits), len(history.deployments)
    floor = engine_floor(history)
    del history
    ours, least, ratio = paired(lambda: engine(*million), floor, times=3)
    row("engine, commits to metrics: {:,} commits, {:,} deployments".format(*counts), "", "")
    row("  over its floor", f"{ratio:.2f}", f"aim: 6 ({ours:.2f} s over {least:.2f} s)")
    growth = paired(lambda: engine(*million), lambda: engine(*tenth), times=3)[2]
    row("  over a tenth of the commits", f"{growth:.1f}", "aim: 11")
    row("  peak memory of a process that does this", f"{memory:.2f} GiB", "aim: 0.75 GiB")
    small = busy(2_000)
    known = engine(*small)
    loop = seconds(lambda: plain_loop(known, *small))
    row("  the plain model, a loop (of 2,000 commits), over ours", f"{500 * loop / ours:.0f}")


def plain_loop(history, scenario, window):
    """Take the commits of a history through the plain model; calculate its metrics by loops."""
    plain_model.plain_tables(history.git_commits, scenario, window, SEED)
    plain_model.plain_metrics(history)


# ---- The default run ----------------------------------------------------------------------------

EMPTY_FIGURE = """
import numpy, pandas, matplotlib{seaborn}
from matplotlib.figure import Figure
Figure(figsize=(18, 10)).savefig({path!r}, dpi=300)
"""


def default_run_rows(folder):
    path = os.path.join(folder, "empty.png")
    run = program(ROOT / "gitops_automation.py", "--output", folder)
    floor = program("-c", EMPTY_FIGURE.format(seaborn=", seaborn", path=path))
    without = program("-c", EMPTY_FIGURE.format(seaborn="", path=path))
    for call in (run, floor, without):
        call()
    ours, least, ratio = paired(run, floor, times=7)
    row("default run, picture and recommendations included", "", "")
    row("  over its floor", f"{ratio:.3f}", f"aim: 1.05 ({ours:.2f} s over {least:.2f} s)")
    share = 1 - 1 / paired(floor, without, times=5)[2]
    row("  seaborn's share of the floor", f"{share:.0%}")
    tried = recommendation_seconds()
    row("  recommendations", f"{tried:.3f} s", f"aim: 0.1 s ({tried / ours:.0%} of the run)")


def recommendation_seconds(seeds=range(5)):
    """Return the median seconds that the recommendations of a default run take, over some runs."""
    taken = []
    for seed in seeds:
        run = gitops.GitOpsAutomation(seed=seed)
        with contextlib.redirect_stdout(io.StringIO()):
            run.simulate_git_activity()
            run.simulate_deployments()
            run.simulate_rollbacks()
            run.calculate_dora_metrics()
        taken.append(seconds(run._advice))
    return statistics.median(taken)


# ---- What-if ------------------------------------------------------------------------------------


def what_if_rows():
    """Two scenarios of a thousand months each, from the call to the finished table."""
    window = gitops.Window.before(pd.Timestamp("2026-01-31", tz="UTC"), 30)
    other = gitops.Scenario().with_environment("production", wait_hours=(4, 12))
    scenarios = {"baseline": gitops.Scenario(), "other": other}
    commits = len(gitops.commits_table(other.team, window, SEED))
    # hour and application; of each environment outcome, wait and duration, and two of a rollback,
    # also of the days before a month, which fill its pipeline
    days = window.days + gitops.WARM_UP
    count = 2 * 1000 * commits * days // window.days * (2 + 3 * (3 + 2))
    draw = np.random.Generator(np.random.PCG64(SEED)).random

    def months(calibration, runs=1000):
        baseline = calibration.scenario
        change = gitops.named_change("production.wait_hours=4:12", baseline)[1]
        pair = {"baseline": baseline, "other": change}
        return gitops.forecast_months(pair, calibration, window, runs, SEED)

    known = gitops.Calibration(scenarios["baseline"])
    ours, least, ratio = paired(lambda: months(known), lambda: np.sort(draw(count)), times=3)
    row("what if: two scenarios of 1,000 months", "", "")
    note = f"aim: 1.5 ({ours:.2f} s over {least:.2f} s)"
    row(f"  over drawing and once sorting {count:,} numbers", f"{ratio:.2f}", note)
    fitted = dataclasses.replace(gitops.calibrate(history_of(window)), warm_up=0)
    fitted.possible  # noqa: B018 (they are drawn once)
    more = paired(lambda: months(fitted), lambda: months(known), times=3)[2]
    row("  with the draws of a fit, over without", f"{more:.2f}", "aim: 2")
    trial = gitops.Trial(known, window, 200, SEED)
    taken = seconds(lambda: gitops.lever_table(trial))
    row("  levers of the default scenario, 200 months each", f"{taken:.2f} s", "aim: 1 s")
    few = 20
    loop = seconds(
        lambda: [
            plain_months.plain_month(scenario, window, seed)
            for scenario in scenarios.values()
            for seed in range(few)
        ]
    )
    row(f"  a plain loop (of {few} months) over ours", f"{1000 / few * loop / ours:.0f}")


def history_of(window, scenario=gitops.Scenario()):
    """Return a simulated history."""
    commits = gitops.commits_table(scenario.team, window, SEED)
    deployments, _ = gitops.simulate_deployments(commits, scenario, window, SEED)
    deployments, rollbacks = gitops.simulate_rollbacks(deployments, scenario.rollback, SEED)
    return gitops.History(commits, deployments, rollbacks, window, tuple(scenario.names))


def calibration_rows():
    """Fit and backtest four years with 100,000 deployments; the advice for fifty environments."""
    window = gitops.Window.before(pd.Timestamp("2026-01-31", tz="UTC"), 1461)
    history = history_of(window, gitops.Scenario().with_team(commits_per_day=55))
    taken = seconds(lambda: gitops.backtest(history))
    what = f"fit and backtest of {len(history.deployments):,} deployments in four years"
    row(what, f"{taken:.1f} s", "aim: 15 s")
    stages = tuple(gitops.Environment(f"e{number}", 0.97, (1, 3)) for number in range(50))
    scenario = gitops.Scenario(environments=stages)
    month = gitops.Window.before(window.end, 30)
    metrics = gitops.measure(history_of(month, scenario))
    trial = gitops.Trial(gitops.Calibration(scenario), month, 30, SEED)
    taken = seconds(lambda: gitops.recommend(metrics, trial))
    row("advice for fifty environments", f"{taken:.1f} s", "aim: 5 s")


# ---- Reading ------------------------------------------------------------------------------------


def reading_rows(folder, commits=25_000, applications=1_000):
    """A config repository over the `git log` that it needs; Argo CD's JSON over parsing it."""
    repo = os.path.join(folder, "config")
    with tempfile.TemporaryFile() as stream:
        stream.writelines(repositories.travels(commits))
        stream.seek(0)
        repositories.imported(repo, stdin=stream)
    log = [*gitops.GIT, *gitops.GIT_LOG, "--topo-order", "--reverse", "--format=%H%P%ct%an%s%b"]
    ours, least, ratio = paired(
        lambda: gitops.load_gitops_repository(repo, repositories.LAYOUT),
        lambda: subprocess.run(log, cwd=repo, check=True, stdout=subprocess.DEVNULL),
        times=3,
    )
    row(f"config repository of {commits:,} commits, over the bare git log", f"{ratio:.2f}",
        f"{ours:.2f} s over {least:.2f} s")  # fmt: skip
    file = os.path.join(folder, "applications.json")
    documents = []
    for number in range(applications):
        there = argo.source(f"apps/{number // 100}/{number}")
        shas = [argo.revision(10 * number + entry) for entry in range(10)]
        entries = argo.releases(*shas, start=1_700_000_000 + number, source=there)
        name = f"app{number // 3}-{('dev', 'staging', 'prod')[number % 3]}"
        documents.append(argo.application(name, entries, spec=there))
    text = json.dumps(documents)
    with open(file, "w") as opened:
        opened.write(text)
    ours, least, ratio = paired(lambda: gitops.load_argocd(file), lambda: json.loads(text), times=5)
    row(f"Argo CD, {applications:,} applications, over json.loads", f"{ratio:.2f}",
        f"{ours:.2f} s over {least:.2f} s")  # fmt: skip


def main():
    row("what", "ratio", "")
    engine_rows()
    with tempfile.TemporaryDirectory() as folder:
        default_run_rows(folder)
        reading_rows(folder)
    what_if_rows()
    calibration_rows()


if __name__ == "__main__":
    main()
