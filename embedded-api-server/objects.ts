import type { FieldError } from './field-error.ts';

/** A JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Returns a copy with all fields in alphabetical order, as the API server writes custom objects. */
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
const LABEL_KEY = /^(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?\/)?(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;

const SUBDOMAIN_RULE =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_VALUE_RULE =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const LABEL_KEY_RULE =
  "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/** Returns what is invalid about a name and labels. */
export function validateMetadata(name: string, labels: JsonObject): FieldError[] {
  const errors: FieldError[] = [];
  const reject = (field: string, value: unknown, rule: string): void =>
    void errors.push({
      reason: 'FieldValueInvalid',
      message: `Invalid value: ${JSON.stringify(value)}: ${rule}`,
      field,
    });
  if (!SUBDOMAIN.test(name)) reject('metadata.name', name, SUBDOMAIN_RULE);
  else if (name.length > 253) reject('metadata.name', name, 'must be no more than 253 characters');
  for (const [key, value] of Object.entries(labels)) {
    if (!LABEL_KEY.test(key)) reject('metadata.labels', key, LABEL_KEY_RULE);
    if (typeof value !== 'string') continue;
    if (value.length > 63) reject('metadata.labels', value, 'must be no more than 63 bytes');
    else if (!LABEL_VALUE.test(value)) reject('metadata.labels', value, LABEL_VALUE_RULE);
  }
  return errors;
}

/** An object as it is stored and returned. Kinds without a spec have other fields instead. */
export interface ApiServerObject extends JsonObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ApiMetadata;
  readonly spec: JsonObject;
  readonly status?: JsonObject;
}

/** Metadata of a stored object. */
export interface ApiMetadata extends WritableMetadata {
  readonly creationTimestamp: string;
  readonly deletionGracePeriodSeconds?: number;
  readonly deletionTimestamp?: string;
  /** Incremented by each change except for those of metadata and status. Only for kinds that have it. */
  readonly generation?: number;
  readonly name: string;
  /** Absent for kinds without namespaces. */
  readonly namespace?: string;
  readonly resourceVersion: string;
  readonly uid: string;
}

/** The metadata that a write may set. */
export interface WritableMetadata {
  readonly annotations?: JsonObject;
  readonly finalizers?: readonly string[];
  readonly generateName?: string;
  readonly labels?: JsonObject;
  readonly ownerReferences?: readonly unknown[];
}

const WRITABLE_FIELDS = ['annotations', 'finalizers', 'generateName', 'labels', 'ownerReferences'] as const;

/** The metadata of a write; a field that is null is removed. */
export type SentMetadata = {
  readonly [F in keyof ApiMetadata]?: ApiMetadata[F] | null;
};

/** Returns the metadata of a write. */
export function metadataOf(sent: JsonObject): SentMetadata {
  return isJsonObject(sent['metadata']) ? sent['metadata'] : {};
}

/** Returns the fields that a write may set, without empty ones. */
export function writableMetadata(sent: SentMetadata): WritableMetadata {
  const fields: Record<string, unknown> = {};
  for (const field of WRITABLE_FIELDS) {
    const value = sent[field];
    if (value === undefined || value === null || value === '') continue;
    if (typeof value === 'object' && Object.keys(value).length === 0) continue;
    fields[field] = value;
  }
  return fields;
}

/** Returns the fields that only the API server sets. */
export function serverMetadata(before: ApiMetadata): Omit<ApiMetadata, keyof WritableMetadata> {
  const {
    annotations: _annotations,
    finalizers: _finalizers,
    generateName: _generateName,
    labels: _labels,
    ownerReferences: _ownerReferences,
    ...kept
  } = before;
  return kept;
}
