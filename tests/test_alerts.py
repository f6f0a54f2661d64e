"""Each rollback is told of once, to a callable or to a webhook, and a bad webhook stops nothing."""

import contextlib
import http.server
import json
import socket
import socketserver
import threading
import urllib.request

import pytest
from conftest import called

import gitops_automation as module
from gitops_automation import COLUMNS, GitOpsAutomation, GitOpsError, Scenario

RUN = ["--seed", "7", "--end", "2026-01-31", "--no-dashboard", "--runs", "2", "--days", "9"]
RUN += ["--alert-webhook"]
SECRET = "/services/T0123/s3cr3t-t0k3n"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch, tmp_path):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def until_rollbacks(on_rollback=None, scenario=None):
    """Run the steps until the rollbacks; return the pipeline."""
    gitops = GitOpsAutomation(
        scenario or Scenario(), seed=7, end="2026-01-31", on_rollback=on_rollback
    )
    gitops.simulate_git_activity()
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    return gitops


# ---- A callable ---------------------------------------------------------------------------------


def test_each_rollback_is_told_once_in_plain_values_and_said_to_be_simulated():
    told = []
    gitops = until_rollbacks(told.append)
    assert len(told) == len(gitops.rollbacks) > 20
    assert json.loads(json.dumps(told)) == told
    for alert, row in zip(told, gitops.rollbacks.to_dict("records")):
        assert list(alert) == ["text", "simulated", *COLUMNS["rollbacks"]]
        assert alert["simulated"] is True
        moment = row.pop("timestamp").strftime("%Y-%m-%dT%H:%M:%SZ")
        assert alert == {**alert, **row, "timestamp": moment}
        text = alert["text"]
        assert text.startswith("SIMULATED rollback ")
        for shown in (row["application"], row["environment"], row["reason"]):
            assert shown in text
        assert row["from_commit"][:7] in text and row["to_commit"][:7] in text
        assert ("succeeded" in text) == row["success"]
    gitops.simulate_rollbacks()  # the step done again tells again
    assert told[len(told) // 2 :] == told[: len(told) // 2]


# ---- A webhook ----------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Keeps each request in `server.requests`, then answers as `server.answer` says."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.requests.append((self.path, dict(self.headers.items()), body))
        self.server.answer(self)

    do_GET = do_POST

    def log_message(self, *_):
        pass


def reply(status, reason=None, **headers):
    """Return an answer with this status."""

    def answer(handler):
        handler.send_response(status, reason)
        for name, value in dict(headers, Content_Length="2").items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(b"ok")

    return answer


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        socketserver.TCPServer.server_bind(self)  # without asking for the name of the address
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, *_):
        pass


@pytest.fixture
def server():
    server = Server(("127.0.0.1", 0), Handler)
    server.requests, server.answer = [], reply(200)
    server.url = "http://127.0.0.1:%d%s" % (server.server_port, SECRET)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run(capsys, url):
    """Return output and warnings of a run with this webhook, which ends well without the secret."""
    status, out, err = called(capsys, *RUN, url)
    assert status == 0
    assert "GitOps automation complete" in out
    assert "s3cr3t" not in out + err
    assert err.replace("\n", "").isprintable()
    return out, err.splitlines()


def problem_with(url):
    """Send two alerts; return what the webhook says of the first. No second one is tried."""
    alerts = module.WebhookAlerts(url)
    alerts({"text": "x"})
    alerts({"text": "y"})
    assert alerts.sent == (0 if alerts.problem else 2)
    assert alerts.problem.isprintable() and len(alerts.problem) < 300
    assert "s3cr3t" not in alerts.problem
    return alerts.problem


def test_each_rollback_is_one_post_of_json(server, capsys):
    scenario, told = Scenario().with_team(applications={"größe 🚀": 1}), []
    until_rollbacks(module.WebhookAlerts(server.url), scenario)
    until_rollbacks(told.append, scenario)
    assert [json.loads(body.decode("utf-8")) for _, _, body in server.requests] == told
    assert {path for path, _, _ in server.requests} == {SECRET}
    assert {head["Content-Type"] for _, head, _ in server.requests} == {"application/json"}


def test_the_console_says_how_many_alerts_reached_which_host(server, capsys):
    out, warnings = run(capsys, server.url)
    assert f"\n✓ Sent {len(server.requests)} alerts to 127.0.0.1\n" in out
    assert warnings == []
    before = len(server.requests)
    _, out, err = called(capsys, *RUN, server.url, "--json")
    assert err == ""
    assert json.loads(out)["metrics"]["total_rollbacks"] == len(server.requests) - before > 5


@pytest.mark.parametrize("said", [b"", b"\x00\xff garbage\r\n\r\n", b"HTTP/1.1 \r\n\r\n"])
def test_a_server_that_speaks_something_else_is_a_problem(server, said):
    def answer(handler):
        handler.wfile.write(said)
        handler.close_connection = True

    server.answer = answer
    assert problem_with(server.url)


def test_a_redirect_is_not_followed(server):
    server.answer = reply(302, Location="http://127.0.0.1:1/")
    assert problem_with(server.url) == "HTTP 302"
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_or_never_answers_is_a_problem(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refused" in problem_with(f"http://127.0.0.1:{port}{SECRET}")
    assert problem_with(f"http://127.0.0.1:99999{SECRET}")
    done, timeouts, whole = threading.Event(), [], urllib.request.OpenerDirector.open

    def impatient(opener, request, data=None, timeout=None):
        timeouts.append(timeout)
        return whole(opener, request, data, 0.2)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", impatient)
    server.answer = lambda handler: done.wait(10)
    try:
        assert "timed out" in problem_with(server.url)
    finally:
        done.set()
    assert timeouts == [5]


# ---- Addresses that are none --------------------------------------------------------------------

UNUSABLE = ["", "hooks.example.org", "//hooks.example.org", "ftp://hooks.example.org", "http:"]
UNUSABLE += ["file:///etc/passwd", "http://", "http://" + SECRET, "https://:443", "http://[::1"]
UNUSABLE += ["http://127.0.0.1:s3cr3t/", "http://user:s3cr3t@127.0.0.1/", " http://127.0.0.1"]
UNUSABLE += ["http://127.0.0.1/s3cr3t\r\nX-Evil: 1", "http://127.0.0.1/\x1b[31ms3cr3t"]
UNUSABLE += ["http://127.0.0.1/two words/s3cr3t", "http://127.0.0.1/s3cr3t/größe"]


def test_an_address_that_cannot_be_used_is_refused_before_anything_is_done(capsys, tmp_path):
    for url in UNUSABLE:
        with pytest.raises(GitOpsError, match="http://") as caught:
            module.WebhookAlerts(url)
        assert "s3cr3t" not in str(caught.value)
    status, out, err = called(capsys, *RUN, UNUSABLE[-1], "--export", "--output", tmp_path / "out")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "http" in err and "s3cr3t" not in err
    assert not (tmp_path / "out").exists()
    for usual in ("HTTP://example.org/x", "https://example.org:8443/x?y=z", "https://example.org"):
        assert module.WebhookAlerts(usual).host == "example.org"
    assert module.WebhookAlerts("http://[::1]:80/x").host == "[::1]"
