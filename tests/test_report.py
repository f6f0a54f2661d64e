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

pytestmark = pytest.mark.filterwarnings("error")

MODULE = Path(gitops.__file__).resolve()
GOLDEN = Path(__file__).resolve().parent / "golden" / "report_seed_7.txt"

FOUR = gitops.SCOPES["all environments"]
SAMPLE_LABELS = """
🔄 GitOps Workflow Automation with ArgoCD | ====
📝 Generating Git commit history... | ✓ Generated
🚀 Simulating deployments... | ✓ Simulated | • dev: | • staging: | • production:
🔄 Simulating automated rollbacks... | ✓ Executed | • Success rate:
📊 Calculating DORA metrics... | ✓ Deployment Frequency: | ✓ Mean Lead Time:
✓ Change Failure Rate: | ✓ MTTR: | ====
🔄 GITOPS WORKFLOW AUTOMATION REPORT | ====
📝 GIT ACTIVITY | ---- | Total Commits: | Contributors: | Applications:
Commit Type Breakdown: | • feat (features): | • fix (bug fixes): | • chore (maintenance):
• refactor (code cleanup): | • perf (performance):
🚀 DEPLOYMENT METRICS (DORA) | ---- | Deployment Frequency: | Total Deployments:
Mean Lead Time: | Median Lead Time: | Change Failure Rate: | MTTR:
Deployment Distribution: | • Dev: | • Staging: | • Production:
✅ SUCCESS RATES BY ENVIRONMENT | ---- | dev | staging | production | Overall Success Rate:
🔄 ROLLBACK SUMMARY | ---- | Total Rollbacks: | Successful Rollbacks: | Failed Rollbacks:
Rollback Success Rate: | Average Rollback Time: | Fastest Rollback: | Slowest Rollback:
Rollbacks by Environment: | • Dev: | • Staging: | • Production:
🏆 DORA MATURITY ASSESSMENT | ---- | Deployment Frequency: | Lead Time: | MTTR:
Change Failure Rate: | Performance Score: | Maturity Level: | Recommendations: | • | ====
📊 Creating visualizations... | ✓ Visualization saved as
✅ GitOps automation complete!
📊 EXECUTIVE SUMMARY: | Total Git Commits: | Total Deployments: | Automated Rollbacks:
Deployment Frequency: | Average Lead Time: | Change Failure Rate: | MTTR:
Overall Maturity:
🏆 Performance Tier:
"""
"""The labels of the sample output, in their order; `====` and `----` are rules."""

ELITE = dict(zip(FOUR, (2.0, 12.0, 10.0, 5.0)))
MISSED = dict(zip(FOUR, (0.4, 36.0, 90.0, 18.0)))
LEVELS = ["🏆 ELITE PERFORMER", "🥈 HIGH PERFORMER", "🥉 MEDIUM PERFORMER", "📈 NEEDS IMPROVEMENT"]
ADVICE = ["Lead Time 44 h is long; the gate", "  Open the gate: target met", "MTTR is long; people"]


@functools.lru_cache(maxsize=None)
def metrics_of_something():
    """The Metrics of a simulated month."""
    return gitops.measure(simulated(gitops.Scenario(), 7)[0])


def metrics_with(values):
    """Return the Metrics of something with other values, with the verdicts that follow."""
    something = metrics_of_something()
    return dataclasses.replace(something, values={**something.values, **values})


def report_with(values):
    """The report of metrics that are told."""
    return gitops.format_report(gitops.Report(metrics_with(values), tried=ADVICE))


def report_on(history, *more, **options):
    """The report of a history."""
    return gitops.format_report(
        gitops.Report(gitops.measure(history), *more, tried=ADVICE, **options)
    )


def report_of(scenario=gitops.Scenario(), seed=7, window=MONTH):
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
    """Return {label: value} of the lines `label: value`."""
    matches = (re.match(r"[ •]*([^:]+): +(\S.*)", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


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
    for label in re.split(r" \| |\n", SAMPLE_LABELS.strip("\n")):
        assert any(re.sub(r"^[🟢🟡]? +", "", line).startswith(label) for line in lines), label


def test_the_report_is_short_and_ends_with_level_why_and_next(console):
    assert not re.search(r"[ \t]\n|\n\n\n", console)
    lines = console.splitlines()
    edges = [number for number, line in enumerate(lines) if line == "=" * 80]
    assert edges[-1] - edges[1] <= 130
    assert max(map(len, lines)) <= 80
    screen = "\n".join(lines[-24:])
    assert "HIGH PERFORMER" in screen
    assert re.search("^  Why:  Lead Time 44.49 h is 85 % above", screen, re.M)
    assert re.search("^  Next: Cut the production wait from 24-72 h to ", screen, re.M)


# ---- Single sections -----------------------------------------------------------------------------


def test_the_counts_of_the_report_are_those_of_the_tables():
    history, flow = simulated(gitops.Scenario(), 7)
    report = report_on(history, flow, 7)
    rows = labelled(report.splitlines())
    assert rows["Total Commits"] == str(len(history.git_commits))
    assert rows["Contributors"] == str(history.git_commits["author"].nunique())
    assert rows["Applications"] == str(history.git_commits["application"].nunique())
    assert rows["Total Deployments"] == str(len(history.deployments))
    assert rows["Superseded by a newer one"] == str(flow["superseded"].sum())
    assert rows["In flight at the end"] == str(flow["in_flight"].sum())
    assert rows["Total Rollbacks"] == str(len(history.rollbacks))
    assert rows["Successful Rollbacks"] == str(history.rollbacks["success"].sum())
    assert rows["Failed Rollbacks"] == str((~history.rollbacks["success"]).sum())
    minutes = history.rollbacks.loc[history.rollbacks["success"], "duration_min"]
    assert rows["Fastest Rollback"] == f"{minutes.min():.1f} minutes"
    assert rows["Slowest Rollback"] == f"{minutes.max():.1f} minutes"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (gitops.Environment("live", promotion="soak"), "only what stays newest"),
        (
            gitops.Environment("live", 0.9, (1, 2.5), approval_rate=0.5, release_every_hours=168),
            "after 1-2.5 h, every 168 h, 50 % pass, newest wins",
        ),
    ],
)
def test_where_the_lead_time_goes_tells_the_gates(environment, told):
    scenario = gitops.Scenario(
        environments=(gitops.Environment("test", 0.9, promotion="each"), environment)
    )
    report = " ".join(report_of(scenario).split())
    assert re.search(rf"Into live: [\d.]+ hours \([\d.]+%\), {re.escape(told)} ✅", report)


def test_what_only_a_simulation_knows_is_left_out_of_other_reports():
    report = report_on(simulated(gitops.Scenario(), 7)[0])
    for word in ("seed", "newest wins", "Superseded", "In flight"):
        assert word not in report


@pytest.mark.parametrize(
    ("rate", "icon"),
    [(95.0, "🟢"), (94.99, "🟡"), (90.0, "🟡"), (89.99, "🔴"), (0.0, "🔴"), (math.nan, "⚪")],
)
def test_the_icon_of_a_success_rate_follows_the_thresholds(rate, icon):
    assert gitops.rate_grade(rate)[0] == icon
    rates = {"dev": rate, "staging": 96.0, "production": 93.0}
    lines = section(report_with({**ELITE, "success_rates": rates}), "SUCCESS RATES")
    assert [line[0] for line in lines[:3]] == [icon, "🟢", "🟡"]


def test_numbers_have_one_format():
    scenario = gitops.Scenario().with_team(commits_per_day=200)
    report = report_of(scenario)
    assert re.search(r"Total Commits: +\d,\d{3}$", report, re.M)
    assert re.search(r"Total Deployments: +\d+,\d{3}$", report, re.M)
    assert re.search(r"dev +\S+ +\(\d,\d{3}/\d,\d{3} successful\)", report)
    assert not re.search(r"(?<![\d.-])\d{4,}(?!-\d\d)", report.replace("2026", ""))


# ---- Empty and short histories -------------------------------------------------------------------


def test_a_window_in_which_nothing_happened_is_one_sentence():
    report = report_on(empty_history())
    assert "Nothing happened" in report and "Choose more --days" in " ".join(report.split())
    for text in (report, markdown_on(empty_history())):
        assert not re.search(r"PERFORMER|NEEDS IMPROVEMENT|\bnan\b", text)


@pytest.mark.parametrize("days", [None, 1, 2, 30])
def test_no_heading_stands_over_nothing(days):
    history, flow = empty_history(), None
    if days:
        history, flow = simulated(gitops.Scenario(), 7, gitops.Window.before(MONTH.end, days))
    lines = report_on(history, flow).splitlines()
    for line, following in zip(lines, lines[1:]):
        if line.endswith(":"):
            assert following.startswith("  "), line


# ---- The verdict ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(5))
def test_the_level_follows_the_score_in_the_report_as_in_the_summary(count):
    for missed in itertools.combinations(FOUR, count):
        values = {**ELITE, **{key: MISSED[key] for key in missed}}
        report = gitops.Report(metrics_with(values), tried=ADVICE)
        text, level = gitops.format_report(report), LEVELS[min(count, 3)]
        assert gitops.calculate_maturity(values) == level
        assert f"Performance Score: {4 - count}/4 metrics meeting elite criteria" in text
        assert f"Maturity Level: {level}\n" in text
        assert text.count("✅ Elite (") == 4 - count
        assert text.count("❌ Needs Improvement (") == count
        summary = gitops.format_summary(report)
        assert re.search(rf"^  Overall Maturity: +{level[2:]}$", summary, re.MULTILINE)
        tier = summary.splitlines()[-1]
        assert tier.startswith("🏆 Performance Tier: ")
        assert ("indicative" in tier) == ("%" in tier)


def test_each_row_of_the_verdict_has_the_numbers_that_make_its_value():
    table = gitops.verdict_table(gitops.Report(metrics_of_something(), tried=ADVICE))
    rows = {row["Metric"]: row for row in table.to_dict("records")}
    assert [gitops.METRICS[key].label for key in FOUR] == list(rows)
    row = rows["Deployment Frequency"]
    count, days = re.fullmatch(r"(\d+) deployments in (\d+) days", row["Made of"]).groups()
    assert row["Value"] == f"{int(count) / int(days):.2f}/day"
    row = rows["Change Failure Rate"]
    failed, of = re.fullmatch(r"(\d+) failed of (\d+) deployments", row["Made of"]).groups()
    assert row["Value"] == f"{100 * int(failed) / int(of):.2f} %"


def test_what_to_do_next_is_the_first_change_that_helps():
    stuck = ["MTTR is long; people: hire", "  No change that was tried meets the target: none"]
    for tried in (ADVICE, [*stuck, *ADVICE]):
        report = gitops.Report(metrics_of_something(), tried=tried)
        assert "\n  Why:  Lead Time 44 h is long\n  Next: Open the gate\n" in gitops.format_summary(
            report
        )
        assert report.why_and_next == ("Lead Time 44 h is long", "Open the gate")
    report = gitops.Report(metrics_of_something(), tried=stuck)
    assert "Next: hire\n" in gitops.format_summary(report)
    untried = ["Lead Time 44 h is long; the way into x takes all: shorten it first"]
    summary = gitops.format_summary(gitops.Report(metrics_of_something(), tried=untried))
    assert "Why:  Lead Time 44 h is long\n  Next: shorten it first\n" in summary
    doubted = ["MTTR cannot be judged (only 2): measure more days"]
    summary = gitops.format_summary(gitops.Report(metrics_of_something(), tried=doubted))
    assert "Why:  MTTR cannot be judged (only 2)\n  Next: measure more days\n" in summary


def test_a_report_of_long_names_fits_eighty_columns():
    long = {f"{letter * 60}-service": 1 for letter in "abc"}
    scenario = gitops.Scenario(
        environments=(gitops.Environment("d" * 70), gitops.Environment("p" * 70))
    )
    history, flow = simulated(scenario.with_team(applications=long), 7)
    for source in ("simulated", "argocd"):
        report = report_on(history._replace(source=source), flow, 7, scenario, details=True)
        assert max(len(line) for line in report.splitlines()) <= 80


# ---- Real deployments ----------------------------------------------------------------------------


def real(source="files", version="", lost=0, applications=("x",), **tables):
    """A month of applications, each with a good deployment a day, and one that failed."""
    rows, changes, start = [], [], MONTH.start
    for day, name in itertools.product(range(30), applications):
        time, sha = start + gitops.pd.Timedelta(days=day, hours=10), "%040x" % day
        end = time + gitops.pd.Timedelta(seconds=60)
        bad = ("Degraded", 60, "Rolled back", end + gitops.pd.Timedelta(minutes=9))
        rest = bad if day == 7 else ("Healthy", 60, None, None)
        rows.append((time, name, "production", sha, "Synced", *rest))
        times = start + gitops.pd.Timedelta(days=day, hours=4), end
        changes.append((name, "production", sha, version, *times))
    begin = start + gitops.pd.Timedelta(days=10, hours=3 if lost else 0)
    spans = [(name, "production", name, "name", begin, MONTH.end, lost) for name in applications]
    tables = {"changes": table("changes", *changes), **tables}
    tables = {"coverage": table("coverage", *spans), **tables}
    made = table("git_commits"), table("deployments", *rows), table("rollbacks")
    history = gitops.History(*made, MONTH, ("production",), source, **tables)
    check_history(history)
    return history


@pytest.mark.parametrize(
    ("source", "version", "told", "way"),
    [
        ("git", "v1", "the config repository (desired", "the first commit of a version to the"),
        ("git", "", "the config repository", "a commit to the config repository to the"),
        ("argocd", "v1", "what Argo CD keeps", "a commit at production's own path to the end of"),
        ("tags", "v1", "the release tags", "a commit to the release tag"),
        ("files", "v1", "tables", "a commit to the end of its production deployment"),
    ],
)
def test_a_measured_report_says_from_what_and_from_where_to_where(source, version, told, way):
    report = report_on(real(source, version))
    assert f"MEASURED from {told}" in section(report, "COVERS")[0]
    assert "SIMULATED" not in report
    verdict = " ".join(section(report, "MATURITY"))
    assert f"MEASURED from {told}" in verdict and "days, UTC), production" in verdict
    assert f"median of 30 changes, from {way}" in " ".join(verdict.split())


def test_what_is_simulated_in_part_is_not_said_to_be_measured():
    report = report_on(real(gitops.SIMULATED_TABLES))
    assert "SIMULATED: these tables were written by a simulation" in report
    assert "MEASURED" not in report
    report = report_on(simulated(gitops.Scenario(), 7)[0], commits_are_real=True)
    assert "\nSIMULATED deployments of real commits\n" in report


def test_a_measured_report_begins_with_what_is_covered_in_eight_lines():
    notes = tuple(f"note {number} {'x' * 60}" for number in range(9))
    history = real("argocd", lost=5, applications=("x", "y"), notes=notes)
    report = report_on(history)
    lines = report.splitlines()[4:]
    assert lines[0].endswith("WHAT THIS HISTORY COVERS")
    assert lines.index("") <= 8
    told = " ".join(" ".join(lines[:8]).split())
    assert "Lost: 10 older entries in 2 of 2 places" in told
    assert "production is known as a whole for the last 19 days (--days 19)" in told
    assert told.endswith("and 9 more with --details")
    assert "note 8" in report_on(history, details=True)


def test_a_measured_report_has_a_line_for_each_application_and_environment():
    report = report_on(real(applications=("cart", "shop")))
    lines = section(report, "PRODUCTION BY APPLICATION")
    assert [line.split()[1] for line in lines[1:3]] == ["cart", "shop"]
    assert lines[1].split()[2:] == ["6.02", "h", "1.00/day", "9.00", "min", "3.33", "%"]
    assert section(report, "SUCCESS RATES")[0].endswith("96.67%  (2/60 failed)")
    many = report_on(real(applications=[f"app-{number}" for number in range(50)]))
    assert "and 10 more (--json has them all)" in many


def test_details_add_applications_and_trend():
    history = simulated(gitops.Scenario(), 7)[0]
    trend = gitops.measure_trend(history, "week")
    brief, whole = report_on(history), report_on(history, trend=trend, details=True)
    for title in ("PRODUCTION BY APPLICATION", "TREND OF PRODUCTION"):
        assert title not in brief
        assert title in whole


def test_a_lower_bound_says_so_wherever_it_is_shown():
    metrics = gitops.measure(real("argocd"))
    report = gitops.Report(metrics, tried=ADVICE)
    told = [
        *gitops.format_report(report).splitlines(),
        *gitops.format_summary(report).splitlines(),
        *gitops.format_markdown(report).splitlines(),
    ]
    rates = [line for line in told if re.search(r"3\.33 ?%", line)]
    assert len(rates) >= 6
    assert all("at least" in line or "≥" in line for line in rates)
    verdict = section(gitops.format_report(report), "MATURITY")
    (at,) = [number for number, line in enumerate(verdict) if "Change Failure Rate:" in line]
    assert "⚪ at least 3.33% (<15% target, not judged)" in verdict[at]
    assert verdict[at + 1].strip() == "a failure may hide between two looks"


def test_a_block_of_production_says_where_it_counts_all_environments():
    history = simulated(gitops.Scenario(), 7)[0]._replace(source="git")
    whole = gitops.Report(gitops.measure(history), tried=ADVICE)
    report = gitops.format_report(whole)
    for heading, rows in (
        ("Deployment Distribution", history.deployments),
        ("Rollbacks by Environment", history.rollbacks),
    ):
        assert f"\n{heading} ({len(rows)} in all environments):\n" in report
    backs = (history.rollbacks["environment"] == "production").sum()
    for text in (report, gitops.format_summary(whole)):
        assert re.search(rf"Total Rollbacks: +{backs}$", text, re.M)
        assert "Commits That Began a Change:" in text and "Automated" not in text
    assert "ROLLBACK SUMMARY, PRODUCTION" in report
    assert "SUMMARY OF PRODUCTION" in gitops.format_summary(whole)


def test_a_success_rate_that_may_hide_failures_is_a_grey_bound():
    metrics = gitops.measure(real("argocd"))
    for rate, icon in ((96.67, "⚪"), (92.0, "⚪"), (80.0, "🔴")):
        values = {**metrics.values, "success_rates": {"production": rate}}
        report = gitops.format_report(
            gitops.Report(dataclasses.replace(metrics, values=values), tried=ADVICE)
        )
        (line,) = section(report, "SUCCESS RATES")
        assert line == f"{icon} production       ≤ {rate:.2f}%  (1/30 seen to fail)"
        assert "\n≤ is an upper bound" in report
    assert section(report_on(real()), "SUCCESS RATES")[0].startswith("🟢 production       96.67%")


def test_failures_that_are_over_do_not_read_as_if_they_lasted():
    history = real()
    assert re.search(
        r"Failures Not Rolled Back: +1\nFailures Not Over Yet: +0\n", report_on(history)
    )
    history.deployments["recovered"] = gitops.pd.NaT
    history.deployments["failure_reason"] = history.deployments[
        "failure_reason"
    ].cat.rename_categories(["oom"])
    report = report_on(history)
    assert re.search(r"Failures Not Over Yet: +1\n", report)
    assert "Main Failure Reasons:\n  • oom:" in report
    assert "Main Failure Reasons" not in report_on(real())  # `Rolled back` says no more


def test_two_sources_of_one_team_have_a_name_and_a_lead_time_of_their_own():
    joined = real("argocd", "v1", notes=(gitops.WITH_CLUSTER,))
    verdict = " ".join(" ".join(section(report_on(joined), "MATURITY")).split())
    assert "MEASURED from Argo CD's syncs, and before them from the config repository" in verdict
    assert "from the first commit of a version to the commit to production" in verdict


def test_what_has_no_known_environment_has_its_remedy_in_the_verdict():
    history = real()._replace(environments=(gitops.UNCLASSIFIED, "production"))
    some = gitops.Report(gitops.measure(history), tried=ADVICE)
    assert "  • Some applications cannot be judged" in gitops.format_report(some)
    assert "Next: Open the gate" in gitops.format_summary(some)
    none = gitops.measure(history._replace(deployments=history.deployments[:0]))
    nothing = gitops.Report(none, tried=ADVICE[2:])
    assert "Next: --environments 'production=NAME-*' says it" in gitops.format_summary(nothing)


@pytest.mark.parametrize(
    ("minutes", "shown", "interval"),
    [
        (119.9, "119.90 min", "60.00 to 240.00"),
        (2213.2, "36.89 h", "1.00 to 4.00"),
        (10080, "7.00 days", "0.04 to 0.17"),
    ],
)
def test_a_long_time_and_its_interval_are_in_one_human_unit(minutes, shown, interval):
    row = gitops.MetricRow("mttr_minutes", minutes, 60.0, 240.0)
    assert (row.text, row.interval) == (shown, interval)


# ---- Markdown, HTML and main() -------------------------------------------------------------------


def markdown_on(history):
    return gitops.format_markdown(gitops.Report(gitops.measure(history), tried=ADVICE))


def test_markdown_is_one_page_of_verdict_tables_and_advice():
    text = markdown_on(simulated(gitops.Scenario(), 7)[0])
    title = "## 🥈 HIGH PERFORMER: 3/4 metrics meeting elite criteria"
    assert text.startswith(f"{title}\n\n**SIMULATED")
    for row in gitops.verdict_table(gitops.Report(metrics_of_something())).to_numpy():
        assert f"| {' | '.join(map(gitops.as_markdown, row))} |" in text
    titles = re.findall("^### (.*)$", text, re.M)
    assert titles == ["Verdict", "Production", "Environments", "Applications", "Recommendations"]
    assert "\n- Lead Time 44 h is long; the gate\n  - Open the gate" in text


def test_names_cannot_steer_markdown():
    wild = "a|b<script>`*x*`"
    scenario = gitops.Scenario(
        environments=(gitops.Environment(wild), gitops.Environment("production"))
    )
    text = markdown_on(simulated(scenario, 7)[0])
    (row,) = [line for line in text.splitlines() if "script" in line and line.startswith("|")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert not re.search(r"(?<!\\)[<`*]", row)


def test_a_notebook_shows_the_verdict_or_the_next_step(capsys):
    run = gitops.GitOpsAutomation(seed=7, end="2026-01-31")
    assert "call simulate_git_activity()" in run._repr_html_()
    run.simulate_git_activity()
    run.simulate_deployments()
    run.simulate_rollbacks()
    run.calculate_dora_metrics()
    shown = run._repr_html_()
    for word in ("HIGH PERFORMER", "SIMULATED", "&lt; 24 h", "<p>Why: Lead", "<p>Next: Cut"):
        assert word in shown
