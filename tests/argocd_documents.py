"""Argo CD Applications as kubectl prints them, small, valid under the official schema.

`argocd_application_schema.json` is the `openAPIV3Schema` of Argo CD's `applications.argoproj.io`
without the descriptions. Times are given as seconds since 1970 or as "2026-01-05 10:00".
"""

import copy
import json
from datetime import datetime, timezone
from pathlib import Path

SCHEMA_FILE = Path(__file__).resolve().parent / "argocd_application_schema.json"
REPOSITORY = "https://git.example.org/config.git"


def seconds(time):
    """Seconds since 1970 of a time in UTC."""
    if isinstance(time, str):
        layout = "%Y-%m-%d %H:%M:%S" if time.count(":") == 2 else "%Y-%m-%d %H:%M"
        return int(datetime.strptime(time, layout).replace(tzinfo=timezone.utc).timestamp())
    return int(time)


def rfc3339(time):
    return datetime.fromtimestamp(seconds(time), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def revision(number):
    """A commit id that no repository has."""
    return f"{number:040x}"


def source(path="apps/shop", **more):
    return {"repoURL": REPOSITORY, "path": path, "targetRevision": "main", **more}


def chart(version="1.0.0", **more):
    registry = {"repoURL": "https://charts.example.org", "chart": "shop"}
    return {**registry, "targetRevision": version, **more}


def entry(number, end, commit=None, took=30, **more):
    """One entry of `status.history`: a sync that began `took` seconds before it was done."""
    times = {"deployStartedAt": rfc3339(seconds(end) - took), "deployedAt": rfc3339(end)}
    commit = revision(number + 1) if commit is None else commit
    return {
        "id": number, "revision": commit, **times, "initiatedBy": {}, "source": source(), **more
    }  # fmt: skip


def multi_entry(number, end, revisions, sources, took=30):
    """An entry of an application with several sources: Argo CD leaves the single one empty."""
    one = entry(number, end, "", took, source={"repoURL": ""}, sources=sources, revisions=revisions)
    del one["revision"]
    return one


def releases(*commits, start="2026-01-05 10:00", every=3600, first=0, **more):
    """Entries of the commits, one an hour."""
    return [
        entry(first + number, seconds(start) + number * every, commit, **more)
        for number, commit in enumerate(commits)
    ]


def operation(phase, start, end, commit=None, message="objects failed to apply", sync=None, **of):
    """`status.operationState`: the last operation."""
    commit = revision(999) if commit is None else commit
    by = {"automated": True} if (sync or {}).get("autoHealAttemptsCount") else {"username": "ann"}
    return {
        "operation": {"initiatedBy": by, "sync": {"revision": commit, **(sync or {})}},
        "phase": phase,
        "message": message,
        "startedAt": rfc3339(start),
        "finishedAt": rfc3339(end),
        "syncResult": {"revision": commit, "source": source(**of)},
    }


def application(
    name="shop-prod", history=None, *, labels=None, annotations=None, namespace="argocd", **more
):
    """An Application; `history=None` leaves `status` out.

    `more` can be created, spec (the source), sources, destination, automated, limit, operation,
    health, health_message, since (when the health began), sync, reconciled, resources, uid.
    """
    times = {key: rfc3339(more[key]) for key in ("created", "reconciled", "since") if key in more}
    metadata = {"labels": labels, "annotations": annotations, "uid": more.get("uid")}
    spec = {
        "destination": more.get("destination", {"server": "https://kubernetes.default.svc"}),
        "source": {"repoURL": ""} if "sources" in more else more.get("spec", source()),
        "sources": more.get("sources"),
        "syncPolicy": {"automated": {}} if more.get("automated") else None,
        "revisionHistoryLimit": more.get("limit"),
    }
    created = times.get("created")
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": known(name=name, namespace=namespace, creationTimestamp=created, **metadata),
        "spec": known(project="default", **spec),
    }
    if history is not None or "operation" in more:
        health = {"message": more.get("health_message"), "lastTransitionTime": times.get("since")}
        document["status"] = known(
            health=known(status=more.get("health", "Healthy"), **health),
            sync={"status": more.get("sync", "Synced")},
            history=history,
            operationState=more.get("operation"),
            reconciledAt=times.get("reconciled"),
            resources=more.get("resources"),
        )
    return copy.deepcopy(document)


def known(**values):
    """Those of these values that are given."""
    return {key: value for key, value in values.items() if value is not None}


def child(name):
    """What an app of apps says of an Application that it has made."""
    return {"group": "argoproj.io", "version": "v1alpha1", "kind": "Application", "name": name}


CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}}
SHAPES = {
    "what kubectl prints": lambda all_: json.dumps({"kind": "List", "items": all_}, indent=4),
    "the array of argocd app list": lambda all_: json.dumps(
        [{key: one[key] for key in one if key not in ("apiVersion", "kind")} for one in all_]
    ),
    "objects one after the other": lambda all_: "".join(json.dumps(one, indent=2) for one in all_),
    "JSON lines": lambda all_: "".join(json.dumps(one) + "\n" for one in all_),
    "among other kinds": lambda all_: json.dumps({"items": [CONFIG_MAP, *all_]}),
    "beside an empty list": lambda all_: json.dumps({"items": None}) + json.dumps(all_),
    "the stream of the REST API": lambda all_: "\n".join(
        json.dumps({"result": {"type": "ADDED", "application": one}}) for one in all_
    ),
    "behind a byte order mark": lambda all_: "\ufeff" + json.dumps(all_),
}
"""How the same applications are printed: by name, a function that gives the text."""


def examples():
    """One Application of every sort that tests use, by name."""
    history = releases(revision(1), revision(2))
    several = [source("charts/shop"), source("values", ref="values")]
    both = multi_entry(0, "2026-01-05 10:00", [revision(1), revision(2)], several)
    failed = operation("Failed", "2026-01-06 10:00", "2026-01-06 10:01")
    some = {"resources": [{"kind": "Service", "name": "a"}]}
    part = operation("Succeeded", "2026-01-06 10:00", "2026-01-06 10:01", sync=some)
    known_ = {"created": "2026-01-01 00:00", "reconciled": "2026-01-06 12:00"}
    chart_ = entry(0, "2026-01-05 10:00", "1.2.3", source=chart("1.2.3"))
    sick = {"health": "Degraded", "health_message": "no pod", "since": "2026-01-06 10:01"}
    return {
        "plain": application("shop-prod", history, **known_),
        "several sources": application("shop-dev", [both], sources=several, labels={"env": "dev"}),
        "chart": application("redis", [chart_], spec=chart()),
        "app of apps": application("all", history, automated=True, resources=[child("shop-prod")]),
        "no status": application("new-app", annotations={"env": "prod"}),
        "failed": application("cart-prod", history, operation=failed, sync="OutOfSync", **sick),
        "part": application("some-prod", history, operation=part, uid="a", **known_),
        "no history": application("mute-prod", [], operation=failed, limit=0),
    }
