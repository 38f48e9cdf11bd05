import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

import { useControlPlane } from '../support/control-plane.ts';
import { createCrdNamespace, SLICE_SPEC, TUNNEL_SPEC, type CrdNamespace } from '../support/crd-objects.ts';

const ROW_COLUMNS = ['NAME', 'TENANT', 'CLUSTER', 'NODE', 'REPORTER', 'STATE', 'UP', 'AGE'];

/** The file of each kind, by its short name. */
const FILES: Readonly<Record<string, string>> = {
  rt: 'reversetunnels',
  rtr: 'reversetunnelreporters',
  rtp: 'reversetunnelpolicies',
  rte: 'reversetunnelexpectations',
  rts: 'reversetunnelslices',
};

/** Splits a line of kubectl output into cells, which are at least two spaces apart. */
function cells(line: string | undefined): string[] {
  return (line ?? '').trimEnd().split(/\s{2,}/);
}

describe('CRDs in kubectl on a real API server', () => {
  const controlPlane = useControlPlane();
  let space: CrdNamespace;
  before(async () => {
    space = await createCrdNamespace(controlPlane());
    const { code } = await space.create('reversetunnels', { name: 'node-17', spec: TUNNEL_SPEC });
    expect(code).to.equal(201);
    const spec = { id: 'responder-0', cluster: 'edge' };
    expect((await space.create('reversetunnelreporters', { name: 'responder-0', spec })).code).to.equal(201);
    const slice = { name: 'responder-0-0', spec: SLICE_SPEC };
    expect((await space.create('reversetunnelslices', slice)).code).to.equal(201);
  });

  /** Returns the output of `kubectl get`, line by line. */
  async function table(...args: string[]): Promise<string[]> {
    return (await space.kubectl('get', ...args)).trimEnd().split('\n');
  }

  for (const crd of [
    'reversetunnels.reverse-tunnel.io',
    'reversetunnelreporters.reverse-tunnel.io',
    'reversetunnelpolicies.reverse-tunnel.io',
    'reversetunnelexpectations.reverse-tunnel.io',
    'reversetunnelslices.reverse-tunnel.io',
  ]) {
    it(`${crd} is established with accepted names and without problems`, async () => {
      const condition = '{range .status.conditions[*]}{.type}={.status} {end}';
      const given = await space.kubectl('get', 'crd', crd, '-o', `jsonpath=${condition}`);
      expect(given.trim().split(' ').toSorted()).to.deep.equal(['Established=True', 'NamesAccepted=True']);
    });
  }

  it('kubectl get rt prints the columns', async () => {
    const [header, line] = await table('rt');
    expect(cells(header)).to.deep.equal(ROW_COLUMNS);
    const values = cells(line);
    expect(values.slice(0, 6)).to.deep.equal([
      'node-17',
      'acme',
      'eu-1',
      'node-17',
      'responder-0',
      'Connected',
    ]);
    expect(values).to.have.length(8);
  });

  it('kubectl get rt -o wide adds TUNNEL and REASON', async () => {
    const [header, line] = await table('rt', '-o', 'wide');
    expect(cells(header)).to.deep.equal([...ROW_COLUMNS, 'TUNNEL', 'REASON']);
    expect(cells(line).slice(8)).to.deep.equal(['acme:node-17', 'Reported']);
  });

  it('kubectl get rt prints the time since createdAt as UP', async () => {
    const createdAt = new Date(Date.now() - 3 * 3_600_000).toISOString();
    await space.create('reversetunnels', { name: 'three-hours', spec: { ...TUNNEL_SPEC, createdAt } });
    const [, line] = await table('rt', 'three-hours');
    expect(cells(line)[6]).to.match(/^3h/);
  });

  it('kubectl get rtr prints the columns before and after a claim', async () => {
    const [header, unclaimed] = await table('rtr');
    expect(cells(header)).to.deep.equal([
      'NAME',
      'CLUSTER',
      'CONNECTED',
      'SYNCED',
      'TUNNELS',
      'OWNER',
      'AGE',
    ]);
    expect(cells(unclaimed).slice(0, 4)).to.deep.equal(['responder-0', 'edge', 'Unknown', 'Unknown']);
    const condition = { message: '', lastTransitionTime: '2026-11-23T05:00:00Z', observedGeneration: 1 };
    const status = {
      owner: { replica: 'replica-a-1', epoch: 1 },
      connectedSince: '2026-11-23T05:00:00Z',
      lastFullPush: { time: '2026-11-23T05:00:00Z', tunnels: 12 },
      tunnels: { reported: 12, applied: 11, rejected: 1 },
      reportIntervalSeconds: 0.025,
      envoyVersion: '1.38.0',
      locality: { region: 'eu', zone: 'eu-a', subZone: 'rack-4' },
      recentDisconnects: [{ time: '2026-11-23T04:59:00Z', reason: 'StreamEnded', durationSeconds: 60 }],
      observedGeneration: 1,
      conditions: [
        { ...condition, type: 'Connected', status: 'True', reason: 'StreamOpen' },
        { ...condition, type: 'Synced', status: 'False', reason: 'TunnelsRejected' },
        { ...condition, type: 'Ready', status: 'False', reason: 'NotSynced' },
      ],
    };
    const patch = ['--subresource=status', '--type=merge', '-p', JSON.stringify({ status })];
    await space.kubectl('patch', 'rtr/responder-0', ...patch);
    const [, claimed] = await table('rtr');
    const wanted = ['responder-0', 'edge', 'True', 'False', '12', 'replica-a-1'];
    expect(cells(claimed).slice(0, 6)).to.deep.equal(wanted);
    // Nothing is pruned, because the schema knows every field.
    expect((await space.get('reversetunnelreporters', 'responder-0')).status).to.deep.equal(status);
  });

  it('kubectl get rts prints the columns, and REASON with -o wide', async () => {
    const columns = ['NAME', 'REPORTER', 'TENANT', 'TUNNELS', 'STATE', 'AGE'];
    const values = ['responder-0-0', 'responder-0', 'acme', '2', 'Connected'];
    const [header, line] = await table('rts');
    expect(cells(header)).to.deep.equal(columns);
    expect(cells(line).slice(0, 5)).to.deep.equal(values);
    const [wideHeader, wideLine] = await table('rts', '-o', 'wide');
    expect(cells(wideHeader)).to.deep.equal([...columns, 'REASON']);
    expect(cells(wideLine)[6]).to.equal('Reported');
  });

  it('kubectl get lists all kinds by their category', async () => {
    const names = (await space.kubectl('get', 'reverse-tunnels', '-o', 'name')).trim().split('\n');
    expect(names).to.include.members([
      'reversetunnel.reverse-tunnel.io/node-17',
      'reversetunnelreporter.reverse-tunnel.io/responder-0',
      'reversetunnelslice.reverse-tunnel.io/responder-0-0',
    ]);
  });

  for (const path of [
    'rt',
    'rt.spec',
    'rt.spec.reporter',
    'rt.status',
    'rt.status.conditions',
    'rtr.spec',
    'rtr.status',
    'rtr.status.recentDisconnects',
    'rtp',
    'rtp.spec.rules',
    'rtp.spec.rules.peers',
    'rtp.spec.rules.limits',
    'rtp.status',
    'rte',
    'rte.spec',
    'rte.spec.match',
    'rte.spec.match.selector',
    'rte.spec.match.selector.matchExpressions',
    'rte.status',
    'rts',
    'rts.spec',
    'rts.spec.reporter',
    'rts.spec.tunnels',
    'rts.status',
    'rts.status.tunnels',
  ]) {
    it(`kubectl explain ${path} prints each field with its description`, async () => {
      const printed = words(await space.kubectl('explain', path));
      const { own, fields } = described(path);
      expect(printed).to.contain(words(own));
      expect(Object.keys(fields).length).to.be.greaterThan(1);
      for (const [field, text] of Object.entries(fields)) expect(printed, field).to.contain(words(text));
    });
  }

  for (const short of Object.keys(FILES)) {
    it(`kubectl explain ${short}.metadata prints the fields of Kubernetes`, async () => {
      const printed = await space.kubectl('explain', `${short}.metadata`);
      expect(printed).to.match(/^FIELD: metadata <ObjectMeta>$/m);
      expect(printed).to.match(/^ {2}finalizers\t<\[\]string>$/m);
    });
  }

  it('kubectl explain --recursive prints the whole spec of rt', async () => {
    const printed = await space.kubectl('explain', 'rt.spec', '--recursive');
    const fields = [...printed.matchAll(/^ +(\w+)\t<(\w+)>(?: (-required-))?$/gm)].map((match) =>
      match.slice(1),
    );
    expect(fields).to.deep.equal([
      ['clusterID', 'string', '-required-'],
      ['createdAt', 'string', undefined],
      ['nodeID', 'string', '-required-'],
      ['reporter', 'Object', '-required-'],
      ['cluster', 'string', '-required-'],
      ['id', 'string', '-required-'],
      ['tenantID', 'string', '-required-'],
      ['tunnelName', 'string', '-required-'],
    ]);
  });
});

/** Returns a text without line breaks, because kubectl wraps lines differently. */
function words(text: string): string {
  return text.split(/\s+/).join(' ').trim();
}

interface Described {
  readonly description: string;
  readonly properties?: Readonly<Record<string, Described>>;
  readonly items?: Described;
}

/** Returns the descriptions in the YAML at a path of `kubectl explain`. */
function described(path: string): { own: string; fields: Record<string, string> } {
  const [short, ...names] = path.split('.');
  const file = FILES[short ?? ''];
  const text = readFileSync(new URL(`../../crds/${file}.yaml`, import.meta.url), 'utf8');
  const crd: { spec: { versions: { schema: { openAPIV3Schema: Described } }[] } } = parse(text);
  let schema = crd.spec.versions[0]?.schema.openAPIV3Schema;
  for (const name of names) {
    const property = schema?.properties?.[name];
    schema =
      property?.items === undefined ? property : { ...property.items, description: property.description };
  }
  if (schema === undefined) throw new Error(`${file}.yaml has no ${path}`);
  const fields: Record<string, string> = {};
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    // The API server inserts its own descriptions there.
    if (!['apiVersion', 'kind'].includes(name)) fields[name] = property.description;
  }
  return { own: schema.description, fields };
}
