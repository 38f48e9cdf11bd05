import { resolveEnvoys } from '../../envoy/resolve.ts';

/** A first run downloads Envoy. */
const DOWNLOAD_TIMEOUT_MS = 600_000;

/** Makes the newest Envoy available to the tests of a `describe`. Returns a function that returns its path. */
export function useNewestEnvoy(): () => string {
  let path: string | undefined;
  before('provides an Envoy', async function () {
    this.timeout(DOWNLOAD_TIMEOUT_MS);
    path = (await resolveEnvoys())[0]?.path;
  });
  return () => {
    if (path === undefined) throw new Error('Envoy is available in hooks and tests only');
    return path;
  };
}
