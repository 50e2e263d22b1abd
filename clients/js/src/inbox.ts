// What came, what was handled, and how far that goes without a hole: the pure part of receiving, without I/O or time.
//
// Frames that move the cursor stand in one line, in the order in which they came. A message leaves it when it was handled, and the cursor moves
// over what is done at the line's head: so it never stands above something that is not. A new session begins a new line; what handlers still work
// on then is told by its id when it comes again, and is not handed out twice.

import { formatCursor, moveCursor, parseCursor, type Cursor } from "./cursor.js";
import type { Gap, Recall, ServerFrame } from "./types.js";

/** How many ids of handled messages are kept to know a repeat by: of persistent ones with the cursor, of others in memory. */
const RECENT_IDS = 1000;
const RECENT_LIVE = 256;

/** A frame in the line. */
interface Item {
  readonly frame: ServerFrame;
  done: boolean;
}

/** A message on its way through the handlers. */
export interface Entry {
  readonly id: string;
  readonly frame: ServerFrame;
  readonly persistent: boolean;
  /** Given to handlers, at least once. */
  handed: boolean;
  /** With handlers now. */
  working: boolean;
  /** How often handlers failed. */
  failures: number;
  /** Where it stands in the line: more than once, if it came again meanwhile. */
  readonly items: Item[];
}

/** What receiving a frame comes to, besides messages. */
export type Notice = ["gap", Gap] | ["recall", Recall];

/** The last ids, the oldest going first. */
class Recent {
  readonly ids = new Set<string>();
  constructor(private readonly most: number) {}
  note(id: string): void {
    this.ids.add(id);
    if (this.ids.size > this.most) this.ids.delete(this.ids.values().next().value!);
  }
}

/** The receiving side of one device. */
export class Inbox {
  /** Up to where everything was handled. */
  cursor: Cursor | undefined;
  readonly #kept = new Recent(RECENT_IDS);
  readonly #live = new Recent(RECENT_LIVE);
  /** By id, what is in the queue or with handlers. */
  readonly #entries = new Map<string, Entry>();
  #queue: Entry[] = [];
  #next = 0;
  #line: Item[] = [];
  #head = 0;
  #acked: string | undefined;

  /** Begins from what was stored, keeping what this run knows besides. */
  restore(cursor: string | undefined, ids: Iterable<string>): void {
    const known = [...this.#kept.ids];
    this.#kept.ids.clear();
    for (const id of [...ids, ...known]) this.#kept.note(id);
    this.cursor = parseCursor(cursor);
    this.#begin();
  }

  /** The ids of persistent messages that were handled, the oldest first. */
  get ids(): Iterable<string> {
    return this.#kept.ids;
  }

  get cursorText(): string | undefined {
    return this.cursor && formatCursor(this.cursor);
  }

  /** Whether everything that came is handled. */
  get drained(): boolean {
    return this.#head === this.#line.length;
  }

  #begin(): void {
    this.#line = [];
    this.#head = 0;
    for (const e of this.#entries.values()) e.items.length = 0;
  }

  /** Takes a frame, and returns what the application is to be told of it at once. */
  receive(frame: ServerFrame): Notice | undefined {
    const id = frame["id"] as string;
    switch (frame.type) {
      case "welcome": {
        const before = this.cursorText;
        this.cursor = parseCursor(frame["cursor"] as string) ?? this.cursor;
        // What the server came up with by itself needs no acknowledgement; what was presented may be more than it knows.
        if (before !== this.cursorText) this.#acked = this.cursorText;
        this.#begin();
        return undefined;
      }
      case "message":
        this.#message(id, frame);
        return undefined;
      case "recall": {
        const e = this.#entries.get(id);
        const handed = e ? e.handed : this.#kept.ids.has(id);
        if (e && !e.working) this.#leave(e);
        this.#pass(frame);
        return ["recall", { id, handed }];
      }
      case "gap":
        this.#pass(frame);
        return [
          "gap",
          {
            slot: frame["slot"] === 0 ? "own" : "common",
            reason: frame["reason"] as string,
            from: frame["from"] as number,
            to: frame["to"] as number,
          },
        ];
      case "cursor":
        this.#pass(frame);
    }
    return undefined;
  }

  #message(id: string, frame: ServerFrame): void {
    const persistent = frame["slot"] != null;
    if (!persistent) {
      if (this.#live.ids.has(id)) return;
      this.#live.note(id);
      this.#queue.push({ id, frame, persistent, handed: false, working: false, failures: 0, items: [] });
      return;
    }
    const item = { frame, done: this.#kept.ids.has(id) };
    this.#line.push(item);
    if (item.done) {
      this.#advance();
      return;
    }
    let e = this.#entries.get(id);
    if (!e) {
      e = { id, frame, persistent, handed: false, working: false, failures: 0, items: [] };
      this.#entries.set(id, e);
      this.#queue.push(e);
    }
    e.items.push(item);
  }

  #pass(frame: ServerFrame): void {
    this.#line.push({ frame, done: true });
    this.#advance();
  }

  #advance(): void {
    while (this.#line[this.#head]?.done) this.cursor = moveCursor(this.cursor, this.#line[this.#head++]!.frame);
    if (this.#head === this.#line.length || this.#head > 1024) {
      this.#line.splice(0, this.#head);
      this.#head = 0;
    }
  }

  /** The next message for handlers. It is the caller's until {@link handled} or {@link again}. */
  take(): Entry | undefined {
    for (;;) {
      const e = this.#queue[this.#next];
      if (!e) {
        this.#queue = [];
        this.#next = 0;
        return undefined;
      }
      if (++this.#next > 1024) {
        this.#queue.splice(0, this.#next);
        this.#next = 0;
      }
      if (e.persistent && this.#entries.get(e.id) !== e) continue; // recalled while it waited
      e.handed = e.working = true;
      return e;
    }
  }

  /** Puts a message back, behind what waits: its handlers failed. */
  again(e: Entry): void {
    e.working = false;
    this.#queue.push(e);
  }

  /** The message with this id, if it is on its way. */
  entry(id: string): Entry | undefined {
    return this.#entries.get(id);
  }

  /** Notes that a message was handled. Reports whether that is new. */
  handled(e: Entry): boolean {
    if (!e.persistent || this.#entries.get(e.id) !== e) return false;
    this.#kept.note(e.id);
    this.#leave(e);
    return true;
  }

  #leave(e: Entry): void {
    this.#entries.delete(e.id);
    for (const item of e.items) item.done = true;
    this.#advance();
  }

  /** Whether something was handled that was not acknowledged. */
  get owesAck(): boolean {
    return this.cursor !== undefined && this.#acked !== this.cursorText;
  }

  /** Notes that the cursor was acknowledged, or, with undefined, that an acknowledgement may have been lost with the connection. */
  acknowledged(cursor: string | undefined): void {
    this.#acked = cursor;
  }
}
