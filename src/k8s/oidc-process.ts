/**
 * A separate program that `kubeconfig-resolver.ts` runs for users with the auth provider `oidc`. It reads the `user` of a
 * kubeconfig as JSON from standard input, lets @kubernetes/client-node refresh the ID token if it has expired, prints one
 * line of JSON and exits. It is a separate process because importing that package costs 60 MiB and half a second, and the
 * operator would keep that memory.
 */
import { text } from 'node:stream/consumers';
import { errorMessage } from '../error-message.ts';

/** The program's output: an ID token, or an error. */
export type OidcResult = { readonly token: string } | { readonly error: string };

async function refreshToken(user: unknown): Promise<string> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  // JSON is YAML. The cluster is not contacted.
  config.loadFromString(
    JSON.stringify({
      'current-context': 'current',
      contexts: [{ name: 'current', context: { cluster: 'current', user: 'current' } }],
      clusters: [{ name: 'current', cluster: { server: 'https://cluster.invalid' } }],
      users: [{ name: 'current', user }],
    }),
  );
  const options: { headers?: Record<string, unknown> } = {};
  await config.applyToHTTPSOptions(options);
  const [, token] = /^Bearer (.+)$/.exec(String(options.headers?.['Authorization'])) ?? [];
  // client-node sends no credentials at all in this case.
  if (token === undefined)
    throw new Error('the ID token is missing or has expired, and it cannot be refreshed; log in again');
  return token;
}

async function readAndRefresh(): Promise<OidcResult> {
  try {
    return { token: await refreshToken(JSON.parse(await text(process.stdin))) };
  } catch (error) {
    return { error: errorMessage(error) };
  }
}

async function main(): Promise<void> {
  process.stdout.write(`${JSON.stringify(await readAndRefresh())}\n`);
}

void main();
