// Frames in JSON, as `api/README.md` has them. Pure. What each member has to be is in `check.ts`.

import type { ServerFrame } from "./types.js";

/** The schema version that this client speaks. */
export const VERSION = 1;

/** Reads JSON. Undefined: it is none, and why is nobody's business, as the reason would quote it. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The body of a message frame: its JSON value, its bytes, or `undefined`. */
export function bodyOf(frame: ServerFrame): unknown {
  const encoded = frame["body_base64"] as string | undefined;
  return encoded === undefined ? frame["body"] : Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
}
