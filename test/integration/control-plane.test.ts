import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { errorMessage } from '../../control-plane/errors.ts';
import { requestJson } from '../../control-plane/https-json.ts';
import { run } from '../../control-plane/run.ts';
import type { RunResult } from '../../control-plane/run.ts';
import { startControlPlane } from '../../control-plane/start.ts';
import type { ControlPlane } from '../../control-plane/start.ts';
import { createNamespace, FIRST_START_TIMEOUT_MS, startWithCrds } from '../support/control-plane.ts';
import { getString, getPath } from '../../control-plane/get-path.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'control-plane', 'main.ts');
/** The namespace controller takes 5 s for a namespace, and longer on a busy machine. */
const POLL_DEADLINE_MS = 60_000;
const START = join(import.meta.dirname, '..', '..', 'control-plane', 'start.ts');

/** Returns the command lines of processes that contain `text`, except for zombies, which have exited. */
async function processesNaming(text: string): Promise<string[]> {
  const ps = await run('ps', ['-A', '-ww', '-o', 'stat=,args='], { cwd: '/', env: process.env });
  expect(ps.code, ps.stderr).to.equal(0);
  return ps.stdout.split('\n').filter((line) => line.includes(text) && !line.startsWith('Z'));
}

async function poll(what: string, check: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + POLL_DEADLINE_MS;
  while (!(await check())) {
    if (performance.now() > endMs) expect.fail(`${what}: not within ${POLL_DEADLINE_MS} ms`);
    await delay(50);
  }
}

async function leavesNothing(folder: string): Promise<void> {
  await poll(`${folder} is gone`, async () => !existsSync(folder));
  await poll(`no process of ${folder} is left`, async () => (await processesNaming(folder)).length === 0);
}

async function putConfigMap(controlPlane: ControlPlane, namespace: string, name: string): Promise<void> {
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const { status } = await controlPlane.request('POST', path, { metadata: { name } });
  expect(status).to.equal(201);
}

async function configMapStatus(controlPlane: ControlPlane, namespace: string, name: string): Promise<number> {
  return (await controlPlane.request('GET', `/api/v1/namespaces/${namespace}/configmaps/${name}`)).status;
}

describe('the control plane', () => {
  let controlPlane: ControlPlane;
  const exits: string[] = [];

  before(async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    controlPlane = await startWithCrds({
      audit: true,
      onUnexpectedExit: (error) => exits.push(error.message),
    });
  });
  after(async () => controlPlane.stop());

  it('is ready, and reports the version of its program', async () => {
    expect((await controlPlane.request('GET', '/readyz')).status).to.equal(200);
    const program = join(controlPlane.binaries, 'kube-apiserver');
    const { stdout } = await run(program, ['--version'], { cwd: '/', env: process.env });
    const version = await controlPlane.kubectl(['version', '-o', 'json']);
    expect(version.code, version.stderr).to.equal(0);
    const served = getString(JSON.parse(version.stdout), 'serverVersion', 'gitVersion');
    expect(served).to.match(/^v1\.\d+\.\d+/);
    expect(stdout).to.equal(`Kubernetes ${served}\n`);
  });

  it('is trusted only with its own CA', async () => {
    const request = { method: 'GET', url: `${controlPlane.url}/readyz`, timeoutMs: POLL_DEADLINE_MS };
    expect((await requestJson({ ...request, ca: controlPlane.caData })).status).to.equal(200);
    const code = await requestJson(request).then(
      () => 'responded',
      (error: unknown) => getString(error, 'code'),
    );
    expect(code).to.be.oneOf(['SELF_SIGNED_CERT_IN_CHAIN', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE']);
  });

  it('serves both CRDs', async () => {
    const namespace = await createNamespace(controlPlane);
    for (const kind of ['rt', 'rtr']) {
      const { code, stderr } = await controlPlane.kubectl(['get', kind, '-n', namespace]);
      expect(code, stderr).to.equal(0);
      expect(stderr).to.include('No resources found');
    }
  });

  it('denies requests of a ServiceAccount without permissions, and allows what its rules grant in its namespace', async () => {
    const namespace = await createNamespace(controlPlane);
    const can = async (kubeconfigPath: string, where: string): Promise<string> => {
      const { code, stderr } = await controlPlane.kubectl(['get', 'leases', '-n', where], { kubeconfigPath });
      return code === 0 ? 'allowed' : stderr;
    };
    const unprivileged = await controlPlane.kubeconfigFor({ namespace, serviceAccount: 'unprivileged' });
    expect(await can(unprivileged.kubeconfigPath, namespace)).to.include(
      `User "system:serviceaccount:${namespace}:unprivileged" cannot list resource "leases"`,
    );
    const reader = await controlPlane.kubeconfigFor({
      namespace,
      serviceAccount: 'reader',
      rules: [{ apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: ['list'] }],
    });
    // The authorizer watches bindings, so it takes a moment.
    await poll('reader may list', async () => (await can(reader.kubeconfigPath, namespace)) === 'allowed');
    expect(await can(reader.kubeconfigPath, 'default')).to.include('forbidden');
  });

  it('audits requests for leases, but not for other resources', async () => {
    const namespace = await createNamespace(controlPlane);
    const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
    expect((await controlPlane.request('POST', leases, { metadata: { name: 'one' } })).status).to.equal(201);
    await putConfigMap(controlPlane, namespace, 'unseen');
    const log = await readFile(controlPlane.auditLogPath ?? '', 'utf8');
    const events = log
      .trim()
      .split('\n')
      .map((line): unknown => JSON.parse(line))
      .filter((event) => getString(event, 'objectRef', 'namespace') === namespace)
      .map((event) => ({
        stage: getString(event, 'stage'),
        verb: getString(event, 'verb'),
        resource: getString(event, 'objectRef', 'resource'),
        user: getString(event, 'user', 'username'),
        code: getPath(event, 'responseStatus', 'code'),
      }));
    const event = { verb: 'create', resource: 'leases', user: 'admin' };
    expect(events).to.deep.equal([
      { stage: 'RequestReceived', ...event, code: undefined },
      { stage: 'ResponseComplete', ...event, code: 201 },
    ]);
  });

  it('shares nothing with a second control plane on the same machine', async () => {
    const second = await startControlPlane();
    try {
      expect(second.url).not.to.equal(controlPlane.url);
      await putConfigMap(controlPlane, 'default', 'of-the-first');
      await putConfigMap(second, 'default', 'of-the-second');
      expect(await configMapStatus(second, 'default', 'of-the-first')).to.equal(404);
      expect(await configMapStatus(controlPlane, 'default', 'of-the-second')).to.equal(404);
      const foreignToken = {
        method: 'GET',
        url: `${second.url}/api`,
        token: controlPlane.adminToken,
        timeoutMs: POLL_DEADLINE_MS,
      };
      expect((await requestJson({ ...foreignToken, ca: second.caData })).status).to.equal(401);
    } finally {
      await second.stop();
    }
    await leavesNothing(second.folder);
    expect((await controlPlane.request('GET', '/readyz')).status).to.equal(200);
  });

  it('keeps the address, data, CA and tokens of kube-apiserver across SIGKILL and a restart', async () => {
    const namespace = await createNamespace(controlPlane);
    const { token } = await controlPlane.kubeconfigFor({ namespace, serviceAccount: 'still-valid' });
    const { pid } = controlPlane.apiserver;
    await controlPlane.apiserver.kill();
    expect(controlPlane.apiserver.pid).to.equal(undefined);
    expect(await controlPlane.request('GET', '/readyz').catch((error) => getString(error, 'code'))).to.equal(
      'ECONNREFUSED',
    );
    await controlPlane.apiserver.start();
    expect(controlPlane.apiserver.pid).to.be.a('number').and.not.to.equal(pid);
    expect((await controlPlane.request('GET', `/api/v1/namespaces/${namespace}`)).status).to.equal(200);
    const request = {
      method: 'GET',
      url: `${controlPlane.url}/api`,
      ca: controlPlane.caData,
      timeoutMs: POLL_DEADLINE_MS,
    };
    expect((await requestJson({ ...request, token })).status).to.equal(200);
    expect((await requestJson({ ...request, token: 'made-up' })).status).to.equal(401);
  });

  it('keeps the data of etcd across SIGKILL and a restart', async () => {
    await putConfigMap(controlPlane, 'default', 'survivor');
    await controlPlane.etcd.kill();
    await controlPlane.etcd.start();
    await poll('the API server reconnected to etcd', async () => {
      return (await configMapStatus(controlPlane, 'default', 'survivor')) === 200;
    });
  });

  it('sends no response while kube-apiserver is paused', async () => {
    const request = {
      method: 'GET',
      url: `${controlPlane.url}/readyz`,
      ca: controlPlane.caData,
      token: controlPlane.adminToken,
    };
    controlPlane.apiserver.pause();
    try {
      const message = await requestJson({ ...request, timeoutMs: 500 }).catch(errorMessage);
      expect(message).to.match(/no response within 500 ms$/);
    } finally {
      controlPlane.apiserver.resume();
    }
    expect((await requestJson({ ...request, timeoutMs: POLL_DEADLINE_MS })).status).to.equal(200);
  });

  it('reports a program that exits unexpectedly once, with its name and the end of its log', async () => {
    const exitsBefore = exits.length;
    expect(exitsBefore, exits.join()).to.equal(0);
    process.kill(controlPlane.etcd.pid ?? 0, 'SIGABRT');
    await poll('the exit is reported', async () => exits.length > exitsBefore);
    expect(exits).to.have.length(1);
    expect(exits[0]).to.match(/^etcd exited unexpectedly .*; end of its log: ./);
    await controlPlane.etcd.start();
    await poll('healthy again', async () => (await controlPlane.request('GET', '/readyz')).status === 200);
  });
});

describe('stopping the control plane', () => {
  it('leaves no process and no folder, even with a paused program, and may be repeated', async () => {
    const controlPlane = await startControlPlane();
    const running = await processesNaming(controlPlane.folder);
    expect(running.filter((line) => line.includes('/etcd '))).not.to.deep.equal([]);
    controlPlane.apiserver.pause();
    await controlPlane.stop();
    await controlPlane.stop();
    expect(existsSync(controlPlane.folder)).to.equal(false);
    expect(await processesNaming(controlPlane.folder)).to.deep.equal([]);
  });

  it('leaves nothing after a failed start, whose error contains the end of the log', async () => {
    const parent = await mkdtemp(join(tmpdir(), 'failing-start-'));
    const usual = process.env['TMPDIR'];
    process.env['TMPDIR'] = parent;
    try {
      const message = await startControlPlane({ apiserverFlags: ['--no-such-flag'] }).then(
        async (started) => started.stop().then(() => expect.fail('started')),
        errorMessage,
      );
      expect(message).to.match(/^kube-apiserver exited before it was ready; .*unknown flag: --no-such-flag/);
      expect(await readdir(parent)).to.deep.equal([]);
      expect(await processesNaming(parent)).to.deep.equal([]);
    } finally {
      if (usual === undefined) delete process.env['TMPDIR'];
      else process.env['TMPDIR'] = usual;
      await rm(parent, { recursive: true, force: true });
    }
  });

  for (const [title, script] of [
    ['kill -9 of the parent process', 'setInterval(() => {}, 1000)'],
    [
      'an uncaught error in the parent process',
      'process.stdin.once("data", () => { throw new Error("crash") })',
    ],
  ] as const) {
    it(`leaves no process and no folder after ${title}`, async () => {
      const source = `
        const { startControlPlane } = await import(${JSON.stringify(START)});
        const { folder } = await startControlPlane();
        console.log(folder);
        ${script};`;
      const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
        stdio: ['pipe', 'pipe', 'ignore'],
      });
      const exited = once(child, 'exit');
      const folder = String((await once(child.stdout, 'data'))[0]).trim();
      expect(existsSync(folder)).to.equal(true);
      if (title.startsWith('kill -9')) {
        expect(await processesNaming(folder)).to.have.length.at.least(3);
        child.kill('SIGKILL');
      } else {
        child.stdin.write('now');
      }
      await exited;
      await leavesNothing(folder);
    });
  }
});

async function command(...args: string[]): Promise<RunResult> {
  return run(process.execPath, [MAIN, ...args], {
    cwd: '/',
    env: process.env,
    timeoutMs: FIRST_START_TIMEOUT_MS,
  });
}

describe('npm run control-plane', () => {
  it('prints an export command, runs until Ctrl-C, exits with 0 and leaves nothing', async () => {
    const child = spawn(process.execPath, [MAIN], { stdio: ['ignore', 'pipe', 'ignore'] });
    const exited = once(child, 'exit');
    const line = String((await once(child.stdout, 'data'))[0]);
    const kubeconfigPath = /^export KUBECONFIG=(.+)\n$/.exec(line)?.[1] ?? '';
    expect(getPath(JSON.parse(await readFile(kubeconfigPath, 'utf8')), 'kind')).to.equal('Config');
    child.kill('SIGINT');
    expect(await exited).to.deep.equal([0, null]);
    await leavesNothing(dirname(kubeconfigPath));
  });

  it('prints its usage with --help, and rejects an unknown flag with exit code 2 and one line', async () => {
    expect(await command('--help')).to.include({ code: 0, stderr: '' });
    const wrong = await command('--colour');
    expect(wrong).to.include({ code: 2, stdout: '' });
    expect(wrong.stderr).to.match(/^control-plane: [^\n]*--colour[^\n]*\n$/);
  });

  it('prints the folder of all binaries with --fetch', async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    const { code, stdout, stderr } = await command('--fetch');
    expect(code, stderr).to.equal(0);
    expect(existsSync(join(stdout.trim(), 'kube-controller-manager'))).to.equal(true);
    expect(existsSync(join(stdout.trim(), 'helm'))).to.equal(true);
  });
});

describe('the control plane with kube-controller-manager', () => {
  let controlPlane: ControlPlane;

  before(async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    controlPlane = await startControlPlane({ controllerManager: true });
  });
  after(async () => controlPlane.stop());

  it('creates the default ServiceAccount of a namespace, and deletes a namespace with its contents', async () => {
    const namespace = await createNamespace(controlPlane);
    const path = `/api/v1/namespaces/${namespace}`;
    await poll('default ServiceAccount', async () => {
      return (await controlPlane.request('GET', `${path}/serviceaccounts/default`)).status === 200;
    });
    await putConfigMap(controlPlane, namespace, 'doomed');
    expect((await controlPlane.request('DELETE', path)).status).to.equal(200);
    await poll('namespace gone', async () => (await controlPlane.request('GET', path)).status === 404);
    expect(await configMapStatus(controlPlane, namespace, 'doomed')).to.equal(404);
  });

  it('collects an object whose owner has been deleted', async () => {
    const namespace = await createNamespace(controlPlane);
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const owner = await controlPlane.request('POST', path, { metadata: { name: 'owner' } });
    const uid = getString(owner.body, 'metadata', 'uid');
    const ownerReferences = [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'owner', uid }];
    const owned = await controlPlane.request('POST', path, { metadata: { name: 'owned', ownerReferences } });
    expect(owned.status).to.equal(201);
    expect((await controlPlane.request('DELETE', `${path}/owner`)).status).to.equal(200);
    await poll(
      'owned object gone',
      async () => (await configMapStatus(controlPlane, namespace, 'owned')) === 404,
    );
  });
});
