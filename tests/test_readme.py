"""README.md: every block runs, prints what it says, and every table is that of the code."""

import ast
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
pytestmark = KERNEL_WARNINGS


def test_the_tables_of_the_readme_are_those_of_the_code():
    assert readme.with_tables(TEXT) == TEXT


@pytest.mark.slow
def test_the_readme_shows_what_the_program_prints():
    """Every command and every Python block is run; `python tests/readme.py` mends what differs."""
    assert readme.rebuilt(TEXT) == TEXT


def test_every_command_is_run_by_a_test_or_by_the_checks():
    script = (readme.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert readme.BY_HAND.strip() in script
    by_hand = [source for language, source, ours in readme.blocks(TEXT) if not ours]
    assert len(by_hand) == 2
    assert "python gitops_automation.py" in by_hand[0].replace(".venv/bin/", "")
    assert "pytest" in by_hand[1]
    languages = {"bash", "powershell", "python", "text", "mermaid"}
    assert {language for language, _, _ in readme.blocks(TEXT)} == languages


def test_the_commands_for_powershell_do_what_those_for_bash_do():
    (windows,) = [source for language, source, _ in readme.blocks(TEXT) if language == "powershell"]
    by_hand = [source for language, source, ours in readme.blocks(TEXT) if not ours]
    for theirs, ours in zip(windows.splitlines(), by_hand):
        same = theirs.replace("\\", "/").replace("py -m venv", "python3 -m venv")
        same = same.replace("; ", " && ").replace("Scripts/python -m pip", "bin/pip")
        assert same.replace("Scripts", "bin") == ours.strip()


def test_every_shown_output_is_compared():
    shown = len(re.findall(r"^```text$", TEXT, re.MULTILINE))
    assert shown == len(readme.OUTPUT.findall(TEXT)) > 5


@pytest.mark.slow
def test_the_python_session_works_line_by_line_in_a_fresh_kernel(tmp_path):
    """Each statement is a cell of its own; what they print together is what the blocks print."""
    from nbclient import NotebookClient
    from nbformat import v4

    sources = [source for language, source, _ in readme.blocks(TEXT) if language == "python"]
    printed = readme.outputs_of("".join(f"```python\n{source}```\n" for source in sources))
    statements = [part for source in sources for part in statements_of(source)]
    (tmp_path / "gitops_automation.py").write_bytes(
        (readme.ROOT / "gitops_automation.py").read_bytes()
    )
    with mock.patch.dict(os.environ, kernel_variables(tmp_path)):
        notebook = v4.new_notebook(cells=[v4.new_code_cell(statement) for statement in statements])
        NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=120,
            resources={"metadata": {"path": str(tmp_path)}},
        ).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert "".join(
        output["text"] for output in outputs if output.get("name") == "stdout"
    ) == "".join(printed[source] for source in sources)
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


def statements_of(source):
    lines = source.split("\n")
    starts = [node.lineno - 1 for node in ast.parse(source).body]
    return [
        "\n".join(lines[start:end]).strip() for start, end in zip(starts, [*starts[1:], len(lines)])
    ]


# ---- Tables that people wrote --------------------------------------------------------------------


def rows_after(heading, words=""):
    """The rows of the first table of a section; with words, of the one whose head has them."""
    section = TEXT[re.search(f"^##+ {heading}$", TEXT, re.MULTILINE).end() :]
    section = section[section.index(words) :]
    lines = section[re.search(r"\n\| ?---", section).start() :].split("\n")[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            return rows
        rows.append(
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        )


def test_the_table_of_knobs_has_every_knob():
    groups = {"team.": gitops.Team, "environments[].": gitops.Environment}
    groups["rollback."] = gitops.RollbackPolicy
    names = [
        f"{prefix}{declared.name}"
        for prefix, group in groups.items()
        for declared in dataclasses.fields(group)
    ]
    rows = rows_after("Every knob")
    assert [row[0].strip("`") for row in rows] == [*names, "failure_reasons"]
    assert all(meaning for _, _, meaning in rows)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("team.authors", "alice, bob, charlie, diana: 1 each"),
        ("team.types", "feat 0.4, fix 0.3, chore 0.15, refactor 0.1, perf 0.05"),
        ("team.weekday_factors", "1, 1, 1, 1, 1, 0.2, 0.2"),
        ("team.work_hours", "9-18"),
        ("environments[].name", "dev, staging, production"),
        ("environments[].success_rate", "0.9, 0.93, 0.95"),
        ("environments[].wait_hours", "0-0, 2-6, 24-72"),
        ("environments[].promotion", "each, newest, newest"),
        ("rollback.success_rate", "0.95"),
    ],
)
def test_a_default_in_the_table_of_knobs_is_that_of_the_design(name, default):
    rows = {row[0].strip("`"): row[1] for row in rows_after("Every knob")}
    assert rows[name] == default


def test_what_troubleshooting_quotes_is_what_the_program_says():
    code = (readme.ROOT / "gitops_automation.py").read_text(encoding="utf-8")
    for said, _ in rows_after("Troubleshooting"):
        for quoted in re.findall(r"`([^`]+)`", said):
            for words in filter(None, (part.strip() for part in re.split("…|[;:]", quoted))):
                assert words in code, words


def test_every_section_is_found_from_the_top():
    anchors = re.findall(r"\]\(#([\w-]+)\)", TEXT[: TEXT.index("\n## ")])
    titles = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert anchors == [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_files_that_the_readme_names_exist():
    for path in re.findall(r"\]\(((?:tests|output)/[^)]+)\)", TEXT):
        assert (readme.ROOT / path).is_file()


def rooms():
    """The sections of the module, by their banners."""
    code = (readme.ROOT / "gitops_automation.py").read_text(encoding="utf-8")
    banners = re.findall(r"^# ---- ([^:\n]+?)(?:: .*)? -+$", code, re.MULTILINE)
    assert len(banners) > 10
    return list(dict.fromkeys(banners))


def test_the_module_begins_with_the_list_of_its_rooms():
    listed = re.findall(r"^    ([A-Z][\w -]+?) {2,}\S", gitops.__doc__, re.MULTILINE)
    assert listed == rooms()


@pytest.mark.parametrize("room", sorted({*rooms()} - {"Vocabulary", "Command line"}))
def test_the_readme_names_every_room(room):
    assert room in TEXT


# ---- The scheduled job ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_daily_job_keeps_its_snapshot_and_leaves_its_report_when_it_runs_again(tmp_path):
    (script,) = [source for language, source, _ in readme.blocks(TEXT) if "snapshots/" in source]
    variables = readme.sandbox(tmp_path)
    for _ in range(2):
        assert readme.shell(f"cd '{tmp_path}'\n{script}", variables) == ""
    assert len(list((tmp_path / "snapshots").iterdir())) == 1
    report = {path.name for path in (tmp_path / "report").iterdir()}
    assert report == {
        *(set(gitops.TABLE_FILES.values()) - {"incidents.csv"}),
        "metrics.json",
        "gitops_dashboard.png",
    }


# ---- Numbers that people wrote -------------------------------------------------------------------


def test_the_elite_column_of_the_levels_has_the_limits_of_the_program():
    limits = {row[0]: row[1] for row in rows_after("The metrics", "elite | high")}
    words = {
        "deployment frequency": ("deployment_frequency", "more than one a day", 1),
        "lead time": ("mean_lead_time", "under a day", 24),
        "time to recover": ("mttr_minutes", "under an hour", 60),
        "change failure rate": ("change_failure_rate", "under 15 %", 15),
    }
    assert limits == {name: text for name, (_, text, _) in words.items()}
    for key, _, limit in words.values():
        assert gitops.METRICS[key].elite.limit == limit


def test_the_schema_version_is_that_of_the_program():
    (stated,) = re.findall(r"`schema_version` is (\d+)", TEXT)
    assert int(stated) == gitops.SCHEMA_VERSION
