/** Durations as people write them in flags and files: `250ms`, `30s`, `5m`, `1h30m`. */

const MS_PER_UNIT: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Either the duration in whole milliseconds, or what is wrong with the text; the caller names the key. */
export type ParsedDuration = { readonly ms: number } | { readonly error: string };

/**
 * Reads a duration: one or more numbers with a unit (`ms`, `s`, `m`, `h`), decimals allowed, as in Go; and the
 * plain `0`. The result is rounded to whole milliseconds and never negative. A number without a unit is refused:
 * guessing between seconds and milliseconds is wrong by a factor of 1000.
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
  // Beyond this a millisecond count is no longer exact, and no timer can wait for it either.
  if (!Number.isSafeInteger(Math.round(ms))) return { error: `"${text}" is too long for a duration` };
  return { ms: Math.round(ms) };
}

/** Writes whole milliseconds so that `parseDuration` reads the same again, in the largest unit that fits evenly: `90s`, `5m`, `0s`. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0s';
  for (const unit of ['h', 'm', 's']) {
    const size = MS_PER_UNIT[unit] ?? 1;
    if (ms % size === 0) return `${ms / size}${unit}`;
  }
  return `${ms}ms`;
}
