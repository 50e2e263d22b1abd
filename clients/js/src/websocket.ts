import { decode } from "./codec.js";
import type { Connection, OpenRequest, Sink, Transport } from "./types.js";

/** What {@link webSocket} needs of a WebSocket: browsers, workers, Node from 22 on and the package `ws` have it. */
export type WebSocketLike = new (url: string) => {
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number): void;
};

/**
 * Connections over WebSocket: both ways, and the cheapest. Pass the constructor where the runtime has none (Node 20), or another than its own:
 * `webSocket({ WebSocket: require("ws") })`.
 */
export function webSocket(options: { WebSocket?: WebSocketLike } = {}): Transport {
  const Socket = options.WebSocket ?? (globalThis.WebSocket as unknown as WebSocketLike | undefined);
  return {
    name: "websocket",
    available: Socket !== undefined,
    open(request, sink) {
      return open(new Socket!(`${request.endpoint.replace(/^http/, "ws")}/connect`), request, sink);
    },
  };
}

function open(socket: InstanceType<WebSocketLike>, request: OpenRequest, sink: Sink): Connection {
  let over = false;
  const end = (code?: number, reason?: string): void => {
    if (over) return;
    over = true;
    // Codes below are of the network, and say nothing about the client.
    sink.ended(code !== undefined && code >= 4000 ? { code, ...(reason ? { reason } : {}) } : {});
  };
  const close = (): void => {
    over = true;
    socket.onmessage = null;
    socket.close(1000);
  };
  socket.onopen = () => {
    // One that was given up meanwhile says nothing: it would take the place of what came after it.
    if (over) socket.close(1000);
    else socket.send(JSON.stringify({ ...request.connect, token: request.token() }));
  };
  socket.onmessage = ({ data }) => {
    if (over) return;
    sink.heard();
    let frame;
    try {
      frame = decode(String(data));
    } catch (e) {
      close();
      return sink.ended({ detail: (e as Error).message });
    }
    if (frame) sink.frames([frame]);
  };
  socket.onclose = (e) => end(e.code, e.reason);
  socket.onerror = () => {}; // `onclose` follows
  return {
    alive: "ping",
    acknowledges: false,
    send(frames) {
      for (const f of frames) socket.send(JSON.stringify(f));
    },
    close,
    abort: close,
  };
}
