/**
 * The page's client of hubbub's endpoints: requests with answers, rooms, and recovery after a lost connection.
 *
 * It speaks the Centrifugo client protocol in JSON, with the names of the npm package `centrifuge`, whose documented API
 * it is a part of. A page that has a bundler can use that package instead: the same lines run on both.
 *
 * Theory of operation. The client has three states:
 *
 *     disconnected ── connect() ──► connecting ◄── lost, or closed by the server ── connected
 *          ▲                        │    │                                              ▲  │
 *          │                        │    └── the server answers `connect` ──────────────┘  │
 *          └── disconnect(), or a code that is final ──────────────────────────────────────┘
 *
 * A client may have several *transports*: a WebSocket, and `Stream`s for networks that break WebSockets. An attempt uses
 * one. If a transport fails before it has worked once, the next attempt uses the next one, and the first round of them
 * has no delays.
 *
 * An *attempt* fetches the token and the data that the page provides, and opens a `Link`: one socket, its requests that
 * wait for an answer, and the watch over its silence. There is at most one attempt. Whatever belongs to an older one is
 * ignored, so the client leaves an attempt by forgetting it. A failed attempt is followed by another one, after a random
 * delay whose bound doubles. Every wait has an end: for the page's functions, for the socket, and for every answer.
 *
 * A `Subscription` moves from unsubscribed to subscribing to subscribed. Subscriptions wait in a queue, from which a
 * bounded number at a time is sent: the first of them in one frame with `connect`. So a client with very many rooms
 * neither waits for each room, nor overruns the server.
 *
 * A `Place` is the position of the page in a room: (epoch, offset) of the last message that it received. It is sent with
 * the next subscribe command of the room, and the reply carries what was missed. The handlers of a message run after the
 * place has moved, so no message is delivered twice. Replies and messages of one frame are handled synchronously, in
 * their order: a message after the reply to its subscribe command is never early.
 */

export const State = Object.freeze({ Disconnected: "disconnected", Connecting: "connecting", Connected: "connected" });

export const SubscriptionState = Object.freeze({
  Unsubscribed: "unsubscribed",
  Subscribing: "subscribing",
  Subscribed: "subscribed",
});

/** Codes of errors that the client makes itself. Codes from 100 are the server's. */
export const errorCodes = Object.freeze({
  timeout: 1,
  transportClosed: 2,
  clientDisconnected: 3,
  clientConnectToken: 5,
  clientRefreshToken: 6,
  subscriptionUnsubscribed: 7,
  subscriptionSubscribeToken: 8,
  subscriptionRefreshToken: 9,
  connectionClosed: 11,
  badConfiguration: 12,
});

/** Causes of events: the client's own. Codes from 2000 are the server's. */
const CONNECT_CALLED = [0, "connect called"];
const TRANSPORT_CLOSED = [1, "transport closed"];
const NO_PING = [2, "no ping"];
const SUBSCRIBE_TIMEOUT = [3, "subscribe timeout"];
const UNSUBSCRIBE_ERROR = [4, "unsubscribe error"];
const DISCONNECT_CALLED = [0, "disconnect called"];
const UNAUTHORIZED = [1, "unauthorized"];
const MESSAGE_SIZE_LIMIT = [3, "message size limit exceeded"];
const SUBSCRIBE_CALLED = [0, "subscribe called"];
const UNSUBSCRIBE_CALLED = [0, "unsubscribe called"];

const TOKEN_EXPIRED = 109;
const UNSUBSCRIBED_FOR_NOW = 2500; // from this code on, an ended subscription is renewed
const CONNECTION_EXPIRED = 3005;

/** Close codes that a server sends to many clients at once: their retries spread over four times as long. */
const SPREAD = new Set([1012, 1013, 3001]);

/** What holds this long resets its backoff. What ends right after it began does not. */
const HELD_MS = 5_000;

const REFRESH_MS = [1_000, 10_000];
const MAX_SUBSCRIBING = 64;
const MAX_FRAME_CHARS = 8_000;
const MAX_TIMER_MS = 2 ** 31 - 1;
const LATE_MS = 1_000;

const CLIENT_EVENTS = ["state", "connecting", "connected", "disconnected", "error", "message"];
const ROOM_EVENTS = ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave"];

const OPTIONS = {
  token: "",
  getToken: null,
  data: null,
  getData: null,
  name: "js",
  version: "",
  debug: false,
  timeout: 5_000,
  minReconnectDelay: 500,
  maxReconnectDelay: 20_000,
  maxServerPingDelay: 10_000,
  websocket: null,
  fetch: null,
  eventsource: null,
  emulationEndpoint: "/emulation",
};

const ROOM_OPTIONS = {
  token: "",
  getToken: null,
  data: null,
  getData: null,
  since: null,
  positioned: false,
  recoverable: false,
  joinLeave: false,
  minResubscribeDelay: 500,
  maxResubscribeDelay: 20_000,
};

/** Thrown by `getToken` if there is no permission (any more): the client or the subscription ends, without retries. */
export class UnauthorizedError extends Error {
  name = "UnauthorizedError";
}

/** Handlers of events, as in Node.js. If a handler throws, the error is reported, and nothing else is affected. */
class Emitter {
  #handlers;

  constructor(events) {
    this.#handlers = new Map(events.map((event) => [event, []]));
  }

  on(event, handler) {
    return this.#add(event, handler, handler);
  }

  once(event, handler) {
    return this.#add(event, handler, (...values) => {
      this.off(event, handler);
      handler(...values);
    });
  }

  off(event, handler) {
    const found = this.listeners(event).lastIndexOf(handler);
    if (found >= 0) this.#of(event).splice(found, 1);
    return this;
  }

  removeAllListeners(event) {
    for (const each of event === undefined ? this.#handlers.keys() : [event]) this.#of(each).length = 0;
    return this;
  }

  listeners(event) {
    return this.#of(event).map(({ handler }) => handler);
  }

  emit(event, ...values) {
    const handlers = [...this.#of(event)];
    for (const { call } of handlers) {
      try {
        call(...values);
      } catch (error) {
        report(error);
      }
    }
    return handlers.length > 0;
  }

  #add(event, handler, call) {
    if (typeof handler !== "function") throw new TypeError(`the handler of "${event}" is no function`);
    this.#of(event).push({ handler, call });
    return this;
  }

  #of(event) {
    const handlers = this.#handlers.get(event);
    if (!handlers) throw new TypeError(`no event "${event}"; there are ${[...this.#handlers.keys()].join(", ")}`);
    return handlers;
  }
}

export class Centrifuge extends Emitter {
  static State = State;
  static SubscriptionState = SubscriptionState;
  static UnauthorizedError = UnauthorizedError;

  #transports; // [{transport, url}]
  #current = 0; // of #transports
  #untried; // how many of #transports have not been tried yet; 0 once one has worked
  #hasWorked = false; // whether the current one ever has
  #options;
  #state = State.Disconnected;
  #attempt = null; // {link, since}: the current one, while there is one
  #retry = new Backoff(() => this.#dial());
  #credentials;
  #waiting = new Waiters();
  #places = new Map(); // of the rooms that the server joins the client to
  #rooms = new Map(); // the subscriptions, and what the client may do with each
  #queued = new Set(); // of #rooms: those to subscribe to
  #subscribing = new Set(); // of #rooms: those that were begun
  #watching = null; // an AbortController for the listeners, while not disconnected

  /**
   * @param {string | URL | object[]} endpoint the address: relative to the page, ws(s) or http(s); or several
   *   transports in the order in which they are tried, each as {transport, endpoint}
   * @param {object} [options] see hubbub.d.ts
   */
  constructor(endpoint, options = {}) {
    super([...CLIENT_EVENTS, ...ROOM_EVENTS]);
    this.#options = checked(options, OPTIONS);
    this.#transports = transports(endpoint, this.#options.emulationEndpoint);
    this.#untried = this.#transports.length;
    this.#credentials = new Credentials(this.#options, {
      timeout: this.#options.timeout,
      context: {},
      names: ["connectToken", errorCodes.clientConnectToken, "connectData", errorCodes.clientRefreshToken],
      mayBeEmpty: true,
      send: (token, done) => this.#link.request({ refresh: { token } }, (error, reply) => done(error, reply?.refresh)),
      failed: (type, error) => this.#lose(...TRANSPORT_CLOSED, { type, error }),
      told: (type, error) => this.emit("error", { type, error: plain(error) }),
      refused: (code, reason) => this.#disconnect(code, reason),
    });
  }

  get state() {
    return this.#state;
  }

  /** Connects, and stays connected until `disconnect()`, or until the server ends it with a code that is final. */
  connect() {
    if (this.#state !== State.Disconnected) return;
    this.#retry.reset();
    this.#watch();
    this.#become(State.Connecting);
    if (this.#state !== State.Connecting || this.#attempt) return; // a handler has changed it again
    const [code, reason] = CONNECT_CALLED;
    this.emit("connecting", { code, reason });
    if (this.#state === State.Connecting && !this.#attempt) this.#dial();
  }

  disconnect() {
    this.#disconnect(...DISCONNECT_CALLED);
  }

  /** Resolves once the client is connected. Rejects if it is disconnected, or after the timeout in milliseconds. */
  ready(timeout) {
    if (this.#state === State.Disconnected) return Promise.reject(disconnected());
    return this.#state === State.Connected ? Promise.resolve() : this.#waiting.wait(timeout);
  }

  setToken(token) {
    this.#credentials.token = token;
  }

  setData(data) {
    this.#credentials.data = data;
  }

  // Requests. They wait for the connection, and then for their answers: each time up to `timeout`.

  async rpc(method, data) {
    return { data: (await this.#request({ rpc: { method, data } })).rpc?.data };
  }

  async send(data) {
    (await this.#connected()).say({ send: { data } });
  }

  async publish(channel, data) {
    await this.#request({ publish: { channel, data } });
    return {};
  }

  async history(channel, { limit, since, reverse } = {}) {
    const { history = {} } = await this.#request({ history: { channel, limit, since: since ?? undefined, reverse } });
    const publications = (history.publications ?? []).map((each) => publication(channel, each));
    return { publications, offset: history.offset ?? 0, epoch: history.epoch ?? "" };
  }

  async presence(channel) {
    const { presence } = (await this.#request({ presence: { channel } })).presence ?? {};
    return { clients: Object.fromEntries(Object.entries(presence ?? {}).map(([id, info]) => [id, person(info)])) };
  }

  async presenceStats(channel) {
    const found = (await this.#request({ presence_stats: { channel } })).presence_stats;
    return { numClients: found?.num_clients ?? 0, numUsers: found?.num_users ?? 0 };
  }

  async #request(body) {
    const link = await this.#connected();
    return new Promise((resolve, reject) => {
      link.request(body, (error, reply) => (error ? reject(error) : resolve(reply)));
    });
  }

  /** Waits for the connection, and returns its link. */
  async #connected() {
    if (this.#state !== State.Connected) await this.#waiting.wait(this.#options.timeout);
    if (this.#state === State.Connected) return this.#link;
    throw failure(errorCodes.connectionClosed, "connection closed"); // it was lost again meanwhile
  }

  get #link() {
    return this.#attempt?.link;
  }

  // Subscriptions

  newSubscription(channel, options = {}) {
    if (this.#rooms.has(channel)) throw new Error(`there is a subscription to "${channel}": see getSubscription()`);
    let room;
    const subscription = new Subscription(channel, options, {
      client: this,
      timeout: this.#options.timeout,
      adopt: (hooks) => (room = hooks),
      queue: () => this.#queue(room),
      settled: () => this.#settled(room),
      link: () => (this.#state === State.Connected || this.#subscribing.has(room) ? this.#link : null),
      reconnect: (why) => this.#lose(...why),
    });
    this.#rooms.set(channel, room);
    return subscription;
  }

  getSubscription(channel) {
    return this.#rooms.get(channel)?.subscription ?? null;
  }

  removeSubscription(subscription) {
    if (!subscription || this.getSubscription(subscription.channel) !== subscription) return;
    subscription.unsubscribe();
    this.#rooms.delete(subscription.channel);
  }

  subscriptions() {
    return Object.fromEntries([...this.#rooms].map(([channel, { subscription }]) => [channel, subscription]));
  }

  #queue(room) {
    this.#queued.add(room);
    if (this.#state === State.Connected) this.#subscribe();
  }

  #settled(room) {
    this.#queued.delete(room);
    if (this.#subscribing.delete(room) && this.#state === State.Connected) this.#subscribe();
  }

  /** Begins as many of the queued subscriptions as the bound allows. */
  #subscribe(rooms = this.#queued) {
    for (const room of rooms) {
      if (this.#subscribing.size >= MAX_SUBSCRIBING) break;
      this.#queued.delete(room);
      this.#subscribing.add(room);
      room.begin();
    }
  }

  // An attempt, from its beginning to its end

  async #dial() {
    this.#retry.stop();
    const attempt = (this.#attempt = { link: null, since: null });
    const isCurrent = () => attempt === this.#attempt;
    if (!(await this.#credentials.fetch(isCurrent)) || !isCurrent()) return; // disconnect() in the same turn
    try {
      attempt.link = new Link(this.#transports[this.#current], this.#options, {
        opened: () => this.#opened(attempt),
        pushed: (push) => this.#pushed(push),
        ended: (code, reason, error) => this.#ended(code, reason, error),
      });
    } catch (error) {
      this.#lose(...TRANSPORT_CLOSED, { error: failure(errorCodes.transportClosed, text(error)) });
    }
  }

  /** Sends `connect`, and in the same frame the subscriptions for which nothing has to be fetched. */
  #opened(attempt) {
    if (this.#transport === "websocket") this.#works();
    const { token, data } = this.#credentials;
    const { name, version } = this.#options;
    const connect = { token: token || undefined, data: data ?? undefined, name, version: version || undefined };
    const places = [...this.#places].filter(([, { since }]) => since);
    if (places.length > 0) {
      connect.subs = Object.fromEntries(places.map(([channel, { since }]) => [channel, { recover: true, ...since }]));
    }
    attempt.link.request({ connect }, (error, reply) => {
      if (attempt !== this.#attempt) return;
      if (error) this.#refused(attempt, error);
      else this.#welcomed(attempt, reply.connect ?? {});
    });
    this.#subscribe([...this.#queued].filter((room) => room.isReady()));
  }

  #refused(attempt, error) {
    const { code, message, temporary } = error;
    if (code >= 100) this.#works(); // it is the server's
    if (code === TOKEN_EXPIRED && !this.#credentials.canFetch) {
      this.emit("error", { type: "configuration", error: plain(noGetToken()) });
      if (attempt === this.#attempt) this.#disconnect(...UNAUTHORIZED); // else a handler has ended it
    } else if (code < 100 || code === TOKEN_EXPIRED || temporary) {
      if (code === TOKEN_EXPIRED) this.#credentials.token = "";
      this.#lose(...TRANSPORT_CLOSED, { type: "connect", error });
    } else {
      this.#disconnect(code, message);
    }
  }

  #welcomed(attempt, result) {
    this.#works();
    attempt.since = performance.now();
    attempt.link.watch((result.ping ?? 0) * 1000, result.pong ?? false);
    if (result.expires) this.#credentials.renewIn(result.ttl);
    this.#become(State.Connected);
    this.#waiting.resolve();
    const { client, data } = result;
    this.emit("connected", { client, transport: this.#transport, ...("data" in result && { data }) });
    const subs = result.subs ?? {};
    for (const channel of [...this.#places.keys()]) {
      if (attempt === this.#attempt && !Object.hasOwn(subs, channel)) this.#left(channel);
    }
    for (const [channel, each] of Object.entries(subs)) if (attempt === this.#attempt) this.#joined(channel, each);
    if (attempt === this.#attempt) this.#subscribe();
  }

  #ended(code, reason, error) {
    if (code === CONNECTION_EXPIRED && this.#credentials.canFetch) this.#credentials.token = "";
    if (code === 1009) this.#disconnect(...MESSAGE_SIZE_LIMIT);
    else if ((code >= 3500 && code < 4000) || (code >= 4500 && code < 5000)) this.#disconnect(code, reason);
    else if (code >= 3000) this.#lose(code, reason, { error: failure(code, reason) });
    else if (code >= 1000) this.#lose(...TRANSPORT_CLOSED, { spread: SPREAD.has(code) });
    else this.#lose(code, reason, { error });
  }

  /** Leaves the current attempt, and tries again later. While connecting, the page is told why, as an error. */
  #lose(code, reason, { type = "transport", error, spread = SPREAD.has(code) } = {}) {
    const wasConnected = this.#state === State.Connected;
    const { minReconnectDelay, maxReconnectDelay } = this.#options;
    const slowly = globalThis.navigator?.onLine === false;
    const transport = this.#transport;
    const free = this.#attempt && (type === "transport" || type === "connect") && this.#moveOn();
    this.#leave();
    this.#retry.schedule(minReconnectDelay, maxReconnectDelay, { spread, slowly, free });
    if (wasConnected) this.#become(State.Connecting);
    this.#tellRooms();
    if (wasConnected && this.#state === State.Connecting) {
      this.emit("connecting", { code, reason });
    } else if (!wasConnected) {
      const told = plain(error ?? failure(errorCodes.transportClosed, "transport closed"));
      this.emit("error", { type, error: told, ...(type === "transport" && { transport }) });
    }
  }

  get #transport() {
    return this.#transports[this.#current].transport;
  }

  /** The current transport works, so the client stays with it. */
  #works() {
    this.#hasWorked = true;
    this.#untried = 0;
  }

  /** Changes to the next transport, unless this one has worked. Returns whether it has not been tried yet. */
  #moveOn() {
    if (this.#hasWorked) return false;
    this.#current = (this.#current + 1) % this.#transports.length;
    this.#untried = Math.max(0, this.#untried - 1);
    return this.#untried > 0;
  }

  #disconnect(code, reason) {
    if (this.#state === State.Disconnected) return;
    this.#leave();
    this.#retry.stop();
    this.#watching?.abort();
    this.#watching = null;
    this.#become(State.Disconnected);
    this.#tellRooms();
    this.#waiting.reject(disconnected());
    this.emit("disconnected", { code, reason });
  }

  #leave() {
    const attempt = this.#attempt;
    this.#attempt = null;
    this.#credentials.stop();
    this.#subscribing.clear();
    if (attempt?.since) this.#retry.held(performance.now() - attempt.since);
    attempt?.link?.close();
  }

  /** Tells all rooms that the connection is lost. */
  #tellRooms() {
    for (const room of this.#rooms.values()) room.lost();
    for (const [channel, place] of this.#places) if (place.leave()) this.emit("subscribing", { channel });
  }

  #become(state) {
    const oldState = this.#state;
    this.#state = state;
    this.emit("state", { newState: state, oldState });
  }

  // The network and the page

  #watch() {
    this.#watching = new AbortController();
    const listen = (target, event, react) => {
      target?.addEventListener?.(event, react, { signal: this.#watching.signal });
    };
    // Browsers may say "offline" while requests get through, and "online" while none do. So the line is tested.
    listen(globalThis, "offline", () => this.#link?.probe());
    listen(globalThis, "online", () => this.#wake());
    listen(globalThis.document, "visibilitychange", () => document.visibilityState === "visible" && this.#wake());
    // Browsers do not keep a page with an open socket in the back/forward cache.
    listen(globalThis, "pagehide", ({ persisted }) => persisted && this.#sleep());
    listen(globalThis, "pageshow", ({ persisted }) => persisted && this.#wake());
  }

  /** Tries at once, if it waits; tests the line, if there is one. */
  #wake() {
    if (this.#attempt) this.#link?.probe();
    else if (this.#state === State.Connecting) this.#dial();
  }

  #sleep() {
    if (this.#attempt) this.#lose(...TRANSPORT_CLOSED);
    this.#retry.stop();
  }

  // Receiving

  #pushed(push) {
    const { channel = "" } = push;
    if (push.message) return this.emit("message", { data: push.message.data });
    if (push.disconnect) {
      this.#works();
      return this.#ended(push.disconnect.code, push.disconnect.reason ?? "");
    }
    const room = this.#rooms.get(channel);
    if (room?.subscription.state === SubscriptionState.Subscribed) return room.push(push);
    if (push.subscribe) return this.#joined(channel, push.subscribe);
    const place = this.#places.get(channel);
    if (!place) return; // of a room that was left meanwhile
    if (push.unsubscribe) this.#left(channel);
    else tell(this, channel, push, place);
  }

  #joined(channel, result) {
    const place = this.#places.get(channel) ?? new Place();
    this.#places.set(channel, place);
    place.enter(result);
    this.emit("subscribed", entered(channel, result));
    for (const each of place.missed(result)) {
      if (this.#places.get(channel) !== place || this.#state !== State.Connected) break;
      this.emit("publication", publication(channel, each));
    }
  }

  #left(channel) {
    this.#places.delete(channel);
    this.emit("unsubscribed", { channel });
  }
}

/** A subscription to a room. Made by `newSubscription`. */
export class Subscription extends Emitter {
  #channel;
  #options;
  #host; // what the client offers
  #state = SubscriptionState.Unsubscribed;
  #place;
  #attempt = null; // an object for each attempt to subscribe, and for the subscription that it becomes
  #since = null; // when it became subscribed
  #retry = new Backoff(() => this.#host.queue());
  #credentials;
  #waiting = new Waiters();

  constructor(channel, options, host) {
    super(["state", ...ROOM_EVENTS, "error"]);
    this.#channel = channel;
    this.#host = host;
    this.#options = checked(options, ROOM_OPTIONS);
    this.#place = new Place(this.#options.since);
    const { subscriptionSubscribeToken, subscriptionRefreshToken } = errorCodes;
    this.#credentials = new Credentials(this.#options, {
      timeout: host.timeout,
      context: { channel },
      names: ["subscribeToken", subscriptionSubscribeToken, "subscribeData", subscriptionRefreshToken],
      mayBeEmpty: false,
      send: (token, done) => {
        host.link().request({ sub_refresh: { channel, token } }, (error, reply) => done(error, reply?.sub_refresh));
      },
      failed: (type, error) => this.#later(type, error),
      told: (type, error) => this.#failed(type, error),
      refused: (code, reason) => this.#end(code, reason),
    });
    host.adopt({
      subscription: this,
      isReady: () => this.#credentials.isComplete,
      begin: () => this.#begin(),
      push: (push) => this.#pushed(push),
      lost: () => this.#lost(),
    });
  }

  get channel() {
    return this.#channel;
  }

  get state() {
    return this.#state;
  }

  subscribe() {
    if (this.#state !== SubscriptionState.Unsubscribed) return;
    this.#retry.reset();
    this.#become(SubscriptionState.Subscribing, "subscribing", ...SUBSCRIBE_CALLED);
    if (this.#state === SubscriptionState.Subscribing) this.#host.queue();
  }

  /** Ends the subscription. The place in the room is kept, for another `subscribe()`. */
  unsubscribe() {
    this.#end(...UNSUBSCRIBE_CALLED);
  }

  /** Resolves once it is subscribed. Rejects if it is unsubscribed, or after the timeout in milliseconds. */
  ready(timeout) {
    if (this.#state === SubscriptionState.Unsubscribed) return Promise.reject(unsubscribed());
    return this.#state === SubscriptionState.Subscribed ? Promise.resolve() : this.#waiting.wait(timeout);
  }

  setData(data) {
    this.#credentials.data = data;
  }

  publish(data) {
    return this.#ask("publish", data);
  }

  history(options) {
    return this.#ask("history", options);
  }

  presence() {
    return this.#ask("presence");
  }

  presenceStats() {
    return this.#ask("presenceStats");
  }

  async #ask(method, ...values) {
    await this.ready(this.#host.timeout);
    return this.#host.client[method](this.#channel, ...values);
  }

  /** Fetches what is missing, and sends the subscribe command: at once, if nothing is. */
  async #begin() {
    const attempt = (this.#attempt = {});
    const isCurrent = () => attempt === this.#attempt;
    if (!this.#credentials.isComplete && (!(await this.#credentials.fetch(isCurrent)) || !isCurrent())) return;
    try {
      this.#send(attempt);
    } catch (error) {
      this.#later("subscribeData", failure(errorCodes.badConfiguration, text(error))); // data that is no JSON
    }
  }

  #send(attempt) {
    const { positioned, recoverable, joinLeave } = this.#options;
    const { token, data } = this.#credentials;
    const subscribe = { channel: this.#channel, token: token || undefined, data: data ?? undefined };
    if (positioned) subscribe.positioned = true;
    if (recoverable) subscribe.recoverable = true;
    if (joinLeave) subscribe.join_leave = true;
    if (this.#place.since) Object.assign(subscribe, { recover: true, ...this.#place.since });
    this.#host.link().request({ subscribe }, (error, reply) => {
      if (attempt !== this.#attempt || error?.code === errorCodes.connectionClosed) return;
      if (error) this.#refused(attempt, error);
      else this.#subscribed(attempt, reply.subscribe ?? {});
    });
    attempt.isSent = true;
  }

  #refused(attempt, error) {
    const { code, message, temporary } = error;
    if (code === errorCodes.timeout) {
      // The server may still answer, so the subscription can only be repeated on another connection.
      this.#failed("subscribe", error);
      if (attempt === this.#attempt) this.#host.reconnect(SUBSCRIBE_TIMEOUT); // else a handler has ended the attempt
    } else if (code === TOKEN_EXPIRED && !this.#credentials.canFetch) {
      this.#failed("configuration", noGetToken());
      if (attempt === this.#attempt) this.#finish(...UNAUTHORIZED);
    } else if (code === TOKEN_EXPIRED || temporary) {
      if (code === TOKEN_EXPIRED) this.#credentials.token = "";
      this.#later("subscribe", error);
    } else {
      this.#finish(code, message);
    }
  }

  #subscribed(attempt, result) {
    this.#since = performance.now();
    this.#host.settled();
    if (result.expires) this.#credentials.renewIn(result.ttl);
    this.#place.enter(result);
    this.#waiting.resolve();
    this.#become(SubscriptionState.Subscribed, "subscribed", entered(this.#channel, result));
    for (const each of this.#place.missed(result)) {
      if (attempt !== this.#attempt) return;
      this.emit("publication", publication(this.#channel, each));
    }
  }

  #pushed(push) {
    const { unsubscribe } = push;
    if (!unsubscribe) return tell(this, this.#channel, push, this.#place);
    const { code = 2000, reason = "" } = unsubscribe;
    if (code < UNSUBSCRIBED_FOR_NOW) return this.#finish(code, reason);
    this.#leave();
    this.#become(SubscriptionState.Subscribing, "subscribing", code, reason);
    if (this.#state !== SubscriptionState.Subscribing) return;
    const { minResubscribeDelay, maxResubscribeDelay } = this.#options;
    this.#retry.schedule(minResubscribeDelay, maxResubscribeDelay, { firstAtOnce: true });
  }

  /** Waits for the next connection. */
  #lost() {
    if (this.#state === SubscriptionState.Unsubscribed) return;
    const wasSubscribed = this.#state === SubscriptionState.Subscribed;
    if (wasSubscribed || this.#attempt) {
      this.#leave();
      this.#host.queue();
    }
    if (wasSubscribed) this.#become(SubscriptionState.Subscribing, "subscribing", ...TRANSPORT_CLOSED);
  }

  /** Tries again after a delay. */
  #later(type, error) {
    this.#attempt = null;
    this.#host.settled();
    this.#retry.schedule(this.#options.minResubscribeDelay, this.#options.maxResubscribeDelay);
    this.#failed(type, error);
  }

  /** Ends the subscription, and tells the server. */
  #end(code, reason) {
    if (this.#state === SubscriptionState.Unsubscribed) return;
    const link = this.#attempt?.isSent ? this.#host.link() : null;
    link?.request({ unsubscribe: { channel: this.#channel } }, (error) => {
      // Whether the server still counts the client as subscribed is unknown. A new connection settles it.
      if (error && error.code !== errorCodes.connectionClosed) this.#host.reconnect(UNSUBSCRIBE_ERROR);
    });
    this.#finish(code, reason);
  }

  #finish(code, reason) {
    if (this.#state === SubscriptionState.Unsubscribed) return;
    this.#leave();
    this.#waiting.reject(unsubscribed());
    this.#become(SubscriptionState.Unsubscribed, "unsubscribed", code, reason);
  }

  #leave() {
    this.#attempt = null;
    this.#credentials.stop();
    this.#retry.stop();
    if (this.#since !== null) this.#retry.held(performance.now() - this.#since);
    this.#since = null;
    this.#host.settled();
  }

  #failed(type, error) {
    this.emit("error", { channel: this.#channel, type, error: plain(error) });
  }

  #become(state, event, code, reason) {
    const [channel, oldState] = [this.#channel, this.#state];
    this.#state = state;
    this.emit("state", { channel, newState: state, oldState });
    if (this.#state !== state) return; // a handler has changed it again
    this.emit(event, typeof code === "number" ? { channel, code, reason } : code);
  }
}

/**
 * One socket or stream: requests and their answers, and the watch over its silence. It ends once: with a close code of
 * 1000 or more, or with a cause of the client. After `close()`, it reports nothing.
 */
class Link {
  #socket;
  #options; // those of the client
  #told;
  #lastId = 0;
  #waiting = new Map(); // requests, by id
  #out = []; // commands of this turn of the event loop, which are sent together
  #answersPings = false;
  #isWatched = false;
  #isProbing = false;
  #patience = 0; // silence of this length is the end; 0 if there are no pings
  #heardAt = 0;
  #timer;

  constructor({ transport, url, posts }, options, told) {
    this.#options = options;
    this.#told = told;
    const socket = (this.#socket =
      transport === "websocket"
        ? new (options.websocket ?? globalThis.WebSocket)(url)
        : new Stream(transport, url, posts, options));
    socket.onopen = () => {
      if (!this.#told) return;
      clearTimeout(this.#timer);
      try {
        this.#told.opened();
      } catch (error) {
        this.#end(...TRANSPORT_CLOSED, failure(errorCodes.badConfiguration, text(error))); // data that is no JSON
      }
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#end(code, String(reason));
    socket.onerror = () => {}; // upon which it closes
    const expire = () => this.#end(...TRANSPORT_CLOSED, failure(errorCodes.timeout, "timeout"));
    this.#timer = setTimeout(expire, options.timeout);
  }

  /** Sends a command, and calls back with (error, reply). */
  request(body, done) {
    const id = ++this.#lastId;
    this.say({ id, ...body });
    const timer = setTimeout(() => {
      this.#waiting.delete(id);
      done(failure(errorCodes.timeout, "timeout"));
    }, this.#options.timeout);
    this.#waiting.set(id, { done, timer });
  }

  /** Sends a command without an answer, at the end of this turn of the event loop. */
  say(command) {
    if (this.#out.length === 0) queueMicrotask(() => this.#flush());
    this.#out.push(JSON.stringify(command));
  }

  close() {
    if (!this.#told) return;
    if (this.#out.length > 0) this.#flush();
    this.#told = null;
    clearTimeout(this.#timer);
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    this.#socket.close(1000);
    for (const { done, timer } of waiting) {
      clearTimeout(timer);
      done(failure(errorCodes.connectionClosed, "connection closed"));
    }
  }

  /** Watches over the silence between pings: at most 1.5 times their interval. */
  watch(interval, answersPings) {
    const { maxServerPingDelay } = this.#options;
    this.#isWatched = true;
    this.#answersPings = answersPings;
    if (maxServerPingDelay > 0) this.#patience = Math.min(interval + maxServerPingDelay, 1.5 * interval);
    this.#heardAt = performance.now();
    this.#check();
  }

  /** Has the server answer. If it does not, this is the end. Before `watch`, the attempt has timeouts of its own. */
  probe() {
    if (!this.#isWatched || this.#isProbing) return;
    this.#isProbing = true;
    this.say({ id: ++this.#lastId, ping: {} }); // answered with an error, which is an answer
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#isProbing ? this.#end(...NO_PING) : this.#check()), this.#options.timeout);
  }

  /** Comes back when the silence may be too long. */
  #check() {
    if (!this.#patience) return;
    const dueAt = this.#heardAt + this.#patience;
    this.#timer = setTimeout(() => {
      const now = performance.now();
      if (now - this.#heardAt < this.#patience) this.#check();
      else if (now - dueAt > LATE_MS) this.probe(); // timers of this page stood still, and perhaps its socket too
      else this.#end(...NO_PING);
    }, dueAt - performance.now());
  }

  #flush() {
    const commands = this.#out;
    this.#out = [];
    if (!this.#told || this.#socket.readyState !== 1) return; // its end will be told
    let frame = "";
    for (const command of commands) {
      if (frame && frame.length + command.length >= MAX_FRAME_CHARS) {
        this.#write(frame);
        frame = "";
      }
      frame += frame ? `\n${command}` : command;
    }
    if (frame) this.#write(frame);
  }

  #write(frame) {
    if (this.#options.debug) console.debug("hubbub: sent", frame);
    this.#socket.send(frame);
  }

  #receive(data) {
    if (!this.#told) return;
    this.#heardAt = performance.now();
    this.#isProbing = false;
    if (this.#options.debug) console.debug("hubbub: received", data);
    let replies;
    try {
      replies = data.split("\n").filter(Boolean).map((line) => JSON.parse(line));
    } catch {
      this.#end(...TRANSPORT_CLOSED, failure(errorCodes.transportClosed, "the server sent something that is no JSON"));
      return;
    }
    for (const reply of replies) if (this.#told) this.#take(reply);
  }

  #take(reply) {
    if (reply?.push) return this.#told.pushed(reply.push);
    if (reply?.id) {
      const waiting = this.#waiting.get(reply.id);
      if (!waiting) return; // too late
      this.#waiting.delete(reply.id);
      clearTimeout(waiting.timer);
      if (reply.connect) this.#socket.admitted?.(reply.connect);
      const { code, message, temporary } = reply.error ?? {};
      waiting.done(reply.error ? failure(code, message, temporary) : null, reply);
    } else if (this.#answersPings) {
      this.#out.push("{}");
      this.#flush();
    }
  }

  #end(code, reason, error) {
    this.#told?.ended(code, reason, error); // upon which the client closes it
  }
}

/**
 * Stands in for a WebSocket where the network breaks them. The server's messages come on an HTTP response without an end.
 * The first command, `connect`, opens it. The others are posted once its reply has told the session: one request at a
 * time, with all commands that have come meanwhile, so they stay in order.
 */
class Stream {
  readyState = 0;
  #transport;
  #url;
  #posts;
  #fetch;
  #eventsource;
  #abort = new AbortController();
  #isBegun = false;
  #session = null; // {session, node}
  #held = []; // commands that are not posted yet
  #isPosting = false;

  constructor(transport, url, posts, { fetch, eventsource }) {
    this.#transport = transport;
    this.#url = url;
    this.#posts = posts;
    this.#fetch = fetch ?? globalThis.fetch.bind(globalThis);
    this.#eventsource = eventsource ?? globalThis.EventSource;
    queueMicrotask(() => {
      this.readyState = 1;
      this.onopen();
    });
  }

  send(frame) {
    const commands = frame.split("\n");
    if (!this.#isBegun) {
      this.#isBegun = true;
      const connect = commands.shift();
      if (this.#transport === "sse") this.#listen(connect);
      else this.#read(connect).then(() => this.#end(), () => this.#end());
    }
    this.#held.push(...commands);
    this.#post();
  }

  admitted({ session, node }) {
    this.#session = { session, node };
    this.#post();
  }

  close() {
    this.readyState = 3;
    this.#abort.abort();
  }

  #listen(connect) {
    const url = new URL(this.#url);
    url.searchParams.set("cf_connect", connect);
    const source = new this.#eventsource(url.href);
    source.onmessage = ({ data }) => this.onmessage({ data });
    source.onerror = () => this.#end();
    this.#abort.signal.addEventListener("abort", () => source.close());
  }

  async #read(connect) {
    const headers = { Accept: "application/json", "Content-Type": "application/json" };
    const response = await this.#request(this.#url, { headers, body: connect });
    if (!response.ok) return;
    const [reader, decoder] = [response.body.getReader(), new TextDecoder()];
    let parts = []; // of a line that has not ended
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.readyState !== 1) return;
      const lines = decoder.decode(value, { stream: true }).split("\n");
      parts.push(lines.shift());
      if (lines.length === 0) continue;
      const last = lines.pop();
      this.onmessage({ data: [parts.join(""), ...lines].join("\n") });
      parts = [last];
    }
  }

  async #post() {
    if (this.#isPosting || !this.#session) return;
    this.#isPosting = true;
    while (this.#held.length > 0 && this.readyState === 1) {
      let count = 0;
      for (let size = 0; count < this.#held.length && size < MAX_FRAME_CHARS; count++) size += this.#held[count].length;
      const body = JSON.stringify({ ...this.#session, data: this.#held.splice(0, count).join("\n") });
      try {
        const { status } = await this.#request(this.#posts, { headers: { "Content-Type": "application/json" }, body });
        if (status === 404 || status >= 500) this.#end(); // any other refuses these commands alone
      } catch {
        this.#end();
      }
    }
    this.#isPosting = false;
  }

  #request(url, init) {
    return this.#fetch(url, { method: "POST", credentials: "same-origin", signal: this.#abort.signal, ...init });
  }

  #end() {
    if (this.readyState !== 1) return;
    this.close();
    this.onclose({ code: 1006, reason: "" });
  }
}

/** The place of the page in a room. */
class Place {
  #isIn = false;
  #at; // {epoch, offset}; null if there is nothing to come back to

  constructor(since) {
    this.#at = since ? { epoch: since.epoch ?? "", offset: since.offset ?? 0 } : null;
  }

  get since() {
    return this.#at;
  }

  /** Enters the room: at the place where the page was if it recovers, else before the messages of the reply. */
  enter({ recoverable, recovered, epoch = "", offset = 0, publications = [] }) {
    this.#isIn = true;
    const from = recovered ? this.#at?.offset : publications.length > 0 ? 0 : offset;
    this.#at = recoverable ? { epoch, offset: from ?? 0 } : null;
  }

  /** Moves through the messages of the reply, and yields those that are new. */
  *missed({ offset = 0, publications = [] }) {
    for (const each of publications) if (this.move(each)) yield each;
    this.move({ offset });
  }

  /** Leaves the room, but not the place. Returns whether the page was in the room. */
  leave() {
    const wasIn = this.#isIn;
    this.#isIn = false;
    return wasIn;
  }

  /** Moves on to a message. Returns false if it was received before. */
  move({ offset = 0 }) {
    if (this.#at === null || offset === 0) return true;
    if (offset <= this.#at.offset) return false;
    this.#at.offset = offset;
    return true;
  }
}

/**
 * The token and the data of a client or of a subscription: what the page gave, and what its functions return. A token that
 * expires is replaced in place.
 */
class Credentials {
  token;
  data;
  #getToken;
  #getData;
  #how;
  #run = null; // an object for each renewal
  #retry = new Backoff(() => this.#renew());
  #timer;

  constructor({ token, data, getToken, getData }, how) {
    this.token = token;
    this.data = data;
    this.#getToken = getToken;
    this.#getData = getData;
    this.#how = how;
  }

  get canFetch() {
    return this.#getToken !== null;
  }

  get isComplete() {
    return !this.#getData && (!this.#getToken || Boolean(this.token));
  }

  /** Fetches what is missing. Resolves to false if that failed, or if the caller's attempt is not current any more. */
  async fetch(isCurrent) {
    const { timeout, context, names } = this.#how;
    let [type, code] = names;
    try {
      const token = this.token || (this.#getToken ? await this.#fetchToken() : "");
      if (!isCurrent()) return false;
      this.token = token;
      [type, code] = [names[2], errorCodes.badConfiguration];
      const data = this.#getData ? await within(timeout, () => this.#getData(context)) : this.data;
      if (isCurrent()) this.data = data;
    } catch (error) {
      if (!isCurrent()) return false;
      if (error instanceof UnauthorizedError) this.#how.refused(...UNAUTHORIZED);
      else this.#how.failed(type, failure(code, text(error)));
      return false;
    }
    return isCurrent();
  }

  /** Replaces the token in so many seconds, if there is a way to. */
  renewIn(ttl) {
    this.stop();
    if (this.canFetch) this.#timer = setTimeout(() => this.#renew(), Math.min(ttl * 1000, MAX_TIMER_MS));
  }

  stop() {
    clearTimeout(this.#timer);
    this.#retry.reset();
    this.#run = null;
  }

  async #renew() {
    const run = (this.#run = {});
    const again = (type, error) => {
      this.#retry.schedule(...REFRESH_MS);
      this.#how.told(type, error);
    };
    try {
      const token = await this.#fetchToken();
      if (run !== this.#run) return;
      this.token = token;
    } catch (error) {
      if (run !== this.#run) return;
      if (error instanceof UnauthorizedError) this.#how.refused(...UNAUTHORIZED);
      else again("refreshToken", failure(this.#how.names[3], text(error)));
      return;
    }
    this.#how.send(this.token, (error, result) => {
      if (run !== this.#run || error?.code === errorCodes.connectionClosed) return;
      if (!error && result?.expires) this.renewIn(result.ttl);
      else if (error && (error.code < 100 || error.temporary)) again("refresh", error);
      else if (error) this.#how.refused(error.code, error.message);
    });
  }

  async #fetchToken() {
    const token = await within(this.#how.timeout, () => this.#getToken(this.#how.context));
    const isAbsent = this.#how.mayBeEmpty ? token === null || token === undefined : !token;
    if (isAbsent) throw new UnauthorizedError("getToken returned no token");
    return token;
  }
}

/** Retries after random delays from 0 to a bound that doubles, so that many clients do not retry at once. */
class Backoff {
  #react;
  #timer;
  #attempts = 0;

  constructor(react) {
    this.#react = react;
  }

  schedule(least, most, { spread = false, slowly = false, firstAtOnce = false, free = false } = {}) {
    if (free) {
      this.stop();
      this.#timer = setTimeout(this.#react);
      return;
    }
    const bound = Math.min(most, least * 2 ** (this.#attempts + (spread ? 2 : 0)));
    const atOnce = firstAtOnce && this.#attempts === 0;
    this.#attempts += 1;
    this.stop();
    this.#timer = setTimeout(this.#react, slowly ? most : atOnce ? 0 : Math.round(Math.random() * bound));
  }

  /** What was retried has held for so long. */
  held(ms) {
    if (ms >= HELD_MS) this.#attempts = 0;
  }

  stop() {
    clearTimeout(this.#timer);
  }

  reset() {
    this.stop();
    this.#attempts = 0;
  }
}

/** Promises that are settled together. */
class Waiters {
  #waiting = new Set();

  async wait(timeout) {
    let waiter;
    const settled = new Promise((resolve, reject) => this.#waiting.add((waiter = { resolve, reject })));
    try {
      await within(timeout, () => settled);
    } finally {
      this.#waiting.delete(waiter);
    }
  }

  resolve() {
    for (const { resolve } of this.#waiting) resolve();
  }

  reject(error) {
    for (const { reject } of this.#waiting) reject(error);
  }
}

/** Tells the page what happened in a room. */
function tell(emitter, channel, { pub, join, leave }, place) {
  if (pub && place.move(pub)) emitter.emit("publication", publication(channel, pub));
  else if (join) emitter.emit("join", { channel, info: person(join.info) });
  else if (leave) emitter.emit("leave", { channel, info: person(leave.info) });
}

/** Makes the context of the event that a room is entered. */
function entered(channel, result) {
  const { recoverable = false, positioned = false, epoch = "", offset = 0, publications = [] } = result;
  const { was_recovering: wasRecovering = false, recovered = false } = result;
  return {
    channel,
    recoverable,
    positioned,
    ...((recoverable || positioned) && { streamPosition: { epoch, offset } }),
    wasRecovering,
    recovered,
    hasRecoveredPublications: recovered && publications.length > 0,
    ...("data" in result && { data: result.data }),
  };
}

function publication(channel, { data, info, offset, tags }) {
  return { channel, data, ...(info && { info: person(info) }), ...(offset && { offset }), ...(tags && { tags }) };
}

function person({ client, user, conn_info: connInfo, chan_info: chanInfo }) {
  return { client, user, ...(connInfo !== undefined && { connInfo }), ...(chanInfo !== undefined && { chanInfo }) };
}

// Errors

/** Makes the error of a rejected promise. */
function failure(code, message, temporary = false) {
  return Object.assign(new Error(message), { code, temporary });
}

/** Makes the error of an event, which is a plain object. */
function plain({ code, message, temporary }) {
  return { code, message, temporary };
}

function text(error) {
  return error instanceof Error ? error.message : String(error);
}

const disconnected = () => failure(errorCodes.clientDisconnected, "client disconnected");
const unsubscribed = () => failure(errorCodes.subscriptionUnsubscribed, "subscription unsubscribed");
const noGetToken = () => failure(errorCodes.badConfiguration, "the token has expired, and there is no getToken");

function report(error) {
  if (globalThis.reportError) globalThis.reportError(error);
  else console.error(error);
}

/** Calls a function, and waits for its result up to a timeout, if there is one. */
async function within(timeout, call) {
  let timer;
  const late = new Promise((_, reject) => {
    if (timeout !== undefined) timer = setTimeout(() => reject(failure(errorCodes.timeout, "timeout")), timeout);
  });
  try {
    return await Promise.race([call(), late]);
  } finally {
    clearTimeout(timer);
  }
}

// Arguments

const SCHEMES = { websocket: "ws", http_stream: "http", sse: "http" };

function transports(endpoint, emulationEndpoint) {
  if (!Array.isArray(endpoint)) return [{ transport: "websocket", url: address(endpoint, "ws") }];
  if (endpoint.length === 0) throw new TypeError("the list of transports is empty");
  return endpoint.map(({ transport, endpoint }) => {
    if (!Object.hasOwn(SCHEMES, transport)) {
      throw new TypeError(`no transport "${transport}"; there are ${Object.keys(SCHEMES).join(", ")}`);
    }
    const url = address(endpoint, SCHEMES[transport]);
    return { transport, url, ...(transport !== "websocket" && { posts: address(emulationEndpoint, "http") }) };
  });
}

function address(url, scheme) {
  const absolute = new URL(url, globalThis.location?.href);
  absolute.protocol = absolute.protocol.replace(/^(ws|http)(?=s?:$)/, scheme);
  const kind = scheme === "ws" ? "WebSocket" : "stream";
  if (![`${scheme}:`, `${scheme}s:`].includes(absolute.protocol)) throw new TypeError(`${absolute} is no address of a ${kind}`);
  absolute.hash = ""; // WebSocket does not accept a fragment
  return absolute.href;
}

/** Completes options with their defaults. Throws a TypeError for options that do not exist, and for wrong values. */
function checked(options, defaults) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (!Object.hasOwn(defaults, name)) {
      throw new TypeError(`no option "${name}"; there are ${Object.keys(defaults).join(", ")}`);
    }
    const least = name === "maxServerPingDelay" ? 0 : 1;
    if (typeof defaults[name] === "number" && !(typeof value === "number" && value >= least && value <= MAX_TIMER_MS)) {
      throw new TypeError(`${name} is ${value}; it takes a number of milliseconds from ${least} to ${MAX_TIMER_MS}`);
    }
    if (name.startsWith("get") && value && typeof value !== "function") throw new TypeError(`${name} is no function`);
  }
  return { ...defaults, ...Object.fromEntries(given) };
}
