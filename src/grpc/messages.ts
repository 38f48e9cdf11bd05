/** The messages of `proto/`, other than reports. */

/** google.protobuf.Duration. */
export interface DurationMessage {
  readonly seconds: number | string;
  readonly nanos: number;
}

/** StreamReverseTunnelsResponse: an ACK, or a NACK if `error_detail` is set. */
export interface ReportResponse {
  readonly node_id: string;
  readonly report_interval?: DurationMessage;
  /** An int64 as decimal text: a number would lose digits beyond 2^53. */
  readonly request_nonce: string;
  readonly error_detail?: { readonly code: number; readonly message: string };
}

/** The fields of envoy.config.core.v3.Node that proto/ declares. Omitted fields are undefined. */
export interface NodeMessage {
  readonly id?: string;
  readonly cluster?: string;
  readonly locality?: { readonly region?: string; readonly zone?: string; readonly sub_zone?: string };
  readonly user_agent_version?: string;
  readonly user_agent_build_version?: {
    readonly version?: {
      readonly major_number?: number;
      readonly minor_number?: number;
      readonly patch?: number;
    };
  };
}
