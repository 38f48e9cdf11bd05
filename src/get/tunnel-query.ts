import { hash } from 'node:crypto';
import { systemClock } from '../clock.ts';
import type { Cluster } from '../cli/cluster.ts';
import type { SelectorRequirement } from '../cli/label-selector.ts';
import type { Terminal } from '../cli/terminal.ts';
import { createNames } from '../core/names.ts';
import type { SliceObject } from '../core/slice-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { sliceResource, tunnelResource } from '../k8s/resources.ts';
import { selecting, type ListerWatcher } from './list-tunnels.ts';
import { listedTunnelsOf, tunnelOfObject, type ListedTunnel } from './listed-tunnel.ts';
import { readNamedTunnels, type NamedTunnels } from './named-tunnels.ts';
import { outputFormat, type Output, type OutputFormat } from './output-format.ts';
import { tunnelFilter, type FilterFlags } from './tunnel-filter.ts';
import type { TunnelLine } from './visible-tunnels.ts';

/** The flags of `get` that decide what is read and how it is shown. */
export interface QueryFlags extends FilterFlags {
  /** The requirements of `--selector`. */
  readonly requirements: readonly SelectorRequirement[];
  readonly 'all-namespaces': boolean;
  readonly output: Output;
  readonly 'no-headers': boolean;
  readonly watch: boolean;
  readonly 'output-watch-events': boolean;
}

/** What is read, and how it is shown. */
export interface TunnelQuery {
  readonly objects: ListerWatcher<TunnelObject>;
  readonly slices: (atVersion?: string) => ListerWatcher<SliceObject>;
  readonly linesOfObject: (object: TunnelObject) => readonly TunnelLine[];
  readonly linesOfSlice: (slice: SliceObject) => readonly TunnelLine[];
  /** Reads tunnels by their names; returns their texts. Filters do not apply. */
  readonly readNamed: (wanted: readonly string[], signal: AbortSignal) => Promise<NamedTunnels<string>>;
  readonly format: OutputFormat;
  readonly output: Output;
  /** Completes "no tunnels found". */
  readonly place: string;
}

/** Returns the query for the flags. */
export function createTunnelQuery({ client, namespace }: Cluster, flags: QueryFlags): TunnelQuery {
  const names = createNames((text) => hash('sha256', text, 'buffer'));
  const filter = tunnelFilter(names, flags, flags.requirements);
  const isGlobal = flags['all-namespaces'];
  const { output } = flags;
  const format = outputFormat({
    output,
    hasHeader: !flags['no-headers'],
    hasNamespace: isGlobal,
    isWatch: flags.watch,
    hasEvents: flags.watch && flags['output-watch-events'],
  });
  const objects = client.resource<TunnelObject>(inScope(tunnelResource(namespace), isGlobal));
  const slices = client.resource<SliceObject>(inScope(sliceResource(namespace), isGlobal));
  const lineOf = (tunnel: ListedTunnel): TunnelLine => ({
    key: `${tunnel.metadata.namespace ?? ''}/${tunnel.metadata.name}`,
    text: format.encode(tunnel),
  });
  return {
    objects: selecting(objects, filter.objects),
    slices: (atVersion) => selecting(slices, filter.slices, atVersion),
    linesOfObject(object) {
      const tunnel = tunnelOfObject(object);
      return filter.matches(tunnel) ? [lineOf(tunnel)] : [];
    },
    linesOfSlice: (slice) =>
      [...listedTunnelsOf(names, slice, filter.matchesName)]
        .filter((tunnel) => filter.matches(tunnel))
        .map(lineOf),
    readNamed: (wanted, signal) =>
      readNamedTunnels({ names, objects, slices, project: format.encode, signal }, wanted),
    format,
    output,
    place: isGlobal ? '' : ` in ${namespace} namespace`,
  };
}

function inScope<R extends { readonly namespace: string }>(
  { namespace, ...resource }: R,
  isGlobal: boolean,
): Omit<R, 'namespace'> & { readonly namespace?: string } {
  return isGlobal ? resource : { ...resource, namespace };
}

/** Prints what was listed. */
export function printTexts(
  { format, output, place }: Pick<TunnelQuery, 'format' | 'output' | 'place'>,
  texts: readonly string[],
  terminal: Terminal,
): void {
  if (texts.length === 0 && (output === '' || output === 'wide')) terminal.err(`No tunnels found${place}.\n`);
  else format.print(texts, systemClock.wallMs(), (text) => terminal.out(text));
}

/** Reports that slices cannot be read. */
export function warnAboutSlices(terminal: Terminal, error: Error): void {
  terminal.err(`get: ${error.message}; only objects are shown\n`);
}
