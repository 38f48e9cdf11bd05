import { findForbiddenCharacter, exceedsLength } from './text.ts';

/** Why a part of a report is refused; also the `reason` label of the metrics, so the set is closed. */
export type ViolationReason =
  | 'missing'
  | 'empty'
  | 'too_long'
  | 'forbidden_character'
  | 'negative'
  | 'changed'
  /** It is right in itself, and no ReverseTunnelPolicy allows it. */
  | 'policy';

/** One thing wrong with a report: where, what, and what would have been right. */
export interface Violation {
  /** Path in the wire's own words, as `added_tunnels[3].identity.tenant_id`. */
  readonly field: string;
  readonly reason: ViolationReason;
  /** One sentence that names field, value (cut) and limit; holds no control characters. */
  readonly message: string;
}

/** A tunnel name's greatest length in code points. Envoy's own names have at most 257 (`tenant:node`). */
export const MAX_TUNNEL_NAME = 512;
/** The wire contract's limit for each part of an identity, without the tenant scope, in code points. */
export const MAX_IDENTITY_PART = 128;
/** A reporter's node.id and node.cluster, each, in code points. */
export const MAX_REPORTER_PART = 256;

/** What is wrong with a required text of 1 to `limit` code points, or undefined. */
export function textViolation(field: string, value: string, limit: number): Violation | undefined {
  if (value === '') return { field, reason: 'empty', message: `${field}: must not be empty` };
  return optionalTextViolation(field, value, limit);
}

/** As textViolation, for a text that may be empty. */
export function optionalTextViolation(field: string, value: string, limit: number): Violation | undefined {
  if (exceedsLength(value, limit)) {
    return {
      field,
      reason: 'too_long',
      // Not how long it is: counting what one message can hold would hold up everybody for a second.
      message: `${field}: ${quote(value)} exceeds ${limit} characters`,
    };
  }
  const character = findForbiddenCharacter(value);
  if (character !== undefined) {
    return {
      field,
      reason: 'forbidden_character',
      message: `${field}: ${quote(value)} contains ${character}; control characters and direction overrides are not allowed`,
    };
  }
  return undefined;
}

/** A reported value, quoted for a message: escaped, and cut at 64 characters so that no peer can fill the log. */
export function quote(value: string): string {
  const truncated = value.length > 64 ? `${value.slice(0, 64).toWellFormed()}…` : value;
  return JSON.stringify(truncated).replace(
    /[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
