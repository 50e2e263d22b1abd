/**
 * The client without defaults: for bundles that have to be small. Name the transports that you need, and the storage; nothing else comes along.
 *
 * @packageDocumentation
 */
import { makeClient } from "./client.js";
import { localStorageStorage } from "./storage.js";
import type { Client, ClientOptions, Transport } from "./types.js";

/**
 * Makes a device's client, which is idle until {@link Client.connect}. Tabs are not shared unless `tabs` says so.
 *
 * @throws {CarillonError} with code `invalid`, for options that cannot be
 */
export function createClient<Body = unknown>(options: ClientOptions & { transports: readonly Transport[] }): Client<Body> {
  return makeClient<Body>({ ...options, storage: options.storage ?? localStorageStorage() });
}

export { CarillonError, UnauthorizedError } from "./errors.js";
export { webSocket, type WebSocketLike } from "./websocket.js";
export type * from "./types.js";
