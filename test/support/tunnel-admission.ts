import type { AdminRequest } from '../../control-plane/service-account.ts';

const PATH = '/apis/admissionregistration.k8s.io/v1';

/** Matches creates of ReverseTunnels in all namespaces. */
export const MATCH_CREATES = {
  resourceRules: [
    {
      apiGroups: ['reverse-tunnel.io'],
      apiVersions: ['*'],
      operations: ['CREATE'],
      resources: ['reversetunnels'],
    },
  ],
} as const;

/** What the API server rejects creates for. */
export interface Validation {
  /** CEL: true for what is accepted. */
  readonly expression: string;
  readonly message: string;
  readonly reason: 'Forbidden' | 'Invalid';
}

/** Rejects creates of ReverseTunnels with 403 or 422, by a policy and a binding of this name. */
export async function rejectCreates(
  request: AdminRequest,
  name: string,
  validation: Validation,
): Promise<void> {
  await request('POST', `${PATH}/validatingadmissionpolicies`, {
    metadata: { name },
    spec: { failurePolicy: 'Fail', matchConstraints: MATCH_CREATES, validations: [validation] },
  });
  await request('POST', `${PATH}/validatingadmissionpolicybindings`, {
    metadata: { name },
    spec: { policyName: name, validationActions: ['Deny'] },
  });
}

/** Removes what `rejectCreates` made. */
export async function acceptCreates(request: AdminRequest, name: string): Promise<void> {
  await request('DELETE', `${PATH}/validatingadmissionpolicybindings/${name}`);
  await request('DELETE', `${PATH}/validatingadmissionpolicies/${name}`);
}
