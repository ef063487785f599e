// The sign-in page. Must never: keep the token after the call.
import { html, useState } from "../../vendor/preact-htm.module.js";
import { post } from "../api.js";

export function SignIn({ session, why, onDone }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await post("/api/v1/session", { token });
      setToken("");
      location.hash = "#/now";
      onDone();
    } catch (problem) {
      setError(problem.message);
    }
    setBusy(false);
  };
  return html`<main class="signin stack">
    <span class="brand"><img src="/favicon.svg" alt="" />Tokenweir</span>
    <section class="card">
      <div class="body">
        <form class="form" onSubmit=${submit}>
          <h1>Sign in</h1>
          ${why === "refused" && html`<p class="note" data-tone="crit" role="alert">Your organisation's sign-in did not let you in here. The log of the proxy has the reason; whoever runs it gives you a role.</p>`}
          ${why === "expired" && html`<p class="note" data-tone="warn" role="alert">That link was used already or is older than 15 minutes. Restart prints a new one; the admin token works always.</p>`}
          <label class="field">
            <span>Admin token</span>
            <input class="input" type="password" autocomplete="current-password" value=${token} onInput=${(e) => setToken(e.target.value)} required />
          </label>
          <p class="muted small">It stands in the file <code>admin-token</code> in the data directory, or in <code>TOKENWEIR_ADMIN_TOKEN</code>.</p>
          ${error && html`<p class="note" data-tone="crit" role="alert">${error}</p>`}
          <button class="button" data-kind="primary" disabled=${busy}>Sign in</button>
          ${session.oidc && html`<a class="button" href="/oidc/start">Sign in with your organisation</a>`}
        </form>
      </div>
    </section>
  </main>`;
}
