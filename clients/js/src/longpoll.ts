import { check, FrameError } from "./codec.js";
import { framePoster, connectQuery, refusal, request, type Fetch } from "./http.js";
import type { ClientFrame, ServerFrame, Transport } from "./types.js";

/** How long a poll is held at most, in seconds, and how much longer its answer may take, in milliseconds. */
const WAIT_S = 55;
const LATE_MS = 10_000;

/**
 * Connections by one request after the other, each held until there is something to say: for networks that let nothing else through. The next
 * messages are asked for when those before have been handled.
 */
export function longPoll(options: { fetch?: Fetch } = {}): Transport {
  const fetch: Fetch = options.fetch ?? ((...args) => globalThis.fetch(...args));
  return {
    name: "longpoll",
    available: options.fetch !== undefined || typeof globalThis.fetch === "function",
    open(open, sink) {
      const stop = new AbortController();
      const poster = framePoster(fetch, open, sink);
      let over = false;
      let last: ClientFrame[] = [];
      const end = (e: object): void => {
        if (over) return;
        over = true;
        stop.abort();
        poster.stop([]);
        sink.ended(e);
      };

      async function ask(query: string): Promise<{ session: string; cursor: string; frames: ServerFrame[] } | undefined> {
        const timeOut = open.clock.after(WAIT_S * 1000 + LATE_MS, () => end({}));
        try {
          const response = await request(fetch, open, `/connect/poll${query}`, { signal: stop.signal });
          if (!response.ok) {
            end(await refusal(response));
            return undefined;
          }
          const answer = (await response.json()) as { session: string; cursor: string; frames?: unknown[] };
          const frames: ServerFrame[] = [];
          for (const f of answer.frames ?? []) {
            try {
              frames.push(check(f));
            } catch (e) {
              if (!(e instanceof FrameError && e.code === "unknown_frame")) throw e;
            }
          }
          return { ...answer, frames };
        } finally {
          timeOut();
        }
      }

      async function poll(): Promise<void> {
        let query = connectQuery(open);
        for (;;) {
          const answer = await ask(query);
          if (!answer || over) return;
          sink.heard();
          await new Promise<void>((resolve) => sink.frames(answer.frames, resolve));
          if (over) return;
          if (answer.frames.some((f) => f.type === "kick" || f.type === "goaway")) return end({});
          // The next poll acknowledges all of the answer; until it has begun, a goodbye has to say so.
          last = [{ type: "ack", cursor: answer.cursor }];
          query = connectQuery(open, { session: answer.session, cursor: answer.cursor, after: undefined });
        }
      }
      poll().catch(() => end({}));

      return {
        alive: "self",
        acknowledges: true,
        send: poster.send,
        close() {
          over = true;
          poster.stop(last);
          stop.abort();
        },
        abort() {
          over = true;
          poster.stop([]);
          stop.abort();
        },
      };
    },
  };
}
