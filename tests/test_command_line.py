"""The program as its users start it: options, bad input, pipes, interrupts, narrow consoles."""

import contextlib
import datetime as dt
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from conftest import TEMPLATE, called, git

import gitops_automation as module
from gitops_automation import Scenario, calculate_maturity

PROGRAM = Path(module.__file__)
FLAGS = [
    *(
        "--days",
        "--seed",
        "--end",
        "--config",
        "--print-config",
        "--repo",
        "--output",
        "--dpi",
        "--no-dashboard",
    ),
    *("--argocd", "--tags", "--application", "--environment-label", "--ignore-authors"),
    *("--incident-days", "--incidents-complete"),
    *("--deployments-from", "--environments", "--history", "--incidents", "--by"),
    *(
        "--what-if",
        "--levers",
        "--backtest",
        "--runs",
        "--cost-per-failed-hour",
        "--cost-per-waiting-hour",
    ),
    *("--export", "--json", "--quiet", "--alert-webhook", "--version"),
    *("--details", "--trace", "--markdown"),
]
RUN = ["--seed", "7", "--end", "2026-01-31", "--runs", "3"]
FAST = [*RUN, "--no-dashboard"]
IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def environment(**variables):
    """The caller's, without what would change how Python prints or which repository git takes."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "LC_", "LANG", "GIT_"))
    }
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8", **variables}


def start(*arguments, **options):
    command = [sys.executable, "-W", "error", str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(
        command, **dict(dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE), **options)
    )


def program(*arguments, **variables):
    """(Status, standard output, standard error) of the program in a process of its own."""
    with start(*arguments, env=environment(**variables)) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def files(folder="."):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def written(path, document):
    Path(path).write_text(
        document if isinstance(document, str) else json.dumps(document), encoding="utf-8"
    )
    return path


LIVE = {"name": "live", "success_rate": 0.95, "wait_hours": [0, 0], "duration_sec": [30, 120]}
"""An environment that the default scenario does not have says these."""


# ---- Help and version ---------------------------------------------------------------------------


def test_help_describes_every_option(capsys):
    status, out, err = called(capsys, "-h")
    assert (status, err) == (0, "")
    for flag in FLAGS:
        assert re.search(r"^  %s( .*)?(  |\n)" % flag, out, re.M), flag
    for name in re.findall(r"^  (-\S+|--\S+)", out, re.M):
        assert name.rstrip(",") in [*FLAGS, "-h"], name
    for default in ("(default: 30; ", "(default: 300", "(default: output)"):
        assert default in " ".join(out.split())


@pytest.mark.parametrize("columns", [60, 80, 100, 300])
def test_help_fits_a_plain_console(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = called(capsys, "-h")[1]
    options, examples = out.split("\nexamples:\n")
    assert max(map(len, options.splitlines()[6:])) < min(columns, 101)
    assert max(map(len, out.splitlines())) <= 100
    assert out.isascii()


def test_help_says_what_the_exit_status_means(capsys):
    statuses = re.findall(r"^  (\d+) +\w+", called(capsys, "-h")[1].split("exit status:")[1], re.M)
    assert statuses == ["0", "2", "130"]


def test_help_shows_examples(capsys):
    out = called(capsys, "-h")[1]
    examples = re.findall(r"^  python gitops_automation\.py(.*)", out, re.M)
    assert len(examples) >= 4
    assert len(set(re.findall(r"--[a-z-]+", " ".join(examples)))) >= 5


def test_the_examples_of_the_help_are_accepted(capsys):
    for example in re.findall(
        r"^  python gitops_automation\.py(.*)", called(capsys, "-h")[1], re.M
    ):
        arguments = re.split(r"\s{2,}|>", example)[0].split()
        module.option_parser().parse_args(arguments)


def test_the_version_is_one_line(capsys):
    status, out, err = called(capsys, "--version")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"gitops_automation\.py \d+\.\d+\.\d+\n", out)
    assert module.__version__ in out


def test_the_installed_command_goes_by_its_own_name(capsys, monkeypatch):
    """Its script gives this first argument; a kernel or a test gives another one."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/gitops-automation"])
    assert called(capsys, "--version")[1] == f"gitops-automation {module.__version__}\n"
    assert called(capsys, "--days", "0")[2].startswith("gitops-automation: error: ")
    text = called(capsys, "-h")[1]
    assert text.startswith("usage: gitops-automation ")
    assert len(re.findall(r"^  (?:argocd .*\| )?gitops-automation\b", text, re.M)) >= 8
    assert "gitops_automation.py" not in text


# ---- A run --------------------------------------------------------------------------------------


def test_a_run_with_no_option_prints_the_report_beside_the_picture():
    status, out, err = program()
    assert (status, err) == (0, b"")
    text = out.decode("utf-8")
    for phrase in (
        "🔄 GitOps Workflow Automation with ArgoCD",
        "Performance Score",
        ", seed ",
        "EXECUTIVE SUMMARY",
    ):
        assert phrase in text
    assert list(files()) == [os.path.join("output", "gitops_dashboard.png")]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_everywhere():
    """On the console, in the files, and whatever the order of Python's sets."""
    runs = []
    for hash_seed in "12":
        options = [*RUN, "--dpi", "40", "--export", "--output", "out"]
        console = program(*options, PYTHONHASHSEED=hash_seed)
        runs.append((console, files("out")))
    assert runs[0] == runs[1]
    assert runs[0][0][0] == 0
    assert len(runs[0][1]) == 5


def test_the_seed_that_a_run_prints_repeats_it(capsys):
    free = called(capsys, "--no-dashboard", "--end", "2026-01-31")[1]
    seed = re.search(r", seed (\d+)", free).group(1)
    assert called(capsys, "--no-dashboard", "--end", "2026-01-31", "--seed", seed)[1] == free
    assert called(capsys, "--no-dashboard", "--end", "2026-01-31")[1] != free


@pytest.mark.parametrize("seed", ["0", "007", "4611686018427387904", "9223372036854775807"])
def test_every_seed_that_the_class_takes_is_taken(capsys, seed):
    status, out, err = called(
        capsys, "--seed", seed, "--end", "2026-01-31", "--no-dashboard", "--days", "2"
    )
    assert (status, err) == (0, "")
    assert f", seed {int(seed)} " in " ".join(out.split())


def test_the_window_ends_at_todays_utc_midnight_unless_told_otherwise(capsys, monkeypatch):
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone of this system cannot be set for one process")
    days = [dt.datetime.now(dt.timezone.utc)]
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Pacific/Kiritimati")
        time.tzset()
        window = json.loads(called(capsys, "--json", "--no-dashboard", "--days", "3")[1])["window"]
    time.tzset()
    days.append(dt.datetime.now(dt.timezone.utc))
    assert window["days"] == 3
    assert window["end"] in [day.strftime("%Y-%m-%dT00:00:00Z") for day in days]
    assert window["start"] in [
        (day - dt.timedelta(days=3)).strftime("%Y-%m-%dT00:00:00Z") for day in days
    ]


def test_the_end_that_is_given_ends_the_window(capsys):
    document = json.loads(called(capsys, *FAST, "--days", "5", "--json")[1])
    assert document["window"] == {
        "start": "2026-01-26T00:00:00Z",
        "end": "2026-01-31T00:00:00Z",
        "days": 5,
    }


def test_no_dashboard_writes_nothing_at_all(capsys):
    assert called(capsys, *FAST)[0] == 0
    assert files() == {}


@pytest.mark.slow
def test_the_picture_has_the_resolution_that_was_asked_for(capsys):
    assert called(capsys, *RUN, "--quiet", "--dpi", "50") == (0, "", "")
    header = Path("output/gitops_dashboard.png").read_bytes()[16:24]
    assert header == (900).to_bytes(4, "big") + (500).to_bytes(4, "big")


# ---- One JSON object, and nothing ---------------------------------------------------------------


def test_json_is_one_object_with_all_that_is_measured(capsys):
    status, out, err = called(capsys, *FAST, "--json", "--export")
    assert (status, err) == (0, "")
    document = json.loads(out, parse_constant=pytest.fail)
    assert {"metrics", "maturity", "seed", "window"} <= set(document)
    assert document["seed"] == 7
    assert document["metrics"]["total_deployments"] > 300
    assert document["maturity"]["level"] in calculate_maturity(document["metrics"])
    assert json.loads(Path("output/metrics.json").read_text(encoding="utf-8")) == document


def test_json_goes_together_with_the_picture(capsys):
    status, out, err = called(capsys, *RUN, "--json", "--dpi", "10")
    assert (status, err) == (0, "")
    assert json.loads(out)["seed"] == 7
    assert list(files()) == [os.path.join("output", "gitops_dashboard.png")]


def test_quiet_writes_the_files_without_a_word(capsys):
    assert called(capsys, *FAST, "--quiet", "--export") == (0, "", "")
    assert len(files("output")) == 4


@pytest.mark.parametrize("option", ["--json", "--print-config"])
def test_quiet_leaves_what_was_asked_for(capsys, option):
    assert called(capsys, *FAST, "--quiet", option) == called(capsys, *FAST, option)
    assert json.loads(called(capsys, *FAST, "--quiet", option)[1])


def test_undefined_metrics_are_null_in_json(capsys):
    written("none.json", {"team": {"commits_per_day": 0}})
    status, out, err = called(capsys, *FAST, "--json", "--config", "none.json")
    assert (status, err) == (0, "")
    metrics = json.loads(out, parse_constant=pytest.fail)["metrics"]
    for key in ("mean_lead_time", "median_lead_time", "mttr_minutes", "change_failure_rate"):
        assert metrics[key] is None
    assert set(metrics["success_rates"].values()) == {None}


# ---- Configuration ------------------------------------------------------------------------------


def test_the_printed_configuration_read_again_is_the_same_one(capsys):
    text = called(capsys, "--print-config")[1]
    assert Scenario.from_json(text) == Scenario()
    written("team.json", text)
    assert called(capsys, "--config", "team.json", "--print-config")[1] == text
    assert called(capsys, *FAST, "--config", "team.json")[1] == called(capsys, *FAST)[1]
    assert files() == {"team.json": text.encode()}


def test_an_edited_configuration_counts(capsys):
    document = json.loads(called(capsys, "--print-config")[1])
    document["environments"][0]["success_rate"] = 0.5
    written("team.json", document)
    rates = json.loads(called(capsys, *FAST, "--json", "--config", "team.json")[1])["metrics"][
        "success_rates"
    ]
    assert 40 < rates["dev"] < 60


def test_a_configuration_may_be_a_part(capsys):
    written("team.json", {"team": {"branch": "trunk"}})
    status, out, _ = called(capsys, "--config", "team.json", "--print-config")
    assert status == 0
    assert Scenario.from_json(out) == Scenario().with_team(branch="trunk")


def test_a_configuration_may_begin_with_a_byte_order_mark(capsys):
    Path("team.json").write_bytes(b"\xef\xbb\xbf" + b'{"team": {"branch": "trunk"}}\r\n')
    status, out, _ = called(capsys, "--config", "team.json", "--print-config")
    assert status == 0
    assert json.loads(out)["team"]["branch"] == "trunk"


def test_an_environment_of_the_default_keeps_its_own_defaults(capsys):
    """So a file that lists it alone has removed the others, as the report's first lines show."""
    written("gate.json", {"environments": [{"name": "production", "approval_rate": 0.8}]})
    scenario = json.loads(called(capsys, "--config", "gate.json", "--print-config")[1])
    (production,) = scenario["environments"]
    assert production["wait_hours"] == [24, 72]
    assert production["approval_rate"] == 0.8
    report = called(capsys, *FAST, "--config", "gate.json")[1]
    assert "after 24-72 h, 80 % pass, newest wins" in " ".join(report.split())
    assert (
        json.loads(called(capsys, *FAST, "--config", "gate.json", "--json")[1])["metrics"][
            "mean_lead_time"
        ]
        > 24
    )


@pytest.fixture
def console(monkeypatch):
    """Return a function that runs the program on a console of some encoding: what arrives there."""

    def run(encoding, *arguments):
        bytes_ = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding=encoding, newline=""))
            module.main([str(argument) for argument in arguments])
            sys.stdout.flush()
            return bytes_.getvalue()

    return run


ENCODINGS = ["ascii", "cp1252", "utf-8"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_printed_configuration_reads_back_whatever_the_console(console, encoding):
    """A shell keeps the bytes: `--print-config > team.json`."""
    scenario = Scenario().with_team(branch="größe", applications={"日本語 🚀": 1.0})
    written("one.json", scenario.to_json())
    printed = console(encoding, "--config", "one.json", "--print-config")
    assert Scenario.from_json(printed.decode("utf-8")) == scenario


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_json_of_names_that_the_console_lacks_keeps_them(console, encoding):
    written("one.json", {"environments": [{**LIVE, "name": "größe 🚀"}]})
    printed = console(encoding, *FAST, "--json", "--config", "one.json")
    assert json.loads(printed.decode("utf-8"))["environments"] == ["größe 🚀"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_report_on_any_console_shows_what_it_can(console, encoding):
    written("one.json", {"environments": [{**LIVE, "name": "größe 🚀"}]})
    report = console(encoding, *FAST, "--config", "one.json").decode(encoding)
    for phrase in ("GITOPS WORKFLOW AUTOMATION REPORT", "EXECUTIVE SUMMARY", "gr"):
        assert phrase in report


# ---- Scenarios of other shapes ------------------------------------------------------------------


def test_no_commits_are_reported_as_nothing(capsys):
    written("none.json", {"team": {"commits_per_day": 0}})
    status, out, err = called(capsys, *FAST, "--config", "none.json", "--export")
    assert (status, err) == (0, "")
    assert out.count("n/a") >= 6
    assert "nan" not in out.lower()
    assert "✅" not in out.replace("✅ GitOps automation complete!", "")
    assert "Nothing happened: there is no commit and no deployment." in out
    assert len(files("output")) == 4
    maturity = json.loads(called(capsys, *FAST, "--config", "none.json", "--json")[1])["maturity"]
    assert (maturity["level"], maturity["elite"]["mean_lead_time"]) == (None, None)
    assert maturity["not_assessable"]["mean_lead_time"] == "nothing was deployed"


def test_one_environment_is_a_whole_pipeline(capsys):
    written("one.json", {"environments": [LIVE]})
    status, out, err = called(capsys, *FAST, "--config", "one.json")
    assert (status, err) == (0, "")
    assert re.search(r"• live: \d+ deployments", out)
    document = json.loads(called(capsys, *FAST, "--config", "one.json", "--json")[1])
    assert list(document["metrics"]["success_rates"]) == document["environments"] == ["live"]
    assert document["metrics"]["mean_lead_time"] >= 0


def test_twelve_environments_are_a_pipeline_too(capsys):
    names = ["stage %d" % i for i in range(12)]
    written("many.json", {"environments": [{**LIVE, "name": name} for name in names]})
    status, out, err = called(capsys, *FAST, "--config", "many.json", "--export")
    assert (status, err) == (0, "")
    assert all(re.search(r"• %s: \d+ deployments" % name, out) for name in names)
    assert (
        json.loads(Path("output/metrics.json").read_text(encoding="utf-8"))["environments"] == names
    )


def test_a_single_day_is_a_window(capsys):
    assert called(capsys, *FAST, "--days", "1")[0] == 0


def test_real_commits_take_the_place_of_simulated_ones(capsys):
    def git(*arguments, **variables):
        clean = {
            **environment(),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **IDENTITY,
            **variables,
        }
        subprocess.run(["git", *arguments], check=True, env=clean, stdout=subprocess.DEVNULL)

    git("init", "-q", "shop")
    for day in ("05", "06", "07"):
        date = {
            "GIT_AUTHOR_DATE": "2026-01-%sT12:00:00Z" % day,
            "GIT_COMMITTER_DATE": "2026-01-%sT12:00:00Z" % day,
        }
        git("-C", "shop", "commit", "-q", "--allow-empty", "-m", "feat: day " + day, **date)
    status, out, err = called(
        capsys, "--repo", "shop", "--seed", "1", "--no-dashboard", "--days", "10"
    )
    assert (status, err) == (0, "")
    assert "✓ Read 3 commits" in out
    assert "\n2025-12-29 to 2026-01-07 (10 days, UTC), all environments" in out
    document = json.loads(
        called(capsys, "--repo", "shop", "--json", "--no-dashboard", "--end", "2026-01-07")[1]
    )
    assert document["commits"] == 2


# ---- Bad input ----------------------------------------------------------------------------------

HUGE = "9" * 5000
BAD_OPTIONS = {
    "days none": (["--days", "0"], "0", "from 1 to"),
    "days negative": (["--days", "-1"], "-1", "from 1 to"),
    "days negative with =": (["--days=-1"], "-1", "from 1 to"),
    "days a fraction": (["--days", "1.5"], "1.5", "whole number"),
    "days a word": (["--days", "abc"], "abc", "whole number"),
    "days empty": (["--days", ""], "''", "whole number"),
    "days of another script": (["--days", "٣٠"], "٣٠", "whole number"),
    "days with an underscore": (["--days", "1_0"], "1_0", "whole number"),
    "days before 1970": (["--days", "999999"], "999999", "fewer"),
    "days huge": (["--days", "999999999999999999"], "999999999999999999", "from 1 to"),
    "days endless": (["--days", HUGE], "99999", "--days"),
    "seed negative": (["--seed", "-1"], "-1", "whole number"),
    "seed a fraction": (["--seed", "1e3"], "1e3", "whole number"),
    "seed a word": (["--seed", "lucky"], "lucky", "whole number"),
    "seed too large": (
        ["--seed", "9223372036854775808"],
        "9223372036854775808",
        "to 9223372036854775807",
    ),
    "seed endless": (["--seed", HUGE], "99999", "whole number"),
    "dpi none": (["--dpi", "0"], "0", "from 10 to 1200"),
    "dpi below": (["--dpi", "9"], "9", "from 10 to 1200"),
    "dpi above": (["--dpi", "1201"], "1201", "from 10 to 1200"),
    "dpi negative": (["--dpi", "-300"], "-300", "from 10 to 1200"),
    "dpi a fraction": (["--dpi", "72.5"], "72.5", "whole number"),
    "dpi a word": (["--dpi", "fine"], "fine", "whole number"),
    "end a word": (["--end", "soon"], "soon", "2026-01-31"),
    "end empty": (["--end", ""], "''", "2026-01-31"),
    "end no day": (["--end", "2026-02-30"], "2026-02-30", "2026-01-31"),
    "end with a time": (["--end", "2026-01-31T12:00"], "2026-01-31T12:00", "2026-01-31"),
    "end another order": (["--end", "31.01.2026"], "31.01.2026", "2026-01-31"),
    "end too early": (["--end", "1969-12-31"], "1969-12-31", "1970"),
    "end too late": (["--end", "2201-01-01"], "2201-01-01", "2199"),
    "a flag unknown": (["--dasy", "3"], "--dasy", "-h"),
    "a flag abbreviated": (["--day", "3"], "--day", "-h"),
    "an argument too many": (["report"], "report", "-h"),
    "a value missing": (["--days"], "--days", "-h"),
    "another period": (["--by", "year"], "year", "week"),
    "control characters": (["--end", "\x1b[31m2026\n"], "2026", "2026-01-31"),
    "repo missing": (["--repo", "missing"], "missing", "--repo"),
    "repo empty": (["--repo", ""], "", "--repo"),
    "repo no repository": (["--repo", "."], ".", "--repo"),
    "repo a file": (["--repo", "file"], "file", "--repo"),
    "config missing": (["--config", "missing.json"], "missing.json", "--print-config"),
    "config a folder": (["--config", "folder"], "folder", "--print-config"),
    "config empty name": (["--config", ""], "", "--print-config"),
    "config not UTF-8": (["--config", "latin.json"], "latin.json", "UTF-8"),
    "config of PowerShell": (["--config", "utf-16.json"], "utf-16.json", "UTF-8"),
    "output a file": (["--output", "file"], "file", "--output"),
    "output below a file": (["--output", "file/below"], "file", "--output"),
    "output too long": (["--output", "x" * 300], "xxx", "--output"),
    "output a device": (["--output", os.devnull], os.devnull, "--output"),
    "webhook ftp": (["--alert-webhook", "ftp://example.org/x"], "webhook", "http"),
    "webhook empty": (["--alert-webhook", ""], "webhook", "http"),
}


@pytest.fixture
def bad_files():
    Path("folder").mkdir()
    Path("file").write_text("mine")
    Path("latin.json").write_bytes('{"team": {"branch": "größe"}}'.encode("latin-1"))
    Path("utf-16.json").write_bytes("{}".encode("utf-16"))


def refused(capsys, *arguments):
    """The one line with which the program refuses its arguments, having done nothing."""
    before = files()
    status, out, err = called(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("gitops_automation.py: error: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    assert len(err) < 800
    assert files() == before
    return err


@pytest.mark.parametrize("what", BAD_OPTIONS)
def test_a_bad_option_is_one_line_with_its_remedy(capsys, bad_files, what):
    arguments, value, remedy = BAD_OPTIONS[what]
    line = refused(capsys, "--export", "--no-dashboard", *arguments)
    assert value in line
    assert remedy.lower() in line.lower()


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--dayz", "7"], "--days"),
        (["--dayz=7"], "--days"),
        (["--seed", "7", "--no-dashbord"], "--no-dashboard"),
        (["--Export"], "--export"),
        (["--what_if", "elite"], "--what-if"),
        (["--what"], "--what-if"),
        (["--webhook", "http://localhost:1"], "--alert-webhook"),
        (["--cost", "9"], "--cost-per-failed-hour or --cost-per-waiting-hour"),
        (["days", "7"], "--days or --incident-days"),
        (["--environmet-label", "x"], "--environment-label"),
    ],
    ids=" ".join,
)
def test_a_mistyped_option_is_told_what_it_may_mean(capsys, arguments, meant):
    line = refused(capsys, *arguments)
    assert f"; did you mean {meant}? -h lists" in line


@pytest.mark.parametrize("argument", ["--xyz", "-x", "", "--", "--\x1b[31m"])
def test_an_option_like_no_other_gets_no_guess(capsys, argument):
    assert "did you mean" not in refused(capsys, argument, "zzz")


BAD_SCENARIOS = {
    "rate above 1": ({"environments": [{**LIVE, "success_rate": 1.01}]}, "1.01", "from 0 to 1"),
    "rate below 0": ({"environments": [{**LIVE, "approval_rate": -0.1}]}, "-0.1", "from 0 to 1"),
    "rate a word": ({"rollback": {"success_rate": "high"}}, "high", "from 0 to 1"),
    "rate null": ({"rollback": {"success_rate": None}}, "None", "from 0 to 1"),
    "rate a percentage": ({"rollback": {"success_rate": 95}}, "95", "from 0 to 1"),
    "rate not a number": ('{"rollback": {"success_rate": NaN}}', "nan", "from 0 to 1"),
    "range reversed": ({"environments": [{**LIVE, "wait_hours": [6, 2]}]}, "6, 2", "in order"),
    "range negative": ({"environments": [{**LIVE, "duration_sec": [-5, 2]}]}, "-5", "from 0"),
    "range a word": ({"rollback": {"duration_min": "5-15"}}, "5-15", "such as 2:6 or [2, 6]"),
    "range infinite": ('{"rollback": {"duration_min": [5, Infinity]}}', "inf", "from 0"),
    "hours of a longer day": ({"team": {"work_hours": [9, 25]}}, "25", "24"),
    "weight negative": ({"team": {"authors": {"alice": -1}}}, "-1", "give weights"),
    "weights of nothing": ({"team": {"types": {"feat": 0, "fix": 0}}}, "feat", "give weights"),
    "weights empty": ({"failure_reasons": {}}, "{}", "give weights"),
    "weights a list": ({"team": {"applications": ["frontend"]}}, "frontend", '{"shop": 2'),
    "key unknown": ({"teem": {}}, "teem", "team, environments, rollback, failure_reasons"),
    "key unknown inside": ({"team": {"size": 5}}, "size", "commits_per_day"),
    "key unknown in an environment": (
        {"environments": [{"name": "live", "rate": 1}]},
        "rate",
        "success_rate",
    ),
    "environment without a name": (
        {"environments": [{"success_rate": 1}]},
        "success_rate",
        '"name"',
    ),
    "environment twice": ({"environments": [LIVE, LIVE]}, "live", "of its own"),
    "environments none": ({"environments": []}, "[]", "1 to 50"),
    "environments too many": (
        {"environments": [{**LIVE, "name": str(i)} for i in range(51)]},
        "name='0'",
        "1 to 50",
    ),
    "environments a mapping": ({"environments": {"live": {}}}, "live", "list"),
    "environment a word": ({"environments": ["live"]}, "live", "a list such as"),
    "environment of control characters": (
        {"environments": [{**LIVE, "name": "li\nve"}]},
        "ve",
        "printable",
    ),
    "environment of nothing": ({"environments": [{**LIVE, "name": " "}]}, "' '", "printable"),
    "promotion unknown": (
        {"environments": [{**LIVE, "promotion": "all"}]},
        "all",
        "each, newest, soak",
    ),
    "weekdays too few": ({"team": {"weekday_factors": [1, 1]}}, "1, 1", "seven"),
    "commits negative": ({"team": {"commits_per_day": -8}}, "-8", "from 0"),
    "commits endless": ('{"team": {"commits_per_day": 1%s}}' % ("0" * 400), "1000", "from 0"),
    "commits more digits than Python reads": (
        '{"team": {"commits_per_day": 1%s}}' % ("0" * 9000),
        "",
        "",
    ),
    "dispersion below 1": ({"team": {"dispersion": 0.5}}, "0.5", "from 1"),
    "sprint a fraction": ({"team": {"sprint_days": 1.5}}, "1.5", "whole number"),
    "branch a number": ({"team": {"branch": 5}}, "5", "name"),
    "team a list": ({"team": []}, "[]", "JSON object"),
    "a list": ([], "[]", "JSON object"),
    "a number": ("5", "5", "JSON object"),
    "nothing": ("", "JSON", "--print-config"),
    "broken": ('{"team": {', "JSON", "--print-config"),
    "a comma too many": ('{"team": {},}', "JSON", "--print-config"),
    "YAML": ("team: {}", "it looks like YAML", "--print-config"),
    "YAML with a comment": ("# ours\nteam:\n  branch: x\n", "it looks like YAML", "--print-config"),
    "YAML of another key": ("failure_reasons:\n  x: 1\n", "looks like YAML", "--print-config"),
    "not JSON": ("[team]\nbranch = 1", "not JSON: Expecting", "--print-config"),
    "control characters": ({"\x1b[31m": 1}, "[31m", "known keys"),
}


@pytest.mark.parametrize("what", BAD_SCENARIOS)
def test_a_bad_scenario_is_one_line_with_its_remedy(capsys, what):
    document, value, remedy = BAD_SCENARIOS[what]
    written("bad.json", document)
    line = refused(capsys, "--export", "--config", "bad.json")
    assert "bad.json" in line
    assert value in line
    assert remedy in line


def test_a_label_that_no_application_has_is_told_with_those_there_are(capsys, team):
    applications = json.loads((team / "apps.json").read_text(encoding="utf-8"))
    for application in applications:
        metadata = application["metadata"]
        metadata.update(labels={"stage": "prod", "team\x1b[31m": "a"}, annotations={"a.io/b": "c"})
    written("apps.json", applications)
    line = refused(capsys, "--argocd", "apps.json", "--environment-label", "tier")
    assert "no application has the label or annotation tier; " in line
    assert line.endswith("takes one of these: stage, team [31m, a.io/b\n")
    arguments = ("--environment-label", "stage", "--no-dashboard", "--quiet", "--runs", "2")
    assert called(capsys, "--argocd", "apps.json", *arguments) == (0, "", "")


def test_a_label_where_there_are_none_is_told_so(capsys, team):
    line = refused(capsys, "--argocd", team / "apps.json", "--environment-label", "tier")
    assert line.endswith("; --environment-label takes one of these: none\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--argocd", "missing.json"],
        ["--argocd", "apps.json", "file"],
        ["--argocd", "apps.json", "--incidents", "file"],
        ["--argocd", "apps.json", "--what-if", "production.nope=1"],
        ["--argocd", "apps.json", "--backtest"],
        ["--repo", "missing", "--deployments-from"],
        ["--repo", "config", "--deployments-from", "x/{environment}"],
        ["--history", "missing"],
        ["--what-if", "production.nope=1"],
        ["--what-if", "missing.json"],
        ["--what-if", "elite", "--what-if", "elite"],
        ["--what-if", "elite", "--days", "999999"],
        ["--levers", "nothing"],
        ["--levers", "--days", "999999"],
    ],
    ids=" ".join,
)
def test_an_error_comes_before_any_other_line(capsys, bad_files, team, arguments):
    """The files of the team are there: what is wrong may come after what is right."""
    here = {"apps.json": team / "apps.json", "config": team / "config"}
    refused(capsys, *(here.get(argument, argument) for argument in arguments))


REAL = {
    "argocd": ["--argocd", "apps.json"],
    "deployments-from": ["--repo", "config", "--deployments-from"],
    "history": ["--history", "tables"],
    "tags": ["--repo", "config", "--tags"],
}
NEEDS_REAL = "needs real deployments: --argocd, --deployments-from, --tags or --history"
NEEDS_NAMES = "needs --argocd, --deployments-from or --history"
NO_MEANING = {  # (options, what the line says of them)
    "label": (["--environment-label", "tier"], "--environment-label needs --argocd FILE"),
    "tags alone": (["--tags", "v*"], "--tags needs --repo DIR"),
    "an application of tags": (
        [*REAL["tags"], "--application", "a"],
        f"--application {NEEDS_NAMES}",
    ),
    "tags and a config repository": (
        [*REAL["tags"], "--deployments-from"],
        "--deployments-from has no meaning with --tags",
    ),
    "authors of a history": (
        [*REAL["history"], "--ignore-authors", "bot"],
        "--ignore-authors needs --deployments-from or --tags",
    ),
    "days of no incidents": (
        [*REAL["history"], "--incident-days", "3"],
        "--incident-days needs --incidents FILE",
    ),
    "environment of a repository": (
        [*REAL["deployments-from"], "--environment-label", "tier"],
        "--environment-label needs --argocd FILE",
    ),
    "no repository": (["--deployments-from"], "--deployments-from needs --repo DIR"),
    "a template alone": (
        ["--deployments-from", "{environment}/{application}"],
        "--deployments-from needs --repo DIR",
    ),
    "environments of a simulation": (["--environments", "a,b"], f"--environments {NEEDS_NAMES}"),
    "environments of commits": (
        ["--repo", "config", "--environments", "a,b"],
        f"--environments {NEEDS_NAMES}",
    ),
    "incidents of a simulation": (["--incidents", "x.csv"], f"--incidents {NEEDS_REAL}"),
    "incidents of commits": (
        ["--repo", "config", "--incidents", "x.csv"],
        f"--incidents {NEEDS_REAL}",
    ),
    "Argo CD and tables": (
        [*REAL["argocd"], *REAL["history"]],
        "--argocd has no meaning with --history",
    ),
    "commits and tables": (
        ["--repo", "config", *REAL["history"]],
        "--repo has no meaning with --history",
    ),
    "a repository and tables": (
        [*REAL["deployments-from"], *REAL["history"]],
        "--deployments-from has no meaning with --history",
    ),
    **{
        f"{option} with {source}": (
            [*arguments, option, "x"],
            f"{option} has no meaning with real deployments",
        )
        for source, arguments in REAL.items()
        for option in ("--config", "--alert-webhook")
    },
    "alerts of a what-if": (
        ["--what-if", "elite", "--alert-webhook", "http://localhost:1"],
        "--alert-webhook has no meaning with --what-if: nothing is rolled back",
    ),
    "the trend of a what-if": (
        ["--what-if", "elite", "--by", "week"],
        "--by has no meaning with --what-if",
    ),
    "a what-if over time": (
        ["--what-if", "elite", "--by", "month"],
        "--by has no meaning with --what-if",
    ),
    "a price of nothing": (
        ["--cost-per-failed-hour", "9"],
        "--cost-per-failed-hour needs --what-if CHANGE",
    ),
}


@pytest.mark.parametrize("what", NO_MEANING)
def test_options_that_have_no_meaning_together_are_one_line(capsys, what):
    arguments, why = NO_MEANING[what]
    assert refused(capsys, "--no-dashboard", *arguments) == f"gitops_automation.py: error: {why}\n"


@pytest.mark.parametrize("mode", ["--quiet", "--json"])
@pytest.mark.parametrize(
    "arguments",
    [["--days", "0"], ["--end", "x"], ["--output", "file"], ["--seed", "x"], ["-x"]],
    ids=" ".join,
)
def test_bad_input_is_refused_in_every_mode(capsys, bad_files, mode, arguments):
    refused(capsys, mode, *arguments)
    assert called(capsys, mode, *arguments)[1] == ""


@pytest.mark.slow
def test_bad_input_is_no_traceback_in_a_process_of_its_own():
    status, _, err = program("--days", "0", "--export")
    assert status == 2
    assert re.fullmatch(
        rb"gitops_automation\.py: error: argument --days: [^\n]* not '0'; [^\n]*\r?\n", err
    )
    assert files() == {}


@pytest.mark.slow
def test_a_picture_that_cannot_take_its_place_is_one_line(capsys):
    Path("output/gitops_dashboard.png").mkdir(parents=True)
    status, _, err = called(capsys, *RUN, "--dpi", "10", "--quiet")
    assert status == 2
    assert re.fullmatch(r"gitops_automation\.py: error: cannot write into output: [^\n]*\n", err)
    assert files() == {}


def test_a_closed_standard_input_is_one_line(capsys, monkeypatch):
    """Python has no `sys.stdin` then."""
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in refused(capsys, "--argocd", "-", "--no-dashboard")


def in_shell(command, variables=None, **options):
    """Run a shell command, in which $0 is this Python and $1 the program."""
    return subprocess.run(
        ["sh", "-c", command, sys.executable, str(PROGRAM)],
        stderr=subprocess.PIPE,
        env=environment(**(variables or {})),
        timeout=60,
        **options,
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_a_standard_input_that_the_shell_closed_is_one_line():
    command = '"$0" -W error "$1" --argocd - --no-dashboard <&-'
    done = in_shell(command, stdout=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


# ---- Pipes and interrupts -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    calls = (["--days", "60", *FAST], ["--print-config"], ["-h"], [*FAST, "--json"])
    processes = [start(*arguments, stdout=writer, env=environment()) for arguments in calls]
    os.close(writer)
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == [b""] * len(calls)
    assert {process.returncode for process in processes} <= {0, 141}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_a_pipe_into_head_is_no_traceback():
    command = '"$0" -W error "$1" --seed 7 --no-dashboard --days 200 | head -1'
    done = in_shell(command, {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE)
    assert (done.stderr, done.stdout.decode("utf-8").count("\n")) == (b"", 1)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_a_console_that_is_closed_is_no_traceback():
    command = '"$0" -W error "$1" --seed 7 --no-dashboard --export --quiet >&-'
    done = in_shell(command)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(files("output")) == 4


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_the_console_is_one_line():
    with open("/dev/full", "wb") as full, start(
        "--print-config", stdout=full, env=environment()
    ) as process:
        err = process.communicate(timeout=60)[1]
    assert process.returncode not in (0, None)
    assert b"Traceback" not in err
    assert err.count(b"\n") == 1
    assert b"No space left" in err


# A shell that starts the tests in the background has told their children to ignore SIGINT.
UNIGNORED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_ends_a_long_run_quietly_with_130():
    written("busy.json", {"team": {"commits_per_day": 300}})
    options = ["--days", "20000", "--config", "busy.json", "--export", "--end", "2026-01-31"]
    command = [sys.executable, "-u", "-W", "error", str(PROGRAM), *options]
    process = subprocess.Popen(
        [sys.executable, "-c", UNIGNORED, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    with process:
        try:
            while b"Generating" not in process.stdout.readline():
                assert process.poll() is None
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(OSError):
                process.kill()
    assert (process.returncode, err) == (130, b"")
    assert "complete" not in out.decode("utf-8")
    assert list(files()) == ["busy.json"]


def test_an_interrupt_while_writing_leaves_no_file(capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    status, _, err = called(capsys, *FAST, "--export")
    assert (status, err) == (130, "")
    assert files() == {}


# ---- Narrow consoles ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
    ids=" ".join,
)
def test_a_console_that_is_not_utf_8_shows_what_it_can(variables):
    written("team.json", {"environments": [{**LIVE, "name": "größe 🚀"}]})
    status, out, err = program(*FAST, "--config", "team.json", **variables)
    assert (status, err) == (0, b"")
    assert b"GITOPS WORKFLOW AUTOMATION REPORT" in out
    assert b"EXECUTIVE SUMMARY" in out


@pytest.mark.slow
def test_an_error_is_one_line_on_a_console_that_is_not_utf_8():
    status, out, err = program("--end", "größe 🚀", PYTHONIOENCODING="ascii")
    assert (status, out) == (2, b"")
    assert err.count(b"\n") == 1
    assert b"2026-01-31" in err


def test_a_console_of_utf_8_shows_every_icon(capsys):
    out = called(capsys, *FAST)[1]
    for icon in "🔄📝🚀📊🏆✅":
        assert icon in out
    assert "?" not in out


# ---- The function main --------------------------------------------------------------------------


def test_main_can_be_called_repeatedly(capsys):
    assert called(capsys, *FAST) == called(capsys, *FAST)


def test_main_takes_the_arguments_of_the_process_unless_given_some(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gitops_automation.py", *FAST, "--json"])
    module.main()
    assert json.loads(capsys.readouterr().out)["seed"] == 7


def test_main_splits_a_string_as_a_shell_does(capsys):
    written("two words.json", {"team": {"branch": "trunk"}})
    module.main("--config 'two words.json'  --print-config")
    assert json.loads(capsys.readouterr().out)["team"]["branch"] == "trunk"
    module.main("--seed 7 --end=2026-01-31 --runs 3 --no-dashboard")
    assert capsys.readouterr().out == called(capsys, *FAST)[1]


def test_a_string_with_a_quote_left_open_is_one_line(capsys):
    with pytest.raises(SystemExit) as left:
        module.main("--config 'two words.json")
    out, err = capsys.readouterr()
    assert (left.value.code, out, err.count("\n")) == (2, "", 1)
    assert "No closing quotation" in err


@pytest.mark.parametrize("arguments", [[], ["--days", "0"]], ids=["good", "bad"])
def test_main_leaves_the_console_as_it_was(capsys, arguments):
    console = sys.stdout
    assert called(capsys, *FAST, "--quiet", *arguments)[0] == (2 if arguments else 0)
    assert sys.stdout is console


def test_main_returns_what_it_ran_and_the_command_nothing(monkeypatch):
    """The console script of an installation hands its result to `sys.exit`."""
    assert module.main([*FAST, "--quiet"]).metrics["total_deployments"] > 0
    monkeypatch.setattr(sys, "argv", ["gitops-automation", *FAST, "--quiet"])
    assert module.run_command() is None


LIKELY_NAMES = """
    a advice answer app args ax axis baseline best change changes color colour commits config
    count counts data date day days deployment deployments df end env environment environments
    events failures fig figure file files folder forecast frame group groups high history hours
    item items key keys label labels lead level levels limit line lines load low mean median
    message metric metrics month months n name names number numbers output patches path plot
    policy production progress rate rates ratio recommendations release releases report result
    results rollback rollbacks row rows run runs scenario scenarios score seconds section seed
    series share show size spread stage start stats step steps summary table tables target team
    text time title total trial unit value values wait week window word words x y
""".split()


def test_nothing_has_a_name_that_a_notebook_user_would_assign():
    assert sorted(set(LIKELY_NAMES) & set(vars(module))) == []


def pasted():
    """Return the names of a notebook into which the whole file was pasted, without running it."""
    cell = types.ModuleType("pasted")
    sys.modules["pasted"] = cell  # dataclasses look their module up
    try:
        exec(compile(PROGRAM.read_text(encoding="utf-8"), "cell", "exec"), cell.__dict__)  # noqa: S102
    finally:
        del sys.modules["pasted"]
    return cell.__dict__


@pytest.mark.slow
def test_the_variables_of_a_notebook_break_nothing_that_was_pasted_before(capsys):
    """They are globals of one namespace: whatever of ours has the name of a variable is lost."""
    cell = pasted()
    cell.update(dict.fromkeys(LIKELY_NAMES, 42))
    cell["main"]([*RUN, "--dpi", "10", "--export"])
    cell["main"]([*RUN, "--dpi", "10", "--runs", "3", "--what-if", "production.wait_hours=*0.5"])
    assert "GitOps automation complete" in capsys.readouterr().out


def test_a_metric_of_the_json_is_the_one_of_the_report(capsys):
    metrics = json.loads(called(capsys, *FAST, "--json")[1])["metrics"]
    report = called(capsys, *FAST)[1]
    for label, key in (
        ("Mean Lead Time", "mean_lead_time"),
        ("Change Failure Rate", "change_failure_rate"),
    ):
        shown = float(re.search(r"^%s:\s+([\d.]+)" % label, report, re.M).group(1))
        assert math.isclose(shown, metrics[key], abs_tol=0.005)


def test_a_value_that_begins_with_a_dash_is_told_how_to_be_given(capsys):
    status, _, err = called(capsys, "--ignore-authors", "-bot", "--repo", "x", "--tags")
    assert (status, err.count("\n")) == (2, 1)
    assert "--option=-value" in err
    status, _, err = called(capsys, "--ignore-authors=-bot", "--repo", "x", "--tags")
    assert (status, "cannot open x" in err) == (2, True)


@pytest.fixture
def tagged(team, tmp_path):
    """A clone of the team's config repository with a release tag."""
    git(tmp_path, "clone", "-q", str(team / "config"), "tagged")
    git(tmp_path / "tagged", "tag", "v1")
    return tmp_path / "tagged"


def test_simulated_deployments_of_a_repository_name_what_measures_them(capsys, team, tagged):
    options = {team / "config": f"--deployments-from measures those of {TEMPLATE}"}
    for repo, option in {**options, tagged: "--tags measures its release tags"}.items():
        out = called(capsys, "--repo", repo, *FAST)[1]
        assert f"its deployments are simulated; {option}" in out


@pytest.mark.parametrize("option", [["--tags"], ["--deployments-from", "--application", "s*"]])
def test_a_repository_is_measured_by_its_tags_or_its_layout(capsys, tagged, option):
    status, out, _ = called(capsys, "--repo", tagged, *option, "--json", "--no-dashboard")
    document = json.loads(out)
    assert (status, document["simulated"]) == (0, False)
    assert set(document["metrics"]["deployments_by_application"]) <= {"tagged", "shop"}


# ---- Summaries for CI --------------------------------------------------------------------------


def test_the_markdown_file_is_written_beside_the_report(capsys):
    status, out, err = called(capsys, *FAST, "--markdown", "summary/dora.md")
    assert (status, err) == (0, "")
    text = Path("summary/dora.md").read_text(encoding="utf-8")
    assert text.startswith("## ") and "| Lead Time | 44.49 h |" in text


def test_details_bring_the_trend(capsys):
    assert "TREND OF PRODUCTION" in called(capsys, *FAST, "--details")[1]
    assert "TREND OF PRODUCTION" not in called(capsys, *FAST)[1]
