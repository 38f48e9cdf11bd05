import type { ApiServerObject } from './objects.ts';
import type { CompiledSchema } from './schema.ts';

/** The API server's knowledge of a kind in one version. */
export interface ApiKind {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  /** `group/version`, or only the version in the core group. */
  readonly apiVersion: string;
  readonly plural: string;
  readonly singular: string;
  readonly kind: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly namespaced: boolean;
  /** Whether it has a status subresource; status and other fields are then written separately. */
  readonly hasStatus: boolean;
  readonly schema: CompiledSchema;
  readonly columns: readonly PrinterColumn[];
  /** JSONPaths that field selectors may use, in addition to name and namespace. */
  readonly selectableFields: readonly string[];
  /** Whether a CRD defines it. */
  readonly isCustom: boolean;
}

/** A column of a table, as in a CRD. */
export interface PrinterColumn {
  readonly name: string;
  readonly type: 'string' | 'integer' | 'number' | 'boolean' | 'date';
  readonly jsonPath: string;
  readonly description?: string;
  /** Returns the cell, for built-in kinds whose cells are not values at a path. */
  readonly cell?: (object: ApiServerObject) => unknown;
  /** Columns above 0 are shown only in wide output. Default 0. */
  readonly priority?: number;
}
