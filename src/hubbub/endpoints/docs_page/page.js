/**
 * The page of an endpoint: its rooms and methods, and a console to try them.
 *
 * All that it knows is in the AsyncAPI document beside it. Its parts, in this order: elements and text; the document;
 * schemas, to read; forms, which are made from schemas; the timeline; the connection; rooms and methods.
 *
 * Nothing that a server says becomes HTML: elements are made by `h`, and text stays text.
 */

import { Centrifuge } from "./hubbub.js";

/** @typedef {any} Schema A JSON schema. */
/** @typedef {import("./hubbub.js").Subscription} Subscription */
/** @typedef {import("./hubbub.js").ClientInfo} ClientInfo */
/** @typedef {Node | string | null | undefined | false} Child */
/**
 * A part of a form.
 *
 * @typedef {object} Control
 * @property {HTMLElement} element
 * @property {(problems: string[]) => any} get Returns the value, or undefined if there is none; tells what is wrong.
 * @property {(value: any) => void} set
 */

const MAX_ROWS = 500;
const MANY = 6; // items, from which on there is a filter
const LONG = 100; // characters, from which on a text has several lines

// Elements and text

/**
 * Makes an element. Functions are handlers of events; other properties are attributes.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any> | null} [properties]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...shown(children));
  return element;
}

/**
 * @param {Child[]} children
 * @returns {(Node | string)[]}
 */
function shown(children) {
  return /** @type {(Node | string)[]} */ (children.filter(Boolean));
}

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
function byId(id) {
  return /** @type {T} */ (document.getElementById(id));
}

/** @param {Child[]} children */
const chip = (...children) => h("span", { class: "chip" }, ...children);
/** @param {string} text */
const code = (text, kind = "") => h("code", kind ? { class: kind } : null, text);
/** @param {string} text @param {(event: Event) => void} click */
const button = (text, click, kind = "") => h("button", { type: "button", class: kind || null, click }, text);

let lastId = 0;
const newId = () => `id-${++lastId}`;

/** Details whose content is made when they are opened first, so that recursive schemas have an end.
 *
 * @param {Child[]} summary
 * @param {() => Child[]} make
 * @param {Record<string, any>} [properties]
 */
function lazy(summary, make, properties) {
  const details = h("details", properties, h("summary", null, ...summary));
  details.addEventListener("toggle", () => details.open && details.append(...shown(make())), { once: true });
  return details;
}

/**
 * Shows a description. Of Markdown, it knows paragraphs, headings, lists, quotes, code, emphasis and links.
 *
 * @param {string | undefined} text
 */
function prose(text, kind = "prose") {
  if (!text) return null;
  const box = h("div", { class: kind });
  for (const [index, part] of text.split(/^```.*\n?/m).entries()) {
    if (index % 2) box.append(h("pre", null, part.trimEnd()));
    else box.append(...blocks(part));
  }
  return box;
}

const HEADING = /^ {0,3}#{1,6}\s+(.*)$/;
const QUOTED = /^ {0,3}>\s?/;
const ITEM = /^( {0,3})(?:[-*+]|(\d{1,9})[.)])\s+/;
const DEEPEST = 6; // quotes and lists within each other

/** @param {string} text @returns {HTMLElement[]} */
function blocks(text, depth = 0) {
  /** @type {{ kind: "p" | "ul" | "ol" | "blockquote" | "heading", start?: string, parts: string[] }[]} */
  const found = [];
  let isApart = true; // the line before is empty
  for (const line of text.split("\n")) {
    const last = found.at(-1);
    const item = ITEM.exec(line);
    const heading = HEADING.exec(line);
    const isList = last?.kind === "ul" || last?.kind === "ol";
    if (!line.trim()) {
      isApart = true;
      if (isList) last.parts.push(`${last.parts.pop()}\n`);
      continue;
    }
    if (isList && /^\s{2}/.test(line)) last.parts.push(`${last.parts.pop()}\n${line.replace(/^ {1,4}/, "")}`);
    else if (item) {
      const kind = item[2] ? "ol" : "ul";
      const content = line.slice(item[0].length);
      if (last?.kind === kind) last.parts.push(content);
      else found.push({ kind, start: item[2], parts: [content] });
    } else if (heading) found.push({ kind: "heading", parts: [/** @type {string} */ (heading[1])] });
    else if (QUOTED.test(line)) {
      const content = line.replace(QUOTED, "");
      if (last?.kind === "blockquote" && !isApart) last.parts.push(content);
      else found.push({ kind: "blockquote", parts: [content] });
    } else if (last && !isApart && last.kind !== "heading") last.parts.push(`${last.parts.pop()}\n${line}`);
    else found.push({ kind: "p", parts: [line] });
    isApart = false;
  }
  return found.map(({ kind, start, parts }) => {
    if (kind === "heading") return h("p", null, h("strong", null, ...inline(parts.join("\n"))));
    if (kind === "p" || depth === DEEPEST) return h("p", null, ...inline(parts.join("\n")));
    if (kind === "blockquote") return h("blockquote", null, ...blocks(parts.join("\n"), depth + 1));
    const items = parts.map((each) => {
      const inner = blocks(each, depth + 1);
      const [first, ...rest] = inner;
      return h("li", null, ...(first?.tagName === "P" ? [...first.childNodes, ...rest] : inner));
    });
    return h(kind, { start: start !== "1" && start }, ...items);
  });
}

const INLINE = new RegExp(
  `(${[
    /``?[^`]+``?/,
    /\*\*[^*]+\*\*|(?<!\w)__[^_]+__(?!\w)/,
    /(?<![\w*])\*(?![\s*])[^*]*[^\s*]\*(?![\w*])|(?<!\w)_(?![\s_])[^_]*[^\s_]_(?!\w)/,
    /\[[^\]]+\]\(https?:[^)\s]+\)/,
  ]
    .map(({ source }) => source)
    .join("|")})`,
);

/**
 * @param {string} text
 * @returns {Child[]}
 */
function inline(text) {
  return text.split(INLINE).map((part, index) => {
    if (index % 2 === 0) return part;
    if (part.startsWith("`")) return code(part.replaceAll("`", ""));
    if (/^(\*\*|__)/.test(part)) return h("strong", null, ...inline(part.slice(2, -2)));
    if (/^[*_]/.test(part)) return h("em", null, ...inline(part.slice(1, -1)));
    const link = /^\[([^\]]+)\]\((https?:[^)\s]+)\)$/.exec(part);
    return link ? h("a", { href: link[2], rel: "noopener noreferrer", target: "_blank" }, link[1]) : part;
  });
}

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** Shows a value as JSON, in colors unless it is very long.
 *
 * @param {any} value
 */
function json(value, properties = {}) {
  const text = JSON.stringify(value, null, 2) ?? "nothing";
  const pre = h("pre", { class: "json", ...properties });
  if (text.length > 20_000) pre.append(text);
  else {
    let at = 0;
    for (const found of text.matchAll(TOKEN)) {
      const kind = found[2] ? "key" : found[1] ? "string" : "other";
      pre.append(text.slice(at, found.index), h("span", { class: kind }, found[1] ?? found[0]), found[2] ?? "");
      at = found.index + found[0].length;
    }
    pre.append(text.slice(at));
  }
  return pre;
}

/** @param {any} error */
const reason = (error) => (error instanceof Error ? error.message : String(error));

// The document

/** @type {any} */
let spec = {};

/** @param {{ $ref: string }} reference */
function target({ $ref }) {
  if (!$ref.startsWith("#/")) return {}; // a schema elsewhere
  return $ref
    .slice(2)
    .split("/")
    .reduce((node, key) => node[key.replaceAll("~1", "/").replaceAll("~0", "~")], spec);
}

/**
 * Returns the schemas of the messages of an operation.
 *
 * @param {any} owner the operation, or its reply
 * @returns {{ schema: Schema, example: any }[]}
 */
function messagesOf(owner) {
  return (owner?.messages ?? [])
    .filter((/** @type {any} */ each) => !each.$ref.endsWith("/messages/error"))
    .map((/** @type {any} */ each) => {
      const message = target(target(each));
      return { schema: message.payload, example: message.examples?.[0]?.payload };
    });
}

/** @type {Map<string, Set<string>>} the models by their titles, where the two sides of one are the same model */
let titled = new Map();

/** @param {string} $ref a model as the document calls it */
const modelOf = ($ref) => ($ref.split("/").pop() ?? "").replace(/-(Input|Output)$/, "");

function readTitles() {
  titled = new Map();
  for (const [key, { title }] of Object.entries(spec.components?.schemas ?? {}))
    titled.set(title, (titled.get(title) ?? new Set()).add(modelOf(key)));
}

/**
 * Returns the name of a model: its title, or its name in the document if several have the title.
 *
 * @param {string} $ref
 */
function nameOf($ref) {
  const { title } = target({ $ref });
  return title !== undefined && (titled.get(title)?.size ?? 0) < 2 ? title : modelOf($ref);
}

/**
 * Returns a schema without references and `allOf`. If its type has a name, it is in `$name`, and its reference in `$key`.
 *
 * @param {Schema} schema
 * @returns {Schema}
 */
function resolved(schema) {
  if (typeof schema !== "object") return {};
  if (schema.$ref) {
    const found = target(schema);
    return { ...resolved(found), $key: schema.$ref, $name: nameOf(schema.$ref) };
  }
  if (!schema.allOf) return schema;
  const { allOf, ...rest } = schema;
  const parts = [...allOf.map(resolved), rest];
  const merged = Object.assign({}, ...parts);
  if (parts.some((each) => each.properties)) {
    merged.properties = Object.assign({}, ...parts.map((each) => each.properties));
    merged.required = parts.flatMap((each) => each.required ?? []);
  }
  return merged;
}

/** @param {Schema} schema @returns {Schema[] | undefined} */
function alternatives(schema) {
  const types = Array.isArray(schema.type)
    ? schema.type.map((/** @type {string} */ type) => ({ ...schema, type }))
    : undefined;
  return schema.anyOf ?? schema.oneOf ?? types;
}

/** @param {Schema} schema @returns {Schema[]} */
const itemsOf = (schema) => (Array.isArray(schema.items) ? schema.items : schema.items ? [schema.items] : []);

/** The schema of the values of a mapping, if it is one.
 *
 * @param {Schema} schema
 */
function valuesOf({ properties, additionalProperties, patternProperties }) {
  if (additionalProperties) return additionalProperties;
  if (patternProperties) return Object.values(patternProperties)[0];
  return properties || additionalProperties === false ? undefined : {};
}

// Schemas, to read

/**
 * @param {Schema} schema
 * @returns {string}
 */
function typeOf(schema) {
  const found = resolved(schema);
  if (found.$name) return found.$name;
  if ("const" in found) return JSON.stringify(found.const);
  if (found.enum) return found.enum.map((/** @type {any} */ each) => JSON.stringify(each)).join(" | ");
  const union = alternatives(found);
  if (union) return [...new Set(union.map(typeOf))].join(" | ");
  if (found.type === "array") {
    if (Array.isArray(found.items)) return `[${found.items.map(typeOf).join(", ")}]`;
    const item = typeOf(found.items);
    return item.includes(" | ") ? `(${item})[]` : `${item}[]`;
  }
  if (found.type === "object" && !found.properties) return `{ [key]: ${typeOf(valuesOf(found))} }`;
  const format = found.format ?? found.contentEncoding;
  return format ? `${found.type ?? "any"} (${format})` : (found.type ?? "any");
}

/**
 * Says what a schema asks for besides its type.
 *
 * @param {Schema} schema
 * @returns {string[]}
 */
function limitsOf(schema) {
  const texts = [];
  /** @param {number} least @param {number} most @param {string} what */
  const range = (least, most, what) => {
    if (!least && most === undefined) return;
    const bounds =
      most === undefined
        ? `at least ${least}`
        : !least
          ? `at most ${most}`
          : least === most
            ? most
            : `${least} to ${most}`;
    texts.push(`${bounds} ${(most ?? least) === 1 ? what : `${what}s`}`);
  };
  if (schema.$name && schema.enum)
    texts.push(schema.enum.map((/** @type {any} */ each) => JSON.stringify(each)).join(" | "));
  range(schema.minLength, schema.maxLength, "character");
  if (!Array.isArray(schema.items)) range(schema.minItems, schema.maxItems, "item");
  range(schema.minProperties, schema.maxProperties, "key");
  if (schema.minimum !== undefined) texts.push(`≥ ${schema.minimum}`);
  if (schema.exclusiveMinimum !== undefined) texts.push(`> ${schema.exclusiveMinimum}`);
  if (schema.maximum !== undefined) texts.push(`≤ ${schema.maximum}`);
  if (schema.exclusiveMaximum !== undefined) texts.push(`< ${schema.exclusiveMaximum}`);
  if (schema.multipleOf !== undefined) texts.push(`multiple of ${schema.multipleOf}`);
  if (schema.pattern) texts.push(`matches ${schema.pattern}`);
  if (schema.uniqueItems) texts.push("no item twice");
  if (schema.additionalProperties === false) texts.push("no other keys");
  if (schema.default !== undefined) texts.push(`default ${JSON.stringify(schema.default)}`);
  for (const each of schema.examples ?? []) if (!schema.properties) texts.push(`such as ${JSON.stringify(each)}`);
  for (const each of alternatives(schema) ?? []) {
    const found = resolved(each);
    if (!found.properties) texts.push(...limitsOf(Array.isArray(found.type) ? {} : found));
  }
  return [...new Set(texts)];
}

/**
 * Returns the schemas with properties that a schema is made of.
 *
 * @param {Schema} schema
 * @param {Set<string>} seen
 * @returns {Schema[]}
 */
function objectsIn(schema, seen = new Set()) {
  const found = resolved(schema);
  if (found.$key) {
    if (seen.has(found.$key)) return [];
    seen.add(found.$key);
  }
  const union = alternatives(found);
  if (union) return union.flatMap((each) => objectsIn(each, seen));
  if (found.type === "array") return itemsOf(found).flatMap((each) => objectsIn(each, seen));
  if (found.properties) return [found];
  return found.type === "object" ? objectsIn(valuesOf(found), seen) : [];
}

/** @param {Schema} schema */
function schemaView(schema) {
  const found = resolved(schema);
  return h(
    "div",
    { class: "schema" },
    h("p", { class: "type-line" }, code(typeOf(schema), "type"), ...limitsOf(found).map((each) => chip(each))),
    prose(found.description, "hint"),
    found.properties ? properties(found) : inside(schema),
  );
}

/** @param {Schema} schema @returns {HTMLElement} */
function properties(schema) {
  const rows = Object.entries(schema.properties).map(([name, each]) => {
    const found = resolved(each);
    return h(
      "li",
      null,
      h(
        "p",
        { class: "property" },
        code(name, found.deprecated ? "name deprecated" : "name"),
        code(typeOf(each), "type"),
        schema.required?.includes(name) && h("span", { class: "required" }, "required"),
        found.deprecated && h("span", { class: "old" }, "deprecated"),
        ...limitsOf(found).map((text) => chip(text)),
      ),
      prose(found.description, "hint"),
      inside(each),
    );
  });
  return h("ul", { class: "properties" }, ...rows);
}

/** The objects in a schema, to open.
 *
 * @param {Schema} schema
 * @returns {HTMLElement | null}
 */
function inside(schema) {
  const found = objectsIn(schema);
  if (found.length === 0) return null;
  return h(
    "div",
    { class: "inside" },
    ...found.map((each) =>
      lazy([code(each.$name ?? each.title ?? "object", "type")], () => [
        prose(each.description, "hint"),
        properties(each),
      ]),
    ),
  );
}

/** The codes with which the server refuses, and when, in a list for each thing that a client does.
 *
 * @param {Record<string, Record<string, string> | undefined>} all
 */
function errorsView(all) {
  const lists = Object.entries(all).filter(([, errors]) => Object.keys(errors ?? {}).length > 0);
  if (lists.length === 0) return null;
  const views = lists.flatMap(([title, errors]) => [
    title && h("p", { class: "hint" }, title),
    h(
      "dl",
      { "aria-label": title || null },
      ...Object.entries(errors ?? {}).flatMap(([key, text]) => [h("dt", null, code(key)), h("dd", null, text)]),
    ),
  ]);
  return part("Errors", h("div", { class: "errors" }, ...views));
}

/** @param {string} title @param {...Child} children */
const part = (title, ...children) => h("div", { class: "part" }, h("h4", null, title), ...children);

// Forms

/** @param {Schema} schema */
const isNull = (schema) => resolved(schema).type === "null" || resolved(schema).const === null;
/** @param {Schema} schema */
const isScalar = (schema) =>
  "const" in schema || schema.enum || ["string", "number", "integer", "boolean"].includes(schema.type);

/**
 * A field with its label. One that is not required may be left empty, and is then not sent.
 *
 * @param {Schema} schema
 * @param {string} name
 * @param {boolean} isRequired
 * @returns {Control}
 */
function field(schema, name, isRequired) {
  let found = resolved(schema);
  const others = (alternatives(found) ?? []).filter((each) => !isNull(each));
  if (!isRequired && (found.default ?? null) === null && others.length === 1 && alternatives(found)?.length === 2) {
    const { anyOf, oneOf, ...rest } = found;
    found = { ...resolved(others[0]), ...rest };
  }
  const [type, hint] = [code(typeOf(schema), "type"), prose(found.description, "hint")];
  const star = isRequired && h("span", { class: "required", "aria-hidden": "true" }, "*");
  if (isScalar(found)) {
    const [id, hintId] = [newId(), newId()];
    const control = scalar(found, name, isRequired, {
      id,
      "aria-describedby": hint ? hintId : null,
      "aria-required": isRequired && !("const" in found) && "true",
    });
    hint?.setAttribute("id", hintId);
    const label = h("label", { for: id, class: found.deprecated ? "deprecated" : null }, name);
    control.set(found.examples?.[0] ?? (isRequired ? found.default : undefined));
    return {
      ...control,
      element: h("div", { class: "field" }, h("div", { class: "label" }, label, star, type), control.element, hint),
    };
  }
  if (isRequired) {
    const control = composite(found, name);
    const legend = h("legend", null, name, " ", star, " ", type);
    return { ...control, element: h("fieldset", null, legend, hint, control.element) };
  }
  return optional(found, name, type, hint);
}

/**
 * @param {Schema} schema
 * @param {string} name
 * @param {HTMLElement} type
 * @param {Child} hint
 * @returns {Control}
 */
function optional(schema, name, type, hint) {
  const id = newId();
  /** @type {Control | null} */
  let control = null;
  const tick = h("input", { id, type: "checkbox", change: () => update() });
  const box = h("div", { hidden: true });
  const update = () => {
    if (tick.checked && !control) {
      control = composite(schema, name);
      box.append(control.element);
    }
    box.hidden = !tick.checked;
  };
  const made = {
    element: h("fieldset", null, h("legend", null, tick, " ", h("label", { for: id }, name), " ", type), hint, box),
    get: (/** @type {string[]} */ problems) => (tick.checked ? control?.get(problems) : undefined),
    set: (/** @type {any} */ value) => {
      tick.checked = value !== undefined;
      update();
      if (value !== undefined) control?.set(value);
    },
  };
  if (schema.examples?.length) made.set(schema.examples[0]);
  return made;
}

/**
 * @param {Schema} schema
 * @param {string} name
 * @param {boolean} isRequired
 * @param {Record<string, any>} attributes
 * @returns {Control}
 */
function scalar(schema, name, isRequired, attributes) {
  if ("const" in schema) {
    return { element: h("output", attributes, JSON.stringify(schema.const)), get: () => schema.const, set: () => {} };
  }
  const values = schema.enum ?? (schema.type === "boolean" ? [true, false] : null);
  if (values) {
    const unset = schema.default === undefined ? "not sent" : `default: ${JSON.stringify(schema.default)}`;
    const select = h(
      "select",
      attributes,
      !isRequired && h("option", { value: "" }, unset),
      ...values.map((/** @type {any} */ each, /** @type {number} */ index) =>
        h("option", { value: index }, label(each)),
      ),
    );
    return {
      element: select,
      get: () => (select.value === "" ? undefined : values[Number(select.value)]),
      set: (value) => (select.value = value === undefined ? (isRequired ? "0" : "") : String(values.indexOf(value))),
    };
  }
  const placeholder =
    schema.default !== undefined && schema.default !== null
      ? schema.default === ""
        ? "default: empty"
        : `default: ${label(schema.default)}`
      : FORMATS[schema.format];
  const common = { ...attributes, placeholder: placeholder ?? null, spellcheck: "false", autocomplete: "off" };
  if (schema.type !== "string") {
    const { minimum: min, maximum: max } = schema;
    const input = h("input", { ...common, type: "number", step: schema.type === "integer" ? 1 : "any", min, max });
    return {
      element: input,
      get: (problems) => {
        if (input.validity.badInput || (isRequired && input.value === "")) problems.push(`${name}: enter a number`);
        return input.value === "" ? undefined : Number(input.value);
      },
      set: (value) => (input.value = value === undefined || value === null ? "" : String(value)),
    };
  }
  const isLong = schema.maxLength > LONG && !schema.format && !schema.pattern;
  const input = isLong
    ? h("textarea", { ...common, rows: 2 })
    : h("input", { ...common, type: TYPES[schema.format] ?? "text" });
  return {
    element: input,
    get: () => (input.value === "" && !isRequired ? undefined : input.value),
    set: (value) => (input.value = value === undefined || value === null ? "" : String(value)),
  };
}

/** @type {Record<string, string>} */
const TYPES = { date: "date", email: "email", password: "password", uri: "url" };
/** @type {Record<string, string>} */
const FORMATS = {
  "date-time": "2026-01-31T12:00:00Z",
  time: "12:00:00Z",
  duration: "PT1H30M",
  uuid: "00000000-0000-4000-8000-000000000000",
};

/** @param {any} value */
const label = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/**
 * @param {Schema} schema
 * @param {string} name
 * @returns {Control}
 */
function composite(schema, name) {
  const { $key } = schema;
  if (building.has($key)) return anything(name);
  if ($key) building.add($key);
  const control = compositeOf(schema, name);
  building.delete($key);
  const first = schema.examples?.[0] ?? schema.default;
  if (first !== undefined && (first !== null || alternatives(schema))) control.set(first);
  return control;
}

/** The types whose forms are being made: a type within itself has no end. @type {Set<string>} */
const building = new Set();

/** @param {Schema} schema @param {string} name @returns {Control} */
function compositeOf(schema, name) {
  const union = alternatives(schema);
  if (union) return choice(union, name);
  if (schema.type === "array") return Array.isArray(schema.items) ? tuple(schema.items, name) : list(schema, name);
  if (schema.type === "object") return object(schema, name);
  if (schema.type === "null") return { element: h("output", null, "null"), get: () => null, set: () => {} };
  return anything(name);
}

/** A value without a label of its own: an item, or an alternative.
 *
 * @param {Schema} schema
 * @param {string} name
 * @returns {Control}
 */
function bare(schema, name) {
  const found = resolved(schema);
  if (!isScalar(found)) return composite(found, name);
  const control = scalar(found, name, true, { "aria-label": name });
  control.set(found.examples?.[0] ?? found.default);
  return control;
}

/** @param {Schema} schema @param {string} name @returns {Control} */
function object(schema, name) {
  const fields = Object.entries(schema.properties ?? {}).map(
    ([key, each]) => /** @type {const} */ ([key, field(each, key, Boolean(schema.required?.includes(key)))]),
  );
  const values = valuesOf(schema);
  const rest = values === undefined ? null : mapping(values, name, new Set(fields.map(([key]) => key)));
  return {
    element: h("div", { class: "object" }, ...fields.map(([, each]) => each.element), rest?.element),
    get: (problems) => {
      const got = fields.map(([key, each]) => [key, each.get(problems)]).filter(([, value]) => value !== undefined);
      return { ...Object.fromEntries(got), ...rest?.get(problems) };
    },
    set: (value) => {
      for (const [key, each] of fields) each.set(value?.[key]);
      rest?.set(value);
    },
  };
}

/** A list of rows, each with a button that removes it.
 *
 * @param {string} name
 * @param {string} what
 * @param {(index: number) => Control} make
 */
function rows(name, what, make) {
  /** @type {{ control: Control, row: HTMLElement }[]} */
  let all = [];
  const items = h("ol", { class: "rows" });
  const add = () => {
    const control = make(all.length);
    const row = h("li", null, h("div", null, control.element));
    const entry = { control, row };
    row.append(
      button(
        "Remove",
        () => {
          all = all.filter((each) => each !== entry);
          row.remove();
          more.focus();
        },
        "small",
      ),
    );
    all.push(entry);
    items.append(row);
    return control;
  };
  const more = button(
    `Add ${what}`,
    () => {
      add();
      /** @type {HTMLElement | null} */ (all.at(-1)?.row.querySelector("input, select, textarea, button"))?.focus();
    },
    "small",
  );
  more.setAttribute("aria-label", `Add ${what} to ${name}`);
  return {
    element: h("div", { class: "list" }, items, more),
    add,
    controls: () => all.map(({ control }) => control),
    clear: () => {
      all = [];
      items.replaceChildren();
    },
  };
}

/** @param {Schema} schema @param {string} name @returns {Control} */
function list(schema, name) {
  const items = rows(name, "item", (index) => bare(schema.items ?? {}, `${name} ${index + 1}`));
  for (let count = 0; count < Math.min(schema.minItems ?? 0, 20); count++) items.add();
  return {
    element: items.element,
    get: (problems) => items.controls().map((each) => each.get(problems) ?? null),
    set: (value) => {
      items.clear();
      if (Array.isArray(value)) for (const each of value) items.add().set(each);
    },
  };
}

/** @param {Schema} schema @param {string} name @param {Set<string>} taken @returns {Control} */
function mapping(schema, name, taken) {
  const entries = rows(name, "key", (index) => {
    const key = h("input", { "aria-label": `${name} key ${index + 1}`, placeholder: "key", spellcheck: "false" });
    const value = bare(schema, `${name} value ${index + 1}`);
    return {
      element: h("div", { class: "pair" }, key, value.element),
      get: (problems) => [key.value, value.get(problems) ?? null],
      set: ([name, each]) => {
        key.value = name;
        value.set(each);
      },
    };
  });
  return {
    element: entries.element,
    get: (problems) => Object.fromEntries(entries.controls().map((each) => each.get(problems))),
    set: (value) => {
      entries.clear();
      if (typeof value !== "object" || value === null) return;
      for (const each of Object.entries(value)) if (!taken.has(each[0])) entries.add().set(each);
    },
  };
}

/** @param {Schema[]} items @param {string} name @returns {Control} */
function tuple(items, name) {
  const controls = items.map((each, index) => bare(each, `${name} ${index + 1}`));
  return {
    element: h("div", { class: "tuple" }, ...controls.map(({ element }) => element)),
    get: (problems) => controls.map((each) => each.get(problems) ?? null),
    set: (value) => controls.forEach((each, index) => each.set(value?.[index])),
  };
}

/** @param {Schema[]} schemas @param {string} name @returns {Control} */
function choice(schemas, name) {
  /** @type {(Control | undefined)[]} */
  const made = [];
  const box = h("div");
  const select = h(
    "select",
    { "aria-label": `${name}: which type`, change: () => show() },
    ...schemas.map((each, index) => h("option", { value: index }, typeOf(each))),
  );
  const show = () => {
    const index = Number(select.value);
    const control = (made[index] ??= bare(schemas[index], name));
    box.replaceChildren(control.element);
    return control;
  };
  show();
  return {
    element: h("div", { class: "choice" }, select, box),
    get: (problems) => show().get(problems),
    set: (value) => {
      const index = schemas.findIndex((each) => fits(each, value));
      if (index >= 0) select.value = String(index);
      show().set(value);
    },
  };
}

/** Whether a value may be of a schema: a look at its surface, to choose between alternatives.
 *
 * @param {Schema} schema
 * @param {any} value
 * @returns {boolean}
 */
function fits(schema, value) {
  const found = resolved(schema);
  if ("const" in found) return found.const === value;
  if (found.enum) return found.enum.includes(value);
  const union = alternatives(found);
  if (union) return union.some((each) => fits(each, value));
  const type = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  if (found.type === "integer") return Number.isInteger(value);
  if (found.type !== undefined && found.type !== type) return false;
  if (type !== "object" || !found.properties) return true;
  return (
    (found.required ?? []).every((/** @type {string} */ key) => key in value) &&
    Object.entries(found.properties).every(
      ([key, each]) => !(key in value) || !isScalar(resolved(each)) || fits(each, value[key]),
    )
  );
}

/** @param {string} name @returns {Control} */
function anything(name) {
  const text = h("textarea", {
    class: "json",
    rows: 2,
    spellcheck: "false",
    "aria-label": `${name}, as JSON`,
    placeholder: "JSON",
  });
  return {
    element: text,
    get: (problems) => parsed(text.value, name, problems),
    set: (value) => (text.value = JSON.stringify(value, null, 2) ?? ""),
  };
}

/** @param {string} text @param {string} name @param {string[]} problems */
function parsed(text, name, problems) {
  try {
    return JSON.parse(text);
  } catch (error) {
    problems.push(`${name}: ${text.trim() ? `this is no JSON (${reason(error)})` : "enter JSON"}`);
    return undefined;
  }
}

/** @param {any} one @param {any} other @returns {boolean} */
function isEqual(one, other) {
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return one === other;
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length && keys.every((key) => key in other && isEqual(one[key], other[key]))
  );
}

/**
 * The editor of a message: a form, and the same as JSON.
 *
 * @param {{ schema: Schema, example: any }} message
 * @param {string} name
 * @param {boolean} isRequired
 */
function editor({ schema, example }, name, isRequired) {
  const found = resolved(schema);
  const form = isRequired && !isScalar(found) ? composite(found, name) : field(schema, name, isRequired);
  if (example !== undefined) form.set(example);
  const text = h("textarea", {
    class: "json",
    rows: 8,
    spellcheck: "false",
    "aria-label": `${name}, as JSON`,
    hidden: true,
  });
  const problem = h("p", { class: "problem", role: "alert" });
  const isJson = () => !text.hidden;
  const toggle = h("button", { type: "button", class: "small", "aria-pressed": "false", click: () => flip() }, "JSON");
  const get = (/** @type {string[]} */ problems) => {
    if (!isJson()) return form.get(problems);
    return !isRequired && !text.value.trim() ? undefined : parsed(text.value, name, problems);
  };
  const flip = () => {
    /** @type {string[]} */
    const problems = [];
    if (isJson()) {
      const value = get(problems);
      if (problems.length === 0) {
        form.set(value);
        if (!isEqual(form.get([]), value)) problems.push("The form can't show all of this, so it stays JSON.");
      }
      problem.textContent = problems.join("; ");
      if (problems.length > 0) return;
    } else {
      text.value = JSON.stringify(form.get([]), null, 2) ?? "";
    }
    text.hidden = isJson();
    form.element.hidden = isJson();
    toggle.setAttribute("aria-pressed", String(isJson()));
  };
  const head = h("div", { class: "bar" }, h("p", { class: "title" }, name), toggle);
  const element = h("div", { class: "editor", role: "group", "aria-label": name }, head, form.element, text, problem);
  /** Returns the value, or says what is wrong. */
  const value = () => {
    /** @type {string[]} */
    const problems = [];
    const got = get(problems);
    problem.textContent = problems.join("; ");
    if (problems.length > 0) throw new Incomplete();
    return got;
  };
  return { element, value };
}

class Incomplete extends Error {}

// The timeline

/** @type {Record<string, string>} */
const GROUPS = {
  publication: "message",
  message: "message",
  join: "people",
  leave: "people",
  rpc: "request",
  query: "request",
  send: "request",
  publish: "request",
  answer: "request",
  error: "request",
  connection: "connection",
  room: "connection",
};

/** @typedef {{ kind: string, room?: string, text?: string, mark?: string, data?: any }} Event_ */

/** What happened, in at most MAX_ROWS rows. */
const timeline = new (class {
  #log = byId("log");
  #scroll = byId("scroll");
  #kinds = /** @type {HTMLSelectElement} */ (byId("kinds"));
  #rooms = /** @type {HTMLSelectElement} */ (byId("rooms"));
  #text = /** @type {HTMLInputElement} */ (byId("text"));
  #pause = byId("pause");
  #isPaused = false;
  /** @type {HTMLElement[]} */
  #waiting = [];
  #timer = 0;

  constructor() {
    for (const each of [this.#kinds, this.#rooms, this.#text]) each.addEventListener("input", () => this.#filter());
    this.#pause.addEventListener("click", () => {
      this.#isPaused = !this.#isPaused;
      if (!this.#isPaused) this.#flush();
      this.#count();
    });
    byId("clear").addEventListener("click", () => {
      this.#waiting = [];
      this.#log.replaceChildren();
      byId("nothing").hidden = false;
      this.#count();
    });
  }

  /** Adds a row, and returns what changes its text.
   *
   * @param {Event_} event
   */
  add({ kind, room, text, mark, data }) {
    const now = new Date();
    const time = `${now.toTimeString().slice(0, 8)}.${String(now.getMilliseconds()).padStart(3, "0")}`;
    const preview = data === undefined ? "" : JSON.stringify(data);
    const what = h("span", { class: "what" }, text);
    const head = [
      h("time", { datetime: now.toISOString() }, time),
      h("span", { class: "badge", "data-kind": kind }, kind),
      room !== undefined && code(room, "room"),
      mark && chip(mark),
      what,
      preview && h("code", { class: "preview" }, preview.length > 300 ? `${preview.slice(0, 300)}…` : preview),
    ];
    const isLarge = typeof data === "object" && data !== null;
    const content = isLarge ? lazy(head, () => [json(data)]) : h("p", null, ...head);
    const row = h("li", { "data-kind": kind, "data-group": GROUPS[kind], "data-room": room }, content);
    this.#waiting.push(row);
    if (this.#waiting.length > MAX_ROWS) this.#waiting.shift();
    if (room !== undefined && ![...this.#rooms.options].some(({ value }) => value === room)) {
      this.#rooms.append(h("option", { value: room }, room));
    }
    if (this.#isPaused) this.#count();
    else this.#timer ||= setTimeout(() => this.#flush()); // many at a time
    return (/** @type {string} */ changed) => what.replaceChildren(changed);
  }

  #flush() {
    this.#timer = 0;
    if (this.#isPaused) return;
    const isAtEnd = this.#scroll.scrollTop + this.#scroll.clientHeight >= this.#scroll.scrollHeight - 12;
    for (const row of this.#waiting) row.hidden = !this.#isShown(row);
    this.#log.append(...this.#waiting);
    this.#waiting = [];
    while (this.#log.childElementCount > MAX_ROWS) this.#log.firstElementChild?.remove();
    byId("nothing").hidden = this.#log.childElementCount > 0;
    if (isAtEnd) this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  #count() {
    const waiting = this.#waiting.length;
    this.#pause.textContent = !this.#isPaused ? "Pause" : waiting > 0 ? `Resume (${waiting} new)` : "Resume";
  }

  #filter() {
    for (const row of this.#log.children)
      /** @type {HTMLElement} */ (row).hidden = !this.#isShown(/** @type {HTMLElement} */ (row));
  }

  /** @param {HTMLElement} row */
  #isShown({ dataset, textContent }) {
    const [kind, room, text] = [this.#kinds.value, this.#rooms.value, this.#text.value.toLowerCase()];
    return (
      (!kind || dataset.group === kind) &&
      (!room || dataset.room === room) &&
      (!text || textContent.toLowerCase().includes(text))
    );
  }
})();

// The connection

/** The line between the page and the server. It can be cut, so that recovery can be watched. */
const line = {
  isCut: false,
  /** @type {WebSocket | null} */
  socket: null,

  /** @param {string} url @returns {any} */
  open(url) {
    if (!this.isCut) return (this.socket = new WebSocket(url));
    /** @type {any} */
    const dead = { readyState: WebSocket.CLOSED, send() {}, close() {} };
    setTimeout(() => dead.onclose?.({ code: 1006, reason: "the line is cut" }));
    return dead;
  },

  /** What is under way is lost, and the client hears of it at once. */
  cut() {
    this.isCut = true;
    const { socket } = this;
    this.socket = null;
    if (!socket) return;
    const { onclose } = socket;
    socket.onmessage = socket.onopen = socket.onclose = null;
    socket.close();
    onclose?.call(socket, new CloseEvent("close", { code: 1006, reason: "the line is cut" }));
  },

  restore() {
    this.isCut = false;
    dispatchEvent(new Event("online")); // upon which a client that waits tries at once
  },
};

const LOST = () => (line.isCut ? "The line is cut. Restore it to reconnect." : "Connection lost. Reconnecting…");

/** The WebSocket of the client. */
class CuttableSocket {
  /** @param {string} url */
  constructor(url) {
    return line.open(url);
  }
}

/** What the document says of the endpoint. @returns {any} */
const server = () => Object.values(spec.servers ?? {}).find((each) => each["x-hubbub"]?.kind === "endpoint");

/** Asks for what the security schemes describe. Without one for a token, the field is among the options. */
function showSecurity() {
  const schemes = (server()?.security ?? []).map(target);
  const takesToken = schemes.some((/** @type {any} */ { type, scheme, name }) =>
    type === "httpApiKey" ? name.toLowerCase() === "authorization" : scheme !== "basic",
  );
  const takesCookie = schemes.some((/** @type {any} */ each) => each.type === "httpApiKey" && each.in === "cookie");
  const input = /** @type {HTMLInputElement} */ (byId("token"));
  if (takesCookie) input.placeholder = "none: the cookies of this site apply";
  if (takesToken) return;
  if (!takesCookie) input.placeholder = "the endpoint describes none";
  byId("connect-data").before(/** @type {HTMLElement} */ (input.closest(".token")));
}

/** The address of the endpoint: that of this page, without its last part. */
function endpoint() {
  const query = /** @type {HTMLInputElement} */ (byId("query")).value.trim().replace(/^\?/, "");
  const declared = server();
  const path = location.pathname.replace(/\/docs\/?$/, "");
  const url = new URL((path || "/") + (path && declared?.["x-hubbub"].path.endsWith("/") ? "/" : ""), location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = query;
  return url.href;
}

const connection = new (class {
  /** @type {Centrifuge | null} */
  #client = null;
  #url = "";
  #button = byId("connect");
  #cut = /** @type {HTMLButtonElement} */ (byId("cut"));
  #hasConnected = false;
  #recovery = { rooms: 0, lost: 0, messages: 0 };
  /** @type {ReturnType<typeof editor> | null} */
  data = null;
  /** Called when another client takes the place of this one, whose subscriptions end. @type {() => void} */
  replaced = () => {};

  constructor() {
    byId("sign-in").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.isOff) this.#connect();
      else this.#client?.disconnect();
    });
    this.#cut.addEventListener("click", () => {
      const isCut = line.isCut;
      timeline.add({ kind: "connection", text: isCut ? "the line is restored" : "the line is cut" });
      if (isCut) line.restore();
      else line.cut();
      this.#cut.textContent = isCut ? "Cut the line" : "Restore the line";
    });
  }

  get isOff() {
    return !this.#client || this.#client.state === "disconnected";
  }

  /** The client: another one if the address was changed. */
  get client() {
    const url = endpoint();
    if (!this.#client || (this.isOff && url !== this.#url)) {
      this.replaced();
      this.#url = url;
      this.#client = new Centrifuge(url, { name: "docs", websocket: CuttableSocket });
      this.#watch(this.#client);
    }
    return this.#client;
  }

  #connect() {
    const { client } = this;
    try {
      client.setData(this.data?.value() ?? null);
    } catch {
      /** @type {HTMLDetailsElement} */ (byId("options")).open = true;
      return;
    }
    client.setToken(/** @type {HTMLInputElement} */ (byId("token")).value.trim());
    client.connect();
  }

  /** @param {string} state @param {string} text */
  #say(state, text) {
    const shown = byId("state");
    shown.dataset.state = state;
    shown.textContent = text;
    this.#button.textContent = state === "disconnected" || state === "failed" ? "Connect" : "Disconnect";
    this.#button.classList.toggle("primary", this.isOff);
    this.#cut.disabled = this.isOff && !line.isCut;
  }

  /** @param {Centrifuge} client */
  #watch(client) {
    client
      .on("connecting", ({ code, reason }) => {
        this.#recovery = { rooms: 0, lost: 0, messages: 0 };
        this.#say("connecting", this.#hasConnected && code !== 0 ? LOST() : "Connecting…");
        timeline.add({
          kind: "connection",
          text: code === 0 ? "connecting" : `lost (${code} ${reason}), reconnecting`,
        });
      })
      .on("connected", ({ client: id, data }) => {
        this.#say("connected", this.#hasConnected ? "Reconnected" : "Connected");
        if (this.#hasConnected) compare();
        this.#hasConnected = true;
        timeline.add({ kind: "connection", text: `connected as client ${id}`, data });
      })
      .on("disconnected", ({ code, reason }) => {
        this.#hasConnected = false;
        const isFailure = code !== 0;
        this.#say(isFailure ? "failed" : "disconnected", isFailure ? `Refused: ${reason} (${code})` : "Not connected");
        timeline.add({ kind: "connection", text: `disconnected (${code} ${reason})` });
      })
      .on("error", ({ type, error }) => {
        if (client.state === "connecting") {
          this.#say("connecting", line.isCut ? LOST() : `Connecting… (${error.message})`);
        }
        timeline.add({ kind: "connection", text: `${type} failed: ${error.message} (${error.code})` });
      })
      .on("message", ({ data }) => timeline.add({ kind: "message", data }))
      .on("subscribing", ({ channel }) =>
        timeline.add({ kind: "room", room: channel, text: "waits for the connection" }),
      )
      .on("unsubscribed", ({ channel }) =>
        timeline.add({ kind: "room", room: channel, text: "the server has ended it" }),
      );
    this.listen(client, "joined by the server: ");
  }

  /**
   * Tells of what comes from rooms, and says what recovery did.
   *
   * @param {any} source a subscription; or the client, for the rooms that the server joins it to
   * @param {string} prefix
   * @param {(text: string) => void} entered
   */
  listen(source, prefix = "", entered = () => {}) {
    let mark = "";
    let count = 0;
    /** @type {Map<string, string>} */
    const epochs = new Map();
    source
      .on("subscribed", (/** @type {any} */ context) => {
        const { channel, wasRecovering, recovered, recoverable, streamPosition, data } = context;
        const { epoch } = streamPosition ?? {};
        const isAnew = epoch !== (epochs.get(channel) ?? epoch);
        epochs.set(channel, epoch);
        mark = recovered ? "recovered" : "replayed";
        count = 0;
        const say = timeline.add({ kind: "room", room: channel, data });
        // The messages of the reply follow in the same turn.
        queueMicrotask(() => {
          mark = "";
          const messages = `${count} ${count === 1 ? "message" : "messages"}`;
          if (wasRecovering) this.#tally(recovered, count);
          const lost = !recoverable
            ? "the room has no history"
            : isAnew
              ? "the server's history began anew, as after a restart"
              : "more was missed than the server keeps";
          const text = recovered
            ? `recovered, ${messages}`
            : wasRecovering
              ? `not recovered: ${lost}`
              : count > 0
                ? `subscribed, ${messages} replayed`
                : "subscribed";
          say(prefix + text);
          entered(text);
        });
      })
      .on("publication", (/** @type {any} */ { channel, data, info }) => {
        count += 1;
        timeline.add({ kind: "publication", room: channel, mark, text: info && `from ${person(info)}`, data });
      })
      .on("join", (/** @type {any} */ { channel, info }) =>
        timeline.add({ kind: "join", room: channel, text: person(info), data: details(info) }),
      )
      .on("leave", (/** @type {any} */ { channel, info }) =>
        timeline.add({ kind: "leave", room: channel, text: person(info), data: details(info) }),
      );
  }

  /** @param {boolean} isRecovered @param {number} messages */
  #tally(isRecovered, messages) {
    const tally = this.#recovery;
    if (isRecovered) tally.rooms += 1;
    else tally.lost += 1;
    tally.messages += messages;
    const parts = [
      tally.rooms > 0 &&
        `${tally.rooms} ${tally.rooms === 1 ? "room" : "rooms"} recovered with ${tally.messages} missed ${tally.messages === 1 ? "message" : "messages"}`,
      tally.lost > 0 && `${tally.lost} not recovered`,
    ];
    if (this.#client?.state === "connected") this.#say("connected", `Reconnected: ${parts.filter(Boolean).join(", ")}`);
  }
})();

/** @param {ClientInfo} info */
const person = (info) => info.user || "an anonymous client";

/** @param {ClientInfo} info */
function details({ connInfo, chanInfo }) {
  return connInfo === undefined && chanInfo === undefined ? undefined : { connInfo, chanInfo };
}

/**
 * Runs a request, and shows its answer.
 *
 * @param {HTMLElement} box
 * @param {{ kind: string, room?: string, name?: string, data?: any }} request
 * @param {() => Promise<Child | { answer: any }>} run
 */
async function ask(box, { kind, room, name, data }, run) {
  if (connection.isOff) {
    box.replaceChildren(h("p", { class: "problem" }, "Connect first."));
    byId("connect").focus();
    return;
  }
  timeline.add({ kind, room, text: name, data });
  const begun = performance.now();
  const took = () => `${Math.max(1, Math.round(performance.now() - begun))} ms`;
  box.replaceChildren(h("p", { class: "hint" }, "Waiting for the answer…"));
  try {
    const result = await run();
    const isAnswer = typeof result === "object" && result !== null && "answer" in result;
    const answer = isAnswer ? result.answer : undefined;
    timeline.add({ kind: "answer", room, text: `${name ?? kind}, after ${took()}`, data: answer });
    box.replaceChildren(
      h("p", { class: "outcome good" }, h("strong", null, kind === "publish" ? "Published" : "Answered"), chip(took())),
      ...shown([
        isAnswer
          ? answer === undefined
            ? h("p", { class: "hint" }, "Without data.")
            : json(answer, { tabindex: 0 })
          : /** @type {Child} */ (result),
      ]),
    );
  } catch (error) {
    const { code: number, message, temporary } = /** @type {any} */ (error);
    timeline.add({ kind: "error", room, text: `${name ?? kind}: ${number} ${message}, after ${took()}` });
    const parts = [h("strong", null, `Error ${number}`), chip(took()), temporary && chip("temporary")];
    box.replaceChildren(h("p", { class: "outcome bad" }, ...parts), h("p", { class: "message" }, message));
  }
}

/**
 * A form whose submission reads its editors. While one of them is incomplete, it only clears its answer.
 *
 * @param {(event: SubmitEvent) => unknown} run
 * @param {HTMLElement | null} box the answer, which need not be in the form
 * @param {...Child} children
 */
function form(run, box, ...children) {
  return h(
    "form",
    {
      class: "console",
      novalidate: true,
      submit: (/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        try {
          run(event);
        } catch (error) {
          if (!(error instanceof Incomplete)) throw error;
          box?.replaceChildren();
        }
      },
    },
    ...children,
  );
}

const answerBox = () => h("div", { class: "answer", role: "status" });

// Rooms and methods

/**
 * A room, a method or another part of the endpoint, to open.
 *
 * @param {object} item
 * @param {string} item.key
 * @param {string} item.kind
 * @param {string} item.name
 * @param {any} item.about what has the summary, the description and the tags
 * @param {boolean} item.deprecated
 * @param {() => Child[]} item.content
 */
function itemView({ key, kind, name, about, deprecated, content }) {
  const { brief, rest } = split(about);
  const [, ...tags] = tagsOf(about);
  const summary = [
    h("span", { class: "badge", "data-kind": kind }, kind),
    h("h3", { class: deprecated ? "deprecated" : null }, code(name)),
    deprecated && h("span", { class: "old" }, "deprecated"),
    brief && h("span", { class: "brief" }, ...inline(brief)),
    ...tags.map((each) => chip(each)),
  ];
  const item = lazy(summary, () => [h("div", { class: "content" }, ...shown([prose(rest), ...content()]))], {
    class: "item",
    id: key,
  });
  item.addEventListener("toggle", () => item.open && history.replaceState(null, "", `#${encodeURIComponent(key)}`));
  return item;
}

/** What is in the line of an item, and what follows it: the first sentence of the description unless it has a summary.
 *
 * @param {{ summary?: string, description?: string }} about
 */
function split({ summary, description = "" }) {
  if (summary) return { brief: summary, rest: description };
  const text = description.trim();
  if (ITEM.test(text) || QUOTED.test(text) || text.startsWith("```")) return { brief: "", rest: text };
  const [line = ""] = text.split("\n", 1);
  const heading = HEADING.exec(line);
  if (heading) return { brief: heading[1], rest: text.slice(line.length).trim() };
  const [paragraph = ""] = text.split(/\n\s*\n|\n(?=\s*(?:[-*+>]|\d+[.)])\s)/, 1);
  const [brief] = /^.+?\.(?=\s+[^a-z\s])/s.exec(paragraph) ?? [paragraph];
  return { brief, rest: text.slice(brief.length).trim() };
}

/** @param {any} about @returns {string[]} */
const tagsOf = (about) => (about.tags ?? []).map((/** @type {any} */ { name }) => name);

/** @param {string} title @param {any} owner an operation, or its reply @param {string} empty */
const messagesView = (title, owner, empty) => part(title, ...schemasOf(owner, empty));

/** @param {any} owner @param {string} empty @returns {Child[]} */
function schemasOf(owner, empty) {
  const messages = messagesOf(owner);
  if (messages.length === 0) return [h("p", { class: "hint" }, empty)];
  return [
    messages.length > 1 && h("p", { class: "hint" }, "One of:"),
    ...messages.map(({ schema }) => schemaView(schema)),
  ];
}

/** @param {any} operation */
function methodContent(operation) {
  const { message, reply, errors } = operation["x-hubbub"];
  const { method } = target(operation.channel)["x-hubbub"];
  const [request] = messagesOf(operation);
  const data = request && editor(request, "Message", message?.required ?? true);
  const box = answerBox();
  const call = () => {
    const value = data?.value();
    return ask(box, { kind: "rpc", name: method, data: value }, async () => ({
      answer: (await connection.client.rpc(method, value)).data,
    }));
  };
  const send = () => {
    const value = data?.value();
    if (connection.isOff) return ask(box, { kind: "send" }, async () => null);
    timeline.add({ kind: "send", text: method, data: value });
    box.replaceChildren(h("p", { class: "outcome" }, "Sent. A message without an answer has no error either."));
    return connection.client.send({ method, ...(value !== undefined && { data: value }) });
  };
  return [
    h(
      "div",
      { class: "halves" },
      messagesView("Message", operation, "None."),
      messagesView("Answer", operation.reply, reply ? "Anything." : "Empty."),
    ),
    errorsView({ "": errors }),
    tryIt(
      form(
        (event) => (/** @type {HTMLButtonElement | null} */ (event.submitter)?.value === "send" ? send() : call()),
        box,
        data?.element,
        h(
          "div",
          { class: "actions" },
          h("button", { class: "primary", value: "rpc" }, "Call"),
          h("button", { value: "send" }, "Send without an answer"),
        ),
        box,
      ),
    ),
  ];
}

/** @param {...Child} children */
function tryIt(...children) {
  const made = part("Try it", ...children);
  made.classList.add("try");
  return made;
}

/**
 * @param {any} channel
 * @param {Record<string, any>} operations those of the room, by their kind
 */
function roomContent(channel, operations) {
  const { pattern, parameters, subscribe, options } = channel["x-hubbub"];
  const facts = [
    options.history !== null && `history of ${options.history}`,
    options.replay > 0 && `replays ${options.replay}`,
    options.announce && "tells of joins and leaves",
    options.client_presence && "presence",
    options.client_history && "history for clients",
    subscribe?.token && "subscription token",
  ].filter(Boolean);
  const { publications, publish } = operations;
  return [
    facts.length > 0 && h("p", { class: "facts" }, ...facts.map((each) => chip(each))),
    Object.keys(parameters).length > 0 &&
      part("Parameters", properties({ properties: parameters, required: Object.keys(parameters) })),
    h(
      "div",
      { class: "halves" },
      messagesView("Publications", publications, "Not declared."),
      publish
        ? part(
            "To publish",
            publish.description !== channel.description && prose(publish.description, "hint"),
            ...schemasOf(publish, "Anything."),
          )
        : part("To publish", h("p", { class: "hint" }, "Only the server publishes.")),
    ),
    operations.subscribe && messagesView("Data of the subscription", operations.subscribe, "None."),
    errorsView({
      "When subscribing": subscribe && {
        ...(Object.values(parameters).some(mayMisfit) && { [UNKNOWN_CHANNEL]: "a parameter does not fit its type" }),
        ...subscribe.errors,
      },
      "When publishing": publish?.["x-hubbub"].errors,
    }),
    subscribe && tryIt(...roomConsole(pattern, parameters, subscribe, options, operations)),
  ];
}

/**
 * @param {string} pattern
 * @param {Record<string, Schema>} parameters
 * @param {any} subscribe
 * @param {any} options
 * @param {Record<string, any>} operations
 */
function roomConsole(pattern, parameters, subscribe, options, operations) {
  const isPlain = !/[*?[]/.test(pattern);
  const fields = isPlain
    ? Object.entries(parameters).map(([name, each]) => /** @type {const} */ ([name, field(each, name, true)]))
    : [];
  const whole = isPlain ? null : field({ type: "string", description: `A name that matches ${pattern}` }, "room", true);
  const [message] = messagesOf(operations.subscribe);
  const data = message && editor(message, "Data", subscribe.required);
  const token = subscribe.token ? field({ type: "string", format: "password" }, "Subscription token", false) : null;
  const cards = h("div", { class: "cards" });
  const problem = h("p", { class: "problem", role: "alert" });
  const submit = h("button", { class: "primary" }, "Subscribe");
  const open = () => {
    /** @type {string[]} */
    const problems = [];
    const values = new Map(fields.map(([name, each]) => [name, each.get(problems)]));
    const room = whole
      ? whole.get(problems)
      : pattern.replace(/\{(\w+)(?::path)?\}/g, (_, name) => String(values.get(name) ?? ""));
    for (const [name, value] of values) {
      if (value === "") problems.push(`${name}: enter a value`);
      if (typeof value === "number") problems.push(...misfits(resolved(parameters[name]), name, value));
    }
    if (room === "") problems.push("room: enter a name");
    problem.textContent = problems.join("; ");
    if (problems.length > 0) return;
    const settings = { data: data?.value() ?? null, token: token?.get([]) ?? "" };
    const { client } = connection;
    const known = client.getSubscription(room);
    const shown = byId(`card:${room}`);
    if (known && !shown?.classList.contains("refused")) {
      known.subscribe();
      shown?.focus();
      return;
    }
    if (known) client.removeSubscription(known);
    const subscription = client.newSubscription(room, settings);
    const made = card(subscription, options, operations.publish, Object.keys(parameters), submit);
    if (shown && cards.contains(shown)) shown.replaceWith(made);
    else {
      shown?.remove();
      cards.append(made);
    }
    subscription.subscribe();
  };
  return [
    form(
      open,
      null,
      ...fields.map(([, each]) => each.element),
      whole?.element,
      data?.element,
      token?.element,
      problem,
      h("div", { class: "actions" }, submit),
    ),
    cards,
  ];
}

/** Says how a number is none of its schema.
 *
 * @param {Schema} schema
 * @param {string} name
 * @param {number} value
 * @returns {string[]}
 */
function misfits({ type, minimum, exclusiveMinimum, maximum, exclusiveMaximum }, name, value) {
  if (type === "integer" && !Number.isInteger(value)) return [`${name}: enter a whole number`];
  if (value < minimum) return [`${name}: enter at least ${minimum}`];
  if (value <= exclusiveMinimum) return [`${name}: enter more than ${exclusiveMinimum}`];
  if (value > maximum) return [`${name}: enter at most ${maximum}`];
  if (value >= exclusiveMaximum) return [`${name}: enter less than ${exclusiveMaximum}`];
  return [];
}

const UNKNOWN_CHANNEL = 102;

/** Whether not every text is a value of the schema of a parameter. @param {Schema} schema */
function mayMisfit(schema) {
  const { examples, default: _, ...found } = resolved(schema);
  return found.type !== "string" || found.format || found.enum || limitsOf(found).length > 0;
}

/** @type {Set<HTMLElement>} */
const cards = new Set();

/**
 * A subscription, and what one can do in its room.
 *
 * @param {Subscription} subscription
 * @param {any} options
 * @param {any} publish
 * @param {string[]} parameters the names of those that are part of the room's name
 * @param {HTMLElement} home has the focus when the subscription is removed
 */
function card(subscription, options, publish, parameters, home) {
  const room = subscription.channel;
  const state = h("span", { class: "state", role: "status" });
  const toggle = button(
    "Unsubscribe",
    () => (subscription.state === "unsubscribed" ? subscription.subscribe() : subscription.unsubscribe()),
    "small",
  );
  const remove = button(
    "Remove",
    () => {
      connection.client.removeSubscription(subscription);
      element.remove();
      cards.delete(element);
      home.focus();
    },
    "small",
  );
  const hint = h("p", { class: "hint", hidden: true });
  /** @param {string} kind @param {string} text */
  const say = (kind, text) => {
    state.dataset.state = kind;
    state.textContent = text;
    element.classList.toggle("refused", kind === "failed");
    hint.hidden = kind !== "failed" || !hint.textContent;
    for (const each of actions) if (each) each.hidden = kind === "failed";
    toggle.textContent = kind === "unsubscribed" || kind === "failed" ? "Subscribe" : "Unsubscribe";
  };
  const box = answerBox();
  const [message] = messagesOf(publish);
  const data =
    publish &&
    (message
      ? editor(message, "Message", publish["x-hubbub"].message?.required ?? true)
      : editor({ schema: {}, example: undefined }, "Message", false));
  const actions = [
    data &&
      form(
        () => {
          const value = data.value();
          ask(box, { kind: "publish", room, data: value }, async () => void (await subscription.publish(value)));
        },
        box,
        data.element,
        h("div", { class: "actions" }, h("button", { class: "primary" }, "Publish")),
      ),
    queries(subscription, options, box),
    box,
  ];
  const element = h(
    "section",
    { class: "card", id: `card:${room}`, tabindex: -1, "aria-label": `Subscription to ${room}` },
    h("div", { class: "bar" }, code(room, "room"), state, toggle, remove),
    hint,
    ...actions,
  );
  subscription
    .on("subscribing", ({ code, reason }) => {
      say("subscribing", connection.isOff ? "waits until you connect" : "subscribing…");
      if (code !== 0) timeline.add({ kind: "room", room, text: `lost (${code} ${reason}), subscribing again` });
    })
    .on("unsubscribed", ({ code, reason }) => {
      const text = code === 0 ? "unsubscribed" : `refused: ${reason} (${code})`;
      const isMisfit = code === UNKNOWN_CHANNEL && parameters.length > 0;
      hint.textContent = isMisfit ? `No room has this name: ${parameters.join(", ")} may not fit its type or limits.` : "";
      say(code === 0 ? "unsubscribed" : "failed", text);
      timeline.add({ kind: code === 0 ? "room" : "error", room, text });
    })
    .on("error", ({ type, error }) =>
      timeline.add({ kind: "error", room, text: `${type} failed: ${error.message} (${error.code})` }),
    );
  connection.listen(subscription, "", (text) => say("subscribed", text));
  say("subscribing", connection.isOff ? "waits until you connect" : "subscribing…");
  cards.add(element);
  return element;
}

connection.replaced = () => {
  for (const each of cards) each.remove();
  cards.clear();
};

/**
 * @param {Subscription} subscription
 * @param {any} options
 * @param {HTMLElement} box
 */
function queries(subscription, options, box) {
  const room = subscription.channel;
  /** @type {Child[]} */
  const controls = [];
  if (options.client_presence) {
    const presence = async () => {
      const { clients } = await subscription.presence();
      const people = Object.values(clients);
      return people.length === 0
        ? h("p", { class: "hint" }, "Nobody is there.")
        : table(
            ["User", "Client", "Info"],
            people.map((info) => [
              person(info),
              code(info.client),
              details(info) ? code(JSON.stringify(details(info))) : "–",
            ]),
          );
    };
    const stats = async () => {
      const { numClients, numUsers } = await subscription.presenceStats();
      return table(["Clients", "Users"], [[String(numClients), String(numUsers)]]);
    };
    controls.push(
      button("Presence", () => ask(box, { kind: "query", room, name: "presence" }, presence)),
      button("Presence stats", () => ask(box, { kind: "query", room, name: "presence stats" }, stats)),
    );
  }
  if (options.client_history) {
    const limit = h("input", {
      type: "number",
      min: -1,
      step: 1,
      value: 10,
      "aria-label": "At most how many messages",
    });
    const newest = h("input", { type: "checkbox", checked: true });
    const read = async () => {
      const { publications, offset, epoch } = await subscription.history({
        limit: Number(limit.value),
        reverse: newest.checked,
      });
      const position = h("p", { class: "hint" }, `The room is at offset ${offset} of epoch ${epoch}.`);
      const rows = publications.map(({ offset, data, info }) => [
        String(offset ?? "–"),
        info ? person(info) : "the server",
        code(JSON.stringify(data)),
      ]);
      return h("div", null, position, rows.length > 0 && table(["Offset", "From", "Data"], rows));
    };
    controls.push(
      h(
        "span",
        { class: "group" },
        button("History", () => ask(box, { kind: "query", room, name: "history" }, read)),
        limit,
        h("label", { class: "check" }, newest, " newest first"),
      ),
    );
  }
  return controls.length > 0 ? h("div", { class: "actions" }, ...controls) : null;
}

/** @param {string[]} head @param {Child[][]} rows */
function table(head, rows) {
  return h(
    "div",
    { class: "table", tabindex: 0, role: "group", "aria-label": "Answer" },
    h(
      "table",
      null,
      h("thead", null, h("tr", null, ...head.map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", null, ...rows.map((row) => h("tr", null, ...row.map((each) => h("td", null, each))))),
    ),
  );
}

// The whole

/** All that the document describes: rooms before methods. */
function items() {
  /** @type {Record<string, [string, any][]>} */
  const byChannel = {};
  for (const [key, operation] of Object.entries(spec.operations ?? {})) {
    (byChannel[operation.channel.$ref.split("/").pop()] ??= []).push([key, operation]);
  }
  const found = Object.entries(spec.channels ?? {}).map(([key, channel]) => {
    const own = (byChannel[key] ?? []).map(([, each]) => each);
    const operations = Object.fromEntries(own.map((each) => [each["x-hubbub"].kind, each]));
    const { kind, pattern, method, deprecated } = channel["x-hubbub"];
    const about =
      [channel, operations.publish, ...own].find((each) => each?.tags ?? each?.summary ?? each?.description) ?? channel;
    const base = { key, about, operations, channel };
    if (kind === "method") {
      return {
        ...base,
        kind: "rpc",
        group: "Methods",
        name: method,
        deprecated: operations.rpc["x-hubbub"].deprecated,
        content: () => methodContent(operations.rpc),
      };
    }
    if (kind === "room")
      return {
        ...base,
        kind,
        group: "Rooms",
        name: pattern,
        deprecated,
        content: () => roomContent(channel, operations),
      };
    if (kind === "raw") {
      const content = () => [
        h("p", { class: "hint" }, "A WebSocket of its own, without this endpoint's protocol."),
        h(
          "div",
          { class: "halves" },
          messagesView("Receives", operations.receive, "Not declared."),
          messagesView("Sends", operations.send, "Not declared."),
        ),
      ];
      return { ...base, kind, group: "Raw sockets", name: pattern, deprecated, content };
    }
    const content = () => [
      messagesView("Data", operations.connect, "None."),
      errorsView({ "": operations.connect?.["x-hubbub"].errors }),
    ];
    return {
      ...base,
      kind: "connect",
      group: "Connection",
      name: "connect",
      deprecated: operations.connect?.["x-hubbub"].deprecated,
      content,
    };
  });
  return found.sort((one, other) => GROUP_NAMES.indexOf(one.group) - GROUP_NAMES.indexOf(other.group));
}

const GROUP_NAMES = ["Connection", "Rooms", "Methods", "Raw sockets"];

function show() {
  const { title, version, description, tags = [] } = spec.info;
  document.title = `${title}: live documentation`;
  byId("title").textContent = title;
  byId("version").textContent = version;
  byId("version").hidden = !version;
  byId("address").textContent = endpoint();
  showSecurity();
  byId("description").replaceWith(prose(description) ?? "");
  const all = items();
  const connect = all.find(({ kind }) => kind === "connect")?.operations.connect;
  const [data] = messagesOf(connect);
  if (data) {
    connection.data = editor(data, "Data of the connection", connect["x-hubbub"].message?.required ?? false);
    byId("connect-data").append(connection.data.element);
    /** @type {HTMLDetailsElement} */ (byId("options")).open = Boolean(connect["x-hubbub"].message?.required);
  }
  /** @type {Map<string, any[]>} */
  const byTag = new Map(tags.map((/** @type {any} */ each) => [each.name, []]));
  for (const each of all) {
    const group = tagsOf(each.about)[0];
    if (group !== undefined) byTag.set(group, [...(byTag.get(group) ?? []), each]);
  }
  const sections = [...byTag].map(([name, members]) => ({
    name,
    members,
    text: tags.find((/** @type {any} */ each) => each.name === name)?.description,
  }));
  for (const name of GROUP_NAMES)
    sections.push({
      name,
      members: all.filter((each) => each.group === name && tagsOf(each.about).length === 0),
      text: "",
    });
  const views = sections.filter(({ members }) => members.length > 0).map(groupView);
  byId("reference").append(...views.map(({ element }) => element));
  if (views.length === 0)
    byId("reference").append(h("p", { class: "hint" }, "The endpoint has no documented rooms and methods."));
  search(
    views.flatMap((each) => each.items),
    all.length,
  );
  byId("connection").hidden = byId("columns").hidden = false;
  reveal();
}

/** @param {{ name: string, members: any[], text: string | undefined }} group */
function groupView({ name, members, text }) {
  const items = members.map((each) => {
    const element = itemView(each);
    const types = Object.values(each.operations).flatMap((operation) => [
      ...messagesOf(operation),
      ...messagesOf(operation.reply),
    ]);
    const words = [
      each.name,
      each.kind,
      ...tagsOf(each.about),
      each.about.summary,
      each.about.description,
      ...types.flatMap(({ schema }) => [typeOf(schema), ...fieldsOf(schema)]),
    ];
    return { element, words: words.join(" ").toLowerCase() };
  });
  const element = h(
    "details",
    { class: "group", open: true },
    h("summary", null, h("h2", null, name), text && h("span", { class: "brief" }, ...inline(text))),
    ...items.map((each) => each.element),
  );
  for (const each of items) Object.assign(each, { group: element });
  return { element, items };
}

/** The names of all fields in a schema.
 *
 * @param {Schema} schema
 * @param {Set<string>} known the references that were followed
 * @returns {string[]}
 */
function fieldsOf(schema, known = new Set()) {
  if (typeof schema !== "object" || schema === null) return [];
  const { $ref, properties = {}, patternProperties = {}, additionalProperties, anyOf, oneOf, allOf } = schema;
  if ($ref) return known.has($ref) ? [] : fieldsOf(target(schema), known.add($ref));
  const inner = [properties, patternProperties, anyOf, oneOf, allOf, itemsOf(schema)].flatMap((each) =>
    Object.values(each ?? {}),
  );
  return [...Object.keys(properties), ...[...inner, additionalProperties].flatMap((each) => fieldsOf(each, known))];
}

/** @param {any[]} all @param {number} count */
function search(all, count) {
  byId("search").hidden = count < MANY;
  const input = /** @type {HTMLInputElement} */ (byId("filter"));
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const each of all) each.element.hidden = !wanted.every((word) => each.words.includes(word));
    for (const { group } of all) group.hidden = all.every((each) => each.group !== group || each.element.hidden);
    const found = all.filter((each) => !each.element.hidden).length;
    byId("found").textContent = wanted.length > 0 ? `${found} of ${all.length}` : "";
  });
}

/** Opens the item that the address names. */
function reveal() {
  let key = location.hash.slice(1);
  try {
    key = decodeURIComponent(key);
  } catch {} // not an address of ours
  const item = key && document.querySelector(`.item[id="${CSS.escape(key)}"]`);
  if (!item) return;
  /** @type {HTMLDetailsElement} */ (item).open = true;
  item.scrollIntoView();
}

let source = "";

const get = () => fetch("asyncapi.json", { headers: { Accept: "application/json" }, cache: "no-cache" });

/** Tells if the document is another one than that which the page shows. */
async function compare() {
  try {
    const response = await get();
    if (response.ok && (await response.text()) !== source) byId("changed").hidden = false;
  } catch {} // lost again: the next connection compares
}

async function load() {
  const response = await get();
  if (response.ok) return JSON.parse((source = await response.text()));
  const body = await response.text();
  let detail = body;
  try {
    detail = label(JSON.parse(body).detail);
  } catch {} // an answer of a proxy
  throw new Error(
    `The server refuses the document (${response.status}): ${(detail || response.statusText).slice(0, 300)}`,
  );
}

try {
  spec = await load();
  readTitles();
  show();
} catch (error) {
  byId("problem").textContent = reason(error);
  byId("problem").hidden = false;
  if (spec.asyncapi) throw error;
}
