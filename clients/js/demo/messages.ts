// The list of a device's messages: the newest first, and not all of them.

import type { Device, Received } from "./device.js";
import { h, say, timeOf } from "./dom.js";

const MOST = 200;

interface Row {
  readonly root: HTMLLIElement;
  update(): void;
}

export interface MessageList {
  readonly root: HTMLElement;
  update(): void;
}

/** A body as text. Bytes are told by their number. */
export function textOf(body: unknown): string {
  if (body === undefined) return "(no body)";
  if (body instanceof Uint8Array) return `(${body.length} bytes)`;
  return JSON.stringify(body);
}

export function messageList(device: Device): MessageList {
  const list = h("ol", { class: "messages", testid: `${device.side}-messages`, tabindex: "0", "aria-label": `Messages of ${device.name}, the newest first` });
  const empty = h("div", { class: "empty", testid: `${device.side}-messages-empty` });
  const more = h("p", { class: "quiet more", testid: `${device.side}-messages-hidden` });
  const rows = new Map<Received, Row>();
  let shown = 0;

  function row(r: Received): Row {
    const displayed = h("button", { type: "button", class: "small", testid: "message-displayed", click: () => device.displayed(r) }, "Displayed");
    const clicked = h("button", { type: "button", class: "small", testid: "message-clicked", click: () => device.clicked(r) }, "Clicked");
    const recalled = h("span", { class: "mark recalled", testid: "message-recalled", hidden: true }, "recalled");
    const { id, message } = r;
    const root = h(
      "li",
      { class: "message", testid: "message", "data-id": id },
      h("code", { class: "body", testid: "message-body" }, textOf(message.body)),
      h(
        "div",
        { class: "meta" },
        h("time", { datetime: message.time.toISOString() }, timeOf(message.time)),
        h("span", { class: `mark ${message.persistent ? "kept" : "passing"}`, testid: "message-kind" }, message.persistent ? "persistent" : "online only"),
        recalled,
        h("code", { class: "id", title: "The message's id", testid: "message-id" }, id),
        h("span", { class: "acts" }, displayed, clicked),
      ),
    );
    return {
      root,
      update() {
        root.classList.toggle("is-recalled", r.recalled);
        recalled.hidden = !r.recalled;
        for (const [button, done] of [[displayed, r.displayed], [clicked, r.clicked]] as const) {
          button.disabled = done;
          button.setAttribute("aria-pressed", String(done));
        }
      },
    };
  }

  return {
    root: h("div", { class: "list" }, empty, list, more),
    update() {
      const all = device.received;
      // Of very many that came at once, the oldest are not even made.
      for (const r of all.slice(Math.max(shown, all.length - MOST))) {
        const made = row(r);
        rows.set(r, made);
        list.prepend(made.root);
      }
      shown = all.length;
      for (const [r, old] of rows) {
        if (rows.size <= MOST) break;
        old.root.remove();
        rows.delete(r);
      }
      for (const r of rows.values()) r.update();
      empty.hidden = all.length > 0;
      list.hidden = !all.length;
      more.hidden = all.length <= MOST;
      if (!empty.hidden) say(empty, hint(device));
      if (!more.hidden) say(more, `The last ${MOST} of ${all.length} are shown.`);
    },
  };
}

/** What to do where there is nothing to see. */
function hint({ state, network, identity }: Device): string {
  if (network.cut) return "The network is cut. Send something meanwhile, then let it come back: persistent messages wait.";
  switch (state) {
    case "idle":
    case "closed":
      return `Not connected. Persistent messages to ${identity.user} wait until it is: send one, then connect.`;
    case "connected":
      return `Nothing yet. Send ${identity.user} a message with the form above.`;
    case "failed":
      return "The client has given up; the log says why. Connect tries again.";
    case "suspended":
      return "Another tab is connected as this device. Connect takes the place back.";
    default:
      return "On its way to the gateway.";
  }
}
