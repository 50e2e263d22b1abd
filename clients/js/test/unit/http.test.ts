// The transports over HTTP, against an exchange that the test answers.
import { describe, expect, test } from "vitest";
import { check } from "../../src/check.js";
import { longPoll } from "../../src/longpoll.js";
import { eventReader, sse } from "../../src/sse.js";
import type { Connection, End, ServerFrame, Transport } from "../../src/types.js";
import { cursor, FakeClock, settled } from "./fake.js";

interface Asked {
  url: URL;
  init: RequestInit;
  answer(status: number, body?: unknown, headers?: Record<string, string>): Promise<void>;
  fail(): Promise<void>;
}

/** A transport with its connection, and every request that it makes. */
function opened(make: (o: { fetch: typeof fetch }) => Transport) {
  const asked: Asked[] = [];
  const clock = new FakeClock();
  const frames: ServerFrame[] = [];
  const ends: End[] = [];
  const transport = make({
    fetch: (url, init = {}) =>
      new Promise((resolve, reject) => {
        init.signal?.addEventListener("abort", () => reject(new Error("aborted")));
        asked.push({
          url: new URL(String(url)),
          init,
          answer: async (status, body, headers = {}) => {
            const stream = body instanceof ReadableStream;
            resolve(new Response(stream ? body : body === undefined ? null : JSON.stringify(body), { status, headers }));
            await new Promise((r) => setImmediate(r));
          },
          fail: async () => {
            reject(new TypeError("network"));
            await settled();
          },
        });
      }),
  });
  const connection: Connection = transport.open(
    {
      endpoint: "https://push.example.com",
      token: () => "t0ken",
      connect: { type: "connect", version: 1, cursor: cursor(10, 5), after: "41", client: "c/1" },
      clock,
    },
    {
      heard: () => {},
      // As a client does: each is checked, and one that is none is thrown.
      frames: (f) => void frames.push(...f.flatMap((x) => check(x) ?? [])),
      ended: (e) => ends.push(e),
    },
  );
  const handle = async (): Promise<void> => {
    connection.handled!();
    await settled();
  };
  return { asked, clock, frames, ends, connection, handle };
}

const refusals: [number, unknown, Record<string, string>, End][] = [
  [401, { code: "token_refused" }, {}, { code: 4101, reason: "token_refused" }],
  [401, { code: "token_expired", detail: "it ran out" }, {}, { code: 4100, reason: "token_expired", detail: "it ran out" }],
  [403, { code: "policy" }, {}, { code: 4209, reason: "policy" }],
  [503, { code: "overloaded" }, { "retry-after": "7" }, { code: 4003, reason: "overloaded", delay_ms: 7000 }],
  [429, { code: "too_many_connections" }, { "retry-after": "3" }, { delay_ms: 3000 }],
  [502, "<html>", {}, {}],
  [403, { code: 17 }, {}, {}],
];

describe("events", () => {
  test("come in any pieces", () => {
    const stream = ': \nevent: welcome\nid: 1.2\ndata: {"type":"welcome"}\n\n:\n\nretry: 5\r\ndata:{"type":"ping"}\r\n\r\n';
    for (let size = 1; size <= stream.length; size++) {
      const read = eventReader();
      const found: string[] = [];
      for (let at = 0; at < stream.length; at += size) found.push(...read(stream.slice(at, at + size)));
      expect(found.map((f) => JSON.parse(f).type)).toEqual(["welcome", "ping"]);
    }
  });

  test("the request says what a connect says, and no token in the address", () => {
    const { asked } = opened(sse);
    expect(asked[0]!.url.pathname).toBe("/connect/sse");
    expect(Object.fromEntries(asked[0]!.url.searchParams)).toEqual({ cursor: cursor(10, 5), client: "c/1", after: "41", version: "1" });
    expect(asked[0]!.init.headers).toEqual({ authorization: "Bearer t0ken" });
  });

  test("frames arrive, what is of a later version is passed over, and the end is told once", async () => {
    const { asked, frames, ends } = opened(sse);
    let out!: ReadableStreamDefaultController<Uint8Array>;
    await asked[0]!.answer(200, new ReadableStream({ start: (c) => void (out = c) }));
    const say = async (text: string): Promise<void> => {
      out.enqueue(new TextEncoder().encode(text));
      await new Promise((r) => setImmediate(r));
    };
    await say('data: {"type":"pong"}\n\ndata: {"type":"later"}\n\ndata: {"ty');
    await say('pe":"ping"}\n\n');
    expect(frames.map((f) => f.type)).toEqual(["pong", "ping"]);
    out.close();
    await new Promise((r) => setImmediate(r));
    expect(ends).toEqual([{}]);
  });

  test("what is no frame ends the connection", async () => {
    const { asked, ends } = opened(sse);
    await asked[0]!.answer(200, new Blob(['data: {"type":"message"}\n\n']).stream());
    await new Promise((r) => setImmediate(r));
    expect(ends).toEqual([{ detail: expect.stringContaining("missing_field") }]);
  });

  test.each(refusals)("%s %j", async (status, body, headers, end) => {
    const { asked, ends } = opened(sse);
    await asked[0]!.answer(status, body, headers);
    expect(ends).toEqual([end]);
  });
});

describe("polls", () => {
  const answer = (n: number, ...frames: unknown[]) => ({ session: "77", cursor: cursor(n, 5), frames });

  test("the next one begins when the last answer was handled, and says so", async () => {
    const { asked, frames, handle } = opened(longPoll);
    expect(asked[0]!.url.searchParams.get("after")).toBe("41");
    await asked[0]!.answer(200, answer(11, { type: "pong" }, { type: "later" }));
    expect(frames).toEqual([{ type: "pong" }]);
    expect(asked).toHaveLength(1);
    await handle();
    expect(Object.fromEntries(asked[1]!.url.searchParams)).toEqual({ session: "77", cursor: cursor(11, 5), client: "c/1", version: "1" });
  });

  test.each(refusals)("%s %j", async (status, body, headers, end) => {
    const { asked, ends } = opened(longPoll);
    await asked[0]!.answer(status, body, headers);
    expect(ends).toEqual([end]);
  });

  test("an answer that does not come, and one that says goodbye, are the end", async () => {
    const silent = opened(longPoll);
    await silent.clock.pass(65_000);
    expect(silent.ends).toEqual([{}]);
    expect(silent.asked[0]!.init.signal!.aborted).toBe(true);
    const { asked, ends, handle } = opened(longPoll);
    await asked[0]!.answer(200, answer(11, { type: "goaway", code: 4000 }));
    await handle();
    expect(ends).toEqual([{}]);
    expect(asked).toHaveLength(1);
  });

  test("a goodbye acknowledges what was handled, in a request that outlives the page", async () => {
    const { asked, connection, handle } = opened(longPoll);
    await asked[0]!.answer(200, answer(11));
    await handle();
    connection.close();
    expect(asked[1]!.init.signal!.aborted).toBe(true);
    expect(asked[2]!.url.pathname).toBe("/connect/frames");
    expect(asked[2]!.init.keepalive).toBe(true);
    expect(JSON.parse(asked[2]!.init.body as string)).toEqual([{ type: "ack", cursor: cursor(11, 5) }]);
  });
});

describe("frames beside a session", () => {
  const ack = (n: number) => ({ type: "ack", cursor: cursor(n, 5) }) as const;
  const body = (a: Asked): unknown => JSON.parse(a.init.body as string);

  test("one request at a time, of acknowledgements the last", async () => {
    const { asked, connection } = opened(sse);
    connection.send(ack(11));
    connection.send(ack(12));
    connection.send({ type: "tags" });
    connection.send(ack(13));
    expect(asked).toHaveLength(2);
    await asked[1]!.answer(204);
    expect(body(asked[2]!)).toEqual([{ type: "tags" }, ack(13)]);
  });

  test("are sent again after what stood in the way, when the gateway says", async () => {
    const { asked, connection, clock } = opened(sse);
    connection.send(ack(11));
    await asked[1]!.fail();
    await clock.pass(1000);
    await asked[2]!.answer(503, {}, { "retry-after": "9" });
    await clock.pass(8999);
    expect(asked).toHaveLength(3);
    await clock.pass(1);
    expect(body(asked[3]!)).toEqual([ack(11)]);
    await asked[3]!.answer(400, { code: "malformed_frame" });
    await clock.pass(60_000);
    expect(asked).toHaveLength(4);
  });

  test("another node has the session: a new token needs a new connection, tags are refused", async () => {
    const tags = opened(sse);
    tags.connection.send({ type: "tags" });
    await tags.asked[1]!.answer(409, { code: "no_session" });
    expect(tags.frames).toEqual([{ type: "error", code: "no_session" }]);
    const refresh = opened(sse);
    refresh.connection.send({ type: "refresh", token: "new" });
    await refresh.asked[1]!.answer(409, { code: "no_session" });
    expect(refresh.ends).toEqual([{}]);
  });

  test("nothing is sent after the end, and what waits goes with a goodbye", async () => {
    const gone = opened(sse);
    gone.connection.abort();
    gone.connection.send(ack(11));
    expect(gone.asked).toHaveLength(1);
    const { asked, connection } = opened(sse);
    connection.send(ack(11));
    connection.send(ack(12));
    connection.close();
    expect(body(asked.at(-1)!)).toContainEqual(ack(12));
    expect(asked.at(-1)!.init.keepalive).toBe(true);
  });
});
