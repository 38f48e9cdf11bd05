/** What a token says of itself. It proves nothing before the token has been reviewed. */
export interface TokenClaims {
  /** ms since 1970; undefined: it says of no end. */
  readonly expiresMs: number | undefined;
  readonly audiences: readonly string[];
}

/** Three parts of base64url (RFC 7515, 3.1), so no character that a log line, a header or JSON would have to escape. */
const JWT = /^[\w-]+\.([\w-]+)\.[\w-]+$/;

/**
 * Reads the claims of a JWT without checking its signature.
 *
 * @returns undefined for what is none, or has an expiry or audience that is none
 */
export function readTokenClaims(token: string): TokenClaims | undefined {
  const payload = JWT.exec(token)?.[1];
  if (payload === undefined) return undefined;
  let claims: unknown;
  try {
    claims = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
  } catch {
    return undefined;
  }
  if (typeof claims !== 'object' || claims === null) return undefined;
  const { exp, aud = [] } = claims as { readonly exp?: unknown; readonly aud?: unknown };
  if (exp !== undefined && !(typeof exp === 'number' && Number.isSafeInteger(Math.trunc(exp))))
    return undefined;
  // One may stand without a list (RFC 7519, 4.1.3).
  const audiences: unknown[] = Array.isArray(aud) ? aud : [aud];
  if (!audiences.every((audience) => typeof audience === 'string')) return undefined;
  return { expiresMs: exp === undefined ? undefined : exp * 1000, audiences };
}
