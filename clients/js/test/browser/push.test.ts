// The service worker of docs/js/recipes.md, as it stands there: a vendor's push wakes it, and it shows what waits.

import { build } from "esbuild";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { Chromium } from "../kit/browser.js";
import { acknowledged, gatewayForTest } from "../kit/device.js";
import { eventually } from "../kit/eventually.js";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

test("a push wakes a service worker, which shows each message once", async () => {
  const gateway = await gatewayForTest();
  const chromium = await Chromium.forTest(gateway);
  const [, recipe] = /^## A service worker that[^]*?^```ts\n([^]*?)^```/m.exec(readFileSync(at("../../../../docs/js/recipes.md"), "utf8"))!;
  const surroundings = `
    const getToken = async () => (await fetch("/token?user=alice&device=worker")).text();
    const show = self.registration.showNotification.bind(self.registration);
    const told = new BroadcastChannel("shown");
    self.registration.showNotification = async (title) => {
      await show(title);
      told.postMessage(title);
    };
  `;
  const { outputFiles } = await build({
    stdin: { contents: surroundings + recipe!.replace("https://push.example.com", gateway.url), loader: "ts", resolveDir: at(".") },
    alias: { "@carillon/client": at("../../src/index.ts") },
    bundle: true,
    write: false,
    target: "es2022",
  });
  chromium.site.scripts.set("/sw.js", outputFiles[0]!.text);

  const origin = chromium.site.url;
  await chromium.context.grantPermissions(["notifications"], { origin });
  const page = await chromium.context.newPage();
  await page.goto(`${origin}/elsewhere`);
  const cdp = await chromium.context.newCDPSession(page);
  let registrationId = "";
  cdp.on("ServiceWorker.workerRegistrationUpdated", ({ registrations }) => (registrationId = registrations[0]?.registrationId ?? registrationId));
  await cdp.send("ServiceWorker.enable");
  await page.evaluate(async () => {
    // Chromium forgets a notification that is asked for while it is being shown, so nobody asks.
    const shown: string[] = [];
    new BroadcastChannel("shown").onmessage = ({ data }) => shown.push(data);
    Object.assign(window, { shown });
    await navigator.serviceWorker.register("/sw.js");
    await navigator.serviceWorker.ready;
  });
  await eventually(() => registrationId !== "", "the worker is registered");
  const shown = (): Promise<string[]> => page.evaluate(() => (window as any).shown);
  const push = (): Promise<unknown> => cdp.send("ServiceWorker.deliverPushMessage", { origin, registrationId, data: "" });

  for (const title of ["one", "two"]) await gateway.send({ users: ["alice"], body: { title } });
  // Two at once are the work of one client.
  await Promise.all([push(), push()]);
  await eventually(async () => (await shown()).length >= 2, "what waited is shown", { seen: shown });
  await acknowledged(gateway, { user: "alice", device: "worker" });

  // The worker ends, as idle ones do, and is woken again.
  await cdp.send("ServiceWorker.stopAllWorkers");
  await gateway.send({ users: ["alice"], body: { title: "three" } });
  await push();
  await eventually(async () => (await shown()).length >= 3, "what came meanwhile is shown", { seen: shown });
  await acknowledged(gateway, { user: "alice", device: "worker" });
  expect(await shown()).toEqual(["one", "two", "three"]);
});
