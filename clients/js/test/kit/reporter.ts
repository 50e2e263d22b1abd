// Tells of tests as `go test -v` does, which is what scripts/test.sh counts, after what people read.
import { DefaultReporter, type TestCase } from "vitest/node";

export default class extends DefaultReporter {
  override onTestCaseResult(test: TestCase): void {
    super.onTestCaseResult(test);
    const { state } = test.result();
    const verdict = { passed: "PASS", failed: "FAIL", skipped: "SKIP", pending: "FAIL" }[state];
    process.stdout.write(`--- ${verdict}: ${test.project.name}/${test.fullName.replaceAll(" > ", "/")}\n`);
  }
}
