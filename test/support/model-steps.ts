/** Random steps of reporters, the network and the operator, for the model and the server. */
import * as fc from 'fast-check';
import { anyContent, anyReporter, fullPushOfValidTunnels, invalidReporter } from './model-reports.ts';
import type { RequestFields } from './wire.ts';

/** The node of the first report of a stream. */
export type ReporterNode = { readonly cluster: string; readonly id: string };

/** A report, and how its node and nonce are set. */
export interface ReportSpec {
  readonly content: RequestFields;
  readonly node: 'there' | 'left out' | ReporterNode;
  readonly nonce: 'next' | 'same' | '0' | '-1' | '-9223372036854775808' | '9223372036854775807';
}

/** An external event for the operator. */
export type Step =
  /** Opens a stream of a reporter; an existing stream in that place is cancelled. */
  | {
      readonly do: 'open';
      readonly place: number;
      readonly reporter: ReporterNode;
      readonly ownConnection: boolean;
    }
  /** Sends reports without waiting for their responses; opens a stream if there is none. */
  | {
      readonly do: 'report';
      readonly place: number;
      readonly reporter: ReporterNode;
      readonly burst: readonly ReportSpec[];
    }
  | { readonly do: 'cancel' | 'half-close' | 'malformed'; readonly place: number }
  /** Sends reports while the same reporter reconnects on another stream with a full push. */
  | {
      readonly do: 'overtake';
      readonly place: number;
      readonly burst: readonly ReportSpec[];
      readonly by: RequestFields;
    }
  /** Waits until everything is idle and compares the objects. */
  | { readonly do: 'settle' }
  /** Restarts the operator, which lists the objects only at the next `settle`. */
  | { readonly do: 'restart' };

/** The maximum number of concurrent streams. */
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
    { weight: 1, arbitrary: fc.constantFrom('-1' as const, '-9223372036854775808' as const) },
  ),
});
const burst = fc.array(reportSpec, { minLength: 1, maxLength: 4 });
/** Weighted so that a sequence consists mostly of reports. */
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
