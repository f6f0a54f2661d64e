"""Argo CD's history: every document shape, each rule of the reader, hostile input, a round trip."""

import io
import json
import random

import jsonschema
import pandas as pd
import pytest
from argocd_documents import (
    CONFIG_MAP,
    REPOSITORY,
    SCHEMA_FILE,
    SHAPES,
    application,
    chart,
    child,
    entry,
    examples,
    multi_entry,
    operation,
    releases,
    revision,
    seconds,
    source,
)
from conftest import git
from plain_model import check_history

import gitops_automation as module
from gitops_automation import GitOpsError

A, B, C, D = (revision(number) for number in range(1, 5))
LETTERS = dict(A=A, B=B, C=C, D=D)


@pytest.fixture
def write(tmp_path):
    """A function that writes each argument, applications or a text, to a file; its paths."""

    def files(*contents):
        paths = []
        for content in contents:
            paths.append(tmp_path / f"argocd-{len(list(tmp_path.glob('argocd-*')))}.json")
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            paths[-1].write_bytes(text if isinstance(text, bytes) else text.encode())
        return paths

    return files


@pytest.fixture
def load_files(write):
    """A function that loads the history of some files, every invariant checked."""

    def history(*contents, **more):
        made = module.load_argocd(write(*contents), **more)
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
    pairs = zip(back["from_commit"], back["to_commit"])
    moves = sorted(f"{called_.get(bad, bad)}>{called_.get(good, good)}" for bad, good in pairs)
    return " ".join(made) + " | " * bool(moves) + " ".join(moves)


def minutes_of_failures(history):
    """How long each failed deployment lasted."""
    rows = history.deployments[history.deployments["health"] == "Degraded"]
    lasted = (rows["recovered"] - rows["timestamp"]).dt.total_seconds() - rows["duration_sec"]
    return (lasted / 60).tolist()


def lead_hours(history, names, environment="production"):
    """The hours of each change that an environment got, by its name; None while it waits."""
    called_, rows = {sha: name for name, sha in names.items()}, history.changes
    rows = rows[rows["environment"] == environment]
    hours = (rows["deployed"] - rows["committed"]).dt.total_seconds() / 3600
    return {
        called_[sha]: None if pd.isna(value) else value
        for sha, value in zip(rows["commit_sha"], hours)
    }


def coverage(history, *columns):
    """The rows of some columns of the coverage; of one column its values."""
    rows = history.coverage[list(columns)].astype(object).to_numpy().tolist()
    return [row[0] for row in rows] if len(columns) == 1 else rows


def utc(text):
    return pd.Timestamp(f"2026-01-{text}", tz="UTC")


# ---- A configuration repository

SHOP, OTHER = "apps/shop/app.yaml", "apps/other/app.yaml"
REVERT = "Revert\n\nThis reverts commit {%s}.\n"


def change(name, time, files, message="feat: a change", merges=None):
    """A commit of {path: content} on the main line; of `merges` that commit was the change."""
    return name, seconds(time), files, message, merges


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

    def make(*changes):
        folder = tmp_path / f"config{len(list(tmp_path.glob('config*')))}"
        folder.mkdir()
        git(folder, "init", "-q", "--template=")
        git(folder, "symbolic-ref", "HEAD", "refs/heads/main")
        shas, before = {}, ""
        for name, time, files, message, merges in changes:
            head = f"committer ann <a@example.org> {time} +0000"
            made = [(name, message.format(**shas), [], files)]
            if merges:  # the commit itself is on a branch, and a merge follows it
                made = [(merges, "fix: on a branch", [], files), (name, message, [merges], files)]
            for own, text, merged, content in made:
                stream = [f"commit refs/heads/{'side' if own == merges else 'main'}", "mark :1"]
                stream += [head, f"data {len(text)}", text]
                stream += [f"from {before}"] * bool(before)
                stream += [f"merge {shas[one]}" for one in merged]
                for path, text in content.items():
                    stream += [f"M 100644 inline {path}", f"data {len(text)}", text]
                stream += ["", "get-mark :1", ""]
                shas[own] = git(folder, "fast-import", "--force", "--quiet", text="\n".join(stream))
            before = shas[name]
        return folder, shas

    return make


# ---- The documents


def test_the_documents_of_these_tests_are_valid_under_the_official_schema():
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for name, document in examples().items():
        assert [error.message for error in validator.iter_errors(document)] == [], name
    assert list(validator.iter_errors({"metadata": {}, "spec": {"project": 1}}))


def assert_same(left, right):
    for name in (*module.COLUMNS, "changes", "coverage"):
        pd.testing.assert_frame_equal(getattr(left, name), getattr(right, name))
    assert left[3:6] == right[3:6]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_of_a_document_give_the_same_history(shape, load_files):
    documents = list(examples().values())
    expected = load_files(documents)
    assert len(expected.coverage) == len(documents) - 2  # an app of apps, one without a history
    assert_same(load_files(SHAPES[shape](documents)), expected)


def test_a_single_application_is_a_document_and_a_dash_is_standard_input(monkeypatch, load_files):
    expected = load_files([one(releases(A, B))])
    assert_same(load_files(one(releases(A, B))), expected)
    text = json.dumps(one(releases(A, B))).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert_same(module.load_argocd("-"), expected)


def test_snapshots_in_any_order_become_one_history(load_files, load):
    """Entries 0 to 2 and 2 to 4; a failed sync and a degraded release that only one has seen."""
    entries = releases(A, B, C, D, A)
    earlier, later = one(entries[:3], reconciled="2026-01-05 11:30"), one(entries[2:])
    whole = load(one(entries))
    for files in ([[earlier], [later]], [[later], [earlier]], [[earlier], [earlier], [later]]):
        assert story(load_files(*files)) == story(whole) == "A B C !D | D>A"
    failed = operation("Failed", "2026-01-05 11:30", "2026-01-05 11:31", C)
    files = (
        [one(releases(A, B), reconciled="2026-01-05 11:10", health="Degraded")],
        [one(releases(A, B), operation=failed, reconciled="2026-01-05 11:32", sync="OutOfSync")],
        [one(releases(A, B, D))],
    )
    for order in (files, files[::-1]):
        history = load_files(*order)
        assert story(history) == "A !B !C D"
        assert minutes_of_failures(history) == [60, 29]


def test_the_newest_snapshot_says_what_an_application_is(load_files):
    old = one(releases(A), reconciled="2026-01-05 10:30", labels={"env": "dev"})
    new = one(releases(A, B), labels={"env": "prod"})
    for files in ([[old], [new]], [[new], [old]]):
        assert coverage(load_files(*files), "environment", "rule") == [["production", "label env"]]


def test_what_is_not_measured_is_named_with_the_remedy(load):
    """An app of apps deploys applications alone. One that keeps no history is not quiet."""
    mixed = [child("cart-prod"), {"version": "v1", "kind": "ConfigMap", "name": "a"}]
    history = load(
        one(releases(A)),
        application("apps-prod", releases(A, B, C), resources=[child("shop-prod")]),
        application("team-prod", releases(A, B), resources=mixed),
        application("mute-prod", [], limit=0, operation=operation("Succeeded", 9e8, 9e8 + 9)),
    )
    assert coverage(history, "application") == ["shop", "team"]
    notes = "\n".join(history.notes)
    assert "App of apps, not counted: argocd/apps-prod" in notes
    assert "revisionHistoryLimit: 0; set it to 10 to measure them): argocd/mute-prod" in notes


# ---- Syncs


def test_what_runs_already_is_no_deployment_and_other_parameters_are_one(load):
    """The branch that leads to a revision is no parameter, and a retry began with the first try."""
    entries = releases(A, A, A, B, B)
    entries[2]["source"] = source(kustomize={"images": ["shop:2"]})
    entries[4]["source"] = source(targetRevision="v1")
    history = load(one(entries))
    assert story(history) == "A A B"
    assert history.deployments["duration_sec"].tolist() == [30, 30, 30]
    retried = operation("Failed", "2026-01-05 09:59:30", "2026-01-05 09:59:50", A)
    assert story(load(one(entries, operation=retried))) == "A A B"
    del entries[0]["deployStartedAt"]
    assert load(one(entries)).deployments["duration_sec"].tolist() == [0, 30, 30]


def test_the_order_of_sources_is_no_change_and_a_chart_is_its_version(load):
    several = [source("charts/shop"), source("values", ref="values")]
    steps = [([A, B], several), ([B, A], several[::-1]), ([C, A], several[::-1])]
    entries = [
        multi_entry(number, f"2026-01-05 1{number}:00", revisions, sources)
        for number, (revisions, sources) in enumerate(steps)
    ]
    charts = [entry(n, f"2026-01-05 2{n}:00", f"1.{n}.0", source=chart()) for n in (0, 1)]
    history = load(
        application("shop-prod", entries, sources=several), application("redis-prod", charts)
    )
    assert story(history) == f"{A}+{B} {A}+{C} 1.0.0 1.1.0".replace(f"{A}+{B}", "+".join((A, B)))


def shop_with(phase, sync=None, commit=C, entries=None, **more):
    """A and B were synced on the 5th; on the 6th was another operation, of C."""
    state = operation(phase, "2026-01-06 10:00", "2026-01-06 10:02", commit, sync=sync)
    return application("shop-prod", entries or releases(A, B), operation=state, **more)


SOME = {"resources": [{"kind": "Service", "name": "a"}]}


@pytest.mark.parametrize(
    ("phase", "sync", "commit", "expected"),
    [
        ("Failed", None, C, "A B !C"),
        ("Error", {}, C, "A B !C"),
        ("Running", None, C, "A B"),
        ("Failed", {"dryRun": True}, C, "A B"),
        ("Failed", SOME, C, "A B"),
        ("Succeeded", SOME, C, "A B C"),  # a sync of a part leaves no entry
        ("Succeeded", SOME, B, "A B"),
        ("Succeeded", {**SOME, "autoHealAttemptsCount": 1}, C, "A B"),
        ("Succeeded", {"dryRun": True}, C, "A B"),
    ],
)
def test_the_last_operation_tells_what_left_no_entry(phase, sync, commit, expected, load):
    history = load(shop_with(phase, sync, commit))
    assert story(history) == expected
    if "!" in expected:
        row = history.deployments.iloc[-1].tolist()
        assert row[0] == utc("06 10:00")
        assert row[4:8] == ["Failed", "Degraded", 120, "objects failed to apply"]


def test_health_counts_if_it_was_seen_after_the_last_operation(load):
    """Where people sync, a sync of what ran puts a failed one right."""
    entries = [*releases(A), entry(1, "2026-01-06 10:02", B, took=120)]
    sick = dict(health="Degraded", health_message="no ready pod", entries=entries)
    for time, expected in (("06 11:00", "A !B"), ("05 11:30", "A B")):
        history = load(shop_with("Succeeded", None, B, reconciled=f"2026-01-{time}", **sick))
        assert story(history) == expected
        assert ("no ready pod" in history.deployments["failure_reason"].tolist()) == (
            "!" in expected
        )
    for automated, expected in ((False, "A B !C | C>B"), (True, "A B !C")):
        entries = [*releases(A, B), entry(2, "2026-01-06 11:00", B)]
        history = load(shop_with("Failed", entries=entries, automated=automated))
        assert story(history) == expected
        assert minutes_of_failures(history) == [58]


# ---- Gaps


def test_a_gap_is_counted_and_each_time_without_one_is_judged_alone(load_files):
    """B goes back to A over a gap of five entries. The first one after it only says what runs."""
    early = one(releases(A, B), reconciled="2026-01-05 12:00")
    late = one(releases(A, C, first=7, start="2026-01-07 10:00"))
    history = load_files([early], [late])
    assert story(history) == "A B C"
    assert coverage(history, "from", "to", "lost") == [[utc("07 10:00"), utc("10 23:00"), 5]]
    history = load_files([one(releases(A, B, C, first=4))])
    assert story(history) == "B C"
    assert coverage(history, "from", "lost") == [[utc("05 10:00"), 4]]
    assert coverage(load_files([one(releases(A, B))]), "from", "lost") == [[utc("01"), 0]]
    sick = dict(health="Degraded", reconciled="2026-01-05 12:00")
    assert story(load_files([application("shop-prod", releases(B, first=7), **sick)])) == "!B"


def test_an_application_that_was_made_anew_has_lost_nothing(load_files):
    """The numbers of its entries begin at 0 again, and its uid is another one."""
    old = one(releases(A, B, start="2026-01-03 10:00"), reconciled="2026-01-03 12:00", uid="1")
    for uid in "12":
        history = load_files([old], [one(releases(C, D), uid=uid)])
        assert story(history) == "A B C D"
        assert coverage(history, "to", "lost") == [[utc("10 23:00"), 0]]


# ---- Environments and names


@pytest.mark.parametrize(
    ("name", "environment", "shown"),
    [
        ("shop-production", "production", "shop"),
        ("shop.prd", "production", "shop"),
        ("prod-web-shop", "production", "web-shop"),
        ("shop-prod1", "production", "shop"),
        ("dev-to-prod", "production", "dev-to"),
        ("prod", "production", "prod"),
        ("Shop-Test", "test", "Shop"),
        ("shop-pre-prod", "preprod", "shop"),
        ("uat-prod-mirror", "unclassified", "uat-prod-mirror"),
        ("shop-nonprod", "unclassified", "shop-nonprod"),
        ("productpage", "unclassified", "productpage"),
    ],
)
def test_the_environment_is_a_whole_word_of_the_name(name, environment, shown, load):
    """Of two the one at the end; where neither is, the program asks instead of guessing."""
    rule = "none" if environment == "unclassified" else "name"
    history = load(application(name, releases(A)))
    assert coverage(history, "environment", "rule", "application") == [[environment, rule, shown]]
    told = f"environment of 1 application (argocd/{name})" in "\n".join(history.notes)
    assert told == (rule == "none")


@pytest.mark.parametrize(
    ("more", "environment", "rule"),
    [
        ({"labels": {"environment": "prod"}}, "production", "label environment"),
        ({"annotations": {"env": "Staging"}}, "staging", "label env"),
        ({"annotations": {module.KARGO: "shop:uat"}}, "uat", f"label {module.KARGO}"),
        ({"labels": {"environment": "canary", "env": "prod"}}, "canary", "label environment"),
        ({"spec": source("apps/shop/overlays/prod")}, "production", "source path"),
        ({"spec": source("a", helm={"valueFiles": ["values-qa.yaml"]})}, "qa", "source path"),
        ({"spec": source("dev/prod")}, "unclassified", "none"),
        ({"destination": {"name": "prod-1", "namespace": "dev"}}, "production", "destination name"),
        ({"destination": {"namespace": "shop-dev"}}, "dev", "destination namespace"),
    ],
)  # fmt: skip
def test_what_the_name_does_not_tell_labels_paths_and_destination_do(more, environment, rule, load):
    history = load(application("shop", releases(A), **more))
    assert coverage(history, "environment", "rule", "application") == [[environment, rule, "shop"]]


def test_a_label_says_more_than_a_name_and_a_template_says_most(load):
    labels = {"environment": "dev"}
    shop = application("shop-prod", releases(A), labels=labels, spec=source("x/stage/cart"))
    for template, expected in (
        (None, ["dev", "shop-prod"]),
        ("x/{environment}/{application}", ["stage", "cart"]),
    ):
        found = load(shop, template=template)
        assert coverage(found, "environment", "application") == [expected]


def at(name, path="apps/shop", cluster="in-cluster", **more):
    return application(name, releases(A), spec=source(path), destination={"name": cluster}, **more)


@pytest.mark.parametrize(
    "applications",
    [
        [at(f"shop-prod-{name}", f"apps/shop/prod-{name}") for name in ("eu", "us")],
        [at(f"shop-prod-{name}", "apps/shop/overlays/prod/" + name) for name in ("eu", "us")],
        [at(f"shop-prod-{name}", cluster=f"prod-{name}") for name in ("eu", "us")],
        [at(f"eu{name}-prod-shop", cluster=f"eu{name}-prod") for name in "12"],
        [at(f"shop-{name}", cluster=name, labels={"env": "prod"}) for name in ("eu", "us")],
        [at("shop-prod", uid=uid) for uid in "12"],  # each cluster has an Argo CD of its own
    ],
)
def test_several_clusters_are_one_application_and_a_release_counts_once(applications, load):
    history = load(*applications)
    assert coverage(history, "application", "environment") == [["shop", "production"]]
    assert len(set(history.coverage["origin"][0].split(", "))) == len(applications)
    assert story(history) == "A"


def test_what_only_looks_like_a_cluster_stays_an_application_of_its_own(load):
    """Components of a product, and a cluster that has the name of its application."""
    names = ("shop-prod-web", "shop-prod-api")
    made = [at(name, f"apps/{name}") for name in names] + [at("cart-prod", cluster="cart")]
    history = load(*made)
    assert coverage(history, "application") == ["cart", "shop-api", "shop-web"]


def test_two_teams_applications_of_the_same_name_stay_two(load):
    shops = [at(f"shop-{stage}", namespace=name) for name in "ab" for stage in ("dev", "prod")]
    rows = coverage(load(*shops), "application", "environment")
    assert rows == [[f"{name}/shop", stage] for name in "ab" for stage in ("dev", "production")]
    apart = [at("shop-dev", namespace="a"), at("shop-prod", namespace="b")]
    assert set(coverage(load(*apart), "application")) == {"shop"}


@pytest.mark.parametrize(
    ("environments", "expected"),
    [
        (None, {"shop-x": "unclassified", "shop-qa": "qa", "cart-prod-eu": "production"}),
        ("qa,live=prod*", {"shop-x": "unclassified", "shop-qa": "qa", "cart-prod-eu": "live"}),
        ("test=*-qa,production=*-x", {"shop-x": "production", "shop-qa": "test"}),
        ("production=team-*", {"shop-qa": "production", "shop-x": "unclassified"}),
        ("qa,production=eu-*", {"shop-qa": "qa", "cart-prod-eu": "production"}),
    ],
)
def test_patterns_match_the_environment_the_full_name_or_the_destination(
    environments, expected, load
):
    made = [
        at("shop-x"),
        application("shop-qa", releases(A), destination={"namespace": "team-a"}),
        at("cart-prod-eu", "apps/cart/prod-eu", cluster="eu-1"),
    ]
    history = load(*made, environments=environments)
    rows = coverage(history, "origin", "environment")
    told = {origin.partition("/")[2]: environment for origin, environment in rows}
    assert {name: told.get(name, "unclassified") for name in expected} == expected
    with pytest.raises(GitOpsError, match="'nowhere-.*' takes in nothing"):
        load(*made, environments="qa,production=nowhere-*")


# ---- With a clone of the config repository

OVERLAY = "apps/shop/overlays/prod"
CONFIG = {
    f"{OVERLAY}/kustomization.yaml": "resources:\n- ../../base # its base\n- deployment.yaml\n",
    "apps/shop/base/kustomization.yml": "bases: [../../../shared/labels]\n",
    "shared/labels/labels.yaml": "1",
    "charts/shop/Chart.yaml": "1",
    "values/shop.yaml": "1",
    "shared/config/a": "1",
}
"""A configuration repository: an overlay on a base on a base, and a chart with values."""
CHART = source("charts/shop", helm={"valueFiles": ["values.yaml", "../../values/shop.yaml"]})
GLOB = source(
    "charts", helm={"valueFiles": ["../values/*.yaml"], "fileParameters": [{"path": "x"}]}
)
MARKED = dict(annotations={module.MANIFEST_PATHS: ".;/shared/config;../more"})


@pytest.mark.parametrize(
    ("moved", "spec", "more", "expected"),
    [
        (f"{OVERLAY}/patch.yaml", source(OVERLAY), {}, {"c1": 0.5}),
        ("apps/shop/base/deployment.yaml", source(OVERLAY), {}, {}),
        ("shared/labels/labels.yaml", source(OVERLAY), {}, {}),
        ("apps/shop/overlays/dev/patch.yaml", source(OVERLAY), {}, None),
        ("shared/config/a", source(OVERLAY), {}, None),
        ("shared/config/a", source(OVERLAY), MARKED, {}),
        ("apps/shop/overlays/more/a", source(OVERLAY), MARKED, {}),
        ("charts/shop/Chart.yaml", CHART, {}, {"c1": 0.5}),
        ("values/shop.yaml", CHART, {}, {"c1": 0.5}),
        ("values/cart.yaml", CHART, {}, None),
        ("values/cart.yaml", GLOB, {}, {"c1": 0.5}),
        ("charts/x", GLOB, {}, {"c1": 0.5}),
    ],
)
def test_a_sync_at_a_newer_head_counts_only_if_something_at_its_paths_moved(
    moved, spec, more, expected, repository, load
):
    """What moved at a base is deployed, and is no change of its own. None: nothing is deployed."""
    folder, c = repository(
        change("c0", "2026-01-05 09:00", CONFIG), change("c1", "2026-01-05 10:30", {moved: "2"})
    )
    entries = releases(c["c0"], c["c1"], source=spec)
    history = load(one(entries, spec=spec, **more), repo=folder)
    assert story(history, c) == ("c0" if expected is None else "c0 c1")
    assert lead_hours(history, c) == (expected or {})
    assert story(load(one(entries, spec=spec, **more)), c) == "c0 c1"


def test_several_sources_are_dated_each_by_its_own_revision_at_its_path(repository, load):
    folder, c = repository(
        change("c0", "2026-01-05 09:00", {"shop/prod.yaml": "1", "shop/dev.yaml": "1"}),
        change("c1", "2026-01-05 09:30", {"shop/prod.yaml": "2"}),
        change("dev", "2026-01-05 09:45", {"shop/dev.yaml": "2"}),
        change("c2", "2026-01-05 10:30", {"shop/prod.yaml": "1"}),
    )
    values = {"repoURL": REPOSITORY, "targetRevision": "main", "ref": "values"}
    several = [chart("1.0.0", helm={"valueFiles": ["a.yaml", "$values/shop/prod.yaml"]}), values]
    entries = [
        multi_entry(number, f"2026-01-05 {10 + number}:00", ["1.0.0", c[name]], several)
        for number, name in enumerate(("c0", "dev", "c2"))
    ]
    history = load(application("shop-prod", entries, sources=several), repo=folder)
    assert story(history, c) == "c0 !dev | dev>c2"  # c2 has the values of c0
    assert lead_hours(history, c) == {"c1": 1.5, "c2": 1.5}


@pytest.mark.parametrize(
    ("commits", "released", "expected"),
    [
        ("1 2 1", "c0 c1 c2", "c0 !c1 | c1>c2"),  # the files as before, without saying so
        ("1 2 2x 1x~c1", "c0 c1 c2 c3", "c0 !c1 c2 | c1>c3"),  # a revert that keeps the rest
        ("1 2 1~c1 3", "c0 c3", "c0 c3"),  # a change and its revert in one release
        ("1 2 1~c1 2x~c2", "c0 c1 c3", "c0 c1 c3"),  # a revert that is reverted itself
    ],
)
def test_what_the_clone_shows_to_go_back_is_a_rollback(
    commits, released, expected, repository, load
):
    """Each commit sets two files, such as 2 and x; `~c1` reverts that one."""
    changes = []
    for number, text in enumerate(commits.split()):
        content, _, reverted = text.partition("~")
        files = {SHOP: content[0], "apps/shop/more.yaml": content[1:]}
        message = REVERT % reverted if reverted else "feat: a change"
        changes.append(change(f"c{number}", f"2026-01-05 09:{10 + number}", files, message))
    folder, c = repository(*changes)
    history = load(one(releases(*(c[name] for name in released.split()))), repo=folder)
    assert story(history, c) == expected


def test_a_change_has_the_lead_time_of_the_first_good_sync_in_each_environment(repository, load):
    """A merge brings the commit of its branch. What the first sync had was there before."""
    folder, c = repository(
        change("c0", "2026-01-05 08:00", {SHOP: "1"}),
        change("c1", "2026-01-05 09:00", {SHOP: "2"}),
        change("merge", "2026-01-05 10:30", {"apps/shop/side.yaml": "1"}, "Merge", merges="side"),
        change("other", "2026-01-05 10:40", {OTHER: "2"}),
        change("late", "2026-01-05 10:50", {SHOP: "3"}),
    )
    failed = operation("Failed", "2026-01-05 10:40", "2026-01-05 10:41", c["merge"])
    entries = releases(c["c0"], c["c1"], c["c0"], c["other"], every=1800)
    dev = application("shop-dev", releases(c["c1"], c["late"]))
    history = load(one(entries, operation=failed), dev, repo=folder)
    assert lead_hours(history, c) == {"c1": 1.5, "side": 1, "late": None}
    assert lead_hours(history, c, "dev") == {"side": 0.5, "late": 1 / 6}
    assert any(
        "Lead time: from a commit at an environment's own path" in one for one in history.notes
    )


def test_only_what_is_on_its_way_to_this_production_waits_for_it(repository, load):
    """So does what a failed sync had; not what production went back from."""
    folder, c = repository(*line("1", "2", "3", start="2026-01-04 09:00"))

    def waits(*applications):
        found = lead_hours(load(*applications, repo=folder), c)
        return [name for name, hours in found.items() if hours is None]

    behind, dev = releases(c["c0"], c["c1"]), application("shop-dev", releases(c["c0"], c["c2"]))
    failed = operation("Failed", "2026-01-06 10:00", "2026-01-06 10:01", c["c2"])
    assert waits(one(behind), dev) == ["c2"]
    assert waits(application("shop-prod", behind, operation=failed)) == ["c2"]
    assert waits(one(releases(c["c2"], c["c0"])), dev) == []
    assert waits(one(behind), application("cart-dev", releases(c["c0"], c["c2"]))) == []


def test_after_a_gap_a_commit_of_the_last_hour_is_a_deployment_and_older_ones_are_not(
    repository, load
):
    folder, c = repository(*line("1", "2", "3"))
    for name, start, expected in (("c1", "10:05", {"c1": 1 / 12}), ("c1", "11:30", {})):
        entries = releases(c[name], first=3, start=f"2026-01-05 {start}")
        history = load(application("shop-prod", entries), repo=folder)
        assert (story(history, c), lead_hours(history, c)) == (name * bool(expected), expected)


def test_an_annotated_tag_is_the_commit_that_it_names(repository, load):
    folder, c = repository(*line("1", "2"))
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    git(folder, *who, "tag", "-a", "-m", "one", "v1", c["c1"])
    tag = git(folder, "rev-parse", "refs/tags/v1")
    history = load(one(releases(c["c0"], tag, c["c1"])), repo=folder)
    assert (story(history, c), lead_hours(history, c)) == ("c0 c1", {"c1": 1})


def test_a_revision_or_a_path_that_the_clone_lacks_is_told_by_its_name(repository, load):
    folder, c = repository(*line("1", "2"))
    history = load(one(releases(c["c0"], D, c["c1"])), repo=folder)
    assert (story(history, {**c, "D": D}), lead_hours(history, c)) == ("c0 D c1", {"c1": 2})
    for paths, expected in (
        (("../../etc", "/apps/shop", "apps/\nshop", "apps//shop/", ""), "c0 c1"),
        (("a:b", "-x", "@{1}", "*"), "c0"),
    ):
        for path in paths:
            entries = releases(c["c0"], c["c1"], source=source(path))
            assert story(load(one(entries, spec=source(path)), repo=folder), c) == expected


@pytest.mark.parametrize("seed", range(6))
def test_the_changes_of_a_release_are_those_that_git_lists(seed, repository, load):
    """Random histories with merged branches, and two releases of each."""
    draw, changes = random.Random(seed), []
    for number in range(draw.randint(4, 15)):
        files = {f"apps/{draw.choice('ab')}/{draw.randrange(2)}": str(number)}
        merged = f"b{number}" if draw.random() < 0.4 else None
        changes.append(change(f"c{number}", 1767600000 + 600 * number, files, merges=merged))
    folder, c = repository(*changes)
    for path in ("apps", "apps/a", "apps/b/1"):
        low, high = sorted(draw.sample(range(len(changes)), 2))
        old, new = c[f"c{low}"], c[f"c{high}"]
        entries = releases(old, new, start="2026-01-08 10:00", source=source(path))
        history = load(application("shop-prod", entries, spec=source(path)), repo=folder)
        listed = git(
            folder, "rev-list", "--no-merges", "--full-history", f"{old}..{new}", "--", path
        )
        assert sorted(c[name] for name in lead_hours(history, c)) == sorted(listed.split())


# ---- Joined with a config repository: `team` of conftest.py, in which Argo CD lags by five minutes


def test_the_cluster_says_what_happened_and_the_repository_says_lead_times(team, load_files):
    template = "apps/{application}/overlays/{environment}"
    document = json.loads((team / "apps.json").read_text())
    for shop in document:  # Argo CD remembers the last four syncs alone
        shop["status"]["history"] = shop["status"]["history"][-4:]
    mine = module.load_gitops_repository(team / "config", template)
    its = load_files(document, repo=team / "config", template=template)
    both = module.join_histories(mine, its)
    check_history(both)
    rows = both.deployments[both.deployments["environment"] == "production"]
    minutes = [f"{time:%d %H:%M}" for time in rows["timestamp"]]
    assert minutes == [f"{day:02d} 15:00" for day in range(1, 8)] + ["08 15:04", "09 15:04"]
    pd.testing.assert_frame_equal(both.changes, mine.changes)
    facts = [["shop", "production", mine.window.start, utc("11 12:00"), 0]]
    columns = ("application", "environment", "from", "to", "lost")
    assert [row for row in coverage(both, *columns) if row[1] == "production"] == facts
    assert len(both.coverage) == 2
    assert len(both.rollbacks) == 1
    told = "\n".join(both.notes)
    assert "desired state" in told
    assert told.count("Lead time") == 1
    assert module.measure(both).values["dated_deployments"] == 9


# ---- Errors


def error_of(files, **more):
    with pytest.raises(GitOpsError) as caught:
        module.load_argocd(files, **more)
    message = str(caught.value)
    assert message == module.one_line(message, 1000)
    return message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("apiVersion: argoproj.io/v1alpha1\nkind: Application\n", "YAML"),
        ("# saved on Monday\n- a\n", "YAML"),
        ('{"items": [', "not JSON"),
        ("NAME  CLUSTER  STATUS\n", "-o json"),
        ("  \n ", "not JSON"),
        (json.dumps({"items": [CONFIG_MAP]}), "no Argo CD application"),
        ("42", "no Argo CD application"),
        ("[]", "no deployment"),
        (json.dumps(application("shop-prod", [])), "no deployment"),
        (json.dumps(application("shop-prod", [], limit=0)), "set it to 10"),
        (json.dumps(application("a", releases(A), resources=[child("b")])), "App of apps"),
        (b"\xff\xfe{\x00", "cannot read"),
    ],
)
def test_a_file_without_a_deployment_is_an_error_that_names_it(text, part, write):
    files = write(text)
    message = error_of(files)
    assert files[0].name in message
    assert part in message


BEFORE_1970 = "1970-01-01T00:00:00+05:00"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((("history", 1, "deployedAt"), time) for time in ("yesterday", None, 17, BEFORE_1970)),
        *((("history", 1, "deployedAt"), f"2026-{time}") for time in ("13-01T00:00:00Z", "01-01")),
        (("history", 1, "deployStartedAt"), "soon"),
        *((("history", 1, "id"), number) for number in ("one", 10**30, 1.5, True)),
        (("history", 1), "surprise"),
        (("history",), {"0": {}}),
        (("reconciledAt",), BEFORE_1970),
        (("operationState", "startedAt"), BEFORE_1970),
        (("operationState", "finishedAt"), "soon"),
        (("health", "lastTransitionTime"), "soon"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_place(path, value, write):
    shop = one(releases(A, B), operation=operation("Failed", 1.7e9, 1.7e9, C))
    holder = shop["status"]
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    files = write([application("cart-prod", releases(A)), shop])
    message = error_of(files)
    entry_ = ["entry 1"] * (path[:2] == ("history", 1))
    for part in (files[0].name, "shop-prod", *entry_, module.in_quotes(value)):
        assert part in message
