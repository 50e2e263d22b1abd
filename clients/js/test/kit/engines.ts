// Browsers that are no Chromium, as they are installed, driven by what each of them has for that: Firefox by WebDriver BiDi, WebKit by WebDriver.

import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { eventually } from "./eventually.js";
import { Ledger } from "./ledger.js";
import { directoryForTest, startForTest } from "./program.js";
import { Remote } from "./remote.js";
import { freePort, type Claims, type Gateway } from "./server.js";
import { Site, type InPage, type PageConfig } from "./site.js";
import { AnyTab } from "./tab.js";

/** What drives a browser. A tab goes by the name that the browser gives it. */
interface Driver {
  /** Opens a tab, which is in front then, at an address. */
  open(url: string): Promise<string>;
  /** Evaluates an expression in the page of a tab, to what JSON can say. */
  evaluate(tab: string, expression: string): Promise<unknown>;
  reload(tab: string): Promise<void>;
  close(tab: string): Promise<void>;
}

export const engines = ["firefox", "webkit"] as const;
export type EngineName = (typeof engines)[number];

/** What Firefox would do by itself over networks that are none of a test's, and the first page that it would show. */
const preferences: Record<string, string | number | boolean> = {
  // Everything that is not of this machine ends here.
  "network.proxy.type": 1,
  "network.proxy.http": "127.0.0.1",
  "network.proxy.http_port": 9,
  "network.proxy.ssl": "127.0.0.1",
  "network.proxy.ssl_port": 9,
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
};

class Firefox implements Driver {
  private constructor(private readonly remote: Remote) {}

  static async forTest(): Promise<Firefox> {
    const profile = directoryForTest();
    const lines = Object.entries(preferences).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`);
    await writeFile(join(profile, "user.js"), lines.join("\n"));
    const port = await freePort();
    startForTest("/usr/bin/firefox-esr", ["--headless", "--no-remote", "--profile", profile, `--remote-debugging-port=${port}`], { debian: "firefox-esr", env: { HOME: profile } });
    const remote = await eventually(() => Remote.forTest(`ws://127.0.0.1:${port}/session`), "Firefox can be driven");
    await remote.ask("session.new", { capabilities: {} });
    return new Firefox(remote);
  }

  async open(url: string): Promise<string> {
    const { context } = await this.remote.ask("browsingContext.create", { type: "tab" });
    await this.remote.ask("browsingContext.navigate", { context, url, wait: "complete" });
    return context as string;
  }

  async evaluate(context: string, expression: string): Promise<unknown> {
    const { result, exceptionDetails } = await this.remote.ask("script.evaluate", { expression: `JSON.stringify(${expression})`, target: { context }, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return result.type === "undefined" ? undefined : JSON.parse(result.value);
  }

  async reload(context: string): Promise<void> {
    await this.remote.ask("browsingContext.reload", { context, wait: "complete" });
  }

  async close(context: string): Promise<void> {
    await this.remote.ask("browsingContext.close", { context });
  }
}

/** WebKit as GNOME's browser has it, which is Safari's but for the surroundings. It needs a display, and gets one of its own. */
class WebKit implements Driver {
  /** One thing after the other, as what is asked is asked of the tab that was chosen last. */
  #turn: Promise<unknown> = Promise.resolve();
  #fresh = true;

  private constructor(private readonly session: string) {}

  static async forTest(): Promise<WebKit> {
    const home = directoryForTest();
    const display = startForTest("/usr/bin/Xvfb", ["-displayfd", "1", "-screen", "0", "1024x768x24"], { debian: "xvfb", stdio: ["ignore", "pipe", "ignore"] });
    const number = await new Promise<string>((done) => display.stdout!.once("data", (d) => done(String(d).trim())));
    const port = await freePort();
    const env = { DISPLAY: `:${number}`, HOME: home, GDK_BACKEND: "x11", NO_AT_BRIDGE: "1", http_proxy: "http://127.0.0.1:9", https_proxy: "http://127.0.0.1:9", no_proxy: "127.0.0.1" };
    startForTest("/usr/bin/WebKitWebDriver", [`--port=${port}`], { debian: "webkit2gtk-driver", env });
    const url = `http://127.0.0.1:${port}/session`;
    await eventually(() => fetch(`http://127.0.0.1:${port}/status`).then((r) => r.ok), "WebKit can be driven");
    const { sessionId } = await command("POST", url, { capabilities: { alwaysMatch: { "webkitgtk:browserOptions": { binary: browser(), args: ["--automation"] } } } });
    return new WebKit(`${url}/${sessionId}`);
  }

  /** Asks something of a tab, once those before have their answers. */
  private of<T>(tab: string | undefined, ask: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(async () => {
      if (tab) await command("POST", `${this.session}/window`, { handle: tab });
      return ask();
    });
    this.#turn = mine.catch(() => {});
    return mine;
  }

  open(url: string): Promise<string> {
    return this.of(undefined, async () => {
      // It begins with a tab.
      const handle = this.#fresh ? await command("GET", `${this.session}/window`) : (await command("POST", `${this.session}/window/new`, { type: "tab" })).handle;
      this.#fresh = false;
      await command("POST", `${this.session}/window`, { handle });
      await command("POST", `${this.session}/url`, { url });
      return handle as string;
    });
  }

  evaluate(tab: string, expression: string): Promise<unknown> {
    return this.of(tab, () => command("POST", `${this.session}/execute/sync`, { script: `return ${expression}`, args: [] }));
  }

  reload(tab: string): Promise<void> {
    return this.of(tab, () => command("POST", `${this.session}/refresh`, {}));
  }

  close(tab: string): Promise<void> {
    return this.of(tab, () => command("DELETE", `${this.session}/window`));
  }
}

/** The browser that comes with the driver. */
function browser(): string {
  const machine = process.arch === "arm64" ? "aarch64" : "x86_64";
  const found = ["4.1", "4.0"].map((v) => `/usr/lib/${machine}-linux-gnu/webkit2gtk-${v}/MiniBrowser`).find(existsSync);
  if (!found) throw new Error("no MiniBrowser: it comes with Debian's package webkit2gtk-driver");
  return found;
}

/** Asks by WebDriver. */
async function command(method: string, url: string, body?: object): Promise<any> {
  const response = await fetch(url, { method, ...(body && { body: JSON.stringify(body) }) });
  const { value } = (await response.json()) as { value: any };
  if (!response.ok) throw new Error(`${value.error}: ${value.message}`);
  return value;
}

/** One browser profile at an application of the gateway, which ends with the test. */
export class Engine {
  readonly tabs: EngineTab[] = [];

  private constructor(
    private readonly driver: Driver,
    private readonly site: Site,
  ) {}

  static async forTest(name: EngineName, gateway: Gateway, claims: Claims = {}): Promise<Engine> {
    const site = new Site(gateway, claims);
    onTestFinished(await site.start());
    return new Engine(name === "firefox" ? await Firefox.forTest() : await WebKit.forTest(), site);
  }

  /** Opens a tab, and its page. */
  async open(config: Partial<PageConfig> = {}): Promise<EngineTab> {
    const tab = new EngineTab(this.driver, await this.driver.open(this.site.page(config)), `${this.site.url}/elsewhere`);
    this.tabs.push(tab);
    return tab;
  }
}

/** A tab of such a browser. What its console says cannot be had from all of them, and is not looked at. */
export class EngineTab extends AnyTab {
  constructor(
    private readonly driver: Driver,
    private readonly name: string,
    private readonly elsewhere: string,
  ) {
    super(new Ledger());
  }

  see<T>(what: (test: InPage) => T): Promise<T> {
    return this.driver.evaluate(this.name, `(${what.toString()})(window.test)`) as Promise<T>;
  }

  reload(): Promise<void> {
    return this.driver.reload(this.name);
  }

  close(): Promise<void> {
    return this.driver.close(this.name);
  }

  async leave(): Promise<void> {
    await this.driver.evaluate(this.name, `void (location.href = ${JSON.stringify(this.elsewhere)})`);
    await eventually(() => this.driver.evaluate(this.name, 'document.title === "elsewhere" && document.readyState === "complete"'), "the page was left");
  }

  async back(): Promise<void> {
    await this.driver.evaluate(this.name, "void history.back()");
    await eventually(() => this.driver.evaluate(this.name, "window.test !== undefined"), "the page is back");
  }
}
