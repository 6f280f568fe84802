// The bell in the header: the user's notifications, which every page receives.

import { api } from "./session.js";
import { $, el, only, time, toast } from "./ui.js";

/**
 * @typedef {{ id: number, text: string, link: string, at: string }} Item
 * @typedef {{ type: "notification", item: Item, unread: number } | { type: "notifications_read" }} News
 */

const shown = new Set();
let news = 0; // how many messages have arrived

/**
 * Takes a message to the user. Returns false if it is none about notifications.
 * @param {{ type: string }} message
 * @returns {message is News}
 */
export function take(message) {
  const taken = /** @type {News} */ (message);
  if (taken.type === "notification") {
    show(taken.item);
    showUnread(taken.unread);
    toast(taken.item.text, taken.item.link);
  } else if (taken.type === "notifications_read") {
    showUnread(0);
  } else {
    return false;
  }
  news += 1;
  return true;
}

/** Loads the stored ones. Call it once new ones already arrive, so that none is missed in between. */
export async function load() {
  const before = news;
  try {
    const { unread, items } = await api("GET", "/api/notifications");
    for (const item of items.reverse()) show(item);
    if (news === before) showUnread(unread);
  } catch {
    // the status line already says that there is no connection
  }
}

/** @param {Item} item */
function show(item) {
  if (shown.has(item.id)) return;
  shown.add(item.id);
  $("no-notifications").hidden = true;
  $("notifications").prepend(el("li", {}, el("a", { href: item.link, dir: "auto" }, item.text), time(item.at)));
  while ($("notifications").children.length > 50) $("notifications").lastElementChild?.remove();
}

/** @param {number} count */
function showUnread(count) {
  $("unread").hidden = count === 0;
  $("unread").textContent = count > 99 ? "99+" : String(count);
  only("summary", $("bell")).ariaLabel = count ? `Notifications, ${count} unread` : "Notifications";
}

$("bell").addEventListener("toggle", () => {
  if (!$("bell").open) return;
  $("toasts").replaceChildren(); // the list shows the same
  if (!$("unread").hidden) api("POST", "/api/notifications/read").catch(() => {});
});
