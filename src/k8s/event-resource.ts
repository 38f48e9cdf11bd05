import { rfc3339Micro } from './micro-time.ts';
import type { ResourceClient } from './resource-client.ts';

/** What an event says. */
export interface EventContent {
  readonly type: 'Normal' | 'Warning';
  /** CamelCase, at most 128. */
  readonly reason: string;
  readonly action: string;
  /** For people; cut to what the API server takes. */
  readonly note: string;
}

/** The object that an event is about; without its uid `kubectl describe` does not show the event. */
export interface Regarding {
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
}

/** The API server counts bytes here. */
const MAX_NOTE_BYTES = 1024;
const REPORTING_CONTROLLER = 'reverse-tunnel.io/operator';

/** Where events live, beside the objects that they are about. */
export function eventResource(namespace: string) {
  return { group: 'events.k8s.io', version: 'v1', plural: 'events', namespace } as const;
}

/** Sends events of one process. @param instance at most 128 characters count */
export function createEventApi(
  client: Pick<ResourceClient<object>, 'create'>,
  namespace: string,
  instance: string,
) {
  return {
    async create(regarding: Regarding, content: EventContent, wallMs: number): Promise<void> {
      await client.create({
        apiVersion: 'events.k8s.io/v1',
        kind: 'Event',
        metadata: { generateName: `${regarding.name}-` },
        eventTime: rfc3339Micro(wallMs),
        reportingController: REPORTING_CONTROLLER,
        reportingInstance: instance.slice(0, 128),
        regarding: { apiVersion: 'reverse-tunnel.io/v1alpha1', namespace, ...regarding },
        ...content,
        note: truncateNote(content.note),
      });
    },
  };
}

function truncateNote(note: string): string {
  const bytes = Buffer.from(note);
  if (bytes.length <= MAX_NOTE_BYTES) return note;
  // A character that was cut in two becomes U+FFFD, which takes no more bytes than it had.
  return bytes
    .subarray(0, MAX_NOTE_BYTES - 3)
    .toString()
    .replace(/\ufffd$/, '');
}
