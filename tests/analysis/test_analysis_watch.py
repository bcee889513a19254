"""The report of a running study in a browser of this machine."""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fabricated_study import Fabricator, config, study_json

from analysis.__main__ import main
from analysis.collect import collect
from analysis.serve import Served, serve
from analysis.watch import Watched, state_of, watching

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def answering(served: Served) -> Iterator[int]:
    with serve(served, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ask(port: int, path: str = "/", method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host is not None else {})
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def version_in(page: bytes) -> str:
    (found,) = re.findall(rb'const version = "(\w+)"', page)
    return str(found, "ascii")


def test_only_the_page_and_its_status_are_served() -> None:
    with answering(Served(b"<body></body>", {"state": "running"})) as port:
        status, headers, page = ask(port)
        assert (status, page) == (200, b"<body></body>")
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert json.loads(ask(port, "/status")[2]) == {"state": "running"}
        for path in ("/records", "/../study.json", "/status/", "/?x=1"):
            assert ask(port, path)[0] == 404
        for method in ("POST", "PUT", "DELETE", "HEAD"):
            assert ask(port, method=method)[0] == 501


@pytest.mark.parametrize(("host", "status"), [
    ("localhost:{port}", 200), ("127.0.0.1:{port}", 200), ("127.0.0.1", 200), ("evil.example:{port}", 403),
    ("evil.example", 403), ("localhost.evil.example:{port}", 403), ("", 403),
])  # fmt: skip
def test_a_foreign_name_of_this_machine_gets_nothing(host: str, status: int) -> None:
    with answering(Served(b"secret")) as port:
        found, _, page = ask(port, host=host.format(port=port))
        assert found == status
        assert (b"secret" in page) == (status == 200)


def test_it_listens_on_this_machine_alone() -> None:
    with serve(Served(), 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_new_parts_make_a_new_report_and_nothing_new_makes_none(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    watched = Watched(tmp_path)
    assert watched.look() == []
    empty = watched.served.page
    assert "No run has been recorded yet" in empty.decode()
    assert watched.served.status["state"] == "no run has been recorded yet"
    maker.run(config(), 0)
    watched.look()
    first = watched.served.page
    assert version_in(first) != version_in(empty)
    assert version_in(first) == watched.served.status["version"]
    written = (tmp_path / "report.html").stat().st_mtime_ns
    watched.look()
    assert watched.served.page is first
    assert (tmp_path / "report.html").stat().st_mtime_ns == written
    assert "const version" not in (tmp_path / "report.html").read_text()  # the saved file has no such script


def test_a_torn_part_is_named_once_and_the_report_goes_on(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    watched = Watched(tmp_path)
    assert watched.look() == []
    torn = tmp_path / "records/metrics/torn.parquet"
    torn.write_bytes(b"PAR1 and then nothing")
    (line,) = watched.look()
    assert line.startswith(f"cannot read {torn}: ")
    assert str(torn) in watched.served.page.decode()
    maker.run(config(), 1)
    assert watched.look() == []


def test_a_study_that_is_gone_keeps_its_last_report_and_says_why(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path / "study")
    maker.run(config(), 0)
    watched = Watched(tmp_path / "study")
    watched.look()
    page = watched.served.page
    (tmp_path / "study").rename(tmp_path / "aside")
    assert watched.look() == [f"{tmp_path / 'study'}: no such folder"]
    assert watched.look() == []
    assert watched.served.status["error"] == f"{tmp_path / 'study'}: no such folder"
    assert watched.served.page is page
    (tmp_path / "aside").rename(tmp_path / "study")
    watched.look()
    assert watched.served.status["error"] is None


def test_states(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    maker = Fabricator(tmp_path, study_json(sessions=[]))
    maker.run(config(), 0)
    maker.write_trials(maker.trial(config(1.0), 0, status="running"))
    state = state_of(collect(tmp_path), now)
    assert re.fullmatch(r"running: 2 runs, 1 completed, last record at \d\d:\d\d:\d\d UTC", state)
    assert state_of(collect(tmp_path), now + timedelta(minutes=11)).startswith("running or cut off, silent for 11 min")
    ended = (now + timedelta(minutes=1)).isoformat()
    outcomes = {
        "stopped": "stopped before its end (the same command continues it): 2 runs, 1 completed",
        "incomplete": "ended, with runs that failed or are missing: 2 runs, 1 completed",
        "complete": "finished: 2 runs, 1 completed",
    }
    for outcome, begins in outcomes.items():
        session = {"started": ended, "ended": ended, "outcome": outcome}
        (tmp_path / "study.json").write_text(json.dumps(study_json(sessions=[session])))
        collected = collect(tmp_path)
        assert state_of(collected, now).startswith(begins)
    assert state_of(collected, now + timedelta(days=2)).endswith(f" on {now:%Y-%m-%d}")
    (tmp_path / "study.json").write_text(json.dumps(study_json(sessions=[session, {"started": ended}])))
    assert state_of(collect(tmp_path), now).startswith("running: 2 runs")  # a later session has begun


def test_the_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    command = [sys.executable, "-m", "analysis", "watch", str(tmp_path), "--port", "0", "--interval", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)
        assert found is not None, line
        port = int(found[1])
        version = version_in(ask(port)[2])
        maker.run(config(), 1)
        until = time.monotonic() + 60
        while json.loads(ask(port, "/status")[2])["version"] == version and time.monotonic() < until:
            time.sleep(0.1)
        assert version_in(ask(port)[2]) != version
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_wrong_input_is_one_line(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty").mkdir()
    Fabricator(tmp_path / "study")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, message in (
            ([str(tmp_path / "empty")], "holds no study.json"), ([str(tmp_path / "absent")], "no such folder"),
            ([str(tmp_path / "study"), "--port", port], f"port {port} of 127.0.0.1 cannot be listened at"),
        ):  # fmt: skip
            assert main(["watch", *arguments]) == 2
            said = capsys.readouterr().err
            assert message in said and said.count("\n") == 1


@pytest.mark.parametrize("options", [["--port", "65536"], ["--port", "-1"], ["--interval", "0"], ["--interval", "nan"]])
def test_numbers_that_are_none(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["watch", str(tmp_path), *options])
    assert caught.value.code == 2


def test_the_server_ends_with_its_block(tmp_path: Path) -> None:
    Fabricator(tmp_path)
    with watching(tmp_path, 0) as (address, watched):
        watched.look()
        port = int(address.rstrip("/").rpartition(":")[2])
        assert ask(port)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        ask(port)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
def test_a_browser_loads_the_newer_report_where_it_was_scrolled_to(tmp_path: Path) -> None:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no playwright is installed (pip install -e '.[test]')"
    )
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    with watching(tmp_path, 0) as (address, watched), sync_api.sync_playwright() as playwright:
        watched.look()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        said: list[str] = []
        asked: set[str] = set()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        page.goto(address)
        page.wait_for_function("document.querySelector('#watch').textContent.includes('1 run, 1 completed')")
        page.evaluate("document.querySelector('#filters input[value=\"50\"]').click()")
        page.evaluate("scrollTo(0, 700)")
        maker.run(config(), 1)
        watched.look()
        page.wait_for_function("document.querySelector('#watch')?.textContent.includes('2 runs, 2 completed')")
        page.wait_for_function("scrollY === 700")
        off = "[...document.querySelectorAll('#filters input')].filter(box => !box.checked).map(box => box.value)"
        assert page.evaluate(off) == ["50"]
        assert "1 switched off" in page.inner_text("#filter-state")
        assert said == []
        assert {url.split(":")[0] for url in asked} <= {"http", "data", "blob"}
        assert {url for url in asked if url.startswith("http")} == {address, f"{address}status"}
        browser.close()
