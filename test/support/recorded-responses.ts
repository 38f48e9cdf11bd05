/**
 * A response of kube-apiserver 1.37.2, recorded byte for byte except for headers with a date or a request ID.
 * Functions vary a name or a version.
 */
export interface RecordedResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

const JSON_HEADERS = { 'cache-control': 'no-cache, private', 'content-type': 'application/json' };
const TEXT_HEADERS = {
  'cache-control': 'no-cache, private',
  'content-type': 'text/plain; charset=utf-8',
  'x-content-type-options': 'nosniff',
};

function jsonResponse(status: number, body: string, headers: Record<string, string> = {}): RecordedResponse {
  return { status, headers: { ...JSON_HEADERS, ...headers }, body: `${body}\n` };
}

/** Returns a ReverseTunnel as in responses and watches. */
export function tunnelObject(name: string, resourceVersion: string, uid = `uid-${name}`): string {
  return `{"apiVersion":"reverse-tunnel.io/v1alpha1","kind":"ReverseTunnel","metadata":{"creationTimestamp":"2026-11-23T08:32:36Z","generation":1,"managedFields":[{"apiVersion":"reverse-tunnel.io/v1alpha1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{".":{},"f:clusterID":{},"f:nodeID":{},"f:reporter":{".":{},"f:cluster":{},"f:id":{}},"f:tenantID":{},"f:tunnelName":{}}},"manager":"reverse-tunnel-operator","operation":"Update","time":"2026-11-23T08:32:36Z"}],"name":"${name}","namespace":"default","resourceVersion":"${resourceVersion}","uid":"${uid}"},"spec":{"clusterID":"b","nodeID":"c","reporter":{"cluster":"","id":"r"},"tenantID":"a","tunnelName":"t"},"status":{"conditions":[{"reason":"Reported","status":"True","type":"Ready"}],"state":"Connected"}}`;
}

/** Response to a successful POST. */
export function createdResponse(name: string, resourceVersion: string): RecordedResponse {
  return jsonResponse(201, tunnelObject(name, resourceVersion));
}

/** Response to a GET. */
export function okResponse(name: string, resourceVersion: string): RecordedResponse {
  return jsonResponse(200, tunnelObject(name, resourceVersion));
}

/** A list, or one page of it if `continueToken` is set. */
export function listResponse(
  resourceVersion: string,
  rows: readonly string[],
  continueToken = '',
): RecordedResponse {
  return jsonResponse(
    200,
    `{"apiVersion":"reverse-tunnel.io/v1alpha1","items":[${rows.join(',')}],"kind":"ReverseTunnelList","metadata":{"continue":"${continueToken}","resourceVersion":"${resourceVersion}"}}`,
  );
}

/** Response to a DELETE that removed the object. */
export const DELETED = jsonResponse(
  200,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"a","group":"reverse-tunnel.io","kind":"reversetunnels","uid":"c9b10db1-0917-40ba-a462-dd4d4584a994"}}',
);
/** Response to a POST with the name of an existing object. */
export const ALREADY_EXISTS = jsonResponse(
  409,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"reversetunnels.reverse-tunnel.io \\"a\\" already exists","reason":"AlreadyExists","details":{"name":"a","group":"reverse-tunnel.io","kind":"reversetunnels"},"code":409}',
);
/** Response to a POST with the name of an object that waits for its finalizers. */
export const EXISTS_TERMINATING = jsonResponse(
  409,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"object is being deleted: reversetunnels.reverse-tunnel.io \\"a\\" already exists","reason":"AlreadyExists","details":{"name":"a","group":"reverse-tunnel.io","kind":"reversetunnels"},"code":409}',
);
/** Response to a PATCH or DELETE with an outdated resourceVersion. */
export const CONFLICT = jsonResponse(
  409,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Operation cannot be fulfilled on reversetunnels.reverse-tunnel.io \\"a\\": the object has been modified; please apply your changes to the latest version and try again","reason":"Conflict","details":{"name":"a","group":"reverse-tunnel.io","kind":"reversetunnels"},"code":409}',
);
/** Response to a DELETE with the uid of an earlier object of that name. */
export const UID_CONFLICT = jsonResponse(
  409,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Operation cannot be fulfilled on ReverseTunnel.reverse-tunnel.io \\"a\\": the UID in the precondition (00000000-0000-0000-0000-000000000000) does not match the UID in record (de960cfd-fac8-4017-a251-cdc7da89e58a). The object might have been deleted and then recreated","reason":"Conflict","details":{"name":"a","group":"reverse-tunnel.io","kind":"ReverseTunnel"},"code":409}',
);
/** Response to a call on an object that does not exist. */
export const NOT_FOUND = jsonResponse(
  404,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"reversetunnels.reverse-tunnel.io \\"nope\\" not found","reason":"NotFound","details":{"name":"nope","group":"reverse-tunnel.io","kind":"reversetunnels"},"code":404}',
);
/** Response to a POST into a namespace that does not exist; only the kind differs from that of a missing object. */
export const NAMESPACE_MISSING = jsonResponse(
  404,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"namespaces \\"nope\\" not found","reason":"NotFound","details":{"name":"nope","kind":"namespaces"},"code":404}',
);
/** Response to a POST into a terminating namespace; only the cause differs from that of a missing permission. */
export const NAMESPACE_TERMINATING = jsonResponse(
  403,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"reversetunnels.reverse-tunnel.io \\"b\\" is forbidden: unable to create new content in namespace bye because it is being terminated","reason":"Forbidden","details":{"name":"b","group":"reverse-tunnel.io","kind":"reversetunnels","causes":[{"reason":"NamespaceTerminating","message":"namespace bye is being terminated","field":"metadata.namespace"}]},"code":403}',
);
/**
 * Response to a POST of a kind whose CRD is terminating; only the message differs from that of a missing permission.
 */
export const CRD_TERMINATING = jsonResponse(
  403,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"reversetunnels.reverse-tunnel.io \\"c\\" is forbidden: create not allowed while custom resource definition is terminating","reason":"Forbidden","details":{"name":"c","group":"reverse-tunnel.io","kind":"reversetunnels"},"code":403}',
);
/** Response to any call on a kind that is not installed. */
export const CRD_MISSING: RecordedResponse = {
  status: 404,
  headers: TEXT_HEADERS,
  body: '404 page not found\n',
};
/** Response to a call without the required permission. */
export const FORBIDDEN = jsonResponse(
  403,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"reversetunnels.reverse-tunnel.io is forbidden: User \\"system:serviceaccount:default:viewer\\" cannot list resource \\"reversetunnels\\" in API group \\"reverse-tunnel.io\\" in the namespace \\"default\\"","reason":"Forbidden","details":{"group":"reverse-tunnel.io","kind":"reversetunnels"},"code":403}',
);
/** Response to any call with invalid credentials. */
export const UNAUTHORIZED = jsonResponse(
  401,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}',
);
/** Response to an object that violates the schema. */
export const INVALID = jsonResponse(
  422,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"ReverseTunnel.reverse-tunnel.io \\"z\\" is invalid: spec.tunnelName: Invalid value: \\"\\": spec.tunnelName in body should be at least 1 chars long","reason":"Invalid","details":{"name":"z","group":"reverse-tunnel.io","kind":"ReverseTunnel","causes":[{"reason":"FieldValueInvalid","message":"Invalid value: \\"\\": spec.tunnelName in body should be at least 1 chars long","field":"spec.tunnelName"}]},"code":422}',
);
/** Response of API priority and fairness to any call. */
export const TOO_MANY_REQUESTS: RecordedResponse = {
  status: 429,
  headers: { ...TEXT_HEADERS, 'retry-after': '1' },
  body: 'Too many requests, please try again later.\n',
};
/** Response to a list or watch before the watch cache of the kind is filled. */
export const INITIALIZING = jsonResponse(
  429,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"storage is (re)initializing","reason":"TooManyRequests","details":{"retryAfterSeconds":1},"code":429}',
  { 'retry-after': '1' },
);
/** Response to any call before the API server serves all its paths. */
export const STARTING = jsonResponse(
  503,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the request has been made before all known HTTP paths have been installed, please try again","reason":"ServiceUnavailable","details":{"retryAfterSeconds":5},"code":503}',
  { 'retry-after': '5' },
);
/** Response to a list or watch from a version that the store has not reached: etcd was restored. */
export const VERSION_TOO_LARGE = jsonResponse(
  504,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Timeout: Too large resource version: 999999999, current: 210","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}',
  { 'retry-after': '1' },
);
/** Response to a resourceVersion that is not a number. */
export const BAD_VERSION = jsonResponse(
  500,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"resourceVersion: Invalid value: \\"abc\\": strconv.ParseUint: parsing \\"abc\\": invalid syntax","code":500}',
);
/** Response to an invalid continue token. */
export const BAD_CONTINUE = jsonResponse(
  400,
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"invalid continue token: continue key is not valid: invalid character \'i\' looking for beginning of value","reason":"BadRequest","code":400}',
);
/** Response to a continue token whose version was compacted. */
export const CONTINUE_EXPIRED = jsonResponse(
  410,
  '{"kind":"Status","apiVersion":"v1","metadata":{"continue":"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoieDBcdTAwMDAifQ"},"status":"Failure","message":"The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.","reason":"Expired","code":410}',
);

/** Lines of a watch, without the line feed. */
export const watchLines = {
  event: (type: 'ADDED' | 'MODIFIED' | 'DELETED', object: string): string =>
    `{"type":"${type}","object":${object}}`,
  bookmark: (resourceVersion: string): string =>
    `{"type":"BOOKMARK","object":{"apiVersion":"reverse-tunnel.io/v1alpha1","kind":"ReverseTunnel","metadata":{"resourceVersion":"${resourceVersion}"}}}`,
  expired:
    '{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 190 (220)","reason":"Expired","code":410}}',
  /** These two are copied from the API server's source, because they occur only with a faulty etcd. */
  internal:
    '{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"etcdserver: no leader","reason":"InternalError","details":{"causes":[{"message":"etcdserver: no leader"}]},"code":500}}',
  unsafeDelete:
    '{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"failed to prepare current and previous objects: corrupt object has been deleted","reason":"StoreReadError","code":500}}',
  tooManyRequests:
    '{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"storage is (re)initializing","reason":"TooManyRequests","details":{"retryAfterSeconds":1},"code":429}}',
};
