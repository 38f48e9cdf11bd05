import { parseSpiffeId, type SpiffeId } from './spiffe-id.ts';
import { quote } from './violation.ts';

/** Which SPIFFE ids are meant: those of one trust domain whose path is as these segments say. */
export interface SpiffePattern {
  readonly trustDomain: string;
  /** Undefined: any one segment. */
  readonly segments: readonly (string | undefined)[];
  /** True: at least one more segment follows, whatever it is. */
  readonly isPrefix: boolean;
}

/** A pattern that is none, and why. */
export interface PatternError {
  readonly error: string;
}

const SUFFIX_WILDCARD = '/**';
/** DNS, RFC 1035. */
const MAX_DNS_NAME = 253;
const DNS_LABEL = /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;

/**
 * Reads a pattern of SPIFFE ids: an id, in whose path `*` stands for one whole segment, and `/**` at the end for one or
 * more. The trust domain is always exact. What is not a star has to be an id by the letter of the standard, so that a
 * pattern never means a text that is no id.
 */
export function parseSpiffePattern(text: string): SpiffePattern | PatternError {
  const rest = text.endsWith(SUFFIX_WILDCARD);
  const fixed = rest ? text.slice(0, -SUFFIX_WILDCARD.length) : text;
  // Any legal segment in its place shows whether the text around the stars is an id.
  const parts = fixed.split('/').map((part) => (part === '*' ? 'any' : part));
  const id = parseSpiffeId(parts.join('/'));
  if (id === undefined || fixed.startsWith('spiffe://*')) return { error: spiffePatternError(text, fixed) };
  const segments = fixed.split('/').slice(3);
  return {
    trustDomain: id.trustDomain,
    segments: segments.map((segment) => (segment === '*' ? undefined : segment)),
    isPrefix: rest,
  };
}

function spiffePatternError(text: string, fixed: string): string {
  if (!text.startsWith('spiffe://')) return `${quote(text)} must begin with spiffe://`;
  if (/^spiffe:\/\/[^/]*\*/.test(fixed)) return `${quote(text)} must not have a * in the trust domain`;
  if (fixed.includes('*'))
    return `${quote(text)} has a misplaced *: * matches one whole segment, and /** the remaining ones at the end`;
  return `${quote(text)} is not a SPIFFE ID: expected spiffe://, a lower-case trust domain, and segments of A-Z a-z 0-9 . _ -`;
}

/** True when the id is one of those that the pattern means. */
export function matchesSpiffe({ trustDomain, segments, isPrefix }: SpiffePattern, id: SpiffeId): boolean {
  if (id.trustDomain !== trustDomain) return false;
  const idSegments = id.path === '' ? [] : id.path.slice(1).split('/');
  if (isPrefix ? idSegments.length <= segments.length : idSegments.length !== segments.length) return false;
  return segments.every((segment, index) => segment === undefined || segment === idSegments[index]);
}

/** What is wrong with a pattern of DNS names: a name, or `*.` and a name, which means any one label before it. */
export function dnsPatternError(pattern: string): string | undefined {
  const name = pattern.startsWith('*.') ? pattern.slice(2) : pattern;
  return normalizeDnsName(name) === undefined
    ? `${quote(pattern)} is not a DNS name: expected labels of letters, digits, - and _; the first may be *, which matches one label`
    : undefined;
}

/** A DNS name as it is compared: in lower case. Undefined for what is none, a wildcard included: it names no peer. */
export function normalizeDnsName(text: string): string | undefined {
  if (text.length > MAX_DNS_NAME || !text.split('.').every((label) => DNS_LABEL.test(label)))
    return undefined;
  return text.toLowerCase();
}

/** @param names DNS patterns in lower case @param name as `dnsName` gave it */
export function matchesDns(names: ReadonlySet<string>, name: string): boolean {
  if (names.has(name)) return true;
  const dot = name.indexOf('.');
  return dot > 0 && names.has(`*${name.slice(dot)}`);
}
