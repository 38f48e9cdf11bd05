/**
 * The one text that this project writes for a tunnel's `created_at`.
 *
 * The API server stores `format: date-time` exactly as sent and compares it as text, so equal instants must have equal
 * texts; and it refuses years outside 0000 to 9999, so an instant it would refuse is left out instead.
 */

/** 0001-01-01T00:00:00Z, the least instant of google.protobuf.Timestamp, in seconds since 1970. */
const MIN_SECONDS = -62_135_596_800;
/** 9999-12-31T23:59:59Z, the greatest. */
const MAX_SECONDS = 253_402_300_799;

/**
 * RFC 3339 in UTC with 0, 3, 6 or 9 fraction digits, the fewest that hold `nanos` (as protobuf's JSON mapping does).
 *
 * @param seconds since 1970, whole; may be negative
 * @param nanos 0 to 999,999,999, counting forward from `seconds`
 * @returns undefined when either is out of the range of google.protobuf.Timestamp
 */
export function formatCreatedAt(seconds: number, nanos: number): string | undefined {
  if (!(seconds >= MIN_SECONDS && seconds <= MAX_SECONDS && nanos >= 0 && nanos <= 999_999_999)) {
    return undefined;
  }
  // oxlint-disable-next-line no-restricted-globals -- of an instant that is given; it reads no clock
  const wholeSeconds = new Date(seconds * 1000).toISOString().slice(0, 19);
  return `${wholeSeconds}${formatFraction(nanos)}Z`;
}

function formatFraction(nanos: number): string {
  if (nanos === 0) return '';
  const nineDigits = String(nanos).padStart(9, '0');
  if (nanos % 1_000_000 === 0) return `.${nineDigits.slice(0, 3)}`;
  if (nanos % 1000 === 0) return `.${nineDigits.slice(0, 6)}`;
  return `.${nineDigits}`;
}
