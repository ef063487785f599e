// How to point each SDK and coding agent here, and whether the first call came.
import { html, useState } from "../../vendor/preact-htm.module.js";
import { ago } from "../format.js";
import { Card, Loaded, toast, useData } from "../ui.js";
import { steps } from "../snippets.js";

export function FirstSteps() {
  const info = useData("/api/v1/info");
  const first = useData("/api/v1/first-call", { every: 2, events: ["tick", "call"] });
  const [chosen, setChosen] = useState(0);
  const [agent, setAgent] = useState("my-agent");
  return html`
    <div class="page-head"><h1 tabindex="-1">First steps</h1></div>
    ${first.data &&
    html`<p class="wait" role="status" data-done=${first.data.seen ? "true" : "false"}>
      ${first.data.seen
        ? html`<span>Calls arrive. The latest: ${first.data.model || "a call"} at ${first.data.provider || "its provider"}${first.data.agent ? ` by ${first.data.agent}` : ""}, ${ago(first.data.at)}. <a href="#/now">See it live</a></span>`
        : "Waiting for your first call…"}
    </p>`}
    <${Loaded} from=${info} what="addresses">
      ${(data) => {
        const all = steps(data.data_url, agent.trim());
        const step = all[chosen];
        return html`<${Card} title="Point your app here" id="f-point">
          <div class="stack">
            <label class="field"><span>Name of your agent (a path segment names it with no change to the code; empty leaves it out)</span>
              <input class="input" value=${agent} onInput=${(e) => setAgent(e.target.value)} pattern="[A-Za-z0-9._\\-]*" />
            </label>
            <div class="row" role="group" aria-label="SDK or coding agent">
              ${all.map((s, i) => html`<button key=${s.name} type="button" class="button" aria-pressed=${i === chosen ? "true" : "false"} data-kind=${i === chosen ? "primary" : ""} onClick=${() => setChosen(i)}>${s.name}</button>`)}
            </div>
            <pre class="code" tabindex="0" aria-label=${`Lines for ${step.name}`}>${step.lines}</pre>
            <div class="row">
              <button class="button" type="button" onClick=${() => copy(step.lines)}>Copy</button>
              <span class="muted">${step.note}</span>
            </div>
          </div>
        <//>
        <${Card} title="What happens then" id="f-then">
          <p>Calls go to the provider byte for byte, with your own key. Each is counted by key, agent, model and project, and judged on the spot. A loop is slowed and then stopped by itself; statistical rules watch for ${data.learning_days || 14} days before they act. The mode is <strong>${data.mode}</strong>.</p>
        <//>`;
      }}
    <//>
  `;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    toast("The browser does not allow copying here; mark the lines and copy them.");
  }
}
