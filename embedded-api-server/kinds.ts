import { readdirSync, readFileSync } from 'node:fs';
import { parse } from 'yaml';
import type { ApiKind, PrinterColumn } from './api-kind.ts';
import { BUILT_IN_KINDS } from './built-in-kinds.ts';
import { isJsonObject, type JsonObject } from './objects.ts';
import { CompiledSchema, type Schema } from './schema.ts';

const CRD_FOLDER = new URL('../crds/', import.meta.url);

/** The part of a CRD that is evaluated. */
interface CustomResourceDefinition {
  readonly spec: {
    readonly group: string;
    readonly scope: 'Namespaced' | 'Cluster';
    readonly names: {
      readonly plural: string;
      readonly singular?: string;
      readonly kind: string;
      readonly shortNames?: readonly string[];
      readonly categories?: readonly string[];
    };
    readonly versions: readonly {
      readonly name: string;
      readonly served: boolean;
      readonly subresources?: { readonly status?: object };
      readonly schema: { readonly openAPIV3Schema: Schema };
      readonly additionalPrinterColumns?: readonly PrinterColumn[];
      readonly selectableFields?: readonly { readonly jsonPath: string }[];
    }[];
  };
}

const DEFAULT_COLUMNS: readonly PrinterColumn[] = [
  { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
];

/**
 * Returns the kind of the first served version of a CRD. Conversion between versions is not supported.
 *
 * @throws Error if it has no served version, or a rule that is not supported
 */
export function kindOfCrd(crd: object): ApiKind {
  const { group, scope, names, versions } = (crd as CustomResourceDefinition).spec;
  const version = versions.find(({ served }) => served);
  if (version === undefined) throw new Error(`${names.plural}.${group}: no version is served`);
  return {
    group,
    version: version.name,
    apiVersion: `${group}/${version.name}`,
    plural: names.plural,
    singular: names.singular ?? names.kind.toLowerCase(),
    kind: names.kind,
    shortNames: names.shortNames ?? [],
    categories: names.categories ?? [],
    namespaced: scope === 'Namespaced',
    hasStatus: version.subresources?.status !== undefined,
    schema: new CompiledSchema(version.schema.openAPIV3Schema),
    columns: version.additionalPrinterColumns ?? DEFAULT_COLUMNS,
    selectableFields: (version.selectableFields ?? []).map(({ jsonPath }) => jsonPath),
    isCustom: true,
  };
}

/** Returns the CRDs of this project, as parsed YAML. */
export function readProjectCrds(): JsonObject[] {
  return readdirSync(CRD_FOLDER)
    .toSorted()
    .map((file): unknown => parse(readFileSync(new URL(file, CRD_FOLDER), 'utf8')))
    .filter((crd) => isJsonObject(crd));
}

/** The kinds that this project reads and writes, by plural: those of `crds/`, and the built-in ones. */
export const API_KINDS: Readonly<Record<string, ApiKind>> = Object.fromEntries(
  [...BUILT_IN_KINDS, ...readProjectCrds().map((crd) => kindOfCrd(crd))].map((kind) => [kind.plural, kind]),
);
