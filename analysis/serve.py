"""The report and the board in a browser, kept up to date while runs train: ``python -m analysis.serve runs``.

A read-only HTTP server on this machine alone. It serves the files of the report and a JSON status, and no file of the
disk. Requests under another host name are refused, so that a page in the same browser cannot read the results by
pointing a name of its own at this machine (DNS rebinding).
"""

import argparse
import errno
import ipaddress
import json
import socket
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.console import command, say
from albert_ablate.errors import RunFolderError, UserError

from .live import Page, Report, state

_TEMPLATE = Path(__file__).parent / "templates" / "live.html.j2"
#: Where the report lies below the page.
_REPORT = "/report/"
_PORT = 8642
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'",
}


class Server(ThreadingHTTPServer):
    """Serves the live page of ``runs`` at ``host`` and ``port`` (0: a free one). Raises OSError if it is taken."""

    daemon_threads = True

    def __init__(self, host: str, port: int, runs: Path, report: Report) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.runs = runs
        self.report = report
        self.host = host
        super().__init__((host, port), Handler)

    @property
    def url(self) -> str:
        """The address of the page."""
        host = "localhost" if self.host in ("127.0.0.1", "0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    def knows(self, host: str) -> bool:
        """Whether ``host``, the Host header, is a name of this machine: an IP address cannot be rebound."""
        name = urlsplit(f"//{host}").hostname or ""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in ("localhost", self.host.lower()) or (
                not loopback(self.host) and name == socket.gethostname().lower()
            )
        return address.is_loopback or not loopback(self.host)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; every other method is refused by the base class."""

    server: Server
    server_version = "albert-ablate"
    sys_version = ""

    def do_GET(self) -> None:
        """Send the page, the status or a file of the report."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send the headers alone."""
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Print nothing for a request."""

    def _answer(self, body: bool) -> None:
        try:
            known = self.server.knows(self.headers.get("Host", ""))
        except ValueError:  # a host that is not one, such as [
            known = False
        if not known:
            self.send_error(HTTPStatus.FORBIDDEN, "This page is only served under a name of this machine.")
            return
        page = self._page(unquote(urlsplit(self.path).path))
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        for name, value in {**_HEADERS, "Content-Type": page.kind, "Content-Length": str(len(page.content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(page.content)

    def _page(self, path: str) -> Page | None:
        if path == "/":
            return Page(_TEMPLATE.read_bytes(), "text/html; charset=utf-8")
        if path == "/status.json":
            return Page(json.dumps(self._status()).encode(), "application/json")
        return self.server.report.page(path.removeprefix(_REPORT)) if path.startswith(_REPORT) else None

    def _status(self) -> dict[str, object]:
        try:
            cells = state(self.server.runs)
        except (UserError, OSError, ValueError, LookupError) as error:  # a damaged record hides the cells alone
            cells = {"title": str(self.server.runs), "counts": "", "left": "", "cells": [], "damaged": str(error)}
        return {**cells, "report": self.server.report.facts()}


def loopback(host: str) -> bool:
    """Whether only this machine reaches a server at ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: serves until Ctrl-C. Exit code 2 without the folder, 1 if the address cannot be used."""
    parser = Parser(prog=program("serve"), description="The report and the board in a browser.")
    parser.add_argument(
        "runs", type=Path, nargs="?", default=Path("runs"), help="folder of run folders (default: runs)"
    )
    parser.add_argument("--port", type=_port, default=_PORT, help=f"(default: {_PORT}; 0: any free one)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1, this machine alone)")
    options = parser.parse_args(arguments)
    if not options.runs.is_dir():
        raise RunFolderError(f"{options.runs}: there is no such folder. Name the folder of the runs (paths.runs).")
    with Report(options.runs) as report:
        try:
            server = Server(options.host, options.port, options.runs, report)
        except OSError as error:
            advice = "--port 0 takes a free one" if error.errno == errno.EADDRINUSE else "give another --host or --port"
            raise UserError(f"{options.host}:{options.port}: cannot be used ({error.strerror}); {advice}.") from None
        with server:
            if not loopback(options.host):
                say(f"Warning: everyone who can reach {options.host} can read these results; nothing is encrypted.")
            _serve(server)
    return 0


def _serve(server: Server) -> None:
    """Serve until Ctrl-C; requests that are being answered then are cut off."""
    try:
        say(f"{server.url} shows {server.runs}. Ctrl-C ends it.")
        sys.stdout.flush()
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        say("Stopped.")


def _port(text: str) -> int:
    """A port number. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: a port is a number from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
