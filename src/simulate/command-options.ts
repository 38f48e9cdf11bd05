import { decimalInRange, durationInRange, hostPort, numberInRange } from '../flag-values.ts';
import { parseFlags, type CommandDescription } from '../flags.ts';
import type { IdentityFiles } from '../grpc/reporter-identity.ts';
import { IDENTITY_FLAGS, readIdentity } from '../identity-flags.ts';

/** The options of `simulate`. */
export interface CommandOptions {
  /** The reporting service, as host:port. */
  readonly address: string;
  readonly reporters: number;
  /** Per reporter. */
  readonly tunnels: number;
  readonly tenants: number;
  readonly clusters: number;
  /** Per second, for the whole fleet. */
  readonly churn: number;
  /** Per second, for the whole fleet. */
  readonly flap: number;
  readonly intervalMs: number;
  /** 0: until interrupted. */
  readonly durationMs: number;
  readonly seed: number;
  readonly tenantIsolation: boolean;
  readonly identity: IdentityFiles;
}

/** At about 500 bytes per tunnel, this many take 2.5 GB of memory. */
const MAX_TOTAL_TUNNELS = 5_000_000;
const HOUR_MS = 3_600_000;

const COMMAND = {
  usage: ['reverse-tunnel-operator simulate [FLAG ...]'],
  description: 'Runs a fleet of reporters that behave like Envoy against a reverse tunnel reporting service.',
  flags: {
    address: {
      metavar: 'HOST:PORT',
      description: 'address of the reporting service',
      default: '127.0.0.1:18000',
      read: hostPort(1),
    },
    reporters: {
      metavar: 'N',
      description: 'number of reporting Envoys, each with its own connection, from 1 to 10000',
      default: '10',
      read: numberInRange(1, 10_000),
    },
    tunnels: {
      metavar: 'N',
      description: `tunnels per reporter, from 0 to 1000000; at most ${MAX_TOTAL_TUNNELS} in total`,
      default: '100',
      read: numberInRange(0, 1_000_000),
    },
    tenants: {
      metavar: 'N',
      description: 'number of tenants, from 1 to 1000000',
      default: '4',
      read: numberInRange(1, 1_000_000),
    },
    clusters: {
      metavar: 'N',
      description: 'initiator clusters per tenant, from 1 to 1000000',
      default: '2',
      read: numberInRange(1, 1_000_000),
    },
    churn: {
      metavar: 'N',
      description:
        'tunnels per second, for the whole fleet, that are replaced by new ones, from 0 to 100000, decimals allowed',
      default: '0',
      read: decimalInRange(0, 100_000),
    },
    flap: {
      metavar: 'N',
      description:
        'tunnels per second, for the whole fleet, that drop and reconnect, from 0 to 100000, decimals allowed',
      default: '0',
      read: decimalInRange(0, 100_000),
    },
    interval: {
      metavar: 'DURATION',
      description: 'report interval until the service sends another one, from 25ms to 1h',
      default: '5s',
      read: durationInRange(25, HOUR_MS),
    },
    duration: {
      metavar: 'DURATION',
      description: 'how long to run, at most 168h; 0: until Ctrl-C',
      default: '0',
      read: durationInRange(0, 7 * 24 * HOUR_MS),
    },
    ...IDENTITY_FLAGS,
    seed: {
      metavar: 'N',
      description: 'seed, from 0 to 4294967295; the same seed produces the same tunnels and changes',
      default: '1',
      read: numberInRange(0, 2 ** 32 - 1),
    },
    'tenant-isolation': {
      description: 'prefix node and cluster IDs with the tenant, as Envoy does under tenant isolation',
    },
  },
  footer:
    'Exit codes: 0 every reporter was connected at the end, without NACKs and out-of-order ACKs; 1 otherwise;\n' +
    '2 invalid flag or value.\n',
} satisfies CommandDescription;

/**
 * Parses the command line of `simulate`.
 *
 * @param argv the arguments after `simulate`
 */
export function parseCommand(
  argv: readonly string[],
): { readonly options: CommandOptions } | { readonly help: string } | { readonly errors: readonly string[] } {
  const parsed = parseFlags(COMMAND, argv);
  if (!('values' in parsed)) return parsed;
  const { values } = parsed;
  const errors: string[] = [];
  const totalTunnels = values.reporters * values.tunnels;
  if (totalTunnels > MAX_TOTAL_TUNNELS) {
    errors.push(
      `--reporters, --tunnels: "${totalTunnels}" must be at most ${MAX_TOTAL_TUNNELS} tunnels in total`,
    );
  }
  const result = readIdentity(values);
  if ('errors' in result) errors.push(...result.errors);
  if (errors.length > 0 || 'errors' in result) return { errors };
  return {
    options: {
      address: values.address,
      reporters: values.reporters,
      tunnels: values.tunnels,
      tenants: values.tenants,
      clusters: values.clusters,
      churn: values.churn,
      flap: values.flap,
      seed: values.seed,
      intervalMs: values.interval,
      durationMs: values.duration,
      tenantIsolation: values['tenant-isolation'],
      identity: result.identity,
    },
  };
}
