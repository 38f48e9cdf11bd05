import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect } from 'chai';
import { waitForExit } from '../../control-plane/process-supervisor.ts';

const ABORT_CONNECTION = new URL('../../src/simulate/tcp-proxy.ts', import.meta.url).href;
const DEADLINE_MS = 20_000;

/** A connection that was ended a moment ago is broken off, and destroyed by whoever else hears of it. */
const PROGRAM = `
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { abortConnection } from ${JSON.stringify(ABORT_CONNECTION)};
const server = createServer((socket) => socket.on('error', () => {}).resume()).listen(0, '127.0.0.1');
await once(server, 'listening');
const socket = connect(server.address().port, '127.0.0.1').on('error', () => {});
await once(socket, 'connect');
socket.end();
await new Promise((resolve) => process.nextTick(resolve));
abortConnection(socket);
socket.destroy();
server.close();
console.log('closed');
`;

describe('a connection that is broken off while it ends', () => {
  it('lets its process end', async function () {
    this.timeout(2 * DEADLINE_MS);
    const child = spawn(process.execPath, ['--input-type=module', '-e', PROGRAM], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const late = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
    await once(child.stdout, 'data');
    await waitForExit(child);
    clearTimeout(late);
    expect([child.exitCode, child.signalCode]).to.deep.equal([0, null]);
  });
});
