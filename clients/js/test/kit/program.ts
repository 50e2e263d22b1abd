// Programs that a test starts, and where they keep what they keep. Both go with the test.

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

/** A directory that goes with the test. */
export function directoryForTest(): string {
  const path = mkdtempSync(join(tmpdir(), "carillon-test-"));
  // Processes that were killed may be about to write there.
  onTestFinished(() => rmSync(path, { recursive: true, force: true, maxRetries: 10 }));
  return path;
}

/** Starts a program, in a process group of its own, which ends with the test. */
export function startForTest(program: string, args: readonly string[], options: { debian: string; env?: Record<string, string>; stdio?: "ignore" | ["ignore", "pipe", "ignore"] }): ChildProcess {
  if (!existsSync(program)) throw new Error(`no ${program}: it comes with Debian's package ${options.debian}`);
  const { env, stdio = "ignore" } = options;
  const child = spawn(program, args, { stdio, detached: true, env: { ...process.env, ...env } });
  const over = new Promise((done) => child.once("exit", done));
  onTestFinished(async () => {
    process.kill(-child.pid!, "SIGKILL");
    await over;
  });
  return child;
}
