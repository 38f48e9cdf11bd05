import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  adminInterface,
  EXTENSION,
  gaugesOf,
  startAdmin,
  startAgentHarness,
  type AgentHarness,
} from '../support/agent-harness.ts';
import { eventually } from '../support/eventually.ts';

/** Returns a line of the lifecycle log about a connection of a node, now. */
function line(
  node: string,
  lifecycle: Readonly<Record<string, unknown>> = {},
  time: unknown = `${Math.floor(Date.now() / 1000)}.000000`,
): string {
  const identity = { tenant_id: 'umbrella', cluster_id: 'eu-1', node_id: node };
  const event = { event: 'tunnel_setup', ...identity, worker: 'worker_0', fd: node, ...lifecycle };
  return `${JSON.stringify({ time, lifecycle: event })}\n`;
}

/** Returns the tunnels as last reported, `name/tenant` each, sorted. */
function reported({ reports }: AgentHarness): readonly string[] {
  const tunnels = new Map<string, string>();
  for (const { added, fullPush, removedNames } of reports) {
    if (fullPush) tunnels.clear();
    for (const name of removedNames) tunnels.delete(name);
    for (const { name, tenantID } of added) tunnels.set(name, `${name}/${tenantID}`);
  }
  return [...tunnels.values()].toSorted();
}

function warnings({ logged }: AgentHarness, msg: string): readonly (string | undefined)[] {
  return logged.filter((entry) => entry.msg === msg).map(({ error, reason }) => error ?? reason);
}

describe('The agent and the lifecycle log', () => {
  let folder: string;
  let lifecycleLog: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'agent-log-'));
    lifecycleLog = join(folder, 'tunnels.log');
  });
  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  /** What stands where the log is expected. */
  const unreadable: Readonly<Record<string, { create: () => Promise<unknown>; error: RegExp }>> = {
    'is missing': { create: async () => {}, error: /^ENOENT: .*tunnels\.log/ },
    'is a folder': { create: () => mkdir(lifecycleLog), error: /^read \S+tunnels\.log: not a regular file$/ },
    'is a FIFO': {
      create: async () => execFileSync('mkfifo', [lifecycleLog]),
      error: /^read \S+tunnels\.log: not a regular file$/,
    },
  };
  for (const [what, { create, error }] of Object.entries(unreadable)) {
    it(`report nothing if the log ${what} and nothing else names the tenants`, async () => {
      await create();
      await using admin = await startAdmin(adminInterface());
      await using harness = startAgentHarness(admin.address, { defaultTenant: undefined, lifecycleLog });
      await eventually('the agent gives the reason', () => error.test(harness.agent.notReady ?? ''));
      await eventually('there are more polls', async () => {
        const { values } = await harness.metrics.polls.get();
        return (values.find(({ labels }) => labels.outcome === 'error')?.value ?? 0) > 3;
      });
      expect(harness.reports).to.deep.equal([]);
      expect(warnings(harness, 'failed to poll Envoy; reports are paused')).to.have.length(1);
    });

    it(`report the default tenant if the log ${what}`, async () => {
      await create();
      await using admin = await startAdmin(adminInterface());
      await using harness = startAgentHarness(admin.address, { lifecycleLog });
      await harness.ready();
      await harness.polled();
      expect(reported(harness)).to.deep.equal(['node-17/acme']);
      expect(warnings(harness, 'failed to read the lifecycle log; polling only')).to.have.length(1);
    });
  }

  /** What the log contains before and after the line of a tunnel, and what the agent logs about it. */
  const invalid: Readonly<Record<string, { garbage: string | Buffer; error: string }>> = {
    'a line that was cut off': { garbage: `${line('node-16').slice(0, 80)}\n`, error: 'not a JSON object' },
    'a line of 10 MB': { garbage: `${'x'.repeat(10_000_000)}\n`, error: 'longer than 65536 bytes' },
    'bytes that are not UTF-8': {
      garbage: Buffer.from([0xff, 0xfe, 0x00, 0x80, 0x0a]),
      error: 'not a JSON object',
    },
    'lines in the default format of Envoy': {
      garbage: '[2026-11-28T11:19:54.082Z] "- - -" 0 - 0 0 0 - "-" "-" "-" "-" "-"\n'.repeat(3),
      error: 'not a JSON object',
    },
    'JSON of another format': {
      garbage: '{"event":"tunnel_setup","node_id":"node-16"}\n',
      error: 'no field lifecycle.event',
    },
  };
  for (const [what, { garbage, error }] of Object.entries(invalid)) {
    it(`report the tunnel of a valid line next to ${what}, which is logged once`, async () => {
      await writeFile(lifecycleLog, garbage);
      await appendFile(lifecycleLog, line('node-17'));
      await appendFile(lifecycleLog, garbage);
      await using admin = await startAdmin(adminInterface());
      await using harness = startAgentHarness(admin.address, { defaultTenant: undefined, lifecycleLog });
      await harness.ready();
      expect(reported(harness)).to.deep.equal(['node-17/umbrella']);
      expect(warnings(harness, 'invalid line in the lifecycle log')).to.deep.equal([error]);
    });
  }

  for (const time of ['-', '28/Nov/2026:11:19:54', '2026-11-28 11:19:54']) {
    it(`ignore earlier lines with the time "${time}", which may be those of an earlier Envoy, and use later ones`, async () => {
      await writeFile(lifecycleLog, line('node-17', {}, time));
      await using admin = await startAdmin(adminInterface());
      await using harness = startAgentHarness(admin.address, { lifecycleLog });
      await harness.ready();
      expect(reported(harness)).to.deep.equal(['node-17/acme']);
      await appendFile(lifecycleLog, line('node-17', {}, time));
      await eventually('the tenant is corrected', () => reported(harness).includes('node-17/umbrella'));
      expect(warnings(harness, 'invalid line in the lifecycle log')).to.deep.equal([
        'no valid time; createdAt is omitted',
      ]);
    });
  }

  it('ignore what an earlier process of Envoy has logged', async () => {
    await writeFile(lifecycleLog, line('node-17', {}, `${Math.floor(Date.now() / 1000) - 7200}.000000`));
    await using admin = await startAdmin(adminInterface());
    await using harness = startAgentHarness(admin.address, { lifecycleLog });
    await harness.ready();
    expect(reported(harness)).to.deep.equal(['node-17/acme']);
  });

  it('correct the default tenant once Envoy has written its log', async () => {
    await writeFile(lifecycleLog, '');
    await using admin = await startAdmin(adminInterface());
    await using harness = startAgentHarness(admin.address, { lifecycleLog });
    await harness.ready();
    expect(reported(harness)).to.deep.equal(['node-17/acme']);
    await appendFile(lifecycleLog, line('node-17'));
    await eventually('the tenant is corrected', () => reported(harness).includes('node-17/umbrella'));
    expect(reported(harness)).to.deep.equal(['node-17/umbrella']);
  });

  it('use the lines of a log that was truncated and written again up to its old length', async () => {
    let gauges = gaugesOf('eu-1:node-17');
    await writeFile(lifecycleLog, line('node-17'));
    await using admin = await startAdmin(adminInterface({ stats: (_, response) => response.end(gauges) }));
    await using harness = startAgentHarness(admin.address, { defaultTenant: undefined, lifecycleLog });
    await harness.ready();
    await truncate(lifecycleLog);
    await appendFile(lifecycleLog, line('node-18'));
    gauges = gaugesOf('eu-1:node-17', 'eu-1:node-18');
    await harness.counts(2);
  });

  it('send no full push until the log has named the tenant of every tunnel', async () => {
    await writeFile(lifecycleLog, line('node-17'));
    await using admin = await startAdmin(
      adminInterface({ stats: (_, response) => response.end(gaugesOf('eu-1:node-17', 'eu-1:node-18')) }),
    );
    // So that only the log causes the second poll.
    await using harness = startAgentHarness(admin.address, {
      ...{ defaultTenant: undefined, lifecycleLog, pollIntervalMs: 60_000 },
    });
    await harness.ready();
    expect(harness.reports.map(({ added, fullPush }) => [fullPush, added.length])).to.deep.equal([
      [false, 1],
    ]);
    await appendFile(lifecycleLog, line('node-18'));
    await eventually('there is a full push', () => harness.reports.some(({ fullPush }) => fullPush));
    expect(reported(harness)).to.deep.equal(['node-17/umbrella', 'node-18/umbrella']);
    expect((await harness.metrics.tunnels.get()).values[0]?.value, 'after that poll').to.equal(2);
  });

  it('report a gauge that two tenants share under the first one, and log what to change', async () => {
    await writeFile(lifecycleLog, line('node-17'));
    await using admin = await startAdmin(adminInterface());
    await using harness = startAgentHarness(admin.address, { lifecycleLog });
    await harness.ready();
    await appendFile(lifecycleLog, line('node-17', { tenant_id: 'globex', fd: 99 }));
    await eventually('the agent logs it', () => harness.logged.some(({ reason }) => reason !== undefined));
    await harness.polled();
    expect(reported(harness)).to.deep.equal(['node-17/umbrella']);
    expect(harness.logged.filter(({ reason }) => reason !== undefined)).to.have.length(1);
    expect(harness.logged.find(({ reason }) => reason !== undefined)).to.include({
      reason: 'several_tenants',
      hint: 'enable tenant isolation in Envoy (enable_tenant_isolation)',
    });
  });

  it('report nothing of a gauge that two tenants share from the start', async () => {
    await writeFile(lifecycleLog, line('node-17') + line('node-17', { tenant_id: 'globex', fd: 99 }));
    await using admin = await startAdmin(adminInterface());
    await using harness = startAgentHarness(admin.address, { lifecycleLog });
    await harness.ready();
    expect(reported(harness)).to.deep.equal([]);
    expect(warnings(harness, 'tunnels are up and not, or not completely, reported')).to.deep.equal([
      'several_tenants',
    ]);
  });

  /** Gauges under which `:` occurs in each part, with the tunnel that the log names, and what the gauges alone give. */
  const colons = [
    { cluster: 'eu:1', node: 'node-17', alone: 'node-17/acme' },
    { cluster: 'eu-1', node: 'node:17', alone: 'node:17/acme' },
    { cluster: 'eu:1', node: 'node:17', alone: 'node:17/acme' },
    { cluster: 'eu-1:', node: 'node-17', alone: 'node-17/acme' },
    { cluster: 'eu-1', node: ':node-17', alone: ':node-17/acme' },
  ];
  for (const { cluster, node, alone } of colons) {
    it(`report node ${node} of cluster ${cluster} under its own ID`, async () => {
      await writeFile(lifecycleLog, line(node, { cluster_id: cluster, tenant_id: 'um:brella' }));
      const gauges = `edge.clusters.${cluster}: 1\nedge.nodes.${node}: 1\nedge.tunnels.${cluster}:${node}: 1\n`;
      await using admin = await startAdmin(adminInterface({ stats: (_, response) => response.end(gauges) }));
      await using withLog = startAgentHarness(admin.address, { lifecycleLog });
      await using withoutLog = startAgentHarness(admin.address);
      await withLog.ready();
      await withoutLog.ready();
      expect(reported(withLog)).to.deep.equal([`${node}/um:brella`]);
      expect(reported(withoutLog)).to.deep.equal([alone]);
    });
  }

  it('report no tunnel whose ID contains ":" under tenant isolation, which Envoy does not accept', async () => {
    const isolated = {
      ...EXTENSION,
      typed_config: { ...EXTENSION.typed_config, enable_tenant_isolation: true },
    };
    const stats =
      'edge.tunnels.acme:eu-1:node-17: 1\nedge.tunnels.acme:eu:1:node-18: 1\nedge.tunnels.node-19: 1\n';
    await using admin = await startAdmin(
      adminInterface({ extension: isolated, stats: (_, response) => response.end(stats) }),
    );
    await using harness = startAgentHarness(admin.address);
    await harness.ready();
    expect(reported(harness)).to.deep.equal(['acme:node-17/acme']);
    expect(harness.reports.filter(({ fullPush }) => fullPush)).to.deep.equal([]);
    expect(warnings(harness, 'tunnels are up and not, or not completely, reported')).to.deep.equal([
      'malformed_name',
    ]);
  });

  it('poll no more often for lines about other events', async () => {
    let polls = 0;
    await writeFile(lifecycleLog, line('node-17'));
    await using admin = await startAdmin(
      adminInterface({
        stats(_, response) {
          polls += 1;
          response.end(gaugesOf('eu-1:node-17'));
        },
      }),
    );
    await using harness = startAgentHarness(admin.address, { lifecycleLog, pollIntervalMs: 60_000 });
    await harness.ready();
    const before = polls;
    for (let i = 0; i < 20; i += 1) await appendFile(lifecycleLog, line('node-17', { event: 'ping' }));
    await appendFile(lifecycleLog, line('node-17', { event: 'tunnel_closed' }));
    await eventually('the last line causes a poll', () => polls > before);
    expect(polls - before).to.equal(1);
  });
});
