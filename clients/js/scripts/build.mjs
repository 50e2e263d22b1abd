// Builds dist: ES modules in dist/esm, CommonJS in dist/cjs, each with its types. `npm run build`.
import { execFileSync } from "node:child_process";
import { copyFileSync, rmSync, writeFileSync } from "node:fs";

rmSync("dist", { recursive: true, force: true });
for (const [kind, type] of [["esm", "module"], ["cjs", "commonjs"]]) {
  const cjs = kind === "cjs";
  execFileSync(
    "npx",
    // prettier-ignore
    ["tsc", "-p", "tsconfig.build.json", "--outDir", `dist/${kind}`,
      ...(cjs ? ["--module", "CommonJS", "--moduleResolution", "Node10", "--verbatimModuleSyntax", "false"] : [])],
    { stdio: "inherit" },
  );
  // So that Node and bundlers take the .js files there for what they are.
  writeFileSync(`dist/${kind}/package.json`, JSON.stringify({ type, sideEffects: false }) + "\n");
}
copyFileSync("../../LICENSE", "LICENSE");
