import { expect } from 'chai';
import { OMITTED_CREATED_AT } from '../../src/core/tunnel-object.ts';
import type { Report } from '../../src/core/report.ts';
import type { Tunnel } from '../../src/core/tunnel.ts';
import { createHarness, type ControllerHarness } from '../support/controller-harness.ts';
import { MemoryTunnelApi } from '../support/memory-api.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const NOW_MS = Date.UTC(2026, 10, 28, 12);
const HOUR_MS = 3_600_000;

function tunnelCreatedAt(createdMs: number): Tunnel {
  return tunnel('node-1', { createdAt: new Date(createdMs).toISOString() });
}

/** A replica that lists what is stored, and an API server whose clock stands still at `serverMs`. */
async function startReplica(serverMs: number | undefined, api = new MemoryTunnelApi()) {
  const harness = createHarness({ api, serverClock: { nowMs: () => serverMs, maxAheadMs: () => 0 } });
  await harness.start();
  return harness;
}

async function report(harness: ControllerHarness, given: Report): Promise<string[]> {
  harness.api.calls.splice(0);
  harness.report(RESPONDER, given);
  await harness.settle();
  return harness.api.calls.map(({ verb }) => verb);
}

/** Returns what the object shows: createdAt, and the omitted value. */
function shown(harness: ControllerHarness): [string | undefined, string | undefined] {
  const { spec, metadata } = harness.object(RESPONDER, tunnel('node-1')) ?? {};
  return [spec?.createdAt, metadata?.annotations?.[OMITTED_CREATED_AT]];
}

async function omittedCount({ metrics }: ControllerHarness): Promise<number> {
  return (await metrics.createdAtOmitted.get()).values[0]?.value ?? 0;
}

describe('a created_at', () => {
  for (const { what, createdMs, isOmitted } of [
    { what: 'in 2262', createdMs: Date.UTC(2262, 3, 11), isOmitted: true },
    { what: 'one hour ahead', createdMs: NOW_MS + HOUR_MS, isOmitted: true },
    { what: '2 s ahead', createdMs: NOW_MS + 2000, isOmitted: true },
    { what: '1001 ms ahead', createdMs: NOW_MS + 1001, isOmitted: true },
    { what: '1 s ahead', createdMs: NOW_MS + 1000, isOmitted: false },
    { what: 'equal to the time of the API server', createdMs: NOW_MS, isOmitted: false },
    { what: 'in 1970', createdMs: 0, isOmitted: false },
  ]) {
    it(`${what} is ${isOmitted ? 'omitted, counted and logged' : 'kept'}, with one write each time`, async () => {
      const harness = await startReplica(NOW_MS);
      const reported = tunnelCreatedAt(createdMs);
      const expected = isOmitted ? [undefined, reported.createdAt] : [reported.createdAt, undefined];
      expect(await report(harness, fullPush(reported))).to.deep.equal(['create']);
      expect(shown(harness)).to.deep.equal(expected);
      expect(await report(harness, delta([tunnelCreatedAt(NOW_MS - 5)], ['node-1']))).to.deep.equal([
        'patch',
      ]);
      expect(shown(harness)).to.deep.equal([tunnelCreatedAt(NOW_MS - 5).createdAt, undefined]);
      expect(await report(harness, delta([reported], ['node-1']))).to.deep.equal(['patch']);
      expect(shown(harness)).to.deep.equal(expected);
      expect(await omittedCount(harness)).to.equal(isOmitted ? 2 : 0);
      const lines = harness.logged.filter(
        ({ msg }) => msg === 'omitted a creation time that is in the future',
      );
      expect(lines.map(({ tunnel: name, createdAt }) => [name, createdAt])).to.deep.equal(
        isOmitted ? [['node-1', reported.createdAt]] : [],
      );
    });

    it(`${what} is not decided again by a replica whose clock is two hours ahead or behind`, async () => {
      const reported = tunnelCreatedAt(createdMs);
      const first = await startReplica(NOW_MS);
      await report(first, fullPush(reported));
      const before = shown(first);
      for (const serverMs of [NOW_MS - 2 * HOUR_MS, NOW_MS + 2 * HOUR_MS, undefined]) {
        const next = await startReplica(serverMs, first.api);
        expect(await report(next, fullPush({ ...reported }))).to.deep.equal([]);
        expect(await report(next, delta([{ ...reported }]))).to.deep.equal([]);
        expect(shown(next)).to.deep.equal(before);
      }
    });
  }

  it('is kept if no response of the API server had a date', async () => {
    const harness = await startReplica(undefined);
    const reported = tunnelCreatedAt(NOW_MS + HOUR_MS);
    await report(harness, fullPush(reported));
    expect(shown(harness)).to.deep.equal([reported.createdAt, undefined]);
  });

  // Suspended for an hour or set forward by an hour: the wall clock has gained as much since the last response.
  for (const { event, aheadMs, isOmitted, waits } of [
    { event: 'whose clock was set forward', aheadMs: 1000, isOmitted: false, waits: false },
    { event: 'whose clock was set forward', aheadMs: 1001, isOmitted: true, waits: true },
    { event: 'whose clock was set forward', aheadMs: HOUR_MS + 1000, isOmitted: true, waits: true },
    { event: 'whose clock was set forward', aheadMs: HOUR_MS + 1001, isOmitted: true, waits: false },
    { event: 'that was suspended', aheadMs: 1000, isOmitted: false, waits: false },
    { event: 'that was suspended', aheadMs: 1001, isOmitted: false, waits: true },
    { event: 'that was suspended', aheadMs: HOUR_MS + 1000, isOmitted: false, waits: true },
    { event: 'that was suspended', aheadMs: HOUR_MS + 1001, isOmitted: true, waits: false },
  ]) {
    const decision = isOmitted ? 'omitted' : 'kept';
    const when = waits ? 'after the next response' : 'at once';
    it(`${aheadMs} ms after the last response is ${decision} ${when} on a machine ${event}`, async () => {
      let current = { nowMs: NOW_MS + HOUR_MS, maxAheadMs: HOUR_MS };
      const serverClock = { nowMs: () => current.nowMs, maxAheadMs: () => current.maxAheadMs };
      const harness = createHarness({ serverClock });
      await harness.start();
      const reported = tunnelCreatedAt(NOW_MS + aheadMs);
      const expected = isOmitted ? [undefined, reported.createdAt] : [reported.createdAt, undefined];
      expect(await report(harness, fullPush(reported))).to.deep.equal(waits ? [] : ['create']);
      current = { nowMs: NOW_MS + (event === 'that was suspended' ? HOUR_MS : 0), maxAheadMs: 0 };
      await harness.advance(500);
      expect(shown(harness)).to.deep.equal(expected);
      expect(harness.api.calls.map(({ verb }) => verb)).to.deep.equal(['create']);
    });
  }

  it('is decided after 10 s if no response has a date any longer after the wall clock has gained an hour', async () => {
    const serverClock = { nowMs: () => NOW_MS + HOUR_MS, maxAheadMs: () => HOUR_MS };
    const harness = createHarness({ serverClock });
    await harness.start();
    const reported = tunnelCreatedAt(NOW_MS + HOUR_MS);
    await report(harness, fullPush(reported));
    await harness.advance(9999);
    expect(shown(harness)).to.deep.equal([undefined, undefined]);
    await harness.advance(1);
    expect(shown(harness)).to.deep.equal([reported.createdAt, undefined]);
  });

  it('that was omitted is removed from the object if it is no longer reported', async () => {
    const harness = await startReplica(NOW_MS);
    await report(harness, fullPush(tunnelCreatedAt(NOW_MS + HOUR_MS)));
    const without = tunnel('node-1', { createdAt: undefined });
    expect(await report(harness, delta([without], ['node-1']))).to.deep.equal(['patch']);
    expect(shown(harness)).to.deep.equal([undefined, undefined]);
  });

  for (const [what, edit] of [
    ['removes the annotation', { omittedCreatedAt: null }],
    ['changes the annotation', { omittedCreatedAt: 'never' }],
    [
      'sets createdAt to the omitted value as well',
      { createdAt: tunnelCreatedAt(NOW_MS + HOUR_MS).createdAt ?? '' },
    ],
    ['sets createdAt to another value', { createdAt: '2020-01-01T00:00:00Z' }],
  ] as const) {
    it(`that was omitted is omitted again, with one write, if a user ${what}`, async () => {
      const harness = await startReplica(NOW_MS);
      await report(harness, fullPush(tunnelCreatedAt(NOW_MS + HOUR_MS)));
      const before = shown(harness);
      harness.api.calls.splice(0);
      const [name = ''] = harness.api.stored.keys();
      harness.api.editManually(name, edit);
      expect(shown(harness)).not.to.deep.equal(before);
      await harness.settle();
      expect(shown(harness)).to.deep.equal(before);
      expect(harness.api.calls.map(({ verb }) => verb)).to.deep.equal(['patch']);
    });
  }
});

describe('a mutating webhook', () => {
  const reported = tunnelCreatedAt(NOW_MS + HOUR_MS);

  for (const { what, annotations, createdMs } of [
    { what: 'removes', annotations: undefined, createdMs: NOW_MS + HOUR_MS },
    { what: 'rewrites', annotations: { [OMITTED_CREATED_AT]: 'never' }, createdMs: NOW_MS + HOUR_MS },
    { what: 'adds', annotations: { [OMITTED_CREATED_AT]: 'never' }, createdMs: NOW_MS },
  ]) {
    it(`that ${what} the annotation of an omitted createdAt causes one more write, not one after the other`, async () => {
      const api = new MemoryTunnelApi();
      api.admit = (object) => {
        const { annotations: _, ...metadata } = object.metadata;
        return {
          ...object,
          metadata: { ...metadata, ...(annotations === undefined ? {} : { annotations }) },
        };
      };
      const harness = await startReplica(NOW_MS, api);
      await report(harness, fullPush({ ...reported, createdAt: tunnelCreatedAt(createdMs).createdAt }));
      await harness.advance(240_000);
      expect(api.writes).to.be.within(1, 2);
    });
  }
});

describe('reverse_tunnel_up_to_object_seconds', () => {
  /** Returns count and sum. */
  async function observed({ metrics }: ControllerHarness): Promise<[number, number]> {
    const { values } = await metrics.upToObjectSeconds.get();
    const value = (suffix: string): number =>
      values.find(({ metricName }) => metricName?.endsWith(suffix) === true)?.value ?? 0;
    return [value('_count'), value('_sum')];
  }

  for (const { what, agoMs, seconds } of [
    { what: 'a tunnel that came up 2 s ago', agoMs: 2000, seconds: 2 },
    { what: 'a tunnel that came up 15 s ago', agoMs: 15_000, seconds: 15 },
    { what: 'a tunnel that came up before the heartbeat timeout', agoMs: 15_001, seconds: undefined },
    { what: 'a clock that is an hour behind', agoMs: HOUR_MS, seconds: undefined },
    { what: 'a clock that is 0.5 s ahead', agoMs: -500, seconds: undefined },
    { what: 'a clock that is an hour ahead', agoMs: -HOUR_MS, seconds: undefined },
  ]) {
    it(`${seconds === undefined ? 'ignores' : 'contains'} ${what}, whether it is new or reconnects`, async () => {
      const harness = await startReplica(undefined);
      const reported = tunnelCreatedAt(harness.clock.wallMs() - agoMs);
      await report(harness, fullPush(reported));
      expect(await observed(harness)).to.deep.equal(seconds === undefined ? [0, 0] : [1, seconds]);
      await report(harness, delta([tunnel('node-1', { createdAt: undefined })], ['node-1']));
      await report(harness, delta([reported], ['node-1']));
      expect(await observed(harness)).to.deep.equal(seconds === undefined ? [0, 0] : [2, 2 * seconds]);
    });
  }

  it('contains the time that writing took, however long it was', async () => {
    const harness = await startReplica(undefined);
    harness.api.failNext(Object.assign(new Error('busy'), { kind: 'unavailable', status: 503 }) as never, 5);
    harness.report(RESPONDER, fullPush(tunnelCreatedAt(harness.clock.wallMs() - 1000)));
    await harness.advance(120_000);
    const [count, sum] = await observed(harness);
    expect(count).to.equal(1);
    expect(sum).to.be.within(2, 121);
  });

  it('ignores a label that is repaired', async () => {
    const harness = await startReplica(undefined);
    await report(harness, fullPush(tunnelCreatedAt(harness.clock.wallMs())));
    const [name = ''] = harness.api.stored.keys();
    harness.api.editManually(name, { labels: { 'reverse-tunnel.io/tenant': 'other' } });
    await harness.settle();
    expect(await observed(harness)).to.deep.equal([1, 0]);
  });
});
