import { expect } from 'chai';
import { runDoctor } from '../support/cli-process.ts';
import { useControlPlane } from '../support/control-plane.ts';
import {
  startMutatingWebhook,
  type AdmissionRequest,
  type JsonPatchOperation,
  type MutatingWebhook,
} from '../support/mutating-webhook.ts';
import { poll } from '../support/operator-process.ts';
import { createReplicas, type Replicas } from '../support/replicas.ts';
import type { Fleet } from '../../src/simulate/fleet.ts';

const DEADLINE_MS = 60_000;
const TENANT_LABEL = 'reverse-tunnel.io/tenant';
const TENANT_PATH = '/metadata/labels/reverse-tunnel.io~1tenant';
const TUNNELS = 3;

interface Behavior {
  readonly description: string;
  /** Of writes by the operator. */
  readonly mutate: (request: AdmissionRequest) => readonly JsonPatchOperation[];
  /** The field that the condition names; undefined: nothing is rewritten. */
  readonly field: string | undefined;
  /** What the administrator changes on every object once they exist. */
  readonly edit?: { readonly subresource?: 'status'; readonly patch: object };
  /** The operator's writes of each object. */
  readonly writes: readonly string[];
}

const isTunnel = ({ resource, subresource }: AdmissionRequest): boolean =>
  resource === 'reversetunnels' && subresource === undefined;
const relabel = (value: string): JsonPatchOperation[] => [{ op: 'replace', path: TENANT_PATH, value }];
const EDIT_LABEL = { patch: { metadata: { labels: { [TENANT_LABEL]: 'edited' } } } };

/** The behavior of the webhook for the objects of responder-0, responder-1 and so on. */
const BEHAVIORS: readonly Behavior[] = [
  {
    description: 'rewrites a label',
    mutate: (request) => (isTunnel(request) ? relabel('other') : []),
    field: `metadata.labels[${TENANT_LABEL}]`,
    writes: ['CREATE'],
  },
  {
    description: 'rewrites a field of spec when an object is created',
    mutate: (request) =>
      isTunnel(request) && request.operation === 'CREATE'
        ? [{ op: 'replace', path: '/spec/nodeID', value: 'REWRITTEN' }]
        : [],
    field: 'spec.nodeID',
    writes: ['CREATE'],
  },
  {
    description: 'adds an annotation and a label of its own',
    mutate: (request) =>
      isTunnel(request)
        ? [
            { op: 'add', path: '/metadata/annotations', value: { 'example.com/seen': 'yes' } },
            { op: 'add', path: '/metadata/labels/example.com~1team', value: 'edge' },
          ]
        : [],
    field: undefined,
    edit: EDIT_LABEL,
    writes: ['CREATE', 'UPDATE'],
  },
  {
    description: 'removes a label',
    mutate: (request) => (isTunnel(request) ? [{ op: 'remove', path: TENANT_PATH }] : []),
    field: `metadata.labels[${TENANT_LABEL}]`,
    writes: ['CREATE'],
  },
  {
    description: 'rewrites a label when an object is updated',
    mutate: (request) => (isTunnel(request) && request.operation === 'UPDATE' ? relabel('other') : []),
    field: `metadata.labels[${TENANT_LABEL}]`,
    edit: EDIT_LABEL,
    writes: ['CREATE', 'UPDATE'],
  },
  {
    description: 'reverts patches',
    mutate: (request) =>
      isTunnel(request) && request.oldObject !== undefined
        ? [{ op: 'replace', path: '/metadata/labels', value: request.oldObject.metadata.labels }]
        : [],
    field: `metadata.labels[${TENANT_LABEL}]`,
    edit: EDIT_LABEL,
    writes: ['CREATE', 'UPDATE'],
  },
  {
    description: 'rewrites the status',
    mutate: ({ resource, subresource }) =>
      resource === 'reversetunnels' && subresource === 'status'
        ? [{ op: 'replace', path: '/status/state', value: 'Unknown' }]
        : [],
    field: 'status.state',
    edit: { subresource: 'status', patch: { status: { state: 'Unknown' } } },
    writes: ['CREATE', 'UPDATE status'],
  },
  {
    description: 'rewrites the spec such that an object belongs to another reporter',
    mutate: (request) =>
      isTunnel(request) ? [{ op: 'replace', path: '/spec/reporter/id', value: 'another' }] : [],
    field: 'spec.reporter.id',
    writes: ['CREATE'],
  },
  {
    description: 'rewrites the counts of the reporter object',
    mutate: ({ resource, subresource, object }) =>
      resource === 'reversetunnelreporters' &&
      subresource === 'status' &&
      object.status?.['tunnels'] !== undefined
        ? [{ op: 'replace', path: '/status/tunnels/applied', value: 99 }]
        : [],
    field: 'status.tunnels.applied',
    writes: ['CREATE'],
  },
];

describe('a mutating admission webhook', () => {
  const controlPlane = useControlPlane();
  let replicas: Replicas;
  let webhook: MutatingWebhook;
  let fleet: Fleet;
  let startedMs: number;

  before(async function () {
    this.timeout(3 * DEADLINE_MS);
    startedMs = performance.now();
    replicas = await createReplicas(controlPlane(), 'webhook');
    webhook = await startMutatingWebhook(controlPlane(), replicas.namespace, (request) => {
      if (request.resource === 'reversetunnelexpectations')
        return request.subresource === 'status'
          ? [{ op: 'replace', path: '/status/tunnels', value: 99 }]
          : [];
      const behavior = BEHAVIORS[reporterIndex(request)];
      const isOperator = request.username.startsWith('system:serviceaccount:');
      return isOperator ? (behavior?.mutate(request) ?? []) : [];
    });
    await replicas.start();
    fleet = await replicas.startFleet({ reporters: BEHAVIORS.length, tunnels: TUNNELS });
    await poll(DEADLINE_MS, async () => (await conditions()).length >= BEHAVIORS.length || undefined);
    await poll(DEADLINE_MS, () =>
      BEHAVIORS.every((_, index) => writesOf(index).length >= TUNNELS) ? true : undefined,
    );
    for (const [index, { edit }] of BEHAVIORS.entries()) {
      if (edit === undefined) continue;
      await editObjects(await objectsOf(index), edit);
    }
  });
  after(async () => {
    await replicas.stop();
    await webhook.stop();
  });

  const collection = (resource: string): string =>
    `/apis/reverse-tunnel.io/v1alpha1/namespaces/${replicas.namespace}/${resource}`;

  async function list<T>(path: string): Promise<T[]> {
    const { body } = await controlPlane().request('GET', path);
    return (body as { items: T[] }).items;
  }

  /** Returns the condition Synced of each reporter in the order of their IDs. */
  async function conditions(): Promise<{ reason: string; status: string; message: string }[]> {
    const reporters = await list<{
      spec: { id: string };
      status: { conditions: { type: string; reason: string; status: string; message: string }[] };
    }>(collection('reversetunnelreporters'));
    return reporters
      .toSorted((a, b) => (a.spec.id < b.spec.id ? -1 : 1))
      .flatMap(({ status }) => status.conditions.filter(({ type }) => type === 'Synced'));
  }

  async function objectsOf(index: number): Promise<string[]> {
    const objects = await list<{ metadata: { name: string }; spec: { reporter: { id: string } } }>(
      collection('reversetunnels'),
    );
    return objects
      .filter(({ spec }) => spec.reporter.id === `responder-${index}`)
      .map(({ metadata }) => metadata.name);
  }

  /** Edits objects like a user. */
  async function editObjects(
    names: readonly string[],
    { subresource, patch }: NonNullable<Behavior['edit']>,
  ): Promise<void> {
    const { code, stderr } = await controlPlane().kubectl([
      ...['patch', 'reversetunnels', ...names, '--namespace', replicas.namespace],
      ...['--type', 'merge', '--patch', JSON.stringify(patch)],
      ...(subresource === undefined ? [] : ['--subresource', subresource]),
    ]);
    expect(code, stderr).to.equal(0);
  }

  /** Returns the operator's writes of the objects of a reporter. */
  function writesOf(index: number): string[] {
    return webhook.requests
      .filter(
        (request) =>
          request.resource === 'reversetunnels' &&
          request.username.startsWith('system:serviceaccount:') &&
          reporterIndex(request) === index,
      )
      .map(({ operation, subresource }) =>
        subresource === undefined ? operation : `${operation} ${subresource}`,
      );
  }

  for (const [index, { description, field, writes }] of BEHAVIORS.entries()) {
    const outcome = field === undefined ? 'causes no difference' : `is reported with the field ${field}`;
    it(`that ${description} ${outcome}`, async () => {
      const expected = field === undefined ? 'True UpToDate' : 'False RewrittenByAdmission';
      const all = writes.flatMap((write) => Array.from({ length: TUNNELS }, () => write));
      await poll(DEADLINE_MS, async () => {
        const { status, reason, message = '' } = (await conditions())[index] ?? {};
        const isShown = `${status} ${reason}` === expected && message.includes(field ?? '');
        return isShown && writesOf(index).length >= all.length ? true : undefined;
      });
      expect(writesOf(index)).to.have.members(all);
    });
  }

  it('is reported in the log, with an Event and in the metrics', async () => {
    const { process } = replicas.running[0] ?? expect.fail('no replica');
    const lines = process.log.filter(({ msg }) => msg === 'admission rewrote a ReverseTunnel');
    const minutes = 1 + Math.ceil((performance.now() - startedMs) / 60_000);
    expect(lines, 'one line per minute').to.have.length.within(1, minutes);
    expect(lines[0]).to.include.keys('reporter', 'object', 'field', 'desired', 'stored', 'hint');
    const events = await list<{ reason: string; note: string; regarding: { kind: string } }>(
      `/apis/events.k8s.io/v1/namespaces/${replicas.namespace}/events`,
    );
    const rewritten = events.filter(({ reason }) => reason === 'RewrittenByAdmission');
    expect(rewritten).to.have.length(BEHAVIORS.filter(({ field }) => field !== undefined).length);
    expect(rewritten.map(({ note }) => note).join('\n')).to.include('spec.nodeID');
    expect(await process.metric('reverse_tunnel_objects_rewritten')).to.be.at.least(7 * TUNNELS + 1);
    expect(
      await process.metric('reverse_tunnel_writes_rewritten_total{resource="reversetunnels",part="spec"}'),
    ).to.equal(2 * TUNNELS);
  });

  it('makes doctor fail and name the webhook', async () => {
    const { code, findings } = await runDoctor([
      ...['--kubeconfig', controlPlane().kubeconfigPath, '--namespace', replicas.namespace],
    ]);
    const synced = findings.find(({ check }) => check === 'synced');
    expect(synced).to.include({ status: 'fail' });
    expect(synced?.message).to.include('admission rewrites objects');
    expect(synced?.remediation).to.include(
      `MutatingWebhookConfiguration ${webhook.name} (webhook mutate.example.com, reversetunnels`,
    );
    expect(code).to.equal(1);
  });

  it('that rewrites the status of an expectation is counted, and doctor names it', async () => {
    const { status } = await controlPlane().request('POST', collection('reversetunnelexpectations'), {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnelExpectation',
      metadata: { name: 'any' },
      spec: { match: {} },
    });
    expect(status).to.equal(201);
    const { process } = replicas.running[0] ?? expect.fail('no replica');
    const rewrites =
      'reverse_tunnel_writes_rewritten_total{resource="reversetunnelexpectations",part="status"}';
    await poll(DEADLINE_MS, async () => ((await process.metric(rewrites)) > 0 ? true : undefined));
    const { findings } = await runDoctor([
      ...['--kubeconfig', controlPlane().kubeconfigPath, '--namespace', replicas.namespace],
    ]);
    const messages = findings.filter(({ check }) => check === 'expectations').map(({ message }) => message);
    expect(messages.join('\n')).to.include(
      `admission may rewrite expectations: MutatingWebhookConfiguration ${webhook.name} (webhook mutate.example.com, reversetunnelexpectations, reversetunnelexpectations/status)`,
    );
  });

  it('is not called again for other tunnels of the same reporters', async () => {
    const before = webhook.requests.length;
    const reporter = fleet.reporters[2] ?? expect.fail('no reporter');
    const added = fleet.newInitiator();
    reporter.connectTunnel(added);
    await poll(DEADLINE_MS, async () => ((await objectsOf(2)).length === TUNNELS + 1 ? true : undefined));
    const later = webhook.requests.slice(before).filter(({ resource }) => resource === 'reversetunnels');
    expect(later.map(({ operation }) => operation)).to.deep.equal(['CREATE']);
  });

  it('is forgotten as soon as its objects are seen as desired', async () => {
    const names = await objectsOf(0);
    const objects = await list<{ metadata: { name: string }; spec: { tenantID: string } }>(
      collection('reversetunnels'),
    );
    for (const { metadata, spec } of objects.filter((object) => names.includes(object.metadata.name)))
      await editObjects([metadata.name], {
        patch: { metadata: { labels: { [TENANT_LABEL]: spec.tenantID } } },
      });
    await poll(DEADLINE_MS, async () => ((await conditions())[0]?.status === 'True' ? true : undefined));
    expect(writesOf(0)).to.have.length(TUNNELS);
  });
});

function reporterIndex({ object, oldObject, resource }: AdmissionRequest): number {
  const { spec } = oldObject ?? object;
  const id = resource === 'reversetunnels' ? (spec['reporter'] as { id: string }).id : (spec['id'] as string);
  return Number(/^responder-(\d+)$/.exec(id)?.[1] ?? -1);
}
