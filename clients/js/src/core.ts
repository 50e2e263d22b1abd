/**
 * The client without defaults: for bundles that have to be small. Name the transports that you need, and the storage; nothing else comes along.
 *
 * @packageDocumentation
 */
import { makeClient } from "./client.js";
import { localStorageStorage } from "./storage.js";
import type { ClientOptions, CoreClient, Transport } from "./types.js";

/**
 * Makes a device's client, which is idle until {@link CoreClient.connect}. Tabs are not shared unless `tabs` says so.
 *
 * @throws {CarillonError} with code `invalid`, for options that cannot be
 */
export function createClient<Body = unknown>(options: ClientOptions & { transports: readonly Transport[] }): CoreClient<Body> {
  return makeClient<Body>({ ...options, storage: options.storage ?? localStorageStorage() });
}

export { CarillonError, UnauthorizedError } from "./errors.js";
export { clicked, deviceTags, displayed, messages } from "./extras.js";
export { longPoll } from "./longpoll.js";
export { sse } from "./sse.js";
export { indexedDBStorage, localStorageStorage, memoryStorage } from "./storage.js";
export { sharedTabs } from "./tabs.js";
export type { Fetch } from "./http.js";
export { webSocket, type WebSocketLike } from "./websocket.js";
export type * from "./types.js";
