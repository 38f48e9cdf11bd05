/**
 * The part of the Common Expression Language that validation rules of CRDs commonly use: literals, `self` and
 * `oldSelf`, fields, operators, the conditional operator, lists, `has`, `size`, `duration` and functions of strings.
 * Fields are compared by value.
 */
import { isDeepStrictEqual } from 'node:util';

/** Evaluates a rule for the values of `self` and `oldSelf`. */
export type CelProgram = (variables: Readonly<Record<string, unknown>>) => unknown;

const TOKEN =
  /\s*(?:(?<number>\d+(?:\.\d+)?)|(?<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?<name>[A-Za-z_]\w*)|(?<operator>&&|\|\||[=!<>]=|[-+*/%!<>?:.,()[\]]))/y;

/** Operators by precedence, lowest first. */
const BINARY_OPERATORS: readonly Readonly<Record<string, (left: unknown, right: unknown) => unknown>>[] = [
  {
    '==': (left, right) => isDeepStrictEqual(left, right),
    '!=': (left, right) => !isDeepStrictEqual(left, right),
    '<': (left, right) => (left as number) < (right as number),
    '<=': (left, right) => (left as number) <= (right as number),
    '>': (left, right) => (left as number) > (right as number),
    '>=': (left, right) => (left as number) >= (right as number),
    in: (left, right) => contains(right, left),
  },
  {
    '+': (left, right) => (Array.isArray(left) ? left.concat(right) : (left as number) + (right as number)),
    '-': (left, right) => (left as number) - (right as number),
  },
  {
    '*': (left, right) => (left as number) * (right as number),
    '/': (left, right) => Math.trunc((left as number) / (right as number)),
    '%': (left, right) => (left as number) % (right as number),
  },
];

const METHODS: Readonly<Record<string, (target: unknown, argument: unknown) => unknown>> = {
  size: (target) => size(target),
  startsWith: (target, prefix) => (target as string).startsWith(prefix as string),
  endsWith: (target, suffix) => (target as string).endsWith(suffix as string),
  contains: (target, part) => (target as string).includes(part as string),
  matches: (target, pattern) => new RegExp(pattern as string, 'u').test(target as string),
};

/**
 * Compiles a rule.
 *
 * @throws Error if the rule is outside of the supported part of the language
 */
export function compileCel(text: string): CelProgram {
  const parser = new Parser(text);
  const program = parser.conditional();
  parser.expectEnd();
  return program;
}

class Parser {
  readonly #text: string;
  readonly #tokens: string[] = [];
  #position = 0;

  constructor(text: string) {
    this.#text = text.trim();
    TOKEN.lastIndex = 0;
    while (TOKEN.lastIndex < this.#text.length) {
      const [token] = TOKEN.exec(this.#text) ?? [];
      if (token === undefined) throw new Error(`CEL ${this.#text}: not supported by this API server`);
      this.#tokens.push(token.trim());
    }
  }

  conditional(): CelProgram {
    const condition = this.#or();
    if (!this.#take('?')) return condition;
    const whenTrue = this.conditional();
    this.#expect(':');
    const whenFalse = this.conditional();
    return (variables) => (condition(variables) === true ? whenTrue(variables) : whenFalse(variables));
  }

  expectEnd(): void {
    if (this.#position < this.#tokens.length) this.#fail();
  }

  #or(): CelProgram {
    let left = this.#and();
    while (this.#take('||')) {
      const [before, right] = [left, this.#and()];
      left = (variables) => before(variables) === true || right(variables) === true;
    }
    return left;
  }

  #and(): CelProgram {
    let left = this.#binary(0);
    while (this.#take('&&')) {
      const [before, right] = [left, this.#binary(0)];
      left = (variables) => before(variables) === true && right(variables) === true;
    }
    return left;
  }

  #binary(level: number): CelProgram {
    const operators = BINARY_OPERATORS[level];
    if (operators === undefined) return this.#unary();
    let left = this.#binary(level + 1);
    for (;;) {
      const operator = operators[this.#peek()];
      if (operator === undefined) return left;
      this.#position += 1;
      const [before, right] = [left, this.#binary(level + 1)];
      left = (variables) => operator(before(variables), right(variables));
    }
  }

  #unary(): CelProgram {
    if (this.#take('!')) {
      const operand = this.#unary();
      return (variables) => operand(variables) !== true;
    }
    if (this.#take('-')) {
      const operand = this.#unary();
      return (variables) => -(operand(variables) as number);
    }
    return this.#member();
  }

  #member(): CelProgram {
    let target = this.#primary();
    for (;;) {
      const before = target;
      if (this.#take('.')) {
        const name = this.#next();
        if (this.#take('(')) {
          const method = METHODS[name] ?? this.#fail();
          const [argument] = this.#arguments(')');
          target = (variables) => method(before(variables), argument?.(variables));
        } else target = (variables) => select(before(variables), name);
      } else if (this.#take('[')) {
        const index = this.conditional();
        this.#expect(']');
        target = (variables) => select(before(variables), String(index(variables)));
      } else return target;
    }
  }

  #primary(): CelProgram {
    const token = this.#next();
    if (token === '(') {
      const inner = this.conditional();
      this.#expect(')');
      return inner;
    }
    if (token === '[') {
      const items = this.#arguments(']');
      return (variables) => items.map((item) => item(variables));
    }
    if (/^\d/.test(token)) return () => Number(token);
    if (/^['"]/.test(token)) {
      const value = token.slice(1, -1).replaceAll(/\\(.)/g, (_, escaped: string) => unescape(escaped));
      return () => value;
    }
    if (token === 'true' || token === 'false') return () => token === 'true';
    if (token === 'null') return () => null;
    if (!/^[A-Za-z_]/.test(token)) this.#fail();
    if (!this.#take('(')) return (variables) => select(variables, token);
    const [argument = this.#fail()] = this.#arguments(')');
    if (token === 'size') return (variables) => size(argument(variables));
    if (token === 'duration') return (variables) => durationNs(argument(variables) as string);
    if (token === 'has') return (variables) => isPresent(() => argument(variables));
    return this.#fail();
  }

  #arguments(end: string): CelProgram[] {
    const found: CelProgram[] = [];
    while (!this.#take(end)) {
      if (found.length > 0) this.#expect(',');
      found.push(this.conditional());
    }
    return found;
  }

  #peek(): string {
    return this.#tokens[this.#position] ?? '';
  }

  #next(): string {
    const token = this.#peek();
    this.#position += 1;
    return token;
  }

  #take(token: string): boolean {
    if (this.#peek() !== token) return false;
    this.#position += 1;
    return true;
  }

  #expect(token: string): void {
    if (!this.#take(token)) this.#fail();
  }

  #fail(): never {
    throw new Error(
      `CEL ${this.#text}: unexpected "${this.#peek()}"; this API server supports a part of the language only`,
    );
  }
}

function select(target: unknown, name: string): unknown {
  if (typeof target !== 'object' || target === null || !Object.hasOwn(target, name))
    throw new Error(`no such key: ${name}`);
  return (target as Record<string, unknown>)[name];
}

function isPresent(read: () => unknown): boolean {
  try {
    read();
    return true;
  } catch {
    return false;
  }
}

function size(target: unknown): number {
  if (typeof target === 'string') return Array.from(target).length;
  return Object.keys(target as object).length;
}

function contains(collection: unknown, item: unknown): boolean {
  if (Array.isArray(collection)) return collection.some((candidate) => isDeepStrictEqual(candidate, item));
  return Object.hasOwn(collection as object, item as string);
}

/** Nanoseconds per unit of a duration. */
const UNITS_NS: Readonly<Record<string, number>> = { ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };
/** The longest duration that Go represents. */
const MAX_DURATION_NS = 2 ** 63;

/** Returns a duration such as `1h30m` in nanoseconds. @throws Error if it is not one, as the evaluation of a rule does */
function durationNs(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/gy)];
  const total = parts.reduce((sum, [, value, unit]) => sum + Number(value) * (UNITS_NS[unit ?? ''] ?? 0), 0);
  if (text === '' || parts.map(([part]) => part).join('') !== text || total >= MAX_DURATION_NS)
    throw new Error(`invalid duration ${JSON.stringify(text)}`);
  return total;
}

function unescape(escaped: string): string {
  return { n: '\n', t: '\t', r: '\r' }[escaped] ?? escaped;
}
