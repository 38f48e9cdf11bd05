import { expect } from 'chai';
import type { ControlPlane } from '../../control-plane/start.ts';
import { openFaultProxy, type FaultProxy } from '../faults/real/fault-proxy.ts';
import { FIRST_START_TIMEOUT_MS, startWithCrds } from '../support/control-plane.ts';
import { CHART, createHelm, type Helm } from '../support/helm.ts';
import { startKubelet, type Kubelet } from '../support/kubelet.ts';
import { concurrent } from '../support/concurrent.ts';

const DEADLINE_MS = 90_000;

interface Fixture {
  readonly balancer: FaultProxy;
  /** Starts a kubelet that runs the pods of a namespace. */
  readonly kubelet: (namespace: string) => Promise<Kubelet>;
  readonly close: () => Promise<void>;
}

/** Each mode runs in its own namespace, with a certificate that Helm generates. */
describe('chart with client authentication, on a cluster that enforces restricted Pod Security', () => {
  let controlPlane: ControlPlane;
  let helm: Helm;

  before(async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    controlPlane = await startWithCrds({ controllerManager: true });
    helm = await createHelm(controlPlane.kubeconfigPath);
  });
  after(async () => {
    await helm?.dispose();
    await controlPlane?.stop();
  });

  async function open(): Promise<Fixture> {
    const balancer = await openFaultProxy();
    const kubelets: Kubelet[] = [];
    return {
      balancer,
      kubelet: async (namespace) => {
        const kubelet = await startKubelet({
          controlPlane,
          namespace,
          // A DNS name, because the certificate contains no IP addresses.
          service: balancer.address.replace('127.0.0.1', 'localhost'),
          onEndpoints: (addresses) => balancer.setTargets(...addresses),
        });
        kubelets.push(kubelet);
        return kubelet;
      },
      close: async () => {
        await Promise.all(kubelets.map((kubelet) => kubelet.stop()));
        await balancer.close();
      },
    };
  }
  // Helm polls every few seconds for ready pods.
  const it = concurrent({ timeoutMs: 6 * DEADLINE_MS, open, close: (fixture) => fixture.close() });

  for (const [mode, name] of [
    ['mtls', 'tls.dnsNames={localhost}'],
    ['token', 'tls.serverName=reports.example.com'],
    ['mtls-or-token', 'tls.dnsNames={localhost}'],
  ] as const) {
    it(`${mode}, ${name}: helm test authenticates and finds the object of its tunnel`, async (fixture, report) => {
      const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
      await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name: mode, labels } });
      const kubelet = await fixture.kubelet(mode);
      const values = `auth.mode=${mode},tls.selfSigned.enabled=true,${name},replicaCount=1,crds.enabled=false`;
      const run = async (...args: string[]): Promise<void> => {
        const { code, stdout, stderr } = await helm([...args, '--namespace', mode]);
        const output = kubelet.pods.flatMap((pod) => pod.output.slice(-5)).join('\n');
        expect(code, `${stdout}${stderr}${output}`).to.equal(0);
      };
      await run('install', mode, CHART, '--set', values, '--wait', '--timeout', '150s');
      await run('test', mode, '--timeout', '150s');
      const tested = kubelet.pods.find(({ name }) => name.endsWith('-test'));
      expect(tested?.output.join('\n')).to.include('exists, Ready=True');
      report(tested?.output.at(-1) ?? '');
      const secret = async (): Promise<unknown> => {
        const tls = ['--field-selector', 'type=kubernetes.io/tls'];
        const args = ['get', 'secret', '-n', mode, ...tls, '-o', 'jsonpath={.items[*].data}'];
        return (await controlPlane.kubectl(args)).stdout;
      };
      const generated = await secret();
      await run('upgrade', mode, CHART, '--set', `${values},config.logLevel=debug`);
      expect(await secret(), 'the certificates are kept over upgrades').to.equal(generated);
    });
  }
});
