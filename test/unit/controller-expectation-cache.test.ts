import { expect } from 'chai';
import { ExpectationCache } from '../../src/controller/expectation-cache.ts';
import type { ExpectationObject, ExpectationSpec } from '../../src/core/expectation-object.ts';

function object(
  name: string,
  version: number,
  { uid = `uid-${name}`, spec = { match: {} } }: { uid?: string; spec?: ExpectationSpec } = {},
): ExpectationObject {
  return { metadata: { name, uid, resourceVersion: String(version), generation: 1 }, spec };
}

describe('the cache of expectations', () => {
  let cache: ExpectationCache;
  let changed: string[];
  beforeEach(() => {
    cache = new ExpectationCache();
    changed = [];
    cache.addEventHandler({ onExpectationChanged: (name) => changed.push(name) });
  });

  function list(...objects: readonly ExpectationObject[]): void {
    cache.replaceBegin();
    for (const each of objects) cache.replaceItem(each);
    cache.replaceEnd();
  }

  function version(name: string): string | undefined {
    return cache.get(name)?.metadata.resourceVersion;
  }

  it('contains what the last list contained, and reports only differences', () => {
    list(object('a', 1), object('b', 2));
    list(object('b', 2), object('c', 3));
    expect([...cache.names()]).to.deep.equal(['b', 'c']);
    expect(changed).to.deep.equal(['a', 'b', 'c', 'a']);
    expect(cache.hasSynced).to.equal(true);
  });

  it('accepts an older version in a list only, because etcd may have been restored', () => {
    list(object('a', 5));
    cache.event('MODIFIED', object('a', 4));
    expect(version('a')).to.equal('5');
    list(object('a', 3));
    expect(version('a')).to.equal('3');
  });

  it('keeps the response to an own write that is newer than the list in progress', () => {
    list(object('a', 1));
    cache.replaceBegin();
    cache.replaceItem(object('a', 1));
    cache.applyWrite(object('a', 2));
    cache.replaceEnd();
    expect(version('a')).to.equal('2');
  });

  it('ignores the response to an own write of an object that was deleted or recreated', () => {
    list(object('a', 1), object('b', 1));
    cache.event('DELETED', object('a', 2));
    cache.applyWrite(object('a', 2));
    expect(cache.get('a')).to.equal(undefined);
    cache.event('DELETED', object('b', 3));
    cache.event('ADDED', object('b', 4, { uid: 'other' }));
    cache.applyWrite(object('b', 5));
    expect(version('b')).to.equal('4');
  });

  it('keeps an object whose predecessor of the same name is deleted late', () => {
    list(object('a', 1));
    cache.event('ADDED', object('a', 3, { uid: 'other' }));
    cache.event('DELETED', object('a', 2));
    expect(version('a')).to.equal('3');
  });

  it('shares the spec of versions that differ in their status only', () => {
    list(object('a', 1, { spec: { match: { nodes: ['x'] } } }));
    const { spec } = cache.get('a') ?? {};
    cache.event('MODIFIED', object('a', 2, { spec: { match: { nodes: ['x'] } } }));
    expect(cache.get('a')?.spec).to.equal(spec);
    cache.event('MODIFIED', object('a', 3, { spec: { match: { nodes: ['y'] } } }));
    expect(cache.get('a')?.spec).to.not.equal(spec);
  });
});
