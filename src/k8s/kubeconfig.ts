import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../clock.ts';
import { ConnectionError, type Connection } from './connection.ts';
import { createCredentialSource, type CredentialLoader, type Credentials } from './credentials.ts';
import type { KubeconfigAnswer, ResolvedKubeconfig } from './kubeconfig-process.ts';

/** The sibling program: beside this file in `src` as TypeScript, in `dist` as JavaScript. */
const PROGRAM = fileURLToPath(
  new URL(`./kubeconfig-process${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url),
);

/** For an exec plugin that asks its provider over the network; one that waits for a person never answers. */
const PROGRAM_TIMEOUT_MS = 60_000;

/**
 * The connection of a context of kubeconfig files that exist, the current one unless another is wanted. The credentials are worked out again, in the
 * same way, when they expire or are refused; a token file is read again meanwhile.
 */
export async function connectByKubeconfig(
  paths: readonly string[],
  clock: Clock,
  wantedContext?: string,
): Promise<Connection> {
  const program = [...(wantedContext === undefined ? [] : [`--context=${wantedContext}`]), '--', ...paths];
  const where = `kubeconfig ${paths.join(', ')}`;
  const first = await runProgram(where, program);
  const { server, proxyUrl, namespace, context } = first;
  let { tokenFile } = first;
  const loader: CredentialLoader = {
    async renew() {
      const again = await runProgram(where, program);
      // The connections stand to the old one, and new credentials are not for it.
      if (again.server !== server) {
        throw new ConnectionError(
          `${where}: server changed from ${server} to ${again.server}; restart to apply it`,
        );
      }
      // The user may have moved from one kind of credentials to another.
      tokenFile = again.tokenFile;
      return credentialsOf(again);
    },
    async reread(last) {
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
    source: `${where}, context ${context}`,
    credentials: createCredentialSource(credentialsOf(first), loader, clock),
  };
}

/** The part that is allowed to change while the operator runs. */
function credentialsOf(resolved: ResolvedKubeconfig): Credentials {
  const { ca, cert, key, serverName, authorization, impersonateUser, expiresAtMs } = resolved;
  return { ca, cert, key, serverName, authorization, impersonateUser, expiresAtMs };
}

/** Runs the program once. Rejects with `ConnectionError`: what it said, or how it ended without saying anything. */
function runProgram(where: string, args: readonly string[]): Promise<ResolvedKubeconfig> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      process.execPath,
      [PROGRAM, ...args],
      { timeout: PROGRAM_TIMEOUT_MS, maxBuffer: 16 * 1024 * 1024 },
      (failure, stdout, stderr) => {
        const answer = parseAnswer(stdout);
        if (answer !== undefined && 'resolved' in answer) resolve(answer.resolved);
        else if (answer !== undefined) reject(new ConnectionError(answer.error));
        else if (failure?.killed === true) {
          reject(
            new ConnectionError(`${where}: credentials not available within ${PROGRAM_TIMEOUT_MS / 1000} s`),
          );
        } else {
          const said = stderr.split('\n').find((line) => /error/i.test(line)) ?? 'no error output';
          reject(
            new ConnectionError(`${where}: cannot resolve credentials: ${said.trim()}`, { cause: failure }),
          );
        }
      },
    );
    // Nobody types here: a plugin that asks for a password reads the end at once instead of waiting.
    child.stdin?.end();
  });
}

/** The last line, since an exec plugin's libraries may print before it; undefined when the program did not get there. */
function parseAnswer(stdout: string): KubeconfigAnswer | undefined {
  try {
    const answer: KubeconfigAnswer = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '');
    return answer;
  } catch {
    return undefined;
  }
}
