import { framePoster, connectQuery, refusal, request, type Fetch } from "./http.js";
import type { Transport } from "./types.js";
import { deliver } from "./websocket.js";

/** The data of the events in a stream of text, as it comes in pieces. */
export function eventReader(): (piece: string) => string[] {
  let rest = "";
  let data = "";
  return (piece) => {
    const found: string[] = [];
    const lines = (rest + piece).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const text = line.endsWith("\r") ? line.slice(0, -1) : line;
      if (text.startsWith("data:")) data += text.slice(text[5] === " " ? 6 : 5);
      else if (!text && data) {
        found.push(data);
        data = "";
      }
    }
    return found;
  };
}

/**
 * Connections over Server-Sent Events, read with `fetch`: for networks that let no WebSocket through. What the client has to say goes by requests
 * of their own. With several nodes, these have to reach the node of the stream for tags: by a balancer that keeps a client at its node.
 */
export function sse(options: { fetch?: Fetch } = {}): Transport {
  const fetch: Fetch = options.fetch ?? ((...args) => globalThis.fetch(...args));
  return {
    name: "sse",
    available: options.fetch !== undefined || typeof globalThis.fetch === "function",
    open(open, sink) {
      const stop = new AbortController();
      const poster = framePoster(fetch, open, sink);
      let over = false;
      const end = (e: object): void => {
        if (over) return;
        over = true;
        stop.abort();
        poster.stop([]);
        sink.ended(e);
      };
      const read = async (): Promise<void> => {
        const response = await request(fetch, open, `/connect/sse${connectQuery(open)}`, { signal: stop.signal });
        if (!response.ok || !response.body) return end(await refusal(response));
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        const events = eventReader();
        for (;;) {
          const { value, done } = await reader.read();
          if (over) return;
          if (done) return end({});
          sink.heard();
          if (!deliver(events(value), sink, (why) => end({ detail: why.message }))) return;
        }
      };
      read().catch(() => end({}));
      return {
        alive: "listen",
        acknowledges: false,
        send: poster.send,
        close() {
          over = true;
          poster.stop();
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
