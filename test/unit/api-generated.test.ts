import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { generatedApiFiles } from '../../api/generated.ts';
import { readKinds, typeName } from '../../api/schema.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const files = generatedApiFiles();

/** Returns the content of the generated file whose path ends with `suffix`. */
function generated(suffix: string): string {
  return [...files].find(([path]) => path.endsWith(suffix))?.[1] ?? expect.fail(suffix);
}

describe('generated types and schemas of the API', () => {
  it('are up to date; otherwise run npm run api', () => {
    expect(files.size).to.equal(2 + readKinds().length);
    for (const [path, text] of files) expect(readFileSync(path, 'utf8'), path).to.equal(text);
    const schemas = readdirSync(join(ROOT, 'schemas'), { recursive: true, encoding: 'utf8' });
    expect(schemas.filter((name) => name.endsWith('.json'))).to.have.length(readKinds().length);
  });

  it('declare every kind with its list in Go and in TypeScript', () => {
    for (const { kind } of readKinds()) {
      expect(generated('types.go')).to.include(`type ${kind} struct`).and.include(`&${kind}List{},`);
      expect(generated('v1alpha1.d.ts'))
        .to.include(`interface ${kind}<`)
        .and.include(`interface ${kind}List<`);
    }
  });

  it('distinguish absent numbers and booleans from 0 and false in Go', () => {
    expect(generated('types.go')).to.include('Rules *int64 `json:"rules,omitempty"`');
    expect(generated('types.go')).to.include('Any *bool `json:"any,omitempty"`');
    expect(generated('types.go')).to.include('Cluster string `json:"cluster"`');
  });

  it('have JSON Schemas that reject unknown fields and contain nothing that only Kubernetes understands', () => {
    for (const { kind, group, version } of readKinds()) {
      const text = generated(join('schemas', group, `${kind.toLowerCase()}_${version}.json`));
      expect(text).to.not.include('x-kubernetes-');
      const schema = JSON.parse(text) as {
        required: string[];
        additionalProperties: boolean;
        properties: Record<string, { enum?: string[]; additionalProperties?: boolean; properties?: object }>;
      };
      expect(schema.required).to.deep.equal(['apiVersion', 'kind', 'spec']);
      expect(schema.additionalProperties).to.equal(false);
      expect(schema.properties['kind']?.enum).to.deep.equal([kind]);
      expect(schema.properties['spec']?.additionalProperties).to.equal(false);
      expect(schema.properties['metadata']?.additionalProperties).to.equal(undefined);
    }
  });

  it('need a name for each nested object, so that no name of the API changes unnoticed', () => {
    expect(typeName('ReverseTunnel.spec.reporter')).to.equal('ReporterReference');
    expect(() => typeName('ReverseTunnel.spec.new')).to.throw(
      'TYPE_NAMES has no name for ReverseTunnel.spec.new',
    );
  });
});
