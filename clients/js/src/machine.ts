// When to connect, over what, and what to do when that ends: the state machine of `api/client.md`, which every SDK has, without I/O. Time comes
// with each input, chance from a function. `api/testdata/client/transitions.json` replays it.

import { backoff } from "./backoff.js";
import type { State, TokenReason } from "./types.js";

/** Each transport after the first gets its chance that much after the one before. */
const STAGGER_MS = 2500;
/** How long one transport may take to be welcomed. */
const ATTEMPT_MS = 10_000;
/** How long a transport that won over a better one is tried first. */
const REMEMBER_MS = 30 * 60_000;
/** How long the gateway may take to answer the ping by which a client finds out whether its connection is still there. */
const PROBE_MS = 5000;
/** How long to wait where the system says that there is no network: it may be wrong. */
const OFFLINE_MS = 30_000;
/** A token that runs out sooner than this is not connected with. */
const TOKEN_MARGIN_MS = 5000;
/** A token is renewed at the latest this long before it runs out, or in the last fifth of its life if that is shorter. */
const RENEW_MS = 60_000;
/** And not sooner than this after the last time. */
const RENEW_LEAST_MS = 1000;
/** How long after a connect was given up it may still be opened, and end the session that came after it. */
const ORPHAN_MS = 60_000;

/** How a connection shows that it is alive: the client pings; the client listens; the transport sees to it. */
export type Liveness = "ping" | "listen" | "self";

/** What the machine is told. Times are in milliseconds. */
export type Input =
  | { readonly in: "connect" }
  | { readonly in: "close" }
  /** There is a token, the answer to `token`. */
  | { readonly in: "token"; readonly expires?: number | undefined }
  | { readonly in: "token_failed"; readonly unauthorized?: boolean }
  /** From now on the connection goes over these, the best first. `token`: they need one; what needs none is another client's connection. */
  | {
      readonly in: "route";
      readonly transports: readonly string[];
      readonly token: boolean;
      /** Which of them won before, and until when that counts. */
      readonly remembered?: Remembered | undefined;
    }
  | {
      readonly in: "welcome";
      readonly attempt: number;
      readonly alive: Liveness;
      readonly heartbeat: number;
      readonly grace: number;
      readonly expires?: number | undefined;
    }
  | { readonly in: "caught_up" }
  /** A connection, or an attempt at one, ended. `own`: it is this device that took the place. */
  | {
      readonly in: "ended";
      readonly attempt: number;
      readonly code?: number | undefined;
      readonly own?: boolean;
      readonly delay?: number | undefined;
      readonly address?: string | undefined;
    }
  /** The gateway wants another token, or could not judge the one it got. */
  | { readonly in: "token_wanted" }
  | { readonly in: "renewed"; readonly expires?: number | undefined }
  | { readonly in: "heard" }
  | { readonly in: "sent" }
  | { readonly in: "online" }
  | { readonly in: "offline" }
  | { readonly in: "visible" }
  | { readonly in: "frozen" }
  | { readonly in: "thawed" }
  /** The time is {@link Machine.wake}, or later. */
  | { readonly in: "time" };

/** What the machine wants done, in order. None of it may call the machine before it returns from `step`. */
export interface Effects {
  /** The state changed; `retry`: when the next attempt comes. */
  state(state: State, retry?: number): void;
  /** Get a token; a request before this one is of no use any more. */
  token(reason: TokenReason): void;
  /** Open a connection. `fresh`: without naming the session before, as if this were another run. */
  open(attempt: number, transport: string, endpoint: string, fresh: boolean): void;
  /** Give a connection or an attempt up: with a goodbye, or without a word. Nothing that it says counts any more. */
  drop(attempt: number, goodbye: boolean): void;
  /** This attempt is the connection now. */
  live(attempt: number): void;
  /** Send a `ping` over the connection. */
  ping(): void;
  /** Send the new token over the connection. */
  refresh(): void;
  /** Keep, or without one forget, which transport won. */
  remember(won?: Remembered): void;
  /** Why the state is going to be `failed`, or what is being tried again. */
  error(code: "unauthorized" | "token_refused" | "kicked" | "unreachable" | "silent"): void;
}

/** What a machine is made of. */
export interface MachineConfig {
  readonly endpoints: readonly string[];
  readonly random: () => number;
  readonly effects: Effects;
}

/** A transport that won over a better one. */
export interface Remembered {
  readonly transport: string;
  readonly until: number;
}

/** The machine. */
export interface Machine {
  readonly state: State;
  /** When it wants `time`; undefined: not before something else happens. */
  readonly wake: number | undefined;
  step(now: number, input: Input): void;
}

interface Attempt {
  readonly id: number;
  readonly transport: string;
  /** When it is given up. */
  readonly until: number;
}

/** What a close code asks of a client: by its hundreds, so that a later code is obeyed too. */
export function dutyOf(code: number | undefined): "come_back" | "renew_token" | "stay_away" {
  const hundreds = Math.floor((code ?? 0) / 100);
  return hundreds === 41 ? "renew_token" : hundreds === 42 ? "stay_away" : "come_back";
}

const REPLACED = 4200;

/** Makes a machine, which is `idle`. */
export function createMachine({ endpoints, random, effects: fx }: MachineConfig): Machine {
  let state: State = "idle";
  let online = true;
  let hiddenReplaced = false; // suspended as another client of this device is connected
  let route: readonly string[] = [];
  let needsToken = true;
  let remembered: Remembered | undefined;

  // The token.
  let asked: TokenReason | undefined; // being fetched
  let have = false;
  let expires: number | undefined;
  let renewAt: number | undefined;
  let renewals = 0; // in a row that failed
  let refusals = 0; // since the last welcome

  // Attempts and the connection.
  let last = 0; // the number of the last attempt
  let attempts: Attempt[] = [];
  let untried: string[] = [];
  let nextAt: number | undefined; // when the next of them gets its chance
  let spoken = 0; // the longest delay that somebody named in this round
  let live: (Attempt & { alive: Liveness; heartbeat: number; grace: number }) | undefined;
  let upgradeAt: number | undefined;
  let orphanUntil = 0;
  let fresh = false;

  // Waiting.
  let failed = 0;
  let retryAt: number | undefined;
  let named = false; // by the server
  let endpoint = 0;
  let detour: string | undefined;

  // Signs of life.
  let heardAt = 0;
  let pingAt: number | undefined;
  let pongBy: number | undefined;

  const idleStates = (): boolean => state === "idle" || state === "closed" || state === "failed" || state === "suspended";

  function enter(next: State, retry?: number): void {
    if (state === next && retry === undefined) return;
    state = next;
    fx.state(state, retry);
  }

  function ask(reason: TokenReason): void {
    asked = reason;
    renewAt = undefined;
    fx.token(reason);
  }

  function drop(goodbye: boolean): void {
    for (const a of attempts) fx.drop(a.id, false);
    if (live) fx.drop(live.id, goodbye);
    attempts = [];
    untried = [];
    live = nextAt = pingAt = pongBy = upgradeAt = retryAt = undefined;
  }

  function stop(next: State): void {
    drop(true);
    asked = renewAt = undefined;
    enter(next);
  }

  /** Goes for a connection: a token first, if one is needed. */
  function begin(now: number): void {
    retryAt = undefined;
    enter("connecting");
    if (needsToken && !(have && (expires === undefined || expires - now > TOKEN_MARGIN_MS))) {
      if (!asked) ask(refusals > 0 ? "refused" : "connect");
      return;
    }
    round(now);
  }

  function order(now: number): string[] {
    if (remembered && (remembered.until <= now || !route.includes(remembered.transport))) remembered = undefined;
    const first = remembered?.transport;
    return first === undefined ? [...route] : [first, ...route.filter((t) => t !== first)];
  }

  function round(now: number): void {
    untried = order(now);
    spoken = 0;
    if (untried.length) next(now);
  }

  function next(now: number): void {
    open(now, untried.shift()!);
    nextAt = untried.length ? now + STAGGER_MS : undefined;
  }

  function open(now: number, transport: string): void {
    // Another tab may take its time: it tells when it is connected.
    const a = { id: ++last, transport, until: needsToken ? now + ATTEMPT_MS : Infinity };
    attempts.push(a);
    const at = detour ?? endpoints[endpoint % endpoints.length]!;
    fx.open(a.id, transport, at, fresh);
  }

  function wait(now: number, delay = 0): void {
    drop(false);
    failed++;
    // A server that named a delay has spread its clients already.
    const ms = delay && failed === 1 ? delay : Math.max(delay, backoff(failed, random()));
    named = delay > 0;
    // Another tab costs nobody anything to ask.
    retryAt = now + (!needsToken ? 0 : online ? ms : Math.max(ms, OFFLINE_MS));
    enter(online ? "waiting" : "offline", retryAt);
  }

  function fail(code: "unauthorized" | "token_refused" | "kicked"): void {
    fx.error(code);
    have = false;
    stop("failed");
  }

  function ended(now: number, { attempt, code, own, delay, address }: Input & { in: "ended" }): void {
    const wasLive = live?.id === attempt;
    const known = attempts.some((a) => a.id === attempt);
    if (!wasLive && !known) return;
    attempts = attempts.filter((a) => a.id !== attempt);
    const upgrading = live !== undefined && !wasLive;
    if (upgrading) {
      // What the gateway says to a connection that is not needed changes nothing about the one that is there.
      if (!attempts.length) remember(now, live!.transport, true);
      return;
    }
    if (wasLive) live = pingAt = pongBy = undefined;
    if (code === undefined) {
      // A better transport that is on its way may be why: nobody has to notice.
      if (wasLive && attempts.length) return;
      if (wasLive) return wait(now, delay);
      spoken = Math.max(spoken, delay ?? 0);
      if (untried.length) return next(now);
      if (attempts.length) return;
      fx.error("unreachable");
      endpoint++;
      detour = undefined;
      return wait(now, spoken);
    }
    detour = address;
    switch (dutyOf(code)) {
      case "come_back":
        return wait(now, delay);
      case "renew_token":
        have = false;
        if (++refusals > 1) return fail("token_refused");
        return wait(now, delay);
      case "stay_away":
        if (code === REPLACED && own) {
          if (now < orphanUntil) {
            // A connect of ours that was given up was opened all the same, and took the place. Once: the next time it is another client.
            orphanUntil = 0;
            fresh = true;
            return wait(now);
          }
          hiddenReplaced = true;
          return stop("suspended");
        }
        return fail("kicked");
    }
  }

  function welcome(now: number, w: Input & { in: "welcome" }): void {
    const a = attempts.find((x) => x.id === w.attempt);
    if (!a) return;
    attempts = attempts.filter((x) => x !== a);
    if (attempts.length) orphanUntil = now + ORPHAN_MS;
    for (const other of attempts) fx.drop(other.id, false);
    if (live) fx.drop(live.id, false);
    attempts = [];
    untried = [];
    nextAt = undefined;
    fresh = false;
    refusals = 0;
    live = { ...a, alive: w.alive, heartbeat: w.heartbeat, grace: w.grace };
    heard(now);
    sent(now);
    if (w.expires !== undefined && needsToken) expires = w.expires;
    plan(now);
    remember(now, a.transport);
    fx.live(a.id);
    // Also where it was: another transport carries it now.
    state = "connected";
    fx.state(state);
  }

  function remember(now: number, transport: string, again = false): void {
    if (transport === route[0]) {
      upgradeAt = undefined;
      if (!remembered) return;
      remembered = undefined;
      fx.remember();
      return;
    }
    if (again || remembered?.transport !== transport) {
      remembered = { transport, until: now + REMEMBER_MS };
      fx.remember(remembered);
    }
    upgradeAt = remembered.until;
  }

  /** Plans the renewal of the token in use. */
  function plan(now: number): void {
    renewAt = undefined;
    if (!needsToken || expires === undefined || asked) return;
    const life = Math.max(0, expires - now);
    // Not at once, if a clock is wrong: the gateway says when the token runs out.
    const early = Math.min(RENEW_MS, life / 5) * (1 + random() / 4);
    renewAt = Math.max(now + RENEW_LEAST_MS, Math.floor(expires - early));
  }

  function heard(now: number): void {
    heardAt = now;
    pongBy = undefined;
  }

  function sent(now: number): void {
    // A little before the interval, so that clients do not beat together.
    if (live?.alive === "ping") pingAt = now + Math.floor(live.heartbeat * (0.75 + random() / 5));
  }

  function ping(now: number, within: number): void {
    if (live?.alive !== "ping") return;
    fx.ping();
    pongBy ??= now + within;
    sent(now);
  }

  function silent(now: number): void {
    fx.error("silent");
    wait(now);
  }

  function silentAt(): number | undefined {
    return live?.alive === "listen" && live.heartbeat ? heardAt + live.heartbeat + live.grace : undefined;
  }

  function due(now: number, at: number | undefined): boolean {
    return at !== undefined && at <= now;
  }

  function time(now: number): void {
    if (due(now, retryAt)) begin(now);
    for (const a of attempts) {
      if (attempts.includes(a) && due(now, a.until)) {
        fx.drop(a.id, false);
        orphanUntil = now + ORPHAN_MS;
        ended(now, { in: "ended", attempt: a.id });
      }
    }
    if (due(now, nextAt)) next(now);
    if (due(now, pongBy) || due(now, silentAt())) silent(now);
    if (due(now, pingAt)) ping(now, live!.grace);
    if (due(now, renewAt) && live) ask("expiring");
    if (due(now, upgradeAt)) {
      upgradeAt = undefined;
      // The best alone, beside the connection that is there.
      open(now, route[0]!);
    }
  }

  function input(now: number, i: Input): void {
    switch (i.in) {
      case "connect":
        if (state === "waiting" || state === "offline") {
          if (!named) begin(now);
        } else if (idleStates()) {
          failed = refusals = 0;
          // Whoever has the place now is to give it up.
          fresh = state !== "idle";
          hiddenReplaced = false;
          begin(now);
        }
        return;
      case "close":
        if (state !== "closed") stop("closed");
        return;
      case "token": {
        const why = asked;
        asked = undefined;
        if (!why) return;
        have = true;
        expires = i.expires;
        renewals = 0;
        if (live) {
          fx.refresh();
          plan(now);
        } else if (state === "connecting") {
          round(now);
        }
        return;
      }
      case "token_failed":
        if (!asked) return;
        asked = undefined;
        if (i.unauthorized) return fail("unauthorized");
        if (live) renewAt = now + backoff(++renewals + 1, random());
        else if (state === "connecting") wait(now);
        return;
      case "route": {
        drop(true);
        route = i.transports;
        needsToken = i.token;
        remembered = i.remembered;
        if (!needsToken) asked = renewAt = undefined;
        if (idleStates()) return;
        failed = 0;
        enter("connecting");
        begin(now);
        return;
      }
      case "welcome":
        return welcome(now, i);
      case "caught_up":
        failed = 0;
        return;
      case "ended":
        return ended(now, i);
      case "token_wanted":
        if (live && !asked) renewAt = now + backoff(++renewals, random());
        return;
      case "renewed":
        renewals = 0;
        if (i.expires !== undefined) expires = i.expires;
        return plan(now);
      case "heard":
        return heard(now);
      case "sent":
        return sent(now);
      case "online": {
        const was = online;
        online = true;
        // It may be another network, where the best gets through.
        if (!was && remembered) {
          remembered = undefined;
          fx.remember();
          if (live) upgradeAt = now;
        }
        if (state === "offline") {
          failed = 0;
          wait(now);
        } else ping(now, PROBE_MS);
        return;
      }
      case "offline":
        online = false;
        if (state === "waiting") {
          retryAt = Math.max(retryAt!, now + OFFLINE_MS);
          enter("offline", retryAt);
        } else ping(now, PROBE_MS);
        return;
      case "visible":
        if (state === "suspended" && hiddenReplaced) {
          hiddenReplaced = false;
          fresh = true;
          failed = 0;
          begin(now);
        } else if (state === "waiting" && !named && failed > 1) {
          failed = 1;
          retryAt = Math.min(retryAt!, now + backoff(1, random()));
          enter("waiting", retryAt);
        } else ping(now, PROBE_MS);
        return;
      case "frozen":
        if (!idleStates()) stop("suspended");
        return;
      case "thawed":
        if (state === "suspended" && !hiddenReplaced) {
          failed = 0;
          begin(now);
        } else ping(now, PROBE_MS);
        return;
      case "time":
        return time(now);
    }
  }

  return {
    get state() {
      return state;
    },
    get wake() {
      const times = [retryAt, nextAt, pongBy, silentAt(), pingAt, live && renewAt, upgradeAt, ...attempts.map((a) => a.until)];
      const first = Math.min(...times.map((t) => t ?? Infinity));
      return first < Infinity ? first : undefined;
    },
    step: input,
  };
}
