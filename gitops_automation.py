# @title GitOps delivery, simulated and measured with DORA { display-mode: "form" }
# /// script
# requires-python = ">=3.8"
# dependencies = ["numpy>=1.21", "pandas>=1.3", "matplotlib>=3.4", "seaborn>=0.11"]
# ///
"""Simulate a GitOps delivery pipeline, or read a real one, and measure it with the DORA metrics.

Commits flow through dev, staging and production as Argo CD would sync them, and failed syncs are
rolled back. A team's real deployments come from its config repository, Argo CD, tags or tables. A
what-if forecasts the same pipeline with other settings. Run this file, paste it into a cell of a
notebook, or import GitOpsAutomation from it.

The data is the architecture: the tables `git_commits`, `deployments` and `rollbacks` (`COLUMNS`).
A section produces them, simulated or from real history, or reads them. As the data flows:

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

A new stage is a row of `DEFAULT_ENVIRONMENTS`, a new setting a `knob`, a new number an entry of
`METRICS`, a new section of the report an entry of `REPORT`.

Times are UTC in whole seconds. A run depends on its seed, its window and its scenario alone. An
undefined number is NaN in Python, `n/a` in print and `null` in JSON.
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
from pathlib import Path
from typing import (
    IO,
    TYPE_CHECKING,
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

if "IPython" not in sys.modules and (
    __name__ == "__main__" or os.path.basename("".join(sys.argv[:1])) == "gitops-automation"
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the packages load ends quietly
    gc.disable()  # and what they load is no garbage; `run_command` takes both back

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # matplotlib and seaborn are imported where a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__version__ = "3.0.0"
# fmt: off
__all__ = [
    "GitOpsAutomation", "GitOpsError", "Scenario", "Team", "Environment", "RollbackPolicy",
    "History", "Metrics", "Window", "PRESETS",
    "load_gitops_repository", "load_release_tags", "load_argocd", "join_histories", "load_tables",
    "read_incidents", "with_incidents",
    "measure", "calculate_maturity", "calibrate", "backtest",
]
# fmt: on

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
        return self.coverage[self.coverage["environment"] == environment]

    def changes_to(self, environment: str) -> pd.DataFrame:
        """Return the rows of `changes` for one environment."""
        assert self.changes is not None
        return self.changes[self.changes["environment"] == environment]

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


def as_table(name: str, columns: Union[pd.DataFrame, Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table with its columns in order, each of its kind. Every table comes through here.

    Raises GitOpsError for a missing column or a value of another kind.
    """
    data = {}
    for column, kind in ALL_COLUMNS[name].items():
        if column not in columns:
            needed = ", ".join(ALL_COLUMNS[name])
            raise GitOpsError(f"table {name} has no column {column!r}; it needs {needed}")
        try:
            data[column] = READERS[kind](columns[column])
        except (ValueError, TypeError, OverflowError) as error:
            problem = f"table column {name}.{column} does not hold {kind} values"
            raise GitOpsError(f"{problem}: {one_line(error)}") from None
    return pd.DataFrame(data, copy=False)


def as_words(values: Any) -> pd.Categorical:
    """Return a categorical column whose categories are strings."""
    if isinstance(values, pd.Categorical):
        return values
    words = pd.Categorical(values)
    return words.rename_categories(pd.Index([str(word) for word in words.categories], dtype=object))


def as_times(values: Any) -> Any:
    """Return UTC times in nanoseconds, from times of any kind or from seconds since 1970."""
    if isinstance(values, np.ndarray) and values.dtype == np.int64:
        return utc_times(values).where(values != MISSING)
    times = pd.Series(pd.to_datetime(np.asarray(values), utc=True))
    return times.astype("datetime64[ns, UTC]").array


READERS: Dict[str, Callable[[Any], Any]] = {  # {kind of a column: how its values are read}
    "time": as_times,
    "word": as_words,
    "text": lambda values: pd.Series(np.asarray(values), dtype=object),
    "count": lambda values: pd.Series(np.asarray(values), dtype="int64"),
    "number": lambda values: pd.Series(np.asarray(values), dtype="float64"),
    "flag": lambda values: pd.Series(np.asarray(values), dtype="bool"),
}


def utc_times(seconds: np.ndarray) -> pd.DatetimeIndex:
    """Return seconds since 1970 as times."""
    return pd.DatetimeIndex((seconds * 1_000_000_000).view("M8[ns]")).tz_localize("UTC")


def seconds_of(times: Union[pd.Series, pd.DatetimeIndex]) -> np.ndarray:
    """Return times as whole seconds since 1970. The layers calculate with these: they are exact."""
    return times.to_numpy("M8[ns]").view("int64") // 1_000_000_000


def word_column(codes: np.ndarray, words: Sequence[str]) -> pd.Categorical:
    """Return a categorical column from positions in a list of words."""
    return pd.Categorical.from_codes(codes, pd.Index(words, dtype=object))


def codes_of(column: pd.Series, words: Union[Sequence[str], pd.Series]) -> np.ndarray:
    """Return the position of each value in `words`, -1 where it is none of them."""
    if not column.cat.categories.equals(pd.Index(words)):  # spares a hash table of a million keys
        column = column.cat.set_categories(words)
    return column.cat.codes.to_numpy(np.int64)


def count_words(column: pd.Series) -> Dict[str, int]:
    """Count each word of a categorical column: most frequent first, then by name."""
    counts = sorted(column.value_counts().items(), key=lambda pair: (-pair[1], pair[0]))
    return {word: count for word, count in counts if count}


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


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shorten_text(text: str, width: int) -> str:
    """Return the beginning and the end of a text that is too long: both tell names apart."""
    if len(text) <= width:
        return text
    return text[: width // 2] + "…" + text[len(text) - (width - width // 2 - 1) :]


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

Range = Tuple[float, ...]  # a distribution by its evenly spaced quantiles; of two it is uniform
Shares = Mapping[str, float]  # a weight for each name; weights need not sum to one
Week = Sequence[float]  # seven numbers, Monday first
Dates = Sequence[Sequence[str]]  # spans of days, the first and the last of each
Hours = Union[str, Tuple[float, ...]]  # words, or how open each hour of the week is (1: as usual)
Name = str  # a short printable text
Zone = str  # the IANA name of a time zone
Pipeline = Tuple["Environment", ...]

PROMOTIONS = ("each", "newest", "soak")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
OPENING = re.compile(
    "(?:({0})(?:-({0}))? )?{1}-{1}".format("|".join(WEEKDAYS), r"([0-9]{1,2})(?::([0-5][0-9]))?")
)
SPEED = ("mean_lead_time", "deployment_frequency")  # the metrics that a shorter way improves


def check_that(is_right: Any, name: str, rule: str, value: Any) -> None:
    """Raise GitOpsError unless a value is right. It names value and rule."""
    if not is_right:
        raise GitOpsError(f"{name} must {rule}, not {in_quotes(value)}")


def as_knob(kind: str, name: str, value: Any, low: float = 0, high: float = 1e6) -> Any:
    """Return a text, or a value of Python or JSON, as a knob of one of the `KNOB_KINDS`.

    Its numbers lie from `low` to `high`. A value that is none is a GitOpsError with the rule.
    """
    rule, convert = KNOB_KINDS[kind]
    made = None
    with contextlib.suppress(AttributeError, TypeError, LookupError, ValueError, OSError):
        made = convert(value, low, high)
    check_that(made is not None, name, rule.format(low=low, high=high), value)
    return made


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """Return a whole number between two bounds; GitOpsError if it is none."""
    is_whole = isinstance(value, (int, np.integer)) and low <= value <= high
    check_that(is_whole, name, f"be a whole number from {low} to {high}", value)
    return int(value)


def check_one_of(name: str, value: Any, words: Iterable[str]) -> None:
    """Raise GitOpsError unless a value is one of some words. It names them and the nearest."""
    if value not in words:
        near = ", ".join(difflib.get_close_matches(str(value), words, 1))
        rule = f"be one of {', '.join(words)}" + f" (did you mean {near}?)" * bool(near)
        check_that(False, name, rule, value)


def to_numbers(value: Any, low: float, high: float, count: int = 0) -> Tuple[float, ...]:
    """Return the numbers of a list, a text such as `4:12`, or one number; ValueError for others."""
    value = value.split(":") if isinstance(value, str) else value
    parts = list(value) if np.iterable(value) else [value]
    numbers = tuple(int(one) if isinstance(one, (int, np.integer)) else float(one) for one in parts)
    inside = all(low <= number <= high for number in numbers)
    if not inside or len(numbers) != (count or max(len(numbers), 1)):
        raise ValueError
    return numbers


def to_number(value: Any, low: float, high: float) -> float:
    """Return one number; ValueError for others."""
    return to_numbers(value, low, high, 1)[0]


def to_range(value: Any, low: float, high: float) -> Optional[Range]:
    """Return a range. One number is where it begins and where it ends."""
    numbers = to_numbers(value, low, high)
    numbers = numbers * 2 if len(numbers) == 1 else numbers
    return numbers if list(numbers) == sorted(numbers) else None


def to_shares(value: Any, low: float, high: float) -> Optional[Dict[str, float]]:
    """Return a weight for each name."""
    names = [as_knob("Name", "a name", name) for name in value]
    weights = [to_number(weight, low, high) for weight in value.values()]
    return dict(zip(names, weights)) if sum(weights) > 0 else None


def to_dates(value: Any, low: float, high: float) -> Optional[Tuple[Tuple[str, str], ...]]:
    """Return spans of days, from pairs or a text such as `2026-12-20:2027-01-04,2026-04-03`."""
    if isinstance(value, str):
        value = [(span.strip().split(":") * 2)[:2] for span in value.split(",")]
    spans = []
    for begin, end in value:
        first, last = (_dt.datetime.strptime(day, "%Y-%m-%d") for day in (begin, end))
        if not 1970 <= first.year <= last.year < 2200 or first > last:
            return None
        spans.append((f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"))
    return tuple(spans)


def opening_minutes(hours: Hours) -> List[Tuple[int, int, int]]:
    """Return (weekday, first minute, minute after the last) of each opening of a week, in order.

    Raises ValueError for a text that says no hours.
    """
    if not isinstance(hours, str):
        some = (divmod(hour, 24) for hour, weight in enumerate(hours) if weight > 0)
        return [(day, 60 * hour, 60 * hour + 60) for day, hour in some]
    if hours == "always":
        return [(day, 0, 24 * 60) for day in range(7)]
    found = []
    for first, last, hour, minute, last_hour, last_minute in OPENING.findall(hours):
        begin = int(hour) * 60 + int(minute or 0)
        over = int(last_hour) * 60 + int(last_minute or 0)
        day = WEEKDAYS.index(first or "Mon")
        days = (WEEKDAYS.index(last or first or "Sun") - day) % 7 + 1
        found += [((day + more) % 7, begin, over) for more in range(days)]
    are_hours = re.fullmatch(f"{OPENING.pattern}( {OPENING.pattern})*", hours)
    if not are_hours or any(not begin < over <= 24 * 60 for _, begin, over in found):
        raise ValueError
    return sorted(found)


def to_hours(value: Any, low: float, high: float) -> Optional[Hours]:
    """Return opening hours, or the weight of each hour of a week."""
    hours = value if isinstance(value, str) else to_numbers(value, low, high, 7 * 24)
    return hours if opening_minutes(hours) else None


def to_pipeline(value: Any, low: float, high: float) -> Optional[Tuple[Environment, ...]]:
    """Return the environments of a scenario."""
    stages = tuple(value)
    names = {stage.name for stage in stages if isinstance(stage, Environment)}
    is_right = 1 <= len(names) == len(stages) <= 50 and not names & {"team", "rollback"}
    return stages if is_right else None


# fmt: off
KNOB_KINDS: Dict[str, Tuple[str, Callable[..., Any]]] = {
    # the kind of a knob: (what a value must do, how it is converted: to None if it is wrong)
    "float": ("be a number from {low:g} to {high:g}", to_number),
    "int": (
        "be a whole number from {low} to {high}",
        lambda *given: None if to_number(*given) % 1 else int(to_number(*given))),
    "Range": ("be numbers from {low:g} to {high:g} in order, such as 2:6 or [2, 6]", to_range),
    "Week": (
        "be seven numbers from {low:g} to {high:g}, Monday first",
        lambda value, low, high: to_numbers(value, low, high, 7)),
    "Shares": ('give weights to names, such as {{"shop": 2, "api": 1}}', to_shares),
    "Dates": (
        "be spans of days from 1970 to 2199, such as 2026-12-20:2027-01-04 or "
        '[["2026-12-20", "2027-01-04"]]', to_dates),
    "Hours": (
        "be always, days with hours such as 'Mon-Fri 9-17', or 168 weights", to_hours),
    "Zone": (
        "be an IANA name such as Europe/Berlin",
        lambda name, *_: name if pd.Timestamp("2026-01-01", tz=str(name)) else None),
    "Name": (
        "be a short printable name",
        lambda text, *_: text if text == one_line(text, NAME_WIDTH) else None),
    "Team": ("be a Team", lambda team, *_: team if isinstance(team, Team) else None),
    "RollbackPolicy": (
        "be a RollbackPolicy", lambda one, *_: one if isinstance(one, RollbackPolicy) else None),
    "Pipeline": (
        "be 1 to 50 environments, each with a name of its own other than team and rollback",
        to_pipeline),
}
# fmt: on


def knob(default: Any = dataclasses.MISSING, low: float = 0, high: float = 1e6, **said: Any) -> Any:
    """Declare a knob: a dataclass field with the bounds of its numbers, and what is said of it.

    `help` explains it, `one_of` lists its words. `helps` names the metrics that a change for the
    better improves. `phrase` says that change, with {environment}, {before} and {after}, and
    `practice` how teams bring it about.
    """
    metadata = dict(low=low, high=high, **said)
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


class Knobs:
    """A group of knobs, checked when it is made: a frozen dataclass with fields made by `knob`."""

    label = ""  # what messages and changes call the group

    def __post_init__(self) -> None:
        self._set(vars(self).copy())

    def _set(self, values: Mapping[str, Any]) -> None:
        """Store values by name, each as it was declared; GitOpsError for one that cannot be."""
        known = type(self).__dataclass_fields__  # type: ignore[attr-defined]
        check_that(isinstance(values, Mapping), self.label, "be a JSON object", values)
        for name, value in values.items():
            if name not in known:
                problem = f"unknown key {in_quotes(name)} in {self.label or 'the configuration'}"
                raise GitOpsError(f"{problem}; known keys: {', '.join(known)}")
            path, said = f"{self.label}.{name}".lstrip("."), known[name].metadata
            if "one_of" in said:
                check_one_of(path, value, said["one_of"])
            value = as_knob(known[name].type, path, value, said.get("low", 0), said.get("high", 0))
            object.__setattr__(self, name, value)

    def replaced(self, values: Mapping[str, Any]) -> Any:
        """Return a copy with other values; GitOpsError for a knob that there is not."""
        copied = copy.copy(self)
        copied._set(values)
        return copied


# fmt: off
@dataclass(frozen=True)
class Team(Knobs):
    """Who commits what, and when."""

    label = "team"
    authors: Shares = knob(dict(alice=1, bob=1, charlie=1, diana=1), help="a weight for each name")
    types: Shares = knob(
        dict(feat=0.40, fix=0.30, chore=0.15, refactor=0.10, perf=0.05),
        help="a weight for each commit type")
    applications: Shares = knob(
        dict(frontend=0.40, backend=0.35, database=0.25), help="a weight for each application")
    branch: Name = knob("main", help="the name of the branch")
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

    name: Name = knob(help="any name but team and rollback; the last environment is production")
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
        (30, 120), 0, 1e9, help="how long a sync takes", helps=SPEED,
        phrase="Shorten {environment} syncs from {before} to {after}",
        practice="smaller images, faster readiness probes")
    promotion: Name = knob(
        "newest", one_of=PROMOTIONS, help="`each`, `newest` or `soak` (see the model)")
    approval_rate: float = knob(
        1.0, 0, 1, help="probability that a release passes the gate", helps=SPEED,
        phrase="Approve {after} of the {environment} releases instead of {before}",
        practice="automated checks in the place of a manual gate")
    release_every_hours: float = knob(
        0.0, help="a release train, counted from the week's first opening; 0 is none",
        helps=SPEED, phrase="Release to {environment} every {after} instead of every {before}",
        practice="release on demand, or smaller trains")
    open_hours: Hours = knob(
        "always",
        help="when releases may go up, such as `Mon-Fri 9-17` or `Mon-Thu 9-17 Fri 9-12`, or a "
        "weight for each of the 168 hours of the week, Monday 0:00 first",
        helps=SPEED, phrase="Open {environment} around the clock instead of {before}",
        practice="automated checks in the place of people on duty")
    freezes: Dates = knob(
        (), help="spans of days in which nothing goes up, such as `2026-12-20:2027-01-04`")
    batch_risk: float = knob(
        0.0, 0, 1, help="how far each change of a deployment brings its own risk (see the model)",
        helps=("change_failure_rate", "deployment_frequency"),
        phrase="Cut the {environment} batch risk from {before} to {after}",
        practice="feature flags, tests of each change alone")
    starts: Name = knob(
        "stage", one_of=("stage", "commit"), help="follows the `stage` before, or its `commit`")
    wait_runs: Name = knob(
        "always", one_of=("always", "open"),
        help="whether the wait passes `always`, or while it is `open` alone, by the hour's weight")

    @property
    def label(self) -> str:  # type: ignore[override]
        """The name of the environment, also before it is checked."""
        return one_line(self.name, 60)


@dataclass(frozen=True)
class RollbackPolicy(Knobs):
    """How a failed deployment is taken back."""

    label = "rollback"
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
    environments: Pipeline = DEFAULT_ENVIRONMENTS
    rollback: RollbackPolicy = field(default_factory=RollbackPolicy)
    failure_reasons: Shares = knob(DEFAULT_REASONS, help="a weight for each text")

    @property
    def names(self) -> List[str]:
        """The names of the environments in promotion order."""
        return [environment.name for environment in self.environments]

    @property
    def groups(self) -> Dict[str, Knobs]:
        """The groups of knobs by the name that changes give them: team, rollback, environments."""
        stages = {environment.name: environment for environment in self.environments}
        return {"team": self.team, "rollback": self.rollback, **stages}

    def with_knobs(self, group: str, **changes: Any) -> Scenario:
        """Return a copy with other knobs in one of the `groups`; GitOpsError if there is none."""
        if group not in self.groups:
            check_one_of("environment", group, self.names)
        changed = {**self.groups, group: self.groups[group].replaced(changes)}
        team, rollback, *environments = changed.values()
        return self.replaced(dict(team=team, rollback=rollback, environments=environments))

    with_environment = with_knobs
    with_team = functools.partialmethod(with_knobs, "team")
    with_rollback = functools.partialmethod(with_knobs, "rollback")

    def to_json(self) -> str:
        """Return the scenario as a JSON document that `from_json` reads back to an equal one.

        It is ASCII, as a shell may write it to a file in any encoding.
        """
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str, base: Optional[Scenario] = None) -> Scenario:
        """Read a JSON document. What it leaves out stays as in `base`, the default scenario.

        `environments` is the whole pipeline in order. What is left out of an environment that the
        base has stays too. Raises GitOpsError for what is unknown or out of range.
        """
        base = cls() if base is None else base
        try:
            values = json.loads(text)
        except ValueError as error:
            why = "it looks like YAML" if looks_like_yaml(text) else error
            problem = f"the configuration is not JSON: {why}"
            raise GitOpsError(f"{problem}; --config alone prints one that is") from None
        check_that(isinstance(values, dict), "the configuration", "be a JSON object", values)
        for key in {"team", "rollback"} & set(values):
            values[key] = base.groups[key].replaced(values[key])
        listed = values.get("environments", [])
        named = isinstance(listed, list) and all(
            isinstance(own, dict) and "name" in own for own in listed
        )
        check_that(named, "environments", 'be a list such as [{"name": "dev"}]', listed)
        for number, own in enumerate(listed):
            known = [stage for stage in base.environments if stage.name == own["name"]]
            listed[number] = (known or [Environment("new")])[0].replaced(own)
        return base.replaced(values)


def read_scenario(path: FilePath, base: Optional[Scenario] = None) -> Scenario:
    """Read a scenario from a JSON file (see `from_json`); GitOpsError that names the file."""
    presets = f"presets are {', '.join(PRESETS)}"
    text = read_text(path, f"--config alone prints one to begin with, and {presets}")
    try:
        return Scenario.from_json(text, base)
    except GitOpsError as error:
        raise GitOpsError(f"{one_line(path)}: {error}") from None


# fmt: off
PRESETS: Dict[str, Scenario] = {
    "gitops": Scenario(),
    # Each change of a batch brings its own risk ("Working in small batches", dora.dev).
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
        # someone is called, and redeploys the last good build by hand
        rollback=RollbackPolicy(duration_min=(60, 480)),
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
        groups = scenario.groups.items()
        known = [
            f"{name}.{knob}" for name, group in groups for knob in vars(group) if knob != "name"
        ]
        if path not in known:
            alike = ", ".join(difflib.get_close_matches(path, known, 4) or known[:4])
            problem = f"unknown change {in_quotes(change)}; the nearest knobs are {alike}"
            raise GitOpsError(f"{problem} (README.md lists all)")
        group, _, name = path.rpartition(".")
        new: Any = value
        if value.startswith("*"):
            with contextlib.suppress(ValueError, TypeError):  # then the knob tells what it takes
                old = getattr(scenario.groups[group], name)
                new = np.multiply(old, float(value[1:])).tolist()
        scenario = scenario.with_knobs(group, **{name: new})
    return scenario


# All noise is uniform on 0..1, and every layer is a deterministic function of it. So two scenarios
# under one seed differ by their knobs alone, and no sampler of numpy can change between versions.


class Noise:
    """The noise of one simulation, or of one block of months. All scenarios share what is drawn."""

    def __init__(self, seed: int, *block: int) -> None:
        self._seed, self._block = seed, block
        self._drawn: Dict[Tuple[str, int], np.ndarray] = {}

    def stream(self, layer: str, *parts: int) -> np.random.Generator:
        """Return the random stream of a layer, from integer seeds: numpy 1.21 has no spawn()."""
        number = ("commits", "deployments", "rollbacks").index(layer)
        seeds = [self._seed, number, *([*parts, *self._block] or [0])]
        return np.random.Generator(np.random.PCG64(seeds))

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
# fmt: off
SUBJECTS = {
    "feat": ("add search filters", "support bulk import", "show live status", "add audit trail"),
    "fix": ("handle empty response", "close stale connections", "correct time zone",
            "retry on timeout"),
    "chore": ("update dependencies", "bump base image", "rotate certificates", "tidy manifests"),
    "refactor": ("extract client", "simplify validation", "split module", "remove dead code"),
    "perf": ("cache hot queries", "batch requests", "add missing index", "avoid copies"),
    "other": ("update configuration", "revise defaults", "adjust limits", "clean up"),
}
# fmt: on


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


Draws = Sequence[Tuple[Scenario, int]]
"""Scenarios that are possible given some data, and how many of the months live in each."""


def months_of_draws(draws: Draws) -> np.ndarray:
    """Return the first month of each draw, and the end."""
    return np.cumsum([0, *(months for _, months in draws)])


def simulate_commits(draws: Draws, window: Window, stream: np.random.Generator) -> Commits:
    """Simulate the commits of the months of `Draws`. A month has the days of the window.

    A month is a group. The teams of the draws differ only in how much they commit.
    """
    team, months = draws[0][0].team, months_of_draws(draws)
    first, end = window.seconds
    around = int(team.time_zone != "UTC")  # a local day may begin or end on another day of UTC
    days = np.arange(first // DAY - around, end // DAY + around)
    luck = stream.random((months[-1], len(days)))
    counts = np.zeros(luck.shape, np.int64)
    cycle = np.arange(7 * team.sprint_days)
    rise = np.linspace(-0.5, 0.5, team.sprint_days)[cycle % team.sprint_days]
    for (scenario, _), begin, over in zip(draws, months, months[1:]):
        factors = np.take(scenario.team.weekday_factors, cycle % 7)
        ramped = factors * (1 + team.sprint_ramp * rise)
        level = factors.sum() / max(ramped.sum(), 1e-300)
        rates = scenario.team.commits_per_day * ramped * level
        rate_of_day = rates[(days - MONDAY // DAY) % len(cycle)]
        for rate in np.unique(rate_of_day):
            distribution, same = count_distribution(rate, team.dispersion), rate_of_day == rate
            drawn = luck[begin:over, same]
            counts[begin:over, same] = np.searchsorted(distribution, drawn, side="right")
    month = np.repeat(np.arange(months[-1]), counts.sum(axis=1))
    midnight = np.repeat(np.tile(days * DAY, months[-1]), counts.ravel())
    hour = quantile_at(team.work_hours, stream.random(len(month)))
    second = np.minimum(hour * 3600, DAY - 1).astype(np.int64)
    time = utc_of_local(midnight + second, team.time_zone)
    if around:
        inside = (time >= first) & (time < end)
        month, time = month[inside], time[inside]
    time = np.sort(month * NEVER + time) - month * NEVER  # sorted within each month
    return Commits(month, time, draw_shares(team.applications, stream.random(len(month))))


def utc_of_local(seconds: np.ndarray, zone: Zone) -> np.ndarray:
    """Return UTC seconds of the local times of a zone, both counted from 1970.

    Daylight saving skips some local times: each becomes the next that exists. Others come twice:
    each is the first of the two.
    """
    if zone == "UTC":
        return seconds
    times = utc_times(seconds).tz_localize(None)
    return seconds_of(times.tz_localize(zone, np.ones(len(times), bool), "shift_forward"))


def count_distribution(mean: float, dispersion: float) -> np.ndarray:
    """Return the cumulative probabilities of 0, 1, 2, ... commits in a day.

    The count is Poisson with a gamma-distributed mean (negative binomial): its variance is
    `dispersion` times its mean. It is calculated in logarithms, as p(0) underflows for a large one.
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
    types, applications = draw_shares(team.types, kind), list(team.applications)
    heads = [[f"{type_}({application}): " for application in applications] for type_ in team.types]
    subjects = [SUBJECTS.get(type_, SUBJECTS["other"]) for type_ in team.types]
    messages = np.array(heads, object)[:, :, None] + np.array(subjects, object)[:, None, :]
    # one hash of the seed and the times is cut into the 40 digits of each commit
    digest = hashlib.shake_128(str(seed).encode() + commits.time.astype("<i8").tobytes())
    digits = digest.hexdigest(20 * len(commits.time))
    shas = np.array([digits[at : at + 40] for at in range(0, len(digits), 40)], object)
    return as_table(
        "git_commits",
        {
            "sha": shas,
            "timestamp": commits.time,
            "author": word_column(draw_shares(team.authors, author), list(team.authors)),
            "type": word_column(types, list(team.types)),
            "application": word_column(commits.application, applications),
            "branch": word_column(np.zeros(len(types), np.int8), [team.branch]),
            "message": messages[types, commits.application, (subject * 4).astype(np.int8)],
            # geometric with mean 4: most changes are small, a few are wide
            "files_changed": np.ceil(np.log1p(-files) / np.log(0.75)).astype(np.int64).clip(1),
        },
    )


# ---- Deployment engine: commits -> deployments --------------------------------------------------

OUTCOME, WAIT, DURATION, APPROVAL = range(4)  # the rows of a stage's noise
FLOW = {"deployed": 4, "superseded": 2, "held": 1, "in_flight": 3}
"""What becomes of a release in a stage, and how far it comes (see `run_stage`)."""


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

    @property
    def place(self) -> np.ndarray:
        """A number for the place of each, where it replaces the release that was there before."""
        place = self.group
        for code in (self.application, self.environment):
            place = place * (1 + int(code.max(initial=0))) + code
        return place


def run_pipeline(
    commits: Commits, draws: Draws, window: Window, noise: Noise
) -> Tuple[Deployments, np.ndarray, List[np.ndarray]]:
    """Take commits through every environment: the model.

    A group of the commits is a month of the draws, in order. Returns the deployments, the luck of
    each, and for each environment how far the releases came (see `run_stage`).
    """
    lineage = commits.lineage
    small = np.min_scalar_type(int(lineage.max(initial=0)))  # numpy sorts small integers by radix
    order = np.argsort(lineage.astype(small), kind="stable")
    lineage, committed = lineage[order], commits.time[order]
    lineage = np.cumsum(np.diff(lineage, prepend=lineage[:1]) != 0)  # 0, 1, 2, ...
    edges = np.searchsorted(commits.group[order], months_of_draws(draws))
    arrival, syncs, reach = committed, [], []
    for number in range(len(draws[0][0].environments)):
        drawn = [scenario.environments[number] for scenario, _ in draws]
        rows = 3 + any(environment.approval_rate < 1 for environment in drawn)
        drawn_noise = noise.of("deployments", number, rows, len(order))
        if drawn[0].starts == "commit":
            arrival = committed
        gate = Gate.of(drawn[0], draws[0][0].team.time_zone, window)
        pieces = [
            run_stage(one, arrival[low:high], lineage[low:high], drawn_noise[:, low:high], gate)
            for one, low, high in zip(drawn, edges, edges[1:])
        ]
        start, end, luck, came = map(np.concatenate, zip(*pieces)) if len(pieces) > 1 else pieces[0]
        reach.append(came)
        row = np.flatnonzero(came == FLOW["deployed"])
        syncs.append((order[row], start[row], end[row], luck[row], np.full(len(row), number)))
        arrival = np.where((came == FLOW["deployed"]) & (luck < 0), end, NEVER)
    commit, start, end, luck, environment = map(np.concatenate, zip(*syncs))
    del syncs  # of a million commits these are 0.1 GiB
    by_time = time_order(start)
    commit, luck = commit[by_time], luck[by_time]
    deployments = Deployments(
        commits.group[commit],
        start[by_time],
        end[by_time],
        commits.application[commit],
        environment[by_time],
        commit,
        luck < 0,
        luck >= 0,
    )
    return deployments, luck, reach


def run_stage(
    environment: Environment,
    arrival: np.ndarray,
    lineage: np.ndarray,
    noise: np.ndarray,
    gate: Gate,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take releases through one environment. They are sorted by lineage, then by their commit.

    1. A release arrives when it is healthy in the environment before. In the first, and where it
       `starts` with the commit, it is a commit.
    2. It waits `wait_hours`, of all hours or of open ones (`wait_runs`), and then for the gate: the
       next train or opening (see `Gate`).
    3. The gate lets it through with probability `approval_rate`. Otherwise it is held.
    4. By `promotion`, it is superseded by a newer release of its lineage. `each`: never. `newest`:
       if the sync of a newer one starts no later. `soak`: if a newer one arrives before its own
       sync starts, or then.
    5. Its sync starts if the window has not ended by then. Otherwise it is in flight.
    6. The sync takes `duration_sec`. It is good with probability `success_rate`, and with
       success_rate ** (1 + batch_risk (k - 1)) where it brings k changes: the commits of its
       lineage since the one that was deployed before, good or bad.

    Returns for each release when its sync starts and ends, its luck, and how far it came (see
    `FLOW`; 0: it did not arrive). The luck of a good sync is below 0, and that of a failed one is
    uniform on 0..1: its noise above the chance of success.
    """
    arrived = arrival < NEVER
    wait = draw_seconds(environment.wait_hours, noise[WAIT], 3600)
    ready = gate.after(arrival, wait) if environment.wait_runs == "open" else arrival + wait
    start = gate.next(ready)
    approved = arrived
    if environment.approval_rate < 1:
        approved = arrived & (noise[APPROVAL] < environment.approval_rate)
    ahead = approved
    if environment.promotion != "each":
        rival = arrival if environment.promotion == "soak" else np.where(approved, start, NEVER)
        ahead = approved & (start < earliest_of_newer(rival, lineage))
    deployed = ahead & (start < gate.end)
    chance: Any = environment.success_rate
    if environment.batch_risk:
        row = np.flatnonzero(deployed)
        first = np.searchsorted(lineage, lineage[row])  # the oldest commit of the lineage
        changes = row + 1 - np.maximum(np.append(0, row[:-1] + 1)[: len(row)], first)
        chance = np.ones(len(deployed))
        chance[row] = environment.success_rate ** (1 + environment.batch_risk * (changes - 1))
    luck = (noise[OUTCOME] - chance) / np.maximum(1 - chance, 1e-300)
    end = start + draw_seconds(environment.duration_sec, noise[DURATION])
    steps = [step.view(np.int8) for step in (arrived, approved, ahead, deployed)]
    came = steps[0] + steps[1] + steps[2] + steps[3]
    return start, end, luck, came


class Gate(NamedTuple):
    """When releases may go up in one environment, in seconds since 1970."""

    opens: np.ndarray
    closes: np.ndarray
    rate: np.ndarray  # how open it is meanwhile: 1 is as usual
    departures: Optional[np.ndarray]  # of the trains that leave while it is open; None without
    end: int  # of the window

    @classmethod
    def of(cls, environment: Environment, zone: Zone, window: Window) -> Gate:
        """Return the gate of an environment, known from a window to a year after it."""
        knobs = environment.open_hours, environment.freezes, environment.release_every_hours
        return cls.at_hours(*knobs, zone, *window.seconds)

    @classmethod
    @functools.lru_cache(maxsize=64)
    def at_hours(
        cls, hours: Hours, freezes: Dates, every_hours: float, zone: Zone, start: int, end: int
    ) -> Gate:
        """Return the gate of these hours.

        Trains leave every `every_hours` after the week's first opening, if the gate is open.
        """
        week, last = np.array(opening_minutes(hours)), end + 366 * DAY
        table = np.array([[0.0], [NEVER], [1.0]])  # of each opening: begin, end, rate
        if hours != "always":
            mondays = np.arange(start - (start - MONDAY) % (7 * DAY) - 7 * DAY, last, 7 * DAY)
            local = mondays[:, None] + week[:, 0] * DAY  # midnight before each opening
            edges = [utc_of_local((local + 60 * week[:, edge]).ravel(), zone) for edge in (1, 2)]
            rate = np.ones(len(week)) if isinstance(hours, str) else np.extract(hours, hours)
            table = np.array([*edges, np.tile(rate, len(mondays))])
        frozen = np.array(freezes, "M8[s]").astype(np.int64).reshape(-1, 2) + [0, DAY]
        for begin, over in utc_of_local(frozen.ravel(), zone).reshape(-1, 2):
            before, after = table.copy(), table
            before[1], after[0] = np.minimum(table[1], begin), np.maximum(table[0], over)
            table = np.hstack([before, after])
            table = table[:, table[0] < table[1]]  # otherwise it doubles with each freeze
        table = table[:, np.argsort(table[0], kind="stable")]
        table[0, 1:] = np.maximum(table[0, 1:], np.maximum.accumulate(table[1])[:-1])
        table = table[:, table[0] < table[1]]
        opens, closes = table[:2].astype(np.int64)
        gate, every = cls(opens, closes, table[2], None, end), round(every_hours * 3600)
        if every < 60:
            return gate
        begin = MONDAY + week[0, 0] * DAY + week[0, 1] * 60
        first = (start - 8 * DAY - begin) // every
        departures = utc_of_local(np.arange(begin + first * every, last, every), zone)
        return gate._replace(departures=departures[gate.next(departures) == departures])

    def next(self, times: np.ndarray) -> np.ndarray:
        """Return for each time the next departure or open moment; NEVER if none is known."""
        if self.departures is not None:
            return np.append(self.departures, NEVER)[np.searchsorted(self.departures, times)]
        if len(self.opens) == 1 and self.closes[0] == NEVER:
            return np.maximum(times, self.opens[0])
        opening = np.searchsorted(self.closes, times, side="right")
        return np.maximum(times, np.append(self.opens, NEVER)[opening])

    def before(self, times: np.ndarray) -> np.ndarray:
        """Return the last open moment by each time; 0 if there is none."""
        return np.minimum(times, np.append(0, self.closes)[np.searchsorted(self.opens, times)])

    def clock(self, times: np.ndarray) -> np.ndarray:
        """Return how many seconds it was open until each time, each by its rate."""
        opening = np.maximum(np.searchsorted(self.opens, times, side="right") - 1, 0)
        begin, over = self.opens[opening], self.closes[opening]
        passed = np.append(0, np.cumsum((self.closes - self.opens) * self.rate))[opening]
        return passed + (np.clip(times, begin, over) - begin) * self.rate[opening]

    def after(self, times: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Return when it was open for so many seconds since each time; NEVER if none is known."""
        passed = np.cumsum((self.closes - self.opens) * self.rate)
        goal = self.clock(times) + seconds
        opening = np.searchsorted(passed, goal, side="right")
        known = np.minimum(opening, len(passed) - 1)
        left = np.maximum(passed[known] - goal, 0) / self.rate[known]
        found = np.floor(self.closes[known] - left).astype(np.int64)
        return np.where(opening < len(passed), found, NEVER)


def earliest_of_newer(times: np.ndarray, lineage: np.ndarray) -> np.ndarray:
    """Return for each entry the least time of the later entries of its lineage; NEVER without one.

    It is a running minimum from the end. Each lineage is lifted above the ones before it. That
    takes half the time of pandas' groupby().cummin() and shift().
    """
    lift = lineage * (NEVER + 1)
    earliest = np.full(len(times), np.iinfo(np.int64).max)
    earliest[:-1] = np.minimum.accumulate((np.minimum(times, NEVER) + lift)[:0:-1])[::-1]
    return earliest - lift


def time_order(times: np.ndarray) -> np.ndarray:
    """Return the positions that sort the times; equal times keep their order.

    Time and position are packed into one integer: numpy sorts these several times faster than it
    finds the order.
    """
    bits = len(times).bit_length()
    packed = ((times - times.min(initial=NEVER)) << bits) | np.arange(len(times))
    packed.sort()
    return packed & ((1 << bits) - 1)


def simulate_deployments(
    git_commits: pd.DataFrame, scenario: Scenario, window: Window, seed: int
) -> Tuple[pd.DataFrame, pd.DataFrame]:
    """Take a table of commits through the environments; return the `deployments` table and flow.

    A row of deployments is a sync that started before the window's end. A row of flow is an
    environment. It counts what became of the releases that reached it: `deployed`, `superseded` by
    a newer one, `held` by the gate, `in_flight` (the sync would start at or after the end).
    """
    commits = commits_of(git_commits, git_commits["application"].cat.categories)
    deployments, luck, reach = run_pipeline(commits, [(scenario, 1)], window, Noise(seed))
    bad = deployments.bad.view(np.int8)
    reason = np.where(deployments.bad, draw_shares(scenario.failure_reasons, luck), -1)
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
            "failure_reason": word_column(reason, list(scenario.failure_reasons)),
            "recovered": np.full(len(bad), MISSING),  # the rollback manager knows
        },
    )
    index = pd.Index(scenario.names, name="environment")
    flow = [np.bincount(came, minlength=5)[list(FLOW.values())] for came in reach]
    return table, pd.DataFrame(flow, index=index, columns=list(FLOW))


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


def roll_back(
    deployments: Deployments, draws: Draws, noise: Noise, commits: int
) -> Tuple[Rollbacks, np.ndarray]:
    """Take each failed deployment back to the newest earlier good one of its place.

    A failure with no earlier good release there has no rollback. `commits` is how many there are.
    Returns the rollbacks, and when each failed deployment was good again: when its rollback
    succeeded, else at the end of the next good one of its place. NEVER: it was not, or did not
    fail.
    """
    failed = np.flatnonzero(deployments.bad)
    failed = failed[time_order(deployments.end[failed])]
    target, following = good_releases(deployments, failed)
    recovered = np.full(len(deployments.bad), NEVER)
    recovered[failed] = np.where(following >= 0, deployments.end[following], NEVER)
    failed, target = failed[target >= 0], target[target >= 0]
    group, detected = deployments.group[failed], deployments.end[failed]
    environment = deployments.environment[failed]
    length, outcome = np.empty((2, len(failed)))
    for number in np.unique(environment).tolist():
        here = environment == number
        drawn = noise.of("rollbacks", number, 2, commits)
        length[here], outcome[here] = drawn[:, deployments.commit[failed[here]]]
    end, worked = detected.copy(), np.empty(len(failed), bool)
    months = months_of_draws(draws)
    for (scenario, _), first, last in zip(draws, months, months[1:]):
        own = (group >= first) & (group < last)
        end[own] += draw_seconds(scenario.rollback.duration_min, length[own], 60)
        worked[own] = outcome[own] < scenario.rollback.success_rate
    recovered[failed[worked]] = end[worked]
    application = deployments.application[failed]
    made = Rollbacks(group, detected, end, application, environment, failed, target, worked)
    return made, recovered


def good_releases(deployments: Deployments, rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return for failed deployments the rows of the last and of the next good one of their place.

    -1: there is none. Place and row are packed into one integer, which numpy sorts fast.
    """
    place, bits = deployments.place, len(deployments.bad).bit_length()
    keys = place << bits | np.arange(len(place))
    good = np.append(np.sort(keys[~deployments.bad]), -1)
    after = np.searchsorted(good[:-1], keys[rows])
    last, following = (
        np.where(found >> bits == place[rows], found & ((1 << bits) - 1), -1)
        for found in (good[after - 1], good[after])
    )
    return last, following


def simulate_rollbacks(
    deployments: pd.DataFrame, policy: RollbackPolicy, seed: int
) -> Tuple[pd.DataFrame, pd.DataFrame]:
    """Roll back the failed rows of a table of deployments; return that table and the `rollbacks`.

    Each goes back to the newest earlier `Synced` and `Healthy` release of its application and
    environment. The deployments say when they `recovered`.
    """
    keys = ("application", "environment", "commit_sha")
    words = [deployments[key].cat.categories for key in keys]
    events = deployments_from(deployments, *words)
    draws: Draws = [(Scenario(rollback=policy), 1)]
    done, over = roll_back(events, draws, Noise(seed), len(words[2]))
    failed = done.deployment
    sha, reason = deployments["commit_sha"].array, deployments["failure_reason"].array
    rollbacks = as_table(
        "rollbacks",
        {
            "timestamp": done.time,
            "application": deployments["application"].array[failed],
            "environment": deployments["environment"].array[failed],
            "from_commit": np.asarray(sha[failed]),
            "to_commit": np.asarray(sha[done.target]),
            "reason": reason[failed],
            "duration_min": (done.end - done.time) / 60,
            "success": done.success,
        },
    )
    recovered = as_times(np.where(over < NEVER, over, MISSING))
    return deployments.assign(recovered=recovered), rollbacks


class WebhookAlerts:
    """POST alerts to a webhook until one fails. Its address is a secret that no message has."""

    def __init__(self, url: str) -> None:
        usual = re.fullmatch(r"(?ai)https?://([\w.-]+|\[[\da-f:]+\])(:\d{1,5})?([/?][!-~]*)?", url)
        if usual is None:
            raise GitOpsError("the webhook must be an http:// or https:// address with a host")
        self.url, self.host, self.problem, self.sent = url, usual[1], "", 0

    def __call__(self, alert: Mapping[str, Any]) -> None:
        import urllib.request as web  # slow to import, and few runs need it

        opener, kind = web.OpenerDirector(), {"Content-Type": "application/json"}
        ways = "ProxyHandler HTTPHandler HTTPSHandler HTTPDefaultErrorHandler HTTPErrorProcessor"
        for way in ways.split():  # none of them follows a redirect
            opener.add_handler(getattr(web, way)())
        request = web.Request(self.url, json.dumps(alert).encode(), kind)
        try:
            if not self.problem:
                opener.open(request, timeout=5).close()
                self.sent += 1
        except Exception as error:  # whatever it is, the run goes on
            self.problem = f"HTTP {error.code}" if hasattr(error, "code") else one_line(error)


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
            as_knob("Name", "an environment of --environments", name)
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
    7. A look that shows Degraded since a release began says that it was bad.
    8. A bad release was good again when it was put right, at the end of the next good release, or
       when a look showed it.
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

    ends = [release.sync.end for release in releases]
    bad_since = [one.sync.end if one.sync.failure else NEVER for one in releases]
    for look in looks:
        at = bisect.bisect_right(ends, look.time) - 1
        if at >= 0 and look.health == HEALTHY:
            releases[at].healthy = True
        elif at >= 0 and look.health == DEGRADED and not 0 < look.since < releases[at].sync.start:
            bad_since[at] = min(bad_since[at], look.time)
            releases[at].reason = releases[at].reason or look.message or "Degraded health"
    later = MISSING  # when the next good release ended
    for release, since in zip(reversed(releases), reversed(bad_since)):
        if not release.reason:
            later = release.sync.end
            continue
        put, seen = release.back, bisect.bisect_right(good_looks, since)
        right = later if put is None else put.recovered if put.reason else put.sync.end
        times = [release.recovered, right, *good_looks[seen : seen + 1]]
        known = [max(time, release.sync.end) for time in times if time != MISSING]
        release.recovered = min(known, default=MISSING)
    if begins and releases:
        releases[0].counts = bool(releases[0].reason)
    return releases


FATE = ["health", "failure_reason", "detected", "to_commit", "duration_min", "success"]


def merge_clusters(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `deployments` or `rollbacks` in order, a release once in each stage.

    Two further columns say the `cluster` of a row and its `release`. Times are seconds.

    1. A release counts at the cluster that had it first. Its rows at the other ones are left out.
    2. Where it was bad or rolled back at another one, it is.
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
        told = [name for name in FATE if name in rows]
        rows.loc[first.index, told] = bad[told].first()
        rows.loc[first.index, "recovered"] = last.where(first != MISSING, MISSING)
    return rows[counts]


def history_from(
    source: str, places: Iterable[Place], commits: pd.DataFrame,
    changes: Iterable[Row], notes: Sequence[str], environments: Sequence[str],
) -> History:  # fmt: skip
    """Return the history that the places of a source come to. Times are seconds since 1970."""
    rows: List[Row] = []
    covered: List[Row] = []
    for place in places:
        name = place.application, place.environment
        for release in [release for release in place.releases if release.counts]:
            sync, reason, back = release.sync, release.reason, release.back
            health = DEGRADED if reason else HEALTHY if release.healthy else UNKNOWN
            state = FAILED if sync.failure else SYNCED, health, sync.end - sync.start
            row = sync.start, *name, sync.commit, *state, reason or None, release.recovered
            fate: Row = np.nan, None, np.nan, None
            if back is not None:
                minutes = max(back.sync.end - sync.end, 0) / 60
                fate = sync.end, back.sync.commit, minutes, not back.reason
            rows.append((*row, place.origin, sync.release or sync.commit, *fate))
        covered.append((*name, place.origin, place.rule, place.begin, place.end, place.lost))
    columns = [*COLUMNS["deployments"], "cluster", "release", *FATE[2:]]
    table = pd.DataFrame(rows, columns=columns).sort_values("timestamp", kind="stable")
    known = pd.DataFrame(covered, columns=list(DETAILS["coverage"]))
    if known.duplicated(["application", "environment"]).any():
        table = merge_clusters(table)
        rules = {"origin": ", ".join, "rule": "first", "from": "max", "to": "max", "lost": "sum"}
        known = known.groupby(["application", "environment"], as_index=False).agg(rules)
    undone = table[table["to_commit"].notna()].sort_values("detected", kind="stable")
    undone = undone.assign(
        timestamp=undone["detected"],
        from_commit=undone["commit_sha"],
        reason=undone["failure_reason"],
    )
    dated = [row for row in changes if row[5] == MISSING or row[4] <= row[5]]  # no clock was wrong
    tables = {
        "deployments": table,
        "rollbacks": undone,
        "changes": dated,
        "coverage": known.sort_values(["application", "environment"]),
    }
    made = {name: table_from(name, rows) for name, rows in tables.items()}
    times = [made["coverage"]["from"], made["coverage"]["to"], made["deployments"]["timestamp"]]
    return History(
        commits, window=window_around(*times), environments=tuple(environments), source=source,
        notes=tuple(notes), **made,
    )  # fmt: skip


def table_from(name: str, rows: Union[pd.DataFrame, Sequence[Row]]) -> pd.DataFrame:
    """Return a table of rows in which times are seconds since 1970."""
    kinds = ALL_COLUMNS[name]
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows, columns=list(kinds))
    return as_table(
        name,
        {
            column: table[column].to_numpy(np.int64 if kind == "time" else object)
            for column, kind in kinds.items()
        },
    )


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
    kind, authors = parts["type"].astype(object).str.lower(), commits["author"]
    known = {name: one_line(name, NAME_WIDTH) for name in authors.unique()}  # as a knob takes it
    columns = {
        "timestamp": utc_times(commits["seconds"].to_numpy(np.int64)),
        "author": authors.map(known),
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
DOCUMENTS = re.compile(
    r"(^|/)(docs?/|(OWNERS|CODEOWNERS|README|LICENSE|CHANGELOG)[^/]*$)|\.(md|adoc|rst|png|svg)$"
)
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")


class GitCommit(NamedTuple):
    """A commit of a config repository."""

    sha: str
    seconds: int  # since 1970, when it was committed
    author: str
    message: str  # its first line
    files: int
    reverts: FrozenSet[str]  # the commits that it says it reverts
    landing: int  # the number of the landing with which it came to the main line


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
    release: int = 0  # that of its versions alone, if it has some
    versions: int = 0  # how many

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
        less, more = ([*map(read_line, lines[head : len(lines) - tail])] for lines in (old, new))
        lost, gained = ([name for _, found in some for name in found] for some in (less, more))
        content = self.content + sum(key for key, _ in more) - sum(key for key, _ in less)
        versions = self.versions + len(gained) - len(lost)
        release = (
            (self.release if self.versions else 0) + sum(map(hash, gained)) - sum(map(hash, lost))
        )
        gone = [version for version in lost if version not in gained]
        came = [version for version in gained if version not in lost]
        pairs = list(itertools.zip_longest(gone, came, fillvalue=""))
        return FileContent(new, content, release if versions else content, versions), pairs


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

    def __init__(self, repo: FilePath) -> None:
        listed = ask_git(repo, "ls-tree", "-r", "-z", "--full-tree", "HEAD").split("\0")
        blobs = dict(entry.partition("\t")[::-2] for entry in listed if entry)
        self.files = list(blobs)
        self.references: Dict[str, List[str]] = {}  # of each kustomization those outside its folder
        kinds = [path for path in blobs if posixpath.basename(path) in KUSTOMIZATIONS]
        texts = read_blobs(repo, [blobs[path].split(" ")[-1].encode() for path in kinds])
        for path, text in zip(kinds, texts):
            lines = re.sub(r"(^|\s)#.*", "", text.decode("utf-8", "replace"), flags=re.MULTILINE)
            named = re.findall(r"(?<![^\s\"',\[])\.\./[^\s\"',\]?]*", lines)
            joined = (posixpath.join(posixpath.dirname(path), reference) for reference in named)
            self.references[path] = [posixpath.normpath(one) for one in joined]

    def bases(self, own: Iterable[str]) -> List[str]:
        """Return what the kustomizations in files and folders refer to outside, at any depth."""
        inside = tuple(f"{path}/" for path in own)
        found: Dict[str, None] = {}
        queue = list(inside)
        while queue:
            folder = queue.pop()
            for file, references in self.references.items():
                for one in references if file.startswith(folder) else ():
                    if one not in found and not f"{one}/".startswith((*inside, "../")):
                        found[one] = None
                        queue.append(f"{one}/")
        return list(found)


class Replay:
    """One reading of a clone: what came to its main line, and what that changed at each place.

    A landing is a commit of the main line, with the commits that it merged. `landings` are their
    shas, oldest first, and `seconds` their times. `commits` are those that changed a path of a
    place, or any path without `owners`. What a revision contains of a place is the part of its
    trail up to the landing `landing_of[revision]`, which knows every commit that the tip contains.
    All of these are known once `moves` or `trails` were read. Raises GitOpsError for what is no
    repository.
    """

    def __init__(self, repo: FilePath, owners: Optional[Owners] = None) -> None:
        self.repo, self.owners = repo, owners
        self.shallow = ask_git(repo, "rev-parse", "--is-shallow-repository") == "true"
        self.landings = ask_git(repo, "rev-list", "--first-parent", "--reverse", "HEAD").split()
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
        fields = ("%H", "%P", "%ct", "%an", "%s", "%b")
        groups = read_log(self.repo, fields, "--topo-order", "--reverse")
        for arrived in map(list, map(self._arrivals, filter(None, groups))):
            asked = [{blob: b"" for _, files in steps for blob, _ in files} for _, steps in arrived]
            asked = [] if self.owners is None else asked
            contents = read_blobs(self.repo, list(itertools.chain.from_iterable(asked)))
            for (number, steps), blobs in zip(arrived, asked):
                yield from self._changes(number, steps, dict(zip(blobs, contents)))

    def _arrivals(self, records: Sequence[Sequence[bytes]]) -> Iterator[Tuple[int, List[Any]]]:
        """Yield the landings that touch places: (number, [(number of a commit, its files)]).

        The last commit is that of the main line. Its files are what the landing changed there.
        """
        shas, parents, times, authors, subjects, bodies, rests = zip(*records)
        texts = [printable_lines(column) for column in (shas, authors, subjects)]
        texts[1] = [*map(sys.intern, texts[1])]  # few people, many commits
        rows = zip(*texts, parents, epochs(times).tolist(), bodies, rests)
        for sha, author, subject, line, seconds, body, rest in rows:
            files = RAW_ENTRY.findall(rest)
            if self.owners is not None:
                files = [entry for entry in files if self.owners[entry[1]]]
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
            for place, is_own in self.owners[path] if self.owners and more else ():
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

CHART = ("Chart.yaml", "values.yaml", "templates", "charts", "crds")  # what is in one
SHARED = ("base", "common", "default", "defaults", "global", "shared")  # beside environments
OWN_WORD = re.compile(r"^[A-Za-z]+[-_](?=.*\d)|[-_][A-Za-z]+$")  # of an environment, in a version
PlaceName = Tuple[str, str]
"""An application, and the environment as the path names it."""


def template_owners(
    repo: FilePath, tree: HeadTree, template: str, stages: Stages, applications: Sequence[str]
) -> Tuple[Owners, List[PlaceName]]:
    """Return the owners of paths by a template, and the places at HEAD that are no environments.

    What several environments of an application share is a base of each of them: what their
    kustomizations refer to (116 deployments of Konflux), the chart around them (2,595 of Phalanx),
    and a place beside them that is called `base` or so (1,566 of the DataHub of Berkeley).
    """
    pattern, repository = template_pattern(template), repository_name(repo)
    parts = template.strip("/").split("/")
    inner = 1 + next((at for at, part in enumerate(parts) if "{application}" in part), -1)

    def place_of(path: str) -> Any:
        found = pattern.fullmatch(path)
        names = found and (found.groupdict().get("application") or repository, found["environment"])
        return names and tuple(one_line(name, NAME_WIDTH) for name in names)

    folders: Dict[Any, Set[str]] = collections.defaultdict(set)
    for file in tree.files:
        folders[place_of(make_printable(file))].add("/".join(file.split("/")[: len(parts)]))
    folders.pop(None, None)
    usual = any(stages.knows(name) for _, name in folders)
    kept = choose_applications({application for application, _ in folders}, applications)

    def measured(place: Any) -> Any:
        """Return a place, None if it is not to be measured."""
        known = place and (stages.knows(place[1]) or not usual)
        chosen = known and (place[0] in kept or not applications)
        return place if chosen and stages.stage_of(place[1], "/".join(place)) else None

    bases: Dict[Any, Any] = {}
    files = set(tree.files)
    for place in filter(measured, folders):
        shared = tree.bases(folders[place])
        shared += [path for name in SHARED for path in folders.get((place[0], name), ())]
        for path in folders[place]:
            for at in range(inner, len(parts)):
                around = [posixpath.join(*path.split("/")[:at], name) for name in CHART]
                shared += around if around[0] in files else around[1:2]
        bases[place] = (), shared
    left_out = [place for place in folders if place not in bases]
    return Owners(bases, lambda path: measured(place_of(path))), left_out


@dataclass(eq=False)
class Version:
    """A version of an application on its way through the environments."""

    application: str
    name: str
    commit: GitCommit  # the first one that brought it to any environment
    line: List[Version]  # the versions that replaced each other, in the order of their landings
    rank: int  # its position there
    came: Dict[str, int]  # {stage: the landing with which it, or a newer one, came there}
    dropped: bool = False  # whether it was put back before it went on


class Travels:
    """How versions travel through the environments of a config repository.

    `stage` has the stage of each place, and `syncs` what came to it, in order. In brackets is how
    often a rule applied in the config repositories of Konflux (5,200 changes) and eLife (15,600).

    1. A version that comes to a stage is a change there, with those that it carries along: the
       older ones of its line that the stage has not had.
    2. The first one of a line that comes to a stage carries nothing along: what was there before
       the stage began waited for nobody. It did not wait either, where others were before it.
    3. A version that was put back in the stage where it had come last is not carried along (25
       and 11).
    4. Production has no lead time where no other environment had the version before.
    5. Where each version of a landing is older than the one it replaces, and ran there before, the
       landing takes back those that it replaces (13 and 12).
    6. A version with a word of its environment (`1.4-approved`) is the same as the one without (12
       and 2,994).
    7. What one landing brings to several clusters of a stage is one release (176 of Radix).
    """

    def __init__(self, replay: Replay, stages: Stages, ignored: Pattern[str]) -> None:
        self.replay, self.ignored, self.production = replay, ignored, stages.order()[-1]
        self.stage: Dict[PlaceName, str] = {}
        self.syncs: Dict[PlaceName, List[Sync]] = collections.defaultdict(list)
        self.commits: Dict[str, Tuple[GitCommit, str]] = {}  # each with its application
        self.changes: Dict[Row, Row] = {}  # the rows; the commit of several versions is one
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
        for (stage, _), newest in self.newest.items():
            for one in newest.line[newest.rank + 1 :] if stage == self.production else ():
                self.ship(one, stage, MISSING)

    def follow(self, place: PlaceName, move: Move) -> None:
        """Note what a landing brings to a place."""
        (application, _), stage, replay = place, self.stage[place], self.replay
        commits = [replay.commits[number] for number in move.commits]
        pairs = [pair for pair in move.versions if pair[1]]
        arrived: List[Version] = []
        older: Set[str] = set()
        for old, new, number in pairs:
            replaced = self.known.get((application, old))
            bare = application, OWN_WORD.sub("", new)
            version = self.known.get((application, new))
            if version is None:
                version = self.known.get(bare)
                if version is None or stage in version.came:
                    line, commit = replaced.line if replaced else [], replay.commits[number]
                    version = Version(application, new, commit, line, len(line), {})
                    line.append(version)
                    self.known.setdefault(bare, version)
                self.known[application, new] = version
            arrived.append(version)
            ran = self.ran[place, id(version.line)]
            if replaced in ran and version in ran and version.rank < replaced.rank:
                older.add(old)
                while next(reversed(ran)) is not version:
                    one, _ = ran.popitem()
                    one.dropped = one.dropped or list(one.came)[-1:] == [stage]
            ran[version] = None
        for version in arrived:
            version.dropped = False
            newest = self.newest.get((stage, id(version.line)))
            low = version.rank if newest is None else newest.rank + 1
            if newest is None or newest.rank < version.rank:
                self.newest[stage, id(version.line)] = version
            for one in version.line[low : version.rank + 1] or [version]:
                self.ship(one, stage, move.landing, newest is not None or not one.rank)

        written = [version.commit for version in arrived]
        first = max(written, key=lambda commit: commit.landing, default=commits[0])
        self.commits.setdefault(first.sha, (first, application))
        undone = {sha for commit in commits for sha in commit.reverts}
        undone |= older if len(older) == len({old for old, _, _ in pairs}) else set()
        brings = [replay.landings[move.landing], *(new for _, new, _ in move.versions)]
        brings += [commit.sha for commit in commits]
        seconds, release = replay.seconds[move.landing], replay.landings[first.landing]
        facts = seconds, seconds, move.release, first.sha, "", tuple(brings)
        self.syncs[place].append(Sync(*facts, undone.difference(brings) or (), False, release))

    def ship(self, one: Version, stage: str, landing: int, waited: bool = True) -> None:
        """Note that a version came to a stage with a landing, and the change if it `waited`."""
        if stage in one.came or one.dropped:
            return
        one.came[stage] = landing
        commit, key = one.commit, (one.application, stage, one.commit.sha)
        is_first = stage == self.production and landing == commit.landing
        before_clone = self.replay.shallow and not commit.landing
        if waited and not (is_first or before_clone or self.ignored.search(commit.author)):
            self.commits.setdefault(commit.sha, (commit, one.application))
            time = MISSING if landing == MISSING else self.replay.seconds[landing]
            self.changes.setdefault((*key, landing), (*key, one.name, commit.seconds, time))


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
        replay = Replay(repo, owners)
        travels = Travels(replay, stages, ignored)
        stages.check((place[1], "/".join(place)) for place in [*travels.stage, *left_out])
        if not travels.syncs:
            raise GitOpsError(f"nothing was deployed at {in_quotes(template)}; {TEMPLATE_HELP}")

        # In a complete clone nothing was there before the first deployment, so nothing is lost.
        seconds = [sync.start for syncs in travels.syncs.values() for sync in syncs]
        start, end, places = min(seconds) // DAY * DAY, max([*seconds, replay.seconds[-1]]), []
        for place, syncs in sorted(travels.syncs.items()):
            begins = replay.shallow and replay.landings[0] in syncs[0].brings
            covered = syncs[0].start if begins else start, end, int(begins)
            facts = place[0], travels.stage[place], "/".join(place), "path"
            places.append(Place(*facts, classify_syncs(syncs, begins=begins), *covered))

        notes, named = [f"Layout: {template}"], {name for _, name in travels.stage}
        others = {name for _, name in left_out} - named
        remedy = "; --environments names them"
        if not any(map(stages.knows, named)):
            told = one_line(", ".join(sorted(named)), 120)
            notes.append(f"No environment has a usual name: {told}{remedy}")
        elif left_out:
            told = one_line(", ".join(sorted(others)), 120)
            notes.append(f"Left out, as they are no environments: {told}{remedy}")
        if replay.shallow:
            notes.append("The clone is shallow: git fetch --unshallow brings the time before it")
        rows = [(*commit, application) for commit, application in travels.commits.values()]
        table = pd.DataFrame(rows, columns=[*GitCommit._fields, "application"])
        commits = commits_from(table.sort_values("seconds", kind="stable"), branch_of(repo))
        order = stages.order(travels.stage.values())
        return history_from("git", places, commits, travels.changes.values(), notes, order)


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
    pattern = re.escape(template.strip("/")).replace(r"\*", "[^/]*")
    for name in fields:  # the application of shop-api-prod is shop-api
        group = "[^/]+" if name == "application" else "[^/]+?"
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{group})")
    is_file = "." in posixpath.basename(template.strip("/"))
    return re.compile(pattern if is_file else f"{pattern}(?:/.*)?")


def readings(file: str, stages: Stages) -> Iterator[Tuple[Tuple[str, ...], str, str]]:
    """Yield the ways to read a path: (parts of the template, application, environment).

    The environment is a folder, or is in the name of a file. The application is another folder, or
    a file below the environment.
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


def best_layout(files: Sequence[str], stages: Stages) -> Tuple[float, str, int, List[str]]:
    """Return (score, template, its number of files, the files it leaves) of the best layout.

    1. A template counts the files of applications that are in production and in another stage.
    2. More applications count for it, a little. So does a template without `*`, which takes the
       place of a folder, such as a team's, where templates differ in it.
    3. It is none if these are less than a tenth of the files that match it: most names are others.
    """
    found: Dict[Tuple[Tuple[str, ...], str], List[str]] = collections.defaultdict(list)
    for file in files:
        if not (DOCUMENTS.search(file) or re.search(r"(^|/)\.[^/]*/", file)):
            for parts, application, name in readings(file, stages):
                found[parts, application].append(name)
    counts: Dict[Tuple[str, ...], Any] = collections.defaultdict(collections.Counter)
    for (parts, application), names in found.items():
        there = {stages.stage_of(name) or usual_stage(name) for name in set(names)}
        if len(there) > 1 and stages.order()[-1] in there:
            folders = [at for at, part in enumerate(parts) if "{" not in part]
            for one in [parts, *((*parts[:at], "*", *parts[at + 1 :]) for at in folders)]:
                counts[one][application] += len(names)
    best: Tuple[str, ...] = ()
    score = 0.0
    for parts, counted in counts.items():
        weight = len(counted) ** 0.2 * 0.8 ** ("*" in parts)
        score, best = max((score, best), (sum(counted.values()) * weight, parts))
    count, template = sum(counts[best].values()), "/".join(best)
    matched = [template and template_pattern(template).fullmatch(file) for file in files]
    if not template or len([one for one in matched if one]) > 10 * count:
        return 0.0, "", 0, []
    rest = [
        file for file, one in zip(files, matched) if not (one and stages.knows(one["environment"]))
    ]
    return score, template, count, rest


def find_layout(
    repo: FilePath, files: Sequence[str], template: Optional[str], stages: Stages
) -> str:
    """Return the template of a repository with these files at HEAD; GitOpsError if none fits.

    1. A template that matches no file is refused with the nearest paths.
    2. Without one it is the usual layout that explains most files. Where another one explains half
       as much of the files that it leaves, both are listed.
    3. A branch for each environment is named as what it is.
    """
    where = one_line(repo)
    if template:
        if any(map(template_pattern(template).fullmatch, files)):
            return template
        depth = len(template.strip("/").split("/"))
        paths = {"/".join(file.split("/")[:depth]) for file in files}
        near = one_line(", ".join(difflib.get_close_matches(template, sorted(paths), 3, 0)))
        problem = f"no file is at {in_quotes(template)}; the nearest are {near}"
        raise GitOpsError(f"{problem}; {TEMPLATE_HELP}")
    score, best, count, rest = best_layout(files, stages)
    other_score, other, other_count, _ = best_layout(rest, stages)
    if score > 2 * other_score:
        return best
    if best:
        both = ((best, count), (other, other_count))
        told = " and ".join(f"{one_line(one)} ({count_text(n, 'file')})" for one, n in both)
        raise GitOpsError(f"two layouts explain {where}: {told}; --deployments-from takes one")
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
    there = sorted(names)
    found = {pattern: fnmatch.filter(there, pattern) for pattern in patterns or ["*"]}
    for pattern in [pattern for pattern in patterns if not found[pattern]]:
        near = one_line(", ".join(difflib.get_close_matches(pattern, there, 3, 0)))
        called = f"no application is called {in_quotes(pattern)}"
        raise GitOpsError(f"{called}; the nearest are {near}")
    return set().union(*found.values())


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
    ignored, application = author_pattern(ignore_authors), repository_name(repo)
    sha = "%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"  # of the commit
    form = f"--format=%(refname:lstrip=2) {sha} %(creatordate:unix)"
    listed = ask_git(repo, "for-each-ref", form, "refs/tags").split("\n")
    tags = [(line.split(" ") + [""])[:3] for line in listed if line]
    chosen = [tag for tag in tags if any(fnmatch.fnmatchcase(tag[0], one) for one in patterns)]
    chosen = [tag for tag in chosen if not PRERELEASE.search(tag[0])] or chosen
    replay = Replay(repo)
    assert not replay.trails  # it reads the log
    found: Dict[str, Tuple[int, int, str]] = {}  # {commit: (landing, seconds, tag)}
    for (name, sha, _), time in zip(chosen, epochs(tag[2].encode() for tag in chosen).tolist()):
        if sha in replay.landing_of:
            landing = replay.landing_of[sha]
            found[sha] = landing, max(time, replay.seconds[landing]), one_line(name, 100)
    if not found:
        there = one_line(", ".join(name for name, *_ in tags[-8:]) or "none")
        problem = f"the current branch of {one_line(repo)} has no tag like {' or '.join(patterns)}"
        remedy = "--tags takes a pattern of theirs, such as 'release-*'"
        raise GitOpsError(f"{problem}; its last tags are {there}; {remedy}")
    landings, times, names, shas = zip(*sorted((*one, sha) for sha, one in found.items()))

    commits = pd.DataFrame(replay.commits, columns=GitCommit._fields)
    which = np.searchsorted(landings, commits["landing"])  # the release that brought each
    subjects = commits["message"].str.replace(MERGED, "", regex=True)
    release_of = {**dict(zip(subjects, which)), **dict(zip(commits["sha"], which))}
    reasons: Dict[int, str] = {}
    told = [*zip(which.tolist(), commits["reverts"], subjects)]
    for number, reverts, text in [*told, *((at, (), name) for at, name in enumerate(names))]:
        named = reverts or REVERT.findall(text)
        undone = [one for one in named if release_of.get(one, number) < number]
        if number < len(names) and (undone or HOTFIX.search(text)):
            how = "Reverted" if undone else "Hotfixed"
            reasons.setdefault(number - 1, f"{how} by {names[number]}")
    syncs = [Sync(time, time, sha, sha) for sha, time in zip(shas, times)]
    later = [*times[1:], MISSING]
    releases = [
        Release(sync, reasons.get(at, ""), recovered=later[at] if at in reasons else MISSING)
        for at, sync in enumerate(syncs)
    ]
    rule = ", ".join(patterns)
    ends = min(times), max([*times, *replay.seconds])
    place = Place(application, "production", rule, "tag", releases, *ends)

    landing, author = commits["landing"], commits["author"]
    is_merge = landing.duplicated(keep=False) & ~landing.duplicated(keep="last")
    is_later = (which > 0) | (commits["sha"] == shas[0])
    is_bot = author.map(lambda name: bool(ignored.search(name))).astype(bool)
    deployed, versions = np.append(times, MISSING)[which], np.append(names, "")[which]
    known = {"application": application, "environment": "production"}
    commits = commits.assign(**known, version=versions, deployed=deployed)
    columns = ["application", "environment", "sha", "version", "seconds", "deployed"]
    changes = commits.loc[is_later & ~is_merge & ~is_bot, columns]
    table = commits_from(commits[is_later].sort_values(["seconds", "sha"]), branch_of(repo))
    notes = [f"Releases: the tags {rule}; of failures those are known that a tag put right"]
    rows = changes.itertuples(index=False, name=None)
    return history_from("tags", [place], table, rows, notes, ["production"])


def author_pattern(text: Optional[str]) -> Pattern[str]:
    """Return the pattern of the authors to ignore, that of nobody without a text."""
    try:
        return re.compile("$^" if text is None else text)
    except re.error as error:
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
    sources: Tuple[Any, Sequence[ArgoSource]] = (None, ())  # of an entry: as given, and as read
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

    def follow(self, clone: Optional[Replay]) -> None:
        """Find the syncs, and what a clone knows of them.

        1. A sync is what the parameters and the paths of its sources hold, or the revision where
           the clone does not have it.
        2. It ships the commits to its own paths that no earlier one had. What the first one has
           was there before; so was what comes after a gap, but for a commit of the hour before.
        3. It takes back what its commits revert.
        """
        policy = at_path(self.document, "spec", "syncPolicy").get("automated")
        automatic = isinstance(policy, dict) and policy.get("enabled") is not False
        for start, end, failure, parts, lost in self.rows:
            release = revision = "+".join([text for _, text in parts if text]) or "(none)"
            if clone is None:
                self.syncs.append(Sync(start, end, parts, revision, failure, automatic=automatic))
                continue
            content: List[Any] = []
            moves: List[Move] = []
            newest = max(self.had.values(), default=None)
            for source, text in parts:
                landing = clone.landing_of.get(text)
                content += [source.definition, text]
                if landing is None:
                    continue
                trail = clone.trails.get((self.full_name, source.paths), [])
                begin = self.had.get(source.paths, landing if newest is None else newest)
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
                self.tried = max(self.tried, landing)
                if not failure:
                    self.had[source.paths] = max(landing, begin)
            commits = [clone.commits[number] for move in moves for number in move.commits]
            brings = [name for commit in commits for name in (commit.sha, commit.message)]
            undone = {name for commit in commits for name in commit.reverts}
            whole = [commit for commit in commits if not undone & {commit.sha, commit.message}]
            takes = {name for commit in whole for name in commit.reverts} - set(brings)
            facts = failure, brings, takes, automatic, release
            self.syncs.append(Sync(start, end, tuple(content), revision, *facts))
            named = {number: version for move in moves for _, version, number in move.versions}
            for number in [number for move in moves for number in move.own if not failure]:
                self.shipped.append((clone.commits[number], named.get(number, ""), end))

    def judged(self, start: int) -> Place:
        """Return what the syncs come to. Each time without a gap is judged alone."""
        rows, looks = self.rows, [self.looks[time] for time in sorted(self.looks)]
        cuts = [number for number, row in enumerate(rows) if row[4] or not number]
        releases: List[Release] = []
        for low, high in zip(cuts, [*cuts[1:], len(rows)]):
            until = rows[high][0] if high < len(rows) else NEVER
            seen = [look for look in looks if rows[low][0] <= look.time < until]
            begins = rows[low][4] > 0 and not self.syncs[low].brings
            releases += classify_syncs(self.syncs[low:high], seen, begins)
        begin = rows[cuts[-1]][1] if rows and rows[cuts[-1]][4] else start
        names = self.title, self.environment, self.origin, self.rule
        return Place(*names, releases, begin, max(begin, self.seen), sum(row[4] for row in rows))


# Reading the documents.


def read_argocd(files: Sequence[FilePath]) -> List[ArgoApplication]:
    """Return the applications in JSON documents of kubectl, argocd or its REST API.

    Snapshots of one application are merged. Raises GitOpsError that names the file, the application
    and the entry where something is wrong.
    """
    known: Dict[Row, ArgoApplication] = {}
    entries: Dict[str, Row] = {}
    for file in files:
        name = "standard input" if str(file) == "-" else one_line(file)
        documents = argo_documents(read_text(file, "--argocd takes JSON files"), name)
        found = [read_application(one, name, known, entries) for one in documents]
        seen = max((newest for _, newest in found), default=0)
        for one, _ in found:
            one.seen = max(one.seen, seen)
    if entries:
        add_rows(list(known.values()), entries.values())
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
        except ValueError as error:
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


def time_at(holder: Mapping[str, Any], key: str, where: str, needed: bool = False) -> int:
    """Return an RFC 3339 time in seconds since 1970, 0 where there is none; GitOpsError for others.

    It is from 1970 to 2199.
    """
    value: Any = holder.get(key)
    if not (value or needed):
        return 0
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        zone = RFC_3339.fullmatch(value)[1].replace("Z", "+00:00")  # type: ignore[index]
        seconds = int(_dt.datetime.fromisoformat(value[:19] + zone).timestamp())
        if 0 <= seconds <= LAST_SECOND:
            return seconds
    rule = f"{key} is not a time such as 2026-01-31T12:00:00Z: {in_quotes(value)}"
    raise GitOpsError(f"{where}: {rule}")


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
    for one, owner in zip(documents, owners):  # the sources of an application seldom change
        now = one.get("sources") or one.get("source")
        if now != given:
            given, sources = now, sources_of(one)
        applications[owner].sources = given, sources
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


def name_application(one: ArgoApplication, pattern: Optional[Pattern[str]]) -> Tuple[str, ...]:
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
    given, sources = one.sources
    if (spec.get("sources") or spec.get("source")) != given:
        sources = sources_of(spec)
    paths = [path for source in sources for path in source.paths]
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
    for key in ("environment", "env", KARGO):
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
    found: Sequence[ArgoApplication], template: Optional[str], stages: Stages
) -> None:
    """Name the environment of each application, and the application itself.

    Two teams' applications of the same name are told apart by their namespaces.
    """
    pattern = template_pattern(template) if template else None
    named = [name_application(one, pattern) for one in found]
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
    template: Optional[str] = None,
    applications: Sequence[str] = (),
) -> History:
    """Return a history as Argo CD and, with `repo`, a clone of the config repository know it.

    A deployment is a change of what runs. A rollback is in the rollbacks table and not among the
    deployments. A release that was applied and turned out bad is `Synced` and `Degraded`. The
    `template` of the repository's paths tells the environments; `environments` names them (see
    `Stages`). `applications` are the names to measure, perhaps with a `*`. Raises GitOpsError for
    files that hold no deployment.
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
    name_applications(found, template, stages)
    chosen = choose_applications({one.title for one in found}, applications)
    found = [one for one in found if one.title in chosen]
    unknown = [one.full_name for one in found if one.environment == UNCLASSIFIED]
    if unknown:
        named = f"{count_text(len(unknown), 'application')} ({one_line(', '.join(unknown))})"
        remedy = "--environments 'production=*-x' says it"
        notes.append(f"Nothing tells the environment of {named}: {remedy}")
    clone = None if repo is None else read_clone(repo, found)
    for one in found:
        one.follow(clone)
    firsts = [(one, *one.rows[0]) for one in found if one.rows]
    times = [end if lost else one.created or start for one, start, end, *_, lost in firsts]
    begin = min(times, default=found[0].seen) // DAY * DAY
    places = [one.judged(begin) for one in found]
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
    beside, document, unread = Path(folder) / "metrics.json", {}, []
    if "incidents" in there and not os.path.exists(beside):  # a team's own list, and no export
        there.remove("incidents")
        unread = [f"{one_line(files['incidents'])} is not read: --incidents takes it"]
    tables = {name: read_table(files[name], name) for name in there}
    if os.path.exists(beside):
        try:
            document = json.loads(read_text(beside, "--export writes it"))
        except ValueError as error:
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
    notes = (*map(one_line, at_path(document, "notes", kind=list)), *unread)
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
    except ValueError as error:
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


def with_incidents(history: History, incidents: pd.DataFrame, complete: bool = False) -> History:
    """Return a history in which incidents say which deployments failed, and until when.

    1. An incident belongs to the newest deployment of its application, in its environment or
       production, that ended within seven days before it. The notes list the others.
    2. That deployment failed. It recovered when the last of its incidents was resolved.
    3. A deployment of unknown health without one was healthy, where the incidents would tell: in
       their environments and production, of the applications that they name, from their first day
       to their last. With `complete` they tell of all applications and days. Elsewhere a look of
       Argo CD that saw it healthy is no proof.
    4. Incidents of which none belongs to a deployment tell nothing.

    Raises GitOpsError for an application that the history does not have.
    """
    rows, names = history.deployments, application_names(history)
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
        left_on="started", right_on="deployed", by=places, tolerance=7 * DAY,
    )  # fmt: skip
    lost, found = incidents[incidents["at"].isna()], incidents.dropna(subset=["at"])
    if len(lost):
        started = utc_times(lost["started"].to_numpy()).strftime("%Y-%m-%d %H:%M")
        listed = ", ".join(lost["application"] + " " + started)
        before = f"the seven days before {count_text(len(lost), 'incident')}"
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
    health = rows["health"].astype(object)
    if history.source == "argocd":  # between two looks a failure can hide
        health = health.mask(health == HEALTHY, UNKNOWN)
    health = health.mask(told & (health == UNKNOWN), HEALTHY)
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

    def is_met(self, value: Any) -> Any:
        """Return whether a value, or each of an array, lies on the better side."""
        return value > self.limit if self.better == ">" else value < self.limit


class Metric(NamedTuple):
    """What a key of `metrics` means."""

    label: str
    unit: str
    definition: str
    elite: Optional[Target] = None

    def text(self, value: float) -> str:
        """Return a value of the metric with its unit; `n/a` if it is undefined."""
        return show_number(value, self.unit)

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
    "dated_deployments": Metric(
        "Deployments with a Lead Time", "", "Production deployments that shipped a known change."),
    "total_deployments": Metric("Total Deployments", "", "Rows of the deployments table."),
    "failed_deployments": Metric("Failed Deployments", "", "Deployments whose health is Degraded."),
    "unseen_deployments": Metric(
        "Deployments Not Looked At", "", "Production deployments whose health nobody saw."),
    "total_rollbacks": Metric("Total Rollbacks", "", "Rows of the rollbacks table."),
    "successful_rollbacks": Metric("Successful Rollbacks", "", "Rollbacks that succeeded."),
    "failure_reasons": Metric("Main Failure Reasons", "", "Failed deployments for each reason."),
    "failure_reasons_by_environment": Metric("Failure Reasons", "", "Of each environment."),
    "deployments_by_environment": Metric("Deployment Distribution", "", "To each environment."),
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
MANY = 20  # with fewer, the interval has its say
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
    The last three tell of deployments to production, see `production_of`.
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
    dated: Any = None  # whether each brought a change that is known

    @property
    def down(self) -> np.ndarray:
        """The seconds that each failed deployment was bad, NEVER while it lasts."""
        return seconds_between(self.deployments.end, self.recovered)

    def of_group(self, table: Any, chosen: Any = slice(None), weights: Any = None) -> np.ndarray:
        """Return how many chosen entries each group has in a table, or the sum of their weights."""
        return np.bincount(table.group[chosen], weights, minlength=self.groups)

    def grouped(self, deployment: np.ndarray, rollback: np.ndarray, groups: int) -> Events:
        """Return the events in other groups; what has the group -1 is left out."""
        deployments = self.deployments._replace(group=deployment)
        rollbacks = self.rollbacks._replace(group=rollback)
        moved = self._replace(deployments=deployments, rollbacks=rollbacks, groups=groups)
        return moved.only(np.flatnonzero(deployment >= 0), np.flatnonzero(rollback >= 0))

    def only(self, made: Any, back: Any) -> Events:
        """Return the events with some of the deployments and rollbacks: positions, or slices."""
        columns = {name: getattr(self, name) for name in ("recovered", "fixed", "unseen", "dated")}
        return self._replace(
            deployments=Deployments(*(column[made] for column in self.deployments)),
            rollbacks=Rollbacks(*(column[back] for column in self.rollbacks)),
            **{name: column[made] for name, column in columns.items() if column is not None},
        )

    def in_production(self) -> Events:
        """Return the events of the last environment alone."""
        places = self.deployments.environment, self.rollbacks.environment
        return self.only(*(np.flatnonzero(place == self.environments - 1) for place in places))

    def since(self, window: Window) -> Events:
        """Return the events from the start of a shorter window on, and all commits."""
        times = self.deployments.time, self.rollbacks.time  # both are sorted
        first = (slice(np.searchsorted(time, window.seconds[0]), None) for time in times)
        return self.only(*first)._replace(window=window)


def events_of(history: History, applications: Sequence[str]) -> Events:
    """Return a history as arrays, in one group. No rollback knows its deployment."""
    table, back, names = history.deployments, history.rollbacks, history.environments
    nothing, time = np.zeros(len(back), np.int64), seconds_of(back["timestamp"])
    end = time + np.rint(back["duration_min"].to_numpy() * 60).astype(np.int64)
    place = codes_of(back["application"], applications), codes_of(back["environment"], names)
    success = back["success"].to_numpy(bool)
    return Events(
        commits_of(history.git_commits, applications),
        deployments_from(table, applications, names, history.git_commits["sha"]),
        Rollbacks(nothing, time, end, *place, nothing - 1, nothing - 1, success),
        np.where(table["recovered"].isna(), NEVER, seconds_of(table["recovered"])),
        history.window,
        groups=1,
        environments=len(names),
        unseen=(table["health"] == UNKNOWN).to_numpy(),
    )


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
    words = {"application": applications, "environment": environments, "commit_sha": shas}
    application, environment, commit = (codes_of(table[key], words[key]) for key in words)
    end = time + table["duration_sec"].to_numpy()
    synced, bad = (table["status"] == SYNCED).to_numpy(), (table["health"] == DEGRADED).to_numpy()
    return Deployments(nothing, time, end, application, environment, commit, synced, bad)


def headline_metrics(events: Events) -> Dict[str, np.ndarray]:
    """Calculate the metrics of the seed for each group: {key of METRICS: an array over the groups}.

    All deployments count; the last environment is production.
    """
    commits, deployments, rollbacks = events[:3]
    total, failed = events.of_group(deployments), events.of_group(deployments, deployments.bad)
    rows = released_commits(events)
    seconds = deployments.time[rows] - commits.time[deployments.commit[rows]]
    lead = times_by_group(deployments.group[rows], seconds, events.groups, 3600)
    worked = rollbacks.success
    restored = events.of_group(rollbacks, worked)
    minutes = events.of_group(rollbacks, worked, (rollbacks.end - rollbacks.time)[worked]) / 60
    return {
        "deployment_frequency": total / events.window.days,
        "mean_lead_time": lead["mean"],
        "median_lead_time": lead["value"],
        "mttr_minutes": safe_ratio(minutes, restored),
        "change_failure_rate": safe_ratio(100 * failed, total),
        "dated_deployments": lead["n"],
        "total_deployments": total,
        "failed_deployments": failed,
        "total_rollbacks": events.of_group(rollbacks),
        "successful_rollbacks": restored,
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
    environment, or came there after production, takes no time into it; where all of them skipped
    it, its part is undefined.
    """
    names, deployments = history.environments, events.deployments
    live = len(names) - 1
    if history.changes is None:
        chosen = released_commits(events)
        item, place, time = deployments.commit, deployments.environment, deployments.time
        begun = events.commits.time[item[chosen]]
    else:
        table = history.changes.dropna(subset=["deployed"]).sort_values("deployed", kind="stable")
        of_change = table.groupby(["application", "commit_sha"], observed=True, sort=False)
        item, place = of_change.ngroup().to_numpy(), codes_of(table["environment"], names)
        time, chosen = seconds_of(table["deployed"]), place == live
        begun = seconds_of(table["committed"])[chosen]
    parts, there, latest = {}, begun, np.maximum(time[chosen], begun)
    for number, name in enumerate(names):
        first = np.full(1 + int(item.max(initial=0)), np.nan)
        rows = np.flatnonzero((place == number) & (item >= 0))[::-1]
        first[item[rows]] = time[rows]  # the earliest is written last
        # Into production it is what was Synced at last, after a failed sync.
        came = first[item[chosen]] if number < live else time[chosen]
        seen = ~np.isnan(came)
        way = np.maximum(there, np.where(seen, np.minimum(came, latest), 0))
        parts[name] = float(((way - there) / 3600).mean()) if seen.any() else math.nan
        there = way
    return parts


class Changes(NamedTuple):
    """Changes as arrays. An entry is a change that came to production, or waits for it."""

    group: np.ndarray  # -1: it is left out
    committed: np.ndarray
    shipped: np.ndarray  # end of the first Synced deployment that contains it, or NEVER

    @property
    def waits(self) -> np.ndarray:
        """The seconds from each to its deployment, NEVER where that did not come."""
        return seconds_between(self.committed, self.shipped)


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
    3. A deployment is `fixed` if it was good, and came while one before it was not.
    4. A change is `dated` by the first deployment that ended by then: a cluster has it some minutes
       after the config repository asked for it.
    """
    made = events.in_production()
    deployments, over = made.deployments, made.recovered
    failed = np.flatnonzero(deployments.bad)
    fixed, dated = np.zeros((2, len(over)), bool)
    fix = good_releases(deployments, failed)[1]
    fixed[fix[(fix >= 0) & (deployments.end[fix] <= over[failed])]] = True
    if history.incidents is not None and len(history.incidents):
        table = history.incidents[history.incidents["environment"] == history.production]
        table = table.sort_values("started")
        ended, begun, end = (seconds_of(table[key]) for key in ("deployed", "started", "resolved"))
        owner = codes_of(table["application"], applications) * NEVER + ended
        until = pd.Series(end).groupby(owner).cummax().groupby(owner).shift(1, fill_value=0)
        total = pd.Series(np.maximum(end - np.maximum(begun, until), 0)).groupby(owner).sum()
        down = total.reindex(deployments.application * NEVER + deployments.end).to_numpy()
        known = ~np.isnan(down) & (over < NEVER)
        over = np.where(known, deployments.end + np.where(known, down, 0), over).astype(np.int64)
    if history.changes is None:
        changes = shipped_changes(made)
        late = changes.shipped < changes.committed
        changes = changes._replace(group=np.where(late, -1, made.commits.application))
    else:
        table = history.changes_to(history.production)
        shipped = np.where(table["deployed"].isna(), NEVER, seconds_of(table["deployed"]))
        group = codes_of(table["application"], applications)
        changes = Changes(group, seconds_of(table["committed"]), shipped)
    order = np.lexsort((deployments.end, deployments.application))
    ends = (deployments.application * NEVER + deployments.end)[order]
    come = (changes.shipped < NEVER) & (changes.group >= 0)
    row = np.searchsorted(ends, (changes.group * NEVER + changes.shipped)[come])
    owner = np.append(ends // NEVER, -1)[row]
    dated[order[row[owner == changes.group[come]]]] = True
    return made._replace(recovered=over, fixed=fixed, dated=dated), changes


def measure_production(
    events: Events, changes: Changes, days: Any = None
) -> Dict[str, Dict[str, Any]]:
    """Calculate dora.dev's metrics for each group, from the events of production.

    The columns are `value` and `n`; of times also `mean`, `p90` and `open`, of rates `low` and
    `high`. `days` is how many days each group has, by default those of the window.
    """
    deployments, groups, bad = events.deployments, events.groups, events.deployments.bad
    none = np.zeros(len(bad), bool)
    fixed, unseen = (none if mask is None else mask for mask in (events.fixed, events.unseen))
    total, back = events.of_group(deployments), events.of_group(events.rollbacks)
    failed, hidden = events.of_group(deployments, bad), events.of_group(deployments, unseen)
    reworked = back + events.of_group(deployments, fixed)
    frequency = total / (events.window.days if days is None else days)
    return {
        LEAD: times_by_group(changes.group, changes.waits, groups, 3600),
        FREQUENCY: {"value": frequency, "n": total},
        RECOVERY: times_by_group(deployments.group[bad], events.down[bad], groups, 60),
        FAIL_RATE: rates_with_interval(failed, total, hidden),
        REWORK: rates_with_interval(reworked, total + back, hidden),
    }


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
    values = np.append(np.sort(group[known] * NEVER + seconds[known]) % NEVER, math.nan) / unit
    ends = []
    for share in (0.5, 0.9):  # between the two values that are nearest
        at = np.cumsum(n) - n + share * np.maximum(n - 1, 0)
        low, high = (np.where(n > 0, edge(at).astype(int), -1) for edge in (np.floor, np.ceil))
        ends.append(values[low] + (at - low) * (values[high] - values[low]))
    total = np.bincount(group[known], seconds[known], minlength=groups) / unit
    return {"value": ends[0], "n": n, "mean": safe_ratio(total, n), "p90": ends[1], "open": waiting}


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
    return {"value": value, "low": ends[0], "high": ends[1], "n": whole}


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

    1. It is Byar's approximation of the exact one of Poisson (N. E. Breslow and N. E. Day,
       Statistical Methods in Cancer Research II, 1987, p. 69), in which each event has a weight.
    2. In three weeks or more it is variance / mean of the sums of all seven days in a row
       (P. McCullagh and J. Nelder, Generalized Linear Models, 1989, 6.2). No weekly pattern moves
       these sums, and they hold what neighbouring days share. t has 1.5 degrees of freedom for each
       week but one, as the sums overlap (M. Meketon and B. Schmeiser, WSC 1984).
    3. In less it is variance / mean of the days. There, and of fewer than 30 events, each weighs at
       least one: nobody sees from so few that they are regular.
    4. The first six days do not count for the weight until the first event: a pipeline fills there.
    5. The busiest day may lie just outside of the window, so the standard deviation is at least
       half its count.
    """
    if not covered.any():
        return math.nan, math.nan
    n, days, weight, t = int(counts.sum()), len(counts), 1.0, Z_95
    used = covered & ((np.cumsum(counts) > 0) | (np.arange(days) >= 6))
    sums, whole = (np.convolve(some, np.ones(7, int), "valid") for some in (counts * used, used))
    sums = sums[whole == 7] if days >= 7 else sums[:0]
    weeks = (len(sums) + 6) / 7
    if n > 1 and weeks >= 3:
        spread = sums.var() * weeks / (weeks - 1) / max(sums.mean(), 1e-9)
        spread = max(spread, counts.max() ** 2 / 4 / n)
        if n >= 30 or spread > 1:
            weight, t = spread, student_t(1.5 * (weeks - 1))
    elif n > 1 and covered.sum() > 1:
        weight = max(counts[covered].var(ddof=1) / counts[covered].mean(), 1)
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
        """The 95 % interval in the unit of the text, nothing if there is none."""
        if math.isnan(self.low):
            return ""
        size, _ = human_unit(self.value, self.metric.short_unit)
        return f"{show_number(self.low / size)} to {show_number(self.high / size)}"


ROW = list(MetricRow._fields[1:])
RowsOf = Dict[str, MetricRow]  # {key of PRODUCTION_METRICS: its row}


def rows_of_groups(
    history: History,
    events: Events,
    changes: Changes,
    spans: Sequence[Tuple[int, int]],
    partly: Any,
) -> List[RowsOf]:
    """Return the metrics of production of each group.

    A span is the first day of a group and that after its last. `partly` says of each group whether
    entries of it are lost. More than MOST_INTERVALS groups have no intervals of times and
    frequencies. Changes that ship within the same two days are one cluster. Edges have nine
    decimals: the last bits of a root differ between versions of numpy.
    """
    deployments, covered = events.deployments, days_known(history)
    edges = np.array(spans, int).reshape(-1, 2)
    days, known = np.diff([edges, np.append(0, np.cumsum(covered))[edges]])[..., 0]
    table = measure_production(events, changes, np.where(known > 0, days, np.nan))
    if len(spans) <= MOST_INTERVALS:
        lead, down = changes.waits, events.down
        day = (deployments.time - events.window.seconds[0]) // DAY
        ends = np.empty((len(spans), 3, 2))
        for number, (first, last) in enumerate(spans):
            rows = np.flatnonzero((changes.group == number) & (lead < NEVER))
            cluster = changes.shipped[rows] // (2 * DAY)
            ends[number, 0] = median_interval(lead[rows] / 3600, cluster)
            rows = np.flatnonzero(deployments.group == number)
            counts = np.bincount(day[rows] - first, minlength=last - first)
            ends[number, 1] = frequency_interval(counts, covered[first:last])
            rows = rows[deployments.bad[rows] & (down[rows] < NEVER)]
            ends[number, 2] = median_interval(down[rows] / 60, rows)
        for number, metric in enumerate(THROUGHPUT):
            table[metric]["low"], table[metric]["high"] = ends[:, number].T
    unseen = (events.of_group(deployments, events.unseen) > 0) | hides_failures(history)
    bounds = {FREQUENCY: partly, FAIL_RATE: unseen, REWORK: unseen}
    dated = events.of_group(deployments, events.dated)
    told = np.column_stack([days, table[FREQUENCY]["n"], dated]).tolist()
    nothing = np.full(len(spans), np.nan)
    made: List[RowsOf] = [{} for _ in spans]
    for metric, columns in table.items():
        columns["at_least"] = bounds.get(metric, False) & ~np.isnan(columns["value"])
        columns.setdefault("open", np.zeros(len(spans), int))
        for edge in ("low", "high"):
            columns[edge] = columns.get(edge, nothing).round(9)
        fields = zip(*(columns.get(name, nothing).tolist() for name in ROW[:-1]))
        for of_group, values, numbers in zip(made, fields, told):
            why = made_of(metric, values[0], values[3], values[6], *numbers)
            of_group[metric] = MetricRow._make((metric, *values, why))
    return made


MOST_INTERVALS = 200


def made_of(
    metric: str, value: float, n: int, waiting: int, days: int, deployed: int, dated: int
) -> str:
    """Return what a metric of production is made of, or why it is undefined."""
    nothing = math.isnan(value)
    if nothing and not deployed:
        return "nothing reached production"
    if metric == FREQUENCY:
        shown = f"{count_text(deployed, 'deployment')} in {count_text(days, 'day')}"
        return "less than a day is covered" if nothing else shown
    if metric == RECOVERY and nothing:
        return "no failure has ended" if waiting else "no failure was seen"
    if metric == RECOVERY:
        return f"median of {count_text(n, 'failure')}"
    if metric == LEAD and nothing:
        return "no lead time is known"
    if metric == LEAD:
        brought = f", which {dated:,} of {count_text(deployed, 'deployment')} brought"
        return f"median of {count_text(n, 'change')}" + brought * (dated < deployed)
    if nothing:
        return "failures not observable"
    part = round(value * n / 100)
    return f"{part:,} {'failed' if metric == FAIL_RATE else 'reworked'} of {n:,}"


def hides_failures(history: History) -> bool:
    """Return whether a failure can hide between two looks at a cluster."""
    return history.source == "argocd" and history.incidents is None


@dataclass(frozen=True)
class Metrics:
    """Everything that the report, the JSON and the dashboard show. `measure` calculates it once."""

    history: History
    values: Dict[str, Any]  # the keys of METRICS
    production_rows: RowsOf  # the metrics of production in all
    by_application: Dict[str, RowsOf]  # and of each application
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
    def rows(self) -> RowsOf:
        """The four that are judged: value and what it is made of, or why it is not judged."""
        values, doubts = self.values, self.values["not_judged"]
        if self.scope == PRODUCTION_ALONE:
            rows = {key: self.production_rows[metric] for key, metric in DORA_NAMES.items()}
            return {
                key: row._replace(key=key, why=doubts.get(key, row.why))
                for key, row in rows.items()
            }
        total, dated = values["total_deployments"], values["dated_deployments"]
        failed, restored = values["failed_deployments"], values["successful_rollbacks"]
        deployments, days = count_text(total, "deployment"), self.history.window.days
        lead = f"mean of {count_text(dated, 'production deployment')}"
        back = "no rollback succeeded" if failed else "no deployment failed"
        made = (
            f"{deployments} in {count_text(days, 'day')}",
            lead if dated else "nothing reached production",
            f"mean of {count_text(restored, 'rollback')}" if restored else back,
            f"{failed:,} failed of {deployments}",
        )
        made = made if total else ("nothing was deployed",) * 4
        return {
            key: MetricRow(key, values[key], why=why) for key, why in zip(SCOPES[self.scope], made)
        }

    @property
    def production(self) -> pd.DataFrame:
        """The metrics of production as a table; a row is a metric of an application, or of all."""
        groups = [(ALL_APPLICATIONS, self.production_rows), *self.by_application.items()]
        rows = [(name, *row) for name, of_group in groups for row in of_group.values()]
        return pd.DataFrame(rows, columns=["application", "metric", *ROW])

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


def measure(history: History) -> Metrics:
    """Calculate everything that is shown of a history."""
    names, scope, window = application_names(history), scope_of(history), history.window
    events = events_of(history, names)
    made, changes = production_of(history, events, names)
    lost, span = lost_since(history, names) > 0, (0, window.days)
    one = changes._replace(group=np.minimum(changes.group, 0))  # what is left out stays -1
    rows = rows_of_groups(history, made, one, [span], lost.any())[0]
    own = made.grouped(made.deployments.application, made.rollbacks.application, len(names))
    by_name = dict(zip(names, rows_of_groups(history, own, changes, [span] * len(names), lost)))
    if history.coverage is not None:  # what production never had is no application of it
        shown = {*history.covered(history.production)["application"]}
        by_name = {name: own_rows for name, own_rows in by_name.items() if name in shown}
    of_scope = events if scope == ALL_ENVIRONMENTS else made
    values = {key: array.item() for key, array in headline_metrics(of_scope).items()}
    values.update(counts_by_name(history, scope))
    values.update(scope=scope, not_judged={}, unseen_deployments=int(made.unseen.sum()))
    values["lead_time_hours_by_environment"] = lead_time_parts(history, events)
    if scope == PRODUCTION_ALONE:
        values.update({key: rows[metric].value for key, metric in DORA_NAMES.items()})
        values["mean_lead_time"] = rows[LEAD].mean
        values["dated_deployments"] = int(made.dated.sum())
        values["not_judged"] = doubts_of(history, values, rows, made, changes)
    known = np.stack([days_known(history, name) for name in history.environments])
    day = (events.deployments.time - window.seconds[0]) // DAY
    cells = events.deployments.environment * window.days + day
    counts = np.bincount(cells, minlength=known.size).reshape(known.shape)
    return Metrics(history, values, rows, by_name, counts, known)


def doubts_of(
    history: History, values: Mapping[str, Any], rows: RowsOf, made: Events, changes: Changes
) -> Dict[str, str]:
    """Return why a metric of production is not judged: what a sceptic would say.

    1. An undefined value is not judged. That nothing failed meets the target of recovery, but it is
       known only where everything was looked at.
    2. A frequency needs fourteen covered days. It is counted, so few deployments are a low one. A
       lower bound can only meet its target.
    3. Three times or more are judged. Of fewer than six all must lie on one side of the target. A
       failure that lasts takes longer than the target.
    4. Half of the production deployments need a lead time.
    5. A rate needs six deployments. A lower bound can only miss its target, unless it would meet it
       if all that nobody looked at had failed.
    6. Fewer than twenty times on both sides of the target, or deployments, meet it only if the
       interval does.
    """
    met = judge_all(values)
    doubts = {key: rows[DORA_NAMES[key]].why for key in met if math.isnan(met[key])}
    total, unseen, rate = values["total_deployments"], values["unseen_deployments"], rows[FAIL_RATE]
    hidden = f"the health of {unseen:,} of {count_text(total, 'deployment')} is not known"
    hidden = "a failure may hide between two looks" if hides_failures(history) else hidden
    if met["mttr_minutes"] == 1 and math.isnan(values["mttr_minutes"]) and rate.at_least:
        doubts["mttr_minutes"] = hidden
    days = int(days_known(history).sum())
    if 0 < days < ENOUGH_DAYS:
        doubts["deployment_frequency"] = f"only {count_text(days, 'day')} covered"
    elif rows[FREQUENCY].at_least and not met["deployment_frequency"]:
        doubts["deployment_frequency"] = "older entries are lost"
    lead, down = changes.waits[changes.waits < NEVER], made.down[made.deployments.bad]
    for key, noun, times, unit in (
        ("median_lead_time", "change", lead, 3600),
        ("mttr_minutes", "failure", down, 60),
    ):
        row, target, many = rows[DORA_NAMES[key]], TARGETS[key], len(times)
        within = int(np.count_nonzero(times < target.limit * unit))
        unsure = met[key] == 1 and many < MANY and not row.high < target.limit
        if row.n and many < 3:
            doubts[key] = f"only {count_text(many, noun)}"
        elif row.n and 0 < within < many and (many < ENOUGH or unsure):
            fast = f"took less than {target.limit:g} {target.unit}"
            doubts[key] = f"{within} of {count_text(many, noun)} {fast}, too few to tell"
        elif met[key] == 1 and 2 * within <= many and times.max(initial=0) == NEVER:
            doubts[key] = f"{row.open:,} of {count_text(many, noun)} still last at the end"
    undated = total - values["dated_deployments"]
    if undated < total < 2 * undated:
        none = f"{undated:,} of {count_text(total, 'deployment')} brought no known change"
        doubts["median_lead_time"] = none
    good, limit = met["change_failure_rate"] == 1, TARGETS["change_failure_rate"].limit
    if 0 < rate.n < ENOUGH:
        doubts["change_failure_rate"] = f"only {count_text(total, 'deployment')}"
    elif good and rate.n < MANY and not rate.high < limit:
        doubts["change_failure_rate"] = f"{rate.why}, too few to tell"
    elif good and rate.at_least:
        if hides_failures(history) or rate.value + 100 * unseen / total >= limit:
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
    table, commits, names = history.deployments, history.git_commits, history.environments
    place, reasons, rates = table["environment"], {}, {}
    total, looked, back = (
        dict(zip(names, np.bincount(codes_of(column, names), minlength=len(names)).tolist()))
        for column in (
            place,
            place[table["health"] != UNKNOWN],
            history.rollbacks["environment"],
        )
    )
    for name in names:
        reasons[name] = count_words(table["failure_reason"][place == name])
        good = total[name] - sum(reasons[name].values())
        rates[name] = 100 * good / total[name] if looked[name] else math.nan
    if scope == PRODUCTION_ALONE:
        table = table[place == names[-1]]
    return {
        "success_rates": rates,
        "deployments_by_environment": total,
        "rollbacks_by_environment": back,
        "deployments_by_status": {SYNCED: 0, FAILED: 0, **count_words(table["status"])},
        "deployments_by_application": count_words(table["application"]),
        "failure_reasons": count_words(table["failure_reason"]),
        "failure_reasons_by_environment": reasons,
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
    if history.coverage is None:
        return np.ones(history.window.days, bool)
    spans = history.covered(environment or history.production)
    known = np.zeros(history.window.days, bool)
    edges = np.column_stack([seconds_of(spans["from"]), seconds_of(spans["to"])])
    if len(spans) and edges.max() - edges.min() >= DAY:
        for first, last in np.unique((edges - history.window.seconds[0]) // DAY, axis=0).tolist():
            known[first : last + 1] = True
    return known


def measure_trend(history: History, by: str) -> pd.DataFrame:
    """Return the metrics of production of each week (from Monday) or month, in UTC.

    A row is a metric of a period. Columns: `period` (its first day), `days`, those of
    `Metrics.production`, `enough` (whether there is enough data to say something), `change` (from
    the period before), `change_low` and `change_high` (its 95 % interval), `differs` (whether that
    leaves zero out; G. Y. Zou and A. Donner, Statistics in Medicine 27, 2008). A deployment is of
    the period in which it began, a change of that in which it shipped. GitOpsError for another
    `by`.
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
    periods = rows_of_groups(history, made, changes, list(zip(edges, edges[1:])), partly)
    whole = np.add.reduceat(days_known(history), starts, dtype=int) == (
        7 if by == "week" else days[starts].days_in_month
    )
    rows = [
        (start, length, *row, is_whole if row.key == FREQUENCY else row.n >= ENOUGH)
        for start, length, is_whole, of in zip(days[starts], np.diff(edges), whole, periods)
        for row in of.values()
    ]
    frame = pd.DataFrame(rows, columns=["period", "days", "metric", *ROW, "enough"])
    frame["enough"] &= frame["value"].notna()
    before = frame.groupby("metric", sort=False)[["value", "low", "high", "enough"]].shift(1)
    # The difference of two independent estimates is made from the distances of each to the ends of
    # its own interval: of rates with Wilson's intervals, Newcombe's.
    value, low, high = (frame[name] for name in ("value", "low", "high"))
    change = value - before["value"]
    down = np.hypot(value - low, before["high"] - before["value"])
    up = np.hypot(high - value, before["value"] - before["low"])
    columns = {"change": change, "change_low": change - down, "change_high": change + up}
    both = frame["enough"] & before["enough"].eq(True)
    columns = {name: column.where(both).round(9) for name, column in columns.items()}
    differs = (columns["change_low"] > 0) | (columns["change_high"] < 0)
    return frame.assign(**columns, differs=differs)


# ---- Trace: history -> the life of one release --------------------------------------------------

TRACED = ("latest", "slowest", "failed")  # releases that a trace finds without a name


class TraceTable(pd.DataFrame):
    """The steps of a release: a notebook cuts none of their words off."""

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
    application, commits = find_release(history, changes, table, release)
    backs, changes, table = (
        one[one["application"] == application] for one in (history.rollbacks, changes, table)
    )
    own, by_itself = (one[one["commit_sha"].isin(commits)] for one in (changes, table))
    if not len(own):  # a commit that brought changes of other commits, such as a merge
        brought = changes["deployed"].isin(by_itself["end"])
        own = changes[changes["commit_sha"].isin(changes.loc[brought, "commit_sha"])]
    steps: List[Row] = []
    made = history.git_commits.drop_duplicates("sha").set_index("sha")
    for row in own.drop_duplicates("commit_sha").itertuples():
        named = f"{row.commit_sha[:7]} {row.version}".rstrip()
        if row.commit_sha in made.index:
            named += " by {author}: {message}".format(**made.loc[row.commit_sha])
        steps.append((row.committed, "", "commit", named))
    ready, since = (own["committed"].min(), "the commit") if len(own) else (None, "")
    for number, name in enumerate(history.environments):
        gate = "" if scenario is None else f" ({stage_text(scenario.environments[number])})"
        came = own[own["environment"] == name]
        there = table["end"].isin(came["deployed"].dropna()) | table.index.isin(by_itself.index)
        for row in table[there & (table["environment"] == name)].itertuples():
            wait = "the first step that is known"
            if ready is not None:
                waited = wait_text(ready, row.timestamp) if row.timestamp > ready else "at once"
                wait = f"{waited} after {since}{gate}"
            wait += f", in release {row.commit_sha[:7]}" * (row.commit_sha not in commits)
            told = {HEALTHY: "healthy", UNKNOWN: "nobody looked at its health"}
            health = told.get(row.health) or f"degraded: {row.failure_reason}"
            outcome = f"{row.status} after {row.duration_sec} s, {health}"
            begun = came.loc[came["deployed"] == row.end, "committed"]
            if len(begun):
                ends = dict.fromkeys(wait_text(one, row.end) for one in (begun.max(), begun.min()))
                outcome += f"; {' to '.join(ends)} after the commit"
            steps += [(row.timestamp, name, "sync", wait), (row.end, name, "end", outcome)]
            if row.health != DEGRADED:
                ready, since = row.end, f"{name} had it"
            back = backs[(backs["environment"] == name) & (backs["timestamp"] == row.end)]
            for one in back.itertuples():
                over = row.end + pd.Timedelta(minutes=one.duration_min)
                result = "succeeded" if one.success else "failed"
                minutes = in_human_units(one.duration_min, "min")
                text = f"to {one.to_commit[:7]} {result} after {minutes}"
                steps.append((over, name, "rollback", text))
            if not pd.isna(row.recovered) and not back["success"].any():
                text = f"good again after {wait_text(row.end, row.recovered)}"
                steps.append((row.recovered, name, "recovery", text))
        if name == history.production and came["deployed"].isna().any():
            steps.append((history.window.end, name, "waits", "not there when the window ends"))
    found = pd.DataFrame(steps, columns=["timestamp", "environment", "step", "what"])
    found = TraceTable(found.sort_values("timestamp", kind="mergesort", ignore_index=True))
    found.attrs.update(application=application, commit=commits[-1])
    return found


def wait_text(begin: pd.Timestamp, end: pd.Timestamp) -> str:
    """Return the time from one moment to another as people say it."""
    return in_human_units((end - begin).total_seconds() / 3600, "h")


def traced_tables(history: History) -> Tuple[pd.DataFrame, pd.DataFrame]:
    """Return the changes to each environment, and the deployments with their end.

    Without a table of changes, each commit is one: it comes with its own or a newer release.
    """
    table, changes = history.deployments, history.changes
    end = utc_times(seconds_of(table["timestamp"]) + table["duration_sec"].to_numpy())
    table = table.assign(end=end).astype({"application": object, "commit_sha": object})
    if changes is None:
        names = {"sha": "commit_sha", "timestamp": "committed"}
        commits = history.git_commits.rename(columns=names).assign(version="")
        events, frames = events_of(history, application_names(history)), []
        for number, name in enumerate(history.environments):
            here = np.flatnonzero(events.deployments.environment == number)
            shipped = shipped_changes(events.only(here, slice(0))).shipped
            deployed = as_times(np.where(shipped < NEVER, shipped, MISSING))
            frames.append(commits.assign(deployed=deployed, environment=name))
        changes = pd.concat(frames)
    return changes.astype({"application": object}), table


def find_release(
    history: History, changes: pd.DataFrame, table: pd.DataFrame, release: str
) -> Tuple[str, List[str]]:
    """Return application and commits of a release; GitOpsError if there is none, or several.

    It is one commit, or those that brought one version to the environments.
    """
    columns, live = ["application", "commit_sha"], table[table["environment"] == history.production]
    wanted, colon, name = release.rpartition(":")
    exact = changes.loc[(changes["version"] == name) & (name != ""), columns].astype(str)
    if release in TRACED:
        found = live if release == "latest" else live[live["health"] == DEGRADED]
        if release == "slowest":
            shipped = changes[changes["environment"] == history.production]
            shipped = shipped[shipped["deployed"].isin(live["end"])]
            lead = shipped["deployed"] - shipped["committed"]
            found = shipped[np.asarray(lead == lead.max())]
        found = found[columns].iloc[-1:]
        if not len(found):
            raise GitOpsError(f"no release to trace: this window has no {release} one")
    elif len(exact):
        found = exact
    else:
        made = history.git_commits.rename(columns={"sha": "commit_sha"})
        pairs = pd.concat([frame[columns].astype(str) for frame in (table, changes, made)])
        found = pairs[pairs["commit_sha"].str.startswith(name) & (name != "")]
    found = found[(found["application"] == wanted) | (colon == "")].drop_duplicates()
    several = found.drop_duplicates("application") if len(exact) else found
    if len(several) == 1:
        return found["application"].iloc[0], found["commit_sha"].tolist()
    if len(several):
        several = [f"{one.application}:{one.commit_sha[:12]}" for one in several.itertuples()]
        told, choice = f"{len(several)} releases are {in_quotes(release)}", ", ".join(several[:4])
        raise GitOpsError(f"{told}; take one of {choice}")
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


def human_unit(value: float, unit: str) -> Tuple[float, str]:
    """Return the unit in which people say a value, and by how much it is to be divided."""
    if unit not in ("h", "min"):
        return 1, unit
    own, minutes = (1, 60 * value) if unit == "h" else (60, value)  # of an hour
    if minutes >= 120 * 60:
        return 24 * own, "days"
    return (own, "h") if minutes >= 120 else (own / 60, "min")


def in_human_units(value: float, unit: str, digits: int = 2) -> str:
    """Return a value as people say it: 9.89 min, 36.90 h, 5.20 days; `n/a` if undefined."""
    if math.isnan(value):
        return "n/a"
    size, unit = human_unit(value, unit)
    return with_unit(show_number(float(value / size), "", digits), unit)


def line_of(label: str, value: str) -> str:
    """Return a line of the report: a label and its value in their columns."""
    return f"{label:<31} {value}"


def join_folded(lines: Iterable[str]) -> str:
    """Return lines as one text. One that is too long goes on below where its text begins."""
    folded: List[str] = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip(" •")))
        parts = textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
        folded += [line] if len(line) <= WIDTH else parts
    return "\n".join(folded)


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


LABELS = {"mean_lead_time": "Mean Lead Time", "median_lead_time": "Median Lead Time"}
SOURCES = {
    "simulated": "SIMULATED: these are the numbers of no real team",
    "git": "MEASURED from the config repository (desired state, not what a cluster did)",
    "argocd": "MEASURED from what Argo CD keeps of its syncs",
    "both": "MEASURED from Argo CD's syncs, and before them from the config repository",
    "tags": "MEASURED from the release tags of a repository",
    "files": "MEASURED from tables",
    SIMULATED_TABLES: "SIMULATED: these tables were written by a simulation",
}
"""What a report says of where its deployments come from, for each source of a history."""
LEAD_TIMES = {
    "simulated": "from a commit to the start of its production sync",
    "argocd": "from a commit at production's own path to the end of its sync",
    "tags": "from a commit to the release tag",
}
"""From where to where a lead time is measured, if it does not end with a deployment."""


def full_source(history: History) -> str:
    """Return the source of a history: that of two joined ones is `both`."""
    return "both" if WITH_CLUSTER in history.notes else history.source


def lead_time_way(history: History) -> str:
    """Return from where to where a lead time is measured."""
    source, changes = full_source(history), history.changes
    if source in ("git", "both"):
        versions = changes is not None and (changes["version"] != "").any()
        begin = "the first commit of a version" if versions else "a commit to the config repository"
        return f"from {begin} to the commit to production"
    return LEAD_TIMES.get(source, "from a commit to the end of its production deployment")


def show_long(value: float, unit: str, digits: int = 2) -> str:
    """Return a number with its unit, and a long time also in hours or days."""
    short = {" hours": "h", " minutes": "min"}.get(unit)
    long = f" ({in_human_units(value, short)})" if short and value >= 120 else ""
    return show_number(value, unit, digits) + long


def value_text(key: str, metrics: Metrics) -> str:
    """Return a value of `metrics` as it is shown: a bound says so, and long times in days."""
    value, text = metrics.values[key], show_long(metrics.values[key], METRICS[key].unit)
    if metrics.scope == PRODUCTION_ALONE and key in DORA_NAMES and not math.isnan(value):
        text = "at least " * metrics.production_rows[DORA_NAMES[key]].at_least + text
    return text


def value_lines(metrics: Metrics, keys: Sequence[str], pad: str = "", **labels: str) -> List[str]:
    """Return a line for each key of the metrics: its label, or another one, and its value."""
    labels = {**LABELS, **labels}
    if full_source(metrics.history) in ("git", "argocd", "both"):  # a repository has others too
        labels["total_commits"] = "Commits That Began a Change"
    named = {key: f"{pad}{labels.get(key, METRICS[key].label)}:" for key in keys}
    return [line_of(label, value_text(key, metrics)) for key, label in named.items()]


def short_text(row: MetricRow) -> str:
    """Return the value of a row for a table: `≥` says that it is a lower bound."""
    return "≥ " * row.at_least + in_human_units(row.value, row.metric.short_unit)


def stage_text(stage: Environment) -> str:
    """Return the gate of an environment in words: its wait, train, hours, share and promotion."""
    meanings = {"each": "each release", "newest": "newest wins", "soak": "only what stays newest"}
    hours = stage.open_hours if isinstance(stage.open_hours, str) else "by the hour of the week"
    knobs = [
        f"after {in_words('wait_hours', stage.wait_hours)}" * (stage.wait_hours[-1] > 0),
        f"every {stage.release_every_hours:g} h" * (stage.release_every_hours > 0),
        hours * (hours != "always"),
        count_text(len(stage.freezes), "freeze") * (len(stage.freezes) > 0),
        f"batch risk {stage.batch_risk:g}" * (stage.batch_risk > 0),
        f"{100 * stage.approval_rate:g} % pass" * (stage.approval_rate < 1),
        meanings[stage.promotion],
    ]
    return ", ".join(filter(None, knobs))


def rate_grade(value: float) -> Tuple[str, str]:
    """Return the icon and the colour of a success rate: good from 95 %, fair from 90 %."""
    if math.isnan(value):
        return "⚪", "#9aa5b1"
    if value >= 95:
        return "🟢", "#2e9e5b"
    return ("🟡", "#f2c230") if value >= 90 else ("🔴", "#d64545")


class Report(NamedTuple):
    """What a report is made from, and its sections. A simulation has flow, seed and scenario."""

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
        lines = recommend(self.metrics) if self.tried is None else self.tried
        if UNCLASSIFIED not in self.metrics.history.environments:
            return lines
        why = "Some applications cannot be judged (nothing tells their environment)"
        told = f"{why}: --environments 'production=NAME-*' says it"
        return [*lines, told] if self.metrics.values["total_deployments"] else [told, *lines]

    @property
    def origin(self) -> Tuple[str, str]:
        """Whether the deployments were simulated or measured, from what; and their window."""
        history, source = self.metrics.history, SOURCES[full_source(self.metrics.history)]
        if history.is_simulated and self.commits_are_real:
            source = "SIMULATED deployments of real commits"
        window, days = history.window, count_text(history.window.days, "day")
        return source, f"{window.start:%Y-%m-%d} to {window.last:%Y-%m-%d} ({days}, UTC)"

    @property
    def ranked(self) -> List[Tuple[str, Dict[str, MetricRow]]]:
        """The applications of production with their rows, those deployed most first."""
        rows = self.metrics.by_application
        return sorted(rows.items(), key=lambda pair: -pair[1][FREQUENCY].n)

    @property
    def why_and_next(self) -> Tuple[str, str]:
        """The first gap that a change closes, or else the first one, and what to do about it."""
        pairs: List[Tuple[str, str]] = []
        for line in self.advice:
            if not line.startswith(" "):
                gap, doubt, remedy = line.replace("None: all", "All").partition("): ")
                gap, _, cause = (gap + ")" * bool(doubt)).partition("; ")
                pairs.append((gap, remedy or cause.partition(": ")[2]))
            else:
                change = line.strip().partition(": ")[0]
                if not change.startswith("No "):
                    return pairs[-1][0], change
        return pairs[0]

    def coverage_lines(self) -> List[str]:
        """What a real history covers: at most six lines, and every place in the details."""
        history = self.metrics.history
        if history.is_simulated:
            return []
        lines, coverage = [*self.origin], history.coverage
        if history.production != "production":
            lines.append(f"{history.production} is taken for production: it is the last one")
        if coverage is not None:
            counts = coverage["environment"].value_counts()
            named = [name for name in history.environments if name in counts]
            told = ", ".join(f"{name} {counts[name]}" for name in named)
            lines.append(f"Applications by environment: {told}")
            some = coverage[coverage["lost"] > 0]
            if len(some):
                last = history.covered(history.production)["from"].max()
                days = max((history.window.end - last.ceil("D")).days, 0)
                lines.append(
                    f"Lost: {some['lost'].sum():,} older entries in {len(some)} of {len(coverage)} "
                    "places; production is known as a whole for the last "
                    f"{count_text(days, 'day')}" + f" (--days {days})" * (days > 0)
                )
        parts = [join_folded([line]).splitlines() for line in (*lines, *history.notes)]
        many = len(parts)
        while sum(map(len, parts)) > 6 - (len(parts) < many) and not self.details:
            parts.pop()
        folded = sum(parts, [])
        folded += [f"and {many - len(parts)} more with --details"] * (len(parts) < many)
        places = coverage if self.details else None
        for row in () if places is None else places.head(1000).to_dict("records"):
            days = max((row["to"] - row["from"]).ceil("D").days, 1)
            lost = f", {row['lost']:,} lost before" * (row["lost"] > 0)
            origin = f"{shorten_text(row['origin'], 40)} ({row['rule']})"
            name = f"{shorten_text(str(row['application']), 18)} in {row['environment']}"
            folded.append(f"  • {name}: {count_text(days, 'day')}{lost}, from {origin}")
        return folded

    def git_lines(self) -> List[str]:
        """The commits, their authors and types."""
        types = self.metrics.values["commit_types"].items()
        if not types and not self.metrics.history.is_simulated:
            return []  # tables without commits are no repository without commits
        meanings = {name: f"{name} ({meaning})" for name, meaning in COMMIT_TYPES.items()}
        named = with_shares({meanings.get(name, name): n for name, n in types})
        lines = value_lines(self.metrics, ("total_commits", "contributors", "applications"))
        return lines + listed_lines("Commit Type Breakdown", named)

    def by_environment(self, title: str, counts: Mapping[str, int]) -> List[str]:
        """The share of each environment; among numbers of production it is said to be of all."""
        if len(counts) > 1 and not self.metrics.history.is_simulated:
            title += f" ({sum(counts.values()):,} in all environments)"
        named = {name[:1].upper() + name[1:]: count for name, count in counts.items()}
        return listed_lines(title, with_shares(named))

    def deployment_lines(self) -> List[str]:
        """The metrics of the seed, and where deployments and lead times went."""
        values, flow = self.metrics.values, self.flow
        keys = (
            "deployment_frequency", "total_deployments", "mean_lead_time", "median_lead_time",
            "change_failure_rate", "mttr_minutes",
        )  # fmt: skip
        lines = value_lines(self.metrics, keys)
        counts = values["deployments_by_environment"]
        lines += self.by_environment("Deployment Distribution", counts)
        if flow is not None:
            kinds = {
                "Superseded by a newer one": "superseded", "In flight at the end": "in_flight",
                "Held by an approval gate": "held",
            }  # fmt: skip
            sums = {
                name: f"{flow[kind].sum():,}" for name, kind in kinds.items() if any(flow[kind])
            }
            lines += listed_lines("Releases Not Deployed", sums)
        stages = () if self.scenario is None else self.scenario.environments
        ways, gates = {}, {one.name: f", {stage_text(one)}" for one in stages}
        for name, hours in values["lead_time_hours_by_environment"].items():
            if not math.isnan(hours):
                share = show_percent(hours, values["mean_lead_time"])
                own = f"{show_number(hours, ' hours')} ({share})"
                ways[f"Into {name}"] = own + gates.get(name, "")
        return lines + listed_lines("Where the Lead Time Goes", ways)

    def success_rates(self) -> List[Tuple[str, str, str, str]]:
        """The icon, name, success rate and counts of each environment.

        A rate is an upper bound where a failure could hide. It is grey then, unless it is red.
        """
        history, values, rows = self.metrics.history, self.metrics.values, []
        table, counts = history.deployments, values["deployments_by_environment"]
        unseen = set(table.loc[table["health"] == UNKNOWN, "environment"])
        for name, rate in values["success_rates"].items():
            total = counts[name]
            good = total - sum(values["failure_reasons_by_environment"][name].values())
            bound = rate >= 0 and (name in unseen or hides_failures(history))
            icon = rate_grade(math.nan if bound and rate >= 90 else rate)[0]
            note = f"{good:,}/{total:,} successful"
            if total and math.isnan(rate):
                note = f"{count_text(total, 'deployment')}, failures not observable"
            elif not history.is_simulated:
                note = f"{total - good:,}/{total:,} {'seen to fail' if bound else 'failed'}"
            shown = "≤ " * bound + show_number(rate, "%")
            rows.append((icon, shorten_text(name, 30), shown, note))
        return rows

    def success_lines(self) -> List[str]:
        """The success rate of each environment, and of all of a simulation."""
        rows, values = self.success_rates(), self.metrics.values
        wide = max(16, *(len(row[1]) for row in rows))
        size = 7 + 2 * any("≤" in row[2] for row in rows)
        lines = [
            f"{icon} {name:<{wide}} {rate:<{size}} ({note})" for icon, name, rate, note in rows
        ]
        if not self.metrics.history.is_simulated:
            return lines + ["≤ is an upper bound: not every failure was seen."] * (size > 7)
        total, failed = values["total_deployments"], values["failed_deployments"]
        overall = f"{show_percent(total - failed, total, 2)} ({total - failed:,}/{total:,})"
        return [*lines, "", line_of("Overall Success Rate:", overall)]

    def rollback_lines(self) -> List[str]:
        """The rollbacks, and the main reasons of failures."""
        history, values = self.metrics.history, self.metrics.values
        table, backs, failed = history.deployments, history.rollbacks, values["failed_deployments"]
        if not history.is_simulated:
            table, backs = (one[one["environment"] == history.production] for one in (table, backs))
        worked, total = int(backs["success"].sum()), len(backs)
        minutes = backs.loc[backs["success"], "duration_min"]
        lasting = (table["health"] == DEGRADED) & table["recovered"].isna()
        rows = {
            "Total Rollbacks": f"{total:,}",
            "Successful Rollbacks": f"{worked:,}",
            "Failed Rollbacks": f"{total - worked:,}",
            "Rollback Success Rate": show_percent(worked, total),
            "Failures Not Rolled Back": f"{max(failed - total, 0):,}",
            "Failures Not Over Yet": f"{lasting.sum():,}",
            "Average Rollback Time": show_long(minutes.mean(), " minutes"),
            "Fastest Rollback": show_long(minutes.min(), " minutes", 1),
            "Slowest Rollback": show_long(minutes.max(), " minutes", 1),
        }
        if not (total or history.is_simulated):
            known = "Total Rollbacks", "Failures Not Rolled Back", "Failures Not Over Yet"
            rows = {label: rows[label] for label in known}
        lines = [line_of(f"{label}:", text) for label, text in rows.items()]
        lines[6:6] = [""] * (len(lines) > 6)
        counts = values["rollbacks_by_environment"]
        lines += self.by_environment("Rollbacks by Environment", counts)
        reasons = dict(list(values["failure_reasons"].items())[:3])
        if list(reasons) in (["Rolled back"], ["Incident"]):  # it says no more than the counts
            return lines
        return lines + listed_lines("Main Failure Reasons", with_shares(reasons, failed))

    def production_lines(self) -> List[str]:
        """dora.dev's five metrics of production in two factors, beside the seed's names."""
        rows = self.metrics.production_rows
        names = {metric: f" ({METRICS[key].label})" for key, metric in DORA_NAMES.items()}
        names[FREQUENCY] = ""  # it is the same
        line, lines = "{:<41}{:>11}  {:<18}{:>8}".format, []
        for factor, keys in (("Throughput", THROUGHPUT), ("Instability", INSTABILITY)):
            lines.append(line(factor, "value", "95 % interval", "n"))
            for row in (rows[metric] for metric in keys):
                rest = (row.why, "") if math.isnan(row.value) else (row.interval, f"{row.n:,}")
                label = f"  {row.metric.label}{names.get(row.key, '')}"
                lines.append(line(label, short_text(row), *rest).rstrip())
        shipped, over = rows[LEAD].open, rows[RECOVERY].open
        lines.append(f"Still open: {count_text(shipped, 'change')}, {count_text(over, 'failure')}")
        if self.metrics.history.source == "git":
            lines.append("A failure was rolled back or reverted; a fix forward shows none.")
        if any(row.at_least for row in rows.values()):
            lines.append("≥ is a lower bound: not everything was seen.")
        return lines

    def application_lines(self) -> List[str]:
        """A line for each application in production."""
        ranked, most = self.ranked, 1000 if self.details else 40
        if not ranked or (self.metrics.history.is_simulated and not self.details):
            return []
        line = "{:<28}{:>13}{:>13}{:>13}{:>13}".format
        lines = [line("", "lead time", "frequency", "recovery", "fail rate")]
        for name, rows in ranked[:most]:
            cells = [short_text(rows[key]) for key in (LEAD, FREQUENCY, RECOVERY, FAIL_RATE)]
            lines.append(line(f"  • {shorten_text(name, 24)}", *cells))
        if len(ranked) > most:
            lines.append(f"  and {len(ranked) - most:,} more (--json has them all)")
        return lines

    def trend_lines(self) -> List[str]:
        """The metrics of production by week or month."""
        lines: List[str] = []
        grouped = () if self.trend is None else self.trend.groupby("metric", sort=False)
        line = "  {:<10}  {:>9}  {:<19} {:>6}  {}".format
        for metric, rows in grouped:
            label, unit = PRODUCTION_METRICS[metric][:2]
            lines += [""] * bool(lines) + [f"{label} ({unit.replace('/', 'a ')})"]
            lines.append(line("from", "value", "95 % interval", "n", "change"))
            for number, row in enumerate(rows.to_dict("records")):
                interval = f"{show_number(row['low'])} to {show_number(row['high'])}"
                interval = "" if math.isnan(row["low"]) else interval
                note = "within noise" if row["enough"] else "too little data"
                if math.isnan(row["value"]):
                    note = row["why"]
                elif row["differs"]:
                    ends = f"{row['change_low']:+,.2f} to {row['change_high']:+,.2f}"
                    note = f"{row['change']:+,.2f} ({ends})"
                elif row["enough"] and math.isnan(row["change_low"]):
                    note = "too little data before" if number else ""
                cells = show_number(row["value"]), interval, f"{row['n']:,}", note
                lines.append(line(f"{row['period']:%Y-%m-%d}", *cells).rstrip())
        return lines

    def evidence(self, row: MetricRow) -> str:
        """What a row of the verdict is made of; of a lead time also from where to where it is."""
        is_known = row.metric.label == "Lead Time" and not math.isnan(row.value)
        return row.why + f", {lead_time_way(self.metrics.history)}" * is_known

    def verdict_lines(self) -> List[str]:
        """The verdict: its source, the four with what they are made of, level and advice."""
        metrics, rows = self.metrics, self.metrics.production_rows
        (source, window), simulated = self.origin, metrics.history.is_simulated
        window += f", {metrics.scope}" + f", seed {self.seed}" * (self.scenario is not None)
        lines, missed = [source, window, ""], "❌ Needs Improvement ({} target, actual: {})"
        verdicts = {1.0: "✅ Elite ({} achieved: {})", 0.0: missed}
        for key, row in metrics.rows.items():
            target, shown = TARGETS[key], show_number(row.value, TARGETS[key].unit)
            if row.value >= 120 and target.unit in ("h", "min"):
                shown = in_human_units(row.value, target.unit)
            elif math.isnan(row.value) and metrics.met[key] == 1:
                shown = "n/a, nothing to recover from"
            text = verdicts.get(metrics.met[key], "⚪ {1} ({0} target, not judged)")
            text = text.format(target, "at least " * row.at_least + shown)
            lines += [f"{f'{row.metric.label}:':<21} {text}", f"{'':<24}{self.evidence(row)}"]
        if simulated and len(metrics.history.environments) > 1:
            lead, rate = rows[LEAD].text, f"{rows[FAIL_RATE].why} ({rows[FAIL_RATE].text})"
            told = f"{rows[FREQUENCY].text}, lead time {lead} (median), {rate}"
            lines.append(f"Production alone: {told}")
        level, score = level_and_score(metrics)
        tried = not simulated and any(line.startswith(" ") for line in self.advice)
        heading = f"Recommendations{' (tried in simulated months)' * tried}:"
        lines += ["", f"Performance Score: {score}", "", f"Maturity Level: {level}", "", heading]
        for line in self.advice:
            lines.append(f"    {line.strip()}" if line.startswith(" ") else f"  • {line}")
        return lines


def format_report(report: Report) -> str:
    """Return the console report: every section that has something to say."""
    lines = [DOUBLE_LINE, "🔄 GITOPS WORKFLOW AUTOMATION REPORT", DOUBLE_LINE, ""]
    if not (len(report.metrics.history.deployments) or report.metrics.values["total_commits"]):
        told = "Nothing happened: there is no commit and no deployment. Choose more --days, or"
        return join_folded([*lines, *report.origin, f"{told} another --end.", "", DOUBLE_LINE])
    sections = {
        "📡 WHAT THIS HISTORY COVERS": report.coverage_lines(),
        "📝 GIT ACTIVITY": report.git_lines(),
        "🚀 DEPLOYMENT METRICS (DORA), {scope}": report.deployment_lines(),
        "✅ SUCCESS RATES BY ENVIRONMENT": report.success_lines(),
        "🔄 ROLLBACK SUMMARY, {scope}": report.rollback_lines(),
        "🎯 PRODUCTION, AS DORA DEFINES IT": report.production_lines(),
        "📦 PRODUCTION BY APPLICATION": report.application_lines(),
        "📈 TREND OF PRODUCTION": report.trend_lines(),
        "🏆 DORA MATURITY ASSESSMENT": report.verdict_lines(),
    }
    for title, found in sections.items():
        if found:
            lines += [title.format(scope=report.metrics.scope.upper()), LINE, *found, ""]
    return join_folded([*lines, DOUBLE_LINE])


def level_and_score(metrics: Metrics) -> Tuple[str, str]:
    """Return the maturity level with its icon, and how many benchmarks are met."""
    level, unjudged = metrics.level, len(metrics.unjudged)
    score = f"{metrics.score}/{len(metrics.met)} metrics meeting elite criteria"
    name = "⚪ not assessable" if level is None else f"{level.icon} {level.name}"
    return name, score + f", {unjudged} not judged" * (unjudged > 0)


def format_summary(report: Report) -> str:
    """Return the executive summary: the level, why and what next, and the tier."""
    metrics, level = report.metrics, report.metrics.level
    frequency, lead, recovery, rate = SCOPES[metrics.scope]
    title, labels = "📊 EXECUTIVE SUMMARY OF PRODUCTION:", {}
    if metrics.history.is_simulated:
        title, labels = "📊 EXECUTIVE SUMMARY:", {lead: "Average Lead Time"}
        labels.update(total_commits="Total Git Commits", total_rollbacks="Automated Rollbacks")
    totals = ["total_commits", "total_deployments", "total_rollbacks"]
    if not (metrics.history.is_simulated or metrics.values["total_commits"]):
        del totals[0]  # tables without commits
    lines = [title]
    lines += value_lines(metrics, (*totals, frequency, lead, rate, recovery), "  ", **labels)
    lines.append(line_of("  Overall Maturity:", level.name if level else "not assessable"))
    for label, text in zip(("Why: ", "Next:"), report.why_and_next):
        lines += [f"  {label} {textwrap.shorten(text, WIDTH - 8, placeholder='...')}"] * bool(text)
    if level is not None and metrics.history.is_simulated:
        lines += ["", f"🏆 Performance Tier: {level.tier}"]
    return join_folded(lines)


def verdict_table(report: Report) -> pd.DataFrame:
    """Return the verdict on each of the four, as a notebook and Markdown show it."""
    marks, met = {1.0: "✅ yes", 0.0: "❌ no"}, report.metrics.met
    rows = [
        (row.metric.label, row.text, report.evidence(row), TARGETS[key].words,
         marks.get(met[key], "⚪ not judged"))
        for key, row in report.metrics.rows.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["Metric", "Value", "Made of", "Elite", "Met"])


def as_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, also in the cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


def format_markdown(report: Report) -> str:
    """Return one page: the verdict, production, environments, applications and the advice."""
    metrics, production = report.metrics, report.metrics.production_rows
    source, window = report.origin
    lines = [f"## {': '.join(level_and_score(metrics))}", ""]
    lines += [f"**{as_markdown(source)}**, {window}, {metrics.scope}", ""]
    verdict, labels = verdict_table(report), [one.label for one in PRODUCTION_METRICS.values()]
    made = [(row.metric.label, row.text, row.interval, row.why) for row in production.values()]
    places = [(name, note, rate) for _, name, rate, note in report.success_rates()]
    owned = [(name, *map(short_text, rows.values())) for name, rows in report.ranked[:20]]
    for title, heads, rows in (
        ("Verdict", list(verdict), verdict.to_numpy()),
        ("Production", ["Metric", "Value", "95 % interval", "Made of"], made),
        ("Environments", ["Environment", "Deployments", "Success rate"], places),
        ("Applications", ["Application", *labels], owned),
    ):
        if len(rows):
            table = [
                heads,
                ["---"] * len(heads),
                *([as_markdown(one) for one in row] for row in rows),
            ]
            lines += [f"### {title}", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    lines += ["### Recommendations", ""]
    for line in report.advice:
        lines.append("  " * line.startswith(" ") + f"- {as_markdown(line.strip())}")
    return "\n".join([*lines, ""])


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


def row_documents(rows: Mapping[str, MetricRow]) -> Dict[str, Dict[str, Any]]:
    """Return {metric: its fields}, the same for every metric."""
    return {metric: dict(zip(ROW, row[1:])) for metric, row in rows.items()}


def summary_document(
    metrics: Metrics, seed: Optional[int], flow: Optional[pd.DataFrame],
    scenario: Optional[Scenario] = None,
) -> Dict[str, Any]:  # fmt: skip
    """Return what `--json` prints and `metrics.json` holds, as plain JSON values."""
    history, level, met = metrics.history, metrics.level, metrics.met
    by_application, covered = metrics.by_application, history.coverage
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
        "applications": {name: row_documents(rows) for name, rows in by_application.items()},
        "maturity": {
            "scope": metrics.scope,
            "level": None if level is None else level.name,
            "score": metrics.score,
            "of": len(met) - len(metrics.unjudged),
            "elite": {key: None if math.isnan(one) else one == 1 for key, one in met.items()},
            "not_assessable": metrics.unjudged,
            "lead_time": lead_time_way(history),
        },
        "flow": None if flow is None else flow.to_dict("index"),
    }
    if not history.is_simulated:
        document["notes"] = history.notes
        document["coverage"] = [] if covered is None else covered.to_dict("records")
    return to_jsonable(document)


# ---- Reporting engine: metrics -> dashboard ------------------------------------------------------

INK, MUTED, PALE = "#1f2933", "#52606d", "#d9e2ec"
GREEN, YELLOW, RED, GREY = (rate_grade(rate)[1] for rate in (100, 90, 0, math.nan))
GRADE_MARKS = {GREEN: "✓", YELLOW: "!", RED: "✗", GREY: ""}  # read without colours as well
ENVIRONMENT_COLOURS = {"dev": "C0", "staging": "C1", "production": "C2", "others": GREY}
LINE_STYLES = (("-", "o"), ("--", "s"), ("-", "^"), (":", "D"))
THEME = {
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "text.hinting": "no_hinting",  # a tenth of the time to draw
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": PALE,
    "hatch.linewidth": 2.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}
PAGE_X, PAGE_Y, HEAD = 18, 10, 9.2  # of the page, in inches; the header begins at HEAD
GAP, PAD = 0.108, 0.234  # between two cards; from the edge of a card to what is in it
MOST_DAYS_DRAWN = 60  # days that have a dot each; of more, the weeks are drawn
MOST_SHOWN = 8  # bars, slices and lines; of more, the rest is one
BADGES = {
    "simulated": "SIMULATED",
    "git": "Desired state, from the config repository",
    "argocd": "Measured from Argo CD",
    "tags": "Measured from release tags",
    "files": "Measured from tables",
    SIMULATED_TABLES: "SIMULATED, read from tables",
}


@contextlib.contextmanager
def picture_style() -> Iterator[None]:
    """Set seaborn's white style in our colours; the caller's rcParams come back as they were."""
    import seaborn as sns
    from matplotlib import style

    with style.context(["default", {**sns.axes_style("whitegrid"), **THEME}]):
        yield


@picture_style()
def draw_dashboard(
    metrics: Metrics, dpi: int = 300, seed: Optional[int] = None, real_commits: bool = False
) -> Figure:
    """Draw the six panels on a transparent page of 18 x 10 in; pyplot does not know the figure."""
    history, values, when = metrics.history, metrics.values, metrics.history.window
    by_environment, badge = values["deployments_by_environment"], BADGES[history.source]
    total, rates = sum(by_environment.values()), values["success_rates"].values()
    nothing = "" if total else "No deployment is known in this window"
    unseen = "Unknown: failures are not observable here" * all(map(math.isnan, rates))
    production = "No deployment to production is known" * (not values["total_deployments"])
    commits = "" if values["commit_types"] else "No commit is known in this window"
    panels = {
        "Deployments Over Time": (plot_deployments_over_time, nothing),
        "Success Rate by Environment": (plot_success_rates, nothing or unseen),
        "Commit Types Distribution": (plot_commit_types, commits),
        "Deployment Status": (plot_deployment_status, nothing or production),
        "Deployments by Application": (plot_deployments_by_application, nothing or production),
        "DORA Metrics Scorecard": (plot_scorecard, ""),
    }
    note = f"{when.start:%Y-%m-%d} to {when.last:%Y-%m-%d} UTC, {count_text(when.days, 'day')}"
    if history.is_simulated and seed is not None:
        note += f", seed {seed}"
    if history.is_simulated and real_commits:
        badge = "SIMULATED deployments of real commits"
    to = f"{by_environment[history.production]:,} of them to {drawable(history.production)}"
    header = ("GitOps delivery dashboard", badge, note, count_text(total, "deployment"), to)
    figure, axes = new_page(header, list(panels), dpi)
    for ax, (plot, why) in zip(axes, panels.values()):
        if why:
            ax.set_axis_off()
            ax.text(0.5, 0.5, why, color=MUTED, fontsize=12, ha="center", transform=ax.transAxes)
        else:
            plot(metrics, ax)
    return figure


def plot_deployments_over_time(metrics: Metrics, ax: Axes) -> None:
    """Draw a line for each environment through its daily counts, or its weekly means if many."""
    history, days = metrics.history, metrics.history.window.days
    counts = np.where(metrics.days_known, metrics.deployments_by_day, np.nan)
    names, counts = few(history.environments, counts)
    x, weekly = np.arange(days), days > MOST_DAYS_DRAWN
    if weekly:  # whole weeks, counted from the end; a week is known where all its days are
        counts = counts[:, days % 7 :].reshape(len(names), -1, 7).mean(axis=2)
        x = x[days % 7 + 3 :: 7]
    else:
        for day in x[(history.window.start.weekday() + x) % 7 >= 5]:  # weekends
            ax.axvspan(day - 0.5, day + 0.5, color="#e9edf1", linewidth=0, zorder=0)
    steps = max(400 // len(x), 1)  # from one count to the next
    places = np.linspace(x[0], x[-1], (len(x) - 1) * steps + 1)
    styles = zip(colours_of(names, ENVIRONMENT_COLOURS), itertools.cycle(LINE_STYLES))
    for name, row, (colour, (line, marker)) in zip(names, counts, styles):
        look: Dict[str, Any] = dict(color=colour, clip_on=False)
        look.update(linewidth=2.8 if name == history.production else 1.7)
        if len(x) <= MOST_DAYS_DRAWN:
            look.update(marker=marker, markersize=4.5, markevery=steps)
        ax.plot(places, monotone_line(row, steps), line, **look)
    ax.set(ylabel="Deployments a day" + ", weekly mean" * weekly)
    ax.set(xlim=(-0.6, days - 0.4), ylim=(0, None))
    left = 0.3 + number_axis(ax.yaxis, whole=not weekly)
    dates, pattern, step = pd.date_range(history.window.start, periods=days), "%d %b", days / 6
    ticks = np.arange(0, days, math.ceil(step) if step <= 3 else 7 * math.ceil(step / 7))
    if days > 100:  # the first of months: at most six dates in all
        months, pattern = dates.year * 12 + dates.month - 1, "%b %Y"
        every = next((n for n in (1, 2, 3, 6, 12, 24, 60, 120) if days <= 190 * n), 600)
        ticks = np.flatnonzero((dates.day == 1) & (months % every == 0))
    ax.set_xticks(ticks)
    ax.set_xticklabels(dates[ticks].strftime(pattern))
    leave_room(ax, left, 0.3 + legend_below(ax, ax.get_lines(), names))


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
    t, low = np.arange(steps) / steps, counts[:-1, None]
    curve = low + rise[:, None] * t**2 * (3 - 2 * t)
    curve += slope[:-1, None] * t * (1 - t) ** 2 - slope[1:, None] * t**2 * (1 - t)
    line = np.append(curve.ravel(), counts[-1])
    line[::steps] = counts  # those before a gap as well
    return line


def plot_success_rates(metrics: Metrics, ax: Axes) -> None:
    """Draw a bar for each environment, coloured by `rate_grade`, and the 95 % target before it.

    Where the health of some deployments was not seen, the rate is an upper bound. The bar is grey
    then unless it is red: they may have failed.
    """
    history, health = metrics.history, [HEALTHY, DEGRADED, UNKNOWN]
    seen = history.deployments[["environment", "health"]].value_counts().unstack()
    seen = seen.reindex(index=history.environments, columns=health).fillna(0)
    names, counts = few(history.environments, seen.to_numpy())
    total, bound, spread = counts.sum(axis=1), counts[:, 2] > 0, len(names) > 4
    rates = safe_ratio(100 * (total - counts[:, 1]), total * (total > counts[:, 2]))
    size, lowest = (min(10, 66 / len(names)), 76) if spread else (12, 85)
    for place, (rate, at_most) in enumerate(zip(rates.tolist(), bound.tolist())):
        colour = GREY if at_most and rate >= 90 else rate_grade(rate)[1]
        words = [GRADE_MARKS[colour], "≤" * (at_most and rate >= 0), show_number(rate, "%", 1)]
        text = ("\n" if spread else " ").join(filter(None, words))
        height = np.nan_to_num(rate)
        top = height if height < lowest else max(95, height)  # no label on the target line
        ax.text(place, top + 1, text, ha="center", va="bottom", fontweight="bold", fontsize=size)
        ax.bar(place, height, width=0.6, color=colour)
    ax.axhline(95, color="#1b6b3c", linestyle="--", linewidth=2, zorder=3)
    look: Dict[str, Any] = dict(transform=ax.get_yaxis_transform(), va="center")
    ax.text(1.01, 95, "Target\n95%", color="#1b6b3c", fontweight="bold", **look)
    ax.set(ylabel="Not seen to fail (%)" if bound.any() else "Healthy deployments (%)")
    ax.set(ylim=(0, 115), yticks=range(0, 101, 20))
    ax.set(xlim=(-0.7, len(names) - 0.3), xticks=range(len(names)))
    labels = [drawable(name, 15 if len(names) < 4 else 12) for name in names]
    labels = [f"{name}{', ' if spread else chr(10)}n={n:,.0f}" for name, n in zip(labels, total)]
    ax.set_xticklabels(labels)
    left, bottom = 0.65, 0.5
    if spread:
        ax.tick_params("x", labelrotation=40, labelsize=8.5)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
        bottom = 0.25 + 0.65 * width_of(labels, 8.5)
        left = max(left, 0.77 * width_of(labels[:1], 8.5) - 2 / len(names))
    ax.grid(False, axis="x")
    leave_room(ax, left, bottom, 0.55)


def plot_commit_types(metrics: Metrics, ax: Axes) -> None:
    """Draw a pie of the commit types, each with its name and share beside its slice."""
    import seaborn as sns

    types = metrics.values["commit_types"]
    thin = sum(count < 0.005 * sum(types.values()) for count in types.values())
    names, counts = few(list(types)[::-1], list(types.values())[::-1], thin)
    known = {**dict(zip(COMMIT_TYPES, sns.color_palette("deep"))), "other": PALE, "others": GREY}
    plain = [drawable({"other": "no type"}.get(name, name), 11) for name in names]
    labels = [f"{name} {show_percent(n, sum(counts))}" for name, n in zip(plain, counts)]
    look: Dict[str, Any] = dict(startangle=180, labels=labels, colors=colours_of(names, known))
    texts = ax.pie(counts, wedgeprops=dict(edgecolor="white", linewidth=1.5), **look)[1]
    for side in ("left", "right"):  # labels that would touch move up or down, as little as may be
        column = [text for text in texts if text.get_ha() == side]
        column.sort(key=lambda text: text.get_position()[1])
        steps = 0.17 * np.arange(len(column))
        y = np.array([text.get_position()[1] for text in column]) - steps
        up, down = np.maximum.accumulate(y), np.minimum.accumulate(y[::-1])[::-1]
        for text, place in zip(column, (up + down) / 2 + steps):
            x = max(math.sqrt(max(1.1**2 - place**2, 0)), 0.05)
            text.set_position((x if side == "left" else -x, place))
    ax.set_ylim(-1.25, 1.25)


def plot_deployment_status(metrics: Metrics, ax: Axes) -> None:
    """Draw how many syncs ended Synced and Failed, and what became of the Synced."""
    values = metrics.values
    synced, failed = (values["deployments_by_status"][name] for name in (SYNCED, FAILED))
    degraded, unseen = values["failed_deployments"] - failed, values["unseen_deployments"]
    height = 0
    for name, count, colour, edge, hatch in (
        ("Healthy", synced - degraded - unseen, GREEN, GREEN, ""),
        ("health not seen", unseen, "#cbd2d9", "#cbd2d9", ""),
        ("Synced, then Degraded", degraded, "white", RED, "//"),
    ):
        if count:
            look: Dict[str, Any] = dict(color=colour, edgecolor=edge, hatch=hatch, linewidth=0)
            ax.bar(0, count, 0.5, height, label=f"{name}: {count:,}", **look)
            height += count
    ax.bar(1, failed, width=0.5, color=RED)
    failures = f"{failed:,}" + " seen" * (unseen > 0)
    if metrics.history.source in ("git", "tags"):
        failures = "unknown:\na repository shows\nno failed syncs"
    for place, count, text in ((0, synced, f"{synced:,}"), (1, failed, failures)):
        at = place, count + 0.015 * max(synced, failed)
        ax.text(*at, text, ha="center", fontweight="bold", fontsize=12)
    ax.set_ylabel(f"Deployments, {metrics.scope}")
    ax.set(xlim=(-0.6, 1.6), ylim=(0, 1.12 * max(synced, failed)))
    ax.set(xticks=[0, 1], xticklabels=[SYNCED, FAILED])
    ax.grid(False, axis="x")
    left, bottom = 0.3 + number_axis(ax.yaxis), 0.3
    if degraded or unseen:
        bottom += legend_below(ax, *ax.get_legend_handles_labels())
    leave_room(ax, left, bottom)


def plot_deployments_by_application(metrics: Metrics, ax: Axes) -> None:
    """Draw the deployments of each application, the greatest on top."""
    ranking = metrics.values["deployments_by_application"]
    names, counts = few(list(ranking)[::-1], list(ranking.values())[::-1])
    labels = [drawable(name, 24) for name in names]
    bars = ax.barh(range(len(names)), counts, height=0.6, color="#f093fb", edgecolor="black")
    ax.bar_label(bars, [f"{count:,}" for count in counts], padding=5, fontweight="bold")
    ax.set_xlabel(f"Deployments, {metrics.scope}")
    ax.set(ylim=(-0.7, len(names) - 0.3), yticks=range(len(names)))
    ax.set_yticklabels(labels)
    ax.margins(x=0.15)
    ax.grid(False, axis="y")
    number_axis(ax.xaxis)
    leave_room(ax, 0.15 + width_of(labels), 0.5)


def plot_scorecard(metrics: Metrics, ax: Axes) -> None:
    """Draw the level with its medal, and the judged metrics with their targets, in monospace."""
    say: Callable[..., Any] = functools.partial(ax.text, family="DejaVu Sans Mono", va="center")
    ax.set(xlim=(0, 10), ylim=(0, 10))
    ax.set_axis_off()
    left, level, name = 0.0, metrics.level, NOT_ASSESSABLE
    score = f"{metrics.score} of 4 elite targets met"
    score += f", {len(metrics.unjudged)} not judged" * (level is None)
    middle: Dict[str, Any] = dict(ha="center", color="white", fontweight="bold")
    if level is not None:  # a disc with its rank: the fonts have no medal
        left, name = 1.9, level.name
        ax.plot(0.75, 8.45, "o", markersize=44, color=level.medal)
        say(0.75, 8.4, "123↗"[LEVELS.index(level)], fontsize=24, **middle)
    say(left, 8.95, name, fontsize=18, fontweight="bold")
    say(left, 7.9, f"{score}, {metrics.scope}", fontsize=11, color=MUTED)
    ax.plot([0, 10], [6.95, 6.95], color=PALE, linewidth=1.2)
    for y, (key, row) in zip((6.1, 4.4, 2.7, 1.0), metrics.rows.items()):
        verdict = {1.0: "met: ", 0.0: "missed: "}.get(metrics.met[key], "not judged: ")
        mark, colour = {"met: ": ("✓", GREEN), "missed: ": ("✗", RED)}.get(verdict, ("?", GREY))
        target = f"elite {TARGETS[key].words}, " * (key not in metrics.unjudged)
        circle = dict(boxstyle="circle,pad=0.25", facecolor=colour, edgecolor="none")
        say(0.25, y - 0.3, mark, bbox=circle, **middle)
        say(0.8, y, row.metric.label, fontsize=12)
        say(10, y, row.text, fontsize=14, fontweight="bold", ha="right")
        say(0.8, y - 0.7, drawable(verdict + target + row.why, 58), color=MUTED)


@picture_style()
def draw_what_if(forecast: Forecast, dpi: int = 300) -> Figure:
    """Draw a card for each benchmark, with the months of each scenario in a row.

    An axis ends beyond 95 % of the months: the rare ones would press the others together.
    """
    measured = forecast.measured or {}
    note = f"{forecast.runs} months of {count_text(forecast.window.days, 'day')} for each "
    note += f"scenario, seed {forecast.seed}"
    if measured:
        note += ", baseline fitted to the measured history"
    targets = {key: TARGETS[key] for key in SCOPES[forecast.calibration.scope]}
    titles = [f"{METRICS[key].label}, elite {target.words}" for key, target in targets.items()]
    figure, axes = new_page(("What if?", "SIMULATED months", note, "", ""), titles, dpi)
    noise = np.random.Generator(np.random.PCG64(0)).uniform(-0.28, 0.28, 500)
    for ax, (key, target) in zip(axes, targets.items()):
        labels: List[str] = []
        ends = [target.limit, measured.get(key, math.nan)]
        for place, (name, months) in enumerate(forecast.months.items()):
            known = months[key][~np.isnan(months[key])][:500]
            dots: Dict[str, Any] = dict(alpha=0.35, markersize=4, markeredgewidth=0)
            dots.update(color="#7b5ea7" if place else "#829ab1")  # the baseline stands back
            ax.plot(known, place + noise[: len(known)], "o", label="a month", **dots)
            middle, low, high = month_spread(months[key])
            ends.append(high)
            ax.plot([low, high], [place] * 2, color=INK, linewidth=2, label="5-95 % of months")
            ax.plot([middle], [place], "D", color=INK, markersize=8, label="median month")
            met, of = target_odds(months, key)
            labels += [drawable(name, 32), f"target met: {show_percent(met, of, 0)}"]
        ax.axvline(target.limit, color=GREEN, linestyle="--", label="elite limit")
        if measured:
            ax.axvline(ends[1], color=RED, linestyle=":", linewidth=2.2, label="measured")
        if key in forecast.calibration.assumed:
            why = "n/a: " + forecast.calibration.assumed[key]
            ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", color=MUTED)
        rows = len(forecast.months)
        unit = "deployments a day" if target.unit == "/day" else METRICS[key].unit.strip()
        ax.set(xlabel=unit, xlim=(0, 1.2 * np.nanmax(ends)))
        ax.set(ylim=(rows - 0.4, -0.6), yticks=range(rows))
        ax.set_yticklabels(map("\n".join, zip(labels[::2], labels[1::2])))
        ax.grid(False, axis="y")
        number_axis(ax.xaxis, whole=False)
        leave_room(ax, 0.15 + width_of(labels), 0.5)
    shown = dict(zip(*reversed(axes[0].get_legend_handles_labels())))
    look: Dict[str, Any] = dict(loc="center right", bbox_to_anchor=(0.994, 0.966), ncol=len(shown))
    figure.legend(list(shown.values()), list(shown), **look)
    return figure


def new_page(header: Sequence[str], panels: Sequence[str], dpi: int) -> Tuple[Figure, List[Axes]]:
    """Return a transparent page of white cards, and the axes of its panels, in two rows.

    The header is a title, a badge (dark if SIMULATED), a note, and two lines at the right.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    figure, axes, columns = Figure(figsize=(PAGE_X, PAGE_Y), dpi=dpi), [], len(panels) // 2
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    inches = figure.dpi_scale_trans
    width, height = (PAGE_X - GAP) / columns - GAP, (HEAD - GAP) / 2 - GAP
    lefts, bottoms = GAP + np.arange(columns) * (width + GAP), (height + 2 * GAP, GAP)
    places = [(left, bottom) for bottom in bottoms for left in lefts]
    cards = [(place, width, height) for place in places]
    write: Callable[..., Any] = functools.partial(figure.text, va="center", transform=inches)
    for card in (*cards, ((GAP, HEAD), PAGE_X - 2 * GAP, PAGE_Y - HEAD - GAP)):
        look: Dict[str, Any] = dict(facecolor="white", edgecolor="#cbd2d9", transform=inches)
        look.update(boxstyle="round,pad=0,rounding_size=0.14", zorder=-1)
        figure.add_artist(FancyBboxPatch(*card, **look))
    for name, (left, bottom) in zip(panels, places):
        write(left + PAD, bottom + height - 0.37, name, fontsize=14, fontweight="bold")
        corner = (left + PAD) / PAGE_X, (bottom + 0.2) / PAGE_Y
        room = (width - 2 * PAD) / PAGE_X, (height - 0.8) / PAGE_Y
        axes.append(figure.add_axes((*corner, *room), label=name))
    title, badge, note, count, to = header
    left, right, above, below = GAP + PAD, PAGE_X - GAP - PAD, HEAD + 0.46, HEAD + 0.15
    write(left, above, title, fontsize=18, fontweight="bold")
    write(left, below, note, fontsize=12, color=MUTED)
    write(right, above, count, fontsize=18, ha="right", fontweight="bold")
    write(right, below, to, fontsize=12, color=MUTED, ha="right")
    dark, light = (INK, "white") if badge.startswith("SIMULATED") else ("white", INK)
    box = dict(boxstyle="round,pad=0.35", facecolor=dark, edgecolor=INK)
    beside = left + 0.3 + width_of([title], 18)
    write(beside, above, badge, fontsize=12, fontweight="bold", color=light, bbox=box)
    return figure, axes


def leave_room(ax: Axes, left: float, bottom: float, right: float = 0.0) -> None:
    """Leave room on the card of a panel, in inches, for what stands beside its axes."""
    box = ax.get_position(original=True)
    width, height = box.width - (left + right) / PAGE_X, box.height - bottom / PAGE_Y
    ax.set_position((box.x0 + left / PAGE_X, box.y0 + bottom / PAGE_Y, width, height))


def width_of(labels: Sequence[str], size: float = 10) -> float:
    """Return how many inches the widest of some labels takes, by the number of its letters."""
    wide = max(len(label) + 0.25 * len(re.findall("[A-Zmw%…]", label)) for label in labels)
    return 0.58 * size / 72 * wide


def number_axis(axis: Any, whole: bool = True) -> float:
    """Write round numbers on an axis; return how many inches the widest of them takes."""
    pattern = "{x:,.10g}"
    axis.get_major_locator().set_params(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=whole)
    axis.set_major_formatter(pattern)
    return width_of([pattern.format(x=tick) for tick in axis.get_majorticklocs()])


def legend_below(ax: Axes, artists: Sequence[Any], names: Sequence[str]) -> float:
    """Draw a legend at the bottom of the card of a panel; return its height in inches."""
    box = ax.get_position(original=True)
    labels = [drawable(name, 12 if len(names) > 3 else 34) for name in names]
    columns = max(int(box.width * PAGE_X / (0.6 + width_of(labels))), 1)
    place: Dict[str, Any] = dict(loc="lower left", bbox_to_anchor=box.p0, borderaxespad=0)
    place.update(bbox_transform=ax.figure.transFigure, ncol=columns, borderpad=0)
    ax.legend(artists, labels, handlelength=2.6, columnspacing=1.4, labelspacing=0.3, **place)
    return 0.1 + 0.2 * math.ceil(len(names) / columns)


def few(names: Sequence[str], rows: Any, least: int = 0) -> Tuple[List[str], Any]:
    """Return the last eight names and their rows; before them, the sum of the others as one."""
    first = max(len(names) - MOST_SHOWN, least)
    if first < 2:
        return list(names), rows
    return ["others", *names[first:]], np.add.reduceat(rows, [0, *range(first, len(names))])


def colours_of(names: Sequence[str], known: Mapping[str, Any]) -> List[Any]:
    """Return the known colour of each name; the others take unused ones in turn."""
    taken = {known[name] for name in names if name in known}
    spare = (colour for colour in map("C{}".format, range(10)) if colour not in taken)
    return [known.get(name) or next(spare) for name in names]


def drawable(text: str, width: int = 18) -> str:
    """Return a name as matplotlib can draw it: no mathtext, no unknown character, not too long."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    text = "".join(letter if font.get_char_index(ord(letter)) else "?" for letter in text)
    return shorten_text(text, width).replace("$", r"\$")


def render_png(figure: Figure) -> bytes:
    """Return the figure as a palette PNG: a third of the size of RGBA, and faster to write.

    Its 40 most frequent colours stay as they are. The rare others (edges of letters) become the
    nearest of those. This works on runs of equal pixels: a chart has fifty times fewer of them.
    """
    from PIL import Image  # matplotlib requires Pillow and writes PNG files with it

    canvas: Any = figure.canvas
    with picture_style():
        canvas.draw()
    rgba = np.asarray(canvas.buffer_rgba())
    pixels = np.ascontiguousarray(rgba).view("<u4").ravel()
    starts = np.append(0, np.flatnonzero(pixels[1:] != pixels[:-1]) + 1)
    lengths = np.diff(np.append(starts, len(pixels)))
    colour_of_run, colours = pd.factorize(pixels[starts])  # by hashing: sorts nothing
    frequent = np.argsort(-np.bincount(colour_of_run, lengths), kind="stable")[:40]
    channels = colours.astype("<u4").view(np.uint8).reshape(-1, 4).astype(np.int32)
    distance = sum((channels[:, [i]] - channels[frequent, i]) ** 2 for i in range(4))
    index = distance.argmin(axis=1).astype(np.uint8)
    image = Image.fromarray(np.repeat(index[colour_of_run], lengths).reshape(rgba.shape[:2]))
    palette, file = channels[frequent].astype(np.uint8), io.BytesIO()
    image.putpalette(palette[:, :3].tobytes())
    clear, dpi = palette[:, 3].tobytes(), (figure.dpi, figure.dpi)
    image.save(file, "PNG", transparency=clear, dpi=dpi, compress_level=4)
    return file.getvalue()


# ---- What-if: scenarios -> months side by side --------------------------------------------------

BLOCK = 250  # months simulated at once, fewer where they have many commits: this bounds the memory
LEAST_MONTHS = 30  # of a difference: the normal interval is good from there on
MOST_RUNS = 100_000
WARM_UP = 28  # days that precede a simulated month, so that it does not begin empty

# fmt: off
FORECAST_METRICS: Dict[str, Metric] = {
    **{key: METRICS[key] for key in TARGETS},
    "production_deployment_frequency": Metric(
        "Production Frequency", "/day", "Deployments to production a day."),
    "production_median_lead_time": Metric(
        "Production Median Lead Time", " hours", "The median of change_lead_time_hours."),
    "production_change_fail_rate": Metric("Production Fail Rate", "%", "That of production."),
    "all_deployment_frequency": Metric("Frequency, All Environments", "/day", "To all of them."),
}
# fmt: on
"""What is known of each simulated month. The four that are judged are those of the scope."""

Change = Union[Scenario, Callable[[Scenario], Scenario]]
"""Another scenario, or what makes one from the baseline."""
Months = Dict[str, np.ndarray]
"""{metric: its value in each simulated month, NaN where it is undefined}"""


class Forecast(NamedTuple):
    """The months of a baseline and of other scenarios, side by side. A notebook shows the summary.

    `measured` has the forecast metrics of the history that the baseline was fitted to, `scores`
    what a backtest says of them. `table` has a row for each metric of each month.
    """

    months: Dict[str, Months]  # the first is the baseline
    scenarios: Dict[str, Scenario]
    calibration: Calibration
    window: Window
    seed: int
    measured: Optional[Mapping[str, float]] = None
    scores: Optional[pd.DataFrame] = None

    @property
    def baseline(self) -> Months:
        """The months of the baseline."""
        return next(iter(self.months.values()))

    @property
    def runs(self) -> int:
        """How many months each scenario has."""
        return len(self.baseline["deployment_frequency"])

    @property
    def table(self) -> pd.DataFrame:
        """A row for a metric of a month of a scenario: `scenario`, `run`, `metric`, `value`."""
        long = pd.concat({name: pd.DataFrame(own).unstack() for name, own in self.months.items()})
        long = long.rename_axis(["scenario", "metric", "run"]).reset_index(name="value")
        return long[["scenario", "run", "metric", "value"]]

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(format_forecast(self))}</pre>"


def simulate_events(draws: Draws, window: Window, noise: Noise, commits: Commits) -> Events:
    """Simulate what becomes of commits in the months of the draws: a group of events each."""
    deployments = run_pipeline(commits, draws, window, noise)[0]
    rollbacks, recovered = roll_back(deployments, draws, noise, len(commits.time))
    runs, environments = sum(months for _, months in draws), len(draws[0][0].environments)
    return Events(commits, deployments, rollbacks, recovered, window, runs, environments)


def forecast_months(
    changes: Mapping[str, Change],
    calibration: Calibration,
    window: Window,
    runs: int,
    seed: int,
) -> Dict[str, Months]:
    """Simulate the same `runs` months with each change of the baseline: {name: its months}.

    All scenarios share the noise and the draws of the knobs. So a change that changes nothing gives
    exactly the same months, and the months of a scenario do not depend on what it is compared with.
    """
    whole = Window(window.start - pd.Timedelta(days=calibration.warm_up), window.end)
    commits_per_month = max(whole.days * calibration.scenario.team.commits_per_day, 1)
    size = int(np.clip(2e6 / commits_per_month, 1, BLOCK))
    blocks: Dict[str, List[Months]] = {name: [] for name in changes}
    possible = calibration.draws(runs)
    for first in range(0, runs, size):
        noise, teams, commits = Noise(seed, 1 + first), None, None
        many = np.diff(np.clip(months_of_draws(possible), first, first + size)).tolist()
        known = [(one, n) for (one, _), n in zip(possible, many) if n]
        for name, change in changes.items():
            draws = [(apply_change(change, calibration.scenario, one), n) for one, n in known]
            if commits is None or [scenario.team for scenario, _ in draws] != teams:
                teams = [scenario.team for scenario, _ in draws]
                commits = simulate_commits(draws, whole, noise.stream("commits"))
            events = simulate_events(draws, whole, noise, commits)
            blocks[name].append(month_metrics(events, window, calibration))
    return {
        name: {key: np.concatenate([block[key] for block in months]) for key in FORECAST_METRICS}
        for name, months in blocks.items()
    }


def apply_change(change: Change, baseline: Scenario, draw: Scenario) -> Scenario:
    """Return what a change of the baseline makes of a possible scenario, the draw.

    A function changes the draw. A scenario changes the knobs in which it differs from the baseline;
    with other environments it replaces all but the team.
    """
    if not isinstance(change, Scenario):
        return change(draw)
    for name in change.groups if change.names == baseline.names else ["team"]:
        new, old, own = (vars(one.groups[name]) for one in (change, baseline, draw))
        change = change.with_knobs(name, **{one: own[one] for one in own if new[one] == old[one]})
    return change


def month_metrics(events: Events, window: Window, calibration: Calibration) -> Months:
    """Calculate the forecast metrics of each group of events, of what happened in the window.

    What happened before the window only fills the pipeline. Of a fitted team whose changes each
    have a deployment of their own, commits without one are no changes of production.
    """
    first, end = window.seconds
    production = events.in_production()
    changes = shipped_changes(production)
    if calibration.alone:
        own = production.deployments
        changes = Changes(own.group, events.commits.time[own.commit], own.end)
    inside = (changes.shipped >= first) & (changes.shipped < end)
    events, production = events.since(window), production.since(window)
    measured = measure_production(production, Changes(*(column[inside] for column in changes)))
    known = in_both_scopes(headline_metrics(events), scoped_metrics(measured), calibration.scope)
    known.update({key: np.full(events.groups, np.nan) for key in calibration.assumed})
    return {metric: known[metric].astype(float) for metric in FORECAST_METRICS}


def in_both_scopes(whole: Months, production: Months, scope: str) -> Months:
    """Return the forecast metrics that all environments and production have under their names."""
    known = {
        **whole,
        "all_deployment_frequency": whole["deployment_frequency"],
        "production_deployment_frequency": production["deployment_frequency"],
        "production_median_lead_time": production["median_lead_time"],
        "production_change_fail_rate": production["change_failure_rate"],
    }
    return {**known, **production} if scope == PRODUCTION_ALONE else known


def level_counts(months: Months, calibration: Calibration) -> Dict[str, int]:
    """Return how many months reach each level; none where a metric of the four is not known.

    Months of which one cannot be judged are NOT_ASSESSABLE, if there are any.
    """
    if {*calibration.assumed} & {*SCOPES[calibration.scope]}:
        return {}
    scores = pd.Series(sum(judge_all({**months, "scope": calibration.scope}).values()))
    names = scores.map(lambda score: NOT_ASSESSABLE if score != score else level_of(score).name)
    return {**dict.fromkeys((level.name for level in LEVELS), 0), **names.value_counts().to_dict()}


def target_odds(months: Months, metric: str) -> Tuple[int, int]:
    """Return how many months meet a target, and how many can be judged by it."""
    verdict = judge(metric, months)
    return int(np.nansum(verdict)), int((~np.isnan(verdict)).sum())


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

    The change is of knobs, or it is a preset or a JSON file. GitOpsError if it is none of these.
    A preset has the team of the baseline, and its commits are those of the first environment.
    """
    found = re.fullmatch(r"([^=:]{2,}|[^=:](?!:[\\/])):\s*(.+)", text.strip())
    name, text = found.groups() if found else (text, text)
    if "=" in text:
        parse_change(text, baseline)
        return name, functools.partial(parse_change, text)

    def preset(draw: Scenario) -> Scenario:
        first, rate = draw.environments[0], draw.team.commits_per_day
        rate *= first.approval_rate if first.starts == "commit" else 1
        return PRESETS[text].replaced({"team": draw.team.replaced({"commits_per_day": rate})})

    if text in PRESETS:
        return name, preset
    if not Path(text).is_file():
        ways = f"KNOB=VALUE, a preset ({', '.join(PRESETS)}) or a JSON file"
        raise GitOpsError(f"unknown scenario {in_quotes(text)}: there is no such file; give {ways}")
    return name, read_scenario(text, baseline)


# ---- Recommendations: the smallest change that meets a target -----------------------------------

RATIOS = tuple(float(f"{0.5 ** (step / 4):.2g}") for step in range(1, 33))  # a sixth less to 1/256
HALF = RATIOS.index(0.5)


class Lever(NamedTuple):
    """A knob that a team can improve."""

    group: str  # of the scenario's groups
    declared: Any  # the dataclass field of the knob

    @property
    def path(self) -> str:
        """What a change calls the knob."""
        return f"{self.group}.{self.declared.name}"

    def apply(self, ratio: float, scenario: Scenario) -> Scenario:
        """Return the scenario with the knob improved: times, risks and failures times the ratio.

        Values have two digits, as people say them. A gate is opened, whatever the ratio. What
        never comes does not come sooner.
        """
        name = self.declared.name
        value: Any = getattr(scenario.groups[self.group], name)
        if name == "open_hours":
            value = "always"
        elif name.endswith("_rate"):
            value = 1 - float(f"{(1 - value) * ratio:.2g}")
        else:
            value = np.array([float(f"{ratio * edge:.2g}") for edge in np.atleast_1d(value)])
            value = (
                np.where(value < ratio * NO_END, value, NO_END) if name == "wait_hours" else value
            )
        return scenario.with_knobs(self.group, **{name: value})

    def in_words(self, ratio: float, scenario: Scenario) -> str:
        """Return the change in words; of measured times it is a share of each."""
        groups = (one.groups[self.group] for one in (scenario, self.apply(ratio, scenario)))
        name, phrase = self.declared.name, self.declared.metadata["phrase"]
        before, after = (in_words(name, getattr(group, name)) for group in groups)
        after += f" ({100 * ratio:.2g} % of each)" * after.startswith("a median")
        return phrase.format(environment=self.group, before=before, after=after)


def in_words(knob: str, value: Any) -> str:
    """Return the value of a knob as people say it: 24-72 h, a median of 36.9 h, 95 %."""
    if knob == "open_hours" and not isinstance(value, str):
        share = np.reshape(value, (7, 24)) / sum(value)
        day, late = 100 * share.sum(axis=0)[8:18].sum(), 100 * share[5:].sum()
        return f"{day:.0f} % from 8 to 18 h UTC, {late:.0f} % at weekends"
    if isinstance(value, str):
        return value
    if knob.endswith("_rate"):
        return f"{100 * value:.3g} %"
    own = {"hours": 3600, "min": 60, "sec": 1}.get(knob.rpartition("_")[2])
    if own is None:
        return f"{value:.3g}"
    edges, words = own * np.unique(value), ""
    if edges[-1] == 0:
        return "none"
    if np.median(value) >= NO_END:
        return "without end for more than half"
    if np.size(value) > 2:
        words, edges = "a median of ", own * np.median(value, keepdims=True)
    least = edges[edges > 0].min(initial=4 * DAY)
    units = (("days", DAY, 4 * DAY), ("h", 3600, 3600), ("min", 60, 60), ("s", 1, 0))
    unit, size = next((unit, size) for unit, size, enough in units if least >= enough)
    return f"{words}{'-'.join(f'{edge / size:.3g}' for edge in edges)} {unit}"


def levers_for(calibration: Calibration, metric: str = "") -> List[Lever]:
    """Return the knobs that can be improved, and help a metric if one is named.

    A knob that was fitted to fewer than six observations is left out. So is the approval rate of an
    environment with commits of its own: it is the share of the commits that are for it.
    """
    seen = {(fitted.group, fitted.knob): fitted.n for fitted in calibration.knobs}
    shares = {one.name for one in calibration.scenario.environments if one.starts == "commit"}
    metric = "mean_lead_time" if metric == "median_lead_time" else metric
    found = []
    for name, group in calibration.scenario.groups.items():
        for declared in dataclasses.fields(group):  # type: ignore[arg-type]
            lever, helps = Lever(name, declared), declared.metadata.get("helps", ())
            enough = not seen or seen.get((name, declared.name), 0) >= FEW
            is_share = declared.name == "approval_rate" and name in shares
            if enough and not is_share and (metric in helps if metric else helps):
                same = lever.apply(RATIOS[-1], calibration.scenario) == calibration.scenario
                found += [] if same else [lever]
    return found


@dataclass(frozen=True)
class Trial:
    """The simulated months on which changes are tried."""

    calibration: Calibration
    window: Window
    runs: int
    seed: int

    def months(self, changes: Mapping[Any, Change], many: int, fresh: bool) -> Dict[Any, Months]:
        """Return some months of each change, all with the same noise; fresh ones have other."""
        seed = self.seed + fresh
        return forecast_months(changes, self.calibration, self.window, many, seed)

    @functools.cached_property
    def baseline(self) -> Months:
        """The months without a change."""
        return self.months({"": self.calibration.scenario}, self.runs, False)[""]


def lever_table(trial: Trial, metric: str = "") -> pd.DataFrame:
    """Return the effect of each knob, improved by a quarter over the same months.

    A row is a knob, the largest effect first. Columns: `knob`, `change` in words, `before` and
    `after` (the mean month), `difference` and its 95 % interval, `low` and `high`. Without a metric
    it is the one of the four that the fewest months meet. `attrs["metric"]` names it. GitOpsError
    for a metric that cannot be forecast from the history.
    """
    scenario, assumed = trial.calibration.scenario, trial.calibration.assumed
    if metric in assumed:
        why = f"{metric} cannot be forecast, as {assumed[metric]}"
        raise GitOpsError(f"{why}; take another metric")
    if not metric:
        odds = {key: target_odds(trial.baseline, key) for key in SCOPES[trial.calibration.scope]}
        metric = min(odds, key=lambda key: odds[key][0] if odds[key][1] else math.inf)
    levers = {lever.path: lever for lever in levers_for(trial.calibration)}
    changes = {path: functools.partial(lever.apply, 0.75) for path, lever in levers.items()}
    before, rows = trial.baseline[metric], []
    for path, months in trial.months(changes, trial.runs, False).items():
        words, means = levers[path].in_words(0.75, scenario), pd.DataFrame([before, months[metric]])
        rows.append((path, words, *means.mean(axis=1), *paired_difference(months[metric], before)))
    columns = ["knob", "change", "before", "after", "difference", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.sort_values("difference", key=lambda one: -one.abs(), kind="stable")
    table.attrs.update(metric=metric, runs=trial.runs, seed=trial.seed)
    return table.reset_index(drop=True)


def target_share(months: Months, metric: str) -> float:
    """Return the share of months that meet a target, of those that can be judged."""
    met, known = target_odds(months, metric)
    return met / max(known, 1)


def find_advice(metric: str, places: Sequence[str], trial: Trial) -> str:
    """Return the smallest change that meets a target in nine of ten months, or why there is none.

    1. Nothing is tried without observations, or where the months meet the target as things are.
    2. One knob, of any environment; of equal ones that of the first place, the worst. To open a
       gate counts as much as half of a wait, so it comes first where its hours take more.
    3. All knobs of the worst place together.
    4. Where none of these does, what meets it in three quarters of the months, or in half, if that
       is a tenth more than as things are.

    The ratio is found by bisection on a third of the months. Fresh months confirm it, or one of the
    next two.
    """
    (met, known), runs = target_odds(trial.baseline, metric), trial.runs
    levers = levers_for(trial.calibration, metric)
    why, remedy = trial.calibration.assumed.get(metric, ""), TO_OBSERVE[metric]
    if not why and known < min(10, runs):
        why, remedy = f"only {known} of {runs} months have a value", "--runs N simulates more"
    elif not why and met >= 0.9 * known:
        return f"Nothing to change: {met} of {known} simulated months meet the target as things are"
    elif not why and not levers:
        why = f"no knob that helps has {FEW} observations in the last {RECENT} days"
    if why:
        return f"No change was tried, as {why}: {remedy}"
    levers.sort(key=lambda lever: places.index(lever.group) if lever.group in places else 99)
    together = [lever for lever in levers if lever.group == places[0]]
    choices = [*([lever] for lever in levers), together]

    def improved(number: int, step: int, scenario: Scenario) -> Scenario:
        for lever in choices[number]:
            scenario = lever.apply(RATIOS[step], scenario)
        return scenario

    def tried(steps: Mapping[int, int], many: int, fresh: bool = False) -> Dict[int, Months]:
        changes = {n: functools.partial(improved, n, step) for n, step in steps.items()}
        return trial.months(changes, many, fresh)

    few, last = max(runs // 3, min(runs, 10)), len(RATIOS) - 1
    most = tried(dict.fromkeys(range(len(choices)), last), few)
    kinds = range(len(levers)), [len(levers)] * (len(together) > 1)
    goals = {0.9: "nine of ten", 0.75: "three quarters", 0.5: "half"}
    goals = {one: goals[one] for one in goals if one >= min(met / known + 0.1, 0.9)}
    for wanted, numbers in itertools.product(goals, kinds):
        bounds = {n: [-1, last] for n in numbers if target_share(most[n], metric) >= wanted}
        for n in bounds:
            if [lever.declared.name for lever in choices[n]] == ["open_hours"]:
                bounds[n] = [HALF - 1, HALF]
        while any(high - low > 1 for low, high in bounds.values()):
            steps = {n: sum(ends) // 2 for n, ends in bounds.items() if ends[1] - ends[0] > 1}
            for n, months in tried(steps, few).items():
                bounds[n][target_share(months, metric) >= wanted] = steps[n]
        for n, (_, first) in sorted(bounds.items(), key=lambda item: item[1][1]):
            for step in range(first, min(first + 3, len(RATIOS))):
                months = tried({n: step}, runs, fresh=True)[n]
                if target_share(months, metric) >= wanted:
                    return advice_line(metric, choices[n], RATIOS[step], months, trial)
    return (
        f"No knob of {places[0]} is enough to meet the {METRICS[metric].label} target: neither all "
        f"of them together nor one of any place does so in {[*goals.values()][-1]} of the "
        "simulated months"
    )


def advice_line(
    metric: str, chosen: Sequence[Lever], ratio: float, months: Months, trial: Trial
) -> str:
    """Return what a change does to a metric."""
    first, *others = (lever.in_words(ratio, trial.calibration.scenario) for lever in chosen)
    words = " and ".join([first, *(text[:1].lower() + text[1:] for text in others)])
    practices = "; ".join(dict.fromkeys(one.declared.metadata["practice"] for one in chosen))
    label = METRICS[metric].label
    label = label if label.isupper() else label.lower()
    was, (now, low, high) = month_spread(trial.baseline[metric])[0], month_spread(months[metric])
    met, known = target_odds(months, metric)
    levels = level_counts(months, trial.calibration)
    elite = f", ELITE in {levels[LEVELS[0].name]} of {trial.runs}" if levels else ""
    return (
        f"{words} ({practices}): {label} {was:.1f} → "
        f"{with_unit(f'{now:.1f}', TARGETS[metric].unit)} ({low:.1f}-{high:.1f} in 9 of 10), "
        f"target met in {met} of {known} simulated months{elite}"
    )


# What the report recommends: by how much each target is missed, the cause, and what helps.


def diagnose(key: str, values: Mapping[str, Any]) -> Tuple[str, List[str]]:
    """Return by how much a target is missed and why, and where: the worst groups first."""
    value, target = values[key], TARGETS[key]
    total, reasons = values["deployments_by_environment"], values["failure_reasons_by_environment"]
    judged = list(total)[-1 if values["scope"] == PRODUCTION_ALONE else 0 :]
    failed = {name: sum(reasons[name].values()) for name in judged}
    lost = {
        "deployment_frequency": {name: -total[name] for name in judged},
        "mttr_minutes": {"rollback": 0},
        "change_failure_rate": failed,
    }.get(key, values["lead_time_hours_by_environment"])
    places = sorted(lost, key=lambda name: np.nan_to_num(lost[name], nan=-1.0), reverse=True)
    worst = places[0]
    if key == "deployment_frequency":
        count = count_text(values["total_deployments"], "deployment")
        cause = f"the window has {count}: make changes smaller, and promote more often"
    elif key == "mttr_minutes":
        cause = f"{count_text(values['failed_deployments'], 'failure')}: automate the way back"
    elif key == "change_failure_rate":
        reason = next(iter(reasons[worst]), "no reason given")
        rate = in_human_units(100 - values["success_rates"][worst], "%", 1)
        share = f"{failed[worst]} of {sum(failed.values())} failures"
        cause = f"{worst} has {share} ({rate} of its deployments), most often: {reason}"
    else:
        whole = np.nansum(list(lost.values()))
        hours, share = in_human_units(lost[worst], "h"), f"{100 * lost[worst] / whole:.0f} %"
        part = f"of the mean ({hours})"
        if key == "median_lead_time":
            part = f"of the time from commit to production ({hours} on average)"
        cause = f"the way into {worst} takes {share} {part}: shorten it first"
    shown = f"{METRICS[key].label} {in_human_units(value, target.unit)}"
    side, limit = "above" if target.better == "<" else "below", f"{target.limit:g}"
    percent = 100 * abs(value / target.limit - 1)
    missed_by = f"{percent:.{0 if percent >= 1 else 2}f} % {side}"
    if value == target.limit:
        missed_by = "no better than"
    if percent >= 1000:
        missed_by = f"{value / target.limit:,.0f} times"
    return f"{shown} is {missed_by} the target of {with_unit(limit, target.unit)}; {cause}", places


TO_OBSERVE = {
    "deployment_frequency": "measure more days",
    "mean_lead_time": "measure more days",
    "median_lead_time": "give the commits (--repo takes a clone, --history a changes.csv)",
    "git": "only a deployment of a new version has one in a config repository",
    "mttr_minutes": "tell with --incidents when each failure began and was over",
    "change_failure_rate": "tell with --incidents which deployments failed",
}
"""How to observe what is missing where a target can be neither met nor missed."""


def recommend(metrics: Metrics, trial: Optional[Trial] = None) -> List[str]:
    """Return the advice of the report: for each target by how much it is missed, why, what helps.

    For a target that cannot be judged: what is not known, and how to observe it. Fewer than six
    observations ask for more of the same, unless most deployments have no lead time at all.
    """
    lines = []
    for key, met in metrics.met.items():
        if math.isnan(met):
            row, values = metrics.rows[key], metrics.values
            dated = 2 * values["dated_deployments"] >= values["total_deployments"]
            is_thin = 0 < row.n < ENOUGH and (key != "median_lead_time" or dated)
            if key == "median_lead_time" and metrics.history.source == "git":
                key = "git"
            remedy = TO_OBSERVE["deployment_frequency" if is_thin else key]
            lines.append(f"{row.metric.label} cannot be judged ({row.why}): {remedy}")
        elif not met:
            line, places = diagnose(key, metrics.values)
            lines.append(line)
            lines += [] if trial is None else [f"  {find_advice(key, places, trial)}"]
    return lines or ["None: all four targets are met"]


# ---- Calibration: history -> scenario, with what is not known -----------------------------------

PERIOD = 28 * DAY  # a month here: each has the same weekdays
RECENT = 6 * 28  # days that a scenario is fitted to: what is older tells of another pipeline
LONGEST = 60  # days: a longer wait counts as this, and no month is preceded by more
NO_END = 1e5  # hours: the wait of what never comes, in no month that is simulated
FEW = 6  # with fewer observations a month's level is not told, and a knob is no lever
MANY = 20  # moments of passages from which on the hours of the week are told
DRAWS = 100


class Fitted(NamedTuple):
    """A knob, its value that fits a history best, and `DRAWS` values that are possible too."""

    group: str
    knob: str
    value: Any
    possible: Sequence[Any]  # none where the value is not in doubt
    n: int  # observations that it was fitted to; 0: it keeps the default
    what: str  # what the observations are; "": the notes need not say it


@dataclass(frozen=True)
class Calibration:
    """The scenario that fits a history best, and what is not known of it.

    `assumed` tells for each forecast metric that rests on defaults alone why it is `n/a`. `warm_up`
    is the number of days simulated before a month, so that it does not begin empty. `scope` is what
    the months are judged by. Without a history the scenario is known exactly: it has no `knobs`.
    """

    scenario: Scenario
    knobs: Tuple[Fitted, ...] = ()
    assumed: Mapping[str, str] = field(default_factory=dict)
    warm_up: int = WARM_UP
    scope: str = ALL_ENVIRONMENTS
    alone: bool = False  # whether each change ships with a deployment of its own, as versions do

    @functools.cached_property
    def possible(self) -> List[Scenario]:
        """`DRAWS` scenarios, each with one possible value of every knob that is in doubt."""
        found, unsure = [], [fitted for fitted in self.knobs if len(fitted.possible)]
        for values in zip(*(fitted.possible for fitted in unsure)):
            drawn = self.scenario
            for fitted, value in zip(unsure, values):
                drawn = drawn.with_knobs(fitted.group, **{fitted.knob: value})
            found.append(drawn)
        return found or [self.scenario]

    def draws(self, months: int) -> Draws:
        """Share months among the scenarios that are possible."""
        edges = np.linspace(0, months, min(len(self.possible), months) + 1).astype(int)
        return list(zip(self.possible, np.diff(edges).tolist()))

    @property
    def notes(self) -> List[str]:
        """What each knob was fitted to, a line for each group."""
        notes: Dict[str, List[str]] = collections.defaultdict(list)
        for group, knob, value, possible, n, what in self.knobs:
            seen = f"n={n:,} {what}" if n else "the default, as the history does not tell"
            if len(possible) and not isinstance(value, tuple):
                edges = np.quantile(np.array(possible, float), [0.05, 0.95]).tolist()
                seen = f"{' to '.join(in_words(knob, edge) for edge in edges)}; {seen}"
            if what:
                notes[group].append(f"{knob} {in_words(knob, value)} ({seen})")
        return [f"{group}: {'; '.join(texts)}" for group, texts in notes.items()]


def calibrate(history: History, base: Scenario = Scenario()) -> Calibration:
    """Fit a scenario to the last 24 weeks of a history, and say what is not known of it.

    A knob of which the history tells nothing keeps the value of `base`. GitOpsError for a history
    that has no deployment to production in these.
    """
    history = recent_part(history)
    seen = count_words(history.deployments["environment"])
    names = [name for name in history.environments if name in seen and name != UNCLASSIFIED][-50:]
    if history.production not in names:
        when = f"the last {history.window.days} days"
        raise GitOpsError(f"nothing to fit: in {when} no deployment came to a known production")
    least = FEW * (max(seen[name] for name in names) >= MANY)  # what is hardly used is no stage
    names = [name for name in names if seen[name] >= least or name == history.production]
    rng, warm_up = np.random.Generator(np.random.PCG64(history.window.days)), 7.0
    stages: List[Passages] = []
    before = None
    for name in names:
        here = releases_to(history, name)
        stages.append(passages_to(history, name, here, before))
        before = here
    team, rate, shares = fit_team(history, names, stages, base.team, rng)
    defaults = {one.name: one for one in base.environments}
    environments, knobs = [], [rate]
    for name, stage, share in zip(names, stages, shares):
        default = defaults.get(name, Environment(name))
        environment, fitted = fit_environment(history, stage, default, share, rng)
        environments.append(environment)
        knobs += fitted
        waits = np.subtract(*reversed(stage.ways))
        warm_up += float(np.quantile(waits, 0.95)) / DAY if len(waits) else 0
    rollback, fitted = fit_recovery(history, base.rollback, rng)
    knobs += fitted
    scenario = Scenario(team, tuple(environments), rollback, base.failure_reasons)
    alone = any(one.starts == "commit" for one in environments[1:])
    if history.changes is not None:  # then a version that was skipped is no change of production
        shipped = history.changes_to(names[-1])[["application", "deployed"]].dropna()
        alone |= len(shipped) <= 1.1 * len(shipped.drop_duplicates())
    assumed = assumed_metrics(scenario, knobs)
    days = int(min(warm_up, LONGEST))
    return Calibration(scenario, tuple(knobs), assumed, days, scope_of(history), alone)


def recent_part(history: History) -> History:
    """Return the last 24 weeks of a history."""
    days = min(history.window.days, RECENT)
    return history.within(Window.before(history.window.end, days))


def assumed_metrics(scenario: Scenario, knobs: Sequence[Fitted]) -> Dict[str, str]:
    """Return the forecast metrics that rest on defaults alone, each with the reason."""
    unknown = {f"{fitted.group}.{fitted.knob}" for fitted in knobs if not fitted.n}
    own = [number for number, one in enumerate(scenario.environments) if one.starts == "commit"]
    found: Dict[str, str] = {}
    for name in scenario.names[max(own, default=0) :]:  # from the commit to production
        if f"{name}.wait_hours" in unknown:
            keys = ("mean_lead_time", "median_lead_time", "production_median_lead_time")
            found.update(dict.fromkeys(keys, f"no lead time into {name} is known"))
    lost, why = ["mttr_minutes"], ""
    if "rollback.duration_min" in unknown:
        why = "no recovery from a failed production deployment is known"
    if f"{scenario.names[-1]}.success_rate" in unknown:
        lost += ["change_failure_rate", "production_change_fail_rate"]
        why = "nobody looked whether production deployments failed"
    return {**found, **dict.fromkeys(lost * bool(why), why)}


# What is not known of a knob: how far its past months vary, and how far its mean is off.


def month_factors(
    levels: np.ndarray, chance: np.ndarray, error: float, rng: np.random.Generator
) -> np.ndarray:
    """Return `DRAWS` factors by which a knob may differ in the coming month.

    `levels` are logarithms of what the knob was in each past month, `chance` the variance that each
    would have if it did not change, `error` that of their mean. What the levels vary beyond chance
    is the drift: it takes three months to tell. The factors are
    exp(noise * sqrt(drift (1 + 1 / months) + error)), and at most seven times more or less. The
    noise is Student's t, or normal where no drift is told.
    """
    months, drift = len(levels), 0.0
    many = rng.standard_normal(50 * DRAWS)
    if months >= 3:
        many = rng.standard_t(months - 1, 50 * DRAWS)
        drift = max(float(levels.var(ddof=1) - chance.mean()), 0.0)
    noise = rng.permutation(np.median(np.sort(many).reshape(DRAWS, 50), axis=1))  # even quantiles
    return np.exp(np.clip(noise * math.sqrt(drift * (1 + 1 / max(months, 1)) + error), -2, 2))


def possible_ranges(
    best: Range, values: np.ndarray, time: np.ndarray, end: int, rng: np.random.Generator
) -> List[Range]:
    """Return `DRAWS` ranges of waits or durations, by how the medians of their months vary.

    On a logarithmic scale a median varies by pi / 2 as much as a mean.
    """
    logs = np.log(np.maximum(values, 1))
    months = pd.Series(logs).groupby((end - 1 - time) // PERIOD).agg(["median", "size"])
    spread = float(logs.var(ddof=1)) if len(logs) > 1 else 1.0
    if len(logs) >= MANY:  # a few outliers do not move the median: as of a normal curve
        spread = (float(np.subtract(*np.quantile(logs, [0.75, 0.25]))) / 1.349) ** 2
    spread *= math.pi / 2
    levels = months[months["size"] >= FEW]
    chance, error = spread / levels["size"].to_numpy(), spread / len(logs)
    factors = month_factors(levels["median"].to_numpy(), chance, error, rng)
    return list(map(tuple, np.outer(factors, best).tolist()))


def observed_range(values: np.ndarray) -> Range:
    """Return observed values as the quantiles of a knob: at most 101 of them."""
    points = np.linspace(0, 1, int(np.clip(len(values), 2, 101)))
    return tuple(np.quantile(values, points).tolist())


# How releases came to an environment, and the knobs that this tells.


class Passages(NamedTuple):
    """How releases came to an environment.

    What may come is a release of the stage before (`stage`), a commit (`commits`), or a release of
    the environment alone, as with a folder for each (`own`).
    """

    source: str
    policy: str  # of promotion
    arrival: np.ndarray  # the second from which each could come
    counts: pd.Series  # how many there were of each application
    ways: Tuple[np.ndarray, np.ndarray]  # from and to when each went that came
    waiting: Tuple[np.ndarray, np.ndarray]  # from and until when each waited that did not come


def releases_to(history: History, environment: str) -> pd.DataFrame:
    """Return the releases that came to an environment: a row for each deployment.

    The index is the application and the release: the newest change, or the commit where no change
    is known. Columns: `rank`, the second at which that was committed, -1 where it is not known;
    `start` and `end` in seconds; `good`.
    """
    rows = history.deployments[history.deployments["environment"] == environment]
    start, commits = seconds_of(rows["timestamp"]), history.git_commits
    found = pd.DataFrame(
        {
            "application": rows["application"].astype(object).to_numpy(),
            "release": rows["commit_sha"].astype(object).to_numpy(),
            "start": start,
            "end": start + rows["duration_sec"].to_numpy(),
            "good": (rows["health"] != DEGRADED).to_numpy(),
        }
    )
    if history.changes is None:
        times = pd.Series(seconds_of(commits["timestamp"]), commits["sha"])
        rank = found["release"].map(times)
    else:
        keys, changes = ["application", "end"], history.changes_to(environment)
        changes = changes.dropna(subset=["deployed"]).astype({"application": object})
        changes = changes.assign(end=seconds_of(changes["deployed"]))
        changes = changes.assign(rank=seconds_of(changes["committed"])).sort_values("rank")
        newest = changes.drop_duplicates(keys, keep="last")[[*keys, "commit_sha", "rank"]]
        found = found.merge(newest, how="left", on=keys)
        rank, found["release"] = found["rank"], found["commit_sha"].fillna(found["release"])
    found = found.assign(rank=rank.fillna(-1).astype(np.int64))
    return found.set_index(["application", "release"])


def passages_to(
    history: History, environment: str, here: pd.DataFrame, before: Optional[pd.DataFrame]
) -> Passages:
    """Return the passages to an environment of its releases (see `releases_to`).

    `before` are the releases to the stage before, None for the first. The source is

    1. `stage` if three quarters of the releases in the second half of the window were there: then
       what was healthy there may come, and what came all the same,
    2. `commits` in the first environment of a history with plain commits,
    3. `own` otherwise. Then each release came. In production each change is a way.
    4. In the first environment of a config repository a lead time begins, so nothing waits there.

    What brought no known change tells of no wait, unless the history knows no changes at all. A
    newer release wins, if at most one in fifty came after a newer one, and one did not come. Then a
    release waited until a newer one came, else until the end.
    """
    end, late = history.window.seconds[1], here["start"] >= sum(history.window.seconds) / 2
    first, source = here[~here.index.duplicated()], "own"
    known = here["rank"] >= 0
    entries = here.assign(arrival=here["rank"].where(known, here["start"]), known=known)
    if before is not None:
        if here.index[late].isin(before.index).sum() >= 0.75 * max(late.sum(), 1):
            entries, source = before[before["good"] | before.index.isin(first.index)], "stage"
            entries = entries.assign(arrival=entries["end"])
    elif history.changes is None and len(history.git_commits):
        commits, source = history.git_commits, "commits"
        time, names = seconds_of(commits["timestamp"]), commits["application"].astype(object)
        entries = {"rank": time, "arrival": time, "good": True}
        entries = pd.DataFrame(entries, [names, commits["sha"]])
    if source != "own":
        entries = entries[~entries.index.duplicated()]
        bare = history.changes is None and not len(history.git_commits)  # no change is known
        entries = entries.assign(start=first["start"], known=(first["rank"] >= 0) | bare)
    entries = entries.fillna({"start": NEVER}).sort_values(["rank", "arrival"], kind="stable")
    names = entries.index.get_level_values(0)
    codes = pd.factorize(names)[0]
    entries = entries.iloc[np.argsort(codes, kind="stable")]
    start = entries["start"].to_numpy(np.int64)
    arrival = np.minimum(entries["arrival"].to_numpy(np.int64), start)
    newer = earliest_of_newer(start, np.sort(codes))
    came, policy, until = start < NEVER, "each", np.full(len(start), end)
    if (start > newer)[came].sum() <= 0.02 * came.sum() and (newer < end)[~came].any():
        policy, until = "newest", np.minimum(newer, end)
    went = np.flatnonzero(came & (entries["known"] == 1))
    # So that the flow is right: as many did not come as good releases are more than those that
    # came, in the proportion in which the changes that came are known.
    lost = max(entries["good"].sum() - len(here), 0) * len(went) // max(came.sum(), 1)
    hung = np.flatnonzero(~came)
    hung = hung[np.linspace(0, len(hung), min(lost, len(hung)), endpoint=False).astype(int)]
    ways, waiting = (arrival[went], start[went]), (arrival[hung], np.maximum(arrival, until)[hung])
    if source == "own" and history.changes is not None:
        if environment == history.production:
            changes = history.changes_to(environment).dropna(subset=["deployed"])
            ways = seconds_of(changes["committed"]), seconds_of(changes["deployed"])
            ways = np.minimum(*ways), ways[1]
        elif before is None and history.source == "git":
            arrival, ways = start, (start, start)
    return Passages(source, policy, arrival, names.value_counts(), ways, waiting)


def fit_team(
    history: History,
    names: Sequence[str],
    stages: Sequence[Passages],
    base: Team,
    rng: np.random.Generator,
) -> Tuple[Team, Fitted, List[float]]:
    """Return the team, what its rate was fitted to, and the share of it that each stage takes.

    A stage that is fed by the one before takes all that comes. An application counts from when it
    is covered.
    """
    (first, end), days = history.window.seconds, history.window.days
    own = [(name, stage) for name, stage in zip(names, stages) if stage.source != "stage"]
    rates, begins = {}, []
    for name, stage in own:
        begin = pd.Series(first, stage.counts.index)
        if history.coverage is not None:
            spans = history.covered(name)
            begin.update(pd.Series(seconds_of(spans["from"]), spans["application"].astype(object)))
        begins.append(begin)
        rates[name] = DAY * stage.counts / np.maximum(end - begin, DAY)
    applications = pd.concat(rates).groupby(level=1).sum()
    level, time = applications.sum(), np.concatenate([stage.arrival for _, stage in own])
    time = time[time >= first]
    weekdays, scatter = weekday_rates(np.bincount((time - first) // DAY, minlength=days), first)
    months = max(int(end - pd.concat(begins).median()) // PERIOD, 1)  # most are covered
    counts = np.bincount((end - 1 - time) // PERIOD, minlength=months)[:months] + 0.5
    error = scatter / (len(time) + 0.5)
    factors = month_factors(np.log(counts), scatter / counts, error, rng)
    busiest = level * weekdays.max() / max(weekdays.mean(), 1e-300)
    team = dataclasses.replace(
        base,
        commits_per_day=busiest,
        weekday_factors=weekdays / max(weekdays.max(), 1e-300),
        dispersion=scatter,
        sprint_ramp=0.0,
        work_hours=observed_range(time % DAY / 3600),
        time_zone="UTC",
        applications=applications.to_dict(),
    )
    what = "commits" if history.changes is None else "releases"
    possible = (busiest * factors).tolist()
    fitted = Fitted("team", "commits_per_day", busiest, possible, len(time), what)
    shares = [min(rates[name].sum() / level, 1.0) if name in rates else 1.0 for name in names]
    return team, fitted, shares


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


def fit_environment(
    history: History, stage: Passages, default: Environment, share: float, rng: np.random.Generator
) -> Tuple[Environment, List[Fitted]]:
    """Return an environment that takes a share of the team's commits, and what it was fitted to.

    The failure rate is (failed + 1/2) / (n + 1): what was never seen to fail may fail.
    """
    rows = history.deployments[history.deployments["environment"] == default.name]
    unseen, bad = (rows["health"] == word for word in (UNKNOWN, DEGRADED))
    n, went, nothing = len(rows), len(stage.ways[1]), np.zeros(0)
    rate = (bad.sum() + 0.5) / (n + 1)
    error = (1 - rate) / (bad.sum() + 0.5)
    rates = np.minimum(rate * month_factors(nothing, nothing, error, rng), 1)
    hours, runs, waits, wait = fit_gate(stage)
    end, same = history.window.seconds[1], np.random.Generator(np.random.PCG64(1))
    # All waits go up and down together.
    waiting = possible_ranges(wait, waits, stage.ways[1], end, same) if wait[-1] else ()
    wait = default.wait_hours if not went and stage.source == "stage" else wait
    seconds = observed_range(rows["duration_sec"].to_numpy(float))
    what, seen = "changes" if stage.source == "own" else "releases", 0 if unseen.all() else n
    fitted = [
        ("success_rate", 1 - rate, (1 - rates).tolist(), seen, "deployments"),
        ("approval_rate", share, (), n, "releases" if share < 1 else ""),
        ("open_hours", hours, (), went, what if hours != "always" else ""),
        ("wait_hours", wait, waiting, went, what),
        ("duration_sec", seconds, (), n, "syncs"),
        ("promotion", stage.policy, (), n, what),
    ]
    knobs = {"freezes": (), "batch_risk": 0, "release_every_hours": 0, "wait_runs": runs}
    knobs["starts"] = "stage" if stage.source == "stage" else "commit"
    environment = default.replaced({**knobs, **{knob: value for knob, value, *_ in fitted}})
    return environment, [Fitted(default.name, *values) for values in fitted]


def fit_gate(stage: Passages) -> Tuple[Hours, str, np.ndarray, Range]:
    """Return opening hours, whether waits run while closed, the waits in seconds, their range.

    1. Where most releases wait for less than an hour, or few are known, it is always open.
    2. A person's wait stands still while nobody works: it is of open hours, each by its weight.
    3. A test's wait goes on. Who came within two hours of an opening was ready at some time since
       the gate closed. A gate that held fewer than one in ten is none.

    Of 2 and 3 the one holds that makes the waits more alike: less spread over their mean.
    """
    (arrival, start), (since, until) = stage.ways, stage.waiting
    waits, wait = fit_waits(start - arrival, start - arrival, until - since)
    if len(np.unique(start)) < MANY or np.quantile(waits, 0.75) < 3600:
        return "always", "always", waits, wait
    weights, closed = open_hours(stage.ways, stage.waiting)
    days = Window(*utc_times(np.array([arrival.min() // DAY, start.max() // DAY + 1]) * DAY))
    soft, hard = (
        Gate.of(Environment("it", open_hours=hours.tolist()), "UTC", days)
        for hours in (weights, 1.0 - closed)
    )
    passed, over = soft.clock(start) - soft.clock(arrival), soft.clock(until) - soft.clock(since)
    edges = [(times - 2 * 3600, hard.before(times - 2 * 3600)) for times in (start, until)]
    low, late = (np.where(last < edge, last, edge + 7200) for edge, last in edges)
    low, late = np.maximum(low - arrival, 0), late - since
    ready, elapsed = fit_waits(low, waits, late[late > 0])
    if 1.05 * passed.std() * ready.mean() < ready.std() * passed.mean():
        return tuple(weights.round(4).tolist()), "open", passed, fit_waits(passed, passed, over)[1]
    if (low < waits).mean() < 0.1:
        return "always", "always", waits, wait
    return tuple((1.0 - closed).tolist()), "always", ready, elapsed


def open_hours(
    ways: Tuple[np.ndarray, np.ndarray], waiting: Tuple[np.ndarray, np.ndarray]
) -> Tuple[np.ndarray, np.ndarray]:
    """Return how open each hour of the week is, from Monday 0:00 UTC, and which are closed.

    The weight of an hour is how often something went while it waited, over the mean of that. Where
    there are few, each hour borrows five hours of waiting from those of the same time on the same
    kind of day. Closed is a time of such days, or a day, with less than a seventh of the usual,
    from five hours in a row on.
    """
    begin, last = (np.append(*edges) // 3600 for edges in zip(ways, waiting))
    first, size = begin.min(), int(last.max() - begin.min()) + 2
    steps = np.bincount(begin - first, minlength=size)
    steps = steps - np.bincount(last - first + 1, minlength=size)
    week = (np.arange(size) + first - MONDAY // 3600) % 168
    waited = np.bincount(week, np.cumsum(steps), minlength=168).reshape(7, 24)
    went = np.bincount(week[ways[1] // 3600 - first], minlength=168).reshape(7, 24)
    kind = np.array([[1] * 5 + [0] * 2, [0] * 5 + [1] * 2])  # work days and weekends
    usual = (kind @ went + went.sum() / waited.sum()) / (kind @ waited + 1)
    weights = (went + 5 * kind.T @ usual) / (waited + 5)
    weights *= went.sum() / (went * weights).sum()
    of_time, of_day = kind.T @ (kind @ weights), weights.mean(axis=1)
    of_time /= (kind.T @ kind.sum(axis=1))[:, None]
    shut = of_time < np.median(weights[weights > 0.02]) / 7
    shut[7 * of_day < np.average(of_day, weights=went.sum(axis=1))] = True
    shut = shut.ravel()
    begins = np.all([np.roll(shut, -hours) for hours in range(5)], axis=0)  # of five closed ones
    return weights.ravel(), np.any([np.roll(begins, hours) for hours in range(5)], axis=0)


def fit_waits(low: np.ndarray, high: np.ndarray, beyond: np.ndarray) -> Tuple[np.ndarray, Range]:
    """Return waits that lie between two bounds, and quantiles in hours of all; some were `beyond`.

    The curve is the product limit of E. L. Kaplan and P. Meier (JASA 53, 1958). What is not known
    exactly is drawn from it, and the curve made anew, ten times. Who waited longer than all that
    came never comes, or goes with a newer release.
    """
    if not len(low):
        return low, (0.0, 0.0)
    noise = (np.arange(len(low)) * 0.6180339887498949) % 1  # spread evenly, in no order
    waits, hours, gone = low + noise * (high - low), np.zeros(1), np.ones(1)
    for _ in range(1 + 9 * bool((low < high).any())):
        times, event = np.append(waits, beyond), np.arange(len(waits) + len(beyond)) < len(waits)
        order = np.lexsort((~event, times))
        times, event = times[order], event[order]
        gone = 1 - np.cumprod(1 - event / np.arange(len(times), 0, -1))
        hours, gone = np.append(times[event][:1], times[event]), np.append(0, gone[event])
        first, last = np.interp(low, hours, gone), np.interp(high, hours, gone)
        drawn = np.interp(first + noise * (last - first), gone, hours)
        waits = np.where((low < high) & (first < last), np.clip(drawn, low, high), waits)
    at = np.linspace(0, 1, 101)
    found = np.minimum(np.interp(at, gone, hours) / 3600, 24 * LONGEST)
    return waits, tuple(np.where(at <= gone[-1] + 1e-9, found, NO_END).tolist())


def fit_recovery(
    history: History, base: RollbackPolicy, rng: np.random.Generator
) -> Tuple[RollbackPolicy, List[Fitted]]:
    """Return the rollbacks, and what they were fitted to: how long production took to be good.

    A forward fix is a recovery as a rollback is. So none fails, and the time is that of both.
    """
    names = application_names(history)
    events = events_of(history, names)
    if scope_of(history) == PRODUCTION_ALONE:
        events = production_of(history, events, names)[0]
    over = np.flatnonzero(events.deployments.bad & (events.recovered < NEVER))
    ends, possible, length = events.deployments.end[over], [], base.duration_min
    if len(over):
        seconds = np.maximum(events.recovered[over] - ends, 1)
        points = np.linspace(0, 1, 101)  # between two, durations spread by their logarithms
        length = tuple(np.exp(np.quantile(np.log(seconds / 60), points)).tolist())
        possible = possible_ranges(length, seconds, ends, history.window.seconds[1], rng)
    fitted = Fitted("rollback", "duration_min", length, possible, len(over), "recoveries")
    return RollbackPolicy(length, 1.0), [fitted]


# What a forecast would have said of the past.

LEAST_DAYS = 60  # of history that the first forecast of a backtest is fitted to
MOST_WINDOWS = 12
PLAIN_WINDOWS = 8  # that the yardstick is the mean of
T_95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895)  # Student's t of 90 %: 1 to 7 degrees


def scored_metrics(scope: str) -> Tuple[str, ...]:
    """Return the forecast metrics that are shown, and scored by a backtest, in their order."""
    if scope == PRODUCTION_ALONE:
        return (*SCOPES[scope], "all_deployment_frequency")
    return (*SCOPES[scope], *[key for key in FORECAST_METRICS if key.startswith("production_")])


def backtest(
    history: History,
    base: Scenario = Scenario(),
    days: int = 28,
    runs: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a table that compares past windows with forecasts from what was known before them.

    A row is a metric of a window. Columns: `from`, `metric`, `came` (what was measured), `median`,
    `low` and `high` (5 % and 95 %) of the forecast, `last` (what the window before had), and
    `plain`, `plain_low` and `plain_high` of the yardstick (see `plain_forecast`). The windows are
    the last twelve, of those with 60 days before them. GitOpsError if there are fewer than three.
    """
    start, end = history.window
    count = min((history.window.days - LEAST_DAYS) // days, MOST_WINDOWS)
    if count < 3:
        raise GitOpsError(
            f"a backtest needs at least {LEAST_DAYS + 3 * days} days of history, and this has "
            f"{history.window.days}; give a longer history or fewer --days"
        )
    many = min(history.window.days // days, count + PLAIN_WINDOWS)
    ends = [end - pd.Timedelta(days=days * back) for back in reversed(range(many))]
    windows = [Window.before(one, days) for one in ends]
    actuals = [forecast_actuals(history.within(window)) for window in windows]
    rows: List[Row] = []
    for number in range(many - count, many):
        window, before = windows[number], actuals[max(number - PLAIN_WINDOWS, 0) : number]
        with contextlib.suppress(GitOpsError):  # nothing to fit yet
            calibration = calibrate(history.within(Window(start, window.start)), base)
            known = {"": calibration.scenario}
            months = forecast_months(known, calibration, window, runs, seed)[""]
            for key in scored_metrics(calibration.scope):
                past = [math.nan, *(one[key] for one in before)]
                told = (*month_spread(months[key]), past[-1], *plain_forecast(past))
                rows.append((window.start, key, actuals[number][key], *told))
    columns = ["from", "metric", "came", "median", "low", "high", "last"]
    return pd.DataFrame(rows, columns=[*columns, "plain", "plain_low", "plain_high"])


def plain_forecast(past: Sequence[float]) -> Tuple[float, float, float]:
    """Return the plainest forecast of what comes after some windows, and its 90 % band.

    It is their mean with Student's t on a logarithmic scale. It takes two windows with a value.
    """
    known = np.array(past)[~np.isnan(past)]
    if len(known) < 2:
        return math.nan, math.nan, math.nan
    tiny = max(float(known.mean()) / 20, 1e-9)  # a window can have nothing
    logs = np.log(known + tiny)
    half = T_95[len(known) - 2] * logs.std(ddof=1) * math.sqrt(1 + 1 / len(known))
    middle, low, high = np.exp(logs.mean() + half * np.array([0, -1, 1])) - tiny
    return float(middle), max(float(low), 0.0), float(high)


def forecast_actuals(history: History) -> Dict[str, float]:
    """Return the forecast metrics of a measured history, NaN for what it does not have.

    Where entries are lost, nobody can count how often something was deployed.
    """
    names = application_names(history)
    events = events_of(history, names)
    made, changes = production_of(history, events, names)
    changes = changes._replace(group=np.minimum(changes.group, 0))  # one group, or left out
    production = scoped_metrics(measure_production(made, changes))
    known = in_both_scopes(headline_metrics(events), production, scope_of(history))
    if history.coverage is not None and history.coverage["lost"].any():
        known = {key: values for key, values in known.items() if "frequency" not in key}
    return {key: float(known.get(key, [math.nan])[0]) for key in FORECAST_METRICS}


def backtest_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return for each metric (the index) how well it was forecast.

    Columns: `windows` in which there was something to compare, `held` (the share of them that lie
    within the 90 % band), the median `error` of the forecast's median; `held_plain` and
    `error_plain` of the yardstick, `error_last` of the window before; `plain_is_better`: whether
    the yardstick's bands have the lower mean score: width and twenty times what lies outside
    (T. Gneiting and A. Raftery, JASA 102, 2007).
    """
    table = table.dropna(subset=["came", "low", "high"])
    came, frame = table["came"], table[["metric"]].assign(windows=1)
    for name, prefix, middle in (("", "", "median"), ("_plain", "plain_", "plain")):
        low, high = table[f"{prefix}low"], table[f"{prefix}high"]
        outside = (low - came).clip(lower=0) + (came - high).clip(lower=0)
        frame[f"held{name}"] = (outside <= 1e-9).where(high.notna()).astype(float)
        frame[f"error{name}"] = (table[middle] - came).abs()
        frame[f"score{name}"] = (high - low + 20 * outside).where(table["plain_high"].notna())
    frame["error_last"] = (table["last"] - came).abs()
    ways = {"windows": "sum", "held": "mean", "score": "mean", "error": "median"}
    groups = frame.groupby("metric")
    scores = groups.agg({name: ways[name.partition("_")[0]] for name in frame.columns[1:]})
    scores["plain_is_better"] = scores.pop("score_plain") < scores.pop("score")
    return scores.reindex([key for key in FORECAST_METRICS if key in scores.index])


HOLDS = 0.8  # a 90 % band is believed that held at least this share of the past windows


def backtest_verdict(scores: pd.DataFrame) -> str:
    """Return in words what a backtest says of the forecasts."""
    text = "Backtest: each past window was forecast from what was known before it."
    held = scores["held"] >= HOLDS
    for rows, words, rest in (
        (scores[held], "held", "."),
        (scores[~held], "did not hold", ": read these forecasts as a direction only."),
    ):
        names = [
            f"{FORECAST_METRICS[str(key)].label} "
            f"({row['held'] * row['windows']:.0f} of {row['windows']:.0f})"
            for key, row in rows.iterrows()
        ]
        text += f" The 90 % bands {words} {', '.join(names)}{rest}" if names else ""
    return text if len(scores) else f"{text} Nothing could be compared."


# ---- Reporting engine: forecasts -> console and JSON --------------------------------------------


def format_forecast(forecast: Forecast) -> str:
    """Return the comparison in words and numbers: the console and a notebook show it."""
    calibration, months = forecast.calibration, f"{forecast.runs} simulated months"
    head = "The median month (5 % and 95 % of months), and the mean difference from the baseline "
    head += "(its 95 % interval)."
    head += " The four are those of production." * (calibration.scope == PRODUCTION_ALONE)
    title = f"🔮 WHAT IF: {months} of {forecast.window.days} days, the same for each scenario "
    lines = [DOUBLE_LINE, f"{title}(seed {forecast.seed})", DOUBLE_LINE, "", head]
    for key in scored_metrics(calibration.scope):
        metric, target = FORECAST_METRICS[key], TARGETS.get(key)
        lines += ["", metric.label + (f" (elite {target})" if target else "")]
        if forecast.measured is not None:
            value, (_, low, high) = forecast.measured[key], month_spread(forecast.baseline[key])
            missed = " ! the fit misses it" * (value < low or value > high)
            missed += " older entries are lost" * (math.isnan(value) and metric.unit == "/day")
            lines.append(f"  {'(measured)':<20} {metric.text(value):<28}{missed}".rstrip())
        for name, own in forecast.months.items():
            text, *ends = (f"{one:,.{2 if one < 1000 else 0}f}" for one in month_spread(own[key]))
            text = with_unit(text, metric.short_unit)
            text = "n/a" if "nan" in ends else f"{text} ({' to '.join(ends)})"
            difference = difference_text(key, name, forecast)
            lines.append(f"  {shorten_text(name, 20):<20} {text:<28} {difference}".rstrip())
    lines += ["", "Months that are ELITE"]
    for name, own in forecast.months.items():
        counts = level_counts(own, calibration)
        share = f"{counts[LEVELS[0].name]} of {forecast.runs}" if counts else "n/a"
        lines.append(f"  {shorten_text(name, 20):<20} {share}")
    return join_folded([*lines, *(line for one in forecast_notes(forecast) for line in ("", one))])


def difference_text(key: str, name: str, forecast: Forecast) -> str:
    """Return the mean difference from the baseline with its interval; nothing for itself.

    The failure rate of all environments can move although that of none does: a shorter wait brings
    more deployments to a steadier environment. Then a star says that it is the mix.
    """
    own, baseline = forecast.months[name][key], forecast.baseline[key]
    if own is baseline or np.isnan(own).all():
        return ""
    spread = paired_difference(own, baseline)
    if math.isnan(spread[0]):
        return f"n/a: fewer than {LEAST_MONTHS} months with a value"
    one, other = (
        [(stage.success_rate, stage.batch_risk) for stage in scenario.environments]
        for scenario in (forecast.scenarios[name], forecast.calibration.scenario)
    )
    is_mix = one == other and not any(risk for _, risk in one)
    is_mix &= key == "change_failure_rate" and forecast.calibration.scope == ALL_ENVIRONMENTS
    text = signed(*spread)
    return text + " *" * (is_mix and text != "no change")


def signed(mean: float, low: float, high: float) -> str:
    """Return a difference with its interval; `n/a` if there is none, `no change` if it is zero."""
    rounded = [round(one, 2) + 0.0 for one in (mean, low, high)]
    if not any(rounded):
        return "no change"
    texts = [f"{one:+,.2f}" for one in rounded]
    return "n/a" if math.isnan(mean) else f"{texts[0]} ({texts[1]} to {texts[2]})"


def forecast_notes(forecast: Forecast) -> List[str]:
    """Return what has to be known of a comparison beside its numbers."""
    calibration, scores, notes = forecast.calibration, forecast.scores, []
    unknown: Dict[str, List[str]] = {}
    for key in scored_metrics(calibration.scope):
        why = calibration.assumed.get(key, "")
        unknown.setdefault(why, []).append(FORECAST_METRICS[key].label)
    notes += [f"n/a, as {why}: {', '.join(labels)}." for why, labels in unknown.items() if why]
    rates = (difference_text("change_failure_rate", name, forecast) for name in forecast.months)
    if "*" in "".join(rates):
        mix = "no environment fails more or less often than before, but each has another share"
        notes.append(f"* The mix: {mix} of the deployments.")
    if scores is not None:
        notes.append(backtest_verdict(scores))
        better = [FORECAST_METRICS[key].label for key in scores.index[scores["plain_is_better"]]]
        advice = "take the baseline from --backtest, and the difference alone from here."
        head = f"The mean of the last eight windows had a better band of {', '.join(better)}"
        notes += [f"{head}: {advice}"] * bool(better)
    if len({one.team.commits_per_day for one in forecast.scenarios.values()}) > 1:
        notes.append("commits_per_day changes, and nobody gets slower: people have no queue here.")
    left = ", ".join(f"{one.group}.{one.knob}" for one in calibration.knobs if not one.n)
    return notes + [f"Assumed, as the history does not tell it: {left}."] * bool(left)


def forecast_document(forecast: Forecast) -> Dict[str, Any]:
    """Return what `--json` prints of a comparison."""
    months: Dict[str, Any] = {}
    for name, own in forecast.months.items():
        levels = level_counts(own, forecast.calibration) or None
        months[name] = {"metrics": {}, "levels": levels}
        for key, values in own.items():
            found: Dict[str, Any] = dict(zip(("median", "p5", "p95"), month_spread(values)))
            difference = paired_difference(values, forecast.baseline[key])
            found["difference"] = dict(zip(("mean", "low", "high"), difference))
            months[name]["metrics"][key] = found
    calibration, scenarios = forecast.calibration, forecast.scenarios
    document = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "simulated": True,
        "seed": forecast.seed,
        "runs": forecast.runs,
        "days": forecast.window.days,
        "scope": calibration.scope,
        "measured": forecast.measured,
        "assumed": calibration.assumed,
        "fitted": {f"{one.group}.{one.knob}": one.n for one in calibration.knobs},
        "scores": None if forecast.scores is None else forecast.scores.to_dict("index"),
        "notes": forecast_notes(forecast),
        "scenarios": {name: json.loads(one.to_json()) for name, one in scenarios.items()},
        "what_if": months,
    }
    return to_jsonable(document)


def format_levers(table: pd.DataFrame) -> str:
    """Return the table of levers in words and numbers."""
    metric = FORECAST_METRICS[table.attrs["metric"]]
    title = f"{metric.label}, {metric.text(float(table['before'].mean()))} in the mean month"
    head = "Each knob improved by a quarter, or as its line says; {runs} simulated months, the same"
    head = f"{head} (seed {{seed}})".format(**table.attrs)
    lines = [DOUBLE_LINE, f"🎚️ WHAT MATTERS MOST: {title}", DOUBLE_LINE, head]
    for row in table.itertuples():
        lines.append(f"  {signed(row.difference, row.low, row.high):<23} {row.change}")
    if not ((table["low"] > 0) | (table["high"] < 0)).any():
        lines.append("No knob alone surely changes it: take another metric, or more --runs.")
    return join_folded([*lines, "Freezes and promotion are no levers: --what-if tries them."])


def format_backtest(scores: pd.DataFrame, days: int) -> str:
    """Return the scores of a backtest in words and numbers."""
    lines = [
        DOUBLE_LINE,
        f"🔁 BACKTEST: past windows of {days} days, each forecast from what was known before it",
        DOUBLE_LINE,
        f"{'':<28}{'':>8}{'forecast':>17}{'mean of eight':>17}{'last':>10}",
        f"{'':<28}{'windows':>8}{'held':>6}{'error':>11}{'held':>6}{'error':>11}{'error':>10}",
    ]
    for key, row in scores.iterrows():
        text = functools.partial(show_number, unit=FORECAST_METRICS[str(key)].short_unit)
        line = f"{FORECAST_METRICS[str(key)].label:<28}{row['windows']:>8.0f}"
        for name in ("", "_plain"):
            held = show_percent(row[f"held{name}"], 1, 0)
            line += f"{held:>6}{text(row[f'error{name}']):>11}"
        lines.append(line + f"{text(row['error_last']):>10}")
    lines += ["", "held: how often the 90 % band held what came. error: its median distance from "]
    lines[-1] += "the forecast, from the mean of the last eight windows, and from the last one."
    return join_folded([*lines, "", backtest_verdict(scores)])


# ---- GitOpsAutomation: the pipeline, a method for each step -------------------------------------


def print_text(text: str = "") -> None:
    """Print; a character that the console cannot show becomes `?`."""
    try:
        print(text)  # noqa: T201
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "replace").decode(encoding))  # noqa: T201


def window_end(end: Union[None, str, _dt.date]) -> Optional[pd.Timestamp]:
    """Return a date as the UTC midnight at which a window ends; GitOpsError if it is none."""
    if end is None:
        return None
    moment: Any = None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        day = _dt.datetime.strptime(end, "%Y-%m-%d") if isinstance(end, str) else end
        if isinstance(day, _dt.date):
            day = pd.Timestamp(day)
            moment = day.tz_localize("UTC") if day.tzinfo is None else day.tz_convert("UTC")
    inside = moment is not None and FIRST_DAY < moment <= LAST_DAY
    is_day = inside and moment == moment.normalize()
    check_that(is_day, "end", "be a UTC day from 1970 to 2199 such as 2026-01-31", end)
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
    """

    STEPS = {
        "git_commits": "simulate_git_activity(), load_git_history() or load_history()",
        "deployments": "simulate_deployments()",
        "rollbacks": "simulate_rollbacks()",
        "metrics": "calculate_dora_metrics()",
    }

    git_commits = deployments = rollbacks = metrics = window = None  # type: Any
    flow = None  # type: Any  # what became of the releases (see `simulate_deployments`)
    measured = None  # type: Any  # the Metrics that `metrics` is the dict of
    _real: Optional[History]  # the real deployments that were loaded, in the window
    _commits_are_real: bool

    def __init__(
        self,
        scenario: Scenario = Scenario(),
        *,
        seed: Optional[int] = None,
        end: Union[None, str, _dt.date] = None,
        output_dir: Union[str, os.PathLike] = "output",
        on_rollback: Optional[Callable[[Dict[str, Any]], Any]] = None,
    ) -> None:
        is_path, can_call = isinstance(output_dir, (str, os.PathLike)), callable(on_rollback)
        check_that(isinstance(scenario, Scenario), "scenario", "be a Scenario", scenario)
        check_that(is_path, "output_dir", "be a path", output_dir)
        check_that(can_call or on_rollback is None, "on_rollback", "be a function", on_rollback)
        chosen = int.from_bytes(os.urandom(4), "big") if seed is None else seed
        self.seed = check_whole("seed", chosen, 0, 2**63 - 1)
        self.scenario, self.output_dir, self.on_rollback = scenario, Path(output_dir), on_rollback
        self.advice_runs: Optional[int] = None  # months on which advice is tried; None: enough
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
        commits, deployments, rollbacks = [self._need(name) for name in COLUMNS]
        return History(commits, deployments, rollbacks, self.window, tuple(self.environments))

    def simulate_git_activity(self, days: int = 30) -> pd.DataFrame:
        """Simulate the commits of `days` whole days: the `git_commits` table."""
        print_text("\n📝 Generating Git commit history...")
        window = Window.before(self._end or pd.Timestamp.now("UTC").normalize(), days)
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
        healthy = deployments[deployments["health"] == HEALTHY]
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
                outcome = "succeeded" if rollback["success"] else "FAILED"
                text = (
                    "SIMULATED rollback {outcome}: {application} in {environment} from "
                    "{from_commit:.7} to {to_commit:.7} after {duration_min:.1f} minutes ({reason})"
                ).format(outcome=outcome, **rollback)
                rollback["timestamp"] = rollback["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ")
                self.on_rollback({"text": text, "simulated": True, **rollback})
        return self.rollbacks

    def calculate_dora_metrics(self) -> Dict[str, Any]:
        """Measure the history: the `metrics` dict."""
        history = self.history
        print_text("\n📊 Calculating DORA metrics...")
        self.measured = measure(history)
        self._store(metrics=self.measured.values)
        frequency, lead, recovery, rate = SCOPES[self.measured.scope]
        for key in (frequency, lead, rate, recovery):
            label = LABELS.get(key, METRICS[key].label)
            print_text(f"  ✓ {label}: {value_text(key, self.measured)}")
        return self.metrics

    def generate_report(self, details: bool = False) -> None:
        """Print the report; its details are every application, each place and the trend.

        The trend is by week up to two months, else by month. `document` and `export` have it too.
        """
        print_text("\n" + format_report(self._report(details)))

    def markdown(self) -> str:
        """Return the verdict, its tables and the advice as Markdown, for a CI job or a request."""
        return format_markdown(self._report())

    def trace(self, release: str = "latest") -> pd.DataFrame:
        """Return the life of one release, step by step (see `trace_release`)."""
        return trace_release(self.history, release, self.scenario if self._real is None else None)

    def _ipython_display_(self) -> None:
        """Show nothing below the report that `main()` printed in the same cell."""
        if self.printed_in is None or self.printed_in != cell_number():
            raise NotImplementedError  # a notebook then shows `_repr_html_`

    def _repr_html_(self) -> str:
        """Return what a notebook shows of this object: the verdict, or the step that comes next."""
        if self.metrics is None:
            step = next(name for name in self.STEPS if getattr(self, name) is None)
            return f"<p>GitOpsAutomation: call {self.STEPS[step]} next</p>"
        report = self._report()
        title = html.escape(": ".join(level_and_score(self.measured)))
        source = html.escape(", ".join([*report.origin, self.measured.scope]))
        with pd.option_context("display.max_colwidth", None):
            table = verdict_table(report).to_html(index=False, border=0)
        told = zip(("Why", "Next"), report.why_and_next)
        advice = "".join(f"<p>{label}: {html.escape(text)}</p>" for label, text in told if text)
        return f"<h4>{title}</h4><p>{source}</p>{table}{advice}"

    def _report(self, details: bool = False) -> Report:
        """Return what the report is made from."""
        self._need("metrics")
        if details:
            self._kept["trend"] = self.trend("week" if self.window.days <= 62 else "month")
        if "advice" not in self._kept:
            self._kept["advice"] = self._advice()
        trend = self._kept["trend"] if details else None
        scenario, advice = self.scenario if self._real is None else None, self._kept["advice"]
        return Report(
            self.measured, self.flow, self.seed, scenario, advice, trend,
            self._commits_are_real, details,
        )  # fmt: skip

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
        self,
        scenarios: Union[str, Sequence[str], Mapping[str, Change]],
        runs: int = 200,
        days: int = 28,
        calibration: Optional[Calibration] = None,
    ) -> Forecast:
        """Simulate the baseline and other scenarios over the same months.

        `scenarios` is what the command line takes, such as `"production.wait_hours=4:12"`, or
        several of these, or {name: a `Scenario`, or a function that makes one from the baseline}.
        The first of the forecast is `baseline`: the `calibration`, by default that of `calibrate`.
        `days` is the length of a month: in four weeks each has the same weekdays. GitOpsError for
        arguments that cannot be used.
        """
        check_whole("runs", runs, 2, MOST_RUNS)
        calibration, window = calibration or self.calibrate(), self._month(days)
        best = calibration.scenario
        compared: Dict[str, Change] = {"baseline": best}
        given = scenarios if isinstance(scenarios, Mapping) else np.atleast_1d(scenarios).tolist()
        for name in given:
            change = given[name] if isinstance(given, Mapping) else name
            if isinstance(change, str):
                own_name, change = named_change(change, best)
                name = name if isinstance(given, Mapping) else own_name
            rule = 'be changes such as "production.wait_hours=4:12", or {name: Scenario}'
            check_that(callable(change) or isinstance(change, Scenario), "scenarios", rule, change)
            check_that(name not in compared, "each scenario", "have a name of its own", name)
            compared[name] = change
        months = forecast_months(compared, calibration, window, runs, self.seed)
        known = {name: apply_change(change, best, best) for name, change in compared.items()}
        measured = None if self._real is None else forecast_actuals(recent_part(self._real))
        return Forecast(months, known, calibration, window, self.seed, measured)

    def levers(self, metric: str = "", runs: int = 200, days: int = 28) -> pd.DataFrame:
        """Improve every knob by a quarter: what matters most (see `lever_table`)."""
        check_whole("runs", runs, 2, MOST_RUNS)
        if metric:
            check_one_of("metric", metric, FORECAST_METRICS)
        trial = Trial(self.calibrate(), self._month(days), runs, self.seed)
        return lever_table(trial, metric)

    def backtest(self, days: int = 28, runs: int = 100) -> pd.DataFrame:
        """Forecast the past of the real history that was loaded, and compare (see `backtest`)."""
        check_whole("runs", runs, 2, MOST_RUNS)
        check_whole("days", days, 1, MOST_DAYS)
        return backtest(self.history, self.scenario, days, runs, self.seed)

    def _month(self, days: int) -> Window:
        """Return the window of a forecast."""
        last = pd.Timestamp.now("UTC").normalize() if self.window is None else self.window.end
        return Window.before(self._end or last, days)

    def calibrate(self) -> Calibration:
        """Return the baseline of forecasts, and what is not known of it.

        It is fitted to the real deployments that were loaded. Otherwise it is the scenario of this
        object, with as many commits as a repository that was loaded.
        """
        if self._real is not None:
            return calibrate(self._real, self.scenario)
        scenario, first = self.scenario, self.window and self.window.seconds[0]
        if self._commits_are_real:
            day = (seconds_of(self.git_commits["timestamp"]) - first) // DAY
            rates = weekday_rates(np.bincount(day, minlength=self.window.days), first)[0]
            scenario = scenario.with_team(
                commits_per_day=rates.max(),
                weekday_factors=rates / rates.max(),
                applications=count_words(self.git_commits["application"]),
            )
        return Calibration(scenario)

    def _advice(self) -> List[str]:
        """Return the recommendations, tried on simulated windows of at most a month."""
        try:
            calibration = self.calibrate()
        except GitOpsError:  # nothing to fit: what follows from the metrics is all that can be said
            return recommend(self.measured)
        window = Window.before(self.window.end, min(self.window.days, 28))
        syncs = window.days * calibration.scenario.team.commits_per_day * len(self.environments)
        enough = int(np.clip(1_500_000 / max(syncs, 1), 10, 100))  # a large month hardly varies
        runs = self.advice_runs or enough
        seed = self.seed if self._real is None else 0  # one history, one advice
        return recommend(self.measured, Trial(calibration, window, runs, seed))

    def export(self) -> List[Path]:
        """Write the tables as CSV and the metrics as JSON into the output folder: their paths."""
        text, files = json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n", {}
        tables = {file: getattr(self.history, name) for name, file in TABLE_FILES.items()}
        for file, table in {**tables, "trend.csv": self._kept.get("trend")}.items():
            if table is not None:
                csv = table.to_csv(index=False, date_format="%Y-%m-%dT%H:%M:%SZ")
                files[file] = csv.replace(os.linesep, "\n").encode("utf-8", "replace")
        files["metrics.json"] = text.encode("utf-8", "replace")
        return write_files(self.output_dir, files)

    def document(self) -> Dict[str, Any]:
        """Return the metrics, the maturity, the seed and the window as plain JSON values."""
        self._need("metrics")
        simulated = self._real is None
        seed, scenario = (self.seed, self.scenario) if simulated else (None, None)
        document = summary_document(self.measured, seed, self.flow, scenario)
        document["commits_are_real"] = self._commits_are_real or not simulated
        if "trend" in self._kept:
            document["trend"] = to_jsonable(self._kept["trend"].to_dict("records"))
        return document


def tell_terminal(message: str) -> None:
    """Show a line on a terminal until the next one; an empty one leaves nothing."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{message}\r")
        sys.stderr.flush()


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

    1. A file is written under a temporary name, then all are moved into place. So a reader finds a
       whole file, the old or the new, and nothing is lost if the writing fails.
    2. A link stays: the file that it leads to is replaced.
    3. What is no plain file, and the summary of a job on GitHub, is appended to.
    4. What leads to this program's output is printed, in order with the rest of it.
    """
    folder, moved = Path(folder), {}
    summary = os.path.realpath(os.environ.get("GITHUB_STEP_SUMMARY") or os.devnull)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = os.path.realpath(folder / name)
            if path == os.path.realpath("/dev/stdout"):
                print_text(content.decode("utf-8", "replace"))
            elif path == summary or (os.path.exists(folder / name) and not os.path.isfile(path)):
                with open(folder / name, "ab") as file:
                    file.write(content)
            else:
                temporary = f"{os.path.dirname(path)}/.{name}.{os.urandom(4).hex()}"
                with open(temporary, "xb") as file:
                    moved[temporary] = path
                    file.write(content)
        for temporary, path in moved.items():
            os.replace(temporary, path)
    except (OSError, ValueError) as error:
        problem = f"cannot write into {one_line(folder)}: {one_line(error)}"
        raise GitOpsError(f"{problem}; --output takes another folder") from None
    finally:
        for temporary in moved:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return [folder / name for name in files]


# ---- Command line -------------------------------------------------------------------------------

COMMAND = "gitops-automation"  # what an installation makes of this file
EXAMPLES = """\
examples:
  PROGRAM --days 90 --seed 7       a longer run that can be repeated
  PROGRAM --config > team.json
  PROGRAM --config team.json       your own rates, waits and team
  PROGRAM --repo ../config --deployments-from
  PROGRAM --repo ../config --deployments-from 'apps/{environment}/{application}'
  PROGRAM --repo ../shop --tags    the releases of any repository
  argocd app list -o json | PROGRAM --argocd - --repo ../config
  PROGRAM --what-if production.wait_hours=4:12 --what-if traditional
  PROGRAM --json --no-dashboard    the numbers for another program

exit status:
  0    done
  2    unusable input: one line on standard error says what to do
  130  interrupted
"""
# fmt: off
OPTIONS: Dict[str, List[Tuple[str, Dict[str, Any], str]]] = {
    "what is simulated": [
        ("--days", dict(metavar="N", type=int), "UTC days (default: 30; forecast 28; history all)"),
        ("--end", dict(metavar="DATE"), "the day after the last one (default: today)"),
        ("--seed", dict(metavar="N", type=int), "repeat the run that had this seed"),
        ("--config", dict(metavar="FILE", nargs="?", const=""),
         "a file, traditional or elite; alone: print one"),
        ("--repo", dict(metavar="DIR"), "take the commits from this git repository"),
    ],
    "what is measured": [
        ("--deployments-from", dict(metavar="PATH", nargs="?", const=""),
         "what --repo, a config repository, deployed"),
        ("--tags", dict(metavar="GLOB", nargs="*"), "the release tags of --repo (default: v*)"),
        ("--argocd", dict(metavar="FILE", nargs="+"), "what `argocd app list -o json` wrote"),
        ("--history", dict(metavar="DIR"), "tables, as --export writes them"),
        ("--application", dict(metavar="NAME", action="append"),
         "this application alone, as shop-*; repeatable"),
        ("--environments", dict(metavar="LIST"), "in order, as dev,staging,production=prod-*"),
        ("--ignore-authors", dict(metavar="REGEX"), "what they commit is no change, as 'bot$'"),
        ("--incidents", dict(metavar="FILE"), "CSV or JSON: application, started, resolved"),
        ("--incidents-complete", dict(action="store_true", default=None),
         "that file has all days and applications"),
    ],
    "what if": [
        ("--what-if", dict(metavar="CHANGE", action="append"),
         "compare KNOB=VALUE, preset or file; repeatable"),
        ("--levers", dict(metavar="METRIC", nargs="?", const=""), "improve each knob by a quarter"),
        ("--backtest", dict(action="store_true", default=None), "how often past forecasts held"),
        ("--runs", dict(metavar="N", type=int), "months of each scenario (default: 200)"),
    ],
    "what comes out": [
        ("--details", dict(action="store_true", default=None), "report trend and places too"),
        ("--trace", dict(metavar="RELEASE"), "follow a commit, or latest, slowest or failed"),
        ("--markdown", dict(metavar="FILE"), "write the verdict for the summary of a CI job"),
        ("--output", dict(metavar="DIR", default="output"),
         "the folder for files (default: output)"),
        ("--no-dashboard", dict(action="store_true"), "draw no picture"),
        ("--export", dict(action="store_true"), "write the tables as CSV, the metrics as JSON"),
        ("--json", dict(action="store_true"), "print one JSON object in place of the report"),
        ("--alert-webhook", dict(metavar="URL"), "send each simulated rollback there"),
        ("-h, --help", dict(action="help"), "print this help and stop"),
    ],
}
"""{group: its options, each with its settings for argparse and its meaning}"""
REAL = "argocd deployments_from tags history"
FORECASTS = "what_if levers backtest"
NEEDS = {  # some options: what at least one of them has to stand beside
    "deployments_from tags": "repo",
    "environments application": "argocd deployments_from history",
    "ignore_authors": "deployments_from tags",
    "incidents backtest": REAL,
    "incidents_complete": "incidents",
}
EXCLUDES = {  # some options: what none of them can stand beside
    "argocd deployments_from": "tags",
    "argocd deployments_from repo": "history",
    "config": REAL,
    "alert_webhook": f"{REAL} {FORECASTS}",
    "levers backtest": "what_if",
    "backtest": "levers",
    "details trace markdown": FORECASTS,
    "details markdown": "trace",
}
# fmt: on


def program_name() -> str:
    """Return the name by which the program was started: the installed command, or this file."""
    return COMMAND if os.path.basename(sys.argv[0]) == COMMAND else "gitops_automation.py"


class OptionParser(argparse.ArgumentParser):
    """A parser whose errors are ours: one line, with what to do."""

    def error(self, message: str) -> Any:
        message = message.replace("invalid int value:", "it must be a whole number, not")
        hint = ";"
        if "expected one argument" in message:
            hint = "; a value that begins with - needs =, as --option=-value;"
        elif message.startswith("unrecognized arguments: "):
            word = re.split(r"[ =]", message.lower().split(": ", 1)[1])[0]
            word = word.strip("-").replace("_", "-")
            names = [name[2:] for name in self._option_string_actions if name.startswith("--")]
            parts = [name for name in names if len(word) > 2 and word in name]
            alike = (parts or difflib.get_close_matches(word, names, 1, 0.7))[:3]
            hint = f"; did you mean --{' or --'.join(alike)}?" if alike else ";"
        raise GitOpsError(f"{one_line(message, 500)}{hint} -h lists the options")


def parse_arguments(argv: Union[None, str, Sequence[str]]) -> argparse.Namespace:
    """Return the options of a list of arguments, or of a string that is split as a shell does.

    Raises GitOpsError for what is no option, and for options that have no meaning together.
    """
    try:
        arguments = shlex.split(argv) if isinstance(argv, str) else argv
    except ValueError as error:
        raise GitOpsError(f"cannot split {in_quotes(argv)} into arguments: {error}") from None
    width = min(shutil.get_terminal_size().columns - 2, 100)
    installed = program_name() == COMMAND
    parser = OptionParser(
        prog=program_name(),
        allow_abbrev=False,
        add_help=False,
        formatter_class=functools.partial(
            argparse.RawDescriptionHelpFormatter, width=width, max_help_position=29
        ),
        usage="%(prog)s [OPTION]...",
        epilog=EXAMPLES.replace("PROGRAM", COMMAND if installed else "python gitops_automation.py"),
        description="Simulate a GitOps delivery pipeline, or read a real one. Measure it with the "
        "DORA metrics,\nreport and draw it. Without an option, 30 days are simulated. Version "
        f"{__version__}.",
    )
    for title, listed in OPTIONS.items():
        group = parser.add_argument_group(title)
        for names, settings, meaning in listed:
            group.add_argument(*names.split(", "), help=meaning, **settings)
    options = parser.parse_args(arguments)

    given = {name for name, value in vars(options).items() if value is not None}
    for rules, verb in ((NEEDS, "needs"), (EXCLUDES, "has no meaning with")):
        for names, others in rules.items():
            beside = [other for other in others.split() if (other in given) == (rules is EXCLUDES)]
            for name in names.split():
                wrong = beside if rules is EXCLUDES else len(beside) == len(others.split())
                if name in given and wrong:
                    flags = [f"--{one.replace('_', '-')}" for one in (name, *beside)]
                    raise GitOpsError(f"{flags[0]} {verb} {' or '.join(flags[1:])}")
    for name, low, high in (("days", 1, MOST_DAYS), ("runs", 2, MOST_RUNS)):
        if getattr(options, name) is not None:
            check_whole(f"--{name}", getattr(options, name), low, high)
    return options


def read_history(
    gitops: GitOpsAutomation, options: argparse.Namespace, whole: bool = False
) -> None:
    """Read what the options name, if they name anything: its last days, or the whole of it.

    For a forecast it is the whole, as the days are those of a month of the forecast.
    """
    repo, environments, template = options.repo, options.environments, options.deployments_from
    chosen = {"applications": options.application or ()}
    history = None
    if options.history is not None:
        print_text("\n📡 Reading the tables of a history...")
        history = load_tables(options.history, environments, **chosen)
    if options.tags is not None:
        print_text("\n📡 Reading the release tags...")
        authors = options.ignore_authors
        history = load_release_tags(repo, options.tags or "v*", ignore_authors=authors)
    if template is not None:
        print_text("\n📡 Reading the config repository's history...")
        if options.argocd:  # both read the same layout
            template = find_layout(repo, HeadTree(repo).files, template, Stages.of(environments))
        history = load_gitops_repository(
            repo, template, environments, ignore_authors=options.ignore_authors, **chosen
        )
    if options.argocd:
        print_text("\n📡 Reading Argo CD history...")
        cluster = load_argocd(
            options.argocd, repo, environments=environments, template=template, **chosen
        )
        history = cluster if history is None else join_histories(history, cluster)
    if options.incidents is not None and history is not None:
        incidents = read_incidents(options.incidents)
        ours = options.application or ["*"]
        names = incidents["application"]
        incidents = incidents[[any(fnmatch.fnmatch(name, one) for one in ours) for name in names]]
        print_text(f"  ✓ Read {count_text(len(incidents), 'incident')}")
        history = with_incidents(history, incidents, complete=bool(options.incidents_complete))
    if history is not None:
        gitops.load_history(history, None if whole else options.days)
    elif repo is not None:
        gitops.load_git_history(repo, options.days or 30)
        files = ask_git(repo, "ls-tree", "-r", "-z", "--full-tree", "--name-only", "HEAD")
        layout = best_layout(files.split("\0"), Stages.of(None))[1]
        other = f"; --deployments-from measures those of {layout}" if layout else ""
        for pattern, option in (("[0-9]*", "--tags '[0-9]*'"), ("v*", "--tags")):
            if ask_git(repo, "for-each-ref", "--merged=HEAD", f"refs/tags/{pattern}"):
                other = f"; {option} measures its release tags"
        print_text(f"    • its deployments are simulated{other}")


def report_history(gitops: GitOpsAutomation, options: argparse.Namespace) -> Dict[str, Any]:
    """Measure, print and draw a history, or trace a release; return the document of `--json`."""
    read_history(gitops, options)
    if gitops.git_commits is None:
        gitops.simulate_git_activity(options.days or 30)
    if gitops.deployments is None:
        gitops.simulate_deployments()
        gitops.simulate_rollbacks()
    if options.trace is not None:
        steps = gitops.trace(options.trace)
        print_text("\n" + format_trace(steps))
        document = {"schema_version": SCHEMA_VERSION, "version": __version__, **steps.attrs}
        return to_jsonable({**document, "steps": steps.to_dict("records")})
    gitops.calculate_dora_metrics()
    gitops.generate_report(bool(options.details))
    if not options.no_dashboard:
        gitops.visualize_metrics()
    if options.export:
        print_text(f"✓ Exported {', '.join(path.name for path in gitops.export())}")
    if options.markdown is not None:
        file = Path(options.markdown)
        write_files(file.parent, {file.name: gitops.markdown().encode("utf-8", "replace")})
    print_text("\n✅ GitOps automation complete!\n")
    print_text(format_summary(gitops._report()))
    return gitops.document() if options.json else {}


def forecast_history(gitops: GitOpsAutomation, options: argparse.Namespace) -> Dict[str, Any]:
    """Print a what-if, the levers or a backtest; return the document of `--json`."""
    days, picture = options.days or 28, None
    document = {"schema_version": SCHEMA_VERSION, "version": __version__}
    read_history(gitops, options, whole=True)
    if options.what_if:
        calibration = gitops.calibrate()
        if calibration.knobs:
            print_text("\n🔧 Fitting the baseline to this history...")
            print_text(join_folded(f"  • {note}" for note in calibration.notes))
        forecast = gitops.what_if(options.what_if, options.runs or 200, days, calibration)
        if gitops.deployments is not None and gitops.window.days >= LEAST_DAYS + 3 * days:
            forecast = forecast._replace(scores=backtest_scores(gitops.backtest(days)))
        name, table, text = "what_if.csv", forecast.table, format_forecast(forecast)
        document = forecast_document(forecast)
        picture = None if options.no_dashboard else render_png(draw_what_if(forecast, 300))
    elif options.levers is not None:
        table = gitops.levers(options.levers, options.runs or 200, days)
        name, text = "levers.csv", format_levers(table)
        document.update(simulated=True, **table.attrs, levers=table.to_dict("records"))
    else:
        table = gitops.backtest(days, options.runs or 100)
        scores = backtest_scores(table)
        name, text = "backtest.csv", format_backtest(scores, days)
        verdict = backtest_verdict(scores)
        document.update(days=days, verdict=verdict, scores=scores.to_dict("index"))
    print_text("\n" + text)
    files = {name: table.to_csv(index=False).encode()} if options.export else {}
    if picture is not None:
        files["gitops_what_if.png"] = picture
    if files:
        paths = write_files(gitops.output_dir, files)
        print_text("\n✓ Saved as " + ", ".join(f"'{one_line(path)}'" for path in paths))
    show_in_notebook(picture)
    return to_jsonable(document)


def run_options(options: argparse.Namespace) -> Optional[GitOpsAutomation]:
    """Do what the command line asks for; return what it was done with, if anything was run.

    What is printed is held until all is done: an error stands alone. A notebook shows it as it
    comes, in order with the pictures.
    """
    scenario = Scenario()
    if options.config == "":
        print_text(scenario.to_json())
        return None
    if options.config is not None:
        scenario = PRESETS.get(options.config) or read_scenario(options.config)
    alerts = None if options.alert_webhook is None else WebhookAlerts(options.alert_webhook)
    gitops = GitOpsAutomation(
        scenario, seed=options.seed, end=options.end, output_dir=options.output, on_rollback=alerts
    )
    gitops.advice_runs = options.runs
    is_forecast = options.what_if or options.levers is not None or options.backtest
    held = io.StringIO()
    console: Any = sys.stdout if notebook_kernel() is not None and not options.json else held
    tell_terminal("Reading, simulating and measuring...")
    try:
        with contextlib.redirect_stdout(console):
            print_text(f"🔄 GitOps Workflow Automation with ArgoCD\n{DOUBLE_LINE}")
            document = (forecast_history if is_forecast else report_history)(gitops, options)
            if alerts is not None:
                print_text(f"✓ Sent {count_text(alerts.sent, 'alert')} to {alerts.host}")
    finally:
        tell_terminal("")
    if options.json:
        print_text(json.dumps(document, indent=2))
    elif console is held:
        print_text(held.getvalue()[:-1])
    if alerts is not None and alerts.problem:
        lost = count_text(len(gitops.rollbacks) - alerts.sent, "rollback alert")
        print_problem("warning", f"{lost} did not reach {alerts.host}: {alerts.problem}")
    gitops.printed_in = cell_number()
    return gitops


def print_problem(kind: str, message: str) -> int:
    """Print a warning or an error on standard error; return the exit status of an error."""
    sys.stderr.write(f"{program_name()}: {kind}: {one_line(message, 8000)}\n")
    return 2


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
    except RecursionError:
        sys.exit(print_problem("error", "a value is nested too deeply; give what a tool wrote"))
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
    """Run the program as a command, whose exit status must not be an object."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()
    gc.enable()
    main()


if __name__ == "__main__":
    if notebook_kernel() is None:
        run_command()
    else:
        main()
