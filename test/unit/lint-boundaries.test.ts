import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';

const CONFIG = readFileSync(join(import.meta.dirname, '../../.oxlintrc.json'), 'utf8');

describe('the boundaries of imports', () => {
  it('contain no lookaround, because oxlint silently ignores a pattern with one', () => {
    const patterns = [...CONFIG.matchAll(/"regex": "(.*)"/g)].map(([, pattern = '']) => pattern);
    expect(patterns).to.not.be.empty;
    expect(patterns.filter((pattern) => pattern.includes('(?'))).to.be.empty;
  });
});
