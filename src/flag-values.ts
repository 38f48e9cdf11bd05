/** The notations of values in flags and files, and the checks of these values. */
import { parseHostPort } from './host-port.ts';

/** Reads the text of a value. `expected` completes an error: "must be …". */
export interface ReadValue<T> {
  (text: string): { readonly value: T } | { readonly expected: string };
  /** The accepted values, for the schema of the chart; undefined if no schema describes them. */
  readonly range?: ValueRange;
}

/** The values that a setting accepts. Durations are in milliseconds, sizes in bytes; bounds are inclusive. */
export type ValueRange =
  | { readonly kind: 'boolean' }
  | { readonly kind: 'enum'; readonly values: readonly string[] }
  | { readonly kind: 'integer' | 'size'; readonly min: number; readonly max: number }
  /** A whole number of percent, from 0 to 100; `pattern` is that of its text. */
  | { readonly kind: 'percentage'; readonly pattern: string }
  /** `zeroIsDefault`: 0 is accepted as well and stands for the default. */
  | {
      readonly kind: 'duration';
      readonly min: number;
      readonly max: number;
      readonly zeroIsDefault: boolean;
    }
  /** `pattern`: a regular expression in the common subset of JavaScript and RE2, for the whole text. */
  | { readonly kind: 'text'; readonly pattern: string };

type Result<T> = ReturnType<ReadValue<T>>;

/** Accepts any text that is not empty. */
export function nonEmpty(text: string): Result<string> {
  return text === '' ? { expected: 'must not be empty' } : { value: text };
}

/** Accepts `true` and `false`. */
export function boolean(text: string): Result<boolean> {
  return text === 'true' || text === 'false'
    ? { value: text === 'true' }
    : { expected: 'must be true or false' };
}
boolean.range = { kind: 'boolean' } as const;

/** Accepts one of the values, in the same case. */
export function enumOf<const T extends string>(values: readonly T[], hint = ''): ReadValue<T> {
  const read = (text: string): Result<T> => {
    const value = values.find((candidate) => candidate === text);
    return value === undefined ? { expected: `must be one of ${values.join(', ')}${hint}` } : { value };
  };
  return Object.assign(read, { range: { kind: 'enum', values } as const });
}

/**
 * Accepts `host:port`, with an IPv6 host in brackets.
 *
 * @param minPort 0 for an address to listen on, 1 for one to connect to
 */
export function hostPort(minPort: 0 | 1): ReadValue<string> {
  return (text) => {
    const port = parseHostPort(text)?.port;
    return port === undefined || port < minPort
      ? {
          expected: `must be host:port with a port from ${minPort} to 65535, such as 127.0.0.1:18000 or [::1]:18000`,
        }
      : { value: text };
  };
}

/** Accepts a DNS label (RFC 1123), as the API server requires; anything else could change the path of a request. */
export const namespace = textMatching(
  '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$',
  'must be at most 63 lower-case letters, digits and dashes',
);

/**
 * Accepts text that matches a regular expression.
 *
 * @param pattern in the common subset of JavaScript and RE2, with ^ and $
 */
export function textMatching(pattern: string, expected: string): ReadValue<string> {
  const expression = new RegExp(pattern);
  const read = (text: string): Result<string> => (expression.test(text) ? { value: text } : { expected });
  return Object.assign(read, { range: { kind: 'text', pattern } as const });
}

/** Accepts decimal digits only: no sign, no exponent, no separators. */
export function numberInRange(min: number, max: number): ReadValue<number> {
  const read = (text: string): Result<number> => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    return value >= min && value <= max
      ? { value }
      : { expected: `must be a whole number from ${min} to ${max}` };
  };
  return Object.assign(read, { range: { kind: 'integer', min, max } as const });
}

const PERCENTAGE_PATTERN = '^(100|[1-9]?[0-9])%?$';

/** Accepts a whole number of percent from 0 to 100, as `50%` or `50`; the value is that number. */
export function percentage(text: string): Result<number> {
  return new RegExp(PERCENTAGE_PATTERN).test(text)
    ? { value: Number(text.replace('%', '')) }
    : { expected: 'must be a whole percentage from 0% to 100%, such as 50%' };
}
percentage.range = { kind: 'percentage', pattern: PERCENTAGE_PATTERN } as const;

/** Accepts digits with an optional fraction: no sign, no exponent, no separators. */
export function decimalInRange(min: number, max: number): ReadValue<number> {
  return (text) => {
    const value = /^\d{1,9}(?:\.\d{1,9})?$/.test(text) ? Number(text) : Number.NaN;
    return value >= min && value <= max
      ? { value }
      : { expected: `must be a number from ${min} to ${max}, decimals allowed` };
  };
}

/** Accepts a duration (see `parseDuration`) in the range; the value is in milliseconds. */
export function durationInRange(minMs: number, maxMs: number): ReadValue<number> {
  const read = (text: string): Result<number> => {
    const parsed = parseDuration(text);
    return 'ms' in parsed && parsed.ms >= minMs && parsed.ms <= maxMs
      ? { value: parsed.ms }
      : {
          expected: `must be a duration from ${formatDuration(minMs)} to ${formatDuration(maxMs)}, such as 250ms, 30s or 5m`,
        };
  };
  return Object.assign(read, {
    range: { kind: 'duration', min: minMs, max: maxMs, zeroIsDefault: false } as const,
  });
}

/**
 * Accepts a duration from a minimum to 7 days. Zero stands for the default and not for "immediately": an empty value in
 * a template must not cause objects to be deleted.
 */
export function durationWithDefault(defaultText: string, minMs = 1000): ReadValue<number> {
  const maxMs = 7 * 24 * 3_600_000;
  const readInRange = durationInRange(minMs, maxMs);
  const read = (text: string): Result<number> => {
    const parsed = parseDuration(text);
    return readInRange('ms' in parsed && parsed.ms === 0 ? defaultText : text);
  };
  return Object.assign(read, {
    range: { kind: 'duration', min: minMs, max: maxMs, zeroIsDefault: true } as const,
  });
}

const BYTES_PER_UNIT: Readonly<Record<string, number>> = { '': 1, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3 };

/** Accepts a size such as `65536`, `512Ki`, `64Mi` or `1Gi` in the range; the value is in bytes. */
export function sizeInRange(minBytes: number, maxBytes: number): ReadValue<number> {
  const read = (text: string): Result<number> => {
    const [, digits, unit = ''] = /^(\d{1,12})(Ki|Mi|Gi)?$/.exec(text) ?? [];
    const value = digits === undefined ? Number.NaN : Number(digits) * (BYTES_PER_UNIT[unit] ?? Number.NaN);
    return value >= minBytes && value <= maxBytes
      ? { value }
      : {
          expected: `must be a size from ${minBytes / 1024}Ki to ${maxBytes / 1024 ** 3}Gi, such as 512Ki or 64Mi`,
        };
  };
  return Object.assign(read, { range: { kind: 'size', min: minBytes, max: maxBytes } as const });
}

const MS_PER_UNIT: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** The duration in whole milliseconds, or an error that does not name the key. */
export type ParsedDuration = { readonly ms: number } | { readonly error: string };

/**
 * Parses a duration: one or more numbers with a unit (`ms`, `s`, `m`, `h`), decimals allowed, as in Go; or a plain `0`.
 * The result is rounded to whole milliseconds and is never negative. A number without a unit is an error, because a
 * wrong guess between seconds and milliseconds would be off by a factor of 1000.
 */
export function parseDuration(text: string): ParsedDuration {
  const trimmed = text.trim();
  if (trimmed === '0') return { ms: 0 };
  if (!/^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(trimmed)) {
    return { error: `"${text}" is not a duration such as 250ms, 30s, 5m or 1h30m` };
  }
  let ms = 0;
  for (const [, number, unit] of trimmed.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) {
    ms += Number(number) * (MS_PER_UNIT[unit ?? ''] ?? Number.NaN);
  }
  // Larger numbers of milliseconds are not exact, and no timer can wait that long.
  if (!Number.isSafeInteger(Math.round(ms))) return { error: `"${text}" is too long for a duration` };
  return { ms: Math.round(ms) };
}

/** Formats whole milliseconds in the largest unit without a remainder, as `90s`, `5m` or `0s`. The inverse of `parseDuration`. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0s';
  for (const unit of ['h', 'm', 's']) {
    const size = MS_PER_UNIT[unit] ?? 1;
    if (ms % size === 0) return `${ms / size}${unit}`;
  }
  return `${ms}ms`;
}
