// The client with everything that a browser wants, short of what `extras.ts` has.

import { makeClient } from "./client.js";
import { fallback } from "./race.js";
import { persistent } from "./keep.js";
import { pageEvents } from "./lifecycle.js";
import type { ClientOptions, CoreClient, Storage, Transport } from "./types.js";

/** What {@link makeFullClient} needs besides what its user says. */
export type Complete = ClientOptions & { transports: readonly Transport[]; storage: Storage };

/** Makes a client whose transports are tried beside each other, and which goes by its page. */
export function makeFullClient<Body>({ transports, storage, ...options }: Complete): CoreClient<Body> {
  return makeClient<Body>({ ...options, transports: fallback(...transports), storage: persistent(storage), page: pageEvents });
}
