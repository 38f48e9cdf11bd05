import type { SliceObject } from '../core/slice-object.ts';
import type { TunnelObjectCondition, TunnelObjectSpec, TunnelObjectStatus } from '../core/tunnel-object.ts';

/** An entry of a slice in the form of a ReverseTunnel. */
export interface SliceTunnel {
  readonly spec: TunnelObjectSpec;
  readonly status: TunnelObjectStatus;
}

/** The Ready condition of a tunnel whose state differs from that of its slice. */
const READY: Readonly<Record<string, TunnelObjectCondition>> = {
  Connected: { type: 'Ready', status: 'True', reason: 'Reported' },
  Unknown: { type: 'Ready', status: 'Unknown', reason: 'ReporterLost' },
};

/** Yields the tunnels of a slice. Tunnels with the state of the slice share its conditions. */
export function* tunnelsOfSlice({ spec, status }: SliceObject): Generator<SliceTunnel> {
  const { reporter, tenantID } = spec;
  const state = status?.state ?? 'Connected';
  const shared = statusWith(state, status?.conditions);
  const exceptions = new Map(status?.tunnels?.map((entry) => [entry.name, entry.state]));
  for (const { name, clusterID, nodeID, createdAt } of spec.tunnels ?? []) {
    const own = exceptions.get(name) ?? state;
    yield {
      spec: {
        clusterID,
        ...(createdAt === undefined ? {} : { createdAt }),
        nodeID,
        reporter,
        tenantID,
        tunnelName: name,
      },
      status: own === state ? shared : statusWith(own),
    };
  }
}

function statusWith(
  state: string,
  conditions: readonly TunnelObjectCondition[] | undefined = READY[state] === undefined ? [] : [READY[state]],
): TunnelObjectStatus {
  return { conditions, state };
}
