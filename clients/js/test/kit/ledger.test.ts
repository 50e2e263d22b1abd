import { expect, test } from "vitest";
import { eventually } from "./eventually.js";
import { clean, Ledger } from "./ledger.js";

/** Accepted: a, b, c. */
function ledger(...got: string[]): Ledger {
  const l = new Ledger();
  for (const id of ["a", "b", "c"]) l.accepted(id);
  for (const id of got) l.got(id);
  return l;
}

test.each([
  ["everything in order", ["a", "b", "c"], {}],
  ["one is missing", ["a", "c"], { lost: [1] }],
  ["nothing came", [], { lost: [0, 1, 2] }],
  ["one came twice", ["a", "b", "b", "c"], { twice: [1] }],
  ["the second time much later is twice, and no disorder", ["a", "b", "c", "a"], { twice: [0] }],
  ["one overtook another", ["a", "c", "b"], { disordered: [1] }],
  ["one that nobody sent", ["a", "x", "b", "c"], { strange: ["x"] }],
])("a ledger finds: %s", (_, got, want) => {
  const l = ledger(...got);
  expect(l.verdict()).toEqual({ ...clean, ...want });
  expect(l.complete).toBe(!("lost" in want));
});

test("an answer that is repeated names the same message", () => {
  const l = ledger("a", "b", "c");
  l.accepted("b");
  expect(l.acceptedCount).toBe(3);
  expect(l.verdict()).toEqual(clean);
});

test("eventually takes a condition that throws for one that is not true yet", async () => {
  let turns = 0;
  const condition = (): string => {
    if (++turns < 3) throw new Error("not there");
    return "there";
  };
  expect(await eventually(condition, "it is there")).toBe("there");
});

test("eventually says for what it waited in vain, and what it saw", async () => {
  await expect(eventually(() => false, "pigs fly", { within: 30, seen: () => ["mud"] })).rejects.toThrow('not within 30 ms: pigs fly; seen: ["mud"]');
  const broken = (): boolean => {
    throw new Error("no pigs");
  };
  await expect(eventually(broken, "pigs fly", { within: 30 })).rejects.toThrow("no pigs");
});
