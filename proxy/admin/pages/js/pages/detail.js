// One series in full: curve and band, normal and record, peers, parts, the manual hand.
import { html, useMemo, useState } from "../../vendor/preact-htm.module.js";
import { query } from "../api.js";
import { Chart, perHour } from "../chart.js";
import { DIMENSIONS, change, count, duration, money, percent } from "../format.js";
import { Badge, Card, Exports, Learning, Loaded, Segments, State, Table, useData } from "../ui.js";
import { Hand } from "../actions.js";

const WINDOWS = ["1h", "6h", "24h", "7d", "30d"];

export function SeriesDetail({ by, value, session }) {
  const [window_, setWindow] = useState("24h");
  const path = `/api/v1/series/detail?${query({ by, value, window: window_ })}`;
  const detail = useData(path, { every: 10, events: ["incident", "action"] });
  return html`
    <div class="page-head">
      <h1 tabindex="-1"><a href=${`#/by/${by}`}>${DIMENSIONS[by]}</a> / <span class="mono">${value || "(none)"}</span></h1>
      ${detail.data && html`<${Badge} word=${detail.data.state} />`}
      <span class="push row">
        <${Hand} series=${{ dimension: by, value }} session=${session} state=${detail.data} onDone=${detail.reload} />
        <${Exports} path=${path} /><${Segments} label="Window" options=${WINDOWS} value=${window_} onChange=${setWindow} />
      </span>
    </div>
    <${Loaded} from=${detail} what=${value}>
      ${(data) => html`
        <${Learning} view=${data.view} />
        ${data.incident && html`<p class="note" data-tone="crit">An incident is open: <a href=${`#/incidents/${encodeURIComponent(data.incident)}`}>see what happened</a>.</p>`}
        <${Curves} data=${data} />
        <div class="cols-2">
          <${Facts} data=${data} />
          <${Parts} data=${data} path=${path} />
        </div>
        <${Months} by=${by} value=${value} />
      `}
    <//>
  `;
}

function Curves({ data }) {
  const { curve, bands, hourly, scaled } = useMemo(() => perHour(data), [data]);
  const spend = useMemo(() => [{ label: "spend", values: hourly(curve.cost_nano_usd) }], [curve]);
  const calls = useMemo(
    () => [
      { label: "requests", values: hourly(curve.requests) },
      { label: "errors", values: hourly(curve.errors), color: "--crit" },
    ],
    [curve],
  );
  return html`<div class="cols-2">
    <${Card} title="Spend per hour" id="d-spend"><${Chart} title="Spend per hour" times=${curve.times} series=${spend} band=${scaled(bands.cost_nano_usd)} format=${money} /><//>
    <${Card} title="Requests per hour" id="d-requests"><${Chart} title="Requests per hour" times=${curve.times} series=${calls} band=${scaled(bands.requests)} format=${count} /><//>
  </div>`;
}

function Facts({ data }) {
  const { totals, view, peers } = data;
  if (!totals) return html`<${Card} title="Figures" id="d-facts"><${State} kind="ok" title="No calls in this window." /><//>`;
  const records = Object.entries((view && view.records) || {}).filter(([, most]) => most);
  return html`<${Card} title="Figures" id="d-facts">
    <dl class="pairs">
      <dt>Spend</dt><dd>${money(totals.cost_nano_usd)}</dd>
      <dt>Requests</dt><dd>${count(totals.requests)}, ${count(totals.refused)} refused</dd>
      <dt>Errors</dt><dd>${count(totals.errors)} (${percent(totals.error_rate)})</dd>
      <dt>Tokens</dt><dd>${count(totals.input_tokens)} in (${count(totals.cached_input_tokens)} cached), ${count(totals.output_tokens)} out (${count(totals.reasoning_tokens)} reasoning)</dd>
      <dt>Per request</dt><dd>${money(totals.cost_per_request_nano_usd)}, ${count(totals.output_tokens_per_request)} output tokens</dd>
      <dt>Among peers</dt>
      <dd>
        ${!peers.rank ? "–" : peers.count === 1 ? "the only one" : `number ${peers.rank} of ${count(peers.count)} by spend`}
        ${peers.median_cost_nano_usd && peers.count > 1 ? `, ${change(totals.cost_nano_usd / peers.median_cost_nano_usd - 1)} against the median` : ""}
      </dd>
      ${view && html`<dt>Normal at this hour</dt><dd>${view.usual_calls_half_hour === null ? "too little known yet" : `${count(Math.round(view.usual_calls_half_hour * 10) / 10)} calls in half an hour`}</dd>`}
      ${view && html`<dt>Last hour</dt><dd>${count(view.calls_3600)} ${view.calls_3600 === 1 ? "call" : "calls"}, ${money(view.cost_3600_nano_usd)}</dd>`}
      ${records.map(([name, most]) => html`<dt key=${name}>${recordName(name)}</dt><dd>${name.startsWith("cost") ? money(most) : count(most)}</dd>`)}
      ${view && !records.length && html`<dt>Record</dt><dd>not known yet</dd>`}
      ${view && Object.keys(view.untrusted).length > 0 && html`<dt>Cried wolf</dt><dd>${Object.keys(view.untrusted).join(", ")}: informs only for a week</dd>`}
      ${view && view.off.length > 0 && html`<dt>Detectors off</dt><dd>${view.off.join(", ")}</dd>`}
    </dl>
  <//>`;
}

const RECORDS = { calls: "Most calls", cost: "Most spend", steady: "Most calls, steadily," };

function recordName(name) {
  const [, kind, seconds] = /^([a-z]+)_(\d+)$/.exec(name) || [];
  return RECORDS[kind] ? `${RECORDS[kind]} in ${duration(Number(seconds))}` : name.replaceAll("_", " ");
}

function Parts({ data, path }) {
  if (!data.parts.length) return html`<${Card} title="Made of" id="d-parts"><${State} kind="ok" title="Nothing to split here." /><//>`;
  const other = data.parts[0].by;
  return html`<${Card} title=${`By ${other}`} id="d-parts" flush aside=${html`<${Exports} path=${path} table="parts" />`}>
    <${Table}
      caption=${`${data.value} by ${other}`}
      rows=${data.parts}
      rowKey=${(row) => row.value}
      columns=${[
        { id: "value", title: other, cell: (row) => html`<a class="clip" href=${`#/by/${row.by}/${encodeURIComponent(row.value)}`}>${row.value}</a>` },
        { id: "cost", title: "Spend", num: true, cell: (row) => money(row.cost_nano_usd) },
        { id: "requests", title: "Requests", num: true, cell: (row) => count(row.requests) },
        { id: "errors", title: "Errors", num: true, cell: (row) => count(row.errors) },
      ]}
    />
  <//>`;
}

// This month's running sum over the last one's, and each month's figures.
function Months({ by, value }) {
  const path = `/api/v1/series/months?${query({ by, value })}`;
  const found = useData(path, { every: 300 });
  const columns = [
    { id: "month", title: "Month", cell: (row) => html`<span class="nowrap">${row.month}</span>` },
    { id: "days", title: "Days with calls", num: true, cell: (row) => row.days },
    { id: "cost", title: "Spend", num: true, cell: (row) => money(row.cost_nano_usd) },
    { id: "requests", title: "Requests", num: true, cell: (row) => count(row.requests) },
    { id: "errors", title: "Errors", num: true, cell: (row) => count(row.errors) },
    { id: "output", title: "Output tokens", num: true, cell: (row) => count(row.output_tokens) },
  ];
  return html`<${Card} title="Month against month" id="d-months" aside=${html`<${Exports} path=${path} />`}>
    <${Loaded} from=${found} what="the months">
      ${(data) => html`
        <p>${sentence(data)}</p>
        <div class="cols-2">
          <${Chart} title="Spend since the month began" times=${data.curve.times} format=${money} series=${[
            { label: "this month", values: data.curve.this_month },
            { label: "the month before", values: data.curve.month_before, color: "--series-3" },
          ]} />
          <${Table} caption="Months" rows=${data.rows} rowKey=${(row) => row.month} columns=${columns} empty=${html`<${State} kind="learning" title="No month is known yet." />`} />
        </div>
      `}
    <//>
  <//>`;
}

function sentence({ days_compared: days, this_month: now, same_days_before: before, change: changes }) {
  if (!days) return "The month has just begun; from its second day on it is compared with the last one.";
  const told = `${money(now.cost_nano_usd)} and ${count(now.requests)} requests in the first ${days} days of this month`;
  if (!before.requests) return `${told}; nothing in the same days of the month before.`;
  return `${told}, against ${money(before.cost_nano_usd)} and ${count(before.requests)} in the same days of the month before (${change(changes.cost_nano_usd)} spend, ${change(changes.requests)} requests).`;
}
