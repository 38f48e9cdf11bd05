import type { ReportResponse } from '../../src/grpc/messages.ts';

const MIN_INTERVAL_NANOS = 25_000_000;
const MAX_INTERVAL_SECONDS = 3600;

/**
 * Returns how a response violates the validation rules of the service definition; undefined if it does not. Envoy
 * validates each response and drops the connection otherwise.
 */
export function responseViolation(response: Partial<ReportResponse>): string | undefined {
  const { request_nonce: nonce = '0', report_interval: interval, error_detail: error } = response;
  if (BigInt(nonce) < 0n) return `request_nonce: ${nonce} is negative`;
  if (interval !== undefined && interval !== null) {
    const seconds = Number(interval.seconds ?? 0);
    const nanos = interval.nanos ?? 0;
    const isBelow = seconds < 0 || nanos < 0 || (seconds === 0 && nanos < MIN_INTERVAL_NANOS);
    const isAbove = seconds > MAX_INTERVAL_SECONDS || (seconds === MAX_INTERVAL_SECONDS && nanos > 0);
    if (isBelow || isAbove) return `report_interval: ${seconds} s ${nanos} ns is not 25 ms to 3600 s`;
    if (error !== undefined && error !== null) return 'report_interval: set in a NACK';
  }
  if (error !== undefined && error !== null && (error.code ?? 0) === 0) return 'error_detail.code: 0 is OK';
  return undefined;
}
