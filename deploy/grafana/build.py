"""Writes the Grafana dashboards: `python deploy/grafana/build.py`.

Owns: what is on them. Must never: be edited in the JSON, which this overwrites;
`--check` tells whether the files are what this would write.
"""

# ruff: noqa: E501  one panel a line is what can be read
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WHO = 'gen_ai_provider_name=~"$provider",gen_ai_agent_name=~"$agent"'
PER_ROW = {"stat": (4, 4), "timeseries": (12, 8), "table": (12, 8), "bargauge": (12, 8)}


def variable(name: str, query: str) -> dict[str, Any]:
    """A drop-down of a label's values, all of them by default."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
    }


def panel(
    title: str,
    *queries: tuple[str, str],
    kind: str = "timeseries",
    unit: str = "short",
    note: str = "",
    stacked: bool = False,
    thresholds: tuple[tuple[float | None, str], ...] = ((None, "green"),),
) -> dict[str, Any]:
    """One panel; a query is its expression and its legend."""
    custom = {"fillOpacity": 20 if stacked else 0, "showPoints": "never", "lineWidth": 1}
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    options: dict[str, Any] = {}
    if kind == "timeseries":
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif kind in ("stat", "bargauge"):
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "orientation": "horizontal" if kind == "bargauge" else "auto",
        }
        if kind == "stat":
            options |= {"colorMode": "value", "graphMode": "area"}
    return {
        "title": title,
        "type": kind,
        "description": note,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "custom": custom if kind == "timeseries" else {},
                "thresholds": {
                    "mode": "absolute",
                    "steps": [{"value": v, "color": c} for v, c in thresholds],
                },
            },
            "overrides": [],
        },
        "options": options,
        "targets": [
            {
                "refId": chr(65 + place),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": kind in ("table", "bargauge"),
                "format": "table" if kind == "table" else "time_series",
            }
            for place, (expression, legend) in enumerate(queries)
        ],
    }


def dashboard(
    uid: str, title: str, rows: dict[str, list[dict[str, Any]]], *, names: bool = True
) -> dict[str, Any]:
    """Panels under headings, laid out from left to right."""
    panels: list[dict[str, Any]] = []
    down = 0
    for heading, held in rows.items():
        panels.append(
            {
                "type": "row",
                "title": heading,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": down, "w": 24, "h": 1},
            }
        )
        down += 1
        across = high = 0
        for one in held:
            width, height = PER_ROW[one["type"]]
            if across + width > 24:
                across, down, high = 0, down + high, 0
            panels.append(one | {"gridPos": {"x": across, "y": down, "w": width, "h": height}})
            across, high = across + width, max(high, height)
        down += high
    for number, one in enumerate(panels, start=1):
        one["id"] = number
    variables: list[dict[str, Any]] = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}}
    ]
    if names:
        variables += [
            variable("provider", "label_values(tokenweir_requests_total, gen_ai_provider_name)"),
            variable("agent", "label_values(tokenweir_requests_total, gen_ai_agent_name)"),
        ]
    return {
        "uid": uid,
        "title": title,
        "tags": ["tokenweir"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "tags": ["tokenweir"],
                "title": "Tokenweir",
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": panels,
    }


def rate(metric: str, by: str, window: str = "$__rate_interval", more: str = "") -> str:
    """The rate of a usage counter by one label, for the chosen providers and agents."""
    return f"sum by ({by}) (rate({metric}{{{WHO}{more}}}[{window}]))"


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram, by one more label where wanted."""
    labels = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"
    )


def spend() -> dict[str, Any]:
    """Who spends what."""
    cost, tokens = "tokenweir_cost_usd_total", "tokenweir_tokens_total"
    agent, model, key = "gen_ai_agent_name", "gen_ai_request_model", "key"
    return dashboard("tokenweir-spend", "Tokenweir: spend and usage", {
        "Now": [
            panel("Spend an hour", (f"sum(rate({cost}{{{WHO}}}[15m])) * 3600", ""), kind="stat", unit="currencyUSD"),
            panel("Spend, last 24 h", (f"sum(increase({cost}{{{WHO}}}[24h]))", ""), kind="stat", unit="currencyUSD"),
            panel("Calls a second", (f"sum(rate(tokenweir_requests_total{{{WHO}}}[5m]))", ""), kind="stat", unit="reqps"),
            panel("Calls that fail", (f"sum(rate(tokenweir_errors_total{{{WHO}}}[5m])) / (sum(rate(tokenweir_requests_total{{{WHO}}}[5m])) > 0)", ""), kind="stat", unit="percentunit", thresholds=((None, "green"), (0.05, "orange"), (0.2, "red"))),
            panel("Refused a second", ("sum(rate(tokenweir_refused_requests_total[5m]))", ""), kind="stat", unit="reqps"),
            panel("Open emergencies", ('max(tokenweir_incidents_open{tier="emergency"})', ""), kind="stat", thresholds=((None, "green"), (1, "red"))),
        ],
        "Who spends": [
            panel("Dollars an hour by agent", (f"topk(10, {rate(cost, agent)} * 3600)", "{{gen_ai_agent_name}}"), unit="currencyUSD", stacked=True),
            panel("Dollars an hour by model", (f"topk(10, {rate(cost, model)} * 3600)", "{{gen_ai_request_model}}"), unit="currencyUSD", stacked=True),
            panel("Dollars an hour by key", (f"topk(10, {rate(cost, key)} * 3600)", "{{key}}"), unit="currencyUSD", stacked=True),
            panel("Dollars in 24 h by project", (f"topk(10, sum by (project) (increase({cost}{{{WHO}}}[24h])))", "{{project}}"), kind="bargauge", unit="currencyUSD"),
        ],
        "Tokens": [
            panel("Tokens a second by kind", (rate(tokens, "gen_ai_token_type"), "{{gen_ai_token_type}}"), stacked=True),
            panel("Parts of them", (rate("tokenweir_token_parts_total", "part"), "{{part}}"), note="Cached input and cache writes are parts of input; reasoning is a part of output."),
            panel("Output tokens per call", (f"{rate(tokens, model, more=',gen_ai_token_type=' + chr(34) + 'output' + chr(34))} / {rate('tokenweir_requests_total', model)}", "{{gen_ai_request_model}}"), note="A model swap or a runaway answer shows here first."),
            panel("Dollars per call", (f"{rate(cost, model)} / {rate('tokenweir_requests_total', model)}", "{{gen_ai_request_model}}"), unit="currencyUSD"),
        ],
        "Budgets": [
            panel("Share of budget spent", ("max by (budget, scope) (tokenweir_budget_spent_usd) / max by (budget, scope) (tokenweir_budget_limit_usd)", "{{budget}} {{scope}}"), kind="bargauge", unit="percentunit", thresholds=((None, "green"), (0.8, "orange"), (1, "red"))),
            panel("Reserved by running calls", ("max by (budget, scope) (tokenweir_budget_reserved_usd)", "{{budget}} {{scope}}"), unit="currencyUSD"),
        ],
    })  # fmt: skip


def guard() -> dict[str, Any]:
    """What was found, and what was done about it."""
    return dashboard("tokenweir-guard", "Tokenweir: anomalies and enforcement", {
        "Found": [
            panel("Verdicts by signal", ("sum by (signal, tier) (increase(tokenweir_verdicts_total[$__rate_interval]))", "{{signal}} {{tier}}"), stacked=True),
            panel("Incidents open", ("max by (tier) (tokenweir_incidents_open)", "{{tier}}")),
            panel("Series watched", ("sum(tokenweir_detection_series)", "series")),
            panel("Detectors set aside", ("sum by (detector) (increase(tokenweir_detector_failures_total[$__rate_interval]))", "{{detector}}")),
        ],
        "Done": [
            panel("Admission decisions", ("sum by (decision) (rate(tokenweir_decisions_total[$__rate_interval]))", "{{decision}}"), unit="reqps", stacked=True),
            panel("Actions in force", ("max by (kind, mode) (tokenweir_actions_in_force)", "{{kind}} ({{mode}})")),
            panel("Streams cut", ("sum(increase(tokenweir_streams_cut_total[$__rate_interval]))", "cut")),
            panel("Alert deliveries", ("sum by (receiver, outcome) (increase(tokenweir_notifications_total[$__rate_interval]))", "{{receiver}} {{outcome}}")),
        ],
    }, names=False)  # fmt: skip


def operations() -> dict[str, Any]:
    """How the proxy itself is."""
    provider = "gen_ai_provider_name"
    return dashboard("tokenweir-operations", "Tokenweir: operations", {
        "Health": [
            panel("Replicas up", ('count(up{job="tokenweir"} == 1)', ""), kind="stat"),
            panel("Store answers", ("min(tokenweir_store_up)", ""), kind="stat", thresholds=((None, "red"), (1, "green"))),
            panel("Counts behind", ("max(tokenweir_store_lag_seconds)", ""), kind="stat", unit="s", thresholds=((None, "green"), (5, "orange"), (30, "red"))),
            panel("Overhead, p99", (quantile(0.99, "tokenweir_overhead_seconds"), ""), kind="stat", unit="s"),
            panel("Calls in flight", ("sum(tokenweir_requests_in_flight)", ""), kind="stat"),
            panel("Worst loop stall", ("max(tokenweir_loop_stall_seconds)", ""), kind="stat", unit="s"),
        ],
        "Traffic": [
            panel("Overhead", (quantile(0.5, "tokenweir_overhead_seconds"), "p50"), (quantile(0.99, "tokenweir_overhead_seconds"), "p99"), unit="s"),
            panel("Time to first token, p95", (quantile(0.95, "tokenweir_time_to_first_token_seconds", provider), "{{gen_ai_provider_name}}"), unit="s"),
            panel("Duration, p95", (quantile(0.95, "tokenweir_request_duration_seconds", provider), "{{gen_ai_provider_name}}"), unit="s"),
            panel("In flight", ("sum by (instance) (tokenweir_requests_in_flight)", "{{instance}} calls"), ("sum by (instance) (tokenweir_streams_in_flight)", "{{instance}} streams"), ("sum by (instance) (tokenweir_connections_open)", "{{instance}} connections")),
        ],
        "What breaks": [
            panel("Provider errors by type", ("sum by (gen_ai_provider_name, error_type) (rate(tokenweir_error_types_total[$__rate_interval]))", "{{gen_ai_provider_name}} {{error_type}}")),
            panel("Upstream failures", ("sum by (reason) (rate(tokenweir_upstream_failures_total[$__rate_interval]))", "{{reason}}")),
            panel("Requests rejected at the door", ("sum by (reason) (rate(tokenweir_rejected_requests_total[$__rate_interval]))", "{{reason}}")),
            panel("Clients that hung up", ("sum(rate(tokenweir_client_aborts_total[$__rate_interval]))", "aborts")),
            panel("Provider's own rate limit left", ("min by (gen_ai_provider_name, limit) (tokenweir_upstream_ratelimit_remaining)", "{{gen_ai_provider_name}} {{limit}}")),
            panel("Models without a price", ("sum by (gen_ai_provider_name) (increase(tokenweir_unpriced_requests_total[1h]))", "{{gen_ai_provider_name}}")),
        ],
        "Store and disk": [
            panel("Records not yet confirmed", ("sum by (instance) (tokenweir_store_pending_records)", "{{instance}}")),
            panel("Store failures", ("sum by (reason) (increase(tokenweir_store_failures_total[$__rate_interval]))", "{{reason}}")),
            panel("Journal", ("sum by (instance) (tokenweir_journal_bytes)", "{{instance}}"), unit="bytes"),
            panel("Memory", ("sum by (instance) (tokenweir_process_resident_memory_bytes)", "{{instance}}"), unit="bytes"),
            panel("CPU", ("sum by (instance) (rate(tokenweir_process_cpu_seconds_total[$__rate_interval]))", "{{instance}}"), unit="percentunit"),
            panel("Configuration reloads", ("sum by (outcome) (increase(tokenweir_config_reloads_total[$__rate_interval]))", "{{outcome}}")),
        ],
    }, names=False)  # fmt: skip


def main() -> int:
    """Write the files, or with ``--check`` compare them."""
    stale = []
    for made in (spend(), guard(), operations()):
        path = HERE / f"{made['uid']}.json"
        text = json.dumps(made, indent=1, sort_keys=True) + "\n"
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            HERE.mkdir(exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}; run {Path(__file__).name}")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
