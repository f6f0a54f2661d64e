"""What the syncs of an application come to: deployments, failures, rollbacks, recoveries.

The cases are tables. A row has the syncs, what Argo CD showed between them, and what they come to:

    A !B A | 1.5:good | A0 !B1 | B1>A2 | B1@1.5

Syncs: `A` is one that sets A, an hour after the one before it; `!B` one that failed; `A+30` comes
30 seconds after the one before it; before `/A` entries are lost; `web=1,db=2` sets two parts. In
lower case a sync is the set of the commits that it contains, and `abc~a` reverts one of them.
Looks: `1.5:good` is Synced and Healthy after an hour and a half, `healthy` is not yet Synced,
`degraded>1.2` is Degraded since 1.2 hours.
Results: the deployments, each with the position of its sync, `!` if it was bad, or `+` if
somebody saw it healthy; the rollbacks as bad>good; when the bad ones were seen good again.
"""

import random
import re

import pytest

from gitops_automation import DEGRADED, HEALTHY, Look, Sync, classify_syncs

HOUR = 3600


def read_syncs(text, automatic=False):
    """Return the syncs of a row."""
    syncs, known = [], frozenset()
    for number, token in enumerate(text.split()):
        gap, failed, value, reverts, pause = re.fullmatch(
            r"(/?)(!?)([\w=,]+)(?:~([a-z]+))?(?:\+(\d+))?", token
        ).groups()
        time = syncs[-1].end + int(pause) if pause else number * HOUR
        parts = dict(part.split("=") for part in value.split(",")) if "=" in value else {"": value}
        commits = frozenset(value) if value.islower() and "=" not in value else frozenset()
        syncs.append(
            Sync(
                time,
                time,
                parts,
                f"{value}#{number}" if "=" in value else f"{value}{number}",
                "it failed" if failed else "",
                automatic,
                bits(commits),
                commits - known,
                frozenset(reverts or ""),
                bool(gap),
            )
        )
        known |= frozenset() if failed else commits
    return syncs


def bits(commits):
    """Return a set of one-letter commits as a number with a bit for each."""
    return sum(1 << (ord(commit) - ord("a")) for commit in commits)


def read_looks(text):
    """Return the looks of a row."""
    looks = []
    for token in text.split():
        time, state, since = re.fullmatch(r"([\d.]+):(\w+)(?:>([\d.]+))?", token).groups()
        health = DEGRADED if state == "degraded" else HEALTHY
        begun = round(float(since or 0) * HOUR)
        looks.append(Look(round(float(time) * HOUR), health, begun, state == "good"))
    return looks


def shown(found):
    """Return an outcome as in a row: deployments, rollbacks, recoveries."""
    name = [sync.commit for sync in found.releases]
    deployments = [
        f"!{name[number]}"
        if number in found.reasons
        else name[number] + "+" * (number in found.seen_healthy)
        for number in found.deployments
    ]
    rollbacks = [f"{name[bad]}>{name[good]}" for bad, good in sorted(found.restored.items())]
    over = [f"{name[bad]}@{time / HOUR:g}" for bad, time in sorted(found.recovered.items())]
    return [" ".join(column) for column in (deployments, rollbacks, over)]


def rows(text):
    """Parametrise a test with the rows of a table, padded with empty columns."""
    cases = [[column.strip() for column in line.split("|")] for line in text.strip().split("\n")]
    cases = [case + [""] * (5 - len(case)) for case in cases]
    return pytest.mark.parametrize("case", cases, ids=[case[0] for case in cases])


def check(case, automatic=False):
    syncs, looks, *expected = case
    assert shown(classify_syncs(read_syncs(syncs, automatic), read_looks(looks))) == expected


# ---- Rule by rule: the numbers are those of the docstring of `classify_syncs` -------------------


@rows(
    """
    A               | | A0
    A A B B B       | | A0 B2
    A B C           | | A0 B1 C2
    web=1 db=1      | | web=1#0 db=1#1
    web=1,db=1 db=1 | | web=1,db=1#0
    web=1,db=1 db=2 web=1,db=2 | | web=1,db=1#0 db=2#1
    !A !A B         | | !A0 B2
    !A !B !A        | | !A0 !B1 !A2
    """
)
def test_1_a_sync_of_what_runs_is_left_out_and_so_is_a_failed_one_that_is_tried_again(case):
    check(case)


@rows(
    """
    A B A+59        | | A0
    A B A+60        | | A0 !B1 | B1>A2
    A B A+59 B+600  | | A0 B3
    A B A B+30      | | A0 B1
    A B C+30        | | A0 B1 C2
    A B !A+30       | | A0 B1 !A2
    web=1,db=1 db=2 web=1+30      | | web=1,db=1#0 db=2#1
    web=1,db=1 db=2 web=1,db=1+30 | | web=1,db=1#0
    """
)
def test_2_a_release_that_is_left_within_a_minute_for_what_ran_is_a_flap(case):
    check(case)


@rows(
    """
    A B A           | | A0 !B1     | B1>A2
    A B A B         | | A0 !B1 B3  | B1>A2
    A B C A         | | A0 B1 !C2  | C2>A3
    A B C B A       | | A0 !B1 !C2 | B1>A4 C2>B3
    A B A C A       | | A0 !B1 !C3 | B1>A2 C3>A4
    a abc ab        | | a0 !abc1   | abc1>ab2
    a abc ab abc    | | a0 !abc1 abc3 | abc1>ab2
    a ab ac         | | a0 ab1 ac2
    web=1,db=1 web=2 db=2 web=1   | | web=1,db=1#0 !web=2#1 db=2#2 | web=2#1>web=1#3
    web=1,db=1 web=2,db=2 web=1,db=1 | | web=1,db=1#0 !web=2,db=2#1 | web=2,db=2#1>web=1,db=1#2
    web=1,db=1 web=2 db=2 web=1,db=1 | | web=1,db=1#0 !web=2#1 !db=2#2 \
| web=2#1>web=1,db=1#3 db=2#2>web=1,db=1#3
    web=1,db=1 web=2 web=1,db=2   | | web=1,db=1#0 web=2#1 web=1,db=2#2
    """
)
def test_3_a_release_that_equals_a_deeper_one_or_contains_less_goes_back(case):
    check(case)


@rows(
    """
    a ab abc abcd~b | | a0 !ab1 abc2 | ab1>abcd3
    a abc abcd~b    | | a0 !abc1     | abc1>abcd2
    a abc abcd~b abcde~c | | a0 !abc1 abcde3 | abc1>abcd2
    a ab abc~b abcd~c | | a0 !ab1 abcd3 | ab1>abc2
    a ab /abc abcd~b | | a0 ab1 abcd3
    ab abc~a        | | !ab0 | ab0>abc1
    """
)
def test_4_a_release_that_reverts_an_earlier_one_takes_it_back(case):
    """That release is taken back once, a revert is not taken back, and nothing is across a gap."""
    check(case)


@rows(
    """
    a abc ab a       | | a0 !abc1 | abc1>a3
    a ab abc~b a     | | a0 !ab1  | ab1>a3
    web=1,db=1 web=2,db=2 web=1 db=1 | | web=1,db=1#0 !web=2,db=2#1 | web=2,db=2#1>db=1#3
    """
)
def test_going_back_in_two_steps_is_one_rollback_with_the_last_of_them(case):
    """The first step put nothing right, and it is no deployment either."""
    check(case)


@rows(
    """
    A !B A          | | A0 !B1     | B1>A2
    A !B A A        | | A0 !B1     | B1>A2
    A !B !C A       | | A0 !B1 !C2 | B1>A3 C2>A3
    A !B C          | | A0 !B1 C2
    A B !C A        | | A0 !B1 !C2 | B1>A3 C2>A3
    a !ab abc~b     | | a0 !ab1    | ab1>abc2
    A B !A A        | | A0 !B1 !A2 | B1>A3 A2>A3
    """
)
def test_5_what_goes_back_puts_right_the_failed_syncs_before_it(case):
    check(case)


@rows(
    """
    A !B A          |           | A0 !B1    | | B1@2
    A !B A          | 1.5:good  | A0 !B1   | | B1@1.5
    A !B !C A       | 1.5:good  | A0 !B1 !C2 | | B1@1.5 C2@3
    A B !C A        |           | A0 !B1 !C2 | B1>A3 C2>A3
    A B !C A        | 2.5:good  | A0 !B1 !C2 | B1>A3 | C2@2.5
    A !B C          |           | A0 !B1 C2
    """
)
def test_5_where_argo_cd_syncs_a_failure_was_over_when_the_repository_went_back(case):
    """So a look or the next sync shows it, and it is no rollback."""
    check(case, automatic=True)


# ---- What looks show ----------------------------------------------------------------------------


@rows(
    """
    A B   | 0.5:good 1.5:good          | A0+ B1+
    A B   | 0.5:healthy                | A0+ B1
    A B   | 1.5:degraded               | A0 !B1
    A B   | 1.5:degraded>1.2           | A0 !B1
    A B   | 1.5:degraded>0.2           | A0 B1
    A B   | 1.2:degraded 1.5:good      | A0 !B1 | | B1@1.5
    A B   | 1.2:degraded 1.5:healthy   | A0 !B1
    A B   | 1.2:good 1.5:degraded 1.7:good 1.9:good | A0 !B1 | | B1@1.7
    A B C | 1.5:degraded 2.5:good      | A0 !B1 C2+
    A B A | 1.2:degraded 1.5:good      | A0 !B1 | B1>A2 | B1@1.5
    A B A | 1.5:degraded               | A0 !B1 | B1>A2
    A B A | 2.5:degraded               | A0 !B1 | B1>A2
    """
)
def test_degraded_health_makes_a_release_bad_until_a_look_or_the_next_good_release(case):
    """Health that began before the release says nothing of it."""
    check(case)


@rows(
    """
    A !B   | 1.5:good           | A0 !B1 | | B1@1.5
    A !B   | 1.5:healthy        | A0 !B1
    A !B   | 0.5:good           | A0+ !B1
    A !B C | 1.5:good           | A0 !B1 C2 | | B1@1.5
    A !B C | 2.5:good           | A0 !B1 C2+
    A !B !C | 2.5:good          | A0 !B1 !C2 | | B1@2.5 C2@2.5
    """
)
def test_a_failed_sync_is_over_when_a_look_or_the_next_good_sync_says_so_first(case):
    """The tables of the history tell the next good sync, so the recovery has only the looks."""
    check(case)


# ---- Gaps ---------------------------------------------------------------------------------------


@rows(
    """
    /A B      |              | B1
    /A        | 0.5:degraded | !A0
    /!A B     |              | !A0 B1
    A B /A    |              | A0 B1
    A B /C B  |              | A0 B1 B3
    A !B /A   |              | A0 !B1
    A !B /C   | 2.5:good     | A0 !B1
    A /B A B  |              | A0 !A2        | A2>B3
    /A B A    |              | !B1           | B1>A2
    /abc ab   |              | !abc0         | abc0>ab1
    """
)
def test_over_a_gap_nothing_is_known(case):
    """What begins the history again may have changed nothing; it counts if it was bad."""
    check(case)


# ---- A plain calculation ------------------------------------------------------------------------


def commits_in(sync):
    return {number for number in range(30) if sync.contains >> number & 1}


def standing(releases):
    """Return for each part the (value, position) of the releases that stand, oldest first."""
    stacks = {}
    for position, sync in enumerate(releases):
        if sync.after_gap:
            stacks = {}
        for part, value in {} if sync.failure else sync.moved.items():
            stack = stacks.setdefault(part, [])
            if value in [known for known, _ in stack]:
                while stack[-1][0] != value:
                    stack.pop()
                continue
            while stack and less(sync, releases[stack[-1][1]]):
                stack.pop()
            stack.append((value, position))
    return stacks


def less(sync, other):
    return bool(commits_in(sync)) and commits_in(sync) < commits_in(other)


def runs_already(sync, releases):
    stacks = standing(releases)
    tops = {part: stack[-1][0] for part, stack in stacks.items()}
    return all(part in tops and tops[part] == value for part, value in sync.moved.items())


def goes_back_from(sync, releases, done):
    """Return the releases that rules 3 and 4 take back."""
    stacks = {part: stack for part, stack in standing(releases).items() if part in sync.moved}
    tops = {part: releases[stack[-1][1]] for part, stack in stacks.items()}
    deeper = [
        part in stacks and value in [known for known, _ in stacks[part]]
        for part, value in sync.moved.items()
    ]
    if all(deeper) or any(less(sync, top) for top in tops.values()):
        left = [stack[-1][1] for part, stack in stacks.items() if stack[-1][0] != sync.moved[part]]
        return sorted(set(left))
    begin = max([at for at, one in enumerate(releases) if one.after_gap], default=0)
    named = [at for at in range(begin, len(releases)) if releases[at].adds & sync.reverts]
    return [at for at in named[-1:] if at not in done]


def plain_classify(syncs, looks):
    """Return the parts of an outcome as `parts_of` does."""
    releases, restored, went_back, over = [], {}, set(), {}
    good_looks = [look.time for look in looks if look.synced and look.health == HEALTHY]
    at = 0
    while at < len(syncs):
        sync, later = syncs[at], syncs[at + 1 : at + 2]
        at += 1
        failed = []
        for position in [] if sync.after_gap else reversed(range(len(releases))):
            if not releases[position].failure:
                break
            failed = [position, *failed]
            if releases[position].after_gap:
                break
        failed = [position for position in failed if position not in over]
        if sync.failure:
            if not failed or releases[failed[-1]].moved != sync.moved:
                releases.append(sync)
            continue
        before = [] if sync.after_gap else releases
        same = runs_already(sync, before)
        if (
            not same
            and not sync.after_gap
            and later
            and not later[0].failure
            and not later[0].after_gap
            and later[0].start - sync.end < 60
            and set(sync.moved) <= set(later[0].moved)
            and runs_already(later[0], releases)
        ):
            at += 1
            continue
        for position in failed if sync.automatic else []:
            seen = [time for time in good_looks if releases[position].end < time < sync.end]
            if seen or same:
                over[position] = seen[0] if seen else sync.end
        failed = [position for position in failed if position not in over]
        if same and not failed:
            continue
        bad = [] if same else goes_back_from(sync, before, {*restored, *went_back})
        right = [*bad, *failed] if bad or same else []
        for position in right:
            steps = [first for first in restored if restored[first] == position]
            for step in steps or [position]:
                restored[step] = len(releases)
        if right:
            went_back.add(len(releases))
        releases.append(sync)
    return (releases, *plain_judge(releases, restored, went_back, over, looks, good_looks))


def plain_judge(releases, restored, went_back, over, looks, good_looks):
    reasons = {at: sync.failure for at, sync in enumerate(releases) if sync.failure}
    for bad in restored:
        reasons.setdefault(bad, "Rolled back")
    healthy, first_degraded = set(), {}
    for look in looks:
        done = [at for at, sync in enumerate(releases) if sync.end <= look.time]
        if done and look.health == HEALTHY:
            healthy.add(done[-1])
        if done and look.health == DEGRADED and not 0 < look.since < releases[done[-1]].start:
            first_degraded.setdefault(done[-1], look.time)
            reasons.setdefault(done[-1], look.message or "Degraded health")
    recovered = dict(over)
    for bad in reasons:
        begin = releases[bad].end if releases[bad].failure else first_degraded.get(bad)
        good = [time for time in good_looks if begin is not None and time > begin]
        between = [
            at
            for at in range(bad + 1, len(releases))
            if good and releases[at].end <= good[0]
            if releases[at].after_gap or at not in reasons
        ]
        if good and not between:
            recovered.setdefault(bad, good[0])
    begins = {at for at, sync in enumerate(releases) if sync.after_gap} - reasons.keys()
    deployments = [at for at in range(len(releases)) if at not in went_back | begins]
    return deployments, restored, reasons, healthy, recovered


def parts_of(found):
    """Return (releases, deployments, {bad: good}, {bad: reason}, seen healthy, {bad: time})."""
    facts = found.restored, found.reasons, found.seen_healthy, found.recovered
    return (found.releases, found.deployments, *facts)


def random_syncs(rng, commits_known):
    """Return syncs and looks at random; with commits, a version contains some of eight."""
    parts = [""] if commits_known else rng.choice([[""], ["web", "db"]])
    content = {value: frozenset(rng.sample("abcdefgh", rng.randint(1, 5))) for value in "ABCD"}
    automatic, time, known, syncs = rng.random() < 0.5, 0, frozenset(), []
    for number in range(rng.randint(1, 14)):
        time += rng.choice([20, 59, 60, 61, 600, 3600])
        end = time + rng.choice([0, 5])
        moved = {part: rng.choice("ABCD") for part in rng.sample(parts, rng.randint(1, len(parts)))}
        commits = content[moved[""]] if commits_known else frozenset()
        failure = "it failed" if rng.random() < 0.25 else ""
        reverts = frozenset(rng.sample(sorted(known), min(len(known), rng.choice([0, 0, 1]))))
        gap = rng.random() < 0.08
        known = known if failure else known | commits
        facts = bits(commits), commits - known, reverts, gap
        syncs.append(Sync(time, end, moved, str(number), failure, automatic, *facts))
        time = end
    times = sorted(rng.randint(0, time + 100) for _ in range(rng.randint(0, 8)))
    looks = [
        Look(
            moment,
            rng.choice([HEALTHY, HEALTHY, DEGRADED, "Progressing"]),
            rng.choice([0, 0, rng.randint(0, moment)]),
            rng.random() < 0.7,
        )
        for moment in times
    ]
    return syncs, looks


@pytest.mark.parametrize("commits_known", [False, True])
def test_a_plain_calculation_comes_to_the_same(commits_known):
    for seed in range(2500):
        syncs, looks = random_syncs(random.Random(seed), commits_known)
        found = classify_syncs(syncs, looks)
        releases, _, *expected = plain_classify(syncs, looks)
        assert found.releases == releases, seed
        assert [found.restored, found.reasons, found.seen_healthy, found.recovered] == expected, (
            seed
        )
