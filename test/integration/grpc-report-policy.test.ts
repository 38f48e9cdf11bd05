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

/** The tenant of the tunnels in `wire.ts`. */
const TENANT = 'acme-corporation';
const RULE: RuleSpec = { peers: [{ any: true }], reporters: { ids: ['r-*'] }, tenants: [TENANT] };
const OTHERS: RuleSpec = { ...RULE, peers: [{ spiffeID: 'spiffe://example.org/**' }] };

describe('a server with policies', () => {
  let fixture: TestServer;
  let grants: Authorizer;
  afterEach(() => fixture.stop());

  async function serve(
    rules: readonly RuleSpec[] | undefined,
    onInvalid: 'skip' | 'nack' = 'skip',
    clock: Clock = systemClock,
  ): Promise<void> {
    grants = new Authorizer(clock);
    applyPolicies(rules);
    fixture = await startTestServer({
      policy: grants,
      clock,
      onInvalid,
      reporterConnected: (reporter, _envoy, peer) => grants.onStreamOpened(reporter, peer),
    });
  }
  /** @param rules undefined: no policies exist */
  function applyPolicies(rules: readonly RuleSpec[] | undefined): void {
    grants.onPoliciesChanged(
      rules === undefined ? ALLOW_ALL_POLICIES : createPolicySet(parsePolicy({ rules }).rules ?? []),
    );
  }

  it('closes the stream of a peer that no policy admits before its first report', async () => {
    await serve([OTHERS]);
    const stream = fixture.open();
    const { code, details } = await stream.ended;
    expect(code).to.equal(status.PERMISSION_DENIED);
    expect(details).to.equal('no ReverseTunnelPolicy admits an unauthenticated peer (--auth insecure)');
    expect(await fixture.count('streamsClosed', 'policy')).to.equal(1);
    expect(fixture.connectionEvents).to.deep.equal([]);
  });

  it('answers a denied reporter with a NACK that names field and value, then PERMISSION_DENIED', async () => {
    await serve([RULE]);
    const stream = fixture.open();
    stream.sendBytes(firstReport('somebody-else', { ...fullPush(3), nonce: 7 }));
    const nack = await stream.next();
    expect(nack).to.deep.include({ node_id: 'somebody-else', request_nonce: '7' });
    expect(nack.error_detail?.code).to.equal(status.PERMISSION_DENIED);
    expect(nack.error_detail?.message).to.match(
      /^node\.id: "somebody-else" in node\.cluster "edge" is not allowed by any ReverseTunnelPolicy for an unauthenticated peer/,
    );
    expect((await stream.ended).code).to.equal(status.PERMISSION_DENIED);
    expect(fixture.applied).to.deep.equal([]);
    expect(fixture.connectionEvents).to.deep.equal([]);
    expect(await fixture.count('nacks', 'policy')).to.equal(1);
  });

  it('does not repeat a negative nonce in the NACK for a denied reporter', async () => {
    await serve([RULE]);
    const stream = fixture.open();
    stream.sendBytes(firstReport('somebody-else', { nonce: '-7' }));
    const nack = await stream.next();
    expect(nack.request_nonce).to.equal('0');
    expect(nack.error_detail?.code).to.equal(status.PERMISSION_DENIED);
  });

  it('denies a reporter before decoding tunnels, wherever the node is in the report', async () => {
    await serve([RULE]);
    // The malformed tunnel before or after the node would end the stream as malformed if it were decoded.
    const node = requestBytes({ node: { id: 'somebody-else', cluster: 'edge' }, nonce: 1 });
    const malformedTunnel = Buffer.from('1204ffffffff', 'hex');
    for (const bytes of [Buffer.concat([node, malformedTunnel]), Buffer.concat([malformedTunnel, node])]) {
      const stream = fixture.open();
      stream.sendBytes(bytes);
      expect((await stream.ended).code).to.equal(status.PERMISSION_DENIED);
    }
    const allowed = fixture.open();
    allowed.sendBytes(Buffer.concat([firstReport('r-0'), malformedTunnel]));
    expect((await allowed.ended).code).to.equal(status.INVALID_ARGUMENT);
  });

  it('reports violations of the contract as without policies', async () => {
    await serve([RULE]);
    const stream = fixture.open();
    stream.send({ nonce: 1 });
    expect((await stream.next()).error_detail?.message).to.match(/^node: required/);
    expect((await stream.ended).code).to.equal(status.OK);
    const invalid = fixture.open();
    invalid.sendBytes(firstReport('r-\n'));
    expect((await invalid.next()).error_detail?.message).to.match(/^node\.id: /);
  });

  it('counts and logs a denied tunnel, and ACKs the report', async () => {
    await serve([RULE]);
    const stream = fixture.open();
    const theirs = { ...tunnel('theirs'), identity: { ...tunnel('x').identity, tenant_id: 'globex' } };
    stream.sendBytes(firstReport('r-0', { full_push: true, added_tunnels: [tunnel('mine'), theirs] }));
    expect((await stream.next()).error_detail ?? undefined).to.equal(undefined);
    expect(fixture.applied[0]?.report.added.map(({ name }) => name)).to.deep.equal(['mine', 'theirs']);
    expect(await fixture.count('tunnelRejections', 'policy')).to.equal(1);
    const line = fixture.logged.find(({ msg }) => msg.startsWith('rejected invalid tunnels'));
    expect(JSON.stringify(line)).to.include('tunnel \\"theirs\\": tenant \\"globex\\"');
  });

  it('logs denied tunnels once per reporter and minute, with the number of suppressed lines', async () => {
    const clock = new FakeClock();
    await serve([RULE], 'skip', clock);
    const theirs = { ...tunnel('theirs'), identity: { ...tunnel('x').identity, tenant_id: 'globex' } };
    const report = { full_push: true, added_tunnels: [theirs] };
    const lines = (): unknown[] =>
      fixture.logged
        .filter(({ msg }) => msg.startsWith('rejected invalid tunnels'))
        .map(({ reporter, suppressed = 0 }) => [(reporter as { id: string }).id, suppressed]);
    const [first, second] = [fixture.open(), fixture.open()];
    first.sendBytes(firstReport('r-1', report));
    await first.next();
    for (let nonce = 2; nonce <= 100; nonce += 1) {
      first.send({ ...report, nonce });
      await first.next();
    }
    second.sendBytes(firstReport('r-2', report));
    await second.next();
    expect(lines()).to.deep.equal([
      ['r-1', 0],
      ['r-2', 0],
    ]);
    expect(await fixture.count('tunnelRejections', 'policy')).to.equal(101);
    const last = fixture.open();
    clock.advance(60_000);
    last.sendBytes(firstReport('r-1', report));
    await last.next();
    expect(lines().slice(2)).to.deep.equal([['r-1', 99]]);
  });

  it('logs repeated NACKs of a reporter once per minute', async () => {
    const clock = new FakeClock();
    await serve([RULE], 'nack', clock);
    const theirs = { ...tunnel('theirs'), identity: { ...tunnel('x').identity, tenant_id: 'globex' } };
    for (let times = 0; times < 20; times += 1) {
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-1', { full_push: true, added_tunnels: [theirs] }));
      await stream.ended;
    }
    expect(await fixture.count('nacks', 'policy')).to.equal(20);
    expect(fixture.logged.map(({ msg }) => msg)).to.deep.equal(['report rejected; closing the stream']);
  });

  it('rejects a report with a denied tunnel if onInvalid is nack', async () => {
    await serve([RULE], 'nack');
    const stream = fixture.open();
    const theirs = { ...tunnel('theirs'), identity: { ...tunnel('x').identity, tenant_id: 'globex' } };
    stream.sendBytes(firstReport('r-0', { full_push: true, added_tunnels: [tunnel('mine'), theirs] }));
    expect((await stream.next()).error_detail?.message).to.match(/^tunnel "theirs": tenant "globex"/);
    expect((await stream.ended).code).to.equal(status.OK);
    expect(fixture.applied).to.deep.equal([]);
    expect(await fixture.count('nacks', 'policy')).to.equal(1);
  });

  it('closes exactly the streams that changed policies no longer allow', async () => {
    await serve(undefined);
    const [kept, denied, unidentified] = [fixture.open(), fixture.open(), fixture.open()];
    kept.sendBytes(firstReport('r-0'));
    denied.sendBytes(firstReport('denied'));
    await Promise.all([kept.next(), denied.next()]);
    applyPolicies([RULE]);
    fixture.server.reauthorize();
    const { code, details } = await denied.ended;
    expect(code).to.equal(status.PERMISSION_DENIED);
    expect(details).to.match(/^node\.id: "denied"/);
    kept.send({ nonce: 2 });
    await kept.next();
    applyPolicies([OTHERS]);
    fixture.server.reauthorize();
    expect((await kept.ended).code).to.equal(status.PERMISSION_DENIED);
    expect((await unidentified.ended).code).to.equal(status.PERMISSION_DENIED);
    await eventually('both are disconnected', () => fixture.connectionEvents.length === 4);
    expect(fixture.connectionEvents).to.have.members([
      'r-0 connected',
      'denied connected',
      'denied disconnected',
      'r-0 disconnected',
    ]);
    // Grants change in later ticks.
    await eventually(
      'nothing is granted',
      () => grants.grantFor(reporterKey({ cluster: 'edge', id: 'r-0' })) === DENY_ALL,
    );
  });

  it('reauthorizes identified streams first, however many others are open', async () => {
    await serve(undefined);
    for (const id of ['r-0', 'r-1']) {
      const open = fixture.connection();
      // Streams of one connection are opened in this order.
      for (let count = 0; count < 150; count += 1) open();
      const identified = open();
      identified.sendBytes(firstReport(id));
      await identified.next();
    }
    applyPolicies([OTHERS]);
    fixture.server.reauthorize();
    // Within this tick of the event loop.
    expect(fixture.connectionEvents.slice(2)).to.have.members(['r-0 disconnected', 'r-1 disconnected']);
  });

  it('limits the rate of reports without losing any', async () => {
    await serve([{ ...RULE, limits: { reportsPerSecond: 20, reportsBurst: 5 } }]);
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    const startMs = performance.now();
    for (let nonce = 2; nonce <= 25; nonce += 1) stream.send({ nonce });
    for (let nonce = 2; nonce <= 25; nonce += 1) {
      expect(await stream.next()).to.deep.include({ request_nonce: String(nonce) });
    }
    // 25 reports: five at once, the others 50 ms apart; a timer may fire a millisecond early.
    expect(performance.now() - startMs).to.be.greaterThan(20 * 50 - 25 - 20);
    expect(fixture.applied).to.have.length(25);
  });

  /** Five at once, then one per 50 ms. */
  const LIMITED: RuleSpec = { ...RULE, limits: { reportsPerSecond: 20, reportsBurst: 5 } };
  const maxReadSince = (startMs: number): number => 5 + (20 * (performance.now() - startMs)) / 1000 + 1;

  it('limits the rate of reports that arrive on a new stream each', async () => {
    await serve([LIMITED]);
    const startMs = performance.now();
    for (let count = 1; count <= 15; count += 1) {
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0'));
      await stream.next();
      expect(fixture.applied).to.have.length(count);
      expect(count).to.be.at.most(maxReadSince(startMs));
      stream.end();
    }
  });

  it('limits the rate of reports on streams that are opened all at once', async () => {
    await serve([LIMITED]);
    const startMs = performance.now();
    const streams = Array.from({ length: 15 }, () => fixture.open());
    for (const stream of streams) stream.sendBytes(firstReport('r-0'));
    const outcomes = streams.map(async (stream) => await Promise.race([stream.next(), stream.ended]));
    for (const outcome of outcomes) {
      await outcome;
      expect(fixture.applied.length).to.be.at.most(maxReadSince(startMs));
    }
    expect(fixture.applied.length).to.be.at.least(5);
  });

  it('cancels the wait for the rate when the stream is closed', async () => {
    const clock = new FakeClock();
    await serve([{ ...RULE, limits: { reportsPerSecond: 1, reportsBurst: 1 } }], 'skip', clock);
    const first = fixture.open();
    first.sendBytes(firstReport('r-0'));
    await first.next();
    const second = fixture.open();
    second.sendBytes(firstReport('r-0'));
    await eventually(
      'the second waits',
      () => clock.pendingTimersMs.filter((ms) => ms === 1000).length === 2,
    );
    second.cancel();
    await eventually(
      'the second no longer waits',
      () => clock.pendingTimersMs.filter((ms) => ms === 1000).length === 1,
    );
    expect(fixture.applied).to.have.length(1);
  });
});
