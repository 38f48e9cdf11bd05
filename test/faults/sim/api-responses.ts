/** Answers as a real API server gives them: each was recorded from one. */
import { API_KINDS } from './api-kinds.ts';

/** What comes back over HTTP. */
export interface ApiResponse {
  readonly status: number;
  readonly text: string;
  /** The Retry-After header. */
  readonly retryAfter: string | undefined;
}

/** 200 with an object. */
export function ok(text: string): ApiResponse {
  return { status: 200, text, retryAfter: undefined };
}

/** To a path that is not served; in plain text. */
export const NO_KIND_MATCH: ApiResponse = {
  status: 404,
  text: '404 page not found\n',
  retryAfter: undefined,
};
/** Of the limits on requests in flight; in plain text. */
export const TOO_MANY_REQUESTS: ApiResponse = {
  status: 429,
  text: 'Too many requests, please try again later.\n',
  retryAfter: '1',
};

/** 404 of an object. */
export function notFound(resource: string, name: string): ApiResponse {
  return statusResponse(404, 'NotFound', `${qualifiedName(resource)} "${name}" not found`, {
    name,
    kind: resource,
  });
}

/** 404 to a creation. */
export function missingNamespace(namespace: string): ApiResponse {
  return statusResponse(404, 'NotFound', `namespaces "${namespace}" not found`, {
    name: namespace,
    kind: 'namespaces',
  });
}

/** 403 to a creation, while a namespace is emptied. */
export function namespaceTerminating(resource: string, name: string, namespace: string): ApiResponse {
  const message = `${qualifiedName(resource)} "${name}" is forbidden: unable to create new content in namespace ${namespace} because it is being terminated`;
  const causes = [{ reason: 'NamespaceTerminating', message, field: 'metadata.namespace' }];
  return statusResponse(403, 'Forbidden', message, { name, kind: resource, causes });
}

/** 403 to a creation, while a CRD is being deleted. */
export function kindTerminating(resource: string, name: string): ApiResponse {
  const message = `${qualifiedName(resource)} "${name}" is forbidden: create not allowed while custom resource definition is terminating`;
  return statusResponse(403, 'Forbidden', message, { name, kind: resource });
}

/** 409 to a creation; also for what is being deleted. */
export function alreadyExists(resource: string, name: string, terminating: boolean): ApiResponse {
  const message = terminating
    ? `object is being deleted: ${qualifiedName(resource)} "${name}" already exists`
    : `${qualifiedName(resource)} "${name}" already exists`;
  return statusResponse(409, 'AlreadyExists', message, { name, kind: resource });
}

/** 409 to a write with a precondition that does not hold. */
export function conflict(resource: string, name: string): ApiResponse {
  const message = `Operation cannot be fulfilled on ${qualifiedName(resource)} "${name}": the object has been modified`;
  return statusResponse(409, 'Conflict', message, { name, kind: resource });
}

/** 422: the schema refuses it. */
export function invalid(resource: string, name: string, message: string): ApiResponse {
  const causes = [{ reason: 'FieldValueForbidden', message, field: 'spec' }];
  return statusResponse(422, 'Invalid', `${resource} "${name}" is invalid: ${message}`, { name, causes });
}

/** 410: the version or the token is no longer kept. */
export function expired(message: string): ApiResponse {
  return statusResponse(410, 'Expired', message, {});
}

/** 500. */
export function internalError(message: string): ApiResponse {
  return statusResponse(500, 'InternalError', `Internal error occurred: ${message}`, {});
}

/** While the API server starts. */
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

/** It gave up by the deadline that it was sent. */
export function timedOut(): ApiResponse {
  return statusResponse(504, 'Timeout', 'Timeout: request did not complete within the allotted timeout', {});
}

/** What a DELETE answers when the object is gone. */
export function deleted(resource: string, name: string, uid: string): ApiResponse {
  const details = { kind: resource, name, uid };
  return ok(JSON.stringify({ apiVersion: 'v1', details, kind: 'Status', metadata: {}, status: 'Success' }));
}

/** As messages name a resource: with its group. */
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
