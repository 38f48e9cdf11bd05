import { expect } from 'chai';
import * as fc from 'fast-check';
import { decodeReport, type DecodedReport } from '../../src/grpc/decode.ts';
import { createHarness } from '../support/controller-harness.ts';
import { TunnelSockets } from '../support/model-sockets.ts';
import { assertHolds } from '../support/property-runs.ts';
import { RESPONDER } from '../support/sample-tunnels.ts';
import { requestBytes } from '../support/wire.ts';

type Event =
  | { readonly do: 'connect'; readonly name: string }
  | { readonly do: 'goAway' | 'close'; readonly index: number }
  | { readonly do: 'report' | 'reconnect' }
  /** Compares the objects with the tunnels that are up. */
  | { readonly do: 'settle' };

const event: fc.Arbitrary<Event> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('connect' as const), name: fc.constantFrom('node-1', 'node-2') }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constantFrom('goAway' as const, 'close' as const), index: fc.nat(3) }),
  },
  { weight: 4, arbitrary: fc.constant<Event>({ do: 'report' }) },
  { weight: 1, arbitrary: fc.constant<Event>({ do: 'reconnect' }) },
  { weight: 1, arbitrary: fc.constant<Event>({ do: 'settle' }) },
);

/** Reports in which the difference matters. */
const covered = { removedAndAdded: 0, goAways: 0, checks: 0 };

function decode(bytes: Buffer): DecodedReport {
  const work = decodeReport(bytes);
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}

async function run(events: readonly Event[]): Promise<void> {
  const sockets = new TunnelSockets();
  const harness = createHarness();
  await harness.start();

  function report(fullPush: boolean): void {
    const {
      added_tunnels: added = [],
      removed_tunnel_names: removed = [],
      ...rest
    } = sockets.report(fullPush);
    if (added.some(({ name = '' }) => removed.includes(name))) covered.removedAndAdded += 1;
    harness.report(
      RESPONDER,
      decode(requestBytes({ ...rest, added_tunnels: added, removed_tunnel_names: removed })),
    );
  }

  async function check(): Promise<void> {
    report(false);
    await harness.settle();
    const objects = [...harness.api.stored.values()].map(
      ({ spec }) => `${spec.tunnelName} ${spec.createdAt ?? ''}`,
    );
    const expected = sockets.tunnels.map(
      ({ name, seconds }) => `${name} ${new Date(seconds * 1000).toISOString().replace('.000', '')}`,
    );
    expect(objects.toSorted()).to.deep.equal(expected.toSorted());
    covered.checks += 1;
  }

  report(true);
  for (const next of events) {
    if (next.do === 'connect') sockets.connect(next.name);
    else if (next.do === 'goAway') {
      sockets.goAway(next.index);
      covered.goAways += 1;
    } else if (next.do === 'close') sockets.close(next.index);
    else if (next.do === 'settle') await check();
    else report(next.do === 'reconnect');
  }
  await check();
  harness.workers.stop();
}

describe('the objects of tunnels whose sockets are counted as Envoy counts them', () => {
  it('are those of the sockets that are up, after any sequence of connects, GOAWAYs and ends', async function () {
    this.timeout(120_000);
    const property = fc.asyncProperty(fc.array(event, { maxLength: 30, size: 'max' }), run);
    const runs = await assertHolds(property, { runs: 100, file: 'test/unit/tunnel-sockets.test.ts' });
    for (const [what, times] of Object.entries(covered))
      expect(times, what).to.be.at.least(Math.floor(runs / 20));
  });

  for (const { what, events, names } of [
    {
      what: 'a GOAWAY removes the tunnel, and the end of its socket in a later report changes nothing',
      events: [
        { do: 'connect', name: 'node-1' },
        { do: 'report' },
        { do: 'goAway', index: 0 },
        { do: 'report' },
        { do: 'close', index: 0 },
      ],
      names: [],
    },
    {
      what: 'a tunnel that reconnects after a GOAWAY stays up when the old socket ends',
      events: [
        { do: 'connect', name: 'node-1' },
        { do: 'report' },
        { do: 'goAway', index: 0 },
        { do: 'connect', name: 'node-1' },
        { do: 'report' },
        { do: 'close', index: 0 },
      ],
      names: ['node-1'],
    },
    {
      what: 'a GOAWAY of one of two sockets of a tunnel removes nothing',
      events: [
        { do: 'connect', name: 'node-1' },
        { do: 'connect', name: 'node-1' },
        { do: 'report' },
        { do: 'goAway', index: 1 },
      ],
      names: ['node-1'],
    },
  ] as const) {
    it(what, async () => {
      const sockets = new TunnelSockets();
      for (const next of events) {
        if (next.do === 'connect') sockets.connect(next.name);
        else if (next.do !== 'report') sockets[next.do](next.index);
      }
      expect(sockets.tunnels.map(({ name }) => name)).to.deep.equal(names);
      await run(events);
    });
  }
});
