/** Returns the values at a path; none if a field on the way is missing. */
export type JsonPath = (object: unknown) => unknown[];

const STEP = /\.([^.[\]]+)|\[\?\(@\.([^=]+?)\s*==\s*["']([^"']*)["']\)\]|\[(\d+|\*)\]/y;

/**
 * Compiles the part of JSONPath that CRDs use: `.a.b`, `.a[0].b`, `.a[*].b`, `.a[?(@.type=="Ready")].b`.
 *
 * @throws Error for other expressions
 */
export function compileJsonPath(text: string): JsonPath {
  const steps: ((value: unknown) => readonly unknown[])[] = [];
  STEP.lastIndex = 0;
  while (STEP.lastIndex < text.length) {
    const match = STEP.exec(text);
    if (match === null) throw new Error(`JSONPath ${text}: not supported`);
    const [, field, key, expected, index] = match;
    if (field !== undefined) steps.push((value) => present(read(value, field)));
    else if (key !== undefined) {
      const path = key.split('.');
      steps.push((value) =>
        Array.isArray(value)
          ? value.filter((item) => path.reduce((at: unknown, name) => read(at, name), item) === expected)
          : [],
      );
    } else if (index === '*') steps.push((value) => (Array.isArray(value) ? value : []));
    else steps.push((value) => present(read(value, index ?? '')));
  }
  return (object) =>
    steps.reduce((values: unknown[], step) => values.flatMap((value) => [...step(value)]), [object]);
}

function read(value: unknown, field: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, field)
    ? (value as Record<string, unknown>)[field]
    : undefined;
}

function present(value: unknown): unknown[] {
  return value === undefined || value === null ? [] : [value];
}
