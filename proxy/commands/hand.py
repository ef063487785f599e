"""``tokenweir status``, ``block``, ``throttle``, ``release``: the manual hand.

Owns: these commands' options and their tables. Must never: act without the
admin API, which checks who may and writes the audit trail.
"""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from detection.budget import dollars
from detection.types import Dimension
from proxy.commands.admin_client import (
    DEFAULT_DATA_DIR,
    DEFAULT_URL,
    AdminClient,
    AdminUrl,
    DataDir,
    fail,
    segment,
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WATCH_SECONDS = 1.0

Series = Annotated[
    str,
    typer.Argument(help="dimension=value, such as agent=support-bot or key=key_0123456789ab."),
]
For = Annotated[
    str, typer.Option("--for", help="How long: 90s, 15m, 2h, 1d, or `ever` until released.")
]
Why = Annotated[str, typer.Option("--why", help="For the refusal and the audit trail.")]


def block(
    series: Series,
    for_: For = "15m",
    why: Why = "",
    keep_streams: Annotated[
        bool, typer.Option("--keep-streams", help="Let running streams end by themselves.")
    ] = False,
    admin_url: AdminUrl = DEFAULT_URL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Block a key, an agent, a model, ... on every replica within a second.

    Examples:  tokenweir block agent=refunds --for 1h --why "loops on refunds"
    """
    asked = {**_asked(series, for_, why), "kind": "block", "cut": not keep_streams}
    _act(AdminClient(admin_url, data_dir), asked)


def throttle(
    series: Series,
    rate: Annotated[
        float, typer.Option("--rate", help="Calls a second that still pass.", min=0.001)
    ],
    for_: For = "15m",
    why: Why = "",
    admin_url: AdminUrl = DEFAULT_URL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Let only so many calls a second pass.

    Examples:  tokenweir throttle project=search --rate 2 --for 30m
    """
    asked = {**_asked(series, for_, why), "kind": "throttle", "rate_per_second": rate}
    _act(AdminClient(admin_url, data_dir), asked)


def release(
    what: Annotated[str, typer.Argument(help="An action's id, or dimension=value for all of it.")],
    why: Why = "",
    admin_url: AdminUrl = DEFAULT_URL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Lift a block, a throttle or a downgrade.

    Examples:  tokenweir release agent=refunds --why "the loop is mended"
    """
    client = AdminClient(admin_url, data_dir)
    ids = [what]
    if "=" in what:
        dimension, value = _series(what)
        ids = [
            a["id"]
            for a in client.get("/api/v1/actions")["actions"]
            if a["series"]["dimension"] == dimension
            and value in (a["series"]["value"], a["series"].get("label"))
        ]
        if not ids:
            fail(f"nothing is in force on {what}")
    for action_id in ids:
        released = client.delete(f"/api/v1/actions/{segment(action_id)}", {"reason": why})[
            "released"
        ]
        typer.echo(f"released {released['kind']} of {_scope(released)}")


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on, once a second.")] = False,
    admin_url: AdminUrl = DEFAULT_URL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """What is in force, budgets and limits, and how the parts are.

    Examples:  tokenweir status   ·   tokenweir status --watch
    """
    client = AdminClient(admin_url, data_dir)
    console = Console()
    if not watch:
        console.print(_view(client))
        return
    with Live(_view(client), console=console, refresh_per_second=4, screen=True) as live:
        try:
            while True:
                time.sleep(_WATCH_SECONDS)
                live.update(_view(client))
        except KeyboardInterrupt:
            return


def _act(client: AdminClient, asked: dict[str, Any]) -> None:
    done = client.post("/api/v1/actions", asked)
    until = "until released" if done["until"] is None else f"until {_clock(done['until'])}"
    typer.echo(f"{done['id']}: {done['kind']} of {_scope(done)} {until}")


def _asked(series: str, for_: str, why: str) -> dict[str, Any]:
    dimension, value = _series(series)
    return {"dimension": dimension, "value": value, "seconds": _seconds(for_), "reason": why}


def _series(text: str) -> tuple[str, str]:
    dimension, equals, value = text.partition("=")
    known = [str(d) for d in Dimension]
    if text == "total":
        return "total", ""
    if not equals or dimension not in known or not value:
        raise typer.BadParameter(f"write dimension=value; dimensions: {', '.join(known)}")
    return dimension, value


def _seconds(text: str) -> float | None:
    if text == "ever":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        raise typer.BadParameter("write 90s, 15m, 2h, 1d or ever")
    return float(found[1]) * _UNITS[found[2]]


def _view(client: AdminClient) -> Group:
    actions = client.get("/api/v1/actions")["actions"]
    money = client.get("/api/v1/budgets")
    health = client.get("/api/v1/health")
    words = [f"{part['name']} {part['state']}" for part in health.get("components", ())]
    head = Text(f"Tokenweir  {_clock(time.time())}  {health.get('status', '')}", style="bold")
    return Group(head, Text("  ".join(words)), _actions(actions), _counts(money))


def _actions(actions: list[dict[str, Any]]) -> Table:
    table = Table("what", "whom", "mode", "until", "by", "why", title="In force", expand=True)
    for a in actions:
        until = "released" if a["until"] is None else _clock(a["until"])
        by = a["actor"] or a["rule"]
        row = (a["kind"], _scope(a), a["mode"], until, by, a["reason"])
        table.add_row(*(Text(_plain(cell)) for cell in row))
    if not actions:
        table.add_row("nothing", *[""] * 5)
    return table


def _counts(money: dict[str, Any]) -> Table:
    table = Table(
        "rule", "whose", "used", "of", "per", "resets", title="Budgets and limits", expand=True
    )
    for row in (*money["budgets"], *money["limits"][:20]):
        cost = row["metric"] == "cost"
        used, limit = (dollars(row[n]) if cost else str(row[n]) for n in ("used", "limit"))
        resets = _clock(row["resets_at"]) if row["resets_at"] else ""
        cells = (row["rule"], row["scope"], used, limit, row["per"], resets)
        table.add_row(*(Text(_plain(cell)) for cell in cells))
    return table


def _scope(action: dict[str, Any]) -> str:
    series = action["series"]
    return f"{series['dimension']} {series.get('label') or series['value']}".strip()


def _plain(text: str) -> str:
    """Names come from requests: no control character of theirs reaches the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", text)


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
