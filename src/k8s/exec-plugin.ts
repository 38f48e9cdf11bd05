import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { errorCode, errorMessage } from '../error-message.ts';
import { oneLine } from './api-error.ts';
import { isMapping, stringField, type YamlMapping } from './kubeconfig-merge.ts';

/** The terminal that an exec plugin may use. */
export interface PluginTerminal {
  /** Standard input is a terminal, which the plugin inherits if its interactiveMode allows that. */
  readonly hasInput: boolean;
  /** Inherited by the plugin, as with kubectl. False: it is read for the error message, as there is no user to read it. */
  readonly inheritsStderr: boolean;
  /** Limit for the plugin; undefined for none, because a user may have to respond. */
  readonly timeoutMs: number | undefined;
  /** Environment of this process, which the plugin inherits. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** The credentials that a plugin printed: a token, a certificate with its key, or both. */
export interface PluginCredentials {
  readonly token: string | undefined;
  /** PEM. */
  readonly cert: string | undefined;
  readonly key: string | undefined;
  /** Milliseconds since 1970; undefined if the credentials do not expire. */
  readonly expiresAtMs: number | undefined;
}

/** The plugin's stderr may be a page long; its last line usually contains the error. */
const MAX_ERROR_LENGTH = 200;

/**
 * Runs an exec plugin of a kubeconfig (client.authentication.k8s.io, v1 and v1beta1) by the contract of client-go.
 * client-node's `ExecAuth` is not used: it passes no KUBERNETES_EXEC_INFO, swallows standard error, leaves standard input
 * open without a writer, and accepts output of any version and shape.
 *
 * @param exec a validated `exec` of a user
 * @param cluster the `cluster` of the plugin's input
 * @throws Error one line that names the plugin
 */
export async function runExecPlugin(
  exec: YamlMapping,
  cluster: YamlMapping,
  terminal: PluginTerminal,
): Promise<PluginCredentials> {
  const command = stringField(exec, 'command') ?? '';
  const label = `exec plugin ${command}`;
  const apiVersion = stringField(exec, 'apiVersion') ?? '';
  const mode = stringField(exec, 'interactiveMode') ?? 'IfAvailable';
  if (mode === 'Always' && !terminal.hasInput)
    throw new Error(`${label} requires a terminal (interactiveMode Always), and standard input is not one`);
  const interactive = mode !== 'Never' && terminal.hasInput;
  const info = {
    apiVersion,
    kind: 'ExecCredential',
    spec: { ...(exec['provideClusterInfo'] === true ? { cluster } : {}), interactive },
  };
  const env = { ...terminal.env, ...extraEnv(exec), KUBERNETES_EXEC_INFO: JSON.stringify(info) };
  const args = Array.isArray(exec['args']) ? exec['args'].map(String) : [];
  const result = await run(command, args, interactive, { ...terminal, env }).catch((error: unknown) => {
    const isMissing = errorCode(error) === 'ENOENT';
    const reason = isMissing ? 'executable not found' : errorMessage(error);
    const hint = isMissing ? stringField(exec, 'installHint') : undefined;
    throw new Error(
      `${label}: ${reason}${hint === undefined ? '' : `; ${oneLine(hint, MAX_ERROR_LENGTH)}`}`,
      {
        cause: error,
      },
    );
  });
  if (result.timedOut) throw new Error(`${label} did not end within ${(terminal.timeoutMs ?? 0) / 1000} s`);
  if (result.code !== 0) {
    const outcome =
      result.code === null ? `was ended by ${result.signal}` : `failed with exit code ${result.code}`;
    const detail = oneLine(result.stderr.trim().split('\n').at(-1) ?? '', MAX_ERROR_LENGTH);
    throw new Error(`${label} ${outcome}${detail === '' ? '' : `: ${detail}`}`);
  }
  return readCredentials(label, apiVersion, result.stdout);
}

interface RunResult {
  readonly stdout: string;
  /** "" if the plugin wrote to the terminal. */
  readonly stderr: string;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
}

/** Runs a program until it has exited and closed its output. Rejects if it cannot be started. */
async function run(
  command: string,
  args: readonly string[],
  inheritStdin: boolean,
  { inheritsStderr, timeoutMs, env }: PluginTerminal,
): Promise<RunResult> {
  const child = spawn(command, args, {
    env,
    stdio: [inheritStdin ? 'inherit' : 'ignore', 'pipe', inheritsStderr ? 'inherit' : 'pipe'],
    ...(timeoutMs === undefined ? {} : { timeout: timeoutMs, killSignal: 'SIGKILL' }),
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  const output = Promise.all([
    child.stdout === null ? '' : text(child.stdout),
    child.stderr === null ? '' : text(child.stderr),
  ]);
  // A plugin that cannot be started has no output; its error is reported instead.
  output.catch(() => undefined);
  const startedMs = performance.now();
  const { code, signal } = await ended;
  const timedOut =
    timeoutMs !== undefined && signal === 'SIGKILL' && performance.now() - startedMs >= timeoutMs;
  // A process that the plugin left behind may keep its output open.
  if (timedOut) child.stdout?.destroy();
  const [stdout, stderr] = timedOut ? ['', ''] : await output;
  return { stdout, stderr, code, signal, timedOut };
}

function extraEnv(exec: YamlMapping): Record<string, string> {
  const items = Array.isArray(exec['env']) ? exec['env'].filter(isMapping) : [];
  return Object.fromEntries(
    items.map((item) => [stringField(item, 'name') ?? '', stringField(item, 'value') ?? '']),
  );
}

/** Checks the output as client-go does. The output may contain a token and is therefore never quoted. */
function readCredentials(label: string, apiVersion: string, stdout: string): PluginCredentials {
  let output: unknown;
  try {
    output = JSON.parse(stdout);
  } catch {
    throw new Error(`${label} printed ${stdout.trim() === '' ? 'nothing' : 'invalid JSON'}`);
  }
  if (!isMapping(output) || output['kind'] !== 'ExecCredential')
    throw new Error(`${label} printed something other than an ExecCredential`);
  if (output['apiVersion'] !== apiVersion) {
    throw new Error(
      `${label} printed apiVersion ${oneLine(JSON.stringify(output['apiVersion'] ?? null), 80)}, but the kubeconfig requires ${apiVersion}`,
    );
  }
  const { status } = output;
  if (!isMapping(status)) throw new Error(`${label} printed no status`);
  const token = stringField(status, 'token');
  const cert = stringField(status, 'clientCertificateData');
  const key = stringField(status, 'clientKeyData');
  if (token === undefined && cert === undefined && key === undefined)
    throw new Error(`${label} printed neither a token nor a certificate`);
  if ((cert === undefined) !== (key === undefined))
    throw new Error(
      `${label} printed a ${cert === undefined ? 'key without its certificate' : 'certificate without its key'}`,
    );
  const expiry = stringField(status, 'expirationTimestamp');
  const expiresAtMs = expiry === undefined ? undefined : Date.parse(expiry);
  if (Number.isNaN(expiresAtMs)) throw new Error(`${label} printed an invalid expirationTimestamp`);
  return { token, cert, key, expiresAtMs };
}
