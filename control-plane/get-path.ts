/** Access to values of unknown shape: API objects, the envtest index, system errors. */

/** Returns the value at `path`, or undefined if there is none. */
export function getPath(value: unknown, ...path: readonly string[]): unknown {
  let current = value;
  for (const key of path) {
    if (typeof current !== 'object' || current === null) return undefined;
    current = Reflect.get(current, key);
  }
  return current;
}

/** Returns the string at `path`, or undefined if there is none. */
export function getString(value: unknown, ...path: readonly string[]): string | undefined {
  const result = getPath(value, ...path);
  return typeof result === 'string' ? result : undefined;
}
