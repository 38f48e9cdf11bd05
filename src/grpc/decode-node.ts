import protobuf from 'protobufjs/minimal.js';
import type { NodeMessage } from './messages.ts';
import { readFieldEnd, readFields, readString, tag, type Reader } from './wire-reader.ts';

const NODE = {
  id: tag(1),
  cluster: tag(2),
  locality: tag(4),
  userAgentVersion: tag(7),
  userAgentBuildVersion: tag(8),
};
const LOCALITY = { region: tag(1), zone: tag(2), subZone: tag(3) };
const BUILD_VERSION = { version: tag(1) };
const SEMANTIC_VERSION = { majorNumber: tag(1, 0), minorNumber: tag(2, 0), patch: tag(3, 0) };

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };
type Locality = Mutable<NonNullable<NodeMessage['locality']>>;
type Version = Mutable<NonNullable<NonNullable<NodeMessage['user_agent_build_version']>['version']>>;

/**
 * Decodes the fields of an envoy.config.core.v3.Node that `proto/` declares. Follows protobuf's rules: unknown fields
 * are skipped, the last of several equal fields counts, messages are merged.
 *
 * @throws Error if the bytes are not a Node
 */
export function decodeNode(bytes: Uint8Array): NodeMessage {
  const reader = protobuf.Reader.create(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  const node: Mutable<NodeMessage> = {};
  readFields(reader, reader.len, (field) => {
    switch (field) {
      case NODE.id:
        node.id = readString(reader, reader.len);
        return true;
      case NODE.cluster:
        node.cluster = readString(reader, reader.len);
        return true;
      case NODE.locality:
        node.locality = readLocality(reader, { ...node.locality });
        return true;
      // The last two are a oneof.
      case NODE.userAgentVersion:
        node.user_agent_version = readString(reader, reader.len);
        delete node.user_agent_build_version;
        return true;
      case NODE.userAgentBuildVersion:
        node.user_agent_build_version = readBuildVersion(reader, node.user_agent_build_version?.version);
        delete node.user_agent_version;
        return true;
      default:
        return false;
    }
  });
  return node;
}

function readLocality(reader: Reader, locality: Locality): Locality {
  const end = readFieldEnd(reader, reader.len);
  readFields(reader, end, (field) => {
    if (field === LOCALITY.region) locality.region = readString(reader, end);
    else if (field === LOCALITY.zone) locality.zone = readString(reader, end);
    else if (field === LOCALITY.subZone) locality.sub_zone = readString(reader, end);
    else return false;
    return true;
  });
  return locality;
}

function readBuildVersion(reader: Reader, known: Version | undefined): { readonly version?: Version } {
  const end = readFieldEnd(reader, reader.len);
  let version = known;
  readFields(reader, end, (field) => {
    if (field !== BUILD_VERSION.version) return false;
    version = readSemanticVersion(reader, end, { ...version });
    return true;
  });
  return version === undefined ? {} : { version };
}

function readSemanticVersion(reader: Reader, limit: number, version: Version): Version {
  readFields(reader, readFieldEnd(reader, limit), (field) => {
    if (field === SEMANTIC_VERSION.majorNumber) version.major_number = reader.uint32();
    else if (field === SEMANTIC_VERSION.minorNumber) version.minor_number = reader.uint32();
    else if (field === SEMANTIC_VERSION.patch) version.patch = reader.uint32();
    else return false;
    return true;
  });
  return version;
}
