import type { KindDifference } from './facts.ts';

/** A value out of JSON or YAML, unchecked. */
export type Tree = unknown;

/** What of a CRD's version is compared. */
export interface KindSchema {
  /** `openAPIV3Schema`, or what the API server publishes of it. */
  readonly schema: Tree;
  /** Paths without the leading dot, as `spec.tenantID`. */
  readonly selectableFields: readonly string[];
}

/** Left out of the comparison: text for people may change, and the API server puts its own kind and metadata there. */
const IGNORED = new Set(['description']);
const COMPARED = ['spec', 'status'];
/** So many are enough to see what kind of difference it is. */
const MOST = 100;

/** Where `served` is another than `shipped`, in `spec`, `status` and the selectable fields. Empty when it is the same. */
export function kindDifferences(shipped: KindSchema, served: KindSchema): KindDifference[] {
  const differences: KindDifference[] = [];
  for (const field of shipped.selectableFields) {
    if (!served.selectableFields.includes(field)) {
      differences.push({ weight: 'contract', path: `selectableFields ${field}` });
    }
  }
  for (const name of COMPARED) {
    const path = ['properties', name];
    for (const found of differingPaths(at(shipped.schema, path), at(served.schema, path), name)) {
      // The status a row is born with: rows written under another default say what nobody meant.
      const weight = found.startsWith('status.default') ? 'contract' : 'schema';
      differences.push({ weight, path: found });
      if (differences.length === MOST) return differences;
    }
  }
  return differences;
}

/** Paths at which two trees differ, as a schema is read: the words `properties` and `items` left out. */
function* differingPaths(a: Tree, b: Tree, path: string): Iterable<string> {
  if (isMap(a) && isMap(b)) {
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      if (IGNORED.has(key) && typeof (a[key] ?? b[key]) === 'string') continue;
      const below = key === 'properties' ? path : `${path}.${key}`;
      yield* differingPaths(a[key], b[key], below);
    }
  } else if (Array.isArray(a) && Array.isArray(b) && a.length === b.length) {
    for (const [index, item] of a.entries()) yield* differingPaths(item, b[index], `${path}[${index}]`);
  } else if (a !== b) yield path;
}

function at(tree: Tree, path: readonly string[]): Tree {
  let found = tree;
  for (const key of path) found = isMap(found) ? found[key] : undefined;
  return found;
}

/** True for a mapping. */
export function isMap(value: Tree): value is Readonly<Record<string, Tree>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
