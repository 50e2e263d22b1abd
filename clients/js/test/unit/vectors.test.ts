// What every implementation replays, of `api/testdata`.
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { backoff } from "../../src/backoff.js";
import { check } from "../../src/check.js";
import { bodyOf, parse } from "../../src/codec.js";
import { moveCursor, placeIn, readCursor } from "../../src/cursor.js";
import { CarillonError } from "../../src/errors.js";
import { dutyOf, RENEW_TOKEN, STAY_AWAY } from "../../src/machine.js";

const decode = (text: string) => check(parse(text));
const load = (name: string): any => JSON.parse(readFileSync(new URL(`../../../../api/testdata/${name}.json`, import.meta.url), "utf8"));
const named = (rows: any[]): [string, any][] => rows.map((r) => [r.name, r]);
const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"));

describe("frames of a gateway", () => {
  for (const f of load("frames").filter((f: any) => f.direction === "server")) {
    const texts: [string, string][] = [["as it is written", f.json], ...(f.variants ?? []).filter((v: any) => v.json).map((v: any) => [v.note, v.json])];
    test.each(texts)(`${f.name}, %s`, (_, text) => {
      const got = decode(text)!;
      for (const [name, want] of Object.entries<any>(f.frame)) {
        if (name === "headers") expect(Object.entries(got["headers"] ?? {}).sort()).toEqual([...want].sort());
        else if (name === "body_text") expect(bodyOf(got)).toEqual(JSON.parse(want));
        else if (name === "body_hex") expect(bodyOf(got)).toEqual(bytes(want));
        else if (want === null) expect(got[name], name).toBeUndefined();
        // In these files a number that is not said is 0, a text empty, a list empty.
        else expect(got[name] ?? (typeof want === "number" ? 0 : Array.isArray(want) ? [] : ""), name).toEqual(want);
      }
    });
  }
});

describe("what is no frame of a gateway", () => {
  const invalid = load("invalid").filter((f: any) => f.direction === "server" && f.json !== undefined && !f.optional);
  test.each(named(invalid))("%s", (_, { code, json: text }) => {
    try {
      // A frame of a later version is no error to a client: it is passed over.
      if (code === "unknown_frame") {
        expect(decode(text)).toBeUndefined();
        return;
      }
      decode(text);
    } catch (e) {
      expect(e).toBeInstanceOf(CarillonError);
      expect((e as CarillonError).code).toBe(code);
      // What was sent may be anybody's secret.
      expect(String(e)).not.toContain("s3cret");
      return;
    }
    expect.unreachable("it was taken for a frame");
  });

  // Of the rules for JSON as such, which both sides share.
  const malformed = load("invalid").filter((f: any) => f.code === "malformed_frame" && f.json !== undefined && !f.optional);
  const stricter = /twice|two types|nested|surrogate|UTF-8|type and/i; // JSON.parse takes these
  test.each(named(malformed.filter((f: any) => !stricter.test(f.name))))("%s", (_, { json: text }) => {
    expect(() => decode(text)).toThrow(CarillonError);
  });

  test("names that every object has are no types of frames", () => {
    for (const type of ["toString", "constructor", "__proto__", "hasOwnProperty"]) {
      expect(check({ type })).toBeUndefined();
    }
  });
});

describe("cursors", () => {
  const { valid, invalid, builds } = load("cursor");
  test.each(named(valid))("%s", (_, v) => {
    const c = readCursor(v.cursor)!;
    expect(c).toBe(v.cursor);
    expect(BigInt(`0x${c.split(".")[1]}`).toString()).toBe(v.owner);
    for (const [i, slot] of ["own", "common"].entries()) {
      const place = placeIn(c, i);
      expect(BigInt(`0x${place.epoch}`).toString()).toBe(v[slot].epoch);
      expect(BigInt(`0x${place.lineage}`).toString()).toBe(v[slot].lineage);
      expect(BigInt(`0x${place.pos}`).toString()).toBe(v[slot].position);
    }
  });
  test.each(named(invalid))("no cursor: %s", (_, { cursor: text }) => {
    expect(readCursor(text)).toBeUndefined();
  });
  test.each(named(builds))("%s", (_, b) => {
    let c = readCursor(b.start);
    for (const step of b.steps) {
      c = moveCursor(c, decode(step.frame)!);
      expect(c).toBe(step.cursor);
    }
  });
});

test("the duty that a close code names", () => {
  const { codes, others } = load("close");
  const duties: Record<number, string> = { [RENEW_TOKEN]: "renew_token", [STAY_AWAY]: "stay_away" };
  for (const { code, duty } of [...codes, ...others]) expect(duties[dutyOf(code)] ?? "come_back", String(code)).toBe(duty);
});

test("backoff", () => {
  for (const { failed, random, ms } of load("client/backoff")) expect(backoff(failed, random)).toBe(ms);
});
