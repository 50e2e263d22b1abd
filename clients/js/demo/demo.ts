// The demo page: two devices side by side, and the form that sends to them. The page and its style are in `server/demo/page`, of the gateway that shows it in
// development; end-to-end tests drive it.
//
// The address may say: ?left=alice/laptop&right=bob/phone (user/device), tabs=1 (the tabs of this browser share one connection), single=1 (the left
// device alone), life=seconds (of tokens), transport=websocket|sse|longpoll.
//
// What tests find by `data-testid`; <side> is `left` or `right`:
//
//   docs                                      the link to the documentation
//   announcer                                 what screen readers are told
//   composer                                  the form
//   send-to-user-<user>, send-to-everyone, send-to-tag     radio buttons
//   send-persistent, send-body, send-problem  checkbox, text, what is wrong with it
//   send, send-many, recall-last              buttons
//   send-outcome                              what became of it
//
//   <side>                                    the panel
//   <side>-user, <side>-device                its names
//   <side>-state                              the state, as a word; also its data-state
//   <side>-note                               why, and when it tries again
//   <side>-connect, <side>-close, <side>-cut, <side>-kick     buttons; cut has aria-pressed
//   <side>-trouble                            what a button could not do
//   <side>-use-auto, <side>-use-websocket, <side>-use-sse, <side>-use-longpoll     radio buttons
//   <side>-transport                          in use, by name; its data-transport has the SDK's word, empty for none
//   <side>-position-own, <side>-position-common               positions, in decimals
//   <side>-cursor-toggle, <side>-cursor       the cursor as it is
//   <side>-token-expiry                       h:mm:ss, m:ss, `ended`, or `–` before the first
//   <side>-tags, <side>-tag                   the joined tags; the button that joins or leaves
//   <side>-received, <side>-repeats, <side>-gaps, <side>-recalls                   counters
//   <side>-messages                           the list, newest first; <side>-messages-empty in its place, <side>-messages-hidden below it
//     message (its data-id), message-body, message-id, message-kind, message-recalled, message-displayed, message-clicked
//   <side>-log-toggle, <side>-log             events, newest first
//     log-line (its data-what)
//
// `window.demo` has the same without looking: see `Exposed`.

import { sharedTabs, type Client, type State, type StateChange } from "../src/index.js";
import { composer } from "./composer.js";
import { Device } from "./device.js";
import { announce } from "./dom.js";
import { panel } from "./panel.js";
import { settingsOf } from "./settings.js";

/** A device, for tests and the console. All of it is read when it is asked for. */
export interface Exposed {
  /** The client in use; another one after the transport was switched. */
  readonly client: Client;
  /** The ids of all messages, in the order in which they came. */
  readonly ids: readonly string[];
  /** Their bodies. */
  readonly bodies: readonly unknown[];
  /** Every state since the page was opened. */
  readonly states: readonly State[];
  readonly history: readonly StateChange[];
  readonly counts: { readonly received: number; readonly repeats: number; readonly gaps: number; readonly recalls: number };
  readonly log: readonly { readonly what: string; readonly text: string }[];
  readonly cut: boolean;
  setCut(cut: boolean): void;
}

declare global {
  interface Window {
    demo?: Partial<Record<"left" | "right", Exposed>>;
  }
}

function expose(d: Device): Exposed {
  return {
    get client() {
      return d.client;
    },
    get ids() {
      return d.received.map((r) => r.id);
    },
    get bodies() {
      return d.received.map((r) => r.message.body);
    },
    get states() {
      return d.states.map((s) => s.state);
    },
    get history() {
      return d.states;
    },
    get counts() {
      return { received: d.received.length, repeats: d.repeats, gaps: d.gaps, recalls: d.recalls };
    },
    get log() {
      return d.log;
    },
    get cut() {
      return d.network.cut;
    },
    setCut: (cut) => d.setCut(cut),
  };
}

const settings = settingsOf(new URLSearchParams(location.search));
const tabs = settings.tabs ? sharedTabs() : false;
const devices = settings.devices.map(({ side, identity }) => new Device(side, identity, settings, tabs));

composer(
  document.getElementById("composer")!,
  devices.map((d) => d.identity.user),
);
const place = document.getElementById("devices")!;
place.classList.toggle("single", devices.length === 1);
place.append(...devices.map(panel));
window.demo = Object.fromEntries(devices.map((d) => [d.side, expose(d)]));
announce("The demo page is ready");
