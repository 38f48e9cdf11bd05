/** The part of every Kubernetes object that this folder reads. The rest is its owner's business. */
export interface ApiObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
  };
}

/** A kind as the API server's paths name it. */
export interface ResourceType {
  /** API group; empty for the core group. */
  readonly group: string;
  readonly version: string;
  /** Lower-case plural, as in `reversetunnels`. */
  readonly plural: string;
  /** Left out for kinds without namespace. */
  readonly namespace?: string;
}

/** `metav1.Status`: how the API server says what went wrong, and what it answers to most deletions. */
export interface KubernetesStatus {
  readonly kind: 'Status';
  readonly status?: string;
  readonly code?: number;
  readonly reason?: string;
  readonly message?: string;
  readonly details?: {
    readonly name?: string;
    readonly kind?: string;
    readonly uid?: string;
    readonly retryAfterSeconds?: number;
    readonly causes?: readonly {
      readonly reason?: string;
      readonly message?: string;
      readonly field?: string;
    }[];
  };
}

/** True when a parsed answer is a `Status` and not the object that was asked for. */
export function isKubernetesStatus(value: unknown): value is KubernetesStatus {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'Status';
}
