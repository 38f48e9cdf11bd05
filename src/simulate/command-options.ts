import { parseArgs } from 'node:util';
import { formatDuration, parseDuration } from '../duration.ts';
import type { IdentityFiles } from '../grpc/reporter-identity.ts';
import { parseAddress } from './address.ts';

/** What `simulate` was asked to do. */
export interface CommandOptions {
  /** host:port. */
  readonly address: string;
  readonly reporters: number;
  /** Of each reporter. */
  readonly tunnels: number;
  readonly tenants: number;
  readonly clusters: number;
  /** A second, over the whole fleet. */
  readonly churn: number;
  /** A second, over the whole fleet. */
  readonly flap: number;
  readonly intervalMs: number;
  /** 0: until interrupted. */
  readonly durationMs: number;
  readonly seed: number;
  readonly tenantIsolation: boolean;
  readonly identity: IdentityFiles;
}

/** The options, a wish for the help text, or everything that is wrong: one line each, naming key, value and range. */
export type ParsedCommand =
  { readonly options: CommandOptions } | { readonly help: string } | { readonly errors: readonly string[] };

interface Flag {
  /** Written as a user would. */
  readonly default: string;
  /** What it is for. */
  readonly help: string;
  /** What it must be; completes both the help text and the complaint. */
  readonly expected: string;
  /** The value of a text that is in range, else undefined. */
  readonly read: (text: string) => number | string | undefined;
}

/** Over all reporters: some 500 bytes each, so this takes 2.5 GB. */
const MAX_TOTAL_TUNNELS = 5_000_000;
const DAY_MS = 86_400_000;

const FLAGS = {
  address: {
    default: '127.0.0.1:18000',
    help: 'address of the reporting service',
    expected: 'host:port with a port from 1 to 65535, such as 127.0.0.1:18000 or [::1]:18000',
    read: (text: string) => ('error' in parseAddress(text) ? undefined : text),
  },
  reporters: integerFlag('10', 'number of reporting Envoys, each with its own connection', 1, 10_000),
  tunnels: integerFlag('100', 'tunnels per reporter', 0, 1_000_000),
  tenants: integerFlag('4', 'number of tenants', 1, 1_000_000),
  clusters: integerFlag('2', 'initiator clusters per tenant', 1, 1_000_000),
  churn: rateFlag('tunnels per second, over the whole fleet, that are replaced by new ones'),
  flap: rateFlag('tunnels per second, over the whole fleet, that drop and reconnect'),
  interval: durationFlag('5s', 'report interval until the service sends another', 25, 3_600_000),
  duration: durationFlag('0', 'how long to run; 0: until Ctrl-C', 0, 7 * DAY_MS),
  'tls-ca': fileFlag('PEM CA bundle of the service; enables TLS'),
  'tls-cert': fileFlag('PEM client certificate of the reporters'),
  'tls-key': fileFlag('PEM private key for --tls-cert'),
  'tls-server-name': {
    default: '',
    help: "expected name in the service's certificate, if it is not the address",
    expected: 'a DNS name',
    read: (text: string) => (/^[A-Za-z0-9.-]{0,253}$/.test(text) ? text : undefined),
  },
  'token-file': fileFlag('file with the ServiceAccount token to send with each stream'),
  seed: integerFlag('1', 'seed; the same seed produces the same tunnels and changes', 0, 2 ** 32 - 1),
} satisfies Readonly<Record<string, Flag>>;

type FlagName = keyof typeof FLAGS;
const FLAG_NAMES = Object.keys(FLAGS) as FlagName[];

/** Reads the arguments after `simulate`. */
export function parseCommand(argv: readonly string[]): ParsedCommand {
  const { tokens } = parseArgs({
    args: [...argv],
    options: {
      ...Object.fromEntries(FLAG_NAMES.map((name) => [name, { type: 'string' as const }])),
      'tenant-isolation': { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    // Its own errors are long and name no range.
    strict: false,
    tokens: true,
  });
  const errors: string[] = [];
  const values = new Map<string, number | string>();
  let tenantIsolation = false;
  let help = false;
  let afterUnknown = false;
  for (const token of tokens) {
    // What follows an unknown flag is taken for its value: one mistake, one line.
    const isUnknownFlagValue = afterUnknown;
    afterUnknown = false;
    if (token.kind === 'positional') {
      if (isUnknownFlagValue) continue;
      errors.push(`${token.value}: unknown argument; see --help`);
    } else if (token.kind !== 'option') {
      continue;
    } else if (token.name === 'help' || token.name === 'tenant-isolation') {
      if (token.value !== undefined) errors.push(`--${token.name} ${token.value}: takes no value`);
      else if (token.name === 'help') help = true;
      else tenantIsolation = true;
    } else if (!isFlagName(token.name)) {
      afterUnknown = true;
      errors.push(`${token.rawName}: unknown flag; see --help`);
    } else {
      const flag = FLAGS[token.name];
      const value = token.value === undefined ? undefined : flag.read(token.value);
      if (value === undefined)
        errors.push(`--${token.name} ${token.value ?? '(nothing)'}: must be ${flag.expected}`);
      else values.set(token.name, value);
    }
  }
  // Who asks for help gets it, also beside a mistake.
  if (help) return { help: helpText() };

  const valueOf = (name: FlagName): number | string | undefined =>
    values.get(name) ?? FLAGS[name].read(FLAGS[name].default);
  const number = (name: FlagName): number => Number(valueOf(name));
  // Each may be in range and both together beyond memory.
  const total = number('reporters') * number('tunnels');
  if (total > MAX_TOTAL_TUNNELS) {
    errors.push(
      `--reporters × --tunnels ${formatCount(total)}: must be at most ${formatCount(MAX_TOTAL_TUNNELS)} tunnels in all`,
    );
  }
  const optionalText = (name: FlagName): string | undefined => String(valueOf(name)) || undefined;
  const identity = {
    caFile: optionalText('tls-ca'),
    certFile: optionalText('tls-cert'),
    keyFile: optionalText('tls-key'),
    serverName: optionalText('tls-server-name'),
    tokenFile: optionalText('token-file'),
  };
  errors.push(...identityErrors(identity));
  if (errors.length > 0) return { errors };
  return {
    options: {
      address: String(valueOf('address')),
      reporters: number('reporters'),
      tunnels: number('tunnels'),
      tenants: number('tenants'),
      clusters: number('clusters'),
      churn: number('churn'),
      flap: number('flap'),
      intervalMs: number('interval'),
      durationMs: number('duration'),
      seed: number('seed'),
      tenantIsolation,
      identity,
    },
  };
}

/** What does not go together. */
function identityErrors({ caFile, certFile, keyFile, serverName, tokenFile }: IdentityFiles): string[] {
  const errors: string[] = [];
  if ((certFile === undefined) !== (keyFile === undefined)) {
    errors.push('--tls-cert, --tls-key: must be set together');
  }
  const needCa = { '--tls-cert': certFile, '--tls-server-name': serverName, '--token-file': tokenFile };
  for (const [flag, value] of Object.entries(needCa)) {
    if (value !== undefined && caFile === undefined) errors.push(`${flag} ${value}: needs --tls-ca`);
  }
  return errors;
}

function isFlagName(name: string): name is FlagName {
  return Object.hasOwn(FLAGS, name);
}

/** A flag for a count. No sign, no exponent, no decimals: what is read is what was written. */
function integerFlag(defaultText: string, help: string, min: number, max: number): Flag {
  return {
    default: defaultText,
    help,
    expected: `a whole number from ${min} to ${formatCount(max)}`,
    read: (text) => inRange(/^\d{1,15}$/.test(text) ? Number(text) : Number.NaN, min, max),
  };
}

/** A flag for something a second; off by default. */
function rateFlag(help: string): Flag {
  return {
    default: '0',
    help,
    expected: 'a number from 0 to 100,000, decimals allowed',
    read: (text) => inRange(/^\d{1,9}(?:\.\d{1,9})?$/.test(text) ? Number(text) : Number.NaN, 0, 100_000),
  };
}

/** A flag for a file; none by default. */
function fileFlag(help: string): Flag {
  return {
    default: '',
    help: `${help}; reloaded on each connection`,
    expected: 'a file',
    read: (text) => text,
  };
}

/** A flag for a time, in the notation of `duration.ts`. */
function durationFlag(defaultText: string, help: string, minMs: number, maxMs: number): Flag {
  return {
    default: defaultText,
    help,
    expected: `a duration from ${formatDuration(minMs)} to ${formatDuration(maxMs)}, such as 250ms, 30s or 5m`,
    read(text) {
      const parsed = parseDuration(text);
      return 'ms' in parsed ? inRange(parsed.ms, minMs, maxMs) : undefined;
    },
  };
}

/** The value if it is in range; NaN never is. */
function inRange(value: number, min: number, max: number): number | undefined {
  return value >= min && value <= max ? value : undefined;
}

function formatCount(value: number): string {
  return value.toLocaleString('en-US');
}

function helpText(): string {
  const rows = [
    ...FLAG_NAMES.map((name) => [
      `--${name}`,
      FLAGS[name].default,
      `${FLAGS[name].help}; ${FLAGS[name].expected}`,
    ]),
    [
      '--tenant-isolation',
      'off',
      'prefix node and cluster IDs with the tenant, as Envoy does under tenant isolation',
    ],
    ['--help', '', 'print this help'],
  ];
  return [
    'usage: reverse-tunnel-operator simulate [flags]',
    '',
    'Runs a fleet of reporters that behave like Envoy against a reverse tunnel reporting service.',
    '',
    ...rows.map(
      ([flag = '', defaultText = '', text = '']) => `  ${flag.padEnd(20)}${defaultText.padEnd(17)}${text}`,
    ),
    '',
    'Exit codes: 0 every reporter was connected at the end, without NACKs and out-of-order ACKs;',
    '1 otherwise; 2 invalid flag or value.',
    '',
  ].join('\n');
}
