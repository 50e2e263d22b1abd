import { expect, test } from "vitest";
import { eventually } from "./eventually.js";
import { gatewayForTest } from "./device.js";
import { Ledger } from "./ledger.js";
import { Raw } from "./raw.js";
import { Refused } from "./server.js";

const to = { users: ["alice"] };

test("a token that the kit signs is welcomed, and one of another key is refused", async () => {
  const gateway = await gatewayForTest();
  const good = new Raw(gateway.url, gateway.mint("alice", "laptop"));
  await eventually(() => good.of("welcome").length, "the welcome");
  const forged = new Raw(gateway.url, gateway.mint("alice", "phone", { key: Buffer.alloc(32, 7).toString("base64") }));
  await eventually(() => forged.closed, "the refusal");
  expect(forged.closed).toBe(4101);
  expect(forged.of("welcome")).toEqual([]);
});

test("what was accepted is there after kill -9, at the same address and with the same keys", async () => {
  const gateway = await gatewayForTest();
  const { dev, url } = gateway;
  const first = await gateway.send({ ...to, body: 1 });
  const [second, third] = await gateway.sendBatch([
    { ...to, body: 2 },
    { ...to, body: 3 },
  ]);
  await gateway.kill9();
  await expect(fetch(url)).rejects.toThrow();
  await gateway.start();
  expect([gateway.url, gateway.dev.api_key, gateway.dev.key]).toEqual([url, dev.api_key, dev.key]);
  const alice = new Raw(url, gateway.mint("alice", "laptop"));
  await eventually(() => alice.of("message").length === 3, "three messages", { seen: () => alice.frames });
  expect(alice.of("message").map((m) => [m["id"], m["body"]])).toEqual([
    [first, 1],
    [second, 2],
    [third, 3],
  ]);
});

test("a stream that goes on through kill -9 enters each message once", async () => {
  const gateway = await gatewayForTest();
  const ledger = new Ledger();
  const sending = gateway.stream(to, 150, [ledger]);
  await eventually(() => ledger.acceptedCount > 40, "some are accepted");
  await gateway.kill9();
  await gateway.start();
  await sending;
  expect(ledger.acceptedCount).toBe(150);
  // The gateway's own count: nothing was stored twice for the requests that were repeated.
  const alice = new Raw(gateway.url, gateway.mint("alice", "laptop"));
  await eventually(() => alice.of("cursor").some((c) => c["reason"] === "caught_up"), "caught up");
  for (const m of alice.of("message")) ledger.got(m["id"] as string);
  expect(ledger.verdict()).toEqual({ lost: [], twice: [], strange: [], disordered: [] });
});

test("lag falls with an acknowledgement alone", async () => {
  const gateway = await gatewayForTest();
  await gateway.stream(to, 3, []);
  const alice = new Raw(gateway.url, gateway.mint("alice", "laptop"));
  const caughtUp = await eventually(() => alice.of("cursor").find((c) => c["reason"] === "caught_up"), "caught up");
  expect(await gateway.lag("alice", "laptop")).toBe(3);
  alice.say({ type: "ack", cursor: caughtUp["cursor"] });
  await eventually(async () => (await gateway.lag("alice", "laptop")) === 0, "acknowledged");
});

test("kick, revoke and recall do what they say", async () => {
  const gateway = await gatewayForTest();
  const alice = new Raw(gateway.url, gateway.mint("alice", "laptop"));
  await eventually(() => alice.of("welcome").length, "the welcome");
  const id = await gateway.send({ ...to, body: "a mistake" });
  await gateway.recall(id);
  await eventually(() => alice.of("recall").some((r) => r["id"] === id), "the recall", { seen: () => alice.frames });
  await gateway.kick("alice", "laptop", "enough");
  await eventually(() => alice.closed, "the kick");
  expect([alice.closed, alice.of("kick")[0]!["detail"]]).toEqual([4208, "enough"]);

  const bob = new Raw(gateway.url, gateway.mint("bob", "phone"));
  await eventually(() => bob.of("welcome").length, "the welcome");
  await gateway.revoke("bob", { device: "phone" });
  await eventually(() => bob.closed, "the revocation");
  expect(bob.closed).toBe(4201);
});

test("what the gateway refuses is an error with its status", async () => {
  const gateway = await gatewayForTest();
  const refused = await gateway.send({ body: "to nobody" }).catch((e: unknown) => e);
  expect(refused).toBeInstanceOf(Refused);
  expect((refused as Refused).status).toBe(400);
});
