// One device's client: joins the machine, the inbox, the transports and the place where it is kept. Everything runs on one thread; what is
// asynchronous here is the token, a storage that is, and handlers. What not every page needs comes in by options, or by its port.

import { again } from "./backoff.js";
import { bodyOf, VERSION } from "./codec.js";
import { CarillonError, UnauthorizedError } from "./errors.js";
import { makeInbox, type Entry } from "./inbox.js";
import { createMachine, dutyOf, STAY_AWAY, type Fallback, type Input } from "./machine.js";
import type { Keeper, Port, Remembered } from "./port.js";
import { claimsOf, type Claims } from "./token.js";
import type {
  ClientEvents,
  ClientFrame,
  Clock,
  CommonOptions,
  Connection,
  CoreClient,
  End,
  Gap,
  Happening,
  Kick,
  Message,
  PageEvents,
  Place,
  ServerFrame,
  State,
  TokenReason,
  Transport,
} from "./types.js";

/** An acknowledgement at most that often. */
const ACK_MS = 1000;
/** How often a handler is given a message. */
const TRIES = 5;
/** How long handlers may keep the page busy before others have their turn. */
const TURN_MS = 16;
/** How long `getToken` may take. */
const TOKEN_MS = 30_000;

/** The longest delay of a timer is a little more: 24.8 days. */
const MOST_MS = 2e9;

/** What a handler rejects with when it did not get to the message: it is handed out again, and nothing is wrong. */
export const UNREAD = Symbol();

const system: Clock = {
  now: () => Date.now(),
  after(ms, run) {
    // A longer delay would wrap around: who wakes too early asks again.
    const timer = setTimeout(run, Math.max(0, Math.min(ms, MOST_MS)));
    return () => clearTimeout(timer);
  },
};

/** How the client of `@carillon/client/core` is told what to do: what it is not given is not in the bundle. */
export interface CoreOptions extends CommonOptions {
  /** What carries the connection; several with `fallback(webSocket(), sse())`. */
  transports: readonly [Transport] | Fallback;
  /**
   * Keeps the cursor and the last ids: `persistent(localStorageStorage())`, or, with one connection for all tabs, `shared(persistent(localStorageStorage()))`.
   * Without it `deviceId` is empty, and your tokens have to name the device.
   */
  place?: Place;
  /** Goes by what happens to the page and the network: `pageEvents`. Without it a client finds out by itself, which takes longer. */
  page?: PageEvents;
  /** Checks the members of each frame: `checkFrame`. Without it the gateway is taken at its word, and a frame that cannot be read ends the connection. */
  check?: (frame: unknown) => ServerFrame | undefined;
}

/** The ports of clients, for extras alone. */
export const ports = new WeakMap<object, Port>();

interface Opened {
  readonly transport: string;
  connection?: Connection; // none, where it could not be opened
  welcome?: ServerFrame;
  goodbye?: Record<string, unknown>;
}

const invalid = (what: string): never => {
  throw new CarillonError("invalid", what);
};

/** The base of an address, if it is one: `ws:` and the path of the protocol are as good as `http:` without. */
const baseOf = (address: string): string | undefined =>
  /^(http|ws)s?:\/\/[^?#@]+$/.test(address) ? address.replace(/^ws/, "http").replace(/(\/connect)?\/*$/, "") : undefined;

const texts: Record<string, string> = {
  unauthorized: "getToken has no token for this user",
  token_refused: "two tokens in a row were refused",
  unreachable: "no transport got through",
  silent: "the gateway does not answer",
};

/**
 * Makes a device's client, which is idle until {@link CoreClient.connect}. It has one transport, keeps its place in memory and shares nothing with other
 * tabs, unless it is told: with `fallback`, `shared(persistent(…))`, `pageEvents` and `checkFrame` it is the client of `@carillon/client`.
 *
 * @throws {CarillonError} with code `invalid`, for options that cannot be
 */
export function makeClient<Body = unknown>(options: CoreOptions): CoreClient<Body> {
  const { getToken, acknowledge, concurrency = 1, page, clock = system, random = Math.random, check = (f) => ((f as ServerFrame).type ? (f as ServerFrame) : undefined) } = options;
  const endpoints = [options.endpoint].flat().map((a) => baseOf(a) ?? invalid(`endpoint: ${a} is not like https://push.example.com`));
  const transports = options.transports.filter((t) => t.available);
  if (!endpoints[0]) invalid("endpoint: none");
  if (typeof getToken !== "function") invalid("getToken: none");
  if (!transports[0]) invalid("transports: none is available; pass webSocket({ WebSocket })");

  const listeners: { [K in keyof ClientEvents<Body>]?: Set<(value: never) => unknown> } = {};
  let state: State = "idle";
  let failure: CarillonError | undefined;

  let token = "";
  let claims: Claims | undefined;
  let asking: AbortController | undefined;
  let deviceId = "";

  const inbox = makeInbox();
  const opened = new Map<number, Opened>();
  let live: Opened | undefined;
  let session: string | undefined;
  let skew = 0; // the gateway's clock less ours
  let lastKick: Kick | undefined;
  let routes: readonly Transport[] = transports; // these, or another tab

  const emit = <K extends keyof ClientEvents<Body>>(event: K, value: ClientEvents<Body>[K]): void => {
    for (const f of [...(listeners[event] ?? [])]) {
      try {
        f(value as never);
      } catch (e) {
        // A listener's failure is its own, and is told like any error of the page.
        clock.after(0, () => {
          throw e;
        });
      }
    }
  };
  const trouble = (code: string, message: string, cause?: unknown): void => emit("error", new CarillonError(code, message, { cause }));

  // ---- the machine, and what it wants ----

  const machine = ((options.transports as { machine?: typeof createMachine }).machine ?? createMachine)({
    endpoints,
    random,
    effects: {
      state(next, retry) {
        const previous = state;
        state = next;
        if (next !== "connected") lose();
        if (next === "failed" || next === "closed") {
          asking?.abort();
          asking = undefined;
          leavePage?.();
          leavePage = undefined;
          keeper?.leave?.();
        } else failure = undefined;
        emit("state", {
          state,
          previous,
          ...(retry ? { retryAt: new Date(retry) } : live && { transport: live.transport }),
        });
      },
      token: (reason) => void ask(reason),
      open,
      drop(attempt, goodbye) {
        const c = opened.get(attempt);
        opened.delete(attempt);
        if (c === live) lose();
        c?.connection?.[goodbye ? "close" : "abort"]();
      },
      live: (attempt) => (live = opened.get(attempt)),
      ping: () => say({ type: "ping" }),
      refresh: () => say({ type: "refresh", token }),
      remember: (won) => keeper?.remember(won),
      error(code) {
        const passing = code === "unreachable" || code === "silent";
        const kick = code === "kicked" ? lastKick : undefined;
        const text = kick ? `sent away: ${kick.reason} ${kick.detail ?? ""}` : texts[code]!;
        const e = (!passing && failure) || new CarillonError(code, text, { kick });
        if (!passing) failure = e;
        emit("error", e);
      },
    },
  });
  const inputs: Input[] = [];
  let wakeAt = Infinity;
  let cancelWake: (() => void) | undefined;
  let leavePage: (() => void) | undefined;

  /** Gives the machine an input. What listeners cause on the way comes after that. */
  function step(input: Input): void {
    if (inputs.push(input) > 1) return;
    for (; inputs[0]; inputs.shift()) machine.step(clock.now(), inputs[0]);
    arm();
  }

  function arm(): void {
    const at = machine.wake;
    // A timer that is early asks again, which costs less than a new one at each frame. One that nobody waits for would keep Node running.
    if (at >= wakeAt && at < Infinity) return;
    cancelWake?.();
    wakeAt = at;
    if (at < Infinity) {
      cancelWake = clock.after(at - clock.now(), () => {
        wakeAt = Infinity;
        step({ in: "time" }); // or earlier, and then it asks again
      });
    }
  }

  /** What ends with a connection. */
  function lose(): void {
    if (!live) return;
    live = undefined;
    // The last acknowledgement may have been lost with it.
    if (acked) inbox.acknowledged(undefined);
    acked = false;
    keeper?.down?.();
  }

  // ---- tokens ----

  async function ask(reason: TokenReason): Promise<void> {
    asking?.abort();
    const mine = (asking = new AbortController());
    const { signal } = mine;
    const cancel = clock.after(TOKEN_MS, () => mine.abort());
    try {
      deviceId ||= (await keeper?.device()) ?? "";
      const got = await Promise.race([
        getToken({ reason, signal, deviceId }),
        new Promise<never>((_, reject) => (signal.onabort = () => reject(new Error("timed out")))),
      ]);
      if (asking !== mine) return;
      if (!got || (reason === "refused" && got === token)) throw new UnauthorizedError(got ? "the refused token again" : "");
      const c = claimsOf(got);
      if (claims && c.identity !== claims.identity) {
        failure = new CarillonError("identity_changed", "another user, who needs another client");
        throw new UnauthorizedError();
      }
      claims = c;
      token = got;
    } catch (cause) {
      if (asking !== mine) return;
      asking = undefined;
      const unauthorized = (cause as Error | undefined)?.name === "UnauthorizedError";
      if (unauthorized) failure ??= new CarillonError("unauthorized", texts["unauthorized"]!, { cause });
      else trouble("token_unavailable", "getToken failed", cause);
      return step({ in: "token_failed", unauthorized });
    } finally {
      cancel();
    }
    asking = undefined;
    // The clock of who issued it is not ours: what counts is how long it lives.
    const { expires, issued } = claims;
    step({ in: "token", expires: clock.now() + expires - issued || expires || undefined });
    settle();
  }

  // ---- over what to connect ----

  /** Once it is known whose client this is. */
  const settle = (): void => keeper?.join(claims!.identity);

  function route(over: readonly Transport[], token: boolean, remembered?: Remembered): void {
    routes = over;
    step({ in: "route", transports: over.map((t) => t.name), token, remembered });
  }

  function open(attempt: number, transport: string, endpoint: string, fresh: boolean): void {
    const mine: Opened = { transport };
    opened.set(attempt, mine);
    const sink = {
      frames(given: readonly unknown[]) {
        if (!opened.has(attempt)) return;
        const frames = given.flatMap((f) => check(f) ?? []);
        // What is behind in an answer is not in the inbox yet. Where one is no frame, this ends with the first of the next connection.
        pumping = true;
        for (const f of frames) receive(attempt, mine, f);
        pumping = false;
        if (mine === live) keeper?.frames?.(frames);
        pump();
      },
      heard() {
        if (mine === live) step({ in: "heard" });
      },
      ended(end: End) {
        if (!opened.delete(attempt)) return;
        const { type: _, delay_ms, address, ...bye } = { reason: "", ...mine.goodbye, ...end } as Record<string, any> & Kick;
        const { code, detail } = bye;
        if (mine === live) lose();
        lastKick = dutyOf(code) === STAY_AWAY ? bye : undefined;
        if (!code && detail) trouble("protocol", detail);
        const own = (bye.by ?? claims!.device) === claims!.device;
        // Unless it would give up encryption.
        const to = baseOf(address);
        step({ in: "ended", attempt, code, own, delay: delay_ms, address: endpoint[4] === "s" && to?.[4] !== "s" ? undefined : to });
        if (lastKick && (state === "failed" || state === "suspended")) emit("kick", lastKick);
      },
    };
    try {
      mine.connection = routes
        .find((t) => t.name === transport)!
        .open(
          {
            endpoint,
            token: () => token,
            connect: {
              type: "connect",
              version: VERSION,
              client: options.clientName ?? "carillon-js/0.1",
              cursor: inbox.cursor,
              after: fresh ? undefined : session,
            },
            clock,
          },
          sink,
        );
    } catch (e) {
      // A constructor that refuses the address, say.
      clock.after(0, () => sink.ended({ detail: String(e) }));
    }
  }

  // ---- receiving ----

  function receive(attempt: number, from: Opened, f: ServerFrame & Record<string, any>): void {
    switch (f.type) {
      case "welcome":
        session = f["session"];
        skew = f["time"] - clock.now();
        inbox.receive(f);
        from.welcome = f;
        step({
          in: "welcome",
          attempt,
          alive: from.connection!.alive,
          heartbeat: f["heartbeat_ms"],
          grace: f["grace_ms"],
          expires: f["expires"] && f["expires"] - skew,
        });
        return store();
      case "ping":
        return say({ type: "pong" });
      case "pong":
        // A timer that is set here and not by another one is not put off in a hidden tab.
        wakeAt = Infinity;
        return arm();
      case "kick":
      case "goaway":
        from.goodbye = f;
        return;
      case "refresh":
        return step(f["expires"] ? { in: "renewed", expires: f["expires"] - skew } : { in: "token_wanted" });
      case "tags":
      case "error":
        if (port.answer?.(f)) return;
        if (f["code"] === "try_again") step({ in: "token_wanted" });
        else if (f["code"]) trouble(f["code"], f["detail"] ?? "refused");
        return;
      case "message":
        // What is not persistent is for who listens now.
        if ("slot" in f || listeners.message?.size) inbox.receive(f);
        return;
      case "recall":
      case "gap":
      case "cursor":
        break;
      default:
        return; // of a later version
    }
    const notice = inbox.receive(f);
    if (notice) emit(...(notice as ["gap", Gap]));
    if (f["reason"] === "caught_up") step({ in: "caught_up" });
    store();
  }

  // ---- handling ----

  let running = 0;
  let pumping = false; // or receiving
  let closing = false;

  function pump(): void {
    if (pumping || closing) return;
    pumping = true;
    const began = clock.now();
    // A page that dies while something is written sees what is handled meanwhile again: so nothing is.
    for (let e; running < concurrency && !keeper?.writing && listeners.message?.size && (e = inbox.take()); ) {
      run(e);
      if (clock.now() - began > TURN_MS) {
        clock.after(0, pump);
        break;
      }
    }
    pumping = false;
    if (!storing && !dirty && !inbox.pending.size) live?.connection!.handled?.();
  }

  function run(e: Entry): void {
    const waits: unknown[] = [];
    try {
      const message = messageOf<Body>(e);
      for (const f of [...listeners.message!]) {
        const r = f(message as never) as PromiseLike<unknown> | undefined;
        if (r?.then) waits.push(r);
      }
    } catch (cause) {
      return failed(e, cause);
    }
    if (!waits[0]) return handed(e);
    running++;
    void Promise.all(waits)
      .then(
        () => handed(e),
        (cause: unknown) => failed(e, cause),
      )
      .finally(() => {
        running--;
        pump();
      });
  }

  function handed(e: Entry): void {
    if (acknowledge !== "manual") done(e);
  }

  function failed(e: Entry, cause: unknown): void {
    if (cause === UNREAD) return inbox.again(e);
    const over = ++e.failures >= TRIES || !e.persistent;
    trouble(over ? "handler_gave_up" : "handler_failed", `message ${e.id}: ${String(cause)}`, cause);
    if (over) return done(e);
    clock.after(again(e.failures), () => {
      inbox.again(e);
      pump();
    });
  }

  function done(e: Entry): void {
    if (!inbox.handled(e)) return;
    keeper?.note(e.id);
    store();
  }

  // ---- storing and acknowledging ----

  let storing = false;
  let dirty = false;
  let acked = false; // something, over the connection that stands
  let ackAt = -Infinity;
  let cancelAck: (() => void) | undefined;
  let savedText: string | undefined;

  /** Writes how far everything is handled, and acknowledges that then. At once where the storage is. */
  function store(): void {
    dirty = true;
    if (storing) return;
    dirty = false;
    const text = inbox.cursor;
    storing = true;
    const stored = (written: boolean): void => {
      storing = false;
      if (written) {
        // Which may be less than is handled by now.
        savedText = text;
        if (live && !live.connection!.handled && !cancelAck && inbox.owesAck) cancelAck = clock.after(ackAt + ACK_MS - clock.now(), ack);
      }
      if (dirty || !written) store();
      pump();
    };
    if (keeper && text) keeper.save(text, inbox.ids, stored);
    else stored(true);
  }

  function ack(): void {
    cancelAck?.();
    cancelAck = undefined;
    if (!live || !savedText || !inbox.owesAck) return;
    ackAt = clock.now();
    acked = true;
    inbox.acknowledged(savedText);
    say({ type: "ack", cursor: savedText });
  }

  function say(frame: ClientFrame): void {
    if (!live) return;
    live.connection!.send(frame);
    step({ in: "sent" });
  }

  // ---- its surface ----

  function happened(what: Happening): void {
    if (what === "frozen") {
      ack();
      step({ in: what });
      return keeper?.leave?.();
    }
    // Over what to connect comes first.
    if (what === "thawed" && claims && state === "suspended") settle();
    step({ in: what });
  }

  const client: CoreClient<Body> = {
    get state() {
      return state;
    },
    get failure() {
      return failure;
    },
    get transport() {
      return live?.transport;
    },
    get cursor() {
      return savedText;
    },
    connect({ signal } = {}) {
      return new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(new CarillonError("closed", "aborted"));
        signal?.addEventListener("abort", client.close);
        if (state === "connected") return resolve();
        const stop = client.on("state", ({ state }) => {
          if (state === "connected") resolve();
          else if (state === "failed" || state === "closed") reject(failure ?? new CarillonError("closed", "client closed"));
          else return;
          stop();
        });
        closing = false;
        leavePage ??= page?.(happened);
        if (claims) settle();
        step({ in: "connect" });
        pump();
      });
    },
    close() {
      if (closing) return;
      closing = true;
      ack();
      step({ in: "close" });
    },
    on(event, listener, { signal, once } = {}) {
      const all: Set<(value: never) => unknown> = (listeners[event] ??= new Set());
      const f = (value: never): unknown => {
        if (once) stop();
        return (listener as (v: never) => unknown)(value);
      };
      const stop = (): void => void all.delete(f);
      if (!signal?.aborted) all.add(f);
      signal?.addEventListener("abort", stop);
      pump();
      return stop;
    },
    acknowledge(message) {
      const e = inbox.entry((message as Message).id ?? message);
      if (e?.handed) done(e);
    },
  };
  const port: Port = {
    clock,
    inbox,
    trouble,
    say,
    lead({ cursor, ids, won }) {
      inbox.restore(cursor ?? inbox.cursor, ids);
      route(transports, true, won);
    },
    follow: (over) => route([over], false),
    get welcome() {
      return live?.welcome;
    },
  };
  ports.set(client, port);
  const keeper: Keeper | undefined = options.place?.open(options.name, port);
  if (!keeper) route(transports, true);
  return client;
}

function messageOf<Body>({ frame: f, id, persistent }: Entry): Message<Body> {
  const { time, expires, ref, collapse_key: collapseKey, headers = {} } = f as Record<string, any>;
  return {
    id,
    persistent,
    time: new Date(time),
    headers,
    body: bodyOf(f) as Body,
    ...(expires && { expires: new Date(expires) }),
    ...(ref && { ref }),
    ...(collapseKey && { collapseKey }),
  };
}
