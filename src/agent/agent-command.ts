import { systemClock } from '../clock.ts';
import { exceedsLength, findForbiddenCharacter } from '../core/text.ts';
import { errorMessage } from '../error-message.ts';
import { durationInRange, enumOf, hostPort, nonEmpty, type ReadValue } from '../flag-values.ts';
import {
  EXIT_FAILURE,
  EXIT_OK,
  endWithUsage,
  parseFlags,
  type CommandDescription,
  type Flags,
  type FlagValues,
} from '../flags.ts';
import { reporterIdentity, type IdentityFiles, type ReporterIdentity } from '../grpc/reporter-identity.ts';
import { dialReportingService } from '../grpc/reporting-client.ts';
import { parseHostPort } from '../host-port.ts';
import { HttpListenError, startHttpServer, type HttpServer } from '../http/http-server.ts';
import { IDENTITY_FLAGS, readIdentity } from '../identity-flags.ts';
import { createLog, LOG_LEVELS } from '../log.ts';
import { waitForSignal } from '../wait-for-signal.ts';
import { Agent } from './agent.ts';
import { EnvoyAdmin, type AdminAddress } from './envoy-admin.ts';
import { createAgentMetrics } from './agent-metrics.ts';

/** A tenant ID has at most this many code points, as in the service definition. */
const MAX_TENANT_LENGTH = 128;
/** Less than the timeout of a poll, so that the error names the request. */
const REQUEST_TIMEOUT_MS = 900;
const MINUTE_MS = 60_000;

const adminAddress: ReadValue<AdminAddress> = (text) => {
  const address = parseHostPort(/^http:\/\/([^/]+)\/?$/.exec(text)?.[1] ?? '');
  if (address !== undefined && address.port > 0) return { value: address };
  const socketPath = /^unix:(?:\/\/)?(\/.+)$/.exec(text)?.[1];
  return socketPath === undefined
    ? { expected: 'must be http://HOST:PORT or unix:/PATH, such as http://127.0.0.1:9901' }
    : { value: { socketPath } };
};

const tenant: ReadValue<string> = (text) => {
  const isValid =
    text !== '' && !exceedsLength(text, MAX_TENANT_LENGTH) && findForbiddenCharacter(text) === undefined;
  return isValid
    ? { value: text }
    : { expected: `must have 1 to ${MAX_TENANT_LENGTH} characters without control characters` };
};

const FLAGS = {
  address: {
    metavar: 'HOST:PORT',
    description: 'address of the reporting service of the operator',
    required: true,
    read: hostPort(1),
  },
  admin: {
    metavar: 'URL',
    description: "Envoy's admin interface: http://HOST:PORT or unix:/PATH",
    default: 'http://127.0.0.1:9901',
    read: adminAddress,
  },
  'poll-interval': {
    metavar: 'DURATION',
    description: "interval between two polls of Envoy's tunnel gauges, 100ms to 1m",
    default: '1s',
    read: durationInRange(100, MINUTE_MS),
  },
  'settle-time': {
    metavar: 'DURATION',
    description: 'how long after a start of Envoy its tunnels may return before they are reported, 0 to 10m',
    // An initiator tries again 10 to 11 s after its responder was restarted.
    default: '15s',
    read: durationInRange(0, 10 * MINUTE_MS),
  },
  'lifecycle-log': {
    metavar: 'FILE',
    description:
      "Envoy's lifecycle access log: adds tenant and creation time, and polls at once when a line is added",
    read: nonEmpty,
  },
  'default-tenant': {
    metavar: 'TENANT',
    description: 'tenant of the tunnels whose tenant is known neither from tenant isolation nor from the log',
    read: tenant,
  },
  ...IDENTITY_FLAGS,
  'http-address': {
    metavar: 'HOST:PORT',
    description: 'address of /livez, /readyz and /metrics',
    default: '0.0.0.0:8081',
    read: hostPort(0),
  },
  'log-level': {
    metavar: 'LEVEL',
    description: `one of ${LOG_LEVELS.join(', ')}`,
    default: 'info',
    read: enumOf(LOG_LEVELS),
  },
} as const satisfies Flags;

const COMMAND: CommandDescription<typeof FLAGS> = {
  usage: ['reverse-tunnel-operator agent --address HOST:PORT [flags]'],
  description:
    'Reports the reverse tunnels of a standard Envoy (1.39 or later) next to which it runs, as the reporter of a contrib build does.',
  flags: FLAGS,
  footer: [
    'Envoy needs enable_detailed_stats: true in its upstream_socket_interface; see examples/envoy-responder-standard.yaml.',
    'Durations: 250ms, 30s, 5m. Exit codes: 0 after SIGTERM or SIGINT; 1 the agent could not start; 2 invalid flag or value.',
  ].join('\n'),
};

type Values = FlagValues<typeof FLAGS>;

/**
 * Runs the agent until SIGTERM or SIGINT.
 *
 * @param argv the arguments after `agent`
 * @returns the exit code
 */
export async function runAgent(argv: readonly string[]): Promise<number> {
  const parsed = parseFlags(COMMAND, argv);
  if (!('values' in parsed)) return endWithUsage('agent', parsed);
  const identity = readIdentity(parsed.values);
  if ('errors' in identity) return endWithUsage('agent', identity);
  return await serve(parsed.values, identity.identity);
}

async function serve(values: Values, files: IdentityFiles): Promise<number> {
  const stopRequested = waitForSignal();
  const log = createLog(values['log-level'], 'agent');
  const metrics = createAgentMetrics();
  const pollIntervalMs = values['poll-interval'];
  let identity: ReporterIdentity | undefined;
  let agent: Agent;
  let http: HttpServer;
  try {
    identity = reporterIdentity(files);
    agent = new Agent({
      pollIntervalMs,
      settleTimeMs: values['settle-time'],
      lifecycleLog: values['lifecycle-log'],
      defaultTenant: values['default-tenant'],
      admin: new EnvoyAdmin(values.admin, REQUEST_TIMEOUT_MS),
      connection: dialReportingService({
        address: values.address,
        ...(identity === undefined ? {} : { identity }),
      }),
      clock: systemClock,
      random: Math.random,
      metrics,
      log,
    });
    http = await startHttpServer(values['http-address'], {
      notReady: () => agent.notReady,
      metrics: async () => ({
        contentType: metrics.registry.contentType,
        text: await metrics.registry.metrics(),
      }),
    });
  } catch (error) {
    const hint = error instanceof HttpListenError ? '; set another --http-address' : '';
    process.stderr.write(`agent: ${errorMessage(error)}${hint}\n`);
    return EXIT_FAILURE;
  }
  log.info({ address: values.address, httpAddress: http.address }, 'serving');
  agent.start();
  await stopRequested;
  log.info('stopping');
  await agent.stop();
  await http.close();
  log.info('stopped');
  return EXIT_OK;
}
