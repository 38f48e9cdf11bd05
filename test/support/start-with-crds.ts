/** What needs no mocha: a control plane for whoever starts and stops it, and namespaces in it. */
import { randomBytes } from 'node:crypto';
import { startControlPlane } from '../../control-plane/start.ts';
import type { ControlPlane, ControlPlaneClient, ControlPlaneOptions } from '../../control-plane/start.ts';
import { applyCrds } from './apply-crds.ts';

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
export async function createNamespace(controlPlane: ControlPlaneClient, hint = 'test'): Promise<string> {
  const name = `${hint}-${randomBytes(5).toString('hex')}`;
  const { status, body } = await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name } });
  if (status !== 201) throw new Error(`Namespace ${name} was not created: ${status} ${JSON.stringify(body)}`);
  return name;
}
