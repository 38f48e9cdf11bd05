import type { MethodDefinition } from '@grpc/grpc-js';
import protobuf from 'protobufjs/minimal.js';
import { readFields, readString, tag } from './wire-reader.ts';

/** grpc.health.v1.HealthCheckResponse.ServingStatus, at the index of its number. */
const SERVING_STATUSES = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'] as const;

export type ServingStatus = (typeof SERVING_STATUSES)[number];

export interface HealthRequest {
  /** The full name of a service; '' is the whole server. */
  readonly service: string;
}
export interface HealthResponse {
  readonly status: ServingStatus;
}
/** The status of each service. */
export type HealthList = ReadonlyMap<string, ServingStatus>;

const REQUEST = { service: tag(1) };
const RESPONSE = { status: tag(1, 0) };
const LIST = { statuses: tag(1) };
const ENTRY = { key: tag(1), value: tag(2) };

/**
 * grpc.health.v1.Health in the form that grpc-js needs: checks and watches for both sides, and the list for servers.
 * Written out for the same reason as the reporting service.
 */
export const HEALTH_SERVICE: {
  readonly Check: MethodDefinition<HealthRequest, HealthResponse>;
  readonly Watch: MethodDefinition<HealthRequest, HealthResponse>;
  readonly List: MethodDefinition<object, HealthList>;
} = {
  Check: {
    path: '/grpc.health.v1.Health/Check',
    requestStream: false,
    responseStream: false,
    requestSerialize: encodeRequest,
    requestDeserialize: decodeRequest,
    responseSerialize: encodeResponse,
    responseDeserialize: decodeResponse,
  },
  Watch: {
    path: '/grpc.health.v1.Health/Watch',
    requestStream: false,
    responseStream: true,
    requestSerialize: encodeRequest,
    requestDeserialize: decodeRequest,
    responseSerialize: encodeResponse,
    responseDeserialize: decodeResponse,
  },
  List: {
    path: '/grpc.health.v1.Health/List',
    requestStream: false,
    responseStream: false,
    requestSerialize: () => Buffer.alloc(0),
    requestDeserialize: () => ({}),
    responseSerialize: encodeList,
    responseDeserialize: () => new Map(),
  },
};

function encodeRequest({ service }: HealthRequest): Buffer {
  return Buffer.from(protobuf.Writer.create().uint32(REQUEST.service).string(service).finish());
}

function decodeRequest(bytes: Buffer): HealthRequest {
  const reader = protobuf.Reader.create(bytes);
  let service = '';
  readFields(reader, reader.len, (field) => {
    if (field !== REQUEST.service) return false;
    service = readString(reader, reader.len);
    return true;
  });
  return { service };
}

function encodeResponse({ status }: HealthResponse): Buffer {
  const number = SERVING_STATUSES.indexOf(status);
  return Buffer.from(protobuf.Writer.create().uint32(RESPONSE.status).int32(number).finish());
}

function decodeResponse(bytes: Buffer): HealthResponse {
  const reader = protobuf.Reader.create(bytes);
  let number = 0;
  readFields(reader, reader.len, (field) => {
    if (field !== RESPONSE.status) return false;
    number = reader.int32();
    return true;
  });
  return { status: SERVING_STATUSES[number] ?? 'UNKNOWN' };
}

function encodeList(statuses: HealthList): Buffer {
  const writer = protobuf.Writer.create();
  for (const [service, status] of statuses) {
    writer.uint32(LIST.statuses).fork();
    writer.uint32(ENTRY.key).string(service).uint32(ENTRY.value).bytes(encodeResponse({ status })).ldelim();
  }
  return Buffer.from(writer.finish());
}
