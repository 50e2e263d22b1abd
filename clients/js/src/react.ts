/**
 * Hooks for React 18 and later.
 *
 * @packageDocumentation
 */
import { createContext, createElement, useCallback, useContext, useEffect, useRef, useState, useSyncExternalStore, type ReactNode } from "react";
import type { Client, ClientEvents, CoreClient, Message, State } from "./types.js";

const Context = createContext<CoreClient<any> | undefined>(undefined);

/**
 * Gives a client to the components below, connects it when the first of them is there, and closes it when they go. Make the client outside of components:
 * it is one for the life of the page.
 */
export function CarillonProvider({ client, children }: { client: CoreClient<any>; children?: ReactNode }): ReactNode {
  useEffect(() => {
    // What becomes of it is told by its state.
    client.connect().catch(() => {});
    return () => client.close();
  }, [client]);
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the nearest {@link CarillonProvider}. */
export function useCarillon<Body = unknown>(): Client<Body> {
  const client = useContext(Context);
  if (!client) throw new Error("useCarillon: there is no CarillonProvider around this component");
  return client as Client<Body>;
}

/** What the client is doing; the component is drawn again when that changes. */
export function useCarillonState(): State {
  const client = useCarillon();
  return useSyncExternalStore(
    // The same at each drawing, or React would listen anew.
    useCallback((changed: () => void) => client.on("state", changed), [client]),
    () => client.state,
    () => "idle",
  );
}

/** Calls the handler at each such event, as long as the component is there. A message is handled when what the handler returns has resolved. */
export function useCarillonEvent<K extends keyof ClientEvents, Body = unknown>(
  event: K,
  handler: (value: ClientEvents<Body>[K]) => K extends "message" ? unknown : void,
): void {
  const client = useCarillon<Body>();
  // The last handler that was drawn, without listening anew at each drawing: messages would wait in between.
  const latest = useRef(handler);
  useEffect(() => {
    latest.current = handler;
  });
  useEffect(() => client.on(event, (value) => latest.current(value) as never), [client, event]);
}

/** The last messages that came while the component was there, the newest first. `keep`: how many; default 50. */
export function useCarillonMessages<Body = unknown>({ keep = 50 }: { keep?: number } = {}): readonly Message<Body>[] {
  const [messages, setMessages] = useState<readonly Message<Body>[]>([]);
  useCarillonEvent<"message", Body>("message", (m) => setMessages((before) => [m, ...before].slice(0, keep)));
  useCarillonEvent("recall", ({ id }) => setMessages((before) => before.filter((m) => m.id !== id)));
  return messages;
}
