// The hooks, in a page that draws with React, in strict mode, against a real gateway.

import { build } from "esbuild";
import { chromium, type Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Gateway } from "../kit/server.js";

const application = `
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { createClient, memoryStorage } from "../../src/index.js";
import { CarillonProvider, useCarillon, useCarillonEvent, useCarillonMessages, useCarillonState } from "../../src/react.js";

window.start = (endpoint, token) => {
  const client = createClient({ endpoint, getToken: () => token, storage: memoryStorage(), tabs: false });
  window.states = [];
  client.on("state", ({ state }) => window.states.push(state));
  const root = createRoot(document.body.appendChild(document.createElement("div")));
  root.render(<StrictMode><App client={client} /></StrictMode>);
  window.end = () => root.unmount();
};

function App({ client }) {
  const [shown, show] = useState(true);
  return <>
    <button onClick={() => show(!shown)}>toggle</button>
    <CarillonProvider client={client}>{shown && <Inbox />}</CarillonProvider>
  </>;
}

function Inbox() {
  const state = useCarillonState();
  const [bold, setBold] = useState(false);
  const messages = useCarillonMessages({ keep: 3 });
  // Another handler at each drawing: the last one is called.
  useCarillonEvent("recall", () => setBold(!bold));
  return <>
    <output>{state}</output>
    <ul data-bold={bold} data-same={useCarillon().state === state}>{messages.map((m) => <li key={m.id}>{m.body.n}</li>)}</ul>
  </>;
}
`;

let gateway: Gateway;
let browser: Browser;
let script: string;

beforeAll(async () => {
  gateway = await Gateway.start();
  browser = await chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const { outputFiles } = await build({
    stdin: { contents: application, resolveDir: import.meta.dirname, loader: "jsx" },
    bundle: true,
    write: false,
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"development"' },
  });
  script = outputFiles[0]!.text;
});

afterAll(async () => {
  await browser?.close();
  await gateway?.stop();
});

test("components draw states and messages, and the client goes with them", async () => {
  const page = await browser.newPage({ bypassCSP: true });
  const complaints: string[] = [];
  page.on("pageerror", (e) => complaints.push(e.message));
  page.on("console", (m) => {
    // Chromium itself tells of answers that are no success: it asks for an icon.
    if (m.type() === "error" && !m.text().startsWith("Failed to load resource")) complaints.push(m.text());
  });
  // Any page of the gateway's own origin will do.
  await page.goto(`${gateway.url}/demo/demo.css`);
  await page.addScriptTag({ content: script });
  await page.evaluate(([url, token]) => (window as any).start(url, token), [gateway.url, gateway.mint("alice", "react")]);
  await page.locator("output", { hasText: /^connected$/ }).waitFor();

  const to = { users: ["alice"] };
  const ids: string[] = [];
  for (let n = 1; n <= 4; n++) ids.push(await gateway.send({ ...to, body: { n } }));
  await page.locator("li", { hasText: /^4$/ }).waitFor();
  expect(await page.locator("li").allTextContents()).toEqual(["4", "3", "2"]);

  await gateway.recall(ids[2]!);
  await page.locator('ul[data-bold="true"]').waitFor();
  expect(await page.locator("li").allTextContents()).toEqual(["4", "2"]);
  await gateway.recall(ids[1]!);
  await page.locator('ul[data-bold="false"]').waitFor();

  // While nothing listens, messages wait.
  await page.locator("button").click();
  await gateway.send({ ...to, body: { n: 5 } });
  await gateway.send({ ...to, body: { n: 6 } });
  await page.locator("button").click();
  await page.locator("li", { hasText: /^6$/ }).waitFor();
  expect(await page.locator("li").allTextContents()).toEqual(["6", "5"]);

  await page.evaluate(() => (window as any).end());
  expect(await page.evaluate(() => (window as any).states.at(-1))).toBe("closed");
  expect(complaints).toEqual([]);
});
