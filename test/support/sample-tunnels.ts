import { hash } from 'node:crypto';

import type { Report } from '../../src/core/report.ts';
import { createNames, type Names } from '../../src/core/names.ts';
import type { ReporterId, Tunnel } from '../../src/core/tunnel.ts';

/** Names as the operator derives them. */
export const names: Names = createNames((text) => hash('sha256', text, 'buffer'));

export const RESPONDER: ReporterId = { cluster: 'edge', id: 'responder-0' };
/** Another reporter of the same cluster. */
export const OTHER_RESPONDER: ReporterId = { cluster: 'edge', id: 'responder-1' };

/** Returns a tunnel as Envoy reports it without tenant isolation, named after its initiator. */
export function tunnel(name: string, overrides: Partial<Tunnel> = {}): Tunnel {
  return {
    name,
    tenantID: 'acme',
    clusterID: 'eu-1',
    nodeID: name,
    createdAt: '2026-11-23T05:00:00.123456Z',
    ...overrides,
  };
}

/** Returns a full push. */
export function fullPush(...added: Tunnel[]): Report {
  return { fullPush: true, added, removedNames: [] };
}

/** Returns a delta. */
export function delta(added: readonly Tunnel[], removedNames: readonly string[] = []): Report {
  return { fullPush: false, added, removedNames };
}
