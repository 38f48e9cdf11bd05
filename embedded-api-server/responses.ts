/** Responses of the API server, each recorded from a real one. */
import type { ApiKind } from './api-kind.ts';
import type { FieldError } from './field-error.ts';

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

/** Returns 400 for a request that cannot be executed as it was sent. */
export function badRequest(message: string): ApiResponse {
  return failure(400, 'BadRequest', message);
}

/** Returns 401 for a request without the token. */
export function unauthorized(): ApiResponse {
  return failure(401, 'Unauthorized', 'Unauthorized');
}

/** Returns 404 for an object. */
export function notFound(kind: ApiKind, name: string): ApiResponse {
  return failure(404, 'NotFound', `${qualifiedName(kind)} "${name}" not found`, objectDetails(kind, name));
}

/** Returns 404 for a create in a missing namespace. */
export function missingNamespace(namespace: string): ApiResponse {
  return failure(404, 'NotFound', `namespaces "${namespace}" not found`, {
    name: namespace,
    kind: 'namespaces',
  });
}

/** Returns 405 for a method that the path does not have. */
export function methodNotAllowed(): ApiResponse {
  return failure(
    405,
    'MethodNotAllowed',
    'the server does not allow this method on the requested resource',
    {},
  );
}

/** Returns 403 for a create in a terminating namespace. */
export function namespaceTerminating(kind: ApiKind, name: string, namespace: string): ApiResponse {
  const message = `${qualifiedName(kind)} "${name}" is forbidden: unable to create new content in namespace ${namespace} because it is being terminated`;
  const cause = `namespace ${namespace} is being terminated`;
  const causes = [{ reason: 'NamespaceTerminating', message: cause, field: 'metadata.namespace' }];
  return failure(403, 'Forbidden', message, { ...objectDetails(kind, name), causes });
}

/** Returns 403 for a create while the CRD is being deleted. */
export function kindTerminating(kind: ApiKind, name: string): ApiResponse {
  const message = `${qualifiedName(kind)} "${name}" is forbidden: create not allowed while custom resource definition is terminating`;
  return failure(403, 'Forbidden', message, objectDetails(kind, name));
}

/** Returns 409 for a create of an object that exists or is being deleted. */
export function alreadyExists(kind: ApiKind, name: string, terminating: boolean): ApiResponse {
  const text = `${qualifiedName(kind)} "${name}" already exists`;
  const message = terminating ? `object is being deleted: ${text}` : text;
  return failure(409, 'AlreadyExists', message, objectDetails(kind, name));
}

/** Returns 409 for a write whose resourceVersion is not the current one. */
export function conflict(kind: ApiKind, name: string): ApiResponse {
  const cause = 'the object has been modified; please apply your changes to the latest version and try again';
  const message = `Operation cannot be fulfilled on ${qualifiedName(kind)} "${name}": ${cause}`;
  return failure(409, 'Conflict', message, objectDetails(kind, name));
}

/** Returns 409 for a delete whose preconditions do not hold. */
export function preconditionFailed(
  kind: ApiKind,
  name: string,
  field: 'UID' | 'ResourceVersion',
  [expected, actual]: readonly [string, string],
): ApiResponse {
  const advice = field === 'UID' ? 'deleted and then recreated' : 'modified';
  const cause = `the ${field} in the precondition (${expected}) does not match the ${field} in record (${actual}). The object might have been ${advice}`;
  const message = `Operation cannot be fulfilled on ${qualifiedKind(kind)} "${name}": ${cause}`;
  return failure(409, 'Conflict', message, { ...objectDetails(kind, name), kind: kind.kind });
}

/** Returns 413 for a body above the limit. */
export function bodyTooLarge(maxBytes: number): ApiResponse {
  return failure(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${maxBytes}`, {});
}

/** Returns 415 for a patch of a type that is not supported. */
export function unsupportedMediaType(supported: readonly string[]): ApiResponse {
  const message = `the body of the request was in an unknown format - accepted media types include: ${supported.join(', ')}`;
  return failure(415, 'UnsupportedMediaType', message, {});
}

/** Returns 422 for an object with invalid fields. */
export function invalid(kind: ApiKind, name: string, errors: readonly FieldError[]): ApiResponse {
  const texts = errors.map(({ field, message }) => `${field}: ${message}`);
  const [text = ''] = texts;
  const list = texts.length === 1 ? text : `[${texts.join(', ')}]`;
  return failure(422, 'Invalid', `${qualifiedKind(kind)} "${name}" is invalid: ${list}`, {
    ...objectDetails(kind, name),
    kind: kind.kind,
    causes: errors,
  });
}

/** Returns 422 for a PUT without a resourceVersion. */
export function missingVersion(kind: ApiKind, name: string): ApiResponse {
  const field = 'metadata.resourceVersion';
  const message = 'Invalid value: 0: must be specified for an update';
  return failure(422, 'Invalid', `${qualifiedName(kind)} "${name}" is invalid: ${field}: ${message}`, {
    ...objectDetails(kind, name),
    causes: [{ reason: 'FieldValueInvalid', message, field }],
  });
}

/** Returns 400 for an object with fields that its kind does not have, if the client asks for that. */
export function undecodable({ kind, version }: ApiKind, cause: string): ApiResponse {
  return badRequest(`${kind} in version "${version}" cannot be handled as a ${kind}: ${cause}`);
}

/** Returns 422 for a patch that results in such an object. */
export function invalidPatch(result: object, cause: string): ApiResponse {
  const message = `Invalid value: ${JSON.stringify(JSON.stringify(result))}: ${cause}`;
  const causes = [{ reason: 'FieldValueInvalid', message, field: 'patch' }];
  return failure(422, 'Invalid', ` "" is invalid: patch: ${message}`, { causes });
}

/** Returns 410 for a version or a token that is no longer kept. */
export function expired(message: string): ApiResponse {
  return failure(410, 'Expired', message);
}

/** Returns 500. */
export function internalError(message: string): ApiResponse {
  return failure(500, 'InternalError', `Internal error occurred: ${message}`, {
    causes: [{ message }],
  });
}

/** Returns 503, as while the API server starts. */
export function unavailable(): ApiResponse {
  const message = 'the server is currently unable to handle the request';
  return {
    ...failure(503, 'ServiceUnavailable', message, { retryAfterSeconds: 5 }),
    retryAfter: '5',
  };
}

/** Returns 504 for a request whose timeout has passed. */
export function timedOut(): ApiResponse {
  return failure(504, 'Timeout', 'Timeout: request did not complete within the allotted timeout', {});
}

/** Returns the response to a DELETE that removed the object. */
export function deleted(kind: ApiKind, name: string, uid: string): ApiResponse {
  const details = { ...objectDetails(kind, name), uid };
  return ok(JSON.stringify({ apiVersion: 'v1', details, kind: 'Status', metadata: {}, status: 'Success' }));
}

/** Returns the resource with its group, as error messages name it. */
function qualifiedName({ plural, group }: ApiKind): string {
  return group === '' ? plural : `${plural}.${group}`;
}

function qualifiedKind({ kind, group }: ApiKind): string {
  return group === '' ? kind : `${kind}.${group}`;
}

function objectDetails({ group, plural }: ApiKind, name: string): object {
  return { name, ...(group === '' ? {} : { group }), kind: plural };
}

function failure(code: number, reason: string, message: string, details?: object): ApiResponse {
  const body = {
    apiVersion: 'v1',
    code,
    ...(details === undefined ? {} : { details }),
    kind: 'Status',
    message,
    metadata: {},
    reason,
    status: 'Failure',
  };
  return { status: code, text: JSON.stringify(body), retryAfter: undefined };
}
