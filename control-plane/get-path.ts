/** Looks into values of unknown shape: API objects, indexes, errors of the system. */

/** The value at `path` in something of unknown shape; undefined when there is nothing. */
export function getPath(value: unknown, ...path: readonly string[]): unknown {
  let current = value;
  for (const key of path) {
    if (typeof current !== 'object' || current === null) return undefined;
    current = Reflect.get(current, key);
  }
  return current;
}

/** The text at `path`; undefined when there is none. */
export function getString(value: unknown, ...path: readonly string[]): string | undefined {
  const result = getPath(value, ...path);
  return typeof result === 'string' ? result : undefined;
}
