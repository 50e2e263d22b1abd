// What the SDK promises, in browsers that are no Chromium. Of what only they can say: how their Web Locks, channels, storages and sockets behave.
import { describe, expect, test } from "vitest";
import { acknowledged, away, gatewayForTest, proxyForTest } from "../kit/device.js";
import { Engine, engines, type EngineTab } from "../kit/engines.js";
import { eventually } from "../kit/eventually.js";
import { roles } from "../kit/tab.js";

const alice = { user: "alice", device: "laptop" };
const to = { users: ["alice"] };

describe.each(engines)("in %s", (name) => {
  test("a page connects from another origin, and gets its messages once and in order", async () => {
    const gateway = await gatewayForTest();
    const tab = await (await Engine.forTest(name, gateway)).open();
    await tab.is("connected", "websocket");
    await gateway.stream(to, 300, [tab.ledger]);
    await tab.hasEverything();
    await acknowledged(gateway, alice);
  });

  test.each(["localStorage", "indexedDB"])("reloads in the middle of a stream, with %s", async (storage) => {
    const gateway = await gatewayForTest();
    const tab = await (await Engine.forTest(name, gateway)).open({ indexedDB: storage === "indexedDB" });
    await tab.is("connected");
    const sending = gateway.stream(to, 500, [tab.ledger], { gap: 4 });
    for (const reached of [60, 150, 240, 330]) {
      await tab.has(reached);
      await tab.reload();
    }
    await sending;
    const { twice, ...rest } = await tab.verdict();
    expect(rest).toEqual({ lost: [], strange: [], disordered: [] });
    expect(twice.length).toBeLessThanOrEqual(storage === "indexedDB" ? 4 : 0);
    await acknowledged(gateway, alice);
  });

  test("the gateway is killed and started again in the middle of a stream", async () => {
    const gateway = await gatewayForTest();
    const tab = await (await Engine.forTest(name, gateway)).open();
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

  test.each([
    ["refused", "refuse", false, "sse"],
    ["swallowed", "swallow", false, "sse"],
    ["refused, and streams are buffered", "refuse", true, "longpoll"],
  ] as const)("where WebSockets are %s another transport carries it", async (_, webSockets, bufferStreams, transport) => {
    const gateway = await gatewayForTest();
    const proxy = await proxyForTest(gateway);
    Object.assign(proxy, { webSockets, bufferStreams });
    const tab = await (await Engine.forTest(name, gateway)).open({ endpoint: proxy.url });
    await tab.is("connected", transport);
    await gateway.stream(to, 100, [tab.ledger]);
    await tab.hasEverything();
    await acknowledged(gateway, alice);
    await tab.reload();
    await tab.is("connected", transport);
    await gateway.stream(to, 20, [tab.ledger]);
    await tab.hasEverything();
    expect(await tab.see((t) => t.kicks)).toEqual([]);
  });

  test("a proxy cuts WebSockets, and nothing is lost or comes twice", async () => {
    const gateway = await gatewayForTest();
    const proxy = await proxyForTest(gateway);
    proxy.cutWebSocketAfter = 500;
    const tab = await (await Engine.forTest(name, gateway)).open({ endpoint: proxy.url });
    await tab.is("connected");
    await gateway.stream(to, 300, [tab.ledger], { gap: 15 });
    await tab.hasEverything();
    expect(proxy.webSocketsCut).toBeGreaterThan(2);
  });

  test("a token that runs out is renewed on the connection", async () => {
    const gateway = await gatewayForTest();
    const tab = await (await Engine.forTest(name, gateway, { life: 6, age: 30 })).open();
    await tab.is("connected");
    const sending = gateway.stream(to, 100, [tab.ledger], { gap: 80 });
    await eventually(async () => (await tab.see((t) => t.tokens.length)) >= 3, "two renewals", { within: 40_000, seen: () => tab.seen() });
    await sending;
    await tab.hasEverything();
    expect(await tab.see((t) => t.errors)).toEqual([]);
  });

  test("a page that is left and come back to goes on", async () => {
    const gateway = await gatewayForTest();
    const tab = await (await Engine.forTest(name, gateway)).open();
    await tab.is("connected");
    for (let round = 0; round < 3; round++) {
      await gateway.stream(to, 20, [tab.ledger]);
      await tab.hasEverything();
      await tab.leave();
      await away(gateway, "alice");
      await gateway.stream(to, 20, [tab.ledger]);
      await tab.back();
      await tab.is("connected", "websocket");
      await tab.hasEverything();
    }
    console.log(`${name} kept the page: ${await tab.see((t) => t.persisted)}`);
    await acknowledged(gateway, alice);
  });

  describe("three tabs", () => {
    async function threeTabs() {
      const gateway = await gatewayForTest();
      const proxy = await proxyForTest(gateway);
      const engine = await Engine.forTest(name, gateway);
      for (let i = 0; i < 3; i++) await (await engine.open({ endpoint: proxy.url })).is("connected", i ? "tab" : "websocket");
      return { gateway, proxy, tabs: engine.tabs, ledgers: engine.tabs.map((t) => t.ledger), ...(await roles(engine.tabs)) };
    }

    test("share one connection, and each gets each message once", async () => {
      const { gateway, proxy, tabs, ledgers } = await threeTabs();
      await gateway.stream(to, 200, ledgers);
      for (const tab of tabs) await tab.hasEverything();
      await acknowledged(gateway, alice);
      expect(proxy.counts).toEqual({ webSocket: 1, sse: 0, poll: 0, frames: 0 });
    });

    test.each(["closes", "is reloaded", "is left"])("the leading tab %s in the middle of a stream, and another one takes the lead", async (how) => {
      const { gateway, ledgers, leader, followers } = await threeTabs();
      const sending = gateway.stream(to, 400, ledgers, { gap: 4 });
      await followers[0]!.has(100);
      if (how === "closes") await leader.close();
      else if (how === "is reloaded") await leader.reload();
      else await leader.leave();
      await followers[0]!.has(300);
      await sending;
      for (const tab of followers) await tab.hasEverything();
      const { leader: next } = await roles(followers);
      await next.is("connected", "websocket");
      await acknowledged(gateway, alice);
      if (how === "is left") {
        await leader.back();
        await leader.is("connected", "tab");
      }
    });

    test("close one after the other until one is left, and it has everything", async () => {
      const { gateway, ledgers, tabs: all } = await threeTabs();
      const sending = gateway.stream(to, 500, ledgers, { gap: 4 });
      let tabs: EngineTab[] = [...all];
      for (const reached of [100, 250]) {
        const { leader, followers } = await roles(tabs);
        await followers[0]!.has(reached);
        await leader.close();
        tabs = followers;
        await eventually(async () => (await roles(tabs)).leader, "another one leads", { seen: () => Promise.all(tabs.map((t) => t.seen())) });
      }
      await sending;
      await tabs[0]!.hasEverything();
      await acknowledged(gateway, alice);
    });

    test("live on while the gateway is killed", async () => {
      const { gateway, ledgers, tabs } = await threeTabs();
      const sending = gateway.stream(to, 400, ledgers);
      for (const reached of [100, 250]) {
        await tabs[2]!.has(reached);
        await gateway.kill9();
        await gateway.start();
      }
      await sending;
      for (const tab of tabs) await tab.hasEverything();
      await acknowledged(gateway, alice);
    });
  });
});
