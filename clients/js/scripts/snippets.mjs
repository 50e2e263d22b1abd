// Checks the types of what the documentation shows: each block of TypeScript in docs/js and README.md is a module of its own, which sees the package as it is
// built and what test/docs/surroundings.d.ts declares. Needs dist.
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";

const pages = ["README.md", ...readdirSync("../../docs/js").filter((f) => f.endsWith(".md")).map((f) => `../../docs/js/${f}`)];
rmSync("temp/snippets", { recursive: true, force: true });
mkdirSync("temp/snippets", { recursive: true });
let count = 0;
for (const page of pages) {
  const text = readFileSync(page, "utf8");
  for (const { 1: kind, 2: code, index } of text.matchAll(/^```(tsx?)\n([\s\S]*?)^```$/gm)) {
    const line = text.slice(0, index).split("\n").length + 1;
    const name = `${page.split("/").pop().replace(".md", "")}-${line}.${kind}`;
    // A block may be the members of an object.
    const member = /^\w+: /.test(code) ? `export const o: Partial<import("@carillon/client").ClientOptions> = {${code.replace(/;\s*$/, "")}};` : code;
    writeFileSync(`temp/snippets/${name}`, `${member}\nexport {};\n`);
    count++;
  }
}
writeFileSync(
  "temp/snippets/tsconfig.json",
  JSON.stringify({
    extends: "../../tsconfig.json",
    // Nor may the package's own types need what it does not have.
    compilerOptions: { skipLibCheck: false, noUnusedLocals: false, moduleDetection: "force", verbatimModuleSyntax: false },
    include: [".", "../../test/docs"],
  }),
);
execFileSync("npx", ["tsc", "-p", "temp/snippets"], { stdio: "inherit" });
console.log(`snippets: ${count}`);
