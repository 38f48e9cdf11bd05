/** The npm scripts that only provide programs: `npm run envoy` and `npm run prometheus`. */
import { parseArgs } from 'node:util';
import { errorMessage } from './errors.ts';

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

export interface FetchCommand {
  /** The npm script, which is also the prefix of its errors. */
  readonly name: string;
  readonly help: string;
  /** Provides the programs and returns a line for each. */
  readonly fetch: () => Promise<readonly string[]>;
  /** The error of `fetch` that is reported in one line; any other one is thrown. */
  readonly expectedError: new (message: string) => Error;
}

/** Runs the script with the arguments of this process; resolves with the exit code. */
export async function runFetchCommand({ name, help, fetch, expectedError }: FetchCommand): Promise<number> {
  let values: { fetch: boolean; help: boolean };
  try {
    const off = { type: 'boolean', default: false } as const;
    ({ values } = parseArgs({ options: { fetch: off, help: off } }));
  } catch (error) {
    process.stderr.write(`${name}: ${errorMessage(error)}\n`);
    return EXIT_USAGE;
  }
  if (values.help) {
    process.stdout.write(help);
    return 0;
  }
  if (!values.fetch) {
    process.stderr.write(`${name}: pass --fetch; see --help\n`);
    return EXIT_USAGE;
  }
  try {
    for (const line of await fetch()) process.stdout.write(`${line}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof expectedError)) throw error;
    process.stderr.write(`${name}: ${error.message}\n`);
    return EXIT_FAILURE;
  }
}
