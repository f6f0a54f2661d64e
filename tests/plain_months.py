"""Simulated months as one would first write them: a loop for each number.

tests/plain_model.py has the pipeline between the two. The tests compare the forecasts with these
loops, and tests/benchmarks.py how long both take.
"""

import math
import random
import statistics

from plain_model import MONTH, plain_pipeline, plain_rollbacks

import gitops_automation as gitops


def known(scenarios):
    """Return the calibration of scenarios that are exactly known; no day is before a month."""
    return gitops.Calibration(next(iter(scenarios.values())), warm_up=0)


def forecast_months(scenarios, window, runs, seed):
    """Return {name: its months} of scenarios that are exactly known; the first is the baseline."""
    return gitops.forecast_months(scenarios, known(scenarios), window, runs, seed)


def forecast(scenarios, window, runs, seed):
    """Return a forecast of scenarios that are exactly known; the first is the baseline."""
    months = forecast_months(scenarios, window, runs, seed)
    return gitops.Forecast(months, dict(scenarios), known(scenarios), window, seed)


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
        "all_deployment_frequency": len(deployments) / window.days,
        "production_deployment_frequency": len(shipped) / window.days,
        "mean_lead_time": statistics.mean(lead) if lead else math.nan,
        "median_lead_time": statistics.median(lead) if lead else math.nan,
        "mttr_minutes": statistics.mean(minutes) if minutes else math.nan,
        "change_failure_rate": 100 * failed / len(deployments) if deployments else math.nan,
        "production_median_lead_time": statistics.median(changes) if changes else math.nan,
        "production_change_fail_rate": 100 * failures / len(shipped) if shipped else math.nan,
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
