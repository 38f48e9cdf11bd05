/** `1 row`, `2 rows`; with another plural than by an s where that is given. */
export function pluralize(count: number, noun: string, plural = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : plural}`;
}
