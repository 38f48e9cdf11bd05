import { expect } from 'chai';
import type { Terminal } from '../../src/cli/terminal.ts';
import { parseCommand } from '../../src/simulate/command-options.ts';
import { runSimulate } from '../../src/simulate/simulate.ts';

const DEFAULTS = {
  address: '127.0.0.1:18000',
  reporters: 10,
  tunnels: 100,
  tenants: 4,
  clusters: 2,
  churn: 0,
  flap: 0,
  intervalMs: 5000,
  durationMs: 0,
  seed: 1,
  tenantIsolation: false,
  identity: {
    caFile: undefined,
    certFile: undefined,
    keyFile: undefined,
    serverName: undefined,
    tokenFile: undefined,
  },
};

/** Runs the command with a terminal that fails if a fleet is started. */
async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const printed = { out: '', err: '' };
  const terminal: Terminal = {
    out: (text) => void (printed.out += text),
    err: (text) => void (printed.err += text),
    canRedraw: false,
    errColumns: () => undefined,
    get interrupted(): never {
      throw new Error('a fleet was started');
    },
  };
  return { code: await runSimulate(argv, terminal), ...printed };
}

describe('flags of the simulate command', () => {
  it('reads the files by which reporters authenticate', () => {
    const argv = ['--tls-ca=ca.crt', '--tls-cert=c.crt', '--tls-key=c.key', '--tls-server-name=rto.edge.svc'];
    const parsed = parseCommand([...argv, '--token-file', '/var/run/token']);
    expect('options' in parsed && parsed.options.identity).to.deep.equal({
      caFile: 'ca.crt',
      certFile: 'c.crt',
      keyFile: 'c.key',
      serverName: 'rto.edge.svc',
      tokenFile: '/var/run/token',
    });
  });

  for (const { argv, want } of [
    {
      argv: ['--tls-ca=ca.crt', '--tls-cert=c.crt'],
      want: /^--tls-cert, --tls-key: must be set together$/,
    },
    { argv: ['--token-file=t'], want: /^--token-file: "t" requires --tls-ca$/ },
    {
      argv: ['--tls-ca=ca.crt', '--tls-server-name=a b'],
      want: /^--tls-server-name: "a b" must be a DNS name$/,
    },
  ]) {
    it(`rejects ${argv.join(' ')} with one line`, () => {
      const parsed = parseCommand(argv);
      const errors = 'errors' in parsed ? parsed.errors : [];
      expect(errors).to.have.length(1);
      expect(errors[0]).to.match(want);
    });
  }

  it('names a file that cannot be read and exits with 2', async () => {
    const { code, err } = await run('--tls-ca', '/nowhere/ca.crt');
    expect(code).to.equal(2);
    expect(err).to.match(/^simulate: .*\/nowhere\/ca\.crt.*\n$/);
  });

  it('has a default for each flag', () => {
    expect(parseCommand([])).to.deep.equal({ options: DEFAULTS });
  });

  it('accepts values after a space or an equals sign', () => {
    const argv = [
      '--address',
      '[::1]:9',
      '--reporters=2',
      '--tunnels',
      '0',
      '--tenants',
      '3',
      '--clusters',
      '5',
    ];
    const more = [
      '--churn',
      '0.5',
      '--flap',
      '2',
      '--interval',
      '250ms',
      '--duration=5m',
      '--seed',
      '4294967295',
    ];
    expect(parseCommand([...argv, ...more, '--tenant-isolation'])).to.deep.equal({
      options: {
        address: '[::1]:9',
        reporters: 2,
        tunnels: 0,
        tenants: 3,
        clusters: 5,
        churn: 0.5,
        flap: 2,
        intervalMs: 250,
        durationMs: 300_000,
        seed: 4_294_967_295,
        tenantIsolation: true,
        identity: DEFAULTS.identity,
      },
    });
  });

  for (const [argv, line] of [
    [['--reporters', '0'], '--reporters: "0" must be a whole number from 1 to 10000'],
    [['--reporters', '1.5'], '--reporters: "1.5" must be a whole number from 1 to 10000'],
    [['--tunnels', '-5'], '--tunnels: "-5" must be a whole number from 0 to 1000000'],
    [['--tunnels', '1e3'], '--tunnels: "1e3" must be a whole number from 0 to 1000000'],
    [['--tunnels='], '--tunnels: "" must be a whole number from 0 to 1000000'],
    [['--churn', 'much'], '--churn: "much" must be a number from 0 to 100000, decimals allowed'],
    [
      ['--interval', '24ms'],
      '--interval: "24ms" must be a duration from 25ms to 1h, such as 250ms, 30s or 5m',
    ],
    [['--interval', '5'], '--interval: "5" must be a duration from 25ms to 1h, such as 250ms, 30s or 5m'],
    [
      ['--duration', '169h'],
      '--duration: "169h" must be a duration from 0s to 168h, such as 250ms, 30s or 5m',
    ],
    [['--duration'], '--duration: requires a value'],
    [['--seed', '4294967296'], '--seed: "4294967296" must be a whole number from 0 to 4294967295'],
    [
      ['--address', 'localhost'],
      '--address: "localhost" must be host:port with a port from 1 to 65535, such as 127.0.0.1:18000 or [::1]:18000',
    ],
    [['--adress', 'localhost:1'], "unknown option '--adress' (Did you mean --address?)"],
    [['now'], 'too many arguments. Expected 0 arguments but got 1: now.'],
    [['--tenant-isolation=yes'], "unknown option '--tenant-isolation=yes'"],
    [
      ['--reporters', '10000', '--tunnels', '1000000'],
      '--reporters, --tunnels: "10000000000" must be at most 5000000 tunnels in total',
    ],
  ] as const) {
    it(`rejects ${argv.join(' ')} with one line on stderr and exit code 2, before anything starts`, async () => {
      const err = `simulate: ${line}\nsimulate: see --help for all flags\n`;
      expect(await run(...argv)).to.deep.equal({ code: 2, out: '', err });
    });
  }

  it('reports all invalid values at once', async () => {
    const { err } = await run('--reporters', 'x', '--tunnels', 'y');
    expect(err.split('\n')).to.have.length(4);
  });

  it('describes every flag and its range for --help, and exits with 0', async () => {
    const { code, out, err } = await run('--help');
    expect(code).to.equal(0);
    expect(err).to.equal('');
    for (const flag of [
      'address',
      'reporters',
      'tunnels',
      'tenants',
      'clusters',
      'churn',
      'flap',
      'interval',
    ]) {
      expect(out).to.match(new RegExp(`--${flag} (?:HOST:PORT|\\w+\\n +.* from )`));
    }
    for (const flag of ['duration', 'seed', 'tenant-isolation', 'help']) {
      expect(out).to.match(new RegExp(`--${flag}[ \\n]`));
    }
  });
});
