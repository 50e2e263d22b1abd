import { describe, expect, test } from "vitest";
import { memoryStorage, UnauthorizedError } from "../../src/index.js";
import { acknowledged, Device, gatewayForTest, transportNames } from "../kit/device.js";
import { eventually } from "../kit/eventually.js";

/**
 * A token that is good for six seconds more. The gateway takes tokens for 30 s beyond their end, as clocks may differ: this one is of a server whose clock is
 * behind by as much.
 */
const short = { life: 6, age: 30 };

const code = (code: string): unknown => expect.objectContaining({ code });

describe.each(transportNames)("over %s", (name) => {
  const over = [name];

  test("one that was kicked stays away until it is asked to connect, and has then lost nothing", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    await gateway.stream({ users: ["alice"] }, 5, [alice.ledger]);
    await alice.hasEverything();

    expect(await gateway.kick("alice", "laptop", "You signed in on another phone.")).toMatchObject({ status: "confirmed", sessions: 1 });
    await eventually(() => alice.client.state === "failed", "alice is sent away", { seen: () => alice.trail });
    expect(alice.kicks).toEqual([{ code: 4208, reason: "kicked", detail: "You signed in on another phone." }]);
    expect(alice.client.failure).toEqual(code("kicked"));

    await gateway.stream({ users: ["alice"] }, 5, [alice.ledger], { from: 5 });
    expect(alice.ledger.gotCount).toBe(5);
    expect((await gateway.userInfo("alice")).online).toBe(false);
    expect(alice.connects).toBe(1);

    await alice.client.connect();
    expect(alice.client.failure).toBe(undefined);
    await alice.hasEverything();
    await acknowledged(gateway, alice);
  });

  test("one that was revoked stays away", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over }).connected();
    await gateway.revoke("alice", { device: "laptop", reason: "The laptop was stolen." });
    await eventually(() => alice.client.state === "failed", "alice is sent away", { seen: () => alice.trail });
    expect(alice.kicks).toEqual([{ code: 4201, reason: "revoked", detail: "The laptop was stolen." }]);

    // A token of the same second is as bad, and is refused in the connect.
    await expect(alice.client.connect()).rejects.toEqual(code("kicked"));
    expect(alice.kicks.map((k) => k.reason)).toEqual(["revoked", "revoked"]);
    expect(alice.connects).toBe(1);
  });

  test("a token is renewed on the live connection, again and again", async () => {
    const gateway = await gatewayForTest();
    const alice = await new Device(gateway, { over, claims: short }).connected();
    const sending = gateway.stream({ users: ["alice"] }, 200, [alice.ledger], { gap: 75 });
    await eventually(() => alice.tokens.length >= 4, "three renewals", { within: 40_000, seen: () => alice.tokens });
    await sending;
    await alice.hasEverything();
    expect(alice.tokens.slice(0, 4)).toEqual(["connect", "expiring", "expiring", "expiring"]);
    expect(alice.trail).toBe("connecting connected");
    expect(alice.errors).toEqual([]);
  });

  test("a refused token is followed by a good one", async () => {
    const gateway = await gatewayForTest();
    const forged = gateway.mint("alice", "laptop", { key: Buffer.alloc(32, 7).toString("base64") });
    const alice = new Device(gateway, { over, getToken: ({ reason }) => (reason === "refused" ? gateway.mint("alice", "laptop") : forged) });
    await gateway.stream({ users: ["alice"] }, 5, [alice.ledger]);
    await alice.connected();
    expect(alice.tokens).toEqual(["connect", "refused"]);
    await alice.hasEverything();
  });

  test("two refused tokens in a row end it", async () => {
    const gateway = await gatewayForTest();
    let n = 0;
    const forged = (): string => gateway.mint("alice", "laptop", { key: Buffer.alloc(32, 7).toString("base64"), id: String(n++) });
    const alice = new Device(gateway, { over, getToken: forged });
    await expect(alice.client.connect()).rejects.toEqual(code("token_refused"));
    expect(alice.tokens).toEqual(["connect", "refused"]);
    expect(alice.client.state).toBe("failed");
  });

  test("a second client of the same device takes the place of the first, which does not take it back", async () => {
    const gateway = await gatewayForTest();
    const first = await new Device(gateway, { over }).connected();
    await gateway.stream({ users: ["alice"] }, 5, [first.ledger]);
    await first.hasEverything();
    await acknowledged(gateway, first);

    const second = await new Device(gateway, { over, storage: memoryStorage() }, first.ledger).connected();
    await eventually(() => first.client.state === "suspended", "the first is suspended", { seen: () => first.trail });
    expect(first.kicks).toMatchObject([{ code: 4200, reason: "replaced" }]);
    await gateway.stream({ users: ["alice"] }, 20, [first.ledger], { from: 5 });
    await second.hasEverything();
    expect(first.messages.length).toBe(5);
    expect([first.connects, second.connects]).toEqual([1, 1]);

  });

  test("one that was replaced takes its place again when its application asks", async () => {
    const gateway = await gatewayForTest();
    const first = await new Device(gateway, { over }).connected();
    const second = await new Device(gateway, { over, storage: memoryStorage() }).connected();
    await eventually(() => first.client.state === "suspended", "the first is suspended", { seen: () => first.trail });
    void first.client.connect().catch(() => {});
    await eventually(() => first.client.state === "connected", "the first is back", { seen: () => [first.trail, first.kicks] });
    await eventually(() => second.client.state === "suspended", "the second is suspended", { seen: () => second.trail });
    expect([first.connects, second.connects]).toEqual([2, 1]);
  });

  test("another device of the same user is no rival", async () => {
    const gateway = await gatewayForTest();
    const laptop = await new Device(gateway, { over }).connected();
    const phone = await new Device(gateway, { over, device: "phone" }).connected();
    await gateway.stream({ users: ["alice"] }, 30, [laptop.ledger, phone.ledger]);
    await Promise.all([laptop.hasEverything(), phone.hasEverything()]);
    expect([laptop.connects, phone.connects]).toEqual([1, 1]);
  });
});

test("who is not authorized is not connected", async () => {
  const gateway = await gatewayForTest();
  for (const getToken of [
    () => {
      throw new UnauthorizedError("signed out");
    },
    () => null,
  ]) {
    const alice = new Device(gateway, { getToken });
    await expect(alice.client.connect()).rejects.toEqual(code("unauthorized"));
    expect(alice.client.state).toBe("failed");
    expect(alice.tokens).toEqual(["connect"]);
  }
  expect((await gateway.userInfo("alice")).devices).toEqual([]);
});

test("a token server that fails is asked again", async () => {
  const gateway = await gatewayForTest();
  let failures = 2;
  const alice = new Device(gateway, {
    getToken() {
      if (failures-- > 0) throw new Error("the token server is down");
      return gateway.mint("alice", "laptop");
    },
  });
  await alice.connected();
  expect(alice.tokens).toEqual(["connect", "connect", "connect"]);
  expect(alice.errorCodes).toEqual(["token_unavailable", "token_unavailable"]);
});

test("a token of somebody else is not used on a client that had one", async () => {
  const gateway = await gatewayForTest();
  const alice = await new Device(gateway, {
    getToken: ({ reason }) => (reason === "connect" ? gateway.mint("alice", "laptop", short) : gateway.mint("bob", "laptop")),
  }).connected();
  await eventually(() => alice.client.state === "failed", "the client fails", { seen: () => alice.trail });
  expect(alice.client.failure).toEqual(code("identity_changed"));
});
