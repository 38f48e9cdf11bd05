import Mocha from 'mocha';

/**
 * Mocha's spec reporter, closed by one plain line `N passed, N failed` that CI reads.
 * Pending tests count as failed: a test that did not run has shown nothing.
 */
export default class ClosingLineReporter extends Mocha.reporters.Spec {
  override epilogue(): void {
    super.epilogue();
    const { passes, failures, pending } = this.stats;
    process.stdout.write(`${passes} passed, ${failures + pending} failed\n`);
  }
}
