/** Shows a figure that a test has seen, beside the test's own line. */
export function tell(text: string): void {
  process.stdout.write(`      ${text}\n`);
}
