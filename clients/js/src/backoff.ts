// How long to wait before the next attempt. Pure.

const BASE_MS = 500;
const MOST_MS = 30_000;

/**
 * The wait before attempt `failed + 1`, in whole milliseconds: a random time up to a ceiling that doubles with each attempt that failed, from 0.5
 * to 30 s ("full jitter", so that clients that lost the same node do not come back together). `random` is in [0, 1).
 */
export function backoff(failed: number, random: number): number {
  return Math.floor(random * Math.min(MOST_MS, BASE_MS * 2 ** (failed - 1)));
}

/** How long to wait after something of the client's own has failed that many times: a second, two, four and so on, up to half a minute. */
export function again(times: number): number {
  return Math.min(MOST_MS, 1000 * 2 ** (times - 1));
}
