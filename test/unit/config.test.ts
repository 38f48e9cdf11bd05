import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { helpText, parseCommandLine, readConfig, type Config } from '../../src/config.ts';

/** The settings that are required. */
const REQUIRED = { auth: 'insecure' };

/** The TLS files, which must be set together. */
const TLS = { 'tls-cert': '/tls/tls.crt', 'tls-key': '/tls/tls.key', 'tls-client-ca': '/tls/ca.crt' };

/** The flags that the README's table omits, with the reason. */
const UNDOCUMENTED_FLAGS: Readonly<Record<string, string>> = {
  '--help': 'not a setting',
  '--version': 'not a setting',
  '--config': 'not a setting; the text above the table describes it',
  '--kubeconfig': 'only outside of a cluster, with the lookup order of kubectl',
  '--replica-id': 'the default, the name of the pod, suits every Deployment',
};

function configOf(flags: Record<string, unknown>, fileText?: string): Config {
  const result = readConfig(flags, fileText);
  if ('errors' in result) throw new Error(`rejected: ${result.errors.join('; ')}`);
  return result.config;
}

function errorsOf(flags: Record<string, unknown>, fileText?: string): readonly string[] {
  const result = readConfig(flags, fileText);
  return 'errors' in result ? result.errors : [];
}

function flagsOf(...argv: string[]): Readonly<Record<string, unknown>> {
  const result = parseCommandLine(argv);
  if (!('commandLine' in result)) throw new Error(`rejected: ${JSON.stringify(result)}`);
  return result.commandLine.flags;
}

/** Returns the errors of the arguments and, if these can be parsed, of the values that they give. */
function argumentErrors(...argv: string[]): readonly string[] {
  const result = parseCommandLine(argv);
  if ('errors' in result) return result.errors;
  return 'help' in result ? [] : errorsOf({ ...REQUIRED, ...result.commandLine.flags });
}

describe('config', () => {
  it('has a default for every setting except auth', () => {
    expect(configOf(REQUIRED)).to.deep.equal({
      grpcAddress: '0.0.0.0:18000',
      httpAddress: '0.0.0.0:8080',
      kubeconfig: undefined,
      namespace: undefined,
      replicaId: undefined,
      reportIntervalMs: 5000,
      unknownAfterMs: 30_000,
      expireAfterMs: 300_000,
      removalHoldMs: 30_000,
      removalHoldThresholdPercent: 50,
      representation: 'objects',
      onInvalid: 'skip',
      grpcReflection: false,
      requirePolicy: false,
      maxMessageSizeBytes: 64 * 1024 * 1024,
      maxTunnelsPerReporter: 500_000,
      maxConnectionsPerAddress: 2000,
      writeConcurrency: 64,
      auth: 'insecure',
      tlsCert: undefined,
      tlsKey: undefined,
      tlsClientCa: undefined,
      tokenAudience: 'reverse-tunnel-operator',
      maxStreamAgeMs: 3_600_000,
      logLevel: 'info',
      tunnelLog: 'off',
    });
  });

  /** Values at the bounds of each setting. */
  const valid: { key: string; text: string; in: Partial<Config> }[] = [
    { key: 'grpc-address', text: '127.0.0.1:0', in: { grpcAddress: '127.0.0.1:0' } },
    { key: 'grpc-address', text: '[::]:65535', in: { grpcAddress: '[::]:65535' } },
    { key: 'http-address', text: 'localhost:1', in: { httpAddress: 'localhost:1' } },
    { key: 'kubeconfig', text: '/etc/my config', in: { kubeconfig: '/etc/my config' } },
    { key: 'namespace', text: 'a', in: { namespace: 'a' } },
    { key: 'namespace', text: 'x'.repeat(63), in: { namespace: 'x'.repeat(63) } },
    { key: 'report-interval', text: '25ms', in: { reportIntervalMs: 25 } },
    { key: 'report-interval', text: '1h', in: { reportIntervalMs: 3_600_000 } },
    { key: 'report-interval', text: '1m30s', in: { reportIntervalMs: 90_000 } },
    { key: 'replica-id', text: 'operator-5c9f7d6b84-x2x7k', in: { replicaId: 'operator-5c9f7d6b84-x2x7k' } },
    { key: 'unknown-after', text: '1s', in: { unknownAfterMs: 1000 } },
    { key: 'unknown-after', text: '0', in: { unknownAfterMs: 30_000 } },
    { key: 'unknown-after', text: '168h', in: { unknownAfterMs: 604_800_000 } },
    { key: 'expire-after', text: '2m', in: { expireAfterMs: 120_000 } },
    { key: 'expire-after', text: '0s', in: { expireAfterMs: 300_000 } },
    { key: 'removal-hold', text: '0', in: { removalHoldMs: 0 } },
    { key: 'removal-hold', text: '0s', in: { removalHoldMs: 0 } },
    { key: 'removal-hold', text: '1ms', in: { removalHoldMs: 1 } },
    { key: 'removal-hold', text: '168h', in: { removalHoldMs: 604_800_000 } },
    { key: 'removal-hold-threshold', text: '0', in: { removalHoldThresholdPercent: 0 } },
    { key: 'removal-hold-threshold', text: '75%', in: { removalHoldThresholdPercent: 75 } },
    { key: 'removal-hold-threshold', text: '100%', in: { removalHoldThresholdPercent: 100 } },
    { key: 'representation', text: 'slices', in: { representation: 'slices' } },
    { key: 'representation', text: 'objects', in: { representation: 'objects' } },
    { key: 'on-invalid', text: 'nack', in: { onInvalid: 'nack' } },
    { key: 'grpc-reflection', text: 'true', in: { grpcReflection: true } },
    { key: 'grpc-reflection', text: 'false', in: { grpcReflection: false } },
    { key: 'max-message-size', text: '1Ki', in: { maxMessageSizeBytes: 1024 } },
    { key: 'max-message-size', text: '1Gi', in: { maxMessageSizeBytes: 1024 ** 3 } },
    { key: 'max-message-size', text: '5000000', in: { maxMessageSizeBytes: 5_000_000 } },
    { key: 'max-tunnels-per-reporter', text: '1', in: { maxTunnelsPerReporter: 1 } },
    { key: 'max-tunnels-per-reporter', text: '10000000', in: { maxTunnelsPerReporter: 10_000_000 } },
    { key: 'max-connections-per-address', text: '1', in: { maxConnectionsPerAddress: 1 } },
    { key: 'max-connections-per-address', text: '100000', in: { maxConnectionsPerAddress: 100_000 } },
    { key: 'write-concurrency', text: '1', in: { writeConcurrency: 1 } },
    { key: 'write-concurrency', text: '1024', in: { writeConcurrency: 1024 } },
    {
      key: 'token-audience',
      text: 'https://tunnels.example',
      in: { tokenAudience: 'https://tunnels.example' },
    },
    { key: 'require-policy', text: 'true', in: { requirePolicy: true } },
    { key: 'require-policy', text: 'false', in: { requirePolicy: false } },
    { key: 'max-stream-age', text: '10s', in: { maxStreamAgeMs: 10_000 } },
    { key: 'max-stream-age', text: '168h', in: { maxStreamAgeMs: 604_800_000 } },
    { key: 'max-stream-age', text: '0', in: { maxStreamAgeMs: 3_600_000 } },
    { key: 'log-level', text: 'silent', in: { logLevel: 'silent' } },
    { key: 'tunnel-log', text: 'off', in: { tunnelLog: 'off' } },
    { key: 'tunnel-log', text: 'stdout', in: { tunnelLog: 'stdout' } },
    { key: 'tunnel-log', text: './stdout', in: { tunnelLog: './stdout' } },
    { key: 'tunnel-log', text: '/var/log/a b.jsonl', in: { tunnelLog: '/var/log/a b.jsonl' } },
  ];
  for (const { key, text, in: want } of valid) {
    it(`accepts ${key} ${text.slice(0, 20)} as a flag and in the file`, () => {
      expect(configOf(flagsOf('--auth=insecure', `--${key}`, text))).to.deep.equal({
        ...configOf(REQUIRED),
        ...want,
      });
      expect(configOf({}, `auth: insecure\n${key}: ${JSON.stringify(text)}\n`)).to.deep.include(want);
    });
  }

  const invalid: { key: string; texts: string[]; expected: RegExp }[] = [
    {
      key: 'grpc-address',
      texts: [
        '',
        '18000',
        ':18000',
        'host',
        'host:',
        'host:65536',
        'host:-1',
        'host:http',
        '::1:80',
        '[::1]',
        'a b:80',
        'a:80 ',
        'http://a:80',
      ],
      expected: /must be host:port .* 0 to 65535/,
    },
    {
      key: 'http-address',
      texts: ['', '8080', '0.0.0.0:99999'],
      expected: /must be host:port .* 0 to 65535/,
    },
    { key: 'kubeconfig', texts: [''], expected: /must not be empty/ },
    {
      key: 'namespace',
      texts: ['', 'Upper', 'under_score', '-a', 'a-', 'a.b', 'x'.repeat(64), 'ünder'],
      expected: /at most 63 lower-case letters, digits and dashes/,
    },
    {
      key: 'report-interval',
      texts: [
        '',
        '0',
        '5',
        '24ms',
        '3601s',
        '1h1ms',
        '-5s',
        '5 s',
        '5S',
        '5d',
        '1e3s',
        'NaN',
        'Infinity',
        '999999999999999999h',
      ],
      expected: /must be a duration from 25ms to 1h/,
    },
    { key: 'replica-id', texts: ['', '-a', 'a b', 'x'.repeat(254)], expected: /must be at most 253 letters/ },
    { key: 'unknown-after', texts: ['1ms', '30', '169h'], expected: /must be a duration from 1s to 168h/ },
    { key: 'expire-after', texts: ['0.5s', '-5m'], expected: /must be a duration from 1s to 168h/ },
    {
      key: 'removal-hold',
      texts: ['', '30', '-1s', '168h1ms', '8d', 'off'],
      expected: /removal-hold: ".*" must be a duration from 0s to 168h/,
    },
    {
      key: 'removal-hold-threshold',
      texts: ['', '-1', '101', '101%', '50.5%', '0.5', '1e1', '50 %', '%', '050%', 'half'],
      expected: /removal-hold-threshold: ".*" must be a whole percentage from 0% to 100%, such as 50%/,
    },
    {
      key: 'representation',
      texts: ['', 'Slices', 'object', 'both', 'objects,slices'],
      expected: /representation: ".*" must be one of objects, slices/,
    },
    { key: 'on-invalid', texts: ['', 'Skip', 'drop', 'skip,nack'], expected: /must be one of skip, nack/ },
    {
      key: 'max-message-size',
      texts: [
        '',
        '0',
        '1023',
        '64M',
        '64MiB',
        '64mi',
        '1.5Gi',
        '-1Ki',
        '2Gi',
        '1073741825',
        '999999999999Gi',
        '1e9',
        '0x400',
      ],
      expected: /must be a size from 1Ki to 1Gi/,
    },
    {
      key: 'max-tunnels-per-reporter',
      texts: ['', '0', '-1', '10000001', '1.5', '1e3', '1,000', '0x10', '9'.repeat(400)],
      expected: /must be a whole number from 1 to 10000000/,
    },
    {
      key: 'max-connections-per-address',
      texts: ['', '0', '-1', '100001', '1.5', '2k'],
      expected: /must be a whole number from 1 to 100000/,
    },
    {
      key: 'write-concurrency',
      texts: ['', '0', '1025', 'many', '64 '],
      expected: /must be a whole number from 1 to 1024/,
    },
    {
      key: 'auth',
      texts: ['', 'none', 'Insecure', 'mTLS'],
      expected: /must be one of mtls, token, mtls-or-token, insecure/,
    },
    {
      key: 'token-audience',
      texts: ['', 'a b', 'é', 'x'.repeat(257)],
      expected: /must be 1 to 256 printable/,
    },
    {
      key: 'require-policy',
      texts: ['', 'yes', 'True', '1'],
      expected: /must be true or false/,
    },
    {
      key: 'max-stream-age',
      texts: ['9s', '169h', '1', ''],
      expected: /must be a duration from 10s to 168h/,
    },
    {
      key: 'log-level',
      texts: ['', 'INFO', 'verbose', 'warning'],
      expected: /must be one of trace, debug, info, warn, error, silent/,
    },
    {
      key: 'tunnel-log',
      texts: ['', 'true', 'false', 'Off', 'stderr', 'tunnels.jsonl', 'stdout ', '/a\nb'],
      expected: /must be off, stdout, or a path with a slash/,
    },
  ];
  for (const { key, texts, expected } of invalid) {
    for (const text of texts) {
      it(`rejects ${key} ${JSON.stringify(text.slice(0, 24))} with one line that names key, value and range`, () => {
        for (const { errors, name } of [
          { errors: errorsOf({ ...REQUIRED, ...flagsOf(`--${key}=${text}`) }), name: `--${key}` },
          {
            errors: errorsOf(key === 'auth' ? {} : REQUIRED, `${key}: ${JSON.stringify(text)}`),
            name: key,
          },
        ]) {
          expect(errors).to.have.length(1);
          expect(errors[0])
            .to.match(expected)
            .and.not.match(/[\n\r]/);
          expect(errors[0]?.startsWith(`${name}: ${JSON.stringify(text)} `)).to.equal(true, errors[0]);
        }
      });
    }
  }

  it('requires auth', () => {
    const [error, ...more] = errorsOf({});
    expect(error).to.match(/^auth: must be one of/);
    expect(more).to.deep.equal([]);
  });

  it('reports all errors at once', () => {
    expect(errorsOf({ 'grpc-address': 'x' }, 'auth: no\nreport-interval: 1ms\nfoo: 1\n')).to.have.length(4);
  });

  describe('the file', () => {
    it('is overridden by a flag, even if the value in the file is invalid', () => {
      const file = 'auth: insecure\nreport-interval: 10s\nnamespace: from-file\nlog-level: loud\n';
      const config = configOf(flagsOf('--report-interval', '20s', '--log-level=warn'), file);
      expect(config).to.deep.include({ reportIntervalMs: 20_000, namespace: 'from-file', logLevel: 'warn' });
    });

    it('accepts numbers as YAML numbers', () => {
      const file =
        'auth: insecure\nmax-message-size: 2048\nmax-tunnels-per-reporter: 1_000\nwrite-concurrency: 8\n';
      expect(errorsOf({}, file)).to.have.length(1);
      expect(configOf({}, file.replace('_', ''))).to.deep.include({
        maxMessageSizeBytes: 2048,
        maxTunnelsPerReporter: 1000,
        writeConcurrency: 8,
      });
    });

    it('accepts names and paths that YAML parses as numbers or dates', () => {
      expect(configOf(REQUIRED, 'namespace: 2024-01-01\nkubeconfig: 12\n')).to.deep.include({
        namespace: '2024-01-01',
        kubeconfig: '12',
      });
    });

    it('falls back to the default for a key without a value', () => {
      expect(configOf(REQUIRED, 'report-interval:\nnamespace: null\n')).to.deep.equal(configOf(REQUIRED));
    });

    for (const text of ['', '# only a comment\n', '---\n', '{}', 'null']) {
      it(`falls back to the defaults if it is empty (${JSON.stringify(text)})`, () => {
        expect(configOf(REQUIRED, text)).to.deep.equal(configOf(REQUIRED));
      });
    }

    for (const key of [
      'report_interval',
      'reportInterval',
      'Auth',
      'config',
      'help',
      '__proto__',
      'constructor',
      'toString',
      '7',
    ]) {
      it(`rejects the unknown key ${key} with one line that names it`, () => {
        const errors = errorsOf(REQUIRED, `"${key}": 1\n`);
        expect(errors).to.have.length(1);
        expect(errors[0]).to.match(new RegExp(`^${key}: unknown setting`));
      });
    }

    for (const { what, text } of [
      { what: 'a list', text: '- auth: insecure\n' },
      { what: 'a bare word', text: 'insecure\n' },
      { what: 'a number', text: '5\n' },
      { what: 'invalid YAML', text: 'a: [1\nb: 2\n' },
      { what: 'indented with a tab', text: 'a:\n\t- 1\n' },
      { what: 'a mapping with a duplicate key', text: 'namespace: a\nnamespace: b\n' },
      { what: 'two documents', text: 'namespace: a\n---\nnamespace: b\n' },
      { what: 'an alias without an anchor', text: 'namespace: *nothing\n' },
      { what: 'a chain of aliases that expands exponentially', text: billionLaughs() },
    ]) {
      it(`is rejected with one line if it is ${what}`, () => {
        const errors = errorsOf(REQUIRED, text);
        expect(errors).to.have.length(1);
        expect(errors[0]).to.match(/^--config: [^\n\r]+$/);
      });
    }

    for (const { what, text } of [
      { what: 'a list', text: 'namespace: [a]\n' },
      { what: 'a list for a setting that accepts any text', text: 'kubeconfig: [a]\n' },
      { what: 'a map', text: 'namespace: {a: b}\n' },
      { what: 'true', text: 'on-invalid: true\n' },
      { what: 'not a number', text: 'write-concurrency: .nan\n' },
      { what: 'infinite', text: 'write-concurrency: .inf\n' },
      { what: 'a reference to itself', text: 'namespace: &itself [*itself]\n' },
    ]) {
      it(`rejects a value that is ${what} with one line that names the key`, () => {
        const errors = errorsOf(REQUIRED, text);
        expect(errors).to.have.length(1);
        expect(errors[0]).to.match(new RegExp(`^${text.split(':')[0]}: [^\n\r]+$`));
      });
    }
  });

  describe('the command line', () => {
    it('accepts --flag value and --flag=value and uses the last occurrence of a flag', () => {
      expect(flagsOf('--namespace', 'a', '--log-level=debug', '--namespace=b')).to.deep.equal({
        namespace: 'b',
        'log-level': 'debug',
      });
    });

    it('requests help, the version and a configuration file', () => {
      expect(parseCommandLine([])).to.deep.equal({
        commandLine: { version: false, configFile: undefined, flags: {} },
      });
      for (const flag of ['--help', '-h']) {
        expect(parseCommandLine([flag])).to.deep.equal({ help: helpText() });
      }
      expect(parseCommandLine(['--version', '--config', 'a.yaml'])).to.deep.equal({
        commandLine: { version: true, configFile: 'a.yaml', flags: {} },
      });
    });

    for (const { argv, want } of [
      { argv: ['--nothing'], want: /--nothing/ },
      { argv: ['--nothing=5'], want: /--nothing/ },
      { argv: ['-x'], want: /-x/ },
      { argv: ['serve'], want: /serve/ },
      { argv: ['--', 'serve'], want: /serve/ },
      { argv: ['--namespace'], want: /--namespace/ },
      { argv: ['--namespace', '--log-level', 'debug'], want: /--namespace/ },
      { argv: ['--namespace', '-1'], want: /--namespace/ },
      { argv: ['--help=yes'], want: /--help/ },
      { argv: ['--no-help'], want: /--no-help/ },
      { argv: ['--__proto__=1'], want: /__proto__/ },
      { argv: ['--constructor=1'], want: /constructor/ },
    ]) {
      it(`rejects ${argv.join(' ')} with one line that names the argument`, () => {
        const [error, ...more] = argumentErrors(...argv);
        expect(more).to.deep.equal([]);
        expect(error).to.match(want);
        expect(error).to.match(/^[^\n\r]{5,200}$/);
      });
    }
  });

  describe('auth and TLS', () => {
    const serverFiles = { 'tls-cert': TLS['tls-cert'], 'tls-key': TLS['tls-key'] };
    const fields = { tlsCert: '/tls/tls.crt', tlsKey: '/tls/tls.key', tlsClientCa: '/tls/ca.crt' };

    for (const auth of ['mtls', 'mtls-or-token']) {
      it(`accepts ${auth} with a certificate, a key and a client CA`, () => {
        expect(configOf({ auth, ...TLS })).to.include({ auth, ...fields });
      });
    }

    for (const auth of ['token', 'insecure']) {
      it(`accepts ${auth} with a certificate and a key`, () => {
        expect(configOf({ auth, ...serverFiles })).to.include({ auth, ...fields, tlsClientCa: undefined });
      });
    }

    for (const { flags, want } of [
      { flags: { auth: 'token' }, want: [/^--tls-cert: .*--auth token$/, /^--tls-key: .*--auth token$/] },
      { flags: { auth: 'token', 'tls-cert': 'c' }, want: [/^--tls-key: /] },
      { flags: { auth: 'mtls', ...serverFiles }, want: [/^--tls-client-ca: .*--auth mtls$/] },
      { flags: { auth: 'mtls-or-token', 'tls-client-ca': 'c' }, want: [/^--tls-cert: /, /^--tls-key: /] },
      { flags: { auth: 'token', ...TLS }, want: [/^--tls-client-ca: not allowed with --auth token/] },
      { flags: { auth: 'insecure', ...TLS }, want: [/^--tls-client-ca: not allowed with --auth insecure/] },
      { flags: { auth: 'insecure', 'tls-cert': 'c' }, want: [/^--tls-key: required with --tls-cert$/] },
      { flags: { auth: 'insecure', 'tls-key': 'k' }, want: [/^--tls-cert: required with --tls-key$/] },
    ]) {
      it(`rejects ${JSON.stringify(flags)} with one line per conflict`, () => {
        const errors = errorsOf(flags);
        expect(errors).to.have.length(want.length);
        for (const [i, pattern] of want.entries()) expect(errors[i]).to.match(pattern);
      });
    }
  });

  describe('--help', () => {
    it('lists every flag once, with its default', () => {
      const help = helpText();
      const listed = [...help.matchAll(/^ {2}(?:-h, )?--([a-z-]+)/gm)].map(([, key]) => key);
      const keys = new Set([...[...valid, ...invalid].map(({ key }) => key), ...Object.keys(TLS)]);
      expect(listed).to.have.same.members([...keys, 'config', 'version', 'help']);
      for (const key of keys) {
        const [, description] = new RegExp(`^ {2}--${key} [^\n]+\n +([^\n]+)$`, 'm').exec(help) ?? [];
        expect(description).to.match(key === 'auth' ? /\(required\)/ : /\(default: [^)]+\)/, key);
      }
    });

    it('lists only flags that are accepted', () => {
      for (const [, flag = '', metavar] of helpText().matchAll(/^ {2}(--[a-z-]+)( [A-Za-z|:]+)?$/gm)) {
        const argv = [flag, ...(metavar === undefined ? [] : ['x'])];
        expect(parseCommandLine(argv)).to.have.property('commandLine');
      }
    });

    it('lists the flags in the configuration table of the README, and those that it omits', () => {
      const readme = readFileSync(join(import.meta.dirname, '..', '..', 'README.md'), 'utf8');
      const [, section = ''] = /^## Configuration\n([^]*?)^## /m.exec(readme) ?? [];
      // The first column; a cell can contain two flags.
      const lines = section.matchAll(/^\|([^|]+)\|/gm);
      const documented = Array.from(lines, ([, cell = '']) => cell.match(/--[a-z][a-z-]*/g) ?? []).flat();
      const listed = Array.from(helpText().matchAll(/^ {2}(?:-h, )?(--[a-z-]+)/gm), ([, flag]) => flag);
      expect(documented).to.have.same.members(listed.filter((flag = '') => !(flag in UNDOCUMENTED_FLAGS)));
    });

    it('fits into 120 columns', () => {
      for (const line of helpText().split('\n')) expect(line.length).to.be.at.most(120, line);
    });
  });
});

/** Returns a YAML document whose aliases would expand to 10^9 entries. */
function billionLaughs(): string {
  const lines = ['a: &a [x, x, x, x, x, x, x, x, x, x]'];
  for (let level = 0; level < 8; level += 1) {
    const [from, to] = [String.fromCharCode(97 + level), String.fromCharCode(98 + level)];
    lines.push(`${to}: &${to} [${Array<string>(10).fill(`*${from}`).join(', ')}]`);
  }
  return `${lines.join('\n')}\n`;
}
