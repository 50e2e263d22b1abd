import { afterEach, describe, expect, test, vi } from "vitest";
import { UnauthorizedError } from "../../src/errors.js";
import { memoryStorage } from "../../src/storage.js";
import type { ClientOptions, Storage, TabMember, Tabs, TokenRequest } from "../../src/types.js";
import { cursor, FakeTransport, settled, tokenFor } from "./fake.js";
import { connected, world, type World } from "./world.js";

afterEach(() => void vi.unstubAllGlobals());

describe("tokens", () => {
  test("null, and an UnauthorizedError, end the client", async () => {
    for (const getToken of [() => null, () => Promise.reject(new UnauthorizedError("signed out"))]) {
      const w = world({ getToken });
      await expect(w.client.connect()).rejects.toMatchObject({ code: "unauthorized" });
      expect(w.client.state).toBe("failed");
      expect(w.client.failure?.code).toBe("unauthorized");
      await w.clock.pass(100_000);
      expect(w.transport.peers).toHaveLength(0);
    }
  });

  test("other failures, and silence, are tried again", async () => {
    const asked: TokenRequest[] = [];
    const w = world({
      getToken: (r) => {
        asked.push(r);
        return asked.length === 1 ? Promise.reject(new Error("500")) : asked.length === 2 ? new Promise(() => {}) : tokenFor();
      },
    });
    void w.client.connect();
    await w.clock.pass(300);
    expect(asked).toHaveLength(2);
    await w.clock.pass(30_000);
    expect(asked[1]!.signal.aborted).toBe(true);
    await w.clock.pass(1000);
    expect(asked).toHaveLength(3);
    expect(w.errors).toEqual(["token_unavailable", "token_unavailable"]);
    expect(w.transport.peers).toHaveLength(1);
  });

  test("one retry after a refusal, never with the same token", async () => {
    const asked: string[] = [];
    const w = world({
      getToken: ({ reason }) => {
        asked.push(reason);
        return tokenFor("phone", { n: asked.length === 3 ? 2 : asked.length });
      },
    });
    const connecting = w.client.connect();
    connecting.catch(() => {});
    await settled();
    w.transport.last.end({ code: 4101 });
    await w.clock.pass(1000);
    expect(w.transport.peers).toHaveLength(2);
    w.transport.last.welcome();
    w.transport.last.end({ code: 4100 });
    await w.clock.pass(1000);
    await connecting;
    expect(asked).toEqual(["connect", "refused", "refused"]);
    expect(w.client.failure?.code).toBe("unauthorized");
  });

  test("are renewed on the live connection", async () => {
    let n = 0;
    const w = await connected({ getToken: () => tokenFor("phone", { n: n++, iat: 0, exp: 100 }) });
    for (let s = 0; s < 79; s++) {
      await w.clock.pass(1000);
      w.transport.last.say({ type: "pong" });
    }
    const refresh = w.transport.last.sent.filter((f) => f.type === "refresh");
    expect(refresh).toHaveLength(1);
    expect(w.transport.last.request.token()).toBe((refresh[0] as { token: string }).token);
    expect(w.transport.peers).toHaveLength(1);
    w.transport.last.say({ type: "refresh", expires: w.clock.now() + 100_000 });
    await w.clock.pass(50_000);
    expect(n).toBe(2);
  });

  test("a clock that is wrong does not have them renewed without end", async () => {
    let n = 0;
    const w = await connected({ getToken: () => tokenFor("phone", { n: n++, exp: 100 }) });
    await w.clock.pass(10_000);
    expect(n).toBeLessThan(15);
  });

  test("of another user ends the client", async () => {
    let n = 0;
    const w = await connected({ getToken: () => tokenFor(`device-${n++}`) });
    w.transport.last.say({ type: "refresh" });
    await w.clock.pass(1000);
    expect(w.client.failure?.code).toBe("identity_changed");
    expect(w.transport.last.left).toBe("close");
  });
});

describe("the connection", () => {
  test("names cursor and session when it comes back", async () => {
    const w = await connected();
    w.transport.last.message(11, "1");
    w.transport.last.end({ code: 1006 });
    await w.clock.pass(500);
    expect(w.transport.last.request.connect).toMatchObject({ cursor: cursor(11, 5), after: "41", version: 1 });
    expect(w.states).toEqual(["connecting", "connected", "waiting", "connecting"]);
  });

  test("is asked for signs of life, and given up without", async () => {
    const w = await connected();
    await w.clock.pass(43_000);
    expect(w.transport.last.sent).toContainEqual({ type: "ping" });
    await w.clock.pass(11_000);
    expect(w.errors).toEqual(["silent"]);
    expect(w.transport.peers[0]!.left).toBe("abort");
    expect(w.transport.peers).toHaveLength(2);
  });

  test("answers pings", async () => {
    const w = await connected();
    w.transport.last.say({ type: "ping" });
    expect(w.transport.last.sent).toContainEqual({ type: "pong" });
  });

  test("goes where the gateway says, when it says, but never out of encryption", async () => {
    for (const [address, endpoint] of [
      ["wss://b.example.com/connect", "https://b.example.com"],
      ["ws://b.example.com/connect", "https://push.example.com"],
      ["nonsense", "https://push.example.com"],
    ]) {
      const w = await connected();
      w.transport.last.say({ type: "goaway", code: 4000, reason: "going_away", delay_ms: 3000, address });
      w.transport.last.end({ code: 4000 });
      await w.clock.pass(2999);
      expect(w.transport.peers).toHaveLength(1);
      await w.clock.pass(1);
      expect(w.transport.last.request.endpoint).toBe(endpoint);
    }
  });

  test("a kick is told, and is the end", async () => {
    const w = await connected();
    const kicks: unknown[] = [];
    w.client.on("kick", (k) => kicks.push(k));
    w.transport.last.say({ type: "kick", code: 4208, reason: "kicked", detail: "signed out elsewhere" });
    w.transport.last.end({ code: 4208 });
    expect(kicks).toEqual([{ code: 4208, reason: "kicked", detail: "signed out elsewhere" }]);
    expect(w.client.failure).toMatchObject({ code: "kicked", kick: { reason: "kicked" } });
    await w.clock.pass(100_000);
    expect(w.transport.peers).toHaveLength(1);
  });

  test("a kick without a close code counts as well", async () => {
    const w = await connected();
    w.transport.last.say({ type: "kick", code: 4201, reason: "revoked" });
    w.transport.last.end({});
    expect(w.client.state).toBe("failed");
  });

  test("replaced by this same device: suspended; by another: the end", async () => {
    for (const [by, state] of [
      ["phone", "suspended"],
      ["laptop", "failed"],
    ]) {
      const w = await connected();
      w.transport.last.say({ type: "kick", code: 4200, reason: "replaced", by, on: "web" });
      w.transport.last.end({ code: 4200 });
      expect(w.client.state).toBe(state);
      await w.clock.pass(100_000);
      expect(w.transport.peers).toHaveLength(1);
      // Asked again it takes the place back: as a client that comes back it would be refused.
      void w.client.connect();
      await settled();
      expect(w.transport.last.request.connect.after).toBeUndefined();
    }
  });

  test("the page's life: frozen, thawed, visible, offline, online", async () => {
    const page = new EventTarget();
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    const w = await connected();
    w.transport.last.message(11, "1");
    page.dispatchEvent(new Event("pagehide"));
    expect(w.client.state).toBe("suspended");
    expect(w.transport.last.acks).toEqual([cursor(11, 5)]);
    expect(w.transport.last.left).toBe("close");
    page.dispatchEvent(new Event("pageshow"));
    expect(w.transport.peers).toHaveLength(2);
    w.transport.last.welcome();
    page.dispatchEvent(new Event("offline"));
    await w.clock.pass(5000);
    expect(w.client.state).toBe("offline");
    page.dispatchEvent(new Event("online"));
    await w.clock.pass(500);
    expect(w.client.state).toBe("connecting");
    w.client.close();
    page.dispatchEvent(new Event("pageshow"));
    expect(w.client.state).toBe("closed");
  });

  test("a constructor that throws is an attempt that failed", async () => {
    const t = new FakeTransport();
    t.open = () => {
      throw new Error("bad address");
    };
    const w = world({ transports: [t] });
    void w.client.connect();
    await w.clock.pass(1);
    expect(w.client.state).toBe("waiting");
    expect(w.errors).toEqual(["protocol", "unreachable"]);
  });

  test("the winner among transports is kept for the next run", async () => {
    const storage = memoryStorage();
    const ws = new FakeTransport();
    const es = new FakeTransport("sse", { alive: "listen", acknowledges: false });
    const w = world({ storage, transports: [ws, es] });
    void w.client.connect();
    await w.clock.pass(2500);
    es.last.welcome();
    expect(ws.last.left).toBe("abort");
    expect(w.client.transport).toBe("sse");
    await settled();
    const again = world({ storage, transports: [ws, es], clock: w.clock });
    void again.client.connect();
    await settled();
    expect([ws.peers.length, es.peers.length]).toEqual([1, 2]);
  });
});

describe("the surface", () => {
  test("options that cannot be are refused with what to do", () => {
    for (const [options, text] of [
      [{ endpoint: [] }, /endpoint/],
      [{ endpoint: "push.example.com" }, /https:\/\//],
      [{ endpoint: "https://x/?token=secret" }, /endpoint/],
      [{ getToken: undefined as never }, /getToken/],
      [{ transports: [] }, /WebSocket/],
    ] as [Partial<ClientOptions>, RegExp][]) {
      expect(() => world(options)).toThrow(expect.objectContaining({ code: "invalid", message: expect.stringMatching(text) }));
    }
  });

  test("connect resolves with the welcome, and at once when connected", async () => {
    const w = world();
    const connecting = w.client.connect();
    await settled();
    w.transport.last.welcome();
    await connecting;
    await w.client.connect();
    expect(w.transport.peers).toHaveLength(1);
  });

  test("a signal closes the client", async () => {
    const w = world();
    const stop = new AbortController();
    const connecting = w.client.connect({ signal: stop.signal });
    await settled();
    stop.abort();
    await expect(connecting).rejects.toMatchObject({ code: "closed" });
    expect(w.client.state).toBe("closed");
    await expect(w.client.connect({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "closed" });
  });

  test("close acknowledges, says goodbye, and can be taken back", async () => {
    const w = await connected();
    w.transport.last.message(11, "1");
    w.client.close();
    w.client.close();
    expect(w.transport.last.acks).toEqual([cursor(11, 5)]);
    expect(w.transport.last.left).toBe("close");
    w.transport.last.message(12, "2");
    expect(w.got).toEqual(["1"]);
    void w.client.connect();
    await settled();
    expect(w.transport.peers).toHaveLength(2);
  });

  test("listeners come and go; one that throws does not stop the others", async () => {
    const w = await connected();
    const heard: string[] = [];
    const stop = new AbortController();
    w.client.on("recall", () => heard.push("once"), { once: true });
    const off = w.client.on("recall", () => heard.push("off"));
    w.client.on("recall", () => heard.push("signal"), { signal: stop.signal });
    w.client.on("recall", () => {
      throw new Error("mine");
    });
    w.client.on("recall", () => heard.push("last"));
    const recall = { type: "recall", slot: 0, pos: 11, id: "1" };
    w.transport.last.say(recall);
    expect(heard).toEqual(["once", "off", "signal", "last"]);
    off();
    stop.abort();
    w.transport.last.say(recall);
    expect(heard.slice(4)).toEqual(["last"]);
    await expect(w.clock.pass(0)).rejects.toThrow("mine");
  });

  test("what listeners do in the middle of a change comes after it", async () => {
    const w = world();
    w.client.on("state", ({ state }) => {
      if (state === "connecting") w.client.close();
    });
    await expect(w.client.connect()).rejects.toMatchObject({ code: "closed" });
    expect(w.states).toEqual(["connecting", "closed"]);
    expect(w.transport.peers).toHaveLength(0);
  });

  test("gaps and recalls are told", async () => {
    const w = await connected();
    const told: unknown[] = [];
    w.client.on("gap", (g) => told.push(g));
    w.client.on("recall", (r) => told.push(r));
    w.transport.last.message(11, "1");
    w.transport.last.say({ type: "recall", slot: 0, pos: 12, id: "1" }, { type: "gap", slot: 1, from: 5, to: 9, reason: "limit" });
    expect(told).toEqual([
      { id: "1", handed: true },
      { slot: "common", from: 5, to: 9, reason: "limit" },
    ]);
  });
});

describe("among tabs", () => {
  /** A tab that follows, and was welcomed. */
  async function following(storage: Storage = memoryStorage()): Promise<{ w: World; member: TabMember; tab: FakeTransport; told: string[] }> {
    let member!: TabMember;
    const told: string[] = [];
    const tab = new FakeTransport("tab", { alive: "self", acknowledges: true });
    const tabs: Tabs = {
      available: true,
      join: (name, m) => {
        told.push(name);
        member = m;
        m.follow(tab);
        return {
          frames: (f) => told.push(...f.map((x) => x.type)),
          down: () => told.push("down"),
          leave: () => told.push("leave"),
        };
      },
    };
    const w = world({ tabs, storage });
    w.client.on("message", (m) => void w.got.push(m.id));
    void w.client.connect();
    await settled();
    tab.last.welcome();
    return { w, member, tab, told };
  }

  test("one that leads no more does not write again what could not be written", async () => {
    const kept = memoryStorage();
    let broken = false;
    const writes: string[] = [];
    const storage: Storage = {
      get: kept.get,
      set(key, value) {
        if (broken) throw new Error("full");
        writes.push(value);
        return kept.set(key, value);
      },
    };
    const { w, member, tab } = await following(storage);
    member.lead(true);
    await settled();
    w.transport.last.welcome();
    broken = true;
    w.transport.last.message(11, "1");
    await w.clock.pass(0);
    expect(w.errors).toEqual(["storage"]);
    // Another tab takes the lead, and writes what is newer.
    member.follow(tab);
    broken = false;
    writes.length = 0;
    await w.clock.pass(60_000);
    expect(writes).toEqual([]);
  });

  test("one that is closed while the device's name is read joins nobody", async () => {
    const kept = memoryStorage();
    const calls: string[] = [];
    const tabs: Tabs = {
      available: true,
      join: () => {
        calls.push("join");
        return { frames: () => {}, down: () => {}, leave: () => void calls.push("leave") };
      },
    };
    const w = world({ tabs, storage: { get: async (key) => kept.get(key), set: async (key, value) => kept.set(key, value) } });
    w.client.connect().catch(() => {});
    w.client.close();
    await w.clock.pass(40_000);
    expect([w.client.state, calls, w.errors]).toEqual(["closed", [], []]);
  });

  test("one that follows asks again without a timer, which a hidden page is given late, and misses nothing", async () => {
    const { w, tab } = await following();
    tab.last.end();
    // No time has passed.
    expect(tab.peers).toHaveLength(2);
    tab.last.welcome();
    tab.last.message(11, "1");
    tab.last.end();
    tab.last.welcome();
    tab.last.message(12, "2");
    expect(w.got).toEqual(["1", "2"]);
    expect(w.states).not.toContain("waiting");
  });

  test("one that loses the lead while it reads what is kept goes on following", async () => {
    const { w, member, tab } = await following();
    member.lead(true);
    member.follow(tab);
    await settled();
    expect(w.transport.peers).toHaveLength(0);
    tab.last.welcome();
    expect(w.client.transport).toBe("tab");
  });

  test("a tab follows without a token's renewal, leads with what was stored, and hands on what comes", async () => {
    const storage = memoryStorage();
    const { w, member, tab, told } = await following(storage);
    expect(w.client.transport).toBe("tab");
    tab.last.message(11, "1");
    await w.clock.pass(2000);
    expect(w.got).toEqual(["1"]);
    expect(tab.last.acks).toEqual([]);
    // The tab that leads has handled one more, and dies before this one hears of it.
    const key = told[0]!;
    await storage.set(key, `${cursor(12, 5)} 1,2`);

    member.lead(true);
    await settled();
    expect(tab.last.left).toBe("close");
    // From where this tab is: what the one before stored may be beyond what it handed on.
    expect(w.transport.last.request.connect.cursor).toBe(cursor(11, 5));
    expect(w.transport.last.request.connect.after).toBe("41");
    w.transport.last.welcome();
    w.transport.last.message(11, "1");
    w.transport.last.message(12, "2");
    await w.clock.pass(2000);
    expect(w.got).toEqual(["1", "2"]);
    expect(w.transport.last.acks).toEqual([cursor(12, 5)]);
    w.client.close();
    // What one that follows tells is nobody's business.
    const followed = ["welcome", "message"];
    expect(told).toEqual([expect.stringContaining("alice"), ...followed, "down", "welcome", "message", "message", "down", "leave"]);
  });
});
