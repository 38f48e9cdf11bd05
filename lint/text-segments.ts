/** A piece of text for people in a source file: a comment, a string literal, or a line of a document. */
export interface TextSegment {
  /** The line of its first character, from 1. */
  readonly line: number;
  readonly text: string;
}

/** What may precede a slash that begins a regular expression rather than divides. */
const BEFORE_REGEX =
  /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|do|else|void|delete|await))$/;
const QUOTES = new Set(["'", '"', '`']);

/**
 * Returns the comments and string literals of a TypeScript file. Consecutive line comments are one segment, so that
 * a phrase is found across its line break. A template literal gives one segment for each part between its `${}`.
 */
export function typescriptSegments(source: string): TextSegment[] {
  const segments: TextSegment[] = [];
  /** One entry per open `${`: the braces that are open within it. */
  const substitutions: number[] = [];
  let line = 1;
  let at = 0;
  /** The code so far on the line, without comments and blanks at its end: it decides what a slash means. */
  let code = '';

  function take(end: number): string {
    const text = source.slice(at, end);
    line += countNewlines(text);
    at = end;
    return text;
  }

  function takeSegment(end: number): void {
    const first = line;
    segments.push({ line: first, text: take(end) });
  }

  function takeTemplatePart(): void {
    let end = at;
    while (end < source.length && source[end] !== '`' && !source.startsWith('${', end)) {
      end += source[end] === '\\' ? 2 : 1;
    }
    takeSegment(end);
    if (source[at] === '`') at += 1;
    else if (at < source.length) {
      at += 2;
      substitutions.push(0);
    }
    code = ')';
  }

  while (at < source.length) {
    const character = source[at] ?? '';
    if (source.startsWith('//', at)) {
      takeSegment(endOf(source, '\n', at));
    } else if (source.startsWith('/*', at)) {
      takeSegment(endOf(source, '*/', at) + 2);
    } else if (character === '/' && BEFORE_REGEX.test(code)) {
      take(endOfRegex(source, at));
      code = ')';
    } else if (character === '`') {
      at += 1;
      takeTemplatePart();
    } else if (QUOTES.has(character)) {
      let end = at + 1;
      while (end < source.length && source[end] !== character && source[end] !== '\n') {
        end += source[end] === '\\' ? 2 : 1;
      }
      at += 1;
      takeSegment(end);
      at += 1;
      code = ')';
    } else if (character === '}' && substitutions.at(-1) === 0) {
      substitutions.pop();
      at += 1;
      takeTemplatePart();
    } else {
      const open = substitutions.length - 1;
      if (open >= 0 && (character === '{' || character === '}')) {
        substitutions[open] = (substitutions[open] ?? 0) + (character === '{' ? 1 : -1);
      }
      if (character.trim() !== '') code = (code + character).slice(-16);
      else if (/\w$/.test(code) && !BEFORE_REGEX.test(code)) code += ' ';
      take(at + 1);
    }
  }
  return joinLineComments(segments);
}

/** Returns each paragraph of a document or of a YAML file as one segment; a blank line ends it. */
export function paragraphSegments(source: string): TextSegment[] {
  const segments: TextSegment[] = [];
  let paragraph: string[] = [];
  let first = 1;
  for (const [index, line] of [...source.split('\n'), ''].entries()) {
    if (line.trim() !== '') {
      if (paragraph.length === 0) first = index + 1;
      paragraph.push(line);
    } else if (paragraph.length > 0) {
      segments.push({ line: first, text: paragraph.join('\n') });
      paragraph = [];
    }
  }
  return segments;
}

function joinLineComments(segments: readonly TextSegment[]): TextSegment[] {
  const joined: TextSegment[] = [];
  for (const segment of segments) {
    const last = joined.at(-1);
    const follows =
      last !== undefined &&
      segment.text.startsWith('//') &&
      last.text.startsWith('//') &&
      last.line + countNewlines(last.text) + 1 === segment.line;
    if (follows) joined[joined.length - 1] = { line: last.line, text: `${last.text}\n${segment.text}` };
    else joined.push(segment);
  }
  return joined;
}

function endOf(source: string, mark: string, from: number): number {
  const end = source.indexOf(mark, from);
  return end < 0 ? source.length : end;
}

function endOfRegex(source: string, from: number): number {
  let inClass = false;
  for (let end = from + 1; end < source.length; end += 1) {
    const character = source[end];
    if (character === '\\') end += 1;
    else if (character === '[') inClass = true;
    else if (character === ']') inClass = false;
    else if (character === '\n' || (character === '/' && !inClass)) return end + 1;
  }
  return source.length;
}

function countNewlines(text: string): number {
  return text.split('\n').length - 1;
}
