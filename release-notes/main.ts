/** `npm run release-notes`: writes the fragments of release-notes/current into CHANGELOG.md. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { textMatching } from '../src/flag-values.ts';
import { endWithUsage, parseFlags, type CommandDescription } from '../src/flags.ts';
import { errorMessage } from '../src/error-message.ts';
import { assembleNotes, formatChangelog, withRelease, withUnreleased, type Fragment } from './fragments.ts';

const COMMAND = {
  usage: ['npm run release-notes [-- --release VERSION --date YYYY-MM-DD]'],
  description:
    'Replaces the section "Unreleased" of CHANGELOG.md with the fragments in release-notes/current.',
  flags: {
    release: {
      metavar: 'VERSION',
      description: 'also rename the section to this version and delete the fragments',
      read: textMatching('^\\d+\\.\\d+\\.\\d+$', 'must be a version, such as 0.1.0'),
    },
    date: {
      metavar: 'YYYY-MM-DD',
      description: 'date of the release; required with --release',
      read: textMatching('^\\d{4}-\\d\\d-\\d\\d$', 'must be a date, such as 2026-11-28'),
    },
  },
  footer: 'Exit code: 0, 1 for an invalid fragment, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const CHANGELOG = join(import.meta.dirname, '..', 'CHANGELOG.md');
const CURRENT = join(import.meta.dirname, 'current');

process.exitCode = await main();

async function main(): Promise<number> {
  const parsed = parseFlags(COMMAND, process.argv.slice(2));
  if (!('values' in parsed)) return endWithUsage('release-notes', parsed);
  const { release, date } = parsed.values;
  if (release !== undefined && date === undefined)
    return endWithUsage('release-notes', { errors: ['--date: required with --release, such as 2026-11-28'] });
  try {
    await write(release, date);
    return 0;
  } catch (error) {
    process.stderr.write(`release-notes: ${errorMessage(error)}\n`);
    return 1;
  }
}

async function write(version: string | undefined, date: string | undefined): Promise<void> {
  const names = fragmentNames();
  const fragments: Fragment[] = names.map((name) => ({
    name,
    text: readFileSync(join(CURRENT, name), 'utf8'),
  }));
  const notes = assembleNotes(fragments);
  const unreleased = withUnreleased(readFileSync(CHANGELOG, 'utf8'), notes);
  const changelog = version === undefined ? unreleased : withRelease(unreleased, version, date ?? '');
  writeFileSync(CHANGELOG, await formatChangelog(changelog, CHANGELOG));
  if (version !== undefined) for (const name of names) rmSync(join(CURRENT, name));
}

function fragmentNames(): string[] {
  return readdirSync(CURRENT).filter((name) => name.endsWith('.md') && name !== 'README.md');
}
