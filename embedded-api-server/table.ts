/**
 * Tables, as kubectl requests them: a name and the printer columns of the kind.
 * https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
 */
import type { ApiKind, PrinterColumn } from './api-kind.ts';
import { formatHumanDuration } from './human-duration.ts';
import { compileJsonPath } from './json-path.ts';
import type { ApiServerObject, JsonObject } from './objects.ts';

/** What a table contains of each object in addition to its cells. */
export type IncludeObject = 'None' | 'Metadata' | 'Object';

const NAME_COLUMN = {
  name: 'Name',
  type: 'string',
  format: 'name',
  description:
    'Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names',
  priority: 0,
};

/**
 * Returns a table of objects.
 *
 * @param metadata that of the list
 * @param nowMs ms since 1970, for ages
 */
export function renderTable(
  kind: ApiKind,
  objects: readonly ApiServerObject[],
  { metadata, nowMs, includeObject }: { metadata: JsonObject; nowMs: number; includeObject: IncludeObject },
): JsonObject {
  const readers = kind.columns.map((column) => cellReader(column, nowMs));
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata,
    columnDefinitions: [NAME_COLUMN, ...kind.columns.map((column) => columnDefinition(kind, column))],
    rows: objects.map((object) => ({
      cells: [object.metadata.name, ...readers.map((read) => read(object))],
      object: rowObject(object, includeObject),
    })),
  };
}

function rowObject(object: ApiServerObject, includeObject: IncludeObject): JsonObject | null {
  if (includeObject === 'None') return null;
  if (includeObject === 'Object') return object;
  return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: object.metadata };
}

function columnDefinition(kind: ApiKind, column: PrinterColumn): JsonObject {
  const { name, type, description, jsonPath, priority = 0 } = column;
  return {
    name,
    // Clients get a duration, which the API server formats.
    type: type === 'date' && !kind.isCustom ? 'string' : type,
    format: '',
    description: description ?? `Custom resource definition column (in JSONPath format): ${jsonPath}`,
    priority,
  };
}

function cellReader(
  { type, jsonPath, cell }: PrinterColumn,
  nowMs: number,
): (object: ApiServerObject) => unknown {
  if (cell !== undefined) return cell;
  const read = compileJsonPath(jsonPath);
  return (object) => {
    const [value = null] = read(object);
    if (value === null) return null;
    switch (type) {
      case 'date': {
        const atMs = typeof value === 'string' ? Date.parse(value) : Number.NaN;
        return Number.isNaN(atMs) ? '<invalid>' : formatHumanDuration(nowMs - atMs);
      }
      case 'string':
        return typeof value === 'string' ? value : JSON.stringify(value);
      case 'integer':
        return typeof value === 'number' ? Math.trunc(value) : null;
      case 'number':
      case 'boolean':
        return value;
    }
  };
}
