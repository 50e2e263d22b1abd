import { check } from "../../src/check.js";
import { makeInbox, type Entry } from "../../src/inbox.js";
import { playScripts } from "./scripts.js";

interface Step {
  /** A frame comes. */
  frame?: Record<string, unknown>;
  /** A handler asks for the next message. */
  take?: boolean;
  /** The handler of this message is done, or failed. */
  handled?: string;
  again?: string;
  /** The cursor is acknowledged; false: that may have been lost. */
  acknowledged?: boolean;
  /** What comes of it: the message that was handed out, what the application is told, the cursor, whether an acknowledgement is owed. */
  out?: { took?: string | null; notice?: unknown; cursor: string | null; owes: boolean };
}
interface Script {
  name: string;
  cursor: string | null;
  ids: string[];
  steps: Step[];
}

function play({ cursor, ids, steps }: Script): Step[] {
  const inbox = makeInbox();
  inbox.restore(cursor ?? undefined, ids);
  const taken = new Map<string, Entry>();
  return steps.map(({ out: _, ...step }) => {
    const out: Partial<NonNullable<Step["out"]>> = {};
    if (step.frame) {
      const notice = inbox.receive(check(structuredClone(step.frame))!);
      if (notice) out.notice = notice;
    }
    if (step.take) {
      const e = inbox.take();
      if (e) taken.set(e.id, e);
      out.took = e?.id ?? null;
    }
    if (step.handled) inbox.handled(taken.get(step.handled)!);
    if (step.again) inbox.again(taken.get(step.again)!);
    if (step.acknowledged !== undefined) inbox.acknowledged(step.acknowledged ? inbox.cursor : undefined);
    return { ...step, out: { ...out, cursor: inbox.cursor ?? null, owes: inbox.owesAck } };
  });
}

playScripts("inbox", play);
