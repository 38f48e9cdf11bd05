/** The notation of durations in flags and files: `250ms`, `30s`, `5m`, `1h30m`. */

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
