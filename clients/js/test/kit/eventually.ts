// Waiting for what comes by itself: looks again and again, until a deadline that is far beyond what it takes.

const LOOK_MS = 15;

/** One turn of a loop that waits for something outside of this process, which cannot tell by itself. */
export const pause = (ms = LOOK_MS): Promise<void> => new Promise((done) => setTimeout(done, ms));

/**
 * Waits until `condition` gives something true, and gives that. A condition that throws is not true yet. After `within` it fails, naming `what` and what
 * `seen` shows, or the last error: a test that waits in vain has to say for what.
 */
export async function eventually<T>(
  condition: () => T | Promise<T>,
  what: string,
  { within = 20_000, seen }: { within?: number; seen?: () => unknown } = {},
): Promise<NonNullable<T>> {
  const deadline = Date.now() + within;
  let last: unknown;
  let thrown: unknown;
  for (;;) {
    try {
      last = await condition();
      thrown = undefined;
      if (last) return last as NonNullable<T>;
    } catch (e) {
      thrown = e;
    }
    if (Date.now() > deadline) break;
    await pause();
  }
  const shown = seen ? await seen() : (thrown ?? last);
  const text = shown instanceof Error ? (shown.stack ?? String(shown)) : JSON.stringify(shown);
  throw new Error(`not within ${within} ms: ${what}; seen: ${text}`, thrown ? { cause: thrown } : {});
}
