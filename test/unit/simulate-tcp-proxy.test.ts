import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect } from 'chai';
import { waitForExit } from '../../control-plane/process-supervisor.ts';

const TCP_PROXY = new URL('../../src/simulate/tcp-proxy.ts', import.meta.url).href;
const DEADLINE_MS = 20_000;

/** Aborts a connection that has just been ended, and then destroys it, as another listener may do. */
const PROGRAM = `
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { abortConnection } from ${JSON.stringify(TCP_PROXY)};
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

describe('abortConnection', () => {
  it('lets the process end if the connection is already ending', async function () {
    this.timeout(2 * DEADLINE_MS);
    const child = spawn(process.execPath, ['--input-type=module', '-e', PROGRAM], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const timeout = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
    await once(child.stdout, 'data');
    await waitForExit(child);
    clearTimeout(timeout);
    expect([child.exitCode, child.signalCode]).to.deep.equal([0, null]);
  });
});
