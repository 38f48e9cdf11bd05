import { expect } from 'chai';
import * as fc from 'fast-check';
import { RejectionSearch } from '../../src/core/rejection-search.ts';

/** Searches until the end. Returns the number of writes and what was accepted. */
function searchAll(
  search: RejectionSearch,
  isRejected: (part: readonly string[]) => boolean,
): { writes: number; accepted: string[] } {
  const accepted: string[] = [];
  let writes = 0;
  for (let { part } = search; part !== undefined; { part } = search) {
    writes += 1;
    if (isRejected(part)) search.partRejected();
    else {
      accepted.push(...part);
      search.accepted();
    }
  }
  return { writes, accepted };
}

function names(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `n${index}`);
}

describe('the search for rejected changes', () => {
  it('finds exactly the rejected ones, and writes all others', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100 }),
        fc.array(fc.nat(99), { minLength: 1, maxLength: 40 }),
        fc.nat(3),
        (count, picks, removedCount) => {
          const all = names(count);
          const bad = new Set(picks.map((pick) => all[pick % count] ?? ''));
          const search = new RejectionSearch([all.slice(0, removedCount), all.slice(removedCount)]);
          const { accepted } = searchAll(search, (part) => part.some((name) => bad.has(name)));
          for (const name of search.rejected) expect(bad).to.include(name);
          if (search.isAborted) {
            expect(accepted).to.be.empty;
            return;
          }
          expect(search.rejected.toSorted()).to.deep.equal([...bad].toSorted());
          expect(accepted.toSorted()).to.deep.equal(all.filter((name) => !bad.has(name)).toSorted());
        },
      ),
    );
  });

  const costs: [title: string, bad: (index: number) => boolean, maxWrites: number, isAborted: boolean][] = [
    ['the first of 100', (index) => index === 0, 14, false],
    ['the last of 100', (index) => index === 99, 14, false],
    ['the first half of 100', (index) => index < 50, 120, false],
    ['every second of 100', (index) => index % 2 === 0, 198, false],
    ['all of 100', () => true, 28, true],
  ];
  for (const [title, isBad, maxWrites, isAborted] of costs) {
    it(`costs at most ${maxWrites} writes if the API server rejects ${title}`, () => {
      const all = names(100);
      const bad = new Set(all.filter((_, index) => isBad(index)));
      const search = new RejectionSearch([[], all]);
      const { writes } = searchAll(search, (part) => part.some((name) => bad.has(name)));
      expect(writes).to.be.at.most(maxWrites);
      expect(search.isAborted).to.equal(isAborted);
    });
  }

  it('is over at once if there is only one change', () => {
    const search = new RejectionSearch([['only'], []]);
    expect([search.part, search.rejected, search.isAborted]).to.deep.equal([undefined, ['only'], false]);
  });

  it('writes removals before additions', () => {
    const search = new RejectionSearch([['gone'], ['new', 'newer']]);
    expect(search.part).to.deep.equal(['gone']);
    search.accepted();
    expect(search.part).to.deep.equal(['new', 'newer']);
  });
});
