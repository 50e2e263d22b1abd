// A client over polls as they are: what is handled when, and what the next poll acknowledges by that.
import { expect, test } from "vitest";
import { createClient, longPoll, memoryStorage, type ClientOptions, type Message } from "../../src/index.js";
import { cursor, FakeClock, settled, tokenFor } from "./fake.js";

/** A client whose polls wait for the test to answer them, after its first welcome. */
async function polling(handler: ((m: Message) => unknown) | undefined, more: Partial<ClientOptions> = {}) {
  const clock = new FakeClock();
  const polls: { cursor: string | null; answer(n: number, ...frames: object[]): Promise<void> }[] = [];
  const fetch = (url: unknown, init: RequestInit = {}): Promise<Response> =>
    new Promise((resolve, reject) => {
      init.signal?.addEventListener("abort", () => reject(new Error("aborted")));
      polls.push({
        cursor: new URL(String(url)).searchParams.get("cursor"),
        answer: async (n, ...frames) => {
          resolve(new Response(JSON.stringify({ session: "41", cursor: cursor(n, 5), frames })));
          await new Promise((r) => setImmediate(r));
          await settled();
        },
      });
    });
  const client = createClient({
    endpoint: "https://push.example.com",
    getToken: () => tokenFor(),
    transports: [longPoll({ fetch: fetch as typeof globalThis.fetch })],
    storage: memoryStorage(),
    tabs: false,
    clock,
    random: () => 0.5,
    ...more,
  });
  if (handler) client.on("message", handler);
  client.connect().catch(() => {});
  await settled();
  return { client, polls, clock };
}

const welcome = (clock: FakeClock): object => ({
  ...{ type: "welcome", version: 1, session: "41", cursor: cursor(10, 5), own: "resumed", common: "resumed", time: clock.now() },
  ...{ heartbeat_ms: 50_000, grace_ms: 10_000, frame_bytes: 16384, frames_per_second: 20 },
});
const message = (pos: number): object => ({ type: "message", slot: 0, pos, id: String(pos), time: 1, expires: 2, body: pos });

test("what comes with the welcome is acknowledged when its handler is done", async () => {
  let done = (): void => {};
  const { client, polls, clock } = await polling(() => new Promise<void>((resolve) => (done = resolve)));
  await polls[0]!.answer(11, welcome(clock), message(11));
  expect(polls).toHaveLength(1);
  expect(client.cursor).toBe(cursor(10, 5));
  done();
  await settled();
  expect(polls.map((p) => p.cursor)).toEqual([null, cursor(11, 5)]);
});

test.each([
  ["a gap", { type: "gap", slot: 0, from: 10, to: 10, reason: "limit" }],
  ["a cursor", { type: "cursor", cursor: cursor(10, 5), reason: "caught_up" }],
  ["a recall", { type: "recall", slot: 0, pos: 10, id: "3" }],
])("what stands behind %s in an answer is not acknowledged with it", async (_, before) => {
  const { client, polls, clock } = await polling(() => new Promise(() => {}));
  await polls[0]!.answer(10, welcome(clock));
  await polls[1]!.answer(11, before, message(11));
  expect(polls).toHaveLength(2);
  expect(client.cursor).toBe(cursor(10, 5));
});

test("by hand: the next poll comes when all of an answer is acknowledged", async () => {
  const { client, polls, clock } = await polling(() => {}, { acknowledge: "manual" });
  await polls[0]!.answer(12, welcome(clock), message(11), message(12));
  client.acknowledge("12");
  await settled();
  expect(polls).toHaveLength(1);
  client.acknowledge("11");
  await settled();
  expect(polls.at(-1)!.cursor).toBe(cursor(12, 5));
});

test("while nobody listens messages wait, and so does the next poll", async () => {
  const { client, polls, clock } = await polling(undefined);
  await polls[0]!.answer(11, welcome(clock), message(11));
  expect(polls).toHaveLength(1);
  client.on("message", () => {});
  await settled();
  expect(polls.at(-1)!.cursor).toBe(cursor(11, 5));
});
