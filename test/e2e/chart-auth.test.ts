import { expect } from 'chai';
import { startControlPlane, type ControlPlane } from '../../control-plane/start.ts';
import { startBalancer, type Balancer } from '../support/balancer.ts';
import { FIRST_START_TIMEOUT_MS } from '../support/control-plane.ts';
import { CHART, createHelm, type Helm } from '../support/helm.ts';
import { startKubelet, type Kubelet } from '../support/kubelet.ts';
import { tell } from '../support/tell.ts';

const DEADLINE_MS = 90_000;

/** Each mode in a namespace of its own, with a certificate that Helm makes. */
describe('the chart with proof of who reports, on a real cluster that enforces restricted Pod Security', () => {
  let controlPlane: ControlPlane;
  let helm: Helm;
  let balancer: Balancer;
  const kubelets: Kubelet[] = [];

  before(async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    controlPlane = await startControlPlane({ controllerManager: true });
    helm = await createHelm(controlPlane.kubeconfigPath);
    balancer = await startBalancer();
  });
  afterEach(() => Promise.all(kubelets.splice(0).map((kubelet) => kubelet.stop())));
  after(async () => {
    await balancer?.close();
    await helm?.dispose();
    await controlPlane?.stop();
  });

  for (const [mode, name] of [
    ['mtls', 'tls.dnsNames={localhost}'],
    ['token', 'tls.serverName=reports.example.com'],
    ['either', 'tls.dnsNames={localhost}'],
  ] as const) {
    it(`${mode}, ${name}: helm test proves who it is, and its row is seen`, async function () {
      this.timeout(2 * DEADLINE_MS);
      const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
      await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name: mode, labels } });
      const kubelet = await startKubelet({
        controlPlane,
        namespace: mode,
        // A name, as the certificate has names only.
        service: balancer.address.replace('127.0.0.1', 'localhost'),
        onEndpoints: (addresses) => balancer.setTargets(addresses),
      });
      kubelets.push(kubelet);
      const values = `auth.mode=${mode},tls.selfMade.enabled=true,${name},replicaCount=1`;
      const run = async (...args: string[]): Promise<void> => {
        const { code, stdout, stderr } = await helm([...args, '--namespace', mode]);
        const output = kubelet.pods.flatMap((pod) => pod.output.slice(-5)).join('\n');
        expect(code, `${stdout}${stderr}${output}`).to.equal(0);
      };
      // One release has the CRDs; the others find them.
      await run(
        'install',
        mode,
        CHART,
        '--set',
        values,
        '--set',
        `crds.enabled=${mode === 'mtls'}`,
        '--wait',
        '--timeout',
        '60s',
      );
      await run('test', mode, '--timeout', '60s');
      const tested = kubelet.pods.find(({ name }) => name.endsWith('-test'));
      expect(tested?.output.join('\n')).to.include('is seen, Ready=True');
      tell(tested?.output.at(-1) ?? '');
      const secret = async (): Promise<unknown> => {
        const tls = ['--field-selector', 'type=kubernetes.io/tls'];
        const args = ['get', 'secret', '-n', mode, ...tls, '-o', 'jsonpath={.items[*].data}'];
        return (await controlPlane.kubectl(args)).stdout;
      };
      const made = await secret();
      await run('upgrade', mode, CHART, '--set', values, '--set', 'crds.enabled=false,config.logLevel=debug');
      expect(await secret(), 'the certificates are kept over upgrades').to.equal(made);
    });
  }
});
