/**
 * One control plane for all suites of a mocha process, with the CRDs in place.
 *
 * It starts with the first suite that asks for it and stops after the last one: importing this file registers a
 * hook at mocha's root. Suites that stop or freeze parts of it start one of their own (`startControlPlane`).
 */
import { randomBytes } from 'node:crypto';
import { startControlPlane } from '../../control-plane/start.ts';
import type { ControlPlane, ControlPlaneOptions } from '../../control-plane/start.ts';
import { applyCrds } from './apply-crds.ts';

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

/** A control plane of one's own with the CRDs in place; whoever starts it stops it. */
export async function startWithCrds(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const controlPlane = await startControlPlane(options);
  try {
    await applyCrds(controlPlane);
    return controlPlane;
  } catch (error) {
    await controlPlane.stop();
    throw error;
  }
}

/** Makes a new namespace `<hint>-<random>` and gives its name; so suites never meet. `hint`: lower case, at most 50. */
export async function createNamespace(controlPlane: ControlPlane, hint = 'test'): Promise<string> {
  const name = `${hint}-${randomBytes(5).toString('hex')}`;
  const { status, body } = await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name } });
  if (status !== 201) throw new Error(`Namespace ${name} was not created: ${status} ${JSON.stringify(body)}`);
  return name;
}
