import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import type { RunResult } from '../../control-plane/run.ts';
import { startControlPlane, type ControlPlane } from '../../control-plane/start.ts';
import { FIRST_START_TIMEOUT_MS } from '../support/control-plane.ts';
import {
  createHelm,
  manifests,
  objectId,
  templateArgs,
  variants,
  type Helm,
  type Manifest,
} from '../support/helm.ts';
import { reportMeasurement } from '../support/report-measurement.ts';

/** The kinds of other projects that the chart renders, as CRDs that accept any content. */
const COMPANION_CRDS = [
  ['monitoring.coreos.com', 'ServiceMonitor', 'servicemonitors'],
  ['monitoring.coreos.com', 'PodMonitor', 'podmonitors'],
  ['monitoring.coreos.com', 'PrometheusRule', 'prometheusrules'],
  ['cert-manager.io', 'Certificate', 'certificates'],
].map(([group, kind, plural]) => ({
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: `${plural}.${group}` },
  spec: {
    group,
    scope: 'Namespaced',
    names: { kind, plural },
    versions: [
      {
        name: 'v1',
        served: true,
        storage: true,
        schema: {
          openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
        },
      },
    ],
  },
}));

/** Namespaces of the example values. */
const NAMESPACES = ['edge', 'tunnels', 'monitoring'].map((name) => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name },
}));

type StoredObject = Manifest & { readonly metadata: { readonly resourceVersion: string } };

function countKinds(objects: readonly Pick<Manifest, 'kind'>[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind } of objects.toSorted((a, b) => a.kind.localeCompare(b.kind)))
    counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

describe('chart applied with kubectl, on a cluster without its CRDs', () => {
  let controlPlane: ControlPlane;
  let helm: Helm;

  before(async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    helm = await createHelm();
    controlPlane = await startControlPlane();
    await apply([...NAMESPACES, ...COMPANION_CRDS]);
    await waitEstablished();
  });
  after(async () => {
    await helm?.dispose();
    await controlPlane?.stop();
  });

  async function kubectl(...args: readonly string[]): Promise<RunResult> {
    const result = await controlPlane.kubectl(args);
    expect(result.code, `kubectl ${args.join(' ')}: ${result.stderr}`).to.equal(0);
    return result;
  }

  async function apply(objects: readonly object[]): Promise<void> {
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    const { code, stderr } = await controlPlane.kubectl(['create', '-f', '-'], { input });
    expect(code, stderr).to.equal(0);
  }

  async function waitEstablished(): Promise<void> {
    await kubectl('wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all');
  }

  /** Returns the version of each stored object. What kubectl reports is not used: to it, a PodDisruptionBudget always changes. */
  async function versions(input: string): Promise<Map<string, string>> {
    const { code, stdout, stderr } = await controlPlane.kubectl(['get', '-f', '-', '-o', 'json'], { input });
    expect(code, stderr).to.equal(0);
    const { items } = JSON.parse(stdout) as { items: readonly StoredObject[] };
    expect(items).to.have.length(new Set(items.map((item) => objectId(item))).size);
    return new Map(items.map((item) => [objectId(item), item.metadata.resourceVersion]));
  }

  for (const { name, file } of variants()) {
    it(`${name}: kubectl creates each object once, and applying all of them again changes none`, async () => {
      const { policies = [] } = parse(readFileSync(file, 'utf8')) as { policies?: readonly unknown[] };
      const args = templateArgs(['--values', file, '--no-hooks'], true, name);
      const { code, stdout: input, stderr } = await helm(args);
      expect(code, stderr).to.equal(0);
      const objects = manifests(input);
      const applyAll = (): Promise<RunResult> => controlPlane.kubectl(['apply', '-f', '-'], { input });

      if (policies.length > 0) {
        // As documented: policies need CRDs that exist, so the same command is run twice.
        const first = await applyAll();
        const errors = first.stderr.match(/^resource mapping not found for name: .* "ReverseTunnelPolicy"/gm);
        expect(errors, first.stderr).to.have.length(policies.length);
        await waitEstablished();
      }
      const complete = await applyAll();
      expect(complete.code, complete.stderr).to.equal(0);
      // The API server writes the status of a CRD until then.
      await waitEstablished();
      const before = await versions(input);
      expect([...before.keys()].toSorted()).to.deep.equal(
        objects.map((object) => objectId(object)).toSorted(),
      );
      const again = await applyAll();
      expect(again.code, again.stderr).to.equal(0);
      expect(await versions(input)).to.deep.equal(before);
      reportMeasurement(`${name}: ${JSON.stringify(countKinds(objects))}`);
    });
  }
});
