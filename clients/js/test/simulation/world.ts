// A browser profile at a gateway, both made up: tabs whose pages die, freeze and are hidden, a network that fails, a gateway that dies, storages that take their time. All of it goes by one
// clock and one seed, so that a run that fails is the same again.

import { check } from "../../src/check.js";
import { makeClient } from "../../src/client.js";
import { persistent } from "../../src/keep.js";
import { fallback } from "../../src/race.js";
import { shared, sharedTabs } from "../../src/tabs.js";
import type { Clock, Connection, CoreClient, Happening, OpenRequest, Place, ServerFrame, Sink, Storage, Transport } from "../../src/types.js";
import { settled, tokenFor } from "../unit/fake.js";

/** Numbers in [0, 1), of a seed: by Marsaglia's xorshift of 32 bits ("Xorshift RNGs", 2003). */
function chance(seed: number): () => number {
  // Any state but 0; seeds that are neighbours begin far from each other.
  let state = Math.imul(seed, 0x9e3779b1) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

interface Due {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** Time, which goes from one thing that is due to the next. */
class Time {
  now = 1_700_000_000_000;
  #due: Due[] = [];
  #order = 0;

  after(ms: number, run: () => void): () => void {
    const one = { at: this.now + Math.max(0, ms), order: this.#order++, run };
    this.#due.push(one);
    return () => (this.#due = this.#due.filter((d) => d !== one));
  }

  async pass(ms: number): Promise<void> {
    const until = this.now + ms;
    await settled();
    for (let things = 0; ; things++) {
      if (things > 20_000) throw new Error("things that are due without end");
      let next: Due | undefined;
      for (const d of this.#due) if (d.at <= until && (!next || d.at < next.at || (d.at === next.at && d.order < next.order))) next = d;
      if (!next) break;
      this.#due = this.#due.filter((d) => d !== next);
      this.now = Math.max(this.now, next.at);
      next.run();
      await settled();
    }
    this.now = until;
  }
}

const cursorOf = (own: number): string => `1.178eaeea334af2f8.4a.9c.${own.toString(16)}.77.9c.5`;
const placeOf = (cursor: string): number => parseInt(cursor.split(".")[4]!, 16);

/** What a run is made of. */
export interface Kind {
  /** Tabs that share, or one that is alone. */
  readonly tabs: number;
  /** Whether the storage takes its time, and whether it fails at times. Otherwise it answers at once. */
  readonly storage?: "slow" | "failing";
  readonly concurrency?: number;
  /** Whether handlers fail at times. */
  readonly failing?: boolean;
}

/** The gateway's side of a connection. */
class Line {
  open = true;
  /** Its client has given it up. */
  left = false;
  session = "";
  /** Up to where its client was sent to. */
  sent = 0;
  /** Of polls: whether one waits for its answer, and up to where the answer goes that is being handled. */
  waits = true;
  answered: number | undefined;
  /** What goes to the client, and what comes from it: neither overtakes its like. */
  readonly down: (run: () => void) => void;
  readonly back: (run: () => void) => void;

  constructor(
    readonly world: World,
    readonly page: Page,
    readonly sink: Sink,
    readonly polls: boolean,
    readonly request: OpenRequest,
  ) {
    this.down = world.queue();
    this.back = world.queue();
  }

  /** Frames on their way, in order; lost where the connection is lost. */
  frames(frames: readonly object[], arrived?: () => void): void {
    this.down(() =>
      this.page.hear(() => {
        trace(this.world, this.page.name, this.polls ? "poll" : "ws", this.open ? "hears" : "does not hear", frames.map((f) => Object.values(f).slice(0, 3).join(" ")).join());
        if (!this.open) return;
        this.sink.heard();
        arrived?.();
        // As they would come over a wire: what one side changes the other does not see.
        this.sink.frames(JSON.parse(JSON.stringify(frames)) as unknown[]);
      }),
    );
  }

  /** It is over, and the client is told. */
  end(code?: number): void {
    if (!this.open) return;
    this.open = false;
    if (this.world.line === this) this.world.line = undefined;
    this.down(() =>
      this.page.hear(() => {
        trace(this.world, this.page.name, "ended", code);
        if (!this.left) this.sink.ended(code ? { code, reason: "made_up" } : {});
      }),
    );
  }
}

/** The page of a tab, from when it is loaded until it dies. */
export class Page {
  readonly client: CoreClient;
  readonly name: string;
  alive = true;
  frozen = false;
  hidden = false;
  /** Where it was when it was first welcomed; what is behind that is for it. */
  from: number | undefined;
  /** What had been handled by then, which may be beyond that and need not come again. */
  finished: ReadonlySet<number> = new Set();
  /** Positions that handlers finished, in order. */
  readonly handled: number[] = [];
  /** Positions in the order in which they were first handed out. */
  readonly handed: number[] = [];
  /** At some time it did not run, and missed what others were told then. */
  everFrozen = false;
  /** Frozen without having been told. */
  hung = false;
  tell: ((what: Happening) => void) | undefined;

  constructor(
    readonly world: World,
    n: number,
  ) {
    const { kind, time, random } = world;
    this.name = `page ${n}`;
    const clock: Clock = {
      now: () => time.now,
      after: (ms, run) => {
        let cancelled = false;
        const ring = (): void => {
          if (!cancelled) run();
        };
        // A hidden page is given its timers late.
        const cancel = time.after(this.hidden ? Math.max(1000, ms) : ms, () => this.hear(ring));
        return () => {
          cancelled = true;
          cancel();
        };
      },
    };
    const transports = [this.transport("websocket", false), this.transport("longpoll", true)];
    this.client = makeClient({
      endpoint: "https://push.example.com",
      getToken: () => tokenFor("laptop", { iat: time.now / 1000, exp: time.now / 1000 + 600 }),
      transports: fallback(...transports),
      place: kind.tabs > 1 ? world.browser.shared(persistent(this.storage()), this) : persistent(this.storage()),
      page: (tell) => {
        this.tell = tell;
        return () => (this.tell = undefined);
      },
      concurrency: kind.concurrency ?? 1,
      check: (f) => {
        const { type, cursor } = f as { type: string; cursor: string };
        if (type === "welcome" && this.from === undefined) {
          this.from = placeOf(cursor);
          this.finished = world.finished;
        }
        return check(f);
      },
      clock,
      random,
    });
    this.client.on("message", (m) => {
      const pos = Number(m.id);
      if (!this.handed.includes(pos)) this.handed.push(pos);
      if (kind.failing && random() < 0.1) throw new Error("made up");
      if (random() < 0.5) return this.done(pos);
      return new Promise<void>((resolve, reject) => {
        clock.after(Math.floor(random() * 400), () => {
          if (kind.failing && random() < 0.1) return reject(new Error("made up"));
          this.done(pos);
          resolve();
        });
      });
    });
    this.client.on("state", ({ state, transport }) => trace(world, this.name, state, transport));
    this.client.on("error", (e) => {
      // What is tried again, and what was made up.
      const code = (e as { code?: string }).code!;
      if (!/^(unreachable|silent|storage|handler_failed|handler_gave_up)$/.test(code)) world.wrong.push(`${this.name}: ${code} ${e.message}`);
      const gaveUp = /^message (\d+)/.exec(e.message);
      if (code === "handler_gave_up" && gaveUp) this.done(Number(gaveUp[1]));
    });
    this.client.connect().catch(() => {});
  }

  #backlog: (() => void)[] = [];

  /** Something comes to it from outside: to one that does not run, when it runs again. */
  hear(run: () => void): void {
    if (!this.alive) return;
    if (this.frozen) this.#backlog.push(run);
    else run();
  }

  /** It runs again. */
  resume(): void {
    this.frozen = false;
    for (const run of this.#backlog.splice(0)) run();
  }

  private done(pos: number): void {
    if (!this.alive) return;
    trace(this.world, this.name, "handled", pos);
    if (this.handled.includes(pos)) this.world.wrong.push(`${this.name} handled ${pos} twice`);
    this.handled.push(pos);
    this.world.handled(pos);
  }

  private transport(name: string, polls: boolean): Transport {
    return {
      name,
      available: true,
      open: (request, sink): Connection => {
        const { world } = this;
        const line = new Line(world, this, sink, polls, request);
        line.back(() => world.connect(line));
        const leave = (): void => {
          line.open = false;
          line.back(() => world.line === line && (world.line = undefined));
        };
        return {
          alive: polls ? "self" : "ping",
          ...(polls && { handled: () => line.open && world.polled(line) }),
          send: (f) => {
            // What is lost on the way is lost.
            const arrives = line.open && world.network;
            line.back(() => {
              if (!arrives) return;
              if (f.type === "ack") world.acknowledged(placeOf(f.cursor), this);
              if (!line.open || world.line !== line) return;
              if (f.type === "ping") line.frames([{ type: "pong" }]);
              if (f.type === "refresh") line.frames([{ type: "refresh", expires: world.time.now + 600_000 }]);
            });
          },
          close: leave,
          abort: leave,
        };
      },
    };
  }

  private storage(): Storage {
    const { world } = this;
    const { kept, kind, random } = world;
    const slow = <T>(what: () => T): T | Promise<T> => {
      if (!this.alive) return new Promise(() => {});
      if (!kind.storage) return what();
      return new Promise((resolve, reject) => {
        world.time.after(Math.floor(random() * 60), () => {
          if (!this.alive) return;
          if (kind.storage === "failing" && random() < 0.05) reject(new Error("made up"));
          else resolve(what());
        });
      });
    };
    return { get: (key) => slow(() => kept.get(key)), set: (key, value) => slow(() => void kept.set(key, value)) };
  }
}

/** What happens, where somebody wants to read it: TRACE=1. */
const trace = (w: World, ...what: unknown[]): void => {
  if (process.env["TRACE"]) console.log(w.time.now - 1_700_000_000_000, ...what);
};

/** All of it. */
export class World {
  readonly time = new Time();
  readonly random: () => number;
  readonly kept = new Map<string, string>();
  readonly wrong: string[] = [];
  readonly pages: Page[] = [];
  network = true;

  // The gateway.
  up = true;
  sentLast = 10;
  #acked = 10;
  #sessions = 0;
  #finished = new Set<number>();
  line: Line | undefined;
  readonly browser = new Browser(this);

  constructor(
    readonly kind: Kind,
    seed: number,
  ) {
    this.random = chance(seed);
  }

  /** A way on which nothing overtakes. */
  queue(most = 80): (run: () => void) => void {
    let busy = 0;
    return (run) => {
      busy = Math.max(busy, this.time.now + Math.floor(this.random() * this.random() * most));
      this.time.after(busy - this.time.now, run);
    };
  }

  // ---- the gateway ----

  connect(line: Line): void {
    if (!line.page.alive) return;
    if (!line.open) {
      // One that was given up, and is opened all the same: it takes the place, and nobody is there.
      if (this.line && this.network && this.up && this.random() < 0.2) this.line.end(line.request.connect.after === this.line.session ? undefined : 4200);
      return;
    }
    if (!this.network || !this.up) {
      // Refused, or never answered.
      if (this.random() < 0.7) line.end();
      return;
    }
    const { cursor, after } = line.request.connect;
    if (this.line) this.line.end(after === this.line.session ? undefined : 4200);
    this.line = line;
    line.session = String(++this.#sessions);
    const at = cursor === undefined ? this.#acked : placeOf(cursor);
    line.sent = at;
    const welcome = {
      ...{ type: "welcome", version: 1, session: line.session, cursor: cursorOf(at), own: "resumed", common: "resumed", time: this.time.now },
      ...{ heartbeat_ms: 20_000, grace_ms: 5000, frame_bytes: 16384, frames_per_second: 20 },
    };
    if (line.polls) return this.answer(line, welcome);
    line.frames([welcome]);
    this.push(line);
    line.frames([{ type: "cursor", cursor: cursorOf(line.sent), reason: "caught_up" }]);
  }

  /** Sends what is behind, as it goes. */
  private push(line: Line): void {
    while (line.sent < this.sentLast) line.frames([message(++line.sent)]);
  }

  /** An answer to a poll, if there is one to give. */
  private answer(line: Line, ...before: object[]): void {
    const frames = [...before];
    const most = line.sent + 1 + Math.floor(this.random() * 8);
    while (line.sent < this.sentLast && line.sent < most) frames.push(message(++line.sent));
    if (!frames.length) return;
    line.waits = false;
    const at = line.sent;
    line.frames(frames, () => (line.answered = at));
  }

  /** The next poll, which acknowledges the answer before. */
  polled(line: Line): void {
    const at = line.answered;
    if (at === undefined) return;
    line.answered = undefined;
    const arrives = this.network && this.up;
    line.back(() => {
      if (!arrives || !line.open || this.line !== line) return line.end();
      this.acknowledged(at, line.page);
      line.waits = true;
      this.answer(line);
    });
  }

  acknowledged(at: number, by: Page): void {
    trace(this, by.name, "acknowledges", at);
    if (!this.up) return;
    for (let pos = this.#acked + 1; pos <= at; pos++) if (!this.#finished.has(pos)) this.wrong.push(`${by.name} acknowledged ${at}, and nobody has handled ${pos}`);
    this.#acked = Math.max(this.#acked, at);
  }

  get acked(): number {
    return this.#acked;
  }

  send(count: number): void {
    this.sentLast += count;
    const { line } = this;
    if (!line?.open || !this.network || !this.up) return;
    if (!line.polls) this.push(line);
    else if (line.waits) this.answer(line);
  }

  /** The gateway dies, or the network does, for everybody at once; both ends find out, or only one. */
  cut(silent: boolean): void {
    trace(this, "cut", silent, "network", this.network, "up", this.up);
    const { line } = this;
    this.line = undefined;
    if (!line) return;
    if (!silent) return line.end();
    line.open = false;
    // A poll is given up by whoever asks.
    if (line.polls) this.time.after(65_000, () => line.page.hear(() => !line.left && line.sink.ended({})));
  }

  // ---- pages ----

  load(): Page {
    const page = new Page(this, this.pages.length);
    this.pages.push(page);
    return page;
  }

  /** Without any event. */
  kill(page: Page): void {
    trace(this, page.name, "dies");
    page.alive = false;
    if (this.line?.page === page) this.cut(true);
    this.browser.gone(page);
  }

  freeze(page: Page): void {
    trace(this, page.name, "freezes");
    page.tell?.("frozen");
    page.frozen = page.everFrozen = true;
  }

  thaw(page: Page): void {
    trace(this, page.name, "thaws");
    page.resume();
    if (!page.hung) page.tell?.("thawed");
    page.hung = false;
  }

  /** Its script does not come to an end, and nobody is told. */
  hang(page: Page): void {
    trace(this, page.name, "hangs");
    page.frozen = page.hung = page.everFrozen = true;
  }

  /** Whether somebody looks at a page. */
  show(page: Page, shown: boolean): void {
    trace(this, page.name, shown ? "is shown" : "is hidden");
    page.hidden = !shown;
    if (shown) page.tell?.("visible");
  }

  handled(pos: number): void {
    this.#finished.add(pos);
  }

  get finished(): ReadonlySet<number> {
    return new Set(this.#finished);
  }

  get living(): Page[] {
    return this.pages.filter((p) => p.alive);
  }
}

const message = (pos: number): ServerFrame => ({ type: "message", slot: 0, pos, id: String(pos), time: 1, expires: 2, body: pos });

interface Request {
  readonly page: Page;
  readonly run: (lock: object) => unknown;
  resolve(): void;
  reject(e: Error): void;
}

/** What the tabs of a browser have of each other: a lock, which is given on some time after it was released, and channels, which tell all in the same order. */
class Browser {
  #channels: { page: Page; name: string; hear(data: unknown): void }[] = [];
  readonly #ways = new Map<Page, (run: () => void) => void>();
  #waiting: Request[] = [];
  #holder: Request | undefined;

  constructor(private readonly world: World) {}

  /** The SDK's own, between these. */
  shared(place: Place, page: Page): Place {
    const browser = this;
    class Channel {
      onmessage: ((e: { data: unknown }) => void) | null = null;
      readonly entry;

      constructor(readonly name: string) {
        this.entry = { page, name, hear: (data: unknown) => this.onmessage?.({ data }) };
        browser.#channels.push(this.entry);
      }

      postMessage(data: unknown): void {
        if (!page.alive) return;
        for (const to of browser.#channels) {
          if (to === this.entry || to.name !== this.name) continue;
          const copy = JSON.parse(JSON.stringify(data)) as unknown;
          let way = browser.#ways.get(to.page);
          if (!way) browser.#ways.set(to.page, (way = browser.world.queue(30)));
          way(() => to.page.hear(() => browser.#channels.includes(to) && to.hear(copy)));
        }
      }

      close(): void {
        browser.#channels = browser.#channels.filter((c) => c !== this.entry);
      }
    }
    const locks = {
      request: (_: string, { steal, signal }: { steal?: boolean; signal?: AbortSignal }, run: (lock: object) => unknown) =>
        new Promise<void>((resolve, reject) => {
          const request = { page, run, resolve, reject };
          signal?.addEventListener("abort", () => {
            this.#waiting = this.#waiting.filter((r) => r !== request);
            reject(new Error("aborted"));
          });
          if (steal && this.#holder) {
            const from = this.#holder;
            this.#holder = undefined;
            from.page.hear(() => from.reject(new Error("stolen")));
          }
          if (steal) this.#waiting.unshift(request);
          else this.#waiting.push(request);
          this.#give();
        }),
    };
    const had = ["navigator", "BroadcastChannel", "document"].map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const);
    const value = { navigator: { locks }, BroadcastChannel: Channel, document: {} };
    for (const [name, v] of Object.entries(value)) Object.defineProperty(globalThis, name, { value: v, configurable: true });
    const tabs = sharedTabs();
    for (const [name, before] of had) {
      if (before) Object.defineProperty(globalThis, name, before);
      else Reflect.deleteProperty(globalThis, name);
    }
    return shared(place, tabs);
  }

  /** A page is no more, which the browser notices after a while. */
  gone(page: Page): void {
    this.#channels = this.#channels.filter((c) => c.page !== page);
    this.#waiting = this.#waiting.filter((r) => r.page !== page);
    this.world.time.after(Math.floor(this.world.random() * 300), () => {
      if (this.#holder?.page === page) this.#release(this.#holder);
    });
  }

  #release(from: Request): void {
    if (this.#holder !== from) return;
    this.#holder = undefined;
    this.#give();
  }

  #give(): void {
    const next = this.#holder ? undefined : this.#waiting.shift();
    if (!next) return;
    this.#holder = next;
    this.world.time.after(Math.floor(this.world.random() * 20), () => {
      if (this.#holder !== next) return;
      if (!next.page.alive) return this.#release(next);
      next.page.hear(() => {
        void Promise.resolve(next.run({})).then(() => {
          next.resolve();
          this.#release(next);
        });
      });
    });
  }
}
