// What runs in the pages of `browser.ts`: an application that connects, and shows what happens to it.

import * as sdk from "../../src/index.js";
import type { InPage, PageConfig } from "./site.js";

const config = JSON.parse(new URLSearchParams(location.search).get("config")!) as PageConfig;

// What was handled, noted as an application would that has to know it after a reload: at once, and where it stays. `sessionStorage` is of this tab alone.
let noted = Number(sessionStorage.getItem("noted") ?? 0);
function note(id: string): void {
  sessionStorage.setItem(`got ${noted++}`, id);
  sessionStorage.setItem("noted", String(noted));
}
const handled = (): string[] => Array.from({ length: noted }, (_, n) => sessionStorage.getItem(`got ${n}`)!);

const client = sdk.createClient({
  endpoint: config.endpoint,
  async getToken({ reason, signal }) {
    page.tokens.push(reason);
    const r = await fetch(`/token?${new URLSearchParams({ user: config.user, device: config.device })}`, { signal });
    return r.text();
  },
  ...(config.indexedDB && { storage: sdk.indexedDBStorage() }),
});

const page: InPage = (window.test = { client, states: [], errors: [], kicks: [], gaps: [], tokens: [], longTasks: [], persisted: false, count: 0, sum: 0, handled });

client.on("message", (m) => {
  page.count++;
  page.sum += (m.body as { n?: number } | undefined)?.n ?? 0;
  if (config.note !== false) note(m.id);
});
client.on("state", (s) => page.states.push(s));
client.on("error", (e) => page.errors.push(String(e)));
client.on("kick", (k) => page.kicks.push(k));
client.on("gap", (g) => page.gaps.push(g));
addEventListener("error", (e) => page.errors.push(`uncaught: ${e.message}`));
addEventListener("unhandledrejection", (e) => page.errors.push(`unhandled: ${e.reason}`));
addEventListener("pageshow", (e) => (page.persisted ||= e.persisted));
new PerformanceObserver((list) => page.longTasks.push(...list.getEntries().map((e) => e.duration))).observe({ type: "longtask" });

client.connect().catch((e: unknown) => page.errors.push(`connect: ${e}`));
