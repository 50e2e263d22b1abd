import { expect, test } from "vitest";
import { Chromium, type Tab } from "../kit/browser.js";
import { acknowledged, gatewayForTest, proxyForTest } from "../kit/device.js";
import { eventually } from "../kit/eventually.js";
import type { Gateway } from "../kit/server.js";
import { alice, allGo, leaderGoes, promisesToTabs, threeTabs, to, type Start } from "../kit/suites.js";
import { roles } from "../kit/tab.js";

const start: Start<Tab> = (gateway) => Chromium.forTest(gateway);

promisesToTabs(start);

test("the leading tab crashes in the middle of a stream, and another one takes the lead", async () => {
  await leaderGoes(await threeTabs(start), (leader) => leader.crash());
});

test("the leading tab freezes in the middle of a stream, another one takes the lead, and it follows when it thaws", async () => {
  const three = await threeTabs(start);
  const { gateway, ledgers, leader, followers } = three;
  await leaderGoes(three, () => leader.freeze());
  expect(await leader.state()).toBe("suspended");
  await leader.thaw();
  await leader.is("connected", "tab");
  // What came meanwhile was handled by the other tabs, and acknowledged: this one is told what comes now.
  const fromNow = (await leader.read()).gotCount;
  await gateway.stream(to, 50, ledgers, { from: 400 });
  await leader.has(fromNow + 50);
  expect((await leader.read()).verdict()).toMatchObject({ twice: [], disordered: [], strange: [] });
  for (const tab of followers) await tab.hasEverything();
  await roles([leader, ...followers]);
});

/**
 * Nothing orders what a tab said on a channel and the lock that it held: they take different ways through the browser, and a tab that is busy hears late. Here
 * each tab hears later than a lock is given on, also where the browser takes its time to notice that a process has died.
 */
function hearLate(): void {
  const set = Object.getOwnPropertyDescriptor(BroadcastChannel.prototype, "onmessage")!;
  Object.defineProperty(BroadcastChannel.prototype, "onmessage", {
    ...set,
    set(this: BroadcastChannel, f: (e: MessageEvent) => void) {
      set.set!.call(this, (e: MessageEvent) => setTimeout(() => f.call(this, e), 500));
    },
  });
}

test.each([
  ["closes", (leader: Tab) => leader.close()],
  ["crashes", (leader: Tab) => leader.crash()],
])("the leading tab %s, and what it had said before that is heard late", async (_, go) => {
  const { gateway, leader, followers, ledgers } = await threeTabs((gateway) => Chromium.forTest(gateway, { init: hearLate }));
  const sending = gateway.stream(to, 500, ledgers, { gap: 3 });
  await followers[0]!.has(100);
  await go(leader);
  await sending;
  for (const tab of followers) await tab.hasEverything(15_000);
  await acknowledged(gateway, alice);
});

test("tabs die one after the other until one is left, and it has everything", async () => {
  await allGo(await threeTabs(start), [(leader) => leader.crash(), (leader) => leader.close()]);
});

test("the leading tab hangs without an event, and another one takes the lead from it", async () => {
  const { gateway, leader, followers, ledgers } = await threeTabs(start);
  await gateway.stream(to, 20, ledgers);
  for (const tab of [leader, ...followers]) await tab.hasEverything();

  // As if its script were in a loop without an end: nothing of the page runs any more.
  const cdp = await leader.cdp();
  await cdp.send("Debugger.enable");
  await cdp.send("Debugger.pause");
  const hung = leader.page.evaluate(() => 0).catch(() => {});
  await gateway.stream(to, 20, ledgers, { from: 20 });
  // It is asked after 15 s of silence, and given 10 s.
  for (const tab of followers) await tab.hasEverything(50_000);
  const { leader: next } = await roles(followers);
  expect(await next.transport()).toBe("websocket");

  await cdp.send("Debugger.resume");
  await hung;
  await leader.is("connected", "tab");
  await gateway.stream(to, 20, ledgers, { from: 40 });
  await leader.hasEverything();
  for (const tab of followers) await tab.hasEverything();
}, 90_000);

/** Two tabs of a browser that has no Web Locks, the second one in front, and the proxy that counts how often they connect. */
async function twoWithoutLocks(): Promise<{ gateway: Gateway; first: Tab; second: Tab; connects: () => number }> {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  const chromium = await Chromium.forTest(gateway, { init: () => Object.defineProperty(navigator, "locks", { value: undefined }) });
  const first = await chromium.open({ endpoint: proxy.url });
  await first.is("connected", "websocket");
  const second = await chromium.open({ endpoint: proxy.url }, first.ledger);
  await second.is("connected", "websocket");
  await first.is("suspended");
  return { gateway, first, second, connects: () => proxy.counts.webSocket + proxy.counts.sse + proxy.counts.poll };
}

test("without Web Locks two tabs do not fight: the one that was replaced stays away", async () => {
  const { gateway, first, second, connects } = await twoWithoutLocks();
  await gateway.stream(to, 300, [second.ledger], { gap: 10 });
  await second.hasEverything();
  expect(await first.see((t) => t.count)).toBe(0);
  expect(await first.state()).toBe("suspended");
  expect(connects()).toBe(2);
});

test("without Web Locks the tab that somebody looks at has the connection", async () => {
  const { gateway, first, second, connects } = await twoWithoutLocks();
  await gateway.stream(to, 20, [second.ledger]);
  await second.hasEverything();
  let [shown, hidden] = [first, second];
  for (let round = 0; round < 4; round++) {
    await shown.look();
    await shown.is("connected", "websocket");
    await hidden.is("suspended");
    const before = await shown.see((t) => t.count);
    await gateway.send({ users: ["alice"], body: round });
    await eventually(async () => (await shown.see((t) => t.count)) > before, "the tab that is shown gets messages", { seen: () => shown.seen() });
    expect(connects()).toBe(3 + round);
    [shown, hidden] = [hidden, shown];
  }
});

test("another browser profile is another device, and gets everything too", async () => {
  const gateway = await gatewayForTest();
  const one = await (await Chromium.forTest(gateway)).open({ device: "laptop" });
  const two = await (await Chromium.forTest(gateway)).open({ device: "desktop" });
  await Promise.all([one.is("connected"), two.is("connected")]);
  await gateway.stream(to, 50, [one.ledger, two.ledger]);
  await one.hasEverything();
  await two.hasEverything();
});
