// The frame: session, routes, navigation, live link. Owns: what page is shown.
// Must never: hold a page's data.
import { html, render, useEffect, useState, useErrorBoundary } from "../vendor/preact-htm.module.js";
import { connect, disconnect, get, subscribe, whenSignedOut } from "./api.js";
import { DIMENSIONS } from "./format.js";
import { Failure, Toasts } from "./ui.js";
import { Side, Top } from "./frame.js";
import { SignIn } from "./pages/signin.js";
import { Now } from "./pages/now.js";
import { Incidents } from "./pages/incidents.js";
import { Incident } from "./pages/incident.js";
import { SeriesTable } from "./pages/series.js";
import { SeriesDetail } from "./pages/detail.js";
import { Budgets } from "./pages/budgets.js";
import { Policy } from "./pages/policy.js";
import { Windows } from "./pages/windows.js";
import { Audit } from "./pages/audit.js";
import { Health } from "./pages/health.js";
import { FirstSteps } from "./pages/first_steps.js";

const PAGES = {
  now: [Now, "Now"],
  incidents: [Incidents, "Incidents"],
  budgets: [Budgets, "Budgets"],
  policy: [Policy, "Policy"],
  windows: [Windows, "Silences and maintenance"],
  audit: [Audit, "Audit trail"],
  health: [Health, "Health"],
  start: [FirstSteps, "First steps"],
};

function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decode);
  return parts.length ? parts : ["now"];
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function page(parts, session) {
  const [first, second, third] = parts;
  if (first === "by" && DIMENSIONS[second]) {
    return third === undefined
      ? [html`<${SeriesTable} key=${second} by=${second} />`, DIMENSIONS[second]]
      : [html`<${SeriesDetail} key=${`${second}/${third}`} by=${second} value=${third} session=${session} />`, third];
  }
  if (first === "incidents" && second) return [html`<${Incident} key=${second} id=${second} session=${session} />`, "Incident"];
  const [Found, title] = PAGES[first] || PAGES.now;
  return [html`<${Found} key=${first} session=${session} />`, title];
}

function Guarded({ children }) {
  const [error, reset] = useErrorBoundary();
  if (error) return html`<${Failure} error=${{ message: `This page broke: ${error.message}` }} retry=${reset} />`;
  return children;
}

function App() {
  const [session, setSession] = useState(null);
  const [failure, setFailure] = useState(null);
  const [parts, setParts] = useState(route);
  const [live, setLive] = useState(false);
  const [info, setInfo] = useState(null);
  const [menu, setMenu] = useState(false);

  const enter = () =>
    get("/api/v1/session").then(
      (found) => (setSession(found), setFailure(null)),
      (error) => setFailure(error),
    );
  useEffect(() => {
    enter();
    whenSignedOut(enter);
    const moved = () => {
      setParts(route());
      setMenu(false);
      window.scrollTo(0, 0);
    };
    window.addEventListener("hashchange", moved);
    return () => window.removeEventListener("hashchange", moved);
  }, []);

  const signedIn = session && session.signed_in;
  useEffect(() => {
    if (!signedIn) return disconnect();
    const know = () => get("/api/v1/info").then(setInfo, () => {});
    know();
    connect();
    const ends = [subscribe("live", setLive), subscribe("config", know), subscribe("reset", know)];
    ends.push(subscribe("tick", (tick) => setInfo((old) => old && { ...old, health: tick.health, tick })));
    return () => ends.forEach((end) => end());
  }, [signedIn]);

  const [body, title] = signedIn ? page(parts, session) : [null, "Sign in"];
  useEffect(() => {
    document.title = `${title} · Tokenweir`;
    const heading = document.querySelector("h1");
    if (heading && document.activeElement === document.body) heading.focus({ preventScroll: true });
  }, [title]);

  if (failure) return html`<${Failure} error=${failure} retry=${enter} />`;
  if (!session) return html`<p class="boot" role="status">Loading…</p>`;
  if (!signedIn) return html`<${SignIn} session=${session} why=${parts[1]} onDone=${enter} />`;
  return html`<div class="frame">
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), document.getElementById("main").focus())}>Skip to content</a>
    <${Side} parts=${parts} open=${menu} info=${info} session=${session} onLeft=${enter} />
    <div class="main">
      <${Top} info=${info} live=${live} session=${session} menu=${menu} onMenu=${() => setMenu(!menu)} onLeft=${enter} />
      <main class="page" id="main" tabindex="-1">
        <${Guarded} key=${parts.join("/")}>${body}<//>
      </main>
    </div>
    <${Toasts} />
  </div>`;
}

render(html`<${App} />`, document.getElementById("app"));
