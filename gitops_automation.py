# /// script
# requires-python = ">=3.8"
# dependencies = ["numpy>=1.21", "pandas>=1.3", "matplotlib>=3.4", "seaborn>=0.11"]
# ///
"""Simulate a GitOps delivery pipeline, or read a real one's history, and measure it with the DORA metrics.

Commits flow through dev, staging and production the way Argo CD syncs them, failed syncs are
rolled back, and what happened is measured, reported and drawn; and what would happen if some of it
were changed is forecast. Three uses that count equally::

    python gitops_automation.py                  # the report, and output/gitops_dashboard.png
    (paste this whole file into a notebook cell)
    from gitops_automation import GitOpsAutomation

The data is the architecture: three tables, `git_commits`, `deployments` and `rollbacks` (their
columns: `COLUMNS`). Each section produces one of them, simulated or read from real history, and
what comes after cannot tell which. Top-down, as the data flows:

    Vocabulary            the words and tables every layer shares
    Scenario              every knob, in one place
    Git layer             -> commits; a repository -> commits
    Deployment engine     commits -> deployments; Argo CD -> deployments and rollbacks
    Rollback manager      deployments -> rollbacks
    DORA calculator       history -> metrics; history -> production, as dora.dev defines it
    Reporting engine      metrics -> console; metrics -> dashboard
    What-if               scenarios -> months; tried recommendations; history -> scenario
    GitOpsAutomation      the whole pipeline, a method for each step
    Command line

Times are UTC, whole seconds (as git and Argo CD keep them). A run is a function of its seed, its
window and its scenario. What is undefined is NaN in Python, `n/a` in print and `null` in JSON.
"""

from __future__ import annotations

import argparse
import bisect
import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import difflib
import functools
import gc
import hashlib
import heapq
import http.client
import io
import itertools
import json
import math
import numbers
import os
import posixpath
import re
import reprlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
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
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during these imports ends quietly, too

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import dates as mdates
from matplotlib import patches
from matplotlib import style as mpl_style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import EngFormatter, MaxNLocator
from matplotlib.transforms import Bbox
from PIL import Image  # matplotlib itself requires and uses Pillow to write PNG files

__version__ = "1.0.0"
__all__ = [
    "GitOpsAutomation",
    "GitOpsError",
    "Scenario",
    "Team",
    "Environment",
    "RollbackPolicy",
    "History",
    "Window",
    "EnvironmentRules",
    "PRESETS",
    "fit_scenario",
    "production_metrics",
    "calculate_dora_metrics",
    "calculate_maturity",
    "check_history",
]

# ---- Vocabulary: the words and tables every layer shares ------------------------------------------

SYNCED, FAILED = "Synced", "Failed"  # Argo CD's outcome of a sync operation
HEALTHY, DEGRADED = "Healthy", "Degraded"  # Argo CD's health of the application after it
PROMOTIONS = ("each", "newest", "soak")

COLUMNS: Dict[str, Dict[str, str]] = {
    "git_commits": {
        "sha": "text",
        "timestamp": "time",
        "author": "word",
        "type": "word",
        "application": "word",
        "branch": "word",
        "message": "text",
        "files_changed": "count",
    },
    "deployments": {
        "timestamp": "time",
        "application": "word",
        "environment": "word",
        "commit_sha": "word",
        "status": "word",
        "health": "word",
        "duration_sec": "count",
        "failure_reason": "word",
    },
    "rollbacks": {
        "timestamp": "time",
        "application": "word",
        "environment": "word",
        "from_commit": "text",
        "to_commit": "text",
        "reason": "word",
        "duration_min": "number",
        "success": "flag",
    },
}
"""The public contract: for each table its columns, in order, and what each holds. A `word` column is
categorical: it has few distinct values, or is a key that joins."""

_DAY = 86_400
_NEVER = 1 << 40  # seconds: later than any time of a window, and small enough to stack runs and lineages
_MONDAY = 4 * _DAY  # 1970-01-05, the first Monday
_FIRST_DAY, _LAST_DAY = pd.Timestamp("1970-01-01", tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC")
_LAST_SECOND = int(_LAST_DAY.timestamp()) - 1
_MOST_COMMITS = 100_000_000
_MOST_RUNS = 100_000


class GitOpsError(ValueError):
    """Unusable input. The message is one line: what is wrong, the value, and what to do."""


class Window(NamedTuple):
    """The whole UTC days that are measured: from `start` to just before `end`."""

    start: pd.Timestamp
    end: pd.Timestamp

    @property
    def days(self) -> int:
        return (self.end - self.start).days

    @property
    def last(self) -> pd.Timestamp:
        """The last day that is in it."""
        return self.end - pd.Timedelta(days=1)

    @classmethod
    def before(cls, end: pd.Timestamp, days: int) -> Window:
        """The `days` whole days before `end`; GitOpsError if `days` is no positive whole number."""
        if not isinstance(days, numbers.Integral) or isinstance(days, bool) or days < 1:
            raise GitOpsError(f"days must be a positive whole number, not {days!r}; try 30")
        if days > (end - _FIRST_DAY).days:
            raise GitOpsError(f"days reaches back before 1970: {days}; choose fewer days or a later end")
        return cls(end - pd.Timedelta(days=int(days)), end)


class History(NamedTuple):
    """What happened: the three tables, the window they cover and the environments in promotion order.

    The rest is known of real deployments alone. `changes`: a row is a commit in the first deployment
    to an environment that contains it (application, environment, commit_sha, committed, deployed); `deployed`
    is missing where production has it not yet, but another environment has.
    `coverage`: a row is a span of time that the history of an Argo CD application really covers
    (application, environment, rule, from, to, truncated, syncs, deployments, argocd_name,
    failures_observable); more than one where snapshots leave gaps. `undated`: how many revisions could not
    be dated, by reason.
    """

    git_commits: pd.DataFrame
    deployments: pd.DataFrame
    rollbacks: pd.DataFrame
    window: Window
    environments: Tuple[str, ...]
    changes: Optional[pd.DataFrame] = None
    coverage: Optional[pd.DataFrame] = None
    undated: Mapping[str, int] = {}

    @property
    def production(self) -> str:
        return self.environments[-1]

    def failures_observable(self, environment: str) -> bool:
        """Whether a failure in an environment could have been seen. Argo CD's own history has the
        successful syncs alone; it can where one was seen, or where commits are known, and reverts with them."""
        return self.coverage is None or bool(self.covered(environment)["failures_observable"].any())

    def covered(self, environment: str) -> pd.DataFrame:
        """The spans of `coverage` of an environment."""
        assert self.coverage is not None
        return self.coverage[self.coverage["environment"] == environment]

    def changes_to(self, environment: str) -> pd.DataFrame:
        """The rows of `changes` of an environment."""
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
        """Tables from anywhere (an export read back, say), normalised."""
        return cls(
            as_table("git_commits", git_commits),
            as_table("deployments", deployments),
            as_table("rollbacks", rollbacks),
            window,
            tuple(environments),
        )


def as_table(name: str, columns: Union[pd.DataFrame, Mapping[str, Any]]) -> pd.DataFrame:
    """The one door through which every table comes: columns of `COLUMNS[name]`, in order, each of its
    kind, times UTC in nanoseconds. Raises GitOpsError for a missing column or a value of another kind."""
    missing = [column for column in COLUMNS[name] if column not in columns]
    if missing:
        raise GitOpsError(f"table {name} has no column {missing[0]!r}; it needs {', '.join(COLUMNS[name])}")
    data = {column: _of_kind(kind, columns[column], f"{name}.{column}") for column, kind in COLUMNS[name].items()}
    return pd.DataFrame(data)


def _of_kind(kind: str, values: Any, where: str) -> Any:
    try:
        if kind == "time":
            return _as_times(values)
        if kind == "word":
            return values if isinstance(values, pd.Categorical) else _as_words(values)
        dtype = {"text": object, "count": "int64", "number": "float64", "flag": "bool"}[kind]
        return pd.Series(np.asarray(values), dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise GitOpsError(f"table column {where} does not hold {kind} values: {_one_line(error)}") from None


def _as_words(values: Any) -> pd.Categorical:
    words = pd.Categorical(values)
    return words.rename_categories(pd.Index([str(word) for word in words.categories], dtype=object))


def _as_times(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.dtype == np.int64:
        return _utc(values)
    return pd.Series(pd.to_datetime(np.asarray(values), utc=True)).astype("datetime64[ns, UTC]").array


def _utc(seconds: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex((seconds * 1_000_000_000).view("M8[ns]")).tz_localize("UTC")


def _seconds(times: Union[pd.Series, pd.DatetimeIndex]) -> np.ndarray:
    """Whole seconds since 1970: what the layers calculate with, exact where floats are not."""
    return times.to_numpy("M8[ns]").view("int64") // 1_000_000_000


def _words(codes: np.ndarray, words: Sequence[str]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories=pd.Index(list(words), dtype=object))


def _codes(column: pd.Series, words: Union[Sequence[str], pd.Series]) -> np.ndarray:
    """Each value as its position in `words`; -1 where it is none of them."""
    codes, categories = column.cat.codes.to_numpy(), column.cat.categories.to_numpy()
    words = np.asarray(words, dtype=object)
    if np.array_equal(categories, words):  # spares a hash table of a million keys
        return codes
    return np.append(pd.Index(words).get_indexer(pd.Index(categories, dtype=object)), -1)[codes]


def _is(column: pd.Series, word: str) -> np.ndarray:
    categories = list(column.cat.categories)
    return column.cat.codes.to_numpy() == (categories.index(word) if word in categories else len(categories))


def _one_line(text: object, width: int = 200) -> str:
    """Untrusted text for one terminal line: no control character, no line end, not endless."""
    line = " ".join(_printable(str(text)[: 10 * width]).split()) or "(nothing)"
    return line if len(line) <= width else line[: width - 4] + " ..."


def _quote(value: object) -> str:
    """An untrusted value for a message, however long or deep it is."""
    return _one_line(_SHORT.repr(value))


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 120


def _printable(text: str, keep: str = "") -> str:
    """Text with a space for every character that could steer a terminal or hide, but for those to keep."""
    unsafe = {character for character in set(text) - set(keep) if unicodedata.category(character) in _UNSAFE}
    odd = dict.fromkeys(map(ord, unsafe), " ")
    return text.translate(odd) if odd else text


_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, invisible formats, halves of pairs, line ends


def check_history(history: History) -> None:
    """Assert every invariant of the tables; AssertionError names the first that does not hold."""
    for name, columns in COLUMNS.items():
        table = getattr(history, name)
        assert list(table.columns) == list(columns), f"{name}: columns"
        assert str(table["timestamp"].dtype) == "datetime64[ns, UTC]", f"{name}: times are not UTC nanoseconds"
        assert table["timestamp"].is_monotonic_increasing, f"{name}: not sorted by timestamp"
    _check_commits(history.git_commits)
    _check_deployments(history.deployments, history)
    _check_rollbacks(history.rollbacks, history)


def _check_commits(commits: pd.DataFrame) -> None:
    assert commits["sha"].is_unique, "git_commits: a sha twice"
    assert commits["sha"].map(re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?").fullmatch).notna().all(), (
        "git_commits: a bad sha"
    )
    assert (commits["files_changed"] >= 0).all(), "git_commits: negative files_changed"
    assert commits[["author", "type", "application", "branch"]].notna().all(axis=None), "git_commits: a gap"


def _check_deployments(deployments: pd.DataFrame, history: History) -> None:
    failed = deployments["health"] == DEGRADED
    start, end = history.window
    assert deployments["environment"].isin(history.environments).all(), "deployments: unknown environment"
    assert deployments["status"].isin([SYNCED, FAILED]).all(), "deployments: unknown status"
    assert deployments["health"].isin([HEALTHY, DEGRADED]).all(), "deployments: unknown health"
    assert failed[deployments["status"] == FAILED].all(), "deployments: a failed sync is Healthy"
    assert (deployments["failure_reason"].notna() == failed).all(), "deployments: reasons are not those of the failures"
    assert (deployments["duration_sec"] >= 0).all(), "deployments: negative duration"
    assert deployments[["application", "commit_sha"]].notna().all(axis=None), "deployments: a gap"
    assert deployments["timestamp"].between(start, end).all(), "deployments: outside the window"
    assert (deployments["timestamp"] < end).all(), "deployments: a sync that starts at the end or later"


def _check_rollbacks(rollbacks: pd.DataFrame, history: History) -> None:
    assert rollbacks["environment"].isin(history.environments).all(), "rollbacks: unknown environment"
    assert (rollbacks["duration_min"] >= 0).all(), "rollbacks: negative duration"
    assert rollbacks[["application", "from_commit", "to_commit", "reason"]].notna().all(axis=None), "rollbacks: a gap"
    assert len(rollbacks) <= (history.deployments["health"] == DEGRADED).sum(), "rollbacks: more than failures"


# ---- Scenario: every knob, in one place -----------------------------------------------------------

Range = Tuple[float, ...]
"""A distribution given by evenly spaced quantiles: (low, high) is uniform between the two; more
values follow the observations they were taken from."""


def _number(name: str, value: Any, low: float = 0.0, high: float = 1e6) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= value <= high:  # type: ignore[operator]
        raise GitOpsError(f"{name} must be a number from {low:g} to {high:g}, not {_quote(value)}")
    return float(value) if not isinstance(value, numbers.Integral) else int(value)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= value <= high:  # type: ignore[operator]
        raise GitOpsError(f"{name} must be a whole number from {low} to {high}, not {_quote(value)}")
    return int(value)


def _list(name: str, values: Any) -> List[Any]:
    if isinstance(values, (str, Mapping)) or not hasattr(values, "__iter__"):
        raise GitOpsError(f"{name} must be a list such as [2, 6], not {_quote(values)}")
    return list(values)


def _range(name: str, values: Any, high: float = 1e6) -> Range:
    numbers_ = tuple(_number(name, value, 0, high) for value in _list(name, values))
    if len(numbers_) < 2 or list(numbers_) != sorted(numbers_):
        raise GitOpsError(f"{name} must go from low to high, such as [2, 6], not {_quote(list(numbers_))}")
    return numbers_


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or value != _one_line(value, 60):
        raise GitOpsError(f"{name} must be a short printable name, not {_quote(value)}")
    return value


def _shares(name: str, weights: Any) -> Dict[str, float]:
    if not isinstance(weights, Mapping):
        raise GitOpsError(f'{name} must give a weight to each name, such as {{"a": 1}}, not {_quote(weights)}')
    checked = {
        _name(f"a name in {name}", key): _number(f"{name}[{_one_line(key)!r}]", weight)
        for key, weight in weights.items()
    }
    if not sum(checked.values()) > 0:
        raise GitOpsError(f"the weights of {name} must sum to more than zero, not {_quote(checked)}")
    return checked


def _settle(knobs: Any, **values: Any) -> None:
    """Store checked values in a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(knobs, name, value)


@dataclass(frozen=True)
class Team:
    """Who commits what, and when. Weights need not sum to one.

    `commits_per_day` is the mean of a day whose `weekday_factors` entry (Monday first) is 1. Counts
    of a day have variance / mean = `dispersion` (a gamma-mixed Poisson; 1 is Poisson). The rate ramps
    by `sprint_ramp` (0.3: from 15 % below the mean to 15 % above) through each sprint of
    `sprint_days`; sprints begin on a Monday. `work_hours` are UTC hours of the day.
    """

    authors: Mapping[str, float] = field(default_factory=lambda: dict(alice=1, bob=1, charlie=1, diana=1))
    types: Mapping[str, float] = field(
        default_factory=lambda: dict(feat=0.40, fix=0.30, chore=0.15, refactor=0.10, perf=0.05)
    )
    applications: Mapping[str, float] = field(default_factory=lambda: dict(frontend=0.40, backend=0.35, database=0.25))
    branch: str = "main"
    commits_per_day: float = 8.0
    weekday_factors: Sequence[float] = (1, 1, 1, 1, 1, 0.2, 0.2)
    dispersion: float = 2.0
    sprint_days: int = 14
    sprint_ramp: float = 0.3
    work_hours: Range = (9, 18)

    def __post_init__(self) -> None:
        factors = tuple(
            _number("team.weekday_factors", value) for value in _list("team.weekday_factors", self.weekday_factors)
        )
        if len(factors) != 7:
            raise GitOpsError(f"team.weekday_factors needs seven numbers, Monday first, not {len(factors)}")
        _settle(
            self,
            authors=_shares("team.authors", self.authors),
            types=_shares("team.types", self.types),
            applications=_shares("team.applications", self.applications),
            branch=_name("team.branch", self.branch),
            commits_per_day=_number("team.commits_per_day", self.commits_per_day),
            weekday_factors=factors,
            dispersion=_number("team.dispersion", self.dispersion, 1, 1000),
            sprint_days=_whole("team.sprint_days", self.sprint_days, 1, 365),
            sprint_ramp=_number("team.sprint_ramp", self.sprint_ramp, 0, 2),
            work_hours=_range("team.work_hours", self.work_hours, 24),
        )


@dataclass(frozen=True)
class Environment:
    """One stage of the pipeline.

    A release that is healthy in the stage before (in the first stage: a commit) waits `wait_hours`,
    passes the gate with probability `approval_rate`, syncs for `duration_sec`, and is healthy with
    probability `success_rate`. `promotion`: `each` (every release goes up), `newest` (one that a newer
    release of the same application has overtaken here is superseded: its change ships with the newer
    one), `soak` (only one that stayed the newest upstream for its whole wait goes up). With
    `release_every_hours` above 0 a release then waits for the next train (168: Monday 00:00 UTC).
    """

    name: str
    success_rate: float = 0.95
    wait_hours: Range = (0, 0)
    duration_sec: Range = (30, 120)
    promotion: str = "newest"
    approval_rate: float = 1.0
    release_every_hours: float = 0.0

    def __post_init__(self) -> None:
        name = _name("environment name", self.name)
        if self.promotion not in PROMOTIONS:
            raise GitOpsError(f"{name}.promotion must be one of {', '.join(PROMOTIONS)}, not {_quote(self.promotion)}")
        _settle(
            self,
            success_rate=_number(f"{name}.success_rate", self.success_rate, 0, 1),
            wait_hours=_range(f"{name}.wait_hours", self.wait_hours),
            duration_sec=_range(f"{name}.duration_sec", self.duration_sec),
            approval_rate=_number(f"{name}.approval_rate", self.approval_rate, 0, 1),
            release_every_hours=_number(f"{name}.release_every_hours", self.release_every_hours),
        )


@dataclass(frozen=True)
class RollbackPolicy:
    """How a failed deployment is taken back: `duration_min` minutes, successful with `success_rate`."""

    duration_min: Range = (5, 15)
    success_rate: float = 0.95

    def __post_init__(self) -> None:
        _settle(
            self,
            duration_min=_range("rollback.duration_min", self.duration_min),
            success_rate=_number("rollback.success_rate", self.success_rate, 0, 1),
        )


# fmt: off
DEFAULT_ENVIRONMENTS = (
    #           name          success  wait after the stage before (h)   sync takes (s)          promotion
    Environment("dev",        0.90,    wait_hours=(0, 0),    duration_sec=(10, 60),   promotion="each"),
    Environment("staging",    0.93,    wait_hours=(2, 6),    duration_sec=(15, 90),   promotion="newest"),
    Environment("production", 0.95,    wait_hours=(24, 72),  duration_sec=(30, 120),  promotion="newest"),
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
class Scenario:
    """Every knob of the simulation. The last environment is production.

    >>> Scenario().with_environment("production", wait_hours=(4, 12)).environments[-1].wait_hours
    (4, 12)
    """

    team: Team = field(default_factory=Team)
    environments: Tuple[Environment, ...] = DEFAULT_ENVIRONMENTS
    rollback: RollbackPolicy = field(default_factory=RollbackPolicy)
    failure_reasons: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_REASONS))

    def __post_init__(self) -> None:
        _settle(
            self,
            environments=tuple(self.environments),
            failure_reasons=_shares("failure_reasons", self.failure_reasons),
        )
        names = [environment.name for environment in self.environments]
        if not names or len(set(names)) < len(names) or len(names) > 50:
            raise GitOpsError(f"environments must be 1 to 50 with a name of their own each, not {_quote(names)}")

    def with_team(self, **knobs: Any) -> Scenario:
        """A copy with other knobs of the `Team`."""
        return dataclasses.replace(self, team=_replace("team", self.team, knobs))

    def with_environment(self, name: str, **knobs: Any) -> Scenario:
        """A copy with other knobs of one `Environment`; GitOpsError if there is none of that name."""
        known = {environment.name: environment for environment in self.environments}
        if name not in known:
            raise GitOpsError(f"unknown environment {_quote(name)}; the scenario has {', '.join(known)}")
        known[name] = _replace(name, known[name], knobs)
        return dataclasses.replace(self, environments=tuple(known.values()))

    def with_rollback(self, **knobs: Any) -> Scenario:
        """A copy with other knobs of the `RollbackPolicy`."""
        return dataclasses.replace(self, rollback=_replace("rollback", self.rollback, knobs))

    def to_json(self) -> str:
        """The scenario as a JSON document that `from_json` reads back to an equal one."""
        return json.dumps(dataclasses.asdict(self), indent=2)  # ASCII: whatever a shell redirects it as

    @classmethod
    def from_history(cls, history: History) -> Scenario:
        """The scenario whose simulation is like a history, simulated or real (see `fit_scenario`)."""
        return fit_scenario(history)[0]

    @classmethod
    def from_json(cls, text: str) -> Scenario:
        """Read a JSON document. What it leaves out keeps its default; GitOpsError for what is unknown."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GitOpsError(
                f"the configuration is not JSON: {_one_line(error)}; --print-config shows one that is"
            ) from None
        knobs = _known_keys("the configuration", document, cls)
        if "team" in knobs:
            knobs["team"] = Team(**_known_keys("team", knobs["team"], Team))
        if "environments" in knobs:
            knobs["environments"] = tuple(_environment(item) for item in _list("environments", knobs["environments"]))
        if "rollback" in knobs:
            knobs["rollback"] = RollbackPolicy(**_known_keys("rollback", knobs["rollback"], RollbackPolicy))
        return cls(**knobs)


def read_scenario(path: Union[str, os.PathLike]) -> Scenario:
    """A scenario from a JSON file; GitOpsError that names the file."""
    try:
        return Scenario.from_json(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        if isinstance(error, GitOpsError):
            raise GitOpsError(f"{_one_line(path)}: {error}") from None
        problem = f"cannot read the configuration {_one_line(path)}: {_one_line(error)}"
        raise GitOpsError(f"{problem}; --print-config prints one to begin with") from None


def _environment(document: Any) -> Environment:
    knobs = _known_keys("an environment", document, Environment)
    if "name" not in knobs:
        raise GitOpsError(f'an environment has no name: {_quote(document)}; add "name"')
    return Environment(**knobs)


def _known_keys(what: str, document: Any, knobs: type) -> Dict[str, Any]:
    if not isinstance(document, Mapping):
        raise GitOpsError(f"{what} must be a JSON object, not {_quote(document)}")
    known = [knob.name for knob in dataclasses.fields(knobs)]
    for key in document:
        if key not in known:
            raise GitOpsError(f"unknown key {_quote(key)} in {what}; known keys: {', '.join(known)}")
    return dict(document)


def _replace(what: str, knobs: Any, changes: Mapping[str, Any]) -> Any:
    return dataclasses.replace(knobs, **_known_keys(what, changes, type(knobs)))


# All noise is uniform on 0..1 and every layer is a deterministic, monotone function of it: a what-if
# under the same seed differs by its knob alone, and no sampler of numpy's can change between versions.

_LAYERS = ("commits", "deployments", "rollbacks")


def _stream(seed: int, layer: str, *parts: int) -> np.random.Generator:
    """The random stream of one layer (and part of it): integer seeds, as numpy 1.21 has no spawn()."""
    return np.random.Generator(np.random.PCG64([seed, _LAYERS.index(layer), *(parts or (0,))]))


class Noise:
    """The noise of one simulation, or of one block of many: drawn once, however many scenarios live through it."""

    def __init__(self, seed: int, *block: int) -> None:
        self._seed, self._block = seed, block
        self._drawn: Dict[Tuple[str, int], np.ndarray] = {}
        self._made: Tuple[Any, Any] = (None, None)

    def stream(self, layer: str, *parts: int) -> np.random.Generator:
        return _stream(self._seed, layer, *parts, *self._block)

    def of(self, layer: str, part: int, rows: int, count: int) -> np.ndarray:
        """An array of `rows` x `count`; fewer rows are the first ones of more."""
        known = self._drawn.get((layer, part))
        if known is None or known.shape[1] != count or len(known) < rows:
            known = self._drawn[layer, part] = self.stream(layer, part).random((rows, count))
        return known

    def once(self, knobs: Any, make: Callable[[Any], Any]) -> Any:
        """What this noise makes of some knobs; remembered for as long as they stay the same."""
        if self._made[0] != knobs:
            self._made = knobs, make(knobs)
        return self._made[1]


def _quantile(values: Range, noise: np.ndarray) -> np.ndarray:
    if len(values) == 2:
        return values[0] + noise * (values[1] - values[0])
    return np.interp(noise, np.linspace(0, 1, len(values)), values)


def _whole_seconds(values: Range, noise: np.ndarray, unit: float = 1.0) -> np.ndarray:
    return np.rint(_quantile(values, noise) * unit).astype(np.int64)


def _pick(shares: Mapping[str, float], noise: np.ndarray) -> np.ndarray:
    """Positions in `shares`, each as often as its weight says."""
    edges = np.cumsum(list(shares.values()))
    return np.searchsorted(edges[:-1] / edges[-1], noise, side="right").astype(np.int16)


# ---- Git layer: -> commits ------------------------------------------------------------------------

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

_SUBJECTS = {
    "feat": ("add search filters", "support bulk import", "show live status", "add audit trail"),
    "fix": ("handle empty response", "close stale connections", "correct time zone", "retry on timeout"),
    "chore": ("update dependencies", "bump base image", "rotate certificates", "tidy manifests"),
    "refactor": ("extract client", "simplify validation", "split module", "remove dead code"),
    "perf": ("cache hot queries", "batch requests", "add missing index", "avoid copies"),
}
_OTHER_SUBJECTS = ("update configuration", "revise defaults", "adjust limits", "clean up")


def simulate_commits(team: Team, window: Window, seed: int) -> pd.DataFrame:
    """A team's commits: the `git_commits` table. A row is a commit of the branch."""
    noise = _stream(seed, "commits")
    _, seconds = commit_times(team, window, noise)
    application, author, type_, subject, files = noise.random((5, len(seconds)))
    kinds = _pick(team.types, type_), _pick(team.applications, application)
    message = _messages(team)[kinds + ((subject * 4).astype(np.int8),)]
    authors = _words(_pick(team.authors, author), list(team.authors))
    return as_table(
        "git_commits",
        {
            "sha": _hashes(seed, seconds, authors, message),
            "timestamp": seconds,
            "author": authors,
            "type": _words(kinds[0], list(team.types)),
            "application": _words(kinds[1], list(team.applications)),
            "branch": _words(np.zeros(len(seconds), np.int8), [team.branch]),
            "message": message,
            # geometric with mean 4: most changes are small, a few are wide
            "files_changed": np.ceil(np.log1p(-files) / np.log(0.75)).astype(np.int64).clip(1),
        },
    )


def commit_times(
    team: Team, window: Window, noise: np.random.Generator, runs: int = 1
) -> Tuple[np.ndarray, np.ndarray]:
    """(Run, seconds since 1970) of each commit of `runs` independent windows, sorted by both."""
    days = np.arange(window.days) + (window.start - _FIRST_DAY).days
    counts = _commits_of_each_day(team, days, noise.random((runs, len(days))))
    run = np.repeat(np.arange(runs), counts.sum(axis=1))
    time_of_day = np.minimum(_quantile(team.work_hours, noise.random(len(run))) * 3600, _DAY - 1).astype(np.int64)
    stacked = np.sort(run * _NEVER + np.repeat(np.tile(days * _DAY, runs), counts.ravel()) + time_of_day)
    return run, stacked - run * _NEVER


def _commits_of_each_day(team: Team, days: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """How many commits each day (days since 1970; the last axis of the noise) has: the negative binomial
    quantiles of the noise."""
    cycle = np.arange(7 * team.sprint_days)
    ramp = 1 + team.sprint_ramp * (np.linspace(-0.5, 0.5, team.sprint_days)[cycle % team.sprint_days])
    factors = np.take(team.weekday_factors, cycle % 7)
    rates = team.commits_per_day * factors * ramp / (np.average(ramp, weights=factors) if factors.any() else 1)
    if rates.mean() * len(days) > _MOST_COMMITS:
        raise GitOpsError(
            f"{len(days)} days of {team.commits_per_day:g} commits are more than {_MOST_COMMITS:,}; lower one"
        )
    counts = np.zeros(noise.shape, np.int64)
    rate_of_day = rates[(days - _MONDAY // _DAY) % len(cycle)]
    for rate in np.unique(rate_of_day):
        same = rate_of_day == rate
        counts[..., same] = np.searchsorted(_count_distribution(rate, team.dispersion), noise[..., same], side="right")
    return counts


def _count_distribution(mean: float, dispersion: float) -> np.ndarray:
    """Cumulative probabilities of 0, 1, 2 ... commits: Poisson with a gamma-distributed mean (negative
    binomial) of variance = dispersion x mean; in logarithms, as p(0) underflows for a large mean."""
    if mean == 0:
        return np.empty(0)
    excess = dispersion - 1
    k = np.arange(1, int(mean + 12 * math.sqrt(dispersion * mean) + 12 * dispersion + 12))
    none = -mean * (math.log(dispersion) / excess if excess else 1.0)
    steps = np.log(((k - 1) * excess + mean) / (dispersion * k))
    return np.cumsum(np.exp(none + np.append(0.0, np.cumsum(steps))))


def _messages(team: Team) -> np.ndarray:
    return np.array(
        [
            [
                [f"{type_}({application}): {subject}" for subject in _SUBJECTS.get(type_, _OTHER_SUBJECTS)]
                for application in team.applications
            ]
            for type_ in team.types
        ],
        dtype=object,
    )


def _hashes(seed: int, seconds: np.ndarray, authors: pd.Categorical, messages: np.ndarray) -> np.ndarray:
    """A SHA-1 over what a commit is, as git's is; hashlib takes one at a time."""
    lines = zip(range(len(seconds)), seconds.tolist(), authors, messages)
    return np.array(
        [
            hashlib.sha1(f"{seed} {i} {time} {author} {message}".encode("utf-8", "surrogatepass")).hexdigest()
            for i, time, author, message in lines
        ],
        dtype=object,
    )


# ---- Git layer: a repository -> commits -----------------------------------------------------------

# The repository is untrusted. Its configuration and attributes can name programs for git to run; the
# options and variables below outrank it, and no subcommand that runs more than `log` does is called.

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
    """The one call that reads commits. The marker that begins a record is one that nobody can guess, so that no
    file name in a repository can pass for a record."""
    return (*_GIT_LOG, f"--format=tformat:{marker}%H%x00%ct%x00a%an%x00s%s")


def read_git_log(
    repo: Union[str, os.PathLike], days: int, end: Optional[pd.Timestamp], applications: Sequence[str]
) -> Tuple[pd.DataFrame, Window]:
    """The real commits of a repository's current branch: (`git_commits` table, window).

    Merges are left out. The window is the `days` whole UTC days before `end`, or those up to the day
    of the newest commit. `type` is the Conventional Commits type (`other` if none), `application` the
    scope if it is one of `applications`, else the repository's name. Raises GitOpsError if `repo` is
    no repository, or has no commit in the window.
    """
    # the last one is not always the newest: it may be of somebody whose clock is behind
    newest = max(map(_epoch, _git(repo, "log", "-1000", "--no-show-signature", "--format=%ct").split()), default=-1)
    branch, folder = _git(repo, "branch", "--show-current") or "HEAD", _git(repo, "rev-parse", "--git-common-dir")
    if end is None:
        end = pd.Timestamp(min(max(newest, 0) // _DAY + 1, (_LAST_DAY - _FIRST_DAY).days) * _DAY, unit="s", tz="UTC")
    window = Window.before(end, days)
    marker = f"/{os.urandom(8).hex()}"
    log = _git_stream(repo, *_git_log_command(marker), _since(repo, window.start), separator=b"\0" + marker.encode())
    fields = _parse_git_log(log, marker.encode())
    inside = (fields.seconds >= window.start.timestamp()) & (fields.seconds < window.end.timestamp())
    if not inside.any():
        raise GitOpsError(
            f"no commit in {_one_line(repo)} from {window.start:%Y-%m-%d} to {window.last:%Y-%m-%d}; "
            "choose more --days or another --end"
        )
    order = np.flatnonzero(inside)[np.argsort(fields.seconds[inside], kind="stable")]
    log_of_window = GitLog(*(column[order] for column in fields))
    return _commits_of_log(
        log_of_window, _repository_name(Path(os.fsdecode(repo), folder)), _one_line(branch), applications
    ), window


def _repository_name(git_folder: Path) -> str:
    """The name that people know a repository by: its folder's, or that of a bare one without `.git`."""
    folder = git_folder.resolve()
    name = folder.parent.name if folder.name == ".git" else re.sub(r"\.git$", "", folder.name)
    return _one_line(os.fsencode(name).decode("utf-8", "replace"), 60)


def _epoch(text: Union[str, bytes]) -> int:
    """Seconds since 1970 as git prints them; -1 for what is no time, or none that fits."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text.decode() if isinstance(text, bytes) else text) else -1


def _since(repo: Union[str, os.PathLike], start: pd.Timestamp) -> str:
    """The option that leaves older commits out. From git 2.37 on it looks behind every older commit for
    newer ones; before, the walk ends at a few commits with a clock that was wrong."""
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


def _commits_of_log(log: GitLog, repository: str, branch: str, applications: Sequence[str]) -> pd.DataFrame:
    subject = pd.Series(log.subject, dtype=object)
    scope = subject.str.extract(_CONVENTIONAL, expand=True)["scope"].astype(object)
    return as_table(
        "git_commits",
        {
            "sha": log.sha,
            "timestamp": log.seconds,
            "author": log.author,
            "type": _commit_types(subject),
            "application": scope.where(scope.isin(list(applications)), repository),
            "branch": _words(np.zeros(len(subject), np.int8), [branch]),
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
        return GitLog(*(np.empty(0, dtype) for dtype in (object, np.int64, object, object, np.int64)))
    return GitLog(*(np.concatenate(columns)[::-1] for columns in zip(*parts)))


def _parse_git_chunk(chunk: bytes, marker: bytes = b"/") -> GitLog:
    """Cut whole records apart. A record is marker and sha, time, `a`author, `s`subject, then its files, each
    ended by NUL."""
    marks = np.frombuffer(chunk, np.uint8)
    ends = np.flatnonzero(marks == 0)
    starts = np.append(0, ends[:-1] + 1)
    maybe = np.flatnonzero(marks[starts] == marker[0])
    begins = marks[np.minimum(starts[maybe][:, None] + np.arange(len(marker)), len(marks) - 1)]
    heads = maybe[(begins == np.frombuffer(marker, np.uint8)).all(axis=1)]
    tokens = np.array(chunk.split(b"\0")[:-1], dtype=object)
    heads = heads[heads + 4 <= len(tokens)]  # git may end in the middle of a record; its status then says so
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
    text = _printable(b"\n".join(tokens).decode("utf-8", "replace"), keep="\n")
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
        names += [f"{revision}^{{commit}}:{path}" if path else f"{revision}^{{tree}}" for revision, path in places]
        objects = _git_objects(repo, names)
        self.commit = {revision: found for revision, found in zip(revisions, objects) if found}
        self.tree = {place: found for place, found in zip(places, objects[len(revisions) :]) if found}
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
        chunks = _git_stream(repo, *_GIT_GRAPH, form, separator=b"\0" + marker.encode(), stdin=revisions)
        parts = [_parse_graph_chunk(chunk, marker) for chunk in chunks]
        return GitGraphLog(*(list(itertools.chain.from_iterable(columns)) for columns in zip(*parts)))

    def _mainline(self) -> Tuple[Dict[int, int], List[int]]:
        """({position: rank} of the longest line of first parents, oldest first; for each position the least rank
        of a commit there that contains it, -1 if none does). What lies between two commits of the line is then
        told by rank, without a walk."""
        parents = [[self.positions[sha] for sha in shas if sha in self.positions] for shas in self.log.parents]
        length = [1] * len(parents)
        for position in range(len(parents) - 1, -1, -1):
            if parents[position]:
                length[position] += length[parents[position][0]]
        line = [length.index(max(length))] if length else []
        while line and parents[line[-1]]:
            line.append(parents[line[-1]][0])
        main, landed = {position: rank for rank, position in enumerate(line[::-1])}, [-1] * len(parents)
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
        return [at for _, at in found[bisect.bisect_left(found, (low + 1,)) : bisect.bisect_left(found, (high + 1,))]]

    def between(self, old: str, new: str) -> List[int]:
        """Positions in the log of the commits that `new` contains and `old` does not, newest first."""
        if (old, new) not in self._between:
            self._between[old, new] = self._search(self.positions[old], self.positions[new])
        return self._between[old, new]

    def _search(self, old: int, new: int) -> List[int]:
        """Walk down from both ends, children before parents, until only what `old` contains is left."""
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
        """Seconds since 1970 at which the change was made: where Argo CD's source hydrator wrote the
        commit, that of the code commit which it names in a trailer."""
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
                "timestamp": np.array([self.log.seconds[position] for position in chosen], np.int64),
                "author": [self.log.author[position] for position in chosen],
                "type": _commit_types(pd.Series(subjects, dtype=object)),
                "application": [positions[position] for position in chosen],
                "branch": [branch] * len(chosen),
                "message": subjects,
                "files_changed": [len(self.log.files[position]) for position in chosen],
            },
        )
        return table


class GitGraphLog(NamedTuple):
    """Columns of a log in which no commit comes after its parents; lists with an entry for each commit."""

    sha: List[str]
    parents: List[List[str]]
    seconds: List[int]
    author: List[str]
    subject: List[str]
    body: List[str]
    files: List[List[str]]


_GIT_GRAPH = (*(option for option in _GIT_LOG if option != "--no-merges"), "--topo-order", "--stdin")
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
        [min(max(_epoch(token), 0), _LAST_SECOND) for token in columns[2]],
        [_printable(token[1:]) for token in columns[3]],
        [_printable(token[1:]) for token in columns[4]],
        [token[1:] for token in columns[5]],
        [[file.lstrip("\n") for file in group if file] for group in files],
    )


def _git_objects(repo: Union[str, os.PathLike], names: Sequence[str]) -> List[str]:
    """The object id of each name, "" where there is none."""
    if not names:
        return []
    printed = _git(repo, "cat-file", "--batch-check=%(objectname)", stdin="\n".join(names).encode("utf-8", "replace"))
    return [line if re.fullmatch("[0-9a-f]{40,64}", line) else "" for line in printed.split("\n")]


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(text: str) -> int:
    """Seconds since 1970; ValueError if it is no such time, or none between 1970 and 2200."""
    if not _TIME.fullmatch(text):  # what fromisoformat takes beyond it differs between versions of Python
        raise ValueError(f"not a time such as 2026-01-31T12:00:00Z: {text}")
    moment = dt.datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))
    if not 1970 <= moment.year < 2200:
        raise ValueError(f"not a time with a zone between 1970 and 2200: {text}")
    return int(moment.timestamp())


def _git_environment() -> Dict[str, str]:
    """The caller's variables without git's own (GIT_DIR would win over the folder that was named)."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "", "LC_ALL": "C"}


def _git(repo: Union[str, os.PathLike], *arguments: str, stdin: bytes = b"") -> str:
    return (
        b"".join(_git_stream(repo, *arguments, separator=b"", stdin=stdin)).decode("utf-8", "surrogateescape").strip()
    )


def _git_stream(
    repo: Union[str, os.PathLike], *arguments: str, separator: bytes = b"\0/", stdin: bytes = b""
) -> Iterator[bytes]:
    """What git prints, in chunks that end between records. The folder is git's working directory and
    no argument, so that a name that begins with a dash stays a name."""
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
            missing = "git is not installed" if os.path.isdir(repo) else f"no such folder: {_one_line(repo)}"
            raise GitOpsError(f"{missing}; --repo takes the folder of a git repository") from None
        except (OSError, ValueError) as error:
            raise GitOpsError(
                f"cannot open {_one_line(repo)}: {_one_line(error)}; --repo takes the folder of a git repository"
            ) from None
        with process:
            assert process.stdout is not None
            yield from _records(process.stdout, separator)
        if process.returncode:
            errors.seek(0)
            said = _one_line(errors.read(2000).decode("utf-8", "replace"))
            raise GitOpsError(f"git cannot read {_one_line(repo)}: {said}; --repo takes a repository with commits")


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


# ---- Deployment engine: commits -> deployments ----------------------------------------------------

_OUTCOME, _WAIT, _DURATION, _APPROVAL = range(4)


class Stage(NamedTuple):
    """What one environment did: arrays with an entry for each commit, in lineage order."""

    start: np.ndarray  # seconds since 1970 at which the sync starts, had it been let through
    duration: np.ndarray  # seconds
    outcome: np.ndarray  # noise: failed where not below the success rate
    deployed: np.ndarray
    good: np.ndarray
    superseded: int
    held: int
    in_flight: int


def simulate_deployments(
    commits: pd.DataFrame, scenario: Scenario, window: Window, seed: int
) -> Tuple[pd.DataFrame, pd.DataFrame]:
    """Take every commit through the environments: (`deployments` table, flow).

    A row of deployments is a sync that started before the window's end. A row of flow is an
    environment (the index) and says what became of the releases that reached it: `deployed`,
    `superseded` by a newer one, `held` by the approval gate, `in_flight` (they would start at or after the end).
    """
    application = commits["application"].cat.codes.to_numpy()
    order = np.argsort(application, kind="stable")
    stages = run_pipeline(_seconds(commits["timestamp"])[order], application[order], scenario, window, Noise(seed))
    flow = pd.DataFrame(
        [(stage.deployed.sum(), stage.superseded, stage.held, stage.in_flight) for stage in stages],
        columns=["deployed", "superseded", "held", "in_flight"],
        index=pd.Index([environment.name for environment in scenario.environments], name="environment"),
    )
    return _deployments_table(commits, order, stages, scenario), flow


def run_pipeline(
    committed: np.ndarray, lineage: np.ndarray, scenario: Scenario, window: Window, noise: Noise
) -> List[Stage]:
    """The model: commits, sorted by lineage (an application of a run) and time, through each stage."""
    stages, arrival = [], committed
    for number, environment in enumerate(scenario.environments):
        rows = 3 + (environment.approval_rate < 1)
        own = noise.of("deployments", number, rows, len(committed))
        stages.append(_run_stage(environment, arrival, lineage, own, int(window.end.timestamp())))
        arrival = np.where(stages[-1].good, stages[-1].start + stages[-1].duration, _NEVER)
    return stages


def _run_stage(
    environment: Environment, arrival: np.ndarray, lineage: np.ndarray, noise: np.ndarray, end: int
) -> Stage:
    arrived = arrival < _NEVER
    start = arrival + _whole_seconds(environment.wait_hours, noise[_WAIT], 3600)
    start = _next_train(start, environment.release_every_hours)
    approved = arrived if environment.approval_rate >= 1 else arrived & (noise[_APPROVAL] < environment.approval_rate)
    wanted = approved & ~_overtaken(environment.promotion, arrival, start, approved, lineage)
    deployed = wanted & (start < end)
    return Stage(
        start,
        _whole_seconds(environment.duration_sec, noise[_DURATION]),
        noise[_OUTCOME],
        deployed,
        deployed & (noise[_OUTCOME] < environment.success_rate),
        superseded=_count(approved) - _count(wanted),
        held=_count(arrived) - _count(approved),
        in_flight=_count(wanted) - _count(deployed),
    )


def _next_train(start: np.ndarray, every_hours: float) -> np.ndarray:
    """The next departure at or after a time; trains are counted from a Monday."""
    every = round(every_hours * 3600)
    return start if every < 1 else -(-(start - _MONDAY) // every) * every + _MONDAY


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _overtaken(
    promotion: str, arrival: np.ndarray, start: np.ndarray, approved: np.ndarray, lineage: np.ndarray
) -> np.ndarray:
    """Where a newer release of the lineage is here first (`newest`) or upstream too early (`soak`)."""
    if promotion == "each":
        return np.zeros(len(start), bool)
    rival = arrival if promotion == "soak" else np.where(approved, start, _NEVER)
    return start >= _earliest_of_newer(rival, lineage)


def _earliest_of_newer(times: np.ndarray, lineage: np.ndarray) -> np.ndarray:
    """For each entry the least of the later entries of its lineage, or a time beyond any: a running
    minimum from the end, with each lineage lifted above the ones before it."""
    lift = lineage.astype(np.int64) * (_NEVER + 1)
    earliest = np.full(len(times), np.iinfo(np.int64).max)
    earliest[:-1] = np.minimum.accumulate((np.minimum(times, _NEVER) + lift)[:0:-1])[::-1]
    return earliest - lift


def _deployments_table(
    commits: pd.DataFrame, order: np.ndarray, stages: Sequence[Stage], scenario: Scenario
) -> pd.DataFrame:
    rows = [np.flatnonzero(stage.deployed) for stage in stages]
    start = np.concatenate([stage.start[row] for stage, row in zip(stages, rows)])
    by_time = np.argsort(start, kind="stable")

    def column(pieces: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(pieces)[by_time]

    commit = column([order[row] for row in rows])
    bad = column([~stage.good[row] for stage, row in zip(stages, rows)]).view(np.int8)
    reason = column(
        [
            _reasons(environment, stage, row, scenario.failure_reasons)
            for environment, stage, row in zip(scenario.environments, stages, rows)
        ]
    )
    number = column([np.full(len(row), i, np.int8) for i, row in enumerate(rows)])
    return as_table(
        "deployments",
        {
            "timestamp": start[by_time],
            "application": commits["application"].array[commit],
            "environment": _words(number, [environment.name for environment in scenario.environments]),
            "commit_sha": _words_of(commit, commits["sha"]),
            "status": _words(bad, [SYNCED, FAILED]),
            "health": _words(bad, [HEALTHY, DEGRADED]),
            "duration_sec": column([stage.duration[row] for stage, row in zip(stages, rows)]),
            "failure_reason": _words(reason, list(scenario.failure_reasons)),
        },
    )


def _words_of(rows: np.ndarray, keys: pd.Series) -> pd.Categorical:
    return pd.Categorical.from_codes(rows, categories=pd.Index(keys.to_numpy(), dtype=object))


def _reasons(environment: Environment, stage: Stage, rows: np.ndarray, reasons: Mapping[str, float]) -> np.ndarray:
    """Positions in `reasons`, -1 where the sync was good. Given a failure, what is left of the outcome's
    noise above the success rate is uniform again, and picks the reason."""
    codes = np.full(len(rows), -1, np.int16)
    bad = ~stage.good[rows]
    codes[bad] = _pick(reasons, (stage.outcome[rows[bad]] - environment.success_rate) / (1 - environment.success_rate))
    return codes


# ---- Deployment engine: Argo CD -> deployments and rollbacks --------------------------------------

# What Argo CD keeps (3.x): `status.history` has the successful, full syncs alone, the last ten by
# default; `status.operationState` the last operation, which may have failed; `status.health` may be older.

_ALIASES = {
    **dict.fromkeys(("production", "prod", "prd", "live"), "production"),
    **dict.fromkeys(("staging", "stage", "stg", "uat", "qa"), "staging"),
    **dict.fromkeys(("dev", "develop", "development", "test", "testing"), "dev"),
}
_KARGO = "kargo.akuity.io/authorized-stage"
_ENVIRONMENT_KEYS = ("environment", "env", _KARGO)
_UNCLASSIFIED = "unclassified"
_DWELL = 60  # seconds that a release must stay before going back from it is a rollback and no flap of a cache


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
    degraded: Dict[int, str] = field(default_factory=dict)  # seconds at which it was seen so: message
    seen: int = 0  # the newest time in the files that name it
    snapshots: Dict[int, int] = field(default_factory=dict)  # end of the newest sync in a file: newest time there

    @property
    def syncs(self) -> Tuple[ArgoEntry, ...]:
        """All that was recorded, the last operations that failed included."""
        return (*self.entries.values(), *self.failures.values())


@dataclass(frozen=True)
class EnvironmentRules:
    """How to tell the environment of an application: a fixed name, the key of a label or annotation, a regular
    expression with a group for its name. Raises GitOpsError for one that can tell none."""

    fixed: Optional[str] = None
    label: Optional[str] = None
    pattern: Optional[str] = None

    def __post_init__(self) -> None:
        if self.fixed is not None:
            _name("--environment", self.fixed)
        if self.label is not None and not self.label.strip():
            raise GitOpsError(f"--environment-label is the key of a label, such as tier, not {_quote(self.label)}")
        try:
            groups = re.compile(self.pattern).groups if self.pattern is not None else 1
        except (re.error, RecursionError, OverflowError) as error:
            raise GitOpsError(f"--environment-pattern is no regular expression: {_one_line(error)}") from None
        if groups < 1:
            raise GitOpsError(f"--environment-pattern needs a group, as ='-(dev|prod)$', not {_quote(self.pattern)}")


def read_argocd(files: Sequence[Union[str, os.PathLike]]) -> List[ArgoApplication]:
    """The applications in JSON documents of kubectl, argocd or its REST API; snapshots of one are merged.

    Raises GitOpsError naming the file, and the entry if one is at fault.
    """
    merged: Dict[Tuple[str, str, str], ArgoApplication] = {}
    for file in files:
        name = "standard input" if str(file) == "-" else _one_line(file)
        try:
            found = [_argo_application(document, name) for document in _argo_documents(_read_text(file), name)]
        except RecursionError:
            raise GitOpsError(f"{name} is nested too deeply: that is nothing of Argo CD's") from None
        seen = max((application.seen for application, _ in found), default=0)
        for application, uid in found:
            application.seen = seen
            application.snapshots = {max((sync.end for sync in application.syncs), default=0): seen}
            _merge(merged.setdefault((application.namespace, application.name, uid), application), application)
    _merge_nameless(merged)
    if not any(application.syncs for application in merged.values()):
        raise GitOpsError(
            f"no deployment in {', '.join(_one_line(file) for file in files)}: no application has a history"
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
    """A snapshot that leaves the uid out is of the application that has its name, the newest of them."""
    newest: Dict[Tuple[str, str], Tuple[str, str, str]] = {}
    for key in sorted(merged, key=lambda key: (bool(key[2]), merged[key].seen)):
        newest[key[:2]] = key
    for key in [key for key in merged if not key[2] and newest[key[:2]] != key]:
        _merge(merged[newest[key[:2]]], merged.pop(key))


def _read_text(file: Union[str, os.PathLike]) -> str:
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else Path(file).read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise GitOpsError(f"cannot read {_one_line(file)}: {_one_line(error)}; --argocd takes JSON files") from None


def _argo_documents(text: str, name: str) -> List[Mapping[str, Any]]:
    """The applications among one or several JSON documents, told by their structure."""
    position, found, known = _skip_space(text, 0), [], False
    while position < len(text) or not text.strip():
        try:
            document, position = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            hint = "it looks like YAML: ask for JSON with -o json" if _YAML.match(text) else "ask for it with -o json"
            raise GitOpsError(f"{name} is not JSON ({_one_line(error, 80)}); {hint}") from None
        position, items = _skip_space(text, position), _argo_items(document)
        known = known or items is not None
        found += items or []
    if not known:
        raise GitOpsError(f"{name} holds no Argo CD application; --argocd takes what `argocd app list -o json` prints")
    return found


def _skip_space(text: str, position: int) -> int:
    return position + len(_SPACE.match(text, position).group())  # type: ignore[union-attr]


_SPACE = re.compile(r"[\s,]*")
_YAML = re.compile(r"""\s*(#|%YAML|---|- |["']?[A-Za-z]+["']?:\s)""")


def _argo_items(document: Any) -> Optional[List[Mapping[str, Any]]]:
    """The applications in one document: itself, its items or its elements; None if it is of another kind."""
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
    return None if groups and groups == [None] * len(groups) else [item for group in groups for item in group or []]


def _at(document: Any, *path: str, kind: Any = dict) -> Any:
    """What a document has at a path, or an empty value of that kind: nothing in it can be relied on."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document if isinstance(document, kind) else kind()


def _argo_application(document: Mapping[str, Any], file: str) -> Tuple[ArgoApplication, str]:
    """(An application, its uid), or GitOpsError that names the entry at fault."""
    metadata = _at(document, "metadata")
    namespace, name = _at(metadata, "namespace", kind=str), metadata["name"]
    where = f"{file}: application {_one_line(name, 80)}"
    status = _given(document, "status", dict, where)
    sources = _sources_of(_at(document, "spec"))
    paths = [
        text
        for source in sources
        for text in (_at(source, "path", kind=str), *_at(source, "helm", "valueFiles", kind=list))
    ]
    destination = _at(document, "spec", "destination")
    application = ArgoApplication(
        _one_line(name, 80),
        _one_line(namespace, 80) if namespace else "",
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
    application.seen = max([*times, application.created or 0, _time(status, "reconciledAt", where, needed=False) or 0])
    return application, _at(metadata, "uid", kind=str)


def _given(holder: Mapping[str, Any], key: str, kind: Any, where: str) -> Any:
    value = holder.get(key)
    if value is not None and not isinstance(value, kind):
        raise GitOpsError(f"{where}: {key} is not {'a list' if kind is list else 'an object'}: {_quote(value)}")
    return kind() if value is None else value


def _texts(mapping: Mapping[str, Any]) -> Dict[str, str]:
    return {str(key): value for key, value in mapping.items() if isinstance(value, str)}


def _sources_of(holder: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    """The sources of a spec, a history entry or an operation; several of them outrank the single one."""
    several = [source for source in _at(holder, "sources", kind=list) if isinstance(source, Mapping)]
    return several or [_at(holder, "source")]


def _time(holder: Mapping[str, Any], key: str, where: str, needed: bool = True) -> Optional[int]:
    value = holder.get(key)
    if value in (None, "") and not needed:
        return None
    try:
        return _rfc3339(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        raise GitOpsError(f"{where}: {key} is not a time such as 2026-01-31T12:00:00Z: {_quote(value)}") from None


def _argo_entry(entry: Any, where: str) -> ArgoEntry:
    if not isinstance(entry, Mapping):
        raise GitOpsError(f"{where}: not an object: {_quote(entry)}")
    number = entry.get("id", 0)
    if not isinstance(number, int) or isinstance(number, bool) or abs(number) > 2**62:
        raise GitOpsError(f"{where}: id is not a whole number: {_quote(number)}")
    end = _time(entry, "deployedAt", where) or 0
    return _sync(number, _time(entry, "deployStartedAt", where, needed=False) or end, end, entry, entry)


def _sync(
    number: int, start: int, end: int, revisions: Mapping[str, Any], holder: Mapping[str, Any], failure: str = ""
) -> ArgoEntry:
    sources = _sources_of(holder)
    several = [str(revision) for revision in _at(revisions, "revisions", kind=list)]
    listed = several or [_at(revisions, "revision", kind=str)]
    listed += [""] * (len(sources) - len(listed))
    used = tuple(
        ArgoSource(
            _one_line(revision, 100) if revision else "", _paths_of(source, sources), _at(source, "chart", kind=str)
        )
        for revision, source in zip(listed, sources)
    )
    # a branch or tag that leads to the same revision is no other release
    lasting = [{key: value for key, value in source.items() if key != "targetRevision"} for source in sources]
    return ArgoEntry(number, min(start, end), end, used, json.dumps(lasting, sort_keys=True, default=str), failure)


def _paths_of(source: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> Tuple[str, ...]:
    """What a sync uses of a source's repository: its path and, where others refer to it, their value files."""
    path, ref = _at(source, "path", kind=str), _at(source, "ref", kind=str)
    if not ref:
        return (_clean_path(path),)
    mark = f"${ref}/"
    helms = [_at(other, "helm") for other in sources]
    files = [file for helm in helms for file in _at(helm, "valueFiles", kind=list)]
    files += [_at(file, "path", kind=str) for helm in helms for file in _at(helm, "fileParameters", kind=list)]
    named = {file[len(mark) :] for file in files if isinstance(file, str) and file.startswith(mark)}
    fixed = {re.sub(r"(^|/)[^/]*[*?\[{].*", "", name) for name in named}  # of a pattern, the folder above
    return tuple(sorted(map(_clean_path, fixed | ({path} if path else set()))))


def _clean_path(path: str) -> str:
    path = posixpath.normpath(path or ".").lstrip("/")
    return "" if path == "." or path.startswith("..") or _printable(path) != path else path


def _read_operation(application: ArgoApplication, status: Mapping[str, Any], where: str) -> None:
    """Note a last operation that failed, and health that is known to be newer than it."""
    state = _at(status, "operationState")
    sync = _at(state, "operation").get("sync")  # an empty one is a sync with the defaults
    finished = _time(state, "finishedAt", where, needed=False) if state else None
    whole = isinstance(sync, Mapping) and not sync.get("dryRun") and not _at(sync, "resources", kind=list)
    failed = state.get("phase") in ("Failed", "Error") and whole
    if failed and finished is not None:
        started = _time(state, "startedAt", where) or finished
        result = {**sync, **{key: value for key, value in _at(state, "syncResult").items() if value}}
        message = _one_line(_at(state, "message", kind=str) or state["phase"], 60)
        application.failures[started] = _sync(-1, started, finished, result, result, message)
    checked = _time(status, "reconciledAt", where, needed=False)
    newest = finished if state else max((entry.end for entry in application.entries.values()), default=0)
    degraded = _at(status, "health", "status", kind=str) == DEGRADED
    if degraded and checked is not None and newest is not None and checked >= newest:
        message = _one_line(_at(status, "health", "message", kind=str) or "Degraded health", 60)
        application.degraded[checked] = message


def classify(application: ArgoApplication, rules: EnvironmentRules) -> Tuple[str, str, str]:
    """(Environment, the rule that told it, the name without the environment): the first rule that does."""
    environment, rule, span = next(_environments(application, rules), (_UNCLASSIFIED, "none", None))
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
        value = application.marks.get(key, "").rpartition(":" if key == _KARGO else "\0")[2]  # its project:stage
        if value:
            yield _alias(_one_line(value, 40)), f"label {_one_line(key, 60)}", None
    if rules.pattern:
        match = re.search(rules.pattern, application.name)
        if match and match.group(1):
            yield _alias(match.group(1)), "pattern", match.span(1)
    tokens = _tokens(application.name)
    for place, token in (("suffix", tokens[-1:]), ("prefix", tokens[:1])):
        if token and token[0] in _ALIASES:
            yield _ALIASES[token[0]], f"name {place}", None
    for what, text in zip(("source path", "destination name", "destination namespace"), application.hints):
        told = {_ALIASES[token] for token in _tokens(text) if token in _ALIASES}
        if len(told) == 1:
            yield told.pop(), what, None


def _alias(name: str) -> str:
    return _ALIASES.get(name.lower(), name.lower())


def _tokens(text: str) -> List[str]:
    """Whole tokens; one after `pre` or `non` belongs to it, so that non-prod is not production."""
    tokens = [token for token in re.split(r"[-_/.\s]", text.lower()) if token]
    return [f"{before}{token}" if before in ("pre", "non") else token for before, token in zip(["", *tokens], tokens)]


class Deployed(NamedTuple):
    """What one application's history comes to, in order of time; positions are those of `releases`."""

    releases: List[ArgoEntry]  # the changes of what runs and the syncs that failed; re-syncs and flaps left out
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


def deployed(application: ArgoApplication, graph: Optional[GitGraph]) -> Deployed:
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


def _releases(application: ArgoApplication, graph: Optional[GitGraph]) -> Tuple[List[ArgoEntry], Set[int]]:
    """(The changes and the failed syncs in order of time, which of them come after entries that are lost)."""
    ids = {entry.id for entry in application.entries.values()}
    starts = {entry.start for entry in application.entries.values()}
    failed = [failure for failure in application.failures.values() if failure.start not in starts]  # no retry succeeded
    releases: List[ArgoEntry] = []
    markers: Set[int] = set()
    for sync in sorted([*application.entries.values(), *failed], key=lambda entry: (entry.end, entry.id)):
        if sync.id > 0 and sync.id - 1 not in ids:
            markers.add(len(releases))
        elif releases and _same(sync, releases[-1], graph):
            continue
        elif len(releases) > 1 and _same(sync, releases[-2], graph) and _is_flap(releases[-1], sync):
            gone = releases.pop()
            if len(releases) not in markers:
                continue
            sync = sync._replace(start=gone.start, end=gone.end)
        releases.append(sync)
    return releases, markers


def _same(sync: ArgoEntry, release: ArgoEntry, graph: Optional[GitGraph]) -> bool:
    """Whether a sync of the same revisions and sources came to the same: a success after a failure did not."""
    return bool(sync.failure) == bool(release.failure) and _content(sync, graph) == _content(release, graph)


def _is_flap(release: ArgoEntry, following: ArgoEntry) -> bool:
    return not release.failure and not following.failure and following.start - release.end < _DWELL


def _known(graph: Optional[GitGraph]) -> Mapping[str, str]:
    """{Revision: its commit} of those in the clone, if there is one."""
    return graph.commit if graph is not None else {}


def _content(release: ArgoEntry, graph: Optional[GitGraph]) -> Tuple[str, ...]:
    """The revisions, tags peeled where the clone has them, and the source definitions."""
    known = _known(graph)
    return (release.fingerprint, *(known.get(source.revision, source.revision) for source in release.sources))


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
        if graph is not None and _is_ancestor(old, releases[synced[0]], graph):  # what the first one had is not new
            found = {position for position in found if not _has(releases[synced[0]], graph.log.sha[position], graph)}
        for position in found:
            first.setdefault(position, number)
        if number in markers:
            undated += ["it came in a gap of the history"] if found else []
        elif not _is_ancestor(new, old, graph):
            undated += _undated(old, new, bool(found), graph)
    dated = [pair for pair in first.items() if pair[1] not in markers]
    return sorted(dated, key=lambda pair: (pair[1], pair[0])), undated


def _commits_between(old: ArgoEntry, new: ArgoEntry, where: ArgoEntry, graph: Optional[GitGraph]) -> Set[int]:
    """Positions of the commits that a release contains and an older one does not, at the source paths of `where`."""
    found: Set[int] = set()
    for before, after, place in zip(old.sources, new.sources, where.sources):
        if graph is not None and before.revision in graph.commit and after.revision in graph.commit:
            for path in place.paths:
                found.update(graph.shipped(graph.commit[before.revision], graph.commit[after.revision], path))
    return found


def _undated(old: ArgoEntry, new: ArgoEntry, found: bool, graph: Optional[GitGraph]) -> List[str]:
    """Why the revisions that changed with a release bring no commit that can be dated."""
    known = _known(graph)
    moved = [(before, after) for before, after in zip(old.sources, new.sources) if before.revision != after.revision]
    reasons = []
    for before, after in moved:
        unknown = [source for source in (after, before) if source.revision not in known]
        if unknown:
            reasons.append(_undatable(unknown[0], graph is not None))
    if found or reasons:
        return reasons
    return ["none touches the source path" if moved else "the revision is the same, the parameters are not"]


def _undatable(source: ArgoSource, cloned: bool) -> str:
    if source.chart:
        return "chart version"
    if source.revision.startswith("sha256:"):
        return "digest"
    return "not in the clone" if cloned else "no repository given (--repo)"


def _rollbacks_in(
    releases: Sequence[ArgoEntry], markers: Set[int], changes: Sequence[Tuple[int, int]], graph: Optional[GitGraph]
) -> Tuple[Dict[int, int], Set[int]]:
    """({bad release: what restored it in the end}, the releases that restored): where a release goes back to an
    earlier one or reverts a commit, or where a sync that failed is followed by one of what had run before."""
    states = [_states(release, graph) for release in releases]
    rank: Dict[Any, int] = {}  # of a state that ran: its first release
    restored: Dict[int, int] = {}
    restoring: Set[int] = set()
    ran, begin = -1, 0  # the newest release that did not fail; where the history goes on after a gap
    for number, release in enumerate(releases):
        begin, failed, bad = (number if number in markers else begin), list(range(ran + 1, number)), []
        if begin <= ran and begin < number and _settled(releases, number):
            here, before = _oldest(states[number], rank, number), _oldest(states[ran], rank, ran)
            forward = _content(release, graph) in rank and _is_ancestor(releases[ran], release, graph)
            if failed and states[number] & states[number - 1]:  # the failed sync done once more
                bad = [first for first, last in restored.items() if last == number - 1]
            elif here < before and not forward or _is_ancestor(release, releases[ran], graph):
                steps = [first for first, last in restored.items() if last == ran]
                # one that went back and goes back further: what had first brought the same was bad as well
                known = before in restoring or before in restored
                bad = [ran if ran not in restoring else steps[0] if known and steps else before, *failed]
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
    return not any(_is_flap(*pair) for pair in zip(releases[number - 1 : number + 1], releases[number : number + 2]))


def _states(release: ArgoEntry, graph: Optional[GitGraph]) -> Set[Tuple[str, ...]]:
    """What tells a state that runs: the revisions and, where the clone has all of it, what lies at the source paths."""
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
        if graph is not None and older and newer and older != newer and graph.contains(older, newer):
            return True
    return False


def _reverted_release(
    number: int, releases: Sequence[ArgoEntry], changes: Sequence[Tuple[int, int]], graph: Optional[GitGraph]
) -> List[int]:
    """The newest earlier release that shipped a commit (merges included) which this one says it reverts, if any."""
    if graph is None:
        return []
    reverts = {graph.log.sha[commit]: graph.reverted(commit) for commit, release in changes if release == number}
    undone = set(itertools.chain.from_iterable(reverts.values()))
    named = {sha for commit, shas in reverts.items() if commit not in undone for sha in shas} - reverts.keys()
    synced = [position for position in range(number) if not releases[position].failure]
    for before, after in zip(synced[-2::-1], synced[:0:-1]):
        if any(_has(releases[after], sha, graph) and not _has(releases[before], sha, graph) for sha in named):
            return [after]
    return []


def _has(release: ArgoEntry, sha: str, graph: GitGraph) -> bool:
    """Whether a release contains a commit."""
    revisions = [source.revision for source in release.sources]
    return any(graph.contains(graph.commit[revision], sha) for revision in revisions if revision in graph.commit)


def load_argocd(
    files: Sequence[Union[str, os.PathLike]],
    repo: Union[None, str, os.PathLike] = None,
    rules: EnvironmentRules = EnvironmentRules(),
) -> History:
    """A history as Argo CD and, with `repo`, a clone of the config repository know it.

    A deployment is a change of what runs. A rollback is in the rollbacks table and not among the
    deployments; a release that was applied and turned out bad is `Synced` and `Degraded`. Raises GitOpsError.
    """
    applications = read_argocd(files)
    graph = None if repo is None else GitGraph(repo, _places(applications))
    branch = "" if repo is None else _one_line(_git(repo, "rev-parse", "--abbrev-ref", "HEAD"))
    told = _told(applications, rules, graph)
    rows = [_rows_of(one, graph) for one in told]
    coverage = pd.DataFrame([row for part in rows for row in part.coverage])
    window = Window(
        _utc(np.array([coverage["from"].min() // _DAY * _DAY]))[0],
        _utc(np.array([(coverage["to"].max() // _DAY + 1) * _DAY]))[0],
    )
    coverage = coverage.assign(**{edge: _utc(coverage[edge].to_numpy(np.int64)) for edge in ("from", "to")})
    order = [name for name in (_UNCLASSIFIED, "dev", "staging") if (coverage["environment"] == name).any()]
    others = sorted(set(coverage["environment"]) - {*order, "production"})
    undated = collections.Counter(reason for one in told for reason in one.history.undated)
    changes = _changes_table([*(row for part in rows for row in part.changes), *_waiting(told, graph)], graph)
    too_late = (changes["committed"] > changes["deployed"]).to_numpy()  # somebody's clock was wrong
    undated.update({"a commit is dated after its deployment": _count(too_late)} if too_late.any() else {})
    return History(
        _argo_commits(rows, graph, branch),
        _sorted_table("deployments", [row for part in rows for row in part.deployments]),
        _sorted_table("rollbacks", [row for part in rows for row in part.rollbacks]),
        window,
        (*order[:1], *others, *order[1:], "production"),
        changes[~too_late],
        coverage.sort_values(["application", "environment", "argocd_name", "from"], ignore_index=True),
        dict(undated),
    )


_Change = Tuple[str, str, int, Optional[int]]  # application, environment, commit in the log, when it was deployed


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
                if not source.chart and re.fullmatch("[0-9a-f]{40}([0-9a-f]{24})?", source.revision):
                    yield from ((source.revision, path) for path in source.paths)


def _told(applications: Sequence[ArgoApplication], rules: EnvironmentRules, graph: Optional[GitGraph]) -> List[_Told]:
    classes = [classify(application, rules) for application in applications]
    full = [_full_name(application) for application in applications]
    taken = collections.Counter((environment, base) for (environment, _, base), _ in set(zip(classes, full)))
    return [
        _Told(
            application,
            environment,
            rule,
            base,
            base if taken[environment, base] == 1 else whole,
            deployed(application, graph),
        )
        for application, (environment, rule, base), whole in zip(applications, classes, full)
    ]


def _rows_of(one: _Told, graph: Optional[GitGraph]) -> _Rows:
    """An application's rows of every table."""
    name, environment, history = one.name, one.environment, one.history
    deployments = [
        (sync.start, name, environment, _commit_of(sync, graph), status, health, sync.end - sync.start, reason)
        for sync, status, health, reason in _deployments_in(history)
    ]
    rollbacks = [
        (bad.end, name, environment, _commit_of(bad, graph), _commit_of(good, graph), reason, minutes, success)
        for bad, good, reason, minutes, success in _rollbacks_of(history)
    ]
    changes: List[_Change] = [(name, environment, at, history.releases[first].end) for at, first in history.changes]
    known = {position: name for position, _ in history.changes}
    return _Rows(deployments, rollbacks, changes, known, _coverage_of(one, deployments))


def _deployments_in(history: Deployed) -> Iterator[Tuple[ArgoEntry, str, str, Optional[str]]]:
    """(Sync, status, health, reason) of each deployment. A release with which the known history begins is
    none, as it may have changed nothing, but if it is known to be bad."""
    for number, release in enumerate(history.releases):
        if number not in history.restoring and (number not in history.markers or number in history.bad):
            status, health = FAILED if release.failure else SYNCED, DEGRADED if number in history.bad else HEALTHY
            yield release, status, health, history.bad.get(number)


def _rollbacks_of(history: Deployed) -> Iterator[Tuple[ArgoEntry, ArgoEntry, str, float, bool]]:
    """(The bad release, what restored it, why, minutes, whether that was good) of each rollback."""
    for number, target in history.rollbacks.items():
        bad, good = history.releases[number], history.releases[target]
        yield bad, good, history.bad[number], (good.end - bad.end) / 60, target not in history.bad


def _coverage_of(one: _Told, deployments: Sequence[Tuple[Any, ...]]) -> List[Dict[str, Any]]:
    """The spans that the history of an application really covers: from its creation, or from where entries
    are lost before, to the newest time of the last file that has the next ones."""
    application, history = one.application, one.history
    syncs = [entry.end for entry in application.entries.values()]
    again = [history.releases[number].end for number in sorted(history.markers)]
    if 0 not in history.markers:
        again.insert(0, application.created or min(syncs, default=application.seen))
    spans = []
    for begin, low, high in zip(again, [-1, *again[1:]], [*again[1:], _LAST_SECOND]):
        made = [row[0] for row in deployments if low <= row[0] + row[6] < high]
        done = [end for end in syncs if low <= end < high]
        seen = [seen for newest, seen in application.snapshots.items() if low <= newest < high]
        span = {
            "application": one.name,
            "environment": one.environment,
            "rule": one.rule,
            "from": min([begin, *made]),
            "to": application.seen if high == _LAST_SECOND else min(max([begin, *done, *seen]), high),
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
            "git_commits", {**{column: () for column in COLUMNS["git_commits"]}, "timestamp": np.array([], np.int64)}
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
    """The changes that production has not had yet: another environment of the application has, or a sync failed."""
    same: Dict[str, List[_Told]] = collections.defaultdict(list)
    for one in told:
        same[one.base] += [one] if one.environment != _UNCLASSIFIED else []
    for one in told:
        synced = one.history.synced
        if one.environment == "production" and synced:
            near = _of_one_team(one, same[one.base])
            found = _beyond(
                synced[-1], [release for other in near for release in _newest_releases(other.history)], graph
            )
            had = _beyond(synced[-1], synced, graph)
            yield from ((one.name, one.environment, commit, None) for commit in sorted(found - had))


def _beyond(last: ArgoEntry, releases: Iterable[ArgoEntry], graph: Optional[GitGraph]) -> Set[int]:
    """Positions of the commits that any of the releases contains and the last one does not, at its source paths."""
    return {commit for release in releases for commit in _commits_between(last, release, last, graph)}


def _of_one_team(one: _Told, others: Sequence[_Told]) -> Sequence[_Told]:
    """Those of the same name that belong to an application: of its namespace, where several have that name."""
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
                [graph.log.sha[commit] for commit in position] if graph is not None else [], dtype=object
            ),
            "committed": _utc(np.array(committed, np.int64)),
            "deployed": _utc(deployed).where(deployed >= 0),
        }
    )


# ---- Rollback manager: deployments -> rollbacks ---------------------------------------------------


def simulate_rollbacks(deployments: pd.DataFrame, policy: RollbackPolicy, seed: int) -> pd.DataFrame:
    """Take each failed deployment back to the newest earlier `Synced` and `Healthy` release of its
    application and environment: the `rollbacks` table. A failure with no such release has no row."""
    failed, target = last_good_releases(deployments)
    duration, outcome = _stream(seed, "rollbacks").random((2, len(failed)))
    detected = (_seconds(deployments["timestamp"]) + deployments["duration_sec"].to_numpy())[failed]
    keep = np.flatnonzero(target >= 0)
    keep = keep[np.argsort(detected[keep], kind="stable")]
    sha, bad = deployments["commit_sha"].array, failed[keep]
    return as_table(
        "rollbacks",
        {
            "timestamp": detected[keep],
            "application": deployments["application"].array[bad],
            "environment": deployments["environment"].array[bad],
            "from_commit": np.asarray(sha[bad]),
            "to_commit": np.asarray(sha[target[keep]]),
            "reason": deployments["failure_reason"].array[bad],
            "duration_min": _whole_seconds(policy.duration_min, duration[keep], 60) / 60,
            "success": outcome[keep] < policy.success_rate,
        },
    )


def last_good_releases(deployments: pd.DataFrame) -> Tuple[np.ndarray, np.ndarray]:
    """Row numbers: (the failed deployments, for each the newest earlier good one of its application and
    environment, -1 if there is none)."""
    environments, applications = deployments["environment"].cat, deployments["application"].cat
    places = len(environments.categories) * len(applications.categories)
    place = applications.codes.to_numpy().astype(np.min_scalar_type(-places - 1))  # small integers sort by radix
    place = place * len(environments.categories) + environments.codes.to_numpy()
    order = np.argsort(place, kind="stable")
    place = place[order]
    bad = _is(deployments["health"], DEGRADED)[order]
    last_good = np.maximum.accumulate(np.where(bad, -1, np.arange(len(order)))) if len(order) else order
    failed = np.flatnonzero(bad)
    target = last_good[failed]
    reachable = (target >= 0) & (place[target] == place[failed])
    return order[failed], np.where(reachable, order[target], -1)


def rollback_alert(rollback: Mapping[str, Any]) -> Dict[str, Any]:
    """What is told of one rollback: its columns as plain JSON values, with a `text` for people."""
    outcome = "succeeded" if rollback["success"] else "FAILED"
    releases = f"from {rollback['from_commit'][:7]} to {rollback['to_commit'][:7]}"
    text = (
        f"Rollback {outcome}: {rollback['application']} in {rollback['environment']} {releases} "
        f"after {rollback['duration_min']:.1f} minutes ({rollback['reason']})"
    )
    return {"text": text, **rollback, "timestamp": rollback["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ")}


def _webhook_host(url: str) -> str:
    """The host of a usable webhook address; GitOpsError, without the rest of it, which is a secret."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.hostname and parts.port != 0 and not parts.username and url.isascii() and url.isprintable()
    except ValueError:
        raise GitOpsError("the webhook must be an http:// or https:// address; its host or port is none") from None
    if parts.scheme not in ("http", "https"):
        raise GitOpsError(
            f"the webhook must be an http:// or https:// address, not one of scheme {_quote(parts.scheme)}"
        )
    if not usable or " " in url:
        raise GitOpsError(
            "the webhook must be an http:// or https:// address with a host, no user and no odd characters"
        )
    return str(parts.hostname)


class WebhookAlerts:
    """POST each rollback to a webhook of the Slack and Mattermost kind, until one does not arrive.

    Callable, for `on_rollback`. Nothing is raised for an endpoint that is dead or refuses: `undelivered`
    counts, `problem` says why (without the address: it is a secret). Redirects are not followed.
    """

    timeout = 5.0  # seconds for the whole of a request

    def __init__(self, url: str) -> None:
        self.host = _webhook_host(url)
        self._url, self.undelivered, self.problem = url, 0, ""
        self._open = urllib.request.build_opener(_NoRedirect).open

    def __call__(self, alert: Mapping[str, Any]) -> None:
        if not self.problem:
            self._post(alert)
        self.undelivered += bool(self.problem)

    def _post(self, alert: Mapping[str, Any]) -> None:
        # a socket's timeout is for each read, and for no name to be looked up: a thread can be left behind
        request = urllib.request.Request(self._url, json.dumps(alert).encode(), {"Content-Type": "application/json"})
        outcome = [f"timed out after {self.timeout:g} s"]
        sending = threading.Thread(target=self._send, args=(request, outcome), daemon=True)
        sending.start()
        sending.join(self.timeout)
        self.problem = outcome[-1]

    def _send(self, request: urllib.request.Request, outcome: List[str]) -> None:
        try:
            self._open(request, timeout=self.timeout).close()
            outcome.append("")
        except (OSError, ValueError, http.client.HTTPException) as error:
            outcome.append(_one_line(error))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A webhook that answers with another address is refused: the alert is not for that one."""

    def redirect_request(self, *_: Any) -> None:
        return None


# ---- DORA calculator: history -> metrics ----------------------------------------------------------


class Target(NamedTuple):
    """What counts as elite: a value on the better side of the limit."""

    better: str  # ">" or "<"
    limit: float
    unit: str


class Metric(NamedTuple):
    """What a key of `metrics` means."""

    label: str
    unit: str
    definition: str
    elite: Optional[Target] = None


METRICS: Dict[str, Metric] = {
    "deployment_frequency": Metric(
        "Deployment Frequency",
        "/day",
        "Deployments to all environments, failed ones included, over the days of the window.",
        Target(">", 1, "/day"),
    ),
    "mean_lead_time": Metric(
        "Lead Time",
        " hours",
        "Mean time from a commit to the start of the production sync that applied it, over the "
        "Synced production deployments; a commit with a later time than its sync is left out.",
        Target("<", 24, "h"),
    ),
    "mttr_minutes": Metric(
        "MTTR",
        " minutes",
        "Mean duration of the rollbacks that succeeded, in all environments.",
        Target("<", 60, "min"),
    ),
    "change_failure_rate": Metric(
        "Change Failure Rate",
        "%",
        "Degraded deployments over all deployments, in all environments where failures can be seen.",
        Target("<", 15, "%"),
    ),
    "median_lead_time": Metric("Median Lead Time", " hours", "The median where mean_lead_time takes the mean."),
    "lead_time_hours_by_environment": Metric(
        "Where the Lead Time Goes",
        " hours",
        "For each environment the mean time from the sync of the stage before (in the "
        "first: from the commit) to its own; the parts add up to mean_lead_time.",
    ),
    "success_rates": Metric(
        "Success Rates", "%", "For each environment its Healthy deployments over all its deployments."
    ),
    "overall_success_rate": Metric(
        "Overall Success Rate", "%", "What is left of 100 % without the change_failure_rate."
    ),
    "production_deployment_frequency": Metric(
        "Production Alone", "/day", "Deployments to production, failed ones included, over the days of the window."
    ),
    "total_deployments": Metric("Total Deployments", "", "Rows of the deployments table."),
    "failed_deployments": Metric("Failed Deployments", "", "Deployments whose health is Degraded."),
    "total_rollbacks": Metric("Total Rollbacks", "", "Rows of the rollbacks table."),
    "successful_rollbacks": Metric("Successful Rollbacks", "", "Rollbacks with success."),
    "failures_without_rollback": Metric(
        "No Earlier Release",
        "",
        "Failed deployments without a rollback; in a simulation: there was no earlier good release to return to.",
    ),
    "failure_reasons": Metric(
        "Main Failure Reasons", "", "How many deployments failed for each reason, most frequent first."
    ),
    "failure_reasons_by_environment": Metric(
        "Failure Reasons by Environment", "", "How many deployments to each environment failed for each reason."
    ),
}
"""Every key of the metrics dict: its label, unit and definition. The four with an elite target are the
benchmarks of the report, the scorecard, the maturity level and the advice."""

BENCHMARKS = {key: metric.elite for key, metric in METRICS.items() if metric.elite}


class Level(NamedTuple):
    """A maturity level: met by `score` of the four benchmarks (or, for the lowest, fewer)."""

    score: int
    icon: str
    name: str
    tier: str  # the share of teams that is commonly said to reach it: indicative
    medal: str  # the colour of the drawn medal


LEVELS = (
    Level(4, "🏆", "ELITE PERFORMER", "Top 7% of DevOps teams globally (indicative, not measured)", "#e0a82e"),
    Level(3, "🥈", "HIGH PERFORMER", "Top 25% of DevOps teams globally (indicative, not measured)", "#a3adb8"),
    Level(2, "🥉", "MEDIUM PERFORMER", "Medium (no share of teams is published for it)", "#b87745"),
    Level(0, "📈", "NEEDS IMPROVEMENT", "Developing (no share of teams is published for it)", "#5b7fa6"),
)


def calculate_dora_metrics(history: History) -> Dict[str, Any]:
    """Measure a history: the keys of `METRICS`, unrounded, NaN where undefined.

    `success_rates`, `lead_time_hours_by_environment` and `failure_reasons` are dicts by name.
    """
    deployments, rollbacks = history.deployments, history.rollbacks
    environment = _codes(deployments["environment"], history.environments)
    bad = _is(deployments["health"], DEGRADED)
    total, failed = np.bincount(environment, minlength=len(history.environments)), _count(bad)
    healthy = total - np.bincount(environment[bad], minlength=len(total))
    parts = _lead_times(history, environment)
    lead = parts.sum(axis=1)
    duration = rollbacks["duration_min"].to_numpy()[rollbacks["success"].to_numpy(bool)]
    seen = np.array([history.failures_observable(name) for name in history.environments])
    return {
        "deployment_frequency": _frequency(history),
        "mean_lead_time": _mean(lead),
        "median_lead_time": float(np.median(lead)) if len(lead) else math.nan,
        "lead_time_hours_by_environment": dict(zip(history.environments, (_mean(part) for part in parts.T))),
        "success_rates": {
            name: _percent(good, of)
            for name, good, of in zip(history.environments, healthy.tolist(), (total * seen).tolist())
        },
        "overall_success_rate": _percent(int(healthy[seen].sum()), int(total[seen].sum())),
        "change_failure_rate": _percent(failed, int(total[seen].sum())),
        "mttr_minutes": _mean(duration),
        "production_deployment_frequency": _frequency(history, history.production),
        "total_deployments": len(deployments),
        "failed_deployments": failed,
        "total_rollbacks": len(rollbacks),
        "successful_rollbacks": len(duration),
        "failures_without_rollback": failed - len(rollbacks),
        "failure_reasons": _ranking(deployments["failure_reason"]),
        "failure_reasons_by_environment": {
            name: _ranking(deployments["failure_reason"][environment == number])
            for number, name in enumerate(history.environments)
        },
    }


def _frequency(history: History, environment: Optional[str] = None) -> float:
    """Deployments a day (to an environment): over the window, or over what the history of each application
    really covers; NaN where that is nothing."""
    rows = history.deployments
    rows = rows if environment is None else rows[_is(rows["environment"], environment)]
    if history.coverage is None:
        return len(rows) / history.window.days
    if environment is not None and history.covered(environment).empty:
        return math.nan
    places = collections.Counter(zip(rows["application"].astype(object), rows["environment"].astype(object)))
    days = covered_days(history)
    return math.fsum(count / days[place] for place, count in places.items())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _percent(part: float, whole: float) -> float:
    return float(100 * part / whole) if whole else math.nan


def _ranking(words: pd.Series) -> Dict[str, int]:
    """How often each word occurs, the most frequent first, by name where equal; missing ones left out."""
    codes = words.cat.codes.to_numpy()
    counts = np.bincount(codes[codes >= 0], minlength=len(words.cat.categories))
    return {
        word: int(n) for n, word in sorted(zip(counts, words.cat.categories), key=lambda pair: (-pair[0], pair[1])) if n
    }


def _lead_times(history: History, environment: np.ndarray) -> np.ndarray:
    """Hours from each environment's sync to the next: a row for each Synced production deployment of
    a known commit, a column for each environment (the first counts from the commit)."""
    deployments, production = history.deployments, len(history.environments) - 1
    commit = _codes(deployments["commit_sha"], history.git_commits["sha"])
    start = _seconds(deployments["timestamp"])
    committed = _seconds(history.git_commits["timestamp"])
    shipped = np.flatnonzero((environment == production) & (commit >= 0) & _is(deployments["status"], SYNCED))
    shipped = shipped[committed[commit[shipped]] <= start[shipped]]  # a real commit may bear a wrong time
    marks = [committed[commit[shipped]]]
    for stage in range(production):
        rows = np.flatnonzero((environment == stage) & (commit >= 0))[::-1]
        first = np.full(len(committed), -1, np.int64)
        first[commit[rows]] = start[rows]  # reversed, so that the first of several deployments stays
        passed = first[commit[shipped]]
        marks.append(np.where(passed < 0, marks[-1], passed))
    return np.diff(np.stack([*marks, start[shipped]], axis=1), axis=1) / 3600


def is_elite(key: str, metrics: Mapping[str, Any]) -> bool:
    """Whether a benchmark is met. Undefined is not, with one exception: where no deployment failed
    there was nothing to recover from, and the recovery time counts as met."""
    value, (better, limit, _) = metrics[key], BENCHMARKS[key]
    if key == "mttr_minutes" and math.isnan(value):
        return metrics["change_failure_rate"] == 0
    return bool(value > limit if better == ">" else value < limit)


def maturity_level(metrics: Mapping[str, Any]) -> Tuple[int, Level]:
    """(How many benchmarks are met, the level this gives). Raises GitOpsError for a missing metric."""
    missing = [key for key in BENCHMARKS if key not in metrics]
    if missing:
        raise GitOpsError(f"the metrics have no {missing[0]!r}; calculate_maturity needs {', '.join(BENCHMARKS)}")
    score = sum(is_elite(key, metrics) for key in BENCHMARKS)
    return score, next(level for level in LEVELS if score >= level.score)


def calculate_maturity(metrics: Mapping[str, Any]) -> str:
    """The maturity level of a metrics dict, with its icon.

    >>> calculate_maturity({"deployment_frequency": 13.7, "mean_lead_time": 32.4,
    ...                     "mttr_minutes": 12.3, "change_failure_rate": 6.1})
    '🥈 HIGH PERFORMER'
    """
    level = maturity_level(metrics)[1]
    return f"{level.icon} {level.name}"


# ---- DORA calculator: history -> production, as dora.dev defines it -------------------------------

# Production as dora.dev defines it today: five metrics, medians, and how sure one can be of each.


class ProductionMetric(NamedTuple):
    """What a metric of production means, and in which unit it is."""

    label: str
    unit: str
    definition: str


PRODUCTION_METRICS: Dict[str, ProductionMetric] = {
    "change_lead_time_hours": ProductionMetric(
        "Change lead time",
        "h",
        "Median, over every change, of the time from its commit to the end of the first Synced "
        "production deployment that contains it; changes that shipped with a newer release, and in one that turned "
        "out bad later, included.",
    ),
    "deployment_frequency_per_day": ProductionMetric(
        "Deployment frequency", "/day", "Deployments to production, failed ones included, over the days covered."
    ),
    "failed_deployment_recovery_minutes": ProductionMetric(
        "Failed deployment recovery time",
        "min",
        "Median, over the failed production deployments, of the time from "
        "their end to the end of the rollback that succeeded, or of the next good deployment of the application "
        "where it failed or there was none.",
    ),
    "change_fail_rate_pct": ProductionMetric(
        "Change fail rate", "%", "Degraded production deployments over all production deployments."
    ),
    "deployment_rework_rate_pct": ProductionMetric(
        "Deployment rework rate",
        "%",
        "Rollbacks in production and the deployments that ended a failure which no "
        "rollback had ended, over all production deployments and rollbacks.",
    ),
}

ALL_APPLICATIONS = "(all)"
_Z = 1.959963984540054  # the normal quantile of a 95 % interval


class _Production(NamedTuple):
    """What happened in production: for each event the code of its application, and what was measured."""

    deployed: np.ndarray
    failed: np.ndarray  # the deployments that failed
    rolled_back: np.ndarray
    fixed: np.ndarray  # the good deployments that ended a failure
    change: np.ndarray
    lead_hours: np.ndarray  # of each change; NaN while it has not shipped
    recovery_minutes: np.ndarray  # of each failed deployment; NaN while it is open
    days: np.ndarray  # covered, of each application

    def together(self, otherwise: float) -> _Production:
        """The same with all applications as one; the days covered are `otherwise` if there is none."""
        rates = np.bincount(self.deployed, minlength=len(self.days)) / self.days
        days = len(self.deployed) / rates.sum() if rates.sum() else max(self.days, default=float(otherwise))
        return self._replace(
            **{
                name: np.zeros_like(getattr(self, name))
                for name in ("deployed", "failed", "rolled_back", "fixed", "change")
            },
            days=np.array([days]),
        )


def production_metrics(history: History) -> pd.DataFrame:
    """dora.dev's five metrics of production. A row is a metric of an application (or of all of them).

    Columns: `application`, `metric` (the keys of `PRODUCTION_METRICS`), `value` (a median, rate or
    frequency; NaN where there is no data), `low` and `high` (its 95 % interval), `n`, `mean` and `p90` (of
    the lead and recovery times), `open` (changes not shipped, failures not recovered at the end).
    """
    names = sorted({*_ranking(history.deployments["application"]), *_ranking(history.git_commits["application"])})
    observable = pd.Series(True, index=names, dtype=bool)
    if history.coverage is not None:
        observable = history.covered(history.production).groupby("application")["failures_observable"].any()
        names = list(observable.index)
    events = _production_events(history, names)
    together = events.together(history.window.days if history.coverage is None else math.nan)
    frames = [_measure(together, [ALL_APPLICATIONS], np.array([history.failures_observable(history.production)]))]
    if names:
        frames.append(_measure(events, names, observable.to_numpy(bool)))
    return pd.concat(frames, ignore_index=True)


def _production_events(history: History, names: Sequence[str]) -> _Production:
    deployments = history.deployments[_is(history.deployments["environment"], history.production)]
    rollbacks = history.rollbacks[_is(history.rollbacks["environment"], history.production)]
    application = _codes(deployments["application"], names).astype(np.int64)
    bad = _is(deployments["health"], DEGRADED)
    end = _seconds(deployments["timestamp"]) + deployments["duration_sec"].to_numpy()
    next_good = _next_good(_spans(history, application, end, names), bad)
    rolled_back = _rollback_ends(deployments[bad], rollbacks)
    forward = np.where(next_good >= 0, end[next_good], -1) if len(end) else next_good
    restored = np.where(rolled_back >= 0, rolled_back, forward)
    minutes = np.where(restored >= 0, np.maximum(restored - end[bad], 0) / 60, np.nan)
    change, hours = _shipped_changes(history, deployments, names)
    return _Production(
        application,
        application[bad],
        _codes(rollbacks["application"], names).astype(np.int64),
        application[np.unique(next_good[(rolled_back < 0) & (next_good >= 0)])],
        change,
        hours,
        minutes,
        _covered_days(history, names),
    )


def _spans(history: History, application: np.ndarray, end: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """A number for each span without a gap that a deployment lies in: over a gap nothing is known to recover."""
    if history.coverage is None or not len(end):
        return application
    covered = history.covered(history.production)
    gaps = pd.Index(names, dtype=object).get_indexer(covered["application"]) * (_LAST_SECOND + 1) + _seconds(
        covered["from"]
    )
    return application + np.searchsorted(np.sort(gaps), application * (_LAST_SECOND + 1) + end, side="right")


def _next_good(span: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """For each failed deployment the row of the next good one in its span, -1 if there is none."""
    order = np.argsort(span, kind="stable")
    rows = np.where(bad[order], _NEVER, np.arange(len(order)))
    following = _earliest_of_newer(rows, span[order])
    found = np.full(len(order), -1)
    found[order] = np.where(following < len(order), order[np.minimum(following, len(order) - 1)], -1)
    return found[bad]


def _rollback_ends(failed: pd.DataFrame, rollbacks: pd.DataFrame) -> np.ndarray:
    """Seconds at which the rollback of each failed deployment had succeeded, -1 where none did."""
    good = rollbacks[rollbacks["success"]]
    ends = _seconds(good["timestamp"]) + np.rint(good["duration_min"].to_numpy() * 60).astype(np.int64)
    keys = pd.MultiIndex.from_arrays(
        [good["application"].astype(object), good["from_commit"], _seconds(good["timestamp"])]
    )
    detected = _seconds(failed["timestamp"]) + failed["duration_sec"].to_numpy()
    known = pd.Series(ends, index=keys).groupby(level=[0, 1, 2]).min()
    wanted = pd.MultiIndex.from_arrays(
        [failed["application"].astype(object), failed["commit_sha"].astype(object), detected]
    )
    return known.reindex(wanted, fill_value=-1).to_numpy() if len(known) else np.full(len(failed), -1)


def _shipped_changes(
    history: History, deployments: pd.DataFrame, names: Sequence[str]
) -> Tuple[np.ndarray, np.ndarray]:
    """(Application, lead time in hours) of every change, NaN while it has not shipped."""
    if history.changes is not None:
        changes = history.changes_to(history.production)
        hours = (_seconds(changes["deployed"]) - _seconds(changes["committed"])) / 3600
        hours[changes["deployed"].isna().to_numpy()] = np.nan
        return pd.Index(names, dtype=object).get_indexer(changes["application"]), hours
    application = _codes(history.git_commits["application"], names).astype(np.int64)
    commit = _codes(deployments["commit_sha"], history.git_commits["sha"])
    shipped = np.flatnonzero(_is(deployments["status"], SYNCED) & (commit >= 0))[::-1]
    end = np.full(len(application), _NEVER)
    np.minimum.at(
        end, commit[shipped], (_seconds(deployments["timestamp"]) + deployments["duration_sec"].to_numpy())[shipped]
    )
    order = np.argsort(application, kind="stable")
    end[order] = np.minimum(end[order], _earliest_of_newer(end[order], application[order]))
    return application, np.where(end < _NEVER, (end - _seconds(history.git_commits["timestamp"])) / 3600, np.nan)


def _covered_days(history: History, names: Sequence[str]) -> np.ndarray:
    """The days that the history of each application covers in production; at least one."""
    if history.coverage is None:
        return np.full(len(names), float(history.window.days))
    days = covered_days(history)
    return np.array([days.get((name, history.production), 1.0) for name in names])


def covered_days(history: History) -> Dict[Tuple[str, str], float]:
    """{(application, environment): days covered, at least one} of a real history."""
    assert history.coverage is not None
    days: Dict[Tuple[str, str], float] = collections.defaultdict(float)
    spans = (history.coverage["to"] - history.coverage["from"]).dt.total_seconds() / _DAY
    for name, environment, span in zip(history.coverage["application"], history.coverage["environment"], spans):
        days[name, environment] += span
    return {place: max(span, 1.0) for place, span in days.items()}


def _measure(events: _Production, names: Sequence[str], observable: np.ndarray) -> pd.DataFrame:
    size = len(names)
    total, failed, rolled_back, fixed = (
        np.bincount(codes[codes >= 0], minlength=size)
        for codes in (events.deployed, events.failed, events.rolled_back, events.fixed)
    )
    low, high = (np.array([_poisson_interval(int(n))[edge] for n in total]) for edge in (0, 1))
    frames = {
        "change_lead_time_hours": _medians(events.change, events.lead_hours, size),
        "deployment_frequency_per_day": dict(
            value=total / events.days, low=low / events.days, high=high / events.days, n=total
        ),
        "failed_deployment_recovery_minutes": _medians(events.failed, events.recovery_minutes, size),
        "change_fail_rate_pct": _rates(failed, total * observable),
        "deployment_rework_rate_pct": _rates(rolled_back + fixed, (total + rolled_back) * observable),
    }
    tables = [pd.DataFrame({"application": names, "metric": metric, **columns}) for metric, columns in frames.items()]
    table = pd.concat(tables, ignore_index=True)
    place = np.arange(len(table)).reshape(len(frames), size).T.ravel()  # application by application
    table = table.iloc[place].reset_index(drop=True)
    # nine decimals: the last bits of a logarithm differ between versions of numpy
    table = table.assign(open=table["open"].fillna(0).astype(int)).round({"low": 9, "high": 9, "mean": 9})
    return table[["application", "metric", "value", "low", "high", "n", "mean", "p90", "open"]]


def _rates(part: np.ndarray, whole: np.ndarray) -> Dict[str, np.ndarray]:
    """Percentages with Wilson's score interval (E. B. Wilson, JASA 22, 1927)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share, shrink = part / whole, 1 + _Z**2 / whole
        middle = (share + _Z**2 / (2 * whole)) / shrink
        half = _Z / shrink * np.sqrt(share * (1 - share) / whole + (_Z / (2 * whole)) ** 2)
    defined = whole > 0
    return {
        "value": np.where(defined, 100 * share, np.nan),
        "n": whole,
        "low": np.where(defined, 100 * np.maximum(middle - half, 0), np.nan),
        "high": np.where(defined, 100 * np.minimum(middle + half, 1), np.nan),
    }


def _medians(group: np.ndarray, values: np.ndarray, size: int) -> Dict[str, np.ndarray]:
    """Median, mean and 90th percentile of each group; NaN values are open and left out. The interval is
    between two order statistics (Hahn and Meeker, Statistical Intervals, 5.2), which assumes no distribution."""
    known = ~np.isnan(values) & (group >= 0)
    order = np.lexsort((values[known], group[known]))
    ordered, n = values[known][order], np.bincount(group[known], minlength=size)
    first = np.cumsum(n) - n
    ranks = np.array([_median_ranks(int(count)) for count in n]).reshape(-1, 2)
    sums = np.bincount(group[known], values[known], minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums / n
    return {
        "value": _at_rank(ordered, first, n, (n - 1) * 0.5),
        "low": _at_rank(ordered, first, n, ranks[:, 0]),
        "high": _at_rank(ordered, first, n, ranks[:, 1]),
        "n": n,
        "mean": mean,
        "p90": _at_rank(ordered, first, n, (n - 1) * 0.9),
        "open": np.bincount(group[np.isnan(values) & (group >= 0)], minlength=size),
    }


def _at_rank(ordered: np.ndarray, first: np.ndarray, n: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """The value at a (fractional) rank of each group; NaN for an empty group or a NaN rank."""
    out = np.full(len(n), np.nan)
    some = (n > 0) & ~np.isnan(rank)
    below = np.floor(rank[some]).astype(np.int64)
    above = np.minimum(below + 1, n[some] - 1)
    low, high = ordered[first[some] + below], ordered[first[some] + above]
    out[some] = low + (high - low) * (rank[some] - below)
    return out


@functools.lru_cache(maxsize=None)
def _median_ranks(n: int) -> Tuple[float, float]:
    """Ranks (from 0) of the order statistics that enclose the median with 95 % or more: the binomial
    distribution of how many values lie below it. NaN for fewer than six values: no two of them do."""
    if n > 5000:
        below = math.floor((n + 1) / 2 - _Z * math.sqrt(n) / 2)  # the normal approximation
    else:
        k = np.arange(n // 2)
        log_probability = np.cumsum(np.append(-n * math.log(2), np.log((n - k) / (k + 1))))
        below = int(np.searchsorted(np.cumsum(np.exp(log_probability)), 0.025, side="right"))
    return (float(below - 1), float(n - below)) if below >= 1 else (math.nan, math.nan)


@functools.lru_cache(maxsize=None)
def _poisson_interval(n: int) -> Tuple[float, float]:
    """The exact 95 % interval of a Poisson mean (F. Garwood, Biometrika 28, 1936): the means that would
    give n or more, and n or fewer, with probability 2.5 %."""
    span = 10 * math.sqrt(n) + 30
    low = _bisect(lambda mean: _poisson_at_most(n - 1, mean) - 0.975, max(n - span, 0.0), n) if n else 0.0
    return low, _bisect(lambda mean: _poisson_at_most(n, mean) - 0.025, n, n + span)


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return low


def _poisson_at_most(n: int, mean: float) -> float:
    if mean <= 0:
        return 1.0
    k = np.arange(max(0, n - int(12 * math.sqrt(n)) - 60), n + 1)[::-1]
    largest = n * math.log(mean) - mean - math.lgamma(n + 1)
    return float(np.exp(largest + np.append(0.0, np.cumsum(np.log(k[:-1] / mean)))).sum())


QUICK_CHECK_MEANS_2025 = {
    "change_lead_time_hours": 5.5,
    "deployment_frequency_per_day": 4.8,
    "failed_deployment_recovery_minutes": 7.4,
    "change_fail_rate_pct": 8.1,
    "deployment_rework_rate_pct": 7.8,
}
"""dora.dev's Quick Check: the mean score of all industries in 2025."""

_MONTH = 30.4375  # days
_DURATION_BANDS = np.array([1, 24, 7 * 24, _MONTH * 24, 6 * _MONTH * 24])  # hours: below them 6, 5, 4, 3, 2, else 1
_FREQUENCY_BANDS = np.array([1 / (6 * _MONTH), 1 / _MONTH, 1 / 7, 1, 2])  # a day: from them on 2, 3, 4, 5, 6, else 1

CLUSTERS_2024 = (  # level, lead time, frequency, change fail rate, recovery time
    ("Elite", "less than one day", "on demand", "5%", "less than one hour"),
    ("High", "one day to one week", "daily to weekly", "20%", "less than one day"),
    ("Medium", "one week to one month", "weekly to monthly", "10%", "less than one day"),
    ("Low", "one to six months", "monthly to half-yearly", "40%", "one week to one month"),
)
"""The clusters of the 2024 Accelerate State of DevOps report. They describe groups of survey answers;
they are no thresholds (the medium cluster fails less often than the high one)."""


def quick_check(values: Mapping[str, float]) -> Dict[str, float]:
    """The Quick Check score, 0 to 10, of each metric that is defined (hours, deployments a day, minutes,
    percentages), and `overall`, their mean; NaN where there is none."""
    scores = {}
    for metric, value in values.items():
        if math.isnan(value):
            scores[metric] = math.nan
        elif metric.endswith("_pct"):
            scores[metric] = 10 - value / 10
        elif metric == "deployment_frequency_per_day":
            scores[metric] = 2.0 * int(np.searchsorted(_FREQUENCY_BANDS, value, side="right"))
        else:
            hours = value if metric == "change_lead_time_hours" else value / 60
            scores[metric] = 10 - 2.0 * int(np.searchsorted(_DURATION_BANDS, hours, side="right"))
    defined = [score for score in scores.values() if not math.isnan(score)]
    return {"overall": math.fsum(defined) / len(defined) if defined else math.nan, **scores}


# ---- Reporting engine: metrics -> console ---------------------------------------------------------

_LINE = "-" * 80
_DOUBLE_LINE = "=" * 80


def _show(value: float, unit: str = "", digits: int = 2) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "n/a"
    return f"{value}{unit}" if isinstance(value, int) else f"{value:.{digits}f}{unit}"


def _row(label: str, value: str) -> str:
    return f"{label:<31} {value}"


def _metric_row(metrics: Mapping[str, Any], key: str, label: str = "") -> str:
    return _row((label or METRICS[key].label) + ":", _show(metrics[key], METRICS[key].unit))


def _share_rows(counts: Mapping[str, int]) -> List[str]:
    whole = sum(counts.values())
    return [
        _row(f"  • {name}:", f"{count} ({_show(_percent(count, whole), '%', 1)})") for name, count in counts.items()
    ]


def _section(title: str, *rows: str) -> List[str]:
    return [title, _LINE, *rows, ""]


def _listed(title: str, rows: Sequence[str]) -> List[str]:
    """A titled list within a section; nothing if it has no row."""
    return ["", title, *rows] if rows else []


def _counts_by(table: pd.DataFrame, column: str, names: Sequence[str]) -> Dict[str, int]:
    codes = _codes(table[column], names)
    return dict(zip(names, np.bincount(codes[codes >= 0], minlength=len(names)).tolist()))


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def format_report(
    history: History,
    metrics: Mapping[str, Any],
    flow: Optional[pd.DataFrame] = None,
    seed: Optional[int] = None,
    advice: Optional[Sequence[str]] = None,
) -> str:
    """The console report. `flow` is that of a simulation; without it or the `seed` their lines are left
    out. `advice` takes the place of the recommendations that follow from the metrics alone."""
    window = history.window
    lines = [
        _DOUBLE_LINE,
        "🔄 GITOPS WORKFLOW AUTOMATION REPORT",
        _DOUBLE_LINE,
        _row("Window (UTC):", f"{window.start:%Y-%m-%d} to {window.last:%Y-%m-%d} ({window.days} days)"),
    ]
    if seed is not None and history.coverage is None:
        lines.append(_row("Seed:", f"{seed} (the same seed, window and scenario give the same run)"))
    elif seed is not None:
        lines.append(_row("Seed:", f"{seed} (of the months on which recommendations were tried)"))
    lines += [
        "",
        *_coverage_section(history),
        *_git_section(history),
        *_dora_section(history, metrics, flow),
        *_success_section(history, metrics),
        *_rollback_section(history, metrics),
        *_production_section(history),
        *_maturity_section(metrics, recommendations(metrics) if advice is None else advice),
        _DOUBLE_LINE,
    ]
    return "\n".join(lines)


def _git_section(history: History) -> List[str]:
    commits = history.git_commits
    types = _ranking(commits["type"])
    named = {f"{name} ({COMMIT_TYPES[name]})" if name in COMMIT_TYPES else name: count for name, count in types.items()}
    return _section(
        "📝 GIT ACTIVITY",
        _row("Total Commits:", f"{len(commits)}"),
        _row("Contributors:", f"{len(_ranking(commits['author']))}"),
        _row("Applications:", f"{len(_ranking(commits['application']))}"),
        *_listed("Commit Type Breakdown:", _share_rows(named)),
    )


def _dora_section(history: History, metrics: Mapping[str, Any], flow: Optional[pd.DataFrame]) -> List[str]:
    counts = _counts_by(history.deployments, "environment", history.environments)
    rows = [
        _metric_row(metrics, "deployment_frequency"),
        _metric_row(metrics, "production_deployment_frequency", "  of which Production"),
        _metric_row(metrics, "total_deployments"),
        _metric_row(metrics, "mean_lead_time", "Mean Lead Time"),
        _metric_row(metrics, "median_lead_time"),
        _metric_row(metrics, "change_failure_rate"),
        _metric_row(metrics, "mttr_minutes"),
        *_listed("Deployment Distribution:", _share_rows({_capital(name): count for name, count in counts.items()})),
    ]
    if flow is not None:
        rows += [
            "",
            "Releases Not Deployed:",
            _row("  • Superseded by a newer one:", f"{flow['superseded'].sum()}"),
            _row("  • In flight at the end:", f"{flow['in_flight'].sum()}"),
        ]
        rows += [_row("  • Held by an approval gate:", f"{flow['held'].sum()}")] if flow["held"].any() else []
    if not math.isnan(metrics["mean_lead_time"]):
        rows += _listed("Where the Lead Time Goes:", _lead_time_rows(metrics))
    return _section("🚀 DEPLOYMENT METRICS (DORA)", *rows)


def _lead_time_rows(metrics: Mapping[str, Any]) -> List[str]:
    parts, whole = metrics["lead_time_hours_by_environment"], metrics["mean_lead_time"]
    return [
        _row(f"  • Into {name}:", f"{_show(hours, ' hours')} ({_show(_percent(hours, whole), '%', 1)})")
        for name, hours in parts.items()
    ]


def rate_grade(percent: float) -> Tuple[str, str]:
    """(The icon, the colour) of a success rate: good from 95 %, fair from 90 %."""
    if math.isnan(percent):
        return "⚪", "#9aa5b1"
    return ("🟢", "#2e9e5b") if percent >= 95 else ("🟡", "#f2c230") if percent >= 90 else ("🔴", "#d64545")


def _success_section(history: History, metrics: Mapping[str, Any]) -> List[str]:
    counts = _counts_by(history.deployments, "environment", history.environments)
    healthy = _counts_by(
        history.deployments[_is(history.deployments["health"], HEALTHY)], "environment", history.environments
    )
    width = max(16, *map(len, counts))
    rows = [
        f"{rate_grade(rate)[0]} {name:<{width}} {_show(rate, '%'):<7} {_successful(healthy[name], counts[name], rate)}"
        for name, rate in metrics["success_rates"].items()
    ]
    known = [name for name, rate in metrics["success_rates"].items() if not math.isnan(rate)]
    share = f" ({sum(healthy[name] for name in known)}/{sum(counts[name] for name in known)})" if known else ""
    overall = _show(metrics["overall_success_rate"], "%") + share
    return _section("✅ SUCCESS RATES BY ENVIRONMENT", *rows, "", _row("Overall Success Rate:", overall))


def _successful(healthy: int, count: int, rate: float) -> str:
    if count and math.isnan(rate):
        return f"({count} deployments, failures not observable)"
    return f"({healthy}/{count} successful)"


def _rollback_section(history: History, metrics: Mapping[str, Any]) -> List[str]:
    rollbacks = history.rollbacks
    done = rollbacks["duration_min"].to_numpy()[rollbacks["success"].to_numpy(bool)]
    total = len(rollbacks)
    rows = [
        _row("Total Rollbacks:", f"{total}"),
        _row("Successful Rollbacks:", f"{len(done)}"),
        _row("Failed Rollbacks:", f"{total - len(done)}"),
        _row("Rollback Success Rate:", _show(_percent(len(done), total), "%", 1)),
        _metric_row(metrics, "failures_without_rollback", "" if history.coverage is None else "Not Rolled Back"),
        "",
        _row("Average Rollback Time:", _show(metrics["mttr_minutes"], " minutes")),
        _row("Fastest Rollback:", _show(float(done.min()) if len(done) else math.nan, " minutes", 1)),
        _row("Slowest Rollback:", _show(float(done.max()) if len(done) else math.nan, " minutes", 1)),
    ]
    counts = _counts_by(rollbacks, "environment", history.environments)
    if total:
        rows += _listed("Rollbacks by Environment:", _share_rows({_capital(name): n for name, n in counts.items()}))
    rows += _listed("Main Failure Reasons:", _reason_rows(metrics))
    return _section("🔄 ROLLBACK SUMMARY", *rows)


def _reason_rows(metrics: Mapping[str, Any], most: int = 3) -> List[str]:
    return [
        _row(f"  • {reason}:", f"{count} ({_show(_percent(count, metrics['failed_deployments']), '%', 1)})")
        for reason, count in list(metrics["failure_reasons"].items())[:most]
    ]


def _production_section(history: History) -> List[str]:
    table = production_metrics(history)
    overall = table[table["application"] == ALL_APPLICATIONS].set_index("metric")
    rows = [
        f"{'':<31} {'value':>10}  {'95% interval':<19} {'mean':>8} {'p90':>8} {'n':>6}",
        *(_production_row(metric, line, _hidden(overall)) for metric, line in overall.iterrows()),
    ]
    rows += [
        _row("Changes not yet shipped:", f"{overall.loc['change_lead_time_hours', 'open']}"),
        _row("Failures not yet recovered:", f"{overall.loc['failed_deployment_recovery_minutes', 'open']}"),
    ]
    if history.coverage is not None:
        rows.append(
            "Lead time is config-repository lead time: from the commit to production's source path, not of the code."
        )
        if not history.coverage["failures_observable"].all():
            rows.append(
                "n/a (failures not observable): only successful syncs are known there; the rates above count them good."
            )
    rows += [f"Revisions without a lead time: {count} ({reason})" for reason, count in sorted(history.undated.items())]
    return _section(
        "🎯 PRODUCTION, AS DORA DEFINES IT",
        *rows,
        "",
        *_application_rows(table),
        "",
        *_quick_check_rows(overall),
        "",
        *_cluster_rows(),
    )


def _hidden(table: pd.DataFrame) -> bool:
    """Whether there were deployments, but their failures could not have been seen."""
    return math.isnan(table["value"]["change_fail_rate_pct"]) and table["n"]["deployment_frequency_per_day"] > 0


def _undefined(metric: str, hidden: bool) -> str:
    return "n/a" if hidden and metric != "change_lead_time_hours" else "no data"


def _production_row(metric: Any, line: pd.Series, hidden: bool) -> str:
    label, unit, _ = PRODUCTION_METRICS[metric]
    if math.isnan(line["value"]):
        why = _undefined(metric, hidden)
        return _row(label + ":", f"   {why}" + " (failures not observable)" * (why == "n/a"))
    interval = "" if math.isnan(line["low"]) else f"{_show(line['low'])} to {_show(line['high'])}"
    spread = " ".join(f"{'' if math.isnan(line[key]) else _show(line[key]):>8}" for key in ("mean", "p90"))
    return f"{label + ':':<31} {_show(line['value'], unit):>10}  {interval:<19} {spread} {line['n']:>6}"


def _application_rows(table: pd.DataFrame, most: int = 15) -> List[str]:
    """A line for each application, those deployed most first."""
    each = table[table["application"] != ALL_APPLICATIONS]
    if each.empty:
        return ["No application in production"]
    wide = each.pivot(index="application", columns="metric", values=["value", "n"])
    ranked = wide["n"]["deployment_frequency_per_day"].sort_values(ascending=False, kind="mergesort").index
    heads = ("lead time", "frequency", "recovery", "fail rate", "rework")
    lines = ["{:<31} ".format("By application:") + " ".join(f"{head:>11}" for head in heads)]
    for name in ranked[:most]:
        one = wide.loc[name].unstack(level=0)
        cells = (
            _undefined(metric, _hidden(one))
            if math.isnan(one["value"][metric])
            else _show(one["value"][metric], PRODUCTION_METRICS[metric].unit)
            for metric in PRODUCTION_METRICS
        )
        lines.append(f"{_row('  • ' + name, '')}" + " ".join(f"{cell:>11}" for cell in cells))
    return lines + ([f"  and {len(ranked) - most} more (--json has them all)"] if len(ranked) > most else [])


def _quick_check_rows(overall: pd.DataFrame) -> List[str]:
    scores = quick_check(overall["value"].to_dict())
    defined = sum(not math.isnan(scores[metric]) for metric in PRODUCTION_METRICS)
    mean = "" if defined == len(PRODUCTION_METRICS) else f" (the mean of the {defined} that have data)"
    line = "  • {:<33} {:>4}   {}".format
    rows = [
        line(PRODUCTION_METRICS[metric].label + ":", _show(scores[metric], "", 1), f"industry {industry}")
        for metric, industry in QUICK_CHECK_MEANS_2025.items()
    ]
    title = "DORA Quick Check, 0 to 10 (industry: the mean of all industries in 2025):"
    return [title, *rows, line("Overall:", _show(scores["overall"], "", 1), mean.strip()).rstrip()]


def _cluster_rows() -> List[str]:
    return [
        "Clusters of the 2024 survey (they describe groups of answers and are no thresholds):",
        f"  {'':<8} {'lead time':<22} {'frequency':<23} {'fail rate':<10} recovery",
        *(
            f"  {level:<8} {lead:<22} {frequency:<23} {rate:<10} {recovery}"
            for level, lead, frequency, rate, recovery in CLUSTERS_2024
        ),
    ]


def _coverage_section(history: History, most: int = 40) -> List[str]:
    """Which Argo CD application is taken for what, the unclassified all, and what its history covers."""
    if history.coverage is None:
        return []
    line = "{:<28} {:<16} {:<13} {:<21} {:<24} {:>5} {:>11}".format
    lines = [
        line("Argo CD application", "application", "environment", "told by", "covered (UTC)", "syncs", "deployments")
    ]
    plain = history.coverage["environment"] != _UNCLASSIFIED
    shown = history.coverage[~plain | (plain.cumsum() <= most)]
    for row in shown.to_dict("records"):
        covered = f"{row['from']:%Y-%m-%d} to {row['to']:%Y-%m-%d}"
        cells = line(
            *(row[key] for key in ("argocd_name", "application", "environment", "rule")),
            covered,
            row["syncs"],
            row["deployments"],
        )
        lines.append(cells + " truncated" * row["truncated"])
    return _section("📡 WHAT ARGO CD'S HISTORY COVERS", *lines, *_coverage_notes(history.coverage, len(shown)))


def _coverage_notes(coverage: pd.DataFrame, most: int) -> List[str]:
    unclassified = coverage.loc[coverage["environment"] == _UNCLASSIFIED, "argocd_name"].nunique()
    remedy = "--environment-label, --environment-pattern or --environment says what they are"
    notes = {
        f"and {len(coverage) - most} more (--json has them all)": len(coverage) > most,
        f"unclassified: {unclassified}; {remedy}": unclassified,
        "truncated: older entries are gone; the first one left only marks where the covered time begins": (
            coverage["truncated"].any()
        ),
    }
    return [note for note, needed in notes.items() if needed]


def _maturity_section(metrics: Mapping[str, Any], advice: Sequence[str]) -> List[str]:
    score, level = maturity_level(metrics)
    width = max(len(METRICS[key].label) for key in BENCHMARKS) + 1
    rows = [f"{METRICS[key].label + ':':<{width}} {_verdict(key, metrics)}" for key in BENCHMARKS]
    return _section(
        "🏆 DORA MATURITY ASSESSMENT",
        *rows,
        "",
        f"Performance Score: {score}/{len(BENCHMARKS)} metrics meeting elite criteria",
        "",
        f"Maturity Level: {level.icon} {level.name}",
        "",
        "Recommendations:",
        *(f"    {line.strip()}" if line.startswith(" ") else f"  • {line}" for line in advice),
    )


def _verdict(key: str, metrics: Mapping[str, Any]) -> str:
    better, limit, unit = BENCHMARKS[key]
    target = f"{better}{limit:g}{unit}"
    if key == "change_failure_rate" and math.isnan(metrics[key]) and metrics["total_deployments"]:
        return f"⚪ n/a ({target} target, failures not observable)"
    if math.isnan(metrics[key]):
        return (
            f"✅ Elite ({target}; n/a: no deployment failed)"
            if is_elite(key, metrics)
            else f"⚪ n/a ({target} target, nothing to measure)"
        )
    if is_elite(key, metrics):
        return f"✅ Elite ({target} achieved: {_show(metrics[key], unit)})"
    return f"❌ Needs Improvement ({target} target, actual: {_show(metrics[key], unit)})"


def recommendations(metrics: Mapping[str, Any]) -> List[str]:
    """For each benchmark that is missed: by how much, and what causes it. One line if none is."""
    causes = {
        "deployment_frequency": _frequency_cause,
        "mean_lead_time": _lead_time_cause,
        "mttr_minutes": _recovery_cause,
        "change_failure_rate": _failure_cause,
    }
    missed = [key for key in BENCHMARKS if not is_elite(key, metrics)]
    return [f"{_gap(key, metrics)}; {causes[key](metrics)}" for key in missed] or ["None: all four targets are met"]


def _gap(key: str, metrics: Mapping[str, Any]) -> str:
    value, (better, limit, unit), label = metrics[key], BENCHMARKS[key], METRICS[key].label
    if math.isnan(value):
        return f"{label} could not be measured"
    gap = abs(100 * (value - limit) / limit)
    if gap < 1:
        return f"{label} {_show(float(value), unit)} just misses the {better}{limit:g}{unit} target"
    side = "above" if better == "<" else "below"
    return f"{label} {_show(float(value), unit)} is {_show(gap, '%', 0)} {side} the {limit:g}{unit} target"


_NOTHING_DEPLOYED = "nothing was deployed in the window: measure more days"
_NOT_OBSERVABLE = "the history shows no failed sync: save it more often, and let --repo find what was reverted"


def _frequency_cause(metrics: Mapping[str, Any]) -> str:
    if not metrics["total_deployments"]:
        return _NOTHING_DEPLOYED
    return f"{metrics['total_deployments']} deployments in the window: make changes smaller, and promote more often"


def _lead_time_cause(metrics: Mapping[str, Any]) -> str:
    if math.isnan(metrics["mean_lead_time"]):
        if list(metrics["success_rates"].values())[-1] == 0:
            return "no production deployment succeeded"
        if metrics["production_deployment_frequency"] > 0:
            return "no commit of the production deployments is known: --repo takes a clone that has them"
        return "no change reached production in the window: measure more days"
    name, hours = max(metrics["lead_time_hours_by_environment"].items(), key=lambda part: part[1])
    share = _show(_percent(hours, metrics["mean_lead_time"]), "%", 0)
    return f"the way into {name} takes {share} of it ({_show(hours, 'h', 1)}): shorten that wait first"


def _failure_cause(metrics: Mapping[str, Any]) -> str:
    rates = {name: rate for name, rate in metrics["success_rates"].items() if not math.isnan(rate)}
    if not rates:
        return _NOT_OBSERVABLE if metrics["total_deployments"] else _NOTHING_DEPLOYED
    worst = min(rates, key=lambda name: rates[name])
    reason = next(iter(metrics["failure_reasons_by_environment"][worst]), "no reason given")
    return f"{worst} fails most ({_show(100 - rates[worst], '%', 1)}), most often: {reason}"


def _recovery_cause(metrics: Mapping[str, Any]) -> str:
    if not metrics["total_deployments"]:
        return _NOTHING_DEPLOYED
    if not metrics["failed_deployments"]:
        return _NOT_OBSERVABLE
    if not metrics["successful_rollbacks"]:
        return f"no rollback of {metrics['failed_deployments']} failures succeeded: keep an earlier good release ready"
    return f"the mean of the rollbacks that succeeded ({metrics['successful_rollbacks']}): automate them"


def format_summary(history: History, metrics: Mapping[str, Any]) -> str:
    """The executive summary and the tier."""
    level = maturity_level(metrics)[1]
    rows = {
        "Total Git Commits": f"{len(history.git_commits)}",
        "Total Deployments": f"{metrics['total_deployments']}",
        "Automated Rollbacks": f"{metrics['total_rollbacks']}",
        "Deployment Frequency": _show(metrics["deployment_frequency"], "/day"),
        "Average Lead Time": _show(metrics["mean_lead_time"], " hours"),
        "Change Failure Rate": _show(metrics["change_failure_rate"], "%"),
        "MTTR": _show(metrics["mttr_minutes"], " minutes"),
        "Overall Maturity": level.name,
    }
    return "\n".join(
        [
            "📊 EXECUTIVE SUMMARY:",
            *(_row(f"  {label}:", value) for label, value in rows.items()),
            "",
            f"🏆 Performance Tier: {level.tier}",
        ]
    )


def to_jsonable(value: Any) -> Any:
    """Plain JSON values: NaN becomes null, numpy's numbers and times become Python's and ISO 8601."""
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, (np.generic, float)):
        number = value.item() if isinstance(value, np.generic) else value
        return None if isinstance(number, float) and not math.isfinite(number) else number
    return value


def _production_document(history: History) -> Dict[str, Any]:
    documents = _metric_documents(production_metrics(history))
    overall = documents.pop(ALL_APPLICATIONS)
    document = {
        "production": overall,
        "applications": documents,
        "quick_check": quick_check({metric: fields["value"] for metric, fields in overall.items()}),
    }
    if history.coverage is not None:
        document["coverage"] = history.coverage.to_dict("records")
        document["undated"] = dict(history.undated)
    return document


def _metric_documents(table: pd.DataFrame) -> Dict[str, Dict[str, Dict[str, Any]]]:
    """{application: {metric: its fields}}; `mean`, `p90` and `open` only where they have a meaning."""
    documents: Dict[str, Dict[str, Dict[str, Any]]] = {}
    for row in table.to_dict("records"):
        application, metric = row.pop("application"), row.pop("metric")
        for field_ in () if metric.endswith(("_hours", "_minutes")) else ("mean", "p90", "open"):
            del row[field_]
        documents.setdefault(application, {})[metric] = row
    return documents


def summary_document(
    history: History, metrics: Mapping[str, Any], seed: Optional[int], flow: Optional[pd.DataFrame]
) -> Dict[str, Any]:
    """What `--json` prints and `metrics.json` holds, as plain JSON values."""
    score, level = maturity_level(metrics)
    return to_jsonable(
        {
            "version": __version__,
            "seed": seed,
            "window": {"start": history.window.start, "end": history.window.end, "days": history.window.days},
            "environments": history.environments,
            "commits": len(history.git_commits),
            "simulated": flow is not None,  # the deployments are; the commits may be those of a repository
            "metrics": metrics,
            **_production_document(history),
            "maturity": {
                "level": level.name,
                "score": score,
                "of": len(BENCHMARKS),
                "elite": {key: is_elite(key, metrics) for key in BENCHMARKS},
            },
            "flow": None if flow is None else flow.to_dict("index"),
        }
    )


def export_files(history: History, document: Mapping[str, Any]) -> Dict[str, bytes]:
    """The content of each file of an export: the tables as CSV with ISO 8601 UTC times, the numbers as JSON."""
    names = {"commits.csv": "git_commits", "deployments.csv": "deployments", "rollbacks.csv": "rollbacks"}
    files = {file: _csv(getattr(history, table)) for file, table in names.items()}
    return {
        **files,
        "metrics.json": (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace"),
    }


def _csv(table: pd.DataFrame) -> bytes:
    times = np.datetime_as_string(_seconds(table["timestamp"]).view("M8[s]"), unit="s")
    text = table.assign(timestamp=pd.Series(np.char.add(times, "Z"), dtype=object)).to_csv(index=False)
    return text.replace(os.linesep, "\n").encode("utf-8", "replace")


# ---- Reporting engine: metrics -> dashboard -------------------------------------------------------

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
    return _shorten(text, width).replace("$", r"\$")


def _shorten(text: str, width: int) -> str:
    """The beginning and the end of a text that is too long: the end tells names apart as often."""
    return text if len(text) <= width else text[: width // 2] + "…" + text[len(text) - (width - width // 2 - 1) :]


def _labels(names: Sequence[str], width: int = 18) -> List[str]:
    """The labels of names that stand beside each other; those that would look alike begin where they differ."""
    labels = [_label(name, width) for name in names]
    alike = {label for label, count in collections.Counter(labels).items() if count > 1}
    for label in alike:
        twins = [name for name, short in zip(names, labels) if short == label]
        begin = max(len(os.path.commonprefix(twins)) - 3, 0)
        labels = [_label(f"…{name[begin:]}", width) if name in twins else old for name, old in zip(names, labels)]
    return labels


def _font_characters() -> Mapping[int, int]:
    if not _CHARACTERS:
        _CHARACTERS.update(
            FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))).get_charmap()
        )
    return _CHARACTERS


_CHARACTERS: Dict[int, int] = {}  # read from the font once, when first needed


def _nothing_to_draw(ax: Axes, title: str, message: str) -> Axes:
    ax.set_title(title)
    ax.set_axis_off()
    ax.text(0.5, 0.5, message, transform=ax.transAxes, ha="center", va="center", color=_MUTED, fontsize=12)
    return ax


def plot_deployments_over_time(history: History, ax: Axes) -> Axes:
    """A smooth line and the daily counts as dots for each environment; weekends shaded."""
    title = "Deployments Over Time"
    if not len(history.deployments):
        return _nothing_to_draw(ax, title, "No deployment in this window")
    days = np.arange(history.window.days)
    dates = mdates.date2num(history.window.start.to_pydatetime()) + days
    environment = _codes(history.deployments["environment"], history.environments)
    day = (_seconds(history.deployments["timestamp"]) - int(history.window.start.timestamp())) // _DAY
    for number, (name, colour) in enumerate(zip(history.environments, _environment_colours(history.environments))):
        counts = np.bincount(day[environment == number], minlength=len(days))
        beside = (number - (len(history.environments) - 1) / 2) * 0.6 / len(history.environments)  # none hides another
        size, known = max(3.6, 8 - len(days) / 40), _days_known(history, name)
        dots: Dict[str, Any] = dict(alpha=0.5, markersize=size, markeredgewidth=0, label="_daily")
        ax.plot((dates + beside)[known], counts[known], ".", color=colour, **dots)
        ax.plot(*_smooth(dates, counts, known), color=colour, linewidth=2.2, label=_label(name))
    _shade_weekends(ax, history.window, dates)
    ax.set(title=title, ylabel="Deployments a day", xlim=(dates[0] - 0.6, dates[-1] + 0.6))
    ax.set_ylim(bottom=0)
    _count_axis(ax.yaxis)
    _date_axis(ax, dates)
    _legend_below(ax, history.environments)
    return ax


def _days_known(history: History, environment: str) -> np.ndarray:
    """Whether each day of the window is covered by what is known of an environment: no deployment is known of the
    others, which is not the same as none."""
    days = history.window.days
    if history.coverage is None:
        return np.ones(days, bool)
    spans = history.covered(environment)
    edges = [(_seconds(spans[edge]) - int(history.window.start.timestamp())) // _DAY for edge in ("from", "to")]
    first, last = (np.bincount(np.minimum(edge, days), minlength=days + 1) for edge in edges)
    return (np.cumsum(first) - np.cumsum(last) + last)[:days] > 0


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
        ax.xaxis.set_major_locator(mdates.AutoDateLocator(dt.timezone.utc, minticks=3, maxticks=5))
    pattern = "%d %b" if len(dates) <= 200 else "%b %Y" if len(dates) <= 2000 else "%Y"
    ax.xaxis.set_major_formatter(mdates.DateFormatter(pattern, dt.timezone.utc))


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
    """A Gaussian-weighted mean of the counts around each point, with a gap where they are not known. A mean with
    weights that sum to one stays between the least and the greatest count, and the points between the first and
    last day."""
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


def plot_success_rates(metrics: Mapping[str, Any], ax: Axes) -> Axes:
    """A bar for each environment, coloured by `rate_grade`, against the 95 % target."""
    title, rates = "Success Rate by Environment", metrics["success_rates"]
    if not metrics["total_deployments"]:
        return _nothing_to_draw(ax, title, "No deployment in this window")
    heights = [0.0 if math.isnan(rate) else rate for rate in rates.values()]
    bars = ax.bar(range(len(rates)), heights, width=0.6, color=[rate_grade(rate)[1] for rate in rates.values()])
    few = len(rates) <= 5
    for bar, rate in zip(bars, rates.values()):
        height = bar.get_height()
        clear = height if height < 86 else max(height, 95)  # the label does not cross the target line
        ax.annotate(
            _show(rate, "%", 1 if len(rates) <= 8 else 0),
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
    ax.set_xticklabels(labels, fontsize=10.5 if few else 9, rotation=0 if few else 40, ha="center" if few else "right")
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


def plot_commit_types(commits: pd.DataFrame, ax: Axes) -> Axes:
    """A pie of the commit types; those too thin for a label of their own are one slice."""
    title, types = "Commit Types Distribution", _ranking(commits["type"])
    if not types:
        return _nothing_to_draw(ax, title, "No commit in this window")
    wide = [count / len(commits) >= 0.03 for count in types.values()].count(True)
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
    labels = [f"{_label(name, 11)} {_show(_percent(count, len(commits)), '%', 1)}" for name, count in types.items()]
    middle = np.radians([(wedge.theta1 + wedge.theta2) / 2 for wedge in wedges])
    right, height = np.cos(middle) >= 0, 1.01 * np.sin(middle)
    for side in (right, ~right):
        upwards = np.flatnonzero(side)[np.argsort(height[side])]
        height[upwards] = _apart(height[upwards], 0.15)
    for label, y, side in zip(labels, height, np.where(right, 1, -1)):
        x = side * max(math.sqrt(max(1.01**2 - y**2, 0)), 0.05)
        ax.text(x, y, label, ha="left" if side > 0 else "right", va="center", fontsize=11, color=_INK)
    ax.set_title(title)
    return ax


def _apart(places: np.ndarray, gap: float) -> np.ndarray:
    """Ascending places moved as little as may be, so that each is a gap or more above the one before."""
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


def plot_deployment_status(deployments: pd.DataFrame, ax: Axes) -> Axes:
    """How many syncs ended Synced and Failed."""
    title, counts = "Deployment Status", _counts_by(deployments, "status", [SYNCED, FAILED])
    if not len(deployments):
        return _nothing_to_draw(ax, title, "No deployment in this window")
    bars = ax.bar(list(counts), list(counts.values()), width=0.5, color=[_GREEN, _RED])
    for bar, count in zip(bars, counts.values()):
        ax.annotate(
            f"{count:,}",
            (bar.get_x() + bar.get_width() / 2, count),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontweight="bold",
            fontsize=12,
        )
    ax.set(title=title, ylabel="Deployments", xlim=(-0.7, 1.7))
    _count_axis(ax.yaxis)
    ax.margins(y=0.12)
    ax.grid(False, axis="x")
    return ax


def plot_deployments_by_application(deployments: pd.DataFrame, ax: Axes, most: int = 10) -> Axes:
    """The applications by deployments, ascending (the greatest on top); beyond `most`, the others as one."""
    title, counts = "Deployments by Application", _ranking(deployments["application"])
    if not counts:
        return _nothing_to_draw(ax, title, "No deployment in this window")
    ascending = sorted(_top(counts, most, f"{len(counts) - most} others").items(), key=lambda pair: (pair[1], pair[0]))
    bars = ax.barh(
        range(len(ascending)), [count for _, count in ascending], height=0.6, color="#f093fb", edgecolor="black"
    )
    for bar in bars:
        ax.annotate(
            f"{bar.get_width():,.0f}",
            (bar.get_width(), bar.get_y() + bar.get_height() / 2),
            xytext=(5, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontweight="bold",
        )
    ax.set_yticks(range(len(ascending)))
    ax.set_yticklabels(_labels([name for name, _ in ascending]), fontsize=10.5)
    ax.set(title=title, xlabel="Deployments")
    _count_axis(ax.xaxis)
    ax.margins(x=0.15)
    ax.grid(False, axis="y")
    return ax


def plot_scorecard(metrics: Mapping[str, Any], ax: Axes) -> Axes:
    """The four benchmarks with their targets, the level and its medal, in monospace."""
    score, level = maturity_level(metrics)
    ax.set(title="DORA Metrics Scorecard", xlim=(0, 10), ylim=(0, 10))
    ax.set_axis_off()
    mono: Dict[str, Any] = dict(family="DejaVu Sans Mono", fontsize=12.5, va="center")
    for y, key in zip((9.2, 7.9, 6.6, 5.3), BENCHMARKS):
        better, limit, unit = BENCHMARKS[key]
        elite, measured = is_elite(key, metrics), not math.isnan(metrics[key])
        colour = _GREEN if elite else _RED if measured else rate_grade(math.nan)[1]
        ax.plot([0.25], [y], "X" if measured and not elite else "o", color=colour, markersize=9, clip_on=False)
        ax.text(0.7, y, METRICS[key].label, **mono)
        ax.text(10, y, _show(float(metrics[key]), unit), ha="right", fontweight="bold", **mono)
        ax.text(0.7, y - 0.55, f"elite {better} {limit:g}{unit}", color=_MUTED, **{**mono, "fontsize": 9.5})
    ax.plot([0, 10], [4.05, 4.05], color=_GRID, linewidth=1.2)
    _draw_medal(ax, level)
    ax.text(3.4, 2.35, level.name, fontweight="bold", **{**mono, "fontsize": 15})
    ax.text(3.4, 1.35, f"{score} of {len(BENCHMARKS)} elite criteria met", color=_MUTED, **{**mono, "fontsize": 11})
    return ax


def _draw_medal(ax: Axes, level: Level) -> None:
    """A medal on its ribbon, or a rising arrow, in shapes: the fonts have no such glyph."""
    if level is LEVELS[-1]:
        for x, height in ((0.5, 0.8), (1.1, 1.5), (1.7, 2.3)):
            ax.add_patch(patches.Rectangle((x, 0.6), 0.42, height, color=level.medal))
        ax.annotate("", (2.6, 3.5), (0.4, 1.9), arrowprops=dict(arrowstyle="-|>", color=_INK, linewidth=2))
        return
    for side in (-1, 1):
        ribbon = [(1.5, 1.9), (1.5 + side * 0.85, 3.6), (1.5 + side * 0.3, 3.6), (1.5, 2.6)]
        ax.add_patch(patches.Polygon(ribbon, closed=True, color="#3a6ea5" if side < 0 else "#5b8fc7"))
    ax.plot([1.5], [1.55], "o", markersize=44, markerfacecolor=level.medal, markeredgecolor="white", markeredgewidth=2)
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
    ax.text(1.5, 1.5, f"{4 - level.score + 1}", ha="center", va="center", color="white", fontsize=17, fontweight="bold")


def draw_dashboard(history: History, metrics: Mapping[str, Any]) -> Figure:
    """The six panels, 18 x 10 in, each on a white card on a transparent page. The figure is not
    registered with pyplot: nothing shows it but the one who asked for it."""
    with _theme():
        figure = Figure(figsize=(18, 10))
        figure.patch.set_alpha(0)
        panels = [figure.add_axes(_card(figure, number, framed=number not in (2, 5))) for number in range(6)]
        plot_deployments_over_time(history, panels[0])
        plot_success_rates(metrics, panels[1])
        plot_commit_types(history.git_commits, panels[2])
        plot_deployment_status(history.deployments, panels[3])
        plot_deployments_by_application(history.deployments, panels[4])
        plot_scorecard(metrics, panels[5])
        renderer = FigureCanvasAgg(figure).get_renderer()
        for number in (0, 1, 3, 4):
            _fit(panels[number], figure.patches[number], renderer)
    return figure


def _extent(ax: Axes, renderer: Any) -> Bbox:
    """What the axes and their labels cover, in pixels."""
    extent = ax.get_tightbbox(renderer)
    assert extent is not None  # only hidden axes have none
    return extent


def _fit(ax: Axes, card: patches.Patch, renderer: Any) -> None:
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


def _card(figure: Figure, number: int, framed: bool, columns: int = 3) -> Tuple[float, float, float, float]:
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
        patches.FancyBboxPatch(
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
    return left + pad_left, bottom + pad_bottom, width - pad_left - pad_right, height - pad_bottom - 0.07


def render_png(figure: Figure, dpi: int) -> bytes:
    """The figure as a palette PNG: a third of the size of RGBA, and faster to write."""
    with _theme():
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    pixels, palette = _to_palette(np.asarray(canvas.buffer_rgba()))
    image = Image.fromarray(pixels)
    image.putpalette(palette[:, :3].tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=palette[:, 3].tobytes(), dpi=(dpi, dpi), compress_level=4)
    return file.getvalue()


def _to_palette(rgba: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(Palette index of each pixel, palette of at most 256 RGBA colours): the most frequent colours as
    they are, and for the rare others (edges of letters) the nearest of those. Works on runs of equal
    pixels: a chart has fifty times fewer of them."""
    pixels = np.ascontiguousarray(rgba).view("<u4").ravel()
    starts = np.append(0, np.flatnonzero(pixels[1:] != pixels[:-1]) + 1)
    lengths = np.diff(np.append(starts, len(pixels)))
    colour_of_run, colours = pd.factorize(pixels[starts])  # by hashing: sorts nothing
    frequent = np.argsort(-np.bincount(colour_of_run, lengths), kind="stable")[:256]
    channels = colours.astype("<u4").view(np.uint8).reshape(-1, 4).astype(np.int32)
    distance = sum((channels[:, [i]] - channels[frequent, i]) ** 2 for i in range(4))
    index = distance.argmin(axis=1).astype(np.uint8)
    return np.repeat(index[colour_of_run], lengths).reshape(rgba.shape[:2]), channels[frequent].astype(np.uint8)


# ---- What-if: scenarios -> months side by side ----------------------------------------------------

_BLOCK = 250  # months simulated at once, fewer where they have many commits: this bounds the memory

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
"""What is known of each simulated month: keys of `METRICS`, and the hours in it that changes waited for
production (from the commit to the end of the deployment that shipped them, or of the month), and that
production was in a failed state (to the end of the rollback that succeeded or the start of the next good
deployment, whichever is first, or the end of the month), both summed over the applications."""

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
            Environment("production", 0.95, (4, 24), (1800, 7200), "newest", release_every_hours=168),
        ),
        # someone is called, finds the last good build and redeploys it by hand: one to eight hours
        rollback=RollbackPolicy(duration_min=(60, 480), success_rate=0.95),
    ),
    # The gates are automated: tests decide in under an hour, and production follows within the shift.
    "elite": Scenario(
        environments=(
            Environment("dev", 0.90, (0, 0), (10, 60), "each"),
            Environment("staging", 0.93, (0.25, 1), (15, 90), "newest"),
            Environment("production", 0.95, (1, 6), (30, 120), "newest"),
        )
    ),
}


def what_if(
    scenarios: Mapping[str, Scenario],
    window: Window,
    runs: int,
    seed: int,
    progress: Callable[[str], Any] = lambda message: None,
) -> pd.DataFrame:
    """Simulate each scenario over the same `runs` months: a tidy table.

    A row is a metric of a run of a scenario: `scenario`, `run`, `metric` (of `FORECAST_METRICS`), `value`.
    Common random numbers: the same scenario twice gives exactly the same values.
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
        for name, months in forecast(scenarios, window, runs, seed, progress).items()
    ]
    return pd.concat(frames, ignore_index=True)


def forecast(
    scenarios: Mapping[str, Scenario],
    window: Window,
    runs: int,
    seed: int,
    progress: Callable[[str], Any] = lambda message: None,
    luck: Callable[[int, int], Noise] = Noise,
) -> Dict[str, Dict[str, np.ndarray]]:
    """{scenario: {metric: its value in each of `runs` simulated months, NaN where undefined}}.

    `luck` gives the noise of a seed and a block: one that remembers serves the next call too.
    """
    busiest = max(scenario.team.commits_per_day for scenario in scenarios.values())
    size = int(np.clip(2e6 / max(window.days * busiest, 1), 1, _BLOCK))
    block = functools.partial(_forecast_block, list(scenarios.values()), window)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter's lock
        firsts = range(0, runs, size)
        tasks = [pool.submit(block, min(size, runs - first), luck(seed, 1 + first)) for first in firsts]
        blocks = []
        try:
            for task in tasks:
                blocks.append(task.result())
                progress(f"{min(len(blocks) * size, runs)} of {runs} months simulated")
        finally:
            for task in tasks:
                task.cancel()
    return {
        name: {metric: np.concatenate([block[number][metric] for block in blocks]) for metric in FORECAST_METRICS}
        for number, name in enumerate(scenarios)
    }


class _Months(NamedTuple):
    """Simulated commits with a run axis, sorted by lineage (an application of a run) and time."""

    committed: np.ndarray
    lineage: np.ndarray
    run: np.ndarray
    runs: int

    def counts(self, chosen: np.ndarray) -> np.ndarray:
        """For each run how many of the chosen (a mask or positions) there are."""
        return np.bincount(self.run[chosen], minlength=self.runs)

    def sum(self, chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
        """For each run the sum of the values of the chosen."""
        return np.bincount(self.run[chosen], values, minlength=self.runs)


def _simulate_months(team: Team, window: Window, runs: int, noise: Noise) -> _Months:
    stream = noise.stream("commits")
    run, committed = commit_times(team, window, stream, runs)
    lineage = run * len(team.applications) + _pick(team.applications, stream.random(len(run)))
    order = np.argsort(lineage, kind="stable")
    return _Months(committed[order], lineage[order], run, runs)  # sorted by lineage it is sorted by run


def _forecast_block(
    scenarios: Sequence[Scenario], window: Window, runs: int, noise: Noise
) -> List[Dict[str, np.ndarray]]:
    found: List[Dict[str, np.ndarray]] = []
    for scenario in scenarios:
        months = noise.once(scenario.team, lambda team: _simulate_months(team, window, runs, noise))
        stages = run_pipeline(months.committed, months.lineage, scenario, window, noise)
        failures = [
            _failures(months, stage, scenario.rollback, noise.of("rollbacks", number, 2, len(months.run)))
            for number, stage in enumerate(stages)
        ]
        found.append(_month_metrics(months, stages, failures, window))
    return found


class _Failures(NamedTuple):
    """The failed deployments of one stage: positions of their commits, and what became of them."""

    row: np.ndarray
    rolled_back: np.ndarray
    restored: np.ndarray  # whether the rollback succeeded
    minutes: np.ndarray  # that it took, or would have taken


def _failures(months: _Months, stage: Stage, policy: RollbackPolicy, noise: np.ndarray) -> _Failures:
    """A failure is rolled back if its lineage had a good release here before it."""
    row = np.flatnonzero(stage.deployed & ~stage.good)
    first_good = _least_of_lineage(np.where(stage.good, stage.start, _NEVER), months.lineage)
    rolled_back = stage.start[row] > first_good[row]
    minutes = _whole_seconds(policy.duration_min, noise[0][row], 60) / 60
    return _Failures(row, rolled_back, rolled_back & (noise[1][row] < policy.success_rate), minutes)


def _least_of_lineage(times: np.ndarray, lineage: np.ndarray) -> np.ndarray:
    """For each entry the least time of its lineage."""
    if not len(times):
        return times
    starts = np.append(0, np.flatnonzero(lineage[1:] != lineage[:-1]) + 1)
    return np.repeat(np.minimum.reduceat(times, starts), np.diff(np.append(starts, len(times))))


def _month_metrics(
    months: _Months, stages: Sequence[Stage], failures: Sequence[_Failures], window: Window
) -> Dict[str, np.ndarray]:
    deployed = [months.counts(stage.deployed) for stage in stages]
    total, production = np.sum(deployed, axis=0), stages[-1]
    rolled_back, restored = (
        np.sum([months.counts(failure.row[getattr(failure, what)]) for failure in failures], axis=0)
        for what in ("rolled_back", "restored")
    )
    minutes = [months.sum(failure.row[failure.restored], failure.minutes[failure.restored]) for failure in failures]
    good = np.flatnonzero(production.good)
    lead = _medians(months.run[good], (production.start[good] - months.committed[good]) / 3600, months.runs)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "deployment_frequency": total / window.days,
            "production_deployment_frequency": deployed[-1] / window.days,
            "mean_lead_time": lead["mean"],
            "median_lead_time": lead["value"],
            "mttr_minutes": np.sum(minutes, axis=0) / restored,
            "change_failure_rate": 100 * np.sum([months.counts(failure.row) for failure in failures], axis=0) / total,
            "total_deployments": total.astype(float),
            "total_rollbacks": rolled_back.astype(float),
            **_hours_lost(months, production, failures[-1], int(window.end.timestamp())),
        }


def _hours_lost(months: _Months, production: Stage, failures: _Failures, end: int) -> Dict[str, np.ndarray]:
    """Hours in which changes waited and in which production was in a failed state (see `FORECAST_METRICS`)."""
    shipped = np.where(production.good, production.start + production.duration, _NEVER)
    shipped = np.minimum(np.minimum(shipped, _earliest_of_newer(shipped, months.lineage)), end)
    row = failures.row
    detected = production.start[row] + production.duration[row]
    next_good = _next_start(months.lineage, production.start, production.good, row)
    rolled_back = np.where(failures.restored, detected + failures.minutes * 60, _NEVER)
    over = np.minimum(np.minimum(rolled_back, next_good), end)
    return {
        "waiting_hours": np.bincount(months.run, (shipped - months.committed) / 3600, minlength=months.runs),
        "failed_hours": months.sum(row, _not_counted_yet(months.lineage[row], detected, over) / 3600),
    }


def _not_counted_yet(lineage: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The length of each span without what lies in an earlier one of its lineage, so that their sum is that of
    the time that any of them covers."""
    order = np.lexsort((begin, lineage))
    own = lineage[order] * _NEVER  # sets the lineages apart
    before = np.append(0, np.maximum.accumulate(end[order] + own))[:-1] - own
    out = np.zeros(len(order))
    out[order] = np.maximum(end[order] - np.maximum(begin[order], before), 0)
    return out


def _next_start(lineage: np.ndarray, start: np.ndarray, good: np.ndarray, row: np.ndarray) -> np.ndarray:
    """When the next good deployment of the lineage of each row starts, or a time beyond any."""
    lift = lineage * (2 * _NEVER)
    known = np.append(np.sort((lift + start)[good]), np.iinfo(np.int64).max)
    return np.minimum(known[np.searchsorted(known, (lift + start)[row], side="right")] - lift[row], _NEVER)


def elite_criteria(months: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """{benchmark: in which months it is met}: `is_elite` for many months at once."""
    met = {
        key: months[key] > target.limit if target.better == ">" else months[key] < target.limit
        for key, target in BENCHMARKS.items()
    }
    met["mttr_minutes"] |= np.isnan(months["mttr_minutes"]) & (months["change_failure_rate"] == 0)
    return met


def level_counts(months: Mapping[str, np.ndarray]) -> Dict[str, int]:
    """How many months reach each maturity level."""
    score = np.sum(list(elite_criteria(months).values()), axis=0)
    places = np.array(
        [next(i for i, level in enumerate(LEVELS) if points >= level.score) for points in range(len(BENCHMARKS) + 1)]
    )
    return dict(zip((level.name for level in LEVELS), np.bincount(places[score], minlength=len(LEVELS)).tolist()))


def months_of(table: pd.DataFrame, scenario: str) -> Dict[str, np.ndarray]:
    """The months of one scenario of a `what_if` table: {metric: values}."""
    rows = table[table["scenario"] == scenario]
    return {metric: values.to_numpy() for metric, values in rows.groupby("metric", sort=False, observed=True)["value"]}


def _spread(values: np.ndarray) -> Tuple[float, float, float]:
    """(Median, 5 %, 95 %) of the months in which it is defined."""
    known = values[~np.isnan(values)]
    return tuple(np.percentile(known, [50, 5, 95])) if len(known) else (math.nan,) * 3  # type: ignore[return-value]


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> Tuple[float, float, float]:
    """(Mean difference, its 95 % interval) over the months in which both are defined: as both lived through
    the same months, their common luck cancels out."""
    difference = (values - baseline)[~np.isnan(values - baseline)]
    if len(difference) < 2:
        return math.nan, math.nan, math.nan
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(len(difference))
    half = _student(len(difference) - 1) * error
    return mean, mean - half, mean + half


def _student(freedom: int) -> float:
    """The quantile of Student's t for a 95 % interval (Abramowitz and Stegun, 26.7.5; good from three degrees
    of freedom on, and short for one and two, of which the exact values are few enough to say)."""
    z, exact = _Z, {1: 12.706205, 2: 4.302653}
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return exact.get(freedom) or z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


# A knob as the command line and the advice name it: `production.wait_hours`.


def parse_change(text: str, scenario: Scenario) -> Scenario:
    """Apply `environment.knob=value`, several with `,`; a range is `low:high`, `*2` multiplies.

    >>> parse_change("production.wait_hours=*0.5,rollback.success_rate=1", Scenario()).environments[-1].wait_hours
    (12.0, 36.0)
    """
    for change in text.split(","):
        place, _, value = change.partition("=")
        owner, _, knob = place.strip().rpartition(".")
        if place.strip() not in _knob_names(scenario) or not value.strip():
            raise GitOpsError(_unknown_change(change, place.strip(), _knob_names(scenario)))
        new = _knob_value(place.strip(), value.strip(), getattr(_parts(scenario)[owner], knob))
        scenario = with_knob(scenario, owner, **{knob: new})
    return scenario


def _unknown_change(change: str, place: str, known: Sequence[str]) -> str:
    alike = [name for name in difflib.get_close_matches(place, known, 1) if name != place]
    hint = f"did you mean {alike[0]}? The knobs are" if alike else "give KNOB=VALUE with a knob of"
    return f"unknown change {_quote(change)}; {hint} {', '.join(known)}"


def _parts(scenario: Scenario) -> Dict[str, Any]:
    """The parts of a scenario by the name that changes give them: `team`, `rollback` and the environments, of
    which one that is itself called `team` is `environments.team`."""
    parts: Dict[str, Any] = {"team": scenario.team, "rollback": scenario.rollback}
    own = set(parts)
    for environment in scenario.environments:
        parts[f"environments.{environment.name}" if environment.name in own else environment.name] = environment
    return parts


def with_knob(scenario: Scenario, owner: str, **knobs: Any) -> Scenario:
    """A copy with other knobs of one of its parts (see `_parts`)."""
    if owner == "team":
        return scenario.with_team(**knobs)
    if owner == "rollback":
        return scenario.with_rollback(**knobs)
    return scenario.with_environment(_parts(scenario)[owner].name, **knobs)


def _knob_names(scenario: Scenario) -> List[str]:
    return [
        f"{owner}.{knob.name}"
        for owner, part in _parts(scenario).items()
        for knob in dataclasses.fields(part)
        if knob.name != "name" and knob.default_factory is dataclasses.MISSING
    ]


def _knob_value(name: str, text: str, old: Any) -> Any:
    if isinstance(old, Mapping):
        raise GitOpsError(f"{name} has a value for each name; change it in a --config file")
    if isinstance(old, str):
        return text
    try:
        if text.startswith("*"):
            factor = float(text[1:])
            return tuple(factor * value for value in old) if isinstance(old, tuple) else _like(old * factor, old)
        return tuple(float(value) for value in text.split(":")) if isinstance(old, tuple) else _like(float(text), old)
    except (ValueError, OverflowError):
        example = "4:12" if isinstance(old, tuple) else "0.5"
        raise GitOpsError(f"{name} cannot be {_quote(text)}; give a value such as {example} or *0.5") from None


def _like(value: float, old: Any) -> Any:
    return int(value) if isinstance(old, int) and value == int(value) else value


def named_scenario(text: str, baseline: Scenario) -> Scenario:
    """What `--what-if` names: changes of the baseline, a preset (with the baseline's team) or a JSON file."""
    if "=" in text:
        return parse_change(text, baseline)
    if text in PRESETS:
        return dataclasses.replace(PRESETS[text], team=baseline.team)
    if not Path(text).is_file():
        raise GitOpsError(
            f"unknown scenario {_quote(text)}; give KNOB=VALUE, a preset ({', '.join(PRESETS)}) or a JSON file"
        )
    return read_scenario(text)


# ---- What-if: recommendations that were tried -----------------------------------------------------


class Knob(NamedTuple):
    """Something a team can change: `turn(scenario, factor)`, from 1 (as it is) down to 0 (all the way)."""

    metrics: Tuple[str, ...]  # what it can help
    turn: Callable[[Scenario, float], Scenario]
    say: Callable[[Scenario, Scenario], str]  # (before, after)


class Advice(NamedTuple):
    """A change that was simulated: what to do, how far it goes, what it makes of the scenario, and the months."""

    say: str
    factor: float
    scenario: Scenario
    months: Mapping[str, np.ndarray]


def _knobs(scenario: Scenario) -> List[Knob]:
    parts = _parts(scenario).items()
    knobs = [knob for owner, part in parts if isinstance(part, Environment) for knob in _environment_knobs(owner, part)]
    return knobs + [
        _scaled("rollback", "duration_min", ("mttr_minutes",), "Shorten rollbacks from {} to {} minutes"),
        _scaled("rollback", "success_rate", ("mttr_minutes",), "Raise the rollback success rate from {} to {}"),
    ]


def _environment_knobs(owner: str, environment: Environment) -> List[Knob]:
    name = environment.name.replace("{", "{{").replace("}", "}}")  # it becomes part of a format
    speed = ("mean_lead_time", "deployment_frequency")
    knobs = [
        _scaled(
            owner,
            "success_rate",
            ("change_failure_rate", "deployment_frequency"),
            f"Raise the {name} success rate from {{}} to {{}}",
        )
    ]
    if environment.wait_hours[-1] > 0:
        knobs.append(_scaled(owner, "wait_hours", speed, f"Cut the {name} wait from {{}} to {{}} h"))
    if environment.release_every_hours > 0:
        knobs.append(
            _scaled(owner, "release_every_hours", speed, f"Release to {name} every {{1}} h instead of every {{0}} h")
        )
    if environment.approval_rate < 1:
        knobs.append(_scaled(owner, "approval_rate", speed, f"Approve {{1}} of the {name} releases instead of {{0}}"))
    if environment.promotion == "soak":
        knobs.append(_scaled(owner, "promotion", speed, f"Promote to {name} with policy {{1}} instead of {{0}}"))
    return knobs


def _scaled(owner: str, knob: str, metrics: Tuple[str, ...], words: str) -> Knob:
    def value(scenario: Scenario) -> Any:
        return getattr(_parts(scenario)[owner], knob)

    def turn(scenario: Scenario, factor: float) -> Scenario:
        return with_knob(scenario, owner, **{knob: _turned(knob, value(scenario), factor)})

    return Knob(metrics, turn, lambda before, after: words.format(_shown(value(before)), _shown(value(after))))


def _turned(knob: str, value: Any, factor: float) -> Any:
    """A rate moves towards 1, a time towards 0, a policy to the one that ships most without extra deployments."""
    if knob == "promotion":
        return "newest" if factor < 1 else value
    if knob.endswith("_rate"):
        return 1 - (1 - value) * factor
    return tuple(factor * edge for edge in value) if isinstance(value, tuple) else value * factor


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.3g}-{value[-1]:.3g}"
    return value if isinstance(value, str) else f"{value:.3g}"


_ODDS = 0.9  # a change is recommended that meets the target in this share of the months
_STEPS = 20  # how finely the size of a change is searched


def _enough_runs(scenario: Scenario, window: Window) -> int:
    """A hundred months; fewer, so that a report stays fast, where a month has so many commits that it hardly varies."""
    return int(np.clip(500_000 / max(window.days * scenario.team.commits_per_day, 1), 10, 100))


class Trial(NamedTuple):
    """The months on which changes are tried."""

    window: Window
    runs: int
    seed: int
    progress: Callable[[str], Any]
    luck: Callable[[int, int], Noise]

    @classmethod
    def of(cls, window: Window, runs: int, seed: int, progress: Callable[[str], Any] = lambda message: None) -> Trial:
        return cls(window, runs, seed, progress, functools.lru_cache(maxsize=4)(Noise))

    def months(self, scenario: Scenario) -> Dict[str, np.ndarray]:
        return forecast({"": scenario}, self.window, self.runs, self.seed, self.progress, self.luck)[""]


def try_changes(scenario: Scenario, missed: Sequence[str], trial: Trial) -> Dict[str, Optional[Advice]]:
    """For each missed benchmark the smallest change of one knob, else of two, that meets it in 90 % of the
    simulated months in which it has a value; None where no such change is known."""
    found: Dict[str, Optional[Advice]] = {}
    for metric in missed:
        knobs = [knob for knob in _knobs(scenario) if metric in knob.metrics]
        search = functools.partial(_smallest_change, scenario, metric, trial=trial)
        singles = [advice for advice in (search([knob]) for knob in knobs) if advice]
        pairs = (
            []
            if singles
            else [advice for pair in itertools.combinations(knobs, 2) for advice in [search(list(pair))] if advice]
        )
        found[metric] = max(singles or pairs, key=lambda advice: advice.factor, default=None)
    return found


def _odds(months: Mapping[str, np.ndarray], metric: str) -> Tuple[int, int]:
    """(In how many of the months that have a value it meets the target, how many these are)."""
    known = ~np.isnan(months[metric])
    return _count(elite_criteria(months)[metric] & known), _count(known)


def _enough(months: Mapping[str, np.ndarray], metric: str) -> bool:
    """Whether so many months have a value that odds can be told."""
    return _odds(months, metric)[1] >= min(10, len(months[metric]))


def _likely(months: Mapping[str, np.ndarray], metric: str) -> bool:
    met, known = _odds(months, metric)
    return _enough(months, metric) and met >= _ODDS * known


def _smallest_change(scenario: Scenario, metric: str, knobs: Sequence[Knob], trial: Trial) -> Optional[Advice]:
    """The largest factor on a grid that meets the target, found by halving: a larger change helps more."""

    def attempt(step: int) -> Optional[Advice]:
        changed = scenario
        for knob in knobs:
            changed = knob.turn(changed, step / _STEPS)
        months = trial.months(changed)
        if not _likely(months, metric):
            return None
        return Advice(
            " and ".join(_lower(knob.say(scenario, changed), number) for number, knob in enumerate(knobs)),
            step / _STEPS,
            changed,
            months,
        )

    best, low, high = attempt(0), 0, _STEPS
    while best and high - low > 1:
        middle = (low + high) // 2
        advice = attempt(middle)
        best, low, high = (advice, middle, high) if advice else (best, low, middle)
    return best


def _lower(text: str, number: int) -> str:
    return text[:1].lower() + text[1:] if number else text


def tried_recommendations(scenario: Scenario, metrics: Mapping[str, Any], trial: Trial) -> List[str]:
    """The advice of the report: for each benchmark that is missed, by how much and why, and a change that
    was simulated and meets it."""
    missed = [key for key in BENCHMARKS if not is_elite(key, metrics)]
    measured = [key for key in missed if not math.isnan(metrics[key])]
    if not measured:
        return recommendations(metrics)
    baseline = trial.months(scenario)
    unlikely = [key for key in measured if _enough(baseline, key) and not _likely(baseline, key)]
    tried = try_changes(scenario, unlikely, trial)
    lines = []
    for key, line in zip(missed, recommendations(metrics)):
        lines.append(line)
        if key in tried:
            lines.append("  " + _tried(key, tried[key], baseline, trial.runs))
        elif key in measured:
            lines.append("  " + _untried(key, baseline))
    return lines


def _untried(metric: str, baseline: Mapping[str, np.ndarray]) -> str:
    if _likely(baseline, metric):
        return f"Nothing to change: as things are, the target is met in {_months_met(baseline, metric)}"
    known, runs = _odds(baseline, metric)[1], len(baseline[metric])
    return f"Nothing was tried: {known} of {runs} simulated months have a value; --runs N simulates more"


def _months_met(months: Mapping[str, np.ndarray], metric: str) -> str:
    met, known = _odds(months, metric)
    return f"{met} of {known} simulated months" + (" that have a value" if known < len(months[metric]) else "")


def _tried(metric: str, advice: Optional[Advice], baseline: Mapping[str, np.ndarray], runs: int) -> str:
    if advice is None:
        return f"tried on {runs} simulated months: no change of one or two knobs meets the target in 9 of 10"
    unit, label = (
        BENCHMARKS[metric].unit,
        METRICS[metric].label if metric == "mttr_minutes" else METRICS[metric].label.lower(),
    )
    (before, _, _), (after, low, high) = _spread(baseline[metric]), _spread(advice.months[metric])
    elite = level_counts(advice.months)["ELITE PERFORMER"]
    return (
        f"{advice.say}: {label} {before:.1f} → {_show(float(after), unit, 1)} ({low:.1f}-{high:.1f} in 9 of 10), "
        f"target met in {_months_met(advice.months, metric)}, ELITE in {elite} of {runs}"
    )


# ---- What-if: months -> console and picture -------------------------------------------------------


def format_what_if(
    table: pd.DataFrame,
    seed: int,
    days: int,
    cost_per_hour: Optional[float] = None,
    measured: Optional[Mapping[str, Any]] = None,
) -> str:
    """The comparison of a `what_if` table. The baseline is its first scenario; `measured` are the metrics of
    the history that it was fitted to."""
    names = list(dict.fromkeys(table["scenario"]))
    months = {name: months_of(table, name) for name in names}
    runs = len(months[names[0]]["mean_lead_time"])
    lines = [
        _DOUBLE_LINE,
        f"🔮 WHAT IF: {runs} simulated months of {days} days, the same for each scenario (seed {seed})",
        _DOUBLE_LINE,
        "",
        "The median month (5 % and 95 % of months), and the mean difference from the baseline (95 % interval).",
        "",
    ]
    for key in BENCHMARKS:
        lines += [
            f"{METRICS[key].label} (elite {_target(key)})",
            *([] if measured is None else [_measured_row(key, measured, months[names[0]])]),
            *(_what_if_row(name, key, months, names[0]) for name in names),
            "",
        ]
    lines += ["{:<34} ".format("Months that reach each level") + " ".join(f"{level.name:>17}" for level in LEVELS)]
    lines += [
        f"  {_cell(name, 32)} " + " ".join(f"{count:>17}" for count in level_counts(months[name]).values())
        for name in names
    ]
    return "\n".join(lines + (_cost_rows(months, names, cost_per_hour) if cost_per_hour is not None else []))


def _target(key: str) -> str:
    better, limit, unit = BENCHMARKS[key]
    return f"{better}{limit:g}{unit}"


def _cell(name: str, width: int) -> str:
    return f"{_shorten(name, width):<{width}}"


def _what_if_row(name: str, key: str, months: Mapping[str, Mapping[str, np.ndarray]], baseline: str) -> str:
    middle, low, high = _spread(months[name][key])
    value = "n/a" if math.isnan(middle) else f"{_show(float(middle), BENCHMARKS[key].unit)} ({low:.2f} to {high:.2f})"
    mean, least, most = paired_difference(months[name][key], months[baseline][key])
    difference = "" if name == baseline else "n/a" if math.isnan(mean) else f"{mean:+.2f} ({least:+.2f} to {most:+.2f})"
    return f"  {_cell(name, 32)} {value:<30} {difference}".rstrip()


def _measured_row(key: str, measured: Mapping[str, Any], baseline: Mapping[str, np.ndarray]) -> str:
    """What the history says, and a warning where the baseline that was fitted to it says something else."""
    value, (_, low, high) = measured[key], _spread(baseline[key])
    odd = "" if math.isnan(value) or low <= value <= high else "! not among the baseline's months: the fit misses it"
    return f"  {'(measured)':<32} {_show(value, BENCHMARKS[key].unit):<30} {odd}".rstrip()


def _cost_rows(months: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str], cost: float) -> List[str]:
    """Hours of a mean month, what they cost, and what the better of each scenario and the baseline saves."""
    hours = {name: [float(months[name][key].mean()) for key in ("failed_hours", "waiting_hours")] for name in names}
    lines = [
        "",
        f"Hours in a mean month, at {cost:g} each: production failed, changes waited for production",
        f"  {'':<32} {'failed h':>12} {'waiting h':>14} {'cost':>16}",
        *(f"  {_cell(name, 32)} {f:>12,.1f} {w:>14,.1f} {(f + w) * cost:>16,.0f}" for name, (f, w) in hours.items()),
    ]
    for name in names[1:]:
        better, worse = sorted((name, names[0]), key=lambda which: sum(hours[which]))
        failed, waiting = np.subtract(hours[worse], hours[better])
        lines.append(
            f"  {_cell(better, 32).strip()} instead of {_cell(worse, 32).strip()} saves "
            f"{failed:,.1f} h and {waiting:,.1f} h a month: {(failed + waiting) * cost:,.0f}"
        )
    return lines


def what_if_document(table: pd.DataFrame, seed: int, days: int) -> Dict[str, Any]:
    """What `--json` prints of a comparison: {scenario: {"metrics": {metric: spread}, "levels": counts}}."""
    months = {name: months_of(table, name) for name in dict.fromkeys(table["scenario"])}
    baseline = next(iter(months.values()))
    scenarios = {
        name: {
            "metrics": {metric: _spread_document(values, baseline[metric]) for metric, values in own.items()},
            "levels": level_counts(own),
        }
        for name, own in months.items()
    }
    return to_jsonable(
        {"version": __version__, "seed": seed, "runs": int(table["run"].max()) + 1, "days": days, "what_if": scenarios}
    )


def _spread_document(values: np.ndarray, baseline: np.ndarray) -> Dict[str, Any]:
    difference = dict(zip(("mean", "low", "high"), paired_difference(values, baseline)))
    return {**dict(zip(("median", "p5", "p95"), _spread(values))), "difference": difference}


def draw_what_if(table: pd.DataFrame) -> Figure:
    """The four benchmarks, a card each: the months of each scenario as dots, and the elite line."""
    names = list(dict.fromkeys(table["scenario"]))
    with _theme():
        figure = Figure(figsize=(18, 10))
        figure.patch.set_alpha(0)
        renderer = FigureCanvasAgg(figure).get_renderer()
        for number, key in enumerate(BENCHMARKS):
            ax = figure.add_axes(_card(figure, number, framed=True, columns=2))
            plot_months({name: months_of(table, name)[key] for name in names}, key, ax)
            _fit(ax, figure.patches[number], renderer)
    return figure


def plot_months(months: Mapping[str, np.ndarray], key: str, ax: Axes) -> Axes:
    """A dot for each month, the median and the range from 5 % to 95 % of them, a row for each scenario,
    against the elite line."""
    metric, (better, limit, unit) = METRICS[key], BENCHMARKS[key]
    spread = np.random.Generator(np.random.PCG64(0)).uniform(-0.28, 0.28, max(map(len, months.values())))
    for place, (values, colour) in enumerate(zip(months.values(), sns.color_palette("colorblind", len(months)))):
        known = values[~np.isnan(values)][:500]
        ax.plot(known, place + spread[: len(known)], "o", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
        if len(known):
            middle, low, high = _spread(values)
            ax.plot(
                [low, high], [place, place], color=_INK, linewidth=2, label="5-95% of months" if not place else None
            )
            ax.plot([middle], [place], "D", color=_INK, markersize=8, label="median" if not place else None)
    ax.axvline(limit, color=_GREEN, linestyle="--", linewidth=1.6, label=f"elite {better}{limit:g}{unit}")
    ax.set(
        title=metric.label,
        xlabel=f"{metric.label} ({unit.strip('/')})" if unit != "/day" else "Deployments a day",
        ylim=(len(months) - 0.4, -0.6),
    )
    ax.set_xlim(left=0)
    ax.set_yticks(range(len(months)))
    ax.set_yticklabels([_label(name, 28) for name in months], fontsize=10.5 if len(months) < 12 else 7)
    ax.grid(False, axis="y")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=3)
    return ax


# ---- What-if: history -> scenario -----------------------------------------------------------------


def fit_scenario(history: History, base: Scenario = Scenario()) -> Tuple[Scenario, List[str]]:
    """(The scenario whose simulation is like the history, what was fitted and from how many observations).

    What the history cannot tell keeps the value of `base`, and the list says so. GitOpsError if it has no
    deployment to a known environment.
    """
    used = _used_environments(history)
    team, said = fit_team(_arrivals(history, used[0]), history.window, base.team)
    environments: List[Environment] = []
    for before, number in zip([-1, *used], used):
        environment, line = _fit_environment(history, number, before, environments, base)
        environments.append(environment)
        said.append(line)
    rollback, rollback_said = _fit_rollback(history, base.rollback)
    reasons = _ranking(history.deployments["failure_reason"])
    reasons_said = (
        f"failure reasons: from {sum(reasons.values())} failures"
        if reasons
        else "failure reasons: none seen, left as they were"
    )
    scenario = Scenario(team, tuple(environments), rollback, reasons or base.failure_reasons)
    return scenario, [*said, rollback_said, reasons_said]


def _arrivals(history: History, number: int) -> pd.DataFrame:
    """The commits that can come to an environment (with a folder for each environment not all do); its
    deployments where none is known."""
    commits, deployments = history.git_commits, _deployments_to(history, number)
    if history.changes is not None:
        changes = history.changes_to(history.environments[number])
        known = {*changes["commit_sha"], *deployments["commit_sha"].astype(object)}
        commits = commits[commits["sha"].isin(list(known))]
    return commits if len(commits) else deployments


def _used_environments(history: History) -> List[int]:
    counts = _counts_by(history.deployments, "environment", history.environments)
    used = [number for number, (name, count) in enumerate(counts.items()) if count and name != _UNCLASSIFIED]
    if not used:
        raise GitOpsError("the history has no deployment to a known environment: there is nothing to fit a scenario to")
    return used[-50:]


def _deployments_to(history: History, number: int) -> pd.DataFrame:
    return history.deployments[_is(history.deployments["environment"], history.environments[number])]


def fit_team(arrivals: pd.DataFrame, window: Window, base: Team = Team()) -> Tuple[Team, List[str]]:
    """(The team whose commits come like the arrivals, what was fitted from how many).

    A row of arrivals is a commit, or where no commit is known a deployment to the first environment.
    """
    seconds = _seconds(arrivals["timestamp"])
    first, days = int(window.start.timestamp()) // _DAY, window.days
    seconds = seconds[(seconds >= first * _DAY) & (seconds < (first + days) * _DAY)]
    what = "commits" if "sha" in arrivals else "deployments to the first environment, as no commits are known"
    if not len(seconds):
        return dataclasses.replace(base, commits_per_day=0.0), [f"commit rhythm: no {what} in the window"]
    rates, dispersion = _weekday_rates(np.bincount(seconds // _DAY - first, minlength=days), window.start.weekday())
    shares = {column: _names(arrivals[column]) for column in ("author", "type", "application") if column in arrivals}
    team = dataclasses.replace(
        base,
        authors=shares.get("author") or base.authors,
        types=shares.get("type") or base.types,
        applications=shares["application"],
        commits_per_day=float(rates.max()),
        weekday_factors=tuple(rates / rates.max()),
        dispersion=dispersion,
        sprint_ramp=0.0,
        work_hours=observed_range(seconds % _DAY / 3600),
    )
    return team, [
        f"commit rhythm by weekday and hour: from {len(seconds)} {what}, {days} days; sprint ramp not fitted, 0",
        f"applications: {len(team.applications)}; authors: {len(team.authors)}; types: {len(team.types)}",
    ]


def _names(words: pd.Series) -> Dict[str, int]:
    """How often each word occurs, as names that a knob can have."""
    counts: Dict[str, int] = collections.Counter()
    for word, count in _ranking(words).items():
        counts[_one_line(word, 60)] += count
    return dict(counts)


def _weekday_rates(counts: np.ndarray, first_weekday: int) -> Tuple[np.ndarray, float]:
    """(Commits a day of each weekday, Monday first; variance over mean of the counts around them)."""
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
    return tuple(np.percentile(values, np.linspace(0, 100, max(2, min(most, len(values))))).tolist())


class _Passages(NamedTuple):
    """How releases came to an environment."""

    waits: np.ndarray  # hours that those which came had waited
    censored: np.ndarray  # hours that the others had waited when a newer one overtook them, or at the end
    overtaking: int  # how many came after a newer one or with it
    soak: bool  # whether none came that a newer one had followed while it waited


def _fit_environment(
    history: History, number: int, before: int, upstream: Sequence[Environment], base: Scenario
) -> Tuple[Environment, str]:
    name, rows = history.environments[number], _deployments_to(history, number)
    default = {environment.name: environment for environment in base.environments}.get(name, Environment(name))
    passages = _passages(history, number, before)
    seen = history.failures_observable(name)
    rate = 1 - float(_is(rows["health"], DEGRADED).mean()) if seen else default.success_rate
    success = "success" if seen else f"success not observable, left at {rate:g}; the rest"
    knobs = dict(success_rate=rate, duration_sec=observed_range(rows["duration_sec"].to_numpy(), 101))
    if before >= 0 and len(passages.waits) < len(rows) / 2:
        gate, how = _own_way(history, number, before, upstream, default)
    elif len(passages.waits):
        gate, how = _gate(passages, _train(rows))
    else:
        gate, how = dict(wait_hours=(0.0, 0.0)), "wait 0: releases are counted from here, as no commits are known"
    fitted = dataclasses.replace(default, **{"release_every_hours": 0.0, **knobs, **gate})
    return fitted, f"{name}: {success} from {len(rows)} deployments; {how}; promotion {fitted.promotion}"


def _gate(passages: _Passages, every: float) -> Tuple[Dict[str, Any], str]:
    """The wait and the promotion of an environment to which the releases of the one before come."""
    waits, censored = passages.waits, passages.censored
    wait, share = (boarding_range(waits, censored, every), 1.0) if every else survival_range(waits, censored)
    gate = dict(promotion=_policy(passages), approval_rate=share, release_every_hours=every, wait_hours=wait)
    train = f"train every {every:g} h, " if every else ""
    held = f"; {_show(100 * share, ' %', 1)} come" if share < 1 else ""
    return gate, f"{train}wait from {len(waits)} promotions and {len(censored)} releases that did not come{held}"


def _train(deployments: pd.DataFrame) -> float:
    """The hours between the departures of a release train; 0 where the releases come at any time. Departures are
    counted from a Monday, so what divides all of them is the time between two; three tell it from chance."""
    departures = np.unique(_seconds(deployments["timestamp"])) - _MONDAY
    every = int(np.gcd.reduce(departures)) if len(departures) > 2 else 0
    return every / 3600 if every >= 3600 else 0.0


def boarding_range(waits: np.ndarray, censored: np.ndarray, every: float, points: int = 101) -> Range:
    """The quantiles of the wait before a train, of which one knows only that it was over between two departures,
    or not before the last that left: the distribution that makes this most likely (B. W. Turnbull, JRSS B 38, 1976)."""
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
    """Whether releases that a newer one has overtaken come all the same, as a rule, or not even followed ones."""
    if passages.soak:
        return "soak"
    return "each" if passages.overtaking >= len(passages.censored) else "newest"


def _own_way(
    history: History, number: int, before: int, upstream: Sequence[Environment], default: Environment
) -> Tuple[Dict[str, Any], str]:
    """The gate of an environment that has commits of its own (a folder for each environment, say): it takes a
    share of the releases, and the time from a commit to it, less what the way up to here takes."""
    healthy = _count(_is(_deployments_to(history, before)["health"], HEALTHY))
    share = min(1.0, len(_deployments_to(history, number)) / max(healthy, 1))
    gate: Dict[str, Any] = dict(promotion="each", approval_rate=share)
    how = f"its releases are not those of {history.environments[before]}: {100 * share:.0f} % as many"
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
    return np.maximum((_seconds(newest["deployed"]) - _seconds(newest["committed"])) / 3600, 0)


def _passages(history: History, number: int, before: int) -> _Passages:
    """How the releases of the environment before (-1: the commits) came to an environment."""
    end, keys = int(history.window.end.timestamp()), ["application", "commit"]
    here = _releases_of(_deployments_to(history, number), done=False)
    releases = _commits_to(history, number) if before < 0 else _healthy(history, before)
    releases = releases.merge(here.rename(columns={"time": "start"}), how="left", on=keys)
    application = pd.factorize(releases["application"])[0]
    commit = pd.Index(history.git_commits["sha"]).get_indexer(releases["commit"])  # tells which release is newer
    order = np.lexsort((releases["time"], commit, application))
    arrival = releases["time"].to_numpy(np.int64)[order]
    start = releases["start"].fillna(_NEVER).to_numpy(np.int64)[order]
    overtaken, followed = (_earliest_of_newer(times, application[order]) for times in (start, arrival))
    went = start < _NEVER
    # without a soak time some come although a newer one follows, where others do not come at all
    soak = before >= 0 and not (went & (followed < start)).any() and _count(~went & (followed < end)) >= 10
    limit = np.minimum(followed if soak else overtaken, end)
    left = ~went & (limit > arrival)
    waits = np.maximum(start - arrival, 0)[went] / 3600
    return _Passages(waits, (limit - arrival)[left] / 3600, _count(went & (start >= overtaken)), soak)


def _releases_of(deployments: pd.DataFrame, done: bool) -> pd.DataFrame:
    """A row for each release: application, commit, and the time (seconds) of its first deployment, or of its end."""
    frame = pd.DataFrame(
        {
            "application": deployments["application"].astype(object).to_numpy(),
            "commit": deployments["commit_sha"].astype(object).to_numpy(),
            "time": _seconds(deployments["timestamp"]) + done * deployments["duration_sec"].to_numpy(),
        }
    )
    return frame.drop_duplicates(["application", "commit"])


def _healthy(history: History, number: int) -> pd.DataFrame:
    rows = _deployments_to(history, number)
    return _releases_of(rows[_is(rows["health"], HEALTHY)], done=True)


def _commits_to(history: History, number: int) -> pd.DataFrame:
    """The commits that can come to the first environment, in the form of `_releases_of`."""
    if history.changes is None:
        commits = history.git_commits.rename(columns={"sha": "commit", "timestamp": "time"})
    else:
        commits = history.changes_to(history.environments[number])
        commits = commits.rename(columns={"commit_sha": "commit", "committed": "time"})
    return commits[["application", "commit", "time"]].assign(
        application=commits["application"].astype(object), time=_seconds(commits["time"])
    )


def survival_range(waits: np.ndarray, censored: np.ndarray, points: int = 101) -> Tuple[Range, float]:
    """(The quantiles of a wait of which some are only known to be longer, the share that comes at all: E. L.
    Kaplan and P. Meier, JASA 53, 1958). Releases with a long wait are overtaken more often: the observed waits
    alone would be too short. Those of which nothing is known but that they waited longer than all that came are
    taken for held back for good."""
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
    fitted = RollbackPolicy(observed_range(rollbacks["duration_min"].to_numpy()), float(rollbacks["success"].mean()))
    return fitted, f"rollback: from {len(rollbacks)} rollbacks"


# ---- GitOpsAutomation: the whole pipeline, a method for each step ---------------------------------


def _say(text: str = "") -> None:
    """Print, whatever the console can show: what its encoding lacks becomes `?`."""
    try:
        print(text)  # noqa: T201
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "replace").decode(encoding))  # noqa: T201


def _window_end(end: Union[None, str, dt.date]) -> Optional[pd.Timestamp]:
    """A date as the UTC midnight at which the window ends."""
    if end is None:
        return None
    try:
        if isinstance(end, numbers.Number) or end is pd.NaT:
            raise ValueError("no date")
        if isinstance(end, str) and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", end):
            raise ValueError("not YYYY-MM-DD")
        moment = pd.Timestamp(end)
        moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    except (ValueError, TypeError, OverflowError):
        raise GitOpsError(f"end must be a date such as 2026-01-31, not {_quote(end)}") from None
    if moment != moment.normalize() or not _FIRST_DAY < moment <= _LAST_DAY:
        raise GitOpsError(f"end must be a whole UTC day from 1970 to 2199, not {_one_line(end)}")
    return moment


class GitOpsAutomation:
    """The whole pipeline: commits, deployments, rollbacks, metrics, report and dashboard, in this order.

    Attributes (None until their step has run): `git_commits`, `deployments`, `rollbacks` (tables, see
    `COLUMNS`), `metrics` (dict, see `METRICS`); and `environments`, `applications`, `seed`, `window`.

    Parameters: `scenario` has the knobs of the simulation. `seed` repeats a run (one is chosen, and shown, if
    left out). `end`: the date (UTC) before which the window lies, today by default. `output_dir` is the folder
    for files, made when first needed. `on_rollback` is called with a dict for each simulated rollback.

    >>> gitops = GitOpsAutomation(seed=7, end="2026-01-31")
    >>> commits = gitops.simulate_git_activity(days=30)
    <BLANKLINE>
    📝 Generating Git commit history...
      ✓ Generated 208 commits
    """

    def __init__(
        self,
        scenario: Scenario = Scenario(),
        *,
        seed: Optional[int] = None,
        end: Union[None, str, dt.date] = None,
        output_dir: Union[str, os.PathLike] = "output",
        on_rollback: Optional[Callable[[Dict[str, Any]], Any]] = None,
    ) -> None:
        self.scenario = scenario
        self.seed = _whole("seed", seed, 0, 2**63 - 1) if seed is not None else int.from_bytes(os.urandom(4), "big")
        self.output_dir = Path(output_dir)
        self.on_rollback = on_rollback
        self.advice_runs: Optional[int] = None  # simulated months behind each recommendation; None: enough
        self._end = _window_end(end)
        self._keep(git_commits=None, window=None)

    git_commits: Any
    deployments: Any
    rollbacks: Any
    metrics: Any
    window: Any
    _loaded: bool  # whether the commits are real
    _real: Optional[History]  # what load_argocd_history read
    flow: Optional[pd.DataFrame]  # what became of the releases that reached each environment (simulate_deployments)

    _STEPS = {
        "git_commits": "simulate_git_activity() or load_git_history()",
        "deployments": "simulate_deployments()",
        "rollbacks": "simulate_rollbacks()",
        "metrics": "calculate_dora_metrics()",
    }

    def _keep(self, **results: Any) -> None:
        """Store what a step made, and drop what later steps computed from the old one."""
        steps = list(self._STEPS)
        first = next(steps.index(name) for name in results if name in steps)
        for name in steps[first:]:
            setattr(self, name, None)
        if first <= steps.index("deployments"):
            self.flow, self._real = None, None
        if first == 0:
            self._loaded = False
        for name, value in results.items():
            setattr(self, name, value)

    def _need(self, step: str) -> Any:
        """The result of an earlier step; GitOpsError that says which to call."""
        if getattr(self, step) is None:
            raise GitOpsError(f"no {step} yet: call {self._STEPS[step]} first")
        return getattr(self, step)

    @property
    def environments(self) -> List[str]:
        """The environments in promotion order, the last one is production."""
        if self._real is not None:
            return list(self._real.environments)
        return [environment.name for environment in self.scenario.environments]

    @property
    def applications(self) -> List[str]:
        """The scenario's applications and, of a real repository, its own; of Argo CD, those it has."""
        if self._real is not None:
            return list(self._real.deployments["application"].cat.categories)
        found = [] if self.git_commits is None else list(_ranking(self.git_commits["application"]))
        return list(dict.fromkeys([*self.scenario.team.applications, *found]))

    @property
    def history(self) -> History:
        """The three tables with their window; GitOpsError until the rollbacks are there."""
        if self._real is not None:
            return self._real
        tables = [self._need(step) for step in ("git_commits", "deployments", "rollbacks")]
        return History(tables[0], tables[1], tables[2], self.window, tuple(self.environments))

    def simulate_git_activity(self, days: int = 30) -> pd.DataFrame:
        """Simulate the commits of `days` whole days: the `git_commits` table."""
        _say("\n📝 Generating Git commit history...")
        window = Window.before(self._end or _today(), days)
        self._keep(git_commits=simulate_commits(self.scenario.team, window, self.seed), window=window)
        _say(f"  ✓ Generated {len(self.git_commits)} commits")
        return self.git_commits

    def load_git_history(self, repo: Union[str, os.PathLike], days: int = 30) -> pd.DataFrame:
        """Read the real commits of a repository in the place of `simulate_git_activity`: the
        `git_commits` table. GitOpsError if it is no repository or has no commit in the window."""
        _say("\n📝 Reading Git commit history...")
        commits, window = read_git_log(repo, days, self._end, list(self.scenario.team.applications))
        self._keep(git_commits=commits, window=window)
        self._loaded = True
        _say(f"  ✓ Read {len(commits)} commits")
        return commits

    def load_argocd_history(
        self,
        files: Sequence[Union[str, os.PathLike]],
        repo: Union[None, str, os.PathLike] = None,
        *,
        rules: EnvironmentRules = EnvironmentRules(),
    ) -> pd.DataFrame:
        """Read real deployments in the place of the three simulations: the `deployments` table.

        `files` are JSON documents of Argo CD applications ("-" is standard input), `repo` is a clone of the
        config repository, `rules` says how to tell the environment. Next: `calculate_dora_metrics()`.
        GitOpsError for a file that is none, naming the entry at fault.
        """
        _say("\n📡 Reading Argo CD history...")
        listed = [files] if isinstance(files, (str, os.PathLike)) else list(files)
        history = load_argocd(listed, repo, rules)
        self._keep(git_commits=history.git_commits, window=history.window)
        self.deployments, self.rollbacks, self._real = history.deployments, history.rollbacks, history
        _say(f"  ✓ Read {len(self.deployments)} deployments and {len(self.rollbacks)} rollbacks")
        return self.deployments

    def simulate_deployments(self) -> pd.DataFrame:
        """Take the commits through the environments: the `deployments` table."""
        commits = self._need("git_commits")
        _say("\n🚀 Simulating deployments...")
        deployments, flow = simulate_deployments(commits, self.scenario, self.window, self.seed)
        self._keep(deployments=deployments)
        self.flow = flow
        _say(f"  ✓ Simulated {len(deployments)} deployments")
        counts = _counts_by(deployments, "environment", self.environments)
        bad = _counts_by(deployments[_is(deployments["health"], DEGRADED)], "environment", self.environments)
        for name, count in counts.items():
            _say(f"    • {name}: {count} deployments, {_show(_percent(count - bad[name], count), '%', 1)} success")
        return deployments

    def simulate_rollbacks(self) -> pd.DataFrame:
        """Roll the failed deployments back, and tell `on_rollback` of each: the `rollbacks` table."""
        deployments = self._need("deployments")
        _say("\n🔄 Simulating automated rollbacks...")
        self._keep(rollbacks=simulate_rollbacks(deployments, self.scenario.rollback, self.seed))
        _say(f"  ✓ Executed {len(self.rollbacks)} rollbacks")
        _say(f"    • Success rate: {self.rollbacks['success'].sum()}/{len(self.rollbacks)}")
        if self.on_rollback is not None:
            for rollback in self.rollbacks.to_dict("records"):
                self.on_rollback(rollback_alert(rollback))
        return self.rollbacks

    def calculate_dora_metrics(self) -> Dict[str, Any]:
        """Measure the history: the `metrics` dict."""
        history = self.history
        _say("\n📊 Calculating DORA metrics...")
        self._keep(metrics=calculate_dora_metrics(history))
        for label, key in (
            ("Deployment Frequency", "deployment_frequency"),
            ("Mean Lead Time", "mean_lead_time"),
            ("Change Failure Rate", "change_failure_rate"),
            ("MTTR", "mttr_minutes"),
        ):
            _say(f"  ✓ {label}: {_show(self.metrics[key], METRICS[key].unit)}")
        return self.metrics

    def generate_report(self) -> None:
        """Print the report."""
        metrics = self._need("metrics")
        _say("\n" + format_report(self.history, metrics, self.flow, self.seed, self._advice(metrics)))

    def visualize_metrics(self, dpi: int = 300) -> Path:
        """Draw the dashboard into `gitops_dashboard.png` in the output folder; its path.

        In a notebook the picture is shown as well, once, wherever in the cell the call stands.
        """
        metrics = self._need("metrics")
        _say("\n📊 Creating visualizations...")
        picture = render_png(draw_dashboard(self.history, metrics), _whole("dpi", dpi, 10, 1200))
        path = write_files(self.output_dir, {"gitops_dashboard.png": picture})[0]
        _say(f"✓ Visualization saved as '{_one_line(path)}'")
        _display(picture)
        return path

    def what_if(self, scenarios: Mapping[str, Scenario], runs: int = 200, days: int = 30) -> pd.DataFrame:
        """Simulate the baseline and other scenarios over the same months: a tidy table (see `what_if`).

        A row is a metric of a run of a scenario: `scenario`, `run`, `metric`, `value`. The first scenario is
        `baseline` (see `fit`). `days` is the length of a month. GitOpsError for numbers that cannot be.
        """
        _whole("runs", runs, 2, _MOST_RUNS)
        if not isinstance(scenarios, Mapping) or not all(isinstance(one, Scenario) for one in scenarios.values()):
            raise GitOpsError(f"what_if takes {{name: Scenario}}, such as PRESETS, not {_quote(scenarios)}")
        if "baseline" in scenarios:
            raise GitOpsError("baseline is the name of what the scenarios are compared with: give this one another")
        window = Window.before(self._forecast_end(), days)
        with _Progress() as progress:
            return what_if({"baseline": self.fit()[0], **scenarios}, window, runs, self.seed, progress)

    def fit(self) -> Tuple[Scenario, List[str]]:
        """(The baseline of forecasts, what was fitted from how many observations): fitted to the Argo CD
        history or, its team, to the repository that was loaded; else this object's scenario as it is."""
        if self._real is not None:
            return fit_scenario(self._real, self.scenario)
        if self._loaded:
            team, said = fit_team(self.git_commits, self.window, self.scenario.team)
            return dataclasses.replace(self.scenario, team=team), said
        return self.scenario, []

    def _advice(self, metrics: Mapping[str, Any]) -> List[str]:
        """The recommendations, tried on simulated months; on a month at most, so that they stay fast."""
        try:
            scenario = self.fit()[0]
        except GitOpsError:  # nothing to fit: what follows from the metrics is all that can be said
            return recommendations(metrics)
        window = Window.before(self.window.end, min(self.window.days, 30))
        with _Progress() as progress:
            return tried_recommendations(
                scenario,
                metrics,
                Trial.of(window, self.advice_runs or _enough_runs(scenario, window), self.seed, progress),
            )

    def _forecast_end(self) -> pd.Timestamp:
        return self._end or (_today() if self.window is None else self.window.end)

    def export(self) -> List[Path]:
        """Write `commits.csv`, `deployments.csv`, `rollbacks.csv` and `metrics.json` into the output folder."""
        return write_files(self.output_dir, export_files(self.history, self.document()))

    def document(self) -> Dict[str, Any]:
        """The metrics, the maturity, the seed and the window as plain JSON values."""
        return summary_document(self.history, self._need("metrics"), self._shown_seed(), self.flow)

    def production_metrics(self) -> pd.DataFrame:
        """dora.dev's five metrics of production, in all and for each application (see `production_metrics`)."""
        return production_metrics(self.history)

    def _shown_seed(self) -> Optional[int]:
        """The seed where anything was drawn with it."""
        return self.seed if self._real is None else None


class _Progress:
    """Tells a terminal how far long work is, from its third second on, and cleans up after itself."""

    def __init__(self) -> None:
        self._quiet_until = time.monotonic() + 2

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, message: str) -> None:
        if sys.stderr is not None and sys.stderr.isatty() and time.monotonic() > self._quiet_until:
            sys.stderr.write(f"\r\x1b[K{message}\r")
            sys.stderr.flush()

    def __exit__(self, *_: Any) -> None:
        self("")


def _today() -> pd.Timestamp:
    return pd.Timestamp(dt.datetime.now(dt.timezone.utc)).normalize()


def _kernel() -> Any:
    """The running notebook kernel's shell, or None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell if hasattr(shell, "kernel") else None


def _display(picture: Optional[bytes]) -> None:
    """Show a picture in the notebook that runs this, if one does."""
    if picture is not None and _kernel() is not None:
        from IPython.display import Image as NotebookImage
        from IPython.display import display

        display(NotebookImage(picture, width=1100))


def write_files(folder: Union[str, os.PathLike], files: Mapping[str, bytes]) -> List[Path]:
    """Write files, all of them or none: each beside its place first, then all moved into place.
    GitOpsError if the folder cannot be written; the files that were there are then as before."""
    folder = Path(folder)
    places = [
        tuple(folder / text for text in (f".{name}.{os.getpid()}.new", name, f".{name}.{os.getpid()}.old"))
        for name in files
    ]
    with _uninterrupted():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for (new, _, _), content in zip(places, files.values()):
                new.write_bytes(content)
            _move_into_place(places)
        except (OSError, ValueError) as error:
            raise GitOpsError(
                f"cannot write into {_one_line(folder)}: {_one_line(error)}; choose another output folder"
            ) from None
        finally:
            for new, _, _ in places:
                with contextlib.suppress(OSError, ValueError):
                    new.unlink()
    return [path for _, path, _ in places]


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold an interrupt back until the block is done; only the main thread gets any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: List[Tuple[Any, ...]] = []
    handler = signal.signal(signal.SIGINT, lambda *caught: held.append(caught))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
        if held and callable(handler):
            handler(*held[0])


def _move_into_place(places: Sequence[Tuple[Path, ...]]) -> None:
    """Move each new file to its place, and the old ones back if one move fails."""
    begun = []
    try:
        for new, path, old in places:
            begun.append((path, old, path.is_file()))
            if path.is_file():
                os.replace(path, old)
            os.replace(new, path)
    except BaseException:
        for path, old, existed in begun:
            with contextlib.suppress(OSError):
                os.replace(old, path) if existed else path.unlink()
        raise
    for _, old, existed in begun:
        if existed:
            old.unlink()


# ---- Command line ---------------------------------------------------------------------------------

_EXAMPLES = """\
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        dash = "; a value that begins with - needs =, as --option=-value" if "expected one argument" in message else ""
        raise GitOpsError(f"{_one_line(message, 500)}{dash}; -h lists the options")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gitops_automation.py",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
        description="Simulate a GitOps delivery pipeline, measure it with the DORA metrics, report and draw it.",
    )
    add = parser.add_argument_group("what is simulated").add_argument
    add("--days", metavar="N", help="length of the window in whole UTC days (default: 30)")
    add(
        "--end",
        metavar="DATE",
        help="the day after the window, YYYY-MM-DD (default: today; with --repo: the day after its newest commit)",
    )
    add("--seed", metavar="N", help="repeat the run with this seed (default: a new one, printed in the report)")
    add("--config", metavar="FILE", help="a scenario as JSON; what it leaves out keeps its default")
    add("--print-config", action="store_true", help="print the scenario as JSON and stop")
    add("--repo", metavar="DIR", help="take the real commits of this git repository")
    add = parser.add_argument_group("your own Argo CD").add_argument
    add(
        "--argocd",
        metavar="FILE",
        nargs="+",
        help="measure the history in these JSON files (`argocd app list -o json`; - is standard"
        " input); --repo is then the config repository",
    )
    add("--environment", metavar="NAME", help="the environment of all of them (one Argo CD for each environment)")
    add("--environment-label", metavar="KEY", help="the label or annotation that names the environment")
    add("--environment-pattern", metavar="REGEX", help="a pattern on the name with a group that is the environment")
    add = parser.add_argument_group("what if").add_argument
    add(
        "--what-if",
        metavar="CHANGE",
        action="append",
        help="compare with KNOB=VALUE[,...] (production.wait_hours=4:12 or =*0.5),"
        " a preset (traditional, elite, gitops) or a JSON file; repeatable",
    )
    add("--runs", metavar="N", help="simulated months for each scenario (default: 200; for the recommendations 100)")
    add("--cost-per-hour", metavar="N", help="with --what-if: what an hour of failed state or of waiting costs")
    add = parser.add_argument_group("what comes out").add_argument
    add("--output", metavar="DIR", default="output", help="folder for the files (default: output)")
    add("--dpi", metavar="N", default="300", help="resolution of the dashboard (default: 300, 5400 x 3000 pixels)")
    add("--no-dashboard", action="store_true", help="draw no dashboard")
    add("--export", action="store_true", help="write the tables as CSV and the metrics as JSON too")
    add("--json", action="store_true", help="print one JSON object in the place of the report")
    add("--quiet", action="store_true", help="print nothing but warnings and errors (and what --json prints)")
    add("--alert-webhook", metavar="URL", help="POST each rollback to this Slack or Mattermost style webhook")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _whole_number(name: str, text: Optional[str]) -> Optional[int]:
    if text is None:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        raise GitOpsError(f"--{name} must be a whole number, not {_quote(text)}")
    return int(text)


def _run(options: argparse.Namespace) -> None:
    """What the command line asks for, step by step."""
    _refuse_mixtures(options)
    scenario = Scenario() if options.config is None else read_scenario(options.config)
    if options.print_config:
        return _say(scenario.to_json())
    alerts = WebhookAlerts(options.alert_webhook) if options.alert_webhook is not None else None
    gitops = GitOpsAutomation(
        scenario,
        seed=_whole_number("seed", options.seed),
        end=options.end,
        output_dir=options.output,
        on_rollback=alerts,
    )
    if options.runs is not None:
        gitops.advice_runs = _whole("--runs", _whole_number("runs", options.runs), 2, _MOST_RUNS)
    days, dpi = (
        _whole_number("days", "30" if options.days is None else options.days),
        _whole("--dpi", _whole_number("dpi", options.dpi), 10, 1200),
    )
    _check_output(gitops.output_dir)
    with contextlib.redirect_stdout(io.StringIO()) if options.quiet or options.json else contextlib.nullcontext():
        document = (_what_if if options.what_if else _pipeline)(gitops, options, days, dpi)
    if alerts is not None and alerts.problem:
        _complain("warning", f"{alerts.undelivered} rollback alerts did not reach {alerts.host}: {alerts.problem}")
    if options.json:
        _say(json.dumps(document(), indent=2))


def _pipeline(gitops: GitOpsAutomation, options: argparse.Namespace, days: Any, dpi: int) -> Callable[[], Any]:
    """Measure, print and draw a history; a function that gives what `--json` prints of it."""
    _say("🔄 GitOps Workflow Automation with ArgoCD\n" + _DOUBLE_LINE)
    _history(gitops, options, days)
    gitops.calculate_dora_metrics()
    gitops.generate_report()
    if not options.no_dashboard:
        gitops.visualize_metrics(dpi)
    if options.export:
        _say(f"✓ Exported {', '.join(path.name for path in gitops.export())}")
    _say("\n✅ GitOps automation complete!\n")
    _say(format_summary(gitops.history, gitops.metrics))
    return gitops.document


def _what_if(gitops: GitOpsAutomation, options: argparse.Namespace, days: Any, dpi: int) -> Callable[[], Any]:
    """Print and draw the comparison; a function that gives what `--json` prints of it."""
    cost, runs = _cost(options.cost_per_hour), _whole_number("runs", options.runs or "200")
    _say("🔄 GitOps Workflow Automation with ArgoCD\n" + _DOUBLE_LINE)
    if options.argocd:
        _load_argocd(gitops, options)
    elif options.repo is not None:
        gitops.load_git_history(options.repo, days)
    baseline, fitted = gitops.fit()
    if fitted:
        _say("\n🔧 Fitting the baseline to this history...")
        _say("\n".join(f"  • {line}" for line in fitted))
    table = gitops.what_if({name: named_scenario(name, baseline) for name in options.what_if}, runs, days)  # type: ignore[arg-type]
    measured = calculate_dora_metrics(gitops.history) if options.argocd else None
    _say("\n" + format_what_if(table, gitops.seed, days, cost, measured))  # type: ignore[arg-type]
    files = {} if options.no_dashboard else {"gitops_what_if.png": render_png(draw_what_if(table), dpi)}
    files.update({"what_if.csv": table.to_csv(index=False).encode()} if options.export else {})
    if files:
        saved = ", ".join(f"'{_one_line(path)}'" for path in write_files(gitops.output_dir, files))
        _say(f"\n✓ Saved as {saved}")
    _display(files.get("gitops_what_if.png"))
    return functools.partial(what_if_document, table, gitops.seed, days)


def _cost(text: Optional[str]) -> Optional[float]:
    if text is not None and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise GitOpsError(f"--cost-per-hour must be a number such as 120, not {_quote(text)}")
    return None if text is None else float(text)


def _load_argocd(gitops: GitOpsAutomation, options: argparse.Namespace) -> None:
    rules = EnvironmentRules(options.environment, options.environment_label, options.environment_pattern)
    gitops.load_argocd_history(options.argocd, options.repo, rules=rules)


def _history(gitops: GitOpsAutomation, options: argparse.Namespace, days: Any) -> None:
    """Have the three tables, whichever way they come."""
    if options.argocd:
        _load_argocd(gitops, options)
        return
    if options.repo is None:
        gitops.simulate_git_activity(days)
    else:
        gitops.load_git_history(options.repo, days)
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()


def _refuse_mixtures(options: argparse.Namespace) -> None:
    """No option is ignored silently beside another."""
    given = {name for name, value in vars(options).items() if value is not None}
    if options.argocd:
        wrong = {"end", "config", "alert_webhook", *(() if options.what_if else ("days",))} & given
        why = "has no meaning with --argocd: the history says what happened, and when"
    else:
        wrong = {"environment", "environment_label", "environment_pattern"} & given
        why = "needs --argocd FILE"
    if options.what_if and options.alert_webhook is not None:
        wrong, why = {"alert_webhook"}, "has no meaning with --what-if: nothing is rolled back"
    if options.cost_per_hour is not None and not options.what_if:
        wrong, why = {"cost_per_hour"}, "needs --what-if CHANGE"
    if wrong:
        raise GitOpsError(f"--{min(wrong).replace('_', '-')} {why}")


def _check_output(folder: Path) -> None:
    """Refuse an output folder that cannot be written before the work, not after it."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        writable = existing.is_dir() and os.access(existing, os.W_OK)
    except (OSError, ValueError):
        writable = False
    if not writable:
        raise GitOpsError(f"cannot write into {_one_line(folder)}; --output takes a folder")


def _complain(kind: str, message: str) -> int:
    """Say a warning or an error on stderr; the exit status of an error."""
    sys.stderr.write(f"gitops_automation.py: {kind}: {_one_line(message, 8000)}\n")
    return 2


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the program; in a notebook without the kernel's own arguments. Leaves with SystemExit (in a
    notebook: GitOpsError) only if something is wrong."""
    if _kernel() is not None:
        return _run(_parser().parse_args(argv or []))
    try:
        _run_and_flush(argv)
    except GitOpsError as error:
        sys.exit(_complain("error", str(error)))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        # keep the interpreter from flushing into what is closed or full once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            sys.exit(_complain("error", f"cannot print or write: {error}; give the output a place with room"))


def _run_and_flush(argv: Optional[Sequence[str]]) -> None:
    try:
        _run(_parser().parse_args(argv))
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


if __name__ == "__main__":
    if _kernel() is None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        gc.freeze()  # the imports live to the end: the collections before it need not look at them, a tenth of a run
    main()
