"""Deployments from the history of a config repository: `--repo DIR --deployments-from TEMPLATE`.

Times are days and hours of January 2026. The subject of a commit is its time, so a row
("07 10:00", "production", "06 09:00") reads: on the 7th production got what was written on the 6th.
"""

import json
import random
import unicodedata

import argocd_documents as argo
import pandas as pd
import pytest
from conftest import called
from load import Commit, bytes_of, git, imported, stream_of

import gitops_automation as module
from gitops_automation import GitOpsError, load_gitops_repository

TEMPLATE = "apps/{application}/overlays/{environment}"
FILE = "apps/{}/overlays/{}/kustomization.yaml"

# ---- Writing a config repository ----------------------------------------------------------------


def january(time):
    return argo.seconds(f"2026-01-{time}") if isinstance(time, str) else time


def commit(time, files=(), *, subject=None, body="", **more):
    subject = str(time) if subject is None else subject
    return Commit(january(time), dict(files), f"{subject}\n\n{body}", **more)


def release(time, application="shop", **versions):
    """A commit that gives environments versions of an application."""
    texts = {
        FILE.format(application, environment): kustomization(version)
        for environment, version in versions.items()
    }
    return commit(time, texts)


def on_branch(branch, made):
    """The same commit on a branch."""
    return made._replace(branch=branch)


def merge(time, branch, **more):
    return commit(time, merges=branch, **more)


def kustomization(*versions):
    lines = [f"- name: image{number}\n  newTag: {tag}\n" for number, tag in enumerate(versions)]
    return "images:\n" + "".join(lines)


@pytest.fixture
def config(tmp_path):
    """A function that makes a config repository of commits; its folder."""

    def make(*commits, name="config"):
        return imported(tmp_path / name, input=b"".join(stream_of(commits)))

    return make


@pytest.fixture
def read(config):
    """A function that reads the history of a config repository of commits."""

    def make_and_read(*commits, template=TEMPLATE, environments=None):
        return load_gitops_repository(config(*commits), template, environments)

    return make_and_read


# ---- Reading a history --------------------------------------------------------------------------


def subjects(history):
    return dict(zip(history.git_commits["sha"], history.git_commits["message"]))


def short(time):
    return time.strftime("%d %H:%M")


def deployments(history, environment=None, application=None):
    """Every deployment as (time, environment, subject of its commit)."""
    told = subjects(history)
    return [
        (short(row.timestamp), row.environment, told[row.commit_sha])
        for row in history.deployments.itertuples()
        if environment in (None, row.environment) and application in (None, row.application)
    ]


def rollbacks(history):
    """Every rollback as (when what failed came, environment, minutes)."""
    return [
        (short(row.timestamp), row.environment, row.duration_min)
        for row in history.rollbacks.itertuples()
    ]


def changes(history, environment="production", application=None):
    rows = history.changes
    there = rows["environment"] == environment
    if application is not None:
        there &= rows["application"] == application
    there = rows[there.to_numpy()]
    return there.assign(subject=there["commit_sha"].map(subjects(history)))


def lead_times(history, environment="production", application=None):
    """{subject of a change: its hours to an environment}, in the order of the changes."""
    rows = changes(history, environment, application).dropna(subset=["committed", "deployed"])
    hours = (rows["deployed"] - rows["committed"]) / pd.Timedelta(hours=1)
    assert rows["subject"].is_unique, "a change ships once"
    return dict(sorted(zip(rows["subject"], hours)))


def waiting(history):
    """The subjects of the changes that production waits for."""
    rows = changes(history)
    return sorted(rows["subject"][rows["deployed"].isna()])


def refusal(*arguments):
    """The one printable line with which a repository is refused."""
    with pytest.raises(GitOpsError) as caught:
        load_gitops_repository(*arguments)
    assert not hostile(str(caught.value))
    return str(caught.value)


def hostile(text):
    """Whether a terminal would do something else than show the text."""
    return any(unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in text)


TRAVELS = [  # a version goes from dev to production, and then a second one
    release("05 10:00", dev=1),
    release("06 10:00", production=1),
    release("07 10:00", dev=2),
    release("09 10:00", production=2),
]
TRAVELLED = [
    ("05 10:00", "dev", "05 10:00"),
    ("06 10:00", "production", "05 10:00"),
    ("07 10:00", "dev", "07 10:00"),
    ("09 10:00", "production", "07 10:00"),
]


# ---- What is a deployment, and what is in its row -----------------------------------------------


def test_every_column_of_a_change_is_read(read):
    text = kustomization(1)
    row = (
        read(
            commit("05 10:00", {FILE.format("shop", "dev"): text, "a": "", "b": ""}, author="Ada"),
            commit("05 12:00", {FILE.format("shop", "dev"): kustomization(2)}, subject="fix(x): y"),
            release("06 10:00", production=2),
        )
        .git_commits.drop(columns="sha")
        .to_dict("records")
    )
    assert row == [
        {
            "timestamp": pd.Timestamp(f"2026-01-05 {time}", tz="UTC"),
            "author": author,
            "type": kind,
            "application": "shop",
            "branch": "main",
            "message": subject,
            "files_changed": files,
        }
        for time, author, kind, subject, files in [
            ("10:00", "Ada", "other", "05 10:00", 3),
            ("12:00", "ann", "fix", "fix(x): y", 1),
        ]
    ]


VERSIONS = {
    "a kustomize newTag": "images:\n- name: shop\n  newTag: '{}'\n",
    "a kustomize digest": "images:\n- name: shop\n  digest: sha256:{}\n",
    "a tag among values": 'image:\n  repository: example.org/shop\n  tag: "{}"\n',
    "an image": "    image: registry.example.org:5000/team/shop:{}\n",
    "an image by digest": "image: example.org/shop@sha256:{}\n",
    "a list of images": "- image: 'example.org/shop:{}'\n",
    "a version of a chart": "dependencies:\n- name: shop\n  version: {}.0.0\n",
    "a target revision": "source:\n  chart: shop\n  targetRevision: {}.0.0\n",
    "a ref of a remote base": "resources:\n- https://example.org/shop//base?ref=v{}\n",
    "an application version": "appVersion: v{}\n",
    "JSON": '{{"image": {{"tag": "{}", "pullPolicy": "Always"}}, "replicas": 2}}\n',
    "an image in JSON": '{{"image": "example.org/shop:{}", "replicas": 2}}\n',
    "a marker behind it": 'tag: {} # {{"$imagepolicy": "flux-system:shop:tag"}}\n',
    "Windows line ends": "image:\r\n  tag: {}\r\n",
    "no line end": "tag: {}",
}
NO_VERSIONS = {
    "a number of replicas": "replicas: {}\n",
    "a version in a comment": "# tag: {}\n",
    "the version of an API": "apiVersion: apps/v{}\n",
    "a longer word": "vintage: {0}\nstage: {0}\n",
    "an image without a tag": "image: shop{}\n",
    "a port": "url: http://example.org:{}\n",
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """A history with an application for each form; all of them change in the same commits."""
    commits = [
        commit(
            f"{day} 10:00",
            {
                f"deploy/{environment}/{form}.yaml": f"# {environment}\n" + text.format(number)
                for form, text in {**VERSIONS, **NO_VERSIONS}.items()
            },
        )
        for day, environment, number in [
            ("05", "dev", 1),
            ("06", "prod", 1),
            ("07", "dev", 2),
            ("09", "prod", 2),
        ]
    ]
    folder = tmp_path_factory.mktemp("forms") / "config"
    imported(folder, input=b"".join(stream_of(commits)))
    return load_gitops_repository(folder, "deploy/{environment}/{application}.yaml")


@pytest.mark.parametrize("form", VERSIONS)
def test_a_version_is_recognised_in(forms, form):
    assert lead_times(forms, application=form) == {"05 10:00": 24, "07 10:00": 48}
    assert deployments(forms, application=form) == TRAVELLED


def test_a_commented_version_beside_a_real_one_is_none(read):
    history = read(
        commit("05 10:00", {FILE.format("shop", "dev"): "tag: 1\n# tag: 8\n"}),
        commit("06 10:00", {FILE.format("shop", "prod"): "tag: 1\n# tag: 9\n"}),
    )
    assert lead_times(history) == {"05 10:00": 24}


NOTHING = {
    "a commit elsewhere": {"apps/shop/base/deployment.yaml": "tag: 9\n", "README.md": "tag: 9\n"},
    "a deleted file": {FILE.format("shop", "production"): None},
    "a renamed file": {FILE.format("shop", "dev"): ("apps/shop/overlays/dev/renamed.yaml",)},
    "a renamed folder": {"apps/shop": ("apps/store",)},
}


@pytest.mark.parametrize("what", NOTHING)
def test_no_deployment_is(read, what):
    assert deployments(read(*TRAVELS, commit("11 10:00", NOTHING[what]))) == TRAVELLED


# ---- Lead times ---------------------------------------------------------------------------------


def test_a_newer_version_carries_the_older_ones_along(read):
    """Production goes from 1 to 3; 2 came with it, and 4 waits."""
    history = read(
        release("05 10:00", dev=1),
        release("05 11:00", production=1),
        release("06 10:00", dev=2),
        release("06 22:00", dev=3),
        release("07 06:00", dev=4),
        release("07 10:00", production=3),
    )
    assert lead_times(history) == {"05 10:00": 1, "06 10:00": 24, "06 22:00": 12}
    assert waiting(history) == ["07 06:00"]


def test_a_version_that_overtook_an_older_one_ships_it_once(read):
    """The older version comes too late: a deployment, no rollback, and no second lead time."""
    history = read(
        *TRAVELS[:2],
        release("06 12:00", dev=2),
        release("06 14:00", dev=3),
        release("07 10:00", production=3),
        release("07 12:00", production=2),
    )
    assert rollbacks(history) == []
    assert len(deployments(history, "production")) == 3
    assert lead_times(history) == {"05 10:00": 24, "06 12:00": 22, "06 14:00": 20}


def test_each_image_of_a_file_is_a_part_of_its_own(read):
    """A commit of two images ships two changes in one deployment."""
    dev, production = (FILE.format("shop", name) for name in ("dev", "production"))
    history = read(
        commit("05 10:00", {dev: kustomization("a1", "b1")}),
        commit("05 11:00", {production: kustomization("a1", "b1")}),
        commit("06 10:00", {dev: kustomization("a2", "b1")}),
        commit("07 10:00", {dev: kustomization("a2", "b2")}),
        commit("08 10:00", {production: kustomization("a2", "b2")}),
        commit("09 10:00", {dev: kustomization("a2", "b3")}),
    )
    assert [row[0] for row in deployments(history, "production")] == ["05 11:00", "08 10:00"]
    assert lead_times(history)["06 10:00"] == 48
    assert lead_times(history)["07 10:00"] == 24
    assert waiting(history) == ["09 10:00"]


def test_two_lines_of_one_version_are_one_deployment(read):
    text = "initContainer:\n  tag: {0}\ncontainer:\n  tag: {0}\n"
    path = FILE.format("shop", "dev")
    history = read(*(commit(f"0{day} 10:00", {path: text.format(day)}) for day in (5, 6, 7)))
    assert [row[0] for row in deployments(history)] == ["05 10:00", "06 10:00", "07 10:00"]


def test_applications_of_the_same_version_numbers_are_not_mixed_up(read):
    history = read(
        release("05 10:00", "cart", dev=1),
        release("06 10:00", "shop", dev=1),
        release("06 12:00", "shop", production=1),
        release("07 10:00", "cart", production=1),
    )
    assert lead_times(history) == {"05 10:00": 48, "06 10:00": 2}


# ---- Rollbacks and failures ---------------------------------------------------------------------


def test_a_return_to_a_version_that_ran_there_before_is_a_rollback(read):
    history = read(*TRAVELS, release("09 12:30", production=1), release("10 10:00", dev=3))
    assert deployments(history, "production") == [
        ("06 10:00", "production", "05 10:00"),
        ("09 10:00", "production", "07 10:00"),
    ]
    assert rollbacks(history) == [("09 10:00", "production", 150)]
    assert history.rollbacks["success"].tolist() == [True]
    failed = history.deployments[(history.deployments["health"] == "Degraded").to_numpy()]
    assert failed["failure_reason"].tolist() == ["Rolled back"]
    assert lead_times(history) == {"05 10:00": 24, "07 10:00": 48}


def test_a_version_that_was_rolled_back_may_come_again(read):
    history = read(*TRAVELS, release("09 12:00", production=1), release("10 10:00", production=2))
    assert [row[0] for row in deployments(history, "production")] == [
        "06 10:00",
        "09 10:00",
        "10 10:00",
    ]
    assert rollbacks(history) == [("09 10:00", "production", 120)]
    assert lead_times(history) == {"05 10:00": 24, "07 10:00": 48}


def test_a_return_over_several_versions_takes_the_newest_back(read):
    """Of the two that are left behind, only the one that ran is known to be bad."""
    history = read(
        *TRAVELS, release("10 10:00", dev=3, production=3), release("11 10:00", production=1)
    )
    assert rollbacks(history) == [("10 10:00", "production", 24 * 60)]


def test_an_environment_that_another_one_is_ahead_of_is_not_rolled_back(read):
    """It catches up with a version that another environment had long ago."""
    history = read(*TRAVELS[:1], *TRAVELS[2:3], release("09 10:00", production=1))
    assert rollbacks(history) == []
    assert lead_times(history) == {"05 10:00": 96}


def test_the_return_of_one_image_is_a_rollback_whatever_came_between(read):
    path = FILE.format("shop", "production")
    history = read(
        commit("05 10:00", {path: kustomization("a1", "b1")}),
        commit("06 10:00", {path: kustomization("a2", "b1")}),
        commit("07 10:00", {path: kustomization("a2", "b2")}),
        commit("08 10:00", {path: kustomization("a1", "b2")}),
    )
    assert [row[0] for row in deployments(history)] == ["05 10:00", "06 10:00", "07 10:00"]
    assert rollbacks(history) == [("06 10:00", "production", 48 * 60)]


def test_a_version_that_is_left_within_a_minute_for_what_ran_before_never_ran(read):
    history = read(
        *TRAVELS, release("10 10:00", production="typo"), release("10 10:00:30", production=2)
    )
    assert len(deployments(history, "production")) == 2
    assert rollbacks(history) == []


def test_a_revert_of_a_commit_without_a_version_takes_it_back(config):
    path = FILE.format("shop", "production")
    first = [
        commit("05 10:00", {path: "replicas: 1\n"}),
        commit("06 10:00", {path: "replicas: 2\n"}),
    ]
    bad = git(config(*first), "rev-parse", "main").decode().strip()
    body = f"This reverts commit {bad}.\n"
    back = commit("06 12:00", {path: "replicas: 1\n"}, body=body)
    history = load_gitops_repository(config(*first, back, name="all"), TEMPLATE)
    assert [row[0] for row in deployments(history)] == ["05 10:00", "06 10:00"]
    assert rollbacks(history) == [("06 10:00", "production", 120)]


def test_a_rollback_to_what_came_to_all_environments_at_once_ships_no_change(read):
    history = read(
        release("05 10:00", dev=1, production=1),
        release("06 10:00", dev=2),
        release("07 10:00", production=2),
        release("07 12:00", production=1),
    )
    assert rollbacks(history) == [("07 10:00", "production", 120)]
    assert lead_times(history) == {"06 10:00": 24}


def test_what_ran_in_production_alone_does_not_wait_for_it(read):
    history = read(*(release(f"{5 + at:02} 10:00", production=tag) for at, tag in enumerate("121")))
    assert rollbacks(history) == [("06 10:00", "production", 24 * 60)]
    assert waiting(history) == []


# ---- Branches and merges ------------------------------------------------------------------------


def test_a_merge_brings_a_version_and_the_commit_on_the_branch_wrote_it(read):
    """The version comes when the merge lands; its lead time begins with the branch's commit."""
    history = read(
        *TRAVELS[:2],
        on_branch("bump", release("07 08:00", dev=2)),
        merge("07 10:00", "bump", author="the robot"),
        on_branch("promote", release("08 08:00", production=2)),
        merge("08 20:00", "promote"),
    )
    assert deployments(history)[2:] == [
        ("07 10:00", "dev", "07 08:00"),
        ("08 20:00", "production", "07 08:00"),
    ]
    assert lead_times(history)["07 08:00"] == 36
    assert set(history.git_commits["author"]) == {"ann"}


def test_of_several_commits_on_a_branch_the_oldest_with_the_version_wrote_it(read):
    more = {FILE.format("shop", "dev"): kustomization(2) + "# a remark\n"}
    history = read(
        *TRAVELS[:2],
        on_branch("bump", release("07 07:00", dev="a typo")),
        on_branch("bump", release("07 08:00", dev=2)),
        on_branch("bump", commit("07 09:00", more)),
        merge("07 10:00", "bump"),
        release("08 08:00", production=2),
    )
    assert len(deployments(history, "dev")) == 2, "the typo never came to the main line"
    assert lead_times(history) == {"05 10:00": 24, "07 08:00": 24}


def test_a_branch_with_all_environments_comes_to_them_at_once(read):
    history = read(
        *TRAVELS[:2],
        on_branch("all", release("07 08:00", dev=2)),
        on_branch("all", release("07 09:00", production=2)),
        merge("07 10:00", "all"),
    )
    assert deployments(history)[2:] == [
        ("07 10:00", "dev", "07 08:00"),
        ("07 10:00", "production", "07 08:00"),
    ]
    assert lead_times(history) == {"05 10:00": 24}


def test_a_branch_that_took_main_in_brings_nothing_twice(read):
    history = read(
        *TRAVELS[:2],
        on_branch("side", commit("06 20:00", {"README.md": "x"})),
        *TRAVELS[2:],
        commit("09 12:00", branch="side", merges="main"),
        merge("10 10:00", "side"),
    )
    assert deployments(history) == TRAVELLED


def test_a_branch_that_is_not_merged_is_no_deployment(read):
    history = read(*TRAVELS, on_branch("later", release("10 10:00", dev=9)))
    assert len(history.deployments) == 4


# ---- Renamed folders ----------------------------------------------------------------------------


def test_a_version_that_waits_ships_from_a_renamed_file(read):
    old, new = FILE.format("shop", "dev"), "apps/shop/overlays/dev/image.yaml"
    history = read(
        *TRAVELS[:3],
        commit("08 10:00", {old: (new,)}),
        commit("08 12:00", {new: kustomization(3)}),
        release("09 10:00", production=3),
    )
    assert lead_times(history) == {"05 10:00": 24, "07 10:00": 48, "08 12:00": 22}


def test_a_renamed_application_goes_on(read):
    history = read(
        *TRAVELS[:3],
        commit("08 10:00", {"apps/shop": ("apps/store",)}),
        release("09 10:00", "store", production=2),
        release("09 12:00", "store", production=1),
    )
    assert lead_times(history) == {"05 10:00": 24, "07 10:00": 48}
    assert rollbacks(history) == [("09 10:00", "production", 120)]


@pytest.mark.parametrize("environments", [None, "dev,production=prod*"])
def test_a_renamed_environment_goes_on(read, environments):
    history = read(
        release("05 10:00", dev=1),
        release("06 10:00", prod=1),
        release("07 10:00", dev=2),
        commit("08 10:00", {"apps/shop/overlays/prod": ("apps/shop/overlays/production",)}),
        release("09 10:00", production=2),
        release("09 12:00", production=1),
        environments=environments,
    )
    assert history.environments == ("dev", "production")
    assert len(deployments(history, "production")) == 2
    assert rollbacks(history) == [("09 10:00", "production", 120)]


# ---- Environments -------------------------------------------------------------------------------


def travel(*stages, versions=2, first=5):
    """Versions that go through stages, an hour for each stage."""
    return [
        release(f"{first + version:02} {10 + hour}:00", **{stage: version})
        for version in range(versions)
        for hour, stage in enumerate(stages)
    ]


@pytest.mark.parametrize(
    ("stages", "order"),
    [
        (("dev", "staging", "production"), ("dev", "staging", "production")),
        (("qa", "test", "prod"), ("qa", "test", "production")),
        (("blue", "amber", "crimson"), ("blue", "amber", "crimson")),
        (("dev", "test", "uat", "live"), ("dev", "test", "uat", "production")),
    ],
)
def test_the_order_of_the_environments_is_that_in_which_versions_travel(read, stages, order):
    assert read(*travel(*stages)).environments == order


def test_one_version_that_went_the_other_way_does_not_turn_the_order(read):
    history = read(
        *travel("test", "uat", "production", versions=3),
        release("10 10:00", uat="fix"),
        release("10 11:00", test="fix"),
    )
    assert history.environments == ("test", "uat", "production")


def test_the_order_can_be_said(read):
    history = read(*travel("blue", "amber"), environments="amber,blue")
    assert history.environments == ("amber", "blue")
    assert lead_times(history, "amber") == {"05 10:00": 1, "06 10:00": 1}


def test_a_stage_can_be_called_otherwise(read):
    history = read(*travel("dev", "prod"), environments="dev,live=prod")
    assert history.environments == ("dev", "live")


def test_folders_that_are_no_environments_are_left_out_and_said(read):
    history = read(*TRAVELS, release("10 10:00", base=9, docs=9))
    assert history.environments == ("dev", "production")
    assert len(history.deployments) == 4
    (note,) = [note for note in history.notes if "base, docs" in note]
    assert "--environments" in note


def test_an_environment_that_is_not_named_is_left_out_and_said(read):
    history = read(*travel("dev", "staging", "production"), environments="dev,production")
    assert history.environments == ("dev", "production")
    assert len(history.deployments) == 4
    assert any("staging" in note for note in history.notes)


def test_a_repository_without_production_has_no_metrics_of_production(read):
    history = read(*travel("dev", "staging"))
    assert history.environments == ("dev", "staging", "production")
    assert module.production_metrics(history)["n"].sum() == 0


CLUSTERS = [  # a version comes to two clusters of production, and another one goes back in both
    release("05 10:00", dev=1),
    release("06 10:00", **{"prod-eu": 1}),
    release("06 12:00", **{"prod-us": 1}),
    release("07 10:00", dev=2),
    release("08 10:00", **{"prod-us": 2}),
    release("08 12:00", **{"prod-eu": 2}),
    release("08 14:00", **{"prod-us": 1}),
    release("08 15:00", **{"prod-eu": 1}),
    release("09 10:00", **{"prod-eu": 3, "prod-us": 3}),
]


def test_several_clusters_of_one_stage_count_nothing_twice(read):
    history = read(*CLUSTERS, environments="dev,production=prod-*")
    assert history.environments == ("dev", "production")
    assert deployments(history, "production") == [
        ("06 10:00", "production", "05 10:00"),
        ("08 10:00", "production", "07 10:00"),
        ("09 10:00", "production", "09 10:00"),
    ]
    assert rollbacks(history) == [("08 10:00", "production", 240)]
    assert lead_times(history) == {"05 10:00": 24, "07 10:00": 24}


def test_several_clusters_are_stages_of_their_own_where_nobody_says_otherwise(read):
    history = read(*CLUSTERS[:6])
    assert set(history.environments) == {"dev", "prod-eu", "prod-us"}
    assert len(history.deployments) == 6


@pytest.mark.parametrize(
    ("environments", "said"),
    [
        ("qa,uat", "dev, production"),
        ("dev,,production", "''"),
        ("", "''"),
        ("dev\x1b[31m", "dev"),
        ("dev=,production", "production"),
    ],
)
def test_environments_that_take_in_nothing_are_refused(config, environments, said):
    if environments == "dev=,production":
        folder = config(release("05 10:00", qa=1))
        assert "qa" in refusal(folder, TEMPLATE, environments)
    else:
        message = refusal(config(*TRAVELS), TEMPLATE, environments)
        assert said in message
        assert "--environments" in message


# ---- Clones that do not have everything ---------------------------------------------------------


@pytest.fixture
def cloned(config, tmp_path):
    """A function that reads a clone of the last so many commits."""

    def clone_and_read(depth, *commits):
        folder = config(*commits)
        address = f"file://{folder}"
        git(tmp_path, "clone", "-q", f"--depth={depth}", address, "shallow", input=b"")
        return load_gitops_repository(tmp_path / "shallow", TEMPLATE)

    return clone_and_read


SHALLOW = [*TRAVELS, release("10 10:00", dev=3), release("11 10:00", production=3)]


def test_what_a_shallow_clone_begins_with_does_not_ship_again(cloned):
    assert lead_times(cloned(3, *SHALLOW)) == {"10 10:00": 24}


def test_a_rollback_within_a_shallow_clone_is_found(cloned):
    history = cloned(3, *SHALLOW, release("11 12:00", production=2))
    assert rollbacks(history) == [("11 10:00", "production", 120)]


def test_a_shallow_clone_that_begins_with_a_clock_ahead_is_measured(cloned):
    """The first commit of the clone is dated two days after the one that follows it."""
    history = cloned(2, *TRAVELS[:2], release("09 10:00", dev=2), release("07 10:00", production=2))
    assert module.measure(history).values["total_deployments"] == 1


def test_a_shallow_clone_of_one_commit_has_no_deployment(cloned):
    history = cloned(1, *TRAVELS)
    assert len(history.deployments) == 0
    assert history.environments == ("dev", "production")


def test_a_bare_repository_and_a_folder_inside_are_read_alike(config, tmp_path):
    folder = config(*TRAVELS)
    git(tmp_path, "clone", "-q", "--bare", folder, "bare.git")
    git(folder, "reset", "-q", "--hard")
    for place in (tmp_path / "bare.git", f"{folder}/apps/shop"):
        assert deployments(load_gitops_repository(place, TEMPLATE)) == TRAVELLED


def test_commits_of_one_second_keep_their_order(read):
    history = read(*(release("05 10:00", dev=number) for number in range(1, 5)))
    assert len(history.deployments) == 4


# ---- Templates ----------------------------------------------------------------------------------

LAYOUTS = [
    "apps/{application}/overlays/{environment}/kustomization.yaml",
    "{application}/overlays/{environment}/kustomization.yaml",
    "environments/{environment}/{application}/kustomization.yaml",
    "envs/{environment}/{application}/image.yaml",
    "clusters/{environment}/{application}/release.yaml",
    "apps/{application}/{environment}/deployment.yaml",
    "{application}/{environment}/deployment.yaml",
    "{environment}/{application}/deployment.yaml",
    "{application}/envs/{environment}/values.yaml",
    "charts/{application}/values-{environment}.yaml",
    "{application}/values.{environment}.yaml",
]
OTHER_LAYOUTS = [
    "deploy/{environment}/{application}.yaml",
    "clusters/{environment}/apps/{application}/release.yaml",
]


def two_applications(layout):
    """Two versions of two applications that travel through two environments, in a layout."""
    names = ("cart", "shop")
    return [
        commit(
            f"{5 + version:02} 1{hour}:00",
            {
                layout.format(application=name, environment=environment): kustomization(version)
                for name in names
            },
        )
        for version in range(2)
        for hour, environment in enumerate(("dev", "prod"))
    ]


def applications(history):
    return sorted(history.deployments["application"].unique())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_usual_layout_is_found_without_a_template(config, layout):
    folder = config(*two_applications(layout))
    found = load_gitops_repository(folder)
    assert applications(found) == ["cart", "shop"]
    assert len(found.deployments) == 8
    told = load_gitops_repository(folder, layout)
    assert deployments(found) == deployments(told)
    (note,) = [note for note in found.notes if note.startswith("Layout: ")]
    assert layout.startswith(note.partition(": ")[2])


@pytest.mark.parametrize("layout", OTHER_LAYOUTS)
def test_a_layout_is_found_or_asked_for_but_not_mistaken(config, layout):
    """`deploy` and `apps` are no applications."""
    folder = config(*two_applications(layout))
    try:
        found = load_gitops_repository(folder)
    except GitOpsError as error:
        assert "--deployments-from" in str(error)
    else:
        assert applications(found) == ["cart", "shop"]


@pytest.mark.parametrize("layout", OTHER_LAYOUTS)
def test_any_layout_can_be_said(read, layout):
    history = read(*two_applications(layout), template=layout)
    assert applications(history) == ["cart", "shop"]
    assert [len(deployments(history, stage)) for stage in ("dev", "production")] == [4, 4]


@pytest.mark.parametrize(
    "layout", ["overlays/{environment}", "environments/{environment}", "envs/{environment}"]
)
def test_the_layout_of_one_application_is_found(config, layout):
    folder = config(*two_applications(layout + "/kustomization.yaml"), name="shop")
    assert applications(load_gitops_repository(folder)) == ["shop"]


def test_a_template_without_an_application_names_it_after_the_repository(config):
    folder = config(*two_applications("overlays/{environment}/image.yaml"), name="shop")
    history = load_gitops_repository(folder, "overlays/{environment}")
    assert applications(history) == ["shop"]


@pytest.mark.parametrize(
    "template", [f"/{TEMPLATE}", f"{TEMPLATE}/", "apps/shop/overlays/{environment}"]
)
def test_a_template_may_begin_or_end_with_a_slash_or_name_one_application(read, template):
    assert len(read(*TRAVELS, template=template).deployments) == 4


def test_an_ambiguous_layout_is_asked_for_with_the_candidates_and_their_counts(config):
    files = {
        layout.format(application=f"app{number}", environment=environment): "tag: 1\n"
        for layout, count in ((LAYOUTS[0], 3), (LAYOUTS[9], 2))
        for number in range(count)
        for environment in ("dev", "prod")
    }
    message = refusal(config(commit("05 10:00", files)))
    first, second = (
        f"{layout} ({count} places)"
        for layout, count in ((TEMPLATE, 6), ("charts/{application}/values-{environment}.yaml", 4))
    )
    assert message.index(first) < message.index(second)
    assert "--deployments-from" in message


def test_a_repository_without_a_usual_layout_is_asked_for_one(config):
    message = refusal(config(commit("05 10:00", {"README.md": "tag: 1\n"})))
    assert "--deployments-from" in message


@pytest.mark.parametrize(
    ("template", "near"),
    [
        ("apps/{application}/overlay/{environment}", "apps/shop/overlays/dev"),
        ("app/{application}/overlays/{environment}/image.yaml", "apps/shop/overlays/dev"),
        ("apps/*/overlays/{environment}", "apps/shop/overlays/dev"),
    ],
)
def test_a_template_that_matches_nothing_shows_the_nearest_paths(config, template, near):
    message = refusal(config(*TRAVELS), template)
    assert template in message
    assert near in message


@pytest.mark.parametrize(
    "template",
    [
        "apps/{application}",
        "apps/{app}/overlays/{environment}",
        "{environment}/{environment}",
        "{application}/{application}/{environment}",
        "{environment",
        "apps",
        "{}/{environment}",
    ],
)
def test_a_malformed_template_is_refused_with_an_example(config, template):
    message = refusal(config(*TRAVELS), template)
    assert template in message
    assert TEMPLATE in message


# ---- The report, the window and the JSON --------------------------------------------------------


@pytest.fixture
def run(config, capsys, tmp_path):
    """A function that calls the program on a config repository; what it prints."""

    def make_and_run(commits, *options):
        arguments = ("--repo", config(*commits), "--output", tmp_path / "out", "--runs", 2)
        status, out, err = called(capsys, *arguments, "--no-dashboard", *options)
        assert (status, err) == (0, "")
        return out

    return make_and_run


ROLLED_BACK = [*TRAVELS, release("09 12:00", production=1)]


def test_the_report_says_that_it_is_desired_state_and_how_it_was_read(run):
    report = run(ROLLED_BACK, "--deployments-from", TEMPLATE)
    assert "desired state" in report
    assert f"Layout: {TEMPLATE}" in report
    assert "Lead time is config-repository lead time" in report


def test_the_fail_rate_of_a_config_repository_is_a_lower_bound(run):
    """One of two: a rollback shows a failure, and a fix forward does not."""
    document = json.loads(run(ROLLED_BACK, "--deployments-from", TEMPLATE, "--json"))
    rate = document["production"]["change_fail_rate_pct"]
    assert (rate["value"], rate["n"], rate["at_least"]) == (50, 2, True)
    assert "at least 50.00%" in run(ROLLED_BACK, "--deployments-from", TEMPLATE)


def test_where_no_rollback_is_seen_the_fail_rate_is_no_certain_zero(run):
    document = json.loads(run(TRAVELS, "--deployments-from", TEMPLATE, "--json"))
    rate = document["production"]["change_fail_rate_pct"]
    assert rate["value"] is None or rate["at_least"]
    assert not document["maturity"]["elite"]["change_failure_rate"]


def test_the_json_of_a_config_repository(run):
    document = json.loads(run(ROLLED_BACK, "--deployments-from", "--json"))
    assert (document["source"], document["simulated"]) == ("git", False)
    assert document["environments"] == ["dev", "production"]
    assert document["window"]["start"] == "2026-01-05T00:00:00Z"
    assert document["notes"] == [f"Layout: {TEMPLATE}"]
    production = {name: row["value"] for name, row in document["production"].items()}
    assert production["change_lead_time_hours"] == 36, "the median of 24 and 48 hours"
    assert production["deployment_frequency_per_day"] == pytest.approx(2 / 5)
    assert production["failed_deployment_recovery_minutes"] == 120
    assert document["metrics"]["total_rollbacks"] == 1


def test_a_window_is_cut_out_with_days_and_end(run):
    """From the 6th to the 8th: one deployment to each, and 2 waits at the end."""
    options = ("--deployments-from", TEMPLATE, "--days", 3, "--end", "2026-01-09", "--json")
    document = json.loads(run(ROLLED_BACK, *options))
    assert document["window"] == {
        "start": "2026-01-06T00:00:00Z",
        "end": "2026-01-09T00:00:00Z",
        "days": 3,
    }
    assert document["metrics"]["deployments_by_environment"] == {"dev": 1, "production": 1}
    lead_time = document["production"]["change_lead_time_hours"]
    assert (lead_time["value"], lead_time["n"], lead_time["open"]) == (24, 1, 1)
    assert document["metrics"]["total_rollbacks"] == 0


def test_a_window_before_the_history_is_refused(config, capsys):
    options = ("--deployments-from", TEMPLATE, "--days", 3, "--end", "2025-01-09")
    status, out, err = called(capsys, "--repo", config(*TRAVELS), *options, "--no-dashboard")
    assert (status, err.count("\n")) == (2, 1)
    assert "2026-01-05 to 2026-01-09" in err


def test_environments_are_named_on_the_command_line(run):
    options = ("--environments", "dev,production=prod-*", "--deployments-from", TEMPLATE)
    document = json.loads(run(CLUSTERS, *options, "--json"))
    assert document["environments"] == ["dev", "production"]
    assert document["metrics"]["deployments_by_environment"] == {"dev": 2, "production": 3}


def test_deployments_from_needs_a_repository(capsys):
    status, _, err = called(capsys, "--deployments-from", TEMPLATE)
    assert (status, err.count("\n")) == (2, 1)
    assert "--repo" in err


def test_the_picture_says_that_it_is_desired_state(read):
    figure = module.draw_dashboard(module.measure(read(*ROLLED_BACK)), 50)
    texts = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    assert any("desired state" in text.get_text().lower() for text in texts)


# ---- Together with Argo CD ----------------------------------------------------------------------

LONG = [  # Argo CD remembers what came since the 9th
    *TRAVELS,
    release("10 10:00", dev=3),
    release("11 10:00", production=3),
    release("11 14:00", production=2),
    release("12 10:00", dev=4),
    release("13 10:00", production=4),
]
SYNCS = [(20, "09 10:05", 3), (21, "11 10:05", 5), (22, "11 14:05", 6)]


@pytest.fixture
def joined(config, tmp_path):
    """A function that makes the repository and a snapshot of production: (its folder, the file).

    Three syncs are remembered, the second was rolled back, and the last operation failed.
    """

    def make(name="shop-production"):
        folder = config(*LONG)
        shas = git(folder, "rev-list", "--reverse", "main").decode().split()
        path = "apps/shop/overlays/production"
        there = argo.source(path)
        times = ("2026-01-13 10:04", "2026-01-13 10:05")
        document = argo.application(
            name,
            [
                argo.entry(number, january(time), shas[position], source=there)
                for number, time, position in SYNCS
            ],
            spec=there,
            operation=argo.operation("Failed", *times, shas[-1], path=path),
            created=january("01 00:00"),
            reconciled=january("14 00:00"),
        )
        file = tmp_path / "applications.json"
        file.write_text(json.dumps([document]), encoding="utf-8")
        return folder, file

    return make


def test_with_argo_cd_nothing_counts_twice_and_failures_are_its_own(joined):
    folder, file = joined()
    mine = module.load_gitops_repository(folder, TEMPLATE)
    its = module.load_argocd([file], folder, template=TEMPLATE)
    history = module.join_histories(mine, its)
    assert [row[0] for row in deployments(history, "dev")] == [
        "05 10:00",
        "07 10:00",
        "10 10:00",
        "12 10:00",
    ], "Argo CD says nothing of dev"
    assert [row[0] for row in deployments(history, "production")] == [
        "06 10:00",  # the repository's, from before Argo CD's memory
        "09 10:00",
        "11 10:04",  # Argo CD's, when the sync began
        "13 10:04",  # it failed, which the repository does not know
    ]
    assert history.deployments["status"].tolist()[-1] == "Failed"
    assert rollbacks(history) == [("11 10:05", "production", 240)]
    hours = lead_times(history)
    assert [hours[subject] for subject in ("05 10:00", "07 10:00", "10 10:00")] == [24, 48, 24]


def test_with_argo_cd_the_template_tells_its_environments_too(joined, capsys):
    """Its name says nothing, and its path is one of the template's."""
    folder, file = joined("frontend")
    status, out, err = called(
        capsys, "--repo", folder, "--deployments-from", TEMPLATE, "--argocd", file, "--json",
        "--no-dashboard",
    )  # fmt: skip
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document["metrics"]["deployments_by_environment"] == {"dev": 4, "production": 4}
    assert document["metrics"]["deployments_by_application"] == {"shop": 8}


def test_with_argo_cd_a_window_and_the_stages_count_for_both(joined, capsys):
    folder, file = joined()
    status, out, err = called(
        capsys, "--repo", folder, "--deployments-from", TEMPLATE, "--argocd", file, "--json",
        "--no-dashboard", "--environments", "dev,live=production", "--days", 2,
        "--end", "2026-01-13",
    )  # fmt: skip
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document["environments"] == ["dev", "live"]
    assert document["metrics"]["deployments_by_environment"] == {"dev": 1, "live": 1}
    assert document["metrics"]["total_rollbacks"] == 1


# ---- Bases --------------------------------------------------------------------------------------

BASE = "apps/shop/base/deployment.yaml"


def test_a_base_that_overlays_name_comes_to_all_of_them_at_once(read):
    overlay = "resources:\n- ../../base\n" + kustomization(1)
    files = {FILE.format("shop", environment): overlay for environment in ("dev", "production")}
    history = read(
        commit("05 10:00", {**files, BASE: "replicas: 1\n"}),
        commit("06 10:00", {BASE: "replicas: 2\n"}),
    )
    assert [row[:2] for row in deployments(history)] == [
        (time, environment)
        for time in ("05 10:00", "06 10:00")
        for environment in ("dev", "production")
    ]
    assert lead_times(history) == {}


# ---- Text that nobody vouches for ---------------------------------------------------------------

ODD_NAMES = [
    "größe",
    "two words",
    "日本 🚀",
    "a'b",
    "$(id)",
    "%s",
    "x" * 200,
    "-n",
    "{environment}",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_read(read, name):
    assert applications(read(release("05 10:00", name, dev=1))) == [name]


EVIL = ["\x1b[31mred", "\u202ereversed", "bell\x07", "eight\x9bbit", "tab\there", "two\nlines"]
EVIL += ['a"quote', "back\\slash", b"\xff\xfe", "line\u2028end"]


def test_what_steers_a_terminal_reaches_neither_report_nor_files(run, tmp_path):
    """In paths, versions, authors, subjects and bodies of commits."""
    before, between, after = map(bytes_of, FILE.split("{}"))
    commits = [
        Commit(
            january(f"{5 + number:02} 10:00"),
            {
                before + text + between + b"dev" + after: kustomization(number),
                before + b"shop" + between + text + after: kustomization(number),
                FILE.format("shop", stage): b"tag: " + text + b"%d\n" % (number // 2),
            },
            text + b"\n\n" + text,
            text.translate(None, b"<>\n"),
        )
        for number, text in enumerate(map(bytes_of, EVIL * 2))
        for stage in [("dev", "production")[number % 2]]
    ]
    report = run(commits, "--deployments-from", TEMPLATE, "--export", "--by", "week")
    written = [file.read_text(encoding="utf-8") for file in sorted((tmp_path / "out").iterdir())]
    assert len(written) >= 6
    for printed in (report, *written):
        assert not hostile(printed.replace("\n", ""))


def test_a_message_that_imitates_a_patch_deploys_nothing(read):
    forged = "diff --git a/{0} b/{0}\n--- a/{0}\n+++ b/{0}\n@@ -1 +1 @@\n+  newTag: 9\n".format(
        FILE.format("shop", "production")
    )
    history = read(*TRAVELS, commit("10 10:00", {"README.md": "x"}, body=forged))
    assert deployments(history) == TRAVELLED


def test_a_file_that_imitates_a_patch_deploys_nothing(read):
    """An added line begins with a plus in a patch, so none can begin a piece of one."""
    forged = "\ndiff --git a/{0} b/{0}\n+++ b/{0}\n+  newTag: 9\n".format(
        FILE.format("shop", "production")
    )
    history = read(*TRAVELS, commit("10 10:00", {"README.md": forged}))
    assert deployments(history) == TRAVELLED


# ---- An independent calculation -----------------------------------------------------------------


def random_commits(seed):
    """Commits of two applications in three environments: releases, promotions, returns, merges.

    A branch is merged at once, or after other commits; what it brings may then be old.
    """
    rng = random.Random(seed)
    runs, open_branches, seconds = {}, [], january("05 00:00")
    yield commit(seconds, {"README.md": "x"})
    for number in range(60):
        seconds += rng.choice((3600, 7200, 90_000))
        application = rng.choice(("cart", "shop"))
        above, stage = rng.choice(((None, "dev"), ("dev", "staging"), ("staging", "production")))
        had, offered = (runs.setdefault((application, name), []) for name in (stage, above))
        if above is not None and not offered:
            continue
        version = number if above is None else offered[-1]
        if len(had) > 2 and rng.random() < 0.4:
            version = rng.choice(had)
        stages = ("dev", "staging") if stage == "dev" and rng.random() < 0.1 else (stage,)
        made = release(seconds, application, **dict.fromkeys(stages, version))
        if rng.random() < 0.4:
            open_branches.append((f"branch{number}", had, version))
            yield on_branch(f"branch{number}", made)
        else:
            had.append(version)
            yield made
        while open_branches and rng.random() < 0.7:
            seconds += rng.choice((3600, 36_000))
            branch, had, version = open_branches.pop()
            had.append(version)
            yield merge(seconds, branch)


def tags_in(folder, sha):
    """{(application, environment): its tag} in the tree of a commit."""
    listed = git(folder, "grep", "-e", "newTag", sha, check=False).decode().splitlines()
    found = {}
    for line in listed:
        _, path, _, tag = line.split(":")
        _, application, _, environment, _ = path.split("/")
        found[application, environment] = tag.strip()
    return found


def plain_history(folder):
    """Deployments, rollbacks and lead times of production, from the tree of each commit."""
    listed = git(folder, "log", "--format=%H %ct", "main").decode().splitlines()
    seconds = {sha: int(time) for sha, time in map(str.split, listed)}
    tags = {sha: tags_in(folder, sha) for sha in seconds}
    deployed, returned, hours = [], [], []
    standing, first, known, shipped = {}, {}, {}, {}
    before, parent = {}, None
    for sha in git(folder, "rev-list", "--first-parent", "--reverse", "main").decode().split():
        time, now = seconds[sha], tags[sha]
        new = [sha] if parent is None else [sha, f"^{parent}"]
        brought = git(folder, "rev-list", "--topo-order", "--reverse", *new).decode().split()
        for place in sorted(
            now, key=lambda place: ("dev", "staging", "production").index(place[1])
        ):
            application, environment = place
            tag = now[place]
            if before.get(place) == tag:
                continue
            versions = known.setdefault(application, [])
            if tag not in versions:
                author = next(one for one in brought if tags[one].get(place) == tag)
                first[application, tag] = seconds[author], sha
                versions.append(tag)
            stack = standing.setdefault(place, [])
            there = [position for position, (one, _) in enumerate(stack) if one == tag]
            if there:
                returned.append((stack[-1][1], *place, (time - stack[-1][1]) / 60))
                del stack[there[0] + 1 :]
            else:
                deployed.append((time, *place))
                stack.append((tag, time))
            if environment == "production":
                newest = versions.index(tag) + 1
                for one in versions[shipped.get(application, 0) : newest]:
                    if first[application, one][1] != sha:
                        hours.append((time - first[application, one][0]) / 3600)
                shipped[application] = max(shipped.get(application, 0), newest)
        before, parent = now, sha
    return sorted(deployed), sorted(returned), sorted(hours)


@pytest.mark.parametrize("seed", range(3))
def test_random_histories_are_read_as_their_trees_say(config, seed):
    folder = config(*random_commits(seed))
    history = load_gitops_repository(folder, TEMPLATE)
    read = [
        sorted(
            (int(row.timestamp.timestamp()), row.application, row.environment, *rest(row))
            for row in table.itertuples()
        )
        for table, rest in (
            (history.deployments, lambda row: ()),
            (history.rollbacks, lambda row: (row.duration_min,)),
        )
    ]
    rows = changes(history).dropna(subset=["committed", "deployed"])
    hours = sorted((rows["deployed"] - rows["committed"]) / pd.Timedelta(hours=1))
    plain = plain_history(folder)
    assert (*read, hours) == plain
    assert all(plain)
