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
export type ConfigResult = { readonly config: Config } | { readonly errors: readonly string[] };

const AUTH_MODES = ['mtls', 'token', 'mtls-or-token', 'insecure'] as const;

interface Setting<T> {
  readonly metavar: string;
  readonly description: string;
  /** As it would be written; undefined: left open, as `otherwise` says. */
  readonly default?: string;
  readonly defaultText?: string;
  /** The value, or what is allowed instead. */
  readonly read: (text: string) => { readonly value: T } | { readonly expected: string };
}

/** Every setting, once: its flag, its key in the file, its default, its check and its line in `--help`. */
const SETTINGS = {
  'grpc-address': {
    metavar: 'HOST:PORT',
    description: 'address of the reporting service and grpc.health.v1; port 0 picks a free port',
    default: '0.0.0.0:18000',
    read: address,
  },
  'http-address': {
    metavar: 'HOST:PORT',
    description: 'address of /livez, /readyz and /metrics',
    default: '0.0.0.0:8080',
    read: address,
  },
  kubeconfig: {
    metavar: 'FILE',
    description: 'kubeconfig of the API server',
    defaultText: 'in-cluster, then $KUBECONFIG, then ~/.kube/config',
    read: nonEmpty,
  },
  namespace: {
    metavar: 'NAME',
    description: 'namespace of the objects',
    defaultText: "the pod's namespace, then the context's, then default",
    read: namespace,
  },
  'replica-id': {
    metavar: 'NAME',
    description: 'name of this replica as an owner of reporters; need not be unique',
    defaultText: 'the pod name or host name',
    read: replicaId,
  },
  'report-interval': {
    metavar: 'DURATION',
    description: 'interval at which reporters send reports',
    default: '5s',
    // The wire contract's bounds for report_interval.
    read: durationInRange(25, 3_600_000),
  },
  'unknown-after': {
    metavar: 'DURATION',
    description: 'time after a reporter disconnects until its tunnels become Unknown; 0 is the default',
    default: '30s',
    read: durationWithDefault('30s'),
  },
  'expire-after': {
    metavar: 'DURATION',
    description: 'time after a reporter disconnects until its tunnels are deleted; 0 is the default',
    default: '5m',
    read: durationWithDefault('5m'),
  },
  'on-invalid': {
    metavar: 'skip|nack',
    description: 'for a report with an invalid tunnel: reject only that tunnel (skip) or the report (nack)',
    default: 'skip',
    read: enumOf(['skip', 'nack']),
  },
  'grpc-reflection': {
    metavar: 'true|false',
    description: 'enable gRPC server reflection for tools such as grpcurl',
    default: 'false',
    read: boolean,
  },
  'max-message-size': {
    metavar: 'SIZE',
    description: 'maximum size of a report; a tunnel takes about 130 bytes',
    default: '64Mi',
    read: sizeInRange(1024, 1024 ** 3),
  },
  'max-tunnels-per-reporter': {
    metavar: 'N',
    description: 'maximum number of tunnels per reporter',
    default: '500000',
    read: numberInRange(1, 10_000_000),
  },
  'write-concurrency': {
    metavar: 'N',
    description: 'maximum number of concurrent API writes',
    default: '64',
    read: numberInRange(1, 1024),
  },
  auth: {
    metavar: 'mtls|token|mtls-or-token|insecure',
    description: 'client authentication (required); insecure accepts any client',
    read: authMode,
  },
  'tls-cert': {
    metavar: 'FILE',
    description: 'PEM certificate chain of the reporting service; reloaded when it changes',
    defaultText: 'none with insecure',
    read: nonEmpty,
  },
  'tls-key': {
    metavar: 'FILE',
    description: 'PEM private key for --tls-cert; reloaded when it changes',
    defaultText: 'none with insecure',
    read: nonEmpty,
  },
  'tls-client-ca': {
    metavar: 'FILE',
    description: 'PEM CA bundle for client certificates; reloaded when it changes',
    defaultText: 'none with token and insecure',
    read: nonEmpty,
  },
  'token-audience': {
    metavar: 'TEXT',
    description: 'audience that tokens must carry (auth modes token, mtls-or-token)',
    default: 'reverse-tunnel-operator',
    read: audience,
  },
  'max-stream-age': {
    metavar: 'DURATION',
    description:
      'maximum age of a stream; then the reporter reconnects and authenticates again; 0 is the default',
    default: '1h',
    read: durationWithDefault('1h', 10_000),
  },
  'log-level': {
    metavar: 'LEVEL',
    description: `log level: ${LOG_LEVELS.join(', ')}`,
    default: 'info',
    read: enumOf(LOG_LEVELS),
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
): { readonly commandLine: CommandLine } | { readonly error: string } {
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
      error: error instanceof Error ? (error.message.split(/\.\s|\n/)[0] ?? error.message) : String(error),
    };
  }
}

/**
 * The configuration from flags and the text of the file; a flag wins.
 *
 * @param fileText YAML with the flags' names as keys; undefined when there is no file
 */
export function readConfig(flags: Readonly<Record<string, unknown>>, fileText?: string): ConfigResult {
  const errors: string[] = [];
  const file = fileText === undefined ? {} : parseConfigFile(fileText, errors);

  const valueOf = <K extends Key>(key: K): ValueOf<K> => {
    const { read, ...setting } = SETTINGS[key] as Setting<ValueOf<K>>;
    const source = flags[key] === undefined ? key : `--${key}`;
    const rawValue = flags[key] ?? file[key];
    if (typeof rawValue === 'object' && rawValue !== null) {
      errors.push(`${source}: must be a single value, not a list or map`);
      return undefined as ValueOf<K>;
    }
    const text = rawValue === undefined || rawValue === null ? setting.default : stringify(rawValue);
    // Left open: what is undefined here is allowed to be in Config.
    if (text === undefined && setting.defaultText !== undefined) return undefined as ValueOf<K>;
    const result = read(text ?? '');
    if ('value' in result) return result.value;
    errors.push(`${source}: ${text === undefined ? '' : `${JSON.stringify(text)} `}${result.expected}`);
    return undefined as ValueOf<K>;
  };

  const config: Config = {
    grpcAddress: valueOf('grpc-address'),
    httpAddress: valueOf('http-address'),
    kubeconfig: valueOf('kubeconfig'),
    namespace: valueOf('namespace'),
    replicaId: valueOf('replica-id'),
    reportIntervalMs: valueOf('report-interval'),
    unknownAfterMs: valueOf('unknown-after'),
    expireAfterMs: valueOf('expire-after'),
    onInvalid: valueOf('on-invalid'),
    grpcReflection: valueOf('grpc-reflection'),
    maxMessageSizeBytes: valueOf('max-message-size'),
    maxTunnelsPerReporter: valueOf('max-tunnels-per-reporter'),
    writeConcurrency: valueOf('write-concurrency'),
    auth: valueOf('auth'),
    tlsCert: valueOf('tls-cert'),
    tlsKey: valueOf('tls-key'),
    tlsClientCa: valueOf('tls-client-ca'),
    tokenAudience: valueOf('token-audience'),
    maxStreamAgeMs: valueOf('max-stream-age'),
    logLevel: valueOf('log-level'),
  };
  // What one setting lacks another may be wrong for: first each for itself.
  if (errors.length === 0) errors.push(...tlsErrors(config));
  return errors.length === 0 ? { config } : { errors };
}

/** What does not go together. A token in plaintext is everybody's who listens, so only `insecure` goes without TLS. */
function tlsErrors({ auth, tlsCert, tlsKey, tlsClientCa }: Config): string[] {
  const errors: string[] = [];
  const verifiesClientCerts = auth === 'mtls' || auth === 'mtls-or-token';
  if (auth !== 'insecure') {
    if (tlsCert === undefined) errors.push(`--tls-cert: required with --auth ${auth}`);
    if (tlsKey === undefined) errors.push(`--tls-key: required with --auth ${auth}`);
  } else if (tlsCert !== undefined && tlsKey === undefined) {
    errors.push('--tls-key: required with --tls-cert');
  } else if (tlsKey !== undefined && tlsCert === undefined) {
    errors.push('--tls-cert: required with --tls-key');
  }
  if (verifiesClientCerts && tlsClientCa === undefined) {
    errors.push(`--tls-client-ca: required with --auth ${auth}`);
  }
  if (!verifiesClientCerts && tlsClientCa !== undefined) {
    errors.push(
      `--tls-client-ca: not allowed with --auth ${auth}; only mtls and mtls-or-token verify certificates`,
    );
  }
  return errors;
}

type ValueOf<K extends Key> =
  Extract<ReturnType<(typeof SETTINGS)[K]['read']>, { readonly value: unknown }> extends {
    readonly value: infer T;
  }
    ? T
    : never;

/** The text of `--help`. */
export function helpText(): string {
  const lines = Object.entries<Setting<unknown>>(SETTINGS).map(
    ([key, { metavar, description, ...about }]) => {
      const defaultText = about.default ?? about.defaultText;
      return `  --${key} ${metavar}\n        ${description}${defaultText === undefined ? '' : ` (default: ${defaultText})`}`;
    },
  );
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

function parseConfigFile(text: string, errors: string[]): Readonly<Record<string, unknown>> {
  let parsed: unknown;
  try {
    parsed = parseYaml(text);
  } catch (error) {
    const [line] = error instanceof Error ? error.message.split('\n') : [String(error)];
    errors.push(`--config: invalid YAML: ${line}`);
    return {};
  }
  if (parsed === null || parsed === undefined) return {};
  if (typeof parsed !== 'object' || Array.isArray(parsed)) {
    errors.push('--config: must be a YAML mapping, such as `report-interval: 5s`');
    return {};
  }
  for (const key of Object.keys(parsed)) {
    if (!Object.hasOwn(SETTINGS, key)) errors.push(`${key}: unknown setting; see --help`);
  }
  return parsed as Record<string, unknown>;
}

function stringify(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function nonEmpty(text: string): { value: string } | { expected: string } {
  return text === '' ? { expected: 'must not be empty' } : { value: text };
}

function address(text: string): { value: string } | { expected: string } {
  return parseHostPort(text) === undefined
    ? { expected: 'must be host:port with a port of 0 to 65535, such as 0.0.0.0:18000 or [::]:18000' }
    : { value: text };
}

function namespace(text: string): { value: string } | { expected: string } {
  return /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(text)
    ? { value: text }
    : { expected: 'must be at most 63 lower-case letters, digits and dashes' };
}

function authMode(text: string): { value: Config['auth'] } | { expected: string } {
  const value = AUTH_MODES.find((mode) => mode === text);
  return value === undefined
    ? {
        expected: 'must be one of mtls, token, mtls-or-token, insecure (insecure accepts any client)',
      }
    : { value };
}

/** Any text that a JWT may have there; it is shown in logs and compared whole. */
function audience(text: string): { value: string } | { expected: string } {
  return /^[\x21-\x7e]{1,256}$/.test(text)
    ? { value: text }
    : { expected: 'must be 1 to 256 printable ASCII characters without spaces' };
}

function enumOf<const T extends string>(values: readonly T[]) {
  return (text: string): { value: T } | { expected: string } => {
    const value = values.find((candidate) => candidate === text);
    return value === undefined ? { expected: `must be one of ${values.join(', ')}` } : { value };
  };
}

function boolean(text: string): { value: boolean } | { expected: string } {
  return text === 'true' || text === 'false'
    ? { value: text === 'true' }
    : { expected: 'must be true or false' };
}

function numberInRange(min: number, max: number) {
  return (text: string): { value: number } | { expected: string } => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    return value >= min && value <= max
      ? { value }
      : { expected: `must be a whole number from ${min} to ${max}` };
  };
}

function durationInRange(minMs: number, maxMs: number) {
  return (text: string): { value: number } | { expected: string } => {
    const parsed = parseDuration(text);
    return 'ms' in parsed && parsed.ms >= minMs && parsed.ms <= maxMs
      ? { value: parsed.ms }
      : {
          expected: `must be a duration from ${formatDuration(minMs)} to ${formatDuration(maxMs)}, such as 250ms, 30s or 5m`,
        };
  };
}

/** Zero means the default, never "at once": an empty value in somebody's template must not delete rows. */
function durationWithDefault(defaultText: string, minMs = 1000) {
  const read = durationInRange(minMs, 7 * 24 * 3_600_000);
  return (text: string): { value: number } | { expected: string } => {
    const parsed = parseDuration(text);
    return read('ms' in parsed && parsed.ms === 0 ? defaultText : text);
  };
}

/** With the suffix of a start it has to fit the CRD's 320 characters. */
function replicaId(text: string): { value: string } | { expected: string } {
  return /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?$/.test(text)
    ? { value: text }
    : { expected: 'must be at most 253 letters, digits, dashes, dots and underscores' };
}

const BYTES_PER_UNIT: Readonly<Record<string, number>> = { '': 1, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3 };

function sizeInRange(minBytes: number, maxBytes: number) {
  return (text: string): { value: number } | { expected: string } => {
    const [, digits, unit = ''] = /^(\d{1,12})(Ki|Mi|Gi)?$/.exec(text) ?? [];
    const value = digits === undefined ? Number.NaN : Number(digits) * (BYTES_PER_UNIT[unit] ?? Number.NaN);
    return value >= minBytes && value <= maxBytes
      ? { value }
      : {
          expected: `must be a size from ${minBytes / 1024}Ki to ${maxBytes / 1024 ** 3}Gi, such as 512Ki or 64Mi`,
        };
  };
}
