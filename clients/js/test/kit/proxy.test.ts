import { expect, test } from "vitest";
import { FakeClock } from "../unit/fake.js";
import { eventually } from "./eventually.js";
import { gatewayForTest, proxyForTest } from "./device.js";
import type { Proxy } from "./proxy.js";
import { Raw } from "./raw.js";
import type { Gateway } from "./server.js";

interface Network {
  gateway: Gateway;
  proxy: Proxy;
  connect(device?: string): Raw;
  welcomed(device?: string): Promise<Raw>;
  /** Another device of alice, not behind the proxy. */
  beside(): Promise<Raw>;
}

async function network(): Promise<Network> {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  const connect = (device = "laptop", url = proxy.url): Raw => new Raw(url, gateway.mint("alice", device));
  const welcomed = async (device?: string, url?: string): Promise<Raw> => {
    const r = connect(device, url);
    await eventually(() => r.of("welcome").length, "the welcome", { seen: () => [r.frames, String(r.error)] });
    return r;
  };
  return { gateway, proxy, connect, welcomed, beside: () => welcomed("desktop", gateway.url) };
}

const to = { users: ["alice"] };

/** What an HTTP request without WebSocket gets. */
const plain = (proxy: Proxy): Promise<number> => fetch(`${proxy.url}/connect/poll`).then((r) => r.status);

test("pass: what the gateway sends arrives, and the upgrade is counted", async () => {
  const { gateway, proxy, welcomed } = await network();
  const alice = await welcomed();
  await gateway.send({ ...to, body: "hello" });
  await eventually(() => alice.of("message").length === 1, "the message");
  expect(proxy.counts).toMatchObject({ webSocket: 1, sse: 0, poll: 0 });
  expect(proxy.open).toBe(1);
});

test("cut: those that stand are reset, and new ones too, until it ends", async () => {
  const { proxy, connect, welcomed } = await network();
  const alice = await welcomed();
  proxy.mode = "cut";
  await eventually(() => alice.closed, "the cut");
  expect(alice.closed).toBe(1006);
  const again = connect();
  await eventually(() => again.closed, "the refusal");
  expect(again.of("welcome")).toEqual([]);
  proxy.mode = "pass";
  await welcomed();
});

test("blackhole: nothing passes, and all of it arrives when that ends", async () => {
  const { gateway, proxy, connect, welcomed, beside } = await network();
  const alice = await welcomed();
  proxy.mode = "blackhole";
  const phone = connect("phone");
  // What has gone all the way beside the proxy would have gone through it.
  const other = await beside();
  await gateway.stream(to, 20, []);
  await eventually(() => other.of("message").length === 20, "all have come beside it");
  expect([alice.of("message").length, phone.frames.length, phone.closed]).toEqual([0, 0, undefined]);
  proxy.mode = "pass";
  await eventually(() => alice.of("message").length === 20 && phone.of("welcome").length === 1, "everything arrives");
});

test("WebSockets that are refused or swallowed leave the rest alone", async () => {
  const { proxy, connect } = await network();
  proxy.webSockets = "refuse";
  const refused = connect();
  await eventually(() => refused.error, "the refusal");
  expect(String(refused.error)).toContain("502");
  expect(await plain(proxy)).toBe(401);
  proxy.webSockets = "swallow";
  const swallowed = connect();
  await eventually(() => proxy.counts.webSocket === 2, "the upgrade came");
  expect(await plain(proxy)).toBe(401);
  expect([swallowed.frames, swallowed.closed, swallowed.error]).toEqual([[], undefined, undefined]);
});

test("WebSockets are cut after a time, and after a number of bytes", async () => {
  const { gateway, proxy, connect } = await network();
  proxy.cutWebSocketAfter = 100;
  const brief = connect();
  await eventually(() => brief.closed, "the cut");
  expect([brief.closed, proxy.webSocketsCut]).toEqual([1006, 1]);
  proxy.cutWebSocketAfter = 0;
  proxy.cutWebSocketAfterBytes = 3000;
  await gateway.stream({ ...to, headers: { pad: "x".repeat(400) } }, 20, []);
  const alice = connect();
  await eventually(() => alice.closed, "the cut");
  expect([alice.closed, proxy.webSocketsCut]).toEqual([1006, 2]);
  const came = alice.of("message").length;
  expect(came).toBeGreaterThan(0);
  expect(came).toBeLessThan(20);
});

test("an event stream that is buffered shows its head and no event", async () => {
  const { gateway, proxy, beside } = await network();
  const open = async (device: string): Promise<ReadableStreamDefaultReader<Uint8Array>> => {
    const headers = { authorization: `Bearer ${gateway.mint("alice", device)}` };
    const r = await fetch(`${proxy.url}/connect/sse`, { headers });
    expect(r.status).toBe(200);
    return r.body!.getReader();
  };
  const live = await open("laptop");
  expect(Buffer.from((await live.read()).value!).toString()).toContain("event: welcome");
  await live.cancel();
  proxy.bufferStreams = true;
  const held = await open("phone");
  let came = false;
  const read = held.read().then(
    () => (came = true),
    () => {},
  );
  // The gateway has the session, and so has sent its welcome; messages come beside it, and a request behind them is answered.
  await eventually(async () => (await gateway.deviceInfo("alice", "phone"))?.session, "the session stands");
  const other = await beside();
  await gateway.stream(to, 5, []);
  await eventually(() => other.of("message").length === 5, "all have come beside it");
  expect(await plain(proxy)).toBe(401);
  expect(came).toBe(false);
  await held.cancel();
  await read;
});

test("a delay holds for both directions, and reorders nothing when it ends", async () => {
  const { gateway, proxy, connect } = await network();
  const clock = (proxy.clock = new FakeClock());
  proxy.delay = 150;
  const began = clock.now();
  const alice = connect();
  const later = async (come: () => boolean): Promise<boolean> => {
    await clock.pass(10);
    return come();
  };
  await eventually(() => later(() => alice.of("welcome").length > 0), "the welcome");
  // The upgrade and its answer, the connect and the welcome.
  expect(clock.now() - began).toBeGreaterThanOrEqual(600);
  // The clock stands: what is sent with the delay is on its way when that ends.
  await gateway.stream(to, 20, []);
  proxy.delay = 0;
  await gateway.stream(to, 20, [], { from: 20 });
  expect(alice.of("message")).toEqual([]);
  await eventually(() => later(() => alice.of("message").length === 40), "all came");
  expect(alice.of("message").map((m) => (m["body"] as { n: number }).n)).toEqual(Array.from({ length: 40 }, (_, n) => n));
});
