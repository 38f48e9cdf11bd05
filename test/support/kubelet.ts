/**
 * The part of a kubelet that the chart's pods need: runs each container's command as a process on this machine with
 * the rendered arguments, environment, files and its ServiceAccount's token, calls its readiness probe, reports its
 * status to the API server, and sends SIGTERM when the pod is deleted.
 *
 * Differences from a node: all pods share this machine's network, so listening addresses become free loopback ports
 * and the name of the Service becomes the address `service`; the token is passed in a kubeconfig instead of at its
 * usual path.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ChildProcess } from 'node:child_process';
import { Client, credentials } from '@grpc/grpc-js';
import { renderKubeconfig } from '../../control-plane/credentials.ts';
import {
  createDisposableFolder,
  waitForExit,
  killGroup,
  spawnGuarded,
} from '../../control-plane/process-supervisor.ts';
import type { ControlPlane } from '../../control-plane/start.ts';
import { readShebang } from '../../build/shebang.ts';
import { COMPILE_CACHE } from './compile-cache.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** The image's ENTRYPOINT, from source. */
const ENTRYPOINT = [...readShebang(join(ROOT, 'src', 'main.ts')).nodeFlags, join(ROOT, 'src', 'main.ts')];
const SYNC_INTERVAL_MS = 250;

interface Probe {
  readonly httpGet?: { readonly path: string };
  readonly grpc?: object;
}
interface Container {
  readonly name: string;
  readonly args: readonly string[];
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[];
  readonly readinessProbe?: Probe;
}
interface Volume {
  readonly name: string;
  readonly secret?: { readonly secretName: string };
  readonly projected?: { readonly sources: readonly { readonly serviceAccountToken?: ProjectedToken }[] };
}
interface ProjectedToken {
  readonly path: string;
  readonly audience: string;
}
interface Pod {
  readonly metadata: { readonly name: string; readonly uid: string; readonly deletionTimestamp?: string };
  readonly spec: {
    readonly serviceAccountName: string;
    readonly containers: readonly Container[];
    readonly volumes?: readonly Volume[];
  };
  readonly status: Readonly<Record<string, unknown>>;
}

export interface PodProcess {
  readonly name: string;
  /** The arguments in the pod's spec. */
  readonly args: readonly string[];
  /** Lines of stdout and stderr so far. */
  readonly output: readonly string[];
  /** The listening addresses, read from the pod's log; empty until it listens. */
  readonly grpcAddress: string;
  readonly httpAddress: string;
  readonly ready: boolean;
  /** Undefined while the process runs. */
  readonly exitCode: number | null | undefined;
  /** Time from SIGTERM to exit; undefined before. */
  readonly stoppedInMs: number | undefined;
}

/** A substitute for a node that runs the pods of a namespace as processes. */
export interface Kubelet {
  /** All pods that were ever started, oldest first. */
  readonly pods: readonly PodProcess[];
  stop(): Promise<void>;
}

type RunningPod = { -readonly [K in keyof PodProcess]: PodProcess[K] } & {
  readonly uid: string;
  readonly child: ChildProcess;
  readonly probe: Probe | undefined;
  readonly output: string[];
  reportedStatus: string;
};

/** The pods to run, and the address of their Service. */
export interface KubeletOptions {
  readonly controlPlane: ControlPlane;
  readonly namespace: string;
  /** The Service's address, host:port. */
  readonly service: string;
  /** Called with the addresses of the ready pods when they change. */
  readonly onEndpoints: (grpcAddresses: readonly string[]) => void;
}

export async function startKubelet(options: KubeletOptions): Promise<Kubelet> {
  const { controlPlane, namespace, service, onEndpoints } = options;
  const folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-kubelet-');
  const core = `/api/v1/namespaces/${namespace}`;
  const running: RunningPod[] = [];
  let endpoints = '';
  const stopped = new AbortController();

  async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await controlPlane.request(method, core + path, body);
    if (answer.status >= 300)
      throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body as T;
  }

  async function startPod(pod: Pod): Promise<void> {
    const { name, uid } = pod.metadata;
    const [container] = pod.spec.containers;
    if (container === undefined) throw new Error(`pod ${name} has no container`);
    const home = join(folder.path, uid);
    mkdirSync(home);
    const token = await tokenFor(pod);
    const kubeconfig = join(home, 'kubeconfig');
    const { url, caData } = controlPlane;
    writeFileSync(kubeconfig, renderKubeconfig({ url, ca: caData, user: name, token, namespace }));
    for (const volume of pod.spec.volumes ?? []) await mount(pod, home, volume);
    const child = spawnGuarded(
      process.execPath,
      [...ENTRYPOINT, ...container.args.map((arg) => localizeArgument(arg, container, home))],
      {
        cwd: home,
        env: {
          ...Object.fromEntries((container.env ?? []).map(({ name: key, value }) => [key, value])),
          ...COMPILE_CACHE,
          PATH: process.env['PATH'],
          KUBECONFIG: kubeconfig,
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    const podProcess: RunningPod = {
      name,
      uid,
      child,
      args: container.args,
      output: [],
      grpcAddress: '',
      httpAddress: '',
      ready: false,
      exitCode: undefined,
      stoppedInMs: undefined,
      probe: container.readinessProbe,
      reportedStatus: '',
    };
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        podProcess.output.push(...text.split('\n').filter((line) => line !== ''));
        const serving = podProcess.output.find((line) => line.includes('"msg":"serving"'));
        if (serving === undefined || podProcess.grpcAddress !== '') return;
        const { grpcAddress, httpAddress } = JSON.parse(serving) as {
          grpcAddress: string;
          httpAddress: string;
        };
        Object.assign(podProcess, { grpcAddress, httpAddress });
      });
    }
    child.once('exit', (code) => (podProcess.exitCode = code));
    running.push(podProcess);
  }

  /** Requests a token that is bound to the pod, as the kubelet does. @param audience default: the API server */
  async function tokenFor({ metadata, spec }: Pod, audience?: string): Promise<string> {
    const { name, uid } = metadata;
    const { status } = await request<{ status: { token: string } }>(
      'POST',
      `/serviceaccounts/${spec.serviceAccountName}/token`,
      {
        spec: {
          ...(audience === undefined ? {} : { audiences: [audience] }),
          expirationSeconds: 3600,
          boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name, uid },
        },
      },
    );
    return status.token;
  }

  async function mount(pod: Pod, home: string, { name, secret, projected }: Volume): Promise<void> {
    mkdirSync(join(home, name));
    if (secret !== undefined) {
      const { data } = await request<{ data: Record<string, string> }>(
        'GET',
        `/secrets/${secret.secretName}`,
      );
      for (const [key, value] of Object.entries(data))
        writeFileSync(join(home, name, key), value, { encoding: 'base64' });
    }
    for (const { serviceAccountToken } of projected?.sources ?? []) {
      if (serviceAccountToken?.audience === undefined) continue;
      const { path, audience } = serviceAccountToken;
      writeFileSync(join(home, name, path), await tokenFor(pod, audience));
    }
  }

  /** Replaces addresses and paths in an argument by those of this machine. */
  function localizeArgument(arg: string, container: Container, home: string): string {
    let text = arg
      .replace(/=0\.0\.0\.0:\d+$/, '=127.0.0.1:0')
      .replace(/=[\w.-]+\.svc\.[\w.]+:\d+$/, `=${service}`);
    for (const { name, mountPath } of container.volumeMounts ?? [])
      text = text.replace(mountPath, join(home, name));
    return text;
  }

  async function reportStatus(pod: Pod, podProcess: RunningPod): Promise<void> {
    const { exitCode, ready } = podProcess;
    const phase = exitCode === undefined ? 'Running' : exitCode === 0 ? 'Succeeded' : 'Failed';
    if (podProcess.reportedStatus === phase + String(ready)) return;
    const condition = (type: string) => ({ type, status: ready ? 'True' : 'False' });
    const status = { ...pod.status, phase, conditions: [condition('Ready'), condition('ContainersReady')] };
    // A conflict means that the pod has changed; the next sync handles it.
    const { status: code } = await controlPlane.request('PUT', `${core}/pods/${pod.metadata.name}/status`, {
      ...pod,
      status,
    });
    if (code < 300) podProcess.reportedStatus = phase + String(ready);
  }

  async function sync(): Promise<void> {
    const { items } = await request<{ items: Pod[] }>('GET', '/pods');
    for (const pod of items) {
      const podProcess = running.find(({ uid }) => uid === pod.metadata.uid);
      if (podProcess === undefined) await startPod(pod);
      else {
        podProcess.ready = podProcess.exitCode === undefined && (await isReady(podProcess));
        await reportStatus(pod, podProcess);
      }
    }
    for (const podProcess of running) {
      const gone = !items.some(({ metadata }) => metadata.uid === podProcess.uid);
      if (gone && podProcess.exitCode === undefined && podProcess.stoppedInMs === undefined)
        terminate(podProcess);
    }
    const ready = running
      .filter((candidate) => candidate.ready && candidate.grpcAddress !== '')
      .map(({ grpcAddress }) => grpcAddress);
    if (endpoints !== ready.join(' ')) {
      endpoints = ready.join(' ');
      onEndpoints(ready);
    }
  }

  function terminate(podProcess: RunningPod): void {
    const sentMs = performance.now();
    podProcess.ready = false;
    podProcess.stoppedInMs = Number.NaN;
    podProcess.child.once('exit', () => (podProcess.stoppedInMs = performance.now() - sentMs));
    podProcess.child.kill('SIGTERM');
  }

  let failure: unknown;
  const syncLoop = (async () => {
    while (!stopped.signal.aborted) {
      await sync();
      await delay(SYNC_INTERVAL_MS);
    }
  })().catch((error: unknown) => (failure = error));

  return {
    pods: running,
    async stop() {
      stopped.abort();
      await syncLoop;
      for (const { child } of running) killGroup(child);
      await Promise.all(running.map(({ child }) => waitForExit(child)));
      await folder.dispose();
      if (failure !== undefined) throw failure;
    },
  };
}

/** Calls the pod's readiness probe; a pod without one is ready when it runs. */
async function isReady({ probe, grpcAddress, httpAddress }: RunningPod): Promise<boolean> {
  if (probe === undefined) return true;
  if (grpcAddress === '') return false;
  if (probe.httpGet !== undefined) {
    return await fetch(`http://${httpAddress}${probe.httpGet.path}`).then(
      ({ ok }) => ok,
      () => false,
    );
  }
  const client = new Client(grpcAddress, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  try {
    return await new Promise<boolean>((resolve) => {
      const bytes = (buffer: Buffer): Buffer => buffer;
      // A HealthCheckResponse with status (field 1) SERVING (1).
      client.makeUnaryRequest(
        '/grpc.health.v1.Health/Check',
        bytes,
        bytes,
        Buffer.alloc(0),
        (error, answer) => resolve(error === null && answer?.equals(Buffer.from([8, 1])) === true),
      );
    });
  } finally {
    client.close();
  }
}
