// The scripts in api/testdata/client, which every SDK plays: steps, each with what comes of it.
import { readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";

/**
 * Makes a test of each script in a file there: played, its steps are what stands there. With `UPDATE_VECTORS=1` there are no tests, and what this
 * implementation does is written there instead, for people to judge. `of` says which scripts; those that are not all are played, and never written.
 */
export function playScripts<Script extends { name: string; steps: unknown[] }>(
  name: string,
  play: (script: Script) => Script["steps"],
  { titled = "%s", of }: { titled?: string; of?: (script: Script) => boolean } = {},
): void {
  const file = new URL(`../../../../api/testdata/client/${name}.json`, import.meta.url);
  const scripts = JSON.parse(readFileSync(file, "utf8")) as Script[];
  const update = process.env["UPDATE_VECTORS"] === "1";
  if (update && !of) {
    const text = scripts.map((s) => {
      const { steps: _, ...head } = s;
      const lines = play(s).map((step) => `      ${JSON.stringify(step)}`);
      return `  {\n    ${JSON.stringify(head).slice(1, -1)},\n    "steps": [\n${lines.join(",\n")}\n    ]\n  }`;
    });
    writeFileSync(file, `[\n${text.join(",\n")}\n]\n`);
  }
  const chosen = of ? scripts.filter(of) : scripts;
  test.skipIf(update).each(chosen.map((s) => [s.name, s] as const))(titled, (_, script) => {
    expect(play(script)).toEqual(script.steps);
  });
}
