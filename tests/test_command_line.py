"""The program as its users start it: options, bad input, outputs, pipes, interrupts, consoles."""

import datetime as dt
import io
import json
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from conftest import TEMPLATE, called, git

import gitops_automation as module
from gitops_automation import Scenario, calculate_maturity

pytestmark = pytest.mark.usefixtures("in_a_folder")

PROGRAM = Path(module.__file__)
RUN = ["--seed", "7", "--end", "2026-01-31", "--runs", "3"]
FAST = [*RUN, "--no-dashboard"]
LIVE = {"name": "live", "success_rate": 0.95, "wait_hours": [0, 0], "duration_sec": [30, 120]}
"""An environment that the default scenario does not have."""
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def environment(**variables):
    """The caller's, without what would change how Python prints or which repository git takes."""
    unwanted = ("PYTHON", "LC_", "LANG", "GIT_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8", **variables}


def start(*arguments, **options):
    command = [sys.executable, "-W", "error", str(PROGRAM), *map(str, arguments)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return subprocess.Popen(command, **{**pipes, **options})


def program(*arguments, **variables):
    """(Status, standard output, standard error) of the program in a process of its own."""
    with start(*arguments, env=environment(**variables)) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def in_shell(command, variables=None, **options):
    """Run a shell command, in which $0 is this Python and $1 the program."""
    given = dict(stderr=subprocess.PIPE, env=environment(**(variables or {})), timeout=60)
    return subprocess.run(["sh", "-c", command, sys.executable, str(PROGRAM)], **given, **options)


def files(folder="."):
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def written(path, document):
    text = document if isinstance(document, str) else json.dumps(document)
    Path(path).write_text(text, encoding="utf-8")
    return path


def document_of(capsys, *arguments):
    """The JSON object of a run that ends well."""
    status, out, err = called(capsys, *FAST, "--json", *arguments)
    assert (status, err) == (0, "")
    return json.loads(out, parse_constant=pytest.fail)


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


# ---- Help --------------------------------------------------------------------------------------


def test_each_option_is_one_line_of_help_on_a_plain_console(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = called(capsys, "-h")
    assert (status, err, out.isascii()) == (0, "", True)
    shown = re.findall(r"^  (-h, --help|--[a-z-]+).* {2,}\S", out, re.M)
    listed = [name for options in module.OPTIONS.values() for name, *_ in options]
    assert shown == listed
    before, examples = out.split("\nexamples:\n")
    assert not re.findall(r"^ {10,}", before, re.M)
    for example in re.findall(r"gitops_automation\.py(.*)", examples):
        module.parse_arguments(re.split(r"\s{2,}|>", example)[0])
    assert re.findall(r"^  (\d+) +\w+", examples.split("exit status:")[1], re.M) == [
        "0",
        "2",
        "130",
    ]


def test_the_installed_command_goes_by_its_own_name(capsys, monkeypatch):
    """Its script gives this first argument; a kernel or a test gives another one."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/gitops-automation"])
    assert called(capsys, "--days", "0")[2].startswith("gitops-automation: error: ")
    text = called(capsys, "-h")[1]
    assert text.startswith("usage: gitops-automation ")
    assert "gitops_automation.py" not in text


# ---- A run --------------------------------------------------------------------------------------


def test_a_run_with_no_option_prints_the_report_beside_the_picture():
    status, out, err = program()
    assert (status, err) == (0, b"")
    text = out.decode("utf-8")
    for phrase in ("🔄 GitOps Workflow Automation with ArgoCD", ", seed ", "EXECUTIVE SUMMARY"):
        assert phrase in text
    (name,) = files()
    assert name == os.path.join("output", "gitops_dashboard.png")
    size = (5400).to_bytes(4, "big") + (3000).to_bytes(4, "big")
    assert files()[name][16:24] == size


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_everywhere():
    """On the console, in the files, and whatever the order of Python's sets."""
    runs = []
    for hash_seed in "12":
        console = program(*RUN, "--export", "--output", "out", PYTHONHASHSEED=hash_seed)
        runs.append((console, files("out")))
    assert runs[0] == runs[1]
    assert (runs[0][0][0], len(runs[0][1])) == (0, 5)


def test_the_seed_that_a_run_prints_repeats_it(capsys):
    usual = ("--no-dashboard", "--end", "2026-01-31", "--days", "3")
    free = called(capsys, *usual)[1]
    seed = re.search(r", seed (\d+)", free).group(1)
    assert called(capsys, *usual, "--seed", seed)[1] == free != called(capsys, *usual)[1]
    for largest in ("007", "9223372036854775807"):
        out = called(capsys, *usual, "--seed", largest)[1]
        assert f", seed {int(largest)} " in " ".join(out.split())


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="no zone for one process")
def test_the_window_ends_at_todays_utc_midnight_unless_told_otherwise(capsys, monkeypatch):
    days = [dt.datetime.now(dt.timezone.utc)]
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Pacific/Kiritimati")
        time.tzset()
        window = json.loads(called(capsys, "--json", "--no-dashboard", "--days", "3")[1])["window"]
    time.tzset()
    days.append(dt.datetime.now(dt.timezone.utc))
    assert window["end"] in [day.strftime("%Y-%m-%dT00:00:00Z") for day in days]
    given = {"start": "2026-01-26T00:00:00Z", "end": "2026-01-31T00:00:00Z", "days": 5}
    assert document_of(capsys, "--days", "5")["window"] == given


def test_json_is_one_object_with_all_that_is_measured(capsys):
    document = document_of(capsys, "--export", "--details")
    assert {"metrics", "maturity", "seed", "window", "trend"} <= set(document)
    assert document["metrics"]["total_deployments"] > 300
    assert document["maturity"]["level"] in calculate_maturity(document["metrics"])
    assert json.loads(Path("output/metrics.json").read_text(encoding="utf-8")) == document
    report = called(capsys, *FAST)[1]
    for label, key in (("Mean Lead Time", "mean_lead_time"), ("MTTR", "mttr_minutes")):
        shown = float(re.search(r"^%s:\s+([\d.]+)" % label, report, re.M).group(1))
        assert shown == pytest.approx(document["metrics"][key], abs=0.005)


def test_what_writes_nothing_needs_no_folder(capsys):
    Path("file").write_text("mine")
    document_of(capsys, "--output", "file/below")
    assert files() == {"file": b"mine"}
    assert "--output" in refused(capsys, *FAST, "--export", "--output", "file/below")
    assert "cannot write into file" in refused(capsys, *RUN, "--output", "file")


# ---- Configuration ------------------------------------------------------------------------------


def test_the_printed_configuration_read_again_is_the_same_one(capsys):
    text = called(capsys, "--config")[1]
    assert Scenario.from_json(text) == Scenario()
    Path("team.json").write_bytes(b"\xef\xbb\xbf" + text.encode())  # as Windows writes it
    assert called(capsys, *FAST, "--config", "team.json")[1] == called(capsys, *FAST)[1]


def test_an_environment_of_the_default_keeps_its_own_defaults(capsys):
    """So a file that lists it alone has removed the others, as the report's first lines show."""
    written("gate.json", {"environments": [{"name": "production", "approval_rate": 0.8}]})
    report = called(capsys, *FAST, "--config", "gate.json")[1]
    assert "after 24-72 h, 80 % pass, newest wins" in " ".join(report.split())


def test_twelve_environments_or_one_are_a_pipeline_too(capsys):
    for count in (1, 12):
        names = ["stage %d" % number for number in range(count)]
        written("many.json", {"environments": [{**LIVE, "name": name} for name in names]})
        out = called(capsys, *FAST, "--config", "many.json")[1]
        assert all(re.search(r"• %s: \d+ deployments" % name, out) for name in names)
        document = document_of(capsys, "--config", "many.json", "--days", "1")
        assert list(document["metrics"]["success_rates"]) == document["environments"] == names


# ---- Repositories -------------------------------------------------------------------------------


def test_real_commits_take_the_place_of_simulated_ones(capsys, monkeypatch, tmp_path):
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@b")
    git(tmp_path, "init", "-q", "shop")
    for day in ("05", "06", "07"):
        commit = f"commit refs/heads/main\ncommitter a <a@b> {day_of(day)} +0000\ndata 4\nfeat\n"
        parent = "" if day == "05" else "from refs/heads/main^0\n"
        git(tmp_path / "shop", "fast-import", "--quiet", text=commit + parent)
    git(tmp_path / "shop", "symbolic-ref", "HEAD", "refs/heads/main")
    status, out, err = called(capsys, "--repo", "shop", "--no-dashboard", "--days", "10")
    assert (status, err) == (0, "")
    assert "✓ Read 3 commits\n    • its deployments are simulated\n" in out
    assert "\n2025-12-29 to 2026-01-07 (10 days, UTC), all environments" in out
    document = json.loads(
        called(capsys, "--repo", "shop", "--json", "--no-dashboard", "--end", "2026-01-07")[1]
    )
    assert document["commits"] == 2


def day_of(day):
    """The noon of a day of January 2026 in seconds since 1970."""
    return int(dt.datetime(2026, 1, int(day), 12, tzinfo=dt.timezone.utc).timestamp())


@pytest.fixture
def tagged(team, tmp_path):
    """A clone of the team's config repository with a release tag."""
    git(tmp_path, "clone", "-q", str(team / "config"), "tagged")
    git(tmp_path / "tagged", "tag", "v1")
    return tmp_path / "tagged"


def test_simulated_deployments_of_a_repository_name_what_measures_them(capsys, team, tagged):
    git(tagged, "tag", "1.0")
    options = {team / "config": f"--deployments-from measures those of {TEMPLATE}"}
    for repo, option in {**options, tagged: "--tags measures its release tags"}.items():
        out = called(capsys, "--repo", repo, *FAST)[1]
        assert f"its deployments are simulated; {option}" in out
    git(tagged, "tag", "-d", "v1")
    out = called(capsys, "--repo", tagged, *FAST)[1]
    assert "its deployments are simulated; --tags '[0-9]*' measures its release tags" in out
    assert document_of(capsys, "--repo", tagged, "--tags", "[0-9]*")["simulated"] is False


@pytest.mark.parametrize("option", [["--tags"], ["--deployments-from", "--application", "s*"]])
def test_a_repository_is_measured_by_its_tags_or_its_layout(capsys, tagged, option):
    document = document_of(capsys, "--repo", tagged, *option)
    assert document["simulated"] is False
    assert set(document["metrics"]["deployments_by_application"]) <= {"tagged", "shop"}


# ---- Bad input ----------------------------------------------------------------------------------

HUGE = "9" * 5000
BAD_OPTIONS = {  # what: (options, what the line names, what to do)
    "days none": (["--days", "0"], "0", "from 1 to"),
    "days negative with =": (["--days=-1"], "-1", "from 1 to"),
    "days a fraction": (["--days", "1.5"], "1.5", "whole number"),
    "days empty": (["--days", ""], "''", "whole number"),
    "days before 1970": (["--days", "999999"], "999999", "fewer"),
    "days endless": (["--days", HUGE], "99999", "--days"),
    "seed negative": (["--seed", "-1"], "-1", "whole number"),
    "seed too large": (["--seed", str(2**63)], str(2**63), f"to {2**63 - 1}"),
    "runs too few": (["--runs", "1"], "1", "from 2 to"),
    "end a word": (["--end", "soon"], "soon", "2026-01-31"),
    "end no day": (["--end", "2026-02-30"], "2026-02-30", "2026-01-31"),
    "end too late": (["--end", "2201-01-01"], "2201-01-01", "2199"),
    "a flag abbreviated": (["--day", "3"], "--day", "did you mean --days"),
    "an argument too many": (["report"], "report", "-h"),
    "a value missing": (["--days"], "--days", "-h"),
    "a value like an option": (["--ignore-authors", "-x"], "--ignore-authors", "--option=-value"),
    "control characters": (["--end", "\x1b[31m2026\n"], "2026", "2026-01-31"),
    "repo missing": (["--repo", "missing"], "missing", "--repo"),
    "repo no repository": (["--repo", "."], ".", "--repo"),
    "config missing": (["--config", "missing.json"], "missing.json", "--config alone"),
    "config a folder": (["--config", "folder"], "folder", "--config alone"),
    "config not UTF-8": (["--config", "latin.json"], "latin.json", "utf-8"),
    "output a file": (["--output", "file"], "file", "--output"),
    "output too long": (["--output", "x" * 300], "xxx", "--output"),
    "metric mistyped": (["--levers", "mean_leed_time"], "mean_leed_time", "mean mean_lead_time?"),
    "knob mistyped": (["--what-if", "prod.wait_hours=1"], "prod.", "are production.wait_hours"),
    "preset mistyped": (["--what-if", "elit"], "elit", "(gitops, traditional, elite)"),
    "scenario twice": (["--what-if", "elite", "--what-if", "elite"], "elite", "of its own"),
    "release unknown": (["--trace", "zzz"], "zzz", "latest, slowest, failed"),
    "no tables": (["--history", "missing"], "missing", "deployments.csv"),
    "standard input closed": (["--argocd", "-"], "standard input is closed", ""),
}


@pytest.mark.parametrize("what", BAD_OPTIONS)
def test_a_bad_option_is_one_line_with_its_remedy(capsys, monkeypatch, what):
    Path("folder").mkdir()
    Path("file").write_text("mine")
    Path("latin.json").write_bytes('{"team": {"branch": "größe"}}'.encode("latin-1"))
    monkeypatch.setattr(sys, "stdin", None)
    arguments, value, remedy = BAD_OPTIONS[what]
    for mode in ([], ["--json"]):
        line = refused(capsys, "--export", "--no-dashboard", *mode, *arguments)
        assert value in line
        assert remedy in line


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--dayz=7"], "--days"),
        (["--Export"], "--export"),
        (["--what_if", "elite"], "--what-if"),
        (["--webhook", "http://localhost:1"], "--alert-webhook"),
        (["--environment", "x"], "--environments"),
    ],
    ids=" ".join,
)
def test_a_mistyped_option_is_told_what_it_may_mean(capsys, arguments, meant):
    assert f"; did you mean {meant}? -h lists" in refused(capsys, *arguments)


def test_a_bad_scenario_is_one_line_with_its_file_and_its_remedy(capsys):
    """tests/test_scenario.py has what is wrong with a scenario."""
    for document, value, remedy in (
        ({"teem": {}}, "teem", "team, environments, rollback, failure_reasons"),
        ({"environments": [{**LIVE, "promotion": "newst"}]}, "each, newest", "mean newest?"),
        ("# ours\nteam:\n  branch: x\n", "it looks like YAML", "--config alone"),
        ({"\x1b[31m": 1}, "[31m", "known keys"),
    ):
        line = refused(capsys, "--export", "--config", written("bad.json", document))
        assert all(part in line for part in ("bad.json", value, remedy))


def test_an_error_stands_alone_although_it_comes_after_what_is_right(capsys, team):
    Path("file").write_text("mine")
    argo, repo = ["--argocd", team / "apps.json"], ["--repo", team / "config"]
    for arguments in (
        [*argo, "file"],
        [*argo, "--incidents", "file"],
        [*argo, "--what-if", "production.nope=1"],
        [*argo, "--backtest"],
        [*argo, "--trace", "nothing"],
        [*argo, "--application", "shp"],
        [*repo, "--deployments-from", "x/{environment}"],
        [*repo, "--trace", "nothing"],
        ["--levers", "--days", "999999"],
    ):
        refused(capsys, *arguments, "--no-dashboard")


VALUES = {
    "tags": [],
    "argocd": ["x"],
    "what-if": ["elite"],
    "levers": [],
    "deployments-from": [],
}
SWITCHES = ("incidents-complete", "backtest", "details")


def flags(*names):
    """Options with a value that fits, from names as the rules write them."""
    given = []
    for name in (name.replace("_", "-") for name in names):
        value = [] if name in SWITCHES else VALUES.get(name, ["x"])
        given += [f"--{name}", *value]
    return given


def test_what_needs_or_excludes_another_option_says_so(capsys):
    tried = 0
    for names, others in module.NEEDS.items():
        for name in names.split():
            line = refused(capsys, *flags(name))
            options = " or ".join(f"--{other.replace('_', '-')}" for other in others.split())
            assert line.endswith(f"error: --{name.replace('_', '-')} needs {options}\n")
            tried += 1
    for names, others in module.EXCLUDES.items():
        for name, other in ((name, other) for name in names.split() for other in others.split()):
            beside = {"tags": ["repo"], "deployments_from": ["repo"], "backtest": ["argocd"]}
            more = [one for key in (name, other) for one in beside.get(key, [])]
            more = [one for one in dict.fromkeys(more) if one not in (name, other)]
            line = refused(capsys, *flags(name, other, *more))
            assert " has no meaning with " in line
            tried += 1
    assert tried > 20


# ---- Where output goes --------------------------------------------------------------------------


def test_the_markdown_file_is_written_beside_the_report(capsys):
    status, out, err = called(capsys, *FAST, "--markdown", "summary/dora.md")
    assert (status, err) == (0, "")
    text = Path("summary/dora.md").read_text(encoding="utf-8")
    assert text.startswith("## ") and "| Lead Time | 44.49 h |" in text


def test_the_summary_of_a_job_is_appended_to_and_another_file_replaced(capsys, monkeypatch):
    for name in ("job.md", "other.md"):
        Path(name).write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", os.path.abspath("job.md"))
    for name in ("job.md", "other.md"):
        assert called(capsys, *FAST, "--days", "2", "--markdown", name)[0] == 0
    job, other = (Path(name).read_text(encoding="utf-8") for name in ("job.md", "other.md"))
    assert job == "before\n" + other


@posix
def test_a_link_stays_and_a_pipe_is_written_to(capsys):
    os.symlink("real.md", "link.md")
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("link.md", "pipe"):
        assert called(capsys, *FAST, "--days", "2", "--markdown", name)[0] == 0
    text = Path("real.md").read_bytes()
    assert Path("link.md").is_symlink() and text.startswith(b"## ")
    assert os.read(reader, 100_000) == text
    os.close(reader)


# ---- Pipes and interrupts -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    calls = (["--days", "60", *FAST], ["--config"], ["-h"], [*FAST, "--json"])
    processes = [start(*arguments, stdout=writer, env=environment()) for arguments in calls]
    os.close(writer)
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == [b""] * len(calls)
    assert {process.returncode for process in processes} <= {0, 141}


@pytest.mark.slow
@posix
def test_what_the_shell_closed_or_cut_is_no_traceback():
    command = '"$0" -W error "$1" --seed 7 --no-dashboard --days 200 | head -1'
    done = in_shell(command, {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE)
    assert (done.stderr, done.stdout.decode("utf-8").count("\n")) == (b"", 1)
    done = in_shell('"$0" -W error "$1" --seed 7 --no-dashboard --export >&-')
    assert (done.returncode, done.stderr, len(files("output"))) == (0, b"", 4)
    done = in_shell('"$0" -W error "$1" --argocd - --no-dashboard <&-')
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


# A shell that starts the tests in the background has told their children to ignore SIGINT.


# ---- Consoles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_shows_what_it_can_and_json_keeps_all(monkeypatch, encoding):
    def shown(*arguments):
        bytes_ = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding=encoding, newline=""))
            module.main([*FAST, "--config", "one.json", *arguments])
            sys.stdout.flush()
            return bytes_.getvalue()

    scenario = {"environments": [{**LIVE, "name": "größe 🚀"}]}
    written("one.json", scenario)
    assert json.loads(shown("--json").decode("utf-8"))["environments"] == ["größe 🚀"]
    report = shown().decode(encoding)
    assert "EXECUTIVE SUMMARY" in report and "gr" in report
    assert all((icon in report) == (encoding == "utf-8") for icon in "🔄📝🚀📊✅")


# ---- The function main --------------------------------------------------------------------------


def test_main_takes_a_list_a_string_or_what_the_process_has(capsys, monkeypatch):
    expected = called(capsys, *FAST)[1]
    assert called(capsys, *FAST)[1] == expected  # once more
    module.main("--seed 7 '--end=2026-01-31'  --runs 3 --no-dashboard")
    assert capsys.readouterr().out == expected
    monkeypatch.setattr(sys, "argv", ["gitops_automation.py", *FAST])
    module.main()
    assert capsys.readouterr().out == expected
    with pytest.raises(SystemExit) as left:
        module.main("--config 'two words.json")
    out, err = capsys.readouterr()
    assert (left.value.code, out, "No closing quotation" in err) == (2, "", True)


def test_main_returns_what_it_ran_and_the_command_nothing(capsys, monkeypatch):
    """The console script of an installation hands its result to `sys.exit`."""
    console = sys.stdout
    assert module.main(FAST).metrics["total_deployments"] > 0
    monkeypatch.setattr(sys, "argv", ["gitops-automation", *FAST])
    monkeypatch.setattr(module.gc, "freeze", lambda: None)  # hypothesis looks for what it hides
    assert module.run_command() is None
    assert sys.stdout is console


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


@pytest.mark.slow
def test_the_variables_of_a_notebook_break_nothing_that_was_pasted_before(capsys):
    """They are globals of one namespace: whatever of ours has the name of a variable is lost."""
    cell = types.ModuleType("pasted")
    sys.modules["pasted"] = cell  # dataclasses look their module up
    try:
        exec(compile(PROGRAM.read_text(encoding="utf-8"), "cell", "exec"), cell.__dict__)  # noqa: S102
    finally:
        del sys.modules["pasted"]
    cell.__dict__.update(dict.fromkeys(LIKELY_NAMES, 42))
    cell.__dict__["main"]([*RUN, "--export"])
    cell.__dict__["main"]([*FAST, "--what-if", "production.wait_hours=*0.5"])
    assert "GitOps automation complete" in capsys.readouterr().out
