import { PAGE_LIMIT, SLICE_PAGE_LIMIT } from '../cli/cluster.ts';
import type { Terminal } from '../cli/terminal.ts';
import { systemClock } from '../clock.ts';
import { ApiError } from '../k8s/api-error.ts';
import type { ChangeType } from './output-format.ts';
import { printTexts, warnAboutSlices, type TunnelQuery } from './tunnel-query.ts';
import { VisibleTunnels } from './visible-tunnels.ts';
import { OBJECT_PREFIX, SLICE_PREFIX, watchTunnels } from './watch-tunnels.ts';

/**
 * How long a removed tunnel is remembered: a tunnel that changes its form leaves the one watch before it appears in the
 * other one, as their events have no common order.
 */
const FORM_CHANGE_MS = 1000;

/** Prints all tunnels, and then each change until it is interrupted. Rejects with `ApiError`. */
export async function printChanges(query: TunnelQuery, terminal: Terminal): Promise<void> {
  const { format, linesOfObject, linesOfSlice } = query;
  const removed = new Map<string, { readonly text: string; readonly cancel: () => void }>();
  let isListed = false;

  function print(type: ChangeType, text: string): void {
    format.printChange(type, text, systemClock.wallMs(), (line) => terminal.out(line));
  }

  const tunnels = new VisibleTunnels((key, before, after) => {
    if (!isListed) return;
    const left = removed.get(key);
    left?.cancel();
    removed.delete(key);
    const shown = before ?? left?.text;
    if (after === undefined) {
      const text = before ?? '';
      const cancel = systemClock.setTimer(FORM_CHANGE_MS, () => {
        removed.delete(key);
        print('DELETED', text);
      });
      removed.set(key, { text, cancel });
    } else if (shown === undefined) print('ADDED', after);
    else if (!format.isSame(shown, after)) print('MODIFIED', after);
  });

  // A failure of one list ends the other watch as well.
  const failure = new AbortController();
  const signal = AbortSignal.any([terminal.interrupted, failure.signal]);
  const onBroken = (error: Error): void => terminal.err(`get: ${error.message}; retrying\n`);
  const objects = watchTunnels(
    {
      source: query.objects,
      pageLimit: PAGE_LIMIT,
      prefix: OBJECT_PREFIX,
      isOptional: false,
      linesOf: linesOfObject,
    },
    tunnels,
    systemClock,
    signal,
    onBroken,
  );
  const slices = watchTunnels(
    {
      source: query.slices(),
      pageLimit: SLICE_PAGE_LIMIT,
      prefix: SLICE_PREFIX,
      isOptional: true,
      linesOf: linesOfSlice,
    },
    tunnels,
    systemClock,
    signal,
    onBroken,
  );
  const ended = Promise.all([objects.ended, slices.ended]);
  try {
    const listed = Promise.all([objects.listed, slices.listed]);
    const errors = await Promise.race([listed, ended.then(() => undefined)]);
    if (errors === undefined) return;
    for (const error of errors)
      if (error instanceof ApiError && error.kind !== 'no_kind_match') warnAboutSlices(terminal, error);
    printTexts(query, tunnels.sorted(), terminal);
    isListed = true;
    await ended;
  } finally {
    failure.abort();
    for (const { cancel } of removed.values()) cancel();
  }
}
