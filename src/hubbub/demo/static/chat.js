import { client, connect, isRestarted } from "./live.js";
import { $, avatar, el, header, nameOf, only, People, requireUser, time, toast } from "./ui.js";

/**
 * @typedef {import("./endpoint").LiveInfo} Info
 * @typedef {import("./ui.js").Person} Person
 * @typedef {Person & { text: string, at: string }} Line
 */

const TYPING_EVERY_MS = 2_000; // how often this page says that its user is typing
const TYPING_FOR_MS = 4_000; // how long another user counts as typing
const MAX_SHOWN = 1_000;

header();
const me = await requireUser();
const room = new URLSearchParams(location.search).get("room") || "lobby";
const log = $("messages");
const scroll = $("scroll");
const text = $("text");
const people = new People($("people"), (count) => ($("how-many").textContent = String(count)));
/** @type {Map<string, { item: HTMLElement }>} */
const pending = new Map(); // messages that were sent and not echoed yet, by nonce

document.title = `#${room} · hubbub`;
showRooms();

const chat = client.newSubscription(`chat:${room}`);
const typing = client.newSubscription(`typing:${room}`);

chat.on("publication", ({ data, info }) => said({ ...person(info), ...data }));
chat.on("subscribed", (context) => {
  if (context.wasRecovering && !context.recovered) {
    note(isRestarted(context) ? "The server was restarted, and forgot what was said before" : "Some messages are missing here");
  }
  $("problem").textContent = "";
  $("silence").hidden = log.children.length > 0;
  people.load(async () => Object.values((await chat.presence()).clients).map(person));
});
chat.on("join", ({ info }) => {
  people.join(person(info));
  if (info.user !== me.id) note(nameOf(person(info).name), " joined");
});
chat.on("leave", ({ info }) => {
  people.leave(info.user);
  if (info.user !== me.id) note(nameOf(person(info).name), " left");
});
chat.on("state", ({ newState }) => {
  if (newState !== "subscribed") for (const { item } of pending.values()) item.classList.add("unsure");
});
typing.on("publication", ({ info }) => types(person(info)));

chat.subscribe();
typing.subscribe();
connect();

/**
 * Returns the user of a client. The server itself publishes nothing here.
 * @param {Info | undefined} info
 * @returns {Person}
 */
function person(info) {
  return { id: info?.user ?? "", name: info?.connInfo.name ?? "" };
}

// Messages

/** @param {Person & import("./endpoint").Said} message */
function said(message) {
  const own = message.id === me.id;
  if (own && pending.has(message.nonce)) {
    pending.get(message.nonce)?.item.remove();
    pending.delete(message.nonce);
  }
  keepingPlace(() => {
    show(line(message));
    typers.delete(message.id);
    showTypers();
  });
}

/** @param {Line} message */
function line({ id, name, text, at }) {
  const item = el("li", { className: "message" });
  item.dataset.user = id;
  item.dataset.at = at;
  item.classList.toggle("own", id === me.id);
  const heading = el("p", { className: "heading" }, nameOf(name), time(at));
  const body = el("p", { className: "text", dir: "auto" }, text);
  item.append(avatar({ id, name }), el("div", {}, heading, body));
  return item;
}

/**
 * Adds a line below the confirmed messages and above the pending ones.
 * @param {HTMLElement} item
 */
function show(item) {
  const firstPending = pending.values().next().value?.item ?? null;
  const before = /** @type {HTMLElement | null} */ (firstPending ? firstPending.previousElementSibling : log.lastElementChild);
  const minutes = (Date.parse(item.dataset.at ?? "") - Date.parse(before?.dataset.at ?? "")) / 60_000;
  item.classList.toggle("goes-on", before?.dataset.user === item.dataset.user && minutes < 5);
  log.insertBefore(item, firstPending);
  $("silence").hidden = true;
  while (log.children.length > MAX_SHOWN) log.firstElementChild?.remove();
}

/** @param {...(Node | string)} words */
function note(...words) {
  keepingPlace(() => {
    log.append(el("li", { className: "note" }, el("span", {}, ...words)));
  });
}

/**
 * Scrolls to the end of the log, unless the reader has scrolled up.
 * @param {() => void} change
 */
function keepingPlace(change) {
  const following = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  change();
  if (following) scroll.scrollTop = scroll.scrollHeight;
  else $("newer").hidden = false;
}

scroll.addEventListener("scroll", () => {
  if (scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60) $("newer").hidden = true;
});
$("newer").addEventListener("click", () => {
  scroll.scrollTop = scroll.scrollHeight;
});

// Sending

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = text.value.trim();
  if (!words) return;
  if (chat.state !== "subscribed") {
    $("problem").textContent = "Not sent: you are offline. Your message stays here.";
    return;
  }
  const message = { text: words, nonce: crypto.randomUUID?.() ?? String(Math.random()) };
  const item = line({ id: me.id, name: me.name, text: words, at: new Date().toISOString() });
  const again = el("button", { type: "button", className: "again" }, "Not confirmed. Send again?");
  again.addEventListener("click", () => send(message, item));
  item.classList.add("pending");
  only(":scope > :last-child", item).append(again);
  show(item);
  pending.set(message.nonce, { item });
  send(message, item);
  scroll.scrollTop = scroll.scrollHeight;
  text.value = "";
  $("problem").textContent = "";
  fit();
  lastTyped = -Infinity;
});

/**
 * Sends a message. It stays pending until it arrives in the room: see `said`.
 * @param {import("./endpoint").Say} message
 * @param {HTMLElement} item
 */
async function send(message, item) {
  item.classList.remove("unsure");
  try {
    await chat.publish(message);
  } catch (failure) {
    const error = /** @type {import("./endpoint").LiveError} */ (failure);
    item.classList.add("unsure");
    if (error.code >= 100) toast(`The server did not take that: ${error.message}`);
  }
}

text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

let lastTyped = -Infinity;

text.addEventListener("input", () => {
  fit();
  if (!text.value || performance.now() - lastTyped < TYPING_EVERY_MS) return;
  if (typing.state !== "subscribed") return;
  lastTyped = performance.now();
  typing.publish({}).catch(() => {}); // the next one follows soon
});

function fit() {
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight + 2, 160)}px`;
}

// Typing and presence

/** @type {Map<string, { name: string, timer: number }>} */
const typers = new Map(); // name and timer, by user

/** @param {Person} typer */
function types({ id, name }) {
  if (id === me.id) return; // the same user in another tab
  clearTimeout(typers.get(id)?.timer);
  const timer = setTimeout(() => {
    typers.delete(id);
    showTypers();
  }, TYPING_FOR_MS);
  typers.set(id, { name, timer });
  showTypers();
}

function showTypers() {
  const names = [...typers.values()].map(({ name }) => nameOf(name));
  if (names.length > 2) $("typing").replaceChildren("Several people are typing…");
  else if (names.length === 2) $("typing").replaceChildren(names[0], " and ", names[1], " are typing…");
  else if (names.length === 1) $("typing").replaceChildren(names[0], " is typing…");
  else $("typing").replaceChildren();
}

function showRooms() {
  /** @type {(item: Element) => HTMLAnchorElement} */
  const link = (item) => only("a", item);
  /** @type {(item: Element) => string | null} */
  const name = (item) => new URL(link(item).href).searchParams.get("room");
  let here = [...$("rooms").children].find((item) => name(item) === room);
  if (!here) {
    const href = `/chat?room=${encodeURIComponent(room)}`;
    here = el("li", {}, el("a", { href }, el("span", {}, "# "), room));
    $("rooms").append(here);
  }
  link(here).ariaCurrent = "true";
  here.scrollIntoView({ block: "nearest", inline: "nearest" });
}
