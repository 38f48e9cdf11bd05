import { expect } from 'chai';
import { copyFile, rename, truncate } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { openFaultProxy } from '../faults/real/fault-proxy.ts';
import { startAgentStack, type AgentStack } from '../support/agent-stack.ts';
import { countTunnelWrites } from '../support/audit-log.ts';
import { concurrent } from '../support/concurrent.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { eventually } from '../support/eventually.ts';
import { useNewestEnvoy } from '../support/newest-envoy.ts';

const PAUSE_MS = 20_000;
const OUTAGE_MS = 60_000;
/** An initiator whose responder was restarted tries again after 10 to 11 s. */
const SETTLE_TIME = '30s';
const AT_ONCE = ['--settle-time', '0'];
const DEFAULT_TENANT = ['--default-tenant', 'acme'];

describe('The agent and faults around a standard Envoy', function () {
  const controlPlane = useControlPlane();
  const envoy = useNewestEnvoy();

  const test = concurrent({
    timeoutMs: 400_000,
    open: () => startAgentStack(controlPlane(), envoy()),
    close: async (stack) => await stack[Symbol.asyncDispose](),
  });

  /** Objects that were deleted so far, by the audit log. */
  async function deletions({ namespace }: AgentStack): Promise<number> {
    return (await countTunnelWrites(controlPlane().auditLogPath ?? '', namespace)).delete;
  }

  test('reports Disconnected while the admin interface stalls, and deletes no object', async (stack) => {
    const proxy = await openFaultProxy(stack.responder.adminAddress);
    try {
      const agent = await stack.startAgent(
        ...AT_ONCE,
        ...DEFAULT_TENANT,
        '--admin',
        `http://${proxy.address}`,
      );
      await stack.startInitiator('node-17');
      const [before] = await stack.waitForTunnels('node-17');
      await stack.waitForCondition('Connected', 'True');
      proxy.stall();
      await stack.waitForCondition('Connected', 'False');
      // The first poll that fails may have reached its own timeout.
      await eventually('the agent gives the reason', async () =>
        /^not ready: GET \/\S+: no complete response within 900 ms$/.test(await agent.readiness()),
      );
      proxy.restore();
      await stack.waitForCondition('Connected', 'True');
      const [after] = await stack.waitForTunnels('node-17');
      expect(after?.metadata.uid).to.equal(before?.metadata.uid);
      expect(await deletions(stack)).to.equal(0);
    } finally {
      await proxy.close();
    }
  });

  test('deletes the object of a tunnel that ended while Envoy was stopped for 20 s, and no other', async (stack) => {
    await stack.startAgent(...AT_ONCE, '--lifecycle-log', stack.lifecycleLog);
    await stack.startInitiator('node-17');
    const leaving = await stack.startInitiator('node-18');
    const before = await stack.waitForTunnels('node-17', 'node-18');
    await stack.waitForCondition('Connected', 'True');
    stack.responder.pause();
    await leaving.kill();
    await stack.waitForCondition('Connected', 'False');
    await delay(PAUSE_MS);
    expect(await deletions(stack), 'while Envoy is stopped').to.equal(0);
    stack.responder.resume();
    // Its initiator may have given up its tunnel as well, and returns 10 to 11 s later.
    await eventually('the tunnel that ended is deleted', async () =>
      (await stack.tunnels()).every(({ spec }) => spec.tunnelName !== 'node-18'),
    );
    const [after] = await stack.waitForTunnels('node-17');
    const stayed = before.find(({ spec }) => spec.tunnelName === 'node-17');
    expect(after?.metadata.uid).to.equal(stayed?.metadata.uid);
  });

  test('knows the tenants of tunnels after the log was rotated, and after it was copied and truncated', async (stack) => {
    const { lifecycleLog } = stack;
    const agent = await stack.startAgent(...AT_ONCE, '--lifecycle-log', lifecycleLog);
    await stack.startInitiator('node-17');
    await stack.waitForTunnels('node-17');
    await rename(lifecycleLog, `${lifecycleLog}.1`);
    // Envoy writes to the old file until a signal makes it reopen its logs.
    await stack.startInitiator('node-18');
    await stack.waitForTunnels('node-17', 'node-18');
    process.kill(stack.responder.pid, 'SIGUSR1');
    const leaving = await stack.startInitiator('node-19');
    await stack.waitForTunnels('node-17', 'node-18', 'node-19');
    await copyFile(lifecycleLog, `${lifecycleLog}.2`);
    await truncate(lifecycleLog);
    await stack.startInitiator('node-20');
    await leaving.kill();
    const objects = await stack.waitForTunnels('node-17', 'node-18', 'node-20');
    expect(objects.map(({ spec }) => spec.tenantID)).to.deep.equal(['acme', 'acme', 'acme']);
    expect(objects.every(({ spec }) => spec.createdAt !== undefined)).to.equal(true);
    // A busy machine may stop Envoy for longer than the timeout of a poll, which is a second.
    const unexpected = agent.log.filter(
      ({ level, msg }) => level !== 'info' && !msg.startsWith('failed to poll'),
    );
    expect(unexpected).to.deep.equal([]);
    expect(await deletions(stack)).to.equal(1);
  });

  test('reports what has changed once the operator returns after 60 s', async (stack) => {
    await stack.startAgent(...AT_ONCE, ...DEFAULT_TENANT);
    await stack.startInitiator('node-17');
    const leaving = await stack.startInitiator('node-18');
    const before = await stack.waitForTunnels('node-17', 'node-18');
    await stack.stopOperator();
    await leaving.kill();
    await stack.startInitiator('node-19');
    await delay(OUTAGE_MS);
    await stack.startOperator();
    const after = await stack.waitForTunnels('node-17', 'node-19');
    const uidOf = (objects: typeof after): string | undefined =>
      objects.find(({ spec }) => spec.tunnelName === 'node-17')?.metadata.uid;
    expect(uidOf(after)).to.equal(uidOf(before));
    expect(await deletions(stack)).to.equal(1);
  });

  test('deletes no object if Envoy restarts under 100 tunnels that return within the settle time', async (stack) => {
    const nodes = Array.from({ length: 100 }, (_, i) => `node-${i}`);
    const agent = await stack.startAgent('--settle-time', SETTLE_TIME, '--lifecycle-log', stack.lifecycleLog);
    await stack.startInitiator(...nodes);
    const before = await stack.waitForTunnels(...nodes);
    await stack.waitForCondition('Connected', 'True');
    await stack.restartResponder();
    await stack.waitForCondition('Connected', 'False');
    await eventually(
      'the agent is ready again',
      async () => (await agent.readiness()) === 'ok',
      120_000,
      100,
    );
    await stack.waitForCondition('Connected', 'True');
    const after = await stack.waitForTunnels(...nodes);
    const uids = (objects: typeof after): readonly string[] =>
      objects.map(({ metadata }) => metadata.uid).toSorted();
    expect(uids(after)).to.deep.equal(uids(before));
    expect(await deletions(stack)).to.equal(0);
  });
});
