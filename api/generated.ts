/** The generated files of the API: Go types, TypeScript types and JSON Schemas. */
import { join } from 'node:path';
import { goTypes } from './go-types.ts';
import { jsonSchema } from './json-schema.ts';
import { readKinds } from './schema.ts';
import { typescriptTypes } from './typescript-types.ts';

const ROOT = join(import.meta.dirname, '..');

/** Returns the path and the content of every generated file. The names of schemas are those that kubeconform expects. */
export function generatedApiFiles(): Map<string, string> {
  const kinds = readKinds();
  const files = new Map([
    [join(ROOT, 'api', 'go', 'v1alpha1', 'types.go'), goTypes(kinds)],
    [join(ROOT, 'api', 'typescript', 'v1alpha1.d.ts'), typescriptTypes(kinds)],
  ]);
  for (const kind of kinds) {
    const name = `${kind.kind.toLowerCase()}_${kind.version}.json`;
    files.set(join(ROOT, 'schemas', kind.group, name), jsonSchema(kind));
  }
  return files;
}
