/** `rt get` next to `kubectl get reversetunnels` on a real API server. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect } from 'chai';
import { waitForExit } from '../../control-plane/process-supervisor.ts';
import { run, type RunResult } from '../../control-plane/run.ts';
import type { Terminal } from '../../src/cli/terminal.ts';
import { sliceManifest } from '../../src/core/slice-object.ts';
import type { ReporterId, Tunnel } from '../../src/core/tunnel.ts';
import { manifestFor } from '../../src/core/tunnel-object.ts';
import { runGet } from '../../src/get/get.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { runCommand, type CommandResult } from '../support/cli-process.ts';
import { poll } from '../support/operator-process.ts';
import { names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const DEADLINE_MS = 60_000;
const ROOT = new URL('../..', import.meta.url).pathname;
const API = '/apis/reverse-tunnel.io/v1alpha1';

/** Replaces the ages of the objects, which change between two commands; the gap after an age depends on its length. */
function withoutAges(table: string): string {
  return table.replaceAll(/(?<= {3})(?:\d+m)?\d+s(?: +|$)/gm, 'age ').replaceAll(/AGE +/g, 'AGE ');
}

describe('get', () => {
  const controlPlane = useControlPlane();
  let namespace: string;
  let connection: string[];
  const children = new Set<ChildProcess>();

  after(() => {
    for (const child of children) child.kill('SIGKILL');
  });

  async function write(method: string, path: string, body?: object): Promise<void> {
    const { status, body: answer } = await controlPlane().request(method, `${API}${path}`, body);
    expect(status, JSON.stringify(answer)).to.be.lessThan(300);
  }

  async function createObject(inNamespace: string, reporter: ReporterId, reported: Tunnel): Promise<string> {
    const { name, labels, spec } = manifestFor(names, reporter, reported);
    await write('POST', `/namespaces/${inNamespace}/reversetunnels`, {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnel',
      metadata: { name, labels },
      spec,
    });
    return name;
  }

  before(async () => {
    namespace = await createNamespace(controlPlane(), 'get');
    connection = ['--kubeconfig', controlPlane().kubeconfigPath];
    for (const name of ['node-2', 'node-1', 'node-3']) await createObject(namespace, RESPONDER, tunnel(name));
    await createObject(namespace, OTHER_RESPONDER, tunnel('node-1'));
    await createObject(
      namespace,
      OTHER_RESPONDER,
      tunnel('z:n', { tenantID: 'z', nodeID: 'z:n', createdAt: undefined }),
    );
  });

  /** Starts the command in this process, as a process of its own needs a second to start. */
  function start(...args: string[]) {
    let stdout = '';
    let stderr = '';
    const interrupted = new AbortController();
    const terminal: Terminal = {
      out: (text) => void (stdout += text),
      err: (text) => void (stderr += text),
      canRedraw: false,
      errColumns: () => undefined,
      interrupted: interrupted.signal,
    };
    return {
      stdout: () => stdout,
      stderr: () => stderr,
      interrupt: () => interrupted.abort(),
      ended: runGet([...connection, '-n', namespace, ...args], terminal, {}),
    };
  }

  async function get(...args: string[]): Promise<CommandResult> {
    const { ended, stdout, stderr } = start(...args);
    const code = await ended;
    return { code, stdout: stdout(), stderr: stderr() };
  }

  const runKubectl = (...args: string[]): Promise<RunResult> =>
    controlPlane().kubectl(['get', 'rt', '-n', namespace, ...args]);

  async function kubectl(...args: string[]): Promise<string> {
    return (await runKubectl(...args)).stdout;
  }

  for (const args of [
    [],
    ['-o', 'wide'],
    ['-o', 'name'],
    ['-o', 'json'],
    ['--no-headers'],
    ['-l', 'reverse-tunnel.io/node in (node-1,n),reverse-tunnel.io/tenant!=z'],
    ['-o', 'json', '-l', 'reverse-tunnel.io/node=absent'],
  ]) {
    it(`${args.join(' ')} prints what kubectl prints`, async function () {
      this.timeout(DEADLINE_MS);
      const { stdout, code } = await get(...args);
      expect(withoutAges(stdout)).to.equal(withoutAges(await kubectl(...args)));
      expect(code).to.equal(0);
    });
  }

  it('-o yaml prints the content that kubectl prints', async () => {
    const { parse } = await import('yaml');
    expect(parse((await get('-o', 'yaml')).stdout)).to.deep.equal(parse(await kubectl('-o', 'yaml')));
  });

  const nameOf = (tunnelName: string, reporter = RESPONDER): string =>
    names.tunnelObjectName(reporter, tunnel(tunnelName));

  for (const args of [
    [nameOf('node-2')],
    [nameOf('node-3'), nameOf('node-1'), nameOf('node-3')],
    ['node-2', nameOf('node-2'), 'absent'],
    ['absent', '-o', 'wide'],
    ['absent', '-o', 'json'],
    [nameOf('node-1'), '-o', 'json'],
    [nameOf('node-1'), 'absent', '-o', 'json'],
    ['absent', 'missing', '-o', 'json'],
    [nameOf('node-1'), 'absent', '-o', 'name'],
    [nameOf('node-1'), nameOf('node-2'), '--no-headers'],
    [`reversetunnel.reverse-tunnel.io/${nameOf('node-1')}`, `rt/${nameOf('node-2')}`, '-o', 'name'],
    ['absent', '--ignore-not-found', '-o', 'json'],
    ['absent', nameOf('node-1'), '--ignore-not-found', '-o', 'json'],
    ['absent', 'missing', '--ignore-not-found'],
    ['Not_A_Name', nameOf('node-1')],
    ['absent', '-w'],
  ]) {
    it(`${args.join(' ')} prints and exits as kubectl does`, async function () {
      this.timeout(DEADLINE_MS);
      // kubectl expects no type next to TYPE/NAME.
      const isTyped = args[0]?.includes('/') === true;
      const expected = isTyped
        ? await controlPlane().kubectl(['get', '-n', namespace, ...args])
        : await runKubectl(...args);
      const { stdout, stderr, code } = await get(...args);
      expect(withoutAges(stdout)).to.equal(withoutAges(expected.stdout));
      expect(stderr).to.equal(expected.stderr);
      expect(code).to.equal(expected.code);
    });
  }

  it('prints a named tunnel in YAML as a document of its own', async () => {
    const { parse } = await import('yaml');
    const args = [nameOf('node-1'), '-o', 'yaml'];
    expect(parse((await get(...args)).stdout)).to.deep.equal(parse(await kubectl(...args)));
  });

  async function createSlice(inNamespace: string, tunnelNames: readonly string[]): Promise<string> {
    const entries = tunnelNames.map((name) => tunnel(name));
    const { name, labels, spec } = sliceManifest(names, RESPONDER, 'acme', 0, entries);
    await write('POST', `/namespaces/${inNamespace}/reversetunnelslices`, {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnelSlice',
      metadata: { name, labels },
      spec,
    });
    return name;
  }

  it('prints a named entry of a slice, and each change of it with -w', async function () {
    this.timeout(DEADLINE_MS);
    const sliced = await createNamespace(controlPlane(), 'get');
    const slice = await createSlice(sliced, ['s-1', 's-2']);
    const name = nameOf('s-2');
    const { stdout, stderr, code } = await get('-n', sliced, name, 'absent', '-o', 'name');
    expect(stdout).to.equal(`reversetunnel.reverse-tunnel.io/${name}\n`);
    expect(stderr).to.match(/^Error from server \(NotFound\): \S+ "absent" not found\n$/);
    expect(code).to.equal(1);
    const watched = start('-n', sliced, name, '-w', '-o', 'json', '--output-watch-events');
    const types = (): string =>
      Array.from(watched.stdout().matchAll(/"type": "([A-Z]+)"/g), ([, type = '']) => type).join();
    await poll(DEADLINE_MS, () => (types() === 'ADDED' ? true : undefined));
    expect(JSON.parse(watched.stdout())).to.nested.include({
      'object.metadata.name': name,
      'object.spec.tunnelName': 's-2',
    });
    await write('DELETE', `/namespaces/${sliced}/reversetunnelslices/${slice}`);
    await poll(DEADLINE_MS, () => (types() === 'ADDED,DELETED' ? true : undefined));
    watched.interrupt();
    expect(await watched.ended).to.equal(0);
  });

  it('prints objects and entries of slices in one table, and a tunnel in both forms once', async () => {
    const mixed = await createNamespace(controlPlane(), 'get');
    const name = await createSlice(mixed, ['node-1', 's-1', 's-2']);
    await createObject(mixed, RESPONDER, tunnel('node-1'));
    await createObject(mixed, RESPONDER, tunnel('node-2'));
    const nodes = async (...args: string[]): Promise<string[]> => {
      const { stdout } = await get('-n', mixed, ...args);
      return Array.from(stdout.matchAll(/ eu-1 +(\S+) +responder-0 +Connected /g), ([, node = '']) => node);
    };
    expect(await nodes()).to.deep.equal(['node-1', 'node-2', 's-1', 's-2']);
    expect(await nodes('--node', 's-2')).to.deep.equal(['s-2']);
    expect(await nodes('-l', 'reverse-tunnel.io/node in (s-1,node-2)')).to.deep.equal(['node-2', 's-1']);
    expect(await nodes('--state', 'Unknown')).to.deep.equal([]);
    const { items } = JSON.parse((await get('-n', mixed, '-o', 'json')).stdout) as {
      items: { metadata: { annotations?: Record<string, string> } }[];
    };
    expect(items.map(({ metadata }) => metadata.annotations?.['reverse-tunnel.io/slice'])).to.deep.equal([
      undefined,
      undefined,
      name,
      name,
    ]);
  });

  it('is completed by kubectl: names in either form, and flags', async function () {
    this.timeout(DEADLINE_MS);
    const sliced = await createNamespace(controlPlane(), 'get');
    await createSlice(sliced, ['s-1', 's-2']);
    await createObject(sliced, RESPONDER, tunnel('s-3'));
    await createObject(sliced, RESPONDER, tunnel('node-1'));
    const folder = await mkdtemp(join(tmpdir(), 'completion-'));
    try {
      for (const [name, program] of [
        ['kubectl-rt', 'kubectl-rt.ts'],
        ['kubectl_complete-rt', 'kubectl-complete-rt.ts'],
      ] as const) {
        const script = `#!/bin/sh\nexec '${process.execPath}' '${join(ROOT, 'src', program)}' "$@"\n`;
        await writeFile(join(folder, name), script, { mode: 0o755 });
      }
      const env = {
        PATH: `${folder}:${process.env['PATH'] ?? ''}`,
        HOME: folder,
        KUBECONFIG: controlPlane().kubeconfigPath,
      };
      const complete = async (...words: string[]): Promise<string[]> => {
        const { stdout } = await run(
          join(controlPlane().binaries, 'kubectl'),
          ['__complete', 'rt', ...words],
          {
            cwd: folder,
            env,
          },
        );
        return stdout.trimEnd().split('\n');
      };
      const get = ['get', '-n', sliced];
      const expected = ['s-1', 's-2', 's-3'].map((name) => nameOf(name));
      expect(await complete(...get, 's-')).to.deep.equal([...expected, ':4']);
      expect(await complete(...get, expected[0] ?? '', '')).to.deep.equal([
        nameOf('node-1'),
        ...expected.slice(1),
        ':4',
      ]);
      expect(await complete(...get, '--ignore')).to.deep.equal([
        '--ignore-not-found\tdo not fail if a named tunnel does not exist',
        ':4',
      ]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('runs as kubectl rt get', async () => {
    const { code, stdout } = await runCommand(['get', ...connection, '-n', namespace], 'src/kubectl-rt.ts');
    expect(withoutAges(stdout)).to.equal(withoutAges(await kubectl()));
    expect(code).to.equal(0);
  });

  it('-A prints the tunnels of all namespaces with their namespace', async () => {
    const { stdout, code } = await get('-A');
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).to.match(/^NAMESPACE +NAME +TENANT /);
    expect(lines.filter((line) => line.startsWith(`${namespace} `))).to.have.length(5);
    expect(code).to.equal(0);
  });

  for (const [args, tunnelNames] of [
    [['--tenant', 'z'], ['z:n']],
    [['--node', 'node-1', '--reporter', 'responder-1'], ['node-1']],
    [['--node', 'n'], ['z:n']],
    [['--node', 'z:n'], ['z:n']],
    [['--cluster', 'eu-1', '--tenant', 'z', '--state', 'Connected'], ['z:n']],
    [['--state', 'Unknown'], []],
  ] as const) {
    it(`${args.join(' ')} prints [${tunnelNames.join(', ')}]`, async () => {
      const { stdout } = await get(...args, '-o', 'json');
      const { items } = JSON.parse(stdout) as { items: { spec: { tunnelName: string } }[] };
      expect(items.map(({ spec }) => spec.tunnelName)).to.deep.equal(tunnelNames);
    });
  }

  it('exits with 0 if there are no tunnels, and reports that on stderr', async () => {
    const empty = await createNamespace(controlPlane(), 'get');
    const { code, stdout, stderr } = await get('-n', empty);
    expect(stdout).to.equal('');
    expect(stderr).to.equal(`No tunnels found in ${empty} namespace.\n`);
    expect(code).to.equal(0);
  });

  it('reports a missing permission in one line and exits with 1', async () => {
    const account = { namespace, serviceAccount: 'unprivileged', rules: [] };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const { code, stdout, stderr } = await get('--kubeconfig', kubeconfigPath);
    expect(stderr).to.match(/^get: list reversetunnels\.reverse-tunnel\.io in get-\S+: 403 Forbidden.*\n$/);
    expect(stdout).to.equal('');
    expect(code).to.equal(1);
  });

  for (const [args, message] of [
    [['-o', 'xml'], 'get: --output: "xml" must be one of , wide, name, json, yaml'],
    [['-l', 'a in b'], 'get: --selector: "a in b" cannot parse "a in b"; must be a label selector such as'],
    [['--state', 'up'], 'get: --state: "up" must be one of Connected, Unknown, Closed'],
    [['pods/a'], 'get: "pods/a" must be the name of a tunnel, or reversetunnel/NAME'],
    [['a', '--node', 'n'], 'get: name cannot be provided when a selector is specified'],
  ] as const) {
    it(`rejects ${args.join(' ')} with one line and exit code 2`, async () => {
      const { code, stderr } = await get(...args);
      expect(stderr).to.contain(message);
      expect(code).to.equal(2);
    });
  }

  for (const args of [
    ['a', '-l', 'b=c'],
    ['a', '-A'],
    [nameOf('node-1'), nameOf('node-2'), '-w'],
  ]) {
    it(`rejects ${args.join(' ')} in the words of kubectl`, async () => {
      const expected = await runKubectl(...args);
      const { code, stdout, stderr } = await get(...args);
      expect(expected.code).to.equal(1);
      expect(code).to.equal(2);
      expect(stdout).to.equal('');
      expect(`error: ${stderr.split('\n')[0]?.replace('get: ', '')}`).to.equal(expected.stderr.trimEnd());
    });
  }

  it('prints each change with -w until it is interrupted', async function () {
    this.timeout(2 * DEADLINE_MS);
    const name = await createObject(namespace, RESPONDER, tunnel('w'));
    const child = spawn(
      process.execPath,
      [
        'src/main.ts',
        'get',
        '-w',
        '--output-watch-events',
        '-o',
        'json',
        ...connection,
        '-n',
        namespace,
        '--node',
        'w',
      ],
      { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] },
    );
    children.add(child);
    let printed = '';
    createInterface({ input: child.stdout }).on('line', (line) => {
      printed += `${line}\n`;
    });
    const types = (): string[] =>
      Array.from(printed.matchAll(/"type": "([A-Z]+)"/g), ([, type = '']) => type);
    const seen = (...expected: string[]): Promise<true> =>
      poll(DEADLINE_MS, () => (types().join() === expected.join() ? true : undefined));
    await seen('ADDED');
    const patch = JSON.stringify({ spec: { createdAt: '2026-11-24T05:00:00Z' } });
    await controlPlane().kubectl(['patch', 'rt', name, '-n', namespace, '--type=merge', '-p', patch]);
    await seen('ADDED', 'MODIFIED');
    await write('DELETE', `/namespaces/${namespace}/reversetunnels/${name}`);
    await seen('ADDED', 'MODIFIED', 'DELETED');
    child.kill('SIGINT');
    await waitForExit(child);
    expect(child.exitCode).to.equal(0);
    children.delete(child);
  });
});
