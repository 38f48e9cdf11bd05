import type { ApiErrorKind } from '../core/kubernetes.ts';
import { errorCode, errorMessage } from '../error-message.ts';

/**
 * Leaves room for an admission policy's own message, which follows the names of the object and the policy. An Event
 * holds 1,024 bytes.
 */
const MAX_MESSAGE_LENGTH = 600;
/** Maximum length of the part of the message that comes from a `Status`. */
const MAX_STATUS_MESSAGE_LENGTH = 400;

/**
 * A failed call to the API server. `message` is one line of at most 600 characters: action, status, reason, cause.
 */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly kind: ApiErrorKind;
  /** HTTP status, or the code of a watch's ERROR event; undefined without a response. */
  readonly status: number | undefined;
  /** Reason that Kubernetes gives, as in `AlreadyExists`; undefined if the response contained none. */
  readonly reason: string | undefined;
  /** Delay that the API server asks for, 0 to 60,000 ms; undefined if it asks for none. */
  readonly retryAfterMs: number | undefined;

  constructor(
    kind: ApiErrorKind,
    message: string,
    details: { status?: number; reason?: string; retryAfterMs?: number | undefined; cause?: unknown } = {},
  ) {
    super(
      oneLine(message, MAX_MESSAGE_LENGTH),
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.kind = kind;
    this.status = details.status;
    this.reason = details.reason;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** A response that exceeds what is read of one; fewer objects per page fit. */
export class ResponseTooLargeError extends ApiError {
  constructor(message: string) {
    super('unexpected_response', message);
  }
}

/** The part of an HTTP response that describes a failure. */
export interface FailedResponse {
  readonly status: number;
  /** The Retry-After header as received. */
  readonly retryAfter: string | undefined;
  readonly text: string;
}

/**
 * Returns the error for a response other than 2xx.
 * @param action what failed, as in `create reversetunnels.reverse-tunnel.io in default a`
 */
export function errorFromResponse(action: string, response: FailedResponse): ApiError {
  // The content type is ignored: the API server labels some Status responses text/plain, for example a 504.
  const body = parseOrUndefined(response.text);
  if (isKubernetesStatus(body)) return errorFromStatus(action, body, response.status, response.retryAfter);
  const seconds = parseRetryAfter(response.retryAfter);
  const kind = kindFromPlainResponse(response, seconds !== undefined);
  const text = response.text.trim();
  const excerpt = text === '' ? 'empty body' : oneLine(text, 80);
  return new ApiError(kind, `${action}: ${response.status} ${describeKind(kind)}: ${excerpt}`, {
    status: response.status,
    retryAfterMs: clampedMs(seconds),
  });
}

/** Returns the error for a `Status`, from a response or from a watch's ERROR event. */
export function errorFromStatus(
  action: string,
  received: KubernetesStatus,
  httpStatus?: number,
  retryAfter?: string,
): ApiError {
  const body = withValidFields(received);
  const status = httpStatus ?? body.code ?? 0;
  const seconds = parseRetryAfter(retryAfter) ?? body.details?.retryAfterSeconds;
  const kind = kindFromStatus(status, body, seconds !== undefined);
  const statusText = body.reason === undefined ? String(status) : `${status} ${body.reason}`;
  return new ApiError(kind, `${action}: ${statusText}: ${statusMessage(body)}`, {
    status,
    ...(body.reason === undefined ? {} : { reason: body.reason }),
    retryAfterMs: clampedMs(seconds),
  });
}

/**
 * Returns the error for a request without a response. An `ApiError` (timeout, cancellation) keeps its kind and gets
 * the action as a prefix.
 */
export function errorFromTransport(action: string, cause: unknown): ApiError {
  if (cause instanceof ResponseTooLargeError) return new ResponseTooLargeError(`${action}: ${cause.message}`);
  if (cause instanceof ApiError) return new ApiError(cause.kind, `${action}: ${cause.message}`);
  // Node.js appends the advice to use the system CA. It is wrong here: public authorities must not be trusted with an
  // API server.
  const detail = isTrustFailure(cause)
    ? `TLS: ${errorMessage(cause).replace(/; if the root CA is installed locally[^(]*/, ' ')}`
    : errorMessage(cause);
  // The headers are validated before anything is sent, and only the credentials among them come from outside.
  const kind = INVALID_HEADER.has(errorCode(cause) ?? '') ? 'unauthorized' : 'unavailable';
  return new ApiError(kind, `${action}: ${detail}`, { cause });
}

/** Codes of Node.js; through a proxy, the one of undici. */
const INVALID_HEADER = new Set(['ERR_INVALID_CHAR', 'UND_ERR_INVALID_ARG']);

/**
 * Reports whether TLS failed because the server's certificate is not trusted or the client's is not accepted. Reading
 * the CA and the certificates again fixes both after a rotation.
 */
export function isTrustFailure(error: unknown): boolean {
  const code = errorCode(error);
  return code !== undefined && TRUST_FAILURE.test(code);
}

/**
 * Codes of Node.js and OpenSSL. ERR_OSSL_ also covers a client certificate and a key that do not match, which happens
 * when they are read during a rotation.
 */
const TRUST_FAILURE =
  /^(UNABLE_TO_|CERT_|CRL_|SELF_SIGNED_|DEPTH_ZERO_|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_|HOSTNAME_|ERR_TLS_|ERR_SSL_|ERR_OSSL_)/;

/** Classifies a `Status` by its code, and by its reason where one code has several meanings. */
function kindFromStatus(status: number, body: KubernetesStatus, hasRetryAfter: boolean): ApiErrorKind {
  switch (status) {
    case 401:
      return 'unauthorized';
    case 403:
      // What can no longer be created will soon not be served at all.
      if (body.message?.includes('custom resource definition is terminating') === true)
        return 'no_kind_match';
      return isNamespaceTerminating(body) ? 'terminating' : 'rejected';
    case 404:
      // The namespace, the object, or (without a name) the resource was not found. Aggregated API servers report the
      // last one this way.
      if (body.details?.kind === 'namespaces') return 'namespace_not_found';
      return body.details?.name === undefined ? 'no_kind_match' : 'not_found';
    case 409:
      return body.reason === 'AlreadyExists' ? 'already_exists' : 'conflict';
    case 410:
      return 'expired';
    case 408:
      return 'unavailable';
    case 429:
      return 'throttled';
    case 503:
      return hasRetryAfter ? 'throttled' : 'unavailable';
    case 504:
      // An API server that exceeds the deadline it was given also answers 504.
      return isResourceVersionTooLarge(body) ? 'resource_version_too_large' : 'unavailable';
    default:
      // The object is larger than etcd accepts, and a repetition cannot help.
      if (body.message?.includes('etcdserver: request is too large') === true) return 'rejected';
      // 500 is not a rejection otherwise: etcd without a leader causes it. (An invalid resourceVersion causes it too, but that
      // would be a bug.)
      return status >= 400 && status < 500 ? 'rejected' : 'unavailable';
  }
}

/**
 * Classifies a response without a `Status`: it comes from the API server's outer layers or from something in front of
 * it.
 */
function kindFromPlainResponse(response: FailedResponse, hasRetryAfter: boolean): ApiErrorKind {
  const { status, text } = response;
  if (status === 401) return 'unauthorized';
  if (status === 429 || (status === 503 && hasRetryAfter)) return 'throttled';
  if (status >= 500) return 'unavailable';
  // The API server's exact response for a path that it does not serve; any other 404 comes from something else.
  if (status === 404 && text.startsWith('404 page not found')) return 'no_kind_match';
  if (status === 413) return 'rejected';
  return 'unexpected_response';
}

function isNamespaceTerminating(body: KubernetesStatus): boolean {
  return body.details?.causes?.some((cause) => cause.reason === 'NamespaceTerminating') === true;
}

/** Recognizes the three forms that API servers have used (client-go's `isTooLargeResourceVersionError`). */
function isResourceVersionTooLarge(body: KubernetesStatus): boolean {
  if (/too large resource version/i.test(body.message ?? '')) return true;
  return (
    body.details?.causes?.some(
      (cause) =>
        cause.reason === 'ResourceVersionTooLarge' || /too large resource version/i.test(cause.message ?? ''),
    ) === true
  );
}

/**
 * Returns the causes of a 422, because its message may repeat the whole object, and the message of any other `Status`.
 * Long texts keep their end, which contains what an admission policy or a validation rule reports.
 */
function statusMessage(body: KubernetesStatus): string {
  const causes = (body.code === 422 ? (body.details?.causes ?? []) : [])
    .map(({ field = '', message = '' }) => [field, message].filter((part) => part !== '').join(': '))
    .filter((cause) => cause !== '');
  if (causes.length === 0) return omitMiddle(body.message ?? '', MAX_STATUS_MESSAGE_LENGTH) || 'no message';
  const listed = causes.slice(0, 3);
  const limit = Math.floor(MAX_STATUS_MESSAGE_LENGTH / listed.length);
  const omitted = causes.length - listed.length;
  return (
    listed.map((cause) => omitMiddle(cause, limit)).join('; ') + (omitted > 0 ? ` (and ${omitted} more)` : '')
  );
}

/** Returns `text` on one line of at most `limit` UTF-16 units: the first third and the end if it is longer. */
function omitMiddle(text: string, limit: number): string {
  const line = oneLine(text, Number.POSITIVE_INFINITY);
  if (line.length <= limit) return line;
  const headLength = Math.floor(limit / 3);
  const tailLength = limit - headLength - 1;
  return `${line.slice(0, headLength).toWellFormed()}…${line.slice(-tailLength).toWellFormed()}`;
}

/** Describes a response without a Kubernetes reason. */
function describeKind(kind: ApiErrorKind): string {
  if (kind === 'unexpected_response') return 'unexpected response (not from an API server?)';
  return kind === 'no_kind_match' ? 'resource not found (is the CRD installed?)' : 'plain-text response';
}

/** Parses seconds, the only form that API servers send; a date, which some proxies send, counts as absent. */
function parseRetryAfter(retryAfter: string | undefined): number | undefined {
  return retryAfter !== undefined && /^\d{1,9}$/.test(retryAfter) ? Number(retryAfter) : undefined;
}

/** Limits the delay to a minute: nothing that an API server recovers from takes longer, and a retry is cheap. */
function clampedMs(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.min(Math.max(seconds, 0), 60) * 1000;
}

function parseOrUndefined(text: string): unknown {
  if (!text.startsWith('{')) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A header value after its scheme, also if truncated, and anything that looks like a JWT. */
const CREDENTIALS = /\b(?:bearer|basic)[ :=]+[^\s"'<>,;]{8,}|\beyJ[\w-]{8,}[\w.-]*/gi;

/**
 * Returns `text` on one line, without control and bidirectional formatting characters, truncated to `limit` UTF-16
 * units. Credentials are redacted: a proxy's error page may repeat the request, and a plugin may print its token.
 */
export function oneLine(text: string, limit: number): string {
  const flat = text
    .replaceAll(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\s]+/gu, ' ')
    .replaceAll(CREDENTIALS, '[credentials]')
    .trim();
  return flat.length <= limit ? flat : `${flat.slice(0, limit - 1).toWellFormed()}…`;
}

/** `metav1.Status`: the API server's description of a failure, and its response to most deletions. */
export interface KubernetesStatus {
  readonly kind: 'Status';
  readonly status?: string;
  readonly code?: number;
  readonly reason?: string;
  readonly message?: string;
  readonly details?: {
    readonly name?: string;
    readonly kind?: string;
    readonly uid?: string;
    readonly retryAfterSeconds?: number;
    readonly causes?: readonly {
      readonly reason?: string;
      readonly message?: string;
      readonly field?: string;
    }[];
  };
}

/**
 * Omits the fields that do not have the type of the API. Whatever is in front of an API server may send a `Status` of its
 * own, and a delay that is not a number would become no delay at all.
 */
function withValidFields({ kind, code, reason, message, details }: KubernetesStatus): KubernetesStatus {
  const given: Fields = isObject(details) ? details : {};
  const causes: readonly unknown[] = Array.isArray(given['causes']) ? given['causes'] : [];
  const { retryAfterSeconds } = given;
  return {
    kind,
    ...(typeof code === 'number' ? { code } : {}),
    ...textsOf({ reason, message }, 'reason', 'message'),
    details: {
      ...textsOf(given, 'name', 'kind'),
      ...(typeof retryAfterSeconds === 'number' ? { retryAfterSeconds } : {}),
      causes: causes.filter(isObject).map((cause) => textsOf(cause, 'reason', 'message', 'field')),
    },
  };
}

type Fields = Readonly<Record<string, unknown>>;

/** Returns those of the named fields that are texts. */
function textsOf<Name extends string>(
  fields: Fields,
  ...names: readonly Name[]
): { [name in Name]?: string } {
  const texts: { [name in Name]?: string } = {};
  for (const name of names) {
    const text = fields[name];
    if (typeof text === 'string') texts[name] = text;
  }
  return texts;
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null;
}

/** Reports whether a parsed response is a `Status` instead of the requested object. */
export function isKubernetesStatus(value: unknown): value is KubernetesStatus {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'Status';
}
