import { parse } from "./codec.js";
import { connectQuery, httpTransport, refusal, type Fetch } from "./http.js";
import type { Transport } from "./types.js";

/** The frames in a stream of events, as it comes in pieces. Each stands on one line; what may surround it there is white space to JSON. */
export function eventReader(): (piece: string) => string[] {
  let rest = "";
  return (piece) => {
    const lines = (rest + piece).split("\n");
    rest = lines.pop()!;
    return lines.filter((l) => l.startsWith("data:")).map((l) => l.slice(5));
  };
}

/**
 * Connections over Server-Sent Events, read with `fetch`: for networks that let no WebSocket through. What the client has to say goes by requests
 * of their own. With several nodes, these have to reach the node of the stream for tags: by a balancer that keeps a client at its node.
 */
export function sse({ fetch }: { fetch?: Fetch } = {}): Transport {
  return httpTransport("sse", fetch, "listen", async (x) => {
    const response = await x.ask(`/connect/sse${connectQuery(x.open)}`);
    if (!response.ok) return x.end(await refusal(response));
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    const events = eventReader();
    while (!x.over) {
      const { value, done } = await reader.read();
      if (done) return x.end({});
      x.sink.heard();
      x.take(events(value).map(parse));
    }
  });
}
