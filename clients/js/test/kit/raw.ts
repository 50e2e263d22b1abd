// A client without the SDK: the frames of api/README.md over a plain WebSocket, so that tests of the kit judge the kit alone.

import { onTestFinished } from "vitest";
import { WebSocket } from "ws";

export interface Frame {
  readonly type: string;
  readonly [member: string]: unknown;
}

export class Raw {
  readonly frames: Frame[] = [];
  /** The close code, once it is closed. 1006: cut, without a goodbye. */
  closed: number | undefined;
  error: Error | undefined;
  readonly #socket: WebSocket;

  constructor(url: string, token: string) {
    const socket = (this.#socket = new WebSocket(`${url.replace("http", "ws")}/connect`));
    socket.on("open", () => this.say({ type: "connect", version: 1, token }));
    socket.on("message", (data) => this.frames.push(JSON.parse(String(data)) as Frame));
    socket.on("error", (e) => (this.error = e));
    socket.on("close", (code) => (this.closed = code));
    onTestFinished(() => socket.terminate());
  }

  say(frame: Frame): void {
    this.#socket.send(JSON.stringify(frame));
  }

  of(type: string): Frame[] {
    return this.frames.filter((f) => f.type === type);
  }
}
