/** Types of hubbub.js, the page's client of hubbub's endpoints: a part of those of the npm package `centrifuge`. */

// `any` for the data of the app is what the package has, so that the same lines compile with both.

export const State: {
  readonly Disconnected: "disconnected";
  readonly Connecting: "connecting";
  readonly Connected: "connected";
};
export type State = "disconnected" | "connecting" | "connected";

export const SubscriptionState: {
  readonly Unsubscribed: "unsubscribed";
  readonly Subscribing: "subscribing";
  readonly Subscribed: "subscribed";
};
export type SubscriptionState = "unsubscribed" | "subscribing" | "subscribed";

/** Codes of errors that the client makes itself. Codes from 100 are the server's. */
export const errorCodes: {
  /** No answer came, or no connection, in the time of `timeout`. */
  readonly timeout: 1;
  readonly transportClosed: 2;
  readonly clientDisconnected: 3;
  readonly clientConnectToken: 5;
  readonly clientRefreshToken: 6;
  readonly subscriptionUnsubscribed: 7;
  readonly subscriptionSubscribeToken: 8;
  readonly subscriptionRefreshToken: 9;
  /** The connection was lost before the answer came. */
  readonly connectionClosed: 11;
  readonly badConfiguration: 12;
};

/** Throw it from `getToken` if there is no permission (any more). The client or the subscription then ends. */
export class UnauthorizedError extends Error {}

export interface Options {
  /** The token to begin with. */
  token?: string;
  /** Called when there is no token, or a new one is needed. An empty token connects without one. */
  getToken?: ((context: object) => Promise<string>) | null;
  /** Data for the function under `@live.connect`. */
  data?: any;
  /** Called for every attempt to connect. */
  getData?: (() => Promise<any>) | null;
  /** The name of the client, for the server. Default "js". */
  name?: string;
  /** The version of the app, for the server. */
  version?: string;
  /** Log every frame with `console.debug`. */
  debug?: boolean;
  /** Milliseconds for each answer, and for each function of the page. Default 5000. */
  timeout?: number;
  /** The first retry follows after a random delay of at most this many milliseconds. Default 500. */
  minReconnectDelay?: number;
  /** The bound on the delay doubles with every failure, up to this many milliseconds. Default 20000. */
  maxReconnectDelay?: number;
  /**
   * A connection that was silent for the server's ping interval and this many milliseconds, but for at most 1.5 of the
   * intervals, is replaced. 0 turns that off. Default 10000.
   */
  maxServerPingDelay?: number;
  /** The WebSocket class, if not the global one. */
  websocket?: any;
  /** The function `fetch`, if not the global one: for streams. */
  fetch?: any;
  /** The EventSource class, if not the global one. */
  eventsource?: any;
  /** The address of the commands of streams: that of the endpoint, and `/emulation`. Default "/emulation". */
  emulationEndpoint?: string;
}

/** A way to connect. The client tries several in their order, and stays with the first that works. */
export interface TransportEndpoint {
  transport: "websocket" | "http_stream" | "sse";
  /** The address: that of the endpoint for "websocket", and below it `/http_stream` and `/sse`. */
  endpoint: string;
}

export interface StreamPosition {
  offset: number;
  epoch: string;
}

export interface SubscriptionOptions {
  /** The subscription token to begin with. */
  token?: string;
  /** Called when there is no token, or a new one is needed. An empty token ends the subscription. */
  getToken?: ((context: { channel: string }) => Promise<string>) | null;
  /** Data for the room's rule. */
  data?: any;
  /** Called for every attempt to subscribe. */
  getData?: ((context: { channel: string }) => Promise<any>) | null;
  /** The position from which the first subscribe recovers. */
  since?: Partial<StreamPosition> | null;
  /** The room's options decide; a room with history is positioned and recoverable, whatever the client asks for. */
  positioned?: boolean;
  recoverable?: boolean;
  joinLeave?: boolean;
  /** As `minReconnectDelay`. */
  minResubscribeDelay?: number;
  /** As `maxReconnectDelay`. */
  maxResubscribeDelay?: number;
}

/** What a rejected promise holds, and an `error` event under `error`. */
export interface ErrorDetail {
  code: number;
  message: string;
  temporary: boolean;
}

export interface ClientInfo {
  client: string;
  /** Empty if the client is anonymous. */
  user: string;
  connInfo?: any;
  chanInfo?: any;
}

export interface PublicationContext {
  channel: string;
  data: any;
  info?: ClientInfo;
  /** Present in a room with a history. */
  offset?: number;
  tags?: Record<string, string>;
}

export interface SubscribedContext {
  channel: string;
  /** Whether missed messages can be recovered. */
  recoverable: boolean;
  positioned: boolean;
  streamPosition?: StreamPosition;
  /** Whether the client came back to the room. */
  wasRecovering: boolean;
  /** Whether all messages that it missed follow. If not, and it was recovering, load the room's state again. */
  recovered: boolean;
  hasRecoveredPublications: boolean;
  /** The data of the `Grant`. */
  data?: any;
}

export interface Cause {
  code: number;
  reason: string;
}

export type ClientEvents = {
  state: (context: { newState: State; oldState: State }) => void;
  connecting: (context: Cause) => void;
  connected: (context: { client: string; transport: string; data?: any }) => void;
  disconnected: (context: Cause) => void;
  /** Something failed, and is tried again. */
  error: (context: { type: string; error: ErrorDetail; transport?: string }) => void;
  /** A message to this connection alone. */
  message: (context: { data: any }) => void;
  /** The following are about rooms that the server joins the client to. */
  subscribing: (context: { channel: string }) => void;
  subscribed: (context: SubscribedContext) => void;
  unsubscribed: (context: { channel: string }) => void;
  publication: (context: PublicationContext) => void;
  join: (context: { channel: string; info: ClientInfo }) => void;
  leave: (context: { channel: string; info: ClientInfo }) => void;
};

export type SubscriptionEvents = {
  state: (context: { channel: string; newState: SubscriptionState; oldState: SubscriptionState }) => void;
  subscribing: (context: Cause & { channel: string }) => void;
  subscribed: (context: SubscribedContext) => void;
  unsubscribed: (context: Cause & { channel: string }) => void;
  publication: (context: PublicationContext) => void;
  join: (context: { channel: string; info: ClientInfo }) => void;
  leave: (context: { channel: string; info: ClientInfo }) => void;
  /** Something failed, and is tried again. */
  error: (context: { channel: string; type: string; error: ErrorDetail }) => void;
};

declare class Emitter<Events> {
  on<E extends keyof Events>(event: E, handler: Events[E]): this;
  once<E extends keyof Events>(event: E, handler: Events[E]): this;
  off<E extends keyof Events>(event: E, handler: Events[E]): this;
  removeAllListeners(event?: keyof Events): this;
  listeners<E extends keyof Events>(event: E): Events[E][];
  emit<E extends keyof Events>(event: E, ...values: Events[E] extends (...values: infer V) => void ? V : never): boolean;
}

export interface HistoryOptions {
  /** At most so many messages. 0, the default, asks for the position only; -1 for all. */
  limit?: number;
  /** Messages after this position; before it, if reversed. */
  since?: StreamPosition;
  reverse?: boolean;
}

export interface HistoryResult {
  publications: PublicationContext[];
  offset: number;
  epoch: string;
}

/** A connection to an endpoint, which comes back when it is lost. */
export class Centrifuge extends Emitter<ClientEvents> {
  static readonly State: typeof State;
  static readonly SubscriptionState: typeof SubscriptionState;
  static readonly UnauthorizedError: typeof UnauthorizedError;

  /**
   * @param endpoint The address of the endpoint: relative to the page, ws(s) or http(s).
   * @throws TypeError if the address is malformed, or an option does not exist or has a wrong value.
   */
  constructor(endpoint: string | URL | TransportEndpoint[], options?: Options);

  readonly state: State;

  /** Connects, and stays connected until `disconnect()`, or until the server ends it with a code that is final. */
  connect(): void;
  disconnect(): void;
  /** Resolves once it is connected. Rejects if it is disconnected, or after the timeout in milliseconds. */
  ready(timeout?: number): Promise<void>;
  /** For the next connection. */
  setToken(token: string): void;
  /** For the next connection. */
  setData(data: any): void;

  // Requests wait for the connection, and then for their answers: each time up to `timeout`. They reject with an Error
  // that has a `code`, a `message`, and `temporary`.

  rpc(method: string, data?: any): Promise<{ data: any }>;
  /** Sends a message without an answer. */
  send(data: any): Promise<void>;
  publish(channel: string, data: any): Promise<{}>;
  history(channel: string, options?: HistoryOptions): Promise<HistoryResult>;
  presence(channel: string): Promise<{ clients: Record<string, ClientInfo> }>;
  presenceStats(channel: string): Promise<{ numClients: number; numUsers: number }>;

  /** @throws Error if there is a subscription to the room already. */
  newSubscription(channel: string, options?: SubscriptionOptions): Subscription;
  getSubscription(channel: string): Subscription | null;
  /** Unsubscribes, and forgets the subscription and its place in the room. */
  removeSubscription(subscription: Subscription | null): void;
  subscriptions(): Record<string, Subscription>;
}

/** A subscription to a room, which comes back when it is lost, with what was missed. */
export class Subscription extends Emitter<SubscriptionEvents> {
  private constructor();

  readonly channel: string;
  readonly state: SubscriptionState;

  subscribe(): void;
  /** Ends the subscription. The place in the room is kept, for another `subscribe()`. */
  unsubscribe(): void;
  /** Resolves once it is subscribed. Rejects if it is unsubscribed, or after the timeout in milliseconds. */
  ready(timeout?: number): Promise<void>;
  /** For the next attempt to subscribe. */
  setData(data: any): void;

  // Requests wait for the subscription up to the `timeout` of the client.

  publish(data: any): Promise<{}>;
  history(options?: HistoryOptions): Promise<HistoryResult>;
  presence(): Promise<{ clients: Record<string, ClientInfo> }>;
  presenceStats(): Promise<{ numClients: number; numUsers: number }>;
}
