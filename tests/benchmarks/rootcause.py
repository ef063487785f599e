"""Is the cause that an incident names the true one? Judged on real traffic with injected causes.

``python -m tests.benchmarks.rootcause [--traces DIR] [--incidents 200] [--seed 1] [--json FILE]``

Normal traffic is replayed from real clients (counts exact per ten minutes,
arrivals by the fitted law, token sizes by the measured distribution); each
client is a key, keys are grouped into agents, projects, endpoints, models.
Into each an incident with a known cause is injected (:func:`is_known` says what
"known" means). The recorder sees every call, and the explanation
is asked for over *all* traffic a few minutes later, with no hint at all.

``onset`` is the first call that the cause touched. A cause is right where the
top contributor is the true one, or stands for exactly the same calls.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detection.contrib import Recorder
from detection.explain import explain
from detection.types import Observation
from tests.recording import record

WINDOW = 600
BASELINE_WINDOWS = 7
CAUSES = ("key", "agent", "model", "endpoint", "prompt growth", "price change", "traffic")
#: Nano-USD per input and output token.
PRICES = {
    "small": (150, 600),
    "mid": (800, 3_200),
    "large": (2_500, 10_000),
    "dear": (15_000, 75_000),
}
MIN_RAISE = 0.5


@dataclass(frozen=True)
class Call:
    ts: float
    key: str
    agent: str
    model: str
    endpoint: str
    project: str
    client: str
    input_tokens: int
    output_tokens: int
    price: float = 1.0

    @property
    def cost(self) -> int:
        rate_in, rate_out = PRICES[self.model]
        return round((self.input_tokens * rate_in + self.output_tokens * rate_out) * self.price)


@dataclass(frozen=True)
class Truth:
    cause: str
    dimension: str
    value: str
    kind: str
    onset: float
    sudden: bool


@dataclass
class Client:
    name: str
    windows: dict[int, tuple[float, str, float]]
    sizes: list[tuple[float, float, float, float, float]]


def load(traces: Path) -> list[Client]:
    """The real clients of every pair of files in ``servegen/``."""
    clients = []
    for trace in sorted((traces / "servegen").glob("*_trace.csv.gz")):
        name = trace.name.removesuffix("_trace.csv.gz")
        windows: dict[str, dict[int, tuple[float, str, float]]] = defaultdict(dict)
        with gzip.open(trace, "rt") as file:
            for row in csv.DictReader(file):
                windows[row["client"]][int(float(row["t"])) // WINDOW] = (
                    float(row["rate"]),
                    row["pat"],
                    float(row["p1"] or 1.0),
                )
        sizes: dict[str, list[tuple[float, float, float, float, float]]] = defaultdict(list)
        tokens = trace.with_name(f"{name}_tokens.csv.gz")
        if tokens.exists():
            with gzip.open(tokens, "rt") as file:
                for row in csv.DictReader(file):
                    if row["in_mean"] and row["out_mean"]:
                        sizes[row["client"]].append(
                            tuple(
                                float(row[c] or 1.0)
                                for c in ("t", "in_mean", "in_p50", "out_mean", "out_p50")
                            )
                        )
        clients += [
            Client(f"{name}-{who}", one, sizes[who]) for who, one in windows.items() if sizes[who]
        ]
    return clients


def arrivals(rate: float, law: str, shape: float, rng: np.random.Generator) -> np.ndarray:
    """Times in one window: the exact count, gaps by the fitted law."""
    count = round(rate * WINDOW)
    if count <= 0:
        return np.empty(0)
    shape = min(max(shape, 0.15), 10.0)
    gaps = rng.gamma(shape, 1.0, count + 1) if law == "Gamma" else rng.weibull(shape, count + 1)
    times = np.cumsum(gaps)
    return times[:-1] / times[-1] * WINDOW


def lognormal(mean: float, median: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sizes with the measured mean and median."""
    median = max(1.0, min(median, mean))
    sigma = np.sqrt(2.0 * np.log(max(mean / median, 1.0001)))
    return np.maximum(1, median * np.exp(sigma * rng.standard_normal(count)))


def normal_traffic(clients: list[Client], seed: int) -> tuple[list[Call], float] | None:
    """Two hours of some real clients' calls at some real moment, and where the incident begins."""
    rng = np.random.default_rng(seed)
    chooser = random.Random(seed)
    anchor = chooser.choice(clients)
    start = chooser.choice(sorted(anchor.windows)) - BASELINE_WINDOWS
    wanted = range(start, start + BASELINE_WINDOWS + 3)
    active = [
        c
        for c in clients
        if sum(slot in c.windows for slot in wanted) >= BASELINE_WINDOWS
        and sum(c.windows[slot][0] for slot in wanted if slot in c.windows) * WINDOW <= 6_000
    ]
    if len(active) < 6:
        return None
    chooser.shuffle(active)
    calls: list[Call] = []
    models = ["small", "mid", "large"]
    agents = chooser.randint(3, 6)
    homes = [
        (f"agent-{i}", f"project-{i % 3}", chooser.choice(models), chooser.choice(models))
        for i in range(agents)
    ]
    for place, client in enumerate(active[: chooser.randint(6, 16)]):
        agent, project, model, second = homes[place % agents]
        endpoint = chooser.choice(["chat_completions", "responses", "embeddings"])
        for slot in wanted:
            if slot not in client.windows:
                continue
            times = arrivals(*client.windows[slot], rng)
            at = slot * WINDOW
            size = min(client.sizes, key=lambda row, at=at: abs(row[0] - at))
            inputs = lognormal(size[1], size[2], len(times), rng)
            outputs = lognormal(size[3], size[4], len(times), rng)
            for ts, tokens_in, tokens_out in zip(times, inputs, outputs, strict=True):
                calls.append(
                    Call(
                        at + float(ts),
                        client.name,
                        agent,
                        second if rng.random() < 0.2 else model,
                        endpoint if rng.random() < 0.9 else "chat_completions",
                        project,
                        f"net-{place % 7}",
                        int(tokens_in),
                        int(tokens_out),
                    )
                )
    calls.sort(key=lambda call: call.ts)
    begin = (start + BASELINE_WINDOWS) * WINDOW + chooser.uniform(0, WINDOW)
    return calls, begin


def multiply(
    calls: list[Call], mine: list[Call], begin: float, factor: float, rng: random.Random
) -> tuple[list[Call], float]:
    """Repeat calls after ``begin``, each within half a minute of a real one."""
    extra = []
    for call in mine:
        copies = int(factor - 1) + (rng.random() < (factor - 1) % 1)
        extra += [
            replace(call, ts=max(begin, call.ts + rng.uniform(-30, 30))) for _ in range(copies)
        ]
    onset = min((call.ts for call in extra), default=begin)
    return sorted(calls + extra, key=lambda call: call.ts), onset


def inject(
    calls: list[Call], begin: float, cause: str, rng: random.Random
) -> tuple[list[Call], Truth] | None:
    """The same calls with one cause acting from ``begin`` on; None where it can't act here."""
    late = [call for call in calls if call.ts >= begin]
    early = Counter(getattr(call, cause, "") for call in calls if call.ts < begin)
    if cause in ("key", "agent", "endpoint"):
        names = [v for v, n in early.items() if n >= 20 and n < 0.8 * early.total()]
        rng.shuffle(names)
        for name in names:
            mine = [call for call in late if getattr(call, cause) == name]
            if cause != "key" and len({call.key for call in mine}) < 2:
                continue
            changed, onset = multiply(calls, mine, begin, rng.uniform(4, 20), rng)
            return changed, Truth(cause, cause, name, "volume", onset, True)
        return None
    if cause == "traffic":
        changed, onset = multiply(calls, late, begin, rng.uniform(2.5, 6), rng)
        return changed, Truth(cause, "total", "", "volume", onset, True)
    if cause == "model":
        share = rng.uniform(0.3, 1.0)
        return touch(
            calls,
            begin,
            lambda c: replace(c, model="dear") if rng.random() < share else c,
            Truth(cause, "model", "dear", "mix", begin, True),
        )
    if cause == "price change":
        name = rng.choice(sorted({call.model for call in late} or {""}))
        factor = rng.uniform(1.6, 4)
        return touch(
            calls,
            begin,
            lambda c: replace(c, price=factor) if c.model == name else c,
            Truth(cause, "model", name, "price", begin, True),
        )
    name = rng.choice(sorted({call.agent for call in late} or {""}))
    factor, sudden = rng.uniform(2.5, 8), rng.random() < 0.7

    def grow(call: Call) -> Call:
        if call.agent != name:
            return call
        by = factor if sudden else 1 + (factor - 1) * min(1.0, (call.ts - begin) / 300)
        return replace(call, input_tokens=round(call.input_tokens * by))

    return touch(calls, begin, grow, Truth(cause, "agent", name, "tokens", begin, sudden))


def touch(calls, begin, change, truth):  # type: ignore[no-untyped-def]
    """Change single calls after ``begin``; the onset is the first that differs."""
    changed = [change(call) if call.ts >= begin else call for call in calls]
    touched = [new.ts for new, old in zip(changed, calls, strict=True) if new is not old]
    return (changed, replace(truth, onset=touched[0])) if touched else None


def incidents(
    clients: list[Client], wanted: int, seed: int
) -> Iterator[tuple[list[Call], Truth, float]]:
    """Incidents that raise the whole spend enough to be noticed, causes in turn."""
    made = attempt = 0
    while made < wanted and attempt < wanted * 60:
        attempt += 1
        rng = random.Random(seed * 1_000_003 + attempt)
        base = normal_traffic(clients, seed * 1_000_003 + attempt)
        if base is None:
            continue
        calls, begin = base
        found = inject(calls, begin, CAUSES[made % len(CAUSES)], rng)
        if found is None:
            continue
        changed, truth = found
        now = truth.onset + rng.uniform(120, 600)
        if not is_known(calls, changed, truth, now):
            continue
        made += 1
        yield changed, truth, now


def is_known(calls: list[Call], changed: list[Call], truth: Truth, now: float) -> bool:
    """Whether what was injected is beyond doubt the greatest change, and no smaller thing's.

    It raises the whole spend by half, and by twice what any real key moved by
    itself against its last hour. No single key pays 80 % of it, unless a key is
    the cause: else that key would be as true an answer.
    """
    share = (now - truth.onset) / 3_600
    usual = spend_by_key(calls, truth.onset - 3_600, truth.onset)
    without = spend_by_key(calls, truth.onset, now)
    with_it = spend_by_key(changed, truth.onset, now)
    raised = {key: with_it[key] - without[key] for key in with_it}
    total = sum(raised.values())
    natural = max(abs(without[key] - usual[key] * share) for key in usual | without)
    alone = truth.dimension == "key" or max(raised.values()) < 0.8 * total
    touched = sum(truth.onset <= call.ts < now for call in changed)
    return touched >= 20 and total >= MIN_RAISE * without.total() and total >= 2 * natural and alone


def spend_by_key(calls: list[Call], since: float, until: float) -> Counter[str]:
    """Nano-USD of each key between two times."""
    spent: Counter[str] = Counter()
    for call in calls:
        if since <= call.ts < until:
            spent[call.key] += call.cost
    return spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--incidents", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    if not (args.traces / "servegen").is_dir():
        print(f"skipped: no servegen/ in {args.traces}", file=sys.stderr)
        return 0
    clients = load(args.traces)
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    explaining, observed = [], 0
    for calls, truth, now in incidents(clients, args.incidents, args.seed):
        observations = [
            Observation(
                ts=c.ts,
                id="",
                key=c.key,
                agent=c.agent,
                model=c.model,
                endpoint=c.endpoint,
                project=c.project,
                client=c.client,
                status=200,
                input_tokens=c.input_tokens,
                output_tokens=c.output_tokens,
                cost_nano_usd=c.cost,
            )
            for c in calls
            if c.ts < now
        ]
        recorder = Recorder()
        for observation in observations:
            record(recorder, observation)
        observed += len(observations)
        began = time.perf_counter()
        told = explain(list(recorder.snapshot().cells()), now=now)
        explaining.append(time.perf_counter() - began)
        count = tally[truth.cause]
        count["incidents"] += 1
        if told is None:
            continue
        top = f"{told.top.dimension}:{told.top.value}"
        right = f"{truth.dimension}:{truth.value}"
        top_right = top == right or right in told.top.same
        count["top"] += top_right
        count["kind"] += told.kind == truth.kind
        count["sudden"] += truth.sudden
        near = abs(told.since - truth.onset) <= 60
        count["onset"] += truth.sudden and near
        if args.verbose and not (
            top_right and told.kind == truth.kind and (near or not truth.sudden)
        ):
            print(
                truth, "->", top, told.kind, f"{told.since - truth.onset:+.0f}s", told.split.parts()
            )
    whole: Counter[str] = sum(tally.values(), Counter())
    if not whole["incidents"]:
        print("skipped: too few real clients are active together in these traces", file=sys.stderr)
        return 0
    print(f"{'cause':14} {'n':>4} {'top':>6} {'kind':>6} {'onset ≤60 s':>12}")
    for cause, count in [*tally.items(), ("all", whole)]:
        n = count["incidents"]
        print(
            f"{cause:14} {n:4} {count['top'] / n:6.3f} {count['kind'] / n:6.3f} "
            f"{count['onset'] / max(1, count['sudden']):12.3f}"
        )
    explaining.sort()
    print(
        f"{observed} calls; explanation p50 {explaining[len(explaining) // 2] * 1e3:.1f} ms, "
        f"max {explaining[-1] * 1e3:.1f} ms"
    )
    result = {
        "top_contributor_right": whole["top"] / whole["incidents"],
        "kind_right": whole["kind"] / whole["incidents"],
        "onset_within_60s": whole["onset"] / max(1, whole["sudden"]),
        "incidents": whole["incidents"],
    }
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
