import { expect } from 'chai';
import type { DoctorInputs } from '../../src/doctor/inputs.ts';
import { runChecks } from '../../src/doctor/run-checks.ts';
import { conditionOf, NOW_MS, reporterObject } from '../support/reporter-objects.ts';

const DAY_MS = 86_400_000;

/** A set-up in which nothing is wrong. */
const WELL: DoctorInputs = {
  nowMs: NOW_MS,
  namespace: 'tunnels',
  api: { value: { server: 'https://api/', version: 'v1.37.2', roundTripMs: 2 } },
  namespaceExists: true,
  crds: {
    value: [
      { plural: 'reversetunnels', required: true, installed: true, differences: [] },
      { plural: 'reversetunnelreporters', required: true, installed: true, differences: [] },
    ],
  },
  account: 'the account of this command',
  permissions: { value: [{ permission: 'list reversetunnels.reverse-tunnel.io', allowed: true }] },
  replicas: {
    value: { leader: 'replica-a', replicas: [{ replica: 'replica-a', renewedMs: NOW_MS, alive: true }] },
  },
  reporters: { value: [reporterObject('responder-0'), reporterObject('responder-1')] },
  tunnels: { value: { tunnels: 6, unknown: 0, orphaned: new Map() } },
  policies: undefined,
  certificates: [
    {
      source: '--tls-cert a.pem',
      subject: 'CN=rto',
      notBeforeMs: NOW_MS - DAY_MS,
      notAfterMs: NOW_MS + 90 * DAY_MS,
    },
  ],
  endpoints: [{ flag: '--http-address', address: '127.0.0.1:8080', failure: undefined, detail: 'ready' }],
};

const reporters = (...value: readonly ReturnType<typeof reporterObject>[]): Partial<DoctorInputs> => ({
  reporters: { value },
});

describe('doctor, judging', () => {
  it('a set-up in which nothing is wrong: each check is ok', () => {
    const found = runChecks(WELL);
    expect(found.map(({ check }) => check)).to.deep.equal([
      ...['api', 'crds', 'permissions', 'replicas', 'endpoints', 'certificates', 'reporters', 'objects'],
    ]);
    expect(new Set(found.map(({ status }) => status))).to.deep.equal(new Set(['ok']));
  });

  /** What is wrong, and the one line that it is to cost. */
  const cases: readonly (readonly [string, Partial<DoctorInputs>, string, RegExp])[] = [
    [
      'an old API server',
      { api: { value: { server: 'https://api/', version: 'v1.34.1', roundTripMs: 2 } } },
      'warn api',
      /v1\.34\.1: older than 1\.35/,
    ],
    [
      'a slow API server',
      { api: { value: { server: 'https://api/', version: 'v1.37.2', roundTripMs: 900.4 } } },
      'warn api',
      /took 900 ms/,
    ],
    [
      'a namespace that is not there',
      { namespaceExists: false },
      'fail namespace',
      /namespace tunnels not found/,
    ],
    [
      'a CRD that is not served',
      { crds: { value: [{ plural: 'reversetunnels', required: true, installed: false, differences: [] }] } },
      'fail crds',
      /reversetunnels\.reverse-tunnel\.io is not served/,
    ],
    [
      'an optional CRD that is not served',
      {
        crds: {
          value: [{ plural: 'reversetunnelpolicies', required: false, installed: false, differences: [] }],
        },
      },
      'warn crds',
      /reversetunnelpolicies/,
    ],
    [
      'another default of the status',
      {
        crds: {
          value: [
            {
              plural: 'reversetunnels',
              required: true,
              installed: true,
              differences: [
                { severity: 'schema', path: 'spec.nodeID.maxLength' },
                { severity: 'contract', path: 'status.default.state' },
              ],
            },
          ],
        },
      },
      'fail crds',
      /required fields: status\.default\.state$/,
    ],
    [
      'an older schema',
      {
        crds: {
          value: [
            {
              plural: 'reversetunnels',
              required: true,
              installed: true,
              differences: [{ severity: 'schema', path: 'spec.nodeID.maxLength' }],
            },
          ],
        },
      },
      'warn crds',
      /1 difference, such as spec\.nodeID\.maxLength$/,
    ],
    [
      'a right that is missing',
      {
        permissions: {
          value: [
            { permission: 'list leases.coordination.k8s.io', allowed: true },
            { permission: 'patch reversetunnels/status.reverse-tunnel.io', allowed: false },
          ],
        },
      },
      'fail permissions',
      /lacks 1 of 2 permissions in tunnels: patch reversetunnels\/status\.reverse-tunnel\.io$/,
    ],
    [
      'rights that this account may not ask for',
      { permissions: { failure: 'create subjectaccessreviews: 403 Forbidden', forbidden: true } },
      'skip permissions',
      /not checked: create/,
    ],
    [
      'no replica, and never one',
      { replicas: { value: { replicas: [], leader: '' } } },
      'fail replicas',
      /no operator replica is alive in tunnels: no replica Lease found$/,
    ],
    [
      'all replicas dead',
      {
        replicas: {
          value: {
            leader: 'replica-a',
            replicas: [{ replica: 'replica-a', renewedMs: NOW_MS - 600_000, alive: false }],
          },
        },
      },
      'fail replicas',
      /replica-a \(last renewed 10m ago\)/,
    ],
    [
      'one of two dead, and it led',
      {
        replicas: {
          value: {
            leader: 'replica-b',
            replicas: [
              { replica: 'replica-a', renewedMs: NOW_MS, alive: true },
              { replica: 'replica-b', renewedMs: NOW_MS - 60_000, alive: false },
            ],
          },
        },
      },
      'warn replicas',
      /1 replica alive, no leader \(last leader replica-b has expired\)/,
    ],
    [
      'a replica whose clock is an hour ahead',
      {
        replicas: {
          value: {
            leader: 'replica-a',
            replicas: [{ replica: 'replica-a', renewedMs: NOW_MS + 3_600_000, alive: true }],
          },
        },
      },
      'warn clocks',
      /replica-a by 60m/,
    ],
    [
      'nobody has reported',
      { ...reporters(), tunnels: { value: { tunnels: 0, unknown: 0, orphaned: new Map() } } },
      'warn reporters',
      /no Envoy has reported in tunnels/,
    ],
    [
      'one reporter of two lost',
      reporters(
        reporterObject('responder-0'),
        reporterObject('responder-1', {
          conditions: [
            conditionOf('Connected', 'False', 'HeartbeatTimeout', 240_000),
            conditionOf('Synced', 'Unknown', 'NotConnected', 240_000),
          ],
        }),
      ),
      'warn reporters',
      /1 of 2 reporters not connected: edge\/responder-1 \(HeartbeatTimeout for 4m\)/,
    ],
    [
      'every reporter lost',
      reporters(
        reporterObject('responder-0', { conditions: [conditionOf('Connected', 'False', 'StreamEnded')] }),
      ),
      'fail reporters',
      /1 of 1 reporter not connected: edge\/responder-0 \(StreamEnded for 60m\)/,
    ],
    [
      'refused rows',
      reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('Synced', 'False', 'WritesRejected', 30_000, '3 rows refused: 403 quota')],
        }),
      ),
      'fail synced',
      /edge\/responder-0 \(WritesRejected for 30s\): 3 rows refused: 403 quota/,
    ],
    [
      'tunnels rejected',
      reporters(
        reporterObject('responder-0', { conditions: [conditionOf('Synced', 'False', 'TunnelsRejected')] }),
      ),
      'warn synced',
      /rejected/,
    ],
    [
      'a backlog of two minutes',
      reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('Synced', 'False', 'SyncInProgress', 120_000)],
        }),
      ),
      'warn synced',
      /still being written: edge\/responder-0 \(SyncInProgress for 2m\)/,
    ],
    [
      'two Envoys with one id',
      reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('IdentityConflict', 'True', 'DuplicateReporterID')],
        }),
      ),
      'fail identity',
      /under the same node\.cluster and node\.id: edge\/responder-0$/,
    ],
    [
      'a reporter whose owner is dead',
      reporters(reporterObject('responder-0', { owner: 'replica-gone', cluster: '' })),
      'warn owners',
      /1 reporter owned by no live replica: responder-0$/,
    ],
    [
      'rows of a lost reporter',
      { tunnels: { value: { tunnels: 6, unknown: 2, orphaned: new Map() } } },
      'warn objects',
      /2 of 6 ReverseTunnels Unknown/,
    ],
    [
      'rows without a reporter',
      { tunnels: { value: { tunnels: 6, unknown: 0, orphaned: new Map([['edge/gone', 3]]) } } },
      'warn objects',
      /without a ReverseTunnelReporter: edge\/gone \(3\)$/,
    ],
    [
      'an expired certificate',
      {
        certificates: [
          { source: '--tls-cert a.pem', subject: 'CN=rto', notBeforeMs: 0, notAfterMs: NOW_MS - 3 * DAY_MS },
        ],
      },
      'fail certificates',
      /--tls-cert a\.pem: CN=rto expired 3d ago, at 2026-11-20T12:00:00Z$/,
    ],
    [
      'a certificate of tomorrow',
      {
        certificates: [
          { source: 'a', subject: 'CN=rto', notBeforeMs: NOW_MS + DAY_MS, notAfterMs: NOW_MS + 9 * DAY_MS },
        ],
      },
      'fail certificates',
      /not yet valid, not before 2026-11-24T12:00:00Z/,
    ],
    [
      'a certificate that ends next week',
      {
        certificates: [
          {
            source: 'a',
            subject: 'CN=rto',
            notBeforeMs: NOW_MS - 83 * DAY_MS,
            notAfterMs: NOW_MS + 7 * DAY_MS,
          },
        ],
      },
      'warn certificates',
      /expires in 7d/,
    ],
    [
      'a file without certificate',
      { certificates: [{ source: 'a', failure: 'contains no PEM certificate' }] },
      'fail certificates',
      /contains no PEM certificate/,
    ],
    [
      'a port that nobody listens on',
      {
        endpoints: [
          { flag: '--grpc-address', address: '127.0.0.1:1', failure: 'connect ECONNREFUSED', detail: '' },
        ],
      },
      'fail endpoints',
      /--grpc-address 127\.0\.0\.1:1: connect ECONNREFUSED/,
    ],
    ['no port named', { endpoints: [] }, 'skip endpoints', /no endpoints probed/],
    [
      'a policy that is not accepted',
      { policies: { value: [{ name: 'p', accepted: 'False', conditionMessage: 'rule 2: no such peer' }] } },
      'fail policies',
      /p is not accepted: rule 2: no such peer$/,
    ],
    [
      'a policy that nobody judged',
      { policies: { value: [{ name: 'p', accepted: undefined, conditionMessage: '' }] } },
      'warn policies',
      /has not been evaluated/,
    ],
  ];
  for (const [what, facts, expected, says] of cases) {
    it(`${what}: ${expected}, and what to do`, () => {
      const found = runChecks({ ...WELL, ...facts }).filter(({ status }) => status !== 'ok');
      const [first] = found;
      expect(`${first?.status} ${first?.check}`, JSON.stringify(found)).to.equal(expected);
      expect(first?.message).to.match(says);
      expect(first?.message).not.to.include('\n');
      expect(first?.remediation).to.be.a('string').that.is.not.empty;
    });
  }

  /** What is in order though it might look wrong. */
  const fine: readonly (readonly [string, Partial<DoctorInputs>])[] = [
    [
      'a first full push that is being written',
      reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('Synced', 'False', 'SyncInProgress', 5_000)],
        }),
      ),
    ],
    [
      'a certificate of one day with half of it left',
      {
        certificates: [
          {
            source: 'a',
            subject: 'CN=rto',
            notBeforeMs: NOW_MS - DAY_MS / 2,
            notAfterMs: NOW_MS + DAY_MS / 2,
          },
        ],
      },
    ],
    [
      'policies that are accepted',
      { policies: { value: [{ name: 'p', accepted: 'True', conditionMessage: '' }] } },
    ],
  ];
  for (const [what, facts] of fine) {
    it(`${what}: ok`, () => {
      expect(runChecks({ ...WELL, ...facts }).filter(({ status }) => status !== 'ok')).to.deep.equal([]);
    });
  }

  it('no API server: says so, and nothing of what could not be asked', () => {
    const nothing = { failure: 'not asked', forbidden: false };
    const found = runChecks({
      ...WELL,
      api: { failure: 'get /version: connect ECONNREFUSED', forbidden: false },
      ...{ crds: nothing, permissions: nothing, replicas: nothing, reporters: nothing, tunnels: nothing },
    });
    expect(found.map(({ check, status }) => `${status} ${check}`)).to.deep.equal([
      'fail api',
      'ok certificates',
      'ok endpoints',
    ]);
  });

  it('a kind that is missing is said once, not again by each list of it', () => {
    const missing = { failure: 'list reversetunnels: 404 not served', forbidden: false };
    const kinds = {
      value: [{ plural: 'reversetunnels', required: true, installed: false, differences: [] }],
    };
    const found = runChecks({ ...WELL, crds: kinds, reporters: missing, tunnels: missing });
    expect(found.filter(({ status }) => status === 'fail').map(({ check }) => check)).to.deep.equal(['crds']);
  });

  it('many names: five, and how many more', () => {
    const lost = Array.from({ length: 7 }, (_, index) =>
      reporterObject(`r-${index}`, {
        conditions: [conditionOf('Connected', 'False', 'HeartbeatTimeout', 60_000)],
      }),
    );
    const found = runChecks({ ...WELL, ...reporters(...lost) }).find(({ check }) => check === 'reporters');
    expect(found?.message).to.match(/r-4 \(HeartbeatTimeout for 60s\) and 2 more$/);
  });
});
