// Budgets' burn-down in short, for the first page.
import { html } from "../vendor/preact-htm.module.js";
import { duration, money } from "./format.js";
import { Bar, Card, Loaded, State, useData } from "./ui.js";

export function BudgetLine({ budget }) {
  const spent = budget.spent_nano_usd / Math.max(1, budget.limit_nano_usd);
  return html`<li class="stack" key=${budget.name}>
    <div class="row"><strong>${budget.name}</strong><span class="muted">${budget.scope || ""}</span><span class="push num">${money(budget.spent_nano_usd)} of ${money(budget.limit_nano_usd)}</span></div>
    <${Bar} share=${spent} label=${`${budget.name}, share spent`} />
    <span class="muted small">${outlook(budget)}</span>
  </li>`;
}

export function outlook(budget) {
  const now = Date.now() / 1000;
  const words = [];
  if (budget.resets_at) words.push(`resets in ${duration(budget.resets_at - now)}`);
  if (budget.exhausted_at) words.push(pace(budget, now));
  if (budget.forecast_nano_usd) words.push(`forecast ${money(budget.forecast_nano_usd)} at its end`);
  return words.join(" · ");
}

function pace(budget, now) {
  if (budget.exhausted_at <= now) return "exhausted";
  if (budget.resets_at && budget.exhausted_at > budget.resets_at) return "lasts at this pace";
  return `at this pace exhausted in ${duration(budget.exhausted_at - now)}`;
}

// Where spend will be at the end of the month, by what was seen so far.
export function Month() {
  const ahead = useData("/api/v1/forecast", { every: 60 });
  return html`<${Loaded} from=${ahead} what="the forecast">
    ${({ forecast: f }) =>
      f
        ? html`<p>This month so far <strong>${money(f.spent)}</strong>; at its end about <strong>${money(f.expected)}</strong> <span class="muted">(${money(f.low)} to ${money(f.high)}, four times in five; ${money(f.per_day)} a day)</span></p>`
        : html`<p class="muted">A forecast of the month needs a few days of calls.</p>`}
  <//>`;
}

export function Forecast() {
  const budgets = useData("/api/v1/budgets", { every: 15 });
  return html`<${Card} title="Forecast and budgets" id="budgets" aside=${html`<a href="#/budgets">all</a>`}>
    <${Month} />
    <${Loaded} from=${budgets} what="budgets">
      ${(found) =>
        (found.budgets || []).length
          ? html`<ul class="stack">${found.budgets.slice(0, 5).map((b) => html`<${BudgetLine} key=${b.name} budget=${b} />`)}</ul>`
          : html`<${State} kind="ok" title="No budget is set.">Add one under <code>budgets</code> in the policy file to see its burn-down here.<//>`}
    <//>
  <//>`;
}
