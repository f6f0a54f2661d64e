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
    "EnvironmentRules",
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

UNCLASSIFIED = "unclassified"  # the environment of what nothing tells the environment of
DWELL = 60  # seconds that a release must stay to be one
PRODUCTION_WORDS = ("production", "prod", "prd", "live")
ENVIRONMENT_WORDS: Dict[str, int] = {  # each with its place in the usual order of promotion
    **dict.fromkeys(("sandbox", "dev", "devel", "develop", "development"), 1),
    **dict.fromkeys(("integration", "int", "test", "testing"), 2),
    **dict.fromkeys(("qa", "uat", "acceptance"), 3),
    **dict.fromkeys(("stage", "stg", "staging"), 5),
    **dict.fromkeys(("preprod", "preproduction"), 6),
    **dict.fromkeys(PRODUCTION_WORDS, 7),
}


def environment_words(name: str) -> List[Tuple[str, int, int]]:
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
    return found


class Sync(NamedTuple):
    """What came to an application in one environment: a sync, or a commit to its files."""

    start: int  # seconds since 1970
    end: int
    moved: Mapping[Any, Any]  # {part of the application: what it runs now}
    commit: str  # what the tables call it
    failure: str = ""  # why it failed; nothing if it succeeded
    automatic: bool = False  # whether Argo CD syncs by itself when the repository changes
    contains: int = 0  # a bit for each commit to its files that it contains; 0 if that is not known
    adds: FrozenSet[Any] = frozenset()  # the commits that no earlier one contained
    reverts: FrozenSet[Any] = frozenset()  # the commits that those revert
    after_gap: bool = False  # whether entries before it are lost
    echo: bool = False  # whether another cluster of the same stage had it before


class Look(NamedTuple):
    """What Argo CD showed of an application at one time."""

    time: int  # seconds since 1970
    health: str
    since: int = 0  # when this health began; 0 if that is not known
    synced: bool = False
    message: str = ""


class Outcome(NamedTuple):
    """What the syncs of a place come to. Whole numbers are positions in `releases`."""

    releases: List[Sync]  # what changed what runs, or tried to
    begins: Set[int]  # those before which entries are lost: they may have changed nothing
    went_back: Set[int]  # those that put back what had run before: they are no deployments
    restored: Dict[int, int]  # {bad release: the one that put it right in the end}
    reasons: Dict[int, str]  # why a release is bad
    seen_healthy: Set[int]  # those that somebody saw healthy
    recovered: Dict[int, int]  # {bad release: when it was seen good again}

    @property
    def deployments(self) -> List[int]:
        """Every release but those that went back, that only begin what is known, or that echo."""
        echoes = {number for number, sync in enumerate(self.releases) if sync.echo}
        uncounted = self.went_back | (self.begins - self.reasons.keys()) | echoes
        return [number for number in range(len(self.releases)) if number not in uncounted]


class Place(NamedTuple):
    """An application in one environment, as a reader found it."""

    application: str
    environment: str
    rule: str  # what told the environment
    origin: str  # what the source calls it
    outcome: Outcome
    covered: List[Tuple[int, int]]  # spans in which nothing is lost, in seconds since 1970
    syncs: List[Sync]  # all of them, re-syncs included
    looks: List[Look]


class Standing:
    """The releases of one part of an application that stand, as a stack."""

    def __init__(self) -> None:
        self.values: List[Any] = []
        self.numbers: List[int] = []  # the release that brought each
        self.depth: Dict[Any, int] = {}  # where a value stands

    def place(self, value: Any, number: int, sync: Sync, releases: Sequence[Sync]) -> None:
        """Put a release on the stack, on what stays under it."""
        if value in self.depth:
            return self.cut(self.depth[value] + 1)
        while self.numbers and contains_less(sync, releases[self.numbers[-1]]):
            self.cut(len(self.values) - 1)
        self.depth[value] = len(self.values)
        self.values.append(value)
        self.numbers.append(number)

    def cut(self, height: int) -> None:
        """Take off what stands above a height."""
        for value in self.values[height:]:
            del self.depth[value]
        del self.values[height:], self.numbers[height:]


def contains_less(sync: Sync, other: Sync) -> bool:
    """Return whether a sync contains some of the commits of another one, and no others."""
    if sync.contains in (0, other.contains):
        return False
    return sync.contains | other.contains == other.contains


def classify_syncs(syncs: Sequence[Sync], looks: Sequence[Look] = ()) -> Outcome:
    """Classify each sync of a place as a deployment, a failure or a rollback.

    The releases that stand form a stack, for each part of the application. A failed sync never
    joins it.

    1. A sync of what runs already changes nothing. It is left out unless rule 5 needs it. A failed
       sync that is tried again is left out, too.
    2. A release that gives way within a minute to what ran before is a flap: both are left out.
    3. A release that equals a deeper one, or contains less than the top, goes back: the top was
       bad.
    4. A release that reverts commits of an earlier release takes it back: the earlier one was bad.
    5. A release of rule 3 or 4 puts right the failed syncs before it, too. So does a sync of what
       runs already, where people sync. Where Argo CD syncs by itself, the failures were over when
       the repository went back. A look or the next sync shows that.
    6. Any other is a deployment.
    """
    seen_good = [look.time for look in looks if look.synced and look.health == HEALTHY]
    found = Outcome([], set(), set(), {}, {}, set(), {})
    releases, restored = found.releases, found.restored
    stacks: Dict[Any, Standing] = {}
    failed: List[int] = []  # the syncs that failed since the last good one
    flap = False
    for sync, following in itertools.zip_longest(syncs, syncs[1:]):
        here = len(releases)
        if flap:
            flap = False
            continue
        if sync.after_gap:
            stacks, failed = {}, []
            found.begins.add(here)
        if sync.failure:
            if not failed or releases[failed[-1]].moved != sync.moved:
                failed.append(here)
                releases.append(sync)
            continue
        flap = is_flap(sync, following, stacks)
        if flap:
            continue
        same = sets_what_runs(sync, stacks)
        for number in [one for one in failed if releases[one].automatic]:
            looked = any_between(seen_good, releases[number].end, sync.end)
            if same or looked:
                failed.remove(number)
            if same and not looked:
                found.recovered[number] = sync.end
        if same and not failed:
            continue
        bad = [] if same else taken_back(sync, stacks, found)
        if same or bad:
            bad += failed
        for number in bad:
            # a bad release may have put others right before: they are put right only here
            others = [first for first, last in restored.items() if last == number]
            restored.update(dict.fromkeys(others or [number], here))
            found.went_back.add(here)
        releases.append(sync)
        failed = []
        for part, value in sync.moved.items():
            stacks.setdefault(part, Standing()).place(value, here, sync, releases)
    return judge_releases(found, looks, seen_good)


def any_between(times: Sequence[int], low: int, high: int) -> bool:
    """Return whether one of the sorted times lies between two."""
    return bisect.bisect_right(times, low) < bisect.bisect_left(times, high)


def sets_what_runs(sync: Sync, stacks: Mapping[Any, Standing]) -> bool:
    """Return whether a sync sets what runs already."""
    return all(
        part in stacks and stacks[part].values[-1] == value for part, value in sync.moved.items()
    )


def is_flap(sync: Sync, following: Optional[Sync], stacks: Mapping[Any, Standing]) -> bool:
    """Return whether a release is left within a minute for what ran before it."""
    return (
        following is not None
        and following.start - sync.end < DWELL
        and not (following.failure or following.after_gap or sync.after_gap)
        and not sets_what_runs(sync, stacks)
        and sync.moved.keys() <= following.moved.keys()
        and sets_what_runs(following, stacks)
    )


def taken_back(sync: Sync, stacks: Mapping[Any, Standing], found: Outcome) -> List[int]:
    """Return the releases that a sync takes back: rules 3 and 4 of `classify_syncs`."""
    tops = {part: stacks[part].numbers[-1] for part in sync.moved if part in stacks}
    known = all(
        part in stacks and value in stacks[part].depth for part, value in sync.moved.items()
    )
    older = any(contains_less(sync, found.releases[number]) for number in tops.values())
    if known or older:
        moved = (part for part in tops if stacks[part].values[-1] != sync.moved[part])
        return list(dict.fromkeys(tops[part] for part in moved))
    if sync.reverts:
        for number in range(len(found.releases) - 1, max(found.begins, default=0) - 1, -1):
            if sync.reverts & found.releases[number].adds:
                done = number in found.restored or number in found.went_back
                return [] if done else [number]
    return []


def judge_releases(found: Outcome, looks: Sequence[Look], seen_good: Sequence[int]) -> Outcome:
    """Add what is known of the health of each release: the other fields of the outcome."""
    releases, reasons = found.releases, found.reasons
    reasons.update((at, sync.failure) for at, sync in enumerate(releases) if sync.failure)
    for at in found.restored:
        reasons.setdefault(at, "Rolled back")
    ends = [sync.end for sync in releases]
    degraded: Dict[int, int] = {}  # {release: when it was first seen degraded}
    for look in looks:
        at = bisect.bisect_right(ends, look.time) - 1
        if at >= 0 and look.health == HEALTHY:
            found.seen_healthy.add(at)
        elif at >= 0 and look.health == DEGRADED and not 0 < look.since < releases[at].start:
            degraded.setdefault(at, look.time)
            reasons.setdefault(at, look.message or "Degraded health")
    for at in reasons:
        begin = ends[at] if releases[at].failure else degraded.get(at, NEVER)
        look_number = bisect.bisect_right(seen_good, begin)
        if look_number == len(seen_good):
            continue
        time = seen_good[look_number]
        later = range(at + 1, bisect.bisect_right(ends, time))
        if all(number in reasons and number not in found.begins for number in later):
            found.recovered.setdefault(at, time)
    return found


def place_rows(place: Place) -> Dict[str, List[Row]]:
    """Return the rows of a place in `deployments` and `rollbacks`."""
    found, name = place.outcome, (place.application, place.environment)
    rows: Dict[str, List[Row]] = {"deployments": [], "rollbacks": []}
    for number in found.deployments:
        sync, reason = found.releases[number], found.reasons.get(number)
        status = FAILED if sync.failure else SYNCED
        health = HEALTHY if number in found.seen_healthy else UNKNOWN
        over = MISSING
        if reason is not None:
            health = DEGRADED
            good = (
                later.end
                for at, later in enumerate(found.releases)
                if at > number and at not in found.reasons
            )
            restored = found.restored.get(number)
            if restored is not None and restored not in found.reasons:
                over = found.releases[restored].end
            else:
                over = next(good, MISSING)
            over = found.recovered.get(number, over)
        row = sync.start, *name, sync.commit, status, health, sync.end - sync.start, reason, over
        rows["deployments"].append(row)
    for number, last in found.restored.items():
        bad, good_one = found.releases[number], found.releases[last]
        if not bad.echo:
            minutes, success = (good_one.end - bad.end) / 60, last not in found.reasons
            commits, why = (bad.commit, good_one.commit), found.reasons[number]
            rows["rollbacks"].append((bad.end, *name, *commits, why, minutes, success))
    return rows


def coverage_rows(places: Sequence[Place]) -> List[Row]:
    """Return the rows of `coverage`: one for each application in an environment."""
    rows: Dict[Tuple[str, str], Row] = {}
    for place in places:
        low, high = place.covered[-1]
        lost = int(len(place.covered) > 1 or 0 in place.outcome.begins)
        key = place.application, place.environment
        if key in rows:
            known = rows[key]
            low, high = max(low, known[4]), max(high, known[5])
            origin, lost = f"{known[2]}, {place.origin}", lost + known[6]
            rows[key] = (*key, origin, place.rule, low, high, lost)
        else:
            rows[key] = (*key, place.origin, place.rule, low, high, lost)
    return list(rows.values())


def history_from(
    source: str, places: Sequence[Place], commits: pd.DataFrame,
    changes: Iterable[Row], notes: Sequence[str], environments: Sequence[str],
) -> History:  # fmt: skip
    """Return the history that the places of a source come to."""
    rows: Dict[str, List[Row]] = collections.defaultdict(list)
    for place in places:
        for name, part in place_rows(place).items():
            rows[name] += part
    rows["coverage"] = coverage_rows(places)
    for application, environment, sha, committed, deployed, shared, _ in dict.fromkeys(changes):
        known = 0 < committed and (deployed == MISSING or committed <= deployed)
        if known and not shared:
            rows["changes"].append((application, environment, sha, "", committed, deployed))
    names = ("deployments", "rollbacks", "changes", "coverage")
    tables = {name: table_from(name, rows[name]) for name in names}
    coverage = tables["coverage"]
    times = coverage["from"], coverage["to"], tables["deployments"]["timestamp"]
    return History(
        commits, window=window_around(*times), environments=tuple(environments), source=source,
        notes=tuple(notes), **tables,
    )  # fmt: skip


def table_from(name: str, rows: Sequence[Row]) -> pd.DataFrame:
    """Return a table from its rows, in the order of their first time, then of their names."""
    columns = list(zip(*sorted(rows, key=lambda row: row[:4])))
    table: Dict[str, Any] = {}
    for number, (column, kind) in enumerate(ALL_COLUMNS[name].items()):
        values = columns[number] if rows else ()
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


# What the environments are called, and their order.


class Stages(NamedTuple):
    """What `--environments` says: the stages in promotion order, and what each takes in."""

    names: Tuple[str, ...]
    patterns: Tuple[Tuple[str, str], ...]  # (pattern of the environments' own names, stage)

    @classmethod
    def of(cls, stages: Union[str, Sequence[str]]) -> Stages:
        """Read stages such as `dev,staging,production=prod-*`; GitOpsError for a bad name."""
        listed = stages.split(",") if isinstance(stages, str) else list(stages)
        pairs = []
        for text in listed:
            name, equals, pattern = str(text).strip().partition("=")
            check_word("an environment of --environments", name)
            pairs.append((pattern if equals else name, name))
        return cls(tuple(dict.fromkeys(name for _, name in pairs)), tuple(pairs))

    def check(self, environments: Iterable[str]) -> None:
        """Raise GitOpsError for a stage that takes in none of the environments of the data."""
        there = sorted({*environments} - {UNCLASSIFIED})
        empty = [name for name in self.names if name not in map(self.stage_of, there)]
        if empty:
            listed = one_line(", ".join(there), 120)
            raise GitOpsError(
                f"--environments: {empty[0]} takes in none of {listed}; write {empty[0]}=NAME"
            )

    def stage_of(self, environment: str) -> Optional[str]:
        """Return the stage of an environment, None if no pattern takes it in."""
        names = {environment, with_production([environment])[environment]}
        for pattern, stage in self.patterns:
            if fnmatch.filter(names, pattern):
                return stage
        return None


def with_production(names: Iterable[str]) -> Dict[str, str]:
    """Return {name: its name in the tables}. `prod` and the like become production.

    They keep their names where another one is called production.
    """
    called = {name: name for name in names}
    if "production" not in called:
        called.update((name, "production") for name in called if name.lower() in PRODUCTION_WORDS)
    return called


def usual_order(names: Iterable[str]) -> List[str]:
    """Return environments in the usual order of promotion; other names come before staging."""
    ranks = {**ENVIRONMENT_WORDS, UNCLASSIFIED: 0}
    return sorted(set(names), key=lambda name: (ranks.get(name.lower(), 4), name))


# ---- Real history: a git repository -> commits and deployments ----------------------------------

# fmt: off
# The repository is untrusted. Its configuration and attributes can name programs for git to run.
# These options outrank them, and no subcommand runs that does more than read.
GIT = (
    "git", "--no-pager", "--no-replace-objects", "--no-optional-locks", "--literal-pathspecs",
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.devnull,
    "-c", "log.showSignature=false", "-c", "core.alternateRefsCommand=",
    "-c", "diff.orderFile=" + os.devnull, "-c", "log.mailmap=false", "-c", "log.showRoot=true",
    "-c", "submodule.recurse=false", "-c", "i18n.logOutputEncoding=UTF-8",
    "-c", "diff.relative=false", "-c", "protocol.allow=never", "-c", "core.quotePath=false",
)
GIT_LOG = (
    "log", "--no-color", "--no-decorate", "--no-show-signature", "--no-ext-diff", "--no-textconv",
    "--no-notes", "--encoding=UTF-8",
)
GIT_FILES = (*GIT_LOG, "-z", "--no-renames", "--name-only")
GIT_PATCHES = (
    *GIT_LOG, "--topo-order", "--diff-merges=first-parent", "-p", "-U0", "--text", "--find-renames",
    "--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--ws-error-highlight=none",
)
# fmt: on
GIT_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_GRAFT_FILE": os.devnull,  # the repository's own would hide commits
    "LC_ALL": "C",
}
CHUNK = 1 << 20  # bytes: git fills a pipe of this size while the chunk before is read
CONVENTIONAL = r"^(?P<type>[A-Za-z]+)(?:\((?P<scope>[^()]*)\))?!?:"
REVERTED = re.compile(rb"This reverts commit ([0-9a-f]{40,64})")


def stream_git(
    repo: FilePath, *arguments: str, separator: bytes = b"", stdin: bytes = b""
) -> Iterator[bytes]:
    """Yield what git prints, in chunks that end before a separator.

    The folder is git's working directory and no argument: a name may begin with a dash. The user's
    GIT_ variables are left out: GIT_DIR would win over the folder. Raises GitOpsError if git cannot
    read the folder.
    """
    takes = "--repo takes the folder of a git repository"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment.update(GIT_ENVIRONMENT)
    run_ahead: Any = {"pipesize": CHUNK} if sys.version_info >= (3, 10) else {}
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as questions:
        questions.write(stdin)
        questions.seek(0)
        try:
            process = subprocess.Popen(
                [*GIT, *arguments], cwd=repo, env=environment,
                stdin=questions, stdout=subprocess.PIPE, stderr=errors, **run_ahead,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            problem = f"cannot open {one_line(repo)}: {one_line(error)}"
            if isinstance(error, FileNotFoundError):
                there = os.path.isdir(repo)
                problem = "git is not installed" if there else f"no such folder: {one_line(repo)}"
            raise GitOpsError(f"{problem}; {takes}") from None
        with process:
            assert process.stdout is not None
            yield from cut_chunks(process.stdout, separator)
        if process.returncode:
            errors.seek(0)
            reason = one_line(errors.read(2000).decode("utf-8", "replace"))
            takes = "--repo takes a repository with commits"
            raise GitOpsError(f"git cannot read {one_line(repo)}: {reason}; {takes}")


def cut_chunks(stream: IO[bytes], separator: bytes) -> Iterator[bytes]:
    """Yield what a stream holds, in chunks that end before a separator."""
    parts: List[bytes] = []
    for block in iter(lambda: stream.read(CHUNK), b""):
        cut = block.rfind(separator) if separator else -1
        if cut > 0:
            yield b"".join([*parts, block[:cut]])
            parts, block = [], block[cut:]
        parts.append(block)
    if parts:
        yield b"".join(parts)


def ask_git(repo: FilePath, *arguments: str, stdin: bytes = b"") -> str:
    """Return all that git prints."""
    printed = b"".join(stream_git(repo, *arguments, stdin=stdin))
    return printed.decode("utf-8", "surrogateescape").strip()


def read_log(
    repo: FilePath, fields: Sequence[str], *options: str, stdin: bytes = b""
) -> Iterator[List[List[bytes]]]:
    """Yield the commits of one `git log` in groups. A commit is its fields, then the rest.

    `fields` are placeholders of git's format. The rest is what the options print of its files. A
    record begins with a marker that nobody can guess: no text in a repository can pass for one.
    """
    marker = f"/{os.urandom(8).hex()}"
    form = f"--format=tformat:{marker}" + "".join(f"{field}%x00" for field in fields)
    for chunk in stream_git(repo, *options, form, separator=marker.encode(), stdin=stdin):
        yield [record.split(b"\0", len(fields)) for record in chunk.split(marker.encode())[1:]]


def read_graph(
    repo: FilePath, *options: str, stdin: bytes = b""
) -> Iterator[Tuple[bytes, bytes, int, str, str, bytes, bytes]]:
    """Yield (sha, parents, seconds, author, subject, body, rest) of each commit of a log."""
    fields = ("%H", "%P", "%ct", "%an", "%s", "%b")
    for records in read_log(repo, fields, *options, stdin=stdin):
        sha, parents, times, authors, subjects, bodies, rest = zip(*records)
        texts = (printable_lines(column) for column in (authors, subjects))
        yield from zip(sha, parents, epochs(times).tolist(), *texts, bodies, rest)


def epochs(tokens: Sequence[bytes]) -> np.ndarray:
    """Return the seconds since 1970 that git prints; 0 for a time before 1970 or after 2199."""
    try:
        seconds = np.array(tokens, object).astype(np.int64)
    except (ValueError, OverflowError):  # a commit can claim any time, or none
        plain = (token if re.fullmatch(rb"[0-9]{1,15}", token) else b"0" for token in tokens)
        seconds = np.array([int(token) for token in plain], np.int64)
    return np.where((seconds < 0) | (seconds > LAST_SECOND), 0, seconds)


def printable_lines(tokens: Sequence[bytes]) -> List[str]:
    """Return lines of git as text that a terminal can take; one call cleans all of them."""
    if not tokens:
        return []
    return make_printable(b"\n".join(tokens).decode("utf-8", "replace"), keep="\n").split("\n")


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
        newest = epochs(ask_git(repo, *GIT_LOG, "-1000", "--format=%ct").encode().split())
        end = utc_times(np.array([newest.max(initial=0) // DAY * DAY + DAY]))[0]
    window = Window.before(end, days)
    low, high = window.seconds
    since = f"--since-as-filter={window.start.isoformat()}"  # git reads on after an older commit
    fields = ("%H", "%ct", "%an", "%s")
    parts: List[Tuple[np.ndarray, ...]] = []
    for records in read_log(repo, fields, *GIT_FILES, "--no-merges", since):
        seconds = epochs([record[1] for record in records])
        inside = np.flatnonzero((seconds >= low) & (seconds < high))
        chosen = [records[at] for at in inside.tolist()]
        texts = (printable_lines([record[field] for record in chosen]) for field in (0, 2, 3))
        files = [max(record[-1].count(b"\0") - 1, 0) for record in chosen]
        columns = (np.array(column, object) for column in texts)
        parts.append((*columns, seconds[inside], np.array(files, np.int64)))
    if not any(len(part[0]) for part in parts):
        raise GitOpsError(
            f"no commit in {one_line(repo)} from {window.start:%Y-%m-%d} to "
            f"{window.last:%Y-%m-%d}; choose more --days or another --end"
        )
    sha, author, subject, seconds, files_changed = (
        np.concatenate(columns)[::-1] for columns in zip(*parts)
    )
    order = np.argsort(seconds, kind="stable")
    subjects = pd.Series(subject[order], dtype=object)
    scope = subjects.str.extract(CONVENTIONAL, expand=True)["scope"].astype(object)
    application = scope.where(scope.isin(list(applications)), repository_name(repo))
    by_time = sha[order], seconds[order], author[order], subjects, application, files_changed[order]
    return commits_from(by_time, branch_of(repo)), window


def commits_from(columns: Sequence[Any], branch: str) -> pd.DataFrame:
    """Return the `git_commits` table of real commits.

    The columns are sha, seconds since 1970, author, subject, application and number of files.
    """
    sha, seconds, author, subject, application, files = columns
    subjects = pd.Series(subject, dtype=object)
    type_ = subjects.str.extract(CONVENTIONAL, expand=True)["type"].astype(object).str.lower()
    table = {
        "sha": sha,
        "timestamp": np.asarray(seconds, np.int64),
        "author": clean_names(author),
        "type": type_.where(type_.isin(list(COMMIT_TYPES)), "other").astype(object),
        "application": application,
        "branch": word_column(np.zeros(len(subjects), np.int8), [branch]),
        "message": subjects,
        "files_changed": files,
    }
    return as_table("git_commits", table)


class GitCommit(NamedTuple):
    """A commit of a config repository."""

    sha: str
    seconds: int  # since 1970, when the change was made
    author: str
    subject: str
    reverts: FrozenSet[str]  # the commits that it says it reverts
    files: int
    parents: Tuple[str, ...]


def reverts_in(body: bytes) -> FrozenSet[str]:
    """Return the commits that a commit's message says it reverts."""
    return frozenset(sha.decode() for sha in REVERTED.findall(body))


def commits_of_owners(
    owners: Iterable[Tuple[GitCommit, str]], repo: Optional[FilePath]
) -> pd.DataFrame:
    """Return the `git_commits` table of (commit, application) pairs of a repository."""
    rows = [
        (one.sha, one.seconds, one.author, one.subject, application, one.files)
        for one, application in owners
    ]
    columns = list(zip(*rows)) if rows else [()] * 6
    return commits_from(columns, "" if repo is None else branch_of(repo))


def branch_of(repo: FilePath) -> str:
    """Return the name of a repository's current branch; `HEAD` if there is none."""
    return one_line(ask_git(repo, "branch", "--show-current") or "HEAD")


def repository_name(repo: FilePath) -> str:
    """Return the name that people know a repository by: its folder's, without `.git`."""
    inner = ask_git(repo, "rev-parse", "--git-common-dir")
    folder = Path(os.fsdecode(repo), inner).resolve()
    name = folder.parent.name if folder.name == ".git" else re.sub(r"\.git$", "", folder.name)
    return one_line(os.fsencode(name).decode("utf-8", "replace"), 60)


# What a folder takes in from elsewhere in its repository.


def find_bases(
    repo: FilePath, folders: Mapping[Tuple[str, str], Iterable[Any]]
) -> Dict[Any, List[str]]:
    """Return {owner: the paths that the kustomizations of its folders refer to}.

    `folders` is {(commit, folder): its owners}. The kustomizations at these paths are followed,
    too. What lies inside of a folder is left out.
    """
    bases: Dict[Any, List[str]] = collections.defaultdict(list)
    asked = {place: dict.fromkeys(owners) for place, owners in folders.items()}
    for _ in range(10):  # bases of bases of bases: nobody nests them deeper
        places, asked = asked, {}
        for (commit, folder), text in zip(places, read_kustomizations(repo, list(places))):
            for reference in kustomize_references(text):
                path = posixpath.normpath(posixpath.join(folder, reference))
                for owner in places[commit, folder]:
                    inside = path.startswith((f"{folder}/", "..", "/"))
                    if not inside and path not in bases[owner]:
                        bases[owner].append(path)
                        asked.setdefault((commit, path), {})[owner] = None
        if not asked:
            break
    return bases


def read_kustomizations(repo: FilePath, places: Sequence[Tuple[str, str]]) -> Iterator[str]:
    """Yield the kustomization in each (commit, folder), "" where there is none."""
    files = ("kustomization.yaml", "kustomization.yml", "Kustomization")
    names = "\n".join(f"{sha}:{folder}/{file}" for sha, folder in places for file in files)
    stdin = names.encode("utf-8", "replace")
    printed = io.BytesIO()
    if places:
        printed.writelines(stream_git(repo, "cat-file", "--buffer", "--batch", stdin=stdin))
        printed.seek(0)
    for _ in places:
        text = b""
        for _ in files:  # git prints "name kind size" and the content, or "name missing"
            kind, size = printed.readline().rstrip(b"\n").split(b" ")[-2:]
            if size.isdigit():
                content = printed.read(int(size) + 1)[:-1]
                text += content if kind == b"blob" else b""
        yield text.decode("utf-8", "replace")


def kustomize_references(text: str) -> List[str]:
    """Return the paths that a kustomization refers to, but those of other repositories."""
    found: List[str] = []
    key = ""
    for line in text.splitlines():
        head = re.match(r"([A-Za-z]+)\s*:(.*)", line)
        if head:
            key, line = head.groups()
        if key in ("resources", "bases", "components"):
            found += re.findall(r"[^\s\[\],\"']+", re.sub(r"(^|\s)#.*", "", line))
    return [path for path in found if path != "-" and "://" not in path and "?" not in path]


# Deployments from the config repository itself: what it asks for, and since when.

# A version in a line: the value of one of these keys, the tag of an image, or what `ref=` names.
VERSION = re.compile(
    rb"(?:newTag|newDigest|tag|imageTag|image_tag|digest|version|chartVersion|appVersion"
    rb"|targetRevision)[\"']?[ \t]*:[ \t]*[\"']?([^\s\"'#,&{}\[\]]+)"
    rb"|image[\"']?[ \t]*:[ \t]*[\"']?[^\s\"'#]*[:@]([^\s\"'#,&{}\[\]/]+)(?=[\s\"',}]|$)"
    rb"|\?ref=([^\s\"'#,&{}\[\]]+)"
)
IN_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
RENAMED_FILE = re.compile(rb"^rename from ([^\n]+)\nrename to ([^\n]+)", re.MULTILINE)
PlaceName = Tuple[str, str]
"""An application, and the environment as the path names it."""


class Edit(NamedTuple):
    """What a commit does to a file of an environment."""

    place: PlaceName
    file: bytes
    before: bytes  # the file's name before, if the commit renames it
    was: PlaceName  # and the place where it was
    lines: bool  # whether it changes lines
    removed: List[str]  # the versions that its lines gave, in order
    added: List[str]  # and those that they give now


class Landing(NamedTuple):
    """A commit of the main line, and what came to the repository with it."""

    sha: str
    seconds: int
    edits: List[Edit]
    shallow: bool  # whether the clone has nothing before it


Origins = Mapping[Tuple[str, PlaceName, str], GitCommit]
"""{(landing, place, version): the oldest commit that brought it, perhaps on a merged branch}"""


def template_pattern(template: str) -> Pattern[str]:
    """Return the pattern of the files of a template; GitOpsError if it names no environment.

    Its last part is a file if it has a dot, and a folder if it has none.
    """
    fields = re.findall(r"\{(\w*)\}", template)
    if sorted(fields) not in (["environment"], ["application", "environment"]):
        raise GitOpsError(
            "--deployments-from is a path with {environment} and {application}, such as "
            f"apps/{{application}}/overlays/{{environment}}, not {in_quotes(template)}"
        )
    pattern = re.escape(template.strip("/"))
    for name in fields:
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>[^/]+)")
    is_file = "." in posixpath.basename(template.strip("/"))
    return re.compile(pattern if is_file else f"{pattern}/.*")


NO_APPLICATIONS = frozenset(
    "app apps applications clusters components config deploy deployments environments envs gitops "
    "k8s kubernetes kustomization manifests overlays releases services values".split()
)


def usual_template(file: str) -> Tuple[str, str, str]:
    """Return (template, application, environment) of a file in a usual layout; "" if it is in none.

    The path names an environment by a folder or a values file. The application is the folder above
    it. Where that one is for all applications (`deploy`, `envs`), it is the next name below.
    """
    parts = file.split("/")
    last = len(parts) - 1
    for at, part in enumerate(parts):
        values = re.fullmatch(r"(values[-_.])(.+)(\.ya?ml)", part)
        word = values.group(2) if values else part
        if word not in ENVIRONMENT_WORDS or (at == last and not values):
            continue
        shape = parts.copy()
        shape[at] = "{environment}"
        if values:
            shape[at] = f"{values.group(1)}{{environment}}{values.group(3)}"
        above = at - 1
        if at and parts[above] in ("overlays", "envs", "environments", "values"):
            above -= 1
        if above >= 0 and parts[above] not in NO_APPLICATIONS:
            shape[above] = "{application}"
            return "/".join(shape[: at + 1]), parts[above], word
        below = at + 1
        while below < last and parts[below] in NO_APPLICATIONS:
            below += 1
        if below < last:
            shape[below] = "{application}"
            return "/".join(shape[: below + 1]), parts[below], word
        stem, dot, ending = parts[last].rpartition(".")
        if at == last or parts[last] in NO_APPLICATIONS or stem in NO_APPLICATIONS:
            return "/".join(shape[: at + 1]), "", word
        return "/".join([*shape[:last], "{application}" + dot + ending]), stem, word
    return "", "", ""


def usual_templates(files: Iterable[str]) -> Dict[str, int]:
    """Count the places of each usual layout with several environments: {template: places}."""
    places: Dict[str, Set[PlaceName]] = collections.defaultdict(set)
    for template, application, environment in map(usual_template, files):
        places[template].add((application, environment))
    return {
        template: len(found)
        for template, found in places.items()
        if template and len({environment for _, environment in found}) > 1
    }


def files_at_head(repo: FilePath) -> List[str]:
    """Return the paths of all files that the current commit has."""
    return ask_git(repo, "ls-tree", "-r", "-z", "--name-only", "HEAD").split("\0")


def find_template(repo: FilePath) -> str:
    """Return the layout of a repository; GitOpsError that lists the layouts if none is plain."""
    counts = usual_templates(files_at_head(repo))
    found = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    if found and found[0][1] >= 2 * max((count for _, count in found[1:]), default=0):
        return found[0][0]
    listed = ", ".join(f"{one_line(template)} ({count} places)" for template, count in found[:6])
    raise GitOpsError(
        f"the layout of {one_line(repo)} is not plain: {listed or 'no usual one is there'}; "
        "name it with --deployments-from apps/{application}/overlays/{environment}"
    )


def read_landings(repo: FilePath, template: str) -> Tuple[List[Landing], Origins]:
    """Return what came to the main line, oldest first, and the commits that brought it.

    A merge shows what it changed on the main line.
    """
    owners = PathOwners(repo, template)
    shallow = ask_git(repo, "rev-parse", "--is-shallow-repository") == "true"
    landings: List[Landing] = []
    origins: Dict[Tuple[str, PlaceName, str], GitCommit] = {}
    landed: Dict[bytes, int] = {}  # with which landing a commit came; children are read first
    following = None  # the next commit of the main line
    for sha, parents, seconds, name, subject, body, patch in read_graph(repo, *GIT_PATCHES):
        on_line = following is None or sha == following
        number = landed.pop(sha, 0)
        if on_line:
            number, following = len(landings), parents.partition(b" ")[0]
        for parent in parents.split():
            landed[parent] = max(landed.get(parent, 0), number)
        merge = b" " in parents
        edits = read_edits(patch, owners) if on_line or not merge else []
        if on_line:
            landings.append(Landing(sha.decode(), seconds, edits, shallow and not parents))
        if not edits:
            continue
        files = patch.count(b"\ndiff --git ")
        commit = GitCommit(sha.decode(), seconds, name, subject, reverts_in(body), files, ())
        for edit in edits:
            for version in ["", *edit.added]:
                origins[landings[number].sha, edit.place, version] = commit
    return landings[::-1], origins


class PathOwners:
    """Which places a path of the repository belongs to: by the template, or as a base of theirs."""

    def __init__(self, repo: FilePath, template: str) -> None:
        self.pattern, self.repository = template_pattern(template), repository_name(repo)
        self.known: Dict[bytes, List[PlaceName]] = {}
        self.bases: Dict[str, List[PlaceName]] = collections.defaultdict(list)
        head, depth = ask_git(repo, "rev-parse", "HEAD"), template.strip("/").count("/") + 1
        folders: Dict[Tuple[str, str], Dict[PlaceName, None]] = {}
        for file in files_at_head(repo):
            folder = "/".join(file.split("/")[:depth])
            if folder != file:
                for place in self.matched(file):
                    folders.setdefault((head, folder), {})[place] = None
        for place, paths in find_bases(repo, folders).items():
            for path in paths:
                self.bases[path].append(place)

    def matched(self, path: str) -> List[PlaceName]:
        """Return the place that the template gives a path: none, or one."""
        found = self.pattern.fullmatch(make_printable(path))
        if not found:
            return []
        application = found.groupdict().get("application") or self.repository
        return [(one_line(application, NAME_WIDTH), one_line(found["environment"], NAME_WIDTH))]

    def of(self, file: bytes) -> List[PlaceName]:
        """Return the places of a file."""
        if file not in self.known:
            path = file.decode("utf-8", "replace")
            places = self.matched(path)
            for folder in itertools.accumulate(path.split("/"), "{}/{}".format):
                places += self.bases.get(folder, [])
            self.known[file] = list(dict.fromkeys(places))
        return self.known[file]


def read_edits(patch: bytes, owners: PathOwners) -> List[Edit]:
    """Return what a patch does to files of environments."""
    edits = []
    for piece in patch.split(b"\ndiff --git ")[1:]:
        lines = piece.find(b"\n+++ b/") + 1  # none if it is deleted, binary, or only renamed
        renamed = RENAMED_FILE.search(piece, 0, lines or len(piece))
        if not lines and renamed is None:
            continue
        end = piece.find(b"\n", lines)
        file = piece[lines + 6 : end].rstrip(b"\t") if lines else renamed.group(2)  # type: ignore
        places = owners.of(file)
        if places:
            before = renamed.group(1) if renamed else b""
            versions = versions_in(piece, end) if lines else ([], [])
            was = owners.of(before) if before else []
            for place in places:
                old = place if place in was or not was else was[0]
                edits.append(Edit(place, file, before, old, lines > 0, *versions))
    return edits


def versions_in(piece: bytes, begin: int) -> Tuple[List[str], List[str]]:
    """Return the versions in the lines that a patch of a file removes, and in those it adds."""
    versions: Dict[int, List[str]] = {ord("-"): [], ord("+"): []}
    for match in VERSION.finditer(piece, begin):
        start = piece.rfind(b"\n", 0, match.start()) + 1
        whole_word = piece[match.start() - 1] not in IN_WORD or match.start() == start + 1
        comment = piece[start + 1 : match.start()].lstrip().startswith(b"#")
        if piece[start] in versions and (whole_word or match.group(3)) and not comment:
            versions[piece[start]].append(clean_version(match.group(match.lastindex or 1)))
    return versions[ord("-")], versions[ord("+")]


@functools.lru_cache(maxsize=1 << 16)
def clean_version(value: bytes) -> str:
    """Return a version as text that a terminal can take."""
    return one_line(value.decode("utf-8", "replace"), 100)


class Arrival(NamedTuple):
    """The first time that a version came to any environment of an application."""

    landing: int
    place: PlaceName
    origin: GitCommit
    part: int  # the part of the application in which it came there
    rank: int  # how many versions had come to that part before


class Travels:
    """How versions travel through the environments of a config repository."""

    def __init__(
        self, landings: Sequence[Landing], origins: Origins, stages: Optional[Stages]
    ) -> None:
        self.landings, self.origins = landings, origins
        self.renamed = renamed_places(landings)
        raw = sorted({self.now(edit.place)[1] for landing in landings for edit in landing.edits})
        if stages is None:
            named = [name for name in raw if environment_words(name)]
            self.stage = with_production(named or raw)
        else:
            stages.check(raw)
            told = {name: stages.stage_of(name) for name in raw}
            self.stage = {name: stage for name, stage in told.items() if stage}
        self.left_out = [name for name in raw if name not in self.stage]
        self.first: Dict[Tuple[str, str], Arrival] = {}  # of (application, version)
        self.lines: Dict[int, List[Tuple[str, str]]] = {}  # the versions that came to a part
        self.syncs: Dict[PlaceName, List[Sync]] = collections.defaultdict(list)
        # {(application, version): {stage: the first landing there, and the environment}}
        self.came: Dict[Tuple[str, str], Dict[str, Tuple[int, str]]] = {}
        self.shipped: Dict[Tuple[str, int], int] = {}  # rank of the newest of a part in a stage
        self.changes: List[Row] = []
        self.commits: Dict[str, Tuple[GitCommit, str]] = {}  # each with its application
        self.parts: Dict[Any, List[List[Any]]] = {}  # of each place and file: [part, version]
        self.new_part = itertools.count()
        for number, landing in enumerate(landings):
            by_place: Dict[PlaceName, List[Edit]] = {}
            for edit in landing.edits:
                if self.now(edit.place)[1] in self.stage:
                    by_place.setdefault(self.now(edit.place), []).append(edit)
            # production comes last: then it is known whether another environment has it, too
            for place in sorted(by_place, key=lambda place: self.stage[place[1]] == "production"):
                self.follow(number, landing, place, by_place[place])

    def follow(self, number: int, landing: Landing, place: PlaceName, edits: List[Edit]) -> None:
        """Note what a landing brings to a place."""
        moved: Dict[Any, str] = {}
        for edit in edits:
            moved.update(self.move_parts(edit))
        if not moved and not any(edit.lines for edit in edits):
            return
        application, stage = place[0], self.stage[place[1]]
        newest = own = self.origin(landing, edits[0].place, next(iter(moved.values()), ""))
        arrivals = []
        for part, version in moved.items():
            key = application, version
            if key not in self.first:
                line = self.lines.setdefault(part, [])
                origin = self.origin(landing, edits[0].place, version)
                self.first[key] = Arrival(number, place, origin, part, len(line))
                line.append(key)
            arrivals.append(self.first[key])
            self.ship(number, landing, place, self.first[key])
        if arrivals:
            newest = max((arrival.landing, arrival.origin) for arrival in arrivals)[1]
        else:
            self.leave_undated(landing, place, own, "it names no version")
            moved = {"content": landing.sha}
        echo = True
        for version in moved.values():
            came = self.came.setdefault((application, version), {})
            echo = came.setdefault(stage, (number, place[1]))[1] != place[1] and echo
        self.commits.setdefault(newest.sha, (newest, application))
        self.syncs[place].append(
            Sync(
                landing.seconds, landing.seconds, moved, newest.sha,
                adds=frozenset([landing.sha, own.sha]), reverts=own.reverts,
                after_gap=landing.shallow, echo=echo,
            )
        )  # fmt: skip

    def now(self, place: PlaceName) -> PlaceName:
        """Return what a place is called in the end."""
        return self.renamed.get(place, place)

    def origin(self, landing: Landing, place: PlaceName, version: str) -> GitCommit:
        """Return the commit that brought what a landing brings to a place."""
        known = self.origins.get((landing.sha, place, version))
        return known or self.origins[landing.sha, place, ""]

    def ship(self, number: int, landing: Landing, place: PlaceName, arrival: Arrival) -> None:
        """Note the changes that a stage has now: the version, and those that it carries along."""
        stage = self.stage[place[1]]
        newest = self.shipped.get((stage, arrival.part), -1)
        if arrival.rank <= newest:
            return
        self.shipped[stage, arrival.part] = arrival.rank
        for key in self.lines[arrival.part][newest + 1 : arrival.rank + 1]:
            first = self.first[key]
            if first.landing < number and not self.landings[first.landing].shallow:
                self.changes.append(self.change(place[0], stage, first.origin, landing.seconds))
        if self.landings[arrival.landing].shallow:
            self.leave_undated(landing, place, arrival.origin, "it came before the clone begins")
        elif arrival.landing == number:
            why = "no other environment had it before"
            if arrival.place != place:
                why = "all environments got it at once"
            self.leave_undated(landing, place, arrival.origin, why)

    def change(self, application: str, stage: str, commit: GitCommit, deployed: int) -> Row:
        """Return the row of `changes` for a commit, and note the commit."""
        self.commits.setdefault(commit.sha, (commit, application))
        return application, stage, commit.sha, commit.seconds, deployed, False, None

    def waiting(self, stage: str) -> Iterator[Row]:
        """Yield the changes that a stage has not had yet, of parts that came there before."""
        for (where, part), rank in self.shipped.items():
            if where == stage:
                for key in self.lines[part][rank + 1 :]:
                    yield self.change(key[0], stage, self.first[key].origin, MISSING)

    def leave_undated(
        self, landing: Landing, place: PlaceName, commit: GitCommit, why: str
    ) -> None:
        """Note why what came to a place has no lead time."""
        row = place[0], self.stage[place[1]], commit.sha, MISSING, landing.seconds, False, why
        if not landing.shallow:  # what a clone begins with is no deployment
            self.changes.append(row)

    def order(self) -> List[str]:
        """Return the stages in the direction in which versions travel; production comes last."""
        earlier: Dict[Tuple[str, str], int] = collections.Counter()
        for came in self.came.values():
            for first, then in itertools.permutations(came, 2):
                earlier[first, then] += came[first][0] < came[then][0]
        ahead: Dict[str, int] = collections.Counter()
        for (first, then), versions in earlier.items():
            ahead[first] += versions > earlier[then, first]
        usual = usual_order(self.stage[raw] for _, raw in self.syncs)
        return sorted(usual, key=lambda stage: (stage == "production", -ahead[stage]))

    def move_parts(self, edit: Edit) -> Dict[int, str]:
        """Return {part: its new version} of a file.

        A version belongs to the part of the version that it replaces.
        """
        place = self.now(edit.place)
        parts = self.parts.pop((place, edit.before or edit.file), [])
        self.parts[place, edit.file] = parts
        moved = {}
        for old, new in itertools.zip_longest(edit.removed, edit.added):
            if new is None or old == new:
                continue
            part = next((part for part in parts if part[1] == old), None)
            if part is None:
                part = [next(self.new_part), new]
                parts.append(part)
            part[1] = moved[part[0]] = new
        return moved


def renamed_places(landings: Sequence[Landing]) -> Dict[PlaceName, PlaceName]:
    """Return {place: what it is called in the end} for places whose files moved away for good."""
    last: Dict[PlaceName, int] = {}
    moved: Dict[PlaceName, Tuple[int, PlaceName]] = {}
    for number, landing in enumerate(landings):
        for edit in landing.edits:
            last[edit.place] = number
            if edit.was != edit.place:
                moved[edit.was] = number, edit.place
    gone = {old: new for old, (number, new) in moved.items() if last.get(old, -1) < number}
    names = {}
    for old in gone:
        new = gone[old]
        while new in gone:  # this ends, as each move is later than the one before it
            new = gone[new]
        names[old] = new
    return names


def load_gitops_repository(
    repo: FilePath,
    template: Optional[str] = None,
    environments: Union[None, str, Sequence[str]] = None,
) -> History:
    """Return the deployments that the history of a config repository shows.

    It is desired state: a deployment is a commit of the main line that changes what an environment
    of an application is to run. `template` is a path with `{environment}` and `{application}`, of a
    folder or a file. Without it a usual layout is looked for. `environments` are their names in
    promotion order, such as `dev,staging,production=prod-*`. Raises GitOpsError for a repository
    that cannot be read, a template that matches nothing, and a layout that is not plain.
    """
    template = template or find_template(repo)
    stages = None if environments is None else Stages.of(environments)
    with collector_paused():
        travels = Travels(*read_landings(repo, template), stages)
        if not travels.syncs:
            raise GitOpsError(nothing_matches(repo, template, travels.left_out))
        return history_of_travels(repo, template, travels, stages)


def history_of_travels(
    repo: FilePath, template: str, travels: Travels, stages: Optional[Stages]
) -> History:
    """Return the history that the travels of versions come to."""
    order = last_is_production(travels.order() if stages is None else stages.names, stages)
    times = [landing.seconds for landing in travels.landings if landing.edits]
    start = min(times) // DAY * DAY  # there was nothing before
    end = max([*times, travels.landings[-1].seconds])
    places = []
    for (application, raw), syncs in travels.syncs.items():
        begin = syncs[0].start if syncs[0].after_gap else start
        outcome, origin = classify_syncs(syncs), f"{application}/{raw}"
        row = application, travels.stage[raw], "path", origin
        places.append(Place(*row, outcome, [(min(begin, end), end)], syncs, []))
    changes = [*travels.changes, *travels.waiting(order[-1])]
    notes = [f"Layout: {template}"]
    if stages is None and not any(map(environment_words, travels.stage)):
        names = one_line(", ".join(travels.stage), 120)
        notes.append(f"No environment has a usual name: {names}. Is this the layout?")
    if travels.left_out:
        names = one_line(", ".join(travels.left_out), 120)
        notes.append(f"Left out, as they are no environments: {names}; --environments names them")
    commits = sorted(travels.commits.values(), key=lambda pair: (pair[0].seconds, pair[0].sha))
    table = commits_of_owners(commits, repo)
    return history_from("git", places, table, changes, notes, order)


def last_is_production(order: Sequence[str], stages: Optional[Stages]) -> List[str]:
    """Return the environments, with production added where the last one is known to be another."""
    word = order[-1].lower() if stages is None else ""
    is_other = word in ENVIRONMENT_WORDS and word not in PRODUCTION_WORDS
    return [*order, "production"] if is_other or order[-1] == UNCLASSIFIED else list(order)


def nothing_matches(repo: FilePath, template: str, left_out: Sequence[str]) -> str:
    """Return the message for a template that found no deployment, with the paths nearest to it."""
    if left_out:
        return f"--environments takes in none of {', '.join(left_out)}; name one of them"
    files = files_at_head(repo)
    folders = {"/".join(file.split("/")[:depth]) for file in files for depth in range(1, 6)}
    near = difflib.get_close_matches(template, sorted(folders), 3, 0)
    return (
        f"no file was ever at {in_quotes(template)}; the nearest are "
        f"{', '.join(map(one_line, near))}; --deployments-from takes their pattern"
    )


# ---- Real history: Argo CD -> deployments and rollbacks -----------------------------------------

# What Argo CD 3 keeps. `status.history` has only the successful, full syncs, by default the last
# ten. `status.operationState` is the last operation, which may have failed. `status.health` may be
# older than that operation.

KARGO = "kargo.akuity.io/authorized-stage"
MANIFEST_PATHS = "argocd.argoproj.io/manifest-generate-paths"
ENVIRONMENT_KEYS = ("environment", "env", KARGO)


class ArgoSource(NamedTuple):
    """One source of a sync."""

    paths: Tuple[str, ...]  # what it uses of its repository; "" is all of it
    own_path: str  # where a kustomization may refer to bases; "" if it has none
    chart: bool
    definition: str  # its parameters; other parameters make another release of the same revision


class ArgoEntry(NamedTuple):
    """A sync that Argo CD recorded, or a last operation that failed."""

    id: int
    start: int  # seconds since 1970
    end: int
    revisions: Tuple[str, ...]
    sources: Tuple[ArgoSource, ...]
    failure: str = ""


@dataclass
class ArgoApplication:
    """All that the files say of one Argo CD application."""

    name: str
    namespace: str
    marks: Dict[str, str] = field(default_factory=dict)  # labels and annotations
    hints: Tuple[str, ...] = ()  # source paths, destination name, destination namespace
    parent: bool = False  # whether its only resources are applications
    created: int = 0  # seconds since 1970; 0 if that is not known
    entries: Dict[str, ArgoEntry] = field(default_factory=dict)  # by id and time
    failures: Dict[int, ArgoEntry] = field(default_factory=dict)  # by their start
    looks: Dict[int, Look] = field(default_factory=dict)
    seen: int = 0  # the newest time in the files that name it
    automatic: bool = False  # whether Argo CD syncs it by itself
    files: List[Tuple[int, int]] = field(default_factory=list)  # (newest end in a file, its time)
    latest: Tuple[Any, Any] = ((), ())  # the sources that were read last: as given, and as read

    @property
    def full_name(self) -> str:
        """The name with its namespace."""
        return "/".join(filter(None, (self.namespace, self.name)))

    @functools.cached_property
    def syncs(self) -> List[ArgoEntry]:
        """All syncs in order, once all are read, but failed ones of which a retry succeeded."""
        starts = {entry.start for entry in self.entries.values()}
        failed = [entry for start, entry in self.failures.items() if start not in starts]
        return sorted([*self.entries.values(), *failed], key=lambda entry: (entry.end, entry.id))


@dataclass(frozen=True)
class EnvironmentRules:
    """How to tell the environment of an application. Without a rule its name tells it.

    `fixed` is the environment of all. `label` is the key of a label or annotation. `pattern` is a
    regular expression on the name; its group is the environment. `stages` are the environments in
    promotion order (see `Stages`). Raises GitOpsError for a rule that can tell no environment.
    """

    fixed: Optional[str] = None
    label: Optional[str] = None
    pattern: Optional[str] = None
    stages: Union[None, str, Sequence[str]] = None

    def __post_init__(self) -> None:
        if self.fixed is not None:
            check_word("--environment", self.fixed)
        if self.label is not None and not self.label.strip():
            key = in_quotes(self.label)
            raise GitOpsError(f"--environment-label is the key of a label, such as tier, not {key}")
        try:
            groups = re.compile(self.pattern).groups if self.pattern is not None else 1
        except (re.error, RecursionError, OverflowError) as error:
            problem = f"--environment-pattern is no regular expression: {one_line(error)}"
            raise GitOpsError(problem) from None
        if groups < 1:
            pattern = in_quotes(self.pattern)
            problem = f"--environment-pattern needs a group, as ='-(dev|prod)$', not {pattern}"
            raise GitOpsError(problem)


# Reading the documents.


def read_argocd(
    files: Union[FilePath, Sequence[FilePath]],
) -> List[ArgoApplication]:
    """Return the applications in JSON documents of kubectl, argocd or its REST API.

    Snapshots of one application are merged. Raises GitOpsError that names the file, and the entry
    if one is wrong.
    """
    known: Dict[Tuple[str, str], ArgoApplication] = {}
    files = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    for file in files:
        name = "standard input" if str(file) == "-" else one_line(file)
        try:
            documents = argo_documents(read_text(file, "--argocd takes JSON files"), name)
            found = [read_application(document, name, known) for document in documents]
        except RecursionError:
            problem = f"{name} is nested too deeply to be of Argo CD; ask for -o json"
            raise GitOpsError(problem) from None
        seen = max((time for _, _, time in found), default=0)
        for application, newest, _ in found:
            application.seen = max(application.seen, seen)
            application.files.append((newest, seen))
    applications = [known[key] for key in sorted(known)]
    if not any(application.syncs for application in applications):
        listed = ", ".join(one_line(file) for file in files)
        problem = f"no deployment in {listed}: no application has a history"
        raise GitOpsError(f"{problem}; --argocd takes applications that were synced")
    newest = max(application.seen for application in applications)
    for application in applications:
        application.seen = application.seen or newest
    return applications


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
    """Return the applications among one or several JSON documents, told by their structure."""
    space = re.compile(r"[\s,]*")
    position, found, is_known = 0, [], False
    while True:
        position = space.match(text, position).end()  # type: ignore[union-attr]
        if position == len(text) and text.strip():
            break
        try:
            document, position = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            hint = "ask for -o json"
            if looks_like_yaml(text):
                hint = "it looks like YAML: ask for JSON with -o json"
            raise GitOpsError(f"{name} is not JSON ({one_line(error, 80)}); {hint}") from None
        items = argo_items(document)
        is_known = is_known or items is not None
        found += items or []
    if not is_known:
        takes = "--argocd takes what `argocd app list -o json` prints"
        raise GitOpsError(f"{name} holds no Argo CD application; {takes}")
    return found


def argo_items(document: Any) -> Optional[List[Mapping[str, Any]]]:
    """Return the applications in a document; None if it is of another kind.

    A document is an application, an array, a list under `items`, or the `result` of a stream.
    """
    if isinstance(document, dict):
        streamed = at_path(document, "result", "application")
        if streamed:
            return argo_items(streamed)
        named = at_path(document, "metadata", "name", kind=str)
        if named and isinstance(at_path(document, "spec").get("destination"), Mapping):
            return [document]
        if "items" not in document:
            return None
        document = document["items"] or []
    if not isinstance(document, list):
        return None
    groups = [argo_items(item) for item in document]
    if groups and all(group is None for group in groups):
        return None
    return [item for group in groups for item in group or []]


def at_path(document: Any, *path: str, kind: Any = dict) -> Any:
    """Return what a document has at a path; an empty value if it has none of that kind."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, kind) else kind()


def checked(holder: Mapping[str, Any], key: str, kind: Any, where: str) -> Any:
    """Return a list or an object of a document; GitOpsError if it is of another kind."""
    value = holder.get(key)
    if value is not None and not isinstance(value, kind):
        what = "a list" if kind is list else "an object"
        raise GitOpsError(f"{where}: {key} is not {what}: {in_quotes(value)}")
    return kind() if value is None else value


def time_at(holder: Mapping[str, Any], key: str, where: str, needed: bool = False) -> int:
    """Return a time in seconds since 1970; 0 where there is none. GitOpsError if it is none."""
    value = holder.get(key)
    if value in (None, "") and not needed:
        return 0
    try:
        return seconds_from(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        rule = f"{key} is not a time such as 2026-01-31T12:00:00Z: {in_quotes(value)}"
        raise GitOpsError(f"{where}: {rule}") from None


RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


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


def read_application(
    document: Mapping[str, Any], file: str, known: Dict[Tuple[str, str], ArgoApplication]
) -> Tuple[ArgoApplication, int, int]:
    """Add a document to what is known of its application.

    Returns the application, the end of the newest sync in the document, and the newest time in it.
    """
    metadata, spec = at_path(document, "metadata"), at_path(document, "spec")
    namespace, name = at_path(metadata, "namespace", kind=str), metadata["name"]
    where = f"{file}: application {one_line(name, NAME_WIDTH)}"
    status = checked(document, "status", dict, where)
    key = one_line(name, NAME_WIDTH), one_line(namespace, NAME_WIDTH) if namespace else ""
    application = known.setdefault(key, ArgoApplication(*key))
    reconciled = time_at(status, "reconciledAt", where)
    created = time_at(metadata, "creationTimestamp", where)
    newest = 0
    for number, entry in enumerate(checked(status, "history", list, where)):
        place = f"{where}, history entry {number}"
        if not isinstance(entry, dict):
            raise GitOpsError(f"{place}: not an object: {in_quotes(entry)}")
        mark = f"{entry.get('id', 0)} {entry.get('deployedAt')}"
        if mark not in application.entries:  # a snapshot repeats most of the one before
            application.entries[mark] = read_entry(application, entry, place)
        newest = max(newest, application.entries[mark].end)
    operation = read_operation(application, status, where)
    if reconciled and reconciled >= max(newest, operation):
        health = at_path(status, "health")
        application.looks[reconciled] = Look(
            reconciled,
            at_path(health, "status", kind=str),
            time_at(health, "lastTransitionTime", where),
            at_path(status, "sync", "status", kind=str) == SYNCED,
            one_line(at_path(health, "message", kind=str) or "Degraded health", 60),
        )
    seen = max(newest, operation if operation < NEVER else 0, reconciled, created)
    if seen >= application.seen:
        application.marks = {
            str(key): value
            for part in ("annotations", "labels")
            for key, value in at_path(metadata, part).items()
            if isinstance(value, str)
        }
        destination = at_path(spec, "destination")
        application.hints = (
            "\n".join(path for source in read_sources(application, spec) for path in source.paths),
            at_path(destination, "name", kind=str),
            at_path(destination, "namespace", kind=str),
        )
        kinds = {at_path(one, "kind", kind=str) for one in at_path(status, "resources", kind=list)}
        application.parent = kinds == {"Application"}
        policy = at_path(spec, "syncPolicy").get("automated")
        application.automatic = isinstance(policy, dict) and policy.get("enabled") is not False
    application.created = application.created or created
    return application, newest, seen


def read_entry(application: ArgoApplication, entry: Mapping[str, Any], where: str) -> ArgoEntry:
    """Return an entry of `status.history`."""
    number = entry.get("id", 0)
    if not isinstance(number, int) or isinstance(number, bool) or abs(number) > 2**62:
        raise GitOpsError(f"{where}: id is not a whole number: {in_quotes(number)}")
    end = time_at(entry, "deployedAt", where, needed=True)
    start = time_at(entry, "deployStartedAt", where) or end
    return ArgoEntry(number, min(start, end), end, *read_revisions(application, entry))


def read_operation(application: ArgoApplication, status: Mapping[str, Any], where: str) -> int:
    """Note a failed operation and return when it ended: 0 without one, NEVER while it runs."""
    state = at_path(status, "operationState")
    if not state:
        return 0
    finished = time_at(state, "finishedAt", where)
    sync = at_path(state, "operation").get("sync")  # an empty one is a sync with the defaults
    whole = isinstance(sync, dict) and not (sync.get("dryRun") or sync.get("resources"))
    if finished and whole and state.get("phase") in ("Failed", "Error"):
        started = time_at(state, "startedAt", where, needed=True)
        result = {key: value for key, value in at_path(state, "syncResult").items() if value}
        revisions, sources = read_revisions(application, {**sync, **result})
        message = one_line(at_path(state, "message", kind=str) or state["phase"], 60)
        start = min(started, finished)
        application.failures[start] = ArgoEntry(-1, start, finished, revisions, sources, message)
    return finished or NEVER


def sources_of(holder: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """Return the sources of a spec, an entry or an operation; `sources` outrank `source`."""
    listed = at_path(holder, "sources", kind=list)
    return [one for one in listed if isinstance(one, dict)] or [at_path(holder, "source")]


def read_sources(application: ArgoApplication, holder: Mapping[str, Any]) -> Tuple[ArgoSource, ...]:
    """Return the sources of a spec, an entry or an operation; what was read last is kept."""
    given = sources_of(holder)
    if application.latest[0] != given:
        application.latest = given, tuple(read_source(source, given) for source in given)
    return application.latest[1]


def read_revisions(
    application: ArgoApplication, holder: Mapping[str, Any]
) -> Tuple[Tuple[str, ...], Tuple[ArgoSource, ...]]:
    """Return the revisions and sources of a sync, in an order of their own.

    Argo CD may give the same sources in another order.
    """
    sources = read_sources(application, holder)
    single = at_path(holder, "revision", kind=str)
    listed = at_path(holder, "revisions", kind=list) or [single]
    clean = [one_line(revision, 100) if revision else "" for revision in listed]
    clean += [""] * (len(sources) - len(clean))
    if len(sources) == 1:
        return (clean[0],), sources
    pairs = sorted(zip(clean, sources), key=lambda pair: (pair[1].definition, pair[0]))
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def read_source(source: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> ArgoSource:
    """Return a source: its path and its value files, or those that others refer to it for."""
    path, ref = at_path(source, "path", kind=str), at_path(source, "ref", kind=str)
    if ref:
        mark = f"${ref}/"
        files = [file for other in sources for file in helm_files(other) if file.startswith(mark)]
        files = [file[len(mark) :] for file in files]
    else:
        files = [posixpath.join(path, file) for file in helm_files(source)]
    # a pattern of files stands for the folder above it
    used = {re.sub(r"(^|/)[^/]*[*?\[{].*", "", file) for file in files if "$" not in file}
    if path or not ref:
        used.add(path)
    paths = {clean_path(name) for name in used if "://" not in name}
    parameters = {key: value for key, value in source.items() if key != "targetRevision"}
    return ArgoSource(
        tuple(sorted(paths)),
        clean_path(path) if path else "",
        bool(at_path(source, "chart", kind=str)),
        json.dumps(parameters, sort_keys=True, default=str),
    )


def helm_files(source: Mapping[str, Any]) -> List[str]:
    """Return the value files and file parameters of a source."""
    helm = at_path(source, "helm")
    files = [at_path(file, "path", kind=str) for file in at_path(helm, "fileParameters", kind=list)]
    files += at_path(helm, "valueFiles", kind=list)
    return [file for file in files if isinstance(file, str) and file]


def clean_path(path: str) -> str:
    """Return a path as git knows it; "" is the whole repository."""
    path = posixpath.normpath(path or ".").lstrip("/")
    return "" if path == "." or path.startswith("..") or make_printable(path) != path else path


# What a clone of the config repository knows.


class Clone:
    """What a clone of the config repository knows of some revisions; nothing without one.

    - `commit` is {revision: its commit}.
    - `bases` is {application: the paths outside of its own that change what it runs}.
    - `tree` is {(commit, path): the object there}.
    - `commits` are those that the revisions contain, newest first.
    - `position` is {commit: its position in `commits`}.
    - `touching` is {path: positions of the commits that change it}.
    - `contained` is {(commit, place): a number with a bit for each commit to the place's files}.
    """

    def __init__(self, repo: Optional[FilePath], applications: Sequence[ArgoApplication]) -> None:
        self.repo = repo
        self.commit: Dict[str, str] = {}
        self.bases: Dict[str, List[str]] = collections.defaultdict(list)
        self.tree: Dict[Tuple[str, str], str] = {}
        self.commits: List[GitCommit] = []
        self.position: Dict[str, int] = {}
        self.touching: Dict[str, List[int]] = {}
        self.contained: Dict[Tuple[str, int], int] = {}
        if repo is None:
            return
        used = [
            (application, revision, source)
            for application in applications
            for sync in application.syncs
            for revision, source in zip(sync.revisions, sync.sources)
            if not source.chart and re.fullmatch("[0-9a-f]{40}([0-9a-f]{24})?", revision)
        ]
        revisions = list(dict.fromkeys(revision for _, revision, _ in used))
        found = self.objects([f"{revision}^{{commit}}" for revision in revisions])
        self.commit = {revision: sha for revision, sha in zip(revisions, found) if sha}
        self.find_bases(applications)
        places = {
            (self.commit[revision], path)
            for application, revision, source in used
            if revision in self.commit
            for path in self.paths(application, source)
        }
        self.read_commits({path for _, path in places})
        # git is several times faster where neighbours in the history are asked for together
        names = sorted(places, key=lambda place: self.position[place[0]])
        self.tree = dict(zip(names, self.objects([f"{sha}:{path}" for sha, path in names])))

    def paths(self, application: ArgoApplication, source: ArgoSource) -> Sequence[str]:
        """Return all paths whose content a source of an application applies."""
        return (*source.paths, *self.bases[application.full_name])

    def objects(self, names: Sequence[str]) -> List[str]:
        """Return the object id of each name, "" where there is none."""
        check = "cat-file", "--buffer", "--batch-check=%(objectname)"
        questions = "\n".join(names).encode("utf-8", "replace")
        lines = ask_git(self.repo, *check, stdin=questions).split("\n")  # type: ignore[arg-type]
        return ["" if " " in line else line for line in lines]

    def find_bases(self, applications: Sequence[ArgoApplication]) -> None:
        """Find the paths that kustomizations and annotations name, as of the newest sync."""
        folders: Dict[Tuple[str, str], List[str]] = collections.defaultdict(list)
        named: Dict[str, List[str]] = {}
        for application in applications:
            name = application.full_name
            own = [
                (self.commit[revision], source.own_path)
                for sync in application.syncs[-1:]
                for revision, source in zip(sync.revisions, sync.sources)
                if revision in self.commit and source.own_path
            ]
            folders_of_own = {folder for _, folder in own}
            marks = application.marks.get(MANIFEST_PATHS, "").split(";")
            paths = {
                clean_path(posixpath.join("/", folder, mark.strip()))
                for mark in marks
                for folder in folders_of_own
            }
            named[name] = sorted(paths - folders_of_own - {""})
            for place in own:
                folders[place].append(name)
        assert self.repo is not None
        for name, bases in find_bases(self.repo, folders).items():
            named[name] = list(dict.fromkeys([*named[name], *bases]))
        self.bases.update(named)

    def read_commits(self, paths: Set[str]) -> None:
        """Read the commits that the revisions contain, and which of `paths` each touches."""
        wanted = "\n".join(set(self.commit.values())).encode()
        self.touching = {path: [] for path in paths}
        above: Dict[bytes, List[str]] = {}  # of each file those of the paths that it is at or below
        if not wanted:
            return
        assert self.repo is not None
        for commit in read_graph(self.repo, *GIT_FILES, "--topo-order", "--stdin", stdin=wanted):
            sha, listed, seconds, name, subject, body, rest = commit
            parents = tuple(listed.decode().split())
            files = [] if len(parents) > 1 else rest.split(b"\0")[1:-1]
            for file in files:
                if file not in above:
                    path = file.decode("utf-8", "surrogateescape").lstrip("\n")
                    parts = itertools.accumulate(path.split("/"), "{}/{}".format)
                    above[file] = [path for path in ("", *parts) if path in paths]
            for path in {path for file in files for path in above[file]}:
                self.touching[path].append(len(self.commits))
            if b"Argocd-reference" in body:
                seconds = committed_at(body, seconds)
            row = sha.decode(), seconds, name, subject, reverts_in(body), len(files), parents
            self.commits.append(GitCommit(*row))
        self.position = {commit.sha: number for number, commit in enumerate(self.commits)}

    def merges_reverted(self, position: int) -> List[GitCommit]:
        """Return the merges that a commit says it reverts."""
        known = (self.position.get(sha) for sha in self.commits[position].reverts)
        found = (self.commits[at] for at in known if at is not None)
        return [commit for commit in found if len(commit.parents) > 1]

    def find_contained(self, places: Sequence[ArgoPlace], wanted: Mapping[str, Set[int]]) -> None:
        """Find which of a place's commits a commit contains; `wanted` is {commit: places}."""
        counted = sorted({at for one in places for at in one.touching}, reverse=True)
        bit = {position: number for number, position in enumerate(counted)}
        bits = [[bit[position] for position in one.touching] for one in places]
        children = collections.Counter(sha for commit in self.commits for sha in commit.parents)
        state: Dict[str, int] = {}  # of a commit, until its last child has been here
        for position in range(len(self.commits) - 1, -1, -1):
            commit, here = self.commits[position], 0
            for parent in commit.parents:
                here |= state.get(parent, 0)
                children[parent] -= 1
                if not children[parent]:
                    state.pop(parent, None)
            if position in bit:
                here |= 1 << bit[position]
            if children[commit.sha]:
                state[commit.sha] = here
            data = here.to_bytes(len(counted) // 8 + 1, "little") if commit.sha in wanted else b""
            for number in wanted.get(commit.sha, ()):
                self.contained[commit.sha, number] = sum(
                    (data[one >> 3] >> (one & 7) & 1) << at for at, one in enumerate(bits[number])
                )


HYDRATED = re.compile(rb"^Argocd-reference-commit-(sha|date): *(.+)$", re.MULTILINE)


def committed_at(body: bytes, seconds: int) -> int:
    """Return when a change was made: of a commit by Argo CD's source hydrator, what it names."""
    trailers = dict(HYDRATED.findall(body))
    if b"sha" in trailers and b"date" in trailers:
        with contextlib.suppress(ValueError):
            return seconds_from(trailers[b"date"].decode().strip())
    return seconds


# From applications to places.


class ArgoPlace(NamedTuple):
    """An Argo CD application, what it is taken for, and its files in the clone."""

    number: int
    application: ArgoApplication
    syncs: List[ArgoEntry]
    environment: str
    rule: str
    base: str  # its name without the environment
    name: str  # the same, or the full name where two of an environment would have it
    own: Set[int]  # positions of the commits to its own files
    touching: List[int]  # and to those of its bases too, oldest first

    def gaps(self) -> List[int]:
        """Return the ends of the entries before which others are lost."""
        ids = {entry.id for entry in self.syncs}
        return [entry.end for entry in self.syncs if entry.id > 0 and entry.id - 1 not in ids]


def classify_application(
    application: ArgoApplication, rules: EnvironmentRules, pattern: Optional[Pattern[str]]
) -> Tuple[str, str, str]:
    """Return (environment, what told it, the name without it), by the first rule that tells one.

    1. One environment was given for all.
    2. The template of the config repository matches a source path.
    3. A label or an annotation names it.
    4. A pattern on the name was given.
    5. The name has the word of one environment, or of several and one at its end.
    6. The source paths, the destination's name or its namespace have the word of just one.
    """
    name = application.name
    words = environment_words(name)
    if rules.fixed:
        return rules.fixed, "given", name
    for path in application.hints[0].split("\n"):
        found = pattern and (pattern.fullmatch(f"{path}/") or pattern.fullmatch(path))
        if found:
            return found["environment"], "path", found.groupdict().get("application") or name
    for key in [rules.label] if rules.label else ENVIRONMENT_KEYS:
        value = application.marks.get(key, "")
        if key == KARGO:
            value = value.rpartition(":")[2]  # it is project:stage
        if value:
            word = one_line(value, 40).lower()
            named = [found for found in words if found[0] == word]
            return word, f"label {one_line(key, 60)}", without(name, *named[-1:])
    if rules.pattern:
        match = re.search(rules.pattern, name)
        if match and match.group(1):
            where = (match.group(1).lower(), *match.span(1))
            return where[0], "pattern", without(name, where)
    if words and (len({word for word, _, _ in words}) == 1 or words[-1][2] == len(name)):
        return words[-1][0], "name", without(name, words[-1])
    hints = "source path", "destination name", "destination namespace"
    for hint, text in zip(hints, application.hints):
        told = {word for word, _, _ in environment_words(text)}
        if len(told) == 1:
            return told.pop(), hint, name
    return UNCLASSIFIED, "none", name


def without(name: str, *words: Tuple[str, int, int]) -> str:
    """Return a name without a word and the mark that joins it; all of it if nothing is left."""
    for _, begin, end in words:
        before, after = name[:begin].rstrip("-_/."), name[end:].lstrip("-_/.")
        joint = name[begin - 1] if before and after else ""
        return before + joint + after or name
    return name


def load_argocd(
    files: Sequence[FilePath],
    repo: Optional[FilePath] = None,
    rules: EnvironmentRules = EnvironmentRules(),
    template: Optional[str] = None,
) -> History:
    """Return a history as Argo CD and, with `repo`, a clone of the config repository know it.

    A deployment is a change of what runs. A rollback is in the rollbacks table and not among the
    deployments. A release that was applied and turned out bad is `Synced` and `Degraded`. With
    `template` (see `load_gitops_repository`) the names are those of the repository's folders.
    Raises GitOpsError for files that hold no deployment.
    """
    with collector_paused():
        return argocd_history(read_argocd(files), repo, rules, template)


def argocd_history(
    applications: Sequence[ArgoApplication],
    repo: Optional[FilePath],
    rules: EnvironmentRules,
    template: Optional[str],
) -> History:
    """Return the history that applications and a clone of the config repository come to."""
    parents = [application.full_name for application in applications if application.parent]
    applications = [application for application in applications if not application.parent]
    if not any(application.syncs for application in applications):
        raise GitOpsError(
            "no deployment: these are apps of apps, and applications without a history; "
            "--argocd takes the applications that deploy something"
        )
    check_label(rules.label, applications)
    clone = Clone(repo, applications)
    pattern = template_pattern(template) if template else None
    stages = None if rules.stages is None else Stages.of(rules.stages)
    places = name_places(applications, clone, rules, pattern, stages)
    teams: Dict[str, List[ArgoPlace]] = collections.defaultdict(list)
    for one in places:
        teams[one.base].append(one)
    clone.find_contained(places, wanted_commits(places, teams, clone))
    names = usual_order(one.environment for one in places)
    if stages is not None:
        names = [name for name in names if name == UNCLASSIFIED] + list(stages.names)
    names = last_is_production(names, stages)
    start = min(
        one.syncs[0].end if one.syncs[0].id > 0 else one.application.created or one.syncs[0].start
        for one in places
        if one.syncs
    )
    found: List[Place] = []
    changes: List[Row] = []
    for one in places:
        syncs, had = syncs_of(one, clone, changes)
        looks = [one.application.looks[time] for time in sorted(one.application.looks)]
        outcome, spans = classify_syncs(syncs, looks), covered_spans(one, start // DAY * DAY)
        row = one.name, one.environment, one.rule, one.application.full_name
        found.append(Place(*row, outcome, spans, syncs, looks))
        if one.environment == names[-1]:
            changes += undated_deployments(one, outcome, clone)
            changes += waiting_changes(one, teams[one.base], clone, had)
    notes = [f"App of apps, not counted: {', '.join(parents)}"] if parents else []
    if repo is None:
        notes.append("Without --repo every new revision counts, even if it changes nothing here")
    return history_from("argocd", found, argo_commits(found, changes, clone), changes, notes, names)


def check_label(label: Optional[str], applications: Sequence[ArgoApplication]) -> None:
    """Refuse a label that no application has, with those that there are."""
    there = {key for application in applications for key in application.marks}
    if label is not None and label not in there:
        plain_first = sorted(there, key=lambda key: ("/" in key, key))
        raise GitOpsError(
            f"no application has the label or annotation {one_line(label, 60)}; "
            f"--environment-label takes one of these: {one_line(', '.join(plain_first) or 'none')}"
        )


def name_places(
    applications: Sequence[ArgoApplication],
    clone: Clone,
    rules: EnvironmentRules,
    pattern: Optional[Pattern[str]],
    stages: Optional[Stages],
) -> List[ArgoPlace]:
    """Return the place of each application: its environment, its name and its files."""
    classes = [classify_application(one, rules, pattern) for one in applications]
    raw = {environment for environment, _, _ in classes}
    stage = with_production(raw)
    if stages is not None:
        stage = {name: stages.stage_of(name) or UNCLASSIFIED for name in raw}
    taken = collections.Counter((stage[environment], base) for environment, _, base in classes)
    places = []
    for number, (one, (environment, rule, base)) in enumerate(zip(applications, classes)):
        single = taken[stage[environment], base] == 1
        syncs = one.syncs
        paths = {path for sync in syncs for source in sync.sources for path in source.paths}
        own, bases = (
            {at for path in part for at in clone.touching.get(path, ())}
            for part in (paths, clone.bases[one.full_name])
        )
        name = base if single else one.full_name
        touching = sorted(own | bases, reverse=True)
        row = number, one, syncs, stage[environment], rule, base, name, own, touching
        places.append(ArgoPlace(*row))
    return places


def wanted_commits(
    places: Sequence[ArgoPlace], teams: Mapping[str, Sequence[ArgoPlace]], clone: Clone
) -> Dict[str, Set[int]]:
    """Return {commit: places}: what the commit contains of their files is asked for."""
    wanted: Dict[str, Set[int]] = collections.defaultdict(set)
    for one in places:
        for other in teams[one.base]:
            entries = other.syncs if other is one else newest_syncs(other)
            for entry in entries:
                for revision in entry.revisions:
                    wanted[clone.commit.get(revision, "")].add(one.number)
        for position in one.touching:
            for merge in clone.merges_reverted(position):
                wanted[merge.sha].add(one.number)
                wanted[merge.parents[0]].add(one.number)
    return wanted


def newest_syncs(one: ArgoPlace) -> List[ArgoEntry]:
    """Return the newest sync of a place, and those that failed."""
    return [*one.syncs[-1:], *(entry for entry in one.syncs if entry.failure)]


def set_bits(number: int) -> Iterator[int]:
    """Yield the positions of the bits that are set."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def shipped_change(one: ArgoPlace, clone: Clone, position: int, deployed: int) -> Row:
    """Return the row of `changes` for a commit to a place's files."""
    commit, is_shared = clone.commits[position], position not in one.own
    return one.name, one.environment, commit.sha, commit.seconds, deployed, is_shared, None


def syncs_of(one: ArgoPlace, clone: Clone, changes: List[Row]) -> Tuple[List[Sync], int]:
    """Return the syncs of a place, and all commits that it has had; add its changes to the list."""
    gaps = set(one.gaps())
    syncs: List[Sync] = []
    had, begun = 0, False
    for entry in one.syncs:
        after_gap = entry.end in gaps
        contains = commits_in(one, entry, clone)
        adds: FrozenSet[str] = frozenset()
        reverts: FrozenSet[str] = frozenset()
        if contains & ~had and begun and not after_gap:
            positions = [one.touching[bit] for bit in set_bits(contains & ~had)]
            adds = frozenset(clone.commits[at].sha for at in positions)
            undone = {sha for at in positions for sha in clone.commits[at].reverts}
            standing = [at for at in positions if clone.commits[at].sha not in undone]
            reverts = frozenset(sha for at in standing for sha in reverted_by(at, one, clone))
            if not entry.failure:
                changes += [shipped_change(one, clone, at, entry.end) for at in positions]
        if not entry.failure:
            had, begun = had | contains, True
        syncs.append(
            Sync(
                entry.start, entry.end, {"": content_of(one, entry, clone)},
                commit_of(entry, clone), entry.failure, one.application.automatic, contains, adds,
                reverts - adds, after_gap,
            )
        )  # fmt: skip
    return syncs, had


def commits_in(one: ArgoPlace, entry: ArgoEntry, clone: Clone) -> int:
    """Return which commits to a place's files a sync contains, a bit for each.

    Of several sources each has the commits to its own paths.
    """
    bits = 0
    for revision, source in zip(entry.revisions, entry.sources):
        if revision in clone.commit:
            here = clone.contained[clone.commit[revision], one.number]
            if len(entry.sources) > 1:
                paths = clone.paths(one.application, source)
                used = {at for path in paths for at in clone.touching.get(path, ())}
                here &= sum(1 << bit for bit, at in enumerate(one.touching) if at in used)
            bits |= here
    return bits


def reverted_by(position: int, one: ArgoPlace, clone: Clone) -> Iterator[str]:
    """Yield the commits that a commit says it reverts; of a merge those that it brought."""
    yield from clone.commits[position].reverts
    for merge in clone.merges_reverted(position):
        before = clone.contained.get((merge.parents[0], one.number), 0)
        for bit in set_bits(clone.contained[merge.sha, one.number] & ~before):
            yield clone.commits[one.touching[bit]].sha


def content_of(one: ArgoPlace, entry: ArgoEntry, clone: Clone) -> Tuple[Any, ...]:
    """Return what a sync applied: equal contents run the same.

    It is the parameters of each source, with what lies at its paths where the clone has them, else
    with its revision.
    """
    parts: List[Any] = []
    for revision, source in zip(entry.revisions, entry.sources):
        parts.append(source.definition)
        if revision in clone.commit:
            sha = clone.commit[revision]
            paths = clone.paths(one.application, source)
            parts += [clone.tree[sha, path] for path in paths]
        else:
            parts.append(revision)
    return tuple(parts)


def commit_of(entry: ArgoEntry, clone: Clone) -> str:
    """Return the commit of a sync; its revisions where the clone has none of them."""
    known = [clone.commit[revision] for revision in entry.revisions if revision in clone.commit]
    return known[0] if known else "+".join(entry.revisions) or "(none)"


def covered_spans(one: ArgoPlace, start: int) -> List[Tuple[int, int]]:
    """Return the spans of time in which no entry of an application is lost.

    They begin with the window where its history is complete, as nothing came before it. A gap
    between two files ends a span with the last file before it.
    """
    begins = one.gaps()
    if not one.syncs or one.syncs[0].id <= 0:
        begins.insert(0, start)
    spans = []
    for low, after in zip(begins, [*begins[1:], NEVER]):
        files = [seen for newest, seen in one.application.files if newest < after]
        done = [entry.end for entry in one.syncs if low <= entry.end < after]
        high = one.application.seen if after == NEVER else max([low, *done, *files])
        spans.append((low, min(high, after)))
    return spans


def undated_deployments(one: ArgoPlace, outcome: Outcome, clone: Clone) -> Iterator[Row]:
    """Yield a row of `changes` for each deployment without a lead time, with the reason."""
    for number in outcome.deployments:
        sync = outcome.releases[number]
        if sync.failure or sync.adds or not number:
            continue
        if clone.repo is None:
            why = "no repository given (--repo)"
        elif number in outcome.begins:
            why = "it came in a gap of the history"
        elif not sync.contains:
            why = "its revision is not in the repository"
        else:
            why = "no new commit is at its paths"
        yield one.name, one.environment, sync.commit, MISSING, sync.end, False, why


def waiting_changes(
    one: ArgoPlace, team: Sequence[ArgoPlace], clone: Clone, had: int
) -> Iterator[Row]:
    """Yield the changes that production has not had: another environment has, or a sync failed."""
    if not one.syncs:
        return
    newest, namespace = 0, one.application.namespace
    for other in team:
        same = one.name == one.base or other.application.namespace == namespace
        if other.environment != UNCLASSIFIED and same:
            for entry in newest_syncs(other):
                newest |= commits_in(one, entry, clone)
    for bit in set_bits(newest & ~had):
        yield shipped_change(one, clone, one.touching[bit], MISSING)


def argo_commits(places: Sequence[Place], changes: Sequence[Row], clone: Clone) -> pd.DataFrame:
    """Return the `git_commits` table: the changes, and the commits of the deployments."""
    owner = {row[2]: row[0] for row in reversed(changes) if row[2] in clone.position}
    for place in places:
        for number in place.outcome.deployments if clone.commits else ():
            owner.setdefault(place.outcome.releases[number].commit, place.application)
    known = [clone.commits[clone.position[sha]] for sha in owner if sha in clone.position]
    known.sort(key=lambda commit: (commit.seconds, -clone.position[commit.sha]))
    return commits_of_owners(((commit, owner[commit.sha]) for commit in known), clone.repo)


# ---- Real history: tables and incidents from files ----------------------------------------------

TABLE_FILES = {  # of an export, in the order in which they are written
    "git_commits": "commits.csv",
    "deployments": "deployments.csv",
    "rollbacks": "rollbacks.csv",
    "changes": "changes.csv",
    "coverage": "coverage.csv",
    "incidents": "incidents.csv",
}


def load_tables(folder: FilePath, environments: Union[None, str, Sequence[str]] = None) -> History:
    """Return a history from a folder of CSV files, such as `--export` writes.

    `deployments.csv` must be there. `metrics.json` beside it says the window, the source and the
    environments. Without it the window is the days of the deployments, and the environments are in
    the usual order. Raises GitOpsError that names the wrong file.
    """
    folder = Path(folder)
    if not (folder / "deployments.csv").exists():
        raise GitOpsError(f"no deployments.csv in {one_line(folder)}; --history needs it")
    tables = {}
    for name, file in TABLE_FILES.items():
        if (folder / file).exists():
            tables[name] = read_table(folder / file, name)
        elif name in COLUMNS:
            tables[name] = table_from(name, [])
    path = folder / "metrics.json"
    document = read_document(path) if path.exists() else {}
    window = window_in(document)
    if len(tables["deployments"]):
        days = window_around(tables["deployments"]["timestamp"])
        known = window or days
        window = Window(min(days.start, known.start), max(days.end, known.end))
    if window is None:
        path = folder / "deployments.csv"
        raise GitOpsError(f"no deployment in {one_line(path)}; --history needs one")
    found = at_path(document, "environments", kind=list)
    there = count_words(tables["deployments"]["environment"])
    if environments is not None:
        stages = Stages.of(environments)
        stages.check(there)
        found = list(stages.names)
        for name, table in tables.items():
            if "environment" in table:
                named = table["environment"].map(lambda one: stages.stage_of(one) or one)
                tables[name] = as_table(name, table.assign(environment=named.astype(object)))
    elif not found:
        found = last_is_production(usual_order(there), None)
    for name in found:
        check_word(f"an environment of {one_line(folder)}", name)
    real = {name: tables.pop(name, None) for name in DETAILS}
    history = History.of(**tables, window=window, environments=found)
    source = at_path(document, "source", kind=str) or "files"
    notes = tuple(map(one_line, at_path(document, "notes", kind=list)))
    return history._replace(source=source, notes=notes, **real)


def check_rows(table: pd.DataFrame) -> None:
    """Refuse what cannot have happened; ValueError that names the row."""
    wrong, why = [], ""
    if "status" in table:
        wrong = has_word(table["status"], FAILED) & ~has_word(table["health"], DEGRADED)
        why = "a Failed sync is Degraded, and not Healthy or Unknown"
    elif "deployed" in table:
        wrong, why = table["committed"] > table["deployed"], "it was deployed before its commit"
    if np.any(wrong):
        raise ValueError(f"row {2 + int(np.flatnonzero(wrong)[0])}: {why}")


CAN_BE_EMPTY = ("failure_reason", "version", "deployed", "recovered", "resolved", "message")
WORDS = {"status": (SYNCED, FAILED), "health": (HEALTHY, DEGRADED, UNKNOWN)}


def read_table(path: Path, name: str) -> pd.DataFrame:
    """Return a table from a CSV file; GitOpsError if it cannot be used."""
    try:
        texts = pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")  # short rows
        if name == "changes":
            texts = texts.assign(**{"version": "", **texts})
        if name == "deployments":
            texts = texts.assign(**{"recovered": "", **texts})
        kinds = ALL_COLUMNS[name]
        missing = [column for column in kinds if column not in texts]
        if missing:
            raise ValueError(f"no column {missing[0]!r}; it needs {', '.join(kinds)}")
        columns = {column: read_column(texts[column], kind) for column, kind in kinds.items()}
        table = as_table(name, columns)
        check_rows(table)
    except (OSError, ValueError) as error:
        problem = f"{one_line(path)}: {one_line(error)}"
        raise GitOpsError(f"{problem}; the README has the columns") from None
    if "timestamp" not in table:
        return table
    return table.sort_values("timestamp", kind="stable", ignore_index=True)


def read_column(texts: pd.Series, kind: str) -> Any:
    """Return a column of texts as values of a kind; ValueError that names the wrong row."""
    column, values = str(texts.name), {}
    for text in texts.unique():
        try:
            values[text] = read_value(text, column, kind)
        except (ValueError, KeyError, OverflowError):
            row = 2 + texts.tolist().index(text)  # the first line has the names
            rule = f"hold {KINDS[kind]}"
            if column in WORDS:
                rule = f"be one of {', '.join(WORDS[column])}"
            raise ValueError(f"row {row}: {column} must {rule}, not {in_quotes(text)}") from None
    read = [values[text] for text in texts]
    return np.array(read, np.int64) if kind == "time" else read


KINDS = {
    "time": "a time such as 2026-01-31T12:00:00Z",
    "count": "a whole number",
    "number": "a number",
    "flag": "True or False",
    "word": "a name",
    "text": "a text",
}


def with_zone(text: Any) -> Any:
    """Return a time with its zone: UTC where it names none."""
    plain = isinstance(text, str) and len(text) == len("2026-01-31 12:00:00")
    return f"{text}Z" if plain else text


def read_value(text: str, column: str, kind: str) -> Any:
    """Return a text of a table as a value; ValueError or KeyError if it is none of its kind."""
    if not text and column in CAN_BE_EMPTY:
        return {"time": MISSING, "text": "", "word": None}[kind]
    if kind == "time":
        return seconds_from(with_zone(text))
    if kind == "flag":
        return {"true": True, "false": False}[text.lower()]
    if kind == "number":
        return float(text or "nan")
    if kind == "count":
        number = int(text)
        if number < MISSING or (number < 0 and column != "syncs"):
            raise ValueError(text)
        return number
    if not text or text not in WORDS.get(column, (text,)):
        raise ValueError(text)
    return one_line(text, NAME_WIDTH)


def read_document(path: FilePath) -> Mapping[str, Any]:
    """Return a `metrics.json`; GitOpsError if it is none."""
    takes = "it is what --export writes as metrics.json"
    text = read_text(path, takes)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GitOpsError(f"{one_line(path)} is not JSON: {one_line(error, 80)}; {takes}") from None
    if not isinstance(document, dict) or not isinstance(document.get("production"), Mapping):
        raise GitOpsError(f"{one_line(path)} has no production metrics; {takes}")
    return document


def window_in(document: Mapping[str, Any]) -> Optional[Window]:
    """Return the window that a document names, None if it names none."""
    edges = [at_path(document, "window", edge, kind=str) for edge in ("start", "end")]
    try:
        return Window(*utc_times(np.array([seconds_from(edge) // DAY * DAY for edge in edges])))
    except ValueError:
        return None


WITH_CLUSTER = "Before Argo CD's time it is desired state: what the config repository asked for."


def join_histories(repository: History, cluster: History) -> History:
    """Return the history of a config repository in which Argo CD says what the cluster did.

    In the spans that Argo CD covers, the deployments and rollbacks of an application in an
    environment are its own. The changes, and so the lead times, are those of the repository.
    """
    assert repository.coverage is not None and cluster.coverage is not None
    spans = collections.defaultdict(list)
    for row in cluster.coverage.to_dict("records"):
        spans[row["application"], row["environment"]].append((row["from"], row["to"]))
    joined = {}
    for name in ("deployments", "rollbacks"):
        mine, theirs, time = getattr(repository, name), getattr(cluster, name), TIME_OF[name]
        covered = [
            any(low <= when <= high for low, high in spans.get((application, environment), ()))
            for application, environment, when in zip(
                mine["application"], mine["environment"], mine[time]
            )
        ]
        both = pd.concat([mine[~np.array(covered, bool)], theirs], ignore_index=True)
        joined[name] = as_table(name, both.sort_values(time, kind="stable", ignore_index=True))
    known = dict.fromkeys([*repository.environments, *cluster.environments])
    order = [name for name in known if name != repository.production] + [repository.production]
    commits = pd.concat([repository.git_commits, cluster.git_commits], ignore_index=True)
    commits = commits.drop_duplicates("sha").sort_values("timestamp", kind="stable")
    coverage = pd.concat([repository.coverage, cluster.coverage], ignore_index=True)
    places = coverage.astype({"application": object, "environment": object}).groupby(
        ["application", "environment"], sort=False
    )
    coverage = places.agg(
        {"origin": "last", "rule": "last", "from": "min", "to": "max", "lost": "first"}
    ).reset_index()
    return repository._replace(
        git_commits=as_table("git_commits", commits.reset_index(drop=True)),
        coverage=as_table("coverage", coverage),
        window=window_around(coverage["from"], coverage["to"]),
        environments=tuple(order),
        source="argocd",
        notes=(*repository.notes, *cluster.notes, WITH_CLUSTER),
        **joined,
    )


def read_incidents(file: FilePath) -> pd.DataFrame:
    """Return incidents from a CSV or JSON file: a row is an incident, by application and time.

    The columns are `application`, `environment` ("" is production), and in seconds since 1970
    `started` and `resolved` (MISSING while it lasts). Raises GitOpsError that names the wrong
    entry.
    """
    name, text = one_line(file), read_text(file, "--incidents takes a CSV or JSON file")
    try:
        if text.lstrip()[:1] in ("[", "{"):
            rows = json.loads(text)
            rows = rows.get("incidents") if isinstance(rows, Mapping) else rows
        else:
            texts = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
            texts = texts.rename(columns=str.strip)
            rows = texts.to_dict("records")
            if not {"application", "started"} <= set(rows[0] if rows else texts.columns):
                raise ValueError("no such columns")
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise ValueError("not a list of incidents")
    except (ValueError, RecursionError) as error:
        needs = "it needs the columns application, started and perhaps resolved, environment"
        raise GitOpsError(f"{name} holds no incidents ({one_line(error, 80)}); {needs}") from None
    found = []
    for number, row in enumerate(rows, 1):
        where = f"{name}: incident {number}"
        owner = row.get("application")
        if not isinstance(owner, str) or not owner.strip():
            raise GitOpsError(f"{where} names no application: {in_quotes(owner)}")
        times = {key: with_zone(row.get(key)) for key in ("started", "resolved")}
        started = time_at(times, "started", where, needed=True)
        resolved = time_at(times, "resolved", where) or MISSING
        if MISSING < resolved < started:
            raise GitOpsError(
                f"{where} is resolved before it started: {in_quotes(times['resolved'])}"
            )
        environment = one_line(row["environment"]) if row.get("environment") else ""
        found.append((one_line(owner.strip(), NAME_WIDTH), environment, started, resolved))
    columns = ["application", "environment", "started", "resolved"]
    return pd.DataFrame(sorted(found), columns=columns)


def with_incidents(history: History, incidents: pd.DataFrame) -> History:
    """Return a history in which incidents say which deployments failed, and until when.

    An incident belongs to the newest deployment of its application, in its environment, that ended
    before it. That one is a failure from the start of the incident until it is resolved. In
    production, and wherever else there was an incident, the list is complete: every other
    deployment of unknown health was healthy. The notes name incidents that match no deployment.
    """
    rows, production = history.deployments, history.production
    ends = seconds_of(rows["timestamp"]) + rows["duration_sec"].to_numpy()
    usual = dict.fromkeys(("", *PRODUCTION_WORDS), production)
    usual.update((name, name) for name in history.environments)
    environments = incidents["environment"].map(lambda name: usual.get(name, name))
    reasons, health = rows["failure_reason"].astype(object), rows["health"].astype(object)
    told = rows["environment"].isin([production, *environments])
    health = health.where(~told | (health != UNKNOWN), HEALTHY)
    recovered = np.where(rows["recovered"].isna(), MISSING, seconds_of(rows["recovered"]))
    found: Dict[int, int] = {}
    listed, notes = [], []
    places = rows.groupby(["application", "environment"], observed=True).indices
    for name, environment, start, resolved in zip(
        incidents["application"], environments, incidents["started"], incidents["resolved"]
    ):
        there = places.get((name, environment), np.array([], np.int64))
        before = there[ends[there] <= start]
        if not len(before):
            when = utc_times(np.array([start]))[0]
            notes.append(
                f"No deployment of {name} to {environment} before the incident of {when:%F %H:%M}"
            )
            continue
        at = int(before[np.argmax(ends[before])])
        reasons[at] = reasons[at] if health[at] == DEGRADED else "Incident"
        health[at] = DEGRADED
        found[at] = max(NEVER if resolved == MISSING else resolved, found.get(at, 0))
        recovered[at] = MISSING if found[at] == NEVER else found[at]
        listed.append((name, environment, start, resolved, int(ends[at])))
    columns = dict(health=health, failure_reason=reasons, recovered=recovered)
    return history._replace(
        deployments=as_table("deployments", rows.assign(**columns)),
        incidents=table_from("incidents", listed),
        notes=(*history.notes, *notes),
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

    def is_met(self, value: Any) -> Any:
        """Return whether a value, or each of an array, lies on the better side."""
        return value > self.limit if self.better == ">" else value < self.limit


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
        "Deployment Frequency", "/day", "Deployments, failed ones included, over the days.",
        Target(">", 1, "/day")),
    "mean_lead_time": Metric(
        "Lead Time", " hours",
        "Mean time from a commit to the start of its Synced production deployment. A commit of a "
        "later time is left out. Of real deployments: the mean of change_lead_time_hours.",
        Target("<", 24, "h")),
    "median_lead_time": Metric(
        "Lead Time", " hours", "The median of the same times.", Target("<", 24, "h")),
    "mttr_minutes": Metric(
        "MTTR", " minutes",
        "Mean duration of the rollbacks that succeeded. Of real deployments: the median of "
        "failed_deployment_recovery_minutes.", Target("<", 60, "min")),
    "change_failure_rate": Metric(
        "Change Failure Rate", "%", "Degraded deployments over all.", Target("<", 15, "%")),
    "scope": Metric("Scope", "", "What the numbers are of, a key of SCOPES."),
    "not_judged": Metric("Not Judged", "", "Targets that are neither met nor missed, and why."),
    "lead_time_hours_by_environment": Metric(
        "Where the Lead Time Goes", " hours",
        "Mean time from the environment before (in the first: from the commit) to each. The parts "
        "add up to mean_lead_time."),
    "success_rates": Metric("Success Rates", "%", "Healthy deployments of each environment."),
    "overall_success_rate": Metric("Overall Success Rate", "%", "100 - change_failure_rate."),
    "production_deployment_frequency": Metric(
        "Production Alone", "/day", "Deployments to production over the days of the window."),
    "dated_deployments": Metric(
        "Deployments with a Lead Time", "", "Production deployments that shipped a known change."),
    "total_deployments": Metric("Total Deployments", "", "Rows of the deployments table."),
    "failed_deployments": Metric("Failed Deployments", "", "Deployments whose health is Degraded."),
    "unseen_deployments": Metric(
        "Deployments Not Looked At", "", "Production deployments whose health nobody saw."),
    "total_rollbacks": Metric("Total Rollbacks", "", "Rows of the rollbacks table."),
    "successful_rollbacks": Metric("Successful Rollbacks", "", "Rollbacks that succeeded."),
    "failed_rollbacks": Metric("Failed Rollbacks", "", "Rollbacks that did not succeed."),
    "rollback_success_rate": Metric(
        "Rollback Success Rate", "%", "Rollbacks that succeeded over all rollbacks.", digits=1),
    "average_rollback_minutes": Metric("Average Rollback Time", " minutes", "Mean of successes."),
    "fastest_rollback_minutes": Metric("Fastest Rollback", " minutes", "Of successes.", digits=1),
    "slowest_rollback_minutes": Metric("Slowest Rollback", " minutes", "Of successes.", digits=1),
    "failures_without_rollback": Metric("Failures Not Rolled Back", "", "Failed ones without one."),
    "failure_reasons": Metric("Main Failure Reasons", "", "Failed deployments for each reason."),
    "failure_reasons_by_environment": Metric("Failure Reasons", "", "Of each environment."),
    "deployments_by_environment": Metric("Deployment Distribution", "", "To each environment."),
    "healthy_by_environment": Metric("Healthy Deployments", "", "Those that did not fail."),
    "rollbacks_by_environment": Metric("Rollbacks by Environment", "", "In each environment."),
    "deployments_by_status": Metric("Deployment Status", "", "Deployments that ended in each."),
    "deployments_by_application": Metric("Deployments by Application", "", "Of each application."),
    "total_commits": Metric("Total Commits", "", "Rows of the git_commits table."),
    "contributors": Metric("Contributors", "", "Different authors of the commits."),
    "applications": Metric("Applications", "", "Different applications of the commits."),
    "commit_types": Metric("Commit Type Breakdown", "", "Commits of each type."),
}
"""Every key of the metrics dict. Of a measured history the numbers are of production; those by
environment are of all. Counts by name are ranked, the most frequent first."""
TARGETS: Dict[str, Target] = {key: metric.elite for key, metric in METRICS.items() if metric.elite}
PRODUCTION_METRICS: Dict[str, Metric] = {
    "change_lead_time_hours": Metric(
        "Change lead time", "h",
        "Median, over every change, of the time from its commit to the end of the first Synced "
        "production deployment that contains it, be it of a newer release or a bad one."),
    "deployment_frequency_per_day": Metric(
        "Deployment frequency", "/day",
        "Deployments to production, failed ones included, over the days of the window. A lower "
        "bound where entries of an application are lost."),
    "failed_deployment_recovery_minutes": Metric(
        "Failed deployment recovery time", "min",
        "Median, over the failed production deployments, of the time from their end until they "
        "were good again, or in which an incident lasted."),
    "change_fail_rate_pct": Metric(
        "Change fail rate", "%",
        "Degraded production deployments over all of them. A lower bound where nobody looked at "
        "some; its interval then ends as if all of these had failed."),
    "deployment_rework_rate_pct": Metric(
        "Deployment rework rate", "%",
        "Rollbacks in production, and the first good deployments that came while a failure lasted, "
        "over all production deployments and rollbacks. A lower bound as the fail rate is."),
}
"""The five metrics of dora.dev, which has had no levels since 2025."""
# fmt: on
LEAD, FREQUENCY, RECOVERY, FAIL_RATE, REWORK = PRODUCTION_METRICS
THROUGHPUT, INSTABILITY = (LEAD, FREQUENCY, RECOVERY), (FAIL_RATE, REWORK)  # the two factors
DORA_NAMES = {
    "deployment_frequency": FREQUENCY,
    "median_lead_time": LEAD,
    "mttr_minutes": RECOVERY,
    "change_failure_rate": FAIL_RATE,
}
"""The names of dora.dev for those of the seed."""

ALL_ENVIRONMENTS, PRODUCTION_ALONE = "all environments", "production"
SCOPES: Dict[str, Tuple[str, ...]] = {
    ALL_ENVIRONMENTS: (
        "deployment_frequency", "mean_lead_time", "mttr_minutes", "change_failure_rate",
    ),
    PRODUCTION_ALONE: tuple(DORA_NAMES),
}  # fmt: skip
"""The four metrics that are judged: of a simulation those of the seed, of a measured history those
of dora.dev. Everything that judges reads them here."""

ALL_APPLICATIONS = "(all)"
ENOUGH = 6  # observations: with fewer, nothing is said but what all of them say
ENOUGH_DAYS = 14  # covered days that a frequency is judged from
Z_95 = 1.959963984540054  # the normal quantile of a 95 % interval


def scope_of(history: History) -> str:
    """Return what the verdict on a history is about: a key of SCOPES."""
    return ALL_ENVIRONMENTS if history.is_simulated else PRODUCTION_ALONE


class Level(NamedTuple):
    """A maturity level: met by `score` of the four benchmarks (or, for the lowest, fewer)."""

    score: int
    icon: str
    name: str
    tier: str  # the share of teams that is commonly said to reach it: indicative
    medal: str  # the colour of the drawn medal


INDICATIVE = "of DevOps teams globally (indicative)"
UNPUBLISHED = "(no share of teams is published for it)"
LEVELS = (
    Level(4, "🏆", "ELITE PERFORMER", f"Top 7% {INDICATIVE}", "#e0a82e"),
    Level(3, "🥈", "HIGH PERFORMER", f"Top 25% {INDICATIVE}", "#a3adb8"),
    Level(2, "🥉", "MEDIUM PERFORMER", f"Medium {UNPUBLISHED}", "#b87745"),
    Level(0, "📈", "NEEDS IMPROVEMENT", f"Developing {UNPUBLISHED}", "#5b7fa6"),
)
NOT_ASSESSABLE = "NOT ASSESSABLE"  # in the place of a level


def judge(key: str, metrics: Mapping[str, Any]) -> Any:
    """Return 1 where a target is surely met, 0 where it is surely missed, NaN where neither.

    The metrics are those of one run, or arrays of many.

    1. What is among `not_judged` is neither (see `doubts_of`), nor is an undefined value.
    2. Where no deployment failed there was nothing to recover from: that target is met.
    3. Any other value meets the target on the better side of its limit alone.
    """
    value = np.asarray(metrics[key], float)
    verdict = np.where(np.isnan(value), np.nan, TARGETS[key].is_met(value))
    if key == "mttr_minutes":
        nothing_failed = np.asarray(metrics["change_failure_rate"]) == 0
        verdict = np.where(np.isnan(value) & nothing_failed, 1.0, verdict)
    if key in metrics.get("not_judged", ()):
        verdict = verdict * np.nan
    return verdict[()]


def judge_all(metrics: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what `judge` says of each of the four: the sum is the score, NaN if one is missing.

    Raises GitOpsError if the metrics lack one of the four.
    """
    keys = SCOPES[metrics.get("scope", ALL_ENVIRONMENTS)]
    missing = [key for key in keys if key not in metrics]
    if missing:
        raise GitOpsError(f"the metrics have no {missing[0]!r}; the level needs {', '.join(keys)}")
    return {key: judge(key, metrics) for key in keys}


def level_of(score: float) -> Level:
    """Return the maturity level of a score."""
    return next(level for level in LEVELS if score >= level.score)


def calculate_maturity(metrics: Mapping[str, Any]) -> str:
    """Return the maturity level of a metrics dict, with its icon.

    Without a verdict on each of the four there is no level. GitOpsError if a key is missing.

    >>> calculate_maturity({"deployment_frequency": 13.7, "mean_lead_time": 32.4,
    ...                     "mttr_minutes": 12.3, "change_failure_rate": 6.1})
    '🥈 HIGH PERFORMER'
    """
    score = sum(judge_all(metrics).values())
    if math.isnan(score):
        return f"⚪ {NOT_ASSESSABLE}"
    return f"{level_of(score).icon} {level_of(score).name}"


class Events(NamedTuple):
    """A history, or many simulated ones, as arrays: what all metrics are calculated from.

    The metrics are measured apart for each group: a simulated month, an application, or everything.
    """

    commits: Commits
    deployments: Deployments
    rollbacks: Rollbacks
    recovered: np.ndarray  # when each failed deployment was good again; NEVER while it lasts
    window: Window
    groups: int
    environments: int
    fixed: Any = None  # whether each deployment came while a failure lasted, and was good
    unseen: Any = None  # whether nobody saw the health of each

    def of_group(self, table: Any, chosen: Any = slice(None), weights: Any = None) -> np.ndarray:
        """Return how many chosen entries each group has in a table, or the sum of their weights."""
        return np.bincount(table.group[chosen], weights, minlength=self.groups)

    def chosen(self, kept: np.ndarray, back: np.ndarray) -> Events:
        """Return the events with some rows of the deployments and of the rollbacks alone."""
        columns = {
            name: getattr(self, name)[kept]
            for name in ("recovered", "fixed", "unseen")
            if getattr(self, name) is not None
        }
        deployments = Deployments(*(column[kept] for column in self.deployments))
        rollbacks = Rollbacks(*(column[back] for column in self.rollbacks))
        return self._replace(deployments=deployments, rollbacks=rollbacks, **columns)

    def in_production(self) -> Events:
        """Return the events of the last environment alone."""
        tables, last = (self.deployments, self.rollbacks), self.environments - 1
        return self.chosen(*(table.environment == last for table in tables))

    def since(self, window: Window) -> Events:
        """Return the events from the start of a shorter window on, and all commits."""
        tables = (self.deployments, self.rollbacks)
        events = self.chosen(*(table.time >= window.seconds[0] for table in tables))
        return events._replace(window=window)

    def grouped(self, deployment: np.ndarray, rollback: np.ndarray, groups: int) -> Events:
        """Return the events in other groups; what has the group -1 is left out."""
        events = self._replace(
            deployments=self.deployments._replace(group=deployment),
            rollbacks=self.rollbacks._replace(group=rollback),
            groups=groups,
        )
        return events.chosen(deployment >= 0, rollback >= 0)


def events_of(history: History, applications: Sequence[str]) -> Events:
    """Return a history as arrays, in one group. No rollback knows its deployment."""
    table, back, names = history.deployments, history.rollbacks, history.environments
    deployments = deployments_from(table, applications, names, history.git_commits["sha"])
    nothing, time = np.zeros(len(back), np.int64), seconds_of(back["timestamp"])
    rollbacks = Rollbacks(
        nothing,
        time,
        time + np.rint(back["duration_min"].to_numpy() * 60).astype(np.int64),
        codes_of(back["application"], applications),
        codes_of(back["environment"], names),
        nothing - 1,
        nothing - 1,
        back["success"].to_numpy(bool),
    )
    over = np.where(table["recovered"].isna(), NEVER, seconds_of(table["recovered"]))
    rows = pd.Series(np.where(deployments.bad, np.nan, np.arange(len(over))))
    next_good = rows.groupby(deployments.place).bfill().fillna(-1).to_numpy(np.int64)
    failed = np.flatnonzero(deployments.bad & (next_good >= 0))
    fix = next_good[failed]
    fixed = np.zeros(len(over), bool)
    fixed[fix[deployments.end[fix] <= over[failed]]] = True
    unseen = has_word(table["health"], UNKNOWN)
    commits = commits_of(history.git_commits, applications)
    window, many = history.window, len(names)
    return Events(commits, deployments, rollbacks, over, window, 1, many, fixed, unseen)


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


def headline_metrics(events: Events) -> Dict[str, np.ndarray]:
    """Calculate the metrics of the seed for each group: {key of METRICS: an array over the groups}.

    All deployments count; the last environment is production.
    """
    commits, deployments, rollbacks = events[:3]
    days, production = events.window.days, deployments.environment == events.environments - 1
    total, failed = events.of_group(deployments), events.of_group(deployments, deployments.bad)
    released = released_commits(events)
    lead = deployments.time[released] - commits.time[deployments.commit[released]]
    dated = events.of_group(deployments, released)
    attempted, worked = events.of_group(rollbacks), rollbacks.success
    restored = events.of_group(rollbacks, worked)
    minutes = events.of_group(rollbacks, worked, (rollbacks.end - rollbacks.time)[worked]) / 60
    return {
        "deployment_frequency": total / days,
        "mean_lead_time": safe_ratio(events.of_group(deployments, released, lead) / 3600, dated),
        "median_lead_time": group_medians(deployments.group[released], lead, events.groups) / 3600,
        "mttr_minutes": safe_ratio(minutes, restored),
        "change_failure_rate": safe_ratio(100 * failed, total),
        "overall_success_rate": safe_ratio(100 * (total - failed), total),
        "production_deployment_frequency": events.of_group(deployments, production) / days,
        "dated_deployments": dated,
        "total_deployments": total,
        "failed_deployments": failed,
        "total_rollbacks": attempted,
        "successful_rollbacks": restored,
        "failed_rollbacks": attempted - restored,
        "rollback_success_rate": safe_ratio(100 * restored, attempted),
        "average_rollback_minutes": safe_ratio(minutes, restored),
        "failures_without_rollback": failed - attempted,
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


def lead_time_parts(history: History, events: Events) -> Dict[str, float]:
    """Return the mean hours into each environment from the one before, which add up to the mean.

    They are those of released commits, or of the changes that shipped. A change that skipped an
    environment takes no time into it; where all of them did, the part of it is undefined.
    """
    names, deployments = history.environments, events.deployments
    if history.changes is None:
        known, chosen = deployments.commit >= 0, released_commits(events)
        item, place, times = deployments.commit, deployments.environment, deployments.time
        begun, item, place, times = events.commits.time, item[known], place[known], times[known]
        chosen, last = deployments.commit[chosen], deployments.time[chosen]
    else:
        table = history.changes.dropna(subset=["deployed"])
        of_change = table.groupby(["application", "commit_sha"], observed=True, sort=False)
        item, times = of_change.ngroup().to_numpy(np.int64), seconds_of(table["deployed"])
        place = codes_of(table["environment"], names)
        chosen = item[place == len(names) - 1]
        last, begun = times[place == len(names) - 1], np.zeros(item.max(initial=-1) + 1, np.int64)
        begun[item] = seconds_of(table["committed"])
    first = np.full((len(names), len(begun)), NEVER)
    np.minimum.at(first, (place, item), times)
    before, parts = begun[chosen], {}
    for name, there in zip(names, [*first[:-1, chosen], last]):
        after = np.where(there < NEVER, np.clip(there, before, np.maximum(last, before)), before)
        seen = (there < NEVER).any()
        parts[name] = float((after - before).mean()) / 3600 if seen else math.nan
        before = after
    return parts


class Changes(NamedTuple):
    """Changes as arrays. An entry is a change that came to production, or waits for it."""

    group: np.ndarray  # -1: it is left out
    committed: np.ndarray
    shipped: np.ndarray  # end of the first Synced deployment that contains it, or NEVER


def shipped_changes(events: Events) -> Changes:
    """Return when each commit shipped: with its own deployment or that of a newer commit.

    The events are those of one environment.
    """
    commits, deployments = events[:2]
    rows = np.flatnonzero(deployments.synced & (deployments.commit >= 0))
    shipped = np.full(len(commits.time), NEVER)
    np.minimum.at(shipped, deployments.commit[rows], deployments.end[rows])
    newest_first = pd.Series(shipped[::-1]).groupby(commits.lineage[::-1])
    return Changes(commits.group, commits.time, newest_first.cummin().to_numpy(np.int64)[::-1])


def production_of(
    history: History, events: Events, applications: Sequence[str]
) -> Tuple[Events, Changes]:
    """Return what happened in production, and the changes to it, grouped by application.

    1. The downtime of a deployment with incidents is the time in which at least one of them lasted:
       it `recovered` as if they had come one after the other.
    2. Without a table of changes each commit is one; that of a later time than its deployment is
       none.
    """
    made = events.in_production()
    deployments, changes = made.deployments, history.changes
    if history.incidents is not None and len(history.incidents):
        table = history.incidents[has_word(history.incidents["environment"], history.production)]
        table = table.sort_values("started")
        application, ended = codes_of(table["application"], applications), table["deployed"]
        owner = application * NEVER + seconds_of(ended)
        begun, over = (seconds_of(table[edge]) for edge in ("started", "resolved"))
        until = pd.Series(over).groupby(owner).cummax().groupby(owner).shift(1, fill_value=0)
        total = pd.Series(np.maximum(over - np.maximum(begun, until), 0)).groupby(owner).sum()
        down = total.reindex(deployments.application * NEVER + deployments.end)
        known = down.notna().to_numpy() & (made.recovered < NEVER)
        recovered = np.where(known, deployments.end + down.fillna(0), made.recovered)
        made = made._replace(recovered=recovered.astype(np.int64))
    if changes is None:
        known_changes = shipped_changes(made)
        late = known_changes.shipped < known_changes.committed
        group = np.where(late, -1, made.commits.application)
        return made, known_changes._replace(group=group)
    table = history.changes_to(history.production)
    shipped = np.where(table["deployed"].isna(), NEVER, seconds_of(table["deployed"]))
    group = codes_of(table["application"], applications)
    return made, Changes(group, seconds_of(table["committed"]), shipped)


def measure_production(events: Events, changes: Changes, days: Any = None) -> Grouped:
    """Calculate dora.dev's metrics for each group, from the events of production.

    The columns are `value` and `n`; of times also `mean`, `p90` and `open`, of rates `part`, `low`
    and `high`. `days` is how many days each group has, by default those of the window.
    """
    deployments, groups = events.deployments, events.groups
    total, bad = events.of_group(deployments), deployments.bad
    none = np.zeros(len(bad), bool)
    fixed, unseen = (none if mask is None else mask for mask in (events.fixed, events.unseen))
    hidden, back = events.of_group(deployments, unseen), events.of_group(events.rollbacks)
    rework, failed = back + events.of_group(deployments, fixed), events.of_group(deployments, bad)
    frequency = total / (events.window.days if days is None else days)
    lead, down = (
        seconds_between(changes.committed, changes.shipped),
        seconds_between(deployments.end, events.recovered),
    )
    return {
        LEAD: times_by_group(changes.group, lead, groups, 3600),
        FREQUENCY: {"value": frequency, "n": total},
        RECOVERY: times_by_group(deployments.group[bad], down[bad], groups, 60),
        FAIL_RATE: rates_with_interval(failed, total, hidden),
        REWORK: rates_with_interval(rework, total + back, hidden),
    }


Grouped = Dict[str, Dict[str, np.ndarray]]
"""{key of PRODUCTION_METRICS: {column of a MetricRow: an array over the groups}}"""


def scoped_metrics(table: Mapping[str, Mapping[str, Any]]) -> Dict[str, Any]:
    """Return the metrics of production under the names of the seed."""
    values = {key: table[metric]["value"] for key, metric in DORA_NAMES.items()}
    return {**values, "mean_lead_time": table[LEAD]["mean"]}


def seconds_between(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the seconds from each begin to its end, NEVER where that did not come."""
    return np.where(end < NEVER, np.maximum(end - begin, 0), NEVER)


def times_by_group(
    group: np.ndarray, seconds: np.ndarray, groups: int, unit: int
) -> Dict[str, Any]:
    """Return median, number, mean and 90th percentile of each group, in units of seconds.

    Entries of NEVER are open: they are counted and left out.
    """
    group, seconds = group[group >= 0], seconds[group >= 0]
    known = seconds < NEVER
    n, waiting = (np.bincount(group[some], minlength=groups) for some in (known, ~known))
    by = pd.Series(seconds[known] / unit).groupby(group[known])
    middle, most = (by.quantile(share).reindex(range(groups)).to_numpy() for share in (0.5, 0.9))
    total = np.bincount(group[known], seconds[known], minlength=groups) / unit
    return {"value": middle, "n": n, "mean": safe_ratio(total, n), "p90": most, "open": waiting}


def group_medians(group: np.ndarray, values: np.ndarray, groups: int) -> np.ndarray:
    """Return the median of each group's values, NaN for an empty group."""
    return pd.Series(values).groupby(group).median().reindex(range(groups)).to_numpy(float)


def rates_with_interval(
    part: np.ndarray, whole: np.ndarray, hidden: np.ndarray
) -> Dict[str, np.ndarray]:
    """Return percentages with Wilson's score interval (E. B. Wilson, JASA 22, 1927).

    `hidden` is how many of the whole nobody looked at. They are none of the part, and the interval
    ends as if they all were. Where nobody looked at any, and none showed, there is no rate.
    """
    whole = np.where((part == 0) & (hidden > 0) & (hidden >= whole), 0, whole)
    ends = []
    for count, side in ((part, -1), (np.minimum(part + hidden, whole), 1)):
        share, shrink = safe_ratio(count, whole), 1 + safe_ratio(Z_95**2, whole)
        middle = share + safe_ratio(Z_95**2, 2 * whole)
        variance = safe_ratio(share * (1 - share), whole) + safe_ratio(Z_95, 2 * whole) ** 2
        ends.append(100 * np.clip((middle + side * Z_95 * np.sqrt(variance)) / shrink, 0, 1))
    value = safe_ratio(100 * part, whole)
    return {"value": value, "low": ends[0], "high": ends[1], "n": whole, "part": part}


def student_t(df: float) -> float:
    """Return the quantile of Student's t for a 95 % interval, from three degrees of freedom on.

    The first terms of the expansion in M. Abramowitz and I. Stegun, Handbook of Mathematical
    Functions, 1964, 26.7.5.
    """
    first, second = (Z_95**3 + Z_95) / 4, (5 * Z_95**5 + 16 * Z_95**3 + 3 * Z_95) / 96
    return Z_95 + first / df + second / df**2


def median_interval(values: np.ndarray, cluster: np.ndarray) -> Tuple[float, float]:
    """Return the 95 % interval of a median (R. S. Woodruff, JASA 47, 1952).

    Values of one cluster are not independent. The interval lies between the quantiles at
    1/2 -+ t se, where se is the standard error of the share of values below the median. With d more
    values above the median than below it in each of k clusters and n values in all,
    se = sqrt(k / (k - 1) sum(d^2)) / 2n (C. A. Francisco and W. A. Fuller, Annals of Statistics 19,
    1991), and t has k - 1 degrees of freedom. Fewer than six values or four clusters have none.
    """
    n, code = len(values), pd.factorize(cluster)[0]
    k = int(code.max(initial=-1)) + 1
    if n < ENOUGH or k < 4:
        return math.nan, math.nan
    more = np.bincount(code, np.sign(values - np.median(values)))
    half = student_t(k - 1) * math.sqrt(k / (k - 1) * (more**2).sum()) / 2
    ranks = np.clip([(n - 1) / 2 - half, (n - 1) / 2 + half], 0, n - 1)
    low, high = np.quantile(values, ranks / (n - 1)).tolist()
    return low, high


def frequency_interval(counts: np.ndarray, covered: np.ndarray) -> Tuple[float, float]:
    """Return the 95 % interval of events per day, from the counts of the days.

    `covered` says which days the history covers.

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
    if not covered.any():
        return math.nan, math.nan
    n, days = int(counts.sum()), len(counts)
    used = covered & ((np.cumsum(counts) > 0) | (np.arange(days) >= 6))
    sums = np.array([])
    if days >= 7:
        week = np.ones(7, int)
        sums = np.convolve(counts * used, week, "valid")[np.convolve(used, week, "valid") == 7]
    weeks, weight, t = (len(sums) + 6) / 7, 1.0, Z_95
    if n >= 20 and weeks >= 3:
        spread = sums.var() * weeks / (weeks - 1) / max(sums.mean(), 1e-9)
        weight = max(spread, counts.max() ** 2 / 4 / n)
        t = student_t(1.5 * (weeks - 1))
    some, more = max(n, 1) / weight, n / weight + 1
    low = n * max(1 - 1 / (9 * some) - t / (3 * math.sqrt(some)), 0) ** 3
    high = (n + weight) * (1 - 1 / (9 * more) + t / (3 * math.sqrt(more))) ** 3
    return low / days, high / days


class MetricRow(NamedTuple):
    """One metric of one group: what report, Markdown, HTML, JSON and picture show."""

    key: str  # of METRICS or PRODUCTION_METRICS
    value: float  # NaN where it is undefined
    low: float = math.nan  # the 95 % interval
    high: float = math.nan
    n: int = 0
    mean: float = math.nan
    p90: float = math.nan
    open: int = 0  # changes not shipped, failures not recovered at the end
    at_least: bool = False  # whether the value is a lower bound, as not everything was seen
    why: str = ""  # what the value is made of, or why it is undefined

    @property
    def metric(self) -> Metric:
        """What the key means."""
        return METRICS.get(self.key) or PRODUCTION_METRICS[self.key]

    @property
    def text(self) -> str:
        """The value as people say it; a bound says so."""
        text = in_human_units(self.value, self.metric.short_unit)
        return f"at least {text}" if self.at_least else text

    @property
    def interval(self) -> str:
        """The 95 % interval, nothing if there is none."""
        if math.isnan(self.low):
            return ""
        return f"{show_number(self.low)} to {show_number(self.high)}"


ROW = list(MetricRow._fields[1:])


def production_frame(
    history: History,
    events: Events,
    changes: Changes,
    spans: Sequence[Tuple[int, int]],
    partly: Any,
) -> pd.DataFrame:
    """Return the metrics of production of groups as a table: a row is a metric of a group.

    A span is the first day of a group and that after its last. `partly` says of each group whether
    entries of it are lost. More than MOST_INTERVALS groups have no intervals of times and
    frequencies. Changes that ship within the same two days are one cluster. Edges have nine
    decimals: the last bits of a root differ between versions of numpy.
    """
    deployments, groups, covered = events.deployments, len(spans), days_known(history)
    edges = np.array(spans, int).reshape(-1, 2)
    known = np.append(0, np.cumsum(covered))[edges]
    days = np.where(known[:, 1] > known[:, 0], edges[:, 1] - edges[:, 0], np.nan)
    table = measure_production(events, changes, days)
    if groups <= MOST_INTERVALS:
        lead = seconds_between(changes.committed, changes.shipped)
        down = seconds_between(deployments.end, events.recovered)
        day = (deployments.time - events.window.seconds[0]) // DAY
        ends: Dict[str, List[Tuple[float, float]]] = {LEAD: [], RECOVERY: [], FREQUENCY: []}
        for number, (low, high) in enumerate(spans):
            rows = np.flatnonzero((changes.group == number) & (lead < NEVER))
            cluster = changes.shipped[rows] // (2 * DAY)
            ends[LEAD].append(median_interval(lead[rows] / 3600, cluster))
            rows = np.flatnonzero(deployments.group == number)
            counts = np.bincount(day[rows] - low, minlength=high - low)
            ends[FREQUENCY].append(frequency_interval(counts, covered[low:high]))
            rows = rows[deployments.bad[rows] & (down[rows] < NEVER)]
            ends[RECOVERY].append(median_interval(down[rows] / 60, rows))
        for metric, found in ends.items():
            table[metric]["low"], table[metric]["high"] = np.reshape(found, (-1, 2)).T
    unseen = (events.of_group(deployments, events.unseen) > 0) | hides_failures(history)
    bounds = {FREQUENCY: partly, FAIL_RATE: unseen, REWORK: unseen}
    total, bad = table[FREQUENCY]["n"].tolist(), table[FAIL_RATE]["part"].tolist()
    frames = []
    for metric, columns in table.items():
        frame = pd.DataFrame({**dict.fromkeys(ROW, math.nan), **columns})
        frame = frame.assign(group=range(groups), metric=metric, open=frame["open"].fillna(0))
        frame["at_least"] = np.asarray(bounds.get(metric, False)) & frame["value"].notna()
        parts = columns.get("part", columns["n"]).tolist()
        told = zip(frame["value"].isna(), columns["n"].tolist(), parts, days.tolist(), total, bad)
        frame["why"] = [made_of(metric, *numbers) for numbers in told]
        frames.append(frame)
    whole = pd.concat(frames).sort_values("group", kind="mergesort", ignore_index=True)
    whole = whole.astype({"n": int, "open": int, "at_least": bool})
    return whole[["group", "metric", *ROW]].round({"low": 9, "high": 9})


MOST_INTERVALS = 200


def made_of(
    metric: str, nothing: bool, n: int, part: int, days: float, deployed: int, failed: int
) -> str:
    """Return what a metric of production is made of, or why it is undefined."""
    if nothing and not deployed:
        return "nothing reached production"
    if metric == LEAD:
        return "no lead time is known" if nothing else f"median of {count_text(n, 'change')}"
    if metric == FREQUENCY:
        if nothing:
            return "less than a day is covered"
        return f"{count_text(n, 'deployment')} in {count_text(int(days), 'day')}"
    if metric == RECOVERY and nothing:
        return "no failure has ended" if failed else "no failure was seen"
    if metric == RECOVERY:
        return f"median of {count_text(n, 'failure')}"
    if nothing:
        return "failures not observable"
    return f"{part:,} {'failed' if metric == FAIL_RATE else 'reworked'} of {n:,}"


def hides_failures(history: History) -> bool:
    """Return whether a failure can hide between two looks at a cluster."""
    return history.source == "argocd" and history.incidents is None


@dataclass(frozen=True)
class Metrics:
    """Everything that the report, the JSON and the dashboard show. `measure` calculates it once."""

    history: History
    values: Dict[str, Any]  # the keys of METRICS
    production: pd.DataFrame  # see `production_metrics`
    deployments_by_day: np.ndarray  # a row for each environment, a column for each day
    days_known: np.ndarray  # the same shape: whether the history covers that day there

    @property
    def scope(self) -> str:
        """What the verdict is about: a key of SCOPES."""
        return self.values["scope"]

    @functools.cached_property
    def met(self) -> Dict[str, float]:
        """What `judge` says of each of the four."""
        return judge_all(self.values)

    @functools.cached_property
    def rows(self) -> Dict[str, MetricRow]:
        """The four that are judged: value and what it is made of, or why it is not judged."""
        values, rows = self.values, {}
        for key in SCOPES[self.scope]:
            if self.scope == PRODUCTION_ALONE:
                rows[key] = self.production_rows[DORA_NAMES[key]]._replace(key=key)
            else:
                why = simulated_evidence(key, values, self.history.window)
                rows[key] = MetricRow(key, values[key], why=why)
            rows[key] = rows[key]._replace(why=values["not_judged"].get(key, rows[key].why))
        return rows

    @property
    def unjudged(self) -> Dict[str, str]:
        """The targets that can be neither met nor missed, and why."""
        return {key: self.rows[key].why for key, met in self.met.items() if math.isnan(met)}

    @property
    def score(self) -> int:
        """How many targets are met."""
        return sum(met == 1 for met in self.met.values())

    @property
    def level(self) -> Optional[Level]:
        """The maturity level; None where a target cannot be judged."""
        return None if self.unjudged else level_of(self.score)

    @property
    def quick_check(self) -> Dict[str, float]:
        """The Quick Check scores of production; a lower bound has none."""
        return quick_check(self.overall["value"].where(~self.overall["at_least"]).to_dict())

    @functools.cached_property
    def overall(self) -> pd.DataFrame:
        """The metrics of production in all: a row is a metric (the index)."""
        table = self.production.head(len(PRODUCTION_METRICS))
        return table.drop(columns="application").set_index("metric")

    @property
    def production_rows(self) -> Dict[str, MetricRow]:
        """The metrics of production in all."""
        return {metric: MetricRow(metric, *fields) for metric, *fields in self.overall.itertuples()}

    @property
    def by_application(self) -> Dict[str, Dict[str, MetricRow]]:
        """The metrics of production of each application."""
        found: Dict[str, Dict[str, MetricRow]] = {}
        for name, *row in self.production.iloc[len(PRODUCTION_METRICS) :].itertuples(index=False):
            found.setdefault(name, {})[row[0]] = MetricRow(*row)
        return found


def simulated_evidence(key: str, values: Mapping[str, Any], window: Window) -> str:
    """Return the numbers that a metric of a simulation is made of, or why it is undefined."""
    total, failed = values["total_deployments"], values["failed_deployments"]
    dated, restored = values["dated_deployments"], values["successful_rollbacks"]
    if not total:
        return "nothing was deployed"
    if key == "deployment_frequency":
        return f"{count_text(total, 'deployment')} in {count_text(window.days, 'day')}"
    if key == "change_failure_rate":
        return f"{failed:,} failed of {count_text(total, 'deployment')}"
    if key == "mttr_minutes":
        none = "no rollback succeeded" if failed else "no deployment failed"
        return f"mean of {count_text(restored, 'rollback')}" if restored else none
    if dated:
        return f"mean of {count_text(dated, 'production deployment')}"
    reached = values["production_deployment_frequency"] > 0
    return "no production deployment succeeded" if reached else "nothing reached production"


def measure(history: History) -> Metrics:
    """Calculate everything that is shown of a history."""
    names, scope, window = application_names(history), scope_of(history), history.window
    events = events_of(history, names)
    made, changes = production_of(history, events, names)
    lost, codes = lost_since(history, names), made.deployments.application
    own = codes, made.rollbacks.application, changes.group
    alone = [np.minimum(code, 0) for code in own]  # one group; what is left out stays -1
    frames = []
    for (deployment, rollback, change), labels, partly in (
        (alone, [ALL_APPLICATIONS], (lost > 0).any()),
        (own, names, lost > 0),
    ):
        grouped = made.grouped(deployment, rollback, len(labels))
        spans = [(0, window.days)] * len(labels)
        frame = production_frame(history, grouped, changes._replace(group=change), spans, partly)
        frame.insert(0, "application", np.asarray(labels, object)[frame.pop("group")])
        frames.append(frame)
    if history.coverage is not None:  # what production never had is no application of it
        shown = history.covered(history.production)["application"].astype(object)
        frames[1] = frames[1][frames[1]["application"].isin(shown)]
    table = pd.concat(frames, ignore_index=True)
    of_scope = events if scope == ALL_ENVIRONMENTS else made
    values = {key: array.item() for key, array in headline_metrics(of_scope).items()}
    values.update(counts_by_name(history, scope))
    values.update(scope=scope, not_judged={}, unseen_deployments=int(made.unseen.sum()))
    values["lead_time_hours_by_environment"] = lead_time_parts(history, events)
    if scope == PRODUCTION_ALONE:
        overall = frames[0].set_index("metric").to_dict("index")
        values.update(scoped_metrics(overall))
        values["overall_success_rate"] = 100 - values["change_failure_rate"]
        values["production_deployment_frequency"] = values["deployment_frequency"]
        shipped = changes.group * NEVER + changes.shipped
        values["dated_deployments"] = int(
            np.isin(codes * NEVER + made.deployments.end, shipped).sum()
        )
        values["not_judged"] = doubts_of(history, values, overall, made, changes)
    known = np.stack([days_known(history, name) for name in history.environments])
    day = (events.deployments.time - window.seconds[0]) // DAY
    cells = events.deployments.environment * window.days + day
    counts = np.bincount(cells, minlength=known.size).reshape(known.shape)
    return Metrics(history, values, table, counts, known)


def doubts_of(
    history: History,
    values: Mapping[str, Any],
    overall: Mapping[str, Mapping[str, Any]],
    made: Events,
    changes: Changes,
) -> Dict[str, str]:
    """Return why a metric of production is not judged: what a sceptic would say.

    1. An undefined value is not judged. That nothing failed meets the target of recovery, but it is
       known only where everything was looked at.
    2. A frequency needs fourteen covered days. A lower bound can only meet its target.
    3. Of fewer than six times all must lie on one side of the target. A failure that lasts takes
       longer than the target.
    4. Half of the production deployments need a lead time.
    5. A rate needs six deployments. A lower bound can only miss its target, unless it would meet it
       if all that nobody looked at had failed.
    """
    doubts = {
        key: overall[metric]["why"]
        for key, metric in DORA_NAMES.items()
        if math.isnan(overall[metric]["value"])
    }
    met = {key: judge(key, values) for key in DORA_NAMES}
    total, unseen = values["total_deployments"], values["unseen_deployments"]
    hidden = "a failure may hide between two looks"
    if not hides_failures(history):
        hidden = f"{count_text(unseen, 'deployment')} not looked at"
    if met["mttr_minutes"] == 1 and math.isnan(values["mttr_minutes"]):
        del doubts["mttr_minutes"]
        if overall[FAIL_RATE]["at_least"]:
            doubts["mttr_minutes"] = hidden
    days = int(days_known(history).sum())
    if 0 < days < ENOUGH_DAYS:
        doubts["deployment_frequency"] = f"only {count_text(days, 'day')} covered"
    elif overall[FREQUENCY]["at_least"] and not met["deployment_frequency"]:
        doubts["deployment_frequency"] = "older entries are lost"
    lead, down = (
        seconds_between(changes.committed, changes.shipped),
        seconds_between(made.deployments.end, made.recovered),
    )
    known = {"median_lead_time": lead[lead < NEVER], "mttr_minutes": down[made.deployments.bad]}
    for key, times in known.items():
        limit = TARGETS[key].limit * {"h": 3600, "min": 60}[TARGETS[key].unit]
        within, many = int(np.count_nonzero(times < limit)), len(times)
        if 0 < within < many < ENOUGH:
            doubts[key] = f"{within} of {many} within the target, too few to tell"
        elif many and met[key] == 1 and times.max() == NEVER and 2 * within <= many:
            doubts[key] = f"{count_text(overall[RECOVERY]['open'], 'failure')} not over"
    if 0 < 2 * values["dated_deployments"] < total:
        doubts["median_lead_time"] = f"of {values['dated_deployments']:,} of {total:,} deployments"
    if 0 < overall[FAIL_RATE]["n"] < ENOUGH:
        doubts["change_failure_rate"] = f"only {count_text(total, 'deployment')}"
    elif met["change_failure_rate"] == 1 and overall[FAIL_RATE]["at_least"]:
        most = values["change_failure_rate"] + 100 * unseen / total
        if hides_failures(history) or not TARGETS["change_failure_rate"].is_met(most):
            doubts["change_failure_rate"] = hidden
    return doubts


def lost_since(history: History, names: Sequence[str]) -> np.ndarray:
    """Return for each application the second from which all of its production is known.

    That is 0 where nothing of the window is lost.
    """
    since = np.zeros(len(names), np.int64)
    if history.coverage is not None:
        covered = history.covered(history.production)
        begins = seconds_of(covered["from"])
        lost = (covered["lost"] > 0).to_numpy() & (begins > history.window.seconds[0])
        since[codes_of(covered["application"], names)[lost]] = begins[lost]
    return since


def application_names(history: History) -> List[str]:
    """Return the names of all applications that a history has, sorted."""
    tables = [history.deployments, history.git_commits, history.coverage, history.changes]
    known = [table["application"] for table in tables if table is not None]
    return sorted({name for column in known for name in count_words(column)})


def counts_by_name(history: History, scope: str) -> Dict[str, Any]:
    """Count what the report breaks down by environment, application, type, status or reason.

    The counts by environment are of all environments, the others of the scope.
    """
    table, commits, backs = history.deployments, history.git_commits, history.rollbacks
    names, place = history.environments, table["environment"]
    total, bad, looked, back = (
        {name: counts.get(name, 0) for name in names}
        for counts in map(
            count_words,
            (
                place,
                place[has_word(table["health"], DEGRADED)],
                place[~has_word(table["health"], UNKNOWN)],
                backs["environment"],
            ),
        )
    )
    good = {name: total[name] - bad[name] for name in names}
    reasons = {name: table["failure_reason"][has_word(place, name)] for name in names}
    if scope == PRODUCTION_ALONE:
        table = table[has_word(place, names[-1])]
        backs = backs[has_word(backs["environment"], names[-1])]
    minutes = backs.loc[backs["success"], "duration_min"]
    return {
        "success_rates": {
            name: 100 * good[name] / total[name] if looked[name] else math.nan for name in names
        },
        "deployments_by_environment": total,
        "healthy_by_environment": good,
        "rollbacks_by_environment": back,
        "deployments_by_status": {SYNCED: 0, FAILED: 0, **count_words(table["status"])},
        "deployments_by_application": count_words(table["application"]),
        "fastest_rollback_minutes": float(minutes.min()),
        "slowest_rollback_minutes": float(minutes.max()),
        "failure_reasons": count_words(table["failure_reason"]),
        "failure_reasons_by_environment": {name: count_words(own) for name, own in reasons.items()},
        "total_commits": len(commits),
        "contributors": len(count_words(commits["author"])),
        "applications": len(count_words(commits["application"])),
        "commit_types": count_words(commits["type"]),
    }


def days_known(history: History, environment: str = "") -> np.ndarray:
    """Return whether the history covers each day of an environment, by default of production.

    On the other days no deployment is known, which is not the same as none. A history of less than
    a day covers no day.
    """
    days = history.window.days
    if history.coverage is None:
        return np.ones(days, bool)
    spans, start = history.covered(environment or history.production), history.window.seconds[0]
    begins, ends = seconds_of(spans["from"]), seconds_of(spans["to"])
    if not len(spans) or ends.max() - begins.min() < DAY:
        return np.zeros(days, bool)
    first, last = (
        np.bincount(np.minimum((seconds - start) // DAY, days), minlength=days + 1)
        for seconds in (begins, ends)
    )
    return (np.cumsum(first) - np.cumsum(last) + last)[:days] > 0


def production_metrics(history: History) -> pd.DataFrame:
    """Return dora.dev's five metrics of production; a row is a metric of an application, or of all.

    Columns: `application`, `metric` (a key of `PRODUCTION_METRICS`), `value` (a median, rate or
    frequency; NaN where there is no data), `low` and `high` (its 95 % interval), `n`, `mean` and
    `p90` (of lead and recovery times), `open` (changes not shipped, failures not recovered at the
    end), `at_least` (whether the value is a lower bound, as not everything was seen), `why` (what
    the value is made of, or why there is none).
    """
    return measure(history).production


def calculate_dora_metrics(history: History) -> Dict[str, Any]:
    """Return the keys of `METRICS`, unrounded, NaN where undefined; some are dicts by name."""
    return measure(history).values


def measure_trend(history: History, by: str) -> pd.DataFrame:
    """Return the metrics of production of each week (from Monday) or month, in UTC.

    A row is a metric of a period. Columns: `period` (its first day), `days`, those of
    `production_metrics`, `enough` (whether there is enough data to say something), `change` (from
    the period before), `change_low` and `change_high` (its 95 % interval), `differs` (whether that
    leaves zero out). A deployment is of the period in which it began, a change of that in which it
    shipped. GitOpsError for another `by`.
    """
    check_that(by in ("week", "month"), "by", "be week or month", by)
    names, window = application_names(history), history.window
    days = pd.date_range(window.start, window.last, freq="D")
    begins = (days.day_of_week == 0) if by == "week" else (days.day == 1)
    starts = np.union1d(0, np.flatnonzero(begins))
    edges, first = np.append(starts, len(days)), window.seconds[0]

    def period_of(seconds: np.ndarray) -> np.ndarray:
        day = (seconds - first) // DAY
        inside = (day >= 0) & (day < len(days))
        return np.where(inside, np.searchsorted(starts, day, side="right") - 1, -1)

    made, changes = production_of(history, events_of(history, names), names)
    changes = changes._replace(group=np.where(changes.group < 0, -1, period_of(changes.shipped)))
    deployment, rollback = (period_of(table.time) for table in (made.deployments, made.rollbacks))
    made = made.grouped(deployment, rollback, len(starts))
    partly = first + starts * DAY < lost_since(history, names).max(initial=0)
    frame = production_frame(history, made, changes, list(zip(edges, edges[1:])), partly)
    number = frame.pop("group").to_numpy()
    frame.insert(0, "period", days[starts][number])
    frame.insert(1, "days", np.diff(edges)[number])
    whole = np.add.reduceat(days_known(history), starts, dtype=int) == (
        7 if by == "week" else days[starts].days_in_month
    )
    some = np.where(frame["metric"] == FREQUENCY, whole[number], frame["n"] >= ENOUGH)
    frame["enough"] = some & frame["value"].notna()
    before = frame.groupby("metric", sort=False)[["value", "low", "high", "enough"]].shift(1)
    change = difference_of(before, frame).where(frame["enough"] & before["enough"].eq(True))
    differs = (change["change_low"] > 0) | (change["change_high"] < 0)
    return frame.assign(**change.round(9), differs=differs)


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


QUICK_CHECK_MEANS_2025 = {
    "overall": 6.7, "throughput": 6.0, "stability": 7.9,
    LEAD: 5.5, FREQUENCY: 4.8, RECOVERY: 7.4, FAIL_RATE: 8.1, REWORK: 7.8,
}  # fmt: skip
"""dora.dev's Quick Check: the mean score of all industries in 2025."""

MONTH = 30.4375  # days
DURATION_BANDS = (1, 24, 7 * 24, MONTH * 24, 6 * MONTH * 24)  # hours: a step of two points each
FREQUENCY_BANDS = (1 / (6 * MONTH), 1 / MONTH, 1 / 7, 1, np.nextafter(24, 25))  # a day: likewise


def quick_check(values: Mapping[str, float]) -> Dict[str, float]:
    """Return the Quick Check score, 0 to 10, of all metrics, of each factor and of each metric."""
    scores = {}
    for metric, value in values.items():
        if math.isnan(value):
            scores[metric] = math.nan
        elif metric in INSTABILITY:
            scores[metric] = 10 - value / 10
        elif metric == FREQUENCY:
            scores[metric] = 2.0 * bisect.bisect_right(FREQUENCY_BANDS, value)
        else:
            hours = value if metric == LEAD else value / 60
            scores[metric] = 10 - 2.0 * bisect.bisect_right(DURATION_BANDS, hours)
    means = {}
    factors = {"overall": tuple(scores), "throughput": THROUGHPUT, "stability": INSTABILITY}
    for name, keys in factors.items():
        known = [scores[key] for key in keys if not math.isnan(scores.get(key, math.nan))]
        means[name] = math.fsum(known) / len(known) if known else math.nan
    return {**means, **scores}


# ---- Trace: history -> the life of one release --------------------------------------------------

TRACED = ("latest", "slowest", "failed")  # releases that a trace finds without a name


class TraceTable(pd.DataFrame):
    """The steps of a release: a notebook cuts none of their words off."""

    @property
    def _constructor(self) -> type:
        return pd.DataFrame

    def _repr_html_(self) -> Optional[str]:
        with pd.option_context("display.max_colwidth", None):
            return super()._repr_html_()


def trace_release(
    history: History, release: str = "latest", scenario: Optional[Scenario] = None
) -> pd.DataFrame:
    """Return the life of one release: a row is a step, in the order of time.

    `release` is a version, a commit or its beginning, as APPLICATION:COMMIT where several
    applications have it. Or it is the `latest` to production, the change that was `slowest` from
    its commit to production, or the last deployment that `failed` there. The gates are those of the
    `scenario`. Columns: `timestamp`, `environment`, `step`, `what` happened. `attrs` has the
    `application` and the `commit`. GitOpsError if there is no such release.
    """
    changes, table = traced_tables(history)
    application, commit = find_release(history, changes, table, release)
    changes, table = (one[one["application"] == application] for one in (changes, table))
    own, by_itself = changes[changes["commit_sha"] == commit], table["commit_sha"] == commit
    if not len(own):  # a commit that brought changes of other commits, such as a merge
        brought = changes["deployed"].isin(table.loc[by_itself, "end"])
        own = changes[changes["commit_sha"].isin(changes.loc[brought, "commit_sha"])]
    steps: List[Tuple[Any, ...]] = []
    made = history.git_commits.drop_duplicates("sha").set_index("sha")
    for row in own.drop_duplicates("commit_sha").to_dict("records"):
        words = [row["commit_sha"][:7], row["version"]]
        if row["commit_sha"] in made.index:
            words.append("by {author}: {message}".format(**made.loc[row["commit_sha"]]))
        steps.append((row["committed"], "", "commit", " ".join(filter(None, words))))
    ready, since = (own["committed"].min(), "the commit") if len(own) else (None, "")
    backs = history.rollbacks[has_word(history.rollbacks["application"], application)]
    for number, name in enumerate(history.environments):
        gate = "" if scenario is None else f" ({stage_text(scenario.environments[number])})"
        came = own[has_word(own["environment"], name)]
        arrived = table["end"].isin(came["deployed"].dropna())
        here = table[has_word(table["environment"], name) & (by_itself | arrived)]
        for row in here.to_dict("records"):
            begin, end = row["timestamp"], row["end"]
            wait = "the first step that is known"
            if ready is not None:
                hours = max((begin - ready).total_seconds(), 0) / 3600
                wait = f"{in_human_units(hours, 'h') if hours else 'at once'} after {since}{gate}"
            other = f", in release {row['commit_sha'][:7]}" * (row["commit_sha"] != commit)
            steps.append((begin, name, "sync", wait + other))
            outcome = f"{row['status']} after {row['duration_sec']} s, {outcome_text(row)}"
            lead = came.loc[came["deployed"] == end, "committed"]
            hours = (end - lead).dt.total_seconds() / 3600
            spread = dict.fromkeys(in_human_units(hour, "h") for hour in (hours.min(), hours.max()))
            after = f"; {' to '.join(spread)} after the commit" * (len(lead) > 0)
            steps.append((end, name, "end", outcome + after))
            if row["health"] != DEGRADED:
                ready, since = end, f"{name} had it"
            over = row["recovered"]
            back = backs[has_word(backs["environment"], name) & (backs["timestamp"] == end)]
            for one in back.to_dict("records"):
                result = "succeeded" if one["success"] else "failed"
                minutes = in_human_units(one["duration_min"], "min")
                text = f"to {one['to_commit'][:7]} {result} after {minutes}"
                finished = end + pd.Timedelta(minutes=one["duration_min"])
                steps.append((finished, name, "rollback", text))
            if not pd.isna(over) and not back["success"].any():
                minutes = in_human_units((over - end).total_seconds() / 60, "min")
                steps.append((over, name, "recovery", f"good again after {minutes}"))
        if name == history.production and came["deployed"].isna().any():
            steps.append((history.window.end, name, "waits", "not there when the window ends"))
    found = TraceTable(steps, columns=["timestamp", "environment", "step", "what"])
    found = TraceTable(found.sort_values("timestamp", kind="mergesort").reset_index(drop=True))
    found.attrs.update(application=application, commit=commit)
    return found


def outcome_text(row: Mapping[str, Any]) -> str:
    """Return in words whether a deployment turned out well."""
    told = {HEALTHY: "healthy", UNKNOWN: "nobody looked at its health"}
    return told.get(row["health"]) or f"degraded: {row['failure_reason']}"


def traced_tables(history: History) -> Tuple[pd.DataFrame, pd.DataFrame]:
    """Return the changes to each environment, and the deployments with their end.

    Without a table of changes, each commit is one: it comes with its own or a newer release.
    """
    table, changes = history.deployments, history.changes
    end = utc_times(seconds_of(table["timestamp"]) + table["duration_sec"].to_numpy())
    table = table.assign(end=end).astype({"application": object, "commit_sha": object})
    if changes is None:
        commits = history.git_commits.rename(
            columns={"sha": "commit_sha", "timestamp": "committed"}
        )
        events, frames = events_of(history, application_names(history)), []
        for number in range(len(history.environments)):
            rows = events.deployments.environment == number
            shipped = shipped_changes(events.chosen(rows, events.rollbacks.success)).shipped
            deployed = as_times(np.where(shipped < NEVER, shipped, MISSING))
            environment = word_column(np.full(len(commits), number), history.environments)
            frames.append(commits.assign(deployed=deployed, environment=environment, version=""))
        changes = pd.concat(frames)
    return changes.astype({"application": object}), table


def find_release(
    history: History, changes: pd.DataFrame, table: pd.DataFrame, release: str
) -> Tuple[str, str]:
    """Return application and commit of a release; GitOpsError if there is none, or several."""
    live = table[has_word(table["environment"], history.production)]
    if release in TRACED:
        found = live if release == "latest" else live[has_word(live["health"], DEGRADED)]
        if release == "slowest":
            shipped = changes[has_word(changes["environment"], history.production)]
            lead = shipped["deployed"] - shipped["committed"]
            found = shipped[np.asarray(lead == lead.max())]
        if not len(found):
            raise GitOpsError(f"no release to trace: this window has no {release} one")
        return found["application"].iloc[-1], found["commit_sha"].iloc[-1]
    made = history.git_commits.rename(columns={"sha": "commit_sha"})
    columns = ["application", "commit_sha"]
    pairs = pd.concat([frame[columns].astype(str) for frame in (table, changes, made)])
    pairs = pairs.assign(name=pairs["commit_sha"])
    versions = changes.assign(name=changes["version"])[[*columns, "name"]].astype(str)
    wanted, colon, name = release.rpartition(":")
    exact = versions[(versions["name"] == name) & (len(name) > 0)]
    begins = pairs[pairs["commit_sha"].str.startswith(name) & (len(name) > 0)]
    found = (exact if len(exact) else begins).drop_duplicates(columns)
    found = found[found["application"] == wanted] if colon else found
    if len(found) == 1:
        return found["application"].iloc[0], found["commit_sha"].iloc[0]
    several = [f"{one.application}:{one.commit_sha[:12]}" for one in found[:4].itertuples()]
    if several:
        choice = ", ".join(several)
        raise GitOpsError(f"{len(found)} releases are {in_quotes(release)}; take one of {choice}")
    remedy = f"take a version, a commit or its beginning, or {', '.join(TRACED)}"
    raise GitOpsError(f"no release is {in_quotes(release)}; {remedy}")


def format_trace(steps: pd.DataFrame) -> str:
    """Return the life of one release in words."""
    commit, application = steps.attrs["commit"], steps.attrs["application"]
    lines = [DOUBLE_LINE, f"🔍 RELEASE {commit[:12]} OF {application}", DOUBLE_LINE]
    names = [shorten_text(name, 20) for name in steps["environment"]]
    width = max(map(len, names), default=0)
    for name, row in zip(names, steps.to_dict("records")):
        begin = f"{row['timestamp']:%Y-%m-%d %H:%M:%S}  {name:<{width}}  {row['step']:<8}  "
        lines += textwrap.wrap(begin + row["what"], WIDTH, subsequent_indent=" " * len(begin))
    return "\n".join(lines)


# ---- Reporting engine: metrics -> console and JSON ----------------------------------------------

WIDTH = 80
LINE, DOUBLE_LINE = "-" * WIDTH, "=" * WIDTH


def show_number(value: float, unit: str = "", digits: int = 2) -> str:
    """Return a number with its unit; `n/a` if it is undefined."""
    if isinstance(value, float) and math.isnan(value):
        return "n/a"
    return f"{value:,}{unit}" if isinstance(value, int) else f"{value:,.{digits}f}{unit}"


def show_percent(part: float, whole: float, digits: int = 1) -> str:
    """Return a share as a percentage."""
    return show_number(float(safe_ratio(100 * part, whole)), "%", digits)


def with_unit(number: str, unit: str) -> str:
    """Return a number and its unit, with a space unless the unit begins with a slash."""
    return number + ("" if unit.startswith("/") else " ") + unit


def in_human_units(value: float, unit: str, digits: int = 2) -> str:
    """Return a value as people say it: 9.89 min, 36.90 h, 5.20 days; `n/a` if undefined."""
    if math.isnan(value):
        return "n/a"
    minutes = value * {"h": 60, "min": 1}.get(unit, math.nan)
    if minutes >= 120 * 60:
        value, unit = minutes / 60 / 24, "days"
    elif minutes >= 120:
        value, unit = minutes / 60, "h"
    return with_unit(show_number(float(value), "", digits), unit)


def line_of(label: str, value: str) -> str:
    """Return a line of the report: a label and its value in their columns."""
    return f"{label:<31} {value}"


def fold(line: str) -> List[str]:
    """Return a line as lines that fit the report; those after the first begin below its text."""
    if len(line) <= WIDTH:
        return [line]
    lead = re.match(r"[ •]*", line)
    indent = " " * (len(lead.group()) if lead else 0)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def join_folded(lines: Iterable[str]) -> str:
    """Return lines as one text, in which each fits the report."""
    return "\n".join(part for line in lines for part in fold(line))


def listed_lines(title: str, rows: Mapping[str, str]) -> List[str]:
    """Return a title and a line for each name and its value; nothing if there is none."""
    names = {name: f"  • {shorten_text(name, 45)}:" for name in rows}
    width = max([31, *map(len, names.values())])
    lines = [f"{names[name]:<{width}} {text}" for name, text in rows.items()]
    return ["", f"{title}:", *lines] if rows else []


def with_shares(counts: Mapping[str, int], whole: Optional[int] = None) -> Dict[str, str]:
    """Return the count of each name, with its share of the whole; nothing if that is nothing."""
    whole = sum(counts.values()) if whole is None else whole
    return {name: f"{n:,} ({show_percent(n, whole)})" for name, n in counts.items() if whole}


class Report(NamedTuple):
    """What a report is made from. A simulation has a `flow`, a seed and a scenario."""

    metrics: Metrics
    flow: Optional[pd.DataFrame] = None
    seed: Optional[int] = None
    scenario: Optional[Scenario] = None
    tried: Optional[Sequence[str]] = None  # recommendations that were tried, if any were
    trend: Optional[pd.DataFrame] = None
    commits_are_real: bool = False
    details: bool = False

    @property
    def advice(self) -> Sequence[str]:
        """The recommendations: those that were tried, or what follows from the metrics alone."""
        return plain_recommendations(self.metrics.values) if self.tried is None else self.tried

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened at all."""
        values = self.metrics.values
        return not len(self.metrics.history.deployments) and not values["total_commits"]


SOURCES = {
    "simulated": "SIMULATED: these are the numbers of no real team",
    "git": "MEASURED from the config repository (desired state, not what a cluster did)",
    "argocd": "MEASURED from what Argo CD keeps of its syncs",
    "tags": "MEASURED from the release tags of a repository",
    "files": "MEASURED from tables",
    SIMULATED_TABLES: "SIMULATED: these tables were written by a simulation",
}
"""What a report says of where its deployments come from, for each `source` of a history."""
LEAD_TIME_ENDS = {
    "git": "the commit to production",
    "argocd": "the end of its sync to production",
    "tags": "the release tag",
}
"""Where a lead time ends, if it is not the end of a deployment to production."""
NOTHING_HAPPENED = (
    "Nothing happened: there is no commit and no deployment. Choose more --days, or another --end."
)


def source_text(report: Report) -> str:
    """Return whether the deployments were simulated or measured, and from what."""
    source = report.metrics.history.source
    if source == "simulated" and report.commits_are_real:
        return "SIMULATED deployments of real commits"
    return SOURCES[source]


def window_text(window: Window) -> str:
    """Return the first and the last day of a window, and how many days it has."""
    days = count_text(window.days, "day")
    return f"{window.start:%Y-%m-%d} to {window.last:%Y-%m-%d} ({days}, UTC)"


def lead_time_way(history: History) -> str:
    """Return from where to where a lead time is measured."""
    if history.is_simulated:
        return "from a commit to the start of its production sync"
    begin, changes = "a commit", history.changes
    if history.source in ("git", "argocd"):
        versions = changes is not None and (changes["version"] != "").any()
        begin = "the first commit of a version" if versions else "a commit to the config repository"
    end = LEAD_TIME_ENDS.get(history.source, "the end of its production deployment")
    return f"from {begin} to {end}"


def value_text(key: str, metrics: Metrics) -> str:
    """Return a value of `metrics` as it is shown: a bound says so, and long times in days."""
    value, text = metrics.values[key], METRICS[key].text(metrics.values[key])
    measured = metrics.scope == PRODUCTION_ALONE and text != "n/a"
    names = {**DORA_NAMES, "overall_success_rate": FAIL_RATE}
    if measured and key in names and metrics.overall.at[names[key], "at_least"]:
        return f"{'at most' if key == 'overall_success_rate' else 'at least'} {text}"
    unit = METRICS[key].short_unit
    long = unit in ("min", "h") and value >= 120
    return f"{text} ({in_human_units(value, unit)})" if long else text


def value_lines(metrics: Metrics, keys: Sequence[str], **labels: str) -> List[str]:
    """Return a line for each key of the metrics: its label, or another one, and its value."""
    named = {key: f"{labels.get(key, METRICS[key].label)}:" for key in keys}
    return [line_of(label, value_text(key, metrics)) for key, label in named.items()]


def with_capitals(counts: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the same with a capital letter at the beginning of each name."""
    return {name[:1].upper() + name[1:]: count for name, count in counts.items()}


def coverage_lines(report: Report) -> List[str]:
    """Return what a real history covers: at most six lines, and every place in the details."""
    history = report.metrics.history
    if history.is_simulated:
        return []
    lines, coverage = [source_text(report), window_text(history.window)], history.coverage
    if history.production != "production":
        lines.append(f"{history.production} is taken for production: it is the last environment")
    if coverage is not None:
        counts = count_words(coverage["environment"])
        places = ", ".join(f"{name} ({count})" for name, count in counts.items())
        lines.append(f"Applications: {places}")
        some = coverage[coverage["lost"] > 0]
        if len(some):
            last = history.covered(history.production)["from"].max()
            days = max((history.window.end - last.ceil("D")).days, 0)
            lines.append(
                f"Lost: {some['lost'].sum():,} older entries in {len(some)} of {len(coverage)} "
                f"places; production is known as a whole for the last {count_text(days, 'day')}"
                + f" (--days {days})"
                * (days > 0)
            )
        unclassified = has_word(coverage["environment"], UNCLASSIFIED)
        named = sorted(set(coverage.loc[unclassified, "origin"]))
        if named:
            lines.append(
                f"Unclassified: {', '.join(named[:3])}{', ...' * (len(named) > 3)}; "
                "--environments or --environment-label says what they are"
            )
    lines += history.notes
    folded = [part for line in lines for part in fold(line)]
    if not report.details:
        more = f"and {len(folded) - 5} more lines with --details"
        return folded if len(folded) <= 6 else [*folded[:5], more]
    for row in () if coverage is None else coverage.head(1000).to_dict("records"):
        days = max((row["to"] - row["from"]).ceil("D").days, 1)
        lost = f", {row['lost']:,} lost before" * (row["lost"] > 0)
        origin = f"{shorten_text(row['origin'], 40)} ({row['rule']})"
        name = f"{shorten_text(str(row['application']), 18)} in {row['environment']}"
        folded += fold(f"  • {name}: {count_text(days, 'day')}{lost}, from {origin}")
    return folded


def git_lines(report: Report) -> List[str]:
    """Return the commits, their authors and types."""
    types = report.metrics.values["commit_types"].items()
    if not types and report.metrics.scope == PRODUCTION_ALONE:
        return []  # tables without commits are no repository without commits
    meanings = {name: f"{name} ({meaning})" for name, meaning in COMMIT_TYPES.items()}
    named = with_shares({meanings.get(name, name): n for name, n in types})
    lines = value_lines(report.metrics, ("total_commits", "contributors", "applications"))
    return lines + listed_lines("Commit Type Breakdown", named)


def deployment_lines(report: Report) -> List[str]:
    """Return the metrics of the seed, and where deployments and lead times went."""
    metrics, values, flow = report.metrics, report.metrics.values, report.flow
    keys = (
        "deployment_frequency", "total_deployments", "mean_lead_time", "median_lead_time",
        "change_failure_rate", "mttr_minutes",
    )  # fmt: skip
    lead = {f"{kind}_lead_time": f"{kind.capitalize()} Lead Time" for kind in ("mean", "median")}
    lines = value_lines(metrics, keys, **lead)
    counts = with_capitals(values["deployments_by_environment"])
    lines += listed_lines("Deployment Distribution", with_shares(counts))
    if flow is not None:
        kinds = {"Superseded by a newer one": "superseded", "In flight at the end": "in_flight"}
        if flow["held"].sum():
            kinds["Held by an approval gate"] = "held"
        sums = {label: f"{flow[kind].sum():,}" for label, kind in kinds.items()}
        lines += listed_lines("Releases Not Deployed", sums)
    ways, gates = {}, {}
    if report.scenario is not None:
        gates = {one.name: f", {stage_text(one)}" for one in report.scenario.environments}
    for name, hours in values["lead_time_hours_by_environment"].items():
        share = show_percent(hours, values["mean_lead_time"])
        if not math.isnan(hours):
            ways[f"Into {name}"] = f"{show_number(hours, ' hours')} ({share}){gates.get(name, '')}"
    return lines + listed_lines("Where the Lead Time Goes", ways)


def stage_text(environment: Environment) -> str:
    """Return the gate of an environment in words: its wait, train, hours, share and promotion."""
    meanings = {"each": "each release", "newest": "newest wins", "soak": "only what stays newest"}
    knobs = [
        f"after {in_words('wait_hours', environment.wait_hours)}"
        * (environment.wait_hours[-1] > 0),
        f"every {environment.release_every_hours:g} h" * (environment.release_every_hours > 0),
        str(environment.open_hours) * (environment.open_hours != "always"),
        count_text(len(environment.freezes), "freeze") * (len(environment.freezes) > 0),
        f"batch risk {environment.batch_risk:g}" * (environment.batch_risk > 0),
        f"{100 * environment.approval_rate:g} % pass" * (environment.approval_rate < 1),
        meanings[environment.promotion],
    ]
    return ", ".join(filter(None, knobs))


def rate_grade(value: float) -> Tuple[str, str]:
    """Return the icon and the colour of a success rate: good from 95 %, fair from 90 %."""
    if math.isnan(value):
        return "⚪", "#9aa5b1"
    if value >= 95:
        return "🟢", "#2e9e5b"
    return ("🟡", "#f2c230") if value >= 90 else ("🔴", "#d64545")


def success_lines(report: Report) -> List[str]:
    """Return the success rate of each environment, and of all that the verdict is about."""
    metrics, values = report.metrics, report.metrics.values
    counts, healthy = values["deployments_by_environment"], values["healthy_by_environment"]
    names = {name: shorten_text(name, 30) for name in counts}
    width = max(16, *map(len, names.values()))
    lines = []
    for name, rate in values["success_rates"].items():
        note = f"({healthy[name]:,}/{counts[name]:,} successful)"
        if counts[name] and math.isnan(rate):
            note = f"({count_text(counts[name], 'deployment')}, failures not observable)"
        elif not metrics.history.is_simulated:
            note = f"({counts[name] - healthy[name]:,}/{counts[name]:,} failed)"
        lines.append(
            f"{rate_grade(rate)[0]} {names[name]:<{width}} {show_number(rate, '%'):<7} {note}"
        )
    overall, total = value_text("overall_success_rate", metrics), values["total_deployments"]
    overall += f" ({total - values['failed_deployments']:,}/{total:,})"
    label = "Overall Success Rate" if metrics.scope == ALL_ENVIRONMENTS else "Production"
    return [*lines, "", line_of(f"{label}:", overall)]


def rollback_lines(report: Report) -> List[str]:
    """Return the rollbacks, and the main reasons of failures."""
    metrics, values = report.metrics, report.metrics.values
    keys = (
        "total_rollbacks", "successful_rollbacks", "failed_rollbacks", "rollback_success_rate",
        "failures_without_rollback",
    )  # fmt: skip
    times = ("average_rollback_minutes", "fastest_rollback_minutes", "slowest_rollback_minutes")
    backs = with_shares(with_capitals(values["rollbacks_by_environment"]))
    reasons = dict(list(values["failure_reasons"].items())[:3])
    return [
        *value_lines(metrics, keys),
        "",
        *value_lines(metrics, times),
        *listed_lines("Rollbacks by Environment", backs),
        *listed_lines("Main Failure Reasons", with_shares(reasons, values["failed_deployments"])),
    ]


def production_lines(report: Report) -> List[str]:
    """Return dora.dev's five metrics of production in two factors, beside the seed's names."""
    rows, history = report.metrics.production_rows, report.metrics.history
    names = {metric: f" ({METRICS[key].label})" for key, metric in DORA_NAMES.items()}
    names[FREQUENCY] = ""  # it is the same
    line, lines = "{:<41}{:>11}  {:<18}{:>8}".format, []
    for factor, keys in (("Throughput", THROUGHPUT), ("Instability", INSTABILITY)):
        lines.append(line(factor, "value", "95 % interval", "n"))
        for metric in keys:
            row = rows[metric]
            value = "≥ " * row.at_least + in_human_units(row.value, row.metric.unit)
            rest = (row.why, "") if math.isnan(row.value) else (row.interval, f"{row.n:,}")
            label = f"  {row.metric.label}{names.get(metric, '')}"
            lines.append(line(label, value, *rest).rstrip())
    shipped, over = rows[LEAD].open, rows[RECOVERY].open
    lines.append(f"Still open: {count_text(shipped, 'change')}, {count_text(over, 'failure')}")
    if history.source == "git":
        lines.append("A failure is one that was rolled back or reverted; a fix forward shows none.")
    if any(row.at_least for row in rows.values()):
        lines.append("≥ is a lower bound: not everything was seen.")
    return lines


def application_lines(report: Report) -> List[str]:
    """Return a line for each application in production, those deployed most first."""
    metrics, most = report.metrics, 1000 if report.details else 40
    if metrics.history.is_simulated and not report.details:
        return []
    rows = metrics.by_application
    ranked = sorted(rows, key=lambda name: -rows[name][FREQUENCY].n)
    heads = ("lead time", "frequency", "recovery", "fail rate")
    lines = ["{:<28}{:>13}{:>13}{:>13}{:>13}".format("", *heads)] if ranked else []
    for name in ranked[:most]:
        cells = [
            "≥ " * row.at_least + in_human_units(row.value, row.metric.unit)
            for row in (rows[name][key] for key in (LEAD, FREQUENCY, RECOVERY, FAIL_RATE))
        ]
        label = f"  • {shorten_text(name, 24)}"
        lines.append(f"{label:<28}" + "".join(f"{cell:>13}" for cell in cells))
    if len(ranked) > most:
        lines.append(f"  and {len(ranked) - most:,} more (--json has them all)")
    return lines


def quick_check_lines(report: Report) -> List[str]:
    """Return the Quick Check scores beside those of the industry."""
    if not report.details:
        return []
    scores = report.metrics.quick_check
    row = "  • {:<33} {:>4}   industry {}".format
    lines = ["From 0 to 10, of production alone; industry: the mean of all industries in 2025"]
    for name, industry in QUICK_CHECK_MEANS_2025.items():
        label = PRODUCTION_METRICS[name].label if name in PRODUCTION_METRICS else name.capitalize()
        lines.append(row(f"{label}:", show_number(scores[name], "", 1), industry))
    known = sum(not math.isnan(scores[metric]) for metric in PRODUCTION_METRICS)
    if known < len(PRODUCTION_METRICS):
        lines.append(f"The means are of the {known} metrics that have a score.")
    return lines


def trend_lines(report: Report) -> List[str]:
    """Return the metrics of production by week or month."""
    lines: List[str] = []
    for metric, rows in () if report.trend is None else report.trend.groupby("metric", sort=False):
        label, unit = PRODUCTION_METRICS[metric][:2]
        lines.append(f"{label} ({unit.replace('/', 'a ')})")
        head = f"{'value':>9}  {'95% interval':<19} {'n':>6}  change"
        lines.append(f"  {'from':<12}{head}")
        for number, row in enumerate(rows.to_dict("records")):
            interval = f"{show_number(row['low'])} to {show_number(row['high'])}"
            interval = "" if math.isnan(row["low"]) else interval
            note = "within noise"
            if not row["enough"]:
                note = row["why"] if math.isnan(row["value"]) else "too little data"
            elif number and math.isnan(row["change_low"]):
                note = "too little data before"
            elif row["differs"]:
                ends = f"{row['change_low']:+.2f} to {row['change_high']:+.2f}"
                note = f"{row['change']:+.2f} ({ends})"
            note = note if number or not row["enough"] else ""
            cells = f"{show_number(row['value']):>9}  {interval:<19} {row['n']:>6,}  {note}"
            lines.append(f"  {row['period']:%Y-%m-%d}  {cells}".rstrip())
        lines.append("")
    return lines[:-1]


def verdict_text(row: MetricRow, met: float) -> str:
    """Return whether a target is met, in the words of the seed."""
    target = TARGETS[row.key]
    shown = show_number(row.value, target.unit)
    if row.value >= 120 and target.unit in ("h", "min"):
        shown = in_human_units(row.value, target.unit)
    shown = "at least " * row.at_least + shown
    if math.isnan(met):
        return f"⚪ {shown} ({target} target, not judged)"
    if math.isnan(row.value):
        return f"✅ Elite ({target}; n/a: nothing to recover from)"
    if met:
        return f"✅ Elite ({target} achieved: {shown})"
    return f"❌ Needs Improvement ({target} target, actual: {shown})"


def production_text(metrics: Metrics) -> str:
    """Return what production alone comes to, where the verdict is on all environments."""
    rows = metrics.production_rows
    told = [
        f"{rows[FREQUENCY].text}",
        f"lead time {rows[LEAD].text} (median)",
        f"{rows[FAIL_RATE].why} ({rows[FAIL_RATE].text})",
    ]
    return f"Production alone: {', '.join(told)}"


def maturity_lines(report: Report) -> List[str]:
    """Return the verdict: its source, the four with what they are made of, level and advice."""
    metrics, history = report.metrics, report.metrics.history
    seed = "" if report.seed is None else f", seed {report.seed}"
    lines = [source_text(report), f"{window_text(history.window)}, {metrics.scope}{seed}", ""]
    for key, row in metrics.rows.items():
        label = f"{row.metric.label}:"
        lines.append(f"{label:<21} {verdict_text(row, metrics.met[key])}")
        way = f", {lead_time_way(history)}" * (label == "Lead Time:" and not math.isnan(row.value))
        lines.append(f"{'':<24}{row.why}{way}")
    if metrics.scope == ALL_ENVIRONMENTS and len(history.environments) > 1:
        lines.append(production_text(metrics))
    lines += ["", f"Performance Score: {score_text(metrics)}"]
    lines += ["", f"Maturity Level: {level_text(metrics)}", "", "Recommendations:"]
    for line in report.advice:
        lines.append(f"    {line.strip()}" if line.startswith(" ") else f"  • {line}")
    return lines


def score_text(metrics: Metrics) -> str:
    """Return how many benchmarks are met, of those that could be judged."""
    judged = len(metrics.met) - len(metrics.unjudged)
    if judged == len(metrics.met):
        return f"{metrics.score}/{judged} metrics meeting elite criteria"
    return f"{metrics.score} elite criteria met, {judged - metrics.score} missed"


def level_text(metrics: Metrics) -> str:
    """Return the maturity level with its icon, or why there is none."""
    if metrics.level is not None:
        return f"{metrics.level.icon} {metrics.level.name}"
    missing = ", ".join(METRICS[key].label for key in metrics.unjudged)
    return f"⚪ not assessable ({missing} not judged)"


REPORT: Dict[str, Callable[[Report], List[str]]] = {
    "📡 WHAT THIS HISTORY COVERS": coverage_lines,
    "📝 GIT ACTIVITY": git_lines,
    "🚀 DEPLOYMENT METRICS (DORA), {scope}": deployment_lines,
    "✅ SUCCESS RATES BY ENVIRONMENT": success_lines,
    "🔄 ROLLBACK SUMMARY": rollback_lines,
    "🎯 PRODUCTION, AS DORA DEFINES IT": production_lines,
    "📦 PRODUCTION BY APPLICATION": application_lines,
    "🎓 DORA QUICK CHECK": quick_check_lines,
    "📈 TREND OF PRODUCTION": trend_lines,
    "🏆 DORA MATURITY ASSESSMENT": maturity_lines,
}
"""The sections of the report, from top to bottom. One without a line is left out."""


def format_report(report: Report) -> str:
    """Return the console report: every section of REPORT; of an empty window, one sentence."""
    lines = [DOUBLE_LINE, "🔄 GITOPS WORKFLOW AUTOMATION REPORT", DOUBLE_LINE, ""]
    if report.is_empty:
        lines += [source_text(report), window_text(report.metrics.history.window)]
        return join_folded([*lines, NOTHING_HAPPENED, "", DOUBLE_LINE])
    for title, section in REPORT.items():
        found = section(report)
        if found:
            lines += [title.format(scope=report.metrics.scope.upper()), LINE, *found, ""]
    return join_folded([*lines, DOUBLE_LINE])


def metric_step_lines(metrics: Metrics) -> List[str]:
    """Return what the step that calculates the metrics prints."""
    frequency, lead, recovery, rate = SCOPES[metrics.scope]
    labels = {"mean_lead_time": "Mean Lead Time", "median_lead_time": "Median Lead Time"}
    return [
        f"  ✓ {labels.get(key, METRICS[key].label)}: {value_text(key, metrics)}"
        for key in (frequency, lead, rate, recovery)
    ]


def format_summary(report: Report) -> str:
    """Return the executive summary: the level, why and what next, and the tier."""
    metrics, level = report.metrics, report.metrics.level
    frequency, lead, recovery, rate = SCOPES[metrics.scope]
    labels = {"total_commits": "Total Git Commits", lead: "Median Lead Time"}
    if metrics.history.is_simulated:
        labels.update({lead: "Average Lead Time", "total_rollbacks": "Automated Rollbacks"})
    keys = (
        "total_commits",
        "total_deployments",
        "total_rollbacks",
        frequency,
        lead,
        rate,
        recovery,
    )
    labels = {key: f"  {labels.get(key, METRICS[key].label)}" for key in keys}
    lines = ["📊 EXECUTIVE SUMMARY:", *value_lines(metrics, keys, **labels)]
    lines.append(line_of("  Overall Maturity:", level.name if level else "not assessable"))
    for label, text in zip(("Why: ", "Next:"), why_and_next(report)):
        lines += [f"  {label} {textwrap.shorten(text, WIDTH - 8, placeholder='...')}"] * bool(text)
    if level is not None and metrics.history.is_simulated:
        lines += ["", f"🏆 Performance Tier: {level.tier}"]
    return join_folded(lines)


def why_and_next(report: Report) -> Tuple[str, str]:
    """Return the first gap and the change that closes it, as far as they are known."""
    first, *more = report.advice
    remedy = more[0].strip() if more and more[0].startswith(" ") else first.partition("; ")[2]
    return first.partition("; ")[0], remedy.partition(": ")[0]


def verdict_rows(metrics: Metrics) -> List[Dict[str, str]]:
    """Return the verdict on each of the four, as a notebook and Markdown show it."""
    marks = {1.0: "✅ yes", 0.0: "❌ no"}
    return [
        {
            "Metric": row.metric.label,
            "Value": row.text,
            "Made of": row.why,
            "Elite": TARGETS[key].words,
            "Met": marks.get(metrics.met[key], "⚪ n/a"),
        }
        for key, row in metrics.rows.items()
    ]


def as_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, also in the cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


def markdown_table(title: str, rows: Sequence[Mapping[str, str]]) -> List[str]:
    """Return a title and rows, which have the same columns, as a table; nothing without rows."""
    if not rows:
        return []
    cells = [list(rows[0]), ["---"] * len(rows[0])]
    cells += [list(map(as_markdown, row.values())) for row in rows]
    return [f"### {title}", "", *(f"| {' | '.join(row)} |" for row in cells), ""]


def format_markdown(report: Report) -> str:
    """Return one page: the verdict, production, environments, applications and the advice."""
    metrics, values = report.metrics, report.metrics.values
    lines = [f"## {as_markdown(level_text(metrics))}", ""]
    window = f"{window_text(metrics.history.window)}, {metrics.scope}"
    lines += [f"**{as_markdown(source_text(report))}**, {window}", ""]
    if report.is_empty:
        return "\n".join([*lines, NOTHING_HAPPENED, ""])
    lines += markdown_table("Verdict", verdict_rows(metrics))
    production = [
        {
            "Metric": row.metric.label,
            "Value": row.text,
            "95 % interval": row.interval,
            "Made of": row.why,
        }
        for row in metrics.production_rows.values()
    ]
    lines += markdown_table("Production", production)
    environments = [
        {
            "Environment": name,
            "Deployments": f"{count:,}",
            "Success": show_number(values["success_rates"][name], " %"),
        }
        for name, count in values["deployments_by_environment"].items()
    ]
    lines += markdown_table("Environments", environments)
    ranked = sorted(metrics.by_application.items(), key=lambda pair: -pair[1][FREQUENCY].n)
    applications = [
        {"Application": name, **{row.metric.label: row.text for row in rows.values()}}
        for name, rows in ranked[:20]
    ]
    lines += markdown_table("Applications", applications)
    lines += ["### Recommendations", ""]
    for line in report.advice:
        lines.append(
            "  - " * line.startswith(" ") + "- " * (line[:1] != " ") + as_markdown(line.strip())
        )
    return "\n".join([*lines, ""])


def format_html(report: Report) -> str:
    """Return the verdict as HTML for a notebook."""
    metrics = report.metrics
    title = html.escape(f"{level_text(metrics)}: {score_text(metrics)}")
    window = f"{window_text(metrics.history.window)}, {metrics.scope}"
    source = html.escape(f"{source_text(report)}, {window}")
    with pd.option_context("display.max_colwidth", None):
        table = pd.DataFrame(verdict_rows(metrics)).to_html(index=False, border=0)
    told = zip(("Why", "Next"), why_and_next(report))
    advice = "".join(f"<p>{label}: {html.escape(text)}</p>" for label, text in told if text)
    return f"<h4>{title}</h4><p>{source}</p>{table}{advice}"


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
    history, level = metrics.history, metrics.level
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
        "production": row_documents(metrics.production_rows),
        "applications": {
            name: row_documents(rows) for name, rows in metrics.by_application.items()
        },
        "quick_check": metrics.quick_check,
        "maturity": {
            "scope": metrics.scope,
            "level": None if level is None else level.name,
            "score": metrics.score,
            "of": len(metrics.met) - len(metrics.unjudged),
            "elite": {
                key: None if math.isnan(met) else met == 1 for key, met in metrics.met.items()
            },
            "not_assessable": metrics.unjudged,
            "lead_time": lead_time_way(history),
        },
        "flow": None if flow is None else flow.to_dict("index"),
    }
    if not history.is_simulated:
        document["notes"] = history.notes
        covered = history.coverage
        document["coverage"] = [] if covered is None else covered.to_dict("records")
    return to_jsonable(document)


def row_documents(rows: Mapping[str, MetricRow]) -> Dict[str, Dict[str, Any]]:
    """Return {metric: its fields}, the same for every metric."""
    return {metric: dict(zip(ROW, row[1:])) for metric, row in rows.items()}


def export_files(
    metrics: Metrics, document: Mapping[str, Any], trend: Optional[pd.DataFrame] = None
) -> Dict[str, bytes]:
    """Return the content of each file of an export: the tables as CSV, the numbers as JSON."""
    tables = {file: getattr(metrics.history, name) for name, file in TABLE_FILES.items()}
    tables["trend.csv"] = trend
    files = {file: as_csv(table) for file, table in tables.items() if table is not None}
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return {**files, "metrics.json": text.encode("utf-8", "replace")}


def as_csv(table: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8, with times in ISO 8601 (UTC)."""
    text = table.to_csv(index=False, date_format="%Y-%m-%dT%H:%M:%SZ")
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
    judged, left, name = 4 - len(metrics.unjudged), 0.0, NOT_ASSESSABLE
    score = f"{metrics.score} of {judged} elite targets met"
    if metrics.level is None:
        score = f"met {metrics.score} of the {judged} targets that can be judged"
    else:
        draw_medal(ax, metrics.level)
        left, name = 2.3, metrics.level.name
    ax.text(left, 8.95, name, fontsize=20, fontweight="bold", **mono)
    ax.text(left, 7.9, score, fontsize=12, color=MUTED, **mono)
    ax.plot([0, 10], [6.95, 6.95], color=GRID, linewidth=1.2)
    marks = {1.0: ("✓", GREEN), 0.0: ("✗", RED)}
    for y, key in zip((6.1, 4.4, 2.7, 1.0), metrics.rows):
        mark, colour = marks.get(metrics.met[key], ("?", GREY))
        circle = dict(boxstyle="circle,pad=0.25", facecolor=colour, edgecolor="none")
        ax.text(0.25, y - 0.3, mark, color="white", ha="center", bbox=circle, **mono)
        ax.text(0.8, y, METRICS[key].label, fontsize=13, **mono)
        ax.text(10, y, metrics.rows[key].text, ha="right", fontsize=14, fontweight="bold", **mono)
        ax.text(0.8, y - 0.7, card_verdict(key, metrics), fontsize=10, color=MUTED, **mono)
    return ax


def card_verdict(key: str, metrics: Metrics) -> str:
    """Return whether a benchmark is met, by which target, and what it is measured over."""
    if key in metrics.unjudged:
        return f"not assessable: {metrics.unjudged[key]}"
    target = TARGETS[key]
    verdict = "met" if metrics.met[key] else "missed"
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
        for number, key in enumerate(SCOPES[ALL_ENVIRONMENTS]):
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
    metric, (better, limit, unit) = METRICS[key], TARGETS[key]
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
    **{key: METRICS[key] for key in SCOPES[ALL_ENVIRONMENTS]},
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
    over = recovery_times(deployments, rollbacks)
    return Events(commits, deployments, rollbacks, over, window, runs, environments)


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
    known = headline_metrics(events)
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
    deployments, end = events.deployments, events.window.seconds[1]
    chosen = np.flatnonzero(deployments.bad)
    rows = pd.Series(np.where(deployments.bad, np.nan, np.arange(len(deployments.bad))))
    next_good = rows.groupby(deployments.place).bfill().fillna(-1).to_numpy(np.int64)[chosen]
    starts = np.where(next_good >= 0, deployments.time[next_good], NEVER)
    begin = deployments.end[chosen]
    over = np.minimum(np.minimum(events.recovered[chosen], starts), end)
    place = deployments.place[chosen]
    order = np.lexsort((begin, place))
    lift = number_runs(place[order]) * NEVER  # sets the places apart
    counted = np.append(0, np.maximum.accumulate(over[order] + lift))[:-1] - lift
    failed = np.maximum(over[order] - np.maximum(begin[order], counted), 0) / 3600
    return events.of_group(deployments, chosen[order], failed)


def level_counts(months: Months, calibration: Optional[Calibration] = None) -> Dict[str, int]:
    """Return how many months reach each level; none where a benchmark was not measured.

    A month in which a benchmark cannot be judged counts as NOT_ASSESSABLE, which is left out where
    there is no such month.
    """
    counts = dict.fromkeys((level.name for level in LEVELS), 0)
    if calibration is not None and {*calibration.assumed, *calibration.bounds} & set(
        SCOPES[ALL_ENVIRONMENTS]
    ):
        return {}
    judged = ~np.isnan(sum(judge_all(months).values()))
    known = sum(judge_all(months).values())[judged].astype(int)
    scores = np.bincount(known, minlength=5).tolist()
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
    for key in SCOPES[ALL_ENVIRONMENTS] if metric == "elite" else [metric]:
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
    open_ones = [key for key in SCOPES[ALL_ENVIRONMENTS] if target_odds(baseline, key)[1]]
    metric = metric or min(open_ones, key=lambda key: target_odds(baseline, key)[0])

    def values(own: Months) -> np.ndarray:
        if metric != "elite":
            return own[metric]
        return 100.0 * (sum(judge_all(own).values()) == 4)

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
    return int(np.count_nonzero((judge(metric, months) == 1) & known)), int(np.count_nonzero(known))


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
    reached = with_unit(f"{after:.1f}", TARGETS[metric].unit)
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
    value, target, label = values[key], TARGETS[key], METRICS[key].label
    if math.isnan(value):
        return f"{label} could not be measured"
    if math.isnan(judge(key, values)):
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
    if rates and math.isnan(judge("change_failure_rate", values)):
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
    missed = [key for key in SCOPES[ALL_ENVIRONMENTS] if judge(key, values) != 1]
    lines = [f"{target_gap(key, values)}; {CAUSES[key](values)}" for key in missed]
    return lines or ["None: all four targets are met"]


def tried_recommendations(metrics: Metrics, trial: Trial) -> List[str]:
    """Return the advice of the report.

    For each benchmark that is missed: by how much, the cause, and a simulated change that meets it.
    """
    values, lines = metrics.values, []
    missed = [key for key in SCOPES[ALL_ENVIRONMENTS] if judge(key, values) != 1]
    for key, line in zip([*missed, ""], plain_recommendations(values)):
        lines.append(line)
        if key and not math.isnan(values[key]) and not math.isnan(judge(key, values)):
            lines.append("  " + tried_line(key, metrics, trial))
    return lines


def tried_line(key: str, metrics: Metrics, trial: Trial) -> str:
    """Return what helps against a miss, or why nothing is recommended."""
    value, unit = metrics.values[key], TARGETS[key].unit
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
        metric, target = FORECAST_METRICS[key], TARGETS.get(key)
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
        target = TARGETS.get(key)
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
        why = [
            calibration.assumed[key]
            for key in SCOPES[ALL_ENVIRONMENTS]
            if key in calibration.assumed
        ]
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
        "git_commits": "simulate_git_activity() or load_git_history()",
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
    _whole: Any  # all of them
    _commits_are_real: bool
    flow: Optional[pd.DataFrame]  # what became of the releases (see `simulate_deployments`)
    measured: Any  # the Metrics that `metrics` is the dict of
    by: Optional[str]  # the period of the report's trend: week, month or none

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
        self.by = None
        self.printed_in: Optional[int] = None  # the notebook's cell that shows the report already
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

    def load_argocd_history(
        self,
        files: Sequence[Union[str, os.PathLike]],
        repo: Union[None, str, os.PathLike] = None,
        *,
        rules: EnvironmentRules = EnvironmentRules(),
        days: Optional[int] = None,
    ) -> pd.DataFrame:
        """Read real deployments in the place of the three simulations: the `deployments` table.

        `files` are JSON documents of Argo CD applications ("-" is standard input), `repo` is a
        clone of the config repository, `rules` tell the environment, `days` cut a window out. Next
        comes `calculate_dora_metrics()`. GitOpsError for a file that is none, naming the entry.
        """
        print_text("\n📡 Reading Argo CD history...")
        return self._take(load_argocd(files, repo, rules), days)

    def load_gitops_repository(
        self,
        repo: Union[str, os.PathLike],
        template: Optional[str] = None,
        environments: Union[None, str, Sequence[str]] = None,
        *,
        argocd: Sequence[Union[str, os.PathLike]] = (),
        rules: EnvironmentRules = EnvironmentRules(),
        days: Optional[int] = None,
    ) -> pd.DataFrame:
        """Read real deployments from a config repository's own history: the `deployments` table.

        See the function of this name. Where `argocd` files cover an application, its deployments,
        failures and rollbacks come from them. GitOpsError for what cannot be read.
        """
        print_text("\n📡 Reading the config repository's history...")
        template = template or find_template(repo)
        history = load_gitops_repository(repo, template, environments)
        if argocd:
            rules = dataclasses.replace(rules, stages=environments)
            history = join_histories(history, load_argocd(argocd, repo, rules, template))
        return self._take(history, days)

    def load_history(
        self,
        folder: Union[str, os.PathLike],
        environments: Union[None, str, Sequence[str]] = None,
        *,
        days: Optional[int] = None,
    ) -> pd.DataFrame:
        """Read a history from CSV files, such as an export: the `deployments` table.

        See `load_tables`. GitOpsError naming the file at fault.
        """
        print_text("\n📡 Reading the tables of a history...")
        history = load_tables(folder, environments)
        if history.is_simulated and days is None and self._end is None:
            return self._take_simulation(history, read_document(Path(folder) / "metrics.json"))
        source = SIMULATED_TABLES if history.is_simulated else history.source
        return self._take(history._replace(source=source), days)

    def _take_simulation(self, history: History, document: Mapping[str, Any]) -> pd.DataFrame:
        """Store a simulation that was read back, with the scenario and the seed that it had."""
        if not isinstance(document.get("scenario"), dict) or not at_path(document, "flow"):
            raise GitOpsError(
                "metrics.json has no scenario and flow of a simulation; export it anew"
            )
        self.scenario = Scenario.from_json(json.dumps(document["scenario"]))
        self.seed = check_whole("seed", document.get("seed"), 0, 2**63 - 1)
        self._store(git_commits=history.git_commits, window=history.window)
        self._commits_are_real = document.get("commits_are_real") is True
        self.flow = pd.DataFrame.from_dict(dict(at_path(document, "flow")), orient="index")
        self.deployments, self.rollbacks = history.deployments, history.rollbacks
        print_text(f"  ✓ Read {count_text(len(self.deployments), 'deployment')} of a simulation")
        return self.deployments

    def load_incidents(self, file: Union[str, os.PathLike]) -> pd.DataFrame:
        """Let incidents say which of the real deployments failed; return the incidents.

        See `with_incidents`. GitOpsError without real deployments, or naming the entry at fault.
        """
        if self._real is None:
            raise GitOpsError("incidents belong to real deployments: load a real history first")
        incidents = read_incidents(file)
        whole = with_incidents(self._whole, incidents)
        self._keep(whole if whole.window == self.window else whole.within(self.window), whole)
        print_text(f"  ✓ Read {count_text(len(incidents), 'incident')}")
        return incidents

    def _take(self, history: History, days: Optional[int]) -> pd.DataFrame:
        """Store the part of a real history that lies in the window that was asked for."""
        if days is not None or self._end is not None:
            end = self._end or history.window.end
            length = max((end - history.window.start).days, 1) if days is None else days
            self._keep(history.within(Window.before(end, length)), history)
        else:
            self._keep(history, history)
        rollbacks = count_text(len(self.rollbacks), "rollback")
        print_text(f"  ✓ Read {count_text(len(self.deployments), 'deployment')} and {rollbacks}")
        return self.deployments

    def _keep(self, history: History, whole: History) -> None:
        """Store a real history, and what it is a part of, in the place of a simulated one."""
        self._store(git_commits=history.git_commits, window=history.window)
        self.deployments, self.rollbacks = history.deployments, history.rollbacks
        self._real, self._whole = history, whole

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
        """Return what a notebook shows of this object: the verdict, or the step that comes next.

        The cell whose `main()` printed the report shows nothing more.
        """
        if self.printed_in is not None and self.printed_in == cell_number():
            return ""
        if self.metrics is None:
            step = next(name for name in self.STEPS if getattr(self, name) is None)
            return f"<p>GitOpsAutomation: call {self.STEPS[step]} next</p>"
        return format_html(self._report())

    def _report(self, details: bool = False) -> Report:
        """Return what the report is made from."""
        self._need("metrics")
        scenario = self.scenario if self._real is None else None
        usual = "week" if self.window.days <= 62 else "month"
        trend = self._trend(usual if details and self.by is None else self.by)
        advice = self._once("advice", self._advice)
        return Report(
            self.measured, self.flow, self.seed, scenario, advice, trend,
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
        trend = self._trend(self.by)
        if trend is not None:
            document["trend"] = to_jsonable(trend.to_dict("records"))
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


def cell_number() -> Optional[int]:
    """Return the number of the notebook's cell that runs this, None outside of a notebook."""
    return getattr(notebook_kernel(), "execution_count", None)


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
         "take the commits from this git repository, and simulate their deployments"),
    ],
    "your own deployments": [
        ("--deployments-from", dict(metavar="TEMPLATE", nargs="?", const=""),
         "measure the deployments that the history of --repo shows; TEMPLATE is a path with "
         "{environment} and {application} (default: a usual layout is looked for)"),
        ("--argocd", dict(metavar="FILE", nargs="+"),
         "measure what Argo CD recorded, in files that `argocd app list -o json` wrote (- is "
         "standard input); --repo is then the config repository"),
        ("--environment", dict(metavar="NAME"),
         "with --argocd: the environment of all applications (one Argo CD for each environment)"),
        ("--environment-label", dict(metavar="KEY"),
         "with --argocd: the label or annotation that names the environment"),
        ("--environment-pattern", dict(metavar="REGEX"),
         "with --argocd: a regular expression whose group finds the environment in the name"),
        ("--environments", dict(metavar="LIST"),
         "the environments in promotion order, as dev,staging,production=prod-*"),
        ("--history", dict(metavar="DIR"),
         "measure the tables in this folder, which --export wrote"),
        ("--incidents", dict(metavar="FILE"),
         "a CSV or JSON file of incidents (application, started, resolved), which say what "
         "deployments failed"),
    ],
    "over time": [
        ("--by", dict(choices=("week", "month")),
         "also show the metrics of production for each week or month"),
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
    real = {"argocd", "deployments_from", "history"} & given
    rules = [  # (options, whether they are out of place, why)
        ({"environment", "environment_label", "environment_pattern"}, not options.argocd,
         "needs --argocd FILE"),
        ({"deployments_from"}, options.repo is None, "needs --repo DIR"),
        ({"environments", "incidents"}, not real,
         "needs real deployments: --argocd, --deployments-from or --history"),
        ({"argocd", "repo", "deployments_from"}, options.history is not None,
         "has no meaning with --history"),
        ({"config", "alert_webhook"}, bool(real), "has no meaning with real deployments"),
        ({"alert_webhook"}, bool(options.what_if),
         "has no meaning with --what-if: nothing is rolled back"),
        ({"by"}, bool(options.what_if), "has no meaning with --what-if"),
        ({"levers", "backtest"}, bool(options.what_if), "has no meaning with --what-if"),
        ({"by", "alert_webhook", "backtest"}, options.levers is not None,
         "has no meaning with --levers"),
        ({"by"}, bool(options.backtest), "has no meaning with --backtest"),
        ({"backtest"}, not real,
         "needs real deployments: --argocd, --deployments-from or --history"),
        ({"step"}, options.levers is None, "needs --levers"),
        ({"details", "trace", "markdown"},
         bool(options.what_if or options.levers is not None or options.backtest),
         "has no meaning with a forecast"),
        ({"details", "markdown", "by"}, options.trace is not None,
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


def run_options(options: argparse.Namespace) -> Optional[GitOpsAutomation]:
    """Do what the command line asks for; return what it was done with, if anything was run."""
    check_options(options)
    scenario = Scenario()
    if options.config is not None:
        scenario = PRESETS.get(options.config) or read_scenario(options.config)
    if options.print_config:
        print_text(scenario.to_json())
        return None
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
    gitops.printed_in = cell_number()
    return gitops


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
    rules = EnvironmentRules(
        options.environment, options.environment_label, options.environment_pattern,
        options.environments,
    )  # fmt: skip
    days = None if whole else options.days
    if options.history is not None:
        gitops.load_history(options.history, options.environments, days=days)
    elif options.deployments_from is not None:
        gitops.load_gitops_repository(
            options.repo, options.deployments_from or None, options.environments,
            argocd=options.argocd or (), rules=rules, days=days,
        )  # fmt: skip
    elif options.argocd:
        gitops.load_argocd_history(options.argocd, options.repo, rules=rules, days=days)
    elif options.repo is not None:
        gitops.load_git_history(options.repo, days or 30)
    if options.incidents is not None:
        gitops.load_incidents(options.incidents)
    gitops.by = options.by


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
    print_text(format_summary(gitops._report()))
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


def main(argv: Union[None, str, Sequence[str]] = None) -> Optional[GitOpsAutomation]:
    """Run the program with some arguments, as `"--days 7"` or `["--days", "7"]`.

    They are those of the process by default; in a notebook none, as those are the kernel's. Returns
    the GitOpsAutomation that ran, which can be asked further. Raises SystemExit (in a notebook
    GitOpsError) only if something is wrong.
    """
    if notebook_kernel() is not None:
        try:
            options = parse_arguments(argv or [])
        except SystemExit:  # the help or the version was printed
            return None
        return run_options(options)
    try:
        try:
            return run_options(parse_arguments(argv))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
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
    return None


def run_command() -> None:
    """Run the program as the installed command, whose exit status must not be an object."""
    main()


if __name__ == "__main__":
    if notebook_kernel() is None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
