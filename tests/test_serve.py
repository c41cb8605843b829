"""The live page: what it serves, what it refuses, and when it makes the report again."""

import http.client
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from runhelpers import ROOT, one_thread

from albert_ablate.files import write_json
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.lock import locked
from analysis import live
from analysis.live import Report
from analysis.serve import Server, main


@pytest.fixture
def runs(finished: RunFolder, tmp_path: Path) -> Path:
    """A folder with a copy of a finished run, as a sweep of one cell."""
    return copied_run(finished, tmp_path)


def copied_run(finished: RunFolder, place: Path) -> Path:
    shutil.copytree(finished.path, place / "runs" / finished.name)
    cells = [{"label": "E=16, seed 0", "folder": finished.name, "units": [], "rows": ["x"], "problem": None}]
    facts = {"name": "x", "started": time.time() - 60, "ended": None, "host": "h", "pid": 1, "cells": cells}
    write_json(place / "runs" / ".sweeps" / "x-1.json", facts)
    return place / "runs"


@pytest.fixture
def server(runs: Path) -> Iterator[Server]:
    """The page of ``runs``, served on a free port."""
    with served(runs) as server:
        yield server


@pytest.fixture(scope="module")
def standing(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page of a finished run that no test changes, with its report."""
    with served(copied_run(finished, tmp_path_factory.mktemp("standing"))) as server:
        wait_for(lambda: status(server)["report"]["version"] == 1)
        yield server


@contextmanager
def served(runs: Path) -> Iterator[Server]:
    with (
        pytest.MonkeyPatch.context() as patch,
        Report(runs) as report,
        Server("127.0.0.1", 0, runs, report) as server,
    ):
        patch.setattr(live, "_LOOK", 0.1)
        patch.setattr(live, "_PAUSE", 0.1)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: Server, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    """(status, body, headers) of a request. The path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.headers)


def status(server: Server) -> dict[str, Any]:
    code, body, _ = get(server, "/status.json")
    assert code == 200
    return dict(json.loads(body))


def wait_for(told: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, told
        time.sleep(0.1)


def test_the_page_has_the_cells_and_the_report(standing: Server) -> None:
    code, page, headers = get(standing, "/")
    assert code == 200
    assert b"status.json" in page
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    told = status(standing)
    assert told["title"] == "sweep x"
    assert told["counts"] == "1 finished"
    assert [(cell["label"], cell["state"]) for cell in told["cells"]] == [("E=16, seed 0", "finished")]
    code, report, _ = get(standing, "/report/index.html?1")
    assert code == 200
    assert b"e16-all-sop-nano-s0" in report
    assert get(standing, "/report/runs.csv")[0] == 200
    code, body, headers = get(standing, "/report/index.html", method="HEAD")
    assert (code, body, int(headers["Content-Length"])) == (200, b"", len(report))


@pytest.mark.parametrize(
    "path",
    ["/report/../runs/{run}/config.yaml", "/report/%2e%2e/%2e%2e/etc/passwd", "/../../etc/passwd",
     "/report//etc/passwd", "//etc/passwd", "/{run}/config.yaml", "/report/..%5c..%5cetc", "/report/",
     "/report/\u0000", "/favicon.ico"],
)  # fmt: skip
def test_nothing_but_the_report_is_served(standing: Server, path: str) -> None:
    run = "e16-all-sop-nano-s0"
    request = f"GET {path.format(run=run)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", standing.server_address[1]), timeout=30) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert re.match(rb"HTTP/1\.\d 40[04] ", answer), answer[:100]
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.7", "[", "", "127.0.0.1.evil.example"]
)
def test_a_foreign_host_name_is_refused(standing: Server, host: str) -> None:
    assert get(standing, "/status.json", host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8642", "127.0.0.1:1", "[::1]:8642", "LOCALHOST"])
def test_the_names_of_this_machine_are_known(standing: Server, host: str) -> None:
    assert get(standing, "/status.json", host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(standing: Server, method: str) -> None:
    assert get(standing, "/status.json", method=method)[0] == 501


def test_the_report_is_made_again_only_where_runs_change(server: Server, runs: Path) -> None:
    wait_for(lambda: status(server)["report"]["version"] == 1)
    (run,) = runs.glob("e16-*")
    with (run / "metrics.jsonl").open("a") as lines:  # a log line says nothing new
        lines.write("\n")
    time.sleep(1.0)
    assert status(server)["report"]["version"] == 1
    RunFolder(runs, "broken").set_status("failed", "no memory", 1)
    wait_for(lambda: status(server)["report"]["version"] == 2)
    assert b"no memory" in get(server, "/report/index.html")[1]


def test_the_old_report_stays_where_a_new_one_cannot_be_made(server: Server, runs: Path) -> None:
    wait_for(lambda: status(server)["report"]["version"] == 1)
    (run,) = runs.glob("e16-*")
    run.rename(runs / ".aside")
    wait_for(lambda: status(server)["report"]["problem"] is not None)
    assert "no run folders there" in status(server)["report"]["problem"]
    assert get(server, "/report/index.html")[0] == 200


def test_the_death_of_the_process_that_makes_the_report_is_said(server: Server, runs: Path) -> None:
    wait_for(lambda: status(server)["report"]["version"] == 1)
    RunFolder(runs, "another").set_status("finished")
    wait_for(lambda: status(server)["report"]["building"])
    for process in multiprocessing.active_children():
        if process.name == "report":
            process.kill()
    wait_for(lambda: status(server)["report"]["problem"] is not None)
    assert "its process ended with code -9" in status(server)["report"]["problem"]
    assert get(server, "/report/index.html")[0] == 200


def test_a_running_run_shows_its_progress_and_a_damaged_record_ends_nothing(server: Server, runs: Path) -> None:
    with locked(runs / "going") as lock:
        RunFolder(runs, "going").set_status("running")
        lock.note(phase="training", step=5, share=0.5, speed=100.0, scores="MLM 5.231 nats")
        wait_for(lambda: any(cell["share"] == 0.5 for cell in status(server)["cells"]))
        (going,) = (cell for cell in status(server)["cells"] if cell["label"] == "going")
        assert (going["step"], going["scores"], going["phase"]) == (5, "MLM 5.231 nats", "training")
    (runs / ".sweeps" / "x-1.json").write_text("{")
    told = status(server)
    assert told["cells"] == []
    assert told["damaged"]


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    with Report(tmp_path) as report:
        wait_for(lambda: report.facts()["problem"] is not None)
        assert "no run folders there" in report.facts()["problem"]
        assert live.state(tmp_path)["cells"] == []


@pytest.mark.parametrize("words", [["nowhere"], ["--port", "http"], ["--port", "70000"]])
def test_wrong_arguments_are_refused_in_words(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert main(words) == 2
    assert words[-1] in capsys.readouterr().err


def test_a_port_in_use_is_said_with_the_remedy(server: Server, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(runs), "--port", str(server.server_address[1])]) == 1
    assert "--port 0 takes a free one" in capsys.readouterr().err


def test_the_command_ends_cleanly_by_ctrl_c_and_warns_of_an_open_address(runs: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "albert_ablate", "serve", str(runs), "--port", "0", "--host", "0.0.0.0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=one_thread(),
    )  # fmt: skip
    assert process.stdout is not None
    warning, address = process.stdout.readline(), process.stdout.readline()
    assert "everyone who can reach 0.0.0.0 can read these results" in warning
    port = re.search(r"http://localhost:(\d+)/", address)
    assert port is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "Stopped." in out
