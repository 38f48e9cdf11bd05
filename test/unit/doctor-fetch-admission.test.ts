import { expect } from 'chai';
import {
  matchedResources,
  matchesLabels,
  type AdmissionRule,
  type LabelSelector,
} from '../../src/doctor/fetch-admission.ts';

const RULE: AdmissionRule = {
  apiGroups: ['*'],
  apiVersions: ['*'],
  operations: ['*'],
  resources: ['*/*'],
};
const OBJECTS = [
  'reversetunnels',
  'reversetunnelreporters',
  'reversetunnelslices',
  'reversetunnelexpectations',
];
const STATUSES = OBJECTS.map((name) => `${name}/status`);

describe('the rules of a mutating webhook or policy', () => {
  const table: readonly [description: string, rule: AdmissionRule, resources: readonly string[]][] = [
    ['with */*', RULE, [...OBJECTS, ...STATUSES]],
    ['with *', { ...RULE, resources: ['*'] }, OBJECTS],
    ['with */status', { ...RULE, resources: ['*/status'] }, STATUSES],
    ['with one resource', { ...RULE, resources: ['reversetunnels'] }, ['reversetunnels']],
    [
      'with a resource and all of its subresources',
      { ...RULE, resources: ['reversetunnels', 'reversetunnels/*'] },
      ['reversetunnels', 'reversetunnels/status'],
    ],
    ['with a subresource', { ...RULE, resources: ['reversetunnels/status'] }, ['reversetunnels/status']],
    ['for the group', { ...RULE, apiGroups: ['', 'reverse-tunnel.io'] }, [...OBJECTS, ...STATUSES]],
    ['for another group', { ...RULE, apiGroups: ['apps'] }, []],
    ['for another version', { ...RULE, apiVersions: ['v2'] }, []],
    ['for updates', { ...RULE, operations: ['UPDATE'] }, [...OBJECTS, ...STATUSES]],
    ['for deletes', { ...RULE, operations: ['DELETE', 'CONNECT'] }, []],
    ['for cluster-scoped objects', { ...RULE, scope: 'Cluster' }, []],
    ['for namespaced objects', { ...RULE, scope: 'Namespaced' }, [...OBJECTS, ...STATUSES]],
    [
      'with the status of expectations',
      { ...RULE, resources: ['reversetunnelexpectations/status'] },
      ['reversetunnelexpectations/status'],
    ],
    ['for pods', { ...RULE, resources: ['pods', 'pods/status'] }, []],
    ['without anything', {}, []],
  ];
  for (const [description, rule, resources] of table) {
    it(`${description} match ${resources.join(', ') || 'nothing'}`, () => {
      expect(matchedResources([rule])).to.have.members(resources);
    });
  }
});

describe('a namespaceSelector', () => {
  const labels = { team: 'edge', 'kubernetes.io/metadata.name': 'tunnels' };
  const expression = (key: string, operator: string, values?: string[]): LabelSelector => ({
    matchExpressions: [{ key, operator, ...(values === undefined ? {} : { values }) }],
  });
  const table: readonly [selector: LabelSelector | undefined, matches: boolean][] = [
    [undefined, true],
    [{}, true],
    [{ matchLabels: { team: 'edge' } }, true],
    [{ matchLabels: { team: 'other' } }, false],
    [expression('team', 'In', ['edge', 'x']), true],
    [expression('team', 'In', ['x']), false],
    [expression('other', 'In', ['x']), false],
    [expression('kubernetes.io/metadata.name', 'NotIn', ['kube-system']), true],
    [expression('kubernetes.io/metadata.name', 'NotIn', ['tunnels']), false],
    [expression('team', 'Exists'), true],
    [expression('other', 'Exists'), false],
    [expression('team', 'DoesNotExist'), false],
    [expression('other', 'DoesNotExist'), true],
  ];
  for (const [selector, matches] of table) {
    it(`${JSON.stringify(selector)} ${matches ? 'matches' : 'does not match'} the namespace`, () => {
      expect(matchesLabels(selector, labels)).to.equal(matches);
    });
  }

  it('matches if the labels of the namespace are not known', () => {
    expect(matchesLabels({ matchLabels: { team: 'other' } }, undefined)).to.equal(true);
  });
});
