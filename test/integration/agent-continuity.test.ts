import { expect } from 'chai';
import { mkdtemp, rm } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  adminInterface,
  GAUGES,
  gaugesOf,
  PATIENT_CLOCK,
  SERVER_INFO,
  startAdmin,
  startAgentHarness,
  type AgentHarness,
} from '../support/agent-harness.ts';
import { eventually } from '../support/eventually.ts';

function fullPushes({ reports }: AgentHarness): readonly (readonly string[])[] {
  return reports.filter(({ fullPush }) => fullPush).map(({ added }) => added.map(({ name }) => name));
}

function removals({ reports }: AgentHarness): readonly string[] {
  return reports.flatMap(({ removedNames }) => removedNames);
}

describe('The stream of the agent', () => {
  it('starts with a full push of what an interface on a UNIX socket returns', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'admin-'));
    await using admin = await startAdmin(adminInterface(), join(folder, 'admin.sock'));
    await using harness = startAgentHarness(admin.address);
    await harness.ready();
    expect(harness.reports[0]).to.include({ fullPush: true });
    expect(harness.reports[0]?.node).to.deep.equal({ id: 'responder-0', cluster: 'edge' });
    expect(fullPushes(harness)).to.deep.equal([['node-17']]);
    await rm(folder, { recursive: true, force: true });
  });

  it('ends while the UNIX socket of the interface is missing', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'admin-'));
    const path = join(folder, 'admin.sock');
    const first = await startAdmin(adminInterface(), path);
    await using harness = startAgentHarness(first.address);
    await harness.ready();
    await first[Symbol.asyncDispose]();
    await eventually('the stream has ended', () => harness.openStreams === 0);
    expect(harness.agent.notReady).to.match(/^GET \/stats: connect ENOENT/);
    await using _second = await startAdmin(adminInterface(), path);
    await harness.ready();
    expect(removals(harness)).to.deep.equal([]);
    await rm(folder, { recursive: true, force: true });
  });

  it('ends with the first poll that fails, and starts again after the next that succeeds', async () => {
    let failing = false;
    const stats: RequestListener = (_, response) =>
      failing ? response.writeHead(503).end() : response.end(GAUGES);
    await using admin = await startAdmin(adminInterface({ stats }));
    await using harness = startAgentHarness(admin.address);
    await harness.ready();
    failing = true;
    await eventually('the stream has ended', () => harness.openStreams === 0);
    failing = false;
    await harness.ready();
    expect(harness.openStreams).to.equal(1);
    expect(fullPushes(harness)).to.deep.equal([['node-17'], ['node-17']]);
    expect(removals(harness)).to.deep.equal([]);
  });

  it('continues if the interface closes an idle connection', async () => {
    const used = new WeakSet<Socket>();
    let closed = 0;
    await using admin = await startAdmin((request, response) => {
      const { socket } = request;
      // Like a server whose idle timeout ends while the request is on its way.
      if (request.url?.startsWith('/stats') === true && used.has(socket)) {
        closed += 1;
        socket.resetAndDestroy();
      } else adminInterface()(request, response);
      used.add(socket);
    });
    await using harness = startAgentHarness(admin.address);
    await harness.ready();
    await eventually('several connections were closed', () => closed > 5);
    expect(fullPushes(harness)).to.deep.equal([['node-17']]);
    expect(harness.openStreams).to.equal(1);
    expect(harness.logged.map(({ msg }) => msg)).to.not.include('failed to poll Envoy; reports are paused');
  });

  it('ends if the interface closes each connection', async () => {
    let closing = false;
    await using admin = await startAdmin((request, response) => {
      if (closing) request.socket.resetAndDestroy();
      else adminInterface()(request, response);
    });
    await using harness = startAgentHarness(admin.address);
    await harness.ready();
    closing = true;
    await eventually('the stream has ended', () => harness.openStreams === 0);
    expect(harness.agent.notReady).to.match(/^GET \/stats: .*ECONNRESET/);
  });

  it('never reports the empty list of an Envoy that has just restarted', async () => {
    let uptime = 3600;
    await using admin = await startAdmin((request, response) =>
      adminInterface({
        info: { ...SERVER_INFO, uptime_current_epoch: `${uptime}s` },
        stats: (_, stats) => stats.end(uptime < 5 ? '' : GAUGES),
      })(request, response),
    );
    await using harness = startAgentHarness(admin.address, { settleTimeMs: 10_000 });
    await harness.ready();
    uptime = 0;
    await eventually('the restart is noticed', () =>
      harness.logged.some(({ msg }) => msg.includes('Envoy has restarted')),
    );
    uptime = 20;
    await harness.ready();
    expect(new Set(fullPushes(harness).flat())).to.deep.equal(new Set(['node-17']));
    expect(fullPushes(harness)).to.not.deep.include([]);
    expect(removals(harness)).to.deep.equal([]);
  });

  for (const what of ['is empty', 'lacks a tunnel'] as const) {
    it(`ends if a list of gauges ${what} that Envoy would have kept`, async () => {
      const whole = gaugesOf('eu-1:node-17', 'us-1:node-18');
      let incomplete = false;
      const part = what === 'is empty' ? '' : whole.slice(0, whole.indexOf('edge.tunnels.us-1'));
      const stats: RequestListener = (_, response) => response.end(incomplete ? part : whole);
      await using admin = await startAdmin(adminInterface({ stats }));
      await using harness = startAgentHarness(admin.address);
      await harness.ready();
      incomplete = true;
      await eventually('the stream has ended', () => harness.openStreams === 0);
      expect(harness.agent.notReady).to.match(/^GET \/stats: incomplete list of gauges: /);
      incomplete = false;
      await harness.ready();
      expect(removals(harness)).to.deep.equal([]);
      expect(fullPushes(harness)).to.deep.equal([
        ['node-17', 'node-18'],
        ['node-17', 'node-18'],
      ]);
    });
  }

  for (const stepMs of [-3_600_000, -7_200_000, 3_600_000]) {
    it(`continues if the clock is set by ${stepMs / 60_000} minutes`, async () => {
      const startedMs = Date.now() - 3_600_000;
      let clockStepMs = 0;
      const wallMs = (): number => Date.now() + clockStepMs;
      let nodes: readonly `${string}:${string}`[] = ['eu-1:node-17'];
      await using admin = await startAdmin((request, response) =>
        adminInterface({
          info: {
            ...SERVER_INFO,
            uptime_current_epoch: `${Math.floor((wallMs() - startedMs) / 1000)}s`,
          },
          stats: (_, stats) => stats.end(gaugesOf(...nodes)),
        })(request, response),
      );
      await using harness = startAgentHarness(admin.address, {
        clock: { ...PATIENT_CLOCK, wallMs },
        settleTimeMs: 10_000,
      });
      await harness.ready();
      clockStepMs = stepMs;
      nodes = ['eu-1:node-17', 'eu-1:node-18'];
      await harness.counts(2);
      await harness.polled();
      expect(fullPushes(harness)).to.deep.equal([['node-17']]);
      expect(harness.logged.map(({ msg }) => msg)).to.not.include('failed to poll Envoy; reports are paused');
    });
  }

  it('ends if the restarted Envoy has another node ID', async () => {
    let id = 'responder-0';
    let stats = GAUGES;
    await using admin = await startAdmin((request, response) =>
      adminInterface({
        info: { ...SERVER_INFO, node: { id } },
        stats: (_, text) => text.end(stats),
      })(request, response),
    );
    await using harness = startAgentHarness(admin.address);
    await harness.ready();
    id = 'responder-1';
    stats = gaugesOf('eu-1:node-18');
    await eventually('the other Envoy is reported', () =>
      harness.reports.some(({ node }) => node?.id === 'responder-1'),
    );
    const names = (reporter: string): readonly string[] => {
      const own = harness.reports.filter(({ node }) => node?.id === reporter);
      return own.flatMap(({ added }) => added.map(({ name }) => name));
    };
    expect(removals(harness)).to.deep.equal([]);
    expect(names('responder-0')).to.deep.equal(['node-17']);
    expect(names('responder-1')).to.deep.equal(['node-18']);
  });
});
