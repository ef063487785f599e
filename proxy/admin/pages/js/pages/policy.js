// The policies in force, and a check and a trial of a change before it is saved.
import { html, useEffect, useState } from "../../vendor/preact-htm.module.js";
import { post } from "../api.js";
import { ago, duration, signal } from "../format.js";
import { mayAct } from "../actions.js";
import { Trial } from "../trial.js";
import { Badge, Card, Exports, Loaded, State, Table, useData } from "../ui.js";

export function Policy({ session }) {
  const policy = useData("/api/v1/policy", { events: ["config"] });
  return html`
    <div class="page-head">
      <h1 tabindex="-1">Policy</h1>
      ${policy.data && html`<span class="muted" title=${policy.data.path || ""}>${policy.data.path ? `${policy.data.path.split("/").pop()}, loaded ${ago(policy.data.loaded_at)}` : "no file: defaults are in force"}</span>`}
    </div>
    <${Loaded} from=${policy} what="the policy file">${(data) => html`<${InForce} found=${data.in_force} /><${Editor} policy=${data} session=${session} />`}<//>
  `;
}

const MODES = ["observe", "shadow", "enforce"];

// The ladders: what an incident meets, step by step.
function InForce({ found }) {
  const { policies, protect } = found;
  // The master switch holds every rule to its own mode at most.
  const mode = (rule) => MODES[Math.min(MODES.indexOf(found.mode), MODES.indexOf(rule.mode || policies.mode))];
  return html`<${Card} title="In force" id="p-force" flush aside=${html`<${Exports} path="/api/v1/policy" />`}>
    <${Table} caption="Policies, the first that fits acts" rows=${policies.rules} rowKey=${(rule) => rule.name} columns=${[
      { id: "name", title: "Policy", cell: (rule) => rule.name },
      { id: "when", title: "Meets", cell: (rule) => meets(rule.match) },
      { id: "then", title: "Then", cell: (rule) => html`<ol class="steps">${rule.ladder.map((step, n) => html`<li key=${n}>${stepWords(step, rule.ladder[n - 1])}</li>`)}</ol>` },
      { id: "mode", title: "Mode", cell: (rule) => html`<${Badge} word=${mode(rule)} />` },
    ]} empty=${html`<${State} kind="ok" title="No policy acts by itself.">Limits, budgets and people still do.<//>`} />
    ${protect.length > 0 && html`<p class="body">Never touched by a policy: ${protect.map(protectedWords).join("; ")}.</p>`}
  <//>`;
}

const list = (words) => words.join(", ");

function protectedWords({ match, reason }) {
  const whom = Object.entries(match).map(([dimension, values]) => `${dimension} ${list(values)}`);
  return `${list(whom)}${reason ? ` (${reason})` : ""}`;
}

function scopes(match) {
  const tags = Object.entries(match.tags || {}).map(([name, value]) => `${name}=${value}`);
  return list([...(match.dimensions || []), ...(match.values || []), ...tags]) || "everything";
}

function meets(match) {
  const what = match.signals.length ? list(match.signals.map(signal)) : "any signal";
  const where = scopes(match);
  const surely = match.blockable === null ? "" : match.blockable ? ", evidence enough to block" : ", evidence too weak to block";
  return `${what}, ${match.tier}${match.tier === "emergency" ? "" : " or worse"}${where === "everything" ? "" : `, on ${where}`}${surely}`;
}

function stepWords(step, before) {
  const after = before ? `after ${duration(before.escalate_after_seconds)} more: ` : "";
  const rate = step.rate_per_second ? ` to ${step.rate_per_second} a second` : step.share_of_normal ? ` to ${step.share_of_normal} × its normal` : "";
  const lasts = step.action === "disable_key" ? " until a person enables it" : ["notify", "webhook"].includes(step.action) ? "" : ` for ${duration(step.for_seconds)}`;
  return `${after}${step.action.replaceAll("_", " ")}${rate}${lasts}${step.cut ? ", running streams too" : ""}`;
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
        <textarea class="input mono" rows="16" spellcheck="false" value=${text} onInput=${(e) => setText(e.target.value)}></textarea>
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
