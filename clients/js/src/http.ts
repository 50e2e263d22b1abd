// What the transports over plain HTTP share: requests, refusals, and frames that go beside a session.

import type { ClientFrame, Clock, Connection, End, OpenRequest, Sink, Transport } from "./types.js";

/** `fetch`, or what stands for it. */
export type Fetch = typeof fetch;

/** The close codes that stand behind the problems by which a connect is refused. Others are of this one request, or of whoever is in between. */
const codes: Record<string, number> = {
  going_away: 4000,
  overloaded: 4003,
  internal: 4004,
  product_full: 4007,
  token_expired: 4100,
  token_refused: 4101,
  unauthenticated: 4101,
  replaced: 4200,
  revoked: 4201,
  protocol: 4202,
  version: 4203,
  flood: 4205,
  deleted: 4206,
  forbidden: 4207,
  origin_forbidden: 4207,
  host_forbidden: 4207,
  kicked: 4208,
  policy: 4209,
};

/** What a transport over HTTP has for each connection. */
export interface Exchange {
  readonly open: OpenRequest;
  readonly sink: Sink;
  readonly clock: Clock;
  /** Asks the gateway, with the token in use, until the connection is over. */
  ask(path: string, init?: RequestInit): Promise<Response>;
  /** Hands frames on. What is none ends the connection. */
  take(frames: readonly unknown[]): void;
  /** Ends the connection, and tells so. */
  end(end: End): void;
  readonly over: boolean;
  /** Told that everything that came is handled. */
  handled(): void;
  /** What a goodbye has to say besides. */
  last: ClientFrame[];
}

/** Makes a transport of what reads over HTTP. When `read` fails, the connection is over. */
export function httpTransport(
  name: string,
  fetch: Fetch | undefined,
  alive: Connection["alive"],
  read: (x: Exchange) => Promise<void>,
): Transport {
  // Called as it has to be: as a function of the window.
  const get: Fetch = fetch ?? ((...args) => globalThis.fetch(...args));
  return {
    name,
    available: Boolean(fetch ?? globalThis.fetch),
    open(open, sink) {
      const stop = new AbortController();
      const ask = (path: string, init?: RequestInit): Promise<Response> =>
        get(open.endpoint + path, {
          signal: stop.signal,
          cache: "no-store",
          headers: { authorization: `Bearer ${open.token()}` },
          ...init,
        });
      const cut = (last?: readonly ClientFrame[]): void => {
        x.over = true;
        poster.stop(last);
        stop.abort();
      };
      const x = {
        open,
        sink,
        clock: open.clock,
        ask,
        over: false,
        handled() {},
        last: [] as ClientFrame[],
        take(frames: readonly unknown[]) {
          try {
            sink.frames(frames);
          } catch (e) {
            x.end({ detail: (e as Error).message });
          }
        },
        end(e: End) {
          if (x.over) return;
          cut([]);
          sink.ended(e);
        },
      };
      const poster = framePoster(x);
      read(x).catch(() => x.end({}));
      return {
        alive,
        send: poster.send,
        ...(alive === "self" && { handled: () => x.handled() }),
        close: () => cut(x.last.length ? x.last : undefined),
        abort: () => cut([]),
      };
    },
  };
}

/** What the address of a connect says, in place of the frame. */
export function connectQuery({ connect }: OpenRequest, more: Record<string, string | undefined> = {}): string {
  const all = { cursor: connect.cursor, client: connect.client, after: connect.after, version: String(connect.version), ...more };
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(all)) if (value) query.set(name, value);
  return `?${query}`;
}

/** Reads why a request was refused. */
export async function refusal(response: Response): Promise<End> {
  const after = Number(response.headers.get("retry-after"));
  // What is no problem is not the gateway's: a proxy's page, say.
  const problem = (await response.json().catch(() => null)) as { code?: unknown; detail?: unknown } | null;
  const name = problem?.code;
  const code = typeof name === "string" ? codes[name] : undefined;
  return {
    ...(code ? { code, reason: String(name) } : {}),
    ...(after > 0 ? { delay_ms: after * 1000 } : {}),
    ...(typeof problem?.detail === "string" ? { detail: problem.detail } : {}),
  };
}

const AGAIN_MS = 1000;
const MOST_FRAMES = 20;

/**
 * Sends frames beside a session whose connection carries nothing back: one request at a time, each with what waits. What could not be sent is tried
 * again until `stop`, of acknowledgements only the last.
 */
function framePoster({ ask, clock, end, sink }: Exchange): { send(frame: ClientFrame): void; stop(last?: readonly ClientFrame[]): void } {
  let waiting: ClientFrame[] = [];
  let busy = false;
  let stopped = false;

  // A goodbye outlives the connection, and the page.
  const post = (frames: readonly ClientFrame[], last: boolean): Promise<Response> =>
    ask("/connect/frames", { method: "POST", body: JSON.stringify(frames), ...(last && { keepalive: true, signal: null }) });

  async function flush(): Promise<void> {
    if (busy || stopped || !waiting.length) return;
    busy = true;
    const ack = waiting.filter((f) => f.type === "ack").at(-1);
    waiting = waiting.filter((f) => f.type !== "ack" || f === ack);
    const batch = waiting.slice(0, MOST_FRAMES);
    let again = 0;
    try {
      const { status, headers } = await post(batch, false);
      if (status === 429 || status >= 500) {
        again = Number(headers.get("retry-after")) * 1000 || AGAIN_MS;
      } else if (status === 409) {
        // No node that is asked here has the session: a new token needs a new connection, and tags cannot be changed this way.
        if (batch.some((f) => f.type === "refresh")) end({});
        else sink.frames([{ type: "error", code: "no_session" }]);
      }
    } catch {
      again = AGAIN_MS;
    }
    busy = false;
    if (!again) waiting = waiting.slice(batch.length);
    if (again) clock.after(again, () => void flush());
    else void flush();
  }

  return {
    send(frame) {
      waiting.push(frame);
      void flush();
    },
    stop(last = waiting) {
      if (!stopped && last.length) post(last.slice(-MOST_FRAMES), true).catch(() => {});
      stopped = true;
    },
  };
}
