import { connect } from "./live.js";
import { $, avatar, el, header, nameOf, requireUser, showPeople, time } from "./ui.js";

const TYPING_EVERY_MS = 2_000; // how often this page says that its user is typing
const TYPING_FOR_MS = 4_000; // how long another user counts as typing
const MAX_SHOWN = 1_000;

header();
const me = await requireUser();
const room = new URLSearchParams(location.search).get("room") || "lobby";
const log = $("messages");
const text = $("text");
const pending = new Map(); // messages that were sent and not echoed yet, by nonce

document.title = `#${room} · hubbub`;
showRooms();

const client = connect(`/ws/chat/${encodeURIComponent(room)}`, {
  onMessage(message) {
    switch (message.type) {
      case "said":
        said(message);
        break;
      case "here":
        $("how-many").textContent = message.members.length;
        showPeople($("people"), message.members);
        break;
      case "user_joined":
      case "user_left":
        if (message.user_id !== me.id) note(nameOf(message.info?.name ?? "Somebody"), message.type === "user_joined" ? " joined" : " left");
        if (message.type === "user_left") gone(message.user_id, message.count);
        break;
      case "typing":
        types(message);
    }
  },
  onReset(reason) {
    note(reason === "lost" ? "The server was restarted, and forgot what was said before" : "Some messages are missing here");
  },
});

client.on("sync", () => {
  $("silence").hidden = log.children.length > 0;
});
client.on("state", (state) => {
  if (state !== "open") for (const { item } of pending.values()) item.classList.add("unsure");
});

// Messages

function said(message) {
  const own = message.user_id === me.id;
  if (own && pending.has(message.nonce)) {
    pending.get(message.nonce).item.remove();
    pending.delete(message.nonce);
  }
  keepingPlace(() => {
    show(line(message), own);
    typers.delete(message.user_id);
    showTypers();
  });
}

function line({ user_id: id, name, text, at }) {
  const item = el("li", { className: "message" });
  item.dataset.user = id;
  item.dataset.at = at;
  item.classList.toggle("own", id === me.id);
  const heading = el("p", { className: "heading" }, nameOf(name), time(at));
  const body = el("p", { className: "text", dir: "auto" }, text);
  item.append(avatar({ id, name }), el("div", {}, heading, body));
  return item;
}

/** Adds a line below the confirmed messages and above the pending ones. */
function show(item) {
  const firstPending = pending.values().next().value?.item ?? null;
  const before = firstPending ? firstPending.previousElementSibling : log.lastElementChild;
  const minutes = (Date.parse(item.dataset.at) - Date.parse(before?.dataset.at)) / 60_000;
  item.classList.toggle("goes-on", before?.dataset.user === item.dataset.user && minutes < 5);
  log.insertBefore(item, firstPending);
  $("silence").hidden = true;
  while (log.children.length > MAX_SHOWN) log.firstChild.remove();
}

function note(...words) {
  keepingPlace(() => {
    log.append(el("li", { className: "note" }, el("span", {}, ...words)));
  });
}

/** Scrolls to the end of the log, unless the reader has scrolled up. */
function keepingPlace(change) {
  const following = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  change();
  if (following) log.scrollTop = log.scrollHeight;
  else $("newer").hidden = false;
}

log.addEventListener("scroll", () => {
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 60) $("newer").hidden = true;
});
$("newer").addEventListener("click", () => {
  log.scrollTop = log.scrollHeight;
});

// Sending

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = text.value.trim();
  if (!words) return;
  const nonce = crypto.randomUUID?.() ?? String(Math.random());
  if (!client.send({ type: "say", text: words, nonce })) return; // the text stays in the field
  const item = line({ user_id: me.id, name: me.name, text: words, at: new Date().toISOString() });
  const again = el("button", { type: "button", className: "again" }, "Not confirmed. Send again?");
  again.addEventListener("click", () => {
    if (client.send({ type: "say", text: words, nonce })) item.classList.remove("unsure");
  });
  item.classList.add("pending");
  item.lastChild.append(again);
  show(item);
  pending.set(nonce, { item });
  log.scrollTop = log.scrollHeight;
  text.value = "";
  fit();
  lastTyped = -Infinity;
});

text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

let lastTyped = -Infinity;

text.addEventListener("input", () => {
  fit();
  if (!text.value || performance.now() - lastTyped < TYPING_EVERY_MS) return;
  if (client.send({ type: "typing" })) lastTyped = performance.now();
});

function fit() {
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight + 2, 160)}px`;
}

// Typing and presence

const typers = new Map(); // name and timer, by user

function types({ user_id: id, name }) {
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

function gone(id, left) {
  $("how-many").textContent = left;
  for (const item of $("people").children) if (item.dataset.user === id) item.remove();
}

function showRooms() {
  const link = (item) => item.querySelector("a");
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
