"""Release tags of any repository: a tag on the main line is a deployment to production."""

import argocd_documents as argo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repositories import Commit, git, imported, stream_of

from gitops_automation import GitOpsError, load_release_tags, measure


def commit(day, subject=None, author="ann", **more):
    files = {f"src/{day}.py": subject or f"day {day}"}
    seconds = argo.seconds(f"2026-01-{day:02} 10:00")
    return Commit(seconds, files, subject or f"day {day}", author, **more)


@pytest.fixture
def tagged(tmp_path):
    """A function that makes a repository of commits, of which some have tags: {subject: tag}."""

    def make(tags, *commits):
        folder = imported(tmp_path / "shop", input=b"".join(stream_of(commits)))
        log = git(folder, "log", "--all", "--format=%H %s").decode().splitlines()
        shas = {subject: sha for sha, _, subject in (line.partition(" ") for line in log)}
        for subject, name in tags.items():
            git(folder, "tag", name, shas[subject])
        return folder

    return make


def changes(history):
    """[(day committed, version, day deployed)]; a day that is missing is 0."""
    rows = history.changes.fillna({"deployed": history.window.start.replace(year=1999)})
    return [
        (row.committed.day, row.version, row.deployed.day * (row.deployed.year > 1999))
        for row in rows.sort_values("committed").itertuples()
    ]


WEEK = [commit(day) for day in range(1, 8)]


def test_a_tag_ships_the_commits_since_the_one_before(tagged):
    folder = tagged({"day 2": "v1.0", "day 5": "v1.1", "day 6": "other"}, *WEEK)
    history = load_release_tags(folder)
    assert changes(history) == [
        (2, "v1.0", 2), (3, "v1.1", 5), (4, "v1.1", 5), (5, "v1.1", 5), (6, "", 0), (7, "", 0),
    ]  # fmt: skip
    assert list(history.deployments["application"].unique()) == ["shop"]
    assert (history.source, history.environments) == ("tags", ("production",))
    table = measure(history).production_rows
    lead = table["change_lead_time_hours"]
    assert (lead.value, lead.n, lead.open) == (12, 4, 2)
    assert table["deployment_frequency_per_day"].n == 2


def test_an_annotated_tag_is_deployed_when_it_was_made(tagged):
    folder = tagged({"day 2": "v1"}, *WEEK)
    late = {"GIT_COMMITTER_DATE": f"{argo.seconds('2026-01-09 12:00')} +0000"}
    who = ("-c", "user.name=ann", "-c", "user.email=a@example.org")
    git(folder, *who, "tag", "-am", "two", "v2", "HEAD~1", variables=late)
    assert changes(load_release_tags(folder))[-2:] == [(6, "v2", 9), (7, "", 0)]


@pytest.mark.parametrize(
    ("subject", "tag", "failed"),
    [('Revert "day 2"', "v2", 1), ("hotfix: prices", "v2", 1), ("day 4", "v1.0.1-hotfix", 1)]
    + [('Revert "day 3"', "v2", 0)],
)
def test_a_release_that_reverts_or_hotfixes_says_that_the_one_before_failed(
    tagged, subject, tag, failed
):
    """What is reverted before its release is no failure."""
    commits = [commit(1), commit(2), commit(3, "day 3"), commit(4, subject), commit(6)]
    history = load_release_tags(tagged({"day 1": "v0", "day 2": "v1", subject: tag}, *commits))
    rows = history.deployments
    assert rows["health"].tolist() == ["Unknown", "Degraded" if failed else "Unknown", "Unknown"]
    assert rows["recovered"].dropna().dt.day.tolist() == [4] * failed
    assert measure(history).production_rows["change_fail_rate_pct"].at_least == bool(failed)


def test_a_merged_branch_ships_its_commits_and_not_the_merge(tagged):
    side = [commit(2)._replace(branch="side"), commit(3)._replace(branch="side")]
    merge = commit(4, merges="side")._replace(files={})
    history = load_release_tags(tagged({"day 1": "v1", "day 4": "v2"}, commit(1), *side, merge))
    assert changes(history) == [(1, "v1", 1), (2, "v2", 4), (3, "v2", 4)]


def test_a_pre_release_is_none_unless_there_are_no_others(tagged):
    folder = tagged(
        {"day 2": "v1", "day 3": "v2.0.0-rc.1", "day 4": "v2.0a1", "day 5": "v2"}, *WEEK
    )
    assert len(load_release_tags(folder).deployments) == 2
    assert len(load_release_tags(folder, ["v2.0*"]).deployments) == 2


def test_changes_of_bots_can_be_left_out(tagged):
    commits = [commit(1), commit(2, author="renovate[bot]"), commit(3)]
    folder = tagged({"day 1": "v1", "day 2": "v2", "day 3": "v3"}, *commits)
    history = load_release_tags(folder, "v*", ignore_authors="bot")
    assert [day for day, _, _ in changes(history)] == [1, 3]
    assert len(history.deployments) == 3
    with pytest.raises(GitOpsError, match="--ignore-authors"):
        load_release_tags(folder, ignore_authors="(")


def test_patterns_without_a_tag_show_those_there_are(tagged):
    folder = tagged({"day 2": "release-1", "aside": "v9"}, *WEEK, commit(8, "aside", branch="x"))
    for patterns in ("v1*", "v*"):  # no tag at all, and one that the main line does not contain
        with pytest.raises(GitOpsError, match="release-1.*--tags"):
            load_release_tags(folder, patterns)
    with pytest.raises(GitOpsError, match="'release-\\*'"):
        load_release_tags(tagged({}, *WEEK))


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any))
def test_every_commit_ships_once_or_waits(tmp_path_factory, is_tagged):
    commits = [commit(day) for day in range(1, len(is_tagged) + 1)]
    folder = imported(tmp_path_factory.mktemp("tags"), input=b"".join(stream_of(commits)))
    shas = git(folder, "rev-list", "--reverse", "HEAD").decode().split()
    days = [day for day, one in enumerate(is_tagged, 1) if one]
    for day in days:
        git(folder, "tag", f"v{day}", shas[day - 1])
    shipped = [
        next((later for later in days if later >= day), 0) for day in range(1, len(shas) + 1)
    ]
    expected = [(day, then) for day, then in enumerate(shipped, 1) if day >= days[0]]
    assert [(day, then) for day, _, then in changes(load_release_tags(folder))] == expected
