import { expect } from 'chai';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';
import { run } from '../../control-plane/run.ts';
import { findNonPortable } from '../support/portable-pattern.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const TIMEOUT_MS = 300_000;

/** Prints, for each pattern, the indices of the texts that it matches, as JSON. The arguments are the two lists. */
const GO_PROGRAM = `package main

import (
	"encoding/json"
	"os"
	"regexp"
)

func main() {
	var patterns, texts []string
	if json.Unmarshal([]byte(os.Getenv("PATTERNS")), &patterns) != nil || json.NewDecoder(os.Stdin).Decode(&texts) != nil {
		panic("invalid input")
	}
	matches := [][]int{}
	for _, pattern := range patterns {
		compiled := regexp.MustCompile(pattern)
		matched := []int{}
		for i, text := range texts {
			if compiled.MatchString(text) {
				matched = append(matched, i)
			}
		}
		matches = append(matches, matched)
	}
	_ = json.NewEncoder(os.Stdout).Encode(matches)
}
`;
const PYTHON_PROGRAM = `
import json, os, re, sys
texts = json.load(sys.stdin)
patterns = [re.compile(pattern) for pattern in json.loads(os.environ['PATTERNS'])]
json.dump([[i for i, text in enumerate(texts) if pattern.search(text)] for pattern in patterns], sys.stdout)
`;

/** Returns every `pattern` and every key of `patternProperties` in a schema. */
function* patternsOf(node: unknown): Generator<string> {
  if (typeof node !== 'object' || node === null) return;
  for (const [key, value] of Object.entries(node)) {
    if (key === 'pattern' && typeof value === 'string') yield value;
    if (key === 'patternProperties') yield* Object.keys(value as object);
    yield* patternsOf(value);
  }
}

/** Every distinct pattern of the CRDs and of the chart's values. */
async function readPatterns(): Promise<string[]> {
  const crds = join(ROOT, 'crds');
  const files = (await readdir(crds)).map((name) => join(crds, name));
  files.push(join(ROOT, 'charts', 'reverse-tunnel-operator', 'values.schema.json'));
  const schemas = await Promise.all(
    files.map(async (file): Promise<unknown> => parse(await readFile(file, 'utf8'))),
  );
  return [...new Set(schemas.flatMap((schema) => Array.from(patternsOf(schema))))];
}

/** Texts that separate one reading of a pattern from another: each character of interest alone and inside a word. */
function sampleTexts(): string[] {
  const points = [
    ...Array.from({ length: 0x300 }, (_, point) => point),
    ...[0x2027, 0x2028, 0x2029, 0x202a, 0x202e, 0x202f, 0x2065, 0x2066, 0x2069, 0x206a],
    ...[0x212a, 0xfeff, 0x1f600, 0x10ffff],
  ];
  const characters = points.map((point) => String.fromCodePoint(point));
  const words = [
    ...[
      '',
      'a',
      'A.b-c',
      'kubernetes.io/Ready',
      'Ready',
      'Not Ready',
      'a\nb',
      'x'.repeat(64),
      'é'.repeat(64),
    ],
    ...['0', '5s', '250ms', '1.5h', '1d', '50%', '64Mi', '64mi', '[::1]', '127.0.0.1', 'v1.2.3'],
    `sha256:${'a'.repeat(64)}`,
    'spiffe://trust.domain/path/**',
  ];
  return [
    ...words,
    ...words.map((word) => `${word}\n`),
    ...characters,
    ...characters.map((one) => `a${one}1`),
  ];
}

describe('patterns of the CRDs and of the values of the chart', () => {
  let folder: string;
  let patterns: string[];
  const texts = sampleTexts();
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'rt-patterns-'));
    patterns = await readPatterns();
  });
  after(async () => rm(folder, { recursive: true, force: true }));

  /** Runs a program on all patterns and texts. Returns the matched texts per pattern. */
  async function matchesBy(
    command: string,
    args: readonly string[],
    given: readonly string[],
  ): Promise<string[][]> {
    const { code, stdout, stderr } = await run(command, args, {
      cwd: folder,
      env: {
        ...process.env,
        PATTERNS: JSON.stringify(patterns),
        GOWORK: 'off',
        CGO_ENABLED: '0',
        PYTHONUTF8: '1',
      },
      input: JSON.stringify(given),
      timeoutMs: TIMEOUT_MS,
    });
    expect(code, `${command}: ${stderr}`).to.equal(0);
    return (JSON.parse(stdout) as number[][]).map((indices) => indices.map((index) => given[index] ?? ''));
  }

  function matchesByJavaScript(flags: string, given: readonly string[]): string[][] {
    return patterns.map((pattern) => given.filter((text) => new RegExp(pattern, flags).test(text)));
  }

  it('are in the subset that every engine reads in the same way', () => {
    expect(patterns.length).to.be.greaterThan(15);
    for (const pattern of patterns) expect(findNonPortable(pattern), pattern).to.equal(undefined);
  });

  it('match the same texts in JavaScript with and without the flag u', () => {
    expect(matchesByJavaScript('', texts)).to.deep.equal(matchesByJavaScript('u', texts));
  });

  it('match the same texts in RE2, which the API server and Helm use', async function () {
    this.timeout(TIMEOUT_MS);
    const program = join(folder, 'main.go');
    await writeFile(program, GO_PROGRAM);
    // The flags of the control plane, whose packages are in the build cache of Go.
    expect(await matchesBy('go', ['run', '-trimpath', program], texts)).to.deep.equal(
      matchesByJavaScript('u', texts),
    );
  });

  it('match the same texts in Python', async () => {
    // In Python, `$` also matches before a newline at the end of the text. JSON Schema has no other way to anchor.
    const given = texts.filter((text) => !text.endsWith('\n'));
    expect(await matchesBy('python3', ['-c', PYTHON_PROGRAM], given)).to.deep.equal(
      matchesByJavaScript('u', given),
    );
  });
});
