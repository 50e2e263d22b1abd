// What not every page needs: a loop over messages, events of people, and tags. Each client has at most one of them, made when it is first asked for.

import { ports, UNREAD } from "./client.js";
import { CarillonError } from "./errors.js";
import type { Port } from "./port.js";
import type { ClientFrame, CoreClient, DeviceTags, Message, ServerFrame } from "./types.js";

/** A change of tags that could not be judged is sent again that much later. */
const AGAIN_MS = 1000;
/** How many events wait for a connection. */
const MOST_EVENTS = 256;

/** Says frames of events and tags, no faster than the gateway allows, and of tags one at a time. */
interface Speaker {
  event(event: "displayed" | "clicked", message: Message | string): void;
  tags(join?: readonly string[], leave?: readonly string[]): Promise<string[]>;
}

const speakers = new WeakMap<object, Speaker>();

function speakerOf(client: CoreClient<any>): Speaker {
  let s = speakers.get(client);
  if (!s) speakers.set(client, (s = makeSpeaker(client, ports.get(client)!)));
  return s;
}

function makeSpeaker(client: CoreClient<any>, port: Port): Speaker {
  const { clock, say } = port;
  let spent = 0;
  let spentAt = 0;
  let cancel: (() => void) | undefined;
  let asked = false; // the first of the changes was sent
  const events: ClientFrame[] = [];
  let changes: { frame: ClientFrame; answer(frame: ServerFrame): void }[] = [];

  function flush(): void {
    cancel?.();
    cancel = undefined;
    const now = clock.now();
    if (now - spentAt >= 1000) {
      spent = 0;
      spentAt = now;
    }
    for (;;) {
      const change = asked ? undefined : changes[0]?.frame;
      if (!port.welcome || (!change && !events[0])) return;
      // Half of what is allowed, as pings and acknowledgements count too.
      if (spent >= ((port.welcome["frames_per_second"] as number) || 20) / 2) {
        cancel = clock.after(spentAt + 1000 - now, flush);
        return;
      }
      spent++;
      if (change) asked = true;
      say(change ?? events.shift()!);
    }
  }

  function add(frame: ClientFrame, answer?: (f: ServerFrame) => void): void {
    if (answer && (client.state === "closed" || client.state === "failed")) return answer(closed);
    if (answer) changes.push({ frame, answer });
    else events.push(frame);
    if (events.length > MOST_EVENTS) events.shift();
    flush();
  }
  const closed: ServerFrame = { type: "error", code: "closed", detail: "client closed" };

  client.on("state", ({ state }) => {
    asked = false; // what was asked over the connection before is asked again
    flush();
    if (state === "closed" || state === "failed") for (const c of changes.splice(0)) c.answer(closed);
  });
  Object.assign<Port, Partial<Port>>(port, {
    answer(f) {
      if (!asked) return false;
      const code = f["code"] as string | undefined;
      if (code === "try_again") {
        clock.after(AGAIN_MS, () => {
          asked = false;
          flush();
        });
        return true;
      }
      if (code && !/tag|no_session/.test(code)) return false;
      asked = false;
      changes.shift()!.answer(f);
      flush();
      return true;
    },
    said: (frame, answer) => add(frame, frame.type === "tags" ? answer : undefined),
  });
  return {
    event(event, message) {
      const id = typeof message === "string" ? message : message.id;
      if (!/^\d{1,19}$/.test(id)) throw new CarillonError("invalid", "no id of a message");
      add({ type: "event", event, id, time: clock.now() });
    },
    tags: (join, leave) =>
      new Promise((resolve, reject) => {
        add({ type: "tags", ...(join && { join }), ...(leave && { leave }) }, (f) => {
          const code = f["code"] as string | undefined;
          if (code) reject(new CarillonError(code, (f["detail"] as string | undefined) ?? code));
          else resolve([...((f["tags"] as string[] | undefined) ?? [])]);
        });
      }),
  };
}

/** A person saw the message. Sent once, as soon as there is a connection; the last 256 wait. */
export function displayed(client: CoreClient<any>, message: Message | string): void {
  speakerOf(client).event("displayed", message);
}

/** A person clicked the message. As {@link displayed}. */
export function clicked(client: CoreClient<any>, message: Message | string): void {
  speakerOf(client).event("clicked", message);
}

/** The tags that the device joins and leaves by itself. */
export function deviceTags(client: CoreClient<any>): DeviceTags {
  const { tags } = speakerOf(client);
  return {
    join: (...join) => tags(join),
    leave: (...leave) => tags(undefined, leave),
    list: () => tags(),
  };
}

/**
 * The messages, one after the other. One is handled when the loop asks for the next, or ends, also by an exception: catch what may fail, or use `on`. The loop ends when the client is closed or fails, and when
 * `signal` is aborted; what it did not get to is handed out again.
 */
export function messages<Body>(client: CoreClient<Body>, { signal }: { signal?: AbortSignal } = {}): AsyncIterableIterator<Message<Body>> {
  const ready: { message: Message<Body>; handled(): void; unread(why: unknown): void }[] = [];
  let current: (() => void) | undefined;
  let wanted: ((r: IteratorResult<Message<Body>>) => void) | undefined;
  let over = signal?.aborted ?? false;
  const give = (): void => {
    const next = ready[0];
    if (!wanted || (!next && !over)) return;
    const to = wanted;
    wanted = undefined;
    ready.shift();
    current = next?.handled;
    to(next ? { done: false, value: next.message } : { done: true, value: undefined });
  };
  const end = (): void => {
    over = true;
    for (const stop of stops) stop();
    for (const r of ready.splice(0)) r.unread(UNREAD);
    give();
  };
  const stops = over
    ? []
    : [
        client.on("message", (message) => {
          return new Promise<void>((handled, unread) => {
            ready.push({ message, handled, unread });
            give();
          });
        }),
        client.on("state", ({ state }) => {
          if (state === "closed" || state === "failed") end();
        }),
      ];
  signal?.addEventListener("abort", end);
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    next() {
      current?.();
      current = undefined;
      return new Promise((resolve) => {
        wanted = resolve;
        give();
      });
    },
    return() {
      current?.();
      end();
      return Promise.resolve({ done: true, value: undefined });
    },
  };
}
