/** The labels of an object. */
type Labels = Readonly<Record<string, string>>;

/** One requirement of a label selector. */
export interface SelectorRequirement {
  /** As given, without surrounding blanks. */
  readonly text: string;
  readonly key: string;
  readonly isMet: (labels: Labels) => boolean;
}

/** The requirements, all of which must be met, or why the text is not a label selector. */
export type ParsedSelector =
  { readonly requirements: readonly SelectorRequirement[] } | { readonly error: string };

/** A label selector that was given as a flag. */
export interface SelectorFlag {
  /** As given. */
  readonly text: string;
  readonly requirements: readonly SelectorRequirement[];
}

/** Accepts a label selector. */
export function labelSelector(
  text: string,
): { readonly value: SelectorFlag } | { readonly expected: string } {
  const parsed = parseLabelSelector(text);
  return 'error' in parsed ? { expected: parsed.error } : { value: { text, ...parsed } };
}

const VALUE = '(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?';
const KEY = '(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?';
const SET = new RegExp(`^(${KEY})\\s+(in|notin)\\s*\\((\\s*${VALUE}\\s*(?:,\\s*${VALUE}\\s*)*)\\)$`);
const EQUALITY = new RegExp(`^(${KEY})\\s*(==|=|!=)\\s*(${VALUE})$`);
const ORDER = new RegExp(`^(${KEY})\\s*([<>])\\s*(-?\\d{1,18})$`);
const EXISTENCE = new RegExp(`^(!?)\\s*(${KEY})$`);

/**
 * Parses a label selector as the API server does (`labels.Parse` of k8s.io/apimachinery): `a=b`, `a!=b`, `a in (b,c)`,
 * `a notin (b,c)`, `a`, `!a`, `a>1`, `a<1`, joined by commas. `!=` and `notin` are also met without the label.
 */
export function parseLabelSelector(text: string): ParsedSelector {
  const requirements: SelectorRequirement[] = [];
  for (const part of splitRequirements(text)) {
    const requirement = parseRequirement(part);
    if (requirement === undefined)
      return {
        error: `cannot parse ${JSON.stringify(part)}; must be a label selector such as a=b,c in (d,e),!f`,
      };
    requirements.push(requirement);
  }
  return { requirements };
}

/** Splits at commas outside of parentheses; a text without requirements gives none. */
function splitRequirements(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let index = 0; index < text.length; index += 1) {
    const character = text.charAt(index);
    if (character === '(') depth += 1;
    else if (character === ')') depth -= 1;
    else if (character === ',' && depth === 0) {
      parts.push(text.slice(start, index).trim());
      start = index + 1;
    }
  }
  parts.push(text.slice(start).trim());
  return parts.length === 1 && parts[0] === '' ? [] : parts;
}

function parseRequirement(text: string): SelectorRequirement | undefined {
  const set = SET.exec(text);
  if (set !== null) {
    const [, key = '', operator, list = ''] = set;
    const values = new Set(list.split(',').map((value) => value.trim()));
    const isIn = operator === 'in';
    return { text, key, isMet: (labels) => hasValue(labels, key, values) === isIn };
  }
  const equality = EQUALITY.exec(text);
  if (equality !== null) {
    const [, key = '', operator, value = ''] = equality;
    return { text, key, isMet: (labels) => (labels[key] === value) === (operator !== '!=') };
  }
  const order = ORDER.exec(text);
  if (order !== null) {
    const [, key = '', operator, limit = ''] = order;
    return { text, key, isMet: (labels) => compareIntegers(labels[key], operator === '>', BigInt(limit)) };
  }
  const existence = EXISTENCE.exec(text);
  if (existence === null) return undefined;
  const [, not, key = ''] = existence;
  return { text, key, isMet: (labels) => Object.hasOwn(labels, key) === (not === '') };
}

function hasValue(labels: Labels, key: string, values: ReadonlySet<string>): boolean {
  const value = labels[key];
  return value !== undefined && values.has(value);
}

function compareIntegers(value: string | undefined, isGreater: boolean, limit: bigint): boolean {
  if (value === undefined || !/^-?\d{1,18}$/.test(value)) return false;
  return isGreater ? BigInt(value) > limit : BigInt(value) < limit;
}
