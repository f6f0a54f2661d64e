# /// script
# requires-python = ">=3.8"
# dependencies = ["numpy>=1.21", "pandas>=1.3", "matplotlib>=3.4", "seaborn>=0.11"]
# ///
"""Simulate a GitOps delivery pipeline, or read a real one, and measure it with the DORA metrics.

Commits flow through dev, staging and production as Argo CD would sync them. Failed syncs are
rolled back. The result is measured, reported and drawn. A what-if forecasts the same pipeline with
other settings. There are three ways to use this file::

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
    Real history          a git repository, Argo CD -> the same tables
    DORA calculator       history -> metrics
    Reporting engine      metrics -> console and JSON; metrics -> dashboard
    What-if               scenarios -> months side by side
    Recommendations       the smallest change that meets a target
    Calibration           history -> scenario
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
import dataclasses
import datetime as _dt
import difflib
import functools
import hashlib
import heapq
import io
import itertools
import json
import math
import os
import posixpath
import re
import reprlib
import signal
import subprocess
import sys
import tempfile
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
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

if __name__ == "__main__" and "IPython" not in sys.modules:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the packages load ends quietly

import matplotlib
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
from matplotlib.ft2font import FT2Font
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
    "fit_scenario",
    "production_metrics",
    "calculate_dora_metrics",
    "calculate_maturity",
]

# ---- Vocabulary: the tables and words that every layer shares -----------------------------------

SYNCED, FAILED = "Synced", "Failed"  # Argo CD's outcome of a sync operation
HEALTHY, DEGRADED = "Healthy", "Degraded"  # Argo CD's health of the application after it

# fmt: off
COLUMNS: Dict[str, Dict[str, str]] = {
    "git_commits": {
        "sha": "text", "timestamp": "time", "author": "word", "type": "word", "application": "word",
        "branch": "word", "message": "text", "files_changed": "count",
    },
    "deployments": {
        "timestamp": "time", "application": "word", "environment": "word", "commit_sha": "word",
        "status": "word", "health": "word", "duration_sec": "count", "failure_reason": "word",
    },
    "rollbacks": {
        "timestamp": "time", "application": "word", "environment": "word", "from_commit": "text",
        "to_commit": "text", "reason": "word", "duration_min": "number", "success": "flag",
    },
}
# fmt: on
"""The public contract: the columns of each table in order, and the kind of value in each. A `word`
column is categorical: it has few distinct values, or it is a key that joins two tables."""

DAY = 86_400  # seconds
NEVER = 1 << 40  # seconds: later than any time that can occur
MONDAY = 4 * DAY  # 1970-01-05, the first Monday
FIRST_DAY, LAST_DAY = pd.Timestamp("1970-01-01", tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC")
LAST_SECOND = int(LAST_DAY.timestamp()) - 1
MOST_DAYS = 1_000_000
NAME_WIDTH = 253  # characters, as in Kubernetes; longer texts are cut where they are read


class GitOpsError(ValueError):
    """Unusable input. The message is one line: what is wrong, the value, and what to do."""


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

    `source` says where it comes from: `simulated` or `argocd`. The other fields are known of real
    deployments alone:

    - `changes`: a row is a commit in the first deployment to an environment that contains it
      (application, environment, commit_sha, committed, deployed). `deployed` is missing while
      production waits for a change that another environment has.
    - `coverage`: a row is a span of time that the history of one Argo CD application covers
      (application, environment, rule, from, to, truncated, syncs, deployments, argocd_name,
      failures_observable). Snapshots with gaps between them give several rows.
    - `undated`: how many revisions have no lead time, by reason.
    """

    git_commits: pd.DataFrame
    deployments: pd.DataFrame
    rollbacks: pd.DataFrame
    window: Window
    environments: Tuple[str, ...]
    source: str = "simulated"
    changes: Optional[pd.DataFrame] = None
    coverage: Optional[pd.DataFrame] = None
    undated: Mapping[str, int] = {}

    @property
    def production(self) -> str:
        """The name of the last environment."""
        return self.environments[-1]

    def failures_observable(self, environment: str) -> bool:
        """Return whether a failure in this environment could have been seen.

        Argo CD's own history has successful syncs alone. A failure can be seen where one was seen,
        or where the commits are known, because reverts are then known too.
        """
        if self.coverage is None:
            return True
        return bool(self.covered(environment)["failures_observable"].any())

    def covered(self, environment: str) -> pd.DataFrame:
        """Return the rows of `coverage` for one environment."""
        assert self.coverage is not None
        return self.coverage[self.coverage["environment"] == environment]

    def changes_to(self, environment: str) -> pd.DataFrame:
        """Return the rows of `changes` for one environment."""
        assert self.changes is not None
        return self.changes[self.changes["environment"] == environment]

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

        Raises GitOpsError for a table that is none, or an environment that is not listed.
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
    missing = [column for column in COLUMNS[name] if column not in columns]
    if missing:
        needed = ", ".join(COLUMNS[name])
        raise GitOpsError(f"table {name} has no column {missing[0]!r}; it needs {needed}")
    data = {
        column: as_kind(kind, columns[column], f"{name}.{column}")
        for column, kind in COLUMNS[name].items()
    }
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
        return utc_times(values)
    return (
        pd.Series(pd.to_datetime(np.asarray(values), utc=True)).astype("datetime64[ns, UTC]").array
    )


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
    line = " ".join(make_printable(str(text)[: 10 * width]).split()) or "(nothing)"
    return line if len(line) <= width else line[: width - 4] + " ..."


def in_quotes(value: object) -> str:
    """Return an untrusted value in quotes for a message, however long or deep it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 120
    return one_line(short.repr(value))


def clean_names(values: Iterable[str]) -> np.ndarray:
    """Return untrusted names as a knob accepts them: printable, in one line, and not too long."""
    names = pd.Series(list(values), dtype=object)
    return names.map({name: one_line(name, NAME_WIDTH) for name in names.unique()}).to_numpy(object)


def make_printable(text: str, keep: str = "") -> str:
    """Replace characters that could steer a terminal or hide by spaces, except those to keep."""
    unsafe = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, invisible formats, half pairs, line ends
    found = {char for char in set(text) - set(keep) if unicodedata.category(char) in unsafe}
    return text.translate(dict.fromkeys(map(ord, found), " ")) if found else text


# ---- Scenario: every knob, declared once --------------------------------------------------------

Range = Tuple[float, ...]
"""A distribution, given by evenly spaced quantiles: (low, high) is uniform between the two, and
more values follow the observations that they were taken from."""
Shares = Mapping[str, float]
"""A weight for each name. Weights need not sum to one."""
Week = Sequence[float]
"""Seven numbers, Monday first."""

PROMOTIONS = ("each", "newest", "soak")
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
) -> Any:
    """Declare a knob, a dataclass field that its check, JSON, `--what-if`, README and advice read.

    `low` and `high` bound each number in it, and `one_of` lists the words that it can be. `helps`
    names the metrics that a change for the better improves. `phrase` says that change in words,
    with {environment}, {before} and {after}.
    """
    declared = dict(low=low, high=high, help=help, one_of=one_of, helps=helps, phrase=phrase)
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
            path = f"{self.label}.{declared.name}".lstrip(".")
            value = check_knob(path, getattr(self, declared.name), declared)
            object.__setattr__(self, declared.name, value)

    def replaced(self, changes: Mapping[str, Any]) -> Any:
        """Return a copy with other values; GitOpsError for a knob that there is not."""
        known = known_keys(self.label, changes, type(self))
        return dataclasses.replace(self, **known)  # type: ignore[type-var]


def check_that(is_right: Any, name: str, rule: str, value: Any) -> None:
    """Raise GitOpsError unless a value is right: its name, the rule that it breaks, the value."""
    if not is_right:
        raise GitOpsError(f"{name} must {rule}, not {in_quotes(value)}")


def check_knob(path: str, value: Any, declared: Any) -> Any:
    """Return the value of a knob in its own type; GitOpsError if it is not as it was declared."""
    low, high = (declared.metadata.get(bound) for bound in ("low", "high"))
    if declared.type == "float":
        return check_number(path, value, low, high)
    if declared.type == "int":
        return check_whole(path, value, low, high)
    if declared.type == "str":
        return check_word(path, value, declared.metadata["one_of"])
    if declared.type == "Shares":
        return check_shares(path, value)
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
    work_hours: Range = knob((9, 18), 0, 24, help="UTC hours of the day in which commits are made")


@dataclass(frozen=True)
class Environment(Knobs):
    """One stage of the pipeline. `run_stage` says what each knob does."""

    name: str = knob(help="any name; the last environment is production")
    success_rate: float = knob(
        0.95, 0, 1, help="probability that a sync ends healthy",
        helps=("change_failure_rate", "deployment_frequency"),
        phrase="Raise the {environment} success rate from {before} to {after}")
    wait_hours: Range = knob(
        (0, 0),
        help="wait after the stage before: low and high, or more quantiles of a distribution",
        helps=SPEED, phrase="Cut the {environment} wait from {before} to {after} h")
    duration_sec: Range = knob((30, 120), 0, 1e9, help="how long a sync takes")
    promotion: str = knob(
        "newest", one_of=PROMOTIONS, help="`each`, `newest` or `soak` (see the model)",
        helps=SPEED, phrase="Promote to {environment} with policy {after} instead of {before}")
    approval_rate: float = knob(
        1.0, 0, 1, help="probability that a release passes the gate",
        helps=SPEED, phrase="Approve {after} of the {environment} releases instead of {before}")
    release_every_hours: float = knob(
        0.0, help="a release train: 168 leaves on Mondays at 00:00 UTC; 0 is none",
        helps=SPEED, phrase="Release to {environment} every {after} h instead of every {before} h")

    @property
    def label(self) -> str:
        is_name = isinstance(self.name, str) and self.name == one_line(self.name, NAME_WIDTH)
        return self.name if is_name else "environment"


@dataclass(frozen=True)
class RollbackPolicy(Knobs):
    """How a failed deployment is taken back."""

    duration_min: Range = knob(
        (5, 15), 0, 1e8, help="minutes",
        helps=("mttr_minutes",), phrase="Shorten rollbacks from {before} to {after} minutes")
    success_rate: float = knob(
        0.95, 0, 1, help="probability that a rollback works",
        helps=("mttr_minutes",), phrase="Raise the rollback success rate from {before} to {after}")


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
        return "environments." * (environment in ("team", "rollback")) + str(environment)

    def with_knobs(self, group: str, **changes: Any) -> Scenario:
        """Return a copy with other knobs in one of the `groups`; GitOpsError if there is none."""
        if group not in self.groups:
            known = ", ".join(self.names)
            problem = f"unknown environment {in_quotes(group)}; the scenario has {known}"
            raise GitOpsError(f"{problem}; Scenario(environments=...) takes others")
        changed = {**self.groups, group: self.groups[group].replaced(changes)}
        team, rollback, *environments = changed.values()
        values = dict(team=team, rollback=rollback, environments=tuple(environments))
        return dataclasses.replace(self, **values)

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
        """Return the scenario as a JSON document that `from_json` reads back to an equal one."""
        return json.dumps(
            dataclasses.asdict(self), indent=2
        )  # ASCII: a shell may redirect it as anything

    @classmethod
    def from_history(cls, history: History) -> Scenario:
        """Return the scenario whose simulation is like a history (see `fit_scenario`)."""
        return fit_scenario(history)[0]

    @classmethod
    def from_json(cls, text: str, base: Optional[Scenario] = None) -> Scenario:
        """Read a JSON document; what it leaves out stays as in `base`, by default the default one.

        `environments` is the whole pipeline in order. What is left out of an environment that the
        base has stays too. A new one must say its wait, success rate and duration. Raises
        GitOpsError for what is unknown, missing or out of range.
        """
        base = cls() if base is None else base
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            problem = f"the configuration is not JSON: {one_line(error)}"
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
        raise GitOpsError(f"the new environment {name} lacks {', '.join(missing)}; add what it has")
    return Environment(**values)


def read_scenario(path: Union[str, os.PathLike], base: Optional[Scenario] = None) -> Scenario:
    """Read a scenario from a JSON file (see `from_json`); GitOpsError that names the file."""
    try:
        return Scenario.from_json(Path(path).read_text(encoding="utf-8-sig"), base)
    except GitOpsError as error:
        raise GitOpsError(f"{one_line(path)}: {error}") from None
    except (OSError, ValueError) as error:
        problem = f"cannot read the configuration {one_line(path)}: {one_line(error)}"
        raise GitOpsError(f"{problem}; --print-config prints one to begin with") from None


def known_keys(what: str, document: Any, knobs: type) -> Dict[str, Any]:
    """Return a JSON object as a dict; GitOpsError if it is none or has a key that is no knob."""
    if not isinstance(document, Mapping):
        raise GitOpsError(f"{what} must be a JSON object, not {in_quotes(document)}")
    known = [declared.name for declared in dataclasses.fields(knobs)]
    for key in document:
        if key not in known:
            raise GitOpsError(
                f"unknown key {in_quotes(key)} in {what}; known keys: {', '.join(known)}"
            )
    return dict(document)


# All noise is uniform on 0..1, and every layer is a deterministic function of it. So two scenarios
# under one seed differ by their knobs alone, and no sampler of numpy can change between versions.

LAYERS = ("commits", "deployments", "rollbacks")


class Noise:
    """The noise of one simulation, or of one block of many months; drawn once for all scenarios."""

    def __init__(self, seed: int, *block: int) -> None:
        self._seed, self._block = seed, block
        self._drawn: Dict[Tuple[str, int], np.ndarray] = {}

    def stream(self, layer: str, *parts: int) -> np.random.Generator:
        """Return the random stream of a layer, from integer seeds: numpy 1.21 has no spawn()."""
        seeds = [self._seed, LAYERS.index(layer), *((*parts, *self._block) or (0,))]
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


def simulate_commits(
    team: Team, window: Window, stream: np.random.Generator, runs: int = 1
) -> Commits:
    """Simulate the commits of `runs` independent windows; a run is a group."""
    days = np.arange(window.days) + (window.start - FIRST_DAY).days
    counts = commits_of_days(team, days, stream.random((runs, len(days))))
    run = np.repeat(np.arange(runs), counts.sum(axis=1))
    midnight = np.repeat(np.tile(days * DAY, runs), counts.ravel())
    hour = quantile_at(team.work_hours, stream.random(len(run)))
    second = np.minimum(hour * 3600, DAY - 1).astype(np.int64)
    time = np.sort(run * NEVER + midnight + second) - run * NEVER  # sorted within each run
    return Commits(run, time, draw_shares(team.applications, stream.random(len(run))))


def commits_of_days(team: Team, days: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return how many commits each day has (days since 1970; the last axis of the noise)."""
    cycle = np.arange(7 * team.sprint_days)
    rise = np.linspace(-0.5, 0.5, team.sprint_days)[cycle % team.sprint_days]
    factors = np.take(team.weekday_factors, cycle % 7)
    ramped = factors * (1 + team.sprint_ramp * rise)
    if not ramped.any():  # a ramp that is 0 on every working day cannot keep the mean: leave it out
        ramped = factors
    rates = team.commits_per_day * ramped * (factors.sum() / max(ramped.sum(), 1e-300))
    if rates.mean() * len(days) > MOST_COMMITS:
        asked = f"{len(days)} days of {team.commits_per_day:g} commits"
        raise GitOpsError(f"{asked} are more than {MOST_COMMITS:,}; lower one")
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
    commits = simulate_commits(team, window, stream)
    author, kind, subject, files = stream.random((4, len(commits.time)))
    types = draw_shares(team.types, kind)
    messages = np.array(
        [
            [
                [f"{kind}({application}): {text}" for text in SUBJECTS.get(kind, OTHER_SUBJECTS)]
                for application in team.applications
            ]
            for kind in team.types
        ],
        dtype=object,
    )
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

    start: np.ndarray  # seconds since 1970 at which the sync starts, had it been let through
    duration: np.ndarray  # seconds
    outcome: np.ndarray  # noise: the sync is bad where this is not below the success rate
    deployed: np.ndarray
    good: np.ndarray
    flow: Tuple[int, int, int, int]  # see FLOW


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
    commits: Commits, scenario: Scenario, window: Window, noise: Noise
) -> Tuple[Deployments, List[Stage], np.ndarray]:
    """Take commits through every environment: the model.

    Returns the deployments, the stages, and which commit each entry of a stage is about.
    """
    lineage = commits.lineage
    order = np.argsort(lineage.astype(smallest_type(lineage)), kind="stable")
    lineage, arrival = number_runs(lineage[order]), commits.time[order]
    stages: List[Stage] = []
    for number, environment in enumerate(scenario.environments):
        rows = 3 + (environment.approval_rate < 1)
        stage_noise = noise.of("deployments", number, rows, len(order))
        stages.append(run_stage(environment, arrival, lineage, stage_noise, window.seconds[1]))
        arrival = np.where(stages[-1].good, stages[-1].start + stages[-1].duration, NEVER)
    return deployments_of(commits, stages, order), stages, order


def run_stage(
    environment: Environment, arrival: np.ndarray, lineage: np.ndarray, noise: np.ndarray, end: int
) -> Stage:
    """Take releases through one environment.

    1. A release arrives when it is healthy in the environment before. In the first, it is a commit.
    2. It waits `wait_hours`, and then for the next train if trains run every `release_every_hours`.
    3. The gate lets it through with probability `approval_rate`. Otherwise it is held.
    4. It is superseded if a newer release of its lineage overtakes it (see `overtaken`).
    5. Its sync starts if the window has not ended by then. Otherwise it is in flight.
    6. The sync takes `duration_sec`, and it is good with probability `success_rate`.
    """
    arrived = arrival < NEVER
    start = arrival + draw_seconds(environment.wait_hours, noise[WAIT], 3600)
    start = next_train(start, environment.release_every_hours)
    approved = arrived
    if environment.approval_rate < 1:
        approved = arrived & (noise[APPROVAL] < environment.approval_rate)
    wanted = approved & ~overtaken(environment.promotion, arrival, start, approved, lineage)
    deployed = wanted & (start < end)
    counts = [int(np.count_nonzero(which)) for which in (arrived, approved, wanted, deployed)]
    return Stage(
        start,
        draw_seconds(environment.duration_sec, noise[DURATION]),
        noise[OUTCOME],
        deployed,
        deployed & (noise[OUTCOME] < environment.success_rate),
        (counts[3], counts[1] - counts[2], counts[0] - counts[1], counts[2] - counts[3]),
    )


def next_train(start: np.ndarray, every_hours: float) -> np.ndarray:
    """Return the next departure at or after a time; departures are counted from a Monday."""
    every = round(every_hours * 3600)
    return start if every < 1 else -(-(start - MONDAY) // every) * every + MONDAY


def overtaken(
    promotion: str,
    arrival: np.ndarray,
    start: np.ndarray,
    approved: np.ndarray,
    lineage: np.ndarray,
) -> np.ndarray:
    """Return which releases give way to a newer one of their lineage, by promotion policy.

    1. `each`: none. Every release goes up.
    2. `newest`: one that a newer release overtakes, because the newer sync starts no later.
    3. `soak`: one that does not stay the newest upstream until its own sync starts.
    """
    if promotion == "each":
        return np.zeros(len(start), bool)
    rival = arrival if promotion == "soak" else np.where(approved, start, NEVER)
    return start >= earliest_of_newer(rival, lineage)


def earliest_of_newer(times: np.ndarray, lineage: np.ndarray) -> np.ndarray:
    """Return for each entry the least time of the later entries of its lineage, if need be NEVER.

    It is a running minimum from the end, with each lineage lifted above the ones before it (half
    the time of pandas' groupby().cummin() and shift()).
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
    """Return the positions that sort the times, ties in the order they have.

    The position is packed into the low bits, as numpy sorts integers several times faster than it
    argsorts them.
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
    """Take a table of commits through the environments: (`deployments` table, flow).

    A row of deployments is a sync that started before the window's end. A row of flow is an
    environment (the index) and says what became of the releases that reached it: `deployed`,
    `superseded` by a newer one, `held` by the gate, `in_flight` (their sync would start at or after
    the end).
    """
    commits = commits_of(git_commits, git_commits["application"].cat.categories)
    deployments, stages, order = run_pipeline(commits, scenario, window, Noise(seed))
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
        },
    )
    index = pd.Index(scenario.names, name="environment")
    return table, pd.DataFrame([stage.flow for stage in stages], columns=FLOW, index=index)


def failure_reasons(
    deployments: Deployments, scenario: Scenario, stages: Sequence[Stage], order: np.ndarray
) -> pd.Categorical:
    """Return why each sync failed, missing where it was good.

    Of a failed sync, what is left of the outcome's noise above the success rate is uniform again.
    It picks the reason.
    """
    position = np.empty(len(order), np.int64)  # of each commit in the stages
    position[order] = np.arange(len(order))
    codes = np.full(len(deployments.time), -1)
    for number, (environment, stage) in enumerate(zip(scenario.environments, stages)):
        failed = np.flatnonzero(deployments.bad & (deployments.environment == number))
        outcome = stage.outcome[position[deployments.commit[failed]]]
        rest = (outcome - environment.success_rate) / (1 - environment.success_rate)
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


def roll_back(
    deployments: Deployments, policy: RollbackPolicy, noise: Noise, commits: int
) -> Rollbacks:
    """Take each failed deployment back to the newest earlier good one of its place.

    A failure with no earlier good release there has no rollback. `commits` is how many there are.
    """
    failed, target = last_good_releases(deployments)
    keep = np.flatnonzero(target >= 0)
    keep = keep[time_order(deployments.end[failed[keep]])]
    failed, target = failed[keep], target[keep]
    length, outcome = np.empty((2, len(failed)))
    for number in np.unique(deployments.environment[failed]).tolist():
        here = deployments.environment[failed] == number
        drawn = noise.of("rollbacks", number, 2, commits)
        length[here], outcome[here] = drawn[:, deployments.commit[failed[here]]]
    detected = deployments.end[failed]
    return Rollbacks(
        deployments.group[failed],
        detected,
        detected + draw_seconds(policy.duration_min, length, 60),
        deployments.application[failed],
        deployments.environment[failed],
        failed,
        target,
        outcome < policy.success_rate,
    )


def last_good_releases(deployments: Deployments) -> Tuple[np.ndarray, np.ndarray]:
    """Return the failed deployments, and for each the newest earlier good one of its place: rows.

    The second is -1 where there is none.
    """
    rows = pd.Series(np.where(deployments.bad, np.nan, np.arange(len(deployments.time))))
    newest_good = rows.groupby(deployments.place).ffill().fillna(-1).to_numpy(np.int64)
    failed = np.flatnonzero(deployments.bad)
    return failed, newest_good[failed]


def simulate_rollbacks(
    deployments: pd.DataFrame, policy: RollbackPolicy, seed: int
) -> pd.DataFrame:
    """Roll back a table of deployments: the `rollbacks` table.

    A row is a failed deployment that is taken back to the newest earlier `Synced` and `Healthy`
    release of its application and environment.
    """
    words = ("application", "environment", "commit_sha")
    applications, environments, shas = (deployments[word].cat.categories for word in words)
    events = deployments_from(deployments, applications, environments, shas)
    done = roll_back(events, policy, Noise(seed), len(shas))
    sha, failed = deployments["commit_sha"].array, done.deployment
    return as_table(
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


def rollback_alert(rollback: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what is told of one rollback: its columns as JSON values, and a `text` for people."""
    outcome = "succeeded" if rollback["success"] else "FAILED"
    releases = f"from {rollback['from_commit'][:7]} to {rollback['to_commit'][:7]}"
    text = (
        f"Rollback {outcome}: {rollback['application']} in {rollback['environment']} {releases} "
        f"after {rollback['duration_min']:.1f} minutes ({rollback['reason']})"
    )
    return {
        "text": text,
        **rollback,
        "timestamp": rollback["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


class WebhookAlerts:
    """POST each rollback to a webhook of the Slack and Mattermost kind, until one does not arrive.

    It is callable, for `on_rollback`. A dead endpoint raises nothing: `undelivered` counts the
    alerts that did not arrive, and `problem` says why, without the address, which is a secret. A
    redirect is refused. The constructor raises GitOpsError for an address that cannot be one.
    """

    timeout = 5  # seconds

    def __init__(self, url: str) -> None:
        import urllib.request  # slow to import, and few runs need it

        class RefuseRedirects(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        self.host, self.undelivered, self.problem = webhook_host(url), 0, ""
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
        self.undelivered += bool(self.problem)


def webhook_host(url: str) -> str:
    """Return the host of a webhook's address; GitOpsError, without the address, if it has none."""
    import urllib.parse

    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url)
        plain = url.isascii() and url.isprintable() and " " not in url and not parts.username
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and plain:
            return parts.hostname
    raise GitOpsError(
        "the webhook must be an http:// or https:// address with a host, without a user or odd "
        "characters"
    )


# ---- Real history: a git repository -> commits ---------------------------------------------------

# The repository is untrusted. Its configuration and attributes can name programs for git to run;
# the options and variables below outrank it, and no subcommand that runs more than `log` does is
# called.

_GIT = (
    "git",
    "--no-pager",
    "--no-replace-objects",
    "--no-optional-locks",
    "--literal-pathspecs",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=" + os.devnull,
    "-c",
    "log.showSignature=false",
    "-c",
    "core.alternateRefsCommand=",
    "-c",
    "diff.orderFile=" + os.devnull,
    "-c",
    "log.mailmap=false",
    "-c",
    "submodule.recurse=false",
    "-c",
    "i18n.logOutputEncoding=UTF-8",
    "-c",
    "log.showRoot=true",
    "-c",
    "diff.relative=false",
    "-c",
    "protocol.allow=never",
)
_GIT_LOG = (
    "log",
    "-z",
    "--no-merges",
    "--no-color",
    "--no-decorate",
    "--no-show-signature",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--name-only",
    "--no-notes",
    "--encoding=UTF-8",
)


def _git_log_command(marker: str) -> Tuple[str, ...]:
    """The one call that reads commits. The marker that begins a record is one that nobody can
    guess, so that no file name in a repository can pass for a record."""
    return (*_GIT_LOG, f"--format=tformat:{marker}%H%x00%ct%x00a%an%x00s%s")


def read_git_log(
    repo: Union[str, os.PathLike],
    days: int,
    end: Optional[pd.Timestamp],
    applications: Sequence[str],
) -> Tuple[pd.DataFrame, Window]:
    """The real commits of a repository's current branch: (`git_commits` table, window).

    Merges are left out. The window is the `days` whole UTC days before `end`, or those up to the
    day of the newest commit. `type` is the Conventional Commits type (`other` if none),
    `application` the scope if it is one of `applications`, else the repository's name. Raises
    GitOpsError if `repo` is no repository, or has no commit in the window.
    """
    # the last one is not always the newest: it may be of somebody whose clock is behind
    newest = max(
        map(_epoch, _git(repo, "log", "-1000", "--no-show-signature", "--format=%ct").split()),
        default=-1,
    )
    branch, folder = (
        _git(repo, "branch", "--show-current") or "HEAD",
        _git(repo, "rev-parse", "--git-common-dir"),
    )
    if end is None:
        end = pd.Timestamp(
            min(max(newest, 0) // DAY + 1, (LAST_DAY - FIRST_DAY).days) * DAY, unit="s", tz="UTC"
        )
    window = Window.before(end, days)
    marker = f"/{os.urandom(8).hex()}"
    log = _git_stream(
        repo,
        *_git_log_command(marker),
        _since(repo, window.start),
        separator=b"\0" + marker.encode(),
    )
    fields = _parse_git_log(log, marker.encode())
    inside = (fields.seconds >= window.start.timestamp()) & (
        fields.seconds < window.end.timestamp()
    )
    if not inside.any():
        raise GitOpsError(
            f"no commit in {one_line(repo)} from {window.start:%Y-%m-%d} to "
            f"{window.last:%Y-%m-%d}; choose more --days or another --end"
        )
    order = np.flatnonzero(inside)[np.argsort(fields.seconds[inside], kind="stable")]
    log_of_window = GitLog(*(column[order] for column in fields))
    return _commits_of_log(
        log_of_window,
        _repository_name(Path(os.fsdecode(repo), folder)),
        one_line(branch),
        applications,
    ), window


def _repository_name(git_folder: Path) -> str:
    """The name that people know a repository by: its folder's, or that of a bare one without
    `.git`."""
    folder = git_folder.resolve()
    name = folder.parent.name if folder.name == ".git" else re.sub(r"\.git$", "", folder.name)
    return one_line(os.fsencode(name).decode("utf-8", "replace"), 60)


def _epoch(text: Union[str, bytes]) -> int:
    """Seconds since 1970 as git prints them; -1 for what is no time, or none that fits."""
    return (
        int(text)
        if re.fullmatch(r"[0-9]{1,15}", text.decode() if isinstance(text, bytes) else text)
        else -1
    )


def _since(repo: Union[str, os.PathLike], start: pd.Timestamp) -> str:
    """The option that leaves older commits out. From git 2.37 on it looks behind every older commit
    for newer ones; before, the walk ends at a few commits with a clock that was wrong."""
    version = re.findall(r"\d+", _git(repo, "version"))
    filters = tuple(map(int, version[:2])) >= (2, 37)
    return f"--since{'-as-filter' if filters else ''}={start.isoformat()}"


class GitLog(NamedTuple):
    """The columns of a log, oldest commit first, each an array with an entry for each commit."""

    sha: np.ndarray
    seconds: np.ndarray
    author: np.ndarray
    subject: np.ndarray
    files: np.ndarray


def _commits_of_log(
    log: GitLog, repository: str, branch: str, applications: Sequence[str]
) -> pd.DataFrame:
    subject = pd.Series(log.subject, dtype=object)
    scope = subject.str.extract(_CONVENTIONAL, expand=True)["scope"].astype(object)
    return as_table(
        "git_commits",
        {
            "sha": log.sha,
            "timestamp": log.seconds,
            "author": clean_names(log.author),
            "type": _commit_types(subject),
            "application": scope.where(scope.isin(list(applications)), repository),
            "branch": word_column(np.zeros(len(subject), np.int8), [branch]),
            "message": log.subject,
            "files_changed": log.files,
        },
    )


_CONVENTIONAL = r"^(?P<type>[A-Za-z]+)(?:\((?P<scope>[^()]*)\))?!?:"


def _commit_types(subject: pd.Series) -> pd.Series:
    """The Conventional Commits type of each subject, `other` if it has none that is known."""
    type_ = subject.str.extract(_CONVENTIONAL, expand=True)["type"].astype(object).str.lower()
    return type_.where(type_.isin(list(COMMIT_TYPES)), "other").astype(object)


def _parse_git_log(chunks: Iterator[bytes], marker: bytes = b"/") -> GitLog:
    parts = [_parse_git_chunk(chunk, marker) for chunk in chunks]
    if not parts:
        return GitLog(
            *(np.empty(0, dtype) for dtype in (object, np.int64, object, object, np.int64))
        )
    return GitLog(*(np.concatenate(columns)[::-1] for columns in zip(*parts)))


def _parse_git_chunk(chunk: bytes, marker: bytes = b"/") -> GitLog:
    """Cut whole records apart. A record is marker and sha, time, `a`author, `s`subject, then its
    files, each ended by NUL."""
    marks = np.frombuffer(chunk, np.uint8)
    ends = np.flatnonzero(marks == 0)
    starts = np.append(0, ends[:-1] + 1)
    maybe = np.flatnonzero(marks[starts] == marker[0])
    begins = marks[np.minimum(starts[maybe][:, None] + np.arange(len(marker)), len(marks) - 1)]
    heads = maybe[(begins == np.frombuffer(marker, np.uint8)).all(axis=1)]
    tokens = np.array(chunk.split(b"\0")[:-1], dtype=object)
    heads = heads[
        heads + 4 <= len(tokens)
    ]  # git may end in the middle of a record; its status then says so
    files = np.diff(np.append(heads, len(tokens))) - 4
    sha, author, subject = (_decoded(tokens[heads + place]) for place in (0, 2, 3))
    sha = pd.Series(sha, dtype=object).str[len(marker) - 1 :].to_numpy(object)
    return GitLog(sha, _epochs(tokens[heads + 1]), author, subject, files)


def _epochs(tokens: np.ndarray) -> np.ndarray:
    try:
        return tokens.astype(np.int64)
    except (ValueError, OverflowError):  # a commit can claim any time, or none
        return np.array([_epoch(token) for token in tokens], np.int64)


def _decoded(tokens: np.ndarray) -> np.ndarray:
    """Marked tokens as text that a terminal can take; joined, so that each step is one call."""
    if not len(tokens):
        return tokens
    text = make_printable(b"\n".join(tokens).decode("utf-8", "replace"), keep="\n")
    return pd.Series(text.split("\n"), dtype=object).str[1:].to_numpy(object)


class GitGraph:
    """The commits that some revisions contain, for asking what lies between two of them.

    Two `git` processes read it, however many revisions there are: one finds the objects (and peels
    tags), one walks. `commit[revision]` is the commit, `tree[revision, path]` the object at a path.
    """

    def __init__(self, repo: Union[str, os.PathLike], places: Iterable[Tuple[str, str]]) -> None:
        places = list(dict.fromkeys(places))
        revisions = list(dict.fromkeys(revision for revision, _ in places))
        names = [f"{revision}^{{commit}}" for revision in revisions]
        names += [
            f"{revision}^{{commit}}:{path}" if path else f"{revision}^{{tree}}"
            for revision, path in places
        ]
        objects = _git_objects(repo, names)
        self.commit = {revision: found for revision, found in zip(revisions, objects) if found}
        self.tree = {
            place: found for place, found in zip(places, objects[len(revisions) :]) if found
        }
        self.log = self._walk(repo, sorted(set(self.commit.values())))
        self.positions = {sha: position for position, sha in enumerate(self.log.sha)}
        self._sorted = sorted(self.log.sha)
        self._between: Dict[Tuple[str, str], List[int]] = {}
        self._main, self._landed = self._mainline()
        self._touching = self._index({path for _, path in places})

    @staticmethod
    def _walk(repo: Union[str, os.PathLike], commits: Sequence[str]) -> GitGraphLog:
        if not commits:
            return GitGraphLog([], [], [], [], [], [], [])
        marker = f"/{os.urandom(8).hex()}"
        form = f"--format=tformat:{marker}%H%x00p%P%x00%ct%x00a%an%x00s%s%x00b%b"
        revisions = "\n".join(commits).encode()
        chunks = _git_stream(
            repo, *_GIT_GRAPH, form, separator=b"\0" + marker.encode(), stdin=revisions
        )
        parts = [_parse_graph_chunk(chunk, marker) for chunk in chunks]
        return GitGraphLog(
            *(list(itertools.chain.from_iterable(columns)) for columns in zip(*parts))
        )

    def _mainline(self) -> Tuple[Dict[int, int], List[int]]:
        """({position: rank} of the longest line of first parents, oldest first; for each position
        the least rank of a commit there that contains it, -1 if none does). What lies between two
        commits of the line is then told by rank, without a walk."""
        parents = [
            [self.positions[sha] for sha in shas if sha in self.positions]
            for shas in self.log.parents
        ]
        length = [1] * len(parents)
        for position in range(len(parents) - 1, -1, -1):
            if parents[position]:
                length[position] += length[parents[position][0]]
        line = [length.index(max(length))] if length else []
        while line and parents[line[-1]]:
            line.append(parents[line[-1]][0])
        main, landed = (
            {position: rank for rank, position in enumerate(line[::-1])},
            [-1] * len(parents),
        )
        for position, rank in main.items():
            stack = [position]
            while stack:
                commit = stack.pop()
                if landed[commit] < 0:
                    landed[commit] = rank
                    stack += parents[commit]
        return main, landed

    def _index(self, paths: Set[str]) -> Dict[str, List[Tuple[int, int]]]:
        """For each path (rank on the mainline, position) of the commits that touch it, in order."""
        index: Dict[str, List[Tuple[int, int]]] = {path: [] for path in paths}
        for position in sorted(range(len(self._landed)), key=self._landed.__getitem__):
            if len(self.log.parents[position]) < 2:
                touched = {""}
                for file in self.log.files[position]:
                    touched.update(itertools.accumulate(file.split("/"), "{}/{}".format))
                for path in touched & index.keys():
                    index[path].append((self._landed[position], position))
        return index

    def contains(self, commit: str, other: str) -> bool:
        """Whether a commit contains another one."""
        rank = self._main.get(self.positions[commit])
        if rank is not None:
            return 0 <= self._landed[self.positions[other]] <= rank
        return not self.between(commit, other)

    def shipped(self, old: str, new: str, path: str) -> List[int]:
        """Positions of the commits that touch a path and that `new` contains and `old` does not."""
        low, high = (self._main.get(self.positions[sha], -1) for sha in (old, new))
        if low < 0 or high < 0 or path not in self._touching:
            return [position for position in self.between(old, new) if self.touches(position, path)]
        found = self._touching[path]
        return [
            at
            for _, at in found[
                bisect.bisect_left(found, (low + 1,)) : bisect.bisect_left(found, (high + 1,))
            ]
        ]

    def between(self, old: str, new: str) -> List[int]:
        """Positions in the log of the commits that `new` contains and `old` does not, newest
        first."""
        if (old, new) not in self._between:
            self._between[old, new] = self._search(self.positions[old], self.positions[new])
        return self._between[old, new]

    def _search(self, old: int, new: int) -> List[int]:
        """Walk down from both ends, children before parents, until only what `old` contains is
        left."""
        in_old = {old: True}
        in_old.setdefault(new, False)
        queue, wanted, found = sorted(in_old), int(old != new), []
        while wanted:
            position = heapq.heappop(queue)
            if not in_old[position]:
                wanted -= 1
                found.append(position)
            for sha in self.log.parents[position]:
                parent = self.positions.get(sha)
                if parent is None:
                    continue  # beyond a shallow clone's edge
                if parent not in in_old:
                    heapq.heappush(queue, parent)
                    in_old[parent] = in_old[position]
                    wanted += not in_old[position]
                elif in_old[position] and not in_old[parent]:
                    in_old[parent] = True
                    wanted -= 1
        return found

    def touches(self, position: int, path: str) -> bool:
        """Whether a commit, merges left out, changed something at or below a path ("" is all)."""
        files = self.log.files[position]
        if len(self.log.parents[position]) > 1:
            return False
        return not path or any(file == path or file.startswith(path + "/") for file in files)

    def committed(self, position: int) -> int:
        """Seconds since 1970 at which the change was made: where Argo CD's source hydrator wrote
        the commit, that of the code commit which it names in a trailer."""
        trailers = dict(_HYDRATED.findall(self.log.body[position]))
        date = trailers.get("date", "").strip()
        if "sha" in trailers and date:
            with contextlib.suppress(ValueError):
                return _rfc3339(date)
        return self.log.seconds[position]

    def reverted(self, position: int) -> List[str]:
        """The known commits that a commit says it reverts, be they abbreviated."""
        found = []
        for name in _REVERTS.findall(self.log.body[position]):
            at = bisect.bisect_left(self._sorted, name)
            found += [sha for sha in self._sorted[at : at + 2] if sha.startswith(name)]
        return found

    def commits_table(self, positions: Mapping[int, str], branch: str) -> pd.DataFrame:
        """The `git_commits` table of some commits, given as {position: application}."""
        chosen = sorted(positions, key=lambda position: (self.log.seconds[position], -position))
        subjects = [self.log.subject[position] for position in chosen]
        table = as_table(
            "git_commits",
            {
                "sha": [self.log.sha[position] for position in chosen],
                "timestamp": np.array(
                    [self.log.seconds[position] for position in chosen], np.int64
                ),
                "author": clean_names([self.log.author[position] for position in chosen]),
                "type": _commit_types(pd.Series(subjects, dtype=object)),
                "application": [positions[position] for position in chosen],
                "branch": [branch] * len(chosen),
                "message": subjects,
                "files_changed": [len(self.log.files[position]) for position in chosen],
            },
        )
        return table


class GitGraphLog(NamedTuple):
    """Columns of a log in which no commit comes after its parents; lists with an entry for each
    commit."""

    sha: List[str]
    parents: List[List[str]]
    seconds: List[int]
    author: List[str]
    subject: List[str]
    body: List[str]
    files: List[List[str]]


_GIT_GRAPH = (
    *(option for option in _GIT_LOG if option != "--no-merges"),
    "--topo-order",
    "--stdin",
)
_HYDRATED = re.compile(r"^Argocd-reference-commit-(sha|date): *(.+)$", re.MULTILINE)
_REVERTS = re.compile(r"This reverts commit ([0-9a-f]{7,64})")


def _parse_graph_chunk(chunk: bytes, marker: str) -> GitGraphLog:
    tokens = chunk.decode("utf-8", "replace").split("\0")[:-1]
    heads = [number for number, token in enumerate(tokens[:-5]) if token.startswith(marker)]
    columns: List[List[Any]] = [[tokens[head + field] for head in heads] for field in range(6)]
    files = [tokens[head + 6 : end] for head, end in zip(heads, [*heads[1:], len(tokens)])]
    return GitGraphLog(
        [token[len(marker) :] for token in columns[0]],
        [token[1:].split() for token in columns[1]],
        [min(max(_epoch(token), 0), LAST_SECOND) for token in columns[2]],
        [make_printable(token[1:]) for token in columns[3]],
        [make_printable(token[1:]) for token in columns[4]],
        [token[1:] for token in columns[5]],
        [[file.lstrip("\n") for file in group if file] for group in files],
    )


def _git_objects(repo: Union[str, os.PathLike], names: Sequence[str]) -> List[str]:
    """The object id of each name, "" where there is none."""
    if not names:
        return []
    printed = _git(
        repo,
        "cat-file",
        "--batch-check=%(objectname)",
        stdin="\n".join(names).encode("utf-8", "replace"),
    )
    return [line if re.fullmatch("[0-9a-f]{40,64}", line) else "" for line in printed.split("\n")]


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(text: str) -> int:
    """Seconds since 1970; ValueError if it is no such time, or none between 1970 and 2200."""
    if not _TIME.fullmatch(
        text
    ):  # what fromisoformat takes beyond it differs between versions of Python
        raise ValueError(f"not a time such as 2026-01-31T12:00:00Z: {text}")
    moment = _dt.datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))
    seconds = int(moment.timestamp())
    if not 0 <= seconds <= LAST_SECOND:
        raise ValueError(f"not a time between 1970 and 2200: {text}")
    return seconds


def _git_environment() -> Dict[str, str]:
    """The caller's variables without git's own (GIT_DIR would win over the folder that was
    named)."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return {
        **kept,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",
        "LC_ALL": "C",
    }


def _git(repo: Union[str, os.PathLike], *arguments: str, stdin: bytes = b"") -> str:
    return (
        b"".join(_git_stream(repo, *arguments, separator=b"", stdin=stdin))
        .decode("utf-8", "surrogateescape")
        .strip()
    )


def _git_stream(
    repo: Union[str, os.PathLike], *arguments: str, separator: bytes = b"\0/", stdin: bytes = b""
) -> Iterator[bytes]:
    """What git prints, in chunks that end between records. The folder is git's working directory
    and no argument, so that a name that begins with a dash stays a name."""
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as questions:
        questions.write(stdin)
        questions.seek(0)
        try:
            process = subprocess.Popen(
                [*_GIT, *arguments],
                cwd=repo,
                env=_git_environment(),
                stdin=questions,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except FileNotFoundError:
            missing = (
                "git is not installed"
                if os.path.isdir(repo)
                else f"no such folder: {one_line(repo)}"
            )
            raise GitOpsError(f"{missing}; --repo takes the folder of a git repository") from None
        except (OSError, ValueError) as error:
            raise GitOpsError(
                f"cannot open {one_line(repo)}: {one_line(error)}; --repo takes the folder of a "
                "git repository"
            ) from None
        with process:
            assert process.stdout is not None
            yield from _records(process.stdout, separator)
        if process.returncode:
            errors.seek(0)
            said = one_line(errors.read(2000).decode("utf-8", "replace"))
            raise GitOpsError(
                f"git cannot read {one_line(repo)}: {said}; --repo takes a repository with commits"
            )


def _records(stream: IO[bytes], separator: bytes, size: int = 1 << 25) -> Iterator[bytes]:
    rest = b""
    for block in iter(lambda: stream.read(size), b""):
        rest += block
        cut = rest.rfind(separator) + 1
        if separator and cut > 1:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


# ---- Real history: Argo CD -> deployments and rollbacks -----------------------------------------

# What Argo CD keeps (3.x): `status.history` has the successful, full syncs alone, the last ten by
# default; `status.operationState` the last operation, which may have failed; `status.health` may be
# older.

_ALIASES = {
    **dict.fromkeys(("production", "prod", "prd", "live"), "production"),
    **dict.fromkeys(("staging", "stage", "stg", "uat", "qa"), "staging"),
    **dict.fromkeys(("dev", "develop", "development", "test", "testing"), "dev"),
}
_KARGO = "kargo.akuity.io/authorized-stage"
_ENVIRONMENT_KEYS = ("environment", "env", _KARGO)
UNCLASSIFIED = "unclassified"
_DWELL = 60  # seconds that a release must stay for its return to be a rollback and no flap


class ArgoSource(NamedTuple):
    """What a sync took from one of its sources."""

    revision: str
    paths: Tuple[str, ...]  # what it uses of a repository; "" is all of it
    chart: str


class ArgoEntry(NamedTuple):
    """A sync that Argo CD recorded, or a last operation that failed."""

    id: int
    start: int  # seconds since 1970
    end: int
    sources: Tuple[ArgoSource, ...]
    fingerprint: str  # the source definitions: same revision, other parameters is another release
    failure: str = ""

    @property
    def revision(self) -> str:
        return "+".join(source.revision for source in self.sources)


@dataclass
class ArgoApplication:
    """All that the files say of one Argo CD application."""

    name: str
    namespace: str
    marks: Dict[str, str]  # labels and annotations
    hints: List[str]  # texts whose tokens may name the environment: paths, then destination
    created: Optional[int]
    entries: Dict[Tuple[int, int], ArgoEntry] = field(default_factory=dict)
    failures: Dict[int, ArgoEntry] = field(default_factory=dict)
    degraded: Dict[int, str] = field(
        default_factory=dict
    )  # seconds at which it was seen so: message
    seen: int = 0  # the newest time in the files that name it
    snapshots: Dict[int, int] = field(
        default_factory=dict
    )  # end of the newest sync in a file: newest time there

    @property
    def syncs(self) -> Tuple[ArgoEntry, ...]:
        """All that was recorded, the last operations that failed included."""
        return (*self.entries.values(), *self.failures.values())


@dataclass(frozen=True)
class EnvironmentRules:
    """How to tell the environment of an application: a fixed name, the key of a label or
    annotation, a regular expression with a group for its name. Raises GitOpsError for one that can
    tell none."""

    fixed: Optional[str] = None
    label: Optional[str] = None
    pattern: Optional[str] = None

    def __post_init__(self) -> None:
        if self.fixed is not None:
            check_word("--environment", self.fixed)
        if self.label is not None and not self.label.strip():
            raise GitOpsError(
                "--environment-label is the key of a label, such as tier, not "
                f"{in_quotes(self.label)}"
            )
        try:
            groups = re.compile(self.pattern).groups if self.pattern is not None else 1
        except (re.error, RecursionError, OverflowError) as error:
            raise GitOpsError(
                f"--environment-pattern is no regular expression: {one_line(error)}"
            ) from None
        if groups < 1:
            raise GitOpsError(
                "--environment-pattern needs a group, as ='-(dev|prod)$', not "
                f"{in_quotes(self.pattern)}"
            )


def read_argocd(files: Sequence[Union[str, os.PathLike]]) -> List[ArgoApplication]:
    """The applications in JSON documents of kubectl, argocd or its REST API; snapshots of one are
    merged.

    Raises GitOpsError naming the file, and the entry if one is at fault.
    """
    merged: Dict[Tuple[str, str, str], ArgoApplication] = {}
    for file in files:
        name = "standard input" if str(file) == "-" else one_line(file)
        try:
            found = [
                _argo_application(document, name)
                for document in _argo_documents(_read_text(file), name)
            ]
        except RecursionError:
            raise GitOpsError(
                f"{name} is nested too deeply: that is nothing of Argo CD's"
            ) from None
        seen = max((application.seen for application, _ in found), default=0)
        for application, uid in found:
            application.seen = seen
            application.snapshots = {max((sync.end for sync in application.syncs), default=0): seen}
            _merge(
                merged.setdefault((application.namespace, application.name, uid), application),
                application,
            )
    _merge_nameless(merged)
    if not any(application.syncs for application in merged.values()):
        raise GitOpsError(
            f"no deployment in {', '.join(one_line(file) for file in files)}: no application has a "
            "history"
        )
    newest = max(application.seen for application in merged.values())
    for application in merged.values():
        application.seen = application.seen or newest
    return [merged[key] for key in sorted(merged)]


def _merge(known: ArgoApplication, snapshot: ArgoApplication) -> None:
    for newest, seen in snapshot.snapshots.items():
        known.snapshots[newest] = max(seen, known.snapshots.get(newest, 0))
    known.entries.update(snapshot.entries)
    known.failures.update(snapshot.failures)
    known.degraded.update(snapshot.degraded)
    known.created = known.created or snapshot.created
    if snapshot.seen >= known.seen:
        known.marks, known.hints, known.seen = snapshot.marks, snapshot.hints, snapshot.seen


def _merge_nameless(merged: Dict[Tuple[str, str, str], ArgoApplication]) -> None:
    """A snapshot that leaves the uid out is of the application that has its name, the newest of
    them."""
    newest: Dict[Tuple[str, str], Tuple[str, str, str]] = {}
    for key in sorted(merged, key=lambda key: (bool(key[2]), merged[key].seen)):
        newest[key[:2]] = key
    for key in [key for key in merged if not key[2] and newest[key[:2]] != key]:
        _merge(merged[newest[key[:2]]], merged.pop(key))


def _read_text(file: Union[str, os.PathLike]) -> str:
    if str(file) == "-" and sys.stdin is None:
        raise GitOpsError("standard input is closed; --argocd - reads it")
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else Path(file).read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise GitOpsError(
            f"cannot read {one_line(file)}: {one_line(error)}; --argocd takes JSON files"
        ) from None


def _argo_documents(text: str, name: str) -> List[Mapping[str, Any]]:
    """The applications among one or several JSON documents, told by their structure."""
    position, found, known = _skip_space(text, 0), [], False
    while position < len(text) or not text.strip():
        try:
            document, position = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            hint = (
                "it looks like YAML: ask for JSON with -o json"
                if _YAML.match(text)
                else "ask for it with -o json"
            )
            raise GitOpsError(f"{name} is not JSON ({one_line(error, 80)}); {hint}") from None
        position, items = _skip_space(text, position), _argo_items(document)
        known = known or items is not None
        found += items or []
    if not known:
        raise GitOpsError(
            f"{name} holds no Argo CD application; --argocd takes what `argocd app list -o json` "
            "prints"
        )
    return found


def _skip_space(text: str, position: int) -> int:
    return position + len(_SPACE.match(text, position).group())  # type: ignore[union-attr]


_SPACE = re.compile(r"[\s,]*")
_YAML = re.compile(r"""\s*(#|%YAML|---|- |["']?[A-Za-z]+["']?:\s)""")


def _argo_items(document: Any) -> Optional[List[Mapping[str, Any]]]:
    """The applications in one document: itself, its items or its elements; None if it is of another
    kind."""
    if isinstance(document, Mapping):
        if _at(document, "metadata", "name", kind=str) and isinstance(
            _at(document, "spec").get("destination"), Mapping
        ):
            return [document]
        if "items" not in document:
            return None
        document = document["items"] or []
    if not isinstance(document, list):
        return None
    groups = [_argo_items(item) for item in document]
    return (
        None
        if groups and groups == [None] * len(groups)
        else [item for group in groups for item in group or []]
    )


def _at(document: Any, *path: str, kind: Any = dict) -> Any:
    """What a document has at a path, or an empty value of that kind: nothing in it can be relied
    on."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document if isinstance(document, kind) else kind()


def _argo_application(document: Mapping[str, Any], file: str) -> Tuple[ArgoApplication, str]:
    """(An application, its uid), or GitOpsError that names the entry at fault."""
    metadata = _at(document, "metadata")
    namespace, name = _at(metadata, "namespace", kind=str), metadata["name"]
    where = f"{file}: application {one_line(name, NAME_WIDTH)}"
    status = _given(document, "status", dict, where)
    sources = _sources_of(_at(document, "spec"))
    paths = [
        text
        for source in sources
        for text in (_at(source, "path", kind=str), *_at(source, "helm", "valueFiles", kind=list))
    ]
    destination = _at(document, "spec", "destination")
    application = ArgoApplication(
        one_line(name, NAME_WIDTH),
        one_line(namespace, NAME_WIDTH) if namespace else "",
        {**_texts(_at(metadata, "annotations")), **_texts(_at(metadata, "labels"))},
        [
            "\n".join(text for text in paths if isinstance(text, str)),
            _at(destination, "name", kind=str),
            _at(destination, "namespace", kind=str),
        ],
        _time(metadata, "creationTimestamp", where, needed=False),
    )
    for number, entry in enumerate(_given(status, "history", list, where)):
        read = _argo_entry(entry, f"{where}, history entry {number}")
        application.entries[read.id, read.end] = read
    _read_operation(application, status, where)
    times = [sync.end for sync in application.syncs]
    application.seen = max(
        [*times, application.created or 0, _time(status, "reconciledAt", where, needed=False) or 0]
    )
    return application, _at(metadata, "uid", kind=str)


def _given(holder: Mapping[str, Any], key: str, kind: Any, where: str) -> Any:
    value = holder.get(key)
    if value is not None and not isinstance(value, kind):
        raise GitOpsError(
            f"{where}: {key} is not {'a list' if kind is list else 'an object'}: {in_quotes(value)}"
        )
    return kind() if value is None else value


def _texts(mapping: Mapping[str, Any]) -> Dict[str, str]:
    return {str(key): value for key, value in mapping.items() if isinstance(value, str)}


def _sources_of(holder: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    """The sources of a spec, a history entry or an operation; several of them outrank the single
    one."""
    several = [
        source for source in _at(holder, "sources", kind=list) if isinstance(source, Mapping)
    ]
    return several or [_at(holder, "source")]


def _time(holder: Mapping[str, Any], key: str, where: str, needed: bool = True) -> Optional[int]:
    value = holder.get(key)
    if value in (None, "") and not needed:
        return None
    try:
        return _rfc3339(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        raise GitOpsError(
            f"{where}: {key} is not a time such as 2026-01-31T12:00:00Z: {in_quotes(value)}"
        ) from None


def _argo_entry(entry: Any, where: str) -> ArgoEntry:
    if not isinstance(entry, Mapping):
        raise GitOpsError(f"{where}: not an object: {in_quotes(entry)}")
    number = entry.get("id", 0)
    if not isinstance(number, int) or isinstance(number, bool) or abs(number) > 2**62:
        raise GitOpsError(f"{where}: id is not a whole number: {in_quotes(number)}")
    end = _time(entry, "deployedAt", where) or 0
    return _sync(
        number, _time(entry, "deployStartedAt", where, needed=False) or end, end, entry, entry
    )


def _sync(
    number: int,
    start: int,
    end: int,
    revisions: Mapping[str, Any],
    holder: Mapping[str, Any],
    failure: str = "",
) -> ArgoEntry:
    sources = _sources_of(holder)
    several = [str(revision) for revision in _at(revisions, "revisions", kind=list)]
    listed = several or [_at(revisions, "revision", kind=str)]
    listed += [""] * (len(sources) - len(listed))
    used = tuple(
        ArgoSource(
            one_line(revision, 100) if revision else "",
            _paths_of(source, sources),
            _at(source, "chart", kind=str),
        )
        for revision, source in zip(listed, sources)
    )
    # a branch or tag that leads to the same revision is no other release
    lasting = [
        {key: value for key, value in source.items() if key != "targetRevision"}
        for source in sources
    ]
    return ArgoEntry(
        number,
        min(start, end),
        end,
        used,
        json.dumps(lasting, sort_keys=True, default=str),
        failure,
    )


def _paths_of(source: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> Tuple[str, ...]:
    """What a sync uses of a source's repository: its path and, where others refer to it, their
    value files."""
    path, ref = _at(source, "path", kind=str), _at(source, "ref", kind=str)
    if not ref:
        return (_clean_path(path),)
    mark = f"${ref}/"
    helms = [_at(other, "helm") for other in sources]
    files = [file for helm in helms for file in _at(helm, "valueFiles", kind=list)]
    files += [
        _at(file, "path", kind=str)
        for helm in helms
        for file in _at(helm, "fileParameters", kind=list)
    ]
    named = {file[len(mark) :] for file in files if isinstance(file, str) and file.startswith(mark)}
    fixed = {
        re.sub(r"(^|/)[^/]*[*?\[{].*", "", name) for name in named
    }  # of a pattern, the folder above
    return tuple(sorted(map(_clean_path, fixed | ({path} if path else set()))))


def _clean_path(path: str) -> str:
    path = posixpath.normpath(path or ".").lstrip("/")
    return "" if path == "." or path.startswith("..") or make_printable(path) != path else path


def _read_operation(application: ArgoApplication, status: Mapping[str, Any], where: str) -> None:
    """Note a last operation that failed, and health that is known to be newer than it."""
    state = _at(status, "operationState")
    sync = _at(state, "operation").get("sync")  # an empty one is a sync with the defaults
    finished = _time(state, "finishedAt", where, needed=False) if state else None
    whole = (
        isinstance(sync, Mapping)
        and not sync.get("dryRun")
        and not _at(sync, "resources", kind=list)
    )
    failed = state.get("phase") in ("Failed", "Error") and whole
    if failed and finished is not None:
        started = _time(state, "startedAt", where) or finished
        result = {
            **sync,
            **{key: value for key, value in _at(state, "syncResult").items() if value},
        }
        message = one_line(_at(state, "message", kind=str) or state["phase"], 60)
        application.failures[started] = _sync(-1, started, finished, result, result, message)
    checked = _time(status, "reconciledAt", where, needed=False)
    newest = (
        finished if state else max((entry.end for entry in application.entries.values()), default=0)
    )
    degraded = _at(status, "health", "status", kind=str) == DEGRADED
    if degraded and checked is not None and newest is not None and checked >= newest:
        message = one_line(_at(status, "health", "message", kind=str) or "Degraded health", 60)
        application.degraded[checked] = message


def classify_application(
    application: ArgoApplication, rules: EnvironmentRules
) -> Tuple[str, str, str]:
    """(Environment, the rule that told it, the name without the environment): the first rule that
    does."""
    environment, rule, span = next(_environments(application, rules), (UNCLASSIFIED, "none", None))
    name = application.name
    words = [match.span() for match in re.finditer(r"[^-_/.]+", name)]
    named = [word for word in (words[-1:] + words[:1]) if _alias(name[slice(*word)]) == environment]
    start, end = span or (named or [(len(name), len(name))])[0]
    before, after = name[:start], name[end:]
    rest = before.rstrip("-_/.") + after if before.strip("-_/.") else after.lstrip("-_/.")
    return environment, rule, rest if end > start and rest else name


def _environments(
    application: ArgoApplication, rules: EnvironmentRules
) -> Iterator[Tuple[str, str, Optional[Tuple[int, int]]]]:
    """(Environment, rule, where a pattern found it in the name) by every rule that tells one."""
    if rules.fixed:
        yield _alias(rules.fixed), "given", None
    for key in [rules.label] if rules.label else _ENVIRONMENT_KEYS:
        value = application.marks.get(key, "").rpartition(":" if key == _KARGO else "\0")[
            2
        ]  # its project:stage
        if value:
            yield _alias(one_line(value, 40)), f"label {one_line(key, 60)}", None
    if rules.pattern:
        match = re.search(rules.pattern, application.name)
        if match and match.group(1):
            yield _alias(match.group(1)), "pattern", match.span(1)
    tokens = _tokens(application.name)
    for place, token in (("suffix", tokens[-1:]), ("prefix", tokens[:1])):
        if token and token[0] in _ALIASES:
            yield _ALIASES[token[0]], f"name {place}", None
    for what, text in zip(
        ("source path", "destination name", "destination namespace"), application.hints
    ):
        told = {_ALIASES[token] for token in _tokens(text) if token in _ALIASES}
        if len(told) == 1:
            yield told.pop(), what, None


def _alias(name: str) -> str:
    return _ALIASES.get(name.lower(), name.lower())


def _tokens(text: str) -> List[str]:
    """Whole tokens; one after `pre` or `non` belongs to it, so that non-prod is not production."""
    tokens = [token for token in re.split(r"[-_/.\s]", text.lower()) if token]
    return [
        f"{before}{token}" if before in ("pre", "non") else token
        for before, token in zip(["", *tokens], tokens)
    ]


class Deployed(NamedTuple):
    """What one application's history comes to, in order of time; positions are those of
    `releases`."""

    releases: List[
        ArgoEntry
    ]  # the changes of what runs and the syncs that failed; re-syncs and flaps left out
    markers: Set[int]  # releases with which the known history begins, or goes on after a gap
    rollbacks: Dict[int, int]  # {a bad release: the one that restored it in the end}
    restoring: Set[int]  # the releases that went back: no deployments
    bad: Dict[int, str]  # why a release failed or turned out bad
    changes: List[Tuple[int, int]]  # (commit in the log, the first release that contains it)
    undated: List[str]  # why a release's commits are not known

    @property
    def synced(self) -> List[ArgoEntry]:
        """The releases that did not fail."""
        return [release for release in self.releases if not release.failure]


def syncs_of(application: ArgoApplication, graph: Optional[GitGraph]) -> Deployed:
    """Tell changes, rollbacks and failures in an application's history."""
    releases, markers = _releases(application, graph)
    changes, undated = _dated(releases, markers, graph)
    rollbacks, restoring = _rollbacks_in(releases, markers, changes, graph)
    bad = {number: release.failure for number, release in enumerate(releases) if release.failure}
    for number in rollbacks:
        bad.setdefault(number, "Rolled back")
    ends = np.array([release.end for release in releases], np.int64)
    for seen, message in sorted(application.degraded.items()):
        newest = int(np.searchsorted(ends, seen, side="right")) - 1
        if newest >= 0:
            bad.setdefault(newest, message)
    return Deployed(releases, markers, rollbacks, restoring, bad, changes, undated)


def _releases(
    application: ArgoApplication, graph: Optional[GitGraph]
) -> Tuple[List[ArgoEntry], Set[int]]:
    """(The changes and the failed syncs in order of time, which of them come after entries that are
    lost)."""
    ids = {entry.id for entry in application.entries.values()}
    starts = {entry.start for entry in application.entries.values()}
    failed = [
        failure for failure in application.failures.values() if failure.start not in starts
    ]  # no retry succeeded
    releases: List[ArgoEntry] = []
    markers: Set[int] = set()
    for sync in sorted(
        [*application.entries.values(), *failed], key=lambda entry: (entry.end, entry.id)
    ):
        if sync.id > 0 and sync.id - 1 not in ids:
            markers.add(len(releases))
        elif releases and _same(sync, releases[-1], graph):
            continue
        elif (
            len(releases) > 1 and _same(sync, releases[-2], graph) and _is_flap(releases[-1], sync)
        ):
            gone = releases.pop()
            if len(releases) not in markers:
                continue
            sync = sync._replace(start=gone.start, end=gone.end)
        releases.append(sync)
    return releases, markers


def _same(sync: ArgoEntry, release: ArgoEntry, graph: Optional[GitGraph]) -> bool:
    """Whether a sync of the same revisions and sources came to the same: a success after a failure
    did not."""
    return bool(sync.failure) == bool(release.failure) and _content(sync, graph) == _content(
        release, graph
    )


def _is_flap(release: ArgoEntry, following: ArgoEntry) -> bool:
    return not release.failure and not following.failure and following.start - release.end < _DWELL


def _known(graph: Optional[GitGraph]) -> Mapping[str, str]:
    """{Revision: its commit} of those in the clone, if there is one."""
    return graph.commit if graph is not None else {}


def _content(release: ArgoEntry, graph: Optional[GitGraph]) -> Tuple[str, ...]:
    """The revisions, tags peeled where the clone has them, and the source definitions."""
    known = _known(graph)
    return (
        release.fingerprint,
        *(known.get(source.revision, source.revision) for source in release.sources),
    )


def _dated(
    releases: Sequence[ArgoEntry], markers: Set[int], graph: Optional[GitGraph]
) -> Tuple[List[Tuple[int, int]], List[str]]:
    """(The commits that each release is the first to contain, why the others could not be told)."""
    first: Dict[int, int] = {}
    undated: List[str] = []
    synced = [number for number, release in enumerate(releases) if not release.failure]
    for before, number in zip(synced, synced[1:]):
        old, new = releases[before], releases[number]
        found = _commits_between(old, new, new, graph)
        if graph is not None and _is_ancestor(
            old, releases[synced[0]], graph
        ):  # what the first one had is not new
            found = {
                position
                for position in found
                if not _has(releases[synced[0]], graph.log.sha[position], graph)
            }
        for position in found:
            first.setdefault(position, number)
        if number in markers:
            undated += ["it came in a gap of the history"] if found else []
        elif not _is_ancestor(new, old, graph):
            undated += _undated(old, new, bool(found), graph)
    dated = [pair for pair in first.items() if pair[1] not in markers]
    return sorted(dated, key=lambda pair: (pair[1], pair[0])), undated


def _commits_between(
    old: ArgoEntry, new: ArgoEntry, where: ArgoEntry, graph: Optional[GitGraph]
) -> Set[int]:
    """Positions of the commits that a release contains and an older one does not, at the source
    paths of `where`."""
    found: Set[int] = set()
    for before, after, place in zip(old.sources, new.sources, where.sources):
        if graph is not None and before.revision in graph.commit and after.revision in graph.commit:
            for path in place.paths:
                found.update(
                    graph.shipped(graph.commit[before.revision], graph.commit[after.revision], path)
                )
    return found


def _undated(old: ArgoEntry, new: ArgoEntry, found: bool, graph: Optional[GitGraph]) -> List[str]:
    """Why the revisions that changed with a release bring no commit that can be dated."""
    known = _known(graph)
    moved = [
        (before, after)
        for before, after in zip(old.sources, new.sources)
        if before.revision != after.revision
    ]
    reasons = []
    for before, after in moved:
        unknown = [source for source in (after, before) if source.revision not in known]
        if unknown:
            reasons.append(_undatable(unknown[0], graph is not None))
    if found or reasons:
        return reasons
    return [
        "none touches the source path"
        if moved
        else "the revision is the same, the parameters are not"
    ]


def _undatable(source: ArgoSource, cloned: bool) -> str:
    if source.chart:
        return "chart version"
    if source.revision.startswith("sha256:"):
        return "digest"
    return "not in the clone" if cloned else "no repository given (--repo)"


def _rollbacks_in(
    releases: Sequence[ArgoEntry],
    markers: Set[int],
    changes: Sequence[Tuple[int, int]],
    graph: Optional[GitGraph],
) -> Tuple[Dict[int, int], Set[int]]:
    """({bad release: what restored it in the end}, the releases that restored): where a release
    goes back to an earlier one or reverts a commit, or where a sync that failed is followed by one
    of what had run before."""
    states = [_states(release, graph) for release in releases]
    rank: Dict[Any, int] = {}  # of a state that ran: its first release
    restored: Dict[int, int] = {}
    restoring: Set[int] = set()
    ran, begin = (
        -1,
        0,
    )  # the newest release that did not fail; where the history goes on after a gap
    for number, release in enumerate(releases):
        begin, failed, bad = (
            (number if number in markers else begin),
            list(range(ran + 1, number)),
            [],
        )
        if begin <= ran and begin < number and _settled(releases, number):
            here, before = _oldest(states[number], rank, number), _oldest(states[ran], rank, ran)
            forward = _content(release, graph) in rank and _is_ancestor(
                releases[ran], release, graph
            )
            if failed and states[number] & states[number - 1]:  # the failed sync done once more
                bad = [first for first, last in restored.items() if last == number - 1]
            elif here < before and not forward or _is_ancestor(release, releases[ran], graph):
                steps = [first for first, last in restored.items() if last == ran]
                # one that went back and goes back further: what had first brought the same was bad
                # as well
                known = before in restoring or before in restored
                bad = [
                    ran if ran not in restoring else steps[0] if known and steps else before,
                    *failed,
                ]
            elif here == before and failed:
                bad = failed
            else:
                bad = _reverted_release(number, releases, changes, graph)
                bad += failed if bad and bad[0] not in restoring else []
        bad = [position for position in bad if position >= begin and position not in restoring]
        restored.update(dict.fromkeys(bad, number))
        restoring.update([number] if bad else [])
        if not release.failure:
            rank.update({state: number for state in states[number] - rank.keys()})
            ran = number
    return restored, restoring


def _oldest(states: Iterable[Any], rank: Mapping[Any, int], otherwise: int) -> int:
    """The first release that brought a state."""
    return min(rank.get(state, otherwise) for state in states)


def _settled(releases: Sequence[ArgoEntry], number: int) -> bool:
    """Whether a release and the one before it stayed long enough to be no flap."""
    return not any(
        _is_flap(*pair)
        for pair in zip(releases[number - 1 : number + 1], releases[number : number + 2])
    )


def _states(release: ArgoEntry, graph: Optional[GitGraph]) -> Set[Tuple[str, ...]]:
    """What tells a state that runs: the revisions and, where the clone has all of it, what lies at
    the source paths."""
    states = {_content(release, graph)}
    if graph is not None:
        trees = [
            source.revision
            if source.chart or source.revision.startswith("sha256:")
            else graph.tree.get((source.revision, path), "")
            for source in release.sources
            for path in source.paths
        ]
        states |= {("trees", release.fingerprint, *trees)} if all(trees) else set()
    return states


def _is_ancestor(release: ArgoEntry, before: ArgoEntry, graph: Optional[GitGraph]) -> bool:
    """Whether a release is of an older commit than the one before: a backward move."""
    known = _known(graph)
    for old, new in zip(before.sources, release.sources):
        older, newer = known.get(old.revision), known.get(new.revision)
        if (
            graph is not None
            and older
            and newer
            and older != newer
            and graph.contains(older, newer)
        ):
            return True
    return False


def _reverted_release(
    number: int,
    releases: Sequence[ArgoEntry],
    changes: Sequence[Tuple[int, int]],
    graph: Optional[GitGraph],
) -> List[int]:
    """The newest earlier release that shipped a commit (merges included) which this one says it
    reverts, if any."""
    if graph is None:
        return []
    reverts = {
        graph.log.sha[commit]: graph.reverted(commit)
        for commit, release in changes
        if release == number
    }
    undone = set(itertools.chain.from_iterable(reverts.values()))
    named = {
        sha for commit, shas in reverts.items() if commit not in undone for sha in shas
    } - reverts.keys()
    synced = [position for position in range(number) if not releases[position].failure]
    for before, after in zip(synced[-2::-1], synced[:0:-1]):
        if any(
            _has(releases[after], sha, graph) and not _has(releases[before], sha, graph)
            for sha in named
        ):
            return [after]
    return []


def _has(release: ArgoEntry, sha: str, graph: GitGraph) -> bool:
    """Whether a release contains a commit."""
    revisions = [source.revision for source in release.sources]
    return any(
        graph.contains(graph.commit[revision], sha)
        for revision in revisions
        if revision in graph.commit
    )


def load_argocd(
    files: Sequence[Union[str, os.PathLike]],
    repo: Union[None, str, os.PathLike] = None,
    rules: EnvironmentRules = EnvironmentRules(),
) -> History:
    """A history as Argo CD and, with `repo`, a clone of the config repository know it.

    A deployment is a change of what runs. A rollback is in the rollbacks table and not among the
    deployments; a release that was applied and turned out bad is `Synced` and `Degraded`. Raises
    GitOpsError.
    """
    applications = read_argocd(files)
    graph = None if repo is None else GitGraph(repo, _places(applications))
    branch = "" if repo is None else one_line(_git(repo, "rev-parse", "--abbrev-ref", "HEAD"))
    told = _told(applications, rules, graph)
    rows = [_rows_of(one, graph) for one in told]
    coverage = pd.DataFrame([row for part in rows for row in part.coverage])
    window = Window(
        utc_times(np.array([coverage["from"].min() // DAY * DAY]))[0],
        utc_times(np.array([(coverage["to"].max() // DAY + 1) * DAY]))[0],
    )
    coverage = coverage.assign(
        **{edge: utc_times(coverage[edge].to_numpy(np.int64)) for edge in ("from", "to")}
    )
    order = [
        name for name in (UNCLASSIFIED, "dev", "staging") if (coverage["environment"] == name).any()
    ]
    others = sorted(set(coverage["environment"]) - {*order, "production"})
    undated = collections.Counter(reason for one in told for reason in one.history.undated)
    changes = _changes_table(
        [*(row for part in rows for row in part.changes), *_waiting(told, graph)], graph
    )
    too_late = (changes["committed"] > changes["deployed"]).to_numpy()  # somebody's clock was wrong
    undated.update(
        {"a commit is dated after its deployment": np.count_nonzero(too_late)}
        if too_late.any()
        else {}
    )
    return History(
        _argo_commits(rows, graph, branch),
        _sorted_table("deployments", [row for part in rows for row in part.deployments]),
        _sorted_table("rollbacks", [row for part in rows for row in part.rollbacks]),
        window,
        (*order[:1], *others, *order[1:], "production"),
        "argocd",
        changes[~too_late],
        coverage.sort_values(
            ["application", "environment", "argocd_name", "from"], ignore_index=True
        ),
        dict(undated),
    )


_Change = Tuple[
    str, str, int, Optional[int]
]  # application, environment, commit in the log, when it was deployed


class _Told(NamedTuple):
    """What an Argo CD application is taken for, and what its history comes to."""

    application: ArgoApplication
    environment: str
    rule: str
    base: str  # the name without the environment
    name: str  # the same, or the full name where two of an environment would be one
    history: Deployed


class _Rows(NamedTuple):
    deployments: List[Tuple[Any, ...]]
    rollbacks: List[Tuple[Any, ...]]
    changes: List[_Change]
    commits: Dict[int, str]
    coverage: List[Dict[str, Any]]


def _places(applications: Iterable[ArgoApplication]) -> Iterator[Tuple[str, str]]:
    for application in applications:
        for sync in application.syncs:
            for source in sync.sources:
                if not source.chart and re.fullmatch(
                    "[0-9a-f]{40}([0-9a-f]{24})?", source.revision
                ):
                    yield from ((source.revision, path) for path in source.paths)


def _told(
    applications: Sequence[ArgoApplication], rules: EnvironmentRules, graph: Optional[GitGraph]
) -> List[_Told]:
    classes = [classify_application(application, rules) for application in applications]
    full = [_full_name(application) for application in applications]
    taken = collections.Counter(
        (environment, base) for (environment, _, base), _ in set(zip(classes, full))
    )
    return [
        _Told(
            application,
            environment,
            rule,
            base,
            base if taken[environment, base] == 1 else whole,
            syncs_of(application, graph),
        )
        for application, (environment, rule, base), whole in zip(applications, classes, full)
    ]


def _rows_of(one: _Told, graph: Optional[GitGraph]) -> _Rows:
    """An application's rows of every table."""
    name, environment, history = one.name, one.environment, one.history
    deployments = [
        (
            sync.start,
            name,
            environment,
            _commit_of(sync, graph),
            status,
            health,
            sync.end - sync.start,
            reason,
        )
        for sync, status, health, reason in _deployments_in(history)
    ]
    rollbacks = [
        (
            bad.end,
            name,
            environment,
            _commit_of(bad, graph),
            _commit_of(good, graph),
            reason,
            minutes,
            success,
        )
        for bad, good, reason, minutes, success in _rollbacks_of(history)
    ]
    changes: List[_Change] = [
        (name, environment, at, history.releases[first].end) for at, first in history.changes
    ]
    known = {position: name for position, _ in history.changes}
    return _Rows(deployments, rollbacks, changes, known, _coverage_of(one, deployments))


def _deployments_in(history: Deployed) -> Iterator[Tuple[ArgoEntry, str, str, Optional[str]]]:
    """(Sync, status, health, reason) of each deployment. A release with which the known history
    begins is none, as it may have changed nothing, but if it is known to be bad."""
    for number, release in enumerate(history.releases):
        if number not in history.restoring and (
            number not in history.markers or number in history.bad
        ):
            status, health = (
                FAILED if release.failure else SYNCED,
                DEGRADED if number in history.bad else HEALTHY,
            )
            yield release, status, health, history.bad.get(number)


def _rollbacks_of(history: Deployed) -> Iterator[Tuple[ArgoEntry, ArgoEntry, str, float, bool]]:
    """(The bad release, what restored it, why, minutes, whether that was good) of each rollback."""
    for number, target in history.rollbacks.items():
        bad, good = history.releases[number], history.releases[target]
        yield bad, good, history.bad[number], (good.end - bad.end) / 60, target not in history.bad


def _coverage_of(one: _Told, deployments: Sequence[Tuple[Any, ...]]) -> List[Dict[str, Any]]:
    """The spans that the history of an application really covers: from its creation, or from where
    entries are lost before, to the newest time of the last file that has the next ones."""
    application, history = one.application, one.history
    syncs = [entry.end for entry in application.entries.values()]
    again = [history.releases[number].end for number in sorted(history.markers)]
    if 0 not in history.markers:
        again.insert(0, application.created or min(syncs, default=application.seen))
    spans = []
    for begin, low, high in zip(again, [-1, *again[1:]], [*again[1:], LAST_SECOND]):
        made = [row[0] for row in deployments if low <= row[0] + row[6] < high]
        done = [end for end in syncs if low <= end < high]
        seen = [seen for newest, seen in application.snapshots.items() if low <= newest < high]
        span = {
            "application": one.name,
            "environment": one.environment,
            "rule": one.rule,
            "from": min([begin, *made]),
            "to": application.seen
            if high == LAST_SECOND
            else min(max([begin, *done, *seen]), high),
            "truncated": 0 in history.markers or begin != again[0],
            "syncs": len(done),
            "deployments": len(made),
            "argocd_name": _full_name(application),
            "failures_observable": bool(history.bad or history.changes),
        }
        spans.append(span)
    return spans


def _full_name(application: ArgoApplication) -> str:
    return "/".join(filter(None, (application.namespace, application.name)))


def _commit_of(release: ArgoEntry, graph: Optional[GitGraph]) -> str:
    """The commit of a release, peeled; its revisions where the clone has none of them."""
    known = _known(graph)
    commits = [known[source.revision] for source in release.sources if source.revision in known]
    return commits[0] if commits else release.revision or "(none)"


def _sorted_table(name: str, rows: Sequence[Tuple[Any, ...]]) -> pd.DataFrame:
    columns = (
        dict(zip(COLUMNS[name], zip(*sorted(rows, key=lambda row: row[:3]))))
        if rows
        else {column: () for column in COLUMNS[name]}
    )
    return as_table(name, {**columns, "timestamp": np.array(columns["timestamp"], np.int64)})


def _argo_commits(rows: Sequence[_Rows], graph: Optional[GitGraph], branch: str) -> pd.DataFrame:
    if graph is None:
        return as_table(
            "git_commits",
            {
                **{column: () for column in COLUMNS["git_commits"]},
                "timestamp": np.array([], np.int64),
            },
        )
    positions: Dict[int, str] = {}
    for part in rows:
        for position, name in part.commits.items():
            positions.setdefault(position, name)
        for deployment in part.deployments:
            if deployment[3] in graph.positions:
                positions.setdefault(graph.positions[deployment[3]], deployment[1])
    return graph.commits_table(positions, branch)


def _waiting(told: Sequence[_Told], graph: Optional[GitGraph]) -> Iterator[_Change]:
    """The changes that production has not had yet: another environment of the application has, or a
    sync failed."""
    same: Dict[str, List[_Told]] = collections.defaultdict(list)
    for one in told:
        same[one.base] += [one] if one.environment != UNCLASSIFIED else []
    for one in told:
        synced = one.history.synced
        if one.environment == "production" and synced:
            near = _of_one_team(one, same[one.base])
            found = _beyond(
                synced[-1],
                [release for other in near for release in _newest_releases(other.history)],
                graph,
            )
            had = _beyond(synced[-1], synced, graph)
            yield from ((one.name, one.environment, commit, None) for commit in sorted(found - had))


def _beyond(last: ArgoEntry, releases: Iterable[ArgoEntry], graph: Optional[GitGraph]) -> Set[int]:
    """Positions of the commits that any of the releases contains and the last one does not, at its
    source paths."""
    return {
        commit for release in releases for commit in _commits_between(last, release, last, graph)
    }


def _of_one_team(one: _Told, others: Sequence[_Told]) -> Sequence[_Told]:
    """Those of the same name that belong to an application: of its namespace, where several have
    that name."""
    if one.name == one.base:
        return others
    return [other for other in others if other.application.namespace == one.application.namespace]


def _newest_releases(history: Deployed) -> List[ArgoEntry]:
    """The newest that is running, and those whose sync failed."""
    return history.synced[-1:] + [release for release in history.releases if release.failure]


def _changes_table(changes: Sequence[_Change], graph: Optional[GitGraph]) -> pd.DataFrame:
    name, environment, position, done = zip(*changes) if changes else ((), (), (), ())
    committed = [graph.committed(commit) for commit in position] if graph is not None else []
    deployed = np.array([-1 if end is None else end for end in done], np.int64)
    return pd.DataFrame(
        {
            "application": pd.Series(name, dtype=object),
            "environment": pd.Series(environment, dtype=object),
            "commit_sha": pd.Series(
                [graph.log.sha[commit] for commit in position] if graph is not None else [],
                dtype=object,
            ),
            "committed": utc_times(np.array(committed, np.int64)),
            "deployed": utc_times(deployed).where(deployed >= 0),
        }
    )


# What the calculator asks of a real history: the days that it covers.


def covered_days(history: History) -> Dict[Tuple[str, str], float]:
    """Return {(application, environment): days covered, at least one} of a real history."""
    assert history.coverage is not None
    length = (history.coverage["to"] - history.coverage["from"]).dt.total_seconds() / DAY
    places = [history.coverage["application"], history.coverage["environment"]]
    return length.groupby(places).sum().clip(lower=1.0).to_dict()


def covered_applications(
    history: History, names: Sequence[str]
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is known of the applications in production.

    These are the days covered and whether failures can be seen, of each, and the positions of those
    that are there at all.
    """
    everything = np.arange(len(names))
    if history.coverage is None:
        return np.full(len(names), float(history.window.days)), everything >= 0, everything
    covered = history.covered(history.production)
    visible = covered.groupby("application")["failures_observable"].any()
    days = covered_days(history)
    return (
        np.array([days.get((name, history.production), 1.0) for name in names]),
        visible.reindex(names, fill_value=False).to_numpy(bool),
        np.flatnonzero(pd.Index(names, dtype=object).isin(visible.index)),
    )


def real_frequencies(history: History) -> Dict[str, float]:
    """Return the frequencies over the days that are covered; nothing for a simulated history."""
    if history.coverage is None:
        return {}
    days, rows = covered_days(history), history.deployments
    places = zip(rows["application"].astype(object), rows["environment"].astype(object))
    rates = {place: count / days[place] for place, count in collections.Counter(places).items()}
    in_production = [rate for place, rate in rates.items() if place[1] == history.production]
    known = not history.covered(history.production).empty
    return {
        "deployment_frequency": math.fsum(rates.values()),
        "production_deployment_frequency": math.fsum(in_production) if known else math.nan,
    }


def days_known(history: History, environment: str) -> np.ndarray:
    """Return whether the history covers each day of an environment.

    No deployment is known of the other days, which is not the same as none.
    """
    days = history.window.days
    if history.coverage is None:
        return np.ones(days, bool)
    spans, start = history.covered(environment), history.window.seconds[0]
    first, last = (
        np.bincount(np.minimum((seconds_of(spans[edge]) - start) // DAY, days), minlength=days + 1)
        for edge in ("from", "to")
    )
    return (np.cumsum(first) - np.cumsum(last) + last)[:days] > 0


def coverage_spans(history: History, deployments: Deployments, names: Sequence[str]) -> np.ndarray:
    """Return a number for the span without a gap that each deployment lies in.

    Nothing is known to recover across a gap. A simulated history has none.
    """
    if history.coverage is None:
        return deployments.span
    covered = history.covered(history.production)
    application = pd.Index(names, dtype=object).get_indexer(covered["application"])
    begins = np.sort(application * NEVER + seconds_of(covered["from"]))
    return np.searchsorted(begins, deployments.application * NEVER + deployments.end, side="right")


# ---- DORA calculator: history -> metrics --------------------------------------------------------


class Target(NamedTuple):
    """What counts as elite: a value on the better side of the limit."""

    better: str  # ">" or "<"
    limit: float
    unit: str

    def __str__(self) -> str:
        return f"{self.better}{self.limit:g}{self.unit}"


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


# fmt: off
METRICS: Dict[str, Metric] = {
    "deployment_frequency": Metric(
        "Deployment Frequency", "/day",
        "Deployments to all environments, failed ones included, over the days of the window.",
        Target(">", 1, "/day")),
    "mean_lead_time": Metric(
        "Lead Time", " hours",
        "Mean time from a commit to the start of the production sync that applied it, over the "
        "Synced production deployments. A commit with a later time than its sync is left out.",
        Target("<", 24, "h")),
    "mttr_minutes": Metric(
        "MTTR", " minutes", "Mean duration of the rollbacks that succeeded, in all environments.",
        Target("<", 60, "min")),
    "change_failure_rate": Metric(
        "Change Failure Rate", "%",
        "Degraded deployments over all deployments, in environments where failures can be seen.",
        Target("<", 15, "%")),
    "median_lead_time": Metric(
        "Median Lead Time", " hours", "The median where mean_lead_time takes the mean."),
    "lead_time_hours_by_environment": Metric(
        "Where the Lead Time Goes", " hours",
        "For each environment the mean time from the sync of the stage before (in the first: from "
        "the commit) to its own. The parts add up to mean_lead_time."),
    "success_rates": Metric(
        "Success Rates", "%", "For each environment its Healthy deployments over all of them."),
    "overall_success_rate": Metric(
        "Overall Success Rate", "%", "What is left of 100 % without the change_failure_rate."),
    "production_deployment_frequency": Metric(
        "Production Alone", "/day",
        "Deployments to production, failed ones included, over the days of the window."),
    "total_deployments": Metric("Total Deployments", "", "Rows of the deployments table."),
    "failed_deployments": Metric("Failed Deployments", "", "Deployments whose health is Degraded."),
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
        "Deployments to production, failed ones included, over the days covered."),
    "failed_deployment_recovery_minutes": Metric(
        "Failed deployment recovery time", "min",
        "Median, over the failed production deployments, of the time from their end to the end of "
        "the rollback that succeeded. Where it failed or there was none, to the end of the next "
        "good deployment of the application."),
    "change_fail_rate_pct": Metric(
        "Change fail rate", "%",
        "Degraded production deployments over all production deployments."),
    "deployment_rework_rate_pct": Metric(
        "Deployment rework rate", "%",
        "Rollbacks in production, and deployments that ended a failure which no rollback had "
        "ended, over all production deployments and rollbacks."),
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


def is_elite(key: str, metrics: Mapping[str, Any]) -> Any:
    """Return whether a benchmark is met, of one run or of each run of many.

    An undefined value does not meet it, with one exception: where no deployment failed there was
    nothing to recover from, and the recovery time counts as met.
    """
    value, target = np.asarray(metrics[key]), BENCHMARKS[key]
    met = value > target.limit if target.better == ">" else value < target.limit
    if key == "mttr_minutes":
        met = met | (np.isnan(value) & (np.asarray(metrics["change_failure_rate"]) == 0))
    return met[()]


def maturity_score(metrics: Mapping[str, Any]) -> Any:
    """Return how many benchmarks are met, in each run; GitOpsError if a metric is missing."""
    missing = [key for key in BENCHMARKS if key not in metrics]
    if missing:
        needed = ", ".join(BENCHMARKS)
        raise GitOpsError(f"the metrics have no {missing[0]!r}; calculate_maturity needs {needed}")
    return sum(is_elite(key, metrics).astype(int) for key in BENCHMARKS)


def level_of(score: int) -> Level:
    """Return the maturity level of a score."""
    return next(level for level in LEVELS if score >= level.score)


def calculate_maturity(metrics: Mapping[str, Any]) -> str:
    """Return the maturity level of a metrics dict, with its icon.

    >>> calculate_maturity({"deployment_frequency": 13.7, "mean_lead_time": 32.4,
    ...                     "mttr_minutes": 12.3, "change_failure_rate": 6.1})
    '🥈 HIGH PERFORMER'
    """
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

    def in_production(self) -> Events:
        """Return the events of the last environment alone."""
        tables, last = (self.deployments, self.rollbacks), self.environments - 1
        kept, back = (np.flatnonzero(table.environment == last) for table in tables)
        deployments = Deployments(*(column[kept] for column in self.deployments))
        rollbacks = Rollbacks(*(column[back] for column in self.rollbacks))
        row = np.searchsorted(kept, rollbacks.deployment)
        rollbacks = rollbacks._replace(deployment=np.where(rollbacks.deployment >= 0, row, -1))
        return self._replace(deployments=deployments, rollbacks=rollbacks)


def events_of(history: History, applications: Sequence[str]) -> Events:
    """Return a history as arrays, in one group."""
    shas, names = history.git_commits["sha"], history.environments
    commits = commits_of(history.git_commits, applications)
    deployments = deployments_from(history.deployments, applications, names, shas)
    deployments = deployments._replace(span=coverage_spans(history, deployments, applications))
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
    attempted, worked = events.of_group(rollbacks), rollbacks.success
    restored = events.of_group(rollbacks, worked)
    minutes = events.of_group(rollbacks, worked, (rollbacks.end - rollbacks.time)[worked]) / 60
    median = group_medians(deployments.group[released], lead, events.groups) / 3600
    return {
        "deployment_frequency": total / days,
        "mean_lead_time": safe_ratio(hours, events.of_group(deployments, released)),
        "mttr_minutes": safe_ratio(minutes, restored),
        "change_failure_rate": safe_ratio(100 * failed, seen),
        "median_lead_time": median,
        "overall_success_rate": safe_ratio(100 * (seen - failed), seen),
        "production_deployment_frequency": in_production / days,
        "total_deployments": total,
        "failed_deployments": failed,
        "total_rollbacks": attempted,
        "successful_rollbacks": restored,
        "failed_rollbacks": attempted - restored,
        "rollback_success_rate": safe_ratio(100 * restored, attempted),
        "failures_without_rollback": failed - attempted,
    }


def safe_ratio(part: Any, whole: Any) -> Any:
    """Divide; NaN where the whole is not above zero."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def released_commits(events: Events) -> np.ndarray:
    """Return the Synced production deployments of a known commit that is not younger than they."""
    commits, deployments = events[:2]
    known = deployments.synced & (deployments.commit >= 0)
    rows = np.flatnonzero(known & (deployments.environment == events.environments - 1))
    return rows[commits.time[deployments.commit[rows]] <= deployments.time[rows]]


def lead_time_parts(events: Events) -> np.ndarray:
    """Return the mean hours from each environment's sync to the next, over the released commits."""
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
    return safe_ratio(steps.sum(axis=1) / 3600, np.full(len(steps), len(released)))


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


def find_recoveries(events: Events) -> Recoveries:
    """Return what ended each failure; the events are those of production."""
    deployments, rollbacks = events.deployments, events.rollbacks
    good_rows = pd.Series(np.where(deployments.bad, np.nan, np.arange(len(deployments.bad))))
    next_good = good_rows.groupby(deployments.place).bfill().fillna(-1).to_numpy(np.int64)
    rolled_back = np.full(len(deployments.bad), NEVER)
    worked = rollbacks.success & (rollbacks.deployment >= 0)
    np.minimum.at(rolled_back, rollbacks.deployment[worked], rollbacks.end[worked])
    failed = np.flatnonzero(deployments.bad)
    return Recoveries(failed, rolled_back[failed], next_good[failed])


def production_by_group(
    events: Events, changes: Changes, days: np.ndarray, known: np.ndarray, observable: np.ndarray
) -> Dict[str, Dict[str, np.ndarray]]:
    """Calculate dora.dev's metrics of production for each group, from the events of production.

    Returns {key of PRODUCTION_METRICS: {column of `production_metrics`: an array over the groups}}.
    `days` and `observable` say of each group how many days its history covers and whether its
    failures can be seen, `known` of each day whether it is covered. Changes that ship within the
    same two days are not independent: they are a cluster of the lead time's interval.
    """
    deployments, rollbacks, groups = events[1], events[2], events.groups
    total = events.of_group(deployments)
    failed = events.of_group(deployments, deployments.bad)
    rolled_back = events.of_group(rollbacks)
    ended = find_recoveries(events)
    forward = (ended.rolled_back == NEVER) & (ended.next_good >= 0)
    fixes = events.of_group(deployments, np.unique(ended.next_good[forward]))
    over = ended.rolled_back.copy()
    over[forward] = deployments.end[ended.next_good[forward]]
    detected = deployments.end[ended.failed]
    recovery = np.where(over < NEVER, np.maximum(over - detected, 0), NEVER)
    alone = np.arange(len(recovery))
    lead = np.where(changes.shipped < NEVER, changes.shipped - changes.committed, NEVER)
    together = changes.shipped // (2 * DAY)
    day = (deployments.time - events.window.seconds[0]) // DAY
    cells = np.bincount(deployments.group * len(known) + day, minlength=groups * len(known))
    low, high = frequency_interval(cells.reshape(groups, len(known)), days, known)
    whole = total + rolled_back
    return {
        "change_lead_time_hours": medians_with_interval(
            changes.group, lead, together, groups, 3600
        ),
        "deployment_frequency_per_day": dict(value=total / days, low=low, high=high, n=total),
        "failed_deployment_recovery_minutes": medians_with_interval(
            deployments.group[ended.failed], recovery, alone, groups, 60
        ),
        "change_fail_rate_pct": rates_with_interval(failed, total * observable),
        "deployment_rework_rate_pct": rates_with_interval(rolled_back + fixes, whole * observable),
    }


def rates_with_interval(part: np.ndarray, whole: np.ndarray) -> Dict[str, np.ndarray]:
    """Return percentages with Wilson's score interval (E. B. Wilson, JASA 22, 1927)."""
    share, shrink = safe_ratio(part, whole), 1 + safe_ratio(Z_95**2, whole)
    middle = (share + safe_ratio(Z_95**2, 2 * whole)) / shrink
    variance = safe_ratio(share * (1 - share), whole) + safe_ratio(Z_95, 2 * whole) ** 2
    half = Z_95 / shrink * np.sqrt(variance)
    return {
        "value": 100 * share,
        "low": 100 * np.maximum(middle - half, 0),
        "high": 100 * np.minimum(middle + half, 1),
        "n": whole,
    }


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

    `days` is how many days each group covers, `known` which of the window's days are known at all.

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
    def elite(self) -> Dict[str, bool]:
        """Whether each benchmark is met."""
        return {key: bool(is_elite(key, self.values)) for key in BENCHMARKS}

    @property
    def score(self) -> int:
        """How many benchmarks are met."""
        return int(maturity_score(self.values))

    @property
    def level(self) -> Level:
        """The maturity level."""
        return level_of(self.score)

    @property
    def quick_check(self) -> Dict[str, float]:
        """The Quick Check scores of production in all (see the function of this name)."""
        return quick_check(self.overall["value"].to_dict())

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
    tables = history.deployments, history.git_commits
    names = sorted({name for table in tables for name in count_words(table["application"])})
    events = events_of(history, names)
    observable = np.array([history.failures_observable(name) for name in history.environments])
    values = {key: array.item() for key, array in headline_metrics(events, observable).items()}
    values.update(real_frequencies(history))
    values.update(counts_by_name(history, events, observable))
    table = production_table(history, events.in_production(), names)
    day = (events.deployments.time - history.window.seconds[0]) // DAY
    shape = len(history.environments), history.window.days
    cells = np.bincount(
        events.deployments.environment * shape[1] + day, minlength=shape[0] * shape[1]
    )
    return Metrics(
        history,
        values,
        table,
        cells.reshape(shape),
        np.stack([days_known(history, name) for name in history.environments]),
    )


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


def production_table(history: History, events: Events, names: Sequence[str]) -> pd.DataFrame:
    """Return the table of `production_metrics`: all applications first, then each by name."""
    changes, known = known_changes(history, events, names), days_known(history, history.production)
    days, observable, shown = covered_applications(history, names)
    by_application = events.by_application(len(names))
    apart = production_by_group(by_application, changes, days, known, observable)
    total = apart["deployment_frequency_per_day"]["n"]
    # the rate of all is the sum of the rates of each, which may cover different days
    rate = float((total / days).sum())
    together = total.sum() / rate if rate else days[shown].max(initial=0) or math.nan
    if history.coverage is None:
        together = history.window.days
    everything = changes._replace(group=np.zeros_like(changes.group))
    visible = np.array([history.failures_observable(history.production)])
    overall = production_by_group(events, everything, np.array([together]), known, visible)
    frames = [pd.DataFrame({"metric": metric, **columns}) for metric, columns in overall.items()]
    frames = [frame.assign(application=ALL_APPLICATIONS, place=-1) for frame in frames]
    for metric, columns in apart.items():
        frame = pd.DataFrame({"application": names, "metric": metric, **columns})
        frames.append(frame.assign(place=range(len(names))).iloc[shown])
    table = pd.concat(frames, ignore_index=True).sort_values("place", kind="mergesort")
    table = table.assign(open=table["open"].fillna(0).astype(int)).reset_index(drop=True)
    # nine decimals: the last bits of a root differ between versions of numpy
    table = table.round({"low": 9, "high": 9, "mean": 9})
    return table[["application", "metric", "value", "low", "high", "n", "mean", "p90", "open"]]


def known_changes(history: History, events: Events, names: Sequence[str]) -> Changes:
    """Return the changes to production by application: those of a real history, or every commit."""
    if history.changes is None:
        return shipped_changes(events)._replace(group=events.commits.application)
    table = history.changes_to(history.production)
    shipped = seconds_of(table["deployed"])
    shipped[table["deployed"].isna().to_numpy()] = NEVER
    application = pd.Index(names, dtype=object).get_indexer(table["application"])
    return Changes(application, seconds_of(table["committed"]), shipped)


def production_metrics(history: History) -> pd.DataFrame:
    """Return dora.dev's five metrics of production; a row is a metric of an application, or of all.

    Columns: `application`, `metric` (a key of `PRODUCTION_METRICS`), `value` (a median, rate or
    frequency; NaN where there is no data), `low` and `high` (its 95 % interval), `n`, `mean` and
    `p90` (of lead and recovery times), `open` (changes not shipped, failures not recovered at the
    end).
    """
    return measure(history).production


def calculate_dora_metrics(history: History) -> Dict[str, Any]:
    """Return the keys of `METRICS`, unrounded, NaN where undefined; some are dicts by name."""
    return measure(history).values


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


# ---- Reporting engine: metrics -> console and JSON ----------------------------------------------

WIDTH = 80
LINE, DOUBLE_LINE = "-" * WIDTH, "=" * WIDTH


def show_number(value: float, unit: str = "", digits: int = 2) -> str:
    """Return a number with its unit; `n/a` if it is undefined."""
    if isinstance(value, float) and math.isnan(value):
        return "n/a"
    return f"{value}{unit}" if isinstance(value, int) else f"{value:.{digits}f}{unit}"


def show_percent(part: float, whole: float, digits: int = 1) -> str:
    """Return a share as a percentage."""
    return show_number(float(safe_ratio(100 * part, whole)), "%", digits)


def line_of(label: str, value: str) -> str:
    """Return a line of the report: a label and its value in their columns."""
    return f"{label:<31} {value}"


def with_capital(name: str) -> str:
    """Return a name with a capital letter at its beginning."""
    return name[:1].upper() + name[1:]


class Report(NamedTuple):
    """What a report is made from. A simulation has a `flow`, a seed and a scenario."""

    metrics: Metrics
    flow: Optional[pd.DataFrame] = None
    seed: Optional[int] = None
    scenario: Optional[Scenario] = None
    advice: Optional[Sequence[str]] = None

    @property
    def values(self) -> Dict[str, Any]:
        """The metrics dict."""
        return self.metrics.values


class Breakdown(NamedTuple):
    """A titled list within a section. It is left out when it has no line."""

    title: str
    lines: Callable[[Report], List[str]]


class Section(NamedTuple):
    """A section of the report.

    `rows` are (label, key of METRICS); "" is an empty line. `lists` follow them. A section that
    differs in kind has a `body` instead, a function that returns its lines. It is left out if it
    returns none.
    """

    title: str
    rows: Sequence[Tuple[str, str]] = ()
    lists: Sequence[Breakdown] = ()
    body: Optional[Callable[[Report], List[str]]] = None

    def lines(self, report: Report) -> List[str]:
        """Return the section, with an empty line at its end."""
        lines = self.body(report) if self.body else []
        for label, key in self.rows:
            lines.append(line_of(f"{label}:", METRICS[key].text(report.values[key])) if key else "")
        for title, make in self.lists:
            listed = make(report)
            lines += ["", f"{title}:", *listed] if listed else []
        return [self.title, LINE, *lines, ""] if lines else []


def format_report(report: Report) -> str:
    """Return the console report: its header, and every section of REPORT."""
    window = report.metrics.history.window
    days = "day" if window.days == 1 else "days"
    lines = [
        DOUBLE_LINE,
        "🔄 GITOPS WORKFLOW AUTOMATION REPORT",
        DOUBLE_LINE,
        line_of(
            "Window (UTC):",
            f"{window.start:%Y-%m-%d} to {window.last:%Y-%m-%d} ({window.days} {days})",
        ),
    ]
    if report.scenario is not None:
        lines.append(line_of("Pipeline:", describe_pipeline(report.scenario)))
    if report.seed is not None:
        meaning = "the same seed, window and scenario give the same run"
        if report.metrics.history.source != "simulated":
            meaning = "of the months on which recommendations were tried"
        lines.append(line_of("Seed:", f"{report.seed} ({meaning})"))
    lines.append("")
    for section in REPORT:
        lines += section.lines(report)
    return "\n".join([*lines, DOUBLE_LINE])


def describe_pipeline(scenario: Scenario) -> str:
    """Return the environments in order, each with its wait, train, gate and promotion."""
    meanings = {"each": "each release", "newest": "newest wins", "soak": "only what stays newest"}
    stages = []
    for environment in scenario.environments:
        knobs = [
            f"after {in_words(environment.wait_hours)} h" * (environment.wait_hours[-1] > 0),
            f"every {environment.release_every_hours:g} h" * (environment.release_every_hours > 0),
            f"{100 * environment.approval_rate:g} % pass" * (environment.approval_rate < 1),
            meanings[environment.promotion],
        ]
        stages.append(f"{environment.name} ({', '.join(filter(None, knobs))})")
    return " → ".join(stages)


def share_lines(counts: Mapping[str, int], whole: Optional[int] = None) -> List[str]:
    """Return a line for each name: its count and its share."""
    whole = sum(counts.values()) if whole is None else whole
    return [
        line_of(f"  • {name}:", f"{n} ({show_percent(n, whole)})") for name, n in counts.items()
    ]


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
    return [
        line_of(f"  • {label}:", f"{count}")
        for label, count in counts.items()
        if count or kinds[label] != "held"
    ]


def lead_time_lines(report: Report) -> List[str]:
    """Return the part of each environment in the mean lead time."""
    whole = report.values["mean_lead_time"]
    if math.isnan(whole):
        return []
    parts = report.values["lead_time_hours_by_environment"].items()
    return [
        line_of(
            f"  • Into {name}:", f"{show_number(hours, ' hours')} ({show_percent(hours, whole)})"
        )
        for name, hours in parts
    ]


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
    width = max(16, *map(len, counts))
    lines, known = [], []
    for name, rate in values["success_rates"].items():
        note = f"({healthy[name]}/{counts[name]} successful)"
        if counts[name] and math.isnan(rate):
            note = f"({counts[name]} deployments, failures not observable)"
        if not math.isnan(rate):
            known.append(name)
        lines.append(f"{rate_grade(rate)[0]} {name:<{width}} {show_number(rate, '%'):<7} {note}")
    overall = show_number(values["overall_success_rate"], "%")
    if known:
        overall += (
            f" ({sum(healthy[name] for name in known)}/{sum(counts[name] for name in known)})"
        )
    return [*lines, "", line_of("Overall Success Rate:", overall)]


def production_lines(report: Report) -> List[str]:
    """Return dora.dev's metrics of production: in all, by application, and as a Quick Check."""
    overall, history = report.metrics.overall, report.metrics.history
    columns = f"{'value':>10}  {'95% interval':<19} {'mean':>8} {'p90':>8} {'n':>6}"
    lines = [line_of("", columns)]
    lines += [production_line(metric, overall) for metric in PRODUCTION_METRICS]
    lines += [
        line_of("Changes not yet shipped:", f"{overall.at['change_lead_time_hours', 'open']}"),
        line_of(
            "Failures not yet recovered:",
            f"{overall.at['failed_deployment_recovery_minutes', 'open']}",
        ),
    ]
    if history.coverage is not None:
        lines.append(
            "Lead time is config-repository lead time: from the commit to production's source "
            "path, not of the code."
        )
        if not history.coverage["failures_observable"].all():
            lines.append(
                "n/a (failures not observable): only successful syncs are known there; the rates "
                "above count them good."
            )
    for reason, count in sorted(history.undated.items()):
        lines.append(f"Revisions without a lead time: {count} ({reason})")
    return [*lines, "", *application_lines(report), "", *quick_check_lines(report)]


def why_undefined(metric: str, table: pd.DataFrame) -> str:
    """Return `n/a` where deployments are known but failures cannot be seen, else `no data`."""
    hidden = math.isnan(table.at["change_fail_rate_pct", "value"])
    deployed = table.at["deployment_frequency_per_day", "n"] > 0
    return "n/a" if hidden and deployed and metric != "change_lead_time_hours" else "no data"


def production_line(metric: str, table: pd.DataFrame) -> str:
    """Return the line of one metric of production."""
    label, unit = PRODUCTION_METRICS[metric][:2]
    row = table.loc[metric]
    if math.isnan(row["value"]):
        why = why_undefined(metric, table)
        return line_of(f"{label}:", f"   {why}" + " (failures not observable)" * (why == "n/a"))
    interval = (
        "" if math.isnan(row["low"]) else f"{show_number(row['low'])} to {show_number(row['high'])}"
    )
    spread = " ".join(f"{show_number(row[key]).replace('n/a', ''):>8}" for key in ("mean", "p90"))
    value = f"{show_number(row['value'], unit):>10}  {interval:<19} {spread} {int(row['n']):>6}"
    return line_of(f"{label}:", value)


def application_lines(report: Report, most: int = 15) -> List[str]:
    """Return a line for each application, those deployed most first."""
    tables = report.metrics.by_application
    if not tables:
        return ["No application in production"]
    frequency = "deployment_frequency_per_day"
    ranked = sorted(tables, key=lambda name: -tables[name].at[frequency, "n"])
    heads = ("lead time", "frequency", "recovery", "fail rate", "rework")
    lines = [line_of("By application:", " ".join(f"{head:>11}" for head in heads))]
    for name in ranked[:most]:
        table = tables[name]
        cells = [
            why_undefined(metric, table)
            if math.isnan(value)
            else show_number(value, PRODUCTION_METRICS[metric].unit)
            for metric, value in table["value"].items()
        ]
        lines.append(line_of(f"  • {name}", " ".join(f"{cell:>11}" for cell in cells)))
    if len(ranked) > most:
        lines.append(f"  and {len(ranked) - most} more (--json has them all)")
    return lines


def quick_check_lines(report: Report) -> List[str]:
    """Return the Quick Check scores beside those of the industry."""
    scores = report.metrics.quick_check
    row = "  • {:<33} {:>4}   {}".format
    lines = ["DORA Quick Check, 0 to 10 (industry: the mean of all industries in 2025):"]
    for metric, industry in QUICK_CHECK_MEANS_2025.items():
        label = f"{PRODUCTION_METRICS[metric].label}:"
        lines.append(row(label, show_number(scores[metric], "", 1), f"industry {industry}"))
    defined = sum(not math.isnan(scores[metric]) for metric in PRODUCTION_METRICS)
    note = f"(the mean of those with data: {defined})" if defined < len(PRODUCTION_METRICS) else ""
    return [*lines, row("Overall:", show_number(scores["overall"], "", 1), note).rstrip()]


def coverage_lines(report: Report, most: int = 40) -> List[str]:
    """Return what each Argo CD application is taken for, and which days its history covers."""
    coverage = report.metrics.history.coverage
    if coverage is None:
        return []
    row = "{:<28} {:<16} {:<13} {:<21} {:<24} {:>5} {:>11}".format
    heads = ("Argo CD application", "application", "environment", "told by", "covered (UTC)")
    lines = [row(*heads, "syncs", "deployments")]
    plain = coverage["environment"] != UNCLASSIFIED
    shown = coverage[~plain | (plain.cumsum() <= most)]  # the unclassified all
    for span in shown.to_dict("records"):
        covered = f"{span['from']:%Y-%m-%d} to {span['to']:%Y-%m-%d}"
        names = (span[key] for key in ("argocd_name", "application", "environment", "rule"))
        text = row(*names, covered, span["syncs"], span["deployments"])
        lines.append(text + " truncated" * span["truncated"])
    unclassified = coverage.loc[~plain, "argocd_name"].nunique()
    if len(coverage) > len(shown):
        lines.append(f"and {len(coverage) - len(shown)} more (--json has them all)")
    if unclassified:
        remedy = "--environment-label, --environment-pattern or --environment says what they are"
        lines.append(f"unclassified: {unclassified}; {remedy}")
    if coverage["truncated"].any():
        lines.append(
            "truncated: older entries are gone; the first one left only marks where the covered "
            "time begins"
        )
    return lines


def maturity_lines(report: Report) -> List[str]:
    """Return the verdict on each benchmark, the level, and the advice."""
    metrics = report.metrics
    advice = plain_recommendations(metrics.values) if report.advice is None else report.advice
    width = max(len(METRICS[key].label) for key in BENCHMARKS) + 1
    return [
        *(
            f"{METRICS[key].label + ':':<{width}} {target_verdict(key, metrics.values)}"
            for key in BENCHMARKS
        ),
        "",
        f"Performance Score: {metrics.score}/{len(BENCHMARKS)} metrics meeting elite criteria",
        "",
        f"Maturity Level: {metrics.level.icon} {metrics.level.name}",
        "",
        "Recommendations:",
        *(f"    {line.strip()}" if line.startswith(" ") else f"  • {line}" for line in advice),
    ]


def target_verdict(key: str, values: Mapping[str, Any]) -> str:
    """Return whether a benchmark is met, in words."""
    value, target = values[key], BENCHMARKS[key]
    if math.isnan(value):
        if is_elite(key, values):
            return f"✅ Elite ({target}; n/a: no deployment failed)"
        hidden = key == "change_failure_rate" and values["total_deployments"]
        why = "failures not observable" if hidden else "nothing to measure"
        return f"⚪ n/a ({target} target, {why})"
    if is_elite(key, values):
        return f"✅ Elite ({target} achieved: {show_number(value, target.unit)})"
    return f"❌ Needs Improvement ({target} target, actual: {show_number(value, target.unit)})"


REPORT = (
    Section("📡 WHAT ARGO CD'S HISTORY COVERS", body=coverage_lines),
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
        "🚀 DEPLOYMENT METRICS (DORA)",
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
    Section("🏆 DORA MATURITY ASSESSMENT", body=maturity_lines),
)
"""The sections of the report, from top to bottom."""


def metric_step_lines(values: Mapping[str, Any]) -> List[str]:
    """Return what the step that calculates the metrics prints."""
    labels = {"mean_lead_time": "Mean Lead Time"}
    keys = ("deployment_frequency", "mean_lead_time", "change_failure_rate", "mttr_minutes")
    return [
        f"  ✓ {labels.get(key, METRICS[key].label)}: {METRICS[key].text(values[key])}"
        for key in keys
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
    shown = {label: METRICS[key].text(metrics.values[key]) for label, key in rows.items()}
    shown["Overall Maturity"] = metrics.level.name
    lines = [
        "📊 EXECUTIVE SUMMARY:",
        *(line_of(f"  {label}:", text) for label, text in shown.items()),
    ]
    return "\n".join([*lines, "", f"🏆 Performance Tier: {metrics.level.tier}"])


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
    metrics: Metrics, seed: Optional[int], flow: Optional[pd.DataFrame]
) -> Dict[str, Any]:
    """Return what `--json` prints and `metrics.json` holds, as plain JSON values."""
    history = metrics.history
    document = {
        "version": __version__,
        "seed": seed,
        "window": {**history.window._asdict(), "days": history.window.days},
        "environments": history.environments,
        "commits": metrics.values["total_commits"],
        "simulated": history.source == "simulated",  # the deployments; the commits may be real
        "metrics": metrics.values,
        "production": metric_documents(metrics.overall),
        "applications": {
            name: metric_documents(table) for name, table in metrics.by_application.items()
        },
        "quick_check": metrics.quick_check,
        "maturity": {
            "level": metrics.level.name,
            "score": metrics.score,
            "of": len(BENCHMARKS),
            "elite": metrics.elite,
        },
        "flow": None if flow is None else flow.to_dict("index"),
    }
    if history.coverage is not None:
        document["coverage"] = history.coverage.to_dict("records")
        document["undated"] = dict(history.undated)
    return to_jsonable(document)


def metric_documents(table: pd.DataFrame) -> Dict[str, Dict[str, Any]]:
    """Return {metric: its fields}; a rate has no mean, 90th percentile or open ones."""
    documents = table.to_dict("index")
    for metric, fields in documents.items():
        if not metric.endswith(("_hours", "_minutes")):
            for name in ("mean", "p90", "open"):
                del fields[name]
    return documents


def export_files(metrics: Metrics, document: Mapping[str, Any]) -> Dict[str, bytes]:
    """Return the content of each file of an export: the tables as CSV, the numbers as JSON."""
    history = metrics.history
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return {
        "commits.csv": as_csv(history.git_commits),
        "deployments.csv": as_csv(history.deployments),
        "rollbacks.csv": as_csv(history.rollbacks),
        "metrics.json": text.encode("utf-8", "replace"),
    }


def as_csv(table: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8, with times in ISO 8601 (UTC)."""
    times = np.datetime_as_string(seconds_of(table["timestamp"]).view("M8[s]"), unit="s")
    timestamps = pd.Series(np.char.add(times, "Z"), dtype=object)
    text = table.assign(timestamp=timestamps).to_csv(index=False)
    return text.replace(os.linesep, "\n").encode("utf-8", "replace")


# ---- Reporting engine: metrics -> dashboard ------------------------------------------------------

_INK, _MUTED, _GRID = "#1f2933", "#52606d", "#d9e2ec"
_GREEN, _RED = rate_grade(100)[1], rate_grade(0)[1]
_ENVIRONMENT_COLOURS = {"dev": "#1f77b4", "staging": "#ff7f0e", "production": "#2ca02c"}
_THEME = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": _INK,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlecolor": _INK,
    "axes.titlepad": 14,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 11,
    "axes.edgecolor": "#bcccdc",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "white",
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.frameon": False,
}


@contextlib.contextmanager
def _theme() -> Iterator[None]:
    """seaborn's white style in our colours; the caller's rcParams come back as they were."""
    with mpl_style.context(["default", {**sns.axes_style("whitegrid"), **_THEME}]):
        yield


def _environment_colours(environments: Sequence[str]) -> List[Any]:
    """dev blue, staging orange, production green; other names take unused colours in turn."""
    spare = iter(sns.color_palette("husl", len(environments)))
    return [_ENVIRONMENT_COLOURS.get(name) or next(spare) for name in environments]


def _label(text: str, width: int = 18) -> str:
    """A name as matplotlib can draw it: no mathtext, no character its font lacks, not too long."""
    known = _font_characters()
    text = "".join(character if ord(character) in known else "?" for character in text)
    return shorten_text(text, width).replace("$", r"\$")


def shorten_text(text: str, width: int) -> str:
    """The beginning and the end of a text that is too long: the end tells names apart as often."""
    return (
        text
        if len(text) <= width
        else text[: width // 2] + "…" + text[len(text) - (width - width // 2 - 1) :]
    )


def _labels(names: Sequence[str], width: int = 18) -> List[str]:
    """The labels of names that stand beside each other; those that would look alike begin where
    they differ."""
    labels = [_label(name, width) for name in names]
    alike = {label for label, count in collections.Counter(labels).items() if count > 1}
    for label in alike:
        twins = [name for name, short in zip(names, labels) if short == label]
        begin = max(len(os.path.commonprefix(twins)) - 3, 0)
        labels = [
            _label(f"…{name[begin:]}", width) if name in twins else old
            for name, old in zip(names, labels)
        ]
    return labels


def _font_characters() -> Mapping[int, int]:
    if not _CHARACTERS:
        _CHARACTERS.update(
            FT2Font(
                str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
            ).get_charmap()
        )
    return _CHARACTERS


_CHARACTERS: Dict[int, int] = {}  # read from the font once, when first needed


def _nothing_to_draw(ax: Axes, title: str, message: str) -> Axes:
    ax.set_title(title)
    ax.set_axis_off()
    ax.text(
        0.5,
        0.5,
        message,
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=_MUTED,
        fontsize=12,
    )
    return ax


def plot_deployments_over_time(metrics: Metrics, ax: Axes) -> Axes:
    """Draw a smooth line and the daily counts as dots for each environment; shade the weekends."""
    title, history = "Deployments Over Time", metrics.history
    if not metrics.values["total_deployments"]:
        return _nothing_to_draw(ax, title, "No deployment in this window")
    days, names = np.arange(history.window.days), history.environments
    dates = mdates.date2num(history.window.start.to_pydatetime()) + days
    rows = zip(names, _environment_colours(names), metrics.deployments_by_day, metrics.days_known)
    for number, (name, colour, counts, known) in enumerate(rows):
        beside = (number - (len(names) - 1) / 2) * 0.6 / len(names)  # no dot hides another one
        size = max(3.6, 8 - len(days) / 40)
        dots: Dict[str, Any] = dict(alpha=0.5, markersize=size, markeredgewidth=0, label="_daily")
        ax.plot((dates + beside)[known], counts[known], ".", color=colour, **dots)
        ax.plot(*_smooth(dates, counts, known), color=colour, linewidth=2.2, label=_label(name))
    _shade_weekends(ax, history.window, dates)
    ax.set(title=title, ylabel="Deployments a day", xlim=(dates[0] - 0.6, dates[-1] + 0.6))
    ax.set_ylim(bottom=0)
    _count_axis(ax.yaxis)
    _date_axis(ax, dates)
    _legend_below(ax, names)
    return ax


def _count_axis(axis: Axis) -> None:
    """Whole numbers, 2.5M for millions."""
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axis.set_major_formatter(EngFormatter(sep=""))


def _date_axis(ax: Axes, dates: np.ndarray) -> None:
    """At most six whole days, the first and the last among them."""
    if len(dates) <= 100:  # each so many days; where they are many, weeks
        step = math.ceil(len(dates) / 6)
        ax.set_xticks(dates[:: step if step < 4 else 7 * math.ceil(step / 7)])
    else:
        ax.xaxis.set_major_locator(mdates.AutoDateLocator(_dt.timezone.utc, minticks=3, maxticks=5))
    pattern = "%d %b" if len(dates) <= 200 else "%b %Y" if len(dates) <= 2000 else "%Y"
    ax.xaxis.set_major_formatter(mdates.DateFormatter(pattern, _dt.timezone.utc))


def _legend_below(ax: Axes, names: Sequence[str], most: int = 12) -> None:
    """A legend of the smooth lines under the panel; of many, the last (production is last)."""
    lines = [line for line in ax.get_lines() if line.get_linewidth() > 2][-most:]
    few = len(lines) <= 4
    legend = ax.legend(
        lines,
        ["name"] * len(lines),
        loc="upper center",
        bbox_to_anchor=(0.46, -0.1),
        ncol=len(lines) if few else 4,
        fontsize=10.5 if few else 7.5,
        columnspacing=1.2,
        labelspacing=0.3 if few else 0.15,
        borderpad=0.2,
        handlelength=1.6 if few else 1.2,
    )
    width = 18 if len(lines) <= 3 else 12 if len(lines) <= 8 else 9
    for text, label in zip(legend.get_texts(), _labels(names, width)[-most:]):
        text.set_text(label)  # not as a label, as matplotlib hides those that begin with _


def _smooth(
    dates: np.ndarray, counts: np.ndarray, known: np.ndarray, points: int = 400
) -> Tuple[np.ndarray, np.ndarray]:
    """A Gaussian-weighted mean of the counts around each point, with a gap where they are not
    known. A mean with weights that sum to one stays between the least and the greatest count, and
    the points between the first and last day."""
    x = np.linspace(dates[0], dates[-1], points)
    width = max(1.0, len(dates) / 60)
    weights = np.exp(-0.5 * ((x[:, None] - dates) / width) ** 2) * known
    near = known[np.rint(x - dates[0]).astype(np.int64)]
    return x, np.where(near, weights @ counts / np.where(near, weights.sum(axis=1), 1), np.nan)


def _shade_weekends(ax: Axes, window: Window, dates: np.ndarray) -> None:
    if len(dates) > 400:
        return  # stripes too narrow to see
    edges = np.repeat(dates, 2) + np.tile([-0.5, 0.5], len(dates))
    weekend = (np.arange(len(dates)) + window.start.weekday()) % 7 >= 5
    ax.fill_between(
        edges,
        0,
        1,
        where=np.repeat(weekend, 2),
        transform=ax.get_xaxis_transform(),
        color="#829ab1",
        alpha=0.13,
        linewidth=0,
    )


def plot_success_rates(metrics: Metrics, ax: Axes) -> Axes:
    """A bar for each environment, coloured by `rate_grade`, against the 95 % target."""
    title, rates = "Success Rate by Environment", metrics.values["success_rates"]
    if not metrics.values["total_deployments"]:
        return _nothing_to_draw(ax, title, "No deployment in this window")
    heights = [0.0 if math.isnan(rate) else rate for rate in rates.values()]
    bars = ax.bar(
        range(len(rates)),
        heights,
        width=0.6,
        color=[rate_grade(rate)[1] for rate in rates.values()],
    )
    few = len(rates) <= 5
    for bar, rate in zip(bars, rates.values()):
        height = bar.get_height()
        clear = (
            height if height < 86 else max(height, 95)
        )  # the label does not cross the target line
        ax.annotate(
            show_number(rate, "%", 1 if len(rates) <= 8 else 0),
            (bar.get_x() + bar.get_width() / 2, clear),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontweight="bold",
            fontsize=12 if few else 7,
            rotation=0 if len(rates) <= 12 else 90,
        )
    ax.axhline(95, color=_GREEN, linestyle="--", linewidth=1.6, label="Target 95%")
    ax.set(title=title, ylabel="Healthy deployments (%)", ylim=(0, 110), yticks=range(0, 101, 20))
    ax.set_xticks(range(len(rates)))
    ax.set_xlim(-0.6 if len(rates) > 1 else -1, len(rates) - 0.4 if len(rates) > 1 else 1)
    labels = _labels(list(rates), 16 if len(rates) <= 3 else 12)
    ax.set_xticklabels(
        labels,
        fontsize=10.5 if few else 9,
        rotation=0 if few else 40,
        ha="center" if few else "right",
    )
    ax.annotate(
        "Target\n95%",
        (1, 95),
        xycoords=ax.get_yaxis_transform(),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=_GREEN,
        fontsize=10,
        fontweight="bold",
        annotation_clip=False,
    )
    ax.grid(False, axis="x")
    return ax


def plot_commit_types(metrics: Metrics, ax: Axes) -> Axes:
    """A pie of the commit types; those too thin for a label of their own are one slice."""
    title, types = "Commit Types Distribution", metrics.values["commit_types"]
    if not types:
        return _nothing_to_draw(ax, title, "No commit in this window")
    commits = metrics.values["total_commits"]
    wide = [count / commits >= 0.03 for count in types.values()].count(True)
    types = _top(types, max(wide, 1), "all others")
    types = dict(sorted(types.items(), key=lambda pair: -pair[1]))
    wedges = ax.pie(
        list(types.values()),
        radius=0.92,
        startangle=180,
        counterclock=False,
        colors=sns.color_palette("Set2" if len(types) <= 8 else "husl", len(types)),
        wedgeprops=dict(edgecolor="white", linewidth=1.5),
    )[0]
    labels = [f"{_label(name, 11)} {show_percent(count, commits)}" for name, count in types.items()]
    middle = np.radians([(wedge.theta1 + wedge.theta2) / 2 for wedge in wedges])
    right, height = np.cos(middle) >= 0, 1.01 * np.sin(middle)
    for side in (right, ~right):
        upwards = np.flatnonzero(side)[np.argsort(height[side])]
        height[upwards] = _apart(height[upwards], 0.15)
    for label, y, side in zip(labels, height, np.where(right, 1, -1)):
        x = side * max(math.sqrt(max(1.01**2 - y**2, 0)), 0.05)
        ax.text(
            x, y, label, ha="left" if side > 0 else "right", va="center", fontsize=11, color=_INK
        )
    ax.set_title(title)
    return ax


def _apart(places: np.ndarray, gap: float) -> np.ndarray:
    """Ascending places moved as little as may be, so that each is a gap or more above the one
    before."""
    steps = gap * np.arange(len(places))
    up = np.maximum.accumulate(places - steps)
    down = np.minimum.accumulate((places - steps)[::-1])[::-1]
    return (up + down) / 2 + steps


def _top(counts: Mapping[str, int], most: int, rest: str) -> Dict[str, int]:
    """The first `most` of a ranking, and the others, if there are several, as one entry."""
    names = list(counts)
    if len(names) <= most + 1:
        return dict(counts)
    top = {name: counts[name] for name in names[:most]}
    return {**top, rest: sum(counts[name] for name in names[most:])}


def plot_deployment_status(metrics: Metrics, ax: Axes) -> Axes:
    """Draw how many syncs ended Synced and Failed."""
    title, counts = "Deployment Status", metrics.values["deployments_by_status"]
    if not metrics.values["total_deployments"]:
        return _nothing_to_draw(ax, title, "No deployment in this window")
    bars = ax.bar(list(counts), list(counts.values()), width=0.5, color=[_GREEN, _RED])
    labels = [f"{count:,}" for count in counts.values()]
    ax.bar_label(bars, labels, padding=4, fontweight="bold", fontsize=12)
    ax.set(title=title, ylabel="Deployments", xlim=(-0.7, 1.7))
    _count_axis(ax.yaxis)
    ax.margins(y=0.12)
    ax.grid(False, axis="x")
    return ax


def plot_deployments_by_application(metrics: Metrics, ax: Axes, most: int = 10) -> Axes:
    """Draw the deployments of each application, the greatest on top; beyond `most`, the others as
    one."""
    title, counts = "Deployments by Application", metrics.values["deployments_by_application"]
    if not counts:
        return _nothing_to_draw(ax, title, "No deployment in this window")
    shown = _top(counts, most, f"{len(counts) - most} others")
    ascending = sorted(shown.items(), key=lambda pair: (pair[1], pair[0]))
    heights = [count for _, count in ascending]
    bars = ax.barh(range(len(ascending)), heights, height=0.6, color="#f093fb", edgecolor="black")
    ax.bar_label(bars, [f"{count:,}" for count in heights], padding=5, fontweight="bold")
    ax.set_yticks(range(len(ascending)))
    ax.set_yticklabels(_labels([name for name, _ in ascending]), fontsize=10.5)
    ax.set(title=title, xlabel="Deployments")
    _count_axis(ax.xaxis)
    ax.margins(x=0.15)
    ax.grid(False, axis="y")
    return ax


def plot_scorecard(metrics: Metrics, ax: Axes) -> Axes:
    """Draw the four benchmarks with their targets, the level and its medal, in monospace."""
    ax.set(title="DORA Metrics Scorecard", xlim=(0, 10), ylim=(0, 10))
    ax.set_axis_off()
    mono: Dict[str, Any] = dict(family="DejaVu Sans Mono", fontsize=12.5, va="center")
    for y, (key, target) in zip((9.2, 7.9, 6.6, 5.3), BENCHMARKS.items()):
        value = metrics.values[key]
        missed = not math.isnan(value) and not metrics.elite[key]
        colour = _GREEN if metrics.elite[key] else _RED if missed else rate_grade(math.nan)[1]
        ax.plot([0.25], [y], "X" if missed else "o", color=colour, markersize=9, clip_on=False)
        ax.text(0.7, y, METRICS[key].label, **mono)
        ax.text(10, y, show_number(value, target.unit), ha="right", fontweight="bold", **mono)
        limit = f"elite {target.better} {target.limit:g}{target.unit}"
        ax.text(0.7, y - 0.55, limit, color=_MUTED, **{**mono, "fontsize": 9.5})
    ax.plot([0, 10], [4.05, 4.05], color=_GRID, linewidth=1.2)
    _draw_medal(ax, metrics.level)
    ax.text(3.4, 2.35, metrics.level.name, fontweight="bold", **{**mono, "fontsize": 15})
    met = f"{metrics.score} of {len(BENCHMARKS)} elite criteria met"
    ax.text(3.4, 1.35, met, color=_MUTED, **{**mono, "fontsize": 11})
    return ax


def _draw_medal(ax: Axes, level: Level) -> None:
    """A medal on its ribbon, or a rising arrow, in shapes: the fonts have no such glyph."""
    if level is LEVELS[-1]:
        for x, height in ((0.5, 0.8), (1.1, 1.5), (1.7, 2.3)):
            ax.add_patch(mpatches.Rectangle((x, 0.6), 0.42, height, color=level.medal))
        ax.annotate(
            "", (2.6, 3.5), (0.4, 1.9), arrowprops=dict(arrowstyle="-|>", color=_INK, linewidth=2)
        )
        return
    for side in (-1, 1):
        ribbon = [(1.5, 1.9), (1.5 + side * 0.85, 3.6), (1.5 + side * 0.3, 3.6), (1.5, 2.6)]
        ax.add_patch(
            mpatches.Polygon(ribbon, closed=True, color="#3a6ea5" if side < 0 else "#5b8fc7")
        )
    ax.plot(
        [1.5],
        [1.55],
        "o",
        markersize=44,
        markerfacecolor=level.medal,
        markeredgecolor="white",
        markeredgewidth=2,
    )
    ax.plot(
        [1.5],
        [1.55],
        "o",
        markersize=33,
        markerfacecolor="none",
        markeredgecolor="white",
        markeredgewidth=1.5,
        alpha=0.8,
    )
    ax.text(
        1.5,
        1.5,
        f"{4 - level.score + 1}",
        ha="center",
        va="center",
        color="white",
        fontsize=17,
        fontweight="bold",
    )


def draw_dashboard(metrics: Metrics, dpi: int = 300) -> Figure:
    """Draw the six panels, 18 x 10 in, each on a white card on a transparent page.

    The figure is not registered with pyplot: nothing shows it but the one who asked for it.
    """
    with _theme():
        figure = Figure(figsize=(18, 10), dpi=dpi)
        figure.patch.set_alpha(0)
        panels = [
            figure.add_axes(_card(figure, number, framed=number not in (2, 5)))
            for number in range(6)
        ]
        plot_deployments_over_time(metrics, panels[0])
        plot_success_rates(metrics, panels[1])
        plot_commit_types(metrics, panels[2])
        plot_deployment_status(metrics, panels[3])
        plot_deployments_by_application(metrics, panels[4])
        plot_scorecard(metrics, panels[5])
        _fit_panels(figure, panels=(0, 1, 4))  # the others have no names beside them
    return figure


def _fit_panels(figure: Figure, panels: Iterable[int]) -> None:
    """Make each of these panels smaller where its labels would leave its card."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # the canvas that render_png draws on
    for number in panels:
        _fit(figure.axes[number], figure.patches[number], renderer)


def _extent(ax: Axes, renderer: Any) -> Bbox:
    """What the axes and their labels cover, in pixels."""
    extent = ax.get_tightbbox(renderer)
    assert extent is not None  # only hidden axes have none
    return extent


def _fit(ax: Axes, card: mpatches.Patch, renderer: Any) -> None:
    """Make the axes smaller where their labels would leave the card."""
    page = card.figure.transFigure
    room = card.get_path().transformed(card.get_transform() - page).get_extents().padded(-0.008)
    for _ in range(2 if ax.axison else 0):  # once more, as the ticks may be others at the new size
        taken, at = _extent(ax, renderer).transformed(page.inverted()), ax.get_position()
        left, bottom = max(0, room.x0 - taken.x0), max(0, room.y0 + 0.006 - taken.y0)
        right = max(0, taken.x1 - room.x1)
        if left + bottom + right < 0.001:
            return
        ax.set_position(Bbox.from_extents(at.x0 + left, at.y0 + bottom, at.x1 - right, at.y1))


def _card(
    figure: Figure, number: int, framed: bool, columns: int = 3
) -> Tuple[float, float, float, float]:
    """Draw the card of one panel; the place of its axes in it, (left, bottom, width, height), with
    room for the tick labels of a framed one."""
    pitch = 0.994 / columns
    left, bottom, width, height = (
        0.006 + number % columns * pitch,
        0.01 + (1 - number // columns) * 0.495,
        pitch - 0.006,
        0.485,
    )
    figure.patches.append(
        mpatches.FancyBboxPatch(
            (left, bottom),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.008",
            mutation_aspect=1.8,
            transform=figure.transFigure,
            facecolor="white",
            edgecolor="#cbd2d9",
            linewidth=1,
            figure=figure,
            zorder=-1,
        )
    )
    pad_left, pad_bottom, pad_right = (0.062, 0.082, 0.02) if framed else (0.045, 0.045, 0.045)
    pad_left += 0.045 if columns == 2 else 0  # room for long names
    return (
        left + pad_left,
        bottom + pad_bottom,
        width - pad_left - pad_right,
        height - pad_bottom - 0.07,
    )


def render_png(figure: Figure) -> bytes:
    """Return the figure as a palette PNG: a third of the size of RGBA, and faster to write."""
    canvas: Any = figure.canvas
    with _theme():
        canvas.draw()
    pixels, palette = _to_palette(np.asarray(canvas.buffer_rgba()))
    image = Image.fromarray(pixels)
    image.putpalette(palette[:, :3].tobytes())
    file = io.BytesIO()
    dpi = (figure.dpi, figure.dpi)
    image.save(file, "PNG", transparency=palette[:, 3].tobytes(), dpi=dpi, compress_level=4)
    return file.getvalue()


def _to_palette(rgba: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(Palette index of each pixel, palette of at most 256 RGBA colours): the most frequent colours
    as they are, and for the rare others (edges of letters) the nearest of those. Works on runs of
    equal pixels: a chart has fifty times fewer of them."""
    pixels = np.ascontiguousarray(rgba).view("<u4").ravel()
    starts = np.append(0, np.flatnonzero(pixels[1:] != pixels[:-1]) + 1)
    lengths = np.diff(np.append(starts, len(pixels)))
    colour_of_run, colours = pd.factorize(pixels[starts])  # by hashing: sorts nothing
    frequent = np.argsort(-np.bincount(colour_of_run, lengths), kind="stable")[:256]
    channels = colours.astype("<u4").view(np.uint8).reshape(-1, 4).astype(np.int32)
    distance = sum((channels[:, [i]] - channels[frequent, i]) ** 2 for i in range(4))
    index = distance.argmin(axis=1).astype(np.uint8)
    return np.repeat(index[colour_of_run], lengths).reshape(rgba.shape[:2]), channels[
        frequent
    ].astype(np.uint8)


# ---- What-if: scenarios -> months side by side --------------------------------------------------

BLOCK = 250  # months simulated at once, fewer where they have many commits: this bounds the memory
LEAST_MONTHS = 30  # of a difference: the normal interval is good from there on
MOST_RUNS = 100_000

FORECAST_METRICS = (
    "deployment_frequency",
    "production_deployment_frequency",
    "mean_lead_time",
    "median_lead_time",
    "mttr_minutes",
    "change_failure_rate",
    "total_deployments",
    "total_rollbacks",
    "waiting_hours",
    "failed_hours",
)
"""What is known of each simulated month: keys of `METRICS`, and the hours of `hours_lost`."""

PRESETS: Dict[str, Scenario] = {
    "gitops": Scenario(),
    # The same team and the same quality of change; only how releases travel differs.
    "traditional": Scenario(
        environments=(
            # one nightly build for the day's commits, so feedback comes the next morning
            Environment("dev", 0.90, (0, 0), (600, 1800), "newest", release_every_hours=24),
            # a manual test pass of one to three days before a build may go on
            Environment("staging", 0.93, (24, 72), (900, 3600), "newest"),
            # a change board meets, then the train leaves once a week
            Environment(
                "production", 0.95, (4, 24), (1800, 7200), "newest", release_every_hours=168
            ),
        ),
        # someone is called, finds the last good build and redeploys it by hand: one to eight hours
        rollback=RollbackPolicy(duration_min=(60, 480), success_rate=0.95),
    ),
    # The gates are automated: tests decide in under an hour, and production follows within the
    # shift.
    "elite": Scenario(
        environments=(
            Environment("dev", 0.90, (0, 0), (10, 60), "each"),
            Environment("staging", 0.93, (0.25, 1), (15, 90), "newest"),
            Environment("production", 0.95, (1, 6), (30, 120), "newest"),
        )
    ),
}

Progress = Callable[[str], Any]


def simulate_events(
    scenario: Scenario, window: Window, noise: Noise, runs: int, commits: Optional[Commits] = None
) -> Events:
    """Simulate `runs` independent windows of a scenario, or of given commits: a group each."""
    if commits is None:
        commits = simulate_commits(scenario.team, window, noise.stream("commits"), runs)
    deployments = run_pipeline(commits, scenario, window, noise)[0]
    rollbacks = roll_back(deployments, scenario.rollback, noise, len(commits.time))
    return Events(commits, deployments, rollbacks, window, runs, len(scenario.environments))


def what_if(
    scenarios: Mapping[str, Scenario],
    window: Window,
    runs: int,
    seed: int,
    progress: Progress = lambda message: None,
) -> pd.DataFrame:
    """Simulate each scenario over the same `runs` months: a tidy table.

    A row is a metric of a run of a scenario: `scenario`, `run`, `metric` (of `FORECAST_METRICS`),
    `value`. The scenarios share their noise, so the same one twice gives exactly the same values.
    """
    frames = [
        pd.DataFrame(
            {
                "scenario": name,
                "run": np.tile(np.arange(runs), len(months)),
                "metric": np.repeat(list(months), runs),
                "value": np.concatenate(list(months.values())),
            }
        )
        for name, months in forecast_months(scenarios, window, runs, seed, progress).items()
    ]
    return pd.concat(frames, ignore_index=True)


Months = Mapping[str, np.ndarray]
"""{metric: its value in each simulated month, NaN where it is undefined}"""


def forecast_months(
    scenarios: Mapping[str, Scenario],
    window: Window,
    runs: int,
    seed: int,
    progress: Progress = lambda message: None,
    noise_of: Callable[[int, int], Noise] = Noise,
) -> Dict[str, Months]:
    """Simulate each scenario over the same `runs` months; return {scenario: its months}.

    `noise_of` returns the noise of a seed and a block. One that is cached serves the next call too.
    """
    busiest = max(scenario.team.commits_per_day for scenario in scenarios.values())
    size = int(np.clip(2e6 / max(window.days * busiest, 1), 1, BLOCK))
    blocks: Dict[str, List[Months]] = {name: [] for name in scenarios}
    for first in range(0, runs, size):
        noise, count = noise_of(seed, 1 + first), min(size, runs - first)
        team, commits = None, None
        for name, scenario in scenarios.items():
            if scenario.team != team:
                team = scenario.team
                commits = simulate_commits(team, window, noise.stream("commits"), count)
            events = simulate_events(scenario, window, noise, count, commits)
            known = headline_metrics(events, np.ones(events.environments, bool))
            known.update(hours_lost(events))
            blocks[name].append(
                {metric: known[metric].astype(float) for metric in FORECAST_METRICS}
            )
        progress(f"{first + count} of {runs} months simulated")
    return {
        name: {
            metric: np.concatenate([block[metric] for block in parts])
            for metric in FORECAST_METRICS
        }
        for name, parts in blocks.items()
    }


def hours_lost(events: Events) -> Dict[str, np.ndarray]:
    """Return for each group the hours that changes waited and that production was failed.

    `waiting_hours`: each change, from its commit to the end of the deployment that shipped it, or
    of the window. `failed_hours`: from the end of a failed deployment to the end of the rollback
    that succeeded, the start of the next good deployment or the end of the window, whichever is
    first; hours in which several deployments of an application are failed count once.
    """
    events, end = events.in_production(), events.window.seconds[1]
    deployments, changes, ended = (
        events.deployments,
        shipped_changes(events),
        find_recoveries(events),
    )
    waited = (np.minimum(changes.shipped, end) - changes.committed) / 3600
    begin = deployments.end[ended.failed]
    next_good = np.where(ended.next_good >= 0, deployments.time[ended.next_good], NEVER)
    over = np.minimum(np.minimum(ended.rolled_back, next_good), end)
    place = deployments.place[ended.failed]
    order = np.lexsort((begin, place))
    lift = number_runs(place[order]) * NEVER  # sets the places apart
    counted = np.append(0, np.maximum.accumulate(over[order] + lift))[:-1] - lift
    failed = np.maximum(over[order] - np.maximum(begin[order], counted), 0) / 3600
    return {
        "waiting_hours": np.bincount(changes.group, waited, minlength=events.groups),
        "failed_hours": events.of_group(deployments, ended.failed[order], failed),
    }


def level_counts(months: Months) -> Dict[str, int]:
    """Return how many months reach each maturity level."""
    scores = np.bincount(maturity_score(months), minlength=len(BENCHMARKS) + 1).tolist()
    counts = dict.fromkeys((level.name for level in LEVELS), 0)
    for score, count in enumerate(scores):
        counts[level_of(score).name] += count
    return counts


def months_of(table: pd.DataFrame, scenario: str) -> Months:
    """Return the months of one scenario of a `what_if` table."""
    rows = table[table["scenario"] == scenario]
    grouped = rows.groupby("metric", sort=False, observed=True)["value"]
    return {metric: values.to_numpy() for metric, values in grouped}


def month_spread(values: np.ndarray) -> Tuple[float, float, float]:
    """Return median, 5 % and 95 % of the months in which the value is defined."""
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan, math.nan
    middle, low, high = np.percentile(known, [50, 5, 95]).tolist()
    return middle, low, high


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> Tuple[float, float, float]:
    """Return the mean difference and its 95 % interval over the months in which both are defined.

    Both lived through the same months, so what these have in common cancels out. The interval is
    the normal one, and NaN for fewer than LEAST_MONTHS months.
    """
    difference = (values - baseline)[~np.isnan(values - baseline)]
    if len(difference) < LEAST_MONTHS:
        return math.nan, math.nan, math.nan
    mean, error = (
        float(difference.mean()),
        float(difference.std(ddof=1)) / math.sqrt(len(difference)),
    )
    return mean, mean - Z_95 * error, mean + Z_95 * error


# A knob as the command line names it: `production.wait_hours`.


def parse_change(text: str, scenario: Scenario) -> Scenario:
    """Apply `environment.knob=value`, several with `,`; a range is `low:high`, `*2` multiplies.

    >>> parse_change("production.wait_hours=*0.5", Scenario()).environments[-1].wait_hours
    (12.0, 36.0)
    """
    for change in text.split(","):
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
    alike = [name for name in difflib.get_close_matches(path, known, 1) if name != path]
    hint = f"did you mean {alike[0]}? The knobs are" if alike else "give KNOB=VALUE with a knob of"
    return f"unknown change {in_quotes(change)}; {hint} {', '.join(known)}"


def knob_value(path: str, text: str, old: Any) -> Any:
    """Read the new value of a knob, in the kind of its old one; of a range `4` is `4:4`."""
    if isinstance(old, str):
        return text
    if isinstance(old, Mapping):
        raise GitOpsError(f"{path} has a weight for each name; change it in a JSON file")
    several = isinstance(old, tuple)
    try:
        if text.startswith("*"):
            values = [float(text[1:]) * value for value in (old if several else [old])]
        else:
            values = [float(value) for value in (text.split(":") if several else [text])]
    except (ValueError, OverflowError):
        example = "4:12" if several else "0.5"
        message = f"{path} cannot be {in_quotes(text)}; give a value such as {example} or *0.5"
        raise GitOpsError(message) from None
    if several:
        return tuple(values * 2 if len(values) == 1 else values)
    return int(values[0]) if isinstance(old, int) and values[0].is_integer() else values[0]


def named_scenario(text: str, baseline: Scenario) -> Scenario:
    """Return what `--what-if` names: a change of the baseline, a preset or a JSON file."""
    if "=" in text:
        return parse_change(text, baseline)
    if text in PRESETS:
        return dataclasses.replace(PRESETS[text], team=baseline.team)
    if not Path(text).is_file():
        presets = ", ".join(PRESETS)
        raise GitOpsError(
            f"unknown scenario {in_quotes(text)}; give KNOB=VALUE, a preset ({presets}) or a JSON "
            "file"
        )
    return read_scenario(text, baseline)


def format_what_if(
    table: pd.DataFrame,
    seed: int,
    days: int,
    cost_per_hour: Optional[float] = None,
    measured: Optional[Mapping[str, Any]] = None,
) -> str:
    """Return the comparison of a `what_if` table; its first scenario is the baseline.

    `measured` is the metrics dict of the history that the baseline was fitted to.
    """
    months = {name: months_of(table, name) for name in dict.fromkeys(table["scenario"])}
    baseline = next(iter(months.values()))
    runs = len(baseline["mean_lead_time"])
    lines = [
        DOUBLE_LINE,
        f"🔮 WHAT IF: {runs} simulated months of {days} days, the same for each scenario "
        f"(seed {seed})",
        DOUBLE_LINE,
        "",
        "The median month (5 % and 95 % of months), and the mean difference from the baseline "
        "(95 % interval).",
        "",
    ]
    for key, target in BENCHMARKS.items():
        lines.append(f"{METRICS[key].label} (elite {target})")
        if measured is not None:
            lines.append(measured_line(key, measured, baseline))
        for name, own in months.items():
            lines.append(what_if_line(name, key, own, None if own is baseline else baseline))
        lines.append("")
    heads = " ".join(f"{level.name:>17}" for level in LEVELS)
    lines.append(f"{'Months that reach each level':<34} {heads}")
    for name, own in months.items():
        counts = " ".join(f"{count:>17}" for count in level_counts(own).values())
        lines.append(f"  {table_cell(name)} {counts}")
    if cost_per_hour is not None:
        lines += cost_lines(months, cost_per_hour)
    return "\n".join(lines)


def table_cell(name: str, width: int = 32) -> str:
    """Return a name in a column of the comparison."""
    return f"{shorten_text(name, width):<{width}}"


def what_if_line(name: str, key: str, months: Months, baseline: Optional[Months]) -> str:
    """Return the line of one scenario and one metric."""
    middle, low, high = month_spread(months[key])
    value = "n/a"
    if not math.isnan(middle):
        value = f"{show_number(middle, BENCHMARKS[key].unit)} ({low:.2f} to {high:.2f})"
    difference = ""
    if baseline is not None:
        mean, least, most = paired_difference(months[key], baseline[key])
        difference = f"{mean:+.2f} ({least:+.2f} to {most:+.2f})"
        if math.isnan(mean):
            difference = f"n/a (fewer than {LEAST_MONTHS} months have a value)"
    return f"  {table_cell(name)} {value:<30} {difference}".rstrip()


def measured_line(key: str, measured: Mapping[str, Any], baseline: Months) -> str:
    """Return what the history says, with a warning where the months fitted to it miss it."""
    value, (_, low, high) = measured[key], month_spread(baseline[key])
    missed = not math.isnan(value) and not low <= value <= high
    warning = "! not among the baseline's months: the fit misses it" * missed
    return f"  {'(measured)':<32} {show_number(value, BENCHMARKS[key].unit):<30} {warning}".rstrip()


def cost_lines(months: Mapping[str, Months], cost: float) -> List[str]:
    """Return the hours lost in a mean month, their cost, and what the better scenario saves."""
    hours = {
        name: [float(own[key].mean()) for key in ("failed_hours", "waiting_hours")]
        for name, own in months.items()
    }
    lines = [
        "",
        f"Hours in a mean month, at {cost:g} each: production failed, changes waited for "
        "production",
        f"  {'':<32} {'failed h':>12} {'waiting h':>14} {'cost':>16}",
    ]
    for name, (failed, waiting) in hours.items():
        total = (failed + waiting) * cost
        lines.append(f"  {table_cell(name)} {failed:>12,.1f} {waiting:>14,.1f} {total:>16,.0f}")
    baseline, *others = hours
    for name in others:
        better, worse = sorted((name, baseline), key=lambda which: sum(hours[which]))
        failed, waiting = np.subtract(hours[worse], hours[better])
        lines.append(
            f"  {table_cell(better).strip()} instead of {table_cell(worse).strip()} saves "
            f"{failed:,.1f} h and {waiting:,.1f} h a month: {(failed + waiting) * cost:,.0f}"
        )
    return lines


def what_if_document(table: pd.DataFrame, seed: int, days: int) -> Dict[str, Any]:
    """Return what `--json` prints of a comparison: the metrics and levels of each scenario."""
    months = {name: months_of(table, name) for name in dict.fromkeys(table["scenario"])}
    baseline = next(iter(months.values()))
    scenarios = {}
    for name, own in months.items():
        metrics: Dict[str, Dict[str, Any]] = {}
        for key, values in own.items():
            metrics[key] = dict(zip(("median", "p5", "p95"), month_spread(values)))
            difference = paired_difference(values, baseline[key])
            metrics[key]["difference"] = dict(zip(("mean", "low", "high"), difference))
        scenarios[name] = {"metrics": metrics, "levels": level_counts(own)}
    runs = int(table["run"].max()) + 1
    document = {
        "version": __version__,
        "seed": seed,
        "runs": runs,
        "days": days,
        "what_if": scenarios,
    }
    return to_jsonable(document)


def draw_what_if(table: pd.DataFrame, dpi: int = 300) -> Figure:
    """The four benchmarks, a card each: the months of each scenario as dots, and the elite line."""
    names = list(dict.fromkeys(table["scenario"]))
    with _theme():
        figure = Figure(figsize=(18, 10), dpi=dpi)
        figure.patch.set_alpha(0)
        for number, key in enumerate(BENCHMARKS):
            ax = figure.add_axes(_card(figure, number, framed=True, columns=2))
            plot_months({name: months_of(table, name)[key] for name in names}, key, ax)
        _fit_panels(figure, range(len(BENCHMARKS)))
    return figure


def plot_months(months: Mapping[str, np.ndarray], key: str, ax: Axes) -> Axes:
    """A dot for each month, the median and the range from 5 % to 95 % of them, a row for each
    scenario, against the elite line."""
    metric, (better, limit, unit) = METRICS[key], BENCHMARKS[key]
    spread = np.random.Generator(np.random.PCG64(0)).uniform(
        -0.28, 0.28, max(map(len, months.values()))
    )
    for place, (values, colour) in enumerate(
        zip(months.values(), sns.color_palette("colorblind", len(months)))
    ):
        known = values[~np.isnan(values)][:500]
        ax.plot(
            known,
            place + spread[: len(known)],
            "o",
            color=colour,
            alpha=0.35,
            markersize=4,
            markeredgewidth=0,
        )
        if len(known):
            middle, low, high = month_spread(values)
            ax.plot(
                [low, high],
                [place, place],
                color=_INK,
                linewidth=2,
                label="5-95% of months" if not place else None,
            )
            ax.plot(
                [middle],
                [place],
                "D",
                color=_INK,
                markersize=8,
                label="median" if not place else None,
            )
    ax.axvline(
        limit, color=_GREEN, linestyle="--", linewidth=1.6, label=f"elite {better}{limit:g}{unit}"
    )
    ax.set(
        title=metric.label,
        xlabel=f"{metric.label} ({unit.strip('/')})" if unit != "/day" else "Deployments a day",
        ylim=(len(months) - 0.4, -0.6),
    )
    ax.set_xlim(left=0)
    ax.set_yticks(range(len(months)))
    ax.set_yticklabels(
        [_label(name, 28) for name in months], fontsize=10.5 if len(months) < 12 else 7
    )
    ax.grid(False, axis="y")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=3)
    return ax


# ---- Recommendations: the smallest change that meets a target -----------------------------------

ODDS = 0.9  # a change is recommended that meets the target in this share of the months
STEPS = 20  # how finely the size of a change is searched


def plain_recommendations(values: Mapping[str, Any]) -> List[str]:
    """Return for each benchmark that is missed by how much, and the cause; one line if none is."""
    causes = {
        "deployment_frequency": frequency_cause,
        "mean_lead_time": lead_time_cause,
        "mttr_minutes": recovery_cause,
        "change_failure_rate": failure_cause,
    }
    missed = [key for key in BENCHMARKS if not is_elite(key, values)]
    lines = [f"{target_gap(key, values)}; {causes[key](values)}" for key in missed]
    return lines or ["None: all four targets are met"]


def target_gap(key: str, values: Mapping[str, Any]) -> str:
    """Return by how much a benchmark is missed."""
    value, target, label = values[key], BENCHMARKS[key], METRICS[key].label
    if math.isnan(value):
        return f"{label} could not be measured"
    missed_by = abs(100 * (value - target.limit) / target.limit)
    if missed_by < 1:
        return f"{label} {show_number(value, target.unit)} just misses the {target} target"
    side = "above" if target.better == "<" else "below"
    limit = f"{target.limit:g}{target.unit}"
    by, shown = show_number(missed_by, "%", 0), show_number(value, target.unit)
    return f"{label} {shown} is {by} {side} the {limit} target"


NOTHING_DEPLOYED = "nothing was deployed in the window: measure more days"
NOT_OBSERVABLE = (
    "the history shows no failed sync: save it more often, and let --repo find what was reverted"
)


def frequency_cause(values: Mapping[str, Any]) -> str:
    """Return why so little is deployed."""
    if not values["total_deployments"]:
        return NOTHING_DEPLOYED
    count = values["total_deployments"]
    return f"{count} deployments in the window: make changes smaller, and promote more often"


def lead_time_cause(values: Mapping[str, Any]) -> str:
    """Return where the lead time goes, or why there is none."""
    if not math.isnan(values["mean_lead_time"]):
        parts = values["lead_time_hours_by_environment"]
        name = max(parts, key=lambda name: parts[name])
        share = show_percent(parts[name], values["mean_lead_time"], 0)
        hours = show_number(parts[name], "h", 1)
        return f"the way into {name} takes {share} of it ({hours}): shorten that wait first"
    if list(values["success_rates"].values())[-1] == 0:
        return "no production deployment succeeded"
    if values["production_deployment_frequency"] > 0:
        return (
            "no commit of the production deployments is known: --repo takes a clone that has them"
        )
    return "no change reached production in the window: measure more days"


def failure_cause(values: Mapping[str, Any]) -> str:
    """Return which environment fails most, and why."""
    rates = {name: rate for name, rate in values["success_rates"].items() if not math.isnan(rate)}
    if not rates:
        return NOT_OBSERVABLE if values["total_deployments"] else NOTHING_DEPLOYED
    worst = min(rates, key=lambda name: rates[name])
    reason = next(iter(values["failure_reasons_by_environment"][worst]), "no reason given")
    return f"{worst} fails most ({show_number(100 - rates[worst], '%', 1)}), most often: {reason}"


def recovery_cause(values: Mapping[str, Any]) -> str:
    """Return why recovery takes long, or could not be measured."""
    if not values["total_deployments"]:
        return NOTHING_DEPLOYED
    if not values["failed_deployments"]:
        return NOT_OBSERVABLE
    if not values["successful_rollbacks"]:
        failed = values["failed_deployments"]
        return f"no rollback of {failed} failures succeeded: keep an earlier good release ready"
    count = values["successful_rollbacks"]
    return f"the mean of the rollbacks that succeeded ({count}): automate them"


class Lever(NamedTuple):
    """A knob that a team can improve."""

    group: str  # of the scenario's groups
    declared: Any  # the dataclass field of the knob

    def value(self, scenario: Scenario) -> Any:
        """Return the knob's value in a scenario."""
        return getattr(scenario.groups[self.group], self.declared.name)

    def apply(self, scenario: Scenario, factor: float) -> Scenario:
        """Return the scenario with the knob improved: 1 leaves it as it is, 0 goes all the way.

        A share moves towards 1, a time towards 0, a policy to the one that ships most per
        deployment.
        """
        value = self.value(scenario)
        if self.declared.name == "promotion":
            value = "newest" if value == "soak" and factor < 1 else value
        elif self.declared.metadata["high"] == 1:
            value = 1 - (1 - value) * factor
        elif isinstance(value, tuple):
            value = tuple(factor * edge for edge in value)
        else:
            value = factor * value
        return scenario.with_knobs(self.group, **{self.declared.name: value})

    def in_words(self, before: Scenario, after: Scenario) -> str:
        """Return the change in words."""
        name = self.group.replace("environments.", "", 1)
        values = (in_words(self.value(scenario)) for scenario in (before, after))
        words = dict(zip(("before", "after"), values), environment=name)
        return self.declared.metadata["phrase"].format(**words)


def in_words(value: Any) -> str:
    """Return the value of a knob in words."""
    if isinstance(value, tuple):
        return f"{value[0]:.3g}-{value[-1]:.3g}"
    return value if isinstance(value, str) else f"{value:.3g}"


def levers_for(scenario: Scenario, metric: str) -> List[Lever]:
    """Return the knobs whose improvement helps a metric and that can still be improved."""
    found = []
    for name, group in scenario.groups.items():
        for declared in dataclasses.fields(group):  # type: ignore[arg-type]
            lever = Lever(name, declared)
            helps = metric in declared.metadata.get("helps", ())
            if helps and lever.apply(scenario, 0) != scenario:
                found.append(lever)
    return found


class Trial(NamedTuple):
    """The simulated months on which changes are tried."""

    window: Window
    runs: int
    seed: int
    progress: Progress = lambda message: None
    noise_of: Callable[[int, int], Noise] = Noise

    @classmethod
    def of(
        cls, window: Window, runs: int, seed: int, progress: Progress = lambda message: None
    ) -> Trial:
        """Make a trial that draws its noise once."""
        return cls(window, runs, seed, progress, functools.lru_cache(maxsize=4)(Noise))

    def months(self, scenario: Scenario) -> Months:
        """Simulate a scenario."""
        return forecast_months(
            {"": scenario}, self.window, self.runs, self.seed, self.progress, self.noise_of
        )[""]


def enough_runs(scenario: Scenario, window: Window) -> int:
    """Return a hundred months, or fewer where a month has so many commits that it hardly varies."""
    commits = window.days * scenario.team.commits_per_day
    return int(np.clip(500_000 / max(commits, 1), 10, 100))


class Advice(NamedTuple):
    """A change that was simulated."""

    words: str
    factor: float  # how far it goes: see `Lever.apply`
    scenario: Scenario
    months: Months


def target_odds(months: Months, metric: str) -> Tuple[int, int]:
    """Return how many months meet the target, and how many have a value at all."""
    known = ~np.isnan(months[metric])
    return int(np.count_nonzero(is_elite(metric, months) & known)), int(np.count_nonzero(known))


def odds_known(months: Months, metric: str) -> bool:
    """Return whether so many months have a value that odds can be told."""
    return target_odds(months, metric)[1] >= min(10, len(months[metric]))


def target_met(months: Months, metric: str) -> bool:
    """Return whether enough months meet the target."""
    met, known = target_odds(months, metric)
    return odds_known(months, metric) and met >= ODDS * known


def try_changes(
    scenario: Scenario, missed: Sequence[str], trial: Trial
) -> Dict[str, Optional[Advice]]:
    """Find for each missed benchmark the smallest change of one knob, else of two, that meets it.

    The target must be met in 90 % of the simulated months in which it has a value. None where no
    such change is known.
    """
    found: Dict[str, Optional[Advice]] = {}
    for metric in missed:
        known = levers_for(scenario, metric)
        choices: List[Advice] = []
        for size in (1, 2):
            if not choices:
                tried = (
                    smallest_change(scenario, metric, chosen, trial)
                    for chosen in itertools.combinations(known, size)
                )
                choices = [advice for advice in tried if advice is not None]
        found[metric] = max(choices, key=lambda advice: advice.factor, default=None)
    return found


def smallest_change(
    scenario: Scenario, metric: str, chosen: Sequence[Lever], trial: Trial
) -> Optional[Advice]:
    """Return the least change on a grid that meets the target, found by halving, or None."""

    def attempt(step: int) -> Optional[Advice]:
        changed = scenario
        for lever in chosen:
            changed = lever.apply(changed, step / STEPS)
        months = trial.months(changed)
        if not target_met(months, metric):
            return None
        first, *others = (lever.in_words(scenario, changed) for lever in chosen)
        words = " and ".join([first, *(text[:1].lower() + text[1:] for text in others)])
        return Advice(words, step / STEPS, changed, months)

    best, low, high = attempt(0), 0, STEPS
    while best and high - low > 1:
        middle = (low + high) // 2
        advice = attempt(middle)
        if advice:
            best, low = advice, middle
        else:
            high = middle
    return best


def tried_recommendations(scenario: Scenario, values: Mapping[str, Any], trial: Trial) -> List[str]:
    """Return the advice of the report.

    For each benchmark that is missed: by how much, the cause, and a simulated change that meets it.
    """
    missed = [key for key in BENCHMARKS if not is_elite(key, values)]
    measured = [key for key in missed if not math.isnan(values[key])]
    if not measured:
        return plain_recommendations(values)
    baseline = trial.months(scenario)
    unlikely = [
        key for key in measured if odds_known(baseline, key) and not target_met(baseline, key)
    ]
    tried = try_changes(scenario, unlikely, trial)
    lines = []
    for key, line in zip(missed, plain_recommendations(values)):
        lines.append(line)
        if key in tried:
            lines.append("  " + advice_line(key, tried[key], baseline))
        elif key in measured:
            lines.append("  " + no_advice_line(key, baseline))
    return lines


def months_met(months: Months, metric: str) -> str:
    """Return in words how many months meet a target."""
    met, known = target_odds(months, metric)
    which = " that have a value" if known < len(months[metric]) else ""
    return f"{met} of {known} simulated months{which}"


def no_advice_line(metric: str, baseline: Months) -> str:
    """Return why nothing was tried."""
    if target_met(baseline, metric):
        met = months_met(baseline, metric)
        return f"Nothing to change: as things are, the target is met in {met}"
    known, runs = target_odds(baseline, metric)[1], len(baseline[metric])
    known_months = f"{known} of {runs} simulated months have a value"
    return f"Nothing was tried: {known_months}; --runs N simulates more"


def advice_line(metric: str, advice: Optional[Advice], baseline: Months) -> str:
    """Return what a change does to a metric."""
    runs = len(baseline[metric])
    if advice is None:
        tried = f"tried on {runs} simulated months"
        return f"{tried}: no change of one or two knobs meets the target in 9 of 10"
    label = METRICS[metric].label
    label = label if label.isupper() else label.lower()
    before = month_spread(baseline[metric])[0]
    after, low, high = month_spread(advice.months[metric])
    elite = level_counts(advice.months)[LEVELS[0].name]
    return (
        f"{advice.words}: {label} {before:.1f} → {show_number(after, BENCHMARKS[metric].unit, 1)} "
        f"({low:.1f}-{high:.1f} in 9 of 10), target met in {months_met(advice.months, metric)}, "
        f"ELITE in {elite} of {runs}"
    )


# ---- Calibration: history -> scenario -----------------------------------------------------------


def fit_scenario(history: History, base: Scenario = Scenario()) -> Tuple[Scenario, List[str]]:
    """(The scenario whose simulation is like the history, what was fitted and from how many
    observations).

    What the history cannot tell keeps the value of `base`, and the list says so. GitOpsError if it
    has no deployment to a known environment.
    """
    used = _used_environments(history)
    team, notes = fit_team(_arrivals(history, used[0]), history.window, base.team)
    environments: List[Environment] = []
    for before, number in zip([-1, *used], used):
        environment, line = _fit_environment(history, number, before, environments, base)
        environments.append(environment)
        notes.append(line)
    rollback, rollback_note = _fit_rollback(history, base.rollback)
    reasons = count_words(history.deployments["failure_reason"])
    reasons_note = (
        f"failure reasons: from {sum(reasons.values())} failures"
        if reasons
        else "failure reasons: none seen, left as they were"
    )
    scenario = Scenario(team, tuple(environments), rollback, reasons or base.failure_reasons)
    return scenario, [*notes, rollback_note, reasons_note]


def _arrivals(history: History, number: int) -> pd.DataFrame:
    """The commits that can come to an environment (with a folder for each environment not all do);
    its deployments where none is known."""
    commits, deployments = history.git_commits, _deployments_to(history, number)
    if history.changes is not None:
        changes = history.changes_to(history.environments[number])
        known = {*changes["commit_sha"], *deployments["commit_sha"].astype(object)}
        commits = commits[commits["sha"].isin(list(known))]
    return commits if len(commits) else deployments


def _used_environments(history: History) -> List[int]:
    seen = count_words(history.deployments["environment"])
    used = [
        number
        for number, name in enumerate(history.environments)
        if name in seen and name != UNCLASSIFIED
    ]
    if not used:
        raise GitOpsError(
            "the history has no deployment to a known environment: there is nothing to fit a "
            "scenario to"
        )
    return used[-50:]


def _deployments_to(history: History, number: int) -> pd.DataFrame:
    return history.deployments[
        has_word(history.deployments["environment"], history.environments[number])
    ]


def fit_team(arrivals: pd.DataFrame, window: Window, base: Team = Team()) -> Tuple[Team, List[str]]:
    """(The team whose commits come like the arrivals, what was fitted from how many).

    A row of arrivals is a commit, or where no commit is known a deployment to the first
    environment.
    """
    seconds = seconds_of(arrivals["timestamp"])
    first, days = int(window.start.timestamp()) // DAY, window.days
    seconds = seconds[(seconds >= first * DAY) & (seconds < (first + days) * DAY)]
    what = (
        "commits"
        if "sha" in arrivals
        else "deployments to the first environment, as no commits are known"
    )
    if not len(seconds):
        return dataclasses.replace(base, commits_per_day=0.0), [
            f"commit rhythm: no {what} in the window"
        ]
    rates, dispersion = _weekday_rates(
        np.bincount(seconds // DAY - first, minlength=days), window.start.weekday()
    )
    shares = {
        column: count_words(arrivals[column])
        for column in ("author", "type", "application")
        if column in arrivals
    }
    team = dataclasses.replace(
        base,
        authors=shares.get("author") or base.authors,
        types=shares.get("type") or base.types,
        applications=shares["application"],
        commits_per_day=float(rates.max()),
        weekday_factors=tuple(rates / rates.max()),
        dispersion=dispersion,
        sprint_ramp=0.0,
        work_hours=observed_range(seconds % DAY / 3600),
    )
    return team, [
        f"commit rhythm by weekday and hour: from {len(seconds)} {what}, {days} days; sprint ramp "
        "not fitted, 0",
        f"applications: {len(team.applications)}; authors: {len(team.authors)}; types: "
        f"{len(team.types)}",
    ]


def _weekday_rates(counts: np.ndarray, first_weekday: int) -> Tuple[np.ndarray, float]:
    """(Commits a day of each weekday, Monday first; variance over mean of the counts around
    them)."""
    weekday = (np.arange(len(counts)) + first_weekday) % 7
    seen = np.bincount(weekday, minlength=7)
    rates = np.bincount(weekday, counts, minlength=7) / np.maximum(seen, 1)
    rates = np.where(seen > 0, rates, rates[seen > 0].mean())
    expected = rates[weekday]
    busy = expected > 0
    free = np.count_nonzero(busy) - np.count_nonzero(rates[seen > 0])
    excess = ((counts - expected)[busy] ** 2 / expected[busy]).sum() / free if free > 0 else 1.0
    return rates, float(np.clip(excess, 1, 1000))


def observed_range(values: np.ndarray, most: int = 101) -> Range:
    """Observed values as the quantiles of a knob; simulated, they are resampled."""
    if not len(values):
        return (0.0, 0.0)
    return tuple(
        np.percentile(values, np.linspace(0, 100, max(2, min(most, len(values))))).tolist()
    )


class _Passages(NamedTuple):
    """How releases came to an environment."""

    waits: np.ndarray  # hours that those which came had waited
    censored: (
        np.ndarray
    )  # hours that the others had waited when a newer one overtook them, or at the end
    overtaking: int  # how many came after a newer one or with it
    soak: bool  # whether none came that a newer one had followed while it waited


def _fit_environment(
    history: History, number: int, before: int, upstream: Sequence[Environment], base: Scenario
) -> Tuple[Environment, str]:
    name, rows = history.environments[number], _deployments_to(history, number)
    default = {environment.name: environment for environment in base.environments}.get(
        name, Environment(name)
    )
    passages = _passages(history, number, before)
    seen = history.failures_observable(name)
    rate = 1 - float(has_word(rows["health"], DEGRADED).mean()) if seen else default.success_rate
    success = "success" if seen else f"success not observable, left at {rate:g}; the rest"
    knobs = dict(
        success_rate=rate, duration_sec=observed_range(rows["duration_sec"].to_numpy(), 101)
    )
    if before >= 0 and len(passages.waits) < len(rows) / 2:
        gate, how = _own_way(history, number, before, upstream, default)
    elif len(passages.waits):
        gate, how = _gate(passages, _train(rows))
    else:
        gate, how = (
            dict(wait_hours=(0.0, 0.0)),
            "wait 0: releases are counted from here, as no commits are known",
        )
    fitted = dataclasses.replace(default, **{"release_every_hours": 0.0, **knobs, **gate})
    return (
        fitted,
        f"{name}: {success} from {len(rows)} deployments; {how}; promotion {fitted.promotion}",
    )


def _gate(passages: _Passages, every: float) -> Tuple[Dict[str, Any], str]:
    """The wait and the promotion of an environment to which the releases of the one before come."""
    waits, censored = passages.waits, passages.censored
    wait, share = (
        (boarding_range(waits, censored, every), 1.0) if every else survival_range(waits, censored)
    )
    gate = dict(
        promotion=_policy(passages), approval_rate=share, release_every_hours=every, wait_hours=wait
    )
    train = f"train every {every:g} h, " if every else ""
    held = f"; {show_number(100 * share, ' %', 1)} come" if share < 1 else ""
    return (
        gate,
        f"{train}wait from {len(waits)} promotions and {len(censored)} releases that did not "
        f"come{held}",
    )


def _train(deployments: pd.DataFrame) -> float:
    """The hours between the departures of a release train; 0 where the releases come at any time.
    Departures are counted from a Monday, so what divides all of them is the time between two; three
    tell it from chance."""
    departures = np.unique(seconds_of(deployments["timestamp"])) - MONDAY
    every = int(np.gcd.reduce(departures)) if len(departures) > 2 else 0
    return every / 3600 if every >= 3600 else 0.0


def boarding_range(
    waits: np.ndarray, censored: np.ndarray, every: float, points: int = 101
) -> Range:
    """The quantiles of the wait before a train, of which one knows only that it was over between
    two departures, or not before the last that left: the distribution that makes this most likely
    (B. W. Turnbull, JRSS B 38, 1976)."""
    least = np.concatenate([waits, censored]) - every
    most = np.concatenate([waits, np.full(len(censored), np.inf)])
    some = slice(None, None, 1 + len(least) // 5000)
    hours = np.linspace(0, waits.max(), 2 * points)
    possible = (hours > least[some, None]) & (hours <= most[some, None])
    possible = possible[possible.any(axis=1)]
    chance = np.full(len(hours), 1 / len(hours))
    for _ in range(300):
        weight = possible * chance
        chance = (weight / weight.sum(axis=1, keepdims=True)).mean(axis=0)
    return tuple(np.interp(np.linspace(0, 1, points), np.cumsum(chance), hours).tolist())


def _policy(passages: _Passages) -> str:
    """Whether releases that a newer one has overtaken come all the same, as a rule, or not even
    followed ones."""
    if passages.soak:
        return "soak"
    return "each" if passages.overtaking >= len(passages.censored) else "newest"


def _own_way(
    history: History,
    number: int,
    before: int,
    upstream: Sequence[Environment],
    default: Environment,
) -> Tuple[Dict[str, Any], str]:
    """The gate of an environment that has commits of its own (a folder for each environment, say):
    it takes a share of the releases, and the time from a commit to it, less what the way up to here
    takes."""
    healthy = int(has_word(_deployments_to(history, before)["health"], HEALTHY).sum())
    share = min(1.0, len(_deployments_to(history, number)) / max(healthy, 1))
    gate: Dict[str, Any] = dict(promotion="each", approval_rate=share)
    how = (
        f"its releases are not those of {history.environments[before]}: {100 * share:.0f} % as many"
    )
    hours = _newest_changes(history, number)
    if not len(hours):
        return gate, f"{how}; wait not known, left as it was"
    passed = sum(float(np.mean(environment.wait_hours)) for environment in upstream)
    gate["wait_hours"] = observed_range(np.maximum(hours - passed, 0))
    return gate, f"{how}; wait from {len(hours)} releases"


def _newest_changes(history: History, number: int) -> np.ndarray:
    """Hours from the newest commit of each release of an environment to its deployment."""
    if history.changes is None:
        return np.empty(0)
    changes = history.changes_to(history.environments[number])
    newest = changes.groupby(["application", "deployed"])["committed"].max().reset_index()
    return np.maximum((seconds_of(newest["deployed"]) - seconds_of(newest["committed"])) / 3600, 0)


def _passages(history: History, number: int, before: int) -> _Passages:
    """How the releases of the environment before (-1: the commits) came to an environment."""
    end, keys = int(history.window.end.timestamp()), ["application", "commit"]
    here = _releases_of(_deployments_to(history, number), done=False)
    releases = _commits_to(history, number) if before < 0 else _healthy(history, before)
    releases = releases.merge(here.rename(columns={"time": "start"}), how="left", on=keys)
    application = pd.factorize(releases["application"])[0]
    commit = pd.Index(history.git_commits["sha"]).get_indexer(
        releases["commit"]
    )  # tells which release is newer
    order = np.lexsort((releases["time"], commit, application))
    arrival = releases["time"].to_numpy(np.int64)[order]
    start = releases["start"].fillna(NEVER).to_numpy(np.int64)[order]
    overtaken, followed = (
        earliest_of_newer(times, application[order]) for times in (start, arrival)
    )
    went = start < NEVER
    # without a soak time some come although a newer one follows, where others do not come at all
    soak = (
        before >= 0
        and not (went & (followed < start)).any()
        and bool((~went & (followed < end)).sum() >= 10)
    )
    limit = np.minimum(followed if soak else overtaken, end)
    left = ~went & (limit > arrival)
    waits = np.maximum(start - arrival, 0)[went] / 3600
    overtaking = int((went & (start >= overtaken)).sum())
    return _Passages(waits, (limit - arrival)[left] / 3600, overtaking, soak)


def _releases_of(deployments: pd.DataFrame, done: bool) -> pd.DataFrame:
    """A row for each release: application, commit, and the time (seconds) of its first deployment,
    or of its end."""
    frame = pd.DataFrame(
        {
            "application": deployments["application"].astype(object).to_numpy(),
            "commit": deployments["commit_sha"].astype(object).to_numpy(),
            "time": seconds_of(deployments["timestamp"])
            + done * deployments["duration_sec"].to_numpy(),
        }
    )
    return frame.drop_duplicates(["application", "commit"])


def _healthy(history: History, number: int) -> pd.DataFrame:
    rows = _deployments_to(history, number)
    return _releases_of(rows[has_word(rows["health"], HEALTHY)], done=True)


def _commits_to(history: History, number: int) -> pd.DataFrame:
    """The commits that can come to the first environment, in the form of `_releases_of`."""
    if history.changes is None:
        commits = history.git_commits.rename(columns={"sha": "commit", "timestamp": "time"})
    else:
        commits = history.changes_to(history.environments[number])
        commits = commits.rename(columns={"commit_sha": "commit", "committed": "time"})
    return commits[["application", "commit", "time"]].assign(
        application=commits["application"].astype(object), time=seconds_of(commits["time"])
    )


def survival_range(
    waits: np.ndarray, censored: np.ndarray, points: int = 101
) -> Tuple[Range, float]:
    """(The quantiles of a wait of which some are only known to be longer, the share that comes at
    all: E. L. Kaplan and P. Meier, JASA 53, 1958). Releases with a long wait are overtaken more
    often: the observed waits alone would be too short. Those of which nothing is known but that
    they waited longer than all that came are taken for held back for good."""
    hours = np.concatenate([waits, censored])
    event = np.concatenate([np.ones(len(waits)), np.zeros(len(censored))])
    order = np.lexsort((1 - event, hours))
    hours, event = hours[order], event[order]
    gone = 1 - np.cumprod(1 - event / np.arange(len(hours), 0, -1))
    edges = np.interp(np.linspace(0, gone[-1], points), gone[event > 0], hours[event > 0])
    return tuple(edges.tolist()), min(float(gone[-1]), 1.0)


def _fit_rollback(history: History, base: RollbackPolicy) -> Tuple[RollbackPolicy, str]:
    rollbacks = history.rollbacks
    if not len(rollbacks):
        return base, "rollback: none seen, left as it was"
    fitted = RollbackPolicy(
        observed_range(rollbacks["duration_min"].to_numpy()), float(rollbacks["success"].mean())
    )
    return fitted, f"rollback: from {len(rollbacks)} rollbacks"


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
    _real: Optional[History]  # what load_argocd_history read
    _commits_are_real: bool
    flow: Optional[pd.DataFrame]  # what became of the releases (see `simulate_deployments`)
    measured: Any  # the Metrics that `metrics` is the dict of

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
        self._end = window_end(end)
        self._store(git_commits=None, window=None)

    def _store(self, **results: Any) -> None:
        """Store what a step made, and drop what later steps made of the old one."""
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
        """The applications of the scenario and of the commits; of Argo CD, those that it has."""
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
        print_text(f"  ✓ Generated {len(self.git_commits)} commits")
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
        print_text(f"  ✓ Read {len(commits)} commits")
        return commits

    def load_argocd_history(
        self,
        files: Sequence[Union[str, os.PathLike]],
        repo: Union[None, str, os.PathLike] = None,
        *,
        rules: EnvironmentRules = EnvironmentRules(),
    ) -> pd.DataFrame:
        """Read real deployments in the place of the three simulations: the `deployments` table.

        `files` are JSON documents of Argo CD applications ("-" is standard input), `repo` is a
        clone of the config repository, `rules` tell the environment. Next comes
        `calculate_dora_metrics()`. GitOpsError for a file that is none, naming the entry at fault.
        """
        print_text("\n📡 Reading Argo CD history...")
        listed = [files] if isinstance(files, (str, os.PathLike)) else list(files)
        history = load_argocd(listed, repo, rules)
        self._store(git_commits=history.git_commits, window=history.window)
        self.deployments, self.rollbacks, self._real = (
            history.deployments,
            history.rollbacks,
            history,
        )
        print_text(
            f"  ✓ Read {len(self.deployments)} deployments and {len(self.rollbacks)} rollbacks"
        )
        return self.deployments

    def simulate_deployments(self) -> pd.DataFrame:
        """Take the commits through the environments: the `deployments` table."""
        commits = self._need("git_commits")
        print_text("\n🚀 Simulating deployments...")
        deployments, flow = simulate_deployments(commits, self.scenario, self.window, self.seed)
        self._store(deployments=deployments)
        self.flow = flow
        print_text(f"  ✓ Simulated {len(deployments)} deployments")
        healthy = deployments[has_word(deployments["health"], HEALTHY)]
        counts, good = (count_words(table["environment"]) for table in (deployments, healthy))
        for name in self.environments:
            count = counts.get(name, 0)
            print_text(
                f"    • {name}: {count} deployments, "
                f"{show_percent(good.get(name, 0), count)} success"
            )
        return deployments

    def simulate_rollbacks(self) -> pd.DataFrame:
        """Roll failed deployments back, and tell `on_rollback` of each: the `rollbacks` table."""
        deployments = self._need("deployments")
        print_text("\n🔄 Simulating automated rollbacks...")
        self._store(rollbacks=simulate_rollbacks(deployments, self.scenario.rollback, self.seed))
        print_text(f"  ✓ Executed {len(self.rollbacks)} rollbacks")
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
        print_text("\n".join(metric_step_lines(self.metrics)))
        return self.metrics

    def generate_report(self) -> None:
        """Print the report."""
        self._need("metrics")
        scenario = self.scenario if self._real is None else None
        report = Report(self.measured, self.flow, self.seed, scenario, self._advice())
        print_text("\n" + format_report(report))

    def visualize_metrics(self, dpi: int = 300) -> Path:
        """Draw the dashboard into `gitops_dashboard.png` in the output folder; return its path.

        In a notebook the picture is shown as well, once, wherever in the cell the call stands.
        """
        self._need("metrics")
        check_whole("dpi", dpi, 10, 1200)
        print_text("\n📊 Creating visualizations...")
        picture = render_png(draw_dashboard(self.measured, dpi))
        path = write_files(self.output_dir, {"gitops_dashboard.png": picture})[0]
        print_text(f"✓ Visualization saved as '{one_line(path)}'")
        show_in_notebook(picture)
        return path

    def what_if(
        self, scenarios: Mapping[str, Scenario], runs: int = 200, days: int = 30
    ) -> pd.DataFrame:
        """Simulate the baseline and other scenarios over the same months: a tidy table.

        A row is a metric of a run of a scenario: `scenario`, `run`, `metric` (of
        `FORECAST_METRICS`), `value`. The first scenario is `baseline` (see `fit`). `days` is the
        length of a month. GitOpsError for arguments that cannot be used.
        """
        check_whole("runs", runs, 2, MOST_RUNS)
        if not isinstance(scenarios, Mapping):
            raise GitOpsError(
                f"what_if takes {{name: Scenario}}, such as PRESETS, not {in_quotes(scenarios)}"
            )
        for name, scenario in scenarios.items():
            check_instance(f"the scenario {in_quotes(name)}", scenario, Scenario)
        if "baseline" in scenarios:
            raise GitOpsError("baseline is what the scenarios are compared with: take another name")
        window = Window.before(
            self._end or (utc_today() if self.window is None else self.window.end), days
        )
        compared = {"baseline": self.fit()[0], **scenarios}
        with terminal_progress() as progress:
            return what_if(compared, window, runs, self.seed, progress)

    def fit(self) -> Tuple[Scenario, List[str]]:
        """Return the baseline of forecasts, and what was fitted from how many observations.

        It is fitted to the Argo CD history that was loaded, or its team to the repository.
        Otherwise it is the scenario of this object.
        """
        if self._real is not None:
            return fit_scenario(self._real, self.scenario)
        if self._commits_are_real:
            team, notes = fit_team(self.git_commits, self.window, self.scenario.team)
            return dataclasses.replace(self.scenario, team=team), notes
        return self.scenario, []

    def _advice(self) -> List[str]:
        """Return the recommendations, tried on simulated windows of at most a month."""
        try:
            scenario = self.fit()[0]
        except GitOpsError:  # nothing to fit: what follows from the metrics is all that can be said
            return plain_recommendations(self.metrics)
        window = Window.before(self.window.end, min(self.window.days, 30))
        runs = self.advice_runs or enough_runs(scenario, window)
        with terminal_progress() as progress:
            return tried_recommendations(
                scenario, self.metrics, Trial.of(window, runs, self.seed, progress)
            )

    def export(self) -> List[Path]:
        """Write the tables as CSV and the metrics as JSON into the output folder: their paths."""
        document = self.document()
        return write_files(self.output_dir, export_files(self.measured, document))

    def document(self) -> Dict[str, Any]:
        """Return the metrics, the maturity, the seed and the window as plain JSON values."""
        self._need("metrics")
        return summary_document(self.measured, self.seed if self._real is None else None, self.flow)

    def production_metrics(self) -> pd.DataFrame:
        """Return dora.dev's five metrics of production (see the function of this name)."""
        return production_metrics(self.history)


@contextlib.contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Tell a terminal how far long work is, from its third second on; clean up at the end."""
    quiet_until = monotonic() + 2

    def tell(message: str) -> None:
        if sys.stderr is not None and sys.stderr.isatty() and monotonic() > quiet_until:
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
  python gitops_automation.py --repo ../shop         the commits of a real repository
  argocd app list -o json | python gitops_automation.py --argocd - --repo ../config
  python gitops_automation.py --print-config > team.json
  python gitops_automation.py --config team.json     your own rates, waits and team
  python gitops_automation.py --what-if production.wait_hours=4:12 --what-if traditional
  python gitops_automation.py --json --no-dashboard  the numbers for another program

The simulated days end yesterday (UTC) unless --end says otherwise. Exit status: 0 done,
2 unusable input, 130 interrupted.
"""


class OptionParser(argparse.ArgumentParser):
    """A parser whose errors are ours: one line, with what to do."""

    def error(self, message: str) -> Any:
        dash = "; a value that begins with - needs =, as --option=-value"
        hint = dash * ("expected one argument" in message)
        raise GitOpsError(f"{one_line(message, 500)}{hint}; -h lists the options")


def whole_option(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number between two bounds."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not low <= int(text) <= high:
            rule = f"must be a whole number from {low} to {high}, not {in_quotes(text)}"
            raise argparse.ArgumentTypeError(rule)
        return int(text)

    return convert


def price_option(text: str) -> float:
    """Return the value of an option that is a price: an argparse type."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise argparse.ArgumentTypeError(f"must be a number such as 120, not {in_quotes(text)}")
    return float(text)


# fmt: off
OPTIONS: Dict[str, List[Tuple[str, Dict[str, Any], str]]] = {
    "what is simulated": [
        ("--days", dict(metavar="N", type=whole_option(1, MOST_DAYS)),
         "length of the window in whole UTC days (default: 30)"),
        ("--end", dict(metavar="DATE"),
         "the day after the window, YYYY-MM-DD (default: today; with --repo: the day after its "
         "newest commit)"),
        ("--seed", dict(metavar="N", type=whole_option(0, 2**63 - 1)),
         "repeat the run with this seed (default: a new one, printed in the report)"),
        ("--config", dict(metavar="FILE"),
         "a scenario as JSON; what it leaves out keeps its default"),
        ("--print-config", dict(action="store_true"), "print the scenario as JSON and stop"),
        ("--repo", dict(metavar="DIR"), "take the real commits of this git repository"),
    ],
    "your own Argo CD": [
        ("--argocd", dict(metavar="FILE", nargs="+"),
         "measure the history in these JSON files (`argocd app list -o json`; - is standard "
         "input); --repo is then the config repository"),
        ("--environment", dict(metavar="NAME"),
         "the environment of all of them (one Argo CD for each environment)"),
        ("--environment-label", dict(metavar="KEY"),
         "the label or annotation that names the environment"),
        ("--environment-pattern", dict(metavar="REGEX"),
         "a pattern on the name with a group that is the environment"),
    ],
    "what if": [
        ("--what-if", dict(metavar="CHANGE", action="append"),
         "compare with KNOB=VALUE[,...] (production.wait_hours=4:12 or =*0.5), a preset "
         "(traditional, elite, gitops) or a JSON file; repeatable"),
        ("--runs", dict(metavar="N", type=whole_option(2, MOST_RUNS)),
         "simulated months for each scenario (default: 200; for the recommendations 100)"),
        ("--cost-per-hour", dict(metavar="N", type=price_option),
         "with --what-if: what an hour of failed state or of waiting costs"),
    ],
    "what comes out": [
        ("--output", dict(metavar="DIR", default="output"),
         "folder for the files (default: output)"),
        ("--dpi", dict(metavar="N", default=300, type=whole_option(10, 1200)),
         "resolution of the dashboard (default: 300, 5400 x 3000 pixels)"),
        ("--no-dashboard", dict(action="store_true"), "draw no dashboard"),
        ("--export", dict(action="store_true"),
         "write the tables as CSV and the metrics as JSON too"),
        ("--json", dict(action="store_true"), "print one JSON object in the place of the report"),
        ("--quiet", dict(action="store_true"),
         "print nothing but warnings and errors (and what --json prints)"),
        ("--alert-webhook", dict(metavar="URL"),
         "POST each rollback to this Slack or Mattermost style webhook"),
        ("--version", dict(action="version", version=f"%(prog)s {__version__}"),
         "show the version and stop"),
    ],
}
# fmt: on
"""{group: its options, each with its settings for argparse and its meaning}"""


def option_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = OptionParser(
        prog="gitops_automation.py",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
        description="Simulate a GitOps delivery pipeline, measure it with the DORA metrics, report "
        "and draw it.",
    )
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for name, settings, meaning in options:
            group.add_argument(name, help=meaning, **settings)
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Reject meaningless combinations of options."""
    given = {name for name, value in vars(options).items() if value is not None}
    wrong, why = {"environment", "environment_label", "environment_pattern"}, "needs --argocd FILE"
    if options.argocd:
        wrong = {"end", "config", "alert_webhook"} | ({"days"} if not options.what_if else set())
        why = "has no meaning with --argocd: the history says what happened, and when"
    if options.what_if and options.alert_webhook is not None:
        wrong, why = {"alert_webhook"}, "has no meaning with --what-if: nothing is rolled back"
    if options.cost_per_hour is not None and not options.what_if:
        wrong, why = {"cost_per_hour"}, "needs --what-if CHANGE"
    for name in sorted(wrong & given):
        raise GitOpsError(f"--{name.replace('_', '-')} {why}")


def check_folder(folder: Path) -> None:
    """Refuse an output folder that cannot be written, before the work and not after it."""
    with contextlib.suppress(OSError, ValueError):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if existing.is_dir() and os.access(existing, os.W_OK):
            return
    raise GitOpsError(f"cannot write into {one_line(folder)}; --output takes a folder")


def run_options(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    check_options(options)
    scenario = Scenario() if options.config is None else read_scenario(options.config)
    if options.print_config:
        return print_text(scenario.to_json())
    alerts = None if options.alert_webhook is None else WebhookAlerts(options.alert_webhook)
    gitops = GitOpsAutomation(
        scenario, seed=options.seed, end=options.end, output_dir=options.output, on_rollback=alerts
    )
    gitops.advice_runs = options.runs
    check_folder(gitops.output_dir)
    hidden = options.quiet or options.json
    with contextlib.redirect_stdout(io.StringIO()) if hidden else contextlib.nullcontext():
        print_text("🔄 GitOps Workflow Automation with ArgoCD\n" + DOUBLE_LINE)
        document = (
            compare_scenarios(gitops, options)
            if options.what_if
            else report_history(gitops, options)
        )
    if alerts is not None and alerts.problem:
        count = alerts.undelivered
        print_problem(
            "warning", f"{count} rollback alerts did not reach {alerts.host}: {alerts.problem}"
        )
    if options.json:
        print_text(json.dumps(document, indent=2))


def load_real_history(gitops: GitOpsAutomation, options: argparse.Namespace) -> None:
    """Read the real history that the options name, if they name one."""
    if options.argocd:
        rules = EnvironmentRules(
            options.environment, options.environment_label, options.environment_pattern
        )
        gitops.load_argocd_history(options.argocd, options.repo, rules=rules)
    elif options.repo is not None:
        gitops.load_git_history(options.repo, options.days or 30)


def report_history(gitops: GitOpsAutomation, options: argparse.Namespace) -> Dict[str, Any]:
    """Measure, print and draw a history; return the document of `--json`."""
    load_real_history(gitops, options)
    if not options.argocd:
        if options.repo is None:
            gitops.simulate_git_activity(options.days or 30)
        gitops.simulate_deployments()
        gitops.simulate_rollbacks()
    gitops.calculate_dora_metrics()
    gitops.generate_report()
    if not options.no_dashboard:
        gitops.visualize_metrics(options.dpi)
    if options.export:
        print_text(f"✓ Exported {', '.join(path.name for path in gitops.export())}")
    print_text("\n✅ GitOps automation complete!\n")
    print_text(format_summary(gitops.measured))
    return gitops.document()


def compare_scenarios(gitops: GitOpsAutomation, options: argparse.Namespace) -> Dict[str, Any]:
    """Print and draw a comparison of scenarios; return the document of `--json`."""
    load_real_history(gitops, options)
    baseline, notes = gitops.fit()
    if notes:
        print_text("\n🔧 Fitting the baseline to this history...")
        print_text("\n".join(f"  • {note}" for note in notes))
    days = options.days or 30
    scenarios = {text: named_scenario(text, baseline) for text in options.what_if}
    table = gitops.what_if(scenarios, options.runs or 200, days)
    measured = calculate_dora_metrics(gitops.history) if options.argocd else None
    print_text("\n" + format_what_if(table, gitops.seed, days, options.cost_per_hour, measured))
    files = {}
    if not options.no_dashboard:
        files["gitops_what_if.png"] = render_png(draw_what_if(table, options.dpi))
    if options.export:
        files["what_if.csv"] = table.to_csv(index=False).encode()
    if files:
        paths = write_files(gitops.output_dir, files)
        saved = ", ".join(f"'{one_line(path)}'" for path in paths)
        print_text(f"\n✓ Saved as {saved}")
    show_in_notebook(files.get("gitops_what_if.png"))
    return what_if_document(table, gitops.seed, days)


def print_problem(kind: str, message: str) -> int:
    """Print a warning or an error on standard error; return the exit status of an error."""
    sys.stderr.write(f"gitops_automation.py: {kind}: {one_line(message, 8000)}\n")
    return 2


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the program; in a notebook, without the kernel's own arguments.

    Raises SystemExit (in a notebook GitOpsError) only if something is wrong.
    """
    if notebook_kernel() is not None:
        return run_options(option_parser().parse_args(argv or []))
    try:
        try:
            run_options(option_parser().parse_args(argv))
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


if __name__ == "__main__":
    if notebook_kernel() is None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
