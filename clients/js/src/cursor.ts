// How far a device is, and how frames move that: `api/README.md`, section 4. Pure.
//
// A cursor stays the text that it is on the wire: its numbers do not all fit in a number. Its parts are `1.owner`, and epoch, lineage and position
// of either slot, hexadecimal.

import type { ServerFrame } from "./types.js";

const shape = /^1(\.(0|[1-9a-f][\da-f]{0,15})){7}$/;

/** The cursor, if the text is one. Undefined: it is none, which is no error. */
export function readCursor(text = ""): string | undefined {
  return shape.test(text) ? text : undefined;
}

/** Where a device is in a slot, 0 or 1. With epoch `0` it has no place there yet. */
export function placeIn(cursor: string, slot: number): { epoch: string; lineage: string; pos: string } {
  const [epoch, lineage, pos] = cursor.split(".").slice(2 + 3 * slot) as [string, string, string];
  return { epoch, lineage, pos };
}

/** The cursor behind a frame that was handled. `welcome` and `cursor` replace it; a position never moves back otherwise. */
export function moveCursor(cursor: string | undefined, frame: ServerFrame): string | undefined {
  const { cursor: named, slot, reason, pos = frame["to"] } = frame;
  if (named) return readCursor(named as string) ?? cursor;
  if (!cursor || slot == null || reason === "reset") return cursor;
  const parts = cursor.split(".");
  const at = slot ? 7 : 4;
  // A position that does not fit in a number is rounded, and never below one that does.
  if (parts[at - 2] === "0" || parseInt(parts[at]!, 16) >= (pos as number)) return cursor;
  parts[at] = (pos as number).toString(16);
  return parts.join(".");
}
