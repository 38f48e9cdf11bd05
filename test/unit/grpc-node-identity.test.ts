import { expect } from 'chai';
import { MalformedReportError } from '../../src/grpc/decode.ts';
import { envoyMetadata, NodeIdentity } from '../../src/grpc/node-identity.ts';
import type { NodeMessage } from '../../src/grpc/messages.ts';
import { decodeNode } from '../../src/grpc/decode-node.ts';
import { text } from '../support/wire-writer.ts';

/** Encodes a Node. */
function node(id: string, cluster: string): Buffer {
  return Buffer.concat([text(1, id), text(2, cluster)]);
}

describe('NodeIdentity', () => {
  let decoded: number;
  let identity: NodeIdentity;

  beforeEach(() => {
    decoded = 0;
    identity = new NodeIdentity((bytes): NodeMessage => {
      decoded += 1;
      return decodeNode(bytes);
    });
  });

  it('requires a node until the reporter is identified', () => {
    expect(identity.check(undefined)).to.include({ field: 'node', reason: 'missing' });
    expect(identity.check(node('r-0', 'edge'))).to.equal(undefined);
    expect(identity.reporter).to.deep.equal({ id: 'r-0', cluster: 'edge' });
    expect(identity.check(undefined)).to.equal(undefined);
  });

  it('is not identified by an invalid node', () => {
    expect(identity.check(node('', 'edge'))).to.include({ field: 'node.id', reason: 'empty' });
    expect(identity.reporter).to.equal(undefined);
  });

  it('rejects a different ID or cluster, and keeps the first reporter', () => {
    identity.check(node('r-0', 'edge'));
    expect(identity.check(node('r-1', 'edge'))).to.include({ field: 'node.id', reason: 'changed' });
    expect(identity.check(node('r-0', 'core'))).to.include({ field: 'node.cluster', reason: 'changed' });
    expect(identity.reporter).to.deep.equal({ id: 'r-0', cluster: 'edge' });
  });

  it('decodes a small node only once, whatever happens to the buffer of the first report', () => {
    const first = node('r-0', 'edge');
    identity.check(first);
    first.fill(0);
    expect(identity.check(node('r-0', 'edge'))).to.equal(undefined);
    expect(decoded).to.equal(1);
  });

  it('decodes a node of more than 1 KiB with each report', () => {
    const large = Buffer.concat([node('r-0', 'edge'), text(99, 'x'.repeat(1024))]);
    identity.check(large);
    expect(identity.check(large)).to.equal(undefined);
    expect(decoded).to.equal(2);
  });

  it('throws MalformedReportError for bytes that are not a Node', () => {
    expect(() => identity.check(Buffer.from([0x22, 0x7f]))).to.throw(
      MalformedReportError,
      /^node: cannot decode Node: /,
    );
  });
});

describe('envoyMetadata', () => {
  it('prefers the build version to the user agent version', () => {
    const built = { user_agent_build_version: { version: { major_number: 1, minor_number: 38 } } };
    expect(envoyMetadata({ ...built, user_agent_version: 'custom' }).version).to.equal('1.38.0');
    expect(envoyMetadata({ user_agent_version: 'custom' }).version).to.equal('custom');
    expect(envoyMetadata({}).version).to.equal(undefined);
  });

  it('contains the reported parts of the locality', () => {
    expect(envoyMetadata({ locality: { region: 'eu', sub_zone: 'rack-1' } }).locality).to.deep.equal({
      region: 'eu',
      subZone: 'rack-1',
    });
    expect(envoyMetadata({ locality: { region: '', zone: '' } }).locality).to.equal(undefined);
  });

  it('truncates and sanitizes text that the API server would reject', () => {
    const { version, locality } = envoyMetadata({
      user_agent_version: `\u202e${'x'.repeat(300)}`,
      locality: { zone: 'a\u0000b' },
    });
    expect(version)
      .to.match(/^\?x+…$/)
      .and.have.length(256);
    expect(locality).to.deep.equal({ zone: 'a?b' });
  });
});
