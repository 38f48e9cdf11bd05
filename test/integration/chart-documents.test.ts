import { expect } from 'chai';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import { resolveBinaries } from '../../control-plane/resolve.ts';
import { run } from '../../control-plane/run.ts';
import {
  createHelm,
  firstOfKind,
  manifests,
  objectId,
  templateArgs,
  variants,
  type Helm,
} from '../support/helm.ts';

/** Differences between renderers: some drop hooks, some pass the API versions of a cluster. */
const RENDERERS: readonly (readonly [string, readonly string[]])[] = [
  ['as it is', []],
  ['without hooks', ['--no-hooks']],
  [
    'with the API versions of a cluster',
    ['--api-versions', 'reverse-tunnel.io/v1alpha1/ReverseTunnelPolicy'],
  ],
  ['for an upgrade', ['--is-upgrade']],
  ['as Flux does', ['--no-hooks', '--kube-version', '1.35.0']],
  [
    'as Argo CD does',
    [
      '--include-crds',
      '--kube-version',
      '1.37',
      '--api-versions',
      'reverse-tunnel.io/v1alpha1/ReverseTunnel',
    ],
  ],
];

/** Further values with policies. */
const POLICIES = {
  policies: ['a', 'b.c', '12345'].map((name) => ({ name, spec: { rules: [] } })),
  auth: { mode: 'insecure' },
};

describe('chart as a set of documents', () => {
  let helm: Helm;
  let folder: { readonly path: string; dispose(): Promise<void> };
  before(async () => {
    helm = await createHelm();
    folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-documents-');
    writeFileSync(join(folder.path, 'policies.yaml'), JSON.stringify(POLICIES));
  });
  after(async () => {
    await helm?.dispose();
    await folder?.dispose();
  });

  async function kustomize(text: string): Promise<string> {
    writeFileSync(join(folder.path, 'rendered.yaml'), text);
    writeFileSync(join(folder.path, 'kustomization.yaml'), 'resources: [rendered.yaml]\n');
    const binaries = await resolveBinaries(['kubectl']);
    const { code, stdout, stderr } = await run(join(binaries.folder, 'kubectl'), ['kustomize', folder.path], {
      cwd: folder.path,
      env: { PATH: process.env['PATH'], HOME: folder.path },
    });
    expect(code, stderr).to.equal(0);
    return stdout;
  }

  for (const { name, file } of [...variants(), { name: 'three policies', file: 'policies.yaml' }]) {
    it(`${name}: contains each object once and each policy as an ordinary object, also through kustomize`, async () => {
      const path = join(name === 'three policies' ? folder.path : '', file);
      const values = parse(readFileSync(path, 'utf8')) as { policies?: readonly { name: string }[] };
      const requested = (values.policies ?? []).map((policy) => policy.name).toSorted();
      const sets: string[][] = [];
      for (const [renderer, args] of RENDERERS) {
        const { code, stdout, stderr } = await helm(templateArgs(['--values', path, ...args]));
        expect(code, stderr).to.equal(0);
        const objects = manifests(stdout);
        const ids = objects.map((object) => objectId(object)).toSorted();
        expect(ids, renderer).to.deep.equal([...new Set(ids)]);
        const policies = objects.filter(({ kind }) => kind === 'ReverseTunnelPolicy');
        expect(policies.map(({ metadata }) => metadata.name).toSorted(), renderer).to.deep.equal(requested);
        for (const { metadata } of policies) {
          const annotations = Object.keys(metadata.annotations ?? {});
          expect(annotations.filter((key) => key.includes('helm.sh/'))).to.deep.equal([]);
        }
        const deployment = firstOfKind(objects, 'Deployment');
        expect(JSON.stringify(deployment).includes('--require-policy=true'), renderer).to.equal(
          requested.length > 0,
        );
        const withoutHooks = objects.filter(
          ({ metadata }) => metadata.annotations?.['helm.sh/hook'] === undefined,
        );
        sets.push(withoutHooks.map((object) => objectId(object)).toSorted());
        if (renderer !== 'as it is') continue;
        const built = manifests(await kustomize(stdout));
        expect(built.map((object) => objectId(object)).toSorted()).to.deep.equal(ids);
      }
      for (const set of sets) expect(set).to.deep.equal(sets[0]);
    });
  }

  it('requires a policy by request, without policies of its own', async () => {
    for (const required of [true, false]) {
      const args = ['--set', `auth.mode=insecure,config.requirePolicy=${required}`];
      const { code, stdout, stderr } = await helm(templateArgs(args));
      expect(code, stderr).to.equal(0);
      expect(stdout.includes('--require-policy=true')).to.equal(required);
    }
  });

  it('rejects two policies of one name', async () => {
    const policies = JSON.stringify([...POLICIES.policies, ...POLICIES.policies]);
    const args = ['--set', 'auth.mode=insecure', '--set-json', `policies=${policies}`];
    const { code, stderr } = await helm(templateArgs(args));
    expect(code).to.not.equal(0);
    expect(stderr).to.include('policies: the name a occurs twice');
  });
});
