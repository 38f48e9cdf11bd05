import { formatAge, formatTable, truncateList } from '../cli/format.ts';
import type {
  ExpectationSummary,
  ReplicaSummary,
  ReporterSummary,
  FleetSummary,
  TenantSummary,
} from './summary.ts';
import { pluralize } from '../core/text.ts';

/** Missing nodes that a line names. */
const MAX_SHOWN_NODES = 3;

/** What is rendered in addition to the summary. */
export interface RenderOptions {
  /** Shown in the second line. */
  readonly namespace: string;
  readonly server: string;
  readonly nowMs: number;
  /** Maximum number of reporters, and of tenants; 0: all. */
  readonly top: number;
}

/**
 * Renders the summary as text: totals, then tables of expectations that are not satisfied, replicas, reporters (unhealthy
 * ones first) and tenants.
 */
export function renderSummary(summary: FleetSummary, options: RenderOptions): string {
  const { top } = options;
  // A fleet may have thousands of reporters, so only healthy ones are cut off.
  const reporters = [
    ...summary.reporters.filter(({ note }) => note !== ''),
    ...summary.reporters.filter(({ note }) => note === ''),
  ];
  const { nowMs } = options;
  const hasSlices = summary.totals.entries > 0;
  const open = summary.expectations.filter(({ state }) => state !== 'satisfied' && state !== 'paused');
  return [
    `${totalsLine(summary)}\n${formsLine(summary)}namespace ${options.namespace} at ${options.server}\n`,
    ...(open.length === 0
      ? []
      : [
          section('', 'expectations', open, top, EXPECTATION_HEADER, (expectation) =>
            expectationCells(expectation, nowMs),
          ),
        ]),
    section('no operator replicas', 'replicas', summary.replicas, 0, REPLICA_HEADER, replicaCells),
    section('no reporters', 'reporters', reporters, top, reporterHeader(hasSlices), (reporter) =>
      reporterCells(reporter, nowMs, hasSlices),
    ),
    section('no tunnels', 'tenants', summary.tenants, top, TENANT_HEADER, tenantCells),
  ].join('\n');
}

function totalsLine({ totals }: FleetSummary): string {
  const unknown = totals.unknown === 0 ? '' : ` (${totals.unknown} Unknown)`;
  return [
    `${pluralize(totals.tunnels, 'tunnel')}${unknown} of ${pluralize(totals.tenants, 'tenant')}`,
    `${totals.connected} of ${pluralize(totals.reporters, 'reporter')} connected, ${totals.synced} in sync, ` +
      `${totals.pending} pending`,
    `${totals.alive} of ${pluralize(totals.replicas, 'replica')} alive`,
    ...(totals.expectations === 0
      ? []
      : [`${totals.unsatisfied} of ${pluralize(totals.expectations, 'expectation')} unsatisfied`]),
  ].join('; ');
}

/** Describes how many tunnels each form has, and names those in both; empty if there are no slices. */
function formsLine({ totals: { objects, entries, inBothForms }, inBothForms: named }: FleetSummary): string {
  if (entries === 0) return '';
  const forms = `${objects} in objects, ${entries} in slices`;
  if (inBothForms === 0) return `${forms}\n`;
  const names = named.map(({ reporter, tunnel }) => `${tunnel} of ${reporter.cluster}/${reporter.id}`);
  const shown = truncateList(names.slice(0, MAX_SHOWN_NODES), MAX_SHOWN_NODES);
  const hiddenCount = inBothForms - Math.min(names.length, MAX_SHOWN_NODES);
  return `${forms}, ${inBothForms} in both forms: ${shown}${hiddenCount > 0 ? ` and ${hiddenCount} more` : ''}\n`;
}

/**
 * Renders a table of at most `top` lines (0: all), or `emptyText` if there are none: an empty table would look as if the
 * objects could not be read.
 */
function section<T>(
  emptyText: string,
  noun: string,
  items: readonly T[],
  top: number,
  header: readonly string[],
  cells: (item: T) => readonly string[],
): string {
  if (items.length === 0) return `${emptyText}\n`;
  const visible = top === 0 ? items : items.slice(0, top);
  const hiddenCount = items.length - visible.length;
  return (
    formatTable(header, visible.map(cells)) +
    (hiddenCount === 0 ? '' : `… and ${hiddenCount} more ${noun} (--top 0 shows all)\n`)
  );
}

/** SINCE is when the tunnels began to fall short, by the clock of the leader. */
const EXPECTATION_HEADER = [
  'EXPECTATION',
  'STATE',
  'REASON',
  'TUNNELS',
  'REPORTERS',
  'UNKNOWN',
  'MISSING',
  'SINCE',
  'NODES',
];

function expectationCells(expectation: ExpectationSummary, nowMs: number): string[] {
  const { missing, missingNodes, sinceMs } = expectation;
  const shown = truncateList(missingNodes.slice(0, MAX_SHOWN_NODES), MAX_SHOWN_NODES);
  const hiddenCount = missing - Math.min(missingNodes.length, MAX_SHOWN_NODES);
  return [
    expectation.name,
    expectation.state,
    expectation.reason,
    String(expectation.tunnels),
    String(expectation.reporters),
    String(expectation.unknown),
    String(missing),
    sinceMs === undefined ? '' : `${formatAge(nowMs - sinceMs)} ago`,
    hiddenCount > 0 ? `${shown} and ${hiddenCount} more` : shown,
  ];
}

/** STATE and RENEWED compare the clock of this machine with that of the replica. */
const REPLICA_HEADER = ['REPLICA', 'STATE', 'RENEWED', 'REPORTERS', 'TUNNELS'];

function replicaCells(replica: ReplicaSummary): string[] {
  const state = replica.alive ? 'alive' : 'expired';
  const renewed = replica.renewedAgoMs === undefined ? '' : `${formatAge(replica.renewedAgoMs)} ago`;
  return [
    replica.replica,
    replica.leader ? `${state}, leader` : state,
    renewed,
    String(replica.reporters),
    String(replica.tunnels),
  ];
}

/** REPORTED and PENDING come from the reporter's status and can be 10 s old or more; OBJECTS and IN SLICES are counted. */
function reporterHeader(hasSlices: boolean): string[] {
  return [
    'REPORTER',
    'CLUSTER',
    'CONNECTED',
    'SYNCED',
    'REPORTED',
    'OBJECTS',
    ...(hasSlices ? ['IN SLICES'] : []),
    'PENDING',
    'OWNER',
    'NOTE',
  ];
}

function reporterCells(reporter: ReporterSummary, nowMs: number, hasSlices: boolean): string[] {
  const since = reporter.noteSinceMs === undefined ? '' : ` ${formatAge(nowMs - reporter.noteSinceMs)}`;
  const details = reporter.details === '' ? '' : `: ${reporter.details}`;
  return [
    reporter.id,
    reporter.cluster,
    reporter.connected,
    reporter.synced,
    String(reporter.reported),
    String(reporter.objects),
    ...(hasSlices ? [String(reporter.entries)] : []),
    String(reporter.pending),
    reporter.owner,
    reporter.note === '' ? '' : `${reporter.note}${since}${details}`,
  ];
}

/** Derived from tunnels in either form, as tenants have no objects of their own. */
const TENANT_HEADER = ['TENANT', 'TUNNELS', 'UNKNOWN', 'NODES', 'REPORTERS'];

function tenantCells(tenant: TenantSummary): string[] {
  return [
    tenant.tenant,
    String(tenant.tunnels),
    String(tenant.unknown),
    String(tenant.nodes),
    String(tenant.reporters),
  ];
}
