"""Each rollback is told of once, to a callable or to a webhook, and a bad webhook stops nothing."""

import contextlib
import http.server
import json
import socket
import socketserver
import threading
import urllib.request

import pytest

import gitops_automation as module
from gitops_automation import COLUMNS, GitOpsAutomation, GitOpsError, Scenario

RUN = ["--seed", "7", "--end", "2026-01-31", "--no-dashboard", "--runs", "2"]
SECRET = "/services/T0123/s3cr3t-t0k3n"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch, tmp_path):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def until_rollbacks(on_rollback=None, scenario=None, seed=7):
    gitops = GitOpsAutomation(
        scenario or Scenario(), seed=seed, end="2026-01-31", on_rollback=on_rollback
    )
    gitops.simulate_git_activity()
    gitops.simulate_deployments()
    gitops.simulate_rollbacks()
    return gitops


# ---- A callable ---------------------------------------------------------------------------------


def test_each_rollback_is_told_once_in_the_order_of_the_table():
    told = []
    gitops = until_rollbacks(told.append)
    assert len(told) == len(gitops.rollbacks) > 20
    for alert, row in zip(told, gitops.rollbacks.to_dict("records")):
        assert list(alert) == ["text", *COLUMNS["rollbacks"]]
        assert alert["timestamp"] == row["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ")
        assert {key: alert[key] for key in row if key != "timestamp"} == {
            key: value for key, value in row.items() if key != "timestamp"
        }


def test_an_alert_is_made_of_plain_values_that_json_can_hold():
    told = []
    until_rollbacks(told.append)
    kinds = {key: {type(alert[key]) for alert in told} for key in told[0]}
    assert kinds == {**dict.fromkeys(kinds, {str}), "duration_min": {float}, "success": {bool}}
    assert json.loads(json.dumps(told)) == told


def test_the_text_of_an_alert_says_what_went_back():
    told = []
    until_rollbacks(told.append)
    for alert in told:
        for key in ("application", "environment", "reason"):
            assert alert[key] in alert["text"]
        assert alert["from_commit"][:7] in alert["text"]
        assert alert["to_commit"][:7] in alert["text"]
        assert ("succeeded" in alert["text"]) == alert["success"]
        assert "\n" not in alert["text"]


def test_nobody_is_told_of_no_rollback():
    told = []
    scenario = Scenario().with_team(commits_per_day=0)
    assert len(until_rollbacks(told.append, scenario).rollbacks) == 0
    assert told == []


def test_the_step_done_again_tells_again():
    told = []
    gitops = until_rollbacks(told.append)
    first = len(told)
    gitops.simulate_rollbacks()
    assert told[first:] == told[:first]


def test_the_alerts_change_nothing_in_the_tables():
    def spoil(alert):
        alert.clear()

    told, silent = until_rollbacks(spoil), until_rollbacks()
    assert told.rollbacks.equals(silent.rollbacks)


def test_an_error_of_the_callable_is_raised_after_the_table_is_there():
    calls = []

    def fail(alert):
        calls.append(alert)
        raise RuntimeError("the pager is broken")

    gitops = GitOpsAutomation(seed=7, end="2026-01-31", on_rollback=fail)
    gitops.simulate_git_activity()
    gitops.simulate_deployments()
    with pytest.raises(RuntimeError, match="the pager is broken"):
        gitops.simulate_rollbacks()
    assert len(calls) == 1
    assert gitops.rollbacks.equals(until_rollbacks().rollbacks)
    assert gitops.calculate_dora_metrics()["total_rollbacks"] == len(gitops.rollbacks)


# ---- A webhook ----------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Keeps each request in `server.requests`, then answers as `server.answer` says."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.requests.append((self.path, dict(self.headers.items()), body))
        self.server.answer(self)

    do_GET = do_PUT = do_HEAD = do_POST

    def log_message(self, *_):
        pass


def reply(status, reason=None, **headers):
    def answer(handler):
        handler.send_response(status, reason)
        for name, value in dict(headers, Content_Length="2").items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(b"ok")

    return answer


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

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
    module.main([*RUN, "--alert-webhook", url])
    out, err = capsys.readouterr()
    assert "GitOps automation complete" in out
    assert "s3cr3t" not in out + err
    assert all(c.isprintable() for c in err.replace("\n", ""))
    return out, err.splitlines()


def one_warning(capsys, url):
    warnings = run(capsys, url)[1]
    assert len(warnings) == 1
    assert "warning" in warnings[0]
    assert "127.0.0.1" in warnings[0]
    return warnings[0]


def test_each_rollback_is_one_post_of_json_with_the_fields_beside_the_text(server, capsys):
    assert run(capsys, server.url)[1] == []
    told = []
    until_rollbacks(told.append)
    assert [json.loads(body.decode("utf-8")) for _, _, body in server.requests] == told
    assert {path for path, _, _ in server.requests} == {SECRET}
    for _, headers, body in server.requests:
        assert headers["Content-Type"].startswith("application/json")
        document = json.loads(body.decode("utf-8"))
        assert isinstance(document["text"], str)
        assert set(document) == {"text", *COLUMNS["rollbacks"]}


def test_the_console_says_how_many_alerts_reached_which_host(server, capsys):
    out, _ = run(capsys, server.url)
    assert f"\n✓ Sent {len(server.requests)} alerts to 127.0.0.1\n" in out


def test_the_program_prints_only_its_json_while_it_posts(server, capsys):
    module.main([*RUN, "--json", "--alert-webhook", server.url])
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["metrics"]["total_rollbacks"] == len(server.requests) > 20


def test_the_class_takes_webhook_alerts_as_its_callable(server):
    alerts = module.WebhookAlerts(server.url)
    gitops = until_rollbacks(alerts)
    assert len(server.requests) == len(gitops.rollbacks)
    assert (alerts.problem, alerts.undelivered, alerts.sent) == ("", 0, len(server.requests))


def test_names_that_are_not_ascii_arrive_as_they_are(server):
    scenario = Scenario().with_team(applications={"größe 🚀": 1})
    until_rollbacks(module.WebhookAlerts(server.url), scenario)
    assert {json.loads(body.decode("utf-8"))["application"] for _, _, body in server.requests} == {
        "größe 🚀"
    }


def alert_once(server):
    """Send one alert; return what the webhook says of it."""
    alerts = module.WebhookAlerts(server.url)
    alerts({"text": "x"})
    assert alerts.undelivered == bool(alerts.problem)
    return alerts.problem


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_status_of_success_is_one(server, status):
    server.answer = reply(status)
    assert alert_once(server) == ""


@pytest.mark.parametrize("status", [400, 403, 404, 410, 429, 500, 503])
def test_a_server_that_refuses_is_a_problem(server, status):
    server.answer = reply(status)
    assert str(status) in alert_once(server)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server, status):
    server.answer = reply(status, Location=server.url.replace(SECRET, "/elsewhere"))
    assert str(status) in alert_once(server)
    assert [path for path, _, _ in server.requests] == [SECRET]


@pytest.mark.parametrize("status", [404, 307])
def test_whatever_is_refused_is_one_warning(server, capsys, status):
    """After the first problem nothing more is sent."""
    server.answer = reply(status, Location="/elsewhere")
    assert str(status) in one_warning(capsys, server.url)
    assert len(server.requests) == 1


def test_a_server_that_hangs_up_is_one_warning(server, capsys):
    server.answer = lambda handler: None
    assert one_warning(capsys, server.url)


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x00\xff garbage\r\n\r\n",
        b"HTTP/1.1 \r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_a_server_that_speaks_something_else_is_one_warning(server, capsys, bytes_):
    def answer(handler):
        handler.wfile.write(bytes_)
        handler.close_connection = True

    server.answer = answer
    assert one_warning(capsys, server.url)


def test_the_words_of_a_server_cannot_reach_the_terminal(server, capsys):
    server.answer = reply(500, "\x1b[31mred\x07\x9b31m" + "x" * 3000)
    assert len(one_warning(capsys, server.url)) < 500


def test_the_warning_counts_what_did_not_arrive(server, capsys):
    def answer(handler):
        reply(200 if len(server.requests) <= 3 else 500)(handler)

    server.answer = answer
    rollbacks = len(until_rollbacks().rollbacks)
    capsys.readouterr()
    out, (warning,) = run(capsys, server.url)
    assert f" {rollbacks - 3} rollback alerts did not reach 127.0.0.1: " in warning
    assert "\n✓ Sent 3 alerts to 127.0.0.1\n" in out


def test_a_single_alert_has_no_plural(server, capsys):
    rollbacks = len(until_rollbacks().rollbacks)
    capsys.readouterr()

    def answer(handler):
        reply(200 if len(server.requests) <= rollbacks - 1 else 500)(handler)

    server.answer = answer
    _, (warning,) = run(capsys, server.url)
    assert " 1 rollback alert did not reach" in warning


def test_a_dead_port_is_one_warning_beside_the_export(capsys, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:%d%s" % (free.getsockname()[1], SECRET)
    module.main(
        [*RUN, "--quiet", "--export", "--output", str(tmp_path / "out"), "--alert-webhook", url]
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "s3cr3t" not in err
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_server_that_never_answers_is_given_up_after_its_timeout(server, capsys, monkeypatch):
    done, timeouts, whole = threading.Event(), [], urllib.request.OpenerDirector.open

    def impatient(opener, request, data=None, timeout=None):
        timeouts.append(timeout)
        return whole(opener, request, data, 0.2)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", impatient)
    server.answer = lambda handler: done.wait(10)
    try:
        assert "timed out" in one_warning(capsys, server.url)
    finally:
        done.set()
    assert timeouts == [5]


def test_a_name_that_does_not_resolve_is_one_warning(capsys, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    warnings = run(capsys, "https://hooks.example.invalid" + SECRET)[1]
    assert len(warnings) == 1
    assert "hooks.example.invalid" in warnings[0]


# ---- Addresses that are none --------------------------------------------------------------------

UNUSABLE = [
    "",
    " ",
    "hooks.example.org" + SECRET,
    "//hooks.example.org" + SECRET,
    "ftp://hooks.example.org" + SECRET,
    "file:///etc/passwd",
    "javascript:alert('s3cr3t')",
    "data:text/plain,s3cr3t",
    "gopher://hooks.example.org" + SECRET,
    "http:",
    "http://",
    "http:" + SECRET,
    "http://" + SECRET,
    "https://:443" + SECRET,
    "http://[::1" + SECRET,
    "http://127.0.0.1:s3cr3t/",
    "http://127.0.0.1:99999" + SECRET,
    "http://user:s3cr3t@127.0.0.1/",
    "http://127.0.0.1/\ns3cr3t",
    "http://127.0.0.1/s3cr3t\r\nX-Evil: 1",
    "http://127.0.0.1/\x1b[31ms3cr3t",
    "http://127.0.0.1\t" + SECRET,
    " http://127.0.0.1" + SECRET,
    "http://127.0.0.1/two words/s3cr3t",
    "http://127.0.0.1/s3cr3t\u202e",
    "http://127.0.0.1/s3cr3t/größe",
    "\x1b[31mhttp://127.0.0.1" + SECRET,
]


@pytest.mark.parametrize("url", UNUSABLE)
def test_an_address_that_cannot_be_used_is_refused_before_anything_is_done(url, capsys, tmp_path):
    with pytest.raises(GitOpsError, match="http") as caught:
        module.WebhookAlerts(url)
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(SystemExit) as left:
        module.main([*RUN, "--export", "--output", str(tmp_path / "out"), "--alert-webhook", url])
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.replace("\n", "").isprintable()
    assert "http" in err
    assert "s3cr3t" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "url",
    [
        "HTTP://example.org/x",
        "https://example.org:8443/x?y=z",
        "http://[::1]:80/x",
        "https://example.org",
    ],
)
def test_an_address_may_have_any_usual_form(url):
    assert module.WebhookAlerts(url).host in ("example.org", "::1")
