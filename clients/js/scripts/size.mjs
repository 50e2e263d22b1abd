// How large the package is in a bundle, minified and gzipped, as an application gets it. `npm run size -- --check` fails above the limits. Needs dist.
import { build } from "esbuild";
import { gzipSync } from "node:zlib";

// The limits are in bytes.
const bundles = [
  // 6000 is what this is to come to.
  { name: "core with WebSocket", limit: 7200, code: `import { createClient, webSocket } from "./dist/esm/core.js"; keep(createClient, webSocket);` },
  { name: "everything", limit: 12000, code: `import { createClient, indexedDBStorage } from "./dist/esm/index.js"; keep(createClient, indexedDBStorage);` },
];
let over = false;
for (const { name, limit, code } of bundles) {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: "." },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  const ok = size <= limit;
  over ||= !ok;
  console.log(`${name}: ${size} bytes of at most ${limit}${ok ? "" : ", too large"}`);
}
if (over && process.argv.includes("--check")) process.exit(1);
