import { fileURLToPath } from 'node:url';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { decodeNode } from '../../src/grpc/decode-node.ts';
import { text } from '../support/wire-writer.ts';

const definitions = loadSync('envoy/config/core/v3/base.proto', {
  includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
  keepCase: true,
});
const type = definitions['envoy.config.core.v3.Node'] as MessageTypeDefinition<object, object>;

const word = fc.string({ unit: 'grapheme', maxLength: 300 });
const version = fc.record(
  { major_number: fc.nat(), minor_number: fc.nat(), patch: fc.nat() },
  { requiredKeys: [] },
);
const fields = {
  id: word,
  cluster: word,
  locality: fc.record({ region: word, zone: word, sub_zone: word }, { requiredKeys: [] }),
};
const node = fc.oneof(
  fc.record({ ...fields, user_agent_version: word }, { requiredKeys: [] }),
  fc.record(
    { ...fields, user_agent_build_version: fc.record({ version }, { requiredKeys: [] }) },
    { requiredKeys: [] },
  ),
);

describe('decodeNode', () => {
  it('reads what the .proto writes, for any node', () => {
    fc.assert(
      fc.property(node, (sent) => {
        expect(decodeNode(type.serialize(sent))).to.deep.equal(sent);
      }),
    );
  });

  it('skips fields that it does not know', () => {
    expect(decodeNode(Buffer.concat([text(3, 'metadata'), text(1, 'r-0'), text(99, 'x')]))).to.deep.equal({
      id: 'r-0',
    });
  });

  it('keeps the last of several values and of a oneof, and merges messages', () => {
    const bytes = [
      { id: 'a', locality: { region: 'eu' }, user_agent_version: 'custom' },
      {
        id: 'b',
        locality: { zone: 'eu-1' },
        user_agent_build_version: { version: { major_number: 1 } },
      },
      { user_agent_build_version: { version: { minor_number: 38 } } },
    ].map((part) => type.serialize(part));
    expect(decodeNode(Buffer.concat(bytes))).to.deep.equal({
      id: 'b',
      locality: { region: 'eu', zone: 'eu-1' },
      user_agent_build_version: { version: { major_number: 1, minor_number: 38 } },
    });
  });

  it('rejects any node that ends too early', () => {
    fc.assert(
      fc.property(word, fc.nat(), (id, cut) => {
        const bytes = type.serialize({ id, locality: { region: `${id}x` } });
        const end =
          type.serialize({ id }).length + 1 + (cut % (bytes.length - type.serialize({ id }).length - 1));
        expect(() => decodeNode(bytes.subarray(0, end))).to.throw();
      }),
    );
  });
});
