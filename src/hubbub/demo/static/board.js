import * as notifications from "./notifications.js";
import { onSignOut } from "./session.js";
import { open } from "./socket.js";
import { offline, say, signedOut, stopped } from "./status.js";
import { $, el, header, only, People, requireUser, toast } from "./ui.js";

// The layout of a piece is in the server's board.py.
const PIECE = 1;
const HEADER_BYTES = 5;
const MAX_POINTS = 256;
const EDGE = 65535;
const SEND_EVERY_MS = 40;

const COLOURS = { Black: "#1f2430", Red: "#d92d3a", Orange: "#e8791a", Green: "#14915a", Blue: "#2563eb", Violet: "#7c3aed", Paper: "#fdfdfb" };

/**
 * @typedef {[number, number]} Point
 * @typedef {{ user_id: string, info: { name: string } }} Member
 * @typedef {(
 *   | { type: "hello", people: Member[] }
 *   | { type: "cleared" }
 *   | { type: "cleared_by", name: string }
 *   | { type: "user_joined" } & Member
 *   | { type: "user_left", user_id: string }
 *   | { type: "error", message: string }
 * )} Told
 */

header();
await requireUser();
const board = $("board");
const context = /** @type {CanvasRenderingContext2D} */ (board.getContext("2d"));
context.lineCap = context.lineJoin = "round";

const people = new People($("people"));
let canDraw = false;
/** @type {Point[] | null} */
let points = null; // of the current stroke: the last point that was sent, and those that were not
let wasLost = false;
const socket = open("/ws/board", {
  onOpen() {
    context.clearRect(0, 0, board.width, board.height); // the server sends all pieces, unless it refuses
  },
  onMessage(data) {
    if (data instanceof ArrayBuffer) draw(new DataView(data));
    else told(JSON.parse(data));
  },
  onLost() {
    wasLost = true;
    points = null;
    allowDrawing(false);
    offline(socket.tryNow);
  },
  onRefused(reason) {
    allowDrawing(false);
    if (reason === "token expired") signedOut("your sign-in has expired");
    else if (reason.startsWith("unauthorized")) signedOut("the server does not know this sign-in");
    else stopped(reason);
  },
});
onSignOut(() => {
  socket.close();
  allowDrawing(false);
  signedOut("you signed out");
});

/** @param {Told | notifications.News} message */
function told(message) {
  if (notifications.take(message)) return;
  if (message.type === "hello") welcomed(message);
  else if (message.type === "cleared") context.clearRect(0, 0, board.width, board.height);
  else if (message.type === "cleared_by") toast(`${message.name} cleared the board`);
  else if (message.type === "user_joined") people.join(person(message));
  else if (message.type === "user_left") people.leave(message.user_id);
  else if (message.type === "error") toast(`The server did not take that: ${message.message}`);
}

/** @param {{ people: Member[] }} message */
function welcomed(message) {
  allowDrawing(true);
  say("open", wasLost ? "Reconnected: the drawing was loaded again" : "Connected");
  people.load(() => message.people.map(person));
  notifications.load();
}

/** @param {boolean} isAllowed */
function allowDrawing(isAllowed) {
  canDraw = isAllowed;
  board.classList.toggle("offline", !isAllowed);
  $("off").hidden = isAllowed;
  $("clear").disabled = !isAllowed;
}

/** @param {Member} member */
function person({ user_id: id, info }) {
  return { id, name: info.name };
}

// Pieces of strokes

/** @param {DataView} piece */
function draw(piece) {
  const count = (piece.byteLength - HEADER_BYTES) / 4;
  if (piece.byteLength < HEADER_BYTES + 4 || piece.getUint8(0) !== PIECE) return;
  /** @type {(index: number) => Point} */
  const point = (index) => [
    (piece.getUint16(HEADER_BYTES + 4 * index) / EDGE) * board.width,
    (piece.getUint16(HEADER_BYTES + 4 * index + 2) / EDGE) * board.height,
  ];
  context.lineWidth = piece.getUint8(1);
  context.strokeStyle = `rgb(${piece.getUint8(2)} ${piece.getUint8(3)} ${piece.getUint8(4)})`;
  context.beginPath();
  if (count === 1) {
    context.fillStyle = context.strokeStyle;
    context.arc(...point(0), context.lineWidth / 2, 0, 2 * Math.PI);
    context.fill();
    return;
  }
  for (let index = 0; index < count; index += 1) context.lineTo(...point(index));
  context.stroke();
}

/**
 * @param {Point[]} points
 * @param {{ width: number, colour: string }} pen
 */
function pieceOf(points, { width, colour }) {
  const piece = new DataView(new ArrayBuffer(HEADER_BYTES + 4 * points.length));
  piece.setUint8(0, PIECE);
  piece.setUint8(1, width);
  for (const part of [0, 1, 2]) piece.setUint8(2 + part, parseInt(colour.slice(1 + 2 * part, 3 + 2 * part), 16));
  points.forEach(([x, y], index) => {
    piece.setUint16(HEADER_BYTES + 4 * index, x);
    piece.setUint16(HEADER_BYTES + 4 * index + 2, y);
  });
  return piece;
}

// Drawing: shown here immediately, and to the others through the server

/** @type {number | undefined} */
let timer;

/**
 * @param {MouseEvent} event
 * @returns {Point}
 */
function place({ clientX, clientY }) {
  const { left, top, width, height } = board.getBoundingClientRect();
  const within = (/** @type {number} */ part) => Math.round(Math.min(1, Math.max(0, part)) * EDGE);
  return [within((clientX - left) / width), within((clientY - top) / height)];
}

board.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0 || !canDraw) return;
  event.preventDefault();
  board.setPointerCapture(event.pointerId);
  points = [place(event)];
  flush();
});

board.addEventListener("pointermove", (event) => {
  if (!points || !event.isPrimary) return;
  const moves = event.getCoalescedEvents?.() ?? [];
  const fresh = (moves.length > 0 ? moves : [event]).map(place);
  draw(pieceOf([points[points.length - 1], ...fresh], pen()));
  points.push(...fresh);
  timer ??= setTimeout(flush, SEND_EVERY_MS);
});

for (const end of /** @type {const} */ (["pointerup", "pointercancel", "lostpointercapture"])) {
  board.addEventListener(end, (event) => {
    if (!points || !event.isPrimary) return;
    if (points.length > 1) flush();
    points = null;
  });
}

function flush() {
  clearTimeout(timer);
  timer = undefined;
  if (!points) return;
  const { length } = points;
  for (let from = 0; from === 0 || from < length - 1; from += MAX_POINTS - 1) {
    const piece = pieceOf(points.slice(from, from + MAX_POINTS), pen());
    if (length === 1) draw(piece);
    socket.send(piece);
  }
  points = points.slice(-1);
}

// Tools

/** The tool that is chosen. */
function pen() {
  return { width: Number($("width").value), colour: String(new FormData($("tools")).get("colour")) };
}

for (const [name, colour] of Object.entries(COLOURS)) {
  const input = el("input", { type: "radio", name: "colour", value: colour, checked: name === "Black", ariaLabel: name });
  const label = el("label", { className: "colour", title: name }, input);
  label.style.setProperty("--colour", colour);
  $("colours").append(label);
}

$("tools").addEventListener("input", showSample);
$("tools").addEventListener("submit", (event) => event.preventDefault());

function showSample() {
  const { width, colour } = pen();
  const dot = only(":first-child", $("sample"));
  dot.style.width = dot.style.height = `${Math.max(2, (width * 28) / 40)}px`;
  dot.style.background = colour;
}

showSample();

/** @type {number | undefined} */
let sure;

$("clear").addEventListener("click", () => {
  const asked = sure !== undefined;
  clearTimeout(sure);
  sure = undefined;
  $("clear").textContent = "Clear";
  if (asked) {
    socket.send("clear");
  } else {
    $("clear").textContent = "For all?";
    sure = setTimeout(() => {
      sure = undefined;
      $("clear").textContent = "Clear";
    }, 3_000);
  }
});
