// Budgets: burn-down, time to exhaustion, and what shadow mode would have done.
import { html } from "../../vendor/preact-htm.module.js";
import { count, fullTime, money, scope } from "../format.js";
import { BudgetLine } from "../forecast.js";
import { Badge, Card, Exports, Loaded, State, Table, useData } from "../ui.js";

function amount(metric, value) {
  return metric.includes("cost") ? money(value) : count(value);
}

export function Budgets() {
  const budgets = useData("/api/v1/budgets", { every: 10, events: ["config", "action"] });
  const shadow = useData("/api/v1/shadow", { every: 15, events: ["config", "action"] });
  return html`
    <div class="page-head"><h1 tabindex="-1">Budgets</h1></div>
    <${Card} title="In force" id="b-force" aside=${html`<${Exports} path="/api/v1/budgets" />`}>
      <${Loaded} from=${budgets} what="budgets">
        ${(found) =>
          found.budgets.length
            ? html`<ul class="stack">${found.budgets.map((b) => html`<${BudgetLine} key=${`${b.name}${b.scope}`} budget=${b} />`)}</ul>`
            : html`<${State} kind="ok" title="No budget is set.">A budget under <code>budgets</code> in the policy file holds spend within a limit per day, week or month.<//>`}
      <//>
    <//>
    <${Card} title="Limits" id="b-limits" flush aside=${html`<${Exports} path="/api/v1/budgets" table="limits" />`}>
      <${Loaded} from=${budgets} what="limits">
        ${(found) => html`<${Table}
          caption="Limits"
          rows=${found.limits}
          rowKey=${(l) => `${l.rule}${l.metric}${l.scope}`}
          columns=${[
            { id: "rule", title: "Limit", cell: (l) => l.rule },
            { id: "scope", title: "Whom", cell: (l) => html`<span class="clip" title=${l.scope}>${l.scope}</span>` },
            { id: "used", title: "Used", num: true, cell: (l) => amount(l.metric, l.used) },
            { id: "limit", title: "Of", num: true, cell: (l) => amount(l.metric, l.limit) },
            { id: "per", title: "Per", cell: (l) => String(l.per).replaceAll("_", " ") },
            { id: "mode", title: "Mode", cell: (l) => html`<${Badge} word=${l.mode} />` },
          ]}
          empty=${html`<${State} kind="ok" title="No limit is in use.">Limits hold requests, tokens or dollars per minute, hour or day; set them under <code>limits</code>.<//>`}
        />`}
      <//>
    <//>
    <${Card} title="What shadow mode would have done" id="b-shadow" flush aside=${html`<${Exports} path="/api/v1/shadow" />`}>
      <${Loaded} from=${shadow} what="shadow decisions">
        ${(found) => html`<${Table}
          caption="Would have"
          rows=${found.rows}
          rowKey=${(r) => `${r.at}${r.rule}${scope(r.series)}`}
          columns=${[
            { id: "at", title: "Last", cell: (r) => fullTime(r.at) },
            { id: "kind", title: "Would have", cell: (r) => html`<${Badge} word=${r.kind} text=${String(r.kind).replaceAll("_", " ")} />` },
            { id: "who", title: "Whom", cell: (r) => html`<span class="clip">${r.series ? scope(r.series) : "–"}</span>` },
            { id: "rule", title: "Rule", cell: (r) => r.rule },
            { id: "calls", title: "Calls", num: true, cell: (r) => r.calls },
            { id: "cost", title: "Their cost", num: true, cell: (r) => money(r.cost_nano_usd) },
          ]}
          empty=${html`<${State} kind="ok" title="Nothing would have been stopped.">Rules in shadow mode list here the calls that they would have refused.<//>`}
        />
        ${found.rows.length > 0 && html`<${ShadowedCalls} rows=${found.rows} />`}`}
      <//>
    <//>
  `;
}

const MOST_CALLS = 100;

// The calls themselves, the newest first.
function ShadowedCalls({ rows }) {
  const calls = rows.flatMap((row) => row.latest.map((call) => ({ ...call, kind: row.kind, rule: row.rule })));
  calls.sort((a, b) => b.ts - a.ts);
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0);
  return html`<div class="body">
    <p>Shadow mode would have stopped ${count(sum("calls"))} calls, ${money(sum("cost_nano_usd"))}.</p>
    <details class="data">
      <summary>Here they are${sum("calls") > calls.length ? `, the latest ${calls.length}` : ""}</summary>
      <${Exports} path="/api/v1/shadow" table="calls" />
      <${Table} caption="Calls that would have been stopped" rows=${calls.slice(0, MOST_CALLS)} rowKey=${(c) => `${c.rule}${c.kind}${c.id}`} columns=${[
        { id: "at", title: "When", cell: (c) => fullTime(c.ts) },
        { id: "agent", title: "Agent", cell: (c) => html`<span class="clip">${c.agent || "–"}</span>` },
        { id: "key", title: "Key", cell: (c) => html`<span class="mono">${c.key || "–"}</span>` },
        { id: "model", title: "Model", cell: (c) => c.model || "–" },
        { id: "cost", title: "Cost", num: true, cell: (c) => money(c.cost_nano_usd) },
        { id: "rule", title: "Rule", cell: (c) => c.rule },
      ]} />
    </details>
  </div>`;
}
