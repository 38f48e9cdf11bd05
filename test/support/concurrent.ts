import { reportMeasurement } from './report-measurement.ts';

/** What scenarios have in common, and each has one of its own: a namespace, replicas, a folder. */
export interface ConcurrentFixtures<World> {
  /** For each scenario, from the start of all; also for its world's opening and closing. */
  readonly timeoutMs: number;
  open(): Promise<World>;
  close(world: World): Promise<unknown>;
}

/** A test that may run while others of its `describe` do. What it tells is shown with its own line. */
type Scenario<World> = (world: World, told: (text: string) => void) => Promise<void>;

interface ScenarioOutcome {
  readonly messages: readonly string[];
  /** There when it failed. */
  readonly error?: unknown;
}

/**
 * For tests that mostly wait, because a Lease has to run out or a minute has to pass in which nobody writes: all of a
 * `describe` begin together and each `it` reports its own, so that the suite takes as long as the longest of them. Not for
 * what is measured, nor for what takes CPU: it would slow the others down.
 *
 * To be called in a `describe`, after the hooks that its scenarios need; gives what takes the place of `it`.
 */
export function concurrent<World>(
  fixtures: ConcurrentFixtures<World>,
): (title: string, scenario: Scenario<World>) => void {
  const scenarios: Scenario<World>[] = [];
  let outcomes: Promise<ScenarioOutcome>[] = [];

  before('all scenarios begin', () => {
    outcomes = scenarios.map((scenario) => runScenario(fixtures, scenario));
  });
  // One that its test gave up must not go on beside the tests that follow.
  after('all scenarios have ended', async function () {
    this.timeout(fixtures.timeoutMs);
    await Promise.all(outcomes);
  });

  return (title, scenario) => {
    const index = scenarios.push(scenario) - 1;
    it(title, async function () {
      this.timeout(fixtures.timeoutMs);
      const outcome = await outcomes[index];
      if (outcome === undefined) throw new Error('it was not begun');
      for (const text of outcome.messages) reportMeasurement(text);
      if ('error' in outcome) throw outcome.error;
    });
  };
}

/** Never rejects: a failure is kept for the test that owns it, which may wait for it only later. */
async function runScenario<World>(
  fixtures: ConcurrentFixtures<World>,
  scenario: Scenario<World>,
): Promise<ScenarioOutcome> {
  const messages: string[] = [];
  try {
    const fixture = await fixtures.open();
    try {
      await scenario(fixture, (text) => messages.push(text));
    } finally {
      await fixtures.close(fixture);
    }
    return { messages };
  } catch (error) {
    return { messages, error };
  }
}
