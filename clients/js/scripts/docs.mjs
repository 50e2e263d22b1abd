// Writes the reference of the API, docs/js/reference, from the types and what is written beside them. `npm run docs` writes it, `npm run docs -- --check`
// fails where it is another.
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const check = process.argv.includes("--check");
const kept = "../../docs/js/reference";
const out = check ? mkdtempSync(join(tmpdir(), "carillon-docs.")) : kept;
execFileSync(
  "npx",
  // prettier-ignore
  ["typedoc", "--plugin", "typedoc-plugin-markdown", "--tsconfig", "tsconfig.build.json", "--entryPoints", "src/index.ts", "src/core.ts", "src/react.ts",
    "--out", out, "--readme", "none", "--disableSources", "--hideBreadcrumbs", "--hidePageHeader", "--gitRevision", "main",
    "--router", "module", "--treatWarningsAsErrors", "--logLevel", "Warn", "--githubPages", "false", "--includeVersion", "false"],
  { stdio: "inherit" },
);
if (check) {
  try {
    execFileSync("diff", ["-ru", kept, out], { stdio: "inherit" });
  } catch {
    console.error("The reference in docs/js is not what the types say: `npm run docs` writes it anew.");
    process.exitCode = 1;
  } finally {
    rmSync(out, { recursive: true });
  }
}
