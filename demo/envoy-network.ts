/** Real Envoys on this machine: a standard responder with the agent next to it, and initiators with a backend each. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { reservePorts } from '../control-plane/ports.ts';
import {
  createDisposableFolder,
  killGroup,
  spawnGuarded,
  waitForExit,
} from '../control-plane/process-supervisor.ts';
import { substituteExample, type InitiatorIdentity } from '../envoy/bootstrap.ts';
import { startEnvoy, type EnvoyProcess } from '../envoy/process.ts';

const ROOT = new URL('..', import.meta.url).pathname;
/** A running initiator. */
export interface Initiator {
  readonly identity: InitiatorIdentity;
  readonly envoy: EnvoyProcess;
}

/** The Envoys of the demo. All of them end with it. */
export interface EnvoyNetwork extends AsyncDisposable {
  /** `host:port` at which the responder accepts requests for services behind tunnels. */
  readonly requestAddress: string;
  /** Starts an initiator, whose backend responds with its name. */
  startInitiator(identity: InitiatorIdentity): Promise<Initiator>;
  /** Sends a request through the tunnel of an initiator. Returns status and body, such as `200 hello from node-1`. */
  request(node: string): Promise<string>;
  /** Kills the responder, which ends all tunnels, and starts it again on the same ports. */
  restartResponder(): Promise<void>;
}

/**
 * Starts the responder and its agent.
 *
 * @param envoyPath the program
 * @param operatorAddress `host:port` of the reporting service, in plaintext
 */
export async function startEnvoyNetwork(envoyPath: string, operatorAddress: string): Promise<EnvoyNetwork> {
  const stack = new AsyncDisposableStack();
  try {
    const folder = await createDisposableFolder(tmpdir(), 'envoy-demo-');
    stack.defer(folder.dispose);
    const ports = await reservePorts(3);
    stack.defer(ports.release);
    const [tunnels, requests, admin] = [ports.first, ports.first + 1, ports.first + 2];
    const lifecycleLog = join(folder.path, 'tunnels.log');
    const startResponder = async (): Promise<EnvoyProcess> =>
      await startEnvoy(
        envoyPath,
        await substituteExample('envoy-responder-standard.yaml', {
          ports: { '0.0.0.0:9000': tunnels, '0.0.0.0:8085': requests, '127.0.0.1:9901': admin },
          files: { '/var/log/envoy/tunnels.log': lifecycleLog },
        }),
      );
    let responder = await startResponder();
    stack.defer(() => responder[Symbol.asyncDispose]());
    const flags = ['--address', operatorAddress, '--admin', `http://127.0.0.1:${admin}`];
    const logFlags = ['--lifecycle-log', lifecycleLog, '--http-address', '127.0.0.1:0'];
    const agent: ChildProcess = spawnGuarded(
      process.execPath,
      ['src/main.ts', 'agent', ...flags, ...logFlags],
      {
        cwd: ROOT,
        env: { PATH: process.env['PATH'], HOME: process.env['HOME'] },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    agent.stdout?.resume();
    agent.stderr?.resume();
    stack.defer(async () => {
      killGroup(agent);
      await waitForExit(agent);
    });
    return {
      requestAddress: `127.0.0.1:${requests}`,
      async startInitiator(identity) {
        const backend: Server = createServer((_request, response) =>
          response.end(`hello from ${identity.node}`),
        );
        backend.listen(0, '127.0.0.1');
        await once(backend, 'listening');
        stack.defer(() => {
          backend.closeAllConnections();
          backend.close();
        });
        const envoy = await startEnvoy(
          envoyPath,
          await substituteExample('envoy-initiator.yaml', {
            ports: {
              '127.0.0.1:9901': 0,
              'responder.example.com:9000': tunnels,
              'backend.example.com:80': (backend.address() as AddressInfo).port,
            },
            initiator: identity,
          }),
        );
        stack.use(envoy);
        return { identity, envoy };
      },
      async request(node) {
        const response = await fetch(`http://127.0.0.1:${requests}/`, { headers: { 'x-node-id': node } });
        return `${response.status} ${await response.text()}`;
      },
      async restartResponder() {
        await responder[Symbol.asyncDispose]();
        responder = await startResponder();
      },
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}
