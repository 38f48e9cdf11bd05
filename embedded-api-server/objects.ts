/** A JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Returns a copy with all fields in alphabetical order, as the API server writes them. */
export function sortFields<T>(value: T): T {
  if (Array.isArray(value)) return value.map((item: unknown) => sortFields(item)) as T;
  if (!isJsonObject(value)) return value;
  const fields = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(fields.map(([field, fieldValue]) => [field, sortFields(fieldValue)])) as T;
}

/** Applies a JSON merge patch (RFC 7386). */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isJsonObject(patch)) return patch;
  const merged: Record<string, unknown> = isJsonObject(target) ? { ...target } : {};
  for (const [field, value] of Object.entries(patch)) {
    if (value === null) delete merged[field];
    else merged[field] = mergePatch(merged[field], value);
  }
  return merged;
}

/** Reports whether a value is a JSON object; a list is not. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const SUBDOMAIN = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/;
const LABEL_VALUE = /^(?:(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;

/** Returns what is invalid about a name or labels; undefined when nothing is. */
export function metadataViolation(name: string, labels: JsonObject): string | undefined {
  if (name.length > 253 || !SUBDOMAIN.test(name)) return `metadata.name: Invalid value: "${name}"`;
  for (const value of Object.values(labels)) {
    if (typeof value !== 'string' || value.length > 63 || !LABEL_VALUE.test(value)) {
      return `metadata.labels: Invalid value: ${JSON.stringify(value)}`;
    }
  }
  return undefined;
}

/** An object as it is stored and returned. */
export interface ApiServerObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ApiMetadata;
  readonly spec: JsonObject;
  readonly status?: JsonObject;
}

/** Metadata with its fields in alphabetical order. */
export interface ApiMetadata {
  readonly creationTimestamp: string;
  readonly deletionTimestamp?: string;
  readonly finalizers?: readonly string[];
  readonly labels?: JsonObject;
  readonly name: string;
  readonly namespace: string;
  readonly resourceVersion: string;
  readonly uid: string;
}

/** The metadata that a write may set. */
export interface MetadataPatch {
  readonly name?: string;
  readonly generateName?: string;
  readonly labels?: JsonObject;
  readonly finalizers?: readonly string[] | null;
  readonly resourceVersion?: string;
}

/** Returns the metadata of a write. */
export function metadataOf(sent: JsonObject): MetadataPatch {
  return isJsonObject(sent['metadata']) ? sent['metadata'] : {};
}

/** Returns metadata with some fields replaced, in the field order of the API server. */
export function updateMetadata(
  before: ApiMetadata,
  changes: { deletionTimestamp?: string; finalizers?: readonly string[] | undefined; labels?: JsonObject },
): ApiMetadata {
  const { creationTimestamp, name, namespace, resourceVersion, uid } = before;
  const deletionTimestamp = changes.deletionTimestamp ?? before.deletionTimestamp;
  const finalizers = changes.finalizers ?? before.finalizers ?? [];
  const labels = changes.labels ?? before.labels ?? {};
  return {
    creationTimestamp,
    ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    ...(finalizers.length === 0 ? {} : { finalizers }),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
    name,
    namespace,
    resourceVersion,
    uid,
  };
}
