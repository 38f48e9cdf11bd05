/** Responses of the API server, each recorded from a real one. */
import { API_KINDS } from './kinds.ts';

/** An HTTP response. */
export interface ApiResponse {
  readonly status: number;
  readonly text: string;
  /** The Retry-After header. */
  readonly retryAfter: string | undefined;
}

/** Returns 200 with an object. */
export function ok(text: string): ApiResponse {
  return { status: 200, text, retryAfter: undefined };
}

/** The response for a path that is not served, in plain text. */
export const NO_KIND_MATCH: ApiResponse = {
  status: 404,
  text: '404 page not found\n',
  retryAfter: undefined,
};
/** The response of priority and fairness, in plain text. */
export const TOO_MANY_REQUESTS: ApiResponse = {
  status: 429,
  text: 'Too many requests, please try again later.\n',
  retryAfter: '1',
};

/** Returns 404 for an object. */
export function notFound(resource: string, name: string): ApiResponse {
  return statusResponse(404, 'NotFound', `${qualifiedName(resource)} "${name}" not found`, {
    name,
    kind: resource,
  });
}

/** Returns 404 for a create in a missing namespace. */
export function missingNamespace(namespace: string): ApiResponse {
  return statusResponse(404, 'NotFound', `namespaces "${namespace}" not found`, {
    name: namespace,
    kind: 'namespaces',
  });
}

/** Returns 403 for a create in a terminating namespace. */
export function namespaceTerminating(resource: string, name: string, namespace: string): ApiResponse {
  const message = `${qualifiedName(resource)} "${name}" is forbidden: unable to create new content in namespace ${namespace} because it is being terminated`;
  const causes = [{ reason: 'NamespaceTerminating', message, field: 'metadata.namespace' }];
  return statusResponse(403, 'Forbidden', message, { name, kind: resource, causes });
}

/** Returns 403 for a create while the CRD is being deleted. */
export function kindTerminating(resource: string, name: string): ApiResponse {
  const message = `${qualifiedName(resource)} "${name}" is forbidden: create not allowed while custom resource definition is terminating`;
  return statusResponse(403, 'Forbidden', message, { name, kind: resource });
}

/** Returns 409 for a create of an object that exists or is being deleted. */
export function alreadyExists(resource: string, name: string, terminating: boolean): ApiResponse {
  const message = terminating
    ? `object is being deleted: ${qualifiedName(resource)} "${name}" already exists`
    : `${qualifiedName(resource)} "${name}" already exists`;
  return statusResponse(409, 'AlreadyExists', message, { name, kind: resource });
}

/** Returns 409 for a write whose precondition does not hold. */
export function conflict(resource: string, name: string): ApiResponse {
  const message = `Operation cannot be fulfilled on ${qualifiedName(resource)} "${name}": the object has been modified`;
  return statusResponse(409, 'Conflict', message, { name, kind: resource });
}

/** Returns 422 for an object that the schema rejects. */
export function invalid(resource: string, name: string, message: string): ApiResponse {
  const causes = [{ reason: 'FieldValueForbidden', message, field: 'spec' }];
  return statusResponse(422, 'Invalid', `${resource} "${name}" is invalid: ${message}`, { name, causes });
}

/** Returns 410 for a version or a token that is no longer kept. */
export function expired(message: string): ApiResponse {
  return statusResponse(410, 'Expired', message, {});
}

/** Returns 500. */
export function internalError(message: string): ApiResponse {
  return statusResponse(500, 'InternalError', `Internal error occurred: ${message}`, {});
}

/** Returns 503, as while the API server starts. */
export function unavailable(): ApiResponse {
  const answer = statusResponse(
    503,
    'ServiceUnavailable',
    'the server is currently unable to handle the request',
    {
      retryAfterSeconds: 5,
    },
  );
  return { ...answer, retryAfter: '5' };
}

/** Returns 504 for a request whose timeout has passed. */
export function timedOut(): ApiResponse {
  return statusResponse(504, 'Timeout', 'Timeout: request did not complete within the allotted timeout', {});
}

/** Returns the response to a DELETE that removed the object. */
export function deleted(resource: string, name: string, uid: string): ApiResponse {
  const details = { kind: resource, name, uid };
  return ok(JSON.stringify({ apiVersion: 'v1', details, kind: 'Status', metadata: {}, status: 'Success' }));
}

/** Returns the resource with its group, as error messages name it. */
function qualifiedName(resource: string): string {
  return `${resource}.${(API_KINDS[resource]?.apiVersion ?? '').split('/')[0] ?? ''}`;
}

function statusResponse(code: number, reason: string, message: string, details: object): ApiResponse {
  const body = {
    apiVersion: 'v1',
    code,
    details,
    kind: 'Status',
    message,
    metadata: {},
    reason,
    status: 'Failure',
  };
  return { status: code, text: JSON.stringify(body), retryAfter: undefined };
}
