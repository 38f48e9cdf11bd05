import { ApiError } from './api-error.ts';
import type { ResourceClient } from './resource-client.ts';

/** Where tokens are reviewed: once for the whole cluster. Nothing is stored there. */
export const TOKEN_REVIEW_RESOURCE = {
  group: 'authentication.k8s.io',
  version: 'v1',
  plural: 'tokenreviews',
} as const;

/** What of a TokenReview is read. */
export interface TokenReviewObject {
  readonly status?: {
    readonly authenticated?: boolean;
    readonly audiences?: readonly string[];
    readonly user?: { readonly username?: string };
  };
}

/** Whose a token is. `authenticated` false: not accepted, not for the audience, or not of a ServiceAccount. */
export type TokenReviewResult =
  | { readonly authenticated: true; readonly namespace: string; readonly serviceAccount: string }
  | { readonly authenticated: false };

/** The API server's own check takes milliseconds; a webhook behind it some more. */
const TIMEOUT_MS = 5_000;
/** As Kubernetes names a ServiceAccount as a user. */
const SERVICE_ACCOUNT_USERNAME =
  /^system:serviceaccount:([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?):([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)$/;

/**
 * Has the API server say whose a token is. It must say that the token is for the audience: one that knows no audiences
 * leaves them out, and accepts every token for everybody.
 *
 * @returns rejects when there is no answer, with an error whose message holds nothing but status and consequence: the
 *   answer to a TokenReview repeats the token
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
    // oxlint-disable-next-line preserve-caught-error -- what it says may hold the token
    throw new Error(`create tokenreviews.authentication.k8s.io: ${errorSummary(error)}`);
  }
  const { authenticated, audiences = [], user } = result.status ?? {};
  const [, namespace, serviceAccount] = SERVICE_ACCOUNT_USERNAME.exec(user?.username ?? '') ?? [];
  if (authenticated !== true || !audiences.includes(audience)) return { authenticated: false };
  if (namespace === undefined || serviceAccount === undefined) return { authenticated: false };
  return { authenticated: true, namespace, serviceAccount };
}

/** Without the error's message and reason, and without the error as a cause: all of them come from the answer. */
function errorSummary(error: unknown): string {
  if (!(error instanceof ApiError)) return 'failed';
  return `${error.status ?? 'no response'} ${error.kind}`;
}
