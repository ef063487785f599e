"""The table of survived faults, from real runs.

Run as ``python -m tests.chaos.report [--short] [--rows 54,67] [--json FILE] [--markdown FILE]``.

Owns: running every fault and printing what was measured. Must never: print a
row that was not run just now.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos.lab import FAULTS, Fault, MissingError, Outcome
from tests.chaos.measure import Labs, measure
from tests.chaos.scenarios import GROUPS

ROWS = 98
COLUMNS = ("tries", "survived", "lost", "doubled", "forgotten_blocks", "added_p99_ms")
HEADS = ("row", "fault", "tries", "survived", "lost", "doubled", "forgotten", "added p99 ms")


def run(faults: list[Fault], *, tries: int | None, baseline_seconds: float) -> list[Outcome]:
    """Do each fault; what can't be done here is said and left out."""
    outcomes = []
    labs, group = Labs(), ""
    try:
        for fault in faults:
            if fault.group != group:
                labs.close()
                labs, group = Labs(), fault.group
            began = time.monotonic()
            try:
                outcome = measure(
                    labs,
                    fault,
                    GROUPS[fault.group],
                    tries=min(tries or fault.tries, fault.tries),
                    baseline_seconds=baseline_seconds,
                )
            except MissingError as missing:
                print(f"{fault.row:>3} {fault.name}: not done here: {missing}", file=sys.stderr)
                continue
            except Exception as error:  # a lab that can't be made is a fault not survived
                why = [str(error)[-300:]]
                outcome = Outcome(fault.row, fault.name, fault.tries, why=why)
            outcomes.append(outcome)
            print(line(outcome, time.monotonic() - began), flush=True)
            for why in outcome.why:
                print(f"      {why}", flush=True)
    finally:
        labs.close()
    return outcomes


def cells(outcome: Outcome) -> list[str]:
    values = [getattr(outcome, name) for name in COLUMNS]
    return [str(outcome.row), outcome.name, *("-" if v is None else str(v) for v in values)]


def line(outcome: Outcome, seconds: float) -> str:
    row, name, *numbers = cells(outcome)
    told = "".join(f"{n:>10}" for n in numbers)
    return f"{row:>3} {name[:50]:<50}{told}{seconds:>8.1f} s{'' if outcome.held else '  FAILED'}"


def markdown(outcomes: list[Outcome]) -> str:
    """The table of the documents."""
    rows = [list(HEADS), ["---"] * len(HEADS), *(cells(o) for o in outcomes)]
    return "".join(
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |\n" for row in rows
    )


def as_json(outcomes: list[Outcome]) -> dict[str, Any]:
    keep = ("row", "name", *COLUMNS)
    rows = [{name: asdict(o)[name] for name in keep} for o in outcomes]
    return {"faults": sorted(rows, key=lambda row: row["row"])}


def chosen(short: bool, rows: str) -> list[Fault]:
    """The faults of a run, those that share a lab together."""
    wanted = {int(part) for part in rows.split(",") if part}
    groups = list(GROUPS)
    found = [f for f in FAULTS if not (short and f.slow) and (not wanted or f.row in wanted)]
    return sorted(found, key=lambda f: (groups.index(f.group), f.row))


def main() -> int:
    """Run and print; 1 where a fault was not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one try of each quick fault")
    parser.add_argument("--tries", type=int, help="at most so many tries of each")
    parser.add_argument("--rows", default="", help="only these rows, such as 54,67")
    parser.add_argument("--json", type=Path, help="write the table as JSON")
    parser.add_argument("--markdown", type=Path, help="write the table for the documents")
    given = parser.parse_args()
    head = "".join(f"{name:>10}" for name in ("tries", "survived", "lost", "doubled", "forgotten"))
    print(f"row {'fault':<50}{head}{'+p99 ms':>10}{'took':>10}")
    outcomes = run(
        chosen(given.short, given.rows),
        tries=1 if given.short else given.tries,
        baseline_seconds=0.2 if given.short else 2.0,
    )
    outcomes.sort(key=lambda o: o.row)
    failed = [o for o in outcomes if not o.held]
    seen = len({o.row for o in outcomes})
    tries, survived = sum(o.tries for o in outcomes), sum(o.survived for o in outcomes)
    lost, doubled = sum(o.lost for o in outcomes), sum(o.doubled for o in outcomes)
    forgotten = sum(o.forgotten_blocks for o in outcomes)
    print(
        f"{seen} of {ROWS} rows, {survived} of {tries} tries survived, {lost} lost, "
        f"{doubled} doubled, {forgotten} blocks forgotten"
    )
    if given.json:
        given.json.write_text(json.dumps(as_json(outcomes), indent=1) + "\n")
    if given.markdown:
        given.markdown.write_text(markdown(outcomes))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
