// Frames in JSON, as `api/README.md` has them: what a client reads, with each member checked, so that nothing behind this file has to. Pure.

import { CarillonError } from "./errors.js";
import type { ServerFrame } from "./types.js";

/** What is no frame of a gateway, by the protocol's code for refused frames. */
const wrong = (code: "malformed_frame" | "unexpected_frame" | "missing_field" | "invalid_field", what: string): CarillonError =>
  new CarillonError(code, `${code} ${what}`);

const isText = (v: unknown): v is string => typeof v === "string";
const isCount = (v: unknown): v is number => Number.isSafeInteger(v) && (v as number) >= 0;
const like =
  (shape: RegExp) =>
  (v: unknown): boolean =>
    isText(v) && shape.test(v);

/** The kinds of members: a letter each, so that the table below stays small on the way to browsers. */
const kinds: Record<string, (v: any) => boolean> = {
  t: isText,
  n: isCount,
  /** A number that JSON would round, in a string. */
  i: like(/^[1-9]\d{0,19}$/),
  s: (v) => v === 0 || v === 1,
  c: (v) => isCount(v) && v > 0 && v < 65536,
  b: like(/^([A-Za-z\d+/]{4})*(..==|...=)?$/),
  h: (v) => !Array.isArray(v) && Object.values(v).every(isText),
  l: (v) => Array.isArray(v) && v.every(isText),
  /** How a slot begins. */
  w: like(/^(resumed|beginning|head|reset)$/),
  /** Why a cursor is named. */
  r: like(/^(caught_up|passed|goodbye|lineage)$/),
  /** Why there is a gap. */
  g: like(/^(limit|reset|lost)$/),
};

/** Of each frame its members: a name behind its kind, with a question mark where it may be absent. */
const frames: Record<string, string> = {
  __proto__: null as never,
  welcome: "nversion isession tcursor wown wcommon nheartbeat_ms ngrace_ms nframe_bytes nframes_per_second ntime n?expires",
  message: "s?slot n?pos iid ntime n?expires t?ref t?collapse_key h?headers b?body_base64",
  cursor: "tcursor rreason",
  ping: "",
  pong: "",
  gap: "sslot nfrom nto greason",
  kick: "ccode t?reason t?detail t?by t?on",
  goaway: "ccode t?reason n?delay_ms t?address",
  recall: "sslot npos iid",
  refresh: "n?expires",
  error: "tcode t?detail",
  tags: "l?tags",
};

/** The table, read when a frame of that type comes first. */
const read: Record<string, string[][]> = {};

/** Checks the members of a frame that was read from JSON, and takes out those that are absent. Undefined: a later version's. @throws {CarillonError} */
export function check(value: unknown): ServerFrame | undefined {
  const frame = value as Record<string, unknown> & ServerFrame;
  const type = frame?.type;
  if (!isText(type)) throw wrong("malformed_frame", "");
  const table = frames[type];
  if (table === undefined) {
    if (/^(connect|ack|event)$/.test(type)) throw wrong("unexpected_frame", type);
    return undefined;
  }
  for (const [, kind, optional, name] of (read[type] ??= [...table.matchAll(/(\w)(\??)(\w+)/g)])) {
    const v = frame[name!];
    if (v == null || (v === "" && !optional)) {
      if (!optional) throw wrong("missing_field", `${type}.${name}`);
      if (v !== undefined) delete frame[name!];
    } else if (!kinds[kind!]!(v)) throw wrong("invalid_field", `${type}.${name}`);
  }
  if (type === "message") {
    if (("slot" in frame) !== "pos" in frame) throw wrong("missing_field", type);
    if ("body_base64" in frame && "body" in frame) throw wrong("invalid_field", type);
  }
  return frame;
}
