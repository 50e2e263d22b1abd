// A network between client and gateway that can be made as bad as networks are: a TCP proxy on loopback which knows just enough of HTTP/1.1 to tell
// WebSockets and event streams from the rest.

import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import type { Clock } from "../../src/index.js";
import { JumpClock } from "./clock.js";

/** `pass`: everything. `cut`: all connections are reset, and new ones too. `blackhole`: connections are taken, and nothing is forwarded until that ends. */
export type Mode = "pass" | "cut" | "blackhole";

interface Pair {
  readonly client: Socket;
  upstream: Socket | undefined;
  /** Of the request that the connection carries now. */
  kind: "webSocket" | "stream" | "other";
  /** Whether the head of the stream's answer has passed. */
  headPassed: boolean;
  /** Bytes that the gateway said over the WebSocket, its handshake among them. */
  bytes: number;
  /** Whether something of it was delayed: from then on everything goes behind that. */
  slow?: boolean;
  /** What is on its way in each direction while the network is slow: one behind the other, so that a delay that changes reorders nothing. */
  readonly onWay: { said: Promise<void>; answered: Promise<void> };
}

export class Proxy {
  /** What becomes of the upgrade to a WebSocket. `refuse`: 502. `swallow`: it is never answered. */
  webSockets: "pass" | "refuse" | "swallow" = "pass";
  /** WebSockets are reset that long after their upgrade, in milliseconds. 0: not at all. */
  cutWebSocketAfter = 0;
  /** WebSockets are reset once the gateway has said that many bytes, wherever in a frame that falls. 0: not at all. */
  cutWebSocketAfterBytes = 0;
  /** How much later everything arrives, in milliseconds of `clock`, in each direction. */
  delay = 0;
  clock: Clock = new JumpClock();
  /** The bodies of event streams are held back, as by a proxy that waits for their end. */
  bufferStreams = false;
  /** How many upgrades, and requests for streams, polls and frames, have come. */
  readonly counts = { webSocket: 0, sse: 0, poll: 0, frames: 0 };
  /** How many WebSockets were reset by `cutWebSocketAfter` or `cutWebSocketAfterBytes`. */
  webSocketsCut = 0;
  #mode: Mode = "pass";
  readonly #pairs = new Set<Pair>();
  #server!: Server;
  url!: string;

  private constructor(private readonly target: number) {}

  /** Starts one in front of a port. */
  static async start(target: number): Promise<Proxy> {
    const p = new Proxy(target);
    p.#server = createServer((s) => p.#accept(s));
    await new Promise<void>((done) => p.#server.listen(0, "127.0.0.1", done));
    p.url = `http://127.0.0.1:${(p.#server.address() as AddressInfo).port}`;
    return p;
  }

  get mode(): Mode {
    return this.#mode;
  }

  set mode(mode: Mode) {
    this.#mode = mode;
    for (const p of this.#pairs) {
      if (mode === "cut") drop(p);
      else if (mode === "blackhole") {
        p.client.pause();
        p.upstream?.pause();
      } else {
        this.#forward(p);
        p.client.resume();
        p.upstream?.resume();
      }
    }
  }

  /** How many connections stand. */
  get open(): number {
    return this.#pairs.size;
  }

  async stop(): Promise<void> {
    this.mode = "cut";
    await new Promise((done) => this.#server.close(done));
  }

  #accept(client: Socket): void {
    if (this.#mode === "cut") {
      client.resetAndDestroy();
      return;
    }
    const p: Pair = { client, upstream: undefined, kind: "other", headPassed: false, bytes: 0, onWay: { said: Promise.resolve(), answered: Promise.resolve() } };
    this.#pairs.add(p);
    client.setNoDelay(true);
    client.on("error", () => drop(p));
    client.on("close", () => {
      this.#pairs.delete(p);
      drop(p);
    });
    client.on("end", () => this.#later(p, "said", () => p.upstream?.end()));
    client.on("data", (data) => this.#later(p, "said", () => this.#said(p, data)));
    if (this.#mode === "blackhole") client.pause();
    else this.#forward(p);
  }

  #forward(p: Pair): void {
    if (p.upstream) return;
    const upstream = (p.upstream = connect(this.target, "127.0.0.1"));
    upstream.setNoDelay(true);
    upstream.on("error", () => drop(p));
    upstream.on("close", () => this.#later(p, "answered", () => drop(p)));
    upstream.on("end", () => this.#later(p, "answered", () => p.client.end()));
    upstream.on("data", (data) => this.#later(p, "answered", () => this.#answered(p, data)));
  }

  #later(p: Pair, way: keyof Pair["onWay"], what: () => void): void {
    if (!this.delay && !p.slow) return what();
    p.slow = true;
    const { clock } = this;
    const due = clock.now() + this.delay;
    p.onWay[way] = p.onWay[way].then(async () => {
      const left = due - clock.now();
      if (left > 0) await new Promise<void>((done) => clock.after(left, done));
      if (this.#pairs.has(p)) what();
    });
  }

  /** A client has one request at a time on a connection, so that each begins a piece of its own. */
  #said(p: Pair, data: Buffer): void {
    if (p.kind !== "webSocket") {
      const head = data.toString("latin1", 0, 4096);
      const request = /^(GET|POST) \/connect(\/\w+)?/.exec(head);
      if (request) {
        p.kind = "other";
        if (!request[2] && /\nupgrade: *websocket/i.test(head)) {
          this.counts.webSocket++;
          if (this.webSockets === "refuse") {
            p.client.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
          }
          if (this.webSockets === "swallow") return;
          p.kind = "webSocket";
          if (this.cutWebSocketAfter) {
            setTimeout(() => {
              if (this.#pairs.has(p)) this.webSocketsCut++;
              drop(p);
            }, this.cutWebSocketAfter).unref();
          }
        } else if (request[2] === "/sse") {
          this.counts.sse++;
          p.kind = "stream";
          p.headPassed = false;
        } else if (request[2] === "/poll") this.counts.poll++;
        else if (request[2] === "/frames" && request[1] === "POST") this.counts.frames++;
      }
    }
    if (!p.upstream!.write(data)) {
      p.client.pause();
      p.upstream!.once("drain", () => this.#mode !== "blackhole" && p.client.resume());
    }
  }

  #answered(p: Pair, data: Buffer): void {
    if (p.kind === "stream" && this.bufferStreams) {
      if (p.headPassed) return;
      p.headPassed = true;
      const end = data.indexOf("\r\n\r\n");
      data = end < 0 ? data : data.subarray(0, end + 4);
    }
    p.bytes += data.length;
    if (p.kind === "webSocket" && this.cutWebSocketAfterBytes && p.bytes >= this.cutWebSocketAfterBytes) {
      const passed = data.subarray(0, data.length - (p.bytes - this.cutWebSocketAfterBytes));
      this.webSocketsCut++;
      // What is before the cut arrives, and then the reset: a client has to do with half of a frame.
      p.client.write(passed, () => drop(p));
      p.upstream!.destroy();
      return;
    }
    if (!p.client.write(data)) {
      p.upstream!.pause();
      p.client.once("drain", () => this.#mode !== "blackhole" && p.upstream!.resume());
    }
  }
}

function drop(p: Pair): void {
  if (!p.client.destroyed) p.client.resetAndDestroy();
  p.upstream?.destroy();
}
