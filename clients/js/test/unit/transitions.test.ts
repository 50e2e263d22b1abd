import { createMachine, type Effects, type Input } from "../../src/machine.js";
import { createRace } from "../../src/race.js";
import { playScripts } from "./scripts.js";

interface Step {
  at: number;
  in: Input;
  out?: unknown[];
  state?: string;
  wake?: number | null;
}
interface Script {
  name: string;
  endpoints: string[];
  random: number[];
  steps: Step[];
}

/** Plays a script, and returns its steps with what came of each. */
function play({ endpoints, random, steps }: Script, make = createRace): Step[] {
  let drawn = 0;
  let out: unknown[] = [];
  let state = "idle";
  const note =
    (...names: string[]) =>
    (...args: unknown[]): void => {
      const told = names.slice(1).flatMap((n, i) => (args[i] === undefined || args[i] === false ? [] : [[n, args[i]]]));
      out.push({ out: names[0], ...(Object.fromEntries(told) as object) });
    };
  const effects: Effects = {
    state(next, retry) {
      state = next;
      note("state", "state", "retry")(next, retry);
    },
    token: note("token", "reason"),
    open: note("open", "attempt", "transport", "endpoint", "fresh"),
    drop: note("drop", "attempt", "goodbye"),
    live: note("live", "attempt"),
    ping: note("ping"),
    refresh: note("refresh"),
    remember: note("remember", "won"),
    error: note("error", "code"),
  };
  const machine = make({ endpoints, random: () => random[drawn++ % random.length]!, effects });
  return steps.map(({ at, in: input }) => {
    out = [];
    machine.step(at, input);
    return { at, in: input, out, state, wake: machine.wake < Infinity ? machine.wake : null };
  });
}

playScripts<Script>("transitions", play);

// A client of one transport does without a race.
const alone = ({ steps }: Script): boolean => steps.every(({ in: i }) => i.in !== "route" || i.transports.length === 1);
playScripts<Script>("transitions", (script) => play(script, createMachine), { titled: "without a race: %s", of: alone });
