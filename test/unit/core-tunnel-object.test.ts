import { expect } from 'chai';

import {
  Drift,
  observeTunnel,
  reportedStatus,
  manifestFor,
  tunnelKeyOf,
  unknownStatus,
  type TunnelObject,
} from '../../src/core/tunnel-object.ts';
import { reporterKey, type Tunnel } from '../../src/core/tunnel.ts';
import { names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

/** Returns an object as the API server stores it when it is created. */
function objectOf(reported: Tunnel, reporter = RESPONDER): TunnelObject {
  const { name, labels, spec } = manifestFor(names, reporter, reported);
  return {
    metadata: { name, labels, uid: 'uid-1', resourceVersion: '100' },
    spec,
    status: {
      state: 'Connected',
      conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
    },
  };
}

function drift(object: TunnelObject): number {
  return observeTunnel(names, object).drift;
}

describe('manifestFor', () => {
  it('contains what was reported, and labels without the tenant prefix', () => {
    const reported: Tunnel = {
      name: 'acme:node-17',
      tenantID: 'acme',
      clusterID: 'acme:eu-1',
      nodeID: 'acme:node-17',
      createdAt: '2026-11-23T05:00:00.123456789Z',
    };
    expect(manifestFor(names, { cluster: 'edge', id: 'responder-0' }, reported)).to.deep.equal({
      name: names.tunnelObjectName(RESPONDER, reported),
      labels: {
        'reverse-tunnel.io/tenant': 'acme',
        'reverse-tunnel.io/cluster': 'eu-1',
        'reverse-tunnel.io/node': 'node-17',
        'reverse-tunnel.io/reporter': 'responder-0',
        'app.kubernetes.io/managed-by': 'reverse-tunnel-operator',
      },
      spec: {
        tunnelName: 'acme:node-17',
        tenantID: 'acme',
        clusterID: 'acme:eu-1',
        nodeID: 'acme:node-17',
        reporter: { id: 'responder-0', cluster: 'edge' },
        createdAt: '2026-11-23T05:00:00.123456789Z',
      },
    });
  });

  it('omits a missing createdAt and contains an empty cluster', () => {
    const { spec } = manifestFor(names, { cluster: '', id: 'r' }, tunnel('node-1', { createdAt: undefined }));
    expect(spec).not.to.have.property('createdAt');
    expect(spec.reporter).to.deep.equal({ id: 'r', cluster: '' });
  });

  it('is observed as the same tunnel, with its key derived from spec', () => {
    for (const reported of [tunnel('node-1'), tunnel('a:b', { createdAt: undefined }), tunnel('__proto__')]) {
      const object = objectOf(reported);
      const observed = observeTunnel(names, object);
      expect(tunnelKeyOf(object)).to.deep.equal({
        reporter: RESPONDER,
        key: reporterKey(RESPONDER),
        tunnelName: reported.name,
      });
      expect(observed).to.deep.equal({
        name: names.tunnelObjectName(RESPONDER, reported),
        uid: 'uid-1',
        resourceVersion: '100',
        tunnel: reported,
        drift: 0,
      });
    }
  });
});

describe('drift', () => {
  const created = objectOf(tunnel('node-1'));
  const { metadata, spec } = created;
  const labelled = (labels: Record<string, string>): TunnelObject => ({
    ...created,
    metadata: { ...metadata, labels: { ...metadata.labels, ...labels } },
  });

  it('is 0 for a new object', () => {
    expect(drift(created)).to.equal(0);
  });

  it('is 0 with additional labels and after the operator has written the status', () => {
    expect(drift(labelled({ team: 'network' }))).to.equal(0);
    expect(drift({ ...created, status: reportedStatus('2026-11-23T05:00:00Z') })).to.equal(0);
  });

  it('is labels if a label is missing or different', () => {
    const labels = Object.keys(metadata.labels ?? {});
    expect(labels).to.have.length(5);
    for (const label of labels) {
      const { [label]: _, ...others } = metadata.labels ?? {};
      expect(drift({ ...created, metadata: { ...metadata, labels: others } }), label).to.equal(Drift.labels);
      expect(drift(labelled({ [label]: 'other' })), label).to.equal(Drift.labels);
    }
    const { labels: _, ...unlabelled } = metadata;
    expect(drift({ ...created, metadata: unlabelled })).to.equal(Drift.labels);
  });

  it('is name if the object has another name', () => {
    expect(drift({ ...created, metadata: { ...metadata, name: 'mine' } })).to.equal(Drift.name);
  });

  const ready = { type: 'Ready', status: 'True', reason: 'Reported' };
  const unknown = { type: 'Ready', status: 'Unknown', reason: 'ReporterLost' };
  const unknownDrift = Drift.status | Drift.unknown;
  const statuses: [situation: string, status: TunnelObject['status'], drift?: number][] = [
    ['is missing', undefined],
    ['is empty', {}],
    ['has no conditions', { state: 'Connected', conditions: [] }],
    ['has another state', { state: 'Unknown', conditions: [ready] }],
    ['has no state', { conditions: [ready] }],
    ['is not Ready', { state: 'Connected', conditions: [{ ...ready, status: 'Unknown' }] }],
    ['is Ready for another reason', { state: 'Connected', conditions: [{ ...ready, reason: 'Mine' }] }],
    ['has one more condition', { state: 'Connected', conditions: [ready, { ...ready, type: 'Stalled' }] }],
    ['has another condition', { state: 'Connected', conditions: [{ ...ready, type: 'Stalled' }] }],
    ['is Unknown as the operator writes it', unknownStatus('2026-11-23T05:00:00Z'), unknownDrift],
    ['is Unknown without a time', { state: 'Unknown', conditions: [unknown] }, unknownDrift],
    ['is Unknown for another reason', { state: 'Unknown', conditions: [{ ...unknown, reason: 'Mine' }] }],
    ['is Unknown but Ready', { state: 'Unknown', conditions: [{ ...unknown, status: 'True' }] }],
    ['is Connected but Unknown by its condition', { state: 'Connected', conditions: [unknown] }],
  ];
  for (const [situation, status, expected = Drift.status] of statuses) {
    it(`is ${expected === Drift.status ? 'status' : 'status and unknown'} if the status ${situation}`, () => {
      const { status: _, ...without } = created;
      expect(drift(status === undefined ? without : { ...created, status })).to.equal(expected);
    });
  }

  it('is terminating while the object is being deleted, and can combine several bits', () => {
    const terminating = { ...metadata, deletionTimestamp: '2026-11-23T05:00:00Z' };
    expect(drift({ ...created, metadata: terminating })).to.equal(Drift.terminating);
    expect(drift({ metadata: { ...terminating, name: 'mine', labels: {} }, spec })).to.equal(
      Drift.terminating | Drift.name | Drift.labels | Drift.status,
    );
  });
});
