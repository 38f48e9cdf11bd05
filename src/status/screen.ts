import { formatAge } from '../cli/age.ts';
import { pluralize } from '../cli/pluralize.ts';
import { textTable } from '../cli/text-table.ts';
import type { ReplicaSummary, ReporterSummary, FleetSummary, TenantSummary } from './summary.ts';

/** What the screen says beside the summary. */
export interface ScreenOptions {
  /** Shown in the first line. */
  readonly namespace: string;
  readonly server: string;
  readonly nowMs: number;
  /** Most lines of reporters and of tenants, each; 0 for all. */
  readonly top: number;
}

/** The summary as text: one line of totals, then replicas, reporters (those with something wrong first) and tenants. */
export function renderScreen(summary: FleetSummary, options: ScreenOptions): string {
  const { top } = options;
  // A screen has twenty lines and a fleet thousands of reporters: what is cut off is to be what is well.
  const reporters = [
    ...summary.reporters.filter(({ note }) => note !== ''),
    ...summary.reporters.filter(({ note }) => note === ''),
  ];
  return [
    `${totalsLine(summary)}\nnamespace ${options.namespace} at ${options.server}\n`,
    section('no operator replicas', 'replicas', summary.replicas, 0, REPLICA_HEADER, replicaCells),
    section('no reporters', 'reporters', reporters, top, REPORTER_HEADER, (reporter) =>
      reporterCells(reporter, options.nowMs),
    ),
    section('no tunnels', 'tenants', summary.tenants, top, TENANT_HEADER, tenantCells),
  ].join('\n');
}

/** What a person wants to know before any table, in one line. */
function totalsLine({ totals }: FleetSummary): string {
  const unknown = totals.unknown === 0 ? '' : ` (${totals.unknown} Unknown)`;
  return [
    `${pluralize(totals.tunnels, 'tunnel')}${unknown} of ${pluralize(totals.tenants, 'tenant')}`,
    `${totals.connected} of ${pluralize(totals.reporters, 'reporter')} connected, ${totals.synced} in sync, ` +
      `${totals.pending} pending`,
    `${totals.alive} of ${pluralize(totals.replicas, 'replica')} alive`,
  ].join('; ');
}

/**
 * A table of at most `top` lines (0: all), or a line that says that there is nothing; an empty table would look as if it
 * could not be read.
 */
function section<T>(
  emptyText: string,
  noun: string,
  lines: readonly T[],
  top: number,
  header: readonly string[],
  cells: (line: T) => readonly string[],
): string {
  if (lines.length === 0) return `${emptyText}\n`;
  const visible = top === 0 ? lines : lines.slice(0, top);
  const hiddenCount = lines.length - visible.length;
  return (
    textTable(header, visible.map(cells)) +
    (hiddenCount === 0 ? '' : `… and ${hiddenCount} more ${noun} (--top 0 shows all)\n`)
  );
}

/** STATE and RENEWED compare this machine's clock with the replica's. */
const REPLICA_HEADER = ['REPLICA', 'STATE', 'RENEWED', 'REPORTERS', 'TUNNELS'];

function replicaCells(line: ReplicaSummary): string[] {
  const state = line.alive ? 'alive' : 'expired';
  const renewed = line.renewedAgoMs === undefined ? '' : `${formatAge(line.renewedAgoMs)} ago`;
  return [
    line.replica,
    line.leader ? `${state}, leader` : state,
    renewed,
    String(line.reporters),
    String(line.tunnels),
  ];
}

/** REPORTED and PENDING come from the status of the reporter and are up to 10 s old; OBJECTS are counted here. */
const REPORTER_HEADER = [
  'REPORTER',
  'CLUSTER',
  'CONNECTED',
  'SYNCED',
  'REPORTED',
  'OBJECTS',
  'PENDING',
  'OWNER',
  'NOTE',
];

function reporterCells(line: ReporterSummary, nowMs: number): string[] {
  const since = line.noteSinceMs === undefined ? '' : ` ${formatAge(nowMs - line.noteSinceMs)}`;
  return [
    line.id,
    line.cluster,
    line.connected,
    line.synced,
    String(line.reported),
    String(line.objects),
    String(line.pending),
    line.owner,
    line.note === '' ? '' : `${line.note}${since}`,
  ];
}

/** All out of the rows: a tenant is nothing that has an object. */
const TENANT_HEADER = ['TENANT', 'TUNNELS', 'UNKNOWN', 'NODES', 'REPORTERS'];

function tenantCells(line: TenantSummary): string[] {
  return [
    line.tenant,
    String(line.tunnels),
    String(line.unknown),
    String(line.nodes),
    String(line.reporters),
  ];
}
