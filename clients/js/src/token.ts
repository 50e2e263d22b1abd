// What a client reads from its own token, which it does not judge. Pure.

/** The claims of a device token that a client goes by. */
export interface Claims {
  /** User and device, as one word: what belongs to one identity is not another's. */
  readonly identity: string;
  readonly device: string | undefined;
  /** When it runs out, by the clock of who issued it, in milliseconds since 1970 UTC. */
  readonly expires: number | undefined;
  /** When it was issued, if it says so. */
  readonly issued: number | undefined;
}

/** Reads the claims of a token. A token that cannot be read has an identity of its own, and is judged by the gateway alone. */
export function claimsOf(token: string): Claims {
  let c: Record<string, unknown> = {};
  try {
    const part = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    c = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (x) => x.charCodeAt(0)))) as typeof c;
  } catch {
    // As it says: the gateway judges.
  }
  const ms = (v: unknown): number | undefined => (typeof v === "number" ? v * 1000 : undefined);
  return {
    identity: JSON.stringify([c["aud"], c["sub"], c["did"]]),
    device: c["did"] as string | undefined,
    expires: ms(c["exp"]),
    issued: ms(c["iat"]),
  };
}
