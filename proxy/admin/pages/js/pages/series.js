// One dimension as a table: sortable, searchable, with sparklines and states.
import { html, useEffect, useState } from "../../vendor/preact-htm.module.js";
import { query } from "../api.js";
import { DIMENSIONS, change, count, money, percent, ratio } from "../format.js";
import { Badge, Card, Exports, Loaded, Segments, Spark, State, Table, useData } from "../ui.js";

const WINDOWS = ["1h", "24h", "7d", "30d"];
const PAGE = 50;

export function SeriesTable({ by }) {
  const [window_, setWindow] = useState("24h");
  const [sort, setSort] = useState(["cost_nano_usd", "desc"]);
  const [typed, setTyped] = useState("");
  const [wanted, setWanted] = useState("");
  const [offset, setOffset] = useState(0);
  useEffect(() => {
    const timer = setTimeout(() => (setWanted(typed), setOffset(0)), 200);
    return () => clearTimeout(timer);
  }, [typed]);
  const parameters = { by, window: window_, sort: sort[0], order: sort[1], q: wanted };
  const table = useData(`/api/v1/series?${query({ ...parameters, limit: PAGE, offset })}`, { every: 15, events: ["incident", "action"] });
  const title = DIMENSIONS[by];
  return html`
    <div class="page-head">
      <h1 tabindex="-1">${title}</h1>
      <input class="input" type="search" placeholder=${`Search ${title.toLowerCase()}`} aria-label=${`Search ${title.toLowerCase()}`} value=${typed} onInput=${(e) => setTyped(e.target.value)} />
      <span class="push row">
        <${Segments} label="Window" options=${WINDOWS} value=${window_} onChange=${(w) => (setWindow(w), setOffset(0))} />
        <${Exports} path=${`/api/v1/series?${query(parameters)}`} />
      </span>
    </div>
    <${Card} flush>
      <${Loaded} from=${table} what=${title.toLowerCase()}>
        ${(data) => html`
          <${Table}
            caption=${`${title}, last ${window_}`}
            columns=${columns(by, window_)}
            rows=${data.rows}
            rowKey=${(row) => row.value}
            sort=${sort[0]}
            order=${sort[1]}
            onSort=${(id, order) => (setSort([id, order]), setOffset(0))}
            empty=${html`<${State} kind="ok" title=${wanted ? "Nothing matches." : `No ${title.toLowerCase()} in this window yet.`}>
              ${wanted ? "Try a shorter word." : html`Calls name them by key, by header or by path; see <a href="#/start">first steps</a>.`}
            <//>`}
          />
          <${Pager} total=${data.total} offset=${offset} onMove=${setOffset} />
        `}
      <//>
    <//>
  `;
}

function columns(by, window_) {
  const plain = (id, title, show) => ({ id, title, num: true, sortable: true, cell: (row) => show(row[id]) });
  return [
    {
      id: "value",
      title: DIMENSIONS[by].slice(0, -1),
      sortable: true,
      cell: (row) => html`<a class="clip" title=${row.value} href=${`#/by/${by}/${encodeURIComponent(row.value)}`}>${row.value || "(none)"}</a>`,
    },
    {
      id: "state",
      title: "State",
      cell: (row) =>
        row.incident
          ? html`<a href=${`#/incidents/${encodeURIComponent(row.incident)}`}><${Badge} word=${row.state === "incident" ? row.tier : row.state} text=${row.state === "incident" ? row.tier : row.state} /></a>`
          : html`<${Badge} word=${row.state} />`,
    },
    { id: "spark", title: `Spend, ${window_}`, cell: (row) => html`<${Spark} values=${row.spark} label=${`Spend of ${row.value} over ${window_}`} />` },
    plain("cost_nano_usd", "Spend", money),
    plain("change", "Against before", change),
    plain("times_median_cost", "Against peers", ratio),
    plain("requests", "Requests", count),
    {
      id: "habits",
      title: html`<span class="nowrap" title="Usual calls in half an hour at this time of day; most calls ever in five minutes">Usual ½ h,<br />most 5 min</span>`,
      num: true,
      cell: (row) => html`<span class="muted">${known(row.usual_calls_half_hour)} / ${known(row.record_calls_5_minutes)}</span>`,
    },
    plain("error_rate", "Errors", percent),
    plain("cost_per_request_nano_usd", "Per request", money),
    plain("input_tokens", "Input", count),
    plain("output_tokens", "Output", count),
    plain("refused", "Refused", count),
  ];
}

const known = (value) => (value === null || value === undefined ? "–" : count(Math.round(value * 10) / 10));

function Pager({ total, offset, onMove }) {
  if (total <= PAGE) return null;
  return html`<div class="body row">
    <button class="button" type="button" disabled=${offset === 0} onClick=${() => onMove(Math.max(0, offset - PAGE))}>Previous</button>
    <span class="muted">${offset + 1} to ${Math.min(total, offset + PAGE)} of ${count(total)}</span>
    <button class="button" type="button" disabled=${offset + PAGE >= total} onClick=${() => onMove(offset + PAGE)}>Next</button>
  </div>`;
}
