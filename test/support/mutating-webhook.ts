/** A mutating admission webhook on loopback, registered with the API server for one namespace. */
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { poll } from './operator-process.ts';

/** An operation of a JSON patch. */
export interface JsonPatchOperation {
  readonly op: 'add' | 'replace' | 'remove';
  readonly path: string;
  readonly value?: unknown;
}

/** A write that the API server asks the webhook about. */
export interface AdmissionRequest {
  readonly operation: 'CREATE' | 'UPDATE';
  readonly resource: string;
  /** Undefined for the resource itself. */
  readonly subresource: string | undefined;
  readonly username: string;
  readonly object: WebhookObject;
  readonly oldObject: WebhookObject | undefined;
}

/** The parts of an object that webhooks of tests read. */
export interface WebhookObject {
  readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> };
  readonly spec: Readonly<Record<string, unknown>>;
  readonly status?: Readonly<Record<string, unknown>>;
}

export type MutatingWebhook = Awaited<ReturnType<typeof startMutatingWebhook>>;

interface AdmissionReview {
  readonly request: {
    readonly uid: string;
    readonly operation: AdmissionRequest['operation'];
    readonly resource: { readonly resource: string };
    readonly subResource?: string;
    readonly dryRun?: boolean;
    readonly userInfo: { readonly username: string };
    readonly object: WebhookObject;
    readonly oldObject: WebhookObject | null;
  };
}

const PATH = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
/** The API server reads the registration with a watch. */
const REGISTRATION_DEADLINE_MS = 60_000;
const PROBE_ANNOTATION = 'example.com/probe';

/**
 * Starts a webhook and registers it for all writes of the operator's kinds in a namespace. Resolves when the API server
 * calls it.
 *
 * @param mutate returns the patch of a request
 */
export async function startMutatingWebhook(
  controlPlane: ControlPlaneClient,
  namespace: string,
  mutate: (request: AdmissionRequest) => readonly JsonPatchOperation[],
) {
  const authority = createCertificateAuthority('webhook');
  const { cert, key } = authority.issue({ addresses: ['127.0.0.1'], usage: 'server' });
  const requests: AdmissionRequest[] = [];

  function review(body: string): object {
    const { request } = JSON.parse(body) as AdmissionReview;
    const { uid, operation, resource, subResource, userInfo, object, oldObject } = request;
    const response = (patch: readonly JsonPatchOperation[]): object => ({
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      response: {
        uid,
        allowed: true,
        ...(patch.length === 0
          ? {}
          : { patchType: 'JSONPatch', patch: Buffer.from(JSON.stringify(patch)).toString('base64') }),
      },
    });
    if (request.dryRun === true)
      return response([
        { op: 'add', path: '/metadata/annotations', value: { [PROBE_ANNOTATION]: 'called' } },
      ]);
    const seen: AdmissionRequest = {
      operation,
      resource: resource.resource,
      subresource: subResource === '' ? undefined : subResource,
      username: userInfo.username,
      object,
      oldObject: oldObject ?? undefined,
    };
    requests.push(seen);
    return response(mutate(seen));
  }

  const server = createServer({ cert, key }, (incoming, answer) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      answer.setHeader('content-type', 'application/json');
      answer.end(JSON.stringify(review(Buffer.concat(chunks).toString())));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const name = `mutate-${namespace}`;

  async function send(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
    const response = await controlPlane.request(method, path, body);
    if (response.status >= 300)
      throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(response.body)}`);
    return response.body as Record<string, unknown>;
  }

  await send('POST', PATH, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name },
    webhooks: [
      {
        name: 'mutate.example.com',
        admissionReviewVersions: ['v1'],
        sideEffects: 'None',
        failurePolicy: 'Fail',
        clientConfig: {
          url: `https://127.0.0.1:${port}/`,
          caBundle: Buffer.from(authority.ca).toString('base64'),
        },
        namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
        rules: [
          {
            apiGroups: ['reverse-tunnel.io'],
            apiVersions: ['*'],
            operations: ['CREATE', 'UPDATE'],
            resources: ['*/*'],
          },
        ],
      },
    ],
  });
  await poll(REGISTRATION_DEADLINE_MS, async () => {
    const probe = await send(
      'POST',
      `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnelreporters?dryRun=All`,
      {
        apiVersion: 'reverse-tunnel.io/v1alpha1',
        kind: 'ReverseTunnelReporter',
        metadata: { name: 'probe' },
        spec: { id: 'probe', cluster: '' },
      },
    );
    const { annotations = {} } = probe['metadata'] as { annotations?: Record<string, string> };
    return PROBE_ANNOTATION in annotations ? true : undefined;
  });

  let isRegistered = true;
  const unregister = async (): Promise<void> => {
    if (isRegistered) await send('DELETE', `${PATH}/${name}`);
    isRegistered = false;
  };
  return {
    /** Name of the MutatingWebhookConfiguration. */
    name,
    /** Every request so far, except those of the registration. */
    requests,
    /** Removes the registration. */
    unregister,
    async stop(): Promise<void> {
      await unregister();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
