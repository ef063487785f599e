"""Our detector of single values over the Numenta Anomaly Benchmark's series.

Owns: reading the series, writing the scores, printing our reading of the published
score. Must never: tune anything to a file, or give the scorer a row before its time.

Run ``python -m tests.benchmarks.nab --data DIR --out DIR``. ``DIR`` holds
``<category>/<file>.csv`` with ``timestamp,value``; scores go to
``OUT/<category>/tokenweir_<file>.csv`` with ``timestamp,value,anomaly_score``, the
form that the benchmark's own scorer reads. Where ``DIR/windows.json`` is present
(``{"<category>/<file>.csv": [[from, to], ...]}``) the score is printed as well.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks._nab_score import Windows, file_score, standard
from tests.benchmarks._nab_scorer import ALARM, scores

Row = tuple[str, str, float, float]


def seconds(text: str) -> float:
    """Epoch seconds of a timestamp of the benchmark."""
    return datetime.fromisoformat(text.strip()).replace(tzinfo=UTC).timestamp()


def read(path: Path) -> list[Row]:
    """Rows ``(timestamp, value, seconds, number)`` in the file's order; unreadable ones go."""
    found: list[Row] = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                number = float(row["value"])
                if math.isfinite(number):
                    found.append(
                        (row["timestamp"], row["value"], seconds(row["timestamp"]), number)
                    )
            except (KeyError, TypeError, ValueError):
                continue
    return found


def write(path: Path, rows: Sequence[Row], found: Sequence[float]) -> None:
    """The scores of one file beside its values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("timestamp", "value", "anomaly_score"))
        out.writerows(
            (stamp, value, f"{score:.6f}")
            for (stamp, value, _, _), score in zip(rows, found, strict=True)
        )


def places(rows: Sequence[Row], spans: Sequence[Sequence[str]]) -> Windows:
    """The anomaly windows as first and last row; a window without a row goes."""
    windows = []
    for start, end in spans:
        low, high = seconds(start), seconds(end)
        inside = [i for i, row in enumerate(rows) if low <= row[2] <= high]
        if inside:
            windows.append((inside[0], inside[-1]))
    return windows


def tell(found: Mapping[str, Sequence[float]], windows: Mapping[str, Windows]) -> float:
    """Print what each file earned and the standard score; the score."""
    best, threshold = standard(found, windows)
    for name in sorted(found):
        earned = file_score(found[name], windows[name], threshold)
        print(f"  {name:58} {earned:6.2f} of {len(windows[name])}")
    at_ours = sum(file_score(found[n], windows[n], ALARM) for n in found)
    print(
        f"standard score {best:.1f} at the threshold {threshold:.3f} that suits all files best "
        f"(raw {at_ours:.2f} at our own of {ALARM}); target 60, best published 75"
    )
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    found: dict[str, list[float]] = {}
    rows: dict[str, list[Row]] = {}
    for path in sorted(options.data.glob("*/*.csv")):
        name = f"{path.parent.name}/{path.name}"
        rows[name] = read(path)
        if not rows[name]:
            print(f"no row with a timestamp and a value, left out: {name}")
            del rows[name]
            continue
        found[name] = scores([row[3] for row in rows[name]])
        write(options.out / path.parent.name / f"tokenweir_{path.name}", rows[name], found[name])
    print(f"{len(found)} series scored, {sum(map(len, found.values())):,} rows")
    labels = options.data / "windows.json"
    if not found:
        raise SystemExit("no <category>/<file>.csv there")
    if not labels.exists():
        print("no windows.json there: scores written, nothing to compare them with")
        return
    spans = json.loads(labels.read_text())
    known = {name: places(rows[name], spans[name]) for name in found if name in spans}
    tell({name: found[name] for name in known}, known)


if __name__ == "__main__":
    main()
