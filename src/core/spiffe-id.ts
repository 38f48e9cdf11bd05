/** A SPIFFE id in its parts; `spiffe://` + trustDomain + path is the text that it was read from, to the letter. */
export interface SpiffeId {
  readonly trustDomain: string;
  /** Begins with a slash; empty for an id of the trust domain itself. */
  readonly path: string;
}

const SCHEME = 'spiffe://';
/** SPIFFE-ID, 2.3; all characters that are allowed take one byte. */
const MAX_ID_BYTES = 2048;
/** SPIFFE-ID, 2.3: what RFC 3986 gives a host. */
const MAX_TRUST_DOMAIN_BYTES = 255;
const TRUST_DOMAIN = /^[a-z0-9._-]+$/;
const SEGMENT = /^[A-Za-z0-9._-]+$/;

/**
 * Reads a SPIFFE id by the letter of the SPIFFE-ID standard: lower-case scheme and trust domain, no user, no port, no
 * query, no fragment, no percent-encoding, no empty, `.` or `..` segment, no slash at the end, no character beyond the
 * standard's own. Nothing is normalised: two texts that are both ids are the same id only if they are equal, so that no
 * other way of writing an id passes for it.
 *
 * @returns undefined for whatever is no SPIFFE id
 */
export function parseSpiffeId(text: string): SpiffeId | undefined {
  if (text.length > MAX_ID_BYTES || !text.startsWith(SCHEME)) return undefined;
  const rest = text.slice(SCHEME.length);
  const slash = rest.indexOf('/');
  const trustDomain = slash < 0 ? rest : rest.slice(0, slash);
  const path = slash < 0 ? '' : rest.slice(slash);
  if (trustDomain.length > MAX_TRUST_DOMAIN_BYTES || !TRUST_DOMAIN.test(trustDomain)) return undefined;
  if (path !== '' && !path.slice(1).split('/').every(isSegment)) return undefined;
  return { trustDomain, path };
}

/**
 * The one SPIFFE id of a certificate, by its URI SANs. X509-SVID, 2 and 5.2: exactly one URI SAN, and it is the id. A
 * certificate with two has none, as either could be meant.
 */
export function spiffeIdOf(uris: readonly string[]): SpiffeId | undefined {
  const [only] = uris;
  return only === undefined || uris.length > 1 ? undefined : parseSpiffeId(only);
}

function isSegment(segment: string): boolean {
  return segment !== '.' && segment !== '..' && SEGMENT.test(segment);
}
