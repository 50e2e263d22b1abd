import { expect, describe, test } from "vitest";
import { memoryStorage } from "../../src/index.js";
import { acknowledged, away, Device, gatewayForTest, transportNames } from "../kit/device.js";
import { eventually } from "../kit/eventually.js";

describe.each(transportNames)("over %s", (name) => {
  const over = [name];

  test("messages come in order and once, and are acknowledged", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    expect(alice.client.transport).toBe(name);

    await gateway.stream({ users: ["alice"] }, 100, [alice.ledger]);
    await alice.hasEverything();
    expect(alice.messages.map((m) => m.body)).toEqual(Array.from({ length: 100 }, (_, n) => ({ n })));
    await acknowledged(gateway, alice);
    expect(alice.connects).toBe(1);
    expect(alice.errors).toEqual([]);
  });

  test("what was sent before the first connect comes with it", async () => {
    const gateway = await gatewayForTest();
    const alice = new Device(gateway, { over });
    await gateway.stream({ users: ["alice"] }, 20, [alice.ledger]);
    await alice.connected();
    await alice.hasEverything();
    await acknowledged(gateway, alice);
  });

  test("messages to everyone come beside those to one user", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    const all = await gateway.send({ everyone: true, body: "to all" });
    const own = await gateway.send({ users: ["alice"], body: "to alice" });
    await gateway.send({ users: ["bob"], body: "to bob" });
    await eventually(() => alice.messages.length >= 2, "both come", { seen: () => alice.messages });
    // Between the two slots there is no order.
    expect(new Map(alice.messages.map((m) => [m.id, m.body]))).toEqual(
      new Map([
        [all, "to all"],
        [own, "to alice"],
      ]),
    );
    await acknowledged(gateway, alice);
  });

  test("a message comes whole: headers, ref, expiry, time, bytes, null and no bytes", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    const before = Date.now();
    const id = await gateway.send({
      users: ["alice"],
      body: { text: "Grüße 🔔\u2028", list: [1, 2.5, null] },
      headers: { channel: "news" },
      ref: "goal-4",
      collapse_key: "match-17",
      ttl_seconds: 600,
    });
    await gateway.send({ users: ["alice"], bytes: Uint8Array.from({ length: 256 }, (_, i) => i) });
    await gateway.send({ users: ["alice"], body: null });
    await gateway.send({ users: ["alice"], bytes: new Uint8Array() });
    await eventually(() => alice.messages.length === 4, "four messages", { seen: () => alice.messages });

    const [first, bytes, nothing, empty] = alice.messages;
    expect(first).toMatchObject({
      id,
      persistent: true,
      body: { text: "Grüße 🔔\u2028", list: [1, 2.5, null] },
      headers: { channel: "news" },
      ref: "goal-4",
      collapseKey: "match-17",
    });
    expect(first!.time.getTime()).toBeGreaterThan(before - 5000);
    expect(first!.expires!.getTime() - first!.time.getTime()).toBe(600_000);
    expect(bytes!.body).toEqual(Uint8Array.from({ length: 256 }, (_, i) => i));
    expect(nothing!.body).toBe(null);
    expect(empty!.body).toEqual(new Uint8Array());
  });

  test("a message that is not persistent comes to who is there, and to nobody later", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    const id = await gateway.send({ users: ["alice"], body: "now", persistent: false });
    await eventually(() => alice.messages.length, "it comes");
    expect(alice.messages[0]).toMatchObject({ id, persistent: false, body: "now" });

    alice.client.close();
    await away(gateway, "alice");
    await gateway.send({ users: ["alice"], body: "missed", persistent: false });
    const back = await new Device(gateway, { over, storage: alice.storage }).connected();
    await gateway.stream({ users: ["alice"] }, 1, [back.ledger]);
    await back.hasEverything();
  });

  test("kill -9 of the gateway in the middle of a stream loses nothing and repeats nothing", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    const sending = gateway.stream({ users: ["alice"] }, 400, [alice.ledger]);
    for (const reached of [80, 200]) {
      await eventually(() => alice.ledger.gotCount >= reached, `${reached} came`, { seen: () => String(alice.ledger) });
      await gateway.kill9();
      await gateway.start();
    }
    await sending;
    await alice.hasEverything();
    expect(alice.connects).toBeGreaterThan(1);
    await acknowledged(gateway, alice);
  });

  test("a gateway that stops with goodbyes is come back to", async () => {
    const gateway = await gatewayForTest(["--drain-spread=200ms"]);
    const alice = await new Device(gateway, { over }).connected();
    const sending = gateway.stream({ users: ["alice"] }, 200, [alice.ledger]);
    await eventually(() => alice.ledger.gotCount >= 50, "50 came");
    await gateway.shutDown();
    await gateway.start();
    await sending;
    await alice.hasEverything();
    expect(alice.connects).toBeGreaterThan(1);
    expect(alice.kicks).toEqual([]);
  });

  test("a later client with the same storage goes on where the one before was", async () => {
    const gateway = await gatewayForTest();
    const storage = memoryStorage();
    const first = await new Device(gateway, { over, storage }).connected();
    await gateway.stream({ users: ["alice"] }, 30, [first.ledger]);
    await first.hasEverything();
    first.client.close();

    await gateway.stream({ users: ["alice"] }, 30, [first.ledger], { from: 30 });
    const second = await new Device(gateway, { over, storage }, first.ledger).connected();
    await second.hasEverything();
    expect(second.messages.length).toBe(30);
    await acknowledged(gateway, second);
  });

  test("a client that dies between handling and acknowledging repeats nothing when its storage is there", async () => {
    const gateway = await gatewayForTest();
    const kept = new Map<string, string>();
    const storage = { get: (k: string) => kept.get(k), set: (k: string, v: string) => void kept.set(k, v) };
    const first = await new Device(gateway, { over, storage }).connected();
    await gateway.stream({ users: ["alice"] }, 10, [first.ledger]);
    await first.hasEverything();
    // What a process that is killed at this moment leaves, whatever the first client does after that.
    const left = new Map(kept);
    const second = new Device(gateway, { over, storage: { get: (k) => left.get(k), set: (k, v) => void left.set(k, v) } }, first.ledger);
    await second.connected();
    await gateway.stream({ users: ["alice"] }, 10, [first.ledger], { from: 10 });
    await second.hasEverything();
    expect(second.messages.map((m) => m.body)).toEqual(Array.from({ length: 10 }, (_, n) => ({ n: 10 + n })));
  });

  test("the handler's pace is kept: the next message begins when the one before is handled", async () => {
    const gateway = await gatewayForTest();
    let working = 0;
    let most = 0;
    const alice = await new Device(gateway, {
      over,
      handler: async () => {
        most = Math.max(most, ++working);
        await new Promise((done) => setImmediate(done));
        working--;
      },
    }).connected();
    await gateway.stream({ users: ["alice"] }, 50, [alice.ledger]);
    await alice.hasEverything();
    expect(most).toBe(1);
    await acknowledged(gateway, alice);
  });

  test("a message whose handler is at work is not acknowledged", async () => {
    const gateway = await gatewayForTest();
    let finish = (): void => {};
    const alice = await new Device(gateway, { over, handler: () => new Promise<void>((done) => (finish = done)) }).connected();
    await gateway.stream({ users: ["alice"] }, 2, [alice.ledger]);
    await eventually(() => alice.messages.length === 1, "the first is with its handler");
    expect(await gateway.lag("alice", "laptop")).toBe(2);
    finish();
    await eventually(() => alice.messages.length === 2, "the second is with its handler");
    await eventually(async () => (await gateway.lag("alice", "laptop")) === 1, "the first is acknowledged, and the second is not");
    finish();
    await alice.hasEverything();
    await acknowledged(gateway, alice);
  });
});
