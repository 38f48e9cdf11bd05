/** The table of faults over real processes, row by row: what is done, and one line for what came of it. */
import { apiHalfOpen, apiOutages, apiRefuses } from './api-outages.ts';
import { figureText, held, type Figure } from './figure.ts';
import { fight, hands } from './hands.ts';
import { allThere } from './judge.ts';
import { keepLogs } from './kept-logs.ts';
import { bothCrdsDeleted, namespaceTerminating, rowCrdDeleted } from './kinds-and-namespaces.ts';
import {
  killedInCollection,
  killedInPush,
  replicaKilled,
  replicaStopped,
  replicaTerminated,
} from './process-deaths.ts';
import { refusedByPolicy, refusedByQuota } from './refused-rows.ts';
import { allDrop, halfOpen, reporterFaults } from './reporter-losses.ts';
import { FULL, type Act, type FaultScenario, type Sizes } from './scenario.ts';
import { openStage, type Stage } from './stage.ts';
import { etcdCompacted, etcdRestored } from './store-faults.ts';

/** Writing 100,000 rows takes two minutes here, and several on a machine that does other things. */
const BUILD_DEADLINE_MS = 15 * 60_000;

/** 10,000 rows of three replicas; 1,000 of one, with a controller manager; 100,000 of 2,000 reporters. */
function acts(seed: number): readonly Act[] {
  return [
    {
      stage: { replicas: 1, reporters: 10, tunnels: 100, controllerManager: true, seed },
      scenarios: [
        ...refusedByPolicy,
        refusedByQuota,
        rowCrdDeleted,
        bothCrdsDeleted,
        namespaceTerminating,
        killedInPush,
        killedInCollection,
      ],
    },
    {
      stage: { replicas: 3, reporters: 100, tunnels: 100, seed },
      scenarios: [
        ...apiOutages,
        apiRefuses,
        etcdCompacted,
        etcdRestored,
        replicaKilled,
        replicaTerminated,
        replicaStopped,
        halfOpen,
        ...reporterFaults,
        hands,
        fight,
        // Last, as it has an echo.
        apiHalfOpen,
      ],
    },
    {
      stage: { replicas: 1, reporters: 2000, tunnels: 50, flags: ['--report-interval', '5s'], seed },
      scenarios: [allDrop],
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
  readonly sizes?: Sizes;
  /** What is being done now. */
  readonly doing: (what: string) => void;
  /** The line of a scenario. */
  readonly say: (line: string) => void;
}

/** Names of all scenarios, in the order in which they are played. */
export function scenarioNames(): string[] {
  return acts(0).flatMap(({ scenarios }) => scenarios.map(({ name }) => name));
}

/** Plays the table, or some of its rows; gives how many were not held. */
export async function playRealFaults(options: TableOptions): Promise<number> {
  let differences = 0;
  for (const { stage: whole, scenarios } of acts(options.seed)) {
    const stage = { ...whole, tunnels: Math.ceil((whole.tunnels * options.percent) / 100) };
    const wanted = scenarios.filter(({ name }) => options.only.length === 0 || options.only.includes(name));
    let open: Stage | undefined;
    try {
      for (const scenario of wanted) {
        const doing = (what: string): void => options.doing(`${scenario.name}: ${what}`);
        const startedMs = performance.now();
        let said: { readonly line: string; readonly held: boolean };
        try {
          if (open === undefined) {
            doing(`${stage.reporters} reporters x ${stage.tunnels} tunnels start`);
            open = await openStage(stage);
            await allThere(open, BUILD_DEADLINE_MS);
          }
          said = lineOf(scenario, await scenario.run(open, options.sizes ?? FULL, doing));
        } catch (error) {
          said = { line: `NOT HELD  ${scenario.name}: ${(error as Error).message}`, held: false };
        }
        let kept = '';
        if (!said.held) {
          differences += 1;
          if (open !== undefined) kept = `, logs in ${await keepLogs(open, scenario.name)}`;
          // What it left behind is no ground for the next one.
          await open?.close();
          open = undefined;
        }
        options.say(`${said.line}${kept} [${Math.round((performance.now() - startedMs) / 1000)} s]`);
      }
    } finally {
      await open?.close();
    }
  }
  return differences;
}

/** `held  name: what was done: figure (bound), …` */
export function lineOf(
  { name, about }: FaultScenario,
  figures: readonly Figure[],
): { readonly line: string; readonly held: boolean } {
  const all = figures.every((figure) => held(figure));
  return {
    line: `${all ? 'held    ' : 'NOT HELD'}  ${name}: ${about}: ${figures.map(figureText).join(', ')}`,
    held: all,
  };
}
