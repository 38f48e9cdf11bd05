import type { CrdDifference } from './inputs.ts';

/** A value out of JSON or YAML, unchecked. */
export type JsonValue = unknown;

/** What of a CRD's version is compared. */
export interface CrdSchema {
  /** `openAPIV3Schema`, or what the API server publishes of it. */
  readonly schema: JsonValue;
  /** Paths without the leading dot, as `spec.tenantID`. */
  readonly selectableFields: readonly string[];
}

/** Left out of the comparison: text for people may change, and the API server puts its own kind and metadata there. */
const IGNORED = new Set(['description']);
const COMPARED = ['spec', 'status'];
/** So many are enough to see what kind of difference it is. */
const MAX_DIFFERENCES = 100;

/** Where `served` is another than `shipped`, in `spec`, `status` and the selectable fields. Empty when it is the same. */
export function crdDifferences(bundled: CrdSchema, installed: CrdSchema): CrdDifference[] {
  const differences: CrdDifference[] = [];
  for (const field of bundled.selectableFields) {
    if (!installed.selectableFields.includes(field)) {
      differences.push({ severity: 'contract', path: `selectableFields ${field}` });
    }
  }
  for (const name of COMPARED) {
    const path = ['properties', name];
    for (const differingPath of differingPaths(
      valueAt(bundled.schema, path),
      valueAt(installed.schema, path),
      name,
    )) {
      // The status a row is born with: rows written under another default say what nobody meant.
      const severity = differingPath.startsWith('status.default') ? 'contract' : 'schema';
      differences.push({ severity, path: differingPath });
      if (differences.length === MAX_DIFFERENCES) return differences;
    }
  }
  return differences;
}

/** Paths at which two trees differ, as a schema is read: the words `properties` and `items` left out. */
function* differingPaths(a: JsonValue, b: JsonValue, path: string): Iterable<string> {
  if (isMapping(a) && isMapping(b)) {
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      if (IGNORED.has(key) && typeof (a[key] ?? b[key]) === 'string') continue;
      const childPath = key === 'properties' ? path : `${path}.${key}`;
      yield* differingPaths(a[key], b[key], childPath);
    }
  } else if (Array.isArray(a) && Array.isArray(b) && a.length === b.length) {
    for (const [index, item] of a.entries()) yield* differingPaths(item, b[index], `${path}[${index}]`);
  } else if (a !== b) yield path;
}

function valueAt(tree: JsonValue, path: readonly string[]): JsonValue {
  let value = tree;
  for (const key of path) value = isMapping(value) ? value[key] : undefined;
  return value;
}

/** True for a mapping. */
export function isMapping(value: JsonValue): value is Readonly<Record<string, JsonValue>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
