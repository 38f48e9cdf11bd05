/** Peers as their credentials identify them, and the patterns by which a policy selects them. */
import { quote } from './text.ts';

/** The peer at the other end of a stream, as identified by its credential. */
export type Peer =
  /** Any client: no credential was required (`--auth insecure`). */
  | { readonly kind: 'anonymous' }
  /** A client certificate that the configured CA has issued. */
  | {
      readonly kind: 'certificate';
      /** URI SANs, unchanged; one of them may be a SPIFFE ID. */
      readonly uris: readonly string[];
      /** DNS SANs, unchanged. */
      readonly dnsNames: readonly string[];
    }
  /** A ServiceAccount token that the API server has reviewed. */
  | { readonly kind: 'token'; readonly namespace: string; readonly serviceAccount: string };

/** The peer of every stream with `--auth insecure`. */
export const ANONYMOUS: Peer = { kind: 'anonymous' };

/** Returns a text that is equal for peers with equal identities and for no others. */
export function peerKey(peer: Peer): string {
  return JSON.stringify(peer);
}

/** Describes a peer for a message. */
export function describePeer(peer: Peer): string {
  switch (peer.kind) {
    case 'anonymous':
      return 'an unauthenticated peer (--auth insecure)';
    case 'certificate':
      return `a peer with the certificate of ${joinNames([...peer.uris, ...peer.dnsNames])}`;
    case 'token':
      return `a peer with the token of ServiceAccount ${quote(`${peer.namespace}/${peer.serviceAccount}`)}`;
  }
}

/** Lists the first three names: a certificate may have hundreds. */
function joinNames(names: readonly string[]): string {
  if (names.length === 0) return 'no name';
  const listed = names.slice(0, 3).map(quote).join(', ');
  return names.length > 3 ? `${listed} and ${names.length - 3} more` : listed;
}

/** The parts of a SPIFFE ID; `spiffe://` + trustDomain + path is exactly the text that it was parsed from. */
export interface SpiffeId {
  readonly trustDomain: string;
  /** Starts with a slash; empty for the ID of the trust domain itself. */
  readonly path: string;
}

const SPIFFE_SCHEME = 'spiffe://';
/** SPIFFE-ID, section 2.3; each allowed character takes one byte. */
const MAX_SPIFFE_ID_BYTES = 2048;
/** SPIFFE-ID, section 2.3: the limit that RFC 3986 sets for a host. */
const MAX_TRUST_DOMAIN_BYTES = 255;
const TRUST_DOMAIN = /^[a-z0-9._-]+$/;
const SPIFFE_SEGMENT = /^[A-Za-z0-9._-]+$/;

/**
 * Parses a SPIFFE ID strictly by the SPIFFE-ID standard: lower-case scheme and trust domain; no user, port, query,
 * fragment or percent-encoding; no empty, `.` or `..` segment; no trailing slash; no other characters than the standard
 * allows. Nothing is normalized: two valid texts are the same ID only if they are equal, so that no other spelling of an
 * ID is accepted as that ID.
 *
 * @returns undefined if the text is not a SPIFFE ID
 */
export function parseSpiffeId(text: string): SpiffeId | undefined {
  if (text.length > MAX_SPIFFE_ID_BYTES || !text.startsWith(SPIFFE_SCHEME)) return undefined;
  const withoutScheme = text.slice(SPIFFE_SCHEME.length);
  const slash = withoutScheme.indexOf('/');
  const trustDomain = slash < 0 ? withoutScheme : withoutScheme.slice(0, slash);
  const path = slash < 0 ? '' : withoutScheme.slice(slash);
  if (trustDomain.length > MAX_TRUST_DOMAIN_BYTES || !TRUST_DOMAIN.test(trustDomain)) return undefined;
  if (path !== '' && !path.slice(1).split('/').every(isSpiffeSegment)) return undefined;
  return { trustDomain, path };
}

/**
 * Returns the SPIFFE ID of a certificate. X509-SVID, sections 2 and 5.2: the certificate has exactly one URI SAN, which is
 * the ID. A certificate with two has no ID, because either could be meant.
 */
export function spiffeIdOf(uris: readonly string[]): SpiffeId | undefined {
  const [uri] = uris;
  return uri === undefined || uris.length > 1 ? undefined : parseSpiffeId(uri);
}

function isSpiffeSegment(segment: string): boolean {
  return segment !== '.' && segment !== '..' && SPIFFE_SEGMENT.test(segment);
}

/** A pattern for SPIFFE IDs of one trust domain. */
export interface SpiffePattern {
  readonly trustDomain: string;
  /** The segments of the path; undefined matches any one segment. */
  readonly segments: readonly (string | undefined)[];
  /** True if at least one more segment must follow, whatever it is. */
  readonly isPrefix: boolean;
}

/** The reason why a pattern is invalid. */
export interface PatternError {
  readonly error: string;
}

const SUFFIX_WILDCARD = '/**';

/**
 * Parses a pattern for SPIFFE IDs: an ID in whose path `*` matches exactly one segment, and `/**` at the end matches one
 * or more. The trust domain is always exact. The rest must be a valid ID by the standard, so that a pattern never matches
 * a text that is not an ID.
 */
export function parseSpiffePattern(text: string): SpiffePattern | PatternError {
  const isPrefix = text.endsWith(SUFFIX_WILDCARD);
  const fixed = isPrefix ? text.slice(0, -SUFFIX_WILDCARD.length) : text;
  // With any valid segment in place of each star, the text must be a valid ID.
  const parts = fixed.split('/').map((part) => (part === '*' ? 'any' : part));
  const id = parseSpiffeId(parts.join('/'));
  if (id === undefined || fixed.startsWith('spiffe://*')) return { error: spiffePatternError(text, fixed) };
  const segments = fixed.split('/').slice(3);
  return {
    trustDomain: id.trustDomain,
    segments: segments.map((segment) => (segment === '*' ? undefined : segment)),
    isPrefix,
  };
}

function spiffePatternError(text: string, fixed: string): string {
  if (!text.startsWith('spiffe://')) return `${quote(text)} must begin with spiffe://`;
  if (/^spiffe:\/\/[^/]*\*/.test(fixed)) return `${quote(text)} must not have a * in the trust domain`;
  if (fixed.includes('*'))
    return `${quote(text)} has a misplaced *: * matches one whole segment, and /** the remaining ones at the end`;
  return `${quote(text)} is not a SPIFFE ID: expected spiffe://, a lower-case trust domain, and segments of A-Z a-z 0-9 . _ -`;
}

/** Returns true if the pattern matches the ID. */
export function matchesSpiffe({ trustDomain, segments, isPrefix }: SpiffePattern, id: SpiffeId): boolean {
  if (id.trustDomain !== trustDomain) return false;
  const idSegments = id.path === '' ? [] : id.path.slice(1).split('/');
  if (isPrefix ? idSegments.length <= segments.length : idSegments.length !== segments.length) return false;
  return segments.every((segment, index) => segment === undefined || segment === idSegments[index]);
}

/** RFC 1035. */
const MAX_DNS_NAME = 253;
const DNS_LABEL = /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;

/** Returns what is wrong with a pattern for DNS names: a name, or `*.` and a name, which matches any one label before it. */
export function dnsPatternError(pattern: string): string | undefined {
  const name = pattern.startsWith('*.') ? pattern.slice(2) : pattern;
  return normalizeDnsName(name) === undefined
    ? `${quote(pattern)} is not a DNS name: expected labels of letters, digits, - and _; the first may be *, which matches one label`
    : undefined;
}

/** Converts a DNS name to lower case; undefined if it is not a name. A wildcard is not: it does not identify a peer. */
export function normalizeDnsName(text: string): string | undefined {
  if (text.length > MAX_DNS_NAME || !text.split('.').every((label) => DNS_LABEL.test(label)))
    return undefined;
  return text.toLowerCase();
}

/**
 * Returns true if one of the patterns matches the name.
 *
 * @param patterns in lower case
 * @param name as returned by `normalizeDnsName`
 */
export function matchesDns(patterns: ReadonlySet<string>, name: string): boolean {
  if (patterns.has(name)) return true;
  const dot = name.indexOf('.');
  return dot > 0 && patterns.has(`*${name.slice(dot)}`);
}
