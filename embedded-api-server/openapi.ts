/** OpenAPI v3 documents, as `kubectl explain` and the validation of kubectl read them. */
import type { ApiKind } from './api-kind.ts';
import type { JsonObject } from './objects.ts';

const OBJECT_META = 'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta';
const CONVENTIONS = 'https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md';

/** The texts that the API server publishes for the fields of every kind. */
const TYPE_META = {
  apiVersion: {
    description: `APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: ${CONVENTIONS}#resources`,
    type: 'string',
  },
  kind: {
    description: `Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: ${CONVENTIONS}#types-kinds`,
    type: 'string',
  },
  metadata: {
    description: `Standard object's metadata. More info: ${CONVENTIONS}#metadata`,
    allOf: [{ $ref: `#/components/schemas/${OBJECT_META}` }],
    default: {},
  },
};

const MAP_OF_TEXT = { type: 'object', additionalProperties: { type: 'string', default: '' } };
const OBJECT_META_SCHEMA = {
  description:
    'ObjectMeta is metadata that all persisted resources must have, which includes all objects users must create.',
  type: 'object',
  properties: {
    annotations: {
      description:
        'Annotations is an unstructured key value map stored with a resource that may be set by external tools.',
      ...MAP_OF_TEXT,
    },
    creationTimestamp: {
      description: 'Time when this object was created.',
      type: 'string',
      format: 'date-time',
    },
    deletionTimestamp: {
      description: 'Time at which this resource will be deleted.',
      type: 'string',
      format: 'date-time',
    },
    finalizers: {
      description: 'Must be empty before the object is deleted from the registry.',
      type: 'array',
      items: { type: 'string', default: '' },
    },
    generateName: { description: 'Optional prefix to generate a unique name.', type: 'string' },
    generation: {
      description: 'A sequence number representing a specific generation of the desired state.',
      type: 'integer',
      format: 'int64',
    },
    labels: {
      description: 'Map of string keys and values that can be used to organize and categorize objects.',
      ...MAP_OF_TEXT,
    },
    name: { description: 'Name must be unique within a namespace.', type: 'string' },
    namespace: {
      description: 'Namespace defines the space within which each name must be unique.',
      type: 'string',
    },
    resourceVersion: {
      description: 'An opaque value that represents the internal version of this object.',
      type: 'string',
    },
    uid: { description: 'UID is the unique in time and space value for this object.', type: 'string' },
  },
};

/** Returns the document at a path; undefined if the path does not belong to OpenAPI. */
export function openApiDocument(kinds: readonly ApiKind[], pathname: string): JsonObject | undefined {
  const [, root, version, ...segments] = pathname.split('/');
  if (root !== 'openapi' || version !== 'v3') return undefined;
  if (segments.length === 0) {
    const paths = new Set(kinds.map((kind) => groupVersionPath(kind)));
    return {
      paths: Object.fromEntries(
        [...paths].map((path) => [path, { serverRelativeURL: `/openapi/v3/${path}` }]),
      ),
    };
  }
  const members = kinds.filter((kind) => groupVersionPath(kind) === segments.join('/'));
  if (members.length === 0) return undefined;
  return {
    openapi: '3.0.0',
    info: { title: 'Kubernetes', version: 'v1.37.2' },
    paths: Object.assign({}, ...members.map((kind) => pathsOf(kind))) as JsonObject,
    components: {
      schemas: {
        ...Object.fromEntries(members.map((kind) => [schemaName(kind), publishedSchema(kind)])),
        [OBJECT_META]: OBJECT_META_SCHEMA,
      },
    },
  };
}

function groupVersionPath({ group, apiVersion }: ApiKind): string {
  return `${group === '' ? 'api' : 'apis'}/${apiVersion}`;
}

function schemaName({ group, version, kind }: ApiKind): string {
  return [...group.split('.').toReversed(), version, kind].filter((part) => part !== '').join('.');
}

function publishedSchema({ schema, group, version, kind }: ApiKind): JsonObject {
  return {
    ...schema.root,
    properties: { ...schema.root.properties, ...TYPE_META },
    'x-kubernetes-group-version-kind': [{ group, version, kind }],
  };
}

/** Returns the operations of a kind; kubectl reads which of them validate fields on the server. */
function pathsOf(kind: ApiKind): JsonObject {
  const scope = kind.namespaced ? '/namespaces/{namespace}' : '';
  const collection = `/${groupVersionPath(kind)}${scope}/${kind.plural}`;
  const { group, version } = kind;
  const operation = (action: string): JsonObject => ({
    parameters: ['dryRun', 'fieldManager', 'fieldValidation'].map((name) => ({
      name,
      in: 'query',
      schema: { type: 'string', uniqueItems: true },
    })),
    responses: {
      '200': {
        content: { 'application/json': { schema: { $ref: `#/components/schemas/${schemaName(kind)}` } } },
      },
    },
    'x-kubernetes-action': action,
    'x-kubernetes-group-version-kind': { group, version, kind: kind.kind },
  });
  return {
    [collection]: { get: operation('list'), post: operation('post') },
    [`${collection}/{name}`]: { get: operation('get'), patch: operation('patch'), put: operation('put') },
  };
}
