import { expect } from 'chai';
import * as fc from 'fast-check';
import type { ReportMessage, ReportedTunnel, StreamHandlers } from '../../src/grpc/report-message.ts';
import { createFleetReporter } from '../../src/simulate/reporter.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { applyReport } from '../support/apply-reports.ts';

const INTERVAL_MS = 1000;
const NODES = ['a', 'b', 'c', '__proto__'];

type Response = 'ack' | 'none' | 'nack';
type Action =
  | { readonly type: 'connect' | 'disconnect' | 'flap'; readonly nodeID: string; readonly tenantID: string }
  | { readonly type: 'wait'; readonly ms: number }
  | { readonly type: 'respond'; readonly response: Response }
  | { readonly type: 'end'; readonly code: number };

const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constantFrom('connect' as const, 'disconnect' as const, 'flap' as const),
      nodeID: fc.constantFrom(...NODES),
      tenantID: fc.constantFrom('acme', 'globex'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ type: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 2500 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('respond' as const),
      response: fc.constantFrom<Response[]>('ack', 'none', 'nack'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('end' as const), code: fc.constantFrom(0, 14) }) },
);

/** Creates a reporter, and a server that applies each report and compares the result with the reporter's tunnels. */
function createHarness() {
  const clock = new FakeClock();
  const held = new Map<string, ReportedTunnel>();
  const counts = { reports: 0, inBothLists: 0 };
  let response: Response = 'ack';
  let open: StreamHandlers | undefined;
  const reporter = createFleetReporter(
    {
      node: { cluster: 'edge', id: 'responder-0' },
      sendIntervalMs: INTERVAL_MS,
      connectRetryIntervalMs: INTERVAL_MS,
      maxRetries: 2,
      maxBufferCount: 1000,
      nodeOnFirstOnly: false,
    },
    {
      clock,
      nowMicros: () => (clock.wallMs() + counts.reports) * 1000,
      observe() {},
      transport: () => ({
        openStream(handlers) {
          open = handlers;
          return {
            send(report: ReportMessage) {
              applyReport(held, report);
              counts.reports += 1;
              if (report.added.some(({ name }) => report.removedNames.includes(name)))
                counts.inBothLists += 1;
              // A stream has no gaps after its full push, so the two are equal after every report.
              expect(held).to.deep.equal(new Map(reporter.expectedTunnels()));
              const error = response === 'nack' ? { code: 3, message: 'rejected' } : undefined;
              if (response === 'ack' || response === 'nack') {
                handlers.onResponse({ requestNonce: report.nonce, reportIntervalMs: undefined, error });
              }
            },
            reset() {},
          };
        },
        reset: () => {},
        halfOpen: () => {},
        release: () => {},
        close: async () => {},
      }),
    },
  );
  return {
    reporter,
    held,
    counts,
    perform: (next: Action): void => {
      switch (next.type) {
        case 'connect':
          return reporter.connectTunnel({ tenantID: next.tenantID, clusterID: 'eu-1', nodeID: next.nodeID });
        case 'disconnect':
          return void reporter.disconnectTunnel(next.nodeID);
        case 'flap':
          return void reporter.flap(next.nodeID);
        case 'wait':
          return clock.advance(next.ms);
        case 'respond':
          response = next.response;
          return undefined;
        case 'end':
          return open?.onEnd({ code: next.code, message: '' });
      }
    },
  };
}

describe('reports of a simulated reporter', () => {
  it('always add up to the tunnels of the reporter, with flaps, missing ACKs, NACKs and reconnects', () => {
    const total = { reports: 0, inBothLists: 0 };
    fc.assert(
      fc.property(fc.array(action, { maxLength: 80, size: 'max' }), (actions) => {
        const { reporter, held, counts, perform } = createHarness();
        reporter.start();
        for (const next of actions) perform(next);
        perform({ type: 'respond', response: 'ack' });
        for (let i = 0; i < 20 && !reporter.settled(); i += 1) perform({ type: 'wait', ms: INTERVAL_MS });
        expect(reporter.settled()).to.equal(true);
        expect(held).to.deep.equal(new Map(reporter.expectedTunnels()));
        total.reports += counts.reports;
        total.inBothLists += counts.inBothLists;
      }),
      { numRuns: 500 },
    );
    // The property also holds for a reporter that never reports, so reports and names in both lists are required.
    expect(total.reports).to.be.greaterThan(5000);
    expect(total.inBothLists).to.be.greaterThan(100);
  });
});
