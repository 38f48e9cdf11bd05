import { ApiError } from './api-error.ts';
import type { ResourceClient } from './resource-client.ts';

/** Location of TokenReviews, which are cluster-scoped and never stored. */
export const TOKEN_REVIEW_RESOURCE = {
  group: 'authentication.k8s.io',
  version: 'v1',
  plural: 'tokenreviews',
} as const;

/** A TokenReview, limited to the fields that are read. */
export interface TokenReviewObject {
  readonly status?: {
    readonly authenticated?: boolean;
    readonly audiences?: readonly string[];
    readonly user?: { readonly username?: string };
  };
}

/**
 * The ServiceAccount of a token. `authenticated` is false if the token is invalid, is for another audience, or is not
 * of a ServiceAccount.
 */
export type TokenReviewResult =
  | { readonly authenticated: true; readonly namespace: string; readonly serviceAccount: string }
  | { readonly authenticated: false };

/** The API server's own check takes milliseconds; a webhook takes longer. */
const TIMEOUT_MS = 5_000;
/** User name of a ServiceAccount in Kubernetes. */
const SERVICE_ACCOUNT_USERNAME =
  /^system:serviceaccount:([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?):([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)$/;

/**
 * Asks the API server for the ServiceAccount of a token. The response must name the audience: an API server without
 * audience support omits audiences and accepts every token for anything.
 *
 * @returns rejects without a response; the error's message contains only status and kind, because the response to a
 *   TokenReview repeats the token
 */
export async function reviewToken(
  client: Pick<ResourceClient<TokenReviewObject>, 'create'>,
  audience: string,
  token: string,
): Promise<TokenReviewResult> {
  const review = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token, audiences: [audience] },
  };
  let result: TokenReviewObject;
  try {
    result = await client.create(review, { timeoutMs: TIMEOUT_MS });
  } catch (error) {
    // oxlint-disable-next-line preserve-caught-error -- its message may contain the token
    throw new Error(`create tokenreviews.authentication.k8s.io: ${errorSummary(error)}`);
  }
  const { authenticated, audiences = [], user } = result.status ?? {};
  const [, namespace, serviceAccount] = SERVICE_ACCOUNT_USERNAME.exec(user?.username ?? '') ?? [];
  if (authenticated !== true || !audiences.includes(audience)) return { authenticated: false };
  if (namespace === undefined || serviceAccount === undefined) return { authenticated: false };
  return { authenticated: true, namespace, serviceAccount };
}

/** Omits the error's message, reason and cause, which all come from the response. */
function errorSummary(error: unknown): string {
  if (!(error instanceof ApiError)) return 'failed';
  return `${error.status ?? 'no response'} ${error.kind}`;
}
