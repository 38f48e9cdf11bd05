import { expect } from 'chai';
import type { RowObject } from '../../src/core/row.ts';
import type { ModelRow } from './model.ts';

/**
 * Judges rows by the model's, as often as it is called in the course of one sequence: they say the same, every row is
 * Connected and Ready, and a tunnel that was held all the while still has its first row, by name and uid.
 */
export function rowsJudge(): (expected: readonly ModelRow[], rows: readonly RowObject[]) => void {
  const kept = new Map<string, { readonly life: number; readonly name: string; readonly uid: string }>();
  return (expected, rows) => {
    expect(rows.map(said).toSorted()).to.deep.equal(expected.map(text).toSorted());
    const lives = new Map(expected.map((row) => [text(row), row.life]));
    for (const row of rows) {
      const { name, uid } = row.metadata;
      const [ready, ...others] = row.status?.conditions ?? [];
      expect({ state: row.status?.state, others, ...ready }).to.deep.include({
        ...{ state: 'Connected', others: [], type: 'Ready', status: 'True', reason: 'Reported' },
      });
      const life = lives.get(said(row)) ?? 0;
      const place = JSON.stringify([row.spec.reporter.cluster, row.spec.reporter.id, row.spec.tunnelName]);
      const before = kept.get(place);
      if (before?.life === life)
        expect({ name, uid }, place).to.deep.equal({ name: before.name, uid: before.uid });
      kept.set(place, { life, name, uid });
    }
  };
}

function said({ spec }: RowObject): string {
  const { tunnelName, tenantID, clusterID, nodeID, reporter, createdAt } = spec;
  return JSON.stringify([
    reporter.cluster,
    reporter.id,
    tunnelName,
    tenantID,
    clusterID,
    nodeID,
    createdAt ?? null,
  ]);
}

function text({ cluster, id, name, tenantID, clusterID, nodeID, createdAt }: ModelRow): string {
  return JSON.stringify([cluster, id, name, tenantID, clusterID, nodeID, createdAt ?? null]);
}
