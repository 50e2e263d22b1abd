// A gateway for tests: the real binary in a directory of its own, on ports of its own, which can be killed and comes back where it was.

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { eventually, pause } from "./eventually.js";
import type { Ledger } from "./ledger.js";

const repository = join(dirname(fileURLToPath(import.meta.url)), "../../../..");

let built: string | undefined;

/** The gateway's binary: `CARILLON_BINARY`, or one that is built from this tree. Go builds only what has changed. */
export function binary(): string {
  if (built) return built;
  built = process.env["CARILLON_BINARY"];
  if (!built) {
    built = join(repository, "bin/carillon");
    // Written beside and renamed by the linker: a gateway that runs keeps its file.
    execFileSync("go", ["build", "-o", built, "./server/cmd/carillon"], { cwd: repository, stdio: "inherit", timeout: 300_000 });
  }
  if (!existsSync(built)) throw new Error(`no gateway at ${built}`);
  return built;
}

const taken = new Set<number>();

/**
 * A port that is free, and stays so while the gateway is dead: it lies below those that the system gives to outgoing connections, so that none of those
 * sits on it when the gateway comes back.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if (taken.has(port)) continue;
    const free = await new Promise<boolean>((done) => {
      const s = createServer();
      s.once("error", () => done(false));
      s.listen(port, "127.0.0.1", () => s.close(() => done(true)));
    });
    if (!free) continue;
    taken.add(port);
    return port;
  }
}

/** What `serve --dev` writes. */
interface Dev {
  readonly product: string;
  readonly key_id: string;
  readonly key: string;
  readonly api_key: string;
  readonly secret: string;
}

export interface ToSend {
  users?: string[];
  devices?: { user: string; device: string }[];
  tags?: unknown;
  everyone?: boolean;
  body?: unknown;
  /** Sent as bytes, in place of `body`. */
  bytes?: Uint8Array;
  persistent?: boolean;
  collapse_key?: string;
  ref?: string;
  headers?: Record<string, string>;
  ttl_seconds?: number;
}

export interface Claims {
  /** Seconds from `iat` to `exp`. */
  life?: number;
  /** Seconds from `iat` to now. */
  age?: number;
  platform?: string;
  tagPatterns?: string[];
  /** Another key than the gateway's: the token will be refused. */
  key?: string;
  /** Names the token, so that it can be revoked. */
  id?: string;
}

export interface DeviceInfo {
  device: string;
  joined: string[];
  cursor: string;
  session?: { transport: string };
  lag: { own: { messages: number }; common: { messages: number } };
}

export interface UserInfo {
  user: string;
  online: boolean;
  devices: DeviceInfo[];
}

const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const p of running) p.kill("SIGKILL");
});

/** An answer of the gateway that is not the one that was asked for. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly text: string,
    what: string,
  ) {
    super(`${what}: ${status} ${text}`);
  }
}

export class Gateway {
  /** Where clients connect. */
  readonly url: string;
  readonly admin: string;
  dev!: Dev;
  #process: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly adminPort: number,
    private readonly tcpPort: number,
    private readonly nodePort: number,
    readonly data: string,
    private readonly flags: readonly string[],
  ) {
    this.url = `http://127.0.0.1:${port}`;
    this.admin = `http://127.0.0.1:${adminPort}`;
  }

  /** Starts one. `flags` are of `carillon serve`, as `--heartbeat-interval=1s`. */
  static async start(flags: readonly string[] = []): Promise<Gateway> {
    const data = mkdtempSync(join(tmpdir(), "carillon-js-"));
    const g = new Gateway(await freePort(), await freePort(), await freePort(), await freePort(), data, flags);
    await g.start();
    return g;
  }

  /** Starts it again where it was, with what it had. */
  async start(): Promise<void> {
    mkdirSync(join(this.data, "logs"), { recursive: true });
    const log = openSync(this.logFile, "a");
    const at = (port: number): string => `127.0.0.1:${port}`;
    const p = spawn(
      binary(),
      [
        ...["serve", "--dev", "--data", join(this.data, "store"), "--log-level", "debug"],
        ...["--public-listen", at(this.port), "--admin-listen", at(this.adminPort), "--tcp-listen", at(this.tcpPort), "--node-listen", at(this.nodePort)],
        ...this.flags,
      ],
      // The gateway refuses variables of its name that it does not know, and must not go by those of whoever runs the tests.
      { stdio: ["ignore", log, log], env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CARILLON_"))) },
    );
    closeSync(log);
    running.add(p);
    p.once("exit", () => running.delete(p));
    this.#process = p;
    await eventually(async () => p.exitCode !== null || (await fetch(`${this.admin}/readyz`)).ok, "the gateway is ready", { seen: () => this.log() });
    if (p.exitCode !== null) throw new Error(`the gateway ended: ${this.log()}`);
    this.dev = JSON.parse(readFileSync(join(this.data, "store/dev.json"), "utf8")) as Dev;
  }

  private get logFile(): string {
    return join(this.data, "logs/gateway.log");
  }

  /** What it logged last. */
  log(lines = 30): string {
    return readFileSync(this.logFile, "utf8").split("\n").slice(-lines).join("\n");
  }

  /** Kills it without a word, as a power failure of the process would. */
  async kill9(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** Has it stop with goodbyes. Its data stays. */
  async shutDown(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const p = this.#process;
    this.#process = undefined;
    if (!p || p.exitCode !== null || p.signalCode !== null) return;
    const ended = new Promise<void>((done) => p.once("exit", () => done()));
    p.kill(signal);
    await ended;
  }

  /** Ends it for good. */
  async stop(): Promise<void> {
    await this.kill9();
    rmSync(this.data, { recursive: true, force: true });
  }

  // ---- what a product's server does ----

  async call<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
    const r = await fetch(this.url + path, {
      method,
      headers: { authorization: `Bearer ${this.dev.api_key}`, "content-type": "application/json", ...headers },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(10_000),
    });
    const text = await r.text();
    if (!r.ok) throw new Refused(r.status, text, `${method} ${path}`);
    return (text ? JSON.parse(text) : undefined) as T;
  }

  /** Sends a message, and gives its id. It was accepted when this resolves. */
  async send(m: ToSend): Promise<string> {
    return (await this.call<{ id: string }>("POST", "/v1/messages", published(m))).id;
  }

  /** Sends up to 500 messages in one request. */
  async sendBatch(messages: ToSend[]): Promise<string[]> {
    const all = messages.map((m) => ({ ...published(m), idempotency_key: randomUUID() }));
    const { results } = await this.call<{ results: { status: number; message?: { id: string } }[] }>("POST", "/v1/messages/batch", { messages: all });
    return results.map((r) => {
      if (!r.message) throw new Error(`a message of a batch was answered ${JSON.stringify(r)}`);
      return r.message.id;
    });
  }

  /**
   * Sends one message after the other, with bodies `{n: 0}` and so on, and enters them in the ledgers once they are accepted. What was not answered,
   * as the gateway was killed meanwhile, is sent again with the same idempotency key until it is: so there is no message of which nobody knows whether
   * it was accepted.
   */
  async stream(to: ToSend, count: number, ledgers: Ledger[], { gap = 0, from = 0 } = {}): Promise<void> {
    for (let n = from; n < from + count; n++) {
      const key = randomUUID();
      const id = await eventually(
        async () => (await this.call<{ id: string }>("POST", "/v1/messages", published({ ...to, body: { n } }), { "idempotency-key": key })).id,
        `message ${n} is accepted`,
        { within: 30_000 },
      );
      for (const l of ledgers) l.accepted(id);
      // The pace of the sender; nothing is waited for.
      if (gap) await pause(gap);
    }
  }

  kick(user: string, device?: string, reason?: string): Promise<{ status: string; sessions: number }> {
    return this.call("POST", `/v1/users/${user}/kick`, { ...(device && { device }), ...(reason && { reason }) });
  }

  revoke(user: string, what: { device?: string; token_id?: string; reason?: string } = {}): Promise<{ status: string }> {
    return this.call("POST", `/v1/users/${user}/revoke`, what);
  }

  recall(id: string): Promise<unknown> {
    return this.call("DELETE", `/v1/messages/${id}`);
  }

  userInfo(user: string): Promise<UserInfo> {
    return this.call("GET", `/v1/users/${user}`);
  }

  /** What an operator does: a command of the binary, which finds keys and addresses beside the data. */
  command(...args: string[]): string {
    return execFileSync(binary(), [...args, "--data", join(this.data, "store")], { encoding: "utf8", timeout: 20_000 });
  }

  /** What is known of a device, or undefined before its first connect. */
  async deviceInfo(user: string, device: string): Promise<DeviceInfo | undefined> {
    return (await this.userInfo(user)).devices.find((d) => d.device === device);
  }

  /** How many messages a device has not acknowledged, in both slots. */
  async lag(user: string, device: string): Promise<number | undefined> {
    const d = await this.deviceInfo(user, device);
    return d && d.lag.own.messages + d.lag.common.messages;
  }

  /** The value of a metric, all series whose labels contain `labels` together. */
  async metric(name: string, labels = ""): Promise<number> {
    const text = await (await fetch(`${this.admin}/metrics`, { headers: { authorization: `Bearer ${this.dev.secret}` } })).text();
    let sum = 0;
    for (const line of text.split("\n")) {
      if ((line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels)) sum += Number(line.slice(line.lastIndexOf(" ")));
    }
    return sum;
  }

  /** Signs a device token, as the product's server would. */
  mint(user: string, device: string, { life = 3600, age = 0, platform = "web", tagPatterns, key = this.dev.key, id }: Claims = {}): string {
    const iat = Math.floor(Date.now() / 1000) - age;
    const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
    const signed = `${part({ alg: "HS256", typ: "JWT", kid: this.dev.key_id })}.${part({
      ...{ aud: this.dev.product, sub: user, did: device, plat: platform, iat, exp: iat + life },
      ...(tagPatterns && { tag_patterns: tagPatterns }),
      ...(id && { jti: id }),
    })}`;
    return `${signed}.${createHmac("sha256", Buffer.from(key, "base64")).update(signed).digest("base64url")}`;
  }
}

function published({ users, devices, tags, everyone, body, bytes, ...message }: ToSend): { to: object; message: object } {
  return {
    to: { ...(users && { users }), ...(devices && { devices }), ...(tags !== undefined && { tags }), ...(everyone && { everyone }) },
    message: { ...message, ...(bytes ? { body_base64: Buffer.from(bytes).toString("base64") } : { body: body ?? null }) },
  };
}
