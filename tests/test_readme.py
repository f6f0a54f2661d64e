"""README.md: every block runs, prints what it says, and every table is that of the code."""

import dataclasses
import os
import re
from unittest import mock

import pytest
import readme
from conftest import kernel_variables
from test_notebook import KERNEL_WARNINGS

import gitops_automation as gitops

TEXT = readme.README.read_text(encoding="utf-8")
CODE = (readme.ROOT / "gitops_automation.py").read_text(encoding="utf-8")
pytestmark = KERNEL_WARNINGS


@pytest.fixture(scope="module")
def printed():
    return readme.outputs_of(TEXT)


def section(title):
    return re.split("^##+ ", TEXT[TEXT.index(f"## {title}\n") + 3 :], flags=re.MULTILINE)[0]


def test_the_tables_of_the_readme_are_those_of_the_code():
    assert readme.with_tables(TEXT) == TEXT


@pytest.mark.slow
def test_the_readme_shows_what_the_program_prints(printed):
    """Every command and every Python block is run; `python tests/readme.py` mends what differs."""
    assert readme.with_outputs(TEXT, printed) == TEXT
    shown = len(re.findall(r"^```text$", TEXT, re.MULTILINE))
    assert shown == len(readme.OUTPUT.findall(TEXT)) > 5


@pytest.mark.slow
def test_the_answers_to_the_exercises_quote_the_screen(printed):
    exercises, _, answers = section("Exercises").partition("**Answers**")
    ((_, source, _),) = readme.blocks(exercises)
    screen = " ".join(printed[source].split())
    numbers = re.findall(r"^# (\d)\. ", source, re.MULTILINE)
    assert re.findall(r"^(\d)\. ", answers, re.MULTILINE) == numbers
    quotes = re.findall("`([^`]+)`", answers)
    assert len(quotes) > 10
    for quoted in quotes:
        assert quoted in screen or quoted in source, quoted


def test_every_command_is_run_by_a_test_or_by_the_checks():
    script = (readme.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert readme.BY_HAND.strip() in script
    by_hand = [source for language, source, ours in readme.blocks(TEXT) if not ours]
    assert len(by_hand) == 2
    assert "pytest" in by_hand[1]
    languages = {language for language, _, _ in readme.blocks(TEXT)}
    assert languages == {"bash", "python", "text", "mermaid"}
    (windows,) = re.findall("In PowerShell: `(.*)`", TEXT)
    same = windows.replace("\\", "/").replace("py -m venv", "python3 -m venv")
    same = same.replace("; ", " && ").replace("Scripts/python -m pip", "bin/pip")
    assert same.replace("Scripts", "bin") == by_hand[0].strip()


@pytest.mark.slow
def test_the_python_session_works_in_a_fresh_kernel(printed, tmp_path):
    """Each block is a cell of its own."""
    from nbclient import NotebookClient
    from nbformat import v4

    sources = [source for language, source, _ in readme.blocks(TEXT) if language == "python"]
    (tmp_path / "gitops_automation.py").write_text(CODE, encoding="utf-8")
    with mock.patch.dict(os.environ, kernel_variables(tmp_path)):
        notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
        place = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, kernel_name="python3", timeout=120, resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    said = {"stdout": "", "stderr": ""}
    for output in outputs:
        if "name" in output:
            said[output["name"]] += output["text"]
    assert said == {"stdout": "".join(printed[source] for source in sources), "stderr": ""}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


@pytest.mark.slow
def test_the_daily_job_keeps_its_snapshot_and_leaves_its_report_when_it_runs_again(tmp_path):
    (script,) = [source for language, source, _ in readme.blocks(TEXT) if "snapshots/" in source]
    variables = readme.sandbox(tmp_path)
    for _ in range(2):
        assert readme.shell(f"cd '{tmp_path}'\n{script}", variables) == ""
    assert len(list((tmp_path / "snapshots").iterdir())) == 1
    report = {path.name for path in (tmp_path / "report").iterdir()}
    tables = {*gitops.TABLE_FILES.values()} - {"incidents.csv"}
    assert report == {*tables, "metrics.json", "gitops_dashboard.png"}


# ---- What people wrote ---------------------------------------------------------------------------


def rows_of(title):
    """The rows of the table of a section."""
    lines = [line for line in section(title).split("\n") if line.startswith("|")][2:]
    cells = (re.split(r"(?<!\\)\|", line)[1:-1] for line in lines)
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in cells]


def test_the_table_of_knobs_has_every_knob_and_the_defaults_of_the_design():
    groups = {"team.": gitops.Team, "environments[].": gitops.Environment}
    groups["rollback."] = gitops.RollbackPolicy
    names = [
        f"{prefix}{declared.name}"
        for prefix, group in groups.items()
        for declared in dataclasses.fields(group)
    ]
    rows = {name.strip("`"): default for name, default, _ in rows_of("Every knob")}
    assert list(rows) == [*names, "failure_reasons"]
    for name, default in {
        "team.authors": "alice, bob, charlie, diana: 1 each",
        "team.types": "feat 0.4, fix 0.3, chore 0.15, refactor 0.1, perf 0.05",
        "environments[].name": "dev, staging, production",
        "environments[].success_rate": "0.9, 0.93, 0.95",
        "environments[].wait_hours": "0-0, 2-6, 24-72",
        "environments[].promotion": "each, newest, newest",
    }.items():
        assert rows[name] == default


def test_what_troubleshooting_quotes_is_what_the_program_says():
    for said, _ in rows_of("Troubleshooting"):
        for quoted in re.findall(r"`([^`]+)`", said):
            for words in filter(None, (part.strip() for part in re.split("…|[;:]", quoted))):
                assert words in CODE, words


def test_an_option_that_the_readme_names_is_there_and_one_that_went_is_not():
    gone = {word for row in rows_of("Changelog") for word in re.findall(r"`(--[\w-]+)", row[0])}
    assert len(gone) > 5
    named = {*re.findall(r"(?<![\w-])--[a-z][\w-]+", TEXT)}
    others = {"--sync", "--health"}  # of Argo CD
    for option in named - others:
        assert (f'"{option}"' in CODE) == (option not in gone), option


def test_links_within_the_readme_and_the_repository_lead_somewhere():
    titles = re.findall(r"^##+ (.+)$", TEXT, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    assert {*re.findall(r"\]\(#([\w-]+)\)", TEXT)} <= {*anchors}
    top = re.findall(r"\]\(#([\w-]+)\)", TEXT[: TEXT.index("\n## ")])
    assert top == [one for one in anchors if one not in ("every-knob", "tables")]
    for path in re.findall(r"\]\(((?:tests|output)/[^)]+)\)", TEXT):
        assert (readme.ROOT / path).is_file()


def test_the_module_and_the_readme_name_every_room():
    banners = re.findall(r"^# ---- ([^:\n]+?)(?:: .*)? -+$", CODE, re.MULTILINE)
    rooms = list(dict.fromkeys(banners))
    assert len(rooms) > 10
    assert re.findall(r"^    ([A-Z][\w -]+?) {2,}\S", gitops.__doc__, re.MULTILINE) == rooms
    for room in {*rooms} - {"Vocabulary", "Command line"}:
        assert room in section("Development"), room


def test_the_schema_version_is_that_of_the_program():
    assert {*re.findall(r"`schema_version`(?: is)? (\d+)", TEXT)} == {str(gitops.SCHEMA_VERSION)}
