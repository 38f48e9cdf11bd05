import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { startControlPlane, type ControlPlane } from '../../control-plane/start.ts';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import { openFaultProxy, type FaultProxy } from '../faults/real/fault-proxy.ts';
import { FIRST_START_TIMEOUT_MS } from '../support/control-plane.ts';
import { runDoctor } from '../support/cli-process.ts';
import { CRD_NAMES, deleteCrds } from '../support/delete-crds.ts';
import { CHART, createHelm, type Helm } from '../support/helm.ts';
import { startKubelet, type Kubelet, type PodProcess } from '../support/kubelet.ts';
import { poll } from '../support/operator-process.ts';
import { reportMeasurement } from '../support/report-measurement.ts';
import { listTunnelObjects, waitForMatch } from '../support/expected-objects.ts';

const NAMESPACE = 'edge';
const RELEASE = 'tunnels';
const CRDS = join(import.meta.dirname, '..', '..', 'crds');
const DEADLINE_MS = 120_000;

/** The life cycle of one release. Each test continues from the previous one. */
describe('chart from install to uninstall, on a cluster that enforces restricted Pod Security', () => {
  let controlPlane: ControlPlane;
  let helm: Helm;
  let kubelet: Kubelet;
  let balancer: FaultProxy;
  let fleet: Fleet;
  /** uid of every object after the install, sorted. */
  let initialUids: string[];

  before(async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    controlPlane = await startControlPlane({ controllerManager: true });
    helm = await createHelm(controlPlane.kubeconfigPath);
    const labels = {
      'pod-security.kubernetes.io/enforce': 'restricted',
      'pod-security.kubernetes.io/enforce-version': 'latest',
    };
    await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name: NAMESPACE, labels } });
    balancer = await openFaultProxy();
    kubelet = await startKubelet({
      controlPlane,
      namespace: NAMESPACE,
      service: balancer.address,
      onEndpoints: (addresses) => balancer.setTargets(...addresses),
    });
  });
  after(async () => {
    await fleet?.stop();
    await kubelet?.stop();
    await balancer?.close();
    await helm?.dispose();
    await controlPlane?.stop();
  });

  /** Runs helm in the namespace, reports its duration and status line, and fails if helm fails. */
  async function ok(...args: string[]): Promise<string> {
    const startedMs = performance.now();
    const { code, stdout, stderr } = await helm([...args, '--namespace', NAMESPACE]);
    const spent = `${((performance.now() - startedMs) / 1000).toFixed(1)} s`;
    expect(code, `helm ${args.join(' ')}: ${stdout}${stderr}`).to.equal(0);
    const statusLine = stdout.split('\n').find((line) => /^(STATUS|Phase|release|Rollback)/.test(line)) ?? '';
    reportMeasurement(`helm ${args.slice(0, 2).join(' ')}: ${statusLine.trim()}, ${spent}`);
    return stdout;
  }
  const install = (verb: readonly string[], ...values: string[]): string[] => [
    ...[...verb, RELEASE, CHART, '--set', 'auth.mode=insecure', '--wait', '--timeout', '150s'],
    ...values.flatMap((value) => ['--set', value]),
  ];
  const alive = (): PodProcess[] => kubelet.pods.filter(({ exitCode }) => exitCode === undefined);
  async function waitForNewPods(replicas: number, argument: string): Promise<void> {
    await poll(
      DEADLINE_MS,
      () =>
        (alive().length === replicas && alive().every(({ args }) => args.includes(argument))) || undefined,
    );
  }
  async function objectUids(): Promise<string[]> {
    return (await listTunnelObjects(controlPlane.request, NAMESPACE))
      .map(({ metadata }) => metadata.uid)
      .toSorted();
  }
  const expectCleanExits = (): void => {
    for (const { name, exitCode, stoppedInMs, output } of kubelet.pods) {
      if (exitCode === undefined) continue;
      expect(exitCode, `${name}: ${output.at(-1)}`).to.equal(0);
      if (stoppedInMs !== undefined) expect(stoppedInMs).to.be.lessThan(10_000);
    }
  };

  it('install starts two replicas with the token of the release, which mirror a fleet', async function () {
    this.timeout(2 * DEADLINE_MS);
    await ok(...install(['install']));
    expect(alive().map(({ ready }) => ready)).to.deep.equal([true, true]);
    fleet = createFleet({
      address: balancer.address,
      reporters: 4,
      tunnels: 25,
      connectRetryIntervalMs: 200,
    });
    await fleet.start();
    await fleet.settled();
    await waitForMatch(fleet, controlPlane.request, NAMESPACE, DEADLINE_MS);
    const quiet = await controlPlane.kubectl([
      ...['get', 'reversetunnelreporters', '--namespace', NAMESPACE, '-o'],
      String.raw`jsonpath={.items[*].metadata.annotations.argocd\.argoproj\.io/ignore-resource-updates}`,
    ]);
    expect(quiet.stdout).to.equal('true true true true');
    initialUids = await objectUids();
    expect(initialUids.length).to.equal(100);
  });

  it('helm test reports one tunnel, finds its object, and leaves neither an object nor a reporter', async function () {
    this.timeout(2 * DEADLINE_MS);
    await ok('test', RELEASE);
    const pod = kubelet.pods.find(({ name }) => name.endsWith('-test'));
    for (const line of pod?.output ?? []) reportMeasurement(line);
    expect(pod?.output.join('\n')).to.include('exists, Ready=True').and.include('ReverseTunnel deleted');
    expect(await objectUids()).to.deep.equal(initialUids);
    // A disconnected reporter would fail doctor and fire an alert.
    const { findings } = await runDoctor([
      ...['--kubeconfig', controlPlane.kubeconfigPath, '--namespace', NAMESPACE],
      ...['--http-address', alive()[0]?.httpAddress ?? ''],
    ]);
    const failed = findings.filter(({ status }) => status === 'fail' || status === 'warn');
    // On a busy machine, the API server takes longer than the 250 ms that doctor tolerates.
    const isSlowApi = ({ check, status }: (typeof failed)[number]): boolean =>
      check === 'api' && status === 'warn';
    expect(failed.filter((finding) => finding.check !== 'permissions' && !isSlowApi(finding))).to.deep.equal(
      [],
    );
    const reporters = await controlPlane.kubectl([
      ...['get', 'reversetunnelreporters', '--namespace', NAMESPACE, '-o', 'jsonpath={.items[*].spec.id}'],
    ]);
    expect(reporters.stdout.split(' ')).to.have.length(4).and.not.include('helm-test');
  });

  it('upgrade with other values replaces every pod and no object', async function () {
    this.timeout(2 * DEADLINE_MS);
    await ok(...install(['upgrade'], 'config.reportInterval=1s', 'config.logLevel=debug'));
    await waitForNewPods(2, '--report-interval=1s');
    await fleet.settled();
    expect(await objectUids()).to.deep.equal(initialUids);
    expectCleanExits();
  });

  it('rollback restores the previous arguments and replaces no object', async function () {
    this.timeout(2 * DEADLINE_MS);
    await ok('rollback', RELEASE, '1', '--wait', '--timeout', '150s');
    await waitForNewPods(2, '--report-interval=5s');
    await fleet.settled();
    expect(await objectUids()).to.deep.equal(initialUids);
    expectCleanExits();
  });

  it('uninstall stops the pods and keeps the CRDs and every object', async function () {
    this.timeout(2 * DEADLINE_MS);
    await ok('uninstall', RELEASE, '--wait', '--timeout', '150s');
    await poll(DEADLINE_MS, () => alive().length === 0 || undefined);
    expectCleanExits();
    await fleet.stop();
    expect(await objectUids()).to.deep.equal(initialUids);
    const slowest = Math.max(...kubelet.pods.map(({ stoppedInMs }) => stoppedInMs ?? 0));
    reportMeasurement(
      `${kubelet.pods.length} pods ran; the slowest stopped in ${slowest.toFixed(0)} ms after SIGTERM`,
    );
  });

  it('install over CRDs from kubectl apply fails without the documented flags and adopts them with these flags', async function () {
    this.timeout(3 * DEADLINE_MS);
    await deleteCrds(controlPlane, CRD_NAMES);
    const older = readdirSync(CRDS)
      .map((file) => readFileSync(join(CRDS, file), 'utf8'))
      .map((text) => text.replace('Time since this object was created.', 'Its age.'))
      .join('\n---\n');
    const applied = await controlPlane.kubectl(['apply', '-f', '-'], { input: older });
    expect(applied.code, applied.stderr).to.equal(0);

    const { code, stderr } = await helm([...install(['install']), '--namespace', NAMESPACE]);
    expect(code).to.not.equal(0);
    expect(stderr).to.include('cannot be imported into the current release');
    reportMeasurement(`install without flags: ${stderr.trim().slice(0, 110)}…`);
    await ok(...install(['upgrade', '--install'], 'replicaCount=1'), '--take-ownership', '--force-conflicts');
    // Later upgrades need no flags, even though the CRDs changed their owner.
    await ok(...install(['upgrade'], 'replicaCount=1', 'config.reportInterval=2s'));
    await waitForNewPods(1, '--report-interval=2s');
    const crd = await controlPlane.kubectl([
      'get',
      'crd',
      'reversetunnels.reverse-tunnel.io',
      '-o',
      'jsonpath={.spec}',
    ]);
    expect(crd.stdout).to.include('Time since this object was created.').and.not.include('Its age.');
    await ok('test', RELEASE);
  });
});
