import { expect } from 'chai';
import { CallSlots } from '../../src/controller/call-slots.ts';
import { settled } from '../support/fake-time.ts';

describe('calls about reporters', () => {
  it('are bounded, and urgent ones go first', async () => {
    const slots = new CallSlots(2);
    const begun: string[] = [];
    const ends: (() => void)[] = [];
    const call = (name: string, urgent: boolean): Promise<void> =>
      slots.run(urgent, () => {
        begun.push(name);
        return new Promise<void>((resolve) => ends.push(resolve));
      });
    const all = [call('a', false), call('b', false), call('c', false), call('claim', true)];
    await settled();
    expect(begun).to.deep.equal(['a', 'b']);
    ends.shift()?.();
    await settled();
    expect(begun).to.deep.equal(['a', 'b', 'claim']);
    while (ends.length > 0) {
      ends.shift()?.();
      await settled();
    }
    await Promise.all(all);
    expect(begun).to.deep.equal(['a', 'b', 'claim', 'c']);
  });
});
