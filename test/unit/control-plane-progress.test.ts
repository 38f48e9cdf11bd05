import { expect } from 'chai';
import { createProgress, formatElapsed } from '../../control-plane/progress.ts';

function recorder(isTTY: boolean) {
  const written: string[] = [];
  const clock = { nowMs: 0 };
  const stream = { isTTY, write: (text: string) => written.push(text) };
  return { written, clock, progress: createProgress(stream, () => clock.nowMs) };
}

describe('progress of a long build', () => {
  it('prints the first line immediately and then one every 12 s with the elapsed time if stderr is not a terminal', () => {
    const { written, clock, progress } = recorder(false);
    for (; clock.nowMs <= 60_000; clock.nowMs += 1000) progress.update(`${clock.nowMs / 1000} packages`);
    expect(written).to.deep.equal(
      ['0s] 0', '12s] 12', '24s] 24', '36s] 36', '48s] 48', '1m00s] 60'].map(
        (part) => `control-plane: [${part} packages\n`,
      ),
    );
  });

  it('rewrites one line on a terminal, and clears it for a permanent line', () => {
    const { written, clock, progress } = recorder(true);
    progress.update('1 package');
    clock.nowMs = 300;
    progress.update('2 packages');
    progress.log('built');
    expect(written.join('')).to.equal(
      '\rcontrol-plane: [0s] 1 package\u001b[K\rcontrol-plane: [0s] 2 packages\u001b[K\r\u001b[Kcontrol-plane: built\n',
    );
  });

  it('formats minutes with two digits of seconds', () => {
    expect([0, 59_999, 60_000, 605_000].map(formatElapsed)).to.deep.equal(['0s', '59s', '1m00s', '10m05s']);
  });
});
