import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { expect } from 'chai';
import { openFaultProxy, type FaultProxy } from '../faults/real/fault-proxy.ts';
import { eventually } from '../support/eventually.ts';

describe('TCP proxy that simulates network failures', () => {
  let target: Server;
  /** The target's connections and what it has read. */
  let served: { readonly socket: Socket; text: string; ended: boolean }[];
  let proxy: FaultProxy;
  let clients: Socket[];

  beforeEach(async () => {
    served = [];
    clients = [];
    target = createServer((socket) => {
      const one = { socket, text: '', ended: false };
      served.push(one);
      socket.setEncoding('utf8').on('data', (text: string) => {
        one.text += text;
        socket.write(text.toUpperCase());
      });
      socket.on('error', () => {});
      socket.on('close', () => {
        one.ended = true;
      });
    });
    await new Promise<void>((resolve) => {
      target.listen(0, '127.0.0.1', resolve);
    });
    proxy = await openFaultProxy(`127.0.0.1:${(target.address() as AddressInfo).port}`);
  });

  afterEach(async () => {
    for (const client of clients) client.destroy();
    await proxy.close();
    for (const { socket } of served) socket.destroy();
    await new Promise<void>((resolve) => {
      target.close(() => resolve());
    });
  });

  function open(): { readonly socket: Socket; text: string; ended: boolean } {
    const [host, port] = proxy.address.split(':');
    const one = { socket: connect(Number(port), host), text: '', ended: false };
    clients.push(one.socket);
    one.socket.setEncoding('utf8').on('data', (text: string) => {
      one.text += text;
    });
    one.socket.on('error', () => {});
    one.socket.on('close', () => {
      one.ended = true;
    });
    return one;
  }

  async function openAndTalk(): Promise<ReturnType<typeof open>> {
    const client = open();
    client.socket.write('a');
    await eventually('a response', () => client.text === 'A');
    return client;
  }

  it('reset breaks both ends, and new connections work', async () => {
    const client = await openAndTalk();
    proxy.reset();
    await eventually('both ends closed', () => client.ended && served[0]?.ended === true);
    await openAndTalk();
  });

  it('cut also breaks new connections, until restore', async () => {
    const client = await openAndTalk();
    proxy.cut();
    await eventually('the end', () => client.ended);
    const next = open();
    await eventually('the end of the next connection', () => next.ended);
    proxy.restore();
    await openAndTalk();
  });

  it('stall passes nothing and ends nothing; restore passes everything, including what was sent meanwhile', async () => {
    const client = await openAndTalk();
    proxy.stall();
    client.socket.write('b');
    const next = open();
    next.socket.write('c');
    await eventually('the next connection', () => !next.socket.connecting);
    expect([client.text, client.ended, next.text, next.ended, served.length]).to.deep.equal([
      'A',
      false,
      '',
      false,
      1,
    ]);
    proxy.restore();
    await eventually('all responses', () => client.text === 'AB' && next.text === 'C');
  });

  it('halfOpen closes one end without notifying the other', async () => {
    const client = await openAndTalk();
    proxy.halfOpen('clients');
    await eventually('the end of the client', () => client.ended);
    served[0]?.socket.write('anyone?');
    await openAndTalk();
    expect(served[0]?.ended).to.equal(false);

    proxy.halfOpen('targets');
    await eventually('the end of the target', () => served[1]?.ended === true);
    clients[1]?.write('anyone?');
    await openAndTalk();
    expect(clients[1]?.destroyed).to.equal(false);
  });

  it('throttle passes everything in order at the given rate', async () => {
    proxy.throttle(20_000);
    const client = open();
    const text = Array.from({ length: 2000 }, (_, i) => `${i},`).join('');
    const startedMs = performance.now();
    client.socket.write(text);
    await eventually('most of the response', () => client.text.length > 0);
    client.socket.write('the end');
    await eventually('the whole response', () => client.text === `${text}THE END`);
    // About 9 kB; what follows must wait for its transfer time.
    expect(performance.now() - startedMs).to.be.greaterThan(400);
  });
});
