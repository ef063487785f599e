// How the process and its parts are.
import { html } from "../../vendor/preact-htm.module.js";
import { Badge, Card, Exports, Loaded, State, Table, useData } from "../ui.js";

export function Health() {
  const health = useData("/api/v1/health", { every: 5 });
  return html`
    <div class="page-head"><h1 tabindex="-1">Health</h1>${health.data && html`<${Badge} word=${health.data.status} />`}</div>
    <${Card} title="Components" id="h-components" flush aside=${html`<${Exports} path="/api/v1/health" />`}>
      <${Loaded} from=${health} what="components">
        ${(data) => html`<${Table}
          caption="Components"
          rows=${data.components}
          rowKey=${(row) => row.name}
          columns=${[
            { id: "name", title: "Component", cell: (row) => row.name },
            { id: "state", title: "State", cell: (row) => html`<${Badge} word=${row.state} />` },
            { id: "detail", title: "What is known", cell: (row) => row.detail || "–" },
            { id: "mend", title: "How to mend it", cell: (row) => row.mend || "–" },
          ]}
          empty=${html`<${State} kind="ok" title="No component reports.">The process answers.<//>`}
        />`}
      <//>
    <//>
    <${Card} title="More" id="h-more">
      <p>Every figure is on <a href="/metrics">/metrics</a> for Prometheus; probes are <a href="/health/liveness">/health/liveness</a> and <a href="/health/readiness">/health/readiness</a>. <code>tokenweir doctor</code> checks upstreams, store, clock, ports and limits from outside.</p>
    <//>
  `;
}
