import type { ApiRequest } from '../../../embedded-api-server/requests.ts';

type Json = Record<string, unknown>;

interface Mutation {
  readonly resource: string;
  readonly status: boolean;
  readonly methods: readonly ApiRequest['method'][];
  readonly mutate: (body: Json) => Json;
}

/** What a mutating admission webhook does to the body of a request, by variant of the fault. */
const MUTATIONS: readonly Mutation[] = [
  { resource: 'reversetunnels', status: false, methods: ['POST', 'PATCH'], mutate: relabel },
  { resource: 'reversetunnels', status: false, methods: ['PATCH'], mutate: relabel },
  {
    resource: 'reversetunnels',
    status: false,
    methods: ['POST'],
    mutate: (body) => merge(body, 'spec', { tenantID: 'rewritten' }),
  },
  {
    resource: 'reversetunnels',
    status: false,
    methods: ['POST', 'PATCH'],
    mutate: (body) => merge(body, 'spec', { createdAt: '2020-01-01T00:00:00Z' }),
  },
  {
    resource: 'reversetunnels',
    status: true,
    methods: ['PATCH'],
    mutate: (body) => merge(body, 'status', { state: 'Unknown' }),
  },
  {
    resource: 'reversetunnelreporters',
    status: true,
    methods: ['PATCH'],
    mutate: (body) => merge(body, 'status', { tunnels: { reported: 99, applied: 99, rejected: 0 } }),
  },
];

/** The same for slices. */
const SLICE_MUTATIONS: readonly Mutation[] = [
  { resource: 'reversetunnelslices', status: false, methods: ['POST', 'PATCH'], mutate: relabel },
  { resource: 'reversetunnelslices', status: false, methods: ['POST', 'PATCH'], mutate: rewriteEntry },
  {
    resource: 'reversetunnelslices',
    status: false,
    methods: ['POST'],
    mutate: (body) => merge(body, 'spec', { tenantID: 'rewritten' }),
  },
  {
    resource: 'reversetunnelslices',
    status: true,
    methods: ['PATCH'],
    mutate: (body) => merge(body, 'status', { state: 'Unknown' }),
  },
];

/** The number of variants. */
export const WEBHOOK_MUTATIONS = MUTATIONS.length;

/**
 * Returns a mutating admission webhook. It rewrites what processes send before the API server stores it, and sees
 * neither manual edits nor reads.
 *
 * @param hasSlices two of three variants rewrite slices
 */
export function createWebhook(variant: number, hasSlices = false): (request: ApiRequest) => ApiRequest {
  const isOfSlices = hasSlices && variant % 3 !== 0;
  const mutations = isOfSlices ? SLICE_MUTATIONS : MUTATIONS;
  const { resource, status, methods, mutate } = mutations[variant % mutations.length] ?? {};
  return (request) => {
    const [path = ''] = request.path.split('?');
    const isStatus = path.endsWith('/status');
    if (methods?.includes(request.method) !== true || isStatus !== status || mutate === undefined)
      return request;
    if (!path.split('/').includes(resource ?? '')) return request;
    const body = JSON.parse(request.body ?? '{}') as Json;
    return { ...request, body: JSON.stringify(mutate(body)) };
  };
}

/** Changes the cluster of the first tunnel. */
function rewriteEntry(body: Json): Json {
  const { tunnels = [] } = (body['spec'] ?? {}) as { tunnels?: readonly Json[] };
  const [first, ...others] = tunnels;
  return first === undefined
    ? body
    : merge(body, 'spec', { tunnels: [{ ...first, clusterID: 'rewritten' }, ...others] });
}

function relabel(body: Json): Json {
  const { labels, ...metadata } = (body['metadata'] ?? {}) as Json;
  return {
    ...body,
    metadata: {
      ...metadata,
      labels: { ...(labels as Json | undefined), 'reverse-tunnel.io/tenant': 'other' },
    },
  };
}

function merge(body: Json, part: string, fields: Json): Json {
  return { ...body, [part]: { ...(body[part] as Json | undefined), ...fields } };
}
