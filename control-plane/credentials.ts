/** Keys, tokens and kubeconfigs, generated with Node only. */
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';

/** Returns a random token of 192 bits. */
export function generateToken(): string {
  return randomBytes(24).toString('base64url');
}

/** Writes a file that is readable only by this user, and returns its path. */
export async function writeSecret(path: string, content: string): Promise<string> {
  await writeFile(path, content, { mode: 0o600 });
  return path;
}

/** Generates the key pair that signs and verifies ServiceAccount tokens, as PEM. */
export function generateServiceAccountKeys(): { readonly privateKey: string; readonly publicKey: string } {
  return generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'sec1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
}

/** The contents of a kubeconfig. */
export interface KubeconfigOptions {
  readonly url: string;
  /** The only trusted CA: PEM, or the path of a file that may not exist yet. */
  readonly ca: string | { readonly path: string };
  readonly user: string;
  readonly token: string;
  readonly namespace: string;
}

/** Returns a kubeconfig with one context, as JSON (which is valid YAML). */
export function renderKubeconfig(options: KubeconfigOptions): string {
  const name = 'control-plane';
  return `${JSON.stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': name,
      clusters: [
        {
          name,
          // No insecure-skip-tls-verify: clients under test must verify certificates as in a cluster.
          cluster: {
            server: options.url,
            ...(typeof options.ca === 'string'
              ? { 'certificate-authority-data': Buffer.from(options.ca).toString('base64') }
              : { 'certificate-authority': options.ca.path }),
          },
        },
      ],
      users: [{ name: options.user, user: { token: options.token } }],
      contexts: [{ name, context: { cluster: name, user: options.user, namespace: options.namespace } }],
    },
    null,
    2,
  )}\n`;
}
