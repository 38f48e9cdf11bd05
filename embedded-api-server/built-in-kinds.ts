import type { ApiKind } from './api-kind.ts';
import type { ApiServerObject } from './objects.ts';
import { CompiledSchema, type Schema } from './schema.ts';

const TEXT: Schema = { type: 'string' };
const INTEGER: Schema = { type: 'integer', format: 'int32' };
const TIME: Schema = { type: 'string', format: 'date-time' };
const ANYTHING: Schema = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };

const OBJECT_REFERENCE: Schema = {
  description:
    'ObjectReference contains enough information to let you inspect or modify the referred object.',
  type: 'object',
  properties: {
    apiVersion: TEXT,
    fieldPath: TEXT,
    kind: TEXT,
    name: TEXT,
    namespace: TEXT,
    resourceVersion: TEXT,
    uid: TEXT,
  },
};

const BASE = {
  singular: '',
  shortNames: [],
  categories: [],
  columns: [],
  selectableFields: [],
  isCustom: false,
};

const LEASES: ApiKind = {
  ...BASE,
  group: 'coordination.k8s.io',
  version: 'v1',
  apiVersion: 'coordination.k8s.io/v1',
  plural: 'leases',
  singular: 'lease',
  kind: 'Lease',
  namespaced: true,
  hasStatus: false,
  schema: new CompiledSchema({
    description: 'Lease defines a lease concept.',
    type: 'object',
    properties: {
      spec: {
        description: 'spec contains the specification of the Lease.',
        type: 'object',
        properties: {
          acquireTime: TIME,
          holderIdentity: TEXT,
          leaseDurationSeconds: { ...INTEGER, minimum: 1 },
          leaseTransitions: { ...INTEGER, minimum: 0 },
          preferredHolder: TEXT,
          renewTime: TIME,
          strategy: TEXT,
        },
      },
    },
  }),
  columns: [
    { name: 'Holder', type: 'string', jsonPath: '.spec.holderIdentity' },
    { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
  ],
};

/** Events are stored in this form; `core-events.ts` converts them for the core group. */
const EVENTS: ApiKind = {
  ...BASE,
  group: 'events.k8s.io',
  version: 'v1',
  apiVersion: 'events.k8s.io/v1',
  plural: 'events',
  singular: 'event',
  kind: 'Event',
  shortNames: ['ev'],
  namespaced: true,
  hasStatus: false,
  schema: new CompiledSchema({
    description: 'Event is a report of an event somewhere in the cluster.',
    type: 'object',
    properties: {
      action: { ...TEXT, maxLength: 128 },
      deprecatedCount: INTEGER,
      deprecatedFirstTimestamp: TIME,
      deprecatedLastTimestamp: TIME,
      deprecatedSource: ANYTHING,
      eventTime: { ...TIME, nullable: true },
      note: { ...TEXT, maxLength: 1024 },
      reason: { ...TEXT, maxLength: 128 },
      regarding: OBJECT_REFERENCE,
      related: OBJECT_REFERENCE,
      reportingController: TEXT,
      reportingInstance: { ...TEXT, maxLength: 128 },
      series: ANYTHING,
      type: TEXT,
    },
  }),
  columns: [
    { name: 'Last Seen', type: 'date', jsonPath: '.eventTime' },
    { name: 'Type', type: 'string', jsonPath: '.type' },
    { name: 'Reason', type: 'string', jsonPath: '.reason' },
    { name: 'Object', type: 'string', jsonPath: '.regarding', cell: formatRegarding },
    { name: 'Message', type: 'string', jsonPath: '.note' },
  ],
  selectableFields: [
    '.reason',
    '.type',
    '.regarding.kind',
    '.regarding.name',
    '.regarding.namespace',
    '.regarding.uid',
  ],
};

/** Events as the core group serves them. */
export const CORE_EVENTS: ApiKind = { ...EVENTS, group: '', apiVersion: 'v1' };

const NAMESPACES: ApiKind = {
  ...BASE,
  group: '',
  version: 'v1',
  apiVersion: 'v1',
  plural: 'namespaces',
  singular: 'namespace',
  kind: 'Namespace',
  shortNames: ['ns'],
  namespaced: false,
  hasStatus: true,
  schema: new CompiledSchema({
    description: 'Namespace provides a scope for Names.',
    type: 'object',
    properties: {
      spec: {
        type: 'object',
        properties: { finalizers: { type: 'array', items: TEXT } },
        default: { finalizers: ['kubernetes'] },
      },
      status: { type: 'object', properties: { phase: TEXT }, default: { phase: 'Active' } },
    },
  }),
  columns: [
    { name: 'Status', type: 'string', jsonPath: '.status.phase' },
    { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
  ],
};

const CRDS: ApiKind = {
  ...BASE,
  group: 'apiextensions.k8s.io',
  version: 'v1',
  apiVersion: 'apiextensions.k8s.io/v1',
  plural: 'customresourcedefinitions',
  singular: 'customresourcedefinition',
  kind: 'CustomResourceDefinition',
  shortNames: ['crd', 'crds'],
  namespaced: false,
  hasStatus: true,
  schema: new CompiledSchema({
    description: 'CustomResourceDefinition represents a resource that should be exposed on the API server.',
    type: 'object',
    properties: { spec: ANYTHING, status: ANYTHING },
  }),
  columns: [{ name: 'Created At', type: 'string', jsonPath: '.metadata.creationTimestamp' }],
};

function formatRegarding({ regarding }: ApiServerObject): string {
  const { kind = '', name = '' } = (regarding ?? {}) as { kind?: string; name?: string };
  return `${kind.toLowerCase()}/${name}`;
}

/** The built-in kinds that are served, each in one version. */
export const BUILT_IN_KINDS: readonly ApiKind[] = [NAMESPACES, EVENTS, LEASES, CRDS];
