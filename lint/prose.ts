/**
 * `npm run lint:prose`: reports words and phrases that `prose-rules.ts` avoids, in the comments and strings of code
 * and in documents. Exit codes: 0 no finding; 1 findings, or an allowed text that no longer occurs.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { endWithUsage, parseFlags, type CommandDescription } from '../src/flags.ts';
import { ALLOWED_TEXTS, PROSE_RULES } from './prose-rules.ts';
import type { AllowedText, ProseRule } from './prose-rules.ts';
import { paragraphSegments, typescriptSegments } from './text-segments.ts';

/** A word that should be replaced. */
export interface ProseFinding {
  readonly path: string;
  /** From 1. */
  readonly line: number;
  readonly words: string;
  readonly suggestion: string;
}

const COMMAND = {
  usage: ['npm run lint:prose'],
  description: 'Reports words and phrases that lint/prose-rules.ts avoids.',
  flags: {},
  footer: 'Exit code: 0, 1 for findings, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const CHECKED_FILES = /\.(?:ts|md|ya?ml|tpl|txt|json)$|(?:^|\/)Dockerfile$|^\.ci\//;
/** Texts of others, recorded output, and the list of the words itself. */
const UNCHECKED_FILES =
  /^(?:package-lock\.json|CODE_OF_CONDUCT\.md|bench\/results\/|test\/golden\/|proto\/|lint\/prose-rules\.ts|test\/unit\/lint-)/;
/** The marks of comments, quotations and lists at the beginning of a line. */
const LINE_MARKS = /(?<=^|\n)[ \t]*(?:\/\*\*?|\*(?!\/)|\/\/|#+|>|-(?= )|\{\{-? ?\/\*)/g;
const SENTENCE_START = '(?<=^\\s*|[.:;?!]\\s+)';

const COMPILED_RULES = PROSE_RULES.map((rule) => ({ rule, expression: compileRule(rule) }));

/**
 * Returns the findings of one file.
 *
 * @param path relative to the root of the repository; decides how the text is read
 * @param used receives each allowed text that applied
 */
export function checkProse(
  path: string,
  source: string,
  allowed: readonly AllowedText[] = ALLOWED_TEXTS,
  used: Set<AllowedText> = new Set(),
): ProseFinding[] {
  const findings: ProseFinding[] = [];
  const segments = path.endsWith('.ts')
    ? typescriptSegments(source)
    : paragraphSegments(withoutTemplateActions(source));
  for (const segment of segments) {
    const { line } = segment;
    // Blanks take the place of marks, so that positions stay.
    const text = segment.text.replaceAll(LINE_MARKS, (mark) => ' '.repeat(mark.length));
    for (const { rule, expression } of COMPILED_RULES) {
      for (const match of text.matchAll(expression)) {
        const exception = allowed.find((candidate) => isAllowed(candidate, rule, path, text, match));
        if (exception === undefined) {
          const linesBefore = text.slice(0, match.index).split('\n').length - 1;
          const words = match[0].replaceAll(/\s+/g, ' ');
          findings.push({ path, line: line + linesBefore, words, suggestion: rule.suggestion });
        } else {
          used.add(exception);
        }
      }
    }
  }
  return findings.toSorted((a, b) => a.line - b.line);
}

function compileRule({ pattern, sentenceStart }: ProseRule): RegExp {
  const words = `(?<![\\w-])(?:${pattern.replaceAll(' ', '\\s+')})(?!\\w)`;
  return sentenceStart === true ? new RegExp(SENTENCE_START + words, 'g') : new RegExp(words, 'gi');
}

function isAllowed(
  { rule, path = '', text }: AllowedText,
  { name }: ProseRule,
  checkedPath: string,
  checkedText: string,
  match: RegExpExecArray,
): boolean {
  if (rule !== name || !checkedPath.startsWith(path)) return false;
  if (text === undefined) return true;
  const end = match.index + match[0].length;
  return checkedText
    .toLowerCase()
    .slice(Math.max(0, match.index - text.length), end + text.length)
    .replaceAll(/\s+/g, ' ')
    .includes(text.toLowerCase());
}

/** Blanks out the actions of Go templates, of which only comments are prose. */
function withoutTemplateActions(source: string): string {
  return source.replaceAll(/\{\{(?!-? ?\/\*)[^}]*\}\}/g, '{}');
}

function main(): number {
  const root = join(import.meta.dirname, '..');
  const listing = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  });
  const used = new Set<AllowedText>();
  const findings = listing
    .trim()
    .split('\n')
    .filter((path) => CHECKED_FILES.test(path) && !UNCHECKED_FILES.test(path))
    .filter((path) => existsSync(join(root, path)))
    .flatMap((path) => checkProse(path, readFileSync(join(root, path), 'utf8'), ALLOWED_TEXTS, used));
  for (const { path, line, words, suggestion } of findings) {
    console.log(`${path}:${line}: "${words}": ${suggestion}`);
  }
  const unused = ALLOWED_TEXTS.filter((entry) => !used.has(entry));
  for (const { rule, path, text } of unused) {
    console.log(
      `lint/prose-rules.ts: allowed text no longer occurs: ${[rule, path, text].filter(Boolean).join(', ')}`,
    );
  }
  if (findings.length > 0) console.log(`${findings.length} findings`);
  return findings.length + unused.length === 0 ? 0 : 1;
}

if (import.meta.main) {
  const parsed = parseFlags(COMMAND, process.argv.slice(2));
  process.exitCode = 'values' in parsed ? main() : endWithUsage('lint:prose', parsed);
}
