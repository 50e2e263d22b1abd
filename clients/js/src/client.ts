// One device's client: joins the machine, the inbox, the transports, the storage and the other tabs. Everything runs on one thread; what is
// asynchronous here is the token, a storage that is, and handlers.

import { bodyOf, VERSION } from "./codec.js";
import { CarillonError, UnauthorizedError } from "./errors.js";
import { Inbox, type Entry } from "./inbox.js";
import { makeKeep, type Keep } from "./keep.js";
import { lifecycle, type Happening } from "./lifecycle.js";
import { createMachine, dutyOf, type Input, type Output } from "./machine.js";
import { claimsOf, type Claims } from "./token.js";
import type {
  Client,
  ClientEvents,
  ClientFrame,
  ClientOptions,
  Clock,
  Connection,
  End,
  Kick,
  Message,
  ServerFrame,
  State,
  Storage,
  TabSeat,
  Transport,
} from "./types.js";

/** An acknowledgement at most that often. */
const ACK_MS = 1000;
/** What failed is tried again after a second, two, four and so on, up to half a minute; handlers that often. */
const AGAIN_MS = 1000;
const MOST_AGAIN_MS = 30_000;
const TRIES = 5;
/** How long handlers may keep the page busy before others have their turn. */
const TURN_MS = 16;
/** How long `getToken` may take. */
const TOKEN_MS = 30_000;
/** What a loop over messages rejects with what it was given and did not get to. */
const UNREAD = Symbol();
/** How many events wait for a connection. */
const MOST_EVENTS = 256;

const system: Clock = {
  now: () => Date.now(),
  after(ms, run) {
    // A longer delay would wrap around: who wakes too early asks again.
    const timer = setTimeout(run, Math.min(ms, 2 ** 31 - 1));
    return () => clearTimeout(timer);
  },
};

/** What {@link makeClient} needs besides what its user says. */
export type Complete = ClientOptions & { transports: readonly Transport[]; storage: Storage };

interface Opened {
  readonly transport: string;
  readonly connection: Connection;
  goodbye?: End & { kick?: Kick };
}

interface TagRequest {
  readonly frame: ClientFrame;
  answer(frame: ServerFrame): void;
}

const invalid = (what: string): CarillonError => new CarillonError("invalid", what);

function endpointsOf(endpoint: string | readonly string[]): string[] {
  const all = typeof endpoint === "string" ? [endpoint] : [...(endpoint ?? [])];
  if (!all.length) throw invalid("endpoint: no address to connect to");
  return all.map((text) => {
    let url: URL | undefined;
    try {
      url = new URL(text, globalThis.location?.href);
    } catch {
      // Said below.
    }
    if (!url || !/^(http|ws)s?:$/.test(url.protocol)) throw invalid(`endpoint: ${text} is no address that begins with https://`);
    if (url.search || url.hash || url.username) throw invalid(`endpoint: ${url.origin} with a query, a fragment or a user`);
    return (url.origin === "null" ? `${url.protocol}//${url.host}` : url.origin).replace(/^ws/, "http") + url.pathname.replace(/(\/connect)?\/?$/, "");
  });
}

/** Makes a client. @throws {CarillonError} with code `invalid`, for options that cannot be. */
export function makeClient<Body = unknown>(options: Complete): Client<Body> {
  const { storage, getToken, acknowledge = "auto", concurrency = 1, name = "carillon", clock = system, random = Math.random } = options;
  const endpoints = endpointsOf(options.endpoint);
  if (typeof getToken !== "function") throw invalid("getToken: no function");
  if (!(concurrency >= 1)) throw invalid("concurrency: less than 1");
  const transports = options.transports.filter((t) => t.available);
  if (!transports.length) throw invalid("transports: none that this runtime has; pass webSocket({ WebSocket }), or sse({ fetch })");
  const clientName = options.clientName ?? "carillon-js/0.1";
  const tabs = options.tabs && options.tabs.available ? options.tabs : undefined;

  // ---- what its user sees ----

  const listeners: { [K in keyof ClientEvents<Body>]?: Set<(value: never) => unknown> } = {};
  let failure: CarillonError | undefined;
  let shown: State = "idle";
  let waiters: { resolve(): void; reject(e: Error): void }[] = [];

  function emit<K extends keyof ClientEvents<Body>>(event: K, value: ClientEvents<Body>[K]): void {
    for (const f of [...(listeners[event] ?? [])]) {
      try {
        f(value as never);
      } catch (e) {
        // A listener's failure is its own, and is told like any error of the page.
        queueMicrotask(() => {
          throw e;
        });
      }
    }
  }
  const trouble = (code: string, message: string, cause?: unknown): void =>
    emit("error", new CarillonError(code, message, cause === undefined ? {} : { cause }));

  // ---- identity, token, storage ----

  let token = "";
  let claims: Claims | undefined;
  let keep: Keep | undefined;
  let asking: AbortController | undefined;
  let deviceId: string | undefined;

  // ---- connections ----

  const inbox = new Inbox();
  const machine = createMachine({ endpoints, random });
  const opened = new Map<number, Opened>();
  let live: Opened | undefined;
  let session: string | undefined;
  let skew = 0; // the gateway's clock less ours
  let seat: TabSeat | undefined;
  let tab: Transport | undefined; // over which this tab follows
  let cancelWake = (): void => {};
  let wakeAt: number | undefined;
  let stopLifecycle: (() => void) | undefined;

  const inputs: Input[] = [];
  let stepping = false;

  /** Gives the machine an input, and does what it wants. What listeners cause on the way comes after that. */
  function step(input: Input): void {
    inputs.push(input);
    if (stepping) return;
    stepping = true;
    for (let i; (i = inputs.shift()); ) for (const o of machine.step(clock.now(), i)) act(o);
    stepping = false;
    arm();
    if (machine.state === "closed" || machine.state === "failed") rest();
  }

  function arm(): void {
    const at = machine.wake;
    // A timer that is early asks again, which costs less than a new one at each frame.
    if (at !== undefined && wakeAt !== undefined && at >= wakeAt) return;
    wakeAt = at;
    cancelWake();
    cancelWake = at === undefined ? () => {} : clock.after(Math.max(0, at - clock.now()), wake);
  }

  function wake(): void {
    wakeAt = undefined;
    if (machine.wake !== undefined && machine.wake > clock.now()) return arm();
    step({ in: "time" });
  }

  function act(o: Output): void {
    switch (o.out) {
      case "state":
        return enter(o.state, o.retry);
      case "token":
        return void ask(o.reason);
      case "open":
        return open(o);
      case "drop": {
        const c = opened.get(o.attempt);
        opened.delete(o.attempt);
        if (c === live) lose();
        if (o.goodbye) c?.connection.close();
        else c?.connection.abort();
        return;
      }
      case "live":
        live = opened.get(o.attempt);
        return;
      case "ping":
        return say({ type: "ping" });
      case "refresh":
        return say({ type: "refresh", token });
      case "remember":
        return void keepBeside(":won", o.transport ? `${o.transport} ${o.until}` : "");
      case "error":
        return report(o.code);
    }
  }

  function enter(state: State, retry: number | undefined): void {
    const previous = shown;
    shown = state;
    if (state !== "connected") lose();
    if (state !== "failed" && state !== "closed") failure = undefined;
    emit("state", {
      state,
      previous,
      ...(retry === undefined ? {} : { retryAt: new Date(retry) }),
      ...(state === "connected" && live ? { transport: live.transport } : {}),
    });
    const waiting = waiters;
    if (state === "connected") {
      waiters = [];
      for (const s of waiting) s.resolve();
    } else if (state === "failed" || state === "closed") {
      waiters = [];
      for (const s of waiting) s.reject(failure ?? new CarillonError("closed", "the client was closed"));
    }
  }

  let lastKick: Kick | undefined;
  function report(code: string): void {
    const texts: Record<string, string> = {
      unauthorized: "getToken says that this user may not connect",
      token_refused: "the gateway refused two tokens in a row",
      kicked: `the gateway sent this client away: ${lastKick?.reason ?? "no reason given"}${lastKick?.detail ? `, ${lastKick.detail}` : ""}`,
      unreachable: "no transport got through to the gateway",
      silent: "the gateway does not answer any more",
    };
    const passing = code === "unreachable" || code === "silent";
    const e = (!passing && failure) || new CarillonError(code, texts[code]!, { kick: code === "kicked" ? lastKick : undefined });
    if (!passing) failure = e;
    emit("error", e);
  }

  /** What ends with a connection. */
  function lose(): void {
    if (!live) return;
    live = undefined;
    // It may have been lost with the connection.
    if (acked) inbox.acknowledged(undefined);
    acked = false;
    cancelSend();
    seat?.down();
  }

  /** What ends with the client. */
  function rest(): void {
    asking?.abort();
    stopLifecycle?.();
    stopLifecycle = undefined;
    stand();
  }

  // ---- tokens ----

  async function ask(reason: "connect" | "expiring" | "refused"): Promise<void> {
    asking?.abort();
    const mine = (asking = new AbortController());
    const { signal } = mine;
    const cancel = clock.after(TOKEN_MS, () => mine.abort());
    let got: string | null = null;
    let failed: unknown;
    try {
      deviceId ??= await ownDevice();
      got = await Promise.race([
        getToken({ reason, signal, deviceId }),
        new Promise<never>((_, reject) => {
          signal.onabort = () => reject(new CarillonError("token_unavailable", "getToken took too long"));
        }),
      ]);
      if (!got || (reason === "refused" && got === token)) failed = new UnauthorizedError(got ? "the same token again" : "no token");
    } catch (e) {
      failed = e;
    }
    cancel();
    if (asking !== mine) return;
    asking = undefined;
    if (failed) {
      const unauthorized = (failed as Error)?.name === "UnauthorizedError";
      if (unauthorized) failure = new CarillonError("unauthorized", "getToken says that this user may not connect", { cause: failed });
      else trouble("token_unavailable", "getToken failed", failed);
      return step({ in: "token_failed", unauthorized });
    }
    const c = claimsOf(got!);
    if (claims && c.identity !== claims.identity) {
      failure = new CarillonError("identity_changed", "getToken gave the token of another user or device: make one client for each");
      return step({ in: "token_failed", unauthorized: true });
    }
    token = got!;
    // Its own clock is not ours: what counts is how long it lives.
    const now = clock.now();
    step({ in: "token", expires: c.expires && (c.issued ? now + c.expires - c.issued : c.expires) });
    claims = c;
    settle();
  }

  async function ownDevice(): Promise<string> {
    const key = `${name}:device`;
    let id = await read(key);
    if (!id) {
      id = btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16)))).replace(/[+/=]/g, (c) => ({ "+": "-", "/": "_" })[c] ?? "");
      await write(key, id);
    }
    return id;
  }

  async function read(key: string): Promise<string> {
    try {
      return (await storage.get(key)) ?? "";
    } catch (e) {
      trouble("storage", "the storage cannot be read", e);
      return "";
    }
  }
  async function write(key: string, value: string): Promise<void> {
    try {
      await storage.set(key, value);
    } catch (e) {
      trouble("storage", "the storage cannot be written", e);
    }
  }
  const key = (): string => `${name}:${claims!.identity}`;
  const keepBeside = (suffix: string, value: string): Promise<void> => write(key() + suffix, value);

  // ---- over what: this tab's own transports, or another tab ----

  let settled = false;

  /** Once it is known whose client this is: joins the other tabs, or goes on alone. */
  function settle(): void {
    if (settled) return;
    settled = true;
    if (tabs) seat = tabs.join(key(), { lead: () => void lead(), follow, said }, clock);
    else void lead();
  }

  /** Leaves the other tabs. */
  function stand(): void {
    if (!tabs) return;
    seat?.leave();
    seat = undefined;
    settled = false;
  }

  async function lead(): Promise<void> {
    const mine = seat;
    tab = undefined;
    const won = (await read(`${key()}:won`)).split(" ");
    const remembered = won[1] ? { transport: won[0]!, until: Number(won[1]) } : undefined;
    const next = makeKeep(storage, key());
    let state: Awaited<ReturnType<Keep["load"]>> = { cursor: undefined, ids: [] };
    try {
      state = await next.load();
    } catch (e) {
      trouble("storage", "the storage cannot be read", e);
    }
    if (mine !== seat || !settled) return;
    // What was handled here while another tab led is known by its ids.
    for (const id of inbox.ids) next.note(id);
    inbox.restore(state.cursor, state.ids);
    keep = next;
    step({ in: "route", transports: transports.map((t) => t.name), token: true, remembered });
  }

  function follow(over: Transport): void {
    tab = over;
    keep = undefined;
    step({ in: "route", transports: [over.name], token: false });
  }

  // ---- opening ----

  function open(o: Output & { out: "open" }): void {
    const t = o.transport === tab?.name ? tab : transports.find((x) => x.name === o.transport)!;
    const cursor = inbox.cursorText;
    const mine: { self?: Opened } = {};
    const current = (): boolean => opened.get(o.attempt) === mine.self;
    const sink = {
      frames: (frames: readonly ServerFrame[], handled?: () => void) => {
        if (!current()) return;
        for (const f of frames) receive(o.attempt, mine.self!, f);
        if (mine.self === live) seat?.frames(frames);
        pump();
        if (handled) {
          drains.push(handled);
          drained();
        }
      },
      heard: () => {
        if (mine.self === live) step({ in: "heard" });
      },
      ended: (end: End) => {
        if (!current()) return;
        opened.delete(o.attempt);
        const all = { ...mine.self!.goodbye, ...end };
        if (mine.self === live) lose();
        lastKick = all.kick ?? (dutyOf(all.code) === "stay_away" ? { code: all.code!, reason: all.reason ?? "", ...(all.detail ? { detail: all.detail } : {}) } : undefined);
        const own = lastKick?.reason === "replaced" && (lastKick.by === undefined || lastKick.by === claims?.device);
        if (!all.code && all.detail) trouble("protocol", all.detail);
        step({ in: "ended", attempt: o.attempt, code: all.code, own, delay: all.delay, address: safe(o.endpoint, all.address) });
        if (lastKick && (machine.state === "failed" || machine.state === "suspended")) emit("kick", lastKick);
      },
    };
    try {
      const connection = t.open(
        {
          endpoint: o.endpoint,
          token: () => token,
          connect: {
            type: "connect",
            version: VERSION,
            token,
            client: clientName,
            ...(cursor ? { cursor } : {}),
            ...(session && !o.fresh ? { after: session } : {}),
          },
          clock,
        },
        sink,
      );
      mine.self = { transport: t.name, connection };
    } catch (e) {
      // A constructor that refuses the address, say.
      trouble("unreachable", `${t.name} could not be opened`, e);
      mine.self = { transport: t.name, connection: { alive: "self", acknowledges: false, send() {}, close() {}, abort() {} } };
      clock.after(0, () => sink.ended({}));
    }
    opened.set(o.attempt, mine.self);
  }

  /** The address that a gateway names, unless it would give up encryption. */
  function safe(endpoint: string, address: string | undefined): string | undefined {
    try {
      const to = endpointsOf(address!)[0]!;
      return endpoint.startsWith("https:") && !to.startsWith("https:") ? undefined : to;
    } catch {
      return undefined;
    }
  }

  // ---- receiving ----

  function receive(attempt: number, from: Opened, f: ServerFrame): void {
    switch (f.type) {
      case "welcome": {
        session = f["session"] as string;
        inbox.receive(f);
        const now = clock.now();
        const expires = f["expires"] as number | undefined;
        skew = (f["time"] as number) - now;
        step({
          in: "welcome",
          attempt,
          alive: from.connection.alive,
          heartbeat: f["heartbeat_ms"] as number,
          grace: f["grace_ms"] as number,
          expires: expires === undefined ? undefined : expires - skew,
        });
        rate = Math.max(1, Math.floor((f["frames_per_second"] as number) / 2)) || 10;
        seat?.welcomed(() => f);
        saved();
        flush();
        return;
      }
      case "ping":
        return from.connection.send([{ type: "pong" }]);
      case "pong":
        // A timer that is set here and not by another one is not put off in a hidden tab.
        wakeAt = undefined;
        return arm();
      case "kick":
        from.goodbye = {
          code: f["code"] as number,
          kick: {
            code: f["code"] as number,
            reason: (f["reason"] as string) ?? "",
            ...pick(f, "detail"),
            ...pick(f, "by"),
            ...pick(f, "on"),
          },
        };
        return;
      case "goaway":
        from.goodbye = { code: f["code"] as number, delay: (f["delay_ms"] as number) ?? 0, ...pick(f, "address") };
        return;
      case "refresh": {
        const expires = f["expires"] as number | undefined;
        if (expires === undefined) return step({ in: "token_wanted" });
        return step({ in: "renewed", expires: expires - skew });
      }
      case "tags":
      case "error":
        return answered(f);
    }
    if (f.type === "message" && f["slot"] == null && !listeners.message?.size) return; // for who listens now
    const notice = inbox.receive(f);
    if (notice?.is === "gap") emit("gap", notice);
    if (notice?.is === "recall") emit("recall", notice);
    if (f.type === "cursor") {
      if (f["reason"] === "caught_up") step({ in: "caught_up" });
    }
    if (f.type !== "message") void store();
  }
  const pick = <K extends string>(f: ServerFrame, k: K): { [P in K]?: string } => (f[k] ? ({ [k]: f[k] } as { [P in K]?: string }) : {});

  // ---- handling ----

  let running = 0;
  let pumping = false;
  let closing = false;

  function pump(): void {
    if (pumping || closing) return;
    pumping = true;
    const began = clock.now();
    while (running < concurrency && listeners.message?.size) {
      const e = inbox.take();
      if (!e) break;
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
    const waits: PromiseLike<unknown>[] = [];
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
      () => {
        running--;
        handed(e);
        pump();
      },
      (cause: unknown) => {
        running--;
        failed(e, cause);
        pump();
      },
    );
  }

  function handed(e: Entry): void {
    if (acknowledge === "auto") done(e);
  }

  function failed(e: Entry, cause: unknown): void {
    if (cause === UNREAD) return inbox.again(e);
    if (++e.failures >= TRIES || !e.persistent) {
      trouble("handler_gave_up", `a handler failed ${e.failures} times with message ${e.id}, which counts as handled`, cause);
      return done(e);
    }
    trouble("handler_failed", `a handler failed with message ${e.id}, which is handed out again`, cause);
    clock.after(again(e.failures), () => {
      inbox.again(e);
      pump();
    });
  }
  const again = (times: number): number => Math.min(MOST_AGAIN_MS, AGAIN_MS * 2 ** (times - 1));

  function done(e: Entry): void {
    if (!inbox.handled(e)) return;
    keep?.note(e.id);
    void store();
  }

  // ---- storing and acknowledging ----

  let storing = false;
  let dirty = false;
  let troubles = 0;
  let acked = false; // something, over the connection that stands
  let ackAt = -Infinity;
  let cancelAck: (() => void) | undefined;
  let drains: (() => void)[] = [];
  let savedText: string | undefined;

  /** Writes how far everything is handled, and acknowledges that then. At once where the storage is. */
  function store(): void {
    if (!keep) return saved();
    if (storing) {
      dirty = true;
      return;
    }
    const text = inbox.cursorText;
    if (text === undefined) return;
    dirty = false;
    try {
      const wait = keep.save(text, inbox.ids);
      if (!wait) return saved();
      storing = true;
      wait.then(
        () => {
          storing = false;
          saved();
          if (dirty) store();
        },
        (e: unknown) => {
          storing = false;
          notStored(e);
        },
      );
    } catch (e) {
      notStored(e);
    }
  }

  function notStored(e: unknown): void {
    if (!troubles++) trouble("storage", "the storage cannot be written: nothing is acknowledged until it can", e);
    storing = true;
    clock.after(again(troubles), () => {
      storing = false;
      store();
    });
  }

  function saved(): void {
    troubles = 0;
    savedText = inbox.cursorText;
    drained();
    if (!live || live.connection.acknowledges || cancelAck || !inbox.owesAck) return;
    cancelAck = clock.after(Math.max(0, ackAt + ACK_MS - clock.now()), ack);
  }

  function ack(): void {
    cancelAck?.();
    cancelAck = undefined;
    if (!live || tab || !savedText || !inbox.owesAck) return;
    ackAt = clock.now();
    acked = true;
    inbox.acknowledged(savedText);
    say({ type: "ack", cursor: savedText });
  }

  function drained(): void {
    if (!drains.length || !inbox.drained || storing) return;
    const all = drains;
    drains = [];
    for (const f of all) f();
  }

  // ---- saying ----

  let rate = 10; // frames a second
  let spent = 0;
  let spentAt = 0;
  let cancelSend = (): void => {};
  let events: ClientFrame[] = [];
  let tagging: TagRequest[] = [];
  let tagSent = false;

  function say(f: ClientFrame): void {
    if (!live) return;
    spent++;
    live.connection.send([f]);
    step({ in: "sent" });
  }

  /** Sends what waits, no faster than the gateway allows. */
  function flush(): void {
    cancelSend();
    if (!live) return;
    const now = clock.now();
    if (now - spentAt >= 1000) {
      spent = 0;
      spentAt = now;
    }
    const next = (): ClientFrame | undefined => {
      if (!tagSent && tagging.length) {
        tagSent = true;
        return tagging[0]!.frame;
      }
      return events.shift();
    };
    while (spent < rate) {
      const f = next();
      if (!f) return;
      say(f);
    }
    if (events.length || (tagging.length && !tagSent)) cancelSend = clock.after(spentAt + 1000 - now, flush);
  }

  function event(event: "displayed" | "clicked", message: Message | string): void {
    const id = typeof message === "string" ? message : message.id;
    if (!/^\d{1,19}$/.test(id)) throw invalid("no id of a message");
    events.push({ type: "event", event, id, time: clock.now() });
    if (events.length > MOST_EVENTS) events.shift();
    flush();
  }

  function changeTags(join: string[] | undefined, leave: string[] | undefined): Promise<string[]> {
    return new Promise((resolve, reject) => {
      requestTags({ type: "tags", ...(join ? { join } : {}), ...(leave ? { leave } : {}) }, (f) => {
        if (f.type === "tags") resolve([...((f["tags"] as string[] | undefined) ?? [])]);
        else reject(new CarillonError(f["code"] as string, (f["detail"] as string) ?? `tags: ${String(f["code"])}`));
      });
    });
  }

  function requestTags(frame: ClientFrame, answer: (f: ServerFrame) => void): void {
    if (closing || shown === "closed" || shown === "failed") return answer({ type: "error", code: "closed", detail: "the client is closed" });
    tagging.push({ frame, answer });
    flush();
  }

  /** Takes the answer to a change of tags, or a refusal of whatever it is. */
  function answered(f: ServerFrame): void {
    if (f.type === "error" && f["code"] === "try_again") {
      if (!tagSent) return step({ in: "token_wanted" });
      clock.after(AGAIN_MS, () => {
        tagSent = false;
        flush();
      });
      return;
    }
    const mine = f.type === "tags" || /tag|no_session/.test(f["code"] as string);
    if (!mine || !tagSent) {
      if (f.type === "error") trouble(f["code"] as string, `the gateway refused a frame: ${String(f["code"])}`);
      return;
    }
    tagSent = false;
    tagging.shift()?.answer(f);
    flush();
  }

  /** What another tab has to say. */
  function said(frames: readonly ClientFrame[], answer: (frames: readonly ServerFrame[]) => void): void {
    for (const f of frames) {
      if (f.type === "tags") requestTags(f, (a) => answer([a]));
      else if (f.type === "event") events.push(f);
    }
    flush();
  }

  // ---- its surface ----

  function happened(what: Happening): void {
    if (what === "frozen") {
      ack();
      step({ in: "frozen" });
      return stand();
    }
    // Over what to connect comes first.
    if (what === "thawed" && claims && machine.state === "suspended") settle();
    step({ in: what });
  }

  const client: Client<Body> = {
    get state() {
      return shown;
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
      if (signal?.aborted) return Promise.reject(new CarillonError("closed", "the signal was aborted before"));
      signal?.addEventListener("abort", () => client.close(), { once: true });
      if (shown === "connected") return Promise.resolve();
      return new Promise((resolve, reject) => {
        waiters.push({ resolve, reject });
        closing = false;
        stopLifecycle ??= lifecycle(happened);
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
      for (const t of tagging.splice(0)) t.answer({ type: "error", code: "closed", detail: "the client was closed" });
    },
    on(event, listener, { signal, once } = {}) {
      const all = (listeners[event] ??= new Set()) as Set<(value: never) => unknown>;
      if (signal?.aborted) return () => {};
      const f = once
        ? (value: never) => {
            stop();
            return (listener as (v: never) => unknown)(value);
          }
        : (value: never) => (listener as (v: never) => unknown)(value);
      const stop = (): void => void all.delete(f);
      all.add(f);
      signal?.addEventListener("abort", stop, { once: true });
      if (event === "message") pump();
      return stop;
    },
    messages({ signal } = {}) {
      const ready: { message: Message<Body>; handled: () => void; unread: (why: unknown) => void }[] = [];
      let current: (() => void) | undefined;
      let want: ((r: IteratorResult<Message<Body>>) => void) | undefined;
      let over = false;
      const give = (): void => {
        if (!want) return;
        const r = over ? undefined : ready.shift();
        if (!r && !over) return;
        const to = want;
        want = undefined;
        current = r?.handled;
        to(r ? { done: false, value: r.message } : { done: true, value: undefined });
      };
      const end = (): void => {
        if (over) return;
        over = true;
        stop();
        stopState();
        for (const r of ready.splice(0)) r.unread(UNREAD);
        give();
      };
      const stop = client.on(
        "message",
        (message) =>
          new Promise<void>((handled, unread) => {
            ready.push({ message, handled, unread });
            give();
          }),
      );
      const stopState = client.on("state", ({ state }) => {
        if (state === "closed" || state === "failed") end();
      });
      signal?.addEventListener("abort", end, { once: true });
      return {
        [Symbol.asyncIterator]() {
          return this;
        },
        next() {
          current?.();
          current = undefined;
          return new Promise((resolve) => {
            want = resolve;
            give();
          });
        },
        return() {
          current?.();
          end();
          return Promise.resolve({ done: true, value: undefined });
        },
      };
    },
    acknowledge(message) {
      const e = inbox.entry(typeof message === "string" ? message : message.id);
      if (e?.handed) done(e);
    },
    displayed: (m) => event("displayed", m),
    clicked: (m) => event("clicked", m),
    tags: {
      join: (...tags) => changeTags(tags, undefined),
      leave: (...tags) => changeTags(undefined, tags),
      list: () => changeTags(undefined, undefined),
    },
  };
  return client;
}

function messageOf<Body>({ frame, id, persistent }: Entry): Message<Body> {
  const text = (k: string): string | undefined => (frame[k] as string | undefined) || undefined;
  const expires = frame["expires"] as number | undefined;
  const ref = text("ref");
  const collapseKey = text("collapse_key");
  return {
    id,
    persistent,
    time: new Date(frame["time"] as number),
    headers: (frame["headers"] as Record<string, string> | null) ?? {},
    body: bodyOf(frame) as Body,
    ...(expires ? { expires: new Date(expires) } : {}),
    ...(ref ? { ref } : {}),
    ...(collapseKey ? { collapseKey } : {}),
  };
}
