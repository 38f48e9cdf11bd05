import * as fc from 'fast-check';

/**
 * Checks an asynchronous property: FC_RUNS times if that is set, else `runs` times; from the seed FC_SEED, or one that
 * is new each time. Where it fails, the message ends with the command that runs the same case again, shrunk as it is.
 *
 * @param file the test's own, as mocha takes it
 * @returns how many cases were run; 0 for a replay, which shows nothing of the property in whole
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
  throw new Error(
    `${await fc.asyncDefaultReportMessage(details)}\n\nThe same case again: ${reproduceCommand}`,
    {
      cause: details.errorInstance,
    },
  );
}
