/** The content of objects that are written: what a request may set, and what the schema of the kind makes of it. */
import { isDeepStrictEqual } from 'node:util';
import type { ApiKind } from './api-kind.ts';
import {
  type ApiMetadata,
  type ApiServerObject,
  type JsonObject,
  metadataOf,
  serverMetadata,
  sortFields,
  validateMetadata,
  writableMetadata,
} from './objects.ts';
import type { ApiPath, ApiRequest } from './requests.ts';
import * as responses from './responses.ts';
import type { ApiResponse } from './responses.ts';

/** A write that is being executed. */
export interface Write {
  readonly method: ApiRequest['method'];
  readonly kind: ApiKind;
  readonly path: ApiPath;
  readonly actor: string;
  /** Whether the query asks to store nothing. */
  readonly dryRun: boolean;
}

/** The plural of the kind of CRDs. */
export const CRDS = 'customresourcedefinitions';

/** Returns a new object with the content of a create; its status is ignored if the kind has a status subresource. */
export function newObject(
  { kind }: Write,
  sent: JsonObject,
  metadata: ApiMetadata,
): JsonObject & { readonly metadata: ApiMetadata } {
  const { status: _status, ...content } = sent;
  return {
    ...(kind.hasStatus ? content : sent),
    ...(kind.plural === CRDS ? { status: crdStatus(sent, metadata.creationTimestamp) } : {}),
    apiVersion: kind.apiVersion,
    kind: kind.kind,
    metadata: {
      ...writableMetadata(metadataOf(sent)),
      ...(kind.hasStatus && kind.isCustom ? { generation: 1 } : {}),
      ...metadata,
    },
  };
}

/** Returns the object with the part that the path writes. */
export function updatedObject(
  { kind, path }: Write,
  before: ApiServerObject,
  merged: JsonObject,
): ApiServerObject {
  if (path.status) return { ...before, status: merged['status'] as JsonObject };
  const { status: _status, ...content } = merged;
  return {
    ...(kind.hasStatus ? { ...content, status: before.status } : merged),
    apiVersion: before.apiVersion,
    kind: before.kind,
    metadata: { ...writableMetadata(metadataOf(merged)), ...serverMetadata(before.metadata) },
  } as ApiServerObject;
}

/** Prunes, sets defaults and validates; returns the object, or the response that rejects it. */
export function checkObject(
  { kind, path, method }: Write,
  content: JsonObject & { metadata: ApiServerObject['metadata'] },
  before: ApiServerObject | undefined,
): { readonly object: ApiServerObject } | ApiResponse {
  const { name, labels = {} } = content.metadata;
  const unknown: string[] = [];
  const { status, ...rest } = kind.schema.prune(content, unknown);
  if (unknown.length > 0 && path.query.get('fieldValidation') === 'Strict') {
    const fields = `strict decoding error: ${unknown.map((field) => `unknown field "${field}"`).join(', ')}`;
    return method === 'PATCH' ? responses.invalidPatch(content, fields) : responses.undecodable(kind, fields);
  }
  const pruned = status === undefined || status === null ? rest : { ...rest, status };
  const object = sortFields(kind.schema.applyDefaults(pruned)) as ApiServerObject;
  const errors = path.status
    ? kind.schema.validateStatus(object.status)
    : [...validateMetadata(name, labels), ...kind.schema.validate(object, before)];
  return errors.length > 0 ? responses.invalid(kind, name, errors) : { object };
}

/** Increments the generation if anything has changed except for metadata and status. */
export function incrementGeneration(after: ApiServerObject, before: ApiServerObject): ApiServerObject {
  const { generation } = before.metadata;
  if (generation === undefined) return after;
  const content = ({ metadata: _metadata, status: _status, ...rest }: ApiServerObject): JsonObject => rest;
  if (isDeepStrictEqual(content(after), content(before))) return after;
  return { ...after, metadata: { ...after.metadata, generation: generation + 1 } };
}

/** Returns the status of a CRD whose kind is served. */
function crdStatus({ spec }: JsonObject, now: string): JsonObject {
  const { names } = spec as { names?: unknown };
  const conditions = ['NamesAccepted', 'Established'].map((type) => ({
    lastTransitionTime: now,
    message: type === 'Established' ? 'the initial names have been accepted' : 'no conflicts found',
    reason: type === 'Established' ? 'InitialNamesAccepted' : 'NoConflicts',
    status: 'True',
    type,
  }));
  return { acceptedNames: names, conditions, storedVersions: ['v1alpha1'] };
}
