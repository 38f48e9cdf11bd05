/** Rows for the bare loop: the same bytes that the operator would send for tunnels of the simulated fleet. */
import { hash } from 'node:crypto';
import { formatCreatedAt } from '../src/core/created-at.ts';
import { createNames } from '../src/core/names.ts';
import { manifestFor } from '../src/core/tunnel-object.ts';
import { initiator } from '../src/simulate/initiators.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet-options.ts';

/** By the same digest as the operator's, so that names have the same length and spread over etcd's keys alike. */
export const NAMES = createNames((text) => hash('sha256', text, 'buffer'));

/** One row, ready to be sent. */
export interface BaselineObject {
  readonly name: string;
  /** The body of its POST. */
  readonly body: string;
}

/**
 * @param from serial number of the first initiator; rows of different serials have different names
 * @param count how many rows
 */
export function baselineObjects(from: number, count: number): BaselineObject[] {
  const reporter = { cluster: FLEET_DEFAULTS.reporterCluster, id: 'responder-0' };
  // Microseconds, as Envoy's clock has them: a shorter text would be a smaller row.
  const createdAt = formatCreatedAt(Math.floor(Date.now() / 1000), 123_456_000);
  return Array.from({ length: count }, (_, index) => {
    const identity = initiator(from + index, FLEET_DEFAULTS);
    const { name, labels, spec } = manifestFor(NAMES, reporter, {
      name: identity.nodeID,
      ...identity,
      createdAt,
    });
    const object = {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnel',
      metadata: { name, labels },
      spec,
    };
    return { name, body: JSON.stringify(object) };
  });
}
