import type { CrdDifference } from './inputs.ts';

/** An unchecked value from JSON or YAML. */
export type JsonValue = unknown;

/** The parts of a CRD version that are compared. */
export interface CrdSchema {
  /** `openAPIV3Schema`, or the schema that the API server publishes for it. */
  readonly schema: JsonValue;
  /** Paths without the leading dot, such as `spec.tenantID`. */
  readonly selectableFields: readonly string[];
}

/** Descriptions may differ between versions. */
const IGNORED_KEYS = new Set(['description']);
/** The API server adds its own schemas for the other properties, such as `metadata`. */
const COMPARED_PROPERTIES = ['spec', 'status'];
/** Limits the result; more differences would not make it clearer. */
const MAX_DIFFERENCES = 100;

/**
 * Returns where the installed CRD differs from the bundled one: in `spec`, `status`, or a selectable field that is missing.
 * At most 100 differences are returned.
 */
export function crdDifferences(bundled: CrdSchema, installed: CrdSchema): CrdDifference[] {
  const differences: CrdDifference[] = [];
  for (const field of bundled.selectableFields) {
    if (!installed.selectableFields.includes(field)) {
      differences.push({ severity: 'contract', path: `selectableFields ${field}` });
    }
  }
  for (const name of COMPARED_PROPERTIES) {
    const path = ['properties', name];
    for (const differingPath of differingPaths(
      valueAt(bundled.schema, path),
      valueAt(installed.schema, path),
      name,
    )) {
      // The operator relies on the default: a new object gets its status from there.
      const severity = differingPath.startsWith('status.default') ? 'contract' : 'schema';
      differences.push({ severity, path: differingPath });
      if (differences.length === MAX_DIFFERENCES) return differences;
    }
  }
  return differences;
}

/** Yields the paths at which two schemas differ, without the keys `properties`, such as `spec.tenantID.maxLength`. */
function* differingPaths(a: JsonValue, b: JsonValue, path: string): Iterable<string> {
  if (isJsonObject(a) && isJsonObject(b)) {
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      if (IGNORED_KEYS.has(key) && typeof (a[key] ?? b[key]) === 'string') continue;
      const childPath = key === 'properties' ? path : `${path}.${key}`;
      yield* differingPaths(a[key], b[key], childPath);
    }
  } else if (Array.isArray(a) && Array.isArray(b) && a.length === b.length) {
    for (const [index, item] of a.entries()) yield* differingPaths(item, b[index], `${path}[${index}]`);
  } else if (a !== b) yield path;
}

function valueAt(tree: JsonValue, path: readonly string[]): JsonValue {
  let value = tree;
  for (const key of path) value = isJsonObject(value) ? value[key] : undefined;
  return value;
}

/** Reports whether a value is a JSON object. */
export function isJsonObject(value: JsonValue): value is Readonly<Record<string, JsonValue>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
