/** What an administrator does to etcd: history is thrown away, an older state is put back. */
import { apiWatches, startApi } from './api-return.ts';
import { change } from './changes.ts';
import { backUpEtcd, compactEtcd, restoreEtcd } from './etcd.ts';
import { deleteRows, rowNames, without } from './hands.ts';
import { common, converged, photograph, placeOf, served } from './judge.ts';
import type { FaultScenario } from './scenario.ts';
import type { Stage } from './stage.ts';

const DEADLINE_MS = 90_000;
const BY_HAND = 20;

/** A watch that was cut off and goes on finds its version gone: 410, and only a list can tell what was missed. */
export const etcdCompacted: FaultScenario = {
  name: 'etcd-compacted',
  about: 'operators cut off, rows deleted by hand, etcd compacted, kube-apiserver restarted: 410',
  async run(stage, sizes, doing) {
    const photographed = await photograph(stage);
    const lists = listsOf(stage);
    doing('cut off');
    stage.apiWay.cut();
    const names = (await rowNames(stage)).slice(0, BY_HAND);
    const gone = names.map(({ place }) => place);
    try {
      await deleteRows(
        stage,
        names.map(({ name }) => name),
      );
      change(stage, sizes.changes);
      await compactEtcd(stage.controlPlane);
      await stage.controlPlane.apiserver.kill();
      await startApi(stage);
    } finally {
      stage.apiWay.pass();
    }
    doing('back');
    await stage.fleet.settled();
    const after = await converged(stage, without(photographed, gone), DEADLINE_MS);
    await served(stage, DEADLINE_MS);
    const { length } = stage.replicas.running;
    return [
      ...common(stage, after, 10),
      { what: 'rows listed anew', value: listsOf(stage) - lists, atLeast: length },
    ];
  },
};

/** The store goes back in time: rows that went are there again, others are gone, and versions begin anew. */
export const etcdRestored: FaultScenario = {
  name: 'etcd-restored',
  about: 'etcd put back to a state before the last changes',
  async run(stage, sizes, doing) {
    doing('backing up');
    await backUpEtcd(stage.controlPlane);
    const ofBackup = await photograph(stage);
    change(stage, sizes.changes);
    await stage.fleet.settled();
    await converged(stage, ofBackup, DEADLINE_MS);
    doing('restoring');
    await restoreEtcd(stage.controlPlane);
    await apiWatches(stage);
    const after = await converged(stage, ofBackup, DEADLINE_MS);
    const servedMs = await served(stage, DEADLINE_MS);
    const restored = new Set(ofBackup.rows.keys());
    const made = after.rows.filter((row) => !restored.has(placeOf(row))).length;
    return [
      ...common(stage, after, 10),
      { what: 'reporters in sync', value: (after.tookMs + servedMs) / 1000, unit: 's', atMost: 30 },
      { what: 'rows made once more', value: made, atLeast: 1 },
    ];
  },
};

/** Lists of rows, over all replicas that run. */
function listsOf({ replicas }: Stage): number {
  return replicas.running.reduce(
    (sum, { process }) =>
      sum + process.log.filter(({ error }) => String(error).startsWith('list reversetunnels.')).length,
    0,
  );
}
