# @title GitOps delivery, simulated and measured with DORA { display-mode: "form" }
# /// script
# requires-python = ">=3.8"
# dependencies = ["numpy>=1.21", "pandas>=1.3", "matplotlib>=3.4", "seaborn>=0.11"]
# ///
"""Simulate a GitOps delivery pipeline, or read a real one, and measure it with the DORA metrics.

Commits flow through dev, staging and production as Argo CD would sync them. Failed syncs are
rolled back. A team's real deployments come from its config repository, its Argo CD or tables. The
result is measured, reported and drawn. A what-if forecasts the same pipeline with other settings.
There are three ways to use this file::

    python gitops_automation.py          # prints a report, draws output/gitops_dashboard.png
    (paste the whole file into a notebook cell)
    from gitops_automation import GitOpsAutomation

The data is the architecture. There are three tables: `git_commits`, `deployments` and `rollbacks`
(`COLUMNS` lists their columns). A section either produces them, simulated or from real history, or
reads them. From top to bottom, as the data flows:

    Vocabulary            the tables and words that every layer shares
    Scenario              every knob, declared once
    Git layer             a team -> commits
    Deployment engine     commits -> deployments
    Rollback manager      deployments -> rollbacks and alerts
    Real history          a git repository, Argo CD, files -> the same tables
    DORA calculator       history -> metrics
    Trace                 history -> the life of one release
    Reporting engine      metrics -> console, JSON and dashboard; further down, forecasts
    What-if               scenarios -> months side by side
    Recommendations       the smallest change that meets a target
    Calibration           history -> scenario, with what is not known
    GitOpsAutomation      the pipeline, a method for each step
    Command line          options -> calls of GitOpsAutomation

Where to begin for a change: a new stage is a row of `DEFAULT_ENVIRONMENTS`, a new setting a
`knob`. A new number is an entry of `METRICS` and a line of `headline_metrics`, or of
`counts_by_name` where names are counted. A new section of the report is an entry of `REPORT`.

Times are UTC in whole seconds, as git and Argo CD keep them. A run depends on its seed, its window
and its scenario alone. An undefined number is NaN in Python, `n/a` in print and `null` in JSON.
"""

from __future__ import annotations

import argparse
import bisect
import collections
import contextlib
import copy
import dataclasses
import datetime as _dt
import difflib
import fnmatch
import functools
import gc
import hashlib
import html
import io
import itertools
import json
import math
import operator
import os
import posixpath
import re
import reprlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import unicodedata
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from time import monotonic
from typing import (
    IO,
    Any,
    Callable,
    Collection,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Pattern,
    Sequence,
    Set,
    Tuple,
    Union,
)

if __name__ == "__main__" and "IPython" not in sys.modules:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the packages load ends quietly

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import dates as mdates
from matplotlib import patches as mpatches
from matplotlib import style as mpl_style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import EngFormatter, MaxNLocator
from matplotlib.transforms import Bbox
from PIL import Image  # matplotlib requires Pillow and writes PNG files with it

__version__ = "2.0.0"
__all__ = [
    "GitOpsAutomation",
    "GitOpsError",
    "Scenario",
    "Team",
    "Environment",
    "RollbackPolicy",
    "History",
    "Metrics",
    "Window",
    "load_gitops_repository",
    "load_release_tags",
    "load_argocd",
    "join_histories",
    "load_tables",
    "read_incidents",
    "with_incidents",
    "PRESETS",
    "measure",
    "calibrate",
    "backtest",
    "production_metrics",
    "calculate_dora_metrics",
    "calculate_maturity",
]

# ---- Vocabulary: the tables and words that every layer shares -----------------------------------

SYNCED, FAILED = "Synced", "Failed"  # Argo CD's outcome of a sync operation
HEALTHY, DEGRADED = "Healthy", "Degraded"  # Argo CD's health of the application after it
UNKNOWN = "Unknown"  # its health where nobody looked: of real history alone

# fmt: off
COLUMNS: Dict[str, Dict[str, str]] = {
    "git_commits": {
        "sha": "text", "timestamp": "time", "author": "word", "type": "word", "application": "word",
        "branch": "word", "message": "text", "files_changed": "count",
    },
    "deployments": {
        "timestamp": "time", "application": "word", "environment": "word", "commit_sha": "word",
        "status": "word", "health": "word", "duration_sec": "count", "failure_reason": "word",
        "recovered": "time",
    },
    "rollbacks": {
        "timestamp": "time", "application": "word", "environment": "word", "from_commit": "text",
        "to_commit": "text", "reason": "word", "duration_min": "number", "success": "flag",
    },
}
"""The public contract: the columns of each table in order, and the kind of value in each. A `word`
column is categorical: it has few distinct values, or it is a key that joins two tables."""
DETAILS: Dict[str, Dict[str, str]] = {  # of real deployments alone, see `History`
    "changes": {
        "application": "word", "environment": "word", "commit_sha": "text", "version": "text",
        "committed": "time", "deployed": "time",
    },
    "coverage": {
        "application": "word", "environment": "word", "origin": "text", "rule": "word",
        "from": "time", "to": "time", "lost": "count",
    },
    "incidents": {
        "application": "word", "environment": "word", "started": "time", "resolved": "time",
        "deployed": "time",
    },
}
# fmt: on
ALL_COLUMNS = {**COLUMNS, **DETAILS}
TIME_OF = {  # the time that says whether a row lies in a window
    **dict.fromkeys(COLUMNS, "timestamp"),
    "changes": "deployed",
    "incidents": "deployed",
}

SIMULATED_TABLES = "simulated files"  # the source of a part of a simulation that was read back
DAY = 86_400  # seconds
NEVER = 1 << 40  # seconds: later than any time that can occur
MISSING = -1  # seconds: a time that is not known, or did not come yet
MONDAY = 4 * DAY  # 1970-01-05, the first Monday
FIRST_DAY, LAST_DAY = pd.Timestamp("1970-01-01", tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC")
LAST_SECOND = int(LAST_DAY.timestamp()) - 1
MOST_DAYS = 1_000_000
SCHEMA_VERSION = 2  # of the JSON and the CSV files; it rises when a name or a meaning changes
NAME_WIDTH = 253  # characters, as in Kubernetes; longer texts are cut where they are read


FilePath = Union[str, os.PathLike]
Row = Tuple[Any, ...]  # of a table, in the order of its columns


class GitOpsError(ValueError):
    """Unusable input. The message is one line: what is wrong, the value, and what to do."""

    def _render_traceback_(self) -> List[str]:
        """Return what a notebook shows of the error: the line alone."""
        return [f"GitOpsError: {self}"]


class Window(NamedTuple):
    """The whole UTC days that are measured, from `start` to just before `end`."""

    start: pd.Timestamp
    end: pd.Timestamp

    @property
    def days(self) -> int:
        """How many days the window has."""
        return (self.end - self.start).days

    @property
    def last(self) -> pd.Timestamp:
        """The last day of the window."""
        return self.end - pd.Timedelta(days=1)

    @property
    def seconds(self) -> Tuple[int, int]:
        """Start and end in seconds since 1970."""
        return int(self.start.timestamp()), int(self.end.timestamp())

    @classmethod
    def before(cls, end: pd.Timestamp, days: int) -> Window:
        """Return the whole days before `end`; GitOpsError unless `days` is a positive integer."""
        days = check_whole("days", days, 1, MOST_DAYS)
        if days > (end - FIRST_DAY).days:
            raise GitOpsError(
                f"days reaches back before 1970: {days}; choose fewer days or a later end"
            )
        return cls(end - pd.Timedelta(days=days), end)


class History(NamedTuple):
    """What happened: the three tables, their window, and the environments in promotion order.

    `source` says where it comes from: `simulated`, `git` (deployments that a config repository
    shows), `argocd`, `tags`, `files` or SIMULATED_TABLES. A failed deployment was good again when
    it `recovered`; that is missing while it lasts. The other fields are known of real deployments
    alone:

    - `changes`: a row is a change in one environment. `deployed` is the end of the first deployment
      there that contains it. It is missing while another environment has the change and production
      waits for it.
    - `coverage`: a row is an application in an environment. Nothing of it is lost from `from` to
      `to`. `lost` says how many entries before that are gone. `rule` is what told the environment.
      `origin` is what the source calls it.
    - `incidents`: a row is an incident of the deployment that ended at `deployed`. `resolved` is
      missing while it lasts. None where no incidents were given.
    - `notes`: what else the source shows, a line each.
    """

    git_commits: pd.DataFrame
    deployments: pd.DataFrame
    rollbacks: pd.DataFrame
    window: Window
    environments: Tuple[str, ...]
    source: str = "simulated"
    changes: Optional[pd.DataFrame] = None
    coverage: Optional[pd.DataFrame] = None
    incidents: Optional[pd.DataFrame] = None
    notes: Tuple[str, ...] = ()

    @property
    def production(self) -> str:
        """The name of the last environment."""
        return self.environments[-1]

    @property
    def is_simulated(self) -> bool:
        """Whether the deployments are simulated; the commits may be real."""
        return self.source == "simulated"

    def covered(self, environment: str) -> pd.DataFrame:
        """Return the rows of `coverage` for one environment."""
        assert self.coverage is not None
        return self.coverage[has_word(self.coverage["environment"], environment)]

    def changes_to(self, environment: str) -> pd.DataFrame:
        """Return the rows of `changes` for one environment."""
        assert self.changes is not None
        return self.changes[has_word(self.changes["environment"], environment)]

    def within(self, window: Window) -> History:
        """Return what happened within a window, and the commits before it; GitOpsError if nothing.

        A change that shipped after it waits at its end. A recovery after it is not known yet.
        """
        if window.start >= self.window.end or window.end <= self.window.start:
            raise GitOpsError(
                f"nothing is known from {window.start:%Y-%m-%d} to {window.last:%Y-%m-%d}: this "
                f"history goes from {self.window.start:%Y-%m-%d} to {self.window.last:%Y-%m-%d}; "
                "choose other --days or --end"
            )
        low, high = window.seconds
        high = high if window.end < self.window.end else NEVER  # what came later is told of it all
        tables = {}
        for name, column in TIME_OF.items():
            table = getattr(self, name)
            if table is None:
                continue
            times = seconds_of(table[column])
            kept = (times >= low) & (times < high)
            if name == "changes":
                begun = seconds_of(table["committed"]) < high
                kept |= begun & ((times < 0) | (times >= high))
                table = table.assign(deployed=table["deployed"].where(times < high))
            elif name == "deployments":
                over = seconds_of(table["recovered"]) < high
                table = table.assign(recovered=table["recovered"].where(over))
            tables[name] = table[kept].reset_index(drop=True)
        coverage = self.coverage
        if coverage is not None:
            coverage = coverage.assign(
                lost=coverage["lost"].where(coverage["from"] > window.start, 0)
            )
            cut = {edge: coverage[edge].clip(window.start, window.end) for edge in ("from", "to")}
            coverage = coverage.assign(**cut)
            coverage = coverage[coverage["from"] < coverage["to"]].reset_index(drop=True)
        return self._replace(window=window, coverage=coverage, **tables)

    @classmethod
    def of(
        cls,
        git_commits: pd.DataFrame,
        deployments: pd.DataFrame,
        rollbacks: pd.DataFrame,
        window: Window,
        environments: Sequence[str],
    ) -> History:
        """Make a history from tables of any origin, such as an export that was read back.

        Raises GitOpsError for a table without its columns, or an environment that is not listed.
        """
        history = cls(
            as_table("git_commits", git_commits),
            as_table("deployments", deployments),
            as_table("rollbacks", rollbacks),
            window,
            tuple(environments),
        )
        for table in (history.deployments, history.rollbacks):
            named = list(count_words(table["environment"]))
            known = set(named) <= set(environments)
            check_that(known, "the environments", f"be among {', '.join(environments)}", named)
        return history


def as_table(name: str, columns: Union[pd.DataFrame, Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table with its columns in order, each of its kind. Every table comes through here.

    Raises GitOpsError for a missing column or a value of another kind.
    """
    data = {}
    for column, kind in ALL_COLUMNS[name].items():
        if column not in columns:
            needed = ", ".join(ALL_COLUMNS[name])
            raise GitOpsError(f"table {name} has no column {column!r}; it needs {needed}")
        data[column] = as_kind(kind, columns[column], f"{name}.{column}")
    return pd.DataFrame(data, copy=False)


def as_kind(kind: str, values: Any, where: str) -> Any:
    """Return the values as one kind of column (see `COLUMNS`), or raise GitOpsError."""
    try:
        if kind == "time":
            return as_times(values)
        if kind == "word":
            return values if isinstance(values, pd.Categorical) else as_words(values)
        dtype = {"text": object, "count": "int64", "number": "float64", "flag": "bool"}[kind]
        return pd.Series(np.asarray(values), dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        message = f"table column {where} does not hold {kind} values: {one_line(error)}"
        raise GitOpsError(message) from None


def as_words(values: Any) -> pd.Categorical:
    """Return a categorical column whose categories are strings."""
    words = pd.Categorical(values)
    return words.rename_categories(pd.Index([str(word) for word in words.categories], dtype=object))


def as_times(values: Any) -> Any:
    """Return UTC times in nanoseconds, from times of any kind or from seconds since 1970."""
    if isinstance(values, np.ndarray) and values.dtype == np.int64:
        return utc_times(values).where(values != MISSING)
    times = pd.Series(pd.to_datetime(np.asarray(values), utc=True))
    return times.astype("datetime64[ns, UTC]").array


def utc_times(seconds: np.ndarray) -> pd.DatetimeIndex:
    """Return seconds since 1970 as times."""
    return pd.DatetimeIndex((seconds * 1_000_000_000).view("M8[ns]")).tz_localize("UTC")


def seconds_of(times: Union[pd.Series, pd.DatetimeIndex]) -> np.ndarray:
    """Return times as whole seconds since 1970. The layers calculate with these: they are exact."""
    return times.to_numpy("M8[ns]").view("int64") // 1_000_000_000


def word_column(codes: np.ndarray, words: Sequence[str]) -> pd.Categorical:
    """Return a categorical column from positions in a list of words."""
    return pd.Categorical.from_codes(codes, categories=pd.Index(words, dtype=object))


def codes_of(column: pd.Series, words: Union[Sequence[str], pd.Series]) -> np.ndarray:
    """Return the position of each value in `words`, -1 where it is none of them."""
    codes, categories = column.cat.codes.to_numpy(), column.cat.categories.to_numpy()
    words = np.asarray(words, dtype=object)
    if np.array_equal(categories, words):  # spares a hash table of a million keys
        return codes.astype(np.int64)
    known = pd.Index(words).get_indexer(pd.Index(categories, dtype=object))
    return np.append(known, -1)[codes]


def has_word(column: pd.Series, word: str) -> np.ndarray:
    """Return where a categorical column has this word."""
    return codes_of(column, [word]) == 0


def count_words(words: pd.Series) -> Dict[str, int]:
    """Count each word of a categorical column: most frequent first, then by name."""
    codes = words.cat.codes.to_numpy()
    counts = np.bincount(codes[codes >= 0], minlength=len(words.cat.categories))
    return rank_words(words.cat.categories, counts)


def rank_words(words: Iterable[str], counts: np.ndarray) -> Dict[str, int]:
    """Return the words that are counted at all: most frequent first, then by name."""
    ordered = sorted(zip(words, counts.tolist()), key=lambda pair: (-pair[1], pair[0]))
    return {word: count for word, count in ordered if count}


def one_line(text: object, width: int = 200) -> str:
    """Return untrusted text as one printable line, cut to `width` characters."""
    if isinstance(text, str) and text.isascii() and text.isalnum() and len(text) <= width:
        return text  # most names and commits are plain: this is the fast way
    line = " ".join(make_printable(str(text)[: 10 * width]).split()) or "(nothing)"
    return line if len(line) <= width else line[: width - 4].rstrip() + " ..."


def in_quotes(value: object) -> str:
    """Return an untrusted value in quotes for a message, however long or deep it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 120
    return one_line(short.repr(value))


def clean_names(values: Iterable[str]) -> np.ndarray:
    """Return untrusted names as a knob accepts them: printable, in one line, and not too long."""
    names = pd.Series(list(values), dtype=object)
    return names.map({name: one_line(name, NAME_WIDTH) for name in names.unique()}).to_numpy(object)


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def make_printable(text: str, keep: str = "") -> str:
    """Replace characters that could steer a terminal or hide by spaces, except those to keep."""
    if text.isprintable():
        return text
    unsafe = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, invisible formats, half pairs, line ends
    found = {char for char in set(text) - set(keep) if unicodedata.category(char) in unsafe}
    return text.translate(dict.fromkeys(map(ord, found), " ")) if found else text


def looks_like_yaml(text: str) -> bool:
    """Return whether a text that is no JSON begins as YAML does."""
    return re.match(r"""\s*(#|%YAML|---|- |["']?[A-Za-z_]+["']?:\s)""", text) is not None


# ---- Scenario: every knob, declared once --------------------------------------------------------

Range = Tuple[float, ...]
"""A distribution, given by evenly spaced quantiles: (low, high) is uniform between the two, and
more values follow the observations that they were taken from."""
Shares = Mapping[str, float]
"""A weight for each name. Weights need not sum to one."""
Week = Sequence[float]
"""Seven numbers, Monday first."""
Hours = str
"""Opening hours: `always`, or days with hours such as `Mon-Thu 9-17 Fri 9-12:30`."""
Dates = Sequence[Sequence[str]]
"""Spans of days: the first and the last day of each, as `2026-12-20`."""
Zone = str
"""The IANA name of a time zone, such as `Europe/Berlin`."""

PROMOTIONS = ("each", "newest", "soak")
STARTS = ("stage", "commit")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
OPENING = re.compile(
    "(?:({0})(?:-({0}))? )?{1}-{1}".format("|".join(WEEKDAYS), r"([0-9]{1,2})(?::([0-5][0-9]))?")
)
SPEED = ("mean_lead_time", "deployment_frequency")  # the metrics that a shorter way improves


def knob(
    default: Any = dataclasses.MISSING,
    low: float = 0,
    high: float = 1e6,
    *,
    help: str,
    one_of: Sequence[str] = (),
    helps: Sequence[str] = (),
    phrase: str = "",
    practice: str = "",
) -> Any:
    """Declare a knob: a dataclass field with all that checks, help and recommendations need of it.

    `low` and `high` bound each number of the knob. `one_of` lists the words that it can be. `helps`
    names the metrics that a change for the better improves. `phrase` says that change in words,
    with {environment}, {before} and {after}. `practice` says how teams bring it about.
    """
    declared = dict(
        low=low, high=high, help=help, one_of=one_of, helps=helps, phrase=phrase, practice=practice
    )
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=declared)
    return field(default=default, metadata=declared)


class Knobs:
    """A group of knobs, checked when it is made: a frozen dataclass with fields made by `knob`."""

    @property
    def label(self) -> str:
        """What messages and changes call the group."""
        return {"Team": "team", "RollbackPolicy": "rollback"}.get(type(self).__name__, "")

    def __post_init__(self) -> None:
        for declared in dataclasses.fields(self):  # type: ignore[arg-type]
            self._set(declared, getattr(self, declared.name))

    def _set(self, declared: Any, value: Any) -> None:
        """Store the value of a knob; GitOpsError if it is not as it was declared."""
        path = f"{self.label}.{declared.name}".lstrip(".")
        object.__setattr__(self, declared.name, check_knob(path, value, declared))

    def replaced(self, changes: Mapping[str, Any]) -> Any:
        """Return a copy with other values; GitOpsError for a knob that there is not."""
        known, copied = known_keys(self.label, changes, type(self)), copy.copy(self)
        for declared in dataclasses.fields(self):  # type: ignore[arg-type]
            if declared.name in known:
                copied._set(declared, known[declared.name])
        return copied


def check_that(is_right: Any, name: str, rule: str, value: Any) -> None:
    """Raise GitOpsError unless a value is right. It names value and rule."""
    if not is_right:
        raise GitOpsError(f"{name} must {rule}, not {in_quotes(value)}")


def check_knob(path: str, value: Any, declared: Any) -> Any:
    """Return the value of a knob in its own type; GitOpsError if it is not as it was declared."""
    low, high = declared.metadata.get("low"), declared.metadata.get("high")
    if declared.type == "float":
        return check_number(path, value, low, high)
    if declared.type == "int":
        return check_whole(path, value, low, high)
    if declared.type == "str":
        return check_word(path, value, declared.metadata["one_of"])
    if declared.type in CHECKS:
        return CHECKS[declared.type](path, value)
    if path == "environments":
        return check_pipeline(value)
    if path in ("team", "rollback"):
        return check_instance(path, value, Team if path == "team" else RollbackPolicy)
    values = tuple(check_number(path, item, low, high) for item in check_list(path, value))
    if declared.type == "Week":
        check_that(len(values) == 7, path, "have seven numbers, Monday first", values)
    else:
        rising = len(values) > 1 and list(values) == sorted(values)
        check_that(rising, path, "go from low to high, such as [2, 6]", list(values))
    return values


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return a number between two bounds; GitOpsError if it is none."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    in_bounds = is_number and low <= value <= high
    check_that(in_bounds, name, f"be a number from {low:g} to {high:g}", value)
    return int(value) if isinstance(value, Integral) else float(value)


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """Return a whole number between two bounds; GitOpsError if it is none."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    in_bounds = is_whole and low <= value <= high
    check_that(in_bounds, name, f"be a whole number from {low} to {high}", value)
    return int(value)


def check_word(name: str, value: Any, one_of: Sequence[str] = ()) -> str:
    """Return a printable name, one of a list if there is one; GitOpsError if it is none."""
    check_that(not one_of or value in one_of, name, f"be one of {', '.join(one_of)}", value)
    is_name = isinstance(value, str) and value.strip() and value == one_line(value, NAME_WIDTH)
    check_that(is_name, name, "be a short printable name", value)
    return value


def check_shares(name: str, value: Any) -> Dict[str, float]:
    """Return a weight for each name; GitOpsError unless they sum to more than zero."""
    rule = 'give a weight to each name, such as {"a": 1}'
    check_that(isinstance(value, Mapping), name, rule, value)
    weights = {}
    for key, weight in value.items():
        key = check_word(f"a name in {name}", key)
        weights[key] = check_number(f"{name}[{key!r}]", weight, 0, 1e6)
    check_that(
        sum(weights.values()) > 0, f"the weights of {name}", "sum to more than zero", weights
    )
    return weights


def opening_minutes(hours: Hours) -> List[Tuple[int, int, int]]:
    """Return (weekday, first minute, minute after the last) of each opening of a week, in order.

    Nothing for a text that says no hours.
    """
    if hours == "always":
        return [(day, 0, 24 * 60) for day in range(7)]
    if not re.fullmatch(f"{OPENING.pattern}( {OPENING.pattern})*", hours):
        return []
    found = []
    for first, last, hour, minute, last_hour, last_minute in OPENING.findall(hours):
        begin = int(hour) * 60 + int(minute or 0)
        over = int(last_hour) * 60 + int(last_minute or 0)
        if not begin < over <= 24 * 60:
            return []
        day = WEEKDAYS.index(first or "Mon")
        days = (WEEKDAYS.index(last or first or "Sun") - day) % 7 + 1
        found += [((day + more) % 7, begin, over) for more in range(days)]
    return sorted(found)


def check_hours(name: str, value: Any) -> str:
    """Return opening hours; GitOpsError if the text says none."""
    rule = "be always, or days with hours such as 'Mon-Fri 9-17'"
    check_that(isinstance(value, str) and opening_minutes(value), name, rule, value)
    return value


def check_dates(name: str, value: Any) -> Tuple[Tuple[str, str], ...]:
    """Return spans of days as pairs of dates; GitOpsError if one is none."""
    example = '[["2026-12-20", "2027-01-04"]]'
    spans = []
    for span in check_list(name, value, example):
        dates = []
        with contextlib.suppress(ValueError, TypeError):
            dates = [_dt.datetime.strptime(day, "%Y-%m-%d") for day in span]
        rule = f"be pairs of dates from 1970 to 2199, such as {example}"
        in_order = len(dates) == 2 and 1970 <= dates[0].year <= dates[1].year < 2200
        check_that(in_order and dates[0] <= dates[1], name, rule, span)
        spans.append((f"{dates[0]:%Y-%m-%d}", f"{dates[1]:%Y-%m-%d}"))
    return tuple(spans)


def check_zone(name: str, value: Any) -> str:
    """Return the name of a time zone; GitOpsError if there is none of this name."""
    known = None
    if isinstance(value, str) and re.fullmatch(r"[A-Z][A-Za-z0-9_+/-]{0,60}", value):
        with contextlib.suppress(KeyError, ValueError, OSError):
            known = pd.Timestamp("2026-01-01", tz=value)
    check_that(known, name, "be an IANA name such as Europe/Berlin", value)
    return value


CHECKS: Dict[str, Callable[[str, Any], Any]] = {
    "Shares": check_shares,
    "Hours": check_hours,
    "Dates": check_dates,
    "Zone": check_zone,
}


def check_list(name: str, values: Any, example: str = "[2, 6]") -> List[Any]:
    """Return the values of a list; GitOpsError if it is none."""
    is_list = hasattr(values, "__iter__") and not isinstance(values, (str, Mapping))
    check_that(is_list, name, f"be a list such as {example}", values)
    return list(values)


def check_instance(name: str, value: Any, kind: type) -> Any:
    """Return a value of a class; GitOpsError if it is of another."""
    check_that(isinstance(value, kind), name, f"be a {kind.__name__}", value)
    return value


def check_pipeline(environments: Any) -> Tuple[Environment, ...]:
    """Return the environments of a scenario; GitOpsError unless 1 to 50 have different names."""
    listed = check_list("environments", environments)
    stages = tuple(check_instance("an environment", item, Environment) for item in listed)
    names = [stage.name for stage in stages]
    different = 1 <= len(set(names)) == len(names) <= 50
    check_that(different, "environments", "be 1 to 50 with a name of their own each", names)
    return stages


# fmt: off
@dataclass(frozen=True)
class Team(Knobs):
    """Who commits what, and when."""

    authors: Shares = knob(dict(alice=1, bob=1, charlie=1, diana=1), help="a weight for each name")
    types: Shares = knob(
        dict(feat=0.40, fix=0.30, chore=0.15, refactor=0.10, perf=0.05),
        help="a weight for each commit type")
    applications: Shares = knob(
        dict(frontend=0.40, backend=0.35, database=0.25), help="a weight for each application")
    branch: str = knob("main", help="the name of the branch")
    commits_per_day: float = knob(8.0, help="mean of a day whose weekday factor is 1")
    weekday_factors: Week = knob((1, 1, 1, 1, 1, 0.2, 0.2), help="Monday first")
    dispersion: float = knob(
        2.0, 1, 1000, help="variance over mean of the commits of a day; 1 is pure chance (Poisson)")
    sprint_days: int = knob(14, 1, 365, help="length of a sprint; sprints begin on a Monday")
    sprint_ramp: float = knob(
        0.3, 0, 2,
        help="rise of the rate through a sprint (0.3: from 15 % below the mean to 15 % above)")
    work_hours: Range = knob((9, 18), 0, 24, help="hours of the day in which commits are made")
    time_zone: Zone = knob(
        "UTC", help="IANA name of the zone of work_hours, open_hours, freezes and trains")


@dataclass(frozen=True)
class Environment(Knobs):
    """One stage of the pipeline. `run_stage` says what each knob does."""

    name: str = knob(help="any name; the last environment is production")
    success_rate: float = knob(
        0.95, 0, 1, help="probability that a sync ends healthy",
        helps=("change_failure_rate", "deployment_frequency"),
        phrase="Raise the {environment} success rate from {before} to {after}",
        practice="smaller batches, tests before merge, progressive delivery")
    wait_hours: Range = knob(
        (0, 0),
        help="wait after the stage before: low and high, or more quantiles of a distribution",
        helps=SPEED, phrase="Cut the {environment} wait from {before} to {after}",
        practice="automated approval, smaller batches")
    duration_sec: Range = knob(
        (30, 120), 0, 1e9, help="how long a sync takes",
        helps=SPEED, phrase="Shorten {environment} syncs from {before} to {after}",
        practice="smaller images, faster readiness probes")
    promotion: str = knob(
        "newest", one_of=PROMOTIONS, help="`each`, `newest` or `soak` (see the model)")
    approval_rate: float = knob(
        1.0, 0, 1, help="probability that a release passes the gate",
        helps=SPEED, phrase="Approve {after} of the {environment} releases instead of {before}",
        practice="automated checks in the place of a manual gate")
    release_every_hours: float = knob(
        0.0, help="a release train, counted from the week's first opening; 0 is none",
        helps=SPEED, phrase="Release to {environment} every {after} instead of every {before}",
        practice="release on demand, or smaller trains")
    open_hours: Hours = knob(
        "always", help="when releases may go up, such as `Mon-Fri 9-17` or `Mon-Thu 9-17 Fri 9-12`")
    freezes: Dates = knob((), help="spans of days, first and last, in which nothing goes up")
    batch_risk: float = knob(
        0.0, 0, 1, help="how far each change of a deployment brings its own risk (see the model)",
        helps=("change_failure_rate", "deployment_frequency"),
        phrase="Cut the {environment} batch risk from {before} to {after}",
        practice="feature flags, tests of each change alone")
    starts: str = knob(
        "stage", one_of=STARTS, help="follows the `stage` before, or its `commit`")

    @property
    def label(self) -> str:
        is_name = isinstance(self.name, str) and self.name == one_line(self.name, NAME_WIDTH)
        return self.name if is_name else "environment"


@dataclass(frozen=True)
class RollbackPolicy(Knobs):
    """How a failed deployment is taken back."""

    duration_min: Range = knob(
        (5, 15), 0, 1e8, help="minutes",
        helps=("mttr_minutes",), phrase="Shorten rollbacks from {before} to {after}",
        practice="alerting and one-click rollback")
    success_rate: float = knob(
        0.95, 0, 1, help="probability that a rollback works",
        helps=("mttr_minutes",), phrase="Raise the rollback success rate from {before} to {after}",
        practice="rehearsed rollbacks, migrations that can be undone")


DEFAULT_ENVIRONMENTS = (
    #           name          success  wait_hours  duration_sec  promotion
    Environment("dev",        0.90,    (0, 0),     (10, 60),     "each"),
    Environment("staging",    0.93,    (2, 6),     (15, 90),     "newest"),
    Environment("production", 0.95,    (24, 72),   (30, 120),    "newest"),
)
# fmt: on

DEFAULT_REASONS = {  # what Kubernetes and Argo CD say when a sync or the rollout after it fails
    "CrashLoopBackOff": 0.25,
    "Readiness probe failed": 0.20,
    "ImagePullBackOff": 0.15,
    "ProgressDeadlineExceeded": 0.15,
    "OOMKilled": 0.10,
    "SyncError: one or more objects failed to apply": 0.10,
    "FailedScheduling: insufficient resources": 0.05,
}


@dataclass(frozen=True)
class Scenario(Knobs):
    """Every knob of the simulation. The last environment is production.

    >>> Scenario().with_environment("production", wait_hours=(4, 12)).environments[-1].wait_hours
    (4, 12)
    """

    team: Team = field(default_factory=Team)
    environments: Tuple[Environment, ...] = DEFAULT_ENVIRONMENTS
    rollback: RollbackPolicy = field(default_factory=RollbackPolicy)
    failure_reasons: Shares = knob(DEFAULT_REASONS, help="a weight for each text")

    @property
    def names(self) -> List[str]:
        """The names of the environments in promotion order."""
        return [environment.name for environment in self.environments]

    @property
    def groups(self) -> Dict[str, Knobs]:
        """The groups of knobs by the name that changes give them: team, rollback, environments.

        An environment that is itself called `team` is `environments.team` here.
        """
        groups: Dict[str, Knobs] = {"team": self.team, "rollback": self.rollback}
        for environment in self.environments:
            groups[self.group_of(environment.name)] = environment
        return groups

    @staticmethod
    def group_of(environment: object) -> str:
        """Return what changes call an environment."""
        is_taken = environment in ("team", "rollback")
        return f"environments.{environment}" if is_taken else str(environment)

    def with_knobs(self, group: str, **changes: Any) -> Scenario:
        """Return a copy with other knobs in one of the `groups`; GitOpsError if there is none."""
        if group not in self.groups:
            known = ", ".join(self.names)
            problem = f"unknown environment {in_quotes(group)}; the scenario has {known}"
            raise GitOpsError(f"{problem}; Scenario(environments=...) takes others")
        changed = {**self.groups, group: self.groups[group].replaced(changes)}
        team, rollback, *environments = changed.values()
        return self.replaced(dict(team=team, rollback=rollback, environments=environments))

    def with_team(self, **changes: Any) -> Scenario:
        """Return a copy with other knobs of the `Team`."""
        return self.with_knobs("team", **changes)

    def with_environment(self, name: str, **changes: Any) -> Scenario:
        """Return a copy with other knobs of one `Environment`; GitOpsError if there is none."""
        return self.with_knobs(self.group_of(name), **changes)

    def with_rollback(self, **changes: Any) -> Scenario:
        """Return a copy with other knobs of the `RollbackPolicy`."""
        return self.with_knobs("rollback", **changes)

    def to_json(self) -> str:
        """Return the scenario as a JSON document that `from_json` reads back to an equal one.

        It is ASCII, as a shell may write it to a file in any encoding.
        """
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str, base: Optional[Scenario] = None) -> Scenario:
        """Read a JSON document. What it leaves out stays as in `base`, the default scenario.

        `environments` is the whole pipeline in order. What is left out of an environment that the
        base has stays too. A new one must say its wait, success rate and duration. Raises
        GitOpsError for what is unknown, missing or out of range.
        """
        base = cls() if base is None else base
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            why = "it looks like YAML" if looks_like_yaml(text) else one_line(error)
            problem = f"the configuration is not JSON: {why}"
            raise GitOpsError(f"{problem}; --print-config shows one that is") from None
        values = known_keys("the configuration", document, cls)
        for key, group in (("team", base.team), ("rollback", base.rollback)):
            if key in values:
                values[key] = group.replaced(values[key])
        if "environments" in values:
            example = '[{"name": "dev"}, {"name": "production"}]'
            listed = check_list("environments", values["environments"], example)
            values["environments"] = tuple(environment_from(item, base) for item in listed)
        return dataclasses.replace(base, **values)


def environment_from(document: Any, base: Scenario) -> Environment:
    """Read an environment of a JSON document (see `Scenario.from_json`)."""
    values = known_keys("an environment", document, Environment)
    if "name" not in values:
        raise GitOpsError(f'an environment has no name: {in_quotes(document)}; add "name"')
    for environment in base.environments:
        if environment.name == values["name"]:
            return dataclasses.replace(environment, **values)
    missing = [key for key in ("wait_hours", "success_rate", "duration_sec") if key not in values]
    if missing:
        name = in_quotes(values["name"])
        raise GitOpsError(f"the new environment {name} lacks {', '.join(missing)}; add them")
    return Environment(**values)


def read_scenario(path: Union[str, os.PathLike], base: Optional[Scenario] = None) -> Scenario:
    """Read a scenario from a JSON file (see `from_json`); GitOpsError that names the file."""
    try:
        return Scenario.from_json(Path(path).read_text(encoding="utf-8-sig"), base)
    except GitOpsError as error:
        raise GitOpsError(f"{one_line(path)}: {error}") from None
    except (OSError, ValueError) as error:
        problem = f"cannot read the configuration {one_line(path)}: {one_line(error)}"
        raise GitOpsError(
            f"{problem}; --print-config prints one to begin with, and a preset is one of "
            f"{', '.join(PRESETS)}"
        ) from None


def known_keys(what: str, document: Any, knobs: type) -> Dict[str, Any]:
    """Return a JSON object as a dict; GitOpsError if it is none or has a key that is no knob."""
    if not isinstance(document, dict):
        raise GitOpsError(f"{what} must be a JSON object, not {in_quotes(document)}")
    known = [declared.name for declared in dataclasses.fields(knobs)]
    for key in document:
        if key not in known:
            raise GitOpsError(
                f"unknown key {in_quotes(key)} in {what}; known keys: {', '.join(known)}"
            )
    return dict(document)


# fmt: off
PRESETS: Dict[str, Scenario] = {
    "gitops": Scenario(),
    # The same team and the same quality of change: each change of a batch brings its own risk
    # (batch_risk 1), as DORA finds that larger batches fail more often ("Working in small
    # batches", dora.dev). Only how releases travel differs, and gates open in office hours.
    "traditional": Scenario(
        environments=(
            # one nightly build for the day's commits, so feedback comes the next morning
            Environment("dev", 0.90, (0, 0), (600, 1800), "newest",
                        release_every_hours=24, batch_risk=1),
            # a manual test pass of one to three days before a build may go on
            Environment("staging", 0.93, (24, 72), (900, 3600), "newest",
                        open_hours="Mon-Fri 9-17", batch_risk=1),
            # a change board meets, then the train leaves once a week, on Mondays at 9:00
            Environment("production", 0.95, (4, 24), (1800, 7200), "newest",
                        release_every_hours=168, open_hours="Mon-Fri 9-17", batch_risk=1),
        ),
        # someone is called, finds the last good build and redeploys it by hand: one to eight hours
        rollback=RollbackPolicy(duration_min=(60, 480), success_rate=0.95),
    ),
    # The gates are automated: tests decide in under an hour. Production follows in the same shift.
    "elite": Scenario(
        environments=(
            Environment("dev", 0.90, (0, 0), (10, 60), "each"),
            Environment("staging", 0.93, (0.25, 1), (15, 90), "newest"),
            Environment("production", 0.95, (1, 6), (30, 120), "newest"),
        )
    ),
}
# fmt: on


def parse_change(text: str, scenario: Scenario) -> Scenario:
    """Return a scenario with the changes of a text such as `production.wait_hours=4:12`.

    A comma separates several changes. A range is `low:high`. `*2` doubles the old value.

    >>> parse_change("production.wait_hours=*0.5", Scenario()).environments[-1].wait_hours
    (12.0, 36.0)
    """
    for change in re.split(r",(?=[^,]*=)", text):
        path, _, value = (part.strip() for part in change.partition("="))
        if path not in knob_paths(scenario) or not value:
            raise GitOpsError(unknown_change(change, path, knob_paths(scenario)))
        group, _, name = path.rpartition(".")
        new = knob_value(path, value, getattr(scenario.groups[group], name))
        scenario = scenario.with_knobs(group, **{name: new})
    return scenario


def knob_paths(scenario: Scenario) -> List[str]:
    """Return the paths of all knobs that a change can name."""
    return [
        f"{path}.{declared.name}"
        for path, group in scenario.groups.items()
        for declared in dataclasses.fields(group)  # type: ignore[arg-type]
        if declared.name != "name"
    ]


def unknown_change(change: str, path: str, known: Sequence[str]) -> str:
    """Return the message for a change that names no knob or no value."""
    problem = f"unknown change {in_quotes(change)}"
    if path in known:
        return f"{problem}; give it a value, as {path}=VALUE"
    alike = difflib.get_close_matches(path, known, 4) or known[:4]
    return f"{problem}; the nearest knobs are {', '.join(alike)} (README.md lists all)"


def knob_value(path: str, text: str, old: Any) -> Any:
    """Return the new value of a knob, in the kind of its old one. Of a range `4` is `4:4`."""
    if isinstance(old, str):
        return text
    if isinstance(old, Mapping) or path.endswith(".freezes"):
        raise GitOpsError(f"{path} has several parts; change it in a JSON file for --config")
    is_range = isinstance(old, tuple)
    try:
        if text.startswith("*"):
            factor = float(text[1:])
            values = [factor * value for value in old] if is_range else [factor * old]
        else:
            parts = text.split(":") if is_range else [text]
            values = [float(part) for part in parts]
    except (ValueError, OverflowError):
        example = "4:12" if is_range else "0.5"
        message = f"{path} cannot be {in_quotes(text)}; give a value such as {example} or *0.5"
        raise GitOpsError(message) from None
    if is_range:
        return (values[0], values[0]) if len(values) == 1 else tuple(values)
    return int(values[0]) if isinstance(old, int) and values[0].is_integer() else values[0]


# All noise is uniform on 0..1, and every layer is a deterministic function of it. So two scenarios
# under one seed differ by their knobs alone, and no sampler of numpy can change between versions.

LAYERS = ("commits", "deployments", "rollbacks")


class Noise:
    """The noise of one simulation, or of one block of months. All scenarios share what is drawn."""

    def __init__(self, seed: int, *block: int) -> None:
        self._seed, self._block = seed, block
        self._drawn: Dict[Tuple[str, int], np.ndarray] = {}

    def stream(self, layer: str, *parts: int) -> np.random.Generator:
        """Return the random stream of a layer, from integer seeds: numpy 1.21 has no spawn()."""
        seeds = [*parts, *self._block] or [0]
        return np.random.Generator(np.random.PCG64([self._seed, LAYERS.index(layer), *seeds]))

    def of(self, layer: str, part: int, rows: int, count: int) -> np.ndarray:
        """Return an array of `rows` x `count`; fewer rows are the first ones of more."""
        known = self._drawn.get((layer, part))
        if known is None or known.shape[1] != count or len(known) < rows:
            known = self._drawn[layer, part] = self.stream(layer, part).random((rows, count))
        return known


def quantile_at(values: Range, noise: np.ndarray) -> np.ndarray:
    """Return draws from a `Range`: its quantiles at the noise."""
    if len(values) == 2:
        return values[0] + noise * (values[1] - values[0])
    return np.interp(noise, np.linspace(0, 1, len(values)), values)


def draw_seconds(values: Range, noise: np.ndarray, unit: float = 1) -> np.ndarray:
    """Return draws from a `Range` of units, in whole seconds."""
    return np.rint(quantile_at(values, noise) * unit).astype(np.int64)


def draw_shares(weights: Shares, noise: np.ndarray) -> np.ndarray:
    """Return positions in `weights`, each as often as its weight says."""
    edges = np.cumsum(list(weights.values()))
    return np.searchsorted(edges[:-1] / edges[-1], noise, side="right")


# ---- Git layer: a team -> commits ---------------------------------------------------------------

COMMIT_TYPES = {  # Conventional Commits 1.0.0 and the types of its Angular convention
    "feat": "features",
    "fix": "bug fixes",
    "chore": "maintenance",
    "refactor": "code cleanup",
    "perf": "performance",
    "docs": "documentation",
    "test": "tests",
    "style": "formatting",
    "build": "build system",
    "ci": "pipelines",
    "revert": "reverted changes",
    "other": "no type",
}

SUBJECTS = {
    "feat": ("add search filters", "support bulk import", "show live status", "add audit trail"),
    "fix": (
        "handle empty response",
        "close stale connections",
        "correct time zone",
        "retry on timeout",
    ),
    "chore": ("update dependencies", "bump base image", "rotate certificates", "tidy manifests"),
    "refactor": ("extract client", "simplify validation", "split module", "remove dead code"),
    "perf": ("cache hot queries", "batch requests", "add missing index", "avoid copies"),
}
OTHER_SUBJECTS = ("update configuration", "revise defaults", "adjust limits", "clean up")
MOST_COMMITS = 100_000_000


class Commits(NamedTuple):
    """Commits as arrays, sorted by group and time. An entry is a commit.

    A group is a simulated month of many, or an application, or everything: whatever is measured
    apart.
    """

    group: np.ndarray
    time: np.ndarray  # seconds since 1970
    application: np.ndarray  # position in the names of the applications

    @property
    def lineage(self) -> np.ndarray:
        """A number for the group and application of each: one line of releases."""
        return self.group * (1 + int(self.application.max(initial=0))) + self.application


Draws = Sequence[Tuple["Scenario", int]]
"""Scenarios that are possible given some data, and how many of the months live in each."""


def simulate_commits(draws: Draws, window: Window, stream: np.random.Generator) -> Commits:
    """Simulate the commits of the months of `Draws`. A month has the days of the window.

    A month is a group. The teams of the draws differ only in how much they commit.
    """
    team, months = draws[0][0].team, months_of_draws(draws)
    first, end, runs = *window.seconds, int(months[-1])
    is_local = team.time_zone != "UTC"
    days = np.arange(first // DAY, end // DAY)
    if is_local:  # a local day may begin the day before in UTC, or end the day after
        days = np.arange(first // DAY - 1, end // DAY + 1)
    noise = np.split(stream.random((runs, len(days))), months[1:-1])
    counts = np.concatenate(
        [commits_of_days(scenario.team, days, own) for (scenario, _), own in zip(draws, noise)]
    )
    run = np.repeat(np.arange(runs), counts.sum(axis=1))
    midnight = np.repeat(np.tile(days * DAY, runs), counts.ravel())
    hour = quantile_at(team.work_hours, stream.random(len(run)))
    second = np.minimum(hour * 3600, DAY - 1).astype(np.int64)
    time = utc_of_local(midnight + second, team.time_zone)
    if is_local:
        inside = (time >= first) & (time < end)
        run, time = run[inside], time[inside]
    time = np.sort(run * NEVER + time) - run * NEVER  # sorted within each run
    return Commits(run, time, draw_shares(team.applications, stream.random(len(run))))


def utc_of_local(seconds: np.ndarray, zone: str) -> np.ndarray:
    """Return UTC seconds of the local times of a zone, both counted from 1970.

    Daylight saving skips some local times: each becomes the next that exists. Others come twice:
    each is the first of the two.
    """
    if zone == "UTC":
        return seconds
    times = utc_times(seconds).tz_localize(None)
    return seconds_of(times.tz_localize(zone, np.ones(len(times), bool), "shift_forward"))


def commits_of_days(team: Team, days: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return how many commits each day has (days since 1970; the last axis of the noise)."""
    cycle = np.arange(7 * team.sprint_days)
    rise = np.linspace(-0.5, 0.5, team.sprint_days)[cycle % team.sprint_days]
    factors = np.take(team.weekday_factors, cycle % 7)
    ramped = factors * (1 + team.sprint_ramp * rise)
    if not ramped.any():  # a ramp of 0 on every working day cannot keep the mean
        ramped = factors
    rates = team.commits_per_day * ramped * (factors.sum() / max(ramped.sum(), 1e-300))
    if rates.mean() * len(days) > MOST_COMMITS:
        asked = f"{len(days)} days of {team.commits_per_day:g} commits"
        raise GitOpsError(f"{asked} are more than {MOST_COMMITS:,}; ask for fewer days or commits")
    counts = np.zeros(noise.shape, np.int64)
    rate_of_day = rates[(days - MONDAY // DAY) % len(cycle)]
    for rate in np.unique(rate_of_day):
        same = rate_of_day == rate
        distribution = count_distribution(rate, team.dispersion)
        counts[..., same] = np.searchsorted(distribution, noise[..., same], side="right")
    return counts


def count_distribution(mean: float, dispersion: float) -> np.ndarray:
    """Return the cumulative probabilities of 0, 1, 2, ... commits in a day.

    The count is Poisson with a gamma-distributed mean (negative binomial): its variance is
    `dispersion` times its mean. The calculation is in logarithms, as p(0) underflows for a large
    mean.
    """
    if mean == 0:
        return np.empty(0)
    excess = dispersion - 1
    k = np.arange(1, int(mean + 12 * math.sqrt(dispersion * mean) + 12 * dispersion + 12))
    log_none = -mean * (math.log(dispersion) / excess if excess else 1.0)
    log_steps = np.log(((k - 1) * excess + mean) / (dispersion * k))
    return np.cumsum(np.exp(log_none + np.append(0.0, np.cumsum(log_steps))))


def commits_table(team: Team, window: Window, seed: int) -> pd.DataFrame:
    """Simulate a team's commits and return the `git_commits` table; a row is a commit."""
    stream = Noise(seed).stream("commits")
    commits = simulate_commits([(Scenario(team=team), 1)], window, stream)
    author, kind, subject, files = stream.random((4, len(commits.time)))
    types = draw_shares(team.types, kind)
    messages = np.empty((len(team.types), len(team.applications), 4), object)
    for number, type_ in enumerate(team.types):
        for place, application in enumerate(team.applications):
            subjects = SUBJECTS.get(type_, OTHER_SUBJECTS)
            messages[number, place] = [f"{type_}({application}): {text}" for text in subjects]
    return as_table(
        "git_commits",
        {
            "sha": commit_hashes(seed, commits.time),
            "timestamp": commits.time,
            "author": word_column(draw_shares(team.authors, author), list(team.authors)),
            "type": word_column(types, list(team.types)),
            "application": word_column(commits.application, list(team.applications)),
            "branch": word_column(np.zeros(len(types), np.int8), [team.branch]),
            "message": messages[types, commits.application, (subject * 4).astype(np.int8)],
            # geometric with mean 4: most changes are small, a few are wide
            "files_changed": np.ceil(np.log1p(-files) / np.log(0.75)).astype(np.int64).clip(1),
        },
    )


def commit_hashes(seed: int, time: np.ndarray) -> np.ndarray:
    """Return 40 hexadecimal digits for each commit, cut from one hash of the seed and the times."""
    digest = hashlib.shake_128(str(seed).encode() + time.astype("<i8").tobytes())
    text = digest.hexdigest(20 * len(time))
    return np.array([text[at : at + 40] for at in range(0, len(text), 40)], dtype=object)


# ---- Deployment engine: commits -> deployments --------------------------------------------------

OUTCOME, WAIT, DURATION, APPROVAL = range(4)  # the rows of a stage's noise


class Stage(NamedTuple):
    """What one environment made of the releases: arrays with an entry for each commit, by lineage.

    A lineage is an application of a run. Its commits are in order of time.
    """

    start: np.ndarray  # seconds since 1970 at which the sync starts if it is let through
    duration: np.ndarray  # seconds
    outcome: np.ndarray  # noise: the sync is good where this is below its chance of success
    chance: np.ndarray
    deployed: np.ndarray
    good: np.ndarray
    flow: Tuple[int, ...]  # see FLOW

    @classmethod
    def joined(cls, pieces: Sequence[Stage]) -> Stage:
        """Return the stage of all draws."""
        if len(pieces) == 1:
            return pieces[0]
        *columns, flows = zip(*pieces)
        flow = tuple(sum(counts) for counts in zip(*flows))
        return cls._make([*map(np.concatenate, columns), flow])


FLOW = ("deployed", "superseded", "held", "in_flight")


class Deployments(NamedTuple):
    """Syncs as arrays, sorted by time. An entry is a sync that started in the window."""

    group: np.ndarray
    time: np.ndarray  # seconds since 1970 at which it started
    end: np.ndarray
    application: np.ndarray
    environment: np.ndarray
    commit: np.ndarray  # row in the commits, -1 if it is not known
    synced: np.ndarray  # whether the sync operation succeeded
    bad: np.ndarray  # whether it failed, or turned out bad
    span: np.ndarray  # a number for the span without a gap, of a real history, that it lies in

    @property
    def place(self) -> np.ndarray:
        """A number for the place of each, where it replaces the release that was there before."""
        place = self.group
        for code in (self.application, self.environment, self.span):
            place = place * (1 + int(code.max(initial=0))) + code
        return place


def run_pipeline(
    commits: Commits, draws: Draws, window: Window, noise: Noise
) -> Tuple[Deployments, List[Stage], np.ndarray]:
    """Take commits through every environment: the model.

    A group of the commits is a month of the draws, in order. Returns the deployments, the stages,
    and which commit each entry of a stage is about.
    """
    lineage = commits.lineage
    order = np.argsort(lineage.astype(smallest_type(lineage)), kind="stable")
    lineage, arrival = number_runs(lineage[order]), commits.time[order]
    edges = np.searchsorted(commits.group[order], months_of_draws(draws))
    stages: List[Stage] = []
    for number in range(len(draws[0][0].environments)):
        drawn = [scenario.environments[number] for scenario, _ in draws]
        rows = 3 + any(environment.approval_rate < 1 for environment in drawn)
        stage_noise = noise.of("deployments", number, rows, len(order))
        if drawn[0].starts == "commit":
            arrival = commits.time[order]
        gate = Gate.of(drawn[0], draws[0][0].team.time_zone, window)
        pieces = [
            run_stage(one, arrival[low:high], lineage[low:high], stage_noise[:, low:high], gate)
            for one, low, high in zip(drawn, edges, edges[1:])
        ]
        stages.append(Stage.joined(pieces))
        arrival = np.where(stages[-1].good, stages[-1].start + stages[-1].duration, NEVER)
    return deployments_of(commits, stages, order), stages, order


def months_of_draws(draws: Draws) -> np.ndarray:
    """Return the first month of each draw, and the end."""
    return np.cumsum([0, *(months for _, months in draws)])


def run_stage(
    environment: Environment,
    arrival: np.ndarray,
    lineage: np.ndarray,
    noise: np.ndarray,
    gate: Gate,
) -> Stage:
    """Take releases through one environment.

    1. A release arrives when it is healthy in the environment before. In the first, and where it
       `starts` with the commit, it is a commit.
    2. It waits `wait_hours`, and then for the gate: the next train or opening (see `Gate`).
    3. The gate lets it through with probability `approval_rate`. Otherwise it is held.
    4. It is superseded if a newer release of its lineage overtakes it (see `overtaken`).
    5. Its sync starts if the window has not ended by then. Otherwise it is in flight.
    6. The sync takes `duration_sec`. It is good with probability `success_rate`, or less where it
       carries several changes (see `success_chance`).
    """
    arrived = arrival < NEVER
    start = gate.next(arrival + draw_seconds(environment.wait_hours, noise[WAIT], 3600))
    approved = arrived
    if environment.approval_rate < 1:
        approved = arrived & (noise[APPROVAL] < environment.approval_rate)
    wanted = approved & ~overtaken(environment.promotion, arrival, start, approved, lineage)
    deployed = wanted & (start < gate.end)
    duration, outcome = draw_seconds(environment.duration_sec, noise[DURATION]), noise[OUTCOME]
    chance = success_chance(environment, deployed, lineage)
    good = deployed & (outcome < chance)
    at_gate, through, ahead, done = (
        int(np.count_nonzero(which)) for which in (arrived, approved, wanted, deployed)
    )
    flow = (done, through - ahead, at_gate - through, ahead - done)
    return Stage(start, duration, outcome, chance, deployed, good, flow)


def success_chance(
    environment: Environment, deployed: np.ndarray, lineage: np.ndarray
) -> np.ndarray:
    """Return the probability that each deployment is good.

    With k changes it is success_rate ** (1 + batch_risk (k - 1)). The changes are the commits of
    the lineage from the deployed one before, good or bad, to its own.
    """
    if not environment.batch_risk:
        return np.broadcast_to(np.float64(environment.success_rate), deployed.shape)
    rows = np.flatnonzero(deployed)
    begin = np.searchsorted(lineage, lineage[rows])
    before = np.maximum(np.append(0, rows[:-1] + 1), begin)[: len(rows)]
    chance = np.ones(len(deployed))
    chance[rows] = environment.success_rate ** (1 + environment.batch_risk * (rows - before))
    return chance


class Gate(NamedTuple):
    """When releases may go up in one environment, in seconds since 1970."""

    opens: np.ndarray
    closes: np.ndarray
    departures: Optional[np.ndarray]  # of the trains that leave while it is open; None without
    end: int  # of the window

    @classmethod
    def of(cls, environment: Environment, zone: str, window: Window) -> Gate:
        """Return the gate of an environment over a window."""
        own = environment.open_hours, environment.freezes, environment.release_every_hours
        return cls.at_hours(*own, zone, *window.seconds)

    @classmethod
    @functools.lru_cache(maxsize=64)
    def at_hours(
        cls, hours: Hours, freezes: Dates, every_hours: float, zone: Zone, start: int, end: int
    ) -> Gate:
        """Return the gate of these hours, known from `start` to a year after `end`.

        Trains leave every `every_hours` after the week's first opening, if the gate is open.
        """
        week, last = opening_minutes(hours), end + 366 * DAY
        always, every = hours == "always", round(every_hours * 3600)
        opens, closes = np.array([0]), np.array([NEVER])
        if not always:
            days = np.arange(start // DAY - 8, last // DAY)
            weekday = (days - MONDAY // DAY) % 7
            local = [
                (days[weekday == day] * DAY + first * 60, days[weekday == day] * DAY + over * 60)
                for day, first, over in week
            ]
            opens, closes = (utc_of_local(np.concatenate(edge), zone) for edge in zip(*local))
        for span in freezes:
            edges = [int(pd.Timestamp(day).timestamp()) for day in span]
            frozen, thawed = utc_of_local(np.array(edges) + [0, DAY], zone)
            before, after = np.minimum(closes, frozen), np.maximum(opens, thawed)
            opens, closes = np.append(opens, after), np.append(before, closes)
        opens, closes = opens[opens < closes], closes[opens < closes]
        order = np.argsort(opens, kind="stable")
        gate = cls(opens[order], np.maximum.accumulate(closes[order]), None, end)
        if every < 60:
            return gate
        begin = MONDAY + week[0][0] * DAY + week[0][1] * 60
        first = (start - 8 * DAY - begin) // every
        departures = utc_of_local(np.arange(begin + first * every, last, every), zone)
        return gate._replace(departures=departures[gate.next(departures) == departures])

    def before(self, times: np.ndarray) -> np.ndarray:
        """Return the last moment at which a release goes up by each time; 0 if there is none."""
        if self.departures is not None:
            return np.append(0, self.departures)[np.searchsorted(self.departures, times)]
        return np.minimum(times, np.append(0, self.closes)[np.searchsorted(self.opens, times)])

    def next(self, times: np.ndarray) -> np.ndarray:
        """Return for each time the next departure or open moment; NEVER if none is known."""
        if self.departures is not None:
            return np.append(self.departures, NEVER)[np.searchsorted(self.departures, times)]
        if len(self.opens) == 1 and self.closes[0] == NEVER:
            return np.maximum(times, self.opens[0])
        opening = np.searchsorted(self.closes, times, side="right")
        return np.maximum(times, np.append(self.opens, NEVER)[opening])


def overtaken(
    promotion: str,
    arrival: np.ndarray,
    start: np.ndarray,
    approved: np.ndarray,
    lineage: np.ndarray,
) -> np.ndarray:
    """Return which releases give way to a newer one of their lineage, by promotion policy.

    1. `each`: none. Every release goes up.
    2. `newest`: a release gives way if the sync of a newer one starts no later.
    3. `soak`: a release gives way if a newer one arrives before its own sync starts, or then.
    """
    if promotion == "each":
        return np.zeros(len(start), bool)
    rival = arrival if promotion == "soak" else np.where(approved, start, NEVER)
    return start >= earliest_of_newer(rival, lineage)


def earliest_of_newer(times: np.ndarray, lineage: np.ndarray) -> np.ndarray:
    """Return for each entry the least time of the later entries of its lineage; NEVER without one.

    It is a running minimum from the end. Each lineage is lifted above the ones before it. That
    takes half the time of pandas' groupby().cummin() and shift().
    """
    lift = lineage * (NEVER + 1)
    earliest = np.full(len(times), np.iinfo(np.int64).max)
    earliest[:-1] = np.minimum.accumulate((np.minimum(times, NEVER) + lift)[:0:-1])[::-1]
    return earliest - lift


def number_runs(ordered: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2, ... for each run of equal values."""
    return np.cumsum(np.diff(ordered, prepend=ordered[:1]) != 0)


def smallest_type(codes: np.ndarray) -> np.dtype:
    """Return the smallest integer type for these codes: numpy sorts small integers by radix."""
    return np.min_scalar_type(int(codes.max(initial=0)))


def time_order(times: np.ndarray) -> np.ndarray:
    """Return the positions that sort the times; equal times keep their order.

    Time and position are packed into one integer: numpy sorts these several times faster than it
    finds the order.
    """
    bits = len(times).bit_length()
    packed = ((times - times.min(initial=NEVER)) << bits) | np.arange(len(times))
    packed.sort()
    return packed & ((1 << bits) - 1)


def deployments_of(commits: Commits, stages: Sequence[Stage], order: np.ndarray) -> Deployments:
    """Collect the syncs of all stages in order of time."""
    rows = [np.flatnonzero(stage.deployed) for stage in stages]
    start = np.concatenate([stage.start[row] for stage, row in zip(stages, rows)])
    duration = np.concatenate([stage.duration[row] for stage, row in zip(stages, rows)])
    good = np.concatenate([stage.good[row] for stage, row in zip(stages, rows)])
    by_time = time_order(start)
    commit, good = order[np.concatenate(rows)][by_time], good[by_time]
    environment = np.repeat(np.arange(len(stages)), [len(row) for row in rows])[by_time]
    return Deployments(
        commits.group[commit],
        start[by_time],
        (start + duration)[by_time],
        commits.application[commit],
        environment,
        commit,
        good,
        ~good,
        np.zeros(len(start), np.int64),
    )


def simulate_deployments(
    git_commits: pd.DataFrame, scenario: Scenario, window: Window, seed: int
) -> Tuple[pd.DataFrame, pd.DataFrame]:
    """Take a table of commits through the environments; return the `deployments` table and flow.

    A row of deployments is a sync that started before the window's end. A row of flow is an
    environment. It counts what became of the releases that reached it: `deployed`, `superseded` by
    a newer one, `held` by the gate, `in_flight` (the sync would start at or after the end).
    """
    commits = commits_of(git_commits, git_commits["application"].cat.categories)
    deployments, stages, order = run_pipeline(commits, [(scenario, 1)], window, Noise(seed))
    bad = deployments.bad.view(np.int8)
    table = as_table(
        "deployments",
        {
            "timestamp": deployments.time,
            "application": git_commits["application"].array[deployments.commit],
            "environment": word_column(deployments.environment.astype(np.int8), scenario.names),
            "commit_sha": word_column(deployments.commit, git_commits["sha"].to_numpy()),
            "status": word_column(bad, [SYNCED, FAILED]),
            "health": word_column(bad, [HEALTHY, DEGRADED]),
            "duration_sec": deployments.end - deployments.time,
            "failure_reason": failure_reasons(deployments, scenario, stages, order),
            "recovered": np.full(len(bad), MISSING),  # the rollback manager knows
        },
    )
    index = pd.Index(scenario.names, name="environment")
    return table, pd.DataFrame([stage.flow for stage in stages], columns=FLOW, index=index)


def failure_reasons(
    deployments: Deployments, scenario: Scenario, stages: Sequence[Stage], order: np.ndarray
) -> pd.Categorical:
    """Return why each sync failed; missing where it was good.

    The outcome's noise of a failed sync lies above its chance of success. There it is uniform, and
    it picks the reason.
    """
    position = np.empty(len(order), np.int64)  # of each commit in the stages
    position[order] = np.arange(len(order))
    codes = np.full(len(deployments.time), -1)
    for number, stage in enumerate(stages):
        failed = np.flatnonzero(deployments.bad & (deployments.environment == number))
        own = position[deployments.commit[failed]]
        rest = (stage.outcome[own] - stage.chance[own]) / (1 - stage.chance[own])
        codes[failed] = draw_shares(scenario.failure_reasons, rest)
    return word_column(codes, list(scenario.failure_reasons))


# ---- Rollback manager: deployments -> rollbacks and alerts --------------------------------------


class Rollbacks(NamedTuple):
    """Rollbacks as arrays, sorted by time. An entry is a rollback."""

    group: np.ndarray
    time: np.ndarray  # seconds since 1970 at which the failure was detected: when its sync ended
    end: np.ndarray
    application: np.ndarray
    environment: np.ndarray
    deployment: np.ndarray  # row of the deployment that failed, -1 if it is not known
    target: np.ndarray  # row of the deployment that it goes back to, -1 if it is not known
    success: np.ndarray


def roll_back(deployments: Deployments, draws: Draws, noise: Noise, commits: int) -> Rollbacks:
    """Take each failed deployment back to the newest earlier good one of its place.

    A failure with no earlier good release there has no rollback. `commits` is how many there are.
    """
    failed, target = last_good_releases(deployments)
    keep = np.flatnonzero(target >= 0)
    keep = keep[time_order(deployments.end[failed[keep]])]
    failed, target = failed[keep], target[keep]
    group, detected = deployments.group[failed], deployments.end[failed]
    application, environment = deployments.application[failed], deployments.environment[failed]
    length, outcome = np.empty((2, len(failed)))
    for number in np.unique(environment).tolist():
        here = environment == number
        drawn = noise.of("rollbacks", number, 2, commits)
        length[here], outcome[here] = drawn[:, deployments.commit[failed[here]]]
    seconds, worked = np.empty(len(failed), np.int64), np.empty(len(failed), bool)
    months = months_of_draws(draws)
    for (scenario, _), first, end in zip(draws, months, months[1:]):
        own = (group >= first) & (group < end)
        seconds[own] = draw_seconds(scenario.rollback.duration_min, length[own], 60)
        worked[own] = outcome[own] < scenario.rollback.success_rate
    end_of = detected + seconds
    return Rollbacks(group, detected, end_of, application, environment, failed, target, worked)


def last_good_releases(deployments: Deployments) -> Tuple[np.ndarray, np.ndarray]:
    """Return the rows of failed deployments, and of the newest good one before each at its place.

    The second is -1 where there is none.
    """
    rows = pd.Series(np.where(deployments.bad, np.nan, np.arange(len(deployments.time))))
    newest_good = rows.groupby(deployments.place).ffill().fillna(-1).to_numpy(np.int64)
    failed = np.flatnonzero(deployments.bad)
    return failed, newest_good[failed]


def recovery_times(deployments: Deployments, rollbacks: Rollbacks) -> np.ndarray:
    """Return when each failed deployment was good again; NEVER if it was not, or did not fail.

    That is when its rollback succeeded. Without one, it is the end of the next good deployment of
    its place.
    """
    rows = pd.Series(np.where(deployments.bad, np.nan, np.arange(len(deployments.bad))))
    next_good = rows.groupby(deployments.place).bfill().fillna(-1).to_numpy(np.int64)
    over = np.full(len(deployments.bad), NEVER)
    failed = np.flatnonzero(deployments.bad & (next_good >= 0))
    over[failed] = deployments.end[next_good[failed]]
    worked = rollbacks.success & (rollbacks.deployment >= 0)
    over[rollbacks.deployment[worked]] = rollbacks.end[worked]
    return over


def simulate_rollbacks(
    deployments: pd.DataFrame, policy: RollbackPolicy, seed: int
) -> Tuple[pd.DataFrame, pd.DataFrame]:
    """Roll back the failed rows of a table of deployments; return that table and the `rollbacks`.

    Each goes back to the newest earlier `Synced` and `Healthy` release of its application and
    environment. The deployments say when they `recovered`.
    """
    words = ("application", "environment", "commit_sha")
    applications, environments, shas = (deployments[word].cat.categories for word in words)
    events = deployments_from(deployments, applications, environments, shas)
    draws = [(Scenario(rollback=policy), 1)]
    done = roll_back(events, draws, Noise(seed), len(shas))
    sha, failed = deployments["commit_sha"].array, done.deployment
    over = recovery_times(events, done)
    recovered = as_times(np.where(over < NEVER, over, MISSING))
    rollbacks = as_table(
        "rollbacks",
        {
            "timestamp": done.time,
            "application": deployments["application"].array[failed],
            "environment": deployments["environment"].array[failed],
            "from_commit": np.asarray(sha[failed]),
            "to_commit": np.asarray(sha[done.target]),
            "reason": deployments["failure_reason"].array[failed],
            "duration_min": (done.end - done.time) / 60,
            "success": done.success,
        },
    )
    return deployments.assign(recovered=recovered), rollbacks


def rollback_alert(rollback: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the alert of one rollback: a `text` for people, and its columns as JSON values."""
    outcome = "succeeded" if rollback["success"] else "FAILED"
    releases = f"from {rollback['from_commit'][:7]} to {rollback['to_commit'][:7]}"
    text = (
        f"Rollback {outcome}: {rollback['application']} in {rollback['environment']} {releases} "
        f"after {rollback['duration_min']:.1f} minutes ({rollback['reason']})"
    )
    timestamp = rollback["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"text": text, **rollback, "timestamp": timestamp}


class WebhookAlerts:
    """POST each rollback to a webhook of the Slack and Mattermost kind, until one does not arrive.

    It is a callable for `on_rollback`. `sent` counts the alerts that arrived. A dead endpoint
    raises nothing: `undelivered` counts those that did not, and `problem` says why, without the
    address, which is a secret. A redirect is refused. The constructor raises GitOpsError for an
    address that cannot be one.
    """

    timeout = 5  # seconds

    def __init__(self, url: str) -> None:
        import urllib.request  # slow to import, and few runs need it

        class RefuseRedirects(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        self.host, self.problem = webhook_host(url), ""
        self.sent, self.undelivered = 0, 0
        self._open = urllib.request.build_opener(RefuseRedirects).open
        self._request = functools.partial(
            urllib.request.Request, url, headers={"Content-Type": "application/json"}
        )

    def __call__(self, alert: Mapping[str, Any]) -> None:
        import http.client

        try:
            if not self.problem:
                request = self._request(data=json.dumps(alert).encode())
                self._open(request, timeout=self.timeout).close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.problem = one_line(error)
        if self.problem:
            self.undelivered += 1
        else:
            self.sent += 1


def webhook_host(url: str) -> str:
    """Return the host of a webhook's address; GitOpsError, without the address, if it has none."""
    import urllib.parse

    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url)
        plain = url.isascii() and url.isprintable() and " " not in url and not parts.username
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and plain:
            return parts.hostname
    raise GitOpsError(
        "the webhook must be an http:// or https:// address with a host; leave out users, spaces "
        "and characters that are not ASCII"
    )


# ---- Real history: syncs -> deployments, failures and rollbacks ---------------------------------

# What environments are called, and which of them is production.

UNCLASSIFIED = "unclassified"  # the environment of what nothing tells the environment of
PRODUCTION_WORDS = ("production", "prod", "prd", "live")
ENVIRONMENT_WORDS: Dict[str, int] = {  # each with its place in the usual order of promotion
    **dict.fromkeys(("sandbox", "preview", "dev", "devel", "develop", "development"), 1),
    **dict.fromkeys(("integration", "int", "test", "testing"), 2),
    **dict.fromkeys(("qa", "uat", "acceptance"), 3),
    **dict.fromkeys(("stage", "stg", "staging"), 5),
    **dict.fromkeys(("preprod", "preproduction"), 6),
    **dict.fromkeys(PRODUCTION_WORDS, 7),
}


@functools.lru_cache(maxsize=1 << 16)
def environment_words(name: str) -> Tuple[Tuple[str, int, int], ...]:
    """Return the words of a name that are environments, each with where it begins and ends.

    A number at its end does not count (`prod1`). One after `pre` or `non` belongs to it, so that
    `non-prod` is not production.
    """
    found, before = [], None
    for match in re.finditer(r"[^-_/.\s]+", name.lower()):
        word, begin = match.group().rstrip("0123456789"), match.start()
        if before and before.group() in ("pre", "non"):
            word, begin = before.group() + word, before.start()
        if word in ENVIRONMENT_WORDS:
            found.append((word, begin, match.end()))
        before = match
    return tuple(found)


def usual_stage(name: str) -> str:
    """Return the stage that an environment's name tells: `staging-us` is a part of staging.

    1. A name without the word of an environment is a stage of its own.
    2. Of several words the earliest in promotion counts: `prod-test` is no production.
    3. Every word for production means `production`.
    """
    words = [word for word, _, _ in environment_words(name)]
    if not words:
        return name
    word = min(words, key=ENVIRONMENT_WORDS.__getitem__)
    return "production" if word in PRODUCTION_WORDS else word


class Stages(NamedTuple):
    """What `--environments` says: the stages in promotion order, and what each takes in.

    Without it there are no patterns, and the name of each environment tells its stage.
    """

    patterns: Tuple[Tuple[str, str], ...]  # (pattern of names in lower case, stage)

    @classmethod
    def of(cls, environments: Union[None, str, Sequence[str]]) -> Stages:
        """Read stages such as `dev,staging,production=prod-*`; GitOpsError for a bad name."""
        listed = environments.split(",") if isinstance(environments, str) else environments or ()
        pairs = []
        for text in listed:
            name, equals, pattern = str(text).strip().partition("=")
            check_word("an environment of --environments", name)
            plain = "production" if name in PRODUCTION_WORDS else name
            pairs.append(((pattern if equals else plain).lower(), name))
        return cls(tuple(pairs))

    def taker(self, own: str, *others: str) -> int:
        """Return the position of the first pattern that takes in an environment, or -1.

        `own` is its name, "" if nothing tells one. `others` are what else the patterns may match:
        the full name, the namespace and the destination of an application.
        """
        names = {name.lower() for name in (own, usual_stage(own), *others) if name}
        found = (at for at, (one, _) in enumerate(self.patterns) if fnmatch.filter(names, one))
        return next(found, -1)

    def stage_of(self, own: str, *others: str) -> str:
        """Return the stage of an environment (see `taker`), "" if no pattern takes it in."""
        at = self.taker(own, *others)
        return self.patterns[at][1] if at >= 0 else "" if self.patterns else usual_stage(own)

    def knows(self, name: str) -> bool:
        """Return whether a name is known to be that of an environment."""
        return bool(environment_words(name)) or self.taker(name) >= 0

    def check(self, environments: Iterable[Sequence[str]]) -> None:
        """Raise GitOpsError for a pattern that takes in none of the (own, *others) of a history.

        A usual word alone (`dev`) may take in nothing, if another pattern takes in something.
        """
        there = {tuple(names) for names in environments}
        used = {self.taker(*names) for names in there} - {-1}
        for at, (pattern, stage) in enumerate(self.patterns):
            if at not in used and not (used and stage in ENVIRONMENT_WORDS and stage == pattern):
                known = sorted({own for own, *_ in there} - {""})
                near = difflib.get_close_matches(pattern, known, 1)
                raise GitOpsError(
                    f"--environments: {in_quotes(pattern)} takes in nothing; there are "
                    f"{one_line(', '.join([*near, *known]) or 'no names', 120)}; write NAME=PATTERN"
                )

    def order(self, found: Iterable[str] = ()) -> Tuple[str, ...]:
        """Return the environments of a history in promotion order; the last one is production.

        Names without the word of an environment come before staging.
        """
        ranks = {UNCLASSIFIED: 0, **ENVIRONMENT_WORDS}
        there = sorted(found, key=lambda name: (ranks.get(name.lower(), 4), name))
        if self.patterns:
            there = [name for name in there if name == UNCLASSIFIED]
        stages = [stage for _, stage in self.patterns] or ["production"]
        return tuple(dict.fromkeys([*there, *stages]))


# What the syncs of a place come to.

DWELL = 60  # seconds that a release must stay to be one


class Sync(NamedTuple):
    """What came to an application in one environment: a sync, or a commit to its files."""

    start: int  # seconds since 1970
    end: int
    content: Any  # equal contents run the same
    commit: str  # what the tables call it
    failure: str = ""  # why it failed; nothing if it succeeded
    brings: Collection[str] = ()  # the commits and versions that are new with it
    takes: Collection[str] = ()  # those of earlier syncs that it takes back
    automatic: bool = False  # whether Argo CD syncs by itself when the repository changes
    release: str = ""  # the same text in every cluster of a stage; nothing: the commit


class Look(NamedTuple):
    """What Argo CD showed of an application at one time."""

    time: int  # seconds since 1970
    health: str
    since: int = 0  # when this health began; 0 if that is not known
    synced: bool = False
    message: str = ""


@dataclass(eq=False)
class Release:
    """A sync that changed what runs, or tried to."""

    sync: Sync
    reason: str = ""  # why it is bad; nothing if it is not known to be
    counts: bool = True  # whether it is a deployment
    healthy: bool = False  # whether somebody saw it healthy
    recovered: int = MISSING  # when a bad one was good again
    back: Optional[Release] = None  # the release that took it back


class Place(NamedTuple):
    """An application in one environment, as a reader found it."""

    application: str
    environment: str  # the stage
    origin: str  # what the source calls it: one of the clusters of the stage
    rule: str  # what told the environment
    releases: List[Release]
    begin: int  # since when nothing is lost, in seconds since 1970
    end: int  # until when it is known
    lost: int = 0  # how many entries before that are gone


def classify_syncs(
    syncs: Sequence[Sync], looks: Sequence[Look] = (), begins: bool = False
) -> List[Release]:
    """Return the releases among the syncs of an uninterrupted time of a place, as they turned out.

    `begins` says that entries before it are lost. In brackets is how often a rule applied in the
    config repositories of Konflux (9,300 syncs) and GOV.UK (115,400 syncs).

    1. A failed sync is a bad release. One that is tried again is the same one (0: Argo CD alone).
    2. A sync of what runs already is none. Where people sync, it puts right the failed ones before
       it. Where Argo CD syncs, they were over when the repository went back (0: Argo CD alone).
    3. A release that is left within a minute for what ran before is a flap: both are none (17).
    4. A sync of what ran before puts right the failed ones, and the release that ran: that one was
       bad. What came since is forgotten. It is no deployment (167 and 1,368).
    5. So does a sync that takes back commits or versions of earlier releases, by the message of a
       revert or in one of several images, for these releases (44 and 1).
    6. Any other is a deployment. The first one after a gap only says what runs, unless it is bad.
    """
    releases: List[Release] = []
    standing: Dict[Any, Release] = {}  # by what they run, the running one last
    failed: List[Release] = []  # the failed syncs since the last good one
    good_looks = [look.time for look in looks if look.synced and look.health == HEALTHY]
    running: Optional[Release] = None
    queue = collections.deque(syncs)
    while queue:
        sync = queue.popleft()
        same = running is not None and sync.content == running.sync.content
        if sync.failure:
            if not failed or failed[-1].sync.content != sync.content:
                failed.append(Release(sync, sync.failure))
                releases.append(failed[-1])
            continue
        if running is not None and queue and not same and not queue[0].failure:
            left = queue[0].start - sync.end < DWELL
            if left and queue[0].content == running.sync.content:
                queue.popleft()
                continue
        for one in [one for one in failed if one.sync.automatic]:
            if same or any(one.sync.end < time < sync.end for time in good_looks):
                failed.remove(one)
                one.recovered = sync.end
        if same and not failed:
            continue
        release, back = Release(sync), []
        if sync.content in standing:
            back = [running] if running is not None and not same else []
            while next(reversed(standing)) != sync.content:
                standing.popitem()
        else:
            names = set(sync.takes)
            for one in reversed(releases if names else ()):
                if names.intersection(one.sync.brings):
                    names.difference_update(one.sync.brings)
                    back += [one] if one.counts and one.back is None else []
            standing[sync.content] = release
        if back or same:
            release.counts = False
            for one in [*back, *failed]:
                one.reason, one.back = one.reason or "Rolled back", release
        failed, running = [], standing[sync.content]
        releases.append(release)
    judge_releases(releases, looks)
    if begins and releases:
        releases[0].counts = bool(releases[0].reason)
    return releases


def judge_releases(releases: Sequence[Release], looks: Sequence[Look]) -> None:
    """Note what looks show of releases, and when each bad one was good again.

    That is when it was put right, at the end of the next good release, or when a look shows it.
    """
    ends = [release.sync.end for release in releases]
    bad_since = [one.sync.end if one.sync.failure else NEVER for one in releases]
    good_looks = [look.time for look in looks if look.synced and look.health == HEALTHY]
    for look in looks:
        at = bisect.bisect_right(ends, look.time) - 1
        if at >= 0 and look.health == HEALTHY:
            releases[at].healthy = True
        elif at >= 0 and look.health == DEGRADED and not 0 < look.since < releases[at].sync.start:
            bad_since[at] = min(bad_since[at], look.time)
            releases[at].reason = releases[at].reason or look.message or "Degraded health"
    later = MISSING  # when the next good release ended
    for at, release in reversed(list(enumerate(releases))):
        if not release.reason:
            later = release.sync.end
            continue
        back, seen = release.back, bisect.bisect_right(good_looks, bad_since[at])
        right = later if back is None else back.recovered if back.reason else back.sync.end
        times = [release.recovered, right, *good_looks[seen : seen + 1]]
        known = [max(time, release.sync.end) for time in times if time != MISSING]
        release.recovered = min(known, default=MISSING)


def merge_clusters(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `deployments` or `rollbacks` in order, a release once in each stage.

    Two further columns say the `cluster` of a row and its `release`. Times are seconds.

    1. A release counts at the cluster that had it first. Its rows at the other ones are left out.
    2. Where it was good there and bad at another one, it is bad.
    3. A bad one recovered when the last cluster did.
    """
    rows = rows.sort_values("timestamp", kind="stable").reset_index(drop=True)
    by_release = rows.groupby(["application", "environment", "release"], observed=True, sort=False)
    counts = (by_release["cluster"].transform("first") == rows["cluster"]).to_numpy(bool)
    if "health" in rows and not counts.all():
        number = pd.Series(np.where(counts, np.arange(len(rows)), -1))
        counted = number.groupby(by_release.ngroup()).cummax()  # the row that counts for each row
        bad = rows[rows["health"] == DEGRADED].groupby(counted)
        first, last = bad["recovered"].min(), bad["recovered"].max()
        rows.loc[first.index, "health"] = DEGRADED
        rows.loc[first.index, "failure_reason"] = bad["failure_reason"].first()
        rows.loc[first.index, "recovered"] = last.where(first != MISSING, MISSING)
    return rows[counts]


def history_from(
    source: str, places: Iterable[Place], commits: pd.DataFrame,
    changes: Iterable[Row], notes: Sequence[str], environments: Sequence[str],
) -> History:  # fmt: skip
    """Return the history that the places of a source come to. Times are seconds since 1970."""
    rows: Dict[str, List[Row]] = {"deployments": [], "rollbacks": []}
    coverage: Dict[Tuple[str, str], Row] = {}
    several = False  # whether a stage has several clusters
    for place in places:
        name = place.application, place.environment
        for release in place.releases:
            sync, reason, back = release.sync, release.reason, release.back
            if not release.counts:
                continue
            cluster = place.origin, sync.release or sync.commit
            health = DEGRADED if reason else HEALTHY if release.healthy else UNKNOWN
            state = FAILED if sync.failure else SYNCED, health, sync.end - sync.start
            row = sync.start, *name, sync.commit, *state, reason or None, release.recovered
            rows["deployments"].append((*row, *cluster))
            if back is not None:
                minutes = max(back.sync.end - sync.end, 0) / 60
                facts = sync.commit, back.sync.commit, reason, minutes, not back.reason
                rows["rollbacks"].append((sync.end, *name, *facts, *cluster))
        origin, low, high, lost = place.origin, place.begin, place.end, place.lost
        if name in coverage:
            several, known = True, coverage[name]
            origin, lost = f"{known[2]}, {origin}", known[6] + lost
            low, high = max(known[4], low), max(known[5], high)
        coverage[name] = (*name, origin, place.rule, low, high, lost)
    tables: Dict[str, pd.DataFrame] = {}
    for table, found in rows.items():
        found.sort(key=operator.itemgetter(0))
        if several:
            columns = [*COLUMNS[table], "cluster", "release"]
            found = merge_clusters(pd.DataFrame(found, columns=columns)).to_numpy().tolist()
        tables[table] = table_from(table, found)
    dated = [row for row in changes if row[5] == MISSING or row[4] <= row[5]]  # no clock was wrong
    tables["changes"] = table_from("changes", dated)
    tables["coverage"] = table_from("coverage", sorted(coverage.values()))
    times = [tables["coverage"]["from"], tables["coverage"]["to"]]
    window = window_around(*times, tables["deployments"]["timestamp"])
    return History(
        commits, window=window, environments=tuple(environments), source=source,
        notes=tuple(notes), **tables,
    )  # fmt: skip


def table_from(name: str, rows: Sequence[Row]) -> pd.DataFrame:
    """Return a table from the beginnings of rows. Times are seconds since 1970."""
    columns = zip(*rows) if rows else [()] * len(ALL_COLUMNS[name])
    table: Dict[str, Any] = {}
    for (column, kind), values in zip(ALL_COLUMNS[name].items(), columns):
        table[column] = np.array(values, np.int64) if kind == "time" else list(values)
    return as_table(name, table)


def window_around(*times: pd.Series) -> Window:
    """Return the whole days around some times."""
    seconds = np.concatenate([seconds_of(column) for column in times])
    edges = [seconds.min() // DAY * DAY, (seconds.max() // DAY + 1) * DAY]
    return Window(*utc_times(np.array(edges)))


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector. With millions of objects it takes a third of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


# ---- Real history: a git repository -> commits and deployments ----------------------------------

# fmt: off
# The repository is untrusted. Its configuration can name programs for git to run. These options
# outrank it, and no subcommand runs that does more than read.
GIT = (
    "git", "--no-pager", "--no-replace-objects", "--no-optional-locks",
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.devnull, "-c", "log.showRoot=true",
    "-c", "protocol.allow=never", "-c", "diff.orderFile=" + os.devnull,
    "-c", "log.showSignature=false",
)
GIT_LOG = (
    "log", "--raw", "-z", "--no-abbrev", "--no-renames", "--diff-merges=first-parent",
    "--no-relative", "--ignore-submodules=none", "--encoding=UTF-8",
)
# fmt: on
GIT_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "",
    "LC_ALL": "C",
}
CHUNK = 1 << 20  # bytes: git fills a pipe of this size while the chunk before is read
CONVENTIONAL = r"^(?P<type>[A-Za-z]+)(?:\((?P<scope>[^()]*)\))?!?:"


@contextlib.contextmanager
def git_output(repo: FilePath, *arguments: str, stdin: bytes = b"") -> Iterator[IO[bytes]]:
    """Give what git prints, as a stream. GitOpsError if git cannot read the folder.

    The folder is git's working directory and no argument: a name may begin with a dash. The user's
    GIT_ variables are left out: GIT_DIR would win over the folder.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    run_ahead: Any = {"pipesize": CHUNK} if sys.version_info >= (3, 10) else {}
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as questions:
        questions.write(stdin)
        questions.seek(0)
        try:
            process = subprocess.Popen(
                [*GIT, *arguments], cwd=repo, env={**environment, **GIT_ENVIRONMENT},
                stdin=questions, stdout=subprocess.PIPE, stderr=errors, **run_ahead,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            problem = f"cannot open {one_line(repo)}: {one_line(error)}"
            if isinstance(error, FileNotFoundError) and os.path.isdir(repo):
                problem = "git is not installed"
            raise GitOpsError(f"{problem}; --repo takes the folder of a git repository") from None
        with process:
            assert process.stdout is not None
            yield process.stdout
        if process.returncode:
            errors.seek(0)
            reason = one_line(errors.read(2000).decode("utf-8", "replace"))
            remedy = "--repo takes a repository with commits"
            if "promisor" in reason:
                remedy = "it is a partial clone: clone it again without --filter"
            raise GitOpsError(f"git cannot read {one_line(repo)}: {reason}; {remedy}")


def ask_git(repo: FilePath, *arguments: str) -> str:
    """Return all that git prints."""
    with git_output(repo, *arguments) as printed:
        return printed.read().decode("utf-8", "surrogateescape").strip()


def read_log(repo: FilePath, fields: Sequence[str], *options: str) -> Iterator[List[List[bytes]]]:
    """Yield the commits of one `git log` in groups. A commit is its fields, then its files.

    `fields` are placeholders of git's format; the files are as `--raw` prints them. A record begins
    with a marker that nobody can guess: no text in a repository can pass for one.
    """
    marker = b"/" + os.urandom(8).hex().encode()
    form = f"--format=tformat:{marker.decode()}" + "".join(f"{field}%x00" for field in fields)
    rest = b""
    with git_output(repo, *GIT_LOG, form, *options) as printed:
        for block in iter(lambda: printed.read(CHUNK), b""):
            whole, _, rest = (rest + block).rpartition(marker)
            rest = marker + rest
            yield [record.split(b"\0", len(fields)) for record in whole.split(marker)[1:]]
    yield [record.split(b"\0", len(fields)) for record in rest.split(marker)[1:]]


def read_blobs(repo: FilePath, blobs: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the content of each blob, nothing for that of a deleted file."""
    if not blobs:
        return
    questions = b"\n".join(blobs)
    with git_output(repo, "cat-file", "--buffer", "--batch", stdin=questions) as printed:
        for blob in blobs:  # git prints "name kind size" and the content, or "name missing"
            *_, size = printed.readline().split() or [b""]
            if not size:
                break  # git failed: at the end it is said why
            if not size.isdigit() and blob.strip(b"0"):
                raise GitOpsError(
                    f"{one_line(repo)} lacks the file {blob.decode()}; clone it without --filter"
                )
            yield printed.read(int(size) + 1)[:-1] if size.isdigit() else b""


def epochs(tokens: Iterable[bytes]) -> np.ndarray:
    """Return the seconds since 1970 that git prints; 0 for a time before 1970 or after 2199."""
    seconds = [int(token) if token.isdigit() and len(token) < 12 else 0 for token in tokens]
    return np.where(np.array(seconds, np.int64) > LAST_SECOND, 0, seconds)


def printable_lines(tokens: Sequence[bytes]) -> List[str]:
    """Return lines of git as text that a terminal can take; one call cleans all of them."""
    text = make_printable(b"\n".join(tokens).decode("utf-8", "replace"), keep="\n")
    return text.split("\n") if tokens else []


def read_git_log(
    repo: FilePath, days: int, end: Optional[pd.Timestamp], applications: Sequence[str]
) -> Tuple[pd.DataFrame, Window]:
    """Return the real commits of a repository's current branch: (`git_commits` table, window).

    Merges are left out. The window is the `days` whole UTC days before `end`, or those up to the
    day of the newest commit. `type` is the Conventional Commits type, `other` if there is none.
    `application` is the scope if it is one of `applications`, else the repository's name. Raises
    GitOpsError if `repo` is no repository, or has no commit in the window.
    """
    if end is None:  # the last commit is not always the newest: somebody's clock may be behind
        newest = epochs(ask_git(repo, "log", "-1000", "--format=%ct").encode().split())
        end = utc_times(np.array([newest.max(initial=0) // DAY * DAY + DAY]))[0]
    window = Window.before(end, days)
    low, high = window.seconds
    since = f"--since-as-filter={window.start.isoformat()}"  # git reads on after an older commit
    found: Dict[str, List[Any]] = {name: [] for name in GitCommit._fields[:5]}
    for records in read_log(repo, ("%H", "%ct", "%an", "%s"), "--no-merges", since):
        times = epochs(record[1] for record in records)
        inside = np.flatnonzero((times >= low) & (times < high))
        chosen = [records[at] for at in inside.tolist()]
        sha, author, message = (printable_lines([one[at] for one in chosen]) for at in (0, 2, 3))
        files = [record[4].count(b"\0") // 2 for record in chosen]
        for name, values in zip(found, (sha, times[inside].tolist(), author, message, files)):
            found[name] += values
    if not found["sha"]:
        raise GitOpsError(
            f"no commit in {one_line(repo)} from {window.start:%Y-%m-%d} to "
            f"{window.last:%Y-%m-%d}; choose more --days or another --end"
        )
    commits = pd.DataFrame(found)[::-1].sort_values("seconds", kind="stable", ignore_index=True)
    scope = commits["message"].str.extract(CONVENTIONAL, expand=True)["scope"].astype(object)
    known = scope.where(scope.isin(list(applications)), repository_name(repo))
    return commits_from(commits.assign(application=known), branch_of(repo)), window


def commits_from(commits: pd.DataFrame, branch: str) -> pd.DataFrame:
    """Return the `git_commits` table of sha, seconds, author, message, application and files."""
    parts = commits["message"].astype(object).str.extract(CONVENTIONAL, expand=True)
    kind = parts["type"].astype(object).str.lower()
    columns = {
        "timestamp": utc_times(commits["seconds"].to_numpy(np.int64)),
        "author": clean_names(commits["author"]),
        "type": kind.where(kind.isin(list(COMMIT_TYPES)), "other"),
        "branch": branch,
        "files_changed": commits["files"],
    }
    return as_table("git_commits", commits.assign(**columns))


def branch_of(repo: FilePath) -> str:
    """Return the name of a repository's current branch; `HEAD` if there is none."""
    return one_line(ask_git(repo, "branch", "--show-current") or "HEAD")


def repository_name(repo: FilePath) -> str:
    """Return the name that people know a repository by: its folder's, without `.git`."""
    inner = ask_git(repo, "rev-parse", "--git-common-dir")
    folder = Path(os.fsdecode(repo), inner).resolve()
    name = folder.parent.name if folder.name == ".git" else re.sub(r"\.git$", "", folder.name)
    return one_line(os.fsencode(name).decode("utf-8", "replace"), 60)


# One reading of a clone: what came to its main line, and what that changed where.

# fmt: off
VERSION_KEY = rb"(?:[Tt]ag|TAG|(?<!api)[Vv]ersion|VERSION|[Dd]igest|DIGEST|targetRevision)[\"']?"
VERSION = re.compile(  # in a line: the value of such a key, the tag of an image, or `ref=`
    VERSION_KEY + rb"(?:\s+value)?\s*[:=]\s*[\"']?(?!(?:true|false|null)\b)([^\s\"'#,&{}\[\]]*\w)"
    rb"|(?:[Ii]mage|IMAGE)[\"']?\s*[:=]\s*[\"']?[^\s\"'#]*[:@]([^\s\"'#,&{}\[\]/]+)(?=[\s\"',}]|$)"
    rb"|^-\s+[\"']?(?!\S*://)[A-Za-z][^\s\"'#]*[:@](?=\S*\d)([^\s\"'#:@/]+)[\"']?$"
    rb"|[?&]ref=([^\s\"'#,&{}\[\]]+)"
)
# fmt: on
NAMED_VALUE = re.compile(rb"(name:\s*[\"']?[\w.-]*" + VERSION_KEY + rb")\s*\n\s*(?=value:)")
RAW_ENTRY = re.compile(rb":\d+ \d+ [0-9a-f]+ ([0-9a-f]+) [A-Z]\d*\0([^\0]*)\0")
REVERTED = re.compile(rb"This reverts commit ([0-9a-f]{40,64})")
OWN_WORD = re.compile(r"^[A-Za-z]+[-_](?=.*\d)|[-_][A-Za-z]+$")  # of an environment, in a version
DOCUMENTS = re.compile(
    r"(^|/)(docs?/|(OWNERS|CODEOWNERS|README|LICENSE|CHANGELOG)[^/]*$)|\.(md|adoc|rst|png|svg)$"
)
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
CHART = ("Chart.yaml", "values.yaml", "templates", "charts", "crds")  # what is in one
SHARED = ("base", "common", "default", "defaults", "global", "shared")  # beside environments
PlaceName = Tuple[str, str]
"""An application, and the environment as the path names it."""


class GitCommit(NamedTuple):
    """A commit of a config repository."""

    sha: str
    seconds: int  # since 1970, when it was committed
    author: str
    message: str  # its first line
    files: int
    reverts: FrozenSet[str]  # the commits that it says it reverts
    landing: int  # the number of the landing with which it came to the main line


LANDING = operator.attrgetter("landing")


class Move(NamedTuple):
    """What a landing changed at a place: an entry of the trail of the place."""

    landing: int
    content: int  # a key of all that its files hold since then: equal contents have equal keys
    release: int  # the same of the versions alone, in files that have some
    versions: List[Tuple[str, str, int]]  # (the one before, the one now, the commit of that)
    commits: List[int]  # those that brought it, oldest first
    own: List[int]  # those of them that changed the place's own files, not its bases


class FileContent(NamedTuple):
    """What a file holds: its lines, and keys of them."""

    lines: Sequence[bytes] = ()
    content: int = 0  # the sum of the keys of its lines
    versions: int = 0  # and of its versions
    amount: int = 0  # how many versions it has

    @property
    def release(self) -> int:
        """A key of the versions alone, if there are any."""
        return self.versions if self.amount else self.content

    def changed(self, text: bytes) -> Tuple[FileContent, List[Tuple[str, str]]]:
        """Return the content of another text, and (the version before, the one now) of each change.

        Only the lines from the first to the last one that differs are read.
        """
        if b"value:" in text:
            text = NAMED_VALUE.sub(rb"\1 ", text)
        old, new = self.lines, text.split(b"\n")
        same = map(operator.eq, old, new)
        head = sum(itertools.takewhile(bool, same))
        same = map(operator.eq, reversed(old[head:]), reversed(new[head:]))
        tail = sum(itertools.takewhile(bool, same))
        content = self.content
        lost: List[str] = []
        gained: List[str] = []
        for line in old[head : len(old) - tail]:
            key, found = read_line(line)
            content -= key
            lost += found
        for line in new[head : len(new) - tail]:
            key, found = read_line(line)
            content += key
            gained += found
        versions = self.versions + sum(map(hash, gained)) - sum(map(hash, lost))
        gone = [version for version in lost if version not in gained]
        came = [version for version in gained if version not in lost]
        pairs = list(itertools.zip_longest(gone, came, fillvalue=""))
        return FileContent(new, content, versions, self.amount + len(gained) - len(lost)), pairs


@functools.lru_cache(maxsize=1 << 16)
def read_line(line: bytes) -> Tuple[int, Tuple[str, ...]]:
    """Return a key of a line of a file and the versions in it; (0, none) for a comment."""
    line = re.sub(rb"(^|\s)#.*", b"", line).strip() if b"#" in line else line.strip()
    found = [match.group(match.lastindex or 0) for match in VERSION.finditer(line)]
    versions = tuple(one_line(value.decode("utf-8", "replace"), 100) for value in found)
    return hash(line), versions  # the hash of nothing is 0


class Owners(Dict[bytes, List[Tuple[Any, bool]]]):
    """{path: the places that it belongs to, each with whether it is one of its own paths}.

    A place has own files and folders, and those of its bases; "" is the whole repository. Besides,
    `matched` may give the place of a path. Documents belong to nobody.
    """

    def __init__(
        self,
        paths: Mapping[Any, Tuple[Iterable[str], Iterable[str]]],
        matched: Callable[[str], Any] = lambda path: None,
    ) -> None:
        self.matched = matched
        self.index: Dict[str, Dict[Any, bool]] = collections.defaultdict(dict)
        for place, both in paths.items():
            for is_own, some in zip((True, False), both):
                for path in some:
                    self.index[path].setdefault(place, is_own)

    def __missing__(self, path: bytes) -> List[Tuple[Any, bool]]:
        text = make_printable(path.decode("utf-8", "replace"))
        found: Dict[Any, bool] = {}
        if not DOCUMENTS.search(text):
            found = {place: True for place in [self.matched(text)] if place is not None}
            for above in ["", *itertools.accumulate(text.split("/"), "{}/{}".format)]:
                for place, is_own in self.index.get(above, {}).items():
                    found[place] = is_own or found.get(place, False)
        self[path] = list(found.items())
        return self[path]


class HeadTree:
    """The files of the current commit, and what they say about files that places share."""

    def __init__(self, repo: FilePath, tip: str = "HEAD") -> None:
        listed = ask_git(repo, "ls-tree", "-r", "-z", "--full-tree", tip).split("\0")
        blobs = dict(entry.partition("\t")[::-2] for entry in listed if entry)
        self.files = list(blobs)
        kinds = [path for path in blobs if posixpath.basename(path) in KUSTOMIZATIONS]
        self.charts = {
            posixpath.dirname(path) for path in blobs if posixpath.basename(path) == CHART[0]
        }
        self.references: Dict[str, List[str]] = {}  # of each kustomization those outside its folder
        asked = [blobs[path].split(" ")[-1].encode() for path in sorted(kinds)]
        for path, text in zip(sorted(kinds), read_blobs(repo, asked)):
            lines = re.sub(r"(^|\s)#.*", "", text.decode("utf-8", "replace"), flags=re.MULTILINE)
            named = re.findall(r"(?<![^\s\"',\[])\.\./[^\s\"',\]?]*", lines)
            joined = (posixpath.join(posixpath.dirname(path), reference) for reference in named)
            self.references[path] = [posixpath.normpath(one) for one in joined]

    def bases(self, own: Iterable[str]) -> List[str]:
        """Return what the kustomizations in files and folders refer to outside, at any depth."""
        inside = tuple(f"{path}/" for path in own)
        found: Dict[str, None] = {}
        queue, files = list(inside), list(self.references)
        while queue:
            folder = queue.pop()
            for file in files[bisect.bisect_left(files, folder) :]:
                if not file.startswith(folder):
                    break
                for reference in self.references[file]:
                    outside = not f"{reference}/".startswith((*inside, "../"))
                    if outside and reference not in found:
                        found[reference] = None
                        queue.append(f"{reference}/")
        return list(found)

    def chart_around(self, path: str) -> List[str]:
        """Return the files of the chart in which a file or a folder lies, and the values above."""
        found = []
        while path:
            path = posixpath.dirname(path)
            names = CHART if path in self.charts else CHART[1:2]
            found += [posixpath.join(path, name) for name in names]
        return found


class Replay:
    """One reading of a clone: what came to its main line, and what that changed at each place.

    A landing is a commit of the main line, with the commits that it merged. `landings` are their
    shas, oldest first, and `seconds` their times. `commits` are those that changed a path of a
    place. What a revision contains of a place is the part of its trail up to the landing
    `landing_of[revision]`, which knows every commit that the tip contains. All of these are
    known once `moves` or `trails` were read. Raises GitOpsError for what is no repository.
    """

    def __init__(self, repo: FilePath, owners: Owners, tip: str = "HEAD") -> None:
        self.repo, self.owners, self.tip = repo, owners, tip
        self.landings: List[str] = []
        self.shallow = ask_git(repo, "rev-parse", "--is-shallow-repository") == "true"
        self.seconds: List[int] = []
        self.commits: List[GitCommit] = []
        self.landing_of: Dict[str, int] = {}
        self._contents: Dict[bytes, FileContent] = collections.defaultdict(FileContent)
        self._keys: Dict[Any, Tuple[int, int]] = {}  # of each place, as in `Move`
        self._apart: Dict[str, Any] = {}  # the commits that have not come to the main line yet

    @functools.cached_property
    def trails(self) -> Dict[Any, List[Move]]:
        """The moves of each place, oldest first."""
        found: Dict[Any, List[Move]] = {}
        for place, move in self.moves():
            found.setdefault(place, []).append(move)
        return found

    def moves(self) -> Iterator[Tuple[Any, Move]]:
        """Read the log once and yield what each landing changed at a place, oldest first."""
        for arrived in self.arrivals():
            asked = [{blob: b"" for _, files in steps for blob, _ in files} for _, steps in arrived]
            contents = read_blobs(self.repo, list(itertools.chain.from_iterable(asked)))
            for (number, steps), blobs in zip(arrived, asked):
                yield from self._changes(number, steps, dict(zip(blobs, contents)))

    def arrivals(self) -> Iterator[List[Tuple[int, List[Any]]]]:
        """Read the log once, and yield the landings of a group of commits (see `_arrivals`)."""
        fields = ("%H", "%P", "%ct", "%an", "%s", "%b")
        with git_output(self.repo, "rev-list", "--first-parent", "--reverse", self.tip) as line:
            groups = read_log(self.repo, fields, "--topo-order", "--reverse", self.tip)
            first = next(groups)  # the log goes on while the main line is listed
            self.landings += line.read().decode().split()
        for records in itertools.chain([first], groups):
            yield list(self._arrivals(records)) if records else []

    def _arrivals(self, records: Sequence[Sequence[bytes]]) -> Iterator[Tuple[int, List[Any]]]:
        """Yield the landings that touch places: (number, [(number of a commit, its files)]).

        The last commit is that of the main line. Its files are what the landing changed there.
        """
        shas, parents, times, authors, subjects, bodies, rests = zip(*records)
        texts = [printable_lines(column) for column in (shas, authors, subjects)]
        texts[1] = [*map(sys.intern, texts[1])]  # few people, many commits
        rows = zip(*texts, parents, epochs(times).tolist(), bodies, rests)
        for sha, author, subject, line, seconds, body, rest in rows:
            files = [entry for entry in RAW_ENTRY.findall(rest) if self.owners[entry[1]]]
            reverts: FrozenSet[str] = frozenset()
            if b"This reverts" in body:
                reverts = frozenset(one.decode() for one in REVERTED.findall(body))
            commit = sha, seconds, author, subject, rest.count(b"\0") // 2, reverts
            above, number = line.decode().split(), len(self.seconds)
            if number == len(self.landings) or sha != self.landings[number]:
                order = len(self.landing_of) + len(self._apart)
                self._apart[sha] = order, commit, [] if len(above) > 1 else files, above
                continue
            self.seconds.append(seconds)
            self.landing_of[self.landings[number]] = number
            merged: List[str] = above[1:]
            brought: List[Any] = []
            while merged:
                other = merged.pop()
                if other in self._apart:
                    brought.append(self._apart.pop(other))
                    merged += brought[-1][-1]
                    self.landing_of[other] = number
            if files:
                steps = []
                here = 0, (self.landings[number], *commit[1:]), files, above
                for _, facts, touched, _ in [*sorted(brought), here]:
                    if touched:
                        steps.append((len(self.commits), touched))
                        self.commits.append(GitCommit._make((*facts, number)))
                yield number, steps

    def _changes(
        self, number: int, steps: Sequence[Any], texts: Mapping[bytes, bytes]
    ) -> Iterator[Tuple[Any, Move]]:
        """Yield what a landing changed at each place."""
        merged: Dict[bytes, List[Tuple[int, bytes]]] = {}  # how merged commits left a file
        changed: Dict[Any, List[Any]] = {}
        for commit, files in steps[:-1]:
            for blob, path in files:
                merged.setdefault(path, []).append((commit, texts[blob]))
        commit, files = steps[-1]
        for blob, path in files:
            text, before = texts[blob], self._contents[path]
            by = merged.get(path) or [(commit, text)]
            self._contents[path], pairs = before.changed(text)
            more = self._contents[path].content - before.content
            released = self._contents[path].release - before.release
            commits, versions = [one for one, _ in by], []
            for old, new in pairs:  # the first one that left the version there brought it
                first = (one for one, left in by[:-1] if new.encode() in left)
                versions.append((old, new, next(first, by[-1][0]) if by[1:] else commits[0]))
            for place, is_own in self.owners[path] if more else ():
                facts = changed.setdefault(place, [0, 0, [], [], []])
                own = commits if is_own else []
                for at, fact in enumerate((more, released, versions, commits, own)):
                    facts[at] += fact
        for place, (more, released, versions, commits, own) in changed.items():
            content, release = self._keys.get(place, (0, 0))
            self._keys[place] = content + more, release + released
            both = [one if len(one) < 2 else sorted({*one}) for one in (commits, own)]
            yield place, Move(number, *self._keys[place], versions, *both)


# Deployments from the config repository itself: what it asks for, and since when.


def template_owners(
    repo: FilePath, tree: HeadTree, template: str, stages: Stages, applications: Sequence[str]
) -> Tuple[Owners, List[PlaceName]]:
    """Return the owners of paths by a template, and the places at HEAD that are no environments.

    A file that several environments of an application share is a base of each of them: what their
    kustomizations refer to, the chart around them, and a place beside them that is called `base`.
    """
    pattern, repository = template_pattern(template), repository_name(repo)
    depth = template.strip("/").count("/") + 1

    def place_of(path: str) -> Any:
        found = pattern.fullmatch(path)
        names = found and (found.groupdict().get("application") or repository, found["environment"])
        return names and tuple(one_line(name, NAME_WIDTH) for name in names)

    folders: Dict[Any, Set[str]] = collections.defaultdict(set)
    for file in tree.files:
        folders[place_of(make_printable(file))].add("/".join(file.split("/")[:depth]))
    folders.pop(None, None)
    usual = any(stages.knows(name) for _, name in folders)
    kept = choose_applications({application for application, _ in folders}, applications)

    def is_measured(place: PlaceName) -> bool:
        known = stages.knows(place[1]) or not usual
        chosen = place[0] in kept or not applications
        return known and chosen and bool(stages.stage_of(place[1], "/".join(place)))

    def matched(path: str) -> Any:
        place = place_of(path)
        return place if place and is_measured(place) else None

    charts = {
        place: [one for path in paths for one in tree.chart_around(path)]
        for place, paths in folders.items()
        if is_measured(place)
    }
    around = {(path, place[0]) for place, paths in charts.items() for path in paths}
    users = collections.Counter(path for path, _ in around)
    bases: Dict[Any, Any] = {}
    for place, paths in charts.items():
        beside = [one for name in SHARED for one in folders.get((place[0], name), ())]
        alone = [path for path in paths if users[path] == 1]  # of one application
        bases[place] = (), [*tree.bases(folders[place]), *alone, *beside]
    return Owners(bases, matched), [place for place in folders if place not in bases]


@dataclass(eq=False)
class Version:
    """A version of an application on its way through the environments."""

    application: str
    name: str
    commit: GitCommit  # the first one that brought it to any environment
    landing: int
    line: List[Version]  # the versions that replaced each other, in the order of their landings
    rank: int  # its position there
    came: Dict[str, int]  # {stage: the landing with which it, or a newer one, came there}
    dropped: bool = False  # whether it was put back before it went on


class Travels:
    """How versions travel through the environments of a config repository.

    `stage` has the stage of each place, and `syncs` what came to it, in order. `commits` are those
    of deployments and changes, each with its application.

    1. A version that comes to a stage is a change there, with those that it carries along: the
       older ones of its line that the stage has not had.
    2. The first one of a line that comes to a stage carries nothing along: what was there before
       the stage began waited for nobody. It did not wait either, where others were before it.
    3. A version that was put back in the stage where it had come last is not carried along.
    4. Production has no lead time where no other environment had the version before.
    5. Where each version of a landing is older than the one it replaces, and ran there before, the
       landing takes back those that it replaces.
    6. A version with a word of its environment (`1.4-approved`) is the same as the one without.
    """

    def __init__(self, replay: Replay, stages: Stages) -> None:
        self.replay = replay
        self.stage: Dict[PlaceName, str] = {}
        self.syncs: Dict[PlaceName, List[Sync]] = collections.defaultdict(list)
        self.commits: Dict[str, Tuple[GitCommit, str]] = {}
        self.shipped: List[Tuple[Version, str, int]] = []  # to a stage, with a landing
        self.known: Dict[Tuple[str, str], Version] = {}  # of (application, version)
        self.newest: Dict[Tuple[str, int], Version] = {}  # of (stage, line)
        # {(place, line): the versions that ran there, but those that were put back}
        self.ran: Dict[Any, Dict[Version, None]] = collections.defaultdict(dict)
        runs: Dict[PlaceName, int] = {}
        for place, move in replay.moves():
            if place not in self.stage:
                self.stage[place] = stages.stage_of(place[1], "/".join(place))
            if move.release not in (runs.get(place, 0), 0):  # 0: its files are gone
                self.follow(place, move)
            runs[place] = move.release

    def follow(self, place: PlaceName, move: Move) -> None:
        """Note what a landing brings to a place."""
        application, stage, replay = place[0], self.stage[place], self.replay
        commits = [replay.commits[number] for number in move.commits]
        arrivals: List[Version] = []
        takes: Set[str] = set()
        for old, new, number in move.versions:
            if new:
                replaced = self.known.get((application, old))
                version = self.version(application, stage, replaced, new, number)
                arrivals.append(version)
                ran = self.ran[place, id(version.line)]
                if replaced in ran and version in ran and version.rank < replaced.rank:
                    takes.add(old)
                    while next(reversed(ran)) is not version:
                        one, _ = ran.popitem()
                        one.dropped = one.dropped or list(one.came)[-1:] == [stage]
                ran[version] = None
        if takes and len(takes) < len({old for old, new, _ in move.versions if new}):
            takes = set()
        self.ship(stage, arrivals, move.landing)
        newest = max((one.commit for one in arrivals), key=LANDING, default=commits[0])
        self.commits.setdefault(newest.sha, (newest, application))
        brings = [replay.landings[move.landing], *(new for _, new, _ in move.versions)]
        for commit in commits:
            brings.append(commit.sha)
            takes |= commit.reverts
        seconds, takes = replay.seconds[move.landing], takes.difference(brings)
        facts = seconds, seconds, move.release, newest.sha, "", tuple(brings), takes or ()
        self.syncs[place].append(Sync(*facts))

    def version(
        self, application: str, stage: str, replaced: Optional[Version], new: str, number: int
    ) -> Version:
        """Return the version that comes to a stage; it may be new, and replace another one."""
        known = self.known.get((application, new))
        if known is None:
            bare = application, OWN_WORD.sub("", new)
            known = self.known.get(bare)
            if known is None or stage in known.came:
                commit, line = self.replay.commits[number], replaced.line if replaced else []
                known = Version(application, new, commit, commit.landing, line, len(line), {})
                line.append(known)
                self.known.setdefault(bare, known)
            self.known[application, new] = known
        return known

    def ship(self, stage: str, arrivals: Sequence[Version], landing: int) -> None:
        """Note the changes that come to a stage with some versions."""
        told: List[str] = []  # the commits of several versions are changes once
        for version in arrivals:
            version.dropped = False
            key, carried = (stage, id(version.line)), [version]
            newest = self.newest.get(key)
            if newest is None or newest.rank < version.rank:
                self.newest[key] = version
                if newest is not None:
                    carried = version.line[newest.rank + 1 : version.rank + 1]
            for one in carried:
                if stage not in one.came and not one.dropped:
                    one.came[stage] = landing
                    if one.commit.sha not in told and (newest is not None or not one.rank):
                        self.shipped.append((one, stage, landing))
                    told.append(one.commit.sha)

    def changes(self, production: str, ignored: Pattern[str]) -> Iterator[Row]:
        """Yield the rows of `changes`, with the newer versions that production waits for."""
        for (stage, _), newest in self.newest.items():
            for one in newest.line[newest.rank + 1 :] if stage == production else ():
                if stage not in one.came and not one.dropped:
                    self.shipped.append((one, stage, MISSING))
        for one, stage, landing in self.shipped:
            commit, is_first = one.commit, stage == production and landing == one.landing
            before_clone = self.replay.shallow and not one.landing
            if not (is_first or before_clone or ignored.search(commit.author)):
                self.commits.setdefault(commit.sha, (commit, one.application))
                deployed = MISSING if landing == MISSING else self.replay.seconds[landing]
                yield one.application, stage, commit.sha, one.name, commit.seconds, deployed

    def places(self) -> Iterator[Place]:
        """Yield the places, classified.

        In a complete clone nothing was there before the first deployment, so nothing is lost.
        """
        seconds = [sync.start for syncs in self.syncs.values() for sync in syncs]
        start, end = min(seconds) // DAY * DAY, max([*seconds, self.replay.seconds[-1]])
        for place in sorted(self.syncs):
            syncs = self.syncs.pop(place)
            begins = self.replay.shallow and self.replay.landings[0] in syncs[0].brings
            covered = syncs[0].start if begins else start, end, int(begins)
            facts = place[0], self.stage[place], "/".join(place), "path"
            yield Place(*facts, classify_syncs(syncs, begins=begins), *covered)


def load_gitops_repository(
    repo: FilePath,
    template: Optional[str] = None,
    environments: Union[None, str, Sequence[str]] = None,
    *,
    applications: Sequence[str] = (),
    ignore_authors: Optional[str] = None,
) -> History:
    """Return the deployments that the history of a config repository shows.

    It is desired state: a deployment is a commit of the main line that changes what an environment
    of an application is to run. `template` is a path with `{environment}` and `{application}`, of a
    folder or a file. Without it a usual layout is looked for. `environments` are their names in
    promotion order, such as `dev,staging,production=prod-*`. `applications` are names or patterns
    such as `shop-*`: the others are left out. `ignore_authors` is a regular expression: what these
    authors commit is deployed, but it is no change. Raises GitOpsError for a repository that cannot
    be read, a template or a pattern that matches nothing, and a layout that is not plain.
    """
    stages, ignored = Stages.of(environments), author_pattern(ignore_authors)
    with collector_paused():
        tree = HeadTree(repo)
        template = find_layout(repo, tree.files, template, stages)
        owners, left_out = template_owners(repo, tree, template, stages, applications)
        travels = Travels(Replay(repo, owners), stages)
        stages.check((place[1], "/".join(place)) for place in [*travels.stage, *left_out])
        if not travels.syncs:
            raise GitOpsError(f"nothing was deployed at {in_quotes(template)}; {TEMPLATE_HELP}")
        order = stages.order(dict.fromkeys(travels.stage.values()))
        notes, remedy = [f"Layout: {template}"], "--environments names them"
        named = {name for _, name in travels.stage}
        others = one_line(", ".join(sorted({name for _, name in left_out} - named)), 120)
        if not any(map(stages.knows, named)):
            names = one_line(", ".join(sorted(named)), 120)
            notes.append(f"No environment has a usual name: {names}; {remedy}")
        elif left_out:
            notes.append(f"Left out, as they are no environments: {others}; {remedy}")
        if travels.replay.shallow:
            notes.append("The clone is shallow: git fetch --unshallow brings the time before it")
        changes = list(travels.changes(order[-1], ignored))
        rows = [(*commit, application) for commit, application in travels.commits.values()]
        commits = pd.DataFrame(rows, columns=[*GitCommit._fields, "application"])
        commits = commits_from(commits.sort_values("seconds", kind="stable"), branch_of(repo))
        return history_from("git", travels.places(), commits, changes, notes, order)


# Layouts: which part of a path is the application, and which is the environment.

TEMPLATE_HELP = "--deployments-from takes one such as apps/{application}/overlays/{environment}"
NO_APPLICATIONS = frozenset(  # folders and files for all applications, and the files of one
    "app application applications apps argocd base cluster clusters common component components "
    "config configmap configs core deploy deployment deployments env environment environments envs "
    "flux-system gitops helm helmfile image images infra infrastructure ingress k8s kubernetes "
    "kustomization kustomize manifests namespace namespaces overlay overlays overrides patch "
    "patches release releases replicas resources secret secrets service services settings "
    "templates tenants values variables version versions".split()
)
IN_FILE = re.compile(r"(values[-_.])?(.+?)([-_.]values)?(\.\w+)?")  # the name of a file
CONFIG_ENDING = re.compile(r"|\.(ya?ml|json|env|toml|properties|tf|tfvars)")  # not of code


def template_pattern(template: str) -> Pattern[str]:
    """Return the pattern of the files of a template; GitOpsError if it names no environment.

    Its last part is a file if it has a dot; otherwise it is a file or a folder. `*` is any name.
    """
    fields = re.findall(r"\{(\w*)\}", template)
    if sorted(fields) not in (["environment"], ["application", "environment"]):
        raise GitOpsError(f"{in_quotes(template)} names no {{environment}}; {TEMPLATE_HELP}")
    groups = dict.fromkeys(fields, "[^/]+?")
    joint = re.search(r"\{application\}([-_.])\{environment\}", template)
    if joint:  # the application of hmpps-audit-prod is hmpps-audit, that of shop-pre-prod is shop
        mark = joint.group(1)
        groups["environment"] = f"(?:(?:pre|non)[{mark}])?[^/{mark}]+"
    pattern = re.escape(template.strip("/")).replace(r"\*", "[^/]*")
    for name, group in groups.items():
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{group})")
    is_file = "." in posixpath.basename(template.strip("/"))
    return re.compile(pattern if is_file else f"{pattern}(?:/.*)?")


def readings(file: str, stages: Stages) -> Iterator[Tuple[Tuple[str, ...], str, str]]:
    """Yield the ways to read a path: (parts of the template, application, environment).

    The environment is a folder, or is in the name of a file. The application is another folder, a
    file below the environment, or what stands before the environment in its name (`shop-prod`).
    """
    parts = file.split("/")
    last = len(parts) - 1
    for at, part in enumerate(parts):
        inside = IN_FILE.fullmatch(part) if at == last else None
        before, name, *after = inside.groups("") if inside else ("", part, "")
        if part in ("base", "bases"):
            return
        if not stages.knows(name) or not CONFIG_ENDING.fullmatch("".join(after[1:])):
            continue
        shape = (*parts[:at], before + "{environment}" + "".join(after))
        yield shape, "", name
        for other, folder in enumerate(parts[:last]):
            if other != at and folder not in NO_APPLICATIONS:
                full = [*shape, *parts[at + 1 : other + 1]]
                full[other] = "{application}"
                yield tuple(full), folder, name
        stem, dot, ending = parts[last].partition(".")
        if at < last and stem and NO_APPLICATIONS.isdisjoint(re.split("[-_.]", parts[last])):
            yield (*shape, *parts[at + 1 : last], "{application}" + dot + ending), stem, name
        for _, begin, end in environment_words(name)[-1:]:
            application = name[: max(begin - 1, 0)]
            if application and end == len(name) and application not in NO_APPLICATIONS:
                joined = "{application}" + name[begin - 1] + "{environment}"
                joined = before + joined + "".join(after)
                yield (*parts[:at], joined), application, name[begin:]


def best_layout(files: Sequence[str], stages: Stages) -> Tuple[float, str, int, List[str]]:
    """Return (score, template, its number of files, the files it leaves) of the best layout.

    1. A template counts the files of applications that are in production and in another stage.
    2. More applications count for it, a little. So does a template without `*`, which takes the
       place of a folder, such as a team's, where templates differ in it.
    3. It is none if these are less than a tenth of the files that match it: most names are others.
    """
    found: Dict[Tuple[str, ...], Dict[str, List[str]]] = {}
    for file in files:
        if not (DOCUMENTS.search(file) or re.search(r"(^|/)\.[^/]*/", file)):
            for parts, application, name in readings(file, stages):
                found.setdefault(parts, {}).setdefault(application, []).append(name)
    counts: Dict[Tuple[str, ...], Dict[str, int]] = {}
    production = stages.order()[-1]
    for parts, applications in found.items():
        folders = [at for at, part in enumerate(parts) if "{" not in part]
        for application, names in applications.items():
            there = {stages.stage_of(name) or usual_stage(name) for name in set(names)}
            for star in [-1, *folders] if len(there) > 1 and production in there else ():
                key = (*parts[: max(star, 0)], *["*"][: star + 1], *parts[star + 1 :])
                counted = counts.setdefault(key, {})
                counted[application] = counted.get(application, 0) + len(names)
    ranked = [
        (sum(counted.values()) * len(counted) ** 0.2 * 0.8 ** ("*" in parts), parts)
        for parts, counted in counts.items()
    ]
    score, best = max(ranked, default=(0.0, ()))
    template, count = "/".join(best), sum(counts.get(best, {}).values())
    if not count:
        return 0.0, "", 0, []
    matched = [(file, template_pattern(template).fullmatch(file)) for file in files]
    if sum(1 for _, one in matched if one) > 10 * count:
        return 0.0, "", 0, []
    rest = [file for file, one in matched if not (one and stages.knows(one["environment"]))]
    return score, template, count, rest


def find_layout(
    repo: FilePath, files: Sequence[str], template: Optional[str], stages: Stages
) -> str:
    """Return the template of a repository with these files at HEAD; GitOpsError if none fits.

    1. Without a template it is the usual layout that explains most files. Where another one
       explains half as much of the files that it leaves, both are listed. A branch for each
       environment is named as what it is.
    2. A template that matches no file, not even of the newest commits, is refused with the nearest.
    3. A template that makes environments of other names is refused where a usual layout is plain.
    """
    names: Dict[str, int] = {}
    if template:
        pattern, wanted = template_pattern(template), template.strip("/").split("/")
        matched = filter(None, map(pattern.fullmatch, files))
        names = collections.Counter(one["environment"] for one in matched)
        if not names:
            records = itertools.chain.from_iterable(read_log(repo, (), "-5000"))
            entries = (path for record in records for _, path in RAW_ENTRY.findall(record[-1]))
            there = {*files, *(path.decode("utf-8", "replace") for path in entries)}
            if not any(map(pattern.fullmatch, there)):
                paths = sorted({"/".join(file.split("/")[: len(wanted)]) for file in there})
                paths.sort(key=lambda path: -sum(map(operator.eq, path.split("/"), wanted)))
                near = one_line(", ".join(difflib.get_close_matches(template, paths[:200], 3, 0)))
                problem = f"no file is at {in_quotes(template)}; the nearest are {near}"
                raise GitOpsError(f"{problem}; {TEMPLATE_HELP}")
        known = sum(count for name, count in names.items() if stages.knows(name))
        if stages.patterns or 10 * known >= sum(names.values()):
            return template
    score, best, count, rest = best_layout(files, stages)
    other_score, other, other_count, _ = best_layout(rest, stages)
    if template and score > 2 * other_score:
        told = f"{in_quotes(template)} makes environments of {one_line(', '.join(names), 60)}"
        remedy = "--environments says which are environments"
        raise GitOpsError(f"{told}; the usual layout here is {one_line(best)}; {remedy}")
    if template or score > 2 * other_score:
        return template or best
    where = one_line(repo)
    if best:
        both = f"{one_line(best)} ({count_text(count, 'file')}) and {one_line(other)}"
        both += f" ({count_text(other_count, 'file')})"
        raise GitOpsError(f"two layouts explain {where}: {both}; --deployments-from takes one")
    form = "--format=%(refname:lstrip=-1)"
    heads = ask_git(repo, "for-each-ref", form, "refs/heads", "refs/remotes").split()
    branches = sorted({name for name in heads if name.lower() in ENVIRONMENT_WORDS})
    if len(set(map(usual_stage, branches))) > 1:
        problem = f"{where} has a branch for each environment: {', '.join(branches)}"
        remedy = "measure what Argo CD says (--argocd), or the tags of one branch (--tags)"
        raise GitOpsError(f"{problem}; no commit says when it was deployed; {remedy}")
    problem = f"no layout explains {where}: no names tell production and another environment"
    raise GitOpsError(f"{problem}; {TEMPLATE_HELP}, and --environments dev,production=live-*")


def choose_applications(names: Iterable[str], patterns: Sequence[str]) -> Set[str]:
    """Return the applications that patterns take in, all of them without any.

    Raises GitOpsError for a pattern that takes in none, with the nearest names.
    """
    there, chosen = sorted(names), set()
    for pattern in patterns or ["*"]:
        found = fnmatch.filter(there, pattern)
        if patterns and not found:
            near = one_line(", ".join(difflib.get_close_matches(pattern, there, 3, 0)))
            called = f"no application is called {in_quotes(pattern)}"
            raise GitOpsError(f"{called}; the nearest are {near}")
        chosen.update(found)
    return chosen


# Release tags: each one on the main line is a deployment to production.

HOTFIX = re.compile(r"\bhot-?fix", re.IGNORECASE)
REVERT, MERGED = re.compile(r'^Revert "(.+)"$'), re.compile(r" \(#\d+\)$")  # as forges say it
PRERELEASE = re.compile(r"(?i)(\d[abc]\d+|[\d._-](alpha|beta|rc|dev|pre|snapshot)[._-]?\d*)$")


def load_release_tags(
    repo: FilePath,
    patterns: Union[str, Sequence[str]] = ("v*",),
    *,
    ignore_authors: Optional[str] = None,
) -> History:
    """Return the releases that the tags of any repository show, as deployments to production.

    1. A tag of the main line, of one of these patterns, is a deployment. Its changes are the
       commits since the tag before, each with its own time. The first tag brings its commit alone.
       Commits after the last tag wait.
    2. A release that reverts or hotfixes, as a commit or the tag says, makes the one before a
       failure that it recovered. Whether others failed is unknown.
    3. A pre-release (`v2.0.0-rc1`) is none, unless there are no others.

    `ignore_authors` is a regular expression: what these authors commit is no change. Raises
    GitOpsError for a repository that cannot be read, and for patterns that take in no tag.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    ignored, where = author_pattern(ignore_authors), one_line(repo)
    form = "--format=%(refname:lstrip=2) %(objectname) %(creatordate:unix) %(*objectname)"
    listed = ask_git(repo, "for-each-ref", form, "refs/tags").split("\n")
    tags = [[*line.split(" "), ""] for line in listed if line]
    there = one_line(", ".join(tag[0] for tag in tags[-8:]) or "none")
    problem = f"the current branch of {where} has no tag like {' or '.join(patterns)}"
    remedy = f"its last tags are {there}; --tags takes a pattern of theirs, such as 'release-*'"
    chosen = [tag for tag in tags if any(fnmatch.fnmatchcase(tag[0], one) for one in patterns)]
    chosen = [tag for tag in chosen if not PRERELEASE.search(tag[0])] or chosen
    if not chosen:
        raise GitOpsError(f"{problem}; {remedy}")
    everything: Any = collections.defaultdict(lambda: [("", True)])
    replay = Replay(repo, everything)
    collections.deque(replay.arrivals(), 0)  # the commits alone: no file is read
    found: Dict[str, Tuple[int, int, str]] = {}  # {commit: (landing, seconds, tag)}
    for tag, time in zip(chosen, epochs([tag[2].encode() for tag in chosen]).tolist()):
        sha = tag[3] or tag[1]
        if sha in replay.landing_of:
            landing = replay.landing_of[sha]
            found[sha] = landing, max(time, replay.seconds[landing]), one_line(tag[0], 100)
    if not found:
        raise GitOpsError(f"{problem}; {remedy}")
    landings, times, names, shas = zip(*sorted((*one, sha) for sha, one in found.items()))

    commits = pd.DataFrame(replay.commits, columns=GitCommit._fields)
    commits = commits.assign(application=repository_name(repo), environment="production")
    which = np.searchsorted(landings, commits["landing"])  # the release that brought each
    subjects = commits["message"].str.replace(MERGED, "", regex=True)
    release_of = {**dict(zip(subjects, which)), **dict(zip(commits["sha"], which))}
    reasons: Dict[int, str] = {}
    told = [*zip(which.tolist(), commits["reverts"], subjects)]
    for number, reverts, text in [*told, *((at, (), name) for at, name in enumerate(names))]:
        undone = reverts or REVERT.findall(text)
        undone = [one for one in undone if release_of.get(one, number) < number]
        if number < len(names) and (undone or HOTFIX.search(text)):
            how = "Reverted" if undone else "Hotfixed"
            reasons.setdefault(number - 1, f"{how} by {names[number]}")
    releases = []
    for number, (sha, time) in enumerate(zip(shas, times)):
        over = max(times[number : number + 2]) if number in reasons else MISSING
        release = Release(Sync(time, time, sha, sha), reasons.get(number, ""), recovered=over)
        releases.append(release)
    end, rule = max([*times, *replay.seconds]), ", ".join(patterns)
    place = Place(repository_name(repo), "production", rule, "tag", releases, min(times), end)

    deployed, versions = np.append(times, MISSING)[which], np.append(names, "")[which]
    commits = commits.assign(version=versions, deployed=deployed)
    landing = commits["landing"]
    merge = landing.duplicated(keep=False) & ~landing.duplicated(keep="last")
    bots = commits["author"].map(lambda author: bool(ignored.search(author))).astype(bool)
    later = (which > 0) | (commits["sha"] == shas[0])
    columns = ["application", "environment", "sha", "version", "seconds", "deployed"]
    changes = commits.loc[later & ~merge & ~bots, columns].itertuples(index=False, name=None)
    table = commits_from(commits[later].sort_values(["seconds", "sha"]), branch_of(repo))
    notes = [f"Releases: the tags {rule}; of failures those are known that a tag put right"]
    return history_from("tags", [place], table, changes, notes, ["production"])


def author_pattern(text: Optional[str]) -> Pattern[str]:
    """Return the pattern of the authors to ignore, that of nobody without a text."""
    try:
        return re.compile("$^" if text is None else text)
    except (re.error, RecursionError, OverflowError) as error:
        problem = f"--ignore-authors is no regular expression: {one_line(error)}"
        raise GitOpsError(f"{problem}; it takes one such as 'bot$'") from None


# ---- Real history: Argo CD -> deployments and rollbacks -----------------------------------------

# What Argo CD 3 keeps of an application. `status.history` has the full syncs that succeeded, by
# default the last ten. `status.operationState` is the last operation: one that failed, or that
# synced a part, leaves no other trace. `status.health` may be older than that operation.

KARGO = "kargo.akuity.io/authorized-stage"  # its value is project:stage
MANIFEST_PATHS = "argocd.argoproj.io/manifest-generate-paths"
DEFINITION = json.JSONEncoder(sort_keys=True)


class ArgoSource(NamedTuple):
    """One source of an application: what it applies of its repository."""

    definition: str  # its parameters: others make another release of the same revision
    paths: Tuple[str, ...]  # files and folders; "" is the whole repository
    folder: str  # where a kustomization may name bases; "" if it has none


@dataclass
class ArgoApplication:
    """What the files say of an Argo CD application. Times are seconds since 1970, 0 for none."""

    namespace: str
    name: str
    number: int  # in the order in which the files name them
    document: Mapping[str, Any] = field(default_factory=dict)  # the newest one
    newest: int = -1  # the newest time in that document
    seen: int = 0  # the newest time in the files that name it
    created: int = 0
    looks: Dict[int, Look] = field(default_factory=dict)
    rows: List[Row] = field(default_factory=list)  # of its syncs, see `add_rows`
    title: str = ""  # what the tables call it
    origin: str = ""  # the full name, with the number where several have it
    environment: str = UNCLASSIFIED
    rule: str = "none"  # what told the environment
    syncs: List[Sync] = field(default_factory=list)
    shipped: List[Row] = field(default_factory=list)  # (commit, version, end of the first sync)
    had: Dict[Any, int] = field(default_factory=dict)  # {paths of a source: newest landing there}
    tried: int = -1  # the newest landing that a sync had, or failed to bring

    @property
    def full_name(self) -> str:
        """The name with its namespace."""
        return "/".join(filter(None, (self.namespace, self.name)))

    @property
    def marks(self) -> Dict[str, str]:
        """Its annotations and labels."""
        parts = (at_path(self.document, "metadata", key) for key in ("annotations", "labels"))
        pairs = (pair for part in parts for pair in part.items())
        return {key: value for key, value in pairs if value and isinstance(value, str)}

    @property
    def left_out(self) -> str:
        """Why it is not measured; nothing if it is."""
        resources = at_path(self.document, "status", "resources", kind=list)
        kinds = {at_path(resource, "kind", kind=str) for resource in resources}
        if kinds and kinds <= {"Application", "ApplicationSet"}:
            return "App of apps, not counted"
        if at_path(self.document, "spec").get("revisionHistoryLimit") == 0:
            return "No history is kept (revisionHistoryLimit: 0; set it to 10 to measure them)"
        return ""


# Reading the documents.


def read_argocd(files: Sequence[FilePath]) -> List[ArgoApplication]:
    """Return the applications in JSON documents of kubectl, argocd or its REST API.

    Snapshots of one application are merged. Raises GitOpsError that names the file, the application
    and the entry where something is wrong.
    """
    known: Dict[Row, ArgoApplication] = {}
    entries: Dict[str, Row] = {}
    names = ["standard input" if str(file) == "-" else one_line(file) for file in files]
    try:
        for file, name in zip(files, names):
            documents = argo_documents(read_text(file, "--argocd takes JSON files"), name)
            found = [read_application(one, name, known, entries) for one in documents]
            seen = max((newest for _, newest in found), default=0)
            for one, _ in found:
                one.seen = max(one.seen, seen)
        if entries:
            add_rows(list(known.values()), entries.values())
    except RecursionError:
        problem = f"{', '.join(names)}: nested too deeply to be of Argo CD; ask for -o json"
        raise GitOpsError(problem) from None
    newest = max((one.seen for one in known.values()), default=0)
    for one in known.values():
        one.seen = one.seen or newest
    return [known[key] for key in sorted(known)]


def read_text(file: FilePath, takes: str) -> str:
    """Return a file as text; `-` is standard input. GitOpsError if it cannot be read."""
    if str(file) == "-" and sys.stdin is None:
        raise GitOpsError("standard input is closed; name a file in the place of -")
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else Path(file).read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        why = one_line(getattr(error, "strerror", None) or error)
        raise GitOpsError(f"cannot read {one_line(file)}: {why}; {takes}") from None


def argo_documents(text: str, name: str) -> List[Mapping[str, Any]]:
    """Return the applications in a text: JSON documents, one after the other.

    A document is an application, an array, a list under `items`, or the `result` of a stream.
    """
    text, position, queue = text.strip(), 0, []
    while position < len(text) or not text:
        try:
            document, position = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            hint = "it looks like YAML: ask for JSON with" if looks_like_yaml(text) else "ask for"
            problem = f"{name} is not JSON ({one_line(error, 80)}); {hint} -o json"
            raise GitOpsError(problem) from None
        position = re.compile(r"[\s,]*").match(text, position).end()  # type: ignore[union-attr]
        queue.append(document)
    found, others = [], False
    queue.reverse()
    while queue:
        one = queue.pop()
        one = at_path(one, "result", "application") or one
        if isinstance(one, dict) and "items" in one:
            one = one["items"] or []
        if isinstance(one, list):
            queue += reversed(one)
        elif at_path(one, "metadata", "name", kind=str) and at_path(one, "spec", "destination"):
            found.append(one)
        else:
            others = True
    if others and not found:
        takes = "--argocd takes what `argocd app list -o json` prints"
        raise GitOpsError(f"{name} holds no Argo CD application; {takes}")
    return found


def at_path(document: Any, *path: str, kind: Any = dict) -> Any:
    """Return what a document has at a path; an empty value if it has none of that kind."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, kind) else kind()


RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
PLAIN_TIMES = re.compile(r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n)*", re.ASCII)


@functools.lru_cache(maxsize=1 << 18)
def seconds_from(text: str) -> int:
    """Return an RFC 3339 time in seconds since 1970; ValueError if it is none from 1970 to 2200."""
    found = RFC_3339.fullmatch(text)
    if not found:
        raise ValueError(text)
    zone = "+00:00" if found.group(1) == "Z" else found.group(1)
    seconds = int(_dt.datetime.fromisoformat(text[:19] + zone).timestamp())
    if not 0 <= seconds <= LAST_SECOND:
        raise ValueError(text)
    return seconds


def time_at(holder: Mapping[str, Any], key: str, where: str, needed: bool = False) -> int:
    """Return a time in seconds since 1970; 0 where there is none. GitOpsError if it is none."""
    value = holder.get(key)
    try:
        return seconds_from(value) if value or needed else 0
    except (ValueError, TypeError, OverflowError):
        rule = f"{key} is not a time such as 2026-01-31T12:00:00Z: {in_quotes(value)}"
        raise GitOpsError(f"{where}: {rule}") from None


def times_in(values: Sequence[Any], key: str, places: Sequence[str]) -> np.ndarray:
    """Return a column of times in seconds since 1970; plain ones are read all at once."""
    try:
        lines = "\n".join([*values, ""])
        if PLAIN_TIMES.fullmatch(lines):
            seconds = np.array(lines.replace("Z", "").split(), "M8[s]").astype(np.int64)
            if 0 <= seconds.min() and seconds.max() <= LAST_SECOND:
                return seconds
    except (TypeError, ValueError):
        pass
    pairs = zip(({key: value} for value in values), places)
    return np.array([time_at(one, key, place, needed=True) for one, place in pairs], np.int64)


def read_application(
    document: Mapping[str, Any],
    file: str,
    known: Dict[Row, ArgoApplication],
    entries: Dict[str, Row],
) -> Tuple[ArgoApplication, int]:
    """Add a document to what is known of its application; return that and the newest time in it.

    A snapshot repeats most of the one before: `entries` has each once. The `uid` tells applications
    of the same name apart, where each cluster has an Argo CD of its own.
    """
    metadata = at_path(document, "metadata")
    texts = [at_path(metadata, key, kind=str) for key in ("namespace", "name", "uid")]
    key = tuple(one_line(text, NAME_WIDTH) if text else "" for text in texts)
    one = known.setdefault(key, ArgoApplication(key[0], key[1], len(known)))
    where, newest = f"{file}: application {key[1]}", 0
    last: Any = {}
    status = {} if document.get("status") is None else document["status"]
    history = (status.get("history") or []) if isinstance(status, dict) else status
    if not isinstance(history, list):
        raise GitOpsError(
            f"{where}: its status or history is of another kind: {in_quotes(history)}"
        )
    for number, last in enumerate(history):
        if not isinstance(last, dict):
            raise GitOpsError(f"{where}, history entry {number}: no object: {in_quotes(last)}")
        mark = f"{one.number} {last.get('id')} {last.get('deployedAt')}"
        if mark not in entries:
            entries[mark] = last, "", one.number, f"{where}, history entry {number}"
    if last:
        newest = time_at(last, "deployedAt", entries[mark][3], needed=True)
    state = at_path(status, "operationState")
    finished, reconciled = (
        time_at(holder, key, where)
        for holder, key in ((state, "finishedAt"), (status, "reconciledAt"))
    )
    operation = operation_entry(state, last)
    if finished and operation is not None:
        entries[f"{one.number} {finished}"] = *operation, one.number, where
    if reconciled >= max(newest, finished if finished or not state else NEVER, 1):
        health = at_path(status, "health")
        one.looks[reconciled] = Look(
            reconciled,
            at_path(health, "status", kind=str),
            time_at(health, "lastTransitionTime", where),
            at_path(status, "sync", "status", kind=str) == SYNCED,
            one_line(at_path(health, "message", kind=str) or "Degraded health", 60),
        )
    created = time_at(metadata, "creationTimestamp", where)
    one.created = one.created or created
    newest = max(newest, finished, reconciled, created)
    if newest >= one.newest:
        one.document, one.newest = document, newest
    return one, newest


def operation_entry(
    state: Mapping[str, Any], last: Mapping[str, Any]
) -> Optional[Tuple[Dict[str, Any], str]]:
    """Return a last operation that left no entry as one, and why it failed; else None.

    1. A sync of everything that failed is one.
    2. So is a sync of a part that brings another revision than the last entry has.
    3. Not so a part that Argo CD heals by itself, and a dry run: nothing new came.
    """
    sync = at_path(state, "operation").get("sync")  # an empty one is a sync with the defaults
    if not isinstance(sync, dict) or sync.get("dryRun"):
        return None
    result, part = at_path(state, "syncResult"), bool(sync.get("resources"))
    names = ("revision", "revisions", "source", "sources")
    entry = {name: result.get(name) or sync.get(name) for name in names}
    entry.update(id=-1, deployStartedAt=state.get("startedAt"), deployedAt=state.get("finishedAt"))
    phase = state.get("phase")
    if phase in ("Failed", "Error"):
        why = one_line(at_path(state, "message", kind=str) or phase, 60)
        return None if part else (entry, why)
    heals = part and at_path(state, "operation", "initiatedBy").get("automated")
    is_new = phase == "Succeeded" and revisions_of(entry) != revisions_of(last)
    return (entry, "") if is_new and not heals else None


def add_rows(applications: Sequence[ArgoApplication], entries: Iterable[Row]) -> None:
    """Give the entries, read as columns, to their applications in the order of their ends.

    A row is start, end, why it failed, (source, revision) of each part, and how many entries before
    it are lost: the numbers that are left out. They begin at 0 again where an application was made
    anew. A failed operation that began together with an entry is left out, as a retry succeeded.
    """
    documents, failures, owners, places = zip(*entries)
    ends = times_in([one.get("deployedAt") for one in documents], "deployedAt", places)
    begins = [one.get("deployStartedAt") or one.get("deployedAt") for one in documents]
    starts = np.minimum(times_in(begins, "deployStartedAt", places), ends)
    numbers = [one.get("id", 0) for one in documents]
    for number, place in zip(numbers, places):
        if type(number) is not int or abs(number) > 2**62:
            raise GitOpsError(f"{place}: id is not a whole number: {in_quotes(number)}")
    given, sources = None, sources_of({})
    parts: List[Tuple[Tuple[ArgoSource, str], ...]] = []
    for one in documents:  # the sources of an application seldom change
        now = one.get("sources") or one.get("source")
        if now != given:
            given, sources = now, sources_of(one)
        if len(sources) == 1:
            parts.append(((sources[0], revisions_of(one)[0]),))
        else:
            revisions = revisions_of(one) + [""] * len(sources)
            parts.append(tuple(sorted(zip(sources, revisions))))
    table = pd.DataFrame({"owner": owners, "id": numbers, "start": starts, "end": ends})
    table = table.assign(failure=failures, parts=parts)
    began = table["owner"] * NEVER + starts
    table = table[(table["id"] >= 0) | ~began.isin(began[table["id"] >= 0])]
    table = table.sort_values(["owner", "end", "id"], kind="stable", ignore_index=True)
    kept = table[table["id"] >= 0]
    before = kept.groupby("owner")["id"].shift(fill_value=-1)
    lost = (kept["id"] - before.where(before <= kept["id"], -1) - 1).clip(lower=0)
    table = table.assign(lost=lost.reindex(table.index, fill_value=0))
    columns = (table[name].tolist() for name in ("start", "end", "failure", "parts", "lost"))
    rows, edges = list(zip(*columns)), np.searchsorted(table["owner"], range(len(applications) + 1))
    for one, low, high in zip(applications, edges, edges[1:]):
        one.rows = rows[low:high]


def revisions_of(entry: Mapping[str, Any]) -> List[str]:
    """Return the revisions of an entry, in the order of its sources."""
    listed = entry.get("revisions")
    listed = listed if listed and isinstance(listed, list) else [entry.get("revision")]
    return [one_line(one, 100) if one and isinstance(one, str) else "" for one in listed]


def sources_of(holder: Mapping[str, Any]) -> List[ArgoSource]:
    """Return the sources of a spec or an entry; `sources` outrank `source`.

    A source applies its path and its value files. One with a `ref` applies the files that others
    refer to it for. A pattern of files stands for the folder above it.
    """
    listed = [one for one in at_path(holder, "sources", kind=list) if isinstance(one, dict)]
    listed = listed or [at_path(holder, "source")]
    files = []
    for helm in (at_path(source, "helm") for source in listed):
        own = [at_path(one, "path", kind=str) for one in at_path(helm, "fileParameters", kind=list)]
        own += at_path(helm, "valueFiles", kind=list)
        files.append([file for file in own if isinstance(file, str) and file])
    found = []
    for source, own in zip(listed, files):
        path, ref = (at_path(source, key, kind=str) for key in ("path", "ref"))
        used = [posixpath.join(path, file) for file in own]
        if ref:
            mark = f"${ref}/"
            used = [file[len(mark) :] for file in itertools.chain(*files) if file.startswith(mark)]
        used = [file for file in used if "$" not in file and "://" not in file]
        used = [re.sub(r"(^|/)[^/]*[*?\[{].*", "", file) for file in used]
        used += [path] * bool(path or not (ref or source.get("chart")))
        parameters = {key: value for key, value in source.items() if key != "targetRevision"}
        paths = tuple(sorted(map(clean_path, used)))
        found.append(ArgoSource(DEFINITION.encode(parameters), paths, clean_path(path)))
    return found


def clean_path(path: str) -> str:
    """Return a path as git knows it; "" is the whole repository."""
    path = posixpath.normpath(path or ".").lstrip("/")
    return "" if path == "." or path.startswith("..") or make_printable(path) != path else path


# The environment of an application, and its name without it.


def name_application(
    one: ArgoApplication, pattern: Optional[Pattern[str]], label: Optional[str]
) -> Tuple[str, ...]:
    """Find what told the environment of an application, and its name without the environment.

    Returns the environment's own name ("" if nothing tells one) and others that patterns of
    `--environments` can match. The first rule that tells one counts:

    1. The template of the config repository matches a source path.
    2. A label or an annotation names it.
    3. The name has the word of one environment, or of several and one at its end.
    4. The source paths, the destination's name or its namespace have the word of just one.

    In the name a cluster goes with its environment: the destination's name, or the words behind it
    that a path or the destination has together with it, as `shop-prod-eu` at `apps/shop/prod-eu`.
    """
    name, spec = one.name, at_path(one.document, "spec")
    paths = [path for source in sources_of(spec) for path in source.paths]
    keys = ("name", "namespace", "server")
    cluster, space, server = (at_path(spec, "destination", key, kind=str) for key in keys)
    others = one.full_name, name, one.namespace, cluster, space, server
    one.title, marks = name, one.marks
    for path in paths:
        found = pattern and (pattern.fullmatch(f"{path}/") or pattern.fullmatch(path))
        if found:
            one.rule, one.title = "path", found.groupdict().get("application") or name
            return (found["environment"], *others)
    environment = ""
    hints = ("name", name), ("source path", "\n".join(paths)), ("destination name", cluster)
    for key in [label] if label else ("environment", "env", KARGO):
        if key in marks and not environment:
            value = marks[key].rpartition(":")[2] if key == KARGO else marks[key]
            environment, one.rule = one_line(value, 40).lower(), f"label {one_line(key, 60)}"
    for rule, text in (*hints, ("destination namespace", space)) if not environment else ():
        words = environment_words(text)
        at_end = rule == "name" and words[-1:] and words[-1][2] == len(name)
        if not environment and (at_end or len({word for word, *_ in words}) == 1):
            environment, one.rule = words[-1][0], rule
    words = environment_words(name) if environment else ()
    begin, end = next(
        (span for word, *span in words[::-1] if usual_stage(word) == usual_stage(environment)),
        (len(name), len(name)),
    )
    dashed, spans = dash_words(name), [(begin, end)]
    if end < len(name):
        elsewhere = dash_words("\n".join([*paths, cluster, space, server]).replace(name, ""))
        stops = [at for at in range(end + 1, len(name) + 1) if dashed[at + 1] == "-"]
        spans += [(begin, at) for at in stops if dash_words(name[begin:at]) in elsewhere]
    at = dashed.find(dash_words(cluster)) if cluster else -1
    if 0 <= at <= begin and end <= at + len(cluster):
        spans.append((at, at + len(cluster)))
    spans = [(low, high) for low, high in spans if high - low < len(name)]
    low, high = max(spans, default=(0, 0), key=lambda span: span[1] - span[0])
    before, after = name[:low].rstrip("-_/."), name[high:].lstrip("-_/.")
    one.title = before + (name[low - 1] if before and after else "") + after
    own = name[low:high] if begin < end else environment
    return (own or environment, environment, name[low:high], *others)


def dash_words(text: str) -> str:
    """Return a text in small letters with a dash in the place of all that parts its words."""
    return "-" + re.sub(r"[-_./\s]", "-", text.lower()) + "-"


def name_applications(
    found: Sequence[ArgoApplication], template: Optional[str], label: Optional[str], stages: Stages
) -> None:
    """Name the environment of each application, and the application itself.

    Two teams' applications of the same name are told apart by their namespaces. GitOpsError for a
    label that no application has.
    """
    there = {key for one in found for key in one.marks} if label else set()
    if label is not None and label not in there:
        keys = ", ".join(sorted(there, key=lambda key: ("/" in key, key))) or "none"
        problem = f"no application has the label or annotation {one_line(label, 60)}"
        raise GitOpsError(f"{problem}; --environment-label takes one of these: {one_line(keys)}")
    pattern = template_pattern(template) if template else None
    named = [name_application(one, pattern, label) for one in found]
    stages.check(named)
    teams: Dict[Row, Set[str]] = collections.defaultdict(set)
    for one, names in zip(found, named):
        one.environment = stages.stage_of(*names) or UNCLASSIFIED
        teams[one.environment, one.title].add(one.namespace)
    shared = {title for (_, title), namespaces in teams.items() if len(namespaces) > 1}
    twins = collections.Counter(one.full_name for one in found)
    for one in found:
        one.title = f"{one.namespace}/{one.title}" if one.title in shared else one.title
        one.origin = one.full_name + f" ({one.number})" * (twins[one.full_name] > 1)


# The syncs of an application, and what a clone of the config repository knows of them.


def read_clone(repo: FilePath, applications: Sequence[ArgoApplication]) -> Replay:
    """Return the main line of a clone, with a trail for each source of each application."""
    tree, owners = HeadTree(repo), {}
    for one in applications:
        marks = one.marks.get(MANIFEST_PATHS, "").split(";")
        for source in {source for *_, parts, _ in one.rows for source, _ in parts}:
            named = {clean_path(posixpath.join("/", source.folder, mark.strip())) for mark in marks}
            bases = [*(named - {source.folder, ""}), *tree.bases(source.paths)]
            owners[one.full_name, source.paths] = source.paths, bases
    clone, form = Replay(repo, Owners(owners)), "--format=%(objectname) %(*objectname)"
    assert clone.trails is not None  # it reads the log
    for line in ask_git(repo, "for-each-ref", form, "refs/tags").splitlines():
        tag, _, commit = line.partition(" ")  # the revision of an annotated tag is the tag's own
        if commit in clone.landing_of:
            clone.landing_of[tag] = clone.landing_of[commit]
    return clone


def follow_syncs(one: ArgoApplication, clone: Optional[Replay]) -> None:
    """Find the syncs of an application, and what a clone knows of them.

    1. A sync is what the parameters and the paths of its sources hold, or the revision where the
       clone does not have it.
    2. It ships the commits to its own paths that no earlier one had. What the first one has was
       there before; so was what comes after a gap, but for a commit of the hour before.
    3. It takes back what its commits revert.
    """
    policy = at_path(one.document, "spec", "syncPolicy").get("automated")
    automatic = isinstance(policy, dict) and policy.get("enabled") is not False
    for start, end, failure, parts, lost in one.rows:
        release = revision = "+".join([text for _, text in parts if text]) or "(none)"
        if clone is None:
            one.syncs.append(Sync(start, end, parts, revision, failure, automatic=automatic))
            continue
        content: List[Any] = []
        moves: List[Move] = []
        newest = max(one.had.values(), default=None)
        for source, text in parts:
            landing = clone.landing_of.get(text)
            content += [source.definition, text]
            if landing is None:
                continue
            trail = clone.trails.get((one.full_name, source.paths), [])
            begin = one.had.get(source.paths, landing if newest is None else newest)
            now, before = (bisect.bisect_left(trail, (at + 1,)) for at in (landing, begin))
            content[-1], revision = 0, clone.landings[landing]
            if now:
                last = trail[now - 1]
                versions = ", ".join(version for _, version, _ in last.versions)
                content[-1], release = last.content, versions or clone.landings[last.landing]
            if lost:
                recent = start - clone.seconds[landing] < 3600
                before = now - (recent and now > 0 and trail[now - 1].landing == landing)
            moves += trail[before:now]
            one.tried = max(one.tried, landing)
            if not failure:
                one.had[source.paths] = max(landing, begin)
        commits = [clone.commits[number] for move in moves for number in move.commits]
        brings = [name for commit in commits for name in (commit.sha, commit.message)]
        undone = {name for commit in commits for name in commit.reverts}
        whole = [commit for commit in commits if not undone & {commit.sha, commit.message}]
        takes = {name for commit in whole for name in commit.reverts} - set(brings)
        facts = failure, brings, takes, automatic, release
        one.syncs.append(Sync(start, end, tuple(content), revision, *facts))
        named = {number: version for move in moves for _, version, number in move.versions}
        for number in [number for move in moves for number in move.own if not failure]:
            one.shipped.append((clone.commits[number], named.get(number, ""), end))


def judge_application(one: ArgoApplication, start: int) -> Place:
    """Return what the syncs of an application come to. Each time without a gap is judged alone."""
    rows, looks = one.rows, [one.looks[time] for time in sorted(one.looks)]
    cuts = [number for number, row in enumerate(rows) if row[4] or not number]
    releases: List[Release] = []
    for low, high in zip(cuts, [*cuts[1:], len(rows)]):
        until = rows[high][0] if high < len(rows) else NEVER
        seen = [look for look in looks if rows[low][0] <= look.time < until]
        begins = rows[low][4] > 0 and not one.syncs[low].brings
        releases += classify_syncs(one.syncs[low:high], seen, begins)
    begin = rows[cuts[-1]][1] if rows and rows[cuts[-1]][4] else start
    names = one.title, one.environment, one.origin, one.rule
    return Place(*names, releases, begin, max(begin, one.seen), sum(row[4] for row in rows))


def changes_of(
    applications: Sequence[ArgoApplication], clone: Replay, production: str
) -> Dict[Row, Row]:
    """Return {(application, environment, commit): (commit, version, end of the first sync)}.

    What another environment has had, or a sync failed to bring, waits for production.
    """
    found: Dict[Row, Row] = {}
    tried: Dict[str, Dict[str, int]] = collections.defaultdict(dict)
    for one in applications:
        stages = tried[one.title]
        stages[one.environment] = max(stages.get(one.environment, -1), one.tried)
        for row in one.shipped:
            key = one.title, one.environment, row[0].sha
            found[key] = min(found.get(key, row), row, key=lambda row: row[2])
    for one in applications:
        if one.environment == production:
            others = {**tried[one.title], UNCLASSIFIED: -1, production: one.tried}
            for paths, had in one.had.items():
                trail = clone.trails.get((one.full_name, paths), [])
                waiting = [move for move in trail if had < move.landing <= max(others.values())]
                for commit in (clone.commits[number] for move in waiting for number in move.own):
                    found.setdefault((one.title, production, commit.sha), (commit, "", MISSING))
    return found


@collector_paused()
def load_argocd(
    files: Union[FilePath, Sequence[FilePath]],
    repo: Optional[FilePath] = None,
    *,
    environments: Union[None, str, Sequence[str]] = None,
    label: Optional[str] = None,
    template: Optional[str] = None,
    applications: Sequence[str] = (),
) -> History:
    """Return a history as Argo CD and, with `repo`, a clone of the config repository know it.

    A deployment is a change of what runs. A rollback is in the rollbacks table and not among the
    deployments. A release that was applied and turned out bad is `Synced` and `Degraded`. The key
    of a label or annotation, `label`, and the `template` of the repository's paths tell the
    environments; `environments` names them (see `Stages`). `applications` are the names to measure,
    perhaps with a `*`. Raises GitOpsError for files that hold no deployment.
    """
    files = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    by_reason: Dict[str, List[ArgoApplication]] = collections.defaultdict(list)
    for one in read_argocd(files):
        by_reason[one.left_out].append(one)
    found = by_reason.pop("", [])
    listed = [(why, ", ".join(one.full_name for one in some)) for why, some in by_reason.items()]
    notes = [f"{why}: {one_line(names)}" for why, names in listed]
    if not any(one.rows for one in found):
        problem = ". ".join([f"no deployment in {', '.join(map(one_line, files))}", *notes])
        raise GitOpsError(f"{problem}; --argocd takes applications that were synced")
    stages = Stages.of(environments)
    name_applications(found, template, label, stages)
    chosen = choose_applications({one.title for one in found}, applications)
    found = [one for one in found if one.title in chosen]
    unknown = [one.full_name for one in found if one.environment == UNCLASSIFIED]
    if unknown:
        listed = f"{count_text(len(unknown), 'application')} ({one_line(', '.join(unknown))})"
        remedy = "--environments 'production=*-x' or --environment-label KEY says it"
        notes.append(f"Nothing tells the environment of {listed}: {remedy}")
    clone = None if repo is None else read_clone(repo, found)
    for one in found:
        follow_syncs(one, clone)
    firsts = [(one, *one.rows[0]) for one in found if one.rows]
    times = [end if lost else one.created or start for one, start, end, *_, lost in firsts]
    begin = min(times, default=found[0].seen) // DAY * DAY
    places = [judge_application(one, begin) for one in found]
    order, changes = stages.order({one.environment for one in found}), {}
    if clone is None:
        notes.append("Without --repo every new revision counts, even if it changes nothing here")
    else:
        notes.append(OWN_LEAD_TIME)
        changes = changes_of(found, clone, order[-1])
    commits = {sha: (*one, name) for (name, _, sha), (one, *_) in changes.items()}
    rows = sorted(commits.values(), key=lambda row: (row[1], row[0]))
    made = pd.DataFrame(rows, columns=[*GitCommit._fields, "application"])
    table = commits_from(made, "" if repo is None else branch_of(repo))
    told = [(*key, version, one.seconds, end) for key, (one, version, end) in changes.items()]
    return history_from("argocd", places, table, told, notes, order)


OWN_LEAD_TIME = "Lead time: from a commit at an environment's own path to the end of its sync"
WITH_CLUSTER = (
    "In the time that Argo CD covers this is what the cluster did, before that desired state: what "
    "the config repository asked for. Lead time ends when the repository asks for a change"
)


def join_histories(repository: History, cluster: History) -> History:
    """Return the history of a config repository in which Argo CD says what the cluster did.

    In the time that Argo CD covers, the deployments and rollbacks of an application in an
    environment are its own. Before it they are the repository's. So are those of places that Argo
    CD does not know, and all changes, with their lead times. A place has one row of coverage.
    """
    assert repository.coverage is not None and cluster.coverage is not None
    keys, plain = ["application", "environment"], {"application": object, "environment": object}
    known = cluster.coverage.astype(plain)[[*keys, "from", "to"]]
    joined: Dict[str, Any] = {}
    for name in ("deployments", "rollbacks"):
        tables = [getattr(one, name).astype(plain) for one in (repository, cluster)]
        for number, table in enumerate(tables):
            span = table.merge(known, "left", keys)
            inside = span["timestamp"].between(span["from"], span["to"])
            tables[number] = table[(inside == bool(number)).to_numpy()]
        both = pd.concat(tables, ignore_index=True)
        joined[name] = as_table(name, both.sort_values("timestamp", kind="stable"))
    coverage = pd.concat([repository.coverage.astype(plain), cluster.coverage.astype(plain)])
    rules = {"origin": ", ".join, "rule": "first", "from": "first", "to": "max", "lost": "first"}
    coverage = coverage.sort_values("from", kind="stable").groupby(keys, as_index=False).agg(rules)
    commits = pd.concat([repository.git_commits, cluster.git_commits]).drop_duplicates("sha")
    windows, production = (repository.window, cluster.window), repository.production
    order = dict.fromkeys([*repository.environments, *cluster.environments])
    others = [note for note in cluster.notes if note != OWN_LEAD_TIME]
    return repository._replace(
        git_commits=as_table("git_commits", commits.sort_values("timestamp", kind="stable")),
        coverage=as_table("coverage", coverage),
        window=Window(min(one.start for one in windows), max(one.end for one in windows)),
        environments=(*(name for name in order if name != production), production),
        source="argocd",
        notes=(*repository.notes, *others, WITH_CLUSTER),
        **joined,
    )


# ---- Real history: tables and incidents from files ----------------------------------------------

TABLE_FILES = {name: f"{name}.csv" for name in ALL_COLUMNS}  # of an export
TABLE_FILES["git_commits"] = "commits.csv"
CAN_BE_EMPTY = (  # or missing; the other columns need a value in every row
    *("author", "type", "branch", "message", "files_changed", "health", "duration_sec", "version"),
    *("failure_reason", "recovered", "to_commit", "reason", "origin", "rule", "lost"),
    *("deployed", "resolved"),
)
WORDS = {"status": (SYNCED, FAILED), "health": (HEALTHY, DEGRADED, UNKNOWN)}
FLAGS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
LARGEST = 10_000_000  # of a number; as minutes it is 19 years
# A time as ISO 8601, Postgres, BigQuery and Snowflake print it. Excel's is made one of these.
US_DATE = re.compile(r"^(\d\d?)/(\d\d?)/(\d{4}) ", re.ASCII)
TIME_TEXT = re.compile(
    r"^(?P<year>19[7-9]\d|2[01]\d\d)-(?P<month>\d\d?)-(?P<day>\d\d?)[T ]"
    r"(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:\.\d+)?)?"
    r"(?: ?(?:Z|UTC|(?P<zone>[+-])(?P<hours>\d\d):?(?P<minutes>[0-5]\d)?))?\Z",
    re.ASCII,
)


def load_tables(
    folder: FilePath,
    environments: Union[None, str, Sequence[str]] = None,
    *,
    applications: Sequence[str] = (),
) -> History:
    """Return a history from a folder of CSV files, such as `--export` writes.

    `deployments.csv` is enough. `environments` are their names in promotion order, such as
    `staging,production=prod-*`; `applications` are those to measure, with `*` if you like.

    1. `metrics.json` tells the window and the environments. Without it the window is the days of
       the deployments and of the coverage, and the environments are in the usual order.
    2. Without a `recovered` in any row, the next good deployment to the same environment ends a
       failure. That of another region does not.
    3. Without `changes.csv`, the commits of `commits.csv` are the changes.
    4. A simulation that is read back stays SIMULATED, and is measured as a real history is.

    Raises GitOpsError that names file, row, column and value.
    """
    files = {name: Path(folder) / file for name, file in TABLE_FILES.items()}
    if not os.path.exists(files["deployments"]):
        raise GitOpsError(f"no deployments.csv in {one_line(folder)}; --history needs it")
    there = [name for name, path in files.items() if os.path.exists(path)]
    tables = {name: read_table(files[name], name) for name in there}
    beside, document = Path(folder) / "metrics.json", {}
    if os.path.exists(beside):
        try:
            document = json.loads(read_text(beside, "--export writes it"))
        except (ValueError, RecursionError) as error:
            raise GitOpsError(f"{one_line(beside)} is not JSON: {one_line(error, 80)}") from None

    # An environment is a stage. `cluster` is the name that it has in the file.
    named = pd.concat([table["environment"] for table in tables.values() if "environment" in table])
    stages, named = Stages.of(environments), named.unique()
    stages.check([(name,) for name in named])
    listed = at_path(document, "environments", kind=list) if environments is None else []
    listed = [*dict.fromkeys(map(one_line, listed))]
    stage = {name: name if name in listed else stages.stage_of(name) for name in named}
    found = {*stage.values()} - {""}
    order = listed if found <= {*listed} else stages.order(sorted(found))
    kept = choose_applications(tables["deployments"]["application"].unique(), applications)
    for name, table in tables.items():
        tables[name] = table = table[table["application"].isin(kept)]
        if "environment" in table:
            own = table["environment"]
            table = table.assign(cluster=own, environment=own.map(stage))
            tables[name] = table[table["environment"] != ""]
    rows = tables["deployments"].drop_duplicates()
    if not len(rows):
        raise GitOpsError(f"no deployment in {one_line(files['deployments'])}; --history needs one")

    end, bad = rows["timestamp"] + rows["duration_sec"], rows["health"] == DEGRADED
    over = rows["recovered"]
    if (over == MISSING).all():
        good = end.where(~bad).groupby([rows["application"], rows["cluster"]]).bfill()
        over = np.maximum(good, end).fillna(MISSING).astype(np.int64)
    rows = rows.assign(
        failure_reason=rows["failure_reason"].where(bad),
        recovered=over.where(bad, MISSING),
        release=rows["commit_sha"],
        row=rows.index,
    )
    if "rollbacks" in tables:
        back = tables["rollbacks"]
        tables["rollbacks"] = merge_clusters(back.assign(release=back["from_commit"]))
    tables["deployments"] = merge_clusters(rows)
    if "changes" not in tables and len(tables.get("git_commits", ())):
        tables["changes"] = find_changes(tables["git_commits"], tables["deployments"], order)

    # A row is once in its table, and all tables are of one window.
    unique = {"git_commits": ["sha"], "coverage": ["application", "environment"]}
    made = {name: table_from(name, []) for name in COLUMNS}
    for name, table in tables.items():
        table = table.drop_duplicates(unique.get(name))
        columns = {column: table[column].to_numpy() for column in ALL_COLUMNS[name]}
        made[name] = as_table(name, columns)
    window = window_around(made["deployments"]["timestamp"])
    edges = [at_path(document, "window", edge, kind=str) for edge in ("start", "end")]
    edges = read_times(pd.Series(edges, dtype=object)).to_numpy() // DAY * DAY
    if 0 <= edges[0] < edges[1]:
        start, end = utc_times(edges)
        window = Window(min(window.start, start), max(window.end, end))
    elif "coverage" in made:
        known = made["coverage"]
        window = window_around(made["deployments"]["timestamp"], known["from"], known["to"])
    source = one_line(at_path(document, "source", kind=str) or "files")
    source = SIMULATED_TABLES if source == "simulated" else source
    notes = tuple(map(one_line, at_path(document, "notes", kind=list)))
    history = History(window=window, environments=tuple(order), source=source, notes=notes, **made)
    return history.within(window)


def find_changes(commits: pd.DataFrame, rows: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Return the changes that commits are: a deployment contains its commit and all before it."""
    keys = ["application", "commit_sha"]
    commits = commits.rename(columns={"sha": "commit_sha", "timestamp": "committed"})
    commits = commits[commits["application"].isin(rows["application"])].drop_duplicates(keys)
    commits = commits.sort_values(["application", "committed"], kind="stable")
    rows = rows.assign(end=rows["timestamp"] + rows["duration_sec"])
    early = rows.merge(commits[[*keys, "committed"]], on=keys).query("committed > end")
    if len(early):
        row = f"deployments.csv: row {early['row'].iloc[0]}"
        raise GitOpsError(f"{row} was deployed before its commit; are both in one time zone?")
    parts = []
    for environment in order:
        good = rows[(rows["environment"] == environment) & (rows["status"] == SYNCED)]
        own = good.groupby(keys)["end"].min().reindex(pd.MultiIndex.from_frame(commits[keys]))
        own = own.fillna(NEVER)[::-1].groupby(level=0).cummin()[::-1].to_numpy(np.int64)
        deployed = np.where(own < NEVER, own, MISSING)
        part = commits.assign(environment=environment, deployed=deployed, version="")
        parts.append(part[(own < NEVER) | (environment == order[-1])])
    return pd.concat(parts)


def read_table(file: FilePath, name: str, optional: Sequence[str] = ()) -> pd.DataFrame:
    """Return the columns of a table from a CSV file or a JSON list, times in seconds since 1970.

    What is empty is not known. The index is the number of the row. Raises GitOpsError that names
    file, row, column and value.
    """
    needed = [column for column in ALL_COLUMNS[name] if column not in {*CAN_BE_EMPTY, *optional}]
    takes = f"it takes the columns {', '.join(needed)}"
    text = read_text(file, takes)
    try:
        if text.lstrip().startswith("["):
            entries = json.loads(text)
            if not all(isinstance(entry, dict) for entry in entries):
                raise ValueError("it is no list of objects")
            texts = pd.DataFrame(entries, columns=None if entries else needed, dtype=object)
        else:
            plain = dict(keep_default_na=False, skip_blank_lines=False, skipinitialspace=True)
            texts = pd.read_csv(io.StringIO(text), dtype=str, **plain)
            if len(texts) and not isinstance(texts.index, pd.RangeIndex):
                raise ValueError("its rows have more cells than its first line")
        texts = texts.fillna("").astype(str).astype(object)
        texts = texts.rename(columns=lambda column: str(column).strip().lower())
        texts.index = np.arange(len(texts)) + (1 if text.lstrip().startswith("[") else 2)
        texts = texts.loc[(texts != "").any(axis=1), ~texts.columns.duplicated()]
        lost = [column for column in needed if column not in texts]
        if lost:
            has = in_quotes(", ".join(texts.columns))
            raise ValueError(f"no column {lost[0]!r} in {has}; {takes}, separated by commas")
        texts = texts.reindex(columns=list(ALL_COLUMNS[name]), fill_value="")
        table = pd.DataFrame(index=texts.index)
        wrong = []
        for column, kind in ALL_COLUMNS[name].items():
            codes, cells = pd.factorize(texts[column])
            values, good, rule = read_cells(pd.Series(cells, name=column, dtype=object), kind)
            table[column] = values.to_numpy()[codes]
            good |= (cells == "") & (column not in needed)
            wrong.append((column, ~good.to_numpy()[codes], rule))
        if name == "deployments":
            failed, end = table["status"] == FAILED, table["timestamp"] + table["duration_sec"]
            wrong.append(("health", failed & (table["health"] == HEALTHY), "be Degraded if Failed"))
            early = table["recovered"].between(0, end - 1)
            wrong.append(("recovered", early, "not be before its end"))
            table["health"] = table["health"].mask(failed, DEGRADED)
        for first, second in (("committed", "deployed"), ("from", "to"), ("started", "resolved")):
            if first in table:
                early = table[second].between(0, table[first] - 1)
                wrong.append((second, early, f"not be before {first}"))
        for column, bad, rule in wrong:
            if bad.any():
                at = int(np.argmax(bad))
                row, value = texts.index[at], in_quotes(texts[column].iloc[at])
                raise ValueError(f"row {row}: {column} must {rule}, not {value}")
    except (ValueError, RecursionError) as error:
        raise GitOpsError(f"{one_line(file)}: {one_line(error)}") from None
    time = [column for column in ("timestamp", "started") if column in table]
    return table.sort_values(time, kind="stable") if time else table


def read_cells(cells: pd.Series, kind: str) -> Tuple[pd.Series, pd.Series, str]:
    """Return texts as values of a kind, which of them are good, and what a good one has to be."""
    if kind == "time":
        values = read_times(cells)
        return values, values != MISSING, "be a time such as 2026-01-31T12:00:00Z"
    if kind == "flag":
        values = cells.str.lower().map(FLAGS)
        return values, values.notna(), "be True or False"
    if kind in ("count", "number"):
        good = pd.to_numeric(cells, errors="coerce").between(0, LARGEST)
        values = cells.where(good, "nan").map(float)  # to_numeric may miss the last digit
        values = values.fillna(0).round().astype(np.int64) if kind == "count" else values
        return values, good, f"be a number from 0 to {LARGEST}"
    empty = "" if kind == "text" else UNKNOWN
    values = cells.map(lambda text: one_line(text, NAME_WIDTH) if text else empty)
    one_of = WORDS.get(str(cells.name))
    rule = "be a name" if one_of is None else f"be one of {', '.join(one_of)}"
    return values, cells != "" if one_of is None else cells.isin(one_of), rule


def read_times(cells: pd.Series) -> pd.Series:
    """Return texts as seconds since 1970, in UTC if they name no zone; MISSING for other texts."""
    parts = cells.str.replace(US_DATE, r"\3-\1-\2 ", regex=True).str.extract(TIME_TEXT)
    day = pd.to_datetime(parts[["year", "month", "day"]].astype(float), errors="coerce")
    part = parts.drop(columns="zone").fillna("0").astype(np.int64)
    ahead = part["hours"] * 3600 + part["minutes"] * 60
    ahead = ahead.mask(parts["zone"] == "-", -ahead)
    clock = part["hour"] * 3600 + part["minute"] * 60 + part["second"]
    seconds = seconds_of(day) + clock - ahead
    return seconds.where(seconds.between(0, LAST_SECOND), MISSING)


def read_incidents(file: FilePath) -> pd.DataFrame:
    """Return incidents from a CSV file or a JSON list, in order of time; a row is an incident.

    The columns are `application`, `environment` (UNKNOWN: production), and in seconds since 1970
    `started` and `resolved` (MISSING while it lasts). Raises GitOpsError as `read_table` does.
    """
    return read_table(file, "incidents", ("environment",)).drop(columns="deployed")


def with_incidents(
    history: History, incidents: pd.DataFrame, days: int = 7, complete: bool = False
) -> History:
    """Return a history in which incidents say which deployments failed, and until when.

    1. An incident belongs to the newest deployment of its application, in its environment or
       production, that ended before it, within so many days. The notes list the others.
    2. That deployment failed. It recovered when the last of its incidents was resolved.
    3. A deployment of unknown health without one was healthy, where the incidents would tell: in
       their environments and production, of the applications that they name, from their first day
       to their last. With `complete` they tell of all applications and days.
    4. Incidents of which none belongs to a deployment tell nothing.

    Raises GitOpsError for an application that the history does not have.
    """
    days, rows = check_whole("days", days, 1, MOST_DAYS), history.deployments
    names = application_names(history)
    for row, name in incidents["application"].items():
        if name not in names:
            near = ", ".join(difflib.get_close_matches(name, names, 1, 0))
            what = f"incidents, row {row}: no application {in_quotes(name)} was deployed"
            raise GitOpsError(f"{what}; the nearest is {near}")
    stages, places = Stages.of(None), ["application", "environment"]
    stage = {name: stages.stage_of(name) for name in incidents["environment"].unique()}
    stage.update({name: name for name in history.environments}, **{UNKNOWN: history.production})
    incidents = incidents.assign(environment=incidents["environment"].map(stage))
    ends = seconds_of(rows["timestamp"]) + rows["duration_sec"].to_numpy()
    deployed = rows[places].astype(object).assign(deployed=ends, at=np.arange(len(rows)))
    incidents = pd.merge_asof(
        incidents.astype(dict.fromkeys(places, object)),
        deployed.sort_values("deployed", kind="stable"),
        left_on="started", right_on="deployed", by=places, tolerance=days * DAY,
    )  # fmt: skip
    lost, found = incidents[incidents["at"].isna()], incidents.dropna(subset=["at"])
    if len(lost):
        started = utc_times(lost["started"].to_numpy()).strftime("%Y-%m-%d %H:%M")
        listed = ", ".join(lost["application"] + " " + started)
        before = f"the {days} days before {count_text(len(lost), 'incident')}"
        note = one_line(f"No deployment in {before}: {listed}")
        history = history._replace(notes=(*history.notes, note))
    if not len(found):
        return history
    found = found.astype({"at": np.int64, "deployed": np.int64})
    told = rows["environment"].isin([history.production, *found["environment"]])
    if not complete:
        first = incidents["started"].min() // DAY * DAY
        last = incidents[["started", "resolved"]].max().max()
        told &= rows["application"].isin(incidents["application"])
        told &= (ends >= first) & (ends // DAY <= last // DAY)
    health = rows["health"].astype(object).mask(told & has_word(rows["health"], UNKNOWN), HEALTHY)
    over = found["resolved"].replace(MISSING, NEVER).groupby(found["at"]).max()
    at, reason = over.index, rows["failure_reason"].astype(object)
    reason[at] = reason[at].where(health[at] == DEGRADED, "Incident")
    health[at], recovered = DEGRADED, rows["recovered"].copy()
    recovered[at] = as_times(over.replace(NEVER, MISSING).to_numpy())
    judged = dict(health=health, failure_reason=reason, recovered=recovered)
    columns = {column: found[column].to_numpy() for column in ALL_COLUMNS["incidents"]}
    return history._replace(
        deployments=as_table("deployments", rows.assign(**judged)),
        incidents=as_table("incidents", columns),
    )


# ---- DORA calculator: history -> metrics --------------------------------------------------------


class Target(NamedTuple):
    """What counts as elite: a value on the better side of the limit."""

    better: str  # ">" or "<"
    limit: float
    unit: str

    def __str__(self) -> str:
        return f"{self.better}{self.limit:g}{self.unit}"

    @property
    def words(self) -> str:
        """The target with spaces, such as `< 24 h`."""
        return f"{self.better} {with_unit(f'{self.limit:g}', self.unit)}"


class Metric(NamedTuple):
    """What a key of `metrics` means."""

    label: str
    unit: str
    definition: str
    elite: Optional[Target] = None
    digits: int = 2

    def text(self, value: float) -> str:
        """Return a value of the metric with its unit; `n/a` if it is undefined."""
        return show_number(value, self.unit, self.digits)

    @property
    def short_unit(self) -> str:
        """The unit as tables have it: h, min, %, /day."""
        return {"hours": "h", "minutes": "min"}.get(self.unit.strip(), self.unit)


# fmt: off
METRICS: Dict[str, Metric] = {
    "deployment_frequency": Metric(
        "Deployment Frequency", "/day",
        "Deployments to all environments, failed ones included, over the days of the window.",
        Target(">", 1, "/day")),
    "mean_lead_time": Metric(
        "Lead Time", " hours",
        "Mean time from a commit to the start of the production sync that applied it, over the "
        "Synced production deployments. A commit with a later time than its sync is left out. Of "
        "real deployments: the mean of change_lead_time_hours, over every change.",
        Target("<", 24, "h")),
    "mttr_minutes": Metric(
        "MTTR", " minutes", "Mean duration of the rollbacks that succeeded, in all environments.",
        Target("<", 60, "min")),
    "change_failure_rate": Metric(
        "Change Failure Rate", "%",
        "Degraded deployments over all deployments, in environments where health was seen.",
        Target("<", 15, "%")),
    "median_lead_time": Metric(
        "Median Lead Time", " hours", "The median where mean_lead_time takes the mean."),
    "lead_time_hours_by_environment": Metric(
        "Where the Lead Time Goes", " hours",
        "For each environment the mean time from the sync of the stage before (in the first: from "
        "the commit) to its own. The parts add up to mean_lead_time. Of simulations alone."),
    "success_rates": Metric(
        "Success Rates", "%", "For each environment its Healthy deployments over all of them."),
    "overall_success_rate": Metric(
        "Overall Success Rate", "%", "What is left of 100 % without the change_failure_rate."),
    "production_deployment_frequency": Metric(
        "Production Alone", "/day",
        "Deployments to production, failed ones included, over the days of the window."),
    "dated_deployments": Metric(
        "Deployments with a Lead Time", "",
        "Production deployments, or changes of real deployments, that mean_lead_time is made of."),
    "total_deployments": Metric("Total Deployments", "", "Rows of the deployments table."),
    "failed_deployments": Metric("Failed Deployments", "", "Deployments whose health is Degraded."),
    "unseen_deployments": Metric(
        "Deployments Not Looked At", "",
        "Deployments whose health nobody saw. Some of them may have failed."),
    "total_rollbacks": Metric("Total Rollbacks", "", "Rows of the rollbacks table."),
    "successful_rollbacks": Metric("Successful Rollbacks", "", "Rollbacks that succeeded."),
    "failed_rollbacks": Metric("Failed Rollbacks", "", "Rollbacks that did not succeed."),
    "rollback_success_rate": Metric(
        "Rollback Success Rate", "%", "Rollbacks that succeeded over all rollbacks.", digits=1),
    "fastest_rollback_minutes": Metric(
        "Fastest Rollback", " minutes", "Shortest rollback that succeeded.", digits=1),
    "slowest_rollback_minutes": Metric(
        "Slowest Rollback", " minutes", "Longest rollback that succeeded.", digits=1),
    "failures_without_rollback": Metric(
        "Failures Not Rolled Back", "",
        "Failed deployments without a rollback. In a simulation no earlier release was good."),
    "failure_reasons": Metric(
        "Main Failure Reasons", "", "Failed deployments for each reason, most frequent first."),
    "failure_reasons_by_environment": Metric(
        "Failure Reasons by Environment", "", "The failure_reasons of each environment."),
    "deployments_by_environment": Metric(
        "Deployment Distribution", "", "Deployments to each environment."),
    "healthy_by_environment": Metric(
        "Healthy Deployments", "", "Healthy deployments to each environment."),
    "rollbacks_by_environment": Metric(
        "Rollbacks by Environment", "", "Rollbacks in each environment."),
    "deployments_by_status": Metric(
        "Deployment Status", "", "Deployments that ended in each status."),
    "deployments_by_application": Metric(
        "Deployments by Application", "", "Deployments of each application, most frequent first."),
    "total_commits": Metric("Total Commits", "", "Rows of the git_commits table."),
    "contributors": Metric("Contributors", "", "Different authors of the commits."),
    "applications": Metric("Applications", "", "Different applications of the commits."),
    "commit_types": Metric(
        "Commit Type Breakdown", "", "Commits of each type, most frequent first."),
}
"""Every key of the metrics dict. The four with an elite target are the benchmarks of the report,
the scorecard, the maturity level and the advice."""

BENCHMARKS: Dict[str, Target] = {
    key: metric.elite for key, metric in METRICS.items() if metric.elite
}

PRODUCTION_METRICS: Dict[str, Metric] = {  # as dora.dev defines them today
    "change_lead_time_hours": Metric(
        "Change lead time", "h",
        "Median, over every change, of the time from its commit to the end of the first Synced "
        "production deployment that contains it. Changes that shipped with a newer release are "
        "included, and so are those in a release that turned out bad later."),
    "deployment_frequency_per_day": Metric(
        "Deployment frequency", "/day",
        "Deployments to production, failed ones included, over the days of the window. A lower "
        "bound where the history of an application does not cover all of it."),
    "failed_deployment_recovery_minutes": Metric(
        "Failed deployment recovery time", "min",
        "Median, over the failed production deployments, of the time from their end to the end of "
        "the rollback that succeeded. Where it failed or there was none, to the end of the next "
        "good deployment of the application. Where it was seen good again before, to that time. "
        "Where there was an incident, from its start to when it was resolved."),
    "change_fail_rate_pct": Metric(
        "Change fail rate", "%",
        "Degraded production deployments over all production deployments. A lower bound where "
        "nobody looked at some of them; its interval then ends as if all of these had failed."),
    "deployment_rework_rate_pct": Metric(
        "Deployment rework rate", "%",
        "Rollbacks in production, and deployments that ended a failure which no rollback had "
        "ended, over all production deployments and rollbacks. A lower bound as the fail rate is."),
}
# fmt: on

ALL_APPLICATIONS = "(all)"
Z_95 = 1.959963984540054  # the normal quantile of a 95 % interval


class Level(NamedTuple):
    """A maturity level: met by `score` of the four benchmarks (or, for the lowest, fewer)."""

    score: int
    icon: str
    name: str
    tier: str  # the share of teams that is commonly said to reach it: indicative
    medal: str  # the colour of the drawn medal


INDICATIVE = "of DevOps teams globally (indicative, not measured)"
UNPUBLISHED = "(no share of teams is published for it)"
LEVELS = (
    Level(4, "🏆", "ELITE PERFORMER", f"Top 7% {INDICATIVE}", "#e0a82e"),
    Level(3, "🥈", "HIGH PERFORMER", f"Top 25% {INDICATIVE}", "#a3adb8"),
    Level(2, "🥉", "MEDIUM PERFORMER", f"Medium {UNPUBLISHED}", "#b87745"),
    Level(0, "📈", "NEEDS IMPROVEMENT", f"Developing {UNPUBLISHED}", "#5b7fa6"),
)


NOT_ASSESSABLE = "NOT ASSESSABLE"  # in the place of a level


def is_elite(key: str, metrics: Mapping[str, Any]) -> Any:
    """Return whether a benchmark is surely met, of one run or of each run of many.

    1. An undefined value does not meet it, with one exception: where no deployment failed there was
       nothing to recover from, and the recovery time counts as met.
    2. Deployments that nobody looked at count as failed.
    """
    value, target = np.asarray(metrics[key]), BENCHMARKS[key]
    unseen = metrics.get("unseen_deployments", 0)
    if key == "change_failure_rate" and unseen:
        counts, rates = metrics["deployments_by_environment"], metrics["success_rates"]
        value = value + 100 * unseen / sum(counts[name] for name in rates if rates[name] >= 0)
    met = value > target.limit if target.better == ">" else value < target.limit
    if key == "mttr_minutes" and not unseen:
        met = met | (np.isnan(value) & (np.asarray(metrics["change_failure_rate"]) == 0))
    return met[()]


def is_judged(key: str, metrics: Mapping[str, Any]) -> Any:
    """Return whether a benchmark is surely met or surely missed, of one run or of each of many.

    An undefined value is neither, nor is a lower bound that lies below its limit.
    """
    value = np.asarray(metrics[key])
    is_bound = key == "change_failure_rate" and metrics.get("unseen_deployments", 0) > 0
    missed = ~np.isnan(value) & ~(is_bound & (value < BENCHMARKS[key].limit))
    return (is_elite(key, metrics) | missed)[()]


def why_not_judged(key: str, values: Mapping[str, Any]) -> str:
    """Return why a benchmark of one run cannot be judged."""
    unseen, rate = values["unseen_deployments"], values["change_failure_rate"]
    if not values["total_deployments"]:
        return "no deployment"
    if key == "deployment_frequency":
        return "less than a day is covered"
    if key == "mean_lead_time":
        reached = values["production_deployment_frequency"] > 0
        return "no lead time is known" if reached else "nothing reached production"
    if math.isnan(rate):
        return "failures not observable"
    if key == "change_failure_rate" or not values["failed_deployments"]:
        return f"{count_text(unseen, 'deployment')} not looked at"
    return "no rollback succeeded"


def check_benchmarks(metrics: Mapping[str, Any]) -> None:
    """Raise GitOpsError if one of the four benchmarks is not among the metrics."""
    missing = [key for key in BENCHMARKS if key not in metrics]
    if missing:
        needed = ", ".join(BENCHMARKS)
        raise GitOpsError(f"the metrics have no {missing[0]!r}; calculate_maturity needs {needed}")


def maturity_score(metrics: Mapping[str, Any]) -> Any:
    """Return how many benchmarks are met, in each run; GitOpsError if a metric is missing."""
    check_benchmarks(metrics)
    return sum(is_elite(key, metrics).astype(int) for key in BENCHMARKS)


def is_assessable(metrics: Mapping[str, Any]) -> Any:
    """Return whether all four benchmarks can be judged, in each run; if not, it has no level."""
    return functools.reduce(np.logical_and, (is_judged(key, metrics) for key in BENCHMARKS))


def level_of(score: int) -> Level:
    """Return the maturity level of a score."""
    return next(level for level in LEVELS if score >= level.score)


def calculate_maturity(metrics: Mapping[str, Any]) -> str:
    """Return the maturity level of a metrics dict, with its icon.

    Without a value of each of the four there is no level. Raises GitOpsError if a key is missing.

    >>> calculate_maturity({"deployment_frequency": 13.7, "mean_lead_time": 32.4,
    ...                     "mttr_minutes": 12.3, "change_failure_rate": 6.1})
    '🥈 HIGH PERFORMER'
    """
    check_benchmarks(metrics)
    if not is_assessable(metrics):
        return f"⚪ {NOT_ASSESSABLE}"
    level = level_of(maturity_score(metrics))
    return f"{level.icon} {level.name}"


class Events(NamedTuple):
    """A history, or many simulated ones, as arrays: what all metrics are calculated from.

    The metrics are measured apart for each group: a simulated month, an application, or everything.
    """

    commits: Commits
    deployments: Deployments
    rollbacks: Rollbacks
    window: Window
    groups: int
    environments: int

    def of_group(self, table: Any, chosen: Any = slice(None), weights: Any = None) -> np.ndarray:
        """Return how many chosen entries each group has in a table, or the sum of their weights."""
        return np.bincount(table.group[chosen], weights, minlength=self.groups)

    def by_application(self, applications: int) -> Events:
        """Return the same events with a group for each application."""
        return self._replace(
            commits=self.commits._replace(group=self.commits.application),
            deployments=self.deployments._replace(group=self.deployments.application),
            rollbacks=self.rollbacks._replace(group=self.rollbacks.application),
            groups=applications,
        )

    def since(self, window: Window) -> Events:
        """Return the events from the start of a shorter window on, and all commits."""
        if window == self.window:
            return self
        kept, back = (
            np.flatnonzero(table.time >= window.seconds[0])
            for table in (self.deployments, self.rollbacks)
        )
        return self.chosen(kept, back)._replace(window=window)

    def chosen(self, kept: np.ndarray, back: np.ndarray) -> Events:
        """Return the events with only some rows of the deployments and of the rollbacks."""
        deployments = Deployments(*(column[kept] for column in self.deployments))
        rollbacks = Rollbacks(*(column[back] for column in self.rollbacks))
        new_row = np.full(len(self.deployments.time) + 1, -1)  # the last one is that of row -1
        new_row[kept] = np.arange(len(kept))
        rollbacks = rollbacks._replace(deployment=new_row[rollbacks.deployment])
        return self._replace(deployments=deployments, rollbacks=rollbacks)

    def in_production(self) -> Events:
        """Return the events of the last environment alone."""
        tables, last = (self.deployments, self.rollbacks), self.environments - 1
        return self.chosen(*(np.flatnonzero(table.environment == last) for table in tables))


def events_of(history: History, applications: Sequence[str]) -> Events:
    """Return a history as arrays, in one group."""
    shas, names = history.git_commits["sha"], history.environments
    commits = commits_of(history.git_commits, applications)
    deployments = deployments_from(history.deployments, applications, names, shas)
    rollbacks = rollbacks_from(history, deployments, applications)
    return Events(commits, deployments, rollbacks, history.window, 1, len(names))


def commits_of(table: pd.DataFrame, applications: Sequence[str]) -> Commits:
    """Return a `git_commits` table as arrays; applications are positions in the list."""
    codes = codes_of(table["application"], applications)
    return Commits(np.zeros(len(table), np.int64), seconds_of(table["timestamp"]), codes)


def deployments_from(
    table: pd.DataFrame,
    applications: Sequence[str],
    environments: Sequence[str],
    shas: Union[pd.Series, pd.Index],
) -> Deployments:
    """Return a `deployments` table as arrays; names are positions in the lists."""
    time, nothing = seconds_of(table["timestamp"]), np.zeros(len(table), np.int64)
    return Deployments(
        nothing,
        time,
        time + table["duration_sec"].to_numpy(),
        codes_of(table["application"], applications),
        codes_of(table["environment"], environments),
        codes_of(table["commit_sha"], shas),
        has_word(table["status"], SYNCED),
        has_word(table["health"], DEGRADED),
        nothing,
    )


def rollbacks_from(
    history: History, deployments: Deployments, applications: Sequence[str]
) -> Rollbacks:
    """Return a `rollbacks` table as arrays, each with the failed deployment that it took back.

    That is the one of its application, environment and commit that ended when it was detected.
    """
    table, shas = history.rollbacks, history.deployments["commit_sha"].cat
    time = seconds_of(table["timestamp"])
    application = codes_of(table["application"], applications)
    environment = codes_of(table["environment"], history.environments)
    commit = shas.categories.get_indexer(table["from_commit"])
    failed = np.flatnonzero(deployments.bad)
    ended = deployments.application, deployments.environment, shas.codes, deployments.end
    keys = ["application", "environment", "commit", "time"]
    known = pd.DataFrame({key: np.asarray(values)[failed] for key, values in zip(keys, ended)})
    known = known.assign(deployment=failed).drop_duplicates(keys)
    own = pd.DataFrame(dict(zip(keys, (application, environment, commit, time))))
    matched = own.merge(known, how="left", on=keys)["deployment"]
    return Rollbacks(
        np.zeros(len(table), np.int64),
        time,
        time + np.rint(table["duration_min"].to_numpy() * 60).astype(np.int64),
        application,
        environment,
        matched.fillna(-1).to_numpy(np.int64),
        np.full(len(table), -1),
        table["success"].to_numpy(bool),
    )


def headline_metrics(events: Events, observable: np.ndarray) -> Dict[str, np.ndarray]:
    """Calculate the headline metrics of each group: {key of METRICS: an array over the groups}.

    `observable` says of each environment whether its failures can be seen.
    """
    commits, deployments, rollbacks = events[:3]
    days, last = events.window.days, events.environments - 1
    total = events.of_group(deployments)
    in_production = events.of_group(deployments, deployments.environment == last)
    seen = events.of_group(deployments, observable[deployments.environment])
    failed = events.of_group(deployments, deployments.bad)
    released = released_commits(events)
    lead = deployments.time[released] - commits.time[deployments.commit[released]]
    hours = events.of_group(deployments, released, lead) / 3600
    dated = events.of_group(deployments, released)
    attempted, worked = events.of_group(rollbacks), rollbacks.success
    restored = events.of_group(rollbacks, worked)
    minutes = events.of_group(rollbacks, worked, (rollbacks.end - rollbacks.time)[worked]) / 60
    median = group_medians(deployments.group[released], lead, events.groups) / 3600
    return {
        "deployment_frequency": total / days,
        "mean_lead_time": safe_ratio(hours, dated),
        "mttr_minutes": safe_ratio(minutes, restored),
        "change_failure_rate": safe_ratio(100 * failed, seen),
        "median_lead_time": median,
        "overall_success_rate": safe_ratio(100 * (seen - failed), seen),
        "production_deployment_frequency": in_production / days,
        "dated_deployments": dated,
        "total_deployments": total,
        "failed_deployments": failed,
        "total_rollbacks": attempted,
        "successful_rollbacks": restored,
        "failed_rollbacks": attempted - restored,
        "rollback_success_rate": safe_ratio(100 * restored, attempted),
        "failures_without_rollback": np.maximum(failed - attempted, 0),
    }


def safe_ratio(part: Any, whole: Any) -> Any:
    """Divide; NaN where the whole is not above zero."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def released_commits(events: Events) -> np.ndarray:
    """Return the rows of the Synced production deployments that have a commit from before them."""
    commits, deployments = events[:2]
    known = deployments.synced & (deployments.commit >= 0)
    rows = np.flatnonzero(known & (deployments.environment == events.environments - 1))
    return rows[commits.time[deployments.commit[rows]] <= deployments.time[rows]]


def lead_time_parts(events: Events) -> np.ndarray:
    """Return the mean hours into each environment, from the one before, of released commits."""
    commits, deployments = events[:2]
    released = released_commits(events)
    commit = deployments.commit[released]
    marks = [commits.time[commit]]
    for number in range(events.environments - 1):
        rows = np.flatnonzero((deployments.environment == number) & (deployments.commit >= 0))[::-1]
        first = np.full(len(commits.time), -1)
        first[deployments.commit[rows]] = deployments.time[rows]  # reversed: the first one stays
        marks.append(np.where(first[commit] < 0, marks[-1], first[commit]))
    steps = np.diff(np.stack([*marks, deployments.time[released]]), axis=0)
    count = np.full(len(steps), len(released))
    return safe_ratio(steps.sum(axis=1) / 3600, count)


class Changes(NamedTuple):
    """Changes as arrays. An entry is a change that came to production, or waits for it."""

    group: np.ndarray
    committed: np.ndarray
    shipped: np.ndarray  # end of the first Synced deployment that contains it, or NEVER


def shipped_changes(events: Events) -> Changes:
    """Return when each commit shipped: with its own deployment or that of a newer commit.

    The events are those of production.
    """
    commits, deployments = events[:2]
    rows = np.flatnonzero(deployments.synced & (deployments.commit >= 0))
    shipped = np.full(len(commits.time), NEVER)
    np.minimum.at(shipped, deployments.commit[rows], deployments.end[rows])
    newest_first = pd.Series(shipped[::-1]).groupby(commits.lineage[::-1])
    return Changes(commits.group, commits.time, newest_first.cummin().to_numpy(np.int64)[::-1])


class Recoveries(NamedTuple):
    """How the failed deployments to production ended: arrays with an entry for each."""

    failed: np.ndarray  # its row in the deployments
    rolled_back: np.ndarray  # when a rollback had succeeded; NEVER if none did
    next_good: np.ndarray  # row of the next good deployment of its place, -1 if there is none
    since: np.ndarray  # when it was noticed
    over: np.ndarray  # when it was good again; NEVER if it is not
    fixed: np.ndarray  # whether the next good deployment put it right


def find_recoveries(
    events: Events, seen: Optional[Tuple[np.ndarray, np.ndarray]] = None
) -> Recoveries:
    """Return what ended each failure; the events are those of production.

    `seen` says of each deployment since when it was bad, and when it was seen good again or its
    incident was resolved: NEVER if it still lasts, MISSING where nobody said.
    """
    deployments, rollbacks = events.deployments, events.rollbacks
    good_rows = pd.Series(np.where(deployments.bad, np.nan, np.arange(len(deployments.bad))))
    next_good = good_rows.groupby(deployments.place).bfill().fillna(-1).to_numpy(np.int64)
    rolled_back = np.full(len(deployments.bad), NEVER)
    worked = rollbacks.success & (rollbacks.deployment >= 0)
    np.minimum.at(rolled_back, rollbacks.deployment[worked], rollbacks.end[worked])
    failed = np.flatnonzero(deployments.bad)
    rolled_back, next_good = rolled_back[failed], next_good[failed]
    put_right = np.where(next_good >= 0, deployments.end[next_good], NEVER)
    fixed = (rolled_back == NEVER) & (next_good >= 0)
    over, since = np.where(fixed, put_right, rolled_back), deployments.end[failed]
    if seen is not None:
        known = seen[1][failed] != MISSING
        over = np.where(known, seen[1][failed], over)
        since = np.where(known, seen[0][failed], since)
        fixed &= ~known | ((put_right <= over) & (over < NEVER))
    return Recoveries(failed, rolled_back, next_good, since, over, fixed)


class Measured(NamedTuple):
    """The time that production is measured over, for each group."""

    first: np.ndarray  # the number of its first day, from the window's first
    length: np.ndarray  # days
    known: np.ndarray  # a row for each group: which of its days are covered at all
    partly: np.ndarray  # whether some of its history is lost, so that counts are lower bounds
    between_looks: bool  # whether a failure can hide between two looks

    @classmethod
    def of_window(cls, history: History, known: np.ndarray, partly: np.ndarray) -> Measured:
        """Return the whole window for every group."""
        whole = np.full(len(known), history.window.days)
        hidden = hides_failures(history)
        return cls(np.zeros(len(known), int), whole, known, partly, hidden)


def production_by_group(
    events: Events, changes: Changes, ended: Recoveries, over: Measured, unseen: np.ndarray
) -> Dict[str, Dict[str, np.ndarray]]:
    """Calculate dora.dev's metrics of production for each group, from the events of production.

    Returns {key of PRODUCTION_METRICS: {column of `production_metrics`: an array over the groups}}.
    `unseen` says of each deployment whether nobody saw its health. Changes that ship within the
    same two days are not independent: they are a cluster of the lead time's interval.
    """
    deployments, rollbacks, groups = events[1], events[2], events.groups
    total = events.of_group(deployments)
    failed = events.of_group(deployments, deployments.bad)
    hidden = events.of_group(deployments, unseen)
    rolled_back = events.of_group(rollbacks)
    fixes = events.of_group(deployments, np.unique(ended.next_good[ended.fixed]))
    recovery = np.where(ended.over < NEVER, np.maximum(ended.over - ended.since, 0), NEVER)
    alone = np.arange(len(recovery))
    lead = np.where(changes.shipped < NEVER, changes.shipped - changes.committed, NEVER)
    together = changes.shipped // (2 * DAY)
    start = events.window.seconds[0] // DAY + over.first[deployments.group]
    most = over.known.shape[1]
    cells = deployments.group * most + deployments.time // DAY - start
    counts = np.bincount(cells, minlength=groups * most).reshape(groups, most)
    days = np.where(over.known.sum(axis=1) > 0, over.length, np.nan)
    low, high = frequency_interval(counts, days, over.known)
    frequency = {"value": total / days, "low": low, "high": high, "n": total}
    failures = rates_with_interval(failed, total, hidden)
    rework = rates_with_interval(rolled_back + fixes, total + rolled_back, hidden)
    missed = (hidden > 0) | over.between_looks
    of_failures = deployments.group[ended.failed]
    return {
        "change_lead_time_hours": medians_with_interval(
            changes.group, lead, together, groups, 3600
        ),
        "deployment_frequency_per_day": {**frequency, "at_least": over.partly},
        "failed_deployment_recovery_minutes": medians_with_interval(
            of_failures, recovery, alone, groups, 60
        ),
        "change_fail_rate_pct": {**failures, "at_least": missed},
        "deployment_rework_rate_pct": {**rework, "at_least": missed},
    }


def rates_with_interval(
    part: np.ndarray, whole: np.ndarray, hidden: np.ndarray
) -> Dict[str, np.ndarray]:
    """Return percentages with Wilson's score interval (E. B. Wilson, JASA 22, 1927).

    `hidden` is how many of the whole nobody looked at. They are none of the part, and the interval
    ends as if they all were. Where nobody looked at any, and none showed, there is no rate.
    """
    whole = np.where((part == 0) & (hidden > 0) & (hidden >= whole), 0, whole)
    share, most = safe_ratio(part, whole), safe_ratio(np.minimum(part + hidden, whole), whole)
    low, high = wilson(share, whole, -1), wilson(most, whole, 1)
    return {"value": 100 * share, "low": 100 * low, "high": 100 * high, "n": whole}


def wilson(share: np.ndarray, whole: np.ndarray, side: int) -> np.ndarray:
    """Return the lower (-1) or upper (1) end of Wilson's 95 % interval of a share."""
    shrink = 1 + safe_ratio(Z_95**2, whole)
    middle = (share + safe_ratio(Z_95**2, 2 * whole)) / shrink
    variance = safe_ratio(share * (1 - share), whole) + safe_ratio(Z_95, 2 * whole) ** 2
    return np.clip(middle + side * Z_95 / shrink * np.sqrt(variance), 0, 1)


def student_t(df: np.ndarray) -> np.ndarray:
    """Return the quantile of Student's t for a 95 % interval, from three degrees of freedom on.

    The first terms of the expansion in M. Abramowitz and I. Stegun, Handbook of Mathematical
    Functions, 1964, 26.7.5.
    """
    first, second = (Z_95**3 + Z_95) / 4, (5 * Z_95**5 + 16 * Z_95**3 + 3 * Z_95) / 96
    return Z_95 + first / df + second / df**2


def medians_with_interval(
    group: np.ndarray, seconds: np.ndarray, cluster: np.ndarray, groups: int, unit: int
) -> Dict[str, np.ndarray]:
    """Return median, 95 % interval, mean and 90th percentile of each group, in units of seconds.

    Entries of NEVER are open: they are counted and left out. Values of one cluster (an integer) are
    not independent. The interval is R. S. Woodruff's (JASA 47, 1952). It lies between the quantiles
    at 1/2 -+ t se, where se is the standard error of the share of values below the median. With d
    more values above the median than below it in each of k clusters and n values in all,
    se = sqrt(k / (k - 1) sum(d^2)) / 2n (C. A. Francisco and W. A. Fuller, Annals of Statistics 19,
    1991), and t has k - 1 degrees of freedom. Fewer than six values or four clusters have none.
    """
    known = (seconds < NEVER) & (group >= 0)
    waiting = np.bincount(group[(seconds == NEVER) & (group >= 0)], minlength=groups)
    group, seconds, cluster = group[known], seconds[known], cluster[known]
    n = np.bincount(group, minlength=groups)
    ordered = ordered_by_group(group, seconds, n)
    middle = at_rank(ordered, n, (n - 1) / 2)
    code, keys = pd.factorize(group.astype(np.int64) * NEVER + cluster)
    above = np.bincount(code, np.sign(seconds - middle[group]), minlength=len(keys))
    owner = keys // NEVER
    k = np.maximum(np.bincount(owner, minlength=groups), 2)
    squares = np.bincount(owner, above**2, minlength=groups) * k / (k - 1)
    half = np.where((n >= 6) & (k >= 4), student_t(k - 1) * np.sqrt(squares) / 2, np.nan)
    return {
        "value": middle / unit,
        "low": at_rank(ordered, n, np.maximum((n - 1) / 2 - half, 0)) / unit,
        "high": at_rank(ordered, n, np.minimum((n - 1) / 2 + half, n - 1)) / unit,
        "n": n,
        "mean": safe_ratio(np.bincount(group, seconds, minlength=groups) / unit, n),
        "p90": at_rank(ordered, n, (n - 1) * 0.9) / unit,
        "open": waiting,
    }


def frequency_interval(
    counts: np.ndarray, days: np.ndarray, known: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of events per day, from the counts of each group (row) and day.

    `days` is how many days each group has, `known` (a row for each) which of them are covered.

    1. Fewer than 20 events, or three weeks: they are taken as Poisson. The interval is Byar's
       approximation of the exact one (N. E. Breslow and N. E. Day, Statistical Methods in Cancer
       Research II, 1987, p. 69).
    2. Otherwise each event weighs r = variance / mean of the sums of all seven days in a row
       (P. McCullagh and J. Nelder, Generalized Linear Models, 1989, 6.2). No weekly pattern moves
       these sums, and they hold what neighbouring days share. t has 1.5 degrees of freedom for each
       week but one, as the sums overlap (M. Meketon and B. Schmeiser, WSC 1984).
    3. The first six days do not count for r until the first event: there a pipeline fills.
    4. The busiest day may lie just outside of the window, so the standard deviation is at least
       half its count.
    """
    n = counts.sum(axis=1)
    begun = (np.cumsum(counts, axis=1) > 0) | (np.arange(counts.shape[1]) >= 6)
    used = begun & known
    totals = np.cumsum(
        [np.pad(of_day, ((0, 0), (7, 0))) for of_day in (counts * used, used)], axis=2
    )
    sums, full = totals[..., 7:] - totals[..., :-7]
    whole = full == 7
    number = np.maximum(whole.sum(axis=1), 1)
    weeks = np.maximum((number + 6) / 7, 2)
    mean = np.where(whole, sums, 0).sum(axis=1) / number
    squares = np.where(whole, sums - mean[:, None], 0) ** 2
    variance = squares.sum(axis=1) / number * weeks / (weeks - 1)
    weight = np.maximum(safe_ratio(variance, mean), counts.max(axis=1) ** 2 / 4 / np.maximum(n, 1))
    poisson = (n < 20) | (weeks < 3)
    weight = np.where(poisson, 1, weight)
    t = np.where(poisson, Z_95, student_t(1.5 * (weeks - 1)))
    some, more = np.maximum(n, 1) / weight, n / weight + 1
    low = n * np.maximum(1 - 1 / (9 * some) - t / (3 * np.sqrt(some)), 0) ** 3
    high = (n + weight) * (1 - 1 / (9 * more) + t / (3 * np.sqrt(more))) ** 3
    return low / days, high / days


def group_medians(group: np.ndarray, values: np.ndarray, groups: int) -> np.ndarray:
    """Return the median of each group's values (whole, not negative), NaN for an empty group."""
    n = np.bincount(group, minlength=groups)
    return at_rank(ordered_by_group(group, values, n), n, (n - 1) / 2)


def ordered_by_group(group: np.ndarray, values: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return whole numbers in order within each group; n is the size of each group."""
    lifted = np.sort(group.astype(np.int64) * NEVER + values)
    return lifted - np.repeat(np.arange(len(n)) * NEVER, n)


def at_rank(ordered: np.ndarray, n: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Return the value at a (fractional) rank of each group; NaN where there is none."""
    found = np.full(len(n), np.nan)
    some = np.flatnonzero((n > 0) & ~np.isnan(rank))
    below = np.floor(rank[some]).astype(np.int64)
    first = (np.cumsum(n) - n)[some]
    low, high = ordered[first + below], ordered[first + np.minimum(below + 1, n[some] - 1)]
    found[some] = low + (high - low) * (rank[some] - below)
    return found


@dataclass(frozen=True)
class Metrics:
    """Everything that the report, the JSON and the dashboard show. `measure` calculates it once."""

    history: History
    values: Dict[str, Any]  # the keys of METRICS
    production: pd.DataFrame  # see `production_metrics`
    deployments_by_day: np.ndarray  # a row for each environment, a column for each day
    days_known: np.ndarray  # the same shape: whether the history covers that day there

    @property
    def unjudged(self) -> Dict[str, str]:
        """The benchmarks that can be neither met nor missed, and why."""
        values = self.values
        return {
            key: why_not_judged(key, values) for key in BENCHMARKS if not is_judged(key, values)
        }

    @property
    def elite(self) -> Dict[str, Optional[bool]]:
        """Whether each benchmark is met; None where it cannot be judged."""
        unjudged, values = self.unjudged, self.values
        return {key: None if key in unjudged else bool(is_elite(key, values)) for key in BENCHMARKS}

    @property
    def score(self) -> int:
        """How many benchmarks are met."""
        return int(maturity_score(self.values))

    @property
    def level(self) -> Optional[Level]:
        """The maturity level; None where a benchmark cannot be judged."""
        return None if self.unjudged else level_of(self.score)

    @property
    def quick_check(self) -> Dict[str, float]:
        """The Quick Check scores of production (see `quick_check`); a lower bound has none."""
        known = self.overall["value"].where(~self.overall["at_least"])
        return quick_check(known.to_dict())

    @property
    def overall(self) -> pd.DataFrame:
        """The metrics of production in all: a row is a metric (the index)."""
        table = self.production.iloc[: len(PRODUCTION_METRICS)]
        return table.drop(columns="application").set_index("metric")

    @property
    def by_application(self) -> Dict[str, pd.DataFrame]:
        """The metrics of production of each application: a row is a metric (the index)."""
        size = len(PRODUCTION_METRICS)
        rows = self.production.drop(columns="application").iloc[size:]
        names = self.production["application"].iloc[size::size]
        pieces = (rows.iloc[at : at + size] for at in range(0, len(rows), size))
        return {name: piece.set_index("metric") for name, piece in zip(names, pieces)}


def measure(history: History) -> Metrics:
    """Calculate everything that is shown of a history."""
    names = application_names(history)
    events = events_of(history, names)
    codes = codes_of(history.deployments["environment"], history.environments)
    seen = ~has_word(history.deployments["health"], UNKNOWN)
    observable = np.bincount(codes[seen], minlength=len(history.environments)) > 0
    if history.is_simulated:
        observable[:] = True
    values = {key: array.item() for key, array in headline_metrics(events, observable).items()}
    values["unseen_deployments"] = int(np.count_nonzero(~seen & observable[codes]))
    values.update(counts_by_name(history, events, observable))
    table = production_table(history, events, names)
    known = np.stack([days_known(history, name) for name in history.environments])
    if not known.any():
        values["deployment_frequency"] = math.nan
    if not known[-1].any():
        values["production_deployment_frequency"] = math.nan
    if history.changes is not None:
        lead = table[table["metric"] == "change_lead_time_hours"].iloc[0]
        values.update(mean_lead_time=float(lead["mean"]), median_lead_time=float(lead["value"]))
        values["dated_deployments"] = int(lead["n"])
        nothing = dict.fromkeys(history.environments, math.nan)
        values["lead_time_hours_by_environment"] = nothing
    day = (events.deployments.time - history.window.seconds[0]) // DAY
    shape = len(history.environments), history.window.days
    cells = np.bincount(
        events.deployments.environment * shape[1] + day, minlength=shape[0] * shape[1]
    )
    return Metrics(history, values, table, cells.reshape(shape), known)


def application_names(history: History) -> List[str]:
    """Return the names of all applications that a history has, sorted."""
    tables = [history.deployments, history.git_commits, history.coverage, history.changes]
    known = [table["application"] for table in tables if table is not None]
    return sorted({name for column in known for name in count_words(column)})


def counts_by_name(history: History, events: Events, observable: np.ndarray) -> Dict[str, Any]:
    """Count what the report breaks down by environment, application, type, status or reason."""
    deployments, rollbacks, names = events.deployments, events.rollbacks, history.environments
    commits, reason = history.git_commits, history.deployments["failure_reason"].cat
    environment, size = deployments.environment, len(reason.categories)
    total, bad, back = (
        np.bincount(codes, minlength=len(names))
        for codes in (environment, environment[deployments.bad], rollbacks.environment)
    )
    explained = np.flatnonzero(reason.codes >= 0)
    cells = environment[explained] * size + reason.codes.to_numpy()[explained]
    reasons = np.bincount(cells, minlength=len(names) * size).reshape(len(names), size)
    minutes = (rollbacks.end - rollbacks.time)[rollbacks.success] / 60
    synced = int(np.count_nonzero(deployments.synced))

    def by_environment(values: np.ndarray) -> Dict[str, Any]:
        return dict(zip(names, values.tolist()))

    return {
        "success_rates": by_environment(safe_ratio(100 * (total - bad), total * observable)),
        "lead_time_hours_by_environment": by_environment(lead_time_parts(events)),
        "deployments_by_environment": by_environment(total),
        "healthy_by_environment": by_environment(total - bad),
        "rollbacks_by_environment": by_environment(back),
        "deployments_by_status": {SYNCED: synced, FAILED: len(deployments.synced) - synced},
        "deployments_by_application": count_words(history.deployments["application"]),
        "fastest_rollback_minutes": float(minutes.min()) if len(minutes) else math.nan,
        "slowest_rollback_minutes": float(minutes.max()) if len(minutes) else math.nan,
        "failure_reasons": rank_words(reason.categories, reasons.sum(axis=0)),
        "failure_reasons_by_environment": {
            name: rank_words(reason.categories, counts) for name, counts in zip(names, reasons)
        },
        "total_commits": len(commits),
        "contributors": len(count_words(commits["author"])),
        "applications": len(count_words(commits["application"])),
        "commit_types": count_words(commits["type"]),
    }


class Production(NamedTuple):
    """What happened in production, as arrays, in one group."""

    events: Events
    changes: Changes  # grouped by application
    ended: Recoveries
    unseen: np.ndarray  # whether nobody saw the health of a deployment


def production_of(history: History, events: Events, names: Sequence[str]) -> Production:
    """Return what happened in production, of the events of a history."""
    rows = has_word(history.deployments["environment"], history.production)
    unseen = has_word(history.deployments["health"], UNKNOWN)[rows]
    seen = seen_recoveries(history, events)
    events = events.in_production()
    ended = find_recoveries(events, None if seen is None else (seen[0][rows], seen[1][rows]))
    return Production(events, known_changes(history, events, names), ended, unseen)


def production_table(history: History, events: Events, names: Sequence[str]) -> pd.DataFrame:
    """Return the table of `production_metrics`: all applications first, then each by name."""
    events, changes, ended, unseen = production_of(history, events, names)
    known = days_known(history, history.production)
    apart, together = events.by_application(len(names)), changes._replace(group=changes.group * 0)
    shown, partly = applications_in_production(history, names)
    whole = Measured.of_window(history, known[None], np.array([partly.any()]))
    each = Measured.of_window(history, np.repeat(known[None], len(names), axis=0), partly)
    overall = production_by_group(events, together, ended, whole, unseen)
    frames = [pd.DataFrame({"metric": metric, **columns}) for metric, columns in overall.items()]
    frames = [frame.assign(application=ALL_APPLICATIONS, place=-1) for frame in frames]
    for metric, columns in production_by_group(apart, changes, ended, each, unseen).items():
        frame = pd.DataFrame({"application": names, "metric": metric, **columns})
        frames.append(frame.assign(place=range(len(names))).iloc[shown])
    table = pd.concat(frames, ignore_index=True).sort_values("place", kind="mergesort")
    return tidy_production(table)[["application", *PRODUCTION_COLUMNS]].reset_index(drop=True)


PRODUCTION_COLUMNS = ["metric", "value", "low", "high", "n", "mean", "p90", "open", "at_least"]


def tidy_production(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of production metrics in which every column has its kind.

    Its edges have nine decimals: the last bits of a root differ between versions of numpy.
    """
    counted = table["open"].fillna(0).astype(int)
    bounds = table["at_least"].eq(True) & table["value"].notna()
    table = table.assign(open=counted, at_least=bounds, n=table["n"].astype(int))
    return table.round({"low": 9, "high": 9, "mean": 9})


def applications_in_production(
    history: History, names: Sequence[str]
) -> Tuple[np.ndarray, np.ndarray]:
    """Return which applications production has, and for each whether history of it is lost."""
    if history.coverage is None:
        return np.arange(len(names)), np.zeros(len(names), bool)
    there = codes_of(history.covered(history.production)["application"], names)
    lost = lost_history(history, names, [history.window.seconds])
    return np.unique(there), lost[:, 0]


def hides_failures(history: History) -> bool:
    """Return whether a failure can hide between two looks at a cluster."""
    return history.source == "argocd" and history.incidents is None


def lost_history(
    history: History, names: Sequence[str], periods: Sequence[Tuple[int, int]]
) -> np.ndarray:
    """Return for each application (row) and period whether entries of production are lost there."""
    lost = np.zeros((len(names), len(periods)), bool)
    if history.coverage is None:
        return lost
    covered = history.covered(history.production)
    some = covered[(covered["lost"] > 0).to_numpy()]
    there, begins = codes_of(some["application"], names), seconds_of(some["from"])
    for number, (low, _) in enumerate(periods):
        lost[there, number] = begins > low
    return lost


def days_known(history: History, environment: str) -> np.ndarray:
    """Return whether the history covers each day of an environment.

    On the other days no deployment is known, which is not the same as none. A history of less than
    a day covers no day.
    """
    days = history.window.days
    if history.coverage is None:
        return np.ones(days, bool)
    spans, start = history.covered(environment), history.window.seconds[0]
    begins, ends = seconds_of(spans["from"]), seconds_of(spans["to"])
    if not len(spans) or ends.max() - begins.min() < DAY:
        return np.zeros(days, bool)
    first, last = (
        np.bincount(np.minimum((seconds - start) // DAY, days), minlength=days + 1)
        for seconds in (begins, ends)
    )
    return (np.cumsum(first) - np.cumsum(last) + last)[:days] > 0


def seen_recoveries(history: History, events: Events) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """Return since when each deployment was bad, and when it was good (see `find_recoveries`)."""
    if history.is_simulated:
        return None
    ends = events.deployments.end.copy()
    over = history.deployments["recovered"]
    times = np.where(over.isna(), NEVER, seconds_of(over))
    if history.incidents is not None and len(history.incidents):
        table = history.incidents.groupby(
            ["application", "environment", "deployed"], observed=True
        )["started"].min()
        keys = pd.MultiIndex.from_arrays(
            [
                history.deployments["application"].astype(object),
                history.deployments["environment"].astype(object),
                utc_times(ends),
            ]
        )
        started = table.reindex(keys)
        known = started.notna().to_numpy()
        ends[known] = seconds_of(started[known])
    return ends, times


def known_changes(history: History, events: Events, names: Sequence[str]) -> Changes:
    """Return the changes to production by application: those of a real history, or every commit."""
    if history.changes is None:
        return shipped_changes(events)._replace(group=events.commits.application)
    table = history.changes_to(history.production)
    shipped = np.where(table["deployed"].isna(), NEVER, seconds_of(table["deployed"]))
    application = codes_of(table["application"], names)
    return Changes(application, seconds_of(table["committed"]), shipped)


def production_metrics(history: History) -> pd.DataFrame:
    """Return dora.dev's five metrics of production; a row is a metric of an application, or of all.

    Columns: `application`, `metric` (a key of `PRODUCTION_METRICS`), `value` (a median, rate or
    frequency; NaN where there is no data), `low` and `high` (its 95 % interval), `n`, `mean` and
    `p90` (of lead and recovery times), `open` (changes not shipped, failures not recovered at the
    end), `at_least` (whether the value is a lower bound, as not everything was seen).
    """
    return measure(history).production


def calculate_dora_metrics(history: History) -> Dict[str, Any]:
    """Return the keys of `METRICS`, unrounded, NaN where undefined; some are dicts by name."""
    return measure(history).values


ENOUGH = 6  # observations of a period: with fewer, nothing is said about it
LIMIT_PERIODS = 5  # periods with enough data that natural process limits need


def measure_trend(history: History, by: str) -> pd.DataFrame:
    """Return the metrics of production of each week (from Monday) or month, in UTC.

    A row is a metric of a period. Columns: `period` (its first day), `days`, `metric`, `value`,
    `low`, `high`, `n`, `mean`, `p90`, `open`, `at_least` (see `production_metrics`), `enough`
    (whether there is enough data to say something), `limit_low` and `limit_high` (natural process
    limits of the metric), `unusual` (outside of them), `change` (from the period before),
    `change_low` and `change_high` (its 95 % interval), `differs` (whether that leaves zero out).

    A deployment is of the period in which it began, a change of that in which it shipped. The
    limits are those of an XmR chart: the mean of the periods -+ 2.66 times the mean difference
    between neighbours (D. J. Wheeler, Understanding Variation, 1993). GitOpsError for another `by`.
    """
    check_that(by in ("week", "month"), "by", "be week or month", by)
    names, window = application_names(history), history.window
    events, changes, ended, unseen = production_of(history, events_of(history, names), names)
    days = pd.date_range(window.start, window.last, freq="D")
    begins = (days.day_of_week == 0) if by == "week" else (days.day == 1)
    starts = np.union1d(0, np.flatnonzero(begins))
    length = np.diff(np.append(starts, len(days)))
    first, over = window.seconds

    def period_of(seconds: np.ndarray) -> np.ndarray:
        period = np.searchsorted(starts, (seconds - first) // DAY, side="right") - 1
        return np.where((seconds >= first) & (seconds < over), period, -1)

    deployments, rollbacks = events.deployments, events.rollbacks
    kept = np.flatnonzero(period_of(rollbacks.time) >= 0)
    rollbacks = Rollbacks(*(column[kept] for column in rollbacks))
    apart = events._replace(
        deployments=deployments._replace(group=period_of(deployments.time)),
        rollbacks=rollbacks._replace(group=period_of(rollbacks.time)),
        groups=len(starts),
    )
    shipped = np.where(changes.group >= 0, period_of(changes.shipped), -1)
    of_period = np.arange(length.max())
    covered = np.append(days_known(history, history.production), np.zeros(length.max(), bool))
    known = covered[starts[:, None] + of_period] & (of_period < length[:, None])
    edges = [(first + int(low) * DAY, first + int(low + n) * DAY) for low, n in zip(starts, length)]
    partly = lost_history(history, names, edges).any(axis=0)
    measured = Measured(starts, length, known, partly, hides_failures(history))
    metrics = production_by_group(apart, changes._replace(group=shipped), ended, measured, unseen)
    whole = known.sum(axis=1) == (7 if by == "week" else days[starts].days_in_month)
    frames = []
    for metric, columns in metrics.items():
        frame = pd.DataFrame({"period": days[starts], "days": length, "metric": metric, **columns})
        enough = whole if metric == "deployment_frequency_per_day" else frame["n"] >= ENOUGH
        frames.append(add_trend(frame.assign(enough=enough & frame["value"].notna())))
    table = tidy_production(pd.concat(frames, ignore_index=True))
    return table[["period", "days", *PRODUCTION_COLUMNS, *TREND_COLUMNS]]


TREND_COLUMNS = [
    "enough", "limit_low", "limit_high", "unusual", "change", "change_low", "change_high",
    "differs",
]  # fmt: skip


def add_trend(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the periods of a metric with its limits, and the difference from the one before."""
    values = frame["value"].where(frame["enough"])
    some = values.dropna()
    low = high = math.nan
    if len(some) >= LIMIT_PERIODS:
        middle, spread = some.mean(), 2.66 * some.diff().abs().mean()
        low, high = max(middle - spread, 0), middle + spread
    both = frame["enough"] & frame["enough"].shift(1, fill_value=False)
    before = frame[["value", "low", "high"]].shift(1)
    change = difference_of(before, frame).where(both)
    differs = (change["change_low"] > 0) | (change["change_high"] < 0)
    unusual = (values < low) | (values > high)
    return frame.assign(limit_low=low, limit_high=high, unusual=unusual, **change, differs=differs)


def difference_of(before: Any, after: Any) -> pd.DataFrame:
    """Return the difference of two independent estimates, with its 95 % interval.

    It is made from the distances of each estimate to the ends of its own interval (G. Y. Zou and
    A. Donner, Statistics in Medicine 27, 2008): of rates with Wilson's intervals, Newcombe's.
    """
    change = after["value"] - before["value"]
    down = np.hypot(after["value"] - after["low"], before["high"] - before["value"])
    up = np.hypot(after["high"] - after["value"], before["value"] - before["low"])
    columns = {"change": change, "change_low": change - down, "change_high": change + up}
    return pd.DataFrame(columns)


def compared_notes(document: Mapping[str, Any], history: History) -> List[str]:
    """Return what an earlier run was about, and why it may not be comparable."""
    source, window = at_path(document, "source", kind=str), window_in(document)
    if window is None:
        return ["The earlier run names no window."]
    notes = [f"before: {window.start:%Y-%m-%d} to {window.last:%Y-%m-%d} ({one_line(source)})"]
    if source != history.source:
        notes.append(f"The sources differ: {one_line(source)} and {history.source}.")
    if window.end > history.window.start and window.start < history.window.end:
        notes.append("The windows overlap: what both have is compared with itself.")
    return notes


def compare_with(document: Mapping[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """Return how the metrics of production differ from those of an earlier `metrics.json`.

    A row is a metric (the index). Columns: `before`, `before_n`, `after`, `after_n`, `change`,
    `change_low`, `change_high`, `enough` and `differs` (see `measure_trend`).
    """
    keys = ("value", "low", "high", "n")
    rows = {}
    for metric in PRODUCTION_METRICS:
        given = at_path(document, "production", metric)
        plain = (given.get(key) for key in keys)
        numbers = [value if isinstance(value, (int, float)) else math.nan for value in plain]
        rows[metric] = dict(zip(keys, map(float, numbers)))
    before = pd.DataFrame.from_dict(rows, orient="index")
    change = difference_of(before, table)
    enough = (before["n"] >= ENOUGH) & (table["n"] >= ENOUGH)
    enough |= enough.index == "deployment_frequency_per_day"  # its interval needs no number
    change = change.where(enough)
    return pd.DataFrame(
        {
            "before": before["value"],
            "before_n": before["n"],
            "after": table["value"],
            "after_n": table["n"],
            **change,
            "enough": enough & ~change["change_low"].isna(),
            "differs": (change["change_low"] > 0) | (change["change_high"] < 0),
        }
    )


QUICK_CHECK_MEANS_2025 = {
    "change_lead_time_hours": 5.5,
    "deployment_frequency_per_day": 4.8,
    "failed_deployment_recovery_minutes": 7.4,
    "change_fail_rate_pct": 8.1,
    "deployment_rework_rate_pct": 7.8,
}
"""dora.dev's Quick Check: the mean score of all industries in 2025."""

MONTH = 30.4375  # days
DURATION_BANDS = (1, 24, 7 * 24, MONTH * 24, 6 * MONTH * 24)  # hours: a step of two points each
FREQUENCY_BANDS = (1 / (6 * MONTH), 1 / MONTH, 1 / 7, 1, 2)  # a day: a step of two points each


def quick_check(values: Mapping[str, float]) -> Dict[str, float]:
    """Return the Quick Check score, 0 to 10, of each metric, and their mean as `overall`."""
    scores = {}
    for metric, value in values.items():
        if math.isnan(value):
            scores[metric] = math.nan
        elif metric.endswith("_pct"):
            scores[metric] = 10 - value / 10
        elif metric == "deployment_frequency_per_day":
            scores[metric] = 2.0 * bisect.bisect_right(FREQUENCY_BANDS, value)
        else:
            hours = value if metric == "change_lead_time_hours" else value / 60
            scores[metric] = 10 - 2.0 * bisect.bisect_right(DURATION_BANDS, hours)
    defined = [score for score in scores.values() if not math.isnan(score)]
    return {"overall": math.fsum(defined) / len(defined) if defined else math.nan, **scores}


# ---- Trace: history -> the life of one release --------------------------------------------------

TRACE_COLUMNS = ["timestamp", "environment", "step", "what", "counts_for"]
TRACED = ("latest", "slowest", "failed")  # releases that a trace finds without a commit
NO_METRIC = "no metric"


def trace_release(
    history: History, release: str = "latest", scenario: Optional[Scenario] = None
) -> pd.DataFrame:
    """Return the life of one release: a row is a step, in the order of time.

    `release` is a commit or its beginning, as APPLICATION:COMMIT where several applications have
    it. Or it is the `latest` to production, the `slowest` from its commit to production, or the
    last that `failed`. The gates are those of the `scenario`. Columns: `timestamp`, `environment`,
    `step`, `what` happened, and the metrics that it `counts_for`. `attrs` has the `application` and
    the `commit`. GitOpsError if there is no such release.
    """
    application, commit = find_release(history, release)
    table = deployments_with_end(history)
    table = table[has_word(table["application"], application)]
    commits = history.git_commits[(history.git_commits["sha"] == commit).to_numpy(bool)]
    steps, committed = [], None
    for made in commits.to_dict("records"):
        committed = made["timestamp"]
        text = f"{made['type']} by {made['author']}: {made['message']}"
        steps.append((committed, "", "commit", text, METRICS["total_commits"].label))
    ready, before = committed, "the commit"
    carried: List[Tuple[Any, ...]] = []
    for name in history.environments:
        there = table[has_word(table["environment"], name)]
        own = there[has_word(there["commit_sha"], commit)]
        gate = "" if scenario is None else gate_text(scenario, name)
        for row in own.to_dict("records"):
            waited = "began" if ready is None else waited_text(ready, row["timestamp"], before)
            steps.append((row["timestamp"], name, "sync", waited + gate, "Deployment Frequency"))
            steps.append((row["end"], name, "end", outcome_text(row), counted(history, row)))
            steps += rollback_steps(history, row)
            if row["health"] != DEGRADED:
                ready, before = row["end"], f"{name} had it"
        if len(own):
            carried = []  # what came here needs nobody to bring it before
        elif committed is not None:
            carried.append(carried_step(history, there, name, committed))
    found = pd.DataFrame([*steps, *carried], columns=TRACE_COLUMNS).sort_values(
        "timestamp", kind="mergesort"
    )
    found.attrs.update(application=application, commit=commit)
    return found.reset_index(drop=True)


def deployments_with_end(history: History) -> pd.DataFrame:
    """Return the deployments with the time at which each ended, as `end`."""
    table = history.deployments
    ends = seconds_of(table["timestamp"]) + table["duration_sec"].to_numpy()
    return table.assign(end=utc_times(ends))


def find_release(history: History, release: str) -> Tuple[str, str]:
    """Return the application and the commit of a release; GitOpsError if there is none or several.

    1. `latest` is the last deployment to production, `failed` the last that failed, in production
       if any did there.
    2. `slowest` is the production deployment that brought the change with the longest lead time.
    3. Anything else is the beginning of a commit, or of its application, a colon, and that.
    """
    table = history.deployments
    production = has_word(table["environment"], history.production)
    bad = has_word(table["health"], DEGRADED)
    rows = {"latest": production, "failed": bad & production if (bad & production).any() else bad}
    if release == "slowest":
        rows[release] = slowest_deployment(history)
    if release in rows:
        found = table[rows[release]].tail(1)
        if not len(found):
            raise GitOpsError(f"no release to trace: this window has no {release} one")
        return str(found["application"].iloc[0]), str(found["commit_sha"].iloc[0])
    wanted, colon, beginning = release.rpartition(":")
    names = ["application", "commit_sha"]
    made = history.git_commits.rename(columns={"sha": "commit_sha"})
    pairs = pd.concat([table[names].astype(str), made[names].astype(str)]).drop_duplicates()
    chosen = pairs["commit_sha"].str.startswith(beginning) & (len(beginning) > 0)
    if colon:
        chosen &= pairs["application"] == wanted
    found = pairs[chosen]
    if len(found) == 1:
        return found["application"].iloc[0], found["commit_sha"].iloc[0]
    several = ", ".join(
        f"{one.application}:{one.commit_sha[:12]}" for one in found[:4].itertuples()
    )
    if several:
        raise GitOpsError(f"{len(found)} releases are {in_quotes(release)}; take one of {several}")
    remedy = f"take a commit or its beginning, or {', '.join(TRACED)}"
    raise GitOpsError(f"no release is {in_quotes(release)}; {remedy}")


def slowest_deployment(history: History) -> np.ndarray:
    """Return which deployments brought the change with the longest lead time to production."""
    table = deployments_with_end(history)
    production = has_word(table["environment"], history.production)
    if history.changes is None:
        made = dict(zip(history.git_commits["sha"], history.git_commits["timestamp"]))
        synced = production & has_word(table["status"], SYNCED)
        begun = table["commit_sha"].astype(object).map(made)
        lead = (table["timestamp"] - pd.to_datetime(begun, utc=True)).where(synced)
        return np.asarray(lead == lead.max())
    changes = history.changes_to(history.production)
    lead = changes["deployed"] - changes["committed"]
    slowest = changes[np.asarray(lead == lead.max())].head(1)
    chosen = production & np.asarray(table["end"].isin(slowest["deployed"]))
    return chosen & np.asarray(table["application"].isin(slowest["application"].astype(str)))


def waited_text(ready: pd.Timestamp, start: pd.Timestamp, before: str) -> str:
    """Return how long a release waited, and since when."""
    hours = (start - ready).total_seconds() / 3600
    return f"{in_human_units(hours, 'h')} after {before}" if hours else f"at once after {before}"


def gate_text(scenario: Scenario, name: str) -> str:
    """Return the gate of an environment of a scenario, in brackets."""
    return f" ({stage_text(scenario.environments[scenario.names.index(name)])})"


def outcome_text(row: Mapping[str, Any]) -> str:
    """Return how a deployment ended."""
    seconds = f"{row['status']} after {row['duration_sec']} s"
    if row["health"] == HEALTHY:
        return f"{seconds}, healthy"
    if row["health"] == UNKNOWN:
        return f"{seconds}, nobody looked at its health"
    return f"{seconds}, degraded: {row['failure_reason']}"


def counted(history: History, row: Mapping[str, Any]) -> str:
    """Return what the end of a deployment counts for."""
    kinds = {HEALTHY: "as good", DEGRADED: "as failed", UNKNOWN: "as not looked at"}
    counts = [f"Change Failure Rate ({kinds[row['health']]})"]
    if row["environment"] != history.production or row["status"] != SYNCED:
        return counts[0]
    if history.changes is None:
        made = history.git_commits
        begun = made.loc[(made["sha"] == row["commit_sha"]).to_numpy(bool), "timestamp"]
        hours = (row["timestamp"] - begun).dt.total_seconds() / 3600
    else:
        changes = history.changes_to(history.production)
        brought = (changes["deployed"] == row["end"]) & (
            changes["application"].astype(object) == row["application"]
        )
        hours = (changes["deployed"] - changes["committed"])[brought].dt.total_seconds() / 3600
    if len(hours):
        spread = dict.fromkeys(in_human_units(one, "h") for one in (hours.min(), hours.max()))
        counts.append(f"Lead Time ({count_text(len(hours), 'change')}: {' to '.join(spread)})")
    return ", ".join(counts)


def rollback_steps(history: History, row: Mapping[str, Any]) -> List[Tuple[Any, ...]]:
    """Return the rollback of a deployment as a step, if it had one."""
    table = history.rollbacks
    own = table[
        (table["timestamp"] == row["end"]).to_numpy(bool)
        & (table["from_commit"] == row["commit_sha"]).to_numpy(bool)
        & has_word(table["application"], row["application"])
        & has_word(table["environment"], row["environment"])
    ]
    steps = []
    for back in own.to_dict("records"):
        minutes = in_human_units(back["duration_min"], "min")
        result = "succeeded" if back["success"] else "failed"
        text = f"to {back['to_commit'][:7]} {result} after {minutes}"
        over = row["end"] + pd.Timedelta(minutes=back["duration_min"])
        metric = f"MTTR ({minutes})" if back["success"] else f"{NO_METRIC}: it did not succeed"
        steps.append((over, row["environment"], "rollback", text, metric))
    return steps


def carried_step(
    history: History, there: pd.DataFrame, name: str, committed: pd.Timestamp
) -> Tuple[Any, ...]:
    """Return the step at which a newer release brought a change that did not come by itself."""
    made = history.git_commits.set_index("sha")["timestamp"]
    begun = pd.to_datetime(there["commit_sha"].astype(object).map(made), utc=True)
    newer = there[has_word(there["status"], SYNCED) & (begun > committed).to_numpy(bool)]
    production = name == history.production
    if not len(newer):
        metric = "Changes not yet shipped" if production else NO_METRIC
        return history.window.end, name, "waits", "not there when the window ends", metric
    first = newer.loc[newer["end"].idxmin()]
    hours = in_human_units((first["end"] - committed).total_seconds() / 3600, "h")
    metric = f"Change lead time ({hours})" if production else NO_METRIC
    text = f"came with {first['commit_sha'][:7]}, a newer release"
    return first["end"], name, "carried", text, metric


def format_trace(steps: pd.DataFrame) -> str:
    """Return the life of one release in words, with what each step counts for on a line below."""
    commit, application = steps.attrs["commit"], steps.attrs["application"]
    lines = [DOUBLE_LINE, f"🔍 RELEASE {commit[:12]} OF {application}", DOUBLE_LINE]
    names = [shorten_text(name, 20) for name in steps["environment"]]
    width = max(map(len, names))
    for name, row in zip(names, steps.to_dict("records")):
        begin = f"{row['timestamp']:%Y-%m-%d %H:%M:%S}  {name:<{width}}  {row['step']:<8}  "
        indent = " " * len(begin)
        for lead, text in ((begin, row["what"]), (indent + "→ ", row["counts_for"])):
            lines += textwrap.wrap(lead + text, MOST_COLUMNS, subsequent_indent=indent)
    return "\n".join(lines)


# ---- Reporting engine: metrics -> console and JSON ----------------------------------------------

WIDTH = 80  # of the rules; lines of text have up to MOST_COLUMNS
MOST_COLUMNS = 100
LINE, DOUBLE_LINE = "-" * WIDTH, "=" * WIDTH


def show_number(value: float, unit: str = "", digits: int = 2) -> str:
    """Return a number with its unit; `n/a` if it is undefined."""
    if isinstance(value, float) and math.isnan(value):
        return "n/a"
    return f"{value}{unit}" if isinstance(value, int) else f"{value:.{digits}f}{unit}"


def show_percent(part: float, whole: float, digits: int = 1) -> str:
    """Return a share as a percentage."""
    return show_number(float(safe_ratio(100 * part, whole)), "%", digits)


def with_unit(number: str, unit: str) -> str:
    """Return a number and its unit, with a space unless the unit begins with a slash."""
    return number + ("" if unit.startswith("/") else " ") + unit


def in_human_units(value: float, unit: str, digits: int = 2) -> str:
    """Return a benchmark as people say it: 9.89 min, 36.90 h, 5.20 days; `n/a` if undefined."""
    if math.isnan(value):
        return "n/a"
    minutes = value * {"h": 60, "min": 1}.get(unit, math.nan)
    if minutes >= 120 * 60:
        value, unit = minutes / 60 / 24, "days"
    elif minutes >= 120:
        value, unit = minutes / 60, "h"
    return with_unit(f"{value:.{digits}f}", unit)


def line_of(label: str, value: str) -> str:
    """Return a line of the report: a label and its value in their columns."""
    return f"{label:<31} {value}"


def fold(line: str) -> List[str]:
    """Return a line as lines that fit the report; those after the first begin below its text."""
    if len(line) <= MOST_COLUMNS:
        return [line]
    lead = re.match(r"[ •]*(?:[A-Z][a-z ]{,20}: +)?", line)
    indent = " " * (len(lead.group()) if lead else 0)
    return textwrap.wrap(line, MOST_COLUMNS, subsequent_indent=indent, break_on_hyphens=False)


def join_folded(lines: Iterable[str]) -> str:
    """Return lines as one text, in which each fits the report."""
    return "\n".join(part for line in lines for part in fold(line))


def listed_lines(rows: Mapping[str, str]) -> List[str]:
    """Return a line for each name and its value, in columns; names that are too long are cut."""
    names = {name: f"  • {shorten_text(name, 60)}:" for name in rows}
    width = max([31, *map(len, names.values())])
    return [f"{names[name]:<{width}} {text}" for name, text in rows.items()]


def with_capital(name: str) -> str:
    """Return a name with a capital letter at its beginning."""
    return name[:1].upper() + name[1:]


class Report(NamedTuple):
    """What a report is made from. A simulation has a `flow`, a seed and a scenario."""

    metrics: Metrics
    flow: Optional[pd.DataFrame] = None
    seed: Optional[int] = None
    scenario: Optional[Scenario] = None
    tried: Optional[Sequence[str]] = None  # recommendations that were tried, if any were
    trend: Optional[pd.DataFrame] = None
    compared: Optional[pd.DataFrame] = None
    commits_are_real: bool = False
    details: bool = False

    @property
    def values(self) -> Dict[str, Any]:
        """The metrics dict."""
        return self.metrics.values

    @property
    def advice(self) -> Sequence[str]:
        """The recommendations: those that were tried, or what follows from the metrics alone."""
        return plain_recommendations(self.values) if self.tried is None else self.tried

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened at all."""
        return not self.values["total_deployments"] and not self.values["total_commits"]


class Breakdown(NamedTuple):
    """A titled list within a section. It is left out when it has no line."""

    title: str
    lines: Callable[[Report], List[str]]


class Section(NamedTuple):
    """A section of the report.

    `rows` are (label, key of METRICS); "" is an empty line. `lists` follow them. A section that
    differs in kind has a `body` instead, a function that returns its lines. It is left out if it
    returns none, and one of the `details` where they are not wanted.
    """

    title: str
    rows: Sequence[Tuple[str, str]] = ()
    lists: Sequence[Breakdown] = ()
    body: Optional[Callable[[Report], List[str]]] = None
    details: bool = False

    def lines(self, report: Report) -> List[str]:
        """Return the section, with an empty line at its end."""
        if self.details and not report.details:
            return []
        lines = self.body(report) if self.body else []
        for label, key in self.rows:
            lines.append(line_of(f"{label}:", value_text(key, report.metrics)) if key else "")
        for title, make in self.lists:
            listed = make(report)
            lines += ["", f"{title}:", *listed] if listed else []
        folded = (part for line in lines for part in fold(line))
        return [self.title, LINE, *folded, ""] if lines else []


def value_text(key: str, metrics: Metrics) -> str:
    """Return a value of `metrics` as it is shown: a bound says so, and long times in human units.

    A lead time from a config repository begins with a commit there, not with the code.
    """
    value, history = metrics.values[key], metrics.history
    text, unit = METRICS[key].text(value), METRICS[key].short_unit
    if text == "n/a":
        return text
    unseen = metrics.overall.at["change_fail_rate_pct", "at_least"]
    unseen |= metrics.values["unseen_deployments"] > 0
    if key == "change_failure_rate" and unseen:
        return f"at least {text}"
    if key == "overall_success_rate" and unseen:
        return f"at most {text}"
    partly = metrics.overall.at["deployment_frequency_per_day", "at_least"]
    if key == "production_deployment_frequency" and partly:
        return f"at least {text}"
    if unit in ("min", "h") and value >= 120:
        text += f" ({in_human_units(value, unit)})"
    is_lead_time = key in ("mean_lead_time", "median_lead_time")
    if is_lead_time and history.changes is not None and history.source in ("git", "argocd"):
        return f"{text} (config-repository lead time)"
    return text


def format_report(report: Report) -> str:
    """Return the console report: every section of REPORT; of an empty window, the first two."""
    lines = [DOUBLE_LINE, "🔄 GITOPS WORKFLOW AUTOMATION REPORT", DOUBLE_LINE]
    for section in REPORT[:2] if report.is_empty else REPORT:
        lines += section.lines(report)
    return "\n".join([*lines, DOUBLE_LINE])


SOURCES = {
    "simulated": "SIMULATED: these are the numbers of no real team",
    "git": "MEASURED from the config repository (desired state, not what a cluster did)",
    "argocd": "MEASURED from what Argo CD keeps of its syncs",
    "files": "MEASURED from tables",
    SIMULATED_TABLES: "SIMULATED: these tables were written by a simulation",
}
"""What a report says of where its deployments come from, for each `source` of a history."""


def source_text(report: Report) -> str:
    """Return whether the deployments were simulated or measured, and from what."""
    source = report.metrics.history.source
    if source == "simulated" and report.commits_are_real:
        return "SIMULATED deployments of real commits"
    return SOURCES.get(source, SOURCES["files"])


def window_text(window: Window) -> str:
    """Return the first and the last day of a window, and how many days it has."""
    days = count_text(window.days, "day")
    return f"{window.start:%Y-%m-%d} to {window.last:%Y-%m-%d} ({days}, UTC)"


def evidence_of(key: str, metrics: Metrics) -> str:
    """Return the numbers that a benchmark is made of."""
    values, history = metrics.values, metrics.history
    if key in metrics.unjudged and math.isnan(values[key]):
        return metrics.unjudged[key]
    if key == "deployment_frequency":
        days = count_text(history.window.days, "day")
        return f"{count_text(values['total_deployments'], 'deployment')} in {days}"
    if key == "mean_lead_time":
        kind = "production deployment" if history.changes is None else "change"
        return f"mean of {count_text(values['dated_deployments'], kind)}"
    if key == "mttr_minutes":
        if math.isnan(values[key]):
            return "no deployment failed"
        return f"mean of {count_text(values['successful_rollbacks'], 'successful rollback')}"
    seen = sum(
        count
        for name, count in values["deployments_by_environment"].items()
        if not math.isnan(values["success_rates"][name])
    )
    unseen = values["unseen_deployments"]
    also = f"; {unseen:,} not looked at" * (unseen > 0)
    return f"{values['failed_deployments']:,} failed of {count_text(seen, 'deployment')}{also}"


def benchmark_text(key: str, metrics: Metrics) -> str:
    """Return the value of a benchmark in human units; a lower bound says so."""
    shown = in_human_units(metrics.values[key], BENCHMARKS[key].unit)
    return f"≥ {shown}" if value_text(key, metrics).startswith("at least") else shown


def verdict_rows(metrics: Metrics) -> List[Dict[str, str]]:
    """Return the verdict on each benchmark: its value, what it is made of, its target, if met."""
    marks = {True: "✅ yes", False: "❌ no", None: "⚪ n/a"}
    return [
        {
            "Metric": METRICS[key].label,
            "Value": benchmark_text(key, metrics),
            "Made of": evidence_of(key, metrics),
            "Elite": target.words,
            "Met": marks[metrics.elite[key]],
        }
        for key, target in BENCHMARKS.items()
    ]


def production_text(metrics: Metrics) -> str:
    """Return what production alone comes to, where the benchmarks are of all environments.

    A target that production misses is named.
    """
    values, table = metrics.values, metrics.overall
    rate, lead = table.loc["change_fail_rate_pct"], table.loc["change_lead_time_hours"]
    alone = {
        "deployment_frequency": values["production_deployment_frequency"],
        "change_failure_rate": rate["value"],
    }
    misses = {}
    for key, value in alone.items():
        missed = not math.isnan(value) and not is_elite(key, {key: value})
        misses[key] = f", which misses {BENCHMARKS[key].words}" if missed else ""
    failed = "failures n/a"
    if not math.isnan(rate["value"]):
        name = metrics.history.production
        count = values["deployments_by_environment"][name] - values["healthy_by_environment"][name]
        least = "at least " if rate["at_least"] else ""
        failed = f"{least}{count} failed of {rate['n']} ({rate['value']:.2f} %)"
    frequency = value_text("production_deployment_frequency", metrics)
    median = in_human_units(lead["value"], "h")
    changes = f" (median of {count_text(int(lead['n']), 'change')})" if lead["n"] else ""
    parts = [
        frequency + misses["deployment_frequency"],
        failed + misses["change_failure_rate"],
        f"lead time {median}{changes}",
    ]
    return f"Production alone: {'; '.join(parts)}"


NOTHING_HAPPENED = (
    "Nothing happened: there is no commit and no deployment. Choose more --days, or another --end."
)


def verdict_lines(report: Report) -> List[str]:
    """Return what was simulated or measured, the level, the benchmarks, and what to do first."""
    metrics, history = report.metrics, report.metrics.history
    lines = [source_text(report), f"Window:   {window_text(history.window)}"]
    if report.is_empty:
        return [*lines, NOTHING_HAPPENED]
    rows = verdict_rows(metrics)
    row = "{:<21} {:>11}   {:<46} {:<9} {}".format
    together = " (all environments together)" * (len(history.environments) > 1)
    heads = {**dict(zip(rows[0], rows[0])), "Made of": f"Made of{together}"}
    lines += [f"Level:    {level_text(metrics)}: {score_text(metrics)}", "", row(*heads.values())]
    lines += [row(*cells.values()) for cells in rows]
    lines += [""]
    if len(history.environments) > 1:
        lines += [production_text(metrics), ""]
    why, *remedy = report.advice[:2]
    if metrics.score < len(BENCHMARKS):
        lines += [f"Why:      {why}"]
    if remedy and remedy[0].startswith(" "):
        lines += [f"Next:     {remedy[0].strip()}"]
    lines += [""]
    if report.scenario is not None:
        lines += ["Pipeline: " + describe_pipeline(report.scenario)]
    if report.seed is not None:
        meaning = "the same seed, window and scenario give the same run"
        if not history.is_simulated:
            meaning = "of the months on which changes were tried"
        lines += [f"Seed:     {report.seed} ({meaning})"]
    return lines


def stage_text(environment: Environment) -> str:
    """Return the gate of an environment in words: its wait, train, hours, share and promotion."""
    meanings = {"each": "each release", "newest": "newest wins", "soak": "only what stays newest"}
    knobs = [
        f"after {in_words('wait_hours', environment.wait_hours)}"
        * (environment.wait_hours[-1] > 0),
        f"every {environment.release_every_hours:g} h" * (environment.release_every_hours > 0),
        environment.open_hours * (environment.open_hours != "always"),
        count_text(len(environment.freezes), "freeze") * (len(environment.freezes) > 0),
        f"batch risk {environment.batch_risk:g}" * (environment.batch_risk > 0),
        f"{100 * environment.approval_rate:g} % pass" * (environment.approval_rate < 1),
        meanings[environment.promotion],
    ]
    return ", ".join(filter(None, knobs))


def describe_pipeline(scenario: Scenario) -> str:
    """Return the environments in order, each with its gate."""
    return " → ".join(f"{one.name} ({stage_text(one)})" for one in scenario.environments)


def share_lines(counts: Mapping[str, int], whole: Optional[int] = None) -> List[str]:
    """Return a line for each name: its count and its share."""
    whole = sum(counts.values()) if whole is None else whole
    return listed_lines({name: f"{n} ({show_percent(n, whole)})" for name, n in counts.items()})


def commit_type_lines(report: Report) -> List[str]:
    """Return a line for each type of commit."""
    types = report.values["commit_types"].items()
    named = {
        f"{name} ({COMMIT_TYPES[name]})" if name in COMMIT_TYPES else name: n for name, n in types
    }
    return share_lines(named)


def environment_lines(key: str) -> Callable[[Report], List[str]]:
    """Return a function that makes a line for each environment from a count of METRICS."""

    def lines(report: Report) -> List[str]:
        counts = report.values[key]
        return (
            share_lines({with_capital(name): n for name, n in counts.items()})
            if sum(counts.values())
            else []
        )

    return lines


def flow_lines(report: Report) -> List[str]:
    """Return what became of the releases that were not deployed."""
    if report.flow is None:
        return []
    kinds = {
        "Superseded by a newer one": "superseded",
        "In flight at the end": "in_flight",
        "Held by an approval gate": "held",
    }
    counts = {label: int(report.flow[kind].sum()) for label, kind in kinds.items()}
    return listed_lines(
        {label: f"{count}" for label, count in counts.items() if count or kinds[label] != "held"}
    )


def health_gate_lines(report: Report) -> List[str]:
    """Return how many releases the health check of each environment kept from the next one."""
    if report.scenario is None:
        return []
    counts = report.values["deployments_by_environment"]
    healthy = report.values["healthy_by_environment"]
    stages = report.scenario.environments
    return listed_lines(
        {
            f"After {name}": f"{counts[name] - healthy[name]} of {counts[name]}"
            for name, following in zip(counts, stages[1:])
            if following.starts == "stage"
        }
    )


def lead_time_lines(report: Report) -> List[str]:
    """Return the part of each environment in the mean lead time."""
    whole = report.values["mean_lead_time"]
    parts = report.values["lead_time_hours_by_environment"]
    if math.isnan(whole) or any(map(math.isnan, parts.values())):
        return []
    return listed_lines(
        {
            f"Into {name}": f"{show_number(hours, ' hours')} ({show_percent(hours, whole)})"
            for name, hours in parts.items()
        }
    )


def reason_lines(report: Report, most: int = 3) -> List[str]:
    """Return the most frequent reasons of failures."""
    reasons = dict(list(report.values["failure_reasons"].items())[:most])
    return share_lines(reasons, report.values["failed_deployments"])


def rate_grade(value: float) -> Tuple[str, str]:
    """Return the icon and the colour of a success rate: good from 95 %, fair from 90 %."""
    if math.isnan(value):
        return "⚪", "#9aa5b1"
    if value >= 95:
        return "🟢", "#2e9e5b"
    return ("🟡", "#f2c230") if value >= 90 else ("🔴", "#d64545")


def success_lines(report: Report) -> List[str]:
    """Return the success rate of each environment, and of all."""
    values = report.values
    counts, healthy = values["deployments_by_environment"], values["healthy_by_environment"]
    names = {name: shorten_text(name, 40) for name in counts}
    width = max(16, *map(len, names.values()))
    lines, known = [], []
    for name, rate in values["success_rates"].items():
        note = f"({healthy[name]}/{counts[name]} successful)"
        if counts[name] and math.isnan(rate):
            note = f"({count_text(counts[name], 'deployment')}, failures not observable)"
        elif values["unseen_deployments"]:
            note = f"({counts[name] - healthy[name]}/{counts[name]} seen to fail)"
        if not math.isnan(rate):
            known.append(name)
        icon = rate_grade(rate)[0]
        lines.append(f"{icon} {names[name]:<{width}} {show_number(rate, '%'):<7} {note}")
    overall = value_text("overall_success_rate", report.metrics)
    if known:
        overall += (
            f" ({sum(healthy[name] for name in known)}/{sum(counts[name] for name in known)})"
        )
    return [*lines, "", line_of("Overall Success Rate:", overall)]


def production_lines(report: Report) -> List[str]:
    """Return dora.dev's metrics of production."""
    overall, history = report.metrics.overall, report.metrics.history
    columns = f"{'value':>10}  {'95% interval':<19} {'mean':>8} {'p90':>8} {'n':>6}"
    lines = [line_of("Of production alone; times are medians", columns)]
    lines += [production_line(metric, overall) for metric in PRODUCTION_METRICS]
    lines += [
        line_of("Changes not yet shipped:", f"{overall.at['change_lead_time_hours', 'open']}"),
        line_of(
            "Failures not yet recovered:",
            f"{overall.at['failed_deployment_recovery_minutes', 'open']}",
        ),
    ]
    if history.changes is not None and history.source in ("git", "argocd"):
        first = "the first commit of a version to any environment"
        own = "the commit to production's own path"
        start = first if any(note.startswith("Layout: ") for note in history.notes) else own
        lines.append(f"Lead time is config-repository lead time: from {start}, not of the code.")
    if overall["at_least"].any():
        lines.append("'at least' is a lower bound: not everything was seen.")
    lines += looks_lines(history) if overall.at["change_fail_rate_pct", "at_least"] else []
    if overall.at["deployment_frequency_per_day", "at_least"]:
        lines.append(common_window_line(history))
    return lines


def looks_lines(history: History) -> List[str]:
    """Return how failures of production are seen."""
    if history.source == "git":
        return [
            "Failures are those that rollbacks and reverts show; a fix forward is not seen as one."
        ]
    return ["What failed and was over between two looks is in no number."] * hides_failures(history)


def common_window_line(history: History) -> str:
    """Return the window, if there is one, that all applications cover."""
    covered = history.covered(history.production)
    last = covered.groupby(covered["application"].astype(object))["from"].max().max()
    start = (last + pd.Timedelta(days=1)).normalize()
    days = (history.window.end - start).days
    if days < 1:
        return "No whole day is covered for all applications."
    return f"All applications are covered for the last {days} days: --days {days} measures these."


def production_line(metric: str, table: pd.DataFrame) -> str:
    """Return the line of one metric of production."""
    label, unit = PRODUCTION_METRICS[metric][:2]
    row = table.loc[metric]
    label = line_of(f"{label}:", "")
    if math.isnan(row["value"]):
        return f"{label}{'n/a':>10} ({why_undefined(metric, table)})"
    interval = (
        "" if math.isnan(row["low"]) else f"{show_number(row['low'])} to {show_number(row['high'])}"
    )
    spread = " ".join(f"{show_number(row[key]).replace('n/a', ''):>8}" for key in ("mean", "p90"))
    value = f"{show_number(row['value'], unit):>10}  {interval:<19} {spread} {int(row['n']):>6}"
    return label + value + "  at least" * bool(row["at_least"])


def why_undefined(metric: str, table: pd.DataFrame) -> str:
    """Return why a metric of production has no value."""
    if not table.at["deployment_frequency_per_day", "n"]:
        return "nothing reached production"
    if metric == "deployment_frequency_per_day":
        return "less than a day is covered"
    if metric == "change_lead_time_hours":
        return "no lead time is known"
    hidden = math.isnan(table.at["change_fail_rate_pct", "value"])
    return "failures not observable" if hidden else "no failure has ended"


def application_lines(report: Report, most: int = 40) -> List[str]:
    """Return a line for each application in production, those deployed most first."""
    tables = report.metrics.by_application
    frequency = "deployment_frequency_per_day"
    ranked = sorted(tables, key=lambda name: -tables[name].at[frequency, "n"])
    heads = ("lead time", "frequency", "recovery", "fail rate", "rework")
    lines = [line_of("", " ".join(f"{head:>11}" for head in heads))] if ranked else []
    for name in ranked[:most]:
        table = tables[name]
        cells = [
            "≥" * (bound and not math.isnan(value))
            + show_number(value, PRODUCTION_METRICS[metric].unit)
            for (metric, value), bound in zip(table["value"].items(), table["at_least"])
        ]
        label = f"  • {shorten_text(name, 27)}"
        lines.append(line_of(label, " ".join(f"{cell:>11}" for cell in cells)))
    if len(ranked) > most:
        lines.append(f"  and {len(ranked) - most} more (--json has them all)")
    return lines


def quick_check_lines(report: Report) -> List[str]:
    """Return the Quick Check scores beside those of the industry."""
    scores = report.metrics.quick_check
    row = "  • {:<33} {:>4}   {}".format
    lines = ["From 0 to 10, of production alone; industry: the mean of all industries in 2025"]
    for metric, industry in QUICK_CHECK_MEANS_2025.items():
        label = f"{PRODUCTION_METRICS[metric].label}:"
        lines.append(row(label, show_number(scores[metric], "", 1), f"industry {industry}"))
    defined = sum(not math.isnan(scores[metric]) for metric in PRODUCTION_METRICS)
    note = f"(the mean of those with data: {defined})" if defined < len(PRODUCTION_METRICS) else ""
    return [*lines, row("Overall:", show_number(scores["overall"], "", 1), note).rstrip()]


def coverage_lines(report: Report) -> List[str]:
    """Return which days of which application a real history covers, and what its reader noted."""
    history, most = report.metrics.history, 1000 if report.details else 6
    if history.is_simulated:
        return []
    lines = [*history.notes]
    if history.production != "production":
        lines.append(f"{history.production} is taken for production: it is the last environment.")
    coverage = history.coverage
    if coverage is None:
        return lines
    lines += [""] * bool(lines)
    row = "{:<30} {:<18} {:<14} {:<14} {:>11}  {}".format
    lines.append(row("its own name", "application", "environment", "told by", "lost", "days"))
    for span in coverage.head(most).to_dict("records"):
        widths = {"origin": 30, "application": 18, "environment": 14, "rule": 14}
        names = (shorten_text(str(span[key]), width) for key, width in widths.items())
        days = f"{max((span['to'] - span['from']).ceil('D').days, 1)}" + "*" * (span["lost"] > 0)
        lines.append(row(*names, span["lost"], days).rstrip())
    if len(coverage) > most:
        lines.append(f"and {len(coverage) - most} more (--details; --json has them with dates)")
    unclassified = sorted(set(coverage["origin"][has_word(coverage["environment"], UNCLASSIFIED)]))
    if unclassified:
        named = ", ".join([*unclassified[:5], *["..."] * (len(unclassified) > 5)])
        remedy = "--environment-label KEY, --environment-pattern REGEX or --environment NAME"
        lines.append(f"unclassified: {len(unclassified)} ({named}); {remedy} says what they are")
    if (coverage["lost"] > 0).any():
        lines.append(
            "* older entries are gone; the first one left only marks where the covered time begins"
        )
    return lines


def change_text(row: Any, unit: str) -> str:
    """Return what a difference comes to, in words."""
    if not row["enough"] or math.isnan(row["change_low"]):
        return "too little data"
    if not row["differs"]:
        return "within noise"
    ends = f"{row['change_low']:+.2f} to {row['change_high']:+.2f}"
    return f"{row['change']:+.2f}{unit} ({ends})"


def trend_lines(report: Report) -> List[str]:
    """Return the metrics of production by week or month."""
    trend = report.trend
    lines: List[str] = []
    for metric, (label, unit, *_) in PRODUCTION_METRICS.items() if trend is not None else ():
        rows = trend[trend["metric"] == metric]  # type: ignore[index]
        if rows["value"].isna().all():
            lines += [f"{label}: n/a in every period", ""]
            continue
        lines.append(f"{label} ({unit.replace('/', 'a ')})")
        head = f"{'value':>9}  {'95% interval':<19} {'n':>5}  against the period before"
        lines.append(f"  {'from':<12}{head}")
        previous = None
        for row in rows.to_dict("records"):
            interval = f"{show_number(row['low'])} to {show_number(row['high'])}"
            interval = "" if math.isnan(row["low"]) else interval
            note = change_text(row, unit) if previous is not None else ""
            note = note if row["enough"] else "too little data"
            note += "; outside the limits" * bool(row["unusual"])
            number = show_number(row["value"])
            cells = f"{number:>9}  {interval:<19} {row['n']:>5}  {note}"
            lines.append(f"  {row['period']:%Y-%m-%d}  {cells}".rstrip())
            previous = row
        if rows["limit_low"].notna().any():
            limits = (
                show_number(float(rows[edge].iloc[0])) for edge in ("limit_low", "limit_high")
            )
            lines.append(f"  natural process limits: {' to '.join(limits)}")
        lines.append("")
    return lines[:-1]


def compared_lines(report: Report) -> List[str]:
    """Return how production differs from an earlier run."""
    if report.compared is None:
        return []
    lines = [*report.compared.attrs.get("notes", [])]
    for metric, row in report.compared.iterrows():
        label, unit = PRODUCTION_METRICS[metric][:2]
        numbers = f"{show_number(row['before'])} → {show_number(row['after'], unit)}"
        counts = ", ".join(show_number(float(row[key]), "", 0) for key in ("before_n", "after_n"))
        lines.append(f"{label + ':':<34}{numbers}: {change_text(row, unit)} (n = {counts})")
    return lines


def maturity_lines(report: Report) -> List[str]:
    """Return the verdict on each benchmark, the level, and the advice."""
    metrics = report.metrics
    width = max(len(METRICS[key].label) for key in BENCHMARKS) + 1
    return [
        *(
            f"{METRICS[key].label + ':':<{width}} {target_verdict(key, metrics.values)}"
            for key in BENCHMARKS
        ),
        "",
        f"Performance Score: {score_text(metrics)}",
        "",
        f"Maturity Level: {level_text(metrics)}",
        "",
        "Recommendations:",
        *(
            f"    {line.strip()}" if line.startswith(" ") else f"  • {line}"
            for line in report.advice
        ),
        "  • More: --levers (what matters most), --details, --trace slowest",
    ]


def score_text(metrics: Metrics) -> str:
    """Return how many benchmarks are met, of those that could be judged."""
    judged = len(BENCHMARKS) - len(metrics.unjudged)
    if judged == len(BENCHMARKS):
        return f"{metrics.score}/{judged} metrics meeting elite criteria"
    return f"{metrics.score} elite criteria met, {judged - metrics.score} missed"


def level_text(metrics: Metrics) -> str:
    """Return the maturity level with its icon, or why there is none."""
    if metrics.level is not None:
        return f"{metrics.level.icon} {metrics.level.name}"
    why = "; ".join(f"{METRICS[key].label}: {why}" for key, why in metrics.unjudged.items())
    return f"⚪ not assessable ({why})"


def target_verdict(key: str, values: Mapping[str, Any]) -> str:
    """Return whether a benchmark is met, in words."""
    value, target = values[key], BENCHMARKS[key]
    shown = show_number(value, target.unit)
    if not is_judged(key, values):
        shown = shown if math.isnan(value) else f"at least {shown}"
        return f"⚪ {shown} ({target} target; {why_not_judged(key, values)})"
    if math.isnan(value):
        return f"✅ Elite ({target}; n/a: no deployment failed)"
    if is_elite(key, values):
        return f"✅ Elite ({target} achieved: {shown})"
    return f"❌ Needs Improvement ({target} target, actual: {shown})"


REPORT = (
    Section("🏁 VERDICT", body=verdict_lines),
    Section("📡 WHAT THIS HISTORY COVERS", body=coverage_lines),
    Section(
        "📝 GIT ACTIVITY",
        rows=[
            ("Total Commits", "total_commits"),
            ("Contributors", "contributors"),
            ("Applications", "applications"),
        ],
        lists=[Breakdown("Commit Type Breakdown", commit_type_lines)],
    ),
    Section(
        "🚀 DEPLOYMENT METRICS (DORA), ALL ENVIRONMENTS",
        rows=[
            ("Deployment Frequency", "deployment_frequency"),
            ("  of which Production", "production_deployment_frequency"),
            ("Total Deployments", "total_deployments"),
            ("Mean Lead Time", "mean_lead_time"),
            ("Median Lead Time", "median_lead_time"),
            ("Change Failure Rate", "change_failure_rate"),
            ("MTTR", "mttr_minutes"),
        ],
        lists=[
            Breakdown("Deployment Distribution", environment_lines("deployments_by_environment")),
            Breakdown("Releases Stopped by a Health Gate", health_gate_lines),
            Breakdown("Releases Not Deployed", flow_lines),
            Breakdown("Where the Lead Time Goes", lead_time_lines),
        ],
    ),
    Section("✅ SUCCESS RATES BY ENVIRONMENT", body=success_lines),
    Section(
        "🔄 ROLLBACK SUMMARY",
        rows=[
            ("Total Rollbacks", "total_rollbacks"),
            ("Successful Rollbacks", "successful_rollbacks"),
            ("Failed Rollbacks", "failed_rollbacks"),
            ("Rollback Success Rate", "rollback_success_rate"),
            ("Failures Not Rolled Back", "failures_without_rollback"),
            ("", ""),
            ("Average Rollback Time", "mttr_minutes"),
            ("Fastest Rollback", "fastest_rollback_minutes"),
            ("Slowest Rollback", "slowest_rollback_minutes"),
        ],
        lists=[
            Breakdown("Rollbacks by Environment", environment_lines("rollbacks_by_environment")),
            Breakdown("Main Failure Reasons", reason_lines),
        ],
    ),
    Section("🎯 PRODUCTION, AS DORA DEFINES IT", body=production_lines),
    Section("📦 PRODUCTION BY APPLICATION", body=application_lines, details=True),
    Section("🎓 DORA QUICK CHECK", body=quick_check_lines, details=True),
    Section("📈 TREND OF PRODUCTION", body=trend_lines),
    Section("📐 COMPARED WITH AN EARLIER RUN", body=compared_lines),
    Section("🏆 DORA MATURITY ASSESSMENT", body=maturity_lines),
)
"""The sections of the report, from top to bottom."""


def metric_step_lines(metrics: Metrics) -> List[str]:
    """Return what the step that calculates the metrics prints."""
    labels = {"mean_lead_time": "Mean Lead Time"}
    keys = ("deployment_frequency", "mean_lead_time", "change_failure_rate", "mttr_minutes")
    return [
        f"  ✓ {labels.get(key, METRICS[key].label)}: {value_text(key, metrics)}" for key in keys
    ]


def format_summary(metrics: Metrics) -> str:
    """Return the executive summary and the tier."""
    rows = {
        "Total Git Commits": "total_commits",
        "Total Deployments": "total_deployments",
        "Automated Rollbacks": "total_rollbacks",
        "Deployment Frequency": "deployment_frequency",
        "Average Lead Time": "mean_lead_time",
        "Change Failure Rate": "change_failure_rate",
        "MTTR": "mttr_minutes",
    }
    if not metrics.history.is_simulated:
        rows = {label.replace("Automated ", ""): key for label, key in rows.items()}
    shown = {label: value_text(key, metrics) for label, key in rows.items()}
    shown["Overall Maturity"] = "not assessable" if metrics.level is None else metrics.level.name
    lines = [
        "📊 EXECUTIVE SUMMARY:",
        *(line_of(f"  {label}:", text) for label, text in shown.items()),
    ]
    if metrics.level is not None and metrics.history.is_simulated:
        lines += ["", f"🏆 Performance Tier: {metrics.level.tier}"]
    return "\n".join(lines)


def as_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, also in the cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


def markdown_table(rows: Sequence[Mapping[str, str]]) -> List[str]:
    """Return rows, which have the same columns, as a table in Markdown."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *(list(map(as_markdown, row.values())) for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def format_markdown(report: Report) -> str:
    """Return the verdict, the tables of production and of environments, and the advice."""
    metrics, values = report.metrics, report.values
    lines = [
        f"## {as_markdown(level_text(metrics))}",
        "",
        f"**{as_markdown(source_text(report))}**, {window_text(metrics.history.window)}",
        "",
    ]
    if report.is_empty:
        return "\n".join([*lines, NOTHING_HAPPENED, ""])
    lines += [*markdown_table(verdict_rows(metrics)), "", "### Production alone", ""]
    lines += [*markdown_table(production_rows(metrics)), "", "### Environments", ""]
    rows = []
    for name, count in values["deployments_by_environment"].items():
        rate = show_number(values["success_rates"][name], " %")
        rows.append({"Environment": name, "Deployments": f"{count:,}", "Success": rate})
    lines += [*markdown_table(rows), "", "### Recommendations", ""]
    for line in report.advice:
        lead = "  - " if line.startswith(" ") else "- "
        lines.append(lead + as_markdown(line.strip()))
    return "\n".join([*lines, ""])


def production_rows(metrics: Metrics) -> List[Dict[str, str]]:
    """Return dora.dev's metrics of production: label, value, interval and number."""
    rows = []
    for metric, row in metrics.overall.iterrows():
        label, unit = PRODUCTION_METRICS[metric][:2]
        value, low, high = (in_human_units(row[key], unit) for key in ("value", "low", "high"))
        rows.append(
            {
                "Metric": label,
                "Value": "at least " * bool(row["at_least"]) + value,
                "95 % interval": "" if math.isnan(row["low"]) else f"{low} to {high}",
                "n": f"{int(row['n']):,}",
            }
        )
    return rows


def format_html(report: Report) -> str:
    """Return the verdict as HTML for a notebook."""
    metrics = report.metrics
    title = html.escape(f"{level_text(metrics)}: {score_text(metrics)}")
    window = window_text(metrics.history.window)
    source = html.escape(f"{source_text(report)}, {window}")
    table = pd.DataFrame(verdict_rows(metrics)).to_html(index=False, border=0)
    return f"<h4>{title}</h4><p>{source}</p>{table}"


def to_jsonable(value: Any) -> Any:
    """Return plain JSON values: NaN becomes null, numpy's numbers Python's, times ISO 8601."""
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, _dt.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary_document(
    metrics: Metrics,
    seed: Optional[int],
    flow: Optional[pd.DataFrame],
    scenario: Optional[Scenario] = None,
) -> Dict[str, Any]:
    """Return what `--json` prints and `metrics.json` holds, as plain JSON values."""
    history = metrics.history
    document = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "seed": seed,
        "window": {**history.window._asdict(), "days": history.window.days},
        "environments": history.environments,
        "commits": metrics.values["total_commits"],
        # of the deployments; the commits may be real
        "simulated": history.is_simulated or history.source == SIMULATED_TABLES,
        "source": history.source,
        "scenario": None if scenario is None else json.loads(scenario.to_json()),
        "metrics": metrics.values,
        "production": metric_documents(metrics.overall),
        "applications": {
            name: metric_documents(table) for name, table in metrics.by_application.items()
        },
        "quick_check": metrics.quick_check,
        "maturity": {
            "level": None if metrics.level is None else metrics.level.name,
            "score": metrics.score,
            "of": len(BENCHMARKS) - len(metrics.unjudged),
            "elite": metrics.elite,
            "not_assessable": metrics.unjudged,
        },
        "flow": None if flow is None else flow.to_dict("index"),
    }
    if not history.is_simulated:
        document["notes"] = history.notes
        document["coverage"] = []
    if history.coverage is not None:
        document["coverage"] = history.coverage.to_dict("records")
    return to_jsonable(document)


def metric_documents(table: pd.DataFrame) -> Dict[str, Dict[str, Any]]:
    """Return {metric: its fields}; a rate has no mean, 90th percentile or open ones."""
    documents = table.to_dict("index")
    for metric, fields in documents.items():
        if not metric.endswith(("_hours", "_minutes")):
            for name in ("mean", "p90", "open"):
                del fields[name]
        else:
            del fields["at_least"]
    return documents


def export_files(
    metrics: Metrics, document: Mapping[str, Any], trend: Optional[pd.DataFrame] = None
) -> Dict[str, bytes]:
    """Return the content of each file of an export: the tables as CSV, the numbers as JSON."""
    tables = {file: getattr(metrics.history, name) for name, file in TABLE_FILES.items()}
    files = {file: as_csv(table) for file, table in tables.items() if table is not None}
    if trend is not None:
        files["trend.csv"] = as_csv(trend)
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return {**files, "metrics.json": text.encode("utf-8", "replace")}


def as_csv(table: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8, with times in ISO 8601 (UTC)."""
    for column in table.columns:
        if isinstance(table[column].dtype, pd.DatetimeTZDtype):
            seconds = seconds_of(table[column])
            times = np.char.add(np.datetime_as_string(seconds.view("M8[s]"), unit="s"), "Z")
            texts = pd.Series(times, dtype=object, index=table.index)
            table = table.assign(**{column: texts.where(table[column].notna(), "")})
    text = table.to_csv(index=False)
    return text.replace(os.linesep, "\n").encode("utf-8", "replace")


# ---- Reporting engine: metrics -> dashboard ------------------------------------------------------

INK, MUTED, GRID = "#1f2933", "#52606d", "#d9e2ec"
GREEN, YELLOW, RED, GREY = (rate_grade(rate)[1] for rate in (100, 90, 0, math.nan))
GRADE_MARKS = {GREEN: "✓ ", YELLOW: "! ", RED: "✗ ", GREY: ""}  # read without colours as well
ENVIRONMENT_COLOURS = {"dev": "#1f77b4", "staging": "#ff7f0e", "production": "#2ca02c"}
LINE_STYLES = (("-", "o"), ("--", "s"), ("-", "^"), (":", "D"))
# fmt: off
TYPE_COLOURS = dict(zip(COMMIT_TYPES, (  # in the order of the types; those without one stand back
    "#4c9f9a", "#f28e5c", "#8da0cb", "#d986b8", "#b5cf5f", "#f3d250", "#c49a6c", "#e9b9d4",
    "#9c7bb8", "#6fb1d6", "#a05a4a", "#b8c2cc",
)))
# fmt: on
THEME = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlepad": 14,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.edgecolor": "#bcccdc",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "hatch.linewidth": 2.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.frameon": False,
    "text.hinting": "no_hinting",  # a tenth of the time to draw
}
MOST_DAYS_DRAWN = 60  # days that have a dot each; of more, the weeks are drawn
BADGES = {
    "simulated": "SIMULATED",
    "git": "Desired state, from the config repository",
    "argocd": "Measured from Argo CD",
    "files": "Measured from tables",
    SIMULATED_TABLES: "SIMULATED, read from tables",
}


@contextlib.contextmanager
def picture_style() -> Iterator[None]:
    """Set seaborn's white style in our colours; the caller's rcParams come back as they were."""
    with mpl_style.context(["default", {**sns.axes_style("whitegrid"), **THEME}]):
        yield


def colours_of(names: Sequence[str], known: Mapping[str, str]) -> List[Any]:
    """Return the known colour of each name; the others take unused colours in turn."""
    spare = iter(sns.color_palette("husl", len(names)))
    return [known.get(name) or next(spare) for name in names]


def drawable(text: str, width: int = 18) -> str:
    """Return a name as matplotlib can draw it: no mathtext, no unknown character, not too long."""
    known = font_characters()
    text = "".join(character if ord(character) in known else "?" for character in text)
    return shorten_text(text, width).replace("$", r"\$")


def shorten_text(text: str, width: int) -> str:
    """Return the beginning and the end of a text that is too long: both tell names apart."""
    if len(text) <= width:
        return text
    return text[: width // 2] + "…" + text[len(text) - (width - width // 2 - 1) :]


def drawable_names(names: Sequence[str], width: int = 18) -> List[str]:
    """Return the labels of names beside each other; look-alikes begin where they differ."""
    labels = [drawable(name, width) for name in names]
    for label, count in collections.Counter(labels).items():
        if count > 1:
            twins = [name for name, short in zip(names, labels) if short == label]
            begin = max(len(os.path.commonprefix(twins)) - 3, 0)
            for place, name in enumerate(names):
                if name in twins:
                    labels[place] = drawable(f"…{name[begin:]}", width)
    return labels


@functools.lru_cache(maxsize=1)
def font_characters() -> FrozenSet[int]:
    """Return the characters that the font has."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def draw_message(ax: Axes, title: str, message: str) -> Axes:
    """Draw a sentence in the place of a panel."""
    ax.set_title(title)
    ax.set_axis_off()
    place: Dict[str, Any] = dict(transform=ax.transAxes, ha="center", va="center")
    ax.text(0.5, 0.5, message, color=MUTED, fontsize=12, **place)
    return ax


def why_no_deployment(metrics: Metrics) -> str:
    """Return what to say where no deployment is known; nothing where one is."""
    if metrics.values["total_deployments"]:
        return ""
    if metrics.days_known.any():
        return "No deployment in this window"
    return "Unknown: less than a day is covered"


def plot_deployments_over_time(metrics: Metrics, ax: Axes) -> Axes:
    """Draw a line for each environment through its daily counts, or its weekly means if many."""
    title, history, why = "Deployments Over Time", metrics.history, why_no_deployment(metrics)
    if why:
        return draw_message(ax, title, why)
    names, days = history.environments, np.arange(history.window.days)
    dates = mdates.date2num(history.window.start.to_pydatetime()) + days
    places, counts, known = dates, metrics.deployments_by_day, metrics.days_known
    weekly = len(days) > MOST_DAYS_DRAWN
    if weekly:
        places, counts, known = weekly_means(dates, counts, known)
    else:
        weekend = (history.window.start.weekday() + days) % 7 >= 5
        stripes = [(day - 0.5, 1) for day in dates[weekend]]
        across: Dict[str, Any] = dict(transform=ax.get_xaxis_transform(), linewidth=0)
        ax.broken_barh(stripes, (0, 1), color="#e9edf1", zorder=0, **across)
    steps = max(400 // len(places), 1)  # from one count to the next
    x = np.interp(np.arange((len(places) - 1) * steps + 1) / steps, np.arange(len(places)), places)
    few = len(places) <= MOST_DAYS_DRAWN
    colours = colours_of(names, ENVIRONMENT_COLOURS)
    rows = np.where(known, counts, np.nan)
    for name, colour, row, style in zip(names, colours, rows, itertools.cycle(LINE_STYLES)):
        look: Dict[str, Any] = dict(color=colour, linewidth=1.7, clip_on=False)
        if few:
            look.update(marker=style[1], markersize=4.5, markevery=steps)
        if name == history.production:
            look.update(linewidth=2.8)
        ax.plot(x, monotone_line(row, steps), style[0], **look)
    ax.set(title=title, ylabel="Deployments a day" + ", weekly mean" * weekly)
    ax.set(xlim=(dates[0] - 0.6, dates[-1] + 0.6), ylim=(0, None))
    if not weekly or ax.get_ylim()[1] > 3:
        count_axis(ax.yaxis)
    date_axis(ax, dates)
    legend_below(ax, ax.get_lines(), names)
    return ax


def weekly_means(*rows: np.ndarray) -> Tuple[np.ndarray, ...]:
    """Return dates, counts and whether they are known, of whole weeks counted from the end."""
    weeks = [row[..., row.shape[-1] % 7 :].reshape(*row.shape[:-1], -1, 7) for row in rows]
    return weeks[0].mean(axis=-1), weeks[1].mean(axis=-1), weeks[2].all(axis=-1)


def monotone_line(counts: np.ndarray, steps: int) -> np.ndarray:
    """Return the counts with a smooth line from each to the next, at `steps` points of each step.

    Between two counts it stays between them (Fritsch and Carlson): a cubic whose slope at a count
    is the harmonic mean of those before and after it, and zero at a peak. It has a gap where a
    count is not known, which is NaN.
    """
    rise = np.diff(counts)
    before, after = np.append(np.nan, rise), np.append(rise, np.nan)
    same = before * after > 0
    slope = np.where(same, 2 * before * after / np.where(same, before + after, 1), 0)
    slope = np.where(np.isnan(before), np.nan_to_num(after), slope)
    slope = np.where(np.isnan(after), np.nan_to_num(before), slope)
    t = np.arange(steps) / steps
    low, high = counts[:-1, None], counts[1:, None]
    curve = low + (high - low) * t**2 * (3 - 2 * t)
    curve += slope[:-1, None] * t * (1 - t) ** 2 - slope[1:, None] * t**2 * (1 - t)
    line = np.append(curve.ravel(), counts[-1])
    line[::steps] = counts  # those before a gap as well
    return line


def count_axis(axis: Axis) -> None:
    """Write whole numbers on an axis, 2.5M for millions."""
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axis.set_major_formatter(EngFormatter(sep=""))


def date_axis(ax: Axes, dates: np.ndarray) -> None:
    """Write at most six dates on the axis; of many days weeks, months or years."""
    if len(dates) <= 100:
        step = math.ceil(len(dates) / 6)
        ax.set_xticks(dates[:: step if step < 4 else 7 * math.ceil(step / 7)])
    else:
        ax.xaxis.set_major_locator(mdates.AutoDateLocator(_dt.timezone.utc, minticks=3, maxticks=5))
    pattern = "%d %b" if len(dates) <= 200 else "%b %Y" if len(dates) <= 2000 else "%Y"
    ax.xaxis.set_major_formatter(mdates.DateFormatter(pattern, _dt.timezone.utc))


def legend_below(ax: Axes, artists: Sequence[Any], names: Sequence[str], columns: int = 4) -> None:
    """Draw a legend under the panel; of many, the last twelve (production is last)."""
    artists, names = artists[-12:], names[-12:]
    few = len(names) <= 4
    look: Dict[str, Any] = dict(loc="upper left", bbox_to_anchor=(-0.02, -0.09), ncol=columns)
    look.update(fontsize=10.5 if few else 8, columnspacing=1.4, labelspacing=0.2, handlelength=2.6)
    legend = ax.legend(artists, ["name"] * len(names), borderpad=0.2, **look)
    for text, label in zip(legend.get_texts(), drawable_names(names, 80 // columns if few else 12)):
        text.set_text(label)  # not as a label, as matplotlib hides those that begin with _


def plot_success_rates(metrics: Metrics, ax: Axes) -> Axes:
    """Draw a bar for each environment, coloured by `rate_grade`, and the 95 % target before it."""
    title, values = "Success Rate by Environment", metrics.values
    rates, counts = values["success_rates"], values["deployments_by_environment"]
    why = why_no_deployment(metrics)
    if why or all(map(math.isnan, rates.values())):
        return draw_message(ax, title, why or "Unknown: failures are not observable here")
    heights = np.nan_to_num(list(rates.values()))
    colours = [rate_grade(rate)[1] for rate in rates.values()]
    bound = values["unseen_deployments"] > 0  # some of them may have failed
    if bound:
        colours = [RED if colour == RED else GREY for colour in colours]
    ax.bar(range(len(rates)), heights, width=0.6, color=colours)
    target: Dict[str, Any] = dict(color="#1b6b3c", zorder=3)
    ax.axhline(95, linestyle="--", linewidth=2, **target)
    target.update(transform=ax.get_yaxis_transform(), va="center", fontweight="bold")
    ax.text(1.01, 95, "Target\n95%", fontsize=10, **target)
    few, upright = len(rates) <= 5, len(rates) <= 8
    low = heights < (86 if upright else 76)  # so that the label ends below the target line
    tops = np.where(low, heights, np.maximum(heights, 95)) + 1.5
    look: Dict[str, Any] = dict(ha="center", va="bottom", fontweight="bold")
    look.update(fontsize=12.5 if few else 7.5, rotation=0 if upright else 90)
    for place, (rate, colour) in enumerate(zip(rates.values(), colours)):
        at_most = "≤ " * (bound and not math.isnan(rate))
        text = GRADE_MARKS[colour] + at_most + show_number(rate, "%", 1 if upright else 0)
        ax.text(place, tops[place], text, **look)
    seen = "Not seen to fail (%)" if bound else "Healthy deployments (%)"
    edge = 0.6 if len(rates) > 1 else 1
    ax.set(title=title, ylabel=seen, ylim=(0, 110 if upright else 118), yticks=range(0, 101, 20))
    ax.set(xlim=(-edge, len(rates) - 1 + edge), xticks=range(len(rates)))
    labels = drawable_names(list(rates), 16 if len(rates) <= 3 else 12)
    ends = "\n" if few else ", "
    labels = [f"{label}{ends}n={counts[name]:,}" for label, name in zip(labels, rates)]
    ax.set_xticklabels(labels, fontsize=10.5 if few else 8.5)
    if not few:
        ax.tick_params("x", labelrotation=40)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    ax.grid(False, axis="x")
    return ax


def plot_commit_types(metrics: Metrics, ax: Axes) -> Axes:
    """Draw a pie of the commit types; those too thin for a label of their own are one slice."""
    title, types = "Commit Types Distribution", metrics.values["commit_types"]
    if not types:
        simulated = metrics.history.is_simulated
        why = "No commit in this window" if simulated else "Commits: not in this history"
        return draw_message(ax, title, why)
    commits, rest = metrics.values["total_commits"], "rarer types"
    wide = [count / commits >= 0.03 for count in types.values()].count(True)
    types = dict(sorted(top(types, max(wide, 1), rest).items(), key=lambda pair: -pair[1]))
    plain = {"other": "no type", rest: rest}
    names = [plain.get(name) or drawable(name, 11) for name in types]
    labels = [f"{name} {show_percent(n, commits)}" for name, n in zip(names, types.values())]
    look: Dict[str, Any] = dict(startangle=180, counterclock=False, labels=labels)
    look.update(colors=colours_of(list(types), {**TYPE_COLOURS, rest: GRID}))
    edges = dict(edgecolor="white", linewidth=1.5)
    texts = ax.pie(list(types.values()), wedgeprops=edges, **look)[1]
    for side in ("left", "right"):
        column = [text for text in texts if text.get_ha() == side]
        column.sort(key=lambda text: text.get_position()[1])
        for text, y in zip(column, apart([one.get_position()[1] for one in column], 0.17)):
            x = max(math.sqrt(max(1.1**2 - y**2, 0)), 0.05)
            text.set_position((x if side == "left" else -x, y))
    ax.set(title=title, ylim=(-1.25, 1.25))
    return ax


def apart(places: Sequence[float], gap: float) -> np.ndarray:
    """Return ascending places, moved as little as may be, so that a gap is between them."""
    steps = gap * np.arange(len(places))
    up = np.maximum.accumulate(places - steps)
    down = np.minimum.accumulate((places - steps)[::-1])[::-1]
    return (up + down) / 2 + steps


def top(counts: Mapping[str, int], most: int, rest: str) -> Dict[str, int]:
    """Return the first `most` of a ranking, and the others, if there are several, as one entry."""
    names = list(counts)
    if len(names) <= most + 1:
        return dict(counts)
    first = {name: counts[name] for name in names[:most]}
    return {**first, rest: sum(counts[name] for name in names[most:])}


def plot_deployment_status(metrics: Metrics, ax: Axes) -> Axes:
    """Draw how many syncs ended Synced and Failed, and what became of the Synced."""
    title, values, why = "Deployment Status", metrics.values, why_no_deployment(metrics)
    if why:
        return draw_message(ax, title, why)
    synced, failed = (values["deployments_by_status"][name] for name in (SYNCED, FAILED))
    by_environment, rates = values["deployments_by_environment"], values["success_rates"]
    blind = sum(n for name, n in by_environment.items() if math.isnan(rates[name]))
    degraded, unseen = values["failed_deployments"] - failed, values["unseen_deployments"] + blind
    parts: List[Tuple[str, int, Dict[str, Any]]] = [
        ("Healthy", synced - degraded - unseen, dict(color=GREEN)),
        ("health not seen", unseen, dict(color="#cbd2d9")),
        ("Synced, then Degraded", degraded, dict(color="white", edgecolor=RED, hatch="//")),
    ]
    parts, bottom = [part for part in parts if part[1]], 0
    for _, count, look in parts:
        ax.bar(0, count, width=0.5, bottom=bottom, linewidth=0, **look)
        bottom += count
    artists = [bars[0] for bars in ax.containers]
    ax.bar(1, failed, width=0.5, color=RED)
    failures = f"{failed:,}" + " seen" * (unseen > 0)
    if metrics.history.source == "git":
        failures = "unknown:\na repository shows\nno failed syncs"
    over: Dict[str, Any] = dict(ha="center", fontweight="bold", fontsize=12.5)
    tallest = max(synced, failed)
    ax.text(0, synced + 0.015 * tallest, f"{synced:,}", **over)
    ax.text(1, failed + 0.015 * tallest, failures, **over)
    ax.set(title=title, ylabel="Deployments", xlim=(-0.6, 1.6), ylim=(0, 1.12 * tallest))
    ax.set(xticks=[0, 1], xticklabels=[SYNCED, FAILED])
    count_axis(ax.yaxis)
    ax.grid(False, axis="x")
    if degraded or unseen:
        legend_below(ax, artists, [f"{name}: {count:,}" for name, count, _ in parts], 2)
    return ax


def plot_deployments_by_application(metrics: Metrics, ax: Axes, most: int = 10) -> Axes:
    """Draw the deployments of each application, the greatest on top; of many, the rest as one."""
    title, counts = "Deployments by Application", metrics.values["deployments_by_application"]
    if not counts:
        return draw_message(ax, title, why_no_deployment(metrics))
    shown = top(counts, most, f"{len(counts) - most} others")
    ascending = sorted(shown.items(), key=lambda pair: (pair[1], pair[0]))
    heights = [count for _, count in ascending]
    bars = ax.barh(range(len(ascending)), heights, height=0.6, color="#f093fb", edgecolor="black")
    ax.bar_label(bars, [f"{count:,}" for count in heights], padding=5, fontweight="bold")
    ax.set(title=title, xlabel="Deployments", yticks=range(len(ascending)))
    ax.set_yticklabels(drawable_names([name for name, _ in ascending]))
    edge = 0.6 if len(ascending) > 1 else 1
    ax.set_ylim(-edge, len(ascending) - 1 + edge)
    count_axis(ax.xaxis)
    ax.margins(x=0.15)
    ax.grid(False, axis="y")
    return ax


def plot_scorecard(metrics: Metrics, ax: Axes) -> Axes:
    """Draw the level with its medal, and the four benchmarks with their targets, in monospace."""
    ax.set(title="DORA Metrics Scorecard", xlim=(0, 10), ylim=(0, 10))
    ax.set_axis_off()
    mono: Dict[str, Any] = dict(family="DejaVu Sans Mono", va="center")
    judged, left, name = len(BENCHMARKS) - len(metrics.unjudged), 0.0, NOT_ASSESSABLE
    score = f"{metrics.score} of {judged} elite targets met"
    if metrics.level is None:
        score = f"met {metrics.score} of the {judged} targets that can be judged"
    else:
        draw_medal(ax, metrics.level)
        left, name = 2.3, metrics.level.name
    ax.text(left, 8.95, name, fontsize=20, fontweight="bold", **mono)
    ax.text(left, 7.9, score, fontsize=12, color=MUTED, **mono)
    ax.plot([0, 10], [6.95, 6.95], color=GRID, linewidth=1.2)
    marks = {True: ("✓", GREEN), False: ("✗", RED), None: ("?", GREY)}
    for y, key in zip((6.1, 4.4, 2.7, 1.0), BENCHMARKS):
        mark, colour = marks[metrics.elite[key]]
        circle = dict(boxstyle="circle,pad=0.25", facecolor=colour, edgecolor="none")
        ax.text(0.25, y - 0.3, mark, color="white", ha="center", bbox=circle, **mono)
        ax.text(0.8, y, METRICS[key].label, fontsize=13, **mono)
        ax.text(
            10, y, benchmark_text(key, metrics), ha="right", fontsize=14, fontweight="bold", **mono
        )
        ax.text(0.8, y - 0.7, card_verdict(key, metrics), fontsize=10, color=MUTED, **mono)
    return ax


def card_verdict(key: str, metrics: Metrics) -> str:
    """Return whether a benchmark is met, by which target, and what it is measured over."""
    if key in metrics.unjudged:
        return f"not assessable: {metrics.unjudged[key]}"
    target = BENCHMARKS[key]
    verdict = "met" if metrics.elite[key] else "missed"
    over = "all environments"
    if key == "mean_lead_time":
        over = "to production"
        if metrics.history.changes is not None:
            over = "config-repository lead time"
    if math.isnan(metrics.values[key]):
        over = "nothing failed"
    return f"{verdict}: elite {target.words}, {over}"


def draw_medal(ax: Axes, level: Level) -> None:
    """Draw a medal on its ribbon, or a rising arrow, in shapes: the fonts have no such glyph."""
    if level is LEVELS[-1]:
        for x, height in ((0.1, 0.7), (0.65, 1.3), (1.2, 2.0)):
            ax.add_patch(mpatches.Rectangle((x, 7.4), 0.4, height, color=level.medal))
        rising: Dict[str, Any] = dict(arrowstyle="-|>", color=INK, linewidth=2)
        ax.annotate("", (1.9, 9.9), (0.0, 8.5), arrowprops=rising)
        return
    for side, colour in ((-1, "#3a6ea5"), (1, "#5b8fc7")):
        ribbon = [(0.9, 8.3), (0.9 + side * 0.75, 9.9), (0.9 + side * 0.25, 9.9), (0.9, 9.0)]
        ax.add_patch(mpatches.Polygon(ribbon, closed=True, color=colour))
    rim: Dict[str, Any] = dict(markeredgecolor="white", linestyle="")
    ax.plot(0.9, 8.2, "o", markersize=38, markerfacecolor=level.medal, markeredgewidth=2, **rim)
    ax.plot(0.9, 8.2, "o", markersize=29, markerfacecolor="none", markeredgewidth=1.5, **rim)
    middle: Dict[str, Any] = dict(ha="center", va="center_baseline", color="white")
    ax.text(0.9, 8.2, f"{5 - level.score}", fontsize=16, fontweight="bold", **middle)


def draw_dashboard(
    metrics: Metrics, dpi: int = 300, seed: Optional[int] = None, real_commits: bool = False
) -> Figure:
    """Draw the six panels, 18 x 10 in, each on a white card on a transparent page.

    The figure is not registered with pyplot: nothing shows it but the one who asked for it.
    """
    plots = (
        plot_deployments_over_time,
        plot_success_rates,
        plot_commit_types,
        plot_deployment_status,
        plot_deployments_by_application,
        plot_scorecard,
    )
    with picture_style():
        figure = new_page(dpi)
        for number, plot in enumerate(plots):
            plot(metrics, add_panel(figure, number))
        fit_panels(figure)
        history, counts = metrics.history, metrics.values["deployments_by_environment"]
        badge, window = BADGES.get(history.source, BADGES["files"]), history.window
        if history.is_simulated and real_commits:
            badge = "SIMULATED deployments of real commits"
        note = f"{window.start:%Y-%m-%d} to {window.last:%Y-%m-%d} UTC, "
        note += count_text(window.days, "day")
        if history.is_simulated and seed is not None:
            note += f", seed {seed}"
        header = draw_header(figure, "GitOps delivery dashboard", badge, note)
        right: Dict[str, Any] = dict(ha="right", va="center")
        count = count_text(metrics.values["total_deployments"], "deployment")
        header.text(0.988, 0.66, count, fontsize=18, fontweight="bold", **right)
        to = f"{counts[history.production]:,} of them to {drawable(history.production)}"
        header.text(0.988, 0.22, to, fontsize=12, color=MUTED, **right)
    return figure


def draw_what_if(forecast: Forecast, dpi: int = 300) -> Figure:
    """Draw the four benchmarks, a card each: the months of each scenario against the elite line."""
    with picture_style():
        figure = new_page(dpi)
        for number, key in enumerate(BENCHMARKS):
            plot_months(forecast, key, add_panel(figure, number, columns=2))
        fit_panels(figure)
        note = f"{forecast.runs} months of {count_text(forecast.window.days, 'day')} for each "
        note += f"scenario, seed {forecast.seed}"
        if forecast.measured is not None:
            note += ", baseline fitted to the measured history"
        note += f". ELITE in {elite_shares(forecast)}"
        legend_in(draw_header(figure, "What if?", "SIMULATED months", note), figure.axes[0])
    return figure


def elite_shares(forecast: Forecast) -> str:
    """Return how many months of each scenario are ELITE, for the header of the picture."""
    shares = []
    for name, months in list(forecast.months.items())[:4]:
        levels = level_counts(months, forecast.calibration)
        share = show_percent(levels[LEVELS[0].name], forecast.runs, 0) if levels else "n/a"
        shares.append(f"{share} ({drawable(name, 96 // min(len(forecast.months), 4))})")
    return ", ".join(shares)


def plot_months(forecast: Forecast, key: str, ax: Axes) -> Axes:
    """Draw a row for each scenario: its months as dots, their median, and from 5 % to 95 % of them.

    Lines mark the elite limit and what was measured. The name says how many months meet the target.
    """
    metric, (better, limit, unit) = METRICS[key], BENCHMARKS[key]
    noise = np.random.Generator(np.random.PCG64(0)).uniform(-0.28, 0.28, 500)
    labels = []
    for place, (name, months) in enumerate(forecast.months.items()):
        known = months[key][~np.isnan(months[key])][:500]
        dots: Dict[str, Any] = dict(alpha=0.35, markersize=4, markeredgewidth=0, label="a month")
        colour = "#7b5ea7" if place else "#829ab1"  # the baseline stands back
        ax.plot(known, place + noise[: len(known)], "o", color=colour, **dots)
        middle, low, high = month_spread(months[key])
        ax.plot([low, high], [place] * 2, color=INK, linewidth=2, label="5-95 % of months")
        ax.plot([middle], [place], "D", color=INK, markersize=8, label="median month")
        met, of = target_odds(months, key)
        labels.append(f"{drawable(name, 32)}\ntarget met: {show_percent(met, of, 0)}")
    ax.axvline(limit, color=GREEN, linestyle="--", linewidth=1.8, label="elite limit")
    measured = (forecast.measured or {}).get(key, math.nan)
    if not math.isnan(measured):
        ax.axvline(measured, color=RED, linestyle=":", linewidth=2.2, label="measured")
    elif key in forecast.calibration.assumed:
        note = "n/a: " + forecast.calibration.assumed[key]
        ax.text(0.5, 0.5, note, transform=ax.transAxes, ha="center", color=MUTED, fontsize=12)
    axis = "deployments a day" if unit == "/day" else metric.unit.strip()
    ax.set(title=f"{metric.label}, elite {better}{limit:g}{unit}", xlabel=axis, xlim=(0, None))
    ax.set(ylim=(len(labels) - 0.4, -0.6), yticks=range(len(labels)))
    ax.set_yticklabels(labels, fontsize=10.5 if len(labels) < 8 else 6)
    ax.grid(False, axis="y")
    return ax


def draw_levers(table: pd.DataFrame, runs: int, step: float, dpi: int = 300) -> Figure:
    """Draw the tornado chart of a table of levers: a bar for what each does to the metric."""
    metric = lever_metric(table)
    with picture_style():
        figure = new_page(dpi)
        ax = plot_levers(table, add_panel(figure, 0, columns=1, rows=1))
        fit_panels(figure)
        note = f"{runs} months with each knob improved by {100 * step:g} %"
        if len(table):
            note += f"; the mean month of the baseline: {metric.text(table['before'].iloc[0])}"
        title, badge = f"What matters most for {metric.label}", "SIMULATED months"
        legend_in(draw_header(figure, title, badge, note), ax)
    return figure


def plot_levers(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw a bar for each lever, the strongest on top, with its 95 % interval."""
    if not len(table):
        return draw_message(ax, "", "No knob can be improved")
    metric = lever_metric(table)
    groups = table["knob"].str.replace("environments.", "", regex=False).str.rpartition(".")[0]
    ends = np.stack([table["difference"] - table["low"], table["high"] - table["difference"]])
    known = {**ENVIRONMENT_COLOURS, "team": "#7b5ea7", "rollback": GREY}
    names = list(dict.fromkeys(groups))
    for group, colour in zip(names, colours_of(names, known)):
        mine = np.flatnonzero(groups == group)
        bars: Dict[str, Any] = dict(height=0.62, xerr=np.nan_to_num(ends[:, mine]), ecolor=INK)
        bars.update(color=colour, capsize=3, label=drawable(group))
        ax.barh(mine, table["difference"].fillna(0).iloc[mine], **bars)
    ax.axvline(0, color=INK, linewidth=1)
    unit = {"%": "percentage points", "": "count"}.get(metric.unit, metric.unit.strip())
    title = f"Change of the mean month ({unit}), with its 95 % interval"
    ax.set(title=title, ylim=(len(table) - 0.4, -0.6), yticks=range(len(table)))
    ax.set_yticklabels([drawable(change, 90) for change in table["change"]])
    ax.grid(False, axis="y")
    return ax


HEADER = 0.92  # the share of a picture's height below its header
GAP_X, GAP_Y = 0.006, 0.0108  # between two cards, 0.108 in
PAD_X, PAD_Y = 0.013, 0.02  # from the edge of a card to what is in it
TITLE = 0.06  # the height of a panel's title


def new_page(dpi: int) -> Figure:
    """Return a transparent page, 18 x 10 in."""
    figure = Figure(figsize=(18, 10), dpi=dpi)
    figure.patch.set_alpha(0)
    return figure


def draw_header(figure: Figure, title: str, badge: str, note: str) -> Axes:
    """Draw a strip at the top that says what the picture is; return its axes."""
    place = GAP_X, HEADER, 1 - 2 * GAP_X, 1 - HEADER - GAP_Y
    add_card(figure, place)
    ax = figure.add_axes(place, frameon=False)
    ax.set_axis_off()
    words = ax.text(PAD_X, 0.66, title, fontsize=18, fontweight="bold", va="center")
    ax.text(PAD_X, 0.22, note, fontsize=12, color=MUTED, va="center")
    loud = badge.startswith("SIMULATED")
    box = dict(boxstyle="round,pad=0.35", facecolor=INK if loud else "white", edgecolor=INK)
    beside: Dict[str, Any] = dict(xycoords=words, xytext=(16, 0), textcoords="offset points")
    beside.update(fontsize=12, fontweight="bold", va="center", bbox=box)
    ax.annotate(badge, (1, 0.5), color="white" if loud else INK, **beside)
    return ax


def legend_in(header: Axes, ax: Axes) -> None:
    """Draw one legend of what a panel shows at the right of the header."""
    known = dict(zip(*reversed(ax.get_legend_handles_labels())))
    place: Dict[str, Any] = dict(loc="center right", bbox_to_anchor=(0.995, 0.66))
    header.legend(known.values(), known.keys(), ncol=max(len(known), 1), **place)


def add_panel(figure: Figure, number: int, columns: int = 3, rows: int = 2) -> Axes:
    """Draw the card of a panel below the header; return its axes."""
    width, height = (1 - GAP_X) / columns - GAP_X, (HEADER - GAP_Y) / rows - GAP_Y
    left = GAP_X + number % columns * (width + GAP_X)
    bottom = GAP_Y + (rows - 1 - number // columns) * (height + GAP_Y)
    add_card(figure, (left, bottom, width, height))
    inner = width - 2 * PAD_X, height - PAD_Y - TITLE
    return figure.add_axes((left + PAD_X, bottom + PAD_Y, *inner))


def add_card(figure: Figure, place: Tuple[float, float, float, float]) -> None:
    """Draw a white card on the page."""
    (left, bottom, width, height), shape = place, "round,pad=0,rounding_size=0.008"
    look: Dict[str, Any] = dict(facecolor="white", edgecolor="#cbd2d9", linewidth=1, zorder=-1)
    look.update(figure=figure, transform=figure.transFigure, mutation_aspect=1.8)
    card = mpatches.FancyBboxPatch((left, bottom), width, height, boxstyle=shape, **look)
    figure.patches.append(card)


def fit_panels(figure: Figure) -> None:
    """Make room on the cards for the labels of each panel, and align the titles with the cards."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # the canvas that render_png draws on
    for ax in figure.axes:
        room = ax.get_position(original=True)  # the whole card
        if ax.axison and ax.get_aspect() == "auto":
            beside = [*ax.texts, *filter(None, [ax.get_legend()])]
            extent = ax.get_tightbbox(renderer, bbox_extra_artists=beside)
            assert extent is not None  # only hidden axes have none
            taken = extent.transformed(figure.transFigure.inverted())
            (x0, y0), (x1, _) = 2 * room.get_points() - taken.get_points()
            ax.set_position(Bbox.from_extents(x0, y0, x1, room.y1))
        ax.apply_aspect()  # a pie is as wide as it is high
        at = ax.get_position()
        ax.title.set(ha="left", x=(room.x0 - at.x0) / at.width)


def render_png(figure: Figure) -> bytes:
    """Return the figure as a palette PNG: a third of the size of RGBA, and faster to write."""
    canvas: Any = figure.canvas
    with picture_style():
        canvas.draw()
    pixels, palette = to_palette(np.asarray(canvas.buffer_rgba()))
    image = Image.fromarray(pixels)
    image.putpalette(palette[:, :3].tobytes())
    file = io.BytesIO()
    dpi = (figure.dpi, figure.dpi)
    image.save(file, "PNG", transparency=palette[:, 3].tobytes(), dpi=dpi, compress_level=6)
    return file.getvalue()


def to_palette(rgba: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return the palette index of each pixel, and the palette of at most 88 RGBA colours.

    The most frequent colours stay as they are. The rare others (edges of letters) become the
    nearest of those. This works on runs of equal pixels: a chart has fifty times fewer of them.
    """
    pixels = np.ascontiguousarray(rgba).view("<u4").ravel()
    starts = np.append(0, np.flatnonzero(pixels[1:] != pixels[:-1]) + 1)
    lengths = np.diff(np.append(starts, len(pixels)))
    colour_of_run, colours = pd.factorize(pixels[starts])  # by hashing: sorts nothing
    frequent = np.argsort(-np.bincount(colour_of_run, lengths), kind="stable")[:88]
    channels = colours.astype("<u4").view(np.uint8).reshape(-1, 4).astype(np.int32)
    distance = sum((channels[:, [i]] - channels[frequent, i]) ** 2 for i in range(4))
    index = distance.argmin(axis=1).astype(np.uint8)
    indices = np.repeat(index[colour_of_run], lengths).reshape(rgba.shape[:2])
    return indices, channels[frequent].astype(np.uint8)


# ---- What-if: scenarios -> months side by side --------------------------------------------------

BLOCK = 250  # months simulated at once, fewer where they have many commits: this bounds the memory
LEAST_MONTHS = 30  # of a difference: the normal interval is good from there on
MOST_RUNS = 100_000

# fmt: off
FORECAST_METRICS: Dict[str, Metric] = {
    **{key: METRICS[key] for key in BENCHMARKS},
    "production_deployment_frequency": METRICS["production_deployment_frequency"]._replace(
        label="Production Deployment Frequency"),
    "production_median_lead_time": PRODUCTION_METRICS["change_lead_time_hours"]._replace(
        label="Production Median Lead Time", unit=" hours"),
    "production_change_fail_rate": PRODUCTION_METRICS["change_fail_rate_pct"]._replace(
        label="Production Change Fail Rate"),
    "production_failures": Metric(
        "Production Failures", "", "Degraded deployments to production.", digits=0),
    "median_lead_time": METRICS["median_lead_time"],
    "total_deployments": METRICS["total_deployments"],
    "successful_rollbacks": METRICS["successful_rollbacks"],
    "waiting_hours": Metric(
        "Waiting", " hours",
        "Hours of the month from each commit to the end of the deployment that shipped it."),
    "failed_hours": Metric(
        "Failed State", " hours",
        "Hours of the month in which an application was failed in production: to the end of the "
        "rollback that succeeded, or the start of the next good deployment."),
}
# fmt: on
"""What is known of each simulated month."""

SHOWN = tuple(FORECAST_METRICS)[:8]  # in the text

Progress = Callable[[str], Any]
Change = Union[Scenario, Callable[[Scenario], Scenario]]
"""Another scenario, or what makes one from the baseline."""
Months = Mapping[str, np.ndarray]
"""{metric: its value in each simulated month, NaN where it is undefined}"""


class Forecast(NamedTuple):
    """The months of a baseline and of other scenarios, side by side."""

    months: Dict[str, Months]  # the first is the baseline
    scenarios: Dict[str, Scenario]
    calibration: Calibration
    window: Window
    seed: int
    measured: Optional[Mapping[str, float]] = None  # the forecast metrics of the history
    scores: Optional[pd.DataFrame] = None  # of a backtest

    @property
    def verdict(self) -> str:
        """What a backtest says of the forecasts; nothing without one."""
        return "" if self.scores is None else backtest_verdict(self.scores)

    @property
    def baseline(self) -> Months:
        """The months of the baseline."""
        return next(iter(self.months.values()))

    @property
    def runs(self) -> int:
        """How many months each scenario has."""
        return len(self.baseline["waiting_hours"])

    @property
    def table(self) -> pd.DataFrame:
        """A row for a metric of a month of a scenario: `scenario`, `run`, `metric`, `value`."""
        frames = [
            pd.DataFrame(
                {
                    "scenario": name,
                    "run": np.tile(np.arange(self.runs), len(months)),
                    "metric": np.repeat(list(months), self.runs),
                    "value": np.concatenate(list(months.values())),
                }
            )
            for name, months in self.months.items()
        ]
        table = ForecastTable(pd.concat(frames, ignore_index=True))
        table.forecast = self
        return table


class ForecastTable(pd.DataFrame):
    """The table of a forecast. A notebook shows its summary; a part of it is a plain DataFrame."""

    forecast: Optional[Forecast] = None

    @property
    def _constructor(self) -> type:
        return pd.DataFrame

    def _repr_html_(self) -> Optional[str]:
        if self.forecast is None:  # it was read from a pickle
            return super()._repr_html_()
        return forecast_html(self.forecast)


def simulate_events(
    draws: Draws, window: Window, noise: Noise, commits: Optional[Commits] = None
) -> Events:
    """Simulate the months of the draws: a group of events each."""
    if commits is None:
        commits = simulate_commits(draws, window, noise.stream("commits"))
    deployments = run_pipeline(commits, draws, window, noise)[0]
    rollbacks = roll_back(deployments, draws, noise, len(commits.time))
    runs, environments = sum(months for _, months in draws), len(draws[0][0].environments)
    return Events(commits, deployments, rollbacks, window, runs, environments)


def forecast_months(
    changes: Mapping[str, Change],
    calibration: Calibration,
    window: Window,
    runs: int,
    seed: int,
    progress: Progress = lambda message: None,
    noise_of: Callable[[int, int], Noise] = Noise,
) -> Dict[str, Months]:
    """Simulate the same `runs` months with each change of the baseline: {name: its months}.

    All scenarios share the noise and the draws of the knobs. So a change that changes nothing gives
    exactly the same months, and the months of a scenario do not depend on what it is compared with.
    `noise_of` returns the noise of a seed and a block; a cached one serves the next call too.
    """
    before = window.start - pd.Timedelta(days=calibration.warm_up)
    whole, known = Window(before, window.end), calibration.draws(runs)
    draws: Dict[str, Draws] = {}
    blocks: Dict[str, List[Months]] = {}
    of_size: Dict[int, List[str]] = {}  # the names of the scenarios that have blocks of a size
    for name, change in changes.items():
        own = [(apply_change(change, calibration.scenario, one), many) for one, many in known]
        commits_per_month = whole.days * own[0][0].team.commits_per_day
        size = int(np.clip(2e6 / max(commits_per_month, 1), 1, BLOCK))
        of_size.setdefault(size, []).append(name)
        draws[name], blocks[name] = own, []
    for size, names in sorted(of_size.items()):
        for first in range(0, runs, size):
            noise, teams, commits = noise_of(seed, 1 + first), None, None
            for name in names:
                part = cut_draws(draws[name], first, first + size)
                if [scenario.team for scenario, _ in part] != teams:
                    teams = [scenario.team for scenario, _ in part]
                    commits = simulate_commits(part, whole, noise.stream("commits"))
                events = simulate_events(part, whole, noise, commits)
                alone = part[0][0].environments[-1].starts == "commit"
                blocks[name].append(month_metrics(events, window, calibration, alone))
            progress(f"{min(first + size, runs)} of {runs} months simulated")
    return {
        name: {key: np.concatenate([block[key] for block in months]) for key in FORECAST_METRICS}
        for name, months in blocks.items()
    }


def cut_draws(draws: Draws, first: int, end: int) -> Draws:
    """Return the draws of the months from `first` to before `end`."""
    months = np.diff(np.clip(months_of_draws(draws), first, end)).tolist()
    return [(scenario, many) for (scenario, _), many in zip(draws, months) if many]


def apply_change(change: Change, baseline: Scenario, draw: Scenario) -> Scenario:
    """Return what a change of the baseline makes of a possible scenario, the draw.

    1. A function changes the draw.
    2. The draw that is the baseline itself becomes the scenario of the change.
    3. A scenario with other environments replaces the draw, but for the team.
    4. Otherwise the draw gets the knobs in which the scenario differs from the baseline.
    """
    if not isinstance(change, Scenario):
        return change(draw)
    if draw is baseline:
        return change
    if change.names != baseline.names:
        team = changed_knobs(change.team, baseline.team, draw.team)
        return dataclasses.replace(change, team=team)
    changed = [
        changed_knobs(*three)
        for three in zip(*(one.groups.values() for one in (change, baseline, draw)))
    ]
    return Scenario(changed[0], tuple(changed[2:]), changed[1], change.failure_reasons)


def changed_knobs(change: Knobs, baseline: Knobs, draw: Knobs) -> Any:
    """Return a group of a draw with the knobs in which the change differs from the baseline."""
    values = dataclasses.asdict(change)  # type: ignore[call-overload]
    changed = {name: new for name, new in values.items() if new != getattr(baseline, name)}
    return draw.replaced(changed) if changed else draw


def month_metrics(
    events: Events, window: Window, calibration: Calibration, alone: bool = False
) -> Months:
    """Calculate the forecast metrics of each group of events, of what happened in the window.

    What happened before the window only fills the pipeline. If production has commits of its own
    (`alone`), each ships with its own deployment, and other commits are no changes of production.
    """
    first, end = window.seconds
    production = events.in_production()
    changes = shipped_changes(production)
    if alone:
        own = production.deployments
        changes = Changes(own.group, events.commits.time[own.commit], own.end)
    events, production = events.since(window), production.since(window)
    known = headline_metrics(events, np.ones(events.environments, bool))
    total = events.of_group(production.deployments)
    failed = events.of_group(production.deployments, production.deployments.bad)
    shipped = (changes.shipped >= first) & (changes.shipped < end)
    lead, group = (changes.shipped - changes.committed)[shipped], changes.group[shipped]
    median = group_medians(group, lead, events.groups) / 3600
    waits = np.minimum(changes.shipped, end) - np.maximum(changes.committed, first)
    waits = np.maximum(waits, 0) / 3600
    known.update(
        production_median_lead_time=median,
        production_change_fail_rate=safe_ratio(100 * failed, total),
        production_failures=failed,
        waiting_hours=np.bincount(changes.group, waits, minlength=events.groups),
        failed_hours=hours_failed(production),
    )
    if calibration.every_change:
        mean = np.bincount(group, lead, minlength=events.groups) / 3600
        known["mean_lead_time"] = safe_ratio(mean, np.bincount(group, minlength=events.groups))
        known["median_lead_time"] = median
    known.update({key: np.full(events.groups, np.nan) for key in calibration.assumed})
    return {metric: known[metric].astype(float) for metric in FORECAST_METRICS}


def hours_failed(events: Events) -> np.ndarray:
    """Return for each group the hours in which an application was failed in production.

    A failure lasts to the end of the rollback that succeeded, the start of the next good deployment
    or the end of the window. Hours in which several deployments are failed count once.
    """
    deployments, ended, end = events.deployments, find_recoveries(events), events.window.seconds[1]
    begin = deployments.end[ended.failed]
    next_good = np.where(ended.next_good >= 0, deployments.time[ended.next_good], NEVER)
    over = np.minimum(np.minimum(ended.rolled_back, next_good), end)
    place = deployments.place[ended.failed]
    order = np.lexsort((begin, place))
    lift = number_runs(place[order]) * NEVER  # sets the places apart
    counted = np.append(0, np.maximum.accumulate(over[order] + lift))[:-1] - lift
    failed = np.maximum(over[order] - np.maximum(begin[order], counted), 0) / 3600
    return events.of_group(deployments, ended.failed[order], failed)


def level_counts(months: Months, calibration: Optional[Calibration] = None) -> Dict[str, int]:
    """Return how many months reach each level; none where a benchmark was not measured.

    A month in which a benchmark cannot be judged counts as NOT_ASSESSABLE, which is left out where
    there is no such month.
    """
    counts = dict.fromkeys((level.name for level in LEVELS), 0)
    if calibration is not None and {*calibration.assumed, *calibration.bounds} & set(BENCHMARKS):
        return {}
    judged = is_assessable(months)
    scores = np.bincount(maturity_score(months)[judged], minlength=len(BENCHMARKS) + 1).tolist()
    for score, count in enumerate(scores):
        counts[level_of(score).name] += count
    none = int(np.count_nonzero(~judged))
    return {**counts, NOT_ASSESSABLE: none} if none else counts


def month_spread(values: np.ndarray) -> Tuple[float, float, float]:
    """Return median, 5 % and 95 % quantile over the months in which the value is defined.

    The quantiles are the values of the ranks 0.05 (n + 1) and 0.95 (n + 1) of n: another month lies
    between them with a probability of 90 %.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan, math.nan
    outer = max(0.05 * (len(known) + 1) - 1, 0) / max(len(known) - 1, 1)
    middle, low, high = np.quantile(known, [0.5, outer, 1 - outer]).tolist()
    return middle, low, high


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> Tuple[float, float, float]:
    """Return the mean difference and its 95 % interval over the months in which both are defined.

    Both have the same noise, so what they have in common cancels out. The interval is the normal
    one. Fewer than LEAST_MONTHS months give NaN.
    """
    difference = (values - baseline)[~np.isnan(values - baseline)]
    if len(difference) < LEAST_MONTHS:
        return math.nan, math.nan, math.nan
    mean, spread = float(difference.mean()), float(difference.std(ddof=1))
    error = Z_95 * spread / math.sqrt(len(difference))
    return mean, mean - error, mean + error


def named_change(text: str, baseline: Scenario) -> Tuple[str, Change]:
    """Return the name and the change that `--what-if` gives, as `NAME: CHANGE` or `CHANGE` alone.

    The change is of knobs, or it is a preset or a JSON file.
    """
    found = re.fullmatch(r"([^=:]{2,}):\s*(.+)", text.strip())
    name, text = found.groups() if found else (text, text)
    if "=" in text:
        parse_change(text, baseline)
        return name, functools.partial(parse_change, text)
    if text in PRESETS:
        return name, functools.partial(preset_for, text)
    if not Path(text).is_file():
        alike = difflib.get_close_matches(text, PRESETS, 1)
        hint = f"did you mean {alike[0]}?" if alike else "there is no such file;"
        ways = f"KNOB=VALUE, a preset ({', '.join(PRESETS)}) or a JSON file"
        raise GitOpsError(f"unknown scenario {in_quotes(text)}; {hint} give {ways}")
    return name, read_scenario(text, baseline)


def preset_for(name: str, baseline: Scenario) -> Scenario:
    """Return a preset with the team of the baseline.

    Where the first environment takes a share of all commits, the preset has these alone.
    """
    first, team = baseline.environments[0], baseline.team
    if first.starts == "commit":
        rate = team.commits_per_day * first.approval_rate
        team = team.replaced({"commits_per_day": rate})
    return dataclasses.replace(PRESETS[name], team=team)


class Prices(NamedTuple):
    """What an hour of failed state and of waiting cost, and a change once; None: not given."""

    failed: Optional[float] = None
    waiting: Optional[float] = None
    investment: Optional[float] = None


def cost_table(months: Mapping[str, Months], prices: Prices) -> pd.DataFrame:
    """Return what a month costs: a row for each scenario (the index).

    Each cell has the median, 5 % and 95 % of the months. Columns: `failed_hours`, `waiting_hours`,
    `cost` of the hours that have a price, `saved` of it against the baseline, and `payback`, the
    months in which that saves the investment (infinite if it never does).
    """
    rows: Dict[str, Dict[str, Sequence[float]]] = {}
    baseline = None
    for name, own in months.items():
        cost = np.zeros(len(own["failed_hours"]))
        if prices.failed is not None:
            cost = cost + prices.failed * own["failed_hours"]
        if prices.waiting is not None:
            cost = cost + prices.waiting * own["waiting_hours"]
        if baseline is None:
            baseline = cost
        saved = month_spread(baseline - cost)
        back = [(prices.investment or 0) / value if value > 0 else math.inf for value in saved]
        rows[name] = {
            "failed_hours": month_spread(own["failed_hours"]),
            "waiting_hours": month_spread(own["waiting_hours"]),
            "cost": month_spread(cost),
            "saved": saved,
            "payback": (back[0], back[2], back[1]),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


# ---- Recommendations: the smallest change that meets a target -----------------------------------

ODDS = 0.9  # a change is recommended that meets the target in this share of the months
RATIOS = tuple(0.5 ** (step / 4) for step in range(1, 17))  # of a change: from a sixth less to 1/16


class Lever(NamedTuple):
    """A knob that a team can improve."""

    group: str  # of the scenario's groups
    declared: Any  # the dataclass field of the knob

    @property
    def path(self) -> str:
        """What a change calls the knob."""
        return f"{self.group}.{self.declared.name}"

    def value(self, scenario: Scenario) -> Any:
        """Return the knob's value in a scenario."""
        return getattr(scenario.groups[self.group], self.declared.name)

    def apply(self, ratio: float, scenario: Scenario) -> Scenario:
        """Return the scenario with the knob improved: times, risks and failures times the ratio.

        Values are rounded to three digits. A train leaves at the next shorter usual interval.
        """
        value, name = self.value(scenario), self.declared.name
        if name == "release_every_hours":
            value = next((every for every in TRAINS if every <= value * ratio), value)
        elif name.endswith("_rate"):
            value = 1 - float(f"{(1 - value) * ratio:.3g}")
        elif isinstance(value, tuple):
            value = tuple(float(f"{ratio * edge:.3g}") for edge in value)
        else:
            value = float(f"{ratio * value:.3g}")
        return scenario.with_knobs(self.group, **{name: value})

    def in_words(self, before: Scenario, after: Scenario) -> str:
        """Return the change in words."""
        name, environment = self.declared.name, self.group.replace("environments.", "", 1)
        values = (in_words(name, self.value(scenario)) for scenario in (before, after))
        words = dict(zip(("before", "after"), values), environment=environment)
        return self.declared.metadata["phrase"].format(**words)


def in_words(knob: str, value: Any) -> str:
    """Return the value of a knob as people say it: 24-72 h, a median of 36.9 h, 95 %."""
    if isinstance(value, str):
        return value
    if knob.endswith("_rate"):
        return f"{100 * value:.3g} %"
    own = {"hours": 3600, "min": 60, "sec": 1}.get(knob.rpartition("_")[2])
    if own is None:
        return f"{value:.3g}"
    edges = [own * edge for edge in (value if isinstance(value, tuple) else (value,))]
    if not any(edges):
        return "none"
    words = ""
    if len(edges) > 2:
        words, edges = "a median of ", [float(np.median(edges))]
    # The unit is the knob's own, a larger one, or the next smaller one of what is at most one.
    least = own // 60 if own > 1 and edges[-1] <= own else own
    units = [("s", 1, 600), ("min", 60, 240 * 60), ("h", 3600, 4 * DAY), ("days", DAY, math.inf)]
    unit, size = next(
        (unit, size) for unit, size, most in units if size >= least and edges[-1] <= most
    )
    return words + "-".join(f"{edge / size:.3g}" for edge in dict.fromkeys(edges)) + f" {unit}"


def levers_for(calibration: Calibration, metric: str = "") -> List[Lever]:
    """Return the knobs that can be improved, and help a metric if one is named.

    A knob that was fitted to fewer than six observations is left out. So is the approval rate of an
    environment with commits of its own: it is the share of the commits that are for it.
    """
    seen = {fitted.path: fitted.n for fitted in calibration.knobs}
    scenario, found = calibration.scenario, []
    for name, group in scenario.groups.items():
        for declared in dataclasses.fields(group):  # type: ignore[arg-type]
            lever, helps = Lever(name, declared), declared.metadata.get("helps", ())
            if not helps or (metric and metric not in helps):
                continue
            if seen and seen.get(lever.path, 0) < FEW:
                continue
            if declared.name == "approval_rate" and getattr(group, "starts", "") == "commit":
                continue
            if lever.apply(RATIOS[-1], scenario) != scenario:
                found.append(lever)
    return found


def lever_table(
    calibration: Calibration,
    window: Window,
    runs: int,
    seed: int,
    step: float = 0.25,
    metric: str = "",
    progress: Progress = lambda message: None,
) -> pd.DataFrame:
    """Return the effect of each knob, improved by the same step over the same months.

    A row is a knob, the largest effect first. Columns: `knob`, `change` in words, `before` and
    `after` (the mean month), `difference` and its 95 % interval, `low` and `high`. The metric is
    one of `FORECAST_METRICS`, or `elite`: the percentage of months that meet all four benchmarks.
    Without one it is the benchmark that the fewest months meet. `attrs["metric"]` names it.
    GitOpsError for a metric that cannot be forecast from the history.
    """
    for key in BENCHMARKS if metric == "elite" else [metric]:
        why = calibration.assumed.get(key)
        if metric == "elite" and key in calibration.bounds:
            why = "only a lower bound of it was measured"
        if why:
            raise GitOpsError(
                f"{key} cannot be forecast, as {why}; take another metric than {metric}"
            )
    levers = levers_for(calibration)
    changes: Dict[str, Change] = {"": lambda scenario: scenario}
    changes.update({one.path: functools.partial(one.apply, 1 - step) for one in levers})
    months = forecast_months(changes, calibration, window, runs, seed, progress)
    baseline = months.pop("")
    open_ones = [key for key in BENCHMARKS if target_odds(baseline, key)[1]]
    metric = metric or min(open_ones, key=lambda key: target_odds(baseline, key)[0])

    def values(own: Months) -> np.ndarray:
        if metric != "elite":
            return own[metric]
        return 100.0 * (maturity_score(own) == len(BENCHMARKS))

    rows = []
    for lever in levers:
        changed = lever.apply(1 - step, calibration.scenario)
        own = values(months[lever.path])
        row = paired_difference(own, values(baseline))
        means = pd.Series(values(baseline)).mean(), pd.Series(own).mean()
        words = lever.in_words(calibration.scenario, changed)
        rows.append((lever.path, words, *means, *row))
    columns = ["knob", "change", "before", "after", "difference", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    table = table.loc[order].reset_index(drop=True)
    table.attrs.update(metric=metric, band=month_spread(values(baseline))[1:])
    return table


@dataclass(frozen=True)
class Trial:
    """The simulated months on which changes are tried."""

    calibration: Calibration
    window: Window
    runs: int
    seed: int
    progress: Progress = lambda message: None
    noise_of: Callable[[int, int], Noise] = Noise

    @functools.cached_property
    def baseline(self) -> Months:
        """The months without a change."""
        return self._months(lambda scenario: scenario, self.runs, self.seed)

    def search(self, change: Change) -> Months:
        """Simulate a change on a third of the months, at least ten: enough to search with."""
        return self._months(change, max(self.runs // 3, min(self.runs, 10)), self.seed)

    def confirm(self, change: Change) -> Months:
        """Simulate a change on as many months as the baseline has, with fresh noise."""
        return self._months(change, self.runs, self.seed + 1)

    def _months(self, change: Change, runs: int, seed: int) -> Months:
        known = {"": change}
        return forecast_months(
            known, self.calibration, self.window, runs, seed, self.progress, self.noise_of
        )[""]


def enough_runs(scenario: Scenario, window: Window) -> int:
    """Return 100 months, or fewer where a month has so many commits that it hardly varies."""
    syncs = window.days * scenario.team.commits_per_day * len(scenario.environments)
    return int(np.clip(1_500_000 / max(syncs, 1), 10, 100))


class Advice(NamedTuple):
    """A change that meets a target."""

    words: str
    ratio: float  # of `RATIOS`
    scenario: Scenario
    months: Months  # those that confirm it, not those of the search


def target_odds(months: Months, metric: str) -> Tuple[int, int]:
    """Return how many months meet the target, and how many have a value at all."""
    known = ~np.isnan(months[metric])
    return int(np.count_nonzero(is_elite(metric, months) & known)), int(np.count_nonzero(known))


def odds_known(months: Months, metric: str) -> bool:
    """Return whether at least ten months, or all of fewer, have a value."""
    return target_odds(months, metric)[1] >= min(10, len(months[metric]))


def target_met(months: Months, metric: str) -> bool:
    """Return whether 90 % of the months that have a value meet the target."""
    met, known = target_odds(months, metric)
    return known > 0 and met >= ODDS * known


def find_advice(metric: str, places: Sequence[str], trial: Trial) -> Optional[Advice]:
    """Return the smallest change that meets a target in 90 % of months, None if none does.

    1. One knob of the first place, which the report names as the cause.
    2. Two knobs: one of the first place, and one of the first three places.
    """
    levers = levers_for(trial.calibration, metric)
    here = [lever for lever in levers if lever.group in places[:1]]
    near = [lever for lever in levers if lever.group in places[:3]]
    pairs = [pair for pair in itertools.combinations(near, 2) if pair[0] in here or pair[1] in here]
    for choices in ([(lever,) for lever in here], pairs):
        found = [smallest_change(metric, chosen, trial) for chosen in choices]
        for step, chosen in sorted(zip(found, choices), key=lambda pair: pair[0]):
            if step == len(RATIOS):
                break
            advice = confirm_change(metric, chosen, step, trial)
            if advice is not None:
                return advice
    return None


def change_of(chosen: Sequence[Lever], step: int, scenario: Scenario) -> Scenario:
    """Return a scenario with the chosen levers improved by a step of `RATIOS`."""
    for lever in chosen:
        scenario = lever.apply(RATIOS[step], scenario)
    return scenario


def smallest_change(metric: str, chosen: Sequence[Lever], trial: Trial) -> int:
    """Return the first step of `RATIOS` that meets the target, their number if none does.

    It is found by bisection. The intervals of trains are tried one by one, as a shorter one is not
    always better.
    """

    def misses(step: int) -> bool:
        return not target_met(trial.search(functools.partial(change_of, chosen, step)), metric)

    steps = range(len(RATIOS))
    if any(lever.declared.name == "release_every_hours" for lever in chosen):
        return next((step for step in steps if not misses(step)), len(RATIOS))
    if misses(steps[-1]):
        return len(RATIOS)
    low, high = -1, steps[-1]
    while high - low > 1:
        middle = (low + high) // 2
        if misses(middle):
            low = middle
        else:
            high = middle
    return high


def confirm_change(
    metric: str, chosen: Sequence[Lever], step: int, trial: Trial
) -> Optional[Advice]:
    """Return the first step that other months confirm, from the one of the search on."""
    baseline = trial.calibration.scenario
    for further in range(step, len(RATIOS)):
        months = trial.confirm(functools.partial(change_of, chosen, further))
        if odds_known(months, metric) and target_met(months, metric):
            scenario = change_of(chosen, further, baseline)
            first, *others = [lever.in_words(baseline, scenario) for lever in chosen]
            words = " and ".join([first, *(text[:1].lower() + text[1:] for text in others)])
            practices = dict.fromkeys(lever.declared.metadata["practice"] for lever in chosen)
            words = f"{words} ({'; '.join(practices)})"
            return Advice(words, RATIOS[further], scenario, months)
    return None


def months_met(months: Months, metric: str) -> str:
    """Return in words how many months meet a target."""
    met, known = target_odds(months, metric)
    text = f"{met} of {known} simulated months"
    return text if known == len(months[metric]) else f"{text} that have a value"


def advice_line(metric: str, advice: Advice, trial: Trial) -> str:
    """Return what a change does to a metric."""
    label = METRICS[metric].label
    if not label.isupper():
        label = label.lower()
    before = month_spread(trial.baseline[metric])[0]
    after, low, high = month_spread(advice.months[metric])
    reached = with_unit(f"{after:.1f}", BENCHMARKS[metric].unit)
    elite, levels = "", level_counts(advice.months, trial.calibration)
    if levels:
        elite = f", ELITE in {levels[LEVELS[0].name]} of {trial.runs}"
    return (
        f"{advice.words}: {label} {before:.1f} → {reached} "
        f"({low:.1f}-{high:.1f} in 9 of 10), target met in {months_met(advice.months, metric)}"
        f"{elite}"
    )


# What the report recommends: by how much each target is missed, the cause, and what helps.


def target_gap(key: str, values: Mapping[str, Any]) -> str:
    """Return by how much a benchmark is missed."""
    value, target, label = values[key], BENCHMARKS[key], METRICS[key].label
    if math.isnan(value):
        return f"{label} could not be measured"
    if not is_judged(key, values):
        return f"{label} is at least {in_human_units(value, target.unit)}"
    shown = in_human_units(value, target.unit)
    missed_by = 100 * abs(value - target.limit) / target.limit
    if missed_by < 1:
        return f"{label} {shown} just misses the target of {target.words}"
    side = "above" if target.better == "<" else "below"
    limit = with_unit(f"{target.limit:g}", target.unit)
    return f"{label} {shown} is {missed_by:.0f} % {side} the target of {limit}"


NOTHING_DEPLOYED = "nothing was deployed in the window: measure more days"
NOT_OBSERVABLE = (
    "the history shows no failed sync: save it more often, and let --repo find what was reverted"
)


def frequency_cause(values: Mapping[str, Any]) -> str:
    """Return why the deployment frequency is low."""
    if not values["total_deployments"]:
        return NOTHING_DEPLOYED
    count = count_text(values["total_deployments"], "deployment")
    return f"the window has {count}: make changes smaller, and promote more often"


def lead_time_cause(values: Mapping[str, Any]) -> str:
    """Return where the lead time goes, or why there is none."""
    if not math.isnan(values["mean_lead_time"]):
        parts = values["lead_time_hours_by_environment"]
        name = max(parts, key=lambda name: parts[name])
        if math.isnan(parts[name]):
            return "shorten the way of a change from the config repository to production"
        share = 100 * parts[name] / values["mean_lead_time"]
        hours = in_human_units(parts[name], "h")
        return f"the way into {name} takes {share:.0f} % of it ({hours}): shorten that wait first"
    if list(values["success_rates"].values())[-1] == 0:
        return "no production deployment succeeded"
    if values["production_deployment_frequency"] > 0:
        return (
            "see why under 'Deployments without a lead time', or give the commits: --repo takes a "
            "clone that has them, --history a changes.csv"
        )
    return "no change reached production in the window: measure more days"


def failure_cause(values: Mapping[str, Any]) -> str:
    """Return which environment fails most, and why."""
    rates = {name: rate for name, rate in values["success_rates"].items() if not math.isnan(rate)}
    if rates and not is_judged("change_failure_rate", values):
        unseen = count_text(values["unseen_deployments"], "deployment")
        return f"nobody looked at {unseen}: tell with --incidents which of them failed"
    if not rates:
        return NOT_OBSERVABLE if values["total_deployments"] else NOTHING_DEPLOYED
    failures = failures_by_environment(values)
    worst = max(failures, key=lambda name: failures[name])
    reason = next(iter(values["failure_reasons_by_environment"][worst]), "no reason given")
    share = f"{failures[worst]} of {sum(failures.values())} failures"
    rate = in_human_units(100 - rates[worst], "%", 1)
    return f"{worst} has {share} ({rate} of its deployments), most often: {reason}"


def recovery_cause(values: Mapping[str, Any]) -> str:
    """Return why recovery takes long, or could not be measured."""
    if not values["total_deployments"]:
        return NOTHING_DEPLOYED
    if not values["failed_deployments"]:
        return NOT_OBSERVABLE
    if not values["successful_rollbacks"]:
        failed = count_text(values["failed_deployments"], "failure")
        return f"no rollback succeeded after {failed}: keep an earlier good release ready"
    count = count_text(values["successful_rollbacks"], "successful rollback")
    return f"this is the mean of {count}: automate them"


CAUSES = {
    "deployment_frequency": frequency_cause,
    "mean_lead_time": lead_time_cause,
    "mttr_minutes": recovery_cause,
    "change_failure_rate": failure_cause,
}


def plain_recommendations(values: Mapping[str, Any]) -> List[str]:
    """Return the gap and the cause of each benchmark that is missed; one line if none is."""
    missed = [key for key in BENCHMARKS if not is_elite(key, values)]
    lines = [f"{target_gap(key, values)}; {CAUSES[key](values)}" for key in missed]
    return lines or ["None: all four targets are met"]


def tried_recommendations(metrics: Metrics, trial: Trial) -> List[str]:
    """Return the advice of the report.

    For each benchmark that is missed: by how much, the cause, and a simulated change that meets it.
    """
    values, lines = metrics.values, []
    missed = [key for key in BENCHMARKS if not is_elite(key, values)]
    for key, line in zip([*missed, ""], plain_recommendations(values)):
        lines.append(line)
        if key and not math.isnan(values[key]) and is_judged(key, values):
            lines.append("  " + tried_line(key, metrics, trial))
    return lines


def tried_line(key: str, metrics: Metrics, trial: Trial) -> str:
    """Return what helps against a miss, or why nothing is recommended."""
    value, unit = metrics.values[key], BENCHMARKS[key].unit
    n = observations(metrics)[key]
    if n < FEW:
        few = count_text(n, "observation")
        return f"No change was tried, as too little is known from {few}; measure more days"
    if key in trial.calibration.assumed:
        return f"No change was tried, as {trial.calibration.assumed[key]}"
    known = target_odds(trial.baseline, key)[1]
    if not odds_known(trial.baseline, key):
        few = f"only {known} of {trial.runs} simulated months have a value"
        return f"No change was tried, as {few}; --runs N simulates more"
    if target_met(trial.baseline, key):
        met = months_met(trial.baseline, key)
        return f"Nothing to change: as things are, the target is met in {met}"
    _, low, high = month_spread(trial.baseline[key])
    if trial.calibration.knobs and not low <= value <= high:
        fitted = f"{in_human_units(low, unit)} to {in_human_units(high, unit)}"
        return (
            f"No change was tried, as the fitted months miss what was measured: they have {fitted}"
        )
    places = cause_places(key, metrics.values, trial.calibration.scenario)
    advice = find_advice(key, places, trial)
    if advice is None:
        place = places[0].replace("environments.", "", 1)
        return (
            f"No change was found: no knob of {place}, alone or with a second one, is enough to "
            "meet the target in 9 of 10 simulated months"
        )
    return advice_line(key, advice, trial)


def observations(metrics: Metrics) -> Dict[str, int]:
    """Return how many observations each benchmark comes from."""
    values = metrics.values
    return {
        "deployment_frequency": values["total_deployments"],
        "mean_lead_time": int(metrics.overall.at["change_lead_time_hours", "n"]),
        "mttr_minutes": values["successful_rollbacks"],
        "change_failure_rate": values["failed_deployments"],
    }


def cause_places(key: str, values: Mapping[str, Any], scenario: Scenario) -> List[str]:
    """Return where a benchmark is lost, the worst first: groups of the scenario."""
    names = scenario.names
    if key == "mttr_minutes":
        return ["rollback"]
    if key == "deployment_frequency":
        counts = values["deployments_by_environment"]
        pairs = list(zip(names, names[1:]))
        lost = {name: counts[name] / max(counts[before], 1) for before, name in pairs}
        if not pairs:
            lost = {names[0]: 0.0}
    elif key == "change_failure_rate":
        lost = {name: -count for name, count in failures_by_environment(values).items()}
    else:
        parts = values["lead_time_hours_by_environment"]
        waits = {one.name: float(np.mean(one.wait_hours)) for one in scenario.environments}
        lost = {name: -waits[name] if math.isnan(parts[name]) else -parts[name] for name in names}
    known = sorted((name for name in names if name in lost), key=lambda name: lost[name])
    return [scenario.group_of(name) for name in known]


def failures_by_environment(values: Mapping[str, Any]) -> Dict[str, int]:
    """Return the failed deployments of each environment where failures can be seen."""
    total, good = values["deployments_by_environment"], values["healthy_by_environment"]
    rates = values["success_rates"]
    return {name: total[name] - good[name] for name in total if not math.isnan(rates[name])}


# ---- Calibration: history -> scenario, with what is not known -----------------------------------

LONGEST = 60  # days: a longer wait counts as this, and no month is preceded by more
WARM_UP = 28  # days that precede a month of a scenario that is not fitted
RECENT = 180  # days that a scenario is fitted to: what is older tells of another pipeline
FEW = 6  # fewer values than this are joined by values of the default: see `possible_range`
MANY = 20  # observations from which on a gate's hours, or the risk of batches, can be told
DRAWS = 100
TRAINS = (168, 48, 24, 12, 8, 6, 4, 3, 2, 1)  # hours between the departures of usual trains


class Fitted(NamedTuple):
    """A knob, its value that fits a history best, and `DRAWS` values that are possible too."""

    group: str
    knob: str
    value: Any
    possible: Sequence[Any]  # none where the value is not in doubt
    n: int  # observations that it was fitted to; 0: it keeps the default
    what: str  # what the observations are; "": the notes need not say it

    @property
    def path(self) -> str:
        """What a change calls the knob."""
        return f"{self.group}.{self.knob}"


@dataclass(frozen=True)
class Calibration:
    """The scenario that fits a history best, and what is not known of it.

    `draws` shares the months of a forecast among the scenarios that are possible. `assumed` tells
    for each forecast metric that rests on defaults alone why it is `n/a`. `warm_up` is the number
    of days simulated before a month, so that it does not begin empty. Without a history the
    scenario is known exactly, and there are no `knobs`.
    """

    scenario: Scenario
    knobs: Tuple[Fitted, ...] = ()
    assumed: Mapping[str, str] = field(default_factory=dict)
    warm_up: int = 0
    every_change: bool = False  # whether the lead time is that of every change, as measured
    bounds: Tuple[str, ...] = ()  # metrics of which only a lower bound was measured

    @functools.cached_property
    def possible(self) -> List[Scenario]:
        """`DRAWS` scenarios, each with one possible value of every knob that is in doubt."""
        unsure = [fitted for fitted in self.knobs if len(fitted.possible)]
        drawn = zip(*(fitted.possible for fitted in unsure))
        return [with_fitted(self.scenario, unsure, values) for values in drawn]

    def draws(self, months: int) -> Draws:
        """Share months among the scenarios that are possible."""
        known = self.possible or [self.scenario]
        edges = np.linspace(0, months, min(len(known), months) + 1).astype(int)
        return list(zip(known, np.diff(edges).tolist()))

    @property
    def notes(self) -> List[str]:
        """What each knob was fitted to, a line for each group."""
        shown = [one for one in self.knobs if one.what or one.knob in ("promotion", "open_hours")]
        return [
            f"{group}: {'; '.join(map(self._note, knobs))}"
            for group, knobs in itertools.groupby(shown, lambda fitted: fitted.group)
        ]

    def _note(self, fitted: Fitted) -> str:
        """Return what a knob was fitted to: its value, what is possible, how many observations."""
        name, value = fitted.knob, in_words(fitted.knob, fitted.value)
        if name == "commits_per_day":
            value += " on the busiest weekday"
        starts = getattr(self.scenario.groups[fitted.group], "starts", "stage")
        if name == "approval_rate" and starts == "commit":
            name = "share of the commits"
        if not fitted.n:
            return f"{name} {value} (the default, as the history does not tell)"
        seen = f"n={fitted.n:,} {fitted.what}".strip()
        if fitted.n < FEW:
            seen += ", pulled towards the default"
        if len(fitted.possible) and not isinstance(fitted.value, tuple):
            edges = np.quantile(np.array(fitted.possible, float), [0.05, 0.95]).tolist()
            low, high = (in_words(fitted.knob, edge) for edge in edges)
            seen = f"{low} to {high}; {seen}"
        return f"{name} {value} ({seen})"


def calibrate(history: History, base: Scenario = Scenario()) -> Calibration:
    """Fit a scenario to the last 180 days of a history, and say what is not known of it.

    A knob of which the history tells nothing keeps the value of `base`. GitOpsError for a history
    that has no deployment to a known environment.
    """
    whole, history = history, recent_part(history)
    rng = np.random.Generator(np.random.PCG64(history.window.days))
    names = used_environments(history)
    defaults = {one.name: one for one in base.environments}
    releases = [releases_to(history, name) for name in names]
    stages, counts = [], []
    for name, here, upstream in zip(names, releases, [None, *releases]):
        stage = Passages.of(history, name, here, upstream)
        stages.append(stage)
        counts.append(daily_counts(whole, name if stage.source == "own" else None))
    knobs, parts = fit_team(history, stages, counts, base.team, rng)
    environments, shares = [], iter(parts)
    for name, stage in zip(names, stages):
        default = defaults.get(name, Environment(name))
        starts = "commit" if stage.source == "own" else "stage"
        environments.append(dataclasses.replace(default, freezes=(), starts=starts))
        share = np.ones(1 + DRAWS) if stage.source == "stage" else next(shares)
        knobs += fit_environment(history, stage, stages[0], default, share, rng)
    knobs += fit_rollback(history, base.rollback, rng)
    reasons = count_words(history.deployments["failure_reason"]) or base.failure_reasons
    scenario = Scenario(base.team, tuple(environments), base.rollback, reasons)
    scenario = with_fitted(scenario, knobs, [fitted.value for fitted in knobs])
    hours = [one.wait_hours[-1] + 3 * one.release_every_hours for one in scenario.environments]
    return Calibration(
        scenario,
        tuple(knobs),
        assumed_metrics(scenario, knobs),
        warm_up=int(np.clip(sum(hours) / 24 + 1, 1, LONGEST)),
        every_change=history.changes is not None,
        bounds=lower_bounds(history, names),
    )


def calibrate_team(commits: pd.DataFrame, window: Window, base: Scenario) -> Calibration:
    """Fit the team of a scenario to commits; the rest is that of `base`."""
    nothing = {name: as_table(name, {column: [] for column in COLUMNS[name]}) for name in COLUMNS}
    nothing["git_commits"] = commits
    history = History(window=window, environments=tuple(base.names), **nothing)
    rng = np.random.Generator(np.random.PCG64(window.days))
    first = base.names[0]
    stages = [Passages.of(history, first, releases_to(history, first), None)]
    counts = [daily_counts(history, None)]
    team = fit_team(history, stages, counts, base.team, rng)[0]
    scenario = with_fitted(base, team, [fitted.value for fitted in team])
    return Calibration(scenario, tuple(team), warm_up=WARM_UP)


def recent_part(history: History) -> History:
    """Return the last 180 days of a history, or all of it if these have fewer than six rows."""
    if history.window.days <= RECENT:
        return history
    recent = history.within(Window.before(history.window.end, RECENT))
    return recent if len(recent.deployments) >= FEW else history


def lower_bounds(history: History, environments: Sequence[str]) -> Tuple[str, ...]:
    """Return the forecast metrics that are lower bounds, as nobody looked at some deployments."""
    rows = history.deployments
    unseen = has_word(rows["health"], UNKNOWN)
    parts = [unseen[has_word(rows["environment"], name)] for name in environments]
    partly = [part.any() and not part.all() for part in parts]
    if partly[-1]:
        return "change_failure_rate", "production_change_fail_rate", "production_failures"
    return ("change_failure_rate",) if any(partly) else ()


def used_environments(history: History) -> List[str]:
    """Return the environments that have deployments, in order; GitOpsError if none has."""
    seen = count_words(history.deployments["environment"])
    used = [name for name in history.environments if name in seen and name != UNCLASSIFIED]
    if not used:
        raise GitOpsError("nothing to fit: the history has no deployment to a known environment")
    return used[-50:]  # a scenario has no more


def with_fitted(scenario: Scenario, knobs: Sequence[Fitted], values: Sequence[Any]) -> Scenario:
    """Return a scenario with a value for each of the knobs."""
    groups: Dict[str, Dict[str, Any]] = {}
    for fitted, value in zip(knobs, values):
        groups.setdefault(fitted.group, {})[fitted.knob] = value
    for group, changed in groups.items():
        scenario = scenario.with_knobs(group, **changed)
    return scenario


def assumed_metrics(scenario: Scenario, knobs: Sequence[Fitted]) -> Dict[str, str]:
    """Return the forecast metrics that rest on defaults alone, each with the reason."""
    unknown = {fitted.path for fitted in knobs if not fitted.n}
    groups = [scenario.group_of(name) for name in scenario.names]
    own = [number for number, one in enumerate(scenario.environments) if one.starts == "commit"]
    way = groups[max(own, default=0) :]  # from the commit to production
    found = {}
    unmeasured = [group for group in way if f"{group}.wait_hours" in unknown]
    if unmeasured:
        name = scenario.names[groups.index(unmeasured[0])]
        for key in ("mean_lead_time", "median_lead_time", "production_median_lead_time"):
            found[key] = found["waiting_hours"] = f"the wait before {name} was not measured"
    if f"{groups[-1]}.success_rate" in unknown:
        for key in ("production_change_fail_rate", "production_failures", "failed_hours"):
            found[key] = "it is not known which production deployments failed"
    if all(f"{group}.success_rate" in unknown for group in groups):
        found["change_failure_rate"] = "it is not known which deployments failed"
    if "rollback.duration_min" in unknown:
        for key in ("mttr_minutes", "failed_hours"):
            found[key] = "no successful rollback is known"
    return found


def spread_draws(values: np.ndarray, rng: np.random.Generator) -> List[float]:
    """Return `DRAWS` of many values: one from each part of their range, in any order."""
    middles = (np.arange(DRAWS) + 0.5) / DRAWS
    return rng.permutation(np.quantile(values, middles)).tolist()


def possible_rate(
    good: float, total: int, default: float, rng: np.random.Generator
) -> Tuple[float, List[float]]:
    """Return a share, and possible ones: Jeffreys' posterior Beta(good + 1/2, bad + 1/2).

    Fewer than six observations are filled up to six with observations like the default.
    """
    added = max(FEW - total, 0)
    good, bad = good + added * default, total - good + added * (1 - default)
    return good / (good + bad), spread_draws(rng.beta(good + 0.5, bad + 0.5, 20 * DRAWS), rng)


def drifting_rates(
    rates: List[float], bad: np.ndarray, time: np.ndarray, rng: np.random.Generator
) -> List[float]:
    """Return possible success rates that vary from month to month as much as the observed ones.

    In four months or more, the failures vary by more than chance. The failure rates are multiplied
    by lognormal noise of that excess. Without failures, or with fewer months, the rates stay.
    """
    month = (time[-1] - time) // (30 * DAY)
    total, failed = np.bincount(month), np.bincount(month, bad)
    if len(total) < 4 or not bad.any():
        return rates
    expected = total * bad.mean()
    chance = expected.sum() * (1 - bad.mean())  # the variance of a binomial
    excess = (((failed - expected) ** 2).sum() - chance) / (expected**2).sum()
    noise = rng.normal(0, math.sqrt(max(excess, 0)), len(rates))
    return (1 - np.clip((1 - np.array(rates)) * np.exp(noise), 0, 1)).tolist()


def drifting_ranges(
    ranges: Sequence[Range], hours: np.ndarray, time: np.ndarray, rng: np.random.Generator
) -> List[Range]:
    """Return possible waits that vary from month to month as much as the observed ones.

    The medians of the months vary by more than chance, on a logarithmic scale. The waits are
    multiplied by lognormal noise of that excess. It takes four months with six waits each.
    """
    frame = pd.DataFrame({"month": (time.max() - time) // (30 * DAY), "log": np.log(hours + 0.1)})
    months = frame.groupby("month")["log"].agg(["median", "std", "size"])
    months = months[months["size"] >= FEW]
    excess = 0.0
    if len(months) >= 4:
        variance = months["std"] ** 2 / months["size"]
        chance = 1.57 * variance.mean()  # a median varies by pi / 2 as much as a mean
        excess = max(float(months["median"].var() - chance), 0.0)
    factors = np.exp(rng.normal(0, math.sqrt(excess), len(ranges)))
    return [tuple(factor * edge for edge in one) for factor, one in zip(factors, ranges)]


def possible_range(
    values: np.ndarray, default: Range, rng: np.random.Generator, n: Optional[int] = None
) -> Tuple[Range, List[Range]]:
    """Return observed values as the quantiles of a knob, and possible quantiles.

    The possible ones are bootstrap samples (B. Efron, Annals of Statistics 7, 1979), each of `n`
    values. Fewer than six values are filled up to six with quantiles of the default.
    """
    n = len(values) if n is None else n
    if n < FEW:
        values = np.append(values, quantile_at(default, (np.arange(FEW - n) + 0.5) / (FEW - n)))
        n = FEW
    best = observed_range(values)
    at, grid = np.minimum(n, 3000), np.linspace(0, 1, min(n, 33))
    samples = quantile_at(best, np.sort(rng.random((DRAWS, at)), axis=1))
    rows = np.quantile(samples, grid, axis=1).T
    # Samples spread less than what they are drawn from. So they are stretched, on a logarithmic
    # scale that leaves every value above zero.
    shift = max(float(values.mean()) / 10, 1e-300)
    rows = np.log(rows + shift)
    rows = np.exp(rows.mean() + (n + 1) / (n - 1) * (rows - rows.mean())) - shift
    return best, [tuple(row) for row in np.maximum(rows, 0).tolist()]


def observed_range(values: np.ndarray) -> Range:
    """Return observed values as the quantiles of a knob: at most 101 of them."""
    points = np.linspace(0, 1, int(np.clip(len(values), 2, 101)))
    return tuple(np.quantile(values, points).tolist())


class Passages(NamedTuple):
    """How releases came to an environment: arrays with an entry for each.

    An entry is what may come: a release that was healthy in the stage before (`stage`), a commit
    (`commits`), or a release of the environment alone, as with a folder for each (`own`).
    """

    source: str  # `stage`, `commits` or `own`
    application: np.ndarray  # codes, sorted
    rank: np.ndarray  # the second at which it was committed, -1 where that is not known
    arrival: np.ndarray  # the second from which it could come
    start: np.ndarray  # the second at which it came; NEVER where it did not
    good: np.ndarray
    rates: Mapping[str, float]  # entries per day of each application, while it is covered
    policy: str
    end: int
    ways: Tuple[np.ndarray, np.ndarray]  # from and to when each change of releases of its own went

    @classmethod
    def of(
        cls,
        history: History,
        environment: str,
        here: pd.DataFrame,
        upstream: Optional[pd.DataFrame],
    ) -> Passages:
        """Return the passages to an environment of its releases (see `releases_to`).

        `upstream` are the releases to the environment before, None for the first. The source is
        1. `stage` if three quarters of the releases in the second half of the window were upstream,
        2. `commits` in the first environment of a history with plain commits,
        3. `own` otherwise.
        """
        source, keys = "own", ["application", "release"]
        entries = here.assign(arrival=here["start"].where(here["rank"] < 0, here["rank"]))
        if upstream is not None:
            before = pd.MultiIndex.from_frame(upstream[keys])
            known = pd.MultiIndex.from_frame(here[keys]).isin(before)
            late = (here["start"] >= sum(history.window.seconds) / 2).to_numpy()
            if known[late].sum() >= 0.75 * max(late.sum(), 1):
                entries = upstream[upstream["good"]].assign(arrival=upstream["end"])
                entries, source = entries.drop_duplicates(keys), "stage"
        elif history.changes is None and len(history.git_commits):
            commits = history.git_commits
            time, names = seconds_of(commits["timestamp"]), commits["application"].astype(object)
            columns = dict(application=names, release=commits["sha"], arrival=time, rank=time)
            entries, source = pd.DataFrame(columns), "commits"
        counts, days = entries["application"].value_counts(), covered_days(history, environment)
        rates = {name: n / days.get(name, history.window.days) for name, n in counts.items()}
        if source != "own":
            entries = entries[[*keys, "arrival", "rank"]].merge(
                here.drop_duplicates(keys)[[*keys, "start", "good"]], how="left", on=keys
            )
        entries = entries.sort_values(["application", "rank", "arrival"], kind="stable")
        application = pd.Index(application_names(history)).get_indexer(entries["application"])
        arrival, end = entries["arrival"].to_numpy(np.int64), history.window.seconds[1]
        start = entries["start"].fillna(NEVER).to_numpy(np.int64)
        rank, policy = entries["rank"].to_numpy(np.int64), "each"
        ways = arrival[rank >= 0], start[rank >= 0]
        if source != "own":
            policy = promotion_of(application, arrival, start, end, upstream is not None)
        elif history.changes is not None:
            changes = history.changes_to(environment).dropna(subset=["deployed"])
            ways = seconds_of(changes["committed"]), seconds_of(changes["deployed"])
        good = entries["good"].ne(False).to_numpy(bool)
        arrival = np.minimum(arrival, start)
        return cls(source, application, rank, arrival, start, good, rates, policy, end, ways)


def releases_to(history: History, environment: str) -> pd.DataFrame:
    """Return the releases that came to an environment: a row for each deployment.

    Columns: `application`; `release`, the newest change, or the commit where no change is known;
    `rank`, the second at which that was committed, -1 where it is not known; `start` and `end` in
    seconds; `good`.
    """
    rows = history.deployments[has_word(history.deployments["environment"], environment)]
    start = seconds_of(rows["timestamp"])
    found = pd.DataFrame(
        {
            "application": rows["application"].astype(object).to_numpy(),
            "release": rows["commit_sha"].astype(object).to_numpy(),
            "start": start,
            "end": start + rows["duration_sec"].to_numpy(),
            "good": ~has_word(rows["health"], DEGRADED),
        }
    )
    if history.changes is None:
        commits = history.git_commits
        committed = pd.Series(seconds_of(commits["timestamp"]), commits["sha"])
        return found.assign(rank=found["release"].map(committed).fillna(-1).astype(np.int64))
    changes, keys = (
        history.changes_to(environment).dropna(subset=["deployed"]),
        ["application", "end"],
    )
    changes = pd.DataFrame(
        {
            "application": changes["application"].astype(object),
            "change": changes["commit_sha"],
            "rank": seconds_of(changes["committed"]),
            "end": seconds_of(changes["deployed"]),
        }
    )
    newest = changes.sort_values("rank").drop_duplicates(keys, keep="last")
    found = found.merge(newest, how="left", on=keys)
    release = found["change"].where(found["change"].notna(), found["release"])
    return found.assign(release=release, rank=found["rank"].fillna(-1).astype(np.int64))


def covered_days(history: History, environment: str) -> Dict[str, float]:
    """Return how many days of each application are covered in an environment, if that is known."""
    if history.coverage is None:
        return {}
    spans = history.covered(environment)
    days = (spans["to"] - spans["from"]).dt.total_seconds() / DAY
    total = days.groupby(spans["application"].astype(object)).sum()
    return {name: max(float(length), 1.0) for name, length in total.items()}


def promotion_of(
    application: np.ndarray, arrival: np.ndarray, start: np.ndarray, end: int, can_soak: bool
) -> str:
    """Return the promotion policy that fits how releases came, in the order of their commits.

    1. `each` if over 2 % came after a newer one had come, or none gave way to a newer one.
    2. `soak` if no release came that a newer one had followed upstream, and ten such did not come.
    3. `newest` otherwise.
    """
    overtaken = earliest_of_newer(start, application)
    followed = earliest_of_newer(arrival, application)
    went = start < NEVER
    late = np.count_nonzero(went & (start > overtaken))
    gave_way = np.count_nonzero(~went & (overtaken < end))
    if late > 0.02 * np.count_nonzero(went) or not gave_way:
        return "each"
    stayed = not (went & (followed < start)).any()
    return "soak" if can_soak and stayed and (~went & (followed < end)).sum() >= 10 else "newest"


def daily_counts(history: History, environment: Optional[str]) -> np.ndarray:
    """Return how many deployments to an environment each day has; without one, how many commits."""
    table = history.git_commits
    if environment is not None:
        table = history.deployments[has_word(history.deployments["environment"], environment)]
    day = (seconds_of(table["timestamp"]) - history.window.seconds[0]) // DAY
    return np.bincount(day, minlength=history.window.days)


def fit_team(
    history: History,
    stages: Sequence[Passages],
    counts: Sequence[np.ndarray],
    base: Team,
    rng: np.random.Generator,
) -> Tuple[List[Fitted], np.ndarray]:
    """Return the knobs of the team, and the share of its commits that each stage takes.

    Of the shares, a row is a stage that is not fed by the one before. A column is a possible team,
    the first the best one. `counts` are the `daily_counts` of each stage.
    """
    first, days = history.window.seconds[0], history.window.days
    common, total = rng.standard_normal(DRAWS), np.zeros(days, np.int64)
    shares: Dict[str, float] = collections.defaultdict(float)
    rates, times = [], []
    for stage, of_day in zip(stages, counts):
        if stage.source == "stage":
            continue
        noise = (common + rng.standard_normal(DRAWS)) / math.sqrt(2)  # the teams go half together
        rates.append(sum(stage.rates.values()) * possible_levels(of_day, days, noise))
        times.append(np.where(stage.arrival >= first, stage.arrival, stage.start))
        total += of_day[-days:]
        for name, per_day in stage.rates.items():
            shares[name] += per_day
    time = np.concatenate(times)
    made = np.bincount((time - first) // DAY, minlength=days)
    weekdays, level = weekday_rates(made, first)[0], np.sum(rates, axis=0)
    busiest, *possible = (level * weekdays.max() / max(made.mean(), 1e-300)).tolist()
    values: Dict[str, Any] = {
        "weekday_factors": tuple(weekdays / max(weekdays.max(), 1e-300)),
        "dispersion": weekday_rates(total, first)[1],
        "sprint_ramp": 0.0,
        "work_hours": observed_range(time % DAY / 3600),
        "time_zone": "UTC",
        "applications": dict(shares),
    }
    for knob, column in (("authors", "author"), ("types", "type")):
        words = count_words(history.git_commits[column])
        if words:
            values[knob] = words
    n, what = len(time), "commits" if history.changes is None else "releases"
    knobs = [Fitted("team", "commits_per_day", busiest, possible, n, what)]
    knobs += [Fitted("team", knob, value, (), n, "") for knob, value in values.items()]
    return knobs, np.array(rates) / level


def weekday_rates(counts: np.ndarray, first: int) -> Tuple[np.ndarray, float]:
    """Return the count of each weekday, Monday first, and the variance over mean around them.

    `first` is the second at which the first day begins.
    """
    weekday = (np.arange(len(counts)) + (first - MONDAY) // DAY) % 7
    seen = np.bincount(weekday, minlength=7)
    rates = np.bincount(weekday, counts, minlength=7) / np.maximum(seen, 1)
    rates = np.where(seen > 0, rates, rates[seen > 0].mean())
    expected = rates[weekday]
    busy = expected > 0
    free = np.count_nonzero(busy) - np.count_nonzero(rates[seen > 0])
    excess = ((counts - expected)[busy] ** 2 / expected[busy]).sum() / free if free > 0 else 1.0
    return rates, float(np.clip(excess, 1, 1000))


def possible_levels(counts: np.ndarray, days: int, noise: np.ndarray) -> np.ndarray:
    """Return the level of the coming month relative to the mean of the last days.

    The first value is the best, the others are possible ones.
    1. With 16 weeks or more: the mean of the last 4, 8, 13 or 26 weeks. It is the one that forecast
       the next four weeks best in the past; the possible levels vary by its errors.
    2. With fewer: 1. The variance of the weeks tells how far the mean and the coming month drift.
    """
    weeks = counts[len(counts) % 7 :].reshape(-1, 7).sum(axis=1).astype(float)
    counts = counts[-days:]
    total, month = max(counts.sum(), 1), max(counts.mean() * 30, 1)
    dispersion = weekday_rates(counts, 0)[1]
    level, drift = 1.0, dispersion / total
    if len(weeks) >= 16:
        ends, errors = np.arange(8, len(weeks) - 3), {}
        came = np.array([weeks[end : end + 4].mean() for end in ends]) + 0.5
        for length in (4, 8, 13, 26):
            told = np.array([weeks[max(end - length, 0) : end].mean() for end in ends]) + 0.5
            errors[length] = float((np.log(came / told) ** 2).mean())
        best = min(errors, key=lambda length: errors[length])
        level = (weeks[-best:].mean() * days / 7 + 0.5) / (counts.sum() + 0.5)
        drift = max(errors[best] - dispersion / month, drift)
    elif len(weeks) >= 2:
        of_weeks = weeks.var(ddof=1) / max(weeks.mean(), 1e-300)
        wide = (of_weeks * (len(weeks) - 1) + 3 * dispersion) / (len(weeks) + 2)
        drift = max(wide, dispersion) / total + max(wide - dispersion, 0) / month
    return level * np.exp(np.append(0, math.sqrt(drift) * noise - drift / 2))


def fit_environment(
    history: History,
    stage: Passages,
    first: Passages,
    default: Environment,
    share: np.ndarray,
    rng: np.random.Generator,
) -> List[Fitted]:
    """Return the knobs of an environment that takes a share of the team's commits."""
    group = Scenario.group_of(default.name)
    rows = history.deployments[has_word(history.deployments["environment"], default.name)]
    unseen, bad = (has_word(rows["health"], word) for word in (UNKNOWN, DEGRADED))
    looked = 0 if unseen.all() else len(rows)
    rate, rates = possible_rate(looked - bad.sum(), looked, default.success_rate, rng)
    if looked:
        rates = drifting_rates(rates, bad, seconds_of(rows["timestamp"]), rng)
    else:
        rates = []
    gate = fit_gate(stage, default, group, share, rng)
    observed = rows["duration_sec"].to_numpy(float)
    seconds, durations = possible_range(observed, default.duration_sec, rng)
    risk = Fitted(group, "batch_risk", default.batch_risk, (), 0, "failures")
    pairs = fit_batch_risk(stage, first, rng)
    if pairs is not None:
        (rate, best), *possible = pairs
        rates, risks = [pair[0] for pair in possible], [pair[1] for pair in possible]
        risk = Fitted(group, "batch_risk", best, risks, looked, "deployments")
    return [
        Fitted(group, "success_rate", rate, rates, looked, "deployments"),
        *gate,
        Fitted(group, "duration_sec", seconds, durations, len(rows), "syncs"),
        risk,
    ]


def fit_gate(
    stage: Passages, default: Environment, group: str, share: np.ndarray, rng: np.random.Generator
) -> List[Fitted]:
    """Return how releases come to an environment: policy, hours, trains, the share, the wait.

    Where an environment has commits of its own, each change is a way to it; elsewhere each release.
    A gate holds releases back only if at least six did not come: fewer may just not have come yet.
    """
    came = stage.start < NEVER
    arrival, start = stage.arrival[came], stage.start[came]
    entries, departures = len(start), start
    if stage.source == "own":
        arrival, start = np.minimum(*stage.ways), stage.ways[1]
        stage = stage._replace(arrival=arrival, start=start)
    n = len(start)
    hours, every = observed_gate(arrival, departures, start)
    knobs = {"promotion": stage.policy, "open_hours": hours, "release_every_hours": every}
    fitted = [Fitted(group, knob, value, (), entries, "") for knob, value in knobs.items()]
    if not n:
        taken = Fitted(group, "approval_rate", share[0], share[1:].tolist(), entries, "releases")
        wait: Range = default.wait_hours if stage.source == "stage" else (0.0, 0.0)
        return [*fitted, taken, Fitted(group, "wait_hours", wait, (), 0, "")]
    environment = dataclasses.replace(default, approval_rate=1.0, **knobs)  # type: ignore[arg-type]
    begin = int(arrival.min()) // DAY * DAY
    gate = Gate.of(environment, "UTC", Window(*utc_times(np.array([begin, stage.end]))))
    waits, come = wait_and_share(stage, gate)
    reached = n
    if n / come - n >= FEW:
        reached = round(n / come)
        best, possible = possible_rate(n, reached, 1.0, rng)
        share = share * np.array([best, *possible])
    unsure = share[1:].tolist() if (share < 1).any() else ()
    fitted.append(Fitted(group, "approval_rate", float(share[0]), unsure, reached, "releases"))
    waits = np.minimum(waits, 24 * LONGEST)
    wait, possible_waits = possible_range(waits, default.wait_hours, rng, n)
    ways = np.maximum(start - arrival, 0) / 3600
    possible_waits = drifting_ranges(possible_waits, ways, start, rng)
    return [*fitted, Fitted(group, "wait_hours", wait, possible_waits, n, "releases")]


def wait_and_share(stage: Passages, gate: Gate) -> Tuple[np.ndarray, float]:
    """Return quantiles of the hours that releases wait, and the share of them that comes.

    1. A release that came in an open hour waited until then. One that came with a train, or in the
       first hour after an opening, was ready at some time since the train or the closing before.
    2. A release that gave way to a newer one, or did not come by the end, waited longer than until
       then. So the curve is that of E. L. Kaplan and P. Meier (JASA 53, 1958). Those that waited
       longer than all that came count as held back for good.
    3. A wait of 1 that is not exact is drawn from the curve. The curve is made anew from the draws,
       twenty times.
    """
    arrival, start = stage.arrival, stage.start
    came = start < NEVER
    limit = np.full(len(start), stage.end)
    if stage.policy != "each":
        newer = arrival if stage.policy == "soak" else start
        limit = np.minimum(earliest_of_newer(newer, stage.application), limit)
    beyond = ((gate.before(limit) - arrival) / 3600)[~came]
    edge = start[came] - (3600 if gate.departures is None else 600)
    since = gate.before(edge)
    high = (start - arrival)[came] / 3600
    low = np.where(since < edge, np.maximum(since - arrival[came], 0) / 3600, high)
    noise = evenly_spread(len(high))
    wait, beyond = low + noise * (high - low), beyond[beyond > 0]
    for _ in range(1 + 19 * (low < high).any()):
        hours, gone = survival_curve(wait, beyond)
        first, last = np.interp(low, hours, gone), np.interp(high, hours, gone)
        drawn = np.interp(first + noise * (last - first), gone, hours)
        wait = np.where((low < high) & (first < last), np.clip(drawn, low, high), wait)
    at = np.linspace(0, gone[-1], 101)
    return np.interp(at, gone, hours), float(gone[-1])


def evenly_spread(count: int) -> np.ndarray:
    """Return numbers spread over 0..1 evenly and in no order: multiples of the golden ratio."""
    return (np.arange(count) * 0.6180339887498949) % 1


def survival_curve(waits: np.ndarray, beyond: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return hours in order, and the share that has come by then; some waited `beyond` theirs."""
    hours = np.append(waits, beyond)
    event = np.arange(len(hours)) < len(waits)
    order = np.lexsort((event, hours))
    hours, event = hours[order], event[order]
    gone = 1 - np.cumprod(1 - event / np.arange(len(hours), 0, -1))
    return np.append(hours[event][:1], hours[event]), np.append(0, gone[event])


def observed_gate(
    arrival: np.ndarray, departures: np.ndarray, start: np.ndarray
) -> Tuple[Hours, float]:
    """Return the opening hours and the interval of trains that departures show.

    1. A train: 95 % of the departures lie within five minutes of the same time of an interval in
       `TRAINS`.
    2. Opening hours: they hold 95 % of at least twenty starts, and are less than 70 % of the week.
       With the same waits in another order, 10 % more of the starts would lie outside. Otherwise
       the hours are only those of the arrivals.
    3. Neither.
    """
    slots = np.unique(departures // 300)
    for every in TRAINS if len(slots) >= FEW else ():
        phase = (departures - MONDAY) % (every * 3600)
        middle = int(np.bincount(phase // 60).argmax()) * 60
        off = np.abs((phase - middle + every * 1800) % (every * 3600) - every * 1800)
        if (off <= 300).mean() >= 0.95:
            begin = middle if middle > 60 else 0
            return train_hours(departures, begin, every), float(every)
    if len(start) < MANY:
        return "always", 0.0
    hours = usual_hours(departures)
    wide = sum(over - first for _, first, over in opening_minutes(hours)) > 0.7 * 7 * 24 * 60
    inside = 0.0 if wide else share_open(hours, start)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(start))
    if inside >= 0.95 and share_open(hours, arrival + (start - arrival)[order]) < inside - 0.1:
        return hours, 0.0
    return "always", 0.0


def usual_hours(times: np.ndarray) -> Hours:
    """Return the days and hours in which all but a few per cent of the times lie."""
    days = usual_days(times)
    low, high = np.quantile(times % DAY / 3600, [0.01, 0.985])
    return f"{days} {int(low)}-{min(int(high) + 1, 24)}"


def usual_days(times: np.ndarray) -> str:
    """Return from which to which weekday all but a few per cent of the times lie."""
    share = np.bincount((times - MONDAY) // DAY % 7, minlength=7) / len(times)
    used = np.flatnonzero(share > 0.02)
    return f"{WEEKDAYS[used[0]]}-{WEEKDAYS[used[-1]]}"


def train_hours(departures: np.ndarray, begin: int, every: float) -> Hours:
    """Return the opening hours with which trains leave as they did: after the week's first one."""
    days = usual_days(departures)
    if every > 24:
        days = WEEKDAYS[begin // DAY]
    hour, minute = begin % DAY // 3600, begin % 3600 // 60
    last = min(hour + 1, 24) if every >= 24 else 24
    return "always" if begin == 0 and days == "Mon-Sun" else f"{days} {hour}:{minute:02d}-{last}"


def share_open(hours: Hours, times: np.ndarray) -> float:
    """Return the share of times that lie within opening hours."""
    minute, weekday = times % DAY // 60, (times - MONDAY) // DAY % 7
    inside = np.zeros(len(times), bool)
    for day, first, over in opening_minutes(hours):
        inside |= (weekday == day) & (minute >= first) & (minute < over)
    return float(inside.mean())


def fit_batch_risk(
    stage: Passages, first: Passages, rng: np.random.Generator
) -> Optional[List[Tuple[float, float]]]:
    """Return pairs of success rate and batch risk: the one that fits best, and possible ones.

    The possible ones are drawn by their likelihood. None if the history does not tell: there are
    fewer than twenty failures, or the 95 % interval of the likelihood ratio holds every batch risk.
    The batch of a deployment is the entries of the first environment since the one deployed before.
    """
    came = stage.start < NEVER
    bad = ~stage.good[came]
    if np.count_nonzero(bad) < MANY or stage.source == "own":
        return None
    entries = np.sort(first.application * NEVER + first.rank)
    lift = stage.application[came] * NEVER
    place = np.searchsorted(entries, lift + stage.rank[came], side="right")
    changes = place - np.maximum(np.append(0, place[:-1]), np.searchsorted(entries, lift))
    bad, changes = bad[changes > 0], changes[changes > 0]
    size, which = np.unique(changes, return_inverse=True)
    failed = np.bincount(which, bad)
    fine = np.bincount(which) - failed
    risks, rates = np.linspace(0, 1, 21), 1 - np.geomspace(0.001, 0.9, 120)
    power = (1 + risks[:, None, None] * (size - 1)) * np.log(rates)[None, :, None]
    likelihood = (fine * power + failed * np.log(-np.expm1(power))).sum(axis=2)
    if (likelihood.max(axis=1) > likelihood.max() - Z_95**2 / 2).all():
        return None
    weights = np.exp(likelihood - likelihood.max()).ravel()
    drawn = rng.choice(len(weights), DRAWS, p=weights / weights.sum())
    found = np.append(likelihood.argmax(), drawn)
    pairs = zip(rates[found % len(rates)].tolist(), risks[found // len(rates)].tolist())
    return list(pairs)


def fit_rollback(history: History, base: RollbackPolicy, rng: np.random.Generator) -> List[Fitted]:
    """Return the knobs of the rollbacks: how long they take, and how many succeed.

    The rate is over the failures in production that had an earlier good release. A history without
    a rollback tells nothing: it may not record them.
    """
    events = events_of(history, application_names(history)).in_production()
    target = last_good_releases(events.deployments)[1]
    succeeded = int(np.count_nonzero(events.rollbacks.success))
    failures = max(int(np.count_nonzero(target >= 0)), succeeded) if len(history.rollbacks) else 0
    minutes = history.rollbacks.loc[history.rollbacks["success"], "duration_min"].to_numpy()
    n, what = len(minutes), "failures in production"
    length, lengths = possible_range(minutes, base.duration_min, rng)
    rate, rates = possible_rate(succeeded, failures, base.success_rate, rng)
    return [
        Fitted("rollback", "duration_min", length, lengths if n else (), n, "rollbacks"),
        Fitted("rollback", "success_rate", rate, rates if failures else (), failures, what),
    ]


# What a forecast would have said of the past.

LEAST_DAYS = 60  # of history that the first forecast of a backtest is fitted to
MOST_WINDOWS = 12
SCORED = (
    *("deployment_frequency", "change_failure_rate", "mean_lead_time", "mttr_minutes"),
    *SHOWN[4:],
)


def backtest(
    history: History,
    base: Scenario = Scenario(),
    days: int = 30,
    runs: int = 100,
    seed: int = 0,
    progress: Progress = lambda message: None,
) -> pd.DataFrame:
    """Return a table that compares past windows with forecasts from what was known before them.

    A row is a metric of a window. Columns: `from`, `metric`, `came` (what was measured), `median`,
    `low` and `high` (5 % and 95 %) of the forecast, `last` (what the window before had), `weeks`
    (the median if past weeks came again at random; of frequencies alone). The windows are the last
    twelve, of those with 60 days before them. GitOpsError if there are fewer than three.
    """
    start, end = history.window
    count = min((history.window.days - LEAST_DAYS) // days, MOST_WINDOWS)
    if count < 3:
        raise GitOpsError(
            f"a backtest needs at least {LEAST_DAYS + 3 * days} days of history, and this has "
            f"{history.window.days}; give a longer history or fewer --days"
        )
    windows = [Window.before(end - pd.Timedelta(days=days * back), days) for back in range(count)]
    rng, rows, last = np.random.Generator(np.random.PCG64(seed)), [], None
    before = Window.before(windows[-1].start, days)
    for number, window in enumerate([before, *reversed(windows)]):
        came = forecast_actuals(measure(history.within(window)))
        if last is not None:
            known = history.within(Window(start, window.start))
            with contextlib.suppress(GitOpsError):  # nothing to fit yet
                calibration = calibrate(known, base)
                months = forecast_months(
                    {"": calibration.scenario}, calibration, window, runs, seed
                )
                weeks = weekly_bootstrap(known, days, rng)
                for key in SCORED:
                    told = month_spread(months[""][key])
                    row = (window.start, key, came[key], *told, last[key], weeks.get(key, math.nan))
                    rows.append(row)
            progress(f"{number} of {count} past windows forecast")
        last = came
    columns = ["from", "metric", "came", "median", "low", "high", "last", "weeks"]
    return pd.DataFrame(rows, columns=columns)


def weekly_bootstrap(history: History, days: int, rng: np.random.Generator) -> Dict[str, float]:
    """Return the median frequencies of windows made of past weeks, drawn at random."""
    of_day = [daily_counts(history, name) for name in history.environments]
    found = {}
    for key, counts in (
        ("deployment_frequency", np.sum(of_day, axis=0)),
        ("production_deployment_frequency", of_day[-1]),
    ):
        weeks = counts[len(counts) % 7 :].reshape(-1, 7)
        again = rng.integers(len(weeks), size=(500, math.ceil(days / 7)))
        sums = weeks[again].reshape(500, -1)[:, :days].sum(axis=1)
        found[key] = float(np.median(sums)) / days
    return found


def forecast_actuals(metrics: Metrics) -> Dict[str, float]:
    """Return the forecast metrics of a measured history, NaN for what it does not have."""
    overall = metrics.overall
    failed = overall.at["change_fail_rate_pct", "value"] * overall.at["change_fail_rate_pct", "n"]
    return {
        **dict.fromkeys(FORECAST_METRICS, math.nan),
        **{key: float(metrics.values[key]) for key in FORECAST_METRICS if key in metrics.values},
        "production_median_lead_time": float(overall.at["change_lead_time_hours", "value"]),
        "production_change_fail_rate": float(overall.at["change_fail_rate_pct", "value"]),
        "production_failures": round(failed / 100) if failed >= 0 else math.nan,
    }


def backtest_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return for each metric (the index) how well it was forecast.

    Columns: `windows` in which there was something to compare, `held` (the share of them that lie
    within the 90 % band), and the median error of the forecast's median (`error`), of the window
    before (`error_last`) and of the weeks (`error_weeks`).
    """
    known = table.dropna(subset=["came", "low", "high"])
    held = (known["came"] >= known["low"] - 1e-9) & (known["came"] <= known["high"] + 1e-9)
    errors = {
        name: (known[column] - known["came"]).abs()
        for name, column in (("error", "median"), ("error_last", "last"), ("error_weeks", "weeks"))
    }
    frame = pd.DataFrame({"metric": known["metric"], "windows": 1, "held": held * 1.0, **errors})
    ways = {"windows": "sum", "held": "mean", **dict.fromkeys(errors, "median")}
    return frame.groupby("metric").agg(ways).reindex(list(SCORED))


HOLDS = 0.8  # a 90 % band is believed that held at least this share of the past windows


def backtest_verdict(scores: pd.DataFrame) -> str:
    """Return in words what a backtest says of the forecasts."""
    held: List[str] = []
    missed: List[str] = []
    for key, row in scores.dropna(subset=["held"]).iterrows():
        count = f"{row['held'] * row['windows']:.0f} of {row['windows']:.0f}"
        named = held if row["held"] >= HOLDS else missed
        named.append(f"{FORECAST_METRICS[key].label} ({count})")
    text = "Backtest: each past window was forecast from what was known before it."
    if held:
        text += f" The 90 % bands held {', '.join(held)}."
    if missed:
        text += f" The 90 % bands did not hold {', '.join(missed)}: "
        text += "read these forecasts as a direction only."
    if not held and not missed:
        text += " Nothing could be compared."
    return text


# ---- Reporting engine: forecasts -> console and JSON --------------------------------------------


def format_forecast(forecast: Forecast, prices: Prices = Prices()) -> str:
    """Return the comparison in words and numbers."""
    days, calibration = forecast.window.days, forecast.calibration
    lines = [
        DOUBLE_LINE,
        f"🔮 WHAT IF: {forecast.runs} simulated months of {days} days, the same for each scenario "
        f"(seed {forecast.seed})",
        DOUBLE_LINE,
        "",
        *([*textwrap.wrap(forecast.verdict, 100), ""] if forecast.verdict else []),
        "The median month (5 % and 95 % of months), and the mean difference from the baseline",
        "(its 95 % interval).",
        "",
    ]
    held = {} if forecast.scores is None else forecast.scores["held"].to_dict()
    for key in SHOWN:
        metric, target = FORECAST_METRICS[key], BENCHMARKS.get(key)
        mark = "  ! the band did not hold in the backtest" * (held.get(key, 1) < HOLDS)
        lines.append(metric.label + (f" (elite {target})" if target else "") + mark)
        if key in calibration.assumed:
            lines += [f"  n/a: {calibration.assumed[key]}", ""]
            continue
        if forecast.measured is not None and metric.unit:  # counts are of another number of days
            lines.append(measured_line(key, forecast))
        for name, own in forecast.months.items():
            lines.append(forecast_line(name, key, own, forecast.baseline))
        lines.append("")
    lines += level_lines(forecast)
    if prices != Prices():
        lines += cost_lines(cost_table(forecast.months, prices), prices)
    rates = {one.team.commits_per_day for one in forecast.scenarios.values()}
    if len(rates) > 1:
        told = "commits_per_day changes: the model has no queue of people, so more commits do"
        lines += ["", told, "not make anyone slower."]
    left = [fitted.path for fitted in calibration.knobs if not fitted.n]
    if left:
        lines += ["", f"Assumed, as the history does not tell it: {', '.join(left)}"]
    return join_folded(lines)


def forecast_html(forecast: Forecast) -> str:
    """Return the comparison as a notebook shows it: a row for each scenario of each metric."""
    heads = ["median month (5 % to 95 %)", "mean difference from the baseline (95 % interval)"]
    rows = {}
    for key in SHOWN:
        target = BENCHMARKS.get(key)
        label = FORECAST_METRICS[key].label + (f" (elite {target})" if target else "")
        for name, own in forecast.months.items():
            difference = difference_text(key, own, forecast.baseline)
            rows[label, name] = [spread_text(key, own[key]), difference]
    for name, own in forecast.months.items():
        counts = level_counts(own, forecast.calibration)
        share = show_percent(counts[LEVELS[0].name], forecast.runs) if counts else "n/a"
        rows["Months that are ELITE", name] = [share, ""]
    with pd.option_context("display.max_colwidth", None):
        table = pd.DataFrame(list(rows.values()), pd.MultiIndex.from_tuples(rows), heads).to_html()
    return (
        f"<p><b>SIMULATED</b>: {forecast.runs} months of {forecast.window.days} days, the same for "
        f"each scenario (seed {forecast.seed})</p>{table}"
    )


def table_cell(name: str, width: int = 32) -> str:
    """Return a name in a column of the comparison."""
    return f"{shorten_text(name, width):<{width}}"


def spread_text(key: str, values: np.ndarray) -> str:
    """Return the median of the months and their range."""
    metric = FORECAST_METRICS[key]
    middle, low, high = month_spread(values)
    if math.isnan(middle):
        return "n/a"
    number = f"{middle:.{metric.digits}f}"
    shown = with_unit(number, metric.short_unit) if metric.unit else number
    return f"{shown} ({low:.{metric.digits}f} to {high:.{metric.digits}f})"


def forecast_line(name: str, key: str, months: Months, baseline: Months) -> str:
    """Return the line of one scenario and one metric."""
    difference = difference_text(key, months, baseline)
    return f"  {table_cell(name)} {spread_text(key, months[key]):<30} {difference}".rstrip()


def difference_text(key: str, months: Months, baseline: Months) -> str:
    """Return the mean difference from the baseline with its interval; nothing for itself."""
    if months is baseline:
        return ""
    mean, least, most = paired_difference(months[key], baseline[key])
    if math.isnan(mean):
        return f"n/a ({LEAST_MONTHS} months with a value are needed: --runs)"
    return signed(mean, least, most)


def signed(mean: float, low: float, high: float) -> str:
    """Return a difference with its interval."""
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})".replace("-0.00", "+0.00")


def measured_line(key: str, forecast: Forecast) -> str:
    """Return what the history says, with a warning where the months fitted to it miss it."""
    assert forecast.measured is not None
    value, (_, low, high) = forecast.measured[key], month_spread(forecast.baseline[key])
    missed = not math.isnan(value) and not low <= value <= high
    warning = "! not among the baseline's months: the fit misses it" * missed
    shown = FORECAST_METRICS[key].text(float(value))
    if key in forecast.calibration.bounds:
        shown = f"at least {shown}"
        warning = warning or "! a lower bound, as the months are"
    return f"  {'(measured)':<32} {shown:<30} {warning}".rstrip()


def level_lines(forecast: Forecast) -> List[str]:
    """Return how many months of each scenario reach each level."""
    calibration = forecast.calibration
    if not level_counts(forecast.baseline, calibration):
        bound = "only a lower bound of the change failure rate was measured"
        why = [calibration.assumed[key] for key in BENCHMARKS if key in calibration.assumed]
        why += [bound] * ("change_failure_rate" in calibration.bounds)
        return [f"Months that reach each level: not assessable, {'; '.join(dict.fromkeys(why))}"]
    counted = {name: level_counts(own, calibration) for name, own in forecast.months.items()}
    levels = list(dict.fromkeys(key for counts in counted.values() for key in counts))
    heads = [level.replace(" PERFORMER", "") for level in levels]
    lines = [f"{'Months that reach each level':<34} {'  '.join(heads)}"]
    for name, counts in counted.items():
        cells = (f"{counts.get(key, 0):>{len(head)}}" for key, head in zip(levels, heads))
        lines.append(f"  {table_cell(name)} {'  '.join(cells)}")
    return lines


def cost_lines(costs: pd.DataFrame, prices: Prices) -> List[str]:
    """Return the hours lost in a month, what they cost, and when a change has paid for itself."""

    def text(spread: Sequence[float], digits: int = 0) -> str:
        middle, low, high = (f"{value:,.{digits}f}".replace("inf", "never") for value in spread)
        if middle == "nan":
            return "n/a"
        return middle if low == high else f"{middle} ({low} to {high})"

    named = [(prices.failed, "failed"), (prices.waiting, "waiting")]
    priced = " and ".join(
        f"{price:g} a {which} hour" for price, which in named if price is not None
    )
    lines = [
        "",
        f"What a month costs, at {priced or 'no price'}: the median (5 % and 95 % of months)",
        f"  {'':<32} {'failed hours':>22} {'waiting hours':>26}",
    ]
    for name, row in costs.iterrows():
        hours = f"{text(row['failed_hours'], 1):>22} {text(row['waiting_hours']):>26}"
        lines.append(f"  {table_cell(str(name))} {hours}")
    for number, (name, row) in enumerate(costs.iterrows()):
        lines.append(f"  {table_cell(str(name)).strip()} costs {text(row['cost'])}")
        if not number:
            continue
        middle, low, high = row["saved"]
        saved, back = f"saves {text(row['saved'])} a month", ""
        if middle < 0:
            saved = f"costs {text((-middle, -high, -low))} more than the baseline"
        if prices.investment is not None:
            months = text(row["payback"], 1)
            back = f"; {prices.investment:,g} is back in {months} months"
            if months.startswith("never"):
                back = f"; {prices.investment:,g} is not back"
        lines.append(f"    {saved}{back}")
    return lines


def forecast_document(forecast: Forecast, prices: Prices = Prices()) -> Dict[str, Any]:
    """Return what `--json` prints of a comparison."""
    scenarios, baseline, calibration = {}, forecast.baseline, forecast.calibration
    for name, own in forecast.months.items():
        metrics: Dict[str, Dict[str, Any]] = {}
        for key, values in own.items():
            metrics[key] = dict(zip(("median", "p5", "p95"), month_spread(values)))
            difference = paired_difference(values, baseline[key])
            metrics[key]["difference"] = dict(zip(("mean", "low", "high"), difference))
        scenarios[name] = {"metrics": metrics, "levels": level_counts(own, calibration) or None}
    document = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "simulated": True,
        "seed": forecast.seed,
        "runs": forecast.runs,
        "days": forecast.window.days,
        "measured": forecast.measured,
        "assumed": calibration.assumed,
        "fitted": {one.path: {"n": one.n, "from": one.what} for one in calibration.knobs},
        "verdict": forecast.verdict or None,
        "scenarios": {name: json.loads(one.to_json()) for name, one in forecast.scenarios.items()},
        "what_if": scenarios,
    }
    if prices != Prices():
        document["costs"] = {
            "prices": prices._asdict(),
            "months": cost_table(forecast.months, prices).to_dict("index"),
        }
    return to_jsonable(document)


def format_levers(table: pd.DataFrame, runs: int, seed: int, step: float) -> str:
    """Return the table of levers in words and numbers."""
    metric = lever_metric(table)
    before = metric.text(float(table["before"].iloc[0])) if len(table) else "n/a"
    lines = [
        DOUBLE_LINE,
        f"🎚️ WHAT MATTERS MOST: {metric.label}, {before} in the mean month as things are",
        DOUBLE_LINE,
        f"Each knob improved by {100 * step:g} %; {runs} simulated months, the same (seed {seed})",
        "",
    ]
    measured, (low, high) = table.attrs.get("measured", math.nan), table.attrs["band"]
    if not math.isnan(measured):
        missed = "! the fit misses it: take no more than the order from this" * (
            not low <= measured <= high
        )
        fitted = f"the fitted months have {metric.text(low)} to {metric.text(high)}"
        lines[-1:] = [f"Measured: {metric.text(measured)}; {fitted} {missed}".rstrip(), ""]
    for row in table.to_dict("records"):
        numbers = "n/a"
        if not math.isnan(row["difference"]):
            numbers = signed(row["difference"], row["low"], row["high"])
        lines.append(f"  {numbers:<28} {row['change']}")
    certain = (table["low"] > 0) | (table["high"] < 0)
    if not certain.any():
        lines += ["", "No knob alone surely changes it: take a larger --step, or another metric."]
    lines += ["", "open_hours, freezes and promotion are no levers: --what-if tries them."]
    return join_folded(lines)


def lever_metric(table: pd.DataFrame) -> Metric:
    """Return the metric that a table of levers is about."""
    elite = Metric("Odds of ELITE", "%", "Months that meet all four benchmarks.")
    return FORECAST_METRICS.get(table.attrs["metric"], elite)


def format_backtest(scores: pd.DataFrame, days: int) -> str:
    """Return the scores of a backtest in words and numbers."""
    lines = [
        DOUBLE_LINE,
        f"🔁 BACKTEST: past windows of {days} days, each forecast from what was known before it",
        DOUBLE_LINE,
        f"{'':<34}{'windows':>8}{'band held':>11}{'error':>12}{'as before':>12}{'by weeks':>12}",
    ]
    for key, row in scores.iterrows():
        unit = FORECAST_METRICS[key].short_unit
        names = ("error", "error_last", "error_weeks")
        errors = [show_number(row[name], unit) for name in names]
        windows = 0 if math.isnan(row["windows"]) else int(row["windows"])
        share = show_percent(row["held"], 1, 0) if windows else "n/a"
        numbers = "".join(f"{error:>12}" for error in errors)
        lines.append(f"  {FORECAST_METRICS[key].label:<32}{windows:>8}{share:>11}{numbers}")
    lines += [
        "",
        "error: median distance from what came; as before: if the last window came again;",
        "by weeks: if weeks of the past came again at random.",
        "",
        *textwrap.wrap(backtest_verdict(scores), 100),
    ]
    return "\n".join(lines)


# ---- GitOpsAutomation: the pipeline, a method for each step -------------------------------------


def print_text(text: str = "") -> None:
    """Print; a character that the console cannot show becomes `?`."""
    try:
        print(text)  # noqa: T201
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "replace").decode(encoding))  # noqa: T201


def utc_today() -> pd.Timestamp:
    """Return 00:00 UTC of this day."""
    return pd.Timestamp(_dt.datetime.now(_dt.timezone.utc)).normalize()


def window_end(end: Union[None, str, _dt.date]) -> Optional[pd.Timestamp]:
    """Return a date as the UTC midnight at which a window ends; GitOpsError if it is none."""
    if end is None:
        return None
    try:
        if isinstance(end, str):
            end = _dt.datetime.strptime(end, "%Y-%m-%d")
        if not isinstance(end, _dt.date) or end is pd.NaT:
            raise TypeError("no date")
        moment = pd.Timestamp(end)
        moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    except (ValueError, TypeError, OverflowError):
        raise GitOpsError(f"end must be a date such as 2026-01-31, not {in_quotes(end)}") from None
    if moment != moment.normalize() or not FIRST_DAY < moment <= LAST_DAY:
        raise GitOpsError(f"end must be a whole UTC day from 1970 to 2199, not {one_line(end)}")
    return moment


class GitOpsAutomation:
    """The pipeline: commits, deployments, rollbacks, metrics, report and dashboard, in this order.

    Parameters: `scenario` has the knobs of the simulation. `seed` repeats a run; one is chosen, and
    shown, if it is left out. `end` is the date (UTC) before which the window lies, today by
    default. `output_dir` is the folder for files, made when it is first needed. `on_rollback` is
    called with a dict for each simulated rollback. Raises GitOpsError for an argument that cannot
    be used.

    Attributes, None until their step has run: `git_commits`, `deployments`, `rollbacks` (tables,
    see `COLUMNS`), `metrics` (a dict, see `METRICS`). Others: `environments`, `applications`,
    `seed`, `window`.

    >>> gitops = GitOpsAutomation(seed=7, end="2026-01-31")
    >>> commits = gitops.simulate_git_activity(days=30)
    <BLANKLINE>
    📝 Generating Git commit history...
      ✓ Generated 208 commits
    """

    STEPS = {
        "git_commits": "simulate_git_activity(), load_git_history() or load_history()",
        "deployments": "simulate_deployments()",
        "rollbacks": "simulate_rollbacks()",
        "metrics": "calculate_dora_metrics()",
    }

    git_commits: Any
    deployments: Any
    rollbacks: Any
    metrics: Any
    window: Any
    _real: Optional[History]  # the real deployments that were loaded, in the window
    _commits_are_real: bool
    flow: Optional[pd.DataFrame]  # what became of the releases (see `simulate_deployments`)
    measured: Any  # the Metrics that `metrics` is the dict of
    by: Optional[str]  # the period of the report's trend: week, month or none
    earlier: Optional[Mapping[str, Any]]  # the metrics.json that the report compares with

    def __init__(
        self,
        scenario: Scenario = Scenario(),
        *,
        seed: Optional[int] = None,
        end: Union[None, str, _dt.date] = None,
        output_dir: Union[str, os.PathLike] = "output",
        on_rollback: Optional[Callable[[Dict[str, Any]], Any]] = None,
    ) -> None:
        self.scenario = check_instance("scenario", scenario, Scenario)
        chosen = int.from_bytes(os.urandom(4), "big") if seed is None else seed
        self.seed = check_whole("seed", chosen, 0, 2**63 - 1)
        is_path = isinstance(output_dir, (str, os.PathLike))
        check_that(is_path, "output_dir", "be a path", output_dir)
        self.output_dir = Path(output_dir)
        callable_or_none = on_rollback is None or callable(on_rollback)
        check_that(callable_or_none, "on_rollback", "be a function", on_rollback)
        self.on_rollback = on_rollback
        self.advice_runs: Optional[int] = None  # months on which advice is tried; None: enough
        self.by, self.earlier = None, None
        self._end = window_end(end)
        self._store(git_commits=None, window=None)

    def _store(self, **results: Any) -> None:
        """Store what a step made, and drop what later steps made of the old one."""
        self._kept: Dict[str, Any] = {}  # what the report is made from besides the metrics
        steps = list(self.STEPS)
        first = min(steps.index(name) for name in results if name in steps)
        for name in steps[first:]:
            setattr(self, name, None)
        if first <= steps.index("deployments"):
            self.flow, self._real = None, None
        if first == 0:
            self._commits_are_real = False
        for name, value in results.items():
            setattr(self, name, value)

    def _need(self, step: str) -> Any:
        """Return the result of an earlier step; GitOpsError that says which one to call."""
        if getattr(self, step) is None:
            raise GitOpsError(f"no {step} yet: call {self.STEPS[step]} first")
        return getattr(self, step)

    @property
    def environments(self) -> List[str]:
        """The environments in promotion order; the last one is production."""
        return self.scenario.names if self._real is None else list(self._real.environments)

    @property
    def applications(self) -> List[str]:
        """The applications of the scenario and of the commits; of real deployments, theirs."""
        if self._real is not None:
            return list(self._real.deployments["application"].cat.categories)
        found = [] if self.git_commits is None else count_words(self.git_commits["application"])
        return list(dict.fromkeys([*self.scenario.team.applications, *found]))

    @property
    def history(self) -> History:
        """The three tables with their window; GitOpsError until there are rollbacks."""
        if self._real is not None:
            return self._real
        commits, deployments, rollbacks = map(
            self._need, ("git_commits", "deployments", "rollbacks")
        )
        return History(commits, deployments, rollbacks, self.window, tuple(self.environments))

    def simulate_git_activity(self, days: int = 30) -> pd.DataFrame:
        """Simulate the commits of `days` whole days: the `git_commits` table."""
        print_text("\n📝 Generating Git commit history...")
        window = Window.before(self._end or utc_today(), days)
        self._store(git_commits=commits_table(self.scenario.team, window, self.seed), window=window)
        print_text(f"  ✓ Generated {count_text(len(self.git_commits), 'commit')}")
        return self.git_commits

    def load_git_history(self, repo: Union[str, os.PathLike], days: int = 30) -> pd.DataFrame:
        """Read the real commits of a repository in the place of `simulate_git_activity`.

        Returns the `git_commits` table. GitOpsError if it is no repository or has no commit in the
        window.
        """
        print_text("\n📝 Reading Git commit history...")
        applications = list(self.scenario.team.applications)
        commits, window = read_git_log(repo, days, self._end, applications)
        self._store(git_commits=commits, window=window)
        self._commits_are_real = True
        print_text(f"  ✓ Read {count_text(len(commits), 'commit')}")
        return commits

    def load_history(self, history: History, days: Optional[int] = None) -> pd.DataFrame:
        """Take a real history in the place of the three simulations: the `deployments` table.

        It comes from `load_gitops_repository`, `load_release_tags`, `load_argocd` or `load_tables`.
        `days` cuts a window out that ends with `end`, by default with the history. Next comes
        `calculate_dora_metrics()`. GitOpsError where nothing is known of the window.
        """
        check_that(isinstance(history, History), "history", "be what a loader returns", history)
        if days is not None or self._end is not None:
            end = self._end or history.window.end
            length = max((end - history.window.start).days, 1) if days is None else days
            history = history.within(Window.before(end, length))
        self._store(git_commits=history.git_commits, window=history.window)
        self.deployments, self.rollbacks = history.deployments, history.rollbacks
        self._real = history
        rollbacks = count_text(len(self.rollbacks), "rollback")
        print_text(f"  ✓ Read {count_text(len(self.deployments), 'deployment')} and {rollbacks}")
        return self.deployments

    def trend(self, by: str = "month") -> pd.DataFrame:
        """Return the metrics of production of each `week` or `month` (see `measure_trend`)."""
        return measure_trend(self.history, by)

    def simulate_deployments(self) -> pd.DataFrame:
        """Take the commits through the environments: the `deployments` table."""
        commits = self._need("git_commits")
        print_text("\n🚀 Simulating deployments...")
        deployments, flow = simulate_deployments(commits, self.scenario, self.window, self.seed)
        self._store(deployments=deployments)
        self.flow = flow
        print_text(f"  ✓ Simulated {count_text(len(deployments), 'deployment')}")
        healthy = deployments[has_word(deployments["health"], HEALTHY)]
        counts, good = (count_words(table["environment"]) for table in (deployments, healthy))
        for name in self.environments:
            count = counts.get(name, 0)
            print_text(
                f"    • {name}: {count_text(count, 'deployment')}, "
                f"{show_percent(good.get(name, 0), count)} success"
            )
        return deployments

    def simulate_rollbacks(self) -> pd.DataFrame:
        """Roll failed deployments back, and tell `on_rollback` of each: the `rollbacks` table."""
        deployments = self._need("deployments")
        print_text("\n🔄 Simulating automated rollbacks...")
        known, rollbacks = simulate_rollbacks(deployments, self.scenario.rollback, self.seed)
        deployments["recovered"] = known["recovered"]
        self._store(rollbacks=rollbacks)
        print_text(f"  ✓ Executed {count_text(len(self.rollbacks), 'rollback')}")
        print_text(f"    • Success rate: {self.rollbacks['success'].sum()}/{len(self.rollbacks)}")
        if self.on_rollback is not None:
            for rollback in self.rollbacks.to_dict("records"):
                self.on_rollback(rollback_alert(rollback))
        return self.rollbacks

    def calculate_dora_metrics(self) -> Dict[str, Any]:
        """Measure the history: the `metrics` dict."""
        history = self.history
        print_text("\n📊 Calculating DORA metrics...")
        self.measured = measure(history)
        self._store(metrics=self.measured.values)
        print_text("\n".join(metric_step_lines(self.measured)))
        return self.metrics

    def generate_report(self, details: bool = False) -> None:
        """Print the report; its details are the applications, DORA's Quick Check and the trend."""
        print_text("\n" + format_report(self._report(details)))

    def markdown(self) -> str:
        """Return the verdict, its tables and the advice as Markdown, for a CI job or a request."""
        return format_markdown(self._report())

    def trace(self, release: str = "latest") -> pd.DataFrame:
        """Return the life of one release, step by step (see `trace_release`)."""
        return trace_release(self.history, release, self.scenario if self._real is None else None)

    def _repr_html_(self) -> str:
        """Return what a notebook shows of this object: the verdict, or the step that comes next."""
        if self.metrics is None:
            step = next(name for name in self.STEPS if getattr(self, name) is None)
            return f"<p>GitOpsAutomation: call {self.STEPS[step]} next</p>"
        return format_html(self._report(advised=False))

    def _report(self, details: bool = False, advised: bool = True) -> Report:
        """Return what the report is made from."""
        self._need("metrics")
        scenario = self.scenario if self._real is None else None
        usual = "week" if self.window.days <= 62 else "month"
        trend = self._trend(usual if details and self.by is None else self.by)
        advice = self._once("advice", self._advice) if advised else None
        return Report(
            self.measured, self.flow, self.seed, scenario, advice, trend, self._compared(),
            self._commits_are_real, details,
        )  # fmt: skip

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` returns, made once for each result of the steps."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def _trend(self, by: Optional[str]) -> Optional[pd.DataFrame]:
        """Return the trend by week or month; None for no period."""
        return None if by is None else self._once(f"trend by {by}", lambda: self.trend(by))

    def _compared(self) -> Optional[pd.DataFrame]:
        """Return the comparison of the report, if it has one."""
        if self.earlier is None:
            return None
        table = compare_with(self.earlier, self.measured.overall)
        table.attrs["notes"] = compared_notes(self.earlier, self.measured.history)
        return table

    def visualize_metrics(self, dpi: int = 300) -> Path:
        """Draw the dashboard into `gitops_dashboard.png` in the output folder; return its path.

        In a notebook the picture is shown as well, once, wherever in the cell the call stands.
        """
        self._need("metrics")
        check_whole("dpi", dpi, 10, 1200)
        print_text("\n📊 Creating visualizations...")
        picture = render_png(draw_dashboard(self.measured, dpi, self.seed, self._commits_are_real))
        path = write_files(self.output_dir, {"gitops_dashboard.png": picture})[0]
        print_text(f"✓ Visualization saved as '{one_line(path)}'")
        show_in_notebook(picture)
        return path

    def what_if(
        self, scenarios: Mapping[str, Change], runs: int = 200, days: int = 30
    ) -> pd.DataFrame:
        """Simulate the baseline and other scenarios over the same months: a tidy table.

        A row is a metric of a run of a scenario: `scenario`, `run`, `metric` (of
        `FORECAST_METRICS`), `value`. See `forecast`.
        """
        return self.forecast(scenarios, runs, days).table

    def forecast(
        self,
        scenarios: Mapping[str, Change],
        runs: int = 200,
        days: int = 30,
        calibration: Optional[Calibration] = None,
    ) -> Forecast:
        """Simulate the baseline and other scenarios over the same months.

        `scenarios` gives each a name: a `Scenario`, or a function that makes one from the baseline.
        The first of the forecast is `baseline`: the `calibration`, by default that of `calibrate`.
        `days` is the length of a month. GitOpsError for arguments that cannot be used.
        """
        check_whole("runs", runs, 2, MOST_RUNS)
        if not isinstance(scenarios, Mapping):
            raise GitOpsError(
                f"what_if takes {{name: Scenario}}, such as PRESETS, not {in_quotes(scenarios)}"
            )
        for name, scenario in scenarios.items():
            if not callable(scenario):
                check_instance(f"the scenario {in_quotes(name)}", scenario, Scenario)
        if "baseline" in scenarios:
            raise GitOpsError("baseline is what the scenarios are compared with: take another name")
        calibration, window = calibration or self.calibrate(), self._month(days)
        compared = {"baseline": calibration.scenario, **scenarios}
        with terminal_progress() as progress:
            months = forecast_months(compared, calibration, window, runs, self.seed, progress)
        best = calibration.scenario
        known = {name: apply_change(change, best, best) for name, change in compared.items()}
        return Forecast(months, known, calibration, window, self.seed, self._measured() or None)

    def levers(
        self, metric: str = "", step: float = 0.25, runs: int = 200, days: int = 30
    ) -> pd.DataFrame:
        """Improve every knob by the same step: what matters most (see `lever_table`)."""
        check_whole("runs", runs, 2, MOST_RUNS)
        check_number("step", step, 0.01, 0.9)
        check_word("metric", metric or "elite", ("elite", *FORECAST_METRICS))
        calibration, window = self.calibrate(), self._month(days)
        with terminal_progress() as progress:
            table = lever_table(calibration, window, runs, self.seed, step, metric, progress)
        measured = self._measured().get(table.attrs["metric"])
        if measured is not None:
            table.attrs["measured"] = measured
        return table

    def _measured(self) -> Dict[str, float]:
        """Return the forecast metrics of the part of the real history that is fitted."""
        return {} if self._real is None else forecast_actuals(measure(recent_part(self._real)))

    def backtest(self, days: int = 30, runs: int = 100) -> pd.DataFrame:
        """Forecast the past of the real history that was loaded, and compare (see `backtest`)."""
        check_whole("runs", runs, 2, MOST_RUNS)
        check_whole("days", days, 1, MOST_DAYS)
        with terminal_progress() as progress:
            return backtest(self.history, self.scenario, days, runs, self.seed, progress)

    def _month(self, days: int) -> Window:
        """Return the window of a forecast."""
        end = self._end or (utc_today() if self.window is None else self.window.end)
        return Window.before(end, days)

    def calibrate(self) -> Calibration:
        """Return the baseline of forecasts, and what is not known of it.

        It is fitted to the real deployments that were loaded, or its team to the repository.
        Otherwise it is the scenario of this object.
        """
        if self._real is not None:
            return calibrate(self._real, self.scenario)
        if self._commits_are_real:
            return calibrate_team(self.git_commits, self.window, self.scenario)
        return Calibration(self.scenario, warm_up=WARM_UP)

    def _advice(self) -> List[str]:
        """Return the recommendations, tried on simulated windows of at most a month."""
        try:
            calibration = self.calibrate()
        except GitOpsError:  # nothing to fit: what follows from the metrics is all that can be said
            return plain_recommendations(self.metrics)
        window = Window.before(self.window.end, min(self.window.days, 30))
        if self._real is None:  # a month as that of the report, which begins with nothing
            calibration = dataclasses.replace(calibration, warm_up=0)
        runs = self.advice_runs or enough_runs(calibration.scenario, window)
        cached = functools.lru_cache(maxsize=8)(Noise)
        with terminal_progress() as progress:
            trial = Trial(calibration, window, runs, self.seed, progress, cached)
            return tried_recommendations(self.measured, trial)

    def export(self) -> List[Path]:
        """Write the tables as CSV and the metrics as JSON into the output folder: their paths."""
        document = self.document()
        return write_files(
            self.output_dir, export_files(self.measured, document, self._trend(self.by))
        )

    def document(self) -> Dict[str, Any]:
        """Return the metrics, the maturity, the seed and the window as plain JSON values."""
        self._need("metrics")
        simulated = self._real is None
        seed, scenario = (self.seed, self.scenario) if simulated else (None, None)
        document = summary_document(self.measured, seed, self.flow, scenario)
        document["commits_are_real"] = self._commits_are_real or not simulated
        trend, compared = self._trend(self.by), self._compared()
        if trend is not None:
            document["trend"] = to_jsonable(trend.to_dict("records"))
        if compared is not None:
            document["compared"] = to_jsonable(compared.to_dict("index"))
        return document

    def production_metrics(self) -> pd.DataFrame:
        """Return dora.dev's five metrics of production (see the function of this name)."""
        return production_metrics(self.history)


@contextlib.contextmanager
def terminal_progress(delay: float = 2) -> Iterator[Progress]:
    """Tell a terminal how far long work is, after so many seconds; clean up at the end."""
    quiet_until = monotonic() + delay

    def tell(message: str) -> None:
        if sys.stderr is not None and sys.stderr.isatty() and monotonic() >= quiet_until:
            sys.stderr.write(f"\r\x1b[K{message}\r")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        tell("")


def notebook_kernel() -> Any:
    """Return the shell of the notebook kernel that runs this, or None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell if hasattr(shell, "kernel") else None


def show_in_notebook(picture: Optional[bytes]) -> None:
    """Show a picture in the notebook that runs this, if one does."""
    if picture is not None and notebook_kernel() is not None:
        from IPython.display import Image as NotebookImage
        from IPython.display import display

        display(NotebookImage(picture, width=1100))


def write_files(folder: Union[str, os.PathLike], files: Mapping[str, bytes]) -> List[Path]:
    """Write files into a folder and return their paths; GitOpsError if that cannot be done.

    Each is written under a temporary name of its own first, then all are moved into place. So a
    reader finds a whole file, the old or the new, and nothing is lost if the writing fails.
    """
    folder = Path(folder)
    umask = os.umask(0)  # there is no way to read it without setting it
    os.umask(umask)
    written: Dict[Path, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
            written[Path(temporary)] = folder / name
            with open(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o666 & ~umask)
        for temporary_path, path in written.items():
            os.replace(temporary_path, path)
    except (OSError, ValueError) as error:
        problem = f"cannot write into {one_line(folder)}: {one_line(error)}"
        raise GitOpsError(f"{problem}; choose another output folder") from None
    finally:
        for temporary_path in written:
            with contextlib.suppress(OSError):
                temporary_path.unlink()
    return list(written.values())


# ---- Command line -------------------------------------------------------------------------------

EXAMPLES = """\
examples:
  python gitops_automation.py                        simulate 30 days
  python gitops_automation.py --days 90 --seed 7     a longer run that can be repeated
  python gitops_automation.py --config elite         another pipeline
  python gitops_automation.py --repo ../shop         the commits of a real repository
  python gitops_automation.py --print-config > team.json
  python gitops_automation.py --config team.json     your own rates, waits and team
  python gitops_automation.py --repo ../config --deployments-from --by month
  argocd app list -o json | python gitops_automation.py --argocd - --repo ../config
  python gitops_automation.py --what-if production.wait_hours=4:12 --what-if traditional
  python gitops_automation.py --levers               what matters most
  python gitops_automation.py --repo ../config --deployments-from --backtest
  python gitops_automation.py --json --no-dashboard  the numbers for another program

exit status:
  0    done
  1    done, and a limit of --fail-on was crossed
  2    unusable input: one line on standard error says what to do
  130  interrupted
"""


COMMAND = "gitops-automation"  # what an installation makes of this file


def program_name() -> str:
    """Return the name by which the program was started: the installed command, or this file."""
    return COMMAND if os.path.basename(sys.argv[0]) == COMMAND else "gitops_automation.py"


class OptionParser(argparse.ArgumentParser):
    """A parser whose errors are ours: one line, with what to do."""

    def error(self, message: str) -> Any:
        hint = ";"
        if "expected one argument" in message:
            hint = "; a value that begins with - needs =, as --option=-value;"
        elif message.startswith("unrecognized arguments: "):
            alike = self.options_like(message.split(": ", 1)[1])
            hint = f"; did you mean {' or '.join(alike)}?" if alike else ";"
        raise GitOpsError(f"{one_line(message, 500)}{hint} -h lists the options")

    def options_like(self, mistyped: str) -> List[str]:
        """Return the options that have a word as a part of their name, else the most similar."""
        word = re.split(r"[ =]", mistyped.lower())[0].strip("-").replace("_", "-")
        names = [name[2:] for name in self._option_string_actions if name.startswith("--")]
        parts = [name for name in names if len(word) > 2 and word in name]
        alike = parts or difflib.get_close_matches(word, names, 1)
        return [f"--{name}" for name in alike[:3]]


def whole_option(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number between two bounds."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not low <= int(text) <= high:
            rule = f"must be a whole number from {low} to {high}, not {in_quotes(text)}"
            raise argparse.ArgumentTypeError(rule)
        return int(text)

    return convert


def metric_option(text: str) -> str:
    """Return the metric that levers are compared by: an argparse type."""
    if text and text not in ("elite", *FORECAST_METRICS):
        known = ", ".join(["elite", *FORECAST_METRICS])
        raise argparse.ArgumentTypeError(f"must be one of {known}, not {in_quotes(text)}")
    return text


def share_option(text: str) -> float:
    """Return the value of an option that is a share: an argparse type."""
    if not re.fullmatch(r"0?\.[0-9]{1,6}", text) or not 0.01 <= float(text) <= 0.9:
        raise argparse.ArgumentTypeError(f"must be from 0.01 to 0.9, not {in_quotes(text)}")
    return float(text)


class Limit(NamedTuple):
    """A limit of `--fail-on`: a metric on the wrong side of it."""

    key: str  # of METRICS or PRODUCTION_METRICS
    sign: str
    number: float

    def is_crossed(self, value: float) -> bool:
        """Return whether a value lies on the wrong side."""
        sides = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
        return bool(sides[self.sign](value, self.number))


def limit_option(text: str) -> Limit:
    """Return a limit such as `change_failure_rate>15`: an argparse type."""
    known = [*numeric_metrics(), *PRODUCTION_METRICS]
    found = re.fullmatch(r"([a-z_0-9]+) *(<=|>=|<|>) *([0-9]{1,9}(?:\.[0-9]{1,9})?)", text.strip())
    if not found:
        rule = "must be METRIC>NUMBER or METRIC<NUMBER, such as change_failure_rate>15"
        raise argparse.ArgumentTypeError(f"{rule}, not {in_quotes(text)}")
    key, sign, number = found.groups()
    if key not in known:
        near = difflib.get_close_matches(key, known, 1) or list(BENCHMARKS)
        raise argparse.ArgumentTypeError(f"has no metric {in_quotes(key)}; try {', '.join(near)}")
    return Limit(key, sign, float(number))


def numeric_metrics() -> List[str]:
    """Return the keys of METRICS whose values are one number."""
    empty = {"success_rates", "failure_reasons", "commit_types", "lead_time_hours_by_environment"}
    return [key for key in METRICS if key not in empty and "_by_" not in key]


def check_limits(limits: Sequence[Limit], metrics: Metrics) -> int:
    """Say which limits are crossed, and which could not be judged; return the exit status."""
    status = 0
    for limit in limits:
        table, is_bound = metrics.overall, False
        if limit.key in PRODUCTION_METRICS:
            value, is_bound = table.at[limit.key, "value"], table.at[limit.key, "at_least"]
            shown = PRODUCTION_METRICS[limit.key].text(value)
        else:
            value, shown = metrics.values[limit.key], value_text(limit.key, metrics)
            is_bound = shown.startswith("at")
        rule = f"{limit.key}{limit.sign}{limit.number:g}"
        if limit.is_crossed(value):
            print_problem("limit crossed", f"{limit.key} is {shown}, and --fail-on says {rule}")
            status = 1
        elif math.isnan(value) or is_bound:
            print_problem("warning", f"--fail-on {rule} cannot be judged: {limit.key} is {shown}")
    return status


def price_option(text: str) -> float:
    """Return the value of an option that is a price: an argparse type."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise argparse.ArgumentTypeError(f"must be a price such as 120, not {in_quotes(text)}")
    return float(text)


# fmt: off
OPTIONS: Dict[str, List[Tuple[str, Dict[str, Any], str]]] = {
    "what is simulated": [
        ("--days", dict(metavar="N", type=whole_option(1, MOST_DAYS)),
         "how many whole UTC days to simulate or measure, or to forecast as a month (default: 30; "
         "of real deployments all)"),
        ("--end", dict(metavar="DATE"),
         "the day after the last one, as YYYY-MM-DD (default: today; of a real history the day "
         "after its last)"),
        ("--seed", dict(metavar="N", type=whole_option(0, 2**63 - 1)),
         "repeat the run that had this seed (default: a new seed, which the report shows)"),
        ("--config", dict(metavar="FILE"),
         "simulate the scenario in this JSON file, or a preset: traditional, elite or gitops; what "
         "the file leaves out keeps its default"),
        ("--print-config", dict(action="store_true"), "print the scenario as JSON and stop"),
        ("--repo", dict(metavar="DIR"),
         "take the commits from this git repository, and simulate their deployments; --tags and "
         "--deployments-from measure the real ones"),
    ],
    "your own deployments": [
        ("--deployments-from", dict(metavar="TEMPLATE", nargs="?", const=""),
         "measure the deployments that the history of --repo shows, a config repository; TEMPLATE "
         "is a path with {environment} and {application} (default: the layout is looked for)"),
        ("--tags", dict(metavar="PATTERN", nargs="*"),
         "measure the release tags of --repo, of any repository, as deployments to production "
         "(default: v*)"),
        ("--argocd", dict(metavar="FILE", nargs="+"),
         "measure what Argo CD recorded, in files that `argocd app list -o json` wrote (- is "
         "standard input); --repo is then the config repository"),
        ("--application", dict(metavar="NAME", action="append"),
         "measure this application alone, as shop or shop-*; repeatable"),
        ("--environments", dict(metavar="LIST"),
         "the environments in promotion order, as dev,staging,production=prod-*; a pattern matches "
         "the name of an environment, an application, its namespace or destination"),
        ("--environment-label", dict(metavar="KEY"),
         "with --argocd: the label or annotation that names the environment"),
        ("--ignore-authors", dict(metavar="REGEX"),
         "what these authors commit is no change, as 'bot$'"),
        ("--history", dict(metavar="DIR"),
         "measure the tables in this folder, which --export wrote"),
        ("--incidents", dict(metavar="FILE"),
         "a CSV or JSON file of incidents (application, started, resolved), which say what "
         "deployments failed"),
        ("--incident-days", dict(metavar="N", type=whole_option(1, MOST_DAYS)),
         "an incident belongs to a deployment of so many days before it (default: 7)"),
        ("--incidents-complete", dict(action="store_true", default=None),
         "the file has the incidents of all applications and days, not from its first to its last"),
    ],
    "over time": [
        ("--by", dict(choices=("week", "month")),
         "also show the metrics of production for each week or month"),
        ("--compare", dict(metavar="FILE"),
         "show what differs from the metrics.json of an earlier run"),
    ],
    "what if": [
        ("--what-if", dict(metavar="CHANGE", action="append"),
         "simulate the same months with a change, and compare: KNOB=VALUE[,...] "
         "(production.wait_hours=4:12 or =*0.5), a preset or a JSON file; NAME: CHANGE names it; "
         "repeatable"),
        ("--levers", dict(metavar="METRIC", nargs="?", const="", type=metric_option),
         "improve each knob by the same step, and show what that does to METRIC (mean_lead_time, "
         "mttr_minutes, ...) or to the odds of `elite` (default: the benchmark that is met least)"),
        ("--step", dict(metavar="SHARE", type=share_option),
         "with --levers: how far each knob is improved (default: 0.25, a quarter)"),
        ("--backtest", dict(action="store_true", default=None),
         "forecast past windows of real deployments, and show how often the forecast held"),
        ("--runs", dict(metavar="N", type=whole_option(2, MOST_RUNS)),
         "how many months to simulate for each scenario (default: 200; for recommendations and "
         "--backtest 100)"),
        ("--cost-per-failed-hour", dict(metavar="N", type=price_option),
         "with --what-if: the price of an hour in which production is failed"),
        ("--cost-per-waiting-hour", dict(metavar="N", type=price_option),
         "with --what-if: the price of an hour in which a change waits for production"),
        ("--investment", dict(metavar="N", type=price_option),
         "with a price: what the change costs once, to show in how many months it is back"),
    ],
    "what comes out": [
        ("--details", dict(action="store_true", default=None),
         "report the applications, DORA's Quick Check and the trend too"),
        ("--trace", dict(metavar="RELEASE"),
         "print the life of one release in the place of the report: a commit, or the latest, "
         "slowest or failed one of production"),
        ("--markdown", dict(metavar="FILE"),
         "write the verdict, its tables and the advice as Markdown, as for a CI job's summary"),
        ("--fail-on", dict(metavar="LIMIT", action="append", type=limit_option),
         "end with status 1 if a metric crosses a limit, such as \"change_failure_rate>15\"; "
         "repeatable"),
        ("--output", dict(metavar="DIR", default="output"),
         "write the files into this folder (default: output)"),
        ("--dpi", dict(metavar="N", default=300, type=whole_option(10, 1200)),
         "draw the dashboard in this resolution (default: 300, which is 5400 x 3000 pixels)"),
        ("--no-dashboard", dict(action="store_true"), "draw no dashboard"),
        ("--export", dict(action="store_true"),
         "also write the tables as CSV and the metrics as JSON"),
        ("--json", dict(action="store_true"), "print one JSON object instead of the report"),
        ("--quiet", dict(action="store_true"),
         "print nothing but warnings and errors (and what --json prints)"),
        ("--alert-webhook", dict(metavar="URL"),
         "send each simulated rollback to this webhook of the Slack or Mattermost kind"),
        ("--version", dict(action="version", version=f"%(prog)s {__version__}"),
         "show the version and stop"),
    ],
}
# fmt: on
"""{group: its options, each with its settings for argparse and its meaning}"""


def option_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    width = min(shutil.get_terminal_size().columns - 2, 100)
    examples = EXAMPLES
    if program_name() == COMMAND:
        examples = EXAMPLES.replace("python gitops_automation.py", COMMAND)
    parser = OptionParser(
        prog=program_name(),
        allow_abbrev=False,
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=width),
        usage="%(prog)s [OPTION]...",
        epilog=examples,
        description="Simulate a GitOps delivery pipeline, or read a real one. Measure it with the "
        "DORA metrics,\nreport and draw it. Without an option, 30 days are simulated.",
    )
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for name, settings, meaning in options:
            group.add_argument(name, help=meaning, **settings)
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Reject meaningless combinations of options."""
    given = {name for name, value in vars(options).items() if value is not None}
    real = {"argocd", "deployments_from", "history", "tags"} & given
    needs_real = "needs real deployments: --argocd, --deployments-from, --tags or --history"
    rules = [  # (options, whether they are out of place, why)
        ({"environment_label"}, not options.argocd, "needs --argocd FILE"),
        ({"deployments_from", "tags"}, options.repo is None, "needs --repo DIR"),
        ({"incidents"}, not real, needs_real),
        ({"incident_days", "incidents_complete"}, options.incidents is None,
         "needs --incidents FILE"),
        ({"environments", "application"}, not real - {"tags"},
         "needs --argocd, --deployments-from or --history"),
        ({"ignore_authors"}, not {"deployments_from", "tags"} & given,
         "needs --deployments-from or --tags"),
        ({"argocd", "deployments_from"}, options.tags is not None, "has no meaning with --tags"),
        ({"argocd", "repo", "deployments_from"}, options.history is not None,
         "has no meaning with --history"),
        ({"config", "alert_webhook"}, bool(real), "has no meaning with real deployments"),
        ({"alert_webhook"}, bool(options.what_if),
         "has no meaning with --what-if: nothing is rolled back"),
        ({"by", "compare"}, bool(options.what_if), "has no meaning with --what-if"),
        ({"levers", "backtest"}, bool(options.what_if), "has no meaning with --what-if"),
        ({"by", "compare", "alert_webhook", "backtest"}, options.levers is not None,
         "has no meaning with --levers"),
        ({"by", "compare"}, bool(options.backtest), "has no meaning with --backtest"),
        ({"backtest"}, not real, needs_real),
        ({"step"}, options.levers is None, "needs --levers"),
        ({"details", "trace", "markdown", "fail_on"},
         bool(options.what_if or options.levers is not None or options.backtest),
         "has no meaning with a forecast"),
        ({"details", "markdown", "fail_on", "by", "compare"}, options.trace is not None,
         "has no meaning with --trace"),
        ({"cost_per_failed_hour", "cost_per_waiting_hour"}, not options.what_if,
         "needs --what-if CHANGE"),
        ({"investment"}, not {"cost_per_failed_hour", "cost_per_waiting_hour"} & given,
         "needs --cost-per-failed-hour or --cost-per-waiting-hour"),
    ]  # fmt: skip
    for names, wrong, why in rules:
        for name in sorted(names & given) if wrong else ():
            raise GitOpsError(f"--{name.replace('_', '-')} {why}")


def check_folder(folder: Path) -> None:
    """Refuse an output folder that cannot be written, before the work and not after it."""
    with contextlib.suppress(OSError, ValueError):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if existing.is_dir() and os.access(existing, os.W_OK):
            return
    raise GitOpsError(f"cannot write into {one_line(folder)}; --output takes a folder")


def run_options(options: argparse.Namespace) -> int:
    """Do what the command line asks for; return the exit status."""
    check_options(options)
    scenario = Scenario()
    if options.config is not None:
        scenario = PRESETS.get(options.config) or read_scenario(options.config)
    if options.print_config:
        print_text(scenario.to_json())
        return 0
    alerts = None if options.alert_webhook is None else WebhookAlerts(options.alert_webhook)
    gitops = GitOpsAutomation(
        scenario, seed=options.seed, end=options.end, output_dir=options.output, on_rollback=alerts
    )
    gitops.advice_runs = options.runs
    check_folder(gitops.output_dir)
    hidden = options.quiet or options.json
    with contextlib.redirect_stdout(io.StringIO()) if hidden else contextlib.nullcontext():
        ways = [
            (options.what_if, compare_scenarios),
            (options.levers is not None, compare_levers),
            (options.backtest, score_forecasts),
            (options.trace is not None, trace_one),
            (True, report_history),
        ]
        document = next(way for wanted, way in ways if wanted)(gitops, options)
        if alerts is not None:
            print_text(f"✓ Sent {count_text(alerts.sent, 'alert')} to {alerts.host}")
    if alerts is not None and alerts.problem:
        lost = count_text(alerts.undelivered, "rollback alert")
        print_problem("warning", f"{lost} did not reach {alerts.host}: {alerts.problem}")
    if options.json:
        print_text(json.dumps(document, indent=2))
    return check_limits(options.fail_on, gitops.measured) if options.fail_on else 0


@contextlib.contextmanager
def titled_output() -> Iterator[None]:
    """Print the title and what was printed meanwhile; nothing if it fails: an error stands alone.

    A terminal is told that there is work.
    """
    held = io.StringIO()
    with terminal_progress(0) as progress, contextlib.redirect_stdout(held):
        progress("Reading and checking...")
        yield
    title = f"🔄 GitOps Workflow Automation with ArgoCD\n{DOUBLE_LINE}\n"
    print_text((title + held.getvalue()).rstrip("\n"))


def load_real_history(
    gitops: GitOpsAutomation, options: argparse.Namespace, whole: bool = False
) -> None:
    """Read the real history that the options name, if they name one: its last days, or the whole.

    For a forecast it is the whole, as the days are those of a month of the forecast.
    """
    history = read_real_history(options)
    if history is not None:
        if options.incidents is not None:
            incidents = read_incidents(options.incidents)
            print_text(f"  ✓ Read {count_text(len(incidents), 'incident')}")
            days, complete = options.incident_days or 7, bool(options.incidents_complete)
            history = with_incidents(history, incidents, days, complete)
        gitops.load_history(history, None if whole else options.days)
    elif options.repo is not None:
        gitops.load_git_history(options.repo, options.days or 30)
        print_text(f"    • {other_reading(options.repo)}")
    gitops.by = options.by
    gitops.earlier = None if options.compare is None else read_document(options.compare)


def read_real_history(options: argparse.Namespace) -> Optional[History]:
    """Return the real history that the options name, if they name one."""
    repo, environments = options.repo, options.environments
    applications = {"applications": options.application or ()}
    if options.history is not None:
        print_text("\n📡 Reading the tables of a history...")
        return load_tables(options.history, environments, **applications)
    if options.tags is not None:
        print_text("\n📡 Reading the release tags...")
        return load_release_tags(repo, options.tags or "v*", ignore_authors=options.ignore_authors)
    template, repository = options.deployments_from, None
    if template is not None:
        print_text("\n📡 Reading the config repository's history...")
        if options.argocd:  # both read the same layout
            template = find_layout(repo, HeadTree(repo).files, template, Stages.of(environments))
        repository = load_gitops_repository(
            repo, template, environments, ignore_authors=options.ignore_authors, **applications
        )
    if not options.argocd:
        return repository
    print_text("\n📡 Reading Argo CD history...")
    cluster = load_argocd(
        options.argocd, repo, environments=environments, label=options.environment_label,
        template=template, **applications,
    )  # fmt: skip
    return cluster if repository is None else join_histories(repository, cluster)


def other_reading(repo: FilePath) -> str:
    """Return which option would measure what a repository shows of its deployments, if any."""
    said = "its deployments are simulated"
    if ask_git(repo, "for-each-ref", "--merged=HEAD", "refs/tags/v*"):
        return f"{said}; --tags measures its release tags"
    files = ask_git(repo, "ls-tree", "-r", "-z", "--full-tree", "--name-only", "HEAD").split("\0")
    layout = best_layout(files, Stages.of(None))[1]
    return f"{said}; --deployments-from measures those of {layout}" if layout else said


def report_history(gitops: GitOpsAutomation, options: argparse.Namespace) -> Dict[str, Any]:
    """Measure, print and draw a history; return the document of `--json`."""
    make_history(gitops, options)
    gitops.calculate_dora_metrics()
    gitops.generate_report(bool(options.details))
    if not options.no_dashboard:
        gitops.visualize_metrics(options.dpi)
    if options.export:
        print_text(f"✓ Exported {', '.join(path.name for path in gitops.export())}")
    if options.markdown is not None:
        file = Path(options.markdown)
        write_files(file.parent, {file.name: gitops.markdown().encode("utf-8", "replace")})
    print_text("\n✅ GitOps automation complete!\n")
    print_text(format_summary(gitops.measured))
    return gitops.document()


def make_history(gitops: GitOpsAutomation, options: argparse.Namespace) -> None:
    """Read a real history, or simulate one."""
    with titled_output():
        load_real_history(gitops, options)
        if gitops.git_commits is None:
            gitops.simulate_git_activity(options.days or 30)
    if gitops.deployments is None:
        gitops.simulate_deployments()
        gitops.simulate_rollbacks()


def trace_one(gitops: GitOpsAutomation, options: argparse.Namespace) -> Dict[str, Any]:
    """Print the life of one release; return the document of `--json`."""
    make_history(gitops, options)
    steps = gitops.trace(options.trace)
    print_text("\n" + format_trace(steps))
    document = {"schema_version": SCHEMA_VERSION, "version": __version__, **steps.attrs}
    return to_jsonable({**document, "steps": steps.to_dict("records")})


def compare_scenarios(gitops: GitOpsAutomation, options: argparse.Namespace) -> Dict[str, Any]:
    """Print and draw a comparison of scenarios; return the document of `--json`."""
    days = options.days or 30
    with titled_output():
        load_real_history(gitops, options, whole=True)
        calibration = gitops.calibrate()
        if calibration.knobs:
            print_text("\n🔧 Fitting the baseline to this history...")
            print_text(join_folded(f"  • {note}" for note in calibration.notes))
        scenarios: Dict[str, Change] = {}
        for text in options.what_if:
            name, change = named_change(text, calibration.scenario)
            if name in scenarios:
                twice = f"two scenarios are called {in_quotes(name)}"
                raise GitOpsError(f"{twice}; give each its own name")
            scenarios[name] = change
        forecast = gitops.forecast(scenarios, options.runs or 200, days, calibration)
    if gitops.deployments is not None and gitops.window.days >= LEAST_DAYS + 3 * days:
        forecast = forecast._replace(scores=backtest_scores(gitops.backtest(days)))
    prices = Prices(options.cost_per_failed_hour, options.cost_per_waiting_hour, options.investment)
    print_text("\n" + format_forecast(forecast, prices))
    files = {"what_if.csv": forecast.table.to_csv(index=False).encode()} if options.export else {}
    show_and_save(gitops, options, files, "gitops_what_if.png", draw_what_if, forecast)
    return forecast_document(forecast, prices)


def compare_levers(gitops: GitOpsAutomation, options: argparse.Namespace) -> Dict[str, Any]:
    """Print and draw what matters most; return the document of `--json`."""
    step, runs = options.step or 0.25, options.runs or 200
    with titled_output():
        load_real_history(gitops, options, whole=True)
        table = gitops.levers(options.levers, step, runs, options.days or 30)
    print_text("\n" + format_levers(table, runs, gitops.seed, step))
    files = {"levers.csv": table.to_csv(index=False).encode()} if options.export else {}
    show_and_save(gitops, options, files, "gitops_levers.png", draw_levers, table, runs, step)
    document = {"schema_version": SCHEMA_VERSION, "version": __version__, "simulated": True}
    document.update(seed=gitops.seed, runs=runs)
    document.update(metric=table.attrs["metric"], step=step, levers=table.to_dict("records"))
    return to_jsonable(document)


def score_forecasts(gitops: GitOpsAutomation, options: argparse.Namespace) -> Dict[str, Any]:
    """Print how well past windows were forecast; return the document of `--json`."""
    days = options.days or 30
    with titled_output():
        load_real_history(gitops, options, whole=True)
        table = gitops.backtest(days, options.runs or 100)
    scores = backtest_scores(table)
    print_text("\n" + format_backtest(scores, days))
    if options.export:
        write_files(gitops.output_dir, {"backtest.csv": table.to_csv(index=False).encode()})
    document = {"schema_version": SCHEMA_VERSION, "version": __version__, "days": days}
    document["verdict"] = backtest_verdict(scores)
    return to_jsonable({**document, "scores": scores.to_dict("index")})


def show_and_save(
    gitops: GitOpsAutomation,
    options: argparse.Namespace,
    files: Dict[str, bytes],
    name: str,
    draw: Callable[..., Figure],
    *shown: Any,
) -> None:
    """Draw a picture unless it is not wanted, and write it and other files."""
    if not options.no_dashboard:
        files = {name: render_png(draw(*shown, dpi=options.dpi)), **files}
    if files:
        paths = write_files(gitops.output_dir, files)
        saved = ", ".join(f"'{one_line(path)}'" for path in paths)
        print_text(f"\n✓ Saved as {saved}")
    show_in_notebook(files.get(name))


def print_problem(kind: str, message: str) -> int:
    """Print a warning or an error on standard error; return the exit status of an error."""
    sys.stderr.write(f"{program_name()}: {kind}: {one_line(message, 8000)}\n")
    return 2


def parse_arguments(argv: Union[None, str, Sequence[str]]) -> argparse.Namespace:
    """Return the options of a list of arguments, or of a string that is split as a shell does."""
    try:
        arguments = shlex.split(argv) if isinstance(argv, str) else argv
    except ValueError as error:
        raise GitOpsError(f"cannot split {in_quotes(argv)} into arguments: {error}") from None
    return option_parser().parse_args(arguments)


def main(argv: Union[None, str, Sequence[str]] = None) -> None:
    """Run the program with some arguments, as `"--days 7"` or `["--days", "7"]`.

    They are those of the process by default; in a notebook none, as those are the kernel's. Raises
    SystemExit (in a notebook GitOpsError) only if something is wrong.
    """
    if notebook_kernel() is not None:
        try:
            options = parse_arguments(argv or [])
        except SystemExit:  # the help or the version was printed
            return
        run_options(options)
        return
    try:
        try:
            status = run_options(parse_arguments(argv))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
        if status:
            sys.exit(status)
    except GitOpsError as error:
        sys.exit(print_problem("error", str(error)))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        # keep the interpreter from flushing once more into what is closed or full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            message = f"cannot print or write: {error}; give the output a place with room"
            sys.exit(print_problem("error", message))


if __name__ == "__main__":
    if notebook_kernel() is None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
