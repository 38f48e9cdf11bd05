/** Environments in which Node's defaults end in a stack trace or in silence: one line each, and the documented exit code. */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { get } from 'node:http';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect } from 'chai';
import { killGroup, spawnGuarded, waitForExit } from '../../control-plane/process-supervisor.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { poll } from '../support/operator-process.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const MAIN = join(ROOT, 'src', 'main.ts');
const KUBECTL_RT = join(ROOT, 'src', 'kubectl-rt.ts');
const TIMEOUT_MS = 60_000;

interface Exit {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a shell script in an environment that contains only PATH and the given variables. */
async function runShell(script: string, env: Record<string, string> = {}, cwd = ROOT): Promise<Exit> {
  const child = spawn('sh', ['-c', script, process.execPath, MAIN, KUBECTL_RT], {
    cwd,
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  const [stdout, stderr, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number | null>((resolve) => {
      child.once('exit', resolve);
    }),
  ]);
  return { code, stdout, stderr };
}

// $0 is Node, $1 the operator, $2 kubectl rt.
const NO_CONFIG = 'KUBECONFIG is not set and HOME is not set, not in a pod; set --kubeconfig or --server\n';

describe('hostile environments', function () {
  this.timeout(2 * TIMEOUT_MS);

  interface Case {
    readonly title: string;
    readonly script: string;
    readonly env?: Record<string, string>;
    readonly code: number;
    readonly stderr: RegExp;
    readonly stdout?: RegExp;
  }
  const cases: readonly Case[] = [
    {
      title: 'no HOME',
      script: '"$0" "$2" status',
      code: 1,
      stderr: new RegExp(`^status: no API server configured: ${NO_CONFIG}$`),
    },
    {
      title: 'a full disk',
      script: '"$0" "$2" status --help >/dev/full',
      code: 1,
      stderr: /^kubectl rt: cannot write output: ENOSPC[^\n]*\n$/,
    },
    {
      title: 'a full disk, for the version of the operator',
      script: '"$0" "$1" --version >/dev/full',
      code: 1,
      stderr: /^reverse-tunnel-operator: cannot write output: ENOSPC[^\n]*\n$/,
    },
    // The reader has ended before anything is written.
    {
      title: 'a closed pipe',
      script: '{ sleep 1; "$0" "$2" status --help; echo "code $?" >&2; } | true',
      code: 0,
      stderr: /^code 0\n$/,
    },
    { title: 'closed standard output', script: '"$0" "$2" --help >&-', code: 0, stderr: /^$/ },
    {
      title: 'closed standard input',
      script: '"$0" "$2" --help <&-',
      code: 0,
      stderr: /^$/,
      stdout: /^Usage: /,
    },
    {
      title: 'an invalid time zone and the C locale',
      script: '"$0" "$2" --help',
      env: { TZ: 'garbage', LANG: 'C', LC_ALL: 'C' },
      code: 0,
      stderr: /^$/,
      stdout: /^Usage: /,
    },
    {
      title: 'a large environment',
      script: '"$0" "$2" --help',
      env: { LARGE: 'x'.repeat(120_000) },
      code: 0,
      stderr: /^$/,
      stdout: /^Usage: /,
    },
    {
      title: 'a working directory that is gone',
      script: 'd=$(mktemp -d); cd "$d"; rmdir "$d"; "$0" "$2" status --help',
      code: 0,
      stderr: /^$/,
      stdout: /^Usage: /,
    },
    {
      title: 'an invalid NODE_OPTIONS, which Node itself rejects',
      script: '"$0" "$2" --help',
      env: { NODE_OPTIONS: '--garbage' },
      code: 9,
      stderr: /^[^\n]*--garbage is not allowed in NODE_OPTIONS\n$/,
    },
  ];
  for (const { title, script, env, code, stderr, stdout } of cases) {
    it(`are survived: ${title}`, async () => {
      const exit = await runShell(script, env);
      expect(exit.stderr).to.match(stderr);
      expect(exit.code).to.equal(code);
      if (stdout !== undefined) expect(exit.stdout).to.match(stdout);
    });
  }

  describe('of a running operator', () => {
    const controlPlane = useControlPlane();
    let flags: string;
    let httpPort: number;

    before('creates a namespace', async () => {
      const namespace = await createNamespace(controlPlane(), 'hostile');
      httpPort = await freePort();
      flags = `--auth insecure --kubeconfig '${controlPlane().kubeconfigPath}' --namespace ${namespace} --http-address 127.0.0.1:${httpPort}`;
    });

    /** Starts an operator in a shell and waits until it serves probes. */
    async function start(script: string, stdout: 'pipe' | number = 'pipe') {
      const child = spawnGuarded('sh', ['-c', script, process.execPath, MAIN], {
        cwd: ROOT,
        env: { PATH: process.env['PATH'] },
        stdio: ['ignore', stdout, 'pipe'],
      });
      let [out, err] = ['', ''];
      child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (out += chunk));
      child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (err += chunk));
      try {
        await poll(TIMEOUT_MS, async () => ((await livez().catch(() => 0)) === 200 ? true : undefined));
      } catch (error) {
        killGroup(child);
        throw new Error(`the operator does not serve: ${out}${err}`, { cause: error });
      }
      return {
        child,
        stderr: () => err,
        log: () =>
          out
            .split('\n')
            .filter((line) => line !== '')
            .map((line) => JSON.parse(line) as Record<string, unknown>),
        async stop(signal: NodeJS.Signals = 'SIGTERM') {
          child.kill(signal);
          await waitForExit(child);
          return child.exitCode;
        },
      };
    }

    function livez(): Promise<number> {
      return new Promise((resolve, reject) => {
        const request = get(
          { host: '127.0.0.1', port: httpPort, path: '/livez', agent: false },
          (response) => {
            response.resume();
            resolve(response.statusCode ?? 0);
          },
        );
        request.setTimeout(TIMEOUT_MS / 2, () => request.destroy(new Error('no response')));
        request.on('error', reject);
      });
    }

    it('are survived: 400 connections with a limit of 128 open files', async () => {
      const grpcPort = await freePort();
      const operator = await start(
        `ulimit -n 128; exec "$0" "$1" ${flags} --grpc-address 127.0.0.1:${grpcPort}`,
      );
      const sockets: Socket[] = [];
      try {
        for (let i = 0; i < 400; i += 1) {
          const socket = connect(grpcPort, '127.0.0.1');
          socket.on('error', () => undefined);
          socket.resume();
          sockets.push(socket);
        }
        await poll(TIMEOUT_MS, () =>
          operator.log().some(({ reason }) => reason === 'connections') ? true : undefined,
        );
        for (let i = 0; i < 10; i += 1) expect(await livez()).to.equal(200);
        const warning = operator
          .log()
          .find(({ msg }) => String(msg).startsWith('the limit of open files is low'));
        expect(warning).to.include({ openFiles: 128, maxConnections: 24, maxApiConnections: 24 });
        expect(operator.log().find(({ reason }) => reason === 'connections')).to.include({
          error: 'connection limit reached',
        });
        // Counted, because the other 24 are closed as well once they have been silent for 10 s.
        const rejected = 'reverse_tunnel_connections_rejected_total{reason="connections"} 376';
        await poll(TIMEOUT_MS, async () => {
          const metrics = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
          return metrics.split('\n').includes(rejected) ? true : undefined;
        });
        await poll(TIMEOUT_MS, () =>
          sockets.filter(({ closed }) => closed).length >= 376 ? true : undefined,
        );
      } finally {
        for (const socket of sockets) socket.destroy();
        expect(await operator.stop()).to.equal(0);
      }
      expect(operator.stderr()).to.equal('');
    });

    it('are survived: a full disk for the log', async () => {
      const full = openSync('/dev/full', 'w');
      const operator = await start(`exec "$0" "$1" ${flags} --grpc-address 127.0.0.1:0`, full);
      closeSync(full);
      expect(await operator.stop()).to.equal(0);
      expect(operator.stderr()).to.match(
        /^reverse-tunnel-operator: cannot write log: ENOSPC[^\n]*; lines are lost until it succeeds\n$/,
      );
    });

    it('are survived: a log reader that has ended, and a hangup', async () => {
      const operator = await start(`exec "$0" "$1" ${flags} --grpc-address 127.0.0.1:0`);
      operator.child.stdout?.destroy();
      expect(await operator.stop('SIGHUP')).to.equal(0);
      expect(operator.stderr()).to.match(/^reverse-tunnel-operator: cannot write log: EPIPE[^\n]*\n$/);
    });

    it('are reported: a port in use', async () => {
      const server = createServer();
      await new Promise<void>((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
      });
      const { port } = server.address() as AddressInfo;
      const exit = await runShell(`exec "$0" "$1" ${flags} --grpc-address 127.0.0.1:${port}`);
      server.close();
      expect(exit.code).to.equal(1);
      expect(exit.stderr).to.match(
        /^reverse-tunnel-operator: cannot listen on [^\n]* EADDRINUSE[^\n]*; free the port or set another --grpc-address\n$/,
      );
    });
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => {
    server.close(resolve);
  });
  return port;
}
