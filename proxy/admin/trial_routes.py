"""A changed policy, tried on the calls of the last days: ``/api/v1/policy/trials``.

Owns: the child process that replays, one at a time, and its last answer. Must never:
replay in the proxy's own process, or save the text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp import web

from proxy import config
from proxy.admin.control_common import read_json
from proxy.admin.deps import AdminDeps
from proxy.admin.guard import json_response
from proxy.admin.openapi import answer, errors, list_of, path_id, shape
from proxy.admin.principal import Role, require, require_all_projects

_LONGEST_SECONDS: Final = 600.0
_MOST_DAYS: Final = 30.0
_LONGEST_LINE: Final = 1 << 20
_CODE: Final = Path(__file__).resolve().parents[2]

log = structlog.get_logger()


class Trial:
    """One replay in a child process."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)
        self.state = "running"
        self.read = self.of = 0
        self.result: dict[str, Any] | None = None
        self.error = ""
        self._process: asyncio.subprocess.Process | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the page."""
        return {
            "id": self.id,
            "state": self.state,
            "read": self.read,
            "of": self.of,
            "result": self.result,
            "error": self.error,
        }

    async def run(self, job: dict[str, Any]) -> None:
        """Start the child, follow it, and end it whatever happens."""
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                await self._follow(job)
        except TimeoutError:
            self.state, self.error = "failed", "it took longer than ten minutes; ask for fewer days"
        except (OSError, ValueError) as error:
            log.warning("policy trial failed", error=str(error))
            self.state, self.error = "failed", "the replay could not be run; the log has the reason"
        finally:
            if self.state == "running":
                self.state, self.error = "failed", self.error or "it was ended"
            process = self._process
            if process is not None and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _follow(self, job: dict[str, Any]) -> None:
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "proxy.whatif",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_CODE)},
            limit=_LONGEST_LINE,
        )
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise OSError("the child has no pipes")
        process.stdin.write(json.dumps(job).encode())
        process.stdin.close()
        async for line in process.stdout:
            step = json.loads(line)
            self.read, self.of = step["read"], step["of"]
            self.result = step.get("result", self.result)
        told = (await process.stderr.read(_LONGEST_LINE)).decode(errors="replace")
        if await process.wait() != 0 or self.result is None:
            log.warning("policy trial failed", told=told[-2000:])
            self.state, self.error = "failed", "the replay broke; the log has the reason"
        else:
            self.state = "done"


class TrialRoutes:
    """Handlers, and the trial that runs or ran last."""

    def __init__(self, deps: AdminDeps) -> None:
        self._deps = deps
        self._latest: Trial | None = None
        self._task: asyncio.Task[None] | None = None
        deps.background.append(self._end_with_the_server)

    def routes(self) -> list[web.RouteDef]:
        """To be mounted by the server."""
        return [
            web.post("/api/v1/policy/trials", self.start),
            web.get("/api/v1/policy/trials/{id}", self.show),
        ]

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Begin one; 409 while another runs."""
        require(request, Role.OPERATOR)
        require_all_projects(request)
        asked = await read_json(request)
        text, days = asked.get("text"), asked.get("days", 7)
        if not isinstance(text, str):
            raise web.HTTPBadRequest(text='send {"text": "..."}')
        if (
            isinstance(days, bool)
            or not isinstance(days, int | float)
            or not 0 < days <= _MOST_DAYS
        ):
            raise web.HTTPBadRequest(text=f"days must be a number up to {_MOST_DAYS:g}")
        faults = config.faults(text)
        if faults:
            raise web.HTTPBadRequest(
                text=f"line {faults[0].line}: {faults[0].path}: {faults[0].message}"
            )
        if self._latest is not None and self._latest.state == "running":
            raise web.HTTPConflict(text="another trial runs; wait for its end")
        settings = self._deps.config() if self._deps.config is not None else None
        trial = self._latest = Trial()
        job = {
            "text": text,
            "days": days,
            "source": settings.source if settings is not None else "",
            "data_dir": str(self._deps.data_dir),
            "at": self._deps.clock(),
        }
        self._task = asyncio.create_task(trial.run(job))
        return json_response(trial.as_dict(), 202)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """How far it is, or what it found."""
        require_all_projects(request)
        if self._latest is None or self._latest.id != request.match_info["id"]:
            raise web.HTTPNotFound(text="this trial is not known any more")
        return json_response(self._latest.as_dict())

    async def _end_with_the_server(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])


def routes(deps: AdminDeps) -> list[web.RouteDef]:
    """To be mounted by the server."""
    return TrialRoutes(deps).routes()


_TALLY = shape("", 2, calls={"type": "integer"}, cost_nano_usd={"type": "integer"})
_OUTCOME = shape(
    "Outcome of a trial",
    7,
    all=_TALLY,
    refused=_TALLY,
    downgraded=_TALLY,
    alarms={"type": "object", "description": "Episodes by tier."},
    actions={"type": "object", "description": "Actions taken by kind."},
    rules=list_of({"type": "object"}),
    samples=list_of({"type": "object"}),
)
_TRIAL = shape(
    "Trial",
    6,
    id={"type": "string"},
    state={"type": "string", "enum": ["running", "done", "failed"]},
    read={"type": "integer"},
    of={"type": "integer"},
    result={
        "anyOf": [
            {"type": "null"},
            shape(
                "",
                6,
                since={"type": "number"},
                until={"type": "number"},
                learned_from={"type": ["number", "null"]},
                left_out={"type": "integer"},
                now=_OUTCOME,
                then=_OUTCOME,
            ),
        ]
    },
    error={"type": "string"},
)
OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/policy/trials": {
        "post": {
            "summary": "Replay the calls of the last days under a changed configuration",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["text"],
                            "properties": {
                                "text": {"type": "string", "description": "The whole YAML."},
                                "days": {"type": "number", "default": 7, "maximum": _MOST_DAYS},
                            },
                        }
                    }
                },
            },
            "responses": {
                "202": answer(_TRIAL, "It runs; ask for it by its id"),
                **errors(404, 409),
            },
        }
    },
    "/api/v1/policy/trials/{id}": {
        "get": {
            "summary": "A trial's progress, and its result once it is done",
            "parameters": [path_id("The trial's id")],
            "responses": {
                "200": answer(_TRIAL, "How far it is, or what it found"),
                **errors(404),
            },
        }
    },
}
