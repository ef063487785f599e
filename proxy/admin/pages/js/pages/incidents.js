// All incidents: open ones first, history behind a filter.
import { html, useState } from "../../vendor/preact-htm.module.js";
import { query } from "../api.js";
import { ago, duration, fullTime, money, ratio, scope, signal } from "../format.js";
import { Badge, Card, Exports, Loaded, Segments, State, Table, useData } from "../ui.js";

export function Incidents() {
  const [state, setState] = useState("active");
  const [wanted, setWanted] = useState("");
  const path = `/api/v1/incidents?${query({ state, limit: 200 })}`;
  const list = useData(path, { every: 15, events: ["incident"] });
  const columns = [
    { id: "tier", title: "Tier", cell: (i) => html`<${Badge} word=${i.worst || i.tier} />` },
    {
      id: "what",
      title: "What",
      cell: (i) => html`<a href=${`#/incidents/${encodeURIComponent(i.id)}`}>${signal(i.signal)}</a>`,
    },
    { id: "scope", title: "Whom", cell: (i) => html`<span class="clip" title=${scope(i.series)}>${scope(i.series)}</span>` },
    { id: "story", title: "Story", cell: (i) => html`<span class="clip" title=${i.story}>${i.story || "–"}</span>` },
    { id: "ratio", title: "Against normal", num: true, cell: (i) => ratio(i.ratio) },
    { id: "cost", title: "Cost so far", num: true, cell: (i) => money(i.cost_nano_usd) },
    { id: "state", title: "State", cell: (i) => html`<${Badge} word=${i.state} />` },
    { id: "opened", title: "Opened", num: true, cell: (i) => html`<span title=${fullTime(i.opened_at)}>${ago(i.opened_at)}</span>` },
    { id: "lasted", title: "Lasted", num: true, cell: (i) => duration((i.closed_at || Date.now() / 1000) - i.opened_at) },
  ];
  const matches = (i) => `${signal(i.signal)} ${scope(i.series)} ${i.story}`.toLowerCase().includes(wanted.toLowerCase());
  return html`
    <div class="page-head">
      <h1 tabindex="-1">Incidents</h1>
      <input class="input" type="search" placeholder="Search incidents" aria-label="Search incidents" value=${wanted} onInput=${(e) => setWanted(e.target.value)} />
      <span class="push row"><${Exports} path=${path} /><${Segments} label="Which" options=${["active", "closed", "all"]} value=${state} onChange=${setState} /></span>
    </div>
    <${Card} flush>
      <${Loaded} from=${list} what="incidents">
        ${(data) => html`<${Table}
          caption="Incidents"
          rows=${data.incidents.filter(matches)}
          rowKey=${(i) => i.id}
          columns=${columns}
          empty=${html`<${State} kind="ok" title=${wanted ? "Nothing matches." : state === "active" ? "Nothing is wrong." : "No incident yet."}>
            ${!wanted && state === "active" && "No incident is open. Past ones are under “closed”."}
          <//>`}
        />`}
      <//>
    <//>
  `;
}
