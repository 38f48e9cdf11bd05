import { expect } from 'chai';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { run } from '../../control-plane/run.ts';
import { resolvePrometheus } from '../../prometheus/resolve.ts';
import { CHART } from '../support/helm.ts';

const DOCS = join(import.meta.dirname, '..', '..', 'docs');
const GOLDEN = join(import.meta.dirname, '..', 'golden', 'chart', 'everything.yaml');
const TIMEOUT_MS = 120_000;
const NAMESPACE = 'tunnels';
/** Between two samples and between two evaluations. */
const STEP_S = 30;
/** The fault lasts from the tenth minute until an hour later, much longer than the range of every expression. */
const FAULT_START_S = 600;
const FAULT_END_S = FAULT_START_S + 3600;
const END_S = FAULT_END_S + 1800;
/** After a fault, a gauge resolves at the next evaluation, and a rate once its range of 5 minutes has passed. */
const GAUGE_RESOLVES_S = STEP_S;
const RATE_RESOLVES_S = 300 + STEP_S;

/** Values of a series before and after the fault, and during it. `stale`: the series does not exist. */
interface Series {
  readonly healthy: number | 'stale';
  readonly faulty: number | 'stale';
  /** True for a counter, whose values are then increments per step. */
  readonly counter?: boolean;
}

interface AlertCase {
  readonly alert: string;
  /** Distinguishes cases of one alert. */
  readonly when: string;
  /** By metric and labels; each series also has the label namespace. */
  readonly series: Readonly<Record<string, Series>>;
  /** Labels of the alert in addition to alertname and severity. */
  readonly labels?: Readonly<Record<string, string>>;
  /** The complete summary. */
  readonly summary: string;
  /** From the start of the fault until the expression is true. Default: at once for a gauge, one further sample for a rate. */
  readonly detectedS?: number;
  readonly resolvesS: number;
}

interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  readonly for: string;
  readonly severity: string;
  readonly summary: string;
}

const gauge = (healthy: number, faulty: number): Series => ({ healthy, faulty });
const events = (perStep: number): Series => ({ healthy: 0, faulty: perStep, counter: true });
const constantEvents = (perStep: number): Series => ({ healthy: perStep, faulty: perStep, counter: true });

const CASES: readonly AlertCase[] = [
  {
    alert: 'ReverseTunnelOperatorAbsent',
    when: 'no replica is scraped',
    series: {
      'reverse_tunnel_lease_held{pod="a"}': { healthy: 1, faulty: 'stale' },
      'reverse_tunnel_lease_held{pod="b"}': { healthy: 1, faulty: 'stale' },
    },
    labels: { namespace: NAMESPACE },
    summary: 'No replica of reverse-tunnel-operator is scraped in namespace tunnels.',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelNoLeader',
    when: 'no replica is leader',
    series: {
      'leader_election_master_status{pod="a", name="reverse-tunnel-operator-leader"}': gauge(1, 0),
      'leader_election_master_status{pod="b", name="reverse-tunnel-operator-leader"}': gauge(0, 0),
    },
    summary: 'No replica is leader; reporters of expired replicas are not taken over.',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelReplicaWithoutLease',
    when: 'one of two replicas cannot renew its Lease',
    series: {
      'reverse_tunnel_lease_held{pod="a"}': gauge(1, 0),
      'reverse_tunnel_lease_held{pod="b"}': gauge(1, 1),
    },
    labels: { namespace: NAMESPACE, pod: 'a' },
    summary: 'a cannot renew its Lease and writes nothing.',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelReporterLost',
    when: 'replicas have disconnected reporters',
    series: {
      'reverse_tunnel_reporters{pod="a", state="disconnected"}': gauge(0, 2),
      'reverse_tunnel_reporters{pod="b", state="disconnected"}': gauge(0, 1),
      'reverse_tunnel_reporters{pod="a", state="idle"}': gauge(5, 5),
    },
    summary: '3 reporters are disconnected; their tunnels become Unknown and are then deleted.',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelSyncLagging',
    when: 'writes of one replica wait',
    series: {
      'reverse_tunnel_oldest_pending_write_seconds{pod="a"}': gauge(59, 90),
      'reverse_tunnel_oldest_pending_write_seconds{pod="b"}': gauge(0, 0),
    },
    summary: 'Writes of tunnels have been pending for 1m 30s.',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelTunnelsRejected',
    when: 'tunnels are invalid, while those that a policy excludes may be intended',
    series: {
      'reverse_tunnel_tunnels_rejected{pod="a", reason="invalid"}': gauge(0, 4),
      'reverse_tunnel_tunnels_rejected{pod="b", reason="invalid"}': gauge(0, 3),
      'reverse_tunnel_tunnels_rejected{pod="a", reason="policy"}': gauge(9, 9),
    },
    labels: { reason: 'invalid' },
    summary: '7 reported tunnels are rejected (invalid).',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelObjectsRewritten',
    when: 'admission rewrites objects of both replicas',
    series: {
      'reverse_tunnel_objects_rewritten{pod="a"}': gauge(0, 3),
      'reverse_tunnel_objects_rewritten{pod="b"}': gauge(0, 1),
    },
    summary: '4 objects are rewritten by a mutating admission webhook or policy.',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelTunnelsFlapping',
    when: 'tunnels of both replicas flap',
    series: {
      'reverse_tunnel_tunnels_flapping{pod="a"}': gauge(0, 5),
      'reverse_tunnel_tunnels_flapping{pod="b"}': gauge(0, 2),
    },
    summary: '7 tunnels come and go; they are written at most every 30 s.',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelApiWritesFailing',
    when: 'a tenth of the writes of slices is throttled, while those of objects succeed, and rejected writes and conflicts do not count',
    series: {
      'reverse_tunnel_api_writes_total{resource="reversetunnels", verb="create", outcome="ok"}':
        constantEvents(1000),
      'reverse_tunnel_api_writes_total{resource="reversetunnelslices", verb="create", outcome="ok"}':
        constantEvents(70),
      'reverse_tunnel_api_writes_total{resource="reversetunnelslices", verb="create", outcome="rejected"}':
        constantEvents(10),
      'reverse_tunnel_api_writes_total{resource="reversetunnelslices", verb="patch", outcome="conflict"}':
        constantEvents(10),
      'reverse_tunnel_api_writes_total{resource="reversetunnelslices", verb="patch", outcome="throttled"}':
        events(10),
    },
    labels: { resource: 'reversetunnelslices' },
    summary: '10% of the writes of reversetunnelslices fail.',
    // The share in the last 5 minutes, which the summary contains, grows until then.
    detectedS: 300 + STEP_S,
    resolvesS: RATE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelIdentityConflict',
    when: 'both replicas see the conflict for an hour',
    series: {
      'reverse_tunnel_reporters_in_conflict{pod="a"}': gauge(0, 1),
      'reverse_tunnel_reporters_in_conflict{pod="b"}': gauge(0, 1),
      // It counts onsets: one for the whole fault.
      'reverse_tunnel_identity_conflicts_total{pod="a"}': gauge(0, 1),
    },
    summary: 'Two Envoys report under the same node.cluster and node.id (1 reporters).',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelReportsRejected',
    when: 'a reporter reconnects every 5 s and gets a NACK',
    series: { 'reverse_tunnel_nacks_total{reason="missing"}': events(6) },
    labels: { reason: 'missing' },
    summary: 'Reports are rejected (missing); tunnels of those reporters are not mirrored.',
    resolvesS: RATE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelReportsRejected',
    when: 'reports are too large to be decoded, so that there is no NACK',
    series: { 'reverse_tunnel_streams_closed_total{reason="over_limit"}': events(6) },
    labels: { reason: 'over_limit' },
    summary: 'Reports are rejected (over_limit); tunnels of those reporters are not mirrored.',
    resolvesS: RATE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelClientsRejected',
    when: 'the tokens of two clients are rejected, while streams reach their maximum age',
    series: {
      'reverse_tunnel_streams_rejected_total{pod="a", reason="token_rejected"}': events(6),
      'reverse_tunnel_streams_rejected_total{pod="b", reason="token_rejected"}': events(6),
      'reverse_tunnel_streams_rejected_total{pod="a", reason="connection_max_age"}': constantEvents(6),
      'reverse_tunnel_streams_closed_total{pod="a", reason="max_age"}': constantEvents(6),
    },
    labels: { reason: 'token_rejected' },
    summary: 'Clients fail to authenticate or are not allowed to report (token_rejected).',
    resolvesS: RATE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelClientsRejected',
    when: 'no policy names the peer',
    series: { 'reverse_tunnel_streams_closed_total{reason="policy"}': events(6) },
    labels: { reason: 'policy' },
    summary: 'Clients fail to authenticate or are not allowed to report (policy).',
    resolvesS: RATE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelConnectionLimitReached',
    when: 'an address opens too many connections',
    series: { 'reverse_tunnel_connections_rejected_total{reason="address_connections"}': events(1) },
    labels: { reason: 'address_connections' },
    summary: 'Connections of clients exceed a limit (address_connections).',
    resolvesS: RATE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelPolicyNotAccepted',
    when: 'both replicas see an invalid policy',
    series: {
      'reverse_tunnel_policies{pod="a", accepted="false"}': gauge(0, 1),
      'reverse_tunnel_policies{pod="b", accepted="false"}': gauge(0, 1),
      'reverse_tunnel_policies{pod="a", accepted="true"}': gauge(3, 3),
    },
    summary: '1 ReverseTunnelPolicies are invalid and not enforced.',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelRequiredPolicyMissing',
    when: 'the only policy was deleted',
    series: {
      'reverse_tunnel_required_policy_missing{pod="a"}': gauge(0, 1),
      'reverse_tunnel_required_policy_missing{pod="b"}': gauge(0, 1),
    },
    summary: 'Every client is rejected, because no ReverseTunnelPolicy exists (--require-policy).',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelExpectationUnsatisfied',
    when: 'the leader sees two unsatisfied expectations and an invalid one, next to unknown ones',
    series: {
      'reverse_tunnel_expectations{pod="a", state="unsatisfied"}': gauge(0, 2),
      'reverse_tunnel_expectations{pod="a", state="invalid"}': gauge(0, 1),
      'reverse_tunnel_expectations{pod="a", state="unknown"}': gauge(4, 4),
      'reverse_tunnel_expectations{pod="a", state="satisfied"}': gauge(7, 4),
      'reverse_tunnel_expectations{pod="b", state="unsatisfied"}': gauge(0, 0),
    },
    summary: 'Expected tunnels are not connected (3 ReverseTunnelExpectations).',
    resolvesS: GAUGE_RESOLVES_S,
  },
  {
    alert: 'ReverseTunnelInsecure',
    when: 'authentication is off',
    series: { 'reverse_tunnel_insecure{pod="a"}': gauge(0, 1) },
    summary: 'Any client may report as any reporter (auth.mode is insecure).',
    resolvesS: GAUGE_RESOLVES_S,
  },
];

/** Returns the samples of a series as promtool reads them. */
function samples({ healthy, faulty, counter = false }: Series): string {
  const values: (number | 'stale')[] = [];
  let total = 0;
  for (let atS = 0; atS <= END_S; atS += STEP_S) {
    const value = atS >= FAULT_START_S && atS < FAULT_END_S ? faulty : healthy;
    if (counter && value !== 'stale') total += value;
    values.push(counter ? total : value);
  }
  return values.join(' ');
}

/** Returns the series with the label namespace. */
function inNamespace(series: AlertCase['series'], namespace: string): { series: string; values: string }[] {
  return Object.entries(series).map(([name, values]) => ({
    series: name.replace('{', `{namespace="${namespace}", `),
    values: samples(values),
  }));
}

describe('the alerts', () => {
  let folder: string;
  let promtool: string;
  let rules: readonly AlertRule[];

  before(async function () {
    this.timeout(10 * TIMEOUT_MS);
    ({ promtool } = await resolvePrometheus());
    folder = await mkdtemp(join(tmpdir(), 'rt-alerts-'));
    const text = await readFile(join(CHART, 'files', 'alerts.yaml'), 'utf8');
    rules = (parse(text.replaceAll('$namespace', NAMESPACE)) as { alerts: AlertRule[] }).alerts;
    const group = {
      name: 'reverse-tunnel-operator',
      rules: rules.map(({ alert, expr, for: duration, severity, summary }) => ({
        ...{ alert, expr, for: duration, labels: { severity }, annotations: { summary } },
      })),
    };
    await writeFile(join(folder, 'rules.yaml'), stringify({ groups: [group] }));
  });
  after(async () => rm(folder, { recursive: true, force: true }));

  async function promtoolOn(args: readonly string[]): Promise<{ code: number | undefined; output: string }> {
    const { code, stdout, stderr } = await run(promtool, args, {
      cwd: folder,
      env: process.env,
      timeoutMs: TIMEOUT_MS,
    });
    return { code, output: stdout + stderr };
  }

  /** Runs unit tests of rules. Fails with the report of promtool. */
  async function testRules(name: string, tests: readonly object[]): Promise<void> {
    const file = `${name}.yaml`;
    const content = { rule_files: ['rules.yaml'], evaluation_interval: `${STEP_S}s`, tests };
    await writeFile(join(folder, file), stringify(content));
    const { code, output } = await promtoolOn(['test', 'rules', file]);
    expect(code, output).to.equal(0);
  }

  it('pass promtool check rules, also as rendered with every value of the chart', async () => {
    const documents = (await readFile(GOLDEN, 'utf8')).split(/^---$/m).map((text) => parse(text) as unknown);
    const rendered = documents.find(
      (document): document is { spec: object } =>
        typeof document === 'object' &&
        document !== null &&
        Reflect.get(document, 'kind') === 'PrometheusRule',
    );
    await writeFile(join(folder, 'rendered.yaml'), stringify(rendered?.spec));
    for (const file of ['rules.yaml', 'rendered.yaml']) {
      const { code, output } = await promtoolOn(['check', 'rules', file]);
      expect(code, output).to.equal(0);
      expect(output).to.match(/SUCCESS: \d\d rules found/);
    }
  });

  it('have a case each', () => {
    expect(new Set(CASES.map(({ alert }) => alert))).to.deep.equal(new Set(rules.map(({ alert }) => alert)));
  });

  for (const [index, { alert, when, series, labels, summary, resolvesS, detectedS }] of CASES.entries()) {
    it(`${alert} fires while ${when}, and is silent before and after`, async () => {
      const rule = rules.find((candidate) => candidate.alert === alert) ?? expect.fail(alert);
      const durationS = 60 * Number(/^(\d+)m$/.exec(rule.for)?.[1]);
      const firing = [{ exp_labels: { severity: rule.severity, ...labels }, exp_annotations: { summary } }];
      const firstS = FAULT_START_S + durationS + (detectedS ?? (resolvesS > STEP_S ? 2 * STEP_S : 0));
      const at = (second: number, alerts: readonly object[]): object => ({
        eval_time: `${second}s`,
        alertname: alert,
        exp_alerts: alerts,
      });
      await testRules(`case-${index}`, [
        {
          interval: `${STEP_S}s`,
          input_series: inNamespace(series, NAMESPACE),
          alert_rule_test: [
            at(FAULT_START_S - STEP_S, []),
            ...(durationS > 0 ? [at(FAULT_START_S + durationS - STEP_S, [])] : []),
            at(firstS, firing),
            // The state has lasted for an hour by then.
            at(FAULT_END_S - STEP_S, firing),
            at(FAULT_END_S + resolvesS, []),
          ],
        },
        // Each installation has alerts of its own. A missing installation is absent, whatever others do.
        {
          interval: `${STEP_S}s`,
          input_series: [
            ...inNamespace(series, 'others'),
            { series: `reverse_tunnel_lease_held{namespace="${NAMESPACE}"}`, values: samples(gauge(1, 1)) },
          ],
          alert_rule_test: [at(FAULT_END_S - STEP_S, [])],
        },
      ]);
    });
  }

  it('fire for every reason of a rejected stream or connection, except those that are part of normal operation', async () => {
    const silent = new Set(['connection_max_age', 'shutdown', 'not_http2', 'handshake_timeout']);
    const page = await readFile(join(DOCS, 'metrics.md'), 'utf8');
    const cases = [
      'reverse_tunnel_streams_rejected_total',
      'reverse_tunnel_connections_rejected_total',
    ].flatMap((metric) => {
      const list = new RegExp(`^- \`${metric}\`: ([^]*?)\n(?:-|\n)`, 'm').exec(page)?.[1] ?? '';
      return [...list.matchAll(/`(\w+)`/g)].map(([, reason = '']) => ({ metric, reason }));
    });
    expect(cases.length).to.equal(30);
    const tests = cases.map(({ metric, reason }) => {
      const names = ['ReverseTunnelClientsRejected', 'ReverseTunnelConnectionLimitReached'];
      const sums = names.map(
        (name) => `sum(ALERTS{alertname="${name}", alertstate="firing", reason="${reason}"})`,
      );
      const expected = silent.has(reason) ? [] : [{ labels: '{}', value: 1 }];
      return {
        name: `${metric} ${reason}`,
        interval: `${STEP_S}s`,
        input_series: inNamespace({ [`${metric}{reason="${reason}"}`]: events(6) }, NAMESPACE),
        promql_expr_test: [{ expr: sums.join(' or '), eval_time: '25m', exp_samples: expected }],
      };
    });
    await testRules('reasons', tests);
  });
});
