/**
 * One control plane for all suites of a mocha process, with the CRDs in place.
 *
 * It starts with the first suite that asks for it and stops after the last one: importing this file registers a
 * hook at mocha's root. Suites that stop or freeze parts of it start one of their own (`startControlPlane`).
 */
import type { ControlPlane } from '../../control-plane/start.ts';
import { createNamespace, startWithCrds } from './start-with-crds.ts';

// Where tests look for them; programs that are not run by mocha take them from there.
export { createNamespace, startWithCrds };

/** A first start may have to build the binaries with Go: 6 to 10 minutes on 2 cores, longer on fewer. */
export const FIRST_START_TIMEOUT_MS = 30 * 60_000;

let shared: Promise<ControlPlane> | undefined;

after(async () => {
  await (await shared?.catch(() => undefined))?.stop();
});

/**
 * To be called in a `describe`: before its tests the shared control plane runs, with audit log and CRDs. Gives a
 * function that returns it, for use in hooks and tests.
 */
export function useControlPlane(): () => ControlPlane {
  let controlPlane: ControlPlane | undefined;
  before('the shared control plane', async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    shared ??= startWithCrds({ audit: true });
    controlPlane = await shared;
  });
  return () => {
    if (controlPlane === undefined) throw new Error('The control plane is there in hooks and tests only.');
    return controlPlane;
  };
}
