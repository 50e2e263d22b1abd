// Clocks for clients at a real gateway.

import type { Clock } from "../../src/index.js";

/** A clock by which nothing ever falls due: what happens by it waited for no time. */
export const stillClock: Clock = { now: () => Date.now(), after: () => () => {} };

/** The real clock, which a test can put forward: what is due by then comes at once, and not after half an hour. */
export class JumpClock implements Clock {
  #ahead = 0;
  readonly #timers = new Set<{ at: number; run: () => void }>();

  now = (): number => Date.now() + this.#ahead;

  after = (ms: number, run: () => void): (() => void) => {
    const cancel = (): void => {
      clearTimeout(handle);
      this.#timers.delete(timer);
    };
    const timer = {
      at: this.now() + ms,
      run: () => {
        cancel();
        run();
      },
    };
    const handle = setTimeout(timer.run, ms);
    this.#timers.add(timer);
    return cancel;
  };

  jump(ms: number): void {
    this.#ahead += ms;
    for (const timer of [...this.#timers]) if (this.#timers.has(timer) && timer.at <= this.now()) timer.run();
  }
}
