import { defineConfig } from "vitest/config";

/** Real processes and a real clock: a few at a time, behind the tests that are quick, and with time enough on a machine that is busy. They need Go. */
const real = { globalSetup: ["test/kit/build.ts"], maxWorkers: 2, sequence: { groupOrder: 1 }, testTimeout: 60_000, hookTimeout: 300_000 };

export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["test/{unit,simulation}/**/*.test.{ts,tsx}"] } },
      { test: { name: "kit", include: ["test/kit/**/*.test.ts"], ...real } },
      { test: { name: "integration", include: ["test/integration/**/*.test.ts"], ...real } },
      // Needs /usr/bin/chromium, or CHROMIUM.
      { test: { name: "browser", include: ["test/browser/**/*.test.ts"], ...real } },
      // Needs Debian's firefox-esr, webkit2gtk-driver and xvfb, and is run when it is asked for: `npm run test:engines`.
      { test: { name: "engines", include: ["test/engines/**/*.test.ts"], ...real, testTimeout: 90_000, maxWorkers: 1 } },
      // Minutes long, and run when it is asked for: `npm run bench`.
      { test: { name: "bench", include: ["test/browser/**/*.bench.ts"], ...real, testTimeout: 3_600_000 } },
    ],
  },
});
