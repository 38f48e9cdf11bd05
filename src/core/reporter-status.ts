import type { FlappingSummary } from './flapping-tunnels.ts';
import { buildCondition, type ConditionContent } from './kubernetes.ts';
import type {
  Locality,
  ReporterDisconnect,
  ReporterStatus,
  ReporterStatusPatch,
  TunnelCounts,
} from './reporter-object.ts';
import type { RewrittenField } from './rewrite.ts';
import { quote, sanitize } from './text.ts';

/** What an owner knows about its reporter. The status is derived from nothing else. */
export interface StatusInputs {
  /** `StreamOpen`, or the reason why there is no stream. */
  readonly connected: 'StreamOpen' | ReporterDisconnectReason;
  readonly synced: SyncStatus;
  /** True while two Envoys appear to report with this ID. */
  readonly conflict: boolean;
  /** Tunnels whose writes are limited because they come and go; undefined: none. */
  readonly flapping: FlappingSummary | undefined;
  /** When the current stream sent its first report; undefined without a stream. */
  readonly connectedSince: string | undefined;
  /** The fields below are undefined if this owner does not know them; the status then keeps their values. */
  readonly lastFullPush: { readonly time: string; readonly tunnels: number } | undefined;
  readonly tunnels: TunnelCounts | undefined;
  readonly reportIntervalSeconds: number | undefined;
  readonly envoy: EnvoyMetadata | undefined;
  /** Ends of streams that the status may not contain yet. They are written with the next change, and cause no write. */
  readonly disconnects: readonly ReporterDisconnect[];
}

/**
 * Why a reporter has no stream: the stream ended, no report arrived within the heartbeat timeout, no policy allows the
 * reporter any longer, or the replica that held the stream has stopped.
 */
export type ReporterDisconnectReason = 'StreamEnded' | 'HeartbeatTimeout' | 'PolicyDenied' | 'OwnerLost';

/** How the objects of a connected reporter compare with its reports. */
export type SyncStatus =
  | { readonly reason: 'UpToDate' | 'SyncInProgress' | 'AwaitingFullPush' }
  /** The number of objects that the API server rejects, and its response to the last of these writes. */
  | { readonly reason: 'WritesRejected'; readonly objects: number; readonly answer: string }
  /** Objects that the last full push lacks are kept until a time, RFC 3339. */
  | { readonly reason: 'RemovalsHeld'; readonly objects: number; readonly until: string }
  /** What admission rewrites. */
  | ({ readonly reason: 'RewrittenByAdmission' } & RewrittenObjectsSummary)
  /** The number of rejected tunnels, and the error of the first. */
  | { readonly reason: 'TunnelsRejected'; readonly tunnels: number; readonly first: string };

/** Objects that admission stores with other values than those that were written, and the first of them. */
export interface RewrittenObjectsSummary extends RewrittenField {
  /** The number of ReverseTunnel objects; 0 if only the reporter object is rewritten. */
  readonly objects: number;
  readonly objectName: string;
}

/** What a reporter reports about itself in addition to its identity. */
export interface EnvoyMetadata {
  /** Such as 1.40.0; undefined if not reported. */
  readonly version: string | undefined;
  readonly locality: Locality | undefined;
}

/** How a status differs: a condition has changed, or only counts or messages, whose write can wait. */
export type StatusChange = 'none' | 'counts' | 'conditions';

/** The spec of a reporter object never changes. */
const OBSERVED_GENERATION = 1;
/** Ends of streams that a status keeps, as in the schema of the CRD. */
export const MAX_RECENT_DISCONNECTS = 10;
/** The API server accepts up to 4,096. */
const MAX_MESSAGE_LENGTH = 1000;

/**
 * Returns the status for the inputs as a merge patch.
 *
 * @param before the current status
 * @param now RFC 3339 with a precision of seconds
 */
export function statusPatch(
  inputs: StatusInputs,
  before: ReporterStatus | undefined,
  now: string,
): ReporterStatusPatch {
  const { lastFullPush, tunnels, reportIntervalSeconds, envoy } = inputs;
  return {
    connectedSince: inputs.connectedSince ?? null,
    ...(lastFullPush === undefined ? {} : { lastFullPush }),
    ...(tunnels === undefined ? {} : { tunnels }),
    ...(reportIntervalSeconds === undefined ? {} : { reportIntervalSeconds }),
    ...(envoy === undefined
      ? {}
      : { envoyVersion: envoy.version ?? null, locality: localityPatch(envoy.locality, before?.locality) }),
    ...(inputs.disconnects.length === 0
      ? {}
      : { recentDisconnects: addDisconnects(inputs.disconnects, before?.recentDisconnects ?? []) }),
    observedGeneration: OBSERVED_GENERATION,
    conditions: conditionContents(inputs).map((content) =>
      buildCondition(content, before?.conditions, now, OBSERVED_GENERATION),
    ),
  };
}

/**
 * Adds ends of streams to those of the status; the newest come first. One that the status contains already, because the
 * response to its write was lost, is not added again.
 */
function addDisconnects(
  added: readonly ReporterDisconnect[],
  before: readonly ReporterDisconnect[],
): ReporterDisconnect[] {
  const isKnown = ({ time, reason }: ReporterDisconnect): boolean =>
    before.some((known) => known.time === time && known.reason === reason);
  const all = [...added.filter((disconnect) => !isKnown(disconnect)), ...before];
  return all
    .toSorted((a, b) => (a.time < b.time ? 1 : a.time > b.time ? -1 : 0))
    .slice(0, MAX_RECENT_DISCONNECTS);
}

/** Returns how the current status differs from the status for the inputs. */
export function statusChange(inputs: StatusInputs, before: ReporterStatus | undefined): StatusChange {
  const desired = conditionContents(inputs);
  const current = before?.conditions ?? [];
  const sameConditions = desired.every((content, index) => {
    const existing = current[index];
    return (
      existing?.type === content.type &&
      existing.status === content.status &&
      existing.reason === content.reason
    );
  });
  if (!sameConditions || current.length !== desired.length) return 'conditions';
  const { lastFullPush, tunnels, reportIntervalSeconds } = inputs;
  const sameCounts =
    (tunnels === undefined ||
      (tunnels.reported === before?.tunnels?.reported &&
        tunnels.applied === before.tunnels.applied &&
        tunnels.rejected === before.tunnels.rejected)) &&
    (lastFullPush === undefined || lastFullPush.tunnels === before?.lastFullPush?.tunnels) &&
    (reportIntervalSeconds === undefined || reportIntervalSeconds === before?.reportIntervalSeconds) &&
    desired.every(({ message }, index) => current[index]?.message === message);
  return sameCounts ? 'none' : 'counts';
}

function conditionContents(inputs: StatusInputs): ConditionContent[] {
  const connected = connectedContent(inputs.connected);
  const synced = syncedContent(inputs);
  const contents = [connected, synced, readyContent(connected, synced)];
  if (inputs.conflict) {
    contents.push({
      type: 'IdentityConflict',
      status: 'True',
      reason: 'DuplicateReporterID',
      message:
        'two Envoys appear to report under this node.cluster and node.id; give each Envoy a unique node.id',
    });
  }
  if (inputs.flapping !== undefined) {
    contents.push({
      type: 'Flapping',
      status: 'True',
      reason: 'TunnelsFlapping',
      message: flappingMessage(inputs.flapping),
    });
  }
  return contents;
}

/** Returns one line about flapping tunnels, for the condition and the Event. */
export function flappingMessage({ tunnels, worst }: FlappingSummary): string {
  const noun = tunnels === 1 ? 'tunnel has' : 'tunnels have';
  return sanitize(
    `${tunnels} ${noun} gone down more than 6 times within 10 minutes; ReverseTunnel objects of such tunnels are ` +
      `written at most every 30 s; worst: ${worst.map((name) => quote(name)).join(', ')}`,
    MAX_MESSAGE_LENGTH,
  );
}

function connectedContent(reason: StatusInputs['connected']): ConditionContent {
  const message = {
    StreamOpen: '',
    StreamEnded: 'the stream was closed',
    HeartbeatTimeout: 'no report was received within the heartbeat timeout',
    PolicyDenied: 'no ReverseTunnelPolicy allows this reporter for its peer',
    OwnerLost: 'the replica that held the stream has stopped',
  }[reason];
  return { type: 'Connected', status: reason === 'StreamOpen' ? 'True' : 'False', reason, message };
}

function syncedContent({ connected, synced }: StatusInputs): ConditionContent {
  const type = 'Synced';
  if (connected !== 'StreamOpen') {
    return { type, status: 'Unknown', reason: 'NotConnected', message: 'the reporter is not connected' };
  }
  const { reason } = synced;
  switch (reason) {
    case 'UpToDate':
      return { type, status: 'True', reason, message: '' };
    case 'SyncInProgress':
      return { type, status: 'False', reason, message: 'ReverseTunnel objects are being written' };
    case 'AwaitingFullPush':
      return { type, status: 'Unknown', reason, message: 'no full push received on this stream' };
    case 'WritesRejected':
      return {
        type,
        status: 'False',
        reason,
        message: sanitize(
          `the API server rejected writes of ${synced.objects} ReverseTunnel objects: ${synced.answer}`,
          MAX_MESSAGE_LENGTH,
        ),
      };
    case 'RewrittenByAdmission':
      return { type, status: 'False', reason, message: rewrittenMessage(synced) };
    case 'RemovalsHeld':
      return {
        type,
        status: 'False',
        reason,
        message: `${synced.objects} ReverseTunnel objects that the last full push lacks are kept until ${synced.until}, unless their tunnels return`,
      };
    case 'TunnelsRejected':
      return {
        type,
        status: 'False',
        reason,
        message: sanitize(`${synced.tunnels} tunnels were rejected: ${synced.first}`, MAX_MESSAGE_LENGTH),
      };
  }
}

/** Returns one line with the first rewritten field, for the condition and the Event. */
export function rewrittenMessage(rewritten: RewrittenObjectsSummary): string {
  const { objects, objectName, field, desired, stored } = rewritten;
  const what =
    objects === 0
      ? 'this object'
      : `${objects} ReverseTunnel ${objects === 1 ? 'object' : 'objects'}, such as ${objectName}`;
  return sanitize(
    `a mutating admission webhook or policy rewrites ${what}: ${field}: ${desired} was written, ${stored} was stored; ` +
      'retried every 5 minutes',
    MAX_MESSAGE_LENGTH,
  );
}

function readyContent(connected: ConditionContent, synced: ConditionContent): ConditionContent {
  const type = 'Ready';
  if (connected.status !== 'True')
    return { type, status: 'False', reason: 'NotConnected', message: connected.message };
  if (synced.status === 'True') return { type, status: 'True', reason: 'Synced', message: '' };
  return synced.status === 'False'
    ? { type, status: 'False', reason: 'NotSynced', message: synced.message }
    : { type, status: 'Unknown', reason: 'AwaitingFullPush', message: synced.message };
}

/** A merge patch keeps fields that it does not name, so parts that are no longer reported are set to null. */
function localityPatch(locality: Locality | undefined, before: Locality | undefined): Locality | null {
  if (locality === undefined) return null;
  const removed = Object.keys(before ?? {}).filter((part) => !(part in locality));
  return { ...locality, ...Object.fromEntries(removed.map((part) => [part, null])) };
}
