import { NAME } from "./keep.js";
import type { Keeper, Port } from "./port.js";
import type { ClientFrame, Connection, OpenRequest, Place, ServerFrame, Sink, Tabs, TabSeat, Transport } from "./types.js";

/** How often a tab asks whether the leading one is there, and how long it waits for the answer before it takes the lead. */
const ASK_MS = 15_000;
const ANSWER_MS = 10_000;
/** For how long a leading tab tells what comes to it, though nobody is known to listen. */
const ALOUD_MS = 10_000;

/** What tabs say to each other. */
type Said =
  | { t: "hello" | "bye" | "ask" | "mark"; from: string }
  | { t: "lead" | "answer" | "down" }
  | { t: "frames"; frames: readonly ServerFrame[]; to?: string }
  | { t: "say"; from: string; frame: ClientFrame };

/** A place that all tabs of a browser share: one of them leads, connects and keeps, the others follow it. Where `tabs` is not available each tab is alone. */
export function shared(place: Place, tabs: Tabs = sharedTabs()): Place {
  if (!tabs.available) return place;
  return {
    open(name = NAME, port: Port): Keeper {
      const keeper: Keeper = place.open(name, port);
      const { lead, note, save } = keeper;
      let seat: TabSeat | undefined;
      let joined = false;
      let turn = 0; // of leading and following
      let leads = false; // and so keeps what is handled
      return Object.assign<Keeper, Partial<Keeper>>(keeper, {
        join(identity) {
          if (joined) return;
          joined = true;
          seat = tabs.join(
            `${name}:${identity}`,
            {
              lead(followed) {
                const mine = ++turn;
                void lead(identity, followed, () => mine === turn && (leads = true));
              },
              follow(over) {
                turn++;
                leads = false;
                port.follow(over);
              },
              inbox: port.inbox,
              said: (frame, answer) => port.said?.(frame, answer),
            },
            port.clock,
          );
        },
        leave() {
          seat?.leave();
          seat = undefined;
          joined = false;
          turn++;
        },
        note(id) {
          if (leads) note(id);
        },
        save(cursor, all, done) {
          if (leads) save(cursor, all, done);
          else done(true);
        },
        frames: (frames) => seat?.frames(frames),
        down: () => seat?.down(),
      });
    },
  };
}

/**
 * One connection for all tabs of a browser, by Web Locks and a BroadcastChannel. One tab leads: it holds the lock and the connection, and hands on what comes.
 * When it closes, freezes or does not answer, another one takes the lead. Tabs that follow are connected over the transport `tab`.
 */
export function sharedTabs(): Tabs {
  const { navigator, BroadcastChannel } = globalThis;
  const inBrowser = "document" in globalThis || "WorkerGlobalScope" in globalThis;
  return {
    available: Boolean(inBrowser && navigator?.locks && BroadcastChannel),
    join(name, member, clock) {
      const self = Math.random().toString(36).slice(2);
      const channel = new BroadcastChannel(name);
      const others = new Set<string>();
      const gone = new AbortController();
      let holds = false; // the lock
      let leads = false;
      let since = 0;
      let release = (): void => {};

      const post = (said: Said): void => channel.postMessage(said);

      // ---- as one that leads ----

      /** The welcome, while the connection stands. */
      let up: ServerFrame | undefined;
      const listened = (): boolean => others.size > 0 || clock.now() - since < ALOUD_MS;

      // ---- as one that follows ----

      let sink: Sink | undefined;
      let followed = false; // and has been told from where
      let cancelAsk = (): void => {};

      const ask = (): void => {
        cancelAsk();
        cancelAsk = clock.after(ASK_MS, () => {
          post({ t: "ask", from: self });
          cancelAsk = clock.after(ANSWER_MS, () => compete(true));
        });
      };
      const follower: Transport = {
        name: "tab",
        available: true,
        open(_: OpenRequest, to: Sink): Connection {
          sink = to;
          post({ t: "hello", from: self });
          const stop = (): void => {
            if (sink === to) sink = undefined;
          };
          return {
            alive: "self",
            handled() {}, // the leader acknowledges
            // What keeps the connection is the leader's affair.
            send: (frame) => {
              if (frame.type === "event" || frame.type === "tags") post({ t: "say", from: self, frame });
            },
            close: stop,
            abort: stop,
          };
        },
      };

      channel.onmessage = ({ data }: MessageEvent<Said>) => {
        const said = data;
        switch (said.t) {
          case "hello":
            others.add(said.from);
            // Who has just come begins where this tab is now, with what is still being handled here: it may have to take over.
            if (leads && up) post({ t: "frames", frames: [{ ...up, cursor: member.inbox.cursor }, ...member.inbox.pending], to: said.from });
            return;
          case "bye":
            others.delete(said.from);
            return;
          case "ask":
            if (leads) post({ t: "answer" });
            return;
          case "say":
            if (leads) member.said?.(said.frame, (answer) => post({ t: "frames", frames: [answer], to: said.from }));
            return;
        }
        if (leads) return;
        if (said.t === "mark") {
          if (said.from === self && holds) lead();
          return;
        }
        ask(); // whoever leads is there
        if (said.t === "lead") {
          post({ t: "hello", from: self });
        } else if (said.t === "down") {
          // Which asks again at once, so that nothing is missed.
          sink?.ended({});
        } else if (said.t === "frames" && (said.to ?? self) === self && sink) {
          followed ||= said.frames[0]?.type === "welcome";
          if (followed) sink.frames(said.frames);
        }
      };

      function lead(): void {
        leads = true;
        since = clock.now();
        cancelAsk();
        sink = undefined;
        post({ t: "lead" });
        member.lead(followed);
        followed = false;
      }

      /** Waits for the lock, or takes it from whoever does not answer. */
      function compete(steal: boolean): void {
        const held = (lock: unknown): Promise<void> | undefined => {
          if (!lock || gone.signal.aborted) return undefined;
          holds = true;
          // The lock goes another way than what the tab before has said last: that has come when this has, which is said after it.
          const behind = new BroadcastChannel(name);
          behind.postMessage({ t: "mark", from: self });
          behind.close();
          return new Promise((resolve) => (release = resolve));
        };
        navigator.locks.request(name, steal ? { steal } : { signal: gone.signal }, held).catch(() => {
          if (gone.signal.aborted) return;
          // Another tab took the lead, as this one did not answer.
          holds = leads = followed = false;
          up = undefined;
          member.follow(follower);
          ask();
          compete(false);
        });
      }

      member.follow(follower);
      post({ t: "hello", from: self });
      ask();
      compete(false);

      return {
        frames(frames) {
          if (!leads) return;
          if (frames[0]?.type === "welcome") up = frames[0];
          if (listened()) post({ t: "frames", frames });
        },
        down() {
          up = undefined;
          if (leads) post({ t: "down" });
        },
        leave() {
          cancelAsk();
          gone.abort();
          leads = false;
          sink = undefined;
          post({ t: "bye", from: self });
          release();
          channel.close();
        },
      };
    },
  };
}
