// A network of one device that can be cut, as by a pulled cable: what goes through it dies, and nothing new gets through.
//
// A page cannot tear a socket from under a browser: closing it would tell the gateway, which is what a cut never does. So a WebSocket that
// is cut stays open and nobody listens to it; it is closed once the network is back. Requests are aborted, which the gateway may notice.

import type { Fetch, WebSocketLike } from "../src/index.js";

type Socket = InstanceType<WebSocketLike>;

/** A device's network. Its `WebSocket` and `fetch` are handed to the transports. */
export interface Network {
  readonly WebSocket: WebSocketLike;
  readonly fetch: Fetch;
  readonly cut: boolean;
  setCut(cut: boolean): void;
}

const unreachable = (): TypeError => new TypeError("the network is cut");

export function makeNetwork(): Network {
  let severed = new AbortController();
  /** By which a connection learns that it is cut. */
  const open = new Set<() => void>();
  /** Sockets that were cut, and are still open. */
  const dead: WebSocket[] = [];

  class CutSocket implements Socket {
    onopen: Socket["onopen"] = null;
    onmessage: Socket["onmessage"] = null;
    onclose: Socket["onclose"] = null;
    onerror: Socket["onerror"] = null;
    readonly #real: WebSocket | undefined;
    readonly #sever = (): void => this.#die();
    #over = false;

    constructor(url: string) {
      if (severed.signal.aborted) {
        // As where no route is known: it fails, but not before whoever made it listens.
        queueMicrotask(this.#sever);
        return;
      }
      const real = (this.#real = new WebSocket(url));
      open.add(this.#sever);
      real.onopen = (e) => this.onopen?.(e);
      real.onmessage = (e) => this.onmessage?.(e);
      real.onerror = (e) => this.onerror?.(e);
      real.onclose = (e) => {
        this.#end();
        this.onclose?.(e);
      };
    }

    send(data: string): void {
      if (!this.#over) this.#real?.send(data);
    }

    close(code?: number): void {
      if (!this.#over) this.#real?.close(code);
    }

    #end(): void {
      this.#over = true;
      open.delete(this.#sever);
    }

    #die(): void {
      if (this.#over) return;
      this.#end();
      const real = this.#real;
      if (real) {
        real.onopen = real.onmessage = real.onerror = real.onclose = null;
        dead.push(real);
      }
      this.onerror?.(new Event("error"));
      this.onclose?.(new CloseEvent("close", { code: 1006 }));
    }
  }

  return {
    WebSocket: CutSocket,
    async fetch(input, init) {
      if (severed.signal.aborted) throw unreachable();
      const { signal } = severed;
      return fetch(input, { ...init, signal: init?.signal ? AbortSignal.any([init.signal, signal]) : signal });
    },
    get cut() {
      return severed.signal.aborted;
    },
    setCut(cut) {
      if (cut === severed.signal.aborted) return;
      if (cut) {
        severed.abort(unreachable());
        for (const sever of [...open]) sever();
        return;
      }
      severed = new AbortController();
      for (const socket of dead.splice(0)) socket.close();
    },
  };
}
