import { expect } from 'chai';
import { startControlPlane, type ControlPlane } from '../../control-plane/start.ts';
import type { RunResult } from '../../control-plane/run.ts';
import { FIRST_START_TIMEOUT_MS } from '../support/control-plane.ts';
import { CRD_NAMES, deleteCrds } from '../support/delete-crds.ts';
import {
  CHART,
  createHelm,
  manifests,
  objectId,
  templateArgs,
  type Helm,
  type Manifest,
} from '../support/helm.ts';
import { poll } from '../support/operator-process.ts';
import { reportMeasurement } from '../support/report-measurement.ts';

const STEP_TIMEOUT_MS = 90_000;
const POLICIES = '/apis/reverse-tunnel.io/v1alpha1/namespaces/edge/reversetunnelpolicies';
const DEPLOYMENTS = '/apis/apps/v1/namespaces/edge/deployments';
const FULLNAME = 'tunnels-reverse-tunnel-operator';

interface PolicyList {
  readonly items: readonly {
    readonly metadata: { readonly name: string };
    readonly spec: { readonly rules: readonly unknown[] };
  }[];
}

/** Behavior that depends on existing objects of the cluster, which rendering cannot show. No pods run here. */
describe('chart in a cluster with existing objects', () => {
  let controlPlane: ControlPlane;
  let helm: Helm;

  before(async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    controlPlane = await startControlPlane({});
    helm = await createHelm(controlPlane.kubeconfigPath);
    for (const name of ['edge', 'certificates'])
      await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name } });
  });
  after(async () => {
    await helm?.dispose();
    await controlPlane?.stop();
  });

  async function ok(...args: string[]): Promise<void> {
    const { code, stdout, stderr } = await helm(args);
    expect(code, `helm ${args.join(' ')}: ${stdout}${stderr}`).to.equal(0);
  }

  it('contains each object once after the second kubectl apply, with CRDs and policies in one set', async function () {
    this.timeout(4 * STEP_TIMEOUT_MS);
    await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name: 'applied' } });
    const policies = JSON.stringify(['a', 'b'].map((name) => ({ name, spec: { rules: [] } })));
    const values = ['--set', 'auth.mode=insecure', '--set-json', `policies=${policies}`];
    const { code, stdout: text, stderr } = await helm(templateArgs(values, false, 'tunnels', 'applied'));
    expect(code, stderr).to.equal(0);
    const apply = (): Promise<RunResult> => controlPlane.kubectl(['apply', '-f', '-'], { input: text });
    const first = await apply();
    expect(first.stderr.trim().split('\n')).to.have.length(2 * 2);
    expect(first.stderr).to.include('ensure CRDs are installed first');
    const second = await apply();
    expect(second.code, second.stderr).to.equal(0);
    const stored = await controlPlane.kubectl(['get', '-f', '-', '-o', 'json'], { input: text });
    expect(stored.code, stored.stderr).to.equal(0);
    const { items } = JSON.parse(stored.stdout) as { items: Manifest[] };
    const ids = items.map((object) => objectId(object)).toSorted();
    expect(ids).to.deep.equal(
      manifests(text)
        .map((object) => objectId(object))
        .toSorted(),
    );
    expect(ids).to.deep.equal([...new Set(ids)]);
    const byKind: Record<string, number> = {};
    for (const { kind } of items) byKind[kind] = (byKind[kind] ?? 0) + 1;
    reportMeasurement(JSON.stringify(byKind));
    expect(byKind['ReverseTunnelPolicy']).to.equal(2);
    const remove = ['delete', '-f', '-', '--ignore-not-found', '--wait=false'];
    const deleted = await controlPlane.kubectl(remove, { input: text });
    expect(deleted.code, deleted.stderr).to.equal(0);
    await deleteCrds(controlPlane, CRD_NAMES);
  });

  it('installs policies in two steps, rejects every client in between, and keeps them without hooks', async function () {
    this.timeout(6 * STEP_TIMEOUT_MS);
    const rule = { peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'] };
    const values = (rules: Readonly<Record<string, readonly unknown[]>>): string[] => {
      const policies = Object.entries(rules).map(([name, list]) => ({ name, spec: { rules: list } }));
      return ['--set', 'auth.mode=insecure', '--set-json', `policies=${JSON.stringify(policies)}`];
    };
    /** Number of rules, by policy. */
    const stored = async (): Promise<Record<string, number>> => {
      const { items } = (await controlPlane.request('GET', POLICIES)).body as PolicyList;
      return Object.fromEntries(items.map(({ metadata, spec }) => [metadata.name, spec.rules.length]));
    };
    const deployment = async (): Promise<string> =>
      JSON.stringify((await controlPlane.request('GET', `${DEPLOYMENTS}/${FULLNAME}`)).body);
    const release = ['tunnels', '--namespace', 'edge'];
    const first = values({ first: [rule], second: [] });

    const early = await helm(['upgrade', '--install', ...release, CHART, ...first]);
    expect(early.code).to.not.equal(0);
    expect(early.stderr).to.include(
      'first run helm upgrade --install with the same values and --set policies=null',
    );
    expect(await deployment(), 'nothing was created').to.include('NotFound');
    expect((await helm(['list', '--all', ...release.slice(1)])).stdout).to.not.include('tunnels');

    const closed = ['--set', 'policies=null', '--set', 'config.requirePolicy=true'];
    await ok('upgrade', '--install', ...release, CHART, ...first, ...closed);
    expect(await deployment()).to.include('--require-policy=true');
    const served = await poll(STEP_TIMEOUT_MS, async () => {
      const { status, body } = await controlPlane.request('GET', POLICIES);
      return status === 200 ? (body as PolicyList) : undefined;
    });
    expect(served.items).to.deep.equal([]);
    await ok('upgrade', '--install', ...release, CHART, ...first);
    expect(await stored()).to.deep.equal({ first: 1, second: 0 });
    expect(await deployment()).to.include('--require-policy=true');

    await ok('upgrade', ...release, CHART, ...values({ first: [], second: [], third: [] }), '--no-hooks');
    expect(await stored()).to.deep.equal({ first: 0, second: 0, third: 0 });
    // No pod becomes ready here, so this rollback fails.
    const failed = await helm(['rollback', ...release, '2', '--wait', '--timeout', '5s']);
    expect(failed.code).to.not.equal(0);
    reportMeasurement(failed.stderr.trim().slice(0, 160));
    expect(await stored()).to.deep.equal({ first: 1, second: 0 });
    await ok('rollback', ...release, '3', '--no-hooks');
    expect(await stored()).to.deep.equal({ first: 0, second: 0, third: 0 });
    await ok('rollback', ...release, '1');
    expect(await stored()).to.deep.equal({});
    expect(await deployment(), 'without its policies, it admits no client').to.include(
      '--require-policy=true',
    );
    await ok('upgrade', ...release, CHART, ...values({ second: [] }));
    expect(await stored()).to.deep.equal({ second: 0 });
    await ok('uninstall', ...release);
    expect(await stored()).to.deep.equal({});
  });

  it('moves to another namespace as documented: the kept CRDs are taken over', async function () {
    this.timeout(4 * STEP_TIMEOUT_MS);
    await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name: 'moved' } });
    const release = ['tunnels', '--namespace', 'moved'];
    const values = ['--set', 'auth.mode=insecure'];
    const rejected = await helm(['install', ...release, CHART, ...values]);
    expect(rejected.code).to.not.equal(0);
    expect(rejected.stderr).to.include('cannot be imported into the current release');
    await ok('upgrade', '--install', ...release, CHART, ...values, '--take-ownership');
    await ok('upgrade', ...release, CHART, ...values, '--set', 'config.logLevel=debug');
    await ok('uninstall', ...release);
    const kept = await controlPlane.kubectl(['get', 'crd', '-o', 'name']);
    expect(kept.stdout.trim().split('\n')).to.have.length(CRD_NAMES.length);
  });

  it('keeps the number of replicas that an autoscaler has set if replicaCount is null', async function () {
    this.timeout(4 * STEP_TIMEOUT_MS);
    const release = ['tunnels', '--namespace', 'edge'];
    const values = ['--set', 'auth.mode=insecure,crds.enabled=false,replicaCount=null'];
    const replicas = async (): Promise<number> => {
      const { body } = await controlPlane.request('GET', `${DEPLOYMENTS}/${FULLNAME}`);
      return (body as { spec: { replicas: number } }).spec.replicas;
    };
    await ok('install', ...release, CHART, ...values);
    expect(await replicas(), 'the default of the API server').to.equal(1);
    const scaled = await controlPlane.kubectl([
      '-n',
      'edge',
      'scale',
      'deployment',
      FULLNAME,
      '--replicas=5',
    ]);
    expect(scaled.code, scaled.stderr).to.equal(0);
    await ok('upgrade', ...release, CHART, ...values, '--set', 'config.logLevel=debug');
    expect(await replicas()).to.equal(5);
    await ok('uninstall', ...release);
  });

  it('rejects a Secret without the client CA with an explanation, and accepts one with it', async function () {
    this.timeout(STEP_TIMEOUT_MS);
    const secret = (name: string, ...keys: string[]): Promise<unknown> =>
      controlPlane.request('POST', '/api/v1/namespaces/certificates/secrets', {
        metadata: { name },
        data: Object.fromEntries(keys.map((key) => [key, 'eA=='])),
      });
    await secret('server', 'tls.crt', 'tls.key');
    await secret('reporters', 'bundle.pem');
    const install = (...values: string[]): Promise<RunResult> =>
      helm([
        ...['install', 'tunnels', CHART, '--namespace', 'certificates', '--dry-run=server'],
        ...['tls.secretName=server', 'crds.enabled=false', ...values].flatMap((value) => ['--set', value]),
      ]);
    for (const mode of ['mtls', 'mtls-or-token']) {
      const { code, stderr } = await install(`auth.mode=${mode}`);
      expect(code).to.not.equal(0);
      expect(stderr).to.include('tls.clientCA: Secret server has no key ca.crt for the client CA');
    }
    const own = ['auth.mode=mtls', 'tls.clientCA.secretName=reporters'];
    expect((await install(...own)).stderr).to.include('Secret reporters has no key ca.crt');
    for (const values of [
      [...own, 'tls.clientCA.key=bundle.pem'],
      ['auth.mode=token'],
      // The Secret may be created later.
      ['auth.mode=mtls', 'tls.clientCA.secretName=later'],
    ]) {
      const { code, stderr } = await install(...values);
      expect(code, stderr).to.equal(0);
    }
  });
});
