/**
 * The `maxRetries` of fleets whose streams must not end by themselves: the reports without an ACK after which a client
 * gives up. With Envoy's default of 5, it does so after half a second at an interval of 100 ms, for which a busy machine
 * may stop an operator; with this one, after 5 s at the shortest interval.
 */
export const PATIENT_MAX_RETRIES = 200;
