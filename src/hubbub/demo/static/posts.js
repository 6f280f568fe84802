import { client, connect } from "./live.js";
import { api } from "./session.js";
import { $, avatar, el, header, messageOf, nameOf, only, requireUser, time, toast } from "./ui.js";

/** @typedef {import("./endpoint").Post} Post */

const HEART = "M12 20S4 15 4 9.3A4.3 4.3 0 0 1 12 7a4.3 4.3 0 0 1 8 2.3C20 15 12 20 12 20z";

header();
const me = await requireUser();
/** @type {Map<number, { item: HTMLElement, version: number }>} */
const shown = new Map(); // posts by id

const posts = client.newSubscription("posts");
posts.on("publication", ({ data }) => show(data));
posts.on("subscribed", ({ recovered }) => {
  if (recovered) return; // what was missed arrives as well
  shown.clear();
  $("posts").replaceChildren();
  load(); // only now: new posts already arrive, so none is missed in between
});
posts.subscribe();
connect();

async function load() {
  try {
    for (const post of await api("GET", "/api/posts")) show(post);
    $("nothing").hidden = shown.size > 0;
  } catch (error) {
    toast(messageOf(error));
  }
}

/** @param {Post} post */
function show(post) {
  const known = shown.get(post.id);
  if (known && known.version >= post.version) return; // a response and a message may arrive in any order
  const item = known?.item ?? draw(post);
  const mine = post.liked_by.includes(me.id);
  const count = post.liked_by.length;
  const button = only("button", item);
  button.ariaPressed = String(mine);
  button.ariaLabel = `Like, ${count} ${count === 1 ? "person likes" : "people like"} this`;
  only(".count", button).textContent = String(count);
  shown.set(post.id, { item, version: post.version });
  $("nothing").hidden = true;
}

/** @param {Post} post */
function draw(post) {
  const button = el("button", { type: "button", className: "like" }, heart(), el("span", { className: "count" }));
  button.addEventListener("click", async () => {
    try {
      show(await api(button.ariaPressed === "true" ? "DELETE" : "PUT", `/api/posts/${post.id}/like`));
    } catch (error) {
      toast(messageOf(error));
    }
  });
  const heading = el("p", { className: "heading" }, nameOf(post.author), time(post.at));
  const body = el("p", { className: "text", dir: "auto" }, post.text);
  const item = el("li", { className: "card post" });
  item.dataset.id = String(post.id);
  item.append(avatar({ id: post.author_id, name: post.author }), el("div", {}, heading, body, button));
  const after = cards().find((other) => Number(other.dataset.id) < post.id) ?? null;
  $("posts").insertBefore(item, after);
  return item;
}

/** @returns {HTMLElement[]} */
function cards() {
  return [...$("posts").querySelectorAll("li")];
}

function heart() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", HEART);
  svg.append(path);
  return svg;
}

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  try {
    show(await api("POST", "/api/posts", { text }));
    $("text").value = "";
    $("problem").textContent = "";
  } catch (error) {
    $("problem").textContent = messageOf(error);
  }
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("composer").requestSubmit();
});
