import { expect } from 'chai';
import { systemClock } from '../../src/clock.ts';

describe("The machine's clock", () => {
  for (const delayMs of [2 ** 31, 2 ** 53, Number.POSITIVE_INFINITY]) {
    it(`does not call back at once after ${delayMs} ms, which Node's timers cannot represent`, async () => {
      const fired: string[] = [];
      const cancel = systemClock.setTimer(delayMs, () => fired.push('long'));
      await new Promise<void>((resolve) => {
        systemClock.setTimer(5, () => {
          fired.push('short');
          resolve();
        });
      });
      cancel();
      expect(fired).to.deep.equal(['short']);
    });
  }
});
