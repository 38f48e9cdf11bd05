import { expect } from 'chai';
import type { ExpectationObject } from '../../src/core/expectation-object.ts';
import { replicasFromLeases, type LeaseInfo } from '../../src/cli/replicas.ts';
import { renderSummary } from '../../src/status/render.ts';
import {
  summarizeSlice,
  summarizeTunnel,
  summarize,
  type FleetSnapshot,
  type TunnelSummary,
} from '../../src/status/summary.ts';
import { names } from '../support/sample-tunnels.ts';
import { conditionOf, NOW_MS, reporterObject } from '../support/reporter-objects.ts';

const LEADER = 'leader';

function lease(
  holderIdentity: string,
  agoMs: number,
  name: string = names.leaseName(holderIdentity),
): LeaseInfo {
  return {
    metadata: { name },
    spec: { holderIdentity, renewTime: new Date(NOW_MS - agoMs).toISOString() },
  };
}

function tunnel(tenantID: string, nodeID: string, reporter: string, state = 'Connected'): TunnelSummary {
  return summarizeTunnel({
    spec: {
      tunnelName: nodeID,
      tenantID,
      clusterID: 'eu-1',
      nodeID,
      reporter: { id: reporter, cluster: 'edge' },
    },
    status: { state },
  });
}

const FLEET: FleetSnapshot = {
  nowMs: NOW_MS,
  objects: [
    tunnel('acme', 'node-1', 'responder-0'),
    tunnel('acme', 'node-1', 'responder-1', 'Unknown'),
    tunnel('acme', 'node-2', 'responder-0'),
    tunnel('zeta', 'node-1', 'responder-0'),
  ],
  reporters: [
    reporterObject('responder-1', {
      owner: 'replica-b',
      conditions: [
        conditionOf('Connected', 'False', 'StreamEnded', 90_000),
        conditionOf('Synced', 'Unknown', 'NotConnected', 90_000),
      ],
    }),
    reporterObject('responder-0'),
  ],
  replicas: replicasFromLeases(
    [
      lease('replica-a', 2_000),
      lease('replica-b', 60_000),
      lease('replica-a', 1_000, LEADER),
      lease('another-program', 1_000, 'c'),
    ],
    LEADER,
  ),
};

describe('summary of the status command', () => {
  const summary = summarize(FLEET);

  it('counts totals', () => {
    expect(summary.totals).to.deep.equal({
      ...{ objects: 4, entries: 0, inBothForms: 0 },
      ...{ tunnels: 4, unknown: 1, tenants: 2, reporters: 2, connected: 1, synced: 1, pending: 0 },
      ...{ replicas: 2, expectations: 0, unsatisfied: 0, alive: 1 },
    });
  });

  it('counts a node with tunnels to two reporters once, and sorts tenants by number of tunnels', () => {
    expect(summary.tenants).to.deep.equal([
      { tenant: 'acme', tunnels: 3, unknown: 1, nodes: 2, reporters: 2 },
      { tenant: 'zeta', tunnels: 1, unknown: 0, nodes: 1, reporters: 1 },
    ]);
  });

  it('counts tunnels in either form once, and names those in both', () => {
    const entries = ['node-1', 'node-5', 'node-6'].map((name) => tunnel('acme', name, 'responder-0'));
    // While slices are merged, a tunnel can be in two of them.
    const slices = [entries, entries.slice(2), [tunnel('acme', 'node-7', 'responder-1', 'Unknown')]];
    const both = summarize({ ...FLEET, slices });
    expect(both.totals).to.include({ tunnels: 7, unknown: 2, objects: 4, entries: 4, inBothForms: 1 });
    expect(both.inBothForms).to.deep.equal([
      { reporter: { cluster: 'edge', id: 'responder-0' }, tunnel: 'node-1' },
    ]);
    expect(both.tenants[0]).to.deep.equal({ tenant: 'acme', tunnels: 6, unknown: 2, nodes: 5, reporters: 2 });
    expect(both.reporters.map(({ id, objects, entries: count }) => [id, objects, count])).to.deep.equal([
      ['responder-0', 3, 3],
      ['responder-1', 1, 1],
    ]);
    const lines = renderSummary(both, { namespace: 'n', server: 's', nowMs: NOW_MS, top: 20 }).split('\n');
    expect(lines[1]).to.equal('4 in objects, 4 in slices, 1 in both forms: node-1 of edge/responder-0');
    expect(lines.find((line) => line.startsWith('REPORTER'))).to.match(/ OBJECTS +IN SLICES +PENDING/);
  });

  it('names a few of the tunnels in both forms', () => {
    const objects = Array.from({ length: 150 }, (_, index) => tunnel('acme', `node-${index}`, 'responder-0'));
    const both = summarize({ ...FLEET, objects, slices: [objects] });
    expect(both.totals).to.include({ tunnels: 150, inBothForms: 150 });
    expect(both.inBothForms).to.have.length(100);
    expect(renderSummary(both, { namespace: 'n', server: 's', nowMs: NOW_MS, top: 20 })).to.include(
      '150 in both forms: node-0 of edge/responder-0, node-1 of edge/responder-0, node-2 of edge/responder-0 and 147 more\n',
    );
  });

  it('summarizes the entries of a slice with the state of each', () => {
    const entry = (name: string) => ({ name, clusterID: 'eu-1', nodeID: name });
    const entries = summarizeSlice({
      metadata: { name: 's', uid: 'u', resourceVersion: '1' },
      spec: { reporter: { cluster: 'edge', id: 'r' }, tenantID: 'acme', tunnels: [entry('a'), entry('b')] },
      status: { state: 'Connected', tunnels: [{ name: 'b', state: 'Unknown' }] },
    });
    expect(entries).to.deep.equal([tunnel('acme', 'a', 'r'), tunnel('acme', 'b', 'r', 'Unknown')]);
  });

  it('reads replicas from Leases, counts what they own, and ignores the Leases of other programs', () => {
    expect(
      summary.replicas.map(({ replica, alive, leader, reporters }) => ({
        replica,
        alive,
        leader,
        reporters,
      })),
    ).to.deep.equal([
      { replica: 'replica-a', alive: true, leader: true, reporters: 1 },
      { replica: 'replica-b', alive: false, leader: false, reporters: 1 },
    ]);
  });

  it('shows since when a reporter has been disconnected, without pending tunnels', () => {
    const [healthy, disconnected] = summary.reporters;
    expect(healthy).to.include({ id: 'responder-0', objects: 3, note: '', pending: 0 });
    expect(disconnected).to.include({
      id: 'responder-1',
      objects: 1,
      note: 'StreamEnded',
      noteSinceMs: NOW_MS - 90_000,
    });
  });

  it('counts reported tunnels that are neither applied nor rejected as pending', () => {
    const { metadata, spec, status } = reporterObject('r');
    const tunnels = { reported: 10, applied: 6, rejected: 1 };
    const reporters = [{ metadata, spec, status: { ...status, tunnels } }];
    expect(summarize({ ...FLEET, reporters }).totals.pending).to.equal(3);
  });

  it('shows an identity conflict before any other condition', () => {
    const conditions = [conditionOf('IdentityConflict', 'True', 'DuplicateReporterID', 5_000)];
    const [reporter] = summarize({ ...FLEET, reporters: [reporterObject('r', { conditions })] }).reporters;
    expect(reporter?.note).to.equal('IdentityConflict');
  });

  it('shows held removals with their number and end', () => {
    const message =
      '60 ReverseTunnel objects that the last full push lacks are kept until 2026-11-23T05:00:30Z';
    const held = { ...conditionOf('Synced', 'False', 'RemovalsHeld', 5000), message };
    const conditions = [conditionOf('Connected', 'True', 'StreamOpen', 5000), held];
    const held60 = summarize({ ...FLEET, reporters: [reporterObject('r', { conditions })] });
    expect(held60.reporters[0]).to.include({ note: 'RemovalsHeld', details: message });
    const text = renderSummary(held60, {
      namespace: 'tunnels',
      server: 'https://api/',
      nowMs: NOW_MS,
      top: 20,
    });
    expect(text).to.contain(`RemovalsHeld 5s: ${message}\n`);
  });

  it('shows flapping tunnels of a reporter that is in sync', () => {
    const message = '1 tunnel has gone down more than 6 times within 10 minutes; worst: "node-1"';
    const conditions = [
      conditionOf('Connected', 'True', 'StreamOpen', 5000),
      conditionOf('Synced', 'True', 'UpToDate', 5000),
      { ...conditionOf('Flapping', 'True', 'TunnelsFlapping', 5000), message },
    ];
    const [reporter] = summarize({ ...FLEET, reporters: [reporterObject('r', { conditions })] }).reporters;
    expect(reporter).to.include({ synced: 'True', note: 'TunnelsFlapping', details: message });
  });

  it('shows no age for an unclaimed reporter, whose conditions have the default time of 1970', () => {
    const { metadata, spec } = reporterObject('r');
    const conditions = ['Connected', 'Synced', 'Ready'].map((type) =>
      conditionOf(type, 'Unknown', 'Pending', NOW_MS),
    );
    const [reporter] = summarize({
      ...FLEET,
      reporters: [{ metadata, spec, status: { conditions } }],
    }).reporters;
    expect(reporter).to.include({ connected: 'Unknown', note: 'Pending', noteSinceMs: undefined, owner: '' });
  });
});

/** An expectation in a state, as its status shows it. */
function expectation(
  name: string,
  [status, reason]: readonly [string, string],
  missingNodes: readonly string[] = [],
): ExpectationObject {
  return {
    metadata: { name, uid: name, resourceVersion: '1', generation: 1 },
    spec: { match: {} },
    status: {
      observedGeneration: 1,
      tunnels: 5,
      reporters: 2,
      unknown: 1,
      missing: missingNodes.length,
      missingNodes,
      since: new Date(NOW_MS - 300_000).toISOString(),
      conditions: [conditionOf('Ready', status, reason, 240_000)],
    },
  };
}

const EXPECTATIONS: readonly ExpectationObject[] = [
  expectation('a-satisfied', ['True', 'Satisfied']),
  expectation('b-unknown', ['Unknown', 'Unknown'], ['n']),
  expectation('c-invalid', ['False', 'Invalid']),
  expectation('d-paused', ['Unknown', 'Paused']),
  expectation('e-missing', ['False', 'Missing'], ['n-1', 'n-2', 'n-3', 'n-4', 'n-5']),
  { ...expectation('f-new', ['Unknown', 'Pending']), status: {} },
];

describe('expectations in the status command', () => {
  const summary = summarize({ ...FLEET, expectations: EXPECTATIONS });

  it('are sorted by urgency and counted', () => {
    expect(summary.expectations.map(({ name, state }) => `${name} ${state}`)).to.deep.equal([
      'e-missing unsatisfied',
      'c-invalid invalid',
      'b-unknown unknown',
      'f-new pending',
      'd-paused paused',
      'a-satisfied satisfied',
    ]);
    expect(summary.totals).to.include({ expectations: 6, unsatisfied: 2 });
  });

  it('come first in the text if they are not satisfied, with the missing nodes', () => {
    const text = renderSummary(summary, {
      namespace: 'tunnels',
      server: 'https://api/',
      nowMs: NOW_MS,
      top: 20,
    });
    expect(text).to.include('; 2 of 6 expectations unsatisfied\n');
    expect(text.split('\n\n')[1]).to.equal(
      `EXPECTATION   STATE         REASON    TUNNELS   REPORTERS   UNKNOWN   MISSING   SINCE    NODES
e-missing     unsatisfied   Missing   5         2           1         5         5m ago   n-1, n-2, n-3 and 2 more
c-invalid     invalid       Invalid   5         2           1         0         5m ago
b-unknown     unknown       Unknown   5         2           1         1         5m ago   n
f-new         pending       Pending   0         0           0         0`,
    );
  });

  it('are not shown while all of them are satisfied', () => {
    const satisfied = summarize({ ...FLEET, expectations: EXPECTATIONS.slice(0, 1) });
    const options = { namespace: 'tunnels', server: 'https://api/', nowMs: NOW_MS, top: 20 };
    const text = renderSummary(satisfied, options);
    expect(text).to.include('; 0 of 1 expectation unsatisfied\n').and.not.include('EXPECTATION');
  });
});

describe('text output of the status command', () => {
  const options = { namespace: 'tunnels', server: 'https://api/', nowMs: NOW_MS, top: 20 };

  it('shows totals in the first line, and unhealthy reporters before healthy ones', () => {
    const text = renderSummary(summarize(FLEET), options);
    expect(text).to
      .equal(`4 tunnels (1 Unknown) of 2 tenants; 1 of 2 reporters connected, 1 in sync, 0 pending; 1 of 2 replicas alive
namespace tunnels at https://api/

REPLICA     STATE           RENEWED   REPORTERS   TUNNELS
replica-a   alive, leader   2s ago    1           3
replica-b   expired         60s ago   1           3

REPORTER      CLUSTER   CONNECTED   SYNCED    REPORTED   OBJECTS   PENDING   OWNER       NOTE
responder-1   edge      False       Unknown   3          1         0         replica-b   StreamEnded 90s
responder-0   edge      True        True      3          3         0         replica-a

TENANT   TUNNELS   UNKNOWN   NODES   REPORTERS
acme     3         1         2       2
zeta     1         0         1       1
`);
  });

  it('cuts tables off and shows the number of hidden lines', () => {
    const text = renderSummary(summarize(FLEET), { ...options, top: 1 });
    expect(text).to.include('… and 1 more reporters (--top 0 shows all)');
    expect(text).not.to.include('zeta');
    expect(renderSummary(summarize(FLEET), { ...options, top: 0 })).to.include('zeta');
  });

  it('shows a line instead of an empty table', () => {
    const emptySummary = summarize({
      objects: [],
      reporters: [],
      replicas: { replicas: [], leader: '' },
      nowMs: NOW_MS,
    });
    const text = renderSummary(emptySummary, options);
    expect(text)
      .to.include('no operator replicas\n')
      .and.include('no reporters\n')
      .and.include('no tunnels\n');
  });
});
