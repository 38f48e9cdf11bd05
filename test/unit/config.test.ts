import { expect } from 'chai';
import { helpText, parseCommandLine, readConfig, type Config } from '../../src/config.ts';

/** What is required, so that a test can be about something else. */
const CHOSEN = { auth: 'insecure' };

/** The files of TLS, which need each other. */
const TLS = { 'tls-cert': '/tls/tls.crt', 'tls-key': '/tls/tls.key', 'tls-client-ca': '/tls/ca.crt' };

function configOf(flags: Record<string, unknown>, fileText?: string): Config {
  const result = readConfig(flags, fileText);
  if ('errors' in result) throw new Error(`refused: ${result.errors.join('; ')}`);
  return result.config;
}

function mistakesOf(flags: Record<string, unknown>, fileText?: string): readonly string[] {
  const result = readConfig(flags, fileText);
  return 'errors' in result ? result.errors : [];
}

function flagsOf(...argv: string[]): Readonly<Record<string, unknown>> {
  const result = parseCommandLine(argv);
  if ('error' in result) throw new Error(`refused: ${result.error}`);
  return result.commandLine.flags;
}

function mistakeOf(...argv: string[]): string {
  const result = parseCommandLine(argv);
  return 'error' in result ? result.error : 'none';
}

describe('config', () => {
  it('is the default throughout where nothing but auth is said', () => {
    expect(configOf(CHOSEN)).to.deep.equal({
      grpcAddress: '0.0.0.0:18000',
      httpAddress: '0.0.0.0:8080',
      kubeconfig: undefined,
      namespace: undefined,
      replicaId: undefined,
      reportIntervalMs: 5000,
      unknownAfterMs: 30_000,
      expireAfterMs: 300_000,
      onInvalid: 'skip',
      grpcReflection: false,
      maxMessageSizeBytes: 64 * 1024 * 1024,
      maxTunnelsPerReporter: 500_000,
      writeConcurrency: 64,
      auth: 'insecure',
      tlsCert: undefined,
      tlsKey: undefined,
      tlsClientCa: undefined,
      tokenAudience: 'reverse-tunnel-operator',
      maxStreamAgeMs: 3_600_000,
      logLevel: 'info',
    });
  });

  /** Of each setting the values at its bounds, as flags and in the file alike. */
  const right: { key: string; text: string; in: Partial<Config> }[] = [
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
    { key: 'on-invalid', text: 'nack', in: { onInvalid: 'nack' } },
    { key: 'grpc-reflection', text: 'true', in: { grpcReflection: true } },
    { key: 'grpc-reflection', text: 'false', in: { grpcReflection: false } },
    { key: 'max-message-size', text: '1Ki', in: { maxMessageSizeBytes: 1024 } },
    { key: 'max-message-size', text: '1Gi', in: { maxMessageSizeBytes: 1024 ** 3 } },
    { key: 'max-message-size', text: '5000000', in: { maxMessageSizeBytes: 5_000_000 } },
    { key: 'max-tunnels-per-reporter', text: '1', in: { maxTunnelsPerReporter: 1 } },
    { key: 'max-tunnels-per-reporter', text: '10000000', in: { maxTunnelsPerReporter: 10_000_000 } },
    { key: 'write-concurrency', text: '1', in: { writeConcurrency: 1 } },
    { key: 'write-concurrency', text: '1024', in: { writeConcurrency: 1024 } },
    {
      key: 'token-audience',
      text: 'https://tunnels.example',
      in: { tokenAudience: 'https://tunnels.example' },
    },
    { key: 'max-stream-age', text: '10s', in: { maxStreamAgeMs: 10_000 } },
    { key: 'max-stream-age', text: '168h', in: { maxStreamAgeMs: 604_800_000 } },
    { key: 'max-stream-age', text: '0', in: { maxStreamAgeMs: 3_600_000 } },
    { key: 'log-level', text: 'silent', in: { logLevel: 'silent' } },
  ];
  for (const { key, text, in: want } of right) {
    it(`${key} may be ${text.slice(0, 20)}, on the command line and in the file`, () => {
      expect(configOf(flagsOf('--auth=insecure', `--${key}`, text))).to.deep.equal({
        ...configOf(CHOSEN),
        ...want,
      });
      expect(configOf({}, `auth: insecure\n${key}: ${JSON.stringify(text)}\n`)).to.deep.include(want);
    });
  }

  const wrong: { key: string; texts: string[]; allowed: RegExp }[] = [
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
      allowed: /must be host:port .* 0 to 65535/,
    },
    { key: 'http-address', texts: ['', '8080', '0.0.0.0:99999'], allowed: /must be host:port .* 0 to 65535/ },
    { key: 'kubeconfig', texts: [''], allowed: /must not be empty/ },
    {
      key: 'namespace',
      texts: ['', 'Upper', 'under_score', '-a', 'a-', 'a.b', 'x'.repeat(64), 'ünder'],
      allowed: /at most 63 lower-case letters, digits and dashes/,
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
      allowed: /must be a duration from 25ms to 1h/,
    },
    { key: 'replica-id', texts: ['', '-a', 'a b', 'x'.repeat(254)], allowed: /must be at most 253 letters/ },
    { key: 'unknown-after', texts: ['1ms', '30', '169h'], allowed: /must be a duration from 1s to 168h/ },
    { key: 'expire-after', texts: ['0.5s', '-5m'], allowed: /must be a duration from 1s to 168h/ },
    { key: 'on-invalid', texts: ['', 'Skip', 'drop', 'skip,nack'], allowed: /must be one of skip, nack/ },
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
      allowed: /must be a size from 1Ki to 1Gi/,
    },
    {
      key: 'max-tunnels-per-reporter',
      texts: ['', '0', '-1', '10000001', '1.5', '1e3', '1,000', '0x10', '9'.repeat(400)],
      allowed: /must be a whole number from 1 to 10000000/,
    },
    {
      key: 'write-concurrency',
      texts: ['', '0', '1025', 'many', '64 '],
      allowed: /must be a whole number from 1 to 1024/,
    },
    {
      key: 'auth',
      texts: ['', 'none', 'Insecure', 'mTLS'],
      allowed: /must be one of mtls, token, mtls-or-token, insecure/,
    },
    {
      key: 'token-audience',
      texts: ['', 'a b', 'é', 'x'.repeat(257)],
      allowed: /must be 1 to 256 printable/,
    },
    { key: 'max-stream-age', texts: ['9s', '169h', '1', ''], allowed: /must be a duration from 10s to 168h/ },
    {
      key: 'log-level',
      texts: ['', 'INFO', 'verbose', 'warning'],
      allowed: /must be one of trace, debug, info, warn, error, silent/,
    },
  ];
  for (const { key, texts, allowed } of wrong) {
    for (const text of texts) {
      it(`${key} may not be ${JSON.stringify(text.slice(0, 24))}: one line names key, value and what is allowed`, () => {
        for (const { mistakes, name } of [
          { mistakes: mistakesOf({ ...CHOSEN, ...flagsOf(`--${key}=${text}`) }), name: `--${key}` },
          {
            mistakes: mistakesOf(key === 'auth' ? {} : CHOSEN, `${key}: ${JSON.stringify(text)}`),
            name: key,
          },
        ]) {
          expect(mistakes).to.have.length(1);
          expect(mistakes[0])
            .to.match(allowed)
            .and.not.match(/[\n\r]/);
          expect(mistakes[0]?.startsWith(`${name}: ${JSON.stringify(text)} `)).to.equal(true, mistakes[0]);
        }
      });
    }
  }

  it('auth is missing: one line says that it is required', () => {
    const [mistake, ...more] = mistakesOf({});
    expect(mistake).to.match(/^auth: must be one of/);
    expect(more).to.deep.equal([]);
  });

  it('all mistakes are told at once', () => {
    expect(mistakesOf({ 'grpc-address': 'x' }, 'auth: no\nreport-interval: 1ms\nfoo: 1\n')).to.have.length(4);
  });

  describe('the file', () => {
    it('is overruled by a flag, also where its own value is wrong', () => {
      const file = 'auth: insecure\nreport-interval: 10s\nnamespace: from-file\nlog-level: loud\n';
      const config = configOf(flagsOf('--report-interval', '20s', '--log-level=warn'), file);
      expect(config).to.deep.include({ reportIntervalMs: 20_000, namespace: 'from-file', logLevel: 'warn' });
    });

    it('may say numbers as numbers', () => {
      const file =
        'auth: insecure\nmax-message-size: 2048\nmax-tunnels-per-reporter: 1_000\nwrite-concurrency: 8\n';
      expect(mistakesOf({}, file)).to.have.length(1);
      expect(configOf({}, file.replace('_', ''))).to.deep.include({
        maxMessageSizeBytes: 2048,
        maxTunnelsPerReporter: 1000,
        writeConcurrency: 8,
      });
    });

    it('may say namespace and kubeconfig as anything YAML takes for a number or a date', () => {
      expect(configOf(CHOSEN, 'namespace: 2024-01-01\nkubeconfig: 12\n')).to.deep.include({
        namespace: '2024-01-01',
        kubeconfig: '12',
      });
    });

    it('names no value: the default holds', () => {
      expect(configOf(CHOSEN, 'report-interval:\nnamespace: null\n')).to.deep.equal(configOf(CHOSEN));
    });

    for (const text of ['', '# only a comment\n', '---\n', '{}', 'null']) {
      it(`holds nothing (${JSON.stringify(text)}): the defaults hold`, () => {
        expect(configOf(CHOSEN, text)).to.deep.equal(configOf(CHOSEN));
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
      it(`has the key ${key}, which unknown setting: one line names it`, () => {
        const mistakes = mistakesOf(CHOSEN, `"${key}": 1\n`);
        expect(mistakes).to.have.length(1);
        expect(mistakes[0]).to.match(new RegExp(`^${key}: unknown setting`));
      });
    }

    for (const { what, text } of [
      { what: 'a list', text: '- auth: insecure\n' },
      { what: 'a bare word', text: 'insecure\n' },
      { what: 'a number', text: '5\n' },
      { what: 'no YAML', text: 'a: [1\nb: 2\n' },
      { what: 'a tab for an indent', text: 'a:\n\t- 1\n' },
      { what: 'a key twice', text: 'namespace: a\nnamespace: b\n' },
      { what: 'two documents', text: 'namespace: a\n---\nnamespace: b\n' },
      { what: 'an alias that nothing has', text: 'namespace: *nothing\n' },
      { what: 'aliases that grow without end', text: bomb() },
    ]) {
      it(`is ${what}: one line says so`, () => {
        const mistakes = mistakesOf(CHOSEN, text);
        expect(mistakes).to.have.length(1);
        expect(mistakes[0]).to.match(/^--config: [^\n\r]+$/);
      });
    }

    for (const { what, text } of [
      { what: 'a list', text: 'namespace: [a]\n' },
      { what: 'a list, where any text would do', text: 'kubeconfig: [a]\n' },
      { what: 'a map', text: 'namespace: {a: b}\n' },
      { what: 'true', text: 'on-invalid: true\n' },
      { what: 'not a number', text: 'write-concurrency: .nan\n' },
      { what: 'endless', text: 'write-concurrency: .inf\n' },
      { what: 'itself', text: 'namespace: &itself [*itself]\n' },
    ]) {
      it(`has a value that is ${what}: one line names its key`, () => {
        const mistakes = mistakesOf(CHOSEN, text);
        expect(mistakes).to.have.length(1);
        expect(mistakes[0]).to.match(new RegExp(`^${text.split(':')[0]}: [^\n\r]+$`));
      });
    }
  });

  describe('the command line', () => {
    it('takes --flag value and --flag=value; of a flag that stands twice the last counts', () => {
      expect(flagsOf('--namespace', 'a', '--log-level=debug', '--namespace=b')).to.deep.equal({
        namespace: 'b',
        'log-level': 'debug',
      });
    });

    it('asks for help, version and a file', () => {
      expect(parseCommandLine([])).to.deep.equal({
        commandLine: { help: false, version: false, configFile: undefined, flags: {} },
      });
      for (const flag of ['--help', '-h']) {
        expect(parseCommandLine([flag])).to.deep.include({
          commandLine: { help: true, version: false, configFile: undefined, flags: {} },
        });
      }
      expect(parseCommandLine(['--version', '--config', 'a.yaml'])).to.deep.equal({
        commandLine: { help: false, version: true, configFile: 'a.yaml', flags: {} },
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
      it(`${argv.join(' ')} is refused in one line that names it`, () => {
        const mistake = mistakeOf(...argv);
        expect(mistake).to.match(want);
        expect(mistake).to.match(/^[^\n\r]{5,200}$/);
      });
    }
  });

  describe('auth and TLS', () => {
    const ofServer = { 'tls-cert': TLS['tls-cert'], 'tls-key': TLS['tls-key'] };
    const fields = { tlsCert: '/tls/tls.crt', tlsKey: '/tls/tls.key', tlsClientCa: '/tls/ca.crt' };

    for (const auth of ['mtls', 'mtls-or-token']) {
      it(`${auth} has a certificate, a key and a CA for its peers`, () => {
        expect(configOf({ auth, ...TLS })).to.include({ auth, ...fields });
      });
    }

    for (const auth of ['token', 'insecure']) {
      it(`${auth} has a certificate and a key`, () => {
        expect(configOf({ auth, ...ofServer })).to.include({ auth, ...fields, tlsClientCa: undefined });
      });
    }

    for (const { flags, want } of [
      { flags: { auth: 'token' }, want: [/^--tls-cert: .*--auth token$/, /^--tls-key: .*--auth token$/] },
      { flags: { auth: 'token', 'tls-cert': 'c' }, want: [/^--tls-key: /] },
      { flags: { auth: 'mtls', ...ofServer }, want: [/^--tls-client-ca: .*--auth mtls$/] },
      { flags: { auth: 'mtls-or-token', 'tls-client-ca': 'c' }, want: [/^--tls-cert: /, /^--tls-key: /] },
      { flags: { auth: 'token', ...TLS }, want: [/^--tls-client-ca: not allowed with --auth token/] },
      { flags: { auth: 'insecure', ...TLS }, want: [/^--tls-client-ca: not allowed with --auth insecure/] },
      { flags: { auth: 'insecure', 'tls-cert': 'c' }, want: [/^--tls-key: required with --tls-cert$/] },
      { flags: { auth: 'insecure', 'tls-key': 'k' }, want: [/^--tls-cert: required with --tls-key$/] },
    ]) {
      it(`${JSON.stringify(flags)} do not go together: one line each`, () => {
        const mistakes = mistakesOf(flags);
        expect(mistakes).to.have.length(want.length);
        for (const [i, pattern] of want.entries()) expect(mistakes[i]).to.match(pattern);
      });
    }
  });

  describe('--help', () => {
    it('lists every flag once, with its default or what holds otherwise', () => {
      const help = helpText();
      const listed = [...help.matchAll(/^ {2}--([a-z-]+)/gm)].map(([, key]) => key);
      const keys = new Set([...[...right, ...wrong].map(({ key }) => key), ...Object.keys(TLS)]);
      expect(listed).to.have.same.members([...keys, 'config', 'version', 'help']);
      for (const key of keys) {
        const [, about] = new RegExp(`^ {2}--${key} [^\n]+\n +([^\n]+)$`, 'm').exec(help) ?? [];
        expect(about).to.match(key === 'auth' ? /\(required\)/ : /\(default: [^)]+\)/, key);
      }
    });

    it('every flag that it lists is taken', () => {
      for (const [, flag = '', placeholder] of helpText().matchAll(/^ {2}(--[a-z-]+)( [A-Za-z|:]+)?$/gm)) {
        expect(mistakeOf(flag, ...(placeholder === undefined ? [] : ['x']))).to.equal('none', flag);
      }
    });

    it('fits a terminal', () => {
      for (const line of helpText().split('\n')) expect(line.length).to.be.at.most(120, line);
    });
  });
});

/** A YAML document whose aliases would unfold to 10^9 entries. */
function bomb(): string {
  const lines = ['a: &a [x, x, x, x, x, x, x, x, x, x]'];
  for (let level = 0; level < 8; level += 1) {
    const [from, to] = [String.fromCharCode(97 + level), String.fromCharCode(98 + level)];
    lines.push(`${to}: &${to} [${Array<string>(10).fill(`*${from}`).join(', ')}]`);
  }
  return `${lines.join('\n')}\n`;
}
