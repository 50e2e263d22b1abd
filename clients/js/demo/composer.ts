// The form that sends: what a product's server would do.

import { TAG } from "./device.js";
import { h, say, segments } from "./dom.js";
import { recall, Refused, send, type Audience, type Sent } from "./server.js";

const MANY = 100;
/** How often one that the gateway is too busy for is sent again. */
const TRIES = 5;

/** Adds the number to a body that has members, so that it can be seen which one came. */
function numbered(body: unknown, n: number): unknown {
  return typeof body === "object" && body !== null && !Array.isArray(body) ? { ...body, n } : body;
}

async function sendBusy(to: Audience, persistent: boolean, body: unknown): Promise<Sent> {
  for (let tries = 1; ; tries++) {
    try {
      return await send(to, persistent, body);
    } catch (e) {
      // Sent once more only where the gateway said that it took nothing: this page knows of no repeats.
      if (!(e instanceof Refused && e.status === 429) || tries === TRIES) throw e;
      await new Promise((resolve) => setTimeout(resolve, e.again));
    }
  }
}

/** Fills the form in. `users` are those of the page's devices. */
export function composer(root: HTMLElement, users: readonly string[]): void {
  const people = [...new Set(["alice", "bob", ...users])];
  const audiences: [string, string, Audience][] = [
    ...people.map((user): [string, string, Audience] => [`user-${user}`, user, { user }]),
    ["everyone", "Everyone", { everyone: true }],
    ["tag", `Tag ${TAG}`, { tag: TAG }],
  ];
  let to = audiences.find(([, , a]) => "user" in a && a.user === users[0])![0];
  let last: string | undefined;
  let busy = false;

  const persistent = h("input", { type: "checkbox", id: "send-persistent", testid: "send-persistent" });
  persistent.checked = true;
  const body = h("textarea", { id: "send-body", testid: "send-body", rows: "2", spellcheck: "false", autocomplete: "off", "aria-describedby": "send-problem" });
  body.value = '{"text":"hello"}';
  const problem = h("p", { class: "trouble", id: "send-problem", testid: "send-problem", hidden: true });
  const outcome = h("p", { class: "quiet outcome", role: "status", testid: "send-outcome" }, "Persistent messages wait for devices that are away. Ctrl+Enter sends.");
  const one = h("button", { type: "submit", class: "primary", testid: "send" }, "Send");
  const many = h("button", { type: "button", testid: "send-many", click: () => void dispatch(MANY) }, `Send ${MANY}`);
  const back = h("button", { type: "button", testid: "recall-last", click: () => void takeBack() }, "Recall last");

  /** The JSON value, or undefined with the problem shown. */
  function read(): { value: unknown } | undefined {
    let text = "";
    let value: unknown;
    try {
      value = JSON.parse(body.value) as unknown;
    } catch (e) {
      text = `No JSON: ${e instanceof Error ? e.message : String(e)}`;
    }
    say(problem, text);
    problem.hidden = !text;
    body.setAttribute("aria-invalid", String(Boolean(text)));
    enable(Boolean(text));
    return text ? undefined : { value };
  }

  function enable(wrong = false): void {
    one.disabled = many.disabled = busy || wrong;
    back.disabled = busy || !last;
  }

  /** Does something that takes a while, and says how it went. */
  async function work(run: () => Promise<string>): Promise<void> {
    busy = true;
    enable();
    try {
      say(outcome, await run());
      outcome.classList.remove("bad");
    } catch (e) {
      say(outcome, e instanceof Refused ? `Refused (${e.code}): ${e.message}` : "The gateway cannot be reached.");
      outcome.classList.add("bad");
    }
    busy = false;
    read();
  }

  async function dispatch(count: number): Promise<void> {
    const ready = read();
    if (!ready || busy) return;
    const [, name, audience] = audiences.find(([key]) => key === to)!;
    const keep = persistent.checked;
    await work(async () => {
      let sent: Sent | undefined;
      // One after the other: that is the order in which they arrive.
      for (let n = 1; n <= count; n++) {
        sent = await sendBusy(audience, keep, count === 1 ? ready.value : numbered(ready.value, n));
        if (keep) last = sent.id;
        if (count > 1) say(outcome, `${n} of ${count} sent`);
      }
      return count === 1 ? `${keep ? "Stored" : "Handed out"} for ${name}: ${sent!.id}` : `All ${count} ${keep ? "stored" : "handed out"} for ${name}.`;
    });
  }

  async function takeBack(): Promise<void> {
    const id = last;
    if (!id || busy) return;
    await work(async () => {
      await recall(id);
      last = undefined;
      return `Recalled: ${id}`;
    });
  }

  body.addEventListener("input", read);
  body.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) void dispatch(1);
  });

  root.append(
    h("h2", { id: "composer-title" }, "Send a message"),
    h(
      "form",
      {
        testid: "composer",
        submit: (e) => {
          e.preventDefault();
          void dispatch(1);
        },
      },
      segments({ legend: "To", name: "send-to", testid: "send-to", chosen: to }, audiences.map(([key, name]) => [key, name] as const), (key) => (to = key)),
      h("div", { class: "field" }, h("label", { for: "send-body" }, "Body, as JSON"), body, problem),
      h(
        "div",
        { class: "actions" },
        one,
        many,
        back,
        h("label", { class: "check" }, persistent, h("span", {}, "Persistent")),
        outcome,
      ),
    ),
  );
  enable();
}
