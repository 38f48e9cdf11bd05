import { expect } from 'chai';
import * as fc from 'fast-check';
import type { ReportMessage, ReportedTunnel, StreamHandlers } from '../../src/grpc/report-message.ts';
import { createFleetReporter } from '../../src/simulate/reporter.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { applyReport } from '../support/apply-reports.ts';

const INTERVAL_MS = 1000;
const NODES = ['a', 'b', 'c', '__proto__'];

type Answer = 'ack' | 'nothing' | 'nack';
type Step =
  | { readonly do: 'connect' | 'disconnect' | 'flap'; readonly nodeID: string; readonly tenantID: string }
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'answer'; readonly how: Answer }
  | { readonly do: 'end'; readonly code: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom('connect' as const, 'disconnect' as const, 'flap' as const),
      nodeID: fc.constantFrom(...NODES),
      tenantID: fc.constantFrom('acme', 'globex'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 2500 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('answer' as const),
      how: fc.constantFrom<Answer[]>('ack', 'nothing', 'nack'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('end' as const), code: fc.constantFrom(0, 14) }) },
);

/** A reporter and a server that folds each report as it is sent, and checks what it then holds. */
function world() {
  const clock = new FakeClock();
  const held = new Map<string, ReportedTunnel>();
  const seen = { reports: 0, inBothLists: 0 };
  let how: Answer = 'ack';
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
      nowMicros: () => (clock.wallMs() + seen.reports) * 1000,
      observe() {},
      transport: () => ({
        openStream(handlers) {
          open = handlers;
          return {
            send(report: ReportMessage) {
              applyReport(held, report);
              seen.reports += 1;
              if (report.added.some(({ name }) => report.removedNames.includes(name))) seen.inBothLists += 1;
              // A stream is gapless from its full push on, so after every report the server holds the truth.
              expect(held).to.deep.equal(new Map(reporter.expectedTunnels()));
              const error = how === 'nack' ? { code: 3, message: 'refused' } : undefined;
              if (how === 'ack' || how === 'nack') {
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
    seen,
    take: (next: Step): void => {
      switch (next.do) {
        case 'connect':
          return reporter.connectTunnel({ tenantID: next.tenantID, clusterID: 'eu-1', nodeID: next.nodeID });
        case 'disconnect':
          return void reporter.disconnectTunnel(next.nodeID);
        case 'flap':
          return void reporter.flap(next.nodeID);
        case 'wait':
          return clock.advance(next.ms);
        case 'answer':
          how = next.how;
          return undefined;
        case 'end':
          return open?.onEnd({ code: next.code, message: '' });
      }
    },
  };
}

describe('what a simulated reporter sends', () => {
  it('always folds to what it holds, through flaps, silence, NACKs and reconnects', () => {
    const total = { reports: 0, inBothLists: 0 };
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80, size: 'max' }), (steps) => {
        const { reporter, held, seen, take } = world();
        reporter.start();
        for (const next of steps) take(next);
        take({ do: 'answer', how: 'ack' });
        for (let i = 0; i < 20 && !reporter.settled(); i += 1) take({ do: 'wait', ms: INTERVAL_MS });
        expect(reporter.settled()).to.equal(true);
        expect(held).to.deep.equal(new Map(reporter.expectedTunnels()));
        total.reports += seen.reports;
        total.inBothLists += seen.inBothLists;
      }),
      { numRuns: 500 },
    );
    // The property would hold for a reporter that never reports; this one did, and with names in both lists.
    expect(total.reports).to.be.greaterThan(5000);
    expect(total.inBothLists).to.be.greaterThan(100);
  });
});
