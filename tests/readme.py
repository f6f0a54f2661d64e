"""Make anew what README.md shows of the program: `python tests/readme.py`.

An HTML comment says what stands behind it:

    <!-- output: "first words" to "last words" -->
        a ```text block: lines that the block before it printed
    <!-- generated: name -->
        a table from the code, up to <!-- end -->

Commands run in a folder with a copy of the program, a git repository, a config repository and a
file of Argo CD applications; `argocd` and `kubectl` there print that file. Python blocks run one
after the other, in one session.
"""

import collections
import contextlib
import dataclasses
import io
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import argocd_documents as argo  # noqa: E402

import gitops_automation as gitops  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(
    r'(<!-- output: "(.*?)" to "(.*?)" -->\n```text\n)(.*?)(^```$)', re.MULTILINE | re.DOTALL
)
GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
BY_HAND = "<!-- run by .ci/run -->\n"


# ---- The folder in which commands run ------------------------------------------------------------


def sandbox(folder):
    """Fill a folder; the environment in which its commands run."""
    (folder / "gitops_automation.py").write_bytes((ROOT / "gitops_automation.py").read_bytes())
    commits = make_repository(folder / "path/to/repository", {"README.md": 40})["README.md"]
    for number, (sha, _) in enumerate(commits[::8]):
        tag = ["git", "tag", f"v1.{number}", sha]
        subprocess.run(tag, cwd=str(folder / "path/to/repository"), check=True)
    shas = make_repository(folder / "path/to/config-repository", {"shop/dev": 30, "shop/prod": 10})
    programs = folder / "bin"
    programs.mkdir()
    (programs / "applications.json").write_text(json.dumps(applications(shas)))
    for name, script in {
        "python": f'exec "{sys.executable}" "$@"',
        "argocd": f'cat "{programs}/applications.json"',
        "kubectl": f'cat "{programs}/applications.json"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(stat.S_IRWXU)
    variables = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONIOENCODING": "utf-8"}
    return {**os.environ, **variables}


def make_repository(folder, commits):
    """Make a repository with so many commits for each path; return {path: [(sha, time)]}.

    There are three commits a day before 2026-01-31.
    """
    folder.mkdir(parents=True)
    stream, came = [], collections.defaultdict(list)
    for number, path in enumerate(interleaved(commits)):
        time = argo.seconds("2026-01-30 16:00") - (sum(commits.values()) - number) * 28800
        kind = ("feat", "fix", "chore", "feat", "docs")[number % 5]
        message = f"{kind}: change {number}\n"
        versions = came[path]
        # production takes what dev has, but for one time when it goes back
        newest = len(came["shop/dev"]) + path.endswith("dev")
        versions.append(versions[3] if path.endswith("prod") and len(versions) == 5 else newest)
        data = f"image:\n  tag: 1.{versions[-1]}.0\n"
        name = path if "." in path else f"{path}/values.yaml"
        stream.append(
            f"commit refs/heads/main\nmark :{number + 1}\n"
            f"committer dev <dev@example.org> {time} +0000\n"
            f"data {len(message)}\n{message}M 100644 inline {name}\ndata {len(data)}\n{data}\n"
        )
    run = dict(cwd=str(folder), check=True, stdout=subprocess.PIPE)
    subprocess.run(["git", "init", "-q", "-b", "main"], **run)
    subprocess.run(["git", "fast-import", "--quiet"], input="".join(stream).encode(), **run)
    log = subprocess.run(["git", "log", "--reverse", "--format=%H %ct", "main"], **run).stdout
    found = {}
    for path, line in zip(interleaved(commits), log.decode().splitlines()):
        sha, time = line.split()
        found.setdefault(path, []).append((sha, int(time)))
    return found


def interleaved(commits):
    """The paths in the order of their commits, spread evenly."""
    places = [
        ((number + 0.5) / count, path) for path, count in commits.items() for number in range(count)
    ]
    return [path for _, path in sorted(places)]


def applications(commits):
    """Return Argo CD's applications for the commits of a repository.

    Dev follows at once, production some hours later; one release is bad.
    """
    documents = []
    for path, delay in (("shop/dev", 120), ("shop/prod", 5 * 3600)):
        name = path.replace("/", "-")
        entries = [
            argo.entry(
                number, time + delay * (5 + 7 * number % 10) // 10, sha, source=argo.source(path)
            )
            for number, (sha, time) in enumerate(commits[path])
        ]
        end = commits[path][-2][1] + delay * 3 // 2 + 1200
        back = {
            **entries[-3],
            "deployedAt": argo.rfc3339(end),
            "deployStartedAt": argo.rfc3339(end - 30),
        }
        entries.insert(len(entries) - 1, back)
        for number, entry in enumerate(entries):
            entry["id"] = number
        documents.append(
            argo.application(
                name,
                entries,
                spec=argo.source(path),
                created="2026-01-16 00:00",
                reconciled="2026-01-31 00:00",
            )
        )
    return {"apiVersion": "v1", "kind": "List", "items": documents}


# ---- Blocks --------------------------------------------------------------------------------------


def blocks(text):
    """(Language, source, whether a test runs it) of each block, in order."""
    for match in BLOCK.finditer(text):
        yield match.group(1), match.group(2), not text[: match.start()].endswith(BY_HAND)


def outputs_of(text):
    """What each block prints: {source: text}."""
    found, session = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        variables, before = sandbox(folder), os.getcwd()
        os.chdir(str(folder))
        try:
            for language, source, ours in blocks(text):
                if language == "bash" and ours:
                    found[source] = shell(source, variables)
                elif language == "python":
                    with contextlib.redirect_stdout(io.StringIO()) as printed:
                        exec(compile(source, "README.md", "exec"), session)  # noqa: S102 - our own README
                    found[source] = printed.getvalue()
        finally:
            os.chdir(before)
    return found


def shell(source, variables):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", source],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if done.returncode or done.stderr:
        raise AssertionError(
            f"{source}\nends with {done.returncode}: {done.stderr.decode('utf-8', 'replace')}"
        )
    return done.stdout.decode("utf-8")


def excerpt(printed, first, last):
    """The lines from the one that begins with `first` to the next that begins with `last`."""
    lines = printed.split("\n")
    start = position(lines, first, 0)
    end = position(lines, last, start) + 1
    return "".join(f"{line.rstrip()}\n" for line in lines[start:end])


def position(lines, words, start):
    for number in range(start, len(lines)):
        if lines[number].strip().startswith(words):
            return number
    raise AssertionError(f"no line begins with {words!r} in:\n" + "\n".join(lines[start:]))


# ---- Tables from the code ------------------------------------------------------------------------


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def headline():
    rows = []
    for key in gitops.SCOPES["all environments"]:
        metric, target = gitops.METRICS[key], gitops.TARGETS[key]
        sign = {">": "&gt;", "<": "&lt;"}[target.better]
        elite = f"{sign} {target.limit:g} {target.unit}"
        rows.append([f"`{key}`", metric.label, metric.definition, elite])
    return table(["key", "in the report", "definition", "elite"], rows)


def production():
    rows = [
        [f"`{key}`", metric.label, metric.definition]
        for key, metric in gitops.PRODUCTION_METRICS.items()
    ]
    return table(["key", "dora.dev's name", "definition"], rows)


PRINCIPLE = "a matter of principle"
COMPARED = [  # question, traditional, GitOps, and the metric that answers it in a simulation
    (
        "How often does production change?",
        "a train once a week",
        "when a release passes its gate",
        ("production_deployment_frequency", "{:.2f} a day"),
    ),
    (
        "How long does a change take?",
        "it waits for a build, a test pass and the train",
        "it waits for the gates alone",
        ("mean_lead_time", "{:.1f} h"),
    ),
    (
        "How many deployments fail?",
        "many changes in each",
        "one change, or a few",
        ("change_failure_rate", "{:.1f} %"),
    ),
    (
        "How long does a rollback take?",
        "somebody redeploys by hand",
        "an automatic return",
        ("mttr_minutes", "{:.0f} min"),
    ),
    ("Who may write to the cluster?", "the CI server pushes", "an agent inside pulls", None),
    ("What should run now?", "look through the CI logs", "read the branch", None),
    (
        "What if somebody changes the cluster?",
        "it stays until it hurts",
        "it is seen as drift",
        None,
    ),
    ("Who changed what, and who agreed?", "tickets and logs", "commits and their reviews", None),
    ("How do you rebuild a cluster?", "run every pipeline again", "point an agent at git", None),
]


def comparison():
    """Each row has the median month of `traditional` and of the default scenario, if simulated."""
    months = (
        gitops.GitOpsAutomation(seed=7, end="2026-01-31")
        .what_if({"traditional": gitops.PRESETS["traditional"]})
        .table
    )
    median = months.groupby(["scenario", "metric"], sort=False)["value"].median()
    rows = []
    for *words, simulated in COMPARED:
        result = PRINCIPLE
        if simulated:
            key, shown = simulated
            names = ("traditional", "baseline")
            result = " → ".join(shown.format(median[name, key]) for name in names)
        rows.append([*words, result])
    return table(["question", "traditional CI/CD", "GitOps", "simulated"], rows)


def knobs():
    """Every knob as it is declared, with its default, and that of each environment."""
    scenario = gitops.Scenario()
    groups = {"team.": [scenario.team], "environments[].": scenario.environments}
    groups.update({"rollback.": [scenario.rollback], "": [scenario]})
    rows = []
    for prefix, group in groups.items():
        for declared in dataclasses.fields(group[0]):
            if "help" in declared.metadata:
                defaults = [default(getattr(one, declared.name)) for one in group]
                name = f"`{prefix}{declared.name}`"
                rows.append([name, ", ".join(defaults), declared.metadata["help"]])
    return table(["knob", "default", "meaning"], rows)


def default(value):
    """A default as the table of knobs writes it."""
    if isinstance(value, dict) and len(set(value.values())) == 1:
        return f"{', '.join(value)}: {next(iter(value.values()))} each"
    if isinstance(value, dict):
        return ", ".join(f"{name} {weight:g}" for name, weight in value.items())
    if value == ():
        return "none"
    if isinstance(value, tuple):
        return ("-" if len(value) == 2 else ", ").join(f"{number:g}" for number in value)
    return value if isinstance(value, str) else f"{value:g}"


TABLES = {
    "headline": headline,
    "production": production,
    "comparison": comparison,
    "knobs": knobs,
}


def with_tables(text):
    """README.md with every table anew that is made from the code."""
    return GENERATED.sub(
        lambda match: match.group(1) + TABLES[match.group(2)]() + match.group(4), text
    )


def rebuilt(text):
    """README.md with everything anew that the program makes."""
    printed = outputs_of(text)

    def output(match):
        before, first, last, _, after = match.groups()
        source = [
            source for language, source, _ in blocks(text[: match.start()]) if language != "text"
        ][-1]
        return before + excerpt(printed[source], first, last) + after

    return with_tables(OUTPUT.sub(output, text))


if __name__ == "__main__":
    README.write_text(rebuilt(README.read_text(encoding="utf-8")), encoding="utf-8")
