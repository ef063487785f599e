// The policy file: what is in force, and a check of a change before it is saved.
import { html, useEffect, useState } from "../../vendor/preact-htm.module.js";
import { post } from "../api.js";
import { ago } from "../format.js";
import { mayAct } from "../actions.js";
import { Trial } from "../trial.js";
import { Card, Loaded, State, Table, useData } from "../ui.js";

export function Policy({ session }) {
  const policy = useData("/api/v1/policy", { events: ["config"] });
  return html`
    <div class="page-head">
      <h1 tabindex="-1">Policy</h1>
      ${policy.data && html`<span class="muted" title=${policy.data.path || ""}>${policy.data.path ? `${policy.data.path.split("/").pop()}, loaded ${ago(policy.data.loaded_at)}` : "no file: defaults are in force"}</span>`}
    </div>
    <${Loaded} from=${policy} what="the policy file">${(data) => html`<${Editor} policy=${data} session=${session} />`}<//>
  `;
}

function Editor({ policy, session }) {
  const [text, setText] = useState(policy.text || "");
  const [found, setFound] = useState(null);
  const [busy, setBusy] = useState(false);
  const [tried, setTried] = useState(null);
  useEffect(() => setText(policy.text || ""), [policy.text]);
  const check = async () => {
    setBusy(true);
    try {
      setFound(await post("/api/v1/policy/check", { text }));
    } catch (error) {
      setFound({ error: error.message });
    }
    setBusy(false);
  };
  return html`<${Card} title="Try a change" id="p-text">
    <div class="stack">
      <label class="field"><span>Edit freely: nothing here is saved. The file itself is reloaded within a second of a change on disk; a bad file leaves the old one in force.</span>
        <textarea class="input mono" rows="22" spellcheck="false" value=${text} onInput=${(e) => setText(e.target.value)}></textarea>
      </label>
      <div class="row">
        <button class="button" data-kind="primary" type="button" disabled=${busy} onClick=${check}>Check</button>
        ${mayAct(session) && html`<button class="button" type="button" onClick=${() => setTried({ text, number: (tried ? tried.number : 0) + 1 })}>What would it have done?</button>`}
      </div>
      <div aria-live="polite"><${Result} found=${found} /></div>
    </div>
  <//>
  ${tried && html`<${Trial} key=${tried.number} text=${tried.text} />`}`;
}

function Result({ found }) {
  if (!found) return null;
  if (found.error) return html`<p class="note" data-tone="crit">${found.error}</p>`;
  if (!found.faults.length) return html`<${State} kind="ok" title="No fault.">It would load as it is.<//>`;
  return html`<${Table}
    caption="Faults"
    rows=${found.faults}
    rowKey=${(f) => `${f.line}:${f.column}:${f.message}`}
    columns=${[
      { id: "at", title: "Line", num: true, cell: (f) => `${f.line}:${f.column}` },
      { id: "path", title: "Where", cell: (f) => html`<span class="mono">${f.path}</span>` },
      { id: "what", title: "What", cell: (f) => f.message },
    ]}
  />`;
}
