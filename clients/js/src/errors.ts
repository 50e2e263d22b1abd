import type { CarillonErrorLike, ErrorCode, Kick } from "./types.js";

/** What went wrong, by a stable {@link CarillonError.code}. */
export class CarillonError extends Error implements CarillonErrorLike {
  override readonly name: string = "CarillonError";
  /** With code `kicked`: why the gateway sent the client away. */
  declare readonly kick?: Kick;

  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: { cause?: unknown; kick?: Kick | undefined },
  ) {
    super(message, options);
    if (options?.kick) this.kick = options.kick;
  }
}

/** Throw it from `getToken` when the user is not signed in any more: the client stops, and does not ask again by itself. */
export class UnauthorizedError extends Error {
  override readonly name: string = "UnauthorizedError";
}
