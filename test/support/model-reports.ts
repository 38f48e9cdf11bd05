/** Random reports, valid and invalid, for both the model and the operator. */
import * as fc from 'fast-check';
import type { RequestFields, TunnelFields } from './wire.ts';

const LONG = 'x'.repeat(2000);
const SUBWAYS = '🚇'.repeat(512);

/** Few usual names, so that reports concern the same tunnels, and names that may break a map, a name, a label or a separator. */
const NAMES = ['node-1', 'node-2', 'node-3', 'acme:node-1'];
const HOSTILE_NAMES = [
  ...[
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    'a:b',
    'c',
    'a',
    'b:c',
    '1:a',
    'Node-1',
    'node-1--',
  ],
  ...['🚇', 'ü/ö', '..', '-', ' ', '日本語', 'e\u0301', '\ufffd', 'x'.repeat(512), SUBWAYS],
];
const INVALID_NAMES = [
  '',
  LONG,
  `${SUBWAYS}x`,
  'line\nbreak',
  'nul\u0000',
  '\u202eright to left',
  '\u2028',
  '\u0085',
];

const usually = <T>(usual: fc.Arbitrary<T>, rare: fc.Arbitrary<T>, weight = 5): fc.Arbitrary<T> =>
  fc.oneof({ weight, arbitrary: usual }, { weight: 1, arbitrary: rare });

/** A valid name of a tunnel. */
const validName = usually(fc.constantFrom(...NAMES), fc.constantFrom(...HOSTILE_NAMES), 8);
const anyName = usually(validName, fc.constantFrom(...INVALID_NAMES), 15);

const TENANT = 'x'.repeat(128);
const identity: fc.Arbitrary<TunnelFields['identity']> = usually(
  fc.record({
    tenant_id: fc.constantFrom('acme', 'globex', 'a', 'a:b', '__proto__'),
    cluster_id: fc.constantFrom('eu-1', 'acme:eu-1', 'b:c'),
    node_id: fc.constantFrom('node-1', 'acme:node-1', 'a:b:c', '🚇'),
  }),
  fc.constantFrom<TunnelFields['identity'][]>(
    undefined,
    {},
    { tenant_id: 'acme', cluster_id: 'eu-1' },
    { tenant_id: 'acme', cluster_id: '', node_id: 'node-1' },
    { tenant_id: '\u0007', cluster_id: 'eu-1', node_id: 'node-1' },
    { tenant_id: `${TENANT}x`, cluster_id: 'eu-1', node_id: 'node-1' },
    {
      tenant_id: TENANT,
      cluster_id: `${TENANT}:${'y'.repeat(128)}`,
      node_id: `${TENANT}:${'z'.repeat(128)}`,
    },
    { tenant_id: TENANT, cluster_id: `${TENANT}:`, node_id: 'node-1' },
    { tenant_id: TENANT, cluster_id: 'eu-1', node_id: `${TENANT}:${'z'.repeat(129)}` },
    { tenant_id: 'acme', cluster_id: '🚇'.repeat(128), node_id: '🚇'.repeat(129) },
    { tenant_id: '__proto__', cluster_id: 'constructor', node_id: '__proto__:constructor' },
  ),
  12,
);

const createdAt: fc.Arbitrary<TunnelFields['created_at']> = usually(
  fc.record({
    seconds: fc.constantFrom(1_790_000_000, 1_790_000_001),
    nanos: fc.constantFrom(0, 123_000_000, 123_456_000, 123_456_789),
  }),
  fc.constantFrom<TunnelFields['created_at'][]>(
    undefined,
    {},
    { seconds: -1, nanos: 999_999_999 },
    { seconds: -62_135_596_800 },
    { seconds: -62_135_596_801 },
    { seconds: 253_402_300_799, nanos: 999_999_999 },
    { seconds: 253_402_300_800 },
    { seconds: '9223372036854775807' },
    { seconds: 1, nanos: -1 },
    { seconds: 1, nanos: 1_000_000_000 },
  ),
  4,
);

const anyTunnel: fc.Arbitrary<TunnelFields> = fc
  .tuple(anyName, identity, createdAt)
  .map(([name, tunnelIdentity, at]) => withoutUndefined({ name, identity: tunnelIdentity, created_at: at }));

/**
 * A delta about one valid tunnel: a removal by GOAWAY, which the end of the connection may repeat, and a reconnect in the
 * same interval.
 */
const removalOfOneTunnel: fc.Arbitrary<RequestFields> = fc
  .record({
    name: validName,
    removals: fc.integer({ min: 1, max: 2 }),
    adds: fc.integer({ min: 0, max: 2 }),
    createdAt,
  })
  .map(({ name, removals, adds, createdAt: at }) => {
    const tunnelIdentity = { tenant_id: 'acme', cluster_id: 'eu-1', node_id: 'node-1' };
    const added = withoutUndefined({ name, identity: tunnelIdentity, created_at: at });
    return {
      full_push: false,
      added_tunnels: Array.from({ length: adds }, () => added),
      removed_tunnel_names: Array.from({ length: removals }, () => name),
    };
  });

/** The tunnels of a report; mostly a delta, sometimes empty. */
const arbitraryContent: fc.Arbitrary<RequestFields> = fc.record({
  full_push: fc.oneof(
    { weight: 4, arbitrary: fc.constant(false) },
    { weight: 1, arbitrary: fc.constant(true) },
  ),
  added_tunnels: fc.array(anyTunnel, { maxLength: 5 }),
  removed_tunnel_names: fc.array(anyName, { maxLength: 4 }),
});

/** The tunnels of a report; often a delta that removes one tunnel. */
export const anyContent = usually(arbitraryContent, removalOfOneTunnel, 4);

/** A full push that contains only valid tunnels. */
export const fullPushOfValidTunnels: fc.Arbitrary<RequestFields> = fc.record({
  full_push: fc.constant(true),
  added_tunnels: fc.array(
    fc.record({
      name: validName,
      identity: fc.constant({ tenant_id: 'acme', cluster_id: 'eu-1', node_id: 'node-1' }),
      created_at: fc.constant({ seconds: 1_790_000_000, nanos: 1000 }),
    }),
    { maxLength: 5 },
  ),
});

/** Reporters, among them one ID in two clusters, and pairs that are equal when their parts are joined. */
export const anyReporter: fc.Arbitrary<{ readonly cluster: string; readonly id: string }> = usually(
  fc.constantFrom({ cluster: 'edge', id: 'responder-0' }, { cluster: 'core', id: 'responder-0' }),
  fc.constantFrom(
    { cluster: '', id: 'responder-0' },
    { cluster: 'a:b', id: 'c' },
    { cluster: 'a', id: 'b:c' },
    { cluster: '', id: 'a:b:c' },
    { cluster: '__proto__', id: '__proto__' },
    { cluster: '🚇'.repeat(256), id: '日'.repeat(256) },
  ),
  4,
);

/** Invalid reporters. */
export const invalidReporter = fc.constantFrom(
  { cluster: 'edge', id: '' },
  { cluster: 'edge', id: 'x'.repeat(257) },
  { cluster: 'x'.repeat(257), id: 'responder-0' },
  { cluster: 'edge', id: 'responder\n0' },
  { cluster: '\u2066', id: 'responder-0' },
);

/** Returns the fields that are not undefined, so that the others are not encoded. */
function withoutUndefined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
