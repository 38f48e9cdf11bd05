/**
 * Mocha's global setup (`require` in .mocharc.json): offers one control plane to all test processes.
 *
 * Mocha calls it in its main process, also in parallel mode. The control plane starts when the first suite asks for it,
 * so a run of unit tests never starts one, and it stops when the last suite has ended.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ControlPlane } from '../../control-plane/start.ts';
import { SHARED_CONTROL_PLANE_URL } from './control-plane.ts';
import { startWithCrds } from './start-with-crds.ts';

export { mochaHooks } from './report-measurement.ts';

let server: Server | undefined;
let shared: Promise<ControlPlane> | undefined;

/** Listens on loopback for test processes that need the control plane. */
export async function mochaGlobalSetup(): Promise<void> {
  const listener = createServer((_request, response) => {
    shared ??= startWithCrds({ audit: true });
    shared.then(
      (controlPlane) => response.end(JSON.stringify(controlPlane)),
      (error: unknown) => response.writeHead(500).end(String(error)),
    );
  });
  // A first start may have to build the binaries.
  listener.requestTimeout = 0;
  await new Promise<void>((resolve) => {
    listener.listen(0, '127.0.0.1', resolve);
  });
  server = listener;
  // Inherited by the workers of parallel mode, which start later.
  process.env[SHARED_CONTROL_PLANE_URL] = `http://127.0.0.1:${(listener.address() as AddressInfo).port}`;
}

/** Stops the control plane, if any suite has asked for it. */
export async function mochaGlobalTeardown(): Promise<void> {
  server?.close();
  server?.closeAllConnections();
  await (await shared?.catch(() => undefined))?.stop();
}
