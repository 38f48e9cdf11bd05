/** Parses the project's pages for tests that check them. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export const ROOT = join(import.meta.dirname, '..', '..');

const EXCLUDED_FOLDERS = new Set(['node_modules', 'dist', 'coverage', '.git']);

export interface Page {
  /** Relative to the project's folder, for example `docs/faq.md`. */
  readonly path: string;
  readonly text: string;
  /** The text without fenced blocks; the line numbers are unchanged. */
  readonly prose: string;
}

export interface Block {
  readonly page: Page;
  /** Number of the first content line, starting with 1. */
  readonly line: number;
  /** The info string, for example `sh run`. */
  readonly info: string;
  readonly text: string;
}

const FENCED_BLOCK = /^( *)```([^\n`]*)\n([^]*?)^ *```$/gm;

/** Returns all Markdown pages except those in node_modules and in build output. */
export function pages(): Page[] {
  return globSync(['*.md', '.github/**/*.md', '{charts,docs,examples,proto,release-notes}/**/*.md'], {
    cwd: ROOT,
    exclude: (name) => EXCLUDED_FOLDERS.has(name),
  })
    .toSorted()
    .map((path) => {
      const text = readFileSync(join(ROOT, path), 'utf8');
      return { path, text, prose: text.replaceAll(FENCED_BLOCK, (block) => block.replaceAll(/[^\n]/g, '')) };
    });
}

/** Returns a page's fenced blocks without the indentation that they have in a list. */
export function blocksOf(page: Page): Block[] {
  return Array.from(
    page.text.matchAll(FENCED_BLOCK),
    ({ index, 1: indent = '', 2: info = '', 3: text = '' }) => ({
      page,
      line: page.text.slice(0, index).split('\n').length + 1,
      info: info.trim(),
      text: indent === '' ? text : text.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
    }),
  );
}

/** Returns the targets of a page's links into the project. */
export function linksOf({ prose }: Page): string[] {
  return Array.from(prose.matchAll(/\]\(([^()\s]+)\)/g), ({ 1: target = '' }) => target).filter(
    (target) => !/^[a-z]+:/.test(target),
  );
}

/** Returns the anchors of a page's headings, as GitHub generates them. */
export function anchorsOf({ prose }: Page): Set<string> {
  return new Set(
    Array.from(prose.matchAll(/^#{1,6} +(.*)$/gm), ({ 1: heading = '' }) =>
      heading
        .trim()
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

export function codeOf({ prose }: Page): string[] {
  return Array.from(prose.matchAll(/`([^`\n]+)`/g), ({ 1: code = '' }) => code);
}
