/**
 * What the simulation's API server in memory is held to: each case is asked of it and of a real one, and both have to
 * answer alike.
 */
import { expect } from 'chai';
import { ApiError } from '../../src/k8s/api-error.ts';
import type { ResourceClient } from '../../src/k8s/resource-client.ts';
import { connectToRealServer, startMemoryServer, type ContractServer } from '../support/api-contract.ts';
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

function row(name: string, metadata: object = {}): object {
  return {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnel',
    metadata: { name, ...metadata },
    spec: TUNNEL_SPEC,
  };
}

describe('the contract of an API server', () => {
  const controlPlane = useControlPlane();
  for (const which of ['in memory', 'real'] as const) {
    describe(which, () => {
      let server: ContractServer;
      let rows: ResourceClient<Stored>;
      let reporters: ResourceClient<Stored>;

      before(async () => {
        server = which === 'real' ? await connectToRealServer(controlPlane()) : startMemoryServer();
        rows = clientOf('reversetunnels');
        reporters = clientOf('reversetunnelreporters');
      });
      after(() => server.close());

      function clientOf(plural: string, namespace = server.namespace): ResourceClient<Stored> {
        return server.client.resource<Stored>({ ...GROUP, plural, namespace });
      }
      const made = (name: string, metadata: object = {}): Promise<Stored> =>
        server.settle(rows.create(row(name, metadata)));

      async function consequence(call: Promise<unknown>): Promise<string> {
        try {
          await server.settle(call);
          return 'none';
        } catch (error) {
          return error instanceof ApiError ? `${error.status ?? ''} ${error.kind}` : String(error);
        }
      }

      /** Watches from a version on; lines as `TYPE name version`, and how it ended. */
      function watching(from: string) {
        const lines: string[] = [];
        const texts: string[] = [];
        const state = { lines, texts, open: false, ended: 'not' };
        const abort = new AbortController();
        const over = rows.watch(
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

      it('a row that is created has its default status, and no other', async () => {
        const status = { state: 'Unknown', conditions: [] };
        const created = await server.settle(rows.create({ ...row('defaults'), status }));
        expect(created.status).to.deep.equal({
          state: 'Connected',
          conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
        });
        expect(created.spec).to.deep.equal(TUNNEL_SPEC);
        expect(created.metadata.creationTimestamp).to.match(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      });

      it('is not created twice, nor at a version, nor with an illegal name or label', async () => {
        await made('once');
        expect(await consequence(rows.create(row('once')))).to.equal('409 already_exists');
        expect(await consequence(rows.create(row('versioned', { resourceVersion: '5' })))).to.equal(
          '500 unavailable',
        );
        expect(await consequence(rows.create(row('Not_Legal')))).to.equal('422 rejected');
        const labels = { team: 'a b' };
        expect(await consequence(rows.create(row('labelled', { labels })))).to.equal('422 rejected');
      });

      it('a merge patch holds its version for a precondition, and changes nothing where there is nothing to change', async () => {
        const { metadata } = await made('patched', { labels: { a: '1', b: '2' } });
        const change = {
          metadata: { resourceVersion: metadata.resourceVersion, labels: { a: null, c: '3' } },
        };
        const patched = await server.settle(rows.patch('patched', change));
        expect(patched.metadata.labels).to.deep.equal({ b: '2', c: '3' });
        expect(Number(patched.metadata.resourceVersion)).to.be.greaterThan(Number(metadata.resourceVersion));
        expect(patched.metadata.uid).to.equal(metadata.uid);
        expect(await consequence(rows.patch('patched', change))).to.equal('409 conflict');
        const { resourceVersion } = patched.metadata;
        const same = { metadata: { resourceVersion, labels: { c: '3' } } };
        expect((await server.settle(rows.patch('patched', same))).metadata.resourceVersion).to.equal(
          resourceVersion,
        );
        expect(await consequence(rows.patch('nobody', same))).to.equal('404 not_found');
      });

      it('spec and status are patched apart from each other', async () => {
        await made('apart');
        const both = { spec: { createdAt: null }, status: { state: 'Unknown' } };
        const main = await server.settle(rows.patch('apart', both));
        expect([main.spec['createdAt'], main.status?.state]).to.deep.equal([undefined, 'Connected']);
        const other = { spec: { createdAt: '2026-01-01T00:00:00Z' }, status: { state: 'Unknown' } };
        const status = await server.settle(rows.patchStatus('apart', other));
        expect([status.spec['createdAt'], status.status?.state]).to.deep.equal([undefined, 'Unknown']);
      });

      it('a list in a status is replaced whole, and a status that is taken away is the default again', async () => {
        await made('listed');
        const conditions = [{ type: 'Ready', status: 'Unknown', reason: 'ReporterLost' }];
        const lost = await server.settle(rows.patchStatus('listed', { status: { conditions } }));
        expect(lost.status).to.deep.equal({ state: 'Connected', conditions });
        const reset = await server.settle(rows.patchStatus('listed', { status: null }));
        expect(reset.status?.conditions?.map(({ reason }) => reason)).to.deep.equal(['Reported']);
      });

      it('identity is immutable, createdAt is not', async () => {
        await made('identity');
        expect(await consequence(rows.patch('identity', { spec: { nodeID: 'other' } }))).to.equal(
          '422 rejected',
        );
        const createdAt = '2027-01-01T00:00:00Z';
        expect(
          (await server.settle(rows.patch('identity', { spec: { createdAt } }))).spec['createdAt'],
        ).to.equal(createdAt);
      });

      it('a deletion holds uid and version for preconditions', async () => {
        const { uid, resourceVersion } = (await made('deleted')).metadata;
        expect(await consequence(rows.delete('deleted', { uid: 'other', resourceVersion }))).to.equal(
          '409 conflict',
        );
        expect(await consequence(rows.delete('deleted', { uid, resourceVersion: '1' }))).to.equal(
          '409 conflict',
        );
        expect(await server.settle(rows.delete('deleted', { uid, resourceVersion }))).to.equal(undefined);
        expect(await consequence(rows.delete('deleted', { uid, resourceVersion }))).to.equal('404 not_found');
        expect(await consequence(rows.get('deleted'))).to.equal('404 not_found');
      });

      it('an object with a finalizer stands, and keeps its name, until that is gone', async () => {
        const { metadata } = await made('held', { finalizers: ['example.com/hold'] });
        const left = await server.settle(rows.delete('held', metadata));
        expect(left?.metadata.deletionTimestamp).to.be.a('string');
        expect(Number(left?.metadata.resourceVersion)).to.be.greaterThan(Number(metadata.resourceVersion));
        expect(await consequence(rows.create(row('held')))).to.equal('409 already_exists');
        await server.settle(rows.patch('held', { metadata: { finalizers: null } }));
        expect(await consequence(rows.get('held'))).to.equal('404 not_found');
        expect((await made('held')).metadata.uid).not.to.equal(metadata.uid);
      });

      it('pages of a list show one version, whatever happens between them', async () => {
        const listed = clientOf('reversetunnels');
        for (const name of ['page-a', 'page-b', 'page-c']) await made(name);
        const first = await server.settle(listed.list({ limit: 1 }));
        await made('page-0');
        const names = first.items.map(({ metadata }) => metadata.name);
        for (let token = first.continueToken; token !== undefined;) {
          const page = await server.settle(listed.list({ limit: 2, continueToken: token }));
          expect(page.resourceVersion).to.equal(first.resourceVersion);
          names.push(...page.items.map(({ metadata }) => metadata.name));
          token = page.continueToken;
        }
        expect(names.filter((name) => name.startsWith('page'))).to.deep.equal(['page-a', 'page-b', 'page-c']);
        expect(names, 'in the order of names').to.deep.equal(names.toSorted());
        const one = await server.settle(listed.list({ fieldSelector: 'metadata.name=page-0' }));
        expect(one.items.map(({ metadata }) => metadata.name)).to.deep.equal(['page-0']);
        const none = await server.settle(listed.list({ fieldSelector: 'metadata.name=nobody' }));
        expect(none.items).to.deep.equal([]);
      });

      it('a watch shows what happened since its version and what happens then, in order, each with its version', async () => {
        const { resourceVersion } = await server.settle(rows.list());
        const { metadata } = await made('watched', { labels: { a: '1' } });
        const watch = watching(resourceVersion);
        await server.waitUntil('an event', () => watch.lines.length === 1);
        const patched = await server.settle(rows.patch('watched', { metadata: { labels: { a: '2' } } }));
        await server.settle(rows.delete('watched', patched.metadata));
        await server.waitUntil('the deletion', () => watch.lines.length >= 3);
        watch.stop();
        await server.waitUntil('the end', () => watch.ended !== 'not');
        expect(watch.lines).to.deep.equal(['ADDED watched', 'MODIFIED watched', 'DELETED watched']);
        const versions = watch.texts.map((text) =>
          Number((JSON.parse(text) as { object: Stored }).object.metadata.resourceVersion),
        );
        expect(versions.slice(0, 2)).to.deep.equal(
          [metadata, patched.metadata].map((one) => Number(one.resourceVersion)),
        );
        expect(versions[2], "the deletion's own").to.be.greaterThan(versions[1] ?? 0);
        // What the reflector finds own write by, without reading all of the line.
        expect(watch.texts[0]).to.match(/^\{"type":"ADDED".*"resourceVersion":"\d+","uid":"[^"]+"\},"spec"/);
      });

      it('a watch from too old a version is opened, told 410 as an event, and ended', async () => {
        const watch = watching('1');
        await server.waitUntil('the end', () => watch.ended !== 'not');
        expect([watch.lines, watch.open]).to.deep.equal([['ERROR 410'], true]);
        expect(watch.ended).to.equal('by the server');
      });

      it('a watch from a version that is not there yet is silent', async () => {
        const { resourceVersion } = await server.settle(rows.list());
        const watch = watching(String(Number(resourceVersion) + 100_000));
        await made('unseen');
        await server.waitUntil('it is open', () => watch.open);
        const control = watching(resourceVersion);
        await server.waitUntil('another that shows it', () => control.lines.length > 0);
        expect([watch.lines, watch.ended]).to.deep.equal([[], 'not']);
        watch.stop();
        control.stop();
        await server.waitUntil('their ends', () => watch.ended !== 'not' && control.ended !== 'not');
      });

      it("a reporter's status is its default until it is patched, and the patch leaves the rest", async () => {
        const created = await server.settle(
          reporters.create({
            apiVersion: 'reverse-tunnel.io/v1alpha1',
            kind: 'ReverseTunnelReporter',
            metadata: { name: 'reporter' },
            spec: { id: 'responder-0', cluster: '' },
          }),
        );
        const shown = (of: Stored): unknown[] =>
          (of.status?.conditions ?? []).map(({ type, reason }) => [type, reason]);
        const pending = ['Connected', 'Synced', 'Ready'].map((type) => [type, 'Pending']);
        expect(shown(created)).to.deep.equal(pending);
        const owner = { replica: 'a', epoch: 1 };
        const { resourceVersion } = created.metadata;
        const patched = await server.settle(
          reporters.patchStatus('reporter', { metadata: { resourceVersion }, status: { owner } }),
        );
        expect([patched.status?.owner, shown(patched)]).to.deep.equal([owner, pending]);
        const again = reporters.patchStatus('reporter', { metadata: { resourceVersion }, status: { owner } });
        expect(await consequence(again), 'though nothing would change').to.equal('409 conflict');
      });

      it('a Lease is created, patched under its version and deleted', async () => {
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
        expect(await consequence(leases.patch('lease', renewal))).to.equal('409 conflict');
        expect(await server.settle(leases.delete('lease', patched.metadata))).to.equal(undefined);
      });

      it('a refusal names the resource with its group', async () => {
        await made('named');
        const refused = async (call: Promise<unknown>): Promise<string> =>
          server.settle(call).then(
            () => 'nothing',
            (error: unknown) => String(error),
          );
        expect(await refused(rows.get('nobody'))).to.include(
          'reversetunnels.reverse-tunnel.io "nobody" not found',
        );
        expect(await refused(rows.create(row('named')))).to.include(
          'reversetunnels.reverse-tunnel.io "named" already exists',
        );
        const stale = { metadata: { resourceVersion: '1' } };
        expect(await refused(rows.patch('named', stale))).to.include(
          'Operation cannot be fulfilled on reversetunnels.reverse-tunnel.io "named"',
        );
      });

      it('fields come in the order of the alphabet, in whichever they were sent', async () => {
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

      it('a kind that is not served is told in plain text', async () => {
        const nonesuch = clientOf('nonesuch');
        expect(await consequence(nonesuch.list())).to.equal('404 no_kind_match');
        expect(await consequence(nonesuch.create({ metadata: { name: 'a' } }))).to.equal('404 no_kind_match');
      });
    });
  }
});
