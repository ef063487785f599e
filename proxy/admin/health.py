"""Liveness and readiness, by named component.

Owns: the answers to probes. Must never: wait for a component (checks read what
is known), tell a secret or an address to an unauthenticated probe, or call the
process unready because the store is away: it proxies on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from aiohttp import web

from proxy.admin.guard import json_response
from proxy.redact import redact_text


class State(StrEnum):
    """How a component is. Only ``failed`` makes the process unready."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Component:
    """One component: its state, why, and how to mend it."""

    state: State = State.OK
    detail: str = ""
    mend: str = ""


Check = Callable[[], Component]


class Health:
    """Gathers the checks; parts are added by whoever wires them."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self.draining = False

    def add(self, name: str, check: Check) -> None:
        """Ask ``check`` (quick, no waiting) under this name on every probe."""
        self._checks[name] = check

    def components(self) -> dict[str, Component]:
        """All components; a check that raises is itself a failure, told as such."""
        found = {}
        for name, check in self._checks.items():
            try:
                found[name] = check()
            except Exception as error:
                found[name] = Component(
                    State.DEGRADED, f"its check raised {type(error).__name__}", "see the log"
                )
        if self.draining:
            found["server"] = Component(State.FAILED, "draining: no new work")
        return found

    def state(self) -> State:
        """The worst of the components."""
        states = {component.state for component in self.components().values()}
        for state in (State.FAILED, State.DEGRADED):
            if state in states:
                return state
        return State.OK

    async def liveness(self, request: web.Request) -> web.Response:
        """200 as long as the loop turns."""
        return json_response({"status": "ok"})

    async def readiness(self, request: web.Request) -> web.Response:
        """200 unless a component failed; the body names all with their states."""
        state = self.state()
        states = {name: {"status": c.state} for name, c in self.components().items()}
        return json_response(
            {"status": state, "components": states}, 503 if state is State.FAILED else 200
        )

    async def detail(self, request: web.Request) -> web.Response:
        """``GET /api/v1/health``: as readiness, with reasons and how to mend them."""
        rows = [
            {"name": name, **asdict(component), "detail": redact_text(component.detail)}
            for name, component in self.components().items()
        ]
        return json_response({"status": self.state(), "components": rows})


_STATUS = {"type": "string", "enum": [str(state) for state in State]}
OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/health": {
        "get": {
            "summary": "Every component, how it is, why, and how to mend it",
            "responses": {
                "200": {
                    "description": "The worst state and the components",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["status", "components"],
                                "properties": {
                                    "status": _STATUS,
                                    "components": {
                                        "type": "array",
                                        "items": {
                                            "type": "object",
                                            "required": ["name", "state", "detail", "mend"],
                                            "properties": {
                                                "name": {"type": "string"},
                                                "state": _STATUS,
                                                "detail": {"type": "string"},
                                                "mend": {"type": "string"},
                                            },
                                        },
                                    },
                                },
                            }
                        }
                    },
                }
            },
        }
    },
}
