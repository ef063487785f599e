// A curve with its expected band and incident marks, on uPlot. Owns: drawing.
// Must never: fetch, or be the only way to the numbers (a table goes with it).
import { html, useEffect, useRef, useState } from "../vendor/preact-htm.module.js";
import { fullTime, money, time, tone } from "./format.js";

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Buckets as amounts per hour. The running bucket counts for the part that has passed of it;
// before a third has, it is left out, unless it holds more than the whole one before it did.
export function perHour({ curve, bands, now }) {
  const { times, step_seconds: step } = curve;
  const last = times.length - 1;
  const passed = Math.min(step, Math.max(step / 3, now - times[last]));
  const calls = (i) => curve.requests[i] + curve.refused[i];
  const early = now - times[last] < step / 3;
  const shown = early && !(last > 0 && calls(last) > calls(last - 1)) ? last : times.length;
  const hourly = (values) => values.slice(0, shown).map((v, i) => (v * 3600) / (i === last ? passed : step));
  const even = (values) => values.slice(0, shown).map((v) => (v * 3600) / step);
  const scaled = (band) => band && { low: even(band.low), high: even(band.high) };
  return { curve: { ...curve, times: times.slice(0, shown) }, bands, hourly, scaled };
}

// A chart without amounts still needs a scale that reads well: up to one call, or one dollar.
const emptyRange = (format) => (format === money ? 1e9 : 1);

// As wide as the longest label.
const axisWidth = (labels) => Math.max(62, 16 + 6.5 * Math.max(0, ...(labels || []).map((label) => label.length)));

const HOUR = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

function timeLabels(values) {
  return values.map((v) => {
    const day = DATE.format(v * 1000);
    const hour = HOUR.format(v * 1000);
    if (hour === "00:00") return day;
    return values.length > 1 && values[1] - values[0] >= 80000 ? day : hour;
  });
}

// `series`: [{label, values, color}], `band`: {low, high} or null.
export function Chart({ title, times, series, band, format, height = 160, marks = [], onset }) {
  const holder = useRef(null);
  const plot = useRef(null);
  const [marksAt, setMarksAt] = useState([]);
  const [tip, setTip] = useState(null);
  const [theme, setTheme] = useState(0);

  useEffect(() => {
    const again = () => setTheme((n) => n + 1);
    const media = matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", again);
    window.addEventListener("tokenweir-theme", again);
    return () => {
      media.removeEventListener("change", again);
      window.removeEventListener("tokenweir-theme", again);
    };
  }, []);

  useEffect(() => {
    const place = (u) => {
      setMarksAt(
        marks
          .filter((mark) => mark.at >= times[0])
          .map((mark) => ({ ...mark, x: Math.min(u.over.clientWidth - 4, u.valToPos(mark.at, "x")) }))
          .map((mark) => ({ ...mark, x: mark.x + u.over.offsetLeft })),
      );
    };
    const line = style("--line");
    const muted = style("--muted");
    const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const options = {
      width: holder.current.clientWidth || 300,
      height,
      padding: [10, 20, 0, 0],
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
      legend: { show: false },
      scales: { x: { time: true }, y: { range: (u, low, high) => [Math.min(0, low || 0), (high || emptyRange(format)) * 1.08] } },
      axes: [
        { ...axis, size: 26, grid: { show: false }, space: 64, values: (u, values) => timeLabels(values) },
        { ...axis, size: (u, labels) => axisWidth(labels), values: (u, values) => values.map((v) => format(v)) },
      ],
      series: [
        {},
        ...series.map((s, i) => ({
          label: s.label,
          stroke: style(s.color || `--series-${i + 1}`),
          width: 1.6,
          points: { show: false },
        })),
        ...(band ? [{ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } }] : []),
      ],
      bands: band ? [{ series: [series.length + 2, series.length + 1], fill: style("--band") }] : [],
      hooks: {
        ready: [place],
        setSize: [place],
        drawClear: [
          (u) => {
            if (!onset) return;
            const x = Math.round(u.valToPos(onset, "x", true));
            u.ctx.save();
            u.ctx.strokeStyle = style("--crit");
            u.ctx.setLineDash([4, 4]);
            u.ctx.beginPath();
            u.ctx.moveTo(x, u.bbox.top);
            u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
            u.ctx.stroke();
            u.ctx.restore();
          },
        ],
        setCursor: [
          (u) => {
            const i = u.cursor.idx;
            if (i === null || i === undefined || u.cursor.left < 0) return setTip(null);
            setTip({ i, x: u.cursor.left + u.over.offsetLeft, flip: u.cursor.left > u.over.clientWidth / 2 });
          },
        ],
      },
    };
    const data = [times, ...series.map((s) => s.values), ...(band ? [band.low, band.high] : [])];
    const drawn = new window.uPlot(options, data, holder.current);
    plot.current = drawn;
    const watch = new ResizeObserver(() => {
      const width = holder.current && holder.current.clientWidth;
      if (width && width !== drawn.width) drawn.setSize({ width, height });
    });
    watch.observe(holder.current);
    return () => {
      watch.disconnect();
      drawn.destroy();
      setTip(null);
    };
  }, [times, JSON.stringify(marks), height, theme, onset]);

  const summary = series
    .map((s) => `${s.label}: latest ${format(s.values.findLast((v) => v !== null) ?? 0)}, most ${format(Math.max(0, ...s.values))}`)
    .join("; ");
  return html`<figure>
    <div class="chart" ref=${holder} role="img" aria-label=${`${title}. ${summary}`}></div>
    <${Overlay} holder=${holder} marks=${marksAt} tip=${tip} times=${times} series=${series} band=${band} format=${format} />
    <figcaption class="legend">
      ${series.map((s, i) => html`<span key=${s.label}><${Swatch} color=${s.color || `--series-${i + 1}`} />${s.label}</span>`)}
      ${band && html`<span><i class="band"></i>expected</span>`}
    </figcaption>
    <details class="data">
      <summary>Show as a table</summary>
      <div class="scroll" tabindex="0" role="region" aria-label=${`${title}, numbers`}>
        <table>
          <thead><tr><th scope="col">Time</th>${series.map((s) => html`<th scope="col" class="num" key=${s.label}>${s.label}</th>`)}</tr></thead>
          <tbody>
            ${times
              .map((at, i) => ({ at, i }))
              .reverse()
              .slice(0, 120)
              .map(({ at, i }) => html`<tr key=${at}><td>${fullTime(at)}</td>${series.map((s) => html`<td class="num" key=${s.label}>${format(s.values[i])}</td>`)}</tr>`)}
          </tbody>
        </table>
      </div>
    </details>
  </figure>`;
}

function Swatch({ color }) {
  const mark = useRef(null);
  useEffect(() => {
    mark.current.style.background = `var(${color})`;
  }, [color]);
  return html`<i ref=${mark}></i>`;
}

// Marks and the tooltip lie over the canvas as real elements, so that they can be focused and read.
function Overlay({ holder, marks, tip, times, series, band, format }) {
  const layer = useRef(null);
  useEffect(() => {
    if (!layer.current || !holder.current) return;
    const s = layer.current.style;
    s.position = "relative";
    s.marginTop = `-${holder.current.offsetHeight}px`;
    s.height = `${holder.current.offsetHeight}px`;
    s.pointerEvents = "none";
    for (const node of layer.current.querySelectorAll("[data-x]")) node.style.left = `${node.dataset.x}px`;
    const box = layer.current.querySelector(".tip");
    if (box) {
      box.style.transform = tip.flip ? "translateX(calc(-100% - 12px))" : "translateX(12px)";
      box.style.top = "8px";
    }
    for (const node of layer.current.querySelectorAll("button")) node.style.pointerEvents = "auto";
  });
  return html`<div ref=${layer}>
    ${marks.map(
      (mark) => html`<button
        key=${mark.id}
        type="button"
        class="mark"
        data-x=${mark.x.toFixed(0)}
        data-tone=${tone(mark.tier)}
        title=${mark.label}
        aria-label=${`Open incident: ${mark.label}`}
        onClick=${() => (location.hash = `#/incidents/${encodeURIComponent(mark.id)}`)}
      ></button>`,
    )}
    ${tip &&
    times[tip.i] !== undefined &&
    html`<div class="tip" data-x=${tip.x.toFixed(0)}>
      <strong>${time(times[tip.i])}</strong>
      ${series.map((s) => html`<div key=${s.label}>${s.label}: ${format(s.values[tip.i])}</div>`)}
      ${band && html`<div class="muted">expected ${format(band.low[tip.i])} to ${format(band.high[tip.i])}</div>`}
    </div>`}
  </div>`;
}
