// Where a device's cursor and last ids lie in the storage.
//
// The cursor and the ids since the last full list are one value, written at each message; the full list is another, written when those have become many,
// and before they leave the first. So whatever a crash leaves: no id is missing that the cursor has passed.

import type { Awaitable, Storage } from "./types.js";

const MANY = 64;

/** Reads and writes what one identity keeps. One call of `save` at a time. */
export interface Keep {
  load(): Promise<{ cursor: string | undefined; ids: string[] }>;
  /** Notes an id for the next `save`. */
  note(id: string): void;
  save(cursor: string, all: Iterable<string>): Awaitable<void>;
}

/** `read` is the storage's `get` that does not fail. */
export function makeKeep(read: (key: string) => Promise<string>, storage: Storage, key: string): Keep {
  const split = (s = ""): string[] => s.split(",").filter(Boolean);
  let fresh: string[] = [];
  return {
    async load() {
      const [cursor, ids] = (await read(key)).split(" ");
      fresh = split(ids);
      return { cursor: cursor || undefined, ids: [...split(await read(`${key}:ids`)), ...fresh] };
    },
    note: (id) => void fresh.push(id),
    save(cursor, all) {
      const write = (): Awaitable<void> => storage.set(key, `${cursor} ${fresh}`);
      if (fresh.length < MANY) return write();
      const full = storage.set(`${key}:ids`, [...all].join());
      // An id that is noted meanwhile is in neither, and in the next value.
      const written = fresh.length;
      const shorten = (): Awaitable<void> => {
        fresh = fresh.slice(written);
        return write();
      };
      return full ? full.then(shorten) : shorten();
    },
  };
}
