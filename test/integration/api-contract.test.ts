/**
 * The contract of the embedded API server: each case runs against its store, against the store behind HTTP, and against
 * a real API server, and all must answer alike.
 */
import { expect } from 'chai';
import { ApiError } from '../../src/k8s/api-error.ts';
import type { ResourceClient } from '../../src/k8s/resource-client.ts';
import {
  connectToRealServer,
  type ContractServer,
  startHttpServer,
  startMemoryServer,
} from '../support/api-contract.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { TUNNEL_SPEC } from '../support/crd-objects.ts';

interface Stored {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly creationTimestamp: string;
    readonly deletionTimestamp?: string;
    readonly finalizers?: readonly string[];
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: Readonly<Record<string, unknown>>;
  readonly status?: {
    readonly state?: string;
    readonly owner?: object;
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly reason: string;
    }[];
  };
}

const GROUP = { group: 'reverse-tunnel.io', version: 'v1alpha1' };

function tunnel(name: string, metadata: object = {}): object {
  return {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnel',
    metadata: { name, ...metadata },
    spec: TUNNEL_SPEC,
  };
}

describe('contract of the API server', () => {
  const controlPlane = useControlPlane();
  for (const kind of ['in memory', 'over HTTP', 'real'] as const) {
    describe(kind, () => {
      let server: ContractServer;
      let tunnels: ResourceClient<Stored>;
      let reporters: ResourceClient<Stored>;

      before(async () => {
        server =
          kind === 'real'
            ? await connectToRealServer(controlPlane())
            : kind === 'over HTTP'
              ? await startHttpServer()
              : startMemoryServer();
        tunnels = clientOf('reversetunnels');
        reporters = clientOf('reversetunnelreporters');
      });
      after(() => server.close());

      function clientOf(plural: string, namespace = server.namespace): ResourceClient<Stored> {
        return server.client.resource<Stored>({ ...GROUP, plural, namespace });
      }
      const createTunnel = (name: string, metadata: object = {}): Promise<Stored> =>
        server.settle(tunnels.create(tunnel(name, metadata)));

      async function errorKind(call: Promise<unknown>): Promise<string> {
        try {
          await server.settle(call);
          return 'none';
        } catch (error) {
          return error instanceof ApiError ? `${error.status ?? ''} ${error.kind}` : String(error);
        }
      }

      /** Watches from a version and records lines as `TYPE name version`, and how the watch ended. */
      function watching(from: string) {
        const lines: string[] = [];
        const texts: string[] = [];
        const state = { lines, texts, open: false, ended: 'not' };
        const abort = new AbortController();
        const over = tunnels.watch(
          { resourceVersion: from, timeoutSeconds: 60, signal: abort.signal },
          {
            onOpen: () => (state.open = true),
            onChunk(chunk) {
              for (const text of chunk.toString().split('\n')) {
                if (text === '') continue;
                texts.push(text);
                const { type, object } = JSON.parse(text) as {
                  type: string;
                  object: Stored & { code?: number };
                };
                lines.push(type === 'ERROR' ? `ERROR ${object.code}` : `${type} ${object.metadata.name}`);
              }
            },
          },
        );
        over.then(
          () => (state.ended = 'by the server'),
          () => (state.ended = 'with an error'),
        );
        return Object.assign(state, { stop: () => abort.abort() });
      }

      it('sets the default status of a created tunnel, and no other', async () => {
        const status = { state: 'Unknown', conditions: [] };
        const created = await server.settle(tunnels.create({ ...tunnel('defaults'), status }));
        expect(created.status).to.deep.equal({
          state: 'Connected',
          conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
        });
        expect(created.spec).to.deep.equal(TUNNEL_SPEC);
        expect(created.metadata.creationTimestamp).to.match(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      });

      it('rejects a create of an existing object, with a version, or with an invalid name or label', async () => {
        await createTunnel('once');
        expect(await errorKind(tunnels.create(tunnel('once')))).to.equal('409 already_exists');
        expect(await errorKind(tunnels.create(tunnel('versioned', { resourceVersion: '5' })))).to.equal(
          '500 unavailable',
        );
        expect(await errorKind(tunnels.create(tunnel('Not_Legal')))).to.equal('422 rejected');
        const labels = { team: 'a b' };
        expect(await errorKind(tunnels.create(tunnel('labelled', { labels })))).to.equal('422 rejected');
      });

      it('takes the version of a merge patch as a precondition and changes nothing for an identical patch', async () => {
        const { metadata } = await createTunnel('patched', { labels: { a: '1', b: '2' } });
        const change = {
          metadata: { resourceVersion: metadata.resourceVersion, labels: { a: null, c: '3' } },
        };
        const patched = await server.settle(tunnels.patch('patched', change));
        expect(patched.metadata.labels).to.deep.equal({ b: '2', c: '3' });
        expect(Number(patched.metadata.resourceVersion)).to.be.greaterThan(Number(metadata.resourceVersion));
        expect(patched.metadata.uid).to.equal(metadata.uid);
        expect(await errorKind(tunnels.patch('patched', change))).to.equal('409 conflict');
        const { resourceVersion } = patched.metadata;
        const same = { metadata: { resourceVersion, labels: { c: '3' } } };
        expect((await server.settle(tunnels.patch('patched', same))).metadata.resourceVersion).to.equal(
          resourceVersion,
        );
        expect(await errorKind(tunnels.patch('missing', same))).to.equal('404 not_found');
      });

      it('stores the defaults of a status with the first patch, even if that changes nothing else', async () => {
        const created = await createTunnel('defaulted');
        const patch = () =>
          server.settle(tunnels.patch('defaulted', { spec: { nodeID: created.spec.nodeID } }));
        const first = await patch();
        expect({ ...first, metadata: undefined }).to.deep.equal({ ...created, metadata: undefined });
        const versions = [created, first, await patch()].map(({ metadata }) => metadata.resourceVersion);
        expect(versions).to.deep.equal([versions[0], versions[1], versions[1]]);
        expect(Number(versions[1])).to.be.greaterThan(Number(versions[0]));
      });

      it('removes an annotation by a merge patch, and leaves an object without it unchanged', async () => {
        await createTunnel('annotated');
        const annotate = (value: string | null) =>
          server.settle(tunnels.patch('annotated', { metadata: { annotations: { 'a.io/b': value } } }));
        const { metadata } = await annotate('1');
        expect(metadata.annotations).to.deep.equal({ 'a.io/b': '1' });
        const removed = await annotate(null);
        expect(removed.metadata.annotations).to.equal(undefined);
        expect((await annotate(null)).metadata.resourceVersion).to.equal(removed.metadata.resourceVersion);
      });

      it('patches spec and status separately', async () => {
        await createTunnel('apart');
        const both = { spec: { createdAt: null }, status: { state: 'Unknown' } };
        const main = await server.settle(tunnels.patch('apart', both));
        expect([main.spec['createdAt'], main.status?.state]).to.deep.equal([undefined, 'Connected']);
        const other = { spec: { createdAt: '2026-01-01T00:00:00Z' }, status: { state: 'Unknown' } };
        const status = await server.settle(tunnels.patchStatus('apart', other));
        expect([status.spec['createdAt'], status.status?.state]).to.deep.equal([undefined, 'Unknown']);
      });

      it('replaces a list in a status as a whole and restores the default of a removed status', async () => {
        await createTunnel('listed');
        const conditions = [{ type: 'Ready', status: 'Unknown', reason: 'ReporterLost' }];
        const lost = await server.settle(tunnels.patchStatus('listed', { status: { conditions } }));
        expect(lost.status).to.deep.equal({ state: 'Connected', conditions });
        const reset = await server.settle(tunnels.patchStatus('listed', { status: null }));
        expect(reset.status?.conditions?.map(({ reason }) => reason)).to.deep.equal(['Reported']);
      });

      it('keeps identity fields immutable but not createdAt', async () => {
        await createTunnel('identity');
        expect(await errorKind(tunnels.patch('identity', { spec: { nodeID: 'other' } }))).to.equal(
          '422 rejected',
        );
        const createdAt = '2027-01-01T00:00:00Z';
        expect(
          (await server.settle(tunnels.patch('identity', { spec: { createdAt } }))).spec['createdAt'],
        ).to.equal(createdAt);
      });

      it('takes uid and version as preconditions of a delete', async () => {
        const { uid, resourceVersion } = (await createTunnel('deleted')).metadata;
        expect(await errorKind(tunnels.delete('deleted', { uid: 'other', resourceVersion }))).to.equal(
          '409 conflict',
        );
        expect(await errorKind(tunnels.delete('deleted', { uid, resourceVersion: '1' }))).to.equal(
          '409 conflict',
        );
        expect(await server.settle(tunnels.delete('deleted', { uid, resourceVersion }))).to.equal(undefined);
        expect(await errorKind(tunnels.delete('deleted', { uid, resourceVersion }))).to.equal(
          '404 not_found',
        );
        expect(await errorKind(tunnels.get('deleted'))).to.equal('404 not_found');
      });

      it('keeps an object with a finalizer, and its name, until the finalizer is removed', async () => {
        const { metadata } = await createTunnel('held', { finalizers: ['example.com/hold'] });
        const terminating = await server.settle(tunnels.delete('held', metadata));
        expect(terminating?.metadata.deletionTimestamp).to.be.a('string');
        expect(Number(terminating?.metadata.resourceVersion)).to.be.greaterThan(
          Number(metadata.resourceVersion),
        );
        expect(await errorKind(tunnels.create(tunnel('held')))).to.equal('409 already_exists');
        await server.settle(tunnels.patch('held', { metadata: { finalizers: null } }));
        expect(await errorKind(tunnels.get('held'))).to.equal('404 not_found');
        expect((await createTunnel('held')).metadata.uid).not.to.equal(metadata.uid);
      });

      it('returns pages of one version, whatever changes between them', async () => {
        const listed = clientOf('reversetunnels');
        for (const name of ['page-a', 'page-b', 'page-c']) await createTunnel(name);
        const first = await server.settle(listed.list({ limit: 1 }));
        await createTunnel('page-0');
        const names = first.items.map(({ metadata }) => metadata.name);
        for (let token = first.continueToken; token !== undefined;) {
          const page = await server.settle(listed.list({ limit: 2, continueToken: token }));
          expect(page.resourceVersion).to.equal(first.resourceVersion);
          names.push(...page.items.map(({ metadata }) => metadata.name));
          token = page.continueToken;
        }
        expect(names.filter((name) => name.startsWith('page'))).to.deep.equal(['page-a', 'page-b', 'page-c']);
        expect(names, 'in alphabetical order').to.deep.equal(names.toSorted());
        const one = await server.settle(listed.list({ fieldSelector: 'metadata.name=page-0' }));
        expect(one.items.map(({ metadata }) => metadata.name)).to.deep.equal(['page-0']);
        const none = await server.settle(listed.list({ fieldSelector: 'metadata.name=missing' }));
        expect(none.items).to.deep.equal([]);
      });

      it('watches past and future changes since a version in order, each with its version', async () => {
        const { resourceVersion } = await server.settle(tunnels.list());
        const { metadata } = await createTunnel('watched', { labels: { a: '1' } });
        const watch = watching(resourceVersion);
        await server.waitUntil('an event', () => watch.lines.length === 1);
        const patched = await server.settle(tunnels.patch('watched', { metadata: { labels: { a: '2' } } }));
        await server.settle(tunnels.delete('watched', patched.metadata));
        await server.waitUntil('the deletion', () => watch.lines.length >= 3);
        watch.stop();
        await server.waitUntil('the watch to end', () => watch.ended !== 'not');
        expect(watch.lines).to.deep.equal(['ADDED watched', 'MODIFIED watched', 'DELETED watched']);
        const versions = watch.texts.map((text) =>
          Number((JSON.parse(text) as { object: Stored }).object.metadata.resourceVersion),
        );
        expect(versions.slice(0, 2)).to.deep.equal(
          [metadata, patched.metadata].map((one) => Number(one.resourceVersion)),
        );
        expect(versions[2], "the deletion's own").to.be.greaterThan(versions[1] ?? 0);
        // The text by kind the reflector recognizes an own write without parsing the line.
        expect(watch.texts[0]).to.match(/^\{"type":"ADDED".*"resourceVersion":"\d+","uid":"[^"]+"\},"spec"/);
      });

      it('opens a watch from a version that is too old, sends a 410 event and ends it', async () => {
        const watch = watching('1');
        await server.waitUntil('the watch to end', () => watch.ended !== 'not');
        expect([watch.lines, watch.open]).to.deep.equal([['ERROR 410'], true]);
        expect(watch.ended).to.equal('by the server');
      });

      it('sends nothing on a watch from a version not reached yet', async () => {
        const { resourceVersion } = await server.settle(tunnels.list());
        const watch = watching(String(Number(resourceVersion) + 100_000));
        await createTunnel('unseen');
        await server.waitUntil('the watch to open', () => watch.open);
        const control = watching(resourceVersion);
        await server.waitUntil('an event on another watch', () => control.lines.length > 0);
        expect([watch.lines, watch.ended]).to.deep.equal([[], 'not']);
        watch.stop();
        control.stop();
        await server.waitUntil('both watches to end', () => watch.ended !== 'not' && control.ended !== 'not');
      });

      it('sets the default status of a reporter object until it is patched, and a patch keeps the other fields', async () => {
        const created = await server.settle(
          reporters.create({
            apiVersion: 'reverse-tunnel.io/v1alpha1',
            kind: 'ReverseTunnelReporter',
            metadata: { name: 'reporter' },
            spec: { id: 'responder-0', cluster: '' },
          }),
        );
        const summarize = (of: Stored): unknown[] =>
          (of.status?.conditions ?? []).map(({ type, reason }) => [type, reason]);
        const pending = ['Connected', 'Synced', 'Ready'].map((type) => [type, 'Pending']);
        expect(summarize(created)).to.deep.equal(pending);
        const owner = { replica: 'a', epoch: 1 };
        const { resourceVersion } = created.metadata;
        const patched = await server.settle(
          reporters.patchStatus('reporter', { metadata: { resourceVersion }, status: { owner } }),
        );
        expect([patched.status?.owner, summarize(patched)]).to.deep.equal([owner, pending]);
        const again = reporters.patchStatus('reporter', { metadata: { resourceVersion }, status: { owner } });
        expect(await errorKind(again), 'although the patch changes nothing').to.equal('409 conflict');
      });

      it('creates a Lease, patches it at its version and deletes it', async () => {
        const leases = server.client.resource<Stored>({
          group: 'coordination.k8s.io',
          version: 'v1',
          plural: 'leases',
          namespace: server.namespace,
        });
        const spec = {
          holderIdentity: 'a',
          leaseDurationSeconds: 15,
          renewTime: '2026-11-23T05:00:00.000000Z',
        };
        const lease = {
          apiVersion: 'coordination.k8s.io/v1',
          kind: 'Lease',
          metadata: { name: 'lease' },
          spec,
        };
        const created = await server.settle(leases.create(lease));
        expect(created.spec).to.deep.equal(spec);
        const { resourceVersion } = created.metadata;
        const renewal = { metadata: { resourceVersion }, spec: { holderIdentity: 'b' } };
        const patched = await server.settle(leases.patch('lease', renewal));
        expect(patched.spec).to.deep.equal({ ...spec, holderIdentity: 'b' });
        expect(await errorKind(leases.patch('lease', renewal))).to.equal('409 conflict');
        expect(await server.settle(leases.delete('lease', patched.metadata))).to.equal(undefined);
      });

      it('names the resource with its group in a rejection', async () => {
        await createTunnel('named');
        const rejectionOf = async (call: Promise<unknown>): Promise<string> =>
          server.settle(call).then(
            () => 'nothing',
            (error: unknown) => String(error),
          );
        expect(await rejectionOf(tunnels.get('missing'))).to.include(
          'reversetunnels.reverse-tunnel.io "missing" not found',
        );
        expect(await rejectionOf(tunnels.create(tunnel('named')))).to.include(
          'reversetunnels.reverse-tunnel.io "named" already exists',
        );
        const stale = { metadata: { resourceVersion: '1' } };
        expect(await rejectionOf(tunnels.patch('named', stale))).to.include(
          'Operation cannot be fulfilled on reversetunnels.reverse-tunnel.io "named"',
        );
      });

      it('returns fields in alphabetical order, whatever the order sent', async () => {
        const sent = { id: 'responder-1', cluster: 'edge' };
        await server.settle(
          reporters.create({
            apiVersion: 'reverse-tunnel.io/v1alpha1',
            kind: 'ReverseTunnelReporter',
            metadata: { name: 'ordered' },
            spec: sent,
          }),
        );
        const status = { owner: { replica: 'a', epoch: 1 } };
        const patched = await server.settle(reporters.patchStatus('ordered', { status }));
        expect(Object.keys(patched.spec)).to.deep.equal(['cluster', 'id']);
        expect(Object.keys(patched.status?.owner ?? {})).to.deep.equal(['epoch', 'replica']);
      });

      it('answers in plain text for a kind that is not served', async () => {
        const unserved = clientOf('nonesuch');
        expect(await errorKind(unserved.list())).to.equal('404 no_kind_match');
        expect(await errorKind(unserved.create({ metadata: { name: 'a' } }))).to.equal('404 no_kind_match');
      });
    });
  }
});
