// One device: its client, its network, and what happened to it. Knows nothing of how that looks.

import { placeIn } from "../src/cursor.js";
import { createClient, longPoll, sse, webSocket, type Client, type Message, type State, type StateChange } from "../src/index.js";
import { claimsOf } from "../src/token.js";
import { timeOf } from "./dom.js";
import { makeNetwork } from "./network.js";
import { getToken, kick } from "./server.js";
import type { Choice, Identity, Settings } from "./settings.js";

/** The tag that a device may join here: tokens of the demo permit `news.*`. */
export const TAG = "news.sport";

/** A message, and what became of it on this device. */
export interface Received {
  readonly id: string;
  readonly message: Message;
  recalled: boolean;
  displayed: boolean;
  clicked: boolean;
}

/** A line of the log. */
export interface Happened {
  readonly at: Date;
  readonly what: "state" | "error" | "gap" | "kick" | "recall" | "network" | "repeat" | "client";
  readonly text: string;
}

export class Device {
  client!: Client;
  choice: Choice;
  readonly network = makeNetwork();

  /** In the order in which they came, each once. */
  readonly received: Received[] = [];
  /** Messages that came although they had come before: the gateway and the SDK promise that there are none. */
  repeats = 0;
  gaps = 0;
  recalls = 0;
  readonly states: StateChange[] = [];
  readonly log: Happened[] = [];
  /** The tags that it has joined by itself, as the gateway last said. */
  tags: readonly string[] = [];
  /** When the token that it got last runs out, in milliseconds by this machine's clock: that of the gateway, in development. */
  tokenEnds: number | undefined;
  retryAt: Date | undefined;

  readonly #byID = new Map<string, Received>();
  #stop = new AbortController();
  #changed: () => void = () => {};

  constructor(
    readonly side: "left" | "right",
    readonly identity: Identity,
    readonly settings: Settings,
    readonly tabs: Parameters<typeof createClient>[0]["tabs"],
  ) {
    this.choice = settings.transport;
    this.#make();
  }

  get name(): string {
    return `${this.identity.user}/${this.identity.device}`;
  }

  get state(): State {
    return this.client.state;
  }

  /** Has `listener` called after each change, and often. */
  onChange(listener: () => void): void {
    this.#changed = listener;
  }

  /** The positions of the cursor. The SDK's users are told nothing about what a cursor says: this is for who wants to see it move. */
  get positions(): { own: bigint; common: bigint } | undefined {
    const { cursor } = this.client;
    return cursor === undefined ? undefined : { own: BigInt(`0x${placeIn(cursor, 0).pos}`), common: BigInt(`0x${placeIn(cursor, 1).pos}`) };
  }

  connect(): void {
    // Why it failed stands in the log: `error` and `kick` are told as well.
    this.client.connect().catch(() => {});
  }

  close(): void {
    this.client.close();
  }

  /** Makes a client anew, which connects in this way and goes on where the one before was. */
  choose(choice: Choice): void {
    if (choice === this.choice) return;
    this.choice = choice;
    const was = this.state;
    // What becomes of the old one is nothing that happens to the device.
    this.#stop.abort();
    this.client.close();
    this.#note("client", `another client, over ${choice === "auto" ? "whatever gets through" : choice}`);
    this.#make();
    if (was !== "idle" && was !== "closed" && was !== "failed") this.connect();
  }

  setCut(cut: boolean): void {
    this.network.setCut(cut);
    this.#note("network", cut ? "cut" : "back");
  }

  kick(): Promise<unknown> {
    return kick(this.identity);
  }

  async tag(join: boolean): Promise<void> {
    this.tags = await (join ? this.client.tags.join(TAG) : this.client.tags.leave(TAG));
    this.#changed();
  }

  displayed(r: Received): void {
    r.displayed = true;
    this.client.displayed(r.message);
    this.#changed();
  }

  clicked(r: Received): void {
    r.clicked = true;
    this.client.clicked(r.message);
    this.#changed();
  }

  #make(): void {
    const { network, identity, settings } = this;
    const { signal } = (this.#stop = new AbortController());
    const all = { websocket: webSocket(network), sse: sse(network), longpoll: longPoll(network) };
    const client = (this.client = createClient({
      endpoint: location.origin,
      transports: this.choice === "auto" ? [all.websocket, all.sse, all.longpoll] : [all[this.choice]],
      tabs: this.tabs ?? false,
      clientName: "carillon-demo",
      getToken: async (asked) => {
        const token = await getToken(identity, settings.life, { fetch: network.fetch, signal: asked.signal });
        this.tokenEnds = claimsOf(token).expires;
        return token;
      },
    }));
    client.on("message", (m) => this.#receive(m), { signal });
    client.on("state", (change) => this.#state(client, change), { signal });
    client.on("gap", (g) => this.#note("gap", `${g.reason}, ${g.slot}: from ${g.from} to ${g.to}`, () => this.gaps++), { signal });
    client.on("recall", (r) => this.#recall(r.id), { signal });
    client.on("kick", (k) => this.#note("kick", `${k.code} ${k.reason}${k.detail ? `: ${k.detail}` : ""}`), { signal });
    client.on("error", (e) => this.#note("error", `${"code" in e ? String(e.code) : e.name}: ${e.message}`), { signal });
    this.#changed();
  }

  #receive(message: Message): void {
    const { id } = message;
    if (this.#byID.has(id)) {
      this.#note("repeat", id, () => this.repeats++);
      return;
    }
    const r: Received = { id, message, recalled: false, displayed: false, clicked: false };
    this.#byID.set(id, r);
    this.received.push(r);
    this.#changed();
  }

  #recall(id: string): void {
    const r = this.#byID.get(id);
    if (r) r.recalled = true;
    this.#note("recall", id, () => this.recalls++);
  }

  #state(client: Client, change: StateChange): void {
    this.states.push(change);
    this.retryAt = change.retryAt;
    const more = change.transport ? ` over ${change.transport}` : change.retryAt ? `, again at ${timeOf(change.retryAt)}` : "";
    this.#note("state", `${change.state}${more}`);
    // What it joined before is the gateway's to know, across connections and pages.
    if (change.state === "connected" && change.previous !== "connected") {
      client.tags.list().then(
        (tags) => {
          this.tags = tags;
          this.#changed();
        },
        () => {}, // its transport has no way to ask, or it is gone again
      );
    }
  }

  #note(what: Happened["what"], text: string, count?: () => void): void {
    count?.();
    this.log.push({ at: new Date(), what, text });
    this.#changed();
  }
}
