/** `selftest`: what `helm test` runs. Composition root of its own: a reporter on one side, a reader of rows on the other. */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../clock.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { reporterIdentity } from '../grpc/reporter-identity.ts';
import { dialReportingService, type ReportingConnection } from '../grpc/reporting-client.ts';
import type { ReportedTunnel } from '../grpc/report-message.ts';
import { createApiClient, type ApiClient } from '../k8s/client.ts';
import { resolveConnection } from '../k8s/connection.ts';
import { tunnelResource } from '../k8s/resources.ts';
import { createEnvoyClient } from '../simulate/envoy-client.ts';
import { parseSelftest, type SelftestOptions } from './options.ts';

const POLL_MS = 200;
/** A service that is only just starting is tried again so soon. */
const RETRY_MS = 1000;

/**
 * Runs the arguments after `selftest`.
 *
 * @param version Of this program, for the API server's log.
 * @returns The exit code: 0 when the row came and went, 1 when not, 2 for wrong arguments.
 */
export async function runSelftest(argv: readonly string[], version: string): Promise<number> {
  const parsed = parseSelftest(argv);
  if ('help' in parsed) {
    process.stdout.write(parsed.help);
    return 0;
  }
  if ('errors' in parsed) {
    for (const error of parsed.errors) process.stderr.write(`selftest: ${error}\n`);
    return 2;
  }
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
    await reportAndVerify(options, api, namespace, reporting);
    return 0;
  } catch (error) {
    process.stderr.write(`selftest: failed: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  } finally {
    reporting?.close();
    await api?.close();
  }
}

/** @throws Error of the first step that was not seen in time, with what was seen instead */
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
  // One row is asked for, however many thousands the namespace holds.
  const tunnels = api.resource<TunnelObject>(tunnelResource(namespace));
  const findObject = async (): Promise<TunnelObject | undefined> => {
    const { items } = await tunnels.list({ fieldSelector: `spec.nodeID=${reporter}` });
    return items.find(({ spec }) => spec.tunnelName === tunnel.name);
  };
  const logProgress = (describeFailure: string): void => {
    process.stdout.write(
      `selftest: ${describeFailure}, ${Math.round(performance.now() - startedMs)} ms after start\n`,
    );
  };
  /** Polls until there is an answer. */
  const waitFor = async <T>(describeFailure: () => string, ask: () => Promise<T | undefined>): Promise<T> => {
    for (;;) {
      const answer = await ask();
      if (answer !== undefined) return answer;
      if (performance.now() - startedMs > timeoutMs)
        throw new Error(`${describeFailure()} within ${timeoutMs / 1000} s`);
      await delay(POLL_MS);
    }
  };

  // ACK, row, removal, no row: each is waited for in turn, so that what is missing is said by name.
  client.start();
  try {
    const object = await waitFor(
      () =>
        acked
          ? `ACKed, but no ReverseTunnel in namespace ${namespace}`
          : `no ACK from ${address}: ${lastError}`,
      findObject,
    );
    const ready = object.status?.conditions?.find(({ type }) => type === 'Ready');
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

/** @throws Error the system's, when a file cannot be read */
function dial({ address, identityFiles }: SelftestOptions): ReportingConnection {
  const identity = reporterIdentity(identityFiles);
  return dialReportingService({ address, ...(identity === undefined ? {} : { identity }) });
}

/** A tunnel that no earlier run has left a row of. */
function newTunnel(name: string): ReportedTunnel {
  return {
    name: `${name}-${randomBytes(4).toString('hex')}`,
    tenantID: name,
    clusterID: name,
    nodeID: name,
    createdAt: { seconds: Math.floor(systemClock.wallMs() / 1000), nanos: 0 },
  };
}
