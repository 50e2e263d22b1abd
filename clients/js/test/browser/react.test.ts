// The hooks, in a page that draws with React, in strict mode, against a real gateway.

import { build } from "esbuild";
import { expect, test } from "vitest";
import { barePageForTest } from "../kit/browser.js";
import { gatewayForTest } from "../kit/device.js";

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

test("components draw states and messages, and the client goes with them", async () => {
  const { outputFiles } = await build({
    stdin: { contents: application, resolveDir: import.meta.dirname, loader: "jsx" },
    bundle: true,
    write: false,
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"development"' },
  });
  const gateway = await gatewayForTest();
  const { page, complaints } = await barePageForTest(gateway);
  await page.addScriptTag({ content: outputFiles[0]!.text });
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
