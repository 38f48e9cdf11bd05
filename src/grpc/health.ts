import { status, type Server, type ServerUnaryCall, type ServerWritableStream } from '@grpc/grpc-js';
import type { HealthImplementation } from 'grpc-health-check';

interface HealthRequest {
  readonly service: string;
}
type HealthResponse = { readonly status: string };
type Check = (
  call: ServerUnaryCall<HealthRequest, HealthResponse>,
  done: (error: { code: status; details: string } | null, answer?: HealthResponse) => void,
) => void;
type Watch = (call: ServerWritableStream<HealthRequest, HealthResponse>) => void;

/**
 * Serves grpc.health.v1 for the given services only. Any client may call it, and the library stores the name of every
 * service that was ever watched, so requests for unknown services are answered here.
 *
 * @param services names of services; '' is the whole server
 */
export function addHealth(server: Server, health: HealthImplementation, services: readonly string[]): void {
  health.addToServer({
    addService(service, { check, watch, ...others }) {
      const checkServed = check as unknown as Check;
      const watchServed = watch as unknown as Watch;
      const known = {
        ...others,
        check: ((call, done) => {
          if (services.includes(call.request.service)) checkServed(call, done);
          else done({ code: status.NOT_FOUND, details: 'unknown service' });
        }) satisfies Check,
        watch: ((call) => {
          if (services.includes(call.request.service)) watchServed(call);
          // The stream stays open, as the protocol requires: the service may become known, and clients would retry.
          else call.write({ status: 'SERVICE_UNKNOWN' });
        }) satisfies Watch,
      };
      server.addService(service, known);
    },
  });
}
