// When to connect and what to do when that ends: the state machine of `api/client.md`, which every SDK has, without I/O. Time comes
// with each input, chance from a function. `api/testdata/client/transitions.json` replays it.
//
// This is the machine of one transport. What `race.ts` puts around it makes it that of several.

import { backoff } from "./backoff.js";
import type { Remembered } from "./port.js";
import type { State, TokenReason, Transport } from "./types.js";

/** How long a transport may take to be welcomed. */
export const ATTEMPT_MS = 10_000;
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
  /** A connection, or an attempt at one, ended. `own`: if somebody took the place, it was this device. */
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
  /** A connect was given up, and may be opened all the same. */
  | { readonly in: "given_up" }
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
  /** Keep, or without one forget, which transport won. Of a race alone. */
  remember(won?: Remembered): void;
  /** Why the state is going to be `failed`, or what is being tried again. */
  error(code: "unauthorized" | "token_refused" | "kicked" | "unreachable" | "silent"): void;
}

/** What a machine is made of. */
export interface MachineConfig {
  readonly endpoints: readonly string[];
  /** How long an attempt may take, in milliseconds; 10 000 by default. */
  readonly patience?: number;
  readonly random: () => number;
  readonly effects: Effects;
}

/** The machine. */
export interface Machine {
  /** When it wants `time`; Infinity: not before something else happens. */
  readonly wake: number;
  step(now: number, input: Input): void;
}

/** Several transports for one connection, the best first. Made by `fallback`. */
export type Fallback = readonly Transport[] & {
  /** How to make what chooses among them, which is the client's own affair. */
  readonly machine: unknown;
};

/** What a close code asks of a client, by its hundreds, so that a later code is obeyed too: one of these, or to come back. */
export const dutyOf = (code = 0): number => Math.floor(code / 100);
export const RENEW_TOKEN = 41;
export const STAY_AWAY = 42;

const REPLACED = 4200;

/** Makes a machine, which is `idle`. */
export function createMachine({ endpoints, patience = ATTEMPT_MS, random, effects: fx }: MachineConfig): Machine {
  let now = 0;
  let state: State = "idle";
  let resting = true; // and not to connect by itself
  let online = true;
  let hiddenReplaced = false; // suspended as another client of this device is connected
  let route: string | undefined;
  let needsToken = true;

  // The token.
  let asked: TokenReason | undefined; // being fetched
  let expires = 0; // there is none
  let renewAt = Infinity;
  let renewals = 0; // in a row that failed
  let refusals = 0; // since the last welcome

  // The attempt, or the connection that it has become.
  let last = 0;
  let current: number | undefined;
  let until = Infinity; // when the attempt is given up
  let live: { alive: Liveness; heartbeat: number; grace: number } | undefined;
  let pingAt = Infinity;
  let silentAt = Infinity; // unless something is heard before
  let orphanUntil = 0;
  let fresh = false;

  // Waiting.
  let failed = 0;
  let retryAt = Infinity;
  let named = false; // by the server
  let endpoint = 0;
  let detour: string | undefined;

  function enter(next: State, retry?: number): void {
    if (state === next && !retry) return;
    state = next;
    fx.state(state, retry);
  }

  function ask(reason: TokenReason): void {
    asked = reason;
    renewAt = Infinity;
    fx.token(reason);
  }

  function drop(goodbye: boolean): void {
    if (current) {
      fx.drop(current, goodbye && !!live);
      if (!live) orphanUntil = now + ORPHAN_MS;
    }
    current = live = undefined;
    until = pingAt = silentAt = retryAt = renewAt = Infinity;
  }

  function stop(next: State): void {
    drop(true);
    asked = undefined;
    resting = true;
    enter(next);
  }

  /** Goes for a connection: a token first, if one is needed. */
  function begin(): void {
    retryAt = Infinity;
    resting = false;
    enter("connecting");
    if (needsToken && expires - now <= TOKEN_MARGIN_MS) {
      if (!asked) ask(refusals ? "refused" : "connect");
    } else open();
  }

  function open(): void {
    if (!route) return;
    current = ++last;
    // Another tab may take its time: it tells when it is connected.
    until = now + (needsToken ? patience : Infinity);
    fx.open(current, route, detour ?? endpoints[endpoint % endpoints.length]!, fresh);
  }

  function wait(delay = 0): void {
    drop(false);
    // Another client costs nobody anything to ask, and what it says before it is asked would be missed.
    if (!needsToken) return begin();
    failed++;
    // A server that named a delay has spread its clients already.
    const ms = delay && failed === 1 ? delay : Math.max(delay, backoff(failed, random()));
    named = delay > 0;
    retryAt = now + (online ? ms : Math.max(ms, OFFLINE_MS));
    enter(online ? "waiting" : "offline", retryAt);
  }

  function fail(code: "unauthorized" | "token_refused" | "kicked"): void {
    fx.error(code);
    expires = 0;
    stop("failed");
  }

  function ended({ attempt, code, own, delay, address }: Omit<Input & { in: "ended" }, "in">): void {
    if (attempt !== current) return;
    detour = address;
    if (!code && !live) {
      fx.error("unreachable");
      endpoint++;
    }
    current = undefined;
    const duty = dutyOf(code);
    if (duty === RENEW_TOKEN) {
      expires = 0;
      if (++refusals > 1) return fail("token_refused");
    }
    if (duty !== STAY_AWAY) return wait(delay);
    if (code !== REPLACED || !own) return fail("kicked");
    if (now < orphanUntil) {
      // A connect of ours that was given up was opened all the same, and took the place. Once: the next time it is another client.
      orphanUntil = 0;
      fresh = true;
      return wait();
    }
    hiddenReplaced = true;
    stop("suspended");
  }

  /** Plans the renewal of the token in use. */
  function plan(): void {
    if (!needsToken || asked) return;
    // Not at once, if a clock is wrong: the gateway says when the token runs out.
    const early = Math.min(RENEW_MS, (expires - now) / 5) * (1 + random() / 4);
    renewAt = Math.max(now + RENEW_LEAST_MS, Math.floor(expires - early));
  }

  function heard(): void {
    silentAt = live?.alive === "listen" && live.heartbeat ? now + live.heartbeat + live.grace : Infinity;
  }

  function sent(): void {
    // A little before the interval, so that clients do not beat together.
    if (live?.alive === "ping") pingAt = now + Math.floor(live.heartbeat * (0.75 + random() / 5));
  }

  function ping(within = PROBE_MS): void {
    if (live?.alive !== "ping") return;
    fx.ping();
    silentAt = Math.min(silentAt, now + within);
    sent();
  }

  function step(at: number, i: Input): void {
    now = at;
    switch (i.in) {
      case "connect":
        if (state === "waiting" || state === "offline") {
          if (!named) begin();
        } else if (resting) {
          failed = refusals = 0;
          // Whoever has the place now is to give it up.
          fresh = state !== "idle";
          hiddenReplaced = false;
          begin();
        }
        return;
      case "close":
        if (state !== "closed") stop("closed");
        return;
      case "token":
        if (!asked) return;
        asked = undefined;
        expires = i.expires ?? Infinity;
        renewals = 0;
        if (live) {
          fx.refresh();
          plan();
        } else if (state === "connecting") open(); // also if it has run out by our clock, which may be wrong
        return;
      case "token_failed":
        if (!asked) return;
        asked = undefined;
        if (i.unauthorized) return fail("unauthorized");
        if (live) renewAt = now + backoff(++renewals + 1, random());
        else if (state === "connecting") wait();
        return;
      case "route":
        drop(true);
        route = i.transports[0];
        needsToken = i.token;
        if (!needsToken) asked = undefined;
        if (resting) return;
        failed = 0;
        return begin();
      case "welcome":
        if (i.attempt !== current) return;
        until = Infinity;
        fresh = false;
        refusals = 0;
        live = i;
        heard();
        sent();
        if (needsToken) expires = i.expires ?? expires;
        plan();
        fx.live(current);
        // Also where it was: another transport carries it now.
        state = "connected";
        return fx.state(state);
      case "caught_up":
        failed = 0;
        return;
      case "ended":
        return ended(i);
      case "token_wanted":
        if (live && needsToken && !asked) renewAt = now + backoff(++renewals, random());
        return;
      case "renewed":
        if (!live || !needsToken) return;
        renewals = 0;
        expires = i.expires ?? expires;
        return plan();
      case "heard":
        return heard();
      case "sent":
        return sent();
      case "given_up":
        orphanUntil = now + ORPHAN_MS;
        return;
      case "online":
        online = true;
        if (state !== "offline") return ping();
        failed = 0;
        return wait();
      case "offline":
        online = false;
        if (state !== "waiting") return ping();
        retryAt = Math.max(retryAt, now + OFFLINE_MS);
        return enter("offline", retryAt);
      case "visible":
        if (hiddenReplaced && state === "suspended") return step(now, { in: "connect" });
        if (state !== "waiting" || named || failed < 2) return ping();
        failed = 1;
        retryAt = Math.min(retryAt, now + backoff(1, random()));
        return enter(state, retryAt);
      case "frozen":
        if (!resting) stop("suspended");
        return;
      case "thawed":
        if (state !== "suspended" || hiddenReplaced) return ping();
        failed = 0;
        return begin();
      case "time":
        if (retryAt <= now) begin();
        if (until <= now) {
          orphanUntil = now + ORPHAN_MS;
          fx.drop(current!, false);
          ended({ attempt: current! });
        }
        if (silentAt <= now) {
          fx.error("silent");
          wait();
        }
        if (pingAt <= now) ping(live!.grace);
        if (renewAt <= now) ask("expiring");
    }
  }

  return {
    get wake() {
      return Math.min(retryAt, until, silentAt, pingAt, renewAt);
    },
    step,
  };
}
