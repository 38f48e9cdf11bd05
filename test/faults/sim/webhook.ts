import type { ApiRequest } from '../../../embedded-api-server/requests.ts';

type Json = Record<string, unknown>;

/** What a mutating admission webhook does to the body of a request, by variant of the fault. */
const MUTATIONS: readonly {
  readonly resource: string;
  readonly status: boolean;
  readonly methods: readonly ApiRequest['method'][];
  readonly mutate: (body: Json) => Json;
}[] = [
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

/** The number of variants. */
export const WEBHOOK_MUTATIONS = MUTATIONS.length;

/**
 * Returns a mutating admission webhook. It rewrites what processes send before the API server stores it, and sees
 * neither manual edits nor reads.
 */
export function createWebhook(variant: number): (request: ApiRequest) => ApiRequest {
  const { resource, status, methods, mutate } = MUTATIONS[variant % MUTATIONS.length] ?? {};
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
