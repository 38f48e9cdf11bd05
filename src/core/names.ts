import { stripTenantPrefix } from './tenant-prefix.ts';
import type { ReporterId, Tunnel } from './tunnel.ts';

/**
 * Object names and label values: any Unicode in, a legal value out, the same for the same input for ever.
 * Rows are found again by these after a restart, so a change here renames every row in every cluster.
 */
export interface Names {
  /**
   * A row's `metadata.name`: at most 63 characters, so that it is a legal label value too.
   * Two tunnels share it only if 65 bits of SHA-256 collide; the writer checks what it finds under the name.
   */
  tunnelObjectName(reporter: ReporterId, tunnel: Tunnel): string;
  /** The `metadata.name` of a reporter's object, formed as a row's is. */
  reporterObjectName(reporter: ReporterId): string;
  /** The `metadata.name` of the Lease of one process of the operator, formed as a row's is. */
  leaseName(replica: string): string;
  /** A label's value: `raw` where that is legal, else its legal characters and a hash, at most 63 characters. */
  labelValue(raw: string): string;
}

/** At least 9 bytes that depend on all of `text`, so that no reporter can aim at another's name: SHA-256. */
export type Digest = (text: string) => Uint8Array;

const HASH_LENGTH = 13;
/** Crockford's base 32, lower case: no letter looks like a digit. */
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';
const MAX_NAME_LENGTH = 63;

const LEGAL_LABEL = /^[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
/** A legal value that looks hashed is hashed too: else a tenant named like another's hash would share its label. */
const LOOKS_HASHED = /--[0-9a-hjkmnp-tv-z]{13}$/;

/** Names made with this digest. It must never be another one: each name would be another too. */
export function createNames(digest: Digest): Names {
  const hash = (text: string): string => base32(digest(text));
  const objectName = (readable: string, parts: readonly string[]): string => {
    const legal = readable.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
    const prefix = trimToLimit(legal, MAX_NAME_LENGTH - HASH_LENGTH - 1);
    const suffix = hash(lengthPrefixed(parts));
    return prefix === '' ? suffix : `${prefix}-${suffix}`;
  };
  return {
    tunnelObjectName: (reporter, tunnel) =>
      objectName(stripTenantPrefix(tunnel.tenantID, tunnel.nodeID), [
        reporter.cluster,
        reporter.id,
        tunnel.name,
      ]),
    reporterObjectName: (reporter) => objectName(reporter.id, [reporter.cluster, reporter.id]),
    leaseName: (replica) => objectName(replica, [replica]),
    labelValue(raw) {
      if (raw === '' || (LEGAL_LABEL.test(raw) && !LOOKS_HASHED.test(raw))) return raw;
      const prefix = trimToLimit(raw.replaceAll(/[^A-Za-z0-9_.]+/g, '-'), MAX_NAME_LENGTH - HASH_LENGTH - 2);
      // A bare hash would not look hashed: a tenant that is named like it would share the label.
      return `${prefix === '' ? 'x' : prefix}--${hash(raw)}`;
    },
  };
}

/** ("a:b", "c") and ("a", "b:c") differ, whatever the parts hold. */
function lengthPrefixed(parts: readonly string[]): string {
  return parts.map((part) => `${part.length}:${part}`).join('');
}

/** At most `limit` characters that begin and end with a letter or digit, as names and label values must. */
function trimToLimit(text: string, limit: number): string {
  return text
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, limit)
    .replace(/[^A-Za-z0-9]+$/, '');
}

/** The first 65 bits as 13 characters. */
function base32(bytes: Uint8Array): string {
  let text = '';
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = (buffer << 8) | byte;
    bits += 8;
    while (bits >= 5 && text.length < HASH_LENGTH) {
      bits -= 5;
      text += ALPHABET.charAt((buffer >>> bits) & 31);
    }
    if (text.length === HASH_LENGTH) break;
    buffer &= (1 << bits) - 1;
  }
  return text;
}
