import { reportMeasurement } from './report-measurement.ts';

/** The fixture of each scenario, such as a namespace, replicas or a folder. */
export interface ConcurrentFixtures<World> {
  /** Timeout of each scenario from the start of all, including the opening and closing of its fixture. */
  readonly timeoutMs: number;
  open(): Promise<World>;
  close(world: World): Promise<unknown>;
}

/** A scenario that may run concurrently with others. What it reports is printed below its test's line. */
type Scenario<World> = (world: World, told: (text: string) => void) => Promise<void>;

interface ScenarioOutcome {
  readonly messages: readonly string[];
  /** Set when the scenario failed. */
  readonly error?: unknown;
}

/**
 * For tests that mostly wait, for example for a Lease to expire or for a minute without writes: all scenarios of a
 * `describe` start together and each `it` reports its own result, so the suite takes as long as the longest
 * scenario. Not suitable for measurements or for CPU-intensive tests, which would slow down the others.
 *
 * Must be called in a `describe`, after the hooks that its scenarios need. Returns a replacement for `it`.
 */
export function concurrent<World>(
  fixtures: ConcurrentFixtures<World>,
): (title: string, scenario: Scenario<World>) => void {
  const scenarios: Scenario<World>[] = [];
  let outcomes: Promise<ScenarioOutcome>[] = [];

  before('starts all scenarios', () => {
    outcomes = scenarios.map((scenario) => runScenario(fixtures, scenario));
  });
  // A scenario whose test has timed out must not continue during the tests that follow.
  after('waits until all scenarios have ended', async function () {
    this.timeout(fixtures.timeoutMs);
    await Promise.all(outcomes);
  });

  return (title, scenario) => {
    const index = scenarios.push(scenario) - 1;
    it(title, async function () {
      this.timeout(fixtures.timeoutMs);
      const outcome = await outcomes[index];
      if (outcome === undefined) throw new Error('the scenario was not started');
      for (const text of outcome.messages) reportMeasurement(text);
      if ('error' in outcome) throw outcome.error;
    });
  };
}

/** Runs a scenario. Never rejects: an error is kept for the test that reports it. */
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
