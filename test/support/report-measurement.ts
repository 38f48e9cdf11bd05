/** A test and what it has measured. */
type MeasuredTest = Mocha.Test & { measurements?: string[]; serialize?: () => object };

let current: MeasuredTest | undefined;

/** Root hooks of the test processes. */
export const mochaHooks: Mocha.RootHookObject = {
  beforeEach(this: Mocha.Context) {
    current = this.currentTest;
  },
  afterEach() {
    current = undefined;
  },
};

/** Attaches a measurement to the running test, whose line the reporter prints it below; in hooks, prints it at once. */
export function reportMeasurement(text: string): void {
  const test = current;
  if (test === undefined) {
    process.stdout.write(`      ${text}\n`);
    return;
  }
  if (test.measurements === undefined) {
    const measurements: string[] = [];
    test.measurements = measurements;
    // In parallel mode a test reaches the reporter as what this returns.
    const serialize = test.serialize?.bind(test);
    if (serialize !== undefined) test.serialize = () => ({ ...serialize(), measurements });
  }
  test.measurements.push(text);
}

/** Returns what a test has measured, in order. */
export function measurementsOf(test: Mocha.Test): readonly string[] {
  return (test as MeasuredTest).measurements ?? [];
}
