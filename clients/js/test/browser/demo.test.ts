// The demo page in a browser, as a gateway in development serves it.

import axe from "axe-core";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { launch, noteComplaints } from "../kit/browser.js";
import { Gateway } from "../kit/server.js";

type Side = "left" | "right";

let gateway: Gateway;
let browser: Browser;
let context: BrowserContext;
/** What the browser complained of: nothing, not even about the policy. */
let complaints: string[] = [];
/** Each test has users of its own. */
let number = 0;
let alice = "";
let bob = "";

beforeAll(async () => {
  gateway = await Gateway.start();
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  await gateway?.stop();
});

beforeEach(async () => {
  number++;
  [alice, bob] = [`alice-${number}`, `bob-${number}`];
  complaints = [];
  context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
});

afterEach(async () => {
  await context.close();
  expect(complaints).toEqual([]);
});

async function open(query: string): Promise<Page> {
  const page = await context.newPage();
  noteComplaints(page, complaints);
  await page.goto(`${gateway.url}/demo/?${query}`);
  return page;
}

async function reads(page: Page, testid: string, want: string | RegExp): Promise<void> {
  await page.getByTestId(testid).filter({ hasText: typeof want === "string" ? new RegExp(`^${want}$`) : want }).waitFor({ timeout: 40_000 });
}

async function connect(page: Page, side: Side): Promise<void> {
  await page.getByTestId(`${side}-connect`).click();
  await reads(page, `${side}-state`, "connected");
}

async function sendMany(page: Page): Promise<void> {
  await page.getByTestId("send-many").click();
  await reads(page, "send-outcome", /^All 100 stored/);
}

const numbers = (page: Page, side: Side): Promise<number[]> => page.evaluate((s) => window.demo![s]!.bodies.map((b) => (b as { n: number }).n), side);
const hundred = Array.from({ length: 100 }, (_, i) => i + 1);

for (const [transport, name] of [["websocket", "WebSocket"], ["sse", "SSE"], ["longpoll", "Long-poll"]] as const) {
  test(`over ${name}, what is sent while the network is cut comes once and in order`, async () => {
    const page = await open(`left=${alice}/laptop&right=${alice}/phone&transport=${transport}`);
    await connect(page, "left");
    await connect(page, "right");
    await reads(page, "left-transport", name);
    await page.getByTestId("left-cut").click();
    await reads(page, "left-state", "waiting");
    await sendMany(page);
    await reads(page, "right-received", "100");
    await reads(page, "left-received", "0");
    expect(await page.getByTestId("left-cut").getAttribute("aria-pressed")).toBe("true");
    await page.getByTestId("left-cut").click();
    await reads(page, "left-received", "100"); // it comes back by itself
    // Once more, with the cut in the middle.
    await page.getByTestId("send-many").click();
    await reads(page, "left-received", /^1[2-9]\d$/);
    await page.evaluate(() => window.demo!.left!.setCut(true));
    await reads(page, "send-outcome", /^All 100 stored/);
    await page.evaluate(() => window.demo!.left!.setCut(false));
    await reads(page, "left-received", "200");
    await reads(page, "right-received", "200");
    for (const side of ["left", "right"] as const) {
      expect(await numbers(page, side)).toEqual([...hundred, ...hundred]);
      expect(await page.evaluate((s) => window.demo![s]!.counts, side)).toEqual({ received: 200, repeats: 0, gaps: 0, recalls: 0 });
    }
  });
}

test("another transport goes on where the one before was", async () => {
  const page = await open(`left=${alice}/laptop&single=1`);
  await connect(page, "left");
  for (const [use, name] of [["sse", "SSE"], ["longpoll", "Long-poll"], ["auto", "WebSocket"]] as const) {
    await page.getByTestId(`left-use-${use}`).check();
    await page.getByTestId("send").click();
    await reads(page, "left-transport", name);
  }
  await reads(page, "left-received", "3");
  await reads(page, "left-repeats", "0");
  expect(await page.evaluate(() => window.demo!.right)).toBeUndefined();
});

test("a message is shown, seen, clicked and recalled", async () => {
  const page = await open(`left=${alice}/laptop&single=1`);
  await reads(page, "left-messages-empty", /^Not connected/);
  await connect(page, "left");
  await page.getByTestId("send-body").fill('{"markup":"<b>bold</b>"}');
  await page.getByTestId("send").click();
  await reads(page, "message-body", /^\{"markup":"<b>bold<\/b>"\}$/);
  await page.getByTestId("message-displayed").click();
  await page.getByTestId("message-clicked").click();
  await page.getByTestId("recall-last").click();
  await page.getByTestId("message-recalled").waitFor();
  await reads(page, "left-recalls", "1");
  await page.getByTestId("send-persistent").uncheck();
  await page.getByTestId("send").click();
  await reads(page, "left-received", "2");
  expect(await page.getByTestId("message-kind").allTextContents()).toEqual(["online only", "persistent"]);
  await page.getByTestId("send-body").fill("{");
  await reads(page, "send-problem", /^No JSON/);
  expect(await page.getByTestId("send").isDisabled()).toBe(true);
});

test("a tag is joined, sent to, and left", async () => {
  const page = await open(`left=${alice}/laptop&right=${bob}/phone`);
  await connect(page, "left");
  await connect(page, "right");
  await page.getByTestId("right-tag").click();
  await reads(page, "right-tags", "news.sport");
  await page.getByTestId("send-to-tag").check();
  await page.getByTestId("send").click();
  await reads(page, "right-received", "1");
  await page.getByTestId("right-tag").click();
  await reads(page, "right-tags", "none");
  await reads(page, "left-received", "0");
});

test("a device that is kicked has failed, says why, and comes back when it is asked to", async () => {
  const page = await open(`left=${alice}/laptop&single=1`);
  await connect(page, "left");
  await page.getByTestId("left-kick").click();
  await reads(page, "left-state", "failed");
  await reads(page, "left-note", /\(kicked\)/);
  await connect(page, "left");
  await page.getByTestId("left-close").click();
  await reads(page, "left-state", "closed");
  expect(await page.evaluate(() => window.demo!.left!.states)).toEqual(["connecting", "connected", "failed", "connecting", "connected", "closed"]);
});

test("tokens that live for seconds are renewed", async () => {
  const page = await open(`left=${alice}/laptop&single=1&life=4`);
  await connect(page, "left");
  await reads(page, "left-token-expiry", "0:0[0-3]");
  // The gateway takes a token for half a minute longer than it says, as clocks differ, and the client knows.
  await page.waitForRequest(`${gateway.url}/demo/token`, { timeout: 40_000 });
  await page.getByTestId("send").click();
  await reads(page, "left-received", "1");
  await reads(page, "left-state", "connected");
});

test("tabs share a device's connection, or take it from each other", async () => {
  const shared = `left=${alice}/laptop&single=1&tabs=1`;
  const one = await open(shared);
  await connect(one, "left");
  const two = await open(shared);
  await connect(two, "left");
  await reads(two, "left-transport", "another tab");
  await one.getByTestId("send").click();
  await reads(one, "left-received", "1");
  await reads(two, "left-received", "1");

  const apart = `left=${bob}/laptop&single=1`;
  const three = await open(apart);
  await connect(three, "left");
  const four = await open(apart);
  await connect(four, "left");
  await reads(three, "left-state", "suspended");
});

test.each(["light", "dark"] as const)("axe has nothing to say about it, in %s", async (colorScheme) => {
  const lab = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme, bypassCSP: true, reducedMotion: "reduce" });
  const page = await lab.newPage();
  await page.goto(`${gateway.url}/demo/?left=${alice}/laptop&right=${bob}/phone`);
  await connect(page, "left");
  await page.getByTestId("send").click();
  await page.getByTestId("left-messages").getByTestId("message").first().waitFor();
  await page.getByTestId("left-log-toggle").click();
  await page.addScriptTag({ content: axe.source });
  const found = await page.evaluate(async () => (await (window as any).axe.run()).violations.map((v: any) => `${v.id}: ${v.nodes.map((n: any) => n.html).join(" ")}`));
  expect(found).toEqual([]);
  await lab.close();
});
