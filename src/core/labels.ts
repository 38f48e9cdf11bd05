const MANAGED_BY_LABEL = 'app.kubernetes.io/managed-by';
const MANAGED_BY_VALUE = 'reverse-tunnel-operator';

/** On every object that this project makes. */
export const MANAGED_BY_LABELS = { [MANAGED_BY_LABEL]: MANAGED_BY_VALUE } as const;

/** True for an object with these labels that this project made: others may have Leases in its namespace too. */
export function isManaged(labels: Readonly<Record<string, string>> | undefined): boolean {
  return labels?.[MANAGED_BY_LABEL] === MANAGED_BY_VALUE;
}
