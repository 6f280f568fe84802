/** Types of hubbub.js, the browser client of hubbub. */

/** A position in a room's stream of messages: just after message `offset` of the numbering `epoch`. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/**
 * - `connecting`: an attempt is under way
 * - `open`: the socket is open
 * - `waiting`: the client waits for the next attempt, for the network, or for the page to be shown again
 * - `stopped`: the client does nothing until `connect()`
 */
export type State = "connecting" | "open" | "waiting" | "stopped";

export interface StateDetail {
  /** The number of retries since a connection last stayed open for five seconds. */
  readonly attempt: number;
  /** The close code that led to `waiting` or `stopped`; null if there was none. */
  readonly code: number | null;
  /** The server's reason, or the client's own: "offline", "page hidden", "no answer", "no sign of life", an error. */
  readonly reason: string;
  /** The length of `waiting`; null if it waits for an event instead. */
  readonly delayMs: number | null;
  /** The end of `waiting`, on the clock of `Date.now()`; null if it waits for an event instead. */
  readonly retryAt: number | null;
}

/** The room and the position of a message. Both are null for rooms without positions, and for direct messages. */
export type MessageMeta =
  | { readonly room: string; readonly position: Position; readonly replayed: boolean }
  | { readonly room: null; readonly position: null; readonly replayed: false };

/** The connection joined a room with positions. */
export interface Sync {
  readonly room: string;
  /** Whether all messages after the client's position follow. */
  readonly recovered: boolean;
  /** The current position of the room. */
  readonly position: Position;
}

/** The missed messages of a room can't be recovered: load its state again. */
export interface Reset {
  readonly room: string;
  /** `lost`: the server started a new history. `too_old`: its history no longer reaches back to the position. */
  readonly reason: "lost" | "too_old";
}

/** The connection was too slow for a room, so the server dropped messages. */
export interface Dropped {
  readonly room: string;
  readonly count: number;
}

/** The server did not accept a message of this client. */
export interface ServerError {
  readonly code: string;
  readonly message: string;
}

export interface Handlers<Data = unknown> {
  message(data: Data, meta: MessageMeta): void;
  state(state: State, detail: StateDetail): void;
  sync(sync: Sync): void;
  reset(reset: Reset): void;
  dropped(dropped: Dropped): void;
  error(error: ServerError): void;
}

export type Address = string | URL;
export type Token = string | null | undefined;

export interface Options {
  /** The token, which is sent as the subprotocol pair "bearer", token. A function is called for every attempt. */
  token?: Token | (() => Token | Promise<Token>);
  /** The first retry follows after a random delay of at most this. Default 500. */
  minDelayMs?: number;
  /** The bound on the delay doubles with every failure, up to this. Default 30000. */
  maxDelayMs?: number;
  /** If above 0: ping the server this often, and replace a socket that is silent for twice as long. Default 0. */
  pingIntervalMs?: number;
  /** Whether to connect immediately. Default true. */
  connect?: boolean;
}

/**
 * A WebSocket that reconnects, and recovers the messages it missed.
 *
 * `Data` is the type of the messages: parsed JSON, a string if it is not JSON, or an ArrayBuffer.
 */
export class HubbubClient<Data = unknown> {
  /**
   * @param url The address of the endpoint: relative to the page, ws(s) or http(s). A function is called for every
   *   attempt.
   * @throws TypeError if the url is malformed, or an option is not acceptable.
   */
  constructor(url: Address | (() => Address | Promise<Address>), options?: Options);

  readonly state: State;

  /** The server's id of the current connection; null until the connection has joined a room with positions. */
  readonly connectionId: string | null;

  /** The position in each room, after the last message received. To forget a room, delete it here. */
  readonly positions: Map<string, Position>;

  /** Calls the handler whenever the event happens. Returns a function that removes the handler. */
  on<Event extends keyof Handlers>(event: Event, handler: Handlers<Data>[Event]): () => void;

  /**
   * Sends a string, an ArrayBuffer, a view on one, or a Blob as it is, and anything else as JSON.
   * @returns Whether the socket was open. Nothing is queued for later.
   * @throws TypeError if the value can't be written as JSON.
   */
  send(value: unknown): boolean;

  /** Connects now, if the client is stopped or waiting. Positions are kept. */
  connect(): void;

  /** Closes, and stays closed until `connect()`. The code is 1000, or 3000 to 4999. */
  close(code?: number, reason?: string): void;
}
