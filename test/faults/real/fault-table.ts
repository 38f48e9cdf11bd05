/** The table of faults over real processes, with one result line per scenario. */
import { apiHalfOpen, apiOutages, apiRejects } from './api-outages.ts';
import {
  formatMetric,
  isWithinBounds,
  type Metric,
  FULL,
  type ScenarioGroup,
  type FaultScenario,
  type Scale,
} from './scenario.ts';
import { contendedObject, manualEdits } from './manual-edits.ts';
import { waitForInitialSync } from './convergence.ts';
import { saveLogs, openFaultFixture, type FaultFixture } from './fault-fixture.ts';
import { bothCrdsDeleted, namespaceTerminating, tunnelCrdDeleted } from './crd-and-namespace-faults.ts';
import {
  killedInDeletion,
  killedInPush,
  replicaKilled,
  replicaStopped,
  replicaTerminated,
} from './process-crashes.ts';
import { rejectedByPolicy, rejectedByQuota } from './rejected-objects.ts';
import { allReportersDropped, reporterHalfOpen, reporterFaults } from './reporter-faults.ts';
import { etcdCompacted, etcdRestored } from './etcd-faults.ts';

/** Writing 100,000 objects takes two minutes on an idle machine and several on a busy one. */
const BUILD_DEADLINE_MS = 15 * 60_000;

/**
 * Fixtures with 1,000 objects of one replica and a controller manager, 10,000 of three replicas, and 100,000 of
 * 2,000 reporters.
 */
function scenarioGroups(seed: number): readonly ScenarioGroup[] {
  return [
    {
      fixture: { replicas: 1, reporters: 10, tunnels: 100, controllerManager: true, seed },
      scenarios: [
        ...rejectedByPolicy,
        rejectedByQuota,
        tunnelCrdDeleted,
        bothCrdsDeleted,
        namespaceTerminating,
        killedInPush,
        killedInDeletion,
      ],
    },
    {
      fixture: { replicas: 3, reporters: 100, tunnels: 100, seed },
      scenarios: [
        ...apiOutages,
        apiRejects,
        etcdCompacted,
        etcdRestored,
        replicaKilled,
        replicaTerminated,
        replicaStopped,
        reporterHalfOpen,
        ...reporterFaults,
        manualEdits,
        contendedObject,
        // Last, because it has an aftereffect.
        apiHalfOpen,
      ],
    },
    {
      fixture: { replicas: 1, reporters: 2000, tunnels: 50, flags: ['--report-interval', '5s'], seed },
      scenarios: [allReportersDropped],
    },
  ];
}

export interface TableOptions {
  readonly only: readonly string[];
  readonly seed: number;
  /** Percentage of the tunnels of each reporter; the bounds of the table apply to 100. */
  readonly percent: number;
  /** Scale of the faults and changes. Default: the table's. */
  readonly scale?: Scale;
  readonly setStatus: (what: string) => void;
  readonly print: (line: string) => void;
}

export function scenarioNames(): string[] {
  return scenarioGroups(0).flatMap(({ scenarios }) => scenarios.map(({ name }) => name));
}

/** Runs all or selected scenarios. Returns the number of failed scenarios. */
export async function runFaultTable(options: TableOptions): Promise<number> {
  let failed = 0;
  for (const { fixture: fullFixture, scenarios } of scenarioGroups(options.seed)) {
    const fixtureOptions = {
      ...fullFixture,
      tunnels: Math.ceil((fullFixture.tunnels * options.percent) / 100),
    };
    const selected = scenarios.filter(({ name }) => options.only.length === 0 || options.only.includes(name));
    let open: FaultFixture | undefined;
    try {
      for (const scenario of selected) {
        const setStatus = (what: string): void => options.setStatus(`${scenario.name}: ${what}`);
        const startedMs = performance.now();
        let result: { readonly line: string; readonly passed: boolean };
        try {
          if (open === undefined) {
            setStatus(`${fixtureOptions.reporters} reporters x ${fixtureOptions.tunnels} tunnels start`);
            open = await openFaultFixture(fixtureOptions);
            await waitForInitialSync(open, BUILD_DEADLINE_MS);
          }
          result = formatResult(scenario, await scenario.run(open, options.scale ?? FULL, setStatus));
        } catch (error) {
          result = { line: `FAILED  ${scenario.name}: ${(error as Error).message}`, passed: false };
        }
        let logsNote = '';
        if (!result.passed) {
          failed += 1;
          if (open !== undefined) logsNote = `, logs in ${await saveLogs(open, scenario.name)}`;
          // The next scenario needs a clean fixture.
          await open?.close();
          open = undefined;
        }
        options.print(`${result.line}${logsNote} [${Math.round((performance.now() - startedMs) / 1000)} s]`);
      }
    } finally {
      await open?.close();
    }
  }
  return failed;
}

/** Formats a result as `passed  name: description: metric (bound), …`. */
export function formatResult(
  { name, description }: FaultScenario,
  metrics: readonly Metric[],
): { readonly line: string; readonly passed: boolean } {
  const passed = metrics.every((metric) => isWithinBounds(metric));
  return {
    line: `${passed ? 'passed' : 'FAILED'}  ${name}: ${description}: ${metrics.map(formatMetric).join(', ')}`,
    passed: passed,
  };
}
