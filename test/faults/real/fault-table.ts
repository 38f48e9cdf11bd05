/** The table of faults over real processes, row by row: what is done, and one line for what came of it. */
import { apiHalfOpen, apiOutages, apiRejects } from './api-outages.ts';
import { formatMetric, isWithinBounds, type Metric } from './metric.ts';
import { contendedObject, manualEdits } from './manual-edits.ts';
import { waitForInitialSync } from './convergence.ts';
import { saveLogs } from './save-logs.ts';
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
import { FULL, type ScenarioGroup, type FaultScenario, type Scale } from './scenario.ts';
import { openFaultFixture, type FaultFixture } from './fault-fixture.ts';
import { etcdCompacted, etcdRestored } from './etcd-faults.ts';

/** Writing 100,000 rows takes two minutes here, and several on a machine that does other things. */
const BUILD_DEADLINE_MS = 15 * 60_000;

/** 10,000 rows of three replicas; 1,000 of one, with a controller manager; 100,000 of 2,000 reporters. */
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
        // Last, as it has an echo.
        apiHalfOpen,
      ],
    },
    {
      fixture: { replicas: 1, reporters: 2000, tunnels: 50, flags: ['--report-interval', '5s'], seed },
      scenarios: [allReportersDropped],
    },
  ];
}

/** What to play, and who is told. */
export interface TableOptions {
  /** Names of scenarios; all when it is empty. */
  readonly only: readonly string[];
  readonly seed: number;
  /** Of each reporter's tunnels so many in a hundred; the table's promises are for 100. */
  readonly percent: number;
  /** Of faults and changes; default the table's. */
  readonly scale?: Scale;
  /** What is being done now. */
  readonly setStatus: (what: string) => void;
  /** The line of a scenario. */
  readonly print: (line: string) => void;
}

/** Names of all scenarios, in the order in which they are played. */
export function scenarioNames(): string[] {
  return scenarioGroups(0).flatMap(({ scenarios }) => scenarios.map(({ name }) => name));
}

/** Plays the table, or some of its rows; gives how many were not held. */
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
        let result: { readonly line: string; readonly held: boolean };
        try {
          if (open === undefined) {
            setStatus(`${fixtureOptions.reporters} reporters x ${fixtureOptions.tunnels} tunnels start`);
            open = await openFaultFixture(fixtureOptions);
            await waitForInitialSync(open, BUILD_DEADLINE_MS);
          }
          result = formatResult(scenario, await scenario.run(open, options.scale ?? FULL, setStatus));
        } catch (error) {
          result = { line: `NOT HELD  ${scenario.name}: ${(error as Error).message}`, held: false };
        }
        let logsNote = '';
        if (!result.held) {
          failed += 1;
          if (open !== undefined) logsNote = `, logs in ${await saveLogs(open, scenario.name)}`;
          // What it left behind is no ground for the next one.
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

/** `held  name: what was done: figure (bound), …` */
export function formatResult(
  { name, description }: FaultScenario,
  metrics: readonly Metric[],
): { readonly line: string; readonly held: boolean } {
  const passed = metrics.every((figure) => isWithinBounds(figure));
  return {
    line: `${passed ? 'held    ' : 'NOT HELD'}  ${name}: ${description}: ${metrics.map(formatMetric).join(', ')}`,
    held: passed,
  };
}
