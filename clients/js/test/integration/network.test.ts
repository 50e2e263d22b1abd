import { describe, expect, test } from "vitest";
import { JumpClock, stillClock } from "../kit/clock.js";
import { acknowledged, Device, gatewayForTest, proxyForTest, transportNames } from "../kit/device.js";
import { eventually } from "../kit/eventually.js";
import { freePort } from "../kit/server.js";

const all = transportNames;

test("the best transport wins where the network lets everything through", async () => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  const alice = await new Device(gateway, { endpoint: proxy.url, over: all }).connected();
  expect(alice.client.transport).toBe("websocket");
  expect(proxy.counts).toMatchObject({ webSocket: 1, sse: 0, poll: 0 });
});

test("where WebSockets are refused, an event stream wins at once", async () => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  proxy.webSockets = "refuse";
  // Without the 2.5 s that a transport which says nothing gets.
  const bob = await new Device(gateway, { endpoint: proxy.url, over: all, user: "bob", clock: stillClock }).connected();
  expect(bob.client.transport).toBe("sse");
  const alice = await new Device(gateway, { endpoint: proxy.url, over: all }).connected();
  await gateway.stream({ users: ["alice"] }, 50, [alice.ledger]);
  await alice.hasEverything();
  await acknowledged(gateway, alice);
});

test.each([
  ["where WebSockets are swallowed, an event stream wins beside them", "swallow", false, "sse"],
  ["where WebSockets are refused and streams buffered, long-poll wins", "refuse", true, "longpoll"],
  ["where WebSockets are swallowed and streams buffered, long-poll wins", "swallow", true, "longpoll"],
] as const)("%s", async (_, webSockets, bufferStreams, transport) => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  Object.assign(proxy, { webSockets, bufferStreams });
  const alice = new Device(gateway, { endpoint: proxy.url, over: all });
  await gateway.stream({ users: ["alice"] }, 20, [alice.ledger]);
  await alice.connected();
  expect(alice.client.transport).toBe(transport);
  await gateway.stream({ users: ["alice"] }, 20, [alice.ledger], { from: 20 });
  await alice.hasEverything();
  await acknowledged(gateway, alice);
  expect(alice.kicks).toEqual([]);
});

test("a later run begins with the transport that won", async () => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  proxy.webSockets = "swallow";
  const first = await new Device(gateway, { endpoint: proxy.url, over: all }).connected();
  first.client.close();
  const before = proxy.counts.webSocket;
  const second = await new Device(gateway, { endpoint: proxy.url, over: all, storage: first.storage, clock: stillClock }).connected();
  expect(second.client.transport).toBe("sse");
  expect(proxy.counts.webSocket).toBe(before);
});

test("a WebSocket that is cut after a while each time loses nothing and repeats nothing", async () => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  proxy.cutWebSocketAfter = 400;
  const alice = await new Device(gateway, { endpoint: proxy.url, over: all }).connected();
  await gateway.stream({ users: ["alice"] }, 200, [alice.ledger], { gap: 15 });
  await alice.hasEverything();
  expect(proxy.webSocketsCut).toBeGreaterThan(1);
  expect(alice.kicks).toEqual([]);
});

test("what won has its time, then the best transport is tried beside it: in vain, and the next time it takes over", async () => {
  // Nothing else is due when the clock is put forward: no signs of life, and no new token.
  const gateway = await gatewayForTest(["--heartbeat-interval=1h"]);
  const proxy = await proxyForTest(gateway);
  const clock = new JumpClock();
  proxy.webSockets = "refuse";
  const alice = await new Device(gateway, { endpoint: proxy.url, over: all, clock, claims: { life: 6 * 3600 } }).connected();
  expect(alice.client.transport).toBe("sse");
  const sending = gateway.stream({ users: ["alice"] }, 300, [alice.ledger], { gap: 3 });

  const tried = proxy.counts.webSocket;
  await eventually(() => alice.ledger.gotCount >= 50, "50 came");
  clock.jump(30 * 60_000);
  await eventually(() => proxy.counts.webSocket > tried, "the WebSocket is tried again");
  await eventually(() => alice.ledger.gotCount >= 100, "50 more came");
  expect(alice.trail).toBe("connecting connected");

  proxy.webSockets = "pass";
  clock.jump(30 * 60_000);
  await eventually(() => alice.client.transport === "websocket", "the WebSocket takes over", { seen: () => alice.trail });
  await sending;
  await alice.hasEverything();
  await acknowledged(gateway, alice);
  // Never away in between, as the application sees it, and nobody took its place.
  expect(alice.states.map((s) => [s.state, s.transport])).toEqual([
    ["connecting", undefined],
    ["connected", "sse"],
    ["connected", "websocket"],
  ]);
  expect(alice.kicks).toEqual([]);
});

test("a WebSocket that is cut in the middle of a frame loses nothing and repeats nothing", async () => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  // No multiple of a frame's length: the cuts fall anywhere in it.
  proxy.cutWebSocketAfterBytes = 5003;
  const alice = await new Device(gateway, { endpoint: proxy.url }).connected();
  await gateway.stream({ users: ["alice"] }, 150, [alice.ledger]);
  await alice.hasEverything();
  expect(proxy.webSocketsCut).toBeGreaterThan(2);
  expect(alice.kicks).toEqual([]);
  expect(alice.errorCodes.filter((c) => c === "protocol")).toEqual([]);
});

test("the first endpoint is dead, and the second one serves", async () => {
  const gateway = await gatewayForTest();
  const dead = `http://127.0.0.1:${await freePort()}`;
  const alice = await new Device(gateway, { endpoint: [dead, gateway.url], over: all }).connected();
  await gateway.stream({ users: ["alice"] }, 10, [alice.ledger]);
  await alice.hasEverything();
  expect(alice.errorCodes).toEqual(["unreachable"]);
  expect(alice.trail).toBe("connecting waiting connecting connected");
});

describe.each(transportNames)("over %s", (name) => {
  const over = [name];

  test("the endpoint that serves dies, and the other one takes over", async () => {
    const gateway = await gatewayForTest();
    const [first, second] = [await proxyForTest(gateway), await proxyForTest(gateway)];
    const alice = await new Device(gateway, { endpoint: [first.url, second.url], over }).connected();
    const sending = gateway.stream({ users: ["alice"] }, 200, [alice.ledger], { gap: 5 });
    await eventually(() => alice.ledger.gotCount >= 50, "50 came");
    first.mode = "cut";
    await sending;
    await alice.hasEverything();
    expect(alice.client.state).toBe("connected");
    expect(second.open).toBeGreaterThan(0);
  });

  test("connections that are reset in the middle of a stream lose nothing and repeat nothing", async () => {
    const gateway = await gatewayForTest();
    const proxy = await proxyForTest(gateway);
    const alice = await new Device(gateway, { endpoint: proxy.url, over }).connected();
    const sending = gateway.stream({ users: ["alice"] }, 300, [alice.ledger], { gap: 3 });
    for (const reached of [60, 120, 180]) {
      await eventually(() => alice.ledger.gotCount >= reached, `${reached} came`, { seen: () => String(alice.ledger) });
      const before = alice.connects;
      proxy.mode = "cut";
      await eventually(() => alice.client.state === "waiting", "the cut is noticed", { seen: () => alice.trail });
      proxy.mode = "pass";
      await eventually(() => alice.connects > before, "it is back", { seen: () => alice.trail });
    }
    await sending;
    await alice.hasEverything();
    await acknowledged(gateway, alice);
    expect(alice.kicks).toEqual([]);
  });

  test("a network that goes dark for a while and comes back loses nothing and repeats nothing", async () => {
    // Signs of life every second, so that the darkness is noticed within a test. Polls are held for 55 s whatever the heartbeat is: what was sent comes when
    // the network is back.
    const gateway = await gatewayForTest(["--heartbeat-interval=1s", "--heartbeat-grace=1s"]);
    const proxy = await proxyForTest(gateway);
    const alice = await new Device(gateway, { endpoint: proxy.url, over }).connected();
    await gateway.stream({ users: ["alice"] }, 20, [alice.ledger]);
    await alice.hasEverything();
    proxy.mode = "blackhole";
    await gateway.stream({ users: ["alice"] }, 20, [alice.ledger], { from: 20 });
    if (name !== "longpoll") {
      await eventually(() => alice.errorCodes.includes("silent"), "the silence is noticed", { seen: () => [alice.trail, alice.errorCodes] });
    }
    expect(alice.ledger.gotCount).toBe(20);
    proxy.mode = "pass";
    await alice.hasEverything();
    await acknowledged(gateway, alice);
    expect(alice.kicks).toEqual([]);
  });

  test("on a slow network nothing is lost and nothing comes twice", async () => {
    const gateway = await gatewayForTest();
    const proxy = await proxyForTest(gateway);
    proxy.delay = 200;
    const alice = await new Device(gateway, { endpoint: proxy.url, over }).connected();
    await gateway.stream({ users: ["alice"] }, 100, [alice.ledger]);
    await alice.hasEverything();
    await acknowledged(gateway, alice);
    expect(alice.trail).toBe("connecting connected");
  });

  test("a connection with nothing to say stays, by its heartbeats", async () => {
    const gateway = await gatewayForTest(["--heartbeat-interval=1s", "--heartbeat-grace=1s"]);
    const alice = await new Device(gateway, { over }).connected();
    const began = Date.now();
    // Three times what a silent one is given.
    await eventually(() => Date.now() - began > 6000, "six quiet seconds have passed");
    await gateway.stream({ users: ["alice"] }, 3, [alice.ledger]);
    await alice.hasEverything();
    expect(alice.trail).toBe("connecting connected");
  });
});
