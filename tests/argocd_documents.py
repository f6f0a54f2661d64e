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
REGISTRY = "https://charts.example.org"


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
    return {"repoURL": REGISTRY, "chart": "shop", "targetRevision": version, **more}


def oci(**more):
    return {
        "repoURL": "oci://registry.example.org/shop",
        "path": ".",
        "targetRevision": "latest",
        **more,
    }


def entry(number, end, commit=None, took=30, **more):
    """One entry of `status.history`: a sync that began `took` seconds before it was done."""
    return {
        "id": number,
        "revision": revision(number + 1) if commit is None else commit,
        "deployStartedAt": rfc3339(seconds(end) - took),
        "deployedAt": rfc3339(end),
        "initiatedBy": {},
        "source": source(),
        **more,
    }


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


def operation(
    phase,
    start,
    end,
    commit=None,
    message="one or more objects failed to apply",
    sync=None,
    **source_,
):
    """`status.operationState`: the last operation."""
    commit = revision(999) if commit is None else commit
    return {
        "operation": {
            "initiatedBy": {"automated": True},
            "sync": {"revision": commit, **(sync or {})},
        },
        "phase": phase,
        "message": message,
        "startedAt": rfc3339(start),
        "finishedAt": rfc3339(end),
        "syncResult": {"revision": commit, "source": source(**source_)},
    }


def application(
    name="shop-prod", history=None, *, labels=None, annotations=None, namespace="argocd", **more
):
    """An Application; `history=None` leaves `status` out.

    `more` can be created, spec (the source), sources, destination, automated, operation, health,
    health_message, since (when the health began), sync, reconciled, resources.
    """
    times = {key: rfc3339(more[key]) for key in ("created", "reconciled", "since") if key in more}
    cluster = {"server": "https://kubernetes.default.svc"}
    spec = {"project": "default", "destination": more.get("destination", cluster)}
    spec["source"] = {"repoURL": ""} if "sources" in more else more.get("spec", source())
    policy = {"automated": {}} if more.get("automated") else None
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": with_known(
            {"name": name, "namespace": namespace},
            labels=labels,
            annotations=annotations,
            creationTimestamp=times.get("created"),
        ),
        "spec": with_known(spec, sources=more.get("sources"), syncPolicy=policy),
    }
    if history is not None or "operation" in more:
        health = {"status": more.get("health", "Healthy")}
        message, since = more.get("health_message"), times.get("since")
        document["status"] = with_known(
            {
                "health": with_known(health, message=message, lastTransitionTime=since),
                "sync": {"status": more.get("sync", "Synced")},
            },
            history=history,
            operationState=more.get("operation"),
            reconciledAt=times.get("reconciled"),
            resources=more.get("resources"),
        )
    return copy.deepcopy(document)


def child(name):
    """What an app of apps says of an Application that it has made."""
    return {"group": "argoproj.io", "version": "v1alpha1", "kind": "Application", "name": name}


def with_known(document, **values):
    """A document with those of these values that are given."""
    return {**document, **{key: value for key, value in values.items() if value is not None}}


def config_map():
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm"},
        "data": {"url": "x"},
    }


def project():
    destinations = [{"namespace": "*", "server": "*"}]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "default"},
        "spec": {"destinations": destinations, "sourceRepos": ["*"]},
    }


def _bare(document):
    return {key: value for key, value in document.items() if key not in ("apiVersion", "kind")}


SHAPES = {
    "what kubectl get -o json prints": lambda documents: json.dumps(
        {
            "apiVersion": "v1",
            "kind": "List",
            "metadata": {"resourceVersion": ""},
            "items": documents,
        },
        indent=4,
    ),
    "the array of argocd app list": lambda documents: json.dumps([_bare(one) for one in documents]),
    "the list of the REST API": lambda documents: json.dumps(
        {"metadata": {"resourceVersion": "1"}, "items": [_bare(one) for one in documents]}
    ),
    "objects one after the other": lambda documents: "".join(
        json.dumps(one, indent=2) for one in documents
    ),
    "JSON lines": lambda documents: "".join(json.dumps(one) + "\n" for one in documents),
    "among other kinds": lambda documents: json.dumps(
        {"items": [config_map(), *documents, project()]}
    ),
    "beside an empty list": lambda documents: (
        json.dumps({"metadata": {}, "items": None}) + json.dumps(documents)
    ),
    "the stream of the REST API": lambda documents: "".join(
        json.dumps({"result": {"type": "ADDED", "application": _bare(one)}}) + "\n"
        for one in documents
    ),
    "behind a byte order mark": lambda documents: "\ufeff" + json.dumps(documents),
}
"""How the same applications are printed: by name, a function that gives the text."""


def examples():
    """One Application of every sort that tests use, by name."""
    history = releases(revision(1), revision(2))
    several = [source("charts/shop"), source("values", ref="values")]
    return {
        "plain": application(
            "shop-prod",
            history,
            created="2026-01-01 00:00",
            reconciled="2026-01-06 00:00",
        ),
        "several sources": application(
            "shop-dev",
            [multi_entry(0, "2026-01-05 10:00", [revision(1), revision(2)], several)],
            sources=several,
            labels={"environment": "dev"},
        ),
        "chart": application(
            "redis", [entry(0, "2026-01-05 10:00", "1.2.3", source=chart("1.2.3"))], spec=chart()
        ),
        "image": application(
            "web", [entry(0, "2026-01-05 10:00", "sha256:" + "a" * 64, source=oci())], spec=oci()
        ),
        "app of apps": application(
            "team-apps", history, automated=True, resources=[child("shop-prod"), child("cart-prod")]
        ),
        "no status": application("new-app", annotations={"env": "prod"}),
        "failed": application(
            "cart-prod",
            history,
            operation=operation("Failed", "2026-01-06 10:00", "2026-01-06 10:01"),
            health="Degraded",
            health_message="Deployment exceeded its progress deadline",
            since="2026-01-06 10:01",
            sync="OutOfSync",
            reconciled="2026-01-06 10:05",
        ),
        "dry run": application(
            "dry-prod",
            history,
            operation=operation(
                "Error", "2026-01-06 10:00", "2026-01-06 10:01", sync={"dryRun": True}
            ),
        ),
        "selective": application(
            "some-prod",
            history,
            operation=operation(
                "Failed",
                "2026-01-06 10:00",
                "2026-01-06 10:01",
                sync={"resources": [{"kind": "Service", "name": "a"}]},
            ),
        ),
    }
