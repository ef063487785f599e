"""A lab whose store is a real server behind a wire that can be broken.

Owns: the store's process, the wire, and proxies that talk through it. Must never:
break a wire that other tests use.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import Any

from tests.chaos.faultproxy import FaultProxy
from tests.chaos.lab import Lab
from tests.rig import Proxy, wait_for
from tests.unit.store.support import Server, free_port


class Wire:
    """A :class:`FaultProxy` on a thread of its own, so that tests can block."""

    def __init__(self, target: str | tuple[str, int]) -> None:
        self.fault = FaultProxy(target)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.fault.__aenter__())
        self._ready.set()
        self._loop.run_forever()
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(self.fault.__aexit__(None, None, None))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.fault.port}"

    def cut(self) -> None:
        """Reset every connection."""
        self._loop.call_soon_threadsafe(lambda: self.fault.cut(reset=True))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


class StoreLab(Lab):
    """A proxy over a store of its own, ``server``, through ``wire``."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None, **how: Any) -> None:
        self.server = Server("--enable-debug-command", "yes", port=free_port())
        self.wire = Wire(str(self.server.path))
        more = {"store": {"url": self.wire.url, "breaker_seconds": 0.2}} | (settings or {})
        super().__init__(folder, more, **how)
        self.defer(self.server.close)
        self.defer(self.wire.close)

    def further(self, name: str, *, wire: Wire | None = None, **how: Any) -> Proxy:
        """A further replica on the same store, through a wire of its own where given."""
        url = (wire or self.wire).url
        settings = self.settings | {"store": {"url": url, "breaker_seconds": 0.2}}
        return self.start(name, settings=settings, **how)

    def second_server(self) -> Server:
        """Another server, ended with the lab."""
        server = Server(port=free_port())
        self.defer(server.close)
        return server

    def calls(self, count: int, seconds: float = 0.0, proxy: Proxy | None = None) -> None:
        """Calls that must all be answered, spread over a time."""
        for _ in range(count):
            reply = self.call(port=(proxy or self.proxy).port)
            assert reply.status == 200, f"{reply.status} {reply.body[:100]!r}"
            time.sleep(seconds / count)

    def store_is(self, up: bool, seconds: float = 10, proxy: Proxy | None = None) -> None:
        """Wait until metric and health say that the store is up, or away."""
        wanted = ("ok", 1.0) if up else ("degraded", 0.0)

        def said() -> bool:
            metric = self.metric("tokenweir_store_up", proxy)
            return (self.health("store", proxy), metric) == wanted

        wait_for(said, seconds, f"the store is seen {'up' if up else 'away'}")
