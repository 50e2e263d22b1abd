// The client without defaults: what it does without the parts that it was not given, and that each of them joins it.
import { expect, test } from "vitest";
import { createClient, displayed, fallback, memoryStorage, persistent, shared, type CoreOptions, type Happening, type TabMember, type TokenRequest } from "../../src/core.js";
import { cursor, FakeClock, FakeTransport, settled, tokenFor } from "./fake.js";

function made(more: Partial<CoreOptions> = {}) {
  const clock = new FakeClock();
  const transport = new FakeTransport();
  const asked: TokenRequest[] = [];
  const client = createClient({
    endpoint: "https://push.example.com",
    getToken: (r) => {
      asked.push(r);
      return tokenFor();
    },
    transports: [transport],
    clock,
    random: () => 0.5,
    ...more,
  });
  const got: string[] = [];
  client.on("message", (m) => void got.push(m.id));
  return { clock, transport, client, asked, got };
}

test("keeps its place in memory, and comes back there", async () => {
  const w = made();
  void w.client.connect();
  await settled();
  expect(w.asked[0]!.deviceId).toBe("");
  w.transport.last.welcome();
  w.transport.last.message(11, "1");
  await w.clock.pass(1000);
  expect(w.transport.last.acks).toEqual([cursor(11, 5)]);
  w.transport.last.end();
  await w.clock.pass(1000);
  expect(w.transport.peers).toHaveLength(2);
  expect(w.transport.last.request.connect.cursor).toBe(cursor(11, 5));
  w.transport.last.welcome();
  w.transport.last.message(11, "1");
  w.transport.last.message(12, "2");
  expect(w.got).toEqual(["1", "2"]);
});

test("with a storage another run goes on, under the same name", async () => {
  const storage = memoryStorage();
  const first = made({ place: persistent(storage) });
  void first.client.connect();
  await settled();
  first.transport.last.welcome();
  first.transport.last.message(11, "1");
  first.client.close();
  const second = made({ place: persistent(storage) });
  void second.client.connect();
  await settled();
  expect(second.asked[0]!.deviceId).toMatch(/^[a-z\d]{28}$/);
  expect(second.asked[0]!.deviceId).toBe(first.asked[0]!.deviceId);
  expect(second.transport.last.request.connect.cursor).toBe(cursor(11, 5));
});

test("with a place that tabs share it leads or follows, under the name and the identity", async () => {
  const tab = new FakeTransport("tab", { alive: "self", acknowledges: true });
  const joined: [string, TabMember][] = [];
  const left: string[] = [];
  const tabs = {
    available: true,
    join(name: string, member: TabMember) {
      joined.push([name, member]);
      member.follow(tab);
      return { frames: () => {}, down: () => {}, leave: () => void left.push(name) };
    },
  };
  const storage = memoryStorage();
  const w = made({ name: "shop", place: shared(persistent(storage), tabs) });
  void w.client.connect();
  await settled();
  tab.last.welcome();
  expect(w.client.transport).toBe("tab");
  tab.last.message(11, "1");
  expect(w.got).toEqual(["1"]);
  expect(joined.map(([name]) => name)).toEqual(['shop:["dev","alice","phone"]']);
  // One that follows keeps nothing.
  expect(await storage.get(joined[0]![0])).toBeFalsy();
  joined[0]![1].lead(true);
  await settled();
  expect(w.transport.last.request.connect.cursor).toBe(cursor(11, 5));
  w.transport.last.welcome();
  expect(await storage.get(joined[0]![0])).toBe(`${cursor(11, 5)} 1`);
  w.client.close();
  expect(left).toEqual([joined[0]![0]]);
});

test("where tabs cannot share, each has its own place", async () => {
  const place = persistent(memoryStorage());
  expect(shared(place, { available: false, join: () => expect.unreachable() })).toBe(place);
});

test("with a fallback the next transport is tried beside the first", async () => {
  const [one, two] = [new FakeTransport("websocket"), new FakeTransport("sse")];
  const w = made({ transports: fallback(one, two) });
  void w.client.connect();
  await w.clock.pass(2500);
  expect(two.peers).toHaveLength(1);
  two.last.welcome();
  expect(w.client.transport).toBe("sse");
  expect(one.last.left).toBe("abort");
});

test("an event that is the first, and said while there is no connection, waits for one", async () => {
  const w = made();
  void w.client.connect();
  await settled();
  w.transport.last.welcome();
  w.transport.last.end();
  displayed(w.client, "7");
  await w.clock.pass(1000);
  w.transport.last.welcome();
  expect(w.transport.last.sent).toMatchObject([{ type: "event", event: "displayed", id: "7" }]);
});

test("what is said goes over the connection that took the place of another", async () => {
  const as = { alive: "self", acknowledges: false } as const;
  const [one, two] = [new FakeTransport("websocket", as), new FakeTransport("sse", as)];
  const w = made({ transports: fallback(one, two) });
  void w.client.connect();
  await settled();
  one.last.end();
  two.last.welcome();
  displayed(w.client, "1");
  await w.clock.pass(30 * 60_000);
  one.last.welcome();
  expect(w.client.transport).toBe("websocket");
  displayed(w.client, "2");
  expect([two, one].map((t) => t.last.sent.flatMap((f) => (f.type === "event" ? [f.id] : [])))).toEqual([["1"], ["2"]]);
});

test("goes by its page while it runs", async () => {
  let tell: ((what: Happening) => void) | undefined;
  const w = made({
    page: (to) => {
      tell = to;
      return () => (tell = undefined);
    },
  });
  expect(tell).toBeUndefined();
  void w.client.connect();
  await settled();
  w.transport.last.welcome();
  tell!("visible");
  expect(w.transport.last.sent.at(-1)).toEqual({ type: "ping" });
  w.client.close();
  expect(tell).toBeUndefined();
});

test("several transports need a fallback, as types say", () => {
  // @ts-expect-error the second one would never be tried
  made({ transports: [new FakeTransport("websocket"), new FakeTransport("sse")] });
});
