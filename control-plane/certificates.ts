/**
 * Certificates for servers on this machine and for tests, including ones that no real authority would issue: any names,
 * any validity. They are encoded here (X.509, RFC 5280) because Node can parse certificates but not create them.
 */
import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto';

/** Content of a certificate. Default: valid for an hour, without names. */
export interface CertificateOptions {
  /** URI SANs, encoded byte by byte. */
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly addresses?: readonly string[];
  /** ms since 1970. Default: a minute ago. */
  readonly notBeforeMs?: number;
  /** ms since 1970, truncated to seconds. Default: in an hour. */
  readonly notAfterMs?: number;
  /** Extended key usage. Default: both. */
  readonly usage?: 'client' | 'server';
}

export interface IssuedCertificate {
  readonly cert: string;
  readonly key: string;
}

export interface CertificateAuthority {
  /** PEM of the CA certificate. */
  readonly ca: string;
  issue(options?: CertificateOptions): IssuedCertificate;
  /** Issues a CA certificate for a new intermediate authority. */
  issueAuthority(): CertificateAuthority;
}

const OID = {
  commonName: [0x55, 0x04, 0x03],
  ecdsaWithSha256: [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
  subjectAltName: [0x55, 0x1d, 0x11],
  basicConstraints: [0x55, 0x1d, 0x13],
  extendedKeyUsage: [0x55, 0x1d, 0x25],
  serverAuth: [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01],
  clientAuth: [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02],
} as const;
const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

/** Creates a self-signed authority, which is valid for a day unless `notAfterMs` is given. */
export function createCertificateAuthority(
  name = 'test authority',
  notAfterMs?: number,
): CertificateAuthority {
  return createAuthority(name, notAfterMs);
}

/** @param parent the authority that signs; undefined: the authority itself */
function createAuthority(
  name: string,
  notAfterMs = Date.now() + 24 * HOUR_MS,
  parent?: { readonly issuer: string; readonly signer: KeyObject },
): CertificateAuthority {
  const { privateKey, publicKey } = generateKeys();
  const rootName = `${name} ${randomBytes(4).toString('hex')}`;
  const ca = encodeCertificate({
    issuer: parent?.issuer ?? rootName,
    subject: rootName,
    publicKey,
    signer: parent?.signer ?? privateKey,
    notBeforeMs: Date.now() - 48 * HOUR_MS,
    notAfterMs,
    extensions: [encodeExtension(OID.basicConstraints, sequence(tlv(0x01, Buffer.from([0xff]))))],
  });
  return {
    ca,
    issueAuthority: () =>
      createAuthority(`${name} intermediate`, undefined, { issuer: rootName, signer: privateKey }),
    issue(options = {}) {
      const keys = generateKeys();
      const cert = encodeCertificate({
        issuer: rootName,
        subject: 'leaf',
        publicKey: keys.publicKey,
        signer: privateKey,
        notBeforeMs: options.notBeforeMs ?? Date.now() - MINUTE_MS,
        notAfterMs: options.notAfterMs ?? Date.now() + HOUR_MS,
        extensions: leafExtensions(options),
      });
      return { cert, key: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
    },
  };
}

function generateKeys(): { readonly privateKey: KeyObject; readonly publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' });
}

function leafExtensions({ uris = [], dnsNames = [], addresses = [], usage }: CertificateOptions): Buffer[] {
  const usages = [
    ...(usage === 'server' ? [] : [oid(OID.clientAuth)]),
    ...(usage === 'client' ? [] : [oid(OID.serverAuth)]),
  ];
  const altNames = [
    ...uris.map((uri) => tlv(0x86, Buffer.from(uri, 'latin1'))),
    ...dnsNames.map((name) => tlv(0x82, Buffer.from(name, 'latin1'))),
    ...addresses.map((address) => tlv(0x87, Buffer.from(address.split('.').map(Number)))),
  ];
  return [
    encodeExtension(OID.extendedKeyUsage, sequence(...usages)),
    ...(altNames.length === 0 ? [] : [encodeExtension(OID.subjectAltName, sequence(...altNames))]),
  ];
}

function encodeCertificate(options: {
  readonly issuer: string;
  readonly subject: string;
  readonly publicKey: KeyObject;
  readonly signer: KeyObject;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly extensions: readonly Buffer[];
}): string {
  const algorithm = sequence(oid(OID.ecdsaWithSha256));
  const toBeSigned = sequence(
    tlv(0xa0, tlv(0x02, Buffer.from([2]))),
    tlv(0x02, Buffer.concat([Buffer.from([0x01]), randomBytes(8)])),
    algorithm,
    encodeDistinguishedName(options.issuer),
    sequence(encodeUtcTime(options.notBeforeMs), encodeUtcTime(options.notAfterMs)),
    encodeDistinguishedName(options.subject),
    options.publicKey.export({ type: 'spki', format: 'der' }),
    tlv(0xa3, sequence(...options.extensions)),
  );
  const signature = sign('sha256', toBeSigned, options.signer);
  const der = sequence(toBeSigned, algorithm, tlv(0x03, Buffer.concat([Buffer.from([0]), signature])));
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

function encodeDistinguishedName(commonName: string): Buffer {
  return sequence(tlv(0x31, sequence(oid(OID.commonName), tlv(0x0c, Buffer.from(commonName)))));
}

/** Encodes a UTCTime, which RFC 5280 requires for years up to 2049. */
function encodeUtcTime(atMs: number): Buffer {
  const digits = new Date(atMs).toISOString().replaceAll(/[-:T]|\.\d+/g, '');
  return tlv(0x17, Buffer.from(digits.slice(2)));
}

function encodeExtension(id: readonly number[], value: Buffer): Buffer {
  return sequence(oid(id), tlv(0x04, value));
}

function oid(bytes: readonly number[]): Buffer {
  return tlv(0x06, Buffer.from(bytes));
}

function sequence(...items: readonly Buffer[]): Buffer {
  return tlv(0x30, Buffer.concat(items));
}

/** Encodes tag, length and value. */
function tlv(tag: number, value: Buffer): Buffer {
  const { length } = value;
  const head =
    length < 0x80
      ? [tag, length]
      : length < 0x100
        ? [tag, 0x81, length]
        : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(head), value]);
}
