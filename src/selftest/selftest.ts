import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { COMMON_FLAGS } from '../cli/kubectl-flags.ts';
import { systemClock } from '../clock.ts';
import { findCondition } from '../core/kubernetes.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { errorMessage } from '../error-message.ts';
import { durationInRange, hostPort, textMatching } from '../flag-values.ts';
import {
  EXIT_FAILURE,
  EXIT_OK,
  endWithUsage,
  flagRanges,
  parseFlags,
  type CommandDescription,
} from '../flags.ts';
import type { ReportedTunnel } from '../grpc/report-message.ts';
import { reporterIdentity, type IdentityFiles } from '../grpc/reporter-identity.ts';
import { dialReportingService, type ReportingConnection } from '../grpc/reporting-client.ts';
import { ApiError } from '../k8s/api-error.ts';
import { createApiClient, type ApiClient } from '../k8s/client.ts';
import { resolveConnection } from '../k8s/connection.ts';
import type { ResourceClient } from '../k8s/resource-client.ts';
import { reporterResource, tunnelResource } from '../k8s/resources.ts';
import { createEnvoyClient } from '../simulate/envoy-client.ts';
import { IDENTITY_FLAGS, readIdentity } from '../identity-flags.ts';

/** The options of `selftest`. */
export interface SelftestOptions {
  /** The reporting service, as host:port. */
  readonly address: string;
  /** Undefined: the pod's namespace, then the context's, then `default`. */
  readonly namespace: string | undefined;
  readonly kubeconfig: string | undefined;
  /** Name of reporter, tenant, cluster and node. */
  readonly reporter: string;
  readonly timeoutMs: number;
  readonly identityFiles: IdentityFiles;
}

const POLL_INTERVAL_MS = 200;
/** Retry interval of the reporter, for a service that is still starting. */
const RETRY_MS = 1000;
/** The operator writes Connected=False as soon as the stream has ended; it may be busy. */
const DISCONNECT_TIMEOUT_MS = 15_000;

/** Accepts a name that needs no escaping in a field selector. */
const reporterName = textMatching(
  '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$',
  'must be 1 to 63 letters, digits, dots, dashes and underscores',
);

const COMMAND = {
  usage: ['reverse-tunnel-operator selftest [FLAG ...]'],
  description:
    'Tests an installation: reports one tunnel as an Envoy would, waits until its ReverseTunnel object exists, removes ' +
    'the tunnel, and waits until the object is deleted. Then it deletes its reporter object. Needs the permissions to list ' +
    'reversetunnels, and to list and delete reversetunnelreporters.',
  flags: {
    address: {
      metavar: 'HOST:PORT',
      description: 'address of the reporting service',
      default: '127.0.0.1:18000',
      read: hostPort(1),
    },
    namespace: { ...COMMON_FLAGS.namespace, defaultText: "the pod's, then the context's, then default" },
    kubeconfig: {
      ...COMMON_FLAGS.kubeconfig,
      defaultText: 'in-cluster, then $KUBECONFIG, then ~/.kube/config, as for the operator',
    },
    reporter: {
      metavar: 'NAME',
      description: 'name of reporter, tenant, cluster and node',
      default: 'selftest',
      read: reporterName,
    },
    timeout: {
      metavar: 'DURATION',
      description: 'timeout of the whole test, from 1s to 1h',
      default: '60s',
      read: durationInRange(1000, 3_600_000),
    },
    ...IDENTITY_FLAGS,
  },
  footer: 'Exit codes: 0 the test passed; 1 it failed; 2 invalid flag or value.\n',
} satisfies CommandDescription;

/** The accepted values of the flags, for the schema of the chart. */
export const SELFTEST_RANGES = flagRanges(COMMAND.flags);

/**
 * Parses the command line of `selftest`.
 *
 * @param argv the arguments after `selftest`
 */
export function parseSelftest(
  argv: readonly string[],
):
  { readonly options: SelftestOptions } | { readonly help: string } | { readonly errors: readonly string[] } {
  const parsed = parseFlags(COMMAND, argv);
  if (!('values' in parsed)) return parsed;
  const { address, namespace, kubeconfig, reporter, timeout } = parsed.values;
  const result = readIdentity(parsed.values);
  if ('errors' in result) return result;
  const identityFiles = result.identity;
  return { options: { address, namespace, kubeconfig, reporter, timeoutMs: timeout, identityFiles } };
}

/**
 * Runs the command `selftest`, which is the body of `helm test`: a reporter on one side, a reader of objects on the other.
 *
 * @param argv the arguments after `selftest`
 * @param version version of this program, for the user agent
 * @returns the exit code: 0 if the object was created and deleted, 1 if not, 2 for invalid flags
 */
export async function runSelftest(argv: readonly string[], version: string): Promise<number> {
  const parsed = parseSelftest(argv);
  if (!('options' in parsed)) return endWithUsage('selftest', parsed);
  const { options } = parsed;
  let api: ApiClient | undefined;
  let reporting: ReportingConnection | undefined;
  try {
    const clock = systemClock;
    const connection = await resolveConnection({ kubeconfig: options.kubeconfig, env: process.env, clock });
    const namespace = options.namespace ?? connection.namespace ?? 'default';
    const userAgent = `reverse-tunnel-operator-selftest/${version}`;
    api = createApiClient({ connection, clock, userAgent, connections: 1 });
    reporting = dial(options);
    try {
      await reportAndVerify(options, api, namespace, reporting);
    } finally {
      await deleteReporterObject(options.reporter, api, namespace);
    }
    return EXIT_OK;
  } catch (error) {
    process.stderr.write(`selftest: failed: ${errorMessage(error)}\n`);
    return EXIT_FAILURE;
  } finally {
    reporting?.close();
    await api?.close();
  }
}

/** @throws Error if a step does not complete in time, with the step and the last observed state */
async function reportAndVerify(
  { address, reporter, timeoutMs }: SelftestOptions,
  api: ApiClient,
  namespace: string,
  reporting: ReportingConnection,
): Promise<void> {
  const startedMs = performance.now();
  const tunnel = newTunnel(reporter);
  let acked = false;
  let lastError = 'no response yet';
  const client = createEnvoyClient(
    {
      node: { cluster: reporter, id: reporter },
      sendIntervalMs: RETRY_MS,
      connectRetryIntervalMs: RETRY_MS,
      maxRetries: 5,
      maxBufferCount: 10,
      nodeOnFirstOnly: false,
    },
    {
      clock: systemClock,
      openStream: (handlers) => reporting.openStream(handlers),
      allTunnels: () => [tunnel],
      observe(event) {
        if (event.type === 'acked' && event.first) {
          acked = true;
          logProgress(`report of tunnel ${tunnel.name} by reporter ${reporter} was ACKed`);
        }
        if (event.type === 'disconnected') lastError = event.status?.message ?? event.reason;
      },
    },
  );
  // The field selector avoids listing the other objects of the namespace.
  const tunnels = api.resource<TunnelObject>(tunnelResource(namespace));
  const findObject = async (): Promise<TunnelObject | undefined> => {
    const { items } = await tunnels.list({ fieldSelector: `spec.nodeID=${reporter}` });
    return items.find(({ spec }) => spec.tunnelName === tunnel.name);
  };
  const logProgress = (step: string): void => {
    process.stdout.write(`selftest: ${step}, ${Math.round(performance.now() - startedMs)} ms after start\n`);
  };
  /** Polls until there is a value. */
  const waitFor = async <T>(
    describeFailure: () => string,
    poll: () => Promise<T | undefined>,
  ): Promise<T> => {
    for (;;) {
      const value = await poll();
      if (value !== undefined) return value;
      if (performance.now() - startedMs > timeoutMs)
        throw new Error(`${describeFailure()} within ${timeoutMs / 1000} s`);
      await delay(POLL_INTERVAL_MS);
    }
  };

  // The steps are waited for in turn, so that the error names the one that is missing.
  client.start();
  try {
    const object = await waitFor(
      () =>
        acked
          ? `ACKed, but no ReverseTunnel in namespace ${namespace}`
          : `no ACK from ${address}: ${lastError}`,
      findObject,
    );
    const ready = findCondition(object.status?.conditions, 'Ready');
    logProgress(`ReverseTunnel ${namespace}/${object.metadata.name} exists, Ready=${ready?.status}`);
    client.receive({ connections: [], disconnections: [tunnel.name] });
    await waitFor(
      () => `tunnel removed, but ReverseTunnel ${namespace}/${object.metadata.name} still exists`,
      async () => ((await findObject()) === undefined ? true : undefined),
    );
    logProgress('tunnel removed and ReverseTunnel deleted');
  } finally {
    client.stop();
  }
}

/**
 * Deletes the reporter object of this test: it would otherwise show a disconnected reporter, which `doctor` and an alert
 * report, until it expires. Waits until the operator has recorded the end of the stream, because it recreates the object of
 * a connected reporter. Never rejects: whatever remains expires.
 */
async function deleteReporterObject(reporter: string, api: ApiClient, namespace: string): Promise<void> {
  const reporters = api.resource<ReporterObject>(reporterResource(namespace));
  const startedMs = performance.now();
  try {
    for (;;) {
      const { items } = await reporters.list({
        fieldSelector: `spec.id=${reporter},spec.cluster=${reporter}`,
      });
      const [object] = items;
      if (object === undefined) return;
      const connected = findCondition(object.status?.conditions, 'Connected');
      if (connected?.status === 'False' && (await wasDeleted(reporters, object))) return;
      if (performance.now() - startedMs > DISCONNECT_TIMEOUT_MS) throw new Error('it is still connected');
      await delay(POLL_INTERVAL_MS);
    }
  } catch (error) {
    process.stdout.write(`selftest: the reporter object stays until it expires: ${errorMessage(error)}\n`);
  }
}

/** Deletes a reporter object. Returns false if it has changed since it was read. */
async function wasDeleted(
  reporters: ResourceClient<ReporterObject>,
  { metadata: { name, uid, resourceVersion } }: ReporterObject,
): Promise<boolean> {
  try {
    await reporters.delete(name, { uid, resourceVersion });
    return true;
  } catch (error) {
    if (error instanceof ApiError && error.kind === 'conflict') return false;
    if (error instanceof ApiError && error.kind === 'not_found') return true;
    throw error;
  }
}

/** @throws Error if a file cannot be read */
function dial({ address, identityFiles }: SelftestOptions): ReportingConnection {
  const identity = reporterIdentity(identityFiles);
  return dialReportingService({ address, ...(identity === undefined ? {} : { identity }) });
}

/** Returns a tunnel with a unique name, so that no earlier run can have left its object. */
function newTunnel(name: string): ReportedTunnel {
  return {
    name: `${name}-${randomBytes(4).toString('hex')}`,
    tenantID: name,
    clusterID: name,
    nodeID: name,
    createdAt: { seconds: Math.floor(systemClock.wallMs() / 1000), nanos: 0 },
  };
}
