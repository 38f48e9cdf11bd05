import { expect } from 'chai';
import { pino } from 'pino';
import { createCaches } from '../../src/controllers.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { createApiClient } from '../../src/k8s/client.ts';
import { ApiError } from '../../src/k8s/api-error.ts';
import { createMetrics } from '../../src/metrics.ts';
import { Reflectors } from '../../src/reflectors.ts';
import { createReplicaLeases, type ReplicaLeases } from '../../src/replica-leases.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { advanceTime } from '../support/fake-time.ts';
import { MemoryLeases } from '../support/memory-api.ts';
import { names } from '../support/sample-tunnels.ts';

const UNREACHABLE = new ApiError('unavailable', 'create leases: connect ECONNREFUSED');
const UNAUTHORIZED = new ApiError('unauthorized', 'create leases: 401 Unauthorized', { status: 401 });
const FORBIDDEN = new ApiError('rejected', 'create leases: 403 Forbidden', { status: 403 });

describe('log about the Lease of a replica', () => {
  let clock: FakeClock;
  let client: MemoryLeases;
  let leases: ReplicaLeases;
  let logged: Record<string, unknown>[];

  beforeEach(() => {
    clock = new FakeClock();
    clock.advance(1000);
    client = new MemoryLeases();
    logged = [];
    const log = pino({ base: null }, { write: (line) => logged.push(JSON.parse(line)) });
    const metrics = createMetrics();
    const ledger = new Ledger();
    const caches = createCaches({ names, ledger, clock, metrics, log });
    const random = (): number => 0.5;
    const api = createApiClient({
      connection: {
        server: new URL('http://127.0.0.1:1'),
        proxyUrl: undefined,
        namespace: undefined,
        source: 'test',
        credentials: {
          current: () => ({ ca: undefined, authorization: undefined }),
          refresh: () => Promise.resolve(),
        },
      },
      clock,
      userAgent: 'test',
      connections: 1,
    });
    const reflectors = new Reflectors({ client: api, namespace: 'default', caches, clock, random, log });
    const { replicas, reporters } = caches;
    const self = 'replica-1';
    const common = { self, names, replicas, reporters, reflectors, clock, random, log };
    leases = createReplicaLeases({ ...common, client: client as never });
  });
  afterEach(async () => {
    client.failure = undefined;
    await leases.own.release();
  });

  const warnings = (): unknown[] =>
    logged
      .filter(({ level }) => level === 40)
      .map(({ errorKind, hint, suppressed }) => [errorKind, hint, suppressed]);

  it('contains each cause of consecutive failures, not only the first', async () => {
    client.failure = UNREACHABLE;
    leases.own.start();
    await advanceTime(clock, 3000);
    client.failure = UNAUTHORIZED;
    await advanceTime(clock, 3000);
    client.failure = FORBIDDEN;
    await advanceTime(clock, 3000);
    expect(warnings()).to.deep.equal([
      ['unavailable', undefined, undefined],
      ['unauthorized', 'check the credentials', undefined],
      ['rejected', 'grant the RBAC permissions to the ServiceAccount', undefined],
    ]);
    expect(logged[0]).to.include({ replica: 'replica-1', error: UNREACHABLE.message, retry: 'every 1s' });
  });

  it('repeats a cause once per 30 s, with the number of failures in between', async () => {
    client.failure = FORBIDDEN;
    leases.own.start();
    await advanceTime(clock, 65_000);
    expect(warnings()).to.have.length(3);
    expect(logged[1]?.['suppressed']).to.be.within(25, 30);
  });

  it('contains the end of the failures', async () => {
    client.failure = UNAUTHORIZED;
    leases.own.start();
    await advanceTime(clock, 3000);
    client.failure = undefined;
    await advanceTime(clock, 3000);
    expect(logged.map(({ msg }) => msg)).to.deep.equal([
      'cannot renew the replica Lease; writes are paused while it is not held',
      'renewal of the replica Lease recovered',
      'acquired replica Lease',
    ]);
  });
});
