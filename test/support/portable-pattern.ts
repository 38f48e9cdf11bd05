/** The subset of regular expressions that RE2, JavaScript, Python and Rust read in the same way. */

/** Characters that are a literal in every engine without an escape. */
const LITERAL = /[A-Za-z0-9 _,:%/@<>=~;#&!"'`-]|[^ -~]/u;
/** Characters that YAML writers treat as line breaks, or that reorder the text of an error on a terminal. */
const UNSAFE_TEXT = /[\p{Cc}\u2028-\u202e\ufeff]/u;
/** In Rust, `&&`, `--` and `~~` in a class are operators; in RE2, `[:` starts a named class. */
const CLASS_OPERATOR = /&&|--|~~|\[/;
/** RE2 rejects a higher count. */
const MAX_REPETITIONS = 1000;

/**
 * Returns why a pattern is outside the subset, with its offset; undefined if it is inside. The subset has literals,
 * classes of literals and ranges, `^`, `$`, groups without flags, `|`, greedy quantifiers, `\xHH`, and escapes of
 * punctuation. It omits everything whose meaning differs: `.`, `\d`, `\w`, `\s`, `\b`, `\x{…}`, `\u…`, lookaround,
 * backreferences, flags, named groups and nested classes.
 */
export function findNonPortable(pattern: string): string | undefined {
  if (UNSAFE_TEXT.test(pattern)) return 'literal line break, control or bidi character';
  let rest = pattern;
  let depth = 0;
  let canRepeat = false;
  const take = (token: RegExp): RegExpExecArray | undefined => {
    const match = token.exec(rest) ?? undefined;
    rest = rest.slice(match?.[0].length ?? 0);
    return match;
  };
  const problem = (text: string): string => `${text} at offset ${pattern.length - rest.length}`;
  while (rest !== '') {
    if (take(/^\((?:\?:)?(?!\?)/) !== undefined) {
      depth += 1;
      canRepeat = false;
    } else if (rest.startsWith(')')) {
      if (depth === 0) return problem('unopened group');
      take(/^\)/);
      depth -= 1;
      canRepeat = true;
    } else if (take(/^[|^$]/) !== undefined) canRepeat = false;
    else if (take(/^\\(?:x[0-9a-f]{2}|[.*+?()[\]{}|^$\\])/) !== undefined) canRepeat = true;
    else if (/^(?:[*+?]|\{\d+(?:,\d*)?\})/.test(rest)) {
      if (!canRepeat) return problem('quantifier without an operand');
      const [, least, most] = take(/^(?:[*+?]|\{(\d+)(?:,(\d*))?\})/) ?? [];
      if (Math.max(Number(least ?? 0), Number(most ?? 0)) > MAX_REPETITIONS)
        return problem('too many repetitions before');
      // A further `?` or `+` would make it lazy or possessive.
      canRepeat = false;
    } else if (rest.startsWith('[')) {
      const content = take(/^\[\^?((?:[^\]\\]|\\.)+)\]/)?.[1];
      if (content === undefined) return problem('unclosed class');
      const plain = content.replaceAll(/\\(?:x[0-9a-f]{2}|[\]\\^[-])/g, 'x');
      if (plain.includes('\\')) return problem('class with an escape that differs between engines before');
      if (CLASS_OPERATOR.test(plain))
        return problem('class with a character that differs between engines before');
      canRepeat = true;
    } else if (LITERAL.test(String.fromCodePoint(rest.codePointAt(0) ?? 0))) {
      rest = rest.slice(String.fromCodePoint(rest.codePointAt(0) ?? 0).length);
      canRepeat = true;
    } else return problem(`${JSON.stringify(rest.slice(0, 4))}, which differs between engines,`);
  }
  return depth > 0 ? 'unclosed group' : undefined;
}
