/** Release notes that are assembled from fragments: one file per change that users notice. */
import { format, resolveConfig } from 'prettier';

/** One fragment. */
export interface Fragment {
  /** File name, `SECTION-slug.md`. */
  readonly name: string;
  /** Markdown: one or more sentences, without a list marker or heading. */
  readonly text: string;
}

/** Headings by the section that a file name starts with, in the order of the release notes. */
export const SECTIONS: Readonly<Record<string, string>> = {
  breaking: 'Breaking changes',
  security: 'Security',
  feature: 'Features',
  fix: 'Bug fixes',
  performance: 'Performance',
  deprecation: 'Deprecations',
  other: 'Other changes',
};

const UNRELEASED = '## Unreleased\n';
const NO_CHANGES = 'No changes.';

/**
 * Returns the release notes as Markdown: a heading per section, then a bullet per fragment, sorted by file name.
 *
 * @throws Error if a file name has no known section, or if a fragment is empty or has several paragraphs
 */
export function assembleNotes(fragments: readonly Fragment[]): string {
  const sections = new Map<string, string[]>(Object.keys(SECTIONS).map((section) => [section, []]));
  for (const { name, text } of fragments.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const section = /^([a-z]+)-[a-z0-9-]+\.md$/.exec(name)?.[1];
    const bullets = sections.get(section ?? '');
    if (bullets === undefined) {
      throw new Error(
        `release note ${name}: must be named SECTION-slug.md, where SECTION is one of ${Object.keys(SECTIONS).join(', ')}`,
      );
    }
    const paragraph = text.trim().split('\n');
    if (paragraph.some((line) => line.trim() === '')) {
      throw new Error(`release note ${name}: must be one paragraph`);
    }
    bullets.push(`- ${paragraph.map((line) => line.trim()).join(' ')}`);
  }
  const parts = [...sections]
    .filter(([, bullets]) => bullets.length > 0)
    .map(([section, bullets]) => `### ${SECTIONS[section]}\n\n${bullets.join('\n')}`);
  return parts.length === 0 ? NO_CHANGES : parts.join('\n\n');
}

/**
 * Returns the changelog with its section "Unreleased" replaced by these notes.
 *
 * @throws Error if the changelog has no such section
 */
export function withUnreleased(changelog: string, notes: string): string {
  const start = changelog.indexOf(UNRELEASED);
  if (start < 0) throw new Error('CHANGELOG.md: has no section "Unreleased"');
  const end = changelog.indexOf('\n## ', start);
  const rest = end < 0 ? '' : changelog.slice(end);
  return `${changelog.slice(0, start)}${UNRELEASED}\n${notes}\n${rest}`;
}

/** Returns the changelog with "Unreleased" renamed to this version, and a new, empty section above it. */
export function withRelease(changelog: string, version: string, date: string): string {
  return changelog.replace(UNRELEASED, `${UNRELEASED}\n${NO_CHANGES}\n\n## ${version} (${date})\n`);
}

/** Returns the changelog as prettier formats it. @param path of the changelog, which selects the configuration */
export async function formatChangelog(changelog: string, path: string): Promise<string> {
  return format(changelog, { ...(await resolveConfig(path)), filepath: path });
}
