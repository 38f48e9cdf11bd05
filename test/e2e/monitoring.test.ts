import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { CHART } from '../support/helm.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { parsePromql } from '../support/promql.ts';
import { reportMeasurement } from '../support/report-measurement.ts';
import { waitForMatch } from '../support/expected-objects.ts';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');
/** Labels that Prometheus adds, and the label of histogram buckets. */
const TARGET_LABELS = ['namespace', 'pod', 'job', 'instance', 'le'];
const DEADLINE_MS = 60_000;

interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly for: string;
  readonly severity: string;
}
interface Dashboard {
  readonly panels: readonly {
    readonly title: string;
    /** Absent on a title. */
    readonly targets?: readonly { readonly expr: string }[];
  }[];
}

const { alerts } = parse(readFileSync(join(CHART, 'files', 'alerts.yaml'), 'utf8')) as { alerts: Alert[] };
const dashboard = JSON.parse(readFileSync(join(CHART, 'files', 'dashboard.json'), 'utf8')) as Dashboard;

describe('metrics, alerts and dashboard', () => {
  const controlPlane = useControlPlane();
  let operator: OperatorProcess;
  let fleet: Fleet;
  let text: string;
  /** Type and observed labels of each served metric. */
  const served = new Map<string, { type: string; labels: Set<string> }>();

  before(async function () {
    this.timeout(2 * DEADLINE_MS);
    const namespace = await createNamespace(controlPlane(), 'watched');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    operator = await startOperatorProcess({ kubeconfigPath, namespace });
    await operator.ready();
    fleet = createFleet({ address: operator.grpcAddress, reporters: 3, tunnels: 20 });
    await fleet.start();
    await fleet.settled();
    await waitForMatch(fleet, controlPlane().request, namespace, DEADLINE_MS);
    text = await (await fetch(`http://${operator.httpAddress}/metrics`)).text();
    for (const [, name = '', type = ''] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
      served.set(name, { type, labels: new Set() });
    }
    for (const [, series = '', labels = ''] of text.matchAll(/^([a-z_]\w*)\{(.*)\} /gm)) {
      const metric = served.get(series) ?? served.get(series.replace(/_(bucket|sum|count)$/, ''));
      for (const [, label = ''] of labels.matchAll(/(\w+)="/g)) if (label !== 'le') metric?.labels.add(label);
    }
  });
  after(async () => {
    await fleet.stop();
    await operator.kill();
  });

  /** The metrics of docs/metrics.md. */
  const documented = new Map(
    [...readFileSync(join(DOCS, 'metrics.md'), 'utf8').matchAll(/^\| `(\w+)` +\| (\w+) +\| ([^|]*)\|/gm)].map(
      ([, name = '', type = '', labels = '']) => [
        name,
        { type, labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label = '']) => label) },
      ],
    ),
  );

  it('docs/metrics.md lists exactly the served metrics with their types and labels', () => {
    expect([...served.keys()].toSorted()).to.deep.equal([...documented.keys()].toSorted());
    for (const [name, { type, labels }] of served) {
      expect(documented.get(name)?.type, name).to.equal(type);
      expect(documented.get(name)?.labels, name).to.include.members([...labels]);
    }
  });

  function check(expression: string): void {
    const { metrics, labels } = parsePromql(expression);
    expect(metrics.length, expression).to.be.greaterThan(0);
    for (const metric of metrics) {
      const base = documented.has(metric) ? metric : metric.replace(/_(bucket|sum|count)$/, '');
      expect(served.has(base), `${metric} in ${expression}`).to.equal(true);
      if (base !== metric) expect(served.get(base)?.type).to.equal('histogram');
      const known = [...TARGET_LABELS, ...(documented.get(base)?.labels ?? [])];
      expect(known, expression).to.include.members([...labels]);
    }
  }

  it('every alert uses existing metrics and labels in valid PromQL and has a page, and every page has an alert', () => {
    for (const { expr } of alerts) check(expr);
    expect(alerts.map(({ severity }) => severity)).to.satisfy((all: string[]) =>
      all.every((severity) => ['critical', 'warning', 'info'].includes(severity)),
    );
    const pages = readdirSync(join(DOCS, 'alerts')).toSorted();
    expect(alerts.map(({ alert }) => `${alert}.md`).toSorted()).to.deep.equal(pages);
    for (const page of pages) {
      const content = readFileSync(join(DOCS, 'alerts', page), 'utf8');
      expect(content, page).to.include('## What it means').and.include('## What to do');
    }
  });

  it('every dashboard panel uses existing metrics and labels in valid PromQL', () => {
    const expressions = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
    expect(expressions.length).to.be.greaterThan(20);
    // Grafana's own variable.
    for (const expression of expressions) check(expression.replaceAll('$__rate_interval', '5m'));
  });

  it('invalid expressions and unknown metrics and labels are detected', () => {
    expect(() => parsePromql('sum(rate(x[5m])')).to.throw('invalid PromQL');
    expect(() => check('sum(reverse_tunnel_nothing)')).to.throw('reverse_tunnel_nothing');
    expect(() => check('sum by (tenant) (reverse_tunnel_objects)')).to.throw();
  });

  it('both workqueues have all series', async () => {
    for (const metric of [
      'workqueue_depth',
      'reverse_tunnel_workqueue_delayed',
      'workqueue_adds_total',
      'workqueue_retries_total',
    ]) {
      for (const name of ['tunnels', 'reporters']) expect(text).to.include(`\n${metric}{name="${name}"} `);
    }
    expect(await operator.metric('workqueue_adds_total{name="reporters"}')).to.be.at.least(3);
  });

  it('a scrape is cheap and its values are correct', async () => {
    expect(await operator.metric('reverse_tunnel_reporters{state="connected"}')).to.equal(3);
    expect(await operator.metric('reverse_tunnel_insecure')).to.equal(1);
    expect(await operator.metric('reverse_tunnel_reported_tunnels')).to.equal(60);
    const startedMs = performance.now();
    for (let i = 0; i < 20; i += 1) await (await fetch(`http://${operator.httpAddress}/metrics`)).text();
    reportMeasurement(
      `scrape: ${text.length} bytes, ${((performance.now() - startedMs) / 20).toFixed(1)} ms round trip`,
    );
  });

  it('a disconnected reporter is counted as long as it has objects, and as idle otherwise', async () => {
    const [first, second] = fleet.reporters;
    for (const name of second?.expectedTunnels().keys() ?? []) second?.disconnectTunnel(name);
    await fleet.settled();
    await poll(
      DEADLINE_MS,
      async () => (await operator.metric('reverse_tunnel_objects')) === 40 || undefined,
    );
    first?.stop();
    second?.stop();
    await poll(
      DEADLINE_MS,
      async () =>
        ((await operator.metric('reverse_tunnel_reporters{state="disconnected"}')) === 1 &&
          (await operator.metric('reverse_tunnel_reporters{state="idle"}')) === 1) ||
        undefined,
    );
    expect(await operator.metric('reverse_tunnel_reporters{state="connected"}')).to.equal(1);
  });
});
