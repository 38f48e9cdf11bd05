/**
 * Events in the core group. The API server stores each Event once and serves it in two groups, with different names of
 * fields: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
 */
import type { JsonObject } from './objects.ts';

/** Fields of events.k8s.io/v1 and their names in the core group. */
const CORE_NAMES: Readonly<Record<string, string>> = {
  deprecatedCount: 'count',
  deprecatedFirstTimestamp: 'firstTimestamp',
  deprecatedLastTimestamp: 'lastTimestamp',
  deprecatedSource: 'source',
  note: 'message',
  regarding: 'involvedObject',
  reportingController: 'reportingComponent',
};
const EVENT_NAMES = Object.fromEntries(Object.entries(CORE_NAMES).map(([event, core]) => [core, event]));
/** Fields of the core group that are never absent. */
const CORE_DEFAULTS = {
  firstTimestamp: null,
  lastTimestamp: null,
  source: {},
  reportingComponent: '',
  reportingInstance: '',
};

/** Converts an Event, or a list of Events, to the core group. */
export function toCoreEvent(event: JsonObject): JsonObject {
  const { items } = event;
  if (Array.isArray(items))
    return { ...event, apiVersion: 'v1', items: items.map((item) => toCoreEvent(item as JsonObject)) };
  return { ...CORE_DEFAULTS, ...rename(event, CORE_NAMES), apiVersion: 'v1' };
}

/** Converts an Event of the core group to the form in which it is stored. */
export function fromCoreEvent(event: JsonObject): JsonObject {
  const renamed = rename(event, EVENT_NAMES);
  const present = Object.entries(renamed).filter(([, value]) => value !== null);
  return { ...Object.fromEntries(present), apiVersion: 'events.k8s.io/v1' };
}

/** Converts the path and query of a request. */
export function fromCorePath(path: string): string {
  const [pathname = '', text = ''] = path.split('?');
  const query = new URLSearchParams(text);
  const fields = query.get('fieldSelector');
  if (fields !== null)
    query.set('fieldSelector', fields.replaceAll(/(^|,)involvedObject\./g, '$1regarding.'));
  return `${pathname.replace('/api/v1/', '/apis/events.k8s.io/v1/')}?${query.toString()}`;
}

function rename(object: JsonObject, names: Readonly<Record<string, string>>): JsonObject {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [names[name] ?? name, value]));
}
