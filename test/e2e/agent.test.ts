import { expect } from 'chai';
import { startAgentStack } from '../support/agent-stack.ts';
import { concurrent } from '../support/concurrent.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { eventually } from '../support/eventually.ts';
import { useNewestEnvoy } from '../support/newest-envoy.ts';

const AT_ONCE = ['--settle-time', '0'];
const DEFAULT_TENANT = ['--default-tenant', 'acme'];

describe('The agent next to a standard Envoy', function () {
  const controlPlane = useControlPlane();
  const envoy = useNewestEnvoy();

  const test = concurrent({
    timeoutMs: 300_000,
    open: () => startAgentStack(controlPlane(), envoy()),
    close: async (stack) => await stack[Symbol.asyncDispose](),
  });

  test('creates the object of a tunnel that comes up and deletes it when its initiator is killed', async (stack) => {
    const agent = await stack.startAgent(...AT_ONCE, '--lifecycle-log', stack.lifecycleLog);
    const first = await stack.startInitiator('node-17');
    await stack.startInitiator('node-18');
    const [object] = await stack.waitForTunnels('node-17', 'node-18');
    expect(object?.spec).to.include({ tenantID: 'acme', clusterID: 'eu-1' });
    const createdMs = Date.parse(object?.spec.createdAt ?? '');
    const ageMs = Date.parse(object?.metadata.creationTimestamp ?? '') - createdMs;
    expect(ageMs, 'from tunnel up to object created').to.be.within(-1000, 60_000);
    await eventually('the agent is ready', async () => (await agent.readiness()) === 'ok');
    await first.kill();
    await stack.waitForTunnels('node-18');
    expect(await agent.stop()).to.equal(0);
    expect(agent.log.at(-1)).to.include({ msg: 'stopped' });
  });

  test('reports with polling only, under the default tenant', async (stack) => {
    await stack.startAgent(...AT_ONCE, '--default-tenant', 'umbrella');
    const initiator = await stack.startInitiator('node-17');
    const [object] = await stack.waitForTunnels('node-17');
    expect(object?.spec).to.include({ tenantID: 'umbrella' }).and.not.have.property('createdAt');
    await initiator.kill();
    await stack.waitForTunnels();
  });

  test('stops reporting while Envoy hangs, and reports the same objects once it continues', async (stack) => {
    await stack.startAgent(...AT_ONCE, ...DEFAULT_TENANT);
    await stack.startInitiator('node-17');
    const [before] = await stack.waitForTunnels('node-17');
    await stack.waitForCondition('Connected', 'True');
    stack.responder.pause();
    await stack.waitForCondition('Connected', 'False');
    stack.responder.resume();
    await stack.waitForCondition('Connected', 'True');
    const [after] = await stack.waitForTunnels('node-17');
    expect(after?.metadata.uid).to.equal(before?.metadata.uid);
  });

  test('is flagged if two agents report the same Envoy, whose objects stay', async (stack) => {
    await stack.startAgent(...AT_ONCE, ...DEFAULT_TENANT);
    await stack.startInitiator('node-17');
    const [before] = await stack.waitForTunnels('node-17');
    await stack.startAgent(...AT_ONCE, ...DEFAULT_TENANT);
    await stack.waitForCondition('IdentityConflict', 'True', 'DuplicateReporterID');
    const [after] = await stack.waitForTunnels('node-17');
    expect(after?.metadata.uid).to.equal(before?.metadata.uid);
  });

  test('is flagged if two Envoys have one node ID', async (stack) => {
    await stack.startAgent(...AT_ONCE, ...DEFAULT_TENANT);
    await stack.startTwin();
    await stack.waitForCondition('IdentityConflict', 'True', 'DuplicateReporterID');
  });
});
