/**
 * Carillon in browsers, workers and Node.
 *
 * @packageDocumentation
 */
import { check } from "./check.js";
import { makeClient } from "./client.js";
import { clicked, deviceTags, displayed, messages } from "./extras.js";
import { persistent } from "./keep.js";
import { pageEvents } from "./lifecycle.js";
import { longPoll } from "./longpoll.js";
import { fallback } from "./race.js";
import { sse } from "./sse.js";
import { localStorageStorage } from "./storage.js";
import { shared, sharedTabs } from "./tabs.js";
import type { Client, ClientOptions, Message } from "./types.js";
import { webSocket } from "./websocket.js";

/**
 * Makes a device's client, which is idle until {@link Client.connect}. By default it connects over WebSocket, event stream or long-poll, whichever gets
 * through, keeps its place in `localStorage`, and shares one connection with the other tabs of the browser.
 *
 * @throws {CarillonError} with code `invalid`, for options that cannot be
 */
export function createClient<Body = unknown>(options: ClientOptions): Client<Body> {
  const tabs = options.tabs ?? sharedTabs();
  const place = persistent(options.storage ?? localStorageStorage());
  const core = makeClient<Body>({
    ...options,
    transports: fallback(...(options.transports ?? [webSocket(), sse(), longPoll()])),
    place: tabs ? shared(place, tabs) : place,
    page: pageEvents,
    check,
  });
  // Made now, so that what other tabs have to say is heard.
  const tags = deviceTags(core);
  return Object.assign(core, {
    messages: (o?: { signal?: AbortSignal }) => messages(core, o),
    displayed: (m: Message | string) => displayed(core, m),
    clicked: (m: Message | string) => clicked(core, m),
    tags,
  });
}

export { CarillonError, UnauthorizedError } from "./errors.js";
export type { Fetch } from "./http.js";
export { longPoll } from "./longpoll.js";
export { sse } from "./sse.js";
export { indexedDBStorage, localStorageStorage, memoryStorage } from "./storage.js";
export { sharedTabs } from "./tabs.js";
export { webSocket, type WebSocketLike } from "./websocket.js";
export type * from "./types.js";
