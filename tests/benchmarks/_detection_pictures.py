"""Pictures for the page on detection, drawn from real runs of the engine.

Owns: three small runs and their SVGs. Must never: draw what the engine did not say.

Run ``python -m tests.benchmarks._detection_pictures docs/images``.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from detection.backtest import Backtest
from detection.settings import DetectionSettings
from detection.state import SeriesState
from detection.surge import tightening
from detection.types import Observation, Series

START = 1_767_225_600.0
DAY, HOUR = 86400.0, 3600.0
WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 34, 34
COLOURS = {"warning": "#b7791f", "critical": "#c2410c", "emergency": "#b91c1c",
           "throttle": "#2563eb", "block": "#111827"}  # fmt: skip


@dataclass
class Picture:
    """One chart: points of a line, levels across it, marks upon it."""

    title: str
    x_label: str
    points: Sequence[tuple[float, float]]
    x_range: tuple[float, float]
    top: float
    levels: list[tuple[str, float]] = field(default_factory=list)
    marks: list[tuple[str, float, str]] = field(default_factory=list)
    spans: list[tuple[str, float, float]] = field(default_factory=list)
    ticks: list[tuple[float, str]] = field(default_factory=list)

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value, self.top) / self.top

    def svg(self) -> str:
        """The picture as text."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" font-size="11" role="img" '
            f'aria-label="{escape(self.title)}"><title>{escape(self.title)}</title>'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
            f'<text x="{LEFT}" y="18" font-size="13" fill="#111827">{escape(self.title)}</text>'
        ]
        for word, start, end in self.spans:
            colour = COLOURS[word]
            parts.append(
                f'<rect x="{self.x(start):.1f}" y="{TOP}" '
                f'width="{max(1.0, self.x(end) - self.x(start)):.1f}" '
                f'height="{HEIGHT - TOP - BOTTOM}" fill="{colour}" opacity="0.15"/>'
            )
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y(value):.1f}" '
            f'y2="{self.y(value):.1f}" stroke="#e5e7eb"/>'
            f'<text x="{LEFT - 6}" y="{self.y(value) + 4:.1f}" text-anchor="end" '
            f'fill="#4b5563">{value:g}</text>'
            for value in (0.0, self.top / 2, self.top)
        ]
        for value, word in self.ticks:
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{HEIGHT - 18}" text-anchor="middle" '
                f'fill="#4b5563">{escape(word)}</text>'
            )
        parts.append(
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end" '
            f'fill="#4b5563">{escape(self.x_label)}</text>'
        )
        line = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in self.points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="#0f766e" stroke-width="1.5"/>')
        for word, value in self.levels:
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y(value):.1f}" '
                f'y2="{self.y(value):.1f}" stroke="#6b7280" stroke-dasharray="5 4"/>'
                f'<text x="{LEFT + 4}" y="{self.y(value) - 4:.1f}" fill="#374151">'
                f"{escape(word)}</text>"
            )
        for place, (word, at, colour) in enumerate(self.marks):
            y = TOP + 12 + 15 * (place % 5)
            parts.append(
                f'<line x1="{self.x(at):.1f}" x2="{self.x(at):.1f}" y1="{TOP}" '
                f'y2="{HEIGHT - BOTTOM}" stroke="{COLOURS[colour]}"/>'
                f'<text x="{self.x(at) + 4:.1f}" y="{y}" fill="{COLOURS[colour]}">'
                f"{escape(word)}</text>"
            )
        return "".join(parts) + "</svg>\n"


def calls(
    start: float, seconds: float, per_minute: float, seed: int, **changes: object
) -> Iterator[Observation]:
    chance = random.Random(seed)
    now = start
    while (now := now + chance.expovariate(per_minute / 60)) < start + seconds:
        yield Observation(
            **{  # type: ignore[arg-type]
                "ts": now, "id": f"{now:.3f}", "key": "k", "agent": "triage", "model": "m",
                "provider": "openai", "status": 200, "input_tokens": 900, "output_tokens": 90,
                "cost_nano_usd": 1_000_000, "fingerprint": f"{chance.getrandbits(60):016x}",
                "fingerprint_kind": "tool", **changes,
            }
        )  # fmt: skip


def replay(observations: Iterable[Observation]) -> tuple[list[Observation], list[dict[str, Any]]]:
    """Feed calls in order; all of them, and what was told of the agent."""
    test, lines = Backtest(), []
    ordered = sorted(observations, key=lambda o: o.ts)
    for one in ordered:
        if one.ts >= START + 3 * DAY:
            test.engine.finish_learning()
        lines += test.feed(one)
    told = [x for x in lines if x["scope"] == {"dimension": "agent", "value": "triage"}]
    return ordered, told


def per_step(observations: Sequence[Observation], start: float, end: float, step: float
             ) -> list[tuple[float, float]]:  # fmt: skip
    counts = [0] * int((end - start) / step)
    for one in observations:
        if start <= one.ts < end:
            counts[int((one.ts - start) / step)] += 1
    return [(start + step * (i + 0.5), float(n)) for i, n in enumerate(counts)]


def loop() -> Picture:
    """An agent of one call a minute that loops twice a second for fifteen minutes."""
    begin = START + 3 * DAY + HOUR
    past = calls(START, 3 * DAY + 2 * HOUR, 1, 1)
    mad = calls(begin, 900, 120, 2, fingerprint="f" * 16)
    seen, told = replay([*past, *mad])
    picture = Picture(
        "A loop: calls in 10 s, what was told and what was done", "minutes since it began",
        per_step(seen, begin - 120, begin + 1080, 10), (begin - 120, begin + 1080), 40.0,
        ticks=[(begin + 60 * m, str(m)) for m in range(0, 18, 3)],
    )  # fmt: skip
    first: dict[str, float] = {}
    for x in told:
        word = x["action"] or x["tier"]
        if x["ts"] < begin or word == "none" or x["signal"] != "agent_loop":
            continue
        if x["action"] in ("throttle", "block"):
            for place, (kind, since, _) in enumerate(picture.spans):
                picture.spans[place] = (kind, since, min(picture.spans[place][2], x["ts"]))
            picture.spans.append((word, x["ts"], min(x["until"], begin + 1080)))
        if word not in first and word in COLOURS:
            first[word] = x["ts"]
            picture.marks.append((f"{word} after {x['ts'] - begin:.0f} s", x["ts"], word))
    return picture


def surge() -> Picture:
    """An agent whose own record is beaten: warning, then critical."""
    begin = START + 3 * DAY + HOUR
    past = [*calls(START, 3 * DAY + 2 * HOUR, 8, 1), *calls(START + DAY, 300, 30, 3)]
    test, lines = Backtest(), []
    ordered = sorted([*past, *calls(begin, 600, 160, 2)], key=lambda o: o.ts)
    record = 0.0
    for one in ordered:
        if one.ts >= begin and not record:
            test.engine.finish_learning()
            view = test.engine.view(Series("agent", "triage"), one.ts)
            record = float(view.records["calls_60"]) if view else 0.0
        lines += test.feed(one)
    picture = Picture(
        "A surge: calls in a minute against the agent's own record", "minutes since it began",
        per_step(ordered, begin - 1800, begin + 600, 60), (begin - 1800, begin + 600), 200.0,
        levels=[("its own record of 28 days", record), ("three times that", 3 * record)],
        ticks=[(begin + 60 * m, str(m)) for m in range(-30, 11, 10)],
    )  # fmt: skip
    for x in lines:
        ours = x["scope"]["dimension"] == "agent" and x["signal"] == "volume_surge"
        if ours and x["action"] is None and x["tier"] in COLOURS and x["ts"] >= begin:
            after = f"{x['tier']} after {x['ts'] - begin:.0f} s"
            picture.marks.append((after, x["ts"], x["tier"]))
    return picture


def learning() -> Picture:
    """By how much thresholds are wider than their setting, by the age of a series."""
    settings = DetectionSettings()
    points = []
    for tenth in range(400):
        bucket = int(START) // 10
        state = SeriesState(Series("agent", "a"), bucket, 0, profiled=True)
        state.window.advance(bucket + tenth * 864)
        points.append((tenth / 10, tightening(settings, state)))
    return Picture(
        "Thresholds by the age of a series, in times their setting", "days since the first call",
        points, (0.0, 40.0), 2.0,
        marks=[("learning ends: alarms are sent", settings.learning.days, "throttle"),
               ("thresholds as set", settings.learning.tighten_days, "throttle")],
        ticks=[(d, str(d)) for d in range(0, 41, 10)],
    )  # fmt: skip


def main() -> None:
    """Draw all pictures into the folder given."""
    folder = Path(sys.argv[1])
    for name, picture in (("loop", loop()), ("surge", surge()), ("learning", learning())):
        (folder / f"detection-{name}.svg").write_text(picture.svg())


if __name__ == "__main__":
    main()
