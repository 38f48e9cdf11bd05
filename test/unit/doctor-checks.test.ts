import { expect } from 'chai';
import type { DoctorInputs } from '../../src/doctor/inputs.ts';
import { runChecks } from '../../src/doctor/run-checks.ts';
import { conditionOf, NOW_MS, reporterObject } from '../support/reporter-objects.ts';

const DAY_MS = 86_400_000;

/** The inputs of a healthy installation. */
const HEALTHY: DoctorInputs = {
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
  tunnels: {
    value: {
      tunnels: 6,
      entries: 0,
      unknown: 0,
      returning: 0,
      orphaned: new Map(),
      createdInFuture: new Map(),
    },
  },
  policies: undefined,
  expectations: undefined,
  mutatingAdmission: { value: [] },
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

describe('doctor checks', () => {
  it('reports ok for every check of a healthy installation', () => {
    const results = runChecks(HEALTHY);
    expect(results.map(({ check }) => check)).to.deep.equal([
      ...['api', 'crds', 'permissions', 'replicas', 'endpoints', 'certificates', 'reporters', 'objects'],
    ]);
    expect(new Set(results.map(({ status }) => status))).to.deep.equal(new Set(['ok']));
  });

  /** A problem, its inputs, the first result that is not ok, and the message of that result. */
  const cases: readonly (readonly [string, Partial<DoctorInputs>, string, RegExp])[] = [
    [
      'an API server older than 1.35',
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
      'a namespace that does not exist',
      { namespaceExists: false },
      'fail namespace',
      /namespace tunnels not found/,
    ],
    [
      'a required CRD that is not installed',
      { crds: { value: [{ plural: 'reversetunnels', required: true, installed: false, differences: [] }] } },
      'fail crds',
      /reversetunnels\.reverse-tunnel\.io is not served/,
    ],
    [
      'an optional CRD that is not installed',
      {
        crds: {
          value: [{ plural: 'reversetunnelpolicies', required: false, installed: false, differences: [] }],
        },
      },
      'warn crds',
      /reversetunnelpolicies/,
    ],
    [
      'a changed default of the status',
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
      'an older CRD schema',
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
      'a missing permission',
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
      'permissions that the account may not review',
      { permissions: { failure: 'create subjectaccessreviews: 403 Forbidden', forbidden: true } },
      'skip permissions',
      /not checked: create/,
    ],
    [
      'no replica Lease',
      { replicas: { value: { replicas: [], leader: '' } } },
      'fail replicas',
      /no operator replica is alive in tunnels: no replica Lease found$/,
    ],
    [
      'only expired replicas',
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
      'an expired leader and a live replica',
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
      'no reporter',
      {
        ...reporters(),
        tunnels: {
          value: {
            tunnels: 0,
            entries: 0,
            unknown: 0,
            returning: 0,
            orphaned: new Map(),
            createdInFuture: new Map(),
          },
        },
      },
      'warn reporters',
      /no Envoy has reported in tunnels/,
    ],
    [
      'one of two reporters disconnected',
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
      'all reporters disconnected',
      reporters(
        reporterObject('responder-0', { conditions: [conditionOf('Connected', 'False', 'StreamEnded')] }),
      ),
      'fail reporters',
      /1 of 1 reporter not connected: edge\/responder-0 \(StreamEnded for 60m\)/,
    ],
    [
      'rejected writes',
      reporters(
        reporterObject('responder-0', {
          conditions: [
            conditionOf('Synced', 'False', 'WritesRejected', 30_000, '3 writes rejected: 403 quota'),
          ],
        }),
      ),
      'fail synced',
      /edge\/responder-0 \(WritesRejected for 30s\): 3 writes rejected: 403 quota/,
    ],
    [
      'rejected tunnels for two minutes',
      reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('Synced', 'False', 'TunnelsRejected', 120_000)],
        }),
      ),
      'fail synced',
      /rejected/,
    ],
    [
      'objects that admission rewrites',
      reporters(
        reporterObject('responder-0', {
          conditions: [
            {
              ...conditionOf('Synced', 'False', 'RewrittenByAdmission', 1000),
              message: 'metadata.labels[x]',
            },
          ],
        }),
      ),
      'fail synced',
      /^admission rewrites objects: edge\/responder-0 \(RewrittenByAdmission for 1s\): metadata\.labels\[x\]$/,
    ],
    [
      'rejected tunnels',
      reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('Synced', 'False', 'TunnelsRejected', 30_000)],
        }),
      ),
      'warn synced',
      /rejected/,
    ],
    [
      'writes pending for two minutes',
      reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('Synced', 'False', 'SyncInProgress', 120_000)],
        }),
      ),
      'fail synced',
      /still being written: edge\/responder-0 \(SyncInProgress for 2m\)/,
    ],
    [
      'two Envoys with the same ID',
      reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('IdentityConflict', 'True', 'DuplicateReporterID')],
        }),
      ),
      'fail identity',
      /under the same node\.cluster and node\.id: edge\/responder-0$/,
    ],
    [
      'a reporter owned by an expired replica',
      reporters(reporterObject('responder-0', { owner: 'replica-gone', cluster: '' })),
      'warn owners',
      /1 reporter owned by no live replica: responder-0$/,
    ],
    [
      'objects of a disconnected reporter',
      {
        tunnels: {
          value: {
            tunnels: 6,
            entries: 5,
            unknown: 2,
            returning: 0,
            orphaned: new Map(),
            createdInFuture: new Map(),
          },
        },
      },
      'warn objects',
      /2 of 6 ReverseTunnels \(5 in slices\) Unknown/,
    ],
    [
      'orphaned objects',
      {
        tunnels: {
          value: {
            tunnels: 6,
            entries: 0,
            unknown: 0,
            returning: 0,
            orphaned: new Map([['edge/gone', 3]]),
            createdInFuture: new Map(),
          },
        },
      },
      'warn objects',
      /without a ReverseTunnelReporter: edge\/gone \(3\)$/,
    ],
    [
      'initiators whose clocks were ahead',
      {
        tunnels: {
          value: {
            tunnels: 6,
            entries: 0,
            unknown: 0,
            returning: 0,
            orphaned: new Map(),
            createdInFuture: new Map([['node-1', 2]]),
          },
        },
      },
      'warn initiators',
      /createdAt is omitted: node-1$/,
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
      'a certificate that is not yet valid',
      {
        certificates: [
          { source: 'a', subject: 'CN=rto', notBeforeMs: NOW_MS + DAY_MS, notAfterMs: NOW_MS + 9 * DAY_MS },
        ],
      },
      'fail certificates',
      /not yet valid, not before 2026-11-24T12:00:00Z/,
    ],
    [
      'a certificate that expires next week',
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
      'a file without a certificate',
      { certificates: [{ source: 'a', failure: 'contains no PEM certificate' }] },
      'fail certificates',
      /contains no PEM certificate/,
    ],
    [
      'a port without a listener',
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
      'a required policy that does not exist',
      {
        policies: { value: [] },
        replicas: {
          value: {
            leader: 'replica-a',
            replicas: [
              { replica: 'replica-a', renewedMs: NOW_MS, alive: true, requiresPolicy: true },
              { replica: 'replica-b', renewedMs: NOW_MS, alive: true },
            ],
          },
        },
      },
      'fail policies',
      /no ReverseTunnelPolicy exists in tunnels, and 1 replica with --require-policy rejects every client/,
    ],
    [
      'a required policy whose CRD is not installed',
      {
        replicas: {
          value: {
            leader: 'replica-a',
            replicas: [{ replica: 'replica-a', renewedMs: NOW_MS, alive: true, requiresPolicy: true }],
          },
        },
      },
      'fail policies',
      /no ReverseTunnelPolicy exists in tunnels/,
    ],
    [
      'a policy that is not accepted',
      { policies: { value: [{ name: 'p', accepted: 'False', conditionMessage: 'rule 2: no such peer' }] } },
      'fail policies',
      /p is not accepted: rule 2: no such peer$/,
    ],
    [
      'a policy that has not been evaluated',
      { policies: { value: [{ name: 'p', accepted: undefined, conditionMessage: '' }] } },
      'warn policies',
      /has not been evaluated/,
    ],
    [
      'an expectation that can match nothing',
      {
        expectations: { value: [{ name: 'e', state: 'invalid', conditionMessage: 'it contradicts itself' }] },
      },
      'fail expectations',
      /^e can match nothing: it contradicts itself$/,
    ],
    [
      'expectations that are not satisfied',
      {
        expectations: {
          value: [
            { name: 'a', state: 'unsatisfied', conditionMessage: '' },
            { name: 'b', state: 'satisfied', conditionMessage: '' },
            { name: 'c', state: 'unknown', conditionMessage: '' },
          ],
        },
      },
      'warn expectations',
      /^2 expectations not satisfied: a, c$/,
    ],
    [
      'an expectation that has not been evaluated',
      { expectations: { value: [{ name: 'e', state: undefined, conditionMessage: '' }] } },
      'warn expectations',
      /1 expectation not evaluated yet: e/,
    ],
    [
      'a webhook that may rewrite expectations',
      {
        expectations: { value: [{ name: 'e', state: 'satisfied', conditionMessage: '' }] },
        mutatingAdmission: {
          value: [
            {
              kind: 'MutatingWebhookConfiguration',
              name: 'gatekeeper',
              webhook: 'mutation.gatekeeper.sh',
              resources: ['reversetunnels', 'reversetunnelexpectations/status'],
            },
          ],
        },
      },
      'warn expectations',
      /^admission may rewrite expectations: MutatingWebhookConfiguration gatekeeper \(webhook mutation\.gatekeeper\.sh, reversetunnelexpectations\/status\)$/,
    ],
  ];
  for (const [problem, inputs, expected, message] of cases) {
    it(`reports ${expected} with a remediation for ${problem}`, () => {
      const results = runChecks({ ...HEALTHY, ...inputs }).filter(({ status }) => status !== 'ok');
      const [first] = results;
      expect(`${first?.status} ${first?.check}`, JSON.stringify(results)).to.equal(expected);
      expect(first?.message).to.match(message);
      expect(first?.message).not.to.include('\n');
      expect(first?.remediation).to.be.a('string').that.is.not.empty;
    });
  }

  /** States that are normal although they resemble a problem. */
  const normal: readonly (readonly [string, Partial<DoctorInputs>])[] = [
    [
      'a first full push that is still being written',
      reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('Synced', 'False', 'SyncInProgress', 5_000)],
        }),
      ),
    ],
    [
      'a one-day certificate that is valid for another 12 h',
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
      'satisfied, pending and paused expectations',
      {
        expectations: {
          value: (['satisfied', 'pending', 'paused'] as const).map((state) => ({
            name: state,
            state,
            conditionMessage: '',
          })),
        },
      },
    ],
    ['a namespace without expectations', { expectations: { value: [] } }],
    [
      'a webhook that matches other kinds than expectations',
      {
        expectations: { value: [{ name: 'e', state: 'satisfied', conditionMessage: '' }] },
        mutatingAdmission: {
          value: [
            { kind: 'MutatingAdmissionPolicy', name: 'p', webhook: undefined, resources: ['reversetunnels'] },
          ],
        },
      },
    ],
    ['accepted policies', { policies: { value: [{ name: 'p', accepted: 'True', conditionMessage: '' }] } }],
  ];
  for (const [state, inputs] of normal) {
    it(`reports ok for ${state}`, () => {
      expect(runChecks({ ...HEALTHY, ...inputs }).filter(({ status }) => status !== 'ok')).to.deep.equal([]);
    });
  }

  it('runs only checks that need no API server if it is unreachable', () => {
    const notFetched = { failure: 'not asked', forbidden: false };
    const results = runChecks({
      ...HEALTHY,
      api: { failure: 'get /version: connect ECONNREFUSED', forbidden: false },
      ...{ crds: notFetched, permissions: notFetched, replicas: notFetched },
      ...{ reporters: notFetched, tunnels: notFetched },
    });
    expect(results.map(({ check, status }) => `${status} ${check}`)).to.deep.equal([
      'fail api',
      'ok certificates',
      'ok endpoints',
    ]);
  });

  it('reports a missing CRD once, not again for each list of its objects', () => {
    const missing = { failure: 'list reversetunnels: 404 not served', forbidden: false };
    const crds = {
      value: [{ plural: 'reversetunnels', required: true, installed: false, differences: [] }],
    };
    const results = runChecks({ ...HEALTHY, crds, reporters: missing, tunnels: missing });
    expect(results.filter(({ status }) => status === 'fail').map(({ check }) => check)).to.deep.equal([
      'crds',
    ]);
  });

  it('lists at most five names and the number of the others', () => {
    const disconnected = Array.from({ length: 7 }, (_, index) =>
      reporterObject(`r-${index}`, {
        conditions: [conditionOf('Connected', 'False', 'HeartbeatTimeout', 60_000)],
      }),
    );
    const result = runChecks({ ...HEALTHY, ...reporters(...disconnected) }).find(
      ({ check }) => check === 'reporters',
    );
    expect(result?.message).to.match(/r-4 \(HeartbeatTimeout for 60s\) and 2 more$/);
  });
});

describe('the remediation of rewritten objects', () => {
  const remediationOf = (mutatingAdmission: DoctorInputs['mutatingAdmission']): string | undefined =>
    runChecks({
      ...HEALTHY,
      mutatingAdmission,
      ...reporters(
        reporterObject('responder-0', {
          conditions: [conditionOf('Synced', 'False', 'RewrittenByAdmission')],
        }),
      ),
    }).find(({ check }) => check === 'synced')?.remediation;

  it('names the webhooks and policies that match', () => {
    const resources = ['reversetunnels'];
    const webhook = { kind: 'MutatingWebhookConfiguration', name: 'kyverno', webhook: 'mutate.kyverno.svc' };
    const policy = { kind: 'MutatingAdmissionPolicy', name: 'add-team', webhook: undefined };
    expect(
      remediationOf({
        value: [
          { ...webhook, resources },
          { ...policy, resources },
        ],
      }),
    ).to.include(
      'MutatingWebhookConfiguration kyverno (webhook mutate.kyverno.svc, reversetunnels), ' +
        'MutatingAdmissionPolicy add-team (reversetunnels)',
    );
  });

  it('does not name what matches expectations only', () => {
    const policy = { kind: 'MutatingAdmissionPolicy', name: 'p', webhook: undefined };
    expect(
      remediationOf({ value: [{ ...policy, resources: ['reversetunnelexpectations/status'] }] }),
    ).to.include('no mutating webhook or policy matches');
  });

  it('states why they cannot be named', () => {
    expect(remediationOf({ value: [] })).to.include('no mutating webhook or policy matches');
    expect(remediationOf({ failure: 'list: 403', forbidden: true })).to.include('not listed: list: 403');
  });
});
