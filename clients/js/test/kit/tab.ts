// A tab of whatever browser, and what the pages in it told.

import { expect } from "vitest";
import type { State } from "../../src/index.js";
import { eventually } from "./eventually.js";
import { clean, type Ledger, type Verdict } from "./ledger.js";
import type { InPage } from "./site.js";

export abstract class AnyTab {
  /** What its consoles and its pages say that is wrong. */
  readonly complaints: string[] = [];

  constructor(readonly ledger: Ledger) {}

  /** Something that the page has. */
  abstract see<T>(what: (test: InPage) => T): Promise<T>;
  abstract reload(): Promise<void>;
  abstract close(): Promise<void>;
  /** Goes to another page of the application. */
  abstract leave(): Promise<void>;
  /** Comes back to the page that was left. One that the browser has kept is not loaded again. */
  abstract back(): Promise<void>;

  state(): Promise<State> {
    return this.see((t) => t.client.state);
  }

  transport(): Promise<string | undefined> {
    return this.see((t) => t.client.transport);
  }

  async is(state: State, transport?: string): Promise<void> {
    await eventually(async () => (await this.state()) === state && (transport === undefined || (await this.transport()) === transport), `the tab is ${state} ${transport ?? ""}`, {
      seen: () => this.seen(),
    });
  }

  /** What helps to understand a test that failed. */
  async seen(): Promise<unknown> {
    const page = await this.see((t) => ({
      trail: t.states.map((s) => [s.state, s.transport].filter(Boolean).join(":")).join(" "),
      errors: t.errors,
      kicks: t.kicks,
      gaps: t.gaps.slice(0, 5),
      count: t.count,
    })).catch((e: unknown) => String(e));
    return { ledger: String(this.ledger), page, complaints: this.complaints };
  }

  /** Reads from the page what handlers got in this tab. */
  async read(): Promise<Ledger> {
    this.ledger.gotAll(await this.see((t) => t.handled()));
    return this.ledger;
  }

  /** Waits until so many have come. */
  async has(count: number): Promise<void> {
    await eventually(async () => (await this.read()).gotCount >= count, `${count} have come`, { seen: () => this.seen() });
  }

  /** Waits until everything that was accepted has come, and gives what is wrong with it. */
  async verdict(within = 30_000): Promise<Verdict> {
    await eventually(async () => (await this.read()).complete, "the tab has everything", { within, seen: () => this.seen() });
    return this.ledger.verdict();
  }

  /** As {@link verdict}, and nothing is. */
  async hasEverything(within = 30_000): Promise<void> {
    expect(await this.verdict(within)).toEqual(clean);
    expect(await this.see((t) => t.gaps)).toEqual([]);
    expect(this.complaints).toEqual([]);
  }
}

/** The one of these tabs that has the connection, and the others. */
export async function roles<Tab extends AnyTab>(tabs: readonly Tab[]): Promise<{ leader: Tab; followers: Tab[] }> {
  const over = await Promise.all(tabs.map((t) => t.transport()));
  const leaders = tabs.filter((_, i) => over[i] !== undefined && over[i] !== "tab");
  expect(leaders.length, `of ${over}`).toBe(1);
  return { leader: leaders[0]!, followers: tabs.filter((t) => t !== leaders[0]) };
}
