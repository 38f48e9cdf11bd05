import { once } from 'node:events';
import { expect } from 'chai';
import { GuardedTransport } from '../../src/grpc/guarded-transport.ts';

type Done = (error?: Error | null) => void;

function createTransport() {
  const written: Buffer[] = [];
  const unfinished: Done[] = [];
  const events: string[] = [];
  const transport = new GuardedTransport({
    onRead: () => events.push('read'),
    onWrite: (chunk, done) => {
      written.push(chunk);
      unfinished.push(done);
    },
    onEnd: () => events.push('end'),
    onDestroy: () => events.push('destroy'),
  });
  return { transport, written, unfinished, events };
}

describe('GuardedTransport', () => {
  it('sends the parts of a small write as one, and completes each when it is sent', () => {
    const { transport, written, unfinished } = createTransport();
    let completed = 0;
    const onWritten = (): void => {
      completed += 1;
    };
    transport.cork();
    transport.write(Buffer.from('header'), onWritten);
    transport.write(Buffer.from('payload'), onWritten);
    expect(written).to.deep.equal([]);
    transport.uncork();
    expect(written.map(String)).to.deep.equal(['headerpayload']);
    expect(completed).to.equal(0);
    for (const done of unfinished) done();
    expect(completed).to.equal(2);
  });

  it('sends the parts of a large write one after the other, without a copy', () => {
    const { transport, written, unfinished } = createTransport();
    const parts = [Buffer.alloc(9), Buffer.alloc(16 * 1024)];
    const errors: unknown[] = [];
    transport.cork();
    for (const part of parts) transport.write(part, (error: unknown) => errors.push(error));
    transport.uncork();
    expect(written.map((part, i) => part === parts[i])).to.deep.equal([true, true]);
    const failure = new Error('reset');
    for (const done of unfinished) done(failure);
    expect(errors).to.deep.equal([failure, failure]);
  });

  it('keeps what is delivered while the reader is paused, in order', async () => {
    const { transport } = createTransport();
    const received: string[] = [];
    transport.on('data', (chunk: Buffer) => received.push(String(chunk)));
    transport.resume();
    await once(transport, 'resume');
    transport.deliver(Buffer.from('a'));
    expect(received).to.deep.equal(['a']);
    transport.pause();
    transport.deliver(Buffer.from('b'));
    transport.deliver(Buffer.from('c'));
    expect(received).to.deep.equal(['a']);
    transport.resume();
    await once(transport, 'resume');
    expect(received.join('')).to.equal('abc');
  });

  it('accepts no more than its buffer while the reader is paused', () => {
    const { transport } = createTransport();
    const chunk = Buffer.alloc(16 * 1024);
    let accepted = 1;
    while (accepted < 1000 && transport.deliver(chunk)) accepted += 1;
    expect(accepted * chunk.length).to.be.at.most(transport.readableHighWaterMark + chunk.length);
  });

  it('reports the end of what HTTP/2 sends, and its destruction', async () => {
    const { transport, events } = createTransport();
    transport.end();
    await once(transport, 'finish');
    transport.destroy();
    await once(transport, 'close');
    expect(events.filter((event) => event !== 'read')).to.deep.equal(['end', 'destroy']);
  });
});
