import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { DENY_ALL } from '../../src/core/grant.ts';
import { Authorizer } from '../../src/controller/authorizer.ts';
import { systemClock, type Clock } from '../../src/clock.ts';
import { parsePolicy } from '../../src/core/policy.ts';
import type { RuleSpec } from '../../src/core/policy-object.ts';
import { ALLOW_ALL_POLICIES, createPolicySet } from '../../src/core/policy-set.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { fullPush, requestBytes, tunnel } from '../support/wire.ts';

/** `wire.ts`' own tunnels are of this one. */
const TENANT = 'acme-corporation';
const RULE: RuleSpec = { peers: [{ any: true }], reporters: { ids: ['r-*'] }, tenants: [TENANT] };
const OTHERS: RuleSpec = { ...RULE, peers: [{ spiffeID: 'spiffe://example.org/**' }] };

describe('a server whose streams are held to policies', () => {
  let world: TestServer;
  let grants: Authorizer;
  afterEach(() => world.stop());

  async function serve(
    rules: readonly RuleSpec[] | undefined,
    onInvalid: 'skip' | 'nack' = 'skip',
    clock: Clock = systemClock,
  ): Promise<void> {
    grants = new Authorizer({ onGrantChanged() {}, onPeerChanged() {}, onReevaluated() {}, clock });
    inForce(rules);
    world = await startTestServer({
      policy: grants,
      clock,
      onInvalid,
      reporterConnected: (reporter, _envoy, peer) => grants.onStreamOpened(reporter, peer),
    });
  }
  /** @param rules undefined: there is no policy */
  function inForce(rules: readonly RuleSpec[] | undefined): void {
    grants.setPolicies(
      rules === undefined ? ALLOW_ALL_POLICIES : createPolicySet(parsePolicy({ rules }).rules ?? []),
    );
  }

  it('a peer that no policy admits: PERMISSION_DENIED before it has said a word', async () => {
    await serve([OTHERS]);
    const stream = world.open();
    const { code, details } = await stream.ended;
    expect(code).to.equal(status.PERMISSION_DENIED);
    expect(details).to.equal('no ReverseTunnelPolicy admits an unauthenticated peer (--auth insecure)');
    expect(await world.count('streamsClosed', 'policy')).to.equal(1);
    expect(world.connectionEvents).to.deep.equal([]);
  });

  it("another reporter's id: a NACK that names field and value, then PERMISSION_DENIED, and nothing is folded", async () => {
    await serve([RULE]);
    const stream = world.open();
    stream.sendBytes(firstReport('somebody-else', { ...fullPush(3), nonce: 7 }));
    const answer = await stream.next();
    expect(answer).to.deep.include({ node_id: 'somebody-else', request_nonce: '7' });
    expect(answer.error_detail?.code).to.equal(status.PERMISSION_DENIED);
    expect(answer.error_detail?.message).to.match(
      /^node\.id: "somebody-else" in node\.cluster "edge" is not allowed by any ReverseTunnelPolicy for an unauthenticated peer/,
    );
    expect((await stream.ended).code).to.equal(status.PERMISSION_DENIED);
    expect(world.applied).to.deep.equal([]);
    expect(world.connectionEvents).to.deep.equal([]);
    expect(await world.count('nacks', 'policy')).to.equal(1);
  });

  it('a NACK for a denied reporter with a negative nonce does not contain the negative nonce', async () => {
    await serve([RULE]);
    const stream = world.open();
    stream.sendBytes(firstReport('somebody-else', { nonce: '-7' }));
    const nack = await stream.next();
    expect(nack.request_nonce).to.equal('0');
    expect(nack.error_detail?.code).to.equal(status.PERMISSION_DENIED);
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
    expect((await stream.next()).error_detail?.message).to.match(/^node: required/);
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
    expect(world.applied[0]?.report.added.map(({ name }) => name)).to.deep.equal(['mine', 'theirs']);
    expect(await world.count('tunnelRejections', 'policy')).to.equal(1);
    const said = world.logged.find(({ msg }) => msg.startsWith('rejected invalid tunnels'));
    expect(JSON.stringify(said)).to.include('tunnel \\"theirs\\": tenant \\"globex\\"');
  });

  it('what is rejected is said of each reporter in one line a minute, which says how many there were', async () => {
    const clock = new FakeClock();
    await serve([RULE], 'skip', clock);
    const theirs = { ...tunnel('theirs'), identity: { ...tunnel('x').identity, tenant_id: 'globex' } };
    const report = { full_push: true, added_tunnels: [theirs] };
    const said = (): unknown[] =>
      world.logged
        .filter(({ msg }) => msg.startsWith('rejected invalid tunnels'))
        .map(({ reporter, suppressed = 0 }) => [(reporter as { id: string }).id, suppressed]);
    const [one, other] = [world.open(), world.open()];
    one.sendBytes(firstReport('r-1', report));
    await one.next();
    for (let nonce = 2; nonce <= 100; nonce += 1) {
      one.send({ ...report, nonce });
      await one.next();
    }
    other.sendBytes(firstReport('r-2', report));
    await other.next();
    expect(said()).to.deep.equal([
      ['r-1', 0],
      ['r-2', 0],
    ]);
    expect(await world.count('tunnelRejections', 'policy')).to.equal(101);
    const last = world.open();
    clock.advance(60_000);
    last.sendBytes(firstReport('r-1', report));
    await last.next();
    expect(said().slice(2)).to.deep.equal([['r-1', 99]]);
  });

  it('what ends streams of a reporter again and again is one line a minute too', async () => {
    const clock = new FakeClock();
    await serve([RULE], 'nack', clock);
    const theirs = { ...tunnel('theirs'), identity: { ...tunnel('x').identity, tenant_id: 'globex' } };
    for (let times = 0; times < 20; times += 1) {
      const stream = world.open();
      stream.sendBytes(firstReport('r-1', { full_push: true, added_tunnels: [theirs] }));
      await stream.ended;
    }
    expect(await world.count('nacks', 'policy')).to.equal(20);
    expect(world.logged.map(({ msg }) => msg)).to.deep.equal(['report rejected; closing the stream']);
  });

  it("with --on-invalid nack another tenant's tunnel refuses the report", async () => {
    await serve([RULE], 'nack');
    const stream = world.open();
    const theirs = { ...tunnel('theirs'), identity: { ...tunnel('x').identity, tenant_id: 'globex' } };
    stream.sendBytes(firstReport('r-0', { full_push: true, added_tunnels: [tunnel('mine'), theirs] }));
    expect((await stream.next()).error_detail?.message).to.match(/^tunnel "theirs": tenant "globex"/);
    expect((await stream.ended).code).to.equal(status.OK);
    expect(world.applied).to.deep.equal([]);
    expect(await world.count('nacks', 'policy')).to.equal(1);
  });

  it('a change of policies ends the streams that they do not allow any more, and no other', async () => {
    await serve(undefined);
    const [kept, gone, unnamed] = [world.open(), world.open(), world.open()];
    kept.sendBytes(firstReport('r-0'));
    gone.sendBytes(firstReport('somebody'));
    await Promise.all([kept.next(), gone.next()]);
    inForce([RULE]);
    world.server.reauthorize();
    const { code, details } = await gone.ended;
    expect(code).to.equal(status.PERMISSION_DENIED);
    expect(details).to.match(/^node\.id: "somebody"/);
    kept.send({ nonce: 2 });
    await kept.next();
    inForce([OTHERS]);
    world.server.reauthorize();
    expect((await kept.ended).code).to.equal(status.PERMISSION_DENIED);
    expect((await unnamed.ended).code).to.equal(status.PERMISSION_DENIED);
    await eventually('both are told', () => world.connectionEvents.length === 4);
    expect(world.connectionEvents).to.have.members([
      'r-0 connected',
      'somebody connected',
      'somebody disconnected',
      'r-0 disconnected',
    ]);
    // Grants change in turns of their own.
    await eventually(
      'nothing is granted',
      () => grants.grantFor(reporterKey({ cluster: 'edge', id: 'r-0' })) === DENY_ALL,
    );
  });

  it('a change of policies asks for streams with a reporter first, however many have said nothing yet', async () => {
    await serve(undefined);
    for (const id of ['r-0', 'r-1']) {
      const open = world.connection();
      // Its own streams are opened in this order.
      for (let count = 0; count < 150; count += 1) open();
      const named = open();
      named.sendBytes(firstReport(id));
      await named.next();
    }
    inForce([OTHERS]);
    world.server.reauthorize();
    // In this very turn of the event loop.
    expect(world.connectionEvents.slice(2)).to.have.members(['r-0 disconnected', 'r-1 disconnected']);
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
    expect(world.applied).to.have.length(25);
  });

  /** Five at once, then one each 50 ms. */
  const HELD_TO: RuleSpec = { ...RULE, limits: { reportsPerSecond: 20, reportsBurst: 5 } };
  const mostReadSince = (startMs: number): number => 5 + (20 * (performance.now() - startMs)) / 1000 + 1;

  it('reads no faster than the rate where each report comes on a stream of its own', async () => {
    await serve([HELD_TO]);
    const startMs = performance.now();
    for (let count = 1; count <= 15; count += 1) {
      const stream = world.open();
      stream.sendBytes(firstReport('r-0'));
      await stream.next();
      expect(world.applied).to.have.length(count);
      expect(count).to.be.at.most(mostReadSince(startMs));
      stream.end();
    }
  });

  it('nor where all these streams are opened at once', async () => {
    await serve([HELD_TO]);
    const startMs = performance.now();
    const streams = Array.from({ length: 15 }, () => world.open());
    for (const stream of streams) stream.sendBytes(firstReport('r-0'));
    const over = streams.map(async (stream) => await Promise.race([stream.next(), stream.ended]));
    for (const one of over) {
      await one;
      expect(world.applied.length).to.be.at.most(mostReadSince(startMs));
    }
    expect(world.applied.length).to.be.at.least(5);
  });

  it('leaves nothing of a stream that goes while it waits for the rate', async () => {
    const clock = new FakeClock();
    await serve([{ ...RULE, limits: { reportsPerSecond: 1, reportsBurst: 1 } }], 'skip', clock);
    const first = world.open();
    first.sendBytes(firstReport('r-0'));
    await first.next();
    const second = world.open();
    second.sendBytes(firstReport('r-0'));
    await eventually(
      'the second waits',
      () => clock.pendingTimersMs.filter((ms) => ms === 1000).length === 2,
    );
    second.cancel();
    await eventually(
      'it does not any more',
      () => clock.pendingTimersMs.filter((ms) => ms === 1000).length === 1,
    );
    expect(world.applied).to.have.length(1);
  });
});
