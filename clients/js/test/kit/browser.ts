// A real Chromium, and pages that load the SDK as an application does: bundled, from another origin than the gateway's, with tokens of a server of its own.

import { build } from "esbuild";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium, type Browser, type BrowserContext, type CDPSession, type LaunchOptions, type Page } from "playwright-core";
import { expect, onTestFinished } from "vitest";
import WebSocket from "ws";
import type { State, StateChange, TokenRequest } from "../../src/index.js";
import { eventually } from "./eventually.js";
import { clean, Ledger, type Verdict } from "./ledger.js";
import { freePort, type Claims, type Gateway } from "./server.js";

const kit = dirname(fileURLToPath(import.meta.url));

/** What a page is told by its address, so that it is told the same after a reload. */
export interface PageConfig {
  readonly endpoint: string | string[];
  readonly user: string;
  readonly device: string;
  /** Whether the page notes each message, besides counting it. Default: yes. */
  readonly note?: boolean;
  /** Keeps in IndexedDB in place of `localStorage`. */
  readonly indexedDB?: boolean;
}

/** What a page has on its `window` for tests. */
export interface InPage {
  readonly client: import("../../src/index.js").Client;
  readonly states: StateChange[];
  readonly errors: string[];
  readonly kicks: { code: number; reason: string }[];
  readonly gaps: unknown[];
  readonly tokens: TokenRequest["reason"][];
  readonly longTasks: number[];
  /** Whether this page came back from the back-forward cache. */
  persisted: boolean;
  /** How many messages handlers got in this page. */
  count: number;
  /** Of the numbers in their bodies, where there are any. */
  sum: number;
  /** The ids that handlers got in this tab, in pages before this one too. */
  handled(): string[];
}

declare global {
  interface Window {
    test: InPage;
  }
}

const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
// prettier-ignore
const switches = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** Starts Chromium, which whoever asked for it has to close. */
export function launch({ args = [], ...options }: LaunchOptions = {}): Promise<Browser> {
  return chromium.launch({ executablePath, args: [...switches, ...args], ...options });
}

/** Notes what a page's console and its scripts say that is wrong, but for what Chromium itself has to say about the network. */
export function noteComplaints(page: Page, complaints: string[], network = /^Failed to load resource/): void {
  page.on("pageerror", (e) => complaints.push(String(e)));
  page.on("console", (m) => {
    if (m.type() === "error" && !network.test(m.text())) complaints.push(m.text());
  });
}

/** A page of the gateway's own origin for what a test brings itself. It and its browser end with the test. */
export async function barePageForTest(gateway: Gateway): Promise<{ page: Page; complaints: string[] }> {
  const browser = await launch();
  onTestFinished(() => browser.close());
  const page = await browser.newPage({ bypassCSP: true });
  const complaints: string[] = [];
  noteComplaints(page, complaints);
  // Any address there will do.
  await page.goto(`${gateway.url}/demo/demo.css`);
  return { page, complaints };
}

let bundled: Promise<string> | undefined;

/** The page's script: the SDK from its sources, and what tests want to see of it. */
function bundle(): Promise<string> {
  return (bundled ??= build({ entryPoints: [join(kit, "page.ts")], bundle: true, write: false, format: "iife", target: "es2022" }).then(
    (r) => r.outputFiles[0]!.text,
  ));
}

/** The server of the pages and of their tokens: the application's own. */
class Site {
  url!: string;
  /** How many tokens were asked for. */
  tokens = 0;
  /** Scripts that a test brings itself, by their paths. */
  readonly scripts = new Map<string, string>();
  constructor(
    private readonly gateway: Gateway,
    public claims: Claims,
  ) {}

  /** The address of the page, which says what it is told. */
  page(config: Partial<PageConfig>): string {
    const complete = { endpoint: this.gateway.url, user: "alice", device: "laptop", ...config };
    return `${this.url}/page?${new URLSearchParams({ config: JSON.stringify(complete) })}`;
  }

  async start(): Promise<() => Promise<void>> {
    const script = await bundle();
    const server = createServer((request, response) => {
      const url = new URL(request.url!, this.url);
      const answer = (type: string, body: string): void => {
        // Not `no-store`: that would keep pages out of the back-forward cache.
        response.writeHead(200, { "content-type": `${type}; charset=utf-8`, "cache-control": "no-cache" });
        response.end(body);
      };
      if (url.pathname === "/page") answer("text/html", '<!doctype html><title>page</title><link rel="icon" href="data:,"><script src="/page.js"></script>');
      else if (url.pathname === "/page.js") answer("text/javascript", script);
      else if (this.scripts.has(url.pathname)) answer("text/javascript", this.scripts.get(url.pathname)!);
      else if (url.pathname === "/elsewhere") answer("text/html", '<!doctype html><title>elsewhere</title><link rel="icon" href="data:,">');
      else if (url.pathname === "/token") {
        this.tokens++;
        answer("text/plain", this.gateway.mint(url.searchParams.get("user")!, url.searchParams.get("device")!, this.claims));
      } else {
        response.writeHead(404);
        response.end();
      }
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      });
  }
}

/** A page that nobody listens to: Playwright has each frame of each WebSocket reported to it, which costs a page under load more than the frame does. */
export class QuietPage {
  #last = 0;
  readonly #waiting = new Map<number, { resolve(result: any): void; reject(e: Error): void }>();

  private constructor(private readonly debug: WebSocket) {
    debug.on("message", (data) => {
      const { id, result, error } = JSON.parse(String(data));
      const w = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) w?.reject(new Error(error.message));
      else w?.resolve(result);
    });
  }

  /** Opens one in a Chromium of its own, which ends with the test. */
  static async forTest(gateway: Gateway, config: Partial<PageConfig> = {}): Promise<QuietPage> {
    const site = new Site(gateway, {});
    onTestFinished(await site.start());
    const port = await freePort();
    const profile = mkdtempSync(join(tmpdir(), "carillon-page-"));
    const url = site.page(config);
    const running = spawn(executablePath, [...switches, "--headless=new", `--remote-debugging-port=${port}`, `--user-data-dir=${profile}`, url], { stdio: "ignore" });
    const over = new Promise((done) => running.once("exit", done));
    onTestFinished(async () => {
      running.kill();
      await over;
      rmSync(profile, { recursive: true, force: true });
    });
    let address: string | undefined;
    await eventually(async () => {
      const pages = await fetch(`http://127.0.0.1:${port}/json/list`).then((r) => r.json() as Promise<{ url: string; webSocketDebuggerUrl: string }[]>, () => []);
      address = pages.find((p) => p.url === url)?.webSocketDebuggerUrl;
      return address !== undefined;
    }, "Chromium has opened the page");
    const debug = new WebSocket(address!);
    await new Promise((open, failed) => debug.once("open", open).once("error", failed));
    onTestFinished(() => debug.close());
    return new QuietPage(debug);
  }

  private ask(method: string, params: object = {}): Promise<any> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.debug.send(JSON.stringify({ id, method, params }));
    });
  }

  /** Something that the page has. */
  async see<T>(what: (test: InPage) => T): Promise<T> {
    const { result, exceptionDetails } = await this.ask("Runtime.evaluate", { expression: `(${what.toString()})(window.test)`, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value as T;
  }

  /** Bytes of the page's heap, once its garbage is gone. */
  async heap(): Promise<number> {
    await this.ask("HeapProfiler.enable");
    await this.ask("HeapProfiler.collectGarbage");
    return (await this.ask("Runtime.getHeapUsage")).usedSize;
  }
}

/** One browser profile at an application of the gateway. */
export class Chromium {
  readonly tabs: Tab[] = [];

  private constructor(
    readonly browser: Browser,
    readonly context: BrowserContext,
    readonly site: Site,
    readonly gateway: Gateway,
  ) {}

  /** Starts one that ends with the test. */
  static async forTest(gateway: Gateway, options: Parameters<typeof Chromium.start>[1] = {}): Promise<Chromium> {
    const { chromium, stop } = await Chromium.start(gateway, options);
    onTestFinished(stop);
    return chromium;
  }

  static async start(
    gateway: Gateway,
    { claims = {}, init }: { claims?: Claims; /** Runs in each page before its scripts. */ init?: () => void } = {},
  ): Promise<{ chromium: Chromium; stop: () => Promise<void> }> {
    const site = new Site(gateway, claims);
    const stopSite = await site.start();
    const port = await freePort();
    const launched = await launch({
      args: [`--remote-debugging-port=${port}`],
      // What is tested is what users have, and they have it.
      ignoreDefaultArgs: ["--disable-back-forward-cache"],
    });
    // A page that Playwright opens by itself counts as looked at for ever, and can neither be hidden nor frozen. So the browser is driven as one that
    // somebody else has opened, in which tabs hide each other.
    const browser = await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
    const context = browser.contexts()[0]!;
    if (init) await context.addInitScript(init);
    const chromiumOfTest = new Chromium(browser, context, site, gateway);
    return {
      chromium: chromiumOfTest,
      async stop() {
        await browser.close();
        await launched.close();
        await stopSite();
      },
    };
  }

  /** Opens a tab, and its page. */
  async open(config: Partial<PageConfig> = {}, ledger = new Ledger()): Promise<Tab> {
    const page = await this.context.newPage();
    const tab = new Tab(this, page, this.site.page(config), ledger);
    this.tabs.push(tab);
    await tab.load();
    return tab;
  }
}

/** A tab, and what the pages in it told. */
export class Tab {
  /** What its consoles and its pages say that is wrong. */
  readonly complaints: string[] = [];
  #session: CDPSession | undefined;
  #crashed = false;

  constructor(
    private readonly chromium: Chromium,
    readonly page: Page,
    readonly url: string,
    readonly ledger: Ledger,
  ) {
    // A browser notes each connection that it cannot make; that is the network's doing.
    noteComplaints(page, this.complaints, /net::ERR_|WebSocket connection to/);
    page.on("crash", () => (this.#crashed = true));
  }

  async load(): Promise<void> {
    await this.page.goto(this.url);
  }

  /** Something that the page has. */
  see<T>(what: (test: InPage) => T): Promise<T> {
    return this.page.evaluate(`(${what.toString()})(window.test)`) as Promise<T>;
  }

  state(): Promise<State> {
    return this.see((t) => t.client.state);
  }

  transport(): Promise<string | undefined> {
    return this.see((t) => t.client.transport);
  }

  async is(state: State, transport?: string): Promise<void> {
    await eventually(async () => (await this.state()) === state && (transport === undefined || (await this.transport()) === transport), `the tab is ${state} ${transport ?? ""}`, {
      seen: () => this.seen(),
    });
  }

  /** What helps to understand a test that failed. */
  async seen(): Promise<unknown> {
    const page = await this.see((t) => ({
      trail: t.states.map((s) => [s.state, s.transport].filter(Boolean).join(":")).join(" "),
      errors: t.errors,
      kicks: t.kicks,
      gaps: t.gaps.slice(0, 5),
      count: t.count,
    })).catch((e: unknown) => String(e));
    return { ledger: String(this.ledger), page, complaints: this.complaints };
  }

  /** Reads from the page what handlers got in this tab. */
  async read(): Promise<Ledger> {
    this.ledger.gotAll(await this.see((t) => t.handled()));
    return this.ledger;
  }

  /** Waits until so many have come. */
  async has(count: number): Promise<void> {
    await eventually(async () => (await this.read()).gotCount >= count, `${count} have come`, { seen: () => this.seen() });
  }

  /** Waits until everything that was accepted has come, and gives what is wrong with it. */
  async verdict(within = 30_000): Promise<Verdict> {
    await eventually(async () => (await this.read()).complete, "the tab has everything", { within, seen: () => this.seen() });
    return this.ledger.verdict();
  }

  /** As {@link verdict}, and nothing is. */
  async hasEverything(within = 30_000): Promise<void> {
    expect(await this.verdict(within)).toEqual(clean);
    expect(await this.see((t) => t.gaps)).toEqual([]);
    expect(this.complaints).toEqual([]);
  }

  async cdp(): Promise<CDPSession> {
    return (this.#session ??= await this.chromium.context.newCDPSession(this.page));
  }

  /** As the browser does with a tab that nobody has looked at for long. */
  async freeze(): Promise<void> {
    await (await this.cdp()).send("Page.setWebLifecycleState", { state: "frozen" });
  }

  async thaw(): Promise<void> {
    await (await this.cdp()).send("Page.setWebLifecycleState", { state: "active" });
  }

  /** The process of its page dies, without any event. */
  async crash(): Promise<void> {
    // The answer never comes.
    void (await this.cdp()).send("Page.crash").catch(() => {});
    await eventually(() => this.#crashed, "the page has crashed");
  }

  /** Somebody comes to the tab: it is visible from now on, and the one before is hidden. */
  async look(): Promise<void> {
    await this.page.bringToFront();
    await eventually(() => this.page.evaluate(() => document.visibilityState === "visible"), "the tab is visible");
  }

  /** Goes back. A page that the browser kept is not loaded again: what is waited for is that it is shown. */
  async back(): Promise<void> {
    await this.page.goBack({ waitUntil: "commit" });
  }

  async forward(): Promise<void> {
    await this.page.goForward({ waitUntil: "commit" });
  }

  /** Bytes of the page's heap, once its garbage is gone. */
  async heap(): Promise<number> {
    const cdp = await this.cdp();
    await cdp.send("HeapProfiler.enable");
    await cdp.send("HeapProfiler.collectGarbage");
    return (await cdp.send("Runtime.getHeapUsage")).usedSize;
  }
}
