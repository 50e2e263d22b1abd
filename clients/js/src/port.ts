// What a client and its parts have of each other: the place where it is kept, and events and tags. None of it is public.

import type { Inbox } from "./inbox.js";
import type { ClientFrame, Clock, ErrorCode, ServerFrame, Transport } from "./types.js";

/** A transport that won over a better one. */
export interface Remembered {
  readonly transport: string;
  readonly until: number;
}

/** What the parts that a client is given have of it. */
export interface Port {
  readonly clock: Clock;
  readonly inbox: Inbox;
  /** How the connection that stands was welcomed. */
  readonly welcome: ServerFrame | undefined;
  trouble(code: ErrorCode, message: string, cause: unknown): void;
  /** Says something over the connection that stands. */
  say(frame: ClientFrame): void;
  /** This client connects, from there or, without a cursor, from where it is. */
  lead(from: { cursor?: string | undefined; ids: string[]; won?: Remembered | undefined }): void;
  /** Another one does, and is to be followed over this. */
  follow(over: Transport): void;
  /** Takes a frame that answers; reports whether it was its own. */
  answer?(frame: ServerFrame): boolean;
  /** Takes what another tab has to say. */
  said?(frame: ClientFrame, answer: (frame: ServerFrame) => void): void;
}

/** What is kept of a device, and who connects for it: what a place is to a client. */
export interface Keeper {
  /** A write is under way that takes its time. */
  writing: boolean;
  /** The random name of this browser profile. */
  device(): Promise<string>;
  /** The client is of this identity, whose everything is from now on. Tells it to lead or to follow, but where it has joined already. */
  join(identity: string): void;
  /** Reads what is kept and leads, if it is `still` to; one that `followed` from where it is. */
  lead(identity: string, followed?: boolean, still?: () => boolean): Promise<void>;
  /** Leaves those that it has joined. */
  leave?(): void;
  /** Notes the id of a message that was handled for the next `save`. */
  note(id: string): void;
  /** Writes the cursor, and calls `done` then: at once where the storage is; or, if that failed, when to try again. One at a time. */
  save(cursor: string, all: Iterable<string>, done: (written: boolean) => void): void;
  remember(won?: Remembered): void;
  /** These came over the connection that stands. */
  frames?(frames: readonly ServerFrame[]): void;
  /** It ended. */
  down?(): void;
}
