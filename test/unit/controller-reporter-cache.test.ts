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

describe('the reporter cache', () => {
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

  it('follows lists, events and responses, and reports each change once', () => {
    list(object(100));
    cache.event('MODIFIED', object(101));
    cache.upsert(object(102));
    cache.event('MODIFIED', object(102));
    cache.event('DELETED', object(103));
    expect(told).to.deep.equal(['none > 100', '100 > 101', '101 > 102', '102 > none']);
  });

  it('accepts an older version only from a list, because etcd may have been restored', () => {
    list(object(100));
    cache.event('MODIFIED', object(99));
    cache.upsert(object(98));
    expect(cache.get(KEY)?.metadata.resourceVersion).to.equal('100');
    list(object(90));
    expect(cache.get(KEY)?.metadata.resourceVersion).to.equal('90');
  });

  it('accepts other contents with the same version from a list, because restored histories overlap', () => {
    list(object(100));
    list(object(100));
    expect(told, 'the same').to.deep.equal(['none > 100']);
    list({ ...object(100), status: { owner: { replica: 'other', epoch: 3 } } });
    expect(cache.get(KEY)?.status?.owner?.replica).to.equal('other');
    expect(told).to.deep.equal(['none > 100', '100 > 100']);
  });

  it('keeps responses that arrived during a list', () => {
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

  it('removes an object that was written during a list and deleted before it was read', () => {
    cache.replaceBegin();
    cache.upsert(object(105));
    cache.replaceEnd('106');
    expect(cache.get(KEY), 'the watch continues from 106 and never returns the deletion').to.equal(undefined);
    cache.replaceBegin();
    cache.upsert(object(108));
    cache.replaceEnd('107');
    expect(cache.get(KEY)?.metadata.resourceVersion, 'written after the list was read').to.equal('108');
  });

  it('does not restore a deleted object for a late event', () => {
    list(object(100));
    cache.remove(KEY);
    cache.event('MODIFIED', object(101));
    expect(cache.get(KEY)).to.equal(undefined);
    cache.event('DELETED', object(102));
    cache.event('ADDED', object(103, 'u2'));
    expect(cache.get(KEY)?.metadata.uid).to.equal('u2');
  });

  it('removes objects that are not in a complete list, and none at an incomplete one', () => {
    list(object(100));
    cache.replaceBegin();
    cache.replaceBegin();
    expect(cache.get(KEY)).not.to.equal(undefined);
    cache.replaceEnd('104');
    expect(cache.get(KEY)).to.equal(undefined);
    expect([cache.completeList, cache.nextList]).to.deep.equal([3, 4]);
  });

  it('ignores an object whose name does not match its spec', () => {
    list(object(100, 'u9', 'made-by-hand'));
    cache.event('ADDED', object(101, 'u9', 'made-by-hand'));
    expect(cache.get(KEY)).to.equal(undefined);
    expect(told).to.deep.equal([]);
  });
});
