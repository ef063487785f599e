"""The command line's way to the admin API.

Owns: finding address and token, and errors in a person's words. Must never:
print a token, or follow a redirect with one.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote, urlencode

import orjson
import typer

DEFAULT_URL = "http://127.0.0.1:8788"
_TIMEOUT_SECONDS = 10.0

AdminUrl = Annotated[
    str, typer.Option("--admin-url", envvar="TOKENWEIR_ADMIN_URL", help="The admin port's address.")
]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="TOKENWEIR_DATA_DIR",
        help="Where the proxy keeps its admin-token, if TOKENWEIR_ADMIN_TOKEN is not set.",
    ),
]
DEFAULT_DATA_DIR = Path("~/.tokenweir")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class AdminClient:
    """Calls of the admin API. Every failure ends the command with one line and exit 1."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self._url = url.rstrip("/")
        self._token = _token(data_dir.expanduser())
        # Never by way of a proxy: the token is for the admin port alone.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def get(self, path: str, **query: object) -> Any:
        """The decoded answer of a GET; parameters that are ``None`` are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(given)}" if given else path)

    def post(self, path: str, body: object) -> Any:
        """The decoded answer of a POST."""
        return self._call("POST", path, body)

    def delete(self, path: str, body: object = None) -> Any:
        """The decoded answer of a DELETE."""
        return self._call("DELETE", path, body)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(  # noqa: S310
            self._url + path,
            method=method,
            data=None if body is None else orjson.dumps(body),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "X-Tokenweir-Request": "cli",
            },
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return orjson.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            fail(_message(error))
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            fail(f"no answer from {self._url}: {reason}. Is `tokenweir serve` running there?")


def segment(text: str) -> str:
    """A value as one segment of a path."""
    return quote(text, safe="")


def fail(message: str) -> NoReturn:
    """End the command."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def _message(error: urllib.error.HTTPError) -> str:
    if error.code == 401:
        return "the admin token is not the right one (TOKENWEIR_ADMIN_TOKEN or --data-dir)"
    try:
        body = orjson.loads(error.read(65_536))
        return str(body["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"HTTP {error.code}"


def _token(data_dir: Path) -> str:
    token = os.environ.get("TOKENWEIR_ADMIN_TOKEN", "").strip()
    if token:
        return token
    try:
        return (data_dir / "admin-token").read_text(encoding="utf-8").strip()
    except OSError:
        fail(
            f"no admin token: set TOKENWEIR_ADMIN_TOKEN, or point --data-dir to the proxy's "
            f"data ({data_dir} has no readable admin-token)"
        )
