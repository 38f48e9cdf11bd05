/**
 * The HTTP front of the embedded API server: each request is sent to it and to a real API server, and the responses
 * must be equal, except for what differs between two runs of the same server.
 */
import { expect } from 'chai';
import { type JsonRequest, requestJson } from '../../control-plane/https-json.ts';
import { type EmbeddedApiServer, startEmbeddedApiServer } from '../../embedded-api-server/start.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { SLICE_SPEC, TUNNEL_SPEC } from '../support/crd-objects.ts';

const TABLE = { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json' };
const GROUP = '/apis/reverse-tunnel.io/v1alpha1';
/** Times that are long ago in both runs, so that ages are equal. */
const CREATED_AT = '2020-01-01T00:00:00Z';
const TIMEOUT_MS = 60_000;

type Body = Readonly<Record<string, unknown>>;
type Request = Pick<JsonRequest, 'method' | 'body' | 'headers'> & { readonly path: string };

function tunnel(name: string, spec: object = {}, metadata: object = {}): Body {
  return {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnel',
    metadata: { name, ...metadata },
    spec: { ...TUNNEL_SPEC, createdAt: CREATED_AT, ...spec },
  };
}

function policy(name: string, rules: unknown): Body {
  return {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnelPolicy',
    metadata: { name },
    spec: { rules },
  };
}

function expectation(name: string, spec: object): Body {
  return {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnelExpectation',
    metadata: { name },
    spec,
  };
}

function slice(name: string, tunnels: readonly object[], tunnelCount = tunnels.length): Body {
  return {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnelSlice',
    metadata: { name },
    spec: { ...SLICE_SPEC, tunnelCount, tunnels },
  };
}

/** Returns entries of a slice. */
function entries(count: number): object[] {
  return Array.from({ length: count }, (_, i) => ({ name: `n-${i}`, clusterID: 'eu-1', nodeID: `n-${i}` }));
}

const VALID_RULE = { peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'] };

/** Requests in order, with NS in place of the namespace. */
const SCENARIOS: Readonly<Record<string, readonly Request[]>> = {
  'creates an object, and rejects it when it exists': [
    post('reversetunnels', tunnel('once', {}, { labels: { a: '1' }, annotations: { note: 'x' } })),
    post('reversetunnels', tunnel('once')),
    get('reversetunnels/once'),
    get('reversetunnels/missing'),
  ],
  'rejects invalid fields with all of their errors': [
    post(
      'reversetunnels',
      tunnel('invalid', { nodeID: '', tenantID: 'a\u0007', clusterID: 'x'.repeat(258) }),
    ),
    post('reversetunnels', tunnel('invalid', { nodeID: 5, reporter: {} })),
    post('reversetunnels', tunnel('invalid', { createdAt: 'yesterday' })),
    post('reversetunnels', { ...tunnel('invalid'), spec: undefined }),
    post('reversetunnels', tunnel('Not_Legal', { nodeID: '' })),
    post('reversetunnels', tunnel('labelled', {}, { labels: { 'a b': 'c d' } })),
    post('reversetunnelpolicies', policy('invalid', [{ ...VALID_RULE, peers: [] }])),
    post('reversetunnelpolicies', policy('invalid', [{ ...VALID_RULE, peers: [{ any: false }] }])),
    post(
      'reversetunnelpolicies',
      policy('invalid', [{ ...VALID_RULE, limits: { tunnels: 0, reportsBurst: 1001 } }]),
    ),
    post(
      'reversetunnelpolicies',
      policy(
        'invalid',
        Array.from({ length: 65 }, () => VALID_RULE),
      ),
    ),
  ],
  'evaluates the rules of a CRD': [
    post('reversetunnelpolicies', policy('rule', [{ ...VALID_RULE, peers: [{ any: true, dnsName: 'a' }] }])),
    post('reversetunnelpolicies', policy('rule', [{ ...VALID_RULE, peers: [{}] }])),
    post('reversetunnels', tunnel('identity')),
    patch('reversetunnels/identity', { spec: { nodeID: 'other', reporter: { id: 'other' } } }),
  ],
  'evaluates rules about durations and maps, and sets defaults in the spec': [
    post('reversetunnelexpectations', expectation('grace', { match: {}, gracePeriod: '169h' })),
    post('reversetunnelexpectations', expectation('grace', { match: {}, gracePeriod: '1h60m' })),
    post('reversetunnelexpectations', expectation('both', { match: { nodeID: 'a', nodes: ['b'] } })),
    post(
      'reversetunnelexpectations',
      expectation('label', { match: { selector: { matchLabels: { team: 'a' } } } }),
    ),
    post('reversetunnelexpectations', expectation('defaults', { match: { nodeID: 'a' } })),
    patch('reversetunnelexpectations/defaults/status', { status: { tunnels: 1, missingNodes: ['a'] } }),
  ],
  'compares the entries of a slice by name, and their number with the count': [
    post('reversetunnelslices', slice('full', entries(100))),
    post('reversetunnelslices', slice('invalid', entries(101))),
    post('reversetunnelslices', slice('invalid', [])),
    post('reversetunnelslices', slice('invalid', [...entries(1), ...entries(1)])),
    post('reversetunnelslices', slice('invalid', entries(2), 3)),
    post('reversetunnelslices', slice('invalid', [{ name: 'n' }])),
    patch('reversetunnelslices/full', { spec: { tunnels: entries(2) } }),
    patch('reversetunnelslices/full', { spec: { tunnelCount: 2, tunnels: entries(2) } }),
    patch('reversetunnelslices/full', { spec: { tenantID: 'globex' } }),
    patch('reversetunnelslices/full/status', {
      status: { tunnels: [{ name: 'n-0', state: 'Unknown' }] },
    }),
    patch('reversetunnelslices/full/status', { status: { tunnels: [{ name: 'n-0', state: 'Lost' }] } }),
    { ...get('reversetunnelslices/full?includeObject=None'), headers: TABLE },
  ],
  'prunes unknown fields, or rejects them if the client asks for it': [
    post('reversetunnels', tunnel('pruned', { extra: 1 })),
    post('reversetunnels?fieldValidation=Strict', tunnel('strict', { extra: 1 })),
    patch('reversetunnels/pruned?fieldValidation=Strict', { spec: { extra: 1 } }),
  ],
  'counts generations of the spec, not of metadata and status': [
    post('reversetunnelpolicies', policy('counted', [VALID_RULE])),
    patch('reversetunnelpolicies/counted', { metadata: { labels: { a: '1' } } }),
    patch('reversetunnelpolicies/counted', { spec: { rules: [] } }),
    patch('reversetunnelpolicies/counted/status', { status: { rules: 0 } }),
    patch('reversetunnelpolicies/counted/status', { status: { rules: -1 } }),
    get('reversetunnelpolicies/counted/status'),
  ],
  'replaces an object, and stores nothing in a dry run': [
    post('reversetunnels?dryRun=All', tunnel('dry')),
    get('reversetunnels/dry'),
    post('reversetunnels', tunnel('replaced', {}, { labels: { a: '1' } })),
    {
      method: 'PUT',
      path: `${GROUP}/namespaces/NS/reversetunnels/replaced`,
      body: tunnel('replaced', { createdAt: undefined }),
    },
    {
      method: 'PUT',
      path: `${GROUP}/namespaces/NS/reversetunnels/replaced`,
      body: tunnel('replaced', {}, { resourceVersion: '1' }),
    },
    del('reversetunnels/replaced', { preconditions: { uid: 'other' } }),
    del('reversetunnels/replaced', { preconditions: { resourceVersion: '1' } }),
    del('reversetunnels/replaced'),
    del('reversetunnels/replaced'),
  ],
  'keeps an object until its last finalizer is removed': [
    post('reversetunnels', tunnel('held', {}, { finalizers: ['example.com/hold'] })),
    del('reversetunnels/held'),
    post('reversetunnels', tunnel('held')),
    patch('reversetunnels/held', { metadata: { finalizers: null } }),
    get('reversetunnels/held'),
  ],
  'selects by label and by field': [
    ...['sel-a', 'sel-b', 'sel-c'].map((name, index) =>
      post(
        'reversetunnels',
        tunnel(name, { tenantID: `tenant-${index}` }, { labels: { sel: name, n: String(index) } }),
      ),
    ),
    ...[
      'sel',
      'sel=sel-a',
      'sel!=sel-a,sel',
      'sel in (sel-a,sel-c)',
      'sel,n notin (1)',
      'sel,!n',
      'n==1',
      'sel in sel-a',
    ].map((selector) => get(`reversetunnels?labelSelector=${encodeURIComponent(selector)}`)),
    ...[
      'spec.tenantID=tenant-1',
      'spec.tenantID!=tenant-1,metadata.name=sel-a',
      'status.state=Unknown',
      'spec.foo=a',
    ].map((selector) =>
      get(`reversetunnels?labelSelector=sel&fieldSelector=${encodeURIComponent(selector)}`),
    ),
  ],
  'returns pages with the number of remaining objects': [
    ...['a', 'b', 'c'].map((name) => post('reversetunnelreporters', reporter(name))),
    get('reversetunnelreporters?limit=2'),
    get('reversetunnelreporters?limit=2&labelSelector=a'),
    get('reversetunnelreporters?limit=3'),
  ],
  'returns tables with the printer columns': [
    post('reversetunnels', tunnel('shown')),
    patch('reversetunnels/shown/status', { status: { state: 'Unknown' } }),
    { ...get('reversetunnels?fieldSelector=metadata.name%3Dshown'), headers: TABLE },
    { ...get('reversetunnels/shown?includeObject=None'), headers: TABLE },
    { ...get('reversetunnels/missing'), headers: TABLE },
    post('reversetunnelpolicies', policy('shown', [VALID_RULE])),
    { ...get('reversetunnelpolicies/shown?includeObject=None'), headers: TABLE },
    post('reversetunnelreporters', reporter('shown')),
    { ...get('reversetunnelreporters/shown?includeObject=Object'), headers: TABLE },
  ],
  'answers watches from too old versions and with the current objects': [
    get('reversetunnels?watch=1&resourceVersion=1&timeoutSeconds=1'),
    get('reversetunnels?watch=1&timeoutSeconds=1&fieldSelector=spec.foo%3Da'),
  ],
  'deletes the selected objects of a collection': [
    post('reversetunnels', tunnel('many-1', {}, { labels: { many: '1' } })),
    post('reversetunnels', tunnel('many-2', {}, { labels: { many: '2' } })),
    del('reversetunnels?labelSelector=many%3D1'),
    get('reversetunnels?labelSelector=many'),
  ],
  'rejects what it does not serve': [
    get('nonesuch'),
    { method: 'GET', path: '/apis/example.com/v1' },
    { method: 'GET', path: `${GROUP}/namespaces/missing/reversetunnels` },
    { method: 'POST', path: `${GROUP}/namespaces/missing/reversetunnels`, body: tunnel('a') },
    { method: 'GET', path: `${GROUP}/reversetunnels`, headers: { authorization: 'Bearer wrong' } },
  ],
  'describes the kinds of the group': [
    { method: 'GET', path: GROUP },
    { method: 'GET', path: '/apis/reverse-tunnel.io' },
  ],
};

function reporter(name: string): Body {
  return {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnelReporter',
    metadata: { name },
    spec: { id: name, cluster: 'edge' },
  };
}

function get(path: string): Request {
  return { method: 'GET', path: `${GROUP}/namespaces/NS/${path}` };
}
function post(path: string, body: Body): Request {
  return { method: 'POST', path: `${GROUP}/namespaces/NS/${path}`, body };
}
function patch(path: string, body: Body): Request {
  return { method: 'PATCH', path: `${GROUP}/namespaces/NS/${path}`, body };
}
function del(path: string, body?: Body): Request {
  return {
    method: 'DELETE',
    path: `${GROUP}/namespaces/NS/${path}`,
    ...(body === undefined ? {} : { body }),
  };
}

function byText(a: unknown, b: unknown): number {
  return JSON.stringify(a) < JSON.stringify(b) ? -1 : 1;
}

/** Removes what differs between two runs: versions, uids, times, tokens, and managed fields, which are not served. */
function normalize(value: unknown, field = ''): unknown {
  if (Array.isArray(value)) {
    const items = value.map((item) => normalize(item));
    // The order of kinds depends on the order in which their CRDs were created; that of errors is random.
    return field === 'resources' || field === 'causes' ? items.toSorted(byText) : items;
  }
  if (typeof value === 'object' && value !== null) {
    const kept = Object.entries(value).filter(
      ([name]) => name !== 'managedFields' && name !== 'storageVersionHash',
    );
    return Object.fromEntries(kept.map(([name, item]) => [name, normalize(item, name)]));
  }
  if (typeof value !== 'string') return value;
  if (['resourceVersion', 'uid', 'continue'].includes(field)) return value === '' ? '' : `a ${field}`;
  if (['creationTimestamp', 'deletionTimestamp'].includes(field)) return 'a time';
  // Ages, and what messages contain of versions, uids and objects.
  return (
    value
      .replace(/^\d+s$/, 'seconds')
      // The causes contain each of them.
      .replace(/ is invalid: \[.*\]$/s, ' is invalid: several errors')
      .replace(/(too old resource version: 1 \()\d+/, '$1…')
      .replace(/Invalid value: "\{.*\}"/, 'Invalid value: an object')
      .replace(/in record \([-0-9a-f]+\)/, 'in record (…)')
  );
}

describe('HTTP front of the embedded API server', () => {
  const controlPlane = useControlPlane();
  let embedded: EmbeddedApiServer;
  /** The embedded and the real one: the URL, its CA and a token. */
  let targets: readonly { readonly url: string; readonly caData: string; readonly token: string }[];
  let namespace: string;

  before(async () => {
    embedded = await startEmbeddedApiServer();
    const { url, caData, adminToken } = controlPlane();
    namespace = await createNamespace(controlPlane(), 'contract-http');
    await embedded.request('POST', '/api/v1/namespaces', { metadata: { name: namespace } });
    targets = [embedded, { url, caData, token: adminToken }];
  });
  after(() => embedded.stop());

  for (const [title, requests] of Object.entries(SCENARIOS)) {
    it(`${title}, like a real one`, async () => {
      const [embeddedResponses, realResponses] = await Promise.all(
        targets.map(async ({ url, caData: ca, token }) => {
          const responses = [];
          for (const request of requests) {
            const path = request.path.replace('NS', namespace);
            const exchange = { ...request, url: url + path, ca, token, timeoutMs: TIMEOUT_MS };
            const { status, body } = await requestJson(exchange);
            responses.push({ request: `${request.method} ${path}`, status, body: normalize(body) });
          }
          return responses;
        }),
      );
      for (const [index, response] of (embeddedResponses ?? []).entries())
        expect(response).to.deep.equal(realResponses?.[index]);
    });
  }
});
