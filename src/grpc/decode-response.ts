import protobuf from 'protobufjs/minimal.js';
import type { DurationMessage, ReportResponse } from './messages.ts';
import { asBigInt, int64, readFieldEnd, readFields, readString, tag, type Reader } from './wire-reader.ts';

const RESPONSE = { nodeID: tag(1), reportInterval: tag(2), requestNonce: tag(3, 0), errorDetail: tag(4) };
const DURATION = { seconds: tag(1, 0), nanos: tag(2, 0) };
const STATUS = { code: tag(1, 0), message: tag(2) };

/**
 * Decodes a StreamReverseTunnelsResponse, as a reporter receives it. Fields that the server omitted are missing. Follows
 * protobuf's rules, as `decodeNode` does.
 *
 * @throws Error if the bytes are not a response
 */
export function decodeResponse(bytes: Buffer): Partial<ReportResponse> {
  const reader = protobuf.Reader.create(bytes);
  const response: { -readonly [Key in keyof ReportResponse]?: ReportResponse[Key] } = {};
  readFields(reader, reader.len, (field) => {
    switch (field) {
      case RESPONSE.nodeID:
        response.node_id = readString(reader, reader.len);
        return true;
      case RESPONSE.reportInterval:
        response.report_interval = readDuration(reader, response.report_interval);
        return true;
      case RESPONSE.requestNonce:
        response.request_nonce = readInt64(reader);
        return true;
      case RESPONSE.errorDetail:
        response.error_detail = readStatus(reader, response.error_detail);
        return true;
      default:
        return false;
    }
  });
  return response;
}

function readDuration(reader: Reader, known: ReportResponse['report_interval']): DurationMessage {
  const duration: { -readonly [Key in keyof DurationMessage]: DurationMessage[Key] } = {
    seconds: known?.seconds ?? '0',
    nanos: known?.nanos ?? 0,
  };
  readFields(reader, readFieldEnd(reader, reader.len), (field) => {
    if (field === DURATION.seconds) duration.seconds = readInt64(reader);
    else if (field === DURATION.nanos) duration.nanos = reader.int32();
    else return false;
    return true;
  });
  return duration;
}

function readStatus(
  reader: Reader,
  known: ReportResponse['error_detail'],
): NonNullable<ReportResponse['error_detail']> {
  const end = readFieldEnd(reader, reader.len);
  let { code = 0, message = '' } = known ?? {};
  readFields(reader, end, (field) => {
    if (field === STATUS.code) code = reader.int32();
    else if (field === STATUS.message) message = readString(reader, end);
    else return false;
    return true;
  });
  return { code, message };
}

/** Reads an int64 as decimal text. */
function readInt64(reader: Reader): string {
  return String(asBigInt(int64(reader)));
}
