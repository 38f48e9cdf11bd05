/** A real Prometheus that scrapes operators and evaluates the alerts of the chart for each of them. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { reservePorts } from '../../../control-plane/ports.ts';
import { killGroup, spawnGuarded, waitForExit } from '../../../control-plane/process-supervisor.ts';
import { resolvePrometheus } from '../../../prometheus/resolve.ts';
import { poll } from '../../support/operator-process.ts';

/** Default between two scrapes and two evaluations: the default of the Prometheus operator is 30 s. */
const INTERVAL_S = 15;
const START_DEADLINE_MS = 60_000;

export interface ScrapeTarget {
  /** The label `namespace` of its series. */
  readonly namespace: string;
  /** The address of its metrics, as host:port. */
  readonly address: string;
}

/** A rule as in `files/alerts.yaml` of the chart, with `$namespace` as placeholder. */
export interface AlertTemplate {
  readonly alert: string;
  readonly expr: string;
  readonly for: string;
}

/** A series of a query result: its labels, and its samples as Unix time in seconds and value. */
export interface QueriedSeries {
  readonly metric: Readonly<Record<string, string>>;
  readonly value?: readonly [number, string];
  readonly values?: readonly (readonly [number, string])[];
}

export type PrometheusProcess = Awaited<ReturnType<typeof startPrometheus>>;

/**
 * Starts Prometheus with one rule group per target; each alert also gets the label `installation`.
 *
 * @param intervalS seconds between two scrapes, evaluations, and samples of a range query
 */
export async function startPrometheus(
  targets: readonly ScrapeTarget[],
  alerts: readonly AlertTemplate[],
  intervalS = INTERVAL_S,
) {
  const { prometheus } = await resolvePrometheus();
  const folder = await mkdtemp(join(tmpdir(), 'rt-prometheus-'));
  const ports = await reservePorts(1);
  const address = `127.0.0.1:${ports.first}`;
  const interval = `${intervalS}s`;
  await writeFile(
    join(folder, 'prometheus.yaml'),
    stringify({
      global: {
        scrape_interval: interval,
        scrape_timeout: `${Math.min(intervalS, 10)}s`,
        evaluation_interval: interval,
      },
      rule_files: ['rules.yaml'],
      scrape_configs: [
        {
          job_name: 'reverse-tunnel-operator',
          static_configs: targets.map(({ namespace, address: target }) => ({
            targets: [target],
            labels: { namespace, pod: `${namespace}-0` },
          })),
        },
      ],
    }),
  );
  const groups = targets.map(({ namespace }) => ({
    name: namespace,
    rules: alerts.map(({ alert, expr, for: duration }) => ({
      alert,
      expr: expr.replaceAll('$namespace', namespace),
      for: duration,
      labels: { installation: namespace },
    })),
  }));
  await writeFile(join(folder, 'rules.yaml'), stringify({ groups }));
  const child = spawnGuarded(
    prometheus,
    [
      ...['--config.file', join(folder, 'prometheus.yaml'), '--storage.tsdb.path', join(folder, 'data')],
      `--web.listen-address=${address}`,
    ],
    { cwd: folder, env: process.env, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let stderr = '';
  child.stdout?.resume();
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const stop = async (): Promise<void> => {
    killGroup(child);
    await waitForExit(child);
    await ports.release();
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await poll(START_DEADLINE_MS, async () => {
      if (child.exitCode !== null) throw new Error(`Prometheus exited: ${stderr}`);
      const ready = await fetch(`http://${address}/-/ready`).catch(() => undefined);
      return ready?.ok === true ? true : undefined;
    });
  } catch (error) {
    await stop();
    throw error;
  }
  const request = async (
    endpoint: 'query' | 'query_range',
    expression: string,
    parameters: Readonly<Record<string, string>> = {},
  ): Promise<readonly QueriedSeries[]> => {
    const search = new URLSearchParams({ query: expression, ...parameters });
    const response = await fetch(`http://${address}/api/v1/${endpoint}?${search.toString()}`);
    const body = (await response.json()) as {
      readonly error?: string;
      readonly data?: { readonly result: readonly QueriedSeries[] };
    };
    if (body.data === undefined) throw new Error(`query ${expression}: ${body.error}`);
    return body.data.result;
  };
  return {
    query: (expression: string) => request('query', expression),
    /** Returns the result of a range query, one sample per scrape. The range is in Unix time in seconds. */
    queryRange: (expression: string, { startS, endS }: { readonly startS: number; readonly endS: number }) =>
      request('query_range', expression, { start: `${startS}`, end: `${endS}`, step: `${intervalS}` }),
    stop,
  };
}
