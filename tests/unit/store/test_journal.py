"""The journal: nothing appended is lost, whatever the crash or the disk does."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from detection.types import Observation
from proxy.journal import Journal, JournalBusyError, JournalSettings
from proxy.journal_segments import list_segments, read_observations
from proxy.observation_json import FIELDS, Encoder, decode
from tests.unit.store.support import observation

encode = Encoder()
SMALL = JournalSettings(segment_bytes=4096, max_bytes=10**9, sync_seconds=0)


def numbers(journal: Journal, after: int = 0) -> list[int]:
    return [number for number, _ in journal.reader(after).take(10**6)]


def test_a_line_is_the_schema_in_its_order() -> None:
    row = json.loads(encode(Observation(ts=1.5, id="x")))
    assert list(row) == list(FIELDS)
    assert row["key"] is None and row["cost_nano_usd"] is None
    full = observation(3, tags={"team": "blue"}, ttft_seconds=0.1)
    assert decode(encode(full)) == full


def test_odd_values_are_still_one_line() -> None:
    odd = observation(1, agent="a\ud800\n\x00", input_tokens=10**30, tags={"k\udfff": "v"})
    line = encode(odd)
    assert line.count(b"\n") == 1
    again = decode(line)
    assert again is not None and again.agent == "a?\n\x00" and again.input_tokens is None


def test_a_later_schema_is_read_as_far_as_known() -> None:
    row = json.loads(encode(observation(1))) | {"invented_later": 5}
    del row["ttft_seconds"]
    assert decode(orjson.dumps(row)) == observation(1, row["ts"])


def test_numbers_run_on_over_segments_and_restarts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SMALL)
    for n in range(40):
        assert journal.append(observation(n)) == n + 1
    assert len(list_segments(tmp_path)) > 3
    journal.close()
    journal = Journal(tmp_path, SMALL)
    assert journal.append_many([observation(40), observation(41)]) == 42
    assert numbers(journal) == list(range(1, 43))
    assert numbers(journal, 17) == list(range(18, 43))
    reader = journal.reader(0)
    assert [n for n, _ in reader.take(100, up_to=9)] == list(range(1, 10))
    assert [n for n, _ in reader.take(2)] == [10, 11]
    assert [o.id for o in read_observations(tmp_path)] == [f"call-{n}" for n in range(42)]
    journal.close()


def test_only_one_writes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SMALL)
    with pytest.raises(JournalBusyError):
        Journal(tmp_path, SMALL)
    journal.close()
    Journal(tmp_path, SMALL).close()


@pytest.mark.parametrize("cut", [1, 5, 300])
def test_a_torn_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, SMALL)
    for n in range(3):
        journal.append(observation(n))
    path = list_segments(tmp_path)[-1].path
    journal.close()
    os.truncate(path, path.stat().st_size - cut)
    journal = Journal(tmp_path, SMALL)
    assert journal.last == 2
    assert journal.append(observation(9)) == 3
    assert [o.id for _, o in journal.reader(0).take(9)] == ["call-0", "call-1", "call-9"]
    journal.close()


def test_a_torn_header_is_no_segment(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SMALL)
    journal.append(observation(0))
    journal.close()
    (tmp_path / "00000000000000000002.jsonl").write_bytes(b'{"schema":"tokenw')
    journal = Journal(tmp_path, SMALL)
    assert journal.append(observation(1)) == 2
    assert numbers(journal) == [1, 2]
    journal.close()


def test_a_killed_writer_lost_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from proxy.journal import *\n"
        "from tests.unit.store.support import observation\n"
        "journal = Journal(Path(sys.argv[1]), JournalSettings(segment_bytes=65536))\n"
        "n = 0\n"
        "while True:\n"
        "    n = journal.append(observation(n))\n"
        "    print(n, flush=True)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    told = 0
    while told < 1000:
        told = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    told = max([told, *(int(line) for line in writer.stdout.read().split("\n")[:-1] if line)])
    writer.wait()
    journal = Journal(tmp_path, SMALL)
    assert told <= journal.last <= told + 1
    assert numbers(journal) == list(range(1, journal.last + 1))
    journal.close()


def test_a_full_disk_is_told_and_healed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes half a line, then nothing, then everything again."""
    now = [0.0]
    journal = Journal(tmp_path, SMALL, monotonic=lambda: now[0])
    journal.append(observation(0))
    real_write, full = os.write, [False]

    def write(fd: int, data: bytes) -> int:
        if not full[0]:
            return real_write(fd, data)
        if len(data) > 50 and journal.write_errors == 0:
            return real_write(fd, data[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("proxy.journal.os.write", write)
    full[0] = True
    assert [journal.append(observation(n)) for n in (1, 2, 3)] == [2, 3, 4]
    assert journal.waiting_for_disk == 3 and not journal.health()["ok"]
    assert numbers(journal) == [1]
    full[0] = False
    now[0] = 5.0
    assert journal.append(observation(4)) == 5
    assert journal.waiting_for_disk == 0 and journal.health()["ok"]
    assert [(n, o.id) for n, o in journal.reader(0).take(9)] == [
        (n + 1, f"call-{n}") for n in range(5)
    ]
    journal.close()


def test_gathered_records_keep_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written together, over segments, a restart, and a disk that takes half of them."""
    now = [0.0]
    journal = Journal(tmp_path, SMALL, monotonic=lambda: now[0])
    journal.gather = lambda: True
    assert [journal.append(observation(n)) for n in range(3)] == [1, 2, 3]
    assert not any(observed.stat().st_size for observed in tmp_path.glob("*.jsonl"))
    assert numbers(journal) == [1, 2, 3], "a reader sees all of them"
    for n in range(3, 40):
        assert journal.append(observation(n)) == n + 1
        if n % 7 == 0:
            journal.flush()
    journal.close()
    journal = Journal(tmp_path, SMALL, monotonic=lambda: now[0])
    journal.gather = lambda: True
    assert numbers(journal) == list(range(1, 41)) and len(list_segments(tmp_path)) > 2
    real_write, full = os.write, [True]

    def write(fd: int, data: bytes) -> int:
        return real_write(fd, data[: len(data) // 2]) if full[0] else real_write(fd, data)

    monkeypatch.setattr("proxy.journal.os.write", write)
    for n in range(40, 45):
        journal.append(observation(n))
    journal.flush()
    assert journal.waiting_for_disk == 5
    full[0] = False
    journal.append(observation(45))
    now[0] = 5.0
    assert journal.retry() and numbers(journal) == list(range(1, 47))
    assert [o.id for o in read_observations(tmp_path)] == [f"call-{n}" for n in range(46)]
    journal.close()


def test_steady_calls_do_not_keep_the_disk_from_being_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    journal = Journal(tmp_path, SMALL, monotonic=lambda: now[0])
    journal.append(observation(0))
    real_write, full = os.write, [True]

    def write(fd: int, data: bytes) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(fd, data)

    monkeypatch.setattr("proxy.journal.os.write", write)
    journal.append(observation(1))
    full[0] = False
    for number in range(2, 14):
        now[0] += 0.1
        journal.append(observation(number))
    assert journal.waiting_for_disk == 0
    assert numbers(journal) == list(range(1, 15))
    full[0] = True
    journal.append(observation(14))
    full[0] = False
    now[0] += 2.0
    assert journal.retry() and journal.waiting_for_disk == 0, "healed without a further call"
    journal.close()


def test_a_disk_full_for_long_keeps_the_latest_under_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.journal.BACKLOG_RECORDS", 5)
    now = [0.0]
    journal = Journal(tmp_path, SMALL, monotonic=lambda: now[0])
    journal.append(observation(0))
    real_write = os.write

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("proxy.journal.os.write", refuse)
    for n in range(1, 10):
        journal.append(observation(n))
    assert journal.lost_records == 4
    monkeypatch.setattr("proxy.journal.os.write", real_write)
    now[0] = 5.0
    assert journal.append(observation(10)) == 11
    assert numbers(journal) == [1, 6, 7, 8, 9, 10, 11]
    journal.close()
    journal = Journal(tmp_path, SMALL)
    assert journal.last == 11
    journal.close()


def test_counted_segments_go_first(tmp_path: Path) -> None:
    settings = JournalSettings(segment_bytes=4096, max_bytes=20_000, sync_seconds=0)
    journal = Journal(tmp_path, settings)
    for n in range(100):
        journal.append(observation(n))
        journal.acknowledge(n + 1)
    assert journal.lost_records == 0 and journal.first > 1
    assert sum(s.size() for s in list_segments(tmp_path)) <= 20_000 + 4096
    for n in range(100, 200):
        journal.append(observation(n))
    assert journal.lost_records == journal.first - 1 - 100
    assert numbers(journal)[0] == journal.first
    journal.close()


def test_old_counted_segments_are_deleted_and_others_kept(tmp_path: Path) -> None:
    now = [1e9]
    settings = JournalSettings(segment_bytes=4096, max_age_seconds=60, sync_seconds=0)
    journal = Journal(tmp_path, settings, clock=lambda: now[0])
    for n in range(30):
        journal.append(observation(n))
    for segment in list_segments(tmp_path):
        os.utime(segment.path, (1e9, 1e9))
    now[0] += 120
    journal.acknowledge(list_segments(tmp_path)[1].first)
    journal.prune()
    assert journal.first == list_segments(tmp_path)[0].first > 1
    assert len(list_segments(tmp_path)) > 1 and journal.lost_records == 0
    journal.close()


def test_identity_survives_and_is_found_in_the_segments(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SMALL)
    journal.append(observation(0))
    name = journal.replica
    journal.close()
    (tmp_path / "meta.json").unlink()
    journal = Journal(tmp_path, SMALL)
    assert journal.replica == name
    journal.renew_identity(1)
    journal.close()
    journal = Journal(tmp_path, SMALL)
    assert journal.replica != name and journal.base == 1
    journal.close()


def test_journals_of_several_workers_are_read_by_time(tmp_path: Path) -> None:
    for worker in (0, 1):
        journal = Journal(tmp_path / str(worker), SMALL)
        for n in range(5):
            journal.append(observation(n, ts=100.0 + 2 * n + worker))
        journal.close()
    assert [o.ts for o in read_observations(tmp_path)] == [100.0 + n for n in range(10)]
