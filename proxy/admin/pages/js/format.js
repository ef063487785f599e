// Turns numbers into words for people. Owns: units and rounding. Must never: fetch.

const NANO = 1e-9;

export function money(nanoUsd) {
  if (nanoUsd === null || nanoUsd === undefined) return "–";
  const usd = nanoUsd * NANO;
  const size = Math.abs(usd);
  if (size === 0) return "$0";
  if (size < 1) {
    const decimals = Math.min(9, 2 - Math.floor(Math.log10(size)));
    return `$${usd.toFixed(decimals).replace(/(\.\d\d\d*?)0+$/, "$1")}`;
  }
  if (size < 1000) return `$${usd.toFixed(2)}`;
  return `$${Math.round(usd).toLocaleString("en-US")}`;
}

export function count(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(2)} G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (size >= 1e5) return `${(value / 1e3).toFixed(0)} k`;
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return size >= 100 ? Math.round(value).toLocaleString("en-US") : value.toFixed(1);
}

export function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${(value * 100).toFixed(digits)} %`;
}

export function change(value) {
  if (value === null || value === undefined) return "–";
  if (value > 9.99) return `×${(value + 1).toFixed(1)}`;
  return `${value > 0 ? "+" : ""}${(value * 100).toFixed(0)} %`;
}

export function ratio(value) {
  return value === null || value === undefined ? "–" : `×${value.toFixed(value < 10 ? 1 : 0)}`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const FULL = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export function time(epoch, now = Date.now() / 1000) {
  if (!epoch) return "–";
  return (Math.abs(now - epoch) < 43200 ? CLOCK : DAY).format(epoch * 1000);
}

export function fullTime(epoch) {
  return epoch ? FULL.format(epoch * 1000) : "–";
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${(s / 3600).toFixed(1)} h`;
  return `${Math.round(s / 86400)} d`;
}

export function ago(epoch, now = Date.now() / 1000) {
  if (!epoch) return "–";
  const seconds = now - epoch;
  return seconds < 3 ? "now" : `${duration(seconds)} ago`;
}

const SIGNALS = {
  volume_surge: "Volume surge",
  spend_spike: "Spend spike",
  error_rate: "Error rate",
  retry_storm: "Retry storm",
  agent_loop: "Agent loop",
  new_model: "New model",
  new_agent: "New agent",
  new_key_model: "New key and model",
  new_client: "New client network",
  cost_per_request: "Cost per request",
  output_tokens: "Output tokens",
  finish_reason_mix: "Finish reasons",
  drift: "Drift",
  peer_outlier: "Peer outlier",
  budget_burn: "Budget burn",
  hard_limit: "Hard limit",
};

export function signal(word) {
  return SIGNALS[word] || String(word || "").replaceAll("_", " ");
}

export const DIMENSIONS = {
  key: "Keys",
  agent: "Agents",
  model: "Models",
  project: "Projects",
  provider: "Providers",
};

export function scope(series) {
  if (!series || series.dimension === "total") return "all traffic";
  return `${series.dimension.replaceAll("_", " × ")} ${series.value}`;
}

export function tone(word) {
  return (
    {
      emergency: "emergency",
      critical: "crit",
      warning: "warn",
      info: "info",
      blocked: "crit",
      disabled: "crit",
      failed: "crit",
      throttled: "warn",
      downgraded: "warn",
      degraded: "warn",
      incident: "warn",
      learning: "info",
      ok: "ok",
      enforce: "ok",
      shadow: "info",
      observe: "info",
      open: "crit",
      escalated: "emergency",
      acknowledged: "warn",
      resolved: "ok",
    }[word] || "muted"
  );
}
