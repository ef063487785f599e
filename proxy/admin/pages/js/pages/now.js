// What happens now: the four curves, the eight metrics, who is held back.
import { html, useMemo, useState } from "../../vendor/preact-htm.module.js";
import { Chart, perHour } from "../chart.js";
import { ago, change, count, money, percent, scope, signal } from "../format.js";
import { Badge, Card, Clip, Exports, Learning, Loaded, Segments, State, useData } from "../ui.js";
import { ActionsTable } from "../actions.js";
import { Forecast } from "../forecast.js";
import { FirstSteps } from "./first_steps.js";

const TIERS = ["none", "info", "warning", "critical", "emergency"];
const WINDOWS = ["1h", "6h", "24h", "7d", "30d"];

export function Now({ session }) {
  const [window_, setWindow] = useState("1h");
  const overview = useData(`/api/v1/overview?window=${window_}`, { every: 5, events: ["incident", "action"] });
  const incidents = useData("/api/v1/incidents?state=active&limit=50", { every: 30, events: ["incident"] });
  const actions = useData("/api/v1/actions", { every: 30, events: ["action"] });
  const first = useData("/api/v1/first-call", { every: 5 });

  if (first.data && !first.data.seen) return html`<${FirstSteps} session=${session} />`;
  return html`
    <div class="page-head">
      <h1 tabindex="-1">Now</h1>
      ${first.data && html`<span class="muted">last call ${ago(first.data.at)}${first.data.agent ? ` by ${first.data.agent}` : ""}</span>`}
      <span class="push row"><${Exports} path=${`/api/v1/overview?window=${window_}`} /><${Segments} label="Window" options=${WINDOWS} value=${window_} onChange=${setWindow} /></span>
    </div>
    <${Loaded} from=${overview} what="the last hours">
      ${(data) => html`
        <${Learning} view=${data.view} />
        <${Standing} incidents=${incidents} />
        <${Metrics} data=${data} />
        <div class="cols-3">
          <${Card} title="Held back now" id="held" flush aside=${html`<${Exports} path="/api/v1/actions" />`}><${Loaded} from=${actions} what="actions">${(found) => html`<${ActionsTable} actions=${found.actions} session=${session} onDone=${actions.reload} />`}<//><//>
          <${Forecast} />
        </div>
        <${Curves} data=${data} incidents=${incidents.data} />
      `}
    <//>
  `;
}

function Standing({ incidents }) {
  if (incidents.error) return html`<p class="note" data-tone="warn" role="status">Incidents can't be read: ${incidents.error.message}</p>`;
  if (!incidents.data) return null;
  const open = [...incidents.data.incidents].sort((a, b) => TIERS.indexOf(b.worst) - TIERS.indexOf(a.worst) || b.opened_at - a.opened_at);
  if (!open.length) return html`<p class="note" data-tone="ok" role="status"><strong>Nothing is wrong.</strong> No incident is open.</p>`;
  return html`<div class="note" data-tone="crit" role="status">
    <strong>${open.length} open ${open.length === 1 ? "incident" : "incidents"}.</strong>
    <ul class="stack">
      ${open.slice(0, 4).map(
        (i) => html`<li class="row" key=${i.id}>
          <${Badge} word=${i.worst} />
          <a href=${`#/incidents/${encodeURIComponent(i.id)}`}>${signal(i.signal)} · ${scope(i.series)}</a>
          <span class="muted">${ago(i.opened_at)} · ${i.story || ""}</span>
        </li>`,
      )}
    </ul>
    ${open.length > 4 && html`<a href="#/incidents">and ${open.length - 4} more</a>`}
  </div>`;
}

// The worst last, so that it lies on top.
function marksOf(incidents) {
  const rows = [...((incidents && incidents.incidents) || [])];
  rows.sort((a, b) => TIERS.indexOf(a.worst) - TIERS.indexOf(b.worst));
  return rows.map((i) => ({ id: i.id, at: i.since || i.opened_at, tier: i.worst, label: `${signal(i.signal)}, ${scope(i.series)}` }));
}

function Curves({ data, incidents }) {
  const { curve, bands, hourly, scaled } = useMemo(() => perHour(data), [data]);
  const marks = useMemo(() => marksOf(incidents), [incidents]);
  const charts = [
    ["Spend per hour", [{ label: "spend", values: hourly(curve.cost_nano_usd) }], scaled(bands.cost_nano_usd), money],
    ["Requests per hour", [{ label: "requests", values: hourly(curve.requests) }], scaled(bands.requests), count],
    [
      "Errors and refusals per hour",
      [
        { label: "errors", values: hourly(curve.errors), color: "--crit" },
        { label: "refused by Tokenweir", values: hourly(curve.refused), color: "--series-3" },
      ],
      scaled(bands.errors),
      count,
    ],
    [
      "Tokens per hour",
      [
        { label: "input", values: hourly(curve.input_tokens) },
        { label: "output", values: hourly(curve.output_tokens), color: "--series-2" },
      ],
      scaled(bands.input_tokens),
      count,
    ],
  ];
  return html`<div class="cols-2">
    ${charts.map(
      ([title, series, band, format]) => html`<${Card} key=${title} title=${title} id=${`c-${title.split(" ")[0].toLowerCase()}`}>
        <${Chart} title=${title} times=${curve.times} series=${series} band=${band} format=${format} marks=${marks} />
      <//>`,
    )}
  </div>`;
}

function Metrics({ data }) {
  const { "15m": quarter, "1h": hour } = data.metrics;
  const usual = hour.usual;
  const plain = (name, field, show) => {
    const base = usual[field];
    const off = base ? hour[field] / base - 1 : null;
    return html`<div class="card tile" key=${name} data-state=${off > 1 ? "high" : "ok"}>
      <span class="name">${name}, 1 h</span>
      <span class="value">${show(hour[field])}</span>
      <span class="pair"><span>15 min: ${show(quarter[field])}</span></span>
      <span class="pair"><span>usual: ${base === null || base === undefined ? "not known yet" : show(base)}</span><span>${off === null ? "" : change(off)}</span></span>
    </div>`;
  };
  const list = (name, rows, by) => html`<div class="card tile" key=${name}>
    <span class="name">${name}, 1 h</span>
    ${rows.length
      ? html`<ol>${rows.slice(0, 4).map((row) => html`<li key=${row.value}><a class="clip" href=${`#/by/${by}/${encodeURIComponent(row.value)}`}>${row.value}</a><span>${money(row.cost_nano_usd)}</span></li>`)}</ol>`
      : html`<span class="muted">no calls</span>`}
  </div>`;
  const finishes = hour.finish_reasons || {};
  const finished = Object.values(finishes).reduce((a, b) => a + b, 0);
  return html`<section aria-label="Eight metrics">
    <div class="tiles">
      ${plain("Total spend", "cost_nano_usd", money)} ${plain("Requests", "requests", count)}
      ${plain("Cost per request", "cost_per_request_nano_usd", money)} ${plain("Output tokens per request", "output_tokens_per_request", count)}
      ${plain("Error rate", "error_rate", percent)}
      ${list("Spend by model", hour.by_model, "model")} ${list("Spend by key", hour.by_key, "key")}
      <div class="card tile">
        <span class="name">Finish reasons, 1 h</span>
        ${finished
          ? html`<ol>${Object.entries(finishes).slice(0, 4).map(([reason, n]) => html`<li key=${reason}><${Clip} text=${reason} /><span>${percent(n / finished, 0)}</span></li>`)}</ol>`
          : html`<span class="muted">none told</span>`}
      </div>
    </div>
  </section>`;
}
