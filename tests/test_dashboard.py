"""Reporting engine: metrics -> dashboard, by its artists and by its pixels."""

import colorsys
import dataclasses
import functools
import io
import itertools
import math
import re
import warnings
from typing import Any, Dict, List, NamedTuple
from unittest import mock

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import cbook, patches
from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from plain_model import END, empty_history, simulated, table

import gitops_automation as gitops
from gitops_automation import (
    LEVELS,
    Environment,
    Scenario,
    Window,
    as_table,
    draw_dashboard,
    measure,
    plot_commit_types,
    plot_deployment_status,
    plot_deployments_by_application,
    plot_deployments_over_time,
    plot_scorecard,
    plot_success_rates,
    render_png,
)

pytestmark = pytest.mark.filterwarnings("error")

TITLES = [
    "Deployments Over Time",
    "Success Rate by Environment",
    "Commit Types Distribution",
    "Deployment Status",
    "Deployments by Application",
    "DORA Metrics Scorecard",
]

TWELVE_TYPES = dict(  # as in the logs of large projects
    fix=28,
    feat=22,
    chore=12,
    refactor=8,
    docs=7,
    test=6,
    perf=4,
    ci=4,
    style=3,
    build=3,
    other=2,
    revert=1,
)
TWELVE_APPLICATIONS = [
    "customer-identity-and-access-service",
    "payments-reconciliation-worker",
    "inventory-forecasting-pipeline",
    "ORDER-FULFILMENT-ORCHESTRATOR",
    "notification-delivery-gateway",
    "recommendation-model-trainer",
    "search-indexing-backend",
    "storefront-web",
    "mobile-bff",
    "pricing",
    "fraud-detection-realtime-scorer",
    "WAREHOUSE-MANAGEMENT-MIDDLEWARE",
]
SEVEN_ENVIRONMENTS = [
    "dev",
    "integration",
    "qa",
    "user-acceptance-testing",
    "staging",
    "canary",
    "production",
]
ODD_APPLICATIONS = [
    "$x^2_1$",
    "日本語サービス",
    "🚀 rocket",
    "a_b^c",
    r"\frac{1}{2}",
    "100% {pure}",
    "it's <b>&amp;",
]


def stages(names):
    """A scenario with these environments, short waits, and rates on both sides of the target."""
    return Scenario(
        environments=tuple(
            Environment(
                name,
                0.99 - 0.02 * (i % 7),
                (1, 4) if i else (0, 0),
                promotion="newest" if i else "each",
            )
            for i, name in enumerate(names)
        )
    )


SCENARIOS = {
    "default": (Scenario(), 30),
    "twelve commit types": (Scenario().with_team(types=TWELVE_TYPES), 30),
    "twelve applications": (
        Scenario().with_team(
            applications={name: 14 - i for i, name in enumerate(TWELVE_APPLICATIONS)}
        ),
        30,
    ),
    "seven environments": (stages(SEVEN_ENVIRONMENTS), 30),
    "twelve environments": (stages([f"environment-{i:02}" for i in range(12)]), 30),
    "one environment": (stages(["production"]), 30),
    "odd names": (
        dataclasses.replace(
            stages(["$dev^", "st_a_g_i_n_g$", "生产 🚀"]),
            team=gitops.Team(
                applications={name: 9 - i for i, name in enumerate(ODD_APPLICATIONS)},
                types={"feat_$": 3, "修正": 2, "🚀": 1, "$^$": 1},
            ),
        ),
        30,
    ),
    "7 days": (Scenario(), 7),
    "90 days": (Scenario(), 90),
    "365 days": (Scenario(), 365),
    "a busy year": (Scenario().with_team(commits_per_day=300), 365),
    "one day": (Scenario(), 1),
}


@functools.lru_cache(maxsize=None)
def run(name):
    """The Metrics of a scenario."""
    scenario, days = SCENARIOS[name]
    return measure(simulated(scenario, 7, Window.before(END, days))[0])


@functools.lru_cache(maxsize=None)
def nothing():
    """The Metrics of an empty history."""
    return measure(empty_history())


def with_values(base=None, **values):
    """The Metrics of the default scenario with other values, and the verdicts that follow."""
    base = run("default") if base is None else base
    return dataclasses.replace(base, values={**base.values, **values})


def with_table(name, history=None, **columns):
    """The Metrics of the default history with other columns in one of its tables."""
    history = run("default").history if history is None else history
    table = getattr(history, name).assign(**columns)
    return measure(history._replace(**{name: as_table(name, table)}))


def axes():
    return Figure(figsize=(6, 5)).add_subplot()


def panel(plot, name="default"):
    """The axes of one panel drawn alone."""
    return plot(run(name), axes())


PLOTS = [
    plot_deployments_over_time,
    plot_success_rates,
    plot_commit_types,
    plot_deployment_status,
    plot_deployments_by_application,
    plot_scorecard,
]
by_plot = pytest.mark.parametrize("plot", PLOTS, ids=TITLES)
FAST = ("default", "seven environments", "odd names", "365 days")


def in_scenarios(*names):
    """Run a test in these scenarios, by default in all of them; in most of them it is slow."""
    marks = {name: [pytest.mark.slow] * (name not in FAST) for name in names or SCENARIOS}
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=slow) for name, slow in marks.items()]
    )


def hue(colour):
    """The name of a colour's hue."""
    degrees = 360 * colorsys.rgb_to_hsv(*to_rgb(colour))[0]
    names = {
        15: "red",
        40: "orange",
        70: "yellow",
        165: "green",
        260: "blue",
        345: "purple",
        361: "red",
    }
    return next(name for limit, name in names.items() if degrees < limit)


def is_bold(text):
    return text.get_fontweight() in ("bold", 700)


def plain(text):
    """What a text shows: a dollar that is escaped is no mathematics."""
    assert not cbook.is_math_text(text.get_text()), text.get_text()
    return text.get_text().replace(r"\$", "$")


# ---- The page as it is drawn ---------------------------------------------------------------------


class Page(NamedTuple):
    """A drawn dashboard: its figure, its renderer and the texts that really were drawn."""

    figure: Any
    renderer: Any
    texts: List[Any]
    axes_of: Dict[int, Any]  # by the identity of a text
    cards: List[Any]

    def box(self, artist):
        return artist.get_window_extent(self.renderer)

    def card(self, ax):
        """The bounding box of the card that an axes lies on."""
        (mine,) = [box for box in self.cards if box.contains(*ax.bbox.get_points().mean(axis=0))]
        return mine

    def card_of(self, text):
        return self.card(self.axes_of[id(text)])

    def of(self, number):
        """The texts of one panel."""
        return [text for text in self.texts if self.axes_of[id(text)] is self.figure.axes[number]]

    def ticks(self, axis):
        """The ticks of an axis whose labels were drawn."""
        return [
            tick
            for tick in axis.get_major_ticks()
            if any(tick.label1 is text for text in self.texts)
        ]


def drawn(figure):
    """Draw a figure and note which texts are."""
    texts, draw = [], Text.draw

    def noting(self, renderer, *others, **more):
        if self.get_visible() and self.get_text().strip():
            texts.append(self)
        return draw(self, renderer, *others, **more)

    canvas = FigureCanvasAgg(figure)
    with mock.patch.object(Text, "draw", noting), gitops.picture_style():
        canvas.draw()
    axes_of = {id(text): text.axes for text in texts}
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            labels = [*axis.get_ticklabels(which="both"), axis.get_offset_text(), axis.label]
            axes_of.update((id(text), ax) for text in labels)
        if ax.get_legend():
            axes_of.update((id(text), ax) for text in ax.get_legend().get_texts())
    cards = [patch for patch in figure.patches if isinstance(patch, patches.FancyBboxPatch)]
    boxes = [card.get_transform().transform_path(card.get_path()).get_extents() for card in cards]
    return Page(figure, canvas.get_renderer(), texts, axes_of, boxes)


@functools.lru_cache(maxsize=None)
def page(name):
    return drawn(draw_dashboard(run(name) if name in SCENARIOS else nothing(), 100))


@functools.lru_cache(maxsize=None)
def page_to_draw_on():
    """A page of which a test draws one panel anew, in the place that the panel has."""
    return draw_dashboard(nothing(), 100)


def corners(text, renderer, gap=2):
    """The four corners of a text's box, which may be rotated, with a gap before and after it."""
    center = text.get_window_extent(renderer).get_points().mean(axis=0)
    turn = math.radians(text.get_rotation())
    text.set_rotation(0)
    box = text.get_window_extent(renderer)
    text.set_rotation(math.degrees(turn))
    right = np.array([math.cos(turn), math.sin(turn)]) * (box.width / 2 + gap)
    up = np.array([-math.sin(turn), math.cos(turn)]) * box.height / 2
    return np.array(
        [center - right - up, center + right - up, center + right + up, center - right + up]
    )


def overlap(one, other):
    """How many pixels two boxes, given by their corners, reach into each other; 0 if none."""
    if (one.max(axis=0) < other.min(axis=0)).any() or (other.max(axis=0) < one.min(axis=0)).any():
        return 0.0
    depths = []
    for box in (one, other):
        for side in (box[1] - box[0], box[3] - box[0]):
            along = side / np.hypot(*side)
            a, b = one @ along, other @ along
            depths.append(min(a.max(), b.max()) - max(a.min(), b.min()))
    return max(0.0, min(depths))


def is_inside(box, outer, slack=0.5):
    return (
        box.x0 >= outer.x0 - slack
        and box.x1 <= outer.x1 + slack
        and box.y0 >= outer.y0 - slack
        and box.y1 <= outer.y1 + slack
    )


# ---- The page ------------------------------------------------------------------------------------


def test_the_page_is_eighteen_by_ten_inches_with_six_titled_panels():
    figure = page("default").figure
    assert tuple(figure.get_size_inches()) == (18, 10)
    assert len(page("default").cards) == 7  # and the header
    assert [ax.get_title() for ax in figure.axes[:6]] == TITLES


@in_scenarios()
def test_the_titles_of_a_row_stand_at_one_height_and_as_far_from_their_cards(name):
    drawn_page = page(name)
    panels = drawn_page.figure.axes[:6]
    boxes = [drawn_page.box(ax.title) for ax in panels]
    for row in (boxes[:3], boxes[3:]):
        assert max(box.y0 for box in row) - min(box.y0 for box in row) < 1
    margins = [box.x0 - drawn_page.card(ax).x0 for box, ax in zip(boxes, panels)]
    assert max(margins) - min(margins) < 2


@in_scenarios("default", "seven environments", "odd names")
def test_what_a_panel_shows_begins_below_the_beginning_of_its_title(name):
    drawn_page = page(name)
    for number in (0, 1, 3, 4):
        lefts = [drawn_page.box(text).x0 for text in drawn_page.of(number)]
        assert min(lefts) == pytest.approx(
            drawn_page.box(drawn_page.figure.axes[number].title).x0, abs=6
        )


# ---- The header ----------------------------------------------------------------------------------


def header_of(metrics, *others):
    """The words of the header of a dashboard."""
    return [plain(text) for text in draw_dashboard(metrics, 50, *others).axes[6].texts]


def from_source(source, metrics=None):
    """The Metrics of the default history as if it came from somewhere."""
    metrics = run("default") if metrics is None else metrics
    return dataclasses.replace(metrics, history=metrics.history._replace(source=source))


def test_the_header_of_a_simulation_says_so_with_its_seed_and_dates():
    title, note, badge, count, to = header_of(run("default"), 7)
    assert (title, badge) == ("GitOps delivery dashboard", "SIMULATED")
    assert note == "2026-01-01 to 2026-01-30 UTC, 30 days, seed 7"
    deployments = run("default").history.deployments
    production = (deployments["environment"] == "production").sum()
    assert (count, to) == (f"{len(deployments)} deployments", f"{production} of them to production")


def test_simulated_deployments_of_real_commits_are_said_to_be_that():
    assert "SIMULATED deployments of real commits" in header_of(run("default"), 7, True)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("git", "Desired state, from the config repository"),
        ("argocd", "Measured from Argo CD"),
        ("files", "Measured from tables"),
        ("simulated files", "SIMULATED, read from tables"),
        ("another", "Measured from tables"),
    ],
)
def test_the_header_of_a_real_history_names_its_source_and_no_seed(source, words):
    said = header_of(from_source(source), 7, True)
    assert words in said
    assert any("SIMULATED" in one for one in said) == ("SIMULATED" in words)
    assert not any("seed" in one for one in said)


def test_the_badge_of_a_simulation_is_dark_and_that_of_a_measurement_is_not():
    for source, dark in (("simulated", True), ("argocd", False)):
        badge = draw_dashboard(from_source(source), 50).axes[6].texts[2]
        assert (sum(to_rgb(badge.get_bbox_patch().get_facecolor())) < 1) == dark


def test_the_panels_stand_in_two_rows_of_three():
    boxes = [ax.bbox for ax in page("default").figure.axes]
    for row in (boxes[:3], boxes[3:]):
        assert row[0].x1 < row[1].x0 < row[1].x1 < row[2].x0
    for above, below in zip(boxes[:3], boxes[3:]):
        assert above.y0 > below.y1


@by_plot
def test_each_panel_draws_on_the_axes_it_is_given(plot):
    ax = panel(plot)
    assert ax.figure.axes == [ax]
    assert ax.get_title() == TITLES[PLOTS.index(plot)]


@by_plot
def test_a_panel_shows_the_same_alone_as_on_the_dashboard(plot):
    alone, among = panel(plot), page("default").figure.axes[PLOTS.index(plot)]
    for words in (Axes.get_title, Axes.get_xlabel, Axes.get_ylabel):
        assert words(alone) == words(among)
    assert list(map(plain, alone.texts)) == list(map(plain, among.texts))
    assert len(alone.patches) == len(among.patches)
    assert [list(line.get_ydata()) for line in alone.lines] == [
        list(line.get_ydata()) for line in among.lines
    ]


@by_plot
def test_a_panel_does_not_change_its_data(plot):
    metrics = run("default")
    tables, values = [table.copy() for table in metrics.history[:3]], repr(metrics.values)
    panel(plot)
    for old, new in zip(tables, metrics.history[:3]):
        pd.testing.assert_frame_equal(old, new)
    assert repr(metrics.values) == values


@pytest.mark.slow
@in_scenarios()
def test_no_two_texts_overlap(name):
    drawn_page = page(name)
    boxes = [(plain(text), corners(text, drawn_page.renderer)) for text in drawn_page.texts]
    bad = [
        (a, b)
        for (a, one), (b, other) in itertools.combinations(boxes, 2)
        if overlap(one, other) > 1
    ]
    assert not bad


@in_scenarios()
def test_no_text_leaves_its_card(name):
    drawn_page = page(name)
    bad = [
        plain(text)
        for text in drawn_page.texts
        if not is_inside(drawn_page.box(text), drawn_page.card_of(text), slack=-4)
    ]
    assert not bad


@in_scenarios()
def test_no_legend_lies_on_the_data_or_leaves_its_card(name):
    drawn_page = page(name)
    legends = [ax.get_legend() for ax in drawn_page.figure.axes]
    for legend in filter(None, legends):
        box = drawn_page.box(legend)
        assert is_inside(box, drawn_page.card(legend.axes))
        assert min(box.x1, legend.axes.bbox.x1) <= max(box.x0, legend.axes.bbox.x0) or (
            min(box.y1, legend.axes.bbox.y1) <= max(box.y0, legend.axes.bbox.y0) + 0.5
        )


@in_scenarios()
def test_no_text_is_smaller_than_a_reader_can_read(name):
    small = {plain(text) for text in page(name).texts if text.get_fontsize() < 7}
    assert not small


@in_scenarios()
def test_no_number_of_an_axis_is_in_powers_of_ten(name):
    assert not [plain(text) for text in page(name).texts if re.search(r"\de[+-]?\d", plain(text))]


@in_scenarios()
def test_no_two_ticks_of_an_axis_say_the_same(name):
    drawn_page = page(name)
    for ax in drawn_page.figure.axes[:5]:
        for axis in (ax.xaxis, ax.yaxis):
            said = [plain(tick.label1) for tick in drawn_page.ticks(axis)]
            assert len(set(said)) == len(said) or name == "odd names"


def test_names_are_shown_as_they_are_where_the_font_has_their_characters():
    drawn_page = page("odd names")
    shown = [" ".join(map(plain, drawn_page.of(number))) for number in range(5)]
    for number in (0, 1):
        assert "$dev^" in shown[number]
        assert "st_a_g_i_n_g$" in shown[number]
    assert "feat_$" in shown[2]
    assert "$^$" in shown[2]
    for name in ("$x^2_1$", "a_b^c", r"\frac{1}{2}", "100% {pure}", "it's <b>&amp;"):
        assert name in shown[4]


@in_scenarios()
def test_no_glyph_is_missing_in_any_text(name):
    fonts = matplotlib.font_manager
    known = fonts.get_font(fonts.findfont("DejaVu Sans")).get_charmap()
    shown = {character for text in page(name).texts for character in plain(text)} - {"\n"}
    assert not [character for character in shown if ord(character) not in known]


@pytest.mark.parametrize("names", [["_dev", "production"], ["_"], ["__", "_nolegend_"]], ids=repr)
def test_a_name_that_begins_with_an_underscore_is_in_the_legend(names):
    history, _ = simulated(stages(names), 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        legend = plot_deployments_over_time(measure(history), axes()).get_legend()
    assert [plain(text) for text in legend.get_texts()] == names


@pytest.mark.slow
def test_fifty_environments_are_drawn_without_a_warning():
    history, _ = simulated(stages([f"stage {i}" for i in range(50)]), 7)
    assert drawn(draw_dashboard(measure(history), 60)).texts


# ---- Deployments over time -----------------------------------------------------------------------


def daily(history, environment):
    """How many deployments an environment has on each day of the window."""
    mine = history.deployments.loc[history.deployments["environment"] == environment, "timestamp"]
    days = pd.date_range(history.window.start, periods=history.window.days, tz="UTC")
    return mine.dt.floor("D").value_counts().reindex(days, fill_value=0).to_numpy()


def first_day(history):
    """The place of the first day on the axis."""
    return mdates.date2num(history.window.start.to_pydatetime())


def on_days(line, history):
    """What a line is at each day of the window."""
    x, y = line.get_data()
    places = np.searchsorted(x, first_day(history) + np.arange(history.window.days) - 1e-6)
    assert x[places] == pytest.approx(first_day(history) + np.arange(history.window.days))
    return y[places]


DAILY = ("default", "7 days", "seven environments", "one day")


@pytest.mark.parametrize("name", DAILY)
def test_the_line_passes_through_the_count_of_each_day(name):
    history = run(name).history
    lines = panel(plot_deployments_over_time, name).lines
    assert len(lines) == len(history.environments)
    for line, environment in zip(lines, history.environments):
        assert list(on_days(line, history)) == list(daily(history, environment))


@pytest.mark.parametrize("name", DAILY)
def test_each_day_has_a_dot(name):
    history = run(name).history
    for line in panel(plot_deployments_over_time, name).lines:
        assert line.get_marker() not in ("None", "", None)
        marked = line.get_xdata()[:: line.get_markevery()]
        assert marked == pytest.approx(first_day(history) + np.arange(history.window.days))


@pytest.mark.parametrize("name", ["90 days", "365 days", "a busy year"])
def test_of_many_days_the_line_passes_through_the_means_of_whole_weeks(name):
    history = run(name).history
    ax = panel(plot_deployments_over_time, name)
    assert ax.get_ylabel() == "Deployments a day, weekly mean"
    weeks, start = history.window.days // 7, history.window.days % 7
    middles = first_day(history) + start + 3 + 7 * np.arange(weeks)
    for line, environment in zip(ax.lines, history.environments):
        means = daily(history, environment)[start:].reshape(weeks, 7).mean(axis=1)
        x, y = line.get_data()
        places = np.searchsorted(x, middles - 1e-6)
        assert y[places] == pytest.approx(means)


def test_of_very_many_weeks_no_dot_is_drawn():
    window = Window.before(END, 800)
    metrics = measure(empty_history()._replace(window=window))
    busy = np.ones_like(metrics.deployments_by_day)
    values = {**metrics.values, "total_deployments": int(busy.sum())}
    metrics = dataclasses.replace(metrics, values=values, deployments_by_day=busy)
    lines = plot_deployments_over_time(metrics, axes()).lines
    assert all(line.get_marker() == "None" for line in lines)


@pytest.mark.parametrize(
    "name", ["default", "7 days", "90 days", "365 days", "seven environments", "a busy year"]
)
def test_no_line_leaves_the_range_of_the_two_counts_that_it_joins(name):
    """So it is never below zero, and never beyond the data."""
    ax = panel(plot_deployments_over_time, name)
    for line in ax.lines:
        x, y = line.get_data()
        steps = line.get_markevery()
        knots = y[::steps]
        assert x[::steps] == pytest.approx(np.linspace(x[0], x[-1], len(knots)))
        assert len(x) > len(knots)  # smooth, not a polygon
        pieces = y[:-1].reshape(-1, steps)
        assert (pieces >= np.minimum(knots[:-1], knots[1:])[:, None] - 1e-9).all()
        assert (pieces <= np.maximum(knots[:-1], knots[1:])[:, None] + 1e-9).all()
        rising = np.sign(knots[1:] - knots[:-1])[:, None]
        assert (np.diff(y).reshape(-1, steps) * rising >= -1e-9).all()  # monotone between two


def test_the_line_has_no_corner():
    """Its slope before a count is its slope after it."""
    counts = np.array([0, 3, 4, 4, 9, 2, 0, 0, 1, 5.0])
    steps = 1000
    slopes = np.diff(gitops.monotone_line(counts, steps)) * steps
    for day in range(1, len(counts) - 1):
        assert slopes[day * steps - 1] == pytest.approx(slopes[day * steps], abs=0.1)


def test_a_steady_count_is_a_level_line():
    assert list(gitops.monotone_line(np.full(5, 3.0), 10)) == [3.0] * 41


def test_a_steady_rise_is_a_straight_line():
    line = gitops.monotone_line(np.arange(5.0), 10)
    assert line == pytest.approx(np.linspace(0, 4, 41))


def test_the_lines_lie_within_the_axes():
    ax = panel(plot_deployments_over_time)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    for line in ax.lines:
        assert left < min(line.get_xdata()) <= max(line.get_xdata()) < right
        assert bottom <= min(line.get_ydata()) <= max(line.get_ydata()) < top
    assert bottom == 0


def test_dev_is_blue_where_staging_is_orange_next_to_a_green_production():
    colours = [line.get_color() for line in panel(plot_deployments_over_time).lines]
    assert colours == ["#1f77b4", "#ff7f0e", "#2ca02c"]


@pytest.mark.parametrize("name", ["default", "seven environments"])
def test_the_lines_can_be_told_apart_without_colours(name):
    lines = panel(plot_deployments_over_time, name).lines
    looks = [(line.get_linestyle(), line.get_marker(), line.get_linewidth()) for line in lines]
    for number in range(len(looks) - 2):
        assert len(set(looks[number : number + 3])) == 3
    assert looks[-1][2] == max(width for _, _, width in looks)  # production


def test_known_environments_keep_their_colours_among_others():
    ax = panel(plot_deployments_over_time, "seven environments")
    colours = dict(zip(SEVEN_ENVIRONMENTS, (to_hex(line.get_color()) for line in ax.lines)))
    default = [to_hex(line.get_color()) for line in panel(plot_deployments_over_time).lines]
    assert [colours[name] for name in ("dev", "staging", "production")] == default
    assert len(set(colours.values())) == 7


def test_the_legend_names_the_environments_in_their_order():
    ax = panel(plot_deployments_over_time)
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["dev", "staging", "production"]
    looks = [(line.get_color(), line.get_linestyle()) for line in ax.lines]
    assert [(line.get_color(), line.get_linestyle()) for line in legend.get_lines()] == looks


def is_shaded(ax, x):
    """Whether a shape covers the place x, half way up the axes."""
    place = ax.get_xaxis_transform().transform((x, 0.5))
    shapes = [(path, area.get_transform()) for area in ax.collections for path in area.get_paths()]
    return any(transform.transform_path(path).contains_point(place) for path, transform in shapes)


@pytest.mark.parametrize(
    ("days_before", "length"), [(0, 10), (2, 10), (5, 10), (0, 7), (0, 60), (2, 1)]
)
def test_only_weekends_are_shaded(days_before, length):
    window = Window.before(END - pd.Timedelta(days=days_before), length)
    history, _ = simulated(Scenario(), 7, window)
    ax = plot_deployments_over_time(measure(history), axes())
    for day in range(length):
        weekend = (window.start + pd.Timedelta(days=day)).day_name() in ("Saturday", "Sunday")
        for hour in (-0.4, 0, 0.4):
            assert is_shaded(ax, first_day(history) + day + hour) == weekend


def test_weekends_are_not_shaded_where_weeks_are_drawn():
    assert not panel(plot_deployments_over_time, "90 days").collections


@in_scenarios("default", "7 days", "90 days", "365 days")
def test_a_date_below_the_axis_is_the_date_of_its_place(name):
    ticks = page(name).ticks(page(name).figure.axes[0].xaxis)
    assert ticks
    for tick in ticks:
        day = mdates.num2date(tick.get_loc())
        said = tick.label1.get_text()
        assert said.split()[0] in (f"{day:%d}", str(day.day), f"{day:%b}", f"{day:%Y-%m-%d}")
        assert f"{day:%b}" in said or f"{day:%m}" in said


def test_days_of_which_nothing_is_known_have_neither_dots_nor_line():
    """Of a week dev is known on the second, the third, the fifth and the seventh day."""
    week = run("7 days")
    known = np.ones((3, 7), bool)
    known[0] = [False, True, True, False, True, False, True]
    ax = plot_deployments_over_time(dataclasses.replace(week, days_known=known), axes())
    x, y = ax.lines[0].get_data()
    drawn_at = x[~np.isnan(y)] - first_day(week.history)
    assert ((drawn_at >= 1) & (drawn_at <= 2) | np.isin(drawn_at, (4, 6))).all()
    assert {1, 2, 4, 6} <= set(drawn_at)
    assert not np.isnan(ax.lines[1].get_ydata()).any()


def test_a_week_that_is_not_wholly_known_is_not_drawn():
    metrics = run("90 days")
    known = np.ones((3, 90), bool)
    known[0, 20] = False  # the first six days are of no whole week
    ax = plot_deployments_over_time(dataclasses.replace(metrics, days_known=known), axes())
    weeks = [line.get_ydata()[:: line.get_markevery()] for line in ax.lines]
    assert list(np.flatnonzero(np.isnan(weeks[0]))) == [2]
    assert not np.isnan(weeks[1]).any()


def test_the_days_of_a_real_history_are_known_where_it_covers_them():
    """A span from one day to another covers both, however late it begins or early it ends."""
    window = Window(END - pd.Timedelta(days=7), END)
    spans = [("dev", 1, 2), ("dev", 5, 6), ("production", 0, 6)]
    edge = {"from": pd.Timedelta(hours=23), "to": pd.Timedelta(hours=1)}
    rows = [
        (
            *("shop", name, "name", f"shop-{name}"),
            window.start + pd.Timedelta(days=first) + edge["from"],
            window.start + pd.Timedelta(days=last) + edge["to"],
            *(False, 0, 0, math.nan),
        )
        for name, first, last in spans
    ]
    tables = empty_history()
    history = gitops.History.of(*tables[:3], window, ("dev", "production"))
    known = measure(history._replace(coverage=table("coverage", *rows))).days_known
    assert known.tolist() == [[False, True, True, False, False, True, True], [True] * 7]


def test_the_axis_counts_deployments_in_whole_numbers_on_a_grid():
    drawn_page = page("default")
    ax = drawn_page.figure.axes[0]
    ticks = drawn_page.ticks(ax.yaxis)
    assert all(re.fullmatch(r"\d+", tick.label1.get_text()) for tick in ticks)
    assert all(tick.gridline.get_visible() for tick in ticks)
    assert len(ticks) >= 3


# ---- Success rate by environment -----------------------------------------------------------------


def with_rates(**rates):
    """Metrics with these success rates, of ten deployments each."""
    return with_values(success_rates=rates, deployments_by_environment=dict.fromkeys(rates, 10))


def rates_panel(**rates):
    """The panel of these success rates."""
    return plot_success_rates(with_rates(**rates), axes())


def bars_of(ax):
    return [patch for patch in ax.patches if isinstance(patch, patches.Rectangle)]


@pytest.mark.parametrize("name", ["default", "seven environments", "one environment", "90 days"])
def test_the_bars_are_as_high_as_the_success_rates(name):
    values = run(name).values
    bars = bars_of(panel(plot_success_rates, name))
    assert [bar.get_height() for bar in bars] == list(values["success_rates"].values())


@pytest.mark.parametrize(
    ("rate", "name"),
    [
        (100.0, "green"),
        (95.0, "green"),
        (94.99, "yellow"),
        (90.0, "yellow"),
        (89.99, "red"),
        (50.0, "red"),
        (0.0, "red"),
    ],
)
def test_a_bar_is_green_from_95_yellow_from_90_else_red(rate, name):
    (bar,) = bars_of(rates_panel(dev=rate))
    assert hue(bar.get_facecolor()) == name


def test_the_target_is_a_dashed_green_line_at_95_across_the_panel_with_a_label():
    ax = page("default").figure.axes[1]
    (line,) = ax.lines
    assert list(line.get_ydata()) == [95, 95]
    assert line.get_linestyle() == "--"
    assert hue(line.get_color()) == "green"
    ends = line.get_transform().transform(np.column_stack(line.get_data()))[:, 0]
    assert list(ends) == pytest.approx([ax.bbox.x0, ax.bbox.x1])
    assert line.get_zorder() > max(bar.get_zorder() for bar in bars_of(ax))  # in front of them
    assert any(plain(text).startswith("Target") for text in page("default").of(1))


def rate_words(rate, decimals=1):
    """What is written above a bar."""
    mark = "✓" if rate >= 95 else "!" if rate >= 90 else "✗"
    return f"{mark} {rate:.{decimals}f}%"


@pytest.mark.parametrize("name", ["default", "seven environments"])
def test_each_bar_has_its_rate_above_it_in_bold(name):
    ax = page(name).figure.axes[1]
    labels = [text for text in page(name).of(1) if plain(text).endswith("%")]
    labels = [text for text in labels if "Target" not in plain(text)]
    assert [plain(text) for text in labels] == [
        rate_words(rate) for rate in run(name).values["success_rates"].values()
    ]
    assert all(map(is_bold, labels))
    for text, bar in zip(labels, bars_of(ax)):
        top = ax.transData.transform((bar.get_x() + bar.get_width() / 2, bar.get_height()))
        box = page(name).box(text)
        assert box.y0 >= top[1]
        assert (box.x0 + box.x1) / 2 == pytest.approx(top[0], abs=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rates",
    [
        (100.0, 97.3, 95.0, 94.9, 92.0),
        (90.0, 88.0, 86.0, 85.9, 85.0),
        (84.0, 83.0, 80.0, 42.0, 0.0),
    ],
    ids=repr,
)
def test_no_rate_lies_on_the_target_line_or_the_title(rates):
    figure = page_to_draw_on()
    ax = figure.axes[1]
    ax.clear()
    plot_success_rates(with_rates(**dict(zip("abcde", rates))), ax)
    drawn_page = drawn(figure)
    target = ax.transData.transform((0, 95))[1]
    for rate in rates:
        (label,) = [text for text in drawn_page.of(1) if plain(text) == rate_words(rate)]
        box = drawn_page.box(label)
        assert not box.y0 < target < box.y1
        assert box.y1 < drawn_page.box(ax.title).y0


@pytest.mark.parametrize("name", ["default", "seven environments"])
def test_the_count_of_deployments_stands_below_each_bar(name):
    counts = run(name).values["deployments_by_environment"]
    labels = [text.get_text() for text in panel(plot_success_rates, name).get_xticklabels()]
    assert [label.rpartition("n=")[2] for label in labels] == list(map(str, counts.values()))


def test_a_rate_that_is_only_an_upper_bound_is_neither_green_nor_called_met():
    """Some of the deployments were not looked at: they may have failed."""
    rates = dict(dev=97.0, staging=92.0, production=80.0)
    metrics = with_rates(**rates)
    metrics.values["unseen_deployments"] = 3
    ax = plot_success_rates(metrics, axes())
    assert [plain(text) for text in ax.texts[1:]] == ["≤ 97.0%", "≤ 92.0%", "✗ ≤ 80.0%"]
    greys = [to_hex(bar.get_facecolor()) for bar in bars_of(ax)]
    assert greys[0] == greys[1] != greys[2]
    assert hue(greys[2]) == "red"
    assert ax.get_ylabel() == "Not seen to fail (%)"


def test_rates_that_cannot_be_observed_are_said_to_be_unknown():
    ax = rates_panel(dev=math.nan, production=math.nan)
    assert [plain(text) for text in ax.texts] == ["Unknown: failures are not observable here"]
    assert not ax.patches


def test_an_environment_without_deployments_has_no_bar():
    ax = rates_panel(dev=97.0, production=math.nan)
    assert [bar.get_height() for bar in bars_of(ax)] == [97.0, 0.0]
    assert "n/a" in [plain(text) for text in ax.texts]
    assert not any("nan" in plain(text) for text in ax.texts)


def test_the_rates_are_on_a_scale_from_zero_to_one_hundred():
    ax = panel(plot_success_rates)
    assert ax.get_ylim()[0] == 0
    assert 100 <= ax.get_ylim()[1] <= 125
    assert max(ax.get_yticks()) == 100


# ---- Commit types --------------------------------------------------------------------------------


def wedges_of(ax):
    return [patch for patch in ax.patches if isinstance(patch, patches.Wedge)]


def types_panel(ax=None, **counts):
    """The panel of so many commits of each type."""
    counts = dict(sorted(counts.items(), key=lambda pair: -pair[1]))
    values = {"commit_types": counts, "total_commits": sum(counts.values())}
    return plot_commit_types(with_values(**values), axes() if ax is None else ax)


@pytest.mark.parametrize("name", ["default", "twelve commit types", "7 days", "365 days"])
def test_the_slices_are_the_shares_of_the_commit_types(name):
    commits = run(name).history.git_commits
    shares = commits["type"].value_counts() / len(commits)
    ax = panel(plot_commit_types, name)
    texts = [plain(text) for text in ax.texts if plain(text)]
    fractions = [(wedge.theta2 - wedge.theta1) / 360 for wedge in wedges_of(ax)]
    assert sum(fractions) == pytest.approx(1, abs=1e-4)
    assert len(texts) == len(fractions)
    named = {}
    for text, fraction in zip(texts, fractions):
        word, percent = text.rsplit(" ", 1)
        assert percent == f"{100 * fraction:.1f}%"
        named[word] = fraction
    rest = named.pop("rarer types", None)
    named = {"other" if word == "no type" else word: share for word, share in named.items()}
    for word, fraction in named.items():
        assert fraction == pytest.approx(shares[word], abs=1e-4)
    if rest is not None:
        assert rest == pytest.approx(1 - sum(named.values()), abs=1e-4)
        assert len(shares) - len(named) >= 2
        assert (
            shares[list(shares.index.difference(list(named)))].max() <= min(named.values()) + 1e-4
        )


@pytest.mark.parametrize(
    "counts",
    [
        dict(feat=40, fix=30, chore=15, refactor=10, perf=5),
        dict.fromkeys(TWELVE_TYPES, 10),
        TWELVE_TYPES,
        dict.fromkeys(list(TWELVE_TYPES)[:9], 10),
    ],
    ids=["five", "twelve alike", "twelve", "nine alike"],
)
def test_no_two_slices_of_a_pie_share_a_colour(counts):
    colours = [to_hex(wedge.get_facecolor()) for wedge in wedges_of(types_panel(**counts))]
    assert len(set(colours)) == len(colours)
    for one, other in itertools.combinations(colours, 2):
        assert not same_color(one, other)


@pytest.mark.parametrize(
    "counts",
    [
        dict(feat=40, fix=20, chore=12, docs=6, test=5, refactor=5, ci=4, build=4, style=4),
        {f"type{number}": 200 // (number + 1) for number in range(16)},
        {f"type{number}": 10 for number in range(30)},
        dict(feat=88, refactor=4, perf=4, revert=4),
    ],
    ids=["nine", "a long tail", "thirty alike", "three thin ones"],
)
def test_the_labels_of_a_pie_keep_clear_of_each_other(counts):
    figure = page_to_draw_on()
    ax = figure.axes[2]
    ax.clear()
    types_panel(ax, **counts)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in ax.texts if plain(text)]
    assert len(boxes) >= 4
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_a_thin_slice_keeps_its_name_where_it_is_the_only_one():
    texts = [plain(text) for text in types_panel(feat=60, fix=30, chore=8, perf=2).texts]
    assert "perf 2.0%" in texts
    assert not any("rarer" in text for text in texts)


def test_thin_slices_are_shown_as_one():
    texts = [plain(text) for text in types_panel(feat=60, fix=36, chore=1, perf=2, docs=1).texts]
    assert [text for text in texts if text] == ["feat 60.0%", "fix 36.0%", "rarer types 4.0%"]


def test_a_type_has_one_colour_in_every_picture():
    def colours(**counts):
        ax = types_panel(**counts)
        names = [plain(text).split()[0] for text in ax.texts if plain(text)]
        return dict(zip(names, (to_hex(wedge.get_facecolor()) for wedge in wedges_of(ax))))

    one, other = colours(feat=40, fix=30, chore=30), colours(perf=50, chore=30, feat=15, fix=5)
    assert len(set(one.values()) | set(other.values())) == 4
    assert all(other[name] == one[name] for name in one)


def test_commits_without_a_type_are_called_that_in_a_muted_colour():
    ax = types_panel(feat=40, other=60)
    assert "no type 60.0%" in [plain(text) for text in ax.texts]
    saturation = [colorsys.rgb_to_hsv(*wedge.get_facecolor()[:3])[1] for wedge in wedges_of(ax)]
    assert saturation[0] < 0.15 < 0.4 < saturation[1]


def test_a_real_history_without_commits_is_not_said_to_have_none():
    words = [
        plain(text) for text in plot_commit_types(from_source("files", nothing()), axes()).texts
    ]
    assert words == ["Commits: not in this history"]


def test_one_type_alone_is_a_whole_pie():
    ax = types_panel(feat=20)
    (wedge,) = wedges_of(ax)
    assert wedge.theta2 - wedge.theta1 == pytest.approx(360)
    assert "feat 100.0%" in [plain(text) for text in ax.texts]


# ---- Deployment status ---------------------------------------------------------------------------


def test_the_status_bars_count_the_synced_in_green_next_to_the_failed_in_red():
    deployments = run("default").history.deployments
    ax = panel(plot_deployment_status)
    synced, failed = bars_of(ax)
    assert synced.get_height() == (deployments["status"] == "Synced").sum()
    assert failed.get_height() == (deployments["status"] == "Failed").sum()
    assert hue(synced.get_facecolor()) == "green"
    assert hue(failed.get_facecolor()) == "red"
    shown = drawn(ax.figure).of(0)
    assert [plain(text) for text in shown if plain(text) in ("Synced", "Failed")] == [
        "Synced",
        "Failed",
    ]


@pytest.mark.parametrize("name", ["default", "365 days"])
def test_the_counts_stand_on_the_status_bars_in_bold(name):
    ax = page(name).figure.axes[3]
    for bar in bars_of(ax):
        (label,) = [text for text in ax.texts if plain(text) == f"{bar.get_height():,.0f}"]
        assert is_bold(label)
        assert page(name).box(label).y0 >= ax.transData.transform((0, bar.get_height()))[1]
        assert page(name).box(label).y1 <= ax.bbox.y1 + 1


def status_of(synced, failed, degraded, unseen, source="argocd"):
    """The panel of so many syncs, of which some Synced were bad later or not looked at."""
    metrics = with_values(
        deployments_by_status={"Synced": synced, "Failed": failed},
        failed_deployments=failed + degraded,
        unseen_deployments=unseen,
    )
    return plot_deployment_status(from_source(source, metrics), axes())


def test_what_was_synced_and_turned_out_bad_is_a_hatched_part_of_its_own():
    """So the panel does not look better than the success rates beside it."""
    ax = status_of(100, 5, 20, 0)
    healthy, bad, failed = bars_of(ax)
    assert (healthy.get_height(), bad.get_height(), failed.get_height()) == (80, 20, 5)
    assert bad.get_y() == 80
    assert bad.get_hatch() and not healthy.get_hatch()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "Healthy: 80",
        "Synced, then Degraded: 20",
    ]
    assert {"100", "5"} <= set(map(plain, ax.texts))


def test_what_nobody_looked_at_is_a_muted_part_and_failures_are_those_seen():
    ax = status_of(100, 0, 0, 60)
    healthy, unseen, _ = bars_of(ax)
    assert (healthy.get_height(), unseen.get_height()) == (40, 60)
    assert colorsys.rgb_to_hsv(*unseen.get_facecolor()[:3])[1] < 0.15
    assert "health not seen: 60" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"100", "0 seen"} <= set(map(plain, ax.texts))


def test_environments_whose_failures_cannot_be_observed_are_not_drawn_as_healthy():
    metrics = with_values(
        deployments_by_status={"Synced": 30, "Failed": 0},
        failed_deployments=0,
        deployments_by_environment={"dev": 20, "production": 10},
        success_rates={"dev": 100.0, "production": math.nan},
    )
    ax = plot_deployment_status(from_source("files", metrics), axes())
    assert [bar.get_height() for bar in bars_of(ax)] == [20, 10, 0]


def test_the_failed_syncs_of_a_config_repository_are_unknown_and_not_zero():
    words = [plain(text) for text in status_of(100, 0, 7, 93, "git").texts]
    assert "100" in words
    assert any(word.startswith("unknown") for word in words)
    assert not any(word.startswith("0") for word in words)


def test_where_all_is_known_and_good_the_status_needs_no_legend():
    assert panel(plot_deployment_status).get_legend() is None


def test_the_status_panel_has_a_grid_across_alone():
    drawn_page = page("default")
    ax = drawn_page.figure.axes[3]
    assert all(tick.gridline.get_visible() for tick in ax.yaxis.get_major_ticks())
    assert not any(tick.gridline.get_visible() for tick in ax.xaxis.get_major_ticks())


def test_without_a_failure_the_failed_bar_says_zero():
    history = run("default").history
    good = history.deployments[history.deployments["status"] == "Synced"]
    ax = plot_deployment_status(measure(history._replace(deployments=good)), axes())
    assert [bar.get_height() for bar in bars_of(ax)][1] == 0
    assert "0" in [plain(text) for text in ax.texts]


@pytest.mark.slow
def test_counts_of_millions_are_written_out():
    year = run("365 days")
    by_status = {"Synced": 2_345_678, "Failed": 1_234_567}
    counts = {"shop": 3_000_001, "cart": 580_244}
    values = {**year.values, "deployments_by_status": by_status, "failed_deployments": 1_234_567}
    values["deployments_by_application"] = counts
    many = dataclasses.replace(
        year, values=values, deployments_by_day=year.deployments_by_day * 10_000
    )
    drawn_page = drawn(draw_dashboard(many, 100))
    texts = list(map(plain, drawn_page.texts))
    assert {"2,345,678", "1,234,567", "3,000,001", "580,244"} <= set(texts)
    assert not [text for text in texts if re.search(r"\de[+-]?\d", text)]
    for text in drawn_page.texts:
        assert is_inside(drawn_page.box(text), drawn_page.card_of(text), slack=-4), plain(text)


# ---- Deployments by application ------------------------------------------------------------------


def test_the_application_bars_ascend_in_pink_with_a_black_edge():
    ax = panel(plot_deployments_by_application)
    counts = run("default").history.deployments["application"].value_counts()
    bars = sorted(bars_of(ax), key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in bars] == sorted(counts)
    for bar in bars:
        assert to_hex(bar.get_facecolor()) == "#f093fb"
        assert to_hex(bar.get_edgecolor()) == "#000000"
        assert bar.get_linewidth() > 0


def test_each_application_bar_has_its_count_in_bold_beside_its_name():
    ax = panel(plot_deployments_by_application)
    drawn_page = drawn(ax.figure)
    counts = run("default").history.deployments["application"].value_counts()
    for bar in bars_of(ax):
        middle = ax.transData.transform((0, bar.get_y() + bar.get_height() / 2))[1]
        beside = [
            text
            for text in drawn_page.of(0)
            if abs(drawn_page.box(text).get_points()[:, 1].mean() - middle) < 3
        ]
        words = {plain(text): text for text in beside}
        (name,) = set(words) & set(counts.index)
        assert counts[name] == bar.get_width()
        assert is_bold(words[f"{counts[name]:,}"])
        assert (
            drawn_page.box(words[f"{counts[name]:,}"]).x0
            >= ax.transData.transform((bar.get_width(), 0))[0]
        )


def test_the_applications_beyond_the_tenth_are_one_bar():
    ax = panel(plot_deployments_by_application, "twelve applications")
    deployments = run("twelve applications").history.deployments
    counts = deployments["application"].value_counts()
    bars = [bar.get_width() for bar in bars_of(ax)]
    assert sum(bars) == len(deployments)
    assert sorted(bars) == sorted([*counts.iloc[:10], counts.iloc[10:].sum()])
    assert "2 others" in [plain(text) for text in drawn(ax.figure).of(0)]


def test_an_eleventh_application_keeps_its_name():
    deployments = run("default").history.deployments
    names = ["app-" + "abcdefghijk"[i % 11] for i in range(len(deployments))]
    ax = plot_deployments_by_application(with_table("deployments", application=names), axes())
    shown = [plain(text) for text in drawn(ax.figure).of(0)]
    assert not any("others" in text for text in shown)
    assert {f"app-{letter}" for letter in "abcdefghijk"} <= set(shown)


def test_names_that_begin_alike_can_be_told_apart():
    deployments = run("default").history.deployments
    names = ["payments-service-" + ("api", "worker")[i % 2] for i in range(len(deployments))]
    ax = plot_deployments_by_application(with_table("deployments", application=names), axes())
    shown = [text.get_text() for text in ax.get_yticklabels()]
    assert len(set(shown)) == 2
    names = [f"application-number-{i % 10}-with-a-very-long-name" for i in range(len(deployments))]
    ax = plot_deployments_by_application(with_table("deployments", application=names), axes())
    shown = [text.get_text() for text in ax.get_yticklabels()]
    assert len(set(shown)) == 10
    assert max(map(len, shown)) == 18


# ---- Scorecard -----------------------------------------------------------------------------------

AT_LEVEL = {4: {}, 3: {"mean_lead_time": 36.0}, 2: {"mean_lead_time": 36.0, "mttr_minutes": 90.0}}
AT_LEVEL[0] = {**AT_LEVEL[2], "change_failure_rate": 20.0, "deployment_frequency": 0.5}


def scored(level):
    """Metrics of a level."""
    elite = dict(deployment_frequency=13.73, mean_lead_time=12.45, mttr_minutes=12.34)
    values = {**elite, "change_failure_rate": 6.07, **AT_LEVEL[level.score]}
    metrics = with_values(nothing(), **values)
    assert metrics.level is level
    return metrics


by_level = pytest.mark.parametrize("level", LEVELS, ids=[level.name for level in LEVELS])


@by_level
def test_the_scorecard_says_the_level_and_the_four_metrics(level):
    metrics = scored(level)
    words = [plain(text) for text in plot_scorecard(metrics, axes()).texts]
    said = " ".join(words)
    verdicts = [word for word in words if word.startswith(("met: ", "missed: "))]
    assert sum(word.startswith("met: ") for word in verdicts) == metrics.score
    assert len(verdicts) == 4
    for label in ("Deployment Frequency", "Lead Time", "MTTR", "Change Failure Rate", level.name):
        assert label in words
    assert f"{level.score} of 4" in said


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("deployment_frequency", 15.4, "15.40/day"),
        ("change_failure_rate", 7.576, "7.58 %"),
        ("mean_lead_time", 44.49, "44.49 h"),
        ("mean_lead_time", 130.0, "5.42 days"),
        ("mttr_minutes", 9.89, "9.89 min"),
        ("mttr_minutes", 2213.2, "36.89 h"),
        ("mttr_minutes", math.nan, "n/a"),
    ],
)
def test_a_value_of_the_scorecard_is_in_the_unit_that_people_would_say(key, value, words):
    assert words in [
        plain(text) for text in plot_scorecard(with_values(**{key: value}), axes()).texts
    ]


def test_the_scorecard_says_what_its_values_are_of():
    words = [plain(text) for text in panel(plot_scorecard).texts]
    assert sum(word.endswith(", all environments") for word in words) == 3
    assert sum(word.endswith(", to production") for word in words) == 1


def test_a_month_without_a_failure_meets_the_recovery_time():
    metrics = with_values(mttr_minutes=math.nan, change_failure_rate=0.0)
    words = [plain(text) for text in plot_scorecard(metrics, axes()).texts]
    assert "met: elite < 60 min, nothing failed" in words


def marks_of(metrics):
    """The marks of the four metrics, which tell the verdict without a colour."""
    return [plain(text) for text in plot_scorecard(metrics, axes()).texts if plain(text) in "✓✗?"]


def test_a_mark_tells_met_and_missed_apart_without_colours():
    assert marks_of(with_values(mttr_minutes=90.0)) == ["✓", "✗", "✗", "✓"]


def test_the_level_is_the_greatest_word_of_the_scorecard_and_above_the_metrics():
    drawn_page = page("default")
    words = drawn_page.of(5)
    level = max(words, key=lambda text: text.get_fontsize())
    assert plain(level) == "HIGH PERFORMER"
    rest = [text for text in words if plain(text) in ("Deployment Frequency", "MTTR")]
    assert all(drawn_page.box(level).y0 > drawn_page.box(text).y1 for text in rest)


def test_the_scorecard_is_in_monospace():
    ax = panel(plot_scorecard)
    words = [text for text in ax.texts if len(plain(text)) > 1]
    assert len(words) >= 9
    for text in words:
        assert "Mono" in text.get_fontproperties().get_name() or "mono" in text.get_fontfamily()


def test_the_values_of_the_scorecard_end_in_one_column():
    drawn_page = page("default")
    values = [
        text
        for text in drawn_page.of(5)
        if re.match(r"[\d.]+(/day| %| h| min| days)$", plain(text))
    ]
    assert len(values) == 4
    edges = [drawn_page.box(text).x1 for text in values]
    assert max(edges) - min(edges) < 2


def test_what_is_undefined_is_not_available_on_the_scorecard():
    words = [plain(text) for text in plot_scorecard(nothing(), axes()).texts]
    assert words.count("n/a") == 3
    assert marks_of(nothing()) == ["✗", "?", "?", "?"]  # the frequency is measured: none
    assert words.count("not assessable: no deployment") == 3
    assert "met 0 of the 1 targets that can be judged" in words
    assert not any("nan" in word for word in words)
    assert "NOT ASSESSABLE" in words
    assert not plot_scorecard(nothing(), axes()).patches  # no medal


def lower_bound(rate, source="argocd", **more):
    """The Metrics of real deployments of which four in ten were not looked at."""
    metrics = with_values(
        change_failure_rate=float(rate), unseen_deployments=40, total_deployments=100
    )
    metrics.values.update(
        deployments_by_environment={"production": 100}, success_rates={"production": 100.0 - rate}
    )
    overall = metrics.production.assign(at_least=True)
    history = metrics.history._replace(source=source, **more)
    return dataclasses.replace(metrics, production=overall, history=history)


@pytest.mark.parametrize(("rate", "marks"), [(5, 0), (30, 1)])
def test_a_lower_bound_on_the_scorecard_is_marked_as_one(rate, marks):
    """It misses its target only if it is above it."""
    metrics = lower_bound(rate)
    ax = plot_scorecard(metrics, axes())
    assert f"≥ {rate:.2f} %" in [plain(text) for text in ax.texts]
    assert marks_of(metrics) == ["✓", "✗", "✓", "✗" if marks else "?"]


def test_the_scorecard_says_what_is_of_the_config_repository():
    said = " ".join(plain(text) for text in plot_scorecard(with_values(), axes()).texts)
    assert "config" not in said
    metrics = lower_bound(5, "git", changes=table("changes"))
    said = " ".join(plain(text) for text in plot_scorecard(metrics, axes()).texts)
    assert "config-repository lead time" in said


page_of_each_level = pytest.mark.parametrize(
    "level",
    [pytest.param(level, marks=[pytest.mark.slow] * (level in LEVELS[1:3])) for level in LEVELS],
    ids=[level.name for level in LEVELS],
)


@functools.lru_cache(maxsize=None)
def page_at(level):
    return drawn(draw_dashboard(scored(level), 100))


@pytest.mark.slow
@page_of_each_level
def test_each_level_has_its_medal_drawn_in_shapes(level):
    ax = page_at(level).figure.axes[5]
    assert ax.patches
    assert not any(ord(character) > 0xFFFF for text in ax.texts for character in plain(text))
    pixels = np.asarray(page_at(level).figure.canvas.buffer_rgba())[500:, 1200:, :3].astype(int)
    medal = [round(255 * part) for part in to_rgb(level.medal)]
    assert (np.abs(pixels - medal).max(axis=-1) <= 2).sum() > 400


def test_no_two_levels_have_the_same_medal():
    assert len({level.medal for level in LEVELS}) == 4


@page_of_each_level
def test_the_medal_does_not_lie_under_the_words(level):
    drawn_page = page_at(level)
    ax = drawn_page.figure.axes[5]
    words = [drawn_page.box(text) for text in drawn_page.of(5) if len(plain(text)) > 1]
    for shape in [*ax.patches, *(line for line in ax.lines if line.get_markersize() > 20)]:
        box = drawn_page.box(shape)
        assert is_inside(box, drawn_page.card(ax))
        assert not any(box.overlaps(word) for word in words)


# ---- Nothing to draw -----------------------------------------------------------------------------


def test_an_empty_history_draws_panels_that_say_so():
    drawn_page = page("nothing")
    for number in range(5):
        title, *said = sorted(
            map(plain, drawn_page.of(number)), key=lambda word: word != TITLES[number]
        )
        assert title == TITLES[number]
        assert len(said) == 1
        assert said[0].startswith("No ")
    assert not any(re.search(r"\bnan\b", plain(text)) for text in drawn_page.texts)


@pytest.mark.slow
def test_commits_that_were_never_deployed_are_drawn():
    history, _ = simulated(Scenario().with_environment("dev", approval_rate=0), 7)
    drawn_page = drawn(draw_dashboard(measure(history), 60))
    assert wedges_of(drawn_page.figure.axes[2])
    for number in (0, 1, 3, 4):
        assert any(plain(text).startswith("No deployment") for text in drawn_page.of(number))


# ---- Pixels --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def png():
    return render_png(draw_dashboard(run("default")))


def test_the_picture_is_a_palette_png_of_5400_by_3000_pixels_at_300_dpi(png):
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert image.mode == "P"
    assert image.size == (5400, 3000)
    assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_the_file_of_the_default_picture_is_of_100_to_400_kilobytes(png):
    assert 100_000 < len(png) < 400_000


@pytest.fixture(scope="module")
def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_the_page_is_transparent_between_white_cards(pixels):
    height, width = pixels.shape[:2]
    figure = draw_dashboard(run("default"), 10)
    cards = np.array(
        [
            patch.get_transform().transform_path(patch.get_path()).get_extents().get_points()
            / [figure.bbox.width, figure.bbox.height]
            for patch in figure.patches
        ]
    )
    assert len(cards) == 7
    lefts, bottoms, rights, tops = cards[:, 0, 0], cards[:, 0, 1], cards[:, 1, 0], cards[:, 1, 1]

    def alpha(x, y):
        return pixels[min(height - 1, int((1 - y) * height)), min(width - 1, int(x * width)), 3]

    for x, y in itertools.product((0, 0.99999), repeat=2):
        assert alpha(x, y) == 0
    gutters = [(rights[0] + lefts[1]) / 2, (rights[1] + lefts[2]) / 2]
    for x, y in itertools.product(gutters, (0.02, 0.3, 0.7, 0.9)):
        assert alpha(x, y) == 0
    for x in (0.02, 0.4, 0.6, 0.98):
        assert alpha(x, (bottoms[0] + tops[3]) / 2) == 0
        assert alpha(x, (tops[0] + bottoms[6]) / 2) == 0  # below the header
    for left, bottom, right, top in zip(lefts, bottoms, rights, tops):
        for x, y in itertools.product((left + 0.004, right - 0.004), (bottom + 0.025, top - 0.025)):
            assert tuple(pixels[int((1 - y) * height), int(x * width)]) == (255, 255, 255, 255)


def test_no_pixel_of_a_card_lets_the_page_shine_through(pixels):
    alpha = pixels[..., 3]
    clear = (alpha == 0).mean()
    assert 0.01 < clear < 0.1
    assert ((alpha > 0) & (alpha < 255)).mean() < 0.005  # the edges of the cards


def test_the_colours_of_the_data_come_through_the_palette(png):
    image = Image.open(io.BytesIO(png))
    palette = np.reshape(image.getpalette(), (-1, 3))[np.unique(np.asarray(image))].tolist()
    for colour in ("#1f77b4", "#ff7f0e", "#2ca02c", "#f093fb", "#000000", "#ffffff"):
        assert [round(255 * part) for part in to_rgb(colour)] in palette


@pytest.mark.slow
def test_the_palette_changes_no_pixel_by_much():
    figure = draw_dashboard(run("default"), 100)
    image = np.asarray(Image.open(io.BytesIO(render_png(figure))).convert("RGBA")).astype(int)
    with gitops.picture_style():
        figure.canvas.draw()
    exact = np.asarray(figure.canvas.buffer_rgba()).astype(int)
    difference = np.abs(image - exact).max(axis=-1)
    assert image.shape == exact.shape
    assert (difference > 0).mean() < 0.03
    assert (
        difference > 32
    ).mean() < 0.0015  # of the edges of letters and dots, in their rarer shades
    assert difference.max() < 128


def test_the_resolution_is_the_size():
    image = Image.open(io.BytesIO(render_png(draw_dashboard(nothing(), 72))))
    assert image.size == (18 * 72, 10 * 72)
    assert image.info["dpi"] == pytest.approx((72, 72), abs=0.1)


@pytest.mark.slow
def test_the_same_history_is_the_same_picture():
    pictures = {render_png(draw_dashboard(run("default"), 40)) for _ in range(2)}
    assert len(pictures) == 1
