// What a product's own server would do, asked of the gateway in development: it holds the keys, and this page none.

import { UnauthorizedError, type Fetch } from "../src/index.js";
import type { Identity } from "./settings.js";

/** The gateway said no. `code` is stable, the message is for people. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    /** In how many milliseconds to try again, if that may help. */
    readonly again: number | undefined,
  ) {
    super(detail);
    this.name = "Refused";
  }
}

async function post<Answer>(path: string, body: unknown, { fetch = globalThis.fetch, signal }: { fetch?: Fetch; signal?: AbortSignal } = {}): Promise<Answer> {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  });
  const answer = (await response.json().catch(() => ({}))) as Record<string, unknown>;
  if (response.ok) return answer as Answer;
  const after = Number(response.headers.get("retry-after")) * 1000;
  const busy = response.status === 429 || response.status === 503;
  throw new Refused(response.status, String(answer["code"] ?? "unknown"), String(answer["detail"] ?? response.statusText), busy ? after || 1000 : undefined);
}

/** A device token. A user that may not have one is told apart from a gateway that cannot be reached. */
export async function getToken(who: Identity, seconds: number | undefined, options: { fetch: Fetch; signal: AbortSignal }): Promise<string> {
  try {
    return (await post<{ token: string }>("token", { ...who, ...(seconds && { seconds }) }, options)).token;
  } catch (e) {
    if (e instanceof Refused && e.status === 400) throw new UnauthorizedError(e.message);
    throw e;
  }
}

/** To whom a message goes. */
export type Audience = { readonly user: string } | { readonly tag: string } | { readonly everyone: true };

/** What became of a message. Those that are not persistent have an id, too, but cannot be recalled. */
export interface Sent {
  readonly id: string;
  readonly persistent: boolean;
}

export function send(to: Audience, persistent: boolean, body: unknown): Promise<Sent> {
  return post<Sent>("send", { ...to, persistent, body });
}

export function recall(id: string): Promise<unknown> {
  return post("recall", { id });
}

export function kick(who: Identity): Promise<unknown> {
  return post("kick", who);
}
