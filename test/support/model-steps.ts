/** What reporters, the network and the operator itself may do, as sequences of steps for the model and the server. */
import * as fc from 'fast-check';
import { anyContent, anyReporter, fullPushOfValidTunnels, invalidReporter } from './model-reports.ts';
import type { RequestFields } from './wire.ts';

/** Who a stream says that it is. */
export type ReporterNode = { readonly cluster: string; readonly id: string };

/** A report as a stream's reporter sends it. */
export interface ReportSpec {
  readonly content: RequestFields;
  readonly node: 'there' | 'left out' | ReporterNode;
  readonly nonce: 'next' | 'same' | '0' | '-1' | '9223372036854775807';
}

/** One thing that happens to the operator from outside. */
export type Step =
  /** A new stream for a reporter, in a place where another one may still be: that one is cancelled. */
  | {
      readonly do: 'open';
      readonly place: number;
      readonly reporter: ReporterNode;
      readonly ownConnection: boolean;
    }
  /** Reports sent without waiting for the answers in between; on a new stream where there is none. */
  | {
      readonly do: 'report';
      readonly place: number;
      readonly reporter: ReporterNode;
      readonly burst: readonly ReportSpec[];
    }
  | { readonly do: 'cancel' | 'half-close' | 'malformed'; readonly place: number }
  /** Reports are on their way while the same reporter comes back on another stream with a full push. */
  | {
      readonly do: 'overtake';
      readonly place: number;
      readonly burst: readonly ReportSpec[];
      readonly by: RequestFields;
    }
  /** Everything comes to rest; the rows must be right. */
  | { readonly do: 'settle' }
  /** The operator ends and starts; until the next rest it has not listed the rows. */
  | { readonly do: 'restart' };

/** Streams at a time, at most. */
export const MAX_STREAMS = 3;
const place = fc.nat({ max: MAX_STREAMS - 1 });
const reportSpec: fc.Arbitrary<ReportSpec> = fc.record({
  content: anyContent,
  node: fc.oneof(
    { weight: 20, arbitrary: fc.constant('there' as const) },
    { weight: 6, arbitrary: fc.constant('left out' as const) },
    { weight: 1, arbitrary: anyReporter },
    { weight: 1, arbitrary: invalidReporter },
  ),
  nonce: fc.oneof(
    { weight: 30, arbitrary: fc.constant('next' as const) },
    { weight: 4, arbitrary: fc.constantFrom('same' as const, '0' as const, '9223372036854775807' as const) },
    { weight: 1, arbitrary: fc.constant('-1' as const) },
  ),
});
const burst = fc.array(reportSpec, { minLength: 1, maxLength: 4 });
/** Weighted so that a sequence is mostly reports, and now and then all the rest. */
export const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('open' as const),
      place,
      reporter: anyReporter,
      ownConnection: fc.boolean(),
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({ do: fc.constant('report' as const), place, reporter: anyReporter, burst }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom('cancel' as const, 'half-close', 'malformed'), place }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('overtake' as const), place, burst, by: fullPushOfValidTunnels }),
  },
  { weight: 3, arbitrary: fc.constant<Step>({ do: 'settle' }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'restart' }) },
);
