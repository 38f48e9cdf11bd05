/**
 * `npm run dashboard:images -- [FOLDER]`: a real Prometheus scrapes a real operator under churn, without a fault and
 * during one, and each panel of the chart's dashboard is drawn from its own expressions. Writes
 * `dashboard-normal.svg` and `dashboard-fault.svg` to FOLDER (default: `docs/images`). Takes about 13 minutes.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ControlPlaneClient } from '../../../control-plane/start.ts';
import { endWithUsage, parseFlags, type CommandDescription } from '../../../src/flags.ts';
import { createPolicy } from '../../support/create-policy.ts';
import { poll } from '../../support/operator-process.ts';
import { startWithCrds } from '../../support/start-with-crds.ts';
import { openFaultFixture } from '../real/fault-fixture.ts';
import { openStatusLine } from '../real/status-line.ts';
import {
  drawDashboard,
  type DashboardPanel,
  type PlottedPanel,
  type PlottedSeries,
  type TimeRange,
} from './dashboard-image.ts';
import { startPrometheus, type PrometheusProcess, type QueriedSeries } from './prometheus-process.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const DASHBOARD = join(ROOT, 'charts', 'reverse-tunnel-operator', 'files', 'dashboard.json');
const COMMAND = {
  usage: ['npm run dashboard:images [-- FOLDER]'],
  description: 'Draws the panels of the dashboard with a real Prometheus. Takes about 13 minutes.',
  operand: { metavar: 'FOLDER', description: 'where the images are written (default: docs/images)' },
  flags: {},
  footer: 'Exit code: 0, 1 on a failure, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const FLEET = { reporters: 10, tunnels: 1000, churnPerSecond: 5 };
const NORMAL_MS = 5 * 60_000;
const FAULT_MS = 2 * 60_000;
const AFTER_MS = 3 * 60_000;
/** After the objects exist: the rates of the first minute still contain their creation. */
const WARM_UP_MS = 90_000;
const SYNC_DEADLINE_MS = 10 * 60_000;

/** Replaces `{{label}}` as Grafana does. Without a format, the labels themselves are the name. */
function labelOf({ metric }: QueriedSeries, format: string | undefined): string {
  if (format === undefined || format === '') return Object.values(metric).join(' ') || 'value';
  return format.replaceAll(/\{\{\s*(\w+)\s*\}\}/g, (_, label: string) => metric[label] ?? '');
}

async function plot(
  prometheus: PrometheusProcess,
  namespace: string,
  panel: DashboardPanel,
  range: TimeRange,
): Promise<PlottedPanel> {
  const series: PlottedSeries[] = [];
  for (const { expr, legendFormat } of panel.targets ?? []) {
    const query = expr.replaceAll('$namespace', namespace).replaceAll('$__rate_interval', '1m');
    for (const queried of await prometheus.queryRange(query, range)) {
      // NaN, +Inf and -Inf have no place in a picture.
      const samples = (queried.values ?? [])
        .map(([timeS, value]) => [timeS, Number(value)] as const)
        .filter(([, value]) => Number.isFinite(value));
      if (samples.length > 0) series.push({ label: labelOf(queried, legendFormat), samples });
    }
  }
  return { panel, series };
}

/** Puts half of the tenants into slices. */
async function setRepresentations(controlPlane: ControlPlaneClient, namespace: string): Promise<void> {
  const rule = { peers: [{ any: true }], reporters: { ids: ['*'] } };
  await createPolicy(controlPlane, namespace, 'forms', [
    { ...rule, tenants: ['*'] },
    { ...rule, tenants: ['tenant-0', 'tenant-1'], representation: 'slices' },
  ]);
}

async function main(folder: string): Promise<void> {
  const { panels } = JSON.parse(await readFile(DASHBOARD, 'utf8')) as { panels: readonly DashboardPanel[] };
  const { setStatus, print, end } = openStatusLine('dashboard');
  setStatus('starting the control plane, an operator and Prometheus');
  const controlPlane = await startWithCrds();
  try {
    const fixture = await openFaultFixture({ ...FLEET, controlPlane, hint: 'tunnels', replicas: 1, seed: 1 });
    const { namespace, replicas } = fixture;
    await setRepresentations(controlPlane, namespace);
    const targets = replicas.running.map(({ process }) => ({ namespace, address: process.httpAddress }));
    const prometheus = await startPrometheus(targets, []);
    const draw = async (name: string, startS: number): Promise<void> => {
      const range = { startS, endS: Date.now() / 1000 };
      const plotted: PlottedPanel[] = [];
      for (const panel of panels) plotted.push(await plot(prometheus, namespace, panel, range));
      await mkdir(folder, { recursive: true });
      const path = join(folder, name);
      await writeFile(path, drawDashboard(plotted, range));
      const empty = plotted.filter(({ panel, series }) => panel.type !== 'row' && series.length === 0);
      print(`${path}; without a value: ${empty.map(({ panel }) => panel.title).join(', ') || 'none'}`);
    };
    try {
      setStatus('waiting for the objects');
      await poll(SYNC_DEADLINE_MS, async () => {
        const all = ['reverse_tunnel_objects', 'reverse_tunnel_slice_tunnels'].map(
          (metric) => `max(${metric}{namespace="${namespace}"})`,
        );
        const [tunnels] = await prometheus.query(all.join(' + '));
        return Number(tunnels?.value?.[1] ?? 0) >= FLEET.reporters * FLEET.tunnels * 0.99 ? true : undefined;
      });
      await delay(WARM_UP_MS);
      const startS = Date.now() / 1000;
      setStatus(`normal operation, ${NORMAL_MS / 60_000} min`);
      await delay(NORMAL_MS);
      await draw('dashboard-normal.svg', startS);
      setStatus(`the API server is unreachable, ${FAULT_MS / 60_000} min`);
      const faultStartS = Date.now() / 1000 - 60;
      fixture.apiProxy.cut();
      await delay(FAULT_MS);
      fixture.apiProxy.restore();
      setStatus(`after the fault, ${AFTER_MS / 60_000} min`);
      await delay(AFTER_MS);
      await draw('dashboard-fault.svg', faultStartS);
    } finally {
      await prometheus.stop();
      await fixture.close();
    }
  } finally {
    end();
    await controlPlane.stop();
  }
}

const parsed = parseFlags(COMMAND, process.argv.slice(2));
if (!('values' in parsed)) process.exitCode = endWithUsage('dashboard:images', parsed);
else if (parsed.operands.length > 1)
  process.exitCode = endWithUsage('dashboard:images', { errors: ['more than one FOLDER'] });
else await main(parsed.operands[0] ?? join(ROOT, 'docs', 'images'));
