import { parse } from "./codec.js";
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
    available: Boolean(Socket),
    open(request, sink) {
      return open(new Socket!(`${request.endpoint.replace(/^http/, "ws")}/connect`), request, sink);
    },
  };
}

function open(socket: InstanceType<WebSocketLike>, request: OpenRequest, sink: Sink): Connection {
  const close = (): void => {
    // One that is given up says nothing any more: it would take the place of what came after it.
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  };
  socket.onopen = () => socket.send(JSON.stringify({ ...request.connect, token: request.token() }));
  socket.onmessage = ({ data }) => {
    sink.heard();
    try {
      sink.frames([parse(data)]);
    } catch (e) {
      close();
      sink.ended({ detail: (e as Error).message });
    }
  };
  // Codes below are of the network, and say nothing about the client.
  socket.onclose = ({ code, reason }) => sink.ended(code >= 4000 ? { code, ...(reason && { reason }) } : {});
  socket.onerror = () => {}; // `onclose` follows
  return {
    alive: "ping",
    send: (frame) => socket.send(JSON.stringify(frame)),
    close,
    abort: close,
  };
}
