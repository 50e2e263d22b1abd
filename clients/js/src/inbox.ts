// What came, what was handled, and how far that goes without a hole: the pure part of receiving, without I/O or time.
//
// Frames that move the cursor stand in one line, in the order in which they came. A message leaves it when it was handled, and the cursor moves
// over what is done at the line's head: so it never stands above something that is not. A new session begins a new line; what handlers still work
// on then is told by its id when it comes again, and is not handed out twice.

import { moveCursor, readCursor } from "./cursor.js";
import type { Gap, Recall, ServerFrame } from "./types.js";

/** How many ids of handled messages are kept to know a repeat by: of persistent ones with the cursor, of others in memory. */
const RECENT_IDS = 1000;
const RECENT_LIVE = 256;

/** A message on its way through the handlers. */
export interface Entry {
  readonly id: string;
  readonly frame: ServerFrame;
  readonly persistent: boolean;
  /** Given to handlers, at least once. */
  handed: boolean;
  /** How often handlers failed. */
  failures: number;
}

/** What receiving a frame comes to, besides messages. */
export type Notice = ["gap", Gap] | ["recall", Recall];

/** The receiving side of one device. */
export interface Inbox {
  /** Up to where everything was handled. */
  readonly cursor: string | undefined;
  /** The ids of persistent messages that were handled, the oldest first. */
  readonly ids: Iterable<string>;
  /** What came and is not handled, with what stands behind it, in order. */
  readonly pending: ReadonlySet<ServerFrame>;
  /** Whether something was handled that was not acknowledged. */
  readonly owesAck: boolean;
  /** Begins from what was stored, keeping what this run knows besides. */
  restore(cursor: string | undefined, ids: Iterable<string>): void;
  /** Takes a frame, and returns what the application is to be told of it at once. */
  receive(frame: ServerFrame): Notice | undefined;
  /** The next message for handlers. It is the caller's until `handled` or `again`. */
  take(): Entry | undefined;
  /** Puts a message back, behind what waits: its handlers failed. */
  again(e: Entry): void;
  /** The persistent message with this id, if it is on its way. */
  entry(id: string): Entry | undefined;
  /** Notes that a message was handled. Reports whether that is new. */
  handled(e: Entry): boolean;
  /** Notes that the cursor was acknowledged, or, with undefined, that an acknowledgement may have been lost with the connection. */
  acknowledged(cursor: string | undefined): void;
}

/** What stands in line, first come, first out; any of it may leave before. */
interface Line<T> {
  readonly all: ReadonlySet<T>;
  add(one: T): void;
  first(): T | undefined;
  /** Reports whether it was there. */
  leave(one: T): boolean;
}

function makeLine<T>(): Line<T> {
  const all = new Set<T>();
  // Kept, as a new one would step over all that has left since the set last grew or shrank.
  let walk = all.values();
  let head: T | undefined;
  return {
    all,
    add: (one) => void all.add(one),
    first: () => (head ??= walk.next().value ?? (walk = all.values()).next().value),
    leave(one) {
      if (head === one) head = undefined;
      return all.delete(one);
    },
  };
}

/** Makes an inbox that knows nothing. */
export function makeInbox(): Inbox {
  let cursor: string | undefined;
  let acked: string | undefined;
  const kept = new Set<string>();
  const live = new Set<string>();
  /** By id, what waits or is with handlers. */
  const entries = new Map<string, Entry>();
  const queue = makeLine<Entry>();
  /** What moves the cursor and has not. */
  let line = makeLine<ServerFrame>();

  /** Keeps the last ids, the oldest going first. */
  function note(ids: Set<string>, id: string, most: number): void {
    ids.add(id);
    if (ids.size > most) ids.delete(ids.values().next().value!);
  }

  function advance(): void {
    for (let f; (f = line.first()) && !(f.type === "message" && entries.has(f["id"] as string)); line.leave(f)) cursor = moveCursor(cursor, f);
  }

  return {
    get cursor() {
      return cursor;
    },
    get ids() {
      return kept;
    },
    get pending() {
      return line.all;
    },
    get owesAck() {
      return !!cursor && acked !== cursor;
    },
    restore(from, ids) {
      const known = [...ids, ...kept];
      kept.clear();
      for (const id of known) note(kept, id, RECENT_IDS);
      cursor = readCursor(from);
      line = makeLine();
    },
    receive(frame) {
      const { type, slot, from, to, reason } = frame as ServerFrame & Gap;
      const id = frame["id"] as string;
      const persistent = slot != null;
      let notice: Notice | undefined;
      if (type === "welcome") {
        const before = cursor;
        cursor = moveCursor(cursor, frame);
        // What the server came up with by itself needs no acknowledgement; what was presented may be more than it knows.
        if (before !== cursor) acked = cursor;
        line = makeLine();
        return;
      }
      if (type === "message") {
        if (!(persistent ? kept.has(id) || entries.has(id) : live.has(id))) {
          const e = { id, frame, persistent, handed: false, failures: 0 };
          queue.add(e);
          if (persistent) entries.set(id, e);
        }
        if (!persistent) {
          note(live, id, RECENT_LIVE);
          return;
        }
      }
      if (type === "recall") {
        const e = entries.get(id);
        notice = ["recall", { id, handed: e ? e.handed : kept.has(id) }];
        if (e && queue.leave(e)) entries.delete(id);
      }
      if (type === "gap") notice = ["gap", { slot: slot ? "common" : "own", reason, from, to }];
      line.add(frame);
      advance();
      return notice;
    },
    take() {
      const e = queue.first();
      if (e) e.handed = queue.leave(e);
      return e;
    },
    again: queue.add,
    entry: (id) => entries.get(id),
    handled(e) {
      if (entries.get(e.id) !== e) return false;
      entries.delete(e.id);
      note(kept, e.id, RECENT_IDS);
      advance();
      return true;
    },
    acknowledged: (at) => void (acked = at),
  };
}
