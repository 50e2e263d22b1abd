import type { Happening, PageEvents } from "./types.js";

/** The events that tell, and what of. */
const events: Record<string, Happening> = {
  online: "online",
  offline: "offline",
  focus: "visible",
  visibilitychange: "visible",
  freeze: "frozen",
  pagehide: "frozen",
  resume: "thawed",
  pageshow: "thawed",
};

/** What the page and the network do, as far as a client goes by it. Where a runtime has none of it, nothing is told. */
export const pageEvents: PageEvents = (tell) => {
  const heard = ({ type, target }: Event): void => {
    // On its way down to the document an event passes the window; so does the focus of each field, which is none of ours.
    if (!(target as Node).parentNode && (type !== "visibilitychange" || !document.hidden)) tell(events[type]!);
  };
  const each = (method: "addEventListener" | "removeEventListener"): void => {
    for (const type in events) globalThis[method]?.(type, heard, true);
  };
  each("addEventListener");
  return () => each("removeEventListener");
};
