// A real Chromium at an application of the gateway.

import { chromium, type Browser, type BrowserContext, type CDPSession, type LaunchOptions, type Page } from "playwright-core";
import { onTestFinished } from "vitest";
import { eventually } from "./eventually.js";
import { Ledger } from "./ledger.js";
import { directoryForTest, startForTest } from "./program.js";
import { Remote } from "./remote.js";
import { freePort, type Claims, type Gateway } from "./server.js";
import { Site, type InPage, type PageConfig } from "./site.js";
import { AnyTab } from "./tab.js";

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

/** A page that nobody listens to: Playwright has each frame of each WebSocket reported to it, which costs a page under load more than the frame does. */
export class QuietPage {
  private constructor(private readonly debug: Remote) {}

  /** Opens one in a Chromium of its own, which ends with the test. */
  static async forTest(gateway: Gateway, config: Partial<PageConfig> = {}): Promise<QuietPage> {
    const site = new Site(gateway, {});
    onTestFinished(await site.start());
    const port = await freePort();
    const profile = directoryForTest();
    const url = site.page(config);
    startForTest(executablePath, [...switches, "--headless=new", `--remote-debugging-port=${port}`, `--user-data-dir=${profile}`, url], { debian: "chromium" });
    let address: string | undefined;
    await eventually(async () => {
      const pages = await fetch(`http://127.0.0.1:${port}/json/list`).then((r) => r.json() as Promise<{ url: string; webSocketDebuggerUrl: string }[]>, () => []);
      address = pages.find((p) => p.url === url)?.webSocketDebuggerUrl;
      return address !== undefined;
    }, "Chromium has opened the page");
    return new QuietPage(await Remote.forTest(address!));
  }

  /** Something that the page has. */
  async see<T>(what: (test: InPage) => T): Promise<T> {
    const { result, exceptionDetails } = await this.debug.ask("Runtime.evaluate", { expression: `(${what.toString()})(window.test)`, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value as T;
  }

  /** Bytes of the page's heap, once its garbage is gone. */
  async heap(): Promise<number> {
    await this.debug.ask("HeapProfiler.enable");
    await this.debug.ask("HeapProfiler.collectGarbage");
    return (await this.debug.ask("Runtime.getHeapUsage")).usedSize;
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
    { claims = {}, init }: { claims?: Claims | undefined; /** Runs in each page before its scripts. */ init?: () => void } = {},
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
    const tab = new Tab(this, page, this.site.page(config), `${this.site.url}/elsewhere`, ledger);
    this.tabs.push(tab);
    await tab.load();
    return tab;
  }
}

/** A tab of Chromium. */
export class Tab extends AnyTab {
  #session: CDPSession | undefined;
  #crashed = false;

  constructor(
    private readonly chromium: Chromium,
    readonly page: Page,
    readonly url: string,
    private readonly elsewhere: string,
    ledger: Ledger,
  ) {
    super(ledger);
    // A browser notes each connection that it cannot make; that is the network's doing.
    noteComplaints(page, this.complaints, /net::ERR_|WebSocket connection to/);
    page.on("crash", () => (this.#crashed = true));
  }

  async load(): Promise<void> {
    await this.page.goto(this.url);
  }

  see<T>(what: (test: InPage) => T): Promise<T> {
    return this.page.evaluate(`(${what.toString()})(window.test)`) as Promise<T>;
  }

  reload(): Promise<void> {
    return this.page.reload().then(() => {});
  }

  close(): Promise<void> {
    return this.page.close();
  }

  async leave(): Promise<void> {
    await this.page.goto(this.elsewhere);
  }

  async back(): Promise<void> {
    await this.page.goBack({ waitUntil: "commit" });
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
