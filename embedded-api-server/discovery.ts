/** Discovery, in its aggregated form and group by group. https://kubernetes.io/docs/concepts/overview/kubernetes-api/ */
import type { ApiKind } from './api-kind.ts';
import type { JsonObject } from './objects.ts';

/** The version of Kubernetes whose API is served; clients compare it with their own. */
const SERVER_VERSION = { major: '1', minor: '37', gitVersion: 'v1.37.2+embedded' };

/** In the order of the real one, for custom kinds. */
const VERBS = ['delete', 'deletecollection', 'get', 'list', 'patch', 'create', 'update', 'watch'];
const STATUS_VERBS = ['get', 'patch', 'update'];
const AGGREGATED = /application\/json;(?:.*;)?as=APIGroupDiscoveryList/;

/**
 * Returns the document at a path; undefined if the path does not belong to discovery.
 *
 * @param accept the Accept header
 */
export function discoveryDocument(
  kinds: readonly ApiKind[],
  pathname: string,
  accept: string,
): { readonly body: JsonObject; readonly contentType: string } | undefined {
  const isAggregated = AGGREGATED.test(accept) && (pathname === '/api' || pathname === '/apis');
  const body = isAggregated ? aggregated(kinds, pathname === '/api') : plainDocument(kinds, pathname);
  const version = /v=(v2[a-z0-9]*)/.exec(accept)?.[1] ?? 'v2';
  const contentType = isAggregated
    ? `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`
    : 'application/json';
  return body === undefined ? undefined : { body, contentType };
}

function plainDocument(kinds: readonly ApiKind[], pathname: string): JsonObject | undefined {
  const [, root, group = '', version] = pathname.split('/');
  if (pathname === '/version')
    return { ...SERVER_VERSION, gitCommit: '', platform: `node/${process.version}` };
  if (pathname === '/api') return { kind: 'APIVersions', versions: ['v1'] };
  if (pathname === '/apis') {
    const groups = groupsOf(kinds).map((members) => groupDocument(members));
    return { kind: 'APIGroupList', apiVersion: 'v1', groups };
  }
  if (pathname === '/api/v1') return resourceList(kinds.filter((kind) => kind.group === ''));
  const members = kinds.filter((kind) => kind.group === group && group !== '');
  if (root !== 'apis' || members.length === 0 || pathname.split('/').length > 4) return undefined;
  if (version === undefined) return { kind: 'APIGroup', apiVersion: 'v1', ...groupDocument(members) };
  const served = members.filter((kind) => kind.version === version);
  return served.length === 0 ? undefined : resourceList(served);
}

/** Returns the kinds of each named group. */
function groupsOf(kinds: readonly ApiKind[]): ApiKind[][] {
  return [...Map.groupBy(kinds, ({ group }) => group)]
    .filter(([group]) => group !== '')
    .map(([, members]) => members);
}

function groupDocument([first]: readonly ApiKind[]): JsonObject {
  const { group = '', version = '', apiVersion = '' } = first ?? {};
  const served = { groupVersion: apiVersion, version };
  return { name: group, versions: [served], preferredVersion: served };
}

function resourceList(kinds: readonly ApiKind[]): JsonObject {
  const resources = kinds.flatMap((kind) => {
    const { plural, singular, namespaced, shortNames, categories } = kind;
    const common = { namespaced, kind: kind.kind };
    const main = {
      name: plural,
      singularName: singular,
      ...common,
      verbs: VERBS,
      ...(shortNames.length === 0 ? {} : { shortNames }),
      ...(categories.length === 0 ? {} : { categories }),
    };
    const status = { name: `${plural}/status`, singularName: '', ...common, verbs: STATUS_VERBS };
    return kind.hasStatus ? [main, status] : [main];
  });
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion: kinds[0]?.apiVersion, resources };
}

function aggregated(kinds: readonly ApiKind[], isCore: boolean): JsonObject {
  const groups = isCore ? [kinds.filter(({ group }) => group === '')] : groupsOf(kinds);
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: 'apidiscovery.k8s.io/v2',
    metadata: {},
    items: groups.map((members) => ({
      metadata: { name: members[0]?.group, creationTimestamp: null },
      versions: [
        {
          version: members[0]?.version,
          freshness: 'Current',
          resources: members.map((kind) => aggregatedResource(kind)),
        },
      ],
    })),
  };
}

function aggregatedResource(kind: ApiKind): JsonObject {
  const { group, version, plural, singular, namespaced, shortNames, categories, hasStatus } = kind;
  const responseKind = { group, version, kind: kind.kind };
  return {
    resource: plural,
    responseKind,
    scope: namespaced ? 'Namespaced' : 'Cluster',
    singularResource: singular,
    verbs: VERBS,
    ...(shortNames.length === 0 ? {} : { shortNames }),
    ...(categories.length === 0 ? {} : { categories }),
    ...(hasStatus ? { subresources: [{ subresource: 'status', responseKind, verbs: STATUS_VERBS }] } : {}),
  };
}
