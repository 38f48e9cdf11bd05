/**
 * `npm run test:alerts`: a real Prometheus scrapes real operators during faults. Prints, for each fault, which alerts
 * fired after how many seconds and were silent again, and for each expression of the dashboard, where it had values.
 * Takes about 25 minutes, because the alerts wait as long as they do for users. Faults run at the same time, each in an
 * installation of its own.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parse } from 'yaml';
import { reservePorts } from '../../../control-plane/ports.ts';
import { endWithUsage, parseFlags, type CommandDescription } from '../../../src/flags.ts';
import { startWithCrds } from '../../support/start-with-crds.ts';
import { openFaultFixture, type FaultFixture } from '../real/fault-fixture.ts';
import { openStatusLine } from '../real/status-line.ts';
import { ALERT_FAULTS, type AlertFault } from './alert-faults.ts';
import {
  startPrometheus,
  type AlertTemplate,
  type PrometheusProcess,
  type ScrapeTarget,
} from './prometheus-process.ts';

const FILES = join(import.meta.dirname, '..', '..', '..', 'charts', 'reverse-tunnel-operator', 'files');
/** Two scrapes and an evaluation before the faults. */
const SETTLE_MS = 60_000;
/** The longest `for` is 15 minutes. */
const FIRING_DEADLINE_MS = 18 * 60_000;
/** A conflict ends 10 minutes after the last change. */
const SILENT_DEADLINE_MS = 14 * 60_000;
const POLL_INTERVAL_MS = 5000;
const FAULT_NAMES = ALERT_FAULTS.map(({ name }) => name);

const COMMAND = {
  usage: ['npm run test:alerts [-- FAULT ...]'],
  description: 'Runs the alerts with a real Prometheus during faults. Takes about 25 minutes.',
  operand: { metavar: 'FAULT', description: `run only these faults, of ${FAULT_NAMES.join(', ')}` },
  flags: {},
  footer: 'Exit code: 0, 1 when an alert did not fire or stayed, 2 for a usage error.\n',
} as const satisfies CommandDescription;

interface AlertTimes {
  /** Seconds from the fault until firing, as an evaluation shows it. */
  readonly firedS: number;
  /** Seconds from the recovery until silent; undefined if it still fired at the deadline. */
  readonly silentS: number | undefined;
}

interface FaultResult {
  readonly fault: AlertFault;
  /** By alert, with the label reason. */
  readonly alerts: ReadonlyMap<string, AlertTimes>;
  /** Expressions of the dashboard that had a value during the fault. */
  readonly evaluated: ReadonlySet<string>;
  readonly passed: boolean;
}

async function firingAlerts(prometheus: PrometheusProcess, namespace: string): Promise<ReadonlySet<string>> {
  const series = await prometheus.query(`ALERTS{installation="${namespace}", alertstate="firing"}`);
  return new Set(
    series.map(({ metric }) => {
      const reason = metric['reason'] === undefined ? '' : `{${metric['reason']}}`;
      return `${metric['alertname']}${reason}`;
    }),
  );
}

async function evaluateDashboard(
  prometheus: PrometheusProcess,
  expressions: readonly string[],
  namespace: string,
): Promise<ReadonlySet<string>> {
  const evaluated = new Set<string>();
  for (const expression of expressions) {
    const query = expression.replaceAll('$namespace', namespace).replaceAll('$__rate_interval', '1m');
    const series = await prometheus.query(query);
    if (series.some(({ value }) => value !== undefined && value[1] !== 'NaN')) evaluated.add(expression);
  }
  return evaluated;
}

async function runFault(
  fault: AlertFault,
  installation: FaultFixture,
  prometheus: PrometheusProcess,
  expressions: readonly string[],
): Promise<FaultResult> {
  const { namespace } = installation;
  const elapsedS = (sinceMs: number): number => Math.round((performance.now() - sinceMs) / 1000);
  const firedS = new Map<string, number>();
  const injectedMs = performance.now();
  await fault.inject(installation);
  // The alert about missing authentication fires in every installation.
  const isExpected = (alert: string): boolean => fault.alerts.includes(alert);
  while (performance.now() - injectedMs < FIRING_DEADLINE_MS) {
    for (const alert of await firingAlerts(prometheus, namespace))
      if (!firedS.has(alert)) firedS.set(alert, elapsedS(injectedMs));
    if (fault.alerts.every((alert) => firedS.has(alert))) break;
    await delay(POLL_INTERVAL_MS);
  }
  const evaluated = await evaluateDashboard(prometheus, expressions, namespace);
  const recoveredMs = performance.now();
  await fault.recover(installation);
  const silentS = new Map<string, number>();
  while (performance.now() - recoveredMs < SILENT_DEADLINE_MS) {
    const firing = await firingAlerts(prometheus, namespace);
    for (const alert of firing) if (!firedS.has(alert)) firedS.set(alert, elapsedS(injectedMs));
    for (const alert of firedS.keys()) {
      if (firing.has(alert)) silentS.delete(alert);
      else if (!silentS.has(alert)) silentS.set(alert, elapsedS(recoveredMs));
    }
    if (fault.alerts.every((alert) => silentS.has(alert) || !firedS.has(alert))) break;
    await delay(POLL_INTERVAL_MS);
  }
  const alerts = new Map(
    [...firedS]
      .filter(([alert]) => isExpected(alert) || alert !== 'ReverseTunnelInsecure')
      .map(([alert, atS]) => [alert, { firedS: atS, silentS: silentS.get(alert) }]),
  );
  const passed = fault.alerts.every((alert) => alerts.get(alert)?.silentS !== undefined);
  return { fault, alerts, evaluated, passed };
}

async function main(only: readonly string[]): Promise<number> {
  const { setStatus, print, end } = openStatusLine('alerts');
  const { alerts } = parse(await readFile(join(FILES, 'alerts.yaml'), 'utf8')) as { alerts: AlertTemplate[] };
  const dashboard = JSON.parse(await readFile(join(FILES, 'dashboard.json'), 'utf8')) as {
    panels: { title: string; targets?: { expr: string }[] }[];
  };
  const expressions = [
    ...new Set(dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))),
  ];
  const faults = ALERT_FAULTS.filter(({ name }) => only.length === 0 || only.includes(name));
  const installations: FaultFixture[] = [];
  let prometheus: PrometheusProcess | undefined;
  const controlPlane = await startWithCrds();
  // An operator that is started again has the same address.
  const ports = await reservePorts(faults.length);
  try {
    const targets: ScrapeTarget[] = [];
    for (const [index, { name, flags = [], fleet = { reporters: 1, tunnels: 3 } }] of faults.entries()) {
      setStatus(`starting ${name}`);
      const address = `127.0.0.1:${ports.first + index}`;
      const fixture = await openFaultFixture({
        ...fleet,
        controlPlane,
        hint: name,
        replicas: 1,
        flags: ['--http-address', address, '--replica-id', name, '--report-interval', '5s', ...flags],
        seed: 1,
      });
      installations.push(fixture);
      targets.push({ namespace: fixture.namespace, address });
    }
    prometheus = await startPrometheus(targets, alerts);
    setStatus('scraping without faults');
    await delay(SETTLE_MS);
    const running = prometheus;
    const healthy = await evaluateDashboard(running, expressions, installations[0]?.namespace ?? '');
    let finished = 0;
    const results = await Promise.all(
      faults.map(async (fault, index) => {
        const installation = installations[index];
        if (installation === undefined) throw new Error(`no installation for ${fault.name}`);
        const result = await runFault(fault, installation, running, expressions);
        finished += 1;
        setStatus(`${finished} of ${faults.length} faults finished`);
        return result;
      }),
    );
    print('| fault | alert | fired after | silent again after |');
    print('| --- | --- | --- | --- |');
    for (const { fault, alerts: fired, passed } of results) {
      for (const alert of new Set([...fault.alerts, ...fired.keys()])) {
        const times = fired.get(alert);
        const cells = [times?.firedS, times?.silentS].map((seconds) =>
          seconds === undefined ? '-' : `${seconds} s`,
        );
        const mark = fault.alerts.includes(alert) ? '' : ' (also)';
        print(`| ${fault.description} | \`${alert}\`${mark} | ${cells.join(' | ')} |`);
      }
      if (!passed) print(`FAILED ${fault.name}`);
    }
    print('');
    const empty: string[] = [];
    for (const expression of expressions) {
      const where = results
        .filter(({ evaluated }) => evaluated.has(expression))
        .map(({ fault }) => fault.name);
      if (!healthy.has(expression))
        print(`only during faults (${where.join(', ') || 'none'}): ${expression}`);
      if (!healthy.has(expression) && where.length === 0) empty.push(expression);
    }
    print(`${expressions.length} expressions of the dashboard, ${healthy.size} with values without a fault`);
    for (const expression of empty) print(`without a value in every installation: ${expression}`);
    return results.every(({ passed }) => passed) ? 0 : 1;
  } finally {
    end();
    await prometheus?.stop();
    for (const installation of installations) await installation.close();
    await ports.release();
    await controlPlane.stop();
  }
}

const parsed = parseFlags(COMMAND, process.argv.slice(2));
process.exitCode = 'values' in parsed ? await runNamed(parsed.operands) : endWithUsage('test:alerts', parsed);

async function runNamed(names: readonly string[]): Promise<number> {
  const unknown = names.filter((name) => !FAULT_NAMES.includes(name));
  const errors = unknown.map((name) => `unknown fault ${name}: must be one of ${FAULT_NAMES.join(', ')}`);
  return errors.length > 0 ? endWithUsage('test:alerts', { errors }) : await main(names);
}
