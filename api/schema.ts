/** The kinds of `crds/`, as the generators of types read them. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

/** The parts of a structural schema that the generators use. */
export interface Schema {
  readonly type: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean';
  readonly description?: string;
  readonly format?: string;
  readonly enum?: readonly string[];
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  /** Schema of the values of a map, whose keys are texts. */
  readonly additionalProperties?: Schema;
}

/** A kind at its only version. */
export interface Kind {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly shortNames: readonly string[];
  readonly schema: Schema;
}

/** A type that the generators declare: an object of a schema with a name. */
export interface NamedType {
  readonly name: string;
  readonly schema: Schema;
}

/**
 * Names of the types of nested objects, by their path below the kind. Every nested object needs one, except conditions,
 * which have the type of Kubernetes. Names are part of the API: Go programs and TypeScript programs use them.
 */
const TYPE_NAMES: Readonly<Record<string, string>> = {
  'ReverseTunnel.spec': 'ReverseTunnelSpec',
  'ReverseTunnel.spec.reporter': 'ReporterReference',
  'ReverseTunnel.status': 'ReverseTunnelStatus',
  'ReverseTunnelReporter.spec': 'ReverseTunnelReporterSpec',
  'ReverseTunnelReporter.status': 'ReverseTunnelReporterStatus',
  'ReverseTunnelReporter.status.owner': 'ReporterOwner',
  'ReverseTunnelReporter.status.lastFullPush': 'FullPush',
  'ReverseTunnelReporter.status.tunnels': 'TunnelCounts',
  'ReverseTunnelReporter.status.locality': 'Locality',
  'ReverseTunnelReporter.status.recentDisconnects[]': 'ReporterDisconnect',
  'ReverseTunnelPolicy.spec': 'ReverseTunnelPolicySpec',
  'ReverseTunnelPolicy.spec.rules[]': 'PolicyRule',
  'ReverseTunnelPolicy.spec.rules[].peers[]': 'PolicyPeer',
  'ReverseTunnelPolicy.spec.rules[].peers[].serviceAccount': 'ServiceAccountReference',
  'ReverseTunnelPolicy.spec.rules[].reporters': 'ReporterMatcher',
  'ReverseTunnelPolicy.spec.rules[].limits': 'PolicyLimits',
  'ReverseTunnelPolicy.status': 'ReverseTunnelPolicyStatus',
  'ReverseTunnelExpectation.spec': 'ReverseTunnelExpectationSpec',
  'ReverseTunnelExpectation.spec.match': 'TunnelMatch',
  'ReverseTunnelExpectation.spec.match.selector': 'TunnelSelector',
  'ReverseTunnelExpectation.spec.match.selector.matchExpressions[]': 'TunnelSelectorRequirement',
  'ReverseTunnelExpectation.status': 'ReverseTunnelExpectationStatus',
  'ReverseTunnelSlice.spec': 'ReverseTunnelSliceSpec',
  'ReverseTunnelSlice.spec.reporter': 'SliceReporter',
  'ReverseTunnelSlice.spec.tunnels[]': 'SliceTunnel',
  'ReverseTunnelSlice.status': 'ReverseTunnelSliceStatus',
  'ReverseTunnelSlice.status.tunnels[]': 'SliceTunnelState',
};

const CRDS = join(import.meta.dirname, '..', 'crds');

/** Returns the kinds of `crds/` in the order of their names. @throws Error if one has another number of versions than one */
export function readKinds(): Kind[] {
  return readdirSync(CRDS)
    .toSorted()
    .map((file) => {
      const { spec } = parse(readFileSync(join(CRDS, file), 'utf8')) as {
        spec: {
          group: string;
          names: { kind: string; plural: string; shortNames: string[] };
          versions: { name: string; schema: { openAPIV3Schema: Schema } }[];
        };
      };
      const [version, ...others] = spec.versions;
      if (version === undefined || others.length > 0) throw new Error(`crds/${file}: one version expected`);
      const { kind, plural, shortNames } = spec.names;
      const schema = version.schema.openAPIV3Schema;
      return { group: spec.group, version: version.name, kind, plural, shortNames, schema };
    });
}

/** True for the list of conditions, which has the type of Kubernetes. */
export function isConditions(name: string, schema: Schema): boolean {
  return name === 'conditions' && schema.type === 'array';
}

/** True for a map from texts to texts, the only kind of map in the API. */
export function isMap({ type, additionalProperties }: Schema): boolean {
  return type === 'object' && additionalProperties !== undefined;
}

/** Returns the name of the type of a nested object. @throws Error if `TYPE_NAMES` has none */
export function typeName(path: string): string {
  const name = TYPE_NAMES[path];
  if (name === undefined) throw new Error(`api/schema.ts: TYPE_NAMES has no name for ${path}`);
  return name;
}

/** A nested type with its path below the kind. */
export type NestedType = NamedType & { readonly path: string };

/** Returns the types of the nested objects of a kind, parents first. */
export function nestedTypes({ kind, schema }: Kind): Generator<NestedType> {
  return typesBelow(schema, kind);
}

function* typesBelow(schema: Schema, path: string): Generator<NestedType> {
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    if (isConditions(name, property) || isMap(property)) continue;
    const isList = property.type === 'array';
    const element = isList ? property.items : property;
    if (element?.type !== 'object') continue;
    const elementPath = `${path}.${name}${isList ? '[]' : ''}`;
    yield { path: elementPath, name: typeName(elementPath), schema: element };
    yield* typesBelow(element, elementPath);
  }
}

/** Wraps text into comment lines of at most 116 characters after `prefix`. */
export function commentLines(text: string, prefix: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + word.length > 100) {
      lines.push(`${prefix}${line}`);
      line = '';
    }
    line += line === '' ? word : ` ${word}`;
  }
  return [...lines, `${prefix}${line}`];
}
