import { describe, expect, test } from "vitest";
import type { Message } from "../../src/index.js";
import { acknowledged, away, Device, gatewayForTest, transportNames } from "../kit/device.js";
import { eventually } from "../kit/eventually.js";

describe.each(transportNames)("over %s", (name) => {
  const over = [name];

  test("a recall is told, with whether the message was handed out", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    const id = await gateway.send({ users: ["alice"], body: "a mistake" });
    await eventually(() => alice.messages.length === 1, "the message comes");
    await gateway.recall(id);
    await eventually(() => alice.recalls.length === 1, "the recall comes");
    expect(alice.recalls).toMatchObject([{ id, handed: true }]);
    await acknowledged(gateway, alice);
  });

  test("a message that was recalled while the device was away is not handed out", async () => {
    const gateway = await gatewayForTest();
    const alice = new Device(gateway, { over });
    const id = await gateway.send({ users: ["alice"], body: "a mistake" });
    await gateway.recall(id);
    await gateway.stream({ users: ["alice"] }, 3, [alice.ledger]);
    await alice.connected();
    await alice.hasEverything();
  });

  test("a message that waits in the client when it is recalled is not handed out", async () => {
    // Polls bring the next messages when those before are handled: there nothing waits in the client, and nothing can be recalled in it.
    const gateway = await gatewayForTest();
    let finish = (): void => {};
    const alice = await new Device(gateway, { over, handler: () => new Promise<void>((done) => (finish = done)) }).connected();
    await gateway.stream({ users: ["alice"] }, 1, [alice.ledger]);
    await eventually(() => alice.messages.length === 1, "the first is with its handler");
    const id = await gateway.send({ users: ["alice"], body: "a mistake" });
    await gateway.recall(id);
    if (name !== "longpoll") {
      await eventually(() => alice.recalls.length === 1, "the recall comes");
      expect(alice.recalls).toMatchObject([{ id, handed: false }]);
    }
    finish();
    await acknowledged(gateway, alice);
    await alice.hasEverything();
  });

  test("tags are joined, left and listed, and messages to them come", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over, claims: { tagPatterns: ["news.*", "beta"] } }).connected();
    const { tags } = alice.client;
    expect(await tags.list()).toEqual([]);
    expect(await tags.join("news.sport", "beta")).toEqual(["beta", "news.sport"]);
    expect((await gateway.deviceInfo("alice", "laptop"))!.joined).toEqual(["beta", "news.sport"]);
    await gateway.stream({ tags: { all: ["news.sport"] } }, 1, [alice.ledger]);
    await alice.hasEverything();

    await expect(tags.join("vip")).rejects.toMatchObject({ code: "tag_not_permitted" });
    expect(await tags.leave("news.sport")).toEqual(["beta"]);
    await gateway.send({ tags: { all: ["news.sport"] }, body: "for others" });
    await gateway.stream({ tags: { all: ["beta"] } }, 1, [alice.ledger]);
    await alice.hasEverything();
    // Several at once are answered each with its own.
    expect(await Promise.all([tags.join("news.a"), tags.join("news.b"), tags.leave("beta"), tags.list()])).toEqual([
      ["beta", "news.a"],
      ["beta", "news.a", "news.b"],
      ["news.a", "news.b"],
      ["news.a", "news.b"],
    ]);
  });

  test("a change of tags that was asked for while the gateway was dead is answered when it is back", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over, claims: { tagPatterns: ["news.*"] } }).connected();
    await gateway.kill9();
    await eventually(() => alice.client.state !== "connected", "the connection is lost", { seen: () => alice.trail });
    const joined = alice.client.tags.join("news.sport");
    await gateway.start();
    expect(await joined).toEqual(["news.sport"]);
    expect((await gateway.deviceInfo("alice", "laptop"))!.joined).toEqual(["news.sport"]);
  });

  test("what people saw and clicked is counted", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    await gateway.stream({ users: ["alice"] }, 3, [alice.ledger]);
    await alice.hasEverything();
    for (const m of alice.messages) alice.client.displayed(m);
    alice.client.clicked(alice.messages[0]!.id);
    const count = (event: string): Promise<number> => gateway.metric("carillon_room_events_total", `event="${event}"`);
    await eventually(async () => (await count("displayed")) >= 3 && (await count("clicked")) >= 1, "the gateway has counted", {
      seen: async () => [await count("displayed"), await count("clicked")],
    });
    expect([await count("displayed"), await count("clicked")]).toEqual([3, 1]);
  });

  test("with manual acknowledgement nothing counts as handled before it is said, in whatever order", async () => {
    const gateway = await gatewayForTest();
    const alice = new Device(gateway, { over, acknowledge: "manual", concurrency: 10 });
    // Before the connect: a poll brings them all in one answer.
    await gateway.stream({ users: ["alice"] }, 4, [alice.ledger]);
    await alice.connected();
    await eventually(() => alice.messages.length === 4, "four are handed out");
    const [a, b, c, d] = alice.messages as [Message, Message, Message, Message];
    alice.client.acknowledge(d);
    alice.client.acknowledge(b.id);
    expect(await gateway.lag("alice", "laptop")).toBe(4);
    alice.client.acknowledge(a);
    // The fourth is handled and not covered, as the third is between. A poll says nothing before all of its answer is handled.
    if (name !== "longpoll") {
      await eventually(async () => (await gateway.lag("alice", "laptop")) === 2, "two are acknowledged", { seen: () => gateway.userInfo("alice") });
    }

    // What a later run finds: the third again, and not the others.
    alice.client.close();
    const later = await new Device(gateway, { over, storage: alice.storage }).connected();
    await eventually(() => later.messages.length, "one comes again");
    await acknowledged(gateway, later);
    expect(later.messages.map((m) => m.id)).toEqual([c.id]);
  });

  test("a loop over messages handles each when it asks for the next, and ends with close", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over, handler: null }).connected();
    await gateway.stream({ users: ["alice"] }, 30, [alice.ledger]);
    for await (const m of alice.client.messages()) {
      alice.ledger.got(m.id);
      if (alice.ledger.complete) break;
    }
    await alice.hasEverything();
    await acknowledged(gateway, alice);

    const rest = (async () => {
      for await (const m of alice.client.messages()) alice.ledger.got(m.id);
    })();
    await gateway.stream({ users: ["alice"] }, 3, [alice.ledger], { from: 30 });
    await alice.hasEverything();
    alice.client.close();
    await rest;
  });

  test("close acknowledges what was handled a moment ago", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    await gateway.stream({ users: ["alice"] }, 10, [alice.ledger]);
    await alice.hasEverything();
    alice.client.close();
    expect(alice.client.state).toBe("closed");
    await acknowledged(gateway, alice);
    if (name !== "longpoll") {
      // A session of polls lingers for the next one; the others end with the goodbye.
      await away(gateway, "alice");
    }

    // Another storage knows nothing: that nothing comes again is the gateway's knowledge.
    const other = await new Device(gateway, { over }, alice.ledger).connected();
    await gateway.stream({ users: ["alice"] }, 1, [alice.ledger], { from: 10 });
    await other.hasEverything();
    expect(other.messages.length).toBe(1);
  });

  test("a handler that fails gets the message again, and the others are not held up for ever", async () => {
    const gateway = await gatewayForTest();
    const seen: unknown[] = [];
    let failures = 1;
    const alice = new Device(gateway, { over, handler: null });
    alice.client.on("message", (m) => {
      if ((m.body as { n: number }).n === 1 && failures-- > 0) throw new Error("the database of the page is busy");
      seen.push((m.body as { n: number }).n);
      alice.ledger.got(m.id);
    });
    // Before the connect: a poll brings them all in one answer, and the next one not before they are handled.
    await gateway.stream({ users: ["alice"] }, 3, [alice.ledger]);
    await alice.connected();
    await eventually(() => alice.ledger.complete, "all are handled in the end");
    expect(seen).toEqual([0, 2, 1]);
    expect(alice.errorCodes).toEqual(["handler_failed"]);
    await acknowledged(gateway, alice);
  });

  test("what a full slot dropped is told as a gap, and the rest comes in order", async () => {
    // A session of polls does not linger for long when its device has gone.
    const gateway = await gatewayForTest(["--heartbeat-linger=1s"]);
    gateway.command("product", "update", "dev", "--limit", "own_messages=20");
    const alice = await new Device(gateway, { over }).connected();
    await gateway.stream({ users: ["alice"] }, 5, [alice.ledger]);
    await alice.hasEverything();
    await acknowledged(gateway, alice);
    alice.client.close();
    await away(gateway, "alice");

    await gateway.stream({ users: ["alice"] }, 50, [alice.ledger], { from: 5 });
    const back = await new Device(gateway, { over, storage: alice.storage }, alice.ledger).connected();
    await acknowledged(gateway, back);
    // The ledger's lost ones are those in front of what the slot still had, and the gap says so.
    const came = back.messages.map((m) => (m.body as { n: number }).n);
    const first = came[0]!;
    expect(came).toEqual(Array.from({ length: 55 - first }, (_, i) => first + i));
    expect(came.length).toBeLessThanOrEqual(20);
    const { lost, ...rest } = alice.ledger.verdict();
    expect(rest).toEqual({ twice: [], strange: [], disordered: [] });
    expect(lost).toEqual(Array.from({ length: first - 5 }, (_, i) => 5 + i));
    expect(back.gaps).toHaveLength(1);
    expect(back.gaps).toMatchObject([{ slot: "own", reason: "limit" }]);
    expect(back.gaps[0]!.to).toBeGreaterThan(back.gaps[0]!.from);
  });
});
