import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';
import { parse as parseYaml } from 'yaml';
import { formatDuration, parseDuration } from './duration.ts';
import { parseHostPort } from './host-port.ts';
import { LOG_LEVELS, type LogLevel } from './log.ts';

/** How the operator is to run. Every value is checked. */
export interface Config {
  /** `host:port` of the reporting service and grpc.health.v1; port 0 picks a free one. */
  readonly grpcAddress: string;
  /** `host:port` of /livez, /readyz and /metrics. */
  readonly httpAddress: string;
  /** Path; undefined: in-cluster, else KUBECONFIG, else ~/.kube/config. */
  readonly kubeconfig: string | undefined;
  /** Undefined: the pod's, else the context's, else default. */
  readonly namespace: string | undefined;
  /** Undefined: the host's name, which is the pod's. */
  readonly replicaId: string | undefined;
  readonly reportIntervalMs: number;
  /** A reporter that has been lost for so long has its rows marked Unknown, and after the other time deleted. */
  readonly unknownAfterMs: number;
  readonly expireAfterMs: number;
  readonly onInvalid: 'skip' | 'nack';
  /** Whether gRPC reflection is served too. */
  readonly grpcReflection: boolean;
  readonly maxMessageSizeBytes: number;
  readonly maxTunnelsPerReporter: number;
  /** API writes in flight. */
  readonly writeConcurrency: number;
  /** By what a peer proves that it may report; `insecure`: by nothing. */
  readonly auth: 'mtls' | 'token' | 'mtls-or-token' | 'insecure';
  /** Paths of PEM files. Certificate and key: both or neither, and there for every mode but `insecure`. */
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  /** There for `mtls` and `mtls-or-token`, and for these alone. */
  readonly tlsClientCa: string | undefined;
  /** Whom tokens have to be meant for. */
  readonly tokenAudience: string;
  /** When a stream ends so that its peer proves anew who it is; some percent sooner or later. */
  readonly maxStreamAgeMs: number;
  readonly logLevel: LogLevel;
}

/** Either a configuration, or every mistake in it: one line each, naming key, value and what is allowed. */
export type ConfigResult = { readonly config: Config } | { readonly mistakes: readonly string[] };

const AUTH_MODES = ['mtls', 'token', 'mtls-or-token', 'insecure'] as const;

interface Setting<T> {
  readonly placeholder: string;
  readonly text: string;
  /** As it would be written; undefined: left open, as `otherwise` says. */
  readonly default?: string;
  readonly otherwise?: string;
  /** The value, or what is allowed instead. */
  readonly read: (text: string) => { readonly value: T } | { readonly allowed: string };
}

/** Every setting, once: its flag, its key in the file, its default, its check and its line in `--help`. */
const SETTINGS = {
  'grpc-address': {
    placeholder: 'HOST:PORT',
    text: 'address of the reporting service and grpc.health.v1; port 0 picks a free port',
    default: '0.0.0.0:18000',
    read: address,
  },
  'http-address': {
    placeholder: 'HOST:PORT',
    text: 'address of /livez, /readyz and /metrics',
    default: '0.0.0.0:8080',
    read: address,
  },
  kubeconfig: {
    placeholder: 'FILE',
    text: 'kubeconfig of the API server',
    otherwise: 'in-cluster, then $KUBECONFIG, then ~/.kube/config',
    read: anyText,
  },
  namespace: {
    placeholder: 'NAME',
    text: 'namespace of the objects',
    otherwise: "the pod's namespace, then the context's, then default",
    read: namespace,
  },
  'replica-id': {
    placeholder: 'NAME',
    text: 'name of this replica as an owner of reporters; need not be unique',
    otherwise: 'the pod name or host name',
    read: replicaId,
  },
  'report-interval': {
    placeholder: 'DURATION',
    text: 'interval at which reporters send reports',
    default: '5s',
    // The wire contract's bounds for report_interval.
    read: durationWithin(25, 3_600_000),
  },
  'unknown-after': {
    placeholder: 'DURATION',
    text: 'time after a reporter disconnects until its tunnels become Unknown; 0 is the default',
    default: '30s',
    read: durationOr('30s'),
  },
  'expire-after': {
    placeholder: 'DURATION',
    text: 'time after a reporter disconnects until its tunnels are deleted; 0 is the default',
    default: '5m',
    read: durationOr('5m'),
  },
  'on-invalid': {
    placeholder: 'skip|nack',
    text: 'for a report with an invalid tunnel: reject only that tunnel (skip) or the report (nack)',
    default: 'skip',
    read: oneOf(['skip', 'nack']),
  },
  'grpc-reflection': {
    placeholder: 'true|false',
    text: 'enable gRPC server reflection for tools such as grpcurl',
    default: 'false',
    read: truth,
  },
  'max-message-size': {
    placeholder: 'SIZE',
    text: 'maximum size of a report; a tunnel takes about 130 bytes',
    default: '64Mi',
    read: sizeWithin(1024, 1024 ** 3),
  },
  'max-tunnels-per-reporter': {
    placeholder: 'N',
    text: 'maximum number of tunnels per reporter',
    default: '500000',
    read: numberWithin(1, 10_000_000),
  },
  'write-concurrency': {
    placeholder: 'N',
    text: 'maximum number of concurrent API writes',
    default: '64',
    read: numberWithin(1, 1024),
  },
  auth: {
    placeholder: 'mtls|token|mtls-or-token|insecure',
    text: 'client authentication (required); insecure accepts any client',
    read: authMode,
  },
  'tls-cert': {
    placeholder: 'FILE',
    text: 'PEM certificate chain of the reporting service; reloaded when it changes',
    otherwise: 'none with insecure',
    read: anyText,
  },
  'tls-key': {
    placeholder: 'FILE',
    text: 'PEM private key for --tls-cert; reloaded when it changes',
    otherwise: 'none with insecure',
    read: anyText,
  },
  'tls-client-ca': {
    placeholder: 'FILE',
    text: 'PEM CA bundle for client certificates; reloaded when it changes',
    otherwise: 'none with token and insecure',
    read: anyText,
  },
  'token-audience': {
    placeholder: 'TEXT',
    text: 'audience that tokens must carry (auth modes token, mtls-or-token)',
    default: 'reverse-tunnel-operator',
    read: audience,
  },
  'max-stream-age': {
    placeholder: 'DURATION',
    text: 'maximum age of a stream; then the reporter reconnects and authenticates again; 0 is the default',
    default: '1h',
    read: durationOr('1h', 10_000),
  },
  'log-level': {
    placeholder: 'LEVEL',
    text: `log level: ${LOG_LEVELS.join(', ')}`,
    default: 'info',
    read: oneOf(LOG_LEVELS),
  },
} satisfies Record<string, Setting<unknown>>;

type Key = keyof typeof SETTINGS;

const OPTIONS: ParseArgsOptionsConfig = {
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
  config: { type: 'string' },
  ...Object.fromEntries(Object.keys(SETTINGS).map((key) => [key, { type: 'string' as const }])),
};

/** What the command line asks for, before any value is checked. */
export interface CommandLine {
  readonly help: boolean;
  readonly version: boolean;
  /** The file to read settings from. */
  readonly configFile: string | undefined;
  readonly flags: Readonly<Record<string, unknown>>;
}

/** Takes the arguments apart; the mistake is one line. */
export function parseCommandLine(
  argv: readonly string[],
): { readonly commandLine: CommandLine } | { readonly mistake: string } {
  try {
    const { values } = parseArgs({ args: [...argv], options: OPTIONS, allowPositionals: false });
    const { help, version, config, ...flags } = values;
    return {
      commandLine: {
        help: help === true,
        version: version === true,
        configFile: typeof config === 'string' ? config : undefined,
        flags,
      },
    };
  } catch (error) {
    return {
      mistake: error instanceof Error ? (error.message.split(/\.\s|\n/)[0] ?? error.message) : String(error),
    };
  }
}

/**
 * The configuration from flags and the text of the file; a flag wins.
 *
 * @param fileText YAML with the flags' names as keys; undefined when there is no file
 */
export function readConfig(flags: Readonly<Record<string, unknown>>, fileText?: string): ConfigResult {
  const mistakes: string[] = [];
  const file = fileText === undefined ? {} : readFile(fileText, mistakes);

  const setting = <K extends Key>(key: K): ValueOf<K> => {
    const { read, ...about } = SETTINGS[key] as Setting<ValueOf<K>>;
    const from = flags[key] === undefined ? key : `--${key}`;
    const given = flags[key] ?? file[key];
    if (typeof given === 'object' && given !== null) {
      mistakes.push(`${from}: must be a single value, not a list or map`);
      return undefined as ValueOf<K>;
    }
    const text = given === undefined || given === null ? about.default : asText(given);
    // Left open: what is undefined here is allowed to be in Config.
    if (text === undefined && about.otherwise !== undefined) return undefined as ValueOf<K>;
    const result = read(text ?? '');
    if ('value' in result) return result.value;
    mistakes.push(`${from}: ${text === undefined ? '' : `${JSON.stringify(text)} `}${result.allowed}`);
    return undefined as ValueOf<K>;
  };

  const config: Config = {
    grpcAddress: setting('grpc-address'),
    httpAddress: setting('http-address'),
    kubeconfig: setting('kubeconfig'),
    namespace: setting('namespace'),
    replicaId: setting('replica-id'),
    reportIntervalMs: setting('report-interval'),
    unknownAfterMs: setting('unknown-after'),
    expireAfterMs: setting('expire-after'),
    onInvalid: setting('on-invalid'),
    grpcReflection: setting('grpc-reflection'),
    maxMessageSizeBytes: setting('max-message-size'),
    maxTunnelsPerReporter: setting('max-tunnels-per-reporter'),
    writeConcurrency: setting('write-concurrency'),
    auth: setting('auth'),
    tlsCert: setting('tls-cert'),
    tlsKey: setting('tls-key'),
    tlsClientCa: setting('tls-client-ca'),
    tokenAudience: setting('token-audience'),
    maxStreamAgeMs: setting('max-stream-age'),
    logLevel: setting('log-level'),
  };
  // What one setting lacks another may be wrong for: first each for itself.
  if (mistakes.length === 0) mistakes.push(...tlsMistakes(config));
  return mistakes.length === 0 ? { config } : { mistakes };
}

/** What does not go together. A token in plaintext is everybody's who listens, so only `insecure` goes without TLS. */
function tlsMistakes({ auth, tlsCert, tlsKey, tlsClientCa }: Config): string[] {
  const mistakes: string[] = [];
  const checksCertificates = auth === 'mtls' || auth === 'mtls-or-token';
  if (auth !== 'insecure') {
    if (tlsCert === undefined) mistakes.push(`--tls-cert: required with --auth ${auth}`);
    if (tlsKey === undefined) mistakes.push(`--tls-key: required with --auth ${auth}`);
  } else if (tlsCert !== undefined && tlsKey === undefined) {
    mistakes.push('--tls-key: required with --tls-cert');
  } else if (tlsKey !== undefined && tlsCert === undefined) {
    mistakes.push('--tls-cert: required with --tls-key');
  }
  if (checksCertificates && tlsClientCa === undefined) {
    mistakes.push(`--tls-client-ca: required with --auth ${auth}`);
  }
  if (!checksCertificates && tlsClientCa !== undefined) {
    mistakes.push(
      `--tls-client-ca: not allowed with --auth ${auth}; only mtls and mtls-or-token verify certificates`,
    );
  }
  return mistakes;
}

type ValueOf<K extends Key> =
  Extract<ReturnType<(typeof SETTINGS)[K]['read']>, { readonly value: unknown }> extends {
    readonly value: infer T;
  }
    ? T
    : never;

/** The text of `--help`. */
export function helpText(): string {
  const lines = Object.entries<Setting<unknown>>(SETTINGS).map(([key, { placeholder, text, ...about }]) => {
    const otherwise = about.default ?? about.otherwise;
    return `  --${key} ${placeholder}\n        ${text}${otherwise === undefined ? '' : ` (default: ${otherwise})`}`;
  });
  return `Usage: reverse-tunnel-operator [FLAG ...]
       reverse-tunnel-operator doctor|status --help
       reverse-tunnel-operator simulate --help
       reverse-tunnel-operator selftest --help

Serves Envoy's ReverseTunnelReportingService and maintains one ReverseTunnel object per reported tunnel.

${lines.join('\n')}
  --config FILE
        YAML file with the flag names above as keys, such as \`report-interval: 5s\`; flags take precedence
  --version
  --help

Durations: 250ms, 30s, 5m. Sizes: 512Ki, 64Mi, 1Gi.
Exit codes: 0 stopped by a signal; 1 failure; 2 invalid flag or value.
`;
}

function readFile(text: string, mistakes: string[]): Readonly<Record<string, unknown>> {
  let parsed: unknown;
  try {
    parsed = parseYaml(text);
  } catch (error) {
    const [line] = error instanceof Error ? error.message.split('\n') : [String(error)];
    mistakes.push(`--config: invalid YAML: ${line}`);
    return {};
  }
  if (parsed === null || parsed === undefined) return {};
  if (typeof parsed !== 'object' || Array.isArray(parsed)) {
    mistakes.push('--config: must be a YAML mapping, such as `report-interval: 5s`');
    return {};
  }
  for (const key of Object.keys(parsed)) {
    if (!Object.hasOwn(SETTINGS, key)) mistakes.push(`${key}: unknown setting; see --help`);
  }
  return parsed as Record<string, unknown>;
}

function asText(given: unknown): string {
  return typeof given === 'string' ? given : JSON.stringify(given);
}

function anyText(text: string): { value: string } | { allowed: string } {
  return text === '' ? { allowed: 'must not be empty' } : { value: text };
}

function address(text: string): { value: string } | { allowed: string } {
  return parseHostPort(text) === undefined
    ? { allowed: 'must be host:port with a port of 0 to 65535, such as 0.0.0.0:18000 or [::]:18000' }
    : { value: text };
}

function namespace(text: string): { value: string } | { allowed: string } {
  return /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(text)
    ? { value: text }
    : { allowed: 'must be at most 63 lower-case letters, digits and dashes' };
}

function authMode(text: string): { value: Config['auth'] } | { allowed: string } {
  const value = AUTH_MODES.find((one) => one === text);
  return value === undefined
    ? {
        allowed: 'must be one of mtls, token, mtls-or-token, insecure (insecure accepts any client)',
      }
    : { value };
}

/** Any text that a JWT may have there; it is shown in logs and compared whole. */
function audience(text: string): { value: string } | { allowed: string } {
  return /^[\x21-\x7e]{1,256}$/.test(text)
    ? { value: text }
    : { allowed: 'must be 1 to 256 printable ASCII characters without spaces' };
}

function oneOf<const T extends string>(values: readonly T[]) {
  return (text: string): { value: T } | { allowed: string } => {
    const value = values.find((one) => one === text);
    return value === undefined ? { allowed: `must be one of ${values.join(', ')}` } : { value };
  };
}

function truth(text: string): { value: boolean } | { allowed: string } {
  return text === 'true' || text === 'false'
    ? { value: text === 'true' }
    : { allowed: 'must be true or false' };
}

function numberWithin(least: number, most: number) {
  return (text: string): { value: number } | { allowed: string } => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    return value >= least && value <= most
      ? { value }
      : { allowed: `must be a whole number from ${least} to ${most}` };
  };
}

function durationWithin(leastMs: number, mostMs: number) {
  return (text: string): { value: number } | { allowed: string } => {
    const parsed = parseDuration(text);
    return 'ms' in parsed && parsed.ms >= leastMs && parsed.ms <= mostMs
      ? { value: parsed.ms }
      : {
          allowed: `must be a duration from ${formatDuration(leastMs)} to ${formatDuration(mostMs)}, such as 250ms, 30s or 5m`,
        };
  };
}

/** Zero means the default, never "at once": an empty value in somebody's template must not delete rows. */
function durationOr(otherwise: string, leastMs = 1000) {
  const read = durationWithin(leastMs, 7 * 24 * 3_600_000);
  return (text: string): { value: number } | { allowed: string } => {
    const parsed = parseDuration(text);
    return read('ms' in parsed && parsed.ms === 0 ? otherwise : text);
  };
}

/** With the suffix of a start it has to fit the CRD's 320 characters. */
function replicaId(text: string): { value: string } | { allowed: string } {
  return /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?$/.test(text)
    ? { value: text }
    : { allowed: 'must be at most 253 letters, digits, dashes, dots and underscores' };
}

const BYTES_OF_UNIT: Readonly<Record<string, number>> = { '': 1, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3 };

function sizeWithin(leastBytes: number, mostBytes: number) {
  return (text: string): { value: number } | { allowed: string } => {
    const [, digits, unit = ''] = /^(\d{1,12})(Ki|Mi|Gi)?$/.exec(text) ?? [];
    const value = digits === undefined ? Number.NaN : Number(digits) * (BYTES_OF_UNIT[unit] ?? Number.NaN);
    return value >= leastBytes && value <= mostBytes
      ? { value }
      : {
          allowed: `must be a size from ${leastBytes / 1024}Ki to ${mostBytes / 1024 ** 3}Gi, such as 512Ki or 64Mi`,
        };
  };
}
