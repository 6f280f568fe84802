// The page's connection: the shipped client, the display of its state, and the notifications that it receives.

import { HubbubClient } from "/hubbub/hubbub.js";
import { api, forget, token } from "./session.js";
import { $, el, time, toast } from "./ui.js";

const NOTHING_MISSED = "Reconnected: nothing was missed";
const RESETS = {
  lost: "Reconnected: the server was restarted and its history was reset",
  too_old: "Reconnected: more was missed than the server keeps",
};

/**
 * Connects the page.
 * @param {string} path the path of the WebSocket
 * @param {object} page
 * @param {(data: unknown, meta: object) => void} [page.onMessage] a message that is not a notification arrived
 * @param {() => void} [page.onFresh] the page joined its room at the current position: load the state
 * @param {(reason: "lost" | "too_old") => void} [page.onReset] the missed messages of the page's room can't be
 *   recovered; the client then reconnects as a new one, and receives what a new client receives
 * @returns {HubbubClient}
 */
export function connect(path, { onMessage = () => {}, onFresh = () => {}, onReset = () => {} } = {}) {
  const client = new HubbubClient(path, { token, maxDelayMs: 5_000, pingIntervalMs: 10_000 });
  let opened = 0; // how often the connection opened
  let reset = null; // the reason of a reset since the connection was last lost
  let anew = false; // whether this page closed the connection to start a new one

  client.on("state", (state, { code, reason, retryAt }) => {
    if (anew && (state === "stopped" || state === "connecting")) return;
    anew = false;
    if (state === "waiting" && reason === "token expired") {
      client.close(); // the token can't be renewed, because the demo has no passwords
      signedOut("your sign-in has expired");
    } else if (state === "waiting") {
      reset = null;
      say("waiting", "Offline.", { retryAt, action: "Try now", act: () => client.connect() });
    } else if (state === "stopped") {
      stopped(code, reason);
    } else if (state === "connecting") {
      say("connecting", "Connecting…");
    } else {
      opened += 1;
      if (opened === 1) say("open", "Connected"); // after a reconnect, sync or reset says more: see below
    }
  });

  client.on("sync", ({ room, recovered }) => {
    if (opened > 1) say("open", reset ? RESETS[reset] : NOTHING_MISSED);
    if (recovered) return;
    // Only now: new messages already arrive, so none is missed between them and the loaded state.
    if (room === "$user") loadNotifications();
    else onFresh();
  });

  client.on("reset", ({ room, reason }) => {
    reset ??= reason;
    say("open", RESETS[reset]);
    if (room === "$user") return;
    onReset(reason);
    anew = true;
    client.positions.delete(room);
    client.close();
    client.connect();
  });

  client.on("message", (data, meta) => {
    if (data?.type === "notification") {
      news += 1;
      showNotification(data.item);
      showUnread(data.unread);
      toast(data.item.text, data.item.link);
    } else if (data?.type === "notifications_read") {
      news += 1;
      showUnread(0);
    } else {
      onMessage(data, meta);
    }
  });

  client.on("error", ({ message }) => toast(`The server did not take that: ${message}`));

  // Another tab signed out, or signed in as another user: this page is outdated.
  addEventListener("storage", ({ key, oldValue, newValue }) => {
    if (key === "hubbub-demo-token" && oldValue !== newValue && newValue) location.reload();
  });

  wireNotifications();
  return client;
}

// The status line

let countdown;

function say(state, text, { retryAt = null, action = "", act = null } = {}) {
  clearInterval(countdown);
  const more = () => {
    const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
    $("status-more").textContent = `Trying again in ${seconds} s`;
  };
  $("status").dataset.state = state;
  $("status-text").textContent = text;
  $("status-more").textContent = state === "waiting" ? "Waiting for the network" : "";
  if (retryAt) {
    more();
    countdown = setInterval(more, 250);
  }
  $("status-action").hidden = !action;
  $("status-action").textContent = action || "Try now";
  $("status-action").onclick = act;
}

function stopped(code, reason) {
  if (reason.startsWith("unauthorized")) signedOut("the server does not know this sign-in");
  else if (reason === "signed out") signedOut("you signed out");
  else say("stopped", `Disconnected: ${reason || `code ${code}`}`, { action: "Reload", act: () => location.reload() });
}

function signedOut(why) {
  forget();
  const next = encodeURIComponent(location.pathname + location.search);
  say("stopped", `Signed out: ${why}`, { action: "Sign in", act: () => location.assign(`/?next=${next}`) });
}

// Notifications

const shown = new Set();
let news = 0; // how many pushes have arrived

async function loadNotifications() {
  const before = news;
  try {
    const { unread, items } = await api("GET", "/api/notifications");
    for (const item of items.reverse()) showNotification(item);
    if (news === before) showUnread(unread);
  } catch {
    // the status line already says that there is no connection
  }
}

function showNotification(item) {
  if (shown.has(item.id)) return;
  shown.add(item.id);
  $("no-notifications").hidden = true;
  $("notifications").prepend(el("li", {}, el("a", { href: item.link, dir: "auto" }, item.text), time(item.at)));
  while ($("notifications").children.length > 50) $("notifications").lastChild.remove();
}

function showUnread(count) {
  $("unread").hidden = count === 0;
  $("unread").textContent = count > 99 ? "99+" : count;
  $("bell").firstElementChild.ariaLabel = count ? `Notifications, ${count} unread` : "Notifications";
}

function wireNotifications() {
  $("bell").addEventListener("toggle", () => {
    if (!$("bell").open) return;
    $("toasts").replaceChildren(); // the list shows the same
    if (!$("unread").hidden) api("POST", "/api/notifications/read").catch(() => {});
  });
}
