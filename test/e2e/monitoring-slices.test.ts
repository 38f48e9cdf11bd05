/** The alerts and the dashboard of the chart, evaluated by a real Prometheus for operators whose tunnels are in slices. */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import { startPrometheus, type PrometheusProcess } from '../faults/alerts/prometheus-process.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { createPolicy } from '../support/create-policy.ts';
import { CHART } from '../support/helm.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';

const DEADLINE_MS = 60_000;
const INTERVAL_S = 1;
const FLEET = { reporters: 2, tunnels: 40, tenants: 2 };

const files = join(CHART, 'files');
const { alerts } = parse(readFileSync(join(files, 'alerts.yaml'), 'utf8')) as {
  alerts: { alert: string; expr: string }[];
};
const { panels } = JSON.parse(readFileSync(join(files, 'dashboard.json'), 'utf8')) as {
  panels: { targets?: { expr: string }[] }[];
};
const expressions = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));

/** An operator in a namespace of its own, and its fleet. */
interface Installation {
  readonly namespace: string;
  readonly operator: OperatorProcess;
  readonly fleet: Fleet;
}

describe('alerts and dashboard with slices', () => {
  const controlPlane = useControlPlane();
  const installations: Installation[] = [];
  let prometheus: PrometheusProcess;
  /** The tunnels of responder-0 are in slices, and those of responder-1 in objects. */
  let mixed: Installation;
  /** The operator must not create slices. */
  let forbidden: Installation;

  async function install(hint: string, rules: typeof OPERATOR_RBAC_RULES): Promise<Installation> {
    const namespace = await createNamespace(controlPlane(), hint);
    const account = { namespace, serviceAccount: 'operator', rules };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const rule = { peers: [{ any: true }], tenants: ['*'] };
    await createPolicy(controlPlane(), namespace, 'forms', [
      { ...rule, reporters: { ids: ['responder-0'] }, representation: 'slices' },
      { ...rule, reporters: { ids: ['responder-1'] }, representation: 'objects' },
    ]);
    const operator = await startOperatorProcess({ kubeconfigPath, namespace });
    await operator.ready();
    const fleet = createFleet({ address: operator.grpcAddress, ...FLEET });
    await fleet.start();
    const installation = { namespace, operator, fleet };
    installations.push(installation);
    return installation;
  }

  before(async function () {
    this.timeout(4 * DEADLINE_MS);
    const withoutCreate = OPERATOR_RBAC_RULES.map((rule) =>
      rule.resources.includes('reversetunnelslices')
        ? { ...rule, verbs: rule.verbs.filter((verb) => verb !== 'create') }
        : rule,
    );
    [mixed, forbidden] = await Promise.all([
      install('mixed', OPERATOR_RBAC_RULES),
      install('forbidden', withoutCreate),
    ]);
    const targets = installations.map(({ namespace, operator }) => ({
      namespace,
      address: operator.httpAddress,
    }));
    prometheus = await startPrometheus(targets, [], INTERVAL_S);
  });
  after(async () => {
    await prometheus?.stop();
    for (const { fleet, operator } of installations) {
      await fleet.stop();
      await operator.kill();
    }
  });

  /** Returns the values of an expression of the chart for an installation. */
  async function evaluate(expression: string, { namespace }: Installation): Promise<readonly number[]> {
    const query = expression.replaceAll('$namespace', namespace).replaceAll('$__rate_interval', '10s');
    const series = await prometheus.query(query);
    return series.map(({ value }) => Number(value?.[1]));
  }

  /** Returns the values of the condition of an alert, regardless of its duration; none if it is not met. */
  async function conditionOf(name: string, installation: Installation): Promise<readonly number[]> {
    const rule = alerts.find(({ alert }) => alert === name);
    return await evaluate(rule?.expr ?? expect.fail(name), installation);
  }

  it('every panel has a value for what the operator serves, and those of slices in any case', async function () {
    this.timeout(2 * DEADLINE_MS);
    for (const [expression, value] of [
      ['max(reverse_tunnel_objects{namespace="$namespace"})', FLEET.tunnels],
      ['max(reverse_tunnel_slice_tunnels{namespace="$namespace"})', FLEET.tunnels],
      ['max(reverse_tunnel_slices{namespace="$namespace"})', FLEET.tenants],
    ] as const) {
      expect(expressions).to.include(expression);
      await poll(DEADLINE_MS, async () =>
        (await evaluate(expression, mixed)).join() === String(value) ? true : undefined,
      );
    }
    const metrics = await (await fetch(`http://${mixed.operator.httpAddress}/metrics`)).text();
    // A counter with labels has no series before it is first counted, such as one of NACKs or of responses with 429.
    const isServed = (expression: string): boolean =>
      [...expression.matchAll(/(\w+)\{([^}]*)\}/g)].every(([, metric = '', matchers = '']) => {
        const labels = [...matchers.matchAll(/(\w+="[^"$]+")/g)].map(([, label = '']) => label);
        return metrics
          .split('\n')
          .some(
            (line) =>
              new RegExp(`^${metric}[{ ]`).test(line) && labels.every((label) => line.includes(label)),
          );
      });
    const expected = expressions.filter((expression) => isServed(expression));
    expect(expected).to.include.members(expressions.filter((expression) => /slice/.test(expression)));
    expect(expected.length).to.be.greaterThan(40);
    let empty: string[] = [];
    await poll(DEADLINE_MS, async () => {
      empty = [];
      for (const expression of expected)
        if ((await evaluate(expression, mixed)).length === 0) empty.push(expression);
      return empty.length === 0 ? true : undefined;
    }).catch(() => expect.fail(`without a value: ${empty.join('; ')}`));
  });

  it('rejected slices fire the alert on rejected tunnels, and nothing fires it otherwise', async function () {
    this.timeout(2 * DEADLINE_MS);
    const fired = await poll(DEADLINE_MS, async () => {
      const values = await conditionOf('ReverseTunnelTunnelsRejected', forbidden);
      return values.length > 0 && values.every((value) => value === FLEET.tunnels) ? values : undefined;
    });
    expect(fired).to.have.lengthOf(1);
    const writes = 'reverse_tunnel_api_writes_total{namespace="$namespace", resource="reversetunnelslices"}';
    expect(await evaluate(`${writes} > 0`, forbidden)).to.not.be.empty;
    expect(await conditionOf('ReverseTunnelTunnelsRejected', mixed)).to.be.empty;
  });

  it('disconnected reporters fire their alert whether their tunnels are in slices or in objects', async function () {
    this.timeout(2 * DEADLINE_MS);
    expect(await conditionOf('ReverseTunnelReporterLost', mixed)).to.be.empty;
    await mixed.fleet.stop();
    await poll(DEADLINE_MS, async () =>
      (await conditionOf('ReverseTunnelReporterLost', mixed)).join() === String(FLEET.reporters)
        ? true
        : undefined,
    );
  });
});
