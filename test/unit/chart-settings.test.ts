import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { CONFIG_FLAGS, valuesSchema, type JsonSchema } from '../../charts/values-schema.ts';
import { readConfig, SETTING_RANGES } from '../../src/config.ts';
import { parseSelftest, SELFTEST_RANGES } from '../../src/selftest/selftest.ts';

const CHART = join(import.meta.dirname, '..', '..', 'charts', 'reverse-tunnel-operator');
const schema = valuesSchema();

/** A value of the chart and how the program reads it. */
interface Setting {
  readonly path: string;
  readonly flag: string;
  readonly accepts: (text: string) => boolean;
}

const isValid = (flags: Record<string, string>): boolean => {
  const result = readConfig({ 'tls-cert': 'c', 'tls-key': 'k', ...flags });
  // Conflicts with other settings are the subject of other checks of the chart.
  return 'config' in result || result.errors.every((error) => error.startsWith('--tls-'));
};
const isValidSelftest = (flag: string, text: string): boolean =>
  'options' in parseSelftest([`--${flag}=${text}`]);

const SETTINGS: readonly Setting[] = [
  ...Object.entries({ ...CONFIG_FLAGS, requirePolicy: 'require-policy' }).map(([key, flag]) => ({
    path: `config.${key}`,
    flag,
    accepts: (text: string) => isValid({ auth: 'insecure', [flag]: text }),
  })),
  { path: 'auth.mode', flag: 'auth', accepts: (text) => isValid({ auth: text }) },
  {
    path: 'auth.tokenAudience',
    flag: 'token-audience',
    accepts: (text) => isValid({ auth: 'insecure', 'token-audience': text }),
  },
  ...['reporter', 'timeout'].map((flag) => ({
    path: `tests.${flag}`,
    flag,
    accepts: (text: string) => isValidSelftest(flag, text),
  })),
];

describe('settings of the chart', () => {
  for (const { path, flag, accepts } of SETTINGS) {
    it(`${path} accepts what --${flag} accepts, up to each bound`, () => {
      const property = propertyAt(schema, path);
      for (const value of property.enum ?? []) {
        if (value !== '' && value !== null) expect(accepts(value), value).to.equal(true);
      }
      const { minimum, maximum } = property;
      if (minimum !== undefined && maximum !== undefined) {
        expect([minimum, maximum].map((bound) => accepts(String(bound)))).to.deep.equal([true, true]);
        expect([minimum - 1, maximum + 1].map((bound) => accepts(String(bound)))).to.deep.equal([
          false,
          false,
        ]);
      }
      const candidates = [
        ...['', '0', '1', '1023', '1024', '1Ki', '1Gi', '2Gi', '1.5Gi', '64M', '1073741825', '0Ki', '-1'],
        ...[
          '1ms',
          '24ms',
          '25ms',
          '1s',
          '9s',
          '10s',
          '1h',
          '1h1ms',
          '2h',
          '168h',
          '169h',
          '0.5s',
          '1m30s',
          '5d',
        ],
        ...['50', '100', '101', '0%', '50%', '100%', '101%', '050%', '50.5%', '%'],
        ...['true', 'false', 'yes', 'skip', 'nack', 'Skip', 'mtls', 'token', 'insecure', 'either'],
        ...['trace', 'info', 'error', 'fatal', 'silent', 'INFO', 'warning'],
        ...['off', 'stdout', 'stderr', '/var/log/tunnels.jsonl', './tunnels.jsonl'],
        ...['a b', 'é', 'x'.repeat(256), 'x'.repeat(257), 'x'.repeat(63), 'x'.repeat(64), '-a', 'a.b_c'],
      ];
      // An empty text is not rendered, so the program uses its default.
      for (const text of candidates.filter((candidate) => candidate !== '')) {
        const typed = ['true', 'false'].includes(text) && property.type !== 'string' ? text === 'true' : text;
        const value = /^\d+$/.test(text) && allowsType(property, 'integer') ? Number(text) : typed;
        expect(isAccepted(property, path, value), `${path}: ${text.slice(0, 20)}`).to.equal(accepts(text));
      }
    });
  }

  it('are all settings of the program that describe their range, except those that the chart sets itself', () => {
    const flags = new Set(SETTINGS.map(({ flag }) => flag));
    const known = [...new Set([...Object.keys(SETTING_RANGES), ...Object.keys(SELFTEST_RANGES)])];
    expect(known.filter((flag) => !flags.has(flag))).to.deep.equal(['namespace']);
    expect(propertyAt(schema, 'config.objectsNamespace').maxLength).to.equal(63);
  });
});

/** As Helm evaluates it: the schema, then the bounds that templates/validate.yaml checks. */
function isAccepted(property: JsonSchema, path: string, value: unknown): boolean {
  if (!matches(property, value)) return false;
  const [section = '', key] = path.split('.');
  const text = readFileSync(join(CHART, 'files', 'settings.yaml'), 'utf8');
  const settings = parse(text) as Readonly<Record<string, readonly CheckedSetting[]>>;
  const check = settings[section]?.find(({ value: name }) => name === key)?.check;
  if (check === undefined || typeof value !== 'string') return true;
  const units: Readonly<Record<string, number>> = {
    ...{ ms: 1, s: 1000, m: 60_000, h: 3_600_000 },
    ...{ '': 1, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3 },
  };
  let amount = 0;
  for (const [, digits, unit = ''] of value.matchAll(/(\d+(?:\.\d+)?)([A-Za-z]*)/g))
    amount += Number(digits) * (units[unit] ?? Number.NaN);
  return (check.zeroIsDefault && amount === 0) || (amount >= check.min && amount <= check.max);
}

interface CheckedSetting {
  readonly value: string;
  readonly check?: { readonly min: number; readonly max: number; readonly zeroIsDefault: boolean };
}

/** Evaluates the keywords of a scalar. */
function matches(property: JsonSchema, value: unknown): boolean {
  const { pattern, minimum, maximum, minLength, maxLength } = property;
  if (property.enum !== undefined && !property.enum.includes(value as string)) return false;
  if (typeof value === 'boolean') return allowsType(property, 'boolean');
  if (typeof value === 'number')
    return allowsType(property, 'integer') && value >= (minimum ?? 0) && value <= (maximum ?? Infinity);
  if (typeof value !== 'string' || !allowsType(property, 'string')) return false;
  return (
    (pattern === undefined || new RegExp(pattern).test(value)) &&
    value.length >= (minLength ?? 0) &&
    value.length <= (maxLength ?? Infinity)
  );
}

function allowsType({ type }: JsonSchema, wanted: string): boolean {
  return typeof type === 'string' ? type === wanted : type?.includes(wanted) === true;
}

function propertyAt(root: JsonSchema, path: string): JsonSchema {
  let at: JsonSchema = root;
  for (const key of path.split('.')) at = at.properties?.[key] ?? expect.fail(`no value ${path}`);
  return at;
}
