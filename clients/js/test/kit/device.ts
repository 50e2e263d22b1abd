// A client in Node over the gateway of a test, and everything that it told.

import { WebSocket } from "ws";
import {
  createClient,
  longPoll,
  memoryStorage,
  sse,
  webSocket,
  type CarillonErrorLike,
  type Client,
  type ClientOptions,
  type Gap,
  type Kick,
  type Message,
  type Recall,
  type StateChange,
  type Storage,
  type TokenRequest,
  type Transport,
} from "../../src/index.js";
import { eventually } from "./eventually.js";
import { clean, Ledger } from "./ledger.js";
import { Proxy } from "./proxy.js";
import { Gateway, type Claims } from "./server.js";
import { expect, onTestFinished } from "vitest";

export const transportNames = ["websocket", "sse", "longpoll"] as const;
export type TransportName = (typeof transportNames)[number];

export function transport(name: TransportName): Transport {
  if (name === "websocket") return webSocket({ WebSocket });
  return name === "sse" ? sse() : longPoll();
}

/** A gateway for one test, which ends with it. */
export async function gatewayForTest(flags: readonly string[] = []): Promise<Gateway> {
  const g = await Gateway.start(flags);
  onTestFinished(() => g.stop());
  return g;
}

/** A network for one test. */
export async function proxyForTest(gateway: Gateway): Promise<Proxy> {
  const p = await Proxy.start(gateway.port);
  onTestFinished(() => p.stop());
  return p;
}

export interface DeviceOptions extends Partial<Omit<ClientOptions, "transports">> {
  user?: string;
  device?: string;
  over?: readonly TransportName[];
  claims?: Claims;
  storage?: Storage;
  /** Without: one that notes the message in the ledger. `null`: none, for tests that listen themselves. */
  handler?: ((m: Message) => unknown) | null;
}

/** A client, and what it told. */
export class Device {
  readonly user: string;
  readonly device: string;
  readonly client: Client;
  readonly ledger: Ledger;
  readonly storage: Storage;
  readonly messages: Message[] = [];
  readonly states: StateChange[] = [];
  readonly errors: CarillonErrorLike[] = [];
  readonly kicks: Kick[] = [];
  readonly recalls: Recall[] = [];
  readonly gaps: Gap[] = [];
  readonly tokens: TokenRequest["reason"][] = [];

  constructor(gateway: Gateway, options: DeviceOptions = {}, ledger = new Ledger()) {
    const { user = "alice", device = "laptop", over = ["websocket"], claims, handler, storage = memoryStorage(), ...rest } = options;
    this.user = user;
    this.device = device;
    this.ledger = ledger;
    this.storage = storage;
    const getToken = rest.getToken ?? (() => gateway.mint(user, device, claims));
    this.client = createClient({
      endpoint: gateway.url,
      ...rest,
      storage,
      transports: over.map(transport),
      getToken: (request) => {
        this.tokens.push(request.reason);
        return getToken(request);
      },
    });
    if (handler !== null) {
      this.client.on("message", (m) => {
        this.messages.push(m);
        ledger.got(m.id);
        return handler?.(m);
      });
    }
    this.client.on("state", (s) => this.states.push(s));
    this.client.on("error", (e) => this.errors.push(e as CarillonErrorLike));
    this.client.on("kick", (k) => this.kicks.push(k));
    this.client.on("recall", (r) => this.recalls.push(r));
    this.client.on("gap", (g) => this.gaps.push(g));
    onTestFinished(() => this.client.close());
  }

  /** How often it was welcomed. */
  get connects(): number {
    return this.states.filter((s) => s.state === "connected").length;
  }

  get errorCodes(): string[] {
    return this.errors.map((e) => e.code);
  }

  async connected(): Promise<this> {
    await this.client.connect();
    return this;
  }

  /** Waits until everything that was accepted has come, and judges it. */
  async hasEverything(within = 30_000): Promise<void> {
    await eventually(() => this.ledger.complete, `${this.device} of ${this.user} has everything`, {
      within,
      seen: () => `${this.ledger}; ${this.client.state} over ${this.client.transport}; ${this.trail}; ${this.errors.map(String)}`,
    });
    expect(this.ledger.verdict()).toEqual(clean);
    expect(this.gaps).toEqual([]);
  }

  /** The states it went through. */
  get trail(): string {
    return this.states.map((s) => s.state).join(" ");
  }
}

/** Waits until the gateway knows that the device has acknowledged everything. */
export async function acknowledged(gateway: Gateway, { user, device }: { user: string; device: string }): Promise<void> {
  await eventually(async () => (await gateway.lag(user, device)) === 0, `${device} of ${user} has acknowledged everything`, {
    seen: () => gateway.userInfo(user),
  });
}

/** Waits until the gateway knows that no device of the user is there any more. */
export async function away(gateway: Gateway, user: string): Promise<void> {
  await eventually(async () => !(await gateway.userInfo(user)).online, `the gateway knows that ${user} is away`, { seen: () => gateway.userInfo(user) });
}
