import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { NOTHING } from '../../src/core/grant.ts';
import { Grants } from '../../src/controller/grants.ts';
import { systemClock } from '../../src/clock.ts';
import { parsePolicy } from '../../src/core/policy.ts';
import type { RuleSpec } from '../../src/core/policy-object.ts';
import { OPEN, policySet } from '../../src/core/policy-set.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { eventually } from '../support/eventually.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { fullPush, requestBytes, tunnel } from '../support/wire.ts';

/** `wire.ts`' own tunnels are of this one. */
const TENANT = 'acme-corporation';
const RULE: RuleSpec = { peers: [{ anybody: true }], reporters: { ids: ['r-*'] }, tenants: [TENANT] };
const OTHERS: RuleSpec = { ...RULE, peers: [{ spiffeID: 'spiffe://example.org/**' }] };

describe('a server whose streams are held to policies', () => {
  let world: TestServer;
  let grants: Grants;
  afterEach(() => world.stop());

  async function serve(
    rules: readonly RuleSpec[] | undefined,
    onInvalid: 'skip' | 'nack' = 'skip',
  ): Promise<void> {
    grants = new Grants({ onChanged() {}, onOtherPeer() {}, onReviewed() {}, clock: systemClock });
    inForce(rules);
    world = await startTestServer({
      policy: grants,
      onInvalid,
      reporterConnected: (reporter, _envoy, peer) => grants.connected(reporter, peer),
    });
  }
  /** @param rules undefined: there is no policy */
  function inForce(rules: readonly RuleSpec[] | undefined): void {
    grants.changed(rules === undefined ? OPEN : policySet(parsePolicy({ rules }).rules ?? []));
  }

  it('a peer that no policy admits: PERMISSION_DENIED before it has said a word', async () => {
    await serve([OTHERS]);
    const stream = world.open();
    const { code, details } = await stream.ended;
    expect(code).to.equal(status.PERMISSION_DENIED);
    expect(details).to.equal('no ReverseTunnelPolicy admits a peer that proves nothing (--auth insecure)');
    expect(await world.count('streamsClosed', 'policy')).to.equal(1);
    expect(world.presence).to.deep.equal([]);
  });

  it("another reporter's id: a NACK that names field and value, then PERMISSION_DENIED, and nothing is folded", async () => {
    await serve([RULE]);
    const stream = world.open();
    stream.sendBytes(firstReport('somebody-else', { ...fullPush(3), nonce: 7 }));
    const answer = await stream.next();
    expect(answer).to.deep.include({ node_id: 'somebody-else', request_nonce: '7' });
    expect(answer.error_detail?.code).to.equal(status.PERMISSION_DENIED);
    expect(answer.error_detail?.message).to.match(
      /^node\.id: "somebody-else" in node\.cluster "edge" is not allowed by any ReverseTunnelPolicy to a peer/,
    );
    expect((await stream.ended).code).to.equal(status.PERMISSION_DENIED);
    expect(world.folded).to.deep.equal([]);
    expect(world.presence).to.deep.equal([]);
    expect(await world.count('nacks', 'policy')).to.equal(1);
  });

  it('is told so before any tunnel is decoded, wherever in the report the node stands', async () => {
    await serve([RULE]);
    // What follows the node, or stands before it, would end the stream as malformed if it were decoded.
    const node = requestBytes({ node: { id: 'somebody-else', cluster: 'edge' }, nonce: 1 });
    const noTunnel = Buffer.from('1204ffffffff', 'hex');
    for (const bytes of [Buffer.concat([node, noTunnel]), Buffer.concat([noTunnel, node])]) {
      const stream = world.open();
      stream.sendBytes(bytes);
      expect((await stream.ended).code).to.equal(status.PERMISSION_DENIED);
    }
    const allowed = world.open();
    allowed.sendBytes(Buffer.concat([firstReport('r-0'), noTunnel]));
    expect((await allowed.ended).code).to.equal(status.INVALID_ARGUMENT);
  });

  it('what breaks the contract is said as ever', async () => {
    await serve([RULE]);
    const stream = world.open();
    stream.send({ nonce: 1 });
    expect((await stream.next()).error_detail?.message).to.match(/^node: is required/);
    expect((await stream.ended).code).to.equal(status.OK);
    const unfit = world.open();
    unfit.sendBytes(firstReport('r-\n'));
    expect((await unfit.next()).error_detail?.message).to.match(/^node\.id: /);
  });

  it("another tenant's tunnel is counted and said; the report is ACKed and folded", async () => {
    await serve([RULE]);
    const stream = world.open();
    const theirs = { ...tunnel('theirs'), identity: { ...tunnel('x').identity, tenant_id: 'globex' } };
    stream.sendBytes(firstReport('r-0', { full_push: true, added_tunnels: [tunnel('mine'), theirs] }));
    expect((await stream.next()).error_detail ?? undefined).to.equal(undefined);
    expect(world.folded[0]?.report.added.map(({ name }) => name)).to.deep.equal(['mine', 'theirs']);
    expect(await world.count('rejectedTunnels', 'policy')).to.equal(1);
    const said = world.logged.find(({ msg }) => msg.startsWith('tunnels set aside'));
    expect(JSON.stringify(said)).to.include('tunnel \\"theirs\\": tenant \\"globex\\"');
  });

  it("with --on-invalid nack another tenant's tunnel refuses the report", async () => {
    await serve([RULE], 'nack');
    const stream = world.open();
    const theirs = { ...tunnel('theirs'), identity: { ...tunnel('x').identity, tenant_id: 'globex' } };
    stream.sendBytes(firstReport('r-0', { full_push: true, added_tunnels: [tunnel('mine'), theirs] }));
    expect((await stream.next()).error_detail?.message).to.match(/^tunnel "theirs": tenant "globex"/);
    expect((await stream.ended).code).to.equal(status.OK);
    expect(world.folded).to.deep.equal([]);
    expect(await world.count('nacks', 'policy')).to.equal(1);
  });

  it('a change of policies ends the streams that they do not allow any more, and no other', async () => {
    await serve(undefined);
    const [kept, gone, unnamed] = [world.open(), world.open(), world.open()];
    kept.sendBytes(firstReport('r-0'));
    gone.sendBytes(firstReport('somebody'));
    await Promise.all([kept.next(), gone.next()]);
    inForce([RULE]);
    world.server.recheck();
    const { code, details } = await gone.ended;
    expect(code).to.equal(status.PERMISSION_DENIED);
    expect(details).to.match(/^node\.id: "somebody"/);
    kept.send({ nonce: 2 });
    await kept.next();
    inForce([OTHERS]);
    world.server.recheck();
    expect((await kept.ended).code).to.equal(status.PERMISSION_DENIED);
    expect((await unnamed.ended).code).to.equal(status.PERMISSION_DENIED);
    await eventually('both are told', () => world.presence.length === 4);
    expect(world.presence).to.have.members([
      'r-0 connected',
      'somebody connected',
      'somebody disconnected',
      'r-0 disconnected',
    ]);
    expect(grants.of(reporterKey({ cluster: 'edge', id: 'r-0' }))).to.equal(NOTHING);
  });

  it('reads no faster than the rate, and loses nothing', async () => {
    await serve([{ ...RULE, limits: { reportsPerSecond: 20, reportsBurst: 5 } }]);
    const stream = world.open();
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    const startMs = performance.now();
    for (let nonce = 2; nonce <= 25; nonce += 1) stream.send({ nonce });
    for (let nonce = 2; nonce <= 25; nonce += 1) {
      expect(await stream.next()).to.deep.include({ request_nonce: String(nonce) });
    }
    // 25 reports, five of them at once, the others 50 ms apart; a timer may fire a millisecond early.
    expect(performance.now() - startMs).to.be.greaterThan(20 * 50 - 25 - 20);
    expect(world.folded).to.have.length(25);
  });
});
