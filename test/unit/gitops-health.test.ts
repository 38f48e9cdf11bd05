import { expect } from 'chai';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { sliceStatus } from '../../src/core/slice-object.ts';
import { closedStatus, reportedStatus, unknownStatus } from '../../src/core/tunnel-object.ts';
import { kstatusOf, type ObservedHealth } from '../support/kstatus.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const NOW = '2026-11-23T05:00:00Z';
const DELETED = { deletionTimestamp: NOW };
const page = readFileSync(join(ROOT, 'docs', 'gitops.md'), 'utf8');

/** The keys of the ConfigMap argocd-cm on the page. */
const settings = parse(/^```yaml\n(# Argo CD keeps[^]*?)^```/m.exec(page)?.[1] ?? '') as Record<
  string,
  string
>;

interface Crd {
  readonly spec: {
    readonly names: { readonly kind: string };
    readonly versions: readonly {
      readonly schema: {
        readonly openAPIV3Schema: {
          readonly properties: { readonly status: { readonly default?: ObservedHealth['status'] } };
        };
      };
    }[];
  };
}

const crds = new Map(
  globSync('crds/*.yaml', { cwd: ROOT }).map((file) => {
    const { spec } = parse(readFileSync(join(ROOT, file), 'utf8')) as Crd;
    return [spec.names.kind, spec] as const;
  }),
);

/** The health of an object whose status is the default of its CRD. */
function created(kind: string): ObservedHealth {
  const status = crds.get(kind)?.versions[0]?.schema.openAPIV3Schema.properties.status.default;
  return { status: status ?? expect.fail(`${kind} has no default status`) };
}

/** The health of an object and the states in the table of the page, for kinds without observedGeneration. */
const CASES: readonly (readonly [kind: string, state: string, observed: ObservedHealth])[] = [
  ['ReverseTunnel', 'reported', created('ReverseTunnel')],
  ['ReverseTunnel', 'reported', { status: reportedStatus(NOW) }],
  ['ReverseTunnel', 'its reporter is disconnected for `--unknown-after`', { status: unknownStatus(NOW) }],
  [
    'ReverseTunnel',
    'deleted, but kept by a foreign finalizer',
    { metadata: DELETED, status: closedStatus(NOW) },
  ],
  ['ReverseTunnelSlice', 'reported', created('ReverseTunnelSlice')],
  ['ReverseTunnelSlice', 'reported', { status: sliceStatus(new Set(), 2, NOW) }],
  [
    'ReverseTunnelSlice',
    'reported, some of its entries are Unknown',
    { status: sliceStatus(new Set(['a']), 2, NOW) },
  ],
  [
    'ReverseTunnelSlice',
    'its reporter is disconnected for `--unknown-after`',
    { status: sliceStatus(new Set(['a', 'b']), 2, NOW) },
  ],
  [
    'ReverseTunnelSlice',
    'deleted, but kept by a foreign finalizer',
    { metadata: DELETED, status: closedStatus(NOW) },
  ],
];

describe('health in GitOps tools', () => {
  const documented = new Map(
    [...page.matchAll(/^\| (ReverseTunnel\w*) +\| (.+?) +\| `(\w+)` +\|$/gm)].map(
      ([, kind = '', state = '', health = '']) => [`${kind}: ${state}`, health],
    ),
  );

  for (const [index, [kind, state, observed]] of CASES.entries()) {
    it(`${kind}, ${state}, has the documented kstatus (case ${index + 1})`, () => {
      // The generation grows with each change of an entry, and no status of these kinds observes it.
      const metadata = { generation: 7, ...observed.metadata };
      expect(documented.get(`${kind}: ${state}`)).to.equal(kstatusOf({ ...observed, metadata }));
    });
  }

  it('has a case for each documented state of ReverseTunnels and slices', () => {
    const states = [...documented.keys()].filter((state) => /^ReverseTunnel(?:Slice)?:/.test(state));
    expect(states).to.have.members([...new Set(CASES.map(([kind, state]) => `${kind}: ${state}`))]);
  });

  it('is computed for Argo CD by a script for each kind of the CRDs', () => {
    const prefix = 'resource.customizations.health.reverse-tunnel.io_';
    const scripts = Object.entries(settings).filter(([key]) => key.startsWith(prefix));
    expect(scripts.map(([key]) => key.slice(prefix.length))).to.have.members([...crds.keys()]);
    for (const [key, script] of scripts) expect(script, key).to.match(/^local hs = [^]*return hs\n$/);
  });

  it('is not computed by Argo CD for the kinds whose objects grow with the fleet, which are excluded', () => {
    const [exclusion] = parse(settings['resource.exclusions'] ?? '') as { kinds: string[] }[];
    expect(exclusion?.kinds).to.have.members(['ReverseTunnel', 'ReverseTunnelSlice']);
  });
});
