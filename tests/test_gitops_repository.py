"""Deployments from the history of a config repository: `--repo DIR --deployments-from TEMPLATE`.

Times are days and hours of January 2026. The subject of a commit is its time, so a row
("07 10:00", "production", "06 09:00") reads: on the 7th production got what was written on the 6th.
tests/test_layouts.py has the layouts, the environments and the release tags.
"""

import random
import unicodedata

import argocd_documents as argo
import pandas as pd
import pytest
from conftest import called
from repositories import Commit, bytes_of, git, imported, stream_of

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


def revert(time, bad, files):
    """A commit whose message takes back another one."""
    return commit(time, files, body=f"This reverts commit {bad}.\n")


@pytest.fixture
def config(tmp_path):
    """A function that makes a config repository of commits; its folder."""

    def make(*commits, name="config"):
        return imported(tmp_path / name, input=b"".join(stream_of(commits)))

    return make


@pytest.fixture
def read(config):
    """A function that reads the history of a config repository of commits."""

    def make_and_read(*commits, template=TEMPLATE, environments=None, **options):
        return load_gitops_repository(config(*commits), template, environments, **options)

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


def times(history, environment="production", application=None):
    return [row[0] for row in deployments(history, environment, application)]


def rollbacks(history):
    """Every rollback as (when what failed came, environment, minutes)."""
    return [
        (short(row.timestamp), row.environment, row.duration_min)
        for row in history.rollbacks.itertuples()
    ]


def lead_times(history, environment="production", application=None):
    """{subject of a change: its hours to an environment}, in the order of the changes."""
    rows = history.changes[(history.changes["environment"] == environment).to_numpy()]
    if application is not None:
        rows = rows[(rows["application"] == application).to_numpy()]
    rows = rows.assign(subject=rows["commit_sha"].map(subjects(history)))
    rows = rows[rows["deployed"].notna()]
    hours = (rows["deployed"] - rows["committed"]) / pd.Timedelta(hours=1)
    assert rows["subject"].is_unique, "a change ships once"
    return dict(sorted(zip(rows["subject"], hours)))


def waiting(history):
    """The subjects of the changes that production waits for."""
    rows = history.changes[history.changes["deployed"].isna()]
    assert set(rows["environment"]) <= {"production"}
    return sorted(rows["commit_sha"].map(subjects(history)))


def refusal(*arguments, **options):
    """The one printable line with which a repository is refused."""
    with pytest.raises(GitOpsError) as caught:
        load_gitops_repository(*arguments, **options)
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


def test_every_column_of_a_deployment_and_of_its_change_is_read(config):
    folder = config(*TRAVELS)
    history = load_gitops_repository(folder, TEMPLATE)
    shas = git(folder, "rev-list", "--reverse", "main").decode().split()
    row = history.deployments.iloc[-1]
    assert row[:7].to_dict() == {
        "timestamp": pd.Timestamp("2026-01-09 10:00", tz="UTC"),
        "application": "shop",
        "environment": "production",
        "commit_sha": shas[2],
        "status": "Synced",
        "health": "Unknown",
        "duration_sec": 0,
    }
    assert history.deployments[["failure_reason", "recovered"]].isna().all(axis=None)
    change = history.changes[history.changes["environment"] == "production"].iloc[-1]
    assert change.tolist() == [
        "shop",
        "production",
        shas[2],
        "2",
        pd.Timestamp("2026-01-07 10:00", tz="UTC"),
        row["timestamp"],
    ]
    (first, _) = history.coverage.astype(object).to_dict("records")
    assert [first[name] for name in ("origin", "rule", "lost")] == ["shop/dev", "path", 0]
    assert (history.source, history.environments) == ("git", ("dev", "production"))
    assert [str(day.date()) for day in history.window] == ["2026-01-05", "2026-01-10"]


VERSIONS = {
    "a kustomize newTag": "images:\n- name: shop\n  newTag: '{}'\n",
    "a kustomize digest": "images:\n- name: shop\n  digest: sha256:{}\n",
    "a tag among values": 'image:\n  repository: example.org/shop\n  tag: "{}"\n',
    "a prefix of capitals": 'API_DOCKER_TAG: "a{}"\n',
    "a prefix in camel case": "frontendTag: {}\n",
    "a variable": "export IMAGE_TAG=v{}\n",
    "an image": "    image: registry.example.org:5000/team/shop:{}\n",
    "an image by digest": "image: example.org/shop@sha256:{}\n",
    "a list of images": "- image: 'example.org/shop:{}'\n",
    "images of Argo CD's updater": "kustomize:\n  images:\n  - example.org/shop:1.{}\n",
    "parameters of Argo CD's updater": "parameters:\n- name: image.tag\n  value: v{}\n",
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
    "the version of an API": "apiVersion: apps/v{}\n",
    "a longer word": "vintage: {0}\nstage: {0}\n",
    "an image without a tag": "image: shop{}\n",
    "a port": "url: http://example.org:{}\n",
    "ports": '- "80{0}:80{0}"\n',
    "no value": "imageTag: true\nuseTag: {}\n".replace("useTag", "x"),
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


@pytest.mark.parametrize("form", NO_VERSIONS)
def test_a_commit_that_names_no_version_is_a_deployment_without_a_lead_time(forms, form):
    assert times(forms, application=form) == ["06 10:00", "09 10:00"]
    assert lead_times(forms, application=form) == {}


FOLDER = "apps/shop/overlays/production/"
NOTHING = {
    "a commit elsewhere": {"apps/shop/other/deployment.yaml": "tag: 9\n", "README.md": "tag: 9\n"},
    "documents": {FOLDER + name: "x\n" for name in ("OWNERS", "README.md", "docs/a.yaml", "x.png")},
    "a comment": {FILE.format("shop", "production"): "# tag: 9\n" + kustomization(2)},
    "a comment behind it": {FILE.format("shop", "dev"): kustomization("2 # tag: 9")},
    "an indentation": {
        FILE.format("shop", "production"): "images:\n  - name: image0\n    newTag: 2\n"
    },
    "a flag beside a version": {
        FILE.format("shop", "production"): kustomization(2) + "replicas: 9\nfrozen: true\n"
    },
    "a deleted place": {FILE.format("shop", "production"): None},
    "a renamed file": {FILE.format("shop", "dev"): ("apps/shop/overlays/dev/renamed.yaml",)},
}


@pytest.mark.parametrize("what", NOTHING)
def test_no_deployment_is(read, what):
    assert deployments(read(*TRAVELS, commit("11 10:00", NOTHING[what]))) == TRAVELLED


@pytest.mark.parametrize("what", ["a comment", "a flag beside a version", "an indentation"])
def test_the_end_of_what_deploys_nothing_takes_nothing_back(read, what):
    end = {FILE.format("shop", "production"): kustomization(2)}
    history = read(*TRAVELS, commit("11 10:00", NOTHING[what]), commit("12 10:00", end))
    assert deployments(history) == TRAVELLED
    assert rollbacks(history) == []


# ---- Lead times ---------------------------------------------------------------------------------


def test_a_version_that_travels_has_a_time_in_each_environment_and_the_parts_add_up(read):
    history = read(
        release("05 10:00", dev=1),
        release("05 12:00", staging=1),
        release("06 10:00", production=1),
    )
    assert deployments(history) == [
        ("05 10:00", "dev", "05 10:00"),
        ("05 12:00", "staging", "05 10:00"),
        ("06 10:00", "production", "05 10:00"),
    ]
    stages = ("dev", "staging", "production")
    assert [lead_times(history, stage) for stage in stages] == [
        {"05 10:00": hours} for hours in (0, 2, 24)
    ]


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


def test_what_was_there_before_production_began_waited_for_nobody(read):
    history = read(
        *(release(f"{5 + version:02} 10:00", dev=version) for version in range(5)),
        release("09 12:00", production=4),
        release("10 10:00", dev=5),
        release("10 16:00", production=5),
    )
    assert times(history) == ["09 12:00", "10 16:00"]
    assert lead_times(history) == {"10 10:00": 6}


def test_a_version_that_was_put_back_before_it_went_on_did_not_ship(read):
    history = read(
        *TRAVELS,
        release("10 10:00", dev=3),
        release("10 12:00", dev=2),
        release("11 10:00", dev=4),
        release("11 16:00", production=4),
    )
    assert lead_times(history) == {"05 10:00": 24, "07 10:00": 48, "11 10:00": 6}
    assert rollbacks(history) == [("10 10:00", "dev", 120)]


def test_there_is_no_lead_time_where_production_had_a_version_first_or_with_all_others(read):
    history = read(
        release("05 10:00", dev=1, staging=1, production=1),
        release("06 10:00", dev=2, staging=2, production=2),
        release("07 10:00", production="hotfix"),
    )
    assert len(times(history)) == 3
    assert lead_times(history) == {}
    assert waiting(history) == []


@pytest.mark.parametrize(
    "form", ["{}-approved", "prod-{}", "{}_live"], ids=["suffix", "prefix", "underscore"]
)
def test_a_word_that_only_production_adds_to_its_versions_is_followed(read, form):
    history = read(
        *(
            release(f"{5 + version:02} {hour}:00", **{name: text.format(f"v{version}")})
            for version in range(3)
            for name, hour, text in (("dev", 10, "{}"), ("production", 16, form))
        )
    )
    assert list(lead_times(history).values()) == [6, 6, 6]


def test_bots_can_be_left_out(read):
    bot = release("06 10:00", dev=2)._replace(author="renovate[bot]")
    history = read(*TRAVELS[:2], bot, release("07 10:00", production=2), ignore_authors=r"\[bot\]$")
    assert times(history) == ["06 10:00", "07 10:00"]
    assert lead_times(history) == {"05 10:00": 24}


# ---- Rollbacks ----------------------------------------------------------------------------------


def test_a_return_to_an_older_version_is_a_rollback(read):
    history = read(*TRAVELS, release("09 12:00", production=1))
    assert rollbacks(history) == [("09 10:00", "production", 120)]
    assert deployments(history) == TRAVELLED
    assert [short(time) for time in history.deployments["recovered"].dropna()] == ["09 12:00"]


def test_one_of_two_images_goes_back_while_the_other_one_went_on(read):
    path = FILE.format("shop", "production")
    tags = [("a1", "b1"), ("a2", "b1"), ("a2", "b2"), ("a1", "b2")]
    history = read(
        *(commit(f"{5 + at:02} 10:00", {path: kustomization(*two)}) for at, two in enumerate(tags))
    )
    assert times(history) == ["05 10:00", "06 10:00", "07 10:00"]
    assert rollbacks(history) == [("06 10:00", "production", 48 * 60)]


def test_a_revert_takes_back_the_release_that_it_names(config):
    """Its base changed meanwhile, so what runs afterwards never ran before."""
    path, beside = FILE.format("shop", "production"), FOLDER + "settings.yaml"
    first = [
        release("05 10:00", production=1),
        release("06 10:00", production=2),
        commit("06 11:00", {beside: "replicas: 3\n"}),
    ]
    bad = git(config(*first), "rev-parse", "main~1").decode().strip()
    back = revert("06 12:00", bad, {path: kustomization("1-again")})
    history = load_gitops_repository(config(*first, back, name="all"), TEMPLATE)
    assert times(history) == ["05 10:00", "06 10:00", "06 11:00"]
    assert rollbacks(history) == [("06 10:00", "production", 120)]


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


def test_several_clusters_of_production_count_nothing_twice(read):
    history = read(*CLUSTERS)
    assert history.environments == ("dev", "production")
    assert deployments(history, "production") == [
        ("06 10:00", "production", "05 10:00"),
        ("08 10:00", "production", "07 10:00"),
        ("09 10:00", "production", "09 10:00"),
    ]
    assert rollbacks(history) == [("08 10:00", "production", 240)]
    assert [short(time) for time in history.deployments["recovered"].dropna()] == ["08 15:00"]
    assert lead_times(history) == {"05 10:00": 24, "07 10:00": 24}


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


# ---- Clones, and what several environments share ------------------------------------------------

SHALLOW = [*TRAVELS, release("10 10:00", dev=3), release("11 10:00", production=3)]


@pytest.fixture
def cloned(config, tmp_path):
    """A function that reads a clone of the last so many commits."""

    def clone_and_read(depth, *commits):
        address = f"file://{config(*commits)}"
        git(tmp_path, "clone", "-q", f"--depth={depth}", address, "shallow", input=b"")
        return load_gitops_repository(tmp_path / "shallow", TEMPLATE)

    return clone_and_read


def test_what_a_shallow_clone_begins_with_is_no_deployment_and_it_is_said(cloned):
    history = cloned(4, *SHALLOW, release("11 12:00", production=2))
    assert lead_times(history) == {"10 10:00": 24}
    assert rollbacks(history) == [("11 10:00", "production", 120)]
    assert any("git fetch --unshallow" in note for note in history.notes)
    lost = dict(zip(history.coverage["environment"], history.coverage["lost"]))
    assert lost == {"dev": 1, "production": 1}


def test_a_partial_clone_is_named_with_the_remedy(config, tmp_path):
    folder = config(*TRAVELS)
    git(folder, "config", "uploadpack.allowFilter", "true")
    options = ("--filter=blob:none", "--no-checkout", f"file://{folder}", "partial")
    git(tmp_path, "clone", "-q", *options)
    git(tmp_path / "partial", "config", "remote.origin.url", "file:///gone")
    message = refusal(tmp_path / "partial", TEMPLATE)
    assert "--filter" in message


BOTH = [("06 10:00", name) for name in ("dev", "production")]
OVERLAY = "resources:\n- ../../base\n" + kustomization(1)
KUSTOMIZED = {FILE.format("shop", name): OVERLAY for name in ("dev", "production")}
TEXTS = {f"charts/shop/values-{name}.yaml": f"name: {name}\n" for name in ("dev", "production")}
CHARTED = {"charts/shop/Chart.yaml": "version: 1\n", **TEXTS}
VALUES = "charts/{application}/values-{environment}.yaml"


@pytest.mark.parametrize(
    ("files", "shared", "template"),
    [
        (KUSTOMIZED, "apps/shop/base/deployment.yaml", TEMPLATE),
        (
            {**KUSTOMIZED, "apps/shop/base/kustomization.yaml": "resources: [../../common/all]\n"},
            "apps/common/all/deployment.yaml",
            TEMPLATE,
        ),
        (CHARTED, "charts/shop/templates/deployment.yaml", VALUES),
        (CHARTED, "charts/shop/Chart.yaml", VALUES),
        (TEXTS, "charts/shop/values.yaml", VALUES),
        (TEXTS, "charts/shop/values-common.yaml", VALUES),
    ],
    ids=["a base", "a base of a base", "a chart", "its version", "values", "common values"],
)
def test_what_environments_share_comes_to_all_of_them_at_once(read, files, shared, template):
    first, second = ("version: 1\n", "version: 2\n")
    history = read(
        commit("05 10:00", {**files, shared: first}),
        commit("06 10:00", {shared: second}),
        template=template,
    )
    assert [row[:2] for row in deployments(history)][2:] == BOTH
    assert lead_times(history) == {}


# ---- Text that nobody vouches for ---------------------------------------------------------------


EVIL = ["\x1b[31mred", "\u202ereversed", "bell\x07", "eight\x9bbit", "tab\there", "two\nlines"]
EVIL += ['a"quote', "back\\slash", b"\xff\xfe", "line\u2028end"]


@pytest.fixture
def run(config, capsys, tmp_path):
    """A function that calls the program on a config repository; what it prints."""

    def make_and_run(commits, *options):
        arguments = ("--repo", config(*commits), "--output", tmp_path / "out", "--runs", 2)
        status, out, err = called(capsys, *arguments, "--no-dashboard", *options)
        assert (status, err) == (0, "")
        return out

    return make_and_run


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
    report = run(commits, "--deployments-from", TEMPLATE, "--export", "--details")
    written = [file.read_text(encoding="utf-8") for file in sorted((tmp_path / "out").iterdir())]
    assert len(written) >= 6
    for printed in (report, *written):
        assert not hostile(printed.replace("\n", ""))


def test_a_message_and_a_file_that_imitate_the_log_deploy_nothing(read):
    path = FILE.format("shop", "production")
    entry = f":100644 100644 {'1' * 40} {'2' * 40} M\0{path}\0"
    forged = f"{'0' * 40}\0{entry}".replace("\0", "%x00")
    history = read(*TRAVELS, commit("10 10:00", {"README": entry, entry[:60]: "x"}, body=forged))
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
    standing, first, known, came, dropped, newest = {}, {}, {}, {}, set(), {}
    before, parent = {}, None
    for sha in git(folder, "rev-list", "--first-parent", "--reverse", "main").decode().split():
        time, now = seconds[sha], tags[sha]
        new = [sha] if parent is None else [sha, f"^{parent}"]
        brought = git(folder, "rev-list", "--topo-order", "--reverse", *new).decode().split()
        for place in [place for place in now if before.get(place) != now[place]]:
            (application, stage), tag = place, now[place]
            versions = known.setdefault(application, [])
            if tag not in versions:
                author = next(one for one in brought if tags[one].get(place) == tag)
                first[application, tag] = seconds[author], sha
                versions.append(tag)
            stack = standing.setdefault(place, [])
            there = [position for position, (one, _) in enumerate(stack) if one == tag]
            left = [one for one, _ in stack[there[0] + 1 :]] if there else []
            if there:
                returned.append((stack[-1][1], *place, (time - stack[-1][1]) / 60))
                del stack[there[0] + 1 :]
            else:
                deployed.append((time, *place))
                stack.append((tag, time))
            at = versions.index(tag)
            for one in left if at < versions.index(before.get(place, tag)) else ():
                if came.get((application, one), [""])[-1] == stage:
                    dropped.add((application, one))
            dropped.discard((application, tag))
            low = newest.get(place)
            carried = [tag] if low is None or at <= low else versions[low + 1 : at + 1]
            newest[place] = at if low is None else max(at, low)
            for one in carried:
                stages = came.setdefault((application, one), [])
                if stage not in stages and (application, one) not in dropped:
                    stages.append(stage)
                    begun, landing = first[application, one]
                    waited = landing != sha and (low is not None or versions.index(one) == 0)
                    hours += [(time - begun) / 3600] if stage == "production" and waited else []
        before, parent = now, sha
    return sorted(deployed), sorted(returned), sorted(hours)


@pytest.mark.parametrize("seed", range(5))
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
    rows = history.changes.dropna(subset=["deployed"])
    rows = rows[(rows["environment"] == "production").to_numpy()]
    hours = sorted((rows["deployed"] - rows["committed"]) / pd.Timedelta(hours=1))
    plain = plain_history(folder)
    assert (*read, hours) == plain
    assert all(plain)
