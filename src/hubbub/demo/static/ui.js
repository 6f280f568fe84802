// Helpers for all pages: the DOM, people, times, toasts, the header.

import { forget, signOut, user } from "./session.js";

export const $ = (id) => document.getElementById(id);

/** Creates an element. Children are elements or text; text never becomes markup. */
export function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Creates an avatar: two letters on a color that belongs to the user. */
export function paintAvatar(element, { id, name }) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.codePointAt(0)) % 360;
  element.style.setProperty("--hue", hash);
  const words = name.split(" ");
  const letters = words.length > 1 ? [words[0], words.at(-1)].map((word) => [...word][0]) : [...name].slice(0, 2);
  element.dataset.letters = letters.join("").toUpperCase();
  return element;
}

export function avatar(person) {
  const element = paintAvatar(el("span", { className: "avatar" }), person);
  element.ariaHidden = "true";
  return element;
}

/** Creates the element of a user's name, isolated so that its text direction does not affect the text around it. */
export function nameOf(name) {
  return el("bdi", { className: "name" }, name);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

export function time(at) {
  const date = new Date(at);
  return el("time", { dateTime: date.toISOString(), title: date.toLocaleString() }, clock.format(date));
}

/** The list of the users in a room. */
export class People {
  #list;
  #onCount;
  #items = new Map(); // by user
  #shown = Promise.resolve();

  /**
   * @param {HTMLElement} list
   * @param {(count: number) => void} [onCount]
   */
  constructor(list, onCount = () => {}) {
    this.#list = list;
    this.#onCount = onCount;
  }

  /** Shows the users that are found. Those who join or leave meanwhile follow. */
  load(find) {
    this.#then(async () => {
      const people = await find();
      this.#items.clear();
      this.#list.replaceChildren();
      for (const person of people) this.#show(person);
    });
  }

  join(person) {
    this.#then(() => this.#show(person));
  }

  leave(id) {
    this.#then(() => {
      this.#items.get(id)?.remove();
      this.#items.delete(id);
    });
  }

  #then(change) {
    this.#shown = this.#shown
      .then(change)
      .then(() => this.#onCount(this.#items.size))
      .catch(() => {}); // offline: the list is loaded again later
  }

  #show({ id, name }) {
    if (this.#items.has(id)) return;
    const item = el("li", { title: name }, avatar({ id, name }), nameOf(name));
    item.dataset.user = id;
    if (id === user()?.id) item.append(el("span", { className: "quiet" }, "you"));
    this.#items.set(id, item);
    this.#list.append(item);
  }
}

export function toast(text, link) {
  const element = el("div", { className: "toast" }, link ? el("a", { href: link }, text) : text);
  element.dir = "auto";
  const gone = setTimeout(() => element.remove(), 6000);
  element.addEventListener("click", () => {
    clearTimeout(gone);
    element.remove();
  });
  $("toasts").append(element);
  while ($("toasts").children.length > 4) $("toasts").firstChild.remove();
}

/** Connects the controls of the header. */
export function header() {
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    dispatchEvent(new Event("theme"));
  });
  addEventListener("click", ({ target }) => {
    for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(target)) menu.open = false;
  });
  addEventListener("keydown", ({ key }) => {
    const menu = key === "Escape" && document.querySelector(".menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  const me = user();
  if (!me) return;
  paintAvatar(document.querySelector("#me .avatar"), me);
  $("my-name").textContent = me.name;
  $("sign-out").addEventListener("click", async () => {
    try {
      await signOut();
      location.assign("/");
    } catch (error) {
      toast(error.message);
    }
  });
}

/** Returns the user. Without one, redirects to the sign-in page, which then leads back here. */
export async function requireUser() {
  const me = user();
  if (me) return me;
  forget();
  location.replace(`/?next=${encodeURIComponent(location.pathname + location.search)}`);
  return new Promise(() => {}); // this page does nothing more
}
