"""README.md: every block runs, prints what it says, and every table is that of the code."""

import ast
import dataclasses
import os
import re
from unittest import mock

import pytest
import readme
import yaml
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
    assert {language for language, _, _ in readme.blocks(TEXT)} == {
        "bash",
        "python",
        "text",
        "mermaid",
        "yaml",
    }


def test_every_shown_output_is_compared():
    shown = len(re.findall(r"^```text$", TEXT, re.MULTILINE))
    assert shown == len(readme.OUTPUT.findall(TEXT)) > 10


@pytest.mark.slow
def test_the_python_session_works_line_by_line_in_a_fresh_kernel(tmp_path):
    """Each statement is a cell of its own; what they print together is what the blocks print."""
    from nbclient import NotebookClient
    from nbformat import v4

    sources = [source for language, source, _ in readme.blocks(TEXT) if language == "python"]
    printed = readme.outputs_of("".join(f"```python\n{source}```\n" for source in sources[:-1]))
    statements = [part for source in sources[:-1] for part in statements_of(source)]
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
    ) == "".join(printed[source] for source in sources[:-1])
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


def statements_of(source):
    lines = source.split("\n")
    starts = [node.lineno - 1 for node in ast.parse(source).body]
    return [
        "\n".join(lines[start:end]).strip() for start, end in zip(starts, [*starts[1:], len(lines)])
    ]


# ---- Tables that people wrote --------------------------------------------------------------------


def rows_after(heading):
    section = TEXT[TEXT.index(f"\n## {heading}\n") :]
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


def manifests():
    (source,) = [source for language, source, _ in readme.blocks(TEXT) if language == "yaml"]
    return {document["kind"]: document for document in yaml.safe_load_all(source)}


def test_the_job_may_read_nothing_but_applications():
    (rule,) = manifests()["Role"]["rules"]
    assert rule == {
        "apiGroups": ["argoproj.io"],
        "resources": ["applications"],
        "verbs": ["get", "list"],
    }
    binding, job = (
        manifests()["RoleBinding"],
        manifests()["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"],
    )
    assert binding["roleRef"]["name"] == manifests()["Role"]["metadata"]["name"]
    assert (
        binding["subjects"][0]["name"]
        == job["serviceAccountName"]
        == manifests()["ServiceAccount"]["metadata"]["name"]
    )


@pytest.mark.slow
def test_the_script_of_the_job_leaves_its_report_when_it_runs_again(tmp_path):
    pod = manifests()["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["bash", "-euo", "pipefail", "-c"]
    variables = readme.sandbox(tmp_path)
    (tmp_path / "data").mkdir()
    script = (
        container["args"][0]
        .replace("/data", str(tmp_path / "data"))
        .replace("/app/", f"{tmp_path}/")
    )
    for _ in range(2):
        assert readme.shell(script, variables) == ""
    report = {path.name for path in (tmp_path / "data" / "report").iterdir()}
    assert report == {
        *gitops.TABLE_FILES.values(),
        "metrics.json",
        "gitops_dashboard.png",
    }
