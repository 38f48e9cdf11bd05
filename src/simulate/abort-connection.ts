import type { Socket } from 'node:net';

/**
 * Ends a connection with RST, where it can be. A socket that has been ended, or is not connected yet, is closed as it
 * is: Node never closes the handle of one that is destroyed while it resets and its FIN is still to go out, and is
 * then busy for ever at the end of the process.
 */
export function abortConnection(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.connecting || socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}
