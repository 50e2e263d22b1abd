// An application of the gateway: pages that load the SDK as an application does, bundled, from another origin than the gateway's, with tokens of a server of its own.

import { build } from "esbuild";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { StateChange, TokenRequest } from "../../src/index.js";
import type { Claims, Gateway } from "./server.js";

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

let bundled: Promise<string> | undefined;

/** The page's script: the SDK from its sources, and what tests want to see of it. */
function bundle(): Promise<string> {
  return (bundled ??= build({ entryPoints: [join(kit, "page.ts")], bundle: true, write: false, format: "iife", target: "es2022" }).then(
    (r) => r.outputFiles[0]!.text,
  ));
}

/** The server of the pages and of their tokens: the application's own. */
export class Site {
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
