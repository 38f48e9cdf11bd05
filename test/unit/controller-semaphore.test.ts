import { expect } from 'chai';
import { Semaphore } from '../../src/controller/semaphore.ts';
import { flushEventLoop } from '../support/fake-time.ts';

describe('calls about reporters', () => {
  it('are bounded, and urgent ones go first', async () => {
    const slots = new Semaphore(2);
    const begun: string[] = [];
    const ends: (() => void)[] = [];
    const call = (name: string, urgent: boolean): Promise<void> =>
      slots.run(urgent, () => {
        begun.push(name);
        return new Promise<void>((resolve) => ends.push(resolve));
      });
    const all = [call('a', false), call('b', false), call('c', false), call('claim', true)];
    await flushEventLoop();
    expect(begun).to.deep.equal(['a', 'b']);
    ends.shift()?.();
    await flushEventLoop();
    expect(begun).to.deep.equal(['a', 'b', 'claim']);
    while (ends.length > 0) {
      ends.shift()?.();
      await flushEventLoop();
    }
    await Promise.all(all);
    expect(begun).to.deep.equal(['a', 'b', 'claim', 'c']);
  });
});
