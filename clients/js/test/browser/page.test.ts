import { expect, test } from "vitest";
import { Chromium } from "../kit/browser.js";
import { acknowledged, away, gatewayForTest, proxyForTest } from "../kit/device.js";
import { eventually } from "../kit/eventually.js";

const alice = { user: "alice", device: "laptop" };
const to = { users: ["alice"] };

test("a page connects from another origin, and gets its messages once and in order", async () => {
  const gateway = await gatewayForTest();
  const chromium = await Chromium.forTest(gateway);
  const tab = await chromium.open();
  await tab.is("connected", "websocket");
  await gateway.stream(to, 100, [tab.ledger]);
  await tab.hasEverything();
  await acknowledged(gateway, alice);
});

test.each(["localStorage", "indexedDB"])("reloads in the middle of a stream, with %s", async (storage) => {
  const gateway = await gatewayForTest();
  const chromium = await Chromium.forTest(gateway);
  const tab = await chromium.open({ indexedDB: storage === "indexedDB" });
  await tab.is("connected");
  const sending = gateway.stream(to, 500, [tab.ledger], { gap: 3 });
  for (const reached of [60, 150, 240, 330]) {
    await tab.has(reached);
    await tab.page.reload();
  }
  await sending;
  // With IndexedDB a page that goes between handling a message and the end of its transaction gets that one again, and no other: one for each reload.
  const { twice, ...rest } = await tab.verdict();
  expect(rest).toEqual({ lost: [], strange: [], disordered: [] });
  expect(twice.length).toBeLessThanOrEqual(storage === "indexedDB" ? 4 : 0);
  await acknowledged(gateway, alice);
});

test("a page that is offline for a while gets everything when it is online", async () => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  const chromium = await Chromium.forTest(gateway);
  const tab = await chromium.open({ endpoint: proxy.url });
  await tab.is("connected");
  for (let round = 0; round < 3; round++) {
    await gateway.stream(to, 20, [tab.ledger]);
    await tab.hasEverything();
    // The browser says so, and cuts what is new; what is open is cut by the proxy.
    await chromium.context.setOffline(true);
    proxy.mode = "cut";
    await tab.is("offline");
    await gateway.stream(to, 20, [tab.ledger]);
    expect((await tab.read()).gotCount).toBe(round * 40 + 20);
    proxy.mode = "pass";
    await chromium.context.setOffline(false);
    await tab.is("connected");
    await tab.hasEverything();
  }
  expect(await tab.see((t) => t.states.filter((s) => s.state === "offline").length)).toBeGreaterThanOrEqual(3);
});

test("the gateway is killed and started again in the middle of a stream", async () => {
  const gateway = await gatewayForTest();
  const chromium = await Chromium.forTest(gateway);
  const tab = await chromium.open();
  await tab.is("connected");
  const sending = gateway.stream(to, 600, [tab.ledger]);
  for (const reached of [100, 250, 400]) {
    await tab.has(reached);
    await gateway.kill9();
    await gateway.start();
  }
  await sending;
  await tab.hasEverything();
  await acknowledged(gateway, alice);
});

test("behind a proxy that cuts WebSockets nothing is lost and nothing comes twice", async () => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  proxy.cutWebSocketAfter = 500;
  const chromium = await Chromium.forTest(gateway);
  const tab = await chromium.open({ endpoint: proxy.url });
  await tab.is("connected");
  await gateway.stream(to, 300, [tab.ledger], { gap: 15 });
  await tab.hasEverything();
  expect(proxy.webSocketsCut).toBeGreaterThan(2);
});

test.each([
  ["refused", "refuse", false, "sse"],
  ["swallowed", "swallow", false, "sse"],
  ["refused, and streams are buffered", "refuse", true, "longpoll"],
] as const)("where WebSockets are %s another transport carries it", async (_, webSockets, bufferStreams, transport) => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  Object.assign(proxy, { webSockets, bufferStreams });
  const chromium = await Chromium.forTest(gateway);
  const tab = await chromium.open({ endpoint: proxy.url });
  await tab.is("connected", transport);
  await gateway.stream(to, 100, [tab.ledger]);
  await tab.hasEverything();
  await acknowledged(gateway, alice);
  await tab.page.reload();
  await tab.is("connected", transport);
  await gateway.stream(to, 20, [tab.ledger]);
  await tab.hasEverything();
  expect(await tab.see((t) => t.kicks)).toEqual([]);
});

test("tokens that run out are renewed on the connection, again and again", async () => {
  const gateway = await gatewayForTest();
  // Six seconds left, and those 30 that clocks may differ gone.
  const chromium = await Chromium.forTest(gateway, { claims: { life: 6, age: 30 } });
  const tab = await chromium.open();
  await tab.is("connected");
  const sending = gateway.stream(to, 200, [tab.ledger], { gap: 80 });
  await eventually(async () => (await tab.see((t) => t.tokens.length)) >= 4, "three renewals", { within: 40_000, seen: () => tab.seen() });
  await sending;
  await tab.hasEverything();
  expect(await tab.see((t) => t.states.map((s) => s.state))).toEqual(["connecting", "connected"]);
  expect(await tab.see((t) => t.errors)).toEqual([]);
});

test("a page that is left and come back to goes on, whether it was kept or is loaded again", async () => {
  const gateway = await gatewayForTest();
  const chromium = await Chromium.forTest(gateway);
  const tab = await chromium.open();
  await tab.is("connected");
  let kept = 0;
  for (let round = 0; round < 3; round++) {
    await gateway.stream(to, 20, [tab.ledger]);
    await tab.hasEverything();
    await tab.page.goto(`${chromium.site.url}/elsewhere`);
    await away(gateway, "alice");
    await gateway.stream(to, 20, [tab.ledger]);
    await tab.back();
    await tab.is("connected", "websocket");
    await tab.hasEverything();
    if (await tab.see((t) => t.persisted)) kept++;
  }
  await tab.page.goto(`${chromium.site.url}/elsewhere`);
  await tab.back();
  await tab.forward();
  await gateway.stream(to, 20, [tab.ledger]);
  await tab.back();
  await tab.is("connected");
  await tab.hasEverything();
  await acknowledged(gateway, alice);
  // If this fails the browser keeps no such pages any more, and the test is of reloads alone.
  expect(kept).toBe(3);
});
