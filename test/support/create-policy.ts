import type { ControlPlaneClient } from '../../control-plane/start.ts';

const API_PATH = '/apis/reverse-tunnel.io/v1alpha1';

/**
 * Creates a ReverseTunnelPolicy.
 *
 * @throws Error with the response if the API server rejects it
 */
export async function createPolicy(
  { request }: Pick<ControlPlaneClient, 'request'>,
  namespace: string,
  name: string,
  rules: readonly object[],
): Promise<void> {
  const { status, body } = await request(
    'POST',
    `${API_PATH}/namespaces/${namespace}/reversetunnelpolicies`,
    {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnelPolicy',
      metadata: { name },
      spec: { rules },
    },
  );
  if (status !== 201) throw new Error(`create policy ${name}: ${status} ${JSON.stringify(body)}`);
}
