// What is asked of a browser over a WebSocket, by Chromium's debugging protocol or by WebDriver BiDi: numbered, and answered in any order.

import { onTestFinished } from "vitest";
import WebSocket from "ws";

export class Remote {
  #last = 0;
  readonly #waiting = new Map<number, { resolve(result: any): void; reject(e: Error): void }>();

  private constructor(private readonly socket: WebSocket) {
    socket.on("message", (data) => {
      const { id, result, error, message } = JSON.parse(String(data));
      const w = this.#waiting.get(id);
      this.#waiting.delete(id);
      // The one has an object there, the other one a code.
      if (error) w?.reject(new Error(error.message ?? `${error}: ${message}`));
      else w?.resolve(result);
    });
  }

  /** Connects, until the test ends. */
  static async forTest(address: string): Promise<Remote> {
    const socket = new WebSocket(address);
    await new Promise((open, failed) => socket.once("open", open).once("error", failed));
    onTestFinished(() => socket.close());
    return new Remote(socket);
  }

  ask(method: string, params: object = {}): Promise<any> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ id, method, params }));
    });
  }
}
