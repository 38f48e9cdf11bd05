import { createContext, Script } from 'node:vm';
import { decodeReport, MalformedReportError, type DecodedReport } from '../../src/grpc/decode.ts';
import { caseRandom, mutatedReport, type Corpus } from './mutations.ts';

/** The cases of a seed from `from` (inclusive) to `to` (exclusive). */
export interface Cases {
  readonly seed: number;
  readonly from: number;
  readonly to: number;
}

/** Far longer than a batch takes: the large report takes 10 ms. */
const HANG_TIMEOUT_MS = 60_000;
const CREATED_AT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(?:\d{3}){1,3})?Z$/;
/** In code points; `core/report` defines these limits. */
const MAX_LENGTHS = { name: 512, tenantID: 128, clusterID: 257, nodeID: 257 } as const;
// oxlint-disable-next-line no-control-regex -- control characters must be rejected
const FORBIDDEN_CHARACTERS = /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/u;

/**
 * Decodes mutated reports: each must be either a report that follows the rules, or malformed.
 *
 * @returns the number of each
 * @throws CaseError for a case with another result, or without one
 */
export function decodeCases(corpus: Corpus, cases: Cases): { reports: number; malformed: number } {
  const counts = { reports: 0, malformed: 0 };
  let index = cases.from;
  const decodeAll = (): void => {
    for (; index < cases.to; index += 1) {
      counts[isReport(mutatedReport(corpus, caseRandom(cases.seed, index))) ? 'reports' : 'malformed'] += 1;
    }
  };
  try {
    // Only for the timeout, which interrupts even an endless loop.
    new Script('decodeAll()').runInContext(createContext({ decodeAll }), { timeout: HANG_TIMEOUT_MS });
  } catch (error) {
    throw new CaseError(cases.seed, index, error instanceof Error ? error.message : String(error));
  }
  return counts;
}

/** A case with an unexpected result. */
export class CaseError extends Error {
  override readonly name = 'CaseError';
  readonly seed: number;
  readonly index: number;

  constructor(seed: number, index: number, message: string) {
    super(message);
    this.seed = seed;
    this.index = index;
  }
}

/** Returns false for a malformed report. Throws if the decoder fails otherwise, or accepts a value that breaks a rule. */
function isReport(bytes: Buffer): boolean {
  let report: DecodedReport;
  try {
    report = decodeFully(bytes);
  } catch (error) {
    if (error instanceof MalformedReportError) return false;
    throw error;
  }
  for (const tunnel of report.added) {
    for (const [part, maxLength] of Object.entries(MAX_LENGTHS) as [keyof typeof MAX_LENGTHS, number][]) {
      checkText(part, tunnel[part], maxLength);
    }
    const { createdAt } = tunnel;
    if (createdAt !== undefined && !CREATED_AT.test(createdAt)) throw new Error(`accepted ${createdAt}`);
  }
  for (const name of report.removedNames) checkText('a removed name', name, MAX_LENGTHS.name);
  const { count, byReason } = report.rejected;
  const counted = byReason.values().reduce((sum, times) => sum + times, 0);
  if (counted !== count) throw new Error(`rejected ${count} parts, counted ${counted}`);
  return true;
}

function checkText(what: string, text: string, maxLength: number): void {
  const length = text.length > maxLength ? Array.from(text).length : text.length;
  if (text === '' || length > maxLength || !text.isWellFormed() || FORBIDDEN_CHARACTERS.test(text)) {
    throw new Error(`accepted ${what}: ${JSON.stringify(text)}`);
  }
}

function decodeFully(bytes: Buffer): DecodedReport {
  const work = decodeReport(bytes);
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}
