// Several transports for one connection, as `api/client.md` has it: which is tried when, who wins, and the quiet way back to a better one. It stands
// between a client and the machine of one transport, whose one attempt is a race here. Without I/O, as the machine is.

import { ATTEMPT_MS, createMachine, type Fallback, type Input, type Machine, type MachineConfig } from "./machine.js";
import type { Remembered } from "./port.js";
import type { Transport } from "./types.js";

/** Several transports for one connection, the best first: the second is tried beside the first after 2.5 s, the third after 5 s, or when those before failed. */
export function fallback(...transports: Transport[]): Fallback {
  return Object.assign(transports, { machine: createRace });
}

/** Each transport after the first gets its chance that much after the one before. */
const STAGGER_MS = 2500;
/** How long a transport that won over a better one is tried first. */
const REMEMBER_MS = 30 * 60_000;

interface Attempt {
  readonly id: number;
  readonly transport: string;
  /** When it is given up. */
  readonly until: number;
}

/** Makes a machine for the transports of its routes. */
export function createRace({ endpoints, random, effects: fx }: MachineConfig): Machine {
  let now = 0;
  let route: readonly string[] = [];
  let patience = Infinity;
  let remembered: Remembered | undefined;
  let offline = false;

  let last = 0;
  let attempts: Attempt[] = [];
  let untried: string[] = [];
  let nextAt = Infinity; // when the next of them gets its chance
  let spoken = 0; // the longest delay that somebody named in this round
  let live: Attempt | undefined;
  let upgradeAt = Infinity;

  // What the machine takes for its one attempt.
  let one = 0;
  let endpoint = "";
  let fresh = false;

  const machine = createMachine({
    endpoints,
    random,
    patience: Infinity,
    effects: {
      ...fx,
      open(attempt, _, at, anew) {
        one = attempt;
        endpoint = at;
        fresh = anew;
        spoken = 0;
        if (remembered && (remembered.until <= now || !route.includes(remembered.transport))) remembered = undefined;
        const first = remembered?.transport;
        untried = first === undefined ? [...route] : [first, ...route.filter((t) => t !== first)];
        next();
      },
      drop(_, goodbye) {
        for (const a of attempts) fx.drop(a.id, false);
        if (live) fx.drop(live.id, goodbye);
        attempts = [];
        untried = [];
        live = undefined;
        nextAt = upgradeAt = Infinity;
      },
      live: () => fx.live(live!.id),
    },
  });

  function next(): void {
    open(untried.shift()!);
    nextAt = untried.length ? now + STAGGER_MS : Infinity;
  }

  function open(transport: string): void {
    attempts.push({ id: ++last, transport, until: now + patience });
    fx.open(last, transport, endpoint, fresh);
  }

  function remember(transport: string, again: boolean): void {
    if (transport === route[0]) {
      upgradeAt = Infinity;
      return forget();
    }
    if (again || remembered?.transport !== transport) {
      remembered = { transport, until: now + REMEMBER_MS };
      fx.remember(remembered);
    }
    upgradeAt = remembered.until;
  }

  function forget(): void {
    if (!remembered) return;
    remembered = undefined;
    fx.remember();
  }

  function ended(end: Omit<Input & { in: "ended" }, "in">): void {
    const { attempt, code, delay } = end;
    const wasLive = live?.id === attempt;
    const others = attempts.filter((a) => a.id !== attempt);
    if (!wasLive && others.length === attempts.length) return;
    attempts = others;
    if (live && !wasLive) {
      // What the gateway says to a connection that is not needed changes nothing about the one that is there.
      return remember(live.transport, true);
    }
    if (wasLive) live = undefined;
    if (code === undefined) {
      // A better transport that is on its way may be why: nobody has to notice.
      if (wasLive && attempts.length) return;
      spoken = Math.max(spoken, delay ?? 0);
      if (untried.length) return next();
      if (attempts.length) return;
    }
    for (const a of attempts) fx.drop(a.id, false);
    attempts = [];
    untried = [];
    nextAt = upgradeAt = Infinity;
    machine.step(now, { ...end, in: "ended", attempt: one, delay: code === undefined ? spoken : delay });
  }

  function step(at: number, i: Input): void {
    now = at;
    switch (i.in) {
      case "route":
        route = i.transports;
        patience = i.token ? ATTEMPT_MS : Infinity;
        remembered = i.remembered;
        break;
      case "welcome": {
        const won = attempts.find((a) => a.id === i.attempt);
        if (!won) return;
        if (attempts[1]) machine.step(now, { in: "given_up" });
        for (const a of attempts) if (a !== won) fx.drop(a.id, false);
        if (live) fx.drop(live.id, false);
        attempts = [];
        untried = [];
        nextAt = Infinity;
        fresh = false;
        spoken = 0;
        live = won;
        remember(won.transport, false);
        return machine.step(now, { ...i, attempt: one });
      }
      case "ended":
        return ended(i);
      case "offline":
        offline = true;
        break;
      case "online":
        // It may be another network, where the best gets through.
        if (offline && remembered) {
          forget();
          if (live) upgradeAt = now;
        }
        offline = false;
    }
    machine.step(now, i);
    if (i.in !== "time") return;
    for (const a of attempts) {
      if (a.until <= now && attempts.includes(a)) {
        fx.drop(a.id, false);
        machine.step(now, { in: "given_up" });
        ended({ attempt: a.id });
      }
    }
    if (nextAt <= now) next();
    if (upgradeAt <= now) {
      upgradeAt = Infinity;
      // The best alone, beside the connection that is there.
      open(route[0]!);
    }
  }

  return {
    get wake() {
      return Math.min(machine.wake, nextAt, upgradeAt, ...attempts.map((a) => a.until));
    },
    step,
  };
}
