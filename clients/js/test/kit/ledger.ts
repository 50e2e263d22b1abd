// What the gateway accepted, against what handlers were given. The promise of the whole product is that the two are the same.

/** What a ledger finds. Empty lists are what is promised. */
export interface Verdict {
  /** Accepted, and no handler got it. */
  lost: number[];
  /** More than once with handlers. */
  twice: number[];
  /** Got, and never accepted. */
  strange: string[];
  /** Got behind one that was accepted later. */
  disordered: number[];
}

export const clean: Verdict = { lost: [], twice: [], strange: [], disordered: [] };

/** One sender's messages, numbered as they were accepted, and what one device's handlers got of them. */
export class Ledger {
  readonly #accepted = new Map<string, number>(); // id to number
  #got: string[] = [];

  /** The gateway answered 201. */
  accepted(id: string): void {
    // An answer that is repeated for the same idempotency key names the same message.
    if (!this.#accepted.has(id)) this.#accepted.set(id, this.#accepted.size);
  }

  /** A handler was called. */
  got(id: string): void {
    this.#got.push(id);
  }

  /** All that handlers were called with so far, where that is kept elsewhere. */
  gotAll(ids: string[]): void {
    this.#got = ids;
  }

  get acceptedCount(): number {
    return this.#accepted.size;
  }

  /** How many different ones of those accepted were got. */
  get gotCount(): number {
    return new Set(this.#got.filter((id) => this.#accepted.has(id))).size;
  }

  get complete(): boolean {
    return this.gotCount === this.#accepted.size;
  }

  /** Call it when everything has come: what comes later is judged by the next call. */
  verdict(): Verdict {
    const v: Verdict = { lost: [], twice: [], strange: [], disordered: [] };
    const seen = new Set<string>();
    let highest = -1;
    for (const id of this.#got) {
      const n = this.#accepted.get(id);
      if (n === undefined) v.strange.push(id);
      else if (seen.has(id)) v.twice.push(n);
      else if (n < highest) v.disordered.push(n);
      else highest = n;
      seen.add(id);
    }
    for (const [id, n] of this.#accepted) if (!seen.has(id)) v.lost.push(n);
    return v;
  }

  toString(): string {
    const { lost, twice, strange, disordered } = this.verdict();
    const some = (all: unknown[]): string => `${all.length} [${all.slice(0, 5)}]`;
    return `accepted ${this.acceptedCount}, got ${this.#got.length}, lost ${some(lost)}, twice ${some(twice)}, strange ${some(strange)}, disordered ${some(disordered)}`;
  }
}
