import { expect } from 'chai';
import { createLogThrottle } from '../../src/log-throttle.ts';
import { FakeClock } from '../support/fake-clock.ts';

describe('a log throttle', () => {
  it('logs one line per minute for each of 256 keys, and one for all others, whatever keys a peer makes up', () => {
    const clock = new FakeClock();
    const throttled = createLogThrottle(clock);
    const lines: string[] = [];
    const flood = (name: string): void => {
      for (let i = 0; i < 1000; i += 1) {
        throttled(`${name} ${i}`, ({ suppressed = 0 }) => lines.push(`${name} ${i}: ${suppressed}`));
      }
    };
    flood('first');
    expect(lines).to.have.length(257);
    clock.advance(59_999);
    flood('second');
    expect(lines).to.have.length(257);
    clock.advance(1);
    lines.length = 0;
    flood('third');
    expect(lines, 'the keys of the last minute have expired').to.have.length(257);
  });
});
