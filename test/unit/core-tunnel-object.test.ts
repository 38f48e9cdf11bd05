import { expect } from 'chai';

import {
  Drift,
  observeTunnel,
  reportedStatus,
  manifestFor,
  tunnelKeyOf,
  type TunnelObject,
} from '../../src/core/tunnel-object.ts';
import { reporterKey, type Tunnel } from '../../src/core/tunnel.ts';
import { names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

/** A row as the API server shows it right after this project made it. */
function rowOf(of: Tunnel, reporter = RESPONDER): TunnelObject {
  const { name, labels, spec } = manifestFor(names, reporter, of);
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

describe('the row of a tunnel', () => {
  it('says what was reported, and carries labels without the tenant scope', () => {
    const of: Tunnel = {
      name: 'acme:node-17',
      tenantID: 'acme',
      clusterID: 'acme:eu-1',
      nodeID: 'acme:node-17',
      createdAt: '2026-11-23T05:00:00.123456789Z',
    };
    expect(manifestFor(names, { cluster: 'edge', id: 'responder-0' }, of)).to.deep.equal({
      name: names.tunnelObjectName(RESPONDER, of),
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

  it('leaves createdAt out when there is none, and writes an empty cluster', () => {
    const { spec } = manifestFor(names, { cluster: '', id: 'r' }, tunnel('node-1', { createdAt: undefined }));
    expect(spec).not.to.have.property('createdAt');
    expect(spec.reporter).to.deep.equal({ id: 'r', cluster: '' });
  });

  it('is found again by its spec, and read back as the same tunnel', () => {
    for (const reported of [tunnel('node-1'), tunnel('a:b', { createdAt: undefined }), tunnel('__proto__')]) {
      const object = rowOf(reported);
      const row = observeTunnel(names, object);
      expect(tunnelKeyOf(object)).to.deep.equal({
        reporter: RESPONDER,
        key: reporterKey(RESPONDER),
        tunnelName: reported.name,
      });
      expect(row).to.deep.equal({
        name: names.tunnelObjectName(RESPONDER, reported),
        uid: 'uid-1',
        resourceVersion: '100',
        tunnel: reported,
        drift: 0,
      });
    }
  });
});

describe('drift: how a row differs from what its own spec derives', () => {
  const made = rowOf(tunnel('node-1'));
  const { metadata, spec } = made;
  const labelled = (labels: Record<string, string>): TunnelObject => ({
    ...made,
    metadata: { ...metadata, labels: { ...metadata.labels, ...labels } },
  });

  it('is none right after the row was made', () => {
    expect(drift(made)).to.equal(0);
  });

  it('is none with labels of others, and after the operator wrote the status', () => {
    expect(drift(labelled({ team: 'network' }))).to.equal(0);
    expect(drift({ ...made, status: reportedStatus('2026-11-23T05:00:00Z') })).to.equal(0);
  });

  it('is in the labels when one of ours is missing or says something else', () => {
    const labels = Object.keys(metadata.labels ?? {});
    expect(labels).to.have.length(5);
    for (const label of labels) {
      const { [label]: _, ...others } = metadata.labels ?? {};
      expect(drift({ ...made, metadata: { ...metadata, labels: others } }), label).to.equal(Drift.labels);
      expect(drift(labelled({ [label]: 'else' })), label).to.equal(Drift.labels);
    }
    const { labels: _, ...unlabelled } = metadata;
    expect(drift({ ...made, metadata: unlabelled })).to.equal(Drift.labels);
  });

  it('is in the name when somebody chose another one', () => {
    expect(drift({ ...made, metadata: { ...metadata, name: 'mine' } })).to.equal(Drift.name);
  });

  const ready = { type: 'Ready', status: 'True', reason: 'Reported' };
  const statuses: [situation: string, status: TunnelObject['status']][] = [
    ['is missing', undefined],
    ['is empty', {}],
    ['has no conditions', { state: 'Connected', conditions: [] }],
    ['has another state', { state: 'Unknown', conditions: [ready] }],
    ['has no state', { conditions: [ready] }],
    ['is not Ready', { state: 'Connected', conditions: [{ ...ready, status: 'Unknown' }] }],
    ['is Ready for another reason', { state: 'Connected', conditions: [{ ...ready, reason: 'Mine' }] }],
    ['has one more condition', { state: 'Connected', conditions: [ready, { ...ready, type: 'Stalled' }] }],
    ['has another condition', { state: 'Connected', conditions: [{ ...ready, type: 'Stalled' }] }],
  ];
  for (const [situation, status] of statuses) {
    it(`is in the status when it ${situation}`, () => {
      const { status: _, ...without } = made;
      expect(drift(status === undefined ? without : { ...made, status })).to.equal(Drift.status);
    });
  }

  it('is that the row is being deleted, and more than one at once', () => {
    const terminating = { ...metadata, deletionTimestamp: '2026-11-23T05:00:00Z' };
    expect(drift({ ...made, metadata: terminating })).to.equal(Drift.terminating);
    expect(drift({ metadata: { ...terminating, name: 'mine', labels: {} }, spec })).to.equal(
      Drift.terminating | Drift.name | Drift.labels | Drift.status,
    );
  });
});
