// What the snippets in the documentation take from the application that they stand in.
import type { ClientOptions, Message } from "@carillon/client";

declare global {
  // Imported once, further up on the page.
  const createClient: typeof import("@carillon/client").createClient;
  const UnauthorizedError: typeof import("@carillon/client").UnauthorizedError;
  const endpoint: string;
  const getToken: ClientOptions["getToken"];
  function show(what: unknown): HTMLElement;
  function reload(): void;
  function refetch(): Promise<void>;
  function work(message: Message): Promise<void>;
  const queue: Message[];
  const banner: HTMLElement;
  const client: import("@carillon/client").Client<{ text: string }>;
  const message: Message;
  const observer: { observe(card: HTMLElement, seen: () => void): void };
  interface Window {
    registration: ServiceWorkerRegistration;
  }
  interface WindowEventMap {
    push: Event & { waitUntil(p: Promise<unknown>): void };
  }
}
