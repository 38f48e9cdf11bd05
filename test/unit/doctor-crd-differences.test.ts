import { expect } from 'chai';
import { crdDifferences, type CrdSchema } from '../../src/doctor/crd-differences.ts';

const SCHEMA = {
  properties: {
    metadata: { type: 'object' },
    spec: {
      description: 'What it is.',
      properties: {
        nodeID: { type: 'string', maxLength: 257, description: 'Who.' },
        description: { type: 'string' },
      },
      required: ['nodeID'],
    },
    status: { default: { state: 'Connected' }, properties: { state: { enum: ['Connected', 'Unknown'] } } },
  },
};
const SHIPPED: CrdSchema = { schema: SCHEMA, selectableFields: ['spec.nodeID', 'status.state'] };

/** The schema with one change made by `change`. */
function changed(change: (schema: typeof SCHEMA) => void): CrdSchema {
  const schema = structuredClone(SCHEMA);
  change(schema);
  return { ...SHIPPED, schema };
}

const paths = (served: CrdSchema): string[] =>
  crdDifferences(SHIPPED, served).map(({ severity, path }) => `${severity} ${path}`);

describe('the kind that is served, against the one that is shipped', () => {
  it('the same: no difference', () => {
    expect(paths(structuredClone(SHIPPED))).to.deep.equal([]);
  });

  it('another description, and another metadata: none that matters', () => {
    const served = changed(({ properties }) => {
      properties.spec.description = 'Else.';
      properties.spec.properties.nodeID.description = 'Else.';
      properties.metadata.type = 'any';
    });
    expect(paths(served)).to.deep.equal([]);
  });

  it('another bound, a missing field (one called description too), another list: each by its path', () => {
    const served = changed(({ properties }) => {
      properties.spec.properties.nodeID.maxLength = 128;
      Reflect.deleteProperty(properties.spec.properties, 'description');
      properties.spec.required.push('description');
    });
    expect(paths(served)).to.have.members([
      'schema spec.nodeID.maxLength',
      'schema spec.description',
      'schema spec.required',
    ]);
  });

  it('another default of the status: counted on', () => {
    const served = changed(({ properties }) => {
      properties.status.default.state = 'Reported';
    });
    expect(paths(served)).to.deep.equal(['contract status.default.state']);
  });

  it('a selectable field less: counted on; one more is nobody’s harm', () => {
    expect(paths({ ...SHIPPED, selectableFields: ['spec.nodeID', 'spec.more'] })).to.deep.equal([
      'contract selectableFields status.state',
    ]);
  });

  it('something that is no schema: differs', () => {
    expect(paths({ schema: undefined, selectableFields: [] })).to.have.length.greaterThan(2);
  });
});
