/**
 * The client without defaults, for bundles that have to be small: what you do not name is not in them.
 *
 * @packageDocumentation
 */
export { makeClient as createClient, type CoreOptions } from "./client.js";
export { check as checkFrame } from "./check.js";
export { CarillonError, UnauthorizedError } from "./errors.js";
export { clicked, deviceTags, displayed, messages } from "./extras.js";
export { persistent } from "./keep.js";
export { pageEvents } from "./lifecycle.js";
export { longPoll } from "./longpoll.js";
export type { Fallback } from "./machine.js";
export { fallback } from "./race.js";
export { sse } from "./sse.js";
export { indexedDBStorage, localStorageStorage, memoryStorage } from "./storage.js";
export { shared, sharedTabs } from "./tabs.js";
export type { Fetch } from "./http.js";
export { webSocket, type WebSocketLike } from "./websocket.js";
export type * from "./types.js";
