import { readdirSync, readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { API_VERSION } from '../k8s/resources.ts';
import { isMapping, type CrdSchema, type JsonValue } from './crd-differences.ts';

/** In the package beside `src` and `dist`. */
const CRD_FOLDER = new URL('../../crds/', import.meta.url);

/** A kind as this version brings it. */
export interface BundledCrd extends CrdSchema {
  readonly kind: string;
  readonly plural: string;
}

/** The kinds of the CRD files that this version ships, at the version that it serves. */
export function bundledCrds(): BundledCrd[] {
  return readdirSync(CRD_FOLDER)
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => parseCrd(readFileSync(new URL(file, CRD_FOLDER), 'utf8'), file));
}

/** As far as it is compared. Nothing of it is checked here: the files are shipped with this program, and tested. */
interface CrdDocument {
  readonly spec: {
    readonly names: { readonly kind: string; readonly plural: string };
    readonly versions: readonly {
      readonly name: string;
      readonly schema: { readonly openAPIV3Schema: JsonValue };
      readonly selectableFields?: readonly { readonly jsonPath: string }[];
    }[];
  };
}

function parseCrd(text: string, file: string): BundledCrd {
  const { spec }: CrdDocument = parse(text);
  const version = spec.versions.find(({ name }) => name === API_VERSION);
  if (version === undefined) throw new Error(`crds/${file}: no version ${API_VERSION}`);
  const selectableFields = (version.selectableFields ?? []).map(({ jsonPath }) =>
    jsonPath.replace(/^\./, ''),
  );
  return { ...spec.names, schema: version.schema.openAPIV3Schema, selectableFields };
}

/** The kind as the API server publishes it in its OpenAPI document of the group; undefined when it does not yet. */
export function publishedSchema(document: JsonValue, kind: string): CrdSchema | undefined {
  const components = isMapping(document) ? document['components'] : undefined;
  const schemas = isMapping(components) ? components['schemas'] : undefined;
  if (!isMapping(schemas)) return undefined;
  // By the extension: how the API server calls a schema is no contract.
  for (const schema of Object.values(schemas)) {
    if (!isMapping(schema)) continue;
    const kinds = schema['x-kubernetes-group-version-kind'];
    if (
      !Array.isArray(kinds) ||
      !kinds.some((entry: JsonValue) => isMapping(entry) && entry['kind'] === kind)
    )
      continue;
    const selectable = schema['x-kubernetes-selectable-fields'];
    return {
      schema,
      selectableFields: Array.isArray(selectable)
        ? selectable.map((entry: JsonValue) => (isMapping(entry) ? String(entry['fieldPath']) : ''))
        : [],
    };
  }
  return undefined;
}
