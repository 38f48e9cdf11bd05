/** An initiator with many tunnels: one Envoy opens as many as its bootstrap has listeners. */
import { parse } from 'yaml';

interface Listener {
  readonly name: string;
  readonly address: { readonly socket_address: { readonly address: string } };
}

/** Returns the bootstrap of an initiator that opens one tunnel per node ID, from one with a single `rc://` listener. */
export function initiatorOf(bootstrap: string, nodes: readonly string[]): string {
  const config = parse(bootstrap) as { static_resources: { listeners: Listener[] } };
  const [shipped] = config.static_resources.listeners;
  if (shipped === undefined) throw new Error('the bootstrap has no listener');
  config.static_resources.listeners = nodes.map((node) => {
    const listener = structuredClone(shipped);
    const { socket_address: address } = listener.address;
    const rc = address.address.replace(/^rc:\/\/[^:]+:/, `rc://${node}:`);
    return { ...listener, name: node, address: { socket_address: { ...address, address: rc } } };
  });
  // JSON is YAML, and Envoy reads it faster.
  return JSON.stringify(config);
}
