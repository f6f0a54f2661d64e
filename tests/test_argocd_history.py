"""Argo CD's history: every document shape, every rule by hand, hostile input, and a round trip."""

import contextlib
import io
import json
import math
import os
import random
import re
import subprocess
import unicodedata

import jsonschema
import pandas as pd
import pytest
from argocd_documents import (
    SCHEMA_FILE,
    SHAPES,
    application,
    chart,
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
from conftest import called
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_model import check_history

import gitops_automation as module
from gitops_automation import GitOpsError, Report, Scenario, measure, production_metrics

ALL = module.ALL_APPLICATIONS
LEAD, FREQUENCY, RECOVERY, FAIL_RATE, REWORK = module.PRODUCTION_METRICS
A, B, C, D = (revision(number) for number in range(1, 5))


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
            paths[-1].write_bytes(
                text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
            )
        return paths

    return files


@pytest.fixture
def load(write):
    """A function that loads the history of applications, every invariant checked."""

    def history(*applications, repo=None, **rules):
        made = module.load_argocd(write(list(applications)), repo, module.EnvironmentRules(**rules))
        check_history(made)
        return made

    return history


def one(history):
    """An application from its history entries: the whole history."""
    return application(
        "shop-prod", history, created="2026-01-01 00:00", reconciled="2026-01-11 00:00"
    )


def deployments(history):
    frame = history.deployments
    return list(zip(frame["commit_sha"], frame["health"]))


def moves(history):
    return list(zip(history.rollbacks["from_commit"], history.rollbacks["to_commit"]))


def measured(history, name=ALL):
    rows = production_metrics(history)
    return {row["metric"]: row for row in rows[rows["application"] == name].to_dict("records")}


in_seeds = pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 2)) for seed in range(8)]
)


def report_on(history):
    return module.format_report(Report(measure(history)))


def ok(commit):
    return (commit, "Healthy")


def bad(commit):
    return (commit, "Degraded")


# ---- A configuration repository


def git(folder, *arguments, stdin=b""):
    run = subprocess.run(
        ["git", *arguments], cwd=str(folder), input=stdin, stdout=subprocess.PIPE, check=True
    )
    return run.stdout.decode().strip()


def change(name, time, files, message="feat: a change", parents=None):
    """A commit of {path: content} that follows its parents, by default the commit before."""
    return dict(name=name, time=seconds(time), files=files, message=message, parents=parents)


@pytest.fixture
def repository(tmp_path):
    """A function that makes a repository of changes: (its folder, {name: commit})."""

    def make(*changes, author="alice"):
        folder = tmp_path / f"config{len(list(tmp_path.glob('config*')))}"
        folder.mkdir()
        git(folder, "init", "-q", "--template=")
        (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
        marks, stream = {}, []
        for number, one_ in enumerate(changes, start=1):
            marks[one_["name"]] = number
            message = (
                one_["message"]
                .format(**shas_so_far(folder, marks, stream, one_["message"]))
                .encode()
            )
            parents = (
                [marks[name] for name in one_["parents"]]
                if one_["parents"] is not None
                else [number - 1]
            )
            who = b"%s <a@example.org> %d +0000" % (author.encode(), one_["time"])
            stream += [
                b"commit refs/heads/main",
                b"mark :%d" % number,
                b"author " + who,
                b"committer " + who,
            ]
            stream += [b"data %d" % len(message), message]
            known = [parent for parent in parents if parent]
            stream += [
                (b"merge :%d" if place else b"from :%d") % parent
                for place, parent in enumerate(known)
            ]
            for path, content in one_["files"].items():
                stream += [
                    b"M 100644 inline " + path.encode(),
                    b"data %d" % len(content),
                    content.encode(),
                ]
            stream += [b""]
        return folder, run_import(folder, marks, stream)

    return make


def run_import(folder, marks, stream):
    git(
        folder,
        "fast-import",
        "--quiet",
        "--force",
        "--date-format=raw",
        "--export-marks=marks",
        stdin=b"\n".join(stream),
    )
    numbers = dict(
        reversed(line.split()) for line in (folder / "marks").read_text().split("\n") if line
    )
    shas = {int(number[1:]): sha for sha, number in numbers.items()}
    return {name: shas[number] for name, number in marks.items() if number in shas}


def shas_so_far(folder, marks, stream, message):
    """The commits that a message names in braces must be known when it is written."""
    return run_import(folder, marks, stream) if "{" in message else {}


def tagged(folder, commit):
    """The id of a tag that names a commit."""
    git(
        folder,
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.org",
        "tag",
        "-a",
        "-m",
        "one",
        "v1",
        commit,
    )
    return git(folder, "rev-parse", "refs/tags/v1")


# ---- The documents


def test_the_documents_of_these_tests_are_valid_under_the_official_schema():
    schema = json.loads(SCHEMA_FILE.read_text())
    validator = jsonschema.Draft202012Validator(schema)
    for name, document in examples().items():
        assert [error.message for error in validator.iter_errors(document)] == [], name
    assert list(validator.iter_errors({"metadata": {}, "spec": {"project": 1}}))


def same_tables(left, right):
    for name in ("git_commits", "deployments", "rollbacks", "changes", "coverage"):
        pd.testing.assert_frame_equal(getattr(left, name), getattr(right, name))
    assert left[3:5] == right[3:5]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_of_a_document_give_the_same_history(shape, write):
    documents = list(examples().values())
    expected = module.load_argocd(write(documents))
    check_history(expected)
    assert len(expected.coverage) == len(documents)
    same_tables(module.load_argocd(write(SHAPES[shape](documents))), expected)


def test_a_single_application_is_a_document(write, load):
    same_tables(module.load_argocd(write(one(releases(A, B)))), load(one(releases(A, B))))


def test_standard_input_is_a_file_named_by_a_dash(monkeypatch, load):
    text = json.dumps(one(releases(A, B))).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    same_tables(module.load_argocd(["-"]), load(one(releases(A, B))))


def test_snapshots_become_one_long_history(write, load):
    """Entries 0 to 2, then 2 to 4, of which the second snapshot alone would be truncated."""
    entries = releases(A, B, C, D, A)
    earlier = application(
        "shop-prod", entries[:3], uid="u", created="2026-01-01 00:00", reconciled="2026-01-06 00:00"
    )
    later = application(
        "shop-prod", entries[2:], uid="u", created="2026-01-01 00:00", reconciled="2026-01-11 00:00"
    )
    whole = application(
        "shop-prod", entries, uid="u", created="2026-01-01 00:00", reconciled="2026-01-11 00:00"
    )
    for files in ([[earlier], [later]], [[later], [earlier]], [[earlier], [earlier], [later]]):
        same_tables(module.load_argocd(write(*files)), load(whole))


def test_a_failed_operation_of_an_earlier_snapshot_is_kept(write):
    failed = operation("Failed", "2026-01-05 11:30", "2026-01-05 11:31", C)
    earlier = application("shop-prod", releases(A, B), operation=failed)
    later = application("shop-prod", releases(A, B, D), reconciled="2026-01-11 00:00")
    history = module.load_argocd(write([earlier], [later]))
    check_history(history)
    assert deployments(history) == [ok(A), ok(B), bad(C), ok(D)]
    assert history.deployments["status"].tolist() == ["Synced", "Synced", "Failed", "Synced"]


def test_degraded_health_of_an_earlier_snapshot_is_kept(write):
    """B was seen degraded an hour after it was deployed. The failure ended when D came."""
    entries = releases(A, B, D)
    earlier = application(
        "shop-prod", entries[:2], health="Degraded", reconciled="2026-01-05 11:30"
    )
    later = application("shop-prod", entries, reconciled="2026-01-11 00:00")
    history = module.load_argocd(write([earlier], [later]))
    check_history(history)
    assert deployments(history) == [ok(A), bad(B), ok(D)]
    assert measured(history)[RECOVERY]["value"] == 60


def test_a_snapshot_without_the_uid_is_of_the_application_with_that_name(write):
    named = application("shop-prod", releases(A, B), uid="u")
    nameless = application("shop-prod", releases(A, B, C))
    for files in ([[named], [nameless]], [[nameless], [named]]):
        history = module.load_argocd(write(*files))
        check_history(history)
        assert deployments(history) == [ok(A), ok(B), ok(C)]


def test_applications_with_the_same_name_in_two_namespaces_are_two(load):
    history = load(
        application("shop-prod", releases(A), namespace="a"),
        application("shop-prod", releases(B), namespace="b"),
    )
    assert sorted(history.coverage["application"]) == ["a/shop-prod", "b/shop-prod"]


# ---- Deployments


def test_syncs_of_the_same_revision_from_the_same_source_are_one_deployment(load):
    history = load(one(releases(A, A, B, B, B)))
    assert deployments(history) == [ok(A), ok(B)]
    assert history.deployments["timestamp"][1] == pd.Timestamp("2026-01-05 11:59:30", tz="UTC")
    assert history.coverage.loc[0, ["syncs", "deployments"]].tolist() == [5, 2]


def test_the_same_revision_with_another_source_is_a_deployment(load):
    entries = releases(A, A, A)
    entries[1]["source"] = source(kustomize={"images": ["shop:2"]})
    entries[2]["source"] = source(kustomize={"images": ["shop:3"]})
    assert deployments(load(one(entries))) == [ok(A), ok(A), ok(A)]


def test_the_same_revisions_of_several_sources_are_one_deployment(load):
    several = [source("charts/shop"), source("values", ref="values")]
    entries = [
        multi_entry(number, f"2026-01-05 1{number}:00", revisions, several)
        for number, revisions in enumerate([[A, B], [A, B], [A, C]])
    ]
    assert deployments(load(application("shop-prod", entries, sources=several))) == [
        ok(f"{A}+{B}"),
        ok(f"{A}+{C}"),
    ]


def test_a_chart_is_a_deployment_of_its_version(load):
    entries = [
        entry(number, f"2026-01-05 1{number}:00", f"1.{number}.0", source=chart(f"1.{number}.0"))
        for number in (0, 1)
    ]
    assert deployments(load(application("redis-prod", entries, spec=chart()))) == [
        ok("1.0.0"),
        ok("1.1.0"),
    ]


def test_a_deployment_lasts_from_the_first_attempt_to_the_end(load):
    history = load(one([entry(0, "2026-01-05 10:00", A, took=95)]))
    assert history.deployments["duration_sec"].tolist() == [95]
    assert history.deployments["timestamp"][0] == pd.Timestamp("2026-01-05 09:58:25", tz="UTC")


def test_an_entry_without_a_start_lasts_no_time(load):
    entries = releases(A)
    del entries[0]["deployStartedAt"]
    assert load(one(entries)).deployments["duration_sec"].tolist() == [0]


def test_a_sync_at_midnight_lies_inside_the_window(load):
    entries = [entry(0, "2026-01-05 00:00", A, took=0)]
    history = load(application("shop-prod", entries))
    assert history.window.days >= 1
    assert measured(history)[FREQUENCY]["n"] == 1


def test_the_branch_that_leads_to_a_revision_makes_no_deployment_of_it(load):
    """B is pinned by its id after main had led to it; A is pinned when they go back."""
    entries = releases(A, B, B, A)
    for entry_ in entries[2:]:
        entry_["source"] = {**source(), "targetRevision": entry_["revision"]}
    history = load(one(entries))
    assert deployments(history) == [ok(A), bad(B)]
    assert moves(history) == [(B, A)]


def test_a_tag_is_one_deployment_with_the_commit_that_it_names(repository, load):
    folder, c = repository(*line("1", "2"))
    tag = tagged(folder, c["c1"])
    assert deployments(load(one(releases(c["c0"], tag, c["c1"])), repo=folder)) == [
        ok(c["c0"]),
        ok(c["c1"]),
    ]


# ---- Environments and names


@pytest.mark.parametrize(
    ("name", "environment", "rule", "shown"),
    [
        ("shop-prod", "production", "name suffix", "shop"),
        ("shop-production", "production", "name suffix", "shop"),
        ("shop.prd", "production", "name suffix", "shop"),
        ("shop_live", "production", "name suffix", "shop"),
        ("prod-shop", "production", "name prefix", "shop"),
        ("prod-web-shop", "production", "name prefix", "web-shop"),
        ("shop-stage", "staging", "name suffix", "shop"),
        ("shop-stg", "staging", "name suffix", "shop"),
        ("shop-uat", "staging", "name suffix", "shop"),
        ("qa-shop", "staging", "name prefix", "shop"),
        ("shop-dev", "dev", "name suffix", "shop"),
        ("Shop-Test", "dev", "name suffix", "Shop"),
        ("dev-to-prod", "production", "name suffix", "dev-to"),
        ("prod", "production", "name suffix", "prod"),
        ("shop-preprod", "unclassified", "none", "shop-preprod"),
        ("shop-nonprod", "unclassified", "none", "shop-nonprod"),
        ("shop-non-prod", "unclassified", "none", "shop-non-prod"),
        ("shop-pre-prod", "unclassified", "none", "shop-pre-prod"),
        ("pre-prod-shop", "unclassified", "none", "pre-prod-shop"),
        ("non_prod.shop", "unclassified", "none", "non_prod.shop"),
        ("productpage", "unclassified", "none", "productpage"),
        ("liveness", "unclassified", "none", "liveness"),
        ("shop-developer", "unclassified", "none", "shop-developer"),
        ("shop", "unclassified", "none", "shop"),
    ],
)
def test_the_environment_is_a_whole_token_of_the_name(name, environment, rule, shown, load):
    row = load(application(name, releases(A))).coverage.loc[0]
    assert (row["environment"], row["rule"], row["application"]) == (environment, rule, shown)


@pytest.mark.parametrize(
    ("more", "environment", "rule"),
    [
        ({"labels": {"environment": "prod"}}, "production", "label environment"),
        ({"labels": {"env": "Staging"}}, "staging", "label env"),
        ({"annotations": {"environment": "live"}}, "production", "label environment"),
        ({"annotations": {"kargo.akuity.io/authorized-stage": "shop:uat"}}, "shop:uat", None),
        ({"labels": {"environment": "canary", "env": "prod"}}, "canary", "label environment"),
        ({"spec": source("apps/shop/overlays/prod")}, "production", "source path"),
        (
            {"spec": source("apps", helm={"valueFiles": ["values.yaml", "values-stg.yaml"]})},
            "staging",
            "source path",
        ),
        ({"spec": source("clusters/non-prod/shop")}, "unclassified", "none"),
        ({"spec": source("dev/prod")}, "unclassified", "none"),
        (
            {"destination": {"name": "eu-prod-1", "namespace": "shop-dev"}},
            "production",
            "destination name",
        ),
        (
            {"destination": {"server": "https://kubernetes.default.svc", "namespace": "shop-dev"}},
            "dev",
            "destination namespace",
        ),
        ({"destination": {"namespace": "preprod"}}, "unclassified", "none"),
    ],
)
def test_the_environment_is_told_by_the_first_rule_that_can(more, environment, rule, load):
    row = load(application("shop", releases(A), **more)).coverage.loc[0]
    if rule is not None:  # a Kargo stage is `project:stage`: only that it is not lost is asked
        assert (row["environment"], row["rule"]) == (environment, rule)
    assert row["application"] == "shop"


def test_a_kargo_stage_is_the_part_behind_its_project(load):
    """The annotation `kargo.akuity.io/authorized-stage` holds `<project>:<stage>`."""
    annotations = {"kargo.akuity.io/authorized-stage": "shop:uat"}
    row = load(application("shop", releases(A), annotations=annotations)).coverage.loc[0]
    assert row["environment"] == "staging"


def test_a_label_outranks_the_name_as_a_chosen_label_does_the_others(load):
    marked = application("shop-prod", releases(A), labels={"environment": "dev", "tier": "qa"})
    assert load(marked).coverage.loc[0, "environment"] == "dev"
    assert load(marked, label="tier").coverage.loc[0, ["environment", "rule"]].tolist() == [
        "staging",
        "label tier",
    ]


def test_a_pattern_outranks_the_name_as_a_fixed_environment_does(load):
    shop = application("x1-shop-dev", releases(A))
    assert load(shop, pattern=r"^(x\d)").coverage.loc[0, ["environment", "rule"]].tolist() == [
        "x1",
        "pattern",
    ]
    assert load(shop, fixed="prod").coverage.loc[0, ["environment", "rule"]].tolist() == [
        "production",
        "given",
    ]


@pytest.mark.parametrize(
    ("name", "pattern", "shown"),
    [
        ("shop-prod-eu", r"-(prod)-", "shop-eu"),
        ("eu-prod-shop", r"^\w+-(\w+)-", "eu-shop"),
        ("shopprod", r"(prod)$", "shop"),
        ("prod", r"(prod)", "prod"),
        ("prod.shop-prod", r"^(prod)", "shop-prod"),
    ],
)
def test_what_a_pattern_found_is_cut_out_of_the_name(name, pattern, shown, load):
    row = load(application(name, releases(A)), pattern=pattern).coverage.loc[0]
    assert (row["environment"], row["application"]) == ("production", shown)


def test_one_application_in_three_environments_is_one(load):
    history = load(*(application(f"shop-{name}", releases(A)) for name in ("dev", "stg", "prod")))
    assert set(history.deployments["application"]) == {"shop"}
    assert history.environments == ("dev", "staging", "production")
    assert set(history.deployments["environment"]) == {"dev", "staging", "production"}


def test_two_applications_that_would_be_one_keep_their_full_names(load):
    history = load(application("shop-prod", releases(A)), application("prod-shop", releases(B)))
    assert sorted(history.coverage["application"]) == ["argocd/prod-shop", "argocd/shop-prod"]


def test_the_unclassified_applications_are_all_listed_however_long_the_table(load):
    made = [application(f"a{number}-prod", releases(A)) for number in range(50)]
    made += [application(f"z{number}", releases(A)) for number in range(3)]
    history = load(*made)
    text = report_on(history)
    assert all(f"argocd/z{number}" in text for number in range(3))
    assert "and 10 more" in text
    assert "unclassified: 3;" in text


def test_an_application_that_was_made_anew_keeps_its_name(load):
    first = application("shop-prod", releases(A, B), uid="u1")
    second = application("shop-prod", releases(C, start="2026-01-08 10:00"), uid="u2")
    history = load(first, second)
    assert set(history.deployments["application"]) == {"shop"}
    assert deployments(history) == [ok(A), ok(B), ok(C)]


def test_an_unclassified_application_is_listed_outside_production(load):
    history = load(application("shop", releases(A, B)))
    assert history.environments[0] == "unclassified"
    assert history.production == "production"
    assert measured(history)[FREQUENCY]["n"] == 0
    text = report_on(history)
    assert "unclassified: 1" in text


def test_a_commit_dated_after_its_deployment_has_no_lead_time(repository, load):
    """Two clocks are wrong: one by hours, one by thirty thousand years."""
    path = "apps/shop/a"
    folder, sha = repository(
        change("c1", "2026-01-05 08:00", {path: "1"}),
        change("c2", "2026-01-05 23:00", {path: "2"}),
        change("c3", 1 << 40, {path: "3"}),
        change("c4", "2026-01-05 12:30", {path: "4"}),
    )
    history = load(
        application("shop-prod", releases(*(sha[f"c{n}"] for n in range(1, 5)))), repo=folder
    )
    assert history.undated == {"a commit is dated after its deployment": 2}
    assert (history.changes["committed"] <= history.changes["deployed"]).all()
    assert measured(history)[LEAD]["n"] == 1
    assert module.calculate_dora_metrics(history)["mean_lead_time"] > 0
    check_history(history)


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
    folder, sha = repository(*changes)
    for path in ("apps", "apps/a", "apps/b/1"):
        number = draw.choice([n for n, one in enumerate(changes) if n and not is_merge(one)])
        old, new = sha[draw.choice(names[:number])], sha[names[number]]
        entries = releases(old, new, start="2026-01-08 10:00", source=source(path))
        history = load(application("shop-prod", entries, spec=source(path)), repo=folder)
        shipped = history.changes.dropna(subset=["deployed"])["commit_sha"]
        between = ["rev-list", "--no-merges", "--full-history", f"{old}..{new}", "--", path]
        listed = git(folder, *between).split()
        assert sorted(shipped) == sorted(listed)
        assert listed or path != "apps"


# ---- Failures


def failed_application(phase="Failed", sync=None, **more):
    state = operation(phase, "2026-01-06 10:00", "2026-01-06 10:02", C, sync=sync)
    return application("shop-prod", releases(A, B), operation=state, **more)


@pytest.mark.parametrize("phase", ["Failed", "Error"])
def test_a_last_operation_that_failed_is_a_failed_deployment(phase, load):
    history = load(failed_application(phase))
    row = history.deployments.iloc[-1]
    assert row.tolist()[1:] == [
        "shop",
        "production",
        C,
        "Failed",
        "Degraded",
        120,
        "one or more objects failed to apply",
    ]
    assert row["timestamp"] == pd.Timestamp("2026-01-06 10:00", tz="UTC")
    assert measured(history)[FAIL_RATE]["value"] == pytest.approx(100 / 3)
    assert measured(history)[RECOVERY]["open"] == 1


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
    history = load(failed_application(phase, sync))
    assert deployments(history) == [ok(A), ok(B)]
    assert not history.failures_observable("production")


def test_a_failed_sync_with_every_default_is_a_failed_deployment(load):
    document = failed_application()
    document["status"]["operationState"]["operation"]["sync"] = {}
    assert load(document).deployments["status"].tolist() == ["Synced", "Synced", "Failed"]


def test_degraded_health_after_a_failed_sync_is_the_same_failure(load):
    history = load(failed_application(health="Degraded", reconciled="2026-01-06 11:00"))
    assert history.deployments["health"].tolist() == ["Healthy", "Healthy", "Degraded"]


def test_a_failed_operation_whose_retry_succeeded_counts_once(load):
    """The failed operation began together with the entry of its success."""
    state = operation("Failed", "2026-01-05 11:59:30", "2026-01-05 11:59:50", B)
    assert deployments(load(application("shop-prod", releases(A, A, B), operation=state))) == [
        ok(A),
        ok(B),
    ]


@pytest.mark.parametrize(
    ("reconciled", "expected"),
    [
        ("2026-01-06 10:00", "Degraded"),
        ("2026-01-06 09:00", "Degraded"),
        ("2026-01-05 11:30", "Healthy"),
    ],
)
def test_degraded_health_counts_only_if_it_is_not_older_than_the_operation(
    reconciled, expected, load
):
    state = operation("Succeeded", "2026-01-06 08:59", "2026-01-06 09:00", B)
    entries = [*releases(A), entry(1, "2026-01-06 09:00", B, took=60)]
    history = load(
        application(
            "shop-prod",
            entries,
            operation=state,
            health="Degraded",
            health_message="no ready pod",
            reconciled=reconciled,
        )
    )
    assert history.deployments["health"].tolist() == ["Healthy", expected]
    assert history.failures_observable("production") == (expected == "Degraded")
    if expected == "Degraded":
        assert history.deployments["failure_reason"][1] == "no ready pod"
        assert history.deployments["status"][1] == "Synced"


def test_degraded_health_during_an_operation_says_nothing_of_the_release_before(load):
    state = operation("Running", "2026-01-06 09:59", "2026-01-06 10:00", C)
    del state["finishedAt"]
    shop = application(
        "shop-prod",
        releases(A, B),
        operation=state,
        health="Degraded",
        reconciled="2026-01-06 10:00",
    )
    assert deployments(load(shop)) == [ok(A), ok(B)]


def test_degraded_health_older_than_the_last_deployment_is_not_trusted(load):
    shop = application(
        "shop-prod", releases(A, B), health="Degraded", reconciled="2026-01-05 10:30"
    )
    assert deployments(load(shop)) == [ok(A), ok(B)]


def test_a_failed_sync_that_names_its_revision_in_the_operation_alone_is_of_that_revision(load):
    document = failed_application()
    document["status"]["operationState"]["syncResult"]["revision"] = ""
    assert load(document).deployments["commit_sha"].tolist() == [A, B, C]


@pytest.fixture
def after_failure(write):
    """A function that loads A, B, a sync that failed at 12:00, and what was synced later."""

    def history(failed, *later, repo=None, first=(A, B), **more):
        state = operation("Failed", "2026-01-05 11:58", "2026-01-05 12:00", failed, **more)
        earlier = application(
            "shop-prod", releases(*first), operation=state, reconciled="2026-01-05 12:01"
        )
        entries = [*releases(*first), *releases(*later, start="2026-01-05 13:00", first=len(first))]
        made = module.load_argocd(write([earlier], [application("shop-prod", entries)]), repo)
        check_history(made)
        return made

    return history


@pytest.mark.parametrize(
    ("later", "expected", "taken_back"),
    [
        ([C], [ok(A), ok(B), bad(C), ok(C)], []),
        ([D], [ok(A), ok(B), bad(C), ok(D)], []),
        ([B], [ok(A), ok(B), bad(C)], [(C, B)]),
        ([B, B, D], [ok(A), ok(B), bad(C), ok(D)], [(C, B)]),
    ],
)
def test_a_failed_sync_ends_with_the_next_sync_be_it_forward_or_of_what_ran_before(
    later, expected, taken_back, after_failure
):
    history = after_failure(C, *later)
    assert deployments(history) == expected
    assert moves(history) == taken_back
    of = measured(history)
    assert (of[RECOVERY]["value"], of[RECOVERY]["open"]) == (60, 0)
    assert of[REWORK]["n"] == len(expected) + len(taken_back)
    assert of[REWORK]["value"] == pytest.approx(100 / of[REWORK]["n"])
    if taken_back:
        row = history.rollbacks.iloc[0]
        assert (row["reason"], row["duration_min"], row["success"]) == (
            "one or more objects failed to apply",
            60,
            True,
        )


def test_going_back_beyond_what_ran_before_a_failed_sync_rolls_both_back(after_failure):
    """B of 11:00 ran, C failed at 12:00, A came at 13:00: not B, which was bad as well."""
    history = after_failure(C, A)
    assert deployments(history) == [ok(A), bad(B), bad(C)]
    assert sorted(moves(history)) == [(B, A), (C, A)]
    assert measured(history)[RECOVERY]["mean"] == (120 + 60) / 2


def test_a_rollback_that_was_tried_again_lasted_until_it_succeeded(after_failure):
    """B came at 11:00; going back to A failed at 12:00 and succeeded at 13:00."""
    history = after_failure(A, A)
    assert deployments(history) == [ok(A), bad(B)]
    assert moves(history) == [(B, A)]
    assert measured(history)[RECOVERY]["value"] == 120


def test_a_rollback_that_failed_is_one_without_success(after_failure):
    history = after_failure(A)
    assert (moves(history), history.rollbacks["success"].tolist()) == ([(B, A)], [False])
    history = after_failure(A, C)
    assert deployments(history) == [ok(A), bad(B), ok(C)]
    assert measured(history)[RECOVERY]["value"] == 120


def test_a_failed_sync_whose_revert_brings_the_same_files_back_is_a_rollback(
    repository, after_failure
):
    """c2 failed; c3, a new commit, has the files of c1, which ran before."""
    folder, c = repository(*line("1", "2", "3", "2", start="2026-01-05 08:00"))
    history = after_failure(c["c2"], c["c3"], repo=folder, first=(c["c0"], c["c1"]))
    assert deployments(history) == [ok(c["c0"]), ok(c["c1"]), bad(c["c2"])]
    assert moves(history) == [(c["c2"], c["c3"])]


def test_a_failed_sync_of_what_other_commits_changed_is_followed_by_a_deployment(
    repository, after_failure
):
    """c2 and c3 change another application: nothing was taken back."""
    others = [
        change(name, f"2026-01-05 11:{minute}", {OTHER: name})
        for name, minute in (("x", 10), ("y", 20))
    ]
    folder, c = repository(*line("1", "2", start="2026-01-05 08:00"), *others)
    history = after_failure(c["x"], c["y"], repo=folder, first=(c["c0"], c["c1"]))
    assert deployments(history) == [ok(c["c0"]), ok(c["c1"]), bad(c["x"]), ok(c["y"])]
    assert moves(history) == []


def test_a_failure_makes_only_those_of_its_own_place_observable(load):
    """Failures were seen of cart in production, of shop in dev: shop's production is unknown."""
    failed = dict(operation=operation("Failed", "2026-01-06 10:00", "2026-01-06 10:01", C))
    shop = [
        application("shop-prod", releases(A, B)),
        application("shop-dev", releases(A, B), **failed),
    ]
    history = load(*shop)
    assert math.isnan(measured(history)[FAIL_RATE]["value"])
    metrics = module.calculate_dora_metrics(history)
    assert metrics["change_failure_rate"] == pytest.approx(
        100 / 3
    )  # what cannot be seen is no success
    assert "Overall Success Rate:           66.67% (2/3)" in report_on(history)
    assert metrics["success_rates"] == {
        "dev": pytest.approx(200 / 3),
        "production": pytest.approx(math.nan, nan_ok=True),
    }
    history = load(*shop, application("cart-prod", releases(A, B), **failed))
    assert math.isnan(measured(history, "shop")[FAIL_RATE]["value"])
    assert measured(history, "cart")[FAIL_RATE]["value"] == pytest.approx(100 / 3)
    assert measured(history)[FAIL_RATE]["value"] == pytest.approx(100 / 5)
    text = report_on(history)
    shown = next(row.split() for row in text.split("\n") if row.startswith("  • shop  "))
    assert shown[-3:] == ["n/a"] * 3


def test_failures_that_cannot_be_seen_are_said_to_be_so_wherever_they_count(load):
    history = load(one(releases(A, B)))
    text = report_on(history)
    for label in (
        "Failed deployment recovery time:",
        "Change fail rate:",
        "Deployment rework rate:",
    ):
        assert re.search(rf"^{label} +n/a \(failures not observable\)$", text, re.MULTILINE)
    assert re.search("^Change lead time: +no data$", text, re.MULTILINE)
    assert text.count("the history shows no failed sync") == 2
    assert "nothing was deployed" not in text


def test_degraded_health_without_a_time_is_not_trusted(load):
    assert deployments(load(application("shop-prod", releases(A, B), health="Degraded"))) == [
        ok(A),
        ok(B),
    ]


def test_where_failures_cannot_be_seen_no_rate_is_zero(load):
    history = load(one(releases(A, B)))
    metrics = module.calculate_dora_metrics(history)
    assert str(metrics["change_failure_rate"]) == "nan"
    of = measured(history)
    assert [str(of[metric]["value"]) for metric in (FAIL_RATE, REWORK, RECOVERY)] == ["nan"] * 3
    text = report_on(history)
    assert "n/a (failures not observable)" in text
    assert "0.00%" not in text


# ---- Rollbacks


def test_going_back_to_an_older_revision_is_a_rollback_instead_of_a_deployment(load):
    """B came at 11:00 and A again at 12:00: an hour. B is Synced and Degraded."""
    history = load(one(releases(A, B, A)))
    assert deployments(history) == [ok(A), bad(B)]
    assert history.deployments["status"].tolist() == ["Synced", "Synced"]
    row = history.rollbacks.iloc[0]
    assert row.tolist()[1:] == ["shop", "production", B, A, "Rolled back", 60, True]
    assert row["timestamp"] == pd.Timestamp("2026-01-05 11:00", tz="UTC")
    of = measured(history)
    assert (of[FAIL_RATE]["value"], of[RECOVERY]["value"]) == (50, 60)
    assert of[REWORK]["value"] == pytest.approx(100 / 3)


def test_rolling_forward_again_is_no_rollback(load):
    history = load(one(releases(A, B, A, B)))
    assert moves(history) == [(B, A)]
    assert deployments(history) == [ok(A), bad(B), ok(B)]


def test_going_back_over_several_releases_is_one_rollback(load):
    history = load(one(releases(A, B, C, A)))
    assert moves(history) == [(C, A)]
    assert deployments(history) == [ok(A), ok(B), bad(C)]


def test_going_back_to_the_source_of_an_earlier_release_is_a_rollback(load):
    entries = releases(A, A, A)
    entries[1]["source"] = source(kustomize={"images": ["shop:2"]})
    history = load(one(entries))
    assert moves(history) == [(A, A)]
    assert deployments(history) == [ok(A), bad(A)]


def test_a_release_that_was_gone_back_to_was_bad_too_if_it_is_left_for_an_older_one(load):
    """C (12:00) goes back to B at 13:00. B (11:00) goes back to A at 14:00."""
    history = load(one(releases(A, B, C, B, A)))
    assert deployments(history) == [ok(A), bad(B), bad(C)]
    assert sorted(moves(history)) == [(B, A), (C, B)]
    of = measured(history)
    assert (of[RECOVERY]["mean"], of[RECOVERY]["n"]) == ((60 + 180) / 2, 2)
    assert of[REWORK]["value"] == pytest.approx(100 * 2 / 5)


def test_a_second_step_back_from_an_ancestor_that_never_was_deployed_is_of_the_same_rollback(
    repository, load
):
    """c2 goes back to c1, then to c0. Nothing deployed c1, so all of it took c2 back."""
    folder, c = repository(*line("1", "2", "3"))
    history = load(one(releases(c["c0"], c["c2"], c["c1"], c["c0"])), repo=folder)
    assert deployments(history) == [ok(c["c0"]), bad(c["c2"])]
    assert history.rollbacks["duration_min"].tolist() == [120]


def flap(*minutes):
    commits = [A, B, A, B][: len(minutes)]
    start = seconds("2026-01-05 10:00")
    return [
        entry(number, start + int(60 * minute), commit, took=0)
        for number, (commit, minute) in enumerate(zip(commits, minutes))
    ]


def test_two_flips_within_seconds_are_neither_rollback_nor_deployment(load):
    assert deployments(load(one(flap(0, 60, 60.3)))) == [ok(A)]
    history = load(one(flap(0, 60, 60.3, 120)))
    assert deployments(history) == [ok(A), ok(B)]
    assert moves(history) == []


@pytest.mark.parametrize(("stayed", "expected"), [(59 / 60, []), (1, [(B, A)]), (2, [(B, A)])])
def test_a_release_must_stay_a_minute_before_going_back_is_a_rollback(stayed, expected, load):
    assert moves(load(one(flap(0, 60, 60 + stayed)))) == expected


def test_going_back_for_seconds_is_no_rollback(load):
    """B, then A for half a minute, then B again: the way back was the flap."""
    history = load(one(flap(0, 60, 120, 120.5)))
    assert moves(history) == []
    assert deployments(history) == [ok(A), ok(B)]


def test_a_rollback_to_a_release_that_is_degraded_has_failed(load):
    shop = application(
        "shop-prod", releases(A, B, A), health="Degraded", reconciled="2026-01-06 00:00"
    )
    history = load(shop)
    assert history.rollbacks["success"].tolist() == [False]
    assert deployments(history) == [ok(A), bad(B)]
    assert measured(history)[RECOVERY]["open"] == 1


SHOP, OTHER = "apps/shop/app.yaml", "apps/other/app.yaml"


def line(*contents, start="2026-01-05 09:00"):
    """Changes of the shop one hour after another, named c0, c1 and so on."""
    return [
        change(f"c{number}", seconds(start) + 3600 * number, {SHOP: content})
        for number, content in enumerate(contents)
    ]


def test_going_back_to_an_ancestor_that_never_was_deployed_is_a_rollback(repository, load):
    folder, c = repository(*line("1", "2", "3"))
    history = load(one(releases(c["c0"], c["c2"], c["c1"])), repo=folder)
    assert moves(history) == [(c["c2"], c["c1"])]
    assert deployments(history) == [ok(c["c0"]), bad(c["c2"])]
    assert moves(load(one(releases(c["c0"], c["c2"], c["c1"])))) == []


def test_rolling_forward_again_after_an_ancestor_is_no_rollback(repository, load):
    folder, c = repository(*line("1", "2", "3"))
    history = load(one(releases(c["c0"], c["c2"], c["c1"], c["c2"])), repo=folder)
    assert moves(history) == [(c["c2"], c["c1"])]
    assert deployments(history) == [ok(c["c0"]), bad(c["c2"]), ok(c["c2"])]


def test_a_tree_equal_to_an_earlier_one_is_a_rollback(repository, load):
    """c2 brings the files of c0 back without saying so."""
    folder, c = repository(*line("1", "2", "1"))
    assert moves(load(one(releases(c["c0"], c["c1"], c["c2"])), repo=folder)) == [
        (c["c1"], c["c2"])
    ]


def test_an_unchanged_tree_is_no_rollback(repository, load):
    """The second to fourth commits are of another application."""
    others = [
        change(f"o{number}", f"2026-01-05 1{number}:00", {OTHER: str(number)})
        for number in range(3)
    ]
    folder, c = repository(*line("1"), *others)
    history = load(one(releases(c["c0"], c["o0"], c["o1"], c["o2"])), repo=folder)
    assert moves(history) == []
    assert set(history.deployments["health"]) == {"Healthy"}


def test_a_commit_that_reverts_a_deployed_one_is_a_rollback(repository, load):
    """The revert keeps what came between, so no tree is as before. c1 is what recovers."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("c1", "2026-01-05 09:10", {SHOP: "2"}),
        change("c2", "2026-01-05 09:20", {"apps/shop/more.yaml": "x"}),
        change(
            "c3",
            "2026-01-05 09:30",
            {SHOP: "1"},
            'Revert "feat: a change"\n\nThis reverts commit {c1}.\n',
        ),
    )
    history = load(one(releases(c["c0"], c["c1"], c["c2"], c["c3"])), repo=folder)
    assert moves(history) == [(c["c1"], c["c3"])]
    assert deployments(history) == [ok(c["c0"]), bad(c["c1"]), ok(c["c2"])]
    assert history.rollbacks["duration_min"].tolist() == [120]


def test_a_commit_that_reverts_a_deployed_merge_is_a_rollback(repository, load):
    """The pull request `merge` is reverted, named by an abbreviated id; c2 lies between."""
    message = "Revert the pull request\n\nThis reverts commit {merge:.9}, reversing\nchanges.\n"
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("side", "2026-01-05 09:05", {SHOP: "2"}),
        change("merge", "2026-01-05 09:10", {SHOP: "2"}, parents=["c0", "side"]),
        change("c2", "2026-01-05 09:20", {"apps/shop/more.yaml": "x"}),
        change("c3", "2026-01-05 09:30", {SHOP: "1"}, message),
    )
    history = load(one(releases(c["c0"], c["merge"], c["c2"], c["c3"])), repo=folder)
    assert moves(history) == [(c["merge"], c["c3"])]


@pytest.mark.parametrize("together", [False, True])
def test_a_revert_that_is_reverted_itself_brings_the_change_back(together, repository, load):
    """c2 reverts c1, c3 reverts c2; where one release brings both, c1 was never taken back."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("c1", "2026-01-05 09:10", {SHOP: "2"}),
        change("c2", "2026-01-05 09:20", {SHOP: "1"}, "Revert\n\nThis reverts commit {c1}.\n"),
        change(
            "c3",
            "2026-01-05 09:30",
            {SHOP: "2", "apps/shop/b": "1"},
            "Reapply\n\nThis reverts commit {c2}.\n",
        ),
    )
    names = ["c0", "c1", "c3"] if together else ["c0", "c1", "c2", "c3"]
    history = load(one(releases(*(c[name] for name in names))), repo=folder)
    assert moves(history) == ([] if together else [(c["c1"], c["c2"])])
    assert deployments(history) == [ok(c["c0"]), (ok if together else bad)(c["c1"]), ok(c["c3"])]
    assert sum(history.rollbacks["duration_min"]) == (0 if together else 60)


def test_a_revert_of_a_commit_that_was_not_deployed_is_no_rollback(repository, load):
    """c1 and its revert came with the same release."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("c1", "2026-01-05 09:10", {SHOP: "2"}),
        change("c2", "2026-01-05 09:20", {SHOP: "1"}, "Revert\n\nThis reverts commit {c1}.\n"),
        change("c3", "2026-01-05 09:30", {SHOP: "3"}),
    )
    history = load(one(releases(c["c0"], c["c3"])), repo=folder)
    assert moves(history) == []
    assert deployments(history) == [ok(c["c0"]), ok(c["c3"])]


def test_two_reverts_of_one_release_leave_one_failure(repository, load):
    """c1 and c2 came in one release and are reverted one after the other."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("c1", "2026-01-05 09:10", {SHOP: "2"}),
        change("c2", "2026-01-05 09:20", {"apps/shop/more.yaml": "x"}),
        change("c3", "2026-01-05 09:30", {SHOP: "3"}, "Revert one\n\nThis reverts commit {c1}.\n"),
        change(
            "c4",
            "2026-01-05 09:40",
            {"apps/shop/more.yaml": "y"},
            "Revert two\n\nThis reverts commit {c2}.\n",
        ),
    )
    history = load(one(releases(c["c0"], c["c2"], c["c3"], c["c4"])), repo=folder)
    assert history.deployments["health"].tolist().count("Degraded") == 1


def test_no_move_is_backward_between_a_tag_or_the_commit_that_it_names(repository, load):
    folder, c = repository(*line("1", "2"))
    tag = tagged(folder, c["c1"])
    assert tag != c["c1"]
    assert moves(load(one(releases(c["c0"], tag, c["c1"])), repo=folder)) == []


# ---- Lead time


def lead_hours(history):
    changes = history.changes
    return {
        sha: (done - made).total_seconds() / 3600
        for sha, made, done in zip(changes["commit_sha"], changes["committed"], changes["deployed"])
    }


def test_the_lead_time_is_of_each_commit_of_the_range_at_the_source_path(repository, load):
    """c3, deployed at 11:00, contains c1 (10:00) as well as a commit to another path."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("c1", "2026-01-05 10:00", {SHOP: "2"}),
        change("other", "2026-01-05 10:05", {OTHER: "2"}),
        change("beside", "2026-01-05 10:06", {"apps/shop-two/app.yaml": "2"}),
        change("c3", "2026-01-05 10:30", {SHOP: "3"}),
    )
    history = load(one(releases(c["c0"], c["c3"])), repo=folder)
    assert lead_hours(history) == {c["c1"]: 1, c["c3"]: 0.5}
    row = measured(history)[LEAD]
    assert (row["value"], row["n"], row["mean"]) == (0.75, 2, 0.75)
    text = report_on(history)
    assert "config-repository lead time" in text


def test_of_a_merge_only_the_commits_that_it_brings_count(repository, load):
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("side", "2026-01-05 09:30", {"apps/shop/side.yaml": "1"}),
        change("c1", "2026-01-05 10:00", {SHOP: "2"}, parents=["c0"]),
        change("merge", "2026-01-05 10:30", {"apps/shop/side.yaml": "1"}, parents=["c1", "side"]),
    )
    history = load(one(releases(c["c0"], c["merge"])), repo=folder)
    assert lead_hours(history) == {c["side"]: 1.5, c["c1"]: 1}


def test_a_change_ships_once_whatever_goes_back(repository, load):
    folder, c = repository(*line("1", "2", "3", start="2026-01-05 08:00"))
    history = load(one(releases(c["c0"], c["c1"], c["c0"], c["c2"])), repo=folder)
    assert lead_hours(history) == {c["c1"]: 2, c["c2"]: 3}


@pytest.mark.parametrize("first", [0, 5])
def test_what_the_first_release_had_is_not_shipped_again(first, repository, load):
    """c2, back to c0, c3: of c1 and c2 it is not known when they came first."""
    folder, c = repository(*line("1", "2", "3", "4", start="2026-01-05 08:00"))
    history = load(one(releases(c["c2"], c["c0"], c["c3"], first=first)), repo=folder)
    assert lead_hours(history) == {c["c3"]: 1}
    assert load(one(releases(c["c2"], c["c0"], c["c2"], first=first)), repo=folder).changes.empty


def test_a_change_of_a_failed_sync_ships_with_the_next_one(repository, load):
    folder, c = repository(*line("1", "2", "3", start="2026-01-05 08:00"))
    state = operation("Failed", "2026-01-05 10:30", "2026-01-05 10:31", c["c1"])
    history = load(
        application("shop-prod", releases(c["c0"], c["c2"]), operation=state), repo=folder
    )
    assert lead_hours(history) == {c["c1"]: 2, c["c2"]: 1}
    assert history.deployments["status"].tolist() == ["Synced", "Failed", "Synced"]
    assert measured(history)[RECOVERY]["value"] == 29


def test_tags_are_peeled(repository, load):
    folder, c = repository(*line("1", "2"))
    history = load(one(releases(c["c0"], tagged(folder, c["c1"]))), repo=folder)
    assert lead_hours(history) == {c["c1"]: 1}
    assert history.deployments["commit_sha"].tolist() == [c["c0"], c["c1"]]


def hydrated(*trailers):
    return "Bump shop\n\n" + "\n".join(trailers) + "\n"


@pytest.mark.parametrize(
    ("trailers", "hours"),
    [
        (
            [
                "Argocd-reference-commit-sha: " + "a" * 40,
                "Argocd-reference-commit-date: 2026-01-05T06:00:00Z",
            ],
            5,
        ),
        (
            [
                "Argocd-reference-commit-sha: " + "a" * 40,
                "Argocd-reference-commit-date: 2026-01-05T08:00:00+02:00",
            ],
            5,
        ),
        (["Argocd-reference-commit-date: 2026-01-05T06:00:00Z"], 1),
        (
            ["Argocd-reference-commit-sha: " + "a" * 40, "Argocd-reference-commit-date: yesterday"],
            1,
        ),
    ],
)
def test_the_clock_of_a_hydrated_commit_starts_at_the_code_commit(
    trailers, hours, repository, load
):
    folder, c = repository(
        *line("1"), change("c1", "2026-01-05 10:00", {SHOP: "2"}, hydrated(*trailers))
    )
    assert lead_hours(load(one(releases(c["c0"], c["c1"])), repo=folder)) == {c["c1"]: hours}


def test_every_revision_that_cannot_be_dated_has_a_reason(repository, load):
    folder, c = repository(*line("1"))
    digests = ["sha256:" + digit * 64 for digit in "12"]
    charts = [
        entry(number, f"2026-01-05 1{number}:00", f"1.{number}.0", source=chart())
        for number in range(3)
    ]
    images = [
        entry(number, f"2026-01-05 1{number}:00", digest, source=oci())
        for number, digest in enumerate(digests)
    ]
    several = [chart(), source()]
    both = [
        multi_entry(number, f"2026-01-05 1{number}:00", [version, c["c0"]], several)
        for number, version in enumerate(["1.0.0", "1.1.0"])
    ]
    applications = [
        application("redis-prod", charts, spec=chart()),
        application("image-prod", images, spec=oci()),
        application("shop-prod", releases(c["c0"], D)),
        application("cart-prod", both, sources=several),
        application("web-prod", releases(A, A, every=60), spec=source()),
    ]
    applications[4]["status"]["history"][1]["source"] = source(kustomize={"images": ["shop:2"]})
    assert load(*applications[:3], repo=folder).undated == {
        "chart version": 2,
        "digest": 1,
        "not in the clone": 1,
    }
    assert load(*applications[3:], repo=folder).undated == {
        "chart version": 1,
        "the revision is the same, the parameters are not": 1,
    }
    assert load(applications[2]).undated == {"no repository given (--repo)": 1}


def test_a_change_behind_a_revision_that_is_not_in_the_clone_is_dated_or_has_a_reason(
    repository, load
):
    """Between c0 and c1 an unknown commit was deployed: what it contained is not known."""
    folder, c = repository(*line("1", "2"))
    history = load(one(releases(c["c0"], D, c["c1"])), repo=folder)
    assert len(history.changes) + sum(history.undated.values()) == 2


def test_a_release_that_brings_nothing_to_the_source_path_has_a_reason(repository, load):
    folder, c = repository(*line("1", "2"), change("other", "2026-01-05 09:30", {OTHER: "2"}))
    history = load(one(releases(c["c0"], c["c1"], c["other"], c["c0"])), repo=folder)
    assert history.undated == {"none touches the source path": 1}
    text = report_on(history)
    assert "Revisions without a lead time: 1 (none touches the source path)" in text


def waiting(history):
    """The commits that production has not had yet."""
    return sorted(history.changes.loc[history.changes["deployed"].isna(), "commit_sha"])


def test_what_another_environment_has_before_production_waits_to_be_shipped(repository, load):
    """Of five commits dev has had all, one elsewhere left out; production is at the second."""
    folder, c = repository(
        *line("1", "2", "3", "4", "5"), change("other", "2026-01-05 09:55", {OTHER: "2"})
    )
    dev = application(
        "shop-dev", releases(c["c0"], c["c2"], c["other"]), created="2026-01-01 00:00"
    )
    history = load(one(releases(c["c0"], c["c1"])), dev, repo=folder)
    assert waiting(history) == sorted([c["c2"], c["c3"], c["c4"]])
    row = measured(history)[LEAD]
    assert (row["n"], row["open"]) == (1, 3)
    assert "Changes not yet shipped:        3" in report_on(history)


def test_what_only_a_failed_sync_had_waits_to_be_shipped(repository, load):
    folder, c = repository(*line("1", "2", "3"))
    failed = operation("Failed", "2026-01-06 10:00", "2026-01-06 10:01", c["c2"])
    production = application("shop-prod", releases(c["c0"], c["c1"], c["c0"]), operation=failed)
    assert waiting(load(production, repo=folder)) == [c["c2"]]


def test_two_applications_of_one_environment_keep_what_production_waits_for(repository, load):
    """`shop-dev` and `shop-test` are both in dev, so their rows bear full names."""
    folder, c = repository(*line("1", "2", "3"))
    history = load(
        one(releases(c["c0"], c["c1"])),
        application("shop-dev", releases(c["c0"], c["c2"])),
        application("shop-test", releases(c["c0"])),
        repo=folder,
    )
    assert sorted(history.coverage["application"]) == [
        "argocd/shop-dev",
        "argocd/shop-test",
        "shop",
    ]
    assert waiting(history) == [c["c2"]]


def test_what_waits_for_production_is_of_its_own_namespace_where_a_name_occurs_twice(
    repository, load
):
    folder, c = repository(*line("1", "2", "3"))
    made = [
        application(name, releases(c["c0"], c[newest]), namespace=namespace)
        for namespace, name, newest in (
            ("a", "shop-prod", "c1"),
            ("b", "shop-prod", "c1"),
            ("b", "shop-dev", "c2"),
        )
    ]
    changes = load(*made, repo=folder).changes
    assert changes.loc[changes["deployed"].isna(), "application"].tolist() == ["b/shop-prod"]


def test_what_production_went_back_from_or_had_in_a_gap_does_not_wait(repository, load):
    folder, c = repository(*line("1", "2", "3", "4"))
    dev = application("shop-dev", releases(c["c0"], c["c2"]))
    assert waiting(load(one(releases(c["c2"], c["c0"])), dev, repo=folder)) == []
    gap = [
        *releases(c["c0"], c["c1"]),
        *releases(c["c2"], c["c1"], first=7, start="2026-01-06 10:00"),
    ]
    assert waiting(load(one(gap), dev, repo=folder)) == []


def test_nothing_waits_for_the_production_of_another_application_or_without_a_clone(
    repository, load
):
    folder, c = repository(*line("1", "2", "3"))
    others = [application(name, releases(c["c0"], c["c2"])) for name in ("cart-dev", "shop-lab")]
    assert waiting(load(one(releases(c["c0"], c["c1"])), *others, repo=folder)) == []
    assert (
        waiting(
            load(
                one(releases(c["c0"], c["c1"])), application("shop-dev", releases(c["c0"], c["c2"]))
            )
        )
        == []
    )


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
    assert lead_hours(history) == {c["c1"]: 1.5, c["c2"]: 1}


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
    names = [{"name": "licence", "path": "$values/shop/licence"}]
    several = [
        chart(
            "1.0.0",
            helm={"valueFiles": ["values.yaml", "$values/shop/prod.yaml"], "fileParameters": names},
        ),
        {
            "repoURL": "https://git.example.org/values.git",
            "targetRevision": "main",
            "ref": "values",
        },
    ]
    entries = [
        multi_entry(number, f"2026-01-05 {10 + number}:00", ["1.0.0", c[name]], several)
        for number, name in enumerate(("c0", "dev", "c2", "file"))
    ]
    history = load(application("shop-prod", entries, sources=several), repo=folder)
    assert sorted(history.changes["commit_sha"]) == sorted([c["c1"], c["c2"], c["file"]])
    several[0]["helm"] = {"valueFiles": ["$values/shop/*/more/prod.yaml", "$values/shop/prod.yaml"]}
    for entry_ in entries:
        entry_["sources"] = several
    history = load(application("shop-prod", entries, sources=several), repo=folder)
    assert sorted(history.changes["commit_sha"]) == sorted(
        c[name] for name in ("c1", "dev", "c2", "glob", "file")
    )


def test_value_files_as_they_were_before_are_a_rollback(repository, load):
    folder, c = repository(
        *(
            change(f"c{number}", f"2026-01-05 0{number}:00", {"shop/prod.yaml": text})
            for number, text in enumerate("121")
        )
    )
    several = [
        chart("1.0.0", helm={"valueFiles": ["$values/shop/prod.yaml"]}),
        {
            "repoURL": "https://git.example.org/values.git",
            "targetRevision": "main",
            "ref": "values",
        },
    ]
    entries = [
        multi_entry(number, f"2026-01-05 {10 + number}:00", ["1.0.0", c[f"c{number}"]], several)
        for number in range(3)
    ]
    assert moves(load(application("shop-prod", entries, sources=several), repo=folder)) == [
        (c["c1"], c["c2"])
    ]


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
    assert counts[0] == counts[1] <= 4


# ---- Coverage


def test_coverage_runs_from_the_creation_to_the_newest_time_of_the_file(load):
    row = load(one(releases(A, B))).coverage.loc[0]
    assert (row["from"], row["to"]) == (
        pd.Timestamp("2026-01-01", tz="UTC"),
        pd.Timestamp("2026-01-11", tz="UTC"),
    )
    assert not row["truncated"]


def test_the_first_entry_of_a_truncated_history_only_marks_its_beginning(load):
    shop = application(
        "shop-prod",
        releases(A, B, C, first=7),
        created="2020-01-01 00:00",
        reconciled="2026-01-15 10:00",
    )
    history = load(shop)
    row = history.coverage.loc[0]
    assert row["truncated"]
    assert row["from"] == pd.Timestamp("2026-01-05 10:00", tz="UTC")
    assert (row["syncs"], row["deployments"]) == (3, 2)
    assert deployments(history) == [ok(B), ok(C)]
    assert measured(history)[FREQUENCY]["value"] == pytest.approx(2 / 10)


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


def test_over_a_gap_between_snapshots_nothing_is_covered(write):
    """Entries 0 and 1, then 7 and 8. The gap makes A no rollback and B no failure."""
    files = snapshots((0, [A, B], 5), (7, [A, C], 20))
    for order in (files, files[::-1]):
        history = module.load_argocd(write(*order))
        check_history(history)
        rows = history.coverage
        assert rows["truncated"].tolist() == [False, True]
        assert [str(time)[:13] for edge in ("from", "to") for time in rows[edge]] == [
            "2026-01-01 00",
            "2026-01-20 10",
            "2026-01-06 10",
            "2026-01-21 10",
        ]
        assert (rows["syncs"].tolist(), rows["deployments"].tolist()) == ([2, 2], [2, 1])
        assert deployments(history) == [ok(A), ok(B), ok(C)]
        assert moves(history) == []
        assert measured(history)[FREQUENCY]["value"] == pytest.approx(3 / (5 + 10 / 24 + 1))
        text = report_on(history)
        assert text.count("argocd/shop-prod") == 2


def test_a_failure_before_a_gap_is_not_known_to_be_recovered(write):
    """C failed on the 6th; what the release of the 20th has to do with it nobody knows. Without a
    gap it is over with A, which went back beyond B."""
    failed = operation("Failed", "2026-01-06 08:00", "2026-01-06 08:01", C)
    apart = module.load_argocd(write(*snapshots((0, [A, B], 5), (7, [A, D], 20), operation=failed)))
    joined = module.load_argocd(
        write(*snapshots((0, [A, B], 5), (2, [A, D], 20), operation=failed))
    )
    assert deployments(apart) == [ok(A), ok(B), bad(C), ok(D)]
    assert (measured(apart)[RECOVERY]["n"], measured(apart)[RECOVERY]["open"]) == (0, 1)
    assert (measured(joined)[RECOVERY]["n"], measured(joined)[RECOVERY]["open"]) == (2, 0)
    again = application(
        "shop-prod", releases(A, start="2026-01-20 10:00"), uid="second", created="2026-01-20 09:00"
    )
    first = snapshots((0, [A, B], 5), operation=failed)[0]
    first[0]["metadata"]["uid"] = "first"
    remade = module.load_argocd(write(first, [again]))
    assert (measured(remade)[RECOVERY]["n"], measured(remade)[RECOVERY]["open"]) == (0, 1)


def test_a_release_that_goes_back_from_where_the_history_goes_on_is_its_rollback(write):
    """C, entry 7, may have changed nothing, but was rolled back an hour later: a failure and its
    rollback. What it is rolled back to is older for what is known of before the gap."""
    history = module.load_argocd(write(*snapshots((0, [A, B], 5), (7, [C, A, D], 20))))
    check_history(history)
    assert deployments(history) == [ok(A), ok(B), bad(C), ok(D)]
    assert moves(history) == [(C, A)]
    assert history.coverage["deployments"].tolist() == [2, 2]


def test_going_back_over_a_gap_is_a_deployment_of_which_no_more_is_known(repository, write):
    """c1 was deployed before the gap, its revert after it: how long it was bad, and whether it was
    all the time, nobody knows."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {SHOP: "1"}),
        change("c1", "2026-01-05 09:10", {SHOP: "2"}),
        change("c2", "2026-01-20 09:20", {"apps/shop/more.yaml": "x"}),
        change("c3", "2026-01-20 09:30", {SHOP: "1"}, "Revert\n\nThis reverts commit {c1}.\n"),
    )
    history = module.load_argocd(
        write(*snapshots((0, [c["c0"], c["c1"]], 5), (7, [c["c2"], c["c3"]], 20))), folder
    )
    check_history(history)
    assert deployments(history) == [ok(c["c0"]), ok(c["c1"]), ok(c["c3"])]
    assert moves(history) == []


def test_a_release_with_which_the_history_goes_on_counts_if_it_was_seen_degraded(load):
    entries = releases(B, first=7)
    history = load(
        application("shop-prod", entries, health="Degraded", reconciled="2026-01-05 12:00")
    )
    assert deployments(history) == [bad(B)]


def test_a_flap_with_which_the_history_goes_on_leaves_what_it_came_back_to(load):
    """B and A within a minute, then C: A is where the history goes on, C the one deployment."""
    times = [("2026-01-05 10:00:00", B), ("2026-01-05 10:00:20", A), ("2026-01-05 12:00", C)]
    late = [entry(7 + number, time, commit, took=0) for number, (time, commit) in enumerate(times)]
    history = load(one([entry(0, "2026-01-02 10:00", A), *late]))
    assert deployments(history) == [ok(A), ok(C)]
    assert history.coverage["to"].tolist() == [
        pd.Timestamp(f"2026-01-{day}", tz="UTC") for day in ("02 10:00", "11")
    ]
    assert history.coverage["from"].tolist() == [
        pd.Timestamp(f"2026-01-{day}", tz="UTC") for day in ("01", "05 10:00")
    ]
    assert history.coverage[["syncs", "deployments"]].to_numpy().tolist() == [[1, 1], [3, 1]]


def test_the_creation_is_known_if_one_snapshot_tells_it(write):
    told = application("shop-prod", releases(A), created="2026-01-01 00:00")
    silent = application("shop-prod", releases(A, B))
    for files in ([[told], [silent]], [[silent], [told]]):
        assert module.load_argocd(write(*files)).coverage["from"].tolist() == [
            pd.Timestamp("2026-01-01", tz="UTC")
        ]


def test_without_an_application_in_production_there_is_no_data_instead_of_zero(load):
    history = load(application("shop-dev", releases(A, B)), application("web", releases(A)))
    metrics = module.calculate_dora_metrics(history)
    assert all(math.isnan(row["value"]) for row in measured(history).values())
    assert math.isnan(metrics["production_deployment_frequency"])
    document = json.dumps(module.summary_document(measure(history), None, None), allow_nan=False)
    assert json.loads(document)["quick_check"]["overall"] is None
    assert re.search("Deployment frequency: +no data", report_on(history))


def test_changes_that_came_in_a_gap_have_no_lead_time(repository, write):
    folder, c = repository(*line("1", "2", "3", "4", start="2026-01-05 08:00"))
    files = snapshots((0, [c["c0"], c["c1"]], 5), (7, [c["c2"], c["c3"]], 20))
    history = module.load_argocd(write(*files), folder)
    assert sorted(history.changes["commit_sha"]) == sorted([c["c1"], c["c3"]])
    assert history.undated == {"it came in a gap of the history": 1}


def test_a_rollback_of_the_first_known_release_of_a_truncated_history_keeps_the_tables_sound(
    repository, load
):
    folder, c = repository(*line("1", "2"))
    history = load(one(releases(c["c1"], c["c0"], first=5)), repo=folder)
    assert len(history.rollbacks) <= 1


def test_rates_are_over_what_each_history_covers(load):
    """a: two in ten days; b: three in five days; in all 0.2 + 0.6 = 0.8 a day."""
    history = load(
        application(
            "a-prod", releases(A, B), created="2026-01-01 00:00", reconciled="2026-01-11 00:00"
        ),
        application(
            "b-prod", releases(A, B, C, start="2026-01-07 10:00"), created="2026-01-06 00:00"
        ),
    )
    assert measured(history, "a")[FREQUENCY]["value"] == pytest.approx(0.2)
    assert measured(history, "b")[FREQUENCY]["value"] == pytest.approx(0.6)
    assert measured(history)[FREQUENCY]["value"] == pytest.approx(0.8)
    metrics = module.calculate_dora_metrics(history)
    assert metrics["production_deployment_frequency"] == pytest.approx(0.8)


def test_an_application_without_history_is_covered_without_a_count(load, write):
    history = load(
        application("shop-prod", releases(A)), application("new-prod", created="2026-01-02 00:00")
    )
    row = history.coverage.set_index("application").loc["new"]
    assert (row["syncs"], row["deployments"], row["environment"]) == (0, 0, "production")


def test_a_file_without_any_time_does_not_stretch_the_window(write):
    history = module.load_argocd(
        write([application("shop-prod", releases(A))], [application("new-prod")])
    )
    check_history(history)
    assert history.window.start >= pd.Timestamp("2026-01-01", tz="UTC")


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


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    message = error_of([tmp_path / "nowhere.json"])
    assert "nowhere.json" in message
    assert "cannot read" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deployedAt", "yesterday"),
        ("deployedAt", None),
        ("deployedAt", 17),
        ("deployedAt", "2026-13-01T00:00:00Z"),
        ("deployedAt", "2026-01-01T00:00:00"),
        ("deployedAt", "0001-01-01T00:00:00Z"),
        ("deployStartedAt", "soon"),
        ("id", "one"),
        ("id", 10**30),
        ("id", 1.5),
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
    "time", ["2026-01-05T10:00:00+0000", "2026-01-05", "20260105T100000Z", "2026-W02-1T10:00:00Z"]
)
def test_a_time_that_only_some_versions_of_python_read_is_wrong_for_all(time, write):
    entries = releases(A)
    entries[0]["deployedAt"] = time
    assert time in error_of(write([application("shop-prod", entries)]))


BEFORE_1970 = "1970-01-01T00:00:00+05:00"


@pytest.mark.parametrize("key", ["deployedAt", "deployStartedAt"])
def test_an_entry_of_1969_by_its_offset_is_an_error_that_names_it(key, write):
    entries = releases(A, B)
    entries[1][key] = BEFORE_1970
    message = error_of(write([application("shop-prod", entries)]))
    for part in ("shop-prod", "entry 1", key, BEFORE_1970):
        assert part in message


@pytest.mark.parametrize(
    "path",
    [
        ("metadata", "creationTimestamp"),
        ("status", "reconciledAt"),
        ("status", "operationState", "startedAt"),
        ("status", "operationState", "finishedAt"),
    ],
    ids=lambda path: path[-1],
)
def test_a_time_of_1969_elsewhere_is_an_error_that_names_it(path, write):
    state = operation("Failed", "2026-01-06 10:00", "2026-01-06 10:02", C)
    shop = application(
        "shop-prod",
        releases(A, B),
        operation=state,
        created="2026-01-01 00:00",
        reconciled="2026-01-11 00:00",
    )
    put(shop, path, BEFORE_1970)
    message = error_of(write([shop]))
    for part in ("shop-prod", path[-1], BEFORE_1970):
        assert part in message


@pytest.mark.parametrize(
    ("key", "value", "kind"), [("status", "Synced", "an object"), ("history", {"0": {}}, "a list")]
)
def test_a_history_of_another_kind_is_an_error_not_an_empty_one(key, value, kind, write):
    document = application("cart-prod", releases(A))
    (document if key == "status" else document["status"])[key] = value
    message = error_of(write([application("shop-prod", releases(A)), document]))
    assert f"cart-prod: {key} is not {kind}" in message


def test_an_entry_that_is_no_object_is_an_error_that_names_it(write):
    message = error_of(write([application("shop-prod", [*releases(A), "surprise"])]))
    assert "entry 1" in message
    assert "surprise" in message


def test_a_repository_that_is_none_is_an_error(write, tmp_path):
    assert "--repo" in error_of(
        write([application("shop-prod", releases(A))]), tmp_path / "nowhere"
    )


@pytest.mark.parametrize("depth", [50, 450, 900, 3000, 100_000])
@pytest.mark.parametrize(
    "place", ["list", "open list", "items", "source", "revisions", "id", "deployedAt", "label"]
)
def test_deep_values_are_read_or_refused(depth, place, write):
    deep = "[" * depth + "]" * depth
    shop = application("shop-prod", releases(A, B), labels={"x": "y"})
    text = json.dumps(shop)
    if place == "list":
        text = "[" * depth + text + "]" * depth
    elif place == "open list":
        text = "[" * depth
    elif place == "items":
        text = '{"items": [' * depth + text + "]}" * depth
    elif place == "source":
        text = text.replace('"targetRevision": "main"', '"targetRevision": ' + deep)
    elif place == "revisions":
        text = text.replace(f'"revision": "{A}"', '"revisions": ' + deep)
    elif place == "id":
        text = text.replace('"id": 1', '"id": ' + deep)
    elif place == "deployedAt":
        text = text.replace('"deployedAt": "2026-01-05T11:00:00Z"', '"deployedAt": ' + deep)
    else:
        text = text.replace('"x": "y"', '"x": ' + deep)
    with contextlib.suppress(GitOpsError):
        check_history(module.load_argocd(write(text)))


@pytest.mark.parametrize(
    "digits", [400, *(pytest.param(many, marks=pytest.mark.slow) for many in (30, 5000, 100_000))]
)
def test_huge_numbers_are_read_or_refused(digits, write):
    text = json.dumps([application("shop-prod", releases(A, B))])
    for old in (
        '"id": 1',
        f'"revision": "{A}"',
        '"deployedAt": "2026-01-05T11:00:00Z"',
        '"targetRevision": "main"',
    ):
        key = old.split(":")[0]
        for number in (
            "9" * digits,
            "-" + "9" * digits,
            "1e" + "9" * min(digits, 300),
            "NaN",
            "-Infinity",
        ):
            with contextlib.suppress(GitOpsError):
                check_history(module.load_argocd(write(text.replace(old, f"{key}: {number}"))))


HOSTILE = "\x1b[31mred\x07\r\n\x00\u202e\u2066\u2028\x9b1A\ufeff"


def assert_harmless(text):
    odd = {
        character
        for character in text
        if unicodedata.category(character) in ("Cc", "Zl", "Zp") and character != "\n"
    }
    odd |= set(text) & set(
        "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
    )
    assert not odd, sorted(map(hex, map(ord, odd)))


def hostile_application():
    shop = source(HOSTILE, helm={"valueFiles": [HOSTILE]})
    return application(
        "shop" + HOSTILE,
        [
            entry(0, "2026-01-05 10:00", A + HOSTILE, source=shop),
            entry(1, "2026-01-05 11:00", HOSTILE, source=shop),
        ],
        labels={"environment": "prod" + HOSTILE},
        namespace=HOSTILE,
        operation=operation("Failed", "2026-01-06 10:00", "2026-01-06 10:01", HOSTILE, HOSTILE),
        health="Degraded",
        health_message=HOSTILE,
        reconciled="2026-01-07 00:00",
        destination={"name": HOSTILE, "namespace": HOSTILE},
        spec=shop,
    )


@pytest.mark.slow
def test_no_control_character_of_a_document_reaches_the_terminal(write, tmp_path, capsys):
    files = write([hostile_application()])
    for more in ([], ["--json"], ["--environment-pattern", "(s.*)"], ["--environment", "prod"]):
        status, out, err = called(
            capsys, "--argocd", *files, "--no-dashboard", "--output", tmp_path / "o", *more
        )
        assert (status, err) == (0, "")
        assert_harmless(out)


def test_no_control_character_of_a_broken_document_reaches_the_terminal(write, tmp_path, capsys):
    broken = hostile_application()
    broken["status"]["history"][1]["deployedAt"] = HOSTILE
    status, out, err = called(capsys, "--argocd", *write([broken]), "--output", tmp_path / "o")
    assert status == 2
    assert_harmless(out + err)
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_path_that_no_repository_can_have_crashes_nothing(repository, load):
    folder, c = repository(*line("1", "2"))
    for path in (
        "apps/\ud800",
        "../../etc",
        "/apps/shop",
        "apps/\nshop",
        "a:b",
        "-x",
        "apps//shop/",
        "",
        "~",
        "@{1}",
        "*",
    ):
        entries = releases(c["c0"], c["c1"], source=source(path))
        history = load(application("shop-prod", entries, spec=source(path)), repo=folder)
        assert len(history.deployments) == 2


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [
            rfc3339(0),
            rfc3339("2026-01-05 10:30"),
            "9999-12-31T23:59:59Z",
            "2026-01-05T10:00:00-23:59",
            A,
            B,
        ]
    ),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3)
    ),
    max_leaves=6,
)


def places(document, path=()):
    """The path of every value in a document."""
    yield path
    inner = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in inner:
        yield from places(value, (*path, key))


def put(document, path, value):
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


@pytest.mark.slow
@settings(max_examples=200)
@given(st.data())
def test_whatever_becomes_of_a_document_it_is_read_or_refused(tmp_path_factory, data):
    documents = [examples()[name] for name in ("plain", "several sources", "failed", "no status")]
    for _ in range(data.draw(st.integers(1, 4))):
        spots = [path for path in places(documents) if path]
        put(documents, data.draw(st.sampled_from(spots)), data.draw(JSON_VALUES))
    file = tmp_path_factory.mktemp("fuzz") / "argocd.json"
    file.write_text(json.dumps(documents))
    try:
        history = module.load_argocd([file])
    except GitOpsError as error:
        assert_harmless(str(error))
    else:
        check_history(history)
        assert_harmless(report_on(history))
        json.dumps(module.summary_document(measure(history), None, None), allow_nan=False)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0, 5, 59, 90, 300])), min_size=1, max_size=12
    ),
    st.integers(0, 2),
    st.booleans(),
)
def test_whatever_the_order_of_releases_the_tables_are_sound(
    tmp_path_factory, steps, first, degraded
):
    time, entries = seconds("2026-01-05 10:00"), []
    for number, (commit, gap) in enumerate(steps):
        time += gap
        entries.append(entry(first + number, time, revision(commit), took=min(gap, 20)))
    health = {"health": "Degraded", "reconciled": time + 100} if degraded else {}
    file = tmp_path_factory.mktemp("order") / "argocd.json"
    file.write_text(json.dumps(application("shop-prod", entries, **health)))
    history = module.load_argocd([file])
    check_history(history)
    assert (history.rollbacks["duration_min"] >= 0).all()
    assert history.coverage["deployments"].sum() == len(history.deployments)


@pytest.mark.slow
def test_thousands_of_applications_are_measured(write):
    shops = [
        application(
            f"shop{number}-prod", releases(*(revision(10 * number + step) for step in range(10)))
        )
        for number in range(2000)
    ]
    history = module.load_argocd(write(shops))
    check_history(history)
    assert (len(history.deployments), len(history.coverage)) == (20_000, 2000)
    assert len(measure(history).by_application) == 2000


# ---- A scenario fitted to the history


def fitted(history):
    """The scenario that is fitted to a history, which its own JSON gives back."""
    scenario = module.fit_scenario(history)[0]
    assert Scenario.from_json(scenario.to_json()) == scenario
    return scenario


def test_a_sync_of_weeks_is_fitted(load):
    """A sync that hangs for twenty days takes more than a million seconds."""
    slow = 20 * 86400
    entries = [*releases(A), entry(1, "2026-01-28 10:00", B, took=slow)]
    production = fitted(load(one(entries))).environments[-1]
    assert production.duration_sec[-1] == slow


def test_a_rollback_after_years_is_fitted(load):
    """A version that was in production for three years is taken back."""
    times = ["2022-01-05 10:00", "2022-02-05 10:00", "2025-02-05 10:00"]
    entries = [entry(number, time, [A, B, A][number]) for number, time in enumerate(times)]
    minutes = (seconds(times[2]) - seconds(times[1])) / 60
    assert fitted(load(application("shop-prod", entries))).rollback.duration_min[-1] == minutes


def test_a_long_name_of_an_environment_is_fitted(load):
    long = "canary-" + "x" * 300
    history = load(application("shop", releases(A, B), labels={"environment": long}))
    (environment,) = fitted(history).environments
    assert environment.name[:30] == long[:30]


def test_a_long_name_of_an_author_is_fitted(repository, load):
    author = "Ann " + "y" * 300
    folder, c = repository(*line("1", "2", "3"), author=author)
    history = load(one(releases(c["c0"], c["c1"], c["c2"])), repo=folder)
    (name,) = fitted(history).team.authors
    assert name[:30] == author[:30]


def test_a_long_reason_of_a_failure_is_fitted(load):
    reason = "no ready pod " * 50
    state = operation("Failed", "2026-01-06 10:00", "2026-01-06 10:02", C, reason)
    history = load(application("shop-prod", releases(A, B), operation=state))
    (told,) = fitted(history).failure_reasons
    assert told[:30] == reason[:30]


# ---- The command line


def test_the_program_measures_a_file(write, tmp_path, capsys):
    files = write([one(releases(A, B, A))])
    status, out, err = called(
        capsys, "--argocd", *files, "--output", tmp_path / "o", "--export", "--dpi", "20"
    )
    assert (status, err) == (0, "")
    for part in ("shop-prod", "name suffix", "Change fail rate", "ARGO CD"):
        assert part in out
    made = {path.name for path in (tmp_path / "o").iterdir()}
    assert made == {
        "gitops_dashboard.png",
        "commits.csv",
        "deployments.csv",
        "rollbacks.csv",
        "metrics.json",
    }


def test_the_program_reads_standard_input(monkeypatch, tmp_path, capsys):
    text = json.dumps([one(releases(A, B))]).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    status, out, err = called(
        capsys, "--argocd", "-", "--json", "--no-dashboard", "--output", tmp_path / "o"
    )
    assert (status, err) == (0, "")
    document = json.loads(out)
    row = document["coverage"][0]
    assert {
        "application",
        "environment",
        "rule",
        "from",
        "to",
        "truncated",
        "syncs",
        "deployments",
    } <= set(row)
    assert (row["application"], row["environment"], row["from"]) == (
        "shop",
        "production",
        "2026-01-01T00:00:00Z",
    )
    assert document["simulated"] is False
    assert document["production"][FAIL_RATE]["value"] is None
    assert document["production"][FREQUENCY]["value"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        (["--environment", "prod"], "production"),
        (["--environment-label", "tier"], "staging"),
        (["--environment-pattern", "^(.*)-dev"], "shop"),
        ([], "dev"),
    ],
)
def test_the_flags_say_how_to_tell_the_environment(flags, environment, write, tmp_path, capsys):
    files = write([application("shop-dev", releases(A), labels={"tier": "qa"})])
    arguments = ["--argocd", *files, "--json", "--no-dashboard", "--output", tmp_path / "o", *flags]
    status, out, _ = called(capsys, *arguments)
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
        (["--days", "5"], "--days"),
        (["--end", "2026-01-31"], "--end"),
        (["--alert-webhook", "http://localhost:1"], "--alert-webhook"),
        (["--config", "team.json"], "--config"),
        (["--repo", "nowhere"], "--repo"),
    ],
)
def test_options_that_make_no_sense_end_with_status_2(flags, part, write, tmp_path, capsys):
    (tmp_path / "team.json").write_text("{}")
    flags = [str(tmp_path / flag) if flag == "team.json" else flag for flag in flags]
    arguments = [
        "--argocd",
        *write([one(releases(A))]),
        "--no-dashboard",
        "--output",
        tmp_path / "o",
        *flags,
    ]
    status, _, err = called(capsys, *arguments)
    assert status == 2
    assert part in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--environment", "--environment-label", "--environment-pattern"])
def test_the_environment_flags_need_documents(flag, tmp_path, capsys):
    status, _, err = called(capsys, flag, "(x)", "--output", tmp_path / "o")
    assert status == 2
    assert "--argocd" in err


def test_a_bad_file_ends_with_status_2_after_one_line(write, tmp_path, capsys):
    status, _, err = called(capsys, "--argocd", *write("kind: List\n"), "--output", tmp_path / "o")
    assert status == 2
    assert "YAML" in err
    assert err.count("\n") == 1


def test_the_class_measures_what_its_method_loads(write, tmp_path, capsys):
    gitops = module.GitOpsAutomation(output_dir=tmp_path / "o")
    gitops.load_argocd_history(write([one(releases(A, B, A))]))
    metrics = gitops.calculate_dora_metrics()
    gitops.generate_report()
    assert (metrics["total_deployments"], metrics["total_rollbacks"]) == (2, 1)
    assert gitops.applications == ["shop"]
    assert gitops.document()["seed"] is None


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
    waiting = {name: [] for name in applications}
    good = {}
    for name in applications:  # the first release of each
        time += 500
        steps[name], good[name] = [(head, time)], head
        expected["deployments"].append((time - 30, name, head, "Healthy"))
    for _ in range(25):
        name = draw.choice(applications)
        for other in applications:
            for _ in range(draw.randrange(3)):
                waiting[other].append(commit(other))
        waiting[name].append(commit(name))
        time += draw.randrange(120, 3000)
        bad_ = draw.random() < 0.35
        steps[name].append((head, time))
        leads += [(time - made) / 3600 for _, made in waiting[name]]
        shipped, released, done = [one_[0] for one_ in waiting[name]], head, time
        waiting[name] = []
        expected["deployments"].append(
            (time - 30, name, released, "Degraded" if bad_ else "Healthy")
        )
        if not bad_:
            good[name] = released
            continue
        by_revert = draw.random() < 0.5
        if by_revert:
            target, made = commit(name, "Revert\n\nThis reverts commit {" + shipped[-1] + "}.")
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
    return sorted(
        zip(
            *(
                [int(time.timestamp()) for time in frame["timestamp"]],
                *(frame[column] for column in columns),
            )
        )
    )


@in_seeds
def test_a_history_written_as_documents_with_a_repository_comes_back(seed, repository, load):
    changes, steps, expected, leads = made_up(seed)
    folder, sha = repository(*changes)
    documents = [
        application(
            f"{name}-prod",
            [
                entry(number, time, sha[commit], source=source(f"apps/{name}"))
                for number, (commit, time) in enumerate(made)
            ],
            spec=source(f"apps/{name}"),
            created="2026-01-05 00:00",
            reconciled=max(time for all_ in steps.values() for _, time in all_),
        )
        for name, made in steps.items()
    ]
    history = load(*documents, repo=folder)
    assert by_rows(history.deployments, "application", "commit_sha", "health") == sorted(
        (time, name, sha[commit], health) for time, name, commit, health in expected["deployments"]
    )
    assert by_rows(history.rollbacks, "application", "from_commit", "to_commit") == sorted(
        (time, name, sha[old], sha[new]) for time, name, old, new, _ in expected["rollbacks"]
    )
    minutes = sorted(row[4] for row in expected["rollbacks"])
    assert sorted(history.rollbacks["duration_min"]) == pytest.approx(minutes)
    of, total, failed = measured(history), len(expected["deployments"]), len(minutes)
    assert sorted(lead_hours(history).values()) == pytest.approx(sorted(leads))
    assert of[LEAD]["n"] == len(leads)
    assert of[LEAD]["value"] == pytest.approx(pd.Series(leads).median())
    assert of[FAIL_RATE]["value"] == pytest.approx(100 * failed / total)
    assert of[RECOVERY]["value"] == pytest.approx(pd.Series(minutes).median(), nan_ok=True)
    assert of[REWORK]["value"] == pytest.approx(100 * failed / (total + failed))
    days = (
        max(time for all_ in steps.values() for _, time in all_) - seconds("2026-01-05 00:00")
    ) / 86400
    assert of[FREQUENCY]["value"] == pytest.approx(total / days)
