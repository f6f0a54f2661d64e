"""Simulated months as one would first write them: a loop for each number.

tests/plain_model.py has the pipeline between the two. The tests compare the forecasts with these
loops, and tests/benchmarks.py how long both take.
"""

import math
import random
import statistics

from plain_model import MONTH, plain_pipeline, plain_rollbacks

import gitops_automation as gitops


def forecast(scenarios, window, runs, seed):
    """Return a forecast of scenarios that are exactly known; the first is the baseline."""
    known = gitops.Calibration(next(iter(scenarios.values())))
    months = gitops.forecast_months(scenarios, known, window, runs, seed)
    return gitops.Forecast(months, dict(scenarios), known, window, seed)


def forecast_months(scenarios, window, runs, seed, **more):
    """Return {name: its months} of scenarios that are exactly known."""
    known = gitops.Calibration(next(iter(scenarios.values())))
    return gitops.forecast_months(scenarios, known, window, runs, seed, **more)


def months(scenario, runs=60, seed=1, window=MONTH):
    """Return the months of one scenario."""
    return forecast_months({"": scenario}, window, runs, seed)[""]


def plain_commits(team, window, rng):
    """Draw the commits of a month in order of time: (run, application, second).

    They are Poisson, as they are where `dispersion` is 1 and `sprint_ramp` is 0.
    """
    names = list(team.applications)
    weights = list(team.applications.values())
    seconds = []
    for day in range(window.days):
        midnight = window.seconds[0] + day * 86_400
        weekday = (window.start.weekday() + day) % 7
        rate = team.commits_per_day * team.weekday_factors[weekday]
        wait = rng.expovariate(rate)
        while wait < 1:
            seconds.append(midnight + int(3600 * rng.uniform(*team.work_hours)))
            wait += rng.expovariate(rate)
    applications = rng.choices(range(len(names)), weights, k=len(seconds))
    return [(0, application, second) for application, second in zip(applications, sorted(seconds))]


def plain_month(scenario, window, seed):
    """Simulate a month; return its numbers."""
    commits = plain_commits(scenario.team, window, random.Random(seed))
    noise = gitops.Noise(seed)
    deployments, _ = plain_pipeline(commits, scenario, window.seconds[1], noise)
    rollbacks = plain_rollbacks(deployments, scenario.rollback, noise, len(commits))
    return plain_numbers(commits, deployments, rollbacks, window, len(scenario.environments) - 1)


def plain_numbers(commits, deployments, rollbacks, window, production):
    """Return the keys of `FORECAST_METRICS` for one month: a loop for each number."""
    shipped = [row for row in deployments if row["place"][-1] == production]
    lead = [(row["start"] - commits[row["commit"]][2]) / 3600 for row in shipped if row["good"]]
    minutes = [(row["end"] - row["start"]) / 60 for row in rollbacks if row["success"]]
    failed = sum(not row["good"] for row in deployments)
    failures = sum(not row["good"] for row in shipped)
    changes = change_hours(commits, shipped)
    return {
        "deployment_frequency": len(deployments) / window.days,
        "production_deployment_frequency": len(shipped) / window.days,
        "mean_lead_time": statistics.mean(lead) if lead else math.nan,
        "median_lead_time": statistics.median(lead) if lead else math.nan,
        "mttr_minutes": statistics.mean(minutes) if minutes else math.nan,
        "change_failure_rate": 100 * failed / len(deployments) if deployments else math.nan,
        "total_deployments": len(deployments),
        "successful_rollbacks": sum(row["success"] for row in rollbacks),
        "production_median_lead_time": statistics.median(changes) if changes else math.nan,
        "production_change_fail_rate": 100 * failures / len(shipped) if shipped else math.nan,
        "production_failures": failures,
        "waiting_hours": waiting_hours(commits, shipped, window),
        "failed_hours": failed_hours(shipped, rollbacks, window),
    }


def change_hours(commits, shipped):
    """Return the hours from each commit that shipped to the end of what shipped it."""
    found = []
    for number, (run, application, second) in enumerate(commits):
        ends = [
            row["end"]
            for row in shipped
            if row["good"] and row["place"][:2] == (run, application) and row["commit"] >= number
        ]
        found += [(min(ends) - second) / 3600] if ends else []
    return found


def waiting_hours(commits, shipped, window):
    """Return the hours from each commit to the end of what shipped it, or of the window."""
    total = 0
    for number, (run, application, second) in enumerate(commits):
        ends = [
            row["end"]
            for row in shipped
            if row["good"] and row["place"][:2] == (run, application) and row["commit"] >= number
        ]
        total += min([*ends, window.seconds[1]]) - second
    return total / 3600


def failed_hours(shipped, rollbacks, window):
    """Return the hours in which an application was in a failed state in production.

    A failure lasts to the end of the rollback that succeeded, to the start of the next good
    deployment or to the end of the window. Hours that failures have in common count once. Of
    several that leave with one train, the deployment of the newer commit is the later one.
    """
    spans = {}
    for number, failure in enumerate(shipped):
        if failure["good"]:
            continue
        place = failure["place"]
        ends = [window.seconds[1]]
        for row in rollbacks:
            if (row["place"], row["from"]) == (place, failure["commit"]) and row["success"]:
                ends.append(row["end"])
        for row in shipped[number + 1 :]:
            if row["place"] == place and row["good"]:
                ends.append(row["start"])
        spans.setdefault(place, []).append((failure["end"], min(ends)))
    total = 0
    for lost in spans.values():
        counted = 0
        for begin, end in sorted(lost):
            total += max(end - max(begin, counted), 0)
            counted = max(counted, end)
    return total / 3600
