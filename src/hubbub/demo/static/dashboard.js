import { client, connect } from "./live.js";
import { $, el, header, messageOf, requireUser, toast } from "./ui.js";

const KEPT = 120;
const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * @typedef {import("./endpoint").Sample} Sample
 * @typedef {keyof Sample} Key
 * @typedef {{ users: number, rooms: number, process: number | string }} Counted
 * @typedef {{ title: string, key: Key, unit?: string, least: number, more: (counted: Counted) => string }} Graph
 */

// Each graph: the field of a sample, its unit, the least that its scale reaches to, and the caption.
/** @type {Graph[]} */
const GRAPHS = [
  { title: "Connections", key: "connections", least: 4, more: ({ users, rooms }) => `${count(users, "user")} in ${count(rooms, "room")}` },
  { title: "Published", key: "published_per_s", unit: "/s", least: 4, more: () => "messages to rooms and users" },
  { title: "Received", key: "received_per_s", unit: "/s", least: 4, more: () => "messages from clients" },
  { title: "CPU", key: "cpu_percent", unit: "%", least: 10, more: () => "of one core" },
  { title: "Memory", key: "memory_mb", unit: "MB", least: 80, more: ({ process }) => `of the server’s process, ${process}` },
  { title: "Event loop delay", key: "loop_delay_ms", unit: "ms", least: 4, more: () => "how late a timer is" },
];

/** @type {Partial<Record<Key, string>>} */
const COUNTS = {
  queued_bytes: "Bytes waiting for slow clients",
  dropped: "Messages dropped for them",
  slow: "Closed because too slow",
  stalled: "Aborted because stalled",
  bad_messages: "Bad messages",
  refused: "Connections refused",
  fast_path_percent: "On the fast path, %",
};

header();
await requireUser();

/** @type {Sample[]} */
let samples = [];
let intervalMs = 500;
let heardAt = 0;

const graphs = GRAPHS.map((graph) => {
  const value = el("span", { className: "value" }, "–");
  const below = el("p", { className: "quiet" }, graph.more({ users: 0, rooms: 0, process: "–" }));
  const canvas = el("canvas");
  canvas.role = "img";
  const scale = el("p", { className: "scale", ariaHidden: "true" }, ...Array.from({ length: 3 }, () => el("span")));
  const ages = el("p", { className: "ages", ariaHidden: "true" }, el("span", {}, "1 min ago"), el("span", {}, "now"));
  const plot = el("div", { className: "plot" }, scale, canvas, ages);
  const number = el("p", {}, value, el("span", { className: "unit" }, graph.unit ?? ""));
  const item = el("li", { className: "card graph" }, el("h2", {}, graph.title), number, below, plot);
  $("graphs").append(item);
  return { ...graph, value, below, canvas, scale, top: graph.least };
});

const counts = /** @type {[Key, string][]} */ (Object.entries(COUNTS)).map(([key, words]) => {
  const value = el("dd", {}, "–");
  $("counts").append(el("div", {}, el("dt", {}, words), value));
  return { key, value };
});

// Each worker measures itself, and joins the page to a room of its own.
client.on("connected", async () => {
  try {
    const { data } = await client.rpc("watch");
    samples = data.samples;
    intervalMs = data.interval_s * 1000;
    show();
  } catch (error) {
    if (client.state === "connected") toast(messageOf(error));
  }
});
client.on("publication", ({ channel, data }) => {
  if (!channel.startsWith("dashboard:")) return;
  samples = [...samples, data].slice(-KEPT);
  show();
});
connect();

function show() {
  const latest = samples.at(-1);
  if (!latest) return;
  heardAt = performance.now();
  for (const graph of graphs) {
    graph.value.textContent = written(latest[graph.key]);
    graph.below.textContent = graph.more(latest);
    rescale(graph);
  }
  for (const { key, value } of counts) value.textContent = written(latest[key]);
  draw();
}

/**
 * Fits the scale to the samples. Its end and its middle are round numbers.
 * @param {(typeof graphs)[number]} graph
 */
function rescale(graph) {
  const values = samples.map((sample) => sample[graph.key] ?? 0);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const unit = 10 ** Math.floor(Math.log10(Math.max(graph.least, most)));
  const top = [1, 2, 4, 6, 8, 10].find((times) => times * unit >= Math.max(graph.least, most));
  graph.top = unit * (top ?? 10);
  [graph.top, graph.top / 2, 0].forEach((number, index) => (graph.scale.children[index].textContent = written(number)));
  graph.canvas.ariaLabel = `${graph.title} over the last minute: from ${written(least)} to ${written(most)}`;
}

/** @param {number | null | undefined} number */
function written(number) {
  if (number === null || number === undefined) return "–";
  return number.toLocaleString("en", { maximumFractionDigits: Math.abs(number) < 10 ? 1 : 0 });
}

/**
 * @param {number} number
 * @param {string} noun
 */
function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

// The graph moves between samples: the newest one slides in while the next is in flight.

let slide = 1;

function draw() {
  slide = still.matches ? 1 : Math.min(1, (performance.now() - heardAt) / intervalMs);
  for (const graph of graphs) plot(graph);
}

/** @param {(typeof graphs)[number]} graph */
function plot({ canvas, key, top }) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const style = getComputedStyle(canvas); // resolves light-dark(), unlike a custom property
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);

  context.strokeStyle = style.caretColor;
  context.lineWidth = 1;
  for (const part of [0, 0.5, 1]) {
    const y = Math.round((height - 1) * part) + 0.5;
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(width, y);
    context.stroke();
  }

  const values = samples.map((sample) => sample[key] ?? 0);
  if (values.length < 2) return;
  const step = width / (KEPT - 2);
  const x = (/** @type {number} */ index) => width - (values.length - 1 - index + slide - 1) * step;
  const y = (/** @type {number} */ value) => (height - 1) * (1 - value / top) + 0.5;

  context.beginPath();
  values.forEach((value, index) => context.lineTo(x(index), y(value)));
  context.strokeStyle = style.color;
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(x(values.length - 1), height);
  context.lineTo(x(0), height);
  context.globalAlpha = 0.14;
  context.fillStyle = style.color;
  context.fill();
  context.globalAlpha = 1;
}

function animate() {
  if (slide < 1) draw();
  requestAnimationFrame(animate);
}

requestAnimationFrame(animate);
addEventListener("theme", draw);
addEventListener("resize", draw);
