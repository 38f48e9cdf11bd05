import type { ReportMessage, ReportedTunnel } from '../../src/grpc/report-message.ts';

/**
 * Applies a report to the tunnels of its reporter, following only the protocol specification: a full push is
 * authoritative; otherwise, for each name, present_after = clamp(present_before + adds - removals, 0, 1), and the
 * last of several adds wins.
 */
export function applyReport(
  held: Map<string, ReportedTunnel>,
  report: Pick<ReportMessage, 'added' | 'removedNames' | 'fullPush'>,
): void {
  if (report.fullPush) {
    held.clear();
    for (const tunnel of report.added) held.set(tunnel.name, tunnel);
    return;
  }
  const balance = new Map<string, number>();
  const newest = new Map<string, ReportedTunnel>();
  for (const tunnel of report.added) {
    balance.set(tunnel.name, (balance.get(tunnel.name) ?? 0) + 1);
    newest.set(tunnel.name, tunnel);
  }
  for (const name of report.removedNames) balance.set(name, (balance.get(name) ?? 0) - 1);
  for (const [name, change] of balance) {
    const present = Math.min(1, Math.max(0, (held.has(name) ? 1 : 0) + change));
    const tunnel = newest.get(name) ?? held.get(name);
    if (present === 1 && tunnel !== undefined) held.set(name, tunnel);
    else held.delete(name);
  }
}
