// One device's client: joins the machine, the inbox, the transports, the storage and the other tabs. Everything runs on one thread; what is
// asynchronous here is the token, a storage that is, and handlers. What not every page needs is in `extras.ts`, and comes in by a port.

import { again } from "./backoff.js";
import { bodyOf, VERSION } from "./codec.js";
import { CarillonError, UnauthorizedError } from "./errors.js";
import { makeInbox, type Entry } from "./inbox.js";
import { createMachine, dutyOf, type Fallback, type Input } from "./machine.js";
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
  Persistence,
  Remembered,
  ServerFrame,
  State,
  TabSeat,
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

/** What a handler rejects with when it did not get to the message: it is handed out again, and nothing is wrong. */
export const UNREAD = Symbol();

const system: Clock = {
  now: () => Date.now(),
  after(ms, run) {
    // A longer delay would wrap around: who wakes too early asks again.
    const timer = setTimeout(run, Math.min(ms, 2 ** 31 - 1));
    return () => clearTimeout(timer);
  },
};

/** How the client of `@carillon/client/core` is told what to do: what it is not given is not in the bundle. */
export interface CoreOptions extends CommonOptions {
  /** What carries the connection; several with `fallback(webSocket(), sse())`. */
  transports: readonly [Transport] | Fallback;
  /** Keeps the cursor and the last ids: `persistent(localStorageStorage())`. Without it `deviceId` is empty, and your tokens have to name the device. */
  storage?: Persistence;
  /** Goes by what happens to the page and the network: `pageEvents`. Without it a client finds out by itself, which takes longer. */
  page?: PageEvents;
}

/** What `extras.ts` has of a client: it has frames of its own to say, and answers to them. */
export interface Port {
  readonly clock: Clock;
  /** How the connection that stands was welcomed. */
  readonly welcome: ServerFrame | undefined;
  /** Says something over it. */
  say(frame: ClientFrame): void;
  /** Takes a frame that answers; reports whether it was its own. */
  answer?(frame: ServerFrame): boolean;
  /** Takes what another tab has to say. */
  said?(frames: readonly ClientFrame[], answer: (frames: readonly ServerFrame[]) => void): void;
}

/** The ports of clients, for extras alone. */
export const ports = new WeakMap<object, Port>();

interface Opened {
  readonly transport: string;
  readonly connection: Connection | undefined; // none, where it could not be opened
  welcome?: ServerFrame;
  goodbye?: End & { kick?: Kick };
}

const invalid = (what: string): CarillonError => new CarillonError("invalid", what);

/** The base of an address: `ws:` and the path of the protocol are as good as `http:` without. */
const baseOf = (address: string): string => {
  if (!/^(http|ws)s?:\/\/[^?#@]+$/.test(address)) throw invalid(`endpoint: ${address} is not like https://push.example.com`);
  return address.replace(/^ws/, "http").replace(/(\/connect)?\/*$/, "");
};

const texts: Record<string, string> = {
  unauthorized: "getToken has no token for this user",
  token_refused: "two tokens in a row were refused",
  unreachable: "no transport got through",
  silent: "the gateway does not answer",
};

/**
 * Makes a device's client, which is idle until {@link CoreClient.connect}. It has one transport, keeps its place in memory and shares nothing with other
 * tabs, unless it is told: with `fallback`, `persistent`, `pageEvents` and `sharedTabs` it is the client of `@carillon/client`.
 *
 * @throws {CarillonError} with code `invalid`, for options that cannot be
 */
export function makeClient<Body = unknown>(options: CoreOptions): CoreClient<Body> {
  const { getToken, acknowledge = "auto", concurrency = 1, name = "carillon", page, clock = system, random = Math.random } = options;
  const endpoints = [options.endpoint].flat().map(baseOf);
  const over = options.transports;
  const { transports: all, machine: make }: Fallback = "machine" in over ? over : { transports: over, machine: createMachine };
  const transports = all.filter((t) => t.available);
  const tabs = options.tabs && options.tabs.available && options.tabs;
  if (!endpoints[0]) throw invalid("endpoint: none");
  if (typeof getToken !== "function") throw invalid("getToken: none");
  if (!transports[0]) throw invalid("transports: none is available; pass webSocket({ WebSocket })");

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
  let settled = false;
  let seat: TabSeat | undefined;
  let turn = 0; // of leading and following
  let leads = false; // and so keeps what is handled
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
  const keeper = options.storage?.open(name, clock, (what, e) => trouble("storage", `storage cannot be ${what}`, e));

  // ---- the machine, and what it wants ----

  const machine = make({
    endpoints,
    random,
    effects: {
      state(next, retry) {
        const previous = state;
        state = next;
        const connected = next === "connected";
        if (!connected) lose();
        if (next === "failed" || next === "closed") {
          asking?.abort();
          leavePage?.();
          leavePage = undefined;
          stand();
        } else failure = undefined;
        emit("state", {
          state,
          previous,
          ...(retry && { retryAt: new Date(retry) }),
          ...(connected && { transport: live!.transport }),
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
        const text = code === "kicked" ? `sent away: ${lastKick!.reason} ${lastKick!.detail ?? ""}` : texts[code]!;
        const e = (!passing && failure) || new CarillonError(code, text, { kick: code === "kicked" ? lastKick : undefined });
        if (!passing) failure = e;
        emit("error", e);
      },
    },
  });
  const inputs: Input[] = [];
  let stepping = false;
  let wakeAt = Infinity;
  let cancelWake: (() => void) | undefined;
  let leavePage: (() => void) | undefined;

  /** Gives the machine an input. What listeners cause on the way comes after that. */
  function step(input: Input): void {
    inputs.push(input);
    if (stepping) return;
    stepping = true;
    for (let i; (i = inputs.shift()); ) machine.step(clock.now(), i);
    stepping = false;
    arm();
  }

  function arm(): void {
    const at = machine.wake;
    // A timer that is early asks again, which costs less than a new one at each frame. One that nobody waits for would keep Node running.
    if (at >= wakeAt && at < Infinity) return;
    cancelWake?.();
    wakeAt = at;
    if (at === Infinity) return;
    cancelWake = clock.after(Math.max(0, at - clock.now()), () => {
      wakeAt = Infinity;
      if (machine.wake > clock.now()) arm();
      else step({ in: "time" });
    });
  }

  /** What ends with a connection. */
  function lose(): void {
    if (!live) return;
    live = undefined;
    // The last acknowledgement may have been lost with it.
    if (acked) inbox.acknowledged(undefined);
    acked = false;
    seat?.down();
  }

  // ---- tokens ----

  async function ask(reason: TokenReason): Promise<void> {
    asking?.abort();
    const mine = (asking = new AbortController());
    const { signal } = mine;
    let got: string | null = "";
    let failed: unknown;
    const cancel = clock.after(TOKEN_MS, () => mine.abort());
    try {
      deviceId ||= (await keeper?.device()) ?? "";
      got = await Promise.race([
        getToken({ reason, signal, deviceId }),
        new Promise<never>((_, reject) => (signal.onabort = () => reject(new Error("timed out")))),
      ]);
      if (!got || (reason === "refused" && got === token)) throw new UnauthorizedError(got ? "the refused token again" : "");
      const c = claimsOf(got);
      if (claims && c.identity !== claims.identity) {
        failure = new CarillonError("identity_changed", "another user, who needs another client");
        throw new UnauthorizedError();
      }
      claims = c;
    } catch (e) {
      failed = e ?? "rejected";
    }
    cancel();
    if (asking !== mine) return;
    asking = undefined;
    if (failed) {
      const unauthorized = (failed as Error).name === "UnauthorizedError";
      if (unauthorized) failure ??= new CarillonError("unauthorized", texts["unauthorized"]!, { cause: failed });
      else trouble("token_unavailable", "getToken failed", failed);
      return step({ in: "token_failed", unauthorized });
    }
    token = got!;
    // The clock of who issued it is not ours: what counts is how long it lives.
    const { expires, issued } = claims!;
    step({ in: "token", expires: expires && (issued === undefined ? expires : clock.now() + expires - issued) });
    settle();
  }

  // ---- over what to connect: this tab's own transports, or another tab ----

  /** Once it is known whose client this is: joins the other tabs, or goes on alone. */
  function settle(): void {
    if (settled) return;
    settled = true;
    if (tabs) seat = tabs.join(`${name}:${claims!.identity}`, { lead, follow, cursor: () => inbox.cursor, said: (frames, answer) => port.said?.(frames, answer) }, clock);
    else lead();
  }

  /** Leaves the other tabs. */
  function stand(): void {
    if (!tabs) return;
    seat?.leave();
    seat = undefined;
    settled = false;
    turn++;
  }

  /** Takes up what is kept. As one that followed, it goes by what it has seen: what the tab before kept may not all have come to this one. */
  async function lead(followed?: boolean): Promise<void> {
    const mine = ++turn;
    const { cursor, ids, won } = (await keeper?.load(claims!.identity)) ?? { ids: [] };
    if (mine !== turn) return;
    for (const id of inbox.ids) keeper?.note(id);
    inbox.restore((!followed && cursor) || inbox.cursor, followed ? [] : ids);
    leads = true;
    route(transports, true, won);
  }

  function follow(over: Transport): void {
    turn++;
    leads = false;
    route([over], false);
  }

  function route(over: readonly Transport[], token: boolean, remembered?: Remembered): void {
    routes = over;
    step({ in: "route", transports: over.map((t) => t.name), token, remembered });
  }

  function open(attempt: number, transport: string, endpoint: string, fresh: boolean): void {
    let mine: Opened;
    const current = (): boolean => opened.get(attempt) === mine;
    const sink = {
      frames(frames: readonly ServerFrame[], handled?: () => void) {
        if (!current()) return;
        for (const f of frames) receive(attempt, mine, f);
        if (mine === live) seat?.frames(frames);
        pump();
        if (handled) drains.push(handled);
        drained();
      },
      heard() {
        if (mine === live) step({ in: "heard" });
      },
      ended(end: End) {
        if (!current()) return;
        opened.delete(attempt);
        const { code, reason, delay, address, detail, kick } = { ...mine.goodbye, ...end } as NonNullable<Opened["goodbye"]>;
        if (mine === live) lose();
        lastKick = dutyOf(code) === "stay_away" ? (kick ?? { code: code!, reason: reason!, ...(detail && { detail }) }) : undefined;
        if (!code && detail) trouble("protocol", detail);
        const own = lastKick?.reason === "replaced" && (lastKick.by ?? claims!.device) === claims!.device;
        step({ in: "ended", attempt, code, own, delay, address: safe(endpoint, address) });
        if (lastKick && (state === "failed" || state === "suspended")) emit("kick", lastKick);
      },
    };
    const t = routes.find((t) => t.name === transport)!;
    let connection: Connection | undefined;
    try {
      connection = t.open(
        {
          endpoint,
          token: () => token,
          connect: {
            type: "connect",
            version: VERSION,
            token,
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
    mine = { transport, connection };
    opened.set(attempt, mine);
  }

  /** The address that a gateway names, unless it would give up encryption. */
  function safe(endpoint: string, address: string | undefined): string | undefined {
    try {
      const to = baseOf(address!);
      return endpoint.startsWith("https:") && !to.startsWith("https:") ? undefined : to;
    } catch {
      return undefined;
    }
  }

  // ---- receiving ----

  function receive(attempt: number, from: Opened, frame: ServerFrame): void {
    const f: Record<string, any> = frame;
    switch (frame.type) {
      case "welcome":
        session = f["session"];
        skew = f["time"] - clock.now();
        inbox.receive(frame);
        from.welcome = frame;
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
        return from.connection!.send([{ type: "pong" }]);
      case "pong":
        // A timer that is set here and not by another one is not put off in a hidden tab.
        wakeAt = Infinity;
        return arm();
      case "kick": {
        const { type: _, ...kick } = f;
        from.goodbye = { code: f["code"], kick: { reason: "", ...kick } as Kick };
        return;
      }
      case "goaway":
        from.goodbye = { code: f["code"], delay: f["delay_ms"], address: f["address"] };
        return;
      case "refresh":
        return step(f["expires"] ? { in: "renewed", expires: f["expires"] - skew } : { in: "token_wanted" });
      case "tags":
      case "error":
        if (port.answer?.(frame)) return;
        if (f["code"] === "try_again") step({ in: "token_wanted" });
        else if (f["code"]) trouble(f["code"], f["detail"] ?? "refused");
        return;
      case "message":
        // What is not persistent is for who listens now.
        if ("slot" in f || listeners.message?.size) inbox.receive(frame);
        return;
    }
    const notice = inbox.receive(frame);
    if (notice) emit(...(notice as ["gap", Gap]));
    if (f["reason"] === "caught_up") step({ in: "caught_up" });
    store();
  }

  // ---- handling ----

  let running = 0;
  let pumping = false;
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
  }

  function run(e: Entry): void {
    const message = messageOf<Body>(e);
    const waits: unknown[] = [];
    const after = (done: () => void): void => {
      running--;
      done();
      pump();
    };
    try {
      for (const f of [...listeners.message!]) {
        const r = f(message as never) as PromiseLike<unknown> | undefined;
        if (typeof r?.then === "function") waits.push(r);
      }
    } catch (cause) {
      return failed(e, cause);
    }
    if (!waits.length) return handed(e);
    running++;
    Promise.all(waits).then(
      () => after(() => handed(e)),
      (cause: unknown) => after(() => failed(e, cause)),
    );
  }

  function handed(e: Entry): void {
    if (acknowledge === "auto") done(e);
  }

  function failed(e: Entry, cause: unknown): void {
    if (cause === UNREAD) return inbox.again(e);
    const over = ++e.failures >= TRIES || !e.persistent;
    trouble(over ? "handler_gave_up" : "handler_failed", `message ${e.id}: ${cause}`, cause);
    if (over) return done(e);
    clock.after(again(e.failures), () => {
      inbox.again(e);
      pump();
    });
  }

  function done(e: Entry): void {
    if (!inbox.handled(e)) return;
    if (leads) keeper?.note(e.id);
    store();
  }

  // ---- storing and acknowledging ----

  let storing = false;
  let dirty = false;
  let acked = false; // something, over the connection that stands
  let ackAt = -Infinity;
  let cancelAck: (() => void) | undefined;
  let drains: (() => void)[] = [];
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
      if (written) saved(text);
      if (dirty || !written) store();
      pump();
    };
    if (keeper && leads && text) keeper.save(text, inbox.ids, stored);
    else stored(true);
  }

  /** Goes on with what is written, which may be less than is handled by now. */
  function saved(text: string | undefined): void {
    savedText = text;
    drained();
    if (live && !live.connection!.acknowledges && !cancelAck && inbox.owesAck) {
      cancelAck = clock.after(Math.max(0, ackAt + ACK_MS - clock.now()), ack);
    }
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

  function drained(): void {
    if (!storing && !dirty && inbox.drained) for (const f of drains.splice(0)) f();
  }

  function say(frame: ClientFrame): void {
    if (!live) return;
    live.connection!.send([frame]);
    step({ in: "sent" });
  }

  // ---- its surface ----

  function happened(what: Happening): void {
    if (what === "frozen") {
      ack();
      step({ in: what });
      return stand();
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
      const e = inbox.entry(typeof message === "string" ? message : message.id);
      if (e?.handed) done(e);
    },
  };
  const port: Port = {
    clock,
    say,
    get welcome() {
      return live?.welcome;
    },
  };
  ports.set(client, port);
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
