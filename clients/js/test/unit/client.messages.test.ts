import { describe, expect, test } from "vitest";
import { clicked, deviceTags, displayed, messages } from "../../src/extras.js";
import { memoryStorage } from "../../src/storage.js";
import type { Message, Storage, TokenRequest } from "../../src/types.js";
import { cursor, FakeClock, FakeTransport, settled, tokenFor } from "./fake.js";
import { connected, world, type World } from "./world.js";

describe("messages", () => {
  test("are handed out in order, and acknowledged at most once a second", async () => {
    const w = await connected();
    const p = w.transport.last;
    p.message(11, "1");
    p.message(12, "2");
    await w.clock.pass(0);
    expect(w.got).toEqual(["1", "2"]);
    expect(p.acks).toEqual([cursor(12, 5)]);
    p.message(13, "3");
    p.message(14, "4");
    await w.clock.pass(999);
    expect(p.acks).toHaveLength(1);
    await w.clock.pass(1);
    expect(p.acks).toEqual([cursor(12, 5), cursor(14, 5)]);
    await w.clock.pass(40_000);
    expect(p.acks).toHaveLength(2);
  });

  test("say all that the gateway said of them", async () => {
    const seen: Message[] = [];
    const w = await connected({}, (m) => void seen.push(m));
    w.transport.last.say(
      { type: "message", slot: 1, pos: 9, id: "7", time: 1000, expires: 2000, ref: "order-7", collapse_key: "orders", headers: { a: "b" }, body: null },
      { type: "message", id: "8", time: 1000, body_base64: "AP8=" },
      { type: "message", id: "9", time: 1000 },
    );
    expect(seen).toEqual([
      { id: "7", persistent: true, time: new Date(1000), expires: new Date(2000), ref: "order-7", collapseKey: "orders", headers: { a: "b" }, body: null },
      { id: "8", persistent: false, time: new Date(1000), headers: {}, body: Uint8Array.of(0, 255) },
      { id: "9", persistent: false, time: new Date(1000), headers: {}, body: undefined },
    ]);
  });

  test("wait for the handler of the one before", async () => {
    const done: (() => void)[] = [];
    const w = await connected({}, () => new Promise<void>((resolve) => done.push(resolve)));
    w.transport.last.message(11, "1");
    w.transport.last.message(12, "2");
    await settled();
    expect(w.got).toEqual(["1"]);
    done[0]!();
    await settled();
    expect(w.got).toEqual(["1", "2"]);
    await w.clock.pass(1000);
    expect(w.transport.last.acks).toEqual([cursor(11, 5)]);
  });

  test("beside each other: what is behind one that is not done is not acknowledged", async () => {
    const done = new Map<string, () => void>();
    const w = await connected({ concurrency: 3 }, (m) => new Promise<void>((resolve) => done.set(m.id, resolve)));
    for (const n of [1, 2, 3, 4]) w.transport.last.message(10 + n, String(n));
    expect(w.got).toEqual(["1", "2", "3"]);
    done.get("3")!();
    done.get("2")!();
    await w.clock.pass(2000);
    expect(w.got).toEqual(["1", "2", "3", "4"]);
    expect(w.transport.last.acks).toEqual([]);
    done.get("1")!();
    await w.clock.pass(2000);
    expect(w.transport.last.acks).toEqual([cursor(13, 5)]);
  });

  test("wait while nobody listens; those that are not persistent do not", async () => {
    const w = world();
    void w.client.connect();
    await settled();
    w.transport.last.welcome();
    w.transport.last.message(11, "1");
    w.transport.last.say({ type: "message", id: "2", time: 1 });
    w.client.on("message", (m) => void w.got.push(m.id));
    expect(w.got).toEqual(["1"]);
  });

  test("by hand, in any order", async () => {
    const w = await connected({ acknowledge: "manual" });
    for (const n of [1, 2, 3]) w.transport.last.message(10 + n, String(n));
    await w.clock.pass(1000);
    expect(w.transport.last.acks).toEqual([]);
    w.client.acknowledge("2");
    w.client.acknowledge("99");
    await w.clock.pass(1000);
    expect(w.transport.last.acks).toEqual([]);
    w.client.acknowledge("1");
    await w.clock.pass(1000);
    expect(w.transport.last.acks).toEqual([cursor(12, 5)]);
  });

  test("come again to a handler that failed, five times, later each time", async () => {
    const w = await connected({}, (m) => (m.id === "1" ? Promise.reject(new Error("no")) : undefined));
    w.transport.last.message(11, "1");
    w.transport.last.message(12, "2");
    await settled();
    expect(w.got).toEqual(["1", "2"]);
    for (const ms of [1000, 2000, 4000]) await w.clock.pass(ms);
    expect(w.got).toEqual(["1", "2", "1", "1", "1"]);
    expect(w.transport.last.acks).toEqual([]);
    await w.clock.pass(8000);
    expect(w.errors).toEqual([...Array(4).fill("handler_failed"), "handler_gave_up"]);
    await w.clock.pass(1000);
    expect(w.transport.last.acks).toEqual([cursor(12, 5)]);
  });

  test("a handler that throws at once is one that failed", async () => {
    let first = true;
    const w = await connected({}, () => {
      if (!first) return;
      first = false;
      throw new Error("no");
    });
    w.transport.last.message(11, "1");
    await w.clock.pass(2000);
    expect(w.got).toEqual(["1", "1"]);
    expect(w.transport.last.acks).toEqual([cursor(11, 5)]);
  });

  test.each([
    ["rejects with", (why: unknown) => Promise.reject(why as Error)],
    [
      "throws",
      (why: unknown) => {
        throw why;
      },
    ],
  ])("a handler that %s what is no error does not hold up the others", async (_, fail) => {
    const w = await connected({}, (m) => (m.id === "1" ? fail(Symbol("why")) : undefined));
    for (const n of [1, 2, 3]) w.transport.last.message(10 + n, String(n));
    await w.clock.pass(500);
    expect(w.got).toEqual(["1", "2", "3"]);
    await w.clock.pass(20_000);
    expect(w.errors).toEqual([...Array<string>(4).fill("handler_failed"), "handler_gave_up"]);
    expect(w.client.cursor).toBe(cursor(13, 5));
  });

  test("are handled when all handlers are", async () => {
    let done = (): void => {};
    const w = await connected();
    w.client.on("message", () => new Promise<void>((resolve) => (done = resolve)));
    w.transport.last.message(11, "1");
    await w.clock.pass(1000);
    expect(w.transport.last.acks).toEqual([]);
    done();
    await w.clock.pass(1000);
    expect(w.transport.last.acks).toEqual([cursor(11, 5)]);
  });

  test("of an answer that waits are told to be handled when they are, and stored", async () => {
    let done = (): void => {};
    const w = await connected(
      { transports: [new FakeTransport("longpoll", { alive: "self", acknowledges: true })] },
      () => new Promise<void>((resolve) => (done = resolve)),
    );
    const before = w.transport.last.handled;
    w.transport.last.message(11, "1");
    await w.clock.pass(5000);
    expect(w.transport.last.handled).toBe(before);
    done();
    await settled();
    expect(w.transport.last.handled).toBeGreaterThan(before);
    await w.clock.pass(5000);
    expect(w.transport.last.acks).toEqual([]);
  });

  test("of many at once leave others their turn", async () => {
    // Each message takes ten milliseconds.
    let took = 0;
    const clock = new FakeClock();
    const w = await connected({ clock: { now: () => clock.now() + took, after: clock.after } }, () => void (took += 10));
    w.transport.last.say(...Array.from({ length: 6 }, (_, i) => ({ type: "message", slot: 0, pos: 11 + i, id: String(i + 1), time: 1, expires: 2 })));
    expect(w.got).toHaveLength(2);
    await clock.pass(10);
    expect(w.got).toHaveLength(6);
  });
});

describe("storage", () => {
  test("a later run goes on where the one before was, and drops repeats", async () => {
    const storage = memoryStorage();
    const a = await connected({ storage });
    for (let n = 1; n <= 200; n++) a.transport.last.message(10 + n, String(n));
    await a.clock.pass(0);
    const b = await connected({ storage });
    expect(b.transport.last.request.connect.cursor).toBe(cursor(210, 5));
    for (let n = 1; n <= 201; n++) b.transport.last.message(10 + n, String(n));
    expect(b.got).toEqual(["201"]);
  });

  test("the device keeps its name, and identities do not share what they keep", async () => {
    const storage = memoryStorage();
    const names: string[] = [];
    for (const device of ["phone", "laptop", "phone"]) {
      const w = await connected({
        storage,
        getToken: ({ deviceId }: TokenRequest) => {
          names.push(deviceId);
          return tokenFor(device);
        },
      });
      // Positions are each device's own here.
      const at = w.transport.last.request.connect.cursor === undefined ? 11 : 12;
      w.transport.last.message(at, String(at + device.length));
      await w.clock.pass(0);
      expect(w.client.cursor).toBe(cursor(at, 5));
    }
    expect(new Set(names).size).toBe(1);
    expect(names[0]).toMatch(/^[a-z0-9]{20,40}$/);
  });

  test("what cannot be written is not acknowledged until it can", async () => {
    const kept = memoryStorage();
    let broken = false;
    const storage: Storage = {
      get: kept.get,
      set: (k, v) => {
        if (broken) throw new Error("full");
        return kept.set(k, v);
      },
    };
    const w = await connected({ storage });
    broken = true;
    w.transport.last.message(11, "1");
    w.transport.last.message(12, "2");
    await w.clock.pass(10_000);
    expect(w.got).toEqual(["1", "2"]);
    expect(w.errors).toEqual(["storage"]);
    expect(w.transport.last.acks).toEqual([]);
    broken = false;
    await w.clock.pass(30_000);
    expect(w.transport.last.acks).toEqual([cursor(12, 5)]);
  });

  /** A storage whose writes of one identity are done when the test says so. */
  function slow(): { kept: Storage; storage: Storage; writes: (() => void)[]; flush(): Promise<void> } {
    const kept = memoryStorage();
    const writes: (() => void)[] = [];
    const storage: Storage = {
      get: kept.get,
      set: (k, v) =>
        k.includes("alice")
          ? new Promise<void>((resolve) =>
              writes.push(() => {
                void kept.set(k, v);
                resolve();
              }),
            )
          : kept.set(k, v),
    };
    const flush = async (): Promise<void> => {
      for (let write; (write = writes.shift()); await settled()) write();
    };
    return { kept, storage, writes, flush };
  }

  test("one that takes its time is waited for, and written to once at a time", async () => {
    const { kept, storage, writes, flush } = slow();
    const w = await connected({ storage });
    await flush();
    for (let n = 1; n <= 70; n++) w.transport.last.message(10 + n, String(n));
    await w.clock.pass(2000);
    expect(writes).toHaveLength(1);
    expect(w.transport.last.acks).toEqual([]);
    // A page that dies now sees that one again, and no other.
    expect(w.got).toEqual(["1"]);
    await flush();
    await w.clock.pass(2000);
    expect(w.transport.last.acks.at(-1)).toBe(cursor(80, 5));
    const again = await connected({ storage: kept });
    for (let n = 1; n <= 70; n++) again.transport.last.message(10 + n, String(n));
    expect(again.got).toEqual([]);
  });

  /** Two messages are handled while the first of them is being written. The first write has come to its end. */
  async function halfWritten(transport: FakeTransport): Promise<{ w: World; answered: number; flush: () => Promise<void> }> {
    const { storage, writes, flush } = slow();
    const w = await connected({ storage, acknowledge: "manual", transports: [transport] });
    await flush();
    const answered = w.transport.last.handled;
    for (const n of [1, 2]) w.transport.last.message(10 + n, String(n));
    for (const n of [1, 2]) w.client.acknowledge(String(n));
    writes.shift()!();
    await w.clock.pass(0);
    expect(w.client.cursor).toBe(cursor(11, 5));
    return { w, answered, flush };
  }

  test("what is handled while it is written is not acknowledged with it", async () => {
    const { w, flush } = await halfWritten(new FakeTransport("sse", { alive: "listen" }));
    expect(w.transport.last.acks).toEqual([cursor(11, 5)]);
    await flush();
    await w.clock.pass(1000);
    expect(w.transport.last.acks).toEqual([cursor(11, 5), cursor(12, 5)]);
  });

  test("an answer is not said to be handled while some of it is being written", async () => {
    const { w, answered, flush } = await halfWritten(new FakeTransport("longpoll", { alive: "self", acknowledges: true }));
    expect(w.transport.last.handled).toBe(answered);
    await flush();
    expect(w.transport.last.handled).toBeGreaterThan(answered);
  });
});

describe("a loop over messages", () => {
  test("handles one when it asks for the next; what it did not get to comes again", async () => {
    const w = world();
    void w.client.connect();
    await settled();
    w.transport.last.welcome();
    const seen: string[] = [];
    const loop = (async () => {
      for await (const m of messages(w.client)) {
        seen.push(m.id);
        if (m.id === "2") break;
      }
    })();
    for (const n of [1, 2, 3]) w.transport.last.message(10 + n, String(n));
    await loop;
    expect(seen).toEqual(["1", "2"]);
    await w.clock.pass(1000);
    expect(w.transport.last.acks).toEqual([cursor(12, 5)]);
    w.client.on("message", (m) => void seen.push(m.id));
    expect(seen).toEqual(["1", "2", "3"]);
  });

  test("ends with close, and with its signal", async () => {
    const w = await connected();
    const stop = new AbortController();
    const one = messages(w.client, { signal: stop.signal }).next();
    const two = messages(w.client).next();
    stop.abort();
    expect(await one).toMatchObject({ done: true });
    w.client.close();
    expect(await two).toMatchObject({ done: true });
    expect(await messages(w.client, { signal: AbortSignal.abort() }).next()).toMatchObject({ done: true });
  });
});

describe("events and tags", () => {
  test("events wait for a connection, and go no faster than half of what is allowed", async () => {
    const w = world();
    for (let n = 1; n <= 25; n++) displayed(w.client, String(n));
    clicked(w.client, "26");
    void w.client.connect();
    await settled();
    w.transport.last.welcome();
    const sent = (): unknown[] => w.transport.last.sent.filter((f) => f.type === "event");
    expect(sent()).toHaveLength(10);
    await w.clock.pass(1000);
    expect(sent()).toHaveLength(20);
    await w.clock.pass(1000);
    expect(sent()).toHaveLength(26);
    expect(sent().at(-1)).toMatchObject({ event: "clicked", id: "26" });
    expect(() => displayed(w.client, "no id")).toThrow(expect.objectContaining({ code: "invalid" }));
  });

  test("tags are asked for one at a time, again after a reconnect, and later when they cannot be judged now", async () => {
    const w = await connected();
    const tags = deviceTags(w.client);
    const joined = tags.join("news.sport");
    const listed = tags.list();
    const asked = (): unknown[] => w.transport.last.sent.filter((f) => f.type === "tags");
    await settled();
    expect(asked()).toEqual([{ type: "tags", join: ["news.sport"] }]);
    w.transport.last.end({});
    await w.clock.pass(500);
    w.transport.last.welcome();
    expect(asked()).toHaveLength(1);
    w.transport.last.say({ type: "error", code: "try_again" });
    await w.clock.pass(1000);
    expect(asked()).toHaveLength(2);
    w.transport.last.say({ type: "tags", tags: ["news.sport"] });
    expect(await joined).toEqual(["news.sport"]);
    w.transport.last.say({ type: "tags" });
    expect(await listed).toEqual([]);
    const refused = tags.join("staff");
    w.transport.last.say({ type: "error", code: "tag_not_permitted", detail: "not yours" });
    await expect(refused).rejects.toMatchObject({ code: "tag_not_permitted", message: "not yours" });
    const late = tags.list();
    w.client.close();
    await expect(late).rejects.toMatchObject({ code: "closed" });
    await expect(tags.list()).rejects.toMatchObject({ code: "closed" });
  });
});
