import { expect } from 'chai';
import { sliceManifest, type SliceObject } from '../../src/core/slice-object.ts';
import { manifestFor, type TunnelObject } from '../../src/core/tunnel-object.ts';
import { readNamedTunnels, type NamedTunnels } from '../../src/get/named-tunnels.ts';
import { readTunnelNames } from '../../src/get/tunnel-names.ts';
import { ApiError } from '../../src/k8s/api-error.ts';
import type { ListOptions } from '../../src/k8s/resource-client.ts';
import { names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const SIGNAL = new AbortController().signal;

const nameOf = (tunnelName: string): string => names.tunnelObjectName(RESPONDER, tunnel(tunnelName));

function object(tunnelName: string): TunnelObject {
  const { name, labels, spec } = manifestFor(names, RESPONDER, tunnel(tunnelName));
  return { metadata: { name, uid: 'u', resourceVersion: '1', labels }, spec };
}

function slice(ordinal: number, ...tunnelNames: string[]): SliceObject {
  const entries = tunnelNames.map((name) => tunnel(name));
  const { name, labels, spec } = sliceManifest(names, RESPONDER, 'acme', ordinal, entries);
  return { metadata: { name, uid: 's', resourceVersion: '1', labels }, spec };
}

/** An API server whose objects may change when its slices are listed. */
function createApi(objects: TunnelObject[], pages: readonly (SliceObject[] | ApiError)[]) {
  const requests: string[] = [];
  return {
    requests,
    whenSlicesAreListed: () => {},
    async read(...wanted: string[]): Promise<NamedTunnels<string>> {
      const sources = {
        names,
        objects: {
          async get(name: string): Promise<TunnelObject> {
            requests.push(`get ${name}`);
            const stored = objects.find(({ metadata }) => metadata.name === name);
            if (stored === undefined) throw new ApiError('not_found', `get ${name}: 404`, { status: 404 });
            return stored;
          },
        },
        slices: {
          title: 'slices',
          list: async ({ continueToken = '0', signal }: ListOptions = {}) => {
            requests.push(`list ${continueToken}`);
            this.whenSlicesAreListed();
            await Promise.resolve();
            if (signal?.aborted === true) throw new ApiError('cancelled', 'list: cancelled');
            const index = Number(continueToken);
            const items = pages[index] ?? [];
            if (items instanceof ApiError) throw items;
            const isLast = index + 1 >= pages.length;
            return { items, resourceVersion: '7', continueToken: isLast ? undefined : String(index + 1) };
          },
        },
        project: ({ metadata, spec }: { metadata: { annotations?: object }; spec: { tunnelName: string } }) =>
          `${metadata.annotations === undefined ? 'object' : 'entry'} ${spec.tunnelName}`,
        signal: SIGNAL,
      };
      return await readNamedTunnels(sources, wanted);
    },
  };
}

describe('tunnels of rt get by name', () => {
  it('are read from objects without a list of slices', async () => {
    const api = createApi([object('a'), object('b')], [[slice(0, 'a')]]);
    const { found } = await api.read(nameOf('b'), nameOf('a'));
    expect([...found]).to.deep.equal([
      [nameOf('b'), 'object b'],
      [nameOf('a'), 'object a'],
    ]);
    expect(api.requests).to.deep.equal([`get ${nameOf('b')}`, `get ${nameOf('a')}`]);
  });

  it('are entries of slices where there is no object, until the last one is found', async () => {
    const api = createApi([object('a')], [[slice(0, 'x', 'b')], [slice(1, 'c')], [slice(2, 'd')], []]);
    const { found } = await api.read(nameOf('a'), nameOf('b'), nameOf('c'));
    expect([...found.values()]).to.deep.equal(['object a', 'entry b', 'entry c']);
    // A page is requested while the one before is read.
    expect(api.requests.filter((request) => request.startsWith('list'))).to.deep.equal([
      'list 0',
      'list 1',
      'list 2',
    ]);
  });

  it('are missing if they are in neither form', async () => {
    const api = createApi([object('a')], [[slice(0, 'b')]]);
    expect((await api.read('a', 'absent')).found).to.deep.equal(new Map());
  });

  it('are found while an entry becomes an object', async () => {
    const objects: TunnelObject[] = [];
    const api = createApi(objects, [[]]);
    api.whenSlicesAreListed = () => void objects.push(object('a'));
    expect((await api.read(nameOf('a'))).found.get(nameOf('a'))).to.equal('object a');
  });

  it('cannot have a name that no object can have, and such a name is not requested', async () => {
    const api = createApi([], []);
    expect((await api.read('..', 'A', 'a%2Fb', '-')).found.size).to.equal(0);
    expect(api.requests).to.deep.equal([]);
  });

  it('are those with objects where slices are not installed or must not be listed, with the error of the latter', async () => {
    const forbidden = new ApiError('rejected', 'list: 403 Forbidden', { status: 403 });
    const missing = new ApiError('no_kind_match', 'list: 404', { status: 404 });
    for (const error of [forbidden, missing]) {
      const { found, unavailable } = await createApi([object('a')], [error]).read(nameOf('a'), nameOf('b'));
      expect([...found.values()]).to.deep.equal(['object a']);
      expect(unavailable).to.equal(error === forbidden ? forbidden : undefined);
    }
  });

  it('reject with any other error', async () => {
    const failure = new ApiError('unavailable', 'list: 503', { status: 503 });
    const rejected = await createApi([], [failure])
      .read(nameOf('a'))
      .then(
        () => undefined,
        (error: unknown) => error,
      );
    expect(rejected).to.equal(failure);
  });
});

describe('names of tunnels on a command line', () => {
  for (const [operands, expected] of [
    [[], []],
    [
      ['b', 'a', 'b'],
      ['b', 'a', 'b'],
    ],
    [
      ['rt/a', 'reversetunnel/b', 'reversetunnels/c', 'ReverseTunnel/d'],
      ['a', 'b', 'c', 'd'],
    ],
    [
      ['reversetunnel.reverse-tunnel.io/a', 'reversetunnels.v1alpha1.reverse-tunnel.io/b'],
      ['a', 'b'],
    ],
  ] as const) {
    it(`${JSON.stringify(operands)} are [${expected.join(', ')}]`, () => {
      expect(readTunnelNames(operands)).to.deep.equal({ names: expected });
    });
  }

  for (const operand of ['', 'rt/', '/a', 'rt/a/b', 'rts/a', 'reversetunnel.example.org/a']) {
    it(`${JSON.stringify(operand)} is rejected`, () => {
      const parsed = readTunnelNames(['a', operand]);
      expect('errors' in parsed ? parsed.errors : []).to.have.length(1);
    });
  }
});
