import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, copyFile, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, normalize } from 'node:path';
import { expect } from 'chai';
import { parse, parseAllDocuments } from 'yaml';
import type { RunResult } from '../../control-plane/run.ts';
import { createAgentMetrics } from '../../src/agent/agent-metrics.ts';
import { OPERATOR_RBAC_RULES, permissionsOf } from '../../src/k8s/rbac-rules.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { runCommand } from '../support/cli-process.ts';
import { startOperatorProcess, type OperatorProcess } from '../support/operator-process.ts';
import { waitForMatch } from '../support/expected-objects.ts';
import { anchorsOf, blocksOf, codeOf, linksOf, pages, ROOT, type Block } from '../support/markdown-pages.ts';

/** The namespace in the pages' commands. */
const NAMESPACE = 'tunnels';
const BLOCK_TIMEOUT_MS = 60_000;
const MAX_CELL_LENGTH = 150;
/** Inline code that names a source file: a path below the root, or a path below src without its extension. */
const SOURCE_FILE =
  /^((?:src|test|bench|build|cluster|control-plane|core|controller|grpc|k8s|http|doctor|status|expect|cli|simulate|agent)\/[a-z0-9/-]+(?:\.test)?(?:\.(?:ts|sh|mod))?)$/;

/** Flags of other programs that the pages mention outside of commands. */
const OTHERS_FLAGS = new Set([
  // kubectl, Helm, kube-apiserver, Envoy.
  ...[
    '--all',
    '--watch',
    '--show-managed-fields',
    '--server-side',
    '--force-conflicts',
    '--dry-run',
    '--wait',
    '--for',
  ],
  ...['--take-ownership', '--skip-crds', '--set', '--no-hooks', '--namespaces'],
  ...['--endpoint-reconciler-type', '--service-node', '--service-cluster', '--concurrency'],
  ...['--base-id', '--use-dynamic-base-id', '--file-flush-interval-msec'],
  // This project's npm scripts.
  ...[
    '--once',
    '--envoy',
    '--real',
    '--runs',
    '--only',
    '--quick',
    '--profile',
    '--memory-curve',
    '--json',
    '--seed',
    '--messages',
    '--frames',
  ],
  ...['--api', '--fetch'],
  // Node and V8.
  ...[
    '--expose-gc',
    '--max-semi-space-size',
    '--no-flush-bytecode',
    '--liftoff-only',
    ...['--v8-pool-size', '--optimize-for-size', '--no-opt'],
    '--always-sparkplug',
    '--invocation-count-for-maglev',
    '--no-parallel-scavenge',
    '--heap-growing-percent',
    '--memory-saver-mode',
  ],
  '--gc-memory-reducer-start-delay-ms',
  '--incremental-marking-soft-trigger',
]);

const ALL = pages();
const BLOCKS = ALL.flatMap((page) => blocksOf(page));

function where({ page, line, text }: Block): string {
  return `${page.path}:${line}: ${text.trim().split('\n')[0]?.slice(0, 60)}`;
}

describe('documentation pages', () => {
  it('include blocks to run and YAML', () => {
    expect(ALL.map(({ path }) => path)).to.include.members([
      'README.md',
      'CONTRIBUTING.md',
      'docs/quickstart.md',
    ]);
    expect(BLOCKS.filter(({ info }) => info === 'sh run')).to.have.length.greaterThan(5);
    expect(BLOCKS.filter(({ info }) => info.startsWith('yaml'))).to.have.length.greaterThan(4);
  });

  for (const page of ALL) {
    it(`${page.path} links only to files and headings that exist`, () => {
      for (const link of linksOf(page)) {
        const [file = '', anchor] = link.split('#');
        const path = file === '' ? page.path : normalize(join(dirname(page.path), file)).replace(/\/$/, '');
        expect(existsSync(join(ROOT, path)), `${link} of ${page.path}`).to.equal(true);
        if (anchor === undefined) continue;
        const target = ALL.find((candidate) => candidate.path === path);
        expect(target && anchorsOf(target).has(anchor), `${link} of ${page.path}`).to.equal(true);
      }
    });

    it(`${page.path} mentions only source files that exist`, () => {
      for (const code of codeOf(page)) {
        const path = SOURCE_FILE.exec(code)?.[1];
        if (path === undefined) continue;
        const candidates = [path, `${path}.ts`, join('src', path), `${join('src', path)}.ts`];
        expect(
          candidates.some((candidate) => existsSync(join(ROOT, candidate))),
          `${code} of ${page.path}`,
        ).to.equal(true);
      }
    });

    it(`${page.path} has no table cell with more than ${MAX_CELL_LENGTH} characters`, () => {
      const cells = page.prose.matchAll(/(?<=^\|.*?)[^|\n]+(?=\|)/gm);
      const long = Array.from(cells, ([cell]) => cell.trim()).filter(
        (cell) => cell.length > MAX_CELL_LENGTH && !/^[-:]+$/.test(cell),
      );
      expect(long).to.deep.equal([]);
    });

    it(`${page.path} mentions only metrics that are served`, () => {
      const served = new Set(
        [createMetrics().registry, createAgentMetrics().registry].flatMap((registry) =>
          registry.getMetricsAsArray().map(({ name }) => name),
        ),
      );
      for (const [name] of page.text.matchAll(/\b(?:reverse_tunnel|workqueue|rest_client)_[a-z_]+[a-z]\b/g)) {
        // These belong to Envoy's service and extensions, not to this program.
        if (name.startsWith('reverse_tunnel_report') && !name.startsWith('reverse_tunnel_reporters_'))
          continue;
        expect(served.has(name.replace(/_(bucket|sum|count)$/, '')), `${name} of ${page.path}`).to.equal(
          true,
        );
      }
    });
  }

  for (const block of BLOCKS.filter(({ info }) => /^ya?ml\b/.test(info))) {
    it(`${where(block)} is YAML`, () => {
      const documents = parseAllDocuments(block.text);
      expect(documents.flatMap(({ errors }) => errors)).to.deep.equal([]);
    });
  }

  it('operations.md lists every permission of the operator', () => {
    const page = ALL.find(({ path }) => path === 'docs/operations.md');
    const listed = new Set<string>();
    for (const [, group = '', resources = '', verbs = ''] of page?.text.matchAll(
      /^\| `([a-z0-9.-]+)` +\| (`[a-z/` ]+) +\| (`[a-z` ]+) +\|$/gm,
    ) ?? []) {
      for (const resource of resources.match(/[a-z/]+/g) ?? []) {
        for (const verb of verbs.match(/[a-z]+/g) ?? []) listed.add(`${verb} ${resource} ${group}`);
      }
    }
    for (const { verb, resource, subresource, group } of permissionsOf(OPERATOR_RBAC_RULES)) {
      const right = `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`} ${group}`;
      expect(listed.has(right), right).to.equal(true);
    }
  });
});

describe('CI workflow', () => {
  it('runs .ci/run and no other checks', () => {
    const text = readFileSync(join(ROOT, '.github/workflows/ci.yaml'), 'utf8');
    const { jobs } = parse(text) as { jobs: Record<string, { steps: { run?: string }[] }> };
    const runs = Object.values(jobs).flatMap(({ steps }) =>
      steps.flatMap(({ run: command }) => command ?? []),
    );
    expect(runs).to.deep.equal(['.ci/run']);
    expect(existsSync(join(ROOT, '.ci/run'))).to.equal(true);
  });

  it('is required by every job of a release', () => {
    const read = (name: string): unknown =>
      parse(readFileSync(join(ROOT, '.github/workflows', name), 'utf8'));
    expect((read('ci.yaml') as { on: object }).on).to.have.property('workflow_call');
    const { jobs } = read('release.yaml') as { jobs: Record<string, { uses?: string; needs?: string }> };
    const waitedFor = Object.keys(jobs).filter((name) => jobs[name]?.uses === './.github/workflows/ci.yaml');
    expect(waitedFor).to.deep.equal(['checks']);
    const others = Object.entries(jobs).filter(([name]) => name !== 'checks');
    expect(others.length).to.be.greaterThan(0);
    for (const [name, { needs }] of others) expect(needs, name).to.equal('checks');
  });
});

describe('flags in the documentation', () => {
  /** Help texts by the words that start a command. */
  const helps = new Map<string, string>();
  before(async function () {
    this.timeout(BLOCK_TIMEOUT_MS);
    const tools: readonly (readonly [string, readonly string[]])[] = [
      ['serve', []],
      ['simulate', ['simulate']],
      ['agent', ['agent']],
      ['doctor', ['doctor']],
      ['status', ['status']],
      ['get', ['get']],
      ['expect', ['expect']],
    ];
    for (const [name, args] of tools) helps.set(name, (await runCommand([...args, '--help'])).stdout);
  });

  function has(help: string | undefined, flag: string): boolean {
    return help?.split(/[\s,]+/).includes(flag) ?? false;
  }

  it('exist when mentioned outside of commands', () => {
    for (const page of ALL) {
      for (const code of codeOf(page)) {
        const flag = /^--[a-z][a-z\d-]*/.exec(code)?.[0];
        if (flag === undefined || OTHERS_FLAGS.has(flag)) continue;
        const known = [...helps.values()].some((help) => has(help, flag));
        expect(known, `${code} of ${page.path}`).to.equal(true);
      }
    }
  });

  it('exist in the help of the command that uses them', () => {
    const lines = [
      ...BLOCKS.filter(({ info }) => /^(sh|console)\b/.test(info)).flatMap(({ page, text }) =>
        text
          .replaceAll(/\\\n/g, ' ')
          .split('\n')
          .map((line) => ({ page, line })),
      ),
      ...ALL.flatMap((page) => codeOf(page).map((line) => ({ page, line }))),
    ];
    let checked = 0;
    for (const { page, line } of lines) {
      const command =
        /(?:kubectl rt|reverse-tunnel-operator) (doctor|status|get|expect|simulate|agent)\b(.*)/.exec(line) ??
        /npm run (doctor|status|simulate) --(.*)/.exec(line);
      const serve = /(?:npm start --|^\$? ?reverse-tunnel-operator (?=--))(.*)/.exec(line);
      const [name, rest] = command === null ? ['serve', serve?.[1]] : [command[1] ?? '', command[2]];
      for (const flag of rest?.match(/(?<= )--[a-z][a-z-]*/g) ?? []) {
        expect(has(helps.get(name), flag), `${flag} of ${name}, in ${page.path}: ${line}`).to.equal(true);
        checked += 1;
      }
    }
    expect(checked).to.be.greaterThan(10);
  });
});

describe('commands in the documentation, on a real API server', () => {
  const controlPlane = useControlPlane();
  let operator: OperatorProcess | undefined;
  let fleet: Fleet | undefined;
  let folder: string;
  let env: Record<string, string | undefined>;

  before(async function () {
    this.timeout(3 * BLOCK_TIMEOUT_MS);
    const plane = controlPlane();
    await plane.request('POST', '/api/v1/namespaces', { metadata: { name: NAMESPACE } });
    folder = await mkdtemp(join(tmpdir(), 'pages-'));
    const kubeconfig = join(folder, 'kubeconfig');
    await copyFile(plane.kubeconfigPath, kubeconfig);
    await plane.kubectl(['config', 'set-context', '--current', `--namespace=${NAMESPACE}`], {
      kubeconfigPath: kubeconfig,
    });
    await symlink(join(plane.binaries, 'kubectl'), join(folder, 'kubectl'));
    for (const [name, program] of [
      ['kubectl-rt', 'kubectl-rt.ts'],
      ['reverse-tunnel-operator', 'main.ts'],
    ] as const) {
      const script = `#!/bin/sh\nexec '${process.execPath}' '${join(ROOT, 'src', program)}' "$@"\n`;
      await writeFile(join(folder, name), script);
      await chmod(join(folder, name), 0o755);
    }
    env = { PATH: `${folder}:${process.env['PATH'] ?? ''}`, HOME: folder, KUBECONFIG: kubeconfig };
    operator = await startOperatorProcess({ kubeconfigPath: kubeconfig, namespace: NAMESPACE });
    await operator.ready();
    fleet = createFleet({ address: operator.grpcAddress, reporters: 3, tunnels: 10 });
    await fleet.start();
    await fleet.settled();
    // Objects are created after their reporter objects, and kubectl does not wait for objects that do not exist
    // yet.
    await waitForMatch(fleet, plane.request, NAMESPACE, BLOCK_TIMEOUT_MS / 2);
    const wait = ['wait', '--for=condition=Ready', 'rtr', '--all', '--timeout=60s', '-n', NAMESPACE];
    const { code, stderr } = await plane.kubectl(wait);
    expect(code, stderr).to.equal(0);
  });
  after(async () => {
    await fleet?.stop();
    await operator?.kill();
    await rm(folder, { recursive: true });
  });

  for (const block of BLOCKS.filter(({ info }) => info === 'sh run')) {
    it(`${where(block)} runs`, async function () {
      this.timeout(BLOCK_TIMEOUT_MS);
      const { code, stdout, stderr } = await run(block.text, env);
      expect(code, `${stdout}${stderr}`).to.equal(0);
      // kubectl prints this with exit code 0; the page would then show nothing.
      expect(stderr).not.to.include('No resources found');
    });
  }
});

/** Runs a block as a user would, but stops at the first failing line. */
function run(
  script: string,
  env: Record<string, string | undefined>,
): Promise<Pick<RunResult, 'code' | 'stdout' | 'stderr'>> {
  return new Promise((resolve) => {
    const options = { env, cwd: ROOT, timeout: BLOCK_TIMEOUT_MS };
    execFile('bash', ['-euo', 'pipefail', '-c', script], options, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, stdout, stderr });
    });
  });
}
