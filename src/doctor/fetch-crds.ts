import { ApiError } from '../k8s/api-error.ts';
import { GROUP_VERSION } from '../k8s/resources.ts';
import type { ApiClient } from '../k8s/client.ts';
import type { CrdInfo } from './inputs.ts';
import { crdDifferences, type CrdSchema } from './crd-differences.ts';
import { publishedSchema, bundledCrds, type BundledCrd } from './bundled-crds.ts';

/** The operator does nothing without these. */
const REQUIRED_CRDS = new Set(['reversetunnels', 'reversetunnelreporters']);

/** As far as it is read: `reversetunnels`, and `reversetunnels/status` where there is the subresource. */
interface Discovery {
  readonly resources: readonly { readonly name: string }[];
}

/** By discovery and the published schema, which every account may read: the CRDs themselves take a right of their own. */
export async function fetchCrds(client: ApiClient): Promise<CrdInfo[]> {
  const discovery = await getRawOrUndefined<Discovery>(client, `/apis/${GROUP_VERSION}`);
  const names = new Set(discovery?.resources.map(({ name }) => name));
  const published = await getRawOrUndefined<object>(client, `/openapi/v3/apis/${GROUP_VERSION}`);
  return bundledCrds().map((bundled) => {
    const { plural, kind } = bundled;
    // Without its status as a path of its own every status write would be answered 404.
    const isInstalled = names.has(plural) && names.has(`${plural}/status`);
    const schema = isInstalled ? publishedSchema(published, kind) : undefined;
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

/** Undefined when the API server does not know the path. */
async function getRawOrUndefined<T>(client: ApiClient, path: string): Promise<T | undefined> {
  try {
    return await client.getRaw<T>(path);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined;
    throw error;
  }
}
