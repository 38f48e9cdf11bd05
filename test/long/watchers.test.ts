import { expect } from 'chai';
import type { ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { killGroup, spawnGuarded, waitForExit } from '../../control-plane/process-supervisor.ts';
import { run } from '../../control-plane/run.ts';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { waitForMatch } from '../support/expected-objects.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';

const EXAMPLES = join(import.meta.dirname, '..', '..', 'examples', 'watchers');
const DEADLINE_MS = 60_000;
/** A first build or download takes a minute on 2 cores. */
const PREPARATION_MS = 300_000;

/** A watcher of `examples/watchers`. */
interface Watcher {
  readonly language: string;
  /** Provides what the example needs in `folder`. */
  readonly prepare: (folder: string) => Promise<void>;
  readonly command: (folder: string, namespace: string) => readonly [string, ...string[]];
}

async function expectSuccess(command: string, args: readonly string[], cwd: string): Promise<void> {
  const env = { ...process.env, CGO_ENABLED: '0', GOWORK: 'off' };
  const { code, stderr } = await run(command, args, { cwd, env, timeoutMs: PREPARATION_MS });
  expect(code, `${command} ${args.join(' ')}: ${stderr}`).to.equal(0);
}

const WATCHERS: readonly Watcher[] = [
  {
    language: 'Go',
    prepare: async (folder) =>
      // The flags of the control plane, whose packages are in the build cache of Go.
      expectSuccess('go', ['build', '-trimpath', '-buildvcs=false', '-o', folder, '.'], join(EXAMPLES, 'go')),
    command: (folder) => [join(folder, 'tunnel-watcher')],
  },
  {
    language: 'Python',
    prepare: async (folder) => {
      const requirements = join(EXAMPLES, 'python', 'requirements.txt');
      await expectSuccess(
        'python3',
        ['-m', 'pip', 'install', '--quiet', '--target', folder, '-r', requirements],
        folder,
      );
    },
    command: (_, namespace) => {
      const file = join(EXAMPLES, 'python', 'watcher.py');
      return ['python3', '-m', 'kopf', 'run', '--quiet', '--namespace', namespace, file];
    },
  },
  {
    language: 'TypeScript',
    prepare: async () => {},
    command: () => [process.execPath, join(EXAMPLES, 'typescript', 'watcher.ts')],
  },
];

describe('the example watchers', () => {
  const controlPlane = useControlPlane();
  let namespace: string;
  let operator: OperatorProcess;
  let fleet: Fleet;

  before(async function () {
    this.timeout(4 * DEADLINE_MS);
    namespace = await createNamespace(controlPlane(), 'watchers');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    operator = await startOperatorProcess({ kubeconfigPath, namespace });
    await operator.ready();
    fleet = createFleet({ address: operator.grpcAddress, reporters: 1, tunnels: 4 });
    await fleet.start();
    await fleet.settled();
    await waitForMatch(fleet, controlPlane().request, namespace, DEADLINE_MS);
  });
  after(async () => {
    await fleet.stop();
    await operator.kill();
  });

  for (const { language, prepare, command } of WATCHERS) {
    it(`${language} prints a tunnel that is up and one that goes down`, async function () {
      this.timeout(PREPARATION_MS + 3 * DEADLINE_MS);
      const folder = await mkdtemp(join(tmpdir(), 'rt-watcher-'));
      let child: ChildProcess | undefined;
      try {
        await prepare(folder);
        const [program, ...args] = command(folder, namespace);
        const { kubeconfigPath } = controlPlane();
        child = spawnGuarded(program, args, {
          cwd: EXAMPLES,
          env: { ...process.env, KUBECONFIG: kubeconfigPath, NAMESPACE: namespace, PYTHONPATH: folder },
          stdio: ['ignore', 'pipe', 'pipe'],
        });
        let stdout = '';
        let stderr = '';
        child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
        child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
        const expectLine = async (line: string): Promise<void> => {
          try {
            await poll(DEADLINE_MS, () => {
              if (child?.exitCode !== null) throw new Error('the watcher exited');
              return Promise.resolve(stdout.split('\n').includes(line) ? true : undefined);
            });
          } catch (error) {
            throw new Error(`no line "${line}" in "${stdout}"; stderr: ${stderr}`, { cause: error });
          }
        };
        const [reporter] = fleet.reporters;
        const [[name, { tenantID, nodeID }] = expect.fail()] = [...(reporter?.expectedTunnels() ?? [])];
        await expectLine(`up ${tenantID} ${nodeID} responder-0`);
        reporter?.disconnectTunnel(name);
        await expectLine(`down ${tenantID} ${nodeID} responder-0`);
      } finally {
        if (child !== undefined) {
          killGroup(child);
          await waitForExit(child);
        }
        await rm(folder, { recursive: true, force: true });
      }
    });
  }
});
