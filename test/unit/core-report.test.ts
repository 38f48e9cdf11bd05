import { expect } from 'chai';

import { reporterViolation, tunnelViolation, type ReportedIdentity } from '../../src/core/report.ts';
import { stripTenantPrefix } from '../../src/core/tunnel.ts';

const IDENTITY: ReportedIdentity = { tenantID: 'acme', clusterID: 'eu-1', nodeID: 'node-17' };

const long = (length: number): string => 'é'.repeat(length);

function violationOf(name: string, identity: ReportedIdentity | undefined): [string, string] | undefined {
  const violation = tunnelViolation(name, identity, () => 'added_tunnels[3]');
  if (violation === undefined) return undefined;
  expect(violation.message.startsWith(`${violation.field}: `), violation.message).to.equal(true);
  return [violation.field, violation.reason];
}

describe('stripTenantPrefix', () => {
  it('removes exactly one prefix of the own tenant and a colon', () => {
    expect(stripTenantPrefix('acme', 'acme:node-17')).to.equal('node-17');
    expect(stripTenantPrefix('acme', 'acme:acme:node')).to.equal('acme:node');
    expect(stripTenantPrefix('a:b', 'a:b:node')).to.equal('node');
    expect(stripTenantPrefix('acme', 'node-17')).to.equal('node-17');
    expect(stripTenantPrefix('acme', 'other:node')).to.equal('other:node');
    expect(stripTenantPrefix('acme', 'acmenode')).to.equal('acmenode');
    expect(stripTenantPrefix('acme', 'acme-node')).to.equal('acme-node');
    expect(stripTenantPrefix('acme', 'Acme:node')).to.equal('Acme:node');
    expect(stripTenantPrefix('😀', '😀:node')).to.equal('node');
  });

  it('keeps an ID that is nothing but the prefix', () => {
    expect(stripTenantPrefix('acme', 'acme:')).to.equal('acme:');
    expect(stripTenantPrefix('acme', 'acme')).to.equal('acme');
    expect(stripTenantPrefix('acme', '')).to.equal('');
  });
});

describe('tunnelViolation', () => {
  const identities: [situation: string, ReportedIdentity | undefined, string, string][] = [
    ['without identity', undefined, 'identity', 'missing'],
    ['without tenant', { ...IDENTITY, tenantID: '' }, 'identity.tenant_id', 'empty'],
    ['without cluster', { ...IDENTITY, clusterID: '' }, 'identity.cluster_id', 'empty'],
    ['without node', { ...IDENTITY, nodeID: '' }, 'identity.node_id', 'empty'],
    ['with a tenant of 129', { ...IDENTITY, tenantID: long(129) }, 'identity.tenant_id', 'too_long'],
    ['with a cluster of 129', { ...IDENTITY, clusterID: long(129) }, 'identity.cluster_id', 'too_long'],
    ['with a node of 129', { ...IDENTITY, nodeID: long(129) }, 'identity.node_id', 'too_long'],
    [
      'with a node of 129 after its prefix',
      { ...IDENTITY, nodeID: `acme:${long(129)}` },
      'identity.node_id',
      'too_long',
    ],
    [
      'with a node of 128 after another prefix',
      { ...IDENTITY, nodeID: `beta:${long(128)}` },
      'identity.node_id',
      'too_long',
    ],
    ['with NUL in its tenant', { ...IDENTITY, tenantID: 'a\0' }, 'identity.tenant_id', 'forbidden_character'],
    [
      'with a newline in its cluster',
      { ...IDENTITY, clusterID: 'a\n' },
      'identity.cluster_id',
      'forbidden_character',
    ],
    [
      'with a bidirectional override in its node',
      { ...IDENTITY, nodeID: 'a\u202eb' },
      'identity.node_id',
      'forbidden_character',
    ],
  ];
  for (const [situation, identity, field, reason] of identities) {
    it(`rejects a tunnel ${situation} as ${reason}`, () => {
      expect(violationOf('node-17', identity)).to.deep.equal([`added_tunnels[3].${field}`, reason]);
    });
  }

  it('rejects a name that is empty, longer than 512 or contains a control character', () => {
    expect(violationOf('', IDENTITY)).to.deep.equal(['added_tunnels[3].name', 'empty']);
    expect(violationOf(long(513), IDENTITY)).to.deep.equal(['added_tunnels[3].name', 'too_long']);
    expect(violationOf('a\u0085', IDENTITY)).to.deep.equal(['added_tunnels[3].name', 'forbidden_character']);
    expect(violationOf(long(512), IDENTITY)).to.equal(undefined);
  });

  it('accepts every part at its limit, with or without a prefix', () => {
    const tenantID = '😀'.repeat(128);
    const identity = { tenantID, clusterID: `${tenantID}:${long(128)}`, nodeID: `${tenantID}:${long(128)}` };
    expect(violationOf(`${tenantID}:${long(128)}`, identity)).to.equal(undefined);
    expect(violationOf('n', { tenantID: long(128), clusterID: long(128), nodeID: long(128) })).to.equal(
      undefined,
    );
  });

  it('accepts names of properties of a prototype', () => {
    for (const name of ['__proto__', 'constructor', 'toString']) {
      expect(violationOf(name, { tenantID: name, clusterID: name, nodeID: name })).to.equal(undefined);
    }
  });
});

describe('reporterViolation', () => {
  it('requires an ID and accepts an empty cluster', () => {
    expect(reporterViolation('responder-0', '')).to.equal(undefined);
    expect(reporterViolation('', 'edge')).to.include({ field: 'node.id', reason: 'empty' });
  });

  it('rejects more than 256 characters and control characters in either part', () => {
    const longest = '😀'.repeat(256);
    expect(reporterViolation(longest, longest)).to.equal(undefined);
    expect(reporterViolation(`${longest}x`, '')).to.include({ field: 'node.id', reason: 'too_long' });
    expect(reporterViolation('r', `${longest}x`)).to.include({ field: 'node.cluster', reason: 'too_long' });
    expect(reporterViolation('r\u007f', '')).to.include({ field: 'node.id', reason: 'forbidden_character' });
    expect(reporterViolation('r', '\u2067')).to.include({
      field: 'node.cluster',
      reason: 'forbidden_character',
    });
  });
});
