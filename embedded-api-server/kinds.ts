import { isDeepStrictEqual } from 'node:util';
import type { JsonObject } from './objects.ts';

/** The API server's knowledge of a kind. */
export interface ApiKind {
  readonly kind: string;
  readonly apiVersion: string;
  /** Undefined when the kind has no status subresource. */
  readonly defaultStatus: JsonObject | undefined;
  /** Returns the immutable part of a spec; undefined when all of it is mutable. */
  readonly identity: ((spec: JsonObject) => unknown) | undefined;
}

const PENDING = ['Connected', 'Synced', 'Ready'].map((type) => ({
  type,
  status: 'Unknown',
  reason: 'Pending',
  message: '',
  lastTransitionTime: '1970-01-01T00:00:00Z',
}));

/** The kinds that this project writes, by plural: those of `crds/`, Lease and Event. */
export const API_KINDS: Readonly<Record<string, ApiKind>> = {
  reversetunnels: {
    kind: 'ReverseTunnel',
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    defaultStatus: {
      conditions: [{ reason: 'Reported', status: 'True', type: 'Ready' }],
      state: 'Connected',
    },
    identity: (spec) => ({ ...spec, createdAt: undefined }),
  },
  reversetunnelreporters: {
    kind: 'ReverseTunnelReporter',
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    defaultStatus: { conditions: PENDING },
    identity: (spec) => spec,
  },
  leases: {
    kind: 'Lease',
    apiVersion: 'coordination.k8s.io/v1',
    defaultStatus: undefined,
    identity: undefined,
  },
  events: { kind: 'Event', apiVersion: 'events.k8s.io/v1', defaultStatus: undefined, identity: undefined },
};

/** Reports whether a change of a spec violates its immutability. */
export function isImmutable({ identity }: ApiKind, before: JsonObject, after: JsonObject): boolean {
  return identity !== undefined && !isDeepStrictEqual(identity(before), identity(after));
}
