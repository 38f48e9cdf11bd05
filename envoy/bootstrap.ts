/** The bootstrap files in `examples/`, adapted to loopback. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { run, type RunResult } from '../control-plane/run.ts';

const EXAMPLES = join(import.meta.dirname, '../examples');
/** Envoy validates a bootstrap within a second on an idle machine. */
const VALIDATE_TIMEOUT_MS = 60_000;

/** What is substituted in a shipped bootstrap. Everything else runs as shipped. */
export interface BootstrapSubstitutions {
  /** `address:port` in the file → port on 127.0.0.1. Each address in the file must be listed. */
  readonly ports: Readonly<Record<string, number>>;
  /** Path in the file → path on this machine. Each certificate, key and log in the file must be listed. */
  readonly files?: Readonly<Record<string, string>>;
  /** Removes `reporter_config`, which only a contrib build knows. */
  readonly withoutReporter?: boolean;
  /** Removes the TLS for the requests in a tunnel, which Envoy 1.39 does not support. */
  readonly withoutRequestTls?: boolean;
  /** Replaces the identity of an initiator: `node` and the address `rc://NODE:CLUSTER:TENANT@…`. */
  readonly initiator?: InitiatorIdentity;
}

/** The identity with which an initiator opens its tunnels. */
export interface InitiatorIdentity {
  readonly node: string;
  readonly cluster: string;
  readonly tenant: string;
}

/** Returns the YAML of a file in `examples/` with its addresses, ports and certificates substituted. */
export async function substituteExample(name: string, options: BootstrapSubstitutions): Promise<string> {
  return substituteBootstrap(await readFile(join(EXAMPLES, name), 'utf8'), options);
}

/** Does the same with the text of a bootstrap. */
export function substituteBootstrap(text: string, options: BootstrapSubstitutions): string {
  const bootstrap: unknown = parse(text);
  if (options.initiator !== undefined) {
    const { node, cluster } = options.initiator;
    (bootstrap as { node: object }).node = { id: node, cluster };
  }
  if (options.withoutRequestTls === true) removeRequestTls(bootstrap as TunnelBootstrap);
  substitute(bootstrap, options);
  return stringify(bootstrap, { aliasDuplicateObjects: false });
}

/** The part of a bootstrap in which the TLS for the requests in a tunnel is configured. */
interface TunnelBootstrap {
  readonly static_resources: {
    readonly clusters: readonly (NamedObject & TransportSocketOwner)[];
    readonly listeners: readonly (NamedObject & {
      readonly filter_chains: readonly TransportSocketOwner[];
    })[];
  };
}

interface NamedObject {
  readonly name: string;
}

interface TransportSocketOwner {
  transport_socket?: unknown;
}

/** @param bootstrap that of a responder, with a cluster `tunnels`, or of an initiator, with a listener `tunnel` */
function removeRequestTls({ static_resources: { clusters, listeners } }: TunnelBootstrap): void {
  const owners = [
    ...clusters.filter(({ name }) => name === 'tunnels'),
    ...listeners.filter(({ name }) => name === 'tunnel').flatMap((listener) => listener.filter_chains),
  ];
  for (const owner of owners) delete owner.transport_socket;
}

function substitute(value: unknown, options: BootstrapSubstitutions): void {
  if (typeof value !== 'object' || value === null) return;
  const object = value as Record<string, unknown>;
  const { address, port_value: port } = object;
  if (typeof address === 'string' && options.initiator !== undefined) {
    const { node, cluster, tenant } = options.initiator;
    object['address'] = address.replace(/^rc:\/\/[^@]*@/, `rc://${node}:${cluster}:${tenant}@`);
  }
  if (typeof address === 'string' && typeof port === 'number' && !address.startsWith('rc://')) {
    object['port_value'] = lookUp(options.ports, `${address}:${port}`, 'address');
    object['address'] = '127.0.0.1';
  }
  for (const key of ['filename', 'path']) {
    const file = object[key];
    if (typeof file === 'string') object[key] = lookUp(options.files ?? {}, file, 'file');
  }
  if (options.withoutReporter === true) delete object['reporter_config'];
  for (const child of Object.values(object)) substitute(child, options);
}

function lookUp<T>(substitutions: Readonly<Record<string, T>>, key: string, what: string): T {
  const found = substitutions[key];
  if (found === undefined)
    throw new Error(`the example contains the ${what} ${key}, which is not substituted`);
  return found;
}

/** Runs `envoy --mode validate` over a bootstrap. */
export async function validateBootstrap(envoy: string, bootstrap: string): Promise<RunResult> {
  const folder = await mkdtemp(join(tmpdir(), 'envoy-'));
  try {
    const path = join(folder, 'bootstrap.yaml');
    await writeFile(path, bootstrap);
    const args = ['--mode', 'validate', '--config-path', path, '--use-dynamic-base-id'];
    return await run(envoy, args, { cwd: folder, env: process.env, timeoutMs: VALIDATE_TIMEOUT_MS });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
