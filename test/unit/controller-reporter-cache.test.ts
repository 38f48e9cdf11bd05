import { expect } from 'chai';

import { ReporterCache } from '../../src/controller/reporter-cache.ts';
import type { ReporterObject } from '../../src/core/reporter-object.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { names, RESPONDER } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);

function object(version: number, uid = 'u1', name = names.reporterObjectName(RESPONDER)): ReporterObject {
  return {
    metadata: { name, uid, resourceVersion: String(version) },
    spec: { id: RESPONDER.id, cluster: RESPONDER.cluster },
  };
}

describe('the cache of reporters', () => {
  let told: string[];
  let cache: ReporterCache;
  const versionOf = (of: ReporterObject | undefined): string => of?.metadata.resourceVersion ?? 'none';

  beforeEach(() => {
    told = [];
    cache = new ReporterCache(names);
    cache.addEventHandler({
      onReporterObjectChanged: (_key, after, before) =>
        told.push(`${versionOf(before)} > ${versionOf(after)}`),
    });
  });

  function list(...objects: ReporterObject[]): void {
    cache.replaceBegin();
    for (const one of objects) cache.replaceItem(one);
    cache.replaceEnd('104');
  }

  it('follows lists, events and answers, and tells each change once', () => {
    list(object(100));
    cache.event('MODIFIED', object(101));
    cache.upsert(object(102));
    cache.event('MODIFIED', object(102));
    cache.event('DELETED', object(103));
    expect(told).to.deep.equal(['none > 100', '100 > 101', '101 > 102', '102 > none']);
  });

  it('takes no older version but from a list, as etcd may have been restored', () => {
    list(object(100));
    cache.event('MODIFIED', object(99));
    cache.upsert(object(98));
    expect(cache.get(KEY)?.metadata.resourceVersion).to.equal('100');
    list(object(90));
    expect(cache.get(KEY)?.metadata.resourceVersion).to.equal('90');
  });

  it('takes from a list what is another at the version that it knew, as restored histories overlap', () => {
    list(object(100));
    list(object(100));
    expect(told, 'the same').to.deep.equal(['none > 100']);
    list({ ...object(100), status: { owner: { replica: 'other', epoch: 3 } } });
    expect(cache.get(KEY)?.status?.owner?.replica).to.equal('other');
    expect(told).to.deep.equal(['none > 100', '100 > 100']);
  });

  it('keeps what was answered since a list began', () => {
    cache.replaceBegin();
    cache.upsert(object(105));
    cache.replaceItem(object(100));
    cache.replaceEnd('104');
    expect(cache.get(KEY)?.metadata.resourceVersion).to.equal('105');
    cache.replaceBegin();
    cache.remove(KEY);
    cache.replaceItem(object(105));
    cache.replaceEnd('104');
    expect(cache.get(KEY)).to.equal(undefined);
  });

  it('drops what was written while a list was on its way and deleted before it was read', () => {
    cache.replaceBegin();
    cache.upsert(object(105));
    cache.replaceEnd('106');
    expect(cache.get(KEY), 'the watch goes on from 106, and never shows the deletion').to.equal(undefined);
    cache.replaceBegin();
    cache.upsert(object(108));
    cache.replaceEnd('107');
    expect(cache.get(KEY)?.metadata.resourceVersion, 'written after the list was read').to.equal('108');
  });

  it('does not bring back by a late event what is known to be gone', () => {
    list(object(100));
    cache.remove(KEY);
    cache.event('MODIFIED', object(101));
    expect(cache.get(KEY)).to.equal(undefined);
    cache.event('DELETED', object(102));
    cache.event('ADDED', object(103, 'u2'));
    expect(cache.get(KEY)?.metadata.uid).to.equal('u2');
  });

  it('drops what a complete list does not hold, and nothing by one that breaks off', () => {
    list(object(100));
    cache.replaceBegin();
    cache.replaceBegin();
    expect(cache.get(KEY)).not.to.equal(undefined);
    cache.replaceEnd('104');
    expect(cache.get(KEY)).to.equal(undefined);
    expect([cache.completeList, cache.nextList]).to.deep.equal([3, 4]);
  });

  it('counts an object under a name that its spec does not derive for nothing', () => {
    list(object(100, 'u9', 'made-by-hand'));
    cache.event('ADDED', object(101, 'u9', 'made-by-hand'));
    expect(cache.get(KEY)).to.equal(undefined);
    expect(told).to.deep.equal([]);
  });
});
