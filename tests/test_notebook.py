"""The module in a real kernel: the whole file pasted in a cell, the class step by step."""

import base64
import itertools
import os
import re
from pathlib import Path
from unittest import mock

import pytest
from conftest import kernel_variables

import gitops_automation as gitops

# the packages that run the kernel may warn on their own account; what is in the kernel may not
KERNEL_WARNINGS = [
    pytest.mark.filterwarnings(f"default:::{package}")
    for package in ("asyncio", "jupyter_client", "jupyter_core", "nbclient", "tornado", "zmq")
]
pytestmark = [pytest.mark.slow, *KERNEL_WARNINGS]

MODULE = Path(gitops.__file__).resolve()

STEPS = """\
gitops = GitOpsAutomation(seed=7, end="2026-01-31", output_dir="steps")
gitops.simulate_git_activity(days=30)
gitops.simulate_deployments()
gitops.simulate_rollbacks()
gitops.calculate_dora_metrics()
gitops.generate_report()
"""

CELLS = {
    "the class": f"import sys\nsys.path.insert(0, {str(MODULE.parent)!r})\n"
    "from gitops_automation import GitOpsAutomation, GitOpsError, Scenario\n",
    "the steps": STEPS,
    "the picture last": "gitops.visualize_metrics(dpi=60)",
    "the picture in mid-cell": "path = gitops.visualize_metrics(dpi=60)\n"
    "print('after', path.name)\n"
    "1 + 1",
    "the picture in a loop": "for _ in range(2):\n    gitops.visualize_metrics(dpi=60)\n",
    "a table": "gitops.deployments.head()",
    "the collector": "import gc\ngc.isenabled(), gc.get_freeze_count()",
    "a what if": 'fast = Scenario().with_environment("production", wait_hours=(4, 12))\n'
    'forecast = gitops.what_if({"fast": fast}, runs=10)\n'
    "table = forecast.table\n"
    'hours = table[table["metric"] == "mean_lead_time"]\n'
    'hours.groupby("scenario")["value"].median().round()',
    "a what if as a whole": "forecast",
    "a part of a what if": "table.head()",
    "an open figure of the user": "from matplotlib import pyplot\n"
    "pyplot.plot([1])\n"
    "gitops.visualize_metrics(dpi=60)\n",
    "bad days": "gitops.simulate_git_activity(days=0)",
    "a step too early": "GitOpsAutomation().visualize_metrics()",
    "an error that is caught": "try:\n"
    "    GitOpsAutomation(seed=-1)\n"
    "except GitOpsError as error:\n"
    "    print(error)\n",
    "the paste": MODULE.read_text(encoding="utf-8"),
    "main once more": "x = 1\nmain()",
    "main with arguments": 'main(["--seed", "7", "--end", "2026-01-31", "--no-dashboard"])',
    "main with a string": 'main("--seed 7 --end 2026-01-31 --no-dashboard")',
    "the help": 'main("-h")',
    "main with a what if": 'main(["--seed", "7", "--what-if", "elite", "--runs", "10"])',
    "main with bad arguments": 'main(["--days", "0"])',
    "main with an unknown option": 'main(["--no-such-option"])',
    "what the paste defined": "GitOpsAutomation.__module__, GitOpsAutomation(seed=7).environments",
    "the collector after": "import gc\ngc.isenabled(), gc.get_freeze_count()",
    "still alive": "print('alive')",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """{cell: its outputs}, of one session of a kernel with the interpreter that runs the tests."""
    home = tmp_path_factory.mktemp("jupyter")
    with mock.patch.dict(os.environ, kernel_variables(home)):
        from nbclient import NotebookClient
        from nbformat import v4

        notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in CELLS.values()])
        NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=120,
            allow_errors=True,
            resources={"metadata": {"path": str(home)}},
        ).execute()
    return dict(zip(CELLS, ([dict(output) for output in cell.outputs] for cell in notebook.cells)))


def pictures(cell):
    """The PNG files that a cell shows."""
    shown = [
        output["data"]
        for output in cell
        if output["output_type"] in ("display_data", "execute_result")
    ]
    return [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]


def printed(cell, stream="stdout"):
    return "".join(output["text"] for output in cell if output.get("name") == stream)


def errors(cell):
    return [
        (output["ename"], output["evalue"]) for output in cell if output["output_type"] == "error"
    ]


WITHOUT_ERROR = [name for name in CELLS if not re.search("bad|too early|unknown option", name)]


@pytest.mark.parametrize("name", WITHOUT_ERROR)
def test_the_cell_runs_without_an_error_or_a_warning(name, outputs):
    assert errors(outputs[name]) == []
    assert printed(outputs[name], "stderr") == ""
    assert "SystemExit" not in str(outputs[name])


# ---- The whole file pasted in a cell -------------------------------------------------------------


def test_the_pasted_file_shows_the_report_with_exactly_one_picture(outputs):
    cell = outputs["the paste"]
    (picture,) = pictures(cell)
    assert picture.startswith(b"\x89PNG")
    assert [int.from_bytes(picture[i : i + 4], "big") for i in (16, 20)] == [5400, 3000]
    for title in ("GITOPS WORKFLOW AUTOMATION REPORT", "EXECUTIVE SUMMARY"):
        assert printed(cell).count(title) == 1
    order = [output.get("name", output["output_type"]) for output in cell]
    assert [name for name, _ in itertools.groupby(order)] == ["stdout", "display_data", "stdout"]


def test_the_settings_of_the_kernel_stay_as_they_were(outputs):
    before, after = (outputs[name][0]["data"] for name in ("the collector", "the collector after"))
    assert before == after


def test_main_called_again_at_the_end_of_a_cell_shows_one_picture_and_nothing_else(outputs):
    cell = outputs["main once more"]
    assert printed(cell).count("EXECUTIVE SUMMARY") == 1
    kinds = [output["output_type"] for output in cell]
    assert [kind for kind in kinds if kind != "stream"] == ["display_data"]


def test_main_takes_arguments_in_a_notebook_too(outputs):
    cell = outputs["main with arguments"]
    assert pictures(cell) == []
    assert re.search(r"seed 7$", printed(cell), re.MULTILINE)
    assert printed(outputs["main with a string"]) == printed(cell)


def test_the_help_is_printed(outputs):
    assert "usage: gitops_automation.py" in printed(outputs["the help"])


def test_the_pasted_names_can_be_used_afterwards(outputs):
    (result,) = outputs["what the paste defined"]
    assert result["data"]["text/plain"] == "('__main__', ['dev', 'staging', 'production'])"


# ---- The class, step by step ---------------------------------------------------------------------


def test_the_steps_print_the_report_without_a_picture(outputs):
    assert "GITOPS WORKFLOW AUTOMATION REPORT" in printed(outputs["the steps"])
    assert pictures(outputs["the steps"]) == []


@pytest.mark.parametrize("name", ["the picture last", "the picture in mid-cell"])
def test_the_picture_is_shown_exactly_once_wherever_the_call_stands(name, outputs):
    assert len(pictures(outputs[name])) == 1
    assert not [output for output in outputs[name] if "text/html" in output.get("data", {})]


def test_the_statements_after_the_picture_run_and_each_call_shows_its_picture(outputs):
    cell = outputs["the picture in mid-cell"]
    assert "after gitops_dashboard.png" in printed(cell)
    results = [output for output in cell if output["output_type"] == "execute_result"]
    assert [result["data"]["text/plain"] for result in results] == ["2"]
    assert pictures(cell) == pictures(outputs["the picture last"])
    assert len(pictures(outputs["the picture in a loop"])) == 2


def test_a_figure_that_the_user_drew_is_shown_beside_the_dashboard_once(outputs):
    shown = pictures(outputs["an open figure of the user"])
    assert len(shown) == 2
    assert shown.count(pictures(outputs["the picture last"])[0]) == 1


def test_a_table_is_shown_as_a_table(outputs):
    (result,) = outputs["a table"]
    assert "commit_sha" in result["data"]["text/html"]


def test_a_what_if_is_a_table_of_both_scenarios(outputs):
    (result,) = outputs["a what if"]
    assert re.search(r"baseline +4[5-9].0\nfast +1[12].0", result["data"]["text/plain"])


def test_a_what_if_shows_its_summary_and_a_part_of_it_its_rows(outputs):
    (whole,), (part,) = outputs["a what if as a whole"], outputs["a part of a what if"]
    assert "WHAT IF: 10 simulated months of 28 days" in whole["data"]["text/html"]
    assert "WHAT IF" not in part["data"]["text/html"]
    assert "deployment_frequency" in part["data"]["text/html"]


def test_a_what_if_on_the_command_line_shows_its_picture_once(outputs):
    assert len(pictures(outputs["main with a what if"])) == 1
    assert "10 simulated months" in printed(outputs["main with a what if"])


# ---- The summary of a what-if -------------------------------------------------------------------


# ---- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bad days", "days must be a whole number from 1"),
        ("a step too early", "calculate_dora_metrics()"),
        ("main with bad arguments", "--days must be a whole number from 1"),
        ("main with an unknown option", "--no-such-option"),
    ],
)
def test_bad_input_gives_our_error_in_one_line_without_a_picture(name, said, outputs):
    ((kind, message),) = errors(outputs[name])
    assert kind == "GitOpsError"
    assert said in message
    assert "\n" not in message
    assert pictures(outputs[name]) == []
    (error,) = [output for output in outputs[name] if output["output_type"] == "error"]
    assert error["traceback"] == [f"GitOpsError: {message}"]


def test_the_error_can_be_caught_by_its_name(outputs):
    assert "seed must be" in printed(outputs["an error that is caught"])


def test_the_kernel_outlives_all_of_it(outputs):
    assert printed(outputs["still alive"]) == "alive\n"
