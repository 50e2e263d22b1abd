// What a client reads from its own token, which it does not judge. Pure.

/** The claims of a device token that a client goes by. */
export interface Claims {
  /** User and device, as one word: what belongs to one identity is not another's. */
  readonly identity: string;
  readonly device: string | undefined;
  /** When it runs out, and when it was issued, by the clock of who issued it, in milliseconds since 1970 UTC. NaN, if it does not say so. */
  readonly expires: number;
  readonly issued: number;
}

/** Reads the claims of a token. A token that cannot be read has an identity of its own, and is judged by the gateway alone. */
export function claimsOf(token: string): Claims {
  let c: Record<string, any> = {};
  try {
    const part = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    c = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (x) => x.charCodeAt(0)))) as typeof c;
  } catch {
    // As it says: the gateway judges.
  }
  return {
    identity: JSON.stringify([c["aud"], c["sub"], c["did"]]),
    device: c["did"],
    expires: c["exp"] * 1000,
    issued: c["iat"] * 1000,
  };
}
