// Who did what, when and why.
import { html } from "../../vendor/preact-htm.module.js";
import { fullTime } from "../format.js";
import { Card, Exports, Loaded, State, Table, useData } from "../ui.js";

export function Audit() {
  const trail = useData("/api/v1/audit?limit=200", { every: 30, events: ["action", "config"] });
  const columns = [
    { id: "at", title: "When", cell: (e) => html`<span class="mono">${fullTime(e.at)}</span>` },
    { id: "actor", title: "Who", cell: (e) => e.actor || "policy" },
    { id: "verb", title: "Did", cell: (e) => String(e.verb).replaceAll("_", " ") },
    { id: "target", title: "To", cell: (e) => html`<span class="clip" title=${e.target}>${e.target}</span>` },
    { id: "reason", title: "Why", cell: (e) => html`<span class="clip" title=${e.reason}>${e.reason || "–"}</span>` },
    { id: "change", title: "Before → after", cell: (e) => html`<span class="clip mono" title=${`${text(e.before)} → ${text(e.after)}`}>${text(e.before)} → ${text(e.after)}</span>` },
  ];
  return html`
    <div class="page-head"><h1 tabindex="-1">Audit trail</h1></div>
    <${Card} title="Entries, newest first" id="a-list" flush aside=${html`<${Exports} path="/api/v1/audit?limit=1000" />`}>
      <${Loaded} from=${trail} what="the audit trail">
        ${(data) => html`<${Table} caption="Audit trail" rows=${data.entries} rowKey=${(e) => e.id} columns=${columns}
          empty=${html`<${State} kind="ok" title="Nobody changed anything yet.">What people and policies do is written here, with before and after.<//>`} />`}
      <//>
    <//>
  `;
}

function text(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "string") return value;
  if (value.kind) return `${value.kind}${value.until ? ` until ${fullTime(value.until)}` : ""}`;
  return JSON.stringify(value);
}
