// What the page and the network do, as far as a client goes by it. Where a runtime has none of it, nothing is told.

/** What happened. `frozen` is also what leaving a page is: it may come back. */
export type Happening = "online" | "offline" | "visible" | "frozen" | "thawed";

/** Tells what happens until the returned function is called. */
export function lifecycle(tell: (what: Happening) => void): () => void {
  const stops: (() => void)[] = [];
  const on = (target: EventTarget | undefined, type: string, what: Happening, when = (): boolean => true): void => {
    if (!target?.addEventListener) return;
    const f = (): void => {
      if (when()) tell(what);
    };
    target.addEventListener(type, f);
    stops.push(() => target.removeEventListener(type, f));
  };
  const page: Document | undefined = globalThis.document;
  const all = globalThis as unknown as EventTarget;
  on(all, "online", "online");
  on(all, "offline", "offline");
  on(all, "focus", "visible");
  on(all, "pagehide", "frozen");
  on(all, "pageshow", "thawed");
  on(page, "freeze", "frozen");
  on(page, "resume", "thawed");
  on(page, "visibilitychange", "visible", () => page!.visibilityState === "visible");
  return () => stops.forEach((f) => f());
}
