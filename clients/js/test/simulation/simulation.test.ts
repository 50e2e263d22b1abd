// Whole clients in a world that is made up, over many seeds: what is promised holds whatever comes, and in whatever order. A run that fails names its seed; SEED=n runs that one, SEEDS=n more.
import { describe, expect, test } from "vitest";
import { settled } from "../unit/fake.js";
import { World, type Kind } from "./world.js";

/** Lives through what a seed brings, and then through better days. Returns what is wrong. */
async function live(kind: Kind, seed: number): Promise<string[]> {
  const w = new World(kind, seed);
  const { random, time } = w;
  const any = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!;
  w.load();
  for (let step = 0; step < 60; step++) {
    const what = random();
    const page = any(w.living);
    if (what < 0.3) w.send(1 + Math.floor(random() * (kind.storage ? 30 : 10)));
    else if (what < 0.36) w.cut(random() < 0.5);
    else if (what < 0.4) {
      w.network = !w.network;
      if (!w.network) w.cut(random() < 0.5);
    } else if (what < 0.44) {
      w.up = !w.up;
      if (!w.up) w.cut(false);
    } else if (what < 0.5) {
      w.kill(page);
      if (!w.living.length) w.load();
    } else if (what < 0.56 && w.living.length < kind.tabs) w.load();
    else if (what < 0.6) {
      if (page.frozen) w.thaw(page);
      else if (random() < 0.7) w.freeze(page);
      else w.hang(page);
    } else if (what < 0.68) w.show(page, page.hidden);
    else await time.pass(random() < 0.1 ? 40_000 : Math.floor(random() * random() * 4000));
    await settled();
  }
  w.network = w.up = true;
  for (const page of w.living) {
    if (page.frozen) w.thaw(page);
    w.show(page, true);
  }
  await time.pass(240_000);
  const before = w.sentLast;
  if (w.acked !== before) w.wrong.push(`acknowledged are ${w.acked} of ${before}`);
  w.send(5);
  await time.pass(120_000);

  for (const page of w.living) {
    const saw = new Set(page.handled);
    for (let pos = (page.everFrozen ? before : (page.from ?? before)) + 1; pos <= w.sentLast; pos++) if (!saw.has(pos) && !page.finished.has(pos)) w.wrong.push(`${page.name} has not handled ${pos}`);
  }
  for (const page of w.pages) {
    // Who takes the lead may not have come as far as another tab had when it was opened: that one is then told what came before it, too.
    const own = page.handed.filter((pos) => pos > (page.from ?? 0));
    if (!page.everFrozen && own.some((pos, i) => i > 0 && pos < own[i - 1]!)) w.wrong.push(`${page.name} was handed ${own} in that order`);
  }
  if (w.acked !== w.sentLast) w.wrong.push(`acknowledged are ${w.acked} of ${w.sentLast}`);
  if (kind.tabs === 1) {
    const all = w.pages.flatMap((p) => p.handled);
    const twice = all.length - new Set(all).size;
    // A page that dies while something is written sees that again, and no more.
    if (kind.storage !== "failing" && twice > (kind.storage ? w.pages.length - 1 : 0)) w.wrong.push(`${twice} were handled by one page and by another one, of ${w.pages.length}`);
    for (let pos = 11; pos <= w.sentLast; pos++) if (!all.includes(pos)) w.wrong.push(`nobody has handled ${pos}`);
  }
  return w.wrong;
}

const kinds: [string, Kind][] = [
  ["a page alone", { tabs: 1 }],
  ["a page alone, whose handlers fail, and several messages at a time", { tabs: 1, failing: true, concurrency: 3 }],
  ["a page alone, with a storage that takes its time", { tabs: 1, storage: "slow" }],
  ["a page alone, with a storage that fails", { tabs: 1, storage: "failing" }],
  ["tabs", { tabs: 3 }],
  ["tabs, with a storage that fails", { tabs: 3, storage: "failing" }],
];

describe.each(kinds)("%s", (_, kind) => {
  const one = process.env["SEED"];
  const seeds = one ? [Number(one)] : Array.from({ length: Number(process.env["SEEDS"] ?? 150) }, (_, i) => i + 1);
  test(`over ${seeds.length} seeds`, { timeout: 600_000 }, async () => {
    const wrong: unknown[] = [];
    for (const seed of seeds) {
      const found = await live(kind, seed);
      if (found.length) wrong.push([seed, ...found.slice(0, 3)]);
    }
    expect(wrong).toEqual([]);
  });
});
