// What a changed policy would have done over the last days. Owns: starting the replay, its result.
import { html, useEffect, useState } from "../vendor/preact-htm.module.js";
import { get, post } from "./api.js";
import { count, fullTime, money } from "./format.js";
import { Badge, Bar, Card, Exports, Failure, State, Table } from "./ui.js";

const DAYS = 7;
const AGAIN_MS = 700;

export function Trial({ text }) {
  const [trial, setTrial] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    let over = false;
    const follow = async (found) => {
      while (!over) {
        setTrial(found);
        if (found.state !== "running") return;
        await new Promise((then) => setTimeout(then, AGAIN_MS));
        found = await get(`/api/v1/policy/trials/${found.id}`);
      }
    };
    post("/api/v1/policy/trials", { text, days: DAYS }).then(follow).catch((problem) => over || setError(problem));
    return () => (over = true);
  }, []);
  return html`<${Card} title="The last ${DAYS} days under this text" id="p-trial">
    <div aria-live="polite"><${Progress} trial=${trial} error=${error} /></div>
    ${trial && trial.result && html`<${Result} result=${trial.result} path=${`/api/v1/policy/trials/${trial.id}`} />`}
  <//>`;
}

function Progress({ trial, error }) {
  if (error) return html`<${Failure} error=${error} />`;
  if (!trial) return html`<p class="muted">Starting…</p>`;
  if (trial.state === "failed") return html`<p class="note" data-tone="crit">${trial.error}</p>`;
  if (trial.result) return null;
  return html`<p>Replaying ${count(trial.read)} of ${trial.of ? count(trial.of) : "the"} calls, through the same gate, detection and policies as live traffic…</p>
    <${Bar} share=${trial.of ? Math.min(0.79, trial.read / trial.of) : 0} label="Replayed" />`;
}

const VERBS = { block: "blocked", throttle: "throttled", downgrade: "downgraded", would_block: "would have blocked", would_throttle: "would have throttled", would_downgrade: "would have downgraded" };

function Result({ result, path }) {
  const { now, then } = result;
  if (!then.all.calls) return html`<${State} kind="ok" title="No calls in these days.">There is nothing to replay yet.<//>`;
  const tally = ({ calls, cost_nano_usd: cost }) => (calls ? `${count(calls)}, ${money(cost)}` : "none");
  const words = (kinds) => Object.entries(kinds).map(([kind, n]) => `${count(n)} ${kind.replaceAll("_", " ")}`).join(", ") || "none";
  const rows = [
    ["Calls", tally(now.all), tally(then.all)],
    ["Refused calls", tally(now.refused), tally(then.refused)],
    ["Downgraded calls", tally(now.downgraded), tally(then.downgraded)],
    ["Alarms", words(now.alarms), words(then.alarms)],
    ["Actions taken", words(now.actions), words(then.actions)],
  ];
  return html`<div class="stack">
    <p>${sentence(now, then)} <span class="muted">Calls since ${fullTime(result.since)}${result.left_out ? `; the oldest ${count(result.left_out)} were left out` : ""}.</span></p>
    <${Table} caption="In force against changed" rows=${rows} rowKey=${(row) => row[0]} columns=${[
      { id: "what", title: "", cell: (row) => row[0] },
      { id: "now", title: "File in force", cell: (row) => row[1] },
      { id: "then", title: "This text", cell: (row) => row[2] },
    ]} />
    ${then.rules.length > 0 && html`<${Exports} path=${path} table="rules" />`}
    <${Table} caption="Rules of this text that touched calls" rows=${then.rules} rowKey=${(r) => `${r.what}${r.rule}${r.scope}`} columns=${[
      { id: "what", title: "It", cell: (r) => html`<${Badge} word=${r.what} text=${VERBS[r.what] || r.what} />` },
      { id: "scope", title: "Whom", cell: (r) => html`<span class="clip" title=${r.scope}>${r.scope}</span>` },
      { id: "rule", title: "Rule", cell: (r) => r.rule },
      { id: "calls", title: "Calls", num: true, cell: (r) => count(r.calls) },
      { id: "cost", title: "Their cost", num: true, cell: (r) => money(r.cost_nano_usd) },
    ]} empty=${html`<${State} kind="ok" title="It would have touched no call." />`} />
    ${then.samples.length > 0 && html`<details class="data"><summary>Show the first ${then.samples.length} refused calls</summary>
      <${Exports} path=${path} table="refused" />
      <${Table} caption="Refused calls" rows=${then.samples} rowKey=${(c) => `${c.ts}${c.key}${c.agent}`} columns=${[
        { id: "at", title: "When", cell: (c) => fullTime(c.ts) },
        { id: "agent", title: "Agent", cell: (c) => c.agent || "–" },
        { id: "key", title: "Key", cell: (c) => html`<span class="mono">${c.key || "–"}</span>` },
        { id: "model", title: "Model", cell: (c) => c.model || "–" },
        { id: "cost", title: "Cost", num: true, cell: (c) => money(c.cost_nano_usd) },
        { id: "rule", title: "Rule", cell: (c) => c.rule },
      ]} />
    </details>`}
  </div>`;
}

function sentence(now, then) {
  const more = then.refused.calls - now.refused.calls;
  if (!more) return "It would have refused as many calls as the file in force.";
  const cost = Math.abs(then.refused.cost_nano_usd - now.refused.cost_nano_usd);
  return `It would have refused ${count(Math.abs(more))} calls ${more > 0 ? "more" : "fewer"} than the file in force, ${money(cost)}.`;
}
