// Actions in force and the manual hand: block, throttle, release.
import { html, useState } from "../vendor/preact-htm.module.js";
import { call, post } from "./api.js";
import { duration, fullTime, scope, signal } from "./format.js";
import { Ask, Badge, State, Table, toast } from "./ui.js";

const WORDS = { block: "blocked", throttle: "throttled", downgrade: "downgraded", disable_key: "disabled", cut_streams: "blocked" };

export const mayAct = (session) => ["operator", "admin"].includes(session.role);

export function ActionsTable({ actions, session, onDone }) {
  const [asked, setAsked] = useState(null);
  const now = Date.now() / 1000;
  const columns = [
    {
      id: "kind",
      title: "Who, and why",
      cell: (a) => html`<span class="row"><${Badge} word=${WORDS[a.kind] || a.kind} text=${a.mode === "enforce" ? WORDS[a.kind] || a.kind : `would be ${WORDS[a.kind] || a.kind}`} /><a href=${link(a.series)}>${scope(a.series)}</a></span><div class="muted small">${why(a)}</div>`,
    },
    { id: "until", title: "Ends", num: true, cell: (a) => (a.until ? html`<span title=${fullTime(a.until)}>in ${duration(Math.max(0, a.until - now))}</span>` : "when released") },
    ...(mayAct(session)
      ? [{ id: "do", title: html`<span class="sr">Release</span>`, num: true, cell: (a) => html`<button class="button" type="button" onClick=${() => setAsked(a)} aria-label=${`Release ${scope(a.series)}`}>Release</button>` }]
      : []),
  ];
  return html`
    <${Table}
      caption="Actions in force"
      rows=${actions}
      rowKey=${(a) => a.id}
      columns=${columns}
      empty=${html`<${State} kind="ok" title="Nobody is held back.">No throttle, downgrade or block is in force.<//>`}
    />
    ${asked && html`<${Ask}
      title=${`Release ${scope(asked.series)}`}
      text="Calls pass again at once, in every replica."
      verb="Release"
      fields=${[{ name: "reason", label: "Why (for the audit trail)" }]}
      onDone=${async ({ reason }) => {
        await call("DELETE", `/api/v1/actions/${encodeURIComponent(asked.id)}`, { reason });
        toast(`${scope(asked.series)} is released.`);
        onDone();
      }}
      onClose=${() => setAsked(null)}
    />`}
  `;
}

function why(action) {
  if (action.origin === "manual") return `by ${action.actor || "a person"}${action.reason ? `: ${action.reason}` : ""}`;
  return action.reason || signal(action.signal);
}

function link(series) {
  return series.dimension === "total" ? "#/now" : `#/by/${series.dimension}/${encodeURIComponent(series.value)}`;
}

const SPANS = [
  { value: "900", label: "15 minutes" },
  { value: "3600", label: "1 hour" },
  { value: "86400", label: "1 day" },
  { value: "", label: "until released" },
];
const FIELDS = {
  block: [],
  throttle: [{ name: "rate_per_second", label: "Calls per second that still pass", value: "1", required: true }],
};

// Buttons that act on one series.
export function Hand({ series, session, onDone, incident }) {
  const [kind, setKind] = useState("");
  if (!mayAct(session)) return null;
  return html`
    <button class="button" type="button" onClick=${() => setKind("throttle")}>Throttle</button>
    <button class="button" data-kind="danger" type="button" onClick=${() => setKind("block")}>Block</button>
    ${kind && html`<${Ask}
      title=${`${kind === "block" ? "Block" : "Throttle"} ${scope(series)}`}
      text=${kind === "block" ? "Its calls are refused with the provider's own error, and not retried by SDKs." : "Calls above the rate are answered with 429 and a short wait."}
      verb=${kind === "block" ? "Block" : "Throttle"}
      danger=${kind === "block"}
      fields=${[...FIELDS[kind], { name: "seconds", label: "For how long", options: SPANS, value: "900" }, { name: "reason", label: "Why (for the audit trail and the refusal)" }]}
      onDone=${async (values) => {
        await post("/api/v1/actions", {
          kind,
          dimension: series.dimension,
          value: series.value,
          seconds: values.seconds ? Number(values.seconds) : null,
          reason: values.reason,
          ...(incident ? { incident } : {}),
          ...(kind === "throttle" ? { rate_per_second: Number(values.rate_per_second) } : {}),
        });
        toast(`${scope(series)} is ${WORDS[kind]}.`);
        onDone();
      }}
      onClose=${() => setKind("")}
    />`}
  `;
}
