import { expect } from 'chai';
import { parse, parseAllDocuments } from 'yaml';
import { humanDuration } from '../../src/cli/human-duration.ts';
import { formatHumanDuration } from '../../embedded-api-server/human-duration.ts';
import { sliceManifest, type SliceObject } from '../../src/core/slice-object.ts';
import { manifestFor, type TunnelObject } from '../../src/core/tunnel-object.ts';
import type { Tunnel } from '../../src/core/tunnel.ts';
import { parseLabelSelector } from '../../src/cli/label-selector.ts';
import { listedTunnelsOf, tunnelOfObject, type ListedTunnel } from '../../src/get/listed-tunnel.ts';
import { outputFormat, type Output, type OutputOptions } from '../../src/get/output-format.ts';
import { tunnelFilter, type FilterFlags } from '../../src/get/tunnel-filter.ts';
import { VisibleTunnels } from '../../src/get/visible-tunnels.ts';
import { names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const NOW_MS = Date.parse('2026-11-23T08:00:00Z');
const CREATED = '2026-11-23T07:59:00Z';

function object(reported: Tunnel, state = 'Connected'): TunnelObject {
  const { spec, labels, name } = manifestFor(names, RESPONDER, reported);
  const metadata = {
    ...{ name, uid: 'u', resourceVersion: '1', labels },
    ...{ namespace: 'tunnels', creationTimestamp: CREATED, managedFields: [{ manager: 'm' }] },
  };
  const reason = state === 'Unknown' ? 'ReporterLost' : 'Reported';
  const condition = { type: 'Ready', status: state === 'Unknown' ? 'Unknown' : 'True', reason };
  return { metadata, spec, status: { state, conditions: [condition] } };
}

function slice(tunnels: readonly Tunnel[], status: SliceObject['status'] = CONNECTED): SliceObject {
  const { spec, labels, name } = sliceManifest(names, RESPONDER, 'acme', 0, tunnels);
  const metadata = {
    ...{ name, uid: 's', resourceVersion: '2', labels },
    ...{ namespace: 'tunnels', creationTimestamp: CREATED },
  };
  return { metadata, spec, status };
}

const CONNECTED = { state: 'Connected', conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }] };

function entries(...args: Parameters<typeof slice>): ListedTunnel[] {
  return [...listedTunnelsOf(names, slice(...args))];
}

const OPTIONS: OutputOptions = {
  ...{ output: '', hasHeader: true, hasNamespace: false },
  ...{ isWatch: false, hasEvents: false },
};

/** Prints tunnels as `rt get` does. */
function print(tunnels: readonly ListedTunnel[], options: Partial<OutputOptions> = {}): string {
  const format = outputFormat({ ...OPTIONS, ...options });
  let printed = '';
  format.print(tunnels.map(format.encode), NOW_MS, (text) => (printed += text));
  return printed;
}

describe('tunnels of rt get', () => {
  const node1 = tunnel('node-1');
  const isolated = tunnel('acme:node-2', { clusterID: 'acme:eu-1', nodeID: 'acme:node-2' });

  it('have the same identity, labels and state in both forms', () => {
    for (const reported of [node1, isolated, tunnel('node-3', { createdAt: undefined })]) {
      const { metadata, spec, status } = tunnelOfObject(object(reported));
      const [entry] = entries([reported]);
      expect(entry?.metadata).to.include({ name: metadata.name, namespace: 'tunnels' });
      expect(entry?.metadata.labels).to.deep.equal(metadata.labels);
      expect(entry?.spec).to.deep.equal(spec);
      expect(entry?.status).to.deep.equal(status);
    }
  });

  it('have the same line in both forms', () => {
    for (const output of ['', 'wide', 'name'] as Output[])
      expect(print(entries([node1, isolated]), { output })).to.equal(
        print([tunnelOfObject(object(node1)), tunnelOfObject(object(isolated))], { output }),
      );
  });

  it('name the slice of an entry in an annotation, and show no managed fields', () => {
    const [entry] = entries([node1]);
    const { name } = slice([node1]).metadata;
    expect(entry?.metadata.annotations).to.deep.equal({ 'reverse-tunnel.io/slice': name });
    expect(tunnelOfObject(object(node1)).metadata).to.not.have.property('managedFields');
  });

  it('have the state of the slice, except for the entries that the status lists', () => {
    const status = { ...CONNECTED, tunnels: [{ name: 'node-2', state: 'Unknown' }] };
    const shown = entries([node1, tunnel('node-2')], status);
    expect(shown.map(({ status: own }) => own)).to.deep.equal([
      CONNECTED,
      { state: 'Unknown', conditions: [{ type: 'Ready', status: 'Unknown', reason: 'ReporterLost' }] },
    ]);
    const unknown = { type: 'Ready', status: 'Unknown', reason: 'ReporterLost', lastTransitionTime: CREATED };
    expect(entries([node1], { state: 'Unknown', conditions: [unknown] })[0]?.status).to.deep.equal({
      state: 'Unknown',
      conditions: [unknown],
    });
  });
});

describe('the table of rt get', () => {
  it('has the columns and gaps of kubectl', () => {
    expect(print(entries([tunnel('node-1')])).split('\n')).to.deep.equal([
      'NAME                   TENANT   CLUSTER   NODE     REPORTER      STATE       UP     AGE',
      'node-1-6gxnr43zv7b42   acme     eu-1      node-1   responder-0   Connected   179m   60s',
      '',
    ]);
  });

  it('leaves UP blank for a time that is missing or in the future', () => {
    const lines = print(
      entries([tunnel('a', { createdAt: undefined }), tunnel('b', { createdAt: '2026-11-23T09:00:00Z' })]),
      { hasHeader: false },
    );
    for (const line of lines.trimEnd().split('\n')) expect(line).to.match(/Connected {9}60s$/);
  });

  it('adds TUNNEL and REASON with -o wide, NAMESPACE with -A, and EVENT in a watch', () => {
    const [header, line] = print(entries([tunnel('node-1')]), {
      ...{ output: 'wide', hasNamespace: true, hasEvents: true },
    }).split('\n');
    expect(header?.split(/ {2,}/)).to.deep.equal([
      ...['EVENT', 'NAMESPACE', 'NAME', 'TENANT', 'CLUSTER', 'NODE', 'REPORTER', 'STATE', 'UP', 'AGE'],
      ...['TUNNEL', 'REASON'],
    ]);
    expect(line)
      .to.match(/^ADDED {6}tunnels {5}node-1-/)
      .and.to.match(/60s {3}node-1 {3}Reported$/);
  });

  it('counts code points', () => {
    const [first, second] = print(entries([tunnel('𝒩'), tunnel('nn')]), { hasHeader: false }).split('\n');
    expect(Array.from(first ?? '').length).to.equal(Array.from(second ?? '').length);
  });

  it('widens its columns in a watch, and prints the header once', () => {
    const format = outputFormat(OPTIONS);
    let printed = '';
    const out = (text: string): void => void (printed += text);
    const [short, long] = entries([tunnel('n'), tunnel('a-much-longer-name')]).map(format.encode);
    format.printChange('ADDED', short ?? '', NOW_MS, out);
    format.printChange('ADDED', long ?? '', NOW_MS, out);
    format.printChange('DELETED', short ?? '', NOW_MS, out);
    const lines = printed.trimEnd().split('\n');
    expect(lines.filter((line) => line.startsWith('NAME'))).to.have.length(1);
    expect(lines[3]?.length).to.equal(lines[2]?.length);
    expect(lines[1]?.length).to.be.lessThan(lines[2]?.length ?? 0);
  });

  it('does not take a text with another age for a change', () => {
    const format = outputFormat(OPTIONS);
    const [entry] = entries([tunnel('node-1')]);
    const asObject = tunnelOfObject(object(tunnel('node-1')));
    const older = {
      ...asObject,
      metadata: { ...asObject.metadata, creationTimestamp: '2026-11-20T00:00:00Z' },
    };
    const text = (listed: ListedTunnel | undefined): string =>
      listed === undefined ? '' : format.encode(listed);
    expect(format.isSame(text(entry), text(older))).to.equal(true);
    expect(format.isSame(text(entry), text(tunnelOfObject(object(tunnel('node-1'), 'Unknown'))))).to.equal(
      false,
    );
  });
});

describe('documents of rt get', () => {
  const listed = (): ListedTunnel[] => [
    ...entries([tunnel('a'), tunnel('b')]),
    tunnelOfObject(object(tunnel('c'))),
  ];

  it('are a List in JSON and in YAML', () => {
    const expected = { apiVersion: 'v1', items: JSON.parse(JSON.stringify(listed())), kind: 'List' };
    const content = { ...expected, metadata: { resourceVersion: '' } };
    expect(JSON.parse(print(listed(), { output: 'json' }))).to.deep.equal(content);
    expect(parse(print(listed(), { output: 'yaml' }))).to.deep.equal(content);
    // Exactly as kubectl writes it.
    expect(print(listed(), { output: 'json' })).to.equal(`${JSON.stringify(content, undefined, 4)}\n`);
  });

  it('quote in YAML what a parser of version 1.1 would not read as text', () => {
    const [entry] = entries([tunnel('no', { createdAt: '2026-11-23T05:00:00Z' })]);
    if (entry === undefined) throw new Error('no tunnel');
    const printed = print([entry], { output: 'yaml' });
    expect(printed).to.include('tunnelName: "no"').and.include('createdAt: "2026-11-23T05:00:00Z"');
    const { items } = parse(printed, { version: '1.1' }) as { items: unknown[] };
    expect(items).to.deep.equal([JSON.parse(JSON.stringify(entry))]);
  });

  it('are an empty List if there are no tunnels', () => {
    const content = { apiVersion: 'v1', items: [], kind: 'List', metadata: { resourceVersion: '' } };
    expect(print([], { output: 'json' })).to.equal(`${JSON.stringify(content, undefined, 4)}\n`);
    expect(parse(print([], { output: 'yaml' }))).to.deep.equal(content);
  });

  it('are not a List for a tunnel that was requested by its name', () => {
    const [first] = listed();
    if (first === undefined) throw new Error('no tunnel');
    for (const output of ['json', 'yaml'] as const) {
      const format = outputFormat({ ...OPTIONS, output });
      let printed = '';
      format.printSingle(format.encode(first), NOW_MS, (text) => (printed += text));
      expect(parse(printed)).to.deep.equal(JSON.parse(JSON.stringify(first)));
    }
  });

  it('are one per tunnel in a watch, separated as a stream', () => {
    const plain = JSON.parse(JSON.stringify(listed())) as unknown[];
    const yaml = parseAllDocuments(print(listed(), { output: 'yaml', isWatch: true }));
    expect(yaml.map((document): unknown => document.toJS())).to.deep.equal(plain);
    const json = plain.map((object) => `${JSON.stringify(object, undefined, 4)}\n`);
    expect(print(listed(), { output: 'json', isWatch: true })).to.equal(json.join(''));
  });

  it('are one per change in a watch, with the type only if it is requested', () => {
    const [first] = listed();
    for (const hasEvents of [false, true]) {
      const format = outputFormat({ ...OPTIONS, output: 'json', isWatch: true, hasEvents });
      let printed = '';
      if (first === undefined) throw new Error('no tunnel');
      format.printChange('DELETED', format.encode(first), NOW_MS, (text) => (printed += text));
      const plain: unknown = JSON.parse(JSON.stringify(first));
      expect(JSON.parse(printed)).to.deep.equal(hasEvents ? { type: 'DELETED', object: plain } : plain);
    }
  });
});

describe('filters of rt get', () => {
  const NO_FILTER: FilterFlags = {
    ...{ tenant: undefined, cluster: undefined, node: undefined, reporter: undefined, state: undefined },
  };
  const isolated = tunnel('acme:node-2', { clusterID: 'acme:eu-1', nodeID: 'acme:node-2' });
  const odd = tunnel('odd', { clusterID: 'a,b=c' });

  function shown(flags: Partial<FilterFlags>, selector = ''): string[] {
    const parsed = parseLabelSelector(selector);
    if ('error' in parsed) throw new Error(parsed.error);
    const filter = tunnelFilter(names, { ...NO_FILTER, ...flags }, parsed.requirements);
    const status = { ...CONNECTED, tunnels: [{ name: 'node-1', state: 'Unknown' }] };
    const all = entries([tunnel('node-1'), isolated, odd], status);
    return all.filter((listed) => filter.matches(listed)).map(({ spec }) => spec.tunnelName);
  }

  const cases: readonly (readonly [Partial<FilterFlags>, string, readonly string[]])[] = [
    [{}, '', ['node-1', 'acme:node-2', 'odd']],
    [{ tenant: 'acme' }, '', ['node-1', 'acme:node-2', 'odd']],
    [{ tenant: 'zeta' }, '', []],
    [{ cluster: 'eu-1' }, '', ['node-1', 'acme:node-2']],
    [{ cluster: 'acme:eu-1' }, '', ['acme:node-2']],
    [{ cluster: 'a,b=c' }, '', ['odd']],
    [{ node: 'node-2' }, '', ['acme:node-2']],
    [{ node: 'acme:node-2' }, '', ['acme:node-2']],
    [{ node: 'node-1', cluster: 'eu-2' }, '', []],
    [{ reporter: 'responder-0', state: 'Unknown' }, '', ['node-1']],
    [{ reporter: 'responder-1' }, '', []],
    [{ name: names.tunnelObjectName(RESPONDER, tunnel('node-1')) }, '', ['node-1']],
    [{ name: 'node-1' }, '', []],
    [{}, 'reverse-tunnel.io/node=node-2', ['acme:node-2']],
    [{}, 'reverse-tunnel.io/cluster=eu-1,reverse-tunnel.io/tenant=acme', ['node-1', 'acme:node-2']],
    [
      {},
      'reverse-tunnel.io/reporter in (responder-0),reverse-tunnel.io/node!=node-1',
      ['acme:node-2', 'odd'],
    ],
    [{ state: 'Connected' }, 'app.kubernetes.io/managed-by=reverse-tunnel-operator', ['acme:node-2', 'odd']],
    [{}, 'unknown', []],
  ];
  for (const [flags, selector, expected] of cases) {
    it(`${JSON.stringify(flags)} with the selector "${selector}" show [${expected.join(', ')}] of a slice`, () => {
      expect(shown(flags, selector)).to.deep.equal(expected);
    });
  }

  it('are passed to the API server as far as it can evaluate them', () => {
    const parsed = parseLabelSelector('reverse-tunnel.io/tenant=acme,reverse-tunnel.io/node!=n');
    if ('error' in parsed) throw new Error(parsed.error);
    const flags = { tenant: 'a,b=c', cluster: 'acme:eu-1', node: 'n', reporter: 'r', state: 'Unknown' };
    const { objects, slices } = tunnelFilter(names, flags, parsed.requirements);
    expect(objects.fieldSelector).to.equal(
      String.raw`spec.tenantID=a\,b\=c,spec.reporter.id=r,status.state=Unknown`,
    );
    expect(objects.labelSelector).to.equal(
      `reverse-tunnel.io/tenant=acme,reverse-tunnel.io/node!=n,reverse-tunnel.io/cluster in (${names.labelValue('acme:eu-1')},eu-1),reverse-tunnel.io/node in (n)`,
    );
    expect(slices.fieldSelector).to.equal(String.raw`spec.tenantID=a\,b\=c,spec.reporter.id=r`);
    expect(slices.labelSelector).to.equal('reverse-tunnel.io/tenant=acme');
  });

  it('select one object on the API server by its name, and slices not at all', () => {
    const { objects, slices } = tunnelFilter(names, { ...NO_FILTER, name: 'node-1-6gxnr43zv7b42' }, []);
    expect(objects.fieldSelector).to.equal('metadata.name=node-1-6gxnr43zv7b42');
    expect(slices.fieldSelector).to.equal(undefined);
  });

  it('select everything on the API server if there are none', () => {
    const { objects, slices } = tunnelFilter(names, NO_FILTER, []);
    for (const selectors of [objects, slices])
      expect(selectors).to.deep.equal({ labelSelector: undefined, fieldSelector: undefined });
  });
});

describe('the watch of rt get', () => {
  function createVisible(): { tunnels: VisibleTunnels; changes: string[] } {
    const changes: string[] = [];
    const tunnels = new VisibleTunnels((key, before, after) => {
      changes.push(`${key}: ${before ?? '-'} → ${after ?? '-'}`);
    });
    return { tunnels, changes };
  }

  it('shows a tunnel in both forms once, as an object', () => {
    const { tunnels, changes } = createVisible();
    tunnels.set('slice a', false, [{ key: 'k', text: 's' }]);
    tunnels.set('object k', true, [{ key: 'k', text: 'o' }]);
    expect(tunnels.sorted()).to.deep.equal(['o']);
    tunnels.set('slice a', false, []);
    expect(tunnels.sorted()).to.deep.equal(['o']);
    tunnels.set('object k', true, []);
    expect(tunnels.sorted()).to.deep.equal([]);
    expect(changes).to.deep.equal(['k: - → s', 'k: s → o', 'k: o → -']);
  });

  it('reports no change while a tunnel moves from one slice to another', () => {
    const { tunnels, changes } = createVisible();
    tunnels.set('slice a', false, [
      { key: 'k', text: 's' },
      { key: 'l', text: 't' },
    ]);
    tunnels.set('slice b', false, [{ key: 'k', text: 's' }]);
    tunnels.set('slice a', false, [{ key: 'l', text: 't' }]);
    expect(changes).to.deep.equal(['k: - → s', 'l: - → t']);
    expect(tunnels.sources((source) => source.startsWith('slice '))).to.deep.equal(['slice a', 'slice b']);
  });

  it('sorts by namespace and name', () => {
    const { tunnels } = createVisible();
    for (const key of ['b/a', 'a-b/x', 'a/z', 'a/b'])
      tunnels.set(`object ${key}`, true, [{ key, text: key }]);
    // As in etcd, whose keys contain the slash.
    expect(tunnels.sorted()).to.deep.equal(['a-b/x', 'a/b', 'a/z', 'b/a']);
  });
});

describe('ages of rt get', () => {
  it('equal those of the API server', () => {
    for (let seconds = -10; seconds < 4e8; seconds += 1 + Math.abs(Math.floor(seconds / 20)))
      expect(humanDuration(seconds * 1000), `${seconds} s`).to.equal(formatHumanDuration(seconds * 1000));
  });
});
