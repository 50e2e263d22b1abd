/** What a client is doing. The words are the same in every SDK; `api/client.md` has the whole machine. */
export type State =
  /** Made, and not asked to connect yet. */
  | "idle"
  /** A token is fetched, or transports are being tried. */
  | "connecting"
  /** Welcomed by the gateway: messages come. */
  | "connected"
  /** The last attempt failed; the next one comes by itself. */
  | "waiting"
  /** As `waiting`, while the system says that there is no network. */
  | "offline"
  /** Held back until the page is visible, thawed or asked again: another tab of this device is connected, or this page is frozen. */
  | "suspended"
  /** {@link Client.close} was called. */
  | "closed"
  /** Coming back by itself would be wrong; {@link Client.failure} says why. {@link Client.connect} tries again. */
  | "failed";

/** A value, or the promise of one. */
export type Awaitable<T> = T | PromiseLike<T>;

/** Why a token is asked for. */
export type TokenReason =
  /** For a connection, as none is known that still holds. */
  | "connect"
  /** The one in use runs out soon, or the gateway asked for another. The connection goes on meanwhile. */
  | "expiring"
  /** The last one was refused, or had run out. The answer has to be another token; asked once, not again and again. */
  | "refused";

/** What {@link ClientOptions.getToken} is told. */
export interface TokenRequest {
  readonly reason: TokenReason;
  /** Aborted when the answer is of no use any more. */
  readonly signal: AbortSignal;
  /** A random name of this browser profile, kept in {@link ClientOptions.storage}: good for the claim `did`. 28 letters and digits; empty without a storage. */
  readonly deviceId: string;
}

/** A message, as it is handed to handlers. It is not changed by the client after that. */
export interface Message<Body = unknown> {
  /** Names the message, across devices. A string of digits: it does not fit in a number. */
  readonly id: string;
  /** Stored until this device acknowledged it; the others are for who is online, and come at most once. */
  readonly persistent: boolean;
  /** When the gateway accepted it. */
  readonly time: Date;
  /** When it is of no use any more; persistent messages only. */
  readonly expires?: Date;
  /** The sender's own name for it. */
  readonly ref?: string;
  /** A newer message of the same key takes its place while it waits. */
  readonly collapseKey?: string;
  readonly headers: Readonly<Record<string, string>>;
  /** The JSON value that was sent, a `Uint8Array` where it was sent as bytes, or `undefined` if there was none. */
  readonly body: Body;
}

/** The sender took a message back. Withdraw it, if it was shown. */
export interface Recall {
  readonly id: string;
  /** Whether a handler of this client was given the message, as far as it remembers. */
  readonly handed: boolean;
}

/** Messages may be missing that will not come. Ask your own server what the user missed. */
export interface Gap {
  /** Whose messages: those to this user, or those to many. */
  readonly slot: "own" | "common";
  /**
   * `limit`: more waited than the gateway keeps. `lost`: the gateway has lost a body. `reset`: the gateway knows nothing of how far this device
   * was; what it has comes again.
   */
  readonly reason: "limit" | "lost" | "reset" | (string & {});
  /** The first position that may be missing is the one after `from`, the last one is `to`. */
  readonly from: number;
  readonly to: number;
}

/** The gateway ended the session for a reason that coming back does not cure. */
export interface Kick {
  /** A close code of the protocol. */
  readonly code: number;
  /** Its name: `replaced`, `kicked`, `revoked`, `policy`, `deleted` and others. */
  readonly reason: string;
  /** What the product's server gave as the reason, or which rule turned the login away. */
  readonly detail?: string;
  /** The device that took the place, and its platform. */
  readonly by?: string;
  readonly on?: string;
}

/** What a {@link CarillonError} is about. Stable: branch on it, and not on the text. */
export type ErrorCode =
  /** `getToken` said that this user may not connect: it threw an {@link UnauthorizedError}, or had no token. */
  | "unauthorized"
  /** Two tokens in a row were refused. */
  | "token_refused"
  /** `getToken` failed. It is asked again. */
  | "token_unavailable"
  /** `getToken` gave the token of another user or device. Make one client for each. */
  | "identity_changed"
  /** The gateway sent the client away; {@link CarillonError.kick} says why. */
  | "kicked"
  /** No transport got through. It is tried again. */
  | "unreachable"
  /** The gateway does not answer any more. The client comes back. */
  | "silent"
  /** The other side broke the protocol. The client comes back. */
  | "protocol"
  /** A handler threw or rejected. Its message is handed out again. */
  | "handler_failed"
  /** A handler failed five times. Its message counts as handled. */
  | "handler_gave_up"
  /** The storage failed: what was handled is not acknowledged until it can be written. */
  | "storage"
  /** The client was closed, or the signal aborted, before the answer came. */
  | "closed"
  /** An argument or option that cannot be. */
  | "invalid"
  /** Tags that the token does not permit, or more than 64. */
  | "tag_not_permitted"
  | "too_many_tags"
  | (string & {});

/** What happens to a client, by the name for {@link Client.on}. */
export interface ClientEvents<Body = unknown> {
  message: Message<Body>;
  recall: Recall;
  gap: Gap;
  kick: Kick;
  /** The state changed; or it stays `connected`, and another transport carries it now. */
  state: StateChange;
  /** Something went wrong. Nothing has to be done about it: it is for logs. */
  error: Error;
}

export interface StateChange {
  readonly state: State;
  readonly previous: State;
  /** With `waiting` and `offline`: when the next attempt comes. */
  readonly retryAt?: Date;
  /** With `connected`: what carries it: `websocket`, `sse`, `longpoll`, `tab`. */
  readonly transport?: string;
}

/** Keeps strings under keys, which all begin with {@link ClientOptions.name}. A write replaces what was there, or does nothing. */
export interface Storage {
  get(key: string): Awaitable<string | null | undefined>;
  set(key: string, value: string): Awaitable<void>;
}

/** Where a device's place is kept, and whether it is this client that connects. Made by `persistent` and `shared`. */
export interface Place {
  /** For clients alone: what they have of it, and it of them, is their own affair. */
  open(name: string | undefined, port: any): any;
}

/** What happens to the page or the network. `frozen` is also what leaving a page is: it may come back. */
export type Happening = "online" | "offline" | "visible" | "frozen" | "thawed";

/** Tells what happens until the returned function is called. `pageEvents` is one, for browsers. */
export type PageEvents = (tell: (what: Happening) => void) => () => void;

/** What every client is told. */
export interface CommonOptions {
  /** The gateway's address, as `https://push.example.com`, or several to try in turn. */
  endpoint: string | readonly string[];
  /** Gets a device token from your server. Rejecting with an {@link UnauthorizedError}, or `null`, ends the client; other failures are tried again. */
  getToken(request: TokenRequest): Awaitable<string | null>;
  /** Begins the keys in the storage, and the names of locks and channels. Default: `carillon`. */
  name?: string;
  /**
   * When a persistent message counts as handled. `auto`: when all handlers have resolved. `manual`: when {@link Client.acknowledge} is called.
   * Default: `auto`.
   */
  acknowledge?: "auto" | "manual";
  /** How many messages handlers may work on at a time. With 1 the next one begins when the one before is handled. Default: 1. */
  concurrency?: number;
  /** Name and version of your software, for the gateway's statistics; at most 64 bytes. */
  clientName?: string;
  /** Time and chance, for tests. */
  clock?: Clock;
  random?: () => number;
}

/** How {@link createClient} is told what to do. */
export interface ClientOptions extends CommonOptions {
  /** What may carry the connection, the best first. The second one is tried beside the first after 2.5 s, the third after 5 s, or when those before failed. */
  transports?: readonly Transport[];
  /** Where the cursor and the last ids are kept. Default: `localStorage`. */
  storage?: Storage;
  /** One connection for all tabs. `false`: each tab has its own, and they have to be different devices. */
  tabs?: Tabs | false;
}

/** One device's client, as `@carillon/client/core` makes it. */
export interface CoreClient<Body = unknown> {
  readonly state: State;
  /** What ended the client, while the state is `failed`. */
  readonly failure: CarillonErrorLike | undefined;
  /** What carries the connection, while the state is `connected`. */
  readonly transport: string | undefined;
  /** How far this device is: the cursor of what was handled, and stored. Undefined before the first welcome. */
  readonly cursor: string | undefined;
  /**
   * Connects, and stays connected until {@link Client.close}. Resolves with the first welcome, and rejects when the client fails or is closed before;
   * trouble on the way is no reason: that is what `waiting` is for, and `suspended`. Where the client is connected it resolves at once. With `signal` the client is closed when that is aborted.
   */
  connect(options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Acknowledges what was handled, and says goodbye. No handler is called after that. One that is still at work may finish: what it handled is kept,
   * and acknowledged the next time.
   */
  close(): void;
  /** Calls `listener` at each such event, until the returned function is called or `signal` is aborted. Messages wait while nobody listens for them. */
  on<K extends keyof ClientEvents<Body>>(
    event: K,
    listener: (value: ClientEvents<Body>[K]) => K extends "message" ? unknown : void,
    options?: { signal?: AbortSignal; once?: boolean },
  ): () => void;
  /** With `acknowledge: "manual"`: this message was handled. Messages may be acknowledged in any order. */
  acknowledge(message: Message | string): void;
}

/** One device's client. */
export interface Client<Body = unknown> extends CoreClient<Body> {
  /** The messages, one after the other. One is handled when the loop asks for the next, or ends, also by an exception: catch what may fail, or use `on`. Ends with `close`, when the client fails, and with `signal`. */
  messages(options?: { signal?: AbortSignal }): AsyncIterableIterator<Message<Body>>;
  /** A person saw the message. Sent once, as soon as the client is connected. */
  displayed(message: Message | string): void;
  /** A person clicked the message. */
  clicked(message: Message | string): void;
  /** The tags that this device joined by itself. The token says which it may. */
  readonly tags: DeviceTags;
}

/** Each call resolves with the tags that the device has joined, sorted, once the gateway has answered, also across reconnects. */
export interface DeviceTags {
  join(...tags: string[]): Promise<string[]>;
  leave(...tags: string[]): Promise<string[]>;
  list(): Promise<string[]>;
}

/** A {@link CarillonError} by its shape. */
export interface CarillonErrorLike extends Error {
  readonly code: ErrorCode;
  readonly kick?: Kick;
}

/** What a client needs of time. */
export interface Clock {
  /** Milliseconds since 1970 UTC. */
  now(): number;
  /** Calls `run` once, `ms` from now (a negative number counts as 0), unless the returned function was called before. */
  after(ms: number, run: () => void): () => void;
}

// ---- transports ---------------------------------------------------------------------------------------------------------------------

/** Carries frames between a client and the gateway, in one way. Make one of your own by wrapping one of ours. */
export interface Transport {
  /** As the states of a client have it. */
  readonly name: string;
  /** Whether the runtime has what this transport needs. */
  readonly available: boolean;
  /** Opens a connection. Everything that happens is told to `sink`, nothing before this returns. */
  open(request: OpenRequest, sink: Sink): Connection;
}

/** What a transport needs to know to connect. */
export interface OpenRequest {
  /** `http:` or `https:`, without a slash at the end. */
  readonly endpoint: string;
  /** The device token in use now. */
  token(): string;
  /** The `connect` frame, but for the token. */
  readonly connect: Omit<ConnectFrame, "token">;
  readonly clock: Clock;
}

/** Where a connection tells what happens to it. */
export interface Sink {
  /** Frames in order, as they were read from JSON. @throws {Error} if one is none: the connection is to be ended, and {@link Sink.ended} told */
  frames(frames: readonly unknown[]): void;
  /** Bytes came: the other side is alive. */
  heard(): void;
  /** The connection is over. Nothing is told after that. */
  ended(end: End): void;
}

/** How a connection ended. */
export interface End {
  /** A close code. Absent: nothing was said. */
  readonly code?: number;
  readonly reason?: string;
  /** In how many milliseconds to come back. */
  readonly delay_ms?: number;
  /** Where to come back. */
  readonly address?: string;
  /** For people. */
  readonly detail?: string;
}

/** An open connection. */
export interface Connection {
  /** How it shows that it is alive. `ping`: the client sends pings and waits for pongs. `listen`: the gateway sends something. `self`: the transport sees to it. */
  readonly alive: "ping" | "listen" | "self";
  /** Called when everything that came is handled, also again. With it the connection acknowledges by itself, and the client sends no `ack` besides. */
  handled?(): void;
  /** Sends a frame, behind those before, or ends. */
  send(frame: ClientFrame): void;
  /** Says goodbye, behind what was sent. `last`: the page is going, and nothing of it will run any more. */
  close(last?: boolean): void;
  /** Drops the connection without a word. */
  abort(): void;
}

// ---- tabs ---------------------------------------------------------------------------------------------------------------------------

/** Has all tabs of a browser share one connection. Made by `sharedTabs`. */
export interface Tabs {
  /** Whether the runtime has what that needs. Without, a tab whose place another took is suspended until it is visible again. */
  readonly available: boolean;
  /** Takes part among the tabs that have the same name. */
  join(name: string, member: TabMember, clock: Clock): TabSeat;
}

/** What a tab is told. */
export interface TabMember {
  /** This tab leads: it connects, over its own transports. `followed`: it has been welcomed as one that follows, and knows where it is. */
  lead(followed?: boolean): void;
  /** This tab follows, over this transport. Called at first, and again when the lead was taken from it. */
  follow(transport: Transport): void;
  /** Where this tab is: up to where it has handled everything, and what it has not. */
  readonly inbox: { readonly cursor: string | undefined; readonly pending: Iterable<ServerFrame> };
  /** A tab that follows has something to say to the gateway. The answer, if there is one, goes to that tab. */
  said?(frame: ClientFrame, answer: (frame: ServerFrame) => void): void;
}

/** A tab's place among the tabs. It tells here what happens to its connection; what one that follows tells is nobody's business. */
export interface TabSeat {
  /** These came over it, the welcome first. */
  frames(frames: readonly ServerFrame[]): void;
  /** It ended. */
  down(): void;
  /** Leaves: the lead goes to another tab. */
  leave(): void;
}

// ---- frames -------------------------------------------------------------------------------------------------------------------------

/** The first frame of a client; `api/README.md` has them all. */
export interface ConnectFrame {
  readonly type: "connect";
  readonly version: number;
  readonly token: string;
  readonly cursor?: string | undefined;
  readonly client?: string;
  readonly after?: string | undefined;
}

/** A frame of a client, after `connect`. */
export type ClientFrame =
  | { readonly type: "ack"; readonly cursor: string }
  | { readonly type: "ping" }
  | { readonly type: "pong" }
  | { readonly type: "event"; readonly event: "displayed" | "clicked"; readonly id: string; readonly time?: number }
  | { readonly type: "refresh"; readonly token: string }
  | { readonly type: "tags"; readonly join?: readonly string[]; readonly leave?: readonly string[] };

/** A frame of the gateway, as it came. `type` says which; its members are checked where a client is told to. */
export interface ServerFrame {
  readonly type: string;
  readonly [member: string]: unknown;
}
