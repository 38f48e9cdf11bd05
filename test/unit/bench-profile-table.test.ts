import { expect } from 'chai';
import { profileTable } from '../../bench/profile-table.ts';

const ROOT = 'file:///project/';

function node(id: number, functionName: string, url: string, children: readonly number[] = []) {
  return { id, callFrame: { functionName, url, lineNumber: 6, columnNumber: 0 }, children };
}

describe('the table of a CPU profile', () => {
  const profile = {
    nodes: [
      node(1, '(root)', '', [2, 3, 4, 8]),
      node(2, '(idle)', ''),
      node(3, '(garbage collector)', ''),
      node(4, 'reconcile', `${ROOT}dist/controller/reconciler.js`, [5, 6]),
      node(5, 'dispatch', `${ROOT}node_modules/undici/lib/client.js`, [7]),
      node(6, '', 'node:net'),
      node(7, 'writev', ''),
      node(8, '(program)', ''),
    ],
    samples: [2, 3, 4, 4, 5, 6, 7, 8],
    timeDeltas: [50_000, 10_000, 15_000, 15_000, 20_000, 10_000, 20_000, 10_000],
  };
  const lines = profileTable(profile, ROOT, 200).split('\n');

  it('adds up the busy time of the main thread, in total and per object', () => {
    expect(lines[0]).to.equal(
      '100 ms busy on the main thread for 200 objects, 0.500 ms per object; by part:',
    );
  });

  it('attributes a native function to the package that called it', () => {
    const end = lines.indexOf('by function (self time):');
    expect(lines.slice(1, end).map((line) => line.trim())).to.deep.equal([
      '40 ms   40.0 %  undici',
      '30 ms   30.0 %  own code',
      '10 ms   10.0 %  garbage collection',
      '10 ms   10.0 %  Node',
      '10 ms   10.0 %  native only',
    ]);
  });

  it('lists functions by descending time, with their location', () => {
    expect(lines).to.include(
      '     30 ms   30.0 %  own code            reconcile  dist/controller/reconciler.js:7',
    );
    expect(lines).to.include('     20 ms   20.0 %  undici              writev');
    expect(lines.join('\n')).not.to.include('idle');
  });
});
