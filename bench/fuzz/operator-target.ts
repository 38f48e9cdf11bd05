import { openCluster } from '../../demo/cluster.ts';
import type { ReporterId } from '../../src/core/tunnel.ts';
import { poll, startOperatorProcess } from '../../test/support/operator-process.ts';
import { requestBytes } from '../../test/support/wire.ts';
import type { Target } from './live.ts';
import { callWith, connectTo } from './players.ts';

const DEADLINE_MS = 60_000;
/** Of the reporter that behaves: it holds no tunnels, and must not be superseded. */
const STEADY_CLUSTER = 'edge';
const QUIET_DEADLINE_MS = 300_000;
/** Loaded before the operator: at SIGUSR2 it collects garbage and logs what memory is left. */
const PROBE = `process.on('SIGUSR2', () => {
  gc();
  console.log(JSON.stringify({ level: 'probe', msg: 'memory', ...process.memoryUsage() }));
});`;

/** The operator as users run it, compiled, with a control plane of its own that it mirrors into. */
export async function startOperatorTarget(): Promise<Target> {
  const cluster = await openCluster(undefined);
  const operator = await startOperatorProcess({
    kubeconfigPath: cluster.operatorKubeconfigPath,
    namespace: cluster.namespace,
    main: 'dist/main.js',
    nodeFlags: ['--expose-gc', '--import', `data:text/javascript,${encodeURIComponent(PROBE)}`],
  });
  await operator.ready();
  let read = 0;
  const errors: string[] = [];
  const reporters = new Map<string, ReporterId>();
  let memory: { readonly heapUsed: number; readonly external: number; readonly rss: number } | undefined;
  /** Each line once: there are some hundred thousand in a run. */
  const readLog = (): void => {
    for (; read < operator.log.length; read += 1) {
      const line = operator.log[read];
      if (line?.level === 'error') errors.push(JSON.stringify(line));
      else if (line?.level === 'probe') memory = line as unknown as NonNullable<typeof memory>;
      else if (line?.msg === 'reporter connected') {
        const reporter = line['reporter'] as ReporterId;
        if (reporter.cluster !== STEADY_CLUSTER) reporters.set(JSON.stringify(reporter), reporter);
      }
    }
    if (operator.stderr !== '') throw new Error(`the operator said ${operator.stderr}`);
  };
  return {
    address: operator.grpcAddress,
    async state() {
      memory = undefined;
      operator.signal('SIGUSR2');
      const { heapUsed, external, rss } = await poll(DEADLINE_MS, () => {
        readLog();
        return memory;
      });
      return { heldBytes: heapUsed + external, residentBytes: rss, errors };
    },
    async forget() {
      readLog();
      const client = connectTo(operator.grpcAddress);
      // One says of each that it has no tunnels any more.
      for (const node of reporters.values()) {
        await callWith(client, [requestBytes({ node: { ...node }, full_push: true, nonce: 1 })]);
      }
      client.close();
      reporters.clear();
      await poll(QUIET_DEADLINE_MS, async () => {
        const series = ['workqueue_depth', 'reverse_tunnel_workqueue_delayed', 'reverse_tunnel_objects'];
        const values = await Promise.all(series.map((one) => operator.metric(one)));
        return values.every((value) => value === 0) || undefined;
      });
    },
    async [Symbol.asyncDispose]() {
      await operator.kill();
      await cluster.close();
    },
  };
}
