// How large the package is in a bundle, minified and gzipped, as an application gets it, and what each part adds to the core. `npm run size -- --check` fails above
// the limits. Needs dist.
import { build } from "esbuild";
import { gzipSync } from "node:zlib";

async function sizeOf(entry, names) {
  const { outputFiles } = await build({
    stdin: { contents: `import { ${names} } from "./dist/esm/${entry}.js"; keep(${names});`, resolveDir: "." },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

// The limits are in bytes.
const bundles = [
  { name: "core with WebSocket", limit: 6000, entry: "core", names: "createClient, webSocket" },
  { name: "everything", limit: 12000, entry: "index", names: "createClient, indexedDBStorage" },
];
let over = false;
for (const { name, limit, entry, names } of bundles) {
  const size = await sizeOf(entry, names);
  const ok = size <= limit;
  over ||= !ok;
  console.log(`${name}: ${size} bytes of at most ${limit}${ok ? "" : ", too large"}`);
}

const core = bundles[0].names;
const kept = "persistent, localStorageStorage";
const parts = [
  ["a place that is kept", core, kept],
  ["one that tabs share", `${core}, ${kept}`, "shared"],
  ["two more transports", core, "fallback, sse, longPoll"],
  ["checks of frames", core, "checkFrame"],
  ["the page's events", core, "pageEvents"],
  ["a loop over messages", core, "messages"],
  ["events and tags", core, "displayed, clicked, deviceTags"],
];
for (const [name, to, part] of parts) console.log(`${name}: ${(await sizeOf("core", `${to}, ${part}`)) - (await sizeOf("core", to))} bytes more`);
if (over && process.argv.includes("--check")) process.exit(1);
