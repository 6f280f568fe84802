/** Types of hubbub.js, the browser client of hubbub. */

/** A place in a room's stream of messages: after the message `offset` of the numbering `epoch`. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/**
 * - `connecting`: an attempt is under way
 * - `open`: the socket is open
 * - `waiting`: for the next attempt, or for the network or the page to come back
 * - `stopped`: until `connect()`
 */
export type State = "connecting" | "open" | "waiting" | "stopped";

export interface StateDetail {
  /** How many retries there were since a connection last held for five seconds. */
  readonly attempt: number;
  /** The close code that led to `waiting` or `stopped`; null where there was none. */
  readonly code: number | null;
  /** The server's reason, or the client's own: "offline", "page hidden", "no answer", "no sign of life", an error. */
  readonly reason: string;
  /** How long `waiting` lasts; null where it waits for an event. */
  readonly delayMs: number | null;
  /** When `waiting` ends, as `Date.now()` counts. */
  readonly retryAt: number | null;
}

/** Where a message belongs. A room without positions does not say. */
export type MessageMeta =
  | { readonly room: string; readonly position: Position; readonly replayed: boolean }
  | { readonly room: null; readonly position: null; readonly replayed: false };

/** A room with positions was joined. */
export interface Sync {
  readonly room: string;
  /** Whether everything after the client's position follows. */
  readonly recovered: boolean;
  /** Where the room is now. */
  readonly position: Position;
}

/** What was missed in the room is gone: load its state anew. */
export interface Reset {
  readonly room: string;
  /** `lost`: the server began a new history. `too_old`: its history no longer reaches back. */
  readonly reason: "lost" | "too_old";
}

/** The connection was too slow for the room, and missed messages. */
export interface Dropped {
  readonly room: string;
  readonly count: number;
}

/** The server could not take a message of this client. */
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
  /** Sent as the subprotocol pair "bearer", token. A function is called for every attempt. */
  token?: Token | (() => Token | Promise<Token>);
  /** The first retry comes after a random time of up to this. Default 500. */
  minDelayMs?: number;
  /** Which doubles with every failure, up to this. Default 30000. */
  maxDelayMs?: number;
  /**
   * Above 0: ask the server for a sign of life this often, and replace a socket that was silent for twice as long.
   * Default 0.
   */
  pingIntervalMs?: number;
  /** Start at once. Default true. */
  connect?: boolean;
}

/**
 * A WebSocket that comes back, and knows what it has missed.
 *
 * `Data` is what messages hold: parsed JSON, a string where it is not JSON, or an ArrayBuffer.
 */
export class HubbubClient<Data = unknown> {
  /**
   * @param url Where to connect: relative to the page, ws(s) or http(s). A function is called for every attempt.
   * @throws TypeError for a url that is none, or a wrong option.
   */
  constructor(url: Address | (() => Address | Promise<Address>), options?: Options);

  readonly state: State;

  /** The server's id of the current connection, once a room with positions was joined; else null. */
  readonly connectionId: string | null;

  /** The position in each room, as far as messages have come. To forget a room, delete it here. */
  readonly positions: Map<string, Position>;

  /** Calls the handler whenever the event happens. Returns what takes it away again. */
  on<Event extends keyof Handlers>(event: Event, handler: Handlers<Data>[Event]): () => void;

  /**
   * Sends a string, an ArrayBuffer, a view on one, or a Blob as it is, anything else as JSON.
   * @returns Whether it was handed to an open socket. Nothing is queued for later.
   * @throws TypeError where JSON can't say the value.
   */
  send(value: unknown): boolean;

  /** Connects now, if the client is stopped or waiting. Positions are kept. */
  connect(): void;

  /** Closes, and stays closed until `connect()`. The code is 1000, or 3000 to 4999. */
  close(code?: number, reason?: string): void;
}
