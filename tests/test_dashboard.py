"""Reporting engine: metrics -> dashboard, by its artists and by its pixels."""

import collections
import dataclasses
import functools
import io
import itertools
import math
import os
import re
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import cbook, font_manager, patches
from matplotlib.colors import rgb_to_hsv, to_hex, to_rgb
from matplotlib.path import Path
from matplotlib.text import Text
from PIL import Image
from plain_model import END, empty_history, random_history, simulated, table

import gitops_automation as gitops
from gitops_automation import LEVELS, Environment, Scenario, Team, Window, measure

pytestmark = pytest.mark.filterwarnings("error")

TITLES = [
    "Deployments Over Time", "Success Rate by Environment", "Commit Types Distribution",
    "Deployment Status", "Deployments by Application", "DORA Metrics Scorecard",
]  # fmt: skip
TIME, RATES, TYPES, STATUS, APPLICATIONS, SCORECARD = range(6)
TWELVE_TYPES = dict(  # as in the logs of large projects
    fix=28, feat=22, chore=12, refactor=8, docs=7, test=6, perf=4, ci=4, style=3, build=3,
    other=2, revert=1,
)  # fmt: skip
TWELVE_APPLICATIONS = [
    "customer-identity-and-access-service", "payments-reconciliation-worker", "mobile-bff",
    "ORDER-FULFILMENT-ORCHESTRATOR", "WAREHOUSE-MANAGEMENT-MIDDLEWARE", *"abcdefg",
]  # fmt: skip
EIGHT_ENVIRONMENTS = (
    "dev integration qa user-acceptance-testing staging preprod-eu canary production".split()
)
ODD_APPLICATIONS = ["$x^2_1$", "日本語サービス", "🚀 rocket", r"\frac{1}{2}", "100% {pure}"]


def stages(names, applications=("frontend", "backend", "database")):
    """A scenario with short waits, and rates on both sides of the target."""
    rates = [0.99 - 0.02 * (place % 7) for place in range(len(names))]
    others = (Environment(name, rate, (1, 4)) for name, rate in zip(names[1:], rates[1:]))
    weights = {name: len(applications) + 2 - place for place, name in enumerate(applications)}
    return Scenario(
        team=Team(applications=weights),
        environments=(Environment(names[0], rates[0], (0, 0), promotion="each"), *others),
    )


SCENARIOS = {
    "default": (Scenario(), 30),
    "one day": (Scenario(), 1),
    "7 days": (Scenario(), 7),
    "90 days": (Scenario(), 90),
    "365 days": (Scenario(), 365),
    "a busy year": (Scenario().with_team(commits_per_day=300), 365),
    "one of each": (stages(["production"], ["shop"]), 30),
    "twelve applications": (stages(["dev", "production"], TWELVE_APPLICATIONS), 30),
    "twelve commit types": (Scenario().with_team(types=TWELVE_TYPES), 30),
    "five environments": (stages(EIGHT_ENVIRONMENTS[3:]), 30),
    "eight environments": (stages(EIGHT_ENVIRONMENTS), 30),
    "twelve environments": (stages([f"environment-{i:02}" for i in range(12)]), 30),
    "odd names": (stages(["$dev^", "st_a_g_i_n_g$", "生产 🚀"], ODD_APPLICATIONS), 30),
}


@functools.lru_cache(maxsize=None)
def run(name):
    """The Metrics of a scenario, or of nothing, or of a random real history (`argocd 3`)."""
    if name == "nothing":
        return measure(empty_history())
    if name in SCENARIOS:
        scenario, days = SCENARIOS[name]
        return measure(simulated(scenario, 7, Window.before(END, days))[0])
    source, seed = name.split()
    return measure(random_history(int(seed), source))


def changed(name="default", source=None, **values):
    """The Metrics of a run with other values, and the verdicts that follow, or another source."""
    metrics = run(name)
    history = metrics.history._replace(source=source or metrics.history.source)
    return dataclasses.replace(metrics, history=history, values={**metrics.values, **values})


def plain(text):
    """What a text shows: a dollar that is escaped is no mathematics."""
    assert not cbook.is_math_text(text.get_text()), text.get_text()
    return text.get_text().replace(r"\$", "$")


class Page(NamedTuple):
    """A drawn dashboard: its figure, its renderer and the texts that really were drawn."""

    figure: Any
    renderer: Any
    texts: List[Any]
    cards: Dict[str, Any]  # the box of each card, by the title on it; "" is the header

    def box(self, artist):
        return artist.get_window_extent(self.renderer)

    def of(self, number):
        """The texts on the card of a panel, without its title."""
        card = self.cards[TITLES[number]]
        middles = [(text, self.box(text).get_points().mean(axis=0)) for text in self.texts]
        return [text for text, at in middles if card.contains(*at) and plain(text) not in TITLES]

    def words(self, number):
        return list(map(plain, self.of(number)))

    def ax(self, number):
        return self.figure.axes[number]


def drawn(figure):
    """Draw a figure and note which texts are."""
    texts, draw = [], Text.draw

    def noting(self, renderer, *others, **more):
        if self.get_visible() and self.get_text().strip():
            texts.append(self)
        return draw(self, renderer, *others, **more)

    with mock.patch.object(Text, "draw", noting), gitops.picture_style():
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    fancy = [patch for patch in figure.artists if isinstance(patch, patches.FancyBboxPatch)]
    boxes = [card.get_transform().transform_path(card.get_path()).get_extents() for card in fancy]
    names = [ax.get_label() for ax in figure.axes] + [""]
    return Page(figure, renderer, texts, dict(zip(names, boxes)))


@functools.lru_cache(maxsize=None)
def page(name):
    return drawn(gitops.draw_dashboard(run(name), 100, 7))


def page_of(metrics):
    return drawn(gitops.draw_dashboard(metrics, 60))


def corners(text, renderer, slack=1):
    """The four corners of the box of a text, which may be rotated, a pixel within it."""
    middle = text.get_window_extent(renderer).get_points().mean(axis=0)
    turn = math.radians(text.get_rotation())
    text.set_rotation(0)
    box = text.get_window_extent(renderer)
    text.set_rotation(math.degrees(turn))
    right = np.array([math.cos(turn), math.sin(turn)]) * (box.width / 2 - slack)
    up = np.array([-math.sin(turn), math.cos(turn)]) * (box.height / 2 - slack)
    return np.array([middle + a * right + b * up for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])


def clashes(shown):
    """The pairs of texts that reach into each other."""
    paths = [(plain(text), Path(corners(text, shown.renderer))) for text in shown.texts]
    return [
        (a, b)
        for (a, one), (b, other) in itertools.combinations(paths, 2)
        if one.intersects_path(other, filled=True)
    ]


def in_pages(*names):
    """Run a test on these pages; on most of them it is slow."""
    fast = ("default", "eight environments", "nothing")
    slow = {name: [pytest.mark.slow] * (name not in fast) for name in names}
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks) for name, marks in slow.items()]
    )


ALL = (*SCENARIOS, "nothing", "argocd 1", "argocd 3", "git 4", "tags 5", "files 6")

# ---- The page ------------------------------------------------------------------------------------


def test_the_page_is_eighteen_by_ten_inches_with_six_titled_panels_in_two_rows():
    shown = page("default")
    assert tuple(shown.figure.get_size_inches()) == (18, 10)
    assert [name for name in shown.cards if name] == TITLES
    titles = [shown.box(text) for text in shown.texts if plain(text) in TITLES]
    for row in (titles[:3], titles[3:]):
        assert row[0].x1 < row[1].x0 < row[1].x1 < row[2].x0
        assert max(box.y0 for box in row) - min(box.y0 for box in row) < 1
    margins = [box.x0 - shown.cards[name].x0 for box, name in zip(titles, TITLES)]
    assert max(margins) - min(margins) < 2


@in_pages(*ALL)
def test_each_text_lies_on_one_card_clear_of_others_and_a_legend_clear_of_the_data(name):
    shown, font = page(name), font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    cards = shown.cards.values()
    assert not clashes(shown)
    for text in shown.texts:
        corner = shown.box(text).get_points()
        assert any(all(card.padded(-3).contains(*at) for at in corner) for card in cards), text
        assert not re.search(r"\bnan\b|\de[+-]?\d", plain(text))
        assert all(font.get_char_index(ord(one)) for one in plain(text).replace("\n", ""))
    assert min(text.get_fontsize() for text in shown.texts) >= 7
    for ax in filter(lambda ax: ax.axison, shown.figure.axes):
        if ax.get_legend():
            box, card = shown.box(ax.get_legend()), shown.cards[ax.get_label()]
            assert card.x0 < box.x0 and box.x1 < card.x1 and card.y0 < box.y0
            assert box.y1 < ax.bbox.y0
        for axis in (ax.xaxis, ax.yaxis):
            ticks = [tick.label1 for tick in axis.get_major_ticks()]
            said = [plain(text) for text in ticks if any(text is other for other in shown.texts)]
            assert len(set(said)) == len(said)


def header_of(metrics, *others):
    """The texts of the header of a dashboard."""
    shown = drawn(gitops.draw_dashboard(metrics, 50, *others))
    return {plain(text): text for text in shown.texts if shown.box(text).y0 > shown.cards[""].y0}


@pytest.mark.slow
def test_the_header_says_what_is_simulated_and_names_the_source_of_what_is_not():
    dates, title = "2026-01-01 to 2026-01-30 UTC, 30 days", "GitOps delivery dashboard"
    counts = {"462 deployments", "88 of them to production"}
    for source, badge in {
        "simulated": "SIMULATED",
        "git": "Desired state, from the config repository",
        "argocd": "Measured from Argo CD",
        "tags": "Measured from release tags",
        "files": "Measured from tables",
        gitops.SIMULATED_TABLES: "SIMULATED, read from tables",
    }.items():
        said = header_of(changed(source=source), 7)
        seed = ", seed 7" * (source == "simulated")
        assert {*said} == {title, badge, dates + seed, *counts}
        dark = sum(to_rgb(said[badge].get_bbox_patch().get_facecolor())) < 1
        assert dark == ("SIMULATED" in badge)
    assert "SIMULATED deployments of real commits" in header_of(run("default"), 7, True)


# ---- Deployments over time -----------------------------------------------------------------------


def daily(history, environment):
    """How many deployments an environment has on each day of the window."""
    mine = history.deployments.loc[history.deployments["environment"] == environment, "timestamp"]
    days = pd.date_range(history.window.start, periods=history.window.days, tz="UTC")
    return mine.dt.floor("D").value_counts().reindex(days, fill_value=0).to_numpy()


def knots(line):
    """The counts that a line passes through, each with a dot."""
    return line.get_ydata()[:: line.get_markevery()]


@in_pages("default", "one day", "7 days", "eight environments", "90 days", "365 days")
def test_a_line_passes_through_the_count_of_each_day_or_the_mean_of_each_of_many_weeks(name):
    history, ax = run(name).history, page(name).ax(TIME)
    days, weekly = history.window.days, history.window.days > 60
    assert ax.get_ylabel() == "Deployments a day" + ", weekly mean" * weekly
    assert len(ax.get_lines()) == len(history.environments)
    for line, environment in zip(ax.get_lines(), history.environments):
        counts, at = daily(history, environment), np.arange(days)
        if weekly:  # counted from the end
            counts = counts[days % 7 :].reshape(-1, 7).mean(axis=1)
            at = days % 7 + 3 + 7 * np.arange(len(counts))
        assert line.get_xdata()[:: line.get_markevery()] == pytest.approx(at)
        assert knots(line) == pytest.approx(counts)
        assert line.get_marker() not in ("None", "", None)


counts_of_days = st.lists(st.one_of(st.integers(0, 30), st.just(math.nan)), min_size=1, max_size=20)


@given(counts=counts_of_days, steps=st.integers(1, 20))
def test_a_line_stays_between_two_counts_and_stops_where_one_is_unknown(counts, steps):
    counts = np.array(counts, float)
    line = gitops.monotone_line(counts, steps)
    assert len(line) == (len(counts) - 1) * steps + 1
    assert np.array_equal(line[::steps], counts, equal_nan=True)
    for day, (low, high) in enumerate(zip(counts, counts[1:])):
        piece = line[day * steps : (day + 1) * steps + 1]
        if math.isnan(low) or math.isnan(high):
            assert np.isnan(piece[1:-1]).all()
        else:
            assert (np.diff(piece) * np.sign(high - low) >= -1e-9).all()
            assert (np.diff(piece) == 0).all() or low != high


def test_days_and_weeks_of_which_something_is_not_known_are_not_drawn():
    for name, days, unknown, missing in (("default", 30, [3, 20], [3, 20]), ("90 days", 90, 20, 2)):
        known = np.ones((3, days), bool)
        known[0, unknown] = False  # of ninety days the first six are of no whole week
        metrics = dataclasses.replace(run(name), days_known=known)
        dev, staging, _ = page_of(metrics).ax(TIME).get_lines()
        assert np.flatnonzero(np.isnan(knots(dev))).tolist() == np.ravel(missing).tolist()
        assert not np.isnan(staging.get_ydata()).any()


def test_dev_is_blue_where_staging_is_orange_next_to_a_thicker_green_production():
    lines = page("default").ax(TIME).get_lines()
    assert [to_hex(line.get_color()) for line in lines] == ["#1f77b4", "#ff7f0e", "#2ca02c"]
    assert lines[2].get_linewidth() > lines[1].get_linewidth()
    many = page("eight environments").ax(TIME).get_lines()
    colours = dict(zip(EIGHT_ENVIRONMENTS, (to_hex(line.get_color()) for line in many)))
    assert colours["production"] == "#2ca02c"
    assert len(set(colours.values())) == 8
    looks = [(line.get_linestyle(), line.get_marker()) for line in many]
    assert all(len(set(looks[at : at + 4])) == 4 for at in range(5))  # told apart without colours


def test_the_legend_names_the_environments_and_those_beyond_eight_as_others():
    for name, words in {
        "default": ["dev", "staging", "production"],
        "five environments": ["user-a…sting", "staging", "preprod-eu", "canary", "production"],
        "twelve environments": ["others", *(f"enviro…nt-{i:02}" for i in range(4, 12))],
    }.items():
        ax = page(name).ax(TIME)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == words
    history = run("twelve environments").history
    summed = sum(daily(history, environment) for environment in history.environments[:4])
    assert list(knots(ax.get_lines()[0])) == list(summed)


@pytest.mark.parametrize(("days_before", "length"), [(5, 10), (2, 1)])
def test_only_weekends_are_shaded_and_where_weeks_are_drawn_none(days_before, length):
    window = Window.before(END - pd.Timedelta(days=days_before), length)
    history, _ = simulated(Scenario(), 7, window)
    stripes = page_of(measure(history)).ax(TIME).patches
    boxes = [one.get_path().get_extents(one.get_patch_transform()) for one in stripes]
    days = pd.date_range(window.start, periods=length, tz="UTC")
    weekends = [at for at, day in enumerate(days) if day.day_name() in ("Saturday", "Sunday")]
    assert [(box.x0, box.x1) for box in boxes] == [(at - 0.5, at + 0.5) for at in weekends]
    assert not page("90 days").ax(TIME).patches


@in_pages("default", "7 days", "90 days", "365 days")
def test_at_most_six_dates_stand_below_their_places(name):
    start, ax = run(name).history.window.start, page(name).ax(TIME)
    labels = [text.get_text() for text in ax.get_xticklabels()]
    assert 3 <= len(labels) <= 6
    pattern = "%b %Y" if name == "365 days" else "%d %b"
    dates = [start + pd.Timedelta(days=int(place)) for place in ax.get_xticks()]
    assert labels == [date.strftime(pattern) for date in dates]
    assert name != "365 days" or {date.day for date in dates} == {1}


# ---- Success rate by environment -----------------------------------------------------------------


def with_health(**outcomes):
    """The Metrics of a real history with (healthy, degraded, unknown) deployments to each."""
    window, rows = Window.before(END, 30), []
    for environment, counts in outcomes.items():
        for health, count in zip(("Healthy", "Degraded", "Unknown"), counts):
            row = (window.start, "shop", environment, "0" * 40, "Synced", health, 9, None, pd.NaT)
            rows += [row] * count
    deployments = table("deployments", *rows)
    tables = table("git_commits"), deployments, table("rollbacks")
    return measure(gitops.History(*tables, window, tuple(outcomes), "argocd"))


def bars_of(ax):
    return [patch for patch in ax.patches if isinstance(patch, patches.Rectangle)]


def rate_labels(shown):
    """The texts above the bars of the success rates, from left to right."""
    return [text for text in shown.ax(RATES).texts if "Target" not in plain(text)]


@in_pages("default", "eight environments", "one of each", "argocd 1", "argocd 3", "argocd 7")
def test_the_bars_are_as_high_as_the_success_rates_and_say_of_how_many(name):
    values = run(name).values
    rates, shown = values["success_rates"], page(name)
    heights = [bar.get_height() for bar in bars_of(shown.ax(RATES))]
    assert heights == pytest.approx(np.nan_to_num(list(rates.values())).tolist())
    below = [plain(text) for text in shown.ax(RATES).get_xticklabels()]
    counts = values["deployments_by_environment"].values()
    assert [text.rpartition("n=")[2] for text in below] == [f"{count:,}" for count in counts]
    for text, rate in zip(rate_labels(shown), rates.values()):
        assert plain(text).endswith("n/a" if math.isnan(rate) else f"{rate:.1f}%")


def test_a_bar_is_green_from_the_target_on_yellow_from_90_else_red_and_has_a_mark():
    rates = dict(zip("abcdef", (100, 95, 94, 90, 89, 0)))
    shown = page_of(with_health(**{name: (rate, 100 - rate, 0) for name, rate in rates.items()}))
    colours = [to_hex(bar.get_facecolor()) for bar in bars_of(shown.ax(RATES))]
    assert colours == ["#2e9e5b"] * 2 + ["#f2c230"] * 2 + ["#d64545"] * 2
    said = [f"{mark}\n{rate:.1f}%" for mark, rate in zip("✓✓!!✗✗", rates.values())]
    assert [plain(text) for text in rate_labels(shown)] == said
    (line,) = shown.ax(RATES).get_lines()  # the target
    assert (list(line.get_ydata()), line.get_linestyle()) == ([95, 95], "--")
    assert to_rgb(line.get_color())[1] > max(to_rgb(line.get_color())[::2])
    assert line.get_zorder() > max(bar.get_zorder() for bar in bars_of(shown.ax(RATES)))
    assert "Target\n95%" in shown.words(RATES)


@pytest.mark.slow
@pytest.mark.parametrize("first", [100, 95, 90, 85, 80, 75, 30])
@pytest.mark.parametrize("names", ["a", "abc", "abcde", "abcdefgh"])
def test_a_rate_stands_in_bold_above_its_bar_and_never_on_the_target_line(first, names):
    rates = range(first, first - len(names), -1)
    counts = {name: (rate, 100 - rate, 0) for name, rate in zip(names, rates)}
    shown = page_of(with_health(**counts))
    ax = shown.ax(RATES)
    target = ax.transData.transform((0, 95))[1]
    for text, bar in zip(rate_labels(shown), bars_of(ax)):
        box, over = shown.box(text), bar.get_x() + bar.get_width() / 2
        x, y = ax.transData.transform((over, bar.get_height()))
        assert text.get_fontweight() == "bold"
        assert box.y0 >= y - 1 and not box.y0 <= target <= box.y1
        assert (box.x0 + box.x1) / 2 == pytest.approx(x, abs=1)
    assert not clashes(shown)


def test_a_rate_that_is_only_an_upper_bound_is_neither_green_nor_called_met():
    """Some of the deployments were not looked at: they may have failed."""
    shown = page_of(with_health(dev=(95, 5, 0), staging=(90, 3, 7), production=(50, 30, 20)))
    assert [plain(text) for text in rate_labels(shown)] == ["✓ 95.0%", "≤ 97.0%", "✗ ≤ 70.0%"]
    colours = [to_hex(bar.get_facecolor()) for bar in bars_of(shown.ax(RATES))]
    assert colours == ["#2e9e5b", "#9aa5b1", "#d64545"]
    assert shown.ax(RATES).get_ylabel() == "Not seen to fail (%)"
    shown = page_of(with_health(dev=(0, 0, 5), production=(0, 0, 5)))
    assert shown.words(RATES) == ["Unknown: failures are not observable here"]


def slices(shown):
    """{name: (share, colour)} of a pie, as its labels say."""
    ax, found = shown.ax(TYPES), {}
    wedges = [patch for patch in ax.patches if isinstance(patch, patches.Wedge)]
    for text, wedge in zip(filter(plain, ax.texts), wedges):
        name, _, percent = plain(text).rpartition(" ")
        share = (wedge.theta2 - wedge.theta1) / 360
        assert percent == f"{100 * share:.1f}%"
        found[name] = share, to_hex(wedge.get_facecolor())
    assert sum(share for share, _ in found.values()) == pytest.approx(1, abs=1e-4)
    return found


@in_pages("default", "twelve commit types", "7 days", "365 days")
def test_the_slices_are_the_shares_of_the_commit_types_beyond_eight_of_the_others(name):
    types = run(name).history.git_commits["type"]
    shares = collections.Counter(types.tolist())
    shown = slices(page(name))
    others, _ = shown.pop("others", (0, None))
    named = {"other" if word == "no type" else word: share for word, (share, _) in shown.items()}
    assert named == {word: pytest.approx(shares[word] / len(types), abs=1e-4) for word in named}
    assert others == pytest.approx(1 - sum(named.values()), abs=1e-4)
    assert len(named) == (8 if len(shares) > 9 else len(shares))


@in_pages("default", "365 days")
def test_the_synced_in_green_stand_beside_the_failed_in_red_with_their_counts_in_bold(name):
    status = run(name).history.deployments["status"]
    counts = [(status == word).sum() for word in ("Synced", "Failed")]
    shown = page(name)
    bars = [bar for bar in bars_of(shown.ax(STATUS)) if bar.get_height()]
    assert [bar.get_height() for bar in bars] == counts
    assert [to_hex(bar.get_facecolor()) for bar in bars] == ["#2e9e5b", "#d64545"]
    assert {"Synced", "Failed", "Deployments, all environments"} <= set(shown.words(STATUS))
    labels = shown.ax(STATUS).texts
    assert [plain(label) for label in labels] == [f"{count:,}" for count in counts]
    assert all(label.get_fontweight() == "bold" for label in labels)
    assert shown.ax(STATUS).get_legend() is None  # where all is known and good


def test_what_turned_out_bad_is_hatched_what_nobody_saw_is_muted_and_what_none_sees_is_unknown():
    """So the panel does not look better than the success rates beside it."""
    counts = dict(total_deployments=105, failed_deployments=25, unseen_deployments=30)
    counts["deployments_by_status"] = {"Synced": 100, "Failed": 5}
    shown = page_of(changed(source="argocd", **counts))
    healthy, unseen, bad, failed = bars_of(shown.ax(STATUS))
    assert [bar.get_height() for bar in (healthy, unseen, bad, failed)] == [50, 30, 20, 5]
    assert [bar.get_y() for bar in (healthy, unseen, bad, failed)] == [0, 50, 80, 0]
    assert bad.get_hatch() and not healthy.get_hatch() and not unseen.get_hatch()
    assert rgb_to_hsv(to_rgb(unseen.get_facecolor()))[1] < 0.15
    words = {"Healthy: 50", "health not seen: 30", "Synced, then Degraded: 20", "100", "5 seen"}
    assert words <= set(shown.words(STATUS))
    texts = page_of(changed(source="git", **counts)).ax(STATUS).texts
    assert plain(texts[1]).startswith("unknown:")


def test_the_applications_ascend_in_pink_with_a_black_edge_and_beyond_the_eighth_are_one():
    counts = {name: 100 - place for place, name in enumerate("abcdefghijkl")}
    for names, shown in (
        ("abc", "cba"),
        ("abcdefghi", "ihgfedcba"),
        (counts, ["others", *"hgfedcba"]),
    ):
        ranking = {name: counts[name] for name in names}
        ax = page_of(changed(deployments_by_application=ranking)).ax(APPLICATIONS)
        bars, rest = bars_of(ax), sum(ranking.values()) - sum(list(ranking.values())[:8])
        assert [text.get_text() for text in ax.get_yticklabels()] == list(shown)
        widths = [ranking.get(name, rest) for name in shown]
        assert [bar.get_width() for bar in bars] == widths
        assert {to_hex(bar.get_facecolor()) for bar in bars} == {"#f093fb"}
        assert {to_hex(bar.get_edgecolor()) for bar in bars} == {"#000000"}
        assert [plain(text) for text in ax.texts] == [str(width) for width in widths]
        assert all(text.get_fontweight() == "bold" for text in ax.texts)


# ---- Scorecard -----------------------------------------------------------------------------------

ELITE = dict(
    deployment_frequency=13.73, mean_lead_time=12.45, mttr_minutes=12.34, change_failure_rate=6.07
)
AT_LEVEL = {4: {}, 3: {"mean_lead_time": 36.0}, 2: {"mean_lead_time": 36.0, "mttr_minutes": 90.0}}
AT_LEVEL[0] = {**AT_LEVEL[2], "change_failure_rate": 20.0, "deployment_frequency": 0.5}
MARKS = {1.0: "✓", 0.0: "✗"}


@in_pages("default", "one day", "nothing", "argocd 1", "argocd 3", "git 4", "tags 5", "files 6")
def test_the_scorecard_says_of_each_row_its_value_its_verdict_and_what_it_is_made_of(name):
    metrics, words = run(name), page(name).words(SCORECARD)
    marks = [MARKS.get(met, "?") for met in metrics.met.values()]
    assert [word for word in words if word in "✓✗?"] == marks
    verdicts = [word for word in words if re.match("met: |missed: |not judged: ", word)]
    for key, verdict in zip(metrics.rows, verdicts):
        row, met = metrics.rows[key], metrics.met[key]
        assert {row.metric.label, row.text} <= set(words)
        assert verdict.startswith({1.0: "met: ", 0.0: "missed: "}.get(met, "not judged: "))
        assert row.why[-20:] in verdict
        assert math.isnan(met) or f"elite {gitops.TARGETS[key].words}" in verdict
    said = f"{metrics.score} of 4 elite targets met"
    unjudged = f", {len(metrics.unjudged)} not judged" * (metrics.level is None)
    assert f"{said}{unjudged}, {metrics.scope}" in words
    assert ("NOT ASSESSABLE" in words) == (metrics.level is None)
    disc = [line for line in page(name).ax(SCORECARD).lines if line.get_marker() == "o"]
    assert len(disc) == (metrics.level is not None)
    texts, values = page(name).of(SCORECARD), {row.text for row in metrics.rows.values()}
    assert all("DejaVu Sans Mono" in text.get_fontfamily() for text in texts)
    edges = [page(name).box(text).x1 for text in texts if plain(text) in values]
    assert max(edges) - min(edges) < 2  # the values end in one column


@pytest.mark.parametrize("level", LEVELS, ids=[level.name for level in LEVELS])
def test_a_level_has_a_disc_of_its_colour_with_its_rank_beside_its_name(level):
    shown = page_of(changed(**{**ELITE, **AT_LEVEL[level.score]}))
    ax, words = shown.ax(SCORECARD), {plain(text): text for text in shown.of(SCORECARD)}
    (disc,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert disc.get_color() == level.medal
    rank = words.pop("123↗"[LEVELS.index(level)])
    assert words[level.name].get_fontsize() == max(text.get_fontsize() for text in words.values())
    radius = disc.get_markersize() / 2 * shown.figure.dpi / 72
    middle = ax.transData.transform((disc.get_xdata()[0], disc.get_ydata()[0]))
    assert np.abs(shown.box(rank).get_points() - middle).max() < radius
    boxes = [shown.box(text) for text in words.values()]
    assert all(box.x0 > middle[0] + radius or box.y1 < middle[1] - radius for box in boxes)
    assert len({one.medal for one in LEVELS}) == 4


def test_a_panel_without_data_says_so():
    shown = page("nothing")
    for number in (TIME, RATES, STATUS, APPLICATIONS):
        assert shown.words(number) == ["No deployment is known in this window"]
    assert shown.words(TYPES) == ["No commit is known in this window"]
    shown = page_of(with_health(dev=(9, 1, 0), production=(0, 0, 0)))
    for number in (STATUS, APPLICATIONS):
        assert shown.words(number) == ["No deployment to production is known"]
    assert "n/a" in shown.words(RATES)


# ---- Pixels --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def png():
    return gitops.render_png(gitops.draw_dashboard(run("default")))


def test_the_picture_is_a_palette_png_of_5400_by_3000_pixels_and_about_300_kilobytes(png):
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode, image.size) == ("PNG", "P", (5400, 3000))
    assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert 250_000 < len(png) < 350_000
    palette = np.reshape(image.getpalette(), (-1, 3))[np.unique(np.asarray(image))].tolist()
    for colour in ("#1f77b4", "#ff7f0e", "#2ca02c", "#f093fb", "#e9edf1", "#000000", "#ffffff"):
        assert [round(255 * part) for part in to_rgb(colour)] in palette


def test_the_page_is_transparent_between_white_cards(png):
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    alpha = pixels[..., 3]
    assert ((alpha > 0) & (alpha < 255)).mean() < 0.005  # the edges of the cards
    assert (alpha[[0, -1]] == 0).all() and (alpha[:, [0, -1]] == 0).all()
    for box in page("default").cards.values():
        x0, x1 = (int(x * 3) for x in (box.x0, box.x1))
        y0, y1 = (int(3000 - y * 3) for y in (box.y1, box.y0))
        inside = pixels[y0 + 40 : y1 - 40 : 10, [x0 + 20, x1 - 20]]
        assert (inside == 255).all()
        gap = alpha[y0 + 60 : y1 - 60, [x0 - 15, x1 + 15]]
        assert (gap == 0).all()


def test_nothing_that_draws_is_imported_before_a_picture_is_wanted():
    """A run with --json --no-dashboard starts in two thirds of the time."""
    loaded = "[name for name in ('matplotlib', 'seaborn') if name in sys.modules]"
    program = [sys.executable, "-c", f"import sys, gitops_automation; print({loaded})"]
    folder = os.path.dirname(gitops.__file__)
    ran = subprocess.run(program, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    assert ran.stdout.strip() == "[]"
