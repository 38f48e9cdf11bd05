import { Agent, request } from 'node:http';
import { quote } from '../core/text.ts';
import { errorCode, errorMessage } from '../error-message.ts';
import { parseTunnelGauges, tunnelGaugesPath, type TunnelGauges } from './tunnel-gauges.ts';

/** Where Envoy's admin interface listens. */
export type AdminAddress =
  | { readonly host: string; readonly port: number }
  /** A UNIX domain socket. */
  | { readonly socketPath: string };

/** What the agent needs to know about an Envoy. */
export interface EnvoyInfo {
  readonly nodeId: string;
  /** May be empty. */
  readonly nodeCluster: string;
  /** Such as `1.40.0`. */
  readonly version: string;
  /** Whole seconds since this process of Envoy started, by its wall clock: negative if that was set back. */
  readonly uptimeSeconds: number;
  /** Increases with each hot restart. */
  readonly restartEpoch: number;
}

/** The part of Envoy's bootstrap that accepts reverse tunnels. */
export interface TunnelExtension {
  readonly statPrefix: string;
  readonly detailedStats: boolean;
  readonly tenantIsolation: boolean;
}

/** A request to the admin interface failed, or its response is not what Envoy sends. One line, without a period. */
export class EnvoyAdminError extends Error {
  override readonly name = 'EnvoyAdminError';
}

/** 10,000 tunnels take 1.3 MB, with their clusters and nodes. */
const MAX_RESPONSE_BYTES = 32 * 1024 * 1024;
const EXTENSION = 'envoy.bootstrap.reverse_tunnel.upstream_socket_interface';
const EXTENSION_TYPE = 'UpstreamReverseConnectionSocketInterface';
/** Envoy's own default (observed on 1.39.3 and 1.40.0). */
const DEFAULT_STAT_PREFIX = 'reverse_tunnel_acceptor';
/** Bytes of the response of an error that its message quotes. */
const MAX_QUOTED = 256;
/** How a server closes a connection that was idle for too long, or that its end left open. */
const STALE_CONNECTION_CODES: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE']);

/** Reads Envoy's admin interface over one connection that is kept open. */
export class EnvoyAdmin {
  readonly #address: AdminAddress;
  readonly #timeoutMs: number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  #lastGauges:
    { readonly body: Buffer; readonly statPrefix: string; readonly gauges: TunnelGauges } | undefined;

  /** @param timeoutMs how long a request may take, from its start to the last byte of its response */
  constructor(address: AdminAddress, timeoutMs: number) {
    this.#address = address;
    this.#timeoutMs = timeoutMs;
  }

  /** @throws EnvoyAdminError */
  async readInfo(): Promise<EnvoyInfo> {
    const path = '/server_info';
    const info = parseJson(path, await this.#get(path));
    const nodeId = textAt(info, 'node', 'id');
    const version = /^[^/]*\/(\d+\.\d+\.\d+)/.exec(textAt(info, 'version'))?.[1];
    const uptime = /^(-?\d+)s$/.exec(textAt(info, 'uptime_current_epoch'))?.[1];
    if (version === undefined || uptime === undefined) {
      throw new EnvoyAdminError(`GET ${path}: not the response of an Envoy`);
    }
    const epoch = valueAt(info, 'command_line_options', 'restart_epoch');
    return {
      nodeId,
      nodeCluster: textAt(info, 'node', 'cluster'),
      version,
      uptimeSeconds: Number(uptime),
      restartEpoch: typeof epoch === 'number' ? epoch : 0,
    };
  }

  /**
   * Returns how Envoy accepts reverse tunnels; undefined if it does not.
   *
   * @throws EnvoyAdminError
   */
  async readExtension(): Promise<TunnelExtension | undefined> {
    const path = '/config_dump?mask=bootstrap.bootstrap_extensions';
    const dump = parseJson(path, await this.#get(path));
    const configs = valueAt(dump, 'configs');
    if (!Array.isArray(configs)) throw new EnvoyAdminError('GET /config_dump: no field configs');
    for (const config of configs as unknown[]) {
      const extensions = valueAt(config, 'bootstrap', 'bootstrap_extensions');
      for (const candidate of Array.isArray(extensions) ? (extensions as unknown[]) : []) {
        const extension = toTunnelExtension(candidate);
        if (extension !== undefined) return extension;
      }
    }
    return undefined;
  }

  /**
   * Returns the same object as the previous call if the response has not changed.
   *
   * @throws EnvoyAdminError
   */
  async readGauges(statPrefix: string): Promise<TunnelGauges> {
    const last = this.#lastGauges;
    const body = await this.#get(tunnelGaugesPath(statPrefix));
    if (last?.statPrefix === statPrefix && last.body.equals(body)) return last.gauges;
    const gauges = parseTunnelGauges(body.toString('utf8'), statPrefix);
    if ('error' in gauges) throw new EnvoyAdminError(`GET /stats: ${gauges.error}`);
    this.#lastGauges = { body, statPrefix, gauges };
    return gauges;
  }

  /** Closes the connection. */
  close(): void {
    this.#agent.destroy();
  }

  /** Sends a request again if the server had closed the connection, which was idle since the last response. */
  async #get(path: string): Promise<Buffer> {
    const title = `GET ${path.split('?')[0]}`;
    const deadlineMs = performance.now() + this.#timeoutMs;
    try {
      return await this.#send(title, path, deadlineMs);
    } catch (error) {
      if (!(error instanceof StaleConnectionError)) throw error;
      return await this.#send(title, path, deadlineMs);
    }
  }

  #send(title: string, path: string, deadlineMs: number): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    let responded = false;
    const fail = (cause: string): void => reject(new EnvoyAdminError(`${title}: ${cause}`));
    const call = request(
      { ...this.#address, path, agent: this.#agent, headers: { host: 'localhost' } },
      (response) => {
        responded = true;
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > MAX_RESPONSE_BYTES) call.destroy(new Error(`more than ${MAX_RESPONSE_BYTES} bytes`));
          else chunks.push(chunk);
        });
        response.on('error', (error) => fail(errorMessage(error)));
        response.on('end', () => {
          const body = Buffer.concat(chunks);
          const { statusCode, headers } = response;
          const encoding = headers['content-encoding'] ?? 'identity';
          if (statusCode !== 200) fail(`${statusCode} ${quote(body.toString('utf8', 0, MAX_QUOTED).trim())}`);
          else if (encoding !== 'identity') fail(`unexpected content-encoding ${quote(encoding)}`);
          else resolve(body);
        });
      },
    );
    const timer = setTimeout(
      () => call.destroy(new Error(`no complete response within ${this.#timeoutMs} ms`)),
      deadlineMs - performance.now(),
    );
    call.on('error', (error) => {
      const isStale = call.reusedSocket && !responded && STALE_CONNECTION_CODES.has(errorCode(error));
      if (isStale) reject(new StaleConnectionError(`${title}: ${errorMessage(error)}`));
      else fail(errorMessage(error));
    });
    // Without an error and without a response: the server has switched to another protocol (101).
    call.on('close', () => {
      if (!responded) fail('connection closed without a response');
    });
    call.end();
    return promise.finally(() => clearTimeout(timer));
  }
}

/** The server closed a kept connection before it responded. Envoy may work. */
class StaleConnectionError extends EnvoyAdminError {}

function toTunnelExtension(extension: unknown): TunnelExtension | undefined {
  const type = textAt(extension, 'typed_config', '@type');
  if (textAt(extension, 'name') !== EXTENSION && !type.endsWith(`.${EXTENSION_TYPE}`)) return undefined;
  const settings = valueAt(extension, 'typed_config');
  return {
    statPrefix: textAt(settings, 'stat_prefix') || DEFAULT_STAT_PREFIX,
    detailedStats: valueAt(settings, 'enable_detailed_stats') === true,
    tenantIsolation: valueAt(settings, 'enable_tenant_isolation') === true,
  };
}

function parseJson(path: string, body: Buffer): unknown {
  const text = body.toString('utf8');
  try {
    return JSON.parse(text);
  } catch {
    throw new EnvoyAdminError(`GET ${path.split('?')[0]}: not JSON: ${quote(text)}`);
  }
}

function valueAt(value: unknown, ...keys: readonly string[]): unknown {
  return keys.reduce<unknown>(
    (parent, key) =>
      typeof parent === 'object' && parent !== null ? (parent as Record<string, unknown>)[key] : undefined,
    value,
  );
}

function textAt(value: unknown, ...keys: readonly string[]): string {
  const text = valueAt(value, ...keys);
  return typeof text === 'string' ? text : '';
}
