import { expect } from 'chai';

import {
  isEntryUnknown,
  observedEntry,
  observeSlice,
  sliceManifest,
  slicePatch,
  sliceStatus,
  type ObservedSlice,
  type SliceEntryState,
  type SliceObject,
  type SliceObjectStatus,
} from '../../src/core/slice-object.ts';
import { closedStatus, Drift, reportedStatus, unknownStatus } from '../../src/core/tunnel-object.ts';
import { reporterKey, type Tunnel } from '../../src/core/tunnel.ts';
import { names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const NOW = '2026-11-23T05:00:00Z';
const DEFAULT_STATUS = {
  state: 'Connected',
  conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
};

/** Returns a slice as the API server stores it when it is created. */
function sliceOf(tunnels: readonly Tunnel[], ordinal = 0): SliceObject {
  const { name, labels, spec } = sliceManifest(names, RESPONDER, 'acme', ordinal, tunnels);
  return { metadata: { name, labels, uid: 'uid-1', resourceVersion: '100' }, spec, status: DEFAULT_STATUS };
}

function observe(object: SliceObject, known: readonly Tunnel[] = []): ObservedSlice {
  return observeSlice(names, object, (name) => known.find((candidate) => candidate.name === name));
}

function unknownEntries(status: SliceObjectStatus | undefined, size = 3): string[] {
  const object = sliceOf(['a', 'b', 'c'].slice(0, size).map((name) => tunnel(name)));
  const { status: _, ...withoutStatus } = object;
  const slice = observe(status === undefined ? withoutStatus : { ...object, status });
  return [...slice.entries.keys()].filter((name) => isEntryUnknown(slice, name));
}

describe('sliceManifest', () => {
  it('contains what was reported, the number of tunnels, and the labels of reporter and tenant', () => {
    const tunnels = [
      tunnel('acme:node-1', { clusterID: 'acme:eu-1' }),
      tunnel('node-2', { createdAt: undefined }),
    ];
    expect(sliceManifest(names, RESPONDER, 'acme', 3, tunnels)).to.deep.equal({
      name: names.sliceObjectName(RESPONDER, 'acme', 3),
      labels: {
        'reverse-tunnel.io/tenant': 'acme',
        'reverse-tunnel.io/reporter': 'responder-0',
        'app.kubernetes.io/managed-by': 'reverse-tunnel-operator',
      },
      spec: {
        reporter: { id: 'responder-0', cluster: 'edge' },
        tenantID: 'acme',
        tunnelCount: 2,
        tunnels: [
          {
            name: 'acme:node-1',
            clusterID: 'acme:eu-1',
            nodeID: 'acme:node-1',
            createdAt: '2026-11-23T05:00:00.123456Z',
          },
          { name: 'node-2', clusterID: 'eu-1', nodeID: 'node-2' },
        ],
      },
    });
  });

  it('has the same mutable parts as the patch', () => {
    const { labels, spec } = sliceManifest(names, RESPONDER, 'acme', 0, [tunnel('a')]);
    const { tunnelCount, tunnels } = spec;
    expect(slicePatch(names, RESPONDER, 'acme', [tunnel('a')])).to.deep.equal({
      labels,
      tunnelCount,
      tunnels,
    });
  });
});

describe('observeSlice', () => {
  it('returns the tunnels of a slice as they were written', () => {
    const tunnels = [
      tunnel('a'),
      tunnel('__proto__', { createdAt: undefined }),
      tunnel('b', { nodeID: 'x' }),
    ];
    const slice = observe(sliceOf(tunnels, 12));
    expect([...slice.entries.values()]).to.deep.equal(tunnels);
    expect(slice).to.deep.include({
      name: names.sliceObjectName(RESPONDER, 'acme', 12),
      uid: 'uid-1',
      resourceVersion: '100',
      key: reporterKey(RESPONDER),
      tenantID: 'acme',
      ordinal: 12,
      isUnknown: false,
      drift: 0,
    });
  });

  it('shares the memory of a known tunnel that is equal, and of no other', () => {
    const same = tunnel('a');
    const other = tunnel('b', { nodeID: 'other' });
    const slice = observe(sliceOf([tunnel('a'), tunnel('b')]), [same, other]);
    expect(slice.entries.get('a')).to.equal(same);
    expect(slice.entries.get('b')).to.deep.equal(tunnel('b'));
  });

  it('uses the manifest that was sent only for what the response has in common with it', () => {
    const sent = sliceManifest(names, RESPONDER, 'acme', 0, [tunnel('a')]);
    const object = sliceOf([tunnel('a')]);
    const { spec, metadata } = object;
    const shared = (): undefined => undefined;
    expect(observeSlice(names, object, shared, sent)).to.deep.equal(observe(object));
    const rewritten = { ...object, spec: { ...spec, tenantID: 'beta' } };
    expect(observeSlice(names, rewritten, shared, sent).drift & Drift.name).to.equal(Drift.name);
    const unlabelled = { ...object, metadata: { ...metadata, labels: {} } };
    expect(observeSlice(names, unlabelled, shared, sent).drift).to.equal(Drift.labels);
  });
});

describe('the drift of a slice', () => {
  const created = sliceOf([tunnel('a'), tunnel('b')]);
  const { metadata, spec } = created;
  const withName = (name: string): SliceObject => ({ ...created, metadata: { ...metadata, name } });
  const withStatus = (status: SliceObjectStatus): SliceObject => ({ ...created, status });
  const exceptions = (...tunnels: SliceEntryState[]): SliceObject =>
    withStatus({ ...DEFAULT_STATUS, tunnels });
  const CASES: readonly [title: string, object: SliceObject, drift: number][] = [
    ['0 for a new slice', created, 0],
    ['0 without entries', sliceOf([]), 0],
    ['0 for a status that was written', withStatus(reportedStatus(NOW)), 0],
    ['0 for an Unknown status that was written', withStatus(unknownStatus(NOW)), 0],
    ['0 with an entry that is Unknown', exceptions({ name: 'b', state: 'Unknown' }), 0],
    [
      'status with an entry in the state of the slice',
      exceptions({ name: 'b', state: 'Connected' }),
      Drift.status,
    ],
    ['status with a state that is not known', exceptions({ name: 'b', state: 'Foo' }), Drift.status],
    [
      'status with the state of a missing entry',
      exceptions({ name: 'gone', state: 'Unknown' }),
      Drift.status,
    ],
    [
      'status if an Unknown slice has exceptions',
      withStatus({ ...unknownStatus(NOW), tunnels: [{ name: 'a', state: 'Connected' }] }),
      Drift.status,
    ],
    ['status with another state', withStatus({ ...DEFAULT_STATUS, state: 'Foo' }), Drift.status],
    ['status without conditions', withStatus({ state: 'Connected' }), Drift.status],
    ['labels without labels', { ...created, metadata: { ...metadata, labels: {} } }, Drift.labels],
    ['labels with a wrong count', { ...created, spec: { ...spec, tunnelCount: 7 } }, Drift.labels],
    ['name with another name', withName('mine'), Drift.name],
    ['name with an ordinal and another name', withName('mine-0'), Drift.name],
    ['name with a leading zero', withName(metadata.name.replace(/-0$/, '-00')), Drift.name],
    [
      'status and closed for a Closed status that was written',
      withStatus(closedStatus(NOW)),
      Drift.status | Drift.closed,
    ],
    [
      'terminating if the slice is being deleted',
      { ...created, metadata: { ...metadata, deletionTimestamp: NOW } },
      Drift.terminating,
    ],
  ];
  for (const [title, object, drift] of CASES)
    it(`is ${title}`, () => {
      expect(observe(object).drift).to.equal(drift);
    });
});

describe('the states of the entries of a slice', () => {
  const CASES: readonly [title: string, status: SliceObjectStatus, unknown: string[]][] = [
    ['none with the default', DEFAULT_STATUS, []],
    ['all in an Unknown slice', unknownStatus(NOW), ['a', 'b', 'c']],
    [
      'exceptions in a Connected slice',
      { ...DEFAULT_STATUS, tunnels: [{ name: 'b', state: 'Unknown' }] },
      ['b'],
    ],
    [
      'all but the exceptions in an Unknown slice',
      { ...unknownStatus(NOW), tunnels: [{ name: 'b', state: 'Connected' }] },
      ['a', 'c'],
    ],
  ];
  for (const [title, status, unknown] of CASES)
    it(`are Unknown for ${title}`, () => {
      expect(unknownEntries(status)).to.deep.equal(unknown);
    });

  it('are those that were written', () => {
    for (const unknown of [[], ['b'], ['a', 'c'], ['a', 'b', 'c']]) {
      const { tunnels, ...status } = sliceStatus(new Set(unknown), 3, NOW);
      expect(unknownEntries({ ...status, ...(tunnels === null ? {} : { tunnels }) })).to.deep.equal(unknown);
    }
    expect(sliceStatus(new Set(), 0, NOW).state).to.equal('Connected');
  });

  it('are shown by the entry in the form of an object', () => {
    const status = { ...DEFAULT_STATUS, tunnels: [{ name: 'b', state: 'Unknown' }] };
    const slice = observe({ ...sliceOf([tunnel('a'), tunnel('b')]), status });
    const { name, uid, resourceVersion } = slice;
    expect(observedEntry(slice, 'a')).to.deep.equal({
      name,
      uid,
      resourceVersion,
      tunnel: tunnel('a'),
      drift: 0,
    });
    expect(observedEntry(slice, 'b')?.drift).to.equal(Drift.status | Drift.unknown);
    expect(observedEntry(slice, 'c')).to.equal(undefined);
  });
});
