/** The command lines of all commands: a declarative description of flags on top of commander. */
import { Argument, Command, CommanderError, Option } from 'commander';
import type { ReadValue, ValueRange } from './flag-values.ts';

/** Exit codes of all commands. */
export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;

/** Maximum width of a line of `--help`. */
const HELP_WIDTH = 120;
const DESCRIPTION_INDENT = 8;

/** A flag that takes a value, as `--name value` or `--name=value`; the last occurrence counts. */
export interface ValueFlag<T> {
  /** One letter, without the dash. */
  readonly short?: string;
  /** Placeholder of the value in `--help`. */
  readonly metavar: string;
  readonly description: string;
  /** Default, as a user would write it. Without one the value of an omitted flag is undefined. */
  readonly default?: string;
  /** Describes in `--help` what applies if the flag is omitted. */
  readonly defaultText?: string;
  /** Whether omitting the flag is an error. */
  readonly required?: true;
  /** Whether the flag can be given more than once; its value is then an array. */
  readonly repeatable?: true;
  readonly read: ReadValue<T>;
}

/** A flag that takes no value and is false by default. */
export interface SwitchFlag {
  /** One letter, without the dash. */
  readonly short?: string;
  readonly description: string;
}

/** Flags by name, without the leading dashes. `help` is always added. */
export type Flags = Readonly<Record<string, ValueFlag<unknown> | SwitchFlag>>;

/** What a command accepts, and its `--help`. */
export interface CommandDescription<F extends Flags = Flags> {
  /** One line per form, starting with the name of the program. */
  readonly usage: readonly string[];
  readonly description: string;
  /** What may follow the flags or be between them, any number of times. Default: nothing. */
  readonly operand?: { readonly metavar: string; readonly description: string };
  readonly flags: F;
  /** Printed below the flags: notations and exit codes. */
  readonly footer: string;
}

/** Values as they were given, before they are checked, by flag name. Omitted flags are missing. */
export type RawFlags = Readonly<Record<string, unknown>>;

type FlagValue<F> =
  F extends ValueFlag<infer T>
    ? F extends { readonly repeatable: true }
      ? readonly T[]
      : F extends { readonly default: string } | { readonly required: true }
        ? T
        : T | undefined
    : boolean;

/** The checked value of each flag, by name. */
export type FlagValues<F extends Flags> = { readonly [K in keyof F]: FlagValue<F[K]> };

/** One line per error, each naming the flag, the value and the valid range. */
export interface FlagErrors {
  readonly errors: readonly string[];
}

/**
 * Parses and checks a command line. `--help` takes precedence over errors.
 *
 * @param argv the arguments after the name of the command
 */
export function parseFlags<F extends Flags>(
  command: CommandDescription<F>,
  argv: readonly string[],
):
  | { readonly values: FlagValues<F>; readonly operands: readonly string[] }
  | { readonly help: string }
  | FlagErrors {
  const parsed = parseArguments(command, argv);
  if (!('raw' in parsed)) return parsed;
  const read = readFlags(command.flags, parsed.raw);
  return 'values' in read ? { ...read, operands: parsed.operands } : read;
}

/**
 * Parses a command line without checking the values, for a command that merges them with a file.
 *
 * @param argv the arguments after the name of the command
 */
export function parseArguments(
  description: CommandDescription,
  argv: readonly string[],
): { readonly raw: RawFlags; readonly operands: readonly string[] } | { readonly help: string } | FlagErrors {
  let help = '';
  const command = createCommand(description, (text) => (help += text));
  try {
    command.parse(withSwitchValues(description.flags, argv), { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === 'commander.helpDisplayed') return { help };
    // A suggestion for a misspelled flag follows on a second line.
    return { errors: [error.message.replace(/^error: /, '').replaceAll('\n', ' ')] };
  }
  const values = command.opts<Record<string, unknown>>();
  const raw: Record<string, unknown> = {};
  const errors: string[] = [];
  for (const option of command.options) {
    const value = values[option.attributeName()];
    if (option.optional && value === true) errors.push(`--${option.name()}: requires a value`);
    // For `--no-x`, commander has a value `x` that is true unless the flag is given.
    else if (option.negate) raw[option.name()] = value === false;
    else if (value !== undefined) raw[option.name()] = value;
  }
  return errors.length > 0 ? { errors } : { raw, operands: command.args };
}

/**
 * Checks values from a command line and a file. The command line takes precedence.
 *
 * @param file values of a configuration file, by flag name; null stands for the default
 */
export function readFlags<F extends Flags>(
  flags: F,
  raw: RawFlags,
  file: RawFlags = {},
): { readonly values: FlagValues<F> } | FlagErrors {
  const errors: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [name, flag] of Object.entries(flags)) {
    const rawValue = raw[name] ?? file[name] ?? undefined;
    const source = raw[name] === undefined ? name : `--${name}`;
    if (!('read' in flag)) values[name] = rawValue === true;
    else if (flag.repeatable === true) {
      const list = Array.isArray(rawValue) ? rawValue : [];
      values[name] = list.map((item) => readValue(flag, source, item, errors));
    } else values[name] = readValue(flag, source, rawValue, errors);
  }
  return errors.length > 0 ? { errors } : { values: values as FlagValues<F> };
}

/** Rewrites `--switch=true` and `--switch=false`, which kubectl accepts for its own switches. */
function withSwitchValues(flags: Flags, argv: readonly string[]): string[] {
  return argv.flatMap((argument) => {
    const [, name = '', value] = /^--([^=]+)=(true|false)$/.exec(argument) ?? [];
    const flag = flags[name];
    if (flag === undefined || 'read' in flag) return [argument];
    return value === 'true' ? [`--${name}`] : [];
  });
}

/** Returns the accepted values of the flags that describe them, by name. */
export function flagRanges(flags: Flags): Readonly<Record<string, ValueRange>> {
  return Object.fromEntries(
    Object.entries(flags).flatMap(([name, flag]) =>
      'read' in flag && flag.read.range !== undefined ? [[name, flag.read.range]] : [],
    ),
  );
}

/** Returns the text of `--help`. */
export function formatHelp(description: CommandDescription): string {
  let help = '';
  createCommand(description, (text) => (help += text)).outputHelp();
  return help;
}

/** Where a command writes its result and its errors. */
interface CommandOutput {
  out(text: string): void;
  err(text: string): void;
}

const PROCESS_OUTPUT: CommandOutput = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
};

/**
 * Ends a command that does not run: writes the help that was requested, or one line per error.
 *
 * @param output default: stdout and stderr of the process
 * @returns the exit code
 */
export function endWithUsage(
  command: string,
  result: { readonly help: string } | { readonly errors: readonly string[] },
  output = PROCESS_OUTPUT,
): number {
  if ('help' in result) {
    output.out(result.help);
    return EXIT_OK;
  }
  output.err([...result.errors, 'see --help for all flags'].map((line) => `${command}: ${line}\n`).join(''));
  return EXIT_USAGE;
}

function readValue<T>(
  flag: ValueFlag<T>,
  source: string,
  rawValue: unknown,
  errors: string[],
): T | undefined {
  if (typeof rawValue === 'object') {
    errors.push(`${source}: must be a single value, not a list or map`);
    return undefined;
  }
  const text = rawValue === undefined ? flag.default : stringify(rawValue);
  if (text === undefined && flag.required !== true) return undefined;
  const result = flag.read(text ?? '');
  if ('value' in result) return result.value;
  errors.push(`${source}: ${text === undefined ? '' : `${JSON.stringify(text)} `}${result.expected}`);
  return undefined;
}

function stringify(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function createCommand(description: CommandDescription, writeHelp: (text: string) => void): Command {
  const { usage, operand, flags, footer } = description;
  const command = new Command()
    .description(description.description)
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', `\n${footer}`)
    .exitOverride()
    .configureOutput({ writeOut: writeHelp, writeErr: () => undefined, getOutHelpWidth: () => HELP_WIDTH })
    .configureHelp({
      commandUsage: () => usage.join('\n       '),
      optionTerm: (option) => termOf(option, flags[option.name()]),
      optionDescription: (option) => describe(option, flags[option.name()]),
      formatItem(term, _termWidth, text, helper) {
        const indent = ' '.repeat(DESCRIPTION_INDENT);
        const wrapped = helper.boxWrap(text, HELP_WIDTH - DESCRIPTION_INDENT);
        return `  ${term}\n${indent}${wrapped.replaceAll('\n', `\n${indent}`)}`;
      },
    });
  if (operand !== undefined)
    command.addArgument(new Argument(`[${operand.metavar}...]`, operand.description));
  for (const [name, flag] of Object.entries(flags)) {
    const short = flag.short === undefined ? '' : `-${flag.short}, `;
    // "[value]" and not "<value>": commander would otherwise take a flag that follows for the value.
    const option = new Option(`${short}--${name}${'read' in flag ? ' [value]' : ''}`);
    if ('read' in flag && flag.repeatable === true) {
      option.argParser((value, previous: readonly string[] | undefined) => [...(previous ?? []), value]);
    }
    command.addOption(option);
  }
  return command;
}

function termOf(option: Option, flag: Flags[string] | undefined): string {
  const short = option.short === undefined ? '' : `${option.short}, `;
  const metavar = flag !== undefined && 'metavar' in flag ? ` ${flag.metavar}` : '';
  return `${short}${option.long}${metavar}`;
}

function describe(option: Option, flag: Flags[string] | undefined): string {
  if (flag === undefined) return option.description;
  const defaultText = 'read' in flag ? (flag.defaultText ?? flag.default) : undefined;
  return defaultText === undefined ? flag.description : `${flag.description} (default: ${defaultText})`;
}
