// The status line: whether the page is connected, and what it missed.

import { forget } from "./session.js";
import { $ } from "./ui.js";

/**
 * @param {"connecting" | "open" | "waiting" | "stopped"} state
 * @param {string} text
 * @param {{label: string, act: () => void}} [action] a button
 */
export function say(state, text, action) {
  $("status").dataset.state = state;
  $("status-text").textContent = text;
  $("status-action").hidden = !action;
  $("status-action").textContent = action?.label ?? "";
  $("status-action").onclick = action?.act ?? null;
}

/** @param {() => void} tryNow connects without waiting any longer */
export function offline(tryNow) {
  say("waiting", "Offline. Trying again…", { label: "Try now", act: tryNow });
}

/** @param {string} reason */
export function stopped(reason) {
  if (reason === "signed out") signedOut("you signed out");
  else say("stopped", `Disconnected: ${reason}`, { label: "Reload", act: () => location.reload() });
}

/**
 * Ends what only users can do: the stylesheet hides it.
 * @param {string} why
 */
export function signedOut(why) {
  forget();
  const next = encodeURIComponent(location.pathname + location.search);
  say("stopped", `Signed out: ${why}`, { label: "Sign in", act: () => location.assign(`/?next=${next}`) });
}
