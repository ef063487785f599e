// Small parts that every page uses. Owns: their look and their accessibility.
// Must never: fetch, or insert markup from data (text nodes and attributes only).
import { html, useCallback, useEffect, useRef, useState } from "../vendor/preact-htm.module.js";
import { get, subscribe } from "./api.js";
import { tone } from "./format.js";

export function Badge({ word, text }) {
  return html`<span class="badge" data-tone=${tone(word)}>${text || word}</span>`;
}

export function Card({ title, aside, children, flush, id }) {
  return html`<section class="card" aria-labelledby=${id}>
    ${title && html`<header><h2 id=${id}>${title}</h2>${aside && html`<span class="push row">${aside}</span>`}</header>`}
    <div class=${flush ? "body flush" : "body"}>${children}</div>
  </section>`;
}

// The four friendly states: loading, learning, nothing (wrong), error.
export function State({ kind, title, children, action }) {
  return html`<div class="state" data-kind=${kind} role=${kind === "error" ? "alert" : "status"}>
    <strong>${title}</strong>
    ${children && html`<p>${children}</p>`}
    ${action}
  </div>`;
}

export function Loading({ what }) {
  return html`<${State} kind="loading" title=${`Loading ${what}…`} />`;
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

export function Failure({ error, retry }) {
  return html`<${State}
    kind="error"
    title=${sentence(error.message || "Something went wrong")}
    action=${retry && html`<button class="button" type="button" onClick=${retry}>Try again</button>`}
  >
    ${error.status === 403
      ? "Your role does not allow this."
      : error.status === 404
        ? "It does not exist, or your token does not cover it."
        : "Traffic is not affected by this page."}
  <//>`;
}

export function Learning({ view }) {
  if (!view || view.state !== "learning") return null;
  const day = Math.max(1, Math.ceil(view.age_days || 0));
  return html`<p class="note" data-tone="info" role="status">
    <strong>Learning, day ${Math.min(day, view.learning_days || day)} of ${view.learning_days || 14}.</strong>${" "}
    Statistical rules observe and alert nobody yet; loops and hard limits act already.
  </p>`;
}

// Loads a path, again on events and every `every` seconds while the page is visible.
export function useData(path, { every = 0, events = [] } = {}) {
  const [state, setState] = useState({ data: null, error: null, path: null });
  const current = useRef(path);
  current.current = path;
  const load = useCallback(async () => {
    if (!path) return;
    try {
      const data = await get(path);
      if (current.current === path) setState({ data, error: null, path });
    } catch (error) {
      if (current.current !== path) return;
      setState((old) => ({ data: old.path === path ? old.data : null, error, path }));
    }
  }, [path]);
  useEffect(() => {
    load();
    let waiting = 0;
    const soon = () => {
      if (!waiting) waiting = setTimeout(() => ((waiting = 0), load()), 150);
    };
    const ends = [...events, "reset"].map((kind) => subscribe(kind, soon));
    const timer = every ? setInterval(() => !document.hidden && load(), every * 1000) : 0;
    return () => {
      ends.forEach((end) => end());
      clearInterval(timer);
      clearTimeout(waiting);
    };
  }, [load, every, events.join()]);
  const fresh = state.path === path;
  return { data: fresh ? state.data : null, error: fresh ? state.error : null, reload: load };
}

// Shows loading, error, or the data.
export function Loaded({ from, what, children }) {
  if (from.data) return children(from.data);
  if (from.error) return html`<${Failure} error=${from.error} retry=${from.reload} />`;
  return html`<${Loading} what=${what} />`;
}

// Links that take a table away; `path` is the API's address of what is shown.
export function Exports({ path, table }) {
  const link = (format) => `${path}${path.includes("?") ? "&" : "?"}${table ? `table=${table}&` : ""}format=${format}`;
  return html`<span class="row exports" role="group" aria-label="Export">
    <a href=${link("csv")} download>CSV</a><a href=${link("json")} target="_blank" rel="noopener">JSON</a><a href=${link("parquet")} download>Parquet</a>
  </span>`;
}

export function Segments({ label, options, value, onChange }) {
  return html`<div class="segments" role="group" aria-label=${label}>
    ${options.map(
      (option) => html`<button type="button" key=${option} aria-pressed=${option === value} onClick=${() => onChange(option)}>${option}</button>`,
    )}
  </div>`;
}

export function Spark({ values, label }) {
  if (!values || values.length < 2) return html`<span class="muted">–</span>`;
  const most = Math.max(...values, 1e-12);
  const points = values.map((v, i) => `${((i / (values.length - 1)) * 100).toFixed(1)},${(23 - (v / most) * 21).toFixed(1)}`);
  return html`<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=${label}>
    <polygon points=${`0,24 ${points.join(" ")} 100,24`} />
    <polyline points=${points.join(" ")} />
  </svg>`;
}

export function Clip({ text }) {
  return html`<span class="clip" title=${text}>${text}</span>`;
}

// A table whose heads sort. Columns: {id, title, num, sortable, cell(row)}.
export function Table({ caption, columns, rows, sort, order, onSort, rowKey, empty }) {
  if (!rows.length) return empty || html`<${State} kind="ok" title="Nothing here." />`;
  const head = (column) => {
    const sorted = sort === column.id;
    const aria = sorted ? (order === "asc" ? "ascending" : "descending") : column.sortable ? "none" : undefined;
    const flip = () => onSort(column.id, sorted && order === "desc" ? "asc" : "desc");
    return html`<th key=${column.id} scope="col" class=${column.num ? "num" : ""} aria-sort=${aria}>
      ${column.sortable ? html`<button type="button" onClick=${flip}>${column.title}</button>` : column.title}
    </th>`;
  };
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption class="sr">${caption}</caption>
      <thead><tr>${columns.map(head)}</tr></thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr key=${rowKey(row)}>
            ${columns.map((column) => html`<td key=${column.id} class=${column.num ? "num" : ""}>${column.cell(row)}</td>`)}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

export function sorted(rows, id, order) {
  const sign = order === "asc" ? 1 : -1;
  return [...rows].sort((a, b) => {
    const [x, y] = [a[id], b[id]];
    if (x === y) return 0;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return x < y ? -sign : sign;
  });
}

export function Bar({ share, label }) {
  const width = Math.max(0, Math.min(1, share || 0));
  const paint = useRef(null);
  useEffect(() => {
    if (paint.current) paint.current.style.width = `${(width * 100).toFixed(1)}%`;
  }, [width]);
  const kind = share >= 1 ? "crit" : share >= 0.8 ? "warn" : "ok";
  return html`<div class="bar" data-tone=${kind} role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(width * 100)}>
    <span ref=${paint}></span>
  </div>`;
}

let showToast = () => {};
export function Toasts() {
  const [text, setText] = useState("");
  showToast = (message) => {
    setText(message);
    setTimeout(() => setText((old) => (old === message ? "" : old)), 5000);
  };
  return html`<div aria-live="polite">${text && html`<div class="toast">${text}</div>`}</div>`;
}
export const toast = (message) => showToast(message);

// A dialog that asks before something is done. fields: [{name, label, options?, value?}]
export function Ask({ title, text, fields = [], verb, danger, onDone, onClose }) {
  const dialog = useRef(null);
  const [values, setValues] = useState(() => Object.fromEntries(fields.map((f) => [f.name, f.value || ""])));
  const [error, setError] = useState("");
  useEffect(() => dialog.current.showModal(), []);
  const submit = async (event) => {
    event.preventDefault();
    try {
      await onDone(values);
      onClose();
    } catch (problem) {
      setError(problem.message);
    }
  };
  const put = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  return html`<dialog ref=${dialog} onClose=${onClose} aria-labelledby="ask-title">
    <form class="form" onSubmit=${submit}>
      <h2 id="ask-title">${title}</h2>
      ${text && html`<p class="muted">${text}</p>`}
      ${fields.map(
        (f) => html`<label class="field" key=${f.name}><span>${f.label}</span>
          ${f.options
            ? html`<select class="select" value=${values[f.name]} onChange=${put(f.name)}>
                ${f.options.map((o) => html`<option value=${o.value ?? o}>${o.label ?? o}</option>`)}
              </select>`
            : html`<input class="input" value=${values[f.name]} onInput=${put(f.name)} required=${f.required} />`}
        </label>`,
      )}
      ${error && html`<p class="note" data-tone="crit" role="alert">${error}</p>`}
      <div class="row">
        <button class="button" data-kind=${danger ? "danger" : "primary"}>${verb}</button>
        <button class="button" type="button" onClick=${onClose}>Cancel</button>
      </div>
    </form>
  </dialog>`;
}
