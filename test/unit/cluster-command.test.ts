import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { commandIn, nodeFolder } from '../../cluster/node.ts';
import { clusterCache } from '../../cluster/programs.ts';
import { run } from '../../control-plane/run.ts';
import { compareFootprints } from '../cluster/footprint.ts';

const ROOT = new URL('../..', import.meta.url).pathname;

describe('npm run cluster', () => {
  let cache: string;
  before(async () => {
    cache = await mkdtemp(join(tmpdir(), 'cluster-command-'));
    await writeFile(join(cache, 'image.tar'), '');
  });
  after(async () => await rm(cache, { recursive: true }));

  const cluster = async (args: readonly string[], path = process.env['PATH']) =>
    await run(process.execPath, [join(ROOT, 'cluster', 'main.ts'), ...args], {
      cwd: cache,
      env: { PATH: path, HOME: cache, XDG_CACHE_HOME: cache },
    });

  const failures: readonly { args: readonly string[]; code: number; error: RegExp }[] = [
    { args: [], code: 2, error: /^cluster: no command; see --help\n$/ },
    { args: ['start'], code: 2, error: /^cluster: unknown command start; see --help\n$/ },
    { args: ['up', 'now'], code: 2, error: /^cluster: unexpected argument now; see --help\n$/ },
    { args: ['down', '--all'], code: 2, error: /^cluster: unexpected argument --all; see --help\n$/ },
    { args: ['exec'], code: 2, error: /^cluster: no command to execute; see --help\n$/ },
    { args: ['exec', '--node', '--'], code: 2, error: /^cluster: no command to execute; see --help\n$/ },
    { args: ['load-image', 'a', 'b'], code: 2, error: /^cluster: unexpected argument b; see --help\n$/ },
    { args: ['load-image', 'none.tar'], code: 1, error: /^cluster: cannot load none\.tar: no such file\n$/ },
    {
      args: ['load-image', 'image.tar'],
      code: 1,
      error: /^cluster: no node is running \(.*\); start it with /,
    },
    { args: ['exec', 'true'], code: 1, error: /^cluster: no node is running \(.*\); start it with / },
  ];
  for (const { args, code, error } of failures) {
    it(`rejects the arguments "${args.join(' ')}" with exit code ${code}`, async () => {
      const result = await cluster(args);
      expect(result.code).to.equal(code);
      expect(result.stdout).to.equal('');
      expect(result.stderr).to.match(error);
    });
  }

  it('reports in one line why a node cannot run on this machine', async () => {
    // A PATH without the programs that create namespaces; the supervisor of the test needs the shell only.
    const result = await cluster(['up'], cache);
    expect(result.code).to.equal(1);
    expect(result.stderr).to.match(/^cluster: cannot run a node on this machine: .+\n$/);
    expect(result.stderr.trim().split('\n')).to.have.length(1);
  });

  // Nodes need Linux, and so does the identification of their processes.
  if (process.platform === 'linux') {
    for (const { command, program, args } of [
      { command: 'npm run cluster -- up', program: 'cluster/main.ts', args: ['up'] },
      { command: 'npm run test:cluster', program: 'test/cluster/main.ts', args: [] },
    ]) {
      it(`${command} leaves a node alone that another process has started`, async () => {
        const node = spawn('sleep', ['60'], { stdio: 'ignore' });
        try {
          const env = { PATH: process.env['PATH'], HOME: cache, XDG_CACHE_HOME: cache };
          // Otherwise, the test builds Helm.
          const helm = join(await clusterCache(env), 'helm-3', 'helm');
          await mkdir(dirname(helm), { recursive: true });
          await writeFile(helm, '#!/bin/sh\n', { mode: 0o755 });
          const stat = await readFile(`/proc/${node.pid}/stat`, 'utf8');
          const state = { pid: node.pid, started: stat.split(' ')[21], programs: cache };
          await mkdir(nodeFolder(env), { recursive: true });
          await writeFile(join(nodeFolder(env), 'state.json'), JSON.stringify(state));
          const result = await run(process.execPath, [join(ROOT, program), ...args], { cwd: cache, env });
          expect(result.code).to.equal(1);
          expect(result.stdout + result.stderr).to.contain('a cluster is running; stop it with');
          expect(existsSync(nodeFolder(env))).to.equal(true);
          expect([node.exitCode, node.signalCode]).to.deep.equal([null, null]);
        } finally {
          node.kill();
          await rm(join(cache, 'reverse-tunnel-operator'), { recursive: true, force: true });
        }
      });
    }
  }

  if (process.platform === 'linux') {
    it('lets one process at a time start or end the node', async () => {
      const script = `import { withNodeLock } from ${JSON.stringify(join(ROOT, 'cluster', 'node-lock.ts'))};
        import { mkdir, rmdir } from 'node:fs/promises';
        import { setTimeout as delay } from 'node:timers/promises';
        const lock = (action) => withNodeLock(${JSON.stringify(join(cache, 'node.lock'))}, process.env, () => {}, action);
        await lock(async () => {
          await mkdir('critical');
          // A signal may end the node in the process that is starting it.
          await lock(async () => await delay(100));
          await rmdir('critical');
        });`;
      const start = async () =>
        await run(process.execPath, ['--input-type=module', '--eval', script], {
          cwd: cache,
          env: { PATH: process.env['PATH'] },
        });
      const results = await Promise.all([start(), start(), start()]);
      expect(results.map(({ code, stderr }) => `${code} ${stderr}`)).to.deep.equal(['0 ', '0 ', '0 ']);
    });

    it('frees the lock of a process that is killed', async () => {
      const script = `import { withNodeLock } from ${JSON.stringify(join(ROOT, 'cluster', 'node-lock.ts'))};
        const lock = (action) => withNodeLock(${JSON.stringify(join(cache, 'killed.lock'))}, process.env, () => {}, action);
        await lock(async () => process.argv[1] === 'kill' ? process.kill(process.pid, 'SIGKILL') : console.log('locked'));`;
      const start = async (argument: string) =>
        await run(process.execPath, ['--input-type=module', '--eval', script, argument], {
          cwd: cache,
          env: { PATH: process.env['PATH'] },
        });
      expect((await start('kill')).code).to.equal(undefined);
      expect(await start('wait')).to.include({ code: 0, stdout: 'locked\n' });
    });
  }

  it('does not end itself for a process of a control group that is not visible', async () => {
    const group = join(cache, 'group');
    await mkdir(group);
    await writeFile(join(group, 'cgroup.procs'), '0\n');
    await writeFile(join(cache, 'groups'), `${group}\n`);
    const script = `import { removeGroups } from ${JSON.stringify(join(ROOT, 'cluster', 'control-groups.ts'))};
      await removeGroups('groups').catch((error) => console.log(error.code));`;
    const result = await run(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: cache,
      env: { PATH: process.env['PATH'] },
    });
    // Only in an ordinary folder do the files of a group remain.
    expect(result).to.include({ code: 0, stdout: 'ENOTEMPTY\n' });
  });

  for (const inside of [false, true]) {
    it(`runs commands ${inside ? 'inside of' : 'in the network of'} the node without a proxy`, () => {
      const names = ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'ALL_PROXY'];
      const proxies = [...names, ...names.map((name) => name.toLowerCase())];
      const previous = { ...process.env };
      for (const name of proxies) process.env[name] = 'http://proxy.test:3128';
      try {
        const node = { pid: 1, kubeconfig: '/kubeconfig', programs: '/programs', logs: '/logs' };
        const { env } = commandIn(node, ['kubectl'], inside);
        expect(env).to.not.have.any.keys(proxies);
        expect(env).to.include.keys('PATH', 'KUBECONFIG');
      } finally {
        for (const name of proxies) {
          if (previous[name] === undefined) delete process.env[name];
          else process.env[name] = previous[name];
        }
      }
    });
  }

  it('ends nothing if no node is running', async () => {
    const result = await cluster(['down']);
    expect(result.code).to.equal(0);
    expect(result.stderr).to.equal('cluster: no node is running\n');
  });

  for (const content of ['', '{"pid":4', 'null', '{}', '{"pid":"4","started":"5"}']) {
    it(`removes the folder of a node whose state cannot be read: ${content || 'empty'}`, async () => {
      const folder = nodeFolder({ HOME: cache, XDG_CACHE_HOME: cache });
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, 'state.json'), content);
      expect(await cluster(['down'])).to.include({ code: 0, stderr: 'cluster: the node has ended\n' });
      expect(existsSync(folder)).to.equal(false);
    });
  }

  it('prints its usage', async () => {
    const result = await cluster(['--help']);
    expect(result.code).to.equal(0);
    expect(result.stdout).to.match(/^Usage: npm run cluster -- COMMAND\n/);
  });

  it('finds what a node left behind on the machine', () => {
    const before = ['mount tmpfs /dev/shm tmpfs', 'link lo'];
    const after = ['link lo', 'link veth0', 'mount tmpfs /dev/shm tmpfs'];
    expect(compareFootprints(before, before)).to.deep.equal([]);
    expect(compareFootprints(before, after)).to.deep.equal(['+ link veth0']);
    expect(compareFootprints(after, before)).to.deep.equal(['- link veth0']);
  });
});
