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
 * Serves grpc.health.v1 for these services and no other. Whoever reaches the port may ask, and the library remembers the
 * name of each service that was ever watched; so it never hears of one that there is not.
 *
 * @param services names of services, '' for the whole server
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
          // And no end: the protocol has it that a service may come to be known later, and clients would call again.
          else call.write({ status: 'SERVICE_UNKNOWN' });
        }) satisfies Watch,
      };
      server.addService(service, known);
    },
  });
}
