// A clock that goes when it is told to, and a transport whose other side is the test.
import type { ClientFrame, Clock, Connection, End, OpenRequest, ServerFrame, Sink, Transport } from "../../src/types.js";

/** Lets everything that waits for no time come to its end. */
export async function settled(): Promise<void> {
  // Chains of promises here are short: storages and tokens of tests answer at once.
  for (let i = 0; i < 50; i++) await Promise.resolve();
}

export class FakeClock implements Clock {
  #now = 1_700_000_000_000;
  #timers: { at: number; run: () => void }[] = [];

  now = (): number => this.#now;

  after = (ms: number, run: () => void): (() => void) => {
    const timer = { at: this.#now + ms, run };
    this.#timers.push(timer);
    return () => (this.#timers = this.#timers.filter((t) => t !== timer));
  };

  /** Lets time pass, timer by timer. */
  async pass(ms: number): Promise<void> {
    const until = this.#now + ms;
    await settled();
    for (let timers = 0; ; timers++) {
      if (timers > 10_000) throw new Error("timers without end");
      const next = this.#timers.filter((t) => t.at <= until).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#timers = this.#timers.filter((t) => t !== next);
      this.#now = Math.max(this.#now, next.at);
      next.run();
      await settled();
    }
    this.#now = until;
  }
}

export const OWNER = "1.178eaeea334af2f8";
export const cursor = (own: number, common: number): string => `${OWNER}.4a.9c.${own.toString(16)}.77.9c.${common.toString(16)}`;

/** One connection, from the other side. */
export class Peer {
  readonly sent: ClientFrame[] = [];
  /** How the client left, if it did. */
  left: "close" | "abort" | undefined;
  handled = 0;

  constructor(
    readonly request: OpenRequest,
    readonly sink: Sink,
  ) {}

  say(...frames: ServerFrame[]): void {
    this.sink.heard();
    this.sink.frames(frames);
  }

  welcome(more: object = {}): void {
    this.say({
      type: "welcome",
      version: 1,
      session: "41",
      cursor: this.request.connect.cursor ?? cursor(10, 5),
      own: "resumed",
      common: "resumed",
      heartbeat_ms: 50_000,
      grace_ms: 10_000,
      frame_bytes: 16384,
      frames_per_second: 20,
      time: this.request.clock.now(),
      ...more,
    });
  }

  message(pos: number, id: string, body: unknown = id): void {
    this.say({ type: "message", slot: 0, pos, id, time: 1, expires: 2, body });
  }

  end(end: End = {}): void {
    this.sink.ended(end);
  }

  get acks(): string[] {
    return this.sent.flatMap((f) => (f.type === "ack" ? [f.cursor] : []));
  }
}

export class FakeTransport implements Transport {
  readonly available = true;
  readonly peers: Peer[] = [];

  constructor(
    readonly name = "websocket",
    readonly as: { alive: Connection["alive"]; acknowledges?: boolean } = { alive: "ping" },
  ) {}

  get last(): Peer {
    return this.peers.at(-1)!;
  }

  open(request: OpenRequest, sink: Sink): Connection {
    const peer = new Peer(request, sink);
    this.peers.push(peer);
    return {
      alive: this.as.alive,
      ...(this.as.acknowledges && { handled: () => void peer.handled++ }),
      send: (frame) => void peer.sent.push(frame),
      close: () => (peer.left = "close"),
      abort: () => (peer.left = "abort"),
    };
  }
}

/** A token that says whose it is, and when it runs out. */
export function tokenFor(device = "phone", more: object = {}): string {
  const part = (o: object): string => Buffer.from(JSON.stringify(o)).toString("base64url");
  return `${part({ alg: "HS256" })}.${part({ aud: "dev", sub: "alice", did: device, ...more })}.c2ln`;
}
