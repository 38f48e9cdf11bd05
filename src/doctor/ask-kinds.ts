import { ApiError } from '../k8s/api-error.ts';
import { GROUP_VERSION } from '../k8s/api-group.ts';
import type { ApiClient } from '../k8s/client.ts';
import type { KindFacts } from './facts.ts';
import { kindDifferences, type KindSchema } from './kind-differences.ts';
import { publishedKind, shippedKinds, type ShippedKind } from './shipped-kinds.ts';

/** The operator does nothing without these. */
const REQUIRED_KINDS = new Set(['reversetunnels', 'reversetunnelreporters']);

/** As far as it is read: `reversetunnels`, and `reversetunnels/status` where there is the subresource. */
interface Discovery {
  readonly resources: readonly { readonly name: string }[];
}

/** By discovery and the published schema, which every account may read: the CRDs themselves take a right of their own. */
export async function askKinds(client: ApiClient): Promise<KindFacts[]> {
  const served = await documentOrNothing<Discovery>(client, `/apis/${GROUP_VERSION}`);
  const names = new Set(served?.resources.map(({ name }) => name));
  const published = await documentOrNothing<object>(client, `/openapi/v3/apis/${GROUP_VERSION}`);
  return shippedKinds().map((shipped) => {
    const { plural, kind } = shipped;
    // Without its status as a path of its own every status write would be answered 404.
    const isServed = names.has(plural) && names.has(`${plural}/status`);
    const schema = isServed ? publishedKind(published, kind) : undefined;
    return {
      plural,
      required: REQUIRED_KINDS.has(plural),
      served: isServed,
      differences: differencesOf(shipped, isServed, schema),
    };
  });
}

function differencesOf(
  shipped: ShippedKind,
  isServed: boolean,
  schema: KindSchema | undefined,
): KindFacts['differences'] {
  if (!isServed) return [];
  // A CRD is served a moment before its schema is published.
  if (schema === undefined) return [{ weight: 'schema', path: 'no published schema' }];
  return kindDifferences(shipped, schema);
}

/** Undefined when the API server does not know the path. */
async function documentOrNothing<T>(client: ApiClient, path: string): Promise<T | undefined> {
  try {
    return await client.document<T>(path);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined;
    throw error;
  }
}
