import { status, type Server, type ServerUnaryCall, type ServerWritableStream } from '@grpc/grpc-js';
import {
  HEALTH_SERVICE,
  type HealthList,
  type HealthRequest,
  type HealthResponse,
  type ServingStatus,
} from './health-service.ts';

type Respond<Response> = (
  error: { readonly code: status; readonly details: string } | null,
  response?: Response,
) => void;
type WatchCall = ServerWritableStream<HealthRequest, HealthResponse>;

/**
 * Serves grpc.health.v1 for a fixed set of services. Any client may call it, so nothing is kept for a service that is
 * not one of them.
 */
export class Health {
  readonly #statuses: Map<string, ServingStatus>;
  readonly #watchers = new Map<WatchCall, string>();

  /** @param services the names of the services, which do not serve yet; '' is the whole server */
  constructor(services: readonly string[]) {
    this.#statuses = new Map(services.map((service) => [service, 'NOT_SERVING']));
  }

  /** Sets the status of all services, and sends it to those who watch one. */
  setServing(serving: boolean): void {
    const current = serving ? 'SERVING' : 'NOT_SERVING';
    for (const [service, previous] of this.#statuses) {
      if (previous === current) continue;
      this.#statuses.set(service, current);
      for (const [call, watched] of this.#watchers) if (watched === service) call.write({ status: current });
    }
  }

  addToServer(server: Server): void {
    server.addService(HEALTH_SERVICE, {
      Check: (
        { request }: ServerUnaryCall<HealthRequest, HealthResponse>,
        respond: Respond<HealthResponse>,
      ) => {
        const known = this.#statuses.get(request.service);
        if (known === undefined) respond({ code: status.NOT_FOUND, details: 'unknown service' });
        else respond(null, { status: known });
      },
      Watch: (call: WatchCall) => {
        const { service } = call.request;
        const known = this.#statuses.get(service);
        // The stream stays open, as the protocol requires: the service may become known, and clients would retry.
        call.write({ status: known ?? 'SERVICE_UNKNOWN' });
        if (known === undefined) return;
        this.#watchers.set(call, service);
        call.on('cancelled', () => this.#watchers.delete(call));
      },
      List: (_call: ServerUnaryCall<object, HealthList>, respond: Respond<HealthList>) => {
        respond(null, this.#statuses);
      },
    });
  }
}
