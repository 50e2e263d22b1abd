// What a page and its tabs are promised, in whatever browser: each browser's own tests begin with these.

import { expect, test } from "vitest";
import { acknowledged, away, gatewayForTest, proxyForTest } from "./device.js";
import { eventually } from "./eventually.js";
import type { Ledger } from "./ledger.js";
import type { Proxy } from "./proxy.js";
import type { Claims, Gateway } from "./server.js";
import type { PageConfig } from "./site.js";
import { roles, type AnyTab } from "./tab.js";

/** A browser profile at an application of a gateway. */
export interface AnyBrowser<Tab extends AnyTab = AnyTab> {
  readonly tabs: readonly Tab[];
  /** Opens a tab, which is in front then, and its page. */
  open(config?: Partial<PageConfig>): Promise<Tab>;
}

/** Starts one that ends with the test. */
export type Start<Tab extends AnyTab = AnyTab> = (gateway: Gateway, claims?: Claims) => Promise<AnyBrowser<Tab>>;

export const alice = { user: "alice", device: "laptop" };
export const to = { users: ["alice"] };

/** What one page is promised. `keeps`: the browser keeps pages that are left, and shows them again without loading them. */
export function promisesToPages(start: Start, { keeps = false } = {}): void {
  test("a page connects from another origin, and gets its messages once and in order", async () => {
    const gateway = await gatewayForTest();
    const tab = await (await start(gateway)).open();
    await tab.is("connected", "websocket");
    await gateway.stream(to, 300, [tab.ledger]);
    await tab.hasEverything();
    await acknowledged(gateway, alice);
  });

  test.each(["localStorage", "indexedDB"])("reloads in the middle of a stream, with %s", async (storage) => {
    const gateway = await gatewayForTest();
    const tab = await (await start(gateway)).open({ indexedDB: storage === "indexedDB" });
    await tab.is("connected");
    const sending = gateway.stream(to, 500, [tab.ledger], { gap: 4 });
    for (const reached of [60, 150, 240, 330]) {
      await tab.has(reached);
      await tab.reload();
    }
    await sending;
    // With IndexedDB a page that goes between handling a message and the end of its transaction gets that one again, and no other: one for each reload.
    const { twice, ...rest } = await tab.verdict();
    expect(rest).toEqual({ lost: [], strange: [], disordered: [] });
    expect(twice.length).toBeLessThanOrEqual(storage === "indexedDB" ? 4 : 0);
    await acknowledged(gateway, alice);
  });

  test("the gateway is killed and started again in the middle of a stream", async () => {
    const gateway = await gatewayForTest();
    const tab = await (await start(gateway)).open();
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
    const tab = await (await start(gateway)).open({ endpoint: proxy.url });
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
    const tab = await (await start(gateway)).open({ endpoint: proxy.url });
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

  test("tokens that run out are renewed on the connection, again and again", async () => {
    const gateway = await gatewayForTest();
    // Six seconds left, and those 30 that clocks may differ gone.
    const tab = await (await start(gateway, { life: 6, age: 30 })).open();
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
    const tab = await (await start(gateway)).open();
    await tab.is("connected");
    let kept = 0;
    for (let round = 0; round < 3; round++) {
      await gateway.stream(to, 20, [tab.ledger]);
      await tab.hasEverything();
      await tab.leave();
      await away(gateway, "alice");
      await gateway.stream(to, 20, [tab.ledger]);
      await tab.back();
      await tab.is("connected", "websocket");
      await tab.hasEverything();
      if (await tab.see((t) => t.persisted)) kept++;
    }
    await acknowledged(gateway, alice);
    // If this fails the browser keeps no such pages any more, and the test is of reloads alone.
    if (keeps) expect(kept).toBe(3);
  });
}

/** Three tabs over a proxy, one of which has the connection. */
export async function threeTabs<Tab extends AnyTab>(
  start: Start<Tab>,
): Promise<{ gateway: Gateway; proxy: Proxy; tabs: readonly Tab[]; ledgers: Ledger[]; leader: Tab; followers: Tab[] }> {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  const browser = await start(gateway);
  for (let i = 0; i < 3; i++) await (await browser.open({ endpoint: proxy.url })).is("connected", i ? "tab" : "websocket");
  const { tabs } = browser;
  return { gateway, proxy, tabs, ledgers: tabs.map((t) => t.ledger), ...(await roles(tabs)) };
}

/** Has the leading tab go in the middle of a stream: another one takes the lead, and these have everything. */
export async function leaderGoes<Tab extends AnyTab>(three: Awaited<ReturnType<typeof threeTabs<Tab>>>, go: (leader: Tab) => Promise<void>): Promise<void> {
  const { gateway, ledgers, leader, followers } = three;
  const sending = gateway.stream(to, 400, ledgers, { gap: 4 });
  await followers[0]!.has(100);
  await go(leader);
  await followers[0]!.has(300);
  await sending;
  for (const tab of followers) await tab.hasEverything();
  const { leader: next } = await roles(followers);
  await next.is("connected", "websocket");
  await acknowledged(gateway, alice);
}

/** Has the tabs go one after the other until one is left: that one has everything. */
export async function allGo<Tab extends AnyTab>(three: Awaited<ReturnType<typeof threeTabs<Tab>>>, go: readonly ((leader: Tab) => Promise<void>)[]): Promise<void> {
  const { gateway, ledgers } = three;
  const sending = gateway.stream(to, 500, ledgers, { gap: 4 });
  let tabs = [...three.tabs];
  for (const [i, how] of go.entries()) {
    const { leader, followers } = await roles(tabs);
    await followers[0]!.has(100 + 150 * i);
    await how(leader);
    tabs = followers;
    await eventually(async () => (await roles(tabs)).leader, "another one leads", { seen: () => Promise.all(tabs.map((t) => t.seen())) });
  }
  await sending;
  await tabs[0]!.hasEverything();
  await acknowledged(gateway, alice);
}

/** What the tabs of one browser are promised. */
export function promisesToTabs(start: Start): void {
  test("three tabs share one connection, and each gets each message once", async () => {
    const { gateway, proxy, tabs, ledgers } = await threeTabs(start);
    await gateway.stream(to, 200, ledgers);
    for (const tab of tabs) await tab.hasEverything();
    await acknowledged(gateway, alice);
    expect(proxy.counts).toEqual({ webSocket: 1, sse: 0, poll: 0, frames: 0 });
  });

  test.each([
    ["closes", (leader: AnyTab) => leader.close()],
    ["is reloaded", (leader: AnyTab) => leader.reload()],
  ])("the leading tab %s in the middle of a stream, and another one takes the lead", async (_, go) => {
    await leaderGoes(await threeTabs(start), go);
  });

  test("the leading tab is left in the middle of a stream, and follows when somebody comes back to it", async () => {
    const three = await threeTabs(start);
    await leaderGoes(three, (leader) => leader.leave());
    await three.leader.back();
    await three.leader.is("connected", "tab");
  });

  test("tabs close one after the other until one is left, and it has everything", async () => {
    const close = (leader: AnyTab): Promise<void> => leader.close();
    await allGo(await threeTabs(start), [close, close]);
  });

  test("the gateway is killed while three tabs share a connection", async () => {
    const { gateway, ledgers, tabs } = await threeTabs(start);
    const sending = gateway.stream(to, 400, ledgers);
    for (const reached of [100, 250]) {
      await tabs[2]!.has(reached);
      await gateway.kill9();
      await gateway.start();
    }
    await sending;
    for (const tab of tabs) await tab.hasEverything();
    await eventually(async () => (await roles(tabs)).leader, "one leads", { seen: () => Promise.all(tabs.map((t) => t.seen())) });
    await acknowledged(gateway, alice);
  });
}
