import { expect } from 'chai';
import type { ReporterObject } from '../../src/core/reporter-object.ts';
import type { TunnelObject } from '../../src/core/tunnel-object.ts';
import { reporterKey, type Tunnel } from '../../src/core/tunnel.ts';
import type { TunnelApiCall } from '../support/memory-api.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const TUNNELS = Array.from({ length: 50 }, (_, index) => tunnel(`node-${index}`));
const [FIRST = tunnel('node-0')] = TUNNELS;
const MINUTE_MS = 60_000;

const withLabel = (object: TunnelObject, label: string, value: string | undefined): TunnelObject => {
  const { [label]: _, ...others } = object.metadata.labels ?? {};
  const labels = value === undefined ? others : { ...others, [label]: value };
  return { ...object, metadata: { ...object.metadata, labels } };
};
const withSpec = (object: TunnelObject, spec: Partial<TunnelObject['spec']>): TunnelObject => ({
  ...object,
  spec: { ...object.spec, ...spec },
});

type Webhook = (object: TunnelObject, verb: TunnelApiCall['verb']) => TunnelObject;

/** Webhooks, the field that they rewrite, and the writes per object that each attempt takes. */
const WEBHOOKS: {
  readonly name: string;
  readonly admit: Webhook;
  readonly field: string;
  readonly attempt: readonly TunnelApiCall['verb'][];
}[] = [
  {
    name: 'rewrites a label',
    admit: (object) => withLabel(object, 'reverse-tunnel.io/tenant', 'other'),
    field: 'metadata.labels[reverse-tunnel.io/tenant]',
    attempt: ['patch'],
  },
  {
    name: 'removes a label',
    admit: (object) => withLabel(object, 'app.kubernetes.io/managed-by', undefined),
    field: 'metadata.labels[app.kubernetes.io/managed-by]',
    attempt: ['patch'],
  },
  {
    name: 'rewrites the tenant',
    admit: (object) => withSpec(object, { tenantID: 'other' }),
    field: 'spec.tenantID',
    attempt: ['delete', 'create'],
  },
  {
    name: 'rewrites the node in upper case',
    admit: (object, verb) =>
      verb === 'create' ? withSpec(object, { nodeID: object.spec.nodeID.toUpperCase() }) : object,
    field: 'spec.nodeID',
    attempt: ['delete', 'create'],
  },
  {
    name: 'rewrites createdAt',
    admit: (object) => withSpec(object, { createdAt: '2020-01-01T00:00:00Z' }),
    field: 'spec.createdAt',
    attempt: ['patch'],
  },
  {
    name: 'removes createdAt and rewrites a label',
    admit: (object) => {
      const { createdAt: _, ...spec } = object.spec;
      return withLabel({ ...object, spec }, 'reverse-tunnel.io/node', 'other');
    },
    field: 'metadata.labels[reverse-tunnel.io/node]',
    attempt: ['patch'],
  },
  {
    name: 'rewrites the tunnel name',
    admit: (object) => withSpec(object, { tunnelName: `renamed-${object.spec.tunnelName}` }),
    field: 'spec.tunnelName',
    attempt: ['create', 'delete'],
  },
  {
    name: 'rewrites the reporter',
    admit: (object) => withSpec(object, { reporter: { id: 'other', cluster: 'other' } }),
    field: 'spec.reporter.id',
    attempt: ['create', 'delete'],
  },
];

describe('a mutating webhook', () => {
  let world: MultiReplicaHarness;
  let replica: ReturnType<MultiReplicaHarness['replica']>;

  beforeEach(() => {
    world = createMultiReplicaHarness();
    replica = world.replica('a');
  });
  afterEach(async () => {
    world.stop();
    await world.settle();
  });

  /** Returns the writes since the last time. */
  const writes = (): string[] =>
    world.tunnelApi.calls
      .splice(0)
      .map(({ verb }) => verb)
      .filter((verb) => verb !== 'read');
  const repeated = (verbs: readonly string[]): string[] => TUNNELS.flatMap(() => verbs).toSorted();
  const synced = (): string => world.condition(RESPONDER, 'Synced');
  const message = (): string =>
    world.reporterApi.stored
      .get(names.reporterObjectName(RESPONDER))
      ?.status?.conditions?.find(({ type }) => type === 'Synced')?.message ?? '';

  async function withAttemptAt(): Promise<string[]> {
    await world.advance(MINUTE_MS);
    return writes();
  }

  for (const { name, admit, field, attempt } of WEBHOOKS) {
    it(`that ${name} causes one attempt per object every 5 minutes, and Synced names the field`, async () => {
      world.tunnelApi.admit = admit;
      replica.connect(RESPONDER, fullPush(...TUNNELS));
      await world.advance(4.9 * MINUTE_MS);
      const initial = attempt[0] === 'create' ? attempt : ['create'];
      expect(writes().toSorted()).to.deep.equal(repeated(initial));
      expect(synced()).to.equal('False RewrittenByAdmission');
      expect(message()).to.contain(`50 ReverseTunnel objects`).and.to.contain(`: ${field}: `);
      expect(world.events).to.include('a rewritten responder-0');
      expect((await withAttemptAt()).toSorted()).to.deep.equal(repeated(attempt));
      await world.advance(3.9 * MINUTE_MS);
      expect(writes()).to.deep.equal([]);
      expect((await withAttemptAt()).toSorted()).to.deep.equal(repeated(attempt));
      expect(world.events.filter((event) => event.includes('rewritten'))).to.have.length(1);
    });

    it(`that ${name} is forgotten with the attempt after its removal`, async () => {
      world.tunnelApi.admit = admit;
      replica.connect(RESPONDER, fullPush(...TUNNELS));
      await world.advance(MINUTE_MS);
      world.tunnelApi.admit = (object) => object;
      await world.advance(5 * MINUTE_MS);
      expect(synced()).to.equal('True UpToDate');
      writes();
      await world.advance(20 * MINUTE_MS);
      expect(writes()).to.deep.equal([]);
      expect(world.tunnelNames(RESPONDER)).to.deep.equal(TUNNELS.map((each) => each.name).toSorted());
    });
  }

  const harmless: Record<string, Webhook> = {
    'adds a label': (object) => withLabel(object, 'example.com/team', 'a'),
    'adds an annotation': (object) => ({
      ...object,
      metadata: { ...object.metadata, annotations: { 'example.com/seen': 'yes' } },
    }),
    'changes the status of a create, which the API server drops': (object, verb) =>
      verb === 'create' ? { ...object, status: { state: 'Unknown', conditions: [] } } : object,
  };
  for (const [name, admit] of Object.entries(harmless)) {
    it(`that ${name} is not a difference`, async () => {
      world.tunnelApi.admit = admit;
      replica.connect(RESPONDER, fullPush(...TUNNELS));
      await world.advance(20 * MINUTE_MS);
      expect(writes()).to.deep.equal(repeated(['create']));
      expect(synced()).to.equal('True UpToDate');
    });
  }

  it('that rewrites only updates is seen with the first update', async () => {
    world.tunnelApi.admit = (object, verb) =>
      verb === 'patch' ? withSpec(object, { createdAt: '2020-01-01T00:00:00Z' }) : object;
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(10 * MINUTE_MS);
    expect(writes()).to.deep.equal(repeated(['create']));
    expect(synced()).to.equal('True UpToDate');
    replica.report(RESPONDER, delta([{ ...FIRST, createdAt: '2026-11-23T07:00:00Z' }], [FIRST.name]));
    await world.advance(4 * MINUTE_MS);
    expect(writes()).to.deep.equal(['patch']);
    expect(synced()).to.equal('False RewrittenByAdmission');
    expect(message()).to.contain('1 ReverseTunnel object,');
  });

  it('that rewrites only updates leaves an edited label alone for 5 minutes', async () => {
    world.tunnelApi.admit = (object, verb) =>
      verb === 'patch' ? withLabel(object, 'reverse-tunnel.io/tenant', 'edited') : object;
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(MINUTE_MS);
    writes();
    world.tunnelApi.editManually(names.tunnelObjectName(RESPONDER, FIRST), {
      labels: { 'reverse-tunnel.io/tenant': 'edited' },
    });
    await world.advance(4 * MINUTE_MS);
    expect(writes()).to.deep.equal(['patch']);
    expect(synced()).to.equal('False RewrittenByAdmission');
  });

  it('that rewrites the status is retried every 5 minutes, and the objects stay as they are', async () => {
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(MINUTE_MS);
    replica.disconnect(RESPONDER);
    await world.advance(MINUTE_MS);
    writes();
    world.tunnelApi.admit = (object, verb) =>
      verb === 'patchStatus'
        ? { ...object, status: { state: 'Unknown', conditions: object.status?.conditions ?? [] } }
        : object;
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(4.8 * MINUTE_MS);
    expect(writes()).to.deep.equal(repeated(['patchStatus']));
    expect(synced()).to.equal('False RewrittenByAdmission');
    expect(message()).to.contain('status.state: "Connected" was written, "Unknown" was stored');
    await world.advance(MINUTE_MS);
    expect(writes()).to.deep.equal(repeated(['patchStatus']));
  });

  it('does not delay the changes that a reporter reports', async () => {
    world.tunnelApi.admit = (object) => withLabel(object, 'reverse-tunnel.io/tenant', 'other');
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(MINUTE_MS);
    writes();
    const added = tunnel('added');
    replica.report(RESPONDER, delta([added], ['node-1']));
    await world.advance(1000);
    expect(writes().toSorted()).to.deep.equal(['create', 'delete']);
    replica.report(RESPONDER, delta([{ ...FIRST, createdAt: '2026-11-23T07:00:00Z' }], [FIRST.name]));
    await world.advance(1000);
    expect(writes()).to.deep.equal(['patch']);
    expect(createdAt(FIRST)).to.equal('2026-11-23T07:00:00Z');
  });

  it('does not keep the objects of a disconnected reporter from becoming Unknown, Connected and expired', async () => {
    world.tunnelApi.admit = (object) => withLabel(object, 'reverse-tunnel.io/tenant', 'other');
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(1000);
    replica.disconnect(RESPONDER);
    await world.advance(MINUTE_MS);
    expect(states()).to.deep.equal(['Unknown']);
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(1000);
    expect(states()).to.deep.equal(['Connected']);
    replica.disconnect(RESPONDER);
    await world.advance(6 * MINUTE_MS);
    expect(world.tunnelNames(RESPONDER)).to.deep.equal([]);
  });

  it('is forgotten immediately when the object is seen as desired', async () => {
    world.tunnelApi.admit = (object) => withLabel(object, 'reverse-tunnel.io/tenant', 'other');
    replica.connect(RESPONDER, fullPush(FIRST));
    await world.advance(MINUTE_MS);
    expect(synced()).to.equal('False RewrittenByAdmission');
    writes();
    world.tunnelApi.editManually(names.tunnelObjectName(RESPONDER, FIRST), {
      labels: { 'reverse-tunnel.io/tenant': 'acme' },
    });
    await world.advance(1000);
    expect(synced()).to.equal('True UpToDate');
    expect(writes()).to.deep.equal([]);
  });

  it('is forgotten immediately when the rewritten tunnel is removed', async () => {
    world.tunnelApi.admit = (object) => withSpec(object, { tunnelName: 'renamed' });
    replica.connect(RESPONDER, fullPush(FIRST));
    await world.advance(MINUTE_MS);
    expect(synced()).to.equal('False RewrittenByAdmission');
    replica.report(RESPONDER, fullPush());
    await world.advance(1000);
    expect(synced()).to.equal('True UpToDate');
  });

  it('limits the corrections after a restart to 10 per second once the first ones were rewritten', async () => {
    world.tunnelApi.admit = (object) => withLabel(object, 'reverse-tunnel.io/tenant', 'other');
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(MINUTE_MS);
    replica.crash();
    const restarted = world.replica('b');
    writes();
    restarted.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(1000);
    expect(writes().length, 'write concurrency 8, then 10 per second').to.be.within(9, 20);
    await world.advance(10_000);
    expect(writes().length).to.be.at.most(41);
    expect(world.tunnelApi.stored.size).to.equal(50);
  });

  it('limits no corrections once one of them was stored as sent', async () => {
    world.tunnelApi.admit = (object) => withLabel(object, 'reverse-tunnel.io/tenant', 'other');
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(MINUTE_MS);
    replica.crash();
    const restarted = world.replica('b');
    let corrections = 0;
    world.tunnelApi.admit = (object, verb) => {
      if (verb === 'patch') corrections += 1;
      return corrections <= 8 ? withLabel(object, 'reverse-tunnel.io/tenant', 'other') : object;
    };
    writes();
    restarted.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(1000);
    expect(writes()).to.deep.equal(repeated(['patch']));
  });

  it('is not taken for a backlog', async () => {
    world.tunnelApi.admit = (object) => withLabel(object, 'reverse-tunnel.io/tenant', 'other');
    replica.connect(RESPONDER, fullPush(...TUNNELS));
    await world.advance(MINUTE_MS);
    expect(replica.registry.entry(KEY)?.pendingWrites.backlogSinceMs).to.equal(undefined);
  });

  function createdAt(of: Tunnel): string | undefined {
    return world.tunnelApi.stored.get(names.tunnelObjectName(RESPONDER, of))?.spec.createdAt;
  }

  function states(): (string | undefined)[] {
    return [...new Set([...world.tunnelApi.stored.values()].map(({ status }) => status?.state))];
  }
});

describe('a mutating webhook for reporter objects', () => {
  let world: MultiReplicaHarness;
  let replica: ReturnType<MultiReplicaHarness['replica']>;

  beforeEach(() => {
    world = createMultiReplicaHarness();
    replica = world.replica('a');
  });
  afterEach(async () => {
    world.stop();
    await world.settle();
  });

  const writes = (): string[] =>
    world.reporterApi.calls.splice(0).flatMap((call) => {
      const [verb = ''] = call.split(' ');
      return verb === 'read' ? [] : [verb];
    });
  const withStatus = (object: ReporterObject, status: object): ReporterObject => ({
    ...object,
    status: { ...object.status, ...status },
  });

  const table: Record<string, (object: ReporterObject, verb: string) => ReporterObject> = {
    'rewrites the counts': (object) =>
      withStatus(object, { tunnels: { reported: 7, applied: 7, rejected: 0 } }),
    'removes the interval': (object) => withStatus(object, { reportIntervalSeconds: undefined }),
    'adds a condition': (object) =>
      withStatus(object, {
        conditions: [
          ...(object.status?.conditions ?? []).slice(0, 3),
          {
            type: 'Audited',
            status: 'True',
            reason: 'Audited',
            message: '',
            lastTransitionTime: '2026-11-23T05:00:00Z',
          },
        ],
      }),
    'rewrites the reason of a condition': (object) =>
      withStatus(object, {
        conditions: object.status?.conditions?.map((condition) => ({ ...condition, reason: 'Checked' })),
      }),
  };
  for (const [name, admit] of Object.entries(table)) {
    it(`that ${name} causes one status write every 5 minutes`, async () => {
      world.reporterApi.admit = (object, verb) => (verb === 'patchStatus' ? admit(object, verb) : object);
      replica.connect(RESPONDER, fullPush(FIRST));
      await world.advance(4.5 * MINUTE_MS);
      expect(writes().length, 'with changes of conditions').to.be.within(2, 5);
      await world.advance(9 * MINUTE_MS);
      expect(writes()).to.deep.equal(['patchStatus', 'patchStatus']);
      expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-0']);
      expect(world.events.filter((event) => event.includes('rewritten'))).to.have.length(1);
      world.reporterApi.admit = (object) => object;
      await world.advance(6 * MINUTE_MS);
      expect(world.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
      writes();
      await world.advance(20 * MINUTE_MS);
      expect(writes()).to.deep.equal([]);
    });
  }

  it('that removes or rewrites the recent disconnects, as a CRD without them does, is not a difference', async () => {
    for (const recentDisconnects of [undefined, []]) {
      world.reporterApi.admit = (object) => withStatus(object, { recentDisconnects });
      replica.connect(RESPONDER, fullPush(FIRST));
      await world.advance(MINUTE_MS);
      replica.disconnect(RESPONDER);
      await world.advance(1000);
      replica.connect(RESPONDER, fullPush(FIRST));
      await world.advance(MINUTE_MS);
      expect(world.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
      expect(world.events.filter((event) => event.includes('rewritten'))).to.deep.equal([]);
      writes();
      await world.advance(20 * MINUTE_MS);
      expect(writes()).to.deep.equal([]);
    }
  });

  it('that rewrites the owner lets no object be written, and causes one claim every 5 minutes', async () => {
    world.reporterApi.admit = (object, verb) =>
      verb === 'patchStatus' ? withStatus(object, { owner: { replica: 'x', epoch: 1 } }) : object;
    replica.connect(RESPONDER, fullPush(FIRST));
    for (let minute = 0; minute < 20; minute += 1) {
      replica.report(RESPONDER, delta([]));
      await world.advance(MINUTE_MS);
    }
    expect(writes().length).to.be.within(2, 6);
    expect(world.tunnelNames(RESPONDER)).to.deep.equal([]);
  });

  it('that rewrites the ID causes one create and delete every 5 minutes', async () => {
    world.reporterApi.admit = (object, verb) =>
      verb === 'create' ? { ...object, spec: { ...object.spec, id: 'other' } } : object;
    replica.connect(RESPONDER, fullPush(FIRST));
    for (let minute = 0; minute < 12; minute += 1) {
      replica.report(RESPONDER, delta([]));
      await world.advance(MINUTE_MS);
    }
    expect(writes().length).to.be.within(2, 6);
    expect(world.reporterApi.stored.size).to.equal(0);
    world.reporterApi.admit = (object) => object;
    await world.advance(8 * MINUTE_MS);
    expect(world.tunnelNames(RESPONDER)).to.deep.equal(['node-0']);
  });

  it('that adds or removes labels and annotations is not a difference of the status', async () => {
    world.reporterApi.admit = (object) => ({
      ...object,
      metadata: { ...object.metadata, labels: {}, annotations: { 'example.com/seen': 'yes' } },
    });
    replica.connect(RESPONDER, fullPush(FIRST));
    await world.advance(MINUTE_MS);
    expect(world.condition(RESPONDER, 'Synced')).to.equal('True UpToDate');
  });
});
