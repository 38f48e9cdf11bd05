/** Disruptions of the pods while a fleet with churn reports. */
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../support/eventually.ts';
import type { ClusterTools } from './cluster-tools.ts';
import { disrupt, type DisruptionResult, type Fleet } from './fleet.ts';
import { DEPLOYMENT, install, MTLS, NAMESPACE } from './installation.ts';
import { type OperatorPod, operatorPods, processOf } from './pods.ts';

const POLL_MS = 500;
/** The liveness probe replaces a frozen container after 38 s, and a probe that is configured worse, after 79 s. */
const FROZEN_LIMIT_S = 60;
/** For what the kubelet does, on a busy machine. */
const POD_TIMEOUT_MS = 300_000;
const TIMEOUT = `${POD_TIMEOUT_MS / 1000}s`;

async function rollOut(tools: ClusterTools, fleet: Fleet): Promise<DisruptionResult> {
  return await disrupt(
    tools,
    fleet,
    async () => {
      await tools.kubectl('rollout', 'restart', '--namespace', NAMESPACE, DEPLOYMENT);
      await tools.kubectl('rollout', 'status', '--namespace', NAMESPACE, DEPLOYMENT, '--timeout', TIMEOUT);
    },
    async () => true,
  );
}

/** Drains the only node: the disruption budget must keep the second pod, because the first one cannot be replaced. */
async function drain(tools: ClusterTools, fleet: Fleet): Promise<DisruptionResult> {
  return await disrupt(
    tools,
    fleet,
    async () => {
      const options = ['--ignore-daemonsets', '--delete-emptydir-data', '--timeout', '20s'];
      const { code, stderr } = await tools.run(['kubectl', 'drain', 'node', ...options]);
      const ready = (await operatorPods(tools)).filter((pod) => pod.ready).length;
      await tools.kubectl('uncordon', 'node');
      if (code === 0 || !stderr.includes('disruption budget') || ready !== 1) {
        throw new Error(
          `the drain ended with ${code} and left ${ready} ready pods, not 1: ${stderr.slice(-300)}`,
        );
      }
    },
    async () => true,
  );
}

/** Kills containers with SIGKILL, as the kernel does when memory is exhausted. */
async function kill(tools: ClusterTools, fleet: Fleet, count: number): Promise<DisruptionResult> {
  const pods = (await podsByLoad(tools)).slice(0, count);
  return await disrupt(
    tools,
    fleet,
    async () => {
      const processes = await Promise.all(pods.map(processOf));
      for (const pid of processes) process.kill(pid, 'SIGKILL');
    },
    async () => await restarted(tools, pods),
  );
}

/** Stops a process without ending it: its connections stay open and nothing answers. */
async function freeze(tools: ClusterTools, fleet: Fleet): Promise<DisruptionResult> {
  const [pod] = await podsByLoad(tools);
  if (pod === undefined) throw new Error('no pod');
  const pid = await processOf(pod);
  let frozenMs = 0;
  let replacedS: number | undefined;
  const result = await disrupt(
    tools,
    fleet,
    async () => {
      process.kill(pid, 'SIGSTOP');
      frozenMs = performance.now();
      await eventually(
        'the container is replaced',
        async () => await restarted(tools, [pod]),
        POD_TIMEOUT_MS,
        POLL_MS,
      );
      replacedS = (performance.now() - frozenMs) / 1000;
    },
    async () => true,
  );
  if (replacedS === undefined || replacedS > FROZEN_LIMIT_S) {
    throw new Error(
      `the frozen container was replaced after ${replacedS?.toFixed(0)} s, not within ${FROZEN_LIMIT_S} s`,
    );
  }
  return { ...result, note: `container replaced after ${replacedS.toFixed(0)} s; ${result.note}` };
}

/** Upgrades to a memory limit that the program exceeds when it starts: the old pods must serve until the rollback. */
async function exhaustMemory(tools: ClusterTools, fleet: Fleet): Promise<DisruptionResult> {
  const olds = await operatorPods(tools);
  return await disrupt(
    tools,
    fleet,
    async () => {
      const limit = ['resources.limits.memory=40Mi', 'resources.requests.memory=40Mi'];
      const set = limit.flatMap((value) => ['--set', value]);
      await tools.helm(
        4,
        'upgrade',
        NAMESPACE,
        'charts/reverse-tunnel-operator',
        '--namespace',
        NAMESPACE,
        '--reuse-values',
        ...set,
      );
      await eventually(
        'the new pod is killed because of its memory',
        async () => (await terminationReasons(tools)).includes('OOMKilled'),
        POD_TIMEOUT_MS,
        POLL_MS,
      );
      const ready = (await operatorPods(tools)).filter(
        ({ name, ready }) => ready && olds.some((old) => old.name === name),
      );
      if (ready.length !== olds.length) throw new Error(`${ready.length} of ${olds.length} old pods serve`);
      await tools.helm(4, 'rollback', NAMESPACE, '--namespace', NAMESPACE, '--wait', '--timeout', TIMEOUT);
    },
    async () => (await operatorPods(tools)).every(({ name }) => olds.some((old) => old.name === name)),
  );
}

/** Deletes both pods with the API at once, without a grace period. */
async function deleteBoth(tools: ClusterTools, fleet: Fleet): Promise<DisruptionResult> {
  const olds = await operatorPods(tools);
  return await disrupt(
    tools,
    fleet,
    async () => {
      await tools.kubectl(
        'delete',
        'pods',
        '--namespace',
        NAMESPACE,
        '--force',
        '--grace-period=0',
        ...olds.map(({ name }) => name),
      );
    },
    async () => (await operatorPods(tools)).every(({ name }) => olds.every((old) => old.name !== name)),
  );
}

/** Upgrades from the previous commit's chart; the fleet stays connected throughout. */
export async function upgradeFrom(tools: ClusterTools, fleet: Fleet): Promise<DisruptionResult> {
  return await disrupt(
    tools,
    fleet,
    async () => {
      await install(tools, 4, MTLS);
      await delay(POLL_MS);
    },
    async () => true,
  );
}

/** Returns the pods, the one that owns most reporters first: a disruption of one without reporters shows nothing. */
async function podsByLoad(tools: ClusterTools): Promise<readonly OperatorPod[]> {
  const template = 'jsonpath={.items[*].status.owner.replica}';
  const reporters = ['get', 'reversetunnelreporters', '--namespace', NAMESPACE, '--output', template];
  const owners = (await tools.kubectl(...reporters)).split(' ');
  const load = ({ name }: OperatorPod): number => owners.filter((owner) => owner.startsWith(name)).length;
  return (await operatorPods(tools)).toSorted((a, b) => load(b) - load(a));
}

async function restarted(tools: ClusterTools, pods: readonly OperatorPod[]): Promise<boolean> {
  const now = await operatorPods(tools);
  return pods.every(({ name, restarts }) => {
    const pod = now.find((candidate) => candidate.name === name);
    return pod === undefined || pod.restarts > restarts;
  });
}

async function terminationReasons({ kubectl }: ClusterTools): Promise<string> {
  const state = (which: string): string =>
    `{.items[*].status.containerStatuses[*].${which}.terminated.reason}`;
  const template = `jsonpath=${state('state')} ${state('lastState')}`;
  return await kubectl('get', 'pods', '--namespace', NAMESPACE, '--output', template);
}

/** The disruptions by name; each needs two ready pods and leaves them. */
export const DISRUPTIONS: Readonly<
  Record<string, (tools: ClusterTools, fleet: Fleet) => Promise<DisruptionResult>>
> = {
  'rolling restart': rollOut,
  drain,
  'kill one pod': async (tools, fleet) => await kill(tools, fleet, 1),
  'kill both pods': async (tools, fleet) => await kill(tools, fleet, 2),
  'delete both pods': deleteBoth,
  'freeze a pod': freeze,
  'out of memory': exhaustMemory,
};
