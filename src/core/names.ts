import { stripTenantPrefix, type ReporterId, type Tunnel } from './tunnel.ts';

/**
 * Names and label values of objects: total functions from any Unicode text to valid values. Objects are found by these
 * names after a restart, so a change in this file renames every object in every cluster.
 */
export interface Names {
  /**
   * `metadata.name` of a ReverseTunnel: at most 63 characters, so that it is also a valid label value. Two tunnels have
   * the same name only if 65 bits of SHA-256 collide, which the writer detects from the existing object.
   */
  tunnelObjectName(reporter: ReporterId, tunnel: Tunnel): string;
  /**
   * `metadata.name` of a ReverseTunnelSlice: that of its reporter and tenant in the same form, shortened, and the ordinal.
   *
   * @param ordinal a whole number from 0 to 9,999,999
   */
  sliceObjectName(reporter: ReporterId, tenantID: string, ordinal: number): string;
  /** `metadata.name` of a ReverseTunnelReporter, in the same form. */
  reporterObjectName(reporter: ReporterId): string;
  /** `metadata.name` of the Lease of one process of the operator, in the same form. */
  leaseName(replica: string): string;
  /** A label value of at most 63 characters: `raw` if it is valid, otherwise its valid characters and a hash. */
  labelValue(raw: string): string;
}

/** A digest of at least 9 bytes that is preimage resistant, so that no reporter can aim at the name of another: SHA-256. */
export type Digest = (text: string) => Uint8Array;

const HASH_LENGTH = 13;
/** Crockford's base 32 in lower case, in which no letter looks like a digit. */
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';
const MAX_NAME_LENGTH = 63;
/** A hyphen and 7 digits. */
const ORDINAL_LENGTH = 8;

const VALID_LABEL = /^[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
/** Valid values of this form are hashed, too: otherwise a tenant named like the hash of another would share its label. */
const LOOKS_HASHED = /--[0-9a-hjkmnp-tv-z]{13}$/;

/** Creates the naming functions. The digest must never change, because each name depends on it. */
export function createNames(digest: Digest): Names {
  const hash = (text: string): string => base32(digest(text));
  const objectName = (readable: string, parts: readonly string[], maxLength = MAX_NAME_LENGTH): string => {
    const valid = readable.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
    const prefix = trimToLimit(valid, maxLength - HASH_LENGTH - 1);
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
    sliceObjectName(reporter, tenantID, ordinal) {
      const parts = [reporter.cluster, reporter.id, tenantID];
      return `${objectName(reporter.id, parts, MAX_NAME_LENGTH - ORDINAL_LENGTH)}-${ordinal}`;
    },
    reporterObjectName: (reporter) => objectName(reporter.id, [reporter.cluster, reporter.id]),
    leaseName: (replica) => objectName(replica, [replica]),
    labelValue(raw) {
      if (raw === '' || (VALID_LABEL.test(raw) && !LOOKS_HASHED.test(raw))) return raw;
      const prefix = trimToLimit(raw.replaceAll(/[^A-Za-z0-9_.]+/g, '-'), MAX_NAME_LENGTH - HASH_LENGTH - 2);
      // A hash without a prefix would not match LOOKS_HASHED, and a tenant named like it would share the label.
      return `${prefix === '' ? 'x' : prefix}--${hash(raw)}`;
    },
  };
}

/** Joins the parts so that ("a:b", "c") and ("a", "b:c") differ, whatever the parts contain. */
function lengthPrefixed(parts: readonly string[]): string {
  return parts.map((part) => `${part.length}:${part}`).join('');
}

/** Truncates to `limit` characters that start and end with a letter or digit, as names and label values must. */
function trimToLimit(text: string, limit: number): string {
  return text
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, limit)
    .replace(/[^A-Za-z0-9]+$/, '');
}

/** Encodes the first 65 bits as 13 characters. */
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

/** Labels of every object that this project creates. */
export const MANAGED_BY_LABELS = { 'app.kubernetes.io/managed-by': 'reverse-tunnel-operator' } as const;
