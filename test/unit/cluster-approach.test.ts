import { expect } from 'chai';
import { approach } from '../cluster/approach.ts';

/** Reads these values one after the other, and then the last one forever. */
function reader(...values: readonly (number | Error)[]): () => Promise<number> {
  let index = 0;
  return async () => {
    const value = values[Math.min(index, values.length - 1)];
    index += 1;
    if (typeof value !== 'number') throw value ?? new Error('no value');
    return await Promise.resolve(value);
  };
}

const STALL_TIMEOUT_MS = 200;
const OPTIONS = {
  what: 'objects',
  target: 10,
  update: () => {},
  pollMs: 20,
  stallTimeoutMs: STALL_TIMEOUT_MS,
};

describe('waiting for a number', () => {
  const reached: readonly [description: string, tolerance: number, values: readonly (number | Error)[]][] = [
    ['ends at the target', 0, [0, 5, 10]],
    ['ends within the tolerance below the target', 2, [0, 8]],
    ['ends within the tolerance above the target', 2, [20, 12]],
    ['continues after an error', 0, [3, new Error('503'), 10]],
  ];
  for (const [description, tolerance, values] of reached) {
    it(description, async () => {
      const stallTimeoutMs = 300 * STALL_TIMEOUT_MS;
      await approach({ ...OPTIONS, stallTimeoutMs, tolerance, read: reader(...values, 10) });
    });
  }

  it('continues for longer than the limit while it comes closer', async () => {
    // 30 reads of 20 ms each.
    const values = [...Array(30).keys()].map((n) => n - 20);
    await approach({ ...OPTIONS, read: reader(...values, 10) });
  });

  const stalled: readonly [description: string, values: readonly (number | Error)[], message: RegExp][] = [
    ['stays the same', [4], /^no progress towards 10 objects for 0 s: 4$/],
    ['only alternates', Array.from({ length: 1000 }, (_, index) => 4 + (index % 2)), /: [45]$/],
    ['moves away', Array.from({ length: 1000 }, (_, index) => -index), /: -\d+$/],
    ['cannot be read', [new Error('503')], /: 503$/],
  ];
  for (const [description, values, message] of stalled) {
    it(`fails if it ${description}`, async () => {
      const error = await approach({ ...OPTIONS, read: reader(...values) }).catch(
        (reason: unknown) => reason,
      );
      expect(error).to.be.instanceOf(Error);
      expect((error as Error).message).to.match(message);
    });
  }

  it('fails at once if the target can no longer be reached', async () => {
    const check = (): void => {
      throw new Error('the fleet has ended');
    };
    const error = await approach({ ...OPTIONS, read: reader(4), check }).catch((reason: unknown) => reason);
    expect(error).to.have.property('message', 'the fleet has ended');
  });

  it('reports the number', async () => {
    const texts: string[] = [];
    await approach({ ...OPTIONS, read: reader(2, 10), update: (text) => texts.push(text) });
    expect(texts).to.deep.equal(['2 of 10 objects']);
  });
});
