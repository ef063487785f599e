// Navigation and top bar. Owns: the frame around every page.
import { html, useEffect, useState } from "../vendor/preact-htm.module.js";
import { signOut } from "./api.js";
import { DIMENSIONS } from "./format.js";
import { Badge } from "./ui.js";

const GROUPS = [
  ["Watch", [["now", "Now"], ["incidents", "Incidents"]]],
  ["Who spends", Object.entries(DIMENSIONS).map(([by, title]) => [`by/${by}`, title])],
  ["Control", [["budgets", "Budgets"], ["policy", "Policy"], ["windows", "Silences"], ["audit", "Audit trail"]]],
  ["System", [["health", "Health"], ["start", "First steps"]]],
];

export function Side({ parts, open, info, session, onLeft }) {
  const here = parts[0] === "by" ? `by/${parts[1]}` : parts[0];
  return html`<nav class="side" id="side" aria-label="Pages" data-open=${open ? "true" : "false"}>
    <a class="brand" href="#/now"><img src="/favicon.svg" alt="" />Tokenweir</a>
    ${GROUPS.map(
      ([title, links]) => html`<div class="nav-group" key=${title}>
        <span class="nav-title">${title}</span>
        ${links.map(
          ([path, name]) => html`<a key=${path} class="nav-link" href=${`#/${path}`} aria-current=${path === here ? "page" : undefined}>${name}</a>`,
        )}
      </div>`,
    )}
    <div class="side-foot">
      <span class="row only-small"><${Theme} /><${Leave} onLeft=${onLeft} /></span>
      <span>${session.name} · ${session.role}</span>
      ${info && html`<span>version ${info.version}</span>`}
    </div>
  </nav>`;
}

const MODES = {
  enforce: "Actions are taken",
  shadow: "Actions are decided and told, not taken",
  observe: "Nothing is decided, only watched",
};

export function Top({ info, live, menu, onMenu, onLeft }) {
  return html`<header class="top">
    <button class="button menu-button" type="button" aria-expanded=${menu ? "true" : "false"} aria-controls="side" onClick=${onMenu}>Menu</button>
    ${info && html`<span title=${MODES[info.mode]}><${Badge} word=${info.mode} text=${`mode: ${info.mode}`} /></span>`}
    ${info && html`<a href="#/health"><${Badge} word=${info.health} text=${info.health === "ok" ? "healthy" : info.health} /></a>`}
    <span class="push row hide-small">
      <span role="status"><${Badge} word=${live ? "ok" : "warning"} text=${live ? "live" : "connecting…"} /></span>
      <${Theme} />
      <${Leave} onLeft=${onLeft} />
    </span>
  </header>`;
}

function Leave({ onLeft }) {
  const leave = async () => {
    await signOut();
    onLeft();
  };
  return html`<button class="button" data-kind="plain" type="button" onClick=${leave}>Sign out</button>`;
}

const NEXT = { auto: "light", light: "dark", dark: "auto" };

function Theme() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme);
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("tokenweir-theme", theme);
    } catch {
      // storage may be forbidden; the choice then lasts as long as the page
    }
    window.dispatchEvent(new Event("tokenweir-theme"));
  }, [theme]);
  return html`<button class="button" data-kind="plain" type="button" onClick=${() => setTheme(NEXT[theme])}>Theme: ${theme}</button>`;
}
