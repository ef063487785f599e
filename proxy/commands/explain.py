"""``tokenweir explain``: what would happen to a call now, and by which rule.

Owns: the command's options and output. Must never: decide; the proxy is asked.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from detection.budget import dollars
from proxy.commands.admin_client import (
    DEFAULT_DATA_DIR,
    DEFAULT_URL,
    AdminClient,
    AdminUrl,
    DataDir,
)

Text = Annotated[str | None, typer.Option()]


def explain(
    key: Annotated[str | None, typer.Option(help="Fingerprint, id, name or alias.")] = None,
    agent: Text = None,
    model: Text = None,
    provider: Text = None,
    project: Text = None,
    user: Text = None,
    session: Text = None,
    tags: Annotated[str | None, typer.Option(help="name=value, separated by commas.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most output tokens asked for.")] = None,
    body_bytes: Annotated[int, typer.Option(help="Size of the request's body.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
    admin_url: AdminUrl = DEFAULT_URL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Say what would happen to such a call now. Nothing is counted.

    Examples:  tokenweir explain --agent refunds --model gpt-4o-mini --max-tokens 500
    """
    found = AdminClient(admin_url, data_dir).get(
        "/api/v1/explain",
        key=key,
        agent=agent,
        model=model,
        provider=provider,
        project=project,
        user=user,
        session=session,
        tags=tags,
        max_tokens=max_tokens,
        body_bytes=body_bytes,
    )
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    word = found["decision"]
    by = f" by {found['rule']}" if found["rule"] else ""
    lines = [f"{word}{by} (mode {found['mode']})"]
    if found["message"]:
        lines.append(f"  {found['message']}")
    if found["would"]:
        lines.append(f"  shadow: would {found['would']}")
    if found["model"]:
        lines.append(f"  model given: {found['model']}")
    estimate = found["estimate"]
    kind = "at most" if estimate["upper_bound"] else "about"
    lines.append(
        f"  set aside: {kind} {dollars(estimate['cost_nano_usd'])}, {estimate['tokens']} tokens"
    )
    if found["protected"]:
        lines.append("  protected: no automatic action touches it")
    for a in found["actions"]:
        until = "until released" if a["until"] is None else f"until {_clock(a['until'])}"
        lines.append(f"  action {a['kind']} of {a['scope']} ({a['rule']}, {a['mode']}) {until}")
    for c in found["counts"]:
        money = c["metric"] == "cost"
        used, limit = (
            dollars(c[n]) if money else f"{c[n]} {c['metric']}" for n in ("used", "limit")
        )
        stands = f"{used} of {limit} per {c['per']} ({c['mode']})"
        lines.append(f"  {c['kind']} {c['rule']} for {c['scope']}: {stands}")
    lines += [
        f"  cap {c['rule']}: {dollars(c['limit_nano_usd'])} for one call" for c in found["caps"]
    ]
    return lines


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
