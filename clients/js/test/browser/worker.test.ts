// A client in a worker, which has no window and no localStorage: it keeps in IndexedDB, is ended in the middle of a stream, and another one goes on.

import { build } from "esbuild";
import { expect, test } from "vitest";
import { barePageForTest } from "../kit/browser.js";
import { gatewayForTest } from "../kit/device.js";
import { eventually } from "../kit/eventually.js";

const inWorker = `
import { createClient, indexedDBStorage } from "../../src/index.js";
const seen = new Map();
self.onmessage = ({ data: { endpoint, token, n } }) => {
  if (n !== undefined) return seen.get(n)();
  const client = createClient({ endpoint, getToken: () => token, storage: indexedDBStorage() });
  client.on("state", ({ state, transport }) => self.postMessage({ state, transport }));
  // A worker that is ended takes with it what it posted and nobody heard: a message is handled when the page has it.
  client.on("message", ({ body: { n } }) => new Promise((handled) => {
    seen.set(n, handled);
    self.postMessage({ n });
  }));
  client.on("error", (e) => self.postMessage({ error: e.code }));
  void client.connect();
};
`;

test("a worker is ended in the middle of a stream, and the next one goes on", async () => {
  const { outputFiles } = await build({ stdin: { contents: inWorker, resolveDir: import.meta.dirname }, bundle: true, write: false });
  const gateway = await gatewayForTest();
  const { page, complaints } = await barePageForTest(gateway);
  const told: { state?: string; transport?: string; n?: number; error?: string }[] = [];
  await page.exposeFunction("tell", (t: (typeof told)[number]) => void told.push(t));
  await page.evaluate(
    ([script, endpoint, token]) => {
      Object.assign(window, {
        work() {
          const worker = new Worker(URL.createObjectURL(new Blob([script!])));
          worker.onmessage = async ({ data }) => {
            await (window as any).tell(data);
            if (data.n !== undefined) worker.postMessage({ n: data.n });
          };
          worker.postMessage({ endpoint, token });
          return (window as any).end = () => worker.terminate();
        },
      });
    },
    [outputFiles[0]!.text, gateway.url, gateway.mint("alice", "worker")],
  );
  const got = (): number[] => told.flatMap((t) => (t.n === undefined ? [] : [t.n]));
  const work = async (): Promise<void> => page.evaluate(() => void (window as any).work());
  const end = async (): Promise<void> => page.evaluate(() => (window as any).end());

  await work();
  await eventually(() => told.some((t) => t.transport === "websocket"), "the worker is connected", { seen: () => told });
  const batch = (from: number): Promise<unknown> =>
    gateway.sendBatch(Array.from({ length: 100 }, (_, i) => ({ users: ["alice"], body: { n: from + i } })));
  const first = batch(0);
  await eventually(() => got().length > 20, "some have come", { seen: got });
  await end();
  await first;
  await batch(100);
  await work();
  await eventually(() => new Set(got()).size === 200, "all have come", { seen: got });

  const all = got();
  // The one whose handler was through and whose place was not written yet comes again.
  expect(all.length).toBeLessThanOrEqual(201);
  expect([...new Set(all)]).toEqual(Array.from({ length: 200 }, (_, i) => i));
  expect(told.flatMap((t) => t.error ?? [])).toEqual([]);
  expect(complaints).toEqual([]);
});
