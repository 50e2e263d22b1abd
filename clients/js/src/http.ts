// What the transports over plain HTTP share: requests, refusals, and frames that go beside a session.

import type { ClientFrame, Connection, End, OpenRequest, Sink } from "./types.js";

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
  ticket_refused: 4101,
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

/** Asks the gateway, with the token in use. */
export function request(
  fetch: Fetch,
  { endpoint, token }: OpenRequest,
  path: string,
  init: RequestInit & { headers?: Record<string, string> },
): Promise<Response> {
  return fetch(endpoint + path, {
    ...init,
    cache: "no-store",
    credentials: "omit",
    headers: { ...init.headers, authorization: `Bearer ${token()}` },
  });
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
    ...(after > 0 ? { delay: after * 1000 } : {}),
    ...(typeof problem?.detail === "string" ? { detail: problem.detail } : {}),
  };
}

const AGAIN_MS = 1000;
const MOST_FRAMES = 20;

/**
 * Sends frames beside a session whose connection carries nothing back: one request at a time, each with what waits. What could not be sent is tried
 * again until `stop`, of acknowledgements only the last.
 */
export function framePoster(fetch: Fetch, open: OpenRequest, sink: Sink): Pick<Connection, "send"> & { stop(last?: readonly ClientFrame[]): void } {
  let waiting: ClientFrame[] = [];
  let busy = false;
  let stopped = false;

  async function post(frames: readonly ClientFrame[], keepalive: boolean): Promise<Response> {
    return request(fetch, open, "/connect/frames", { method: "POST", body: JSON.stringify(frames), keepalive });
  }

  async function flush(): Promise<void> {
    if (busy || stopped || !waiting.length) return;
    busy = true;
    const acks = waiting.filter((f) => f.type === "ack");
    waiting = waiting.filter((f) => f.type !== "ack" || f === acks.at(-1));
    const batch = waiting.slice(0, MOST_FRAMES);
    let again = 0;
    try {
      const r = await post(batch, false);
      if (r.status === 429 || r.status >= 500) {
        again = Number(r.headers.get("retry-after")) * 1000 || AGAIN_MS;
      } else if (r.status === 409 && !stopped) {
        // No node that is asked here has the session: a new token needs a new connection, and tags cannot be changed this way.
        if (batch.some((f) => f.type === "refresh")) sink.ended({});
        else sink.frames([{ type: "error", code: "no_session" }]);
      }
    } catch {
      again = AGAIN_MS;
    }
    busy = false;
    if (again) {
      open.clock.after(again, () => void flush());
      return;
    }
    waiting = waiting.slice(batch.length);
    void flush();
  }

  return {
    send(frames) {
      waiting.push(...frames);
      void flush();
    },
    stop(last = waiting) {
      if (!stopped && last.length) void post(last.slice(-MOST_FRAMES), true).catch(() => {});
      stopped = true;
    },
  };
}
