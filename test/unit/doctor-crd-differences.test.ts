import { expect } from 'chai';
import { crdDifferences, type CrdSchema } from '../../src/doctor/crd-differences.ts';

const SCHEMA = {
  properties: {
    metadata: { type: 'object' },
    spec: {
      description: 'Identity of the tunnel.',
      properties: {
        nodeID: { type: 'string', maxLength: 257, description: 'ID of the node.' },
        description: { type: 'string' },
      },
      required: ['nodeID'],
    },
    status: { default: { state: 'Connected' }, properties: { state: { enum: ['Connected', 'Unknown'] } } },
  },
};
const BUNDLED: CrdSchema = { schema: SCHEMA, selectableFields: ['spec.nodeID', 'status.state'] };

/** Returns the bundled CRD with a change to its schema. */
function withChange(change: (schema: typeof SCHEMA) => void): CrdSchema {
  const schema = structuredClone(SCHEMA);
  change(schema);
  return { ...BUNDLED, schema };
}

const paths = (installed: CrdSchema): string[] =>
  crdDifferences(BUNDLED, installed).map(({ severity, path }) => `${severity} ${path}`);

describe('differences between the installed and the bundled CRD', () => {
  it('returns nothing for equal CRDs', () => {
    expect(paths(structuredClone(BUNDLED))).to.deep.equal([]);
  });

  it('ignores descriptions and metadata', () => {
    const installed = withChange(({ properties }) => {
      properties.spec.description = 'Another text.';
      properties.spec.properties.nodeID.description = 'Another text.';
      properties.metadata.type = 'any';
    });
    expect(paths(installed)).to.deep.equal([]);
  });

  it('returns the path of a changed limit, a missing field (even one named description) and a changed list', () => {
    const installed = withChange(({ properties }) => {
      properties.spec.properties.nodeID.maxLength = 128;
      Reflect.deleteProperty(properties.spec.properties, 'description');
      properties.spec.required.push('description');
    });
    expect(paths(installed)).to.have.members([
      'schema spec.nodeID.maxLength',
      'schema spec.description',
      'schema spec.required',
    ]);
  });

  it('classifies a changed default of the status as contract', () => {
    const installed = withChange(({ properties }) => {
      properties.status.default.state = 'Reported';
    });
    expect(paths(installed)).to.deep.equal(['contract status.default.state']);
  });

  it('classifies a missing selectable field as contract, and ignores an additional one', () => {
    expect(paths({ ...BUNDLED, selectableFields: ['spec.nodeID', 'spec.more'] })).to.deep.equal([
      'contract selectableFields status.state',
    ]);
  });

  it('returns differences if there is no schema', () => {
    expect(paths({ schema: undefined, selectableFields: [] })).to.have.length.greaterThan(2);
  });
});
