import type { AdminRequest } from '../control-plane/service-account.ts';

/** The cluster of the demo. */
export interface Cluster {
  readonly namespace: string;
  /** What serves the API, with its URL where the demo started it. */
  readonly description: string;
  /** The kubeconfig for the user of the demo. */
  readonly kubeconfigPath: string;
  /** The kubeconfig for the operator; in a temporary cluster with etcd, it has exactly the operator's permissions. */
  readonly operatorKubeconfigPath: string;
  /** The folder of the kubectl that the demo uses; undefined if there is none. */
  readonly kubectlFolder: string | undefined;
  /**
   * Runs kubectl in the namespace of the demo and returns its output. Rejects with the error of kubectl. Without kubectl,
   * the commands of the demo are executed by `table-command.ts`.
   */
  kubectl(...args: string[]): Promise<string>;
  /** Sends a GET with the permissions of the user, and resolves with any status. */
  readonly request: AdminRequest;
  /** Removes everything except for the CRDs in a user's cluster. */
  close(): Promise<void>;
}
