// The client: a `Centrifuge` of the npm package `centrifuge`, or of hubbub's own module for pages. Both are a `Live`:
//
//     const client: Live = new Centrifuge("/live");

export interface Live {
  readonly state: LiveState;
  connect(): void;
  disconnect(): void;
  /** Resolves once it is connected. Rejects if it is disconnected, or after the timeout in milliseconds. */
  ready(timeout?: number): Promise<void>;
  /** For the next connection. */
  setToken(token: string): void;
  /** For the next connection. */
  setData(data: LiveConnectData): void;

  // Requests reject with a `LiveError`.

  rpc<Method extends keyof LiveMethods>(
    method: Method,
    ...data: LiveGiven<LiveMethods[Method]["request"]>
  ): Promise<{ data: LiveMethods[Method]["reply"] }>;
  /** Calls a method without waiting for its reply, or for an error. */
  send(message: LiveMessage): Promise<void>;
  publish<Name extends LiveRoomName>(channel: Name, ...data: LiveGiven<LiveRoomOf<Name>["publish"]>): Promise<{}>;
  history<Name extends LiveRoomName>(
    channel: Name,
    options: LiveHistoryOptions,
  ): Promise<LiveHistory<LiveRoomOf<Name>["publication"]>>;
  presence(channel: LiveRoomName): Promise<LivePresence>;
  presenceStats(channel: LiveRoomName): Promise<LivePresenceStats>;

  newSubscription<Name extends LiveRoomName>(
    channel: Name,
    options?: LiveSubscriptionOptions<LiveRoomOf<Name>["subscribe"]>,
  ): LiveSubscription<LiveRoomOf<Name>>;
  getSubscription<Name extends LiveRoomName>(channel: Name): LiveSubscription<LiveRoomOf<Name>> | null;
  /** Unsubscribes, and forgets the subscription and its place in the room. */
  removeSubscription(subscription: LiveSubscription<any> | null): void;
  subscriptions(): { [channel: string]: LiveSubscription };

  on<Event extends keyof LiveEvents>(event: Event, handler: LiveEvents[Event]): this;
  once<Event extends keyof LiveEvents>(event: Event, handler: LiveEvents[Event]): this;
  off<Event extends keyof LiveEvents>(event: Event, handler: LiveEvents[Event]): this;
  removeAllListeners(event?: keyof LiveEvents): this;
}

/** A subscription to a room. `LiveSubscription<LiveRooms["posts"]>` is one to the room `posts`. */
export interface LiveSubscription<Room extends LiveRoom = LiveRoom> {
  readonly channel: string;
  readonly state: LiveSubscriptionState;
  subscribe(): void;
  /** Ends the subscription. The place in the room is kept, for another `subscribe()`. */
  unsubscribe(): void;
  /** Resolves once it is subscribed. Rejects if it is unsubscribed, or after the timeout in milliseconds. */
  ready(timeout?: number): Promise<void>;
  /** For the next attempt to subscribe. */
  setData(data: Room["subscribe"]): void;

  // Requests reject with a `LiveError`.

  publish(...data: LiveGiven<Room["publish"]>): Promise<{}>;
  history(options: LiveHistoryOptions): Promise<LiveHistory<Room["publication"]>>;
  presence(): Promise<LivePresence>;
  presenceStats(): Promise<LivePresenceStats>;

  on<Event extends keyof LiveSubscriptionEvents<Room>>(
    event: Event,
    handler: LiveSubscriptionEvents<Room>[Event],
  ): this;
  once<Event extends keyof LiveSubscriptionEvents<Room>>(
    event: Event,
    handler: LiveSubscriptionEvents<Room>[Event],
  ): this;
  off<Event extends keyof LiveSubscriptionEvents<Room>>(
    event: Event,
    handler: LiveSubscriptionEvents<Room>[Event],
  ): this;
  removeAllListeners(event?: keyof LiveSubscriptionEvents<Room>): this;
}

/** The names of rooms. */
export type LiveRoomName = LiveRooms[keyof LiveRooms]["name"];

/** The room of a name. */
export type LiveRoomOf<Name extends LiveRoomName> = {
  [Pattern in keyof LiveRooms]: Name extends LiveRooms[Pattern]["name"]
    ? Name extends LiveRooms[Pattern]["except"]
      ? never
      : LiveRooms[Pattern]
    : never;
}[keyof LiveRooms];

/** What the types of a room are made of: see `LiveRooms`. */
export interface LiveRoom {
  name: string;
  publication: unknown;
  publish: unknown;
  subscribe: unknown;
}

export type LiveState = "disconnected" | "connecting" | "connected";
export type LiveSubscriptionState = "unsubscribed" | "subscribing" | "subscribed";

/** A rejected request. Codes below 100 are of the client, codes from 100 of the server. */
export interface LiveError {
  code: number;
  message: string;
  /** Whether the same request may succeed later. */
  temporary?: boolean;
}

export interface LivePublication<Data> {
  channel: string;
  data: Data;
  /** The client that published it; missing if the server did. */
  info?: LiveInfo;
  /** Its place in the history. */
  offset?: number;
  tags?: { [tag: string]: string };
}

/** A client, as others see it. */
export interface LiveInfo {
  client: string;
  /** The id of its user; empty if it is anonymous. */
  user: string;
  connInfo?: any;
  chanInfo?: any;
}

export interface LivePosition {
  offset: number;
  epoch: string;
}

export interface LiveHistoryOptions {
  /** At most so many messages. 0, the default, asks for the position only; -1 for all. */
  limit?: number;
  /** Messages after this position; before it, if reversed. */
  since?: LivePosition;
  reverse?: boolean;
}

export interface LiveHistory<Data> extends LivePosition {
  publications: LivePublication<Data>[];
}

export interface LivePresence {
  clients: { [client: string]: LiveInfo };
}

export interface LivePresenceStats {
  numClients: number;
  numUsers: number;
}

/** Why a connection or a subscription is in its state. */
export interface LiveCause {
  code: number;
  reason: string;
}

/** Something that failed, and is tried again. */
export interface LiveFailure {
  type: string;
  error: LiveError;
}

export interface LiveSubscribed {
  channel: string;
  recoverable: boolean;
  positioned: boolean;
  streamPosition?: LivePosition;
  /** Whether the client came back to the room. */
  wasRecovering: boolean;
  /** Whether all messages that it missed follow. If not, and it was recovering, load the room's state again. */
  recovered: boolean;
  hasRecoveredPublications: boolean;
  /** The data of the `Grant`. */
  data?: any;
}

/** The events of the client. Those from `subscribing` on are about rooms that the server joins it to. */
export interface LiveEvents {
  state(context: { newState: LiveState; oldState: LiveState }): void;
  connecting: (context: LiveCause) => void;
  connected: (context: { client: string; transport: string; data?: any }) => void;
  disconnected: (context: LiveCause) => void;
  error(context: LiveFailure & { transport?: string }): void;
  /** A message to this connection alone. */
  message: (context: { data: any }) => void;
  subscribing: (context: { channel: string }) => void;
  subscribed: (context: LiveSubscribed) => void;
  unsubscribed: (context: { channel: string }) => void;
  publication: (context: LivePublication<any>) => void;
  join: (context: { channel: string; info: LiveInfo }) => void;
  leave: (context: { channel: string; info: LiveInfo }) => void;
}

/** The events of a subscription. */
export interface LiveSubscriptionEvents<Room extends LiveRoom = LiveRoom> {
  state(context: { channel: string; newState: LiveSubscriptionState; oldState: LiveSubscriptionState }): void;
  subscribing: (context: LiveCause & { channel: string }) => void;
  subscribed: (context: LiveSubscribed) => void;
  unsubscribed: (context: LiveCause & { channel: string }) => void;
  publication: (context: LivePublication<Room["publication"]>) => void;
  join: (context: { channel: string; info: LiveInfo }) => void;
  leave: (context: { channel: string; info: LiveInfo }) => void;
  error(context: LiveFailure & { channel: string }): void;
}

/** What `send` takes: a method, and its request. */
export type LiveMessage = {
  [Method in keyof LiveMethods]: { method: Method } & LiveData<LiveMethods[Method]["request"]>;
}[keyof LiveMethods];

/** The argument for data, which may be missing where `undefined` is data. */
export type LiveGiven<Data> = undefined extends Data ? [data?: Data] : [data: Data];
export type LiveData<Data> = undefined extends Data ? { data?: Data } : { data: Data };

/** Called for every attempt to subscribe. */
export type LiveGetData<Data> = (context: { channel: string }) => Promise<Data>;

export interface LiveSubscriptionOptions<Data> {
  /** What the room takes, unless `setData` or `getData` gives it. */
  data?: Data;
  getData?: LiveGetData<Data> | null;
  /** The subscription token to begin with. */
  token?: string;
  /** Called when there is no token, or a new one is needed. */
  getToken?: ((context: { channel: string }) => Promise<string>) | null;
  /** The position from which the first subscribe recovers. */
  since?: LivePosition | null;
  positioned?: boolean;
  recoverable?: boolean;
  joinLeave?: boolean;
  /** Milliseconds. */
  minResubscribeDelay?: number;
  /** Milliseconds. */
  maxResubscribeDelay?: number;
}
