"""The model and the metrics as one would first write them: the tests measure the module by these.

The plain model is a loop over commits, and the plain metrics are loops over rows. Below them are
the invariants of a history, and the histories and scenarios to try all of this on.
"""

import collections
import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

import gitops_automation as gitops

END = pd.Timestamp("2026-01-31", tz="UTC")
MONTH = gitops.Window.before(END, 30)
WEEK = gitops.Window.before(END, 7)
EACH = gitops.Scenario()  # where no release gives way to a newer one
for _environment in EACH.environments:
    EACH = EACH.with_environment(_environment.name, promotion="each")

# ---- Histories ----------------------------------------------------------------------------------


def history_of(git_commits, deployments, rollbacks, window, environments):
    """Return the history of three tables of any origin."""
    tables = map(gitops.as_table, gitops.COLUMNS, (git_commits, deployments, rollbacks))
    return gitops.History(*tables, window, tuple(environments))


def names_of(scenario):
    return tuple(scenario.names)


def simulated(scenario, seed=0, window=MONTH):
    """Run all layers once; return (history, flow)."""
    commits = gitops.commits_table(scenario.team, window, seed)
    deployments, flow = gitops.simulate_deployments(commits, scenario, window, seed)
    deployments, rollbacks = gitops.simulate_rollbacks(deployments, scenario.rollback, seed)
    return gitops.History(commits, deployments, rollbacks, window, names_of(scenario)), flow


def simulated_months(draws, window, noise):
    """Simulate months as a forecast does; return their events."""
    commits = gitops.simulate_commits(draws, window, noise.stream("commits"))
    return gitops.simulate_events(draws, window, noise, commits)


def table(name, *rows):
    """Make a table from tuples in the order of its columns; `recovered` may be left out."""
    columns = list({**gitops.COLUMNS, **gitops.DETAILS}[name])
    rows = [(*row, *[None] * (len(columns) - len(row))) for row in rows]
    return gitops.as_table(
        name, {column: [row[i] for row in rows] for i, column in enumerate(columns)}
    )


def empty_history(days=30):
    tables = [table(name) for name in gitops.COLUMNS]
    return gitops.History(
        *tables, gitops.Window.before(END, days), ("dev", "staging", "production")
    )


def random_history(seed, source="simulated"):
    """Make tables that no pipeline made, valid by `check_history` all the same.

    Commits are deployed twice, some are unknown, stages are left out, and some releases are Synced
    but Degraded. Of real deployments, some were not looked at: all of an environment, or a few.
    """
    rng = random.Random(seed)
    environments = ("dev", "staging", "production")[: rng.randint(1, 3)]
    window = gitops.Window.before(END, rng.randint(1, 20))
    first, last = window.seconds

    def moment():
        return pd.Timestamp(rng.randint(first, last - 1), unit="s", tz="UTC")

    def commit():
        sha = "%040x" % rng.getrandbits(160)
        return sha, moment(), rng.choice("abc"), "feat", rng.choice("xyz"), "main", "m", 1

    commits = [commit() for _ in range(rng.randint(0, 30))]
    commits.sort(key=lambda row: row[1])
    owner = {row[0]: row[4] for row in commits}
    shas = [*owner] + ["%040x" % i for i in range(3)]
    outcomes = [("Synced", "Healthy")] * 3 + [("Failed", "Degraded"), ("Synced", "Degraded")]
    unseen = {name: rng.choice([0, 0.3, 1]) for name in environments if source != "simulated"}
    deployments = []
    for _ in range(rng.randint(0, 120)):
        status, health = rng.choice(outcomes)
        reason = rng.choice(["OOMKilled", "CrashLoopBackOff"]) if health == "Degraded" else None
        sha = rng.choice(shas)
        place = owner.get(sha) or rng.choice("xyz"), rng.choice(environments)
        if health == "Healthy" and unseen and rng.random() < unseen[place[1]]:
            health = "Unknown"
        seconds = rng.randint(0, 90)
        deployments.append((moment(), *place, sha, status, health, seconds, reason))
    deployments.sort(key=lambda row: row[0])
    deployments = table("deployments", *deployments)
    policy = gitops.RollbackPolicy(success_rate=rng.choice([0, 0.5, 1]))
    deployments, rollbacks = gitops.simulate_rollbacks(deployments, policy, seed)
    commits, details = table("git_commits", *commits), {}
    if source != "simulated" and rng.random() < 0.7:
        details["changes"] = table("changes", *random_changes(rng, deployments, environments))
    if source != "simulated" and rng.random() < 0.5:
        incidents, recovered = random_incidents(rng, deployments)
        details["incidents"] = table("incidents", *incidents)
        deployments = deployments.assign(recovered=gitops.as_times(recovered))
    return gitops.History(commits, deployments, rollbacks, window, environments, source, **details)


def random_changes(rng, deployments, environments):
    """Return rows of changes that some deployments brought, and of some that wait."""
    rows = []
    for row in deployments.to_dict("records"):
        end = row["timestamp"] + pd.Timedelta(seconds=row["duration_sec"])
        for _ in range(rng.choice([0, 0, 1, 2])):
            sha, begun = "%040x" % rng.getrandbits(160), end - pd.Timedelta(rng.random() * 4, "D")
            begun = begun.floor("s")
            place = row["application"], row["environment"], sha, rng.choice(["", "v1"])
            rows.append((*place, begun, end if rng.random() < 0.9 else None))
            if row["environment"] == environments[-1]:  # it came through some of the others
                for name in environments[:-1]:
                    moment = begun + (end - begun) * rng.random()
                    came = (row["application"], name, *place[2:], begun, moment.floor("s"))
                    rows += [came] * (rng.random() < 0.6)
    return rows


def random_incidents(rng, deployments):
    """Return rows of incidents of the failed deployments, and when each deployment recovered."""
    rows, recovered = [], []
    for row in deployments.to_dict("records"):
        over = row["recovered"]
        if row["health"] == "Degraded" and rng.random() < 0.6 and not pd.isna(over):
            end = row["timestamp"] + pd.Timedelta(seconds=row["duration_sec"])
            spans = []
            for _ in range(rng.randint(1, 3)):
                begun = end + pd.Timedelta(seconds=rng.randint(0, 5000))
                spans.append((begun, begun + pd.Timedelta(seconds=rng.randint(0, 5000))))
                rows.append((row["application"], row["environment"], *spans[-1], end))
            over = max(span[1] for span in spans)
        recovered.append(over)
    return rows, pd.Series(recovered, dtype="datetime64[ns, UTC]").array


# ---- The invariants of a history ----------------------------------------------------------------


def check_history(history):
    """Assert every invariant of the tables; AssertionError at the first that does not hold."""
    for name, columns in {**gitops.COLUMNS, **gitops.DETAILS}.items():
        checked = getattr(history, name)
        assert checked is None or list(checked.columns) == list(columns)
        assert checked is None or name in gitops.COLUMNS or not history.is_simulated
    for name in gitops.COLUMNS:
        times = getattr(history, name)["timestamp"]
        assert str(times.dtype) == "datetime64[ns, UTC]"
        assert times.is_monotonic_increasing
    (start, end), places = history.window, ["application", "environment"]
    commits, deployments, rollbacks = history[:3]
    assert commits["sha"].is_unique
    assert commits["sha"].str.fullmatch("[0-9a-f]{40}([0-9a-f]{24})?").all()
    assert (commits["files_changed"] >= 0).all()
    assert filled(commits, "author", "type", "application", "branch")
    failed, over = deployments["health"] == "Degraded", deployments["recovered"]
    healths = ["Healthy", "Degraded", "Unknown"][: 2 if history.is_simulated else 3]
    assert deployments["environment"].isin(history.environments).all()
    assert deployments["status"].isin(["Synced", "Failed"]).all()
    assert deployments["health"].isin(healths).all()
    assert failed[deployments["status"] == "Failed"].all()
    assert deployments["failure_reason"].notna().equals(failed)
    assert (deployments["duration_sec"] >= 0).all()
    assert not (over.notna() & ~failed).any()
    assert not (over < deployments["timestamp"]).any()
    assert filled(deployments, "application", "commit_sha")
    assert deployments["timestamp"].between(start, end, inclusive="left").all()
    assert rollbacks["environment"].isin(history.environments).all()
    assert (rollbacks["duration_min"] >= 0).all()
    assert filled(rollbacks, "application", "from_commit", "to_commit", "reason")
    assert len(rollbacks) <= failed.sum()
    changes, coverage = history.changes, history.coverage
    if changes is not None:
        assert filled(changes, *places, "commit_sha", "committed")
        assert not (changes["deployed"] < changes["committed"]).any()
    if coverage is not None:
        assert filled(coverage, *places, "from", "to", "lost")
        assert not coverage.duplicated(places).any()
        assert (coverage["from"] <= coverage["to"]).all()
        assert (coverage["from"] >= start).all()
        assert (coverage["to"] <= end).all()


def filled(checked, *columns):
    return checked[list(columns)].notna().to_numpy().all()


# ---- The pipeline, release by release -----------------------------------------------------------
#
# A commit is (run, application, second), a run being one of the months that a forecast simulates at
# once. The commits of one application of a run are a lineage.


def plain_pipeline(commits, scenario, end, noise):
    """Take commits through the environments; return (deployments in order of time, flow)."""
    columns = sorted(range(len(commits)), key=lambda row: commits[row][:2])  # noise is by lineage
    healthy = {row: commits[row][2] for row in columns}
    deployments, flow = [], []
    for number, environment in enumerate(scenario.environments):
        drawn = noise.stream("deployments", number).random((4, len(commits))).T.tolist()
        luck = dict(zip(columns, drawn))
        if environment.starts == "commit":
            healthy = {row: commits[row][2] for row in columns}
        lineage = {row: commits[row][:2] for row in healthy}
        fates = plain_stage(environment, healthy, lineage, luck, end)
        chances = plain_chances(environment, columns, commits, fates)
        for row, fate in fates.items():
            if fate[0] == "deployed":
                fates[row] = (*fate, luck[row][0] < chances[row])
        kinds = [fate[0] for fate in fates.values()]
        flow.append([kinds.count(kind) for kind in ("deployed", "superseded", "held", "in flight")])
        healthy = {}
        for row in fates:
            if fates[row][0] != "deployed":
                continue
            _, start, seconds, good = fates[row]
            reason = None if good else plain_reason(scenario, chances[row], luck[row][0])
            deployments.append(
                {
                    "commit": row,
                    "place": (*lineage[row], number),
                    "start": start,
                    "end": start + seconds,
                    "good": good,
                    "reason": reason,
                }
            )
            if good:
                healthy[row] = start + seconds
    return sorted(deployments, key=lambda deployment: deployment["start"]), flow


def plain_stage(environment, healthy, lineage, luck, end):
    """Return what became of each release, by its commit.

    That is ("deployed", start, seconds), ("superseded",), ("held",) or ("in flight",).
    `healthy` says when each release was healthy in the environment before, oldest commit first.
    """
    fates = {}
    rivals = collections.defaultdict(lambda: math.inf)  # of each lineage, the earliest newer one
    for row in reversed(list(healthy)):
        _, wait, duration, approval = luck[row]
        start = healthy[row] + plain_seconds(environment.wait_hours, wait, 3600)
        start = plain_departure(start, environment)
        approved = approval < environment.approval_rate
        if not approved:
            fates[row] = ("held",)
        elif environment.promotion != "each" and rivals[lineage[row]] <= start:
            fates[row] = ("superseded",)
        elif start >= end:
            fates[row] = ("in flight",)
        else:
            fates[row] = ("deployed", start, plain_seconds(environment.duration_sec, duration, 1))
        if environment.promotion == "soak":
            rivals[lineage[row]] = min(rivals[lineage[row]], healthy[row])
        elif approved:
            rivals[lineage[row]] = min(rivals[lineage[row]], start)
    return {row: fates[row] for row in healthy}


OPEN = {"always": (range(7), 0, 24), "Mon-Fri 9-17": (range(5), 9, 17)}
"""The opening hours that the plain model knows: weekdays, first hour, hour after the last; UTC."""


def plain_departure(start, environment):
    """Return the first moment from then on at which the gate is open, and a train leaves.

    Trains are counted from the first opening of the week that began on Monday 1970-01-05.
    """
    days, first, last = OPEN[environment.open_hours]
    monday, every = 4 * 86400, round(environment.release_every_hours * 3600)
    if every:
        start += -(start - monday - first * 3600) % every
    while (start - monday) // 86400 % 7 not in days or not first <= start % 86400 // 3600 < last:
        start += every or 3600 - start % 3600
    return start


def plain_chances(environment, columns, commits, fates):
    """Return the chance of success of each deployment, by its commit.

    Its changes are the commits of the lineage since the one that was deployed before.
    """
    chances, carried = {}, collections.Counter()
    for row in columns:
        carried[commits[row][:2]] += 1
        if fates.get(row, ("",))[0] == "deployed":
            more = carried.pop(commits[row][:2]) - 1
            chances[row] = environment.success_rate ** (1 + environment.batch_risk * more)
    return chances


def plain_seconds(values, noise, unit):
    """Return the quantile of evenly spaced quantiles, in whole seconds."""
    place = noise * (len(values) - 1)
    left = min(int(place), len(values) - 2)
    return round((values[left] + (place - left) * (values[left + 1] - values[left])) * unit)


def plain_reason(scenario, chance, outcome):
    """Return the reason of a failure: what is left of its noise is uniform, and picks one."""
    rest = (outcome - chance) / (1 - chance)
    total, passed = sum(scenario.failure_reasons.values()), 0
    for reason, weight in scenario.failure_reasons.items():
        passed += weight
        if rest < passed / total:
            return reason
    return reason


def plain_targets(releases):
    """Return for each bad release the newest earlier good one of its place, or None (numbers).

    `releases` are (place, good) in order of time.
    """
    newest_good, targets = {}, {}
    for number, (place, good) in enumerate(releases):
        if good:
            newest_good[place] = number
        else:
            targets[number] = newest_good.get(place)
    return targets


def plain_rollbacks(deployments, policy, noise, commits):
    """Roll back what `plain_pipeline` deployed; `commits` is how many there were."""
    drawn, rollbacks = {}, []
    targets = plain_targets([(each["place"], each["good"]) for each in deployments])
    for number, target in targets.items():
        if target is None:
            continue
        failed = deployments[number]
        environment = failed["place"][-1]
        if environment not in drawn:
            drawn[environment] = noise.stream("rollbacks", environment).random((2, commits))
        length, outcome = drawn[environment][:, failed["commit"]].tolist()
        rollbacks.append(
            {
                "place": failed["place"],
                "from": failed["commit"],
                "to": deployments[target]["commit"],
                "start": failed["end"],
                "end": failed["end"] + plain_seconds(policy.duration_min, length, 60),
                "success": outcome < policy.success_rate,
                "reason": failed["reason"],
            }
        )
    return sorted(rollbacks, key=lambda rollback: rollback["start"])


def plain_recoveries(deployments, rollbacks):
    """Return when each deployment was good again: None of a good one, and while it lasts."""
    worked = {(row["place"], row["from"]): row["end"] for row in rollbacks if row["success"]}
    recovered = []
    for number, row in enumerate(deployments):
        mates = [each for each in deployments[number:] if each["place"] == row["place"]]
        later = [each["end"] for each in mates if each["good"]]
        over = worked.get((row["place"], row["commit"]), later[0] if later else None)
        recovered.append(None if row["good"] else over)
    return recovered


def plain_tables(git_commits, scenario, window, seed):
    """Return (rows of deployments, flow, rows of rollbacks) of a table of commits."""
    names, stages = list(git_commits["application"].cat.categories), names_of(scenario)
    records, noise = git_commits.to_dict("records"), gitops.Noise(seed)
    commits = [
        (0, names.index(record["application"]), int(record["timestamp"].timestamp()))
        for record in records
    ]
    deployed, flow = plain_pipeline(commits, scenario, window.seconds[1], noise)
    rolled_back = plain_rollbacks(deployed, scenario.rollback, noise, len(commits))
    recovered = plain_recoveries(deployed, rolled_back)
    deployments = [
        (
            row["start"],
            records[row["commit"]]["application"],
            stages[row["place"][-1]],
            records[row["commit"]]["sha"],
            *(("Synced", "Healthy") if row["good"] else ("Failed", "Degraded")),
            row["end"] - row["start"],
            row["reason"],
            over,
        )
        for row, over in zip(deployed, recovered)
    ]
    rollbacks = [
        (
            row["start"],
            records[row["from"]]["application"],
            stages[row["place"][-1]],
            records[row["from"]]["sha"],
            records[row["to"]]["sha"],
            row["reason"],
            (row["end"] - row["start"]) / 60,
            row["success"],
        )
        for row in rolled_back
    ]
    return deployments, flow, rollbacks


def rows_of(shown):
    """Return the rows of a table of the module in the same form: times in seconds, gaps as None."""
    whole = shown.astype(object).where(shown.notna(), None)
    return [
        tuple(int(one.timestamp()) if isinstance(one, pd.Timestamp) else one for one in row)
        for row in whole.itertuples(index=False)
    ]


# ---- Metrics, row by row ------------------------------------------------------------------------


def plain_metrics(history):
    """Return the keys of `METRICS`, each by its definition."""
    measured, production = not history.is_simulated, history.environments[-1]
    commits = history.git_commits.to_dict("records")
    everywhere = with_ends(history)
    backs = history.rollbacks.to_dict("records")
    every_back = backs
    deployments = everywhere
    if measured:  # production alone
        deployments = [row for row in everywhere if row["environment"] == production]
        backs = [row for row in backs if row["environment"] == production]
    committed = {row["sha"]: row["timestamp"] for row in commits}
    days = (history.window.end - history.window.start) / pd.Timedelta(days=1)
    failed = [row for row in deployments if row["health"] == "Degraded"]
    looked_at = {row["environment"] for row in everywhere if row["health"] != "Unknown"}
    minutes = [row["duration_min"] for row in backs if row["success"]]

    first = {}  # time of the first deployment of each commit to each environment
    for row in everywhere:
        first.setdefault((row["commit_sha"], row["environment"]), row["timestamp"])
    leads, ways = [], []  # a way has the moments from the commit to production
    for row in deployments:
        sha = row["commit_sha"]
        if row["environment"] != production or row["status"] != "Synced" or sha not in committed:
            continue
        if committed[sha] <= row["timestamp"]:
            leads.append(hours(row["timestamp"] - committed[sha]))
            there = [first.get((sha, name)) for name in history.environments[:-1]]
            ways.append([committed[sha], *there, row["timestamp"]])
    if history.changes is not None:
        ways = plain_ways(history)

    def in_environments(rows):
        return {
            name: [row for row in rows if row["environment"] == name]
            for name in history.environments
        }

    def counted(rows, column):
        return dict(collections.Counter(row[column] for row in rows))

    deployed = in_environments(everywhere)
    good = {
        name: [row for row in rows if row["health"] != "Degraded"]
        for name, rows in deployed.items()
    }
    seen = [name for name in history.environments if not measured or name in looked_at]
    values = {
        "scope": "production" if measured else "all environments",
        "deployment_frequency": len(deployments) / days,
        "mean_lead_time": average(leads),
        "median_lead_time": middle(leads),
        "lead_time_hours_by_environment": plain_parts(history, ways),
        "success_rates": {
            name: 100 * ratio(len(good[name]), len(rows) * (name in seen))
            for name, rows in deployed.items()
        },
        "change_failure_rate": 100 * ratio(len(failed), len(deployments)),
        "mttr_minutes": average(minutes),
        "total_deployments": len(deployments),
        "dated_deployments": len(leads),
        "failed_deployments": len(failed),
        "unseen_deployments": sum(row["health"] == "Unknown" for row in deployed[production]),
        "total_rollbacks": len(backs),
        "successful_rollbacks": len(minutes),
        "failure_reasons": counted(failed, "failure_reason"),
        "failure_reasons_by_environment": {
            name: counted([row for row in rows if row["failure_reason"]], "failure_reason")
            for name, rows in deployed.items()
        },
        "deployments_by_environment": {name: len(rows) for name, rows in deployed.items()},
        "rollbacks_by_environment": {
            name: len(rows) for name, rows in in_environments(every_back).items()
        },
        "deployments_by_status": {"Synced": 0, "Failed": 0, **counted(deployments, "status")},
        "deployments_by_application": counted(deployments, "application"),
        "total_commits": len(commits),
        "contributors": len(counted(commits, "author")),
        "applications": len(counted(commits, "application")),
        "commit_types": counted(commits, "type"),
        "not_judged": {},
    }
    if measured:
        of = plain_production(history)
        came_with = set()  # of each change the first deployment that ended by then
        for change in of["changes"]:
            name, shipped = change["application"], change["shipped"]
            ends = [row["end"] for row in deployments if row["application"] == name]
            later = [end for end in ends if shipped is not None and end >= shipped]
            came_with |= {(name, min(later))} if later else set()
        values.update(
            deployment_frequency=of["deployment_frequency_per_day"],
            mean_lead_time=average(of["change_lead_time_hours"]),
            median_lead_time=middle(of["change_lead_time_hours"]),
            mttr_minutes=middle(of["failed_deployment_recovery_minutes"]),
            change_failure_rate=of["change_fail_rate_pct"],
            dated_deployments=len(came_with),
        )
        values["not_judged"] = gitops.measure(history).values[
            "not_judged"
        ]  # it has a table of cases
    return values


def with_ends(history):
    """Return the deployments as dicts with their end; what never recovered has None."""
    rows = history.deployments.to_dict("records")
    for row in rows:
        row["end"] = row["timestamp"] + pd.Timedelta(seconds=row["duration_sec"])
        row["recovered"] = None if pd.isna(row["recovered"]) else row["recovered"]
        row["failure_reason"] = None if pd.isna(row["failure_reason"]) else row["failure_reason"]
    return rows


def plain_ways(history):
    """Return the moments of each change that shipped, from its commit to production."""
    reached = collections.defaultdict(dict)
    for row in history.changes.to_dict("records"):
        own = reached[row["application"], row["commit_sha"]]
        own["commit"] = row["committed"]
        if not pd.isna(row["deployed"]):
            own[row["environment"]] = min(own.get(row["environment"], END), row["deployed"])
    ways = []
    for row in history.changes.to_dict("records"):
        if row["environment"] == history.environments[-1] and not pd.isna(row["deployed"]):
            own = reached[row["application"], row["commit_sha"]]
            there = [own.get(name) for name in history.environments[:-1]]
            ways.append([own["commit"], *there, row["deployed"]])
    return ways


def plain_parts(history, ways):
    """Return the mean hours into each environment of ways whose unknown moments are None."""
    parts = {name: [] for name in history.environments}
    seen = {name: False for name in history.environments}
    for begin, *moments in ways:
        for name, moment in zip(history.environments, moments):
            seen[name] |= moment is not None
            after = begin if moment is None else max(begin, min(moment, moments[-1]))
            parts[name].append(hours(after - begin))
            begin = after
    return {name: average(part) if seen[name] else math.nan for name, part in parts.items()}


def plain_production(history, application=None, period=None):
    """Return dora.dev's metrics of production, of one application or of all, in a part of the time.

    The two durations are lists of times, and each has the number of those that are still open.
    """
    production = history.environments[-1]
    start, over = period or history.window

    def inside(time):
        return period is None or (time is not None and start <= time < over)

    def own(rows):
        return [
            row
            for row in rows
            if application in (None, row["application"])
            and row.get("environment", production) == production
        ]

    deployments, rollbacks = own(with_ends(history)), own(history.rollbacks.to_dict("records"))
    commits = own(history.git_commits.to_dict("records"))
    place = {row["sha"]: number for number, row in enumerate(commits)}
    changes = []
    for number, change in enumerate(commits if history.changes is None else ()):
        ends = [
            row["end"]
            for row in deployments
            if row["status"] == "Synced"
            and row["application"] == change["application"]
            and place.get(row["commit_sha"], -1) >= number
        ]
        times = {"committed": change["timestamp"], "shipped": min(ends, default=None)}
        if not ends or min(ends) >= change["timestamp"]:
            changes.append({"application": change["application"], **times})
    for row in () if history.changes is None else own(history.changes.to_dict("records")):
        shipped = None if pd.isna(row["deployed"]) else row["deployed"]
        times = {"committed": row["committed"], "shipped": shipped}
        changes.append({"application": row["application"], **times})
    recoveries, fixes, failures = [], set(), 0
    for number, bad in enumerate(deployments):
        if bad["health"] != "Degraded":
            continue
        later = [
            row
            for row in deployments[number + 1 :]
            if row["application"] == bad["application"] and row["health"] != "Degraded"
        ]
        if later and (bad["recovered"] is None or later[0]["end"] <= bad["recovered"]):
            fixes.add(id(later[0]))
        if inside(bad["timestamp"]):
            failures += 1
        if inside(bad["timestamp"]) and bad["recovered"] is not None:
            recoveries.append(max(plain_downtime(history, bad), 0) / 60)
    changes = [row for row in changes if inside(row["shipped"])]
    deployments, rollbacks = (
        [row for row in rows if inside(row["timestamp"])] for rows in (deployments, rollbacks)
    )
    fixes &= set(map(id, deployments))
    total = len(deployments)
    seen = [row for row in deployments if row["health"] != "Unknown"]
    leads = [hours(row["shipped"] - row["committed"]) for row in changes if row["shipped"]]
    reworked, whole = len(rollbacks) + len(fixes), len(rollbacks) + total
    none_seen = total and not seen
    return {
        "changes": changes,
        "change_lead_time_hours": leads,
        "changes_open": len(changes) - len(leads),
        "deployment_frequency_per_day": total / (over - start).days,
        "failed_deployment_recovery_minutes": recoveries,
        "failures_open": failures - len(recoveries),
        "deployments": total,
        "change_fail_rate_pct": math.nan if none_seen else 100 * ratio(failures, total),
        "deployment_rework_rate_pct": math.nan
        if none_seen and not reworked and total >= whole
        else 100 * ratio(reworked, whole),
    }


def plain_downtime(history, bad):
    """Return the seconds in which an incident of a deployment lasted, or until it was good."""
    lasted = set()
    for row in () if history.incidents is None else history.incidents.to_dict("records"):
        names = ("application", "environment")
        if all(row[name] == bad[name] for name in names) and row["deployed"] == bad["end"]:
            begin, over = (int(row[edge].timestamp()) for edge in ("started", "resolved"))
            lasted.update(range(begin, over))
    if lasted:
        return len(lasted)
    return (bad["recovered"] - bad["end"]).total_seconds()


def same(one, two):
    """Return whether two dicts of dicts hold equal numbers, NaN being equal to NaN."""
    if isinstance(one, str):
        return isinstance(two, str)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(value, two[key]) for key, value in one.items())
    return one == pytest.approx(two, rel=1e-12, abs=1e-12, nan_ok=True)


def hours(difference):
    return difference.total_seconds() / 3600


def ratio(part, whole):
    return part / whole if whole else math.nan


def average(values):
    return ratio(sum(values), len(values))


def middle(values):
    if not values:
        return math.nan
    low, high = (len(values) - 1) // 2, len(values) // 2
    return (sorted(values)[low] + sorted(values)[high]) / 2


# ---- Scenarios ----------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
names = st.just("a{b}") | st.lists(words, min_size=1, max_size=3).map(" ".join)
rates = st.sampled_from([0, 1, 0.5]) | st.floats(0, 1)
seeds = st.integers(0, 2**63)


def numbers_to(most):
    return st.integers(0, int(most)) | st.floats(0, most)


def ranges_to(most):
    return st.lists(numbers_to(most), min_size=2, max_size=4).map(
        lambda values: tuple(sorted(values))
    )


def shares_to(most):
    weights = st.dictionaries(names, numbers_to(most), min_size=1, max_size=4)
    return weights.filter(lambda shares: sum(shares.values()) > 0)


def environments_of(most_hours, most_seconds, promotions, most_environments):
    environment = st.builds(
        gitops.Environment,
        name=names,
        success_rate=rates,
        wait_hours=ranges_to(most_hours),
        duration_sec=ranges_to(most_seconds),
        promotion=st.sampled_from(promotions),
        approval_rate=rates,
        release_every_hours=st.sampled_from([0, 0, 24, 0.5]) | numbers_to(most_hours),
    )
    return st.lists(
        environment,
        min_size=1,
        max_size=most_environments,
        unique_by=lambda environment: environment.name,
    ).map(tuple)


any_scenario = st.builds(
    gitops.Scenario,
    team=st.builds(
        gitops.Team,
        authors=shares_to(1e6),
        types=shares_to(1e6),
        applications=shares_to(1e6),
        branch=names,
        commits_per_day=numbers_to(1e6),
        weekday_factors=st.lists(numbers_to(1e6), min_size=7, max_size=7).map(tuple),
        dispersion=st.integers(1, 1000) | st.floats(1, 1000),
        sprint_days=st.integers(1, 365),
        sprint_ramp=numbers_to(2),
        work_hours=ranges_to(24),
    ),
    environments=environments_of(1e6, 1e9, gitops.PROMOTIONS, 5),
    rollback=st.builds(gitops.RollbackPolicy, duration_min=ranges_to(1e6), success_rate=rates),
    failure_reasons=shares_to(1e6),
)
"""Every scenario that the knobs allow."""


def small_scenarios(promotions=gitops.PROMOTIONS, most_environments=5):
    """Return scenarios of a week or so: a few commits a day, waits that crowd each other."""
    return st.builds(
        gitops.Scenario,
        team=st.builds(
            gitops.Team,
            applications=shares_to(3),
            commits_per_day=st.sampled_from([0.5, 3, 8]),
            work_hours=ranges_to(24),
        ),
        environments=environments_of(30, 7200, promotions, most_environments),
        rollback=st.builds(gitops.RollbackPolicy, duration_min=ranges_to(60), success_rate=rates),
        failure_reasons=shares_to(3),
    )


def assorted_scenarios():
    """Yield each count of environments with each promotion.

    The waits let releases overtake one another, and a gate is open, half open or closed.
    """
    approvals = itertools.cycle([1, 0.6, 0.9, 0, 1, 0.3])
    waits = itertools.cycle([(0, 0), (0, 12), (3, 3), (1, 5, 30), (24, 72)])
    trains = itertools.cycle([0, 0, 24, 0, 6])
    for count, promotion in itertools.product(range(1, 6), gitops.PROMOTIONS):
        yield gitops.Scenario(
            environments=[
                gitops.Environment(
                    f"stage {number}",
                    success_rate=0.9 - 0.1 * (number % 3),
                    wait_hours=next(waits),
                    duration_sec=(0, 600),
                    promotion=promotion,
                    approval_rate=next(approvals),
                    release_every_hours=next(trains),
                )
                for number in range(count)
            ]
        )


def spread(count, share):
    """Return four standard errors of a share seen in `count` trials."""
    return 4 * np.sqrt(share * (1 - share) / count)
