import { expect } from 'chai';
import { createLogThrottle } from '../../src/log-throttle.ts';
import { FakeClock } from '../support/fake-clock.ts';

describe('a sparing log', () => {
  it('tells 256 reasons apart in a minute, and has one line for all others, whatever a peer makes up', () => {
    const clock = new FakeClock();
    const say = createLogThrottle(clock);
    const lines: string[] = [];
    const flood = (name: string): void => {
      for (let i = 0; i < 1000; i += 1) {
        say(`${name} ${i}`, ({ suppressed = 0 }) => lines.push(`${name} ${i}: ${suppressed}`));
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
    expect(lines, 'those of the last minute are forgotten').to.have.length(257);
  });
});
