"""Reporting engine: metrics -> console."""

import dataclasses
import functools
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from plain_model import MONTH, check_history, empty_history, simulated, table

import gitops_automation as gitops
from gitops_automation import (
    BENCHMARKS,
    METRICS,
    Environment,
    History,
    Report,
    Scenario,
    Window,
    calculate_dora_metrics,
    calculate_maturity,
    format_report,
    format_summary,
    measure,
    plain_recommendations,
    rate_grade,
)

pytestmark = pytest.mark.filterwarnings("error")

MODULE = Path(gitops.__file__).resolve()
GOLDEN = Path(__file__).resolve().parent / "golden" / "report_seed_7.txt"
VALUE_COLUMN = 32

SAMPLE_LABELS = """
🔄 GitOps Workflow Automation with ArgoCD
================================================================================
📝 Generating Git commit history...
  ✓ Generated
🚀 Simulating deployments...
  ✓ Simulated
    • dev:
    • staging:
    • production:
🔄 Simulating automated rollbacks...
  ✓ Executed
    • Success rate:
📊 Calculating DORA metrics...
  ✓ Deployment Frequency:
  ✓ Mean Lead Time:
  ✓ Change Failure Rate:
  ✓ MTTR:
================================================================================
🔄 GITOPS WORKFLOW AUTOMATION REPORT
================================================================================
📝 GIT ACTIVITY
--------------------------------------------------------------------------------
Total Commits:
Contributors:
Applications:
Commit Type Breakdown:
  • feat (features):
  • fix (bug fixes):
  • chore (maintenance):
  • refactor (code cleanup):
  • perf (performance):
🚀 DEPLOYMENT METRICS (DORA)
--------------------------------------------------------------------------------
Deployment Frequency:
Total Deployments:
Mean Lead Time:
Median Lead Time:
Change Failure Rate:
MTTR:
Deployment Distribution:
  • Dev:
  • Staging:
  • Production:
✅ SUCCESS RATES BY ENVIRONMENT
--------------------------------------------------------------------------------
dev
staging
production
Overall Success Rate:
🔄 ROLLBACK SUMMARY
--------------------------------------------------------------------------------
Total Rollbacks:
Successful Rollbacks:
Failed Rollbacks:
Rollback Success Rate:
Average Rollback Time:
Fastest Rollback:
Slowest Rollback:
Rollbacks by Environment:
  • Dev:
  • Staging:
  • Production:
🏆 DORA MATURITY ASSESSMENT
--------------------------------------------------------------------------------
Deployment Frequency:
Lead Time:
MTTR:
Change Failure Rate:
Performance Score:
Maturity Level:
Recommendations:
  •
================================================================================
📊 Creating visualizations...
✓ Visualization saved as
✅ GitOps automation complete!
📊 EXECUTIVE SUMMARY:
  Total Git Commits:
  Total Deployments:
  Automated Rollbacks:
  Deployment Frequency:
  Average Lead Time:
  Change Failure Rate:
  MTTR:
  Overall Maturity:
🏆 Performance Tier:
""".strip("\n").splitlines()

ELITE = {
    "deployment_frequency": 2.0,
    "mean_lead_time": 12.0,
    "median_lead_time": 11.0,
    "lead_time_hours_by_environment": {"dev": 0.0, "staging": 3.0, "production": 9.0},
    "success_rates": {"dev": 96.0, "staging": 93.0, "production": 97.0},
    "overall_success_rate": 95.0,
    "change_failure_rate": 5.0,
    "mttr_minutes": 10.0,
    "production_deployment_frequency": 0.5,
    "total_deployments": 60,
    "deployments_by_environment": {"dev": 25, "staging": 20, "production": 15},
    "healthy_by_environment": {"dev": 24, "staging": 18, "production": 15},
    "failed_deployments": 3,
    "unseen_deployments": 0,
    "total_rollbacks": 3,
    "successful_rollbacks": 3,
    "failures_without_rollback": 0,
    "failure_reasons": {"OOMKilled": 2, "CrashLoopBackOff": 1},
    "failure_reasons_by_environment": {
        "dev": {"CrashLoopBackOff": 1},
        "staging": {"OOMKilled": 2},
        "production": {},
    },
}
MISSED = {
    "deployment_frequency": {"deployment_frequency": 0.4, "total_deployments": 12},
    "mean_lead_time": {
        "mean_lead_time": 36.0,
        "lead_time_hours_by_environment": {"dev": 0.0, "staging": 27.0, "production": 9.0},
    },
    "mttr_minutes": {"mttr_minutes": 90.0},
    "change_failure_rate": {
        "change_failure_rate": 18.0,
        "success_rates": {"dev": 96.0, "staging": 70.0, "production": 97.0},
    },
}


LEVELS = ["🏆 ELITE PERFORMER", "🥈 HIGH PERFORMER", "🥉 MEDIUM PERFORMER", "📈 NEEDS IMPROVEMENT"]


def elite_but_for(*keys, **other):
    """Metrics that miss these benchmarks and meet the others."""
    metrics = dict(ELITE)
    for key in keys:
        metrics.update(MISSED[key])
    return {**metrics, **other}


@functools.lru_cache(maxsize=None)
def metrics_of_nothing():
    """The Metrics of an empty history."""
    return measure(empty_history())


def metrics_with(values):
    """Return the Metrics of nothing with other values, with the verdicts that follow from them."""
    nothing = metrics_of_nothing()
    return dataclasses.replace(nothing, values={**nothing.values, **values})


def report_with(values):
    """The report of metrics that are told."""
    return format_report(Report(metrics_with(values)))


def report_on(history, *more):
    """The report of a history."""
    return format_report(Report(measure(history), *more))


def report_of(scenario=Scenario(), seed=7, window=MONTH):
    """The report of a simulated history."""
    history, flow = simulated(scenario, seed, window)
    return report_on(history, flow, seed, scenario)


def section(report, title):
    """The lines under a title of the report."""
    lines = report.splitlines()
    start = next(i for i, line in enumerate(lines) if title in line) + 2
    length = next(i for i, line in enumerate(lines[start:]) if re.match(r"[^\w\s•⚪🟢🟡🔴]", line))
    return lines[start : start + length]


def labelled(lines):
    """(label, its value, the column of the value) of each `label: value` line."""
    matches = (re.match(r"( *(?:• )?[^:]+(?:: [a-z ]+)?:)( +)(\S.*)", line) for line in lines)
    return [(match[1], match[3], match.start(3)) for match in matches if match]


def hand_written(*failures, good):
    """A history of deployments by (environment, reason), with `good` ones in each environment."""
    places = [(name, None) for name, count in good.items() for _ in range(count)] + list(failures)
    commits, deployments = [], []
    for i, (name, reason) in enumerate(places):
        moment = MONTH.start.value // 10**9 + 60 * i
        sha = "%040x" % i
        status = ("Failed", "Degraded") if reason else ("Synced", "Healthy")
        commits.append(
            (sha, gitops.pd.Timestamp(moment, unit="s", tz="UTC"), "a", "feat", "x", "main", "m", 1)
        )
        deployments.append((commits[-1][1], "x", name, sha, *status, 30, reason))
    deployments = table("deployments", *deployments)
    deployments, rollbacks = gitops.simulate_rollbacks(
        deployments, gitops.RollbackPolicy(success_rate=1), 1
    )
    return History(table("git_commits", *commits), deployments, rollbacks, MONTH, tuple(good))


# ---- The whole console ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    """What the program prints with seed 7."""
    run = subprocess.run(
        [sys.executable, "-W", "error", str(MODULE), "--seed", "7", "--end", "2026-01-31"],
        cwd=str(tmp_path_factory.mktemp("run")),
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=True,
    )
    assert run.stderr == b""
    return run.stdout.decode("utf-8").replace("\r\n", "\n").replace("output\\", "output/")


def test_the_console_output_of_seed_7_is_the_kept_one(console):
    """After a change that is meant, keep the new output (and read its difference) with:
    python gitops_automation.py --seed 7 --end 2026-01-31 > tests/golden/report_seed_7.txt"""
    assert console == GOLDEN.read_text(encoding="utf-8")


def test_every_line_of_the_sample_output_is_there_in_its_order(console):
    lines = iter(console.splitlines())
    for label in SAMPLE_LABELS:
        assert any(
            line.startswith(label) or line[1:].strip().startswith(label) for line in lines
        ), label


def test_no_two_lines_are_empty_in_a_row(console):
    assert not re.search(r"[ \t]\n", console)
    assert "\n\n\n" not in console


def test_the_steps_agree_with_the_report_as_with_the_summary(console):
    for label, unit in {
        "Deployment Frequency": "/day",
        "Change Failure Rate": "%",
        "MTTR": " minutes",
        "(?:Mean|Average) Lead Time": " hours",
    }.items():
        assert len(set(re.findall(label + r": +([\d.]+)" + unit + "$", console, re.MULTILINE))) == 1
    commits = re.findall(r"(?:Generated|Total (?:Git )?Commits:) +(\d+)", console)
    assert len(commits) == 3
    assert len(set(commits)) == 1


# ---- Columns -------------------------------------------------------------------------------------


def sections_in_columns(report, summary):
    """The lines of each part of the report whose values share a column."""
    return {
        "git": section(report, "GIT ACTIVITY"),
        "dora": section(report, "DEPLOYMENT METRICS"),
        "rollbacks": section(report, "ROLLBACK SUMMARY"),
        "summary": summary.splitlines()[1:9],
    }


@pytest.mark.parametrize("seed", range(5))
def test_values_line_up_in_one_column(seed):
    scenario = Scenario().with_environment("production", approval_rate=0.5)
    history, flow = simulated(scenario, seed)
    metrics = measure(history)
    report = format_report(Report(metrics, flow, seed, scenario))
    parts = sections_in_columns(report, format_summary(metrics))
    for name, lines in parts.items():
        rows = labelled(lines)
        assert len(rows) >= 2, name
        listed = [column for label, _, column in rows if "•" in label]
        assert {column for label, _, column in rows if "•" not in label} == {VALUE_COLUMN}
        assert all(column >= VALUE_COLUMN for column in listed)


def test_the_success_rates_line_up_among_themselves():
    two = Scenario(environments=(Environment("a"), Environment("b" * 30)))
    for scenario in (Scenario(), two):
        lines = [
            line for line in section(report_of(scenario), "SUCCESS RATES") if "successful" in line
        ]
        assert len(lines) == len(scenario.environments)
        assert len({re.search(r"\d+\.\d\d%|n/a", line).start() for line in lines}) == 1
        assert len({line.index("(") for line in lines}) == 1


def test_the_verdicts_line_up_among_themselves():
    lines = [
        line
        for line in section(report_of(), "MATURITY ASSESSMENT")
        if "target" in line or "achieved" in line
    ]
    assert len(lines[:4]) == 4
    assert len({re.search("[✅❌⚪]", line).start() for line in lines[:4]}) == 1


# ---- Single sections -----------------------------------------------------------------------------


def test_the_shares_of_a_breakdown_add_up_to_all():
    report = report_of()
    for title, heading in (
        ("GIT ACTIVITY", "Commit Type Breakdown:"),
        ("DEPLOYMENT METRICS", "Deployment Distribution:"),
        ("ROLLBACK SUMMARY", "Rollbacks by Environment:"),
        ("DEPLOYMENT METRICS", "Where the Lead Time Goes:"),
    ):
        lines = section(report, title)
        rows = itertools.takewhile(
            lambda line: line.startswith("  •"), lines[lines.index(heading) + 1 :]
        )
        shares = [float(re.search(r"\(([\d.]+)%\)", line)[1]) for line in rows]
        assert len(shares) >= 3
        assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares) + 1e-9)


def test_the_counts_of_the_report_are_those_of_the_tables():
    history, flow = simulated(Scenario(), 7)
    report = report_on(history, flow, 7)
    rows = {label.strip(" •"): value for label, value, _ in labelled(report.splitlines())}
    assert rows["Total Commits:"] == str(len(history.git_commits))
    assert rows["Contributors:"] == str(history.git_commits["author"].nunique())
    assert rows["Applications:"] == str(history.git_commits["application"].nunique())
    assert rows["Total Deployments:"] == str(len(history.deployments))
    assert rows["Superseded by a newer one:"] == str(flow["superseded"].sum())
    assert rows["In flight at the end:"] == str(flow["in_flight"].sum())
    assert rows["Total Rollbacks:"] == str(len(history.rollbacks))
    assert rows["Successful Rollbacks:"] == str(history.rollbacks["success"].sum())
    assert rows["Failed Rollbacks:"] == str((~history.rollbacks["success"]).sum())
    minutes = history.rollbacks.loc[history.rollbacks["success"], "duration_min"]
    assert rows["Fastest Rollback:"] == f"{minutes.min():.1f} minutes"
    assert rows["Slowest Rollback:"] == f"{minutes.max():.1f} minutes"


def test_the_header_tells_the_seed_with_the_window():
    report = report_of(seed=4711)
    assert re.search(r"^Seed: +4711\b", report, re.MULTILINE)
    window = r"^Window: +2026-01-01 to 2026-01-30 \(30 days, UTC\)$"
    assert re.search(window, report, re.MULTILINE)


@pytest.mark.parametrize(
    ("scenario", "told"),
    [
        (
            Scenario(),
            "dev (each release) → staging (after 2-6 h, newest wins) → "
            "production (after 24-72 h, newest wins)",
        ),
        (
            Scenario(environments=(Environment("live", promotion="soak"),)),
            "live (only what stays newest)",
        ),
        (
            Scenario(
                environments=(
                    Environment("test", 0.9, (0, 0), promotion="each"),
                    Environment("live", 0.9, (1, 2.5), approval_rate=0.5, release_every_hours=168),
                )
            ),
            "test (each release) → live (after 1-2.5 h, every 168 h, 50 % pass, newest wins)",
        ),
    ],
    ids=["default", "one stage", "a train with a gate"],
)
def test_the_header_tells_the_pipeline(scenario, told):
    verdict = " ".join(" ".join(section(report_of(scenario), "VERDICT")).split())
    assert f"Pipeline: {told} Seed:" in verdict


def test_what_only_a_simulation_knows_is_left_out_of_other_reports():
    history, _ = simulated(Scenario(), 7)
    report = report_on(history)
    assert "Seed" not in report
    assert "Pipeline" not in report
    assert "Superseded" not in report
    assert "In flight" not in report


def test_releases_held_by_a_gate_are_told_where_there_are_some():
    gated = Scenario().with_environment("production", approval_rate=0.5)
    assert re.search(r"Held by an approval gate: +[1-9]", report_of(gated))
    assert "Held by" not in report_of()


def test_failures_that_were_not_rolled_back_are_told():
    history, _ = simulated(Scenario().with_environment("dev", success_rate=0), 7)
    row = rf"^Failures Not Rolled Back: +{len(history.deployments)}$"
    assert re.search(row, report_on(history), re.MULTILINE)


def test_the_three_main_reasons_are_told_the_most_frequent_first():
    history, _ = simulated(Scenario(), 7)
    lines = section(report_of(), "ROLLBACK SUMMARY")
    rows = lines[lines.index("Main Failure Reasons:") + 1 :][:3]
    counts = history.deployments["failure_reason"].value_counts()
    for row, count in zip(rows, counts.iloc[:3]):
        assert re.search(rf": +{count} \(", row)
        assert counts[re.match(r"  • (.+?): +\d", row)[1]] == count


@pytest.mark.parametrize(
    ("rate", "icon"),
    [
        (100.0, "🟢"),
        (95.0, "🟢"),
        (94.99, "🟡"),
        (90.0, "🟡"),
        (89.99, "🔴"),
        (0.0, "🔴"),
        (math.nan, "⚪"),
    ],
)
def test_the_icon_of_a_success_rate_follows_the_thresholds(rate, icon):
    assert rate_grade(rate)[0] == icon
    rates = {"dev": rate, "staging": 96.0, "production": 93.0}
    report = report_with({**ELITE, "success_rates": rates})
    lines = section(report, "SUCCESS RATES")
    assert lines[0].startswith(f"{icon} dev ")
    assert lines[1].startswith("🟢 staging ")
    assert lines[2].startswith("🟡 production ")


# ---- Empty and short histories -------------------------------------------------------------------


def test_a_window_in_which_nothing_happened_is_one_sentence():
    report = report_on(empty_history())
    (told,) = [line for line in report.splitlines() if line.startswith("Nothing happened")]
    assert "Choose more --days" in told
    for word in ("PERFORMER", "NEEDS IMPROVEMENT", "Recommendations", "n/a"):
        assert word not in report


def test_commits_without_a_deployment_print_not_available_in_the_place_of_nan():
    commits = simulated(Scenario(), 7)[0].git_commits
    metrics = measure(empty_history()._replace(git_commits=commits))
    text = format_report(Report(metrics)) + "\n" + format_summary(metrics)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    for label in (
        "Mean Lead Time",
        "Median Lead Time",
        "Change Failure Rate",
        "MTTR",
        "Overall Success Rate",
    ):
        assert re.search(rf"^{label}: +n/a", text, re.MULTILINE), label
    for label in (
        "Rollback Success Rate",
        "Average Rollback Time",
        "Fastest Rollback",
        "Slowest Rollback",
    ):
        assert re.search(rf"^{label}: +n/a$", text, re.MULTILINE), label
    assert "Maturity Level: ⚪ not assessable (" in text


@pytest.mark.parametrize("days", [None, 1, 2, 30])
def test_no_heading_stands_over_nothing(days):
    history, flow = empty_history(), None
    if days:
        history, flow = simulated(Scenario(), 7, Window.before(MONTH.end, days))
    lines = report_on(history, flow).splitlines()
    for line, following in zip(lines, lines[1:]):
        if line.endswith(":"):
            assert following.startswith("  "), line


def test_a_window_in_which_nothing_reached_production_says_so():
    report = report_of(window=Window.before(MONTH.end, 1))
    assert re.search(r"^⚪ production +n/a +\(0/0 successful\)$", report, re.MULTILINE)
    assert re.search(r"^Mean Lead Time: +n/a$", report, re.MULTILINE)
    assert "Where the Lead Time Goes" not in report
    assert "no change reached production" in report
    assert not re.search(r"\bnan\b", report)


def test_no_failure_at_all_is_told_as_met_without_a_number():
    history = hand_written(good={"dev": 40, "production": 40})
    report = report_on(history)
    assert re.search(r"^MTTR: +n/a$", report, re.MULTILINE)
    assert re.search(r"^MTTR: +✅ Elite .*no deployment failed", report, re.MULTILINE)
    assert re.search(r"^Total Rollbacks: +0$", report, re.MULTILINE)
    assert "Main Failure Reasons" not in report


# ---- Maturity ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "rollback_succeeds", "met"),
    [(0, True, True), (1, True, True), (1, False, False)],
    ids=["nothing failed", "a rollback succeeded", "no rollback succeeded"],
)
def test_recovery_without_a_number_counts_as_met_only_where_nothing_failed(
    failures, rollback_succeeds, met
):
    history = hand_written(
        *[("production", "OOMKilled")] * failures, good={"dev": 40, "production": 10}
    )
    policy = gitops.RollbackPolicy(success_rate=int(rollback_succeeds))
    history = history._replace(
        rollbacks=gitops.simulate_rollbacks(history.deployments, policy, 1)[1]
    )
    metrics = calculate_dora_metrics(history)
    assert math.isnan(metrics["mttr_minutes"]) == (not failures or not rollback_succeeds)
    assert bool(gitops.is_elite("mttr_minutes", metrics)) is met
    assert any("MTTR" in advice for advice in plain_recommendations(metrics)) is not met


def test_recovery_counts_for_nothing_where_nothing_was_deployed():
    metrics = calculate_dora_metrics(empty_history())
    assert not any(gitops.is_elite(key, metrics) for key in BENCHMARKS)


@pytest.mark.parametrize("count", range(5))
def test_the_level_follows_the_score_in_the_report_as_in_the_summary(count):
    for missed in itertools.combinations(BENCHMARKS, count):
        values = elite_but_for(*missed)
        metrics = metrics_with(values)
        report, summary = format_report(Report(metrics)), format_summary(metrics)
        level = LEVELS[min(count, 3)]
        assert calculate_maturity(values) == level
        assert f"Performance Score: {4 - count}/4 metrics meeting elite criteria" in report
        assert f"Maturity Level: {level}\n" in report
        assert report.count("✅ Elite (") == 4 - count
        assert report.count("❌ Needs Improvement (") == count
        assert re.search(rf"^  Overall Maturity: +{level[2:]}$", summary, re.MULTILINE)


def test_the_share_of_teams_is_said_to_be_indicative_where_one_is_printed():
    missed = [list(BENCHMARKS)[:count] for count in range(5)]
    summaries = [format_summary(metrics_with(elite_but_for(*keys))) for keys in missed]
    tiers = [summary.splitlines()[-1] for summary in summaries]
    assert "Top 7%" in tiers[0]
    assert "Top 25%" in tiers[1]
    for tier in tiers:
        assert tier.startswith("🏆 Performance Tier: ")
        assert ("indicative" in tier) == ("%" in tier)


# ---- Recommendations -----------------------------------------------------------------------------


def test_nothing_missed_is_one_line_that_says_so():
    (advice,) = plain_recommendations(ELITE)
    assert "all four targets are met" in advice
    assert not any(METRICS[key].label in advice for key in BENCHMARKS)
    assert report_with(ELITE).count("\nRecommendations:\n  • ") == 1


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            "deployment_frequency",
            ["Deployment Frequency", "0.40/day", "60 % below", "1/day", "12 deployments"],
        ),
        (
            "mean_lead_time",
            ["Lead Time", "36.00 h", "50 % above", "24 h", "staging", "75 %", "27.00 h"],
        ),
        (
            "mttr_minutes",
            ["MTTR", "90.00 min", "50 % above", "60 min", "mean of 3 successful rollbacks"],
        ),
        (
            "change_failure_rate",
            [
                "Change Failure Rate",
                "18.00 %",
                "20 % above",
                "15 %",
                "staging",
                "30.0 %",
                "OOMKilled",
            ],
        ),
    ],
)
def test_a_single_missed_target_is_one_advice_that_says_gap_limit_cause(key, words):
    (advice,) = plain_recommendations(elite_but_for(key))
    assert "\n" not in advice
    for word in words:
        assert word in advice


@pytest.mark.parametrize("count", range(1, 5))
def test_each_missed_target_has_its_own_advice_in_the_order_of_the_benchmarks(count):
    for missed in itertools.combinations(BENCHMARKS, count):
        advices = plain_recommendations(elite_but_for(*missed))
        assert len(advices) == count
        for key, advice in zip(missed, advices):
            assert advice.startswith(METRICS[key].label)


def test_recovery_that_could_not_be_measured_is_one_advice_with_its_cause():
    metrics = elite_but_for(mttr_minutes=math.nan, successful_rollbacks=0)
    (advice,) = plain_recommendations(metrics)
    assert advice.startswith("MTTR could not be measured")
    assert "3 failures" in advice
    assert "nan" not in advice


def test_a_lead_time_without_a_production_deployment_that_succeeded_names_that_cause():
    rates = {"dev": 90.0, "production": 0.0}
    metrics = elite_but_for(
        mean_lead_time=math.nan, success_rates=rates, production_deployment_frequency=0.5
    )
    assert plain_recommendations(metrics) == [
        "Lead Time could not be measured; no production deployment succeeded"
    ]


def test_advice_for_an_empty_history_says_that_there_is_nothing_to_measure():
    advices = plain_recommendations(calculate_dora_metrics(empty_history()))
    assert len(advices) == 4
    assert not any(re.search(r"\bnan\b", advice) for advice in advices)
    for advice in advices[1:]:
        assert "could not be measured" in advice
        assert "measure more days" in advice
    assert "make changes smaller" not in advices[0]


# ---- Real deployments ----------------------------------------------------------------------------


def real(source="argocd", between_looks=24.0, **tables):
    """A week of one application of which nine deployments went well and one failed.

    Of two of the nine nobody knows that.
    """
    start = MONTH.start
    healths = ["Unknown", "Unknown", *["Healthy"] * 7, "Degraded"]
    rows = [
        (
            start + gitops.pd.Timedelta(hours=16 * number),
            *("x", "production", "%040x" % number, "Synced", health, 60),
            "Rolled back" if health == "Degraded" else None,
        )
        for number, health in enumerate(healths)
    ]
    window = Window(start, start + gitops.pd.Timedelta(days=7))
    span = ("x", "production", "name", "x-prod", *window, False, 10, 10, between_looks)
    tables = {"coverage": table("coverage", span), **tables}
    made = table("git_commits"), table("deployments", *rows), table("rollbacks")
    history = History(*made, window, ("production",), source, **tables)
    check_history(history)
    return history


def test_a_lower_bound_says_so_wherever_it_is_shown():
    metrics = measure(real())
    assert metrics.values["change_failure_rate"] == 10
    told = [
        *format_report(Report(metrics)).splitlines(),
        *format_summary(metrics).splitlines(),
        *gitops.metric_step_lines(metrics),
    ]
    shown = [line for line in told if re.search(r"Change fail(ure)? rate", line, re.I)]
    rates = [line for line in shown if "10.00%" in line]
    assert len(rates) >= 5
    assert all("at least" in line for line in rates)


def test_a_target_that_a_lower_bound_may_miss_is_neither_met_nor_missed():
    metrics = measure(real())
    report = format_report(Report(metrics))
    assert (
        "⚪ at least 10.00% (<15% target; 2 deployments not looked at)"
        in section(report, "MATURITY")[3]
    )
    (advice,) = [line for line in plain_recommendations(metrics.values) if "Failure" in line]
    assert "--incidents" in advice
    assert metrics.elite["change_failure_rate"] is None


def test_a_config_repository_shows_desired_state_and_those_failures_that_were_taken_back():
    report = report_on(real("git", math.nan))
    assert "MEASURED from the config repository" in section(report, "VERDICT")[0]
    assert "\nFailures are those that rollbacks and reverts show;" in report


def test_real_rollbacks_are_not_said_to_be_automated():
    assert "Automated" not in format_summary(measure(real()))
    assert "Automated Rollbacks:" in format_summary(measure(simulated(Scenario(), 7, MONTH)[0]))


def test_the_days_that_all_applications_cover_are_said_where_some_history_is_lost():
    history = real()
    late = MONTH.start + gitops.pd.Timedelta(days=2, hours=3)
    rows = [tuple(row) for row in history.coverage.itertuples(index=False)]
    rows.append(("y", "production", "name", "y-prod", late, history.window.end, True, 1, 1, 24.0))
    lines = report_on(history._replace(coverage=table("coverage", *rows))).splitlines()
    assert "All applications are covered for the last 4 days: --days 4 measures these." in lines


@pytest.mark.parametrize("key", list(BENCHMARKS))
def test_a_value_at_or_just_beyond_its_limit_is_not_said_to_miss_it_by_nothing(key):
    better, limit, _ = BENCHMARKS[key]
    for value in (float(limit), limit * (1.001 if better == "<" else 0.999)):
        (advice,) = plain_recommendations({**elite_but_for(key), key: value})
        assert " 0%" not in advice


def test_the_reason_given_for_an_environment_is_one_of_its_own():
    failures = [("dev", "CrashLoopBackOff")] * 5 + [("production", "OOMKilled")] * 2
    metrics = calculate_dora_metrics(hand_written(*failures, good={"dev": 25, "production": 2}))
    (advice,) = [
        advice
        for advice in plain_recommendations(metrics)
        if advice.startswith("Change Failure Rate")
    ]
    assert "dev has 5 of 7 failures (16.7 % of its deployments)" in advice
    assert "CrashLoopBackOff" in advice
    assert "OOMKilled" not in advice


def test_the_wait_to_blame_is_the_longest_one():
    for worst in ("dev", "staging", "production"):
        parts = {name: 20.0 if name == worst else 8.0 for name in ("dev", "staging", "production")}
        (advice,) = plain_recommendations(
            {**ELITE, "mean_lead_time": 36.0, "lead_time_hours_by_environment": parts}
        )
        assert f"into {worst}" in advice
        assert "56 %" in advice


# ---- The verdict --------------------------------------------------------------------------------


def verdict(report):
    return "\n".join(section(report, "VERDICT"))


def test_the_report_begins_with_the_verdict():
    lines = report_of().splitlines()
    assert lines[3].endswith("VERDICT")
    assert lines[5].startswith("SIMULATED")


@pytest.mark.parametrize(
    ("source", "told"), [("git", "desired state"), ("argocd", "Argo CD"), ("files", "tables")]
)
def test_a_verdict_on_a_real_history_says_what_it_was_measured_from(source, told):
    report = report_on(real(source))
    assert re.search(rf"^MEASURED from .*{told}", verdict(report), re.MULTILINE)
    assert "SIMULATED" not in report


def test_real_commits_with_simulated_deployments_are_not_measured():
    metrics = measure(simulated(Scenario(), 7)[0])
    report = format_report(Report(metrics, commits_are_real=True))
    assert "\nSIMULATED deployments of real commits\n" in report


def test_each_row_of_the_verdict_has_the_numbers_that_make_its_value():
    metrics = measure(simulated(Scenario(), 7)[0])
    rows = {row["Metric"]: row for row in gitops.verdict_rows(metrics)}
    assert [METRICS[key].label for key in BENCHMARKS] == list(rows)
    count, days = re.fullmatch(
        r"(\d+) deployments in (\d+) days", rows["Deployment Frequency"]["Made of"]
    ).groups()
    assert rows["Deployment Frequency"]["Value"] == f"{int(count) / int(days):.2f}/day"
    failed, of = re.fullmatch(
        r"(\d+) failed of (\d+) deployments", rows["Change Failure Rate"]["Made of"]
    ).groups()
    assert rows["Change Failure Rate"]["Value"] == f"{100 * int(failed) / int(of):.2f} %"


@pytest.mark.parametrize("count", range(5))
def test_the_verdict_says_which_targets_are_met(count):
    for missed in itertools.combinations(BENCHMARKS, count):
        report = report_with(elite_but_for(*missed))
        assert verdict(report).count("✅ yes") == 4 - count
        assert verdict(report).count("❌ no") == count
        assert ("\nWhy: " in verdict(report)) == (count > 0)


def test_a_target_that_production_alone_misses_is_named():
    slow = Scenario().with_environment("production", release_every_hours=168)
    told = " ".join(verdict(report_of(slow)).split())
    assert re.search(r"Deployment Frequency [\d.]+/day .* ✅ yes Lead", told)
    assert re.search(r"Production alone: 0\.\d+/day, which misses > 1/day; \d", told)
    assert "which misses" not in verdict(report_of())


def test_a_metric_that_could_not_be_measured_is_neither_met_nor_missed():
    report = report_with({**ELITE, "mean_lead_time": math.nan})
    assert "⚪ n/a" in verdict(report)
    assert "Level:    ⚪ not assessable (Lead Time: " in verdict(report)
    assert "PERFORMER" not in report


@pytest.mark.parametrize(
    ("minutes", "shown"),
    [(9.9, "9.90 min"), (119.9, "119.90 min"), (2213.2, "36.89 h"), (10080, "7.00 days")],
)
def test_long_times_are_in_human_units(minutes, shown):
    values = {**ELITE, "mttr_minutes": minutes}
    (row,) = [row for row in gitops.verdict_rows(metrics_with(values)) if row["Metric"] == "MTTR"]
    assert row["Value"] == shown


def test_what_to_do_first_is_the_first_recommendation():
    tried = ["Lead Time is long; the gate", "  Open the gate: target met", "MTTR is long; people"]
    report = format_report(Report(measure(simulated(Scenario(), 7)[0]), tried=tried))
    assert "\nWhy:      Lead Time is long; the gate\nNext:     Open the gate" in report


def test_a_report_of_long_names_fits_a_hundred_columns():
    long = {f"{letter * 60}-service": 1 for letter in "abc"}
    scenario = Scenario(environments=(Environment("d" * 70), Environment("p" * 70)))
    scenario = scenario.with_team(applications=long)
    history, flow = simulated(scenario, 7)
    report = format_report(Report(measure(history), flow, 7, scenario, details=True))
    assert max(len(line) for line in report.splitlines()) <= 100


def test_the_health_gates_say_how_many_releases_each_stopped():
    history, flow = simulated(Scenario(), 7)
    report = format_report(Report(measure(history), flow, 7, Scenario()))
    table = history.deployments
    for name in ("dev", "staging"):
        there = table[table["environment"] == name]
        stopped = (there["health"] == "Degraded").sum()
        assert re.search(rf"After {name}: +{stopped} of {len(there)}$", report, re.MULTILINE)
    assert "After production" not in report


def test_applications_quick_check_and_trend_are_details():
    metrics = measure(simulated(Scenario(), 7)[0])
    brief, whole = (format_report(Report(metrics, details=details)) for details in (False, True))
    for title in ("PRODUCTION BY APPLICATION", "DORA QUICK CHECK"):
        assert title not in brief
        assert title in whole


# ---- Markdown and HTML --------------------------------------------------------------------------


def test_markdown_has_the_verdict_its_tables_and_the_advice():
    text = gitops.format_markdown(Report(measure(simulated(Scenario(), 7)[0])))
    assert text.startswith("## 🥈 HIGH PERFORMER\n\n**SIMULATED")
    for row in gitops.verdict_rows(measure(simulated(Scenario(), 7)[0])):
        cells = " \\| ".join(re.escape(gitops.as_markdown(cell)) for cell in row.values())
        assert re.search(rf"^\| {cells} \|$".replace("\\\\|", "\\|"), text, re.MULTILINE)
    assert "### Recommendations\n\n- Lead Time" in text


def test_names_cannot_steer_markdown():
    wild = "a|b<script>`*x*`"
    scenario = Scenario(environments=(Environment(wild), Environment("production")))
    text = gitops.format_markdown(Report(measure(simulated(scenario, 7)[0])))
    (row,) = [line for line in text.splitlines() if "script" in line and line.startswith("|")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert not re.search(r"(?<!\\)[<`*]", row)


def test_an_empty_window_is_one_sentence_in_markdown_too():
    text = gitops.format_markdown(Report(measure(empty_history())))
    assert "Nothing happened" in text
    assert "Recommendations" not in text


def test_a_notebook_shows_the_verdict_or_the_next_step(capsys):
    run = gitops.GitOpsAutomation(seed=7, end="2026-01-31")
    assert "call simulate_git_activity() or load_git_history() next" in run._repr_html_()
    run.simulate_git_activity()
    run.simulate_deployments()
    run.simulate_rollbacks()
    run.calculate_dora_metrics()
    shown = run._repr_html_()
    assert "HIGH PERFORMER" in shown and "SIMULATED" in shown and "&lt; 24 h" in shown
