/**
 * The wire contract as read from proto/ by protobufjs' reflection: an independent decoder to compare
 * `src/grpc/decode.ts` with, and the encoder of the tests.
 */
import { join } from 'node:path';
import protobuf from 'protobufjs';

const FOLDER = join(import.meta.dirname, '..', '..', 'proto');
const PACKAGE = 'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client';

/** A StreamReverseTunnelsRequest; fields left out are not encoded. int64 values are decimal strings. */
export interface RequestFields {
  readonly node?: { readonly id?: string; readonly cluster?: string } & Record<string, unknown>;
  readonly added_tunnels?: readonly TunnelFields[];
  readonly removed_tunnel_names?: readonly string[];
  readonly full_push?: boolean;
  readonly nonce?: string | number;
}

/** A tunnel on the wire; every field may be left out. */
export interface TunnelFields {
  readonly name?: string;
  readonly identity?: {
    readonly tenant_id?: string;
    readonly cluster_id?: string;
    readonly node_id?: string;
  };
  readonly created_at?: { readonly seconds?: string | number; readonly nanos?: number };
}

const root = new protobuf.Root();
root.resolvePath = (_origin, target) => join(FOLDER, target);
root.loadSync(`${PACKAGE.replaceAll('.', '/')}/stream_reverse_tunnels.proto`, { keepCase: true });

const request = root.lookupType(`${PACKAGE}.StreamReverseTunnelsRequest`);

/** Encodes a request with protobufjs. */
export function requestBytes(fields: RequestFields): Buffer {
  return Buffer.from(request.encode(request.fromObject(fields)).finish());
}

/**
 * Decodes a request with protobufjs; throws when it is invalid. Every field is present, int64 values as decimal
 * strings.
 */
export function requestOf(bytes: Uint8Array): Required<RequestFields> {
  const message = request.decode(bytes);
  return request.toObject(message, { longs: String, arrays: true }) as Required<RequestFields>;
}

/**
 * Returns a full push of `count` valid tunnels `name-0`, `name-1`, …, of about 130 bytes each as Envoy sends them.
 */
export function fullPush(count: number, name = 'tunnel'): Pick<RequestFields, 'full_push' | 'added_tunnels'> {
  return { full_push: true, added_tunnels: Array.from({ length: count }, (_, i) => tunnel(`${name}-${i}`)) };
}

/** Returns a valid tunnel for any name of 1 to 512 characters. */
export function tunnel(name: string): Required<TunnelFields> {
  return {
    name,
    identity: {
      tenant_id: 'acme-corporation',
      cluster_id: 'eu-central-1-production',
      node_id: `node-of-${name}`.slice(0, 128),
    },
    created_at: { seconds: 1_790_000_000, nanos: 123_456_000 },
  };
}
