// Helpers for all pages: the DOM, people, times, toasts, the header.

import { forget, signOut, user } from "./session.js";

/**
 * @typedef {{ id: string, name: string }} Person
 * @typedef {{
 *   board: HTMLCanvasElement,
 *   clear: HTMLButtonElement,
 *   composer: HTMLFormElement,
 *   bell: HTMLDetailsElement,
 *   name: HTMLInputElement,
 *   text: HTMLTextAreaElement,
 *   tools: HTMLFormElement,
 *   width: HTMLInputElement,
 * }} Elements those that are more than an HTMLElement, by their ids
 */

/** @type {<Id extends string>(id: Id) => Id extends keyof Elements ? Elements[Id] : HTMLElement} */
export const $ = (id) => /** @type {any} */ (document.getElementById(id));

/**
 * Returns the only element that a selector finds.
 * @type {<Kind extends HTMLElement = HTMLElement>(selector: string, within?: ParentNode) => Kind}
 */
export const only = (selector, within = document) => /** @type {any} */ (within.querySelector(selector));

/** Returns the message of an error, which may be anything. @param {unknown} error */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));

/**
 * Creates an element. Children are elements or text; text never becomes markup.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Partial<HTMLElementTagNameMap[Tag]>} properties
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

/**
 * Creates an avatar: two letters on a color that belongs to the user.
 * @param {HTMLElement} element
 * @param {Person} person
 */
export function paintAvatar(element, { id, name }) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) % 360;
  element.style.setProperty("--hue", String(hash));
  const words = name.split(" ");
  const letters = words.length > 1 ? [words[0], words[words.length - 1]].map((word) => [...word][0]) : [...name].slice(0, 2);
  element.dataset.letters = letters.join("").toUpperCase();
  return element;
}

/** @param {Person} person */
export function avatar(person) {
  const element = paintAvatar(el("span", { className: "avatar" }), person);
  element.ariaHidden = "true";
  return element;
}

/**
 * Creates the element of a user's name, isolated so that its text direction does not affect the text around it.
 * @param {string} name
 */
export function nameOf(name) {
  return el("bdi", { className: "name" }, name);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

/** @param {string} at */
export function time(at) {
  const date = new Date(at);
  return el("time", { dateTime: date.toISOString(), title: date.toLocaleString() }, clock.format(date));
}

/** The list of the users in a room. */
export class People {
  #list;
  #onCount;
  /** @type {Map<string, HTMLElement>} */
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

  /**
   * Shows the users that are found. Those who join or leave meanwhile follow.
   * @param {() => Person[] | Promise<Person[]>} find
   */
  load(find) {
    this.#then(async () => {
      const people = await find();
      this.#items.clear();
      this.#list.replaceChildren();
      for (const person of people) this.#show(person);
    });
  }

  /** @param {Person} person */
  join(person) {
    this.#then(() => this.#show(person));
  }

  /** @param {string} id */
  leave(id) {
    this.#then(() => {
      this.#items.get(id)?.remove();
      this.#items.delete(id);
    });
  }

  /** @param {() => void | Promise<void>} change */
  #then(change) {
    this.#shown = this.#shown
      .then(change)
      .then(() => this.#onCount(this.#items.size))
      .catch(() => {}); // offline: the list is loaded again later
  }

  /** @param {Person} person */
  #show({ id, name }) {
    if (this.#items.has(id)) return;
    const item = el("li", { title: name }, avatar({ id, name }), nameOf(name));
    item.dataset.user = id;
    if (id === user()?.id) item.append(el("span", { className: "quiet" }, "you"));
    this.#items.set(id, item);
    this.#list.append(item);
  }
}

/**
 * @param {string} text
 * @param {string} [link]
 */
export function toast(text, link) {
  const element = el("div", { className: "toast" }, link ? el("a", { href: link }, text) : text);
  element.dir = "auto";
  const gone = setTimeout(() => element.remove(), 6000);
  element.addEventListener("click", () => {
    clearTimeout(gone);
    element.remove();
  });
  $("toasts").append(element);
  while ($("toasts").children.length > 4) $("toasts").firstElementChild?.remove();
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
    for (const menu of openMenus()) if (!menu.contains(/** @type {Node} */ (target))) menu.open = false;
  });
  addEventListener("keydown", ({ key }) => {
    const [menu] = key === "Escape" ? openMenus() : [];
    if (menu) {
      menu.open = false;
      only("summary", menu).focus();
    }
  });
  const me = user();
  if (!me) return;
  paintAvatar(only("#me .avatar"), me);
  $("my-name").textContent = me.name;
  $("sign-out").addEventListener("click", async () => {
    try {
      await signOut();
      location.assign("/");
    } catch (error) {
      toast(messageOf(error));
    }
  });
}

/** @returns {NodeListOf<HTMLDetailsElement>} */
function openMenus() {
  return document.querySelectorAll(".menu[open]");
}

/** Returns the user. Without one, redirects to the sign-in page, which then leads back here. */
export async function requireUser() {
  const me = user();
  if (me) return me;
  forget();
  location.replace(`/?next=${encodeURIComponent(location.pathname + location.search)}`);
  return new Promise(() => {}); // this page does nothing more
}
