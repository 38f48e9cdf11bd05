/** The pages of the project, taken apart for tests that keep them true. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The project's folder. */
export const ROOT = join(import.meta.dirname, '..', '..');

const EXCLUDED_FOLDERS = new Set(['node_modules', 'dist', 'coverage', '.git']);

/** A page of the project for people. */
export interface Page {
  /** From the project's folder, as `docs/faq.md`. */
  readonly path: string;
  readonly text: string;
  /** The text with blocks of code left out, lines kept. */
  readonly prose: string;
}

/** A fenced block. */
export interface Block {
  readonly page: Page;
  /** Of its first line of content, from 1. */
  readonly line: number;
  /** What stands behind the fence, as `sh run`. */
  readonly info: string;
  readonly text: string;
}

const FENCED_BLOCK = /^( *)```([^\n`]*)\n([^]*?)^ *```$/gm;

/** Every page in Markdown, those of node_modules and of what is built aside. */
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

/** The fenced blocks of a page, without the indent that they have in a list. */
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

/** Targets of the links in a page's prose that lead into the project. */
export function linksOf({ prose }: Page): string[] {
  return Array.from(prose.matchAll(/\]\(([^()\s]+)\)/g), ({ 1: target = '' }) => target).filter(
    (target) => !/^[a-z]+:/.test(target),
  );
}

/** The anchors that a page's headings make, as GitHub forms them. */
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

/** Inline code of a page. */
export function codeOf({ prose }: Page): string[] {
  return Array.from(prose.matchAll(/`([^`\n]+)`/g), ({ 1: code = '' }) => code);
}
