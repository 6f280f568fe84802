// The signed-in user: a token in this browser's storage, which all tabs share.

const KEY = "hubbub-demo-token";

/**
 * The user of the token; null if no user is signed in. The token is not verified here: the server does that.
 * @returns {import("./ui.js").Person | null}
 */
export function user() {
  try {
    const payload = (token() ?? "").split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
    const { sub, name, exp } = JSON.parse(new TextDecoder().decode(bytes));
    return exp * 1000 > Date.now() ? { id: sub, name } : null;
  } catch {
    return null;
  }
}

export function token() {
  return localStorage.getItem(KEY);
}

export function forget() {
  localStorage.removeItem(KEY);
  document.documentElement.removeAttribute("data-user");
}

/**
 * Calls the handler when another tab signs out. When one signs in, this page is outdated: it is loaded again.
 * @param {() => void} handler
 */
export function onSignOut(handler) {
  addEventListener("storage", ({ key, newValue }) => {
    if (key !== KEY) return;
    if (newValue) location.reload();
    else handler();
  });
}

/** @param {string} name */
export async function signIn(name) {
  const session = await api("POST", "/api/session", { name });
  localStorage.setItem(KEY, session.token);
}

export async function signOut() {
  await api("DELETE", "/api/session");
  forget();
}

/**
 * Calls the HTTP API. Throws an Error whose message can be shown to users.
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<any>}
 */
export async function api(method, path, body) {
  /** @type {Record<string, string>} */
  const headers = {};
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Error("The server can’t be reached.");
  }
  if (response.ok) return response.status === 204 ? null : await response.json();
  const { detail } = await response.json().catch(() => ({}));
  throw new Error(detail ?? `The server answered ${response.status}.`);
}
