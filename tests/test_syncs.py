"""What the syncs of an application come to: deployments, failures, rollbacks, recoveries.

The cases are tables. A row has the syncs, what Argo CD showed between them, and what they come to:

    A !B A | 1.5:good | A0 !B1@1.5 | B1>A2

Syncs: `A` is one that makes A run, an hour after the one before it; `!B` one that failed; `A+30`
comes 30 seconds after the one before it; `D~B` takes B back by its message; before `/A` entries
are lost. Looks: `1.5:good` is Synced and Healthy after an hour and a half, `healthy` is not yet
Synced, `degraded>1.2` is Degraded since 1.2 hours. Results: the deployments, each with the position
of its sync, `!` if it was bad, `@` and the hour in which it was good again, `+` if somebody saw it
healthy; then the rollbacks as bad>good.
"""

import random
import re

import pandas as pd
import pytest

import gitops_automation as gitops

HOUR = 3600


def read_syncs(text, automatic=False):
    """Return the syncs of a row."""
    syncs = []
    for number, token in enumerate(text.strip("/").split()):
        failed, value, takes, pause = re.fullmatch(
            r"(!?)(\w)(?:~(\w+))?(?:\+(\d+))?", token
        ).groups()
        time = syncs[-1].end + int(pause) if pause else number * HOUR
        failure = "it failed" if failed else ""
        facts = value, f"{value}{number}", failure, [value], takes or "", automatic
        syncs.append(gitops.Sync(time, time, *facts))
    return syncs


def read_looks(text):
    """Return the looks of a row."""
    looks = []
    for token in text.split():
        time, state, since = re.fullmatch(r"([\d.]+):(\w+)(?:>([\d.]+))?", token).groups()
        health = gitops.DEGRADED if state == "degraded" else gitops.HEALTHY
        begun = round(float(since or 0) * HOUR)
        looks.append(gitops.Look(round(float(time) * HOUR), health, begun, state == "good"))
    return looks


def shown(releases):
    """Return releases as in a row: deployments, rollbacks."""
    deployments, rollbacks = [], []
    for one in releases:
        over = f"@{one.recovered / HOUR:g}" if one.recovered != gitops.MISSING else ""
        name = f"!{one.sync.commit}{over}" if one.reason else one.sync.commit + "+" * one.healthy
        deployments += [name] if one.counts else []
        if one.counts and one.back:
            rollbacks.append(f"{one.sync.commit}>{one.back.sync.commit}")
    return [" ".join(deployments), " ".join(rollbacks)]


def rows(text):
    """Parametrise a test with the rows of a table, padded with empty columns."""
    cases = [[column.strip() for column in line.split("|")] for line in text.strip().split("\n")]
    cases = [case + [""] * (4 - len(case)) for case in cases]
    return pytest.mark.parametrize("case", cases, ids=[case[0] for case in cases])


def check(case, automatic=False):
    syncs, looks, *expected = case
    found = gitops.classify_syncs(
        read_syncs(syncs, automatic), read_looks(looks), syncs.startswith("/")
    )
    assert shown(found) == expected


# ---- Rule by rule: the numbers are those of the docstring of `classify_syncs` -------------------


@rows(
    """
    A           | | A0
    A B C       | | A0 B1 C2
    A !B C      | | A0 !B1@2 C2
    !A !A B     | | !A0@2 B2
    !A !B !A    | | !A0 !B1 !A2
    A A B B B   | | A0 B2
    A !B A      | | A0 !B1@2     | B1>A2
    A !B A A    | | A0 !B1@2     | B1>A2
    A !B !C A   | | A0 !B1@3 !C2@3 | B1>A3 C2>A3
    """
)
def test_1_and_2_failed_syncs_and_syncs_of_what_runs_already(case):
    check(case)


@rows(
    """
    A !B A      |           | A0 !B1@2
    A !B A      | 1.5:good  | A0 !B1@1.5
    A !B !C A   | 1.5:good  | A0 !B1@1.5 !C2@3
    A B !C A    |           | A0 !B1@3 !C2@3   | B1>A3 C2>A3
    A B !C A    | 2.5:good  | A0 !B1@3 !C2@2.5 | B1>A3
    A !B C      |           | A0 !B1@2 C2
    """
)
def test_2_where_argo_cd_syncs_a_failure_was_over_when_the_repository_went_back(case):
    """So a look or the next sync shows it, and it is no rollback."""
    check(case, automatic=True)


@rows(
    """
    A B A+59        | | A0
    A B A+60        | | A0 !B1@1.01667 | B1>A2
    A B A+59 B+600  | | A0 B3
    A B A B+30      | | A0 B1
    A B C+30        | | A0 B1 C2
    A B !A+30       | | A0 B1 !A2
    A !B A+30       | | A0 !B1@1.00833 | B1>A2
    """
)
def test_3_a_release_that_is_left_within_a_minute_for_what_ran_is_a_flap(case):
    check(case)


@rows(
    """
    A B A         | | A0 !B1@2        | B1>A2
    A B A B       | | A0 !B1@2 B3     | B1>A2
    A B C A       | | A0 B1 !C2@3     | C2>A3
    A B C A B     | | A0 B1 !C2@3 B4  | C2>A3
    A B C B A     | | A0 !B1@4 !C2@3  | B1>A4 C2>B3
    A B !C A      | | A0 !B1@3 !C2@3  | B1>A3 C2>A3
    A B !A A      | | A0 !B1@3 !A2@3  | B1>A3 A2>A3
    """
)
def test_4_a_sync_of_what_ran_before_goes_back(case):
    check(case)


@rows(
    """
    A B C D~B     | | A0 !B1@3 C2       | B1>D3
    A B D~B       | | A0 !B1@2          | B1>D2
    A B C D~BC    | | A0 !B1@3 !C2@3    | B1>D3 C2>D3
    A B D~B E~B   | | A0 !B1@2 E3       | B1>D2
    A B D~B E~D   | | A0 !B1@2 E3       | B1>D2
    A !B D~B      | | A0 !B1@2          | B1>D2
    A B D~Z       | | A0 B1 D2
    """
)
def test_5_a_sync_takes_back_what_its_messages_name_once(case):
    """A revert is not taken back: what comes after it is a deployment."""
    check(case)


@rows(
    """
    /A B      |              | B1
    /A        | 0.5:degraded | !A0
    /!A B     |              | !A0@1 B1
    /A B A    |              | !B1@2 | B1>A2
    """
)
def test_6_what_begins_after_a_gap_only_says_what_runs_unless_it_was_bad(case):
    check(case)


@rows(
    """
    A B   | 0.5:good 1.5:good          | A0+ B1+
    A B   | 0.5:healthy                | A0+ B1
    A B   | 1.5:degraded               | A0 !B1
    A B   | 1.5:degraded>1.2           | A0 !B1
    A B   | 1.5:degraded>0.2           | A0 B1
    A B   | 1.2:degraded 1.5:good      | A0 !B1@1.5
    A B   | 1.2:degraded 1.5:healthy   | A0 !B1
    A B   | 1.2:good 1.5:degraded 1.7:good 1.9:good | A0 !B1@1.7
    A B C | 1.5:degraded 2.5:good      | A0 !B1@2 C2+
    A B C | 1.5:degraded 2.2:degraded>1.9 2.5:good  | A0 !B1@2 C2+
    A B C | 1.5:degraded 2.2:degraded>2.1 2.5:good  | A0 !B1@2.5 !C2@2.5
    A B A | 1.2:degraded 1.5:good      | A0 !B1@1.5  | B1>A2
    A !B  | 1.5:good                   | A0 !B1@1.5
    A !B  | 1.5:healthy                | A0 !B1
    A !B !C | 2.5:good                 | A0 !B1@2.5 !C2@2.5
    """
)
def test_a_bad_release_is_good_again_with_a_look_or_the_next_good_release(case):
    """Health that began before the release says nothing of it."""
    check(case)


# ---- A plain calculation ------------------------------------------------------------------------


def plain_classify(syncs):
    """Return {position: '!' or ''} of the deployments, and {bad: good}, by a list of what ran."""
    made, back, ran, failed, at = {}, {}, [], [], 0
    while at < len(syncs):
        value, here, following = syncs[at].content, at, syncs[at + 1 : at + 2]
        runs = syncs[ran[-1]].content if ran else None
        at += 1
        if syncs[here].failure:
            if not failed or syncs[failed[-1]].content != value:
                failed, made[here] = [*failed, here], "!"
            continue
        if value != runs and ran and following and not following[0].failure:
            if following[0].content == runs and following[0].start - syncs[here].end < 60:
                at += 1
                continue
        older = [position for position in ran if syncs[position].content == value]
        if older:
            left = ran[-1:] if value != runs else []
            for position in left + failed:
                back[position] = here
                if position in made:
                    made[position] = "!"
            ran = ran[: ran.index(older[0]) + 1]
        else:
            ran, made[here] = [*ran, here], ""
        failed = []
    return made, {bad: good for bad, good in back.items() if bad in made}


def test_a_plain_calculation_comes_to_the_same():
    rng = random.Random(1)
    for _ in range(3000):
        time, syncs = 0, []
        for number in range(rng.randint(1, 14)):
            time += rng.choice([20, 59, 60, 61, 600, 3600])
            value, failure = rng.choice("ABCD"), "it failed" if rng.random() < 0.25 else ""
            syncs.append(gitops.Sync(time, time, value, str(number), failure))
        releases = gitops.classify_syncs(syncs)
        made = {int(one.sync.commit): "!" * bool(one.reason) for one in releases if one.counts}
        back = {
            int(one.sync.commit): int(one.back.sync.commit)
            for one in releases
            if one.back and one.counts
        }
        assert (made, back) == plain_classify(syncs)
        good = [one.sync.end for one in releases if not one.reason]
        for one in releases:
            assert not one.reason or one.recovered == gitops.MISSING or one.recovered in good


# ---- Clusters -----------------------------------------------------------------------------------


def rows_of(*rows):
    """Rows of `deployments` of the shop in production: (time, cluster, release, bad until)."""
    columns = [*gitops.COLUMNS["deployments"], "cluster", "release"]
    listed = []
    for time, cluster, release, *bad in rows:
        health, reason = (gitops.DEGRADED, f"{cluster} failed") if bad else (gitops.UNKNOWN, None)
        facts = time, "shop", "production", release, gitops.SYNCED, health, 0, reason
        listed.append((*facts, *(bad or [gitops.MISSING]), cluster, release))
    return pd.DataFrame(listed, columns=columns)


def test_a_release_counts_once_in_a_stage_at_the_first_cluster():
    merged = gitops.merge_clusters(
        rows_of((1, "eu", "v1"), (2, "us", "v1"), (4, "us", "v2"), (3, "eu", "v0"), (9, "eu", "v1"))
    )
    assert merged["timestamp"].tolist() == [1, 3, 4, 9]


@pytest.mark.parametrize(
    ("rows", "reason", "recovered"),
    [
        ([(1, "eu", "v"), (2, "us", "v", 8), (3, "asia", "v", 9)], "us failed", 9),
        ([(1, "eu", "v", 4), (2, "us", "v", 8)], "eu failed", 8),
        ([(1, "eu", "v", 4), (2, "us", "v", gitops.MISSING)], "eu failed", gitops.MISSING),
        ([(1, "eu", "v", 4), (2, "us", "v")], "eu failed", 4),
    ],
)
def test_a_release_that_fails_at_another_cluster_is_bad_until_the_last_one_recovers(
    rows, reason, recovered
):
    (row,) = gitops.merge_clusters(rows_of(*rows)).to_dict("records")
    told = row["health"], row["failure_reason"], row["recovered"]
    assert told == (gitops.DEGRADED, reason, recovered)


def test_clusters_of_a_history_have_one_row_of_coverage_and_recover_apart():
    """In Europe B goes back to A; in America B stays, which recovers nothing in Europe."""
    places = [
        gitops.Place(
            "shop", "production", name, "path", gitops.classify_syncs(read_syncs(text)), *covered
        )
        for name, text, covered in [("eu", "A B A", (0, 9, 1)), ("us", "A B", (5, 8, 2))]
    ]
    none = gitops.table_from("git_commits", [])
    history = gitops.history_from("argocd", places, none, [], [], ["production"])
    seconds = gitops.seconds_of(history.deployments["recovered"]).tolist()
    assert history.deployments["commit_sha"].tolist() == ["A0", "B1"]
    assert seconds[1] == 2 * HOUR
    (row,) = history.coverage.astype(object).to_dict("records")
    assert (row["origin"], row["lost"]) == ("eu, us", 3)
    assert [row[edge].timestamp() for edge in ("from", "to")] == [5, 9]


def test_what_clusters_roll_back_is_a_failure_of_their_stage():
    rng = random.Random(1)
    none = gitops.table_from("git_commits", [])
    for _ in range(30):
        places = []
        for name in ("eu", "us", "asia"):
            syncs = read_syncs(" ".join(rng.choices(["A", "B", "C", "!B"], k=7)))
            late = rng.randint(0, HOUR)
            moved = [one._replace(start=one.start + late, end=one.end + late) for one in syncs]
            releases = gitops.classify_syncs([one._replace(release=one.content) for one in moved])
            places.append(gitops.Place("shop", "live", name, "path", releases, 0, 9))
        history = gitops.history_from("git", places, none, [], [], ["live"])
        bad = history.deployments[history.deployments["health"] == gitops.DEGRADED]
        assert len(history.rollbacks) <= len(bad)
        assert set(history.rollbacks["from_commit"]) <= set(bad["commit_sha"])
