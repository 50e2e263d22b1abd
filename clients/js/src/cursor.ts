// How far a device is, and how frames move that: `api/README.md`, section 4. Pure.

import type { ServerFrame } from "./types.js";

/** A cursor's parts. They stay text, hexadecimal as they stand: not all of them fit in a number. */
export interface Cursor {
  readonly owner: string;
  readonly slots: readonly [Place, Place];
}

/** Where a device is in a slot. With epoch `0` it has no place there yet. */
export interface Place {
  readonly epoch: string;
  readonly lineage: string;
  readonly pos: string;
}

const shape = /^1(\.(0|[1-9a-f][\da-f]{0,15})){7}$/;

/** Reads a cursor. Undefined: it is none, which is no error. */
export function parseCursor(text: string | null | undefined): Cursor | undefined {
  if (!text || text.length > 120 || !shape.test(text)) return undefined;
  const [, owner, ...p] = text.split(".") as [string, string, ...string[]];
  const place = (i: number): Place => ({ epoch: p[i]!, lineage: p[i + 1]!, pos: p[i + 2]! });
  return { owner, slots: [place(0), place(3)] };
}

/** Writes a cursor. */
export function formatCursor({ owner, slots }: Cursor): string {
  return [1, owner, ...slots.flatMap((s) => [s.epoch, s.lineage, s.pos])].join(".");
}

/** The cursor behind a frame that was handled. `welcome` and `cursor` replace it; a position never moves back otherwise. */
export function moveCursor(cursor: Cursor | undefined, frame: ServerFrame): Cursor | undefined {
  const named = frame["cursor"];
  if (typeof named === "string") return parseCursor(named) ?? cursor;
  const slot = frame["slot"];
  if (!cursor || (slot !== 0 && slot !== 1) || frame["reason"] === "reset") return cursor;
  const pos = ((frame["pos"] ?? frame["to"]) as number).toString(16);
  const at = cursor.slots[slot];
  // Without leading zeros, the longer one is the larger.
  const further = pos.length - at.pos.length || (pos > at.pos ? 1 : 0);
  if (at.epoch === "0" || further <= 0) return cursor;
  const moved = { ...at, pos };
  return { owner: cursor.owner, slots: slot ? [cursor.slots[0], moved] : [moved, cursor.slots[1]] };
}
