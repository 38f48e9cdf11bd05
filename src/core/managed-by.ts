const LABEL = 'app.kubernetes.io/managed-by';
const MANAGER = 'reverse-tunnel-operator';

/** On every object that this project makes. */
export const MANAGED_BY = { [LABEL]: MANAGER } as const;

/** True for an object with these labels that this project made: others may have Leases in its namespace too. */
export function isManaged(labels: Readonly<Record<string, string>> | undefined): boolean {
  return labels?.[LABEL] === MANAGER;
}
