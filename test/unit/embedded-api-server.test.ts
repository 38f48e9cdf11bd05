/** Parts of the embedded API server that the contract with a real one reaches only in a few cases. */
import { expect } from 'chai';
import { compileCel } from '../../embedded-api-server/cel.ts';
import { formatHumanDuration } from '../../embedded-api-server/human-duration.ts';
import { compileJsonPath } from '../../embedded-api-server/json-path.ts';
import { ListPages } from '../../embedded-api-server/list-pages.ts';
import { formatTable } from '../../demo/table-command.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

describe('embedded API server', () => {
  it('formats durations with the units of HumanDuration', () => {
    // The cases of apimachinery's own test, and its limits.
    const cases: readonly (readonly [number, string])[] = [
      [SECOND, '1s'],
      [70 * SECOND, '70s'],
      [119 * SECOND, '119s'],
      [120 * SECOND, '2m'],
      [190 * SECOND, '3m10s'],
      [10 * MINUTE, '10m'],
      [70 * MINUTE, '70m'],
      [3 * HOUR, '3h'],
      [7 * HOUR + 20 * MINUTE, '7h20m'],
      [47 * HOUR, '47h'],
      [49 * HOUR, '2d1h'],
      [8 * DAY + 2 * HOUR, '8d'],
      [367 * DAY, '367d'],
      [2 * 365 * DAY + 25 * HOUR, '2y1d'],
      [8 * 365 * DAY + 2 * HOUR, '8y'],
      [-1500, '0s'],
      [-2 * SECOND, '<invalid>'],
    ];
    for (const [durationMs, text] of cases) expect(formatHumanDuration(durationMs)).to.equal(text);
  });

  it('evaluates the supported part of CEL, and rejects the rest when it is compiled', () => {
    const variables = {
      self: { name: 'node-1', count: 3, tags: ['a', 'b'], nested: { on: true } },
      oldSelf: { name: 'node-1', count: 2, tags: ['a', 'b'] },
    };
    const cases: readonly (readonly [string, unknown])[] = [
      ['self.name == oldSelf.name && self.tags == oldSelf.tags', true],
      ['self.count > oldSelf.count || self.missing', true],
      ['self.count == oldSelf.count', false],
      ['self.count + 2 * 2 == 7 && (1 + 2) * 3 == 9', true],
      ["has(self.nested) && !has(self.missing) ? 'yes' : 'no'", 'yes'],
      ["'it\\'s ' + self.name", "it's node-1"],
      ["self.name.startsWith('node-') && self.name.matches('^node-[0-9]+$')", true],
      ["'a' in self.tags && !('c' in self.tags)", true],
      ['size(self.tags) == 2 && self.name.size() == 6', true],
      ["self.tags[1] == 'b' && self.tags + ['c'] == ['a', 'b', 'c']", true],
      ['self.count == -(-3) && 7 / 2 == 3 && 7 % 2 == 1', true],
    ];
    for (const [rule, result] of cases) expect(compileCel(rule)(variables), rule).to.equal(result);
    for (const rule of ['self.all(x, x > 1)', 'self.name ==', "'open", 'self.tags[', 'a ? b'])
      expect(() => compileCel(rule), rule).to.throw(/^CEL /);
  });

  it('reads the JSONPaths of printer columns', () => {
    const object = {
      spec: { items: [{ name: 'a' }, { name: 'b' }] },
      status: { conditions: [{ type: 'Ready', reason: 'R' }] },
    };
    const cases: readonly (readonly [string, unknown[]])[] = [
      ['.spec.items[*].name', ['a', 'b']],
      ['.spec.items[1].name', ['b']],
      ['.status.conditions[?(@.type=="Ready")].reason', ['R']],
      ['.status.conditions[?(@.type=="Other")].reason', []],
      ['.spec.missing.name', []],
    ];
    for (const [path, values] of cases) expect(compileJsonPath(path)(object), path).to.deep.equal(values);
    expect(() => compileJsonPath('.a..b')).to.throw('not supported');
  });

  it('returns a lost page again, and forgets the oldest of many unfinished lists', () => {
    const pages = new ListPages();
    const first = pages.first(7, ['a', 'b', 'c'], 1);
    expect(pages.next(first.token, 1)?.items).to.deep.equal(['b']);
    expect(pages.next(first.token, 2)).to.deep.equal({
      version: 7,
      items: ['b', 'c'],
      token: '',
      remaining: 0,
    });
    for (let list = 0; list < 1000; list += 1) pages.first(8, ['a', 'b'], 1);
    expect(pages.next(first.token, 1)).to.equal(undefined);
  });

  it('lays out tables like kubectl', () => {
    const table = {
      columnDefinitions: [
        { name: 'Name', priority: 0 },
        { name: 'Tunnels', priority: 0 },
        { name: 'Reason', priority: 1 },
      ],
      rows: [
        { cells: ['responder-0', 12, 'Reported'], object: { metadata: { name: 'responder-0' } } },
        { cells: ['b', null, null], object: { metadata: { name: 'b' } } },
      ],
    };
    expect(formatTable(table, false)).to.equal(
      'NAME          TUNNELS\nresponder-0   12\nb             <none>\n',
    );
    expect(formatTable(table, true)).to.equal(
      'NAME          TUNNELS   REASON\nresponder-0   12        Reported\nb             <none>    <none>\n',
    );
    expect(formatTable({ ...table, rows: [] }, true)).to.equal('');
  });
});
