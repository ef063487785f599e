"""Data of the version before, and of the one after: read, or refused with both numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.journal import Journal, JournalSettings
from proxy.ledger import Ledger
from proxy.observation_json import Encoder
from proxy.store.controls import SCHEMA_VERSION
from proxy.store.errors import StoreSchemaError
from proxy.store.series import TEN_SECONDS, Counts, series_id
from proxy.store.store import Store
from tests.unit.store.conftest import OpenStore
from tests.unit.store.support import TOTAL, Server, observation, until

encode = Encoder()
SCHEMA_KEY = "tw:{ctl}:schema"


async def test_a_new_store_is_given_its_version(open_store: OpenStore, server: Server) -> None:
    await open_store()
    assert server.command("GET", SCHEMA_KEY).endswith(b"%d 1\r\n" % SCHEMA_VERSION)


async def test_a_store_from_before_versions_is_read_and_marked(
    open_store: OpenStore, server: Server
) -> None:
    first = await open_store()
    first.controls.put("action", "old", {"kind": "block"})
    assert await first.controls.flush()
    server.command("DEL", SCHEMA_KEY)
    second = await open_store()
    assert second.controls.get("action", "old") is not None
    assert b"1 1" in server.command("GET", SCHEMA_KEY)


async def test_a_later_version_that_we_can_read_is_left_as_it_is(
    open_store: OpenStore, server: Server
) -> None:
    server.command("SET", SCHEMA_KEY, f"{SCHEMA_VERSION + 1} {SCHEMA_VERSION}")
    store = await open_store()
    assert store.available
    assert b"%d" % (SCHEMA_VERSION + 1) in server.command("GET", SCHEMA_KEY)


async def test_a_store_that_is_too_new_is_refused_with_both_numbers(
    tmp_path: Path, server: Server
) -> None:
    later = SCHEMA_VERSION + 2
    server.command("SET", SCHEMA_KEY, f"{later} {later}")
    with pytest.raises(StoreSchemaError, match=f"schema {later}.*up to {SCHEMA_VERSION}"):
        await Store.open(server.settings(), tmp_path)


async def test_buckets_of_fewer_and_of_more_columns_are_read(
    open_store: OpenStore, server: Server
) -> None:
    """The version before counted less, the one after may count more."""
    store = await open_store()
    now = store.clock()
    bucket = int(now // TEN_SECONDS.seconds)
    chunk, field = divmod(bucket, TEN_SECONDS.chunk)
    key = f"{store.counters.prefix(0)}c:{series_id(TOTAL)}:{TEN_SECONDS.letter}{chunk}"
    for columns in ([3, 900], list(range(1, 13))):
        script = "return redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(cjson.decode(ARGV[2])))"
        server.command("EVAL", script, "1", key, str(field), json.dumps(columns))
        ((start, counts),) = await store.history(TOTAL, TEN_SECONDS, now - 60, now)
        assert start == bucket * TEN_SECONDS.seconds
        assert counts == Counts.of(columns[:9])


def spelled(number: int, version: int) -> bytes:
    """A record as another version spells it: without a field, or with one more."""
    row = json.loads(encode(observation(number)))
    if version == 0:
        del row["trace"], row["ttft_seconds"]
    elif version == 2:
        row["invented_later"] = {"a": 1}
    return json.dumps(row).encode() + b"\n"


@pytest.mark.parametrize("version", [0, 2])
async def test_a_journal_of_another_version_is_counted_on(
    tmp_path: Path, open_store: OpenStore, version: int
) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    head = {"schema": "tokenweir.observation", "schema_version": version, "first_record": 1}
    head |= {"replica": "r" * 32, "base": 0, "created": 1.0}
    lines = [json.dumps(head).encode() + b"\n", *(spelled(n, version) for n in range(5))]
    (folder / f"{1:020d}.jsonl").write_bytes(b"".join(lines))
    store = await open_store()
    journal = Journal(folder, JournalSettings(sync_seconds=0), clock=store.clock)
    assert (journal.last, journal.replica) == (5, "r" * 32)
    ledger = Ledger(journal, store.counters, store.clock)
    ledger.record(observation(5))
    await ledger.start()
    await until(lambda: ledger.settled, timeout=30)
    (row,) = await store.usage("total", "1h")
    assert row.counts.requests == 6
    await ledger.stop()
