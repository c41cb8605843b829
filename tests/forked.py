"""Runs a command in a process forked from one that has loaded the libraries: a fifth of a second instead of five.

The process is a new one, with its own streams, folder, environment and exit code. Its sweeps fork their cells from the
same server, so an environment variable reaches the command and not its cells. The code is that of the checkout or,
where ``PYTHONPATH`` begins with the folder of a copy, that of the copy.
"""

import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from albert_ablate.sweeping import process

ROOT = Path(__file__).resolve().parent.parent


class Command:
    """``python WORDS``, with a script or ``-m MODULE`` first, in its own process; used as a ``subprocess.Popen``."""

    def __init__(self, *words: str, cwd: Path, environment: dict[str, str]) -> None:
        process.warm_up()
        address = forkserver._forkserver._forkserver_address  # type: ignore[attr-defined]
        self._folder = TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("out", "err")]
        self._process = process.server().Process(
            target=_run, args=(words, str(cwd), environment, self._streams, address)
        )
        self._process.start()
        self._words = list(words)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        code: int | None = self._process.exitcode
        return code

    @property
    def returncode(self) -> int | None:
        """As ``poll``."""
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait; returns stdout and stderr. Raises TimeoutExpired after ``timeout`` seconds, when it has been killed."""
        self._process.join(timeout)
        late = self._process.exitcode is None
        if late:
            self._process.kill()
            self._process.join()
        out, err = (file.read_text(encoding="utf-8") if file.exists() else "" for file in self._streams)
        self._folder.cleanup()
        if late:
            raise subprocess.TimeoutExpired(self._words, timeout, out, err)
        return out, err


def python(
    *words: str, cwd: Path, environment: dict[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """As ``subprocess.run`` with captured streams. Raises TimeoutExpired, when the process has been killed."""
    command = Command(*words, cwd=cwd, environment=environment)
    out, err = command.communicate(timeout)
    code = command.poll()
    assert code is not None
    return subprocess.CompletedProcess(list(words), code, out, err)


def _run(words: Sequence[str], cwd: str, environment: dict[str, str], streams: Sequence[Path], address: str) -> None:
    for number, file in enumerate(streams, 1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    path = environment.get("PYTHONPATH", "").split(os.pathsep)
    if path[0] and Path(path[0]).resolve() != ROOT:
        _forget()
        sys.path[:0] = path
    else:
        _share(address)
    code = 1
    try:
        code = _as_main(words)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _forget() -> None:
    """Unload the code of the checkout."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and ROOT in Path(file).parents and "site-packages" not in file:
            del sys.modules[name]


def _share(address: str) -> None:
    """Let this process fork from the server that it was forked from, whose other descriptors it inherited."""
    server: Any = forkserver._forkserver
    server._forkserver_address = address
    server.ensure_running = forkserver.ensure_running = lambda: None


def _as_main(words: Sequence[str]) -> int:
    module = words[0] == "-m"
    sys.argv = list(words[1:] if module else words)
    sys.path[0] = os.getcwd() if module else str(Path(words[0]).parent)
    try:
        if module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    return 0
