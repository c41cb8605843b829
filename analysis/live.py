"""What the live page shows: the state of the cells, and the report, made again when run folders change."""

import mimetypes
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from albert_ablate.errors import UserError
from albert_ablate.files import read_json
from albert_ablate.stopping import blocked
from albert_ablate.sweeping.board import counts, remaining
from albert_ablate.sweeping.record import Standing, records, single_run, single_runs, standings

from .report import report_on

#: Seconds between two looks at the run folders, and at least between the ends and starts of reports.
_LOOK, _PAUSE = 2.0, 10.0
#: Files of a run folder that change what a report says; log lines of a running run do not.
_READ = ("status.json", "manifest.json", "results.json", "similarity.json")


@dataclass(frozen=True)
class Page:
    """A file of the report."""

    content: bytes
    kind: str  # of the content, as in HTTP


def state(runs: Path) -> dict[str, Any]:
    """The cells of the sweep that was started last, and running runs of no sweep; all runs where there is no sweep."""
    recorded = records(runs)
    known = {cell["folder"] for record in recorded for cell in read_json(record)["cells"]}
    single = [single_run(runs, name) for name in single_runs(runs) if name not in known]
    if not recorded:
        return _shown(str(runs), single, "")
    facts, cells = read_json(recorded[-1]), standings(recorded[-1])
    going = not facts["ended"] and any(cell.state == "running" for cell in cells)
    left = remaining(cells, time.time() - facts["started"]) if going else ""
    return _shown(f"sweep {facts['name']}", [*cells, *(run for run in single if run.state == "running")], left)


def _shown(title: str, cells: list[Standing], left: str) -> dict[str, Any]:
    fields = ("label", "state", "reason", "phase", "share", "step", "scores", "speed")
    rows = [{name: getattr(cell, name) for name in fields} for cell in cells]
    return {"title": title, "counts": counts(cells), "left": left, "cells": rows}


class Report:
    """The newest report on ``runs``, made while the previous one is shown.

    A process of its own makes it, so that leaving the context can end the work at once. A thread could only be
    abandoned, and an interpreter that ends while a thread is inside a library of C++ aborts.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._seen: object = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._pages: Mapping[str, Page] = {}
        self._facts: dict[str, Any] = {"version": 0, "building": False, "problem": None}
        self._maker: Any = None  # the process that makes a report, once there was one
        self._thread = threading.Thread(target=self._watch, name="report")

    def __enter__(self) -> "Report":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over.set()
            if self._maker is not None:
                self._maker.kill()
        self._thread.join()

    def page(self, name: str) -> Page | None:
        """A file of the report, by its path in it; None for any other name."""
        with self._lock:
            return self._pages.get(name)

    def facts(self) -> dict[str, Any]:
        """``version`` (0 before the first report), ``building``, and the ``problem`` of the last attempt or None."""
        with self._lock:
            return dict(self._facts)

    def _watch(self) -> None:
        while not self._over.is_set():
            now = self._signature()
            if now != self._seen:
                self._seen = now
                self._build()
            self._over.wait(_PAUSE if now != self._signature() else _LOOK)

    def _signature(self) -> object:
        """What changes whenever a report on the runs would."""
        files = [file for name in _READ for file in self._runs.glob(f"[!.]*/{name}")]
        return {str(file): _stamp(file) for file in files}

    def _build(self) -> None:
        with tempfile.TemporaryDirectory(prefix="albert-ablate-report-") as folder:
            problem = self._made(Path(folder))
            pages = None if problem else _pages(Path(folder))
        with self._lock:
            self._facts |= {"building": False, "problem": problem}
            if pages is not None:
                self._pages = pages
                self._facts["version"] += 1

    def _made(self, out: Path) -> str | None:
        """Make the report in ``out``; returns why that failed, None if it did not."""
        # Its server has loaded the libraries, so that only the first report waits for them.
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["analysis.report"])
        resource_tracker.ensure_running()  # it unblocks some signals, so it goes first
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_make, args=(self._runs, out, send), name="report", daemon=True)
        with self._lock, blocked():  # Ctrl-C is for this process, which then ends the other
            if self._over.is_set():
                return "stopped"
            self._facts["building"] = True
            process.start()
            self._maker = process
        send.close()
        try:
            problem: str | None = receive.recv()
        except EOFError:
            process.join()
            problem = f"The report could not be made (its process ended with code {process.exitcode})."
        process.join()
        return problem


def _make(runs: Path, out: Path, send: Connection) -> None:
    """Body of the process: make the report and send why that failed, or None."""
    try:
        report_on([runs], out)
    except UserError as error:
        send.send(error.message)
    except Exception as error:  # a run folder that is being written, say: the next change makes another report
        send.send(f"The report could not be made ({type(error).__name__}: {error}).")
    else:
        send.send(None)


def _stamp(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:  # moved aside meanwhile
        return 0


def _pages(folder: Path) -> dict[str, Page]:
    """The files of a report, by their path in it."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): Page(file.read_bytes(), _kind(file)) for file in files}


def _kind(file: Path) -> str:
    kind = "text/plain" if file.suffix in (".md", ".tex") else mimetypes.guess_type(file.name)[0]
    kind = kind or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
