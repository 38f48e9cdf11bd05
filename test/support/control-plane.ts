/**
 * One control plane with the CRDs for all suites of a test run; each suite works in namespaces of its own.
 *
 * Suites that stop or freeze parts of it, or that change what is cluster-wide, start one of their own (`startWithCrds`).
 */
import { get } from 'node:http';
import { text } from 'node:stream/consumers';
import {
  createControlPlaneClient,
  type ControlPlaneAccess,
  type ControlPlaneClient,
} from '../../control-plane/start.ts';
import { createNamespace, startWithCrds } from './start-with-crds.ts';

// Tests import both from here; programs that do not run under mocha import them from there.
export { createNamespace, startWithCrds };

/** A first start may have to build the binaries with Go: 6 to 10 minutes on 2 cores, longer on fewer. */
export const FIRST_START_TIMEOUT_MS = 30 * 60_000;

/** The environment variable with the address at which `mocha-global-setup.ts` hands out the shared control plane. */
export const SHARED_CONTROL_PLANE_URL = 'SHARED_CONTROL_PLANE_URL';

let shared: Promise<ControlPlaneClient> | undefined;

/**
 * Makes the shared control plane available to the tests of a `describe`, with audit log and CRDs. Returns a function
 * that returns it, for use in hooks and tests.
 */
export function useControlPlane(): () => ControlPlaneClient {
  let controlPlane: ControlPlaneClient | undefined;
  before('connects to the shared control plane', async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    shared ??= connect();
    controlPlane = await shared;
  });
  return () => {
    if (controlPlane === undefined) throw new Error('the control plane is available in hooks and tests only');
    return controlPlane;
  };
}

/** Not `fetch`, which gives up after 5 minutes without a response header. */
async function connect(): Promise<ControlPlaneClient> {
  const url = process.env[SHARED_CONTROL_PLANE_URL];
  if (url === undefined)
    throw new Error(`${SHARED_CONTROL_PLANE_URL} is not set; run mocha with .mocharc.json`);
  const body = await new Promise<string>((resolve, reject) => {
    get(url, (response) => {
      const received = text(response);
      if (response.statusCode === 200) received.then(resolve, reject);
      else received.then((message) => reject(new Error(message)), reject);
    }).on('error', reject);
  });
  return createControlPlaneClient(JSON.parse(body) as ControlPlaneAccess);
}
