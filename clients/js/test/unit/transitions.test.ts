import { readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { createMachine, type Effects, type Input } from "../../src/machine.js";
import { createRace } from "../../src/race.js";

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

const file = new URL("../../../../api/testdata/client/transitions.json", import.meta.url);
const scripts = JSON.parse(readFileSync(file, "utf8")) as Script[];
// `UPDATE_VECTORS=1 npx vitest run transitions` writes what this implementation does, for people to judge.
const update = process.env["UPDATE_VECTORS"] === "1";

/** Plays a script, and returns its steps with what came of each. */
function play({ endpoints, random, steps }: Script, make = createRace): Step[] {
  let drawn = 0;
  let out: unknown[] = [];
  const note =
    (...names: string[]) =>
    (...args: unknown[]): void => {
      const told = names.slice(1).flatMap((n, i) => (args[i] === undefined || args[i] === false ? [] : [[n, args[i]]]));
      out.push({ out: names[0], ...(Object.fromEntries(told) as object) });
    };
  const effects: Effects = {
    state: note("state", "state", "retry"),
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
    return { at, in: input, out, state: machine.state, wake: machine.wake < Infinity ? machine.wake : null };
  });
}

if (update) {
  const text = scripts.map((s) => {
    const { steps: _, ...head } = s;
    const lines = play(s).map((step) => `      ${JSON.stringify(step)}`);
    return `  {\n    ${JSON.stringify(head).slice(1, -1)},\n    "steps": [\n${lines.join(",\n")}\n    ]\n  }`;
  });
  writeFileSync(file, `[\n${text.join(",\n")}\n]\n`);
}

test.skipIf(update).each(scripts.map((s) => [s.name, s] as const))("%s", (_, script) => {
  expect(play(script)).toEqual(script.steps);
});

const alone = scripts.filter(({ steps }) => steps.every(({ in: i }) => i.in !== "route" || i.transports.length === 1));
test.skipIf(update).each(alone.map((s) => [s.name, s] as const))("without a race: %s", (_, script) => {
  expect(play(script, createMachine)).toEqual(script.steps);
});
