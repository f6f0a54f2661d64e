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
    """Fill a folder; return the environment in which its commands run."""
    (folder / "gitops_automation.py").write_bytes((ROOT / "gitops_automation.py").read_bytes())
    code = folder / "path/to/repository"
    for number, (_, sha, _) in enumerate(make_repository(code, ["README.md"] * 40)[::8]):
        subprocess.run(["git", "tag", f"v1.{number}", sha], cwd=str(code), check=True)
    versions = [f"shop/{'prod' if number % 4 == 3 else 'dev'}" for number in range(40)]
    commits = make_repository(folder / "path/to/config-repository", versions)
    programs = folder / "bin"
    programs.mkdir()
    (programs / "applications.json").write_text(json.dumps(applications(commits)))
    for name, script in {
        "python": f'exec "{sys.executable}" "$@"',
        "argocd": f'cat "{programs}/applications.json"',
        "kubectl": f'cat "{programs}/applications.json"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(stat.S_IRWXU)
    variables = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONIOENCODING": "utf-8"}
    return {**os.environ, **variables}


def make_repository(folder, paths):
    """Make a repository with a commit to each path; return [(path, SHA, time)].

    There are three commits a day before 2026-01-31. A path of dev gets the next version, and one of
    production what dev has, but for one time when it goes back.
    """
    folder.mkdir(parents=True)
    stream, times, newest = [], [], 0
    for number, path in enumerate(paths):
        times.append(argo.seconds("2026-01-30 16:00") - (len(paths) - number) * 28800)
        kind = ("feat", "fix", "chore", "feat", "docs")[number % 5]
        newest += not path.endswith("prod")
        version = 9 if (number, path) == (19, "shop/prod") else newest
        message, data = f"{kind}: change {number}\n", f"image:\n  tag: 1.{version}.0\n"
        name = path if "." in path else f"{path}/values.yaml"
        stream.append(
            f"commit refs/heads/main\ncommitter dev <dev@example.org> {times[-1]} +0000\n"
            f"data {len(message)}\n{message}M 100644 inline {name}\ndata {len(data)}\n{data}\n"
        )
    run = dict(cwd=str(folder), check=True, stdout=subprocess.PIPE)
    subprocess.run(["git", "init", "-q", "-b", "main"], **run)
    subprocess.run(["git", "fast-import", "--quiet"], input="".join(stream).encode(), **run)
    log = subprocess.run(["git", "log", "--reverse", "--format=%H", "main"], **run).stdout
    return list(zip(paths, log.decode().split(), times))


def applications(commits):
    """Return Argo CD's applications for such commits: each is synced an hour later."""
    documents = []
    for place in ("shop/dev", "shop/prod"):
        spec = argo.source(place)
        mine = [(sha, time + 3600) for path, sha, time in commits if path == place]
        entries = [argo.entry(at, end, sha, source=spec) for at, (sha, end) in enumerate(mine)]
        known = dict(spec=spec, created="2026-01-16 00:00", reconciled="2026-01-31 00:00")
        documents.append(argo.application(place.replace("/", "-"), entries, **known))
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
    run = ["bash", "-euo", "pipefail", "-c", source]
    done = subprocess.run(run, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode or done.stderr:
        said = done.stderr.decode("utf-8", "replace")
        raise AssertionError(f"{source}\nends with {done.returncode}: {said}")
    return done.stdout.decode("utf-8")


def excerpt(printed, first, last):
    """The lines from the one that begins with `first` to the next that begins with `last`."""
    lines = [line.rstrip() for line in printed.split("\n")]
    start = position(lines, first, 0)
    return "\n".join(lines[start : position(lines, last, start) + 1]) + "\n"


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


def metrics():
    """The five metrics of dora.dev, each beside the one of the original project."""
    ours = dict(zip(gitops.DORA_NAMES.values(), gitops.SCOPES[gitops.ALL_ENVIRONMENTS]))
    keys = {name: key for key, name in gitops.DORA_NAMES.items()}
    rows = []
    for factor, names in ("throughput", gitops.THROUGHPUT), ("instability", gitops.INSTABILITY):
        for name in names:
            metric, row = gitops.PRODUCTION_METRICS[name], ["–", "–", "–"]
            if name in ours:
                simulated, target = gitops.METRICS[ours[name]], gitops.TARGETS[ours[name]]
                both = dict.fromkeys([keys[name], ours[name]])
                label = f"{simulated.label}: " + ", ".join(f"`{key}`" for key in both)
                elite = target.words.replace("<", "&lt;").replace(">", "&gt;")
                row = [label, simulated.definition.partition(" Of real deployments")[0], elite]
            rows.append([factor, f"{metric.label}: `{name}`", metric.definition, *row])
    heads = ["factor", "dora.dev's name", "of a measured history, in production"]
    return table([*heads, "original name", "of a simulation", "elite"], rows)


COMPARED = [  # question, traditional, GitOps, and the metric that answers it in a simulation
    ("How often does production change?", "a train once a week", "when a release passes its gate",
     "production_deployment_frequency", "{:.2f} a day"),
    ("How long does a change take?", "a build, a test pass and the train", "the gates alone",
     "mean_lead_time", "{:.1f} h"),
    ("How many deployments fail?", "many changes in each", "one change, or a few",
     "change_failure_rate", "{:.1f} %"),
    ("How long does a rollback take?", "somebody redeploys by hand", "an automatic return",
     "mttr_minutes", "{:.0f} min"),
]  # fmt: skip


def comparison():
    """Each row has the median month of `traditional` and of the default scenario."""
    run = gitops.GitOpsAutomation(seed=7, end="2026-01-31")
    months = run.what_if({"traditional": gitops.PRESETS["traditional"]}).table
    median = months.groupby(["scenario", "metric"], sort=False)["value"].median()
    rows = []
    for *words, key, shown in COMPARED:
        values = (shown.format(median[name, key]) for name in ("traditional", "baseline"))
        rows.append([*words, " → ".join(values)])
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
    if isinstance(value, tuple):
        return ("-" if len(value) == 2 else ", ").join(f"{one:g}" for one in value) or "none"
    return value if isinstance(value, str) else f"{value:g}"


TABLES = {"metrics": metrics, "comparison": comparison, "knobs": knobs}


def with_tables(text):
    """README.md with every table anew that is made from the code."""
    return GENERATED.sub(
        lambda match: match.group(1) + TABLES[match.group(2)]() + match.group(4), text
    )


def with_outputs(text, printed):
    """README.md with what the blocks printed."""

    def output(match):
        before, first, last, _, after = match.groups()
        sources = [source for language, source, _ in blocks(text[: match.start()])
                   if language != "text"]  # fmt: skip
        return before + excerpt(printed[sources[-1]], first, last) + after

    return OUTPUT.sub(output, text)


if __name__ == "__main__":
    shown = README.read_text(encoding="utf-8")
    README.write_text(with_tables(with_outputs(shown, outputs_of(shown))), encoding="utf-8")
