import { readdirSync, readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { ApiError } from '../k8s/api-error.ts';
import type { ApiClient } from '../k8s/client.ts';
import { API_VERSION, GROUP_VERSION } from '../k8s/resources.ts';
import { packageFile } from '../package-files.ts';
import { crdDifferences, isJsonObject, type CrdSchema, type JsonValue } from './crd-differences.ts';
import type { CrdInfo } from './inputs.ts';

/** The operator cannot run without these CRDs. */
const REQUIRED_CRDS = new Set(['reversetunnels', 'reversetunnelreporters']);

/** The part of an APIResourceList that is read: `reversetunnels`, and `reversetunnels/status` for the subresource. */
interface Discovery {
  readonly resources: readonly { readonly name: string }[];
}

/**
 * Compares the bundled CRDs with the installed ones. Uses discovery and the published OpenAPI schema, which every account
 * may read; reading CRDs needs a cluster-wide permission.
 */
export async function fetchCrds(client: ApiClient): Promise<CrdInfo[]> {
  const discovery = await getRawOrUndefined<Discovery>(client, `/apis/${GROUP_VERSION}`);
  const names = new Set(discovery?.resources.map(({ name }) => name));
  const published = await getRawOrUndefined<object>(client, `/openapi/v3/apis/${GROUP_VERSION}`);
  return readBundledCrds().map((bundled) => {
    const { plural, kind } = bundled;
    // Without the status subresource, every status write would fail with 404.
    const isInstalled = names.has(plural) && names.has(`${plural}/status`);
    const schema = isInstalled ? findPublishedSchema(published, kind) : undefined;
    return {
      plural,
      required: REQUIRED_CRDS.has(plural),
      installed: isInstalled,
      differences: compareWithInstalled(bundled, isInstalled, schema),
    };
  });
}

function compareWithInstalled(
  bundled: BundledCrd,
  isInstalled: boolean,
  schema: CrdSchema | undefined,
): CrdInfo['differences'] {
  if (!isInstalled) return [];
  // A CRD is served a moment before its schema is published.
  if (schema === undefined) return [{ severity: 'schema', path: 'no published schema' }];
  return crdDifferences(bundled, schema);
}

/** Returns undefined if the API server does not serve the path. */
async function getRawOrUndefined<T>(client: ApiClient, path: string): Promise<T | undefined> {
  try {
    return await client.getRaw<T>(path);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined;
    throw error;
  }
}

/** A CRD that this version bundles. */
interface BundledCrd extends CrdSchema {
  readonly kind: string;
  readonly plural: string;
}

/** The part of a CRD file that is compared. It is not validated here: the files are part of the package and tested. */
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

function readBundledCrds(): BundledCrd[] {
  return readdirSync(packageFile('crds'))
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => parseCrd(readFileSync(packageFile(`crds/${file}`), 'utf8'), file));
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

/** Returns the schema of a kind from the OpenAPI document of the API group; undefined if it is not published yet. */
function findPublishedSchema(document: JsonValue, kind: string): CrdSchema | undefined {
  const components = isJsonObject(document) ? document['components'] : undefined;
  const schemas = isJsonObject(components) ? components['schemas'] : undefined;
  if (!isJsonObject(schemas)) return undefined;
  // Schemas are identified by their extension; the names that the API server gives them are not part of its contract.
  for (const schema of Object.values(schemas)) {
    if (!isJsonObject(schema)) continue;
    const kinds = schema['x-kubernetes-group-version-kind'];
    if (
      !Array.isArray(kinds) ||
      !kinds.some((entry: JsonValue) => isJsonObject(entry) && entry['kind'] === kind)
    )
      continue;
    const selectable = schema['x-kubernetes-selectable-fields'];
    return {
      schema,
      selectableFields: Array.isArray(selectable)
        ? selectable.map((entry: JsonValue) => (isJsonObject(entry) ? String(entry['fieldPath']) : ''))
        : [],
    };
  }
  return undefined;
}
