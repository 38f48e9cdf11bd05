import * as fc from 'fast-check';

/** The timeout of a test that checks a property; none (0) for FC_RUNS sequences, which may take an hour. */
export const PROPERTY_TIMEOUT_MS = process.env['FC_RUNS'] === undefined ? 600_000 : 0;

/**
 * Checks an asynchronous property FC_RUNS times if that is set, otherwise `runs` times, with the seed FC_SEED or a
 * random one. An error message ends with the command that reproduces the shrunk case.
 *
 * @param file the test file, as passed to mocha
 * @returns the number of cases; 0 for a replay, which does not check the whole property
 */
export async function assertHolds<T>(
  property: fc.IAsyncProperty<T>,
  { runs, file }: { readonly runs: number; readonly file: string },
): Promise<number> {
  const { FC_RUNS, FC_SEED, FC_PATH } = process.env;
  const details = await fc.check(property, {
    numRuns: Number(FC_RUNS ?? runs),
    ...(FC_SEED === undefined ? {} : { seed: Number(FC_SEED) }),
    ...(FC_PATH === undefined ? {} : { path: FC_PATH, endOnFailure: true }),
  });
  if (!details.failed) return FC_PATH === undefined ? details.numRuns : 0;
  const reproduceCommand = `FC_SEED=${details.seed} FC_PATH=${details.counterexamplePath ?? ''} npx mocha --spec ${file}`;
  throw new Error(`${await fc.asyncDefaultReportMessage(details)}\n\nReproduce with: ${reproduceCommand}`, {
    cause: details.errorInstance,
  });
}
