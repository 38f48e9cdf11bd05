import { expect } from 'chai';
import type { Peer } from '../../src/core/peer.ts';
import type { RuleSpec } from '../../src/core/policy-object.ts';
import { parsePolicy } from '../../src/core/policy.ts';
import { createPolicySet } from '../../src/core/policy-set.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { createHarness, type ControllerHarness } from '../support/controller-harness.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const WIDE: Peer = { kind: 'token', namespace: 'edge', serviceAccount: 'wide' };
const NARROW: Peer = { kind: 'token', namespace: 'edge', serviceAccount: 'narrow' };
const FORGED = tunnel('forged', { tenantID: 'globex' });
const OWN = tunnel('own');

function rule(peer: Peer, ids: string[], tenants: string[]): RuleSpec {
  const name = peer.kind === 'token' ? peer.serviceAccount : expect.fail();
  return { peers: [{ serviceAccount: { namespace: 'edge', name } }], reporters: { ids }, tenants };
}

describe('a reporter ID that peers with different grants share', () => {
  let world: ControllerHarness;
  beforeEach(async () => {
    world = createHarness();
    await world.start();
  });
  afterEach(() => world.workers.stop());

  function inForce(...rules: RuleSpec[]): void {
    world.authorizer.onPoliciesChanged(createPolicySet(parsePolicy({ rules }).rules ?? expect.fail()));
  }
  const created = (): number => world.api.calls.filter(({ verb }) => verb === 'create').length;

  it('creates no object for a denied tunnel when another peer takes over', async () => {
    inForce(rule(NARROW, ['*'], ['acme']), rule(WIDE, ['*'], ['acme', 'globex']));
    world.report(RESPONDER, fullPush(OWN, FORGED), NARROW);
    await world.settle();
    expect(world.ledger.deniedCount(KEY)).to.equal(1);
    world.report(RESPONDER, fullPush(OWN), WIDE);
    await world.settle();
    expect(created(), 'created objects').to.equal(1);
    expect(world.object(RESPONDER, FORGED)).to.equal(undefined);
  });

  it('does not count it for the other peer, which continues with a delta', async () => {
    inForce(rule(NARROW, ['*'], ['acme']), rule(WIDE, ['*'], ['acme', 'globex']));
    world.report(RESPONDER, delta([OWN, FORGED]), NARROW);
    world.report(RESPONDER, delta([tunnel('more')]), WIDE);
    await world.settle();
    expect(created(), 'created objects').to.equal(2);
    expect([world.ledger.tunnelCount(KEY), world.ledger.deniedCount(KEY)]).to.deep.equal([2, 0]);
  });

  it('does not count it after a change of policies that is not applied to this reporter yet', async () => {
    inForce(rule(NARROW, ['*'], ['*']), rule(WIDE, ['*'], ['*']));
    for (let i = 0; i < 300; i += 1) world.report({ cluster: '', id: `first-${i}` }, fullPush(), WIDE);
    world.report(RESPONDER, fullPush(OWN, FORGED), NARROW);
    await world.settle();
    inForce(rule(NARROW, ['*'], ['acme']), rule(WIDE, ['*'], ['*']));
    world.report(RESPONDER, delta([]), WIDE);
    await world.advance(100);
    expect(world.object(RESPONDER, OWN)).not.to.equal(undefined);
    expect(world.object(RESPONDER, FORGED)).to.equal(undefined);
  });

  it('is denied to a peer that would delete objects of other tenants', async () => {
    inForce(rule(WIDE, ['r*'], ['acme']), rule(NARROW, ['*'], ['globex']));
    world.report(RESPONDER, fullPush(OWN), WIDE);
    const refusal = (): string | undefined => world.authorizer.reporterRejection(NARROW, RESPONDER)?.message;
    const said = /^node\.id: "responder-0" in node\.cluster "edge" is held by another peer/;
    expect(refusal()).to.match(said);
    expect(world.authorizer.reporterRejection(WIDE, RESPONDER)).to.equal(undefined);
    world.intake.reporterDisconnected(RESPONDER, 'StreamEnded');
    expect(refusal(), 'while its objects exist').to.match(said);
    world.enqueuer.onReporterRemoved(KEY);
    world.authorizer.onReporterRemoved(KEY);
    expect(refusal(), 'after their expiry').to.equal(undefined);
  });

  it('is granted to a peer that may report the same, or once the previous peer has lost access', () => {
    inForce(rule(NARROW, ['*'], ['acme']), rule(WIDE, ['*'], ['acme', 'globex']));
    world.report(RESPONDER, fullPush(OWN), NARROW);
    expect(world.authorizer.reporterRejection(WIDE, RESPONDER)).to.equal(undefined);
    world.report(RESPONDER, fullPush(OWN), WIDE);
    expect(world.authorizer.reporterRejection(NARROW, RESPONDER)).not.to.equal(undefined);
    inForce(rule(NARROW, ['*'], ['acme']));
    expect(world.authorizer.reporterRejection(NARROW, RESPONDER)).to.equal(undefined);
  });

  it('keeps its tunnels when the same peer reconnects, which has the same grant', async () => {
    inForce(rule(NARROW, ['*'], ['acme']));
    world.report(RESPONDER, fullPush(OWN, FORGED), NARROW);
    world.report(RESPONDER, delta([]), NARROW);
    expect(world.ledger.deniedCount(KEY)).to.equal(1);
    inForce(rule(NARROW, ['*'], ['*']));
    await world.advance(100);
    expect(world.object(RESPONDER, FORGED)).not.to.equal(undefined);
  });
});
