import { expect } from 'chai';
import { service } from 'grpc-health-check';
import { HEALTH_SERVICE } from '../../src/grpc/health-service.ts';

/** The library's definition, which is loaded from the .proto of grpc.health.v1. */
const LIBRARY = service as unknown as Record<
  string,
  (typeof HEALTH_SERVICE)['Check'] & { responseDeserialize(bytes: Buffer): unknown }
>;

describe('HEALTH_SERVICE', () => {
  for (const [name, method] of Object.entries(HEALTH_SERVICE)) {
    it(`has the path and the kind of ${name} of the .proto`, () => {
      const { path, requestStream, responseStream } = method;
      expect(LIBRARY[name]).to.include({ path, requestStream, responseStream });
    });
  }

  for (const name of ['Check', 'Watch'] as const) {
    const { requestDeserialize, requestSerialize, responseSerialize, responseDeserialize } =
      HEALTH_SERVICE[name];

    it(`encodes and decodes the messages of ${name} as the .proto does`, () => {
      const library = LIBRARY[name];
      for (const request of [{ service: '' }, { service: 'a.Service' }, { service: '\u{1f600}' }]) {
        expect(library?.requestDeserialize(requestSerialize(request))).to.deep.equal(request);
        expect(requestDeserialize(library?.requestSerialize(request) ?? Buffer.alloc(0))).to.deep.equal(
          request,
        );
      }
      for (const status of ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'] as const) {
        expect(library?.responseDeserialize(responseSerialize({ status }))).to.deep.equal({ status });
        expect(responseDeserialize(library?.responseSerialize({ status }) ?? Buffer.alloc(0))).to.deep.equal({
          status,
        });
      }
    });
  }

  it('encodes the list of services as the .proto does', () => {
    const bytes = HEALTH_SERVICE.List.responseSerialize(
      new Map([
        ['', 'SERVING'],
        ['a.Service', 'NOT_SERVING'],
      ]),
    );
    expect(LIBRARY['List']?.responseDeserialize(bytes)).to.deep.equal({
      statuses: { '': { status: 'SERVING' }, 'a.Service': { status: 'NOT_SERVING' } },
    });
  });
});
