import { sanitize } from './text.ts';
import {
  haveSameIdentity,
  OMITTED_CREATED_AT,
  type TunnelManifest,
  type TunnelObject,
  type TunnelObjectPatch,
  type TunnelObjectStatus,
} from './tunnel-object.ts';

/**
 * A field that was stored with another value than the one that was sent: an admission webhook or policy rewrote it, or
 * the CRD does not know it. The values are JSON, safe to display and at most 128 characters long.
 */
export interface RewrittenField {
  /** Path in the object, such as `spec.tenantID` or `metadata.labels[reverse-tunnel.io/node]`. */
  readonly field: string;
  /** The value that was sent; `(absent)` if it should be removed. */
  readonly desired: string;
  /** The value that was stored; `(absent)` if there is none. */
  readonly stored: string;
}

/** The parts of a ReverseTunnel object that are written together, as a set of bits. */
export type ObjectParts = number;
/** The bits of `ObjectParts`. */
export const ObjectParts = {
  /** The name and the immutable part of spec: only deleting and creating the object changes them. */
  identity: 1,
  labels: 2,
  createdAt: 4,
  /** The status of a reported tunnel. */
  reported: 8,
  /** The status of a tunnel whose reporter is disconnected, or that has closed. */
  notReported: 16,
  /** The object was stored as that of another tunnel, and was deleted. */
  key: 32,
} as const;

/** A write whose response differs from what was sent. */
export interface Rewrite extends RewrittenField {
  /** What a repetition of the write would write again. */
  readonly parts: ObjectParts;
}

const MAX_VALUE_LENGTH = 128;

/**
 * Compares a created object with the manifest. What others add (labels, annotations, finalizers) is not a difference,
 * and neither is what the API server adds.
 */
export function rewriteOfCreate(sent: TunnelManifest, stored: TunnelObject): Rewrite | undefined {
  const { metadata, spec } = stored;
  const omittedCreatedAt = sent.annotations?.[OMITTED_CREATED_AT] ?? null;
  const createdAt = sent.spec.createdAt ?? null;
  const mutable = mutableDifferences({ labels: sent.labels, createdAt, omittedCreatedAt }, stored);
  if (metadata.name === sent.name && haveSameIdentity(sent.spec, spec)) return combine(mutable);
  const { reporter, tunnelName, tenantID, clusterID, nodeID } = sent.spec;
  // The labels of an object are compared with its own spec, so they differ too.
  const identity = ObjectParts.identity | ObjectParts.labels;
  return combine([
    [findDifference({ reporter, tunnelName }, spec, 'spec'), ObjectParts.key | identity],
    [findDifference({ tenantID, clusterID, nodeID }, spec, 'spec'), identity],
    [findDifference(sent.name, metadata.name, 'metadata.name'), identity],
    ...mutable,
  ]);
}

/** Compares the response to a patch of the mutable parts with what was sent. */
export function rewriteOfPatch(sent: TunnelObjectPatch, stored: TunnelObject): Rewrite | undefined {
  return combine(mutableDifferences(sent, stored));
}

/**
 * Compares the response to a patch of the status with what was sent. Times and messages are not compared.
 *
 * @param parts `reported` or `notReported`
 */
export function rewriteOfStatus(
  { state, conditions }: TunnelObjectStatus,
  stored: TunnelObject,
  parts: ObjectParts,
): Rewrite | undefined {
  const meaning = (conditions ?? []).map(({ type, status, reason }) => ({ type, status, reason }));
  return combine([[findDifference({ state, conditions: meaning }, stored.status ?? {}, 'status'), parts]]);
}

/**
 * Returns the first field of a merge patch that was not applied: null removes a field, lists are replaced as a whole,
 * and fields that the patch does not name are ignored.
 *
 * @param path of the patched value in the object
 */
export function findDifference(sent: unknown, stored: unknown, path: string): RewrittenField | undefined {
  if (sent === undefined || sent === stored) return undefined;
  if (sent === null) return stored === undefined ? undefined : formatField(path, undefined, stored);
  if (typeof sent !== 'object' || typeof stored !== 'object' || stored === null)
    return formatField(path, sent, stored);
  if (Array.isArray(sent)) {
    if (!Array.isArray(stored) || stored.length !== sent.length) return formatField(path, sent, stored);
    for (const [index, element] of sent.entries()) {
      const difference = findDifference(element, stored[index], `${path}[${index}]`);
      if (difference !== undefined) return difference;
    }
    return undefined;
  }
  const storedFields = stored as Readonly<Record<string, unknown>>;
  for (const [name, value] of Object.entries(sent)) {
    const difference = findDifference(value, storedFields[name], `${path}.${name}`);
    if (difference !== undefined) return difference;
  }
  return undefined;
}

/** Returns the part of an object that contains a field, as in the metrics. */
export function rewrittenPart(field: string): 'metadata' | 'spec' | 'status' {
  if (field.startsWith('metadata')) return 'metadata';
  return field.startsWith('spec') ? 'spec' : 'status';
}

type PartDifference = readonly [difference: RewrittenField | undefined, parts: ObjectParts];

function mutableDifferences(
  { labels, createdAt, omittedCreatedAt }: TunnelObjectPatch,
  { metadata, spec }: TunnelObject,
): PartDifference[] {
  const differences: PartDifference[] = [];
  for (const label in labels) {
    const stored = metadata.labels?.[label];
    if (stored === labels[label]) continue;
    const field = `metadata.labels[${label}]`;
    differences.push([formatField(field, labels[label], stored), ObjectParts.labels]);
  }
  if (createdAt !== (spec.createdAt ?? null)) {
    const difference = formatField('spec.createdAt', createdAt ?? undefined, spec.createdAt);
    differences.push([difference, ObjectParts.createdAt]);
  }
  const annotation = metadata.annotations?.[OMITTED_CREATED_AT];
  if (omittedCreatedAt !== (annotation ?? null)) {
    const field = `metadata.annotations[${OMITTED_CREATED_AT}]`;
    // An annotation that contradicts the spec is part of the drift of labels.
    const parts = ObjectParts.createdAt | ObjectParts.labels;
    differences.push([formatField(field, omittedCreatedAt ?? undefined, annotation), parts]);
  }
  return differences;
}

/** Returns the first difference with the parts of all; undefined if there is none. */
function combine(differences: readonly PartDifference[]): Rewrite | undefined {
  let first: RewrittenField | undefined;
  let all = 0;
  for (const [difference, parts] of differences) {
    if (difference === undefined) continue;
    first ??= difference;
    all |= parts;
  }
  return first === undefined ? undefined : { ...first, parts: all };
}

function formatField(field: string, desired: unknown, stored: unknown): RewrittenField {
  return { field, desired: formatValue(desired), stored: formatValue(stored) };
}

function formatValue(value: unknown): string {
  return value === undefined ? '(absent)' : sanitize(JSON.stringify(value), MAX_VALUE_LENGTH);
}
