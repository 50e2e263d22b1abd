// A device as a panel: what it is doing, what can be done to it, and its messages.

import { TAG, type Device } from "./device.js";
import { announce, h, say, segments, timeOf } from "./dom.js";
import { messageList } from "./messages.js";
import type { Choice } from "./settings.js";

/** Lines of the log that are shown. */
const MOST_LINES = 200;
/** How soon a change is seen. Many at once are one. */
const SOON_MS = 30;

const transports: readonly (readonly [Choice, string])[] = [
  ["auto", "Automatic"],
  ["websocket", "WebSocket"],
  ["sse", "SSE"],
  ["longpoll", "Long-poll"],
];
const names: Record<string, string> = { websocket: "WebSocket", sse: "SSE", longpoll: "Long-poll", tab: "another tab" };

export function panel(device: Device): HTMLElement {
  const { side, identity, name } = device;
  const id = (what: string): string => `${side}-${what}`;
  const button = (what: string, text: string, click: () => void, kind = ""): HTMLButtonElement =>
    h("button", { type: "button", testid: id(what), class: kind, click }, text);

  const badge = h("span", { class: "badge", role: "status", testid: id("state") });
  const note = h("p", { class: "quiet note", testid: id("note") });

  const readouts = h("dl", { class: "readouts" });
  const readout = (what: string, label: string): HTMLElement => {
    const value = h("dd", { testid: id(what) });
    readouts.append(h("div", {}, h("dt", {}, label), value));
    return value;
  };
  const transport = readout("transport", "Transport");
  const expiry = readout("token-expiry", "Token ends in");
  const own = readout("position-own", "Own position");
  const common = readout("position-common", "Common position");
  const cursor = h("code", { testid: id("cursor") });

  const connect = button("connect", "Connect", () => device.connect(), "primary");
  const close = button("close", "Close", () => device.close());
  const cut = button("cut", "Cut network", () => device.setCut(!device.network.cut), "danger");
  const trouble = h("p", { class: "trouble", role: "alert", testid: id("trouble"), hidden: true });
  const attempt = (done: Promise<unknown>): void => {
    trouble.hidden = true;
    done.catch((e: unknown) => {
      say(trouble, e instanceof Error ? e.message : String(e));
      trouble.hidden = false;
    });
  };
  const kick = button("kick", "Kick", () => attempt(device.kick()));
  kick.title = "Has the gateway send this device away";

  const tag = button("tag", "", () => attempt(device.tag(!device.tags.includes(TAG))), "small");
  const tags = h("span", { testid: id("tags") });

  const counters = h("dl", { class: "counters" });
  const counter = (what: string, label: string): HTMLElement => {
    const value = h("dd", { testid: id(what) });
    counters.append(h("div", {}, h("dt", {}, label), value));
    return value;
  };
  const received = counter("received", "Received");
  const repeats = counter("repeats", "Repeats");
  const gaps = counter("gaps", "Gaps");
  const recalls = counter("recalls", "Recalls");

  const list = messageList(device);
  const lines = h("ol", { class: "log", testid: id("log"), tabindex: "0", "aria-label": `Events of ${name}, the newest first` });
  const logTitle = h("summary", { testid: id("log-toggle") });
  let logged = 0;
  let told = 0;

  function state(): void {
    const { state, client, network, tokenEnds } = device;
    badge.dataset["state"] = state;
    say(badge, state);
    say(note, meaning(device));
    say(transport, client.transport ? names[client.transport] ?? client.transport : "none");
    transport.dataset["transport"] = client.transport ?? "";
    const p = device.positions;
    say(own, p ? String(p.own) : "–");
    say(common, p ? String(p.common) : "–");
    say(cursor, client.cursor ?? "none yet");
    say(expiry, tokenEnds === undefined ? "–" : countdown(tokenEnds - Date.now()));
    connect.disabled = state === "connected" || state === "connecting";
    close.disabled = state === "idle" || state === "closed" || state === "failed";
    say(cut, network.cut ? "Restore network" : "Cut network");
    cut.setAttribute("aria-pressed", String(network.cut));
    root.classList.toggle("is-cut", network.cut);
    tag.disabled = state !== "connected";
    say(tag, device.tags.includes(TAG) ? `Leave ${TAG}` : `Join ${TAG}`);
    say(tags, device.tags.length ? device.tags.join(", ") : "none");
  }

  function counts(): void {
    say(received, String(device.received.length));
    say(repeats, String(device.repeats));
    say(gaps, String(device.gaps));
    say(recalls, String(device.recalls));
    repeats.classList.toggle("bad", device.repeats > 0);
    gaps.classList.toggle("bad", device.gaps > 0);
    const fresh = device.received.length - told;
    if (fresh > 0) announce(`${name}: ${fresh === 1 ? "a message" : `${fresh} messages`}`);
    told = device.received.length;
  }

  function log(): void {
    for (const e of device.log.slice(Math.max(logged, device.log.length - MOST_LINES))) {
      lines.prepend(
        h("li", { "data-what": e.what, testid: "log-line" }, h("time", { datetime: e.at.toISOString() }, timeOf(e.at)), h("b", {}, e.what), h("span", {}, e.text)),
      );
    }
    logged = device.log.length;
    while (lines.childElementCount > MOST_LINES) lines.lastElementChild!.remove();
    say(logTitle, `Events (${logged})`);
  }

  let painting = false;
  function paint(): void {
    painting = false;
    state();
    counts();
    log();
    list.update();
  }
  device.onChange(() => {
    if (painting) return;
    painting = true;
    // A timer and not a frame: a page that nobody sees draws none, and what tests read has to be so there, too.
    setTimeout(paint, SOON_MS);
  });
  // What moves without a word: the cursor, which follows what was stored, and the countdowns.
  setInterval(state, 250);

  const root = h(
    "section",
    { class: "card device", testid: side, "aria-labelledby": id("title") },
    h(
      "header",
      {},
      h("h2", { id: id("title") }, h("span", { testid: id("user") }, identity.user), h("span", { class: "slash", "aria-hidden": "true" }, "/"), h("span", { testid: id("device") }, identity.device)),
      badge,
    ),
    note,
    h("div", { class: "actions" }, connect, close, cut, kick),
    trouble,
    segments({ legend: "Connect over", name: id("choice"), testid: id("use"), chosen: device.choice }, transports, (choice) => device.choose(choice)),
    readouts,
    h("details", { class: "cursor" }, h("summary", { testid: id("cursor-toggle") }, "Cursor"), cursor),
    h("div", { class: "tags" }, h("span", { class: "quiet" }, "Joined tags: ", tags), tag),
    counters,
    list.root,
    h("details", { class: "events" }, logTitle, lines),
  );
  paint();
  return root;
}

/** What the state means, in a line: panels keep their height. */
function meaning({ state, client, network, retryAt }: Device): string {
  const kick = client.failure?.kick;
  const cut = network.cut ? "The network is cut. " : "";
  switch (state) {
    case "idle":
      return `${cut}Made, and not asked to connect yet.`;
    case "connecting":
      return `${cut}Gets a token, and tries what may carry it.`;
    case "connected":
      return "Messages come as they are sent.";
    case "waiting":
    case "offline":
      return `${cut}Tries again${retryAt ? ` in ${Math.max(0, Math.ceil((retryAt.getTime() - Date.now()) / 1000))} s` : " by itself"}.`;
    case "suspended":
      return "Held back: another tab is this device, or this one was frozen.";
    case "closed":
      return `${cut}Said goodbye. What is sent meanwhile waits.`;
    case "failed":
      return kick ? `The gateway sent it away (${kick.reason})${kick.detail ? `: ${kick.detail}` : "."}` : `Given up: ${client.failure?.message ?? "it said no more"}.`;
  }
}

function countdown(ms: number): string {
  if (ms <= 0) return "ended";
  const s = Math.floor(ms / 1000);
  const two = (n: number): string => String(n).padStart(2, "0");
  return `${s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}` : Math.floor(s / 60)}:${two(s % 60)}`;
}
