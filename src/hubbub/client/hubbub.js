/**
 * The browser client of hubbub: a WebSocket that reconnects, and recovers the messages it missed.
 *
 * Theory of operation. The client is in one of four states:
 *
 *     stopped ── connect() ──► connecting ── the socket opens ──► open
 *        ▲                         ▲  │                             │
 *        │                   timer │  │ fails                       │ closed, silent
 *        │                         │  ▼                             │
 *        └── close(), or a code ── waiting ◄────────────────────────┘
 *            that means stop
 *
 * A *link* is one attempt and the connection that it becomes. There is at most one. Events of an older link are
 * ignored, so the client leaves a link by forgetting it.
 *
 * A room with positions sends one `sync` frame per link. Each of its messages then carries a position (epoch, offset).
 * The client stores the latest one of each room, and presents them all in the query parameter `since` when it
 * reconnects. The server sends the missed messages, or reports that it can't.
 */

const EVENTS = ["message", "state", "sync", "reset", "dropped", "error"];

/** Close codes after which the client reconnects. After any other code, a retry would have the same result. */
const RETRY = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1014]);

/** Close codes that a server sends to many clients at once: their retries spread over four times as long. */
const SPREAD = new Set([1012, 1013]);

/** A connection that stays open this long resets the backoff. One that is closed right after accept does not. */
const HELD_MS = 5_000;

const HANDSHAKE_MS = 20_000;
const MAX_TIMER_MS = 2 ** 31 - 1;
const MAX_IDS = 8;

/** Servers and proxies accept request lines of 8 KiB. If not all rooms fit, the most recently active ones are sent. */
const MAX_SINCE_CHARS = 5_000;

const HEADER_BYTES = 21;
const MAGIC = 0x48554231; // "HUB1"
const UNPLACED = Object.freeze({ room: null, position: null, replayed: false });

export class HubbubClient {
  /**
   * The position in each room, after the last message received. To forget a room, delete it here.
   * @type {Map<string, {epoch: string, offset: number}>}
   */
  positions = new Map();

  #url;
  #token;
  #minDelayMs;
  #maxDelayMs;
  #pingIntervalMs;
  #handlers = new Map(EVENTS.map((event) => [event, new Set()]));
  #state = "stopped";
  #attempt = 0; // retries since a connection last stayed open
  #link = null;
  #ids = []; // of former connections whose own messages a replay may contain, newest first
  #retryTimer;
  #watching = null; // an AbortController for the listeners on window, while not stopped

  /**
   * @param {string | URL | (() => string | URL | Promise<string | URL>)} url the endpoint: relative to the page,
   *   ws(s) or http(s); a function is called for every attempt
   * @param {object} [options]
   * @param {string | (() => string | null | undefined | Promise<string | null | undefined>)} [options.token] sent as
   *   the subprotocol pair "bearer", token; a function is called for every attempt
   * @param {number} [options.minDelayMs] the first retry follows after a random delay of at most this
   * @param {number} [options.maxDelayMs] the bound on the delay doubles with every failure, up to this
   * @param {number} [options.pingIntervalMs] if above 0: ping the server this often, and replace a socket that is
   *   silent for twice as long
   * @param {boolean} [options.connect] whether to connect immediately, or to wait for `connect()`
   */
  constructor(url, options = {}) {
    const { token, minDelayMs = 500, maxDelayMs = 30_000, pingIntervalMs = 0, connect = true } = options;
    if (typeof url !== "function") address(url); // throws here instead of in every attempt
    this.#url = url;
    this.#token = token;
    this.#minDelayMs = milliseconds("minDelayMs", minDelayMs, 1);
    this.#maxDelayMs = milliseconds("maxDelayMs", maxDelayMs, 1);
    this.#pingIntervalMs = milliseconds("pingIntervalMs", pingIntervalMs, 0);
    if (connect) {
      this.#state = "connecting";
      // In a microtask, so that the caller can add its handlers first, or call close().
      queueMicrotask(() => this.#state === "connecting" && this.#dial());
    }
  }

  /** "connecting", "open", "waiting" or "stopped". */
  get state() {
    return this.#state;
  }

  /** The server's id of the current connection; null until the connection has joined a room with positions. */
  get connectionId() {
    return this.#link?.ids[0] ?? null;
  }

  /**
   * Calls the handler whenever the event happens. An error in a handler is reported, and affects nothing else.
   * @param {"message" | "state" | "sync" | "reset" | "dropped" | "error"} event
   * @param {Function} handler
   * @returns {() => void} a function that removes the handler
   */
  on(event, handler) {
    const handlers = this.#handlers.get(event);
    if (!handlers) throw new TypeError(`no event "${event}"; there are ${EVENTS.join(", ")}`);
    if (typeof handler !== "function") throw new TypeError(`the handler of "${event}" is no function`);
    handlers.add(handler);
    return () => handlers.delete(handler);
  }

  /**
   * Sends a message: a string, an ArrayBuffer, a view on one, or a Blob as it is, and anything else as JSON.
   * @param {unknown} value
   * @returns {boolean} whether the socket was open. Nothing is queued for later
   * @throws {TypeError} the value can't be written as JSON
   */
  send(value) {
    const binary = value instanceof ArrayBuffer || ArrayBuffer.isView(value) || value instanceof Blob;
    const data = binary || typeof value === "string" ? value : JSON.stringify(value);
    if (data === undefined) throw new TypeError(`can't send ${typeof value} as JSON`);
    const socket = this.#link?.socket;
    if (socket?.readyState !== WebSocket.OPEN) return false;
    socket.send(data);
    return true;
  }

  /** Connects now, if the client is stopped or waiting. Positions are kept. */
  connect() {
    if (this.#state === "stopped") this.#attempt = 0;
    if (this.#state === "stopped" || this.#state === "waiting") this.#dial();
  }

  /**
   * Closes, and stays closed until `connect()`.
   * @param {number} [code] 1000, or 3000 to 4999
   * @param {string} [reason] at most 123 bytes
   */
  close(code = 1000, reason = "") {
    if (this.#state !== "stopped") this.#stop(code, reason);
  }

  // A link, from its attempt to its end

  async #dial() {
    clearTimeout(this.#retryTimer);
    const link = { socket: null, timer: null, openedAt: null, heardAt: 0, asked: false, rooms: new Map(), ids: [] };
    this.#link = link;
    this.#watch();
    this.#become("connecting");
    try {
      const url = await (typeof this.#url === "function" ? this.#url() : this.#url);
      const token = await (typeof this.#token === "function" ? this.#token() : this.#token);
      if (link !== this.#link) return;
      link.socket = new WebSocket(this.#addSince(address(url)), token ? ["bearer", token] : []);
    } catch (error) {
      if (link === this.#link) this.#retry(null, String(error));
      return;
    }
    const whileCurrent = (react) => (event) => link === this.#link && react(event);
    link.socket.binaryType = "arraybuffer";
    link.socket.onopen = whileCurrent(() => this.#opened(link));
    link.socket.onmessage = whileCurrent(({ data }) => this.#receive(link, data));
    link.socket.onclose = whileCurrent(({ code, reason }) => this.#closed(code, reason));
    const patienceMs = Math.min(HANDSHAKE_MS, 2 * this.#pingIntervalMs || HANDSHAKE_MS);
    link.timer = setTimeout(() => this.#retry(null, "no answer"), patienceMs);
  }

  #opened(link) {
    clearTimeout(link.timer);
    link.openedAt = link.heardAt = performance.now();
    if (this.#pingIntervalMs > 0) link.timer = setInterval(() => this.#ping(link), this.#pingIntervalMs);
    this.#become("open");
  }

  #ping(link) {
    // Silence counts only after a ping, because timers of a page in the background may pause for minutes.
    if (link.asked && performance.now() - link.heardAt >= 2 * this.#pingIntervalMs) {
      this.#retry(null, "no sign of life");
    } else {
      link.asked = true;
      this.send('{"type":"ping"}'); // unless it is closing
    }
  }

  #closed(code, reason) {
    const renewable = code === 1008 && reason === "token expired" && typeof this.#token === "function";
    if (RETRY.has(code) || renewable) this.#retry(code, reason);
    else this.#stop(code, reason);
  }

  /** Full jitter: a random delay from 0 to a bound that doubles, so that many clients do not reconnect at once. */
  #retry(code, reason) {
    this.#leave();
    const doublings = this.#attempt + (SPREAD.has(code) ? 2 : 0);
    const delayMs = Math.round(Math.random() * Math.min(this.#maxDelayMs, this.#minDelayMs * 2 ** doublings));
    this.#attempt += 1;
    this.#retryTimer = setTimeout(() => this.#dial(), delayMs);
    this.#become("waiting", { code, reason, delayMs, retryAt: Date.now() + delayMs });
  }

  /** Waits for an event instead of a delay. */
  #pause(reason) {
    this.#leave();
    this.#become("waiting", { reason });
  }

  #stop(code, reason) {
    this.#leave(code, reason);
    this.#watching?.abort();
    this.#watching = null;
    this.#become("stopped", { code, reason });
  }

  #leave(code, reason) {
    const link = this.#link;
    // First, because it throws for a code that a page may not use. A closed socket accepts any code.
    if (link?.socket && link.socket.readyState < WebSocket.CLOSING) link.socket.close(code ?? 1000, reason);
    clearTimeout(this.#retryTimer);
    this.#link = null;
    if (!link) return;
    clearTimeout(link.timer); // also clears an interval: both share their ids
    if (link.openedAt !== null && performance.now() - link.openedAt >= HELD_MS) this.#attempt = 0;
    // Once each room has reached its position at the start of this link, no replay reaches back to older connections.
    const caughtUp = [...this.positions].every(([room, { offset }]) => offset >= link.rooms.get(room)?.offset);
    if (link.ids.length > 0) this.#ids = caughtUp ? link.ids : [...link.ids, ...this.#ids].slice(0, MAX_IDS);
  }

  #watch() {
    if (this.#watching) return;
    this.#watching = new AbortController();
    const listen = (event, react) => addEventListener(event, react, { signal: this.#watching.signal });
    listen("offline", () => this.#pause("offline"));
    listen("online", () => this.connect());
    // Browsers do not keep a page with an open socket in the back/forward cache.
    listen("pagehide", () => this.#pause("page hidden"));
    listen("pageshow", ({ persisted }) => persisted && this.connect());
  }

  /** Adds the positions from which the server resumes. */
  #addSince(url) {
    const rooms = [];
    let chars = 0;
    for (const [room, { epoch, offset }] of [...this.positions].reverse()) {
      chars += encodeURIComponent(JSON.stringify([room, epoch, offset])).length;
      if (chars > MAX_SINCE_CHARS) break;
      rooms.push([room, [epoch, offset]]);
    }
    if (rooms.length > 0) {
      const since = JSON.stringify({ ids: this.#ids, rooms: Object.fromEntries(rooms) });
      url.search += `${url.search ? "&" : "?"}since=${encodeURIComponent(since)}`;
    }
    return url;
  }

  // Receiving

  #receive(link, data) {
    link.heardAt = performance.now();
    link.asked = false;
    const text = typeof data === "string";
    const frame = text ? parse(data) : unpack(data);
    if (text && this.#control(link, frame)) return;
    const room = isPlaced(frame) && !("type" in frame) ? link.rooms.get(frame.room) : undefined;
    if (room && room.epoch === frame.epoch) this.#place(frame, room);
    else this.#emit("message", text ? frame : data, UNPLACED);
  }

  /** Handles a control frame. Returns false for a message. */
  #control(link, frame) {
    switch (frame?.type) {
      case "sync":
        if (!isPlaced(frame) || typeof frame.recovered !== "boolean") return false;
        this.#sync(link, frame);
        return true;
      case "reset":
        if (!isPlaced(frame) || !link.rooms.has(frame.room)) return false;
        link.rooms.set(frame.room, this.#move(frame));
        this.#emit("reset", { room: frame.room, reason: "lost" });
        return true;
      case "epoch": // the same position in a new numbering: nothing is lost
        if (!isPlaced(frame) || !link.rooms.has(frame.room)) return false;
        this.#move(frame);
        link.rooms.set(frame.room, {
          epoch: frame.epoch,
          offset: Math.max(frame.offset, link.rooms.get(frame.room).offset), // offsets continue across epochs
        });
        return true;
      case "dropped":
        if (typeof frame.room !== "string" || typeof frame.count !== "number") return false;
        this.#emit("dropped", { room: frame.room, count: frame.count });
        return true;
      case "error":
        if (typeof frame.code !== "string" || typeof frame.message !== "string") return false;
        this.#emit("error", { code: frame.code, message: frame.message });
        return true;
      case "pong":
        return this.#pingIntervalMs > 0;
      default:
        return false;
    }
  }

  #sync(link, frame) {
    const { room, epoch, offset, recovered, connection_id: id } = frame;
    const known = this.positions.get(room);
    link.rooms.set(room, { epoch, offset });
    if (id && !link.ids.includes(id)) link.ids.unshift(id);
    if (!recovered) this.#move(frame);
    else if (known?.epoch !== epoch) this.positions.delete(room); // the app resumed from another position
    this.#emit("sync", { room, recovered, position: { epoch, offset } });
    if (!recovered && known && (known.epoch !== epoch || known.offset !== offset)) {
      this.#emit("reset", { room, reason: known.epoch === epoch ? "too_old" : "lost" });
    }
  }

  #place(frame, synced) {
    const known = this.positions.get(frame.room);
    if (known?.epoch === frame.epoch && frame.offset <= known.offset) return; // a duplicate
    const position = this.#move(frame);
    if (!("data" in frame)) return; // the message excludes this client, and only its position moves
    this.#emit("message", frame.data, { room: frame.room, position, replayed: frame.offset <= synced.offset });
  }

  #move({ room, epoch, offset }) {
    const position = Object.freeze({ epoch, offset });
    this.positions.delete(room); // moves the room to the end of the map: see #addSince
    this.positions.set(room, position);
    return position;
  }

  // Events for the page

  #become(state, detail) {
    this.#state = state;
    const none = { code: null, reason: "", delayMs: null, retryAt: null };
    this.#emit("state", state, { attempt: this.#attempt, ...none, ...detail });
  }

  #emit(event, ...values) {
    for (const handler of [...this.#handlers.get(event)]) {
      try {
        handler(...values);
      } catch (error) {
        reportError(error);
      }
    }
  }
}

function address(url) {
  const absolute = new URL(url, location.href);
  absolute.protocol = absolute.protocol.replace(/^http/, "ws");
  if (!/^wss?:$/.test(absolute.protocol)) throw new TypeError(`${absolute} is no address of a WebSocket`);
  absolute.hash = ""; // WebSocket does not accept a fragment
  return absolute;
}

function milliseconds(name, value, least) {
  if (typeof value === "number" && value >= least && value <= MAX_TIMER_MS) return value;
  throw new TypeError(`${name} is ${value}; it takes a number of milliseconds from ${least} to ${MAX_TIMER_MS}`);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Returns whether a frame has a position in a room. */
function isPlaced(frame) {
  return typeof frame?.room === "string" && typeof frame.epoch === "string" && Number.isSafeInteger(frame.offset);
}

/**
 * Reads a binary frame: "HUB1", the length n of the room, 8 bytes of epoch, 8 bytes of offset (big endian), n bytes
 * of room, the message. Returns null for any other binary message.
 */
function unpack(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < HEADER_BYTES || view.getUint32(0) !== MAGIC) return null;
  const start = HEADER_BYTES + view.getUint8(4);
  if (buffer.byteLength < start) return null;
  const text = (from, to) => new TextDecoder().decode(buffer.slice(from, to));
  // An offset over 2^53 - 1 becomes an unsafe integer, which isPlaced rejects.
  const offset = Number(view.getBigUint64(13));
  return { room: text(HEADER_BYTES, start), epoch: text(5, 13), offset, data: buffer.slice(start) };
}
