import { openCluster } from '../../demo/open-cluster.ts';
import type { ReporterId } from '../../src/core/tunnel.ts';
import { poll, startOperatorProcess } from '../../test/support/operator-process.ts';
import { requestBytes } from '../../test/support/wire.ts';
import type { FuzzTarget } from './live.ts';
import { sendReports, connectClient } from './drivers.ts';

const DEADLINE_MS = 60_000;
/** The cluster of the steady reporter, which has no tunnels and must not be superseded. */
const STEADY_CLUSTER = 'edge';
const IDLE_DEADLINE_MS = 300_000;
/** Loaded before the operator. On SIGUSR2, it collects garbage and logs the memory usage. */
const MEMORY_PROBE = `process.on('SIGUSR2', () => {
  gc();
  console.log(JSON.stringify({ level: 'probe', msg: 'memory', ...process.memoryUsage() }));
});`;

/** Starts the compiled operator as users run it, with a new control plane. */
export async function startOperatorTarget(): Promise<FuzzTarget> {
  const cluster = await openCluster({ real: true });
  const operator = await startOperatorProcess({
    kubeconfigPath: cluster.operatorKubeconfigPath,
    namespace: cluster.namespace,
    main: 'dist/main.js',
    nodeFlags: ['--expose-gc', '--import', `data:text/javascript,${encodeURIComponent(MEMORY_PROBE)}`],
  });
  await operator.ready();
  let readLines = 0;
  const errors: string[] = [];
  const reporters = new Map<string, ReporterId>();
  let memory: { readonly heapUsed: number; readonly external: number; readonly rss: number } | undefined;
  /** Reads each line once, because a run produces hundreds of thousands. */
  const readLog = (): void => {
    for (; readLines < operator.log.length; readLines += 1) {
      const line = operator.log[readLines];
      if (line?.level === 'error') errors.push(JSON.stringify(line));
      else if (line?.level === 'probe') memory = line as unknown as NonNullable<typeof memory>;
      else if (line?.msg === 'reporter connected') {
        const reporter = line['reporter'] as ReporterId;
        if (reporter.cluster !== STEADY_CLUSTER) reporters.set(JSON.stringify(reporter), reporter);
      }
    }
    if (operator.stderr !== '') throw new Error(`operator wrote to stderr: ${operator.stderr}`);
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
      return { usedBytes: heapUsed + external, residentBytes: rss, errors };
    },
    async forgetReporters() {
      readLog();
      const client = connectClient(operator.grpcAddress);
      // One client reports for each reporter that it has no tunnels.
      for (const node of reporters.values()) {
        await sendReports(client, [requestBytes({ node: { ...node }, full_push: true, nonce: 1 })]);
      }
      client.close();
      reporters.clear();
      await poll(IDLE_DEADLINE_MS, async () => {
        const series = [
          'workqueue_depth{name="tunnels"}',
          'reverse_tunnel_workqueue_delayed{name="tunnels"}',
          'reverse_tunnel_objects',
        ];
        const values = await Promise.all(series.map((name) => operator.metric(name)));
        return values.every((value) => value === 0) || undefined;
      });
    },
    async [Symbol.asyncDispose]() {
      await operator.kill();
      await cluster.close();
    },
  };
}
