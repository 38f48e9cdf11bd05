import type { ApiKind } from './api-kind.ts';
import { compileJsonPath } from './json-path.ts';
import type { ApiServerObject } from './objects.ts';

/** Reports whether an object is selected. */
export type Selector = (object: ApiServerObject) => boolean;

/** A selector that the API server rejects with 400. */
export class SelectorError extends Error {}

/**
 * Parses a label selector such as `a=b,c!=d,e in (f, g),h,!i`; selects everything when it is empty.
 *
 * @throws SelectorError if it is not valid
 */
export function parseLabelSelector(text: string): Selector {
  const requirements = splitRequirements(text).map((requirement) => parseLabelRequirement(requirement, text));
  return (object) => requirements.every((isMet) => isMet(object.metadata.labels ?? {}));
}

/**
 * Parses a field selector such as `metadata.name=a,spec.tenantID!=b`; selects everything when it is empty.
 *
 * @throws SelectorError if it is not valid, or names a field that the kind does not offer
 */
export function parseFieldSelector(text: string, kind: ApiKind): Selector {
  const requirements = text
    .split(',')
    .filter((requirement) => requirement !== '')
    .map((requirement) => {
      const [, field = '', operator, value = ''] = /^([^=!]+)(==?|!=)(.*)$/.exec(requirement) ?? [];
      if (operator === undefined)
        throw new SelectorError(`invalid selector: '${text}'; can't understand '${requirement}'`);
      const isOffered =
        field === 'metadata.name' ||
        (field === 'metadata.namespace' && kind.namespaced) ||
        kind.selectableFields.includes(`.${field}`);
      if (!isOffered) throw new SelectorError(`field label not supported: ${field}`);
      const read = compileJsonPath(`.${field}`);
      return (object: ApiServerObject) => (fieldText(read(object)[0]) === value) === (operator !== '!=');
    });
  return (object) => requirements.every((isMet) => isMet(object));
}

function fieldText(value: unknown): string {
  return typeof value === 'string' ? value : value === undefined ? '' : JSON.stringify(value);
}

/** Splits at commas outside of parentheses. */
function splitRequirements(text: string): string[] {
  return (text.match(/(?:[^,(]|\([^)]*\))+/g) ?? []).map((requirement) => requirement.trim());
}

function parseLabelRequirement(
  requirement: string,
  text: string,
): (labels: Readonly<Record<string, unknown>>) => boolean {
  const set = /^([^\s!=()]+)\s+(in|notin)\s*\(([^)]*)\)$/.exec(requirement);
  if (set !== null) {
    const [, key = '', operator, list = ''] = set;
    const values = new Set(list.split(',').map((value) => value.trim()));
    return (labels) => values.has(labels[key] as string) === (operator === 'in');
  }
  const unopened = /^[^\s!=()]+\s+(?:in|notin)\s+([^\s()]+)/.exec(requirement);
  if (unopened !== null)
    throw new SelectorError(`unable to parse requirement: found '${unopened[1]}' expected: '('`);
  const comparison = /^([^\s!=()]+)\s*(==?|!=)\s*([^\s!=()]*)$/.exec(requirement);
  if (comparison !== null) {
    const [, key = '', operator, value] = comparison;
    return (labels) => (labels[key] === value) === (operator !== '!=');
  }
  const existence = /^(!?)\s*([^\s!=()]+)$/.exec(requirement);
  if (existence !== null) {
    const [, not, key = ''] = existence;
    return (labels) => Object.hasOwn(labels, key) === (not === '');
  }
  throw new SelectorError(`unable to parse requirement: invalid selector ${JSON.stringify(text)}`);
}
