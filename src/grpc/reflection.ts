import type { Server } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { packageFile } from '../package-files.ts';
import { REPORTING_SERVICE_NAME } from './reporting-service.ts';

/**
 * Serves grpc.reflection.v1 for the reporting service, based on `proto/`. Loaded only if it is enabled: it needs a
 * parser of .proto files and a generator of decoders, which take 60 ms at the start.
 */
export function addReflection(server: Server): void {
  const packageName = REPORTING_SERVICE_NAME.slice(0, REPORTING_SERVICE_NAME.lastIndexOf('.'));
  const file = `${packageName.replaceAll('.', '/')}/stream_reverse_tunnels.proto`;
  const definitions = loadSync(file, { includeDirs: [packageFile('proto')], longs: String, keepCase: true });
  new ReflectionService(definitions, { services: [REPORTING_SERVICE_NAME] }).addToServer(server);
}
