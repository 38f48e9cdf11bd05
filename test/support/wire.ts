/**
 * The wire contract as protobufjs' own reflection reads it from proto/: the second opinion that `src/grpc/decode.ts`
 * is held to, and what tests write requests with.
 */
import { join } from 'node:path';
import protobuf from 'protobufjs';

const FOLDER = join(import.meta.dirname, '..', '..', 'proto');
const PACKAGE = 'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client';

/** A StreamReverseTunnelsRequest as one writes it; parts left out stay off the wire. int64s as decimal text. */
export interface RequestFields {
  readonly node?: { readonly id?: string; readonly cluster?: string } & Record<string, unknown>;
  readonly added_tunnels?: readonly TunnelFields[];
  readonly removed_tunnel_names?: readonly string[];
  readonly full_push?: boolean;
  readonly nonce?: string | number;
}

/** A tunnel as the wire has it; every field may be left out. */
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

/** The bytes of a request, written by protobufjs. */
export function requestBytes(fields: RequestFields): Buffer {
  return Buffer.from(request.encode(request.fromObject(fields)).finish());
}

/** What protobufjs makes of the bytes; throws when it refuses them. Every field is there, int64s as decimal text. */
export function requestOf(bytes: Uint8Array): Required<RequestFields> {
  const message = request.decode(bytes);
  return request.toObject(message, { longs: String, arrays: true }) as Required<RequestFields>;
}

/** A request with `count` tunnels `name-0`, `name-1`, … that break no rule, each some 130 bytes as Envoy sends them. */
export function fullPush(count: number, name = 'tunnel'): Pick<RequestFields, 'full_push' | 'added_tunnels'> {
  return { full_push: true, added_tunnels: Array.from({ length: count }, (_, i) => tunnel(`${name}-${i}`)) };
}

/** A tunnel that breaks no rule, whatever of 1 to 512 characters its name. */
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
