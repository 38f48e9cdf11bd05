import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Gauge, type Registry } from 'prom-client';

type DelayHistogram = ReturnType<typeof monitorEventLoopDelay>;

/** The gauges of prom-client that are replaced, with their help texts. */
const STATISTICS: readonly [name: string, help: string, nanoseconds: (delay: DelayHistogram) => number][] = [
  ['min', 'The minimum recorded event loop delay.', (delay) => delay.min],
  ['max', 'The maximum recorded event loop delay.', (delay) => delay.max],
  ['mean', 'The mean of the recorded event loop delays.', (delay) => delay.mean],
  ['stddev', 'The standard deviation of the recorded event loop delays.', (delay) => delay.stddev],
  ['p50', 'The 50th percentile of the recorded event loop delays.', (delay) => delay.percentile(50)],
  ['p90', 'The 90th percentile of the recorded event loop delays.', (delay) => delay.percentile(90)],
  ['p99', 'The 99th percentile of the recorded event loop delays.', (delay) => delay.percentile(99)],
];

/**
 * An interval of 24 days for the timer of prom-client's own monitor, which cannot be disabled: at its default of 10 ms, it
 * wakes an idle process 100 times per second.
 */
export const UNUSED_MONITOR_INTERVAL_MS = 2 ** 31 - 1;

/**
 * Replaces prom-client's gauges of the event loop delay by gauges of the same names that do not wake the process: the delay
 * is the time that an iteration of the event loop takes, without the time that it waits for events. Versions of Node
 * that cannot measure this use a timer every 10 ms, whose interval is part of the delay.
 */
export function replaceEventLoopMetrics(registry: Registry): void {
  const delay = monitorEventLoopDelay({ samplePerIteration: true });
  delay.enable();
  const gauges = STATISTICS.map(([statistic, help], i) => {
    const name = `nodejs_eventloop_lag_${statistic}_seconds`;
    registry.removeSingleMetric(name);
    // The first gauge to be read sets the values of all, each of which covers the time since the last scrape.
    const collect = i === 0 ? (): void => setAll() : undefined;
    return new Gauge({
      name,
      help,
      registers: [registry],
      aggregator: 'average',
      ...(collect && { collect }),
    });
  });
  function setAll(): void {
    for (const [i, [, , nanoseconds]] of STATISTICS.entries()) gauges[i]?.set(nanoseconds(delay) / 1e9);
    delay.reset();
  }
}
