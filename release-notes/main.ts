/** `npm run release-notes`: writes the fragments of release-notes/current into CHANGELOG.md. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { assembleNotes, formatChangelog, withRelease, withUnreleased, type Fragment } from './fragments.ts';

const HELP = `Usage: npm run release-notes [-- --release VERSION --date YYYY-MM-DD]

Replaces the section "Unreleased" of CHANGELOG.md with the fragments in release-notes/current.

  --release VERSION  also renames the section to this version and deletes the fragments
  --date YYYY-MM-DD  date of the release; required with --release
  --help
`;
const CHANGELOG = join(import.meta.dirname, '..', 'CHANGELOG.md');
const CURRENT = join(import.meta.dirname, 'current');

try {
  const { values } = parseArgs({
    options: { release: { type: 'string' }, date: { type: 'string' }, help: { type: 'boolean' } },
  });
  if (values.help === true) process.stdout.write(HELP);
  else await write(values.release, values.date);
} catch (error) {
  process.stderr.write(`release-notes: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}

async function write(version: string | undefined, date: string | undefined): Promise<void> {
  if (version !== undefined && !/^\d+\.\d+\.\d+$/.test(version)) {
    throw new Error(`--release: "${version}" must be a version, such as 0.1.0`);
  }
  if (version !== undefined && !/^\d{4}-\d\d-\d\d$/.test(date ?? '')) {
    throw new Error('--date: required with --release, such as 2026-11-28');
  }
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
