import { expect, test } from "vitest";
import { Chromium } from "../kit/browser.js";
import { gatewayForTest, proxyForTest } from "../kit/device.js";
import { promisesToPages, to } from "../kit/suites.js";

promisesToPages((gateway, claims) => Chromium.forTest(gateway, { claims }), { keeps: true });

test("a page that is offline for a while gets everything when it is online", async () => {
  const gateway = await gatewayForTest();
  const proxy = await proxyForTest(gateway);
  const chromium = await Chromium.forTest(gateway);
  const tab = await chromium.open({ endpoint: proxy.url });
  await tab.is("connected");
  for (let round = 0; round < 3; round++) {
    await gateway.stream(to, 20, [tab.ledger]);
    await tab.hasEverything();
    // The browser says so, and cuts what is new; what is open is cut by the proxy.
    await chromium.context.setOffline(true);
    proxy.mode = "cut";
    await tab.is("offline");
    await gateway.stream(to, 20, [tab.ledger]);
    expect((await tab.read()).gotCount).toBe(round * 40 + 20);
    proxy.mode = "pass";
    await chromium.context.setOffline(false);
    await tab.is("connected");
    await tab.hasEverything();
  }
  expect(await tab.see((t) => t.states.filter((s) => s.state === "offline").length)).toBeGreaterThanOrEqual(3);
});

test("a page that is left for another, gone forward from and come back to, goes on", async () => {
  const gateway = await gatewayForTest();
  const tab = await (await Chromium.forTest(gateway)).open();
  await tab.is("connected");
  await tab.leave();
  await tab.back();
  await tab.forward();
  await gateway.stream(to, 20, [tab.ledger]);
  await tab.back();
  await tab.is("connected");
  await tab.hasEverything();
});
