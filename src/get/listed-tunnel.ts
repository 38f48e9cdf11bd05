import {
  labelsFor,
  type TunnelObject,
  type TunnelObjectSpec,
  type TunnelObjectStatus,
} from '../core/tunnel-object.ts';
import type { Names } from '../core/names.ts';
import type { SliceObject } from '../core/slice-object.ts';
import { GROUP_VERSION } from '../k8s/resources.ts';
import { tunnelsOfSlice } from '../cli/slice-tunnels.ts';

/** The metadata of objects that `kubectl get` shows in addition to what the operator reads. */
interface ListedMetadata {
  readonly name: string;
  readonly namespace?: string;
  readonly creationTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  /** Removed from the output, as kubectl does. */
  readonly managedFields?: unknown;
}

/** A tunnel in the form of a ReverseTunnel, from an object or from an entry of a slice. */
export interface ListedTunnel {
  readonly apiVersion: string;
  readonly kind: 'ReverseTunnel';
  readonly metadata: ListedMetadata;
  readonly spec: TunnelObjectSpec;
  readonly status?: TunnelObjectStatus;
}

/** The annotation of a tunnel that is an entry of a slice: the name of the slice. */
const SLICE_ANNOTATION = 'reverse-tunnel.io/slice';

/** Returns the tunnel of an object. */
export function tunnelOfObject(object: TunnelObject): ListedTunnel {
  const { managedFields: _, ...metadata }: ListedMetadata = object.metadata;
  return {
    apiVersion: GROUP_VERSION,
    kind: 'ReverseTunnel',
    metadata,
    spec: object.spec,
    ...(object.status === undefined ? {} : { status: object.status }),
  };
}

/**
 * Yields the tunnels of a slice with the name and the labels that the object of the tunnel has, or would have. The
 * creation timestamp is that of the slice, as entries have none.
 *
 * @param isWanted returns true for the names of tunnels to yield; default: all
 */
export function* listedTunnelsOf(
  names: Names,
  slice: SliceObject,
  isWanted: (objectName: string) => boolean = () => true,
): Generator<ListedTunnel> {
  const { name, namespace, creationTimestamp }: ListedMetadata = slice.metadata;
  for (const { spec, status } of tunnelsOfSlice(slice)) {
    const tunnel = {
      name: spec.tunnelName,
      tenantID: spec.tenantID,
      clusterID: spec.clusterID,
      nodeID: spec.nodeID,
      createdAt: spec.createdAt,
    };
    const objectName = names.tunnelObjectName(spec.reporter, tunnel);
    if (!isWanted(objectName)) continue;
    yield {
      apiVersion: GROUP_VERSION,
      kind: 'ReverseTunnel',
      metadata: {
        annotations: { [SLICE_ANNOTATION]: name },
        ...(creationTimestamp === undefined ? {} : { creationTimestamp }),
        labels: labelsFor(names, spec.reporter, tunnel),
        name: objectName,
        ...(namespace === undefined ? {} : { namespace }),
      },
      spec,
      status,
    };
  }
}
