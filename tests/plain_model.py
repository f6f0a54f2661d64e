"""What the tests measure the module against: its model and its metrics as one would first write them,
a loop over commits and a loop over rows, and the histories and scenarios to try both on."""

import itertools
import math
import random

import numpy as np
import pandas as pd
from hypothesis import strategies as st

import gitops_automation as gitops
from gitops_automation import Environment, History, RollbackPolicy, Scenario, Team, Window, as_table

END = pd.Timestamp("2026-01-31", tz="UTC")
MONTH = Window.before(END, 30)

# ---- Histories ------------------------------------------------------------------------------------


def names_of(scenario):
    return tuple(environment.name for environment in scenario.environments)


def simulated(scenario, seed=0, window=MONTH):
    """(History, flow) of one run of all layers."""
    commits = gitops.simulate_commits(scenario.team, window, seed)
    deployments, flow = gitops.simulate_deployments(commits, scenario, window, seed)
    rollbacks = gitops.simulate_rollbacks(deployments, scenario.rollback, seed)
    return History(commits, deployments, rollbacks, window, names_of(scenario)), flow


def table(name, *rows):
    """A table from tuples in the order of its columns."""
    columns = list(gitops.COLUMNS[name])
    return as_table(name, {column: [row[i] for row in rows] for i, column in enumerate(columns)})


def empty_history(days=30):
    tables = [table(name) for name in gitops.COLUMNS]
    return History(tables[0], tables[1], tables[2], Window.before(END, days), ("dev", "staging", "production"))


def random_history(seed):
    """Tables that no pipeline made: commits deployed twice, unknown commits, stages left out, and
    releases that are Synced and yet Degraded. Valid by `check_history` all the same."""
    rng = random.Random(seed)
    environments = ("dev", "staging", "production")[: rng.randint(1, 3)]
    window = Window.before(END, rng.randint(1, 20))
    seconds = int(window.start.timestamp())
    last = int(window.end.timestamp()) - 1

    def moment():
        return pd.Timestamp(rng.randint(seconds, last), unit="s", tz="UTC")

    commits = sorted(
        ("%040x" % rng.getrandbits(160), moment(), rng.choice("abc"), "feat", rng.choice("xyz"), "main", "m", 1)
        for _ in range(rng.randint(0, 30))
    )
    commits.sort(key=lambda row: row[1])
    shas = [row[0] for row in commits] + ["%040x" % i for i in range(3)]
    deployments = []
    for _ in range(rng.randint(0, 120)):
        status, health = rng.choice([("Synced", "Healthy")] * 3 + [("Failed", "Degraded"), ("Synced", "Degraded")])
        reason = rng.choice(["OOMKilled", "CrashLoopBackOff"]) if health == "Degraded" else None
        place = rng.choice("xyz"), rng.choice(environments)
        deployments.append((moment(), *place, rng.choice(shas), status, health, rng.randint(0, 90), reason))
    deployments.sort(key=lambda row: row[0])
    deployments = table("deployments", *deployments)
    rollbacks = gitops.simulate_rollbacks(deployments, RollbackPolicy(success_rate=rng.choice([0, 0.5, 1])), seed)
    return History(table("git_commits", *commits), deployments, rollbacks, window, environments)


# ---- The pipeline, release by release -------------------------------------------------------------


def plain_pipeline(committed, lineage, scenario, end, seed):
    """For each environment a dict: commit -> what became of it there: ("deployed", start, duration, good)
    or ("superseded",), ("held",), ("in flight",). A commit that did not reach it is not in the dict."""
    fates = []
    healthy_upstream = dict(enumerate(committed))  # commit -> second at which it is healthy in the stage before
    for number, environment in enumerate(scenario.environments):
        noise = gitops._stream(seed, "deployments", number).random((4, len(committed))).tolist()
        fates.append(plain_stage(environment, healthy_upstream, lineage, noise, end))
        healthy_upstream = {}
        for commit, fate in fates[-1].items():
            if fate[0] == "deployed" and fate[3]:
                healthy_upstream[commit] = fate[1] + fate[2]
    return fates


def plain_stage(environment, healthy_upstream, lineage, noise, end):
    outcome, wait, duration, approval = noise
    fates, starts = {}, {}
    for commit, second in healthy_upstream.items():
        if approval[commit] < environment.approval_rate:
            start = second + plain_seconds(environment.wait_hours, wait[commit], 3600)
            starts[commit] = plain_train(start, round(environment.release_every_hours * 3600))
        else:
            fates[commit] = ("held",)
    for commit, start in starts.items():
        if is_overtaken(environment.promotion, commit, start, starts, healthy_upstream, lineage):
            fates[commit] = ("superseded",)
        elif start >= end:
            fates[commit] = ("in flight",)
        else:
            good = outcome[commit] < environment.success_rate
            fates[commit] = ("deployed", start, plain_seconds(environment.duration_sec, duration[commit], 1), good)
    return fates


def plain_train(start, every):
    """The first departure from then on; one leaves at 00:00 on Monday 1970-01-05."""
    monday = 4 * 86400
    while every and (start - monday) % every:
        start += every - (start - monday) % every
    return start


def is_overtaken(promotion, commit, start, starts, healthy_upstream, lineage):
    for newer in range(commit + 1, len(lineage)):
        if lineage[newer] != lineage[commit]:
            continue
        if promotion == "newest" and newer in starts and starts[newer] <= start:
            return True
        if promotion == "soak" and newer in healthy_upstream and healthy_upstream[newer] <= start:
            return True
    return False


def plain_seconds(values, noise, unit):
    """The quantile of evenly spaced quantiles, in whole seconds."""
    place = noise * (len(values) - 1)
    left = min(int(place), len(values) - 2)
    return round((values[left] + (place - left) * (values[left + 1] - values[left])) * unit)


def plain_deployments(commits, scenario, window, seed):
    """(sorted rows of the deployments table without the reason, flow) of a commits table."""
    lineages = sorted(set(commits["application"]), key=list(commits["application"].cat.categories).index)
    rows = [row for name in lineages for row in commits.to_dict("records") if row["application"] == name]
    committed = [int(row["timestamp"].timestamp()) for row in rows]
    lineage = [row["application"] for row in rows]
    fates = plain_pipeline(committed, lineage, scenario, int(window.end.timestamp()), seed)
    deployments, flow = [], []
    for name, of_environment in zip(names_of(scenario), fates):
        kinds = [fate[0] for fate in of_environment.values()]
        flow.append([kinds.count(kind) for kind in ("deployed", "superseded", "held", "in flight")])
        for commit, fate in of_environment.items():
            if fate[0] == "deployed":
                status = ("Synced", "Healthy") if fate[3] else ("Failed", "Degraded")
                row = rows[commit]
                deployments.append((fate[1], row["application"], name, row["sha"], *status, fate[2]))
    return sorted(deployments), flow


def rows_of(deployments):
    """The same rows of a deployments table."""
    return sorted(
        (int(row["timestamp"].timestamp()), *[row[column] for column in list(gitops.COLUMNS["deployments"])[1:7]])
        for row in deployments.to_dict("records")
    )


# ---- Rollbacks and metrics, row by row ------------------------------------------------------------


def plain_targets(deployments):
    """{row of a failed deployment: row it is taken back to, None if there is none}."""
    rows = deployments.to_dict("records")
    targets = {}
    for i, row in enumerate(rows):
        if row["health"] == "Healthy":
            continue
        targets[i] = None
        for j in range(i):
            earlier = rows[j]
            same_place = earlier["application"] == row["application"] and earlier["environment"] == row["environment"]
            if same_place and earlier["status"] == "Synced" and earlier["health"] == "Healthy":
                targets[i] = j
    return targets


def plain_metrics(history):
    deployments, rollbacks = history.deployments.to_dict("records"), history.rollbacks.to_dict("records")
    committed = {row["sha"]: row["timestamp"] for row in history.git_commits.to_dict("records")}
    days = (history.window.end - history.window.start) / pd.Timedelta(days=1)
    production = history.environments[-1]
    failed = [row for row in deployments if row["health"] == "Degraded"]
    reasons = [row["failure_reason"] for row in failed]
    minutes = [row["duration_min"] for row in rollbacks if row["success"]]

    leads, parts = [], {name: [] for name in history.environments}
    for row in deployments:
        if row["environment"] != production or row["status"] != "Synced" or row["commit_sha"] not in committed:
            continue
        if committed[row["commit_sha"]] > row["timestamp"]:
            continue
        leads.append(hours(row["timestamp"] - committed[row["commit_sha"]]))
        before = committed[row["commit_sha"]]
        for name in history.environments:
            if name == production:
                reached = row["timestamp"]
            else:
                reached = first_deployment(deployments, row["commit_sha"], name) or before
            parts[name].append(hours(reached - before))
            before = reached

    success_rates = {}
    for name in history.environments:
        healthy = [row["health"] == "Healthy" for row in deployments if row["environment"] == name]
        success_rates[name] = 100 * average(healthy)
    return {
        "deployment_frequency": len(deployments) / days,
        "mean_lead_time": average(leads),
        "median_lead_time": middle(leads),
        "lead_time_hours_by_environment": {name: average(values) for name, values in parts.items()},
        "success_rates": success_rates,
        "overall_success_rate": 100 * average([row["health"] == "Healthy" for row in deployments]),
        "change_failure_rate": 100 * average([row["health"] == "Degraded" for row in deployments]),
        "mttr_minutes": average(minutes),
        "production_deployment_frequency": sum(row["environment"] == production for row in deployments) / days,
        "total_deployments": len(deployments),
        "failed_deployments": len(failed),
        "total_rollbacks": len(rollbacks),
        "successful_rollbacks": len(minutes),
        "failures_without_rollback": sum(target is None for target in plain_targets(history.deployments).values()),
        "failure_reasons": {reason: reasons.count(reason) for reason in set(reasons)},
    }


def first_deployment(deployments, sha, environment):
    for row in deployments:
        if row["commit_sha"] == sha and row["environment"] == environment:
            return row["timestamp"]
    return None


def hours(difference):
    return difference.total_seconds() / 3600


def average(values):
    return sum(values) / len(values) if values else math.nan


def middle(values):
    if not values:
        return math.nan
    low, high = (len(values) - 1) // 2, len(values) // 2
    return (sorted(values)[low] + sorted(values)[high]) / 2


# ---- Scenarios ------------------------------------------------------------------------------------

_words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
names = st.sampled_from(["team", "rollback", "a{b}"]) | st.lists(_words, min_size=1, max_size=3).map(" ".join)
rates = st.sampled_from([0, 1, 0.5]) | st.floats(0, 1)


def _numbers(most):
    return st.integers(0, int(most)) | st.floats(0, most)


def _ranges(most):
    return st.lists(_numbers(most), min_size=2, max_size=4).map(lambda values: tuple(sorted(values)))


def _shares(most):
    weights = st.dictionaries(names, _numbers(most), min_size=1, max_size=4)
    return weights.filter(lambda shares: sum(shares.values()) > 0)


def _environments(most_hours, most_seconds, promotions, most_environments):
    environment = st.builds(
        Environment,
        name=names,
        success_rate=rates,
        wait_hours=_ranges(most_hours),
        duration_sec=_ranges(most_seconds),
        promotion=st.sampled_from(promotions),
        approval_rate=rates,
        release_every_hours=st.sampled_from([0, 0, 24, 0.5]) | _numbers(most_hours),
    )
    by_name = dict(unique_by=lambda environment: environment.name)
    return st.lists(environment, min_size=1, max_size=most_environments, **by_name).map(tuple)


any_scenario = st.builds(
    Scenario,
    team=st.builds(
        Team,
        authors=_shares(1e6),
        types=_shares(1e6),
        applications=_shares(1e6),
        branch=names,
        commits_per_day=_numbers(1e6),
        weekday_factors=st.lists(_numbers(1e6), min_size=7, max_size=7).map(tuple),
        dispersion=st.integers(1, 1000) | st.floats(1, 1000),
        sprint_days=st.integers(1, 365),
        sprint_ramp=_numbers(2),
        work_hours=_ranges(24),
    ),
    environments=_environments(1e6, 1e6, gitops.PROMOTIONS, 5),
    rollback=st.builds(RollbackPolicy, duration_min=_ranges(1e6), success_rate=rates),
    failure_reasons=_shares(1e6),
)
"""Every scenario that the knobs allow."""


def small_scenarios(promotions=gitops.PROMOTIONS, most_environments=5):
    """Scenarios of a week or so: a few commits a day, waits and syncs that crowd each other."""
    return st.builds(
        Scenario,
        team=st.builds(
            Team, applications=_shares(3), commits_per_day=st.sampled_from([0.5, 3, 8]), work_hours=_ranges(24)
        ),
        environments=_environments(30, 7200, promotions, most_environments),
        rollback=st.builds(RollbackPolicy, duration_min=_ranges(60), success_rate=rates),
        failure_reasons=_shares(3),
    )


WEEK = Window.before(END, 7)
seeds = st.integers(0, 2**63)


def assorted_scenarios():
    """Each count of environments with each promotion, waits that let releases overtake one another,
    and a gate that is open, half open or closed."""
    approvals = itertools.cycle([1, 0.6, 0.9, 0, 1, 0.3])
    waits = itertools.cycle([(0, 0), (0, 12), (3, 3), (1, 5, 30), (24, 72)])
    trains = itertools.cycle([0, 0, 24, 0, 6])
    for count, promotion in itertools.product(range(1, 6), gitops.PROMOTIONS):
        stages = [
            Environment(
                f"stage {i}", 0.9 - 0.1 * (i % 3), next(waits), (0, 600), promotion, next(approvals), next(trains)
            )
            for i in range(count)
        ]
        yield Scenario(environments=tuple(stages))


def spread(count, share):
    """Four standard errors of a share seen in `count` trials."""
    return 4 * np.sqrt(share * (1 - share) / count)
