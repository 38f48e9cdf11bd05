/** Generates the JSON Schemas of the kinds, for editors and for validators such as kubeconform. */
import type { Kind } from './schema.ts';

/** A JSON value. */
type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** Formats that JSON Schema does not define; validators warn about them. */
const OPENAPI_FORMATS = new Set(['int32', 'int64', 'double']);

/**
 * Converts a structural schema: without the extensions of Kubernetes, which the API server evaluates, and without unknown
 * fields, which it would drop silently.
 */
function convert(node: Json): Json {
  if (Array.isArray(node)) return node.map((item: Json) => convert(item));
  if (typeof node !== 'object' || node === null) return node;
  const result: Record<string, Json> = {};
  for (const [key, value] of Object.entries(node as { readonly [key: string]: Json })) {
    if (
      key.startsWith('x-kubernetes-') ||
      (key === 'format' && typeof value === 'string' && OPENAPI_FORMATS.has(value))
    )
      continue;
    result[key] =
      key === 'properties'
        ? Object.fromEntries(
            Object.entries(value as object).map(([name, child]) => [name, convert(child as Json)]),
          )
        : convert(value);
  }
  if (result['type'] === 'object' && result['properties'] !== undefined)
    result['additionalProperties'] = false;
  return result;
}

/** Returns the JSON Schema of a kind, as text. */
export function jsonSchema({ group, version, kind, schema }: Kind): string {
  const converted = convert(schema as unknown as Json) as {
    readonly properties: Readonly<Record<string, Readonly<Record<string, Json>>>>;
    readonly required: readonly string[];
  };
  const { apiVersion, kind: kindField, ...properties } = converted.properties;
  const result = {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: kind,
    ...converted,
    required: ['apiVersion', 'kind', ...converted.required],
    properties: {
      apiVersion: { ...apiVersion, enum: [`${group}/${version}`] },
      kind: { ...kindField, enum: [kind] },
      // The CRD has no schema for it.
      metadata: { type: 'object' },
      ...properties,
    },
  };
  return `${JSON.stringify(result, undefined, 2)}\n`;
}
