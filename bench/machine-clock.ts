/**
 * Milliseconds, with fractions, of the machine's own monotonic clock (CLOCK_MONOTONIC): one time for all processes, so
 * that what one process sends and another one sees can be subtracted.
 */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
