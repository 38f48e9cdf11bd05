import { parseArgs } from 'node:util';
import { formatDuration, parseDuration } from '../duration.ts';
import type { IdentityFiles } from '../grpc/reporter-identity.ts';
import { parseAddress } from '../simulate/address.ts';

/** What `selftest` was asked to do. */
export interface SelftestOptions {
  /** The reporting service, host:port. */
  readonly address: string;
  /** Undefined: the pod's, else the context's, else default. */
  readonly namespace: string | undefined;
  readonly kubeconfig: string | undefined;
  /** Name of reporter, tenant, cluster and node alike. */
  readonly reporter: string;
  readonly timeoutMs: number;
  readonly identityFiles: IdentityFiles;
}

/** The options, a wish for the help text, or what is wrong, in one line each. */
export type ParsedSelftest =
  { readonly options: SelftestOptions } | { readonly help: string } | { readonly errors: readonly string[] };

/** Needs no escaping in a field selector. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const MAX_TIMEOUT_MS = 3_600_000;

/** With the word for the value, as `--help` shows them; the parser takes the names from here. */
const FLAGS: Readonly<Record<string, string>> = {
  'address HOST:PORT': 'address of the reporting service (default: 127.0.0.1:18000)',
  'namespace NAME':
    "namespace of the objects (default: the pod's namespace, then the context's, then default)",
  'kubeconfig FILE':
    'kubeconfig of the API server (default: in-cluster, then $KUBECONFIG, then ~/.kube/config)',
  'reporter NAME': 'name of reporter, tenant, cluster and node (default: selftest)',
  'timeout DURATION': 'timeout of the whole test, 1s to 1h (default: 60s)',
  'tls-ca FILE': "PEM CA bundle of the service's certificate; enables TLS (default: plaintext)",
  'tls-server-name NAME': 'expected name in that certificate; requires --tls-ca (default: host of --address)',
  'tls-cert FILE': 'PEM client certificate; requires --tls-key',
  'tls-key FILE': 'PEM private key for --tls-cert',
  'token-file FILE': 'file with the bearer token to send over TLS',
};

/** Reads the arguments after `selftest`. Every mistake is named, not only the first. */
export function parseSelftest(argv: readonly string[]): ParsedSelftest {
  let values: Readonly<Record<string, string | boolean | undefined>>;
  try {
    const names = Object.keys(FLAGS).map((flag) => flag.split(' ')[0] ?? '');
    ({ values } = parseArgs({
      args: [...argv],
      options: {
        ...Object.fromEntries(names.map((name) => [name, { type: 'string' as const }])),
        help: { type: 'boolean', short: 'h' },
      },
      allowPositionals: false,
    }));
  } catch (error) {
    return { errors: [(error as Error).message.split(/\.\s|\n/)[0] ?? ''] };
  }
  if (values['help'] === true) return { help: helpText() };

  const errors: string[] = [];
  const text = (name: string): string | undefined => {
    const value = values[name];
    if (value === '') errors.push(`--${name}: must not be empty`);
    return typeof value === 'string' ? value : undefined;
  };
  const address = text('address') ?? '127.0.0.1:18000';
  const parsedAddress = parseAddress(address);
  if ('error' in parsedAddress) errors.push(`--address: ${parsedAddress.error}`);
  const reporter = text('reporter') ?? 'selftest';
  if (!NAME.test(reporter)) {
    errors.push(`--reporter ${reporter}: must be 1 to 63 letters, digits, dots, dashes and underscores`);
  }
  const timeout = text('timeout') ?? '60s';
  const parsedTimeout = parseDuration(timeout);
  const timeoutMs = 'ms' in parsedTimeout ? parsedTimeout.ms : 0;
  if (timeoutMs < 1000 || timeoutMs > MAX_TIMEOUT_MS) {
    errors.push(
      `--timeout ${timeout}: must be a duration from 1s to ${formatDuration(MAX_TIMEOUT_MS)}, such as 60s`,
    );
  }
  const caFile = text('tls-ca');
  const serverName = text('tls-server-name');
  const certFile = text('tls-cert');
  const keyFile = text('tls-key');
  const tokenFile = text('token-file');
  if ((certFile === undefined) !== (keyFile === undefined))
    errors.push('--tls-cert, --tls-key: must be set together');
  // In plaintext whoever listens on the way would have it.
  if (caFile === undefined && (certFile ?? tokenFile) !== undefined) {
    errors.push('--tls-ca: required with --tls-cert and --token-file');
  }
  if (caFile === undefined && serverName !== undefined) errors.push('--tls-server-name: requires --tls-ca');
  if (errors.length > 0) return { errors };
  return {
    options: {
      address,
      namespace: text('namespace'),
      kubeconfig: text('kubeconfig'),
      reporter,
      timeoutMs,
      identityFiles: { caFile, certFile, keyFile, serverName, tokenFile },
    },
  };
}

function helpText(): string {
  return `usage: reverse-tunnel-operator selftest [flags]

Asks whether an installation works: reports one tunnel as an Envoy would, waits until its ReverseTunnel object is seen
through the API, takes it back, and waits until the object is gone. Needs the right to list reversetunnels.

${Object.entries(FLAGS)
  .map(([flag, what]) => `  --${flag}\n        ${what}\n`)
  .join('')}  --help

Exit code: 0 if all of it was seen in time, 1 if not, 2 for a wrong flag.
`;
}
