import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../clock.ts';
import { ConnectionError, type Connection } from './connection.ts';
import { createCredentialSource, type CredentialLoader, type Credentials } from './credentials.ts';
import type { KubeconfigResult, ResolvedKubeconfig } from './kubeconfig-resolver.ts';

/** The sibling program: beside this file in `src` as TypeScript, in `dist` as JavaScript. */
const RESOLVER_PATH = fileURLToPath(
  new URL(`./kubeconfig-resolver${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url),
);

/** For an exec plugin that asks its provider over the network; one that waits for a person never answers. */
const RESOLVER_TIMEOUT_MS = 60_000;

/**
 * The connection of a context of kubeconfig files that exist, the current one unless another is wanted. The credentials are worked out again, in the
 * same way, when they expire or are refused; a token file is read again meanwhile.
 */
export async function connectWithKubeconfig(
  paths: readonly string[],
  clock: Clock,
  contextName?: string,
): Promise<Connection> {
  const args = [...(contextName === undefined ? [] : [`--context=${contextName}`]), '--', ...paths];
  const source = `kubeconfig ${paths.join(', ')}`;
  const initial = await runResolver(source, args);
  const { server, proxyUrl, namespace, context } = initial;
  let { tokenFile } = initial;
  const loader: CredentialLoader = {
    async renew() {
      const renewed = await runResolver(source, args);
      // The connections stand to the old one, and new credentials are not for it.
      if (renewed.server !== server) {
        throw new ConnectionError(
          `${source}: server changed from ${server} to ${renewed.server}; restart to apply it`,
        );
      }
      // The user may have moved from one kind of credentials to another.
      tokenFile = renewed.tokenFile;
      return toCredentials(renewed);
    },
    async reload(last) {
      if (tokenFile === undefined) return last;
      const token = (await readFile(tokenFile, 'utf8')).trim();
      // As it is for a moment where a file is written over instead of being replaced.
      return token === '' ? last : { ...last, authorization: `Bearer ${token}` };
    },
  };
  return {
    server: new URL(server),
    proxyUrl,
    namespace,
    source: `${source}, context ${context}`,
    credentials: createCredentialSource(toCredentials(initial), loader, clock),
  };
}

/** The part that is allowed to change while the operator runs. */
function toCredentials(resolved: ResolvedKubeconfig): Credentials {
  const { ca, cert, key, serverName, authorization, impersonateUser, expiresAtMs } = resolved;
  return { ca, cert, key, serverName, authorization, impersonateUser, expiresAtMs };
}

/** Runs the program once. Rejects with `ConnectionError`: what it said, or how it ended without saying anything. */
function runResolver(source: string, args: readonly string[]): Promise<ResolvedKubeconfig> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      process.execPath,
      [RESOLVER_PATH, ...args],
      { timeout: RESOLVER_TIMEOUT_MS, maxBuffer: 16 * 1024 * 1024 },
      (failure, stdout, stderr) => {
        const result = parseResult(stdout);
        if (result !== undefined && 'resolved' in result) resolve(result.resolved);
        else if (result !== undefined) reject(new ConnectionError(result.error));
        else if (failure?.killed === true) {
          reject(
            new ConnectionError(
              `${source}: credentials not available within ${RESOLVER_TIMEOUT_MS / 1000} s`,
            ),
          );
        } else {
          const errorLine = stderr.split('\n').find((line) => /error/i.test(line)) ?? 'no error output';
          reject(
            new ConnectionError(`${source}: cannot resolve credentials: ${errorLine.trim()}`, {
              cause: failure,
            }),
          );
        }
      },
    );
    // Nobody types here: a plugin that asks for a password reads the end at once instead of waiting.
    child.stdin?.end();
  });
}

/** The last line, since an exec plugin's libraries may print before it; undefined when the program did not get there. */
function parseResult(stdout: string): KubeconfigResult | undefined {
  try {
    const result: KubeconfigResult = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '');
    return result;
  } catch {
    return undefined;
  }
}
