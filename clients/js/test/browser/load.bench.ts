// One client in Chromium under load: 5 000 messages a second, a million in all. Prints what it found; what has to hold is that all of them came, once, and
// that the page's memory does not grow with them. `CARILLON_BENCH_MESSAGES` and `CARILLON_BENCH_RATE` make it shorter or gentler.

import { expect, test } from "vitest";
import { QuietPage } from "../kit/browser.js";
import { acknowledged, gatewayForTest } from "../kit/device.js";
import { eventually, pause } from "../kit/eventually.js";

const MESSAGES = Number(process.env["CARILLON_BENCH_MESSAGES"] ?? 1_000_000);
const RATE = Number(process.env["CARILLON_BENCH_RATE"] ?? 5000);
/**
 * Messages in a request, and requests under way: one takes as long as the disk does. Together they stay below the thousand messages that the gateway keeps for
 * one user; what comes at once beyond that is told as a gap, and is no affair of the client's.
 */
const BATCH = 50;
const AT_A_TIME = 6;
/** The sender waits for a page that is further behind than so many messages. */
const BEHIND = 500;
/** What garbage that is collected a little later may make of it. */
const SLACK = 3 << 20;

const mb = (bytes: number): string => `${(bytes / (1 << 20)).toFixed(1)} MB`;

test(`${MESSAGES} messages at ${RATE} a second`, async () => {
  const gateway = await gatewayForTest(["--log-level=warn"]);
  const tab = await QuietPage.forTest(gateway, { note: false });
  const seen = (): Promise<unknown> => tab.see((t) => ({ states: t.states, errors: t.errors, gaps: t.gaps.slice(0, 5), count: t.count }));
  await eventually(async () => (await tab.see((t) => t.client.transport)) === "websocket", "the page is connected");

  const every = Math.min(100_000, MESSAGES / 10);
  const heaps: number[] = [];
  const longTasks: number[] = [];
  const look = async (): Promise<void> => {
    longTasks.push(...(await tab.see((t) => t.longTasks.splice(0))));
    heaps.push(await tab.heap());
    // The collection that was asked for is not the page's doing.
    await tab.see((t) => t.longTasks.splice(0));
  };
  await look();

  const began = performance.now();
  const underWay = new Set<Promise<unknown>>();
  let most = 0; // that had been accepted and not been handled
  for (let n = 0; n < MESSAGES; n += BATCH) {
    const due = began + (n / RATE) * 1000;
    // The sender's pace.
    if (due > performance.now()) await pause(due - performance.now());
    const batch = Math.min(BATCH, MESSAGES - n);
    const request = gateway.sendBatch(Array.from({ length: batch }, (_, i) => ({ users: ["alice"], body: { n: n + i, text: "Your parcel is on its way." } })));
    underWay.add(request);
    // One that fails ends the test where it is waited for.
    void request.then(() => underWay.delete(request), () => {});
    if (underWay.size >= AT_A_TIME) await Promise.race(underWay);
    if ((n / BATCH) % 4 === 0) {
      const behind = async (): Promise<number> => n + batch - (await tab.see((t) => t.count));
      const now = await behind();
      most = Math.max(most, now);
      // A machine that is busy with something else is not what is measured: it shows in the rate, instead of as a gap.
      if (now > BEHIND) await eventually(async () => (await behind()) < BEHIND, "the page is not far behind", { seen });
    }
    if (Math.floor((n + batch) / every) > Math.floor(n / every)) await look();
  }
  await Promise.all(underWay);
  const sent = performance.now();
  await eventually(async () => (await tab.see((t) => t.count + (t.gaps.length ? Infinity : 0))) >= MESSAGES, "all have come", { within: 30_000, seen });
  const came = performance.now();
  await acknowledged(gateway, { user: "alice", device: "laptop" });
  await look();

  const { count, sum, gaps, connects, errors } = await tab.see((t) => ({
    count: t.count,
    sum: t.sum,
    gaps: t.gaps,
    connects: t.states.filter((s) => s.state === "connected").length,
    errors: t.errors,
  }));
  longTasks.sort((a, b) => b - a);
  console.log(
    [
      `messages        ${count}, sent at ${Math.round((MESSAGES / (sent - began)) * 1000)} a second`,
      `behind at most  ${most} messages; the last one came ${Math.round(came - sent)} ms after the last answer`,
      `long tasks      ${longTasks.length} over 50 ms, the longest ${longTasks.slice(0, 5).map((ms) => `${Math.round(ms)} ms`)}`,
      `heap            ${heaps.map(mb).join(", ")}`,
      `connects        ${connects}; ${errors.length} errors ${errors.slice(0, 3)}`,
    ].join("\n"),
  );
  expect(gaps).toEqual([]);
  expect(count).toBe(MESSAGES);
  expect(sum).toBe((MESSAGES * (MESSAGES - 1)) / 2);
  // The first figure is of a page that has done nothing yet.
  expect(Math.max(...heaps.slice(2))).toBeLessThan(heaps[1]! + SLACK);
});
