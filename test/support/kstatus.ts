/** The parts of an object that its health is computed from. */
export interface ObservedHealth {
  readonly metadata?: { readonly generation?: number; readonly deletionTimestamp?: string };
  readonly status?: {
    readonly observedGeneration?: number;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

/**
 * Returns the health of a custom resource as kstatus computes it (`Compute` of sigs.k8s.io/cli-utils 0.37, package
 * kstatus/status): deletion, then the generation, then Reconciling and Stalled, then Ready.
 */
export function kstatusOf({
  metadata,
  status,
}: ObservedHealth): 'Current' | 'InProgress' | 'Failed' | 'Terminating' {
  if ((metadata?.deletionTimestamp ?? '') !== '') return 'Terminating';
  const { generation } = metadata ?? {};
  const { observedGeneration, conditions = [] } = status ?? {};
  if (generation !== undefined && observedGeneration !== undefined && observedGeneration !== generation)
    return 'InProgress';
  for (const condition of conditions) {
    if (condition.status !== 'True') continue;
    if (condition.type === 'Reconciling') return 'InProgress';
    if (condition.type === 'Stalled') return 'Failed';
  }
  const ready = conditions.find(({ type }) => type === 'Ready');
  return ready === undefined || ready.status === 'True' ? 'Current' : 'InProgress';
}
