import { expect } from 'chai';
import { apiHalfOpen, apiOutages, apiRefuses } from '../faults/real/api-outages.ts';
import { figureText, held } from '../faults/real/figure.ts';
import { allThere } from '../faults/real/judge.ts';
import { rowCrdDeleted } from '../faults/real/kinds-and-namespaces.ts';
import { refusedByPolicy } from '../faults/real/refused-rows.ts';
import { SMALL, type FaultScenario } from '../faults/real/scenario.ts';
import { openStage, type Stage } from '../faults/real/stage.ts';
import { etcdCompacted, etcdRestored } from '../faults/real/store-faults.ts';
import { FIRST_START_TIMEOUT_MS } from '../support/control-plane.ts';
import { tell } from '../support/tell.ts';

const DEADLINE_MS = 120_000;

/** A share of `npm run test:faults -- --real`, small and in every run. */
describe('faults over real processes', () => {
  let stage: Stage;

  before('a control plane of its own, two replicas, 200 tunnels', async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    stage = await openStage({ replicas: 2, reporters: 10, tunnels: 20, seed: 1 });
    await allThere(stage, DEADLINE_MS);
  });
  after(() => stage.close());

  const scenarios: readonly FaultScenario[] = [
    // Of the outages those that no other test has; `npm run test:faults -- --real` has all.
    ...apiOutages.filter(({ name }) => name === 'api-unreachable-1s'),
    apiRefuses,
    etcdCompacted,
    etcdRestored,
    ...refusedByPolicy.slice(0, 1),
    rowCrdDeleted,
    apiHalfOpen,
  ];
  for (const scenario of scenarios) {
    it(`${scenario.about}: rows are the truth again, and nobody is touched who need not be`, async function () {
      this.timeout(DEADLINE_MS);
      const figures = await scenario.run(stage, SMALL, () => {});
      tell(figures.map(figureText).join(', '));
      expect(figures.filter((figure) => !held(figure))).to.deep.equal([]);
    });
  }
});
