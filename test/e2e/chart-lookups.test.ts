import { expect } from 'chai';
import { startControlPlane, type ControlPlane } from '../../control-plane/start.ts';
import type { RunResult } from '../../control-plane/run.ts';
import { FIRST_START_TIMEOUT_MS } from '../support/control-plane.ts';
import { CHART, createHelm, type Helm } from '../support/helm.ts';
import { reportMeasurement } from '../support/report-measurement.ts';

const STEP_TIMEOUT_MS = 90_000;
const POLICIES = '/apis/reverse-tunnel.io/v1alpha1/namespaces/edge/reversetunnelpolicies';

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

  it('keeps policies of the first install across a rollback to it, also a failed one, and deletes removed policies', async function () {
    this.timeout(4 * STEP_TIMEOUT_MS);
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
    const release = ['tunnels', '--namespace', 'edge'];

    await ok('install', ...release, CHART, ...values({ first: [rule], second: [] }));
    expect(await stored()).to.deep.equal({ first: 1, second: 0 });
    await ok('upgrade', ...release, CHART, ...values({ first: [], second: [], third: [] }));
    expect(await stored()).to.deep.equal({ first: 0, second: 0, third: 0 });

    // No pod becomes ready here, so this rollback fails.
    const failed = await helm(['rollback', ...release, '1', '--wait', '--timeout', '5s']);
    expect(failed.code).to.not.equal(0);
    reportMeasurement(failed.stderr.trim().slice(0, 160));
    expect(await stored()).to.deep.equal({ first: 1, second: 0 });
    await ok('rollback', ...release, '1');
    expect(await stored()).to.deep.equal({ first: 1, second: 0 });

    await ok('upgrade', ...release, CHART, ...values({ first: [], second: [] }));
    expect(await stored()).to.deep.equal({ first: 0, second: 0 });
    await ok('upgrade', ...release, CHART, ...values({ second: [] }));
    expect(await stored()).to.deep.equal({ second: 0 });
    await ok('uninstall', ...release);
    expect(await stored()).to.deep.equal({});
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
