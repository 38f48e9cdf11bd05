import { Agent, request } from 'node:http';
import { errorMessage } from '../error-message.ts';
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
  /** Whole seconds since this process of Envoy started. */
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

/** 10,000 tunnels take half a megabyte. */
const MAX_RESPONSE_BYTES = 256 * 1024 * 1024;
const EXTENSION = 'envoy.bootstrap.reverse_tunnel.upstream_socket_interface';
const EXTENSION_TYPE = 'UpstreamReverseConnectionSocketInterface';
/** Envoy's own default (observed on 1.39.3 and 1.40.0). */
const DEFAULT_STAT_PREFIX = 'reverse_tunnel_acceptor';
const MAX_QUOTED = 60;

/** Reads Envoy's admin interface over one connection that is kept open. */
export class EnvoyAdmin {
  readonly #address: AdminAddress;
  readonly #timeoutMs: number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });

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
    const version = /^[0-9a-f]+\/(\d+\.\d+\.\d+)/.exec(textAt(info, 'version'))?.[1];
    const uptime = /^(\d+)s$/.exec(textAt(info, 'uptime_current_epoch'))?.[1];
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
    if (!Array.isArray(configs)) throw new EnvoyAdminError(`GET ${path}: no field configs`);
    for (const config of configs as unknown[]) {
      const extensions = valueAt(config, 'bootstrap', 'bootstrap_extensions');
      for (const extension of Array.isArray(extensions) ? (extensions as unknown[]) : []) {
        const type = textAt(extension, 'typed_config', '@type');
        if (textAt(extension, 'name') !== EXTENSION && !type.endsWith(`.${EXTENSION_TYPE}`)) continue;
        const settings = valueAt(extension, 'typed_config');
        return {
          statPrefix: textAt(settings, 'stat_prefix') || DEFAULT_STAT_PREFIX,
          detailedStats: valueAt(settings, 'enable_detailed_stats') === true,
          tenantIsolation: valueAt(settings, 'enable_tenant_isolation') === true,
        };
      }
    }
    return undefined;
  }

  /** @throws EnvoyAdminError */
  async readGauges(statPrefix: string): Promise<TunnelGauges> {
    const gauges = parseTunnelGauges(await this.#get(tunnelGaugesPath(statPrefix)), statPrefix);
    if ('error' in gauges) throw new EnvoyAdminError(`GET /stats: ${gauges.error}`);
    return gauges;
  }

  /** Closes the connection. */
  close(): void {
    this.#agent.destroy();
  }

  #get(path: string): Promise<string> {
    const title = `GET ${path.split('?')[0]}`;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const fail = (cause: string): void => reject(new EnvoyAdminError(`${title}: ${cause}`));
    const call = request(
      { ...this.#address, path, agent: this.#agent, headers: { host: 'localhost' } },
      (response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > MAX_RESPONSE_BYTES) call.destroy(new Error(`more than ${MAX_RESPONSE_BYTES} bytes`));
          else chunks.push(chunk);
        });
        response.on('error', (error) => fail(errorMessage(error)));
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8');
          if (response.statusCode === 200) resolve(text);
          else fail(`${response.statusCode} ${JSON.stringify(text.trim().slice(0, MAX_QUOTED))}`);
        });
      },
    );
    const timer = setTimeout(
      () => call.destroy(new Error(`no complete response within ${this.#timeoutMs} ms`)),
      this.#timeoutMs,
    );
    call.on('error', (error) => fail(errorMessage(error)));
    call.end();
    return promise.finally(() => clearTimeout(timer));
  }
}

function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    const quoted = JSON.stringify(text.slice(0, MAX_QUOTED));
    throw new EnvoyAdminError(`GET ${path.split('?')[0]}: not JSON: ${quoted}`);
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
