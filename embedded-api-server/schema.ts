/**
 * Structural schemas of CRDs: pruning, defaults and validation, with the errors of apiextensions-apiserver.
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
 */
import { type CelProgram, compileCel } from './cel.ts';
import type { FieldError } from './field-error.ts';
import { isJsonObject, type JsonObject } from './objects.ts';

/** The part of a structural schema that is evaluated. */
export interface Schema {
  readonly description?: string;
  readonly type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean';
  readonly format?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly required?: readonly string[];
  readonly default?: unknown;
  readonly nullable?: boolean;
  readonly enum?: readonly unknown[];
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly 'x-kubernetes-list-type'?: 'atomic' | 'set' | 'map';
  readonly 'x-kubernetes-list-map-keys'?: readonly string[];
  readonly 'x-kubernetes-preserve-unknown-fields'?: boolean;
  readonly 'x-kubernetes-validations'?: readonly SchemaRule[];
}

interface SchemaRule {
  readonly rule: string;
  readonly message?: string;
  readonly messageExpression?: string;
  readonly reason?: string;
  /** The field that a failed rule is reported for, such as `.name`. Default: the one that has the rule. */
  readonly fieldPath?: string;
}

interface CompiledRule {
  readonly rule: CelProgram;
  /** Whether it compares with the previous value, and is therefore evaluated only for updates. */
  readonly isTransition: boolean;
  readonly message: (variables: Readonly<Record<string, unknown>>) => string;
  readonly reason: string;
  readonly fieldPath: string;
}

/** Rules are not evaluated for objects with such errors. */
const BLOCKING_REASONS: ReadonlySet<string> = new Set([
  'FieldValueNotSupported',
  'FieldValueRequired',
  'FieldValueTooLong',
  'FieldValueTooMany',
  'FieldValueTypeInvalid',
]);
/** Returned instead of the errors of rules. */
const RULES_NOT_CHECKED: FieldError = {
  reason: 'FieldValueInvalid',
  message:
    'Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation',
  field: '<nil>',
};

const DATE_TIME = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})$/;

/** A schema whose patterns and rules have been compiled. */
export class CompiledSchema {
  readonly root: Schema;
  readonly #patterns = new Map<string, RegExp>();
  readonly #rules = new Map<Schema, readonly CompiledRule[]>();

  /** @throws Error if a rule is outside of the supported part of CEL */
  constructor(root: Schema) {
    this.root = root;
    this.#compile(root);
  }

  /** Removes fields that the schema does not have. Their paths are appended to `unknown`. */
  prune(value: JsonObject, unknown: string[] = []): JsonObject {
    return pruneValue(this.root, value, '', unknown) as JsonObject;
  }

  /** Sets the defaults of missing fields. */
  applyDefaults(value: JsonObject): JsonObject {
    return defaultValue(this.root, value) as JsonObject;
  }

  /**
   * Returns the invalid fields.
   *
   * @param before the previous object; undefined for a create
   */
  validate(value: JsonObject, before: JsonObject | undefined): FieldError[] {
    const errors: FieldError[] = [];
    this.#validate(this.root, value, '', errors);
    if (this.#blocksRules(errors)) return [...errors, RULES_NOT_CHECKED];
    if (this.#rules.size > 0) this.#evaluate(this.root, value, before, '', errors);
    return errors;
  }

  /** Returns the invalid fields of a status that is written to the status subresource. Its rules are not supported. */
  validateStatus(status: unknown): FieldError[] {
    const errors: FieldError[] = [];
    const schema = this.root.properties?.['status'];
    if (schema !== undefined) this.#validate(schema, status, 'status', errors);
    // The real one validates the status as a document of its own, except for the paths of fields.
    for (const error of errors) {
      const name = error.field.slice('status.'.length);
      Object.assign(error, {
        message: error.message.replace(`: ${error.field} in body`, `: ${name} in body`),
      });
    }
    return this.#blocksRules(errors) ? [...errors, RULES_NOT_CHECKED] : errors;
  }

  #blocksRules(errors: readonly FieldError[]): boolean {
    return this.#rules.size > 0 && errors.some(({ reason }) => BLOCKING_REASONS.has(reason));
  }

  #compile(schema: Schema): void {
    if (schema.pattern !== undefined) this.#patterns.set(schema.pattern, compilePattern(schema.pattern));
    const rules = (schema['x-kubernetes-validations'] ?? []).map((rule) => compileRule(rule));
    if (rules.length > 0) this.#rules.set(schema, rules);
    for (const property of Object.values(schema.properties ?? {})) this.#compile(property);
    if (schema.items !== undefined) this.#compile(schema.items);
    if (typeof schema.additionalProperties === 'object') this.#compile(schema.additionalProperties);
  }

  #validate(schema: Schema, value: unknown, path: string, errors: FieldError[]): void {
    if (value === null && schema.nullable === true) return;
    if (schema.type !== undefined && !hasType(schema.type, value)) {
      const type = typeName(value);
      const text = `Invalid value: "${type}": ${path} in body must be of type ${schema.type}: "${type}"`;
      errors.push({ reason: 'FieldValueTypeInvalid', message: text, field: path });
      return;
    }
    const invalid = (detail: string): void =>
      void errors.push({
        reason: 'FieldValueInvalid',
        message: `Invalid value: ${Array.isArray(value) ? value.length : goQuote(value)}: ${path} in body ${detail}`,
        field: path,
      });
    if (schema.enum !== undefined && !schema.enum.includes(value)) {
      const supported = schema.enum.map((item) => JSON.stringify(String(item))).join(', ');
      const message = `Unsupported value: ${goQuote(value)}: supported values: ${supported}`;
      errors.push({ reason: 'FieldValueNotSupported', message, field: path });
    }
    if (typeof value === 'string') this.#validateString(schema, value, path, errors, invalid);
    else if (typeof value === 'number') validateNumber(schema, value, invalid);
    else if (Array.isArray(value)) this.#validateList(schema, value, path, errors, invalid);
    else if (isJsonObject(value)) this.#validateObject(schema, value, path, errors);
  }

  #validateString(
    schema: Schema,
    value: string,
    path: string,
    errors: FieldError[],
    invalid: (detail: string) => void,
  ): void {
    const { minLength = 0, maxLength = Infinity, pattern, format } = schema;
    // UTF-16 length is an upper bound of the number of code points.
    if (value.length > maxLength && Array.from(value).length > maxLength) {
      const message = `Too long: may not be more than ${maxLength} bytes`;
      errors.push({ reason: 'FieldValueTooLong', message, field: path });
    }
    if (value.length < minLength) invalid(`should be at least ${minLength} chars long`);
    if (pattern !== undefined && this.#patterns.get(pattern)?.test(value) === false)
      invalid(`should match '${pattern}'`);
    if (format === 'date-time' && (!DATE_TIME.test(value) || Number.isNaN(Date.parse(value)))) {
      const quoted = goQuote(value);
      const message = `Invalid value: ${quoted}: ${path} in body must be of type date-time: ${quoted}`;
      errors.push({ reason: 'FieldValueTypeInvalid', message, field: path });
    }
  }

  #validateList(
    schema: Schema,
    value: readonly unknown[],
    path: string,
    errors: FieldError[],
    invalid: (detail: string) => void,
  ): void {
    const { minItems = 0, maxItems = Infinity, items } = schema;
    if (value.length > maxItems) {
      const message = `Too many: ${value.length}: must have at most ${maxItems} items`;
      errors.push({ reason: 'FieldValueTooMany', message, field: path });
      return;
    }
    if (value.length < minItems) invalid(`should have at least ${minItems} items`);
    if (items !== undefined)
      for (const [index, item] of value.entries()) this.#validate(items, item, `${path}[${index}]`, errors);
    const identify = listIdentity(schema);
    if (identify === undefined) return;
    const seen = new Set<string>();
    for (const [index, item] of value.entries()) {
      const identity = identify(item);
      if (seen.has(identity)) {
        const message = `Duplicate value: ${identity}`;
        errors.push({ reason: 'FieldValueDuplicate', message, field: `${path}[${index}]` });
      }
      seen.add(identity);
    }
  }

  #validateObject(schema: Schema, value: JsonObject, path: string, errors: FieldError[]): void {
    for (const name of schema.required ?? []) {
      if (value[name] !== undefined) continue;
      errors.push({ reason: 'FieldValueRequired', message: 'Required value', field: join(path, name) });
    }
    const { properties = {}, additionalProperties } = schema;
    for (const [name, item] of Object.entries(value)) {
      // Metadata is not validated by the schema of a CRD.
      if (path === '' && name === 'metadata') continue;
      const property = properties[name] ?? additionalProperties;
      if (typeof property === 'object') this.#validate(property, item, join(path, name), errors);
    }
  }

  #evaluate(schema: Schema, value: unknown, before: unknown, path: string, errors: FieldError[]): void {
    for (const { rule, isTransition, message, reason, fieldPath } of this.#rules.get(schema) ?? []) {
      if (isTransition && before === undefined) continue;
      const variables = { self: value, oldSelf: before };
      if (holds(rule, variables)) continue;
      // Objects and lists are not printed.
      const shown = typeof value === 'object' ? '' : `: ${goQuote(value)}`;
      const prefix = reason === 'FieldValueForbidden' ? 'Forbidden' : `Invalid value${shown}`;
      errors.push({ reason, message: `${prefix}: ${message(variables)}`, field: `${path}${fieldPath}` });
    }
    if (Array.isArray(value)) {
      const { items } = schema;
      // Items of other lists than maps have no previous value: https://kubernetes.io/docs/reference/using-api/cel/
      if (items !== undefined)
        for (const [index, item] of value.entries())
          this.#evaluate(items, item, undefined, `${path}[${index}]`, errors);
    } else if (isJsonObject(value)) {
      for (const [name, property] of Object.entries(schema.properties ?? {})) {
        if (value[name] === undefined) continue;
        const previous = isJsonObject(before) ? before[name] : undefined;
        this.#evaluate(property, value[name], previous, join(path, name), errors);
      }
    }
  }
}

/** Returns true if the rule holds. A rule that cannot be evaluated, as for an invalid duration, does not. */
function holds(rule: CelProgram, variables: Readonly<Record<string, unknown>>): boolean {
  try {
    return rule(variables) === true;
  } catch {
    return false;
  }
}

function compileRule({
  rule,
  message,
  messageExpression,
  reason = 'FieldValueInvalid',
  fieldPath = '',
}: SchemaRule): CompiledRule {
  const expression = messageExpression === undefined ? undefined : compileCel(messageExpression);
  return {
    rule: compileCel(rule),
    isTransition: /\boldSelf\b/.test(rule),
    message: (variables) =>
      (expression?.(variables) as string | undefined) ?? message ?? `failed rule: ${rule}`,
    reason,
    fieldPath,
  };
}

/** Converts RE2 syntax for characters to that of JavaScript. */
function compilePattern(pattern: string): RegExp {
  return new RegExp(pattern.replaceAll(/\\x\{([0-9a-fA-F]+)\}/g, String.raw`\u{$1}`), 'u');
}

function hasType(type: NonNullable<Schema['type']>, value: unknown): boolean {
  switch (type) {
    case 'object':
      return isJsonObject(value);
    case 'array':
      return Array.isArray(value);
    case 'integer':
      return Number.isInteger(value);
    case 'string':
    case 'number':
    case 'boolean':
      return typeof value === type;
  }
}

function typeName(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value;
}

function validateNumber(schema: Schema, value: number, invalid: (detail: string) => void): void {
  const { minimum = -Infinity, maximum = Infinity, format } = schema;
  if (value < minimum) invalid(`should be greater than or equal to ${minimum}`);
  if (value > maximum) invalid(`should be less than or equal to ${maximum}`);
  if (format === 'int32' && Math.trunc(value) !== (value | 0)) invalid(`must be of type int32: "${value}"`);
}

/** Returns what makes two items of a list the same; undefined when items may be repeated. */
function listIdentity(schema: Schema): ((item: unknown) => string) | undefined {
  const keys = schema['x-kubernetes-list-map-keys'] ?? [];
  switch (schema['x-kubernetes-list-type']) {
    case 'map':
      return (item) =>
        JSON.stringify(
          Object.fromEntries(keys.map((key) => [key, isJsonObject(item) ? item[key] : undefined])),
        );
    case 'set':
      return (item) => JSON.stringify(item);
    default:
      return undefined;
  }
}

function pruneValue(schema: Schema, value: unknown, path: string, unknown: string[]): unknown {
  if (Array.isArray(value)) {
    const { items } = schema;
    if (items === undefined) return value;
    return value.map((item, index) => pruneValue(items, item, `${path}[${index}]`, unknown));
  }
  if (!isJsonObject(value) || schema['x-kubernetes-preserve-unknown-fields'] === true) return value;
  const { properties = {}, additionalProperties } = schema;
  if (schema.properties === undefined && additionalProperties === undefined && schema.type !== 'object')
    return value;
  const kept: Record<string, unknown> = {};
  for (const [name, item] of Object.entries(value)) {
    const fieldPath = join(path, name);
    const isEmbedded = path === '' && (name === 'metadata' || name === 'apiVersion' || name === 'kind');
    const property = Object.hasOwn(properties, name) ? properties[name] : additionalProperties;
    if (isEmbedded || property === true) kept[name] = item;
    else if (typeof property === 'object') kept[name] = pruneValue(property, item, fieldPath, unknown);
    else unknown.push(fieldPath);
  }
  return kept;
}

function defaultValue(schema: Schema, value: unknown): unknown {
  if (Array.isArray(value)) {
    const { items } = schema;
    if (items === undefined) return value;
    const defaulted = value.map((item) => defaultValue(items, item));
    return defaulted.every((item, index) => item === value[index]) ? value : defaulted;
  }
  if (!isJsonObject(value) || schema.properties === undefined) return value;
  let result = value;
  for (const [name, property] of Object.entries(schema.properties)) {
    const before =
      value[name] ?? (value[name] === null && property.nullable === true ? null : property.default);
    if (before === undefined) continue;
    const after = defaultValue(property, before);
    if (after === value[name]) continue;
    if (result === value) result = { ...value };
    (result as Record<string, unknown>)[name] = after;
  }
  return result;
}

/** Quotes a string like Go's `%q`; other values as JSON. */
function goQuote(value: unknown): string {
  if (typeof value !== 'string') return JSON.stringify(value);
  const escapes: Readonly<Record<string, string>> = { '\u0007': '\\a', '\v': '\\v' };
  return JSON.stringify(value).replaceAll(
    /\\u00([01][0-9a-f])/g,
    (_, code: string) => escapes[String.fromCodePoint(Number.parseInt(code, 16))] ?? `\\x${code}`,
  );
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}
