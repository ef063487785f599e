// Talks to the admin API: JSON calls, live events. Owns: the session's state.
// Must never: put a token anywhere but into the sign-in call's body.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const listeners = new Map();
let source = null;
let onSignedOut = () => {};

export function whenSignedOut(callback) {
  onSignedOut = callback;
}

const running = new Set();
let leaving = false;

export function call(method, path, body) {
  // Whoever asks while the session ends is on a page that is about to go.
  if (leaving) return new Promise(() => {});
  const asked = ask(method, path, body).finally(() => running.delete(asked));
  running.add(asked);
  return asked;
}

// Ends the session once nothing that needs it is under way.
export async function signOut() {
  disconnect();
  leaving = true;
  try {
    await Promise.allSettled([...running]);
    await ask("DELETE", "/api/v1/session");
  } finally {
    leaving = false;
  }
}

async function ask(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: {
        Accept: "application/json",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(method === "GET" ? {} : { "X-Tokenweir-Request": "1" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, "Tokenweir does not answer. Is it running?");
  }
  if (response.status === 401 && path !== "/api/v1/session") onSignedOut();
  if (response.status === 204) return null;
  let answer = null;
  try {
    answer = await response.json();
  } catch {
    throw new ApiError(response.status, `Unreadable answer (status ${response.status})`);
  }
  if (!response.ok) {
    throw new ApiError(response.status, answer?.error?.message || `Status ${response.status}`);
  }
  return answer;
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

export function query(parameters) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") found.set(name, value);
  }
  return found.toString();
}

// Live events. Kinds: tick, incident, action, call, config, reset; "live" tells the link's state.
export function subscribe(kind, callback) {
  if (!listeners.has(kind)) listeners.set(kind, new Set());
  listeners.get(kind).add(callback);
  return () => listeners.get(kind).delete(callback);
}

function tell(kind, data) {
  for (const callback of listeners.get(kind) || []) callback(data);
}

export function connect() {
  if (source) return;
  source = new EventSource("/api/v1/events");
  source.onopen = () => tell("live", true);
  source.onerror = () => {
    tell("live", false);
    if (source && source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(connect, 3000);
    }
  };
  for (const kind of ["tick", "incident", "action", "call", "config", "reset"]) {
    source.addEventListener(kind, (event) => tell(kind, JSON.parse(event.data)));
  }
}

export function disconnect() {
  if (source) source.close();
  source = null;
}
