import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { expect } from 'chai';
import { waitForExit } from '../../control-plane/process-supervisor.ts';
import type { FleetSummary } from '../../src/status/summary.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { runCommand } from '../support/cli-process.ts';
import { poll } from '../support/operator-process.ts';
import { createReplicas, type Replicas } from '../support/replicas.ts';

const DEADLINE_MS = 60_000;
const ROOT = new URL('../..', import.meta.url).pathname;

describe('status', () => {
  const controlPlane = useControlPlane();
  let replicas: Replicas;
  let flags: string[];

  before(async function () {
    this.timeout(2 * DEADLINE_MS);
    replicas = await createReplicas(controlPlane(), 'status');
    await replicas.start();
    await replicas.startFleet({ reporters: 2, tunnels: 6, tenants: 3 });
    await replicas.waitUntilServed(2, DEADLINE_MS);
    await replicas.waitForLeader(DEADLINE_MS);
    flags = ['--kubeconfig', controlPlane().kubeconfigPath, '--namespace', replicas.namespace];
  });
  after(() => replicas.stop());

  it('shows replicas, reporters and tenants', async () => {
    const { code, stdout, stderr } = await runCommand(['status', ...flags]);
    const lines = stdout.split('\n');
    expect(lines[0]).to.equal(
      '12 tunnels of 3 tenants; 2 of 2 reporters connected, 2 in sync, 0 pending; 1 of 1 replica alive',
    );
    expect(lines[1]).to.include(`namespace ${replicas.namespace} at https://`);
    const owner = replicas.running[0]?.process.replica ?? '';
    const cells = lines.map((line) => line.split(/\s{2,}/));
    expect(cells).to.deep.include(['responder-0', 'edge', 'True', 'True', '6', '6', '0', owner]);
    expect(cells).to.deep.include(['tenant-0', '4', '0', '4', '2']);
    expect(cells.find(([name]) => name === owner)?.slice(0, 2)).to.deep.equal([owner, 'alive, leader']);
    expect(stderr).to.equal('');
    expect(code).to.equal(0);
  });

  it('prints a JSON document with -o json', async () => {
    const { stdout } = await runCommand(['status', ...flags, '-o', 'json']);
    const { totals, reporters, tenants } = JSON.parse(stdout) as FleetSummary;
    expect(totals).to.include({ tunnels: 12, connected: 2, synced: 2, alive: 1 });
    expect(reporters.map(({ id, objects }) => `${id} ${objects}`)).to.deep.equal([
      'responder-0 6',
      'responder-1 6',
    ]);
    expect(tenants.map(({ tunnels }) => tunnels)).to.deep.equal([4, 4, 4]);
  });

  it('runs as kubectl rt status', async () => {
    const { code, stdout } = await runCommand(['status', ...flags], 'src/kubectl-rt.ts');
    expect(stdout).to.match(/^12 tunnels of 3 tenants;/);
    expect(code).to.equal(0);
    const other = await runCommand(['serve'], 'src/kubectl-rt.ts');
    expect(other.stderr).to.equal(
      'kubectl rt: unknown subcommand "serve"; must be one of doctor, status, get, expect\n',
    );
    expect(other.code).to.equal(2);
  });

  it('shows reporters that connect and disconnect with -w', async function () {
    this.timeout(DEADLINE_MS);
    const child = spawn(process.execPath, ['src/main.ts', 'status', '-w', '-o', 'json', ...flags], {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let last: FleetSummary | undefined;
    createInterface({ input: child.stdout }).on('line', (line) => {
      last = JSON.parse(line) as FleetSummary;
    });
    const connected = (count: number): Promise<true> =>
      poll(DEADLINE_MS, () => last?.totals.connected === count || undefined);
    await connected(2);
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 3, reporterCluster: 'other' });
    await connected(3);
    await poll(DEADLINE_MS, () => last?.totals.tunnels === 15 || undefined);
    await fleet.stop();
    await connected(2);
    child.kill('SIGINT');
    await waitForExit(child);
    expect(child.exitCode).to.equal(0);
  });

  it('exits with 0 in an empty namespace and shows that it is empty', async () => {
    const namespace = await createNamespace(controlPlane(), 'status');
    const { code, stdout } = await runCommand(['status', ...flags, '-n', namespace]);
    expect(stdout).to.include('no operator replicas').and.include('no reporter').and.include('no tunnel');
    expect(code).to.equal(0);
  });

  it('reports a missing permission in one line and exits with 1', async () => {
    const { namespace } = replicas;
    const account = { namespace, serviceAccount: 'unprivileged', rules: [] };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const { code, stdout, stderr } = await runCommand([
      'status',
      '--kubeconfig',
      kubeconfigPath,
      '-n',
      namespace,
    ]);
    expect(stderr.trim().split('\n')).to.have.length(1);
    expect(stderr).to.match(/^status: list \S+ in status-\S+: 403 Forbidden/);
    expect(stdout).to.equal('');
    expect(code).to.equal(1);
  });

  for (const [args, message] of [
    [['--top', 'many'], 'status: --top: "many" must be a whole number from 0 to 999999'],
    [['-n', 'A'], 'status: --namespace: "A" must be at most 63 lower-case letters, digits and dashes'],
  ] as const) {
    it(`rejects ${args.join(' ')} with one line and exit code 2`, async () => {
      const { code, stderr } = await runCommand(['status', ...args]);
      expect(stderr.split('\n')[0]).to.equal(message);
      expect(code).to.equal(2);
    });
  }
});
