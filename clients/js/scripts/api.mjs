// Keeps the public surface of the package in etc/*.api.md, so that no change of it goes unseen. `npm run api` writes it, `npm run api -- --check`
// fails where it is another. Needs dist.
import { Extractor, ExtractorConfig } from "@microsoft/api-extractor";
import { mkdirSync } from "node:fs";
import { resolve } from "node:path";

const check = process.argv.includes("--check");
mkdirSync("etc", { recursive: true });
let failed = false;
for (const entry of ["index", "core", "react"]) {
  const config = ExtractorConfig.prepare({
    configObject: {
      projectFolder: resolve("."),
      mainEntryPointFilePath: resolve(`dist/esm/${entry}.d.ts`),
      compiler: { tsconfigFilePath: resolve("tsconfig.build.json") },
      apiReport: { enabled: true, reportFileName: `${entry}.api.md`, reportFolder: resolve("etc"), reportTempFolder: resolve("temp") },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      newlineKind: "lf",
      messages: {
        compilerMessageReporting: { default: { logLevel: "error" } },
        extractorMessageReporting: {
          default: { logLevel: "error" },
          "ae-missing-release-tag": { logLevel: "none" },
          "ae-unresolved-link": { logLevel: "none" },
          // What the name of a member says does not have to be said again.
          "ae-undocumented": { logLevel: "none" },
          // The hooks are about the types of the main entry.
          "ae-forgotten-export": { logLevel: entry === "react" ? "none" : "error" },
        },
        tsdocMessageReporting: { default: { logLevel: "none" } },
      },
    },
    configObjectFullPath: undefined,
    packageJsonFullPath: resolve("package.json"),
  });
  const result = Extractor.invoke(config, { localBuild: !check, showVerboseMessages: false });
  if (!result.succeeded) failed = true;
}
if (failed) {
  console.error("The public surface is not what etc/ says, or cannot be told. `npm run api` writes it anew: look at the difference before you commit it.");
  process.exit(1);
}
