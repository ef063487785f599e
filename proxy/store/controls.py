"""Control documents: blocks, throttles, keys and other small things all must know.

Owns: their spread to every worker of every replica within a second, and their
survival: on disk for a start without the store, and put back into a store that
lost them. Must never: make the caller wait for the store, or let an older
version win.

A document written here is in force here at once. It goes to the store with its
version, and the store announces it. Every second the replica compares count and
checksum with the store; where they differ, both sides exchange what the other
lacks. An announcement lost is thereby healed, and so is a store that was
emptied or failed over to a copy that lagged.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from redis.exceptions import RedisError

from proxy.clock import Clock
from proxy.store.connection import Connection
from proxy.store.control_book import TOMBSTONE_SECONDS, Book, Record, load, parse, save
from proxy.store.errors import StoreError, StoreSchemaError
from proxy.store.scripts import load as load_script
from proxy.store.settings import StoreSettings
from proxy.store.tasks import cancel

REPLICA_GONE_SECONDS = 6
CHANGES = 500
OVERLAP_MICROSECONDS = 5_000_000

#: Of everything in the store. A later version writes its own, and the oldest that
#: can still read what it writes; stores of before there was a version have none.
SCHEMA_VERSION = 1
OLDEST_READER = 1

log = structlog.get_logger(__name__)

ChangeCallback = Callable[[Record], None]


class Controls:
    """One worker's view of the control documents.

    ``replicas`` is how many workers were alive at the last heartbeat.
    """

    def __init__(
        self,
        link: Connection,
        settings: StoreSettings,
        clock: Clock,
        folder: Path,
        worker: str,
    ) -> None:
        self._link = link
        self._settings = settings
        self._clock = clock
        self._path = folder / f"{worker}.jsonl"
        self._worker = f"{worker}-{uuid.uuid4().hex[:12]}"
        self._book = Book()
        self._unsent: dict[str, Record] = {}
        self._callbacks: dict[str, list[ChangeCallback]] = {}
        self._since = 0
        self._data_name = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._wake, self._changed = asyncio.Event(), asyncio.Event()
        self._put, self._sync = load_script("control_put"), load_script("control_sync")
        base = f"{settings.key_prefix}:{{ctl}}:"
        self._keys = [base + k for k in ("live", "dead", "ver", "exp", "died", "sum")]
        more = ("replicas", "data", "dropped", "schema")
        self._sync_keys = [*self._keys, *(f"{base}{name}" for name in more)]
        self._channel = f"{base}news"
        self.replicas = 1
        self.synced_at: float | None = None
        self.reasserted = 0
        self.snapshot_error: str | None = None
        self._load(folder)

    def _load(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._data_name, records = load(folder)
        for record in records:
            self._book.take(record)
        self._book.expire(self._clock())

    # ---- what callers use ----

    def get(self, kind: str, id: str) -> Record | None:
        """The live document, or ``None``."""
        record = self._book.known(f"{kind}/{id}")
        return record if record is not None and record.body is not None else None

    def all(self, kind: str) -> list[Record]:
        """Every live document of a kind."""
        return list(self._book.live(kind))

    def on_change(self, kind: str, callback: ChangeCallback) -> None:
        """Call back on every change of a kind, wherever it was made.

        ``record.body`` is ``None`` where the document was deleted or expired.
        """
        self._callbacks.setdefault(kind, []).append(callback)

    def put(
        self,
        kind: str,
        id: str,
        body: dict[str, Any],
        *,
        expires_at: float | None = None,
        by: str = "",
    ) -> Record:
        """Put a document in force here now and everywhere within a second; never waits."""
        return self._write(Record(kind, id, self._version(kind, id), body, expires_at, by))

    def delete(self, kind: str, id: str, *, by: str = "") -> Record:
        """Take a document out of force, here now and everywhere within a second."""
        return self._write(Record(kind, id, self._version(kind, id), None, None, by))

    async def flush(self) -> bool:
        """Send what wasn't sent yet; whether the store has all of it."""
        for name, record in list(self._unsent.items()):
            try:
                await self._send(record)
            except (StoreError, RedisError):
                return False
            if self._unsent.get(name) is record:
                del self._unsent[name]
        return True

    def _version(self, kind: str, id: str) -> int:
        known = self._book.known(f"{kind}/{id}")
        return max(int(self._clock() * 1e6), known.version + 1 if known else 0)

    def _write(self, record: Record) -> Record:
        self._unsent[record.name] = record
        self._accept(record)
        self._wake.set()
        return record

    def _accept(self, record: Record) -> None:
        if self._book.take(record):
            self._changed.set()
            self._call_back(record)

    def _call_back(self, record: Record) -> None:
        for callback in self._callbacks.get(record.kind, ()):
            try:
                callback(record)
            except Exception:
                log.exception("a listener to control documents failed", kind=record.kind)

    # ---- tasks ----

    async def start(self) -> None:
        """Begin to send, listen, compare and save."""
        self._tasks = [
            asyncio.create_task(run(), name=f"controls-{run.__name__.strip('_')}")
            for run in (self._reconcile_forever, self._listen_forever, self._save_forever)
        ]

    async def stop(self) -> None:
        """Send what waits if the store is there, save, and end."""
        await self.flush()
        self._stopping = True
        await cancel(self._tasks)
        self._tasks = []
        with contextlib.suppress(StoreError, RedisError):
            await self._link.command("ZREM", self._sync_keys[6], self._worker)
        await self._save()

    async def _reconcile_forever(self) -> None:
        while not self._stopping:
            due = self._clock.monotonic() + self._settings.reconcile_seconds
            try:
                if await self.flush():
                    await self.reconcile()
            except (StoreError, RedisError):
                pass
            except Exception:
                log.exception("comparing control documents failed")
            while (left := due - self._clock.monotonic()) > 0 and not self._stopping:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._wake.wait()
                if self._wake.is_set():
                    self._wake.clear()
                    await self.flush()
            self._expire(self._clock())

    async def _listen_forever(self) -> None:
        while not self._stopping:
            client: Any = None
            try:
                client = await self._link.listener()
                pubsub = client.pubsub()
                await pubsub.subscribe(self._channel)
                async for message in pubsub.listen():
                    if message["type"] == "message":
                        record = parse(message["data"])
                        if record is not None:
                            self._accept(record)
            except (StoreError, RedisError, OSError):
                pass
            except Exception:
                log.exception("listening to control documents failed")
            finally:
                if client is not None:
                    with contextlib.suppress(Exception):
                        await client.aclose()
            await asyncio.sleep(min(0.25, self._settings.reconcile_seconds))

    async def _save_forever(self) -> None:
        while not self._stopping:
            await self._changed.wait()
            await self._save()
            await asyncio.sleep(0.05)

    async def _save(self) -> None:
        self._changed.clear()
        records = self._book.everything()
        try:
            await asyncio.to_thread(save, self._path, self._data_name, records)
            self.snapshot_error = None
        except OSError as error:
            self.snapshot_error = f"{error.strerror or error}"

    # ---- comparing ----

    async def _send(self, record: Record) -> None:
        args = [
            record.name,
            record.version,
            record.dump(),
            "1" if record.body is None else "0",
            "" if record.expires_at is None else repr(record.expires_at),
            self._channel,
        ]
        reply = await self._link.run(self._put, self._keys, args)
        if not reply[0]:
            newer = parse(reply[1])
            if newer is not None:
                self._accept(newer)

    async def reconcile(self) -> None:
        """One heartbeat: take what changed, and put back what the store lost.

        Raises
        ------
        StoreError
            No answer; what is known stays in force.
        StoreSchemaError
            The data is of a version that this one can't read.
        """
        args = [
            self._worker,
            REPLICA_GONE_SECONDS,
            max(0, self._since - OVERLAP_MICROSECONDS),
            int(TOMBSTONE_SECONDS),
            self._data_name or uuid.uuid4().hex,
            CHANGES,
            f"{SCHEMA_VERSION} {OLDEST_READER}",
        ]
        sent_at = self._clock.monotonic()
        reply = await self._link.run(self._sync, self._sync_keys, args)
        received_at = self._clock.monotonic()
        _check_schema(_text(reply[8]))
        store_time = int(reply[0]) + int(reply[1]) / 1e6
        self._clock.heard(store_time, sent_at=sent_at, received_at=received_at)
        data_name = _text(reply[2])
        lost = data_name != self._data_name
        if lost:
            self._data_name = data_name
            self._changed.set()
        self.replicas = max(1, int(reply[5]))
        self._since = int(float(reply[7]))
        for data in reply[9:]:
            record = parse(data)
            if record is not None:
                self._accept(record)
        self._expire(float(int(reply[0])))
        same = self._book.count == int(reply[3]) and self._book.checksum == int(float(reply[4]))
        if not same and len(reply) - 9 < CHANGES:
            await self._compare_all(0 if lost else int(float(reply[6])))
        self.synced_at = received_at

    def _expire(self, now: float) -> None:
        gone = self._book.expire(now)
        for record in gone:
            self._changed.set()
            self._call_back(Record(record.kind, record.id, record.version, None))

    async def _compare_all(self, dropped: int) -> None:
        """Exchange what either side lacks, by version.

        ``dropped`` is the highest version among deletions that the store has
        thrown away: what is older and unknown there was deleted.
        """
        reply = await self._link.command("ZRANGE", self._keys[2], 0, -1, "WITHSCORES")
        theirs = {_text(n): int(float(v)) for n, v in zip(reply[::2], reply[1::2], strict=True)}
        for record in self._book.everything():
            version = theirs.get(record.name)
            if version is None and record.version <= dropped:
                self._book.forget(record.name)
                self._changed.set()
                self._call_back(Record(record.kind, record.id, record.version, None))
            elif version is None or version < record.version:
                await self._send(record)
                self.reasserted += 1
        await self._fetch([n for n, v in theirs.items() if self._older(n, v)])

    def _older(self, name: str, version: int) -> bool:
        known = self._book.known(name)
        return known is None or known.version < version

    async def _fetch(self, names: list[str]) -> None:
        for start in range(0, len(names), CHANGES):
            page = names[start : start + CHANGES]
            for key in self._keys[:2]:
                for data in await self._link.command("HMGET", key, *page):
                    record = parse(data) if data is not None else None
                    if record is not None:
                        self._accept(record)

    def health(self) -> dict[str, Any]:
        """Facts for the health page."""
        age = None if self.synced_at is None else self._clock.monotonic() - self.synced_at
        return {
            "documents": self._book.count,
            "unsent": len(self._unsent),
            "replicas": self.replicas,
            "synced_seconds_ago": None if age is None else round(age, 3),
            "reasserted": self.reasserted,
            "snapshot_error": self.snapshot_error,
        }


def _check_schema(written: str) -> None:
    by, _, oldest = written.partition(" ")
    if int(oldest or 0) > SCHEMA_VERSION:
        raise StoreSchemaError(
            f"the store holds data of schema {by}, which needs a reader of schema {oldest} or "
            f"later; this version reads up to {SCHEMA_VERSION}"
        )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
