/** Keys, tokens and kubeconfigs, made by Node alone. */
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';

/** A token that nobody guesses. */
export function generateToken(): string {
  return randomBytes(24).toString('base64url');
}

/** Writes a file that only this user may read. */
export async function writeSecret(path: string, content: string): Promise<string> {
  await writeFile(path, content, { mode: 0o600 });
  return path;
}

/** The key pair that signs ServiceAccount tokens and verifies them, as PEM. */
export function generateServiceAccountKeys(): { readonly privateKey: string; readonly publicKey: string } {
  return generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'sec1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
}

/** What a kubeconfig says. */
export interface KubeconfigOptions {
  readonly url: string;
  /** PEM; the only thing that is trusted. */
  readonly ca: string;
  readonly user: string;
  readonly token: string;
  readonly namespace: string;
}

/** A kubeconfig with one context, as JSON, which is also YAML. It needs no other file. */
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
          // No insecure-skip-tls-verify: clients under test check certificates as they do in a cluster.
          cluster: {
            server: options.url,
            'certificate-authority-data': Buffer.from(options.ca).toString('base64'),
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
