// Frames in JSON, as `api/README.md` has them: what a client reads, with each member checked, so that nothing behind this file has to. Pure.

import type { ServerFrame } from "./types.js";

/** The schema version that this client speaks. */
export const VERSION = 1;

/** What is no frame of a gateway. `code` is one of the protocol's for refused frames. */
export class FrameError extends Error {
  constructor(
    readonly code: "malformed_frame" | "unknown_frame" | "unexpected_frame" | "missing_field" | "invalid_field",
    detail: string,
  ) {
    super(detail);
  }
}

const MAX_CODE = 65535;
const decimal = /^[1-9]\d{0,19}$/;
const base64 = /^(?:[\w+/]{4})*(?:[\w+/]{2}==|[\w+/]{3}=)?$/;

const isText = (v: unknown): v is string => typeof v === "string";
const isCount = (v: unknown): v is number => Number.isSafeInteger(v) && (v as number) >= 0;
const oneOf =
  (words: string) =>
  (v: unknown): boolean =>
    isText(v) && ` ${words} `.includes(` ${v} `) && v !== "";

/** The kinds of members: a letter each, so that the table below stays small on the way to browsers. */
const kinds: Record<string, (v: unknown) => boolean> = {
  t: isText,
  n: isCount,
  /** A number that JSON would round, in a string. */
  i: (v) => isText(v) && decimal.test(v),
  s: (v) => v === 0 || v === 1,
  c: (v) => isCount(v) && v > 0 && v <= MAX_CODE,
  b: (v) => isText(v) && !v.includes("_") && base64.test(v),
  h: (v) => typeof v === "object" && !Array.isArray(v) && Object.values(v as object).every(isText),
  l: (v) => Array.isArray(v) && v.every(isText),
  /** How a slot begins. */
  w: oneOf("resumed beginning head reset"),
  /** Why a cursor is named. */
  r: oneOf("caught_up passed goodbye lineage"),
  /** Why there is a gap. */
  g: oneOf("limit reset lost"),
};

/** Of each frame its members: the kind, whether it may be absent, the name. */
const frames: Record<string, string> = {
  welcome: "n version,i session,t cursor,w own,w common,n heartbeat_ms,n grace_ms,n frame_bytes,n frames_per_second,n time,n? expires",
  message: "s? slot,n? pos,i id,n time,n? expires,t? ref,t? collapse_key,h? headers,b? body_base64",
  cursor: "t cursor,r reason",
  ping: "",
  pong: "",
  gap: "s slot,n from,n to,g reason",
  kick: "c code,t? reason,t? detail,t? by,t? on",
  goaway: "c code,t? reason,n? delay_ms,t? address",
  recall: "s slot,n pos,i id",
  refresh: "n? expires",
  error: "t code,t? detail",
  tags: "l? tags",
};

const tables = new Map(
  Object.entries(frames).map(([type, members]) => [
    type,
    members.split(",").flatMap((m) => {
      const [kind, name] = m.split(" ");
      return name ? [{ name, optional: kind!.length > 1, is: kinds[kind![0]!]! }] : [];
    }),
  ]),
);

/** Frames that only a client sends. */
const ours = oneOf("connect ack event");

/** Reads a frame of a gateway from its text. @throws {FrameError} */
export function decode(text: string): ServerFrame {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new FrameError("malformed_frame", "not JSON");
  }
  return check(value);
}

/** Checks the members of a frame that was read from JSON. @throws {FrameError} */
export function check(value: unknown): ServerFrame {
  const frame = value as ServerFrame;
  if (typeof value !== "object" || value === null || !isText(frame.type)) {
    throw new FrameError("malformed_frame", "no frame");
  }
  const table = tables.get(frame.type);
  if (!table) {
    throw new FrameError(ours(frame.type) ? "unexpected_frame" : "unknown_frame", "a frame of another type");
  }
  for (const { name, optional, is } of table) {
    const v = frame[name];
    if (v === undefined || v === null || (v === "" && !optional)) {
      if (!optional) throw new FrameError("missing_field", `${frame.type} without ${name}`);
    } else if (!is(v)) {
      throw new FrameError("invalid_field", `${name} of ${frame.type}`);
    }
  }
  if (frame.type === "message") {
    if ((frame["slot"] == null) !== (frame["pos"] == null)) throw new FrameError("missing_field", "message with half a place");
    if (frame["body_base64"] != null && "body" in frame) throw new FrameError("invalid_field", "message with two bodies");
  }
  return frame;
}

/** The body of a message frame: its JSON value, its bytes, or `undefined`. */
export function bodyOf(frame: ServerFrame): unknown {
  const encoded = frame["body_base64"];
  return isText(encoded) ? Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0)) : frame["body"];
}
