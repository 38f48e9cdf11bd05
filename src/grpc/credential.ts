import type { X509Certificate } from 'node:crypto';
import type { Peer } from '../core/peer.ts';

/** The identity of a peer, and how long it is proven. */
export interface Credential {
  readonly peer: Peer;
  /** The certificate's notAfter or the token's expiry, in ms since 1970; undefined: the credential does not expire. */
  readonly expiresMs: number | undefined;
}

/** The names of a certificate that this project uses, with one character per byte. */
export interface SubjectAltNames {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
}

/** A JSON string at the start of a text. */
// oxlint-disable-next-line no-control-regex -- JSON strings must not contain control characters
const JSON_STRING = /^"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/;

/**
 * Returns the credential that a certificate proves, once its chain has been verified.
 *
 * The subject's common name is ignored: RFC 9525, section 2, withdrew it as an identifier.
 *
 * @returns undefined when the names or notAfter cannot be parsed
 */
export function certificateCredential(certificate: X509Certificate): Credential | undefined {
  const names = parseSubjectAltNames(certificate.subjectAltName);
  const expiresMs = certificate.validToDate.getTime();
  return names === undefined || !Number.isFinite(expiresMs)
    ? undefined
    : { peer: { kind: 'certificate', ...names }, expiresMs };
}

/**
 * Parses Node's text form of the extension subjectAltName: `DNS:a, URI:b`. Node writes a value as a JSON string if it
 * contains anything that could be mistaken for further entries (CVE-2021-44532), so a certificate cannot claim more
 * names than its authority has signed.
 *
 * @param text undefined: the certificate does not have the extension
 * @returns undefined when the text cannot be parsed
 */
export function parseSubjectAltNames(text: string | undefined): SubjectAltNames | undefined {
  const uris: string[] = [];
  const dnsNames: string[] = [];
  let remaining = text ?? '';
  while (remaining !== '') {
    const colon = remaining.indexOf(':');
    if (colon < 0) return undefined;
    const kind = remaining.slice(0, colon);
    const entry = parseValue(remaining.slice(colon + 1));
    if (entry === undefined) return undefined;
    if (kind === 'URI') uris.push(entry.value);
    if (kind === 'DNS') dnsNames.push(entry.value);
    remaining = entry.remaining;
  }
  return { uris, dnsNames };
}

/** Parses the value at the start of the text; `remaining` is the text after its comma. */
function parseValue(text: string): { readonly value: string; readonly remaining: string } | undefined {
  const quoted = JSON_STRING.exec(text)?.[0];
  if (quoted === undefined && text.startsWith('"')) return undefined;
  const end = quoted?.length ?? (text.includes(', ') ? text.indexOf(', ') : text.length);
  const value: unknown = quoted === undefined ? text.slice(0, end) : JSON.parse(quoted);
  const remaining = text.slice(end);
  if (typeof value !== 'string' || (remaining !== '' && !remaining.startsWith(', '))) return undefined;
  return { value, remaining: remaining.slice(2) };
}
