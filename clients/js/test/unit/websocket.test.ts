// Connections over WebSocket, against a socket whose other side is the test.
import { describe, expect, test } from "vitest";
import { createClient, checkFrame, webSocket, type CoreOptions, type WebSocketLike } from "../../src/core.js";
import type { Connection, End } from "../../src/types.js";
import { cursor, FakeClock, settled, tokenFor } from "./fake.js";

type Socket = InstanceType<WebSocketLike>;

class FakeSocket implements Socket {
  static made: FakeSocket[] = [];
  onopen: Socket["onopen"] = null;
  onmessage: Socket["onmessage"] = null;
  onclose: Socket["onclose"] = null;
  onerror: Socket["onerror"] = null;
  readonly sent: string[] = [];
  closed: number | undefined;

  constructor(readonly url: string) {
    FakeSocket.made.push(this);
  }

  send(data: string): void {
    this.sent.push(data);
  }

  close(code?: number): void {
    this.closed = code;
  }
}

/** A connection by itself. */
function opened(frames: (f: readonly unknown[]) => void = () => {}): { socket: FakeSocket; connection: Connection; ends: End[] } {
  const ends: End[] = [];
  const connection = webSocket({ WebSocket: FakeSocket }).open(
    { endpoint: "https://push.example.com", token: () => "t0ken", connect: { type: "connect", version: 1, cursor: cursor(10, 5) }, clock: new FakeClock() },
    { heard: () => {}, frames, ended: (e) => ends.push(e) },
  );
  return { socket: FakeSocket.made.at(-1)!, connection, ends };
}

test("begins with the connect frame, which has the token that is in use then", () => {
  const { socket } = opened();
  expect(socket.url).toBe("wss://push.example.com/connect");
  socket.onopen!({});
  expect(socket.sent.map((s) => JSON.parse(s) as unknown)).toEqual([{ type: "connect", version: 1, cursor: cursor(10, 5), token: "t0ken" }]);
});

test("one that is given up before it is open says nothing, and tells nothing", () => {
  const { socket, connection, ends } = opened();
  connection.abort();
  expect(socket.closed).toBe(1000);
  socket.onopen?.({});
  socket.onmessage?.({ data: '{"type":"ping"}' });
  socket.onclose?.({ code: 1006, reason: "" });
  expect(socket.sent).toEqual([]);
  expect(ends).toEqual([]);
});

test.each([
  [{ code: 4201, reason: "revoked" }, { code: 4201, reason: "revoked" }],
  [{ code: 4000, reason: "" }, { code: 4000 }],
  [{ code: 1006, reason: "a proxy's own words" }, {}],
])("the close %j", (close, end) => {
  const { socket, ends } = opened();
  socket.onclose!(close);
  expect(ends).toEqual([end]);
});

/** A client in the core that is connected over such a socket. */
async function connected(more: Partial<CoreOptions>) {
  const clock = new FakeClock();
  const client = createClient({
    endpoint: "https://push.example.com",
    getToken: () => tokenFor(),
    transports: [webSocket({ WebSocket: FakeSocket })],
    clock,
    random: () => 0.5,
    ...more,
  });
  const got: string[] = [];
  const errors: { code?: string; message: string }[] = [];
  client.on("message", (m) => void got.push(m.id));
  client.on("error", (e) => errors.push(e));
  client.connect().catch(() => {});
  await settled();
  const socket = FakeSocket.made.at(-1)!;
  const say = (text: string): void => socket.onmessage!({ data: text });
  say(
    JSON.stringify({
      ...{ type: "welcome", version: 1, session: "41", cursor: cursor(10, 5), own: "resumed", common: "resumed", time: clock.now() },
      ...{ heartbeat_ms: 50_000, grace_ms: 10_000, frame_bytes: 16384, frames_per_second: 20 },
    }),
  );
  return { client, clock, socket, say, got, errors };
}

describe.each([
  ["with checks", { check: checkFrame }],
  ["without", {}],
] as [string, Partial<CoreOptions>][])("frames, %s", (_, more) => {
  test.each([["{s3cret"], ["null"], ['"s3cret"'], ["{}"]])("%s is none", async (text) => {
    const { client, clock, socket, say, errors } = await connected(more);
    say(text);
    // Without checks, what has no type is of a later version.
    if (socket.closed === undefined) return expect([more.check, text]).toEqual([undefined, expect.stringMatching(/^"s3cret"$|^{}$/)]);
    expect(socket.closed).toBe(1000);
    expect(errors.map((e) => e.code)).toEqual(["protocol"]);
    expect(String(errors[0])).not.toContain("s3cret");
    // It comes back.
    expect(client.state).toBe("waiting");
    await clock.pass(1000);
    expect(FakeSocket.made.at(-1)).not.toBe(socket);
  });

  test.each(["later", "connect", "ack", "toString", "__proto__"])("of the type %s moves nothing", async (type) => {
    const { client, socket, say } = await connected(more);
    say(JSON.stringify({ type, slot: 0, pos: 11, id: "1", cursor: cursor(99, 99) }));
    expect(client.cursor).toBe(cursor(10, 5));
    expect(socket.closed).toBe(more.check && /connect|ack/.test(type) ? 1000 : undefined);
  });

  test("a message", async () => {
    const { client, say, got } = await connected(more);
    say('{"type":"message","slot":0,"pos":11,"id":"1","time":1,"expires":2,"body":{"n":1}}');
    expect(got).toEqual(["1"]);
    expect(client.cursor).toBe(cursor(11, 5));
  });
});

test("without checks, a message whose body is no base64 is one that its handlers failed at", async () => {
  const { clock, say, got, errors } = await connected({});
  say('{"type":"message","slot":0,"pos":11,"id":"1","time":1,"expires":2,"body_base64":"*s3cret*"}');
  say('{"type":"message","slot":0,"pos":12,"id":"2","time":1,"expires":2,"body":1}');
  await clock.pass(60_000);
  expect(got).toEqual(["2"]);
  expect(errors.map((e) => e.code)).toContain("handler_gave_up");
  expect(errors.join()).not.toContain("s3cret");
});

test("with checks a member that is not what it has to be ends the connection", () => {
  const { socket, ends } = opened((frames) => frames.forEach(checkFrame as (f: unknown) => void));
  socket.onmessage!({ data: '{"type":"message","slot":0,"pos":"s3cret","id":"1","time":1}' });
  expect(ends).toEqual([{ detail: "invalid_field message.pos" }]);
  expect(socket.closed).toBe(1000);
});
