"""Argo CD's history: every document shape, every rule by hand, hostile input, and a round trip."""

import collections
import contextlib
import json
import math
import os
import random
import re
import subprocess

import jsonschema
import load as odd
import pandas as pd
import pytest
from argocd_documents import (
    REPOSITORY,
    SCHEMA_FILE,
    application,
    chart,
    child,
    config_map,
    entry,
    examples,
    multi_entry,
    oci,
    operation,
    project,
    releases,
    revision,
    rfc3339,
    seconds,
    source,
)
from conftest import called, git
from plain_model import check_history

import gitops_automation as module
from gitops_automation import EnvironmentRules, GitOpsError, Report, Scenario, measure

ALL = module.ALL_APPLICATIONS
LEAD, FREQUENCY, RECOVERY, FAIL_RATE, REWORK = module.PRODUCTION_METRICS
A, B, C, D = (revision(number) for number in range(1, 5))
LETTERS = dict(A=A, B=B, C=C, D=D)


@pytest.fixture(autouse=True)
def _no_configuration_of_the_user(tmp_path_factory, monkeypatch):
    home = str(tmp_path_factory.mktemp("home"))
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_CONFIG_HOME", home)


@pytest.fixture
def write(tmp_path):
    """A function that writes each argument, applications or a text, to a file; its paths."""

    def files(*contents):
        paths = []
        for content in contents:
            paths.append(tmp_path / f"argocd-{len(list(tmp_path.glob('argocd-*')))}.json")
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
            paths[-1].write_bytes(raw)
        return paths

    return files


@pytest.fixture
def load_files(write):
    """A function that loads the history of some files, every invariant checked."""

    def history(*contents, repo=None, **rules):
        made = module.load_argocd(write(*contents), repo, EnvironmentRules(**rules))
        check_history(made)
        return made

    return history


@pytest.fixture
def load(load_files):
    """A function that loads the history of applications in one file."""
    return lambda *applications, **more: load_files(list(applications), **more)


def one(history, **more):
    """The shop in production, known from its creation on January 1 to January 10."""
    known = dict(created="2026-01-01 00:00", reconciled="2026-01-10 23:00")
    return application("shop-prod", history, **{**known, **more})


def story(history, names=LETTERS):
    """The deployments in order, `!` before a bad one; then the rollbacks as bad>good."""
    called_ = {sha: name for name, sha in names.items()}
    rows, back = history.deployments, history.rollbacks
    made = [
        "!" * (health == "Degraded") + called_.get(sha, sha)
        for sha, health in zip(rows["commit_sha"], rows["health"])
    ]
    moves = [
        f"{called_.get(bad, bad)}>{called_.get(good, good)}"
        for bad, good in zip(back["from_commit"], back["to_commit"])
    ]
    return " ".join(made) + " | " * bool(moves) + " ".join(sorted(moves))


def measured(history, name=ALL):
    rows = module.production_metrics(history)
    return {row["metric"]: row for row in rows[rows["application"] == name].to_dict("records")}


def report_on(history):
    return module.format_report(Report(measure(history)))


def utc(day):
    return pd.Timestamp(f"2026-01-{day}", tz="UTC")


in_seeds = pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 2)) for seed in range(8)]
)


# ---- A configuration repository


def change(name, time, files, message="feat: a change", parents=None):
    """A commit of {path: content} that follows its parents, by default the commit before."""
    return dict(name=name, time=seconds(time), files=files, message=message, parents=parents)


SHOP, OTHER = "apps/shop/app.yaml", "apps/other/app.yaml"


def line(*contents, start="2026-01-05 09:00"):
    """Changes of the shop one hour after another, named c0, c1 and so on."""
    return [
        change(f"c{number}", seconds(start) + 3600 * number, {SHOP: content})
        for number, content in enumerate(contents)
    ]


@pytest.fixture
def repository(tmp_path):
    """A function that makes a repository of changes: (its folder, {name: commit}).

    A message names an earlier commit in braces.
    """

    def make(*changes, author="alice"):
        folder = tmp_path / f"config{len(list(tmp_path.glob('config*')))}"
        folder.mkdir()
        git(folder, "init", "-q", "--template=")
        git(folder, "symbolic-ref", "HEAD", "refs/heads/main")
        marks, stream = {}, []
        for number, made in enumerate(changes, start=1):
            named = run_import(folder, marks, stream) if "{" in made["message"] else {}
            message = made["message"].format(**named)
            parents = [marks[name] for name in made["parents"] or []]
            if made["parents"] is None:
                parents = [number - 1] * (number > 1)
            stream += ["commit refs/heads/main", f"mark :{number}"]
            stream += [f"committer {author} <a@example.org> {made['time']} +0000"]
            stream += [f"data {len(message)}", message]
            for place, parent in enumerate(parents):
                stream.append(f"{'merge' if place else 'from'} :{parent}")
            for path, content in made["files"].items():
                stream += [f"M 100644 inline {path}", f"data {len(content)}", content]
            stream.append("")
            marks[made["name"]] = number
        return folder, run_import(folder, marks, stream)

    return make


def run_import(folder, marks, stream):
    options = ("--quiet", "--force", "--date-format=raw", "--export-marks=marks")
    git(folder, "fast-import", *options, text="\n".join(stream))
    lines = (folder / "marks").read_text().split("\n")
    shas = {number: sha for number, sha in (line_.split() for line_ in lines if line_)}
    return {name: shas[f":{number}"] for name, number in marks.items()}


def tagged(folder, commit):
    """The id of a tag that names a commit."""
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    git(folder, *who, "tag", "-a", "-m", "one", "v1", commit)
    return git(folder, "rev-parse", "refs/tags/v1")


# ---- The documents


def test_the_documents_of_these_tests_are_valid_under_the_official_schema():
    schema = json.loads(SCHEMA_FILE.read_text())
    validator = jsonschema.Draft202012Validator(schema)
    for name, document in examples().items():
        assert [error.message for error in validator.iter_errors(document)] == [], name
    assert list(validator.iter_errors({"metadata": {}, "spec": {"project": 1}}))


def assert_same(left, right, but=()):
    for name in (*module.COLUMNS, *module.DETAILS):
        tables = [
            getattr(history, name).drop(columns=but, errors="ignore") for history in (left, right)
        ]
        pd.testing.assert_frame_equal(*tables)
    assert left[3:6] == right[3:6]


def test_what_an_earlier_snapshot_saw_is_kept(load_files):
    """A failed sync of C, and B degraded before it: later entries say nothing of either."""
    failed = operation("Failed", "2026-01-05 11:30", "2026-01-05 11:31", C)
    files = (
        [one(releases(A, B), reconciled="2026-01-05 11:10", health="Degraded")],
        [one(releases(A, B), operation=failed, reconciled="2026-01-05 11:32", sync="OutOfSync")],
        [one(releases(A, B, D))],
    )
    for order in (files, files[::-1]):
        history = load_files(*order)
        assert story(history) == "A !B !C D"
        assert history.deployments["status"].tolist() == ["Synced", "Synced", "Failed", "Synced"]
        assert measured(history)[RECOVERY]["mean"] == (60 + 29) / 2


def test_the_creation_is_known_if_one_snapshot_tells_it(load_files):
    told = application("shop-prod", releases(A), created="2026-01-01 00:00")
    silent = application("shop-prod", releases(A, B))
    for files in ([[told], [silent]], [[silent], [told]]):
        assert load_files(*files).coverage["from"].tolist() == [utc("01")]


def test_the_newest_snapshot_says_what_an_application_is(load_files):
    """Its label was corrected, and it has become one that people sync."""
    old = one(releases(A), reconciled="2026-01-05 10:30", labels={"env": "dev"}, automated=True)
    new = one(releases(A, B, B), operation=FAILED_AT_NOON, labels={"env": "prod"})
    new["status"]["history"][2]["deployedAt"] = rfc3339("2026-01-05 13:00")
    for files in ([[old], [new]], [[new], [old]]):
        history = load_files(*files)
        assert history.coverage["environment"].tolist() == ["production"]
        assert story(history) == "A B !C | C>B"


def test_applications_with_the_same_name_in_two_namespaces_are_two(load):
    shops = [application("shop-prod", releases(A), namespace=name) for name in "ab"]
    assert load(*shops).coverage["application"].tolist() == ["a/shop-prod", "b/shop-prod"]


def test_an_app_of_apps_is_listed_and_not_counted(load):
    """Its only resources are Applications. One that has a Deployment beside them is counted."""
    children = [child("shop-prod"), child("cart-prod")]
    both = [*children, {"version": "v1", "kind": "ConfigMap", "name": "a"}]
    history = load(
        one(releases(A)),
        application("apps-prod", releases(A, B, C), resources=children),
        application("team-prod", releases(A, B), resources=both),
    )
    assert history.coverage["application"].tolist() == ["shop", "team"]
    assert len(history.deployments) == 3
    assert "App of apps, not counted: argocd/apps-prod" in report_on(history)


# ---- Deployments


def test_a_deployment_lasts_from_the_first_attempt_to_the_end(load):
    rows = load(one([entry(0, "2026-01-05 10:00", A, took=95)])).deployments
    assert rows["duration_sec"].tolist() == [95]
    assert rows["timestamp"].tolist() == [utc("05 09:58:25")]
    silent = releases(A)
    del silent[0]["deployStartedAt"]
    assert load(one(silent)).deployments["duration_sec"].tolist() == [0]


def test_a_sync_at_midnight_lies_inside_the_window(load):
    history = load(application("shop-prod", [entry(0, "2026-01-05 00:00", A, took=0)]))
    assert history.window.days >= 1
    assert measured(history)[FREQUENCY]["n"] == 1


def test_other_parameters_are_another_release_of_the_same_revision(load):
    entries = releases(A, A, A, A)
    for entry_, tag in zip(entries[1:], "232"):
        entry_["source"] = source(kustomize={"images": [f"shop:{tag}"]})
    assert story(load(one(entries))) == "A A !A | A>A"


def test_the_branch_that_leads_to_a_revision_is_no_parameter(load):
    """B is pinned by its id after main had led to it; A is pinned when they go back."""
    entries = releases(A, B, B, A)
    for entry_ in entries[2:]:
        entry_["source"] = source(targetRevision=entry_["revision"])
    assert story(load(one(entries))) == "A !B | B>A"


def test_a_chart_is_a_deployment_of_its_version_and_an_image_one_of_its_digest(load):
    digests = ["sha256:" + digit * 64 for digit in "12"]
    charts = [entry(n, f"2026-01-05 1{n}:00", f"1.{n}.0", source=chart(f"1.{n}.0")) for n in (0, 1)]
    images = [entry(n, f"2026-01-05 2{n}:00", digests[n], source=oci()) for n in (0, 1)]
    history = load(
        application("redis-prod", charts, spec=chart()), application("web-prod", images, spec=oci())
    )
    assert history.deployments["commit_sha"].tolist() == ["1.0.0", "1.1.0", *digests]


def test_the_order_of_sources_is_no_change(load):
    several = [source("charts/shop"), source("values", ref="values")]
    steps = [([A, B], several), ([B, A], several[::-1]), ([C, A], several[::-1])]
    entries = [
        multi_entry(number, f"2026-01-05 1{number}:00", revisions, sources)
        for number, (revisions, sources) in enumerate(steps)
    ]
    rows = load(application("shop-prod", entries, sources=several)).deployments
    assert rows["timestamp"].dt.hour.tolist() == [9, 11]


def test_a_tag_is_one_deployment_with_the_commit_that_it_names(repository, load):
    folder, c = repository(*line("1", "2"))
    tag = tagged(folder, c["c1"])
    assert tag != c["c1"]
    history = load(one(releases(c["c0"], tag, c["c1"])), repo=folder)
    assert story(history, c) == "c0 c1"
    assert lead_hours(history, c) == {"c1": 1}


# ---- Deployments: what changes nothing at the application's paths

OVERLAY = "apps/shop/overlays/prod"
CONFIG = {
    f"{OVERLAY}/kustomization.yaml": "resources:\n- ../../base # its base\n- deployment.yaml\n",
    "apps/shop/base/kustomization.yml": "bases: [../../../shared/labels]\n"
    "resources:\n  - https://example.org/crds.yaml\n  - github.com/org/repo//base?ref=v1\n",
    "shared/labels/labels.yaml": "1",
    "charts/shop/Chart.yaml": "1",
    "values/shop.yaml": "1",
    "shared/config/a": "1",
}
"""A configuration repository: an overlay on a base on a base, and a chart with values."""
with_values = source("charts/shop", helm={"valueFiles": ["values.yaml", "../../values/shop.yaml"]})
marked = dict(annotations={module.MANIFEST_PATHS: ".;/shared/config;../more"})


def test_of_a_repository_of_value_files_only_the_files_that_are_referred_to_count(repository, load):
    """Another team's values are no changes of the shop, nor is a file that no source names."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {"shop/prod.yaml": "1", "shop/dev.yaml": "1"}),
        change("c1", "2026-01-05 09:30", {"shop/prod.yaml": "2"}),
        change("other", "2026-01-05 09:40", {"cart/prod.yaml": "2"}),
        change("dev", "2026-01-05 09:45", {"shop/dev.yaml": "2"}),
        change("c2", "2026-01-05 10:30", {"shop/prod.yaml": "1"}),
        change("glob", "2026-01-05 12:30", {"shop/all/more/prod.yaml": "1"}),
        change("file", "2026-01-05 12:40", {"shop/licence": "1"}),
    )
    licence = {"fileParameters": [{"name": "licence", "path": "$values/shop/licence"}]}
    own = {"valueFiles": ["values.yaml", "$values/shop/prod.yaml"], **licence}
    pattern = {"valueFiles": ["$values/shop/*/more/prod.yaml", "$values/shop/prod.yaml"]}
    values = {"repoURL": REPOSITORY, "targetRevision": "main", "ref": "values"}
    for helm, expected in ((own, "c1 c2 file"), (pattern, "c1 c2 dev file glob")):
        several = [chart("1.0.0", helm=helm), values]
        entries = [
            multi_entry(number, f"2026-01-05 {10 + number}:00", ["1.0.0", c[name]], several)
            for number, name in enumerate(("c0", "dev", "c2", "file"))
        ]
        history = load(application("shop-prod", entries, sources=several), repo=folder)
        assert " ".join(sorted(lead_hours(history, c))) == expected
        assert len(history.rollbacks) == (helm is own)  # c2 has the values of c0


# ---- Environments and names


@pytest.mark.parametrize(
    ("name", "environment", "shown"),
    [
        ("shop-production", "production", "shop"),
        ("shop.prd", "production", "shop"),
        ("shop_live", "production", "shop"),
        ("prod-web-shop", "production", "web-shop"),
        ("shop-prod-eu-west-1", "production", "shop-eu-west-1"),
        ("shop-prod1", "production", "shop"),
        ("dev-to-prod", "production", "dev-to"),
        ("prod", "production", "prod"),
        ("shop-stage", "stage", "shop"),
        ("shop-uat", "uat", "shop"),
        ("qa-shop", "qa", "shop"),
        ("Shop-Test", "test", "Shop"),
        ("live-view-dev", "dev", "live-view"),
        ("shop-preprod", "preprod", "shop"),
        ("shop-pre-prod", "preprod", "shop"),
        ("uat-prod-mirror", "unclassified", "uat-prod-mirror"),
        ("shop-nonprod", "unclassified", "shop-nonprod"),
        ("non_prod.shop", "unclassified", "non_prod.shop"),
        ("productpage", "unclassified", "productpage"),
        ("shop-developer", "unclassified", "shop-developer"),
        ("shop", "unclassified", "shop"),
    ],
)
def test_the_environment_is_a_whole_word_of_the_name(name, environment, shown, load):
    """Of two the one at the end; where neither is, the program asks instead of guessing."""
    row = load(application(name, releases(A))).coverage.loc[0]
    rule = "none" if environment == "unclassified" else "name"
    assert (row["environment"], row["rule"], row["application"]) == (environment, rule, shown)


kargo = {module.KARGO: "shop:uat"}


@pytest.mark.parametrize(
    ("more", "environment", "rule"),
    [
        ({"labels": {"environment": "prod"}}, "production", "label environment"),
        ({"labels": {"env": "Staging"}}, "staging", "label env"),
        ({"annotations": {"environment": "live"}}, "production", "label environment"),
        ({"annotations": kargo}, "uat", "label kargo.akuity.io/authorized-stage"),
        ({"labels": {"environment": "canary", "env": "prod"}}, "canary", "label environment"),
        ({"spec": source("apps/shop/overlays/prod")}, "production", "source path"),
        (
            {"spec": source("apps", helm={"valueFiles": ["values.yaml", "values-stg.yaml"]})},
            "stg",
            "source path",
        ),
        ({"spec": source("clusters/non-prod/shop")}, "unclassified", "none"),
        ({"spec": source("dev/prod")}, "unclassified", "none"),
        (
            {"destination": {"name": "eu-prod-1", "namespace": "shop-dev"}},
            "production",
            "destination name",
        ),
        ({"destination": {"namespace": "shop-dev"}}, "dev", "destination namespace"),
    ],
)
def test_what_the_name_does_not_tell_labels_paths_and_destination_do(more, environment, rule, load):
    row = load(application("shop", releases(A), **more)).coverage.loc[0]
    assert (row["environment"], row["rule"], row["application"]) == (environment, rule, "shop")


@pytest.mark.parametrize(
    ("name", "rules", "environment", "shown"),
    [
        ("shop-prod", {}, "dev", "shop-prod"),
        ("uat-prod-mirror", {"label": "tier"}, "qa", "uat-prod-mirror"),
        ("shop-qa", {"label": "tier"}, "qa", "shop"),
        ("shop-prod", {"fixed": "prod"}, "production", "shop-prod"),
        ("shop-prod", {"fixed": "prod", "label": "tier"}, "production", "shop-prod"),
    ],
)
def test_a_label_says_more_than_a_name_and_what_was_given_says_most(
    name, rules, environment, shown, load
):
    labels = {"environment": "dev", "tier": "qa"}
    row = load(application(name, releases(A), labels=labels), **rules).coverage.loc[0]
    assert (row["environment"], row["application"]) == (environment, shown)


@pytest.mark.parametrize(
    ("name", "pattern", "environment", "shown"),
    [
        ("x1-shop-dev", r"^(x\d)", "x1", "shop-dev"),
        ("shop-prod-eu", r"-(prod)-", "production", "shop-eu"),
        ("shopprod", r"(prod)$", "production", "shop"),
        ("prod", r"(prod)", "production", "prod"),
        ("prod.shop-prod", r"^(prod)", "production", "shop-prod"),
        ("shop-dev", r"^(nothing)", "dev", "shop"),
    ],
)
def test_what_a_pattern_found_is_cut_out_of_the_name(name, pattern, environment, shown, load):
    row = load(application(name, releases(A)), pattern=pattern).coverage.loc[0]
    assert (row["environment"], row["application"]) == (environment, shown)


@pytest.mark.parametrize(
    ("names", "stages", "environments", "applications"),
    [
        ("shop-dev shop-stg shop-prod", None, "dev stg production", "shop shop shop"),
        ("shop-dev shop-test shop-uat", None, "dev test uat production", "shop shop shop"),
        ("shop-prd shop-uat", None, "uat production", "shop shop"),
        ("shop-dev shop", None, "unclassified dev production", "shop shop"),
        ("shop-prod prod-shop", None, "production", "argocd/prod-shop argocd/shop-prod"),
        ("shop-prod-eu shop-prod-us", None, "production", "shop-eu shop-us"),
        ("shop-uat shop-qa shop-prod", "qa,uat,prod", "qa uat prod", "shop shop shop"),
        ("shop-qa shop-uat", "test=qa,production=uat", "test production", "shop shop"),
        ("shop-dev shop-prod", "production=prod*", "unclassified production", "shop shop"),
    ],
)
def test_environments_keep_their_names_and_production_comes_last(
    names, stages, environments, applications, load
):
    """Where two applications would be one in an environment, both keep their full names."""
    history = load(*(application(name, releases(A)) for name in names.split()), stages=stages)
    assert history.environments == tuple(environments.split())
    assert sorted(history.coverage["application"]) == applications.split()


def test_the_unclassified_applications_are_all_listed_with_what_would_tell_them(load):
    made = [application(f"a{number}-prod", releases(A)) for number in range(50)]
    made += [application(f"z{number}", releases(A, B)) for number in range(3)]
    history = load(*made)
    assert history.environments == ("unclassified", "production")
    assert measured(history)[FREQUENCY]["n"] == 50
    text = report_on(history)
    assert "and 47 more" in text
    (told,) = re.findall(r"unclassified: 3 (\(.*says what they are)", " ".join(text.split()))
    assert all(f"argocd/z{number}" in told for number in range(3))
    assert all(f"--environment{option}" in told for option in ("-label", "-pattern", " "))


# ---- Failures


def failed_application(phase="Failed", sync=None, **more):
    """A and B were synced on the 5th, C failed on the 6th; nobody looked."""
    state = operation(phase, "2026-01-06 10:00", "2026-01-06 10:02", C, sync=sync)
    return application("shop-prod", releases(A, B), operation=state, **more)


@pytest.mark.parametrize(
    ("phase", "sync"),
    [
        ("Succeeded", None),
        ("Running", None),
        ("Failed", {"dryRun": True}),
        ("Error", {"resources": [{"kind": "Service", "name": "a"}]}),
    ],
)
def test_other_operations_are_no_failed_deployment(phase, sync, load):
    assert story(load(failed_application(phase, sync))) == "A B"


def test_a_failed_sync_with_every_default_is_a_failed_deployment(load):
    """A sync without options, which names its revision only in what it came to; or only there."""
    document = failed_application()
    document["status"]["operationState"]["operation"]["sync"] = {}
    assert story(load(document)) == "A B !C"
    document = failed_application()
    document["status"]["operationState"]["syncResult"]["revision"] = ""
    assert story(load(document)) == "A B !C"


def test_a_failed_operation_whose_retry_succeeded_counts_once(load):
    """The failed operation began together with the entry of its success."""
    state = operation("Failed", "2026-01-05 11:59:30", "2026-01-05 11:59:50", B)
    assert story(load(application("shop-prod", releases(A, A, B), operation=state))) == "A B"


@pytest.mark.parametrize(
    ("looked", "expected"),
    [
        (dict(reconciled="2026-01-06 10:00"), ["Unknown", "Degraded"]),
        (dict(reconciled="2026-01-06 09:00"), ["Unknown", "Degraded"]),
        (dict(reconciled="2026-01-05 11:30"), ["Unknown", "Unknown"]),
        (dict(reconciled="2026-01-06 10:00", since="2026-01-05 12:00"), ["Unknown", "Unknown"]),
        (dict(reconciled="2026-01-06 10:00", since="2026-01-06 09:30"), ["Unknown", "Degraded"]),
        (dict(), ["Unknown", "Unknown"]),
    ],
)
def test_degraded_health_counts_if_it_is_of_this_release(looked, expected, load):
    """Neither older than the operation, nor begun before it, nor without a time."""
    state = operation("Succeeded", "2026-01-06 08:59", "2026-01-06 09:00", B)
    entries = [*releases(A), entry(1, "2026-01-06 09:00", B, took=60)]
    sick = dict(health="Degraded", health_message="no ready pod", operation=state)
    rows = load(application("shop-prod", entries, **sick, **looked)).deployments
    assert rows["health"].tolist() == expected
    assert rows["status"].tolist() == ["Synced", "Synced"]
    assert (rows["failure_reason"] == "no ready pod").tolist() == [False, expected[1] == "Degraded"]


def test_health_during_an_operation_says_nothing_of_the_release_before(load):
    state = operation("Running", "2026-01-06 09:59", "2026-01-06 10:00", C)
    del state["finishedAt"]
    sick = dict(health="Degraded", reconciled="2026-01-06 10:00")
    history = load(application("shop-prod", releases(A, B), operation=state, **sick))
    assert story(history) == "A B"
    assert set(history.deployments["health"]) == {"Unknown"}


# ---- Recovery


def hourly(entries, *health, start="2026-01-05 11:30", **more):
    """A file for each hour from half past eleven: good, sick or drifted (not yet Synced)."""
    states = {"good": {}, "sick": dict(health="Degraded"), "drifted": dict(sync="OutOfSync")}
    for number, state in enumerate(health):
        time = seconds(start) + 3600 * number
        so_far = [one_ for one_ in entries if one_["deployedAt"] <= rfc3339(time)]
        yield [one(so_far, reconciled=time, **states[state], **more)]


FAILED_AT_NOON = operation("Failed", "2026-01-05 11:58", "2026-01-05 12:00", C)


@pytest.mark.parametrize(
    ("health", "next_", "minutes"),
    [
        (["drifted", "drifted", "drifted", "good"], None, 150),
        (["drifted", "drifted", "drifted", "good"], ("2026-01-12 12:00", D), 150),
        (["drifted", "sick", "good"], ("2026-01-05 13:10", D), 70),
        (["drifted", "drifted"], ("2026-01-05 12:40", D), 40),
        (["drifted", "sick", "sick"], None, None),
    ],
)
def test_a_failed_sync_is_over_with_a_good_look_or_the_next_good_sync(
    health, next_, minutes, load_files
):
    """C failed at noon. Whichever is first counts: a week until D is no recovery of a week."""
    entries = [*releases(A, B, every=1800), *([entry(2, *next_)] if next_ else [])]
    files = list(hourly(entries, *health, operation=FAILED_AT_NOON))
    history = load_files(*files, [one(entries, reconciled="2026-01-13 00:00", sync="OutOfSync")])
    assert story(history) == ("A B !C D" if next_ else "A B !C")
    row = measured(history)[RECOVERY]
    assert (row["value"], row["open"]) == pytest.approx(
        (math.nan, 1) if minutes is None else (minutes, 0), nan_ok=True
    )


@pytest.mark.parametrize(
    ("health", "next_", "minutes"),
    [
        (["good", "sick", "sick", "good"], None, 210),
        (["good", "sick", "sick", "good"], ("2026-01-12 12:00", D), 210),
        (["good", "sick"], ("2026-01-05 13:00", D), 120),
    ],
)
def test_degraded_health_is_over_likewise(health, next_, minutes, load_files):
    """B, of eleven, is Degraded at 12:30."""
    entries = [*releases(A, B), *([entry(2, *next_)] if next_ else [])]
    history = load_files(*hourly(entries, *health), [one(entries, reconciled="2026-01-13 00:00")])
    assert story(history) == ("A !B D" if next_ else "A !B")
    assert measured(history)[RECOVERY]["value"] == minutes


@pytest.mark.parametrize(
    ("policy", "rolled_back"),
    [
        (None, True),
        ({"automated": {"enabled": False}}, True),
        ({"automated": {}}, False),
        ({"automated": {"selfHeal": True, "enabled": True}}, False),
    ],
)
def test_where_argo_cd_syncs_by_itself_a_sync_of_what_ran_is_no_rollback(policy, rolled_back, load):
    """C failed at noon; B, which ran, is synced again at one o'clock."""
    shop = application("shop-prod", releases(A, B, B, every=5400), operation=FAILED_AT_NOON)
    shop["spec"]["syncPolicy"] = policy
    history = load(shop)
    assert story(history) == ("A B !C | C>B" if rolled_back else "A B !C")
    assert measured(history)[RECOVERY]["value"] == 60


# ---- How often one looks: what could have been seen


def test_where_nothing_could_have_shown_a_failure_there_is_no_rate(load):
    """Neither a look nor a failed sync nor a rollback."""
    history = load(application("shop-prod", releases(A, B)))
    assert history.deployments["health"].tolist() == ["Unknown", "Unknown"]
    metrics = module.calculate_dora_metrics(history)
    assert math.isnan(metrics["change_failure_rate"])
    assert math.isnan(metrics["success_rates"]["production"])
    of, text = measured(history), report_on(history)
    for metric, label in (
        (RECOVERY, "Failed deployment recovery time"),
        (FAIL_RATE, "Change fail rate"),
        (REWORK, "Deployment rework rate"),
    ):
        assert math.isnan(of[metric]["value"])
        assert re.search(rf"^{label}: +n/a \(failures not observable\)$", text, re.M)
    assert "0.00%" not in text
    assert "nothing was deployed" not in text


@pytest.mark.slow
def test_daily_looks_miss_most_failures_of_an_hour_and_hourly_ones_none(load_files):
    """Ten releases at ten o'clock, one a day; each is Degraded for an hour and then good."""
    commits = [revision(number) for number in range(1, 11)]
    entries = releases(*commits, every=86400)
    seen = {}
    for hours in (1, 24):
        files = []
        for time in range(
            seconds("2026-01-05 06:30"), seconds("2026-01-15 06:30") + 1, hours * 3600
        ):
            so_far = [one_ for one_ in entries if one_["deployedAt"] <= rfc3339(time)]
            age = time - seconds("2026-01-05 10:00")
            sick = age >= 0 and age % 86400 < 3600
            state = dict(health="Degraded") if sick else {}
            files.append([application("shop-prod", so_far, reconciled=time, **state)])
        seen[hours] = measured(load_files(*files))[FAIL_RATE]
    assert (seen[1]["value"], seen[24]["value"]) == (100, 0)
    assert seen[24]["at_least"]


def test_a_failure_makes_only_those_of_its_own_place_observable(load):
    """Failures were seen of cart in production, of shop in dev: shop's production is unknown."""
    failed = dict(operation=operation("Failed", "2026-01-06 10:00", "2026-01-06 10:01", C))
    shop = [
        application("shop-prod", releases(A, B)),
        application("shop-dev", releases(A, B), **failed),
    ]
    metrics = module.calculate_dora_metrics(load(*shop))
    assert metrics["change_failure_rate"] == pytest.approx(100 / 3)  # what is unseen is no success
    assert metrics["success_rates"] == pytest.approx(
        {"dev": 200 / 3, "production": math.nan}, nan_ok=True
    )
    history = load(*shop, application("cart-prod", releases(A, B), **failed))
    assert math.isnan(measured(history, "shop")[FAIL_RATE]["value"])
    assert measured(history, "cart")[FAIL_RATE]["value"] == pytest.approx(100 / 3)
    assert measured(history)[FAIL_RATE]["value"] == pytest.approx(100 / 5)
    report = module.format_report(Report(measure(history), details=True))
    shown = re.search(r"^  • shop  .*", report, re.M).group().split()
    assert shown[-3:] == ["n/a"] * 3


# ---- Rollbacks: tests/test_syncs.py has the rules; these are what Argo CD and the clone tell them


def test_going_back_is_a_rollback_instead_of_a_deployment(load):
    """B came at 11:00 and A again at 12:00: an hour. B is Synced and Degraded."""
    history = load(one(releases(A, B, A)))
    assert story(history) == "A !B | B>A"
    assert history.deployments["status"].tolist() == ["Synced", "Synced"]
    row = history.rollbacks.iloc[0]
    assert row.tolist()[1:] == ["shop", "production", B, A, "Rolled back", 60, True]
    assert row["timestamp"] == utc("05 11:00")
    of = measured(history)
    assert (of[FAIL_RATE]["value"], of[RECOVERY]["value"]) == (50, 60)
    assert of[REWORK]["value"] == pytest.approx(100 / 3)
    sick = load(one(releases(A, B, A), health="Degraded"))
    assert story(sick) == "A !B | B>A"
    assert (sick.rollbacks["success"].tolist(), measured(sick)[RECOVERY]["open"]) == ([False], 1)


REVERT = "Revert\n\nThis reverts commit {%s}.\n"
MORE = "apps/shop/more.yaml"


@pytest.mark.parametrize(
    ("commits", "released", "expected"),
    [
        # an ancestor that never was deployed
        ("1 2 3", "c0 c2 c1", "c0 !c2 | c2>c1"),
        ("1 2 3", "c0 c2 c1 c2", "c0 !c2 c2 | c2>c1"),
        ("1 2 3", "c0 c2 c1 c0", "c0 !c2 | c2>c0"),
        # the files as they were before, without saying so
        ("1 2 1", "c0 c1 c2", "c0 !c1 | c1>c2"),
        # a revert that keeps what came between, so that no tree is as before
        ("1 2 2x 1x~c1", "c0 c1 c2 c3", "c0 !c1 c2 | c1>c3"),
        # a change and its revert in one release
        ("1 2 1~c1 3", "c0 c3", "c0 c3"),
        # two changes of one release, reverted one after the other
        ("1 2 2x 3x~c1 3y~c2", "c0 c2 c3 c4", "c0 !c2 c4 | c2>c3"),
        # a revert that is reverted itself brings the change back; in one release it never was gone
        ("1 2 1~c1 2x~c2", "c0 c1 c2 c3", "c0 !c1 c3 | c1>c2"),
        ("1 2 1~c1 2x~c2", "c0 c1 c3", "c0 c1 c3"),
    ],
)
def test_what_the_clone_shows_to_go_back_is_a_rollback(
    commits, released, expected, repository, load
):
    """Each commit sets two files, such as 2 and x; `~c1` reverts that one."""
    changes = []
    for number, text in enumerate(commits.split()):
        content, _, reverted = text.partition("~")
        files = {SHOP: content[0], MORE: content[1:]}
        message = REVERT % reverted if reverted else "feat: a change"
        time = seconds("2026-01-05 09:00") + 600 * number
        changes.append(change(f"c{number}", time, files, message))
    folder, c = repository(*changes)
    history = load(one(releases(*(c[name] for name in released.split()))), repo=folder)
    assert story(history, c) == expected


def test_a_commit_that_reverts_a_deployed_merge_is_a_rollback(repository, load):
    """The pull request `merge` is reverted as a whole; c2 lies between."""
    message = "Revert the pull request\n\nThis reverts commit {merge}, reversing\nchanges.\n"
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("side", "2026-01-05 09:05", {SHOP: "2"}),
        change("merge", "2026-01-05 09:10", {SHOP: "2"}, parents=["c0", "side"]),
        change("c2", "2026-01-05 09:20", {MORE: "x"}),
        change("c3", "2026-01-05 09:30", {SHOP: "1"}, message),
    )
    names = ("c0", "merge", "c2", "c3")
    history = load(one(releases(*(c[name] for name in names))), repo=folder)
    assert story(history, c) == "c0 !merge c2 | merge>c3"


def test_a_failed_sync_whose_revert_brings_the_same_files_back_is_a_rollback(repository, load):
    """c2 failed at noon; c3, a new commit, has the files of c1, which ran before."""
    folder, c = repository(*line("1", "2", "3", "2", start="2026-01-05 08:00"))
    state = operation("Failed", "2026-01-05 11:58", "2026-01-05 12:00", c["c2"])
    shas = (c["c0"], c["c1"], c["c3"])
    shop = application("shop-prod", releases(*shas, every=5400), operation=state)
    history = load(shop, repo=folder)
    assert story(history, c) == "c0 c1 !c2 | c2>c3"
    assert history.rollbacks["duration_min"].tolist() == [60]


# ---- Lead time


def lead_hours(history, names):
    """The hours of each change that has a lead time, by its name."""
    dated = history.changes.dropna(subset=["committed", "deployed"])
    called_ = {sha: name for name, sha in names.items()}
    return {
        called_[sha]: (done - made).total_seconds() / 3600
        for sha, made, done in zip(dated["commit_sha"], dated["committed"], dated["deployed"])
    }


def test_the_headline_lead_time_takes_every_change_and_says_what_it_is(
    repository, write, tmp_path, capsys
):
    """c3, deployed at 11:00, contains c1 (10:00) and c2 (10:54) as well as others' commits."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("c1", "2026-01-05 10:00", {SHOP: "2"}),
        change("other", "2026-01-05 10:05", {OTHER: "2"}),
        change("beside", "2026-01-05 10:06", {"apps/shop-two/app.yaml": "2"}),
        change("c2", "2026-01-05 10:30", {SHOP: "3"}),
        change("c3", "2026-01-05 10:54", {SHOP: "4"}),
    )
    files = write(one(releases(c["c0"], c["c3"])))
    history = module.load_argocd(files, folder)
    assert lead_hours(history, c) == {"c1": 1, "c2": 0.5, "c3": 0.1}
    row = measured(history)[LEAD]
    assert (row["value"], row["n"], row["mean"]) == pytest.approx((0.5, 3, 1.6 / 3))
    metrics = module.calculate_dora_metrics(history)
    assert metrics["mean_lead_time"] == pytest.approx(1.6 / 3)
    assert metrics["median_lead_time"] == 0.5
    arguments = ("--repo", folder, "--no-dashboard", "--output", tmp_path / "o")
    status, out, _ = called(capsys, "--argocd", *files, *arguments)
    assert status == 0
    said = "0.53 hours (config-repository lead time)"
    for label in ("  ✓ Mean Lead Time:", "Mean Lead Time: ", "  Average Lead Time:"):
        assert re.search(rf"^{label} +{re.escape(said)}$", out, re.M), label


def test_a_change_has_the_lead_time_of_its_first_good_sync(repository, load):
    """Of a merge count the commits that it brings, of a failed sync those of the next one."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("side", "2026-01-05 09:30", {"apps/shop/side.yaml": "1"}),
        change("c1", "2026-01-05 10:00", {SHOP: "2"}, parents=["c0"]),
        change("merge", "2026-01-05 10:30", {"apps/shop/side.yaml": "1"}, parents=["c1", "side"]),
    )
    history = load(one(releases(c["c0"], c["merge"])), repo=folder)
    assert lead_hours(history, c) == {"side": 1.5, "c1": 1}
    folder, c = repository(*line("1", "2", "3", start="2026-01-05 08:00"))
    assert lead_hours(load(one(releases(c["c0"], c["c1"], c["c0"], c["c2"])), repo=folder), c) == {
        "c1": 2,
        "c2": 3,
    }
    state = operation("Failed", "2026-01-05 10:30", "2026-01-05 10:31", c["c1"])
    shop = application("shop-prod", releases(c["c0"], c["c2"]), operation=state)
    assert lead_hours(load(shop, repo=folder), c) == {"c1": 2, "c2": 1}


@pytest.mark.parametrize("first", [0, 5])
def test_what_the_first_release_had_is_not_shipped_again(first, repository, load):
    """c2, back to c0, c3: of c1 and c2 it is not known when they came first."""
    folder, c = repository(*line("1", "2", "3", "4", start="2026-01-05 08:00"))
    for last, expected in (("c3", {"c3": 1}), ("c2", {})):
        shas = (c["c2"], c["c0"], c[last])
        assert lead_hours(load(one(releases(*shas, first=first)), repo=folder), c) == expected


REFERENCE = "Argocd-reference-commit-sha: " + "a" * 40


@pytest.mark.parametrize(
    ("trailers", "hours"),
    [
        ([REFERENCE, "Argocd-reference-commit-date: 2026-01-05T06:00:00Z"], 5),
        ([REFERENCE, "Argocd-reference-commit-date: 2026-01-05T08:00:00+02:00"], 5),
        (["Argocd-reference-commit-date: 2026-01-05T06:00:00Z"], 1),
        ([REFERENCE, "Argocd-reference-commit-date: yesterday"], 1),
    ],
)
def test_the_clock_of_a_hydrated_commit_starts_at_the_code_commit(
    trailers, hours, repository, load
):
    message = "Bump shop\n\n" + "\n".join(trailers) + "\n"
    folder, c = repository(*line("1"), change("c1", "2026-01-05 10:00", {SHOP: "2"}, message))
    history = load(one(releases(c["c0"], c["c1"])), repo=folder)
    assert lead_hours(history, c) == {"c1": hours}


def test_several_sources_are_dated_each_by_its_own_revision_at_its_path(repository, load):
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {"charts/shop/a": "1", "values/shop/a": "1"}),
        change("c1", "2026-01-05 09:30", {"charts/shop/a": "2", "values/shop/b": "1"}),
        change("c2", "2026-01-05 10:00", {"values/shop/a": "2"}),
        change("c3", "2026-01-05 10:15", {"charts/shop/a": "3"}),
    )
    several = [source("charts/shop"), source("values/shop")]
    entries = [
        multi_entry(0, "2026-01-05 10:00", [c["c0"], c["c0"]], several),
        multi_entry(1, "2026-01-05 11:00", [c["c0"], c["c3"]], several),
    ]
    history = load(application("shop-prod", entries, sources=several), repo=folder)
    assert lead_hours(history, c) == {"c1": 1.5, "c2": 1}


@pytest.mark.parametrize("time", [0, 1 << 40])
def test_a_commit_without_a_real_time_has_no_lead_time(time, repository, load):
    """The time 0 is that of tools that set none; some clocks are off by thousands of years."""
    folder, c = repository(*line("1", "2"), change("odd", time, {SHOP: "3"}))
    history = load(one(releases(c["c0"], c["c1"], c["odd"])), repo=folder)
    assert lead_hours(history, c) == {"c1": 1}


def is_merge(one_change):
    return len(one_change["parents"] or []) > 1


@in_seeds
def test_the_changes_of_a_release_are_those_that_git_lists(seed, repository, load):
    """Random histories with merges, and two releases of each."""
    draw = random.Random(seed)
    changes, names = [], []
    for number in range(draw.randint(4, 25)):
        parents = draw.sample(names, min(len(names), draw.choice([1, 1, 1, 2])))
        files = {f"apps/{draw.choice('ab')}/{draw.randrange(2)}": str(number)}
        names.append(f"c{number}")
        changes.append(change(names[-1], 1767600000 + 600 * number, files, parents=parents or None))
    folder, c = repository(*changes)
    for path in ("apps", "apps/a", "apps/b/1"):
        number = draw.choice([n for n, made in enumerate(changes) if n and not is_merge(made)])
        old, new = c[draw.choice(names[:number])], c[names[number]]
        entries = releases(old, new, start="2026-01-08 10:00", source=source(path))
        history = load(application("shop-prod", entries, spec=source(path)), repo=folder)
        between = ["rev-list", "--no-merges", "--full-history", f"{old}..{new}", "--", path]
        listed = git(folder, *between).split()
        assert sorted(c[name] for name in lead_hours(history, c)) == sorted(listed)
        assert listed or path != "apps"


# ---- Changes that wait for production


def waiting(history):
    """The commits that production has not had yet."""
    return sorted(history.changes.loc[history.changes["deployed"].isna(), "commit_sha"])


def test_what_another_environment_has_before_production_waits_to_be_shipped(repository, load):
    """Of five commits dev has had all, one elsewhere left out; production is at the second."""
    folder, c = repository(
        *line("1", "2", "3", "4", "5"), change("other", "2026-01-05 09:55", {OTHER: "2"})
    )
    dev = application("shop-dev", releases(c["c0"], c["c2"], c["other"]))
    history = load(one(releases(c["c0"], c["c1"])), dev, repo=folder)
    assert waiting(history) == sorted([c["c2"], c["c3"], c["c4"]])
    row = measured(history)[LEAD]
    assert (row["n"], row["open"]) == (1, 3)
    assert "Changes not yet shipped:        3" in report_on(history)


def test_only_what_is_on_its_way_to_this_production_waits_for_it(repository, load):
    """So does what a failed sync had; not what production went back from, or had in a gap."""
    folder, c = repository(*line("1", "2", "3", "4"))

    def waits(*applications, repo=folder):
        return waiting(load(*applications, repo=repo))

    failed = operation("Failed", "2026-01-06 10:00", "2026-01-06 10:01", c["c2"])
    behind = releases(c["c0"], c["c1"])
    dev = application("shop-dev", releases(c["c0"], c["c2"]))
    gap = [*behind, *releases(c["c2"], c["c1"], first=7, start="2026-01-06 10:00")]
    assert waits(application("shop-prod", behind, operation=failed)) == [c["c2"]]
    assert waits(one(behind), dev, application("dev-shop", releases(c["c0"]))) == [c["c2"]]
    assert waits(one(releases(c["c2"], c["c0"])), dev) == []
    assert waits(one(gap), dev) == []
    others = [application(name, releases(c["c0"], c["c2"])) for name in ("cart-dev", "shop-lab")]
    assert waits(one(behind), *others) == []
    assert waits(one(behind), dev, repo=None) == []


def test_what_waits_for_production_is_of_its_own_namespace_where_a_name_occurs_twice(
    repository, load
):
    """Two teams have a shop; that of b has a newer commit in its dev."""
    folder, c = repository(*line("1", "2", "3"))
    rows = [("a", "shop-prod", "c1"), ("b", "shop-prod", "c1"), ("b", "shop-dev", "c2")]
    made = [
        application(name, releases(c["c0"], c[newest]), namespace=namespace)
        for namespace, name, newest in rows
    ]
    changes = load(*made, repo=folder).changes
    assert changes.loc[changes["deployed"].isna(), "application"].tolist() == ["b/shop-prod"]


def test_the_number_of_git_processes_does_not_grow_with_the_history(repository, load, monkeypatch):
    folder, c = repository(*line(*map(str, range(40))))
    started = []
    popen = subprocess.Popen

    class Counted(popen):
        def __init__(self, *arguments, **more):
            started.append(arguments)
            super().__init__(*arguments, **more)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    counts = []
    for size in (2, 40):
        del started[:]
        load(one(releases(*(c[f"c{number}"] for number in range(size)))), repo=folder)
        counts.append(len(started))
    assert counts[0] == counts[1] <= 6


# ---- Coverage and frequency


def test_frequencies_are_over_one_window_for_all_applications(load):
    """The shop: two in ten days. The cart, made on the 6th: three. In all 5 / 10 a day, and not
    2 / 10 + 3 / 5. The cart counts what it did, and nothing of it is lost."""
    young = dict(created="2026-01-06 00:00", reconciled="2026-01-10 23:00")
    history = load(
        one(releases(A, B)),
        application("cart-prod", releases(A, B, C, start="2026-01-07 10:00"), **young),
    )
    assert history.window.days == 10
    for name, expected in (("shop", 0.2), ("cart", 0.3), (ALL, 0.5)):
        row = measured(history, name)[FREQUENCY]
        assert (row["value"], row["at_least"]) == (pytest.approx(expected), False)
    metrics = module.calculate_dora_metrics(history)
    assert metrics["production_deployment_frequency"] == pytest.approx(0.5)


def test_two_minutes_of_coverage_give_no_rate(load):
    entries = releases(A, B, C, every=60, first=7)
    history = load(application("shop-prod", entries, reconciled="2026-01-05 10:03"))
    assert measured(history)[FREQUENCY]["n"] == 2
    assert math.isnan(measured(history)[FREQUENCY]["value"])
    assert math.isnan(module.calculate_dora_metrics(history)["deployment_frequency"])
    text = report_on(history)
    assert re.search(r"^Deployment Frequency: +n/a$", text, re.M)
    assert re.search(r"^Deployment frequency: +n/a \(less than a day is covered\)$", text, re.M)


def snapshots(*parts, **more):
    """A file for each (first id, revisions, day in January), saved a day later."""
    return [
        [
            application(
                "shop-prod",
                releases(*commits, first=first, start=f"2026-01-{day:02} 10:00"),
                created="2026-01-01 00:00",
                reconciled=f"2026-01-{day + 1:02} 10:00",
                **(more if first == 0 else {}),
            )
        ]
        for first, commits, day in parts
    ]


def test_going_back_over_a_gap_is_a_deployment_of_which_no_more_is_known(repository, load_files):
    """c1 was deployed before the gap, its revert after it: how long it was bad, and whether it was
    all the time, nobody knows. What came in the gap has no lead time."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("c1", "2026-01-05 10:30", {SHOP: "2"}),
        change("c2", "2026-01-20 09:20", {MORE: "x"}),
        change("c3", "2026-01-20 10:30", {SHOP: "1"}, REVERT % "c1"),
    )
    files = snapshots((0, [c["c0"], c["c1"]], 5), (7, [c["c2"], c["c3"]], 20))
    history = load_files(*files, repo=folder)
    assert story(history, c) == "c0 c1 c3"
    assert lead_hours(history, c) == {"c1": 0.5, "c3": 0.5}


def test_a_release_with_which_the_history_goes_on_counts_if_it_was_seen_degraded(load):
    sick = dict(health="Degraded", reconciled="2026-01-05 12:00")
    assert story(load(application("shop-prod", releases(B, first=7), **sick))) == "!B"


def test_without_an_application_in_production_there_is_no_data_instead_of_zero(load):
    history = load(application("shop-dev", releases(A, B)), application("web", releases(A)))
    metrics = module.calculate_dora_metrics(history)
    assert all(math.isnan(row["value"]) for row in measured(history).values())
    assert math.isnan(metrics["production_deployment_frequency"])
    document = json.dumps(module.summary_document(measure(history), None, None), allow_nan=False)
    assert json.loads(document)["quick_check"]["overall"] is None
    text = report_on(history)
    assert re.search(r"^Change fail rate: +n/a \(nothing reached production\)$", text, re.M)
    assert "Lead Time: nothing reached production" in " ".join(text.split())
    assert measure(history).level is None


# ---- Errors


def error_of(files, repo=None):
    with pytest.raises(GitOpsError) as caught:
        module.load_argocd(files, repo)
    message = str(caught.value)
    assert message == module.one_line(message, 1000)
    return message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("apiVersion: argoproj.io/v1alpha1\nkind: Application\n", ["YAML", "-o json"]),
        ("---\n- a\n", ["YAML", "-o json"]),
        ("# saved on Monday\nitems: []\n", ["YAML", "-o json"]),
        ('"kind": List\n', ["YAML", "-o json"]),
        ('{"items": [', ["not JSON", "-o json"]),
        ("NAME  CLUSTER  STATUS\nshop  x  Synced\n", ["not JSON", "-o json"]),
        ("", ["not JSON"]),
        ("  \n ", ["not JSON"]),
        (json.dumps({"items": [config_map(), config_map()]}), ["no Argo CD application"]),
        (json.dumps(project()), ["no Argo CD application"]),
        ("42", ["no Argo CD application"]),
        ('{"items": null}', ["no deployment"]),
        ("[]", ["no deployment"]),
        (b"\xff\xfe{\x00", ["cannot read"]),
    ],
)
def test_a_file_that_holds_no_application_is_an_error_that_names_it(text, parts, write):
    files = write(text)
    message = error_of(files)
    for part in [files[0].name, *parts]:
        assert part in message


@pytest.mark.parametrize("more", [[], [application("shop-prod", [])]])
def test_an_app_of_apps_alone_is_an_error_that_says_so(more, write):
    parent = application("apps-prod", releases(A), resources=[child("shop-prod")])
    message = error_of(write([parent, *more]))
    assert "no deployment" in message


def test_a_file_or_a_repository_that_is_missing_is_an_error_that_names_it(write, tmp_path):
    message = error_of([tmp_path / "nowhere.json"])
    assert "nowhere.json" in message
    assert "cannot read" in message
    files = write([application("shop-prod", releases(A))])
    assert "--repo" in error_of(files, tmp_path / "nowhere")


BEFORE_1970 = "1970-01-01T00:00:00+05:00"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deployedAt", "yesterday"),
        ("deployedAt", None),
        ("deployedAt", 17),
        ("deployedAt", "2026-13-01T00:00:00Z"),
        ("deployedAt", "2026-01-01T00:00:00"),
        ("deployedAt", "2026-01-05T10:00:00+0000"),  # only some versions of Python read it
        ("deployedAt", "0001-01-01T00:00:00Z"),
        ("deployedAt", BEFORE_1970),
        ("deployStartedAt", "soon"),
        ("deployStartedAt", BEFORE_1970),
        ("id", "one"),
        ("id", 10**30),
        ("id", 1.5),
        ("id", True),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_entry_of_its_file(key, value, write):
    entries = releases(A, B)
    entries[1][key] = value
    files = write([application("cart-prod", releases(A)), application("shop-prod", entries)])
    message = error_of(files)
    for part in (files[0].name, "shop-prod", "entry 1", key):
        assert part in message


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("metadata", "creationTimestamp"), BEFORE_1970, BEFORE_1970),
        (("status", "reconciledAt"), BEFORE_1970, BEFORE_1970),
        (("status", "operationState", "startedAt"), BEFORE_1970, BEFORE_1970),
        (("status", "operationState", "finishedAt"), "soon", "soon"),
        (("status", "health", "lastTransitionTime"), "soon", "soon"),
        (("status",), "Synced", "not an object"),
        (("status", "history"), {"0": {}}, "not a list"),
        (("status", "history", 1), "surprise", "entry 1: not an object"),
    ],
    ids=lambda given: given[-1] if isinstance(given, tuple) else None,
)
def test_a_wrong_value_elsewhere_is_an_error_that_names_the_application(path, value, part, write):
    state = operation("Failed", "2026-01-06 10:00", "2026-01-06 10:02", C)
    shop = one(releases(A, B), operation=state)
    put(shop, path, value)
    message = error_of(write([application("cart-prod", releases(A)), shop]))
    for expected in ("shop-prod", part, *[str(path[-1])] * (path[-1] != 1)):
        assert expected in message


@pytest.mark.parametrize(
    "value",
    [
        *(f"{'[' * depth}{']' * depth}" for depth in (50, 900, 3000, 100_000)),
        *("9" * 400, "9" * 5000, "1e300", "NaN", "-Infinity"),
    ],
    ids=lambda value: f"{value[:9]} ({len(value)})",
)
@pytest.mark.parametrize(
    "key", ["targetRevision", "revision", "revisions", "id", "deployedAt", "x"]
)
def test_deep_values_and_huge_numbers_are_read_or_refused(key, value, write):
    entries = [{**one_, "revisions": "y"} for one_ in releases(A, B)]
    text = json.dumps(application("shop-prod", entries, labels={"x": "y"}))
    text, count = re.subn(rf'"{key}": ("[^"]*"|\d+)', lambda _: f'"{key}": {value}', text)
    assert count
    with contextlib.suppress(GitOpsError):
        check_history(module.load_argocd(write(text)))


@pytest.mark.parametrize("depth", [50, 900, 3000, 100_000])
@pytest.mark.parametrize("shape", ["[{}]", "[{}", '{{"items": [{}]}}'])
def test_deep_documents_are_read_or_refused(shape, depth, write):
    before, after = shape.format("\n").split("\n")
    with contextlib.suppress(GitOpsError):
        text = json.dumps(application("shop-prod", releases(A, B)))
        check_history(module.load_argocd(write(before * depth + text + after * depth)))


def test_a_path_that_no_repository_can_have_crashes_nothing(repository, load):
    """Where the clone has nothing at the path, nothing of it changes."""
    folder, c = repository(*line("1", "2"))
    for path in ("apps/\ud800", "../../etc", "/apps/shop", "apps/\nshop", "apps//shop/", ""):
        entries = releases(c["c0"], c["c1"], source=source(path))
        assert story(load(one(entries, spec=source(path)), repo=folder), c) == "c0 c1"
    for path in ("a:b", "-x", "~", "@{1}", "*"):
        entries = releases(c["c0"], c["c1"], source=source(path))
        assert story(load(one(entries, spec=source(path)), repo=folder), c) == "c0"


def put(document, path, value):
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


@pytest.mark.slow
def test_whatever_becomes_of_documents_the_tables_are_sound_or_there_is_one_line(write):
    """tests/test_faults.py looks at what is printed of more of them."""
    ends = collections.Counter()
    for seed in range(200):
        rng = random.Random(seed)
        chosen = rng.sample(list(examples().values()), 3)
        files = write(odd.as_bytes(rng, [odd.mutated(rng, document) for document in chosen]))
        try:
            history = module.load_argocd(files)
            check_history(history)
            measure(history)
            ends["well"] += 1
        except GitOpsError as error:
            assert str(error) == module.one_line(error, 1000)
            ends["refused"] += 1
    assert min(ends["well"], ends["refused"]) > 20


# ---- A scenario fitted to the history


def fitted(history):
    """The scenario that is fitted to a history, which its own JSON gives back."""
    scenario = module.calibrate(history).scenario
    assert Scenario.from_json(scenario.to_json()) == scenario
    return scenario


def test_what_a_history_has_is_fitted_however_long(repository, load):
    """A sync that hangs for twenty days, a version that is taken back after three years, and long
    names of an environment, an author and a reason."""
    slow = 20 * 86400
    entries = [*releases(A), entry(1, "2026-01-28 10:00", B, took=slow)]
    shop = application("shop-prod", entries, reconciled="2026-01-29 00:00")
    assert fitted(load(shop)).environments[-1].duration_sec[-1] == slow
    times = ["2022-01-05 10:00", "2022-02-05 10:00", "2025-02-05 10:00"]
    entries = [entry(number, time, [A, B, A][number]) for number, time in enumerate(times)]
    minutes = (seconds(times[2]) - seconds(times[1])) / 60
    assert fitted(load(application("shop-prod", entries))).rollback.duration_min[-1] == minutes
    environment, author, reason = "canary-" + "x" * 300, "Ann " + "y" * 300, "no ready pod " * 50
    shop = application("shop", releases(A, B), labels={"environment": environment})
    assert fitted(load(shop)).environments[0].name[:30] == environment[:30]
    folder, c = repository(*line("1", "2", "3"), author=author)
    history = load(one(releases(c["c0"], c["c1"], c["c2"])), repo=folder)
    (name,) = fitted(history).team.authors
    assert name[:30] == author[:30]
    state = operation("Failed", "2026-01-06 10:00", "2026-01-06 10:02", C, reason)
    (told,) = fitted(load(one(releases(A, B), operation=state))).failure_reasons
    assert told[:30] == reason[:30]


# ---- The command line


def test_the_document_of_a_history_has_its_coverage(write, tmp_path, capsys):
    arguments = ("--json", "--no-dashboard", "--runs", 2, "--output", tmp_path / "o")
    files = write([one(releases(A, B))])
    status, out, err = called(capsys, "--argocd", *files, *arguments)
    assert (status, err) == (0, "")
    document = json.loads(out)
    (row,) = document["coverage"]
    assert list(row) == list(module.DETAILS["coverage"])
    assert [row[key] for key in ("application", "environment", "rule", "origin", "from", "to")] == [
        "shop",
        "production",
        "name",
        "argocd/shop-prod",
        "2026-01-01T00:00:00Z",
        "2026-01-10T23:00:00Z",
    ]
    assert (document["simulated"], document["source"]) == (False, "argocd")
    assert document["production"][FREQUENCY]["value"] == pytest.approx(0.2)
    assert document["production"][FAIL_RATE]["at_least"]


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        (["--environment", "prod"], "production"),
        (["--environment-label", "tier"], "qa"),
        (["--environment-pattern", "^(.*)-dev"], "shop"),
        (["--environments", "test=dev,production"], "test"),
        ([], "dev"),
    ],
)
def test_the_flags_say_how_to_tell_the_environment(flags, environment, write, tmp_path, capsys):
    files = write([application("shop-dev", releases(A), labels={"tier": "qa"})])
    arguments = ("--json", "--no-dashboard", "--runs", 2, "--output", tmp_path / "o", *flags)
    status, out, _ = called(capsys, "--argocd", *files, *arguments)
    assert status == 0
    assert json.loads(out)["coverage"][0]["environment"] == environment


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--environment-pattern", "("], "--environment-pattern"),
        (["--environment-pattern", "prod"], "group"),
        (["--environment-pattern", ""], "group"),
        (["--environment-label", ""], "--environment-label"),
        (["--environment", " "], "--environment"),
        (["--environments", "dev,,production"], "--environments"),
        (["--days", "5", "--end", "2025-12-01"], "this history goes from 2026-01-01"),
        (["--alert-webhook", "http://localhost:1"], "--alert-webhook"),
        (["--config", "team.json"], "--config"),
        (["--repo", "nowhere"], "--repo"),
    ],
)
def test_options_that_make_no_sense_end_with_status_2(flags, part, write, tmp_path, capsys):
    files = write([one(releases(A))])
    arguments = ("--no-dashboard", "--output", tmp_path / "o", *flags)
    status, _, err = called(capsys, "--argocd", *files, *arguments)
    assert status == 2
    assert part in err
    assert err.count("\n") == 1


def test_the_class_measures_what_its_method_loads(write, tmp_path, capsys):
    """A window can be cut out of it."""
    gitops = module.GitOpsAutomation(output_dir=tmp_path / "o")
    gitops.advice_runs = 2
    gitops.load_argocd_history(write([one(releases(A, B, A))]))
    metrics = gitops.calculate_dora_metrics()
    gitops.generate_report()
    assert (metrics["total_deployments"], metrics["total_rollbacks"]) == (2, 1)
    assert gitops.applications == ["shop"]
    assert gitops.document()["seed"] is None
    gitops.load_argocd_history(write([one(releases(A, B, C, every=86400))]), days=5)
    assert (gitops.window.days, len(gitops.deployments)) == (5, 2)


# ---- Round trip


def made_up(seed, applications=("cart", "shop")):
    """A delivery made up: (changes of the repository, releases, rollbacks, lead hours of the
    changes in production).

    Each application has a few changes between its releases; a bad release is taken back to the one
    before, by going back to its commit or by a commit that says it reverts; the next release goes
    forward again.
    """
    draw = random.Random(seed)
    time = seconds("2026-01-05 08:00")
    changes, steps, expected, leads = [], {}, {"deployments": [], "rollbacks": []}, []
    head = None

    def commit(name, message="fix: a change"):
        nonlocal head, time
        time += draw.randrange(60, 4000)
        head = f"c{len(changes)}"
        changes.append(change(head, time, {f"apps/{name}/{draw.randrange(3)}": f"{head}"}, message))
        return head, time

    for name in applications:
        commit(name)
    waiting_ = {name: [] for name in applications}
    good = {}
    for name in applications:  # the first release of each
        time += 500
        steps[name], good[name] = [(head, time)], head
        expected["deployments"].append((time - 30, name, head, False))
    for _ in range(25):
        name = draw.choice(applications)
        for other in applications:
            for _ in range(draw.randrange(3)):
                waiting_[other].append(commit(other))
        waiting_[name].append(commit(name))
        time += draw.randrange(120, 3000)
        bad = draw.random() < 0.35
        steps[name].append((head, time))
        leads += [(time - made) / 3600 for _, made in waiting_[name]]
        shipped, released, done = [one_[0] for one_ in waiting_[name]], head, time
        waiting_[name] = []
        expected["deployments"].append((time - 30, name, released, bad))
        if not bad:
            good[name] = released
            continue
        by_revert = draw.random() < 0.5
        if by_revert:
            target, made = commit(name, REVERT % shipped[-1])
        else:
            target = good[name]
        time += draw.randrange(120, 3000)
        if by_revert:
            leads.append((time - made) / 3600)
            good[name] = target
        steps[name].append((target, time))
        expected["rollbacks"].append((done, name, released, target, (time - done) / 60))
    return changes, steps, expected, leads


def by_rows(frame, *columns):
    times = [int(time.timestamp()) for time in frame["timestamp"]]
    return sorted(zip(times, *(frame[column] for column in columns)))


@in_seeds
def test_a_history_written_as_documents_with_a_repository_comes_back(seed, repository, load):
    changes, steps, expected, leads = made_up(seed)
    folder, sha = repository(*changes)
    last = max(time for all_ in steps.values() for _, time in all_)
    documents = [
        application(
            f"{name}-prod",
            [
                entry(number, time, sha[commit], source=source(f"apps/{name}"))
                for number, (commit, time) in enumerate(made)
            ],
            spec=source(f"apps/{name}"),
            created="2026-01-05 00:00",
            reconciled=last,
        )
        for name, made in steps.items()
    ]
    history = load(*documents, repo=folder)
    rows = history.deployments.assign(bad=history.deployments["health"] == "Degraded")
    assert by_rows(rows, "application", "commit_sha", "bad") == sorted(
        (time, name, sha[commit], bad) for time, name, commit, bad in expected["deployments"]
    )
    assert by_rows(history.rollbacks, "application", "from_commit", "to_commit") == sorted(
        (time, name, sha[old], sha[new]) for time, name, old, new, _ in expected["rollbacks"]
    )
    minutes = sorted(row[4] for row in expected["rollbacks"])
    assert sorted(history.rollbacks["duration_min"]) == pytest.approx(minutes)
    of, total, failed = measured(history), len(expected["deployments"]), len(minutes)
    assert sorted(lead_hours(history, sha).values()) == pytest.approx(sorted(leads))
    assert of[LEAD]["n"] == len(leads)
    assert of[LEAD]["value"] == pytest.approx(pd.Series(leads).median())
    assert of[FAIL_RATE]["value"] == pytest.approx(100 * failed / total)
    assert of[RECOVERY]["value"] == pytest.approx(pd.Series(minutes).median(), nan_ok=True)
    assert of[REWORK]["value"] == pytest.approx(100 * failed / (total + failed))
    days = last // 86400 + 1 - seconds("2026-01-05 00:00") // 86400
    assert of[FREQUENCY]["value"] == pytest.approx(total / days)
