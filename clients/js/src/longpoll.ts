import { connectQuery, httpTransport, refusal, type Fetch } from "./http.js";
import type { ServerFrame, Transport } from "./types.js";

/** How long a poll is held at most, in seconds, and how much longer its answer may take, in milliseconds. */
const WAIT_S = 55;
const LATE_MS = 10_000;

/**
 * Connections by one request after the other, each held until there is something to say: for networks that let nothing else through. The next
 * messages are asked for when those before have been handled.
 */
export function longPoll({ fetch }: { fetch?: Fetch } = {}): Transport {
  return httpTransport("longpoll", fetch, "self", async (x) => {
    let query = connectQuery(x.open);
    while (!x.over) {
      const onTime = x.clock.after(WAIT_S * 1000 + LATE_MS, () => x.end({}));
      const response = await x.ask(`/connect/poll${query}`).finally(onTime);
      if (!response.ok) return x.end(await refusal(response));
      const { session, cursor, frames } = (await response.json()) as { session: string; cursor: string; frames: ServerFrame[] };
      x.sink.heard();
      await new Promise<void>((handled) => {
        x.handled = handled;
        x.take(frames);
      });
      if (frames.some((f) => f.type === "kick" || f.type === "goaway")) return x.end({});
      // The next poll acknowledges all of the answer; until it has begun, a goodbye has to say so.
      x.last = [{ type: "ack", cursor }];
      query = connectQuery(x.open, { session, cursor, after: undefined });
    }
  });
}
