import { buildCondition, type ConditionContent } from './kubernetes.ts';
import type { Locality, ReporterStatus, ReporterStatusPatch, TunnelCounts } from './reporter-object.ts';
import { sanitize } from './text.ts';

/** What an owner knows of its reporter. The status says it, and nothing else. */
export interface StatusInputs {
  /** `StreamOpen`, or why there is no stream. */
  readonly connected: 'StreamOpen' | ReporterDisconnectReason;
  readonly synced: SyncStatus;
  /** True while two Envoys seem to report under this id. */
  readonly conflict: boolean;
  /** When the stream being served sent its first report; undefined without one. */
  readonly connectedSince: string | undefined;
  /** The parts below are undefined where this owner does not know: what stands there stays. */
  readonly lastFullPush: { readonly time: string; readonly tunnels: number } | undefined;
  readonly tunnels: TunnelCounts | undefined;
  readonly reportIntervalSeconds: number | undefined;
  readonly envoy: EnvoyMetadata | undefined;
}

/**
 * Why a reporter has no stream: it ended, nothing came on it, no policy allows it any more, or the replica that held it
 * is gone.
 */
export type ReporterDisconnectReason = 'StreamEnded' | 'HeartbeatTimeout' | 'PolicyDenied' | 'OwnerLost';

/** How the rows of a connected reporter compare with what it reports. */
export type SyncStatus =
  | { readonly reason: 'UpToDate' | 'SyncInProgress' | 'AwaitingFullPush' }
  /** Rows that the API server refuses, and its answer to the last of them. */
  | { readonly reason: 'WritesRejected'; readonly objects: number; readonly answer: string }
  /** Rejected tunnels, and what was wrong with the first. */
  | { readonly reason: 'TunnelsRejected'; readonly tunnels: number; readonly first: string };

/** What a reporter tells about itself beside its identity. */
export interface EnvoyMetadata {
  /** As in 1.38.0; undefined when it told none. */
  readonly version: string | undefined;
  readonly locality: Locality | undefined;
}

/** Why a status is to be written: its meaning has changed, or only numbers, which can wait. */
export type StatusChange = 'none' | 'counts' | 'meaning';

/** Of a reporter's object: its spec never changes. */
const OBSERVED_GENERATION = 1;
/** The API server takes 4,096; a person reads less. */
const MAX_MESSAGE_LENGTH = 1000;

/** The status that says these facts, as a merge patch. */
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
    observedGeneration: 1,
    conditions: conditionContents(inputs).map((content) =>
      buildCondition(content, before?.conditions, now, OBSERVED_GENERATION),
    ),
  };
}

/** How a status differs from what these facts say. */
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
  if (!sameConditions || current.length !== desired.length) return 'meaning';
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
  return contents;
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
    case 'TunnelsRejected':
      return {
        type,
        status: 'False',
        reason,
        message: sanitize(`${synced.tunnels} tunnels were rejected: ${synced.first}`, MAX_MESSAGE_LENGTH),
      };
  }
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

/** A merge patch keeps what it does not name, so the parts that are gone are named. */
function localityPatch(locality: Locality | undefined, before: Locality | undefined): Locality | null {
  if (locality === undefined) return null;
  const removed = Object.keys(before ?? {}).filter((part) => !(part in locality));
  return { ...locality, ...Object.fromEntries(removed.map((part) => [part, null])) };
}
