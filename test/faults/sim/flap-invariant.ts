import type { Report } from '../../../src/core/report.ts';
import { reporterKey, type ReporterId } from '../../../src/core/tunnel.ts';

const MAX_DROPS = 6;
const WINDOW_MS = 600_000;
const WRITE_INTERVAL_MS = 30_000;
/** The clock of a process is not the time of the run. */
const TOLERANCE_MS = 10;

/** What one process has read and written about one tunnel. */
interface TunnelHistory {
  isUp: boolean;
  dropsMs: number[];
  lastWriteMs: number;
}

/**
 * Checks that a process writes the objects of a tunnel at most every 30 s once it has gone down more than 6 times within
 * 10 minutes. It counts at most one drop per report, so it knows fewer drops than the operator.
 */
export class FlapInvariant {
  readonly #byProcess = new WeakMap<object, Map<string, TunnelHistory>>();

  /** Records a report immediately before it is applied. */
  onReport(
    process: object,
    reporter: ReporterId,
    { fullPush, added, removedNames }: Report,
    nowMs: number,
  ): void {
    const key = reporterKey(reporter);
    if (fullPush) {
      // A full push also starts the history of a reporter that the process has forgotten.
      for (const id of this.#histories(process).keys())
        if (id.startsWith(`${key}\0`)) this.#histories(process).delete(id);
    }
    for (const { name } of added) this.#history(process, key, name).isUp = true;
    for (const name of fullPush ? [] : new Set(removedNames)) {
      const history = this.#history(process, key, name);
      if (history.isUp) history.dropsMs.push(nowMs);
      history.isUp = added.some((tunnel) => tunnel.name === name);
    }
  }

  /** Records a write that is sent. Returns the time since the last one, in ms, if that is too short. */
  onWrite(process: object, key: string, tunnelName: string, nowMs: number): number | undefined {
    const history = this.#history(process, key, tunnelName);
    const elapsedMs = nowMs - history.lastWriteMs;
    history.lastWriteMs = nowMs;
    const recent = history.dropsMs.filter((dropMs) => nowMs - dropMs < WINDOW_MS - TOLERANCE_MS);
    return recent.length > MAX_DROPS && elapsedMs < WRITE_INTERVAL_MS - TOLERANCE_MS ? elapsedMs : undefined;
  }

  #histories(process: object): Map<string, TunnelHistory> {
    const known = this.#byProcess.get(process) ?? new Map<string, TunnelHistory>();
    this.#byProcess.set(process, known);
    return known;
  }

  #history(process: object, key: string, name: string): TunnelHistory {
    const histories = this.#histories(process);
    const id = `${key}\0${name}`;
    const known = histories.get(id) ?? { isUp: false, dropsMs: [], lastWriteMs: Number.NEGATIVE_INFINITY };
    histories.set(id, known);
    return known;
  }
}
