import { expect } from 'chai';
import type { SliceObject } from '../../src/core/slice-object.ts';
import type { TunnelObject } from '../../src/core/tunnel-object.ts';
import { listTunnels, selecting, type ListerWatcher } from '../../src/get/list-tunnels.ts';
import { ApiError } from '../../src/k8s/api-error.ts';
import type { ListOptions } from '../../src/k8s/resource-client.ts';

const SIGNAL = new AbortController().signal;
const NO_SELECTORS = { labelSelector: undefined, fieldSelector: undefined };

/** A resource that answers each list with a page, or rejects it. */
function source<T>(
  answer: (options: ListOptions) => T[] | ApiError,
  requests: ListOptions[] = [],
): ListerWatcher<T & { metadata: TunnelObject['metadata'] }> {
  return {
    title: 'test',
    async list(options = {}) {
      requests.push(options);
      const items = answer(options);
      if (items instanceof ApiError) throw items;
      return {
        items: items as (T & { metadata: TunnelObject['metadata'] })[],
        resourceVersion: '7',
        continueToken: undefined,
      };
    },
    watch: () => Promise.reject(new Error('not watched')),
  };
}

const SLICE = { metadata: { name: 'slice' } } as SliceObject;

describe('lists of rt get', () => {
  async function list(
    answer: (options: ListOptions) => SliceObject[] | ApiError,
    requests: ListOptions[] = [],
  ) {
    const shown: string[] = [];
    const slices = source<SliceObject>(answer, requests);
    const unavailable = await listTunnels(
      source<TunnelObject>(() => [{ metadata: { name: 'object' } } as TunnelObject]),
      (atVersion) => selecting(slices, NO_SELECTORS, atVersion),
      SIGNAL,
      ({ metadata }) => shown.push(metadata.name),
      ({ metadata }) => shown.push(metadata.name),
    );
    return { shown, unavailable };
  }

  it('show the slices as of the version of the objects', async () => {
    const requests: ListOptions[] = [];
    expect(await list(() => [SLICE], requests)).to.deep.equal({
      shown: ['object', 'slice'],
      unavailable: undefined,
    });
    expect(requests.map(({ atVersion }) => atVersion)).to.deep.equal(['7']);
  });

  for (const kind of ['expired', 'resource_version_too_large'] as const) {
    it(`show the slices as of now if that version is not available (${kind})`, async () => {
      const requests: ListOptions[] = [];
      const answer = ({ atVersion }: ListOptions) =>
        atVersion === undefined ? [SLICE] : new ApiError(kind, 'no such version');
      expect((await list(answer, requests)).shown).to.deep.equal(['object', 'slice']);
      expect(requests.map(({ atVersion }) => atVersion)).to.deep.equal(['7', undefined]);
    });
  }

  it('show only objects where the kind of slices is not installed', async () => {
    const missing = new ApiError('no_kind_match', 'list slices: 404');
    expect(await list(() => missing)).to.deep.equal({ shown: ['object'], unavailable: undefined });
  });

  it('show only objects to a caller who must not list slices, with the error', async () => {
    const forbidden = new ApiError('rejected', 'list slices: 403 Forbidden', { status: 403 });
    expect(await list(() => forbidden)).to.deep.equal({ shown: ['object'], unavailable: forbidden });
  });

  it('reject with any other error', async () => {
    const failure = new ApiError('unavailable', 'list slices: 503', { status: 503 });
    const rejected = await list(() => failure).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(rejected).to.equal(failure);
  });

  it('send no version with a continue token', async () => {
    const requests: ListOptions[] = [];
    const selected = selecting(
      source<SliceObject>(() => [], requests),
      { labelSelector: 'a=b', fieldSelector: 'c=d' },
      '7',
    );
    await selected.list({ limit: 1 });
    await selected.list({ limit: 1, continueToken: 't' });
    expect(requests).to.deep.equal([
      { limit: 1, labelSelector: 'a=b', fieldSelector: 'c=d', atVersion: '7' },
      { limit: 1, continueToken: 't', labelSelector: 'a=b', fieldSelector: 'c=d' },
    ]);
  });
});
