/** ReverseTunnelSlices with running replicas: migration, restart, a killed replica, and external changes. */
import { expect } from 'chai';
import type { Fleet } from '../../src/simulate/fleet.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { poll } from '../support/operator-process.ts';
import { createReplicas, type Replicas } from '../support/replicas.ts';

const DEADLINE_MS = 180_000;
const STEP_MS = 60_000;
const REPORTERS = 2;
const TUNNELS = 150;
const API = '/apis/reverse-tunnel.io/v1alpha1';

type Form = 'reversetunnels' | 'reversetunnelslices';

interface MirrorObject {
  readonly metadata: { readonly name: string; readonly uid: string; readonly resourceVersion: string };
  readonly spec: {
    readonly reporter: { readonly id: string };
    readonly tunnelName?: string;
    readonly tunnels?: readonly { readonly name: string; readonly nodeID: string }[];
  };
}

interface MirrorEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: MirrorObject;
}

/** Returns the tunnels that an object or a slice shows, as `reporter/name`. */
function tunnelsOf({ spec }: MirrorObject): string[] {
  const names = spec.tunnels?.map(({ name }) => name) ?? [spec.tunnelName ?? ''];
  return names.map((name) => `${spec.reporter.id}/${name}`);
}

describe('tunnels in slices', () => {
  const controlPlane = useControlPlane();
  let replicas: Replicas;
  let fleet: Fleet;

  beforeEach(async () => {
    replicas = await createReplicas(controlPlane(), 'slices');
  });
  afterEach(() => replicas.stop());

  async function list(form: Form): Promise<{ items: MirrorObject[]; version: string }> {
    const path = `${API}/namespaces/${replicas.namespace}/${form}`;
    const { status, body } = await controlPlane().request('GET', path);
    expect(status).to.equal(200);
    const { items, metadata } = body as { items: MirrorObject[]; metadata: { resourceVersion: string } };
    return { items, version: metadata.resourceVersion };
  }

  const shown = async (form: Form): Promise<string[]> =>
    (await list(form)).items.flatMap((object) => tunnelsOf(object)).toSorted();

  /** Waits until all tunnels are in one form, and none is in the other. */
  async function waitUntilAllIn(form: Form, expected: number): Promise<string[]> {
    const other = form === 'reversetunnels' ? 'reversetunnelslices' : 'reversetunnels';
    return await poll(STEP_MS, async () => {
      const names = await shown(form);
      return names.length === expected && (await list(other)).items.length === 0 ? names : undefined;
    });
  }

  /** Returns what a watch of one form has shown since a version. */
  async function history(form: Form, sinceVersion: string): Promise<MirrorEvent[]> {
    const path = `${API}/namespaces/${replicas.namespace}/${form}`;
    const query = `watch=true&timeoutSeconds=1&resourceVersion=${sinceVersion}`;
    const { code, stdout, stderr } = await controlPlane().kubectl(['get', '--raw', `${path}?${query}`]);
    expect(code, stderr).to.equal(0);
    return stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as MirrorEvent);
  }

  /** Returns the events of both forms in the order of the versions, up to the current objects, which are all newer. */
  async function completeHistory(sinceVersion: string): Promise<MirrorEvent[]> {
    const forms = ['reversetunnels', 'reversetunnelslices'] as const;
    const current: string[] = [];
    for (const form of forms) current.push(...(await list(form)).items.map(({ metadata }) => metadata.uid));
    // A watch of a second may end before the API server has sent everything.
    return await poll(STEP_MS, async () => {
      const events: MirrorEvent[] = [];
      for (const form of forms) events.push(...(await history(form, sinceVersion)));
      const added = new Set<string>();
      for (const { type, object } of events) {
        if (type === 'DELETED') added.delete(object.metadata.uid);
        else added.add(object.metadata.uid);
      }
      if (!current.every((uid) => added.has(uid)) || added.size !== current.length) return undefined;
      return events.toSorted(
        (a, b) => Number(a.object.metadata.resourceVersion) - Number(b.object.metadata.resourceVersion),
      );
    });
  }

  /** Replays the watches of both forms in the order of the versions. Returns tunnels that were in neither form. */
  async function gapsSince(sinceVersion: string, before: readonly MirrorObject[]): Promise<string[]> {
    const objects = new Map(before.map((object) => [object.metadata.uid, object]));
    const expected = new Set(before.flatMap((object) => tunnelsOf(object)));
    const events = await completeHistory(sinceVersion);
    const gaps = new Set<string>();
    for (const { type, object } of events) {
      if (type === 'DELETED') objects.delete(object.metadata.uid);
      else objects.set(object.metadata.uid, object);
      const present = new Set([...objects.values()].flatMap((known) => tunnelsOf(known)));
      for (const name of expected) if (!present.has(name)) gaps.add(name);
    }
    return [...gaps];
  }

  async function setRepresentation(representation: 'objects' | 'slices'): Promise<void> {
    const policy = {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnelPolicy',
      metadata: { name: 'everything' },
      spec: {
        rules: [{ peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'], representation }],
      },
    };
    const { code, stderr } = await controlPlane().kubectl(
      ['-n', replicas.namespace, 'apply', '--server-side', '-f', '-'],
      { input: JSON.stringify(policy) },
    );
    expect(code, stderr).to.equal(0);
  }

  /** Returns the number of writes of slices by replicas. */
  const sliceWrites = async (): Promise<number> =>
    (await replicas.writes()).filter(({ resource }) => resource.startsWith('reversetunnelslices')).length;

  it('move to slices and back while a watch shows each of them at every moment', async function () {
    this.timeout(DEADLINE_MS);
    await setRepresentation('objects');
    await replicas.start();
    fleet = await replicas.startFleet({ reporters: REPORTERS, tunnels: TUNNELS, tenants: 2 });
    const names = await waitUntilAllIn('reversetunnels', REPORTERS * TUNNELS);
    const objects = await list('reversetunnels');
    await setRepresentation('slices');
    expect(await waitUntilAllIn('reversetunnelslices', names.length)).to.deep.equal(names);
    expect(await gapsSince(objects.version, objects.items)).to.be.empty;
    // Two tenants of two reporters, with 75 tunnels each.
    expect((await list('reversetunnelslices')).items).to.have.lengthOf(4);
    const slices = await list('reversetunnelslices');
    await setRepresentation('objects');
    expect(await waitUntilAllIn('reversetunnels', names.length)).to.deep.equal(names);
    expect(await gapsSince(slices.version, slices.items)).to.be.empty;
    expect(fleet.tunnelCount()).to.equal(names.length);
  });

  it('cost no write after a restart or the death of a replica, and one write per changed tunnel', async function () {
    this.timeout(DEADLINE_MS);
    const flags = ['--representation', 'slices'];
    const first = await replicas.start(flags);
    fleet = await replicas.startFleet({ reporters: REPORTERS, tunnels: TUNNELS, tenants: 1 });
    const names = await waitUntilAllIn('reversetunnelslices', REPORTERS * TUNNELS);
    const written = await sliceWrites();
    await replicas.end(first, 'SIGTERM');
    const second = await replicas.start(flags);
    await replicas.waitUntilServed(REPORTERS, STEP_MS);
    await replicas.end(second, 'SIGKILL');
    const third = await replicas.start(flags);
    await replicas.waitUntilServed(REPORTERS, STEP_MS);
    expect(await sliceWrites()).to.equal(written);
    expect(await shown('reversetunnelslices')).to.deep.equal(names);

    const [changed] = fleet.reporters;
    const [lost = ''] = changed?.expectedTunnels().keys() ?? [];
    expect(changed?.disconnectTunnel(lost)).to.equal(true);
    names.splice(names.indexOf(`${changed?.id.id ?? ''}/${lost}`), 1);
    await poll(STEP_MS, async () => {
      const all = await shown('reversetunnelslices');
      return all.length === names.length ? true : undefined;
    });
    expect(await shown('reversetunnelslices')).to.deep.equal(names);
    expect(await sliceWrites()).to.equal(written + 1);

    const [slice] = (await list('reversetunnelslices')).items;
    const path = `${API}/namespaces/${replicas.namespace}/reversetunnelslices/${slice?.metadata.name ?? ''}`;
    await controlPlane().request('DELETE', path);
    await poll(STEP_MS, async () => {
      const all = await shown('reversetunnelslices');
      return all.length === names.length ? true : undefined;
    });
    expect(await sliceWrites()).to.equal(written + 2);
    const [edited, ...others] = slice?.spec.tunnels ?? [];
    const tunnels = [{ ...edited, nodeID: 'edited' }, ...others];
    const { code, stderr } = await controlPlane().kubectl([
      ...['-n', replicas.namespace, 'patch', 'rts', slice?.metadata.name ?? '', '--type=merge'],
      ...['-p', JSON.stringify({ spec: { tunnels } })],
    ]);
    expect(code, stderr).to.equal(0);
    await poll(STEP_MS, async () => ((await sliceWrites()) === written + 3 ? true : undefined));
    const { items } = await list('reversetunnelslices');
    expect(items.flatMap(({ spec }) => spec.tunnels ?? []).map(({ nodeID }) => nodeID)).to.not.include(
      'edited',
    );
    expect(third.process.log.filter(({ level }) => level === 'error')).to.be.empty;
  });
});
