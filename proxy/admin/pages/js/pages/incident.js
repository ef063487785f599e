// One incident: its story, who drives it, the curve with onset, what was done, what to do.
import { html, useMemo, useState } from "../../vendor/preact-htm.module.js";
import { post, query } from "../api.js";
import { Chart, perHour } from "../chart.js";
import { ago, count, duration, fullTime, money, percent, ratio, scope, signal, time } from "../format.js";
import { Ask, Badge, Card, Exports, Loaded, State, Table, toast, useData } from "../ui.js";
import { ActionsTable, Hand, mayAct } from "../actions.js";

export function Incident({ id, session }) {
  const found = useData(`/api/v1/incidents/${encodeURIComponent(id)}`, { every: 10, events: ["incident", "action"] });
  return html`<${Loaded} from=${found} what="the incident">
    ${(data) => html`<${Story} incident=${data} session=${session} reload=${found.reload} />`}
  <//>`;
}

function Story({ incident, session, reload }) {
  return html`
    <div class="page-head">
      <h1 tabindex="-1"><a href="#/incidents">Incidents</a> / ${signal(incident.signal)}</h1>
      <${Badge} word=${incident.worst || incident.tier} /><${Badge} word=${incident.state} />
      <span class="push row"><${Steps} incident=${incident} session=${session} reload=${reload} /></span>
    </div>
    <div class="note" data-tone=${incident.closed_at ? "ok" : "crit"}>
      <strong>${scope(incident.series)}</strong>: ${incident.story || "Too little is known yet for a story."}
      ${incident.next_step && html`<p class="muted">What to do: ${incident.next_step}</p>`}
    </div>
    <div class="cols-3">
      <div class="stack">
        <${Curve} incident=${incident} />
        <${Drivers} explanation=${incident.explanation} path=${`/api/v1/incidents/${encodeURIComponent(incident.id)}`} />
      </div>
      <div class="stack">
        <${Facts} incident=${incident} />
        <${InForce} incident=${incident} session=${session} reload=${reload} />
        <${Timeline} incident=${incident} />
      </div>
    </div>
  `;
}

const CLOSING = {
  resolve: { title: "Resolve this incident", verb: "Resolve", text: "It is over. It opens again should it come back soon." },
  dismiss: { title: "Dismiss this incident", verb: "Dismiss", text: "It was no problem. The same signal only informs on this scope for a week." },
};

function Steps({ incident, session, reload }) {
  const [kind, setKind] = useState("");
  const [silencing, setSilencing] = useState(false);
  if (!mayAct(session)) return null;
  const path = `/api/v1/incidents/${encodeURIComponent(incident.id)}`;
  const acknowledge = async () => {
    try {
      await post(`${path}/acknowledge`, { note: "" });
      toast("Acknowledged. Nobody is paged again for it.");
    } catch (error) {
      toast(error.message);
    }
    reload();
  };
  const close = async (values) => {
    await post(`${path}/${kind}`, values);
    toast(kind === "resolve" ? "Resolved." : "Dismissed.");
    reload();
  };
  const silence = async ({ seconds, comment }) => {
    const now = Date.now() / 1000;
    await post("/api/v1/silences", {
      matchers: [`fingerprint="${incident.fingerprint.replace(/["\\]/g, "\\$&")}"`],
      starts_at: now,
      ends_at: now + Number(seconds),
      comment,
    });
    toast("Silenced.");
  };
  const over = Boolean(incident.closed_at);
  return html`
    ${!over && incident.state !== "acknowledged" && html`<button class="button" data-kind="primary" type="button" onClick=${acknowledge}>Acknowledge</button>`}
    ${!over && html`<button class="button" type="button" onClick=${() => setKind("resolve")}>Resolve</button>
      <button class="button" type="button" onClick=${() => setKind("dismiss")}>Dismiss</button>
      <button class="button" type="button" onClick=${() => setSilencing(true)}>Silence</button>
      <${Hand} series=${incident.series} session=${session} incident=${incident.id} onDone=${reload} />`}
    ${kind && html`<${Ask} ...${CLOSING[kind]} onDone=${close} onClose=${() => setKind("")} fields=${[
      { name: "resolution", label: "What was done" },
      { name: "root_cause", label: "Why it happened", required: kind === "dismiss" },
    ]} />`}
    ${silencing && html`<${Ask} title="Silence this incident" verb="Silence" text="Its alerts are not sent meanwhile; actions go on." onDone=${silence} onClose=${() => setSilencing(false)} fields=${[
      { name: "seconds", label: "For how long", options: [{ value: "3600", label: "1 hour" }, { value: "86400", label: "1 day" }, { value: "604800", label: "1 week" }], value: "3600" },
      { name: "comment", label: "Why" },
    ]} />`}
  `;
}

function Curve({ incident }) {
  const { dimension, value } = incident.series;
  const age = Date.now() / 1000 - incident.since;
  const span = age < 2400 ? "1h" : age < 18000 ? "6h" : age < 72000 ? "24h" : age < 500000 ? "7d" : "30d";
  const by = ["key", "agent", "model", "project", "provider", "total", "endpoint", "tag", "user", "key_model", "agent_model"].includes(dimension) ? dimension : null;
  const detail = useData(by && `/api/v1/series/detail?${query({ by, value, window: span })}`, { every: 10 });
  const calls = ["agent_loop", "volume_surge", "error_rate", "retry_storm", "hard_limit"].includes(incident.signal);
  const shown = useMemo(() => {
    if (!detail.data) return null;
    const { curve, bands, hourly, scaled } = perHour(detail.data);
    const band = calls ? bands.requests : bands.cost_nano_usd;
    return {
      times: curve.times,
      // A point stands where its bucket begins, and so does what happened within it.
      onset: Math.floor(incident.since / curve.step_seconds) * curve.step_seconds,
      series: calls
        ? [{ label: "requests", values: hourly(curve.requests) }, { label: "errors", values: hourly(curve.errors), color: "--crit" }, { label: "refused", values: hourly(curve.refused), color: "--series-3" }]
        : [{ label: "spend", values: hourly(curve.cost_nano_usd) }],
      band: scaled(band),
    };
  }, [detail.data, calls, incident.since]);
  if (!by) return null;
  const title = `${calls ? "Requests" : "Spend"} per hour; the dashed line is when it began`;
  return html`<${Card} title=${title} id="i-curve">
    <${Loaded} from=${detail} what="the curve">${() => html`<${Chart} title=${title} ...${shown} format=${calls ? count : money} height=${210} />`}<//>
  <//>`;
}

function observed({ signal: word }, value) {
  if (["budget_burn", "cost_per_request"].includes(word)) return money(value);
  if (["spend_spike", "drift", "peer_outlier"].includes(word)) return money(value * 1e9);
  return word === "error_rate" ? percent(value) : count(Math.round(value * 1000) / 1000);
}

function Facts({ incident }) {
  const x = incident.explanation;
  const end = incident.closed_at || Date.now() / 1000;
  return html`<${Card} title="Figures" id="i-facts">
    <dl class="pairs">
      <dt>Began</dt><dd title=${fullTime(incident.since)}>${time(incident.since)}, noticed ${duration(Math.max(0, incident.opened_at - incident.since))} later</dd>
      <dt>Lasts</dt><dd>${duration(end - incident.since)}</dd>
      <dt>Observed</dt><dd>${observed(incident, incident.observed)}${incident.baseline === null ? "" : ` against ${observed(incident, incident.baseline)}`} ${incident.ratio ? `(${ratio(incident.ratio)})` : ""}</dd>
      <dt>Cost so far</dt><dd>${money(incident.cost_nano_usd)}</dd>
      <dt>If it goes on</dt><dd>${money(incident.cost_per_hour_nano_usd)} an hour</dd>
      <dt>Signals</dt><dd>${incident.signals.map(signal).join(", ") || signal(incident.signal)}</dd>
      <dt>Evidence</dt><dd>${incident.evidence.join(", ") || "–"}</dd>
      ${x && typeof x.error_share === "number" && html`<dt>Errors</dt><dd>${percent(x.error_share)}</dd>`}
      ${incident.acknowledged_by && html`<dt>Acknowledged</dt><dd>by ${incident.acknowledged_by}, ${ago(incident.acknowledged_at)}</dd>`}
      ${incident.closed_at && html`<dt>Closed</dt><dd>by ${incident.closed_by || "itself"}, ${ago(incident.closed_at)}</dd>`}
      ${incident.resolution && html`<dt>What was done</dt><dd>${incident.resolution}</dd>`}
      ${incident.root_cause && html`<dt>Why</dt><dd>${incident.root_cause}</dd>`}
    </dl>
  <//>`;
}

const PARTS = { volume: "more calls", mix: "another mix of models", tokens: "more tokens per call", price: "dearer tokens" };

function Drivers({ explanation, path }) {
  if (!explanation || !explanation.contributors) {
    return html`<${Card} title="Who drives it" id="i-who"><${State} kind="learning" title="Not explained yet.">The contributors are worked out as calls come in.<//><//>`;
  }
  const amount = explanation.metric === "cost" ? money : count;
  const rows = Object.values(explanation.contributors).flat().filter((c) => c.share !== null && c.share > 0.02);
  rows.sort((a, b) => b.fit - a.fit || b.share - a.share);
  const split = explanation.split_nano_usd;
  return html`<${Card} title="Who drives it: shares of the change" id="i-who" flush aside=${html`<${Exports} path=${path} table="contributors" />`}>
    <${Table}
      caption="Contributors to the change"
      rows=${rows.slice(0, 10)}
      rowKey=${(c) => `${c.dimension}/${c.value}`}
      columns=${[
        { id: "what", title: "Contributor", cell: (c) => html`<span class="clip" title=${c.value}>${c.dimension.replaceAll("_", " ")} <strong>${c.value || "(none)"}</strong></span>` },
        { id: "share", title: "Share of the change", num: true, cell: (c) => percent(c.share, 0) },
        { id: "before", title: "Before", num: true, cell: (c) => amount(c.baseline) },
        { id: "now", title: "Now", num: true, cell: (c) => amount(c.current) },
        { id: "ratio", title: "Times", num: true, cell: (c) => ratio(c.ratio) },
      ]}
    />
    ${split && html`<div class="body"><h3>What the change in cost is made of</h3>
      <dl class="pairs">${Object.entries(PARTS).map(([name, words]) => html`<dt key=${name}>${words}</dt><dd class="num">${money(split[name])}</dd>`)}</dl>
    </div>`}
  <//>`;
}

function InForce({ incident, session, reload }) {
  const actions = useData("/api/v1/actions", { every: 10, events: ["action"] });
  const mine = ((actions.data && actions.data.actions) || []).filter(
    (a) => a.incident === incident.id || a.incident === incident.fingerprint || (a.series.dimension === incident.series.dimension && a.series.value === incident.series.value),
  );
  return html`<${Card} title="What is in force" id="i-force" flush>
    <${Loaded} from=${actions} what="actions">${() => html`<${ActionsTable} actions=${mine} session=${session} onDone=${() => (actions.reload(), reload())} />`}<//>
  <//>`;
}

function Timeline({ incident }) {
  return html`<${Card} title="What happened" id="i-line">
    <ol class="timeline">
      ${[...incident.timeline].reverse().map(
        (e, i) => html`<li key=${i}><time class="muted mono" title=${fullTime(e.ts)}>${time(e.ts)}</time><span>${e.text}${e.actor ? html` <span class="muted">by ${e.actor}</span>` : ""}</span></li>`,
      )}
    </ol>
  <//>`;
}
