"""The store as the rest of the house sees it.

Owns: starting and stopping everything that needs the link, in order. Must
never: raise at start because the store is away (that is a degraded start), or
go on where it may never work (scripts forbidden, wrong password).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog

from detection.types import Series
from proxy.clock import Clock
from proxy.store.connection import Connection
from proxy.store.controls import Controls
from proxy.store.counters import Counters, UsageRow
from proxy.store.documents import Documents
from proxy.store.embedded import EmbeddedStore
from proxy.store.errors import StoreError, StoreForbiddenError, StoreSchemaError
from proxy.store.scripts import Script
from proxy.store.series import Counts, Resolution
from proxy.store.settings import StoreSettings

_CHECK = Script.of("check", "return redis.call('TIME')")

log = structlog.get_logger(__name__)


class Store:
    """One worker's store: counters, control documents, and what builds on them.

    Use ``await Store.open(...)``; the parts are attributes.
    """

    def __init__(
        self, settings: StoreSettings, data_dir: Path, worker: str, clock: Clock | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock or Clock()
        self.embedded: EmbeddedStore | None = None
        url = settings.url
        if url.startswith("embedded:"):
            self.embedded = EmbeddedStore(
                data_dir / "store",
                binary=settings.embedded_binary,
                max_memory_bytes=settings.embedded_max_memory_bytes,
            )
            url = self.embedded.url
        self.link = Connection(settings, url, monotonic=self.clock.monotonic)
        self.counters = Counters(self.link, settings, self.clock)
        self.controls = Controls(self.link, settings, self.clock, data_dir / "controls", worker)
        self.documents = Documents(self.link, settings)

    @classmethod
    async def open(
        cls,
        settings: StoreSettings,
        data_dir: Path,
        *,
        worker: str = "0",
        clock: Clock | None = None,
    ) -> Store:
        """Connect, or start degraded where the store is away.

        Raises
        ------
        StoreForbiddenError
            Where the store's user may not run scripts, or the password is wrong; as
            StoreSchemaError where its data is too new.
        EmbeddedStoreError
            Where the embedded server can't be started.
        """
        store = cls(settings, data_dir, worker, clock)
        await store.start()
        return store

    async def start(self) -> None:
        """Start the embedded server if that is what is asked for, and all tasks."""
        if self.embedded is not None:
            await self.embedded.start()
        try:
            await self.link.run(_CHECK, ["check"], [], patient=True)
            await self.controls.reconcile()
        except StoreSchemaError:
            await self._let_go()
            raise
        except StoreForbiddenError as error:
            await self._let_go()
            raise StoreForbiddenError(
                "the store refuses what Tokenweir needs (EVALSHA, EVAL, and the commands "
                f"its scripts call): {error}"
            ) from None
        except StoreError as error:
            log.warning(
                "the store is away at the start; blocks are in force from the disk",
                reason=str(error),
            )
        await self.controls.start()

    async def stop(self) -> None:
        """Send what waits, close, and let go of the embedded server."""
        await self.controls.stop()
        await self._let_go()

    async def _let_go(self) -> None:
        await self.link.close()
        if self.embedded is not None:
            await self.embedded.stop()

    # ---- questions ----

    async def usage(self, by: str, window: str | float) -> list[UsageRow]:
        """See :meth:`Counters.usage`."""
        return await self.counters.usage(by, window)

    async def history(
        self, series: Series, resolution: Resolution, start: float, end: float
    ) -> list[tuple[float, Counts]]:
        """See :meth:`Counters.history`."""
        return await self.counters.history(series, resolution, start, end)

    def replicas(self) -> int:
        """Workers alive at the last heartbeat, this one included; at least 1."""
        return self.controls.replicas

    @property
    def available(self) -> bool:
        """Whether the store answered last time it was asked."""
        return self.link.answered and self.link.breaker.state == "closed"

    def health(self) -> dict[str, Any]:
        """Facts for the health page; never an address with credentials."""
        facts: dict[str, Any] = {
            "ok": self.available,
            "kind": self.settings.url.partition(":")[0],
            "breaker": self.link.breaker.state,
            "last_error": self.link.last_error if not self.available else None,
            "writes_refused": self.link.refused,
            "clock_offset_seconds": round(self.clock.offset_seconds, 4),
            "calls": self.link.calls,
            "controls": self.controls.health(),
        }
        if self.embedded is not None:
            facts["embedded"] = {
                "keeper": self.embedded.is_keeper,
                "restarts": self.embedded.restarts,
                "set_aside": list(self.embedded.set_aside),
                "last_error": self.embedded.last_error,
            }
        return facts
