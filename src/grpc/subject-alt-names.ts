/** A JSON string at the beginning of a text. */
// oxlint-disable-next-line no-control-regex -- JSON allows none of them
const JSON_STRING = /^"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/;

/** The names of a certificate that this project looks at, byte for byte, a character each. */
export interface SubjectAltNames {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
}

/**
 * Takes apart what Node makes of the extension subjectAltName: `DNS:a, URI:b`, where an entry whose value holds anything
 * that could be taken for more entries has its value written as a JSON string (CVE-2021-44532). So a certificate cannot
 * name more than its authority has signed.
 *
 * @param text undefined: the certificate has no such extension
 * @returns undefined when it cannot be read
 */
export function readSubjectAltNames(text: string | undefined): SubjectAltNames | undefined {
  const uris: string[] = [];
  const dnsNames: string[] = [];
  let remaining = text ?? '';
  while (remaining !== '') {
    const colon = remaining.indexOf(':');
    if (colon < 0) return undefined;
    const kind = remaining.slice(0, colon);
    const entry = readValue(remaining.slice(colon + 1));
    if (entry === undefined) return undefined;
    if (kind === 'URI') uris.push(entry.value);
    if (kind === 'DNS') dnsNames.push(entry.value);
    remaining = entry.remaining;
  }
  return { uris, dnsNames };
}

/** The value that the text begins with, and what stands behind its comma. */
function readValue(text: string): { readonly value: string; readonly remaining: string } | undefined {
  const quoted = JSON_STRING.exec(text)?.[0];
  if (quoted === undefined && text.startsWith('"')) return undefined;
  const end = quoted?.length ?? (text.includes(', ') ? text.indexOf(', ') : text.length);
  const value: unknown = quoted === undefined ? text.slice(0, end) : JSON.parse(quoted);
  const remaining = text.slice(end);
  if (typeof value !== 'string' || (remaining !== '' && !remaining.startsWith(', '))) return undefined;
  return { value, remaining: remaining.slice(2) };
}
