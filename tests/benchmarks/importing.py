"""What an import costs: rows a second and the most memory, for files of growing length.

Run as ``python -m tests.benchmarks.importing [--rows N ...] [--json FILE]``. Each file is
imported by the command itself in a process of its own, into an embedded store, and its
baselines are learned. The file is written while nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.rig import ROOT, end_store

ROWS = (100_000, 1_000_000, 10_000_000)
DAYS = 42
AGENTS, KEYS = 200, 40
MODELS = ("gpt-4.1-mini", "gpt-4.1", "gpt-5", "gpt-4o-mini")


def lines(rows: int) -> Iterator[str]:
    """A plain CSV of single calls, a month and a half of them, in no good order."""
    yield "ts,id,key,agent,model,provider,input_tokens,output_tokens\n"
    chance = random.Random(4)
    begin = int(time.time()) // 86400 * 86400 - DAYS * 86400
    span = DAYS * 86400
    for number in range(rows):
        agent = int(chance.random() ** 2 * AGENTS)
        # In order but for a few minutes, as exports of several replicas are.
        ts = begin + span * number / rows + chance.random() * 300
        yield (
            f"{ts:.3f},call-{number},key-{agent % KEYS},agent-{agent},{MODELS[agent % 4]},openai,"
            f"{800 + number % 400},{80 + number % 40}\n"
        )


def run(rows: int, folder: Path) -> dict[str, Any]:
    """One import; its own words, the time of the whole and the process' peak memory."""
    table, home = folder / f"calls-{rows}.csv", folder / f"home-{rows}"
    with table.open("w") as out:
        out.writelines(lines(rows))
    command = [sys.executable, "-m", "proxy", "import", str(table), "--data-dir", str(home)]
    told = folder / f"told-{rows}.txt"
    started = time.monotonic()
    with told.open("wb") as out:
        pid = os.posix_spawn(
            command[0], command, {**os.environ, "PYTHONPATH": str(ROOT)},
            file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1),
                          (os.POSIX_SPAWN_DUP2, out.fileno(), 2)],
        )  # fmt: skip
        _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    text = told.read_text()
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(text)
    reading = int(re.search(r"\(([\d,]+) rows/s\)", text)[1].replace(",", ""))  # type: ignore[index]
    known = int(re.search(r"([\d,]+) series known", text)[1].replace(",", ""))  # type: ignore[index]
    kept = sum(p.stat().st_size for p in (home / "history").rglob("*.gz"))
    end_store(home)
    read_seconds = rows / reading
    size = table.stat().st_size
    table.unlink()
    return {
        "rows": rows,
        "file_mib": round(size / 2**20),
        "rows_per_second": reading,
        "learning_rows_per_second": round(rows / max(0.1, seconds - read_seconds)),
        "seconds": round(seconds, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
        "kept_bytes_per_row": round(kept / rows, 1),
        "series": known,
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    print("      rows  rows/s read+counted  rows/s learned  seconds  peak MiB  bytes/row  series")
    with tempfile.TemporaryDirectory(prefix="tokenweir-import-") as folder:
        for rows in options.rows:
            row = run(rows, Path(folder))
            found.append(row)
            print(
                f"{rows:>10,}  {row['rows_per_second']:>19,}"
                f"  {row['learning_rows_per_second']:>14,}  {row['seconds']:>7}"
                f"  {row['peak_mib']:>8}  {row['kept_bytes_per_row']:>9}  {row['series']:>6}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"importing": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
