// Where a device's cursor and last ids lie in the storage.
//
// The cursor and the ids since the last full list are one value, written at each message; the full list is another, written when those have become many,
// and before they leave the first. So whatever a crash leaves: no id is missing that the cursor has passed.

import { again } from "./backoff.js";
import type { Keeper, Port } from "./port.js";
import type { Awaitable, Place, Storage } from "./types.js";

/** Begins the keys of a client that was given no name. */
export const NAME = "carillon";

/** So many ids are written with the cursor at most. */
const MANY = 64;

/** Keeps a device's place in a storage, across runs. */
export function persistent(storage: Storage): Place {
  return {
    open(name = NAME, { clock, inbox, lead, trouble }: Port): Keeper {
      const split = (s = ""): string[] => s.split(",").filter(Boolean);
      let key = "";
      let fresh: string[] = [];
      let troubles = 0;
      const unwritten = (e: unknown): void => trouble("storage", "storage cannot be written", e);

      async function read(key: string): Promise<string> {
        try {
          return (await storage.get(key)) ?? "";
        } catch (e) {
          trouble("storage", "storage cannot be read", e);
          return "";
        }
      }

      async function write(key: string, value: string): Promise<void> {
        try {
          await storage.set(key, value);
        } catch (e) {
          unwritten(e);
        }
      }

      function put(cursor: string, all: Iterable<string>): Awaitable<void> {
        const short = (): Awaitable<void> => storage.set(key, `${cursor} ${fresh}`);
        if (fresh.length < MANY) return short();
        const full = storage.set(`${key}:ids`, [...all].join());
        // An id that is noted meanwhile is in neither, and in the next value.
        const written = fresh.length;
        const shorten = (): Awaitable<void> => {
          fresh = fresh.slice(written);
          return short();
        };
        return full ? full.then(shorten) : shorten();
      }

      const keeper: Keeper = {
        writing: false,
        async device() {
          const at = `${name}:device`;
          let id = await read(at);
          if (!id) {
            id = crypto.getRandomValues(new Uint32Array(4)).reduce((all, n) => all + n.toString(36).padStart(7, "0"), "");
            await write(at, id);
          }
          return id;
        },
        join(identity) {
          if (!key) void keeper.lead(identity);
        },
        async lead(identity, followed, still = () => true) {
          key = `${name}:${identity}`;
          const [transport, until] = (await read(`${key}:won`)).split(" ");
          const [cursor, ids] = (await read(key)).split(" ");
          fresh = split(ids);
          const all = [...split(await read(`${key}:ids`)), ...fresh];
          if (!still()) return;
          fresh.push(...inbox.ids);
          // One that followed goes by what it has seen: what the client before kept may not all have come to this one.
          lead({
            cursor: followed ? undefined : cursor || undefined,
            ids: followed ? [] : all,
            won: until ? { transport: transport!, until: +until } : undefined,
          });
        },
        note: (id) => void fresh.push(id),
        save(cursor, all, done) {
          const written = (): void => {
            keeper.writing = false;
            troubles = 0;
            done(true);
          };
          const failed = (e: unknown): void => {
            keeper.writing = false;
            if (!troubles++) unwritten(e);
            clock.after(again(troubles), () => done(false));
          };
          let wait;
          try {
            wait = put(cursor, all);
          } catch (e) {
            return failed(e);
          }
          if (!wait) return written();
          keeper.writing = true;
          wait.then(written, failed);
        },
        remember: (won) => void write(`${key}:won`, won ? `${won.transport} ${won.until}` : ""),
      };
      return keeper;
    },
  };
}
