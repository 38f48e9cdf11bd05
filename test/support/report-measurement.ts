/** Shows a figure that a test has seen, beside the test's own line. */
export function reportMeasurement(text: string): void {
  process.stdout.write(`      ${text}\n`);
}
