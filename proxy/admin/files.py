"""The dashboard's files, read once at start and served from memory.

Owns: their bytes, types and entity tags. Must never: touch the file system
for a request, so that no path of a client can name a file.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

PAGES = Path(__file__).parent / "pages"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One file as it is sent."""

    body: bytes
    zipped: bytes
    content_type: str
    etag: str


class Pages:
    """All files under ``root``, by their path below it."""

    def __init__(self, root: Path = PAGES) -> None:
        self._pages: dict[str, Page] = {}
        for path in sorted(root.rglob("*")):
            content_type = _TYPES.get(path.suffix)
            if path.is_file() and content_type:
                body = path.read_bytes()
                self._pages[path.relative_to(root).as_posix()] = Page(
                    body,
                    gzip.compress(body, 6, mtime=0),
                    content_type,
                    f'"{hashlib.sha256(body).hexdigest()[:24]}"',
                )

    def routes(self) -> list[web.RouteDef]:
        """The page, its assets, and the icon."""
        return [
            web.get("/", self.index),
            web.get("/favicon.svg", self.icon),
            web.get("/assets/{path:.+}", self.asset),
            web.get("/incidents/{id}", self.incident),
        ]

    async def index(self, request: web.Request) -> web.Response:
        """The one page of the dashboard."""
        return self.serve(request, "index.html")

    async def incident(self, request: web.Request) -> web.Response:
        """The link of alerts and refusals: on to the incident's page."""
        name = quote(request.match_info["id"], safe="")
        return web.Response(status=303, headers={"Location": f"/#/incidents/{name}"})

    async def icon(self, request: web.Request) -> web.Response:
        """The icon of the browser's tab."""
        return self.serve(request, "favicon.svg")

    async def asset(self, request: web.Request) -> web.Response:
        """A script, a style sheet or a licence."""
        return self.serve(request, request.match_info["path"])

    def serve(self, request: web.Request, name: str) -> web.Response:
        """One file by its exact name; 304 where the browser has it.

        Raises
        ------
        aiohttp.web.HTTPNotFound
            For everything that is not one of the files.
        """
        page = self._pages.get(name)
        if page is None:
            raise web.HTTPNotFound(text="not found")
        headers = {"ETag": page.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if request.headers.get("If-None-Match") == page.etag:
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = page.content_type
        body = page.body
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = page.zipped
        return web.Response(body=body, headers=headers)
