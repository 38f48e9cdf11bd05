/** Control planes and namespaces, without mocha hooks. */
import { randomBytes } from 'node:crypto';
import { startControlPlane } from '../../control-plane/start.ts';
import type { ControlPlane, ControlPlaneClient, ControlPlaneOptions } from '../../control-plane/start.ts';
import { applyCrds } from './apply-crds.ts';

/** Starts a control plane with the CRDs; the caller must stop it. */
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

/**
 * Creates a namespace `<hint>-<random>` and returns its name, so that suites do not interfere. `hint`: lower case,
 * at most 50 characters.
 */
export async function createNamespace(controlPlane: ControlPlaneClient, hint = 'test'): Promise<string> {
  const name = `${hint}-${randomBytes(5).toString('hex')}`;
  const { status, body } = await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name } });
  if (status !== 201) throw new Error(`create namespace ${name}: ${status} ${JSON.stringify(body)}`);
  return name;
}
