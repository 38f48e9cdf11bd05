import Mocha from 'mocha';
import { measurementsOf } from './report-measurement.ts';

const { EVENT_TEST_PASS, EVENT_TEST_FAIL } = Mocha.Runner.constants;

/**
 * Mocha's spec reporter, with the measurements of each test, and with a last line `N passed, N failed` for CI.
 * A pending test counts as failed, because it has shown nothing.
 */
export default class ClosingLineReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const printMeasurements = (test: Mocha.Test): void => {
      for (const text of measurementsOf(test)) process.stdout.write(`      ${text}\n`);
    };
    runner.on(EVENT_TEST_PASS, printMeasurements);
    runner.on(EVENT_TEST_FAIL, printMeasurements);
  }

  override epilogue(): void {
    super.epilogue();
    const { passes, failures, pending } = this.stats;
    process.stdout.write(`${passes} passed, ${failures + pending} failed\n`);
  }
}
