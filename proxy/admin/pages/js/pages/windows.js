// Silences and maintenance windows: who is not to be told, and when.
import { html, useState } from "../../vendor/preact-htm.module.js";
import { call, post } from "../api.js";
import { ago, duration, fullTime } from "../format.js";
import { Ask, Badge, Card, Exports, Loaded, State, Table, toast, useData } from "../ui.js";
import { mayAct } from "../actions.js";

const SPANS = [
  { value: "3600", label: "1 hour" },
  { value: "14400", label: "4 hours" },
  { value: "86400", label: "1 day" },
  { value: "604800", label: "1 week" },
];

export function Windows({ session }) {
  return html`
    <div class="page-head"><h1 tabindex="-1">Silences and maintenance</h1></div>
    <${Kind} session=${session} path="/api/v1/silences" field="silences" title="Silences" one="silence"
      about="Matching alerts are not sent; incidents and actions go on." />
    <${Kind} session=${session} path="/api/v1/maintenance" field="windows" title="Maintenance windows" one="maintenance window"
      about="Known work: alerts wait and what is learnt meanwhile does not count as normal." />
  `;
}

function Kind({ session, path, field, title, one, about }) {
  const list = useData(path, { every: 30, events: ["config"] });
  const [asking, setAsking] = useState(false);
  const now = Date.now() / 1000;
  const create = async (values) => {
    await post(path, {
      starts_at: now,
      ends_at: now + Number(values.seconds),
      matchers: [`${values.label}="${values.value.replace(/["\\]/g, "\\$&")}"`],
      comment: values.comment,
    });
    toast(`The ${one} is in force.`);
    list.reload();
  };
  const end = async (id) => {
    await call("DELETE", `${path}/${encodeURIComponent(id)}`);
    toast("Ended.");
    list.reload();
  };
  const columns = [
    { id: "who", title: "Matches", cell: (s) => html`<span class="mono">${matchers(s)}</span>` },
    { id: "why", title: "Why", cell: (s) => s.comment || "–" },
    { id: "by", title: "By", cell: (s) => s.created_by || s.author || "–" },
    { id: "state", title: "State", cell: (s) => html`<${Badge} word=${s.ends_at < now ? "ended" : s.starts_at > now ? "waiting" : "active"} />` },
    { id: "ends", title: "Ends", num: true, cell: (s) => html`<span title=${fullTime(s.ends_at)}>${s.ends_at > now ? `in ${duration(s.ends_at - now)}` : ago(s.ends_at)}</span>` },
    ...(mayAct(session) ? [{ id: "do", title: html`<span class="sr">End</span>`, num: true, cell: (s) => s.ends_at > now && html`<button class="button" type="button" onClick=${() => end(s.id)}>End now</button>` }] : []),
  ];
  return html`<${Card} title=${title} id=${`w-${field}`} flush aside=${html`<${Exports} path=${path} />${mayAct(session) && html`<button class="button" type="button" onClick=${() => setAsking(true)}>New ${one}</button>`}`}>
    <${Loaded} from=${list} what=${title.toLowerCase()}>
      ${(found) => html`<${Table} caption=${title} rows=${found[field]} rowKey=${(s) => s.id} columns=${columns}
        empty=${html`<${State} kind="ok" title=${`No ${one}.`}>${about}<//>`} />`}
    <//>
    ${asking && html`<${Ask} title=${`New ${one}`} text=${about} verb="Start" fields=${[
      { name: "label", label: "Which label", options: ["agent", "key", "model", "project", "signal", "tier", "dimension"] },
      { name: "value", label: "Has the value", required: true },
      { name: "seconds", label: "For how long", options: SPANS, value: "3600" },
      { name: "comment", label: "Why", required: true },
    ]} onDone=${create} onClose=${() => setAsking(false)} />`}
  <//>`;
}

function matchers(silence) {
  return (silence.matchers || []).join(", ") || "everything";
}
