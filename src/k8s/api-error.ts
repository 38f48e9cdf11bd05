import type { ApiErrorKind } from '../core/api-error-kind.ts';
import { errorCode, errorMessage } from '../error-message.ts';

/** A failed call to the API server. `message` is one line of at most 300 characters: action, status, reason, cause. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly kind: ApiErrorKind;
  /** HTTP status, or the code of a watch's ERROR event; undefined when nothing answered. */
  readonly status: number | undefined;
  /** Kubernetes' own word for the failure, as in `AlreadyExists`; undefined when the answer held none. */
  readonly reason: string | undefined;
  /** How long the API server asks to wait, 0 to 60,000; undefined when it does not ask. */
  readonly retryAfterMs: number | undefined;

  constructor(
    kind: ApiErrorKind,
    message: string,
    details: { status?: number; reason?: string; retryAfterMs?: number | undefined; cause?: unknown } = {},
  ) {
    super(oneLine(message, 300), details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = kind;
    this.status = details.status;
    this.reason = details.reason;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** What came back over HTTP, as far as a failure needs it. */
export interface FailedResponse {
  readonly status: number;
  /** The Retry-After header as it came. */
  readonly retryAfter: string | undefined;
  readonly text: string;
}

/** The error for an answer other than 2xx. `action` says what was tried, as in `create reversetunnels a in b`. */
export function errorFromResponse(action: string, response: FailedResponse): ApiError {
  // By the text alone: the API server labels some of its Status answers text/plain, a 504 for one.
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

/** The error for a `Status`, from an answer or from a watch's ERROR event. */
export function errorFromStatus(
  action: string,
  body: KubernetesStatus,
  status: number = body.code ?? 0,
  retryAfter?: string,
): ApiError {
  const seconds = parseRetryAfter(retryAfter) ?? body.details?.retryAfterSeconds;
  const kind = kindFromStatus(status, body, seconds !== undefined);
  return new ApiError(kind, `${action}: ${status} ${body.reason ?? ''}: ${statusMessage(body)}`, {
    status,
    ...(body.reason === undefined ? {} : { reason: body.reason }),
    retryAfterMs: clampedMs(seconds),
  });
}

/** The error for a request that got no answer; an `ApiError` (time-out, cancelled) only learns what was tried. */
export function errorFromTransport(action: string, cause: unknown): ApiError {
  if (cause instanceof ApiError) return new ApiError(cause.kind, `${action}: ${cause.message}`);
  // Node goes on with advice that is none: the public authorities are not to be trusted with an API server.
  const detail = isTrustFailure(cause)
    ? `TLS: ${errorMessage(cause).replace(/; if the root CA is installed locally[^(]*/, ' ')}`
    : errorMessage(cause);
  // Before anything is sent undici looks at the headers, of which only the credentials are not our own.
  const kind = errorCode(cause) === 'UND_ERR_INVALID_ARG' ? 'unauthorized' : 'unavailable';
  return new ApiError(kind, `${action}: ${detail}`, { cause });
}

/**
 * True when TLS could not be agreed on: the server's certificate is not trusted, or the client's is not accepted.
 * Both are cured by reading CA and certificates again, when they were rotated.
 */
export function isTrustFailure(error: unknown): boolean {
  const code = errorCode(error);
  return code !== undefined && TRUST_FAILURE.test(code);
}

/**
 * By OpenSSL's names. ERR_OSSL_ is what a client certificate and a key that do not belong together are called, as when they
 * were read in the moment of their rotation.
 */
const TRUST_FAILURE =
  /^(UNABLE_TO_|CERT_|CRL_|SELF_SIGNED_|DEPTH_ZERO_|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_|HOSTNAME_|ERR_TLS_|ERR_SSL_|ERR_OSSL_)/;

/** For a `Status`: by code, and by reason where one code has several consequences. */
function kindFromStatus(status: number, body: KubernetesStatus, hasRetryAfter: boolean): ApiErrorKind {
  switch (status) {
    case 401:
      return 'unauthorized';
    case 403:
      return isTerminating(body) ? 'terminating' : 'rejected';
    case 404:
      // Of the namespace, of the object, or (without a name) of the resource, as aggregated API servers say it.
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
      // Also what an API server answers that gave up by the deadline it was sent.
      return isResourceVersionTooLarge(body) ? 'resource_version_too_large' : 'unavailable';
    default:
      // 500 is no refusal: etcd without a leader is one. (So is a resourceVersion that is no number, a fault of ours.)
      return status >= 400 && status < 500 ? 'rejected' : 'unavailable';
  }
}

/** For an answer that is no `Status`: by the API server's outer layers, or by something in front of it. */
function kindFromPlainResponse(response: FailedResponse, hasRetryAfter: boolean): ApiErrorKind {
  const { status, text } = response;
  if (status === 401) return 'unauthorized';
  if (status === 429 || (status === 503 && hasRetryAfter)) return 'throttled';
  if (status >= 500) return 'unavailable';
  // Exactly what the API server says to a path it does not serve; any other 404 comes from somewhere else.
  if (status === 404 && text.startsWith('404 page not found')) return 'no_kind_match';
  if (status === 413) return 'rejected';
  return 'unexpected_response';
}

function isTerminating(body: KubernetesStatus): boolean {
  if (body.details?.causes?.some((cause) => cause.reason === 'NamespaceTerminating') === true) return true;
  return body.message?.includes('custom resource definition is terminating') === true;
}

/** In the three ways that API servers have said it (client-go's `isTooLargeResourceVersionError`). */
function isResourceVersionTooLarge(body: KubernetesStatus): boolean {
  if (/too large resource version/i.test(body.message ?? '')) return true;
  return (
    body.details?.causes?.some(
      (cause) =>
        cause.reason === 'ResourceVersionTooLarge' || /too large resource version/i.test(cause.message ?? ''),
    ) === true
  );
}

/** Of a 422 the causes: its message may repeat the whole object. */
function statusMessage(body: KubernetesStatus): string {
  const causes = body.code === 422 ? (body.details?.causes ?? []) : [];
  if (causes.length === 0) return body.message ?? 'no message';
  const details = causes
    .slice(0, 3)
    .map((cause) => `${cause.field ?? ''}: ${oneLine(cause.message ?? '', 80)}`);
  return details.join('; ') + (causes.length > 3 ? ` (and ${causes.length - 3} more)` : '');
}

/** What to think of an answer that has no Kubernetes reason. */
function describeKind(kind: ApiErrorKind): string {
  if (kind === 'unexpected_response') return 'unexpected response (not from an API server?)';
  return kind === 'no_kind_match' ? 'resource not found (is the CRD installed?)' : 'plain-text response';
}

/** Only in seconds, as API servers give it; a date from some proxy counts as not given. */
function parseRetryAfter(retryAfter: string | undefined): number | undefined {
  return retryAfter !== undefined && /^\d{1,9}$/.test(retryAfter) ? Number(retryAfter) : undefined;
}

/** At most a minute: nothing an API server recovers from takes longer, and a retry is cheap. */
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

/** A header's value after its scheme, also where it was cut short, and anything that looks like a JWT. */
const CREDENTIALS = /\b(?:bearer|basic)[ :=]+[^\s"'<>,;]{8,}|\beyJ[\w-]{8,}[\w.-]*/gi;

/**
 * Without control characters, line ends and what turns the direction of text, cut to `limit` UTF-16 units. Credentials are
 * taken out: a proxy's page may repeat the request, and a plugin may print its token.
 */
export function oneLine(text: string, limit: number): string {
  const flat = text
    .replaceAll(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\s]+/gu, ' ')
    .replaceAll(CREDENTIALS, '[credentials]')
    .trim();
  return flat.length <= limit ? flat : `${flat.slice(0, limit - 1).toWellFormed()}…`;
}

/** `metav1.Status`: how the API server says what went wrong, and what it answers to most deletions. */
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

/** True when a parsed answer is a `Status` and not the object that was asked for. */
export function isKubernetesStatus(value: unknown): value is KubernetesStatus {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'Status';
}
